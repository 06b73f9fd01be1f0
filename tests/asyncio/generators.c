/* SPDX-License-Identifier: MIT */
/*
 * generators.c - what CPython pins of asynchronous generators (test_asyncgen.py, PEP 525), of
 * `async with timeout()' (test_timeouts.py), and of AsyncExitStack (test_contextlib_async.py,
 * test_contextlib.py)
 *
 * One test for each behaviour, written anew.  What cannot be asked in C is in
 * NOT_APPLICABLE.md.  StopAsyncIteration is 0, GeneratorExit and CancelledError are
 * -ECANCELED, ZeroDivisionError is any error; aclose is mag_gen_close, which is also what the
 * end of each async_for does.
 */
#include "keywords.h"

TestSuite(generators, .timeout = 60);
TestSuite(timeout_blocks, .timeout = 60);
TestSuite(exit_stacks, .timeout = 60);

/* A test is the body of a coroutine, on one worker and on four; and what is told in it. */
#define BEHAVIOUR(suite, name, rc, told) \
    static int name##_main(void); \
    async(void, name) \
    { \
        return name##_main(); \
    } \
    Test(suite, name) \
    { \
        RUN_ON_BOTH(name(), rc, told); \
    } \
    static int name##_main(void)

static int done;

#define TO_LIST(...) async_for(int, item_of_list, __VA_ARGS__) (tell_number(item_of_list), tell(" "))

/* ---- iteration ------------------------------------------------------------------------- */

async_gen(int, three_items)
{
    await(mag_yield());
    yield(123);
    await(mag_yield());
    yield(456);
    await(mag_yield());
    yield(789);
    return 0;
}

BEHAVIOUR(generators, the_items_come_in_order, 0, "123 456 789 ")
{
    TO_LIST(three_items());
    return 0;
}

async_gen(int, awaits_around)
{
    await(mag_yield());
    yield(123);
    await(mag_yield());
    return 0;
}

BEHAVIOUR(generators, the_end_comes_after_what_follows_the_last_yield, 0, "")
{
    struct awaits_around *g = awaits_around();
    int v = 0;

    SHOULD(anext(g, &v) == 1 && v == 123);
    SHOULD(anext(g, &v) == 0 && v == 123);
    return mag_gen_close(g);
}

async_gen(int, returns_early)
{
    yield(1);
    await(mag_sleep(10 * MAG_US));
    yield(2);
    await(mag_sleep(10 * MAG_US));
    if (done == 0)
        return 0;
    yield(3);
    return 0;
}

BEHAVIOUR(generators, return_ends_the_iteration, 0, "1 2 ")
{
    TO_LIST(returns_early());
    return 0;
}

async_gen(int, empty)
{
    if (done)
        yield(1);
    return 0;
}

BEHAVIOUR(generators, one_without_items_is_at_its_end_at_once, 0, ".")
{
    TO_LIST(empty());
    tell(".");
    return 0;
}

async_gen(int, four_items)
{
    yield(1);
    await(mag_sleep(10 * MAG_US));
    yield(2);
    yield(3);
    await(mag_sleep(10 * MAG_US));
    yield(4);
    return 0;
}

BEHAVIOUR(generators, anext_gives_one_item_after_the_other, 0, "")
{
    struct four_items *g = four_items();
    int v = 0;

    for (int i = 1; i <= 4; i++)
        SHOULD(anext(g, &v) == 1 && v == i);
    return mag_gen_close(g);
}

BEHAVIOUR(generators, anext_at_the_end_stays_at_the_end, 0, "")
{
    struct empty *g = empty();
    int v = 7;

    for (int i = 0; i < 3; i++)
        SHOULD(anext(g, &v) == 0 && v == 7);
    return mag_gen_close(g);
}

BEHAVIOUR(generators, async_for_may_go_on_where_anext_was, 0, "2 3 4 ")
{
    struct four_items *g = four_items();
    int v = 0;

    await(anext(g, &v));
    TO_LIST(g);
    return 0;
}

