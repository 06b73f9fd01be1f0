/* SPDX-License-Identifier: MIT */
/* once.c - one does it, the others wait; failures, cancels, threads, and itself */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(once, .timeout = 60);

static struct mag_once once;
static mag_atomic(int32_t) n_calls, n_inside, n_to_fail;

static void begin(int to_fail)
{
    memset(&once, 0, sizeof once);
    n_calls = n_inside = 0;
    n_to_fail = to_fail;
}

/* Fails the first n_to_fail times; never twice at once. */
static int attempt(int rc)
{
    if (rc < 0)
        return rc;
    return mag_fetch_add(&n_calls, 1) < n_to_fail ? -EIO : 5;
}

static int quick(void *arg)
{
    (void)arg;
    return attempt(0);
}

static int suspending(void *arg)
{
    int rc = mag_fetch_add(&n_inside, 1) == 0 ? 0 : -EPROTO;

    (void)arg;
    for (int i = 0; i < 3 && rc == 0; i++)
        rc = mag_yield();
    mag_fetch_sub(&n_inside, 1);
    return attempt(rc);
}

static int once_quick(void *unused)
{
    (void)unused;
    return mag_once(&once, quick, NULL);
}

static int once_suspending(void *unused)
{
    (void)unused;
    return mag_once(&once, suspending, NULL);
}

/* ---- alone --------------------------------------------------------------------------------- */

ON_1_AND_4(once, refuses_null)
{
    begin(0);
    SHOULD(mag_once(NULL, quick, NULL) == -EINVAL && mag_once(&once, NULL, NULL) == -EINVAL);
    SHOULD(mag_once(&once, quick, NULL) == 0 && n_calls == 1);
    return 0;
}

Test(once, works_without_any_runtime)
{
    begin(1);
    cr_assert_eq(once_quick(NULL), -EIO);
    cr_assert_eq(once_quick(NULL), 0);
    cr_assert_eq(once_quick(NULL), 0);
    cr_assert_eq(n_calls, 2);
}

ON_1_AND_4(once, a_failure_lets_the_next_try)
{
    begin(2);
    SHOULD(once_suspending(NULL) == -EIO && once_quick(NULL) == -EIO);
    SHOULD(once_suspending(NULL) == 0 && once_quick(NULL) == 0 && n_calls == 3);
    return 0;
}

/* ---- several --------------------------------------------------------------------------------- */

ON_1_AND_4(once, the_others_wait_for_the_end)
{
    struct co *c[10];

    begin(0);
    for (int i = 0; i < 10; i++)
        c[i] = begin_as(i, once_suspending, NULL);
    for (int i = 0; i < 10; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(n_calls == 1);
    return 0;
}

ON_1_AND_4(once, each_failure_is_told_to_one)
{
    struct co *c[10];
    int n_failed = 0;

    begin(4);
    for (int i = 0; i < 10; i++)
        c[i] = begin_as(i, once_suspending, NULL);
    for (int i = 0; i < 10; i++) {
        int rc = end_of(c[i]);
        SHOULD(rc == 0 || rc == -EIO);
        n_failed += rc == -EIO;
    }
    SHOULD(n_failed == 4 && n_calls == 5);
    return 0;
}

/* The function's own. */
static struct mag_event gate;

static int gated(void *arg)
{
    int rc = mag_event_wait(&gate);

    (void)arg;
    return attempt(rc);
}

static int once_gated(void *unused)
{
    (void)unused;
    return mag_once(&once, gated, NULL);
}

ON_1(once, the_turn_goes_to_the_oldest)
{
    struct co *c[4];

    begin(3);
    memset(&gate, 0, sizeof gate);
    for (int i = 0; i < 4; i++)
        c[i] = wait_as(i, once_gated, NULL);
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 4; k++)
            SHOULD(mag_done(c[k]) == (k < i));
        SHOULD(mag_event_set(&gate) == 0 && mag_event_clear(&gate) == 0);
        let_run();
    }
    for (int i = 0; i < 4; i++)
        SHOULD(end_of(c[i]) == (i < 3 ? -EIO : 0));
    return 0;
}

/* ---- cancelled --------------------------------------------------------------------------------- */

