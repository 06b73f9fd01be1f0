/* SPDX-License-Identifier: MIT */
/* wait.c - what CPython's suite pins for asyncio.wait (test_tasks.py, test_wait*) */
#include "words.h"

#include <criterion/criterion.h>

TestSuite(wait, .timeout = 60);

#define LONG (3600 * MAG_SECOND)

static bool done[8];

/* ---- until all have ended ------------------------------------------------------------ */

ON_1_AND_4(wait, waits_until_all_have_ended)
{
    void *t[] = { spawn(gives_after(4 * MAG_MS, 1)), spawn(gives_after(2 * MAG_MS, 2)) };
    mag_time begun = mag_now();

    SHOULD(mag_wait(t, 2, MAG_ALL_COMPLETED, MAG_NEVER, done) == 2);
    SHOULD(mag_now() - begun >= 3 * MAG_MS);
    SHOULD(done[0] && done[1] && mag_done(t[0]) && mag_done(t[1]));
    SHOULD(await((struct gives_after *)t[0]) == 1 && await((struct gives_after *)t[1]) == 2);
    return 0;
}

/* "Doing it again should take no time and exercise a different path." */
ON_1_AND_4(wait, waiting_again_takes_no_time)
{
    struct gives_after *a = spawn(gives_after(MAG_MS, 1));
    void *t[] = { a };

    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_NEVER, done) == 1);
    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, 0, done) == 1 && done[0]);
    SHOULD(mag_wait(t, 1, MAG_FIRST_EXCEPTION, MAG_NEVER, done) == 1);
    SHOULD(await(a) == 1);
    return 0;
}

ON_1_AND_4(wait, an_error_of_a_task_is_not_an_error_of_the_wait)
{
    struct fails_after *b = spawn(fails_after(2 * MAG_MS, -EIO));
    struct gives_after *a = spawn(gives_after(MAG_MS, 1));
    void *t[] = { b, a };

    SHOULD(mag_wait(t, 2, MAG_ALL_COMPLETED, MAG_NEVER, done) == 2);
    SHOULD(await_rc(b, NULL) == -EIO && await(a) == 1);
    return 0;
}

/* test_wait_duplicate_coroutines: asyncio's is a set */
ON_1_AND_4(wait, the_same_task_may_be_there_twice)
{
    struct gives_later *c = spawn(gives_later(1)), *d = spawn(gives_later(2));
    void *t[] = { c, c, d };

    SHOULD(mag_wait(t, 3, MAG_ALL_COMPLETED, MAG_NEVER, done) == 3);
    SHOULD(await(c) == 1 && await(d) == 2);
    return 0;
}

/* ---- until the first has ended ---------------------------------------------------------- */

ON_1_AND_4(wait, first_completed_returns_with_the_first)
{
    struct gives_after *b = spawn(gives_after(MAG_MS, 2));
    struct never *a = spawn(never());
    void *t[] = { b, a };

    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 1);
    SHOULD(done[0] && !done[1] && !mag_done(a));
    SHOULD(await(b) == 2 && CANCELS(a));
    return 0;
}

/* test_wait_really_done: what has ended by the time of the return is reported. */
ON_1(wait, first_completed_reports_all_that_have_ended)
{
    struct gives *a = spawn(gives(1)), *b = spawn(gives(2));
    void *t[] = { a, b };

    SHOULD(has_ended(a) && has_ended(b));
    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 2 && done[0] && done[1]);
    SHOULD(await(a) == 1 && await(b) == 2);
    return 0;
}

ON_1_AND_4(wait, first_completed_is_also_a_failure)
{
    struct fails_after *b = spawn(fails_after(MAG_MS, -EIO));
    struct never *a = spawn(never());
    void *t[] = { a, b };

    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 1 && done[1]);
    SHOULD(await_rc(b, NULL) == -EIO && CANCELS(a));
    return 0;
}

ON_1_AND_4(wait, first_completed_is_also_a_cancelled_task)
{
    struct never *a = spawn(never()), *b = spawn(never());
    void *t[] = { a, b };

    SHOULD(mag_cancel(b) == 0);
    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 1 && done[1]);
    SHOULD(await_rc(b, NULL) == -ECANCELED && CANCELS(a));
    return 0;
}

/* Each time one more: the loop that everybody writes. */
ON_1_AND_4(wait, one_after_the_other_in_a_loop)
{
    void *t[5];
    int sum = 0, n = 0, rc;

    for (int i = 0; i < 5; i++)
        t[i] = spawn(gives_after(i * 200 * MAG_US, 1 << i));
    while ((rc = mag_wait(t, 5, MAG_FIRST_COMPLETED, MAG_NEVER, done)) > 0)
        for (int i = 0; i < 5; i++)
            if (done[i]) {
                sum += await((struct gives_after *)t[i]);
                t[i] = NULL;
                n++;
            }
    SHOULD(rc == 0 && n == 5 && sum == 31);
    return 0;
}

/* ---- until the first failure ------------------------------------------------------------------ */

