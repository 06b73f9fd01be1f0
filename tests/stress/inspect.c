/* SPDX-License-Identifier: MIT */
/*
 * inspect.c - tasks are looked at while they start, move, await and end
 *
 * On 4 workers a crowd of tasks sleeps, yields, awaits in place and by gather, waits for a
 * mutex, and ends.  Two tasks and a thread outside look at all of them without a pause, and
 * at the stacks of some.  What they are told must make sense, and nothing may be harmed: the
 * crowd's sums are right, and no memory is left.
 */
#include "stress.h"

#include <errno.h>

enum { CROWD = 40, SEEN_MAX = 4096 };

static struct {
    mag_atomic(uint32_t) is_over;
    mag_atomic(uint64_t) n_looks, n_seen, n_stacks;
    struct mag_mutex mutex;
    long locked_sum;
} world;

async(long, leaf, (long, n))
{
    if (n % 3 == 0)
        await(mag_yield());
    else if (n % 3 == 1)
        await(mag_sleep(n % 7 * 100 * MAG_US));
    async_return(n);
}

async(long, chain, (long, n))
{
    if (n == 0)
        async_return(await(leaf(1)));
    async_return(await(chain(n - 1)) + 1);
}

async(long, locks, (long, n))
{
    await(mag_mutex_lock(&world.mutex));
    world.locked_sum += n;
    await(mag_yield());
    mag_mutex_unlock(&world.mutex);
    async_return(n);
}

async(long, member, (long, n), (struct mag_rand, rand))
{
    long sum = 0, r[4];

    do {
        struct leaf *spawned = spawn(leaf(mag_rand_below(&rand, 100)));
        sum += await(chain(mag_rand_below(&rand, 5))) ? 1 : 0;
        gather(r, leaf(1), leaf(2), leaf(3), locks(n));
        EXPECT(r[0] == 1 && r[1] == 2 && r[2] == 3 && r[3] == n);
        (void)await(spawned);
        stress_beat();
    } while (!mag_load_acquire(&world.is_over));
    async_return(sum);
}

/* ---- who looks --------------------------------------------------------------------------- */

static bool is_handle_in(const struct mag_task_info *all, size_t n, const void *handle)
{
    for (size_t i = 0; i < n; i++)
        if (all[i].handle == handle)
            return true;
    return false;
}

static void check(const struct mag_task_info *all, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct mag_task_info *t = &all[i];
        EXPECT(i == 0 || all[i - 1].handle < t->handle);
        EXPECT(t->state <= MAG_TASK_DONE && t->worker <= 4);
        EXPECT((t->state == MAG_TASK_WAITING) <= (t->waiting_for != NULL));
        EXPECT(!t->is_in_place || t->awaited_by != NULL);
        EXPECT(t->awaited_by == NULL || t->is_in_place || is_handle_in(all, n, t->awaited_by));
        EXPECT(t->name[0] != '\0');
    }
    mag_fetch_add(&world.n_looks, 1);
    mag_fetch_add(&world.n_seen, n);
    stress_beat();
}

static void look(struct mag_rt *rt)
{
    struct mag_task_info *all = malloc(SEEN_MAX * sizeof *all);
    size_t n = mag_tasks(rt, all, SEEN_MAX);

    EXPECT(n > 0 && n < SEEN_MAX);
    check(all, n < SEEN_MAX ? n : SEEN_MAX);
    free(all);
}

/* Of somebody who lives on: the stack's text goes nowhere. */
async(void, looker, (void *, target))
{
    for (int i = 0; !mag_load_acquire(&world.is_over); i++) {
        look(NULL);
        if (i % 50 == 0) {
            FILE *nowhere = fopen("/dev/null", "w");
            int rc = mag_print_stack(target, nowhere);
            EXPECT(rc >= 0 || rc == -EBUSY);
            if (i % 100 == 0)
                EXPECT(mag_dump(NULL, nowhere) > 0);
            fclose(nowhere);
            mag_fetch_add(&world.n_stacks, 1);
        }
        await(mag_yield());
    }
    return 0;
}

static void *look_from_outside(void *rt)
{
    struct mag_worker_stats stats;

    while (!mag_load_acquire(&world.is_over)) {
        look(rt);
        for (unsigned i = 1; i <= 4; i++)
            EXPECT(mag_rt_stats(rt, i, &stats) == 0);
    }
    return NULL;
}

async(void, scene)
{
    pthread_t outside;
    struct member *crowd[CROWD];
    struct looker *lookers[2];
    mag_time end = mag_now() + STRESS_SCALE(1500, 2500) * MAG_MS;

    for (long i = 0; i < CROWD; i++)
        crowd[i] = spawn(member(i, stress_rand((uint64_t)i)));
    for (int i = 0; i < 2; i++)
        lookers[i] = spawn(looker(crowd[i]));
    outside = stress_thread(look_from_outside, mag_rt_self());
    while (mag_now() < end)
        await(mag_sleep(10 * MAG_MS));
    mag_store_release(&world.is_over, 1);
    for (int i = 0; i < 2; i++)
        await(lookers[i]);
    for (int i = 0; i < CROWD; i++)
        EXPECT(await(crowd[i]) > 0);
    stress_joined(outside);
    return 0;
}

int main(void)
{
    struct mag_rt_options options = { .workers = 4 };

    stress_begin("inspect", NULL);
    EXPECT(mag_run_with(scene(), NULL, &options) == 0);
    EXPECT(mag_mem_live() == 0);
    printf("%llu looks at %llu tasks, %llu stacks\n", (unsigned long long)world.n_looks,
           (unsigned long long)world.n_seen, (unsigned long long)world.n_stacks);
    return stress_end();
}
