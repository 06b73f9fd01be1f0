/* SPDX-License-Identifier: MIT */
/*
 * worker.c - what runs where and when: queues, fairness, thread identity, stacks
 */
#include "body.h"
#include "sys.h"
#include "worker.h"

#include <criterion/criterion.h>
#include <unistd.h>

TestSuite(worker, .timeout = 100);

/* ---- order ------------------------------------------------------------------------- */

static int started[16], n_started;

static int note_start(void *arg, long *value)
{
    started[n_started++] = (int)num(arg);
    *value = 0;
    return 0;
}

/* A worker that looks around in between, as it does after a stall, takes the oldest next: so
 * the best of some times counts. */
static int newest_first(void *arg, long *value)
{
    bool is_in_order = false;
    struct co *tasks[8];

    (void)arg, (void)value;
    for (int round = 0; round < 50 && !is_in_order; round++) {
        n_started = 0;
        for (int i = 0; i < 8; i++)
            SHOULD(tasks[i] = go(note_start, arg_of(i)));
        while (n_started < 8) /* a stall may be longer than the sleep */
            SHOULD(settle_down() == 0);
        is_in_order = true;
        for (int i = 0; i < 8; i++)
            is_in_order &= started[i] == 7 - i;
        for (int i = 0; i < 8; i++)
            SHOULD(await_co(tasks[i], NULL) == 0);
    }
    SHOULD(is_in_order);
    return 0;
}

Test(worker, starts_the_newest_task_first)
{
    RUN(1, newest_first, NULL);
}

/* A yield lets everything run that is ready, in turns. */
static int turns[64], n_turns;

static int take_turns(void *arg, long *value)
{
    *value = 0;
    for (int i = 0; i < 5; i++) {
        turns[n_turns++] = (int)num(arg);
        SHOULD(mag_yield() == 0);
    }
    return 0;
}

static int fair(void *arg, long *value)
{
    struct co *tasks[4];

    (void)arg, (void)value;
    for (int i = 0; i < 4; i++)
        SHOULD(tasks[i] = go(take_turns, arg_of(i)));
    for (int i = 0; i < 4; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    SHOULD(n_turns == 20);
    /* nobody has two turns more than another who still has some to come */
    for (int n = 1; n <= 20; n++) {
        int count[4] = { 0 }, low = 5, high = 0;
        for (int i = 0; i < n; i++)
            count[turns[i]]++;
        for (int i = 0; i < 4; i++) {
            low = count[i] < low ? count[i] : low;
            high = count[i] > high ? count[i] : high;
        }
        SHOULD(n < 10 || high - low <= 4);
    }
    return 0;
}

Test(worker, yielding_tasks_take_turns)
{
    RUN(1, fair, NULL);
}

/* Two tasks that only ever wake each other do not keep a timer or a new task waiting. */
static mag_atomic(uint32_t) is_over;

static int yields_until_over(void *arg, long *value)
{
    (void)arg, (void)value;
    while (!mag_load_acquire(&is_over))
        SHOULD(mag_yield() == 0);
    return 0;
}

static int not_starved(void *arg, long *value)
{
    struct co *a = go(yields_until_over, NULL), *b = go(yields_until_over, NULL), *c;

    (void)arg, (void)value;
    for (int i = 0; i < 10; i++)
        SHOULD(mag_sleep(MAG_MS) == 0);
    c = go(same, arg_of(3));
    while (!mag_done(c))
        SHOULD(mag_sleep(MAG_MS) == 0);
    mag_store_release(&is_over, 1);
    SHOULD(await_co(c, NULL) == 0);
    SHOULD(await_co(a, NULL) == 0);
    return await_co(b, NULL);
}

Test(worker, yielding_tasks_starve_nobody)
{
    RUN(1, not_starved, NULL);
    mag_store_release(&is_over, 0);
    RUN(4, not_starved, NULL);
}

/* ---- many --------------------------------------------------------------------------- */

enum { MILLION = MAG_ASAN ? 200000 : 1000000 };

static mag_atomic(uint32_t) n_ran;

static int count_run(void *arg, long *value)
{
    *value = num(arg);
    mag_fetch_add(&n_ran, 1);
    return 0;
}

static int a_million(void *arg, long *value)
{
    struct co **tasks = malloc(MILLION * sizeof *tasks);

    (void)arg, (void)value;
    SHOULD(tasks);
    for (long i = 0; i < MILLION; i++)
        SHOULD(tasks[i] = go(count_run, arg_of(i)));
    for (long i = 0; i < MILLION; i++) {
        long v = -1;
        SHOULD(await_co(tasks[i], &v) == 0);
        SHOULD(v == i);
    }
    SHOULD(n_ran == MILLION);
    n_ran = 0;
    free(tasks);
    return 0;
}

Test(worker, a_million_tasks_of_one_on_1)
{
    RUN(1, a_million, NULL);
}

Test(worker, a_million_tasks_of_one_on_4)
{
    RUN(4, a_million, NULL);
}

static int a_million_detached(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long i = 0; i < MILLION; i++) {
        struct co *c = go(count_run, arg_of(i));
        SHOULD(c && mag_detach(c) == 0);
    }
    for (int i = 0; i < 5000 && mag_load_relaxed(&n_ran) < MILLION; i++)
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(n_ran == MILLION);
    n_ran = 0;
    return 0;
}

