/* SPDX-License-Identifier: MIT */
/*
 * call.c - callbacks: a function that a worker calls, soon or at a time
 *
 *      mag_call_later --- on this worker --------------> ARMED --- its timer ---> BEGUN
 *      mag_rt_call    --- SENT: a message to worker 1 ---^  |                       |
 *                            |                              | mag_call_cancel       v
 *                            +------------------------> CANCELLED              fn(arg)
 *
 * A callback is a timer in a block of the slab: no task, no stack.  The loop calls it on its
 * own stack, with no fiber running; so what would suspend in it is refused with -ENXIO
 * (wait.c).  Those that are wanted soon wait in a list of their worker, for all of which there
 * is one timer, at the time 0: which is in the past, so they come before whatever is due.
 *
 * Where: on the worker of who calls, so that the callbacks of one task run in the order of
 * its calls for as long as it does not suspend; those from outside on the first worker, in
 * the order of each caller.
 *
 * Who ends it?  Each arrow is a CAS of `state', so exactly one of fire and cancel wins.  The
 * block has two holders, its worker and the handle; the last one frees it.  A cancel from
 * elsewhere sends the worker a message to take the timer back.
 *
 * When a runtime stops it waits for the callbacks that a task, or a thread outside, wanted
 * soon; all others are dropped when the last task has ended.  One that is about to run just
 * then could begin a task: it counts itself as running, and then looks whether the runtime
 * is closing (K); who closes it says so, and then looks whether anything runs (L).  One of
 * them sees the other: the callback is put off, or the runtime opens again (shutdown.c).
 *
 * A worker that is stuck in a task is rescued by another (rescue.c), which then fires its
 * timers: so what a callback counts and sees is of the worker whose thread it is on.
 *
 * Invariants
 *   1. The timer is armed only by the worker's thread (or a rescuer's), and only from before ARMED is set.
 *   2. The message is under way in SENT, or after a cancel of ARMED from elsewhere, never twice.
 *   3. Only BEGUN calls fn, at most once.
 *
 * Rejected: a callback as a task without a stack (a runtime that stops would have to cancel
 * it at once, and a task that waits for what it sets would wait for ever); posting to whoever
 * is free (two callbacks of one caller could overtake each other).
 */
#include "call.h"

#include "check.h"
#include "clock.h"
#include "misuse.h"

#include <errno.h>

/* DROPPED: it will not run, and its worker has given it up. */
enum state { SENT, ARMED, BEGUN, CANCELLED, DROPPED };

enum {
    PUT_OFF_NS = 200 * 1000, /* while a runtime finds out whether it is over */
    SOON_MAX = 256,          /* in a row; then the loop looks at other things */
};

struct mag_call {
    struct mag_slab_head head;
    void (*fn)(void *arg);                  /* [const] */
    void *arg;                              /* [const] */
    mag_time when;                          /* [const] 0: soon */
    mag_atomic(struct mag_worker *) worker; /* [const] where it runs; NULL: its runtime is gone */
    struct mag_message msg;                 /* [who sends] to its worker */
    struct mag_timer timer;                 /* [worker] */
    struct mag_vars *vars;       /* [const; then worker] the caller's task-local variables */
    mag_atomic(uint32_t) state;  /* [any, by CAS] enum state */
    mag_atomic(uint32_t) n_refs; /* [any] the worker, and the handle */
    bool is_counted;             /* [const] the runtime waits for it as for a task */
};

/* A walk (slab.h) that comes too late, and finds a task here, or the other way round, reads
 * an address either way. */
MAG_STATIC_ASSERT(offsetof(struct mag_call, worker) == offsetof(struct mag_task, home));

static struct mag_worker *worker_of(const struct mag_call *c)
{
    return mag_load_relaxed(&c->worker); /* const but for the end of its runtime */
}

