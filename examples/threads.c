/* SPDX-License-Identifier: MIT */
/*
 * threads.c - a program with threads of its own uses magpie
 *
 *      threads [N]        counts the primes below N (2000000)
 *      threads --help
 *
 * A program that has threads already need not give them up: it makes a runtime, and any
 * thread may submit coroutines to it and await them.  Outside a task an await blocks the
 * thread that calls it, and everything else is the same.
 *
 *      plain threads                     runtime `pool', many workers
 *      split the range   --submit-->     count_range, count_range, ...
 *           |  await <---------------------- the counts
 *           |                            runtime `ledger', one worker
 *           `------------submit-->       add: one after the other, so without a lock
 *
 * Several runtimes may exist at once.  One with one worker runs one task at a time, and
 * a task is left for another only where it suspends: what tasks that do not suspend
 * share needs no lock there.
 */
#include <magpie/async.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_THREADS = 3,
    N_RANGES = 16, /* of each thread */
};

/* ---- tasks -------------------------------------------------------------------------- */

static bool is_prime(long n)
{
    for (long d = 3; d * d <= n; d += 2)
        if (n % d == 0)
            return false;
    return n == 2 || (n > 2 && n % 2 == 1);
}

async(long, count_range, (long, first), (long, end))
{
    long n = 0;

    for (long i = first; i < end; i++)
        n += is_prime(i);
    async_return(n);
}

struct ledger {
    struct mag_rt *rt; /* with one worker */
    long           total;
    unsigned       n_entries;
};

/* Runs on the ledger's runtime only, and does not suspend. */
async(void, add, (struct ledger *, ledger), (long, n))
{
    if (mag_rt_self() != ledger->rt)
        return -EXDEV;
    ledger->total += n;
    ledger->n_entries++;
    return 0;
}

async(long, read_total, (struct ledger *, ledger))
{
    async_return(ledger->total);
}

/* ---- plain threads -------------------------------------------------------------------- */

struct job {
    struct mag_rt *pool;
    struct ledger *ledger;
    long           first, end;
    int            rc;
};

/* Starts all ranges, then collects them and enters each in the ledger. */
static int count(struct job *job)
{
    struct count_range *ranges[N_RANGES];
    long                width = (job->end - job->first + N_RANGES - 1) / N_RANGES;
    int                 result = 0;

    for (int i = 0; i < N_RANGES; i++) {
        long first = job->first + i * width;
        long end = first + width < job->end ? first + width : job->end;

        ranges[i] = count_range(first, end);
        mag_submit(job->pool, ranges[i], NULL); /* what fails, its await says */
    }
    for (int i = 0; i < N_RANGES; i++) {
        long n;
        int  rc = mag_await(ranges[i], &n, sizeof n); /* blocks this thread */

        if (rc == 0)
            rc = mag_rt_run(job->ledger->rt, add(job->ledger, n), NULL);
        if (rc < 0)
            result = rc;
    }
    return result;
}

static void *thread_main(void *arg)
{
    struct job *job = arg;

    job->rc = count(job);
    return NULL;
}

static int run_threads(struct mag_rt *pool, struct ledger *ledger, long n)
{
    struct job jobs[N_THREADS];
    pthread_t  threads[N_THREADS];
    int        n_started = 0, rc = 0;

    for (int i = 0; i < N_THREADS; i++) {
        jobs[i] = (struct job){ pool, ledger, n * i / N_THREADS, n * (i + 1) / N_THREADS, 0 };
        if (pthread_create(&threads[i], NULL, thread_main, &jobs[i]) != 0) {
            rc = -EAGAIN;
            break;
        }
        n_started++;
    }
    for (int i = 0; i < n_started; i++) {
        pthread_join(threads[i], NULL);
        if (jobs[i].rc < 0)
            rc = jobs[i].rc;
    }
    return rc;
}

/* ---- the program ------------------------------------------------------------------------- */

/* A runtime, or the sentence that says why there is none. */
static struct mag_rt *runtime(const char *what, unsigned workers)
{
    struct mag_rt_options options = { .workers = workers };
    struct mag_rt        *rt = NULL;
    int                   rc = mag_rt_new(&rt, &options);

    if (rc < 0)
        printf("%s: %s: %s\n", what, mag_err_name(rc), mag_rt_why());
    return rt;
}

static int usage(FILE *to)
{
    fputs("usage: threads [N]\n\n"
          "Counts the primes below N (2000000): plain threads hand the work to a runtime.\n"
          "MAGPIE_WORKERS sets the number of its workers.\n",
          to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    struct ledger  ledger = { .rt = NULL };
    struct mag_rt *pool;
    char          *end = "";
    long           n = argc > 1 ? strtol(argv[1], &end, 10) : 2000000, total = 0;
    int            rc;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc > 2 || *end || n < 0)
        return usage(stderr);

    runtime("a runtime that is too big", 100000);
    pool = runtime("pool", 0);
    ledger.rt = runtime("ledger", 1);
    if (pool == NULL || ledger.rt == NULL)
        return 1;
    printf("%d threads, a pool of %u workers, a ledger of %u\n", N_THREADS,
           mag_rt_workers(pool), mag_rt_workers(ledger.rt));

    rc = run_threads(pool, &ledger, n);
    if (rc == 0)
        rc = mag_rt_run(ledger.rt, read_total(&ledger), &total);
    if (rc == 0)
        printf("primes below %ld: %ld, in %u entries\n", n, total, ledger.n_entries);
    mag_rt_free(pool); /* waits for what still runs, stops the workers */
    mag_rt_free(ledger.rt);
    return rc < 0;
}
