/* SPDX-License-Identifier: MIT */
/* group.c - task groups: results, errors, handles, limits, starts, cancellation, misuse */
#include "nth_cancel.h"

#include <criterion/criterion.h>
#include <pthread.h>

#include <magpie/group.h>
#include <magpie/scope.h>

TestSuite(group, .timeout = 20);

typedef int block(struct mag_group *g, void *arg);

/* Runs the block in a group; so a SHOULD in it fails the block. */
static int in_group_with(const struct mag_group_options *options, block *b, void *arg)
{
    struct mag_group g;
    int rc = mag_group_enter(&g, options);

    return rc < 0 ? rc : mag_group_leave(&g, b(&g, arg));
}

static int in_group(block *b, void *arg)
{
    return in_group_with(NULL, b, arg);
}

static int add(struct mag_group *g, int (*fn)(void *, long *), void *arg, long *result)
{
    return mag_group_spawn(g, co(fn, arg), result, NULL);
}

/* What a runtime's workers do to each other's counts. */
static mag_atomic(long) count;

static int counts(void *arg, long *value)
{
    (void)value;
    mag_fetch_add(&count, num(arg));
    return 0;
}

/* Children that sleep, and have begun to: what has not begun when it is cancelled never runs. */
static mag_atomic(long) n_begun;

static int begins_forever(long *value)
{
    mag_fetch_add(&n_begun, 1);
    return forever(NULL, value);
}

/* Until so many have; a busy machine may take its time. */
static int await_begun(long n)
{
    while (mag_load_acquire(&n_begun) < n)
        SHOULD(mag_sleep(50 * MAG_US) == 0);
    mag_store_release(&n_begun, 0);
    return 0;
}

/* Sleeps for ever, and counts its cancellation. */
static int counts_cancel(void *arg, long *value)
{
    int rc = begins_forever(value);

    if (rc == -ECANCELED)
        mag_fetch_add(&count, num(arg));
    return rc;
}

/* Suspends, then fails. */
static int fails_later(void *arg, long *value)
{
    int rc = mag_sleep(MAG_MS);

    (void)value;
    return rc < 0 ? rc : (int)num(arg);
}

/* ---- results --------------------------------------------------------------------------- */

enum { MANY = 1000 };
static long results[MANY];

static int spawns_many(struct mag_group *g, void *arg)
{
    int (*const kinds[])(void *, long *) = { same, same_later, sleep_ns };

    (void)arg;
    for (long i = 0; i < MANY; i++) {
        results[i] = -1;
        SHOULD(add(g, kinds[i % 3], arg_of(i), &results[i]) == 0);
    }
    return 7;
}

static int many(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(spawns_many, NULL) == 7);
    for (long i = 0; i < MANY; i++)
        SHOULD(results[i] == i);
    return 0;
}

Test(group, results_of_all_children_are_there_after_leave)
{
    RUN_1_AND_4(many, NULL);
}

static int does_nothing(struct mag_group *g, void *arg)
{
    (void)g;
    return (int)num(arg);
}

static int empty(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(does_nothing, arg_of(0)) == 0);
    SHOULD(in_group(does_nothing, arg_of(5)) == 5);
    SHOULD(in_group(does_nothing, arg_of(-EIO)) == -EIO);
    SHOULD(in_group(does_nothing, arg_of(-ECANCELED)) == -ECANCELED);
    return 0;
}

Test(group, without_children_leave_returns_rc)
{
    RUN_1_AND_4(empty, NULL);
}

static int drops_results(struct mag_group *g, void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++)
        SHOULD(add(g, i % 2 ? same : same_later, arg_of(i), NULL) == 0);
    return 0;
}

static int dropped(void *arg, long *value)
{
    (void)arg, (void)value;
    return in_group(drops_results, NULL);
}

Test(group, results_can_be_dropped)
{
    RUN_1_AND_4(dropped, NULL);
}

/* A child that fails leaves its result's place alone. */
static int fails_with_value(void *arg, long *value)
{
    *value = 99;
    return (int)num(arg);
}

static int spawns_failing(struct mag_group *g, void *arg)
{
    results[0] = -5;
    (void)arg;
    return add(g, fails_with_value, arg_of(-EIO), &results[0]);
}

static int failing(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(spawns_failing, NULL) == -EIO);
    SHOULD(results[0] == -5);
    return 0;
}

Test(group, a_failed_child_writes_no_result)
{
    RUN_1_AND_4(failing, NULL);
}

/* ---- kinds of children ----------------------------------------------------------------- */

static int spawns_leaves(struct mag_group *g, void *arg)
{
    struct mag_spawn_options big = { .stack_bytes = 256 * 1024, .name = "big" };
    struct mag_spawn_options there = { .worker = 1, .pin = true };

    for (int i = 0; i < 20; i++)
        SHOULD(mag_group_spawn(g, mag_sleep_co(i * 20 * MAG_US), NULL, NULL) == 0);
    SHOULD(mag_group_spawn(g, co(same_later, arg_of(3)), &results[0], &big) == 0);
    SHOULD(mag_group_spawn(g, co(same_later, arg_of(4)), &results[1], &there) == 0);
    return arg ? mag_group_spawn(g, mag_sleep_co(-1), NULL, NULL) : 0;
}

static int leaves(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(spawns_leaves, NULL) == 0);
    SHOULD(results[0] == 3 && results[1] == 4);
    SHOULD(in_group(spawns_leaves, arg_of(1)) == -EINVAL);
    return 0;
}

Test(group, children_without_a_stack_and_with_their_own)
{
    RUN_1_AND_4(leaves, NULL);
}

static int spawns_wrong_options(struct mag_group *g, void *arg)
{
    struct mag_spawn_options options = { .worker = 99 };

    (void)arg;
    SHOULD(mag_group_spawn(g, co(same, NULL), NULL, &options) == -EINVAL);
    SHOULD(mag_group_spawn(g, NULL, NULL, NULL) == -ENOMEM);
    SHOULD(mag_group_start(g, co(same, NULL), NULL, 0, &options) == -EINVAL);
    SHOULD(mag_group_start(g, NULL, NULL, 0, NULL) == -ENOMEM);
    SHOULD(mag_group_task(g, NULL, NULL) == -ENOMEM);
    return 0;
}

