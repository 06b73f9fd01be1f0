/* SPDX-License-Identifier: MIT */
/* fork.c - fork and join: nested, suspending, stolen, exported, outside a task */
#include "body.h"
#include "in_task.h"
#include "sys.h"

#include <criterion/criterion.h>
#include <magpie/sync.h>

TestSuite(fork, .timeout = 20);

/* ---- nested ------------------------------------------------------------------------ */

enum kind { CALLED, SUSPENDING, EXPORTED };

struct fib {
    struct mag_fork fork;
    int n;
    enum kind kind;
    long value;
};

static long fib(int n, enum kind kind);

static void fib_part(struct mag_fork *f)
{
    struct fib *part = (struct fib *)f;

    part->value = fib(part->n, part->kind);
}

static long fib(int n, enum kind kind)
{
    struct fib part = { .n = n - 1, .kind = kind };
    long rest;

    if (n < 2) {
        if (kind == SUSPENDING && n == 0)
            mag_yield();
        return n;
    }
    if (kind == EXPORTED)
        mag_fork_begin(&part.fork, fib_part);
    else
        mag_fork(&part.fork, fib_part);
    rest = fib(n - 2, kind);
    if (kind == EXPORTED)
        mag_fork_end(&part.fork);
    else if (n % 2)
        mag_join(&part.fork);
    else
        mag_join_call(&part.fork, fib_part);
    return part.value + rest;
}

static int called(void)
{
    EXPECT(fib(22, CALLED) == 17711);
    return 0;
}

static int suspending(void)
{
    EXPECT(fib(17, SUSPENDING) == 1597);
    return 0;
}

static int exported(void)
{
    EXPECT(fib(20, EXPORTED) == 6765);
    return 0;
}

static int all_kinds(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 10; i++) {
        SHOULD(called() == 0);
        SHOULD(suspending() == 0);
        SHOULD(exported() == 0);
    }
    return 0;
}

Test(fork, nested_on_1_and_4)
{
    RUN_1_AND_4(all_kinds, NULL);
}

Test(fork, outside_a_task_it_is_a_call)
{
    cr_assert_eq(called(), 0);
    cr_assert_eq(suspending(), 0);
    cr_assert_eq(exported(), 0);
}

static int fib_task(void *arg, long *value)
{
    *value = fib((int)num(arg), (enum kind)(num(arg) % 2));
    return 0;
}

/* Forks of several tasks in the same deques, with awaits between. */
static int among_tasks(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int round = 0; round < 5; round++) {
        struct co *tasks[20];
        for (int i = 0; i < 20; i++)
            SHOULD(tasks[i] = go(fib_task, arg_of(10 + i % 2)));
        for (int i = 0; i < 20; i++) {
            long v = 0;
            SHOULD(fib(12, SUSPENDING) == 144);
            SHOULD(await_co(tasks[i], &v) == 0 && v == (i % 2 ? 89 : 55));
        }
    }
    return 0;
}

Test(fork, among_tasks)
{
    RUN_1_AND_4(among_tasks, NULL);
}

/* ---- order ------------------------------------------------------------------------------ */

struct many {
    struct mag_fork fork;
    mag_atomic(uint32_t) n;
    mag_time sleep;
};

static void count_part(struct mag_fork *f)
{
    struct many *m = (struct many *)f;

    if (m->sleep)
        mag_sleep(m->sleep);
    mag_fetch_add(&m->n, 1);
}

/* Joined in any order, not only the newest first; more of them than a deque holds. */
static int any_order(void *arg, long *value)
{
    enum { N = 20000 };
    static struct many parts[N];

    (void)value;
    for (int how = 0; how < 3; how++) {
        int n = num(arg) ? 300 : N;
        memset(parts, 0, sizeof parts);
        for (int i = 0; i < n; i++) {
            parts[i].sleep = num(arg) * (i % 7) * 20 * MAG_US;
            mag_fork(&parts[i].fork, count_part);
        }
        for (int i = 0; i < n; i++) {
            struct many *m = &parts[how == 0 ? i : how == 1 ? n - 1 - i : i * 7 % n];
            mag_join(&m->fork);
            SHOULD(m->n == 1);
        }
    }
    return 0;
}

