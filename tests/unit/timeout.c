/* SPDX-License-Identifier: MIT */
/* mag_checkpoint, mag_wait_for and mag_shield (runtime/timeout.c). */
#include "body.h"
#include "task.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(timeout, .timeout = 60);

/* ---- mag_checkpoint -------------------------------------------------------------------------- */

Test(timeout, a_checkpoint_outside_a_task_is_nothing)
{
    cr_assert_eq(mag_checkpoint(), 0);
}

static int checks(void *arg, long *value)
{
    struct mag_scope s;

    (void)arg, (void)value;
    SHOULD(mag_checkpoint() == 0);
    SHOULD(mag_scope_enter(&s, mag_now() - 1, NULL) == 0);
    SHOULD(mag_checkpoint() == -ECANCELED); /* without any suspension */
    SHOULD(mag_checkpoint() == -ECANCELED); /* level-triggered */
    SHOULD(mag_scope_leave(&s, -ECANCELED) == -ETIMEDOUT);
    SHOULD(mag_checkpoint() == 0);
    mag_cancel(mag_self());
    SHOULD(mag_checkpoint() == -ECANCELED);
    SHOULD(mag_shield_enter(&s, MAG_NEVER, NULL) == 0);
    SHOULD(mag_checkpoint() == 0);
    SHOULD(mag_scope_leave(&s, 0) == 0);
    SHOULD(mag_checkpoint() == -ECANCELED);
    return 0;
}

Test(timeout, a_checkpoint_sees_cancels_and_deadlines)
{
    RUN_1_AND_4(checks, NULL);
}

static int ends_soon(void *arg, long *value)
{
    (void)value;
    *(bool *)arg = true;
    return 0;
}

/* A loop of checkpoints is not alone on its worker. */
static int checks_for_long(void *arg, long *value)
{
    bool has_run = false;
    struct co *c = go(ends_soon, &has_run);
    int rc = 0;

    (void)arg, (void)value;
    for (int i = 0; i < 1000000 && rc == 0 && !*(volatile bool *)&has_run; i++)
        rc = mag_checkpoint();
    SHOULD(rc == 0 && has_run);
    return await_co(c, NULL);
}

Test(timeout, checkpoints_let_others_run)
{
    RUN(1, checks_for_long, NULL);
}

static int computes(void *arg, long *value)
{
    int rc = 0;

    (void)arg, (void)value;
    while (rc == 0)
        rc = mag_checkpoint();
    return rc;
}

static int cancels_who_computes(void *arg, long *value)
{
    struct co *c = go(computes, NULL);

    (void)arg, (void)value;
    SHOULD(mag_sleep(5 * MAG_MS) == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    SHOULD(mag_wait_for(co(computes, NULL), 3 * MAG_MS, NULL, 0) == -ETIMEDOUT);
    return 0;
}

Test(timeout, a_computation_can_be_cancelled_and_limited)
{
    RUN_1_AND_4(cancels_who_computes, NULL);
}

/* ---- mag_wait_for ------------------------------------------------------------------------------ */

static int ends_in_time(void *arg, long *value)
{
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_wait_for(co(same, arg_of(5)), MAG_MINUTE, &v, sizeof v) == 0 && v == 5);
    SHOULD(mag_wait_for(go(same_later, arg_of(6)), MAG_MINUTE, &v, sizeof v) == 0 && v == 6);
    SHOULD(mag_wait_for(co(fails_with, arg_of(-EIO)), MAG_MINUTE, &v, sizeof v) == -EIO);
    SHOULD(mag_wait_for(go(same, arg_of(7)), MAG_NEVER, &v, sizeof v) == 0 && v == 7);
    SHOULD(mag_wait_for(go(same, arg_of(8)), MAG_NEVER - 1, &v, sizeof v) == 0 && v == 8);
    SHOULD(mag_wait_for(go(same, arg_of(7)), MAG_MINUTE, NULL, 0) == 0);
    SHOULD(mag_checkpoint() == 0);
    return 0;
}

