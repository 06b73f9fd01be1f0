/* SPDX-License-Identifier: MIT */
#ifndef MAG_WAITQ_H
#define MAG_WAITQ_H
/*
 * waitq.h - the queue in which tasks, and threads outside, wait for a primitive
 *
 * Every primitive (mutex, event, queue, ...) is a few words under the lock of its queue, and
 * the same three steps:
 *
 *      mag_spin_lock(&q->lock);
 *      if (what is wanted is there) { take it; unlock; return 0; }
 *      rc = mag_waitq_wait(q, &me, &kind, primitive, item);      unlocks, suspends
 *
 * and who has something to give pops the first waiter under the lock, gives it what it waits
 * for there and then (item, ownership), unlocks, and wakes it:
 *
 *      mag_spin_lock(&q->lock);
 *      w = mag_waitq_pop(q);  if (w) give(w); else keep;
 *      mag_spin_unlock(&q->lock);
 *      if (w) mag_waitq_wake(w, 0);
 *
 * Exactly one of wake and cancel wins, decided under the lock by whether the waiter is still
 * in the queue: so a waiter that was given something always returns what mag_waitq_wake said,
 * and a cancelled one has been given nothing (tests/model/wait.pml).
 *
 * A waiter may be woken before it has left its stack: its wake-up is a message to its home,
 * which that thread reads only when the task is off it; and until then it must not move to
 * another worker, so `is_portable' is set by the commit step (worker.c).
 *
 * All zero is an empty queue.  The lock may be held only for a few instructions, never
 * across a call that suspends, allocates or wakes.
 */
#include "wait.h"

struct mag_queued;

struct mag_waitq {
    struct mag_spin lock;
    mag_atomic(uint32_t) n;          /* [lock] who waits; read without it as a hint */
    struct mag_queued *first, *last; /* [lock] oldest first */
};

/* Of a wait for several at once (select.c): the first who claims it may give. */
struct mag_choice {
    mag_atomic(uint32_t) won; /* [any, by CAS from 0] 1 + index of the case, or MAG_CHOICE_OFF */
    mag_atomic(uint32_t) is_woken; /* [waker] of a thread outside: its futex */
};
enum { MAG_CHOICE_OFF = UINT32_MAX / 2 };

/* One who waits, on its own stack. */
struct mag_queued {
    struct mag_wait wait;
    struct mag_waitq *q;            /* [const] */
    struct mag_queued *prev, *next; /* [q->lock] */
    struct mag_fiber *fiber;        /* [const] NULL: a thread outside */
    mag_atomic(uint32_t) is_woken;  /* [waker] of a thread: its futex */
    bool is_queued;                 /* [q->lock] */
    int rc;                         /* [who has popped it] what the wait returns */
    void *item;                     /* [const] the primitive's own: where to put, what to take */
    struct mag_choice *choice;      /* [const] NULL: it waits for this alone */
    uint32_t index;                 /* [const] of the case */
};

/*
 * With q->lock held: joins the queue, unlocks, and suspends (or blocks the thread) until
 * woken: what the waker said.  -ECANCELED: cancelled, and no longer in the queue; -ENOMEM
 * or -ENXIO (a callback): it never waited.  `kind->cancel' is mag_waitq_cancel, or one that
 * does the same under a lock of its own.  _first: before all who wait already, for one who
 * had been woken and found nothing.
 */
int mag_waitq_wait(struct mag_waitq *q, struct mag_queued *me, const struct mag_wait_kind *kind,
                   const void *on, void *item);
int mag_waitq_wait_first(struct mag_waitq *q, struct mag_queued *me,
                         const struct mag_wait_kind *kind, const void *on, void *item);

/*
 * The two halves of it.  join, with q->lock held: begins the wait, joins the queue, unlocks; 0,
 * or why it did not join.  sleep: until woken; me->rc.
 */
int mag_waitq_join(struct mag_waitq *q, struct mag_queued *me, const struct mag_wait_kind *kind,
                   const void *on, void *item);
int mag_waitq_sleep(struct mag_queued *me);

/* The cancel of every kind of wait in a queue. */
void mag_waitq_cancel(struct mag_wait *wait);

/* With q->lock held: the oldest waiter (who has won the right to be given to), or NULL. */
struct mag_queued *mag_waitq_pop(struct mag_waitq *q);

/* With q->lock held, by hand (select.c): joins and leaves. */
void mag_waitq_push(struct mag_waitq *q, struct mag_queued *w);
void mag_waitq_push_first(struct mag_waitq *q, struct mag_queued *w);
void mag_waitq_remove(struct mag_waitq *q, struct mag_queued *w);

/* With no lock held: lets a popped waiter return rc.  It is gone then.  Any thread. */
void mag_waitq_wake(struct mag_queued *w, int rc);

#endif
