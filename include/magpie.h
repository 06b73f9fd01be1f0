/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_H
#define MAGPIE_H
/*
 * magpie.h - asyncio for C, on all cores: the core, in reading order
 *
 * Plain functions, C11, clean as C++11, callable from any language.  The keywords
 * (async, await, gather, ...) are opt-in: <magpie/async.h>.
 */
#include <magpie/base.h>
#include <magpie/task.h>
#include <magpie/scope.h>
#include <magpie/sync.h>
#include <magpie/group.h>
#include <magpie/several.h>
#include <magpie/iter.h>
#include <magpie/vars.h>
#include <magpie/queue.h>
#include <magpie/select.h>
#include <magpie/inspect.h>
#include <magpie/fork.h>
#include <magpie/net.h>
#include <magpie/file.h>
#include <magpie/dir.h>
#include <magpie/process.h>
#include <magpie/signal.h>
#include <magpie/resolve.h>
#include <magpie/stream.h>
#include <magpie/server.h>
#include <magpie/udp.h>

#endif