Test(timeout, wait_for_gives_the_result)
{
    RUN_1_AND_4(ends_in_time, NULL);
}

static int is_late(void *arg, long *value)
{
    struct co *done = go(same, arg_of(3));
    void *f = future();
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_wait_for(co(forever, NULL), MAG_MS, &v, sizeof v) == -ETIMEDOUT); /* in place */
    SHOULD(mag_wait_for(go(forever, NULL), MAG_MS, &v, sizeof v) == -ETIMEDOUT); /* a task */
    SHOULD(mag_wait_for(mag_sleep_co(MAG_MINUTE), MAG_MS, NULL, 0) == -ETIMEDOUT);
    SHOULD(mag_wait_for(f, MAG_MS, &v, sizeof v) == -ETIMEDOUT); /* given up */
    SHOULD(set(f, 1) == 0);
    while (!mag_done(done))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_wait_for(done, 0, &v, sizeof v) == 0 && v == 3); /* it is there already */
    SHOULD(mag_wait_for(co(same, arg_of(4)), 0, &v, sizeof v) == 0 && v == 4); /* never suspends */
    SHOULD(mag_wait_for(co(forever, NULL), 0, &v, sizeof v) == -ETIMEDOUT);
    SHOULD(mag_checkpoint() == 0);
    return 0;
}

Test(timeout, wait_for_cancels_what_is_late)
{
    RUN_1_AND_4(is_late, NULL);
}

/* One that is cancelled before it has begun never begins. */
static mag_atomic(uint32_t) n_begun;

static struct co *begun(int (*fn)(void *arg, long *value), void *arg)
{
    uint32_t n = mag_load_acquire(&n_begun);
    struct co *c = go(fn, arg);

    while (mag_load_acquire(&n_begun) == n)
        mag_yield();
    return c;
}

/* Ends well although it was cancelled: the result is not replaced. */
static int insists(void *arg, long *value)
{
    int rc;

    mag_fetch_add(&n_begun, 1);
    rc = mag_sleep(MAG_MINUTE);
    *value = rc == -ECANCELED ? num(arg) : -1;
    return 0;
}

static int fails_when_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    mag_fetch_add(&n_begun, 1);
    return mag_sleep(MAG_MINUTE) == -ECANCELED ? -EIO : 0;
}

static int keeps_results(void *arg, long *value)
{
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_wait_for(co(insists, arg_of(9)), MAG_MS, &v, sizeof v) == 0 && v == 9);
    SHOULD(mag_wait_for(begun(insists, arg_of(8)), MAG_MS, &v, sizeof v) == 0 && v == 8);
    SHOULD(mag_wait_for(co(fails_when_cancelled, NULL), MAG_MS, NULL, 0) == -EIO);
    SHOULD(mag_wait_for(begun(fails_when_cancelled, NULL), MAG_MS, NULL, 0) == -EIO);
    return 0;
}

Test(timeout, a_result_that_comes_late_is_kept)
{
    RUN_1_AND_4(keeps_results, NULL);
}

static int waits_for_long(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_wait_for(co(forever, NULL), MAG_MINUTE, NULL, 0);
}

static int outer_is_shorter(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_wait_for(co(waits_for_long, NULL), MAG_MS, NULL, 0);
}

static int is_cancelled_in_it(void *arg, long *value)
{
    struct co *c = go(waits_for_long, NULL);

    (void)arg, (void)value;
    settle_down();
    mag_cancel(c);
    SHOULD(await_co(c, NULL) == -ECANCELED); /* not -ETIMEDOUT: it was not the limit */
    SHOULD(outer_is_shorter(NULL, NULL) == -ETIMEDOUT);
    mag_cancel(mag_self());
    SHOULD(mag_wait_for(co(forever, NULL), 0, NULL, 0) == -ECANCELED); /* both at once: the outer */
    return 0;
}

