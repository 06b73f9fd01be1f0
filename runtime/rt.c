/* SPDX-License-Identifier: MIT */
/*
 * rt.c - a runtime: started, run, stopped
 *
 *      mag_rt_new    workers start, each opens its ring on its own thread
 *      mag_rt_run    a coroutine is submitted, the calling thread waits for it
 *      mag_rt_stop   everything is cancelled, and waited for
 *      mag_rt_free   comes to rest (shutdown.c), and its memory goes
 *
 * Stop is two steps, because a ring may be rung for by anybody until its owner closes
 * it: every worker leaves its loop and says so, and the stopper says when it has
 * finished ringing; only when all have does each close its ring (loop.c).
 *
 * An embedded runtime has the one worker and no thread; its owner steps it wherever another
 * one would wait (embed.c).
 *
 * fork(2): a child has none of the workers; it must exec or exit.
 */
#include "cancel.h"
#include "check.h"
#include "clock.h"
#include "co.h"
#include "cpus.h"
#include "embed.h"
#include "fiber.h"
#include "loop.h"
#include "mem.h"
#include "misuse.h"
#include "report.h"
#include "ring.h"
#include "shutdown.h"
#include "signal_run.h"
#include "sys.h"
#include "trace.h"
#include "unclosed.h"
#include "wait.h"
#include "watchdog.h"

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

    *n = o->embedded ? 1 : o->workers;
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
    if (o->embedded && o->workers > 1)
        return fail(-EINVAL, ".embedded with %u workers: it has one", o->workers);
    if (o->shutdown_ns < 0)
        return fail(-EINVAL, ".shutdown_ns is negative");
    if (o->slow_ns < 0)
        return fail(-EINVAL, ".slow_ns is negative");
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
    mag_fetch_add(&rt->n_swept, rt->n_workers - n);
    mag_fetch_add(&rt->n_left, 1 + rt->n_workers - n);
    mag_sys_futex_wake(&rt->n_left, (int)n);
    for (unsigned i = 0; i < n; i++)
        mag_sys_thread_join(rt->workers[i].thread);
}

