/* SPDX-License-Identifier: MIT */
#ifndef MAG_SAMPLE_H
#define MAG_SAMPLE_H
/*
 * sample.h - what a worker's thread is doing right now, found out by a signal
 *
 * For reports: a task that does not suspend cannot be asked, but its thread can be
 * interrupted.  sample.c tells how.
 */
#include "worker.h"

#include <signal.h>

enum {
    MAG_SAMPLE_FRAMES = 48, /* innermost; deeper ones are left out */
    MAG_SAMPLE_NAME = 48,   /* bytes of a name, cut if it is longer */
};

/* A stack, innermost frame first: program counters, of callers the return addresses. */
struct mag_stack_trace {
    int n;
    void *frames[MAG_SAMPLE_FRAMES];
};

struct mag_sample {
    mag_atomic(uint32_t) state;     /* [any] sample.c */
    mag_atomic(uint32_t) is_asked;  /* [any] somebody asks: one at a time */
    struct mag_fiber *fiber;        /* [handler, then asker] who ran; NULL: the loop */
    void *task;                     /* handle of the innermost task; NULL: none */
    char name[MAG_SAMPLE_NAME];     /* of the task, outermost of the fiber */
    char function[MAG_SAMPLE_NAME]; /* of the innermost */
    struct mag_site site;           /* where the task was spawned; .file NULL: unknown */
    const void *made_at;            /* or its constructor's caller; NULL */
    struct mag_stack_trace trace;
};

/* The signal: ignored by default, and hardly used.  rescue.c has the handler. */
enum { MAG_SAMPLE_SIGNAL = SIGURG };

/* In the handler, on the thread of w: answers if a sample of it is asked for. */
void mag_sample_answer(struct mag_worker *w, const void *context);

/* Gives each worker of the runtime its sample, in one block that the caller frees when the
 * workers have ended.  NULL: no memory. */
struct mag_sample *mag_samples_new(struct mag_rt *rt);

/*
 * Interrupts that worker and copies what it does to *out.  -EBUSY: somebody else asks;
 * -ETIMEDOUT: its thread did not get to run for that long; -ENOTSUP: it has no sample; or what
 * tgkill(2) says.  Any thread but the worker's own; blocks.
 */
int mag_sample_take(struct mag_worker *w, struct mag_sample *out, mag_time patience_ns);

/*
 * Drops the innermost frames up to that of this function, the last call that is of no
 * interest; none if it is not among them.
 */
void mag_stack_trace_skip(struct mag_stack_trace *trace, void *function);

/* The calling thread's own stack, without this function.  Async-signal-safe once
 * mag_stack_trace_prepare was called in the process. */
void mag_stack_trace_here(struct mag_stack_trace *trace);
void mag_stack_trace_prepare(void);

/* Says the frames, a line each: "  at function at file.c:31"; those that every task has in
 * common, at the end, are left out.  The number of lines.  Runs programs: milliseconds each. */
int mag_stack_trace_say(const struct mag_stack_trace *trace,
                        void (*line)(void *arg, const char *text), void *arg);

#endif