static int wrong_options(void *arg, long *value)
{
    struct mag_group_options options = { .limit = 1 };

    (void)arg, (void)value;
    SHOULD(in_group(spawns_wrong_options, NULL) == 0);
    SHOULD(in_group_with(&options, spawns_wrong_options, NULL) == 0); /* gives its slot back */
    return 0;
}

Test(group, what_cannot_start_is_told_and_closed)
{
    RUN_1_AND_4(wrong_options, NULL);
}

/* ---- children that begin children ------------------------------------------------------- */

struct branch {
    struct mag_group *g;
    int depth;
};

static int branches(void *arg, long *value)
{
    struct branch b = *(struct branch *)arg;
    int rc;

    (void)value;
    free(arg);
    mag_fetch_add(&count, 1);
    if (b.depth % 2 && (rc = mag_yield()) < 0)
        return rc;
    for (int i = 0; i < 2 && b.depth > 0; i++) {
        struct branch *below = malloc(sizeof *below);
        *below = (struct branch){ b.g, b.depth - 1 };
        rc = add(b.g, branches, below, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int plants(struct mag_group *g, void *arg)
{
    struct branch *b = malloc(sizeof *b);

    *b = (struct branch){ g, (int)num(arg) };
    return add(g, branches, b, NULL);
}

static int tree(void *arg, long *value)
{
    (void)arg, (void)value;
    count = n_begun = 0;
    SHOULD(in_group(plants, arg_of(9)) == 0);
    SHOULD(count == 1023);
    return 0;
}

Test(group, children_may_begin_children_while_the_owner_waits)
{
    RUN_1_AND_4(tree, NULL);
}

static int inner_block(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 5; i++)
        SHOULD(add(g, counts, arg_of(1), NULL) == 0);
    return (int)num(arg);
}

static int has_a_group(void *arg, long *value)
{
    (void)value;
    return in_group(inner_block, arg);
}

static int outer_block(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 5; i++)
        SHOULD(add(g, has_a_group, arg, NULL) == 0);
    return in_group(inner_block, arg);
}

static int nested(void *arg, long *value)
{
    (void)arg, (void)value;
    count = n_begun = 0;
    SHOULD(in_group(outer_block, arg_of(0)) == 0);
    SHOULD(count == 30);
    SHOULD(in_group(outer_block, arg_of(-EIO)) == -EIO);
    return 0;
}

Test(group, nested_groups)
{
    RUN_1_AND_4(nested, NULL);
}

/* ---- errors ------------------------------------------------------------------------------- */

static int one_fails(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 40; i++)
        SHOULD(add(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(mag_group_spawn(g, mag_sleep_co(MAG_NEVER), NULL, NULL) == 0);
    SHOULD(await_begun(40) == 0);
    SHOULD(add(g, fails_with, arg_of(-EIO), NULL) == 0);
    if (num(arg) == 0)
        return 3;
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    SHOULD(mag_cancelled());
    SHOULD(mag_yield() == -ECANCELED); /* level-triggered */
    return num(arg) == 1 ? -ECANCELED : num(arg) == 2 ? 4 : -ENOSPC;
}

static int errors_cancel(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long way = 0; way < 4; way++) {
        count = n_begun = 0;
        SHOULD(in_group(one_fails, arg_of(way)) == (way == 3 ? -ENOSPC : -EIO));
        SHOULD(count == 40);
        SHOULD(!mag_cancelled());
    }
    return mag_yield();
}

Test(group, the_first_error_cancels_the_siblings_and_the_block)
{
    RUN_1_AND_4(errors_cancel, NULL);
}

/* What has not begun does not run. */
static int fails_before_they_begin(struct mag_group *g, void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++)
        SHOULD(add(g, counts, arg_of(1), NULL) == 0);
    return -EIO;
}

static int unbegun(void *arg, long *value)
{
    (void)arg, (void)value;
    count = n_begun = 0;
    SHOULD(in_group(fails_before_they_begin, NULL) == -EIO);
    SHOULD(count == 0);
    return 0;
}

Test(group, children_that_have_not_begun_do_not_run_after_a_stop)
{
    RUN(1, unbegun, NULL);
}

