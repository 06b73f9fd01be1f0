/* SPDX-License-Identifier: MIT */
/*
 * scope.c - deadlines, cancellation and shields around a piece of code
 *
 * The scopes of a fiber are a list on its stack, innermost first, through all the tasks of
 * its chain (task.h).  What can be seen from where the fiber is now:
 *
 *      scope - scope - TASK - scope - shield | scope - TASK - ...
 *      innermost                      `seen'   not seen
 *
 * A scope fires: its reason is set, once.  A task is cancelled: its flag is.  If anything
 * that is seen has fired, fiber->is_cancelled is true, and every suspension fails.
 *
 * Deadlines cost nothing until the fiber suspends.  Entering only notes the earliest deadline
 * that is seen (fiber->deadline).  The fiber has one timer, which is armed when it suspends
 * in something cancellable, and then stays: the rule is only that it fires at or before the
 * deadline.  If it fires early, because that scope was left, it is armed again.  So a with_timeout
 * around something that is there already costs a clock reading and ten stores, and a thousand
 * reads under one deadline arm it once.
 *
 * Invariants
 *   1. Scopes are entered and left by the running fiber; only its home's thread, which is in
 *      the loop then, makes them fire from outside.
 *   2. While the fiber is suspended cancellably, the timer is armed for fiber->deadline or
 *      earlier, unless that is MAG_NEVER.
 *   3. A fiber with an armed timer does not move (worker.c); giving it away disarms first.
 *
 * An error leaves a scope in two ways: mag_scope_leave returns it, or `await' passes it out of
 * the function in which the scope was entered (mag_raise).  Both explain -ECANCELED by the
 * outermost thing that has fired, as Trio does: if that is the scope at hand, the error is its
 * reason; otherwise it is somebody else's to explain further out.
 *
 * Rejected: -ETIMEDOUT from each suspension in a scope that has timed out (inner code that
 * retries its own timeouts would take it for its own, and go on for ever); a timer per scope
 * (an add and a cancel for each, in heaps that a moving fiber would leave behind).
 */
#include "scope.h"

#include "clock.h"
#include "misuse.h"

#include <errno.h>

MAG_STATIC_ASSERT(sizeof(struct mag_scope_frame) <= sizeof(struct mag_scope));

static struct mag_scope_frame *frame_of(const struct mag_scope *scope)
{
    return (struct mag_scope_frame *)(uintptr_t)scope;
}

/* ---- the earliest deadline ------------------------------------------------------------- */

static void disarm(struct mag_fiber *f)
{
    uint32_t was;

    if (!f->has_timer)
        return;
    f->has_timer = false;
    was = mag_worker_enter(f->home);
    mag_timers_cancel(&f->home->timers, &f->timer);
    mag_worker_leave(f->home, was);
}

/* By the home's thread; or by a rescuer, who cannot ask the home's ring: then the timer is
 * armed again, for the home. */
static void cancel_wait(struct mag_fiber *f)
{
    if (!f->is_cancelled || f->wait == NULL)
        return;
    if (f->wait->kind->is_home_only && mag_worker_self() != f->home)
        (void)!mag_timers_add(&f->home->timers, &f->timer, 0);
    else
        f->wait->kind->cancel(f->wait);
}

static void timer_fired(struct mag_timer *timer)
{
    struct mag_fiber *f = mag_container_of(timer, struct mag_fiber, timer);

    if (f->home->fiber == f) { /* a rescuer's look: it runs, and perhaps is about to suspend */
        (void)!mag_timers_add(&f->home->timers, timer, timer->deadline);
        return;
    }
    mag_fiber_fire_due(f);
    if (f->wait == NULL) /* it runs soon, and arms again when it suspends */
        return;
    if (!f->is_cancelled && f->deadline != MAG_NEVER) /* the heap has room: it just held us */
        (void)!mag_timers_add(&f->home->timers, &f->timer, f->deadline);
    cancel_wait(f);
}

int mag_scope_arm_slow(struct mag_fiber *f)
{
    uint32_t was = mag_worker_enter(f->home);
    int rc = 0;

    if (!mag_timer_is_armed(&f->timer) || f->timer.deadline > f->deadline) {
        mag_timers_cancel(&f->home->timers, &f->timer);
        f->timer.fire = timer_fired;
        rc = mag_timers_add(&f->home->timers, &f->timer, f->deadline);
        f->has_timer = true;
    }
    mag_worker_leave(f->home, was);
    return rc;
}

/* ---- entering and leaving --------------------------------------------------------------- */

void mag_scope_push(struct mag_fiber *f, struct mag_scope_frame *s, mag_time deadline,
                    const struct mag_site *site, bool is_shield)
{
    *s = (struct mag_scope_frame){ .outer = f->scope,
                                   .task = f->current,
                                   .site = site,
                                   .deadline = deadline,
                                   .is_shield = is_shield };
    f->scope = s;
    if (is_shield) {
        f->deadline = deadline;
        f->is_cancelled = false;
    } else if (deadline < f->deadline) {
        f->deadline = deadline;
    }
}

