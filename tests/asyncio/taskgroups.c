/* SPDX-License-Identifier: MIT */
/*
 * taskgroups.c - what CPython's test_taskgroups.py pins of asyncio.TaskGroup, and Trio's
 * test_run.py of nursery.start()
 *
 * One test for each behaviour, named for it.  Times are 1/100 of the original's.  Where
 * asyncio raises an ExceptionGroup, mag_group_leave returns its first error, and the list of
 * errors has them all.  What does not apply is in NOT_APPLICABLE.md.
 */
#include "body.h"

#include <criterion/criterion.h>

#include <magpie/group.h>
#include <magpie/scope.h>
#include <magpie/vars.h>

TestSuite(taskgroups, .timeout = 60);

enum { ZERO_DIVISION = -EDOM, MY_EXC = -EBADMSG, VALUE_ERROR = -EILSEQ, UNIT = MAG_MS };

typedef int block(struct mag_group *g, void *arg);

static struct mag_group_errors errors;

static int in_group(block *b, void *arg)
{
    struct mag_group g;
    struct mag_group_options options = { .errors = &errors };
    int rc = mag_group_enter(&g, &options);

    return rc < 0 ? rc : mag_group_leave(&g, b(&g, arg));
}

static int create_task(struct mag_group *g, int (*fn)(void *, long *), void *arg, long *result)
{
    return mag_group_spawn(g, co(fn, arg), result, NULL);
}

static int units(long n)
{
    return mag_sleep(n * UNIT);
}

static mag_atomic(long) num_seen; /* NUM of the originals */

static void seen(long n)
{
    mag_fetch_add(&num_seen, n);
}

static long n_seen(void)
{
    return mag_load_acquire(&num_seen);
}

/* Those that sleep till they are cancelled; what is cancelled before it has begun never runs,
 * so who cancels them waits until they have. */
static mag_atomic(long) n_begun;

static int long_sleep(void)
{
    mag_fetch_add(&n_begun, 1);
    return units(10000);
}

static int await_begun(long n)
{
    while (mag_load_acquire(&n_begun) < n)
        SHOULD(mag_sleep(UNIT / 10) == 0);
    return 0;
}

/* Runs fn in a task, cancels it when so many sleep, and returns its rc. */
static int cancelled_at(long n, int (*fn)(void *, long *), void *arg)
{
    struct co *c = go(fn, arg);

    SHOULD(c != NULL);
    SHOULD(await_begun(n) == 0);
    SHOULD(!mag_done(c));
    SHOULD(mag_cancel(c) == 0);
    return await_co(c, NULL);
}

/* Each test is one function, run on one worker and on four. */
#define BEHAVIOUR(name) \
    static int name(void *arg, long *value); \
    Test(taskgroups, name) \
    { \
        num_seen = n_begun = 0; \
        RUN(1, name, NULL); \
        num_seen = n_begun = 0; \
        RUN(4, name, NULL); \
    } \
    static int name(void *arg __attribute__((unused)), long *value __attribute__((unused)))

/* ---- children that the originals have --------------------------------------------------- */

struct after {
    long units, value;
};

/* Sleeps, then returns the value, or fails with it. */
static int after(void *arg, long *value)
{
    struct after *a = arg;
    int rc = units(a->units);

    *value = a->value;
    return rc < 0 || a->value >= 0 ? rc : (int)a->value;
}

#define AFTER(units_, value_) (&(struct after){ (units_), (value_) })

static struct after forty_two_after_1 = { 1, 42 }, eleven_after_2 = { 2, 11 },
                    crash_after_1 = { 1, ZERO_DIVISION }, crash_much_later = { 100000, VALUE_ERROR },
                    value_error_after_1 = { 1, VALUE_ERROR };

/* except CancelledError: NUM += 1; raise */
static int counts_cancel(void *arg, long *value)
{
    int rc = long_sleep();

    (void)value;
    if (rc == -ECANCELED)
        seen(num(arg));
    return rc;
}

/* try: sleep() finally: 1 / 0 */
static int crashes_finally(void *arg, long *value)
{
    (void)arg, (void)value;
    (void)long_sleep();
    return ZERO_DIVISION;
}

static int just_sleeps(void *arg, long *value)
{
    (void)value;
    return units(num(arg));
}

/* ---- test_taskgroup_01 to 10 --------------------------------------------------------------- */

static long r1, r2;