static int body_fails(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 40; i++)
        SHOULD(add(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(await_begun(40) == 0);
    return (int)num(arg);
}

static int body_errors(void *arg, long *value)
{
    (void)arg, (void)value;
    count = n_begun = 0;
    SHOULD(in_group(body_fails, arg_of(-EPIPE)) == -EPIPE);
    SHOULD(count == 40);
    SHOULD(in_group(body_fails, arg_of(-ECANCELED)) == -ECANCELED);
    SHOULD(count == 80);
    return 0;
}

Test(group, an_error_of_the_block_cancels_the_children)
{
    RUN_1_AND_4(body_errors, NULL);
}

static const struct mag_site here = { "here.c", 5, "here" }, there = { "there.c", 6, "there" };

static int two_fail(struct mag_group *g, void *arg)
{
    struct mag_spawn_options a = { .name = "a", .site = &here }, b = { .name = "b" };
    struct mag_group_error e[2];

    (void)arg;
    SHOULD(mag_group_errors(g, NULL, 0) == 0);
    SHOULD(mag_group_spawn(g, co(fails_with, arg_of(-EIO)), NULL, &a) == 0);
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    SHOULD(mag_group_errors(g, e, 2) == 1 && e[0].rc == -EIO);
    SHOULD(mag_group_spawn(g, co(fails_with, arg_of(-ENOSPC)), NULL, &b) == -ECANCELED);
    return -EPIPE;
}

static int lists(void *arg, long *value)
{
    struct mag_group_errors errors = { .n = 77 };
    struct mag_group_options options = { .errors = &errors, .site = &there };

    (void)arg, (void)value;
    SHOULD(in_group_with(&options, two_fail, NULL) == -EPIPE);
    SHOULD(errors.n == 2);
    SHOULD(errors.list[0].rc == -EIO && strcmp(errors.list[0].name, "a") == 0);
    SHOULD(errors.list[0].site == &here);
    SHOULD(errors.list[1].rc == -EPIPE && errors.list[1].site == &there);
    SHOULD(in_group_with(&options, does_nothing, NULL) == 0);
    SHOULD(errors.n == 0);
    return 0;
}

Test(group, errors_are_listed_with_name_and_site)
{
    RUN_1_AND_4(lists, NULL);
}

/* Fails when it is cancelled. */
static int fails_in_cleanup(void *arg, long *value)
{
    (void)begins_forever(value);
    return (int)num(arg);
}

static int many_fail(struct mag_group *g, void *arg)
{
    (void)arg;
    for (int i = 0; i < 40; i++)
        SHOULD(add(g, fails_in_cleanup, arg_of(-EIO), NULL) == 0);
    SHOULD(await_begun(40) == 0);
    return -ECANCELED;
}

static int many_errors(void *arg, long *value)
{
    struct mag_group_errors errors;
    struct mag_group_options options = { .errors = &errors };

    (void)arg, (void)value;
    SHOULD(in_group_with(&options, many_fail, NULL) == -EIO);
    SHOULD(errors.n == 40);
    for (int i = 0; i < MAG_GROUP_ERRORS_MAX; i++)
        SHOULD(errors.list[i].rc == -EIO && strcmp(errors.list[i].name, "co") == 0);
    return 0;
}

Test(group, more_errors_than_are_kept_are_counted)
{
    RUN_1_AND_4(many_errors, NULL);
}

static int raises(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_trace(-EIO, &here);
}

static int one_raises(struct mag_group *g, void *arg)
{
    struct co *c = co(raises, NULL);

    if (arg)
        return mag_group_task(g, c, NULL);
    return mag_group_spawn(g, c, NULL, NULL);
}

static int count_places(void)
{
    FILE *null = fopen("/dev/null", "w");
    int n = mag_trace_print(null);

    fclose(null);
    return n;
}

static int traces(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long way = 0; way < 2; way++) {
        SHOULD(in_group(one_raises, arg_of(way)) == -EIO);
        SHOULD(mag_trace(-EIO, &there) == -EIO);
        SHOULD(count_places() == 2);
        mag_trace_caught();
    }
    return 0;
}

Test(group, the_error_comes_with_the_childs_trace)
{
    RUN(1, traces, NULL);
}

/* ---- cancelled children ---------------------------------------------------------------- */

static int cancels_one(struct mag_group *g, void *arg)
{
    struct co *c = co(forever, NULL);

    (void)arg;
    SHOULD(mag_group_task(g, c, NULL) == 0);
    SHOULD(add(g, sleep_ns, arg_of(MAG_MS), &results[0]) == 0);
    SHOULD(mag_cancel(c) == 0);
    while (!mag_done(c))
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(add(g, same, arg_of(8), &results[1]) == 0);
    return 0;
}

static int cancelled_child(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(cancels_one, NULL) == 0);
    SHOULD(results[0] == MAG_MS && results[1] == 8);
    return 0;
}

Test(group, a_child_that_somebody_cancelled_is_no_error)
{
    RUN_1_AND_4(cancelled_child, NULL);
}

/* ---- the owner is cancelled ------------------------------------------------------------- */

static int sleeping_children(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 5; i++)
        SHOULD(add(g, counts_cancel, arg_of(1), NULL) == 0);
    return num(arg) ? mag_sleep(MAG_NEVER) : 0;
}

static int sleeping_owner(void *arg, long *value)
{
    (void)value;
    SHOULD(in_group(sleeping_children, arg) == -ECANCELED);
    SHOULD(mag_cancelled());
    return -ECANCELED;
}

static int cancels_owner(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long way = 0; way < 2; way++) {
        struct co *c = co(sleeping_owner, arg_of(way));
        count = n_begun = 0;
        SHOULD(mag_start(c, NULL) == 0);
        SHOULD(await_begun(5) == 0);
        SHOULD(!mag_done(c));
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
        SHOULD(count == 5);
    }
    return 0;
}

Test(group, a_cancel_of_the_owner_in_the_block_or_in_leave_stops_the_group)
{
    RUN_1_AND_4(cancels_owner, NULL);
}

/* The children end well although they were cancelled: results stand, the cancel is told. */
static int stubborn(void *arg, long *value)
{
    (void)arg;
    (void)begins_forever(value);
    *value = 3;
    return 0;
}

static int stubborn_children(struct mag_group *g, void *arg)
{
    (void)arg;
    return add(g, stubborn, NULL, &results[0]);
}

static int stubborn_owner(void *arg, long *value)
{
    (void)arg, (void)value;
    results[0] = 0;
    SHOULD(in_group(stubborn_children, NULL) == -ECANCELED);
    SHOULD(results[0] == 3);
    return 0;
}

static int cancels_stubborn(void *arg, long *value)
{
    struct co *c = go(stubborn_owner, NULL);

    (void)arg, (void)value;
    SHOULD(await_begun(1) == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == 0);
    return 0;
}

Test(group, results_of_a_cancelled_group_are_kept)
{
    RUN_1_AND_4(cancels_stubborn, NULL);
}

static int failing_cleanup(struct mag_group *g, void *arg)
{
    (void)arg;
    return add(g, fails_in_cleanup, arg_of(-EIO), NULL);
}

static int owner_of_failing_cleanup(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(failing_cleanup, NULL) == -EIO);
    return 0;
}

static int cancels_failing_cleanup(void *arg, long *value)
{
    struct co *c = go(owner_of_failing_cleanup, NULL);

    (void)arg, (void)value;
    SHOULD(await_begun(1) == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == 0);
    return 0;
}

Test(group, an_error_in_a_cancelled_childs_cleanup_is_not_lost)
{
    RUN_1_AND_4(cancels_failing_cleanup, NULL);
}

