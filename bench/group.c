/* SPDX-License-Identifier: MIT */
/*
 * group.c - what a task group and a timeout cost
 *
 * group: enters a group, spawns 1,000 children that return at once, and leaves.  One
 * operation is one child: its coroutine, its start, its run, its result and its end.
 * group-one is a whole group with one child, which shows what enter and leave cost.
 *
 * timeout: one operation is a scope with a deadline around an immediate result, as
 * with_timeout makes it, entered and left.  timeout-wait-for is mag_wait_for of a coroutine
 * that returns at once, its creation included.
 *
 * Checked: each result.
 */
#include <errno.h>
#include <stdlib.h>

#include "harness.h"

#include <magpie/async.h>
#include <magpie/group.h>
#include <magpie/scope.h>

enum { CHILDREN = 1000 };

async(long, child, (long, n))
{
    async_return(n);
}

/* One group of so many children; their sum. */
static int run_group(long n_children, long *results, long *sum)
{
    struct mag_group g;
    int rc = mag_group_enter(&g, NULL);

    for (long i = 0; rc == 0 && i < n_children; i++)
        rc = mag_group_spawn(&g, child(i), &results[i], NULL);
    rc = mag_group_leave(&g, rc);
    for (long i = 0; i < n_children; i++)
        *sum += results[i];
    return rc;
}

static int run_groups(uint64_t n, long n_children, double *value)
{
    static long results[CHILDREN];
    mag_time start = mag_now();
    long sum = 0, expected = n_children * (n_children - 1) / 2;
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < n; i++)
        rc = run_group(n_children, results, &sum);
    value[0] = bench_ns_each(start, n * (uint64_t)n_children);
    return rc < 0 ? rc : sum == (long)n * expected ? 0 : -EBADMSG;
}

static int run(uint64_t n, double *value)
{
    int rc = run_groups(n, CHILDREN, &value[0]);

    return rc < 0 ? rc : run_groups(n * CHILDREN / 10, 1, &value[1]);
}

/* What a with_timeout is put around in vain. */
static __attribute__((noinline)) int immediate(int v)
{
    __asm__ volatile("" : "+r"(v)); /* nothing is known of what it returns */
    return v;
}

static int run_scopes(uint64_t n, double *value)
{
    mag_time start = mag_now();
    struct mag_scope s;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++) {
        int rc = mag_scope_enter(&s, mag_now() + MAG_SECOND, NULL);
        if (rc < 0)
            return rc;
        sum += (uint64_t)mag_scope_leave(&s, immediate(1));
    }
    value[0] = bench_ns_each(start, n);
    return sum == n ? 0 : -EBADMSG;
}

static int run_wait_for(uint64_t n, double *value)
{
    mag_time start = mag_now();

    for (uint64_t i = 0; i < n; i++) {
        long v = -1;
        int rc = mag_wait_for(child((long)i), MAG_SECOND, &v, sizeof v);
        if (rc < 0 || v != (long)i)
            return rc < 0 ? rc : -EBADMSG;
    }
    value[0] = bench_ns_each(start, n);
    return 0;
}

static int run_timeout(uint64_t n, double *value)
{
    int rc = run_scopes(n, &value[0]);

    return rc < 0 ? rc : run_wait_for(n, &value[1]);
}

const struct bench bench_group = {
    .name = "group",
    .what = "one of 1,000 empty children of a task group; group-one: a group with one child",
    .metric = { { "group", "ns" }, { "group-one", "ns" } },
    .run = run,
};

const struct bench bench_timeout = {
    .name = "timeout",
    .what = "a deadline around an immediate result; timeout-wait-for: mag_wait_for of a coroutine",
    .metric = { { "timeout", "ns" }, { "timeout-wait-for", "ns" } },
    .run = run_timeout,
};