static void release(struct mag_call *c)
{
    struct mag_worker *w = mag_worker_self();

    if (mag_fetch_sub(&c->n_refs, 1) != 1)
        return;
    mag_vars_unref(c->vars);
    mag_slab_free(w ? &w->slab : NULL, &c->head);
}

static bool advance(struct mag_call *c, enum state from, enum state to)
{
    uint32_t state = from;

    return mag_cas(&c->state, &state, to);
}

/* ---- running --------------------------------------------------------------------------- */

/* It runs, and is over: whoever waits for the runtime to end counts both. */
static void count_begin(void)
{
    struct mag_worker *w = mag_worker_self();

    mag_store_relaxed(&w->n_spawned, w->n_spawned + 1);
}

static void count_end(void)
{
    struct mag_worker *w = mag_worker_self();

    mag_store_release(&w->n_ended, w->n_ended + 1);
    if (MAG_UNLIKELY(mag_load_relaxed(&w->rt->is_draining)))
        mag_worker_progress(w->rt);
}

/* It will not run: its worker's part of the end. */
static void drop(struct mag_call *c)
{
    if (c->is_counted)
        count_end();
    release(c);
}

/* Counts as running; false if the runtime is closing. */
static bool may_run(const struct mag_rt *rt)
{
    count_begin();
    mag_fence_seq(); /* (K) pairs with shutdown.c (L) */
    if (MAG_LIKELY(mag_load_relaxed(&rt->is_closing) == MAG_CLOSING_NOT))
        return true;
    count_end();
    return false;
}

static void call_it(struct mag_call *c)
{
    struct mag_worker *w = mag_worker_self();

    w->call_vars = c->vars;
    w->is_calling = true;
    c->fn(c->arg);
    w->is_calling = false;
    c->vars = w->call_vars;
    w->call_vars = NULL;
}

/* Runs it, unless a cancel was first; false: the runtime is closing. */
static bool run(struct mag_call *c)
{
    if (!c->is_counted && !may_run(worker_of(c)->rt))
        return false;
    if (advance(c, ARMED, BEGUN)) {
        call_it(c);
        release(c);
        count_end();
    } else { /* whoever cancelled it leaves one that is wanted soon to us */
        if (!c->is_counted)
            count_end();
        if (c->when == 0)
            drop(c);
    }
    return true;
}

static void fire(struct mag_timer *timer)
{
    struct mag_call *c = mag_container_of(timer, struct mag_call, timer);
    struct mag_worker *w = worker_of(c);

    if (run(c))
        return;
    /* Whether it is over is not known yet; if it is, or without memory, the callback goes. */
    if (mag_load_relaxed(&w->rt->is_closing) != MAG_CLOSED &&
        mag_timers_add(&w->timers, timer, mag_clock_now() + PUT_OFF_NS) == 0)
        return;
    if (advance(c, ARMED, DROPPED))
        release(c);
}

/* ---- soon --------------------------------------------------------------------------------- */

/* Its place in the heap has just become free: so this does not fail. */
static void arm_again(struct mag_worker *w, mag_time when)
{
    MAG_CHECK(mag_timers_add(&w->timers, &w->calls_timer, when) == 0);
}

/* Those that may not run yet are put off, behind those that they have called for. */
static void fire_soon(struct mag_timer *timer)
{
    struct mag_worker *w = mag_container_of(timer, struct mag_worker, calls_timer);
    mag_time again = 0;

    arm_again(w, 0);
    for (size_t n = w->calls.count < SOON_MAX ? w->calls.count : SOON_MAX; n > 0; n--) {
        struct mag_fifo_node *node = mag_fifo_pop_front(&w->calls);
        if (run(mag_container_of(node, struct mag_call, msg.fifo)))
            continue;
        mag_fifo_push_back(&w->calls, node);
        again = mag_clock_now() + PUT_OFF_NS;
    }
    if (!mag_fifo_empty(&w->calls) && again == 0)
        return;
    (void)mag_timers_cancel(&w->timers, timer);
    if (again)
        arm_again(w, again);
}

