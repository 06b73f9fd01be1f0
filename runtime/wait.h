/* SPDX-License-Identifier: MIT */
#ifndef MAG_WAIT_H
#define MAG_WAIT_H
/*
 * wait.h - what a task can be blocked in: a time, an operation, a job, another task
 *
 * Each of these suspends the calling task and is a cancellation point unless it says
 * otherwise; each returns only when nobody else refers to the caller's memory any
 * more.  Owner: the running task.  Outside a task, ask mag_wait_in_task() first.
 */
#include "worker.h"

/* Whether the caller can suspend. */
bool mag_wait_in_task(void);

/* Whether the caller, who is in no task, may block its thread instead: 0; -ENXIO, and a
 * sentence in debug mode, in a callback, which would block its worker. */
int mag_wait_outside(void);

/* -ECANCELED if the task is cancelled, or a deadline that it is under has passed, else 0;
 * lets the worker poll now and then. */
int mag_wait_checkpoint(void);

/*
 * What every cancellable wait begins with: -ECANCELED if the task is cancelled; else 0, the
 * wait is on record (fiber->wait) and the fiber's deadline, if it has one, is armed; or
 * -ENOMEM.  After 0 the caller suspends, which clears the record when it comes back, or
 * takes the record back by mag_wait_abandon.
 */
int mag_wait_begin(struct mag_fiber *f, struct mag_wait *wait);
static inline void mag_wait_abandon(struct mag_fiber *f)
{
    f->wait = NULL;
}

/* Suspends, after mag_wait_begin, in a wait that nothing binds to this worker: whoever wakes
 * the task may take it to another. */
void mag_wait_suspend_portable(struct mag_fiber *f);

/* Until that time. */
int mag_wait_until(mag_time deadline);

/*
 * Submits the operation (its `complete' is set here), waits for its own completion,
 * and returns op->result.  A cancel asks the ring to end it; a task that is cancelled
 * already does not submit it.  _shielded: not a cancellation point.
 */
int mag_wait_op(struct mag_op *op);
int mag_wait_op_shielded(struct mag_op *op);

/*
 * Runs fn(arg) on a pool thread: what it returned, -ECANCELED if it never began, or
 * -errno of the pool.  Outside a task: calls it.
 */
int mag_wait_job(enum mag_lane lane, int (*fn)(void *arg), void *arg);

/*
 * Until the task (or future) has ended: 0.  A cancel of the caller is passed on to
 * the task; a future is given up with -ECANCELED.  -EBUSY: somebody else waits.
 */
int mag_wait_task(struct mag_fiber *f, struct mag_task *t);

/* The same from a thread that is no worker, by blocking it. */
int mag_wait_task_outside(struct mag_task *t);

#endif