static int start_embedded(struct mag_rt *rt)
{
    int rc = mag_embed_open(rt);

    return rc < 0 ? fail(rc, "cannot make an embedded runtime: %s",
                         *mag_ring_why() ? mag_ring_why() : mag_err_text(rc))
                  : 0;
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

static void set_options(struct mag_rt *rt, const struct mag_rt_options *o)
{
    rt->stack_bytes = o->stack_bytes ? o->stack_bytes : MAG_STACK_BYTES_DEFAULT;
    rt->report = o->report;
    rt->report_arg = o->report_arg;
    rt->keep_sigint = o->keep_sigint;
    if (o->debug)
        mag_debug_on();
    rt->is_debug = o->debug || mag_debug();
    mag_fifo_init(&rt->inject);
    mag_stacks_init(&rt->stacks, o->unguarded_ok);
    mag_offload_init(&rt->offload, o->offload_threads);
}

static int start_watchdog(struct mag_rt *rt, const struct mag_rt_options *o)
{
    struct mag_watchdog_options w = { .slow_ns = o->slow_ns,
                                      .dump_on_sigquit = o->dump_on_sigquit };
    int rc = mag_watchdog_start(rt, &w);

    if (rc == 0)
        return 0;
    stop_workers(rt, rt->n_workers);
    mag_watchdog_free(rt);
    return fail(rc, "cannot start the watchdog thread: %s", mag_err_text(rc));
}

static int start(struct mag_rt *rt, const struct mag_rt_options *o)
{
    int rc;

    if (o->embedded)
        return start_embedded(rt);
    rc = start_workers(rt);
    return rc < 0 ? rc : start_watchdog(rt, o);
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
    set_options(rt, o);
    (void)mag_sys_membarrier_register(); /* without it, no forced publishing (deque.c) */
    rc = start(rt, o);
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

/* ---- stopping -------------------------------------------------------------------------------- */

/* Coroutines made outside any runtime, at the end of the process. */
__attribute__((destructor)) static void at_exit(void)
{
    if (mag_load_acquire(&process.n_runtimes) != 0)
        return; /* exit() with a runtime running: its threads may still use it all */
    mag_shutdown_collect(NULL);
    (void)mag_unclosed_report(NULL, mag_report_line, NULL);
    mag_slab_trim();
}

/* Nothing runs, and nobody will call. */
static void tear_down(struct mag_rt *rt)
{
    mag_watchdog_stop(rt); /* it signals the workers, and looks at the pool */
    mag_offload_fini(&rt->offload);
    while (mag_load_seq(&rt->n_outside)) /* a few instructions of another thread */
        mag_sys_yield();
    if (rt->embed)
        mag_embed_close(rt);
    else
        stop_workers(rt, rt->n_workers);
    mag_watchdog_free(rt);
    mag_shutdown_collect(rt);
    (void)mag_unclosed_report(rt, mag_report_line, rt);
    mag_stacks_fini(&rt->stacks);
    memory_free(rt, rt->n_workers);
    process_trim();
}

/* What nobody but the owner of an embedded runtime may do. */
static bool is_owner(const struct mag_rt *rt, const char *what)
{
    if (rt->embed == NULL || mag_embed_is_owner(rt))
        return true;
    fail(-EPERM, "%s of an embedded runtime in another thread than mag_rt_new()", what);
    return false;
}

void mag_rt_free(struct mag_rt *rt)
{
    if (rt == NULL)
        return;
    MAG_CHECK(mag_worker_self() == NULL);
    if (!is_owner(rt, "mag_rt_free()")) {
        say(0);
        return;
    }
    (void)mag_shutdown_drain(rt, MAG_NEVER);
    tear_down(rt);
}

int mag_rt_stop(struct mag_rt *rt, mag_time timeout_ns)
{
    int rc;

    if (rt == NULL || timeout_ns < 0)
        return mag_misuse(-EINVAL, "mag_rt_stop(): a runtime, and a timeout not below zero");
    if (mag_worker_self())
        return inside_task("mag_rt_stop()");
    if (!is_owner(rt, "mag_rt_stop()"))
        return -EPERM;
    mag_shutdown_cancel(rt, MAG_CANCEL_ALL);
    rc = mag_shutdown_drain(rt, mag_clock_after(timeout_ns));
    if (rc == -ETIMEDOUT)
        mag_shutdown_report(rt);
    return rc;
}

/* ---- running ---------------------------------------------------------------------------------------- */

static void report_failure(struct mag_rt *rt, const struct mag_task *t, int rc)
{
    if (t->trace == NULL || t->trace->rc != rc)
        return;
    mag_report(rt, "task '%s' failed:", mag_task_name(t));
    mag_trace_format(t->trace, mag_report_line, rt);
}

/* A thread that waits for the coroutine it runs. */
struct runner {
    struct mag_waiter waiter;
    struct mag_signal_run run;
};

/* After the first of the two the waiting thread may be gone: the wake is of an address only. */
static void runner_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    mag_atomic(uint32_t) *word = &mag_container_of(waiter, struct runner, waiter)->run.word;

    (void)ended;
    mag_fetch_or(word, MAG_RUN_DONE);
    mag_sys_futex_wake(word, 1);
}

/* Sleeps, or steps, until one of the bits is set. */
static void runner_wait(struct mag_rt *rt, struct runner *r)
{
    if (rt->embed && mag_embed_is_owner(rt))
        (void)mag_embed_step(rt, MAG_NEVER, &r->run.word);
    else
        (void)mag_sys_futex_wait(&r->run.word, 0, MAG_NEVER);
}

/* Until t has ended; a Ctrl-C cancels it. */
static int run_to_end(struct mag_rt *rt, struct mag_task *t, struct runner *r)
{
    uint32_t bits = 0;
    int rc = mag_task_wait(t, &r->waiter);

    if (rc < 0)
        return rc == -EALREADY ? 0 : -EALREADY;
    while (!((bits = mag_load_acquire(&r->run.word)) & MAG_RUN_DONE)) {
        if (bits & MAG_RUN_INTERRUPTED) {
            mag_fetch_and(&r->run.word, ~(uint32_t)MAG_RUN_INTERRUPTED);
            mag_cancel_task(t);
        } else {
            runner_wait(rt, r);
        }
    }
    return 0;
}

/* Takes Ctrl-C over before the coroutine can begin. */
static int submit_and_wait(struct mag_rt *rt, void *coro)
{
    struct runner r = { .waiter.notify = runner_notify };
    int rc;

    if (rt->embed && mag_embed_is_owner(rt))
        r.run.ring = rt->workers->ring;
    if (!rt->keep_sigint)
        mag_signal_enter(&r.run);
    rc = mag_submit(rt, coro, NULL);
    if (rc == 0)
        rc = run_to_end(rt, mag_task_of(coro), &r);
    mag_signal_leave(&r.run);
    return rc;
}

int mag_rt_run(struct mag_rt *rt, void *coro, void *result)
{
    struct mag_task *t = mag_task_of(coro);
    int rc;

    if (mag_worker_self())
        return say(inside_task("mag_rt_run()"));
    rc = submit_and_wait(rt, coro);
    if (rc < 0)
        return rc;
    if (t->rc < 0)
        report_failure(rt, t, t->rc);
    return mag_co_collect(t, t->rc, result, NULL);
}

/* What runs still has so long to end, and then, cancelled, as long again.  A runtime whose
 * tasks do not end cannot be freed: it is left to itself. */
static int end_in_time(struct mag_rt *rt, mag_time shutdown_ns)
{
    int rc = -ETIMEDOUT;

    if (mag_load_relaxed(&rt->cancel_level) < MAG_CANCEL_ALL)
        rc = mag_shutdown_drain(rt, mag_clock_after(shutdown_ns));
    if (rc < 0)
        rc = mag_rt_stop(rt, shutdown_ns);
    if (rc == 0)
        tear_down(rt);
    return rc;
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
        mag_shutdown_cancel(rt, MAG_CANCEL_ALL);
    if (options == NULL || options->shutdown_ns == 0)
        mag_rt_free(rt);
    else if (end_in_time(rt, options->shutdown_ns) < 0 && rc >= 0)
        rc = -ETIMEDOUT;
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
