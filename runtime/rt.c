/* SPDX-License-Identifier: MIT */
/*
 * rt.c - a runtime: started, run, drained, stopped
 *
 *      mag_rt_new    workers start, each opens its ring on its own thread
 *      mag_rt_run    a coroutine is submitted, the calling thread waits for it
 *      mag_rt_free   drain: cancel detached tasks, wait until all have ended
 *                    stop: workers leave their loops, together, and close their rings
 *                    report coroutines that nobody awaited, free everything
 *
 * Drained?  Each worker counts the tasks begun and ended on it, and only it writes its
 * counters.  Whoever asks reads all `ended' first and then all `begun': both only
 * grow and ended <= begun at all times, so if the sums are equal, then at the moment
 * between the two readings nothing ran; and what does not run begins nothing.
 *
 * Stop is two steps, because a ring may be rung for by anybody until its owner closes
 * it: every worker leaves its loop and says so, and the stopper says when it has
 * finished ringing; only when all have does each close its ring (worker.c).
 *
 * fork(2): a child has none of the workers; it must exec or exit.
 */
#include "cancel.h"
#include "check.h"
#include "co.h"
#include "cpus.h"
#include "fiber.h"
#include "loop.h"
#include "mem.h"
#include "ring.h"
#include "symbol.h"
#include "sys.h"
#include "trace.h"
#include "wait.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- saying why -------------------------------------------------------------------------- */

static struct {
    struct mag_spin lock;
    char text[512];
    mag_atomic(uint32_t) n_runtimes;
} process;

