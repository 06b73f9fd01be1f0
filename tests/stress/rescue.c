/* SPDX-License-Identifier: MIT */
/*
 * rescue.c - a worker that is stuck, looked at from all sides
 *
 * stuck.c measures how late those are who wait on a stuck worker.  This program asks what is
 * right: who may move and who may not; that cancels, deadlines and callbacks mean the same when
 * a rescuer carries them out; and that the stuck task may use the library all the time while a
 * rescuer comes and goes.
 *
 * A scene runs as a task of its own on worker 2 or later; its hog is a task on worker 1 that
 * spins until the scene says that it may end, or for HOG_MS.
 */
#include "stress.h"

#include "scope.h"
#include "wait.h"
#include "waitq.h"

#include <errno.h>
#include <sched.h>

enum {
    HOG_MS = 10 * 1000, /* if it is not told to end: nothing that waits may take so long */
    WORK_MS = 250,      /* of one whose end is awaited */
    LONG_MS = 60 * 1000,
};

static mag_atomic(uint32_t) may_end, is_hogging;
static mag_atomic(int64_t) hog_ended;

static void at_worker(void *object, unsigned worker, bool pin)
{
    EXPECT(mag_start(object, &(struct mag_spawn_options){ .worker = worker, .pin = pin }) == 0);
}

static unsigned here(void)
{
    return mag_worker_self()->id + 1;
}

/* ---- the hog ----------------------------------------------------------------------------- */

typedef void (*step_fn)(void *arg);

async(void, hog, (step_fn, fn), (void *, arg), (int, ms))
{
    mag_time end = mag_clock_now() + ms * MAG_MS;

    mag_fetch_add(&is_hogging, 1);
    while (mag_clock_now() < end && !mag_load_acquire(&may_end)) {
        if (fn)
            fn(arg);
        else
            mag_cpu_relax();
        stress_beat();
    }
    mag_store_release(&hog_ended, mag_clock_now());
    return 0;
}

static struct hog *hog_on(unsigned worker, step_fn step, void *arg, int ms)
{
    uint32_t n = mag_load_acquire(&is_hogging);
    struct hog *h = hog(step, arg, ms);

    mag_store_relaxed(&may_end, 0);
    mag_store_relaxed(&hog_ended, 0);
    at_worker(h, worker, true);
    while (mag_load_acquire(&is_hogging) == n)
        mag_sleep(100 * MAG_US);
    return h;
}

static void end_hog(struct hog *h)
{
    mag_store_release(&may_end, 1);
    EXPECT(mag_await(h, NULL, 0) == 0);
}

/* While the hog still computes: that is what all this is about. */
static bool before_the_end(void)
{
    return mag_load_acquire(&hog_ended) == 0;
}

static void nap(int ms)
{
    EXPECT(mag_sleep(ms * MAG_MS) == 0);
}

/* ---- who moves, who stays ------------------------------------------------------------------- */

async(int, sleeper, (int, ms))
{
    EXPECT(here() == 1);
    await(mag_sleep(ms * MAG_MS));
    async_return(before_the_end() ? (int)here() : -(int)here());
}

async(void, pinned_stays)
{
    struct sleeper *pinned = sleeper(20), *free_one = sleeper(20);
    int where = 0;

    at_worker(pinned, 1, true);
    at_worker(free_one, 1, false);
    nap(5);
    struct hog *h = hog_on(1, NULL, NULL, HOG_MS);
    EXPECT(mag_await(free_one, &where, sizeof where) == 0);
    EXPECT(where > 1); /* not on the stuck one, and while it was stuck */
    end_hog(h);
    EXPECT(mag_await(pinned, &where, sizeof where) == 0);
    EXPECT(where == -1); /* there, when it was free again */
    return 0;
}

/* Again and again, with many: none is lost, none runs twice. */
async(int, napper, (int, n))
{
    for (int i = 0; i < n; i++)
        await(mag_sleep(3 * MAG_MS));
    async_return(n);
}

async(void, many_move)
{
    enum { N = 60 };
    struct napper *t[N];
    int n;

    for (int i = 0; i < N; i++)
        at_worker(t[i] = napper(10), 1, i % 4 == 0);
    struct hog *h = hog_on(1, NULL, NULL, HOG_MS);
    for (int i = 0; i < N; i++)
        if (i % 4) {
            EXPECT(mag_await(t[i], &n, sizeof n) == 0 && n == 10);
            EXPECT(before_the_end());
        }
    end_hog(h);
    for (int i = 0; i < N; i += 4)
        EXPECT(mag_await(t[i], &n, sizeof n) == 0 && n == 10);
    return 0;
}

