/* SPDX-License-Identifier: MIT */
/*
 * harness.c - warm-up, scaling and repetition: how a row comes to its numbers
 *
 *      bench_measure -> runtime with n workers -> one task: scale, warm up, run, run, ...
 *
 * Each row has a runtime of its own, so that no row inherits stacks, queues or sleeping
 * workers from the one before.  Within the row everything happens in one task: what is
 * measured is a program that is already running, and starting threads is not part of it.
 *
 * A repetition should take about 0.3 s: long against the clock's resolution and a
 * scheduling tick, short enough that seven of them show how the machine wavers.  So n is
 * doubled until a run takes 30 ms, and then scaled.  That is warm-up as well, and one
 * whole repetition follows it which is not counted.
 *
 * Where memory is measured, a run needs a fresh process: pages that the allocator and
 * the stack cache keep from the run before would count as nothing.  The process is a
 * fork(2), which is sound because no runtime, and so no second thread, exists between
 * two rows; the values come back through a pipe.
 *
 * Rejected: the least of many runs as the result, which shows what the machine can do
 * for once; the median is what a user gets, and minimum and maximum stand beside it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#include <magpie/async.h>

enum {
    SCALE_FROM_NS = 30 * 1000 * 1000,
    SCALE_TO_NS = 300 * 1000 * 1000,
};

/* One row being measured. */
struct row {
    const struct bench *bench;
    unsigned workers;
    unsigned runs;
    bench_progress *progress; /* NULL in the process of a single run */
    struct bench_samples *out;
};

double bench_ns_each(mag_time start, uint64_t n)
{
    return (double)(mag_now() - start) / (double)n;
}

static void tell(const struct row *r, unsigned run, unsigned runs)
{
    if (r->progress != NULL)
        r->progress(r->bench, r->workers, run, runs);
}

/* ---- inside the runtime ------------------------------------------------------- */

/* Finds the n with which one run takes about SCALE_TO_NS. */
static int scale(const struct bench *bench, uint64_t *n)
{
    double ignored[BENCH_METRICS_MAX];
    mag_time took = 0;

    if (bench->n_fixed != 0) {
        *n = bench->n_fixed;
        return 0;
    }
    *n = 1;
    for (;;) {
        mag_time start = mag_now();
        int rc = bench->run(*n, ignored);

        took = mag_now() - start;
        if (rc < 0)
            return rc;
        if (took >= SCALE_FROM_NS)
            break;
        *n *= 2;
    }
    *n = (uint64_t)((double)*n * SCALE_TO_NS / (double)took + 0.5);
    if (*n == 0)
        *n = 1;
    return 0;
}

static int run_once(const struct row *r, uint64_t n, unsigned run)
{
    double value[BENCH_METRICS_MAX] = { 0 };

    tell(r, run + 1, r->runs);
    int rc = r->bench->run(n, value);
    for (int i = 0; rc >= 0 && i < BENCH_METRICS_MAX; i++)
        r->out->value[i][run] = value[i];
    return rc;
}

static int measure_row(const struct row *r)
{
    double ignored[BENCH_METRICS_MAX];
    uint64_t n;

    tell(r, 0, r->runs);
    int rc = scale(r->bench, &n);
    if (rc >= 0 && !r->bench->is_apart)
        rc = r->bench->run(n, ignored);
    for (unsigned run = 0; rc >= 0 && run < r->runs; run++)
        rc = run_once(r, n, run);
    return rc;
}

async(void, row_task, (const struct row *, r))
{
    return measure_row(r);
}

/* ---- outside of it ------------------------------------------------------------- */

static int complain(const struct row *r, const char *what, int rc)
{
    tell(r, 0, 0);
    fprintf(stderr, "magpie-bench: %s, workers %u: %s: %s\n", r->bench->name, r->workers, what,
            rc == -EBADMSG ? "wrong result" : mag_err_text(rc));
    return rc;
}

static int measure_here(const struct row *r)
{
    struct mag_rt *rt;
    int rc = mag_rt_new(
        &rt, &(struct mag_rt_options){ .workers = r->workers, .slow_ns = MAG_SECOND * 3600 });

    if (rc < 0)
        return complain(r, mag_rt_why(), rc);
    rc = mag_rt_run(rt, row_task(r), NULL);
    mag_rt_free(rt);
    tell(r, 0, 0);
    return rc < 0 ? complain(r, "failed", rc) : 0;
}

/* The child's half of measure_apart: one run, and its values to the pipe. */
static _Noreturn void child(struct row r, int fd)
{
    double value[BENCH_METRICS_MAX];

    r.runs = 1;
    if (measure_here(&r) < 0)
        _exit(1);
    for (int i = 0; i < BENCH_METRICS_MAX; i++)
        value[i] = r.out->value[i][0];
    _exit(write(fd, value, sizeof value) != (ssize_t)sizeof value);
}

/* Starts the child.  Returns the pipe's reading end. */
static int start_apart(struct row *r, pid_t *pid)
{
    int fd[2];

    if (pipe(fd) < 0)
        return -errno;
    fflush(NULL);
    *pid = fork();
    if (*pid == 0) {
        close(fd[0]);
        r->progress = NULL;
        child(*r, fd[1]);
    }
    int error = errno;
    close(fd[1]);
    if (*pid > 0)
        return fd[0];
    close(fd[0]);
    return -error;
}

/* One run in a process of its own; the values become number `run' of the samples. */
static int measure_apart(struct row *r, unsigned run)
{
    double value[BENCH_METRICS_MAX];
    pid_t pid = -1;
    int status = 0;

    tell(r, run + 1, r->runs);
    int fd = start_apart(r, &pid);
    if (fd < 0)
        return complain(r, "cannot start a process", fd);
    ssize_t got = read(fd, value, sizeof value);
    close(fd);
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        return complain(r, strsignal(WTERMSIG(status)), -EIO);
    if (status != 0 || got != (ssize_t)sizeof value)
        return -EIO; /* the child has said why */
    for (int i = 0; i < BENCH_METRICS_MAX; i++)
        r->out->value[i][run] = value[i];
    return 0;
}

int bench_measure(const struct bench *bench, unsigned workers, unsigned runs,
                  bench_progress *progress, struct bench_samples *out)
{
    struct row r = { .bench = bench, .workers = workers, .progress = progress, .out = out };
    int rc = 0;

    if (bench->runs_max != 0 && runs > bench->runs_max)
        runs = bench->runs_max;
    r.runs = out->n = runs;
    if (!bench->is_apart)
        return measure_here(&r);
    for (unsigned run = 0; rc >= 0 && run < runs; run++)
        rc = measure_apart(&r, run);
    tell(&r, 0, 0);
    return rc;
}
