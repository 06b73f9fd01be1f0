/* SPDX-License-Identifier: MIT */
#ifndef MAG_RING_THREADS_H
#define MAG_RING_THREADS_H
/*
 * ring_threads.h - threads for operations that block and cannot be polled
 *
 * Where the kernel has no threads of its own for that (ring_epoll.c).  The pool is the
 * process's; each ring has its jobs in it.  An operation is its own job, by its link.
 *
 * Who may call: the ring's owner, or who has its place.
 */
#include "list.h"
#include "ring.h"

struct mag_ring_jobs {
    struct mag_list link;            /* [pool] among the rings that have queued jobs */
    struct mag_fifo queued;          /* [pool] */
    struct mag_fifo finished;        /* [pool] */
    mag_atomic(uint32_t) n_finished; /* [pool] of those; anybody may read it */

    /* [const] Makes the blocking call and sets op->result.  By a thread of the pool. */
    void (*run)(struct mag_op *op);
    /* [const] One has finished.  By a thread of the pool, with the pool locked. */
    void (*wake)(struct mag_ring_jobs *jobs);
};

/* The first ring brings the pool to life, and the last one that closes ends its threads. */
void mag_ring_jobs_open(struct mag_ring_jobs *jobs);
/* None may be queued or running. */
void mag_ring_jobs_close(struct mag_ring_jobs *jobs);

/* Without a single thread to be had, the operation is run here and now. */
void mag_ring_jobs_add(struct mag_ring_jobs *jobs, struct mag_op *op);

/* True: it had not begun, and is the caller's again. */
bool mag_ring_jobs_drop(struct mag_ring_jobs *jobs, struct mag_op *op);

/* Appends what has finished. */
void mag_ring_jobs_take(struct mag_ring_jobs *jobs, struct mag_fifo *to);

/* Takes op out of a fifo in which it may be.  O(n). */
bool mag_ring_fifo_remove(struct mag_fifo *f, struct mag_op *op);

#endif
