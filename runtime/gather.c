/* SPDX-License-Identifier: MIT */
/*
 * gather.c - many coroutines at once, waiting for all
 *
 * 100,000 children are not 100,000 queue entries.  They are one entry, a *feeder*,
 * which stands for the children from lo to hi that have not begun.  Whoever has the
 * feeder takes one child off it, puts it back into the deque, and runs the child as a
 * plain call:
 *
 *      take lo; push feeder; call child; pop feeder; take lo; ...        5 ns a child
 *
 * If the child suspends, the feeder is in the deque, and the next fiber goes on with
 * it; if a thief takes it, the thief splits it and runs one half.  A child that needs
 * no stack (a sleep) is only started; a task or a future is waited for.
 *
 *      pending = children that have not ended + those who run a feeder, the awaiter too
 *
 * The awaiter gives its own share up only after it has left its stack; so whoever
 * brings pending to 0 finds it suspended, and makes it ready.  While anybody has a
 * share, the gather, and its feeders, live.
 *
 * With a limit there are no feeders but `limit' lanes, each of which takes the next
 * child when its last one has ended.
 *
 * Freeing: only on the awaiter's home thread (children that ended elsewhere wait for
 * the end), which is also where a failure cancels the siblings: so the walk over the
 * children needs no lock.  A child that begins at that moment sees is_stopping through
 * its ext->stopping, by the fence pair (G) and (H) (cancel.c).
 *
 * An entry of the caller's array is the child, or NULL once it was freed, or marked:
 * "gave up" (a future that the gather no longer waits for), "not ours" (somebody else
 * awaits it, or it was consumed before).
 *
 * Rejected: pushing all children (a deque of 8,192 slots, and 4 ns each); recursive
 * halving by fork and join (twice the suspensions when children suspend).
 */
#include "cancel.h"
#include "co.h"
#include "mem.h"
#include "wait.h"

#include <errno.h>

enum { AHEAD = 6 }; /* children fetched ahead */

struct feeder {
    struct mag_work work;
    struct mag_message msg; /* on its way through rt->inject, if a deque was full */
    struct gather *g;
    struct feeder *next; /* [g->feeders] */
    struct mag_worker *pushed_by;
    size_t lo, hi;
};

struct gather {
    struct mag_wait wait;
    struct mag_waiter waiter;            /* of every child that is not called in place */
    struct mag_message msg;              /* a failure elsewhere, on its way home */
    struct mag_worker *home;             /* [const] */
    struct mag_fiber *fiber;             /* [const] the awaiter */
    struct mag_task *owner;              /* [const] its task, which inherits traces */
    mag_atomic(void *) * children;       /* [home frees, who runs a child marks] see above */
    size_t n;                            /* [const] */
    char *results;                       /* [const] may be NULL */
    size_t result_bytes;                 /* [const] */
    int *rcs;                            /* [const] may be NULL */
    mag_atomic(size_t) pending;          /* [any] shares, see above */
    mag_atomic(size_t) cursor;           /* [any] lanes: the next child */
    mag_atomic(uint32_t) is_stopping;    /* [any] what begins now is cancelled */
    mag_atomic(int32_t) first_rc;        /* [any] the first error */
    mag_atomic(uint32_t) is_sent;        /* [any] msg is in use, or was */
    mag_atomic(struct feeder *) feeders; /* [any] split off; freed at the end */
    struct mag_task_ext ext;             /* [const] of every child */
    struct feeder first;
};

/* ---- entries ----------------------------------------------------------------------------- */

enum { GAVE_UP = 1, NOT_OURS = 2, MARKS = 3 };

static uintptr_t entry(struct gather *g, size_t i)
{
    return (uintptr_t)mag_load_acquire(&g->children[i]);
}

/* The child, unless it is freed or marked. */
static struct mag_task *child(struct gather *g, size_t i)
{
    uintptr_t e = entry(g, i);

    return e & MARKS ? NULL : mag_task_of((void *)e);
}

static void mark(struct gather *g, size_t i, uintptr_t how)
{
    mag_store_release(&g->children[i], (void *)(entry(g, i) | how));
}

/* Takes a future's waiter back; true if it is no longer waited for. */
static bool abandon(struct gather *g, size_t i, struct mag_task *t)
{
    if (!mag_task_unwait(t, &g->waiter))
        return false;
    mark(g, i, GAVE_UP);
    return true;
}

