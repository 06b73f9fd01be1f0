/* SPDX-License-Identifier: MIT */
/* sleep.c - sleeps end in order, callbacks come, and all of it works outside a task too */
#include "body.h"
#include "in_task.h"

#include <criterion/criterion.h>

TestSuite(sleep, .timeout = 60);

/* ---- order ------------------------------------------------------------------------------- */

static int ended[64], n_ended, n_naps;

struct nap {
    int number;
    mag_time deadline;
    int called; /* the how manieth to call */
};

static int nap(void *arg, long *value)
{
    struct nap *n = arg;
    int rc;

    n->called = n_naps++;
    rc = mag_sleep_until(n->deadline);
    *value = 0;
    ended[n_ended++] = n->number;
    return rc;
}

/* Deadlines as given, in units; equal ones in the order of the calls. */
static int in_order(void *arg, long *value)
{
    static const int units[] = { 9, 3, 3, 0, 7, 3, 12, 0, 9, 1 };
    enum { N = sizeof units / sizeof *units };
    struct nap naps[N];
    struct co *tasks[N];
    mag_time begun = mag_now() + 50 * MAG_MS; /* by then all have called */
    bool is_late;

    (void)arg, (void)value;
    n_ended = n_naps = 0;
    for (int i = 0; i < N; i++) {
        naps[i] = (struct nap){ .number = i, .deadline = begun + units[i] * MAG_MS };
        SHOULD(tasks[i] = co(nap, &naps[i]));
    }
    for (int i = 0; i < N; i++)
        SHOULD(mag_start(tasks[i], NULL) == 0);
    while (n_naps < N)
        SHOULD(mag_yield() == 0);
    is_late = mag_now() >= begun;
    for (int i = 0; i < N; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    if (is_late) /* on a machine that stalled meanwhile */
        return in_order(arg, value);
    for (int i = 1; i < N; i++) {
        const struct nap *a = &naps[ended[i - 1]], *b = &naps[ended[i]];
        SHOULD(a->deadline < b->deadline || (a->deadline == b->deadline && a->called < b->called));
    }
    return 0;
}

Test(sleep, ends_in_the_order_of_deadlines)
{
    for (int i = 0; i < 10; i++)
        RUN(1, in_order, NULL);
}

static int takes_its_time(void)
{
    mag_time begun = mag_now();

    EXPECT(mag_sleep(20 * MAG_MS) == 0);
    EXPECT(mag_now() - begun >= 20 * MAG_MS);
    EXPECT(mag_now() - begun < 15 * MAG_SECOND);
    begun = mag_now();
    EXPECT(mag_sleep_until(begun + 10 * MAG_MS) == 0);
    EXPECT(mag_now() - begun >= 10 * MAG_MS);
    return 0;
}

Test(sleep, takes_its_time)
{
    BOTH(takes_its_time);
}

static int edges(void)
{
    mag_time begun = mag_now();

    EXPECT(mag_sleep(0) == 0);
    EXPECT(mag_sleep(-1) == -EINVAL);
    EXPECT(mag_sleep(INT64_MIN) == -EINVAL);
    EXPECT(mag_sleep_until(0) == 0);
    EXPECT(mag_sleep_until(-5) == 0);
    EXPECT(mag_sleep_until(INT64_MIN) == 0);
    EXPECT(mag_sleep_until(begun) == 0);
    EXPECT(mag_sleep(1) == 0);
    EXPECT(mag_yield() == 0);
    EXPECT(mag_now() - begun < 15 * MAG_SECOND);
    return 0;
}

Test(sleep, zero_past_and_negative)
{
    BOTH(edges);
}

static int never(void *arg, long *value)
{
    static const mag_time times[] = { MAG_NEVER, MAG_NEVER - 1, MAG_NEVER / 2 };

    (void)arg, (void)value;
    for (int i = 0; i < 3; i++) {
        struct co *c = go(sleep_ns, arg_of(times[i]));
        SHOULD(settle_down() == 0);
        SHOULD(!mag_done(c)); /* no overflow into the past */
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
    }
    return 0;
}

Test(sleep, never_ends_when_cancelled)
{
    RUN_1_AND_4(never, NULL);
}

static int all_at_once(void *arg, long *value)
{
    enum { N = MAG_ASAN ? 500 : 5000 };
    static struct co *tasks[N];
    mag_time begun = mag_now();

    (void)arg, (void)value;
    for (int i = 0; i < N; i++)
        SHOULD(tasks[i] = go(sleep_ns, arg_of(100 * MAG_MS)));
    for (int i = 0; i < N; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    SHOULD(mag_now() - begun >= 100 * MAG_MS);
    SHOULD(mag_now() - begun < 15 * MAG_SECOND);
    return 0;
}

Test(sleep, many_sleep_at_the_same_time)
{
    RUN_1_AND_4(all_at_once, NULL);
}

/* ---- the coroutine ------------------------------------------------------------------------- */

static int sleep_co(void)
{
    mag_time begun = mag_now();
    struct mag_sleep_co *s = mag_sleep_co(10 * MAG_MS);

    EXPECT(strcmp(mag_kind_name(s), "coroutine") == 0);
    EXPECT(strcmp(mag_name(s), "mag_sleep") == 0);
    EXPECT(mag_await(s, NULL, 0) == 0);
    EXPECT(mag_now() - begun >= 10 * MAG_MS);
    EXPECT(mag_await(s, NULL, 0) == -EALREADY);
    EXPECT(mag_await(mag_sleep_co(0), NULL, 0) == 0);
    EXPECT(mag_await(mag_sleep_co(-1), NULL, 0) == -EINVAL);
    EXPECT(mag_close(mag_sleep_co(MAG_NEVER)) == 0);
    return 0;
}

Test(sleep, as_a_coroutine)
{
    BOTH(sleep_co);
}

static int sleep_tasks(void *arg, long *value)
{
    enum { N = 10000 };
    static struct mag_sleep_co *s[N];
    mag_time begun = mag_now();

    (void)arg, (void)value;
    for (int i = 0; i < N; i++) {
        SHOULD(s[i] = mag_sleep_co(i % 10 * MAG_MS));
        SHOULD(mag_start(s[i], NULL) == 0);
    }
    for (int i = 0; i < N; i++)
        SHOULD(mag_await(s[i], NULL, 0) == 0);
    SHOULD(mag_now() - begun >= 9 * MAG_MS);
    s[0] = mag_sleep_co(-1);
    SHOULD(mag_start(s[0], NULL) == 0);
    SHOULD(mag_await(s[0], NULL, 0) == -EINVAL);
    return 0;
}

Test(sleep, as_a_task)
{
    RUN_1_AND_4(sleep_tasks, NULL);
}

static int sleep_tasks_cancelled(void *arg, long *value)
{
    struct mag_sleep_co *s;

    (void)arg, (void)value;
    for (int i = 0; i < 200; i++) {
        s = mag_sleep_co(i % 3 ? MAG_NEVER : 0);
        SHOULD(mag_start(s, NULL) == 0);
        if (i % 2)
            SHOULD(mag_sleep(i % 8 * 10 * MAG_US) == 0);
        SHOULD(mag_cancel(s) == 0);
        int rc = mag_await(s, NULL, 0);
        SHOULD(rc == -ECANCELED || (i % 3 == 0 && rc == 0));
    }
    s = mag_sleep_co(MAG_NEVER);
    SHOULD(mag_start(s, NULL) == 0 && mag_detach(s) == 0); /* the runtime cancels it */
    s = mag_sleep_co(MAG_NEVER);
    SHOULD(mag_start(s, NULL) == 0 && mag_close(s) == 0);
    return 0;
}

Test(sleep, a_sleep_task_is_cancelled)
{
    RUN_1_AND_4(sleep_tasks_cancelled, NULL);
}

/* ---- callbacks --------------------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_called;
static int called[8];

static void note_call(void *arg)
{
    called[n_called] = (int)num(arg);
    mag_fetch_add(&n_called, 1);
}

static int calls_later(void *arg, long *value)
{
    mag_time begun = mag_now();
    bool is_late;

    (void)arg, (void)value;
    n_called = 0;
    SHOULD(mag_call_later(20 * MAG_MS, note_call, arg_of(3)) == 0);
    SHOULD(mag_call_later(0, note_call, arg_of(1)) == 0);
    SHOULD(mag_call_later(10 * MAG_MS, note_call, arg_of(2)) == 0);
    is_late = mag_now() - begun >= 10 * MAG_MS; /* then the third may be due before the first */
    SHOULD(n_called == 0); /* not before this has returned */
    SHOULD(mag_call_later(-1, note_call, NULL) == -EINVAL);
    SHOULD(mag_call_later(0, NULL, NULL) == -EINVAL);
    while (mag_load_acquire(&n_called) < 3)
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_now() - begun >= 20 * MAG_MS);
    if (is_late)
        return calls_later(arg, value);
    SHOULD(called[0] == 1 && called[1] == 2 && called[2] == 3);
    SHOULD(mag_call_later(MAG_NEVER, note_call, NULL) == 0); /* freed when the runtime ends */
    return 0;
}

