/* SPDX-License-Identifier: MIT */
/* timeouts.c - what CPython's suite pins for asyncio.timeout, timeout_at and wait_for
 * (test_timeouts.py, test_waitfor.py) */
#include "nth_cancel.h"
#include "waiters.h"

#include <magpie/async.h>

#include <criterion/criterion.h>

TestSuite(timeouts, .timeout = 60);

enum { LONG = 3600 };

/* Keeps the worker busy until then. */
static void spin_until(mag_time when)
{
    while (mag_now() < when)
        continue;
}

static int long_sleep(void)
{
    return mag_sleep(LONG * MAG_SECOND);
}

/* ---- timeout --------------------------------------------------------------------------- */

static int sleeps_in_timeout(struct mag_scope *s)
{
    with_timeout (MAG_MS, s) {
        await(long_sleep());
    }
    return 0;
}

ON_1_AND_4(timeouts, what_takes_too_long_ends_with_a_timeout)
{
    struct mag_scope s;

    SHOULD(sleeps_in_timeout(&s) == -ETIMEDOUT);
    SHOULD(mag_scope_expired(&s));
    return 0;
}

ON_1_AND_4(timeouts, a_deadline_is_kept_and_can_be_asked)
{
    mag_time deadline = mag_now() + 2 * MAG_MS;
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, deadline, NULL) == 0);
    SHOULD(mag_scope_when(&s) == deadline);
    SHOULD(mag_scope_leave(&s, long_sleep()) == -ETIMEDOUT);
    SHOULD(mag_now() >= deadline && mag_scope_expired(&s));
    SHOULD(mag_scope_when(&s) == deadline);
    return 0;
}

ON_1_AND_4(timeouts, inside_it_is_a_cancellation)
{
    struct mag_scope s;
    int rc;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    rc = long_sleep();
    SHOULD(rc == -ECANCELED && mag_cancelled());
    SHOULD(mag_scope_leave(&s, rc) == -ETIMEDOUT && !mag_cancelled());
    return 0;
}

ON_1_AND_4(timeouts, a_timeout_that_is_not_needed_does_nothing)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + LONG * MAG_SECOND, NULL) == 0);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_leave(&s, 0) == 0 && !mag_scope_expired(&s));
    SHOULD(mag_scope_when(&s) > mag_now());
    return 0;
}

ON_1_AND_4(timeouts, never_is_no_limit)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, MAG_NEVER, NULL) == 0 && mag_scope_when(&s) == MAG_NEVER);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_leave(&s, 0) == 0 && !mag_scope_expired(&s));
    with_timeout (MAG_NEVER) {
        await(mag_sleep(MAG_MS));
    }
    return 0;
}

static int zero_timeout(mag_time sleep)
{
    with_timeout (0) {
        await(mag_sleep(sleep));
    }
    return 0;
}

ON_1_AND_4(timeouts, a_timeout_of_zero_is_over_at_the_first_suspension)
{
    SHOULD(zero_timeout(LONG * MAG_SECOND) == -ETIMEDOUT);
    SHOULD(zero_timeout(0) == -ETIMEDOUT);
    return 0;
}

static int past_deadline(struct mag_scope *s)
{
    timeout_at (mag_now() - 11 * MAG_SECOND, s) {
        await(mag_yield());
    }
    return 0;
}

ON_1_AND_4(timeouts, a_deadline_in_the_past_is_over_at_the_first_suspension)
{
    struct mag_scope s;

    SHOULD(past_deadline(&s) == -ETIMEDOUT && mag_scope_expired(&s));
    return 0;
}

static int negative_timeout(void)
{
    with_timeout (-1) {
        return -EPROTO;
    }
    return 0;
}

ON_1(timeouts, a_negative_duration_is_refused)
{
    SHOULD(negative_timeout() == -EINVAL);
    SHOULD(!mag_cancelled());
    return 0;
}

Test(timeouts, there_is_none_outside_a_task)
{
    struct mag_scope s;

    cr_assert_eq(mag_scope_enter(&s, MAG_NEVER, NULL), -ENXIO);
}

ON_1_AND_4(timeouts, what_has_no_suspension_is_not_stopped)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + 100 * MAG_US, NULL) == 0);
    spin_until(mag_now() + MAG_MS);
    SHOULD(mag_scope_leave(&s, 5) == 5);
    return 0;
}

