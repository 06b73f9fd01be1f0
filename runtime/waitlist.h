/* SPDX-License-Identifier: MIT */
#ifndef MAG_WAITLIST_H
#define MAG_WAITLIST_H
/*
 * waitlist.h - waiters that were popped together, to be woken once the lock is free
 *
 *      struct mag_waitlist list = { 0 };
 *
 *      mag_spin_lock(&q->lock);
 *      while (somebody can go on)
 *          mag_waitlist_add(&list, mag_waitq_pop(q));
 *      mag_spin_unlock(&q->lock);
 *      mag_waitlist_wake(&list, 0);
 *
 * Who has popped a waiter is the only one to touch it (waitq.c), so it may be linked by the
 * link that held it in its queue.  Nothing of the primitive is touched by the wakes: it may
 * be gone as soon as the lock is free.
 */
#include "waitq.h"

struct mag_waitlist {
    struct mag_queued *first, *last; /* in the order of the pops */
};

static inline void mag_waitlist_add(struct mag_waitlist *list, struct mag_queued *w)
{
    w->next = NULL;
    *(list->last ? &list->last->next : &list->first) = w;
    list->last = w;
}

/* With q->lock held: everybody. */
static inline void mag_waitlist_take_all(struct mag_waitlist *list, struct mag_waitq *q)
{
    struct mag_queued *w;

    while ((w = mag_waitq_pop(q)) != NULL)
        mag_waitlist_add(list, w);
}

/* With no lock held.  A task that wakes several runs the one woken last first, then the others
 * in their order (worker.c); so the oldest is woken last. */
static inline void mag_waitlist_wake(const struct mag_waitlist *list, int rc)
{
    if (list->first == NULL)
        return;
    for (struct mag_queued *w = list->first->next, *next; w; w = next) {
        next = w->next;
        mag_waitq_wake(w, rc);
    }
    mag_waitq_wake(list->first, rc);
}

#endif
