/* SPDX-License-Identifier: MIT */
/*
 * offload.c - the pool under load: submitters, cancels, threads that come and go
 *
 * Each job lies on the submitter's stack in a batch that is used again as soon as all
 * of it is done or cancelled, so a pool that touches a job after done() shows.  Threads
 * idle for so short a time that they end between batches: a hand-over races with the
 * end of the thread that it is meant for.
 */
#include "clock.h"
#include "offload.h"
#include "sys.h"

#include <stdio.h>

enum {
    SUBMITTERS = 4,
    JOBS = MAG_TSAN || MAG_ASAN ? 10000 : 50000,
    BATCH = 20,
};

struct item {
    struct mag_job job;
    mag_atomic(uint32_t) state; /* 0, then 1 when run, then 2 when done */
};

static struct mag_offload pool;
static mag_atomic(uint32_t) n_wrong;
static mag_atomic(uint64_t) n_done;

static void expect(bool holds, const char *what)
{
    if (holds)
        return;
    mag_fetch_add(&n_wrong, 1);
    printf("wrong: %s\n", what);
}

static struct item *item_of(struct mag_job *job)
{
    return mag_container_of(job, struct item, job);
}

static void run(struct mag_job *job)
{
    uint32_t expected = 0;

    expect(mag_cas(&item_of(job)->state, &expected, 1), "a job runs twice");
}

static void done(struct mag_job *job)
{
    mag_fetch_add(&n_done, 1);
    mag_store_release(&item_of(job)->state, 2);
}

static void await(struct item *it)
{
    mag_time end = mag_clock_now() + 30 * MAG_SECOND;

    while (mag_load_acquire(&it->state) != 2) {
        if (mag_clock_now() > end) {
            expect(false, "a job is never done");
            return;
        }
        mag_sys_yield();
    }
}

static uint64_t n_cancelled[SUBMITTERS];

/* One batch: submit all, cancel each third, wait for the others. */
static void batch(unsigned id, unsigned round)
{
    struct item items[BATCH];
    bool is_cancelled[BATCH] = { false };

    for (unsigned i = 0; i < BATCH; i++) {
        items[i].state = 0;
        mag_job_init(&items[i].job, run, done);
        expect(mag_offload_submit(&pool, (enum mag_lane)((id + round) % MAG_LANE_COUNT),
                                  &items[i].job) == 0, "submit fails");
    }
    for (unsigned i = round % 3; i < BATCH; i += 3) {
        is_cancelled[i] = mag_offload_cancel(&pool, &items[i].job);
        n_cancelled[id] += is_cancelled[i];
    }
    for (unsigned i = 0; i < BATCH; i++) {
        if (is_cancelled[i])
            expect(mag_load_acquire(&items[i].state) == 0, "a cancelled job ran");
        else
            await(&items[i]);
    }
}

static void *submitter(void *arg)
{
    unsigned id = (unsigned)(uintptr_t)arg;

    for (unsigned round = 0; round < JOBS / BATCH; round++) {
        batch(id, round);
        if (round % 64 == id)
            (void)mag_sys_sleep(100 * MAG_US);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[SUBMITTERS];
    uint64_t cancelled = 0;

    mag_offload_init(&pool, 3);
    for (int i = 0; i < MAG_LANE_COUNT; i++) {
        pool.lanes[i].idle_ns = 20 * MAG_US;
        pool.lanes[i].spin_ns = i * 5 * MAG_US;
    }
    for (uintptr_t i = 0; i < SUBMITTERS; i++)
        if (mag_sys_thread_start(&threads[i], submitter, (void *)i, "submitter") < 0)
            return 1;
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        (void)mag_sys_thread_join(threads[i]);
        cancelled += n_cancelled[i];
    }
    mag_offload_fini(&pool);
    expect(n_done + cancelled == (uint64_t)SUBMITTERS * JOBS, "done and cancelled are not all");
    printf("%llu done, %llu cancelled\n", (unsigned long long)n_done,
           (unsigned long long)cancelled);
    return n_wrong != 0;
}