ON_1_AND_4(timeouts, a_checkpoint_sees_the_deadline)
{
    struct mag_scope s;
    int rc;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    while ((rc = mag_checkpoint()) == 0)
        continue;
    SHOULD(rc == -ECANCELED && mag_scope_leave(&s, rc) == -ETIMEDOUT);
    return 0;
}

/* ---- other errors ------------------------------------------------------------------------- */

ON_1_AND_4(timeouts, another_error_passes)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, -EIO) == -EIO && !mag_scope_expired(&s));
    return 0;
}

ON_1_AND_4(timeouts, another_error_on_the_way_out_passes)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(long_sleep() == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -EDOM) == -EDOM && mag_scope_expired(&s));
    return 0;
}

/* A task: cancels itself inside a timeout that has not passed. */
static int cancels_itself(void *unused)
{
    struct mag_scope s;
    int rc;

    (void)unused;
    SHOULD(mag_scope_enter(&s, mag_now() + LONG * MAG_SECOND, NULL) == 0);
    SHOULD(mag_cancel(mag_self()) == 0);
    rc = mag_scope_leave(&s, long_sleep());
    SHOULD(!mag_scope_expired(&s));
    return rc;
}

ON_1_AND_4(timeouts, a_cancel_from_outside_is_no_timeout)
{
    SHOULD(end_of(begin_as(1, cancels_itself, NULL)) == -ECANCELED);
    return 0;
}

ON_1_AND_4(timeouts, the_task_is_not_cancelled_by_a_timeout_in_it)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, long_sleep()) == -ETIMEDOUT);
    SHOULD(!mag_cancelled() && mag_sleep(MAG_MS) == 0 && mag_checkpoint() == 0);
    return 0;
}

/* A cancelled task stays so: its timeout explains nothing. */
static int cancelled_then_late(void *unused)
{
    struct mag_scope s;
    int rc;

    (void)unused;
    SHOULD(mag_cancel(mag_self()) == 0);
    SHOULD(mag_scope_enter(&s, mag_now() - 1, NULL) == 0);
    rc = long_sleep();
    return mag_scope_leave(&s, rc);
}

ON_1_AND_4(timeouts, a_timeout_in_a_cancelled_task_is_a_cancellation)
{
    SHOULD(end_of(begin_as(1, cancelled_then_late, NULL)) == -ECANCELED);
    return 0;
}

/* ---- nested ---------------------------------------------------------------------------------- */

ON_1_AND_4(timeouts, of_two_with_one_deadline_the_outer_one_tells)
{
    mag_time deadline = mag_now() + MAG_MS;
    struct mag_scope outer, inner;
    int rc;

    SHOULD(mag_scope_enter(&outer, deadline, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, deadline, NULL) == 0);
    rc = mag_scope_leave(&inner, long_sleep());
    SHOULD(rc == -ECANCELED);
    SHOULD(mag_scope_leave(&outer, rc) == -ETIMEDOUT);
    SHOULD(mag_scope_expired(&outer) && mag_scope_expired(&inner));
    return 0;
}

static int inner_word(struct mag_scope *s)
{
    with_timeout (MAG_MS, s) {
        await(long_sleep());
    }
    return 0;
}

ON_1_AND_4(timeouts, the_inner_one_leaves_the_outer_one_as_it_is)
{
    struct mag_scope outer, inner;

    SHOULD(mag_scope_enter(&outer, mag_now() + LONG * MAG_SECOND, NULL) == 0);
    SHOULD(inner_word(&inner) == -ETIMEDOUT);
    SHOULD(!mag_cancelled() && mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_leave(&outer, 0) == 0);
    SHOULD(mag_scope_expired(&inner) && !mag_scope_expired(&outer));
    return 0;
}

ON_1_AND_4(timeouts, the_outer_one_ends_what_has_more_time_inside)
{
    struct mag_scope outer, inner;
    int rc;

    SHOULD(mag_scope_enter(&outer, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, mag_now() + LONG * MAG_SECOND, NULL) == 0);
    spin_until(mag_now() + 2 * MAG_MS); /* crunches some numbers */
    rc = mag_scope_leave(&inner, long_sleep());
    SHOULD(rc == -ECANCELED && mag_scope_leave(&outer, rc) == -ETIMEDOUT);
    SHOULD(mag_scope_expired(&outer) && !mag_scope_expired(&inner));
    return 0;
}

