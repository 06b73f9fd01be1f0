/* SPDX-License-Identifier: MIT */
/*
 * inspect.c - what tasks do, for people: the tree of who awaits whom, and their stacks
 *
 * The tree is drawn from a snapshot (snapshot.c) in which each task names the one that
 * awaits it.  A task is a child of that one; what has no such stands at the top.
 *
 *      main                         first_child --> session --> session --> report
 *        session                                      |  next_sibling
 *          = fetch                               first_child --> fetch
 *        session                    (indices, so that depth costs no stack)
 *
 * Who is reached from no top awaits itself in a circle, or somebody who does: these are
 * named at the end.
 *
 * The stack of a suspended task is read where it lies: its home's loop switches to the
 * fiber, which takes its own backtrace and switches back (mag_worker_visit).  So it needs no
 * unwinder that could begin at saved registers, and works with both ways to switch.  It needs
 * room there; a stack that is nearly used up is not looked at.  A stack that runs is
 * interrupted (sample.c).
 *
 * Who may call: any task, any thread; a callback too, which blocks its worker meanwhile.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "inspect.h"

#include "check.h"
#include "mem.h"
#include "misuse.h"
#include "sample.h"
#include "snapshot.h"
#include "symbol.h"
#include "wait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_BYTES = 512,
    ROOM_BYTES = 6 * 1024, /* a backtrace takes so much of a stack, with room to spare */
    INDENT_MAX = 60,       /* deeper is drawn as deep */
    NAMES_KEPT = 8,        /* places whose names were found out: each costs milliseconds */
};

#define PATIENCE_NS (100 * MAG_MS)
#define SAMPLE_NS   (500 * MAG_MS) /* a machine may be that busy */
#define NOBODY      SIZE_MAX

typedef void line_fn(void *arg, const char *text);

/*
 * Calls fn(arg), which finds out names and so takes long, where that keeps no task waiting;
 * if it cannot (cancelled, no thread), it does so here.
 */
static int aside(int (*fn)(void *arg), void *arg)
{
    int rc = mag_wait_in_task() ? mag_wait_job(MAG_LANE_USER, fn, arg) : fn(arg);

    return rc == -ECANCELED || rc == -EAGAIN ? fn(arg) : rc;
}

static void to_file(void *file, const char *text)
{
    (void)fputs(text, file);
    (void)fputs("\n", file);
}

static struct mag_rt *or_mine(struct mag_rt *rt)
{
    return rt ? rt : mag_rt_self();
}

/* ---- all tasks -------------------------------------------------------------------- */

const char *mag_task_state_name(enum mag_task_state state)
{
    static const char *const names[] = { "created", "ready", "running", "waiting", "done" };

    return (unsigned)state < MAG_ARRAY_SIZE(names) ? names[state] : "?";
}

size_t mag_tasks(struct mag_rt *rt, struct mag_task_info *out, size_t n)
{
    struct mag_snapshot *s = or_mine(rt) ? mag_mem_alloc(sizeof *s) : NULL;
    size_t n_tasks = 0;

    if (s && mag_snapshot_take(or_mine(rt), s) == 0) {
        n_tasks = s->n;
        for (size_t i = 0; i < s->n && i < n; i++)
            out[i] = s->tasks[i].info;
        mag_snapshot_free(s);
    }
    mag_mem_free(s);
    return n_tasks;
}

/* ---- the tree --------------------------------------------------------------------- */

struct node {
    size_t parent, first_child, last_child, next_sibling;
    bool is_drawn;
};

struct tree {
    struct mag_rt *rt;
    struct mag_snapshot snapshot;
    struct node *nodes;
    line_fn *line;
    void *arg;
    struct {
        const void *addr;
        char name[160];
    } names[NAMES_KEPT];
    unsigned n_names;
    char text[LINE_BYTES]; /* here, since a task's stack may be small */
};

static size_t index_of(const struct tree *t, const void *handle)
{
    const struct mag_snapshot_task *found = handle ? mag_snapshot_find(&t->snapshot, handle) : NULL;

    return found ? (size_t)(found - t->snapshot.tasks) : NOBODY;
}

static void link_nodes(struct tree *t)
{
    for (size_t i = 0; i < t->snapshot.n; i++)
        t->nodes[i] = (struct node){ index_of(t, t->snapshot.tasks[i].info.awaited_by), NOBODY,
                                     NOBODY, NOBODY, false };
    for (size_t i = 0; i < t->snapshot.n; i++) {
        struct node *parent = t->nodes[i].parent == NOBODY ? NULL : &t->nodes[t->nodes[i].parent];
        if (parent == NULL)
            continue;
        if (parent->first_child == NOBODY)
            parent->first_child = i;
        else
            t->nodes[parent->last_child].next_sibling = i;
        parent->last_child = i;
    }
}