static int two_tasks(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, after, &forty_two_after_1, &r1) == 0);
    return create_task(g, after, &eleven_after_2, &r2);
}

BEHAVIOUR(results_of_both_tasks_are_there_after_the_block)
{
    r1 = r2 = 0;
    SHOULD(in_group(two_tasks, NULL) == 0);
    SHOULD(r1 == 42 && r2 == 11);
    return 0;
}

static int later_task(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, after, &forty_two_after_1, &r1) == 0);
    SHOULD(units(2) == 0);
    return create_task(g, after, &eleven_after_2, &r2);
}

BEHAVIOUR(a_task_may_be_created_when_another_has_ended)
{
    r1 = r2 = 0;
    SHOULD(in_group(later_task, NULL) == 0);
    SHOULD(r1 == 42 && r2 == 11);
    return 0;
}

static int explicit_cancel(struct mag_group *g, void *arg)
{
    struct co *t1 = co(just_sleeps, arg_of(1000));

    (void)arg;
    SHOULD(mag_group_task(g, t1, NULL) == 0);
    SHOULD(units(1) == 0);
    SHOULD(mag_cancel(t1) == 0);
    SHOULD(create_task(g, after, &eleven_after_2, &r2) == 0);
    SHOULD(await_co(t1, NULL) == -ECANCELED);
    return 0;
}

BEHAVIOUR(a_task_that_is_cancelled_explicitly_leaves_the_others_alone)
{
    r2 = 0;
    SHOULD(in_group(explicit_cancel, NULL) == 0);
    SHOULD(r2 == 11);
    return 0;
}

static int error_cancels_sibling(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, after, &crash_after_1, NULL) == 0);
    return create_task(g, counts_cancel, arg_of(1), NULL);
}

static int runner_04(void *arg, long *value)
{
    int rc = in_group(error_cancels_sibling, NULL);

    (void)arg, (void)value;
    if (rc < 0)
        return rc;
    seen(10);
    return 0;
}

BEHAVIOUR(an_error_cancels_the_sibling_and_comes_out_of_the_block)
{
    SHOULD(await_co(go(runner_04, NULL), NULL) == ZERO_DIVISION);
    SHOULD(n_seen() == 1);
    return 0;
}

static int three_crash(struct mag_group *g, void *arg)
{
    int rc;

    (void)arg;
    for (int i = 0; i < 3; i++)
        SHOULD(create_task(g, after, &crash_after_1, NULL) == 0);
    SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    rc = long_sleep();
    if (rc == -ECANCELED)
        seen(100);
    return rc;
}

BEHAVIOUR(errors_are_gathered_and_siblings_and_the_block_cancelled)
{
    SHOULD(in_group(three_crash, NULL) == ZERO_DIVISION);
    SHOULD(errors.n >= 1 && errors.n <= 3);
    for (size_t i = 0; i < errors.n; i++)
        SHOULD(errors.list[i].rc == ZERO_DIVISION);
    SHOULD(n_seen() == 101);
    return 0;
}

static int five_sleep(struct mag_group *g, void *arg)
{
    int rc = 0;

    for (int i = 0; i < 5; i++)
        SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    if (arg) {
        rc = long_sleep();
        if (rc == -ECANCELED)
            seen(10);
    }
    return rc;
}

static int runner_of_five(void *arg, long *value)
{
    (void)value;
    return in_group(five_sleep, arg);
}

BEHAVIOUR(a_cancel_at_the_end_of_the_block_cancels_the_tasks)
{
    SHOULD(cancelled_at(5, runner_of_five, NULL) == -ECANCELED);
    SHOULD(n_seen() == 5);
    return 0;
}

BEHAVIOUR(a_cancel_in_the_block_cancels_the_tasks_too)
{
    SHOULD(cancelled_at(6, runner_of_five, arg_of(1)) == -ECANCELED);
    SHOULD(n_seen() == 15);
    return 0;
}

static int five_crash_finally(struct mag_group *g, void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        SHOULD(create_task(g, crashes_finally, NULL, NULL) == 0);
    return long_sleep();
}

static int runner_08(void *arg, long *value)
{
    (void)arg, (void)value;
    return in_group(five_crash_finally, NULL);
}

BEHAVIOUR(errors_while_being_cancelled_come_out_instead_of_the_cancel)
{
    SHOULD(cancelled_at(6, runner_08, NULL) == ZERO_DIVISION);
    SHOULD(errors.n == 5);
    return 0;
}