ON_1_AND_4(timeouts, both_passed_while_busy_the_outer_one_tells)
{
    mag_time now = mag_now();
    struct mag_scope outer, inner;
    int rc;

    SHOULD(mag_scope_enter(&outer, now + 2 * MAG_MS, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, now + MAG_MS, NULL) == 0);
    spin_until(now + 3 * MAG_MS);
    rc = mag_scope_leave(&inner, long_sleep());
    SHOULD(rc == -ECANCELED);
    SHOULD(long_sleep() == -ECANCELED); /* what comes next is ended by the outer one */
    SHOULD(mag_scope_leave(&outer, rc) == -ETIMEDOUT);
    return 0;
}

ON_1_AND_4(timeouts, one_after_the_other)
{
    struct mag_scope outer, inner;
    int rc;

    SHOULD(mag_scope_enter(&outer, mag_now() + 6 * MAG_MS, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, mag_now() + MAG_MS, NULL) == 0);
    rc = mag_scope_leave(&inner, long_sleep());
    SHOULD(rc == -ETIMEDOUT || (rc == -ECANCELED && mag_scope_expired(&outer))); /* if held up */
    rc = long_sleep();
    SHOULD(rc == -ECANCELED && mag_scope_leave(&outer, rc) == -ETIMEDOUT);
    return 0;
}

ON_1_AND_4(timeouts, many_nested_ones_end_with_the_earliest)
{
    struct mag_scope s[20];
    int rc;

    for (int i = 0; i < 20; i++)
        SHOULD(mag_scope_enter(&s[i], mag_now() + (i == 12 ? 2 * MAG_MS : LONG * MAG_SECOND),
                               NULL) == 0);
    rc = long_sleep();
    for (int i = 19; i >= 0; i--) {
        rc = mag_scope_leave(&s[i], rc);
        SHOULD(rc == (i > 12 ? -ECANCELED : -ETIMEDOUT));
        SHOULD(mag_scope_expired(&s[i]) == (i == 12));
    }
    return 0;
}

ON_1(timeouts, they_are_left_innermost_first)
{
    struct mag_scope outer, inner;

    SHOULD(mag_scope_enter(&outer, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_leave(&outer, 0) == -EPERM);
    SHOULD(mag_scope_leave(&inner, 0) == 0 && mag_scope_leave(&outer, 0) == 0);
    return 0;
}

/* A cleanup that takes its time, within limits of its own. */
ON_1_AND_4(timeouts, a_timeout_in_a_cleanup)
{
    struct mag_scope s, shield, inner;
    int rc;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    rc = long_sleep();
    SHOULD(rc == -ECANCELED);
    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&inner, long_sleep()) == -ETIMEDOUT);
    SHOULD(mag_scope_leave(&shield, 0) == 0);
    SHOULD(mag_scope_leave(&s, rc) == -ETIMEDOUT);
    return 0;
}

/* ---- reschedule --------------------------------------------------------------------------------- */

ON_1_AND_4(timeouts, a_deadline_can_be_put_off)
{
    mag_time later = mag_now() + LONG * MAG_SECOND;
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_reschedule(&s, later) == 0 && mag_scope_when(&s) == later);
    SHOULD(mag_sleep(2 * MAG_MS) == 0);
    SHOULD(mag_scope_reschedule(&s, MAG_NEVER) == 0 && mag_scope_when(&s) == MAG_NEVER);
    SHOULD(mag_scope_leave(&s, 0) == 0 && !mag_scope_expired(&s));
    return 0;
}

ON_1_AND_4(timeouts, a_deadline_can_be_brought_forward)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_reschedule(&s, mag_now() + MAG_MS) == 0);
    SHOULD(mag_scope_leave(&s, long_sleep()) == -ETIMEDOUT);
    return 0;
}

ON_1_AND_4(timeouts, what_has_expired_cannot_be_put_off)
{
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(long_sleep() == -ECANCELED);
    SHOULD(mag_scope_reschedule(&s, MAG_NEVER) == -EPERM && mag_scope_expired(&s));
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    return 0;
}

/* ---- the same instant ------------------------------------------------------------------------------ */

struct late {
    void *future;
    mag_time deadline;
};

static int awaits_until(void *arg, long *value)
{
    struct late *l = arg;
    struct mag_scope s;

    SHOULD(mag_scope_enter(&s, l->deadline, NULL) == 0);
    return mag_scope_leave(&s, mag_await(l->future, value, sizeof *value));
}

