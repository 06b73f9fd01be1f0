/* SPDX-License-Identifier: MIT */
/*
 * gen.c - generators that are handed from task to task and from worker to worker
 *
 * Each round makes a tower of generators, each of which iterates the one below, yields what
 * it gets, suspends now and then in various ways, and holds a resource.  Its items are taken
 * by several tasks in turn, on whatever worker, some of which are cancelled or run out of
 * time while they wait.  No item may be lost, doubled or out of order; the tower ends, or is
 * closed at some item; and then every resource has been given back.  Between rounds nothing
 * is open, at the end nothing has leaked.
 */
#include "stress.h"

enum {
    ROUNDS = STRESS_SCALE(600, 60),
    TASKS = 8,
    ITEMS = 60,
};

static mag_atomic(int32_t) n_open;
static mag_atomic(uint64_t) n_items, n_cancelled, n_broken, n_late, n_ended;

struct held {
    int is_held;
};

static int held_enter(struct held *h)
{
    h->is_held = 1;
    mag_fetch_add(&n_open, 1);
    return 0;
}

static void held_exit(struct held *h)
{
    EXPECT(h->is_held == 1);
    EXPECT(mag_yield() == 0); /* shielded */
    mag_fetch_sub(&n_open, 1);
}

async_resource(held)

/* Perhaps suspends. */
static int dawdle(struct mag_rand *r)
{
    switch (mag_rand_below(r, 16)) {
    case 0: return mag_yield();
    case 1: return mag_sleep(mag_rand_below(r, 40) * MAG_US);
    case 2: stress_spin(mag_rand_below(r, 4) * MAG_US); return 0;
    case 3: return mag_checkpoint();
    default: return 0;
    }
}

async_gen(int, tower, (uint64_t, seed), (int, height))
{
    struct mag_rand r = stress_rand(seed);

    async_with(held, h) {
        if (height == 0) {
            for (int i = 1; i <= ITEMS; i++) {
                await(dawdle(&r));
                yield(i);
            }
        } else {
            async_for(int, i, tower(seed * 31 + 1, height - 1)) {
                await(dawdle(&r));
                yield(i);
                await(dawdle(&r));
            }
        }
    }
    return 0;
}

/* The tower, and the last item that somebody has got. */
struct shared {
    struct tower *gen;
    int last;
};

/* Takes some items: 1 there are more, 0 the end, or why not. */
async(int, takes, (struct shared *, s), (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    int             n = 1 + (int)mag_rand_below(&r, 10), v = 0, rc = 1;

    while (n-- > 0 && rc == 1) {
        await(dawdle(&r));
        rc = mag_gen_next(s->gen, &v);
        if (rc == 1) {
            EXPECT(v == s->last + 1);
            s->last = v;
            mag_fetch_add(&n_items, 1);
        }
    }
    if (rc < 0)
        return rc;
    async_return(rc);
}

async(void, one_round, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    struct shared   s = { tower(seed, (int)mag_rand_below(&r, 3)), 0 };
    int             close_at = (int)mag_rand_below(&r, 2 * ITEMS), more = 1, rc = 0;

    while (rc == 0 && more && s.last < close_at) {
        struct takes *t = takes(&s, mag_rand_below(&r, 1u << 30));
        unsigned      way = mag_rand_below(&r, 24);
        stress_beat();
        if (way == 0) { /* out of time */
            rc = wait_for(t, mag_rand_below(&r, 30) * MAG_US, &more);
        } else if (way < 8) {
            rc = await_rc(t, &more);
        } else {
            t = way < 16 ? spawn(t)
                         : spawn_opts(t, .worker = 1 + mag_rand_below(&r, mag_rt_workers(
                                                                              mag_rt_self())));
            if (way == 23) {
                stress_spin(mag_rand_below(&r, 20) * MAG_US);
                mag_cancel(t);
            }
            rc = await_rc(t, &more);
        }
        EXPECT(rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT);
    }
    mag_fetch_add(rc == -ECANCELED ? &n_cancelled : rc == -ETIMEDOUT ? &n_late
                  : more ? &n_broken : &n_ended, 1);
    EXPECT(rc < 0 || more || s.last == ITEMS);
    rc = mag_gen_close(s.gen);
    EXPECT(rc == 0);
    return 0;
}

async(void, all)
{
    struct one_round *rounds[TASKS];
    uint64_t      seed = 1;

    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < TASKS; k++)
            rounds[k] = one_round(seed++);
        gather_n(NULL, rounds, TASKS);
        EXPECT(mag_load_acquire(&n_open) == 0);
    }
    return 0;
}

static void state(void)
{
    fprintf(stderr, "open %d, items %llu\n", n_open, (unsigned long long)n_items);
}

int main(void)
{
    struct mag_rt_options options = { .workers = 4 };

    stress_begin("gen", state);
    EXPECT(mag_run_with(all(), NULL, &options) == 0);
    EXPECT(mag_mem_live() == 0);
    printf("%llu items; towers: %llu ended, %llu closed, %llu cancelled, %llu late\n",
           (unsigned long long)n_items, (unsigned long long)n_ended, (unsigned long long)n_broken,
           (unsigned long long)n_cancelled, (unsigned long long)n_late);
    EXPECT(n_ended && n_broken && n_cancelled && n_late);
    return stress_end();
}