static int arm_soon(struct mag_worker *w, struct mag_call *c)
{
    int rc = 0;

    if (!mag_timer_is_armed(&w->calls_timer)) {
        mag_timer_init(&w->calls_timer, fire_soon);
        rc = mag_timers_add(&w->timers, &w->calls_timer, 0);
    }
    if (rc == 0)
        mag_fifo_push_back(&w->calls, &c->msg.fifo);
    return rc;
}

/* On its worker's thread.  -ENOMEM. */
static int arm(struct mag_call *c)
{
    struct mag_worker *w = worker_of(c);

    return c->when == 0 ? arm_soon(w, c) : mag_timers_add(&w->timers, &c->timer, c->when);
}

/* The message has come: its node is free for the list. */
static void deliver(struct mag_message *m, struct mag_worker *w)
{
    struct mag_call *c = mag_container_of(m, struct mag_call, msg);

    if (!advance(c, SENT, ARMED)) {
        drop(c);
    } else if (arm(c) < 0) { /* there will be memory again, and nobody to tell */
        if (advance(c, ARMED, SENT))
            mag_worker_send(w, m);
        else if (c->when == 0)
            drop(c);
    }
}

static void deliver_cancel(struct mag_message *m, struct mag_worker *w)
{
    struct mag_call *c = mag_container_of(m, struct mag_call, msg);

    (void)mag_timers_cancel(&w->timers, &c->timer);
    drop(c);
}

/* ---- calling ----------------------------------------------------------------------------- */

static struct mag_call *call_new(struct mag_worker *self, struct mag_worker *target, mag_time when,
                                 void (*fn)(void *arg), void *arg)
{
    struct mag_call *c = mag_slab_alloc(self ? &self->slab : NULL, sizeof *c);

    if (c == NULL)
        return NULL;
    mag_timer_init(&c->timer, fire);
    mag_store_relaxed(&c->worker, target);
    c->vars = mag_vars_ref(mag_worker_vars());
    c->fn = fn;
    c->arg = arg;
    c->when = when;
    mag_store_relaxed(&c->state, SENT);
    mag_store_relaxed(&c->n_refs, 1);
    /* soon, and wanted by more than by another callback, which might go on for ever */
    c->is_counted = when == 0 && (self == NULL || self->fiber != NULL);
    mag_store_release(&c->head.used, MAG_CALLBACK); /* the walks (slab.h) see it whole */
    return c;
}

/* From the moment when it is armed a rescuer may run it. */
static int begin_here(struct mag_call *c)
{
    struct mag_worker *w = worker_of(c);
    uint32_t was;
    int rc;

    mag_store_relaxed(&c->state, ARMED);
    if (c->is_counted)
        count_begin();
    was = mag_worker_enter(w);
    rc = arm(c);
    mag_worker_leave(w, was);
    if (rc < 0)
        drop(c);
    return rc;
}

static int begin_there(struct mag_call *c)
{
    if (c->is_counted)
        mag_fetch_add(&worker_of(c)->rt->n_submitted, 1);
    c->msg.deliver = deliver;
    mag_worker_send(worker_of(c), &c->msg);
    return 0;
}

static int call(struct mag_rt *rt, mag_time when, void (*fn)(void *arg), void *arg,
                struct mag_call **handle)
{
    struct mag_worker *w = mag_worker_self(), *here = w && w->rt == rt ? w : NULL;
    struct mag_call *c;
    int rc;

    if (fn == NULL || when < 0)
        return mag_misuse(-EINVAL, "a callback without a function, or at a negative time");
    if (mag_load_relaxed(&rt->is_closing) == MAG_CLOSED)
        return -ECANCELED;
    c = call_new(w, here ? here : rt->workers, when, fn, arg);
    if (c == NULL)
        return -ENOMEM;
    if (handle) {
        mag_store_relaxed(&c->n_refs, 2);
        *handle = c;
    }
    rc = here ? begin_here(c) : begin_there(c);
    if (rc < 0 && handle) {
        *handle = NULL;
        release(c);
    }
    return rc;
}