/* ---- cancels and deadlines ------------------------------------------------------------------- */

static struct mag_event never_set;
static struct mag_mutex held;
async_future(int, word);

enum { IN_SLEEP, IN_EVENT, IN_MUTEX, IN_FUTURE, IN_LEAF, IN_TASK, IN_WAIT, N_WAYS };

static mag_atomic(
    uint32_t) n_asleep; /* on worker 1, so they have suspended when a hog runs there */

async(int, long_sleep)
{
    mag_fetch_add(&n_asleep, 1);
    await(mag_sleep(LONG_MS * MAG_MS));
    async_return(1);
}

static int wait_in(int way)
{
    void *task;
    bool done;
    int rc;

    switch (way) {
    case IN_SLEEP:
        return mag_sleep(LONG_MS * MAG_MS);
    case IN_EVENT:
        return mag_event_wait(&never_set);
    case IN_MUTEX:
        return mag_mutex_lock(&held);
    case IN_FUTURE: {
        struct word *w = word();
        rc = mag_await(w, NULL, 0);
        mag_future_fail(w, -EIO);
        return rc;
    }
    case IN_LEAF:
        task = mag_sleep_co(LONG_MS * MAG_MS);
        if (mag_start(task, NULL) < 0)
            return -ENOMEM;
        return mag_await(task, NULL, 0);
    case IN_TASK:
        task = long_sleep();
        at_worker(task, 1, false);
        return mag_await(task, NULL, 0);
    default:
        task = long_sleep();
        at_worker(task, 1, false);
        rc = mag_wait(&task, 1, MAG_ALL_COMPLETED, MAG_NEVER, &done);
        mag_close(task);
        return rc;
    }
}

/* Until n have begun to wait, the children of those who wait for one included. */
static void all_asleep(uint32_t n)
{
    while (mag_load_acquire(&n_asleep) < n)
        nap(1);
    mag_store_relaxed(&n_asleep, 0);
}

enum { ALL_ASLEEP = N_WAYS + 2 };

async(int, waits, (int, way))
{
    mag_fetch_add(&n_asleep, 1);
    int rc = wait_in(way);

    EXPECT(rc == -ECANCELED);
    async_return(before_the_end());
}

async(void, cancels_arrive)
{
    struct waits *t[N_WAYS];
    int was_before;

    for (int way = 0; way < N_WAYS; way++)
        at_worker(t[way] = waits(way), 1, false);
    all_asleep(ALL_ASLEEP);
    struct hog *h = hog_on(1, NULL, NULL, HOG_MS);
    nap(12);
    for (int way = 0; way < N_WAYS; way++)
        EXPECT(mag_cancel(t[way]) == 0);
    for (int way = 0; way < N_WAYS; way++) {
        was_before = 0;
        EXPECT(mag_await(t[way], &was_before, sizeof was_before) == 0);
        if (!was_before)
            fprintf(stderr, "rescue: way %d was cancelled late\n", way);
        EXPECT(was_before);
    }
    end_hog(h);
    return 0;
}

async(int, limited, (int, way))
{
    struct mag_scope s;
    int rc = mag_scope_enter(&s, mag_now() + STRESS_SCALE(40, 150) * MAG_MS, NULL);

    mag_fetch_add(&n_asleep, 1);
    if (rc == 0)
        rc = mag_scope_leave(&s, wait_in(way));
    EXPECT(rc == -ETIMEDOUT);
    EXPECT(mag_checkpoint() == 0); /* the scope has been left */
    async_return(before_the_end());
}

async(void, deadlines_fire)
{
    struct limited *t[N_WAYS];
    int was_before;

    for (int way = 0; way < N_WAYS; way++)
        at_worker(t[way] = limited(way), 1, false);
    all_asleep(ALL_ASLEEP);
    struct hog *h = hog_on(1, NULL, NULL, HOG_MS);
    for (int way = 0; way < N_WAYS; way++) {
        was_before = 0;
        EXPECT(mag_await(t[way], &was_before, sizeof was_before) == 0);
        if (!was_before)
            fprintf(stderr, "rescue: way %d has timed out late\n", way);
        EXPECT(was_before);
    }
    end_hog(h);
    return 0;
}