static int deadline_around(void *arg, long *value)
{
    struct mag_scope s;
    int rc;

    (void)value;
    count = n_begun = 0;
    SHOULD(mag_scope_enter(&s, mag_now() + 3 * MAG_MS, NULL) == 0);
    rc = in_group(sleeping_children, arg);
    SHOULD(rc == -ECANCELED);
    SHOULD(mag_scope_leave(&s, rc) == -ETIMEDOUT);
    SHOULD(count == n_begun);
    return mag_yield();
}

static int deadlines(void *arg, long *value)
{
    (void)arg;
    SHOULD(deadline_around(arg_of(0), value) == 0);
    SHOULD(deadline_around(arg_of(1), value) == 0);
    return 0;
}

Test(group, a_deadline_around_a_group_stops_it)
{
    RUN_1_AND_4(deadlines, NULL);
}

static int deadline_inside(struct mag_group *g, void *arg)
{
    struct mag_scope s;

    (void)arg;
    SHOULD(add(g, sleep_ns, arg_of(4 * MAG_MS), &results[0]) == 0);
    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, mag_sleep(MAG_NEVER)) == -ETIMEDOUT);
    return 0;
}

static int inside(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(deadline_inside, NULL) == 0);
    SHOULD(results[0] == 4 * MAG_MS);
    return 0;
}

Test(group, a_deadline_in_the_block_leaves_the_children_alone)
{
    RUN_1_AND_4(inside, NULL);
}

static int shielded_block(struct mag_group *g, void *arg)
{
    struct mag_scope s;
    int rc;

    (void)arg;
    SHOULD(add(g, fails_with, arg_of(-EIO), NULL) == 0);
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    rc = mag_scope_leave(&s, mag_sleep(3 * MAG_MS));
    SHOULD(rc == 0);
    return mag_sleep(MAG_NEVER);
}

static int shields(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(shielded_block, NULL) == -EIO);
    return 0;
}

Test(group, a_shield_in_the_block_holds_against_the_group)
{
    RUN_1_AND_4(shields, NULL);
}

/* ---- handles ------------------------------------------------------------------------------ */

static int awaits_handles(struct mag_group *g, void *arg)
{
    struct co *c[12];
    long v;

    (void)arg;
    for (int i = 0; i < 12; i++) {
        c[i] = co(i % 2 ? same_later : same, arg_of(i));
        SHOULD(mag_group_task(g, c[i], NULL) == 0);
    }
    SHOULD(await_co(c[11], &v) == 0 && v == 11); /* probably in place */
    while (!mag_done(c[0]))
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(await_co(c[0], &v) == 0 && v == 0);
    SHOULD(await_co(c[1], &v) == 0 && v == 1);
    SHOULD(mag_detach(c[2]) == 0);
    c[0] = co(same_later, arg_of(50));
    SHOULD(mag_group_task(g, c[0], NULL) == 0);
    SHOULD(mag_detach(c[0]) == 0);
    c[1] = co(forever, NULL);
    SHOULD(mag_group_task(g, c[1], NULL) == 0);
    SHOULD(mag_yield() == 0);
    SHOULD(mag_close(c[1]) == 0);
    c[1] = co(forever, NULL);
    SHOULD(mag_group_task(g, c[1], NULL) == 0);
    return mag_group_cancel(g);
}

static int handles(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(awaits_handles, NULL) == 0);
    return 0;
}

Test(group, handles_are_awaited_detached_closed_or_left_to_leave)
{
    RUN_1_AND_4(handles, NULL);
}

static int awaits_sibling(void *arg, long *value)
{
    return await_co(arg, value);
}

static int siblings(struct mag_group *g, void *arg)
{
    struct co *c = co(sleep_ns, arg_of(MAG_MS));

    (void)arg;
    SHOULD(mag_group_task(g, c, NULL) == 0);
    SHOULD(add(g, awaits_sibling, c, &results[0]) == 0);
    return 0;
}

static int sibling(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(siblings, NULL) == 0);
    SHOULD(results[0] == MAG_MS);
    return 0;
}

Test(group, a_child_may_await_a_siblings_handle)
{
    RUN_1_AND_4(sibling, NULL);
}

static int failing_handle(struct mag_group *g, void *arg)
{
    struct co *c = co(num(arg) & 1 ? fails_later : fails_with, arg_of(-EIO));
    int rc;

    SHOULD(mag_group_task(g, c, NULL) == 0);
    if (num(arg) & 2) {
        rc = await_co(c, NULL);
        SHOULD(rc == -EIO);
        return mag_sleep(MAG_NEVER); /* the group stops all the same */
    }
    return 0;
}

static int failing_handles(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long way = 0; way < 4; way++)
        SHOULD(in_group(failing_handle, arg_of(way)) == -EIO);
    return 0;
}

Test(group, a_failed_handle_stops_the_group_awaited_or_not)
{
    RUN_1_AND_4(failing_handles, NULL);
}

static int begins_after_stop(struct mag_group *g, void *arg)
{
    struct co *c = co(same, NULL), *d = co(same, NULL), *e = co(same, NULL);

    (void)arg;
    SHOULD(mag_group_cancel(g) == 0);
    SHOULD(mag_group_cancel(g) == 0);
    SHOULD(mag_group_spawn(g, e, NULL, NULL) == -ECANCELED);
    SHOULD(strcmp(mag_kind_name(e), "freed") == 0);
    SHOULD(mag_group_start(g, co(same, NULL), NULL, 0, NULL) == -ECANCELED);
    SHOULD(mag_group_task(g, c, NULL) == -ECANCELED);
    SHOULD(mag_done(c));
    SHOULD(await_co(c, NULL) == -ECANCELED); /* a handle all the same */
    SHOULD(mag_group_task(g, d, NULL) == -ECANCELED);
    return 0;
}

static int after_stop(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(begins_after_stop, NULL) == 0);
    return 0;
}

Test(group, nothing_begins_in_a_group_that_stops)
{
    RUN_1_AND_4(after_stop, NULL);
}

