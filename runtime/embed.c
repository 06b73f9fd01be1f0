/* SPDX-License-Identifier: MIT */
/*
 * embed.c - a runtime without threads, stepped from somebody else's loop
 *
 *      poll(mag_rt_fd(rt), ...)  -- readable -->  mag_rt_step(rt, 0)
 *            ^                                       rouse, run what is ready,
 *            +-------------------------------------- doze: armed again
 *
 * A program that has a loop already (a user interface, a Jupyter kernel) cannot give its
 * thread away.  So one worker without a thread lives between two calls of mag_rt_step.  While
 * it is not inside it looks to everybody else like a worker that sleeps: it is parked
 * (idle.c), and its ring dozes (ring.h), so that a message, a submission from another thread
 * or the end of a job rings it as ever.
 *
 * One descriptor says when a step is due.  It is an epoll of three: an eventfd that the kernel
 * signals for each completion; the one by which the ring is woken; and a timerfd with the next
 * deadline, because a host that polls descriptors does not know our timers.  (The ring's own descriptor
 * would do for completions, but where they are deferred to the owner (ring_uring.c) it need
 * not become readable; the eventfd does.)  When a step leaves work behind, or cannot doze, the
 * timerfd is set to a time that has passed: readable at once.
 *
 * A step ends when nothing is ready, or after STEP_NS: a task that yields for ever must not
 * keep the host from its own events.
 *
 * Invariants
 *   1. Between steps either is_dozing, parked and the ring rouses by an event, or the timerfd
 *      is in the past.
 *   2. Only the owner, the thread that made the runtime, steps: its ring belongs to it.
 *   3. Outside a step the owner is a thread like any other: it may submit, and must not block
 *      for a task of this runtime.
 *
 * Rejected: guest mode, where a thread of ours polls and the host only runs the tasks (Trio;
 * two threads and a hand-over for each event); a callback "please step me" instead of a
 * descriptor (called from any thread, so every host would have to build the descriptor).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "embed.h"

#include "check.h"
#include "clock.h"
#include "loop.h"
#include "mem.h"
#include "misuse.h"
#include "sys.h"
#include "sys_wait.h"

#include <errno.h>
#include <sys/eventfd.h>

#define STEP_NS (10 * MAG_MS)

struct mag_embed {
    int owner;                /* [const] thread id */
    int poll_fd;              /* [const] what the host polls; -1: none yet */
    int event_fd;             /* [const] completions; -1 */
    int timer_fd;             /* [const] -1 */
    bool is_dozing;           /* [owner] parked, and the ring dozes */
    bool is_watched;          /* [owner] completions signal event_fd */
    mag_time armed_for;       /* [owner] what timer_fd is set to */
    mag_time next;            /* [owner] when a step is due, if the descriptor stays quiet */
    struct mag_stack_alt alt; /* [owner] */
};

bool mag_embed_is_owner(const struct mag_rt *rt)
{
    return rt->embed->owner == mag_sys_gettid();
}

/* ---- between steps --------------------------------------------------------------------- */

/* A time that has passed must be set again: else it would stay readable. */
static void set_timer(struct mag_embed *e, mag_time when)
{
    e->next = when;
    if (when == e->armed_for && when > mag_clock_now())
        return;
    e->armed_for = when;
    MAG_CHECK(mag_sys_timerfd_set(e->timer_fd, when) == 0);
}

/* What was signalled so far has been, or is now, seen: the look comes after.  False: without
 * memory the ring is not watched just now. */
static bool drain_events(struct mag_embed *e, struct mag_ring *ring)
{
    uint64_t n;

    if (mag_sys_read(e->event_fd, &n, sizeof n) == sizeof n)
        e->is_watched = false;
    if (!e->is_watched)
        e->is_watched = mag_ring_watch(ring, e->event_fd) >= 0;
    return e->is_watched;
}

static void doze(struct mag_worker *w)
{
    struct mag_embed *e = w->rt->embed;
    struct mag_idle *idle = &w->rt->idle;
    bool is_watched = drain_events(e, w->ring);
    int rc = 0;

    mag_idle_park(idle, &idle->sleepers[w->id]);
    if (is_watched && !mag_worker_has_work(w) && !mag_loop_sees_work(w))
        rc = mag_ring_doze(w->ring);
    MAG_CHECK(rc >= 0);
    e->is_dozing = rc == 1;
    if (!e->is_dozing)
        mag_idle_unpark(idle, &idle->sleepers[w->id]);
    set_timer(e, e->is_dozing ? mag_timers_next(&w->timers) : 0);
}

static void rouse(struct mag_worker *w)
{
    struct mag_embed *e = w->rt->embed;

    if (!e->is_dozing)
        return;
    mag_ring_rouse(w->ring);
    mag_idle_unpark(&w->rt->idle, &w->rt->idle.sleepers[w->id]);
    e->is_dozing = false;
}

