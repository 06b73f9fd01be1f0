/* SPDX-License-Identifier: MIT */
/* locks_mutex.c - what CPython's suite pins for asyncio.Lock (test_locks.py, LockTests) */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>
#include <magpie/async.h>

TestSuite(lock, .timeout = 60);

static int lock(void *mutex)
{
    return mag_mutex_lock(mutex);
}

static int lock_and_unlock(void *mutex)
{
    int rc = mag_mutex_lock(mutex);

    return rc < 0 ? rc : mag_mutex_unlock(mutex);
}

/* ---- acquire and release ------------------------------------------------------------- */

ON_1(lock, is_unlocked_at_first)
{
    struct mag_mutex m = { 0 };

    SHOULD(!mag_mutex_locked(&m));
    return 0;
}

ON_1(lock, is_locked_between_acquire_and_release)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_locked(&m));
    SHOULD(mag_mutex_unlock(&m) == 0 && !mag_mutex_locked(&m));
    return 0;
}

ON_1_AND_4(lock, acquire_of_a_free_one_returns_at_once)
{
    struct mag_mutex m = { 0 };

    for (int i = 0; i < 3; i++) {
        SHOULD(mag_mutex_lock(&m) == 0);
        SHOULD(mag_mutex_unlock(&m) == 0);
    }
    return 0;
}

ON_1_AND_4(lock, acquire_of_a_held_one_waits)
{
    struct mag_mutex m = { 0 };
    struct co *c;

    SHOULD(mag_mutex_lock(&m) == 0);
    c = wait_as(1, lock, &m);
    SHOULD(diary_length() == 0 && !mag_done(c));
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(end_of(c) == 0 && DIARY_IS(1) && mag_mutex_locked(&m));
    return 0;
}

ON_1(lock, each_release_lets_one_waiter_in_the_oldest_first)
{
    struct mag_mutex m = { 0 };
    struct co *c[3];

    SHOULD(mag_mutex_lock(&m) == 0);
    c[0] = wait_as(1, lock, &m);
    c[1] = wait_as(2, lock, &m);
    SHOULD(diary_length() == 0);
    SHOULD(mag_mutex_unlock(&m) == 0);
    let_run();
    SHOULD(DIARY_IS(1));
    let_run();
    SHOULD(DIARY_IS(1));
    c[2] = wait_as(3, lock, &m);
    SHOULD(mag_mutex_unlock(&m) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2));
    SHOULD(mag_mutex_unlock(&m) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2, 3));
    for (int i = 0; i < 3; i++)
        SHOULD(mag_done(c[i]) && end_of(c[i]) == 0);
    return 0;
}

ON_1(lock, release_of_one_that_is_not_acquired_is_an_error)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_mutex_unlock(&m) == -EPERM && !mag_mutex_locked(&m));
    return 0;
}

ON_1(lock, release_without_waiters_leaves_it_unlocked)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_locked(&m));
    SHOULD(mag_mutex_unlock(&m) == 0 && !mag_mutex_locked(&m));
    SHOULD(mag_mutex_unlock(&m) == -EPERM);
    return 0;
}

ON_1_AND_4(lock, another_task_may_release_it)
{
    struct mag_mutex m = { 0 };
    struct co *c = wait_as(1, lock, &m);

    SHOULD(end_of(c) == 0 && mag_mutex_locked(&m));
    SHOULD(mag_mutex_unlock(&m) == 0);
    return 0;
}

/* ---- cancelled ------------------------------------------------------------------------- */

ON_1_AND_4(lock, a_cancelled_waiter_leaves_with_ecanceled)
{
    struct mag_mutex m = { 0 };
    struct co *c;

    SHOULD(mag_mutex_lock(&m) == 0);
    c = wait_as(1, lock, &m);
    SHOULD(cancelled_end_of(c) == -ECANCELED);
    SHOULD(mag_mutex_unlock(&m) == 0 && !mag_mutex_locked(&m)); /* nobody was left to wake */
    return 0;
}

/* test_cancel_race: the holder ends while the next one is cancelled. */
ON_1_AND_4(lock, a_cancelled_waiter_does_not_block_the_next)
{
    struct mag_mutex m = { 0 };
    struct co *b, *c;

    SHOULD(mag_mutex_lock(&m) == 0);
    b = wait_as(2, lock_and_unlock, &m);
    c = wait_as(3, lock_and_unlock, &m);
    SHOULD(mag_cancel(b) == 0);
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(end_of(c) == 0);
    SHOULD(end_of(b) == -ECANCELED || mag_rt_workers(mag_rt_self()) > 1);
    SHOULD(!mag_mutex_locked(&m));
    return 0;
}

/* test_cancel_release_race: the first of three is cancelled, and the lock released. */
ON_1_AND_4(lock, release_and_cancel_together_let_exactly_one_in)
{
    struct mag_mutex m = { 0 };
    struct co *c[3];
    int rc;

    SHOULD(mag_mutex_lock(&m) == 0);
    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i + 1, lock, &m);
    SHOULD(mag_cancel(c[0]) == 0);
    SHOULD(mag_mutex_unlock(&m) == 0);
    rc = end_of(c[0]);
    let_run();
    SHOULD(diary_length() == 1 && mag_mutex_locked(&m));
    SHOULD(rc == -ECANCELED ? DIARY_IS(2) : DIARY_IS(1));
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(cancelled_end_of(c[2]) <= 0 && end_of(c[1]) <= 0);
    return 0;
}

/* test_finished_waiter_cancelled: released first, then cancelled: the one that was woken
 * takes it or the next does, and the lock is not left to nobody. */
