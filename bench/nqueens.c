/* SPDX-License-Identifier: MIT */
/*
 * nqueens.c - an irregular tree: all ways to place 13 queens
 *
 * The queens are placed row by row; every column that is still free becomes a fork with
 * a board of its own, down to the last row, without a cut-off.  One operation is the
 * whole search, in milliseconds.  On one worker most of that is the check whether a
 * column is free, which is the compiler's work; what the runtime does shows in how far
 * more workers divide it.
 *
 * Checked: there are 73,712 ways.
 *
 * The problem is that of github.com/tzcnt/runtime-benchmarks (after libfork's), so that
 * figures can be compared: a board of one char per row, copied into each child.
 */
#include <errno.h>
#include <string.h>

#include "harness.h"

#include <magpie/fork.h>

enum {
    QUEENS = 13,
    WAYS = 73712,
};

/* The search below one placement. */
struct branch {
    struct mag_fork fork;
    int n_rows;          /* rows that have their queen */
    int ways;            /* result                     */
    char column[QUEENS]; /* of the queen in each row   */
};

static int search(int n_rows, const char *column);

static void branch_part(struct mag_fork *fork)
{
    struct branch *branch = (struct branch *)fork;

    branch->ways = search(branch->n_rows, branch->column);
}

static bool is_free(int n_rows, const char *column, char y)
{
    for (int x = 0; x < n_rows; x++) {
        char p = column[x];
        if (y == p || y == p - (n_rows - x) || y == p + (n_rows - x))
            return false;
    }
    return true;
}

static int search(int n_rows, const char *column)
{
    struct branch branch[QUEENS];
    int n = 0, ways = 0;

    if (n_rows == QUEENS)
        return 1;
    for (int y = 0; y < QUEENS; y++) {
        if (!is_free(n_rows, column, (char)y))
            continue;
        memcpy(branch[n].column, column, QUEENS);
        branch[n].column[n_rows] = (char)y;
        branch[n].n_rows = n_rows + 1;
        mag_fork(&branch[n++].fork, branch_part);
    }
    while (n-- > 0) {
        mag_join_call(&branch[n].fork, branch_part);
        ways += branch[n].ways;
    }
    return ways;
}

static int run(uint64_t n, double *value)
{
    static const char empty[QUEENS];
    mag_time start = mag_now();

    for (uint64_t i = 0; i < n; i++)
        if (search(0, empty) != WAYS)
            return -EBADMSG;
    value[0] = bench_ns_each(start, n) / (double)MAG_MS;
    return 0;
}

const struct bench bench_nqueens = {
    .name = "nqueens",
    .what = "all ways to place 13 queens, a fork for every placement",
    .metric = { { "nqueens", "ms" } },
    .run = run,
};