bool mag_scope_pop(struct mag_fiber *f, struct mag_scope_frame *s)
{
    if (f->scope != s || s->task != f->current)
        return false;
    f->scope = s->outer;
    if (s->reason || s->is_shield || s->deadline <= f->deadline)
        f->deadline = mag_fiber_deadline_seen(f);
    if (s->reason || s->is_shield)
        f->is_cancelled = mag_fiber_chain_cancelled(f);
    if (f->deadline == MAG_NEVER)
        disarm(f);
    return true;
}

int mag_scope_explain(struct mag_fiber *f, const struct mag_scope_frame *s, int rc)
{
    return rc == -ECANCELED && s->reason && !mag_worker_is_cancelled(f) ? s->reason : rc;
}

void mag_scope_fire(struct mag_fiber *f, struct mag_scope_frame *s, int reason)
{
    if (s->reason)
        return;
    s->reason = reason;
    f->deadline = mag_fiber_deadline_seen(f);
    f->is_cancelled = mag_fiber_chain_cancelled(f);
    cancel_wait(f);
}

/* ---- the public side ---------------------------------------------------------------------- */

int mag_scope_enter(struct mag_scope *scope, mag_time deadline, const struct mag_site *site)
{
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL)
        return mag_misuse(-ENXIO, "mag_scope_enter() outside a task: scopes belong to tasks");
    mag_scope_push(f, frame_of(scope), deadline, site, false);
    return 0;
}

int mag_timeout_enter(struct mag_scope *scope, mag_time duration_ns, const struct mag_site *site)
{
    if (duration_ns < 0)
        return mag_misuse(-EINVAL, "a timeout below zero (%lld ns): use 0 for \"at once\"",
                          (long long)duration_ns);
    return mag_scope_enter(scope, mag_clock_after(duration_ns), site);
}

int mag_shield_enter(struct mag_scope *scope, mag_time grace_ns, const struct mag_site *site)
{
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL)
        return mag_misuse(-ENXIO, "mag_shield_enter() outside a task: scopes belong to tasks");
    if (grace_ns < 0)
        return mag_misuse(-EINVAL, "mag_shield_enter() with a grace below zero");
    mag_scope_push(f, frame_of(scope), mag_clock_after(grace_ns), site, true);
    return 0;
}

int mag_scope_leave(struct mag_scope *scope, int rc)
{
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL || !mag_scope_pop(f, frame_of(scope)))
        return mag_misuse(-EPERM, "mag_scope_leave() of a scope that is not the innermost one "
                                  "of this task: leave scopes in reverse order");
    return mag_scope_explain(f, frame_of(scope), rc);
}

mag_time mag_scope_when(const struct mag_scope *scope)
{
    return frame_of(scope)->deadline;
}

int mag_scope_reschedule(struct mag_scope *scope, mag_time deadline)
{
    struct mag_scope_frame *s = frame_of(scope);
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL)
        return -ENXIO;
    if (s->reason)
        return mag_misuse(-EPERM, "mag_scope_reschedule() of a scope that has fired already");
    s->deadline = deadline;
    f->deadline = mag_fiber_deadline_seen(f);
    return 0;
}

bool mag_scope_expired(const struct mag_scope *scope)
{
    return frame_of(scope)->reason == -ETIMEDOUT;
}

int mag_scope_cancel(struct mag_scope *scope)
{
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL)
        return -ENXIO;
    mag_scope_fire(f, frame_of(scope), -ECANCELED);
    return 0;
}

bool mag_cancelled(void)
{
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL)
        return false;
    mag_scope_poll(f);
    return mag_worker_is_cancelled(f);
}

/* ---- errors on their way out ---------------------------------------------------------------- */

/* The outermost scope that is seen and has fired, if nothing further out is cancelled. */
static const struct mag_scope_frame *culprit(const struct mag_fiber *f)
{
    const struct mag_scope_frame *s = f->scope, *found = NULL;
    const struct mag_task *t = f->current;

    for (;; t = t->outer) {
        for (; s && s->task == t; s = s->outer) {
            if (s->is_shield)
                return found;
            if (s->reason)
                found = s;
        }
        if (t == NULL)
            return found;
        if (mag_task_is_cancelled(t))
            found = NULL;
    }
}

int mag_raise(int rc, const struct mag_site *site)
{
    struct mag_fiber *f = mag_fiber_self();
    const struct mag_scope_frame *s = rc == -ECANCELED && f && f->scope ? culprit(f) : NULL;

    if (s && s->task == f->current && s->site && s->site->function == site->function) {
        rc = s->reason;
        if (f->current->trace && f->current->trace->rc == -ECANCELED)
            f->current->trace->rc = rc; /* the same error, by its right name */
    }
    return mag_trace(rc, site);
}
