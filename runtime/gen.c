/* SPDX-License-Identifier: MIT */
/*
 * gen.c - generators: coroutines that hand out items, and rest in between
 *
 *      consumer's fiber                         generator's fiber
 *      mag_gen_next: ASKED  ---- hand over ---->  ... mag_yield_value(v)
 *      RESTING, 1           <--- hand over -----  ANSWERED
 *      mag_gen_next: ASKED  ---- hand over ---->  0: goes on
 *      mag_gen_close: CLOSING -- hand over ---->  -ECANCELED: cleans up, ends
 *
 * A generator is a coroutine object (task.h) whose frame begins with struct gen.  At the
 * first next it gets a fiber, on the consumer's worker, because that may be in the middle of
 * any call when it yields.  To hand over is to switch straight to the other fiber: two switches
 * an item, no queue, no message.  A generator that rests on another worker (its consumer has
 * moved, or another one goes on) comes along; if something keeps it there, or its consumer is
 * elsewhere when it yields, the other one is made ready by a message, in the commit step, that
 * is off this stack.
 *
 * At most one of the two runs.  The one that does not is suspended, and nobody but the other
 * makes it ready: a consumer in next waits for the answer whatever happens, since `out' is
 * its own memory.  So a cancel of the consumer only cancels the generator, like that of a
 * task that is awaited (wait.c), whose suspensions fail, so that it ends, and that is the
 * answer.
 *
 * Invariants
 *   1. state: NEW -> ASKED -> ANSWERED -> RESTING -> ASKED ... -> ENDED; ASKED -> REFUSED by a
 *      cancel; RESTING -> CLOSING -> ENDED.  Whoever takes it from NEW or RESTING, by a CAS,
 *      is the one consumer; the others are told -EBUSY.
 *   2. ASKED is left once: by the yield, and the item is the consumer's, or by the cancel, and
 *      the yield hands over nothing.  A cancel runs on the consumer's home: there the
 *      yield needs no CAS.
 *   3. t->work.run is mag_gen_run from the first next on, and only then: an object that was
 *      awaited or spawned instead is no generator, and its yields are refused.
 *
 * The generator is not counted as a task: a runtime does not wait for one that rests.
 *
 * Rejected: a generator on the consumer's own stack (it would have to return to yield: no
 * yield within a loop that awaits); a task and a queue of one item (two wake-ups through
 * the ready queue, and a generator that runs ahead of its consumer).
 */
#include "gen.h"

#include "cancel.h"
#include "co.h"
#include "misuse.h"
#include "scope.h"
#include "wait.h"

#include <errno.h>
#include <string.h>

enum state { NEW, ASKED, ANSWERED, REFUSED, CLOSING, RESTING, ENDED };

/* At the start of the frame. */
struct gen {
    mag_atomic(uint32_t) state; /* [any] see above                               */
    int32_t rc;                 /* [who runs] the answer: 1 an item, or the end  */
    struct mag_fiber *fiber;    /* [who runs] its own; NULL: none yet, or ended  */
    struct mag_fiber *consumer; /* [who runs] who waits for the answer           */
    void *out;                  /* [who runs] for the item; NULL: dropped        */
    struct mag_wait wait;       /* [consumer] in next                            */
};

MAG_STATIC_ASSERT(sizeof(struct gen) <= sizeof(struct mag_gen));

static struct gen *gen_of(struct mag_task *t)
{
    return mag_task_frame(t);
}

static struct mag_task *task_of(const struct gen *g)
{
    return mag_task_of_frame(g);
}

void *mag_gen_new(const struct mag_co_type *type, const void *made_at)
{
    struct mag_task *t = mag_co_make(type, MAG_COROUTINE, made_at);

    if (t == NULL)
        return NULL;
    memset(gen_of(t), 0, sizeof(struct gen));
    return gen_of(t);
}

/* ---- handing over ------------------------------------------------------------------------ */

static void make_ready(void *fiber)
{
    mag_worker_ready(fiber);
}

/* Task-local variables are those of whoever runs. */
static void pass_vars(struct mag_fiber *from, struct mag_fiber *to)
{
    to->vars = from->vars;
    from->vars = NULL;
}

/* What the consumer has been answered: 1, 0 or an error. */
static int take_answer(struct mag_fiber *f, struct gen *g)
{
    int rc = g->rc;

    if (MAG_UNLIKELY(rc < 0))
        mag_co_hand_trace(task_of(g), f->current);
    mag_store_release(&g->state, rc == 1 ? RESTING : ENDED);
    return rc;
}

