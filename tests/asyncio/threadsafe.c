/* SPDX-License-Identifier: MIT */
/* threadsafe.c - what CPython's suite pins for coroutines that other threads hand to a running
 * loop (test_tasks.py, RunCoroutineThreadsafeTests; call_soon_threadsafe) */
#include "words.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(threadsafe, .timeout = 60);

/*
 * A test is a function that runs on a foreign thread while a runtime runs: on one worker, and
 * on four.
 */
static struct mag_rt *rt;

#define OUTSIDE(name) \
    static int name##_main(void); \
    Test(threadsafe, name) \
    { \
        for (unsigned n_workers = 1; n_workers <= 4; n_workers += 3) { \
            struct mag_rt_options options = { .workers = n_workers }; \
            cr_assert_eq(mag_rt_new(&rt, &options), 0); \
            int outside_rc = name##_main(); \
            mag_rt_free(rt); \
            cr_assert_eq(outside_rc, 0, "%u workers: line %d: %s", n_workers, broken_line, \
                         broken_claim); \
            cr_assert_eq(mag_mem_live(), 0); \
        } \
    } \
    static int name##_main(void)

async(int, adds, (int, a), (int, b), (int, fail), (bool, cancels))
{
    await(mag_sleep(2 * MAG_MS));
    if (fail)
        return fail;
    if (cancels) {
        mag_cancel(mag_self());
        await(mag_sleep(0));
    }
    async_return(a + b);
}

/* ---- run_coroutine_threadsafe ------------------------------------------------------------ */

OUTSIDE(a_coroutine_handed_over_gives_its_result)
{
    struct adds *t = adds(1, 2, 0, false);
    int v = 0;

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(t, MAG_NEVER, &v, sizeof v) == 0 && v == 3);
    return 0;
}

OUTSIDE(a_coroutine_handed_over_gives_its_error)
{
    struct adds *t = adds(1, 2, -EIO, false);
    int v = 0;

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(t, MAG_NEVER, &v, sizeof v) == -EIO && v == 0);
    return 0;
}

OUTSIDE(a_join_that_is_too_late_leaves_the_task_running)
{
    struct adds *t = adds(1, 2, 0, false);
    int v = 0;

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(t, 0, &v, sizeof v) == -ETIMEDOUT && v == 0);
    SHOULD(mag_join_task(t, MAG_MINUTE, &v, sizeof v) == 0 && v == 3);
    return 0;
}

/* future.result(timeout=0), future.cancel() */
OUTSIDE(a_join_that_is_too_late_and_a_cancel)
{
    struct never *t = never();

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(t, MAG_MS, NULL, 0) == -ETIMEDOUT);
    SHOULD(mag_cancel(t) == 0);
    SHOULD(mag_join_task(t, MAG_NEVER, NULL, 0) == -ECANCELED);
    return 0;
}

OUTSIDE(a_task_that_cancels_itself_tells_the_thread)
{
    struct adds *t = adds(1, 2, 0, true);

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(t, MAG_NEVER, NULL, 0) == -ECANCELED);
    return 0;
}

OUTSIDE(an_await_blocks_the_thread)
{
    struct adds *t = adds(3, 4, 0, false);
    int v = 0;

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_await(t, &v, sizeof v) == 0 && v == 7);
    return 0;
}

OUTSIDE(a_coroutine_that_nobody_handed_over_cannot_be_joined)
{
    struct gives *c = gives(4);
    int v = 0;

    SHOULD(mag_join_task(c, MAG_NEVER, &v, sizeof v) == -ENXIO);
    SHOULD(mag_start(c, NULL) == -ENXIO);
    SHOULD(mag_submit(rt, c, NULL) == 0);
    SHOULD(mag_join_task(c, MAG_NEVER, &v, sizeof v) == 0 && v == 4);
    SHOULD(mag_join_task(c, MAG_NEVER, &v, sizeof v) == -EALREADY);
    return 0;
}

static mag_atomic(int32_t) n_called;

async(void, notes_its_run)
{
    await(mag_yield());
    mag_fetch_add(&n_called, 1);
    return 0;
}

static int calls_are(int n)
{
    for (int i = 0; i < 15000 && mag_load_acquire(&n_called) != n; i++)
        mag_sleep(MAG_MS);
    return mag_load_acquire(&n_called) == n;
}

OUTSIDE(one_that_was_detached_runs_by_itself)
{
    struct notes_its_run *t = notes_its_run();

    n_called = 0;
    SHOULD(mag_submit(rt, t, NULL) == 0 && mag_detach(t) == 0);
    SHOULD(calls_are(1));
    return 0;
}

/* ---- waiting on a thread ------------------------------------------------------------------- */

