/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_SCOPE_H
#define MAGPIE_SCOPE_H
/*
 * scope.h - deadlines, cancellation and shields, as blocks of code
 *
 *      struct mag_scope s;
 *      int rc = mag_scope_enter(&s, mag_now() + 5 * MAG_SECOND, NULL);
 *      if (rc == 0)
 *          rc = mag_scope_leave(&s, talk_to(server));      -ETIMEDOUT after 5 s
 *
 * A scope is entered and left by one task, like a bracket; scopes nest, also across
 * functions that know nothing of them.  Cancellation is level-triggered: from the moment
 * when a scope *fires* (its deadline has passed, or somebody cancelled it), every
 * suspension inside it returns -ECANCELED, until it is left.  Who leaves it knows which
 * scope fired: mag_scope_leave turns that -ECANCELED, and no other, into the scope's own
 * reason, -ETIMEDOUT for a deadline.  If a scope further out has fired too, the error is
 * that one's to explain, and stays.
 *
 * A result that has arrived is never replaced: a deadline that passes while a call
 * returns its value changes nothing.
 *
 * The other holders of a scope are the task group (group.h) and mag_cancel().
 * <magpie/async.h> has with_timeout, timeout_at, with_shield and wait_for.
 *
 * Scopes belong to tasks: outside a task mag_scope_enter answers -ENXIO.
 *
 * After Trio's cancel scopes (N. J. Smith, "Timeouts and cancellation for humans", 2018).
 */
#include <magpie/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Storage; its contents are private. */
struct mag_scope {
    uint64_t private_[8];
};

/*
 * Enters a scope, which fires when the deadline (CLOCK_MONOTONIC, ns; MAG_NEVER: never)
 * has passed; at once if it is in the past.  `site' (may be NULL) is kept, and must live
 * as long.  Must be left by mag_scope_leave in the same task, innermost first.  Errors:
 * -ENXIO outside a task.  Never suspends.
 */
MAG_API int mag_scope_enter(struct mag_scope *scope, mag_time deadline,
                            const struct mag_site *site);

/* The same with a duration from now; below zero: -EINVAL. */
MAG_API int mag_timeout_enter(struct mag_scope *scope, mag_time duration_ns,
                              const struct mag_site *site);

/*
 * Leaves the innermost scope.  Returns rc; but where rc is -ECANCELED because this scope
 * has fired, and none further out, its reason: -ETIMEDOUT.  -EPERM if it is not the
 * innermost one of this task.  Never suspends.
 */
MAG_API int mag_scope_leave(struct mag_scope *scope, int rc);

/*
 * Enters a shield: inside it nothing is seen of cancellation from outside, deadlines
 * included, for `grace_ns' (MAG_NEVER: for ever), so that a cleanup can suspend.  Left by
 * mag_scope_leave.  Scopes entered inside work as ever.  Errors: -ENXIO, -EINVAL.
 */
MAG_API int mag_shield_enter(struct mag_scope *scope, mag_time grace_ns,
                             const struct mag_site *site);

/* Its deadline.  The task that entered it. */
MAG_API mag_time mag_scope_when(const struct mag_scope *scope);

/*
 * Another deadline.  -EPERM if the scope has fired already: it cannot be taken back.
 * Only by code inside the scope.
 */
MAG_API int mag_scope_reschedule(struct mag_scope *scope, mag_time deadline);

/* Whether its deadline has made it fire.  The task that entered it, also after leaving. */
MAG_API bool mag_scope_expired(const struct mag_scope *scope);

/*
 * Makes it fire now: what is inside ends with -ECANCELED, and mag_scope_leave returns
 * that.  Only by code inside the scope; for another task's there is mag_cancel and
 * mag_group_cancel.
 */
MAG_API int mag_scope_cancel(struct mag_scope *scope);

/*
 * A cancellation point for code that does not suspend by itself: -ECANCELED if the task
 * is cancelled or a deadline around it has passed, else 0.  Lets others run when the task
 * has run for long.  Outside a task 0.
 */
MAG_API int mag_checkpoint(void);

/* Whether a suspension would fail now.  Never suspends. */
MAG_API bool mag_cancelled(void);

/*
 * mag_await with a limit: after `timeout_ns' the awaitable is cancelled and waited for,
 * and -ETIMEDOUT is returned, unless it has a result all the same.  -EINVAL for a negative
 * one (nothing is consumed then).  MAG_NEVER: mag_await.  Consumes the object.  Suspends;
 * cancellation point.  Outside a task the limit cannot be kept: -ENXIO; use mag_join_task.
 */
MAG_API int mag_wait_for(void *awaitable, mag_time timeout_ns, void *result, size_t result_bytes);

/*
 * Waits for an awaitable that the caller's cancellation shall not reach (asyncio.shield):
 * if the caller is cancelled, or a deadline around it passes, this returns -ECANCELED at
 * once and the task goes on by itself, detached.  Otherwise as mag_await.  A coroutine is
 * started as a task.
 */
MAG_API int mag_shield(void *awaitable, void *result, size_t result_bytes);

/*
 * What `await' leaves the enclosing function with: mag_trace(rc, site), and where rc is
 * -ECANCELED because a scope that was entered in this very function (by a site with the
 * same `function' pointer, __func__) has fired, that scope's reason.
 */
MAG_API int mag_raise(int rc, const struct mag_site *site);

#ifdef __cplusplus
}
#endif
#endif
