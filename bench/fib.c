/* SPDX-License-Identifier: MIT */
/*
 * fib.c - the price of a fork: fib(35) without a cut-off
 *
 * Every call with n >= 2 forks fib(n - 1), computes fib(n - 2) itself and joins.  One
 * operation is one fork: with the call, the addition and the join that belong to it;
 * fib(35) has 14,930,351.  The figure is wall time / forks, so on four workers it should
 * be a quarter of what it is on one.
 *
 * fib uses the inline half (<magpie/fork.h>) with the function named at the join too, so
 * that the compiler sees a direct call.  fib-generic uses the exported functions, as a
 * caller from another language does: two calls and an indirect one per fork.
 *
 * Checked: fib(35) is 9,227,465.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/fork.h>

enum {
    FIB_N = 35,
    FIB_VALUE = 9227465,
    FIB_FORKS = 14930351, /* fib(36) - 1: calls with n >= 2 */
};

struct part {
    struct mag_fork fork;
    int n;
    long value;
};

/* ---- typed, inline -------------------------------------------------------------- */

static long fib(int n);

static void fib_part(struct mag_fork *fork)
{
    struct part *part = (struct part *)fork;

    part->value = fib(part->n);
}

static long fib(int n)
{
    if (n < 2)
        return n;
    struct part part;
    part.n = n - 1;
    mag_fork(&part.fork, fib_part);
    long rest = fib(n - 2);
    mag_join_call(&part.fork, fib_part);
    return part.value + rest;
}

/* ---- through the exported functions ------------------------------------------------ */

static long fib_generic(int n);

static void fib_generic_part(struct mag_fork *fork)
{
    struct part *part = (struct part *)fork;

    part->value = fib_generic(part->n);
}

static long fib_generic(int n)
{
    if (n < 2)
        return n;
    struct part part;
    part.n = n - 1;
    mag_fork_begin(&part.fork, fib_generic_part);
    long rest = fib_generic(n - 2);
    mag_fork_end(&part.fork);
    return part.value + rest;
}

/* ---- the benches --------------------------------------------------------------------- */

static int run_with(long (*fn)(int n), uint64_t n, double *value)
{
    mag_time start = mag_now();

    for (uint64_t i = 0; i < n; i++)
        if (fn(FIB_N) != FIB_VALUE)
            return -EBADMSG;
    value[0] = bench_ns_each(start, n * FIB_FORKS);
    return 0;
}

static int run(uint64_t n, double *value)
{
    return run_with(fib, n, value);
}

static int run_generic(uint64_t n, double *value)
{
    return run_with(fib_generic, n, value);
}

const struct bench bench_fib = {
    .name = "fib",
    .what = "one fork and join of fib(35), typed and inline; wall time / forks",
    .metric = { { "fib", "ns" } },
    .run = run,
};

const struct bench bench_fib_generic = {
    .name = "fib-generic",
    .what = "the same through the exported mag_fork_begin and mag_fork_end",
    .metric = { { "fib-generic", "ns" } },
    .run = run_generic,
};
