/* SPDX-License-Identifier: MIT */
/* gather.c - many at once: order, limits, errors, cancellation, mixed kinds */
#include "body.h"
#include "sys.h"
#include "in_task.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(gather, .timeout = 20);

enum { MANY = 10000 };

static void *children[MANY];
static long results[MANY];
static int rcs[MANY];

static int gather(size_t n)
{
    return mag_gather(results, sizeof *results, children, n, NULL);
}

static int gather_limit(size_t n, size_t limit)
{
    struct mag_gather_options options = { .limit = limit };

    return mag_gather(results, sizeof *results, children, n, &options);
}

static int gather_rcs(size_t n, size_t limit)
{
    struct mag_gather_options options = { .limit = limit, .rcs = rcs };

    return mag_gather(results, sizeof *results, children, n, &options);
}

static int all_taken(size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (children[i])
            return 0;
    return 1;
}

/* ---- results ------------------------------------------------------------------------- */

static int same_after_sleep(void *arg, long *value)
{
    *value = num(arg);
    return mag_sleep((num(arg) * 7919 % 13) * 50 * MAG_US);
}

static int (*const kinds[])(void *, long *) = { same, same_later, same_after_sleep };

static int in_order(void *arg, long *value)
{
    static const size_t counts[] = { 1, 2, 3, 17, 1000, MANY };

    (void)arg, (void)value;
    SHOULD(mag_gather(NULL, 0, NULL, 0, NULL) == 0);
    for (int kind = 0; kind < 3; kind++)
        for (int c = 0; c < 6; c++) {
            size_t n = MAG_ASAN && kind == 2 && counts[c] == MANY ? 500 : counts[c];
            for (size_t i = 0; i < n; i++) {
                SHOULD(children[i] = co(kinds[kind], arg_of((long)i)));
                results[i] = -1;
            }
            SHOULD(gather(n) == 0);
            for (size_t i = 0; i < n; i++)
                SHOULD(results[i] == (long)i);
            SHOULD(all_taken(n));
        }
    return 0;
}

Test(gather, results_in_the_order_of_the_arguments)
{
    RUN_1_AND_4(in_order, NULL);
}

static int drops(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 10; i++)
        children[i] = co(same_later, arg_of(i));
    return mag_gather(NULL, 0, children, 10, NULL);
}

Test(gather, results_can_be_dropped)
{
    RUN_1_AND_4(drops, NULL);
}

/* Each of the kinds of awaitables, among them those that have ended already. */
static int set_after(void *arg, long *value)
{
    *value = 0;
    SHOULD(settle_down() == 0);
    return set(arg, 4);
}

static void *set_in_thread(void *arg)
{
    mag_sleep(10 * MAG_MS);
    set(arg, 9);
    return NULL;
}

static int mixed(void *arg, long *value)
{
    size_t limit = (size_t)num(arg);

    (void)value;
    for (int round = 0; round < 10; round++) {
        pthread_t thread;
        void *f4 = future(), *f7 = future(), *f9 = future();
        SHOULD(set(f7, 7) == 0);
        children[0] = co(same, arg_of(0));
        children[1] = co(sleep_ns, arg_of(1));
        children[2] = go(same_later, arg_of(2));
        children[3] = go(same, arg_of(3));
        while (!mag_done(children[3]))
            SHOULD(mag_yield() == 0);
        children[4] = f4;
        children[5] = co(set_after, f4);
        children[6] = co(same_after_sleep, arg_of(6));
        children[7] = f7;
        children[8] = go(same_after_sleep, arg_of(8));
        children[9] = f9;
        SHOULD(pthread_create(&thread, NULL, set_in_thread, f9) == 0);
        SHOULD(gather_limit(10, limit) == 0);
        SHOULD(pthread_join(thread, NULL) == 0);
        SHOULD(all_taken(10));
        for (int i = 0; i < 10; i++)
            SHOULD(i == 5 ? results[i] == 0 : results[i] == i);
    }
    return 0;
}

Test(gather, tasks_futures_and_coroutines)
{
    RUN_1_AND_4(mixed, arg_of(0));
    RUN_1_AND_4(mixed, arg_of(6));
}

static int sleeps(void *arg, long *value)
{
    mag_time begun = mag_now();
    struct mag_gather_options options = { .limit = (size_t)num(arg) };

    (void)value;
    for (int i = 0; i < 1000; i++)
        children[i] = mag_sleep_co(i % 2 ? 30 * MAG_MS : 0);
    SHOULD(mag_gather(NULL, 0, children, 1000, &options) == 0);
    SHOULD(mag_now() - begun >= 30 * MAG_MS);
    /* one after the other they would take 15 s */
    SHOULD(num(arg) || mag_now() - begun < 10 * MAG_SECOND);
    return 0;
}

