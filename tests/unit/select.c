/* SPDX-License-Identifier: MIT */
/* select.c - each kind of case, exactly one of several, cancels, deadlines, and mistakes */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(select, .timeout = 60);

static struct mag_queue *queue(size_t capacity)
{
    struct mag_queue *q = NULL;

    (void)mag_queue_new(&q, sizeof(int), capacity, NULL);
    return q;
}

static int put(struct mag_queue *q, int item)
{
    return mag_queue_put(q, &item);
}

static int get(struct mag_queue *q)
{
    int item = -1, rc = mag_queue_try_get(q, &item);

    return rc < 0 ? rc : item;
}

/* Two queues, an event and a place for what was got: the world of most tests. */
static struct world {
    struct mag_queue *a, *b;
    struct mag_event event;
    int x, y;
} w;

static void open_world(void)
{
    w = (struct world){ .a = queue(1), .b = queue(1), .x = -1, .y = -1 };
}

static int close_world(void)
{
    mag_queue_free(w.a);
    mag_queue_free(w.b);
    return 0;
}

/* Tasks that are suspended in a select of two when this returns; the index is their end. */
static int get_a_or_b(void *arg)
{
    struct mag_case cases[] = { mag_case_get(w.a, &w.x), mag_case_get(w.b, &w.y) };

    (void)arg;
    return mag_select(cases, 2);
}

static int put_a_or_b(void *arg)
{
    struct mag_case cases[] = { mag_case_put(w.a, &w.x), mag_case_put(w.b, &w.y) };

    (void)arg;
    return mag_select(cases, 2);
}

static int event_or_get(void *arg)
{
    struct mag_case cases[] = { mag_case_event(&w.event), mag_case_get(w.a, &w.x) };

    (void)arg;
    return mag_select(cases, 2);
}

static struct co *waits_in(int (*fn)(void *))
{
    return wait_as(1, fn, NULL);
}

/* ---- what is there already ------------------------------------------------------------------- */

ON_1(select, takes_the_one_that_can_be_carried_out)
{
    open_world();
    SHOULD(put(w.b, 5) == 0);
    SHOULD(get_a_or_b(NULL) == 1);
    SHOULD(w.x == -1 && w.y == 5);
    SHOULD(mag_queue_is_empty(w.b));
    return close_world();
}

ON_1(select, puts_where_there_is_room)
{
    open_world();
    SHOULD(put(w.a, 1) == 0);
    w.y = 8;
    SHOULD(put_a_or_b(NULL) == 1);
    SHOULD(get(w.b) == 8 && mag_queue_len(w.a) == 1);
    return close_world();
}

ON_1(select, sees_an_event_that_is_set)
{
    open_world();
    SHOULD(mag_event_set(&w.event) == 0);
    SHOULD(event_or_get(NULL) == 0);
    return close_world();
}

ON_1(select, sees_a_time_that_has_passed)
{
    struct mag_case cases[] = { mag_case_at(MAG_NEVER), mag_case_at(mag_now() - 1) };

    SHOULD(mag_select(cases, 2) == 1);
    return 0;
}

ON_1(select, sees_a_task_that_has_ended_and_does_not_consume_it)
{
    struct co *c = go(same, arg_of(4));
    struct mag_case cases[] = { mag_case_done(c) };
    long value;

    SHOULD(settle_down() == 0);
    SHOULD(mag_select(cases, 1) == 0 && cases[0].rc == 0);
    SHOULD(mag_select(cases, 1) == 0);
    SHOULD(await_co(c, &value) == 0 && value == 4);
    return 0;
}

ON_1(select, exactly_one_of_several_happens_and_none_is_starved)
{
    int n[2] = { 0 };

    open_world();
    for (int i = 0; i < 400; i++) {
        if (mag_queue_is_empty(w.a))
            SHOULD(put(w.a, i) == 0);
        if (mag_queue_is_empty(w.b))
            SHOULD(put(w.b, i) == 0);
        int which = get_a_or_b(NULL);
        SHOULD(which == 0 || which == 1);
        SHOULD(mag_queue_len(w.a) + mag_queue_len(w.b) == 1);
        n[which]++;
    }
    SHOULD(n[0] > 100 && n[1] > 100);
    (void)get(w.a), (void)get(w.b);
    return close_world();
}

