/* SPDX-License-Identifier: MIT */
/*
 * gather.c - a hundred thousand tasks at once
 *
 * Makes 100,000 coroutines, gathers them, adds their results up.  One operation is one
 * of those tasks: its creation, its run, its result and its end.  In gather the tasks
 * do nothing; in gather-yield each yields once, so each needs a stack of its own for
 * that moment, and as many as yield at the same time.
 *
 * Checked: each task returned 1.
 */
#include <errno.h>
#include <stdlib.h>

#include "harness.h"

#include <magpie/async.h>

enum { TASKS = 100000 };

async(int, empty)
{
    async_return(1);
}

async(int, yielding)
{
    await(mag_yield());
    async_return(1);
}

/* What one round needs; made once, outside of the measured part. */
struct round {
    union {
        struct empty *empty[TASKS];
        struct yielding *yielding[TASKS];
    };
    int result[TASKS];
};

static int gather_empty(struct round *r)
{
    for (int i = 0; i < TASKS; i++)
        r->empty[i] = empty();
    gather_n(r->result, r->empty, TASKS);
    return 0;
}

static int gather_yielding(struct round *r)
{
    for (int i = 0; i < TASKS; i++)
        r->yielding[i] = yielding();
    gather_n(r->result, r->yielding, TASKS);
    return 0;
}

static int check(const struct round *r)
{
    int sum = 0;

    for (int i = 0; i < TASKS; i++)
        sum += r->result[i];
    return sum == TASKS ? 0 : -EBADMSG;
}

static int run_with(int (*gather_all)(struct round *r), uint64_t n, double *value)
{
    struct round *r = calloc(1, sizeof *r);
    int rc = r == NULL ? -ENOMEM : 0;
    mag_time start = mag_now();

    for (uint64_t i = 0; rc >= 0 && i < n; i++) {
        rc = gather_all(r);
        if (rc >= 0)
            rc = check(r);
    }
    value[0] = bench_ns_each(start, n * TASKS);
    free(r);
    return rc;
}

static int run(uint64_t n, double *value)
{
    return run_with(gather_empty, n, value);
}

static int run_yield(uint64_t n, double *value)
{
    return run_with(gather_yielding, n, value);
}

const struct bench bench_gather = {
    .name = "gather",
    .what = "one of 100,000 empty tasks in a gather, creation included",
    .metric = { { "gather", "ns" } },
    .run = run,
};

const struct bench bench_gather_yield = {
    .name = "gather-yield",
    .what = "the same where each task yields once",
    .metric = { { "gather-yield", "ns" } },
    .run = run_yield,
};
