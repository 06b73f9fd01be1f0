/* SPDX-License-Identifier: MIT */
/* call.c - callbacks: their order, their thread, what they may do, and who cancels them */
#include "body.h"

#include <magpie/fork.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(call, .timeout = 60);

/*
 * A task that is stuck, or just not given a processor, is rescued: another worker then fires its
 * timers, and calls what it wants called, while it is still about to want more.  Where the order
 * is what is tested, there is no watchdog that would call for a rescue.
 */
static void without_rescue(void)
{
    setenv("MAGPIE_WATCHDOG", "0", 1);
}

static mag_atomic(uint32_t) n_called;
static long order[64];

/* By one worker at a time; who sees the count sees the order. */
static void note(void *arg)
{
    order[mag_load_relaxed(&n_called) % 64] = num(arg);
    mag_fetch_add(&n_called, 1);
}

static void set_seven(void *f)
{
    (void)set(f, 7);
}

/* Until n callbacks have run, or for 15 s. */
static int called(uint32_t n)
{
    for (int i = 0; i < 15000 && mag_load_acquire(&n_called) < n; i++)
        (void)mag_sleep(MAG_MS);
    return mag_load_acquire(&n_called) == n;
}

static void begin(void)
{
    n_called = 0;
}

/* ---- order ----------------------------------------------------------------------------- */

static int soon(void *arg, long *value)
{
    (void)arg, (void)value;
    begin();
    for (long i = 0; i < 40; i++)
        SHOULD(mag_call_soon(note, arg_of(i)) == 0);
    SHOULD(mag_load_relaxed(&n_called) == 0); /* not before the caller suspends */
    SHOULD(called(40));
    for (long i = 0; i < 40; i++)
        SHOULD(order[i] == i);
    return 0;
}

Test(call, soon_is_first_in_first_out, .init = without_rescue)
{
    RUN_1_AND_4(soon, NULL);
}

static void note_in_order(void *arg)
{
    if (mag_load_relaxed(&n_called) == num(arg))
        mag_fetch_add(&n_called, 1);
}

/* More than run in a row; a task gets its turn between them. */
static int many_soon(void *arg, long *value)
{
    (void)arg, (void)value;
    begin();
    for (long i = 0; i < 1000; i++)
        SHOULD(mag_call_soon(note_in_order, arg_of(i)) == 0);
    if (mag_rt_workers(mag_rt_self()) == 1) {
        SHOULD(mag_sleep(1) == 0);
        SHOULD(mag_load_acquire(&n_called) > 0);
    }
    SHOULD(called(1000));
    return 0;
}

Test(call, many_soon_in_their_order)
{
    RUN_1_AND_4(many_soon, NULL);
}

static int by_deadline(void *arg, long *value)
{
    mag_time now = mag_now();

    (void)arg, (void)value;
    begin();
    SHOULD(mag_call_at(now + 3 * MAG_MS, note, arg_of(5)) == 0);
    SHOULD(mag_call_at(now + 2 * MAG_MS, note, arg_of(2)) == 0);
    SHOULD(mag_call_at(now + 2 * MAG_MS, note, arg_of(3)) == 0);
    SHOULD(mag_call_at(now + 2 * MAG_MS, note, arg_of(4)) == 0);
    SHOULD(mag_call_at(now - MAG_SECOND, note, arg_of(1)) == 0);
    SHOULD(mag_call_soon(note, arg_of(0)) == 0);
    SHOULD(called(6));
    for (long i = 0; i < 6; i++)
        SHOULD(order[i] == i);
    SHOULD(mag_now() >= now + 3 * MAG_MS);
    return 0;
}

Test(call, by_deadline_and_equal_ones_in_the_order_of_the_calls, .init = without_rescue)
{
    RUN_1_AND_4(by_deadline, NULL);
}

