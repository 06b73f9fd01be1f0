/* SPDX-License-Identifier: MIT */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H
/*
 * report.h - results as a table or as JSON on standard output, progress on standard error
 */
#include "harness.h"

struct report {
    bool is_json;      /* one object a line instead of the table        */
    bool has_bars;     /* standard output is a terminal                 */
    bool has_progress; /* standard error is a terminal                  */
    unsigned n_done;   /* rows measured, for the progress line          */
    unsigned n_rows;   /* rows to be measured                           */
};

/* One line of the table. */
struct report_row {
    const struct bench_metric *metric;
    unsigned workers, runs;
    double median, min, max;
};

/* Looks at where the output goes, and writes the table's head unless it is JSON. */
void report_begin(struct report *report, bool is_json, unsigned n_rows);

/* Median and spread of one metric's samples, which are sorted by it. */
struct report_row report_summarize(const struct bench_metric *metric, unsigned workers,
                                   double *value, unsigned n);

/* Writes the rows of one metric, which share the scale of their bars. */
void report_rows(const struct report *report, const struct report_row *rows, unsigned n);

/*
 * Shows on the terminal's last line what is being run: the warm-up if `run' is 0.  With
 * `runs' 0 nothing is, and the line is removed.
 */
void report_progress(const struct report *report, const struct bench *bench, unsigned workers,
                     unsigned run, unsigned runs);

#endif
