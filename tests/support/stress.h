/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_STRESS_H
#define MAG_TESTS_STRESS_H
/*
 * stress.h - what the stress programs share: a watchdog, checks that may fail in any
 * thread, chance, and a clock that a busy machine does not falsify
 *
 * A stress program calls stress_begin, beats whenever it gets on, and returns
 * stress_end.  If the beats stop for long, something hangs: the watchdog prints what
 * the program knows of itself and ends it with 1.  Chance is seeded by
 * STRESS_SEED in the environment, or by the time; a failure prints the seed.
 * STRESS_PATIENCE is the seconds without a beat; STRESS_WAIT has a hang wait for a
 * debugger.
 */
#include "atomic.h"
#include "clock.h"
#include "mem.h"
#include "rand.h"
#include "slab.h"

#include <magpie/async.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STRESS_IS_SLOW = MAG_TSAN || MAG_ASAN };

/* A count for an ordinary build, and a smaller one for the sanitizers. */
#define STRESS_SCALE(native, slow) (STRESS_IS_SLOW ? (slow) : (native))

static struct {
    const char *name;
    void (*state)(void);         /* prints what the program knows, after a hang */
    uint64_t seed;
    mag_time begun;
    mag_atomic(uint64_t) beats;
    mag_atomic(uint32_t) n_wrong;
    mag_atomic(uint32_t) is_over;
    pthread_t watchdog;
} stress;

static inline void stress_beat(void)
{
    mag_fetch_add(&stress.beats, 1);
}

static inline void stress_wrong(const char *what, const char *file, int line)
{
    if (mag_fetch_add(&stress.n_wrong, 1) < 10)
        fprintf(stderr, "%s: wrong: %s (%s:%d), STRESS_SEED=%llu\n", stress.name, what, file, line,
                (unsigned long long)stress.seed);
}

/* In any thread or task; goes on after a failure. */
#define EXPECT(cond) ((cond) ? (void)0 : stress_wrong(#cond, __FILE__, __LINE__))

static inline void *stress_watch(void *arg)
{
    const char *text = getenv("STRESS_PATIENCE");
    const int patience_s = text ? atoi(text) : STRESS_SCALE(20, 60);
    uint64_t last = 0, now;

    for (int quiet = 0; !mag_load_acquire(&stress.is_over); quiet++) {
        usleep(10000);
        now = mag_load_relaxed(&stress.beats);
        quiet = now != last ? 0 : quiet;
        last = now;
        if (quiet < patience_s * 100)
            continue;
        fprintf(stderr, "%s: hangs after %llu beats, STRESS_SEED=%llu\n", stress.name,
                (unsigned long long)now, (unsigned long long)stress.seed);
        if (stress.state)
            stress.state();
        while (getenv("STRESS_WAIT")) /* for a debugger */
            pause();
        _exit(1);
    }
    return arg;
}

static inline void stress_begin(const char *name, void (*state)(void))
{
    const char *seed = getenv("STRESS_SEED");

    stress.name = name;
    stress.state = state;
    stress.begun = mag_clock_now();
    stress.seed = seed ? strtoull(seed, NULL, 10) : (uint64_t)stress.begun;
    EXPECT(pthread_create(&stress.watchdog, NULL, stress_watch, NULL) == 0);
}

static inline int stress_end(void)
{
    mag_store_release(&stress.is_over, 1);
    pthread_join(stress.watchdog, NULL);
    printf("%s: %s, %.1f s\n", stress.name, stress.n_wrong ? "FAILED" : "ok",
           mag_seconds(mag_clock_now() - stress.begun));
    return stress.n_wrong != 0;
}

/* Chance for one thread or task, which names itself. */
static inline struct mag_rand stress_rand(uint64_t who)
{
    struct mag_rand r;

    mag_rand_init(&r, stress.seed + who * 0x9e3779b97f4a7c15u);
    return r;
}

/* Keeps the processor for a while. */
static inline void stress_spin(mag_time ns)
{
    mag_time end = mag_clock_now() + ns;

    while (mag_clock_now() < end)
        mag_cpu_relax();
}

static inline void *stress_joined(pthread_t t)
{
    void *value = NULL;

    EXPECT(pthread_join(t, &value) == 0);
    return value;
}

static inline pthread_t stress_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;

    if (pthread_create(&t, NULL, fn, arg) != 0)
        abort();
    return t;
}

/* Processor time of the whole process. */
static inline mag_time stress_cpu_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * MAG_SECOND + ts.tv_nsec;
}

static inline int stress_n_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

#endif
