/* SPDX-License-Identifier: MIT */
/* vars.c - task-local variables: who inherits them, who shares them, and who does not see them */
#include "body.h"

#include <magpie/vars.h>

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(vars, .timeout = 60);

static struct mag_var a = { "a", (void *)100 }, b = { "b", NULL };

static long get(const struct mag_var *v)
{
    return num(mag_var_get(v));
}

static int put(const struct mag_var *v, long value)
{
    return mag_var_set(v, arg_of(value));
}

/* ---- one task ----------------------------------------------------------------------------- */

static int in_one_task(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(get(&a) == 100 && get(&b) == 0);
    SHOULD(put(&a, 1) == 0);
    SHOULD(get(&a) == 1 && get(&b) == 0);
    SHOULD(put(&b, 2) == 0 && put(&a, 3) == 0);
    SHOULD(get(&a) == 3 && get(&b) == 2);
    SHOULD(mag_yield() == 0 && mag_sleep(MAG_MS) == 0);
    SHOULD(get(&a) == 3 && get(&b) == 2);
    SHOULD(mag_var_set(NULL, NULL) == -EINVAL);
    return 0;
}

Test(vars, set_and_get)
{
    RUN_1_AND_4(in_one_task, NULL);
    RUN_1_AND_4(in_one_task, NULL); /* the next run begins with the initial values */
}

Test(vars, outside_a_task_there_are_the_initial_values)
{
    cr_assert_eq(get(&a), 100);
    cr_assert_eq(put(&a, 1), -ENXIO);
    cr_assert_eq(get(&a), 100);
}

static struct mag_var many[MAG_VARS_MAX + 1];

static int up_to_the_limit(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long i = 0; i < MAG_VARS_MAX; i++)
        SHOULD(put(&many[i], i + 1) == 0);
    SHOULD(put(&many[MAG_VARS_MAX], 1) == -ENOSPC);
    SHOULD(get(&many[MAG_VARS_MAX]) == 0);
    for (long i = 0; i < MAG_VARS_MAX; i++)
        SHOULD(get(&many[i]) == i + 1);
    SHOULD(put(&many[7], 70) == 0 && get(&many[7]) == 70);
    return 0;
}

Test(vars, as_many_as_there_may_be)
{
    RUN(1, up_to_the_limit, NULL);
}

/* ---- tasks and coroutines ------------------------------------------------------------------ */

/* Answers what it has found in a, and sets it. */
static int find_and_set(void *arg, long *value)
{
    *value = get(&a);
    return put(&a, num(arg));
}

static int find_later(void *arg, long *value)
{
    int rc = mag_sleep(MAG_MS);

    *value = get(&a);
    return rc < 0 ? rc : put(&a, num(arg));
}

static int coroutines_share(void *arg, long *value)
{
    long v;

    (void)arg, (void)value;
    SHOULD(put(&a, 1) == 0);
    SHOULD(await_co(co(find_and_set, arg_of(2)), &v) == 0 && v == 1);
    SHOULD(get(&a) == 2);
    SHOULD(await_co(co(find_later, arg_of(3)), &v) == 0 && v == 2);
    SHOULD(get(&a) == 3);
    return 0;
}

Test(vars, an_awaited_coroutine_shares_them)
{
    RUN_1_AND_4(coroutines_share, NULL);
}

static int tasks_inherit(void *arg, long *value)
{
    struct co *first, *second, *third;
    long v;

    (void)arg, (void)value;
    first = go(find_later, arg_of(50));
    SHOULD(put(&a, 1) == 0);
    second = go(find_and_set, arg_of(51)); /* its awaiter may find it in the deque */
    third = go(find_later, arg_of(52));
    SHOULD(put(&a, 2) == 0);
    SHOULD(await_co(second, &v) == 0 && v == 1);
    SHOULD(get(&a) == 2);
    SHOULD(await_co(third, &v) == 0 && v == 1);
    SHOULD(await_co(first, &v) == 0 && v == 100);
    SHOULD(get(&a) == 2);
    return 0;
}