/* aiter(g) is g */
BEHAVIOUR(generators, an_iterator_of_a_generator_is_the_generator, 0, "2 3 4 ")
{
    struct four_items *g = four_items();
    struct mag_iter it = mag_gen_iter(g);
    int v = 0;

    SHOULD(anext(it, &v) == 1 && v == 1 && it.self == g);
    TO_LIST(it);
    return 0;
}

async_gen(int, doubled, (int, n))
{
    async_for(int, i, three_items())
        yield(2 * i + n);
    return 0;
}

/* (i * 2 async for i in g) */
BEHAVIOUR(generators, one_may_be_made_of_another, 0, "247 913 1579 ")
{
    TO_LIST(doubled(1));
    return 0;
}

/* (i for i in range(n) if await odd(i)) */
async(int, odd, (int, i))
{
    await(mag_yield());
    async_return(i % 2);
}

async_gen(int, odd_ones, (int, n))
{
    for (int i = 0; i < n; i++)
        if (await(odd(i)))
            yield(i);
    return 0;
}

BEHAVIOUR(generators, one_may_await_coroutines, 0, "1 3 5 ")
{
    TO_LIST(odd_ones(6));
    return 0;
}

BEHAVIOUR(generators, calling_it_runs_nothing, 0, "")
{
    struct three_items *g = three_items();

    await(mag_yield());
    SHOULD(strcmp(mag_name(g), "three_items") == 0);
    return mag_gen_close(g);
}

struct steps {
    int at, stop;
};

static int next_step(struct steps *s, int *out)
{
    if (s->at == s->stop)
        return 0;
    await(mag_yield());
    *out = s->at++;
    return 1;
}

BEHAVIOUR(generators, an_iterator_by_hand_may_await, 0, "0 1 2 ")
{
    struct steps s = { 0, 3 };

    TO_LIST(async_iter(next_step, &s));
    SHOULD(s.at == 3);
    return 0;
}

static int next_fails(struct steps *s, int *out)
{
    *out = s->at;
    return s->at++ < 2 ? 1 : -EIO;
}

BEHAVIOUR(generators, an_error_of_an_iterator_leaves_the_loop, -EIO, "0 1 ")
{
    TO_LIST(async_iter(next_fails, &(struct steps){ 0 }));
    return 0;
}

/* ---- errors ------------------------------------------------------------------------------ */

async_gen(int, fails_in_await)
{
    await(mag_yield());
    yield(123);
    await(failing(-EIO, 0));
    yield(456);
    return 0;
}

BEHAVIOUR(generators, an_error_of_an_await_in_it_leaves_the_loop, -EIO, "123 ")
{
    TO_LIST(fails_in_await());
    return 0;
}

async_gen(int, raises)
{
    yield(123);
    return -EDOM;
}

BEHAVIOUR(generators, an_error_that_it_raises_leaves_the_loop, -EDOM, "123 ")
{
    TO_LIST(raises());
    return 0;
}

BEHAVIOUR(generators, an_error_comes_out_of_anext, 0, "")
{
    struct raises *g = raises();
    int v = 0;

    SHOULD(anext(g, &v) == 1 && v == 123);
    SHOULD(anext(g, &v) == -EDOM && v == 123);
    return mag_gen_close(g);
}

BEHAVIOUR(generators, after_an_error_it_is_at_its_end, 0, "")
{
    struct raises *g = raises();
    int v = 0;

    SHOULD(anext(g, &v) == 1 && anext(g, &v) == -EDOM);
    SHOULD(anext(g, &v) == 0 && anext(g, &v) == 0);
    return mag_gen_close(g);
}

async_gen(int, goes_on_after_errors)
{
    yield(1);
    SHOULD(await_rc(failing(-EIO, 0), NULL) == -EIO);
    yield(2);
    return 0;
}

BEHAVIOUR(generators, an_error_that_it_catches_is_its_own, 0, "1 2 ")
{
    TO_LIST(goes_on_after_errors());
    return 0;
}

async_gen(int, cleans_up_by_yields)
{
    yield(1);
    if (await_rc(failing(-EIO, 0), NULL) < 0) { /* finally: */
        yield(2);
        yield(3);
        return -EIO;
    }
    yield(100);
    return 0;
}

