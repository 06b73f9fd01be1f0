/* SPDX-License-Identifier: MIT */
/*
 * pingpong.c - two tasks that send each other messages over futures
 *
 *      server   set(ball 0) ............. await(ball 1)  set(ball 2) ...
 *      returner await(ball 0)  set(ball 1) ............. await(ball 2) ...
 *
 * One operation is one round trip: a message each way, each a future of its own that is
 * made, set, awaited and freed, and two switches of task.  Whoever sends a ball first
 * makes the future of the answer and puts it where the other will find it; the set
 * publishes both.
 *
 * The tasks are free to run anywhere.  On one core a round trip is two switches; on two
 * it is two wake-ups, and a runtime that tears the pair apart shows here.
 *
 * Checked: every ball comes back with its number plus one.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/async.h>

async_future(long, ball);

/* Who owns what: `there' and `back' are read and written by turns, as the balls fly. */
struct table {
    uint64_t n;
    struct ball *there; /* the ball that the returner waits for */
    struct ball *back;  /* the ball that the server waits for   */
};

async(void, server, (struct table *, t))
{
    for (uint64_t i = 0; i < t->n; i++) {
        struct ball *back = ball();
        t->back = back;
        future_set(t->there, (long)i);
        if (await(back) != (long)i + 1)
            return -EBADMSG;
    }
    return 0;
}

async(void, returner, (struct table *, t))
{
    struct ball *there = t->there;

    for (uint64_t i = 0; i < t->n; i++) {
        long number = await(there);
        bool is_last = i + 1 == t->n;
        there = t->there = is_last ? NULL : ball();
        future_set(t->back, number + 1);
    }
    return 0;
}

static int run(uint64_t n, double *value)
{
    struct table t = { .n = n, .there = ball() };
    mag_time start = mag_now();

    gather(NULL, returner(&t), server(&t));
    value[0] = bench_ns_each(start, n);
    return 0;
}

const struct bench bench_pingpong = {
    .name = "pingpong",
    .what = "one round trip between two tasks, a future each way",
    .metric = { { "pingpong", "ns" } },
    .run = run,
};
