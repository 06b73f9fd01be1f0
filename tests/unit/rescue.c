/* SPDX-License-Identifier: MIT */
/*
 * The owner's place of a worker (worker.h: mag_worker_enter, mag_worker_leave), and what a
 * rescuer does there (rescue.c) while a task of that worker computes.  tests/stress/rescue.c
 * has the scenes in which several things happen at once.
 */
#include "body.h"

#include "rescue.h"
#include "worker.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(rescue, .timeout = 100);

static void ignore(void *arg, const char *line)
{
    (void)arg, (void)line;
}

/* As RUN, but the watchdog's words on who computes are not wanted. */
static int run_quietly(unsigned workers, int (*fn)(void *arg, long *value))
{
    struct mag_rt_options options = { .workers = workers, .report = ignore };

    return mag_run_with(co(fn, NULL), NULL, &options);
}

#define RUN_QUIETLY(workers, fn) \
    do { \
        int rc_of_run = run_quietly(workers, fn); \
        cr_assert_eq(rc_of_run, 0, "%s, line %d: %s", mag_err_name(rc_of_run), broken_line, \
                     broken_claim); \
        cr_assert_eq(mag_mem_live(), 0); \
    } while (0)

/* ---- the place --------------------------------------------------------------------------------- */

static int nests(void *arg, long *value)
{
    struct mag_worker *w = mag_worker_self();
    uint32_t outer, inner;

    (void)arg, (void)value;
    SHOULD(mag_load_relaxed(&w->is_inside) == 0); /* user code is outside */
    outer = mag_worker_enter(w);
    SHOULD(outer == 0 && mag_load_relaxed(&w->is_inside) == 1);
    inner = mag_worker_enter(w);
    SHOULD(inner == 1);
    mag_worker_leave(w, inner);
    SHOULD(mag_load_relaxed(&w->is_inside) == 1);
    mag_worker_leave(w, outer);
    SHOULD(mag_load_relaxed(&w->is_inside) == 0);
    return 0;
}

Test(rescue, entering_nests)
{
    RUN_1_AND_4(nests, NULL);
}

static int one(void *arg)
{
    (void)arg;
    return 1;
}

#define OUTSIDE() SHOULD(mag_load_relaxed(&mag_worker_self()->is_inside) == 0)

static int is_outside_after_each_call(void *arg, long *value)
{
    struct mag_mutex m = { 0 };
    struct mag_scope s;
    struct co *c;

    (void)arg, (void)value;
    SHOULD(mag_yield() == 0);
    OUTSIDE();
    SHOULD(mag_sleep(MAG_MS) == 0);
    OUTSIDE();
    SHOULD((c = go(forever, NULL)) != NULL);
    OUTSIDE();
    SHOULD(mag_yield() == 0);
    SHOULD(mag_cancel(c) == 0);
    OUTSIDE();
    SHOULD(await_co(c, NULL) == -ECANCELED);
    OUTSIDE();
    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, mag_sleep(MAG_MINUTE)) == -ETIMEDOUT);
    OUTSIDE();
    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_unlock(&m) == 0);
    OUTSIDE();
    SHOULD(mag_call_soon(free, NULL) == 0);
    OUTSIDE();
    SHOULD(mag_wait_for(co(forever, NULL), MAG_MS, NULL, 0) == -ETIMEDOUT);
    OUTSIDE();
    SHOULD(mag_to_thread(one, NULL) == 1);
    OUTSIDE();
    return 0;
}

Test(rescue, user_code_is_never_inside)
{
    RUN_1_AND_4(is_outside_after_each_call, NULL);
}

/* Who is inside already does not make way for a rescuer who has just asked; who enters does. */
static void *goes_away(void *arg)
{
    struct mag_worker *w = arg;

    usleep(3000);
    mag_store_release(&w->is_rescued, 0);
    return NULL;
}

static int waits_for_the_rescuer(void *arg, long *value)
{
    struct mag_worker *w = mag_worker_self();
    mag_time begun;
    pthread_t t;
    uint32_t was, inner;

    (void)arg, (void)value;
    was = mag_worker_enter(w);
    mag_store_relaxed(&w->is_rescued, 1); /* one has asked, and will see that we are inside */
    inner = mag_worker_enter(w);
    SHOULD(mag_load_relaxed(&w->is_inside) == 1);
    mag_worker_leave(w, inner);
    mag_worker_leave(w, was);
    begun = mag_now();
    SHOULD(pthread_create(&t, NULL, goes_away, w) == 0);
    was = mag_worker_enter(w);
    SHOULD(was == 0 && mag_load_relaxed(&w->is_inside) == 1);
    SHOULD(mag_now() - begun >= 2 * MAG_MS);
    SHOULD(mag_load_relaxed(&w->is_rescued) == 0);
    mag_worker_leave(w, was);
    pthread_join(t, NULL);
    return 0;
}

