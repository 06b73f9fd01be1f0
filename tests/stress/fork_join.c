/* SPDX-License-Identifier: MIT */
/*
 * fork_join.c - forked parts that suspend, on four workers, and the sums are right
 *
 * fib by fork and join, with sleeps, yields and awaits at random depths, so that parts
 * are taken by thieves, wait in the middle, and come back on another thread; skynet,
 * ten children each, by gather and by spawn.
 */
#include "stress.h"

enum {
    FIB = STRESS_SCALE(27, 21),
    FIB_ROUNDS = STRESS_SCALE(200, 30),
    SKYNET_LEAVES = STRESS_SCALE(100000, 10000),
    SKYNET_ROUNDS = STRESS_SCALE(10, 2),
};

struct fib {
    struct mag_fork fork;
    int n;
    uint32_t chance; /* of what disturbs, in 2^20 */
    uint64_t seed;
    long value;
};

static long fib(int n, uint32_t chance, uint64_t seed);

static void fib_part(struct mag_fork *fork)
{
    struct fib *f = (struct fib *)fork;

    f->value = fib(f->n, f->chance, f->seed);
}

async(int, plus_one, (int, n))
{
    if (n & 1)
        await(mag_yield());
    async_return(n + 1);
}

/* Something that suspends. */
static void disturb(struct mag_rand *r)
{
    int one = 0;

    stress_beat();
    switch (mag_rand_below(r, 5)) {
    case 0: EXPECT(mag_sleep(mag_rand_below(r, 300) * MAG_US) == 0); break;
    case 1: EXPECT(mag_sleep(0) == 0); break;
    case 2: EXPECT(mag_yield() == 0); break;
    case 3: EXPECT(mag_await(plus_one(0), &one, sizeof one) == 0 && one == 1); break;
    default: EXPECT(mag_await(spawn(plus_one(1)), &one, sizeof one) == 0 && one == 2);
    }
}

static long fib(int n, uint32_t chance, uint64_t seed)
{
    struct mag_rand r;
    struct fib      f;
    long            rest;

    if (n < 2)
        return n;
    mag_rand_init(&r, seed);
    f = (struct fib){ .n = n - 1, .chance = chance, .seed = mag_rand_next(&r) };
    mag_fork(&f.fork, fib_part);
    if (mag_rand_below(&r, 1 << 20) < chance)
        disturb(&r);
    rest = fib(n - 2, chance, mag_rand_next(&r));
    if (n & 1)
        mag_join(&f.fork);
    else
        mag_join_call(&f.fork, fib_part);
    return f.value + rest;
}

static long fib_plain(int n)
{
    return n < 2 ? n : fib_plain(n - 1) + fib_plain(n - 2);
}

async(void, fibs)
{
    long expected = fib_plain(FIB);

    for (int i = 0; i < FIB_ROUNDS; i++) {
        uint32_t chance = i % 4 == 0 ? 0 : i % 4 == 1 ? 100 : 1000;
        EXPECT(fib(FIB, chance, stress.seed + (uint64_t)i) == expected);
        stress_beat();
    }
    return 0;
}

/* ---- skynet ------------------------------------------------------------------------------ */

async_decl(long, skynet, (long, first), (long, size), (int, way));
async_def(long, skynet, (long, first), (long, size), (int, way))
{
    struct skynet *children[10];
    long           sums[10], sum = 0;

    if (size == 1) {
        if (first % 97 == 0)
            await(mag_sleep(first % 5 * 10 * MAG_US));
        async_return(first);
    }
    for (int i = 0; i < 10; i++) {
        children[i] = skynet(first + i * (size / 10), size / 10, way);
        if (way == 1)
            (void)spawn(children[i]);
    }
    if (way == 1) {
        for (int i = 9; i >= 0; i--)
            sum += await(children[i]);
    } else {
        gather_n(sums, children, 10, .limit = way == 2 ? 3 : 0);
        for (int i = 0; i < 10; i++)
            sum += sums[i];
    }
    stress_beat();
    async_return(sum);
}

async(void, skynets)
{
    long leaves = 1;

    while (leaves * 10 <= SKYNET_LEAVES)
        leaves *= 10;
    for (int i = 0; i < 3 * SKYNET_ROUNDS; i++)
        EXPECT(await(skynet(0, leaves, i % 3)) == leaves * (leaves - 1) / 2);
    return 0;
}

int main(void)
{
    struct mag_rt_options o = { .workers = getenv("MAGPIE_WORKERS") ? 0 : 4 };

    stress_begin("fork_join", NULL);
    EXPECT(mag_run_with(fibs(), NULL, &o) == 0);
    EXPECT(mag_run_with(skynets(), NULL, &o) == 0);
    return stress_end();
}
