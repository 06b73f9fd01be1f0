/* SPDX-License-Identifier: MIT */
/*
 * cancel_race.c - a cancel that meets the end of what it cancels
 *
 * For each way to block: a task blocks in it, and at about the same moment somebody
 * cancels the task and somebody brings the answer, from other workers or threads.
 * There must be exactly one outcome, and it must be true: a byte that a cancelled read
 * did not take is still in the pipe, a call that was cancelled has not run, whoever has
 * slept to the end was late, not early.  Nothing may hang or leak.
 */
#include "stress.h"
#include "wait.h"

#include <errno.h>
#include <sys/ioctl.h>

enum {
    RACES = STRESS_SCALE(20000, 2500), /* of each way */
    WORKERS = 3,
    SPREAD_NS = 30 * 1000,
};

static const char *way_name = "";
static mag_atomic(uint64_t) n_cancelled, n_completed;

static int outcome(int rc)
{
    EXPECT(rc == 0 || rc == -ECANCELED);
    mag_fetch_add(rc == 0 ? &n_completed : &n_cancelled, 1);
    stress_beat();
    return rc;
}

static mag_time any_delay(struct mag_rand *r)
{
    return mag_rand_below(r, SPREAD_NS);
}

/* Either computes or sleeps for a moment. */
static void pass_time(struct mag_rand *r)
{
    mag_time ns = any_delay(r);

    if (mag_rand_below(r, 2))
        stress_spin(ns);
    else
        (void)mag_sleep(ns);
}

/* ---- the ways to block ------------------------------------------------------------------ */

async(void, in_sleep, (mag_time, ns))
{
    mag_time until = mag_now() + ns;
    int rc = outcome(mag_sleep(ns));

    EXPECT(rc < 0 || mag_now() >= until);
    return rc;
}

async(int, answers, (mag_time, ns))
{
    int rc = mag_sleep(ns);

    if (rc < 0)
        return rc;
    async_return(77);
}

/* A task that runs by itself; a cancel is passed on to it. */
async(void, in_await, (mag_time, ns))
{
    struct answers *a = spawn(answers(ns));
    int value = 0, rc = 0;

    if (ns & 1)
        rc = mag_yield();
    rc = mag_await(a, &value, sizeof value);
    EXPECT((value == 77) == (rc == 0));
    return outcome(rc);
}

async_future(int, answer);

async(void, in_future, (struct answer *, f), (bool *, has_begun))
{
    int value = 0, rc;

    *has_begun = true;
    rc = mag_await(f, &value, sizeof value);

    EXPECT((value == 5) == (rc == 0));
    return outcome(rc);
}