static int call_here(mag_time when, void (*fn)(void *arg), void *arg)
{
    struct mag_worker *w = mag_worker_self();

    if (w == NULL)
        return mag_misuse(-ENXIO, "a callback is wanted outside a task: use mag_rt_call()");
    return call(w->rt, when, fn, arg, NULL);
}

int mag_call_soon(void (*fn)(void *arg), void *arg)
{
    return call_here(0, fn, arg);
}

int mag_call_later(mag_time delay_ns, void (*fn)(void *arg), void *arg)
{
    if (delay_ns < 0)
        return mag_misuse(-EINVAL, "mag_call_later(): a negative delay");
    return call_here(mag_clock_after(delay_ns), fn, arg);
}

int mag_call_at(mag_time when, void (*fn)(void *arg), void *arg)
{
    return call_here(when, fn, arg);
}

int mag_rt_call(struct mag_rt *rt, mag_time when, void (*fn)(void *arg), void *arg,
                struct mag_call **handle)
{
    return rt ? call(rt, when, fn, arg, handle) : -EINVAL;
}

/* ---- cancelling ------------------------------------------------------------------------------ */

/* Its worker takes the timer back; in the list (when is 0) it finds it cancelled. */
static void cancel_armed(struct mag_call *c)
{
    struct mag_worker *w = worker_of(c);
    uint32_t was;

    if (c->when == 0)
        return;
    if (mag_worker_self() == w) {
        was = mag_worker_enter(w);
        (void)mag_timers_cancel(&w->timers, &c->timer);
        mag_worker_leave(w, was);
        drop(c);
        return;
    }
    c->msg.deliver = deliver_cancel;
    mag_worker_send(w, &c->msg);
}

int mag_call_cancel(struct mag_call *c)
{
    int rc = -EALREADY;

    if (c == NULL)
        return -EINVAL;
    if (advance(c, SENT, CANCELLED) || mag_load_acquire(&c->state) == DROPPED) {
        rc = 0;
    } else if (advance(c, ARMED, CANCELLED)) {
        cancel_armed(c);
        rc = 0;
    }
    release(c);
    return rc;
}

/* ---- when a runtime stops ------------------------------------------------------------------------ */

enum { DROP_MAX = 64 };

struct search {
    const struct mag_rt *rt;
    struct mag_call *found[DROP_MAX];
    unsigned n;
};

static void find_one(struct mag_slab_head *block, void *arg)
{
    struct search *s = arg;
    struct mag_call *c = mag_container_of(block, struct mag_call, head);
    uint32_t kind = mag_load_acquire(&block->used);
    uintptr_t i;

    if (s->n == DROP_MAX || kind != MAG_CALLBACK)
        return;
    i = (uintptr_t)worker_of(c) - (uintptr_t)s->rt->workers;
    if (i < s->rt->n_workers * sizeof *s->rt->workers)
        s->found[s->n++] = c;
}

/* What it was on the way to will not come: a timer, or a message. */
static void drop_leftover(struct mag_call *c)
{
    uint32_t state = mag_load_acquire(&c->state);

    mag_store_relaxed(&c->worker, NULL);
    if (state == BEGUN || state == DROPPED)
        return; /* only the handle is left */
    mag_store_relaxed(&c->state, DROPPED);
    release(c);
}

void mag_call_drop_all(struct mag_rt *rt)
{
    struct search s = { .rt = rt };

    do {
        s.n = 0;
        mag_slab_foreach(find_one, &s);
        for (unsigned i = 0; i < s.n; i++)
            drop_leftover(s.found[i]);
    } while (s.n == DROP_MAX);
}
