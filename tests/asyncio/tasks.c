/* SPDX-License-Identifier: MIT */
/* tasks.c - what CPython's suite pins for tasks: their life, cancellation, sleep, the current
 * task (test_tasks.py, BaseTaskTests and SleepTests) */
#include "words.h"

#include <criterion/criterion.h>

TestSuite(tasks, .timeout = 60);

/* ---- from coroutine to task ---------------------------------------------------------- */

static mag_atomic(int32_t) n_ran;

async(int, counts_runs)
{
    async_return(mag_fetch_add(&n_ran, 1) + 1);
}

ON_1_AND_4(tasks, a_coroutine_does_not_run_before_it_is_awaited)
{
    struct counts_runs *c;

    n_ran = 0;
    c = counts_runs();
    let_run();
    SHOULD(n_ran == 0 && strcmp(mag_kind_name(c), "coroutine") == 0 && !mag_done(c));
    SHOULD(await(c) == 1 && n_ran == 1);
    return 0;
}

ON_1_AND_4(tasks, spawn_turns_the_coroutine_into_a_task)
{
    struct gives_later *c = gives_later(3), *t = spawn(c);

    SHOULD(t == c && strcmp(mag_kind_name(t), "task") == 0);
    SHOULD(await(t) == 3);
    SHOULD(strcmp(mag_kind_name(t), "freed") == 0);
    return 0;
}

ON_1(tasks, spawn_does_not_run_it_at_once)
{
    struct counts_runs *t;

    n_ran = 0;
    t = spawn(counts_runs());
    SHOULD(n_ran == 0);
    SHOULD(await(t) == 1);
    return 0;
}

ON_1_AND_4(tasks, a_spawned_task_runs_though_nobody_awaits)
{
    struct counts_runs *t;

    n_ran = 0;
    t = spawn(counts_runs());
    SHOULD(has_ended(t));
    SHOULD(n_ran == 1);
    SHOULD(await(t) == 1);
    return 0;
}

ON_1_AND_4(tasks, a_task_is_spawned_only_once)
{
    struct gives_later *t = spawn(gives_later(3));

    SHOULD(mag_start(t, NULL) == -EALREADY);
    SHOULD(await(t) == 3);
    SHOULD(mag_start(t, NULL) == -EALREADY);
    return 0;
}

ON_1(tasks, what_is_no_coroutine_is_refused)
{
    struct word *w = word();

    SHOULD(mag_start(NULL, NULL) == -ENOMEM);
    SHOULD(mag_start(w, NULL) == -EALREADY);
    SHOULD(future_set(w, 1) == 0 && await(w) == 1);
    return 0;
}

ON_1(tasks, awaiting_nothing_says_that_memory_is_out)
{
    SHOULD(await_rc((struct gives *)NULL, NULL) == -ENOMEM);
    SHOULD(await_rc(spawn((struct gives *)NULL), NULL) == -ENOMEM);
    return 0;
}

ON_1_AND_4(tasks, a_second_await_is_refused)
{
    struct gives_later *t = spawn(gives_later(3));
    struct gives *c = gives(4);

    SHOULD(await(t) == 3 && await_rc(t, NULL) == -EALREADY);
    SHOULD(await(c) == 4 && await_rc(c, NULL) == -EALREADY);
    return 0;
}

ON_1_AND_4(tasks, a_task_has_one_awaiter_at_a_time)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(await_rc(w, NULL) == -EALREADY);
    SHOULD(future_set(w, 6) == 0);
    SHOULD(await(t) == 6);
    return 0;
}

ON_1_AND_4(tasks, a_task_that_awaits_itself_is_told_so)
{
    SHOULD(mag_await(mag_self(), NULL, 0) == -EDEADLK);
    return 0;
}

/* ---- names ------------------------------------------------------------------------------ */

ON_1(tasks, a_task_is_named_for_its_function)
{
    struct gives *t = gives(1);

    SHOULD(strcmp(mag_name(t), "gives") == 0);
    (void)spawn(t);
    SHOULD(strcmp(mag_name(t), "gives") == 0);
    SHOULD(await(t) == 1);
    return 0;
}

