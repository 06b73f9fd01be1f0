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
#include <magpie/fork.h>
#include <magpie/file.h>

#endif
