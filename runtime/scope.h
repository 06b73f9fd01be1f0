/* SPDX-License-Identifier: MIT */
#ifndef MAG_SCOPE_H
#define MAG_SCOPE_H
/*
 * scope.h - scopes, for the other primitives (scope.c)
 *
 * struct mag_scope_frame is in task.h.  All of it is for the fiber's home thread.
 */
#include "worker.h"

#include <magpie/scope.h>

/* Enters a scope of the running fiber. */
void mag_scope_push(struct mag_fiber *f, struct mag_scope_frame *s, mag_time deadline,
                    const struct mag_site *site, bool is_shield);

/* Leaves it; false if it is not the innermost one of the running task. */
bool mag_scope_pop(struct mag_fiber *f, struct mag_scope_frame *s);

/* rc; or the reason of a scope that has just been left, if that is why rc is -ECANCELED. */
int mag_scope_explain(struct mag_fiber *f, const struct mag_scope_frame *s, int rc);

/*
 * The scope fires with that reason (< 0), unless it has before: what the fiber is blocked in
 * is cancelled, if the scope is seen from there.  On the home's thread: by a message, or by
 * the fiber itself.
 */
void mag_scope_fire(struct mag_fiber *f, struct mag_scope_frame *s, int reason);

/* Before the fiber suspends: its deadline is armed, if it has one.  0 or -ENOMEM. */
int mag_scope_arm_slow(struct mag_fiber *f);
static inline int mag_scope_arm(struct mag_fiber *f)
{
    return MAG_LIKELY(f->deadline == MAG_NEVER) ? 0 : mag_scope_arm_slow(f);
}

/* Of code that arms no timer: fires what is due. */
static inline void mag_scope_poll(struct mag_fiber *f)
{
    if (MAG_UNLIKELY(f->deadline != MAG_NEVER))
        mag_fiber_poll_deadline(f);
}

#endif