Test(gather, sleeps_that_need_no_stack)
{
    RUN_1_AND_4(sleeps, arg_of(0));
    RUN_1_AND_4(sleeps, arg_of(100));
}

static int one_of_ten(void *arg, long *value)
{
    for (int i = 0; i < 3; i++) {
        void *mine[10];
        long r[10], sum = 0;
        for (int k = 0; k < 10; k++)
            mine[k] = num(arg) ? co(one_of_ten, arg_of(num(arg) - 1)) : co(same_later, arg_of(1));
        int rc = mag_gather(r, sizeof *r, mine, 10, NULL);
        if (rc < 0)
            return rc;
        for (int k = 0; k < 10; k++)
            sum += r[k];
        *value = sum;
    }
    return 0;
}

static int nested(void *arg, long *value)
{
    long v = 0;

    (void)arg, (void)value;
    SHOULD(await_co(co(one_of_ten, arg_of(2)), &v) == 0);
    SHOULD(v == 1000);
    return 0;
}

Test(gather, nested)
{
    RUN_1_AND_4(nested, NULL);
}

static int skynet(void *arg, long *value)
{
    void *mine[10];
    long r[10], n = num(arg);
    int rc = 0;

    *value = 1;
    if (n == 0)
        return 0;
    for (int k = 0; k < 10; k++)
        mine[k] = co(skynet, arg_of(n - 1));
    rc = mag_gather(r, sizeof *r, mine, 10, NULL);
    *value = 0;
    for (int k = 0; k < 10; k++)
        *value += r[k];
    return rc;
}

static int run_skynet(void *arg, long *value)
{
    long v = 0;

    (void)arg, (void)value;
    SHOULD(await_co(co(skynet, arg_of(5)), &v) == 0 && v == 100000);
    return 0;
}

Test(gather, a_tree_of_gathers)
{
    RUN_1_AND_4(run_skynet, NULL);
}

/* ---- the limit --------------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_running;
static mag_atomic(uint32_t) n_running_max;

static int counted(void *arg, long *value)
{
    uint32_t n = mag_fetch_add(&n_running, 1) + 1, max = mag_load_acquire(&n_running_max);
    int rc;

    while (n > max && !mag_cas(&n_running_max, &max, n))
        ;
    rc = num(arg) % 3 ? mag_sleep(num(arg) % 5 * 100 * MAG_US) : mag_yield();
    mag_fetch_sub(&n_running, 1);
    *value = num(arg);
    return rc;
}

static const struct mag_co_type big_type = {
    .name = "big", .body = co_body, .frame_bytes = sizeof(struct co), .result_bytes = sizeof(long),
    .stack_bytes = 256 * 1024,
};

static int limited(void *arg, long *value)
{
    static const size_t limits[] = { 1, 2, 5, 30, 199, 200, 1000 };

    (void)value;
    for (int l = 0; l < 7; l++) {
        n_running_max = 0;
        for (long i = 0; i < 200; i++)
            children[i] = num(arg) && i % 4 == 0 ? co_of(&big_type, counted, arg_of(i))
                                                 : co(counted, arg_of(i));
        SHOULD(gather_limit(200, limits[l]) == 0);
        for (long i = 0; i < 200; i++)
            SHOULD(results[i] == i);
        SHOULD(n_running == 0);
        SHOULD(n_running_max <= limits[l]);
        /* and as many as that; how many meet on several workers is chance */
        SHOULD(limits[l] > 30 || n_running_max == limits[l] || mag_rt_workers(mag_rt_self()) > 1);
    }
    return 0;
}

Test(gather, no_more_than_the_limit_run_at_a_time)
{
    RUN_1_AND_4(limited, arg_of(0));
    RUN_1_AND_4(limited, arg_of(1));
}

