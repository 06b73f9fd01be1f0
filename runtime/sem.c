/* SPDX-License-Identifier: MIT */
/*
 * sem.c - a number of permits, and who waits for one
 *
 * A release that finds somebody waiting hands the permit over: it never shows in `value'.
 * So nobody who comes between the release and the moment when the woken task runs can take
 * the permit from it, and the order of the waits is the order of the permits.
 *
 * Invariant: while somebody waits, value is 0.
 *
 * A waiter that is cancelled has been given nothing, as the lock of the queue decides
 * (waitq.c): so nothing has to be handed on, and no permit is lost.
 *
 * Rejected: to raise `value' and have the woken look again (asyncio before 3.11): a newcomer
 * may be first, and a woken one that is cancelled must wake the next.
 */
#include "misuse.h"
#include "waitq.h"

#include <magpie/sync.h>
#include <magpie/task.h>

#include <errno.h>

struct sem {
    struct mag_waitq q;
    mag_atomic(int64_t) value; /* [q.lock] read without it as a hint */
    int64_t bound;             /* [const] */
};

MAG_STATIC_ASSERT(sizeof(struct sem) <= sizeof(struct mag_sem));
MAG_STATIC_ASSERT(_Alignof(struct sem) <= _Alignof(struct mag_sem));

static const struct mag_wait_kind sem_wait = { "semaphore", mag_waitq_cancel, false };

static struct sem *sem_of(const struct mag_sem *sem)
{
    return (struct sem *)(uintptr_t)sem;
}

static int null_sem(void)
{
    return mag_misuse(-EINVAL, "a semaphore that is NULL");
}

static int init(struct mag_sem *sem, int64_t value, int64_t bound)
{
    if (sem == NULL)
        return null_sem();
    if (value < 0)
        return mag_misuse(-EINVAL, "a semaphore cannot begin with %lld permits", (long long)value);
    *sem_of(sem) = (struct sem){ .value = value, .bound = bound };
    return 0;
}

int mag_sem_init(struct mag_sem *sem, int64_t value)
{
    return init(sem, value, INT64_MAX);
}

int mag_sem_init_bounded(struct mag_sem *sem, int64_t value)
{
    return init(sem, value, value);
}

/* With the lock held. */
static bool take(struct sem *s)
{
    if (s->value == 0)
        return false;
    mag_store_relaxed(&s->value, s->value - 1);
    return true;
}

int mag_sem_acquire(struct mag_sem *sem)
{
    struct sem *s = sem_of(sem);
    struct mag_queued me;

    if (s == NULL)
        return null_sem();
    mag_spin_lock(&s->q.lock);
    if (!take(s))
        return mag_waitq_wait(&s->q, &me, &sem_wait, sem, NULL);
    mag_spin_unlock(&s->q.lock);
    return 0;
}

int mag_sem_try_acquire(struct mag_sem *sem)
{
    struct sem *s = sem_of(sem);
    bool is_taken;

    if (s == NULL)
        return null_sem();
    mag_spin_lock(&s->q.lock);
    is_taken = take(s);
    mag_spin_unlock(&s->q.lock);
    return is_taken ? 0 : -EAGAIN;
}

int mag_sem_release(struct mag_sem *sem)
{
    struct sem *s = sem_of(sem);
    struct mag_queued *w = NULL;
    bool is_full;

    if (s == NULL)
        return null_sem();
    mag_spin_lock(&s->q.lock);
    is_full = s->value >= s->bound;
    if (!is_full && (w = mag_waitq_pop(&s->q)) == NULL)
        mag_store_relaxed(&s->value, s->value + 1);
    mag_spin_unlock(&s->q.lock);
    if (is_full)
        return mag_misuse(-EOVERFLOW, "a semaphore was released more often than acquired");
    if (w)
        mag_waitq_wake(w, 0);
    return 0;
}

int64_t mag_sem_value(const struct mag_sem *sem)
{
    return sem ? mag_load_relaxed(&sem_of(sem)->value) : 0;
}

bool mag_sem_locked(const struct mag_sem *sem)
{
    return mag_sem_value(sem) == 0;
}

/* The pool's call is over, or never begins, when mag_to_thread returns; so is the permit's use. */
int mag_to_thread_limited(struct mag_sem *limiter, int (*fn)(void *arg), void *arg)
{
    int rc = mag_sem_acquire(limiter);

    if (rc < 0)
        return rc;
    rc = mag_to_thread(fn, arg);
    mag_sem_release(limiter);
    return rc;
}