Test(worker, a_million_detached)
{
    RUN_1_AND_4(a_million_detached, NULL);
}

/* Started and suspended, all at once, each with a stack. */
static int many_stacks(void *arg, long *value)
{
    enum { MANY = MAG_ASAN ? 1000 : 20000 };
    static struct co *tasks[MANY];

    (void)arg, (void)value;
    for (long i = 0; i < MANY; i++)
        SHOULD(tasks[i] = go(sleep_ns, arg_of(50 * MAG_MS)));
    for (long i = 0; i < MANY; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    return 0;
}

Test(worker, many_suspended_at_once)
{
    struct mag_rt_options options = { .workers = 4, .unguarded_ok = true };
    int rc = mag_run_with(co(many_stacks, NULL), NULL, &options);

    cr_assert_eq(rc, 0, "%s, line %d", mag_err_name(rc), broken_line);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- all workers ----------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_met;

/* Computes without ever suspending until all have met: each needs a worker. */
static int meet(void *arg, long *value)
{
    mag_time limit = mag_now() + 20 * MAG_SECOND;

    *value = 0;
    mag_fetch_add(&n_met, 1);
    while (mag_load_acquire(&n_met) < num(arg))
        SHOULD(mag_now() < limit);
    return 0;
}

static int all_meet(void *arg, long *value)
{
    struct co *tasks[4];

    (void)arg, (void)value;
    for (int i = 0; i < 3; i++)
        SHOULD(tasks[i] = go(meet, arg_of(4)));
    SHOULD(await_co(co(meet, arg_of(4)), NULL) == 0);
    for (int i = 0; i < 3; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    return 0;
}

/* The one who spawned them computes: nobody but a forcing thief publishes them. */
Test(worker, tasks_of_a_busy_worker_are_taken)
{
    for (int i = 0; i < 20; i++) {
        n_met = 0;
        RUN(4, all_meet, NULL);
    }
}

/* ---- identity ----------------------------------------------------------------------------- */

/* gettid, because compilers believe that pthread_self never changes. */
static int stays(void *arg, long *value)
{
    int me = mag_sys_gettid();

    (void)arg, (void)value;
    for (int i = 0; i < 1000; i++) {
        SHOULD((i % 10 ? mag_yield() : mag_sleep(10 * MAG_US)) == 0);
        SHOULD(mag_sys_gettid() == me);
    }
    return 0;
}

static int pinned(void *arg, long *value)
{
    struct mag_spawn_options options = { .pin = true };
    struct co *tasks[16];

    (void)arg, (void)value;
    for (int i = 0; i < 16; i++) {
        SHOULD(tasks[i] = co(stays, NULL));
        SHOULD(mag_start(tasks[i], &options) == 0);
    }
    for (int i = 0; i < 16; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    return 0;
}

Test(worker, a_pinned_task_keeps_its_thread)
{
    RUN_1_AND_4(pinned, NULL);
}

/* Many of them ready on one worker, while the others have nothing: nobody may help. */
static int stays_and_computes(void *arg, long *value)
{
    int me = mag_sys_gettid();

    (void)arg, (void)value;
    for (int i = 0; i < 50; i++) {
        for (mag_time until = mag_now() + 10 * MAG_US; mag_now() < until;)
            ;
        SHOULD(mag_yield() == 0);
        SHOULD(mag_sys_gettid() == me);
    }
    return 0;
}

static int pinned_crowd(void *arg, long *value)
{
    struct mag_spawn_options options = { .pin = true, .worker = 1 };
    struct co *tasks[100];

    (void)arg, (void)value;
    for (int i = 0; i < 100; i++) {
        SHOULD(tasks[i] = co(stays_and_computes, NULL));
        SHOULD(mag_start(tasks[i], &options) == 0);
    }
    for (int i = 0; i < 100; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    return 0;
}

Test(worker, a_crowd_of_pinned_tasks_stays)
{
    RUN(4, pinned_crowd, NULL);
}

/* Woken again and again by a task of another worker. */
static mag_atomic(void *) ball;
static mag_atomic(uint32_t) n_balls;

static int catches(void *arg, long *value)
{
    int me = mag_sys_gettid();

    (void)arg, (void)value;
    for (long i = 0; i < 500; i++) {
        void *f = future();
        long v = -1;
        SHOULD(f);
        mag_store_release(&ball, f);
        SHOULD(mag_await(f, &v, sizeof v) == 0 && v == i);
        SHOULD(mag_sys_gettid() == me);
        mag_fetch_add(&n_balls, 1);
    }
    return 0;
}

static int throws(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long i = 0; i < 500; i++) {
        void *f;
        while ((f = mag_xchg(&ball, NULL)) == NULL)
            SHOULD(mag_yield() == 0);
        SHOULD(mag_sleep(i % 10 ? 0 : 50 * MAG_US) == 0);
        SHOULD(set(f, i) == 0);
        while (mag_load_acquire(&n_balls) <= (uint32_t)i)
            SHOULD(mag_yield() == 0);
    }
    return 0;
}

static int pinned_catcher(void *arg, long *value)
{
    struct mag_spawn_options one = { .pin = true, .worker = 1 }, two = { .pin = true, .worker = 2 };
    struct co *catcher = co(catches, NULL), *thrower = co(throws, NULL);

    (void)arg, (void)value;
    n_balls = 0;
    SHOULD(mag_start(catcher, &one) == 0 && mag_start(thrower, &two) == 0);
    SHOULD(await_co(thrower, NULL) == 0);
    return await_co(catcher, NULL);
}

Test(worker, a_pinned_task_does_not_follow_its_waker)
{
    RUN(2, pinned_catcher, NULL);
    RUN(4, pinned_catcher, NULL);
}

/* With .pin it starts on the worker that spawned it, even while that one computes on. */
static int is_here(void *arg, long *value)
{
    *value = mag_sys_gettid() == *(int *)arg;
    return 0;
}

static int pinned_here(void *arg, long *value)
{
    struct mag_spawn_options options = { .pin = true };
    int me = mag_sys_gettid();
    struct co *tasks[32];
    mag_time until;

    (void)arg, (void)value;
    for (int i = 0; i < 32; i++) {
        SHOULD(tasks[i] = co(is_here, &me));
        SHOULD(mag_start(tasks[i], &options) == 0);
    }
    for (until = mag_now() + 5 * MAG_MS; mag_now() < until;)
        ;
    for (int i = 0; i < 32; i++) {
        long here = 0;
        SHOULD(await_co(tasks[i], &here) == 0);
        SHOULD(here);
    }
    return 0;
}

Test(worker, a_pinned_task_starts_where_it_was_spawned)
{
    RUN_1_AND_4(pinned_here, NULL);
}

static int my_worker(void *arg, long *value)
{
    (void)arg;
    *value = mag_worker_self()->id;
    return mag_yield();
}

static int chosen(void *arg, long *value)
{
    struct co *tasks[64];

    (void)arg, (void)value;
    for (unsigned i = 0; i < 64; i++) {
        struct mag_spawn_options options = { .worker = i % 4 + 1 };
        SHOULD(tasks[i] = co(my_worker, NULL));
        SHOULD(mag_start(tasks[i], &options) == 0);
    }
    for (int i = 63; i >= 0; i--) {
        long id = -1;
        SHOULD(await_co(tasks[i], &id) == 0);
        SHOULD(id == i % 4);
    }
    return 0;
}

Test(worker, a_task_starts_on_the_chosen_worker)
{
    RUN(4, chosen, NULL);
}

static int bad_options(void *arg, long *value)
{
    struct mag_spawn_options worker = { .worker = 5 }, small = { .stack_bytes = 100 },
                             large = { .stack_bytes = (size_t)1 << 40 };
    struct co *c = co(same, arg_of(8));
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_start(c, &worker) == -EINVAL);
    SHOULD(mag_start(c, &small) == -EINVAL);
    SHOULD(mag_start(c, &large) == -EINVAL);
    SHOULD(strcmp(mag_kind_name(c), "coroutine") == 0);
    SHOULD(await_co(c, &v) == 0 && v == 8);
    return 0;
}

Test(worker, refuses_bad_options)
{
    RUN(4, bad_options, NULL);
}

/* ---- stacks ------------------------------------------------------------------------------------ */

/* Touches that much stack, with a suspension at the bottom. */
static long MAG_NOINLINE use_stack(long bytes)
{
    volatile char room[1024];
    long deeper = 0;

    room[0] = room[1023] = 1;
    if (bytes > 1024)
        deeper = use_stack(bytes - 1024);
    else if (mag_yield() < 0)
        return -1;
    return deeper < 0 ? deeper : room[0] + room[1023] + deeper;
}

static int use_200_kib(void *arg, long *value)
{
    (void)arg;
    *value = use_stack(200 * 1024);
    return *value > 0 ? 0 : -EIO;
}

static int big_stack(void *arg, long *value)
{
    static const struct mag_co_type big_type = {
        .name = "big",
        .body = co_body,
        .frame_bytes = sizeof(struct co),
        .result_bytes = sizeof(long),
        .stack_bytes = MAG_ASAN ? 4 << 20 : 512 * 1024,
    };
    struct mag_spawn_options options = { .stack_bytes = big_type.stack_bytes };
    void *children[3];

    (void)arg, (void)value;
    for (int i = 0; i < 20; i++) {
        struct co *c = co(use_200_kib, NULL);
        SHOULD(mag_start(c, &options) == 0);
        SHOULD(await_co(c, NULL) == 0);
        /* in place would be too small: the type's own size counts in every use */
        SHOULD(await_co(co_of(&big_type, use_200_kib, NULL), NULL) == 0);
    }
    for (int i = 0; i < 3; i++)
        children[i] = co_of(&big_type, use_200_kib, NULL);
    return mag_gather(NULL, 0, children, 3, NULL);
}

Test(worker, stack_of_the_size_asked_for)
{
    RUN_1_AND_4(big_stack, NULL);
}

Test(worker, stack_of_the_runtimes_size)
{
    struct mag_rt_options options = { .workers = 2, .stack_bytes = MAG_ASAN ? 4 << 20 : 512 * 1024 };

    cr_assert_eq(mag_run_with(co(use_200_kib, NULL), NULL, &options), 0);
    cr_assert_eq(mag_mem_live(), 0);
}

/* Awaits itself in place, ever deeper: it must move on to other stacks. */
enum { DEEP = MAG_ASAN ? 2000 : 50000 };

static int deeper(void *arg, long *value)
{
    long below = 0, n = num(arg);
    int rc;

    if (n == 0) {
        *value = 0;
        return mag_yield();
    }
    rc = await_co(co(deeper, arg_of(n - 1)), &below);
    *value = below + 1;
    return rc;
}

static int deep(void *arg, long *value)
{
    long depth = 0;

    (void)arg, (void)value;
    SHOULD(await_co(co(deeper, arg_of(DEEP)), &depth) == 0);
    SHOULD(depth == DEEP);
    return 0;
}

Test(worker, deep_recursion_moves_to_other_stacks)
{
    struct mag_rt_options options = { .unguarded_ok = true };

    for (options.workers = 1; options.workers <= 4; options.workers += 3) {
        int rc = mag_run_with(co(deep, NULL), NULL, &options);
        cr_assert_eq(rc, 0, "%s line %d", mag_err_name(rc), broken_line);
        cr_assert_eq(mag_mem_live(), 0);
    }
}

/* A task that cannot get a stack ends with -ENOMEM; the others go on. */
static int no_stack(void *arg, long *value)
{
    struct mag_spawn_options options = { .stack_bytes = 16 << 20 };
    struct co *c = co(same, arg_of(1));
    long v = 0;

    (void)arg, (void)value;
    mag_sys_fail_nth(MAG_SYS_MMAP, 1, ENOMEM, true); /* first: another worker may take it at once */
    int rc = mag_start(c, &options);
    if (rc == 0)
        rc = await_co(c, &v);
    mag_sys_fail_none();
    SHOULD(rc == -ENOMEM);
    SHOULD(await_co(go(same, arg_of(4)), &v) == 0 && v == 4);
    return 0;
}

Test(worker, a_task_without_a_stack_fails_alone)
{
    RUN_1_AND_4(no_stack, NULL);
}

/* With no stack to be had at all, what is started goes on: children and parts run on the
 * stacks that there are, or fail. */

static int sleeps_a_little(void *arg, long *value)
{
    *value = num(arg);
    return mag_sleep(100 * MAG_US);
}

struct part {
    struct mag_fork fork;
    int n;
};

static void sleep_part(struct mag_fork *fork)
{
    mag_sleep(100 * MAG_US);
    ((struct part *)fork)->n++;
}

static int goes_on(void)
{
    struct mag_gather_options limited = { .limit = 3 };
    struct part parts[10] = { { .n = 0 } };
    void *children[20];
    long results[20];

    for (int how = 0; how < 2; how++) {
        for (long i = 0; i < 20; i++)
            SHOULD(children[i] = co(sleeps_a_little, arg_of(i)));
        int rc = mag_gather(results, sizeof *results, children, 20, how ? &limited : NULL);
        SHOULD(rc == 0 || rc == -ENOMEM);
        for (long i = 0; i < 20 && rc == 0; i++)
            SHOULD(results[i] == i);
    }
    for (int i = 0; i < 10; i++)
        mag_fork(&parts[i].fork, sleep_part);
    for (int i = 9; i >= 0; i--) {
        mag_join(&parts[i].fork);
        SHOULD(parts[i].n == 1);
    }
    for (int i = 0; i < 10; i++) {
        struct co *c = go(sleeps_a_little, NULL);
        int rc = await_co(c, NULL);
        SHOULD(rc == 0 || rc == -ENOMEM);
    }
    return 0;
}

static int without_stacks(void *arg, long *value)
{
    enum { MANY_STACKS = 3000 };
    static struct co *tasks[MANY_STACKS];
    int n = 0, rc;

    (void)arg, (void)value;
    mag_sys_fail_nth(MAG_SYS_MMAP, 1, ENOMEM, true);
    do { /* until one gets no stack */
        SHOULD(tasks[n] = go(forever, NULL));
        SHOULD(mag_sleep(50 * MAG_US) == 0);
    } while (!mag_done(tasks[n++]) && n < MANY_STACKS);
    SHOULD(n < MANY_STACKS);
    rc = goes_on();
    mag_sys_fail_none();
    for (int i = 0; i < n; i++)
        SHOULD(mag_cancel(tasks[i]) == 0);
    for (int i = 0; i < n; i++) {
        int end = await_co(tasks[i], NULL);
        SHOULD(end == -ECANCELED || end == -ENOMEM);
    }
    return rc;
}

Test(worker, goes_on_without_any_stack)
{
    RUN(1, without_stacks, NULL);
}

Test(worker, goes_on_without_any_stack_on_4)
{
    RUN(4, without_stacks, NULL);
}