/* exception_07 to _09: a generator that fails may yield from its cleanup first */
BEHAVIOUR(generators, one_that_fails_may_still_yield_and_then_raise, -EIO, "1 2 3 ")
{
    TO_LIST(cleans_up_by_yields());
    return 0;
}

/* ---- closing ------------------------------------------------------------------------------ */

async_gen(int, finally_awaits)
{
    int one = 1, rc = mag_yield_value(&one, sizeof one);

    await(mag_sleep(10 * MAG_US)); /* finally: */
    await(mag_sleep(10 * MAG_US));
    done++;
    await(rc);
    done += 1000;
    return 0;
}

BEHAVIOUR(generators, aclose_runs_the_cleanup_which_may_await, 0, "")
{
    struct finally_awaits *g = finally_awaits();
    int v = 0;

    done = 0;
    SHOULD(anext(g, &v) == 1 && v == 1);
    SHOULD(mag_gen_close(g) == 0 && done == 1);
    return 0;
}

async_gen(int, finally_yields)
{
    int n = 12, one = 1, rc = mag_yield_value(&one, sizeof one);

    done = rc;
    SHOULD(mag_yield_value(&n, sizeof n) == rc);
    return rc;
}

/* there a RuntimeError: "ignored GeneratorExit" */
BEHAVIOUR(generators, a_yield_in_a_cleanup_is_refused, 0, "")
{
    struct finally_yields *g = finally_yields();
    int v = 0;

    SHOULD(anext(g, &v) == 1 && v == 1);
    SHOULD(mag_gen_close(g) == 0 && v == 1 && done == -ECANCELED);
    done = 0;
    return 0;
}

async_gen(int, swallows)
{
    int one = 1;

    (void)mag_yield_value(&one, sizeof one); /* except: pass */
    done = 1;
    return 0;
}

BEHAVIOUR(generators, one_that_swallows_the_close_ends_well, 0, "")
{
    struct swallows *g = swallows();
    int v = 0;

    done = 0;
    SHOULD(anext(g, &v) == 1 && mag_gen_close(g) == 0 && done == 1);
    g = swallows();
    done = 0;
    SHOULD(anext(g, &v) == 1 && anext(g, &v) == 0 && done == 1);
    done = 0;
    return mag_gen_close(g);
}

async_gen(int, finally_awaits_task)
{
    struct failing *task = spawn(failing(-EIO, 10 * MAG_US));
    int one = 1, rc = mag_yield_value(&one, sizeof one);

    done = await_rc(task, NULL); /* finally: */
    return rc;
}

BEHAVIOUR(generators, a_cleanup_may_await_a_task_that_fails, 0, "")
{
    struct finally_awaits_task *g = finally_awaits_task();
    int v = 0;

    SHOULD(anext(g, &v) == 1 && mag_gen_close(g) == 0 && done == -EIO);
    done = 0;
    return 0;
}

BEHAVIOUR(generators, aclose_before_the_first_item_runs_nothing, 0, "")
{
    struct finally_awaits *g = finally_awaits();

    done = 0;
    SHOULD(mag_gen_close(g) == 0 && done == 0);
    return 0;
}

/* There the second is a no-op; here the object is gone, and that is told. */
BEHAVIOUR(generators, aclose_twice_is_told, 0, "")
{
    struct three_items *g = three_items();

    SHOULD(mag_gen_close(g) == 0 && mag_gen_close(g) == -EALREADY);
    return 0;
}

BEHAVIOUR(generators, aclose_after_the_end_is_fine, 0, "")
{
    struct empty *g = empty();
    int v;

    SHOULD(anext(g, &v) == 0 && mag_gen_close(g) == 0);
    return 0;
}

async_gen(int, fails_in_cleanup)
{
    int one = 1;

    (void)mag_yield_value(&one, sizeof one);
    return -EIO;
}

BEHAVIOUR(generators, an_error_of_the_cleanup_comes_out_of_aclose, 0, "")
{
    struct fails_in_cleanup *g = fails_in_cleanup();
    int v;

    SHOULD(anext(g, &v) == 1 && mag_gen_close(g) == -EIO);
    return 0;
}

/* There it is closed some time later, by the garbage collector and the loop. */
BEHAVIOUR(generators, break_closes_it_at_once, 0, "1.")
{
    done = 0;
    async_for(int, i, finally_awaits()) {
        tell_number(i);
        break;
    }
    SHOULD(done == 1);
    tell(".");
    return 0;
}