static int later(void *arg, long *value)
{
    mag_time begun = mag_now(), wanted;

    (void)arg, (void)value;
    begin();
    SHOULD(mag_call_later(60 * MAG_MS, note, arg_of(1)) == 0);
    SHOULD(mag_call_later(0, note, arg_of(0)) == 0);
    wanted = mag_now();
    SHOULD(called(2));
    /* unless it stalled between the two, and the first was due before the second */
    SHOULD(wanted >= begun + 60 * MAG_MS || (order[0] == 0 && order[1] == 1));
    SHOULD(mag_now() - begun >= 60 * MAG_MS);
    return 0;
}

Test(call, later_by_a_delay, .init = without_rescue)
{
    RUN_1_AND_4(later, NULL);
}

static void again(void *arg)
{
    note(arg);
    if (num(arg) < 30)
        (void)mag_call_soon(again, arg_of(num(arg) + 1));
}

static int chain(void *arg, long *value)
{
    (void)arg, (void)value;
    begin();
    SHOULD(mag_call_soon(again, arg_of(0)) == 0);
    SHOULD(mag_call_soon(note, arg_of(100)) == 0);
    SHOULD(called(32));
    SHOULD(order[0] == 0 && order[1] == 100 && order[2] == 1);
    return 0;
}

Test(call, a_callback_calls_soon_behind_those_that_are_there, .init = without_rescue)
{
    RUN_1_AND_4(chain, NULL);
}

/* ---- what it may do, and what not ---------------------------------------------------------- */

static struct {
    int sleep, yield, await_future, await_co, gather, thread, checkpoint;
    long v;
    int has_self, has_rt;
    struct co *child;
} tried;

static int nothing(void *arg)
{
    (void)arg;
    return 3;
}

static void try_to_suspend(void *arg)
{
    void *f = future(), *two[2] = { co(sleep_ns, arg_of(MAG_MS)), co(sleep_ns, arg_of(MAG_MS)) };

    tried.sleep = mag_sleep(MAG_MS);
    tried.yield = mag_yield();
    tried.await_future = await_co(f, NULL);
    (void)set(f, 1);
    (void)await_co(f, NULL); /* done: nothing to wait for */
    tried.await_co = await_co(co(sleep_ns, arg_of(MAG_MS)), NULL);
    tried.gather = mag_gather(NULL, 0, two, 2, NULL);
    tried.thread = mag_to_thread(nothing, NULL);
    tried.checkpoint = mag_checkpoint();
    tried.has_self = mag_self() != NULL;
    tried.has_rt = mag_rt_self() != NULL;
    tried.child = go(same_later, arg_of(11));
    (void)set(arg, 7);
}

static int in_callback(void *arg, long *value)
{
    void *f = future();
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_call_soon(try_to_suspend, f) == 0);
    SHOULD(await_co(f, &v) == 0 && v == 7);
    SHOULD(tried.sleep == -ENXIO);
    SHOULD(tried.yield == -ENXIO);
    SHOULD(tried.await_future == -ENXIO);
    SHOULD(tried.await_co == -ENXIO);
    SHOULD(tried.gather == -ENXIO);
    SHOULD(tried.thread == -ENXIO);
    SHOULD(tried.checkpoint == 0);
    SHOULD(!tried.has_self && tried.has_rt);
    SHOULD(tried.child && await_co(tried.child, &v) == 0 && v == 11);
    return 0;
}

Test(call, a_callback_must_not_suspend_but_may_spawn)
{
    RUN_1_AND_4(in_callback, NULL);
}

static mag_atomic(int) sleep_co_rc;

static void await_a_sleep(void *arg)
{
    mag_store_release(&sleep_co_rc, mag_await(mag_sleep_co(MAG_MS), NULL, 0));
    (void)set(arg, 7);
}

static int leaf_in_callback(void *arg, long *value)
{
    void *f = future();

    (void)arg, (void)value;
    SHOULD(mag_call_soon(await_a_sleep, f) == 0);
    SHOULD(await_co(f, NULL) == 0);
    SHOULD(mag_load_acquire(&sleep_co_rc) == -ENXIO);
    return settle_down();
}

Test(call, a_callback_must_not_await_a_sleep)
{
    RUN(1, leaf_in_callback, NULL);
}

