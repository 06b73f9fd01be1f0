/* SPDX-License-Identifier: MIT */
#ifndef MAG_QUEUE_H
#define MAG_QUEUE_H
/*
 * queue.h - a bounded queue from the inside: for select.c, which waits in several
 *
 * queue.c has the idea.  Whoever holds the lock asks mag_queue_may_put (or _get), decides,
 * and only then carries it out: a yes holds as long as the lock.
 */
#include "waitq.h"

#include <magpie/queue.h>

struct mag_queue {
    MAG_CACHELINE struct mag_waitq waiters; /* its lock is the queue's; getters, or else putters */
    mag_atomic(size_t) len;                 /* [lock] read without it as a hint */
    size_t head;                            /* [lock] place of the oldest, if FIFO */
    uint64_t n_puts;                        /* [lock] ever; PRIORITY: the next one's age */
    uint64_t n_unfinished;                  /* [lock] put, and not yet done */
    mag_atomic(bool) is_shut;               /* [lock] */

    MAG_CACHELINE char *items;                    /* [const] capacity + 1 places */
    size_t capacity;                              /* [const] */
    size_t item_bytes;                            /* [const] */
    size_t place_bytes;                           /* [const] of an item, and its age if PRIORITY */
    size_t age_offset;                            /* [const] PRIORITY */
    enum mag_queue_order order;                   /* [const] */
    int (*compare)(const void *a, const void *b); /* [const] PRIORITY */
    const char *name;                             /* [const] */

    MAG_CACHELINE struct mag_waitq joiners; /* its lock is taken inside the queue's */
};

void mag_queue_lock_slow(struct mag_queue *q);

static inline void mag_queue_lock(struct mag_queue *q)
{
    if (MAG_UNLIKELY(!mag_spin_try(&q->waiters.lock)))
        mag_queue_lock_slow(q);
}

static inline void mag_queue_unlock(struct mag_queue *q)
{
    mag_spin_unlock(&q->waiters.lock);
}

/* With the lock held.  0: yes; -EAGAIN: who wants to has to wait; -EPIPE: it was shut down. */
static inline int mag_queue_may_put(const struct mag_queue *q)
{
    if (MAG_UNLIKELY(q->is_shut))
        return -EPIPE;
    return q->len < q->capacity ? 0 : -EAGAIN;
}

static inline int mag_queue_may_get(const struct mag_queue *q)
{
    if (MAG_LIKELY(q->len != 0))
        return 0;
    return q->is_shut ? -EPIPE : -EAGAIN;
}

/* With the lock held, where that answer was 0.  They return who is to be woken with 0, after the unlock; or
 * NULL. */
struct mag_queued *mag_queue_do_put(struct mag_queue *q, const void *item);
struct mag_queued *mag_queue_do_get(struct mag_queue *q, void *item);

/* With no lock held: a task that never has to wait lets others run now and then all the
 * same.  May suspend. */
static inline void mag_queue_take_turns(void)
{
    struct mag_worker *w = mag_worker_self();

    if (w && w->fiber && MAG_UNLIKELY(--w->budget <= 0))
        (void)mag_worker_yield();
}

#endif