Test(timeout, the_callers_cancel_stays_a_cancel)
{
    RUN_1_AND_4(is_cancelled_in_it, NULL);
}

static int uses_it_wrongly(void *arg, long *value)
{
    struct co *c = co(same, arg_of(2));
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_wait_for(NULL, MAG_MS, &v, sizeof v) == -ENOMEM);
    SHOULD(mag_wait_for(c, -1, &v, sizeof v) == -EINVAL);
    SHOULD(mag_wait_for(c, MAG_MS, &v, 1) == -EINVAL); /* a result of another size */
    SHOULD(await_co(c, &v) == 0 && v == 2);            /* nothing was consumed */
    SHOULD(mag_wait_for(c, MAG_MS, &v, sizeof v) == -EALREADY);
    SHOULD(mag_checkpoint() == 0);
    return 0;
}

Test(timeout, wait_for_says_what_is_wrong)
{
    RUN(1, uses_it_wrongly, NULL);
}

Test(timeout, outside_a_task_a_limit_cannot_be_kept)
{
    struct co *c = co(same, arg_of(4));
    long v = 0;

    cr_assert_eq(mag_wait_for(c, MAG_MS, &v, sizeof v), -ENXIO);
    cr_assert_eq(mag_wait_for(c, MAG_NEVER, &v, sizeof v), 0);
    cr_assert_eq(v, 4);
}

/* The result comes at the very moment of the limit: one of the two, never a third thing. */
static int at_the_same_instant(void *arg, long *value)
{
    int n_late = 0, n_there = 0;
    long v;

    (void)arg, (void)value;
    for (int i = 0; i < 60; i++) {
        mag_time limit = 100 * MAG_US + i % 7 * MAG_US;
        v = -1;
        int rc = mag_wait_for((i % 2 ? go : co)(sleep_ns, arg_of(limit)), limit, &v, sizeof v);
        SHOULD((rc == 0 && v == limit) || (rc == -ETIMEDOUT && v == -1));
        n_late += rc != 0;
        n_there += rc == 0;
    }
    SHOULD(n_late + n_there == 60);
    SHOULD(mag_checkpoint() == 0);
    return 0;
}

Test(timeout, a_limit_at_the_instant_of_the_result)
{
    RUN_1_AND_4(at_the_same_instant, NULL);
}

static void *sets_outside(void *arg)
{
    mag_sleep(200 * MAG_US);
    set(arg, 5);
    return NULL;
}

static int future_at_the_same_instant(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 40; i++) {
        void *f = future();
        pthread_t t;
        long v = -1;
        int rc;

        SHOULD(pthread_create(&t, NULL, sets_outside, f) == 0);
        rc = mag_wait_for(f, (180 + i % 10 * 20) * MAG_US, &v, sizeof v);
        SHOULD((rc == 0 && v == 5) || (rc == -ETIMEDOUT && v == -1));
        pthread_join(t, NULL);
    }
    return 0;
}

Test(timeout, a_limit_at_the_instant_of_a_future)
{
    RUN_1_AND_4(future_at_the_same_instant, NULL);
}