ON_1(tasks, a_task_can_be_given_a_name)
{
    struct gives_later *t = spawn_opts(gives_later(1), .name = "worker 7");

    SHOULD(strcmp(mag_name(t), "worker 7") == 0);
    SHOULD(await(t) == 1);
    return 0;
}

/* ---- results and errors ------------------------------------------------------------------- */

async(int, doubles, (int, n))
{
    int m = await(gives_later(n));

    async_return(2 * m);
}

async(int, adds_doubles, (int, a), (int, b))
{
    int x = await(doubles(a)), y = await(doubles(b));

    async_return(x + y);
}

ON_1_AND_4(tasks, awaits_nest)
{
    struct adds_doubles *t = spawn(adds_doubles(3, 4));

    SHOULD(await(t) == 14);
    SHOULD(await(adds_doubles(1, 2)) == 6);
    return 0;
}

static mag_atomic(int32_t) n_passed;

async(int, passes_on, (int, depth))
{
    int v = await(depth ? (struct passes_on *)passes_on(depth - 1) : NULL);

    mag_fetch_add(&n_passed, 1);
    async_return(v);
}

ON_1_AND_4(tasks, an_error_leaves_every_awaiting_function)
{
    n_passed = 0;
    SHOULD(await_rc(passes_on(3), NULL) == -ENOMEM);
    SHOULD(await_rc(spawn(passes_on(3)), NULL) == -ENOMEM);
    SHOULD(n_passed == 0);
    return 0;
}

ON_1_AND_4(tasks, a_caught_error_is_over)
{
    int v = 5;

    SHOULD(await_rc(fails(-EIO), &v) == -EIO && v == 5);
    SHOULD(await_rc(spawn(fails(-ENOSPC)), &v) == -ENOSPC && v == 5);
    SHOULD(await_rc(gives(6), &v) == 0 && v == 6);
    return 0;
}

static int n_lines(FILE *f)
{
    int c, n = 0;

    rewind(f);
    while ((c = getc(f)) != EOF)
        n += c == '\n';
    return n;
}

async(int, fails_deep)
{
    async_return(await(spawn(fails(-EIO))));
}

/* test_exception_traceback: the places are those of all the tasks that it has passed. */
ON_1_AND_4(tasks, an_error_remembers_the_places_it_has_passed)
{
    FILE *f = tmpfile();
    int n_places, n;

    SHOULD(f != NULL);
    SHOULD(await_rc(spawn(fails_deep()), NULL) == -EIO);
    n_places = mag_trace_print(f);
    n = n_lines(f);
    fclose(f);
    SHOULD(n_places == 2 && n == 3);
    return 0;
}

async(int, fails_when_cancelled)
{
    arrive();
    (void)mag_sleep(MAG_NEVER);
    return -EIO;
}

/* test_baseexception_during_cancel */
ON_1_AND_4(tasks, an_error_raised_in_answer_to_a_cancel_is_kept)
{
    struct fails_when_cancelled *t = spawn(fails_when_cancelled());

    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(t) == 0);
    SHOULD(await_rc(t, NULL) == -EIO);
    return 0;
}

/* test_task_set_methods */
ON_1_AND_4(tasks, nobody_else_sets_a_tasks_result)
{
    struct gives_later *t = spawn(gives_later(3));
    int v = 7;

    SHOULD(mag_future_set(t, &v, sizeof v) == -EALREADY);
    SHOULD(mag_future_fail(t, -EIO) == -EALREADY);
    SHOULD(await(t) == 3);
    return 0;
}

/* ---- cancelling in each state ------------------------------------------------------------------ */

ON_1(tasks, cancel_of_a_coroutine_that_was_never_spawned_is_refused)
{
    struct gives *c = gives(1);

    SHOULD(mag_cancel(c) == -EINVAL && mag_cancel(NULL) == -ENOMEM);
    SHOULD(await(c) == 1);
    return 0;
}