/* A server: the group does not grow with what has ended. */
static int serves(struct mag_group *g, void *arg)
{
    long warm = 0;

    (void)arg;
    for (long i = 0; i < 30000; i++) {
        struct co *c = co(same, arg_of(i));
        if (i == 1000)
            warm = (long)mag_mem_live();
        SHOULD(add(g, counts, arg_of(1), NULL) == 0);
        SHOULD(mag_group_task(g, c, NULL) == 0);
        SHOULD(await_co(c, NULL) == 0);
        SHOULD(mag_yield() == 0);
    }
    SHOULD((long)mag_mem_live() <= warm + 8);
    return 0;
}

static int server(void *arg, long *value)
{
    (void)arg, (void)value;
    return in_group(serves, NULL);
}

Test(group, a_group_does_not_grow)
{
    RUN(1, server, NULL);
}

/* ---- limits --------------------------------------------------------------------------------- */

static mag_atomic(int) n_now, n_most;

static int limited_child(void *arg, long *value)
{
    int n = mag_fetch_add(&n_now, 1) + 1, most = mag_load_relaxed(&n_most);

    (void)arg, (void)value;
    while (n > most && !mag_cas(&n_most, &most, n))
        ;
    n = num(arg) % 3 ? mag_yield() : mag_sleep(20 * MAG_US);
    mag_fetch_sub(&n_now, 1);
    return n;
}

static int limited_block(struct mag_group *g, void *arg)
{
    for (long i = 0; i < num(arg); i++)
        SHOULD(add(g, limited_child, arg_of(i), NULL) == 0);
    return 0;
}

static int limited(void *arg, long *value)
{
    (void)arg, (void)value;
    for (size_t limit = 1; limit < 6; limit++) {
        struct mag_group_options options = { .limit = limit };
        n_most = 0;
        SHOULD(in_group_with(&options, limited_block, arg_of(100)) == 0);
        SHOULD(n_now == 0 && n_most <= (int)limit);
        SHOULD(limit == 1 || n_most > 1);
    }
    return 0;
}

Test(group, at_most_so_many_at_a_time)
{
    RUN_1_AND_4(limited, NULL);
}

struct feed {
    struct mag_group *g;
    long n;
};

