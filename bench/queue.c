/* SPDX-License-Identifier: MIT */
/*
 * queue.c - bounded queues of 1024 items: one pair of tasks, and several on each side
 *
 *      queue      producer ->  [ 1024 items ]  -> consumer
 *      queue-nn   4 producers ->  [ 1024 items ]  -> 4 consumers
 *
 * One operation is one item: a put, a get, and whatever waiting and waking it takes.  The
 * tasks are free to run anywhere; with one worker it is the cost of the two calls, with
 * several also that of the cache lines that all of them want.  Items are 8 bytes.
 *
 * Who consumes does not know how many items it will get; the last producer shuts the queue
 * down when all has been put.
 *
 * Checked: the sum of what was got is the sum of what was put.
 */
#include <errno.h>

#include "harness.h"

#include <magpie/async.h>
#include <magpie/queue.h>

enum { CAPACITY = 1024, SIDE = 4 };

async(void, produce, (struct mag_queue *, q), (uint64_t, from), (uint64_t, to))
{
    for (uint64_t i = from; i < to; i++) {
        int rc = mag_queue_put(q, &i);
        if (rc < 0)
            return rc;
    }
    return 0;
}

async(uint64_t, consume, (struct mag_queue *, q))
{
    uint64_t sum = 0, item;
    int rc;

    while ((rc = mag_queue_get(q, &item)) == 0)
        sum += item;
    if (rc != -EPIPE)
        return rc;
    async_return(sum);
}

static int produce_all(struct mag_queue *q, uint64_t n, unsigned side)
{
    struct produce *producers[SIDE];
    int rc;

    for (uint64_t i = 0; i < side; i++)
        producers[i] = produce(q, n * i / side, n * (i + 1) / side);
    rc = mag_gather(NULL, 0, (void **)producers, side, NULL);
    mag_queue_shutdown(q, false);
    return rc;
}

static int transfer(uint64_t n, unsigned side, double *value)
{
    struct consume *consumers[SIDE];
    uint64_t sums[SIDE], sum = 0;
    struct mag_queue *q;
    mag_time start;
    int rc = mag_queue_new(&q, sizeof(uint64_t), CAPACITY, NULL);

    if (rc < 0)
        return rc;
    start = mag_now();
    for (unsigned i = 0; i < side; i++)
        consumers[i] = spawn(consume(q));
    rc = produce_all(q, n, side);
    for (unsigned i = 0; i < side; i++) {
        int one = await_rc(consumers[i], &sums[i]);
        rc = rc < 0 ? rc : one;
        sum += sums[i];
    }
    value[0] = bench_ns_each(start, n);
    mag_queue_free(q);
    if (rc < 0)
        return rc;
    return sum == (n % 2 ? (n - 1) / 2 * n : n / 2 * (n - 1)) ? 0 : -EBADMSG;
}

static int run_pair(uint64_t n, double *value)
{
    return transfer(n, 1, value);
}

static int run_many(uint64_t n, double *value)
{
    return transfer(n, SIDE, value);
}

const struct bench bench_queue = {
    .name = "queue",
    .what = "one item through a queue of 1024, one task on each side",
    .metric = { { "queue", "ns" } },
    .run = run_pair,
};

const struct bench bench_queue_nn = {
    .name = "queue-nn",
    .what = "one item through a queue of 1024, four tasks on each side",
    .metric = { { "queue-nn", "ns" } },
    .run = run_many,
};