static int sets_a_future(void *arg, long *value)
{
    void *f = future();
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_call_later(MAG_MS, set_seven, f) == 0);
    SHOULD(await_co(f, &v) == 0 && v == 7);
    return 0;
}

Test(call, a_callback_sets_a_future)
{
    RUN_1_AND_4(sets_a_future, NULL);
}

static int refuses(void *arg, long *value)
{
    struct mag_call *c;

    (void)arg, (void)value;
    SHOULD(mag_call_soon(NULL, NULL) == -EINVAL);
    SHOULD(mag_call_later(-1, note, NULL) == -EINVAL);
    SHOULD(mag_call_at(-1, note, NULL) == -EINVAL);
    SHOULD(mag_rt_call(NULL, 0, note, NULL, &c) == -EINVAL);
    SHOULD(mag_rt_call(mag_rt_self(), -1, note, NULL, &c) == -EINVAL);
    SHOULD(mag_call_cancel(NULL) == -EINVAL);
    return 0;
}

Test(call, nonsense_is_refused)
{
    RUN(1, refuses, NULL);
    cr_assert_eq(mag_call_soon(note, NULL), -ENXIO);
    cr_assert_eq(mag_call_later(0, note, NULL), -ENXIO);
    cr_assert_eq(mag_call_at(mag_now(), note, NULL), -ENXIO);
}

/* ---- from other threads ---------------------------------------------------------------------- */

static pthread_t called_on[64];

static void note_thread(void *arg)
{
    called_on[mag_load_relaxed(&n_called) % 64] = pthread_self();
    note(arg);
}

static void *call_40(void *rt)
{
    for (long i = 0; i < 40; i++)
        if (mag_rt_call(rt, 0, note_thread, arg_of(i), NULL) < 0)
            return arg_of(1);
    return NULL;
}

static int from_outside(void *arg, long *value)
{
    pthread_t t;
    void *rc;

    (void)arg, (void)value;
    begin();
    SHOULD(pthread_create(&t, NULL, call_40, mag_rt_self()) == 0);
    SHOULD(called(40));
    SHOULD(pthread_join(t, &rc) == 0 && rc == NULL);
    for (long i = 0; i < 40; i++)
        SHOULD(order[i] == i && pthread_equal(called_on[i], called_on[0]));
    SHOULD(!pthread_equal(called_on[0], t));
    return 0;
}

Test(call, from_outside_in_the_order_of_the_calls_on_one_worker, .init = without_rescue)
{
    RUN_1_AND_4(from_outside, NULL);
}

Test(call, between_two_runs)
{
    struct mag_rt *rt;
    long v = 0;

    begin();
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2 }), 0);
    cr_assert_eq(mag_rt_call(rt, 0, note, arg_of(1), NULL), 0);
    cr_assert_eq(mag_rt_call(rt, mag_now() + 2 * MAG_MS, note, arg_of(2), NULL), 0);
    while (mag_load_acquire(&n_called) < 2)
        usleep(100);
    cr_assert_eq(mag_rt_run(rt, co(same, arg_of(4)), &v), 0);
    cr_assert_eq(order[0], 1);
    cr_assert_eq(order[1], 2);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- cancelling --------------------------------------------------------------------------------- */

static int cancels(void *arg, long *value)
{
    struct mag_rt *rt = mag_rt_self();
    struct mag_call *c[3];

    (void)arg, (void)value;
    begin();
    SHOULD(mag_rt_call(rt, 0, note, arg_of(0), &c[0]) == 0);
    SHOULD(mag_rt_call(rt, mag_now() + MAG_MS, note, arg_of(1), &c[1]) == 0);
    SHOULD(mag_rt_call(rt, MAG_NEVER, note, arg_of(2), &c[2]) == 0);
    SHOULD(mag_call_cancel(c[0]) == 0);
    SHOULD(called(1) && order[0] == 1);
    SHOULD(mag_call_cancel(c[1]) == -EALREADY);
    SHOULD(mag_call_cancel(c[2]) == 0);
    SHOULD(settle_down() == 0);
    SHOULD(mag_load_relaxed(&n_called) == 1);
    return 0;
}