ON_1(tasks, a_task_cancelled_before_its_start_does_not_run)
{
    struct counts_runs *t;

    n_ran = 0;
    t = spawn(counts_runs());
    SHOULD(CANCELS(t));
    SHOULD(n_ran == 0);
    return 0;
}

ON_1_AND_4(tasks, cancel_ends_a_sleep)
{
    mag_time begun = mag_now();
    struct gives_after *t = spawn(gives_after(3600 * MAG_SECOND, 1));

    let_run();
    SHOULD(CANCELS(t));
    SHOULD(mag_now() - begun < MAG_MINUTE);
    return 0;
}

static void cancel_it(void *task)
{
    mag_cancel(task);
}

ON_1_AND_4(tasks, cancel_by_a_timer_ends_a_sleep)
{
    struct gives_after *t = spawn(gives_after(3600 * MAG_SECOND, 1));

    SHOULD(mag_call_later(2 * MAG_MS, cancel_it, t) == 0);
    SHOULD(await_rc(t, NULL) == -ECANCELED);
    return 0;
}

static void until_arrived(void)
{
    while (mag_load_acquire(&diary.n_arrived) == 0)
        mag_sleep(20 * MAG_US);
}

async(int, yields_for_ever)
{
    arrive();
    for (;;)
        await(mag_yield());
}

ON_1_AND_4(tasks, cancel_ends_a_task_that_only_yields)
{
    struct yields_for_ever *t = spawn(yields_for_ever());

    until_arrived();
    SHOULD(CANCELS(t));
    return 0;
}

async(int, checks_for_ever)
{
    arrive();
    for (;;)
        await(mag_checkpoint());
}

ON_1_AND_4(tasks, cancel_ends_a_task_that_computes_at_its_checkpoint)
{
    struct checks_for_ever *t = spawn(checks_for_ever());

    until_arrived();
    SHOULD(CANCELS(t));
    return 0;
}

/* test_task_cancel_waiter_future: the future stays its setter's. */
ON_1_AND_4(tasks, cancel_of_a_task_gives_up_the_future_it_awaits)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    SHOULD(future_set(w, 1) == 0);
    return 0;
}

/* test_cancel_inner_future */
ON_1_AND_4(tasks, a_future_that_fails_as_cancelled_ends_its_awaiter_so)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(future_fail(w, -ECANCELED) == 0);
    SHOULD(await_rc(t, NULL) == -ECANCELED);
    return 0;
}

async(int, goes_on_after, (struct word *, w))
{
    arrive();
    SHOULD(await_rc(w, NULL) == -ECANCELED);
    SHOULD(!mag_cancelled());
    await(mag_sleep(MAG_US));
    async_return(8);
}

/* The same, seen by a task that is not cancelled itself: nothing sticks to it. */
ON_1_AND_4(tasks, a_cancelled_future_does_not_cancel_who_catches_it)
{
    struct word *w = word();
    struct goes_on_after *t = spawn(goes_on_after(w));

    SHOULD(have_arrived(1));
    SHOULD(future_fail(w, -ECANCELED) == 0);
    SHOULD(await(t) == 8);
    return 0;
}

ON_1_AND_4(tasks, cancel_of_both_the_task_and_its_future)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(future_fail(w, -ECANCELED) == 0);
    SHOULD(CANCELS(t));
    return 0;
}

async(int, catches)
{
    arrive();
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    async_return(42);
}

ON_1_AND_4(tasks, a_task_that_catches_its_cancel_may_return_a_result)
{
    struct catches *t = spawn(catches());

    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(t) == 0);
    SHOULD(await(t) == 42);
    return 0;
}

async(int, tries_to_ignore)
{
    arrive();
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    SHOULD(mag_cancelled());
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    SHOULD(mag_yield() == -ECANCELED);
    SHOULD(mag_checkpoint() == -ECANCELED);
    async_return(1);
}

/* Not as test_cancel_task_ignoring: see NOT_APPLICABLE.md. */
ON_1_AND_4(tasks, a_cancelled_task_stays_cancelled)
{
    struct tries_to_ignore *t = spawn(tries_to_ignore());

    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(t) == 0);
    SHOULD(await(t) == 1);
    return 0;
}