/* aclosing, bpo-41229 */
static int loop_with_error(void)
{
    async_for(int, i, finally_awaits()) {
        tell_number(i);
        return -EDOM;
    }
    return 0;
}

BEHAVIOUR(generators, an_error_in_the_loop_closes_it_at_once, 0, "1")
{
    done = 0;
    SHOULD(loop_with_error() == -EDOM && done == 1);
    return 0;
}

/* shutdown_01 */
async_gen(int, waiter)
{
    async_with(door, d, "w") {
        tell("w");
        await(mag_sleep(MAG_MINUTE));
        yield(1);
    }
    return 0;
}

async(void, iterates_waiter)
{
    TO_LIST(waiter());
    return 0;
}

BEHAVIOUR(generators, cancelling_the_consumer_finalizes_it, -ECANCELED, "<w>w")
{
    struct iterates_waiter *t = spawn(iterates_waiter());

    await(told("w"));
    mag_cancel(t);
    await(t);
    return 0;
}

async_gen(int, swallows_cancel)
{
    int rc = mag_sleep(MAG_MINUTE);

    tell(rc == -ECANCELED ? "c" : "?");
    yield(1);
    return 0;
}

async(void, iterates_swallower)
{
    mag_cancel(mag_self());
    (void)mag_yield();
    with_shield (MAG_MINUTE)
        with_timeout (MAG_MS)
            TO_LIST(swallows_cancel());
    return 0;
}

/* There the generator would go on; a cancel is a level here. */
BEHAVIOUR(generators, one_that_swallows_a_cancel_does_not_get_far, -ETIMEDOUT, "c")
{
    return await_rc(spawn(iterates_swallower()), NULL);
}

/* ---- one consumer --------------------------------------------------------------------------- */

async_gen(int, slow_item)
{
    tell("s");
    await(mag_sleep(5 * MAG_MS));
    yield(1);
    return 0;
}

async(int, takes, (struct slow_item *, g))
{
    int v = 0;

    await(anext(g, &v));
    async_return(v);
}

/* "anext(): asynchronous generator is already running" (3.8) */
BEHAVIOUR(generators, anext_while_it_runs_is_refused, 0, "s")
{
    struct slow_item *g = slow_item();
    struct takes *t = spawn(takes(g));
    int v;

    await(told("s"));
    SHOULD(anext(g, &v) == -EBUSY);
    SHOULD(await(t) == 1);
    return mag_gen_close(g);
}

/* "aclose(): asynchronous generator is already running" (3.8) */
BEHAVIOUR(generators, aclose_while_it_runs_is_refused, 0, "s")
{
    struct slow_item *g = slow_item();
    struct takes *t = spawn(takes(g));

    await(told("s"));
    SHOULD(mag_gen_close(g) == -EBUSY);
    SHOULD(await(t) == 1);
    return mag_gen_close(g);
}

/* ---- with_timeout ----------------------------------------------------------------------------- */

static int basic_timeout(struct mag_scope *s)
{
    with_timeout (MAG_MS, s)
        await(mag_sleep(10 * MAG_SECOND));
    return 0;
}

BEHAVIOUR(timeout_blocks, timeout_basic, 0, "")
{
    struct mag_scope s;

    SHOULD(basic_timeout(&s) == -ETIMEDOUT && mag_scope_expired(&s));
    return 0;
}

static int at_deadline(struct mag_scope *s, mag_time deadline)
{
    timeout_at (deadline, s)
        await(mag_sleep(10 * MAG_SECOND));
    return 0;
}

BEHAVIOUR(timeout_blocks, timeout_at_basic, 0, "")
{
    mag_time deadline = mag_now() + MAG_MS;
    struct mag_scope s;

    SHOULD(at_deadline(&s, deadline) == -ETIMEDOUT);
    SHOULD(mag_scope_expired(&s) && mag_scope_when(&s) == deadline);
    return 0;
}

