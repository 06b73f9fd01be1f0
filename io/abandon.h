/* SPDX-License-Identifier: MIT */
#ifndef MAG_ABANDON_H
#define MAG_ABANDON_H
/*
 * abandon.h - a blocking call that its caller may leave behind
 *
 * mag_wait_job (wait.h) waits for a job that has begun, because the job works on the caller's
 * memory.  Some calls take as long as they like, a look-up of a name a minute; then a caller
 * that is cancelled must leave at once.  So this job works on memory of its own, which the
 * caller and the pool hold together: whoever lets go last disposes of it.
 *
 *      struct lookup { struct mag_abandonable job; copies of the arguments; result; };
 *
 *      mag_abandon_init(&l->job, run, dispose);
 *      rc = mag_abandon_wait(&l->job, MAG_LANE_RESOLVER, &kind);
 *      if (rc >= 0)
 *          take the result out of it;
 *      mag_abandon_release(&l->job);           also after an error
 */
#include "waitq.h"

struct mag_abandonable {
    struct mag_job job;
    struct mag_waitq q;                           /* [q.lock] the caller, while it waits */
    int (*run)(struct mag_abandonable *job);      /* [const] the call that blocks */
    void (*dispose)(struct mag_abandonable *job); /* [const] frees it, and a result in it */
    mag_atomic(uint32_t) n_refs;                  /* [any] the caller, and the pool */
    bool is_done;                                 /* [q.lock] */
    int rc;                                       /* [pool, then who has seen is_done] */
};

/* One that the caller holds. */
void mag_abandon_init(struct mag_abandonable *job, int (*run)(struct mag_abandonable *job),
                      void (*dispose)(struct mag_abandonable *job));

/*
 * Runs it on a pool thread, once, and returns what it returned.  -ECANCELED: the caller was
 * cancelled, and has left; the job goes on by itself, or never began; -errno of the pool.
 * Otherwise the caller may read what the job wrote.  Outside a task: runs it here.  `kind' is
 * what the wait is called, and its cancel is mag_waitq_cancel.
 */
int mag_abandon_wait(struct mag_abandonable *job, enum mag_lane lane,
                     const struct mag_wait_kind *kind);

/* The caller lets go. */
void mag_abandon_release(struct mag_abandonable *job);

#endif
