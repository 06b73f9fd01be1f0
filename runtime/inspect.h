/* SPDX-License-Identifier: MIT */
#ifndef MAG_INSPECT_H
#define MAG_INSPECT_H
/*
 * inspect.h - reports about tasks, for the watchdog (inspect.c)
 */
#include "worker.h"

#include <magpie/inspect.h>

/* mag_dump, a line at a time.  The number of tasks, or -ENOMEM. */
int mag_dump_say(struct mag_rt *rt, void (*line)(void *arg, const char *text), void *arg);

/* The figures of a worker; `is_running' and the like may be out of date. */
void mag_worker_look(struct mag_worker *w, struct mag_worker_stats *out);

#endif
