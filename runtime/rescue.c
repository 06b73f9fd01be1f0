/* SPDX-License-Identifier: MIT */
/*
 * rescue.c - what waits on a worker that is stuck in a long computation
 *
 * A task that computes for seconds keeps its worker's thread.  Unstarted tasks are stolen
 * from its deque in any case; but its ready fibers, its timers, and above all the completions
 * of its ring are the thread's own, and the tasks that wait for them would wait for seconds
 * too.  So another worker, the rescuer, takes the owner's place for some microseconds:
 *
 *      watchdog     the worker has been stuck for 5 ms: signals its thread, posts `rescue'
 *      its thread   handler: enters its own ring, so that the kernel submits what was queued
 *                   there, and posts what has finished (only this thread may)
 *      rescuer      takes the owner's place; reaps the posted completions, fires due timers,
 *                   takes delivered messages; everything that gets ready by that, and was
 *                   ready before, moves to the rescuer
 *
 * and so on every 5 ms until the task suspends.
 *
 * Taking the owner's place.  The owner says when it is *inside*, at what a rescuer would
 * touch (mag_worker_enter), by a plain store, then looks whether a rescuer is there.  A rescuer
 * says that it is there, makes the owner's processor execute a fence by membarrier(2) (J),
 * and then looks whether the owner is inside.  So at least one sees the other: an owner that
 * sees a rescuer waits for it; a rescuer that sees the owner inside goes away: a thread that
 * is inside is about to look after itself.  The cost is the rescuer's.
 *
 * Which fibers may not move: pinned ones, which stay ready where they are; and what still
 * waits for an operation stays until that is done, because only the home's thread may ask its
 * ring to cancel.  Messages other than "this fiber is ready" and cancels wait for the owner.
 *
 * The signal is sent only if operations are in flight there, because it interrupts a system
 * call that blocks the thread (nanosleep(2) then returns EINTR).  The handler runs on the
 * alternate stack and touches nothing if the thread is inside.
 *
 * Rejected: completion by interrupt instead of DEFER_TASKRUN (costs a quarter of the speed of
 * everything, design 6); a lock around the owner's queues (10 ns for each switch).
 */
#include "rescue.h"

#include "cancel.h"
#include "clock.h"
#include "ring.h"
#include "sample.h"
#include "sys.h"
#include "sys_wait.h"

#include <errno.h>
#include <signal.h>

enum {
    HANDLER_NS = 50 * 1000, /* what the handler gets before the rescuer is called */
};

/* ---- the stuck thread -------------------------------------------------------------------- */

static struct {
    struct mag_spin lock;
    bool is_installed;
    struct sigaction before;
} process;

static void pass_on(int sig, siginfo_t *info, void *context)
{
    if (process.before.sa_flags & SA_SIGINFO)
        process.before.sa_sigaction(sig, info, context);
    else if (process.before.sa_handler != SIG_DFL && process.before.sa_handler != SIG_IGN)
        process.before.sa_handler(sig);
}

/* The ring, unless the thread was interrupted at it, or a rescuer has the owner's place. */
static void kick(struct mag_worker *w)
{
    if (mag_load_relaxed(&w->is_inside))
        return;
    mag_store_relaxed(&w->is_inside, 1);
    mag_compiler_barrier(); /* (J), as in mag_worker_enter */
    if (!mag_load_acquire(&w->is_rescued))
        mag_ring_kick(w->ring);
    mag_store_release(&w->is_inside, 0);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    struct mag_worker *w = mag_worker_self();
    int saved = mag_sys_errno_save();

    if (w == NULL || info->si_code != SI_TKILL)
        pass_on(sig, info, context);
    else
        kick(w);
    if (w)
        mag_sample_answer(w, context);
    mag_sys_errno_restore(saved);
}

