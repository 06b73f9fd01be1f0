/* SPDX-License-Identifier: MIT */
/*
 * submit.c - foreign threads and a runtime that steals
 *
 * Several plain threads hand coroutines to one runtime and await, cancel, detach or
 * close them, in all orders and delays, also many at a time; tasks inside spawn and
 * steal meanwhile; coroutines are made in one thread and awaited in another; futures
 * are set outside and awaited inside, and the other way round.
 */
#include "stress.h"

#include <errno.h>

enum {
    THREADS = 3,
    ROUNDS = STRESS_SCALE(8000, 1200),
    MANY = 30,
};

static struct mag_rt *rt;
static mag_atomic(uint64_t) n_begun, n_ended;

async(int, work, (uint64_t, seed), (int, depth))
{
    struct mag_rand r = stress_rand(seed);
    struct work    *children[4];
    unsigned        n = depth > 0 ? mag_rand_below(&r, 4) : 0;
    int             sum = 1, rc = 0;

    mag_fetch_add(&n_begun, 1);
    for (unsigned i = 0; i < n; i++)
        children[i] = spawn(work(seed * 5 + i, depth - 1));
    if (mag_rand_below(&r, 4) == 0)
        rc = mag_sleep(mag_rand_below(&r, 40) * MAG_US);
    else if (mag_rand_below(&r, 4) == 0)
        rc = mag_yield();
    for (unsigned i = 0; i < n; i++) {
        int value = 0, child_rc;
        if (i == 3) {
            EXPECT(mag_detach(children[i]) == 0);
            continue;
        }
        child_rc = mag_await(children[i], &value, sizeof value);
        EXPECT(child_rc == 0 || child_rc == -ECANCELED);
        sum += value;
        rc = rc < 0 ? rc : child_rc;
    }
    mag_fetch_add(&n_ended, 1);
    stress_beat();
    if (rc < 0)
        return rc;
    async_return(sum);
}

async_future(int, word);

async(int, awaits_word, (struct word *, w))
{
    async_return(await(w));
}

static void *awaited_by_another(void *task)
{
    int value = 0, rc = mag_await(task, &value, sizeof value);

    EXPECT(rc == 0 && value >= 1);
    return NULL;
}

static void one(struct mag_rand *r, uint64_t seed)
{
    struct work *w = work(seed, 2);
    struct word *f;
    int          value = 0, rc;

    EXPECT(mag_submit(rt, w, NULL) == 0);
    if (mag_rand_below(r, 3) == 0)
        stress_spin(mag_rand_below(r, 60) * MAG_US);
    switch (mag_rand_below(r, 6)) {
    case 0:
        EXPECT(mag_detach(w) == 0);
        break;
    case 1:
        EXPECT(mag_cancel(w) == 0);
        rc = mag_await(w, &value, sizeof value);
        EXPECT(rc == -ECANCELED || (rc == 0 && value >= 1));
        break;
    case 2:
        EXPECT(mag_close(w) == 0);
        break;
    case 3:
        (void)stress_joined(stress_thread(awaited_by_another, w));
        break;
    case 4: /* set from here, awaited there, awaited here */
        EXPECT(mag_detach(w) == 0);
        f = word();
        struct awaits_word *a = awaits_word(f);
        EXPECT(mag_submit(rt, a, NULL) == 0);
        if (mag_rand_below(r, 2))
            stress_spin(mag_rand_below(r, 60) * MAG_US);
        EXPECT(future_set(f, 9) == 0);
        EXPECT(mag_await(a, &value, sizeof value) == 0 && value == 9);
        break;
    default:
        EXPECT(mag_await(w, &value, sizeof value) == 0 && value >= 1);
    }
}

static void many(struct mag_rand *r, uint64_t seed)
{
    struct work *all[MANY];
    int          value;

    for (int i = 0; i < MANY; i++) {
        struct mag_spawn_options o = { .pin = mag_rand_below(r, 2),
                                       .worker = 1 + mag_rand_below(r, mag_rt_workers(rt)) };
        all[i] = work(seed + (uint64_t)i, 1);
        EXPECT(mag_submit(rt, all[i], i % 3 ? NULL : &o) == 0);
    }
    for (int i = MANY - 1; i >= 0; i--)
        EXPECT(mag_await(all[i], &value, sizeof value) == 0);
}

static void *submits(void *arg)
{
    uint64_t        who = (uint64_t)(uintptr_t)arg;
    struct mag_rand r = stress_rand(who);

    for (uint64_t i = 0; i < ROUNDS; i++) {
        if (mag_rand_below(&r, 50) == 0)
            many(&r, who + i * 1000);
        else
            one(&r, who + i * 1000);
        if (mag_rand_below(&r, 16) == 0)
            usleep(mag_rand_below(&r, 200));
    }
    return NULL;
}

/* Keeps the workers busy with each other. */
async(void, churns, (const mag_atomic(uint32_t) *, is_over))
{
    for (uint64_t i = 0; !mag_load_acquire(is_over); i++) {
        EXPECT(await(work(i, 3)) >= 1);
        await(mag_sleep(20 * MAG_US));
    }
    return 0;
}

static void rounds(unsigned workers)
{
    struct mag_rt_options o = { .workers = workers };
    mag_atomic(uint32_t)  is_over = 0;
    pthread_t             threads[THREADS];
    struct churns        *c = churns(&is_over);

    EXPECT(mag_rt_new(&rt, &o) == 0);
    EXPECT(mag_submit(rt, c, NULL) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = stress_thread(submits, (void *)(i + 10));
    for (int i = 0; i < THREADS; i++)
        (void)stress_joined(threads[i]);
    mag_store_seq(&is_over, 1);
    EXPECT(mag_await(c, NULL, 0) == 0);
    mag_rt_free(rt);
    EXPECT(n_begun == n_ended);
}

int main(void)
{
    int64_t n_blocks;

    stress_begin("submit", NULL);
    n_blocks = mag_mem_live();
    if (getenv("MAGPIE_WORKERS")) {
        rounds(0);
    } else {
        rounds(4);
        rounds(1);
    }
    EXPECT(mag_mem_live() == n_blocks);
    printf("submit: %llu tasks\n", (unsigned long long)n_ended);
    return stress_end();
}
