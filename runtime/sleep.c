/* SPDX-License-Identifier: MIT */
/*
 * sleep.c - sleeping, yielding, and calling something later
 *
 * A task that sleeps is a timer of its home worker on its own stack (wait.c).  A
 * mag_sleep_co that is spawned or gathered has no stack at all: it is a leaf, whose
 * timer lies in the object, 200 bytes in all.  Outside a task everything here blocks
 * the thread.
 *
 * Leaf, on its worker's thread:
 *      start: home = worker, arm the timer, fence (G), look for a cancel (H)
 *      fire, or a cancel's message: idle, end
 */
#include "clock.h"
#include "co.h"
#include "sys.h"
#include "wait.h"

#include <errno.h>

/* ---- functions ------------------------------------------------------------------------ */

int mag_sleep_until(mag_time deadline)
{
    return mag_wait_in_task() ? mag_wait_until(deadline) : mag_sys_sleep_until(deadline);
}

int mag_sleep(mag_time duration_ns)
{
    mag_time now = mag_clock_now();

    if (duration_ns < 0)
        return -EINVAL;
    return mag_sleep_until(duration_ns < MAG_NEVER - now ? now + duration_ns : MAG_NEVER);
}

int mag_yield(void)
{
    int rc = mag_worker_yield();

    if (MAG_LIKELY(rc != -ENXIO))
        return rc;
    mag_sys_yield();
    return 0;
}

/* ---- the coroutine ----------------------------------------------------------------------- */

struct mag_sleep_co {
    char value; /* what async.h shows of it */
    mag_time duration;
    struct mag_wait wait;
    struct mag_timer timer;
    void (*fire)(struct mag_timer *timer);
};

static void leaf_end(struct mag_sleep_co *s, int rc)
{
    struct mag_task *t = mag_task_of_frame(s);

    mag_task_set_idle(t, mag_worker_self());
    if (t->is_counted)
        mag_worker_end(mag_worker_self(), t, rc);
    else if (mag_task_end(t, rc))
        mag_worker_release(t);
}

static void leaf_fire(struct mag_timer *timer)
{
    leaf_end(mag_container_of(timer, struct mag_sleep_co, timer), 0);
}

static void leaf_cancel(struct mag_wait *wait)
{
    struct mag_sleep_co *s = mag_container_of(wait, struct mag_sleep_co, wait);

    if (mag_timers_cancel(&mag_worker_self()->timers, &s->timer))
        leaf_end(s, -ECANCELED);
}

/* Returns with the sleep under way; outside a task, with it over. */
static int leaf_start(void *frame, void *result)
{
    struct mag_sleep_co *s = frame;
    struct mag_task *t = mag_task_of_frame(s);
    struct mag_worker *w = mag_worker_self();
    mag_time now = mag_clock_now();
    int rc;

    (void)result;
    if (w == NULL)
        return s->duration < 0 ? -EINVAL : mag_sys_sleep(s->duration);
    s->wait.cancel = leaf_cancel;
    t->leaf_wait = &s->wait;
    mag_timer_init(&s->timer, s->fire);
    rc = s->duration < 0 ? -EINVAL : 0;
    if (rc == 0)
        rc = mag_timers_add(&w->timers, &s->timer,
                            s->duration < MAG_NEVER - now ? now + s->duration : MAG_NEVER);
    if (rc < 0) {
        leaf_end(s, rc);
        return rc;
    }
    mag_task_set_home(t, w);
    mag_fence_seq(); /* (G) pairs with cancel.c (H) */
    if (mag_load_relaxed(&t->is_cancelled) ||
        (t->scope_cancelled && mag_load_relaxed(t->scope_cancelled)))
        leaf_cancel(&s->wait);
    return 0;
}

static const struct mag_co_type sleep_type = {
    .name = "mag_sleep",
    .body = leaf_start,
    .frame_bytes = sizeof(struct mag_sleep_co),
    .defined = { __FILE__, __LINE__, "mag_sleep_co" },
};

struct mag_sleep_co *mag_sleep_co(mag_time duration_ns)
{
    struct mag_task *t = mag_co_make(&sleep_type, MAG_COROUTINE, __builtin_return_address(0));
    struct mag_sleep_co *s;

    if (t == NULL)
        return NULL;
    t->is_leaf = true;
    s = mag_task_frame(t);
    s->duration = duration_ns;
    s->fire = leaf_fire;
    return s;
}

/* ---- callbacks ------------------------------------------------------------------------------- */

/* A leaf too, which nobody awaits: so a runtime that stops cancels it (rt.c). */
struct call {
    struct mag_sleep_co sleep; /* first: leaf_start and leaf_cancel are those of a sleep */
    void (*fn)(void *arg);
    void *arg;
};

static void call_fire(struct mag_timer *timer)
{
    struct mag_sleep_co *s = mag_container_of(timer, struct mag_sleep_co, timer);
    struct call *c = mag_container_of(s, struct call, sleep);

    c->fn(c->arg);
    leaf_end(s, 0);
}

static const struct mag_co_type call_type = {
    .name = "mag_call_later",
    .body = leaf_start,
    .frame_bytes = sizeof(struct call),
    .defined = { __FILE__, __LINE__, "mag_call_later" },
};

int mag_call_later(mag_time delay_ns, void (*fn)(void *arg), void *arg)
{
    struct mag_worker *w = mag_worker_self();
    struct mag_task *t;
    struct call *c;

    if (w == NULL)
        return -ENXIO;
    if (delay_ns < 0 || fn == NULL)
        return -EINVAL;
    t = mag_co_make(&call_type, MAG_COROUTINE, __builtin_return_address(0));
    if (t == NULL)
        return -ENOMEM;
    c = mag_task_frame(t);
    *c =
        (struct call){ .sleep = { .duration = delay_ns, .fire = call_fire }, .fn = fn, .arg = arg };
    t->is_leaf = true;
    t->is_counted = true;
    mag_store_relaxed(&t->is_begun, 1);
    mag_store_relaxed(&t->work.slot, MAG_SLOT_DETACHED);
    mag_store_relaxed(&w->n_spawned, w->n_spawned + 1);
    return leaf_start(c, NULL);
}

/* ---- threads ------------------------------------------------------------------------------------ */

int mag_to_thread(int (*fn)(void *arg), void *arg)
{
    return mag_wait_job(MAG_LANE_USER, fn, arg);
}
