/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_TASK_H
#define MAGPIE_TASK_H
/*
 * task.h - coroutines, tasks, futures, and the runtime that runs them
 *
 * An *awaitable* is a coroutine, a task or a future; functions take any of them as
 * `void *', so that typed objects (<magpie/async.h>) pass as they are.  NULL is
 * what a constructor returns when memory is out, and everything that takes an
 * awaitable answers -ENOMEM for it: so only the await needs to look.
 *
 * Life of a coroutine: created (nothing runs) -> spawned, awaited or gathered,
 * exactly once -> done.  Spawning turns the same object into a task; awaiting
 * takes the result and frees the object.
 *
 * Which thread: a task may continue on another thread after any suspension
 * (.pin = true forbids it).  So no errno, no thread-local and no pthread mutex may
 * be held across a call marked "suspends", and pthread_self() may be stale after one
 * (glibc declares it constant).  Outside a task, the same calls block the calling
 * thread.
 *
 * Cancellation: every call marked "cancellation point" returns -ECANCELED, from
 * the moment when the task is cancelled, each time it would suspend.
 */
#include <magpie/base.h>

#ifdef __cplusplus
#include <cstdio>
extern "C" {
#else
#include <stdbool.h>
#include <stdio.h>
#endif

struct mag_task; /* any awaitable, where its type is not known */
struct mag_rt;   /* a runtime: workers, and what runs on them  */

/* ---- runtimes --------------------------------------------------------------- */

struct mag_rt_options {
    /* Worker threads; 0: what MAGPIE_WORKERS says, else the CPUs that affinity and
     * the cgroup quota allow this process.  At most 256. */
    unsigned workers;
    /* Bytes of a task's stack (rounded up to a power of two); 0: 64 KiB. */
    size_t stack_bytes;
    /* Threads of each lane of the offload pool at most; 0: a default. */
    unsigned offload_threads;
    /* Run tasks on stacks without guard pages where the kernel can guard no more
     * of them (below Linux 6.13 after 16,384): overflow is then not detected. */
    bool unguarded_ok;
    /* Where reports go (never awaited, error traces); NULL: standard error. */
    void (*report)(void *arg, const char *line);
    void *report_arg;
    /* One worker and no thread: whoever makes it runs it, by mag_rt_step (or mag_rt_run). */
    bool embedded;
    /* Leave SIGINT alone.  Otherwise, if its disposition is the default, the first one
     * cancels the coroutine that mag_rt_run or mag_run runs, and the second kills. */
    bool keep_sigint;
    /* mag_run: how long what still runs may go on when its coroutine has ended, and how
     * long it may then take to end, cancelled; 0: no limit. */
    mag_time shutdown_ns;
    /* Debug mode, as MAGPIE_DEBUG=1 in the environment; the sentences on misuse then come
     * for the whole process. */
    bool debug;
    /* A task that has not suspended for so long is reported, with its stack; 0: what
     * MAGPIE_SLOW_MS says, else 100 ms; MAG_NEVER: such tasks are not reported.  Not if
     * embedded. */
    mag_time slow_ns;
    /* SIGQUIT (Ctrl-\) prints what all tasks do (mag_dump), as it does in debug mode. */
    bool dump_on_sigquit;
};

/*
 * Runs a coroutine, and every task that it spawns, to the end on a runtime of its
 * own: asyncio.run().  `result' (NULL: dropped) receives the coroutine's value;
 * returns its rc, and prints the error's trace if that is negative.  Tasks that are
 * still running are waited for; detached ones are cancelled first, and so is
 * everything if the coroutine failed.  Errors: -EDEADLK inside a task, with a
 * sentence on what to do; -ENOMEM; what the kernel says of rings and threads, with
 * a sentence.  Consumes the coroutine.  Any thread that is not a worker; blocks.
 *
 * The first Ctrl-C (SIGINT) cancels the coroutine, unless the program handles or ignores
 * that signal, or .keep_sigint is set; the second kills.  So a program that was asked to
 * stop gets -ECANCELED here, has cleaned up, and should end with exit status 130.
 *
 * With .shutdown_ns: tasks that do not end in time, not even when they are cancelled, are
 * reported with what they wait for, and -ETIMEDOUT is returned if the coroutine itself did
 * well.  Their runtime is then left to itself: the program should end.
 */
MAG_API int mag_run(void *coro, void *result);

/* mag_run with options (NULL: defaults). */
MAG_API int mag_run_with(void *coro, void *result, const struct mag_rt_options *options);

/*
 * Makes a runtime and starts its workers.  Several may exist at once.  Errors:
 * -EINVAL (options), -EDEADLK (inside a task), -ENOMEM, -EAGAIN (threads), or what
 * io_uring_setup(2) says; mag_rt_why() has the sentence.  Any thread; blocks.
 */
MAG_API int mag_rt_new(struct mag_rt **out, const struct mag_rt_options *options);

/*
 * Runs a coroutine on the runtime and blocks the calling thread until it is done;
 * may be called many times, from many threads.  Like mag_run otherwise, but does
 * not wait for other tasks.  Consumes the coroutine.
 */
MAG_API int mag_rt_run(struct mag_rt *rt, void *coro, void *result);

/*
 * Cancels every task, also those that come later, and waits for their end: 0; or
 * -ETIMEDOUT, after a report of each task that does not end with what it waits for.  The
 * runtime stays valid, to be freed, or stopped again, but runs nothing any more: mag_rt_run
 * returns -ECANCELED.  Callbacks run until the last task has ended; then they are dropped,
 * and generators that were left open are reported and closed.  Errors: -EINVAL, -EDEADLK
 * inside a task.  Blocks.
 */
MAG_API int mag_rt_stop(struct mag_rt *rt, mag_time timeout_ns);

/*
 * Waits for every task of the runtime (detached ones are cancelled first), drops what
 * callbacks are left, stops the workers, and frees everything.  Reports coroutines that were
 * never awaited, and tasks that failed and that nobody awaited.  NULL is ignored.  Not from
 * a task of the runtime.  Blocks.
 */
MAG_API void mag_rt_free(struct mag_rt *rt);

/*
 * An embedded runtime, for a program that has an event loop of its own.  Its thread, the one
 * that called mag_rt_new with .embedded, steps it:
 *
 *      struct pollfd fds[] = { { .fd = mag_rt_fd(rt), .events = POLLIN }, ... };
 *      while (poll(fds, n, -1) >= 0)
 *          if (fds[0].revents)
 *              mag_rt_step(rt, 0);
 *
 * Its tasks run inside these calls and nowhere else.  Any thread may submit to it, which
 * makes the descriptor readable; the owner must not block for one of its tasks outside a
 * task, as in mag_await: mag_rt_run steps until its coroutine is done.
 */

/* What poll(2), epoll(7) or select(2) waits for: it becomes readable when a step is due, for
 * a timer, too.  -EINVAL if the runtime is not embedded.  Not to be read or closed. */
MAG_API int mag_rt_fd(const struct mag_rt *rt);

/*
 * Runs what is ready, until nothing is (or for some 10 ms, and then the descriptor is
 * readable at once); if nothing was, waits for the first event, at most so long: 0 does not
 * wait, MAG_NEVER has no limit.  Returns how much was done, in tasks that ran, timers and
 * completions: 0 is nothing.  Errors: -EDEADLK inside a task, -EPERM in another thread than
 * the owner's, -EINVAL.
 */
MAG_API int mag_rt_step(struct mag_rt *rt, mag_time timeout_ns);

/* For a loop that takes a time-out beside descriptors: when the next step is due, if the
 * descriptor stays quiet; 0: now; MAG_NEVER: not at all.  The owner, outside a step. */
MAG_API mag_time mag_rt_deadline(const struct mag_rt *rt);

/* The runtime of the calling task; NULL outside a task. */
MAG_API struct mag_rt *mag_rt_self(void);

/* Number of workers. */
MAG_API unsigned mag_rt_workers(const struct mag_rt *rt);

/* A sentence on the last failure of mag_rt_new or mag_run in this thread. */
MAG_API const char *mag_rt_why(void);

/* ---- coroutines ------------------------------------------------------------- */

/*
 * Where something was written: a place in the user's source.
 */
struct mag_site {
    const char *file;
    int line;
    const char *function;
};

/*
 * A coroutine function: one constant per function, referred to by every object made
 * of it.  <magpie/async.h> generates it.  The body gets the frame (arguments) and
 * the place of its result, and returns 0, a count, or -errno.
 */
struct mag_co_type {
    const char *name;
    int (*body)(void *frame, void *result);
    uint32_t frame_bytes;   /* of the whole frame                            */
    uint32_t result_offset; /* of the result in the frame                    */
    uint32_t result_bytes;  /* 0: no result                                  */
    uint32_t stack_bytes;   /* 0: the runtime's default                      */
    struct mag_site defined;
};

/*
 * A new coroutine object of that type: returns its frame, whose bytes are not
 * initialised (the caller writes the arguments), or NULL when memory is out.  Nothing runs.  `made_at' is the place of creation for reports:
 * __builtin_return_address(0) of the typed constructor.  Any thread.
 */
MAG_API MAG_MUST_USE void *mag_co_new(const struct mag_co_type *type, const void *made_at);

struct mag_spawn_options {
    const char *name;   /* for reports; must outlive the task; NULL: the function's */
    size_t stack_bytes; /* 0: the function's, else the runtime's default            */
    bool pin;           /* never leaves the worker that it starts on                */
    /* Worker to start on, 1..n; 0: any (with .pin: the current one). */
    unsigned worker;
    const struct mag_site *site; /* where it was spawned, for reports */
};

/*
 * Schedules a coroutine: it becomes a task that will run on any worker, not before
 * this call has returned.  The object stays the caller's handle, to be awaited (or
 * detached) once.  Errors: -ENOMEM for NULL, -EALREADY if it was used before,
 * -ENXIO outside a task (use mag_submit), -EINVAL (options).  Never suspends.
 */
MAG_API int mag_start(void *coro, const struct mag_spawn_options *options);

/*
 * Makes and starts a task from a plain function, without keywords: copies
 * `frame_bytes' from `frame' and keeps `result_bytes' for the result.  Errors as
 * mag_start.  Never suspends.
 */
MAG_API int mag_spawn(struct mag_task **out, int (*body)(void *frame, void *result),
                      const void *frame, size_t frame_bytes, size_t result_bytes,
                      const struct mag_spawn_options *options);

/*
 * mag_start for any thread: hands a coroutine to a runtime.  The calling thread may
 * await the object (blocking) or detach it.
 */
MAG_API int mag_submit(struct mag_rt *rt, void *coro, const struct mag_spawn_options *options);

/*
 * Waits for an awaitable and takes its result (copied to `result', NULL: dropped;
 * result_bytes must be the type's, else -EINVAL).  A coroutine that has not started
 * runs in place, as part of the current task.  Returns the body's rc.  Consumes the
 * object; -EALREADY if it was consumed before; -EDEADLK if a task awaits itself.
 * Suspends; cancellation point: if the awaiting task is cancelled, so is the
 * awaited one, and the call returns when that has ended, with its rc.  An awaited
 * future is given up instead.
 */
MAG_API int mag_await(void *awaitable, void *result, size_t result_bytes);

/*
 * Asks a task to stop: from now on each of its suspensions returns -ECANCELED, the
 * one that it is in included.  One that has not started will not run.  The task
 * still has to be awaited; a result that it returns all the same is kept.  Returns
 * 0, also when it is done already; -EINVAL for a coroutine that was never spawned.
 * Any thread that holds the handle; never suspends.
 */
MAG_API int mag_cancel(void *task);

/*
 * Gives the handle up: the object is freed when the task ends.  The runtime waits
 * for it, after cancelling it, when it stops.  Any thread.
 */
MAG_API int mag_detach(void *task);

/*
 * Drops an unstarted coroutine, or cancels a task and waits for its end.  Suspends
 * (a task only).  Consumes the object.
 */
MAG_API int mag_close(void *awaitable);

/* "coroutine", "task" or "future"; "freed" for one that was consumed. */
MAG_API const char *mag_kind_name(const void *awaitable);

/* Its name: the function's, unless the spawn options gave another. */
MAG_API const char *mag_name(const void *awaitable);

/* Whether it has ended (a coroutine that has not started has not).  Any thread. */
MAG_API bool mag_done(const void *awaitable);

/* The running task (or the coroutine running in place in it), NULL outside. */
MAG_API struct mag_task *mag_self(void);

/*
 * Lets other tasks run; the caller goes to the end of the queue of what is ready.
 * Returns 0.  Suspends; cancellation point.  Outside a task: sched_yield(2).
 */
MAG_API int mag_yield(void);

/*
 * Sleeps for a duration, or until a point in time.  Returns 0; a duration below
 * zero is -EINVAL.  Sleeps end in the order of their deadlines, equal ones in the
 * order of the calls.  Suspends; cancellation point.
 */
MAG_API int mag_sleep(mag_time duration_ns);
MAG_API int mag_sleep_until(mag_time deadline);

/* A sleep as a coroutine; spawned or gathered it needs no stack. */
struct mag_sleep_co;
MAG_API MAG_MUST_USE struct mag_sleep_co *mag_sleep_co(mag_time duration_ns);

/* ---- gather ------------------------------------------------------------------ */

struct mag_gather_options {
    size_t limit; /* at most so many run at a time; 0: all                    */
    int *rcs;     /* each child's rc; then one's failure does not stop others */
    const struct mag_site *site;
};

/*
 * Runs n coroutines concurrently and waits for all: results to results[i] in the
 * order of the arguments (`results' may be NULL; `result_bytes' apart).  Takes the
 * objects: the entries of `awaitables' become NULL; no object may be there twice.
 * Spawned tasks and futures may be among them.  Without .rcs the first error cancels the others, and is returned
 * when all have ended; with .rcs returns 0.  Suspends; cancellation point: cancels
 * all and returns when they have ended.  Outside a task they run one by one.
 */
MAG_API int mag_gather(void *results, size_t result_bytes, void **awaitables, size_t n,
                       const struct mag_gather_options *options);

/* ---- futures ------------------------------------------------------------------ */

/*
 * A future: a result that somebody will set, from any thread.  Two hold it: the one
 * who sets (mag_future_set or mag_future_fail, once) and the one who awaits (once);
 * it is freed after both.  mag_future_type describes it as mag_co_type does a
 * coroutine; `body' is NULL.
 */
MAG_API MAG_MUST_USE void *mag_future_new(const struct mag_co_type *type, const void *made_at);

/*
 * Sets the result (`bytes' must be the type's) or the error (rc < 0), and wakes who
 * awaits it.  -EALREADY the second time (as long as nobody has awaited it).  Gives
 * up the setter's hold.  Any thread; never suspends.
 */
MAG_API int mag_future_set(void *future, const void *value, size_t bytes);
MAG_API int mag_future_fail(void *future, int rc);

/* ---- callbacks ------------------------------------------------------------------- */

/*
 * Calls fn(arg) on a worker: soon, after a delay, or at a time (CLOCK_MONOTONIC; at or after
 * it).  A callback is no task: it must not suspend, and what would is refused in it with
 * -ENXIO; it may start tasks, set futures, and call whatever never suspends.  It sees the
 * caller's task-local variables.  In a task or a callback; the calls of one task run on one
 * thread in their order (at equal times), as long as it does not suspend between them.
 *
 * A runtime that ends waits for what a task wanted soon, and drops the other callbacks when
 * its last task has ended.  -EINVAL (fn is NULL, a negative delay or time), -ENOMEM, -ENXIO
 * outside a runtime (use mag_rt_call), -ECANCELED after mag_rt_stop.  Never suspends.
 */
MAG_API int mag_call_soon(void (*fn)(void *arg), void *arg);
MAG_API int mag_call_later(mag_time delay_ns, void (*fn)(void *arg), void *arg);
MAG_API int mag_call_at(mag_time when, void (*fn)(void *arg), void *arg);

struct mag_call; /* a callback that can be cancelled */

/*
 * The same for any thread (asyncio's call_soon_threadsafe): calls fn(arg) on a worker of that
 * runtime at `when', 0: soon.  From outside the runtime always on its first worker, so that
 * the callbacks of one thread run one after the other, in its order.  `handle' (NULL: not
 * wanted) must be given back, once, by mag_call_cancel.  Errors as above, and -EINVAL for no
 * runtime.  Not while mag_rt_free runs.  Never blocks.
 */
MAG_API int mag_rt_call(struct mag_rt *rt, mag_time when, void (*fn)(void *arg), void *arg,
                        struct mag_call **handle);

/*
 * Cancels a callback and gives the handle back.  0: it will not run (also because its runtime
 * has ended).  -EALREADY: it has begun, and has perhaps ended; the caller is not told when.
 * -EINVAL for NULL.  Any thread, but not while mag_rt_free runs.  Never suspends.
 */
MAG_API int mag_call_cancel(struct mag_call *call);

/* ---- threads ------------------------------------------------------------------- */

/*
 * Calls fn(arg), which may block, on a thread of the offload pool and returns what
 * it returned.  Suspends; cancellation point: a call that has not begun is dropped
 * (-ECANCELED), one that has is waited for, because its arguments are the caller's.
 * Outside a task: calls it.
 */
MAG_API int mag_to_thread(int (*fn)(void *arg), void *arg);

/* ---- errors ----------------------------------------------------------------- */

/*
 * Adds a place to the current task's error trace; await() does it for every error
 * that it passes on.  Returns rc.
 */
MAG_API int mag_trace(int rc, const struct mag_site *site);

/* Marks the current trace as dealt with: the next error begins a new one. */
MAG_API void mag_trace_caught(void);

/*
 * Writes the current task's last error trace, a line each: the error, then the
 * places it passed, innermost first.  Returns the number of places.
 */
MAG_API int mag_trace_print(FILE *to);

#ifdef __cplusplus
}
#endif
#endif
