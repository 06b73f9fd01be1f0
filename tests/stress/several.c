/* SPDX-License-Identifier: MIT */
/*
 * several.c - many ends at the same instant, and a cancel or a timeout among them
 *
 * Each of many tasks makes a handful of children that compute, yield, sleep, sleep without
 * a stack, fail, or are futures that another thread sets, and then waits for them in one of
 * the ways of several.h, under a timeout, or while somebody cancels it.  Whatever the
 * outcome, it must be true: what is said to have ended has, each child is yielded once, one
 * racer wins, a callback comes once, what was left alone can be awaited.  Nothing may hang
 * or leak; under ThreadSanitizer nothing may be touched after it was given back.
 */
#include "stress.h"

#include <magpie/several.h>

#include <errno.h>

enum {
    ROUNDS = STRESS_SCALE(12000, 2000), /* of each task that waits */
    WAITERS = 12,
    WORKERS = 4,
    CHILDREN = 6,
    SETTERS = 2, /* threads that set futures */
    FAILURE = -ENOSPC,
};

/* ---- children ------------------------------------------------------------------------ */

async_future(long, word);

/* Futures on their way to a thread that sets them. */
static struct {
    struct mag_spin lock;
    struct word *list[WAITERS * CHILDREN];
    unsigned n;
    mag_atomic(uint32_t) is_over;
} post;

static void send_word(struct word *w)
{
    mag_spin_lock(&post.lock);
    post.list[post.n++] = w;
    mag_spin_unlock(&post.lock);
}

static void *set_words(void *arg)
{
    struct mag_rand r = stress_rand((uint64_t)(uintptr_t)arg);

    while (!mag_load_acquire(&post.is_over)) {
        struct word *w = NULL;
        mag_spin_lock(&post.lock);
        if (post.n)
            w = post.list[--post.n];
        mag_spin_unlock(&post.lock);
        if (w == NULL)
            usleep(20);
        else if (mag_rand_below(&r, 4) == 0)
            EXPECT(mag_future_fail(w, FAILURE) == 0);
        else
            EXPECT(future_set(w, 5) == 0);
    }
    return NULL;
}

async(long, child, (uint32_t, how), (uint32_t, ns))
{
    switch (how % 4) {
    case 0:
        await(mag_yield());
        break;
    case 1:
        await(mag_sleep(ns));
        break;
    case 2:
        stress_spin(ns / 4);
        break;
    default:
        break;
    }
    if (how & 64)
        return FAILURE;
    async_return(5);
}

/* A future in flight must not be given up at the end of the test: so each is awaited. */
static void *make_child(struct mag_rand *r, bool may_be_future)
{
    uint32_t how = mag_rand_below(r, 8);
    struct word *w;

    if (how == 0 && may_be_future) {
        w = word();
        send_word(w);
        return w;
    }
    if (how == 1)
        return mag_sleep_co(mag_rand_below(r, 60) * MAG_US);
    return child(mag_rand_below(r, 128), mag_rand_below(r, 40) * 1000);
}

static bool is_legal(int rc)
{
    return rc == 0 || rc == FAILURE || rc == -ECANCELED;
}

/* Whatever there was, each is awaited in the end. */
static void await_all(void **tasks, size_t n, bool cancels)
{
    for (size_t i = 0; i < n; i++) {
        if (tasks[i] == NULL)
            continue;
        if (cancels)
            (void)mag_cancel(tasks[i]); /* a future says no */
        EXPECT(is_legal(mag_await(tasks[i], NULL, 0)));
    }
}

/* ---- the ways ---------------------------------------------------------------------------- */

static mag_atomic(uint64_t) n_outcomes[8];

static void outcome(unsigned i)
{
    mag_fetch_add(&n_outcomes[i], 1);
    stress_beat();
}

