/* SPDX-License-Identifier: MIT */
/*
 * several.c - waiting for several tasks at once, without consuming them
 *
 * A task tells its end to one waiter (task.h).  So to wait for many is to be the waiter of
 * each, to sleep until enough have told, and to take the waiter back from the others:
 *
 *      register with each          n_out = those who will still tell
 *      sleep                       until enough have, or a cancel, or a timeout
 *      unregister from each        n_out -= those from whom it was taken back
 *      drain                       until n_out is 0: the rest are telling right now
 *      the caller's memory is its own again
 *
 * All that is shared is a few fields under a spin lock (struct watch).  Who ends a task
 * takes the lock, notes it, and is through; one of them, or the cancel, or the timeout,
 * finds `is_asleep' and clears it: that one wakes the owner, which is its last touch.
 *
 * mag_wait needs no memory: all its tasks have the same waiter.  mag_completed has a waiter
 * for each, which is also its place in the queue of those that have ended.  mag_race
 * is a wait that then cancels, and drains until all have ended.  mag_on_done leaves its
 * waiter behind.
 *
 * Invariants
 *   1. Between registering and the end of drain the watch stays where it is.
 *   2. is_asleep is cleared by exactly one, which then wakes the owner.
 *   3. After unlocking, only who has cleared is_asleep touches the watch.
 *   4. Nobody sleeps when it is over already: fall_asleep decides that under the lock.
 *
 * Who may call: tasks; and threads outside, which sleep on a futex.  The wake-up may come
 * before the fiber has left its stack: it is a message to its home then, and the fiber is
 * portable only from the commit step on (waitq.h has the same).  While it drains it stays
 * where it is.
 *
 * Rejected: counting with atomics alone (three words, and an owner that leaves while a
 * straggler still holds the address of one of them); a helper task for each awaited one
 * (asyncio's callbacks are free; a task is not).
 */
#include "cancel.h"
#include "clock.h"
#include "co.h"
#include "mem.h"
#include "misuse.h"
#include "scope.h"
#include "sys.h"
#include "vars.h"
#include "wait.h"

#include <magpie/several.h>

#include <errno.h>

struct watch {
    struct mag_wait wait;
    struct mag_fiber *fiber;       /* [const] the owner's; NULL: a thread outside */
    mag_atomic(uint32_t) is_woken; /* [waker] of a thread: its futex */
    struct mag_spin lock;
    size_t n_out;      /* [lock] who will still tell; one more while it registers */
    bool is_enough;    /* [lock] what the owner waits for has happened */
    bool is_draining;  /* [lock] nothing is enough but n_out == 0 */
    bool is_asleep;    /* [lock] who makes it over wakes the owner */
    bool is_cancelled; /* [waker] that is why it was woken */
};

/* ---- sleeping and waking ---------------------------------------------------------------- */

static void watch_cancel(struct mag_wait *wait);

static const struct mag_wait_kind wait_kind = { "wait", watch_cancel, false };
static const struct mag_wait_kind next_kind = { "as_completed", watch_cancel, false };
static const struct mag_wait_kind race_kind = { "race", watch_cancel, false };

static bool is_over(const struct watch *w)
{
    return w->n_out == 0 || (w->is_enough && !w->is_draining);
}

/* By who has cleared is_asleep.  After the store a thread may be gone: the wake is of an
 * address only. */
static void wake(struct watch *w)
{
    if (w->fiber) {
        mag_worker_ready(w->fiber);
        return;
    }
    mag_store_seq(&w->is_woken, 1);
    mag_sys_futex_wake(&w->is_woken, 1);
}

/* With the lock held, which it lets go: one has told. */
static void told(struct watch *w, bool is_enough)
{
    bool wakes;

    w->n_out--;
    w->is_enough |= is_enough;
    wakes = w->is_asleep && is_over(w);
    if (wakes)
        w->is_asleep = false;
    mag_spin_unlock(&w->lock);
    if (wakes)
        wake(w);
}

