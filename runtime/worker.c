/* SPDX-License-Identifier: MIT */
/*
 * worker.c - the loop of a worker, and the one way to suspend
 *
 * How a task travels:
 *
 *   mag_start -> deque (or, from outside, inbox) -> pick -> start: a fiber, unless
 *   its awaiter found it first and called it in place -> body ... mag_sleep, mag_read
 *   -> mag_worker_suspend: commit makes it findable, another fiber runs -> timer, CQE
 *   or another task: mag_worker_ready -> ready queue of its home -> pick -> body goes on
 *
 * A fiber that suspends switches straight to the next runnable one (pick).  Only
 * with none, or when the budget is used up, it switches to the loop, which runs on
 * the thread's own stack, looks around (ring, inbox, timers), searches for work
 * elsewhere, and sleeps.  A fiber whose work has ended runs the next work itself,
 * without a switch.
 *
 * What runs next (pick).  `next', the fiber that a task has just made ready: message
 * passing stays on one core, bounded by the budget.  Then started fibers, first in
 * first out, in generations: when all that were ready have had their turn, one task
 * that has not started is taken, the newest, or now and then the oldest.  So new tasks
 * are starved neither by yielding ones nor by newer ones, nor do live stacks pile up.
 *
 * Invariants
 *   1. A fiber is in one place: running, in `ready' or `next' of its home, on its way
 *      there as a message, idle, or suspended (found only by who will make it ready).
 *   2. Only the home's thread touches a fiber's link, wait, current and flags.
 *   3. look_around runs on the loop's stack after 61 picks, or 8 that took more than a
 *      millisecond.
 *   4. Nothing read through mag_worker_self() is used after a switch.
 *
 * Ordering: (G) in mag_worker_check_chain pairs with (H) in mag_cancel_task (cancel.c).
 *
 * Rejected: a dedicated switch to the loop for each suspension (two switches instead
 * of one); queues that other workers may pop started fibers from (they would need
 * the commit step even for a yield, and thread-locals would break more often).
 */
#include "worker.h"

#include "check.h"
#include "clock.h"
#include "ring.h"
#include "sys.h"

#include <errno.h>

enum {
    IDLE_FIBERS_MAX = 4096,  /* kept per worker, warm; more stacks go back           */
    FORCE_NS = 20 * 1000,    /* a search this long may publish for a silent owner     */
    WAKES_PER_POLL = 20,     /* a worker rings for help so often in MAG_POLL_NS       */
    TINY_NS = 3000,          /* stolen work shorter than this was not worth it        */
    BACKOFF_MAX_NS = 8000,
    MOVE_AFTER = 4,          /* wakes in a row by another worker's tasks, and a fiber moves */
    GIVE_MIN = 2,            /* fewer ready fibers are not worth giving away          */
    WATCH_NS = 10 * 1000 * 1000, /* a sleeper looks after busy workers so often       */
};

__thread struct mag_hot *mag_tls_hot;

static struct mag_fiber *start_new(struct mag_worker *w);

/* ---- switching ------------------------------------------------------------------- */

/* What the one who switched here wanted done after it was off its stack. */
static inline void landed(struct mag_worker *w)
{
    void (*commit)(void *) = w->commit;

    if (commit) {
        w->commit = NULL;
        commit(w->commit_arg);
    }
}

static MAG_ALWAYS_INLINE void switch_to(struct mag_worker *w, struct mag_context *from,
                                        struct mag_fiber *to)
{
    w->fiber = to;
    mag_context_switch(from, to ? &to->context : &w->context);
    landed(mag_worker_self());
}

static inline bool has_unstarted(const struct mag_worker *w)
{
    return !mag_deque_is_empty(&w->deque) || !mag_fifo_empty(&w->local) ||
           mag_load_relaxed(&w->rt->n_injected) != 0; /* a hint */
}

/* Asked at every eighth pick: whether those took so long that it is time to look. */
static inline bool is_late(struct mag_worker *w)
{
    if (MAG_LIKELY(mag_clock_ticks() - w->polled_ticks < w->poll_ticks))
        return false;
    w->budget = 0;
    return true;
}