ON_1_AND_4(lock, a_waiter_cancelled_after_it_was_woken_loses_no_wake_up)
{
    for (int i = 0; i < 20; i++) {
        struct mag_mutex m = { 0 };
        struct co *b, *c;
        int rc;

        SHOULD(mag_mutex_lock(&m) == 0);
        b = begin_as(1, lock_and_unlock, &m);
        c = begin_as(2, lock_and_unlock, &m);
        let_run();
        SHOULD(mag_mutex_unlock(&m) == 0);
        SHOULD(mag_cancel(b) == 0);
        SHOULD(end_of(c) == 0);
        rc = end_of(b);
        SHOULD(rc == 0 || rc == -ECANCELED);
        SHOULD(!mag_mutex_locked(&m));
    }
    return 0;
}

ON_1_AND_4(lock, all_waiters_cancelled_leave_a_lock_that_works)
{
    struct mag_mutex m = { 0 };
    struct co *c[5];

    SHOULD(mag_mutex_lock(&m) == 0);
    for (int i = 0; i < 5; i++)
        c[i] = wait_as(i, lock, &m);
    for (int i = 4; i >= 0; i--)
        SHOULD(cancelled_end_of(c[i]) == -ECANCELED);
    SHOULD(mag_mutex_unlock(&m) == 0 && !mag_mutex_locked(&m));
    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_unlock(&m) == 0);
    return 0;
}

ON_1_AND_4(lock, one_in_the_middle_is_cancelled_and_the_order_of_the_others_stays)
{
    struct mag_mutex m = { 0 };
    struct co *c[4];

    SHOULD(mag_mutex_lock(&m) == 0);
    for (int i = 0; i < 4; i++)
        c[i] = wait_as(i, lock_and_unlock, &m);
    SHOULD(cancelled_end_of(c[1]) == -ECANCELED);
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(end_of(c[0]) == 0 && end_of(c[2]) == 0 && end_of(c[3]) == 0);
    SHOULD(diary_length() == 3);
    return 0;
}

ON_1(lock, a_timeout_around_acquire_leaves_it_to_the_holder)
{
    struct mag_mutex m = { 0 };
    struct mag_scope s;

    SHOULD(mag_mutex_lock(&m) == 0);
    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, mag_mutex_lock(&m)) == -ETIMEDOUT);
    SHOULD(mag_mutex_locked(&m) && mag_mutex_unlock(&m) == 0);
    return 0;
}

/* ---- as a block -------------------------------------------------------------------------- */

struct locked {
    struct mag_mutex *mutex;
};

static int locked_enter(struct locked *l, struct mag_mutex *mutex)
{
    l->mutex = mutex;
    return mag_mutex_lock(mutex);
}

static void locked_exit(struct locked *l)
{
    mag_mutex_unlock(l->mutex);
}

async_resource(locked)

    async(int, in_a_block, (struct mag_mutex *, m))
{
    async_with(locked, l, m)
    {
        if (!mag_mutex_locked(l->mutex))
            return -ENOTRECOVERABLE;
        async_return(7); /* leaves the block, too */
    }
    return -ENOTRECOVERABLE;
}

ON_1_AND_4(lock, a_block_acquires_and_releases_it)
{
    struct mag_mutex m = { 0 };
    int value = 0;

    SHOULD(!mag_mutex_locked(&m));
    SHOULD(mag_await(in_a_block(&m), &value, sizeof value) == 0 && value == 7);
    SHOULD(!mag_mutex_locked(&m));
    return 0;
}

/* ---- cancelled at each suspension in turn ------------------------------------------------- */

struct scene {
    struct mag_mutex mutex;
    int n_inside; /* [mutex] */
    int n_rounds; /* [mutex] of the rivals */
    bool is_broken;
};

/* Sections that suspend while they hold it. */
static int round_of(struct scene *s)
{
    int rc = mag_mutex_lock(&s->mutex);

    if (rc < 0)
        return rc;
    s->is_broken |= ++s->n_inside != 1;
    nth_point();
    rc = mag_yield();
    s->is_broken |= --s->n_inside != 0;
    s->is_broken |= mag_mutex_unlock(&s->mutex) != 0;
    return rc;
}

static int rival(void *arg, long *value)
{
    struct scene *s = arg;

    (void)value;
    for (int i = 0; i < 4; i++) {
        SHOULD(mag_mutex_lock(&s->mutex) == 0);
        s->is_broken |= ++s->n_inside != 1;
        mag_yield();
        s->is_broken |= --s->n_inside != 0;
        s->n_rounds++;
        SHOULD(mag_mutex_unlock(&s->mutex) == 0);
        mag_yield();
    }
    return 0;
}

static int contends(void *arg, long *value)
{
    struct co *rivals[2] = { go(rival, arg), go(rival, arg) };
    int rc = 0, rc2;

    (void)value;
    for (int i = 0; i < 4 && rc == 0; i++) {
        nth_point();
        rc = round_of(arg);
    }
    for (int i = 0; i < 2; i++) { /* they are not this task's victims */
        struct mag_scope shield;
        SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
        rc2 = await_co(rivals[i], NULL);
        SHOULD(mag_scope_leave(&shield, rc2) == 0);
    }
    return rc;
}

static int nothing_is_left(void *arg, int rc)
{
    struct scene *s = arg;

    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(!s->is_broken && s->n_inside == 0 && (s->n_rounds == 8 || s->n_rounds == 0));
    SHOULD(!mag_mutex_locked(&s->mutex));
    *s = (struct scene){ .n_inside = 0 };
    return 0;
}

ON_1_AND_4(lock, cancelled_at_each_suspension_it_is_released_and_the_rivals_get_on)
{
    struct scene s = { .n_inside = 0 };

    return nth_cancel(contends, &s, nothing_is_left);
}