Test(vars, a_task_begins_with_its_spawners_and_keeps_its_own)
{
    RUN_1_AND_4(tasks_inherit, NULL);
}

static int first_set_by_a_child(void *arg, long *value)
{
    struct co *c = go(find_and_set, arg_of(9));
    long v;

    (void)arg, (void)value;
    SHOULD(await_co(c, &v) == 0 && v == 100); /* in place, perhaps */
    SHOULD(get(&a) == 100);
    return 0;
}

Test(vars, what_a_child_sets_first_stays_its_own)
{
    for (int i = 0; i < 20; i++)
        RUN_1_AND_4(first_set_by_a_child, NULL);
}

static int grandchild(void *arg, long *value)
{
    struct co *c;
    int rc;

    if (num(arg) == 0)
        return find_and_set(arg, value);
    rc = put(&b, get(&b) + 1);
    c = go(grandchild, arg_of(num(arg) - 1));
    if (rc < 0 || c == NULL)
        return -ENOMEM;
    rc = await_co(c, value);
    return get(&b) == 10 - num(arg) + 1 ? rc : -EBADMSG;
}

static int generations(void *arg, long *value)
{
    struct co *c;
    long v;

    (void)arg, (void)value;
    SHOULD(put(&a, 4) == 0);
    c = go(grandchild, arg_of(10));
    SHOULD(await_co(c, &v) == 0 && v == 4);
    SHOULD(get(&b) == 0);
    return 0;
}

Test(vars, through_generations)
{
    RUN_1_AND_4(generations, NULL);
}

static int with_options(void *arg, long *value)
{
    struct mag_spawn_options o = { .name = "named", .pin = true, .stack_bytes = 128 * 1024 };
    struct co *c = co(find_later, arg_of(6));
    long v;

    (void)arg, (void)value;
    SHOULD(put(&a, 5) == 0);
    SHOULD(mag_start(c, &o) == 0);
    SHOULD(await_co(c, &v) == 0 && v == 5);
    SHOULD(get(&a) == 5);
    return 0;
}

Test(vars, a_task_with_options_inherits_too)
{
    RUN_1_AND_4(with_options, NULL);
}

static int gathers(void *arg, long *value)
{
    struct mag_gather_options limit = { .limit = num(arg) };
    void *children[20];
    long results[20];

    (void)value;
    SHOULD(put(&a, 1) == 0);
    for (long i = 0; i < 20; i++)
        children[i] = co(i % 2 ? find_and_set : find_later, arg_of(200 + i));
    SHOULD(mag_gather(results, sizeof(long), children, 20, &limit) == 0);
    for (long i = 0; i < 20; i++)
        SHOULD(results[i] == 1);
    SHOULD(get(&a) == 1);
    return 0;
}

static int gathers_unset(void *arg, long *value)
{
    void *children[] = { co(find_and_set, arg_of(1)), co(find_and_set, arg_of(2)) };
    long results[2];

    (void)arg, (void)value;
    SHOULD(mag_gather(results, sizeof(long), children, 2, NULL) == 0);
    SHOULD(results[0] == 100 && results[1] == 100);
    SHOULD(get(&a) == 100);
    return 0;
}

Test(vars, each_child_of_a_gather_is_a_task_of_its_own)
{
    for (int i = 0; i < 10; i++) {
        RUN_1_AND_4(gathers, arg_of(0));
        RUN_1_AND_4(gathers, arg_of(3));
        RUN_1_AND_4(gathers_unset, NULL);
    }
}

static int own_stack_later(void *arg, long *value)
{
    return find_later(arg, value);
}

