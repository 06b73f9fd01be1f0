/* SPDX-License-Identifier: MIT */
/* runners.c - what CPython's suite pins for asyncio.run and Runner (test_runners.py), and for
 * run_until_complete (test_base_events.py, test_events.py) */
#include "words.h"

#include <magpie/vars.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

TestSuite(runners, .timeout = 60);

static char reported[1000];

static void report(void *arg, const char *line)
{
    (void)arg;
    strncat(reported, line, sizeof reported - strlen(reported) - 1);
}

static struct mag_rt *runner(void)
{
    struct mag_rt *rt = NULL;

    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2, .report = report }), 0);
    return rt;
}

/* ---- asyncio.run ------------------------------------------------------------------------ */

Test(runners, run_returns_the_result)
{
    int v = 0;

    cr_assert_eq(mag_run(gives_later(42), &v), 0);
    cr_assert_eq(v, 42);
}

Test(runners, run_returns_the_error)
{
    cr_assert_eq(mag_run(fails(-EINVAL), NULL), -EINVAL);
    cr_assert_eq(mag_run(fails_after(MAG_MS, -EIO), NULL), -EIO);
}

Test(runners, run_takes_a_coroutine_only)
{
    struct word *w = word();

    cr_assert_eq(mag_run(NULL, NULL), -ENOMEM);
    cr_assert_eq(mag_run(w, NULL), -EALREADY, "a future has begun");
    cr_assert_eq(future_set(w, 1), 0);
}

Test(runners, run_twice_makes_a_fresh_loop_each_time)
{
    int v = 0;

    for (int i = 0; i < 5; i++) {
        cr_assert_eq(mag_run(gives(i), &v), 0);
        cr_assert_eq(v, i);
        cr_assert_null(mag_rt_self());
    }
    cr_assert_eq(mag_mem_live(), 0);
}

async(int, runs_inside)
{
    int v = 0;

    async_return(mag_run(gives(1), &v));
}

Test(runners, run_from_a_running_loop_is_refused)
{
    int rc = 0;

    cr_assert_eq(mag_run(runs_inside(), &rc), 0);
    cr_assert_eq(rc, -EDEADLK);
    cr_assert(strstr(mag_rt_why(), "await"), "it says what to do: %s", mag_rt_why());
    cr_assert_eq(mag_mem_live(), 0, "the coroutine is closed");
}

/* asyncio cancels what is left when main returns; magpie waits for it, unless it was detached. */
static mag_atomic(int) leftover_rc;

async(void, leftover, (mag_time, ns))
{
    int rc = mag_sleep(ns);

    mag_store_release(&leftover_rc, rc + 1);
    return rc;
}

async(int, leaves, (mag_time, ns), (bool, is_detached))
{
    struct leftover *t = spawn(leftover(ns));

    await(mag_yield());
    if (is_detached)
        SHOULD(mag_detach(t) == 0);
    async_return(123);
}

Test(runners, run_waits_for_hanging_tasks)
{
    int v = 0;

    cr_assert_eq(mag_run(leaves(5 * MAG_MS, false), &v), 0);
    cr_assert_eq(v, 123);
    cr_assert_eq(leftover_rc, 1, "it has ended by itself");
}

Test(runners, run_cancels_detached_hanging_tasks)
{
    int v = 0;

    cr_assert_eq(mag_run(leaves(3600 * MAG_SECOND, true), &v), 0);
    cr_assert_eq(v, 123);
    cr_assert_eq(leftover_rc, 1 - ECANCELED);
}

/* It is waited for as long again: no stall may be that long. */
#define DEADLINE (3 * MAG_SECOND)

Test(runners, run_with_a_deadline_cancels_hanging_tasks)
{
    struct mag_rt_options o = { .shutdown_ns = DEADLINE };
    int v = 0;

    cr_assert_eq(mag_run_with(leaves(3600 * MAG_SECOND, false), &v, &o), 0);
    cr_assert_eq(v, 123);
    cr_assert_eq(leftover_rc, 1 - ECANCELED);
}

async(void, fails_with_a_task_hanging)
{
    (void)spawn(leftover(3600 * MAG_SECOND));
    await(mag_sleep(MAG_MS));
    return -EIO;
}

Test(runners, run_cancels_hanging_tasks_when_main_fails)
{
    cr_assert_eq(mag_run(fails_with_a_task_hanging(), NULL), -EIO);
    cr_assert_eq(leftover_rc, 1 - ECANCELED);
}

/* test_asyncio_run_reports_hanging_tasks_errors */
async(void, fails_when_it_is_cancelled)
{
    return mag_sleep(MAG_NEVER) == -ECANCELED ? -EDOM : 0;
}