static mag_time some_timeout(struct mag_rand *r)
{
    return mag_rand_below(r, 2) ? MAG_NEVER : (mag_time)mag_rand_below(r, 60) * MAG_US;
}

async(void, in_wait, (uint64_t, seed), (void **, tasks))
{
    struct mag_rand r = stress_rand(seed);
    enum mag_wait_how how = mag_rand_below(&r, 3);
    mag_time timeout = some_timeout(&r);
    bool done[CHILDREN];
    int n_done = 0, rc = mag_wait(tasks, CHILDREN, how, timeout, done);

    if (rc < 0) {
        EXPECT(rc == -ECANCELED);
        outcome(0);
        return rc;
    }
    for (int i = 0; i < CHILDREN; i++) {
        n_done += done[i];
        EXPECT(!done[i] || mag_done(tasks[i]));
    }
    EXPECT(rc == n_done);
    EXPECT(timeout != MAG_NEVER || n_done > 0);
    EXPECT(timeout != MAG_NEVER || how != MAG_ALL_COMPLETED || n_done == CHILDREN);
    outcome(1);
    return 0;
}

async(void, in_completed, (uint64_t, seed), (void **, tasks))
{
    struct mag_rand r = stress_rand(seed);
    unsigned most = mag_rand_below(&r, CHILDREN + 1);
    struct mag_completed c;
    int rc = mag_completed_begin(&c, tasks, CHILDREN);

    EXPECT(rc == 0);
    for (unsigned n = 0; n < most && rc >= 0; n++) {
        void *task = NULL;
        rc = mag_completed_next(&c, &task);
        EXPECT(rc == 1 || rc == -ECANCELED);
        for (int i = 0; i < CHILDREN && rc == 1; i++)
            if (tasks[i] == task)
                tasks[i] = NULL;
        if (rc == 1)
            EXPECT(mag_done(task) && is_legal(mag_await(task, NULL, 0)));
    }
    mag_completed_end(&c);
    outcome(rc < 0 ? 2 : 3);
    return rc < 0 ? rc : 0;
}

async(void, in_race, (uint64_t, seed), (void **, tasks))
{
    size_t winner = 99;
    int rc = mag_race(NULL, 0, tasks, CHILDREN, &winner);

    (void)seed;
    EXPECT(is_legal(rc));
    EXPECT(rc == 0 ? winner < CHILDREN : winner == CHILDREN);
    for (int i = 0; i < CHILDREN; i++)
        EXPECT(tasks[i] == NULL);
    outcome(rc < 0 ? 4 : 5);
    return rc;
}

static void note_done(void *arg, int rc, const void *result)
{
    EXPECT(is_legal(rc));
    EXPECT(rc < 0 || result == NULL || *(const long *)result == 5);
    mag_fetch_sub((mag_atomic(uint32_t) *)arg, 1);
}

async(void, in_callbacks, (uint64_t, seed), (void **, tasks))
{
    mag_atomic(uint32_t) n_left = CHILDREN;
    struct mag_scope shield;

    (void)seed;
    EXPECT(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0); /* n_left is here */
    for (int i = 0; i < CHILDREN; i++) {
        EXPECT(mag_on_done(tasks[i], note_done, &n_left) == 0);
        tasks[i] = NULL;
    }
    while (mag_load_acquire(&n_left) != 0)
        EXPECT(mag_yield() == 0);
    EXPECT(mag_scope_leave(&shield, 0) == 0);
    outcome(6);
    return 0;
}

