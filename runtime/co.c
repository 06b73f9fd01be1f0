/* SPDX-License-Identifier: MIT */
/*
 * co.c - coroutine objects: made, started, awaited, cancelled, given up
 *
 * The rule that makes tasks cheap: an object is consumed by exactly one await, and an
 * await runs what has not begun as a plain call.
 *
 *      mag_await(x):  never started           -> call its body here
 *                     in this worker's deque  -> take it out, call its body here
 *                     done                    -> take the result
 *                     running elsewhere       -> suspend until it ends
 *
 * In place, no reference count, no atomic exchange and no queue is touched: to have
 * taken the slot is the claim.  A body that runs in place belongs to the fiber's
 * chain (task.h), so a cancel of either reaches what the fiber is blocked in.
 *
 * It is not run in place where that would change its meaning: it has a stack size of
 * its own, is bound to a worker, or this stack is nearly used up.
 */
#include "co.h"

#include "cancel.h"
#include "misuse.h"
#include "wait.h"

#include <errno.h>
#include <string.h>

/* ---- making -------------------------------------------------------------------------- */

struct mag_task *mag_co_make(const struct mag_co_type *type, enum mag_kind kind,
                             const void *made_at)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_task *t = mag_slab_alloc(w ? &w->slab : NULL, MAG_TASK_BYTES + type->frame_bytes);

    if (MAG_UNLIKELY(t == NULL))
        return NULL;
    /* not msg, fiber and outer: whoever uses them sets them first */
    t->work.run = mag_worker_run_task;
    mag_store_relaxed(&t->work.slot, MAG_SLOT_NONE);
    t->type = type;
    mag_task_set_idle(t, w);
    t->rc = 0;
    mag_store_relaxed(&t->is_cancelled, 0);
    mag_store_relaxed(&t->is_begun, 0);
    t->is_counted = 0;
    t->is_leaf = 0;
    mag_store_relaxed(&t->extra_refs, 0);
    mag_store_relaxed(&t->is_sent, 0);
    t->origin_kind = MAG_ORIGIN_MADE;
    t->ext = NULL;
    t->trace = NULL;
    t->made_at = made_at;
    mag_store_release(&t->head.used, (uint32_t)kind); /* the walks (slab.h) see it whole */
    return t;
}

void *mag_co_new(const struct mag_co_type *type, const void *made_at)
{
    struct mag_task *t = mag_co_make(type, MAG_COROUTINE, made_at);

    return t ? mag_task_frame(t) : NULL;
}

static void unbegin(struct mag_task *t)
{
    mag_store_relaxed(&t->is_begun, 0);
}

/* ---- starting --------------------------------------------------------------------------- */

static int check_options(const struct mag_rt *rt, const struct mag_spawn_options *o)
{
    if (o->worker > rt->n_workers || o->stack_bytes > MAG_STACK_BYTES_MAX ||
        (o->stack_bytes && o->stack_bytes < MAG_STACK_BYTES_MIN))
        return -EINVAL;
    return 0;
}

/* What few tasks have goes to a block of its own. */
MAG_NOINLINE static int make_ext(struct mag_worker *w, struct mag_rt *rt, struct mag_task *t,
                                 const struct mag_spawn_options *o,
                                 const struct mag_co_extra *extra)
{
    static const struct mag_spawn_options none;
    struct mag_vars *vars = mag_worker_vars();
    struct mag_task_ext *ext;
    int rc;

    o = o ? o : &none;
    rc = check_options(rt, o);
    if (rc < 0)
        return rc;
    ext = extra && extra->ext ? extra->ext : mag_slab_alloc(w ? &w->slab : NULL, sizeof *ext);
    if (ext == NULL)
        return -ENOMEM;
    *ext = (struct mag_task_ext){
        .head.size_class = ext->head.size_class,
        .stopping = extra ? extra->stopping : NULL,
        .hook = extra ? extra->hook : NULL,
        .name = o->name,
        .worker = o->pin ? w : NULL,
        .stack_bytes = o->stack_bytes,
        .vars = vars ? mag_vars_ref(vars) : NULL,
        .pin = o->pin,
    };
    if (o->worker)
        ext->worker = &rt->workers[o->worker - 1];
    mag_store_relaxed(&ext->head.used, MAG_AUXILIARY);
    t->ext = ext;
    return 0;
}

