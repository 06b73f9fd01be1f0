/* SPDX-License-Identifier: MIT */
/*
 * report.c - a line for the user of a runtime
 *
 * What the library has to say that no return value could (a coroutine was never awaited, a
 * task does not end) goes to one place, which the runtime's options name: a log of the
 * program's own, or a test that wants to see it.
 */
#include "report.h"

#include "check.h"

#include <stdarg.h>
#include <stdio.h>

void mag_report_line(void *arg, const char *line)
{
    struct mag_rt *rt = arg;

    if (rt && rt->report)
        rt->report(rt->report_arg, line);
    else
        mag_check_print("%s", line);
}

void mag_report(struct mag_rt *rt, const char *format, ...)
{
    char line[512];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    mag_report_line(rt, line);
}
