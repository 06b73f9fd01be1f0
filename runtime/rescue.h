/* SPDX-License-Identifier: MIT */
#ifndef MAG_RESCUE_H
#define MAG_RESCUE_H
/*
 * rescue.h - what waits on a worker that is stuck in a long computation (rescue.c)
 */
#include "worker.h"

/* Installs the signal handler, once for the process; 0 or -errno. */
int mag_rescue_install(void);

/*
 * To be called every few milliseconds while one task has kept that worker's thread from
 * suspending: by the watchdog's thread, which is no worker.  Has another worker take over
 * what became ready there.  Does nothing where nothing waits.
 */
void mag_rescue_worker(struct mag_worker *w);

#endif
