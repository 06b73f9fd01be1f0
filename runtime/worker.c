/* SPDX-License-Identifier: MIT */
/*
 * worker.c - what a worker runs next, and the one way to suspend
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
 * the thread's own stack (loop.c), looks around, searches for work elsewhere, and
 * sleeps.  A fiber whose work has ended runs the next work itself,
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
 *   3. The loop looks around after 61 picks, or 8 that took more than a millisecond.
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
#include "fiber.h"
#include "misuse.h"
#include "sys.h"
#include "sys_debug.h"

#include <errno.h>

enum {
    IDLE_FIBERS_MAX = 4096, /* kept per worker, warm; more stacks go back           */
    STRANGERS_MAX = 64,     /* the same of those that were made by others           */
    MOVE_AFTER = 4,         /* wakes in a row by another worker's tasks, and a fiber moves */
    GIVE_MIN = 2,           /* fewer ready fibers are not worth giving away          */
    MANY = 8,               /* ready fibers that the cache may not hold              */
};

__thread struct mag_hot *mag_tls_hot;

static struct mag_fiber *start_new(struct mag_worker *w);

/* ---- switching ------------------------------------------------------------------- */

/* What the one who switched here wanted done after it was off its stack. */
static inline struct mag_worker *landed(struct mag_worker *w)
{
    void (*commit)(void *) = w->commit;

    if (commit) {
        w->commit = NULL;
        commit(w->commit_arg);
        w = mag_worker_self(); /* after a visit it may be another one */
    }
    return w;
}

/* Comes back on another worker, perhaps, and inside (mag_worker_enter) either way. */
static MAG_ALWAYS_INLINE struct mag_worker *
switch_to(struct mag_worker *w, struct mag_context *from, struct mag_fiber *to)
{
    mag_store_relaxed(&w->fiber, to);
    mag_context_switch(from, to ? &to->context : &w->context);
    return landed(mag_worker_self());
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
    mag_store_relaxed(&w->budget, 0);
    return true;
}

/*
 * Of many fibers that have slept nothing is in the cache: neither the record nor the top of the
 * stack.  While one runs, those of the next come, and the record of the one behind it.
 */
static inline void prefetch(const struct mag_fifo_node *node)
{
    mag_context_prefetch(&mag_container_of(node, struct mag_fiber, link)->context);
    __builtin_prefetch(node->next);
}

/* The fiber to run now, or NULL: the loop. */
static inline struct mag_fiber *pick(struct mag_worker *w)
{
    struct mag_fiber *f = w->next;
    int budget = w->budget - 1;
    struct mag_fifo_node *node;

    mag_store_relaxed(&w->budget, budget);
    if (budget < 0 || ((budget & 7) == 0 && is_late(w)))
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
    if (w->ready.count >= MANY)
        prefetch(w->ready.head);
    return mag_container_of(node, struct mag_fiber, link);
}

MAG_SUSPENDS void mag_worker_suspend(void (*commit)(void *arg), void *arg)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber *f = w->fiber;
    struct mag_fiber *to;

    (void)mag_worker_enter(w);
    to = pick(w);
    w->commit = commit;
    w->commit_arg = arg;
    if (MAG_LIKELY(to != f))
        w = switch_to(w, &f->context, to);
    else /* a callback that was started meanwhile has made it ready */
        w = landed(w);
    f->wait = NULL;
    if (MAG_UNLIKELY(w->is_debug))
        mag_sys_poison_errno();
    mag_worker_leave(w, 0);
}

/* The caller is made ready by somebody, as after any suspension. */
MAG_SUSPENDS void mag_worker_hand_over(struct mag_fiber *to)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber *f = w->fiber;
    int budget = w->budget - 1;

    (void)mag_worker_enter(w);
    mag_store_relaxed(&w->budget, budget);
    if (MAG_UNLIKELY(budget < 0 || ((budget & 7) == 0 && is_late(w)))) {
        mag_worker_ready(to);
        to = NULL;
    }
    w = switch_to(w, &f->context, to);
    f->wait = NULL;
    mag_worker_leave(w, 0);
}