/* Whether it has such things: most tasks have none. */
static inline bool needs_ext(const struct mag_worker *w, const struct mag_spawn_options *o)
{
    if (MAG_UNLIKELY(w == NULL || w->fiber == NULL || w->fiber->vars != NULL))
        return mag_worker_vars() != NULL ||
               (o && (o->name || o->stack_bytes || o->pin || o->worker));
    return o && (o->name || o->stack_bytes || o->pin || o->worker);
}

/* Hands a begun task to the scheduler. */
void mag_co_schedule(struct mag_worker *w, struct mag_rt *rt, struct mag_task *t)
{
    struct mag_worker *target = t->ext ? t->ext->worker : NULL;

    t->is_counted = true;
    mag_task_set_idle(t, w ? w : rt->workers);
    if (w)
        mag_store_relaxed(&w->n_spawned, w->n_spawned + 1);
    else
        mag_fetch_add(&rt->n_submitted, 1);
    if (target) {
        t->msg.deliver = mag_worker_deliver_task;
        mag_worker_send(target, &t->msg);
    } else if (w) {
        mag_worker_push(w, t);
    } else {
        t->msg.deliver = mag_worker_deliver_task;
        mag_worker_post(rt, &t->msg);
    }
}

void mag_co_launch(struct mag_worker *w, struct mag_task *t)
{
    if (t->is_leaf)
        t->type->body(mag_task_frame(t), mag_task_result(t));
    else
        mag_co_schedule(w, w->rt, t);
}

static inline int start(struct mag_worker *w, struct mag_rt *rt, void *coro,
                        const struct mag_spawn_options *o, const struct mag_co_extra *extra)
{
    struct mag_task *t = mag_task_of(coro);
    int rc;

    if (t == NULL)
        return -ENOMEM;
    if (!mag_co_begin(t))
        return mag_misuse(-EALREADY, "a coroutine that was started or awaited before is started");
    if (MAG_UNLIKELY(extra != NULL) || MAG_UNLIKELY(needs_ext(w, o))) {
        rc = make_ext(w, rt, t, o, extra);
        if (rc < 0) {
            unbegin(t);
            return rc;
        }
    }
    if (o && o->site) {
        t->site = o->site;
        t->origin_kind = MAG_ORIGIN_SITE;
    }
    mag_co_schedule(w, rt, t);
    return 0;
}

int mag_co_start(struct mag_worker *w, struct mag_rt *rt, void *coro,
                 const struct mag_spawn_options *options, const struct mag_co_extra *extra)
{
    return start(w, rt, coro, options, extra);
}

int mag_start(void *coro, const struct mag_spawn_options *options)
{
    struct mag_worker *w = mag_worker_self();

    if (w == NULL)
        return coro ? mag_misuse(-ENXIO, "mag_start() outside a task: use mag_submit()") : -ENOMEM;
    return start(w, w->rt, coro, options, NULL);
}

int mag_submit(struct mag_rt *rt, void *coro, const struct mag_spawn_options *options)
{
    struct mag_worker *w = mag_worker_self();

    return mag_co_start(w && w->rt == rt ? w : NULL, rt, coro, options, NULL);
}

/* A coroutine without a type of its own: the type is kept behind the frame. */
int mag_spawn(struct mag_task **out, int (*body)(void *frame, void *result), const void *frame,
              size_t frame_bytes, size_t result_bytes, const struct mag_spawn_options *options)
{
    size_t result_offset = (frame_bytes + 15) & ~(size_t)15;
    size_t type_offset = (result_offset + result_bytes + 15) & ~(size_t)15;
    struct mag_co_type type = { .name = options && options->name ? options->name : "task",
                                .body = body,
                                .frame_bytes = (uint32_t)(type_offset + sizeof type),
                                .result_offset = (uint32_t)result_offset,
                                .result_bytes = (uint32_t)result_bytes };
    char *co;
    int rc;

    if (frame_bytes > UINT32_MAX / 4 || result_bytes > UINT32_MAX / 4 || body == NULL)
        return -EINVAL;
    if (mag_worker_self() == NULL)
        return -ENXIO;
    co = mag_co_new(&type, __builtin_return_address(0));
    if (co == NULL)
        return -ENOMEM;
    if (frame_bytes)
        memcpy(co, frame, frame_bytes);
    memcpy(co + type_offset, &type, sizeof type);
    mag_task_of(co)->type = (struct mag_co_type *)(co + type_offset);
    rc = mag_start(co, options);
    if (rc < 0)
        mag_worker_release(mag_task_of(co));
    else
        *out = (struct mag_task *)co;
    return rc;
}

/* ---- awaiting ----------------------------------------------------------------------------- */