OUTSIDE(a_thread_can_wait_for_the_first_of_several)
{
    struct never *a = never();
    struct adds *b = adds(1, 1, 0, false);
    void *t[] = { a, b };
    bool done[2];
    int v;

    SHOULD(mag_submit(rt, a, NULL) == 0 && mag_submit(rt, b, NULL) == 0);
    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 1 && done[1] && !done[0]);
    SHOULD(mag_join_task(b, 0, &v, sizeof v) == 0 && v == 2);
    SHOULD(mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_MS, done) == 0);
    SHOULD(mag_cancel(a) == 0 && mag_await(a, NULL, 0) == -ECANCELED);
    return 0;
}

OUTSIDE(a_thread_can_iterate_as_they_complete)
{
    void *t[] = { gives_after(4 * MAG_MS, 2), gives_after(MAG_MS, 1) }, *one;
    struct mag_completed c;
    int v;

    for (int i = 0; i < 2; i++)
        SHOULD(mag_submit(rt, t[i], NULL) == 0);
    SHOULD(mag_completed_begin(&c, t, 2) == 0);
    for (int i = 1; i <= 2; i++) {
        SHOULD(mag_completed_next(&c, &one) == 1);
        SHOULD(mag_await(one, &v, sizeof v) == 0);
    }
    SHOULD(mag_completed_next(&c, &one) == 0);
    mag_completed_end(&c);
    return 0;
}

/* ---- from tasks to threads and back ------------------------------------------------------------ */

static void *sets_word(void *arg)
{
    mag_sleep(MAG_MS); /* outside a task: blocks the thread */
    future_set((struct word *)arg, 6);
    return NULL;
}

/* The answer comes from a thread, and a thread waits for the task that waits for it. */
OUTSIDE(a_thread_answers_a_task)
{
    struct word *w = word();
    struct reads *t = reads(w);
    pthread_t thread;
    int v = 0;

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(pthread_create(&thread, NULL, sets_word, w) == 0);
    SHOULD(mag_join_task(t, MAG_NEVER, &v, sizeof v) == 0 && v == 6);
    SHOULD(pthread_join(thread, NULL) == 0);
    return 0;
}

static void note_call(void *arg, int rc, const void *result)
{
    mag_fetch_add(&n_called, rc < 0 ? 100 : *(const int *)result + (int)num(arg));
}

OUTSIDE(a_thread_leaves_a_callback)
{
    struct gives_later *t = gives_later(3);

    n_called = 0;
    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_on_done(t, note_call, arg_of(4)) == 0);
    SHOULD(calls_are(7));
    return 0;
}

/* ---- several runtimes ------------------------------------------------------------------------------ */

async(int, hands_over, (struct mag_rt *, other))
{
    struct gives_after *t = gives_after(MAG_MS, 8);

    SHOULD(mag_submit(other, t, NULL) == 0);
    SHOULD(mag_rt_self() != other);
    async_return(await(t));
}

OUTSIDE(a_task_awaits_a_task_of_another_runtime)
{
    struct mag_rt_options options = { .workers = 1 };
    struct mag_rt *other;
    int v = 0;

    SHOULD(mag_rt_new(&other, &options) == 0);
    SHOULD(mag_rt_run(rt, hands_over(other), &v) == 0 && v == 8);
    mag_rt_free(other);
    return 0;
}

/* ---- many at once -------------------------------------------------------------------------------------- */

static void *joins_many(void *arg)
{
    for (int i = 0; i < 200; i++) {
        struct gives_later *t = gives_later(i);
        int v = -1, rc = mag_submit(rt, t, NULL);
        if (rc == 0)
            rc = mag_join_task(t, i % 3 ? MAG_NEVER : 20 * MAG_US, &v, sizeof v);
        if (rc == -ETIMEDOUT)
            rc = mag_join_task(t, MAG_NEVER, &v, sizeof v);
        if (rc < 0 || v != i)
            return NULL;
    }
    return arg;
}

OUTSIDE(many_threads_hand_over_and_join)
{
    pthread_t threads[4];
    int n_good = 0;

    for (int i = 0; i < 4; i++)
        SHOULD(pthread_create(&threads[i], NULL, joins_many, &n_good) == 0);
    for (int i = 0; i < 4; i++) {
        void *good = NULL;
        SHOULD(pthread_join(threads[i], &good) == 0);
        n_good += good != NULL;
    }
    SHOULD(n_good == 4);
    return 0;
}

/* The end, and the end of the patience, at the same instant. */
OUTSIDE(a_join_that_ends_at_the_same_instant_as_the_task)
{
    for (int i = 0; i < 100; i++) {
        struct gives_after *t = gives_after(100 * MAG_US, 5);
        int v = 0, rc;
        SHOULD(mag_submit(rt, t, NULL) == 0);
        rc = mag_join_task(t, (100 + i) * MAG_US, &v, sizeof v);
        SHOULD(rc == 0 ? v == 5 : rc == -ETIMEDOUT && v == 0);
        if (rc < 0)
            SHOULD(mag_join_task(t, MAG_NEVER, &v, sizeof v) == 0 && v == 5);
    }
    return 0;
}