MAG_SUSPENDS int mag_worker_yield(void)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber *f = w ? w->fiber : NULL;
    struct mag_fiber *to;

    if (MAG_UNLIKELY(f == NULL))
        return -ENXIO;
    if (MAG_UNLIKELY(f->deadline != MAG_NEVER))
        mag_fiber_poll_deadline(f);
    if (mag_worker_is_cancelled(f))
        return -ECANCELED;
    (void)mag_worker_enter(w);
    mag_fifo_push_back(&w->ready, &f->link);
    to = pick(w);
    if (to != f)
        w = switch_to(w, &f->context, to);
    if (MAG_UNLIKELY(w->is_debug))
        mag_sys_poison_errno();
    mag_worker_leave(w, 0);
    return 0;
}

/* The loop's switch: it comes back when nothing is runnable, or it is time to look. */
MAG_SUSPENDS void mag_worker_run(struct mag_worker *w, struct mag_fiber *f)
{
    (void)switch_to(w, &w->context, f);
}

struct visit {
    struct mag_worker *worker;
    struct mag_fiber *fiber;
    void (*fn)(void *arg);
    void *arg;
};

/* On the fiber's stack: as if it were resumed; and suspends it again, one call deeper. */
static void visit_here(void *arg)
{
    struct visit v = *(struct visit *)arg;

    v.fn(v.arg);
    mag_context_switch(&v.fiber->context, &v.worker->context);
    (void)landed(mag_worker_self()); /* now it is resumed */
}

MAG_SUSPENDS void mag_worker_visit(struct mag_fiber *f, void (*fn)(void *arg), void *arg)
{
    struct mag_worker *w = mag_worker_self();
    struct visit v = { .worker = w, .fiber = f, .fn = fn, .arg = arg };

    w->commit = visit_here;
    w->commit_arg = &v;
    (void)switch_to(w, &w->context, f);
    mag_store_relaxed(&w->fiber, NULL);
}

struct mag_fiber *mag_worker_pick(struct mag_worker *w)
{
    return pick(w);
}

bool mag_worker_has_work(const struct mag_worker *w)
{
    return w->next || !mag_fifo_empty(&w->ready) || has_unstarted(w);
}