/* The fiber to run now, or NULL: the loop. */
static inline struct mag_fiber *pick(struct mag_worker *w)
{
    struct mag_fiber     *f = w->next;
    struct mag_fifo_node *node;

    if (--w->budget < 0 || ((w->budget & 7) == 0 && is_late(w)))
        return NULL;
    if (f) {
        w->next = NULL;
        return f;
    }
    if (w->ready_left == 0 || mag_fifo_empty(&w->ready)) {
        w->ready_left = w->ready.count;
        if (has_unstarted(w) && (f = start_new(w)) != NULL)
            return f;
    }
    node = mag_fifo_pop_front(&w->ready);
    if (node == NULL)
        return NULL;
    if (w->ready_left) /* 0: it came while a new one was looked for */
        w->ready_left--;
    return mag_container_of(node, struct mag_fiber, link);
}

MAG_SUSPENDS void mag_worker_suspend(void (*commit)(void *arg), void *arg)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber  *f = w->fiber;
    struct mag_fiber  *to = pick(w);

    w->commit = commit;
    w->commit_arg = arg;
    switch_to(w, &f->context, to);
    f->wait = NULL;
}

MAG_SUSPENDS int mag_worker_yield(void)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber  *f = w ? w->fiber : NULL;
    struct mag_fiber  *to;

    if (MAG_UNLIKELY(f == NULL))
        return -ENXIO;
    if (mag_worker_is_cancelled(f))
        return -ECANCELED;
    mag_fifo_push_back(&w->ready, &f->link);
    to = pick(w);
    if (to != f)
        switch_to(w, &f->context, to);
    return 0;
}

bool mag_worker_check_chain(struct mag_fiber *f)
{
    if (f->is_unchecked) {
        f->is_unchecked = false;
        mag_fence_seq(); /* (G) pairs with cancel.c (H) */
        if (mag_task_chain_cancelled(f->current))
            f->is_cancelled = true;
    }
    return f->is_cancelled;
}

/* ---- fibers ------------------------------------------------------------------------- */

static void fiber_ready_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    (void)ended;
    mag_worker_ready(mag_container_of(waiter, struct mag_fiber, waiter));
}

static void move_to(struct mag_worker *w, struct mag_fiber *f);
static void fiber_deliver(struct mag_message *m, struct mag_worker *w);

/* One that another worker gave away. */
static void fiber_adopt(struct mag_message *m, struct mag_worker *w)
{
    m->deliver = fiber_deliver;
    move_to(w, mag_container_of(m, struct mag_fiber, msg));
    fiber_deliver(m, w);
}

static void fiber_deliver(struct mag_message *m, struct mag_worker *w)
{
    mag_fifo_push_back(&w->ready, &mag_container_of(m, struct mag_fiber, msg)->link);
}

static void run_work(struct mag_fiber *f, struct mag_work *work)
{
    if (work->run) {
        work->run(work);
    } else {
        struct mag_fork *fork = mag_container_of(work, struct mag_fork, work);
        uint64_t         slot;
        f->current = NULL;
        fork->part(fork);
        slot = mag_xchg(&work->slot, MAG_SLOT_DONE);
        if (mag_slot_is_waiter(slot))
            mag_slot_waiter(slot)->notify(mag_slot_waiter(slot), NULL);
    }
}

/* Gives the memory of a fiber back that has left for good; on another stack. */
static void fiber_free(void *arg)
{
    struct mag_fiber *f = arg;
    struct mag_rt    *rt = f->home->rt;
    struct mag_stack  stack = f->stack;

    mag_context_destroy(&f->context);
    mag_stack_put(&rt->stacks, &stack);
}

/* After a work: what this fiber does next.  It returns when a work is assigned, which
 * may be at once. */