/* ---- errors --------------------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_begun, n_cancelled;

static int until_cancelled(void *arg, long *value)
{
    int rc;

    (void)arg;
    *value = 0;
    mag_fetch_add(&n_begun, 1);
    rc = mag_sleep(MAG_NEVER);
    if (rc == -ECANCELED)
        mag_fetch_add(&n_cancelled, 1);
    return rc;
}

static int fails_later(void *arg, long *value)
{
    int rc = mag_sleep(2 * MAG_MS);

    (void)value;
    return rc < 0 ? rc : (int)num(arg);
}

static int first_error(void *arg, long *value)
{
    struct mag_gather_options options = { .limit = (size_t)num(arg) };
    void *f;

    (void)value;
    for (int where = 0; where < 12; where++) {
        for (int i = 0; i < 12; i++)
            children[i] = i == where ? (void *)co(fails_later, arg_of(-EIO))
                          : i % 3    ? (void *)co(until_cancelled, NULL)
                          : i % 2    ? (void *)mag_sleep_co(MAG_NEVER)
                                     : (void *)go(until_cancelled, NULL);
        children[12] = f = future();
        SHOULD(mag_gather(NULL, 0, children, 13, &options) == -EIO);
        SHOULD(all_taken(13));
        SHOULD(set(f, 1) == 0); /* was given up, and is still the setter's */
    }
    return 0;
}

Test(gather, the_first_error_cancels_the_others)
{
    RUN_1_AND_4(first_error, NULL);
    RUN_1_AND_4(first_error, arg_of(12)); /* twelve lanes of thirteen */
    cr_assert_gt(n_cancelled, 0);
}

/* They would wait for ever, and so would the one that no stack is left for. */
static int without_stacks(void *arg, long *value)
{
    int rc;

    (void)arg, (void)value;
    for (int i = 0; i < 40; i++)
        children[i] = co(until_cancelled, NULL);
    mag_sys_fail_nth(MAG_SYS_MADVISE, 1, ENOMEM, true);
    rc = mag_gather(NULL, 0, children, 40, NULL);
    mag_sys_fail_none();
    SHOULD(rc == -ENOMEM);
    SHOULD(all_taken(40));
    return 0;
}

Test(gather, child_without_a_stack_fails)
{
    RUN_1_AND_4(without_stacks, NULL);
}

static int at_once(void *arg, long *value)
{
    (void)arg, (void)value;
    n_cancelled = 0;
    for (int i = 0; i < 1000; i++)
        children[i] = co(i == 0 ? fails_with : until_cancelled, arg_of(-EPERM));
    SHOULD(gather(1000) == -EPERM);
    /* those that had not begun do not */
    for (int i = 0; i < 1000; i++)
        children[i] = co(i % 100 == 99 ? fails_with : same, arg_of(-EPERM));
    SHOULD(gather(1000) == -EPERM);
    for (int i = 0; i < 10; i++)
        children[i] = co(i == 3 ? fails_with : until_cancelled, arg_of(-EPERM));
    SHOULD(gather_limit(10, 4) == -EPERM);
    return 0;
}

Test(gather, an_error_at_once)
{
    RUN_1_AND_4(at_once, NULL);
}

static int each_rc(void *arg, long *value)
{
    (void)value;
    for (long i = 0; i < 100; i++) {
        children[i] = i == 50       ? NULL
                      : i % 10 == 0 ? co(fails_later, arg_of(-1 - i))
                      : i % 10 == 1 ? go(fails_with, arg_of(-1 - i))
                                    : co(same_later, arg_of(i));
        results[i] = rcs[i] = -77;
    }
    SHOULD(gather_rcs(100, (size_t)num(arg)) == 0);
    for (long i = 0; i < 100; i++) {
        SHOULD(i == 50 ? rcs[i] == -ENOMEM : i % 10 < 2 ? rcs[i] == -1 - i : rcs[i] == 0);
        SHOULD(results[i] == (i % 10 < 2 ? -77 : i));
    }
    return 0;
}

Test(gather, each_child_has_its_rc)
{
    RUN_1_AND_4(each_rc, arg_of(0));
    RUN_1_AND_4(each_rc, arg_of(3));
}

static int sees_null(void *arg, long *value)
{
    (void)value;
    children[0] = co(until_cancelled, NULL);
    children[1] = NULL;
    children[2] = co(until_cancelled, NULL);
    SHOULD(gather_limit(3, (size_t)num(arg)) == -ENOMEM);
    children[0] = NULL;
    SHOULD(gather(1) == -ENOMEM);
    return 0;
}

Test(gather, null_is_out_of_memory)
{
    RUN_1_AND_4(sees_null, arg_of(0));
    RUN_1_AND_4(sees_null, arg_of(2));
}

static int await_it(void *arg, long *value)
{
    return mag_await(arg, value, sizeof *value);
}