static void give_up(struct gather *g, size_t shares)
{
    struct mag_fiber *f = g->fiber;

    if (shares && mag_fetch_sub(&g->pending, shares) == shares)
        mag_worker_ready(f);
}

/* ---- failure --------------------------------------------------------------------------- */

/* On the home's thread. */
static void cancel_children(struct gather *g)
{
    size_t n_abandoned = 0;

    for (size_t i = 0; i < g->n; i++) {
        struct mag_task *t = child(g, i);
        uint32_t kind = t ? mag_load_relaxed(&t->head.used) : 0;
        if (kind == MAG_FUTURE)
            n_abandoned += abandon(g, i, t);
        else if (kind == MAG_COROUTINE && mag_load_relaxed(&t->is_begun) && !mag_task_is_done(t))
            mag_cancel_task(t);
    }
    give_up(g, n_abandoned);
}

static void stop_deliver(struct mag_message *m, struct mag_worker *w)
{
    struct gather *g = mag_container_of(m, struct gather, msg);

    (void)w;
    cancel_children(g);
    give_up(g, 1);
}

/* A share, unless all have been given up and the awaiter is on its way. */
static bool take_share(struct gather *g)
{
    size_t n = mag_load_acquire(&g->pending);

    while (n != 0 && !mag_cas(&g->pending, &n, n + 1))
        ;
    return n != 0;
}

/* Cancels the siblings, here or by a message; gives up a share. */
static void stop(struct gather *g)
{
    mag_store_seq(&g->is_stopping, 1);
    mag_fence_seq(); /* (H) pairs with worker.c (G) */
    if (mag_worker_self() == g->home) {
        cancel_children(g);
        give_up(g, 1);
    } else {
        g->msg.deliver = stop_deliver;
        mag_worker_send(g->home, &g->msg);
    }
}

static void note_rc(struct gather *g, int rc)
{
    int32_t none = 0;
    uint32_t sent = 0;

    if (rc >= 0)
        return;
    (void)mag_cas(&g->first_rc, &none, rc);
    if (g->rcs == NULL && mag_cas(&g->is_sent, &sent, 1)) {
        (void)take_share(g); /* the caller has one */
        stop(g);
    }
}

/* The awaiter was cancelled: on the thread of what is its home now.  All may have ended
 * by now, with the awaiter ready but not yet resumed: then the results stand. */
static void gather_cancel(struct mag_wait *wait)
{
    struct gather *g = mag_container_of(wait, struct gather, wait);
    int32_t none = 0;
    uint32_t sent = 0;

    if (!take_share(g))
        return;
    if (mag_cas(&g->is_sent, &sent, 1)) {
        (void)mag_cas(&g->first_rc, &none, -ECANCELED);
        stop(g);
    } else {
        give_up(g, 1);
    }
}

static const struct mag_wait_kind gather_wait = { "gather", gather_cancel, false };

/* ---- one child ---------------------------------------------------------------------------- */

static void *result_of(struct gather *g, size_t i)
{
    return g->results ? g->results + i * g->result_bytes : NULL;
}

/* On the home's thread: result and rc out, object freed. */
static void collect(struct gather *g, size_t i, struct mag_task *t, int rc)
{
    mag_store_relaxed(&g->children[i], NULL);
    if (g->rcs)
        g->rcs[i] = rc;
    if (t->ext == &g->ext)
        t->ext = NULL;
    mag_co_collect(t, rc, result_of(g, i), g->owner);
}

/* A child that ended in a call, on any thread. */
static void ended_here(struct gather *g, size_t i, struct mag_task *t, int rc)
{
    /* a failure's trace goes to the awaiter's task, so only its own fiber hands it on */
    if (mag_worker_self() == g->home && (rc >= 0 || mag_fiber_self() == g->fiber)) {
        collect(g, i, t, rc);
    } else {
        t->rc = rc;
        mag_store_release(&t->work.slot, MAG_SLOT_DONE);
    }
    if (MAG_UNLIKELY(rc < 0))
        note_rc(g, rc);
}

static void child_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    struct gather *g = mag_container_of(waiter, struct gather, waiter);

    note_rc(g, ended->rc);
    give_up(g, 1);
}

/* One that did not run in place: a leaf, or a task that wants a stack of its own.  The
 * object is nobody else's yet, so the waiter is simply written. */