/* n will not tell: they have ended before, or the waiter was taken back. */
static void untold(struct watch *w, size_t n, bool is_enough)
{
    mag_spin_lock(&w->lock);
    w->n_out -= n;
    w->is_enough |= is_enough;
    mag_spin_unlock(&w->lock);
}

static bool fall_asleep(struct watch *w)
{
    bool sleeps;

    mag_spin_lock(&w->lock);
    sleeps = !is_over(w);
    w->is_asleep = sleeps;
    mag_spin_unlock(&w->lock);
    return sleeps;
}

/* True: it slept, and the caller alone may wake it now. */
static bool rouse(struct watch *w)
{
    bool was_asleep;

    mag_spin_lock(&w->lock);
    was_asleep = w->is_asleep;
    w->is_asleep = false;
    mag_spin_unlock(&w->lock);
    return was_asleep;
}

static void watch_cancel(struct mag_wait *wait)
{
    struct watch *w = mag_container_of(wait, struct watch, wait);

    if (!rouse(w))
        return;
    w->is_cancelled = true;
    wake(w);
}

/* After fall_asleep. */
static int sleep_outside(struct watch *w, mag_time deadline)
{
    mag_time left = MAG_NEVER;

    while (!mag_load_acquire(&w->is_woken)) {
        if (deadline != MAG_NEVER)
            left = deadline - mag_clock_now();
        if (left <= 0) {
            if (rouse(w))
                return -ETIMEDOUT;
            deadline = left = MAG_NEVER; /* the wake-up is on its way */
        }
        mag_sys_futex_wait(&w->is_woken, 0, left);
    }
    mag_store_relaxed(&w->is_woken, 0);
    return 0;
}

/* Until it is over: 0; else -ECANCELED, -ENOMEM, or -ETIMEDOUT of a thread: a task's deadline
 * is a scope around this. */
static int sleep_until_over(struct watch *w, mag_time deadline)
{
    int rc;

    rc = w->fiber ? mag_wait_begin(w->fiber, &w->wait) : mag_wait_outside();
    if (rc < 0)
        return rc;
    if (w->fiber == NULL)
        return fall_asleep(w) ? sleep_outside(w, deadline) : 0;
    w->is_cancelled = false;
    if (!fall_asleep(w)) {
        mag_wait_abandon(w->fiber);
        return 0;
    }
    mag_wait_suspend_portable(w->fiber);
    return w->is_cancelled ? -ECANCELED : 0;
}

/* After n waiters were taken back: until those who are telling just now are through.  Not
 * a cancellation point. */
static void drain(struct watch *w, size_t n)
{
    bool sleeps;

    mag_spin_lock(&w->lock);
    w->n_out -= n;
    w->is_draining = true;
    w->is_asleep = sleeps = w->n_out != 0;
    mag_spin_unlock(&w->lock);
    if (!sleeps)
        return;
    if (w->fiber)
        mag_worker_suspend(NULL, NULL);
    else
        (void)sleep_outside(w, MAG_NEVER);
}

/* ---- what can be waited for ---------------------------------------------------------------- */

static bool is_future(const struct mag_task *t)
{
    return mag_load_relaxed(&t->head.used) == MAG_FUTURE;
}

/* The calling task, or one that awaits it in place. */
static bool is_self(const struct mag_task *t)
{
    struct mag_fiber *f = mag_fiber_self();
    const struct mag_task *c = f ? f->current : NULL;

    while (c && c != t)
        c = c->outer;
    return c != NULL;
}

/* Has it started, if it is a coroutine. */
static int prepare(struct mag_task *t)
{
    if (mag_load_relaxed(&t->head.used) == 0)
        return mag_misuse(-EALREADY, "waiting for an awaitable that was awaited before");
    if (is_self(t))
        return mag_misuse(-EDEADLK, "'%s' waits for itself", mag_task_name(t));
    return mag_load_relaxed(&t->is_begun) ? 0 : mag_start(mag_task_frame(t), NULL);
}

static int prepare_all(void *const *tasks, size_t n)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++)
        if (tasks[i])
            rc = prepare(mag_task_of(tasks[i]));
    return rc;
}

static int not_ours(const struct mag_task *t)
{
    return mag_misuse(-EALREADY, "waiting for '%s', which somebody else awaits", mag_task_name(t));
}