static int not_ours(void *arg, long *value)
{
    size_t limit = (size_t)num(arg);
    void *f = future(), *gate = future();
    struct co *t = go(await_it, gate), *first = go(await_it, t), *consumed;
    struct co *f_awaiter = go(await_it, f);
    long v = 0;

    (void)value;
    SHOULD(settle_down() == 0);
    children[2] = co(same, arg_of(2));
    consumed = go(same, arg_of(1));
    SHOULD(await_co(consumed, NULL) == 0);
    children[0] = t;        /* somebody else awaits it */
    children[1] = consumed; /* was consumed before */
    children[3] = f;
    SHOULD(gather_rcs(4, limit) == 0);
    SHOULD(rcs[0] == -EALREADY && rcs[1] == -EALREADY && rcs[2] == 0 && rcs[3] == -EALREADY);
    SHOULD(all_taken(4));
    SHOULD(set(gate, 20) == 0);
    SHOULD(await_co(first, &v) == 0 && v == 20); /* not harmed */
    SHOULD(set(f, 6) == 0);
    SHOULD(await_co(f_awaiter, &v) == 0 && v == 6);
    return 0;
}

Test(gather, what_is_not_ours)
{
    RUN_1_AND_4(not_ours, arg_of(0));
    RUN_1_AND_4(not_ours, arg_of(2));
}

static int twice_the_same(void *arg, long *value)
{
    size_t limit = (size_t)num(arg);

    (void)value;
    for (int kind = 0; kind < 3; kind++) {
        void *one = co(kinds[kind], arg_of(5));
        children[0] = children[1] = one;
        children[2] = co(same_later, arg_of(1));
        SHOULD(gather_rcs(3, limit) == 0);
        SHOULD((rcs[0] == 0 && rcs[1] == -EALREADY && results[0] == 5) ||
               (rcs[1] == 0 && rcs[0] == -EALREADY && results[1] == 5));
        SHOULD(rcs[2] == 0 && results[2] == 1);
    }
    return 0;
}

/* On one worker: two threads that begin one object at the same time race. */
Test(gather, the_same_one_twice)
{
    RUN(1, twice_the_same, arg_of(0));
    RUN(1, twice_the_same, arg_of(2));
}

static int wrong_size(void)
{
    char small[2] = { 'x', 'x' };
    void *c[2] = { co(same, arg_of(1)), co(same, arg_of(2)) };

    EXPECT(mag_gather(small, 1, c, 2, NULL) == -EINVAL);
    EXPECT(c[0] == NULL && c[1] == NULL && small[0] == 'x');
    return 0;
}

Test(gather, refuses_results_of_another_size)
{
    BOTH(wrong_size);
}

/* ---- cancelled from outside ---------------------------------------------------------------------- */

struct whole {
    size_t n, limit;
    int *rcs;
};

static int gather_whole(void *arg, long *value)
{
    struct whole *w = arg;
    struct mag_gather_options options = { .limit = w->limit, .rcs = w->rcs };
    void **c = malloc(w->n * sizeof *c);
    void *f = NULL;
    int rc;

    for (size_t i = 0; i < w->n; i++)
        c[i] = i % 5 == 0   ? (void *)go(until_cancelled, NULL)
               : i % 5 == 1 ? (void *)mag_sleep_co(MAG_NEVER)
               : i % 5 == 2 ? (f = future())
               : i % 5 == 3 ? (void *)co_of(&big_type, until_cancelled, NULL)
                            : (void *)co(until_cancelled, NULL);
    *value = 0;
    rc = mag_gather(NULL, 0, c, w->n, &options);
    free(c);
    (void)f;
    return rc;
}

static int cancelled(void *arg, long *value)
{
    static int all_rcs[40];
    struct whole wholes[] = { { 40, 0, NULL }, { 40, 7, NULL }, { 40, 1, NULL },
                              { 40, 0, all_rcs }, { 40, 7, all_rcs }, { 1, 0, NULL },
                              { 2, 0, NULL } };

    (void)arg, (void)value;
    for (int i = 0; i < 7; i++)
        for (int when = 0; when < 3; when++) {
            struct co *c = go(gather_whole, &wholes[i]);
            if (when)
                SHOULD(mag_sleep(when * MAG_MS) == 0);
            SHOULD(mag_cancel(c) == 0);
            SHOULD(await_co(c, NULL) == -ECANCELED);
        }
    return 0;
}

/* The futures in it are never set: their holds are the setter's, so something stays. */
Test(gather, cancelled_with_all_its_children)
{
    for (unsigned workers = 1; workers <= 4; workers += 3) {
        int rc = run_rc(workers, cancelled, NULL);
        cr_assert_eq(rc, 0, "%s, line %d: %s", mag_err_name(rc), broken_line, broken_claim);
    }
}