ON_1_AND_4(wait, first_exception_that_was_there_before)
{
    struct fails *b = spawn(fails(-EIO));
    struct never *a = spawn(never());
    void *t[] = { b, a };

    SHOULD(has_ended(b));
    SHOULD(mag_wait(t, 2, MAG_FIRST_EXCEPTION, MAG_NEVER, done) == 1 && done[0] && !done[1]);
    SHOULD(await_rc(b, NULL) == -EIO && CANCELS(a));
    return 0;
}

ON_1_AND_4(wait, first_exception_during_the_wait)
{
    struct fails_after *b = spawn(fails_after(MAG_MS, -EIO));
    struct never *a = spawn(never());
    void *t[] = { a, b };

    SHOULD(mag_wait(t, 2, MAG_FIRST_EXCEPTION, MAG_NEVER, done) == 1 && done[1] && !done[0]);
    SHOULD(await_rc(b, NULL) == -EIO && CANCELS(a));
    return 0;
}

ON_1_AND_4(wait, first_exception_without_one_waits_for_all)
{
    struct gives_after *a = spawn(gives_after(MAG_MS, 1)), *b = spawn(gives_after(2 * MAG_MS, 2));
    void *t[] = { a, b };

    SHOULD(mag_wait(t, 2, MAG_FIRST_EXCEPTION, MAG_NEVER, done) == 2);
    SHOULD(await(a) == 1 && await(b) == 2);
    return 0;
}

/* In asyncio, too, a cancelled task is not one that failed. */
ON_1_AND_4(wait, first_exception_takes_a_cancelled_task_for_no_failure)
{
    struct never *a = spawn(never());
    struct gives_after *b = spawn(gives_after(3 * MAG_MS, 2));
    void *t[] = { a, b };

    SHOULD(mag_cancel(a) == 0);
    SHOULD(mag_wait(t, 2, MAG_FIRST_EXCEPTION, MAG_NEVER, done) == 2);
    SHOULD(await_rc(a, NULL) == -ECANCELED && await(b) == 2);
    return 0;
}

/* ---- timeouts ------------------------------------------------------------------------------------- */

ON_1_AND_4(wait, a_timeout_returns_what_has_ended)
{
    struct gives_after *a = spawn(gives_after(MAG_MS, 1));
    struct never *b = spawn(never());
    void *t[] = { b, a };
    mag_time begun = mag_now();

    SHOULD(has_ended(a));
    SHOULD(mag_wait(t, 2, MAG_ALL_COMPLETED, 5 * MAG_MS, done) == 1 && done[1] && !done[0]);
    SHOULD(mag_now() - begun >= 5 * MAG_MS);
    SHOULD(await(a) == 1 && CANCELS(b));
    return 0;
}

ON_1_AND_4(wait, a_timeout_cancels_nothing)
{
    struct word *w = word();
    struct reads *a = spawn(reads(w));
    void *t[] = { a };

    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_MS, done) == 0 && !done[0]);
    SHOULD(!mag_cancelled());
    SHOULD(future_set(w, 1) == 0 && await(a) == 1);
    return 0;
}

ON_1_AND_4(wait, a_timeout_that_is_not_needed_costs_nothing)
{
    struct gives_after *a = spawn(gives_after(MAG_MS, 1));
    void *t[] = { a };
    mag_time begun = mag_now();

    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, LONG, done) == 1);
    SHOULD(mag_now() - begun < MAG_MINUTE);
    SHOULD(await(a) == 1);
    return 0;
}

ON_1_AND_4(wait, a_timeout_of_zero_only_looks)
{
    struct never *a = spawn(never());
    void *t[] = { a };

    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, 0, done) == 0 && !done[0]);
    SHOULD(CANCELS(a));
    return 0;
}

/* test_wait_concurrent_complete: either answer is right, and it is a whole one. */
ON_1_AND_4(wait, a_timeout_at_the_same_instant_as_the_end)
{
    for (int i = 0; i < 100; i++) {
        struct gives_after *a = spawn(gives_after(100 * MAG_US, 1));
        void *t[] = { a };
        int n = mag_wait(t, 1, MAG_ALL_COMPLETED, (80 + i % 40) * MAG_US, done);
        SHOULD(n == 0 || n == 1);
        SHOULD(done[0] == (n == 1) && (n == 0 || mag_done(a)));
        SHOULD(await(a) == 1);
    }
    return 0;
}

/* ---- what can be waited for --------------------------------------------------------------------------- */

ON_1_AND_4(wait, coroutines_are_started_as_tasks)
{
    struct gives_later *a = gives_later(1);
    void *t[] = { a };

    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_NEVER, done) == 1);
    SHOULD(strcmp(mag_kind_name(a), "task") == 0 && await(a) == 1);
    return 0;
}

ON_1_AND_4(wait, futures_can_be_waited_for)
{
    struct word *w = word(), *never_set = word();
    void *t[] = { never_set, w };

    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_MS, done) == 0);
    SHOULD(future_set(w, 3) == 0);
    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 1 && done[1]);
    SHOULD(await(w) == 3);
    SHOULD(future_fail(never_set, -EIO) == 0 && await_rc(never_set, NULL) == -EIO);
    return 0;
}

