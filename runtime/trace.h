/* SPDX-License-Identifier: MIT */
#ifndef MAG_TRACE_H
#define MAG_TRACE_H
/*
 * trace.h - where an error has been
 */
#include "worker.h"

/* Calls line(arg, text) for the error and each place; the number of places. */
int mag_trace_format(const struct mag_trace *trace, void (*line)(void *arg, const char *text),
                     void *arg);

#endif