ON_1(select, nowait_says_when_none_can_be_carried_out)
{
    open_world();
    struct mag_case cases[] = { mag_case_get(w.a, &w.x), mag_case_event(&w.event),
                                mag_case_at(mag_now() + MAG_MINUTE) };

    SHOULD(mag_select_nowait(cases, 3) == -EAGAIN);
    SHOULD(put(w.a, 3) == 0);
    SHOULD(mag_select_nowait(cases, 3) == 0 && w.x == 3);
    SHOULD(mag_event_set(&w.event) == 0);
    SHOULD(mag_select_nowait(cases, 3) == 1);
    return close_world();
}

/* ---- what comes later -------------------------------------------------------------------------- */

ON_1_AND_4(select, waits_for_an_item)
{
    open_world();
    for (int i = 0; i < 2; i++) {
        struct co *c = waits_in(get_a_or_b);
        SHOULD(!mag_done(c));
        SHOULD(put(i ? w.b : w.a, 40 + i) == 0);
        SHOULD(end_of(c) == i);
        SHOULD((i ? w.y : w.x) == 40 + i);
    }
    SHOULD(mag_queue_is_empty(w.a) && mag_queue_is_empty(w.b));
    SHOULD(put(w.a, 1) == 0 && put(w.b, 1) == 0); /* nobody is left in their lines */
    SHOULD(get(w.a) == 1 && get(w.b) == 1);
    return close_world();
}

ON_1_AND_4(select, waits_for_room)
{
    open_world();
    SHOULD(put(w.a, 1) == 0 && put(w.b, 2) == 0);
    w.x = 11;
    w.y = 12;
    for (int i = 0; i < 2; i++) {
        struct co *c = waits_in(put_a_or_b);
        SHOULD(!mag_done(c));
        SHOULD(get(i ? w.b : w.a) == 1 + i);
        SHOULD(end_of(c) == i);
    }
    SHOULD(get(w.a) == 11 && get(w.b) == 12);
    return close_world();
}

ON_1_AND_4(select, waits_for_an_event)
{
    open_world();
    struct co *c = waits_in(event_or_get), *d = waits_in(event_or_get);

    SHOULD(!mag_done(c));
    SHOULD(mag_event_set(&w.event) == 0);
    SHOULD(end_of(c) == 0 && end_of(d) == 0);
    SHOULD(put(w.a, 1) == 0 && mag_queue_len(w.a) == 1);
    SHOULD(get(w.a) == 1);
    return close_world();
}

ON_1_AND_4(select, waits_for_the_earliest_time)
{
    mag_time start = mag_now();
    struct mag_case cases[] = { mag_case_at(start + MAG_MINUTE), mag_case_at(start + 2 * MAG_MS),
                                mag_case_at(start + 3 * MAG_MINUTE), mag_case_at(MAG_NEVER) };

    SHOULD(mag_select(cases, 4) == 1);
    SHOULD(mag_now() >= start + 2 * MAG_MS);
    SHOULD(mag_now() < start + 30 * MAG_SECOND);
    return 0;
}

static int put_into_a(void *arg, long *value)
{
    int item = (int)num(arg), rc = mag_yield();

    (void)value;
    return rc < 0 ? rc : mag_queue_put(w.a, &item);
}

ON_1_AND_4(select, an_item_comes_before_the_time)
{
    open_world();
    for (int i = 0; i < 50; i++) {
        struct co *c = go(put_into_a, arg_of(i));
        struct mag_case cases[] = { mag_case_at(mag_now() + MAG_MINUTE), mag_case_get(w.a, &w.x) };
        SHOULD(mag_select(cases, 2) == 1 && w.x == i);
        SHOULD(await_co(c, NULL) == 0);
    }
    return close_world();
}

