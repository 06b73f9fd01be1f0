/* SPDX-License-Identifier: MIT */
/* future.c - set before, while, and after somebody awaits, from any thread */
#include "body.h"
#include "in_task.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(future, .timeout = 20);

static int await_future(void *arg, long *value)
{
    return mag_await(arg, value, sizeof *value);
}

/* ---- on one thread ------------------------------------------------------------------- */

static int set_before(void)
{
    void *f = future();
    long v = 0;

    EXPECT(f && strcmp(mag_kind_name(f), "future") == 0);
    EXPECT(strcmp(mag_name(f), "future") == 0);
    EXPECT(!mag_done(f));
    EXPECT(set(f, 5) == 0);
    EXPECT(mag_done(f));
    EXPECT(set(f, 6) == -EALREADY);
    EXPECT(mag_future_fail(f, -EIO) == -EALREADY);
    EXPECT(mag_await(f, &v, sizeof v) == 0 && v == 5);
    EXPECT(strcmp(mag_kind_name(f), "freed") == 0);
    EXPECT(mag_await(f, &v, sizeof v) == -EALREADY);
    return 0;
}

Test(future, set_before_it_is_awaited)
{
    BOTH(set_before);
    cr_assert_eq(mag_mem_live() >= 0, 1);
}

static int failed(void)
{
    void *f = future();
    long v = 1;

    EXPECT(mag_future_fail(f, 0) == -EINVAL);
    EXPECT(mag_future_fail(f, 5) == -EINVAL);
    EXPECT(mag_future_fail(f, -EIO) == 0);
    EXPECT(mag_done(f));
    EXPECT(mag_await(f, &v, sizeof v) == -EIO && v == 1);
    return 0;
}

Test(future, can_fail)
{
    BOTH(failed);
}

static int wrong(void)
{
    void *f = future();
    char small = 'x';
    long v = 4;

    EXPECT(mag_future_set(f, &small, 1) == -EINVAL);
    EXPECT(!mag_done(f));
    EXPECT(mag_future_set(f, &v, sizeof v) == 0);
    EXPECT(mag_await(f, &small, 1) == -EINVAL && small == 'x');
    EXPECT(mag_await(f, &v, sizeof v) == 0 && v == 4);
    EXPECT(mag_future_set(NULL, &v, sizeof v) == -ENOMEM);
    EXPECT(mag_future_fail(NULL, -EIO) == -ENOMEM);
    return 0;
}

Test(future, refuses_wrong_sizes)
{
    BOTH(wrong);
}

static int not_a_task(void *arg, long *value)
{
    void *f = future();
    struct co *c = co(same, arg_of(1));
    long v;

    (void)arg, (void)value;
    SHOULD(mag_start(f, NULL) < 0); /* has no body */
    SHOULD(mag_cancel(f) == -EINVAL);
    SHOULD(mag_future_fail(c, -EIO) == -EALREADY);
    SHOULD(set(f, 2) == 0);
    SHOULD(await_future(f, &v) == 0 && v == 2);
    SHOULD(await_co(c, &v) == 0 && v == 1);
    return 0;
}

Test(future, is_no_task)
{
    RUN_1_AND_4(not_a_task, NULL);
}

static int no_value(void *arg, long *value)
{
    static const struct mag_co_type signal_type = { .name = "signal" };
    void *f = mag_future_new(&signal_type, NULL);

    (void)arg, (void)value;
    SHOULD(mag_future_set(f, NULL, 0) == 0);
    SHOULD(mag_await(f, NULL, 0) == 0);
    return 0;
}

Test(future, may_have_no_value)
{
    RUN(1, no_value, NULL);
}

/* ---- between tasks ------------------------------------------------------------------------ */

static int set_while_awaited(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long i = 0; i < 1000; i++) {
        void *f = future();
        struct co *c = go(await_future, f);
        long v = 0;
        if (i % 2)
            SHOULD(mag_yield() == 0);
        SHOULD(set(f, i) == 0);
        SHOULD(await_co(c, &v) == 0 && v == i);
    }
    return 0;
}

Test(future, set_while_a_task_awaits)
{
    RUN_1_AND_4(set_while_awaited, NULL);
}

static int second_awaiter(void *arg, long *value)
{
    void *f = future();
    struct co *c = go(await_future, f);
    long v = 0;

    (void)arg, (void)value;
    SHOULD(settle_down() == 0);
    SHOULD(await_future(f, &v) == -EALREADY);
    SHOULD(set(f, 3) == 0);
    SHOULD(await_co(c, &v) == 0 && v == 3);
    return 0;
}

