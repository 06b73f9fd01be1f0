/* SPDX-License-Identifier: MIT */
/*
 * startstop.c - runtimes come and go, and leave nothing behind
 *
 * Thousands of rounds of mag_run with 1 to 4 workers, two threads at it at once, each
 * round with a little of something that could be under way when the runtime stops:
 * sleeps, detached tasks in a long sleep, calls in threads, a callback for later, a
 * failure, a future that a foreign thread sets as the very last thing, a task and callbacks
 * in another runtime, which all of them share.  Some of the runtimes are embedded, in the
 * thread that makes them.  After it the process has as many descriptors, threads' blocks and
 * allocations as before.
 *
 * A stop that waited for a time-out instead of a wake would pass, but for its time: no
 * round may take as long as the runtime's own patience (100 ms), of processor time of
 * a machine that is busy with other things or not.
 */
#include "stress.h"

#include <errno.h>

enum {
    ROUNDS = STRESS_SCALE(1500, 300), /* of each of two threads */
    SLOW_MS = 90,
};

static mag_atomic(uint32_t) n_slow;
static mag_atomic(uint32_t) n_rounds;

async_future(int, last_word);

async(int, nap, (mag_time, ns))
{
    await(mag_sleep(ns));
    async_return(1);
}

async(void, sleeps_long)
{
    int rc = mag_sleep(3600 * MAG_SECOND);

    EXPECT(rc == -ECANCELED);
    return rc;
}

static int in_thread(void *arg)
{
    (void)arg;
    return 7;
}

static void later(void *arg)
{
    (void)arg;
}

static void *say_last_word(void *word)
{
    EXPECT(future_set((struct last_word *)word, 42) == 0);
    return NULL;
}

/* The runtime ends while the thread is still inside future_set. */
async(void, ends_with_a_foreign_word, (pthread_t *, thread))
{
    struct last_word *word = last_word();

    *thread = stress_thread(say_last_word, word);
    EXPECT(await(word) == 42);
    return 0;
}

static struct mag_rt *shared; /* lives through all rounds */

/* In the shared runtime: its end is the last thing that the other one sees. */
async(int, visits, (struct last_word *, word), (mag_time, ns))
{
    await(mag_sleep(ns));
    EXPECT(future_set(word, 42) == 0);
    async_return(5);
}

static void say_it_there(void *word)
{
    EXPECT(future_set((struct last_word *)word, 42) == 0);
}

async(void, talks_to_the_shared_one, (unsigned, n))
{
    struct last_word *first = last_word(), *second = last_word();
    struct visits    *v = visits(first, n % 3 * 10 * MAG_US);
    struct mag_call  *call;

    EXPECT(mag_submit(shared, v, NULL) == 0);
    EXPECT(mag_rt_call(shared, MAG_NEVER, later, NULL, &call) == 0);
    EXPECT(await(first) == 42);
    EXPECT(mag_rt_call(shared, 0, say_it_there, second, NULL) == 0);
    EXPECT(await(v) == 5);
    EXPECT(mag_call_cancel(call) == 0);
    EXPECT(await(second) == 42);
    return 0;
}

async(void, some, (uint64_t, seed), (pthread_t *, thread))
{
    struct mag_rand r = stress_rand(seed);
    struct nap     *naps[20];
    unsigned        n = mag_rand_below(&r, 20);

    switch (mag_rand_below(&r, 11)) {
    case 0:
        break;
    case 1: /* awaited by nobody, short */
        for (unsigned i = 0; i < n; i++)
            (void)spawn(nap(mag_rand_below(&r, 50) * MAG_US));
        break;
    case 2: /* detached, long, begun or not */
        for (unsigned i = 0; i < n; i++)
            EXPECT(mag_detach(spawn(sleeps_long())) == 0);
        if (n & 1)
            await(mag_yield());
        break;
    case 3: /* the same without stacks */
        for (unsigned i = 0; i < n; i++)
            EXPECT(mag_detach(spawn(mag_sleep_co(3600 * MAG_SECOND))) == 0);
        if (n & 1)
            await(mag_yield());
        break;
    case 4:
        EXPECT(mag_to_thread(in_thread, NULL) == 7);
        break;
    case 5:
        EXPECT(mag_call_later(n & 1 ? 3600 * MAG_SECOND : 0, later, NULL) == 0);
        break;
    case 6: /* fails, and what it began is cancelled */
        (void)spawn(sleeps_long());
        (void)spawn(mag_sleep_co(3600 * MAG_SECOND));
        return -EIO;
    case 7:
        await(ends_with_a_foreign_word(thread));
        break;
    case 9:
        await(talks_to_the_shared_one(n));
        break;
    case 8:
        for (unsigned i = 0; i < n; i++)
            naps[i] = nap(0);
        gather_n(NULL, naps, n);
        break;
    default:
        for (unsigned i = 0; i < n; i++)
            naps[i] = spawn(nap(mag_rand_below(&r, 3) * MAG_US));
        for (unsigned i = 0; i < n; i++)
            EXPECT(await(naps[i]) == 1);
    }
    return 0;
}

static void say_nothing(void *arg, const char *line)
{
    (void)arg;
    (void)line;
}

static void *rounds(void *arg)
{
    uint64_t        who = (uint64_t)(uintptr_t)arg;
    struct mag_rand r = stress_rand(who);

    for (int i = 0; i < ROUNDS && stress.n_wrong < 5; i++) {
        bool                  is_embedded = mag_rand_below(&r, 8) == 0;
        struct mag_rt_options o = { .workers = is_embedded ? 1 : 1 + mag_rand_below(&r, 4),
                                    .embedded = is_embedded,
                                    .report = say_nothing };
        pthread_t             thread = 0;
        mag_time              begun = mag_clock_now();
        int rc = mag_run_with(some(who + 2 * (uint64_t)i, &thread), NULL, &o);

        EXPECT(rc == 0 || rc == -EIO);
        if (mag_clock_now() - begun > SLOW_MS * MAG_MS)
            mag_fetch_add(&n_slow, 1);
        if (thread)
            (void)stress_joined(thread);
        mag_fetch_add(&n_rounds, 1);
        stress_beat();
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    int64_t   n_blocks;
    int       n_descriptors;

    stress_begin("startstop", NULL);
    mag_run(nap(0), NULL); /* what is made once for the process is made now */
    n_blocks = mag_mem_live();
    n_descriptors = stress_n_descriptors();
    EXPECT(mag_rt_new(&shared, &(struct mag_rt_options){ .workers = 2 }) == 0);
    for (uintptr_t i = 0; i < 2; i++)
        threads[i] = stress_thread(rounds, (void *)i);
    for (int i = 0; i < 2; i++)
        (void)stress_joined(threads[i]);
    mag_rt_free(shared);
    EXPECT(mag_mem_live() == n_blocks);
    EXPECT(stress_n_descriptors() == n_descriptors);
    printf("startstop: %u rounds, %u of them slow; %lld blocks, %d descriptors more\n", n_rounds,
           n_slow, (long long)(mag_mem_live() - n_blocks), stress_n_descriptors() - n_descriptors);
    return stress_end();
}