bool mag_worker_check_chain(struct mag_fiber *f)
{
    if (f->is_unchecked) {
        f->is_unchecked = false;
        mag_fence_seq(); /* (G) pairs with cancel.c (H) */
        if (mag_fiber_chain_cancelled(f))
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

static void fiber_deliver(struct mag_message *m, struct mag_worker *w);

/* One that another worker gave away. */
static void fiber_adopt(struct mag_message *m, struct mag_worker *w)
{
    m->deliver = fiber_deliver;
    mag_worker_move(w, mag_container_of(m, struct mag_fiber, msg));
    fiber_deliver(m, w);
}

static void fiber_deliver(struct mag_message *m, struct mag_worker *w)
{
    mag_fifo_push_back(&w->ready, &mag_container_of(m, struct mag_fiber, msg)->link);
}

/* Tells its joiner; after that it is gone. */
static void leave_part(struct mag_work *work, uint64_t word)
{
    uint64_t slot = mag_xchg(&work->slot, word);

    if (mag_slot_is_waiter(slot))
        mag_slot_waiter(slot)->notify(mag_slot_waiter(slot), NULL);
}

static void run_work(struct mag_fiber *f, struct mag_work *work)
{
    if (work->run) {
        work->run(work);
    } else {
        struct mag_fork *fork = mag_container_of(work, struct mag_fork, work);
        f->current = NULL;
        fork->part(fork);
        leave_part(work, MAG_SLOT_DONE);
    }
}

/* Gives the memory of a fiber back that has left for good; on another stack. */
static void fiber_free(void *arg)
{
    struct mag_fiber *f = arg;
    mag_fiber_destroy(f, &f->home->rt->stacks);
}

/*
 * Whether its stack goes back to the runtime's.  One that was made elsewhere and has come here
 * while it was ready does, sooner: where such go one way, the one worker would make ever more and
 * the other keep them.
 */
static bool is_too_many(const struct mag_worker *w, const struct mag_fiber *f)
{
    return f->is_special || w->n_idle_fibers >= IDLE_FIBERS_MAX ||
           (w->n_idle_fibers >= STRANGERS_MAX && f->maker != w);
}

/* After a work: what this fiber does next.  It returns when a work is assigned, which
 * may be at once. */
static void fiber_rest(struct mag_fiber *f)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber *to;

    (void)mag_worker_enter(w);
    if (MAG_UNLIKELY(w->reserve == NULL) && !f->is_special) {
        w->reserve = f;
    } else if (is_too_many(w, f)) {
        to = pick(w);
        mag_store_relaxed(&w->fiber, to);
        w->commit = fiber_free;
        w->commit_arg = f;
        mag_context_leave(&f->context, to ? &to->context : &w->context);
    } else {
        f->next_idle = w->idle_fibers;
        w->idle_fibers = f;
        w->n_idle_fibers++;
    }
    to = pick(w);
    if (to != f)
        (void)switch_to(w, &f->context, to);
}

MAG_SUSPENDS static void fiber_main(void *arg)
{
    struct mag_fiber *f = arg;

    (void)landed(mag_worker_self());
    while (f->assigned) {
        mag_worker_leave(mag_worker_self(), 0);
        run_work(f, f->assigned);
        fiber_rest(f);
    }
    mag_store_relaxed(&mag_worker_self()->fiber, NULL);
    mag_context_leave(&f->context, &mag_worker_self()->context);
}

static struct mag_fiber *fiber_new(struct mag_worker *w, size_t bytes)
{
    struct mag_fiber *f = mag_fiber_new(&w->rt->stacks, bytes, fiber_main);

    if (f == NULL)
        return NULL;
    f->maker = w;
    f->waiter.notify = fiber_ready_notify;
    f->deadline = MAG_NEVER;
    mag_timer_init(&f->timer, NULL); /* scope.c */
    f->msg.deliver = fiber_deliver;
    mag_store_relaxed(&f->home, w);
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

int mag_worker_reserve(struct mag_worker *w)
{
    w->reserve = fiber_new(w, w->rt->stack_bytes);
    return w->reserve ? 0 : -ENOMEM;
}

/* Each idle fiber runs once more, to its end: the sanitizers want to see it leave. */
MAG_SUSPENDS void mag_worker_end_fibers(struct mag_worker *w)
{
    struct mag_fiber *f;

    if (w->reserve) {
        w->reserve->next_idle = w->idle_fibers;
        w->idle_fibers = w->reserve;
        w->reserve = NULL;
    }
    while ((f = w->idle_fibers) != NULL) {
        w->idle_fibers = f->next_idle;
        f->assigned = NULL;
        (void)switch_to(w, &w->context, f);
        fiber_free(f);
    }
    w->n_idle_fibers = 0;
}

/* ---- starting and ending tasks --------------------------------------------------------- */

void mag_worker_release_slow(struct mag_task *t)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_slab_cache *cache = w ? &w->slab : NULL;

    if (mag_load_acquire(&t->extra_refs) != 0 && mag_fetch_sub(&t->extra_refs, 1) != 0)
        return;
    if (t->trace != NULL)
        mag_slab_free(cache, &t->trace->head);
    if (t->ext && !t->ext->is_shared) {
        if (t->ext->vars)
            mag_vars_unref(t->ext->vars);
        mag_slab_free(cache, &t->ext->head);
    }
    mag_slab_free(cache, &t->head);
}

/* Whoever waits for the runtime to drain looks again. */
void mag_worker_progress(struct mag_rt *rt)
{
    mag_fetch_add(&rt->progress, 1);
    mag_sys_futex_wake(&rt->progress, 1);
}

void mag_worker_end(struct mag_worker *w, struct mag_task *t, int rc)
{
    struct mag_end_hook *hook = mag_task_ending(t, rc);
    struct mag_rt *rt = w->rt;

    if (mag_task_end(t, rc))
        mag_worker_release(t);
    if (MAG_UNLIKELY(hook != NULL) && hook->ended)
        hook->ended(hook);
    mag_store_release(&w->n_ended, w->n_ended + 1);
    if (MAG_UNLIKELY(mag_load_relaxed(&rt->is_draining)))
        mag_worker_progress(rt);
}

void mag_worker_run_task(struct mag_work *work)
{
    struct mag_task *t = mag_task_of_work(work);
    struct mag_fiber *f = mag_worker_self()->fiber;
    int rc;

    f->current = NULL;
    f->is_cancelled = false;
    f->is_pinned = t->ext && t->ext->pin;
    rc = mag_worker_call_task(f, t);
    f->is_pinned = false;
    mag_worker_end(mag_worker_self(), t, rc);
}

/* A runtime that stops cancels also what has not started yet. */
static void cancel_by_level(struct mag_rt *rt, struct mag_task *t)
{
    if (mag_load_relaxed(&rt->cancel_level) == MAG_CANCEL_ALL || mag_task_is_nobodys(t))
        mag_store_relaxed(&t->is_cancelled, 1);
}

int mag_worker_call_with_vars(struct mag_fiber *f, struct mag_task *t)
{
    struct mag_vars *outer = mag_vars_enter(f, t);
    int rc = mag_worker_call(f, t);

    mag_vars_leave(f, outer);
    return rc;
}

void mag_worker_drop_scopes(struct mag_fiber *f)
{
    uint32_t was = mag_worker_enter(f->home);

    while (f->scope && f->scope->task == f->current)
        f->scope = f->scope->outer;
    f->deadline = f->scope ? 0 : MAG_NEVER; /* too early: scope.c corrects it when it fires */
    if (mag_timer_is_armed(&f->timer))
        mag_timers_cancel(&f->home->timers, &f->timer);
    mag_worker_leave(f->home, was);
    f->is_unchecked = true;
    f->is_cancelled = false;
    (void)mag_misuse(0, "'%s' has returned without leaving a scope that it entered",
                     mag_task_name(f->current));
}

static size_t stack_bytes_of(const struct mag_task *t)
{
    return t->ext && t->ext->stack_bytes ? t->ext->stack_bytes : t->type->stack_bytes;
}

/* A feeder or a lane of a gather: told that it must not suspend. */
static void run_without_stack(struct mag_worker *w, struct mag_work *work)
{
    w->is_without_stack = true;
    work->run(work);
    w->is_without_stack = false;
}

/*
 * The fiber that will run the work.  NULL: it needs none (a leaf, which has begun), or
 * there is no memory for a stack: then a task ends with -ENOMEM, a gather's feeder fails
 * what it would have begun, and a part of a task (fork.h), which cannot fail, gets the
 * reserve, or is returned to its joiner.
 */
struct mag_fiber *mag_worker_start(struct mag_worker *w, struct mag_work *work)
{
    struct mag_task *t = work->run == mag_worker_run_task ? mag_task_of_work(work) : NULL;
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
    else if (work->run)
        run_without_stack(w, work);
    else
        leave_part(work, MAG_SLOT_RETURNED);
    return f;
}

/* ---- ready, messages ---------------------------------------------------------------------- */

/* A thread that is none of the runtime's workers may still be in here when what it
 * sent has ended the last task: so it is counted, and rt.c waits for it. */
static bool enter(struct mag_rt *rt)
{
    struct mag_worker *self = mag_worker_self();
    bool is_outside = self == NULL || self->rt != rt;

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
    bool is_outside = enter(rt);

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
    struct mag_rt *rt = w->rt;
    struct mag_fifo_node *node;
    struct mag_message *m;

    if (mag_load_relaxed(&rt->n_injected) == 0) /* a hint; the last look before sleep is closer */
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
void mag_worker_move(struct mag_worker *w, struct mag_fiber *f)
{
    struct mag_worker *from = f->home;

    mag_spin_lock(&from->move_lock);
    mag_store_relaxed(&f->home, w);
    for (struct mag_task *t = f->current; t; t = t->outer)
        mag_task_set_home(t, w);
    mag_spin_unlock(&from->move_lock);
}

unsigned mag_worker_number(void)
{
    struct mag_worker *w = mag_worker_self();

    return w ? w->id : 0;
}

void mag_worker_adopt(struct mag_fiber *f)
{
    struct mag_worker *w = mag_worker_self();

    if (f->home != w && f->home->rt == w->rt && !f->is_pinned && f->deadline == MAG_NEVER &&
        !mag_timer_is_armed(&f->timer))
        mag_worker_move(w, f);
}

/* A fiber that is made ready again and again by tasks of one other worker is better off
 * there: two that talk to each other meet. */
static bool may_move(struct mag_worker *w, struct mag_fiber *f)
{
    if (w == NULL || w->fiber == NULL || w->rt != f->home->rt ||
        mag_load_relaxed(&w->is_cancelling) /* of a rescuer, perhaps: then it just stays */ ||
        !mag_load_acquire(&f->is_portable) || f->is_pinned)
        return false;
    if (f->waker != w)
        f->n_wakes = 0;
    f->waker = w;
    return ++f->n_wakes >= MOVE_AFTER;
}

/* More is ready here than this worker can run soon, and others have nothing. */
void mag_worker_give_away(struct mag_worker *w)
{
    size_t n = w->ready.count / 2;

    if (n < GIVE_MIN || !mag_idle_is_hungry(&w->rt->idle))
        return;
    for (; n > 0; n--) {
        struct mag_fifo_node *node = mag_fifo_pop_front(&w->ready);
        struct mag_fiber *f = mag_container_of(node, struct mag_fiber, link);
        if (f->is_pinned) {
            mag_fifo_push_back(&w->ready, node);
        } else {
            if (mag_timer_is_armed(&f->timer))
                mag_timers_cancel(&w->timers, &f->timer);
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
    struct mag_fiber *behind;
    uint32_t was;

    if (home != w) {
        if (!may_move(w, f)) {
            mag_worker_send(home, &f->msg);
            return;
        }
        mag_worker_move(w, f);
    }
    was = mag_worker_enter(w);
    if (w->fiber) { /* by a running task: next, before whoever was next */
        behind = w->next;
        w->next = f;
        f = behind;
    }
    if (f)
        mag_fifo_push_back(&w->ready, &f->link);
    mag_worker_leave(w, was);
}

/* A rescuer is at work, or was a moment ago: some microseconds. */
void mag_worker_enter_slow(struct mag_worker *w)
{
    while (mag_load_acquire(&w->is_rescued)) {
        mag_store_release(&w->is_inside, 0);
        while (mag_load_acquire(&w->is_rescued))
            mag_cpu_relax();
        mag_store_seq(&w->is_inside, 1);
    }
}

struct mag_fiber *mag_worker_fiber_of(struct mag_message *m)
{
    bool is_fiber = m->deliver == fiber_deliver || m->deliver == fiber_adopt;

    return is_fiber ? mag_container_of(m, struct mag_fiber, msg) : NULL;
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
    struct mag_message *m;

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
    return work ? mag_worker_start(w, work) : NULL;
}
