/* SPDX-License-Identifier: MIT */
/*
 * trace.c - the error trace: file and line of each await that an error passed
 *
 * An error that nobody expects is worth more with its path.  The await that passes it
 * on adds its place to the trace of the running task; when a task has failed, who
 * awaits it takes the trace over with the error (co.c), so it grows outwards:
 *
 *      EIO: Input/output error
 *        at fetch.c:31 in fetch
 *        at main.c:12 in session
 *
 * It is made when an error occurs and costs nothing before.  A trace that was caught,
 * or of another error, begins anew.  Out of memory there is none: the error itself
 * matters more.  Owner: the running task.
 */
#include "trace.h"

#include <stdio.h>
#include <string.h>

static struct mag_task *current(void)
{
    struct mag_fiber *f = mag_fiber_self();

    return f ? f->current : NULL;
}

static struct mag_trace *trace_of(struct mag_task *t)
{
    if (t->trace == NULL) {
        t->trace = mag_slab_alloc(&mag_worker_self()->slab, sizeof *t->trace);
        if (t->trace) {
            mag_store_relaxed(&t->trace->head.used, MAG_AUXILIARY);
            t->trace->rc = 0;
            t->trace->n = 0;
            t->trace->is_caught = false;
        }
    }
    return t->trace;
}

int mag_trace(int rc, const struct mag_site *site)
{
    struct mag_task *t = current();
    struct mag_trace *trace = t && rc < 0 ? trace_of(t) : NULL;

    if (trace == NULL)
        return rc;
    if (trace->is_caught || trace->rc != rc) {
        trace->rc = rc;
        trace->n = 0;
        trace->is_caught = false;
    }
    if (trace->n < MAG_TRACE_MAX)
        trace->sites[trace->n] = site;
    trace->n++;
    return rc;
}

void mag_trace_caught(void)
{
    struct mag_task *t = current();

    if (t && t->trace)
        t->trace->is_caught = true;
}

int mag_trace_format(const struct mag_trace *trace, void (*line)(void *arg, const char *text),
                     void *arg)
{
    static const char suffix[] = "__body"; /* of what async() defines */
    char text[256];
    unsigned n = trace->n < MAG_TRACE_MAX ? trace->n : MAG_TRACE_MAX;

    snprintf(text, sizeof text, "%s: %s", mag_err_name(trace->rc), mag_err_text(trace->rc));
    line(arg, text);
    for (unsigned i = 0; i < n; i++) {
        const struct mag_site *s = trace->sites[i];
        size_t len = strlen(s->function), cut = sizeof suffix - 1;
        if (len > cut && strcmp(s->function + len - cut, suffix) == 0)
            len -= cut;
        snprintf(text, sizeof text, "  at %s:%d in %.*s", s->file, s->line, (int)len, s->function);
        line(arg, text);
    }
    if (trace->n > n) {
        snprintf(text, sizeof text, "  ... and %u more", trace->n - n);
        line(arg, text);
    }
    return (int)trace->n;
}

static void to_file(void *arg, const char *text)
{
    fprintf(arg, "%s\n", text);
}

int mag_trace_print(FILE *to)
{
    struct mag_task *t = current();

    return t && t->trace && t->trace->rc < 0 ? mag_trace_format(t->trace, to_file, to) : 0;
}
