/* SPDX-License-Identifier: MIT */
/* contextvars.c - what CPython's suite pins for context variables in tasks (test_context_1 to _6
 * of test_tasks.py, and what of test_context.py is about values) */
#include "words.h"

#include <magpie/vars.h>

#include <criterion/criterion.h>

TestSuite(contextvars, .timeout = 60);

static struct mag_var cvar = { "cvar", (void *)-1 };

static long get(void)
{
    return num(mag_var_get(&cvar));
}

static int put(long value)
{
    return mag_var_set(&cvar, arg_of(value));
}

/* ---- test_context.py ------------------------------------------------------------------ */

ON_1(contextvars, a_variable_has_its_initial_value_at_first)
{
    SHOULD(get() == -1);
    return 0;
}

ON_1_AND_4(contextvars, set_then_get)
{
    SHOULD(put(5) == 0 && get() == 5);
    SHOULD(put(6) == 0 && get() == 6);
    return 0;
}

/* token = var.set(x); var.reset(token) */
ON_1(contextvars, an_earlier_value_is_put_back)
{
    void *before;

    SHOULD(put(1) == 0);
    before = mag_var_get(&cvar);
    SHOULD(put(2) == 0 && get() == 2);
    SHOULD(mag_var_set(&cvar, before) == 0 && get() == 1);
    return 0;
}

ON_1(contextvars, variables_are_told_apart)
{
    static struct mag_var same_name = { "cvar", (void *)7 };

    SHOULD(put(1) == 0);
    SHOULD(num(mag_var_get(&same_name)) == 7);
    SHOULD(mag_var_set(&same_name, arg_of(8)) == 0);
    SHOULD(get() == 1 && num(mag_var_get(&same_name)) == 8);
    return 0;
}

/* test_context_threads_1: nothing of one thread's is seen in another. */
static int in_pool(void *arg)
{
    (void)arg;
    return (int)get();
}

ON_1_AND_4(contextvars, a_thread_of_the_pool_sees_the_initial_value)
{
    SHOULD(put(9) == 0);
    SHOULD(mag_to_thread(in_pool, NULL) == -1);
    return 0;
}

/* ---- test_tasks.py ----------------------------------------------------------------------- */

async(int, sub)
{
    await(mag_sleep(MAG_MS));
    SHOULD(get() == -1);
    SHOULD(put(77) == 0);
    async_return(1);
}

/* test_context_1 */
ON_1_AND_4(contextvars, a_task_has_a_copy_of_its_spawners)
{
    struct sub *task = spawn(sub());

    SHOULD(put(5) == 0 && get() == 5);
    SHOULD(await(task) == 1);
    SHOULD(get() == 5);
    return 0;
}

/* test_context_2 */
static void on_done(void *arg, int rc, const void *result)
{
    (void)arg, (void)rc, (void)result;
    (void)put(66); /* must not pollute the task's */
}

static void sets(void *w)
{
    (void)future_set((struct word *)w, 3);
}

async(int, gives_nothing)
{
    await(mag_yield());
    async_return(0);
}

ON_1_AND_4(contextvars, what_callbacks_set_is_their_own)
{
    for (long j = 0; j < 2; j++) {
        struct word *w = word();
        SHOULD(mag_on_done(spawn(gives_nothing()), on_done, NULL) == 0);
        SHOULD(put(10 + j) == 0);
        SHOULD(mag_call_soon(sets, w) == 0);
        SHOULD(await(w) == 3);
        SHOULD(get() == 10 + j);
        for (long i = 0; i < 3; i++) {
            SHOULD(put(100 * j + i) == 0);
            SHOULD(mag_sleep(100 * MAG_US) == 0);
            SHOULD(get() == 100 * j + i);
        }
    }
    return 0;
}

/* test_context_3 */
async(int, changes_it, (int, n))
{
    for (int i = 0; i < 10; i++) {
        SHOULD(put(n + i) == 0);
        await(mag_sleep((n * 7 + i * 13) % 50 * MAG_US));
        SHOULD(get() == n + i);
    }
    async_return(n);
}

ON_1_AND_4(contextvars, a_hundred_tasks_have_their_own)
{
    struct changes_it *tasks[100];

    for (int i = 0; i < 100; i++)
        tasks[i] = changes_it(i % 11);
    gather_n(NULL, tasks, 100);
    SHOULD(get() == -1);
    return 0;
}

/* ---- what is awaited ------------------------------------------------------------------------- */

async(int, sets_it, (int, n))
{
    await(mag_yield());
    SHOULD(put(n) == 0);
    async_return(n);
}

ON_1_AND_4(contextvars, an_awaited_coroutine_is_in_its_awaiters_context)
{
    SHOULD(put(1) == 0);
    SHOULD(await(sets_it(2)) == 2);
    SHOULD(get() == 2);
    return 0;
}

ON_1_AND_4(contextvars, each_argument_of_gather_is_a_task)
{
    int r[3];

    SHOULD(put(1) == 0);
    gather(r, sets_it(2), sets_it(3), sets_it(4));
    SHOULD(get() == 1);
    return 0;
}

ON_1_AND_4(contextvars, each_child_of_a_group_is_a_task)
{
    SHOULD(put(1) == 0);
    task_group(g)
    {
        group_spawn(g, sets_it(2));
        group_spawn(g, sets_it(3));
    }
    SHOULD(get() == 1);
    return 0;
}

async(int, reads_it)
{
    await(mag_yield());
    async_return((int)get());
}

ON_1_AND_4(contextvars, a_child_of_a_group_inherits)
{
    struct mag_group g;
    struct reads_it *child = reads_it();

    SHOULD(put(31) == 0);
    SHOULD(mag_group_enter(&g, NULL) == 0);
    SHOULD(mag_group_task(&g, child, NULL) == 0);
    SHOULD(put(32) == 0);
    SHOULD(await(child) == 31);
    SHOULD(mag_group_leave(&g, 0) == 0);
    return 0;
}

/* bpo: a generator runs in the context of who iterates over it. */
async_gen(int, reads_it_each_time)
{
    for (int i = 0; i < 3; i++)
        yield((int)get());
    return 0;
}

ON_1_AND_4(contextvars, a_generator_sees_its_consumers)
{
    long i = 40;

    SHOULD(put(i) == 0);
    async_for(int, v, reads_it_each_time())
    {
        SHOULD(v == i);
        i++;
        SHOULD(put(i) == 0);
    }
    SHOULD(i == 43);
    return 0;
}