/* ---- mag_shield ---------------------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_finished;

static int finishes(void *arg, long *value)
{
    int rc = mag_sleep(num(arg));

    mag_fetch_add(&n_finished, rc == 0);
    *value = 1;
    return rc;
}

static int shields(void *arg, long *value)
{
    struct co *done = go(same, arg_of(2));
    void *f = future(), *failed = future();
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_shield(co(same_later, arg_of(1)), &v, sizeof v) == 0 && v == 1);
    while (!mag_done(done))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_shield(done, &v, sizeof v) == 0 && v == 2);
    SHOULD(mag_shield(go(same_later, arg_of(3)), &v, sizeof v) == 0 && v == 3);
    SHOULD(set(f, 4) == 0);
    SHOULD(mag_shield(f, &v, sizeof v) == 0 && v == 4);
    SHOULD(mag_future_fail(failed, -EIO) == 0);
    SHOULD(mag_shield(failed, &v, sizeof v) == -EIO);
    SHOULD(mag_shield(co(fails_with, arg_of(-EBADF)), NULL, 0) == -EBADF);
    return 0;
}

Test(timeout, shield_is_an_await)
{
    RUN_1_AND_4(shields, NULL);
}

static int shield_it(void *awaitable, long *value)
{
    mag_fetch_add(&n_begun, 1);
    return mag_shield(awaitable, value, sizeof *value);
}

static mag_atomic(uint32_t) may_finish;

/* Not before it may. */
static int finishes_when_told(void *arg, long *value)
{
    int rc = 0;

    (void)arg;
    while (rc == 0 && !mag_load_acquire(&may_finish))
        rc = mag_sleep(100 * MAG_US);
    mag_fetch_add(&n_finished, rc == 0);
    *value = 1;
    return rc;
}

/* In each state of the awaited one: the caller ends at once, the other goes on. */
static int caller_is_cancelled(void *arg, long *value)
{
    struct co *caller;
    void *f = future();

    (void)arg, (void)value;
    mag_store_relaxed(&n_finished, 0);
    for (int i = 0; i < 2; i++) {
        struct co *(*make)(int (*)(void *, long *), void *) = i ? go : co;
        mag_store_relaxed(&may_finish, 0);
        caller = begun(shield_it, make(finishes_when_told, NULL));
        settle_down();
        mag_cancel(caller);
        SHOULD(await_co(caller, NULL) == -ECANCELED);
        SHOULD(mag_load_acquire(&n_finished) == (uint32_t)i);
        mag_store_release(&may_finish, 1);
        while (mag_load_acquire(&n_finished) == (uint32_t)i)
            mag_sleep(MAG_MS);
    }
    caller = begun(shield_it, f);
    settle_down();
    mag_cancel(caller);
    SHOULD(await_co(caller, NULL) == -ECANCELED);
    SHOULD(set(f, 1) == 0); /* the setter still may */
    return 0;
}

Test(timeout, a_cancel_of_the_caller_does_not_reach_the_shielded_one)
{
    RUN_1_AND_4(caller_is_cancelled, NULL);
}

static int under_a_limit(void *arg, long *value)
{
    struct mag_scope s;
    int rc;

    (void)arg, (void)value;
    mag_store_relaxed(&n_finished, 0);
    mag_store_relaxed(&may_finish, 0);
    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    rc = mag_shield(co(finishes_when_told, NULL), NULL, 0);
    SHOULD(rc == -ECANCELED);
    SHOULD(mag_load_acquire(&n_finished) == 0);
    mag_store_release(&may_finish, 1);
    SHOULD(mag_scope_leave(&s, rc) == -ETIMEDOUT);
    while (mag_load_acquire(&n_finished) == 0)
        SHOULD(mag_sleep(MAG_MS) == 0);
    return 0;
}

Test(timeout, a_deadline_of_the_caller_neither)
{
    RUN_1_AND_4(under_a_limit, NULL);
}

/* Cancelled before it shields: it does not wait, but what it has is begun and goes on; a
 * result that is there already is taken. */
static int cancelled_before(void *arg, long *value)
{
    struct co *done = go(same, arg_of(2));
    void *unset = future(), *was_set = future();
    long v = 0;

    (void)arg, (void)value;
    while (!mag_done(done))
        SHOULD(mag_yield() == 0);
    SHOULD(set(was_set, 3) == 0);
    mag_cancel(mag_self());
    SHOULD(mag_shield(co(finishes, arg_of(0)), NULL, 0) == -ECANCELED);
    SHOULD(mag_shield(go(finishes, arg_of(0)), NULL, 0) == -ECANCELED);
    SHOULD(mag_shield(done, &v, sizeof v) == 0 && v == 2);
    SHOULD(mag_shield(was_set, &v, sizeof v) == 0 && v == 3);
    SHOULD(mag_shield(unset, &v, sizeof v) == -ECANCELED);
    SHOULD(set(unset, 1) == 0);
    return 0;
}

