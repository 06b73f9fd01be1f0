/* SPDX-License-Identifier: MIT */
/* sem.c - between tasks and threads outside, and the limit of mag_to_thread; the rules of
 * asyncio are in tests/asyncio/semaphores.c */
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(sem, .timeout = 60);

static int acquire(void *sem)
{
    return mag_sem_acquire(sem);
}

ON_1_AND_4(sem, refuses_null)
{
    SHOULD(mag_sem_init(NULL, 1) == -EINVAL);
    SHOULD(mag_sem_init_bounded(NULL, 1) == -EINVAL);
    SHOULD(mag_sem_acquire(NULL) == -EINVAL);
    SHOULD(mag_sem_try_acquire(NULL) == -EINVAL);
    SHOULD(mag_sem_release(NULL) == -EINVAL);
    SHOULD(mag_sem_value(NULL) == 0 && mag_sem_locked(NULL));
    SHOULD(mag_to_thread_limited(NULL, NULL, NULL) == -EINVAL);
    return 0;
}

Test(sem, works_without_any_runtime)
{
    struct mag_sem s;

    cr_assert_eq(mag_sem_init_bounded(&s, 2), 0);
    cr_assert_eq(mag_sem_acquire(&s), 0);
    cr_assert_eq(mag_sem_try_acquire(&s), 0);
    cr_assert_eq(mag_sem_try_acquire(&s), -EAGAIN);
    cr_assert(mag_sem_locked(&s));
    cr_assert_eq(mag_sem_release(&s), 0);
    cr_assert_eq(mag_sem_release(&s), 0);
    cr_assert_eq(mag_sem_release(&s), -EOVERFLOW);
    cr_assert_eq(mag_sem_value(&s), 2);
}

Test(sem, does_not_overflow_unbounded)
{
    struct mag_sem s;

    cr_assert_eq(mag_sem_init(&s, INT64_MAX - 1), 0);
    cr_assert_eq(mag_sem_release(&s), 0);
    cr_assert_eq(mag_sem_release(&s), -EOVERFLOW);
    cr_assert_eq(mag_sem_value(&s), INT64_MAX);
}

/* ---- threads outside ---------------------------------------------------------------------- */

enum { ROUNDS = 500, PERMITS = 2 };

struct shop {
    struct mag_sem s;
    mag_atomic(int32_t) inside, n_too_many, n_served;
};

static int visit(struct shop *shop)
{
    int rc = mag_sem_acquire(&shop->s);

    if (rc < 0)
        return rc;
    if (mag_fetch_add(&shop->inside, 1) >= PERMITS)
        mag_fetch_add(&shop->n_too_many, 1);
    mag_fetch_add(&shop->n_served, 1);
    mag_fetch_sub(&shop->inside, 1);
    return mag_sem_release(&shop->s);
}

static void *thread_visits(void *shop)
{
    for (int i = 0; i < ROUNDS; i++)
        if (visit(shop) < 0)
            return arg_of(1);
    return NULL;
}

static int task_visits(void *shop, long *value)
{
    *value = 0;
    return thread_visits(shop) ? -EPROTO : 0;
}

ON_1_AND_4(sem, tasks_and_threads_share_the_permits)
{
    struct shop shop = { .inside = 0 };
    pthread_t t[2];
    void *c[4], *failed;

    SHOULD(mag_sem_init_bounded(&shop.s, PERMITS) == 0);
    for (int i = 0; i < 2; i++)
        SHOULD(pthread_create(&t[i], NULL, thread_visits, &shop) == 0);
    for (int i = 0; i < 4; i++)
        c[i] = co(task_visits, &shop);
    SHOULD(mag_gather(NULL, 0, c, 4, NULL) == 0);
    for (int i = 0; i < 2; i++) {
        SHOULD(pthread_join(t[i], &failed) == 0);
        SHOULD(failed == NULL);
    }
    SHOULD(shop.n_too_many == 0 && shop.n_served == 6 * ROUNDS);
    SHOULD(mag_sem_value(&shop.s) == PERMITS);
    return 0;
}