/* What the two tasks ended with is what their handles say. */
static int crashing_body(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(await_begun(2) == 0);
    return ZERO_DIVISION;
}

BEHAVIOUR(an_error_in_the_block_cancels_the_tasks)
{
    SHOULD(in_group(crashing_body, NULL) == ZERO_DIVISION);
    SHOULD(errors.n == 1 && errors.list[0].rc == ZERO_DIVISION);
    SHOULD(n_seen() == 2);
    return 0;
}

static int crashes_at_once(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, after, &forty_two_after_1, &r1) == 0);
    SHOULD(create_task(g, after, &eleven_after_2, &r2) == 0);
    return ZERO_DIVISION;
}

BEHAVIOUR(an_error_in_the_block_cancels_tasks_that_have_not_begun)
{
    r1 = r2 = 0;
    SHOULD(in_group(crashes_at_once, NULL) == ZERO_DIVISION);
    SHOULD(r1 == 0 && r2 == 0);
    return 0;
}

/* ---- test_taskgroup_11 to 22: groups in groups, and errors in cleanups --------------------- */

static int nested_11(struct mag_group *g, void *arg)
{
    if (arg)
        SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    return in_group(five_crash_finally, NULL);
}

static int runner_11(void *arg, long *value)
{
    (void)value;
    return in_group(nested_11, arg);
}

BEHAVIOUR(errors_of_an_inner_group_pass_through_an_empty_outer_one)
{
    SHOULD(cancelled_at(6, runner_11, NULL) == ZERO_DIVISION);
    return 0;
}

BEHAVIOUR(errors_of_an_inner_group_pass_through_an_outer_one_with_tasks)
{
    SHOULD(cancelled_at(7, runner_11, arg_of(1)) == ZERO_DIVISION);
    SHOULD(n_seen() == 1);
    return 0;
}

static int crash_block(struct mag_group *g, void *arg)
{
    return create_task(g, after, arg, NULL);
}

static int nested_13(struct mag_group *g, void *arg)
{
    struct after **two = arg;

    SHOULD(create_task(g, after, two[0], NULL) == 0);
    return in_group(crash_block, two[1]);
}

BEHAVIOUR(an_error_of_the_outer_group_cancels_the_inner_one)
{
    struct after *two[] = { &value_error_after_1, &crash_much_later };
    mag_time start = mag_now();

    SHOULD(in_group(nested_13, two) == VALUE_ERROR);
    SHOULD(mag_now() - start < MAG_MINUTE);
    return 0;
}

BEHAVIOUR(an_error_of_the_inner_group_cancels_the_outer_one)
{
    struct after *two[] = { &crash_much_later, &value_error_after_1 };
    mag_time start = mag_now();

    SHOULD(in_group(nested_13, two) == VALUE_ERROR);
    SHOULD(mag_now() - start < MAG_MINUTE);
    return 0;
}

static mag_atomic(int) may_crash;

static int crashes_when_it_may(void *arg, long *value)
{
    (void)arg, (void)value;
    while (!mag_load_acquire(&may_crash))
        SHOULD(mag_sleep(UNIT / 10) == 0);
    return ZERO_DIVISION;
}

/* Cancelled, it cleans up for a while, and a task crashes in that time. */
static int slow_cleanup(struct mag_group *g, void *arg)
{
    struct mag_scope shield;
    int rc;

    (void)arg;
    may_crash = 0;
    SHOULD(create_task(g, crashes_when_it_may, NULL, NULL) == 0);
    rc = long_sleep();
    SHOULD(rc == -ECANCELED);
    mag_store_release(&may_crash, 1);
    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    while (mag_group_errors(g, NULL, 0) == 0)
        SHOULD(units(1) == 0);
    return mag_scope_leave(&shield, rc);
}

static int runner_15(void *arg, long *value)
{
    (void)arg, (void)value;
    return in_group(slow_cleanup, NULL);
}

BEHAVIOUR(a_task_that_crashes_while_the_cancelled_block_cleans_up_is_told)
{
    SHOULD(cancelled_at(1, runner_15, NULL) == ZERO_DIVISION);
    return 0;
}

static int runner_16(void *arg, long *value)
{
    (void)arg, (void)value;
    return await_co(go(runner_15, NULL), NULL);
}

BEHAVIOUR(the_same_where_the_cancelled_task_awaits_the_one_with_the_group)
{
    SHOULD(cancelled_at(1, runner_16, NULL) == ZERO_DIVISION);
    return 0;
}

