/* SPDX-License-Identifier: MIT */
/*
 * timeout.c - an await with a limit, an await that cancellation does not reach, and the
 * cancellation point of code that does not suspend
 *
 * wait_for is nothing but a scope around an await, so the child may run in place: if it is
 * late, its suspensions fail like those of the caller would, and when it has ended the scope
 * explains why.
 *
 * shield is an await of a task that the caller, when it is cancelled, gives up: so the
 * coroutine must be a task of its own, and is never run in place.
 */
#include "clock.h"
#include "co.h"
#include "misuse.h"
#include "scope.h"
#include "wait.h"

#include <errno.h>

int mag_checkpoint(void)
{
    return mag_wait_in_task() ? mag_wait_checkpoint() : 0;
}

int mag_wait_for(void *awaitable, mag_time timeout_ns, void *result, size_t result_bytes)
{
    struct mag_fiber *f = mag_fiber_self();
    struct mag_scope_frame s;
    int rc;

    if (awaitable == NULL)
        return -ENOMEM;
    if (timeout_ns < 0)
        return mag_misuse(-EINVAL, "mag_wait_for() with a timeout below zero");
    if (timeout_ns == MAG_NEVER)
        return mag_await(awaitable, result, result_bytes);
    if (f == NULL)
        return mag_misuse(-ENXIO, "mag_wait_for() outside a task: use mag_join_task()");
    mag_scope_push(f, &s, mag_clock_after(timeout_ns), NULL, false);
    rc = mag_await(awaitable, result, result_bytes);
    (void)mag_scope_pop(f, &s);
    return mag_scope_explain(f, &s, rc);
}

/* ---- shield ----------------------------------------------------------------------------- */

struct shielded {
    struct mag_wait wait;
    struct mag_task *task;
    struct mag_fiber *fiber;
    int rc;
};

/* The waiter is taken back, unless the task's end is on its way. */
static void shielded_cancel(struct mag_wait *wait)
{
    struct shielded *s = mag_container_of(wait, struct shielded, wait);

    if (!mag_task_unwait(s->task, &s->fiber->waiter))
        return;
    s->rc = -ECANCELED;
    mag_worker_ready(s->fiber);
}

static const struct mag_wait_kind shielded_kind = { "shielded task", shielded_cancel, false };

static void shielded_register(void *arg)
{
    struct shielded *s = arg;
    int rc = mag_task_wait(s->task, &s->fiber->waiter);

    if (rc == 0)
        return;
    s->rc = rc == -EALREADY ? 0 : rc;
    mag_worker_ready(s->fiber);
}

/* Until it ends: 0; -EBUSY if somebody else waits; or why the caller must not wait on. */
static int wait_shielded(struct mag_fiber *f, struct mag_task *t)
{
    struct shielded s = { .wait = { &shielded_kind, mag_task_frame(t) }, .task = t, .fiber = f };
    int rc;

    if (mag_task_is_done(t))
        return 0;
    rc = mag_wait_begin(f, &s.wait);
    if (rc < 0)
        return rc;
    mag_worker_suspend(shielded_register, &s);
    return s.rc;
}

/* Gives it up; a result that has come in the meantime is dropped. */
static void give_up(struct mag_task *t)
{
    if (mag_load_relaxed(&t->head.used) == MAG_COROUTINE)
        (void)mag_co_detach(t);
    else if (mag_task_detach(t) == -EALREADY)
        mag_worker_release(t);
}

int mag_shield(void *awaitable, void *result, size_t result_bytes)
{
    struct mag_task *t = mag_task_of(awaitable);
    struct mag_worker *w = mag_worker_self();
    struct mag_fiber *f = mag_fiber_self();
    int rc;

    if (t == NULL)
        return -ENOMEM;
    if (f == NULL)
        return mag_await(awaitable, result, result_bytes);
    if (mag_load_relaxed(&t->head.used) == 0)
        return mag_co_used_before("mag_shield()");
    if (result && result_bytes != t->type->result_bytes)
        return -EINVAL;
    if (mag_co_is_in_chain(f, t))
        return mag_misuse(-EDEADLK, "task '%s' waits for itself", mag_task_name(t));
    if (t->work.slot == MAG_SLOT_NONE && !mag_load_relaxed(&t->is_begun)) {
        rc = mag_co_start(w, w->rt, awaitable, NULL, NULL);
        if (rc < 0)
            return rc;
    }
    mag_task_taken(t);
    rc = wait_shielded(f, t);
    if (rc == 0)
        return mag_co_collect(t, t->rc, result, f->current);
    if (rc == -EBUSY)
        return mag_co_used_before("mag_shield()");
    give_up(t);
    return rc;
}