static void fiber_rest(struct mag_fiber *f)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber  *to;

    if (MAG_UNLIKELY(w->reserve == NULL) && !f->is_special) {
        w->reserve = f;
        to = pick(w);
        switch_to(w, &f->context, to);
        return;
    }
    if (f->is_special || w->n_idle_fibers >= IDLE_FIBERS_MAX) {
        to = pick(w);
        w->fiber = to;
        w->commit = fiber_free;
        w->commit_arg = f;
        mag_context_leave(&f->context, to ? &to->context : &w->context);
    }
    f->next_idle = w->idle_fibers;
    w->idle_fibers = f;
    w->n_idle_fibers++;
    to = pick(w);
    if (to != f)
        switch_to(w, &f->context, to);
}

MAG_SUSPENDS static void fiber_main(void *arg)
{
    struct mag_fiber *f = arg;

    landed(mag_worker_self());
    while (f->assigned) {
        run_work(f, f->assigned);
        fiber_rest(f);
    }
    mag_worker_self()->fiber = NULL;
    mag_context_leave(&f->context, &mag_worker_self()->context);
}

/* The control block lies at the top of the stack, in one page with the first frames. */
static struct mag_fiber *fiber_at(const struct mag_stack *stack)
{
    uintptr_t top = (uintptr_t)stack->lo + stack->bytes - sizeof(struct mag_fiber);

    return (struct mag_fiber *)(top & ~(uintptr_t)(MAG_CACHE_BYTES - 1));
}

void mag_worker_describe(const struct mag_stack *stack, char *buf, size_t n)
{
    const struct mag_task *t = fiber_at(stack)->current;
    const struct mag_task *root = t;

    while (root && root->outer)
        root = root->outer;
    if (t == NULL)
        mag_check_text(buf, n, "a part of a task (mag_fork)");
    else if (mag_task_site(root))
        mag_check_text(buf, n, "task '%s' (function '%s', spawned at %s:%d)",
                       mag_task_name(root), t->type->name, mag_task_site(root)->file,
                       mag_task_site(root)->line);
    else
        mag_check_text(buf, n, "task '%s' (function '%s')", mag_task_name(root), t->type->name);
}

static struct mag_fiber *fiber_new(struct mag_worker *w, size_t bytes)
{
    struct mag_stack  stack;
    struct mag_fiber *f;

    if (mag_stack_get(&w->rt->stacks, bytes, &stack) < 0)
        return NULL;
    f = fiber_at(&stack);
    *f = (struct mag_fiber){ .stack = stack, .floor = stack.lo + MAG_STACK_RESERVE };
    f->waiter.notify = fiber_ready_notify;
    f->msg.deliver = fiber_deliver;
    mag_store_relaxed(&f->home, w);
    mag_context_make(&f->context, stack.lo, (size_t)((char *)f - stack.lo), fiber_main, f);
    return f;
}

static struct mag_fiber *fiber_get(struct mag_worker *w, size_t bytes)
{
    struct mag_fiber *f = w->idle_fibers;

    if (bytes) {
        f = fiber_new(w, bytes);
        if (f)
            f->is_special = true;
    } else if (f) {
        w->idle_fibers = f->next_idle;
        w->n_idle_fibers--;
    } else {
        f = fiber_new(w, w->rt->stack_bytes);
    }
    return f;
}

/* Each idle fiber runs once more, to its end: the sanitizers want to see it leave. */
static void fibers_end(struct mag_worker *w)
{
    struct mag_fiber *f;

    if (w->reserve) {
        w->reserve->next_idle = w->idle_fibers;
        w->idle_fibers = w->reserve;
    }
    while ((f = w->idle_fibers) != NULL) {
        w->idle_fibers = f->next_idle;
        f->assigned = NULL;
        switch_to(w, &w->context, f);
        fiber_free(f);
    }
    w->n_idle_fibers = 0;
}

/* ---- starting and ending tasks --------------------------------------------------------- */