static int cancelled_body(struct mag_group *g, void *arg)
{
    int rc = long_sleep();

    (void)g;
    if (rc == -ECANCELED)
        seen(10);
    return arg ? (int)num(arg) : rc;
}

static int runner_17(void *arg, long *value)
{
    (void)value;
    return in_group(cancelled_body, arg);
}

BEHAVIOUR(a_cancel_passes_through_a_group_without_tasks)
{
    SHOULD(cancelled_at(1, runner_17, NULL) == -ECANCELED);
    SHOULD(n_seen() == 10);
    return 0;
}

BEHAVIOUR(an_error_that_the_block_raises_when_cancelled_comes_out)
{
    SHOULD(cancelled_at(1, runner_17, arg_of(MY_EXC)) == MY_EXC);
    SHOULD(n_seen() == 10);
    return 0;
}

static int crash_and_cleanup(struct mag_group *g, void *arg)
{
    SHOULD(create_task(g, after, &crash_after_1, NULL) == 0);
    SHOULD(long_sleep() == -ECANCELED);
    return (int)num(arg);
}

BEHAVIOUR(an_error_of_the_block_joins_the_error_that_has_cancelled_it)
{
    SHOULD(in_group(crash_and_cleanup, arg_of(MY_EXC)) == MY_EXC);
    SHOULD(errors.n == 2);
    SHOULD(errors.list[0].rc == ZERO_DIVISION && errors.list[1].rc == MY_EXC);
    return 0;
}

static int runner_22(void *arg, long *value)
{
    (void)arg, (void)value;
    return in_group(two_tasks, NULL);
}

BEHAVIOUR(a_cancel_soon_after_the_tasks_were_created)
{
    struct co *c = go(runner_22, NULL);

    SHOULD(mag_yield() == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    return 0;
}

/* ---- test_taskgroup_23 to 25: groups that live long -------------------------------------------- */

static int counts_down(void *arg, long *value)
{
    (void)arg, (void)value;
    seen(-1);
    return 0;
}

/* What has ended is not kept: its memory is there for the next. */
static int many_in_turn(struct mag_group *g, void *arg)
{
    int64_t warm = 0;

    (void)arg;
    for (int i = 0; i < 20000; i++) {
        if (i == 500)
            warm = mag_mem_live();
        seen(1);
        SHOULD(create_task(g, counts_down, NULL, NULL) == 0);
        while (n_seen() > 50)
            SHOULD(mag_yield() == 0);
    }
    SHOULD(mag_mem_live() < warm + 64);
    return 0;
}

BEHAVIOUR(tasks_that_have_ended_are_not_kept)
{
    SHOULD(in_group(many_in_turn, NULL) == 0);
    SHOULD(n_seen() == 0);
    return 0;
}

static int root_24(void *arg, long *value)
{
    (void)value;
    SHOULD(units(1) == 0);
    SHOULD(create_task(arg, after, &forty_two_after_1, &r1) == 0);
    SHOULD(create_task(arg, after, &eleven_after_2, &r2) == 0);
    return 0;
}

static int spawns_root_24(struct mag_group *g, void *arg)
{
    (void)arg;
    return create_task(g, root_24, g, NULL);
}

BEHAVIOUR(a_task_may_create_tasks_when_the_block_has_ended)
{
    r1 = r2 = 0;
    SHOULD(in_group(spawns_root_24, NULL) == 0);
    SHOULD(r1 == 42 && r2 == 11);
    return 0;
}

static int hydra(void *arg, long *value)
{
    int rc;

    (void)value;
    seen(1);
    rc = mag_sleep(UNIT / 5);
    if (rc == 0)
        rc = create_task(arg, hydra, arg, NULL);
    if (rc == 0)
        rc = create_task(arg, hydra, arg, NULL);
    return rc;
}

static int hercules(void *arg, long *value)
{
    (void)arg, (void)value;
    while (n_seen() < 10)
        SHOULD(mag_sleep(UNIT / 4) == 0);
    return ZERO_DIVISION;
}

static int hydra_block(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, hydra, g, NULL) == 0);
    return create_task(g, hercules, NULL, NULL);
}

BEHAVIOUR(tasks_that_multiply_end_with_the_first_error)
{
    SHOULD(in_group(hydra_block, NULL) == ZERO_DIVISION);
    SHOULD(n_seen() >= 10);
    return 0;
}

