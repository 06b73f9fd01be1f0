/* SPDX-License-Identifier: MIT */
/* events.c - what CPython's suite pins for asyncio.Event (test_locks.py, EventTests) */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>

TestSuite(events, .timeout = 60);

static int wait_event(void *event)
{
    return mag_event_wait(event);
}

static void set_event(void *event)
{
    mag_event_set(event);
}

/* ---- set and clear --------------------------------------------------------------------- */

ON_1(events, an_event_is_clear_at_first)
{
    struct mag_event e = { 0 };

    SHOULD(!mag_event_is_set(&e));
    return 0;
}

ON_1(events, clear_takes_back_a_set)
{
    struct mag_event e = { 0 };

    SHOULD(mag_event_set(&e) == 0 && mag_event_is_set(&e));
    SHOULD(mag_event_clear(&e) == 0 && !mag_event_is_set(&e));
    return 0;
}

ON_1(events, set_and_clear_twice_are_as_once)
{
    struct mag_event e = { 0 };

    SHOULD(mag_event_clear(&e) == 0 && !mag_event_is_set(&e));
    SHOULD(mag_event_set(&e) == 0 && mag_event_set(&e) == 0 && mag_event_is_set(&e));
    SHOULD(mag_event_clear(&e) == 0 && !mag_event_is_set(&e));
    return 0;
}

/* ---- wait ------------------------------------------------------------------------------ */

ON_1_AND_4(events, wait_on_a_set_event_returns_at_once)
{
    struct mag_event e = { 0 };

    SHOULD(mag_event_set(&e) == 0);
    SHOULD(mag_event_wait(&e) == 0);
    SHOULD(mag_event_wait(&e) == 0 && mag_event_is_set(&e));
    return 0;
}

ON_1_AND_4(events, wait_blocks_until_the_set)
{
    struct mag_event e = { 0 };
    struct co *c = wait_as(1, wait_event, &e);

    SHOULD(diary_length() == 0 && !mag_done(c));
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(c) == 0 && DIARY_IS(1));
    return 0;
}

ON_1_AND_4(events, set_wakes_all_who_wait)
{
    struct mag_event e = { 0 };
    struct co *c[5];

    for (int i = 0; i < 5; i++)
        c[i] = wait_as(i, wait_event, &e);
    SHOULD(mag_event_set(&e) == 0);
    for (int i = 0; i < 5; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(diary_length() == 5);
    return 0;
}

ON_1(events, waiters_go_on_in_the_order_of_their_waits)
{
    struct mag_event e = { 0 };
    struct co *c[5];

    for (int i = 0; i < 5; i++)
        c[i] = wait_as(i, wait_event, &e);
    SHOULD(mag_event_set(&e) == 0);
    for (int i = 0; i < 5; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(DIARY_IS(0, 1, 2, 3, 4));
    return 0;
}

/* test_wait: a task that was begun, but had not come to its wait when the event was set. */
ON_1(events, who_comes_after_the_set_does_not_wait)
{
    struct mag_event e = { 0 };
    struct co *first = wait_as(1, wait_event, &e), *second = wait_as(2, wait_event, &e);
    struct co *third = begin_as(3, wait_event, &e);

    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(third) == 0 && end_of(first) == 0 && end_of(second) == 0);
    SHOULD(diary_length() == 3);
    return 0;
}

ON_1_AND_4(events, clear_right_after_the_set_still_wakes)
{
    struct mag_event e = { 0 };
    struct co *c = wait_as(1, wait_event, &e);

    SHOULD(mag_event_set(&e) == 0 && mag_event_clear(&e) == 0);
    SHOULD(!mag_event_is_set(&e));
    SHOULD(mag_event_set(&e) == 0 && mag_event_set(&e) == 0);
    SHOULD(end_of(c) == 0 && DIARY_IS(1));
    return 0;
}

ON_1_AND_4(events, who_waits_after_the_clear_is_not_woken_by_the_set_before)
{
    struct mag_event e = { 0 };
    struct co *before = wait_as(1, wait_event, &e), *after;

    SHOULD(mag_event_set(&e) == 0 && mag_event_clear(&e) == 0);
    after = wait_as(2, wait_event, &e);
    SHOULD(end_of(before) == 0 && DIARY_IS(1) && !mag_done(after));
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(after) == 0);
    return 0;
}

ON_1_AND_4(events, an_event_can_be_used_again)
{
    struct mag_event e = { 0 };

    for (int i = 0; i < 20; i++) {
        struct co *c = wait_as(i, wait_event, &e);
        SHOULD(!mag_done(c));
        SHOULD(mag_event_set(&e) == 0);
        SHOULD(end_of(c) == 0);
        SHOULD(mag_event_clear(&e) == 0);
    }
    return 0;
}

ON_1_AND_4(events, a_callback_may_set_it)
{
    struct mag_event e = { 0 };

    SHOULD(mag_call_later(MAG_MS, set_event, &e) == 0);
    SHOULD(mag_event_wait(&e) == 0);
    return 0;
}

/* ---- cancelled ---------------------------------------------------------------------------- */

ON_1_AND_4(events, wait_can_be_cancelled)
{
    struct mag_event e = { 0 };
    struct co *c = wait_as(1, wait_event, &e);

    SHOULD(cancelled_end_of(c) == -ECANCELED);
    SHOULD(!mag_event_is_set(&e) && diary_length() == 0);
    return 0;
}

