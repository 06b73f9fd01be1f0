/* SPDX-License-Identifier: MIT */
/*
 * abandon.c - a blocking call that its caller may leave behind
 *
 *      caller: submit, wait in the queue of one ---- woken: take the result ---- release
 *                                   `--- cancelled: leave at once -------------- release
 *      pool:   run; under the lock: done, pop who waits; wake it --------------- release
 *
 * The queue's lock decides between the end and a cancel, as for every primitive (waitq.h).  A
 * caller that leaves tries to take the job back from the lane's queue; if it has begun, the
 * thread finishes it for nobody, and disposes of it.
 *
 * Such a thread is lost to its lane until the call returns, so a lane full of calls that hang
 * holds up those behind it; those can be cancelled too.  And a runtime that ends waits for its
 * threads, also for these: a thread cannot be stopped from outside.
 *
 * Invariants
 *   1. Whoever holds a reference may touch the job; the last one disposes of it.
 *   2. The pool's reference is given back by done, or by who took the job back.
 *
 * Rejected: threads of their own for such calls, which a runtime would leave behind when it
 * ends (they would run into code that may have been unloaded).
 */
#include "abandon.h"

#include <errno.h>

static void pool_run(struct mag_job *j)
{
    struct mag_abandonable *job = mag_container_of(j, struct mag_abandonable, job);

    job->rc = job->run(job);
}

static void pool_done(struct mag_job *j)
{
    struct mag_abandonable *job = mag_container_of(j, struct mag_abandonable, job);
    struct mag_queued *caller;

    mag_spin_lock(&job->q.lock);
    job->is_done = true;
    caller = mag_waitq_pop(&job->q);
    mag_spin_unlock(&job->q.lock);
    if (caller)
        mag_waitq_wake(caller, 0);
    mag_abandon_release(job);
}

void mag_abandon_init(struct mag_abandonable *job, int (*run)(struct mag_abandonable *job),
                      void (*dispose)(struct mag_abandonable *job))
{
    *job = (struct mag_abandonable){ .run = run, .dispose = dispose };
    mag_job_init(&job->job, pool_run, pool_done);
    mag_store_relaxed(&job->n_refs, 1);
}

void mag_abandon_release(struct mag_abandonable *job)
{
    if (mag_fetch_sub(&job->n_refs, 1) == 1)
        job->dispose(job);
}

/* Until it is done: 0.  -ECANCELED. */
static int await_done(struct mag_abandonable *job, const struct mag_wait_kind *kind)
{
    struct mag_queued me;

    mag_spin_lock(&job->q.lock);
    if (!job->is_done)
        return mag_waitq_wait(&job->q, &me, kind, NULL, NULL);
    mag_spin_unlock(&job->q.lock);
    return 0;
}

int mag_abandon_wait(struct mag_abandonable *job, enum mag_lane lane,
                     const struct mag_wait_kind *kind)
{
    struct mag_offload *pool;
    int rc;

    if (!mag_wait_in_task()) {
        rc = mag_wait_outside();
        return rc < 0 ? rc : job->run(job);
    }
    rc = mag_wait_checkpoint();
    if (rc < 0)
        return rc;
    pool = &mag_worker_self()->rt->offload;
    mag_fetch_add(&job->n_refs, 1);
    rc = mag_offload_submit(pool, lane, &job->job);
    if (rc < 0) {
        mag_abandon_release(job);
        return rc;
    }
    rc = await_done(job, kind);
    if (rc == 0)
        return job->rc;
    if (mag_offload_cancel(pool, &job->job))
        mag_abandon_release(job); /* inv2 */
    return rc;
}