/* Only the outermost raises TimeoutError; the inner one sees a cancel. */
static int nested_with_one_deadline(struct mag_scope *outer, struct mag_scope *inner)
{
    mag_time deadline = mag_now() + MAG_MS;

    timeout_at (deadline, outer) {
        int rc = at_deadline(inner, deadline);
        tell(mag_err_name(rc));
        await(rc);
    }
    return 0;
}

BEHAVIOUR(timeout_blocks, nested_timeouts, 0, "ECANCELED")
{
    struct mag_scope outer, inner;

    SHOULD(nested_with_one_deadline(&outer, &inner) == -ETIMEDOUT);
    SHOULD(mag_scope_expired(&outer) && mag_scope_expired(&inner));
    return 0;
}

BEHAVIOUR(timeout_blocks, what_waits_sees_a_cancel, -ETIMEDOUT, "ECANCELED")
{
    with_timeout (MAG_MS) {
        int rc = await_rc(mag_sleep(10 * MAG_SECOND), NULL);
        tell(mag_err_name(rc));
        await(rc);
    }
    return 0;
}

BEHAVIOUR(timeout_blocks, timeout_not_called, 0, "")
{
    mag_time start = mag_now();
    struct mag_scope s;

    with_timeout (10 * MAG_SECOND, &s)
        await(mag_sleep(MAG_MS));
    SHOULD(!mag_scope_expired(&s) && mag_now() - start < 8 * MAG_SECOND);
    SHOULD(mag_scope_when(&s) > mag_now());
    return 0;
}

/* timeout(None), timeout_at(None) */
BEHAVIOUR(timeout_blocks, timeout_disabled, 0, "")
{
    struct mag_scope s;

    with_timeout (MAG_NEVER, &s)
        await(mag_sleep(MAG_MS));
    SHOULD(!mag_scope_expired(&s) && mag_scope_when(&s) == MAG_NEVER);
    timeout_at (MAG_NEVER, &s)
        await(mag_sleep(MAG_MS));
    SHOULD(!mag_scope_expired(&s) && mag_scope_when(&s) == MAG_NEVER);
    return 0;
}

static int zero_timeout(struct mag_scope *s, mag_time sleep)
{
    with_timeout (0, s)
        await(mag_sleep(sleep));
    return 0;
}

BEHAVIOUR(timeout_blocks, timeout_zero, 0, "")
{
    mag_time start = mag_now();
    struct mag_scope s;

    SHOULD(zero_timeout(&s, 10 * MAG_SECOND) == -ETIMEDOUT && mag_scope_expired(&s));
    SHOULD(mag_scope_when(&s) >= start && mag_scope_when(&s) <= mag_now());
    return 0;
}

BEHAVIOUR(timeout_blocks, timeout_zero_sleep_zero, 0, "")
{
    struct mag_scope s;

    SHOULD(zero_timeout(&s, 0) == -ETIMEDOUT && mag_scope_expired(&s));
    return 0;
}

/* There timeout(-11); here only a point in time may be in the past. */
static int past_timeout(struct mag_scope *s)
{
    timeout_at (mag_now() - 11 * MAG_SECOND, s)
        await(mag_sleep(0));
    return 0;
}

static int negative_timeout(void)
{
    with_timeout (-11 * MAG_SECOND)
        tell("?");
    return 0;
}

BEHAVIOUR(timeout_blocks, timeout_in_the_past_sleep_zero, 0, "")
{
    struct mag_scope s;

    SHOULD(past_timeout(&s) == -ETIMEDOUT && mag_scope_expired(&s));
    SHOULD(negative_timeout() == -EINVAL);
    return 0;
}

static int foreign_error(struct mag_scope *s)
{
    with_timeout (MAG_MINUTE, s)
        return -ENOKEY;
    return 0;
}

BEHAVIOUR(timeout_blocks, foreign_exception_passed, 0, "")
{
    struct mag_scope s;

    SHOULD(foreign_error(&s) == -ENOKEY && !mag_scope_expired(&s));
    return 0;
}

static int crashes_in_cleanup(void)
{
    (void)mag_sleep(MAG_SECOND);
    return -EDOM;
}

BEHAVIOUR(timeout_blocks, foreign_exception_on_timeout, -EDOM, "")
{
    with_timeout (MAG_MS)
        await(crashes_in_cleanup());
    return 0;
}