/* Begins others from elsewhere; what it is not to count itself. */
static int feeds(void *arg, long *value)
{
    struct feed *f = arg;

    (void)value;
    for (long i = 0; i < f->n; i++) {
        int rc = add(f->g, limited_child, arg_of(i), NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int fed_block(struct mag_group *g, void *arg)
{
    struct feed *f = arg;

    f->g = g;
    for (int i = 0; i < 4; i++)
        SHOULD(add(g, feeds, f, NULL) == 0);
    return 0;
}

static int fed(void *arg, long *value)
{
    struct mag_group_options options = { .limit = 7 };
    struct feed f = { .n = 50 };

    (void)arg, (void)value;
    n_most = 0;
    SHOULD(in_group_with(&options, fed_block, &f) == 0);
    SHOULD(n_now == 0 && n_most <= 7);
    return 0;
}

Test(group, a_limit_holds_for_children_that_begin_children)
{
    RUN_1_AND_4(fed, NULL);
}

static int full_block(struct mag_group *g, void *arg)
{
    int rc;

    SHOULD(add(g, counts_cancel, arg_of(1), NULL) == 0);
    if (num(arg) == 1)
        SHOULD(mag_group_task(g, co(fails_later, arg_of(-EIO)), NULL) == 0);
    rc = num(arg) == 1 ? 0 : add(g, counts_cancel, arg_of(1), NULL);
    SHOULD(rc == 0);
    rc = add(g, counts_cancel, arg_of(1), NULL); /* full: waits, until it is cancelled */
    SHOULD(rc == -ECANCELED);
    return rc;
}

static int full_owner(void *arg, long *value)
{
    struct mag_group_options options = { .limit = 2 };

    (void)value;
    return in_group_with(&options, full_block, arg);
}

static int fills(void *arg, long *value)
{
    struct co *c;

    (void)arg, (void)value;
    count = n_begun = 0;
    c = go(full_owner, arg_of(0)); /* cancelled from outside */
    SHOULD(await_begun(2) == 0);
    SHOULD(!mag_done(c) && mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    SHOULD(count == 2);
    count = n_begun = 0;
    SHOULD(full_owner(arg_of(1), NULL) == -EIO); /* stopped by a child */
    SHOULD(count == n_begun);
    return 0;
}

Test(group, who_waits_for_a_turn_can_be_cancelled)
{
    RUN_1_AND_4(fills, NULL);
}

/* Shielded, it waits although the group stops, and then is refused. */
static int shielded_turn(struct mag_group *g, void *arg)
{
    struct mag_scope s;
    int rc;

    (void)arg;
    SHOULD(add(g, fails_later, arg_of(-EIO), NULL) == 0);
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    rc = add(g, same, NULL, NULL);
    SHOULD(rc == -ECANCELED);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    return rc;
}

static int shielded_turns(void *arg, long *value)
{
    struct mag_group_options options = { .limit = 1 };

    (void)arg, (void)value;
    SHOULD(in_group_with(&options, shielded_turn, NULL) == -EIO);
    return 0;
}

Test(group, who_waits_for_a_turn_under_a_shield_is_refused_in_the_end)
{
    RUN_1_AND_4(shielded_turns, NULL);
}

/* Two under a shield wait: who is refused hands the turn on. */
static int waits_shielded(void *arg, long *value)
{
    struct mag_scope s;
    int rc;

    (void)value;
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(mag_sleep(MAG_MS) == 0);
    rc = add(arg, same, NULL, NULL);
    SHOULD(rc == 0 || rc == -ECANCELED);
    return mag_scope_leave(&s, 0);
}

static int fails_last(void *arg, long *value)
{
    int rc = mag_sleep(3 * MAG_MS);

    (void)arg, (void)value;
    return rc < 0 ? rc : -EIO;
}

static int two_shielded(struct mag_group *g, void *arg)
{
    struct mag_scope s;
    int rc;

    (void)arg;
    SHOULD(add(g, waits_shielded, g, NULL) == 0);
    SHOULD(add(g, fails_last, NULL, NULL) == 0);
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    rc = add(g, same, NULL, NULL);
    SHOULD(rc == 0 || rc == -ECANCELED);
    return mag_scope_leave(&s, 0);
}

static int two_turns(void *arg, long *value)
{
    struct mag_group_options options = { .limit = 2 };
    int rc;

    (void)arg, (void)value;
    rc = in_group_with(&options, two_shielded, NULL);
    SHOULD(rc == -EIO || rc == 0);
    return 0;
}

Test(group, who_is_refused_a_turn_hands_it_on)
{
    RUN_1_AND_4(two_turns, NULL);
}

/* ---- start and started ---------------------------------------------------------------------- */

static int starts(void *arg, long *value)
{
    long way = num(arg), port = 8080;
    int rc = way & 1 ? mag_yield() : 0;

    (void)value;
    if (rc < 0)
        return rc;
    if ((rc = mag_started(&port, sizeof port)) < 0)
        return rc;
    if (mag_started(&port, sizeof port) != -EALREADY)
        return -ENOTRECOVERABLE;
    return way & 2 ? mag_sleep(MAG_NEVER) : 0;
}

static int starts_all(struct mag_group *g, void *arg)
{
    (void)arg;
    for (long way = 0; way < 4; way++) {
        long port = 0;
        SHOULD(mag_group_start(g, co(starts, arg_of(way)), &port, sizeof port, NULL) == 0);
        SHOULD(port == 8080);
    }
    SHOULD(mag_group_start(g, co(starts, arg_of(1)), NULL, 0, NULL) == 0);
    return mag_group_cancel(g);
}

static int started(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(starts_all, NULL) == 0);
    return 0;
}

Test(group, start_returns_what_the_child_says)
{
    RUN_1_AND_4(started, NULL);
}

static int starts_in_vain(struct mag_group *g, void *arg)
{
    long v = 5;

    (void)arg;
    SHOULD(mag_group_start(g, co(same, arg_of(1)), &v, sizeof v, NULL) == -ENODATA);
    SHOULD(mag_group_start(g, co(same_later, arg_of(1)), &v, sizeof v, NULL) == -ENODATA);
    SHOULD(mag_group_start(g, co(fails_with, arg_of(-EIO)), &v, sizeof v, NULL) == -EIO);
    SHOULD(mag_group_start(g, co(fails_later, arg_of(-EPIPE)), &v, sizeof v, NULL) == -EPIPE);
    SHOULD(mag_group_start(g, mag_sleep_co(MAG_MS), NULL, 0, NULL) == -ENODATA);
    SHOULD(v == 5);
    SHOULD(mag_group_errors(g, NULL, 0) == 0); /* the starter's errors, not the group's */
    SHOULD(mag_yield() == 0);
    return 0;
}

static int in_vain(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(starts_in_vain, NULL) == 0);
    return 0;
}

Test(group, start_returns_the_end_of_a_child_that_did_not_start)
{
    RUN_1_AND_4(in_vain, NULL);
}

static int starts_then_fails(void *arg, long *value)
{
    int rc = mag_started(NULL, 0);

    (void)value;
    return rc < 0 ? rc : fails_later(arg, NULL);
}

static int starts_failing(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(mag_group_start(g, co(starts_then_fails, arg_of(-EIO)), NULL, 0, NULL) == 0);
    return mag_sleep(MAG_NEVER);
}

static int fails_after_start(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(starts_failing, NULL) == -EIO);
    return 0;
}

Test(group, after_its_start_a_child_is_like_others)
{
    RUN_1_AND_4(fails_after_start, NULL);
}

/* The start is cancelled: it returns when the child has ended. */
static int starts_never(void *arg, long *value)
{
    int rc = begins_forever(value);

    if (num(arg) == 1)
        SHOULD(mag_started(NULL, 0) == -ECANCELED);
    mag_fetch_add(&count, 1);
    return num(arg) == 2 ? -EIO : rc;
}

static int start_times_out(struct mag_group *g, void *arg)
{
    struct mag_scope s;
    int rc;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    rc = mag_group_start(g, co(starts_never, arg), NULL, 0, NULL);
    SHOULD(count == n_begun);
    rc = mag_scope_leave(&s, rc);
    SHOULD(rc == (num(arg) == 2 && n_begun ? -EIO : -ETIMEDOUT));
    return mag_yield();
}

static int start_timeouts(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long way = 0; way < 3; way++) {
        count = n_begun = 0;
        SHOULD(in_group(start_times_out, arg_of(way)) == 0);
    }
    return 0;
}

Test(group, a_cancelled_start_cancels_the_child_and_waits_for_it)
{
    RUN_1_AND_4(start_timeouts, NULL);
}

static int starts_and_fails(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(add(g, fails_later, arg_of(-EIO), NULL) == 0);
    return mag_group_start(g, co(starts_never, NULL), NULL, 0, NULL);
}

static int start_stops(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(starts_and_fails, NULL) == -EIO);
    return 0;
}

Test(group, a_start_ends_when_the_group_stops)
{
    RUN_1_AND_4(start_stops, NULL);
}

static int starts_below(void *arg, long *value)
{
    int rc = await_co(co(starts, arg), NULL); /* in place, or not */

    (void)value;
    return rc;
}

static int says_wrong_size(void *arg, long *value)
{
    char c = 1;

    (void)arg, (void)value;
    SHOULD(mag_started(&c, 1) == -EINVAL);
    return -EBADMSG;
}

static int starts_oddly(struct mag_group *g, void *arg)
{
    long port = 0;

    (void)arg;
    SHOULD(mag_started(&port, sizeof port) == -ENXIO);
    SHOULD(mag_group_start(g, co(starts_below, NULL), &port, sizeof port, NULL) == 0);
    SHOULD(port == 8080);
    SHOULD(mag_group_start(g, co(says_wrong_size, NULL), &port, sizeof port, NULL) == -EBADMSG);
    SHOULD(add(g, starts, NULL, NULL) == 0); /* -ENXIO there */
    return 0;
}