/* ---- names, contexts ------------------------------------------------------------------------------ */

static int named(struct mag_group *g, void *arg)
{
    struct mag_spawn_options options = { .name = "yolo" };
    struct co *c = co(same_later, NULL);

    (void)arg;
    SHOULD(mag_group_task(g, c, &options) == 0);
    SHOULD(strcmp(mag_name(c), "yolo") == 0);
    return await_co(c, NULL);
}

BEHAVIOUR(a_task_has_the_name_that_it_was_given)
{
    return in_group(named, NULL);
}

static struct mag_var cvar = { .name = "cvar" };

static int has_var(void *arg, long *value)
{
    (void)value;
    SHOULD(mag_var_get(&cvar) == arg);
    SHOULD(mag_yield() == 0);
    SHOULD(mag_var_set(&cvar, arg_of(99)) == 0); /* its own */
    return 0;
}

static int var_block(struct mag_group *g, void *arg)
{
    struct co *c = co(has_var, arg_of(2));

    (void)arg;
    SHOULD(mag_var_set(&cvar, arg_of(1)) == 0);
    SHOULD(create_task(g, has_var, arg_of(1), NULL) == 0);
    SHOULD(mag_var_set(&cvar, arg_of(2)) == 0);
    SHOULD(mag_group_task(g, c, NULL) == 0);
    SHOULD(await_co(c, NULL) == 0);
    SHOULD(mag_var_get(&cvar) == arg_of(2));
    return 0;
}

BEHAVIOUR(a_task_begins_with_a_copy_of_its_creators_context)
{
    return in_group(var_block, NULL);
}

/* ---- no tasks where none may be ---------------------------------------------------------------------- */

static int creates_after_failure(void *arg, long *value)
{
    struct co *c = co(same, NULL);

    (void)value;
    SHOULD(long_sleep() == -ECANCELED);
    SHOULD(mag_group_spawn(arg, c, NULL, NULL) == -ECANCELED);
    SHOULD(strcmp(mag_kind_name(c), "freed") == 0);
    seen(1);
    return -ECANCELED;
}

static int no_create_block(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, creates_after_failure, g, NULL) == 0);
    SHOULD(await_begun(1) == 0);
    return create_task(g, after, &crash_after_1, NULL);
}

BEHAVIOUR(no_task_can_be_created_after_a_failure)
{
    SHOULD(in_group(no_create_block, NULL) == ZERO_DIVISION);
    SHOULD(n_seen() == 1);
    return 0;
}

static int exit_raises(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, fails_with, arg_of(MY_EXC), NULL) == 0);
    SHOULD(long_sleep() == -ECANCELED);
    return VALUE_ERROR; /* what the context manager inside raises instead */
}

BEHAVIOUR(an_exit_that_raises_inside_the_block_is_a_second_error)
{
    SHOULD(in_group(exit_raises, NULL) == VALUE_ERROR);
    SHOULD(errors.n == 2 && errors.list[0].rc == MY_EXC);
    SHOULD(!mag_cancelled());
    return 0;
}

BEHAVIOUR(a_finished_group_takes_no_task_and_closes_the_coroutine)
{
    struct mag_group g;
    struct co *c = co(same, NULL);

    SHOULD(mag_group_enter(&g, NULL) == 0);
    SHOULD(mag_group_leave(&g, 0) == 0);
    SHOULD(mag_group_spawn(&g, c, NULL, NULL) == -EINVAL);
    SHOULD(strcmp(mag_kind_name(c), "freed") == 0);
    return 0;
}

BEHAVIOUR(a_group_that_was_not_entered_takes_no_task)
{
    struct mag_group g = { { 0 } };

    SHOULD(mag_group_spawn(&g, co(same, NULL), NULL, NULL) == -EINVAL);
    return 0;
}

static int enters_outside(void)
{
    struct mag_group g;

    return mag_group_enter(&g, NULL);
}

Test(taskgroups, a_group_needs_a_task_to_own_it)
{
    cr_assert_eq(enters_outside(), -ENXIO);
}

static int enters_again(struct mag_group *g, void *arg)
{
    SHOULD(mag_group_leave(g, 0) == 0); /* entered, left and used up; once more: */
    SHOULD(mag_group_enter(g, NULL) == 0);
    return create_task(g, after, arg, &r1);
}

