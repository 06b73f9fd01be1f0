/* SPDX-License-Identifier: MIT */
/*
 * once.c - exactly one does it, the others wait for the end
 *
 *      who = NOBODY --first comes--> who = that one --fn >= 0--> DONE, wakes all
 *                                       ^      |
 *                                       `------' fn < 0: the turn goes to the oldest waiter;
 *                                                nobody waits: NOBODY
 *
 * The turn is handed over, as a permit is: `who' is never NOBODY while somebody waits, so
 * each failure wakes one, and not everybody to race for the next attempt.
 *
 * A task is known by its fiber, which is the same before and after a suspension, and in
 * every coroutine that fn awaits in place: all of these would wait for themselves.
 *
 * (A) in mag_once reads DONE without the lock.  Release and acquire make what fn has done
 * visible to it.
 */
#include "misuse.h"
#include "waitlist.h"

#include <magpie/sync.h>

#include <errno.h>
#include <pthread.h>

enum { NOBODY = 0, DONE = 1 };
enum { YOUR_TURN = 1 }; /* what a waiter is woken with, besides 0 */

struct once {
    struct mag_waitq q;
    mag_atomic(uintptr_t) who; /* [q.lock] NOBODY, DONE, or who calls fn */
};

MAG_STATIC_ASSERT(sizeof(struct once) <= sizeof(struct mag_once));
MAG_STATIC_ASSERT(_Alignof(struct once) <= _Alignof(struct mag_once));

static const struct mag_wait_kind once_wait = { "once", mag_waitq_cancel, false };

/* A fiber, or a thread's control block: both are objects, so that no two are alike. */
static uintptr_t self(void)
{
    struct mag_fiber *f = mag_fiber_self();

    return f ? (uintptr_t)f : (uintptr_t)pthread_self();
}

static int call(struct once *o, int (*fn)(void *arg), void *arg)
{
    struct mag_waitlist list = { 0 };
    struct mag_queued *w;
    int rc = fn(arg);

    mag_spin_lock(&o->q.lock);
    if (rc >= 0) {
        mag_store_release(&o->who, DONE);
        mag_waitlist_take_all(&list, &o->q);
    } else {
        w = mag_waitq_pop(&o->q);
        mag_store_relaxed(&o->who, w ? (uintptr_t)w->item : NOBODY);
        if (w)
            mag_waitlist_add(&list, w);
    }
    mag_spin_unlock(&o->q.lock);
    mag_waitlist_wake(&list, rc >= 0 ? 0 : YOUR_TURN);
    return rc >= 0 ? 0 : rc;
}

int mag_once(struct mag_once *once, int (*fn)(void *arg), void *arg)
{
    struct once *o = (struct once *)once;
    struct mag_queued me;
    uintptr_t who;
    int rc;

    if (o == NULL || fn == NULL)
        return mag_misuse(-EINVAL, "mag_once with NULL");
    if (MAG_LIKELY(mag_load_acquire(&o->who) == DONE)) /* (A) */
        return 0;
    mag_spin_lock(&o->q.lock);
    who = o->who;
    if (who == NOBODY)
        mag_store_relaxed(&o->who, self());
    if (who != NOBODY && who != DONE && who != self()) {
        rc = mag_waitq_wait(&o->q, &me, &once_wait, once, (void *)self());
        return rc == YOUR_TURN ? call(o, fn, arg) : rc;
    }
    mag_spin_unlock(&o->q.lock);
    if (who == NOBODY)
        return call(o, fn, arg);
    return who == DONE ? 0 : mag_misuse(-EDEADLK, "mag_once from its own function");
}