/* Set while the worker is too busy to see that the deadline passes. */
ON_1(timeouts, a_result_that_is_there_when_the_deadline_is_seen_wins)
{
    for (int i = 0; i < 10; i++) {
        struct late l = { future(), mag_now() + 500 * MAG_US };
        struct co *c = go(awaits_until, &l);
        long v = 0;
        let_run();
        SHOULD(set(l.future, 7) == 0);
        spin_until(l.deadline + 100 * MAG_US);
        SHOULD(await_co(c, &v) == 0 && v == 7);
    }
    return 0;
}

/* From another thread or worker at about that time: one of the two, and never both. */
static int set_at(void *arg, long *value)
{
    struct late *l = arg;

    *value = 0;
    spin_until(l->deadline - 20 * MAG_US);
    return set(l->future, 7);
}

ON_1_AND_4(timeouts, a_result_at_the_deadline_is_the_value_or_a_timeout)
{
    for (int i = 0; i < 40; i++) {
        struct late l = { future(), mag_now() + 200 * MAG_US + i * 5 * MAG_US };
        struct co *setter = go(set_at, &l), *c = go(awaits_until, &l);
        long v = 0;
        int rc = await_co(c, &v);
        SHOULD((rc == 0 && v == 7) || (rc == -ETIMEDOUT && v == 0));
        SHOULD(await_co(setter, NULL) == 0);
    }
    return 0;
}

/* ---- shields -------------------------------------------------------------------------------------------- */

ON_1_AND_4(timeouts, a_shield_keeps_a_deadline_out)
{
    struct mag_scope s, shield;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    SHOULD(mag_sleep(3 * MAG_MS) == 0 && !mag_cancelled());
    SHOULD(mag_scope_leave(&shield, 0) == 0);
    SHOULD(mag_scope_leave(&s, long_sleep()) == -ETIMEDOUT);
    return 0;
}

ON_1_AND_4(timeouts, a_shield_lasts_for_its_grace)
{
    struct mag_scope s, shield;
    int rc;

    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_shield_enter(&shield, 5 * MAG_MS, NULL) == 0);
    SHOULD(mag_sleep(2 * MAG_MS) == 0 || mag_cancelled()); /* unless held up for long */
    rc = long_sleep();
    SHOULD(rc == -ECANCELED && mag_scope_leave(&shield, rc) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, rc) == -ETIMEDOUT);
    return 0;
}

ON_1_AND_4(timeouts, the_end_of_the_grace_is_no_cancellation_by_itself)
{
    struct mag_scope shield;

    SHOULD(mag_shield_enter(&shield, MAG_MS, NULL) == 0);
    SHOULD(mag_sleep(3 * MAG_MS) == 0);
    SHOULD(mag_scope_leave(&shield, 0) == 0 && mag_sleep(0) == 0);
    return 0;
}

static int shielded_cleanup(void *unused)
{
    int rc = long_sleep();
    struct mag_scope shield;

    (void)unused;
    SHOULD(rc == -ECANCELED && mag_sleep(0) == -ECANCELED);
    SHOULD(mag_shield_enter(&shield, MAG_MINUTE, NULL) == 0);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_scope_leave(&shield, 0) == 0);
    return 5;
}

ON_1_AND_4(timeouts, a_cancelled_task_can_clean_up_behind_a_shield)
{
    struct co *c = wait_as(1, shielded_cleanup, NULL);

    SHOULD(cancelled_end_of(c) == 5);
    return 0;
}

static int with_shield_word(void *unused)
{
    (void)unused;
    with_timeout (MAG_MS) {
        with_shield (MAG_NEVER) {
            await(mag_sleep(3 * MAG_MS));
        }
        await(long_sleep());
    }
    return 0;
}

ON_1_AND_4(timeouts, the_words_nest)
{
    SHOULD(with_shield_word(NULL) == -ETIMEDOUT);
    return 0;
}

/* ---- wait_for --------------------------------------------------------------------------------------------- */

static int sleeps(void *arg, long *value)
{
    int rc = mag_sleep(num(arg));

    *value = 42;
    return rc;
}

/* Goes on for that long whatever happens to it. */
static mag_atomic(int32_t) n_exited;

static int sleeps_stubbornly(void *arg, long *value)
{
    struct mag_scope shield;
    int rc;

    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    rc = mag_scope_leave(&shield, mag_sleep(num(arg)));
    mag_fetch_add(&n_exited, 1);
    *value = 42;
    return rc;
}

static int limited(struct co *c, mag_time timeout, long *value)
{
    return mag_wait_for(c, timeout, value, sizeof *value);
}