static void *thread_acquires(void *sem)
{
    return arg_of(mag_sem_acquire(sem));
}

ON_1_AND_4(sem, a_task_hands_a_permit_to_a_thread)
{
    struct mag_sem s;
    pthread_t t;
    void *rc;

    SHOULD(mag_sem_init(&s, 0) == 0);
    SHOULD(pthread_create(&t, NULL, thread_acquires, &s) == 0);
    SHOULD(settle_down() == 0);
    SHOULD(mag_sem_release(&s) == 0);
    SHOULD(pthread_join(t, &rc) == 0 && rc == NULL);
    SHOULD(mag_sem_value(&s) == 0);
    return 0;
}

/* ---- mag_to_thread_limited ------------------------------------------------------------------ */

struct pool {
    struct mag_sem limit;
    mag_atomic(int32_t) inside, most, n_run;
};

static int job(void *arg)
{
    struct pool *pool = arg;
    int32_t now = mag_fetch_add(&pool->inside, 1) + 1;

    if (now > mag_load_relaxed(&pool->most))
        mag_store_relaxed(&pool->most, now);
    usleep(500);
    mag_fetch_sub(&pool->inside, 1);
    mag_fetch_add(&pool->n_run, 1);
    return 7;
}

static int limited(void *pool)
{
    return mag_to_thread_limited(&((struct pool *)pool)->limit, job, pool);
}

ON_1_AND_4(sem, limits_calls_to_threads)
{
    struct pool pool = { .inside = 0 };
    struct co *c[12];

    SHOULD(mag_sem_init_bounded(&pool.limit, 2) == 0);
    for (int i = 0; i < 12; i++)
        c[i] = begin_as(i, limited, &pool);
    for (int i = 0; i < 12; i++)
        SHOULD(end_of(c[i]) == 7);
    SHOULD(pool.n_run == 12 && pool.most <= 2 && mag_sem_value(&pool.limit) == 2);
    return 0;
}

ON_1_AND_4(sem, a_limited_call_that_is_cancelled_before_it_begins_never_runs)
{
    struct pool pool = { .inside = 0 };
    struct co *c;

    SHOULD(mag_sem_init(&pool.limit, 0) == 0);
    c = wait_as(1, limited, &pool);
    SHOULD(cancelled_end_of(c) == -ECANCELED && pool.n_run == 0);
    SHOULD(mag_sem_value(&pool.limit) == 0);
    return 0;
}

/* Cancelled at any time: the permit is back, and a call that has begun is waited for. */
ON_1_AND_4(sem, a_limited_call_that_is_cancelled_gives_its_permit_back)
{
    struct pool pool = { .inside = 0 };

    SHOULD(mag_sem_init_bounded(&pool.limit, 1) == 0);
    for (int i = 0; i < 30; i++) {
        struct co *c = wait_as(1, limited, &pool);
        int rc;
        if (i % 3)
            SHOULD(mag_sleep(i % 3 * 200 * MAG_US) == 0);
        rc = cancelled_end_of(c);
        SHOULD(rc == 7 || rc == -ECANCELED);
        SHOULD(pool.inside == 0 && mag_sem_value(&pool.limit) == 1);
    }
    SHOULD(limited(&pool) == 7);
    return 0;
}

Test(sem, limits_calls_outside_a_task_too)
{
    struct pool pool = { .inside = 0 };

    cr_assert_eq(mag_sem_init_bounded(&pool.limit, 1), 0);
    cr_assert_eq(limited(&pool), 7);
    cr_assert_eq(mag_sem_value(&pool.limit), 1);
}

ON_1_AND_4(sem, serves_tasks_before_those_who_come_later)
{
    struct mag_sem s;
    struct co *c[3];

    SHOULD(mag_sem_init(&s, 0) == 0);
    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i, acquire, &s);
    for (int i = 0; i < 3; i++) {
        SHOULD(mag_sem_release(&s) == 0);
        SHOULD(end_of(c[i]) == 0);
    }
    SHOULD(DIARY_IS(0, 1, 2));
    return 0;
}