ON_1(events, a_cancelled_waiter_leaves_the_others_in_their_order)
{
    struct mag_event e = { 0 };
    struct co *c[4];

    for (int i = 0; i < 4; i++)
        c[i] = wait_as(i, wait_event, &e);
    SHOULD(cancelled_end_of(c[0]) == -ECANCELED);
    SHOULD(cancelled_end_of(c[2]) == -ECANCELED);
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(c[1]) == 0 && end_of(c[3]) == 0 && DIARY_IS(1, 3));
    return 0;
}

ON_1_AND_4(events, a_set_that_came_first_is_not_undone_by_a_cancel)
{
    struct mag_event e = { 0 };
    struct co *c = wait_as(1, wait_event, &e);

    SHOULD(mag_event_set(&e) == 0);
    SHOULD(cancelled_end_of(c) == 0 && DIARY_IS(1));
    return 0;
}

ON_1(events, a_cancel_that_came_first_is_not_undone_by_a_set)
{
    struct mag_event e = { 0 };
    struct co *c = wait_as(1, wait_event, &e);

    SHOULD(mag_cancel(c) == 0);
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(c) == -ECANCELED && mag_event_is_set(&e));
    return 0;
}

/* No await that suspends, no CancelledError. */
ON_1_AND_4(events, who_is_cancelled_need_not_wait_for_what_is_set)
{
    struct mag_event e = { 0 };
    struct mag_scope s;

    SHOULD(mag_event_set(&e) == 0);
    SHOULD(mag_scope_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_cancel(&s) == 0);
    SHOULD(mag_event_wait(&e) == 0);
    SHOULD(mag_event_clear(&e) == 0 && mag_event_wait(&e) == -ECANCELED);
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ECANCELED);
    return 0;
}

/* ---- limits of time ------------------------------------------------------------------------- */

static int wait_for_a_ms(struct mag_event *e)
{
    struct mag_scope s;
    int rc = mag_scope_enter(&s, mag_now() + MAG_MS, NULL);

    return rc < 0 ? rc : mag_scope_leave(&s, mag_event_wait(e));
}

ON_1_AND_4(events, wait_can_time_out)
{
    struct mag_event e = { 0 };

    SHOULD(wait_for_a_ms(&e) == -ETIMEDOUT);
    SHOULD(!mag_event_is_set(&e));
    SHOULD(mag_event_set(&e) == 0 && wait_for_a_ms(&e) == 0);
    return 0;
}

static int wait_for_a_ms_(void *event)
{
    return wait_for_a_ms(event);
}

ON_1_AND_4(events, who_timed_out_does_not_disturb_the_others)
{
    struct mag_event e = { 0 };
    struct co *patient = wait_as(1, wait_event, &e);
    struct co *hasty = wait_as(2, wait_for_a_ms_, &e);

    SHOULD(end_of(hasty) == -ETIMEDOUT && !mag_done(patient));
    SHOULD(mag_event_set(&e) == 0);
    SHOULD(end_of(patient) == 0 && DIARY_IS(1));
    return 0;
}

/* Set when the deadline passes, give or take: either answer, and the event is set. */
ON_1_AND_4(events, a_set_at_the_deadline_is_the_result_or_a_timeout)
{
    int n_set = 0;

    for (int i = 0; i < 20; i++) {
        struct mag_event e = { 0 };
        mag_time deadline = mag_now() + 300 * MAG_US;
        struct mag_scope s;
        int rc;

        SHOULD(mag_call_later(deadline - mag_now(), set_event, &e) == 0);
        SHOULD(mag_scope_enter(&s, deadline, NULL) == 0);
        rc = mag_event_wait(&e);
        rc = mag_scope_leave(&s, rc);
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        n_set += rc == 0;
        SHOULD(mag_event_wait(&e) == 0); /* the setter is done with it */
    }
    SHOULD(n_set >= 0);
    return 0;
}

/* ---- cancelled everywhere ---------------------------------------------------------------------- */

struct relay {
    struct mag_event there, back;
    int n_there, n_back;
};

static int answers(void *arg, long *value)
{
    struct relay *r = arg;

    *value = 0;
    for (int i = 0; i < 5; i++) {
        int rc = mag_event_wait(&r->there);
        if (rc < 0)
            return rc;
        SHOULD(mag_event_clear(&r->there) == 0);
        r->n_back++;
        SHOULD(mag_event_set(&r->back) == 0);
    }
    return 0;
}

static int asks(void *arg, long *value)
{
    struct relay *r = arg;
    struct co *c = go(answers, r);
    int rc = 0;

    *value = 0;
    for (int i = 0; i < 5 && rc == 0; i++) {
        r->n_there++;
        SHOULD(mag_event_set(&r->there) == 0);
        rc = mag_event_wait(&r->back);
        if (rc == 0)
            SHOULD(mag_event_clear(&r->back) == 0);
    }
    SHOULD(mag_cancel(c) == 0);
    await_co(c, NULL);
    return rc;
}

/* However far it came: nobody was woken for nothing, and no answer without a question. */
static int relay_holds(void *arg, int rc)
{
    struct relay *r = arg;

    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(r->n_there - r->n_back <= 1 && r->n_back <= r->n_there);
    SHOULD(rc < 0 || r->n_back == 5);
    *r = (struct relay){ .n_there = 0 };
    return 0;
}

ON_1_AND_4(events, a_cancel_at_each_suspension_is_seen_once_and_leaves_nothing)
{
    struct relay r = { .n_there = 0 };

    return nth_cancel(asks, &r, relay_holds);
}