void mag_worker_release_slow(struct mag_task *t)
{
    struct mag_worker     *w = mag_worker_self();
    struct mag_slab_cache *cache = w ? &w->slab : NULL;

    if (mag_load_acquire(&t->extra_refs) != 0 && mag_fetch_sub(&t->extra_refs, 1) != 0)
        return;
    if (t->trace != NULL)
        mag_slab_free(cache, &t->trace->head);
    if (t->origin_kind == MAG_ORIGIN_INFO)
        mag_slab_free(cache, &t->info->head);
    mag_slab_free(cache, &t->head);
}

static void look_again(struct mag_rt *rt)
{
    mag_fetch_add(&rt->progress, 1);
    mag_sys_futex_wake(&rt->progress, 1);
}

void mag_worker_end(struct mag_worker *w, struct mag_task *t, int rc)
{
    struct mag_rt *rt = w->rt;

    if (mag_task_end(t, rc))
        mag_worker_release(t);
    mag_store_release(&w->n_ended, w->n_ended + 1);
    if (MAG_UNLIKELY(mag_load_relaxed(&rt->is_draining)))
        look_again(rt);
}

void mag_worker_run_task(struct mag_work *work)
{
    struct mag_task  *t = mag_task_of_work(work);
    struct mag_fiber *f = mag_worker_self()->fiber;
    int               rc;

    f->current = NULL;
    f->is_cancelled = false;
    f->is_pinned = mag_task_info(t) && mag_task_info(t)->pin;
    rc = mag_worker_call(f, t);
    f->is_pinned = false;
    mag_worker_end(mag_worker_self(), t, rc);
}

/* A runtime that stops cancels also what has not started yet. */
static void cancel_by_level(struct mag_rt *rt, struct mag_task *t)
{
    if (mag_load_relaxed(&rt->cancel_level) == MAG_CANCEL_ALL ||
        mag_load_relaxed(&t->work.slot) == MAG_SLOT_DETACHED)
        mag_store_relaxed(&t->is_cancelled, 1);
}

static size_t stack_bytes_of(const struct mag_task *t)
{
    if (mag_task_info(t) && mag_task_info(t)->stack_bytes)
        return mag_task_info(t)->stack_bytes;
    return t->type->stack_bytes;
}

/*
 * The fiber that will run the work.  NULL: it needs none (a leaf, which has begun), or
 * there is no memory for a stack: then a task ends with -ENOMEM, and a part of one,
 * which cannot fail, gets the reserve, or goes back to be tried again.
 */
static struct mag_fiber *start(struct mag_worker *w, struct mag_work *work)
{
    struct mag_task  *t = work->run == mag_worker_run_task ? mag_task_of_work(work) : NULL;
    struct mag_fiber *f;

    if (t && MAG_UNLIKELY(mag_load_relaxed(&w->rt->cancel_level)))
        cancel_by_level(w->rt, t);
    if (t && t->is_leaf) {
        t->type->body(mag_task_frame(t), mag_task_result(t));
        return NULL;
    }
    f = fiber_get(w, t ? stack_bytes_of(t) : 0);
    if (MAG_UNLIKELY(f == NULL) && t == NULL) {
        f = w->reserve;
        w->reserve = NULL;
    }
    if (MAG_LIKELY(f != NULL))
        f->assigned = work;
    else if (t)
        mag_worker_end(w, t, -ENOMEM);
    else
        MAG_CHECK(mag_deque_push_known(&w->deque, work)); /* it has just left a deque */
    return f;
}

/* ---- ready, messages ---------------------------------------------------------------------- */

/* A thread that is none of the runtime's workers may still be in here when what it
 * sent has ended the last task: so it is counted, and rt.c waits for it. */
static bool enter(struct mag_rt *rt)
{
    struct mag_worker *self = mag_worker_self();
    bool               is_outside = self == NULL || self->rt != rt;

    if (is_outside)
        mag_fetch_add_seq(&rt->n_outside, 1);
    return is_outside;
}

static void leave(struct mag_rt *rt, bool is_outside)
{
    if (is_outside)
        mag_fetch_sub_seq(&rt->n_outside, 1);
}

