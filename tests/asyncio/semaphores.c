/* SPDX-License-Identifier: MIT */
/* semaphores.c - what CPython's suite pins for asyncio.Semaphore and BoundedSemaphore
 * (test_locks.py, SemaphoreTests) */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>

TestSuite(semaphores, .timeout = 60);

static int acquire(void *sem)
{
    return mag_sem_acquire(sem);
}

static void release(void *sem)
{
    mag_sem_release(sem);
}

/* ---- values ------------------------------------------------------------------------------ */

ON_1(semaphores, one_of_value_zero_is_locked)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, 0) == 0);
    SHOULD(mag_sem_locked(&s) && mag_sem_value(&s) == 0);
    SHOULD(mag_sem_init_bounded(&s, 0) == 0);
    SHOULD(mag_sem_locked(&s) && mag_sem_release(&s) == -EOVERFLOW);
    return 0;
}

ON_1(semaphores, one_with_permits_is_not_locked)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, 1) == 0);
    SHOULD(!mag_sem_locked(&s) && mag_sem_value(&s) == 1);
    SHOULD(mag_sem_acquire(&s) == 0);
    SHOULD(mag_sem_locked(&s) && mag_sem_value(&s) == 0);
    return 0;
}

ON_1(semaphores, the_value_cannot_be_negative)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, -1) == -EINVAL);
    SHOULD(mag_sem_init_bounded(&s, -1) == -EINVAL);
    SHOULD(mag_sem_init(&s, INT64_MIN) == -EINVAL);
    return 0;
}

ON_1(semaphores, as_many_as_there_are_permits_do_not_wait)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, 3) == 0);
    for (int left = 2; left >= 0; left--)
        SHOULD(mag_sem_acquire(&s) == 0 && mag_sem_value(&s) == left);
    SHOULD(mag_sem_try_acquire(&s) == -EAGAIN);
    return 0;
}

ON_1(semaphores, release_without_waiters_raises_the_value)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, 1) == 0 && mag_sem_acquire(&s) == 0 && mag_sem_locked(&s));
    SHOULD(mag_sem_release(&s) == 0 && !mag_sem_locked(&s));
    return 0;
}

ON_1(semaphores, one_without_a_bound_can_be_released_above_its_first_value)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, 1) == 0);
    SHOULD(mag_sem_release(&s) == 0 && mag_sem_release(&s) == 0 && mag_sem_value(&s) == 3);
    return 0;
}

ON_1(semaphores, a_bounded_one_cannot_be_released_more_often_than_acquired)
{
    struct mag_sem s;

    SHOULD(mag_sem_init_bounded(&s, 2) == 0);
    SHOULD(mag_sem_release(&s) == -EOVERFLOW && mag_sem_value(&s) == 2);
    SHOULD(mag_sem_acquire(&s) == 0 && mag_sem_release(&s) == 0);
    SHOULD(mag_sem_release(&s) == -EOVERFLOW && mag_sem_value(&s) == 2);
    return 0;
}

/* ---- waiting ------------------------------------------------------------------------------- */