/* The error's trace goes to who awaits. */
void mag_co_hand_trace(struct mag_task *t, struct mag_task *to)
{
    struct mag_trace *old;

    if (to == NULL || t->trace == NULL)
        return;
    old = to->trace;
    if (old && !old->is_caught && t->trace->rc == -ECANCELED)
        return; /* the siblings that a failure cancelled say nothing of it */
    to->trace = t->trace;
    t->trace = NULL;
    if (old)
        mag_slab_free(NULL, &old->head);
}

/* Most results are a number or a pointer: worth not calling memcpy for. */
static inline void copy_result(void *to, const void *from, size_t n)
{
    if (n == sizeof(uint64_t))
        memcpy(to, from, sizeof(uint64_t));
    else if (n == sizeof(uint32_t))
        memcpy(to, from, sizeof(uint32_t));
    else
        memcpy(to, from, n);
}

/* The end of every await: result out, object freed. */
int mag_co_collect(struct mag_task *t, int rc, void *result, struct mag_task *heir)
{
    if (rc >= 0 && result)
        copy_result(result, mag_task_result(t), t->type->result_bytes);
    if (MAG_UNLIKELY(t->trace != NULL) && rc < 0)
        mag_co_hand_trace(t, heir);
    mag_worker_release(t);
    return rc;
}

static void count_end(void)
{
    struct mag_worker *w = mag_worker_self();

    mag_store_release(&w->n_ended, w->n_ended + 1);
}

/* One that was spawned: it has variables of its own, and perhaps a group. */
static int run_task_here(struct mag_fiber *f, struct mag_task *t, void *result)
{
    int rc = mag_worker_call_task(f, t);
    struct mag_end_hook *hook = mag_task_ending(t, rc);

    rc = mag_co_collect(t, rc, result, f->current);
    if (hook && hook->ended)
        hook->ended(hook);
    count_end();
    return rc;
}

static int run_here(struct mag_fiber *f, struct mag_task *t, void *result)
{
    int rc;

    mag_store_relaxed(&t->work.slot, MAG_SLOT_TAKEN); /* a second awaiter is refused */
    if (t->is_counted)
        return run_task_here(f, t, result);
    rc = mag_worker_call(f, t);
    return mag_co_collect(t, rc, result, f->current);
}

bool mag_co_is_in_chain(const struct mag_fiber *f, const struct mag_task *t)
{
    const struct mag_task *c = f->current;

    while (c && c != t)
        c = c->outer;
    return c != NULL;
}

static int awaits_itself(const struct mag_task *t)
{
    return mag_misuse(-EDEADLK, "task '%s' awaits itself", mag_task_name(t));
}

/* It was consumed before, or somebody else waits for it. */
int mag_co_used_before(const char *what)
{
    return mag_misuse(-EALREADY,
                      "%s of an object that was awaited, detached or closed before, or that "
                      "somebody else awaits: each is consumed once",
                      what);
}

/* Suspended until it ends; a future may be given up instead. */
static int wait_here(struct mag_fiber *f, struct mag_task *t, void *result)
{
    int rc;

    if (mag_co_is_in_chain(f, t))
        return awaits_itself(t);
    rc = mag_wait_task(f, t);
    if (rc == -EBUSY)
        return mag_co_used_before("await");
    if (rc < 0) { /* a future, given up; unless it was set at that moment */
        if (mag_task_detach(t) == -EALREADY)
            mag_worker_release(t);
        return rc;
    }
    return mag_co_collect(t, t->rc, result, f->current);
}

/* Outside a task: the same by blocking the thread; an unstarted body runs right here. */
static int await_outside(struct mag_task *t, void *result)
{
    int rc;

    if (mag_co_begin(t)) {
        rc = t->is_leaf ? mag_wait_outside() : 0; /* a leaf would only begin, on a worker */
        if (rc == 0)
            rc = t->type->body(mag_task_frame(t), mag_task_result(t));
        return mag_co_collect(t, rc, result, NULL);
    }
    rc = mag_wait_task_outside(t);
    return rc < 0 ? rc : mag_co_collect(t, t->rc, result, NULL);
}

/* An object that nobody has started: in place if that is possible. */
static int await_unstarted(struct mag_worker *w, struct mag_fiber *f, struct mag_task *t,
                           void *result)
{
    mag_store_relaxed(&t->is_begun, 1);
    if (MAG_LIKELY(mag_co_fits_here(f, t)))
        return run_here(f, t, result);
    mag_co_launch(w, t);
    return wait_here(f, t, result);
}