ON_1_AND_4(once, a_cancelled_waiter_leaves)
{
    struct co *runner, *waiter;

    begin(0);
    memset(&gate, 0, sizeof gate);
    runner = wait_as(1, once_gated, NULL);
    waiter = wait_as(2, once_gated, NULL);
    SHOULD(cancelled_end_of(waiter) == -ECANCELED && n_calls == 0);
    SHOULD(mag_event_set(&gate) == 0);
    SHOULD(end_of(runner) == 0 && n_calls == 1);
    return 0;
}

ON_1_AND_4(once, a_cancelled_runner_fails_and_the_next_goes_on)
{
    struct co *runner, *waiter;

    begin(0);
    memset(&gate, 0, sizeof gate);
    runner = wait_as(1, once_gated, NULL);
    waiter = wait_as(2, once_gated, NULL);
    SHOULD(cancelled_end_of(runner) == -ECANCELED);
    let_run();
    SHOULD(!mag_done(waiter));
    SHOULD(mag_event_set(&gate) == 0);
    SHOULD(end_of(waiter) == 0 && n_calls == 1);
    return 0;
}

static int several(void *arg, long *value)
{
    struct co *c[4];
    int rc = 0;

    (void)arg;
    *value = 0;
    for (int i = 0; i < 4; i++)
        c[i] = begin_as(i, once_suspending, NULL);
    nth_point();
    rc = once_suspending(NULL);
    for (int i = 0; i < 4; i++) {
        if (i % 2)
            mag_cancel(c[i]);
        await_co(c[i], &(long){ 0 });
    }
    return rc;
}

static int was_done_once(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(n_calls <= 1 && n_inside == 0);
    SHOULD(once_quick(NULL) == 0 && n_calls == 1);
    begin(0);
    return 0;
}

ON_1_AND_4(once, is_done_once_whenever_somebody_is_cancelled)
{
    begin(0);
    return nth_cancel(several, NULL, was_done_once);
}

/* ---- itself --------------------------------------------------------------------------------------- */

static int into_itself(void *arg)
{
    (void)arg;
    return mag_once(&once, quick, NULL) == -EDEADLK ? attempt(0) : -EPROTO;
}

static int into_itself_later(void *arg)
{
    int rc = mag_yield();

    return rc < 0 ? rc : into_itself(arg);
}

static int once_in_place(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    return mag_once(&once, quick, NULL);
}

static int awaits_itself(void *arg)
{
    (void)arg;
    return await_co(co(once_in_place, NULL), NULL) == -EDEADLK ? attempt(0) : -EPROTO;
}

ON_1_AND_4(once, refuses_to_wait_for_itself)
{
    int (*const fn[])(void *) = { into_itself, into_itself_later, awaits_itself };

    for (int i = 0; i < 3; i++) {
        begin(0);
        SHOULD(mag_once(&once, fn[i], NULL) == 0 && n_calls == 1);
    }
    return 0;
}

Test(once, refuses_a_thread_to_wait_for_itself)
{
    begin(0);
    cr_assert_eq(mag_once(&once, into_itself, NULL), 0);
    cr_assert_eq(n_calls, 1);
}

/* ---- tasks and threads ----------------------------------------------------------------------------- */

static int slow(void *arg)
{
    (void)arg;
    usleep(2000);
    return attempt(0);
}

static void *thread_once(void *arg)
{
    (void)arg;
    return arg_of(mag_once(&once, slow, NULL));
}

ON_1_AND_4(once, tasks_and_threads_agree_on_one)
{
    for (int round = 0; round < 5; round++) {
        pthread_t t[3];
        struct co *c[3];
        void *rc;

        begin(0);
        for (int i = 0; i < 3; i++)
            SHOULD(pthread_create(&t[i], NULL, thread_once, NULL) == 0);
        for (int i = 0; i < 3; i++)
            c[i] = begin_as(i, once_suspending, NULL);
        for (int i = 0; i < 3; i++)
            SHOULD(end_of(c[i]) == 0);
        for (int i = 0; i < 3; i++)
            SHOULD(pthread_join(t[i], &rc) == 0 && rc == NULL);
        SHOULD(n_calls == 1);
    }
    return 0;
}