static int submits(void *arg, long *value)
{
    struct mag_rt *other = arg, *own = mag_rt_self();
    struct co *here = co(find_later, arg_of(8)), *there = co(find_later, arg_of(9));
    long v;

    (void)value;
    SHOULD(put(&a, 3) == 0);
    SHOULD(mag_submit(own, here, NULL) == 0);
    SHOULD(mag_submit(other, there, NULL) == 0);
    SHOULD(put(&a, 4) == 0);
    SHOULD(await_co(here, &v) == 0 && v == 3);
    SHOULD(await_co(there, &v) == 0 && v == 3);
    SHOULD(get(&a) == 4);
    return 0;
}

Test(vars, what_a_task_submits_inherits_also_in_another_runtime)
{
    struct mag_rt *other;

    cr_assert_eq(mag_rt_new(&other, &(struct mag_rt_options){ .workers = 1 }), 0);
    cr_assert_eq(run_rc(2, submits, other), 0, "line %d: %s", broken_line, broken_claim);
    mag_rt_free(other);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(vars, what_a_thread_submits_begins_with_the_initial_values)
{
    struct mag_rt *rt;
    struct co *c = co(own_stack_later, arg_of(1));
    long v = 0;

    cr_assert_eq(mag_rt_new(&rt, NULL), 0);
    cr_assert_eq(mag_submit(rt, c, NULL), 0);
    cr_assert_eq(await_co(c, &v), 0);
    cr_assert_eq(v, 100);
    mag_rt_free(rt);
}

/* A task goes on with its own while others run on its fibers and workers. */
static int one_of_many(void *arg, long *value)
{
    long n = num(arg);

    *value = n;
    SHOULD(get(&a) == 1000);
    SHOULD(put(&a, n) == 0);
    for (int i = 0; i < 20; i++) {
        SHOULD((i % 5 ? mag_yield() : mag_sleep(10 * MAG_US)) == 0);
        SHOULD(get(&a) == n + i);
        SHOULD(put(&a, n + i + 1) == 0);
    }
    return 0;
}

static int many_at_once(void *arg, long *value)
{
    struct co *c[200];

    (void)arg, (void)value;
    SHOULD(put(&a, 1000) == 0);
    for (long i = 0; i < 200; i++)
        c[i] = go(one_of_many, arg_of(i));
    for (long i = 0; i < 200; i++)
        SHOULD(await_co(c[i], NULL) == 0);
    SHOULD(get(&a) == 1000);
    return 0;
}

Test(vars, each_of_many_has_its_own)
{
    RUN_1_AND_4(many_at_once, NULL);
}

static int by_callback_value(void *arg, long *value)
{
    *value = get(&a);
    (void)arg;
    return 0;
}

static struct co *by_callback;

static void spawn_in_callback(void *f)
{
    by_callback = go(by_callback_value, NULL);
    (void)set(f, 1);
}

static int callback_spawns(void *arg, long *value)
{
    void *f = future();
    long v = 0;

    (void)arg, (void)value;
    SHOULD(put(&a, 12) == 0);
    SHOULD(mag_call_soon(spawn_in_callback, f) == 0);
    SHOULD(put(&a, 13) == 0);
    SHOULD(await_co(f, NULL) == 0);
    SHOULD(await_co(by_callback, &v) == 0 && v == 12);
    return 0;
}

Test(vars, a_task_that_a_callback_spawns_inherits_from_it)
{
    RUN_1_AND_4(callback_spawns, NULL);
}

/* Cancelled before they began, detached, failed: nothing is left (RUN looks). */
static int does_not_end_well(void *arg, long *value)
{
    struct co *c;

    (void)arg, (void)value;
    SHOULD(put(&a, 1) == 0);
    c = go(find_later, arg_of(2));
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    SHOULD(mag_detach(go(find_later, arg_of(3))) == 0);
    SHOULD(mag_detach(go(forever, NULL)) == 0);
    SHOULD(await_co(go(fails_with, arg_of(-EIO)), NULL) == -EIO);
    return 0;
}

Test(vars, nothing_is_left_of_those_that_end_otherwise)
{
    RUN_1_AND_4(does_not_end_well, NULL);
}
