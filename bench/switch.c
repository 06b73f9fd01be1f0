/* SPDX-License-Identifier: MIT */
/*
 * switch.c - what it costs to let the other task run
 *
 * Two tasks, both pinned to worker 1, do nothing but mag_yield().  One operation is one
 * yield: the caller goes to the end of the ready queue, and the other task continues.
 * All yields of both are counted, so one operation is one switch from task to task, with
 * all that the worker's loop does in between.
 *
 * With more workers the two stay where they are; the row shows what idle workers who
 * search for work cost the one who has it.
 *
 * Checked: the two really alternate.  A yield that returned at once would let the first
 * task end before the second had done anything.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/async.h>

/* Both tasks run on one worker, so nothing here needs an atomic. */
struct pair {
    uint64_t n_each;  /* yields of each task          */
    unsigned n_ready; /* tasks that have arrived      */
    uint64_t n_done[2];
    mag_time begin, end;
};

async(void, yielder, (struct pair *, p), (int, me))
{
    p->n_ready++;
    while (p->n_ready < 2)
        await(mag_yield());
    if (me == 0)
        p->begin = mag_now();
    for (uint64_t i = 0; i < p->n_each; i++) {
        p->n_done[me]++;
        int rc = mag_yield();
        if (rc < 0)
            return rc;
    }
    p->end = mag_now();
    return p->n_done[!me] + 2 < p->n_each ? -EBADMSG : 0;
}

static int start_pinned(void *coro)
{
    return mag_start(coro, &(struct mag_spawn_options){ .pin = true, .worker = 1 });
}

static int run(uint64_t n, double *value)
{
    struct pair p = { .n_each = (n + 1) / 2 };
    struct yielder *a = yielder(&p, 0), *b = yielder(&p, 1);

    await(start_pinned(a));
    int rc = start_pinned(b);
    if (rc < 0) {
        mag_close(a);
        return rc;
    }
    int rc_a = await_rc(a, NULL), rc_b = await_rc(b, NULL);
    value[0] = (double)(p.end - p.begin) / (double)(2 * p.n_each);
    return rc_a < 0 ? rc_a : rc_b;
}

const struct bench bench_switch = {
    .name = "switch",
    .what = "one yield, between two tasks on one worker",
    .metric = { { "switch", "ns" } },
    .run = run,
};