ON_1_AND_4(select, waits_for_a_task_and_a_future)
{
    for (int i = 0; i < 3; i++) {
        struct co *quick = go(sleep_ns, arg_of(i ? MAG_MS : MAG_MINUTE));
        void *f = future();
        struct mag_case cases[] = { mag_case_done(quick), mag_case_done(f) };
        long value = 0;
        if (i == 0)
            SHOULD(set(f, 6) == 0);
        SHOULD(mag_select(cases, 2) == (i == 0));
        if (i) {
            SHOULD(await_co(quick, &value) == 0 && value == MAG_MS);
            SHOULD(set(f, 6) == 0);
        } else {
            SHOULD(mag_cancel(quick) == 0);
            SHOULD(await_co(quick, NULL) == -ECANCELED);
        }
        SHOULD(mag_await(f, &value, sizeof value) == 0 && value == 6);
    }
    return 0;
}

ON_1_AND_4(select, a_loser_among_the_tasks_can_still_be_awaited)
{
    void *f[5];
    struct mag_case cases[5];
    long value = 0;

    for (int i = 0; i < 5; i++) {
        f[i] = future();
        cases[i] = mag_case_done(f[i]);
    }
    for (int i = 4; i >= 0; i--) {
        SHOULD(set(f[i], i) == 0);
        SHOULD(mag_select(cases, (size_t)i + 1) == i);
        SHOULD(mag_await(f[i], &value, sizeof value) == 0 && value == i);
    }
    return 0;
}

/* ---- a select against a select --------------------------------------------------------------- */

static int put_a_or_get_b(void *arg)
{
    struct mag_case cases[] = { mag_case_put(w.a, &w.x), mag_case_get(w.b, &w.y) };

    (void)arg;
    return mag_select(cases, 2);
}

static int get_a_or_put_b(void *arg)
{
    static int got, item = 77;
    struct mag_case cases[] = { mag_case_get(w.a, &got), mag_case_put(w.b, &item) };

    (void)arg;
    return mag_select(cases, 2);
}

/* One puts where the other gets: both come through. */
ON_1_AND_4(select, two_selects_meet)
{
    open_world();
    for (int i = 0; i < 300; i++) {
        struct co *c = begin_as(1, put_a_or_get_b, NULL), *d = begin_as(2, get_a_or_put_b, NULL);
        SHOULD(end_of(c) >= 0 && end_of(d) >= 0);
        while (get(w.a) >= 0 || get(w.b) >= 0)
            ;
    }
    return close_world();
}

/* A waiting select that was served elsewhere is passed over. */
ON_1(select, the_next_in_line_is_served_when_a_select_was_served_elsewhere)
{
    open_world();
    struct co *both = waits_in(get_a_or_b), *a = waits_in(event_or_get);

    SHOULD(put(w.b, 5) == 0); /* `both' has its item, and is still in a's line */
    SHOULD(put(w.a, 6) == 0);
    SHOULD(end_of(both) == 1 && w.y == 5);
    SHOULD(end_of(a) == 1 && w.x == 6);
    return close_world();
}

/* ---- shut-down queues -------------------------------------------------------------------------- */

static int rc_of_put;

static int put_or_event(void *arg)
{
    struct mag_case cases[] = { mag_case_event(&w.event), mag_case_put(w.a, &w.x) };
    int which = mag_select(cases, 2);

    (void)arg;
    rc_of_put = which < 0 ? which : cases[which].rc;
    return which;
}

ON_1_AND_4(select, a_shut_down_queue_is_a_case_that_has_failed)
{
    open_world();
    SHOULD(put(w.a, 1) == 0);
    struct co *c = waits_in(put_or_event);

    SHOULD(mag_queue_shutdown(w.a, false) == 0);
    SHOULD(end_of(c) == 1 && rc_of_put == -EPIPE);
    SHOULD(put_or_event(NULL) == 1 && rc_of_put == -EPIPE);
    SHOULD(event_or_get(NULL) == 1 && w.x == 1);
    struct mag_case cases[] = { mag_case_get(w.a, &w.x) };
    SHOULD(mag_select(cases, 1) == 0 && cases[0].rc == -EPIPE);
    return close_world();
}