int mag_rescue_install(void)
{
    struct sigaction act = { .sa_sigaction = on_signal,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
    int rc = 0;

    sigemptyset(&act.sa_mask);
    mag_spin_lock(&process.lock);
    if (!process.is_installed) {
        rc = mag_sys_sigaction(MAG_SAMPLE_SIGNAL, &act, &process.before);
        process.is_installed = rc == 0;
    }
    mag_spin_unlock(&process.lock);
    return rc;
}

/* ---- the rescuer ---------------------------------------------------------------------------- */

static bool take_place(struct mag_worker *w)
{
    uint32_t nobody = 0;

    if (!mag_cas_seq(&w->is_rescued, &nobody, 1))
        return false;
    if (mag_sys_membarrier() == 0 && !mag_load_acquire(&w->is_inside)) /* (J) */
        return true;
    mag_store_release(&w->is_rescued, 0);
    return false;
}

/* In the owner's place: a ready fiber of w goes to the rescuer, if it may. */
static void adopt(struct mag_worker *rescuer, struct mag_worker *w, struct mag_fiber *f)
{
    if (f->is_pinned) {
        mag_fifo_push_back(&w->ready, &f->link);
        return;
    }
    if (mag_timer_is_armed(&f->timer))
        mag_timers_cancel(&w->timers, &f->timer);
    mag_worker_move(rescuer, f);
    mag_fifo_push_back(&rescuer->ready, &f->link);
}

static void answer(struct mag_message *m, struct mag_worker *rescuer);
static void rescue(struct mag_message *m, struct mag_worker *rescuer);

/* What the completions and timers have sent home, and others before. */
static void take_messages(struct mag_worker *rescuer, struct mag_worker *w)
{
    struct mag_inbox_node *first = w->kept, **end = &first, *node, *next;

    while (*end)
        end = &(*end)->next;
    *end = mag_inbox_take(&w->inbox);
    end = &w->kept;
    for (node = first; node; node = next) {
        struct mag_message *m = mag_container_of(node, struct mag_message, inbox);
        struct mag_fiber *f = mag_worker_fiber_of(m);
        next = node->next;
        if (f && f != w->fiber) {
            adopt(rescuer, w, f);
        } else if (m->deliver == rescue) { /* w was to rescue a third one, and is stuck itself */
            m->deliver = answer;
            mag_worker_post(w->rt, m);
        } else if (f ||
                   !mag_cancel_elsewhere(m, w)) { /* f: about to suspend; the message came first */
            *end = node;
            end = &node->next;
        }
    }
    *end = NULL;
}

static void take_ready(struct mag_worker *rescuer, struct mag_worker *w)
{
    size_t n = w->ready.count;

    for (; n > 0; n--)
        adopt(rescuer, w, mag_container_of(mag_fifo_pop_front(&w->ready), struct mag_fiber, link));
    w->ready_left = 0;
    if (w->next) {
        struct mag_fiber *f = w->next;
        w->next = NULL;
        adopt(rescuer, w, f);
    }
}

/* In the rescuer's loop, with none of its fibers between here and there. */
static void rescue(struct mag_message *m, struct mag_worker *rescuer)
{
    struct mag_worker *w = mag_container_of(m, struct mag_worker, rescue);
    mag_time now = mag_clock_now();

    mag_store_seq(&w->rescue_sent, 0);
    if (mag_load_relaxed(&w->rt->is_stopping) || !take_place(w)) /* all tasks have ended */
        return;
    (void)mag_ring_reap_posted(w->ring);
    if (mag_timers_next(&w->timers) <= now)
        mag_timers_expire(&w->timers, now);
    take_messages(rescuer, w);
    take_ready(rescuer, w);
    take_messages(rescuer, w); /* of cancels that were among them */
    mag_store_release(&w->is_rescued, 0);
}

/* Posted messages are delivered while a fiber looks for what runs next (worker.c, pick), and
 * is about to leave its stack: so this one is put off to the next look around. */
static void answer(struct mag_message *m, struct mag_worker *rescuer)
{
    struct mag_worker *w = mag_container_of(m, struct mag_worker, rescue);

    if (rescuer == w) {
        mag_store_seq(&w->rescue_sent, 0);
        return;
    }
    m->deliver = rescue;
    mag_inbox_push(&rescuer->inbox, &m->inbox);
    mag_store_relaxed(&rescuer->budget, 0);
}

/* ---- the watchdog ------------------------------------------------------------------------------ */

/* Hints, read without any order: what is missed is seen the next time. */
#define HINT(field) (*(const volatile __typeof__(field) *)&(field))

MAG_RACY static bool has_operations(const struct mag_worker *w)
{
    return HINT(w->ring->n_in_flight) != 0;
}

MAG_RACY static bool has_hostages(const struct mag_worker *w)
{
    return has_operations(w) || !mag_inbox_empty(&w->inbox) || HINT(w->ready.count) != 0 ||
           HINT(w->next) != NULL || HINT(w->timers.count) != 0;
}

void mag_rescue_worker(struct mag_worker *w)
{
    uint32_t none = 0;

    if (w->rt->n_workers < 2 || !has_hostages(w) || !mag_cas(&w->rescue_sent, &none, 1))
        return;
    if (!MAG_TSAN && has_operations(w)) { /* its runtime does not bear signals on a fiber */
        (void)mag_sys_tgkill(mag_load_acquire(&w->tid), MAG_SAMPLE_SIGNAL);
        (void)mag_sys_sleep(HANDLER_NS);
    }
    w->rescue.deliver = answer;
    mag_worker_post(w->rt, &w->rescue);
}