BEHAVIOUR(a_group_may_be_entered_again_after_its_end)
{
    r1 = 0;
    SHOULD(in_group(enters_again, &forty_two_after_1) == 0);
    SHOULD(r1 == 42);
    return 0;
}

/* ---- errors and cancels at once -------------------------------------------------------------------------- */

BEHAVIOUR(after_an_error_was_caught_the_task_is_not_cancelled)
{
    SHOULD(in_group(error_cancels_sibling, NULL) == ZERO_DIVISION);
    SHOULD(!mag_cancelled());
    SHOULD(mag_yield() == 0);
    SHOULD(in_group(two_tasks, NULL) == 0);
    return 0;
}

/* Both groups fail; the inner's error is caught, the outer's is not lost. */
static int both_inner(struct mag_group *inner, void *arg)
{
    SHOULD(create_task(arg, fails_with, arg_of(VALUE_ERROR), NULL) == 0);
    SHOULD(create_task(inner, fails_with, arg_of(MY_EXC), NULL) == 0);
    return long_sleep();
}

static int both_outer(struct mag_group *outer, void *arg)
{
    int rc = in_group(both_inner, outer);

    (void)arg;
    SHOULD(rc == MY_EXC || rc == -ECANCELED);
    return long_sleep(); /* the outer group's error ends this too */
}

BEHAVIOUR(two_nested_groups_that_are_both_cancelled)
{
    SHOULD(in_group(both_outer, NULL) == VALUE_ERROR);
    SHOULD(!mag_cancelled());
    return 0;
}

static struct co *to_cancel;

/* Fails, and the task of the group is cancelled at the same time. */
static int raises_and_cancels(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_cancel(to_cancel) == 0);
    return MY_EXC;
}

static int error_and_cancel_block(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, raises_and_cancels, NULL, NULL) == 0);
    SHOULD(long_sleep() == -ECANCELED);
    return -ECANCELED;
}

static int error_and_cancel_task(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(error_and_cancel_block, NULL) == MY_EXC);
    SHOULD(long_sleep() == -ECANCELED); /* the cancel is still there */
    return -ECANCELED;
}

BEHAVIOUR(an_error_does_not_swallow_a_cancel_of_the_same_moment)
{
    to_cancel = co(error_and_cancel_task, NULL);
    SHOULD(mag_start(to_cancel, &(struct mag_spawn_options){ .worker = 1 }) == 0);
    SHOULD(await_co(to_cancel, NULL) == -ECANCELED);
    return 0;
}

static int timeout_inside(struct mag_group *g, void *arg)
{
    struct mag_scope s;

    (void)arg;
    SHOULD(create_task(g, after, &eleven_after_2, &r2) == 0);
    SHOULD(mag_scope_enter(&s, mag_now() + UNIT, NULL) == 0);
    SHOULD(mag_scope_leave(&s, long_sleep()) == -ETIMEDOUT);
    return 0;
}

BEHAVIOUR(a_timeout_in_the_block_is_not_the_groups_business)
{
    r2 = 0;
    SHOULD(in_group(timeout_inside, NULL) == 0);
    SHOULD(r2 == 11);
    return 0;
}

BEHAVIOUR(a_timeout_around_a_group_cancels_it_and_is_told_as_a_timeout)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + UNIT, NULL) == 0);
    SHOULD(mag_scope_leave(&s, in_group(five_sleep, NULL)) == -ETIMEDOUT);
    SHOULD(n_seen() == n_begun);
    return 0;
}

static int shields_a_child(struct mag_group *g, void *arg)
{
    struct co *inner = go(counts_cancel, arg_of(1));

    (void)g, (void)arg;
    SHOULD(mag_shield(inner, NULL, 0) == -ECANCELED);
    return -ECANCELED;
}

static int shield_runner(void *arg, long *value)
{
    (void)arg, (void)value;
    return in_group(shields_a_child, NULL);
}

BEHAVIOUR(a_shielded_await_in_the_block_is_given_up_at_once)
{
    SHOULD(cancelled_at(1, shield_runner, NULL) == -ECANCELED);
    SHOULD(n_seen() == 0);
    return 0;
}

/* ---- TaskGroup.cancel() of 3.15 ------------------------------------------------------------------------------ */

static int cancels_the_group(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 3; i++)
        SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(await_begun(3) == 0);
    SHOULD(mag_group_cancel(g) == 0);
    if (num(arg) == 1)
        return 0;
    SHOULD(long_sleep() == -ECANCELED);
    seen(10);
    return num(arg) == 2 ? -ECANCELED : MY_EXC;
}

