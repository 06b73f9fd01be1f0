/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_GROUP_H
#define MAGPIE_GROUP_H
/*
 * group.h - task groups: tasks that do not outlive the block that began them
 *
 *      struct mag_group g;
 *      int rc = mag_group_enter(&g, NULL);
 *      if (rc == 0) {
 *          rc = mag_group_spawn(&g, fetch(a), &page_a, NULL);
 *          if (rc == 0)
 *              rc = mag_group_spawn(&g, fetch(b), &page_b, NULL);
 *          rc = mag_group_leave(&g, rc);          both have ended, whatever happened
 *      }
 *
 * Between enter and leave, the *block*, the owner and its children may begin further
 * children.  The first child that fails (with anything but -ECANCELED) stops the group: its
 * siblings are cancelled, and so is the block, whose suspensions return -ECANCELED from then
 * on.  mag_group_leave waits until the last child has ended, and returns the error.  It also
 * stops the group if the block itself has failed (rc < 0), or if the owner is cancelled, from
 * outside or by a deadline around it, and then waits for the children all the same.
 *
 * A child that ends with -ECANCELED although nobody stopped the group (somebody has
 * cancelled that task) is not an error, and its siblings go on.
 *
 * A group is as big as what runs in it: children of mag_group_spawn are freed when they end,
 * so a server may stay in one block for days.
 *
 * After Trio's nurseries and asyncio.TaskGroup.  <magpie/async.h> has task_group, group_spawn
 * and group_task.
 */
#include <magpie/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Storage, in the owner's frame; its contents are private. */
struct mag_group {
    uint64_t private_[48];
};

/* One error: of which child, and where that was begun. */
struct mag_group_error {
    int rc;
    const char *name;            /* as of mag_name(); the string that the spawn options gave */
    const struct mag_site *site; /* NULL: not known */
};

enum { MAG_GROUP_ERRORS_MAX = 16 };

struct mag_group_errors {
    size_t n; /* all errors; may exceed what is kept */
    struct mag_group_error list[MAG_GROUP_ERRORS_MAX];
};

struct mag_group_options {
    /* At most so many children at a time: who begins one more waits until one has ended.
     * 0: no limit.  Children that begin children count too: with a limit, a child that waits
     * for its grandchildren in the same group may wait for ever. */
    size_t limit;
    /* Receives the errors as they happen, in that order; valid after leave.  NULL: only the
     * first one is kept. */
    struct mag_group_errors *errors;
    const struct mag_site *site; /* where the block begins; must live as long */
};

/*
 * Begins a group, owned by the calling task.  Must be left by mag_group_leave in the same
 * task, scopes and groups innermost first.  `options' may be NULL.  Errors: -ENXIO outside a
 * task.  Never suspends.
 */
MAG_API int mag_group_enter(struct mag_group *g, const struct mag_group_options *options);

/*
 * Starts a coroutine as a child.  Nobody holds a handle of it: when it ends well its value is
 * written to `result' (of the type's size; NULL: dropped), which the owner may read after
 * leave, and the object is freed.  Consumes the object, also with an error:
 *
 *      -ENOMEM     the object is NULL, or memory is out
 *      -ECANCELED  the group is stopping; or, with a limit, the caller was cancelled while it
 *                  waited for its turn.  The coroutine was closed, it has not run
 *      -EALREADY   the object was used before (and is not consumed)
 *      -EINVAL     options; or the group has ended
 *      -ENXIO      outside a task
 *
 * For the owner in the block, and for its children at any time, on any worker.  Suspends only
 * with a limit, and is a cancellation point only then.
 */
MAG_API int mag_group_spawn(struct mag_group *g, void *coro, void *result,
                            const struct mag_spawn_options *options);

/*
 * The same, but the object remains a handle, which may be awaited (cancelled, detached) once,
 * by the owner in the block or by a child; what nobody has awaited is freed by leave.  An
 * error of the task stops the group all the same.  If this call itself fails, with anything
 * but -ENOMEM for NULL or -EALREADY, the handle is valid too: its await returns that error.
 */
MAG_API int mag_group_task(struct mag_group *g, void *coro,
                           const struct mag_spawn_options *options);

/*
 * Starts a child and waits until it has said mag_started(): for a service that must be up
 * before the caller goes on.  0, and what it said is in `value' (`bytes' of it; NULL:
 * dropped).  If it ends before: its rc, or -ENODATA if that is 0 or more; such an error is the
 * caller's, and does not stop the group.  Errors as of mag_group_spawn.
 *
 * A child that is cancelled before it has begun never runs.  So this is also how something is
 * handed over that has to be closed, a descriptor: it is the child's from its mag_started() on,
 * and stays the caller's if this call fails.
 *
 * Suspends; cancellation point: cancels the child, and returns when that has ended.
 */
MAG_API int mag_group_start(struct mag_group *g, void *coro, void *value, size_t bytes,
                            const struct mag_spawn_options *options);

/*
 * Tells the task that has begun the calling one by mag_group_start that it is ready.  From
 * then on it is a child like others.  `bytes' must be what the starter asked for, unless that
 * drops the value: else -EINVAL, and nothing has happened.  -EALREADY the second time;
 * -ENXIO if nobody waits: it was not begun by mag_group_start; -ECANCELED if the starter was
 * cancelled in the meantime: it then waits for the end of the calling task.  Never suspends.
 */
MAG_API int mag_started(const void *value, size_t bytes);

/*
 * Stops the group without an error: cancels the children and the block.  If that was all,
 * leave returns 0.  Returns 0, also when the group is stopping already; -EINVAL after its
 * end.  For the owner and the children, on any worker.  Never suspends.
 */
MAG_API int mag_group_cancel(struct mag_group *g);

/*
 * Ends the block: rc >= 0 waits for the children; rc < 0 cancels them first.  Returns, when
 * all have ended:
 *
 *      rc, if the block has failed by itself: rc < 0, not -ECANCELED, and not the first error
 *          of a child (which `await' passes on in its place);
 *      else the first error of a child;
 *      else 0, if rc is -ECANCELED only because of mag_group_cancel;
 *      else -ECANCELED, if the owner was cancelled while it waited;
 *      else rc.
 *
 * -EPERM: not by the owner, or a scope or group that was entered later has not been left;
 * nothing has happened then.  -EINVAL: the group has ended.  Suspends, but is no way out: a
 * cancelled owner, too, waits until the children have ended.
 */
MAG_API int mag_group_leave(struct mag_group *g, int rc);

/*
 * The errors so far: their number, and the first n of those that are kept in `list' (which
 * may be NULL with n = 0).  The owner in the block and its children; after leave the owner
 * reads options.errors instead.
 */
MAG_API int mag_group_errors(const struct mag_group *g, struct mag_group_error *list, size_t n);

#ifdef __cplusplus
}
#endif
#endif