void mag_worker_send(struct mag_worker *w, struct mag_message *m)
{
    struct mag_rt *rt = w->rt;
    bool           is_outside = enter(rt);

    mag_inbox_push(&w->inbox, &m->inbox);
    mag_idle_notify_one(&rt->idle, &rt->idle.sleepers[w->id]);
    leave(rt, is_outside);
}

void mag_worker_post(struct mag_rt *rt, struct mag_message *m)
{
    bool is_outside = enter(rt);

    mag_spin_lock(&rt->inject_lock);
    mag_fifo_push_back(&rt->inject, &m->fifo);
    mag_store_seq(&rt->n_injected, rt->n_injected + 1);
    mag_spin_unlock(&rt->inject_lock);
    mag_idle_notify(&rt->idle);
    leave(rt, is_outside);
}

/* The oldest of what was posted is delivered to this worker. */
static void take_injected(struct mag_worker *w)
{
    struct mag_rt        *rt = w->rt;
    struct mag_fifo_node *node;
    struct mag_message   *m;

    if (mag_load_relaxed(&rt->n_injected) == 0) /* a hint; may_sleep looks closer */
        return;
    mag_spin_lock(&rt->inject_lock);
    node = mag_fifo_pop_front(&rt->inject);
    if (node)
        mag_store_relaxed(&rt->n_injected, rt->n_injected - 1);
    mag_spin_unlock(&rt->inject_lock);
    if (node == NULL)
        return;
    m = mag_container_of(node, struct mag_message, fifo);
    m->deliver(m, w);
}

/* The fiber, which is suspended and found by the caller alone, has a new home. */
static void move_to(struct mag_worker *w, struct mag_fiber *f)
{
    struct mag_worker *from = f->home;

    mag_spin_lock(&from->move_lock);
    mag_store_relaxed(&f->home, w);
    for (struct mag_task *t = f->current; t; t = t->outer)
        mag_task_set_home(t, w);
    mag_spin_unlock(&from->move_lock);
}

/* A fiber that is made ready again and again by tasks of one other worker is better off
 * there: two that talk to each other meet. */
static bool may_move(struct mag_worker *w, struct mag_fiber *f)
{
    if (w == NULL || w->fiber == NULL || w->rt != f->home->rt || !f->is_portable || f->is_pinned)
        return false;
    if (f->waker != w)
        f->n_wakes = 0;
    f->waker = w;
    return ++f->n_wakes >= MOVE_AFTER;
}

/* More is ready here than this worker can run soon, and others have nothing. */
static void give_away(struct mag_worker *w)
{
    size_t n = w->ready.count / 2;

    if (n < GIVE_MIN || !mag_idle_is_hungry(&w->rt->idle))
        return;
    for (; n > 0; n--) {
        struct mag_fifo_node *node = mag_fifo_pop_front(&w->ready);
        struct mag_fiber     *f = mag_container_of(node, struct mag_fiber, link);
        if (f->is_pinned) {
            mag_fifo_push_back(&w->ready, node);
        } else {
            f->msg.deliver = fiber_adopt;
            mag_worker_post(w->rt, &f->msg);
        }
    }
    w->ready_left = 0;
}

void mag_worker_ready(struct mag_fiber *f)
{
    struct mag_worker *home = mag_load_relaxed(&f->home);
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber  *behind;

    if (home != w) {
        if (!may_move(w, f)) {
            mag_worker_send(home, &f->msg);
            return;
        }
        move_to(w, f);
    }
    if (w->fiber) { /* by a running task: next, before whoever was next */
        behind = w->next;
        w->next = f;
        f = behind;
    }
    if (f)
        mag_fifo_push_back(&w->ready, &f->link);
}

void mag_worker_deliver_task(struct mag_message *m, struct mag_worker *w)
{
    mag_fifo_push_back(&w->local, &m->fifo);
}

