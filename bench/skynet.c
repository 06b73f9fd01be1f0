/* SPDX-License-Identifier: MIT */
/*
 * skynet.c - a tree of forks: a million leaves, fan-out ten
 *
 * The root forks ten children, each of them ten, six levels deep; a leaf returns its
 * number, and every parent the sum of its children.  One operation is the whole tree,
 * 1,111,110 forks, in milliseconds.  Children live in the parent's frame and are joined
 * last to first, as they lie on the deque.
 *
 * Checked: the sum of 0 .. 999,999.
 *
 * After github.com/atemerev/skynet.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/fork.h>

enum {
    FAN_OUT = 10,
    LEAVES = 1000000,
};
#define SKYNET_SUM ((uint64_t)LEAVES * (LEAVES - 1) / 2)

struct node {
    struct mag_fork fork;
    uint64_t first, size; /* the leaves below: first .. first + size - 1 */
    uint64_t sum;
};

static uint64_t skynet(uint64_t first, uint64_t size);

static void node_part(struct mag_fork *fork)
{
    struct node *node = (struct node *)fork;

    node->sum = skynet(node->first, node->size);
}

static uint64_t skynet(uint64_t first, uint64_t size)
{
    struct node child[FAN_OUT];
    uint64_t sum = 0;

    if (size == 1)
        return first;
    size /= FAN_OUT;
    for (int i = 0; i < FAN_OUT; i++) {
        child[i].first = first + (uint64_t)i * size;
        child[i].size = size;
        mag_fork(&child[i].fork, node_part);
    }
    for (int i = FAN_OUT - 1; i >= 0; i--) {
        mag_join_call(&child[i].fork, node_part);
        sum += child[i].sum;
    }
    return sum;
}

static int run(uint64_t n, double *value)
{
    mag_time start = mag_now();

    for (uint64_t i = 0; i < n; i++)
        if (skynet(0, LEAVES) != SKYNET_SUM)
            return -EBADMSG;
    value[0] = bench_ns_each(start, n) / (double)MAG_MS;
    return 0;
}

const struct bench bench_skynet = {
    .name = "skynet",
    .what = "a tree of forks with a million leaves and fan-out ten",
    .metric = { { "skynet", "ms" } },
    .run = run,
};
