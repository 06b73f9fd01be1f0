/* SPDX-License-Identifier: MIT */
/*
 * wait.c - the ways to block, all of one shape
 *
 *      struct mag_wait on the caller's stack      fiber->wait = &it
 *      register with who will end the wait        timer, ring, pool, task
 *      suspend                                    (a registration that another thread
 *                                                  can answer is made in the commit step)
 *      the answer, or a cancel: both on the       mag_worker_ready(fiber), once
 *      home's thread, or deciding by one CAS
 *
 * Exactly one of answer and cancel makes the fiber ready:
 *   timer   both on the home's thread: whoever finds it armed;
 *   op      a cancel only asks the ring, the completion answers;
 *   job     the pool's lock decides whether it was still queued;
 *   task    a cancel only cancels the task, its end answers;
 *   future  a CAS takes the waiter back, or comes too late.
 * The loser touches nothing of the fiber, which clears fiber->wait when it resumes.
 *
 * (G) in mag_worker_check_chain covers a cancel that came before the registration.
 */
#include "wait.h"

#include "cancel.h"
#include "misuse.h"
#include "ring.h"
#include "scope.h"
#include "sys.h"

#include <errno.h>

bool mag_wait_in_task(void)
{
    return mag_fiber_self() != NULL;
}

int mag_wait_outside(void)
{
    return mag_worker_self() == NULL
               ? 0
               : mag_misuse(-ENXIO, "a callback must not suspend: it would block its worker; "
                                    "let it spawn a task instead");
}

int mag_wait_checkpoint(void)
{
    struct mag_worker *w = mag_worker_self();

    mag_scope_poll(w->fiber);
    if (mag_worker_is_cancelled(w->fiber))
        return -ECANCELED;
    mag_store_relaxed(&w->budget, w->budget - 1);
    if (w->budget <= 0) /* this task has had its share: the loop looks around */
        return mag_worker_yield();
    return 0;
}

int mag_wait_begin(struct mag_fiber *f, struct mag_wait *wait)
{
    int rc;

    if (mag_worker_is_cancelled(f))
        return -ECANCELED;
    rc = mag_scope_arm(f);
    if (rc == 0)
        f->wait = wait;
    return rc;
}

/* The commit step: the fiber is off its stack, and its deadline does not bind it. */
static void make_portable(void *arg)
{
    struct mag_fiber *f = arg;

    /* the timer of a scope that has been put off for good */
    if (MAG_UNLIKELY(mag_timer_is_armed(&f->timer)) && f->deadline == MAG_NEVER)
        (void)mag_timers_cancel(&f->home->timers, &f->timer);
    mag_store_release(&f->is_portable, !mag_timer_is_armed(&f->timer));
}

void mag_wait_suspend_portable(struct mag_fiber *f)
{
    mag_worker_suspend(make_portable, f);
    mag_store_relaxed(&f->is_portable, false);
}

/* ---- time ------------------------------------------------------------------------------ */

struct sleep {
    struct mag_wait wait;
    struct mag_timer timer;
    struct mag_fiber *fiber;
    int rc;
};

static void sleep_fire(struct mag_timer *timer)
{
    mag_worker_ready(mag_container_of(timer, struct sleep, timer)->fiber);
}

static void sleep_cancel(struct mag_wait *wait)
{
    struct sleep *s = mag_container_of(wait, struct sleep, wait);

    if (!mag_timers_cancel(&s->fiber->home->timers, &s->timer))
        return;
    s->rc = -ECANCELED;
    mag_worker_ready(s->fiber);
}

static const struct mag_wait_kind sleep_kind = { "sleep", sleep_cancel, false };

int mag_wait_until(mag_time deadline)
{
    struct mag_worker *w = mag_worker_self();
    struct sleep s = { .wait = { &sleep_kind, NULL }, .fiber = w->fiber };
    int rc = mag_wait_begin(s.fiber, &s.wait);

    if (rc < 0)
        return rc;
    mag_timer_init(&s.timer, sleep_fire);
    (void)mag_worker_enter(w);
    rc = mag_timers_add(&w->timers, &s.timer, deadline);
    if (rc < 0) {
        mag_worker_leave(w, 0);
        mag_wait_abandon(s.fiber);
        return rc;
    }
    mag_worker_suspend(NULL, NULL);
    return s.rc;
}

/* ---- operations --------------------------------------------------------------------------- */

struct op_wait {
    struct mag_wait wait;
    struct mag_op *op;
};

static void op_complete(struct mag_op *op)
{
    mag_worker_ready(op->owner);
}

/* The completion may have come, with the fiber ready but not yet resumed. */
static void op_cancel(struct mag_wait *wait)
{
    struct op_wait *o = mag_container_of(wait, struct op_wait, wait);

    if (o->op->state)
        mag_ring_cancel(mag_worker_self()->ring, o->op);
}

static const struct mag_wait_kind op_kind = { "operation", op_cancel, true };

int mag_wait_op_shielded(struct mag_op *op)
{
    struct mag_worker *w = mag_worker_self();

    op->complete = op_complete;
    op->owner = w->fiber;
    (void)mag_worker_enter(w);
    mag_ring_submit(w->ring, op);
    mag_worker_suspend(NULL, NULL);
    return op->result;
}