/* A shield holds there, too, and grace ends it. */
static struct mag_event shield_over;

async(int, shielded, (int, grace_ms), (struct mag_event *, e))
{
    struct mag_scope s;
    mag_time begun = mag_now();
    int rc = mag_shield_enter(&s, grace_ms * MAG_MS, NULL);

    mag_fetch_add(&n_asleep, 1);
    if (rc == 0)
        rc = mag_event_wait(e);
    (void)mag_scope_leave(&s, 0);
    EXPECT(mag_sleep(0) == -ECANCELED);
    async_return(rc == 0 ? 0 : (int)((mag_now() - begun) / MAG_MS));
}

async(void, shields_hold)
{
    struct shielded *whole = shielded(LONG_MS, &shield_over), *cut = shielded(30, &never_set);
    int ms = -1;

    at_worker(whole, 1, false);
    at_worker(cut, 1, false);
    all_asleep(2);
    struct hog *h = hog_on(1, NULL, NULL, HOG_MS);
    mag_cancel(whole);
    mag_cancel(cut);
    EXPECT(mag_await(cut, &ms, sizeof ms) == 0 && ms >= 30);
    nap(15);
    EXPECT(!mag_done(whole));
    mag_event_set(&shield_over);
    EXPECT(mag_await(whole, &ms, sizeof ms) == 0 && ms == 0);
    EXPECT(before_the_end());
    end_hog(h);
    return 0;
}

/* ---- the deadline of a task that is about to suspend ------------------------------------------ */

static void no_cancel(struct mag_wait *wait)
{
    (void)wait;
    mag_worker_ready(mag_container_of(wait, struct mag_queued, wait)->fiber);
}

/* Between mag_wait_begin and the suspension the thread loses its processor for long. */
async(int, preempted)
{
    static const struct mag_wait_kind kind = { "test", no_cancel, false };
    struct mag_queued me = { .wait = { &kind, NULL }, .fiber = mag_fiber_self() };
    struct mag_scope s;
    mag_time end = mag_now() + 60 * MAG_MS;
    int rc = mag_scope_enter(&s, mag_now() + 10 * MAG_MS, NULL);

    if (rc == 0 && mag_wait_begin(me.fiber, &me.wait) == 0) {
        while (mag_now() < end)
            mag_cpu_relax();
        mag_worker_suspend(NULL, NULL);
        rc = mag_scope_leave(&s, -ECANCELED);
    }
    EXPECT(rc == -ETIMEDOUT);
    async_return(1);
}

async(void, a_deadline_survives_preemption)
{
    struct preempted *t = preempted();
    bool is_done = false;
    void *set[] = { t };

    at_worker(t, 1, true);
    EXPECT(mag_wait(set, 1, MAG_ALL_COMPLETED, 2 * MAG_SECOND, &is_done) == 1);
    EXPECT(is_done);
    if (!is_done) { /* so that the program ends */
        mag_cancel(t);
    }
    mag_close(t);
    return 0;
}

/* ---- who was made ready before it has left its stack ---------------------------------------------- */

static struct mag_waitq late_q;
static mag_atomic(uint32_t) n_resumed;

static const struct mag_wait_kind late_kind = { "test", mag_waitq_cancel, false };

/* Joins, is popped and woken by another worker, computes on, and only then suspends. */
async(void, late)
{
    struct mag_queued me;
    mag_time end = mag_now() + 40 * MAG_MS;

    mag_spin_lock(&late_q.lock);
    EXPECT(mag_waitq_join(&late_q, &me, &late_kind, NULL, NULL) == 0);
    while (mag_now() < end)
        mag_cpu_relax();
    EXPECT(mag_waitq_sleep(&me) == 7);
    mag_fetch_add(&n_resumed, 1);
    return 0;
}

