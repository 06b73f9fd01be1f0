/* SPDX-License-Identifier: MIT */
/*
 * main.c - magpie-bench: what magpie's primitives cost on this machine
 *
 *      magpie-bench [--workers N,...] [--runs N] [--json] [--list] [--help] [NAME...]
 *
 * Measures every bench (or those named) once for each number of workers, and prints a
 * table, or one JSON object a line.  Every bench checks its answers: a runtime that is
 * fast and wrong ends in an error, not in a number.
 *
 * The program uses nothing but the public interface, as any user's program does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "report.h"

#include <magpie/task.h>

enum {
    EXIT_USAGE = 2,
    RUNS_DEFAULT = 7,
    COUNTS_MAX = 16,
};

static const struct bench *const benches[] = {
    &bench_switch,        &bench_fib,
    &bench_fib_generic,   &bench_spawn,
    &bench_skynet,        &bench_gather,
    &bench_gather_yield,  &bench_pingpong,
    &bench_event,
    &bench_mutex,         &bench_mutex_contended,
    &bench_queue,         &bench_queue_nn,
    &bench_group,         &bench_timeout,
    &bench_nqueens,       &bench_wake,
    &bench_million_fiber, &bench_million_sleep,
};
enum { N_BENCHES = sizeof benches / sizeof benches[0] };

/* What the command line asks for. */
struct options {
    unsigned count[COUNTS_MAX]; /* numbers of workers, each once              */
    unsigned n_counts;
    bool has_counts; /* they were given: also for the single-worker benches */
    bool is_json;
    unsigned runs;
    bool is_chosen[N_BENCHES];
};

static struct report report; /* of main and, for the progress line, the measuring task */

/* ---- the command line ------------------------------------------------------------ */

static void usage(FILE *to)
{
    fputs("Usage: magpie-bench [OPTION]... [NAME]...\n"
          "\n"
          "Measures what magpie's primitives cost on this machine; without a NAME, all of them.\n"
          "\n"
          "  --workers N,...  numbers of worker threads to measure with; `all' stands for as\n"
          "                   many as this process may use (default: 1,2,all)\n"
          "  --runs N         repetitions of each measurement (default: 7)\n"
          "  --json           one JSON object a line instead of the table\n"
          "  --list           the names, and what one operation of each is\n"
          "  --help           this text\n"
          "\n"
          "Times are per operation, less is better.  Exit status: 0; 1 if a measurement failed\n"
          "or a result was wrong; 2 for a mistake in the command line.\n",
          to);
}

static void list(void)
{
    for (int i = 0; i < N_BENCHES; i++)
        printf("%-14s %s\n", benches[i]->name, benches[i]->what);
}

/* As many workers as a runtime has by default: CPUs allowed, or MAGPIE_WORKERS. */
static unsigned all_workers(void)
{
    struct mag_rt *rt;

    if (mag_rt_new(&rt, NULL) < 0) {
        fprintf(stderr, "magpie-bench: %s\n", mag_rt_why());
        exit(EXIT_FAILURE);
    }
    unsigned n = mag_rt_workers(rt);
    mag_rt_free(rt);
    return n;
}

static void add_count(struct options *o, unsigned workers)
{
    for (unsigned i = 0; i < o->n_counts; i++)
        if (o->count[i] == workers)
            return;
    o->count[o->n_counts++] = workers;
}

/* A number from 1 to max, up to `end'; 0 if it is none. */
static unsigned parse_number(const char *text, const char *end, unsigned max)
{
    unsigned n = 0;

    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return 0;
        n = n * 10 + (unsigned)(*text - '0');
        if (n > max)
            return 0;
    }
    return n;
}

static bool parse_workers(struct options *o, const char *text)
{
    for (;;) {
        const char *end = text + strcspn(text, ",");
        bool is_all = end - text == 3 && strncmp(text, "all", 3) == 0;
        unsigned n = is_all ? all_workers() : parse_number(text, end, BENCH_WORKERS_MAX);

        if (n == 0 || o->n_counts == COUNTS_MAX)
            return false;
        add_count(o, n);
        if (*end == '\0')
            return true;
        text = end + 1;
    }
}

static bool choose(struct options *o, const char *name)
{
    for (int i = 0; i < N_BENCHES; i++)
        if (strcmp(benches[i]->name, name) == 0)
            return o->is_chosen[i] = true;
    return false;
}

static _Noreturn void mistake(const char *what, const char *text)
{
    fprintf(stderr, "magpie-bench: %s `%s'; see magpie-bench --help\n", what, text);
    exit(EXIT_USAGE);
}