async(void, cancels_itself)
{
    struct mag_scope s;

    with_timeout (10 * MAG_SECOND, &s) {
        mag_cancel(mag_self());
        await(mag_sleep(10 * MAG_SECOND));
    }
    return 0;
}

BEHAVIOUR(timeout_blocks, foreign_cancel_doesnt_timeout_if_not_expired, 0, "")
{
    SHOULD(await_rc(spawn(cancels_itself()), NULL) == -ECANCELED);
    return 0;
}

async(void, times_out_inside)
{
    struct mag_scope s;

    SHOULD(basic_timeout(&s) == -ETIMEDOUT);
    return 0;
}

BEHAVIOUR(timeout_blocks, outer_task_is_not_cancelled, 0, "")
{
    struct times_out_inside *t = spawn(times_out_inside());

    await(t);
    SHOULD(!mag_cancelled());
    return 0;
}

static void compute(mag_time duration)
{
    mag_time until = mag_now() + duration;

    while (mag_now() < until) {
    }
}

static int computes_then_sleeps(mag_time limit, mag_time busy)
{
    with_timeout (limit) {
        compute(busy);
        await(mag_sleep(MAG_SECOND));
    }
    return 0;
}

BEHAVIOUR(timeout_blocks, nested_timeouts_concurrent, -ETIMEDOUT, "ECANCELED")
{
    with_timeout (2 * MAG_MS) {
        int rc = computes_then_sleeps(MAG_MINUTE, 4 * MAG_MS);
        tell(mag_err_name(rc));
        await(rc);
    }
    return 0;
}

BEHAVIOUR(timeout_blocks, nested_timeouts_loop_busy, -ETIMEDOUT, "ETIMEDOUT")
{
    with_timeout (5 * MAG_SECOND / 2) { /* more than a busy machine stalls */
        int rc = computes_then_sleeps(MAG_MS, 4 * MAG_MS);
        tell(mag_err_name(rc));
        await(mag_sleep(10 * MAG_SECOND)); /* is cut short by the outer one */
    }
    return 0;
}

static int rescheduled(struct mag_scope *s)
{
    timeout_at (mag_now() + MAG_MINUTE, s) {
        mag_time when = mag_now() + MAG_MS;
        SHOULD(mag_scope_reschedule(s, mag_now() + 2 * MAG_MINUTE) == 0);
        SHOULD(mag_scope_reschedule(s, MAG_NEVER) == 0 && mag_scope_when(s) == MAG_NEVER);
        SHOULD(mag_scope_reschedule(s, when) == 0 && mag_scope_when(s) == when);
        await(mag_sleep(50 * MAG_SECOND));
    }
    return 0;
}

BEHAVIOUR(timeout_blocks, reschedule, 0, "")
{
    struct mag_scope s;

    SHOULD(rescheduled(&s) == -ETIMEDOUT && mag_scope_expired(&s));
    SHOULD(mag_scope_reschedule(&s, MAG_NEVER) == -EPERM);
    return 0;
}

/* There the inner one in `finally' has its own time; here a cleanup needs a shield for that. */
static void cleanup_with_timeout(int *unused)
{
    struct mag_scope shield, s;

    (void)unused;
    if (mag_shield_enter(&shield, MAG_NEVER, NULL) < 0)
        return;
    tell(mag_err_name(basic_timeout(&s)));
    mag_scope_leave(&shield, 0);
}

BEHAVIOUR(timeout_blocks, nested_timeout_in_finally, -ETIMEDOUT, "ETIMEDOUT")
{
    with_timeout (MAG_MS) {
        int clean __attribute__((cleanup(cleanup_with_timeout), unused)) = 0;
        await(mag_sleep(MAG_SECOND));
    }
    return 0;
}

/* ---- AsyncExitStack ------------------------------------------------------------------------------- */

static void says(void *what)
{
    (void)mag_yield();
    tell(what);
}

BEHAVIOUR(exit_stacks, no_resources, 0, ".")
{
    async_with(mag_exit_stack, st)
        (void)st;
    tell(".");
    return 0;
}