ON_1_AND_4(timeouts, wait_for_hands_the_result_over)
{
    long v = 0;

    SHOULD(limited(co(sleeps, arg_of(MAG_MS)), LONG * MAG_SECOND, &v) == 0 && v == 42);
    SHOULD(limited(go(sleeps, arg_of(MAG_MS)), LONG * MAG_SECOND, &v) == 0 && v == 42);
    return 0;
}

ON_1_AND_4(timeouts, wait_for_without_a_limit_is_await)
{
    long v = 0;

    SHOULD(limited(co(same, arg_of(5)), MAG_NEVER, &v) == 0 && v == 5);
    SHOULD(limited(go(same_later, arg_of(6)), MAG_NEVER, &v) == 0 && v == 6);
    return 0;
}

ON_1_AND_4(timeouts, wait_for_cancels_what_takes_too_long)
{
    long v = 1;

    SHOULD(limited(co(forever, NULL), MAG_MS, &v) == -ETIMEDOUT);
    SHOULD(limited(go(forever, NULL), MAG_MS, &v) == -ETIMEDOUT);
    return 0;
}

static const void *task_cancelled;

static int notes_its_cancel(void *arg, long *value)
{
    int rc = mag_sleep(MAG_NEVER);

    (void)value;
    task_cancelled = rc == -ECANCELED ? arg : NULL;
    return rc;
}

ON_1_AND_4(timeouts, wait_for_0_cancels_a_running_task)
{
    struct co *c = go(notes_its_cancel, &n_exited);
    long v;

    task_cancelled = NULL;
    let_run();
    SHOULD(limited(c, 0, &v) == -ETIMEDOUT && task_cancelled == &n_exited);
    return 0;
}

ON_1_AND_4(timeouts, wait_for_0_takes_a_result_that_is_there)
{
    void *f = future();
    long v = 0;

    SHOULD(set(f, 8) == 0);
    SHOULD(mag_wait_for(f, 0, &v, sizeof v) == 0 && v == 8);
    return 0;
}

static int starts(void *arg, long *value)
{
    (void)value;
    *(int *)arg = 1;
    return mag_sleep(MAG_NEVER);
}

ON_1_AND_4(timeouts, wait_for_0_of_a_coroutine_does_not_wait)
{
    mag_time start = mag_now();
    int is_started = 0;
    long v;

    SHOULD(limited(co(starts, &is_started), 0, &v) == -ETIMEDOUT);
    SHOULD(mag_now() - start < 15 * MAG_SECOND);
    return 0;
}

ON_1(timeouts, wait_for_refuses_a_negative_timeout)
{
    struct co *c = co(same, arg_of(5));
    long v = 0;

    SHOULD(limited(c, -1, &v) == -EINVAL && limited(c, INT64_MIN, &v) == -EINVAL);
    SHOULD(await_co(c, &v) == 0 && v == 5); /* nothing was consumed */
    SHOULD(limited(NULL, MAG_MS, &v) == -ENOMEM);
    return 0;
}

ON_1_AND_4(timeouts, wait_for_a_future_that_is_set_in_time)
{
    struct late l = { future(), mag_now() + 2 * MAG_MS };
    struct co *setter = go(set_at, &l);
    long v = 0;

    SHOULD(mag_wait_for(l.future, LONG * MAG_SECOND, &v, sizeof v) == 0 && v == 7);
    SHOULD(await_co(setter, NULL) == 0);
    return 0;
}

ON_1_AND_4(timeouts, wait_for_a_future_that_nobody_sets)
{
    void *f = future();
    long v = 0;

    SHOULD(mag_wait_for(f, MAG_MS, &v, sizeof v) == -ETIMEDOUT);
    SHOULD(set(f, 1) == 0); /* still the setter's */
    return 0;
}

/* test_wait_for_cancellation_race_condition */
static int ends_well_when_cancelled(void *arg, long *value)
{
    (void)arg;
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    *value = 1;
    return 0;
}

ON_1_AND_4(timeouts, wait_for_takes_a_result_that_comes_in_spite_of_the_cancel)
{
    long v = 0;

    SHOULD(limited(co(ends_well_when_cancelled, NULL), MAG_MS, &v) == 0 && v == 1);
    struct co *c = go(ends_well_when_cancelled, NULL);
    let_run(); /* one that is cancelled before never begins */
    SHOULD(limited(c, MAG_MS, &v) == 0 && v == 1);
    return 0;
}