Test(future, has_one_awaiter)
{
    RUN_1_AND_4(second_awaiter, NULL);
}

static void set_it(void *arg)
{
    set(arg, 77);
}

static int set_later(void *arg, long *value)
{
    void *f = future();
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_call_later(5 * MAG_MS, set_it, f) == 0);
    SHOULD(mag_await(f, &v, sizeof v) == 0 && v == 77);
    return 0;
}

Test(future, set_by_a_callback)
{
    RUN_1_AND_4(set_later, NULL);
}

/* ---- from foreign threads --------------------------------------------------------------------- */

enum { PER_THREAD = 2000, THREADS = 4 };

static void *futures[THREADS * PER_THREAD];

static void *set_a_share(void *arg)
{
    for (long i = num(arg); i < THREADS * PER_THREAD; i += THREADS)
        if (i % 5 == 0)
            mag_future_fail(futures[i], -EIO);
        else
            set(futures[i], i);
    return NULL;
}

static int from_threads(void *arg, long *value)
{
    pthread_t threads[THREADS];

    (void)arg, (void)value;
    for (int i = 0; i < THREADS * PER_THREAD; i++)
        SHOULD(futures[i] = future());
    for (long i = 0; i < THREADS; i++)
        SHOULD(pthread_create(&threads[i], NULL, set_a_share, arg_of(i)) == 0);
    for (long i = 0; i < THREADS * PER_THREAD; i++) {
        long v = -1;
        int rc = mag_await(futures[i], &v, sizeof v);
        SHOULD(i % 5 == 0 ? rc == -EIO && v == -1 : rc == 0 && v == i);
    }
    for (int i = 0; i < THREADS; i++)
        SHOULD(pthread_join(threads[i], NULL) == 0);
    return 0;
}

Test(future, set_from_foreign_threads)
{
    for (int i = 0; i < 5; i++)
        RUN_1_AND_4(from_threads, NULL);
}

static void *set_soon(void *arg)
{
    mag_sleep(10 * MAG_MS);
    set(arg, 8);
    return NULL;
}

static int awaited_first(void)
{
    void *f = future();
    pthread_t thread;
    long v = 0;

    EXPECT(pthread_create(&thread, NULL, set_soon, f) == 0);
    EXPECT(mag_await(f, &v, sizeof v) == 0 && v == 8);
    EXPECT(pthread_join(thread, NULL) == 0);
    return 0;
}

Test(future, awaited_before_a_thread_sets_it)
{
    BOTH(awaited_first);
}

/* ---- given up ------------------------------------------------------------------------------------ */

static int awaiter_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 300; i++) {
        void *f = future();
        struct co *c = go(await_future, f);
        if (i % 3)
            SHOULD(mag_sleep(i % 3 * 20 * MAG_US) == 0);
        SHOULD(mag_cancel(c) == 0);
        if (i % 2) { /* who comes second sees the other */
            int rc = await_co(c, NULL);
            SHOULD(rc == -ECANCELED);
            SHOULD(set(f, 1) == 0); /* still the setter's */
        } else {
            long v = 0;
            int rc;
            SHOULD(set(f, 1) == 0);
            rc = await_co(c, &v);
            SHOULD(rc == -ECANCELED || (rc == 0 && v == 1));
        }
    }
    return 0;
}

/* One that was cancelled before it began never takes its hold of the future. */
static int awaiter_of_begun(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 100; i++) {
        void *f = future();
        struct co *c = go(await_future, f);
        SHOULD(settle_down() == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
        SHOULD(strcmp(mag_kind_name(f), "future") == 0);
        SHOULD(set(f, 1) == 0);
        SHOULD(strcmp(mag_kind_name(f), "freed") == 0);
    }
    return 0;
}

Test(future, given_up_by_a_cancelled_awaiter)
{
    RUN_1_AND_4(awaiter_cancelled, NULL);
    RUN_1_AND_4(awaiter_of_begun, NULL);
}

/* Set, and never awaited: freed with the runtime. */
static int forgotten(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 100; i++) {
        void *f = future();
        SHOULD(f && set(f, i) == 0);
    }
    return 0;
}

/* The setter may come when the runtime is gone. */
static void *late[100];

static int given_up(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 100; i++)
        SHOULD((late[i] = future()) && mag_close(late[i]) == 0);
    return 0;
}

static int nothing(void *arg, long *value)
{
    (void)arg, (void)value;
    return 0;
}

Test(future, forgotten_ones_are_freed)
{
    RUN_1_AND_4(forgotten, NULL);
    cr_assert_eq(run_rc(1, given_up, NULL), 0);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(set(late[i], 1), 0);
    RUN(1, nothing, NULL);
}
