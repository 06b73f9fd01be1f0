/* SPDX-License-Identifier: MIT */
/* callbacks.c - what CPython's suite pins for call_soon, call_later, call_at, handles, and
 * call_soon_threadsafe (test_base_events.py, test_events.py) */
#include "words.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(callbacks, .timeout = 60);

static void writes(void *number)
{
    diary_write((int)num(number));
}

static int written(int n)
{
    for (int i = 0; i < 5000 && diary_length() < n; i++)
        (void)mag_sleep(MAG_MS);
    return diary_length() == n;
}

/* ---- test_base_events: call_soon, call_later, call_at -------------------------------------- */

ON_1_AND_4(callbacks, soon_is_called_once_with_its_argument)
{
    SHOULD(mag_call_soon(writes, arg_of(17)) == 0);
    SHOULD(written(1));
    SHOULD(mag_sleep(2 * MAG_MS) == 0);
    SHOULD(DIARY_IS(17));
    return 0;
}

ON_1(callbacks, soon_does_not_call_at_once)
{
    SHOULD(mag_call_soon(writes, arg_of(1)) == 0);
    diary_write(0);
    SHOULD(written(2) && DIARY_IS(0, 1));
    return 0;
}

ON_1(callbacks, soon_of_nothing_is_refused)
{
    SHOULD(mag_call_soon(NULL, NULL) == -EINVAL);
    SHOULD(mag_call_later(60 * MAG_SECOND, NULL, NULL) == -EINVAL);
    SHOULD(mag_call_at(mag_now() + 60 * MAG_SECOND, NULL, NULL) == -EINVAL);
    return 0;
}

ON_1_AND_4(callbacks, later_is_called_when_the_time_has_passed)
{
    mag_time begun = mag_now();

    SHOULD(mag_call_later(5 * MAG_MS, writes, arg_of(1)) == 0);
    SHOULD(written(1));
    SHOULD(mag_now() - begun >= 5 * MAG_MS);
    return 0;
}

/* CPython takes a negative delay for 0; and so it calls those in their order. */
ON_1(callbacks, later_by_less_than_zero_is_refused)
{
    SHOULD(mag_call_later(-1, writes, arg_of(1)) == -EINVAL);
    SHOULD(mag_call_later(-2 * MAG_SECOND, writes, arg_of(2)) == -EINVAL);
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(diary_length() == 0);
    return 0;
}

ON_1_AND_4(callbacks, at_is_called_at_that_time_of_the_loops_clock)
{
    mag_time when = mag_now() + 10 * MAG_MS;

    SHOULD(mag_call_at(when, writes, arg_of(1)) == 0);
    SHOULD(mag_sleep(2 * MAG_MS) == 0);
    SHOULD(diary_length() == 0 || mag_now() >= when);
    SHOULD(written(1) && mag_now() >= when);
    return 0;
}

ON_1_AND_4(callbacks, those_that_are_due_first_are_called_first)
{
    bool are_in_order = false;

    for (int i = 0; i < 20 && !are_in_order; i++) { /* again, if one was due before all were there */
        mag_time now = mag_now();
        diary_clear();
        SHOULD(mag_call_at(now + 3 * MAG_MS, writes, arg_of(3)) == 0);
        SHOULD(mag_call_at(now + 1 * MAG_MS, writes, arg_of(1)) == 0);
        SHOULD(mag_call_at(now + 2 * MAG_MS, writes, arg_of(2)) == 0);
        SHOULD(written(3));
        are_in_order = DIARY_IS(1, 2, 3);
    }
    SHOULD(are_in_order);
    return 0;
}

ON_1_AND_4(callbacks, those_that_are_due_together_are_called_in_their_order)
{
    mag_time when = mag_now() + 2 * MAG_MS;

    for (long i = 0; i < 8; i++)
        SHOULD(mag_call_at(when, writes, arg_of(i)) == 0);
    SHOULD(written(8) && DIARY_IS(0, 1, 2, 3, 4, 5, 6, 7));
    return 0;
}

/* test__run_once_schedule_handle: what a callback wants is called in the next round. */
static void writes_and_goes_on(void *number)
{
    writes(number);
    if (num(number) < 3)
        (void)mag_call_soon(writes_and_goes_on, arg_of(num(number) + 1));
}

ON_1_AND_4(callbacks, a_callback_schedules_another)
{
    SHOULD(mag_call_soon(writes_and_goes_on, arg_of(1)) == 0);
    SHOULD(mag_call_soon(writes, arg_of(10)) == 0);
    SHOULD(written(4) && DIARY_IS(1, 10, 2, 3));
    return 0;
}

/* test_soon_stop_soon, TestBaseEventLoop.test_run_once: a task gets its turn between callbacks
 * that schedule each other for ever. */
static mag_atomic(int) shall_end;

static void goes_on(void *arg)
{
    if (!mag_load_acquire(&shall_end))
        (void)mag_call_soon(goes_on, arg);
}

ON_1_AND_4(callbacks, callbacks_for_ever_leave_tasks_their_turn)
{
    mag_store_release(&shall_end, 0);
    SHOULD(mag_call_soon(goes_on, NULL) == 0);
    for (int i = 0; i < 10; i++)
        SHOULD(mag_yield() == 0 && mag_sleep(10 * MAG_US) == 0);
    mag_store_release(&shall_end, 1);
    return 0;
}

/* ---- handles: test_handle, test_timer, cancelled events --------------------------------------- */