static void begin_elsewhere(struct gather *g, struct mag_task *t)
{
    struct mag_worker *w = mag_worker_self();

    if (t->is_leaf) {
        mag_store_relaxed(&t->work.slot, mag_slot_of_waiter(&g->waiter));
        mag_co_launch(w, t);
        return;
    }
    mag_co_launch(w, t);
    if (mag_task_wait(t, &g->waiter) < 0)
        child_notify(&g->waiter, t);
}

/* A child that has begun: a task or a future.  It counts while it runs, and if the
 * gather stops just now, either cancel_children sees the waiter or this sees it stop. */
static size_t wait_for_child(struct gather *g, size_t i, struct mag_task *t)
{
    int rc = -EBUSY;

    if (mag_load_relaxed(&t->head.used) &&
        (!g->results || t->type->result_bytes == g->result_bytes))
        rc = mag_task_wait(t, &g->waiter);
    if (rc != -EBUSY)
        mag_task_taken(t);
    if (rc == 0) {
        mag_fence_seq(); /* (G) pairs with gather.c (H) */
        if (MAG_LIKELY(!mag_load_relaxed(&g->is_stopping)))
            return 0;
        if (mag_load_relaxed(&t->head.used) == MAG_FUTURE)
            return abandon(g, i, t);
        mag_cancel_task(t);
        return 0;
    }
    if (rc == -EALREADY) {
        ended_here(g, i, t, t->rc);
        return 1;
    }
    mark(g, i, NOT_OURS);
    note_rc(g, -EALREADY);
    return 1;
}

/* Runs or waits for child i: 1 if it has ended, 0 if it will give its share up. */
static size_t run_child(struct gather *g, size_t i)
{
    struct mag_task *t = child(g, i);
    struct mag_fiber *f = mag_fiber_self();
    int rc;

    if (MAG_UNLIKELY(t == NULL)) {
        if (g->rcs)
            g->rcs[i] = -ENOMEM;
        note_rc(g, -ENOMEM);
        return 1;
    }
    if (MAG_UNLIKELY(!mag_co_begin(t)))
        return wait_for_child(g, i, t);
    t->ext = &g->ext;
    if (MAG_UNLIKELY(mag_load_relaxed(&g->is_stopping))) {
        rc = -ECANCELED;
    } else if (MAG_UNLIKELY(g->results && t->type->result_bytes != g->result_bytes)) {
        rc = -EINVAL;
    } else if (MAG_LIKELY(mag_co_fits_here(f, t))) {
        mag_store_relaxed(&t->work.slot, MAG_SLOT_TAKEN); /* whoever awaits it is refused */
        rc = mag_worker_call_task(f, t);
    } else {
        begin_elsewhere(g, t);
        return 0;
    }
    ended_here(g, i, t, rc);
    return 1;
}

/* ---- feeders --------------------------------------------------------------------------------- */

static void feeder_deliver(struct mag_message *m, struct mag_worker *w);

static void feeder_push(struct mag_worker *w, struct feeder *fd)
{
    fd->pushed_by = w;
    if (MAG_LIKELY(mag_deque_push(&w->deque, &fd->work)))
        return;
    mag_store_relaxed(&fd->work.slot, MAG_SLOT_NONE);
    fd->msg.deliver = feeder_deliver;
    mag_worker_post(w->rt, &fd->msg);
}

static void feeder_deliver(struct mag_message *m, struct mag_worker *w)
{
    feeder_push(w, mag_container_of(m, struct feeder, msg));
}

/* Children that were made long ago have left the processor's cache. */
static inline void fetch(struct gather *g, size_t i)
{
    char *t = (char *)mag_task_of_frame((void *)entry(g, i));

    __builtin_prefetch(t, 1);
    __builtin_prefetch(t + MAG_CACHE_BYTES, 1);
}

/* Runs children while the feeder comes back; the caller holds a share.  Returns the
 * children that have ended, whose shares are the caller's to give up. */
static size_t feed(struct gather *g, struct feeder *fd)
{
    size_t n_ended = 0;

    for (;;) {
        size_t i = fd->lo++;
        bool is_last = fd->lo == fd->hi;

        if (i + AHEAD < fd->hi)
            fetch(g, i + AHEAD);

        if (!is_last)
            feeder_push(mag_worker_self(), fd);
        n_ended += run_child(g, i);
        if (is_last || !mag_deque_take(&mag_worker_self()->deque, &fd->work))
            return n_ended;
    }
}