static int oddly(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(starts_oddly, NULL) == -ENXIO);
    return 0;
}

Test(group, started_is_for_who_was_begun_by_start)
{
    RUN_1_AND_4(oddly, NULL);
    cr_assert_eq(mag_started(NULL, 0), -ENXIO);
}

static int limited_starts(struct mag_group *g, void *arg)
{
    long port = 0;

    (void)arg;
    for (int i = 0; i < 10; i++) {
        SHOULD(mag_group_start(g, co(starts, arg_of(i & 1)), &port, sizeof port, NULL) == 0);
        SHOULD(mag_group_start(g, co(same, NULL), &port, sizeof port, NULL) == -ENODATA);
    }
    return 0;
}

static int limit_and_start(void *arg, long *value)
{
    struct mag_group_options options = { .limit = 1 };

    (void)arg, (void)value;
    SHOULD(in_group_with(&options, limited_starts, NULL) == 0);
    return 0;
}

Test(group, starts_count_for_the_limit)
{
    RUN_1_AND_4(limit_and_start, NULL);
}

/* ---- cancelling a group --------------------------------------------------------------------- */

static struct mag_group *the_group;

static int cancels_group(void *arg, long *value)
{
    int rc = num(arg) ? mag_sleep(num(arg)) : 0;

    (void)value;
    return rc < 0 ? rc : mag_group_cancel(the_group);
}

static int cancelled_block(struct mag_group *g, void *arg)
{
    int rc;

    the_group = g;
    for (int i = 0; i < 10; i++)
        SHOULD(add(g, counts_cancel, arg_of(1), NULL) == 0);
    SHOULD(await_begun(10) == 0);
    switch (num(arg)) {
    case 0: /* by the owner: at once */
        SHOULD(mag_group_cancel(g) == 0);
        SHOULD(mag_cancelled());
        return mag_yield();
    case 1: /* by a child, the owner sleeps */
        SHOULD(add(g, cancels_group, arg_of(MAG_MS), NULL) == 0);
        return mag_sleep(MAG_NEVER);
    case 2: /* by a child, the owner is in leave */
        SHOULD(add(g, cancels_group, arg_of(MAG_MS), NULL) == 0);
        return 6;
    case 3: /* by a coroutine in place */
        SHOULD(await_co(co(cancels_group, NULL), NULL) == 0);
        return mag_yield();
    default: /* and an error of a child */
        SHOULD(add(g, fails_in_cleanup, arg_of(-EIO), NULL) == 0);
        SHOULD(await_begun(1) == 0);
        rc = mag_group_cancel(g);
        SHOULD(rc == 0);
        return mag_yield();
    }
}

static int cancelled_groups(void *arg, long *value)
{
    static const int expected[] = { 0, 0, 6, 0, -EIO };

    (void)arg, (void)value;
    for (long way = 0; way < 5; way++) {
        count = n_begun = 0;
        SHOULD(in_group(cancelled_block, arg_of(way)) == expected[way]);
        SHOULD(count == 10);
        SHOULD(mag_yield() == 0);
    }
    return 0;
}

Test(group, a_cancelled_group_ends_without_an_error)
{
    RUN_1_AND_4(cancelled_groups, NULL);
}

static int cancelled_twice(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_cancel(mag_self()) == 0);
    SHOULD(in_group(begins_after_stop, NULL) == 0); /* never suspends: nothing is lost */
    SHOULD(in_group(cancelled_block, arg_of(0)) == -ENOTRECOVERABLE);
    return 0;
}

static int cancelled_both(void *arg, long *value)
{
    struct co *c = go(cancelled_twice, NULL);

    (void)arg, (void)value;
    SHOULD(await_co(c, NULL) == 0);
    return 0;
}

Test(group, a_cancel_of_the_group_does_not_hide_one_of_the_task)
{
    RUN_1_AND_4(cancelled_both, NULL);
}

static int cancels_both(struct mag_group *g, void *arg)
{
    (void)arg;
    SHOULD(mag_group_cancel(g) == 0);
    SHOULD(mag_cancel(mag_self()) == 0);
    return mag_yield();
}

static int both_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(cancels_both, NULL) == -ECANCELED);
    return 0;
}

static int runs_both(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(await_co(go(both_cancelled, NULL), NULL) == 0);
    return 0;
}

Test(group, leave_tells_a_cancel_of_the_task_beside_one_of_the_group)
{
    RUN_1_AND_4(runs_both, NULL);
}

/* The stop is asked for, and its message has not come yet. */
static int refused_before_message(struct mag_group *g, void *arg)
{
    (void)arg;
    the_group = g;
    SHOULD(add(g, cancels_group, NULL, NULL) == 0);
    SHOULD(mag_yield() == 0);
    SHOULD(add(g, same, NULL, NULL) == -ECANCELED);
    SHOULD(mag_cancelled());
    return -ECANCELED;
}

static int refused(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(refused_before_message, NULL) == 0);
    return 0;
}

Test(group, an_owner_that_is_refused_a_child_is_cancelled)
{
    RUN(1, refused, NULL);
}

/* ---- cancel at each suspension ----------------------------------------------------------------- */

static mag_atomic(long) n_open;

static int opens(void *arg, long *value)
{
    int rc;

    mag_fetch_add(&n_open, 1);
    *value = num(arg);
    rc = mag_yield();
    if (rc == 0)
        rc = mag_sleep(20 * MAG_US);
    mag_fetch_sub(&n_open, 1);
    return rc;
}

static int serves_once(void *arg, long *value)
{
    int rc = mag_yield();

    (void)arg, (void)value;
    if (rc == 0)
        rc = mag_started(NULL, 0);
    return rc < 0 ? rc : opens(arg, value);
}