ON_1_AND_4(callbacks, a_cancelled_handle_is_not_called)
{
    struct mag_call *h, *timer;

    SHOULD(mag_rt_call(mag_rt_self(), 0, writes, arg_of(1), &h) == 0);
    SHOULD(mag_rt_call(mag_rt_self(), mag_now() + MAG_MINUTE, writes, arg_of(2), &timer) == 0);
    SHOULD(mag_call_cancel(h) == 0 && mag_call_cancel(timer) == 0);
    SHOULD(mag_sleep(4 * MAG_MS) == 0);
    SHOULD(diary_length() == 0);
    return 0;
}

static void cancels(void *handle)
{
    diary_write(mag_call_cancel(handle));
}

ON_1_AND_4(callbacks, one_callback_cancels_another)
{
    mag_time when = mag_now() + MAG_MS;
    struct mag_call *h;

    SHOULD(mag_rt_call(mag_rt_self(), when + MAG_MINUTE, writes, arg_of(2), &h) == 0);
    SHOULD(mag_call_at(when, cancels, h) == 0);
    SHOULD(written(1));
    SHOULD(mag_sleep(4 * MAG_MS) == 0);
    SHOULD(DIARY_IS(0));
    return 0;
}

ON_1_AND_4(callbacks, a_cancel_of_one_that_has_run_is_too_late)
{
    struct mag_call *h;

    SHOULD(mag_rt_call(mag_rt_self(), 0, writes, arg_of(1), &h) == 0);
    SHOULD(written(1));
    SHOULD(mag_call_cancel(h) == -EALREADY);
    return 0;
}

/* test__run_once_cancelled_event_cleanup: many that are cancelled cost nothing for long. */
ON_1(callbacks, many_cancelled_ones_are_not_kept)
{
    enum { N = 2000 };
    int64_t live = 0;

    for (int round = 0; round < 5; round++) {
        struct mag_call *h[N];
        if (round == 1)
            live = mag_mem_live(); /* some is kept for the next objects */
        for (int i = 0; i < N; i++)
            SHOULD(mag_rt_call(mag_rt_self(), mag_now() + 3600 * MAG_SECOND, writes, NULL, &h[i]) ==
                   0);
        for (int i = 0; i < N; i++)
            SHOULD(mag_call_cancel(h[i]) == 0);
    }
    SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_mem_live() <= live);
    return 0;
}

/* ---- threads: test_call_soon_threadsafe ------------------------------------------------------------ */

static void *calls_from_outside(void *rt)
{
    int rc = mag_rt_call(rt, 0, writes, arg_of(1), NULL);

    return arg_of(rc < 0 ? rc : mag_rt_call(rt, 0, writes, arg_of(2), NULL));
}

ON_1_AND_4(callbacks, from_another_thread_it_wakes_the_loop)
{
    mag_time begun = mag_now();
    pthread_t t;
    void *rc;

    SHOULD(pthread_create(&t, NULL, calls_from_outside, mag_rt_self()) == 0);
    SHOULD(pthread_join(t, &rc) == 0 && rc == NULL);
    SHOULD(written(2) && DIARY_IS(1, 2));
    SHOULD(mag_now() - begun < 15 * MAG_SECOND);
    return 0;
}

ON_1_AND_4(callbacks, threadsafe_on_the_same_thread_is_as_soon)
{
    SHOULD(mag_rt_call(mag_rt_self(), 0, writes, arg_of(1), NULL) == 0);
    SHOULD(mag_call_soon(writes, arg_of(2)) == 0);
    SHOULD(mag_rt_call(mag_rt_self(), 0, writes, arg_of(3), NULL) == 0);
    diary_write(0);
    SHOULD(written(4) && DIARY_IS(0, 1, 2, 3));
    return 0;
}

/* test_wrong_thread (debug mode): call_soon elsewhere than on the loop's thread is refused. */
static void *calls_soon_here(void *arg)
{
    (void)arg;
    return arg_of(mag_call_soon(writes, NULL));
}

ON_1(callbacks, soon_in_a_thread_without_a_loop_is_refused)
{
    pthread_t t;
    void *rc;

    SHOULD(pthread_create(&t, NULL, calls_soon_here, NULL) == 0);
    SHOULD(pthread_join(t, &rc) == 0 && num(rc) == -ENXIO);
    return 0;
}

/* ---- a closed loop: test_close ------------------------------------------------------------------------ */

Test(callbacks, a_stopped_loop_takes_no_more)
{
    struct mag_rt *rt;

    diary_clear();
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 1 }), 0);
    cr_assert_eq(mag_rt_stop(rt, MAG_NEVER), 0);
    cr_assert_eq(mag_rt_call(rt, 0, writes, NULL, NULL), -ECANCELED);
    cr_assert_eq(mag_rt_call(rt, mag_now() + MAG_MS, writes, NULL, NULL), -ECANCELED);
    mag_rt_free(rt);
    cr_assert_eq(diary_length(), 0);
}

/* What was wanted before the end of a run, and not yet called, is called in the next one. */
static int schedules(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_call_later(2 * MAG_MS, writes, arg_of(1));
}

static int waits_for_one(void *arg, long *value)
{
    (void)arg, (void)value;
    return written(1) ? 0 : -ETIMEDOUT;
}

Test(callbacks, they_outlive_the_run_in_which_they_were_wanted)
{
    struct mag_rt *rt;

    diary_clear();
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 1 }), 0);
    cr_assert_eq(mag_rt_run(rt, co(schedules, NULL), NULL), 0);
    cr_assert_eq(mag_rt_run(rt, co(waits_for_one, NULL), NULL), 0);
    mag_rt_free(rt);
    cr_assert(DIARY_IS(1));
}