/* ---- cancels and deadlines ------------------------------------------------------------------------ */

ON_1_AND_4(select, a_cancelled_select_has_taken_nothing)
{
    open_world();
    struct co *c = waits_in(get_a_or_b);

    SHOULD(cancelled_end_of(c) == -ECANCELED);
    SHOULD(put(w.a, 1) == 0 && put(w.b, 2) == 0);
    SHOULD(get(w.a) == 1 && get(w.b) == 2);
    return close_world();
}

ON_1_AND_4(select, a_select_that_was_served_is_not_cancelled)
{
    open_world();
    struct co *c = waits_in(get_a_or_b);

    SHOULD(put(w.b, 2) == 0);
    SHOULD(cancelled_end_of(c) == 1);
    SHOULD(w.y == 2);
    return close_world();
}

static int one_of_all(void *arg, long *value)
{
    struct co *c = go(sleep_ns, arg_of(MAG_MINUTE));
    int rc = 0;

    (void)arg, (void)value;
    for (int i = 0; i < 4 && rc >= 0; i++) {
        struct mag_case cases[] = { mag_case_get(w.a, &w.x), mag_case_put(w.b, &w.y),
                                    mag_case_event(&w.event), mag_case_done(c),
                                    mag_case_at(mag_now() + 20 * MAG_US) };
        nth_point();
        rc = mag_select(cases, 5);
        if (rc == 1)
            SHOULD(get(w.b) == w.y);
    }
    mag_cancel(c);
    SHOULD(mag_close(c) == 0);
    return rc < 0 ? rc : 0;
}

static int world_is_whole(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(mag_queue_is_empty(w.a));
    SHOULD(put(w.a, 1) == 0 && mag_queue_len(w.a) == 1 && get(w.a) == 1);
    while (get(w.b) >= 0)
        ;
    return 0;
}

ON_1(select, nothing_is_left_behind_wherever_a_cancel_comes)
{
    open_world();
    SHOULD(put(w.b, 0) == 0);
    SHOULD(nth_cancel(one_of_all, NULL, world_is_whole) == 0);
    return close_world();
}

struct meeting {
    mag_time at;
    int which;
};

static int put_at(void *arg, long *value)
{
    struct meeting *m = arg;
    int item = 9;

    *value = mag_sleep_until(m->at);
    return *value < 0 ? (int)*value : mag_queue_put(w.a, &item);
}

ON_1_AND_4(select, an_item_at_the_instant_of_the_time_is_not_lost)
{
    open_world();
    for (int i = 0; i < 200; i++) {
        struct meeting m = { .at = mag_now() + 100 * MAG_US };
        struct co *c = go(put_at, &m);
        struct mag_case cases[] = { mag_case_get(w.a, &w.x),
                                    mag_case_at(m.at + (i % 5 - 2) * 10 * MAG_US) };
        int which = mag_select(cases, 2);
        SHOULD(which == 0 || which == 1);
        SHOULD(await_co(c, NULL) == 0);
        SHOULD(mag_queue_len(w.a) == (size_t)which);
        if (which == 1)
            SHOULD(get(w.a) == 9);
    }
    return close_world();
}

ON_1_AND_4(select, a_deadline_around_it_ends_it)
{
    struct mag_scope s;

    open_world();
    SHOULD(mag_scope_enter(&s, mag_now() + 2 * MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, get_a_or_b(NULL)) == -ETIMEDOUT);
    return close_world();
}

/* ---- threads outside ---------------------------------------------------------------------------------- */

static void *select_in_thread(void *arg)
{
    return arg_of(((int (*)(void *))arg)(NULL));
}

static int get_or_two_ms(void *arg)
{
    struct mag_case cases[] = { mag_case_get(w.a, &w.x), mag_case_at(mag_now() + 2 * MAG_MS) };

    (void)arg;
    return mag_select(cases, 2);
}