async(int, leaves_one_that_fails)
{
    (void)spawn(fails_when_it_is_cancelled());
    await(mag_yield());
    async_return(123);
}

Test(runners, run_reports_errors_of_hanging_tasks)
{
    struct mag_rt_options o = { .shutdown_ns = DEADLINE, .report = report };
    int v = 0;

    cr_assert_eq(mag_run_with(leaves_one_that_fails(), &v, &o), 0);
    cr_assert_eq(v, 123);
    cr_assert(strstr(reported, "'fails_when_it_is_cancelled' failed with EDOM"), "%s", reported);
}

/* test_asyncio_run_closes_gens_after_hanging_tasks_errors */
static mag_atomic(int) n_closed;

async_gen(int, fidget)
{
    for (int i = 0;; i++) {
        int rc = mag_yield_value(&i, sizeof i);
        if (rc < 0) {
            mag_fetch_add(&n_closed, 1);
            return rc;
        }
    }
}

async(void, leaves_a_generator_open)
{
    struct fidget *g = fidget();
    int v;

    SHOULD(mag_gen_next(g, &v) == 1 && v == 0);
    SHOULD(mag_gen_next(g, &v) == 1 && v == 1);
    return -EDOM;
}

Test(runners, run_closes_generators_that_were_left_open)
{
    struct mag_rt_options o = { .report = report };

    cr_assert_eq(mag_run_with(leaves_a_generator_open(), NULL, &o), -EDOM);
    cr_assert_eq(n_closed, 1);
    cr_assert(strstr(reported, "generator 'fidget' was never closed"), "%s", reported);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- debug ------------------------------------------------------------------------------------ */

Test(runners, debug_is_an_option_of_the_runner)
{
    struct mag_rt_options o = { .report = report, .debug = true };
    int v = 0;

    cr_assert_eq(mag_run_with(gives(3), &v, &o), 0);
    cr_assert_eq(v, 3);
}

/* ---- Runner ----------------------------------------------------------------------------------- */

Test(runners, a_runner_runs)
{
    struct mag_rt *rt = runner();
    int v = 0;

    cr_assert_eq(mag_rt_run(rt, gives_later(7), &v), 0);
    cr_assert_eq(v, 7);
    mag_rt_free(rt);
}

Test(runners, a_runner_takes_a_coroutine_only)
{
    struct mag_rt *rt = runner();
    struct word *w = word();

    cr_assert_eq(mag_rt_run(rt, NULL, NULL), -ENOMEM);
    cr_assert_eq(mag_rt_run(rt, w, NULL), -EALREADY);
    cr_assert_eq(future_set(w, 1), 0);
    mag_rt_free(rt);
}

/* test_explicit_close, test_second_with_block_raises */
Test(runners, a_closed_runner_runs_nothing)
{
    struct mag_rt *rt = runner();

    cr_assert_eq(mag_rt_stop(rt, MAG_NEVER), 0);
    cr_assert_eq(mag_rt_run(rt, gives(1), NULL), -ECANCELED);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(runners, closing_twice_is_fine)
{
    struct mag_rt *rt = runner();

    cr_assert_eq(mag_rt_stop(rt, MAG_NEVER), 0);
    cr_assert_eq(mag_rt_stop(rt, MAG_NEVER), 0);
    mag_rt_free(rt);
    mag_rt_free(NULL);
}

/* test_run_keeps_context is CPython's: there the runs share one context.  Here several threads
 * may run on a runtime at once, so each run begins afresh. */
static struct mag_var cvar = { "cvar", (void *)-1 };

async(long, sets_context, (long, value))
{
    long old = num(mag_var_get(&cvar));

    SHOULD(mag_var_set(&cvar, arg_of(value)) == 0);
    async_return(old);
}

Test(runners, each_run_has_a_context_of_its_own)
{
    struct mag_rt *rt = runner();
    long old = 0;

    cr_assert_eq(mag_rt_run(rt, sets_context(1), &old), 0);
    cr_assert_eq(old, -1);
    cr_assert_eq(mag_rt_run(rt, sets_context(2), &old), 0);
    cr_assert_eq(old, -1);
    mag_rt_free(rt);
}

async(int, runs_on, (struct mag_rt *, rt))
{
    async_return(mag_rt_run(rt, NULL, NULL));
}

Test(runners, a_runner_inside_its_own_task_is_refused)
{
    struct mag_rt *rt = runner();
    int rc = 0;

    cr_assert_eq(mag_rt_run(rt, runs_on(rt), &rc), 0);
    cr_assert_eq(rc, -EDEADLK);
    mag_rt_free(rt);
}

/* ---- interrupts ---------------------------------------------------------------------------------- */

static void interrupt(void *arg)
{
    (void)arg;
    kill(getpid(), SIGINT);
}

/* test_interrupt_call_soon: a task that only yields. */
async(int, yields_until_interrupted)
{
    int rc;

    SHOULD(mag_call_soon(interrupt, NULL) == 0);
    while ((rc = mag_yield()) == 0)
        continue;
    return rc;
}

Test(runners, an_interrupt_ends_a_task_that_only_yields)
{
    struct mag_rt *rt = runner();

    cr_assert_eq(mag_rt_run(rt, yields_until_interrupted(), NULL), -ECANCELED);
    mag_rt_free(rt);
}

/* test_interrupt_wait: a task that waits for what never comes. */
async(int, waits_until_interrupted)
{
    struct word *w = word();
    int rc, given_up;

    SHOULD(mag_call_later(MAG_MS, interrupt, NULL) == 0);
    rc = await_rc(w, NULL);
    given_up = future_set(w, 1);
    return given_up == 0 ? rc : given_up;
}

Test(runners, an_interrupt_ends_a_wait)
{
    struct mag_rt *rt = runner();

    cr_assert_eq(mag_rt_run(rt, waits_until_interrupted(), NULL), -ECANCELED);
    mag_rt_free(rt);
}

/* test_interrupt_cancelled_task: a cancel that is not an interrupt is not taken for one. */
async(int, cancels_itself)
{
    SHOULD(mag_cancel(mag_self()) == 0);
    await(mag_sleep(MAG_MINUTE));
    async_return(1);
}

Test(runners, a_cancelled_main_task_is_just_cancelled)
{
    struct mag_rt *rt = runner();
    int v = 0;

    cr_assert_eq(mag_rt_run(rt, cancels_itself(), NULL), -ECANCELED);
    cr_assert_eq(mag_rt_run(rt, gives(4), &v), 0);
    cr_assert_eq(v, 4);
    mag_rt_free(rt);
}

/* An interrupt cancels main only; its children by structure, the others not at all. */
async(int, survives, (mag_time, ns))
{
    await(mag_sleep(ns));
    async_return(8);
}

async(int, interrupted_beside, (struct survives **, out))
{
    *out = spawn(survives(5 * MAG_MS));
    SHOULD(mag_call_later(MAG_MS, interrupt, NULL) == 0);
    await(mag_sleep(10 * MAG_SECOND));
    async_return(0);
}

Test(runners, an_interrupt_leaves_other_tasks_alone)
{
    struct mag_rt *rt = runner();
    struct survives *other = NULL;
    int v = 0;

    cr_assert_eq(mag_rt_run(rt, interrupted_beside(&other), NULL), -ECANCELED);
    cr_assert_eq(mag_await(other, &v, sizeof v), 0);
    cr_assert_eq(v, 8);
    mag_rt_free(rt);
}

/* ---- run_until_complete --------------------------------------------------------------------------- */

/* test_run_until_complete_nesting is runners.a_runner_inside_its_own_task_is_refused. */

Test(runners, what_was_started_before_goes_on_during_the_next_run)
{
    struct mag_rt *rt = runner();
    struct gives_after *t = gives_after(MAG_MS, 5);
    int v = 0;

    cr_assert_eq(mag_submit(rt, t, NULL), 0);
    cr_assert_eq(mag_rt_run(rt, gives_after(2 * MAG_MS, 6), &v), 0);
    cr_assert_eq(v, 6);
    cr_assert_eq(mag_await(t, &v, sizeof v), 0);
    cr_assert_eq(v, 5);
    mag_rt_free(rt);
}

static void *runs_in_its_thread(void *rt)
{
    int v = 0;

    return arg_of(mag_rt_run(rt, gives_after(MAG_MS, 3), &v) == 0 ? v : -1);
}

Test(runners, several_threads_run_on_one_runner)
{
    struct mag_rt *rt = runner();
    pthread_t t[4];
    void *v;

    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, runs_in_its_thread, rt), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &v);
        cr_assert_eq(num(v), 3);
    }
    mag_rt_free(rt);
}

/* test_running_loop_within_a_loop: another runner inside a task is refused as well. */
async(int, makes_a_runner)
{
    struct mag_rt *rt;

    async_return(mag_rt_new(&rt, NULL));
}

Test(runners, a_runner_is_not_made_inside_a_task)
{
    int rc = 0;

    cr_assert_eq(mag_run(makes_a_runner(), &rc), 0);
    cr_assert_eq(rc, -EDEADLK);
}

/* test_close_running_event_loop */
async(int, stops_its_runner)
{
    async_return(mag_rt_stop(mag_rt_self(), 0));
}

Test(runners, a_running_runner_is_not_closed_from_inside)
{
    int rc = 0;

    cr_assert_eq(mag_run(stops_its_runner(), &rc), 0);
    cr_assert_eq(rc, -EDEADLK);
}