BEHAVIOUR(cancel_cancels_the_tasks)
{
    SHOULD(in_group(cancels_the_group, arg_of(1)) == 0);
    SHOULD(n_seen() == 3);
    return 0;
}

BEHAVIOUR(cancel_cancels_the_block_without_an_error)
{
    SHOULD(in_group(cancels_the_group, arg_of(2)) == 0);
    SHOULD(n_seen() == 13);
    SHOULD(!mag_cancelled());
    return 0;
}

BEHAVIOUR(an_error_after_a_cancel_comes_out)
{
    SHOULD(in_group(cancels_the_group, arg_of(3)) == MY_EXC);
    return 0;
}

static int child_cancels(void *arg, long *value)
{
    (void)value;
    return mag_group_cancel(arg);
}

static int cancelled_by_child(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(await_begun(1) == 0);
    SHOULD(create_task(g, child_cancels, g, NULL) == 0);
    return long_sleep();
}

BEHAVIOUR(a_task_may_cancel_its_group)
{
    SHOULD(in_group(cancelled_by_child, NULL) == 0);
    SHOULD(n_seen() == 1);
    return 0;
}

static int cancel_then_create(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(mag_group_cancel(g) == 0);
    SHOULD(mag_group_cancel(g) == 0);
    SHOULD(create_task(g, same, NULL, NULL) == -ECANCELED);
    return 0;
}

BEHAVIOUR(cancel_twice_and_no_task_after_it)
{
    return in_group(cancel_then_create, NULL);
}

static int crash_after_cancel(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, crashes_finally, NULL, NULL) == 0);
    SHOULD(await_begun(1) == 0);
    return mag_group_cancel(g);
}

BEHAVIOUR(a_task_that_crashes_when_the_group_is_cancelled_is_told)
{
    SHOULD(in_group(crash_after_cancel, NULL) == ZERO_DIVISION);
    return 0;
}

static int cancel_after_crash(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, fails_with, arg_of(MY_EXC), NULL) == 0);
    SHOULD(long_sleep() == -ECANCELED);
    return mag_group_cancel(g);
}

BEHAVIOUR(a_cancel_after_an_error_changes_nothing)
{
    SHOULD(in_group(cancel_after_crash, NULL) == MY_EXC);
    return 0;
}

BEHAVIOUR(cancel_after_the_end_is_refused)
{
    struct mag_group g;

    SHOULD(mag_group_enter(&g, NULL) == 0);
    SHOULD(mag_group_leave(&g, 0) == 0);
    SHOULD(mag_group_cancel(&g) == -EINVAL);
    return 0;
}

/* ---- Trio: nursery.start() --------------------------------------------------------------------------------------- */

/* Sleeps, says its argument, sleeps. */
static int sleep_then_start(void *arg, long *value)
{
    long said = num(arg);
    int rc = units(2);

    (void)value;
    if (rc == 0)
        rc = mag_started(&said, sizeof said);
    if (rc == 0) {
        seen(1);
        rc = units(20);
    }
    if (rc == 0)
        seen(10);
    return rc;
}

static int start(struct mag_group *g, int (*fn)(void *, long *), void *arg, long *said)
{
    return mag_group_start(g, co(fn, arg), said, said ? sizeof *said : 0, NULL);
}

static int start_block(struct mag_group *g, void *arg)
{
    mag_time begun = mag_now();
    long said = 0;

    SHOULD(start(g, sleep_then_start, arg, &said) == 0);
    SHOULD(said == num(arg));
    SHOULD(mag_now() - begun >= 2 * UNIT);
    SHOULD(n_seen() < 10);
    return 0;
}

BEHAVIOUR(start_waits_for_started_and_the_group_for_the_rest)
{
    SHOULD(in_group(start_block, arg_of(7)) == 0);
    SHOULD(n_seen() == 11);
    return 0;
}

static int started_without_value(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_started(NULL, 0);
}

static int no_value_block(struct mag_group *g, void *arg)
{
    (void)arg;
    return start(g, started_without_value, NULL, NULL);
}

BEHAVIOUR(started_may_have_no_value)
{
    return in_group(no_value_block, NULL);
}

static int started_twice(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_started(NULL, 0) == 0);
    SHOULD(mag_started(NULL, 0) == -EALREADY);
    return 0;
}