/* One round: a task waits for the children, and is perhaps cancelled meanwhile. */
static int play_round(struct mag_rand *r, unsigned way)
{
    bool futures = way == 0 || way == 1, cancels = mag_rand_below(r, 2);
    uint64_t seed = stress.seed + mag_rand_below(r, 1 << 30);
    void *tasks[CHILDREN], *waiter;

    for (int i = 0; i < CHILDREN; i++)
        tasks[i] = make_child(r, futures);
    waiter = way == 0   ? (void *)in_wait(seed, tasks)
             : way == 1 ? (void *)in_completed(seed, tasks)
             : way == 2 ? (void *)in_race(seed, tasks)
                        : (void *)in_callbacks(seed, tasks);
    EXPECT(mag_start(waiter, NULL) == 0);
    if (cancels) {
        if (mag_rand_below(r, 2))
            stress_spin(mag_rand_below(r, 40) * MAG_US);
        else
            (void)mag_sleep(mag_rand_below(r, 40) * MAG_US);
        EXPECT(mag_cancel(waiter) == 0);
    }
    EXPECT(is_legal(mag_await(waiter, NULL, 0)));
    await_all(tasks, CHILDREN, mag_rand_below(r, 2));
    return 0;
}

async(void, waiter, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    for (unsigned i = 0; i < ROUNDS; i++)
        play_round(&r, mag_rand_below(&r, 4));
    return 0;
}

async(void, waiters)
{
    struct waiter *all[WAITERS];

    for (uint64_t i = 0; i < WAITERS; i++)
        all[i] = waiter(i);
    gather_n((void *)NULL, all, WAITERS);
    return 0;
}

/* ---- threads outside ------------------------------------------------------------------------ */

enum { JOINERS = 2, JOINS = STRESS_SCALE(10000, 2000) };

static struct mag_rt *rt;

static void join_one(struct mag_rand *r)
{
    struct child *c = child(mag_rand_below(r, 128), mag_rand_below(r, 60) * 1000);
    void *task = c;
    long v = 0;
    int rc;

    EXPECT(mag_submit(rt, c, NULL) == 0);
    if (mag_rand_below(r, 2))
        EXPECT(mag_wait(&task, 1, MAG_ALL_COMPLETED, some_timeout(r), NULL) >= 0);
    rc = mag_join_task(c, some_timeout(r), &v, sizeof v);
    if (rc == -ETIMEDOUT) {
        EXPECT(mag_cancel(c) == 0);
        rc = mag_join_task(c, MAG_NEVER, &v, sizeof v);
    }
    EXPECT(is_legal(rc) && (v == 5) == (rc == 0));
    outcome(7);
}

static void *join_many(void *arg)
{
    struct mag_rand r = stress_rand(100 + (uint64_t)(uintptr_t)arg);

    for (int i = 0; i < JOINS; i++)
        join_one(&r);
    return NULL;
}

static void state(void)
{
    static const char *const names[] = { "wait cancelled", "wait",      "completed cancelled",
                                         "completed",      "race lost", "race won",
                                         "callbacks",      "joins" };

    for (int i = 0; i < 8; i++)
        fprintf(stderr, "  %s: %llu\n", names[i],
                (unsigned long long)mag_load_relaxed(&n_outcomes[i]));
}

int main(void)
{
    struct mag_rt_options o = { .workers = WORKERS };
    pthread_t setters[SETTERS], joiners[JOINERS];
    int64_t n_blocks;

    stress_begin("several", state);
    n_blocks = mag_mem_live();
    EXPECT(mag_rt_new(&rt, &o) == 0);
    for (uintptr_t i = 0; i < SETTERS; i++)
        setters[i] = stress_thread(set_words, (void *)(i + 50));
    for (uintptr_t i = 0; i < JOINERS; i++)
        joiners[i] = stress_thread(join_many, (void *)i);
    EXPECT(mag_rt_run(rt, waiters(), NULL) == 0);
    for (int i = 0; i < JOINERS; i++)
        stress_joined(joiners[i]);
    mag_store_release(&post.is_over, 1);
    for (int i = 0; i < SETTERS; i++)
        stress_joined(setters[i]);
    mag_rt_free(rt);
    EXPECT(mag_mem_live() == n_blocks);
    for (int i = 0; i < 8; i++)
        EXPECT(n_outcomes[i] > 0);
    return stress_end();
}
