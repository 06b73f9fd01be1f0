/* SPDX-License-Identifier: MIT */
/*
 * storm.c - more tasks than any queue holds, awaited in any order
 *
 * Storms of spawns that overflow the deque, from one task and from many at once;
 * awaited first to last, last to first, in random order, by halves, or detached, or
 * moved: spawned by one task and awaited by another.  Every task adds its number to a
 * sum, so one that runs twice or never shows.
 */
#include "stress.h"

enum {
    STORM = STRESS_SCALE(30000, 12000), /* more than MAG_DEQUE_SLOTS */
    STORMS = STRESS_SCALE(300, 10),
    GUSTS = STRESS_SCALE(2000, 150),
    GUST = 200,
};

static mag_atomic(uint64_t) sum, n_ran;

async(uint64_t, drop, (uint64_t, i))
{
    mag_fetch_add(&sum, i);
    mag_fetch_add(&n_ran, 1);
    if (i % 1024 == 1)
        await(mag_yield());
    if (i % 4096 == 2)
        await(mag_sleep(10 * MAG_US));
    async_return(i * 3);
}

static void shuffle(struct drop **all, size_t n, struct mag_rand *r)
{
    for (size_t i = n - 1; i > 0; i--) {
        size_t       k = mag_rand_below(r, (uint32_t)(i + 1));
        struct drop *other = all[k];
        all[k] = all[i];
        all[i] = other;
    }
}

async(uint64_t, collects, (struct drop **, all), (size_t, n))
{
    uint64_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += await(all[i]);
    async_return(total);
}

async(void, gust, (uint64_t, seed), (size_t, n))
{
    struct mag_rand r = stress_rand(seed);
    struct drop   **all = mag_mem_alloc(n * sizeof(struct drop *));
    uint32_t        way = mag_rand_below(&r, 6);
    uint64_t        total = 0;

    for (size_t i = 0; i < n; i++)
        all[i] = spawn(drop(i));
    if (way == 1 || way == 2)
        shuffle(all, n, &r);
    if (way == 0) {
        for (size_t i = n; i-- > 0;)
            total += await(all[i]);
    } else if (way == 2) { /* by another, which may run elsewhere */
        total = await(spawn(collects(all, n)));
    } else if (way == 3) {
        struct collects *half = spawn(collects(all, n / 2));
        for (size_t i = n / 2; i < n; i++)
            total += await(all[i]);
        total += await(half);
    } else if (way == 4) {
        for (size_t i = 0; i < n; i++)
            EXPECT(mag_detach(all[i]) == 0);
        total = n * (n - 1) / 2 * 3;
    } else {
        for (size_t i = 0; i < n; i++)
            total += await(all[i]);
    }
    EXPECT(total == n * (n - 1) / 2 * 3);
    mag_mem_free(all);
    stress_beat();
    return 0;
}

/* Detached ones too: they run before the next storm begins. */
static int wait_until_ran(uint64_t n)
{
    while (mag_load_acquire(&n_ran) < n)
        await(mag_sleep(100 * MAG_US));
    return 0;
}

async(void, storms)
{
    struct gust *gusts[GUSTS];
    uint64_t     n = 0, expected = 0;

    for (uint64_t i = 0; i < STORMS; i++) {
        await(gust(i, STORM));
        n += STORM;
        expected += (uint64_t)STORM * (STORM - 1) / 2;
        await(wait_until_ran(n));
    }
    for (uint64_t i = 0; i < GUSTS; i++)
        gusts[i] = spawn(gust(1000 + i, GUST));
    for (uint64_t i = GUSTS; i-- > 0;)
        await(gusts[i]);
    await(wait_until_ran(n + (uint64_t)GUSTS * GUST));
    expected += (uint64_t)GUSTS * ((uint64_t)GUST * (GUST - 1) / 2);
    EXPECT(mag_load_acquire(&n_ran) == n + (uint64_t)GUSTS * GUST);
    EXPECT(mag_load_acquire(&sum) == expected);
    return 0;
}

static void run(unsigned workers)
{
    struct mag_rt_options o = { .workers = workers };

    mag_store_seq(&sum, 0);
    mag_store_seq(&n_ran, 0);
    EXPECT(mag_run_with(storms(), NULL, &o) == 0);
}

int main(void)
{
    int64_t n_blocks;

    stress_begin("storm", NULL);
    n_blocks = mag_mem_live();
    if (getenv("MAGPIE_WORKERS")) {
        run(0);
    } else {
        run(1);
        run(4);
    }
    EXPECT(mag_mem_live() == n_blocks);
    return stress_end();
}