Test(rescue, who_enters_waits_for_the_rescuer)
{
    RUN(1, waits_for_the_rescuer, NULL);
}

/* ---- what is rescued ------------------------------------------------------------------------------ */

static mag_atomic(uint32_t) may_end, is_stuck;

/* Never longer than some seconds: then what waits for it has failed. */
static int computes(void *arg, long *value)
{
    mag_time end = mag_now() + 20 * MAG_SECOND;

    (void)arg;
    mag_store_release(&is_stuck, 1);
    while (!mag_load_acquire(&may_end) && mag_now() < end)
        mag_cpu_relax();
    *value = mag_load_acquire(&may_end);
    mag_store_release(&is_stuck, 0);
    return 0;
}

static struct co *at_1(int (*fn)(void *arg, long *value), void *arg, bool pin)
{
    struct co *c = co(fn, arg);

    if (mag_start(c, &(struct mag_spawn_options){ .worker = 1, .pin = pin }) < 0)
        abort();
    return c;
}

static mag_atomic(uint32_t) n_waiting;

/* Not stuck before all n of worker 1 have suspended. */
static struct co *stick(uint32_t n)
{
    struct co *c;

    while (mag_load_acquire(&n_waiting) < n)
        mag_sleep(100 * MAG_US);
    mag_store_relaxed(&may_end, 0);
    c = at_1(computes, NULL, true);
    while (!mag_load_acquire(&is_stuck))
        mag_sleep(100 * MAG_US);
    return c;
}

static int unstick(struct co *c)
{
    long in_time = 0;

    mag_store_release(&may_end, 1);
    return await_co(c, &in_time) == 0 && in_time ? 0 : -ETIME;
}

static int on_worker(void)
{
    return (int)mag_worker_self()->id + 1;
}

static int sleeps_there(void *arg, long *value)
{
    int rc;

    mag_fetch_add(&n_waiting, 1);
    rc = mag_sleep(num(arg));
    *value = on_worker();
    return rc;
}

static int a_sleeper_moves(void *arg, long *value)
{
    struct co *c, *hog;
    bool has_moved = false;
    long where = 0;

    (void)arg, (void)value;
    while (!has_moved) { /* again if it woke before the worker was stuck */
        mag_store_relaxed(&n_waiting, 0);
        c = at_1(sleeps_there, arg_of(20 * MAG_MS), false);
        hog = stick(1);
        has_moved = !mag_done(c);
        SHOULD(await_co(c, &where) == 0 && (where == 2 || !has_moved));
        SHOULD(unstick(hog) == 0);
    }
    return 0;
}

Test(rescue, a_sleeper_goes_on_elsewhere)
{
    RUN_QUIETLY(2, a_sleeper_moves);
}

static int pinned_ones_stay(void *arg, long *value)
{
    struct co *pinned, *other, *hog;
    bool are_waiting = false;
    long where = 0;

    (void)arg, (void)value;
    while (!are_waiting) { /* again if one woke before the worker was stuck */
        mag_store_relaxed(&n_waiting, 0);
        pinned = at_1(sleeps_there, arg_of(10 * MAG_MS), true);
        other = at_1(sleeps_there, arg_of(30 * MAG_MS), false);
        hog = stick(2);
        are_waiting = !mag_done(pinned) && !mag_done(other);
        SHOULD(await_co(other, &where) == 0 && (where == 2 || !are_waiting));
        SHOULD(!are_waiting || !mag_done(pinned));
        SHOULD(unstick(hog) == 0);
        SHOULD(await_co(pinned, &where) == 0 && where == 1);
    }
    return 0;
}

Test(rescue, a_pinned_one_stays)
{
    RUN_QUIETLY(2, pinned_ones_stay);
}

static int cancels_a_sleeper(void *arg, long *value)
{
    struct co *c = at_1(sleeps_there, arg_of(MAG_MINUTE), false), *hog = stick(1);

    (void)arg, (void)value;
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    return unstick(hog);
}

Test(rescue, a_cancel_takes_effect)
{
    RUN_QUIETLY(2, cancels_a_sleeper);
}

static int limited(void *arg, long *value)
{
    (void)arg, (void)value;
    mag_fetch_add(&n_waiting, 1);
    return mag_wait_for(co(forever, NULL), 20 * MAG_MS, NULL, 0);
}