BEHAVIOUR(exit_stacks, callbacks_run_in_reverse_order, 0, "cba.")
{
    async_with(mag_exit_stack, st) {
        await(mag_exit_stack_push(st, says, "a"));
        await(mag_exit_stack_push(st, says, "b"));
        await(mag_exit_stack_push(st, says, "c"));
    }
    tell(".");
    return 0;
}

static int fails_in_stack(void)
{
    async_with(mag_exit_stack, st) {
        await(mag_exit_stack_push(st, says, "a"));
        await(-EIO);
        await(mag_exit_stack_push(st, says, "b"));
    }
    return 0;
}

BEHAVIOUR(exit_stacks, an_error_runs_what_was_pushed_and_passes, 0, "a")
{
    SHOULD(fails_in_stack() == -EIO);
    return 0;
}

/* enter_async_context */
static void leaves_door(void *d)
{
    door_exit(d);
}

static int enters_three(struct door *doors)
{
    static const char *const names[] = { "1", "2", "3" };

    async_with(mag_exit_stack, st) {
        for (int i = 0; i < 3; i++) {
            await(door_enter(&doors[i], names[i]));
            await(mag_exit_stack_push(st, leaves_door, &doors[i]));
        }
        tell(".");
    }
    return 0;
}

BEHAVIOUR(exit_stacks, several_resources_are_left_like_nested_blocks, 0, "<<<.>3>2>1")
{
    struct door doors[3];

    return enters_three(doors);
}

BEHAVIOUR(exit_stacks, pop_all_leaves_nothing_to_do, 0, ".ba")
{
    struct mag_exit_stack kept;

    await(mag_exit_stack_enter(&kept));
    async_with(mag_exit_stack, st) {
        await(mag_exit_stack_push(st, says, "a"));
        await(mag_exit_stack_push(st, says, "b"));
        await(mag_exit_stack_pop_all(st, &kept));
    }
    tell(".");
    mag_exit_stack_exit(&kept);
    return 0;
}

BEHAVIOUR(exit_stacks, close_runs_them_once, 0, "a.")
{
    async_with(mag_exit_stack, st) {
        await(mag_exit_stack_push(st, says, "a"));
        mag_exit_stack_exit(st);
        tell(".");
    }
    return 0;
}

static void pushes(void *st)
{
    tell("p");
    (void)mag_exit_stack_push(st, says, "q");
}

BEHAVIOUR(exit_stacks, a_callback_may_push_another, 0, "pqa")
{
    async_with(mag_exit_stack, st) {
        await(mag_exit_stack_push(st, says, "a"));
        await(mag_exit_stack_push(st, pushes, st));
    }
    return 0;
}

static void closes_stack(void *st)
{
    mag_exit_stack_exit(st);
}

BEHAVIOUR(exit_stacks, stacks_nest, 0, "cdba")
{
    struct mag_exit_stack inner;

    await(mag_exit_stack_enter(&inner));
    async_with(mag_exit_stack, outer) {
        await(mag_exit_stack_push(outer, says, "a"));
        await(mag_exit_stack_push(&inner, says, "b"));
        await(mag_exit_stack_push(outer, closes_stack, &inner));
        await(mag_exit_stack_push(&inner, says, "d"));
        await(mag_exit_stack_push(outer, says, "c"));
    }
    return 0;
}

/* test_excessive_nesting */
static void counts(void *n)
{
    ++*(int *)n;
}

BEHAVIOUR(exit_stacks, many_callbacks, 0, "")
{
    int n = 0;

    async_with(mag_exit_stack, st)
        for (int i = 0; i < 10000; i++)
            await(mag_exit_stack_push(st, counts, &n));
    SHOULD(n == 10000);
    return 0;
}

async(void, is_cancelled_in_stack)
{
    struct door d = { "x" };

    async_with(mag_exit_stack, st) {
        await(mag_exit_stack_push(st, leaves_door, &d));
        mag_cancel(mag_self());
        await(mag_sleep(MAG_MINUTE));
    }
    return 0;
}

BEHAVIOUR(exit_stacks, cancellation_does_not_reach_the_callbacks, 0, ">x")
{
    SHOULD(await_rc(spawn(is_cancelled_in_stack()), NULL) == -ECANCELED);
    return 0;
}