static int calls_later_1(void *arg, long *value)
{
    return calls_later(arg, value);
}

Test(sleep, calls_later)
{
    cr_assert_eq(mag_call_later(0, note_call, NULL), -ENXIO);
    RUN(1, calls_later_1, NULL);
}

/* ---- threads ------------------------------------------------------------------------------------- */

static int seven(void *arg)
{
    mag_sleep(5 * MAG_MS); /* outside a task: blocks this thread */
    *(struct mag_task **)arg = mag_self();
    return 7;
}

static int to_thread(void)
{
    struct mag_task *self = (struct mag_task *)&self;

    EXPECT(mag_to_thread(seven, &self) == 7);
    EXPECT(self == NULL);
    return 0;
}

Test(sleep, to_thread)
{
    cr_assert_eq(to_thread(), 0);
    cr_assert_eq(run_in_task(to_thread), 0);
}

static mag_atomic(uint32_t) n_inside, may_go;

/* 1: was let go. */
static int blocks(void *arg)
{
    (void)arg;
    mag_fetch_add(&n_inside, 1);
    for (int i = 0; i < 20000 && !mag_load_acquire(&may_go); i++)
        mag_sleep(MAG_MS);
    return (int)mag_load_acquire(&may_go);
}

static int offload(void *arg, long *value)
{
    *value = 0;
    return mag_to_thread(blocks, arg);
}

static int in_parallel(void *arg, long *value)
{
    struct co *tasks[4];

    (void)arg, (void)value;
    for (int i = 0; i < 4; i++)
        SHOULD(tasks[i] = go(offload, NULL));
    while (mag_load_acquire(&n_inside) < 4) /* the worker is not blocked meanwhile */
        SHOULD(mag_sleep(MAG_MS) == 0);
    mag_store_release(&may_go, 1);
    for (int i = 0; i < 4; i++)
        SHOULD(await_co(tasks[i], NULL) == 1);
    return 0;
}

Test(sleep, threads_run_in_parallel)
{
    RUN(1, in_parallel, NULL);
}