static int a_deadline_passes(void *arg, long *value)
{
    struct co *c = at_1(limited, NULL, false), *hog = stick(1);

    (void)arg, (void)value;
    SHOULD(await_co(c, NULL) == -ETIMEDOUT);
    return unstick(hog);
}

Test(rescue, a_deadline_takes_effect)
{
    RUN_QUIETLY(2, a_deadline_passes);
}

/* Sleeps without a stack: nobody's fiber. */
static int gathers_sleeps(void *arg, long *value)
{
    void *s[5];

    (void)arg, (void)value;
    for (int i = 0; i < 5; i++)
        s[i] = mag_sleep_co((10 + i) * MAG_MS);
    mag_fetch_add(&n_waiting, 1);
    return mag_gather(NULL, 0, s, 5, NULL);
}

static int leaves_end(void *arg, long *value)
{
    struct co *c = at_1(gathers_sleeps, NULL, false), *hog = stick(1);

    (void)arg, (void)value;
    SHOULD(await_co(c, NULL) == 0);
    return unstick(hog);
}

Test(rescue, sleep_coroutines_end)
{
    RUN_QUIETLY(2, leaves_end);
}

static int reads_future(void *f, long *value)
{
    mag_fetch_add(&n_waiting, 1);
    return mag_await(f, value, sizeof *value);
}

static int a_future_comes(void *arg, long *value)
{
    void *f = future();
    struct co *c = at_1(reads_future, f, false), *hog = stick(1);
    long v = 0;

    (void)arg, (void)value;
    SHOULD(set(f, 17) == 0);
    SHOULD(await_co(c, &v) == 0 && v == 17);
    return unstick(hog);
}

Test(rescue, who_awaits_a_future_goes_on)
{
    RUN_QUIETLY(2, a_future_comes);
}

/* Bytes of a pipe: the completion of the stuck worker's own ring. */
static int pipe_fds[2];

static int reads_pipe(void *arg, long *value)
{
    char name[64], byte = 0;
    struct mag_file f;
    int rc;

    (void)arg;
    snprintf(name, sizeof name, "/proc/self/fd/%d", pipe_fds[0]);
    rc = mag_file_open(&f, name, "r");
    if (rc < 0)
        return rc;
    mag_fetch_add(&n_waiting, 1);
    rc = mag_file_read(&f, &byte, 1);
    *value = byte;
    (void)mag_file_close(&f);
    return rc < 0 ? rc : 0;
}

static int an_operation_completes(void *arg, long *value)
{
    struct co *c = at_1(reads_pipe, NULL, false), *hog = stick(1);
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_sleep(20 * MAG_MS) == 0);
    SHOULD(write(pipe_fds[1], "y", 1) == 1);
    SHOULD(await_co(c, &v) == 0 && v == 'y');
    return unstick(hog);
}

Test(rescue, an_operation_of_its_ring_completes)
{
    cr_assert_eq(pipe(pipe_fds), 0);
    RUN_QUIETLY(2, an_operation_completes);
}

/* With one worker there is nobody to rescue it: everything waits, and then goes on. */
static int nobody_else(void *arg, long *value)
{
    struct co *c = go(sleeps_there, arg_of(5 * MAG_MS));
    long where = 0;

    (void)arg, (void)value;
    while (mag_load_acquire(&n_waiting) == 0)
        SHOULD(mag_yield() == 0);
    for (mag_time end = mag_now() + 40 * MAG_MS; mag_now() < end;)
        mag_cpu_relax();
    SHOULD(!mag_done(c));
    SHOULD(await_co(c, &where) == 0 && where == 1);
    return 0;
}

Test(rescue, one_worker_waits_for_itself)
{
    RUN_QUIETLY(1, nobody_else);
}

/* A worker that is not stuck loses nothing by being rescued all the time. */
static int is_rescued_all_the_time(void *arg, long *value)
{
    struct co *c[40];
    long v;

    (void)arg, (void)value;
    for (int i = 0; i < 40; i++)
        c[i] = go(sleep_ns, arg_of((1 + i % 5) * MAG_MS));
    for (int i = 0; i < 300; i++) {
        for (unsigned k = 0; k < mag_rt_workers(mag_rt_self()); k++)
            mag_rescue_worker(&mag_rt_self()->workers[k]);
        SHOULD(mag_yield() == 0);
    }
    for (int i = 0; i < 40; i++)
        SHOULD(await_co(c[i], &v) == 0 && v == (1 + i % 5) * MAG_MS);
    return 0;
}

Test(rescue, a_rescue_that_was_not_needed_does_no_harm)
{
    RUN_QUIETLY(2, is_rescued_all_the_time);
    RUN_QUIETLY(4, is_rescued_all_the_time);
}