/* ---- wait ---------------------------------------------------------------- */

struct several {
    struct watch watch;
    struct mag_waiter waiter; /* of each task */
    enum mag_wait_how how;    /* [const] */
};

/* Whether the end of that task is enough by itself. */
static bool is_decisive(enum mag_wait_how how, const struct mag_task *ended)
{
    return how == MAG_FIRST_COMPLETED ||
           (how == MAG_FIRST_EXCEPTION && ended->rc < 0 && ended->rc != -ECANCELED);
}

static void several_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    struct several *s = mag_container_of(waiter, struct several, waiter);
    bool is_enough = is_decisive(s->how, ended);

    mag_spin_lock(&s->watch.lock);
    told(&s->watch, is_enough);
}

/* Whether there is nothing to wait for. */
static bool is_satisfied(void *const *tasks, size_t n, enum mag_wait_how how)
{
    bool are_all_done = true;

    for (size_t i = 0; i < n; i++) {
        const struct mag_task *t = mag_task_of(tasks[i]);
        if (t == NULL)
            continue;
        if (!mag_task_is_done(t))
            are_all_done = false;
        else if (is_decisive(how, t))
            return true;
    }
    return are_all_done;
}

static int count_done(void *const *tasks, size_t n, bool *done)
{
    int n_done = 0;

    for (size_t i = 0; i < n; i++) {
        bool is_done = tasks[i] && mag_task_is_done(mag_task_of(tasks[i]));
        n_done += is_done;
        if (done)
            done[i] = is_done;
    }
    return n_done;
}

static bool was_before(void *const *tasks, size_t i)
{
    size_t j = 0;

    while (tasks[j] != tasks[i])
        j++;
    return j < i;
}

/* 1 if it will tell, 0 if it has ended, or will tell already (it is there twice); -EALREADY. */
static int watch_task(struct several *s, void *const *tasks, size_t i, bool *is_enough)
{
    struct mag_task *t = mag_task_of(tasks[i]);
    int rc = mag_task_wait(t, &s->waiter);

    if (rc == 0)
        return 1;
    if (rc == -EBUSY)
        return was_before(tasks, i) ? 0 : not_ours(t);
    *is_enough |= is_decisive(s->how, t);
    return 0;
}

static int watch_all(struct several *s, void *const *tasks, size_t n)
{
    bool is_enough = false;
    size_t n_watched = 0;
    int rc = 0;

    for (size_t i = 0; i < n && rc >= 0; i++) {
        rc = tasks[i] ? watch_task(s, tasks, i, &is_enough) : 0;
        n_watched += rc > 0;
    }
    untold(&s->watch, n + 1 - n_watched, is_enough);
    return rc < 0 ? rc : 0;
}

static size_t unwatch_all(struct several *s, void *const *tasks, size_t n)
{
    size_t n_back = 0;

    for (size_t i = 0; i < n; i++)
        if (tasks[i])
            n_back += mag_task_unwait(mag_task_of(tasks[i]), &s->waiter);
    return n_back;
}

static int wait_until(void *const *tasks, size_t n, enum mag_wait_how how, mag_time deadline)
{
    struct several s = {
        .watch = { .wait = { &wait_kind, NULL }, .fiber = mag_fiber_self(), .n_out = n + 1 },
        .waiter.notify = several_notify,
        .how = how,
    };
    int rc = watch_all(&s, tasks, n);

    if (rc == 0)
        rc = sleep_until_over(&s.watch, deadline);
    drain(&s.watch, unwatch_all(&s, tasks, n));
    return rc;
}

/* -ETIMEDOUT if that is why it returned. */
static int wait_limited(void *const *tasks, size_t n, enum mag_wait_how how, mag_time timeout_ns)
{
    struct mag_fiber *f = mag_fiber_self();
    struct mag_scope_frame scope;
    int rc;

    if (timeout_ns == MAG_NEVER || f == NULL)
        return wait_until(tasks, n, how, mag_clock_after(timeout_ns));
    mag_scope_push(f, &scope, mag_clock_after(timeout_ns), NULL, false);
    rc = wait_until(tasks, n, how, MAG_NEVER);
    (void)mag_scope_pop(f, &scope);
    return mag_scope_explain(f, &scope, rc);
}