Test(call, cancelled_it_does_not_run, .init = without_rescue)
{
    RUN_1_AND_4(cancels, NULL);
}

static struct mag_call *own;
static mag_atomic(int) own_rc;

static void cancel_own(void *arg)
{
    mag_store_release(&own_rc, mag_call_cancel(own));
    note(arg);
}

static int cancels_itself(void *arg, long *value)
{
    (void)arg, (void)value;
    begin();
    SHOULD(mag_rt_call(mag_rt_self(), mag_now() + MAG_MS, cancel_own, NULL, &own) == 0);
    SHOULD(called(1));
    SHOULD(mag_load_acquire(&own_rc) == -EALREADY);
    return 0;
}

Test(call, a_callback_that_runs_cannot_be_cancelled)
{
    RUN(1, cancels_itself, NULL);
}

/* Cancelled from a thread while it is on its way, armed, or due: it runs or it does not. */
struct race {
    struct mag_rt *rt;
    mag_atomic(uint32_t) n_run;
    uint32_t n_cancelled, n_late;
};

static void count(void *arg)
{
    mag_fetch_add(&((struct race *)arg)->n_run, 1);
}

static void *races(void *arg)
{
    struct race *r = arg;
    struct mag_call *c;

    for (int i = 0; i < 2000; i++) {
        mag_time when = i % 3 == 0 ? 0 : mag_now() + i % 40 * MAG_US;
        if (mag_rt_call(r->rt, when, count, r, &c) < 0)
            return arg_of(1);
        for (volatile int n = i % 500; n; n--)
            ;
        if (mag_call_cancel(c) == 0)
            r->n_cancelled++;
        else
            r->n_late++;
    }
    return NULL;
}