void mag_worker_push(struct mag_worker *w, struct mag_task *t)
{
    if (MAG_LIKELY(mag_deque_push(&w->deque, &t->work)))
        return;
    mag_store_relaxed(&t->work.slot, MAG_SLOT_NONE);
    t->msg.deliver = mag_worker_deliver_task;
    mag_worker_post(w->rt, &t->msg);
}

static struct mag_work *pop_message(struct mag_fifo *q)
{
    struct mag_fifo_node *node = mag_fifo_pop_front(q);
    struct mag_message   *m;

    if (node == NULL)
        return NULL;
    m = mag_container_of(node, struct mag_message, fifo);
    return &mag_container_of(m, struct mag_task, msg)->work;
}

/* What has waited long for its turn: here, or in the deque below what is newer. */
static struct mag_work *oldest(struct mag_worker *w)
{
    struct mag_work *work = pop_message(&w->local);

    if (work)
        return work;
    take_injected(w);
    work = pop_message(&w->local);
    return work ? work : mag_deque_pop_oldest(&w->deque);
}

/* Something that has not started, on a fiber: the newest, once after each look around
 * the oldest.  NULL also if it was a leaf. */
MAG_NOINLINE static struct mag_fiber *start_new(struct mag_worker *w)
{
    struct mag_work *work = NULL;

    if (!w->owes_oldest)
        work = mag_deque_pop(&w->deque);
    w->owes_oldest = false;
    if (work == NULL)
        work = oldest(w);
    return work ? start(w, work) : NULL;
}

