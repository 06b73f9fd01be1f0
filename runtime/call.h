/* SPDX-License-Identifier: MIT */
#ifndef MAG_CALL_H
#define MAG_CALL_H
/*
 * call.h - callbacks, for who stops a runtime (call.c)
 */
#include "worker.h"

/*
 * Drops every callback of the runtime that has not run.  Its workers have left their loops
 * and their timers are gone.  A handle that is still held stays valid.
 */
void mag_call_drop_all(struct mag_rt *rt);

#endif
