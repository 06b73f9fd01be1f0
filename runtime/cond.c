/* SPDX-License-Identifier: MIT */
/*
 * cond.c - until something is so
 *
 * A queue, and nothing else.  A wait joins it, gives the mutex back, and suspends.  A notify
 * does not wake: it moves waiters, oldest first, from here to the queue of the mutex, where
 * each is woken when its turn has come to take that.
 *
 *      wait:    [condition's queue] --notify--> [mutex's queue] --unlock--> takes it, returns 0
 *                        `--cancel--> takes the mutex as any other would, returns -ECANCELED
 *
 * So notify_all of a thousand wakes one, and not a thousand that pile up behind the mutex
 * which the caller still holds; each is suspended once and not twice; and the order of the
 * waits is the order of the returns.
 *
 * Notify and cancel: who takes the waiter out of the condition's queue, under its lock, wins.
 * A waiter that is cancelled is not in the queue any more, and the notify goes to the next.
 * One that was notified stays so: it takes the mutex, shielded, and returns 0, cancelled or
 * not; its next suspension fails.  So a wake-up is neither lost nor spent on one who leaves.
 *
 * Who has been woken must look again: what it waits for was so when it was notified, and
 * somebody else may have taken the mutex since (Mesa).
 *
 * Invariants
 *   1. w->is_here is true exactly while w is in the condition's queue.  It has a cancel of
 *      its own that looks at that, as is_queued belongs to the mutex's lock later.
 *   2. No lock is held when another is taken.
 *   3. After the waiters are popped the condition is not touched: it may be gone.
 *
 * The mutex is given back after joining the queue and before suspending.  The waiter may be
 * woken in between: that is a message to this very thread (or a futex word), read later.
 *
 * Rejected: to wake all who are notified (the herd); to have each wake the next after it has
 * the mutex (two suspensions each, and a chain that one slow worker holds up).
 */
#include "misuse.h"
#include "mutex.h"

#include <errno.h>

struct cond {
    struct mag_waitq q; /* of struct waiter */
};

struct waiter {
    struct mag_turn turn;
    struct mag_mutex *mutex; /* [const] */
    bool is_here;            /* [q.lock] */
};

MAG_STATIC_ASSERT(sizeof(struct cond) <= sizeof(struct mag_cond));
MAG_STATIC_ASSERT(_Alignof(struct cond) <= _Alignof(struct mag_cond));

static struct cond *cond_of(const struct mag_cond *cond)
{
    return (struct cond *)(uintptr_t)cond;
}

static struct waiter *waiter_of(struct mag_queued *w)
{
    return mag_container_of(w, struct waiter, turn.queued);
}

static int null_cond(void)
{
    return mag_misuse(-EINVAL, "a condition or a mutex that is NULL");
}

/* ---- waiting -------------------------------------------------------------------------- */

/* Once notified it is no longer here, and what it waits for then is not to be cancelled. */
static void cond_cancel(struct mag_wait *wait)
{
    struct waiter *w = waiter_of(mag_container_of(wait, struct mag_queued, wait));
    struct cond *c = cond_of(wait->on);
    bool is_cancelled;

    mag_spin_lock(&c->q.lock);
    is_cancelled = w->is_here;
    if (is_cancelled)
        mag_waitq_remove(&c->q, &w->turn.queued);
    w->is_here = false;
    mag_spin_unlock(&c->q.lock);
    if (is_cancelled)
        mag_waitq_wake(&w->turn.queued, -ECANCELED);
}

static const struct mag_wait_kind cond_wait = { "condition", cond_cancel, false };

int mag_cond_wait(struct mag_cond *cond, struct mag_mutex *mutex)
{
    struct cond *c = cond_of(cond);
    struct mag_fiber *f = mag_fiber_self();
    struct waiter me = { .mutex = mutex };
    int rc;

    if (c == NULL || mutex == NULL)
        return null_cond();
    if (!mag_mutex_locked(mutex))
        return mag_misuse(-EPERM, "mag_cond_wait() with a mutex that nobody holds: lock it first");
    me.turn.queued = (struct mag_queued){ .wait = { &cond_wait, cond }, .q = &c->q, .fiber = f };
    rc = f ? mag_wait_begin(f, &me.turn.queued.wait) : mag_wait_outside();
    if (rc < 0)
        return rc;
    mag_spin_lock(&c->q.lock);
    me.is_here = true;
    mag_waitq_push(&c->q, &me.turn.queued);
    mag_spin_unlock(&c->q.lock);
    (void)mag_mutex_unlock(mutex);
    rc = mag_waitq_sleep(&me.turn.queued);
    if (rc < 0)
        mag_mutex_lock_shielded(mutex);
    else
        mag_mutex_resume(mutex, &me.turn, rc);
    return rc < 0 ? rc : 0;
}

int mag_cond_wait_until_true(struct mag_cond *cond, struct mag_mutex *mutex,
                             bool (*is_true)(void *arg), void *arg)
{
    int rc = 0;

    if (is_true == NULL)
        return mag_misuse(-EINVAL, "mag_cond_wait_until_true() without a function");
    while (rc == 0 && !is_true(arg))
        rc = mag_cond_wait(cond, mutex);
    return rc;
}

/* ---- notifying ------------------------------------------------------------------------ */

/* Pops up to n waiters, linked by `next'. */
static struct mag_queued *take(struct cond *c, size_t n)
{
    struct mag_queued *first = NULL, **end = &first, *w;

    mag_spin_lock(&c->q.lock);
    for (; n > 0 && (w = mag_waitq_pop(&c->q)) != NULL; n--) {
        waiter_of(w)->is_here = false;
        *end = w;
        w->next = NULL;
        end = &w->next;
    }
    mag_spin_unlock(&c->q.lock);
    return first;
}

int mag_cond_notify(struct mag_cond *cond, size_t n)
{
    struct mag_queued *w, *next;

    if (cond == NULL)
        return null_cond();
    for (w = take(cond_of(cond), n); w; w = next) {
        next = w->next;
        mag_mutex_requeue(waiter_of(w)->mutex, &waiter_of(w)->turn);
    }
    return 0;
}

int mag_cond_notify_all(struct mag_cond *cond)
{
    return mag_cond_notify(cond, SIZE_MAX);
}
