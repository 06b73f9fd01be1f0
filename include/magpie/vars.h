/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_VARS_H
#define MAGPIE_VARS_H
/*
 * vars.h - task-local variables: what asyncio calls context variables
 *
 *      struct mag_var request_id = { "request_id", "none" };     its name, its initial value
 *
 *      mag_var_set(&request_id, "r-17");
 *      ... here, in every coroutine awaited from here, and in every task spawned from here:
 *      const char *id = mag_var_get(&request_id);                 "r-17"
 *
 * A task inherits the values that its spawner has at that moment (spawn, gather, group,
 * mag_submit from a task, callbacks); what it sets later is its own, and seen by its
 * spawner no more than what the spawner sets later is seen by it.  A coroutine that is
 * awaited is part of the task that awaits it: the two share.  Unlike a thread-local
 * variable, a value moves with the task from thread to thread.
 *
 * The values are pointers, which the library neither follows nor frees: what they point to
 * must outlive the tasks that inherit them, detached ones included.
 *
 * A part of mag_fork (fork.h) that another worker runs, and a coroutine with a stack of its
 * own size, count as tasks of their own: a fork's part has initial values there, and what
 * either sets its awaiter does not see.
 */
#include <magpie/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One variable; usually static.  Both are for the user to fill in and are not changed. */
struct mag_var {
    const char *name; /* for reports */
    void *initial;    /* what get answers where nobody has set it */
};

enum { MAG_VARS_MAX = 64 }; /* variables that one task can have set */

/*
 * The value in the running task; the initial one where neither it nor whom it inherited
 * from has set the variable, and outside a task.  Some ns; never suspends.
 */
MAG_API void *mag_var_get(const struct mag_var *var);

/*
 * Sets the value in the running task.  To put an earlier value back (contextvars' reset),
 * set what mag_var_get gave before.  Errors: -ENXIO outside a task, -ENOSPC beyond
 * MAG_VARS_MAX variables, -ENOMEM, -EINVAL for NULL.  Never suspends.
 */
MAG_API int mag_var_set(const struct mag_var *var, void *value);

#ifdef __cplusplus
}
#endif
#endif
