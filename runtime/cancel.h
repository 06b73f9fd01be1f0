/* SPDX-License-Identifier: MIT */
#ifndef MAG_CANCEL_H
#define MAG_CANCEL_H
/*
 * cancel.h - asking a task to stop (cancel.c)
 */
#include "worker.h"

/*
 * Around what ends the wait of a fiber whose home w is, on w's thread: the fiber cannot leave
 * meanwhile, and a cancel that this brings about is sent as a message.
 */
static inline void mag_cancel_hold(struct mag_worker *w)
{
    mag_spin_lock(&w->move_lock);
    mag_store_relaxed(&w->is_cancelling, true);
}

static inline void mag_cancel_release(struct mag_worker *w)
{
    mag_store_relaxed(&w->is_cancelling, false);
    mag_spin_unlock(&w->move_lock);
}

/* Cancels a task that has begun; any thread that holds it. */
void mag_cancel_task(struct mag_task *t);

/* On a worker's thread: cancels the tasks whose home it is, by rt->cancel_level. */
void mag_cancel_sweep(struct mag_message *m, struct mag_worker *w);

/* A cancel's message, delivered by a rescuer (rescue.c) in the place of w's owner: false if
 * it is something else, or needs the owner's own thread. */
bool mag_cancel_elsewhere(struct mag_message *m, struct mag_worker *w);

#endif
