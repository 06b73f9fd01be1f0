/* SPDX-License-Identifier: MIT */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H
/*
 * harness.h - what a bench is, and how one row of the table is measured
 *
 * A bench is a constant that describes itself and has one function, `run', which does
 * the work n times over and says what an operation cost.  The harness makes the
 * runtime, chooses n, warms up and repeats; the bench takes the time itself, so that
 * what it has to prepare stays outside of the measured part.
 */
#include <magpie/base.h>

#include <stdbool.h>
#include <stdint.h>

enum {
    BENCH_METRICS_MAX = 3,
    BENCH_RUNS_MAX = 1000,
    BENCH_WORKERS_MAX = 256,
};

/* One thing that a bench measures; less is better for all of them. */
struct bench_metric {
    const char *name; /* as in the table and in JSON                        */
    const char *unit; /* "ns", "us", "ms" or "B"; NULL ends the list        */
};

struct bench {
    const char *name;
    const char *what;                              /* one operation, for --list      */
    struct bench_metric metric[BENCH_METRICS_MAX]; /* what value[i] of a run is      */
    uint64_t n_fixed;                              /* 0: n is scaled to the time     */
    unsigned runs_max;                             /* 0: as many as asked for        */
    bool is_single;                                /* by default at one worker only  */
    bool is_apart;                                 /* each run in its own process    */

    /* A sentence on why it cannot run with so many workers here, or NULL; may be NULL. */
    const char *(*why_not)(unsigned workers);

    /*
     * Does the work `n' times, in a task, and stores what an operation took to
     * value[0], value[1]...  Returns 0, -EBADMSG if an answer was wrong, or what failed.
     */
    int (*run)(uint64_t n, double *value);
};

/* The measured values of one bench with one number of workers. */
struct bench_samples {
    unsigned n;                                      /* runs                    */
    double value[BENCH_METRICS_MAX][BENCH_RUNS_MAX]; /* of each metric, each run */
};

/* Nanoseconds since `start', for each of n operations. */
double bench_ns_each(mag_time start, uint64_t n);

/*
 * Called before each run, outside of what is timed: number `run' of `runs', 0 for the
 * warm-up.  With `runs' 0 nothing is being run any more.
 */
typedef void bench_progress(const struct bench *bench, unsigned workers, unsigned run,
                            unsigned runs);

/*
 * Measures a bench on a runtime of so many workers, `runs' times, after a warm-up.
 * Returns 0 or the error, with a sentence on standard error.
 */
int bench_measure(const struct bench *bench, unsigned workers, unsigned runs,
                  bench_progress *progress, struct bench_samples *out);

/* The benches, one in each file, in the order of the table. */
extern const struct bench bench_switch;
extern const struct bench bench_fib;
extern const struct bench bench_fib_generic;
extern const struct bench bench_spawn;
extern const struct bench bench_skynet;
extern const struct bench bench_gather;
extern const struct bench bench_gather_yield;
extern const struct bench bench_pingpong;
extern const struct bench bench_event;
extern const struct bench bench_mutex;
extern const struct bench bench_mutex_contended;
extern const struct bench bench_group;
extern const struct bench bench_timeout;
extern const struct bench bench_nqueens;
extern const struct bench bench_queue;
extern const struct bench bench_queue_nn;
extern const struct bench bench_wake;
extern const struct bench bench_million_fiber;
extern const struct bench bench_million_sleep;

#endif