int mag_wait_op(struct mag_op *op)
{
    struct mag_fiber *f = mag_fiber_self();
    struct op_wait o = { .wait = { &op_kind, NULL }, .op = op };
    int rc = mag_wait_begin(f, &o.wait);

    return rc < 0 ? rc : mag_wait_op_shielded(op);
}

/* ---- jobs ---------------------------------------------------------------------------------- */

struct job_wait {
    struct mag_wait wait;
    struct mag_job job;
    struct mag_offload *offload;
    struct mag_fiber *fiber;
    enum mag_lane lane;
    int (*fn)(void *arg);
    void *arg;
    int rc;
};

static void job_run(struct mag_job *job)
{
    struct job_wait *j = mag_container_of(job, struct job_wait, job);

    j->rc = j->fn(j->arg);
}

static void job_done(struct mag_job *job)
{
    mag_worker_ready(mag_container_of(job, struct job_wait, job)->fiber);
}

static void job_cancel(struct mag_wait *wait)
{
    struct job_wait *j = mag_container_of(wait, struct job_wait, wait);

    if (!mag_offload_cancel(j->offload, &j->job))
        return;
    j->rc = -ECANCELED;
    mag_worker_ready(j->fiber);
}

static const struct mag_wait_kind job_kind = { "thread", job_cancel, false };

/* After the switch, so that the fiber is suspended when a pool thread has it ready. */
static void job_submit(void *arg)
{
    struct job_wait *j = arg;
    int rc = mag_offload_submit(j->offload, j->lane, &j->job);

    if (rc == 0)
        return;
    j->rc = rc;
    mag_worker_ready(j->fiber);
}

int mag_wait_job(enum mag_lane lane, int (*fn)(void *arg), void *arg)
{
    struct mag_worker *w = mag_worker_self();
    struct job_wait j = { .wait = { &job_kind, NULL }, .lane = lane, .fn = fn, .arg = arg };
    int rc;

    if (w == NULL)
        return fn(arg);
    if (w->fiber == NULL)
        return mag_wait_outside();
    rc = mag_wait_begin(w->fiber, &j.wait);
    if (rc < 0)
        return rc;
    j.offload = &w->rt->offload;
    j.fiber = w->fiber;
    mag_job_init(&j.job, job_run, job_done);
    mag_worker_suspend(job_submit, &j);
    return j.rc;
}

/* ---- tasks and futures ------------------------------------------------------------------------ */

struct task_wait {
    struct mag_wait wait;
    struct mag_task *task;
    struct mag_fiber *fiber;
    int rc;
};

static bool is_future(const struct mag_task *t)
{
    return mag_load_relaxed(&t->head.used) == MAG_FUTURE;
}

/* The task's end answers; a future's waiter is taken back, unless that is under way. */
static void task_cancel(struct mag_wait *wait)
{
    struct task_wait *a = mag_container_of(wait, struct task_wait, wait);

    if (!is_future(a->task)) {
        mag_cancel_task(a->task);
    } else if (mag_task_unwait(a->task, &a->fiber->waiter)) {
        a->rc = -ECANCELED;
        mag_worker_ready(a->fiber);
    }
}

static const struct mag_wait_kind task_kind = { "task", task_cancel, false };

static void task_register(void *arg)
{
    struct task_wait *a = arg;
    int rc;

    make_portable(a->fiber);
    rc = mag_task_wait(a->task, &a->fiber->waiter);
    if (rc == 0)
        return;
    a->rc = rc == -EALREADY ? 0 : rc;
    mag_worker_ready(a->fiber);
}

int mag_wait_task(struct mag_fiber *f, struct mag_task *t)
{
    struct task_wait a = { .wait = { &task_kind, mag_task_frame(t) }, .task = t, .fiber = f };
    int rc = mag_wait_begin(f, &a.wait);

    if (rc < 0) {
        if (is_future(t))
            return mag_task_is_done(t) ? 0 : rc;
        mag_cancel_task(t);
        f->wait = &a.wait;
    }
    mag_worker_suspend(task_register, &a);
    mag_store_relaxed(&f->is_portable, false);
    return a.rc;
}

struct thread_wait {
    struct mag_waiter waiter;
    mag_atomic(uint32_t) is_done;
};

/* After the store the waiting thread may be gone: the wake is of an address only. */
static void thread_notify(struct mag_waiter *waiter, struct mag_task *ended)
{
    struct thread_wait *a = mag_container_of(waiter, struct thread_wait, waiter);

    (void)ended;
    mag_store_seq(&a->is_done, 1);
    mag_sys_futex_wake(&a->is_done, 1);
}

int mag_wait_task_outside(struct mag_task *t)
{
    struct thread_wait a = { .waiter.notify = thread_notify };
    int rc = mag_task_is_done(t) ? 0 : mag_wait_outside();

    if (rc < 0)
        return rc;
    rc = mag_task_wait(t, &a.waiter);
    if (rc < 0)
        return rc == -EALREADY ? 0 : -EALREADY;
    while (!mag_load_acquire(&a.is_done))
        mag_sys_futex_wait(&a.is_done, 0, MAG_NEVER);
    return 0;
}