/* Half of the range for another thief, if there is memory for a feeder. */
static void split_range(struct mag_worker *w, struct feeder *fd)
{
    struct feeder *half = mag_mem_alloc(sizeof *half);
    struct gather *g = fd->g;
    size_t mid = fd->lo + (fd->hi - fd->lo) / 2;

    if (half == NULL)
        return;
    *half = *fd;
    half->lo = mid;
    fd->hi = mid;
    half->next = mag_load_relaxed(&g->feeders);
    while (!mag_cas(&g->feeders, &half->next, half))
        ;
    feeder_push(w, half);
}

/*
 * No stack for the next child: it fails, unless it needs none.  Waiting for a stack could
 * be for ever, if those who have one wait for what this child would do.
 */
static size_t fail_one(struct mag_worker *w, struct feeder *fd)
{
    struct gather *g = fd->g;
    size_t i = fd->lo++;
    struct mag_task *t = child(g, i);

    if (fd->lo < fd->hi)
        feeder_push(w, fd);
    if (t == NULL || t->is_leaf || !mag_co_begin(t))
        return run_child(g, i);
    ended_here(g, i, t, -ENOMEM);
    return 1;
}

/* work.run of a feeder: on a fiber of its own, on any worker. */
static void feeder_run(struct mag_work *work)
{
    struct feeder *fd = mag_container_of(work, struct feeder, work);
    struct mag_worker *w = mag_worker_self();
    struct gather *g = fd->g;

    mag_fetch_add(&g->pending, 1); /* children remain, so g is alive */
    if (MAG_UNLIKELY(w->is_without_stack)) {
        give_up(g, fail_one(w, fd) + 1);
        return;
    }
    w->fiber->current = NULL;
    w->fiber->is_cancelled = false;
    if (fd->pushed_by != w && fd->hi - fd->lo > 1)
        split_range(w, fd);
    give_up(g, feed(g, fd) + 1);
}

/* ---- lanes -------------------------------------------------------------------------------------- */

/* One that cannot be called here keeps its lane occupied all the same. */
static void run_elsewhere(struct gather *g, size_t i, struct mag_task *t)
{
    struct mag_worker *w = mag_worker_self();

    t->ext = &g->ext;
    mag_co_launch(w, t);
    mag_wait_task(w->fiber, t);
    ended_here(g, i, t, t->rc);
}

static bool needs_elsewhere(struct gather *g, const struct mag_task *t)
{
    return t && mag_load_relaxed(&t->head.used) == MAG_COROUTINE &&
           !mag_load_relaxed(&t->is_begun) && !mag_load_relaxed(&g->is_stopping) &&
           !mag_co_fits_here(mag_fiber_self(), t);
}

/* One child after the other, each to its end; what has begun already is not limited. */
static size_t run_lane(struct gather *g)
{
    size_t n_ended = 0, i;

    while ((i = mag_fetch_add(&g->cursor, 1)) < g->n) {
        struct mag_task *t = child(g, i);
        if (needs_elsewhere(g, t) && mag_co_begin(t)) {
            run_elsewhere(g, i, t);
            n_ended++;
        } else {
            n_ended += run_child(g, i);
        }
    }
    return n_ended;
}

static void lane_run(struct mag_work *work)
{
    struct gather *g = mag_container_of(work, struct feeder, work)->g;
    struct mag_worker *w = mag_worker_self();

    if (MAG_UNLIKELY(w->is_without_stack)) { /* the other lanes do the work */
        give_up(g, 1);
        return;
    }
    w->fiber->current = NULL;
    w->fiber->is_cancelled = false;
    give_up(g, run_lane(g) + 1); /* its share was taken when it was pushed */
}

static struct feeder *push_lanes(struct mag_worker *w, struct gather *g, size_t n_lanes)
{
    struct feeder *lanes = mag_mem_alloc(n_lanes * sizeof *lanes);

    if (lanes == NULL)
        return NULL;
    g->pending += n_lanes; /* not shared yet */
    for (size_t i = 0; i < n_lanes; i++) {
        lanes[i] = (struct feeder){ .work.run = lane_run, .g = g };
        feeder_push(w, &lanes[i]);
    }
    return lanes;
}

/* ---- the whole ------------------------------------------------------------------------------------ */

static void drop_own_share(void *arg)
{
    give_up(arg, 1);
}

