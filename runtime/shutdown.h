/* SPDX-License-Identifier: MIT */
#ifndef MAG_SHUTDOWN_H
#define MAG_SHUTDOWN_H
/*
 * shutdown.h - how a runtime comes to rest (shutdown.c)
 */
#include "worker.h"

/* From now on the tasks of that level are cancelled, those that come later too. */
void mag_shutdown_cancel(struct mag_rt *rt, enum mag_cancel_level level);

/*
 * Waits until nothing runs and nothing can begin: 0, and callbacks do not run any more; or
 * -ETIMEDOUT.  Detached tasks are cancelled at least.  By the owner of an embedded runtime;
 * another runtime's threads go on meanwhile.
 */
int mag_shutdown_drain(struct mag_rt *rt, mag_time deadline);

/* Says of each task that has not ended what it waits for. */
void mag_shutdown_report(struct mag_rt *rt);

/* Reports what nobody awaited, and frees every object that was made in the runtime, whose
 * workers are gone (NULL: of those that were made outside any, at the end of the process). */
void mag_shutdown_collect(struct mag_rt *rt);

#endif