static int scenario_block(struct mag_group *g, void *arg)
{
    struct co *c = co(opens, arg_of(9));
    long v;
    int rc = mag_group_task(g, c, NULL);

    (void)arg;
    for (long i = 0; i < 4 && rc == 0; i++) {
        nth_point();
        rc = add(g, opens, arg_of(i), &results[i]);
    }
    if (rc < 0)
        return rc;
    nth_point();
    rc = mag_group_start(g, co(serves_once, NULL), NULL, 0, NULL);
    if (rc < 0)
        return rc;
    nth_point();
    rc = await_co(c, &v);
    if (rc < 0)
        return rc;
    SHOULD(v == 9);
    nth_point();
    return 0;
}

static int scenario(void *arg, long *value)
{
    struct mag_group_options options = { .limit = (size_t)num(arg) };

    (void)value;
    return in_group_with(&options, scenario_block, NULL);
}

static int scenario_holds(void *arg, int rc)
{
    (void)arg;
    SHOULD(n_open == 0);
    SHOULD(rc == 0 || rc == -ECANCELED);
    for (long i = 0; i < 4; i++) {
        SHOULD(rc != 0 || results[i] == i);
        results[i] = -1;
    }
    return 0;
}

static int each_suspension(void *arg, long *value)
{
    (void)value;
    return nth_cancel(scenario, arg, scenario_holds);
}

Test(group, cancelled_at_each_suspension)
{
    RUN_1_AND_4(each_suspension, arg_of(0));
    RUN_1_AND_4(each_suspension, arg_of(3));
}

/* ---- at the same instant -------------------------------------------------------------------------- */

static int fails_at(void *arg, long *value)
{
    int rc = mag_sleep_until(*(mag_time *)arg);

    (void)value;
    return rc < 0 ? rc : -EIO;
}

static int same_instant(struct mag_group *g, void *arg)
{
    for (int i = 0; i < 4; i++) {
        int rc = add(g, fails_at, arg, NULL);
        SHOULD(rc == 0 || rc == -ECANCELED); /* on a busy machine one has failed already */
    }
    return mag_sleep_until(*(mag_time *)arg);
}

/* Children fail when a timeout fires, the block ends, and the owner is cancelled. */
static int instants(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 40; i++) {
        mag_time at = mag_now() + 100 * MAG_US;
        struct mag_scope s;
        int rc;
        SHOULD(mag_scope_enter(&s, at, NULL) == 0);
        rc = mag_scope_leave(&s, in_group(same_instant, &at));
        SHOULD(rc == -EIO || rc == -ETIMEDOUT);
        SHOULD(mag_yield() == 0);
    }
    return 0;
}

Test(group, errors_and_a_timeout_at_the_same_instant)
{
    RUN_1_AND_4(instants, NULL);
}

/* ---- misuse ---------------------------------------------------------------------------------------- */

Test(group, outside_a_task)
{
    struct mag_group g;

    cr_assert_eq(mag_group_enter(&g, NULL), -ENXIO);
    memset(&g, 0, sizeof g);
    cr_assert_eq(mag_group_spawn(&g, co(same, NULL), NULL, NULL), -ENXIO);
    cr_assert_eq(mag_group_leave(&g, 0), -EINVAL);
    cr_assert_eq(mag_group_cancel(&g), -EINVAL);
}

static int after_its_end(void *arg, long *value)
{
    struct mag_group g, copy;
    struct co *c = co(same, NULL);

    (void)arg, (void)value;
    SHOULD(mag_group_enter(&g, NULL) == 0);
    memcpy(&copy, &g, sizeof g);
    SHOULD(mag_group_leave(&copy, 0) == -EINVAL); /* a group is where it was entered */
    SHOULD(mag_group_leave(&g, 0) == 0);
    SHOULD(mag_group_leave(&g, 0) == -EINVAL);
    SHOULD(mag_group_cancel(&g) == -EINVAL);
    SHOULD(mag_group_errors(&g, NULL, 0) == -EINVAL);
    SHOULD(mag_group_spawn(&g, co(same, NULL), NULL, NULL) == -EINVAL);
    SHOULD(mag_group_start(&g, co(same, NULL), NULL, 0, NULL) == -EINVAL);
    SHOULD(mag_group_task(&g, c, NULL) == -EINVAL);
    SHOULD(await_co(c, NULL) == -EINVAL);
    return 0;
}

Test(group, after_its_end)
{
    RUN_1_AND_4(after_its_end, NULL);
}

static int leaves_the_group(void *arg, long *value)
{
    (void)value;
    return mag_group_leave(arg, 0) == -EPERM ? 0 : -ENOTRECOVERABLE;
}

static int wrong_leave(struct mag_group *g, void *arg)
{
    struct mag_group inner;
    struct mag_scope s;

    (void)arg;
    SHOULD(add(g, leaves_the_group, g, NULL) == 0);
    SHOULD(await_co(co(leaves_the_group, g), NULL) == 0);
    SHOULD(mag_group_enter(&inner, NULL) == 0);
    SHOULD(mag_group_leave(g, 0) == -EPERM);
    SHOULD(mag_group_leave(&inner, 0) == 0);
    SHOULD(mag_scope_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(mag_group_leave(g, 0) == -EPERM);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    return 0;
}

static int wrong_leaves(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(wrong_leave, NULL) == 0);
    return 0;
}

Test(group, left_by_another_or_out_of_order)
{
    RUN_1_AND_4(wrong_leaves, NULL);
}

static int used_before(struct mag_group *g, void *arg)
{
    struct co *c = go(same_later, NULL), *d = co(same, NULL);

    (void)arg;
    SHOULD(mag_group_spawn(g, c, NULL, NULL) == -EALREADY);
    SHOULD(mag_group_task(g, c, NULL) == -EALREADY);
    SHOULD(mag_group_start(g, c, NULL, 0, NULL) == -EALREADY);
    SHOULD(await_co(c, NULL) == 0);
    SHOULD(mag_group_task(g, d, NULL) == 0);
    SHOULD(await_co(d, NULL) == 0);
    SHOULD(mag_group_spawn(g, d, NULL, NULL) == -EALREADY);
    return 0;
}

static int used_befores(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(in_group(used_before, NULL) == 0);
    return 0;
}

Test(group, what_was_used_before)
{
    RUN_1_AND_4(used_befores, NULL);
}
