/* SPDX-License-Identifier: MIT */
/*
 * mutex.c - a mutex that is free, and one that everybody wants
 *
 *      mutex            8 tasks share one, each locks and unlocks it again and again; at
 *                       one worker nobody ever finds it held
 *      mutex-contended  a task for each worker, pinned to it: all cores want it all the
 *                       time, and nothing else
 *
 * One operation is a lock, a count and an unlock.  The contended bench also has the worst
 * time that any lock() took, measured in a pass of its own, since two clock readings cost
 * more than the lock: the price that the unlucky pay for the speed of all.
 *
 * Checked: no count is lost.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/async.h>
#include <magpie/sync.h>

enum {
    SHARERS = 8,
    TIMED_SHARE = 8,
    BETWEEN_YIELDS = 8192, /* a task that does not suspend for 100 ms is reported */
};

/* On a cache line of its own. */
struct shared {
    _Alignas(64) struct mag_mutex mutex;
    uint64_t count; /* [mutex] */
};

async(void, adder, (struct shared *, s), (uint64_t, n))
{
    for (uint64_t i = 0; i < n; i++) {
        await(mag_mutex_lock(&s->mutex));
        s->count++;
        mag_mutex_unlock(&s->mutex);
        if (i % BETWEEN_YIELDS == 0)
            await(mag_yield());
    }
    return 0;
}

/* The same, and how long the longest lock took. */
async(mag_time, timed_adder, (struct shared *, s), (uint64_t, n))
{
    mag_time worst = 0;

    for (uint64_t i = 0; i < n; i++) {
        mag_time start = mag_now();
        await(mag_mutex_lock(&s->mutex));
        mag_time took = mag_now() - start;
        worst = took > worst ? took : worst;
        s->count++;
        mag_mutex_unlock(&s->mutex);
        if (i % BETWEEN_YIELDS == 0)
            await(mag_yield());
    }
    async_return(worst);
}

/* ---- nobody waits ---------------------------------------------------------------- */

static int run(uint64_t n, double *value)
{
    struct shared s = { .count = 0 };
    struct adder *adders[SHARERS];
    uint64_t each = n / SHARERS + 1;

    for (int i = 0; i < SHARERS; i++)
        adders[i] = adder(&s, each);
    mag_time start = mag_now();
    await(mag_gather(NULL, 0, (void **)adders, SHARERS, NULL));
    value[0] = bench_ns_each(start, each * SHARERS);
    return s.count == each * SHARERS ? 0 : -EBADMSG;
}

const struct bench bench_mutex = {
    .name = "mutex",
    .what = "lock and unlock of a mutex that 8 tasks share",
    .metric = { { "mutex", "ns" } },
    .run = run,
};

/* ---- everybody waits -------------------------------------------------------------- */

/* Worker i + 1 gets the i-th. */
static int start_there(void *task, unsigned i)
{
    return mag_start(task, &(struct mag_spawn_options){ .pin = true, .worker = i + 1 });
}

static int run_together(struct shared *s, unsigned workers, uint64_t each)
{
    struct adder *adders[BENCH_WORKERS_MAX];

    for (unsigned i = 0; i < workers; i++)
        await(start_there(adders[i] = adder(s, each), i));
    for (unsigned i = 0; i < workers; i++)
        await(adders[i]);
    return 0;
}

static int run_timed(struct shared *s, unsigned workers, uint64_t each, mag_time *worst)
{
    struct timed_adder *adders[BENCH_WORKERS_MAX];

    for (unsigned i = 0; i < workers; i++)
        await(start_there(adders[i] = timed_adder(s, each), i));
    for (unsigned i = 0; i < workers; i++) {
        mag_time its = await(adders[i]);
        *worst = its > *worst ? its : *worst;
    }
    return 0;
}

static int run_contended(uint64_t n, double *value)
{
    struct shared s = { .count = 0 };
    unsigned workers = mag_rt_workers(mag_rt_self());
    uint64_t each = n / workers + 1, timed = each / TIMED_SHARE + 1;
    mag_time start = mag_now(), worst = 0;

    await(run_together(&s, workers, each));
    value[0] = bench_ns_each(start, each * workers);
    await(run_timed(&s, workers, timed, &worst));
    value[1] = mag_seconds(worst) * 1e6;
    return s.count == (each + timed) * workers ? 0 : -EBADMSG;
}

const struct bench bench_mutex_contended = {
    .name = "mutex-contended",
    .what = "the same by a task on each worker, all at once; and the longest wait of any",
    .metric = { { "mutex-contended", "ns" }, { "mutex-wait", "us" } },
    .run = run_contended,
};
