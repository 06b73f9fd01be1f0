/* SPDX-License-Identifier: MIT */
/*
 * sample.c - what a worker's thread is doing right now, found out by a signal
 *
 * A task that computes, or blocks in a system call, answers no message.  So its thread is
 * sent a signal, whose handler writes down the stack that it has interrupted, and the names
 * of the tasks that run on it, into memory that was there before.  Symbols are for whoever
 * asked: they take milliseconds.
 *
 *      FREE -- asker --> ASKED -- handler, CAS --> TAKING --> TAKEN -- asker copies --> FREE
 *                          `-- asker, CAS, later: the thread did not get to run --> FREE
 *
 * The signal is SIGURG, which rescue.c uses too and has the handler of: by default it is
 * ignored, so one that comes late or for nothing harms nobody, and hardly a program uses it.
 * Like any signal it makes a call that blocks return early, with EINTR.
 *
 * The handler runs on the thread's alternate stack, since a fiber's has perhaps no room
 * left; the unwinder goes on through the signal's frame to the fiber's.  It touches only its
 * thread's own worker, makes no system call and takes no lock: backtrace(3) takes none once
 * libgcc is loaded, with glibc 2.35 and gcc 12 or later; with older ones it waits for the
 * loader's lock, which a task holds only inside dlopen(3).
 *
 * Who may call: any thread that is not the worker's; it blocks.
 *
 * Rejected: /proc/self/task/N/stack (the kernel's half only); ptrace (needs another
 * process); a stack by frame pointers (most libraries have none).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sample.h"

#include "check.h"
#include "clock.h"
#include "mem.h"
#include "symbol.h"
#include "sys.h"

#include <errno.h>
#include <execinfo.h>
#include <string.h>
#include <ucontext.h>
#include <unwind.h>

enum state { FREE, ASKED, TAKING, TAKEN };

enum { LOOK_NS = 100 * 1000 }; /* the asker looks so often */

/* ---- stacks ----------------------------------------------------------------------- */

void mag_stack_trace_prepare(void)
{
    void *frame;

    (void)backtrace(&frame, 1); /* loads libgcc, which allocates */
}

MAG_NOINLINE void mag_stack_trace_here(struct mag_stack_trace *trace)
{
    void *frames[MAG_SAMPLE_FRAMES + 1];
    int n = backtrace(frames, MAG_SAMPLE_FRAMES + 1);

    trace->n = n > 0 ? n - 1 : 0;
    memcpy(trace->frames, frames + 1, (size_t)trace->n * sizeof *frames);
}

void mag_stack_trace_skip(struct mag_stack_trace *trace, void *function)
{
    int i = 0;

    while (i < trace->n && _Unwind_FindEnclosingFunction(trace->frames[i]) != function)
        i++;
    if (i == trace->n)
        return;
    trace->n -= i + 1;
    memmove(trace->frames, trace->frames + i + 1, (size_t)trace->n * sizeof trace->frames[0]);
}

/* The part before " at " or "+0x", without what async() appends to the names it makes up. */
static int function_length(const char *name)
{
    static const char body[] = "__body";
    size_t len = strcspn(name, " +"), cut = sizeof body - 1;

    if (len > cut && memcmp(name + len - cut, body, cut) == 0)
        len -= cut;
    return (int)len;
}

/*
 * The function as it is in the binary, and the line, which may be of one that was inlined
 * into it.
 */
static void name_frame(char *to, size_t room, void *frame)
{
    void *function = _Unwind_FindEnclosingFunction(frame);
    char at[192], in[192], *place;
    int len;

    mag_symbol_name(frame, at, sizeof at);
    place = strstr(at, " at ");
    mag_symbol_name(function ? function : frame, in, sizeof in);
    len = function_length(in);
    in[len] = '\0';
    if (place)
        (void)mag_check_text(to, room, "  at %s%s", in, place);
    else
        (void)mag_check_text(to, room, "  at %s", at);
}

