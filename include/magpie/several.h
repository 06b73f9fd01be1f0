/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_SEVERAL_H
#define MAGPIE_SEVERAL_H
/*
 * several.h - several tasks at once: wait, as they complete, race; done callbacks
 *
 *      bool done[3];
 *      int n = mag_wait(tasks, 3, MAG_FIRST_COMPLETED, 5 * MAG_SECOND, done);
 *      if (n == 0)
 *          ...                              5 s have passed, and all are still running
 *
 * These wait for tasks and futures without consuming them: afterwards each is still to be
 * awaited, once, as ever, which then returns at once.  Only mag_race, which runs everything
 * that it gets to an end, consumes, and mag_on_done takes the handle.
 *
 * A coroutine among them that has not started is started as a task, never run in place: it
 * has to run beside the others.  A task has one awaiter at a time, and who waits here is
 * that one meanwhile: -EALREADY if somebody else is.
 *
 * <magpie/async.h> has as_completed and race.  To wait for all and take the results there
 * is mag_gather; to own tasks, so that none outlives a block, there are task groups.
 */
#include <magpie/task.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mag_wait_how {
    MAG_FIRST_COMPLETED, /* until one has ended                                             */
    MAG_FIRST_EXCEPTION, /* until one has failed (not merely been cancelled), or all ended  */
    MAG_ALL_COMPLETED,   /* until all have ended                                            */
};

/*
 * Waits for n tasks, futures or coroutines: asyncio.wait.  Returns how many have ended, and
 * says in done[i] (`done' may be NULL) for each whether it has; that may be more than `how'
 * asked for.  NULL entries are skipped, so that a loop can set what it has awaited to NULL;
 * if all are, returns 0 at once.  The same task may be there twice.
 *
 * After `timeout_ns' (MAG_NEVER: no limit) it returns how many have ended by then; that is
 * no error.  Neither the timeout nor a failed task cancels anything.
 *
 * Errors: -EINVAL (n is 0, a negative timeout, how), -EALREADY (one is awaited by somebody
 * else, or was consumed), -EDEADLK (one is the caller), -ENXIO (a coroutine that has not
 * started, outside a task), -ENOMEM.  After any error the tasks are as before, except that
 * coroutines have started; `done' is not written.  Suspends, unless enough have ended
 * already; cancellation point: -ECANCELED, and the tasks are left alone.  Outside a task it
 * blocks the thread (in a callback: -ENXIO).
 */
MAG_API int mag_wait(void *const *tasks, size_t n, enum mag_wait_how how, mag_time timeout_ns,
                     bool *done);

/*
 * Runs n awaitables: the first that ends well wins, the others are cancelled and waited for.
 * Copies the winner's result to `result' (NULL: dropped), its index to *winner (NULL:
 * dropped), and returns its rc.  If none ends well, returns the first error, and *winner is
 * n.  What has not started when there is a winner is not run.
 *
 * Consumes all: the entries of `awaitables' become NULL; no object may be there twice.  A
 * NULL among them is one that failed with -ENOMEM, one that somebody else awaits failed with
 * -EALREADY, and stays that one's.  A future that does not win is given up.  -EINVAL: n is
 * 0; or result_bytes is not the size of each one's result, then all are closed.
 *
 * Suspends; cancellation point: all are cancelled and waited for, and it returns -ECANCELED;
 * but one that ends well all the same wins.  Outside a task coroutines cannot be started:
 * they fail with -ENXIO; for tasks and futures it blocks the thread.  In a callback -ENXIO, and
 * nothing is consumed.
 */
MAG_API int mag_race(void *result, size_t result_bytes, void **awaitables, size_t n,
                     size_t *winner);

/* ---- as they complete ------------------------------------------------------------ */

/*
 * Tasks in the order in which they end: asyncio.as_completed.
 *
 *      struct mag_completed c;
 *      void *task;
 *      int rc = mag_completed_begin(&c, tasks, n);
 *      while (rc >= 0 && (rc = mag_completed_next(&c, &task)) > 0)
 *          rc = mag_await(task, &value, sizeof value);
 *      mag_completed_end(&c);
 *
 * Storage; its contents are private.  It may be moved.  One task uses it at a time.
 */
struct mag_completed {
    uint64_t private_[2];
};

/*
 * Begins: until next has yielded a task, or end has given it back, it is awaited by this,
 * and by nobody else.  Allocates memory for n.  Errors: as mag_wait; but n may be 0, and the
 * same task may not be there twice (-EALREADY).  mag_completed_next repeats the error, and
 * mag_completed_end may be called all the same.  Never suspends.
 */
MAG_API int mag_completed_begin(struct mag_completed *completed, void *const *tasks, size_t n);

/*
 * The next one that has ended, for the caller to await: 1, and *task is it; 0 when all n
 * have been yielded.  Those that had ended before begin come first, in the order of the
 * arguments; a NULL is one of these, and comes out as NULL (its await answers -ENOMEM).
 * Suspends while none has ended; cancellation point: -ECANCELED loses nothing, it may be
 * called again.  Outside a task it blocks the thread.
 */
MAG_API int mag_completed_next(struct mag_completed *completed, void **task);

/*
 * Ends, at any time: the tasks that were not yielded are left alone, running, and are the
 * caller's again.  May suspend for an instant; not a cancellation point.
 */
MAG_API void mag_completed_end(struct mag_completed *completed);

/* ---- callbacks, foreign threads ---------------------------------------------------- */

/*
 * Calls fn(arg, rc, result) once when the task or future has ended, where that happens: on
 * a worker, or on the thread that sets the future; before this returns, if it has ended
 * already.  `result' is valid during the call; NULL after an error, or if there is none.  fn
 * is a callback, outside any task, with the task-local variables of who asked for it: what
 * would suspend in it is refused (-ENXIO); it may spawn, set and cancel.
 *
 * Takes the handle: the object is freed after the call.  The runtime waits for the task
 * when it ends.  A coroutine is started as a task.  Errors, after which the handle is still
 * the caller's and fn is not called: -EALREADY (awaited by somebody else, consumed),
 * -EDEADLK (the calling task), -EINVAL (fn is NULL), -ENXIO (a coroutine, outside a task),
 * -ENOMEM.  Any thread; never suspends.
 */
MAG_API int mag_on_done(void *task, void (*fn)(void *arg, int rc, const void *result), void *arg);

/*
 * mag_await with a limit that leaves the task alone, for threads that are no workers.
 * Blocks until the task or future has ended, takes its result and returns its rc as
 * mag_await does; or returns -ETIMEDOUT after `timeout_ns' (MAG_NEVER: no limit): then the
 * task goes on, and the handle is still the caller's, who may join again, cancel, or detach.
 *
 * Errors that consume nothing: -EINVAL (a negative timeout, another result_bytes), -EALREADY
 * (awaited by somebody else, consumed), -ENXIO (a coroutine that was never started: see
 * mag_submit), -ENOMEM.  In a task it suspends, and is a cancellation point: -ECANCELED, and
 * the task goes on.
 */
MAG_API int mag_join_task(void *task, mag_time timeout_ns, void *result, size_t result_bytes);

#ifdef __cplusplus
}
#endif
#endif