ON_1_AND_4(timeouts, wait_for_waits_for_the_end_of_what_it_cancels)
{
    long v = 0;

    n_exited = 0;
    SHOULD(limited(co(sleeps_stubbornly, arg_of(3 * MAG_MS)), MAG_MS, &v) == 0 && v == 42);
    SHOULD(n_exited == 1);
    return 0;
}

static int cleans_up_when_cancelled(void *arg, long *value)
{
    struct mag_scope shield;
    int rc = mag_sleep(MAG_NEVER);

    (void)arg, (void)value;
    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_leave(&shield, mag_sleep(MAG_MS)) == 0);
    mag_fetch_add(&n_exited, 1);
    return rc;
}

ON_1_AND_4(timeouts, wait_for_waits_for_the_cleanup_of_what_it_cancels)
{
    long v;

    n_exited = 0;
    SHOULD(limited(co(cleans_up_when_cancelled, NULL), 100 * MAG_US, &v) == -ETIMEDOUT);
    SHOULD(n_exited == 1);
    struct co *c = go(cleans_up_when_cancelled, NULL);
    let_run();
    SHOULD(limited(c, 0, &v) == -ETIMEDOUT && n_exited == 2);
    return 0;
}

static int fails_when_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_sleep(MAG_NEVER) == -ECANCELED ? -EDOM : 0;
}

ON_1_AND_4(timeouts, wait_for_passes_an_error_on_that_comes_of_the_cancel)
{
    long v;

    SHOULD(limited(co(fails_when_cancelled, NULL), MAG_MS, &v) == -EDOM);
    struct co *c = go(fails_when_cancelled, NULL);
    let_run();
    SHOULD(limited(c, MAG_MS, &v) == -EDOM);
    return 0;
}

/* test_cancel_wait_for, test_cancel_blocking_wait_for */
static mag_atomic(int64_t) limit_of_wait;

static int waits_for_a_task(void *arg)
{
    long v;

    return limited(go(notes_its_cancel, arg), limit_of_wait, &v);
}

ON_1_AND_4(timeouts, a_cancelled_wait_for_cancels_what_it_waits_for)
{
    static const mag_time limits[] = { MAG_NEVER, 60 * MAG_SECOND };

    for (int i = 0; i < 2; i++) {
        task_cancelled = NULL;
        limit_of_wait = limits[i];
        struct co *c = wait_as(1, waits_for_a_task, (void *)&limits[i]);
        let_run();
        SHOULD(cancelled_end_of(c) == -ECANCELED);
        SHOULD(task_cancelled == &limits[i]);
    }
    return 0;
}

/* test_asyncio_wait_for_cancelled */
static int waits_for_a_stubborn_one(void *unused)
{
    long v;

    (void)unused;
    return limited(go(sleeps_stubbornly, arg_of(5 * MAG_MS)), LONG * MAG_SECOND, &v);
}

ON_1_AND_4(timeouts, a_cancelled_wait_for_waits_for_the_end)
{
    struct co *c;
    int rc;

    n_exited = 0; /* before: it may end while wait_as looks */
    c = wait_as(1, waits_for_a_stubborn_one, NULL);
    rc = cancelled_end_of(c);
    SHOULD(rc == 0 || rc == -ECANCELED); /* it has not begun, perhaps */
    SHOULD(n_exited == (rc == 0));
    return 0;
}

/* ---- cancelled everywhere --------------------------------------------------------------------------------- */

static int timeouts_of_all_kinds(void *arg, long *value)
{
    struct mag_scope s;
    long v = 0;
    int rc;

    (void)arg;
    *value = 0;
    nth_point();
    rc = limited(co(same_later, arg_of(3)), LONG * MAG_SECOND, &v);
    if (rc < 0)
        return rc;
    SHOULD(v == 3);
    nth_point();
    rc = limited(go(same_later, arg_of(4)), LONG * MAG_SECOND, &v);
    if (rc < 0)
        return rc;
    SHOULD(v == 4);
    SHOULD(mag_scope_enter(&s, mag_now() + LONG * MAG_SECOND, NULL) == 0);
    nth_point();
    rc = mag_yield();
    rc = mag_scope_leave(&s, rc);
    SHOULD(!mag_scope_expired(&s));
    return rc;
}

static int is_cancelled_or_well(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    return 0;
}

ON_1_AND_4(timeouts, a_cancel_at_each_suspension_is_never_a_timeout)
{
    return nth_cancel(timeouts_of_all_kinds, NULL, is_cancelled_or_well);
}