/* Until all shares but the awaiter's are given up. */
static void wait_all(struct gather *g, size_t n_ended)
{
    if (mag_load_acquire(&g->pending) == n_ended + 1)
        return;
    if (n_ended)
        mag_fetch_sub(&g->pending, n_ended);
    if (mag_wait_begin(g->fiber, &g->wait) < 0) {
        g->fiber->wait = &g->wait;
        gather_cancel(&g->wait);
    }
    mag_worker_suspend(drop_own_share, g);
}

static void collect_entry(struct gather *g, size_t i)
{
    uintptr_t e = entry(g, i);
    struct mag_task *t = mag_task_of((void *)(e & ~(uintptr_t)MARKS));

    if (!(e & MARKS)) {
        collect(g, i, t, t->rc);
        return;
    }
    if (g->rcs)
        g->rcs[i] = e & GAVE_UP ? -ECANCELED : -EALREADY;
    if (e & GAVE_UP && mag_task_detach(t) == -EALREADY)
        mag_worker_release(t); /* it was set in the meantime */
    mag_store_relaxed(&g->children[i], NULL);
}

/* What did not end on this thread in a call. */
static void collect_rest(struct gather *g)
{
    struct feeder *fd, *next;

    for (size_t i = 0; i < g->n; i++)
        if (MAG_UNLIKELY(entry(g, i) != 0))
            collect_entry(g, i);
    for (fd = g->feeders; fd; fd = next) {
        next = fd->next;
        mag_mem_free(fd);
    }
}

static int close_all(void **awaitables, size_t n, int rc)
{
    for (size_t i = 0; i < n; i++) {
        mag_close(awaitables[i]);
        awaitables[i] = NULL;
    }
    return rc;
}

static int gather_outside(struct gather *g)
{
    int first = 0;

    for (size_t i = 0; i < g->n; i++) {
        int rc = first && !g->rcs ? -ECANCELED : 0;
        if (rc < 0)
            mag_close(g->children[i]);
        else
            rc = mag_await(g->children[i], result_of(g, i), g->result_bytes);
        if (rc == -EINVAL && mag_load_relaxed(&mag_task_of(g->children[i])->head.used))
            mag_close(g->children[i]); /* not consumed: a result of another size */
        g->children[i] = NULL;
        if (g->rcs)
            g->rcs[i] = rc;
        if (rc < 0 && first == 0)
            first = rc;
    }
    return g->rcs ? 0 : first;
}

/* The awaiter was cancelled before it waited, and that is how a child has ended. */
static bool was_cancelled(struct gather *g)
{
    if (!mag_worker_is_cancelled(g->fiber))
        return false;
    for (size_t i = 0; i < g->n; i++)
        if (g->rcs[i] == -ECANCELED)
            return true;
    return false;
}

/* The awaiter's part: it feeds, or is one lane, like the others. */
static int run_all(struct mag_worker *w, struct gather *g, size_t limit)
{
    struct feeder *lanes = NULL;
    bool has_lanes = limit && limit < g->n;
    size_t n_ended;

    if (has_lanes && limit > 1) {
        lanes = push_lanes(w, g, limit - 1);
        if (lanes == NULL)
            return close_all(g->children, g->n, -ENOMEM);
    }
    n_ended = has_lanes ? run_lane(g) : feed(g, &g->first);
    wait_all(g, n_ended);
    collect_rest(g);
    mag_mem_free(lanes);
    if (g->rcs)
        return mag_load_relaxed(&g->is_stopping) || was_cancelled(g) ? -ECANCELED : 0;
    return mag_load_relaxed(&g->first_rc);
}

int mag_gather(void *results, size_t result_bytes, void **awaitables, size_t n,
               const struct mag_gather_options *options)
{
    struct mag_worker *w = mag_worker_self();
    struct gather g = { .wait = { &gather_wait, NULL },
                        .waiter.notify = child_notify,
                        .children = awaitables,
                        .n = n,
                        .results = results,
                        .result_bytes = result_bytes,
                        .rcs = options ? options->rcs : NULL,
                        .pending = n + 1 };

    if (n == 0)
        return 0;
    if (w == NULL || w->fiber == NULL)
        return gather_outside(&g);
    g.ext.stopping = &g.is_stopping;
    g.ext.is_shared = true;
    g.ext.vars = w->fiber->vars;
    g.home = w;
    g.fiber = w->fiber;
    g.owner = w->fiber->current;
    g.first = (struct feeder){ .work.run = feeder_run, .g = &g, .hi = n };
    return run_all(w, &g, options ? options->limit : 0);
}