static int twice_block(struct mag_group *g, void *arg)
{
    (void)arg;
    return start(g, started_twice, NULL, NULL);
}

BEHAVIOUR(started_twice_is_refused)
{
    return in_group(twice_block, NULL);
}

static int fail_before_start(struct mag_group *g, void *arg)
{
    SHOULD(start(g, fails_with, arg, NULL) == (int)num(arg));
    SHOULD(mag_yield() == 0); /* only the starter is told */
    return 0;
}

BEHAVIOUR(a_child_that_crashes_before_started_crashes_start)
{
    return in_group(fail_before_start, arg_of(MY_EXC));
}

static int quits(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(start(g, same_later, NULL, NULL) == -ENODATA);
    return 0;
}

BEHAVIOUR(a_child_that_returns_without_started_is_an_error_of_start)
{
    return in_group(quits, NULL);
}

static int crashes_after_started(void *arg, long *value)
{
    (void)value;
    SHOULD(mag_started(NULL, 0) == 0);
    return after(arg, value);
}

static int crash_later_block(struct mag_group *g, void *arg)
{
    SHOULD(start(g, crashes_after_started, arg, NULL) == 0);
    return long_sleep();
}

BEHAVIOUR(a_child_that_crashes_after_started_crashes_the_group)
{
    SHOULD(in_group(crash_later_block, &crash_after_1) == ZERO_DIVISION);
    return 0;
}

/* Says started although its start was cancelled: nothing comes of it. */
static int just_started(void *arg, long *value)
{
    long said = 5;

    (void)value;
    SHOULD(long_sleep() == -ECANCELED);
    SHOULD(mag_started(&said, sizeof said) == -ECANCELED);
    seen(1);
    return arg ? (int)num(arg) : long_sleep();
}

struct starter {
    struct mag_group *g;
    void *fails_with;
};

static int starter(void *arg, long *value)
{
    struct starter *s = arg;
    long said = 0;
    int rc = start(s->g, just_started, s->fails_with, &said);

    (void)value;
    SHOULD(n_seen() == 1); /* it was waited for */
    SHOULD(said == 0);
    return rc;
}

static int cancelled_start(struct mag_group *g, void *arg)
{
    struct starter s = { g, arg };
    int expected = arg ? (int)num(arg) : -ECANCELED;

    SHOULD(cancelled_at(1, starter, &s) == expected);
    return mag_yield();
}

BEHAVIOUR(a_cancelled_start_ignores_started_and_waits_for_the_child)
{
    return in_group(cancelled_start, NULL);
}

BEHAVIOUR(a_crash_after_an_ignored_started_comes_out_of_start)
{
    return in_group(cancelled_start, arg_of(MY_EXC));
}

static int starts_another(void *arg, long *value)
{
    long said = 0;

    (void)value;
    SHOULD(units(1) == 0);
    SHOULD(start(arg, sleep_then_start, arg_of(3), &said) == 0 && said == 3);
    return 0;
}

static int keeps_open(struct mag_group *g, void *arg)
{
    (void)arg;
    return create_task(g, starts_another, g, NULL);
}

BEHAVIOUR(a_start_under_way_keeps_the_group_open)
{
    SHOULD(in_group(keeps_open, NULL) == 0);
    SHOULD(n_seen() == 11);
    return 0;
}

static int start_in_cancelled(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(mag_group_cancel(g) == 0);
    SHOULD(start(g, sleep_then_start, NULL, NULL) == -ECANCELED);
    return 0;
}

BEHAVIOUR(start_in_a_cancelled_group)
{
    SHOULD(in_group(start_in_cancelled, NULL) == 0);
    SHOULD(n_seen() == 0);
    return 0;
}

static int cancels_while_starting(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(create_task(g, child_cancels, g, NULL) == 0);
    SHOULD(start(g, counts_cancel, arg_of(1), NULL) == -ECANCELED);
    return -ECANCELED;
}

BEHAVIOUR(a_group_that_is_cancelled_while_a_child_starts)
{
    SHOULD(in_group(cancels_while_starting, NULL) == 0);
    return 0;
}

static int outside_start(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(mag_started(NULL, 0) == -ENXIO);
    SHOULD(create_task(g, started_without_value, NULL, NULL) == 0);
    return 0;
}

BEHAVIOUR(started_without_a_start_is_refused)
{
    SHOULD(in_group(outside_start, NULL) == -ENXIO);
    return 0;
}
