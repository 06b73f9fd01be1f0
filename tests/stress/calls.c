/* SPDX-License-Identifier: MIT */
/*
 * calls.c - callbacks, variables, and an embedded runtime that everybody talks to
 *
 * One runtime is stepped by the main thread, which polls its descriptor and nothing else: if
 * a wake were lost, it would wait for ever.  Another one has workers.  Threads submit to both,
 * want callbacks of both, and cancel some at whatever moment; tasks of each submit to the
 * other.  Every callback runs once, or its cancel says that it will not; every task finds the
 * variable with which it began, whatever the others set.
 */
#include "stress.h"

#include <magpie/vars.h>

#include <errno.h>
#include <poll.h>

enum {
    ROUNDS = STRESS_SCALE(1500, 200),
    THREADS = 3,
};

static struct mag_rt *rts[2]; /* embedded, with workers */
static struct mag_var who = { "who", NULL };
static mag_atomic(uint32_t) n_threads_left = THREADS;

struct caller {
    uint64_t id;
    mag_atomic(uint32_t) n_run;
    uint32_t n_wanted, n_cancelled, n_late;
};

static void count(void *arg)
{
    mag_fetch_add(&((struct caller *)arg)->n_run, 1);
    stress_beat();
}

async_future(int, word);

static void set_later(void *f)
{
    EXPECT(future_set((struct word *)f, 5) == 0);
}

async(int, leaf, (uint64_t, seed))
{
    uintptr_t begun = (uintptr_t)mag_var_get(&who);

    EXPECT(mag_var_set(&who, (void *)(uintptr_t)seed) == 0);
    if (seed & 1)
        await(mag_yield());
    if (seed & 2)
        await(mag_sleep(seed % 50 * MAG_US));
    EXPECT((uintptr_t)mag_var_get(&who) == (uintptr_t)seed);
    async_return(begun != 0);
}

async(int, job, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    struct mag_rt *other = mag_rt_self() == rts[0] ? rts[1] : rts[0];
    struct word *w = word();
    struct leaf *here, *there;

    EXPECT(mag_var_get(&who) == NULL);
    EXPECT(mag_var_set(&who, (void *)1) == 0);
    here = spawn(leaf(2 + mag_rand_below(&r, 1000)));
    there = leaf(2 + mag_rand_below(&r, 1000));
    EXPECT(mag_submit(other, there, NULL) == 0);
    EXPECT(mag_var_set(&who, (void *)2) == 0);
    EXPECT(mag_rt_call(mag_rand_below(&r, 2) ? other : mag_rt_self(),
                       mag_rand_below(&r, 2) ? 0 : mag_now() + 20 * MAG_US, set_later, w,
                       NULL) == 0);
    EXPECT(await(here) == 1);
    EXPECT(await(w) == 5);
    EXPECT(await(there) == 1);
    EXPECT(mag_var_get(&who) == (void *)2);
    async_return(7);
}

static void want_callbacks(struct caller *c, struct mag_rand *r)
{
    for (unsigned i = mag_rand_below(r, 4); i > 0; i--) {
        struct mag_rt *rt = rts[mag_rand_below(r, 2)];
        mag_time when = mag_rand_below(r, 2) ? 0 : mag_now() + mag_rand_below(r, 40) * MAG_US;
        struct mag_call *call = NULL;
        bool is_cancelled = mag_rand_below(r, 2);

        EXPECT(mag_rt_call(rt, when, count, c, is_cancelled ? &call : NULL) == 0);
        c->n_wanted++;
        stress_spin(mag_rand_below(r, 30) * MAG_US);
        if (!is_cancelled)
            continue;
        if (mag_call_cancel(call) == 0)
            c->n_cancelled++;
        else
            c->n_late++;
    }
}

static void *caller(void *arg)
{
    struct caller *c = arg;
    struct mag_rand r = stress_rand(c->id);

    for (int i = 0; i < ROUNDS && stress.n_wrong < 5; i++) {
        struct job *j = job(c->id * 100000 + (uint64_t)i);
        int value = 0;

        EXPECT(mag_submit(rts[mag_rand_below(&r, 2)], j, NULL) == 0);
        want_callbacks(c, &r);
        EXPECT(mag_await(j, &value, sizeof value) == 0 && value == 7);
        stress_beat();
    }
    mag_fetch_sub(&n_threads_left, 1);
    return NULL;
}

/* Only what the descriptor says makes it step. */
static void host(void)
{
    struct pollfd p = { .fd = mag_rt_fd(rts[0]), .events = POLLIN };

    while (mag_load_acquire(&n_threads_left)) {
        if (poll(&p, 1, 100) == 1)
            EXPECT(mag_rt_step(rts[0], 0) >= 0);
    }
}

/* Those that are due later, too; a runtime that ends drops them. */
static bool have_run(const struct caller *callers)
{
    for (int i = 0; i < THREADS; i++)
        if (mag_load_acquire(&callers[i].n_run) + callers[i].n_cancelled < callers[i].n_wanted)
            return false;
    return true;
}

int main(void)
{
    struct caller callers[THREADS] = { { 0 } };
    pthread_t threads[THREADS];
    int64_t n_blocks = mag_mem_live();

    stress_begin("calls", NULL);
    EXPECT(mag_rt_new(&rts[0], &(struct mag_rt_options){ .embedded = true }) == 0);
    EXPECT(mag_rt_new(&rts[1], &(struct mag_rt_options){ .workers = 3 }) == 0);
    for (int i = 0; i < THREADS; i++) {
        callers[i].id = (uint64_t)i + 1;
        threads[i] = stress_thread(caller, &callers[i]);
    }
    host();
    for (int i = 0; i < THREADS; i++)
        (void)stress_joined(threads[i]);
    for (int i = 0; i < 4000 && !have_run(callers); i++)
        EXPECT(mag_rt_step(rts[0], 5 * MAG_MS) >= 0);
    for (int i = 0; i < 2; i++)
        mag_rt_free(rts[i]);
    for (int i = 0; i < THREADS; i++)
        EXPECT(callers[i].n_run + callers[i].n_cancelled == callers[i].n_wanted);
    EXPECT(mag_mem_live() == n_blocks);
    return stress_end();
}