async(int, cancels_itself)
{
    SHOULD(mag_cancel(mag_self()) == 0);
    await(mag_sleep(MAG_US));
    return -EIO;
}

ON_1_AND_4(tasks, a_task_can_cancel_itself)
{
    SHOULD(await_rc(spawn(cancels_itself()), NULL) == -ECANCELED);
    return 0;
}

async(int, cancels_itself_at_its_end)
{
    SHOULD(mag_cancel(mag_self()) == 0);
    async_return(12);
}

/* Not as test_cancel_at_end: a result is never replaced (NOT_APPLICABLE.md). */
ON_1_AND_4(tasks, a_cancel_at_the_very_end_does_not_replace_the_result)
{
    SHOULD(await(spawn(cancels_itself_at_its_end())) == 12);
    return 0;
}

ON_1_AND_4(tasks, cancel_of_a_task_that_is_done_changes_nothing)
{
    struct gives *t = spawn(gives(3));

    SHOULD(has_ended(t));
    SHOULD(mag_cancel(t) == 0);
    SHOULD(await(t) == 3);
    return 0;
}

ON_1_AND_4(tasks, two_cancels_are_as_one)
{
    struct never *t = spawn(never());

    n_never_cancelled = 0;
    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(t) == 0 && mag_cancel(t) == 0);
    SHOULD(await_rc(t, NULL) == -ECANCELED && n_never_cancelled == 1);
    return 0;
}

/* ---- cancellation goes inwards, not outwards ----------------------------------------------------- */

async(int, awaits_never)
{
    async_return(await(never()));
}

async(int, awaits_task, (struct never *, t))
{
    arrive();
    async_return(await(t));
}

ON_1_AND_4(tasks, cancel_reaches_a_coroutine_that_runs_in_place)
{
    struct awaits_never *t = spawn(awaits_never());

    n_never_cancelled = 0;
    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    SHOULD(n_never_cancelled == 1);
    return 0;
}

/* test_yield_future_passes_cancel */
ON_1_AND_4(tasks, cancel_reaches_a_task_that_is_awaited)
{
    struct never *inner = spawn(never());
    struct awaits_task *outer = spawn(awaits_task(inner));

    n_never_cancelled = 0;
    SHOULD(have_arrived(2));
    SHOULD(CANCELS(outer));
    SHOULD(n_never_cancelled == 1);
    SHOULD(strcmp(mag_kind_name(inner), "freed") == 0); /* and it has been waited for */
    return 0;
}

async(int, slow_to_end)
{
    struct mag_scope shield;

    arrive();
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    SHOULD(mag_sleep(3 * MAG_MS) == 0);
    mag_fetch_add(&n_ran, 1);
    return mag_scope_leave(&shield, -ECANCELED);
}

async(int, awaits_slow)
{
    async_return(await(spawn(slow_to_end())));
}

ON_1_AND_4(tasks, a_cancelled_awaiter_returns_when_the_awaited_task_has_ended)
{
    struct awaits_slow *t = spawn(awaits_slow());

    n_ran = 0;
    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    SHOULD(n_ran == 1);
    return 0;
}

async(int, awaits_when_cancelled)
{
    struct never *nested = spawn(never());

    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(mag_self()) == 0);
    async_return(await(nested));
}

/* test_cancel_awaited_task */
ON_1_AND_4(tasks, a_task_that_is_cancelled_while_it_runs_cancels_what_it_awaits_next)
{
    n_never_cancelled = 0;
    SHOULD(await_rc(spawn(awaits_when_cancelled()), NULL) == -ECANCELED);
    SHOULD(n_never_cancelled == 1);
    return 0;
}

async(int, catches_of_inner, (struct never *, t))
{
    arrive();
    SHOULD(await_rc(t, NULL) == -ECANCELED);
    SHOULD(!mag_cancelled());
    await(mag_yield());
    async_return(9);
}