/*
 * The running fiber suspends, and `to' goes on; returns when somebody has handed back.  Both
 * sides end in this one function, and call it last, because processors predict a return by
 * the calls before it, which were the other side's: so only the return from here is not
 * where it was expected (12 ns an item).
 */
static __attribute__((noinline)) int hand_over(struct mag_fiber *from, struct mag_fiber *to,
                                               struct gen *g, bool is_consumer)
{
    pass_vars(from, to);
    if (MAG_LIKELY(mag_load_relaxed(&to->home) == mag_load_relaxed(&from->home)))
        mag_worker_hand_over(to);
    else
        mag_worker_suspend(make_ready, to);
    if (is_consumer)
        return take_answer(from, g);
    return mag_load_relaxed(&g->state) == CLOSING ? -ECANCELED : 0;
}

/* ---- the generator's side ----------------------------------------------------------------- */

static int not_wanted(const struct mag_task *t, enum state state)
{
    if (state == CLOSING)
        (void)mag_misuse(0,
                         "generator '%s' yields while it is being closed: it should let "
                         "the -ECANCELED of its last yield end it",
                         mag_task_name(t));
    return -ECANCELED;
}

/*
 * The item is the consumer's, unless that was cancelled, or closes.  What cancels a consumer
 * of this worker is either its thread, or a rescuer, who stays out meanwhile (rescue.c).
 */
static enum state answer(struct mag_worker *w, struct gen *g)
{
    uint32_t state = mag_load_acquire(&g->state), was;

    if (state != ASKED)
        return (enum state)state;
    if (MAG_UNLIKELY(mag_load_relaxed(&g->consumer->home) != w)) {
        (void)mag_cas(&g->state, &state, ANSWERED);
        return (enum state)state;
    }
    was = mag_worker_enter(w);
    state = mag_load_relaxed(&g->state);
    if (state == ASKED)
        mag_store_relaxed(&g->state, ANSWERED);
    mag_worker_leave(w, was);
    return (enum state)state;
}

int mag_yield_value(const void *value, size_t bytes)
{
    struct mag_fiber *f = mag_fiber_self();
    struct mag_task *t = f ? f->current : NULL;
    enum state state;
    struct gen *g;

    if (t == NULL || t->work.run != mag_gen_run)
        return mag_misuse(-EINVAL, "mag_yield_value() outside the body of a generator that is "
                                   "being iterated");
    if (bytes != t->type->result_bytes)
        return mag_misuse(-EINVAL, "generator '%s' yields %zu bytes, but its items have %u",
                          mag_task_name(t), bytes, t->type->result_bytes);
    if (MAG_UNLIKELY(f->deadline != MAG_NEVER))
        mag_scope_poll(f);
    if (mag_worker_is_cancelled(f))
        return -ECANCELED;
    g = gen_of(t);
    state = answer(mag_worker_self(), g);
    if (MAG_UNLIKELY(state != ASKED))
        return not_wanted(t, state);
    if (g->out)
        memcpy(g->out, value, bytes);
    g->rc = 1;
    return hand_over(f, g->consumer, g, false);
}

/* After the answer the consumer may free the generator at any moment. */
static void answer_last(struct gen *g, int rc)
{
    g->rc = rc < 0 ? rc : 0;
    g->fiber = NULL;
    mag_store_seq(&g->state, ANSWERED);
}

void mag_gen_run(struct mag_work *work)
{
    struct mag_task *t = mag_task_of_work(work);
    struct mag_worker *w = mag_worker_self();
    struct gen *g = gen_of(t);
    struct mag_fiber *f, *consumer;
    int rc;

    if (MAG_UNLIKELY(w->is_without_stack)) { /* called by the consumer's start */
        answer_last(g, -ENOMEM);
        return;
    }
    f = w->fiber;
    f->current = NULL;
    f->is_cancelled = false;
    rc = mag_worker_call(f, t);
    f->is_pinned = false;
    consumer = g->consumer;
    pass_vars(f, consumer);
    answer_last(g, rc);
    mag_worker_ready(consumer);
}

/* ---- the consumer's side ------------------------------------------------------------------- */

/* Takes it out of one of the states in which nobody uses it. */
static bool claim(struct gen *g, enum state from, enum state to)
{
    uint32_t state = from;

    return mag_cas(&g->state, &state, to);
}

static int busy(const struct mag_task *t)
{
    return mag_misuse(-EBUSY,
                      "generator '%s' runs already: it has one consumer at a time, and "
                      "cannot be its own",
                      mag_task_name(t));
}

static int outside(const struct mag_task *t)
{
    return mag_misuse(-ENXIO, "generator '%s' is used outside a task", mag_task_name(t));
}

