/* SPDX-License-Identifier: MIT */
/*
 * report.c - the table, its bars, JSON lines and the progress line
 *
 * The bar at the end of a line compares the rows of one bench with each other, that is
 * one number of workers with another: the longest is the slowest.  Rows of different
 * benches have nothing in common, so they share no scale.  Bars are for eyes and
 * appear on a terminal only; programs read --json, which has one object a line:
 *
 *      {"bench":"fib","workers":1,"unit":"ns","median":3.9,"min":3.8,"max":4.2,"runs":7}
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

enum {
    BAR_CELLS = 14, /* the whole line has 80 columns */
    NUMBER_BYTES = 32,
};

void report_begin(struct report *report, bool is_json, unsigned n_rows)
{
    *report = (struct report){
        .is_json = is_json,
        .has_bars = isatty(STDOUT_FILENO) == 1,
        .has_progress = isatty(STDERR_FILENO) == 1,
        .n_rows = n_rows,
    };
    if (!is_json)
        printf("%-19s %7s %4s %8s %8s %8s %4s\n", "bench", "workers", "unit", "median", "min",
               "max", "runs");
    fflush(stdout);
}

/* ---- numbers ------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct report_row report_summarize(const struct bench_metric *metric, unsigned workers,
                                   double *value, unsigned n)
{
    qsort(value, n, sizeof value[0], by_value);
    return (struct report_row){
        .metric = metric,
        .workers = workers,
        .runs = n,
        .median = (value[(n - 1) / 2] + value[n / 2]) / 2,
        .min = value[0],
        .max = value[n - 1],
    };
}

/* About three significant digits; more would only be noise. */
static const char *number(char *buf, double x)
{
    snprintf(buf, NUMBER_BYTES, x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x);
    return buf;
}

/* ---- rows ------------------------------------------------------------------------ */

static void write_json(const struct report_row *row)
{
    char median[NUMBER_BYTES], min[NUMBER_BYTES], max[NUMBER_BYTES];

    printf("{\"bench\":\"%s\",\"workers\":%u,\"unit\":\"%s\",\"median\":%s,\"min\":%s,"
           "\"max\":%s,\"runs\":%u}\n",
           row->metric->name, row->workers, row->metric->unit, number(median, row->median),
           number(min, row->min), number(max, row->max), row->runs);
}

/* A bar of BAR_CELLS cells at most, to an eighth of a cell. */
static void write_bar(double share)
{
    static const char *const eighth[] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
    int n = (int)(share * BAR_CELLS * 8 + 0.5);

    fputs("  ", stdout);
    for (int i = 0; i < n / 8; i++)
        fputs("█", stdout);
    fputs(eighth[n % 8], stdout);
}

static void write_line(const struct report_row *row, double longest, bool has_bars)
{
    char median[NUMBER_BYTES], min[NUMBER_BYTES], max[NUMBER_BYTES];

    printf("%-19s %7u %4s %8s %8s %8s %4u", row->metric->name, row->workers, row->metric->unit,
           number(median, row->median), number(min, row->min), number(max, row->max), row->runs);
    if (has_bars && longest > 0)
        write_bar(row->median / longest);
    putchar('\n');
}

void report_rows(const struct report *report, const struct report_row *rows, unsigned n)
{
    double longest = 0;

    for (unsigned i = 0; i < n; i++)
        if (rows[i].median > longest)
            longest = rows[i].median;
    for (unsigned i = 0; i < n; i++)
        if (report->is_json)
            write_json(&rows[i]);
        else
            write_line(&rows[i], longest, report->has_bars);
    fflush(stdout);
}

/* ---- progress ---------------------------------------------------------------------- */

void report_progress(const struct report *report, const struct bench *bench, unsigned workers,
                     unsigned run, unsigned runs)
{
    if (!report->has_progress)
        return;
    fputs("\r\033[K", stderr);
    if (runs == 0)
        return;
    fprintf(stderr, "[%u/%u] %s, %u worker%s: ", report->n_done + 1, report->n_rows, bench->name,
            workers, workers == 1 ? "" : "s");
    if (run == 0)
        fputs("warm-up", stderr);
    else
        fprintf(stderr, "run %u of %u", run, runs);
    fflush(stderr);
}