/* The name of a place in the code; found out once for each of the last few. */
static const char *place(struct tree *t, const void *addr)
{
    unsigned i;

    for (i = 0; i < t->n_names && i < NAMES_KEPT; i++)
        if (t->names[i].addr == addr)
            return t->names[i].name;
    i = t->n_names++ % NAMES_KEPT;
    t->names[i].addr = addr;
    mag_symbol_name(addr, t->names[i].name, sizeof t->names[i].name);
    return t->names[i].name;
}

static size_t say_what(char *to, size_t room, const struct mag_task_info *info)
{
    const char *state = mag_task_state_name(info->state);

    if (info->state != MAG_TASK_WAITING || info->waiting_for == NULL)
        return mag_check_text(to, room, "%s", state);
    if (info->waiting_name[0])
        return mag_check_text(to, room, "%s for %s '%s'", state, info->waiting_for,
                              info->waiting_name);
    if (info->waiting_on)
        return mag_check_text(to, room, "%s for %s %p", state, info->waiting_for,
                              (void *)info->waiting_on);
    return mag_check_text(to, room, "%s for %s", state, info->waiting_for);
}

static void draw(struct tree *t, size_t i, unsigned depth)
{
    const struct mag_task_info *info = &t->snapshot.tasks[i].info;
    unsigned indent = depth < INDENT_MAX / 2 ? 2 * depth : INDENT_MAX;
    char *text = t->text;
    size_t n = 0;

    t->nodes[i].is_drawn = true;
    for (; n < indent; n++)
        text[n] = ' ';
    n += mag_check_text(text + n, LINE_BYTES - n, "%s%s  ", info->is_in_place ? "= " : "",
                        info->name);
    while (n < 24)
        text[n++] = ' ';
    if (info->worker)
        n += mag_check_text(text + n, LINE_BYTES - n, "worker %u  ", info->worker);
    n += say_what(text + n, LINE_BYTES - n, info);
    if (info->spawned_at.file)
        (void)mag_check_text(text + n, LINE_BYTES - n, "  spawned at %s:%d", info->spawned_at.file,
                             info->spawned_at.line);
    else if (info->made_at)
        (void)mag_check_text(text + n, LINE_BYTES - n, "  created at %s", place(t, info->made_at));
    t->line(t->arg, text);
}

/* A task and all below it. */
static void draw_from(struct tree *t, size_t top)
{
    size_t i = top;
    unsigned depth = 0;

    for (;;) {
        if (!t->nodes[i].is_drawn)
            draw(t, i, depth);
        if (t->nodes[i].first_child != NOBODY && !t->nodes[t->nodes[i].first_child].is_drawn) {
            i = t->nodes[i].first_child;
            depth++;
            continue;
        }
        while (i != top && t->nodes[i].next_sibling == NOBODY) {
            i = t->nodes[i].parent;
            depth--;
        }
        if (i == top)
            return;
        i = t->nodes[i].next_sibling;
    }
}

/* From a task that no top reaches, towards who awaits it, one comes into the circle. */
static void draw_circle(struct tree *t, size_t from)
{
    size_t on = from, i;

    for (size_t n = 0; n < t->snapshot.n; n++)
        on = t->nodes[on].parent;
    t->line(t->arg, "these await each other in a circle, and will wait for ever:");
    i = on;
    do {
        draw(t, i, 1);
        i = t->nodes[i].parent;
    } while (i != on);
    do { /* and what hangs on them */
        for (size_t c = t->nodes[i].first_child; c != NOBODY; c = t->nodes[c].next_sibling)
            if (!t->nodes[c].is_drawn)
                draw_from(t, c);
        i = t->nodes[i].parent;
    } while (i != on);
}

static void draw_busy(struct tree *t, struct mag_worker *w)
{
    struct mag_sample *s = mag_mem_alloc(sizeof *s);
    int rc = s ? mag_sample_take(w, s, SAMPLE_NS) : -ENOMEM;

    if (rc < 0)
        (void)mag_check_text(t->text, LINE_BYTES, "worker %u is busy (%s)", w->id + 1,
                             mag_err_name(rc));
    else if (s->task == NULL)
        (void)mag_check_text(t->text, LINE_BYTES,
                             "worker %u did not answer in time, in no task:", w->id + 1);
    else
        (void)mag_check_text(t->text, LINE_BYTES,
                             "worker %u is busy with '%s', in '%s':", w->id + 1, s->name,
                             s->function);
    t->line(t->arg, t->text);
    if (rc == 0)
        (void)mag_stack_trace_say(&s->trace, t->line, t->arg);
    mag_mem_free(s);
}

