/* SPDX-License-Identifier: MIT */
/*
 * wake.c - a task for a worker that sleeps
 *
 * A task on worker 1 computes for a while, so that everybody else goes to sleep, and
 * then starts a task that is pinned to worker 2.  One operation is one such start: wake
 * is the time from before the call until the new task's first statement, wake-call what
 * the call itself took its caller.  Both in microseconds, as means over a repetition.
 *
 * Most of both is the kernel's and the hypervisor's: an interrupt to a halted core.
 * What the runtime can do is to avoid it, so no other bench should ever look like this.
 */
#include <stdatomic.h>

#include "harness.h"

#include <magpie/async.h>

enum {
    /* Longer than an idle worker searches before it sleeps. */
    BUSY_NS = 300 * 1000,
};

async(void, woken, (_Atomic mag_time *, at))
{
    atomic_store_explicit(at, mag_now(), memory_order_release);
    return 0;
}

static void compute(mag_time duration_ns)
{
    mag_time end = mag_now() + duration_ns;

    while (mag_now() < end)
        ;
}

async(void, waker, (uint64_t, n), (double *, value))
{
    const struct mag_spawn_options there = { .pin = true, .worker = 2 };
    mag_time latency = 0, call = 0, began;

    for (uint64_t i = 0; i < n; i++) {
        _Atomic mag_time at = 0;
        struct woken *task = woken(&at);

        compute(BUSY_NS);
        mag_time start = mag_now();
        await(mag_start(task, &there));
        call += mag_now() - start;
        while ((began = atomic_load_explicit(&at, memory_order_acquire)) == 0)
            ;
        latency += began - start;
        await(task);
    }
    value[0] = mag_seconds(latency) * 1e6 / (double)n;
    value[1] = mag_seconds(call) * 1e6 / (double)n;
    return 0;
}

static int run(uint64_t n, double *value)
{
    struct waker *task = waker(n, value);

    await(mag_start(task, &(struct mag_spawn_options){ .pin = true, .worker = 1 }));
    return await_rc(task, NULL);
}

static const char *why_not(unsigned workers)
{
    return workers < 2 ? "it takes two workers" : NULL;
}

const struct bench bench_wake = {
    .name = "wake",
    .what = "a task started on a worker that sleeps: until it runs, and the caller's share",
    .metric = { { "wake", "us" }, { "wake-call", "us" } },
    .why_not = why_not,
    .run = run,
};
