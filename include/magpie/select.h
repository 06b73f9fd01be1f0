/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_SELECT_H
#define MAGPIE_SELECT_H
/*
 * select.h - waiting for several things at once, of which exactly one happens
 *
 *      struct mag_case cases[] = {
 *          mag_case_get(jobs, &job),
 *          mag_case_event(&stop),
 *          mag_case_at(mag_now() + MAG_SECOND),
 *      };
 *      switch (mag_select(cases, 3)) {
 *      case 0: ... a job was taken ...
 *      case 1: ... somebody has set the event; no job was taken ...
 *      case 2: ... a second has passed ...
 *      default: ... cancelled ...
 *      }
 *
 * The case that happens is carried out: the item has been taken or put.  The others have
 * not happened at all.  A case whose own operation fails (its queue was shut down) has
 * happened too: its `rc' says with what.
 *
 * A case that shall not take part just now is mag_case_at(MAG_NEVER).
 */
#include <magpie/queue.h>
#include <magpie/task.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mag_event;

/* Cases of one select; -EINVAL above. */
#define MAG_SELECT_MAX 64

/* One case; made by the functions below, used again as often as wanted. */
struct mag_case {
    int rc;    /* of the one that happened: 0, or -EPIPE */
    int kind_; /* private */
    uint64_t private_[16];
};

/* mag_queue_get and mag_queue_put as cases.  The item must live as long as the select. */
MAG_API struct mag_case mag_case_get(struct mag_queue *q, void *item);
MAG_API struct mag_case mag_case_put(struct mag_queue *q, const void *item);

/* That the event is set. */
MAG_API struct mag_case mag_case_event(struct mag_event *e);

/* That it is that late (CLOCK_MONOTONIC, ns); MAG_NEVER: does not happen. */
MAG_API struct mag_case mag_case_at(mag_time deadline);

/* That a task has ended, or a future was set; it is not consumed: mag_await has its result
 * at once then. */
MAG_API struct mag_case mag_case_done(void *task);

/*
 * Waits until one of the cases can be carried out, does that, and returns its index.  If
 * several can, one of them: the first one from a place that changes from call to call, so
 * that none is starved.  Errors: -EINVAL (n is 0 or above MAG_SELECT_MAX, a NULL queue or
 * event, a coroutine that was never started), -ENOMEM (for a NULL task as well), -EBUSY
 * (somebody else awaits a task of mag_case_done), -EALREADY (it was awaited before),
 * -EDEADLK (it is the caller), -ENXIO (a callback that would have to wait).  Any task, any
 * thread.  Suspends; cancellation point: after -ECANCELED none has happened.
 */
MAG_API int mag_select(struct mag_case *cases, size_t n);

/* The same without waiting: -EAGAIN if none can be carried out now.  Never suspends. */
MAG_API int mag_select_nowait(struct mag_case *cases, size_t n);

#ifdef __cplusplus
}
#endif
#endif