int mag_wait(void *const *tasks, size_t n, enum mag_wait_how how, mag_time timeout_ns, bool *done)
{
    int rc;

    if (n == 0)
        return mag_misuse(-EINVAL, "mag_wait() for nothing: n is 0");
    if (timeout_ns < 0)
        return mag_misuse(-EINVAL, "mag_wait() with a timeout below zero");
    if ((unsigned)how > MAG_ALL_COMPLETED)
        return mag_misuse(-EINVAL, "mag_wait() until what? how is %d", (int)how);
    rc = prepare_all(tasks, n);
    if (rc == 0 && !is_satisfied(tasks, n, how))
        rc = wait_limited(tasks, n, how, timeout_ns);
    if (rc < 0 && rc != -ETIMEDOUT && !(rc == -ECANCELED && is_satisfied(tasks, n, how)))
        return rc;
    return count_done(tasks, n, done);
}

int mag_join_task(void *task, mag_time timeout_ns, void *result, size_t result_bytes)
{
    struct mag_task *t = mag_task_of(task);
    int n_done;

    if (t == NULL)
        return -ENOMEM;
    if (timeout_ns < 0)
        return mag_misuse(-EINVAL, "mag_join_task() with a timeout below zero");
    if (mag_load_relaxed(&t->head.used) && result && result_bytes != t->type->result_bytes)
        return -EINVAL;
    n_done = mag_wait(&task, 1, MAG_ALL_COMPLETED, timeout_ns, NULL);
    if (n_done <= 0)
        return n_done < 0 ? n_done : -ETIMEDOUT;
    return mag_await(task, result, result_bytes);
}

/* ---- as they complete ---------------------------------------------------------------- */

struct member {
    struct mag_waiter waiter;
    struct completed *of;
    struct mag_task *task; /* [owner] NULL once it was yielded */
    bool is_ended;         /* [owner] was not watched */
    struct member *next;   /* [of->watch.lock] in the queue of the ended */
};

struct completed {
    struct watch watch;          /* is_enough: the queue is not empty */
    struct member *first, **end; /* [watch.lock] ended, and not yielded; oldest first */
    size_t n, n_yielded;         /* [owner] */
    struct member members[];
};

/* What is in the user's storage. */
struct completed_handle {
    struct completed *c; /* NULL: nothing to yield */
    int64_t rc;          /* begin's error */
};

MAG_STATIC_ASSERT(sizeof(struct completed_handle) <= sizeof(struct mag_completed));

static struct completed_handle *handle_of(struct mag_completed *c)
{
    return (struct completed_handle *)c;
}

/* With the lock held. */
static void enqueue(struct completed *c, struct member *m)
{
    m->next = NULL;
    *c->end = m;
    c->end = &m->next;
}

static void completed_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    struct member *m = mag_container_of(waiter, struct member, waiter);
    struct completed *c = m->of;

    (void)ended;
    mag_spin_lock(&c->watch.lock);
    enqueue(c, m);
    told(&c->watch, true);
}

static struct member *dequeue(struct completed *c)
{
    struct member *m;

    mag_spin_lock(&c->watch.lock);
    m = c->first;
    if (m) {
        c->first = m->next;
        if (c->first == NULL)
            c->end = &c->first;
    }
    c->watch.is_enough = c->first != NULL;
    mag_spin_unlock(&c->watch.lock);
    return m;
}

static struct completed *completed_new(void *const *tasks, size_t n)
{
    struct completed *c;

    if (n > (SIZE_MAX - sizeof *c) / sizeof *c->members)
        return NULL;
    c = mag_mem_alloc(sizeof *c + n * sizeof *c->members);
    if (c == NULL)
        return NULL;
    *c = (struct completed){ .watch = { .wait = { &next_kind, NULL }, .n_out = n + 1 },
                             .end = &c->first,
                             .n = n };
    for (size_t i = 0; i < n; i++)
        c->members[i] = (struct member){ .waiter.notify = completed_notify,
                                         .of = c,
                                         .task = mag_task_of(tasks[i]) };
    return c;
}