static int shields_when_cancelled(void *arg, long *value)
{
    struct co *c;

    (void)value;
    mag_store_relaxed(&n_finished, 0);
    c = go(cancelled_before, arg);
    SHOULD(await_co(c, NULL) == 0);
    for (int i = 0; i < 20000 && mag_load_acquire(&n_finished) < 2; i++)
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(mag_load_acquire(&n_finished) == 2);
    return 0;
}

Test(timeout, shield_in_a_cancelled_task)
{
    RUN_1_AND_4(shields_when_cancelled, NULL);
}

/* The shielded one itself is cancelled: that is its end, as of any task. */
static int shielded_is_cancelled(void *arg, long *value)
{
    struct co *c = go(forever, NULL), *caller = go(shield_it, c);

    (void)arg, (void)value;
    settle_down();
    mag_cancel(c);
    SHOULD(await_co(caller, NULL) == -ECANCELED);
    return 0;
}

Test(timeout, a_cancel_of_the_shielded_one_ends_it)
{
    RUN_1_AND_4(shielded_is_cancelled, NULL);
}

static int shields_wrongly(void *arg, long *value)
{
    struct co *c = go(forever, NULL), *other = go(shield_it, c), *fresh = co(same, arg_of(1));
    long v;

    (void)arg, (void)value;
    while (!mag_slot_is_waiter(mag_load_acquire(&mag_task_of_frame(c)->work.slot)))
        SHOULD(mag_sleep(100 * MAG_US) == 0);
    SHOULD(mag_shield(NULL, &v, sizeof v) == -ENOMEM);
    SHOULD(mag_shield(fresh, &v, 1) == -EINVAL);
    SHOULD(mag_shield(fresh, &v, sizeof v) == 0 && v == 1); /* it was not consumed */
    SHOULD(mag_shield(fresh, &v, sizeof v) == -EALREADY);
    SHOULD(mag_shield(c, &v, sizeof v) == -EALREADY); /* somebody else waits for it */
    SHOULD(mag_shield(mag_self(), NULL, 0) == -EDEADLK);
    mag_cancel(c);
    SHOULD(await_co(other, NULL) == -ECANCELED);
    return 0;
}

Test(timeout, shield_says_what_is_wrong)
{
    RUN_1_AND_4(shields_wrongly, NULL);
}

Test(timeout, outside_a_task_shield_is_an_await)
{
    struct mag_rt_options options = { .workers = 2 };
    struct mag_rt *rt;
    struct co *c = co(same, arg_of(3)), *task = co(finishes, arg_of(MAG_MS));
    long v = 0;

    cr_assert_eq(mag_rt_new(&rt, &options), 0);
    cr_assert_eq(mag_shield(c, &v, sizeof v), 0);
    cr_assert_eq(v, 3);
    cr_assert_eq(mag_submit(rt, task, NULL), 0);
    cr_assert_eq(mag_shield(task, &v, sizeof v), 0);
    cr_assert_eq(v, 1);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

/* The cancel comes at the instant of the end: the result or the cancel; and nothing leaks. */
static int ends_at_that_instant(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 60; i++) {
        struct co *c = go(sleep_ns, arg_of(200 * MAG_US)), *caller = go(shield_it, c);
        long v = -1;
        int rc;

        mag_sleep((190 + i % 20) * MAG_US);
        mag_cancel(caller);
        rc = await_co(caller, &v);
        SHOULD((rc == 0 && v == 200 * MAG_US) || rc == -ECANCELED);
    }
    return 0;
}

Test(timeout, a_cancel_at_the_instant_of_the_end)
{
    RUN_1_AND_4(ends_at_that_instant, NULL);
}