/* The value of --name=VALUE or --name VALUE, or NULL if `argv[*i]' is another option. */
static const char *value_of(const char *name, int argc, char **argv, int *i)
{
    size_t n = strlen(name);
    const char *arg = argv[*i];

    if (strncmp(arg, name, n) != 0 || (arg[n] != '=' && arg[n] != '\0'))
        return NULL;
    if (arg[n] == '=')
        return arg + n + 1;
    if (*i + 1 == argc)
        mistake("a value is missing after", name);
    return argv[++*i];
}

static void parse_option(struct options *o, int argc, char **argv, int *i)
{
    const char *arg = argv[*i], *value;

    if (strcmp(arg, "--help") == 0) {
        usage(stdout);
        exit(EXIT_SUCCESS);
    }
    if (strcmp(arg, "--list") == 0) {
        list();
        exit(EXIT_SUCCESS);
    }
    if (strcmp(arg, "--json") == 0) {
        o->is_json = true;
    } else if ((value = value_of("--workers", argc, argv, i)) != NULL) {
        o->has_counts = true;
        if (!parse_workers(o, value))
            mistake("not a list of numbers of workers:", value);
    } else if ((value = value_of("--runs", argc, argv, i)) != NULL) {
        o->runs = parse_number(value, value + strlen(value), BENCH_RUNS_MAX);
        if (o->runs == 0)
            mistake("not a number of runs from 1 to 1000:", value);
    } else {
        mistake("unknown option", arg);
    }
}

static struct options parse(int argc, char **argv)
{
    struct options o = { .runs = RUNS_DEFAULT };
    bool has_names = false;

    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            parse_option(&o, argc, argv, &i);
            continue;
        }
        has_names = true;
        if (!choose(&o, argv[i]))
            mistake("no bench is called", argv[i]);
    }
    for (int i = 0; i < N_BENCHES && !has_names; i++)
        o.is_chosen[i] = true;
    if (!o.has_counts)
        parse_workers(&o, "1,2,all");
    return o;
}

/* ---- measuring ---------------------------------------------------------------------- */

static bool is_wanted(const struct options *o, const struct bench *bench, unsigned workers)
{
    return o->has_counts || !bench->is_single || workers == 1;
}

static unsigned count_rows(const struct options *o)
{
    unsigned n = 0;

    for (int i = 0; i < N_BENCHES; i++)
        for (unsigned c = 0; o->is_chosen[i] && c < o->n_counts; c++)
            n += is_wanted(o, benches[i], o->count[c]);
    return n;
}

static void progress(const struct bench *bench, unsigned workers, unsigned run, unsigned runs)
{
    report_progress(&report, bench, workers, run, runs);
}

/* One bench with one number of workers: its metrics to row[0], row[1]... */
static int measure(const struct options *o, const struct bench *bench, unsigned workers,
                   struct report_row *row)
{
    static struct bench_samples samples;

    const char *why = bench->why_not == NULL ? NULL : bench->why_not(workers);
    if (why != NULL) {
        fprintf(stderr, "magpie-bench: %s, workers %u: left out: %s\n", bench->name, workers, why);
        return 0;
    }
    int rc = bench_measure(bench, workers, o->runs, progress, &samples);
    if (rc < 0)
        return rc;
    for (int m = 0; m < BENCH_METRICS_MAX && bench->metric[m].unit != NULL; m++)
        row[m] = report_summarize(&bench->metric[m], workers, samples.value[m], samples.n);
    return 1;
}

/* One bench with every number of workers.  Returns whether all of it worked. */
static bool run_bench(const struct options *o, const struct bench *bench)
{
    struct report_row row[BENCH_METRICS_MAX], rows[BENCH_METRICS_MAX][COUNTS_MAX];
    unsigned n = 0;
    bool is_ok = true;

    for (unsigned c = 0; c < o->n_counts; c++) {
        if (!is_wanted(o, bench, o->count[c]))
            continue;
        int rc = measure(o, bench, o->count[c], row);
        report.n_done++;
        is_ok &= rc >= 0;
        for (int m = 0; m < BENCH_METRICS_MAX && rc > 0; m++)
            rows[m][n] = row[m];
        n += rc > 0;
    }
    for (int m = 0; m < BENCH_METRICS_MAX && bench->metric[m].unit != NULL; m++)
        report_rows(&report, rows[m], n);
    return is_ok;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    bool is_ok = true;

    report_begin(&report, o.is_json, count_rows(&o));
    for (int i = 0; i < N_BENCHES; i++)
        if (o.is_chosen[i])
            is_ok &= run_bench(&o, benches[i]);
    return is_ok && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