static void has_ended(struct completed *c, struct member *m)
{
    m->is_ended = true;
    mag_spin_lock(&c->watch.lock);
    enqueue(c, m);
    told(&c->watch, true);
}

/* Those that have ended are in the queue before any of the others can be: two rounds.  After
 * an error the rest are not watched. */
static int watch_members(struct completed *c)
{
    int rc = 0;

    for (size_t i = 0; i < c->n; i++)
        if (c->members[i].task == NULL || mag_task_is_done(c->members[i].task))
            has_ended(c, &c->members[i]);
    for (size_t i = 0; i < c->n; i++) {
        struct member *m = &c->members[i];
        int one;
        if (m->is_ended)
            continue;
        one = rc < 0 ? rc : mag_task_wait(m->task, &m->waiter);
        if (one == -EBUSY)
            rc = not_ours(m->task);
        if (one < 0)
            has_ended(c, m);
    }
    untold(&c->watch, 1, false);
    return rc;
}

/* Gives back what was not yielded. */
static void completed_free(struct completed *c)
{
    size_t n_back = 0;

    for (size_t i = 0; i < c->n; i++) {
        struct member *m = &c->members[i];
        if (m->task && !m->is_ended)
            n_back += mag_task_unwait(m->task, &m->waiter);
    }
    c->watch.fiber = mag_fiber_self();
    drain(&c->watch, n_back);
    mag_mem_free(c);
}

static int completed_begin(struct completed_handle *h, void *const *tasks, size_t n)
{
    int rc = prepare_all(tasks, n);

    if (rc < 0)
        return rc;
    h->c = completed_new(tasks, n);
    if (h->c == NULL)
        return -ENOMEM;
    rc = watch_members(h->c);
    if (rc < 0) {
        completed_free(h->c);
        h->c = NULL;
    }
    return rc;
}

int mag_completed_begin(struct mag_completed *completed, void *const *tasks, size_t n)
{
    struct completed_handle *h = handle_of(completed);

    *h = (struct completed_handle){ 0 };
    h->rc = n ? completed_begin(h, tasks, n) : 0;
    return (int)h->rc;
}

/* The oldest that has ended, waiting for it if need be; NULL with *rc. */
static struct member *await_member(struct completed *c, int *rc)
{
    struct member *m = dequeue(c);

    while (m == NULL) {
        c->watch.fiber = mag_fiber_self();
        *rc = sleep_until_over(&c->watch, MAG_NEVER);
        m = dequeue(c);
        if (*rc < 0)
            break;
    }
    return m;
}

int mag_completed_next(struct mag_completed *completed, void **task)
{
    struct completed_handle *h = handle_of(completed);
    struct completed *c = h->c;
    struct member *m;
    int rc = 0;

    if (c == NULL || c->n_yielded == c->n)
        return (int)h->rc;
    m = await_member(c, &rc);
    if (m == NULL)
        return rc;
    *task = m->task ? mag_task_frame(m->task) : NULL;
    m->task = NULL;
    c->n_yielded++;
    return 1;
}

void mag_completed_end(struct mag_completed *completed)
{
    struct completed_handle *h = handle_of(completed);

    if (h->c)
        completed_free(h->c);
    *h = (struct completed_handle){ 0 };
}

/* ---- race ---------------------------------------------------------------- */

struct race {
    struct watch watch;
    struct mag_waiter waiter;             /* of each task */
    mag_atomic(struct mag_task *) winner; /* [any, by CAS from NULL] */
    mag_atomic(int32_t) first_rc;         /* [any, by CAS from 0] the first error */
    struct mag_task *failed;              /* [who has set first_rc] whose error it is; NULL */
};

static void note_failure(struct race *r, struct mag_task *t, int rc)
{
    int32_t none = 0;

    if (mag_cas(&r->first_rc, &none, rc))
        r->failed = t;
}