int mag_await(void *awaitable, void *result, size_t result_bytes)
{
    struct mag_task *t = mag_task_of(awaitable);
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber *f = w ? w->fiber : NULL;
    uint32_t kind;

    if (MAG_UNLIKELY(t == NULL))
        return -ENOMEM;
    kind = mag_load_relaxed(&t->head.used);
    if (MAG_UNLIKELY(kind == 0))
        return mag_co_used_before("await");
    if (MAG_UNLIKELY(result && result_bytes != t->type->result_bytes))
        return -EINVAL;
    if (MAG_UNLIKELY(f == NULL))
        return await_outside(t, result);
    if (kind == MAG_COROUTINE) {
        if (!mag_load_relaxed(&t->is_begun))
            return await_unstarted(w, f, t, result);
        if (MAG_UNLIKELY(t->ext != NULL)) {
            if (mag_co_is_in_chain(f, t))
                return awaits_itself(t);
            mag_task_taken(t);
        }
        if (mag_co_fits_here(f, t) && mag_deque_take(&w->deque, &t->work))
            return run_here(f, t, result);
    }
    if (mag_task_is_done(t))
        return mag_co_collect(t, t->rc, result, f->current);
    return wait_here(f, t, result);
}

/* ---- cancelling, giving up --------------------------------------------------------------- */

int mag_cancel(void *task)
{
    struct mag_task *t = mag_task_of(task);

    if (t == NULL)
        return -ENOMEM;
    if (mag_load_relaxed(&t->head.used) != MAG_COROUTINE || !mag_load_relaxed(&t->is_begun))
        return -EINVAL;
    mag_cancel_task(t);
    return 0;
}

/* A runtime that stops cancels what is detached: either it finds this one, or we see
 * that it stops. */
int mag_co_detach(struct mag_task *t)
{
    struct mag_worker *w;
    int rc;

    mag_fetch_add(&t->extra_refs, 1);
    rc = mag_task_detach(t);
    if (rc == -EALREADY)
        mag_worker_release(t);
    w = (struct mag_worker *)(mag_load_acquire(&t->home) & ~(uintptr_t)MAG_HOME_IDLE);
    if (w && mag_load_seq(&w->rt->cancel_level))
        mag_cancel_task(t);
    mag_worker_release(t);
    return rc == -EBUSY ? -EALREADY : 0;
}

int mag_detach(void *task)
{
    struct mag_task *t = mag_task_of(task);

    if (t == NULL)
        return -ENOMEM;
    if (mag_load_relaxed(&t->head.used) != MAG_COROUTINE || !mag_load_relaxed(&t->is_begun))
        return -EINVAL;
    mag_task_taken(t);
    return mag_co_detach(t);
}

int mag_close(void *awaitable)
{
    struct mag_task *t = mag_task_of(awaitable);
    int rc;

    if (t == NULL)
        return 0;
    if (mag_load_relaxed(&t->head.used) == 0)
        return -EALREADY;
    if (mag_co_begin(t)) {
        mag_worker_release(t);
        return 0;
    }
    if (mag_load_relaxed(&t->head.used) == MAG_FUTURE) {
        rc = mag_task_detach(t);
        if (rc == -EALREADY)
            mag_worker_release(t);
        return rc == -EBUSY ? -EALREADY : 0;
    }
    mag_cancel_task(t);
    rc = mag_await(awaitable, NULL, 0);
    return rc == -ECANCELED || rc >= 0 ? 0 : rc;
}

/* ---- looking --------------------------------------------------------------------------------- */

const char *mag_kind_name(const void *awaitable)
{
    const struct mag_task *t = mag_task_of(awaitable);
    uint32_t kind = t ? mag_load_relaxed(&t->head.used) : 0;

    if (kind == MAG_FUTURE)
        return "future";
    if (kind == MAG_COROUTINE)
        return mag_load_relaxed(&t->is_begun) ? "task" : "coroutine";
    return "freed";
}

const char *mag_name(const void *awaitable)
{
    const struct mag_task *t = mag_task_of(awaitable);

    return t && mag_load_relaxed(&t->head.used) ? mag_task_name(t) : "?";
}

bool mag_done(const void *awaitable)
{
    const struct mag_task *t = mag_task_of(awaitable);

    return t && mag_load_relaxed(&t->head.used) && mag_task_is_done(t);
}

struct mag_task *mag_self(void)
{
    struct mag_fiber *f = mag_fiber_self();

    return f && f->current ? mag_task_frame(f->current) : NULL;
}
