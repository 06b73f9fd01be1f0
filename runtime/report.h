/* SPDX-License-Identifier: MIT */
#ifndef MAG_REPORT_H
#define MAG_REPORT_H
/*
 * report.h - a line for the user of a runtime
 */
#include "worker.h"

/* To where the runtime's options say; rt NULL, or nothing said: standard error, after
 * "magpie: ".  Cut after some 500 characters.  Any thread. */
void mag_report(struct mag_rt *rt, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a line that is ready; `rt' is a struct mag_rt, or NULL. */
void mag_report_line(void *rt, const char *line);

#endif
