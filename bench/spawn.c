/* SPDX-License-Identifier: MIT */
/*
 * spawn.c - a task's whole life: create, spawn, run, await, free
 *
 * One operation is await(spawn(leaf(i))) of a coroutine that takes an int and returns an
 * int, the next one after the last.  Nothing is left over for another worker to help
 * with, so what more workers show is how much the hunters disturb.
 *
 * Checked: each task returns its argument plus one.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/async.h>

async(int, leaf, (int, x))
{
    async_return(x + 1);
}

static int run(uint64_t n, double *value)
{
    mag_time start = mag_now();

    for (uint64_t i = 0; i < n; i++) {
        int x = (int)(i & 0xffff);
        if (await(spawn(leaf(x))) != x + 1)
            return -EBADMSG;
    }
    value[0] = bench_ns_each(start, n);
    return 0;
}

const struct bench bench_spawn = {
    .name = "spawn",
    .what = "spawn and await of a typed coroutine",
    .metric = { { "spawn", "ns" } },
    .run = run,
};