Test(fork, joined_in_any_order)
{
    RUN_1_AND_4(any_order, arg_of(0));
    RUN_1_AND_4(any_order, arg_of(1));
}

/* ---- stolen -------------------------------------------------------------------------------- */

struct busy {
    struct mag_fork fork;
    mag_atomic(uint32_t) has_begun;
    long value;
};

static void busy_part(struct mag_fork *f)
{
    struct busy *b = (struct busy *)f;

    mag_store_release(&b->has_begun, 1);
    mag_sleep(MAG_MS);
    b->value = 5;
}

/* The joiner waits until a thief has it, so the part runs elsewhere. */
static int stolen(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 50; i++) {
        struct busy b = { .has_begun = 0 };
        mag_time limit = mag_now() + 5 * MAG_SECOND;
        mag_fork(&b.fork, busy_part);
        while (!mag_load_acquire(&b.has_begun))
            SHOULD(mag_now() < limit);
        mag_join(&b.fork);
        SHOULD(b.value == 5);
    }
    return 0;
}

Test(fork, a_stolen_part_is_waited_for)
{
    RUN(4, stolen, NULL);
}

/* ---- a part is no task ----------------------------------------------------------------------- */

struct looks {
    struct mag_fork fork;
    struct mag_task *self;
    int slept;
};

static void looks_part(struct mag_fork *f)
{
    struct looks *l = (struct looks *)f;

    l->self = mag_self();
    l->slept = mag_sleep(MAG_MS);
}

static int cancelled_in_part(void *arg, long *value)
{
    struct looks l = { .slept = 1 };

    *value = 0;
    mag_fork(&l.fork, looks_part);
    mag_store_release((uint32_t *)arg, 1);
    mag_sleep(20 * MAG_MS);
    mag_join(&l.fork); /* waits in any case: the record is in this frame */
    return l.slept == 1 ? -ENOTRECOVERABLE : 0;
}

static int join_when_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 20; i++) {
        mag_atomic(uint32_t) is_up = 0;
        struct co *c = go(cancelled_in_part, (void *)&is_up);
        while (!mag_load_acquire(&is_up))
            SHOULD(mag_yield() == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == 0);
    }
    return 0;
}

Test(fork, join_is_no_cancellation_point)
{
    RUN_1_AND_4(join_when_cancelled, NULL);
}

/* ---- without a stack for parts -------------------------------------------------------------- */

enum { WORKERS = 2, HOLDERS_MAX = 20000 };

static struct mag_event is_over;
static mag_atomic(uint32_t) n_holding;

/* Keeps the stack that a worker has for when there is no memory for another. */
static void hold_stack(struct mag_fork *f)
{
    (void)f;
    mag_fetch_add(&n_holding, 1);
    mag_event_wait(&is_over);
}

/* Long enough for a thief; the thread is not given away, or its own loop would find the part. */
static void compute_for(mag_time duration)
{
    mag_time end = mag_now() + duration;

    while (mag_now() < end)
        ;
}

/* A part was taken by somebody who has no stack for it, and nobody else has: its joiner runs it. */
static int no_stack_is_left(void *arg, long *value)
{
    static struct mag_fork holders[HOLDERS_MAX];
    int n = 0;

    (void)arg, (void)value;
    mag_sys_fail_nth(MAG_SYS_MADVISE, 1, ENOMEM, true);
    mag_sys_fail_nth(MAG_SYS_MPROTECT, 1, ENOMEM, true);
    while (mag_load_acquire(&n_holding) < WORKERS) { /* one that is returned holds nothing */
        SHOULD(n < HOLDERS_MAX);
        mag_fork(&holders[n++], hold_stack);
        if (n % 2) /* for the other worker, then for this one */
            compute_for(MAG_MS / 5);
        SHOULD(mag_sleep(MAG_MS / 5) == 0);
    }
    for (int i = 0; i < 20; i++) {
        struct many part = { .sleep = i % 2 };
        mag_fork(&part.fork, count_part);
        compute_for(MAG_MS);
        mag_join(&part.fork);
        SHOULD(part.n == 1);
    }
    mag_sys_fail_none();
    mag_event_set(&is_over);
    while (n > 0)
        mag_join(&holders[--n]);
    return 0;
}

Test(fork, no_stack_is_left)
{
    RUN(WORKERS, no_stack_is_left, NULL);
}