Test(call, cancelled_by_other_threads_at_any_moment)
{
    struct race r[3] = { { 0 } };
    pthread_t t[3];
    struct mag_rt *rt;
    void *rc;

    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2 }), 0);
    for (int i = 0; i < 3; i++) {
        r[i].rt = rt;
        cr_assert_eq(pthread_create(&t[i], NULL, races, &r[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        cr_assert(pthread_join(t[i], &rc) == 0 && rc == NULL);
    mag_rt_free(rt);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(r[i].n_run, r[i].n_late, "%u run, %u too late", r[i].n_run, r[i].n_late);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- at the end ------------------------------------------------------------------------------------ */

static int leaves_callbacks(void *arg, long *value)
{
    (void)arg, (void)value;
    begin();
    SHOULD(mag_call_later(3600 * MAG_SECOND, note, arg_of(9)) == 0);
    SHOULD(mag_call_at(MAG_NEVER, note, arg_of(9)) == 0);
    SHOULD(mag_call_soon(note, arg_of(1)) == 0);
    return 0;
}

Test(call, at_the_end_what_is_wanted_soon_runs_and_the_rest_is_dropped)
{
    mag_time begun = mag_now();

    RUN_1_AND_4(leaves_callbacks, NULL);
    cr_assert_eq(n_called, 1);
    cr_assert_eq(order[0], 1);
    cr_assert_lt(mag_now() - begun, 20 * MAG_SECOND); /* and not an hour */
}

/* A task that the end of the runtime waits for waits for a callback. */
static mag_atomic(long) got;

static int waits_for_it(void *f, long *value)
{
    long v = 0;
    int rc = await_co(f, &v);

    (void)value;
    mag_store_release(&got, v);
    return rc;
}

static int leaves_one_who_waits(void *arg, long *value)
{
    void *f = future();

    (void)arg, (void)value;
    SHOULD(mag_call_later(20 * MAG_MS, set_seven, f) == 0);
    SHOULD(go(waits_for_it, f));
    return 0;
}

Test(call, a_callback_is_not_dropped_while_a_task_may_wait_for_it)
{
    got = 0;
    RUN_1_AND_4(leaves_one_who_waits, NULL);
    cr_assert_eq(got, 7);
}

static void without_end(void *arg)
{
    (void)mag_call_soon(without_end, arg);
}

static int for_ever(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_call_soon(without_end, NULL);
}

Test(call, callbacks_that_go_on_for_ever_do_not_keep_the_runtime)
{
    RUN_1_AND_4(for_ever, NULL);
}

static void spawns(void *arg)
{
    (void)arg;
    mag_fetch_add(&n_called, 1);
    struct co *c = go(sleep_ns, arg_of(50 * MAG_US));
    if (c)
        (void)mag_detach(c);
    (void)mag_call_later(20 * MAG_US, spawns, NULL);
}

static int leaves_a_spawner(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_call_soon(spawns, NULL);
}

Test(call, a_callback_that_spawns_at_the_very_end)
{
    for (int i = 0; i < 100; i++)
        RUN(1 + (unsigned)i % 3, leaves_a_spawner, NULL);
}

Test(call, a_handle_outlives_its_runtime)
{
    struct mag_call *c, *d;
    struct mag_rt *rt;

    begin();
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 1 }), 0);
    cr_assert_eq(mag_rt_call(rt, MAG_NEVER, note, NULL, &c), 0);
    cr_assert_eq(mag_rt_call(rt, 0, note, NULL, &d), 0);
    while (mag_load_acquire(&n_called) < 1)
        usleep(100);
    mag_rt_free(rt);
    cr_assert_eq(mag_call_cancel(c), 0);
    cr_assert_eq(mag_call_cancel(d), -EALREADY);
    cr_assert_eq(n_called, 1);
}

/* Whether it was stopped before the callback was due. */
static bool stop_before(mag_time delay)
{
    mag_time due = mag_now() + delay;
    struct mag_rt *rt;
    struct mag_call *c;
    bool is_in_time;
    int rc;

    begin();
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2 }), 0);
    cr_assert_eq(mag_rt_call(rt, due, note, NULL, &c), 0);
    cr_assert_eq(mag_rt_stop(rt, 20 * MAG_SECOND), 0);
    is_in_time = mag_now() < due;
    cr_assert_eq(mag_rt_call(rt, 0, note, NULL, NULL), -ECANCELED);
    mag_sleep_until(due + 5 * MAG_MS);
    rc = mag_call_cancel(c);
    cr_assert(!is_in_time || (rc == 0 && n_called == 0));
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
    return is_in_time;
}

Test(call, a_stopped_runtime_calls_nothing)
{
    mag_time delay = 5 * MAG_MS;

    while (!stop_before(delay)) /* a busy machine took longer */
        delay *= 2;
}

/* ---- variables ---------------------------------------------------------------------------------------- */

static struct mag_var var = { "var", (void *)1 };
static mag_atomic(long) seen[3];

static void see(void *arg)
{
    mag_store_release(&seen[num(arg)], num(mag_var_get(&var)));
    (void)mag_var_set(&var, arg_of(50));
    mag_store_release(&seen[2], num(mag_var_get(&var)));
    note(arg);
}

static int with_variables(void *arg, long *value)
{
    (void)arg, (void)value;
    begin();
    SHOULD(mag_call_soon(see, arg_of(0)) == 0);
    SHOULD(mag_var_set(&var, arg_of(5)) == 0);
    SHOULD(mag_call_later(MAG_MS, see, arg_of(1)) == 0);
    SHOULD(mag_var_set(&var, arg_of(6)) == 0);
    SHOULD(called(2));
    SHOULD(mag_load_acquire(&seen[0]) == 1);
    SHOULD(mag_load_acquire(&seen[1]) == 5);
    SHOULD(mag_load_acquire(&seen[2]) == 50);
    SHOULD(num(mag_var_get(&var)) == 6);
    return 0;
}

Test(call, a_callback_sees_the_variables_of_its_caller)
{
    RUN_1_AND_4(with_variables, NULL);
}