int mag_stack_trace_say(const struct mag_stack_trace *trace,
                        void (*line)(void *arg, const char *text), void *arg)
{
    char text[400];
    int n = 0;

    for (; n < trace->n; n++) {
        if (_Unwind_FindEnclosingFunction(trace->frames[n]) == (void *)mag_worker_run_task)
            break; /* what is below is of every task */
        name_frame(text, sizeof text, trace->frames[n]);
        line(arg, text);
    }
    return n;
}

/* ---- in the thread that is asked -------------------------------------------------- */

/* The handler's own frames, and that of the signal, go. */
static void take_trace(struct mag_stack_trace *trace, const void *context)
{
    void *at = mag_context_interrupted_at(context);
    int first = 0;

    mag_stack_trace_here(trace);
    while (first < trace->n && trace->frames[first] != at)
        first++;
    if (first == trace->n)
        first = 0;
    trace->n -= first;
    memmove(trace->frames, trace->frames + first, (size_t)trace->n * sizeof trace->frames[0]);
}

static void take_names(struct mag_sample *s, struct mag_fiber *f)
{
    struct mag_task *t = f ? f->current : NULL, *root = t;

    s->fiber = f;
    s->task = t ? mag_task_frame(t) : NULL;
    s->name[0] = s->function[0] = '\0';
    s->site = (struct mag_site){ NULL, 0, NULL };
    s->made_at = NULL;
    while (root && root->outer)
        root = root->outer;
    if (t == NULL)
        return;
    (void)mag_check_text(s->name, sizeof s->name, "%s", mag_task_name(root));
    (void)mag_check_text(s->function, sizeof s->function, "%s", t->type->name);
    if (root->origin_kind == MAG_ORIGIN_MADE)
        s->made_at = root->made_at;
    else if (root->site)
        s->site = *root->site;
}

void mag_sample_answer(struct mag_worker *w, const void *context)
{
    struct mag_sample *s = mag_load_acquire(&w->sample);
    uint32_t asked = ASKED;

    if (s == NULL || !mag_cas(&s->state, &asked, TAKING))
        return;
    take_names(s, mag_load_relaxed(&w->fiber)); /* relaxed: this thread's own */
    take_trace(&s->trace, context);
    mag_store_release(&s->state, TAKEN);
}

/* ---- in the thread that asks ------------------------------------------------------ */

struct mag_sample *mag_samples_new(struct mag_rt *rt)
{
    struct mag_sample *samples = mag_mem_zalloc(rt->n_workers * sizeof *samples);

    mag_stack_trace_prepare();
    for (unsigned i = 0; samples && i < rt->n_workers; i++)
        mag_store_release(&rt->workers[i].sample, &samples[i]);
    return samples;
}

/* Until the handler is through; or its thread did not get to run it. */
static int await_answer(struct mag_sample *s, mag_time patience_ns)
{
    mag_time end = mag_clock_now() + patience_ns;

    while (mag_load_acquire(&s->state) != TAKEN) {
        uint32_t asked = ASKED;
        if (mag_clock_now() > end && mag_cas(&s->state, &asked, FREE))
            return -ETIMEDOUT;
        (void)mag_sys_sleep(LOOK_NS);
    }
    return 0;
}

int mag_sample_take(struct mag_worker *w, struct mag_sample *out, mag_time patience_ns)
{
    struct mag_sample *s = mag_load_acquire(&w->sample);
    uint32_t nobody = 0;
    int rc;

    if (s == NULL || MAG_TSAN) /* its fibers take no signals */
        return -ENOTSUP;
    if (!mag_cas(&s->is_asked, &nobody, 1))
        return -EBUSY;
    mag_store_release(&s->state, ASKED);
    rc = mag_sys_tgkill(mag_load_acquire(&w->tid), MAG_SAMPLE_SIGNAL);
    if (rc == 0)
        rc = await_answer(s, patience_ns);
    if (rc == 0)
        *out = *s;
    mag_store_release(&s->state, FREE);
    mag_store_release(&s->is_asked, 0);
    return rc;
}
