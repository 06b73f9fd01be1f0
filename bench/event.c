/* SPDX-License-Identifier: MIT */
/*
 * event.c - two tasks that wake each other by events
 *
 *      asker     set(there) wait(back) clear(back)  set(there) ...
 *      answerer  wait(there) clear(there) set(back) ...............
 *
 * One operation is one round trip: two sets, two waits that suspend, two clears, and two
 * switches of task.  Unlike bench pingpong nothing is made or freed; the difference is the
 * cost of a future.
 *
 * The tasks are free to run anywhere.
 *
 * Checked: each sees the other's count, one ahead or equal.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/async.h>
#include <magpie/sync.h>

struct pair {
    uint64_t n;
    struct mag_event there, back;
    uint64_t n_there, n_back; /* by turns, as the events are set */
};

async(void, asker, (struct pair *, p))
{
    for (uint64_t i = 0; i < p->n; i++) {
        p->n_there++;
        mag_event_set(&p->there);
        await(mag_event_wait(&p->back));
        mag_event_clear(&p->back);
        if (p->n_back != p->n_there)
            return -EBADMSG;
    }
    return 0;
}

async(void, answerer, (struct pair *, p))
{
    for (uint64_t i = 0; i < p->n; i++) {
        await(mag_event_wait(&p->there));
        mag_event_clear(&p->there);
        if (p->n_there != p->n_back + 1)
            return -EBADMSG;
        p->n_back++;
        mag_event_set(&p->back);
    }
    return 0;
}

static int run(uint64_t n, double *value)
{
    struct pair p = { .n = n };
    mag_time start = mag_now();

    gather(NULL, answerer(&p), asker(&p));
    value[0] = bench_ns_each(start, n);
    return 0;
}

const struct bench bench_event = {
    .name = "event",
    .what = "one round trip between two tasks, an event each way",
    .metric = { { "event", "ns" } },
    .run = run,
};
