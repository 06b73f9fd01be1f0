/* SPDX-License-Identifier: MIT */
#ifndef MAG_SIGNAL_RUN_H
#define MAG_SIGNAL_RUN_H
/*
 * signal_run.h - Ctrl-C while something runs (signal_run.c)
 */
#include "ring.h"

/* What a thread that runs something waits for, in one futex word. */
enum { MAG_RUN_DONE = 1, MAG_RUN_INTERRUPTED = 2 };

struct mag_signal_run {
    struct mag_signal_run *next; /* [list] */
    mag_atomic(uint32_t) word;   /* [any] MAG_RUN_ bits; futex */
    struct mag_ring *ring;       /* [const] NULL, or the ring that the thread sleeps in */
    bool is_listed;              /* [owner] */
};

/*
 * Until `leave', SIGINT sets MAG_RUN_INTERRUPTED in run->word and wakes who waits there, if
 * the process had the default disposition when the first of several entered; a second SIGINT
 * kills.  Any thread; the two by the same.
 */
void mag_signal_enter(struct mag_signal_run *run);
void mag_signal_leave(struct mag_signal_run *run);

#endif