ON_1_AND_4(tasks, cancel_of_the_awaited_task_does_not_cancel_the_awaiter)
{
    struct never *inner = spawn(never());
    struct catches_of_inner *outer = spawn(catches_of_inner(inner));

    SHOULD(have_arrived(2));
    SHOULD(mag_cancel(inner) == 0);
    SHOULD(await(outer) == 9);
    return 0;
}

async(int, spawns_and_leaves, (struct never **, out))
{
    *out = spawn(never());
    await(mag_sleep(MAG_NEVER));
    async_return(1);
}

ON_1_AND_4(tasks, cancel_does_not_reach_tasks_that_were_only_spawned)
{
    struct never *child = NULL;
    struct spawns_and_leaves *t = spawn(spawns_and_leaves(&child));

    SHOULD(have_arrived(1));
    SHOULD(child != NULL && CANCELS(t));
    let_run();
    SHOULD(!mag_done(child));
    SHOULD(CANCELS(child));
    return 0;
}

/* A scenario of every way to suspend, cancelled at each of its suspensions in turn. */
static int suspends_in_many_ways(void *arg, long *value)
{
    struct gives_later *t = spawn(gives_later(1));
    int rc, sum = 0, v = 0;

    nth_point();
    rc = mag_await(t, &v, sizeof v);
    sum += v;
    nth_point();
    if (rc == 0 && (rc = mag_await(doubles(2), &v, sizeof v)) == 0)
        sum += v;
    nth_point();
    if (rc == 0)
        rc = mag_sleep(10 * MAG_US);
    nth_point();
    if (rc == 0)
        rc = mag_yield();
    *value = sum;
    *(int *)arg = sum;
    return rc;
}

static int ends_or_is_cancelled(void *arg, int rc)
{
    SHOULD(rc == -ECANCELED || (rc == 0 && *(int *)arg == 5));
    return 0;
}

ON_1_AND_4(tasks, cancel_at_each_suspension_in_turn)
{
    int sum = 0;

    return nth_cancel(suspends_in_many_ways, &sum, ends_or_is_cancelled);
}

/* On several workers: the end and the cancel at the same instant.  One of them wins, whole. */
ON_1_AND_4(tasks, cancel_at_the_same_instant_as_the_end)
{
    for (int i = 0; i < 300; i++) {
        struct gives_after *t = spawn(gives_after(i % 40 * MAG_US, 7));
        int v = 0, rc;
        if (i % 3)
            await(mag_sleep(i % 40 * MAG_US));
        SHOULD(mag_cancel(t) == 0);
        rc = await_rc(t, &v);
        SHOULD(rc == 0 ? v == 7 : rc == -ECANCELED && v == 0);
    }
    return 0;
}

/* ---- sleep ---------------------------------------------------------------------------------------- */

ON_1_AND_4(tasks, sleep_takes_its_time)
{
    mag_time begun = mag_now();

    SHOULD(mag_sleep(5 * MAG_MS) == 0);
    SHOULD(mag_now() - begun >= 5 * MAG_MS);
    SHOULD(await(spawn(gives_after(2 * MAG_MS, 4))) == 4);
    SHOULD(mag_now() - begun >= 7 * MAG_MS);
    return 0;
}

/* At a time, as a stalled machine may begin them far apart. */
async(void, writes, (int, number), (mag_time, when))
{
    await(mag_sleep_until(when));
    diary_write(number);
    return 0;
}

ON_1(tasks, sleeps_end_in_the_order_of_their_times)
{
    bool are_in_order = false;

    for (int i = 0; i < 20 && !are_in_order; i++) { /* again, if a stall was longer than all of it */
        mag_time now = mag_now();
        diary_clear();
        gather(NULL, writes(3, now + 6 * MAG_MS), writes(1, now + 2 * MAG_MS),
               writes(2, now + 4 * MAG_MS));
        are_in_order = DIARY_IS(1, 2, 3);
    }
    SHOULD(are_in_order);
    return 0;
}

/* SleepTests.test_sleep_zero: the others run in between, without a timer. */
async(void, increments, (int *, n), (int, times))
{
    for (int i = 0; i < times; i++) {
        ++*n;
        await(mag_sleep(0));
    }
    return 0;
}