static void draw_head(struct tree *t)
{
    size_t n[MAG_TASK_DONE + 1] = { 0 };

    for (size_t i = 0; i < t->snapshot.n; i++)
        n[t->snapshot.tasks[i].info.state]++;
    (void)mag_check_text(t->text, LINE_BYTES,
                         "runtime: %u workers, %zu tasks: %zu running, %zu ready, %zu waiting, "
                         "%zu created, %zu done",
                         t->rt->n_workers, t->snapshot.n, n[MAG_TASK_RUNNING], n[MAG_TASK_READY],
                         n[MAG_TASK_WAITING], n[MAG_TASK_CREATED], n[MAG_TASK_DONE]);
    t->line(t->arg, t->text);
}

static int draw_all(void *tree)
{
    struct tree *t = tree;

    link_nodes(t);
    draw_head(t);
    for (size_t i = 0; i < t->snapshot.n; i++)
        if (t->nodes[i].parent == NOBODY)
            draw_from(t, i);
    for (size_t i = 0; i < t->snapshot.n; i++)
        if (!t->nodes[i].is_drawn)
            draw_circle(t, i);
    for (unsigned i = 0; i < t->rt->n_workers; i++)
        if (t->snapshot.is_busy[i])
            draw_busy(t, &t->rt->workers[i]);
    return (int)t->snapshot.n;
}

int mag_dump_say(struct mag_rt *rt, line_fn *line, void *arg)
{
    struct tree *t = mag_mem_zalloc(sizeof *t);
    int rc = t ? mag_snapshot_take(rt, &t->snapshot) : -ENOMEM;

    if (rc == 0) {
        t->rt = rt;
        t->line = line;
        t->arg = arg;
        t->nodes = mag_mem_alloc(t->snapshot.n * sizeof *t->nodes);
        rc = t->nodes ? aside(draw_all, t) : -ENOMEM;
        mag_mem_free(t->nodes);
        mag_snapshot_free(&t->snapshot);
    }
    mag_mem_free(t);
    return rc;
}

int mag_dump(struct mag_rt *rt, FILE *to)
{
    if (or_mine(rt) == NULL)
        return mag_misuse(-ENXIO, "mag_dump(NULL) outside a task: say which runtime");
    return mag_dump_say(or_mine(rt), to_file, to);
}

/* ---- stacks ----------------------------------------------------------------------- */

enum found { NOT_FOUND, HAS_STACK, HAS_NO_ROOM, IS_LEAF, IS_IDLE };

/* Somebody wants to see a task's stack; held by the asker, and by the message under way. */
struct view {
    struct mag_message msg;
    mag_atomic(uint32_t) refs;
    mag_atomic(uint32_t) is_open; /* [any] futex: 0 when it was answered */
    FILE *to;                     /* [asker] */
    struct mag_task *task;        /* [const] with a reference */
    struct mag_fiber *fiber;      /* [home] */
    enum found found;             /* [home, then asker] */
    struct mag_stack_trace trace;
};

static void view_unref(struct view *v)
{
    if (mag_fetch_sub(&v->refs, 1) != 1)
        return;
    mag_worker_release(v->task);
    mag_mem_free(v);
}

/* On the fiber that is looked at. */
static void view_here(void *arg)
{
    struct view *v = arg;

    if ((char *)__builtin_frame_address(0) - v->fiber->stack.lo < ROOM_BYTES) {
        v->found = HAS_NO_ROOM;
        return;
    }
    v->found = HAS_STACK;
    mag_stack_trace_here(&v->trace);
    mag_stack_trace_skip(&v->trace, (void *)mag_worker_suspend); /* or it has yielded: */
    mag_stack_trace_skip(&v->trace, (void *)mag_worker_yield);
}

static void view_at_home(struct view *v)
{
    if (v->task->is_leaf) {
        v->found = IS_LEAF;
        return;
    }
    v->fiber = v->task->fiber;
    mag_worker_visit(v->fiber, view_here, v);
}

static void view_deliver(struct mag_message *m, struct mag_worker *w)
{
    struct view *v = mag_container_of(m, struct view, msg);
    struct mag_worker *home;

    mag_spin_lock(&w->move_lock);
    home = mag_task_home(v->task);
    if (home == w)
        view_at_home(v);
    mag_spin_unlock(&w->move_lock);
    if (home && home != w) { /* it has moved */
        mag_worker_send(home, m);
        return;
    }
    if (home == NULL)
        v->found = IS_IDLE;
    mag_store_release(&v->is_open, 0);
    mag_snapshot_answered(&v->is_open);
    view_unref(v);
}

/* Asks its home, or finds that it has none. */
static bool view_take(struct view *v)
{
    struct mag_worker *home = mag_task_home(v->task), *self = mag_worker_self();

    if (home == NULL) {
        v->found = IS_IDLE;
        return true;
    }
    if (self == home && self->fiber == NULL)
        return true; /* a callback keeps the loop from looking */
    v->msg.deliver = view_deliver;
    mag_store_relaxed(&v->is_open, 1); /* published by the send */
    mag_fetch_add(&v->refs, 1);
    mag_worker_send(home, &v->msg);
    return mag_snapshot_await(&v->is_open, PATIENCE_NS);
}