/* Whether that decides the race. */
static bool note_end(struct race *r, struct mag_task *ended)
{
    struct mag_task *none = NULL;

    if (ended->rc < 0)
        note_failure(r, ended, ended->rc);
    else
        (void)mag_cas(&r->winner, &none, ended);
    return ended->rc >= 0;
}

static void race_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    struct race *r = mag_container_of(waiter, struct race, waiter);
    bool is_won = note_end(r, ended);

    mag_spin_lock(&r->watch.lock);
    told(&r->watch, is_won);
}

/* 0, or why it does not take part: then it is not the race's any more. */
static int enter_race(struct race *r, void *awaitable)
{
    struct mag_task *t = mag_task_of(awaitable);
    int rc;

    if (t == NULL)
        return -ENOMEM;
    if (mag_load_relaxed(&r->winner) && mag_load_relaxed(&t->head.used) &&
        !mag_load_relaxed(&t->is_begun)) {
        mag_close(awaitable); /* it is over: this one need not start */
        return -ECANCELED;
    }
    rc = prepare(t);
    if (rc == -ENXIO)
        mag_close(awaitable);
    return rc;
}

/* Starts and watches all; who does not take part becomes NULL. */
static void watch_race(struct race *r, void **awaitables, size_t n)
{
    bool is_won = false;
    size_t n_watched = 0;

    for (size_t i = 0; i < n; i++) {
        struct mag_task *t = mag_task_of(awaitables[i]);
        int rc = enter_race(r, awaitables[i]);
        if (rc == 0) {
            rc = mag_task_wait(t, &r->waiter);
            n_watched += rc == 0;
            if (rc != -EBUSY)
                mag_task_taken(t);
            is_won |= rc == -EALREADY && note_end(r, t);
            rc = rc == -EBUSY ? not_ours(t) : 0;
        }
        if (rc < 0) {
            note_failure(r, NULL, rc);
            awaitables[i] = NULL;
        }
    }
    untold(&r->watch, n + 1 - n_watched, is_won);
}

/* Gives a future up: false if it is being set just now. */
static bool give_up(struct race *r, struct mag_task *t)
{
    if (!mag_task_unwait(t, &r->waiter))
        return false;
    if (mag_task_detach(t) == -EALREADY)
        mag_worker_release(t);
    return true;
}

/* Until no one runs any more. */
static void stop_race(struct race *r, void **awaitables, size_t n)
{
    size_t n_back = 0;

    for (size_t i = 0; i < n; i++) {
        struct mag_task *t = mag_task_of(awaitables[i]);
        if (t == NULL || mag_task_is_done(t))
            continue;
        if (!is_future(t)) {
            mag_cancel_task(t);
        } else if (give_up(r, t)) {
            awaitables[i] = NULL;
            n_back++;
        }
    }
    drain(&r->watch, n_back);
}

/* Frees all but the winner, whose index it is (n: there is none), and whoever's error will
 * be the race's, if it keeps that. */
static size_t free_losers(struct race *r, void **awaitables, size_t n, bool keeps_failed)
{
    size_t winner = n;

    for (size_t i = 0; i < n; i++) {
        struct mag_task *t = mag_task_of(awaitables[i]);
        awaitables[i] = NULL;
        if (t && t == r->winner)
            winner = i;
        else if (t && !(keeps_failed && t == r->failed))
            mag_worker_release(t);
    }
    return winner;
}

static int race_result(struct race *r, void *result, void **awaitables, size_t n, int rc,
                       size_t *winner)
{
    struct mag_fiber *f = r->watch.fiber;
    struct mag_task *heir = f ? f->current : NULL;
    bool is_lost = r->winner == NULL && rc == 0;
    size_t i = free_losers(r, awaitables, n, is_lost);

    if (winner)
        *winner = i;
    if (r->winner)
        return mag_co_collect(r->winner, r->winner->rc, result, heir);
    if (is_lost && r->failed)
        return mag_co_collect(r->failed, r->first_rc, NULL, heir);
    return is_lost ? r->first_rc : rc;
}

static int close_all(void **awaitables, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mag_close(awaitables[i]);
        awaitables[i] = NULL;
    }
    return mag_misuse(-EINVAL, "mag_race() with a result of another size");
}