/* If there is no other stack, the one that is kept for parts of tasks (fork.h) is not for a
 * generator, which may keep it for long. */
static int start(struct mag_worker *w, struct mag_fiber *f, struct mag_task *t)
{
    struct mag_fiber *reserve = w->reserve;
    struct gen *g = gen_of(t);

    mag_store_relaxed(&t->work.slot, MAG_SLOT_TAKEN); /* nobody can await it */
    t->work.run = mag_gen_run;
    g->fiber = mag_worker_start(w, &t->work);
    if (MAG_UNLIKELY(g->fiber == NULL))
        return -ENOMEM;
    if (MAG_UNLIKELY(g->fiber == reserve)) {
        w->reserve = reserve;
        answer_last(g, -ENOMEM);
        return -ENOMEM;
    }
    g->fiber->is_pinned = f->is_pinned;
    return 0;
}

/* Runs it until it answers, or ends: here, if nothing keeps it on another worker. */
static MAG_ALWAYS_INLINE int resume(struct mag_fiber *f, struct gen *g)
{
    if (MAG_UNLIKELY(mag_load_relaxed(&g->fiber->home) != mag_load_relaxed(&f->home)))
        mag_worker_adopt(g->fiber);
    g->consumer = f;
    return hand_over(f, g->fiber, g, true);
}

/* On the consumer's home.  An item that is there already stays the answer. */
static void asking_cancel(struct mag_wait *wait)
{
    struct gen *g = mag_container_of(wait, struct gen, wait);

    if (claim(g, ASKED, REFUSED))
        mag_cancel_task(task_of(g));
}

static const struct mag_wait_kind asking_kind = { "generator", asking_cancel, false };

/* The right to ask: NEW or RESTING, which it was; or why not. */
static int ask(struct mag_task *t)
{
    struct gen *g = gen_of(t);

    if (MAG_UNLIKELY(mag_load_relaxed(&t->head.used) == 0))
        return -EALREADY;
    if (mag_worker_self() == NULL || mag_fiber_self() == NULL)
        return outside(t);
    if (MAG_LIKELY(claim(g, RESTING, ASKED)))
        return RESTING;
    if (!claim(g, NEW, ASKED))
        return mag_load_acquire(&g->state) == ENDED ? ENDED : busy(t);
    if (mag_load_relaxed(&t->is_begun)) { /* awaited, or spawned: not ours */
        mag_store_release(&g->state, NEW);
        return -EALREADY;
    }
    return NEW;
}

int mag_gen_next(void *gen, void *out)
{
    struct mag_task *t = mag_task_of(gen);
    struct gen *g = gen;
    struct mag_fiber *f;
    int was, rc;

    if (MAG_UNLIKELY(t == NULL))
        return -ENOMEM;
    was = ask(t);
    if (MAG_UNLIKELY(was < 0 || was == ENDED))
        return was < 0 ? was : 0;
    f = mag_fiber_self();
    g->wait = (struct mag_wait){ &asking_kind, gen };
    rc = mag_wait_begin(f, &g->wait);
    if (MAG_UNLIKELY(rc < 0)) {
        mag_store_release(&g->state, (uint32_t)was);
        return rc;
    }
    if (MAG_UNLIKELY(was == NEW)) {
        (void)mag_co_begin(t);
        if (start(mag_worker_self(), f, t) < 0) {
            mag_wait_abandon(f);
            mag_store_release(&g->state, ENDED);
            return -ENOMEM;
        }
    }
    g->out = out;
    return resume(f, g);
}

int mag_gen_close(void *gen)
{
    struct mag_task *t = mag_task_of(gen);
    int rc = 0;

    if (t == NULL)
        return 0;
    if (mag_load_relaxed(&t->head.used) == 0)
        return -EALREADY;
    if (claim(gen_of(t), RESTING, CLOSING)) {
        if (mag_fiber_self() == NULL) {
            mag_store_release(&gen_of(t)->state, RESTING);
            return outside(t);
        }
        rc = resume(mag_fiber_self(), gen_of(t));
    } else if (claim(gen_of(t), NEW, CLOSING)) {
        if (!mag_co_begin(t)) { /* awaited, or spawned: not ours */
            mag_store_release(&gen_of(t)->state, NEW);
            return -EALREADY;
        }
    } else if (mag_load_acquire(&gen_of(t)->state) != ENDED) {
        return busy(t);
    }
    mag_worker_release(t);
    return rc == -ECANCELED ? 0 : rc;
}

static void iter_close(void *gen)
{
    (void)mag_gen_close(gen);
}

struct mag_iter mag_gen_iter(void *gen)
{
    return (struct mag_iter){ mag_gen_next, iter_close, gen };
}