static int say_view(void *view)
{
    const struct view *v = view;
    static const char *const why[] = {
        [NOT_FOUND] = "  its stack cannot be read now",
        [HAS_NO_ROOM] = "  its stack is nearly used up, and not looked at",
        [IS_LEAF] = "  it sleeps, which needs no stack",
        [IS_IDLE] = "  it has no stack: it has not begun, or has ended",
    };

    if (v->found == HAS_STACK)
        return mag_stack_trace_say(&v->trace, to_file, v->to);
    to_file(v->to, why[v->found]);
    return 0;
}

struct running {
    struct mag_worker *worker;
    const void *task;
    FILE *to;
};

static int print_running(void *arg)
{
    struct running *r = arg;
    struct mag_sample *s = mag_mem_alloc(sizeof *s);
    int rc = s == NULL ? -ENOMEM : r->worker ? mag_sample_take(r->worker, s, SAMPLE_NS) : -EBUSY;

    if (rc == 0)
        rc = s->task == r->task ? mag_stack_trace_say(&s->trace, to_file, r->to) : -EBUSY;
    mag_mem_free(s);
    return rc == -ETIMEDOUT || rc == -ENOTSUP ? -EBUSY : rc;
}

static int print_suspended(struct mag_task *t, FILE *to)
{
    struct view *v = mag_mem_zalloc(sizeof *v);
    int rc;

    if (v == NULL)
        return -ENOMEM;
    mag_fetch_add(&t->extra_refs, 1);
    v->task = t;
    mag_store_relaxed(&v->refs, 1);
    v->to = to;
    rc = view_take(v) ? aside(say_view, v) : -EBUSY;
    view_unref(v);
    return rc;
}

static int print_own(FILE *to)
{
    struct view *v = mag_mem_zalloc(sizeof *v);
    int n;

    if (v == NULL)
        return -ENOMEM;
    v->to = to;
    v->found = HAS_STACK;
    mag_stack_trace_here(&v->trace);
    mag_stack_trace_skip(&v->trace, (void *)mag_print_stack);
    n = aside(say_view, v);
    mag_mem_free(v);
    return n;
}

static bool is_mine(const struct mag_task *task)
{
    struct mag_fiber *f = mag_fiber_self();
    const struct mag_task *t = f ? f->current : NULL;

    while (t && t != task)
        t = t->outer;
    return t != NULL;
}

int mag_print_stack(void *task, FILE *to)
{
    struct mag_task *t = mag_task_of(task);
    int rc;

    if (t == NULL && mag_fiber_self() == NULL)
        return mag_misuse(-ENXIO, "mag_print_stack(NULL) outside a task");
    if (t == NULL || is_mine(t))
        return print_own(to);
    if (mag_load_relaxed(&t->head.used) != MAG_COROUTINE)
        return mag_misuse(-EINVAL, "mag_print_stack() of what is no task, or was consumed");
    rc = print_suspended(t, to);
    return rc == -EBUSY ? aside(print_running, &(struct running){ mag_task_home(t), task, to })
                        : rc;
}

/* ---- figures ---------------------------------------------------------------------- */

/* Words that only the owner writes; a value that is just being changed does no harm. */
MAG_RACY void mag_worker_look(struct mag_worker *worker, struct mag_worker_stats *out)
{
    const volatile struct mag_worker *w = worker;
    const volatile struct mag_ring *ring = w->ring;

    out->ready = w->ready.count + (w->next != NULL);
    out->timers = w->timers.count;
    out->operations = ring ? ring->n_in_flight : 0;
    out->is_running = w->fiber != NULL;
}

int mag_rt_stats(struct mag_rt *rt, unsigned worker, struct mag_worker_stats *out)
{
    struct mag_worker *w;

    rt = or_mine(rt);
    if (rt == NULL)
        return mag_misuse(-ENXIO, "mag_rt_stats(NULL) outside a task: say which runtime");
    if (worker == 0 || worker > rt->n_workers)
        return mag_misuse(-EINVAL, "mag_rt_stats() of a worker that is not there");
    w = &rt->workers[worker - 1];
    *out = (struct mag_worker_stats){ 0 };
    mag_worker_look(w, out);
    out->tasks_begun = mag_load_relaxed(&w->n_spawned);
    out->tasks_ended = mag_load_relaxed(&w->n_ended);
    out->unstarted = mag_deque_size(&w->deque);
    out->steals = mag_load_relaxed(&w->n_steals);
    out->parks = mag_load_relaxed(&w->n_parks);
    out->is_parked = mag_load_relaxed(&rt->idle.sleepers[w->id].is_parked);
    return 0;
}
