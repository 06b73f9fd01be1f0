/* SPDX-License-Identifier: MIT */
/*
 * waitq.c - joining, leaving and being woken (waitq.h has the idea and both sides)
 *
 * A waiter's life:   outside -> queued -> popped (somebody will wake it) -> outside
 *                                  `----> cancelled -----------------------'
 *
 * Each arrow out of `queued' is taken under q->lock, so there is exactly one.  Whoever has
 * popped the waiter alone may touch it, until mag_waitq_wake hands it back.
 *
 * Invariants
 *   1. w->is_queued is true exactly while w is in its queue's list.
 *   2. Only a waiter that is queued can be popped or cancelled.
 *   3. After mag_waitq_wake, or after a cancel, nobody but its owner touches the waiter.
 */
#include "waitq.h"

#include "sys.h"

#include <errno.h>

void mag_waitq_push(struct mag_waitq *q, struct mag_queued *w)
{
    w->prev = q->last;
    w->next = NULL;
    *(q->last ? &q->last->next : &q->first) = w;
    q->last = w;
    w->is_queued = true;
    mag_store_relaxed(&q->n, q->n + 1);
}

void mag_waitq_push_first(struct mag_waitq *q, struct mag_queued *w)
{
    w->prev = NULL;
    w->next = q->first;
    *(q->first ? &q->first->prev : &q->last) = w;
    q->first = w;
    w->is_queued = true;
    mag_store_relaxed(&q->n, q->n + 1);
}

void mag_waitq_remove(struct mag_waitq *q, struct mag_queued *w)
{
    *(w->prev ? &w->prev->next : &q->first) = w->next;
    *(w->next ? &w->next->prev : &q->last) = w->prev;
    w->is_queued = false;
    mag_store_relaxed(&q->n, q->n - 1);
}

/* Of a wait for several at once: whether this queue is the one that may give. */
static bool claim(struct mag_queued *w)
{
    uint32_t none = 0;

    return w->choice == NULL || mag_cas(&w->choice->won, &none, w->index + 1);
}

struct mag_queued *mag_waitq_pop(struct mag_waitq *q)
{
    struct mag_queued *w;

    while ((w = q->first) != NULL) {
        mag_waitq_remove(q, w);
        if (claim(w))
            return w;
    }
    return NULL;
}

void mag_waitq_wake(struct mag_queued *w, int rc)
{
    mag_atomic(uint32_t) * word;

    w->rc = rc;
    if (w->fiber) {
        mag_worker_ready(w->fiber);
        return;
    }
    /* after the store the thread may be gone: the wake is of an address only */
    word = w->choice ? &w->choice->is_woken : &w->is_woken;
    mag_store_seq(word, 1);
    mag_sys_futex_wake(word, 1);
}

void mag_waitq_cancel(struct mag_wait *wait)
{
    struct mag_queued *w = mag_container_of(wait, struct mag_queued, wait);
    bool is_cancelled;

    mag_spin_lock(&w->q->lock);
    is_cancelled = w->is_queued;
    if (is_cancelled)
        mag_waitq_remove(w->q, w);
    mag_spin_unlock(&w->q->lock);
    if (is_cancelled)
        mag_waitq_wake(w, -ECANCELED);
}

/* The record of the wait is made after the queue's lock was given back: arming the deadline
 * may have to wait for a rescuer, who may want that lock.  If the wait cannot begin, and
 * somebody has popped the waiter already, it begins without a record: the wake is certain. */
static int join(struct mag_waitq *q, struct mag_queued *me, const struct mag_wait_kind *kind,
                const void *on, void *item, bool is_first)
{
    struct mag_fiber *f = mag_fiber_self();
    bool was_queued;
    int rc;

    *me = (struct mag_queued){ .wait = { kind, on }, .q = q, .fiber = f, .item = item };
    (is_first ? mag_waitq_push_first : mag_waitq_push)(q, me);
    mag_spin_unlock(&q->lock);
    rc = f ? mag_wait_begin(f, &me->wait) : mag_wait_outside();
    if (MAG_LIKELY(rc == 0))
        return 0;
    mag_spin_lock(&q->lock);
    was_queued = me->is_queued;
    if (was_queued)
        mag_waitq_remove(q, me);
    mag_spin_unlock(&q->lock);
    return was_queued ? rc : 0;
}

int mag_waitq_join(struct mag_waitq *q, struct mag_queued *me, const struct mag_wait_kind *kind,
                   const void *on, void *item)
{
    return join(q, me, kind, on, item, false);
}

int mag_waitq_sleep(struct mag_queued *me)
{
    if (me->fiber) {
        mag_wait_suspend_portable(me->fiber);
    } else {
        while (!mag_load_acquire(&me->is_woken))
            mag_sys_futex_wait(&me->is_woken, 0, MAG_NEVER);
    }
    return me->rc;
}

int mag_waitq_wait(struct mag_waitq *q, struct mag_queued *me, const struct mag_wait_kind *kind,
                   const void *on, void *item)
{
    int rc = join(q, me, kind, on, item, false);

    return rc < 0 ? rc : mag_waitq_sleep(me);
}

int mag_waitq_wait_first(struct mag_waitq *q, struct mag_queued *me,
                         const struct mag_wait_kind *kind, const void *on, void *item)
{
    int rc = join(q, me, kind, on, item, true);

    return rc < 0 ? rc : mag_waitq_sleep(me);
}