static bool is_size_right(void **awaitables, size_t n, size_t result_bytes)
{
    for (size_t i = 0; i < n; i++) {
        const struct mag_task *t = mag_task_of(awaitables[i]);
        if (t && mag_load_relaxed(&t->head.used) && t->type->result_bytes != result_bytes)
            return false;
    }
    return true;
}

int mag_race(void *result, size_t result_bytes, void **awaitables, size_t n, size_t *winner)
{
    struct race r = {
        .watch = { .wait = { &race_kind, NULL }, .fiber = mag_fiber_self(), .n_out = n + 1 },
        .waiter.notify = race_notify,
    };
    int rc = r.watch.fiber ? 0 : mag_wait_outside();

    if (winner)
        *winner = n;
    if (rc < 0)
        return rc;
    if (n == 0)
        return mag_misuse(-EINVAL, "mag_race() of nothing: n is 0");
    if (result && !is_size_right(awaitables, n, result_bytes))
        return close_all(awaitables, n);
    watch_race(&r, awaitables, n);
    rc = sleep_until_over(&r.watch, MAG_NEVER);
    stop_race(&r, awaitables, n);
    return race_result(&r, result, awaitables, n, rc, winner);
}

/* ---- callbacks ---------------------------------------------------------------- */

struct on_done {
    struct mag_waiter waiter;
    void (*fn)(void *arg, int rc, const void *result);
    void *arg;
    struct mag_vars *vars; /* of who asked for it */
};

/* A rescuer looks at it too (rescue.c). */
static void set_fiber(struct mag_worker *w, struct mag_fiber *f)
{
    uint32_t was = mag_worker_enter(w);

    mag_store_relaxed(&w->fiber, f);
    mag_worker_leave(w, was);
}

/* Outside any task, as a callback of the loop: what would suspend in it is refused, instead of
 * leaving a task that is at its end. */
static void call_on_worker(struct mag_worker *w, struct on_done *d, int rc, const void *result)
{
    struct mag_fiber *f = w->fiber;
    struct mag_vars *vars = w->call_vars;
    bool was_calling = w->is_calling;

    w->call_vars = d->vars;
    w->is_calling = true;
    set_fiber(w, NULL);
    d->fn(d->arg, rc, result);
    set_fiber(w, f);
    d->vars = w->call_vars;
    w->is_calling = was_calling;
    w->call_vars = vars;
}

static void on_done_free(struct on_done *d)
{
    mag_vars_unref(d->vars);
    mag_mem_free(d);
}

static void call_done(struct on_done *d, struct mag_task *t)
{
    bool has_result = t->rc >= 0 && t->type->result_bytes > 0;
    const void *result = has_result ? mag_task_result(t) : NULL;
    struct mag_worker *w = mag_worker_self();

    if (w)
        call_on_worker(w, d, t->rc, result);
    else
        d->fn(d->arg, t->rc, result);
    on_done_free(d);
    mag_worker_release(t);
}

static void done_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    call_done(mag_container_of(waiter, struct on_done, waiter), ended);
}

int mag_on_done(void *task, void (*fn)(void *arg, int rc, const void *result), void *arg)
{
    struct mag_task *t = mag_task_of(task);
    struct on_done *d;
    int rc;

    if (t == NULL)
        return -ENOMEM;
    if (fn == NULL)
        return mag_misuse(-EINVAL, "mag_on_done() without a function");
    d = mag_mem_alloc(sizeof *d);
    if (d == NULL)
        return -ENOMEM;
    *d = (struct on_done){ { done_notify }, fn, arg, mag_vars_ref(mag_worker_vars()) };
    rc = prepare(t);
    if (rc < 0) {
        on_done_free(d);
        return rc;
    }
    mag_task_taken(t); /* afterwards it may be gone; who is refused finds it taken already */
    rc = mag_task_wait(t, &d->waiter);
    if (rc == -EALREADY)
        call_done(d, t);
    if (rc != -EBUSY)
        return 0;
    on_done_free(d);
    return not_ours(t);
}