static long in_thread(int (*fn)(void *), void (*then)(void))
{
    pthread_t thread;
    void *end;

    pthread_create(&thread, NULL, select_in_thread, (void *)fn);
    mag_sleep(3 * MAG_MS);
    then();
    pthread_join(thread, &end);
    return num(end);
}

static void put_b(void)
{
    (void)put(w.b, 4);
}

static void set_event(void)
{
    (void)mag_event_set(&w.event);
}

static void do_nothing(void)
{
}

Test(select, blocks_a_thread)
{
    open_world();
    cr_assert_eq(in_thread(get_a_or_b, put_b), 1);
    cr_assert_eq(w.y, 4);
    cr_assert_eq(in_thread(event_or_get, set_event), 0);
    cr_assert_eq(in_thread(get_or_two_ms, do_nothing), 1);
    cr_assert(mag_queue_is_empty(w.a) && mag_queue_is_empty(w.b));
    close_world();
}

static void *the_future;

static int future_or_get(void *arg)
{
    struct mag_case cases[] = { mag_case_done(the_future), mag_case_get(w.a, &w.x) };

    (void)arg;
    return mag_select(cases, 2);
}

static void set_future(void)
{
    set(the_future, 1);
}

Test(select, blocks_a_thread_until_a_future_is_set)
{
    long value;

    open_world();
    the_future = future();
    cr_assert_eq(in_thread(future_or_get, set_future), 0);
    cr_assert_eq(mag_await(the_future, &value, sizeof value), 0);
    close_world();
}

/* ---- mistakes ------------------------------------------------------------------------------------------ */

ON_1(select, refuses_what_cannot_be)
{
    struct mag_case many[MAG_SELECT_MAX + 1], one[1], none = { 0 };
    struct co *c = co(same, NULL);

    for (int i = 0; i <= MAG_SELECT_MAX; i++)
        many[i] = mag_case_at(0);
    SHOULD(mag_select(many, MAG_SELECT_MAX) >= 0);
    SHOULD(mag_select(many, MAG_SELECT_MAX + 1) == -EINVAL);
    SHOULD(mag_select(many, 0) == -EINVAL);
    SHOULD(mag_select(NULL, 1) == -EINVAL);
    SHOULD(mag_select_nowait(many, 0) == -EINVAL);
    SHOULD(mag_select(&none, 1) == -EINVAL);
    one[0] = mag_case_get(NULL, NULL);
    SHOULD(mag_select(one, 1) == -EINVAL);
    one[0] = mag_case_put(NULL, NULL);
    SHOULD(mag_select(one, 1) == -EINVAL);
    one[0] = mag_case_event(NULL);
    SHOULD(mag_select(one, 1) == -EINVAL);
    one[0] = mag_case_done(NULL);
    SHOULD(mag_select(one, 1) == -ENOMEM);
    one[0] = mag_case_done(c);
    SHOULD(mag_select(one, 1) == -EINVAL);
    one[0] = mag_case_done(mag_self());
    SHOULD(mag_select(one, 1) == -EDEADLK);
    return mag_close(c);
}

static int await_future(void *f)
{
    return mag_await(f, NULL, sizeof(long));
}

ON_1(select, refuses_a_task_that_somebody_else_awaits)
{
    void *f = future();
    struct co *c = wait_as(1, await_future, f);
    struct mag_case cases[] = { mag_case_at(mag_now() + MAG_MINUTE), mag_case_done(f) };

    SHOULD(mag_select(cases, 2) == -EBUSY);
    SHOULD(set(f, 1) == 0);
    SHOULD(end_of(c) == 0);
    return 0;
}

static int rc_of_callback;

static void select_in_a_callback(void *arg)
{
    (void)arg;
    rc_of_callback = get_a_or_b(NULL);
}

ON_1(select, a_callback_must_not_wait)
{
    open_world();
    SHOULD(mag_call_later(0, select_in_a_callback, NULL) >= 0);
    SHOULD(settle_down() == 0);
    SHOULD(rc_of_callback == -ENXIO);
    return close_world();
}