ON_1(tasks, sleep_of_zero_lets_the_others_run)
{
    int n = 0;
    struct increments *t = spawn(increments(&n, 10));

    for (int i = 0; i < 100 && n < 10; i++)
        await(mag_sleep(0));
    SHOULD(n == 10);
    await(t);
    return 0;
}

ON_1(tasks, sleep_of_less_than_zero_is_refused)
{
    SHOULD(mag_sleep(-1) == -EINVAL);
    SHOULD(mag_sleep_until(0) == 0); /* long past */
    return 0;
}

/* test_sleep_cancel: the timer goes with it, so the runtime ends at once. */
ON_1_AND_4(tasks, a_cancelled_sleep_holds_nothing_up)
{
    struct mag_sleep_co *s = spawn(mag_sleep_co(3600 * MAG_SECOND));

    let_run();
    SHOULD(mag_cancel(s) == 0 && mag_await(s, NULL, 0) == -ECANCELED);
    return 0;
}

/* ---- the current task ------------------------------------------------------------------------------- */

async(bool, is_current, (void **, expected))
{
    bool before = (void *)mag_self() == *expected;

    await(mag_yield());
    async_return(before && (void *)mag_self() == *expected);
}

ON_1_AND_4(tasks, the_current_task_is_the_one_that_runs)
{
    struct is_current *t, *c;
    void *expected = NULL, *me = mag_self();

    t = is_current(&expected);
    expected = t;
    SHOULD(await(spawn(t)));
    c = is_current(&expected);
    expected = c;
    SHOULD(await(c)); /* in place: the coroutine itself */
    SHOULD(mag_self() == me);
    return 0;
}

/* test_current_task_with_interleaving_tasks */
async(bool, stays_current, (struct word *, first), (struct word *, then))
{
    struct mag_task *me = mag_self();
    bool is_right;

    if (then)
        SHOULD(future_set(then, 1) == 0);
    if (first)
        await(first);
    is_right = mag_self() == me;
    async_return(is_right);
}

ON_1_AND_4(tasks, the_current_task_is_right_while_tasks_interleave)
{
    struct word *w1 = word(), *w2 = word();
    struct stays_current *a = spawn(stays_current(w1, w2)), *b = spawn(stays_current(w2, w1));

    SHOULD(await(a) && await(b));
    return 0;
}

Test(tasks, there_is_no_current_task_outside)
{
    cr_assert_null(mag_self());
    cr_assert_null(mag_rt_self());
}

/* ---- left behind -------------------------------------------------------------------------------------- */

static int spawns_and_returns(void *arg, long *value)
{
    (void)arg, (void)value;
    n_ran = 0;
    (void)spawn(counts_runs());
    return 0;
}

Test(tasks, the_runtime_waits_for_tasks_that_nobody_awaits)
{
    RUN(1, spawns_and_returns, NULL);
    cr_assert_eq(n_ran, 1);
    RUN(4, spawns_and_returns, NULL);
    cr_assert_eq(n_ran, 1);
}

static char reported[512];

static void take_report(void *arg, const char *line)
{
    (void)arg;
    strncat(reported, line, sizeof reported - strlen(reported) - 1);
}

static int forgets(void *arg, long *value)
{
    void *c = gives(1);

    (void)arg, (void)value, (void)c;
    return 0;
}

Test(tasks, a_coroutine_that_was_never_awaited_is_reported)
{
    struct mag_rt_options options = { .workers = 1, .report = take_report };

    cr_assert_eq(mag_run_with(co(forgets, NULL), NULL, &options), 0);
    cr_assert_not_null(strstr(reported, "'gives' was never awaited"), "%s", reported);
}

ON_1_AND_4(tasks, a_detached_task_runs_by_itself)
{
    struct counts_runs *t;

    n_ran = 0;
    t = spawn(counts_runs());
    SHOULD(mag_detach(t) == 0);
    for (int i = 0; i < 1000 && mag_load_acquire(&n_ran) == 0; i++)
        await(mag_sleep(MAG_MS));
    SHOULD(n_ran == 1);
    return 0;
}