/* ---- a step ------------------------------------------------------------------------------ */

/* Runs what is ready, for a while. */
static void run_ready(struct mag_worker *w)
{
    mag_time end = mag_clock_now() + STEP_NS;

    while (mag_loop_turn(w) && mag_clock_now() < end)
        ;
}

int mag_embed_step(struct mag_rt *rt, mag_time timeout_ns, const mag_atomic(uint32_t) * stop)
{
    struct mag_worker *w = rt->workers;
    mag_time now = mag_clock_now();
    mag_time until = timeout_ns < MAG_NEVER - now ? now + timeout_ns : MAG_NEVER;
    uint64_t n;

    mag_loop_enter(w);
    rouse(w);
    n = w->n_done;
    run_ready(w);
    while (w->n_done == n && timeout_ns > 0 && mag_clock_now() < until &&
           !(stop && mag_load_acquire(stop))) {
        mag_loop_park(w, until);
        run_ready(w);
    }
    mag_idle_search_end(&rt->idle, &rt->idle.sleepers[0], false);
    doze(w);
    mag_loop_enter(NULL);
    n = w->n_done - n;
    return n < INT32_MAX ? (int)n : INT32_MAX;
}

int mag_rt_step(struct mag_rt *rt, mag_time timeout_ns)
{
    if (mag_worker_self())
        return mag_misuse(-EDEADLK, "mag_rt_step() inside a task: it is the host's to call");
    if (rt == NULL || rt->embed == NULL || timeout_ns < 0)
        return mag_misuse(-EINVAL, "mag_rt_step(): a runtime made with .embedded, and a "
                                   "timeout that is not negative");
    if (!mag_embed_is_owner(rt))
        return mag_misuse(-EPERM, "mag_rt_step() in another thread than mag_rt_new()");
    return mag_embed_step(rt, timeout_ns, NULL);
}

int mag_rt_fd(const struct mag_rt *rt)
{
    return rt && rt->embed ? rt->embed->poll_fd : -EINVAL;
}

mag_time mag_rt_deadline(const struct mag_rt *rt)
{
    return rt && rt->embed ? rt->embed->next : MAG_NEVER;
}

/* ---- life -------------------------------------------------------------------------------- */

static int keep(int *where, int fd)
{
    if (fd >= 0)
        *where = fd;
    return fd < 0 ? fd : 0;
}

static int open_descriptors(struct mag_embed *e)
{
    int rc = keep(&e->event_fd, mag_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

    if (rc == 0)
        rc = keep(&e->timer_fd, mag_sys_timerfd_create());
    if (rc == 0)
        rc = keep(&e->poll_fd, mag_sys_epoll_create());
    if (rc == 0)
        rc = mag_sys_epoll_add(e->poll_fd, e->event_fd);
    if (rc == 0)
        rc = mag_sys_epoll_add(e->poll_fd, e->timer_fd);
    return rc;
}

static void embed_free(struct mag_rt *rt)
{
    struct mag_embed *e = rt->embed;
    const int fds[] = { e->poll_fd, e->timer_fd, e->event_fd };

    for (size_t i = 0; i < MAG_ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            (void)mag_sys_close(fds[i]);
    rt->embed = NULL;
    mag_mem_free(e);
}

/* The worker is up; it goes to rest. */
static int open_ring(struct mag_worker *w, struct mag_embed *e)
{
    int rc = mag_ring_watch(w->ring, e->event_fd);

    e->is_watched = rc >= 0;
    if (rc >= 0)
        rc = mag_sys_epoll_add(e->poll_fd, rc);
    mag_loop_enter(w);
    if (rc == 0)
        doze(w);
    else
        mag_loop_close(w, &e->alt);
    mag_loop_enter(NULL);
    return rc;
}

int mag_embed_open(struct mag_rt *rt)
{
    struct mag_embed *e = mag_mem_alloc(sizeof *e);
    int rc;

    if (e == NULL)
        return -ENOMEM;
    *e = (struct mag_embed){ .owner = mag_sys_gettid(),
                             .poll_fd = -1,
                             .event_fd = -1,
                             .timer_fd = -1,
                             .armed_for = MAG_NEVER };
    rt->embed = e;
    rc = open_descriptors(e);
    if (rc == 0)
        rc = mag_loop_open(rt->workers, &e->alt);
    if (rc == 0)
        rc = open_ring(rt->workers, e);
    if (rc < 0)
        embed_free(rt);
    return rc;
}

void mag_embed_close(struct mag_rt *rt)
{
    mag_loop_enter(rt->workers);
    rouse(rt->workers);
    mag_loop_close(rt->workers, &rt->embed->alt);
    embed_free(rt);
}