async(void, sets_future, (struct answer *, f), (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    pass_time(&r);
    EXPECT(future_set(f, 5) == 0);
    return 0;
}

static int ends[2];

static int n_in_pipe(void)
{
    int n = -1;

    EXPECT(ioctl(ends[0], FIONREAD, &n) == 0);
    return n;
}

async(int, in_read)
{
    char byte = 0;
    struct mag_op op = {
        .code = MAG_OP_READ, .fd = ends[0], .addr = &byte, .len = 1, .offset = MAG_OP_OFFSET_CURRENT
    };
    int rc = mag_wait_op(&op);

    EXPECT(rc == 1 || rc == -ECANCELED);
    EXPECT((byte == 'x') == (rc == 1));
    outcome(rc == 1 ? 0 : rc);
    async_return(rc == 1);
}

async(void, writes, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    pass_time(&r);
    EXPECT(write(ends[1], "x", 1) == 1);
    return 0;
}

struct call {
    mag_atomic(uint32_t) n_runs;
    mag_time ns;
};

static int called(void *arg)
{
    struct call *c = arg;

    stress_spin(c->ns);
    mag_fetch_add(&c->n_runs, 1);
    return 0;
}

/* The call's memory ends with the task's stack: an early return would show. */
async(void, in_thread, (mag_time, ns))
{
    struct call c = { .ns = ns };
    int rc = mag_to_thread(called, &c);

    EXPECT((mag_load_acquire(&c.n_runs) == 1) == (rc == 0));
    return outcome(rc);
}

async(void, in_gather, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    struct answers *all[6];
    int values[6] = { 0 };
    int n_values = 0, rc;

    for (int i = 0; i < 6; i++)
        all[i] = i % 3 == 2 ? spawn(answers(any_delay(&r))) : answers(any_delay(&r));
    rc = mag_gather(values, sizeof values[0], (void **)all, 6,
                    &(struct mag_gather_options){ .limit = mag_rand_below(&r, 4) });
    for (int i = 0; i < 6; i++) {
        EXPECT(values[i] == 0 || values[i] == 77);
        n_values += values[i] == 77;
    }
    EXPECT(rc < 0 || n_values == 6);
    return outcome(rc);
}

/* Without a stack. */
static void *in_leaf(mag_time ns)
{
    return mag_sleep_co(ns);
}

/* ---- races --------------------------------------------------------------------------------- */

/* Starts it somewhere, cancels it at some time, awaits it. */
static int cancel_at_some_time(void *task, struct mag_rand *r, void *value, size_t bytes)
{
    EXPECT(mag_start(task, NULL) == 0);
    if (mag_rand_below(r, 8))
        pass_time(r);
    EXPECT(mag_cancel(task) == 0);
    if (mag_rand_below(r, 8) == 0)
        EXPECT(mag_cancel(task) == 0);
    return mag_await(task, value, bytes);
}

async(void, race_sleep, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    (void)cancel_at_some_time(in_sleep(any_delay(&r)), &r, NULL, 0);
    return 0;
}

async(void, race_leaf, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    (void)outcome(cancel_at_some_time(in_leaf(any_delay(&r)), &r, NULL, 0));
    return 0;
}

async(void, race_await, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    (void)cancel_at_some_time(in_await(any_delay(&r)), &r, NULL, 0);
    return 0;
}

async(void, race_future, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    struct answer *f = answer();
    struct sets_future *s = spawn(sets_future(f, seed + 1));
    bool has_begun = false;

    (void)cancel_at_some_time(in_future(f, &has_begun), &r, NULL, 0);
    if (!has_begun)
        EXPECT(await(f) == 5);
    await(s);
    return 0;
}

async(void, race_read, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    struct writes *w = spawn(writes(seed + 1));
    int was_read = 0;
    char byte;

    (void)cancel_at_some_time(in_read(), &r, &was_read, sizeof was_read);
    await(w);
    EXPECT(n_in_pipe() == !was_read);
    if (!was_read)
        EXPECT(read(ends[0], &byte, 1) == 1);
    return 0;
}

async(void, race_thread, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    (void)cancel_at_some_time(in_thread(any_delay(&r)), &r, NULL, 0);
    return 0;
}

async(void, race_gather, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);

    (void)cancel_at_some_time(in_gather(seed + 1), &r, NULL, 0);
    return 0;
}

/* ---- all --------------------------------------------------------------------------------------- */

#define RUN(way, name, lanes) \
    do { \
        way_name = name; \
        mag_store_seq(&n_cancelled, 0); \
        mag_store_seq(&n_completed, 0); \
        for (int i_ = 0; i_ < RACES; i_ += (lanes)) { \
            struct way *all_[8]; \
            for (int k_ = 0; k_ < (lanes); k_++) \
                all_[k_] = spawn(way((uint64_t)(i_ + k_) * 4)); \
            for (int k_ = 0; k_ < (lanes); k_++) \
                await(all_[k_]); \
        } \
        printf("cancel_race: %s: %llu completed, %llu cancelled\n", name, \
               (unsigned long long)n_completed, (unsigned long long)n_cancelled); \
    } while (0)

async(void, all_races)
{
    RUN(race_sleep, "sleep", 4);
    RUN(race_leaf, "sleep without a stack", 4);
    RUN(race_await, "await", 4);
    RUN(race_future, "future", 8);
    RUN(race_read, "read", 1);
    RUN(race_thread, "thread", 4);
    RUN(race_gather, "gather", 4);
    return 0;
}

static void state(void)
{
    fprintf(stderr, "  %s: %llu completed, %llu cancelled\n", way_name,
            (unsigned long long)n_completed, (unsigned long long)n_cancelled);
}

async(void, nothing)
{
    return 0;
}

int main(void)
{
    struct mag_rt_options o = { .workers = getenv("MAGPIE_WORKERS") ? 0 : WORKERS };
    int64_t n_blocks;

    stress_begin("cancel_race", state);
    mag_run(nothing(), NULL);
    n_blocks = mag_mem_live();
    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    EXPECT(mag_run_with(all_races(), NULL, &o) == 0);
    EXPECT(mag_mem_live() == n_blocks);
    close(ends[0]);
    close(ends[1]);
    return stress_end();
}