async(void, woken_before_it_sleeps)
{
    enum { N = 5 };

    mag_store_relaxed(&n_resumed, 0);
    for (uint32_t i = 0; i < N; i++) {
        struct late *t = late();
        struct mag_queued *w = NULL;

        at_worker(t, 1, false);
        while (w == NULL) {
            nap(1);
            mag_spin_lock(&late_q.lock);
            w = mag_waitq_pop(&late_q);
            mag_spin_unlock(&late_q.lock);
        }
        mag_waitq_wake(w, 7);
        EXPECT(mag_await(t, NULL, 0) == 0);
        EXPECT(mag_load_acquire(&n_resumed) == i + 1);
    }
    return 0;
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_called, n_in_task;
static struct mag_var name = { .name = "name", .initial = "initial" };

static void look(void *arg)
{
    bool is_early = before_the_end();

    (void)arg;
    if (mag_self() != NULL || mag_sleep(MAG_MS) != -ENXIO || mag_fiber_self() != NULL)
        mag_fetch_add(&n_in_task, 1);
    EXPECT(strcmp(mag_var_get(&name), "caller") == 0);
    mag_fetch_add(&n_called, is_early ? 1 : 0x10000);
}

/* The hog's first step. */
static void call_later(void *has_called)
{
    if (*(bool *)has_called)
        return;
    *(bool *)has_called = true;
    EXPECT(mag_var_set(&name, "caller") == 0);
    for (int i = 1; i <= 10; i++)
        EXPECT(mag_call_later(i * 8 * MAG_MS, look, NULL) == 0);
}

/* Makes the rescuer likely to be in the middle of a suspension. */
async(void, busy)
{
    EXPECT(mag_var_set(&name, "busy") == 0);
    while (before_the_end())
        await(mag_yield());
    return 0;
}

async(void, callbacks_are_no_tasks)
{
    struct busy *b[3];

    mag_store_relaxed(&n_called, 0);
    mag_store_relaxed(&n_in_task, 0);
    bool has_called = false;
    struct hog *h = hog_on(1, call_later, &has_called, HOG_MS);
    for (unsigned i = 0; i < mag_rt_workers(mag_rt_self()) - 1; i++)
        at_worker(b[i] = busy(), i + 2, false);
    while ((mag_load_relaxed(&n_called) & 0xffff) < 10 && before_the_end())
        nap(1);
    EXPECT(before_the_end()); /* they were called while the hog computed */
    end_hog(h);
    for (unsigned i = 0; i < mag_rt_workers(mag_rt_self()) - 1; i++)
        EXPECT(mag_await(b[i], NULL, 0) == 0);
    while ((mag_load_relaxed(&n_called) & 0xffff) + (mag_load_relaxed(&n_called) >> 16) < 10)
        nap(1);
    EXPECT(mag_load_relaxed(&n_in_task) == 0);
    return 0;
}

static mag_atomic(uint32_t) next_number, n_disorder;

static void in_order(void *arg)
{
    uint32_t n = mag_fetch_add(&next_number, 1);

    if (n != (uint32_t)(uintptr_t)arg)
        mag_fetch_add(&n_disorder, 1);
}

static void *orders(void *rt)
{
    for (uintptr_t i = 0; i < 4000; i++) {
        EXPECT(mag_rt_call(rt, 0, in_order, (void *)i, NULL) == 0);
        if (i % 8 == 0)
            usleep(20);
    }
    return NULL;
}

/* The callbacks of one thread run in its order, with or without a rescuer. */
async(void, callbacks_keep_their_order)
{
    struct hog *h = hog_on(1, NULL, NULL, WORK_MS);

    mag_store_relaxed(&next_number, 0);
    mag_store_relaxed(&n_disorder, 0);
    pthread_t t = stress_thread(orders, mag_rt_self());
    while (before_the_end())
        nap(2);
    EXPECT(mag_await(h, NULL, 0) == 0);
    stress_joined(t);
    while (mag_load_acquire(&next_number) < 4000)
        nap(1);
    EXPECT(mag_load_relaxed(&n_disorder) == 0);
    return 0;
}

/* ---- a fiber that would like to move while it is cancelled ------------------------------------------ */

static struct mag_event rounds;

async(void, follower)
{
    int rc = 0;

    for (int i = 0; rc == 0; i++)
        rc = mag_event_wait(&rounds);
    EXPECT(rc == -ECANCELED);
    return 0;
}

async(void, one_round)
{
    mag_event_set(&rounds);
    mag_event_clear(&rounds);
    return 0;
}

/* Three wakes in a row by one worker, and the next would take the fiber there: that next one
 * is a cancel which the same worker carries out as the rescuer. */
async(void, a_cancel_does_not_move)
{
    for (int round = 0; round < 6; round++) {
        struct follower *f[8];
        struct busy *b = busy();

        for (int i = 0; i < 8; i++)
            at_worker(f[i] = follower(), 1, false);
        nap(3);
        for (int i = 0; i < 3; i++) {
            struct one_round *r = one_round();
            at_worker(r, 2, true);
            EXPECT(mag_await(r, NULL, 0) == 0);
            nap(2);
        }
        struct hog *h = hog_on(1, NULL, NULL, HOG_MS);
        at_worker(b, 2, false);
        nap(3);
        for (int i = 0; i < 8; i++)
            mag_cancel(f[i]);
        for (int i = 0; i < 8; i++)
            EXPECT(mag_await(f[i], NULL, 0) == 0);
        EXPECT(before_the_end());
        end_hog(h);
        EXPECT(mag_await(b, NULL, 0) == 0);
    }
    return 0;
}

/* ---- the stuck task uses the library ------------------------------------------------------------------ */

async(int, trifle, (int, n))
{
    async_return(n);
}

struct tools {
    struct mag_mutex mutex;
    struct mag_event event;
    struct mag_sem sem;
    struct mag_queue *queue;
    mag_atomic(uint32_t) n_calls;
    mag_atomic(uint32_t) n_given; /* futures */
    uint32_t n_wanted;
    unsigned turn;
};

static void called(void *arg)
{
    mag_fetch_add(&((struct tools *)arg)->n_calls, 1);
}

async(void, takes, (struct word *, w), (struct tools *, t))
{
    await(w);
    mag_fetch_add(&t->n_given, 1);
    return 0;
}

/* Each call of it one step; nothing of it suspends. */
static void use_all(void *arg)
{
    struct tools *t = arg;
    struct mag_scope s, inner;
    struct mag_call *call;
    void *task;
    long item = t->turn;

    switch (t->turn++ % 10) {
    case 0:
        task = trifle(1);
        EXPECT(mag_start(task, NULL) == 0 && mag_detach(task) == 0);
        break;
    case 1:
        if (mag_mutex_trylock(&t->mutex) == 0)
            EXPECT(mag_mutex_unlock(&t->mutex) == 0);
        break;
    case 2:
        t->n_wanted++;
        EXPECT(mag_call_soon(called, t) == 0);
        break;
    case 3:
        t->n_wanted++;
        EXPECT(mag_call_later(MAG_MS, called, t) == 0);
        break;
    case 4: {
        struct word *w = word();
        struct takes *taker = takes(w, t);
        EXPECT(mag_start(taker, NULL) == 0 && mag_detach(taker) == 0);
        EXPECT(future_set(w, 1) == 0);
        break;
    }
    case 5:
        mag_event_set(&t->event);
        mag_event_clear(&t->event);
        break;
    case 6:
        EXPECT(mag_scope_enter(&s, mag_now() + 2 * MAG_MS, NULL) == 0);
        EXPECT(mag_scope_enter(&inner, mag_now() + MAG_MS, NULL) == 0);
        EXPECT(mag_scope_leave(&inner, 0) == 0);
        EXPECT(mag_scope_leave(&s, 0) == 0);
        break;
    case 7:
        if (mag_sem_try_acquire(&t->sem) == 0)
            (void)mag_queue_try_put(t->queue, &item);
        else
            (void)mag_queue_try_get(t->queue, &item);
        (void)mag_sem_release(&t->sem);
        break;
    case 8:
        call = NULL;
        EXPECT(mag_rt_call(mag_rt_self(), mag_now() + 500 * MAG_US, called, t, &call) == 0);
        if (mag_call_cancel(call) != 0)
            t->n_wanted++;
        break;
    default:
        task = mag_sleep_co(LONG_MS * MAG_MS);
        EXPECT(mag_start(task, NULL) == 0);
        EXPECT(mag_cancel(task) == 0 && mag_detach(task) == 0);
        break;
    }
}

async(void, waits_for_all, (struct tools *, t))
{
    struct mag_scope s;
    long item;
    int rc = 0;

    for (int i = 0; rc == 0 && before_the_end(); i++) {
        mag_scope_enter(&s, mag_now() + 2 * MAG_MS, NULL);
        if (i % 3 == 0)
            rc = mag_event_wait(&t->event);
        else if (i % 3 == 1 && (rc = mag_mutex_lock(&t->mutex)) == 0)
            mag_mutex_unlock(&t->mutex);
        else if (i % 3 == 2)
            rc = mag_queue_get(t->queue, &item);
        rc = mag_scope_leave(&s, rc);
        rc = rc == -ETIMEDOUT ? 0 : rc;
    }
    EXPECT(rc == 0);
    return 0;
}

async(void, the_hog_works)
{
    static struct tools t;
    struct waits_for_all *others[8];

    memset(&t, 0, sizeof t);
    EXPECT(mag_sem_init(&t.sem, 1) == 0);
    EXPECT(mag_queue_new(&t.queue, sizeof(long), 4, NULL) == 0);
    struct hog *h = hog_on(1, use_all, &t, WORK_MS);
    for (int i = 0; i < 8; i++)
        at_worker(others[i] = waits_for_all(&t), (unsigned)i % mag_rt_workers(mag_rt_self()) + 1,
                  false);
    EXPECT(mag_await(h, NULL, 0) == 0);
    for (int i = 0; i < 8; i++)
        EXPECT(mag_await(others[i], NULL, 0) == 0);
    for (int i = 0; i < 2000 && mag_load_relaxed(&t.n_calls) < t.n_wanted; i++)
        nap(1);
    EXPECT(mag_load_relaxed(&t.n_calls) == t.n_wanted); /* each callback once */
    mag_queue_free(t.queue);
    return 0;
}

/* The hog cancels those who wait on its own worker, and others cancel them too. */
enum { ROUNDS = 6, VICTIMS = ROUNDS * N_WAYS };
static struct waits *victims[VICTIMS];
static mag_atomic(uint32_t) next_victim;

static void cancel_next(void *arg)
{
    uint32_t i = mag_fetch_add(&next_victim, 1);

    (void)arg;
    if (i < VICTIMS)
        mag_cancel(victims[i]);
    stress_spin(MAG_MS);
}

async(void, both_cancel)
{
    int was_before;

    for (int i = 0; i < VICTIMS; i++)
        at_worker(victims[i] = waits(i % N_WAYS), 1, false);
    all_asleep(ROUNDS * ALL_ASLEEP);
    mag_store_relaxed(&next_victim, 0);
    struct hog *h = hog_on(1, cancel_next, NULL, HOG_MS);
    for (int i = VICTIMS - 1; i >= 0; i--) {
        mag_cancel(victims[i]);
        stress_spin(500 * MAG_US);
    }
    for (int i = 0; i < VICTIMS; i++)
        EXPECT(mag_await(victims[i], &was_before, sizeof was_before) == 0);
    end_hog(h);
    return 0;
}

/* ---- two of four ------------------------------------------------------------------------------------------ */

async(void, two_are_stuck)
{
    enum { N = 40 };
    struct napper *t[N];
    int n;

    for (int i = 0; i < N; i++)
        at_worker(t[i] = napper(8), 1 + (unsigned)i % 2, false);
    struct hog *a = hog_on(1, NULL, NULL, HOG_MS);
    uint32_t had = mag_load_acquire(&is_hogging);
    struct hog *b = hog(NULL, NULL, HOG_MS);
    at_worker(b, 2, true);
    while (mag_load_acquire(&is_hogging) == had)
        nap(1);
    for (int i = 0; i < N; i++)
        EXPECT(mag_await(t[i], &n, sizeof n) == 0 && n == 8);
    EXPECT(before_the_end());
    end_hog(a);
    EXPECT(mag_await(b, NULL, 0) == 0);
    return 0;
}

/* ---- those who move when they are woken, and are cancelled at that moment ----------------------------- */

static mag_atomic(uint32_t) n_moving;

async(void, moves, (struct mag_event *, e))
{
    int rc = 0;

    while (rc == 0)
        rc = mag_event_wait(e);
    EXPECT(rc == -ECANCELED);
    mag_fetch_add(&n_moving, 1);
    return 0;
}

async(void, rings, (struct mag_event *, e))
{
    while (before_the_end()) {
        mag_event_set(e);
        mag_event_clear(e);
        for (int i = 0; i < 3; i++)
            await(mag_yield());
    }
    return 0;
}

async(void, moving_and_cancelled)
{
    static struct mag_event e;

    for (int round = 0; round < STRESS_SCALE(8, 3); round++) {
        enum { N = 32 };
        struct moves *t[N];
        struct hog *h;
        struct rings *r;

        memset(&e, 0, sizeof e);
        for (int i = 0; i < N; i++)
            at_worker(t[i] = moves(&e), 1, false);
        nap(2);
        h = hog_on(1, NULL, NULL, HOG_MS);
        at_worker(r = rings(&e), 2, false);
        for (int i = 0; i < N; i++) {
            mag_cancel(t[i]);
            stress_spin(100 * MAG_US);
        }
        for (int i = 0; i < N; i++)
            EXPECT(mag_await(t[i], NULL, 0) == 0);
        end_hog(h);
        EXPECT(mag_await(r, NULL, 0) == 0);
        stress_beat();
    }
    return 0;
}

/* ---- a condition's waiter that is notified while its wait cannot begin -------------------------------- */

static struct mag_cond cond;
static struct mag_mutex cond_mutex;
static mag_atomic(uint32_t) cond_over;

static void *notifies(void *arg)
{
    while (!mag_load_acquire(&cond_over))
        mag_cond_notify(&cond, 1);
    return arg;
}

async(void, cancelled_waiter, (int, n))
{
    int rc;

    mag_cancel(mag_self());
    EXPECT(mag_mutex_trylock(&cond_mutex) == 0);
    for (int i = 0; i < n; i++) {
        rc = mag_cond_wait(&cond, &cond_mutex);
        EXPECT(rc == -ECANCELED || rc == 0); /* 0: it was notified first */
        EXPECT(mag_mutex_locked(&cond_mutex));
        stress_beat();
    }
    EXPECT(mag_mutex_unlock(&cond_mutex) == 0);
    EXPECT(mag_mutex_trylock(&cond_mutex) == 0);
    EXPECT(mag_mutex_unlock(&cond_mutex) == 0);
    return 0;
}

/* All on one processor, so that the waiter is interrupted anywhere by who notifies. */
async(void, a_notified_waiter_that_may_not_wait)
{
    struct cancelled_waiter *w = cancelled_waiter(STRESS_SCALE(2000000, 30000));

    mag_store_relaxed(&cond_over, 0);
    pthread_t a = stress_thread(notifies, NULL);
    at_worker(w, 2, false);
    int rc = mag_await(w, NULL, 0);
    EXPECT(rc == 0 || rc == -ECANCELED);
    mag_store_release(&cond_over, 1);
    stress_joined(a);
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static const char *scene_name = "";

static void state(void)
{
    fprintf(stderr, "rescue: in %s\n", scene_name);
}

static void ignore(void *arg, const char *line)
{
    (void)arg, (void)line;
}

static void play(const char *what, void *scene, unsigned workers)
{
    struct mag_rt_options options = { .workers = workers, .report = ignore };
    struct mag_rt *rt = NULL;
    mag_time begun = mag_clock_now();

    scene_name = what;
    if (getenv("RESCUE_SCENE") && strcmp(getenv("RESCUE_SCENE"), what) != 0) {
        mag_close(scene);
        return;
    }
    EXPECT(mag_rt_new(&rt, &options) == 0);
    EXPECT(mag_submit(rt, scene, &(struct mag_spawn_options){ .worker = workers }) == 0);
    EXPECT(mag_await(scene, NULL, 0) == 0);
    mag_rt_free(rt);
    stress_beat();
    if (getenv("RESCUE_VERBOSE"))
        fprintf(stderr, "rescue: %-36s %u workers, %4.0f ms\n", what, workers,
                mag_seconds(mag_clock_now() - begun) * 1000);
}

#define PLAY(scene, workers) play(#scene, scene(), workers)

static void one_processor(void)
{
    cpu_set_t cpus, one;

    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0)
        return;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &cpus)) {
            CPU_SET(i, &one);
            break;
        }
    (void)sched_setaffinity(0, sizeof one, &one);
}

int main(void)
{
    stress_begin("rescue", state);
    EXPECT(mag_mutex_trylock(&held) == 0);
    PLAY(pinned_stays, 2);
    PLAY(many_move, 3);
    PLAY(cancels_arrive, 2);
    PLAY(deadlines_fire, 2);
    PLAY(shields_hold, 2);
    PLAY(a_deadline_survives_preemption, 2);
    PLAY(woken_before_it_sleeps, 2);
    PLAY(callbacks_are_no_tasks, 2);
    PLAY(callbacks_keep_their_order, 3);
    PLAY(a_cancel_does_not_move, 3);
    PLAY(the_hog_works, 2);
    PLAY(the_hog_works, 4);
    PLAY(both_cancel, 4);
    PLAY(two_are_stuck, 4);
    PLAY(moving_and_cancelled, 3);
    one_processor();
    PLAY(a_notified_waiter_that_may_not_wait, 2);
    return stress_end();
}