ON_1(semaphores, release_hands_the_permit_to_who_waits)
{
    struct mag_sem s;
    struct co *c[4];

    SHOULD(mag_sem_init(&s, 3) == 0 && mag_sem_acquire(&s) == 0 && mag_sem_acquire(&s) == 0);
    c[0] = wait_as(1, acquire, &s);
    c[1] = wait_as(2, acquire, &s);
    c[2] = wait_as(3, acquire, &s);
    SHOULD(DIARY_IS(1) && mag_sem_locked(&s) && mag_sem_value(&s) == 0);
    c[3] = begin_as(4, acquire, &s);
    SHOULD(mag_sem_release(&s) == 0 && mag_sem_release(&s) == 0);
    SHOULD(mag_sem_value(&s) == 0); /* given, not free for all */
    let_run();
    SHOULD(mag_done(c[1]) && mag_done(c[2]) && !mag_done(c[3]));
    SHOULD(diary_length() == 3 && mag_sem_locked(&s));
    SHOULD(mag_sem_release(&s) == 0);
    for (int i = 0; i < 4; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(diary.entry[3] == 4);
    return 0;
}

ON_1(semaphores, nobody_takes_a_permit_that_was_handed_to_another)
{
    struct mag_sem s;
    struct co *c;

    SHOULD(mag_sem_init(&s, 0) == 0);
    c = wait_as(1, acquire, &s);
    SHOULD(mag_sem_release(&s) == 0);
    SHOULD(!mag_done(c) && mag_sem_locked(&s));
    SHOULD(mag_sem_try_acquire(&s) == -EAGAIN);
    SHOULD(end_of(c) == 0);
    return 0;
}

static int twice_in_turn(void *arg)
{
    struct mag_sem *s = arg;
    int tag = diary.n_arrived;

    for (int round = 0; round < 2; round++) {
        int rc = mag_sem_acquire(s);
        if (rc < 0)
            return rc;
        diary_write(10 * tag + round);
        if ((rc = mag_sleep(MAG_MS)) < 0 || (rc = mag_sem_release(s)) < 0)
            return rc;
    }
    return -ENOTTY; /* no entry of its own */
}

/* test_acquire_fifo_order */
ON_1(semaphores, permits_go_round_in_the_order_of_the_waits)
{
    struct mag_sem s;
    struct co *c[3];

    SHOULD(mag_sem_init(&s, 1) == 0);
    for (int i = 0; i < 3; i++) {
        uint32_t n = diary.n_arrived;
        c[i] = begin_as(0, twice_in_turn, &s);
        while (diary.n_arrived == n)
            mag_yield();
    }
    for (int i = 0; i < 3; i++)
        SHOULD(end_of(c[i]) == -ENOTTY);
    SHOULD(DIARY_IS(10, 20, 30, 11, 21, 31));
    return 0;
}

static int release_and_acquire_again(void *arg)
{
    int rc = mag_sem_acquire(arg);

    if (rc < 0)
        return rc;
    diary_write(2);
    if ((rc = mag_sem_release(arg)) < 0)
        return rc;
    return mag_sem_acquire(arg);
}

/* test_acquire_fifo_order_2: who releases and comes again goes to the end. */
ON_1(semaphores, who_releases_does_not_pass_who_waits)
{
    struct mag_sem s;
    struct co *c[3];

    SHOULD(mag_sem_init(&s, 1) == 0);
    c[0] = wait_as(1, acquire, &s);
    c[1] = wait_as(4, release_and_acquire_again, &s);
    c[2] = wait_as(3, acquire, &s);
    SHOULD(mag_sem_release(&s) == 0 && mag_sem_release(&s) == 0);
    for (int i = 0; i < 3; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(diary_length() == 4 && diary.entry[3] == 4);
    return 0;
}

/* test_acquire_fifo_order_3 */
ON_1(semaphores, the_order_holds_after_a_cancel_at_the_head)
{
    struct mag_sem s;
    struct co *c[3];

    SHOULD(mag_sem_init(&s, 0) == 0);
    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i + 1, acquire, &s);
    SHOULD(mag_cancel(c[0]) == 0);
    let_run();
    SHOULD(mag_sem_release(&s) == 0 && mag_sem_release(&s) == 0);
    SHOULD(end_of(c[0]) == -ECANCELED && end_of(c[1]) == 0 && end_of(c[2]) == 0);
    SHOULD(DIARY_IS(2, 3) || DIARY_IS(3, 2)); /* both have theirs before either runs */
    return 0;
}

/* test_acquire_fifo_order_4 */
ON_1(semaphores, several_releases_at_once_wake_as_many_of_the_oldest)
{
    struct mag_sem s;
    struct co *c[5];

    SHOULD(mag_sem_init(&s, 0) == 0);
    for (int i = 0; i < 5; i++)
        c[i] = wait_as(i, acquire, &s);
    for (int i = 0; i < 3; i++)
        SHOULD(mag_sem_release(&s) == 0);
    let_run();
    for (int i = 0; i < 5; i++)
        SHOULD(mag_done(c[i]) == (i < 3));
    SHOULD(diary_length() == 3 && mag_sem_value(&s) == 0);
    for (int i = 0; i < 5; i++)
        SHOULD(i < 3 ? end_of(c[i]) == 0 : cancelled_end_of(c[i]) == -ECANCELED);
    return 0;
}

/* ---- cancelled ------------------------------------------------------------------------------- */

ON_1_AND_4(semaphores, acquire_can_be_cancelled)
{
    struct mag_sem s;
    struct co *c;

    SHOULD(mag_sem_init(&s, 1) == 0 && mag_sem_acquire(&s) == 0);
    c = wait_as(1, acquire, &s);
    SHOULD(cancelled_end_of(c) == -ECANCELED);
    SHOULD(mag_sem_release(&s) == 0 && mag_sem_value(&s) == 1);
    return 0;
}

ON_1(semaphores, those_cancelled_before_the_release_are_passed_over)
{
    struct mag_sem s;
    struct co *c[4];

    SHOULD(mag_sem_init(&s, 0) == 0);
    for (int i = 0; i < 4; i++)
        c[i] = wait_as(i, acquire, &s);
    SHOULD(mag_cancel(c[0]) == 0 && mag_cancel(c[1]) == 0);
    SHOULD(mag_sem_release(&s) == 0);
    let_run();
    SHOULD(mag_done(c[2]) && !mag_done(c[3]) && DIARY_IS(2));
    SHOULD(end_of(c[0]) == -ECANCELED && end_of(c[1]) == -ECANCELED && end_of(c[2]) == 0);
    SHOULD(cancelled_end_of(c[3]) == -ECANCELED);
    return 0;
}

/* test_acquire_hang */
ON_1(semaphores, a_cancel_and_a_release_together_wake_the_next)
{
    struct mag_sem s;
    struct co *first, *second;

    SHOULD(mag_sem_init(&s, 0) == 0);
    first = wait_as(1, acquire, &s);
    second = wait_as(2, acquire, &s);
    SHOULD(mag_cancel(first) == 0 && mag_sem_release(&s) == 0);
    SHOULD(end_of(second) == 0 && end_of(first) == -ECANCELED);
    SHOULD(mag_sem_locked(&s));
    return 0;
}

/* test_acquire_no_hang: cancelled when it has the permit, or just before. */
static struct co *victim;

static int hold_then_cancel(void *arg)
{
    int rc = mag_sem_acquire(arg);

    if (rc == 0)
        rc = mag_yield();
    mag_sem_release(arg);
    mag_cancel(victim);
    return rc;
}

static int hold(void *arg)
{
    int rc = mag_sem_acquire(arg);

    if (rc < 0)
        return rc;
    rc = mag_yield();
    mag_sem_release(arg);
    return rc;
}

ON_1_AND_4(semaphores, a_permit_given_to_one_who_is_cancelled_is_not_lost)
{
    struct mag_sem s;
    struct co *c;
    int rc;

    SHOULD(mag_sem_init(&s, 1) == 0);
    SHOULD(mag_sem_acquire(&s) == 0);
    c = wait_as(1, hold_then_cancel, &s);
    victim = wait_as(2, hold, &s);
    SHOULD(mag_sem_release(&s) == 0);
    SHOULD(end_of(c) == 0);
    rc = end_of(victim);
    SHOULD(rc == -ECANCELED || rc == 0);
    SHOULD(mag_sem_try_acquire(&s) == 0);
    return 0;
}

ON_1_AND_4(semaphores, a_permit_that_was_given_is_kept_by_who_is_cancelled_then)
{
    struct mag_sem s;
    struct co *c;

    SHOULD(mag_sem_init(&s, 0) == 0);
    c = wait_as(1, acquire, &s);
    SHOULD(mag_sem_release(&s) == 0);
    SHOULD(cancelled_end_of(c) == 0 && mag_sem_value(&s) == 0);
    return 0;
}

ON_1_AND_4(semaphores, who_is_cancelled_may_take_what_is_there)
{
    struct mag_sem s;
    struct mag_scope scope;

    SHOULD(mag_sem_init(&s, 1) == 0);
    SHOULD(mag_scope_enter(&scope, MAG_NEVER, NULL) == 0 && mag_scope_cancel(&scope) == 0);
    SHOULD(mag_sem_acquire(&s) == 0);
    SHOULD(mag_sem_acquire(&s) == -ECANCELED);
    SHOULD(mag_scope_leave(&scope, 0) == 0 && mag_sem_value(&s) == 0);
    return 0;
}

/* Several in a row: the last one that is left gets it (CPython gh-90155). */
ON_1(semaphores, all_but_the_last_cancelled_leaves_it_first)
{
    struct mag_sem s;
    struct co *c[5];

    SHOULD(mag_sem_init(&s, 0) == 0);
    for (int i = 0; i < 5; i++)
        c[i] = wait_as(i, acquire, &s);
    for (int i = 0; i < 4; i++)
        SHOULD(cancelled_end_of(c[i]) == -ECANCELED);
    SHOULD(mag_sem_release(&s) == 0 && end_of(c[4]) == 0 && DIARY_IS(4));
    return 0;
}

/* ---- limits of time ---------------------------------------------------------------------------- */

static int acquire_within(struct mag_sem *s, mag_time ns)
{
    struct mag_scope scope;
    int rc = mag_scope_enter(&scope, mag_now() + ns, NULL);

    return rc < 0 ? rc : mag_scope_leave(&scope, mag_sem_acquire(s));
}

ON_1_AND_4(semaphores, acquire_can_time_out)
{
    struct mag_sem s;

    SHOULD(mag_sem_init(&s, 0) == 0);
    SHOULD(acquire_within(&s, MAG_MS) == -ETIMEDOUT);
    SHOULD(mag_sem_release(&s) == 0 && mag_sem_value(&s) == 1);
    SHOULD(acquire_within(&s, 0) == 0);
    return 0;
}

/* At the same instant: a permit is taken, or it is still there. */
ON_1_AND_4(semaphores, a_release_at_the_deadline_loses_no_permit)
{
    for (int i = 0; i < 20; i++) {
        struct mag_sem s;
        int rc;

        SHOULD(mag_sem_init(&s, 0) == 0);
        SHOULD(mag_call_later(300 * MAG_US, release, &s) == 0);
        rc = acquire_within(&s, 300 * MAG_US);
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        if (rc == 0)
            SHOULD(mag_sem_value(&s) == 0);
        else
            SHOULD(mag_sem_acquire(&s) == 0); /* it comes */
    }
    return 0;
}

/* ---- cancelled everywhere ------------------------------------------------------------------------ */

struct shop {
    struct mag_sem s;
    mag_atomic(int32_t) inside, most;
};

static int customer(void *arg, long *value)
{
    struct shop *shop = arg;

    *value = 0;
    for (int i = 0; i < 3; i++) {
        int rc = mag_sem_acquire(&shop->s);
        if (rc < 0)
            return rc;
        int32_t now = mag_fetch_add(&shop->inside, 1) + 1;
        if (now > mag_load_relaxed(&shop->most))
            mag_store_relaxed(&shop->most, now);
        rc = mag_yield();
        mag_fetch_sub(&shop->inside, 1);
        SHOULD(mag_sem_release(&shop->s) == 0);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int crowd(void *arg, long *value)
{
    void *c[6];

    *value = 0;
    for (int i = 0; i < 6; i++)
        c[i] = co(customer, arg);
    nth_point();
    return mag_gather(NULL, 0, c, 6, NULL);
}

static int lone_customer(void *arg, long *value)
{
    struct co *other = go(customer, arg);
    int rc = 0;

    *value = 0;
    for (int i = 0; i < 3 && rc == 0; i++) {
        nth_point();
        rc = mag_sem_acquire(arg);
        if (rc < 0)
            break;
        nth_point();
        rc = mag_yield();
        mag_sem_release(arg);
    }
    mag_cancel(other);
    await_co(other, NULL);
    return rc;
}

static int all_permits_are_back(void *arg, int rc)
{
    struct shop *shop = arg;

    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(mag_sem_value(&shop->s) == 2 && shop->inside == 0 && shop->most <= 2);
    SHOULD(mag_sem_release(&shop->s) == -EOVERFLOW);
    return 0;
}

ON_1_AND_4(semaphores, no_permit_is_lost_whenever_a_crowd_is_cancelled)
{
    struct shop shop = { .inside = 0 };

    SHOULD(mag_sem_init_bounded(&shop.s, 2) == 0);
    return nth_cancel(crowd, &shop, all_permits_are_back);
}

ON_1_AND_4(semaphores, no_permit_is_lost_whenever_one_is_cancelled)
{
    struct shop shop = { .inside = 0 };

    SHOULD(mag_sem_init_bounded(&shop.s, 2) == 0);
    return nth_cancel(lone_customer, &shop, all_permits_are_back);
}