static int fail(int rc, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(int rc, const char *format, ...)
{
    va_list args;

    mag_spin_lock(&process.lock);
    va_start(args, format);
    vsnprintf(process.text, sizeof process.text, format, args);
    va_end(args);
    mag_spin_unlock(&process.lock);
    return rc;
}

const char *mag_rt_why(void)
{
    return process.text;
}

/* As mag_run does, for who has no chance to ask. */
static int say(int rc)
{
    mag_check_print("%s", process.text);
    return rc;
}

static void report(struct mag_rt *rt, const char *line)
{
    if (rt && rt->report)
        rt->report(rt->report_arg, line);
    else
        mag_check_print("%s", line);
}

static void report_line(void *rt, const char *line)
{
    report(rt, line);
}

/* ---- starting ------------------------------------------------------------------------------ */

static int inside_task(const char *what)
{
    return fail(-EDEADLK,
                "%s inside a task would block its worker: await the coroutine instead, "
                "as in `await(co)' or mag_await(co, &result, sizeof result)",
                what);
}

/* MAGPIE_WORKERS, or what this process may use. */
static int workers_wanted(const struct mag_rt_options *o, unsigned *n)
{
    const char *text = mag_sys_getenv("MAGPIE_WORKERS");
    char *end = NULL;
    long value;

    *n = o->workers;
    if (*n == 0 && text && *text) {
        value = strtol(text, &end, 10);
        if (*end || value < 1 || value > MAG_WORKERS_MAX)
            return fail(-EINVAL, "MAGPIE_WORKERS is \"%s\"; it must be a number from 1 to %d", text,
                        (int)MAG_WORKERS_MAX);
        *n = (unsigned)value;
    }
    if (*n == 0)
        *n = (unsigned)mag_cpus_allowed();
    if (*n > MAG_WORKERS_MAX && o->workers)
        return fail(-EINVAL, "%u workers asked for; at most %d are possible", *n,
                    (int)MAG_WORKERS_MAX);
    if (*n > MAG_WORKERS_MAX)
        *n = MAG_WORKERS_MAX;
    return 0;
}

static int check_options(const struct mag_rt_options *o)
{
    if (o->stack_bytes &&
        (o->stack_bytes < MAG_STACK_BYTES_MIN || o->stack_bytes > MAG_STACK_BYTES_MAX))
        return fail(-EINVAL, ".stack_bytes is %zu; it must be %d to %d", o->stack_bytes,
                    (int)MAG_STACK_BYTES_MIN, (int)MAG_STACK_BYTES_MAX);
    if (o->offload_threads > MAG_OFFLOAD_THREADS_MAX)
        return fail(-EINVAL, ".offload_threads is %u; at most %d", o->offload_threads,
                    (int)MAG_OFFLOAD_THREADS_MAX);
    return 0;
}

static void memory_free(struct mag_rt *rt, unsigned n_init)
{
    for (unsigned i = 0; i < n_init; i++)
        mag_loop_fini(&rt->workers[i]);
    mag_mem_free(rt->idle.sleepers);
    mag_mem_free(rt->workers);
    mag_mem_free(rt);
}

static int memory_new(struct mag_rt **out, unsigned n)
{
    struct mag_rt *rt = mag_mem_alloc_aligned(MAG_CACHE_BYTES, sizeof *rt);
    struct mag_sleeper *sleepers;
    size_t bytes = n * sizeof *rt->workers;
    unsigned i = 0;

    if (rt == NULL)
        return -ENOMEM;
    memset(rt, 0, sizeof *rt);
    rt->workers = mag_mem_alloc_aligned(MAG_CACHE_BYTES, bytes);
    sleepers = mag_mem_alloc_aligned(MAG_CACHE_BYTES, n * sizeof *sleepers);
    if (sleepers)
        memset(sleepers, 0, n * sizeof *sleepers);
    mag_idle_init(&rt->idle, sleepers, n);
    if (rt->workers && sleepers) {
        memset(rt->workers, 0, bytes);
        while (i < n && mag_loop_init(&rt->workers[i], rt, i) == 0)
            i++;
    }
    if (i == n) {
        *out = rt;
        return 0;
    }
    memory_free(rt, i);
    return -ENOMEM;
}

/* Waits until n workers are up, or have failed. */
static int wait_started(struct mag_rt *rt, unsigned n)
{
    uint32_t seen;
    int rc = 0;

    while ((seen = mag_load_acquire(&rt->n_started)) < n)
        mag_sys_futex_wait(&rt->n_started, seen, MAG_NEVER);
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = rt->workers[i].start_rc;
    return rc;
}

/* The workers leave their loops; n of them exist, the others are counted as gone. */
static void stop_workers(struct mag_rt *rt, unsigned n)
{
    mag_store_seq(&rt->is_stopping, 1);
    mag_idle_notify_all(&rt->idle);
    mag_fetch_add(&rt->n_left, 1 + rt->n_workers - n);
    mag_sys_futex_wake(&rt->n_left, (int)n);
    for (unsigned i = 0; i < n; i++)
        mag_sys_thread_join(rt->workers[i].thread);
}

static int start_workers(struct mag_rt *rt)
{
    char name[16];
    unsigned n = 0;
    int rc = 0, started;

    for (; n < rt->n_workers && rc == 0; n += rc == 0) {
        snprintf(name, sizeof name, "mag-%u", (unsigned short)n);
        rc = mag_sys_thread_start(&rt->workers[n].thread, mag_loop_main, &rt->workers[n], name);
    }
    if (rc < 0)
        fail(rc, "cannot start worker thread %u of %u: %s", n + 1, rt->n_workers, mag_err_text(rc));
    started = wait_started(rt, n);
    if (rc == 0 && started < 0)
        rc = fail(started, "%s", *mag_ring_why() ? mag_ring_why() : mag_err_text(started));
    if (rc < 0)
        stop_workers(rt, n);
    return rc;
}

static int prepare(const struct mag_rt_options *o, unsigned *n_workers)
{
    int rc = check_options(o);

    if (rc == 0)
        rc = workers_wanted(o, n_workers);
    if (rc == 0 && (rc = mag_context_check()) < 0)
        fail(rc, "this process runs with shadow stacks, which this build of magpie cannot "
                 "switch: build it with -DMAGPIE_CONTEXT=ucontext");
    if (rc == 0 && (rc = mag_stack_watch(mag_fiber_describe)) < 0)
        fail(rc, "cannot install the stack overflow handler: %s", mag_err_text(rc));
    return rc;
}

static void process_trim(void)
{
    if (mag_fetch_sub(&process.n_runtimes, 1) == 1)
        mag_slab_trim();
}

int mag_rt_new(struct mag_rt **out, const struct mag_rt_options *options)
{
    static const struct mag_rt_options defaults;
    const struct mag_rt_options *o = options ? options : &defaults;
    struct mag_rt *rt;
    unsigned n_workers = 0;
    int rc;

    if (mag_worker_self())
        return inside_task("mag_rt_new()");
    rc = prepare(o, &n_workers);
    if (rc < 0)
        return rc;
    rc = memory_new(&rt, n_workers);
    if (rc < 0)
        return fail(rc, "out of memory for %u workers", n_workers);
    mag_fetch_add(&process.n_runtimes, 1);
    rt->n_workers = n_workers;
    rt->stack_bytes = o->stack_bytes ? o->stack_bytes : MAG_STACK_BYTES_DEFAULT;
    rt->report = o->report;
    rt->report_arg = o->report_arg;
    mag_fifo_init(&rt->inject);
    mag_stacks_init(&rt->stacks, o->unguarded_ok);
    mag_offload_init(&rt->offload, o->offload_threads);
    (void)mag_sys_membarrier_register(); /* without it, no forced publishing (deque.c) */
    rc = start_workers(rt);
    if (rc < 0) {
        mag_offload_fini(&rt->offload);
        mag_stacks_fini(&rt->stacks);
        memory_free(rt, n_workers);
        process_trim();
        return rc;
    }
    *out = rt;
    return 0;
}

/* ---- draining -------------------------------------------------------------------------------- */

static bool is_drained(struct mag_rt *rt)
{
    uint64_t n_ended = 0, n_begun = 0;

    for (unsigned i = 0; i < rt->n_workers; i++)
        n_ended += mag_load_acquire(&rt->workers[i].n_ended);
    mag_fence_seq(); /* (I) pairs with rt.c (I): the readings do not overlap */
    n_begun = mag_load_acquire(&rt->n_submitted);
    for (unsigned i = 0; i < rt->n_workers; i++)
        n_begun += mag_load_acquire(&rt->workers[i].n_spawned);
    return n_ended == n_begun;
}

static void cancel_level(struct mag_rt *rt, enum mag_cancel_level level)
{
    mag_store_seq(&rt->cancel_level, level);
    for (unsigned i = 0; i < rt->n_workers; i++) {
        struct mag_worker *w = &rt->workers[i];
        uint32_t idle = 0;
        if (!mag_cas(&w->sweep_sent, &idle, 1)) /* it will look at the level again */
            continue;
        w->sweep.deliver = mag_cancel_sweep;
        mag_worker_send(w, &w->sweep);
    }
}

static void drain(struct mag_rt *rt)
{
    uint32_t progress;

    mag_store_seq(&rt->is_draining, 1);
    cancel_level(rt, mag_load_relaxed(&rt->cancel_level) == MAG_CANCEL_ALL ? MAG_CANCEL_ALL
                                                                           : MAG_CANCEL_DETACHED);
    for (;;) {
        progress = mag_load_acquire(&rt->progress);
        if (is_drained(rt))
            break;
        mag_sys_futex_wait(&rt->progress, progress, 100 * MAG_MS);
    }
}

/* ---- what nobody awaited ------------------------------------------------------------------------ */

enum { LEFT_MAX = 16 };

struct leftovers {
    struct mag_rt *rt;
    struct mag_task *tasks[LEFT_MAX];
    unsigned n;
};

/* By address only: of an object of another runtime it may be gone. */
static bool is_home_of(const struct mag_rt *rt, uintptr_t home)
{
    if (rt == NULL)
        return home == 0;
    return home >= (uintptr_t)rt->workers && home < (uintptr_t)(rt->workers + rt->n_workers);
}

static void find_leftover(struct mag_slab_head *block, void *arg)
{
    struct leftovers *l = arg;
    struct mag_task *t = mag_container_of(block, struct mag_task, head);

    uint32_t kind = mag_load_acquire(&block->used);

    if ((kind != MAG_COROUTINE && kind != MAG_FUTURE) || l->n == LEFT_MAX ||
        !is_home_of(l->rt, mag_load_relaxed(&t->home)))
        return;
    if (kind == MAG_FUTURE && !mag_task_is_done(t))
        return; /* its setter, in whatever thread, may still come, and frees it */
    l->tasks[l->n++] = t;
}

static void report_leftover(struct mag_rt *rt, const struct mag_task *t)
{
    char place[256], line[512];

    if (mag_load_relaxed(&t->head.used) != MAG_COROUTINE || mag_load_relaxed(&t->is_begun))
        return;
    mag_symbol_name(t->origin_kind == MAG_ORIGIN_MADE ? t->made_at : NULL, place, sizeof place);
    snprintf(line, sizeof line, "coroutine '%s' was never awaited (created at %s)",
             mag_task_name(t), place);
    report(rt, line);
}

/* Frees every object made in the runtime (NULL: outside any) that is left. */
static void collect_leftovers(struct mag_rt *rt)
{
    struct leftovers l = { .rt = rt };

    do {
        l.n = 0;
        mag_slab_foreach(find_leftover, &l);
        for (unsigned i = 0; i < l.n; i++) {
            report_leftover(rt, l.tasks[i]);
            mag_store_relaxed(&l.tasks[i]->extra_refs, 0);
            mag_worker_release(l.tasks[i]);
        }
    } while (l.n == LEFT_MAX);
}

/* Coroutines made outside any runtime, at the end of the process. */
__attribute__((destructor)) static void at_exit(void)
{
    if (mag_load_acquire(&process.n_runtimes) != 0)
        return; /* exit() with a runtime running: its threads may still use it all */
    collect_leftovers(NULL);
    mag_slab_trim();
}

void mag_rt_free(struct mag_rt *rt)
{
    if (rt == NULL)
        return;
    MAG_CHECK(mag_worker_self() == NULL);
    drain(rt);
    mag_offload_fini(&rt->offload);
    while (mag_load_seq(&rt->n_outside)) /* a few instructions of another thread */
        mag_sys_yield();
    stop_workers(rt, rt->n_workers);
    collect_leftovers(rt);
    mag_stacks_fini(&rt->stacks);
    memory_free(rt, rt->n_workers);
    process_trim();
}

/* ---- running ---------------------------------------------------------------------------------------- */

static void report_failure(struct mag_rt *rt, const struct mag_task *t, int rc)
{
    char line[256];

    snprintf(line, sizeof line, "task '%s' failed:", mag_task_name(t));
    if (t->trace == NULL || t->trace->rc != rc)
        return;
    report(rt, line);
    mag_trace_format(t->trace, report_line, rt);
}

int mag_rt_run(struct mag_rt *rt, void *coro, void *result)
{
    struct mag_task *t = mag_task_of(coro);
    int rc;

    if (mag_worker_self())
        return say(inside_task("mag_rt_run()"));
    rc = mag_submit(rt, coro, NULL);
    if (rc < 0)
        return rc;
    rc = mag_wait_task_outside(t);
    if (rc < 0)
        return rc;
    if (t->rc < 0)
        report_failure(rt, t, t->rc);
    return mag_co_collect(t, t->rc, result, NULL);
}

int mag_run_with(void *coro, void *result, const struct mag_rt_options *options)
{
    struct mag_rt *rt;
    int rc;

    if (mag_worker_self()) {
        mag_close(coro);
        return say(inside_task("mag_run()"));
    }
    if (coro == NULL)
        return -ENOMEM;
    rc = mag_rt_new(&rt, options);
    if (rc < 0) {
        mag_close(coro);
        return say(rc);
    }
    rc = mag_rt_run(rt, coro, result);
    if (rc < 0)
        cancel_level(rt, MAG_CANCEL_ALL);
    mag_rt_free(rt);
    return rc;
}

int mag_run(void *coro, void *result)
{
    return mag_run_with(coro, result, NULL);
}

struct mag_rt *mag_rt_self(void)
{
    struct mag_worker *w = mag_worker_self();

    return w ? w->rt : NULL;
}

unsigned mag_rt_workers(const struct mag_rt *rt)
{
    return rt->n_workers;
}