ON_1_AND_4(wait, a_task_that_somebody_awaits_is_refused)
{
    struct word *w = word();
    struct reads *r = spawn(reads(w));
    void *t[] = { w };

    SHOULD(have_arrived(1));
    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_NEVER, done) == -EALREADY);
    SHOULD(future_set(w, 1) == 0 && await(r) == 1);
    return 0;
}

async(int, waits_for, (void *, task))
{
    void *t[] = { task };

    arrive();
    async_return(await(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_NEVER, NULL)));
}

ON_1_AND_4(wait, who_waits_is_the_awaiter_meanwhile)
{
    struct word *a = word();
    struct waits_for *w = spawn(waits_for(a));

    SHOULD(have_arrived(1));
    SHOULD(await_rc(a, NULL) == -EALREADY);
    SHOULD(future_set(a, 1) == 0);
    SHOULD(await(w) == 1);
    SHOULD(await(a) == 1); /* and no longer */
    return 0;
}

/* test_wait_errors, test_wait_invalid_args */
ON_1(wait, mistakes_are_told)
{
    struct gives *a = gives(1);
    void *t[] = { a, mag_self() };

    SHOULD(mag_wait(t, 0, MAG_ALL_COMPLETED, MAG_NEVER, NULL) == -EINVAL);
    SHOULD(mag_wait(t, 1, (enum mag_wait_how) - 1, MAG_NEVER, NULL) == -EINVAL);
    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, -MAG_SECOND, NULL) == -EINVAL);
    SHOULD(strcmp(mag_kind_name(a), "coroutine") == 0); /* nothing was started */
    SHOULD(mag_wait(t + 1, 1, MAG_ALL_COMPLETED, MAG_NEVER, NULL) == -EDEADLK);
    SHOULD(await(a) == 1);
    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_NEVER, NULL) == -EALREADY);
    return 0;
}

/* ---- cancellation ---------------------------------------------------------------------------------------- */

/* test_yield_wait_does_not_shield_cancel */
ON_1_AND_4(wait, cancel_returns_at_once_and_leaves_the_tasks_running)
{
    struct word *w = word();
    struct reads *inner = spawn(reads(w));
    struct waits_for *outer = spawn(waits_for(inner));

    SHOULD(have_arrived(2));
    SHOULD(CANCELS(outer));
    SHOULD(!mag_done(inner));
    SHOULD(future_set(w, 4) == 0);
    SHOULD(await(inner) == 4);
    return 0;
}

ON_1_AND_4(wait, a_deadline_around_it_leaves_the_tasks_running)
{
    struct never *a = spawn(never());
    struct waits_for *w = spawn(waits_for(a));

    SHOULD(wait_for(w, 2 * MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(!mag_done(a) && CANCELS(a));
    return 0;
}

static void *left[3];

static int waits_in_many_ways(void *arg, long *value)
{
    int rc;

    *value = 0;
    *(int *)arg = 0;
    nth_point();
    rc = mag_wait(left, 3, MAG_FIRST_COMPLETED, MAG_NEVER, done);
    nth_point();
    if (rc >= 0)
        rc = mag_wait(left, 3, MAG_ALL_COMPLETED, 50 * MAG_US, NULL);
    nth_point();
    if (rc >= 0)
        rc = mag_wait(left, 3, MAG_ALL_COMPLETED, MAG_NEVER, done);
    *(int *)arg = rc;
    return rc < 0 ? rc : 0;
}

static int make_left(void)
{
    for (int i = 0; i < 3; i++)
        left[i] = i ? (void *)spawn(gives_after(i * 40 * MAG_US, i)) : spawn(gives_later(0));
    return 0;
}

/* Whatever happened, each is there to be awaited. */
static int left_are_whole(void *arg, int rc)
{
    SHOULD(rc == -ECANCELED || (rc == 0 && *(int *)arg == 3));
    for (int i = 0; i < 3; i++) {
        int v;
        SHOULD(mag_await(left[i], &v, sizeof v) == 0 && v == i);
    }
    return make_left();
}

ON_1_AND_4(wait, cancel_at_each_suspension_in_turn)
{
    int n = 0, rc = make_left();

    if (rc == 0)
        rc = nth_cancel(waits_in_many_ways, &n, left_are_whole);
    for (int i = 0; i < 3; i++)
        (void)mag_await(left[i], NULL, 0);
    return rc;
}

ON_1_AND_4(wait, cancel_at_the_same_instant_as_the_end)
{
    for (int i = 0; i < 200; i++) {
        struct gives_after *a = spawn(gives_after(i % 20 * MAG_US, 5));
        struct waits_for *w = spawn(waits_for(a));
        int rc, n = 0;
        if (i % 3)
            await(mag_sleep(i % 25 * MAG_US));
        SHOULD(mag_cancel(w) == 0);
        rc = await_rc(w, &n);
        SHOULD(rc == 0 ? n == 1 : rc == -ECANCELED);
        SHOULD(await(a) == 5);
    }
    return 0;
}
