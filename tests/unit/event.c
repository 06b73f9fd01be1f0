/* SPDX-License-Identifier: MIT */
/* event.c - between tasks, threads outside, and runtimes; the rules of asyncio are in
 * tests/asyncio/events.c */
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(event, .timeout = 20);

static int wait_event(void *event)
{
    return mag_event_wait(event);
}

ON_1_AND_4(event, refuses_null)
{
    SHOULD(mag_event_set(NULL) == -EINVAL);
    SHOULD(mag_event_clear(NULL) == -EINVAL);
    SHOULD(mag_event_wait(NULL) == -EINVAL);
    SHOULD(!mag_event_is_set(NULL));
    return 0;
}

Test(event, works_without_any_runtime)
{
    struct mag_event e = { 0 };

    cr_assert_not(mag_event_is_set(&e));
    cr_assert_eq(mag_event_set(&e), 0);
    cr_assert_eq(mag_event_wait(&e), 0);
    cr_assert(mag_event_is_set(&e));
    cr_assert_eq(mag_event_clear(&e), 0);
    cr_assert_not(mag_event_is_set(&e));
}

/* ---- threads outside ---------------------------------------------------------------------- */

static void *thread_waits(void *event)
{
    return arg_of(mag_event_wait(event));
}

static void *thread_sets(void *event)
{
    mag_sleep(2 * MAG_MS);
    return arg_of(mag_event_set(event));
}

static int joined(pthread_t t)
{
    void *value = arg_of(-1);

    pthread_join(t, &value);
    return (int)num(value);
}

Test(event, blocks_a_thread_until_another_sets_it)
{
    struct mag_event e = { 0 };
    pthread_t waiter[3], setter;

    for (int i = 0; i < 3; i++)
        pthread_create(&waiter[i], NULL, thread_waits, &e);
    pthread_create(&setter, NULL, thread_sets, &e);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(joined(waiter[i]), 0);
    cr_assert_eq(joined(setter), 0);
}

ON_1_AND_4(event, a_task_wakes_threads_and_tasks)
{
    struct mag_event e = { 0 };
    struct co *c = wait_as(1, wait_event, &e);
    pthread_t t[2];

    for (int i = 0; i < 2; i++)
        SHOULD(pthread_create(&t[i], NULL, thread_waits, &e) == 0);
    SHOULD(settle_down() == 0);
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(c) == 0);
    for (int i = 0; i < 2; i++)
        SHOULD(joined(t[i]) == 0);
    return 0;
}

ON_1_AND_4(event, a_thread_wakes_a_task)
{
    struct mag_event e = { 0 };
    pthread_t t;

    SHOULD(pthread_create(&t, NULL, thread_sets, &e) == 0);
    SHOULD(mag_event_wait(&e) == 0);
    SHOULD(joined(t) == 0);
    return 0;
}

/* ---- two runtimes --------------------------------------------------------------------------- */

static int set_there(void *event, long *value)
{
    *value = 0;
    mag_sleep(MAG_MS);
    return mag_event_set(event);
}

Test(event, wakes_a_task_of_another_runtime)
{
    struct mag_rt_options one = { .workers = 1 };
    struct mag_event e = { 0 };
    struct mag_rt *here, *there;
    struct co *c;

    cr_assert_eq(mag_rt_new(&here, &one), 0);
    cr_assert_eq(mag_rt_new(&there, &one), 0);
    c = co(set_there, &e);
    cr_assert_eq(mag_submit(there, c, NULL), 0);
    diary_clear();
    struct waiter w = { 1, wait_event, &e };
    cr_assert_eq(mag_rt_run(here, co(waiter_main, &w), NULL), 0);
    cr_assert_eq(await_co(c, NULL), 0);
    mag_rt_free(here);
    mag_rt_free(there);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- many ------------------------------------------------------------------------------------- */

enum { MANY = 2000 };

static int wait_and_count(void *arg, long *value)
{
    *value = 1;
    return mag_event_wait(arg);
}

ON_1_AND_4(event, one_set_wakes_thousands)
{
    struct mag_event e = { 0 };
    static void *c[MANY];
    static long done[MANY];
    long sum = 0;

    for (int i = 0; i < MANY; i++)
        c[i] = go(wait_and_count, &e);
    SHOULD(settle_down() == 0);
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(mag_gather(done, sizeof *done, c, MANY, NULL) == 0);
    for (int i = 0; i < MANY; i++)
        sum += done[i];
    SHOULD(sum == MANY);
    return 0;
}

/* The setter is out of the event when a wait has returned: it may be gone then. */
static int set_soon(void *event, long *value)
{
    *value = 0;
    return mag_event_set(event);
}

ON_1_AND_4(event, may_be_freed_by_whoever_has_waited)
{
    for (int i = 0; i < 2000; i++) {
        struct mag_event *e = calloc(1, sizeof *e);
        struct co *c = go(set_soon, e);
        SHOULD(mag_event_wait(e) == 0);
        memset(e, 0xff, sizeof *e);
        free(e);
        SHOULD(await_co(c, NULL) == 0);
    }
    return 0;
}
