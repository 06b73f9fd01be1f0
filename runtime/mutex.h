/* SPDX-License-Identifier: MIT */
#ifndef MAG_MUTEX_H
#define MAG_MUTEX_H
/*
 * mutex.h - the mutex, for the condition (cond.c), whose waiters move into its queue
 */
#include "waitq.h"

#include <magpie/sync.h>

/* One who waits for a mutex, on its own stack. */
struct mag_turn {
    struct mag_queued queued;
    mag_time since;    /* [who has it popped] when it began to wait for the mutex */
    bool is_impatient; /* [q->lock] it is to be given the mutex, not just woken */
};

/*
 * Puts a waiter, which the caller has popped from another queue, behind those who wait for
 * the mutex.  What its wait returns (>= 0) it hands to mag_mutex_resume.  Any thread.
 */
void mag_mutex_requeue(struct mag_mutex *mutex, struct mag_turn *turn);

/* Goes on until the caller, who was requeued, has the mutex.  No cancellation point. */
void mag_mutex_resume(struct mag_mutex *mutex, struct mag_turn *me, int woken);

/* mag_mutex_lock that neither cancellation nor a deadline reaches. */
void mag_mutex_lock_shielded(struct mag_mutex *mutex);

#endif
