/* SPDX-License-Identifier: MIT */
/* scope.c - what fires, what is seen of it from where, and who explains the error */
#include "body.h"

#include <criterion/criterion.h>

TestSuite(scope, .timeout = 60);

#define LONG (3600 * MAG_SECOND)

static mag_time after(mag_time duration)
{
    return mag_now() + duration;
}

/* ---- deadlines --------------------------------------------------------------------------- */

static int passes(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, after(5 * MAG_MS), NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_sleep(0) == -ECANCELED); /* level-triggered */
    SHOULD(mag_yield() == -ECANCELED);
    SHOULD(mag_checkpoint() == -ECANCELED && mag_cancelled());
    SHOULD(mag_scope_expired(&s));
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    SHOULD(!mag_cancelled() && mag_sleep(1) == 0);
    return 0;
}

Test(scope, a_deadline_that_passes_fails_every_suspension_until_it_is_left)
{
    cr_assert_eq(run_rc(2, passes, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int in_time(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, after(LONG), NULL) == 0);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(!mag_scope_expired(&s));
    SHOULD(mag_scope_leave(&s, 7) == 7);
    SHOULD(mag_scope_enter(&s, after(LONG), NULL) == 0);
    SHOULD(mag_scope_leave(&s, -EIO) == -EIO);
    return 0;
}

Test(scope, one_that_does_not_fire_changes_nothing)
{
    cr_assert_eq(run_rc(2, in_time, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int late_leave(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, after(MAG_MS), NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, 3) == 3); /* a result that has arrived stays */
    return 0;
}

Test(scope, a_result_is_never_replaced)
{
    cr_assert_eq(run_rc(2, late_leave, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int in_the_past(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, 1, NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    SHOULD(mag_scope_enter(&s, 1, NULL) == 0);
    SHOULD(mag_checkpoint() == -ECANCELED); /* without any suspension */
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

Test(scope, a_deadline_in_the_past_fires_at_the_first_suspension)
{
    cr_assert_eq(run_rc(2, in_the_past, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

/* The timer that the inner scope has armed fires after it is gone, and must do no harm. */
static int left_early(void *arg, long *value)
{
    struct mag_scope outer, inner;
    mag_time inner_at, outer_at;
    bool is_late = true;

    (void)arg, (void)value;
    while (is_late) { /* what is to come before a deadline: again, on a machine that stalls */
        inner_at = after(10 * MAG_MS);
        outer_at = after(40 * MAG_MS);
        SHOULD(mag_scope_enter(&outer, outer_at, NULL) == 0);
        SHOULD(mag_scope_enter(&inner, inner_at, NULL) == 0);
        SHOULD(mag_sleep(MAG_MS) == 0 || mag_now() >= inner_at);
        is_late = mag_now() >= inner_at;
        SHOULD(mag_scope_leave(&inner, 0) == 0);
        SHOULD(mag_sleep(20 * MAG_MS) == 0 || mag_now() >= outer_at);
        is_late |= mag_now() >= outer_at;
        SHOULD(is_late || !mag_scope_expired(&inner));
        SHOULD(mag_sleep(LONG) == -ECANCELED);
        SHOULD(mag_scope_leave(&outer, -ECANCELED) == -ETIMEDOUT);
    }
    return 0;
}

Test(scope, the_timer_of_a_scope_that_was_left_goes_on_for_the_outer_one)
{
    cr_assert_eq(run_rc(2, left_early, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int postponed(void *arg, long *value)
{
    struct mag_scope s;
    mag_time begun;
    int rc;

    (void)arg, (void)value;
    for (;;) { /* again, if it has fired before */
        begun = mag_now();
        SHOULD(mag_scope_enter(&s, begun + 5 * MAG_MS, NULL) == 0);
        rc = mag_sleep(MAG_MS);
        if (rc == 0)
            rc = mag_scope_reschedule(&s, begun + 30 * MAG_MS);
        if (rc == 0)
            break;
        SHOULD(mag_now() >= begun + 5 * MAG_MS && mag_scope_leave(&s, 0) == 0);
    }
    SHOULD(mag_scope_when(&s) == begun + 30 * MAG_MS);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_now() >= begun + 30 * MAG_MS);
    SHOULD(mag_scope_reschedule(&s, after(LONG)) == -EPERM);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

Test(scope, can_be_rescheduled_until_it_has_fired)
{
    cr_assert_eq(run_rc(2, postponed, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int brought_forward(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, after(LONG), NULL) == 0);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_reschedule(&s, after(2 * MAG_MS)) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

Test(scope, can_be_rescheduled_to_an_earlier_time)
{
    cr_assert_eq(run_rc(2, brought_forward, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

/* ---- nesting ------------------------------------------------------------------------------ */

static int inner_fires(void *arg, long *value)
{
    struct mag_scope outer, inner;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&outer, after(LONG), NULL) == 0);
    SHOULD(mag_scope_enter(&inner, after(2 * MAG_MS), NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_scope_leave(&inner, -ECANCELED) == -ETIMEDOUT);
    SHOULD(mag_sleep(1) == 0);
    SHOULD(mag_scope_leave(&outer, -ETIMEDOUT) == -ETIMEDOUT);
    return 0;
}

Test(scope, the_inner_one_fires_alone)
{
    cr_assert_eq(run_rc(2, inner_fires, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int outer_fires(void *arg, long *value)
{
    struct mag_scope outer, inner;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&outer, after(2 * MAG_MS), NULL) == 0);
    SHOULD(mag_scope_enter(&inner, after(LONG), NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_scope_leave(&inner, -ECANCELED) == -ECANCELED); /* not its own */
    SHOULD(mag_sleep(1) == -ECANCELED);
    SHOULD(mag_scope_leave(&outer, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

Test(scope, the_outer_ones_error_is_not_the_inner_ones_to_explain)
{
    cr_assert_eq(run_rc(2, outer_fires, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int by_duration(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_timeout_enter(&s, -1, NULL) == -EINVAL);
    SHOULD(mag_timeout_enter(&s, MAG_NEVER, NULL) == 0 && mag_scope_when(&s) == MAG_NEVER);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    SHOULD(mag_timeout_enter(&s, 2 * MAG_MS, NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

Test(scope, can_be_entered_with_a_duration)
{
    cr_assert_eq(run_rc(2, by_duration, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

static int wrong_order(void *arg, long *value)
{
    struct mag_scope a, b;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&a, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_enter(&b, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_leave(&a, 0) == -EPERM);
    SHOULD(mag_scope_leave(&b, 0) == 0);
    SHOULD(mag_scope_leave(&b, 0) == -EPERM);
    SHOULD(mag_scope_leave(&a, 0) == 0);
    return 0;
}

Test(scope, is_left_in_reverse_order)
{
    cr_assert_eq(run_rc(2, wrong_order, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

Test(scope, belongs_to_a_task)
{
    struct mag_scope s;

    cr_assert_eq(mag_scope_enter(&s, MAG_NEVER, NULL), -ENXIO);
    cr_assert_eq(mag_shield_enter(&s, MAG_NEVER, NULL), -ENXIO);
    cr_assert_eq(mag_checkpoint(), 0);
    cr_assert_not(mag_cancelled());
}

static int forgets(void *arg, long *value)
{
    static struct mag_scope s; /* outlives the body */

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, after(MAG_MS), NULL) == 0);
    (void)mag_sleep(LONG);
    return 0;
}

static int calls_who_forgets(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(await_co(co(forgets, NULL), NULL) == 0);
    SHOULD(mag_sleep(1) == 0);
    return 0;
}

Test(scope, that_was_not_left_goes_with_its_body)
{
    cr_assert_eq(run_rc(2, calls_who_forgets, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

/* ---- cancellation and shields ------------------------------------------------------------------ */

static int cancels_itself(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_cancel(&s) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(!mag_scope_expired(&s));
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ECANCELED);
    SHOULD(mag_sleep(1) == 0);
    return 0;
}

Test(scope, can_be_cancelled_from_inside)
{
    cr_assert_eq(run_rc(2, cancels_itself, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

/* One that is cancelled before it has begun never begins. */
static mag_atomic(uint32_t) has_begun;

static int until_begun(void)
{
    while (!mag_load_acquire(&has_begun))
        SHOULD(mag_sleep(100 * MAG_US) == 0);
    return 0;
}

static int cleans_up(void *arg, long *value)
{
    struct mag_scope s, inner;
    int *step = arg;

    (void)value;
    mag_store_release(&has_begun, 1);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(!mag_cancelled() && mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_enter(&inner, after(MAG_MS), NULL) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED); /* scopes inside a shield work */
    SHOULD(mag_scope_leave(&inner, -ECANCELED) == -ETIMEDOUT);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    SHOULD(mag_cancelled() && mag_sleep(0) == -ECANCELED);
    *step = 1;
    return -ECANCELED;
}

static int cancels_who_cleans_up(void *arg, long *value)
{
    struct co *task = go(cleans_up, arg);

    (void)value;
    SHOULD(task != NULL);
    SHOULD(until_begun() == 0 && mag_sleep(MAG_MS) == 0);
    SHOULD(mag_cancel(task) == 0);
    SHOULD(await_co(task, NULL) == -ECANCELED);
    return 0;
}

Test(scope, a_shield_hides_a_cancel_until_it_is_left)
{
    int step = 0;

    cr_assert_eq(run_rc(2, cancels_who_cleans_up, &step), 0, "line %d: %s", broken_line,
                 broken_claim);
    cr_assert_eq(step, 1, "line %d: %s", broken_line, broken_claim);
}

/* A cancel that comes while the task is in the shield is not lost either. */
static int shielded_sleeper(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    mag_store_release(&has_begun, 1);
    SHOULD(mag_sleep(20 * MAG_MS) == 0);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    return 0;
}

static int cancels_during_shield(void *arg, long *value)
{
    struct co *task = go(shielded_sleeper, NULL);

    (void)arg, (void)value;
    SHOULD(task != NULL);
    SHOULD(until_begun() == 0 && mag_sleep(5 * MAG_MS) == 0);
    SHOULD(mag_cancel(task) == 0);
    SHOULD(await_co(task, NULL) == 0);
    return 0;
}

Test(scope, a_cancel_during_a_shield_takes_effect_after_it)
{
    cr_assert_eq(run_rc(2, cancels_during_shield, NULL), 0, "line %d: %s", broken_line,
                 broken_claim);
}

static int with_grace(void *arg, long *value)
{
    struct mag_scope s, shield;
    mag_time begun;

    (void)arg, (void)value;
    for (;;) { /* again, if a stall was longer than the grace */
        begun = mag_now();
        SHOULD(mag_scope_enter(&s, begun, NULL) == 0);
        SHOULD(mag_shield_enter(&shield, 20 * MAG_MS, NULL) == 0);
        if (mag_sleep(5 * MAG_MS) == 0)
            break;
        SHOULD(mag_now() - begun >= 20 * MAG_MS);
        SHOULD(mag_scope_leave(&shield, 0) == 0 && mag_scope_leave(&s, 0) == 0);
    }
    SHOULD(mag_sleep(LONG) == -ECANCELED); /* the grace is over */
    SHOULD(mag_now() - begun >= 20 * MAG_MS);
    SHOULD(mag_scope_leave(&shield, -ECANCELED) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    SHOULD(mag_shield_enter(&shield, 5 * MAG_MS, NULL) == 0);
    SHOULD(mag_sleep(15 * MAG_MS) == 0); /* a grace without a cancel ends nothing */
    SHOULD(mag_scope_leave(&shield, 0) == 0);
    SHOULD(mag_shield_enter(&shield, -1, NULL) == -EINVAL);
    return 0;
}

Test(scope, a_shield_with_grace_is_lifted)
{
    cr_assert_eq(run_rc(2, with_grace, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

/* ---- errors on their way out ------------------------------------------------------------------- */

static int raises(void *arg, long *value)
{
    static const struct mag_site here = { __FILE__, __LINE__, "here" };
    static const struct mag_site there = { __FILE__, __LINE__, "there" };
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, 1, &here) == 0);
    SHOULD(mag_raise(-ECANCELED, &here) == -ECANCELED); /* it has not fired */
    SHOULD(mag_sleep(LONG) == -ECANCELED);
    SHOULD(mag_raise(-ECANCELED, &there) == -ECANCELED); /* another function's scope */
    SHOULD(mag_raise(-EIO, &here) == -EIO);
    SHOULD(mag_raise(-ECANCELED, &here) == -ETIMEDOUT);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    mag_trace_caught();
    return 0;
}

Test(scope, an_error_that_leaves_its_function_is_explained)
{
    cr_assert_eq(run_rc(2, raises, NULL), 0, "line %d: %s", broken_line, broken_claim);
}

/* The scope of the awaiter is seen by what it awaits, in place or as a task. */
static int awaits_under_a_deadline(void *arg, long *value)
{
    struct mag_scope s;
    struct co *task;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, after(2 * MAG_MS), NULL) == 0);
    SHOULD(await_co(co(forever, NULL), NULL) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    task = go(forever, NULL);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_enter(&s, after(2 * MAG_MS), NULL) == 0);
    SHOULD(await_co(task, NULL) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

Test(scope, reaches_what_is_awaited_inside)
{
    cr_assert_eq(run_rc(2, awaits_under_a_deadline, NULL), 0, "line %d: %s", broken_line,
                 broken_claim);
}