/* The deque's upward call: something is public.  Rings for help, not too often. */
static bool is_anybody_hungry(struct mag_deque *d)
{
    struct mag_worker *w = (struct mag_worker *)d;
    struct mag_idle   *idle = &w->rt->idle;
    uint64_t           ticks;

    if (!mag_idle_is_hungry(idle))
        return false;
    if (mag_load_relaxed(&idle->n_searching) == 0 && mag_deque_has_public(d)) {
        ticks = mag_clock_ticks();
        if (ticks - w->woke_ticks > w->poll_ticks / WAKES_PER_POLL) {
            w->woke_ticks = ticks;
            mag_idle_notify(idle);
        }
    }
    return true;
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void deliver_all(struct mag_inbox *inbox, struct mag_worker *w)
{
    struct mag_inbox_node *node, *next;

    if (mag_inbox_empty(inbox))
        return;
    for (node = mag_inbox_take(inbox); node; node = next) {
        struct mag_message *m = mag_container_of(node, struct mag_message, inbox);
        next = node->next;
        m->deliver(m, w);
    }
}

/* Keeps the length of MAG_POLL_NS in ticks, from intervals long enough to measure. */
static void measure_ticks(struct mag_worker *w, mag_time now)
{
    uint64_t ticks = mag_clock_ticks();

    if (now - w->polled_at > MAG_POLL_NS / 64)
        w->poll_ticks = (uint64_t)((double)(ticks - w->polled_ticks) * MAG_POLL_NS /
                                   (double)(now - w->polled_at));
    w->polled_at = now;
    w->polled_ticks = ticks;
}

/* Looks at everything that may have come from outside.  On the loop's stack. */
static void look_around(struct mag_worker *w)
{
    mag_time now = mag_clock_now();

    measure_ticks(w, now);
    w->budget = MAG_POLL_RUNS;
    w->owes_oldest = true;
    if (w->next) { /* its turn comes, after those who have waited longer */
        mag_fifo_push_back(&w->ready, &w->next->link);
        w->next = NULL;
    }
    if (mag_ring_pending(w->ring)) {
        MAG_CHECK(mag_ring_flush(w->ring) == 0);
        mag_ring_reap(w->ring);
    }
    deliver_all(&w->inbox, w);
    if (mag_timers_next(&w->timers) <= now)
        mag_timers_expire(&w->timers, now);
    give_away(w);
}


static struct mag_worker *victim(struct mag_worker *w, unsigned i)
{
    return &w->rt->workers[i % w->rt->n_workers];
}

static struct mag_work *steal(struct mag_worker *w)
{
    unsigned         first = mag_rand_below(&w->rand, w->rt->n_workers);
    struct mag_work *work = NULL;

    for (unsigned i = 0; i < w->rt->n_workers && !work; i++) {
        struct mag_worker *v = victim(w, first + i);
        if (v != w)
            work = mag_deque_steal(&w->deque, &v->deque);
    }
    return work;
}

/* Owners who compute and do not answer: publishes for one of them. */
static void force(struct mag_worker *w)
{
    for (unsigned i = 0; i < w->rt->n_workers; i++) {
        struct mag_deque *d = &victim(w, i)->deque;
        if (d != &w->deque && !mag_deque_has_public(d) && !mag_deque_is_empty(d) &&
            mag_deque_force(d))
            return;
    }
}

/* Whoever pushes next will see that we are hungry. */
static void ask_all(struct mag_worker *w)
{
    mag_fence_seq(); /* (F) pairs with deque.c (E) */
    for (unsigned i = 0; i < w->rt->n_workers; i++)
        if (victim(w, i) != w)
            mag_store_relaxed(&victim(w, i)->deque.hot.lim, 0);
}

static bool has_something(struct mag_worker *w)
{
    return w->next || !mag_fifo_empty(&w->ready) || has_unstarted(w);
}

/* Short stolen works are not worth a steal: each makes the thief wait a little longer. */
static void back_off(struct mag_worker *w, mag_time now)
{
    mag_time until;

    if (now - w->stole_at > TINY_NS)
        w->backoff = 0;
    else
        w->backoff = w->backoff ? 2 * w->backoff : TINY_NS / 6;
    if (w->backoff > BACKOFF_MAX_NS)
        w->backoff = BACKOFF_MAX_NS;
    for (until = now + w->backoff; now < until && mag_inbox_empty(&w->inbox);
         now = mag_clock_now())
        mag_cpu_relax();
}

/* Spins for work; the ring, which is this worker's alone, included. */
static struct mag_work *search(struct mag_worker *w)
{
    mag_time         begun = mag_clock_now(), now = begun;
    struct mag_work *work = NULL;

    ask_all(w);
    back_off(w, now);
    while (work == NULL && now - begun < MAG_SPIN_NS) {
        if (mag_load_relaxed(&w->rt->is_stopping))
            break;
        look_around(w);
        if (has_something(w))
            break;
        work = steal(w);
        if (work == NULL && now - begun > FORCE_NS)
            force(w);
        for (int i = 0; i < 8 && work == NULL; i++)
            mag_cpu_relax();
        now = mag_clock_now();
    }
    if (work)
        w->stole_at = mag_clock_now();
    return work;
}

/* The last look, after it was announced that we sleep: step 3 of idle.c. */
static bool may_sleep(struct mag_worker *w)
{
    if (mag_load_seq(&w->rt->is_stopping) || !mag_inbox_empty_seq(&w->inbox) ||
        mag_load_seq(&w->rt->n_injected) != 0 || mag_ring_pending(w->ring))
        return false;
    for (unsigned i = 0; i < w->rt->n_workers; i++)
        if (mag_deque_has_public(&victim(w, i)->deque))
            return false;
    return true;
}

/*
 * While some workers are busy one of the sleepers wakes now and then, to publish for
 * owners who compute without end.
 */
static void park(struct mag_worker *w)
{
    struct mag_idle    *idle = &w->rt->idle;
    struct mag_sleeper *s = &idle->sleepers[w->id];
    mag_time            deadline = mag_timers_next(&w->timers);
    uint32_t            watch = 0;
    bool                is_watch;

    mag_idle_park(idle, s);
    ask_all(w);
    if (mag_load_relaxed(&w->rt->is_draining))
        look_again(w->rt);
    is_watch = mag_load_relaxed(&idle->n_parked) < idle->n && mag_cas(&idle->has_watch, &watch, 1);
    if (is_watch && deadline > w->polled_at + WATCH_NS)
        deadline = w->polled_at + WATCH_NS;
    if (may_sleep(w))
        MAG_CHECK(mag_ring_sleep(w->ring, deadline) == 0);
    if (is_watch)
        mag_store_relaxed(&idle->has_watch, 0);
    mag_idle_unpark(idle, s);
}

static struct mag_fiber *idle(struct mag_worker *w)
{
    struct mag_idle    *i = &w->rt->idle;
    struct mag_sleeper *s = &i->sleepers[w->id];
    struct mag_work    *work = NULL;
    bool                has_found;

    if (mag_idle_search_begin(i, s)) {
        work = search(w);
        has_found = work != NULL || has_something(w);
        mag_idle_search_end(i, s, has_found);
        if (has_found)
            return work ? start(w, work) : NULL;
    }
    park(w);
    look_around(w);
    return NULL;
}

MAG_SUSPENDS static void loop(struct mag_worker *w)
{
    while (!mag_load_relaxed(&w->rt->is_stopping)) {
        struct mag_fiber *f;

        if (w->budget <= 0)
            look_around(w);
        f = pick(w);
        if (f == NULL && !has_something(w)) {
            look_around(w);
            if (!has_something(w))
                f = idle(w);
        }
        if (f) {
            /* one that was woken to search has found something, by whatever way */
            mag_idle_search_end(&w->rt->idle, &w->rt->idle.sleepers[w->id], true);
            switch_to(w, &w->context, f);
        }
    }
}

/* ---- life ---------------------------------------------------------------------------------- */

int mag_worker_init(struct mag_worker *w, struct mag_rt *rt, unsigned id)
{
    int rc = mag_deque_init(&w->deque, is_anybody_hungry);

    if (rc < 0)
        return rc;
    w->rt = rt;
    w->id = id;
    mag_fifo_init(&w->ready);
    mag_fifo_init(&w->local);
    mag_timers_init(&w->timers);
    mag_inbox_init(&w->inbox);
    mag_rand_init(&w->rand, mag_rand_seed());
    return 0;
}

void mag_worker_fini(struct mag_worker *w)
{
    mag_timers_fini(&w->timers);
    mag_deque_fini(&w->deque);
}

/* Waits until everybody who could ring for us is past doing so. */
static void leave_together(struct mag_rt *rt)
{
    uint32_t all = rt->n_workers + 1, n = mag_fetch_add(&rt->n_left, 1) + 1;

    if (n == all)
        mag_sys_futex_wake(&rt->n_left, (int)all);
    while ((n = mag_load_acquire(&rt->n_left)) < all)
        mag_sys_futex_wait(&rt->n_left, n, MAG_NEVER);
}

static void started(struct mag_worker *w, int rc)
{
    w->start_rc = rc;
    mag_fetch_add(&w->rt->n_started, 1);
    mag_sys_futex_wake(&w->rt->n_started, 1);
}

void *mag_worker_main(void *worker)
{
    struct mag_worker   *w = worker;
    struct mag_stack_alt alt;
    int                  rc = mag_stack_altstack_init(&alt);

    if (rc == 0 && (w->reserve = fiber_new(w, w->rt->stack_bytes)) == NULL)
        rc = -ENOMEM;
    if (rc == 0)
        rc = mag_ring_open(&w->ring, NULL);
    if (rc == 0) {
        w->rt->idle.sleepers[w->id].ring = w->ring;
        mag_context_thread(&w->context);
        mag_slab_open(&w->slab);
        mag_tls_hot = &w->deque.hot;
        started(w, 0);
        loop(w);
        leave_together(w->rt);
        fibers_end(w);
        mag_tls_hot = NULL;
        mag_slab_close(&w->slab);
        mag_ring_close(w->ring);
        mag_context_destroy(&w->context);
    } else {
        if (w->reserve)
            fiber_free(w->reserve); /* it has never run */
        started(w, rc);
        leave_together(w->rt);
    }
    mag_stack_altstack_fini(&alt);
    return NULL;
}
