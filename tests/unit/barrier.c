/* SPDX-License-Identifier: MIT */
/* barrier.c - between tasks and threads outside; the rules of asyncio are in
 * tests/asyncio/barriers.c */
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(barrier, .timeout = 20);

ON_1_AND_4(barrier, refuses_null_and_what_was_not_initialised)
{
    struct mag_barrier zero = { 0 };

    SHOULD(mag_barrier_init(NULL, 1) == -EINVAL);
    SHOULD(mag_barrier_wait(NULL) == -EINVAL);
    SHOULD(mag_barrier_wait(&zero) == -EINVAL);
    SHOULD(mag_barrier_reset(NULL) == -EINVAL);
    SHOULD(mag_barrier_abort(NULL) == -EINVAL);
    SHOULD(mag_barrier_n_waiting(NULL) == 0 && mag_barrier_parties(NULL) == 0);
    SHOULD(!mag_barrier_is_broken(NULL));
    return 0;
}

/* ---- tasks and threads ---------------------------------------------------------------------- */

enum { TASKS = 3, THREADS = 2, PARTIES = TASKS + THREADS, ROUNDS = 200 };

struct hall {
    struct mag_barrier b;
    mag_atomic(uint32_t) seen[ROUNDS]; /* a bit for each number */
    mag_atomic(int32_t) n_twice;
};

static int rounds(struct hall *hall)
{
    for (int i = 0; i < ROUNDS; i++) {
        int number = mag_barrier_wait(&hall->b);
        if (number < 0)
            return number;
        if (mag_fetch_or(&hall->seen[i], 1u << number) & 1u << number)
            mag_fetch_add(&hall->n_twice, 1);
    }
    return 0;
}

static int task_rounds(void *hall, long *value)
{
    *value = 0;
    return rounds(hall);
}

static void *thread_rounds(void *hall)
{
    return arg_of(rounds(hall));
}

static int together(struct hall *hall)
{
    pthread_t t[THREADS];
    void *c[TASKS], *rc;

    for (int i = 0; i < THREADS; i++)
        SHOULD(pthread_create(&t[i], NULL, thread_rounds, hall) == 0);
    for (int i = 0; i < TASKS; i++)
        c[i] = co(task_rounds, hall);
    SHOULD(mag_gather(NULL, 0, c, TASKS, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        SHOULD(pthread_join(t[i], &rc) == 0 && rc == NULL);
    return 0;
}

ON_1_AND_4(barrier, tasks_and_threads_meet_again_and_again)
{
    struct hall hall = { .n_twice = 0 };

    SHOULD(mag_barrier_init(&hall.b, PARTIES) == 0);
    SHOULD(together(&hall) == 0);
    SHOULD(hall.n_twice == 0);
    for (int i = 0; i < ROUNDS; i++)
        SHOULD(hall.seen[i] == (1u << PARTIES) - 1);
    SHOULD(mag_barrier_n_waiting(&hall.b) == 0 && !mag_barrier_is_broken(&hall.b));
    return 0;
}

static void *thread_waits(void *b)
{
    return arg_of(mag_barrier_wait(b));
}

Test(barrier, abort_and_reset_reach_threads)
{
    for (int is_reset = 0; is_reset < 2; is_reset++) {
        struct mag_barrier b;
        pthread_t t;
        void *rc;

        cr_assert_eq(mag_barrier_init(&b, 2), 0);
        pthread_create(&t, NULL, thread_waits, &b);
        while (mag_barrier_n_waiting(&b) == 0)
            mag_yield();
        cr_assert_eq(is_reset ? mag_barrier_reset(&b) : mag_barrier_abort(&b), 0);
        pthread_join(t, &rc);
        cr_assert_eq(num(rc), -EPIPE);
        cr_assert_eq(mag_barrier_is_broken(&b), !is_reset);
    }
}

/* ---- cancelled ---------------------------------------------------------------------------------- */

static int wait_barrier(void *b)
{
    return mag_barrier_wait(b);
}

/* One that was cancelled and has not run since does not count. */
ON_1(barrier, who_is_cancelled_counts_no_more_before_it_runs)
{
    struct mag_barrier b;
    struct co *c[3];

    SHOULD(mag_barrier_init(&b, 3) == 0);
    c[0] = wait_as(0, wait_barrier, &b);
    c[1] = wait_as(1, wait_barrier, &b);
    SHOULD(mag_cancel(c[0]) == 0);
    let_run();
    c[2] = wait_as(2, wait_barrier, &b);
    SHOULD(!mag_done(c[1]) && !mag_done(c[2]));
    SHOULD(mag_barrier_wait(&b) == 2);
    SHOULD(end_of(c[0]) == -ECANCELED && end_of(c[1]) == 0 && end_of(c[2]) == 1);
    return 0;
}

/* Many waits, with cancels in between: never does one pass alone, and the barrier is whole. */
ON_1_AND_4(barrier, keeps_count_through_cancels)
{
    struct mag_barrier b;

    SHOULD(mag_barrier_init(&b, 3) == 0);
    for (int i = 0; i < 100; i++) {
        struct co *c[4];
        int n_passed = 0, n_cancelled = 0;
        for (int k = 0; k < 4; k++)
            c[k] = begin_as(k, wait_barrier, &b);
        for (int k = 0; k < i % 7; k++)
            mag_yield();
        for (int k = 0; k < 4; k++) {
            int rc;
            SHOULD(mag_cancel(c[k]) == 0);
            rc = end_of(c[k]);
            n_passed += rc >= 0;
            n_cancelled += rc == -ECANCELED;
        }
        SHOULD(n_passed + n_cancelled == 4 && n_passed % 3 == 0);
        SHOULD(mag_barrier_n_waiting(&b) == 0);
    }
    return 0;
}
