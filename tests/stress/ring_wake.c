/* SPDX-License-Identifier: MIT */
/*
 * ring_wake.c - no wake is lost, however it falls against going to sleep
 *
 * Two threads, each the owner of a ring and an inbox, play ping-pong: who receives
 * the ball pushes it to the other's inbox and wakes it, then looks at its own inbox
 * and sleeps without a deadline.  One lost wake stops both for ever, which the
 * watchdog (the main thread) reports.  In the second part several threads wake one
 * owner at random moments, each after publishing a number that the owner must see.
 */
#include "clock.h"
#include "inbox.h"
#include "ring.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum {
    SCALE = MAG_TSAN || MAG_ASAN ? 10 : 1,
    BALL_ROUNDS = 40000 / SCALE, /* each is two wakes of a sleeper */
    WAKERS = 3,
    WAKES = 200000 / SCALE,
    WATCHDOG_S = 30,
};

struct player {
    struct mag_ring *ring;       /* [main] set before the game */
    struct mag_inbox inbox;      /* [any] */
    struct player *other;        /* [const] */
    mag_atomic(uint32_t) is_ready;
    mag_atomic(uint32_t) is_done;
};

static struct player players[2];
static struct mag_inbox_node ball;
static mag_atomic(uint32_t) n_passes;

static void open_ring(struct player *p)
{
    if (mag_ring_open(&p->ring, NULL) != 0)
        fprintf(stderr, "%s\n", mag_ring_why());
    mag_store_release(&p->is_ready, 1);
    while (!mag_load_acquire(&p->other->is_ready))
        mag_cpu_relax();
}

/* Nobody may wake a ring that may be in close: both meet before. */
static void close_ring(struct player *p)
{
    mag_store_release(&p->is_done, 1);
    while (!mag_load_acquire(&p->other->is_done))
        mag_cpu_relax();
    mag_ring_close(p->ring);
}

static void pass(struct player *to)
{
    mag_inbox_push(&to->inbox, &ball);
    mag_ring_wake(to->ring);
}

static void *play(void *arg)
{
    struct player *p = arg;
    open_ring(p);
    if (p == &players[0])
        pass(p->other);
    uint32_t turns = 0;
    while (turns < BALL_ROUNDS) {
        if (mag_inbox_take(&p->inbox)) {
            turns++;
            mag_fetch_add(&n_passes, 1);
            if (p == &players[1] || turns < BALL_ROUNDS)
                pass(p->other);
        } else if (mag_ring_sleep(p->ring, MAG_NEVER) != 0) {
            return arg;
        }
        mag_ring_reap(p->ring);
    }
    close_ring(p);
    return NULL;
}

/* ---- many wakers ----------------------------------------------------------------- */

static struct player sleeper;
static uint64_t published[WAKERS]; /* plain for the waker, read after the wake */
static mag_atomic(uint32_t) n_wakers_done;

static void *wake_often(void *arg)
{
    uint32_t me = (uint32_t)(uintptr_t)arg;
    while (!mag_load_acquire(&sleeper.is_ready))
        mag_cpu_relax();
    uint32_t random = me + 1;
    for (uint64_t i = 1; i <= WAKES; i++) {
        mag_store_relaxed(&published[me], i); /* relaxed: the wake publishes it */
        mag_ring_wake(sleeper.ring);
        random = random * 1664525 + 1013904223;
        for (uint32_t k = random >> 25; k > 0; k--)
            mag_cpu_relax();
        mag_fetch_add(&n_passes, 1);
    }
    mag_fetch_add(&n_wakers_done, 1);
    return NULL;
}

static void *sleep_often(void *arg)
{
    uint64_t sum = 0;
    if (mag_ring_open(&sleeper.ring, NULL) != 0)
        return arg;
    mag_store_release(&sleeper.is_ready, 1);
    while (sum < (uint64_t)WAKERS * WAKES) {
        if (mag_ring_sleep(sleeper.ring, MAG_NEVER) != 0)
            return arg;
        mag_ring_reap(sleeper.ring);
        sum = 0;
        for (int i = 0; i < WAKERS; i++)
            sum += mag_load_relaxed(&published[i]);
    }
    while (mag_load_acquire(&n_wakers_done) < WAKERS)
        mag_cpu_relax();
    mag_ring_close(sleeper.ring);
    return NULL;
}

/* ---- main -------------------------------------------------------------------------- */

/* Joins, and gives up where nothing moves for WATCHDOG_S. */
static void join_all(pthread_t *t, int n, mag_atomic(uint32_t) *n_left)
{
    uint32_t last = 0;
    for (int idle = 0; mag_load_acquire(n_left) > 0; idle++) {
        usleep(10000);
        uint32_t now = mag_load_relaxed(&n_passes);
        idle = now != last ? 0 : idle;
        last = now;
        if (idle > WATCHDOG_S * 100) {
            fprintf(stderr, "ring_wake: a wake was lost after %u\n", now);
            _exit(1);
        }
    }
    for (int i = 0; i < n; i++)
        pthread_join(t[i], NULL);
}

struct job {
    void *(*fn)(void *);
    void *arg;
};

static mag_atomic(uint32_t) n_running;
static mag_atomic(uint32_t) n_failed;

static void *run(void *arg)
{
    struct job *job = arg;
    if (job->fn(job->arg) != NULL)
        mag_fetch_add(&n_failed, 1);
    mag_fetch_sub(&n_running, 1);
    return NULL;
}

static void run_all(struct job *jobs, int n, const char *what)
{
    pthread_t t[WAKERS + 1];
    mag_time begin = mag_clock_now();
    n_passes = 0;
    mag_store_release(&n_running, (uint32_t)n);
    for (int i = 0; i < n; i++)
        pthread_create(&t[i], NULL, run, &jobs[i]);
    join_all(t, n, &n_running);
    double ns = (double)(mag_clock_now() - begin) / (n_passes ? n_passes : 1);
    printf("ring_wake: %s: %u wakes, %.0f ns each, %u failed\n", what, n_passes, ns, n_failed);
}

int main(void)
{
    struct mag_ring *probe;
    if (mag_ring_open(&probe, NULL) != 0) {
        printf("skipped: %s\n", mag_ring_why());
        return 77;
    }
    mag_ring_close(probe);

    for (int i = 0; i < 2; i++) {
        mag_inbox_init(&players[i].inbox);
        players[i].other = &players[1 - i];
    }
    struct job ball_jobs[] = {{play, &players[0]}, {play, &players[1]}};
    run_all(ball_jobs, 2, "ping-pong");

    struct job wake_jobs[WAKERS + 1] = {{sleep_often, &sleeper}};
    for (uintptr_t i = 0; i < WAKERS; i++)
        wake_jobs[i + 1] = (struct job){wake_often, (void *)i};
    run_all(wake_jobs, WAKERS + 1, "many wakers");
    return n_failed != 0;
}
