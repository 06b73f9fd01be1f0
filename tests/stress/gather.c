/* SPDX-License-Identifier: MIT */
/*
 * gather.c - random trees of gathers
 *
 * Each inner node gathers a few children, which are gathers themselves, leaves that
 * compute, yield, sleep, sleep without a stack, have a stack size of their own, were
 * spawned before, or fail; with or without a limit, with the errors collected or not.
 * The sum of every node that did not fail is checked, and that a failure comes out of
 * exactly those gathers that do not collect errors.  In between whole trees are
 * cancelled.  At the end nothing has leaked.
 */
#include "stress.h"

#include <errno.h>

enum {
    TREES = STRESS_SCALE(20000, 1000),
    DEPTH = 5,
    WIDTH = 8,
    FAILURE = -ENOSPC,
};

enum mood { CALM, FAILS, CANCELLED };

async_decl(long, node, (uint64_t, seed), (int, depth), (enum mood, mood));

async(long, leaf, (uint64_t, seed), (enum mood, mood))
{
    struct mag_rand r = stress_rand(seed);
    bool            fails = mood == FAILS && mag_rand_below(&r, 20) == 0;

    switch (mag_rand_below(&r, 6)) {
    case 0: await(mag_yield()); break;
    case 1: await(mag_sleep(mag_rand_below(&r, 50) * MAG_US)); break;
    case 2: stress_spin(mag_rand_below(&r, 5) * MAG_US); break;
    default: break;
    }
    if (fails)
        return FAILURE;
    async_return(1);
}

/* Leaves of the tree below a node without failures: what its value must be. */
static void shape(uint64_t seed, int depth, unsigned *n, bool *is_inner)
{
    struct mag_rand r = stress_rand(seed ^ 0x5eed);

    *n = 1 + mag_rand_below(&r, WIDTH);
    for (unsigned i = 0; i < *n; i++)
        is_inner[i] = depth > 0 && mag_rand_below(&r, 3) == 0;
}

static long leaves_of(uint64_t seed, int depth)
{
    bool     is_inner[WIDTH];
    unsigned n;
    long     sum = 0;

    shape(seed, depth, &n, is_inner);
    for (unsigned i = 0; i < n; i++)
        sum += is_inner[i] ? leaves_of(seed * 31 + i, depth - 1) : 1;
    return sum;
}

static void *make_child(uint64_t seed, int depth, bool is_inner, enum mood mood, struct mag_rand *r)
{
    void *child = is_inner ? (void *)node(seed, depth - 1, mood) : (void *)leaf(seed, mood);
    struct mag_spawn_options big = { .stack_bytes = 256 * 1024 };
    uint32_t                 how = mag_rand_below(r, 8);

    if (how == 0)
        EXPECT(mag_start(child, NULL) == 0);
    else if (how == 1)
        EXPECT(mag_start(child, &big) == 0);
    return child;
}

async_def(long, node, (uint64_t, seed), (int, depth), (enum mood, mood))
{
    struct mag_rand r = stress_rand(seed);
    bool            is_inner[WIDTH], collects = mag_rand_below(&r, 3) == 0;
    void           *children[WIDTH];
    long            values[WIDTH] = { 0 }, sum = 0;
    int             rcs[WIDTH], n_failed = 0, rc;
    unsigned        n;

    shape(seed, depth, &n, is_inner);
    for (unsigned i = 0; i < n; i++)
        children[i] = make_child(seed * 31 + i, depth, is_inner[i], mood, &r);
    rc = mag_gather(values, sizeof values[0], children, n,
                    &(struct mag_gather_options){ .limit = mag_rand_below(&r, 5),
                                                  .rcs = collects ? rcs : NULL });
    for (unsigned i = 0; i < n; i++) {
        EXPECT(children[i] == NULL);
        if (collects && rc == 0) {
            EXPECT(rcs[i] == 0 || rcs[i] == FAILURE || rcs[i] == -ECANCELED);
            n_failed += rcs[i] < 0;
        }
        sum += values[i];
    }
    stress_beat();
    EXPECT(rc == 0 || rc == FAILURE || rc == -ECANCELED);
    EXPECT(mood == FAILS || rc == 0 || rc == -ECANCELED);
    if (rc < 0)
        return rc;
    EXPECT(mood != CALM || (n_failed == 0 && sum == leaves_of(seed, depth)));
    async_return(sum);
}

/* A failing sibling ends sleeps, with and without a stack, and futures are waited for. */
async_future(long, word);

async(long, sleeps_long)
{
    await(mag_sleep(3600 * MAG_SECOND));
    async_return(1);
}

async(long, fails_soon)
{
    await(mag_yield());
    return FAILURE;
}

async(long, says, (struct word *, w))
{
    await(mag_yield());
    EXPECT(future_set(w, 5) == 0);
    async_return(2);
}

static int n_mixed; /* begun, and how far the latest is */
static int step;

async(void, mixed, (int, way))
{
    struct word *w = word();
    long         values[3];

    step = 0;
    if (way & 1) {
        gather(values, says(w), w, spawn(fails_soon()), (.rcs = (int[3]){ 0 }));
    } else {
        EXPECT(gather_rc(values, w, says(w)) == 0 && values[0] == 5 && values[1] == 2);
    }
    step = 1;
    EXPECT(gather_rc(NULL, sleeps_long(), mag_sleep_co(3600 * MAG_SECOND), fails_soon(),
                     spawn(sleeps_long()), spawn(mag_sleep_co(3600 * MAG_SECOND))) == FAILURE);
    step = 2;
    EXPECT(gather_rc(NULL, fails_soon(), mag_sleep_co(3600 * MAG_SECOND), sleeps_long(),
                     (.limit = 2)) == FAILURE);
    return 0;
}

async(void, trees)
{
    for (int i = 0; i < TREES; i++) {
        uint64_t        seed = stress.seed + (uint64_t)i * 1000003;
        struct mag_rand r = stress_rand(seed + 7);
        long            sum = 0;
        int             way = i % 3;
        struct node    *root = node(seed, DEPTH, (enum mood)way);

        if (way == 2) {
            (void)spawn(root);
            if (mag_rand_below(&r, 2))
                stress_spin(mag_rand_below(&r, 100) * MAG_US);
            else
                await(mag_sleep(mag_rand_below(&r, 100) * MAG_US));
            EXPECT(mag_cancel(root) == 0);
        }
        int rc = await_rc(root, &sum);
        EXPECT(way == 0 ? rc == 0 : rc == 0 || rc == FAILURE || rc == -ECANCELED);
        if (way == 0)
            EXPECT(sum == leaves_of(seed, DEPTH));
    }
    for (int i = 0; i < TREES; i++) {
        n_mixed++;
        await(mixed(i));
        stress_beat();
    }
    return 0;
}

static void state(void)
{
    fprintf(stderr, "  %d mixed, step %d\n", n_mixed, step);
}

async(void, nothing)
{
    return 0;
}

int main(void)
{
    struct mag_rt_options o = { .workers = getenv("MAGPIE_WORKERS") ? 0 : 4 };
    int64_t               n_blocks;

    stress_begin("gather", state);
    mag_run(nothing(), NULL);
    n_blocks = mag_mem_live();
    EXPECT(mag_run_with(trees(), NULL, &o) == 0);
    EXPECT(mag_mem_live() == n_blocks);
    return stress_end();
}