static int gather_nested(void *arg, long *value)
{
    void *c[4];

    *value = 0;
    for (int i = 0; i < 4; i++)
        c[i] = num(arg) ? co(gather_nested, arg_of(num(arg) - 1)) : co(until_cancelled, NULL);
    return mag_gather(NULL, 0, c, 4, NULL);
}

static int cancelled_nested(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 20; i++) {
        struct co *c = go(gather_nested, arg_of(3));
        n_cancelled = n_begun = 0;
        SHOULD(mag_sleep(i * 200 * MAG_US) == 0);
        while (i == 19 && mag_load_acquire(&n_begun) == 0)
            SHOULD(mag_sleep(200 * MAG_US) == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
        SHOULD(n_cancelled <= 256);
        SHOULD(i < 19 || n_cancelled > 0);
    }
    return 0;
}

Test(gather, cancelled_nested)
{
    RUN_1_AND_4(cancelled_nested, NULL);
}

/* In a task that is cancelled already its children are, too. */
static int gathers_when_cancelled(void *arg, long *value)
{
    void *c[3];

    (void)value;
    mag_store_release((uint32_t *)arg, 1);
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    for (int i = 0; i < 3; i++)
        c[i] = co(until_cancelled, NULL);
    SHOULD(mag_gather(NULL, 0, c, 3, NULL) == -ECANCELED);
    for (int i = 0; i < 3; i++)
        c[i] = co(same, arg_of(i));
    (void)mag_gather(NULL, 0, c, 3, NULL); /* those need not suspend: may succeed */
    for (int i = 0; i < 3; i++)
        c[i] = mag_sleep_co(MAG_NEVER);
    SHOULD(mag_gather(NULL, 0, c, 3, NULL) == -ECANCELED);
    return 0;
}

static int cancelled_before(void *arg, long *value)
{
    mag_atomic(uint32_t) is_up = 0;
    struct co *c = go(gathers_when_cancelled, (void *)&is_up);

    (void)arg, (void)value;
    while (!mag_load_acquire(&is_up))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_cancel(c) == 0);
    return await_co(c, NULL);
}

Test(gather, in_a_cancelled_task)
{
    RUN_1_AND_4(cancelled_before, NULL);
}

/* A child that was cancelled by its handle is an error like any other. */
static int cancel_one(void *arg, long *value)
{
    struct co *c = arg;

    *value = 0;
    SHOULD(settle_down() == 0);
    return mag_cancel(c);
}

static int child_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    children[0] = go(until_cancelled, NULL);
    children[1] = go(cancel_one, children[0]);
    children[2] = co(until_cancelled, NULL);
    SHOULD(gather(3) == -ECANCELED);
    return 0;
}

Test(gather, a_cancelled_child_cancels_all)
{
    RUN_1_AND_4(child_cancelled, NULL);
}

/* ---- outside a task ------------------------------------------------------------------------------- */

Test(gather, outside_a_task_one_by_one)
{
    void *f = future();

    set(f, 3);
    children[0] = co(same_later, arg_of(1));
    children[1] = co(same_after_sleep, arg_of(2));
    children[2] = f;
    cr_assert_eq(gather(3), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(results[i], i + 1);
    cr_assert(all_taken(3));

    children[0] = co(same, arg_of(1));
    children[1] = co(fails_with, arg_of(-EIO));
    children[2] = co(forever, NULL); /* does not begin any more */
    cr_assert_eq(gather(3), -EIO);

    children[0] = co(fails_with, arg_of(-EIO));
    children[1] = NULL;
    children[2] = co(same, arg_of(8));
    cr_assert_eq(gather_rcs(3, 0), 0);
    cr_assert_eq(rcs[0], -EIO);
    cr_assert_eq(rcs[1], -ENOMEM);
    cr_assert_eq(rcs[2], 0);
    cr_assert_eq(results[2], 8);
}

/* ---- no memory -------------------------------------------------------------------------------------- */

static int without_memory(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 100; i++)
        children[i] = co(same_later, arg_of(i));
    mag_mem_fail_nth(1, true);
    int rc = gather_limit(100, 10);
    mag_mem_fail_nth(0, false);
    SHOULD(rc == -ENOMEM || rc == 0);
    SHOULD(all_taken(100));
    return 0;
}

Test(gather, without_memory)
{
    RUN_1_AND_4(without_memory, NULL);
}
