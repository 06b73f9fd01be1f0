/* SPDX-License-Identifier: MIT */
#ifndef MAG_WATCHDOG_H
#define MAG_WATCHDOG_H
/*
 * watchdog.h - a thread that sees what the workers cannot say: that one is stuck, that all
 * wait for ever; one per runtime (watchdog.c)
 */
#include "worker.h"

struct mag_watchdog_options {
    /* A task that has not suspended for so long is reported; 0: what MAGPIE_SLOW_MS says (0:
     * never), else 100 ms; MAG_NEVER: none is. */
    mag_time slow_ns;
    bool dump_on_sigquit; /* also if the runtime is in debug mode */
};

/* The workers are up.  Without a thread if MAGPIE_WATCHDOG=0 is set.  0 or -errno. */
int mag_watchdog_start(struct mag_rt *rt, const struct mag_watchdog_options *options);

/* Before the workers stop: it signals their threads. */
void mag_watchdog_stop(struct mag_rt *rt);

/* When they have ended: a signal that came late may look at its memory until then. */
void mag_watchdog_free(struct mag_rt *rt);

#endif
