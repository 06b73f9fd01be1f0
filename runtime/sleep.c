/* SPDX-License-Identifier: MIT */
/*
 * sleep.c - sleeping and yielding
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
#include "misuse.h"
#include "sys.h"
#include "wait.h"

#include <errno.h>

/* ---- functions ------------------------------------------------------------------------ */

int mag_sleep_until(mag_time deadline)
{
    int rc;

    if (mag_wait_in_task())
        return mag_wait_until(deadline);
    rc = mag_wait_outside();
    return rc < 0 ? rc : mag_sys_sleep_until(deadline);
}

int mag_sleep(mag_time duration_ns)
{
    if (duration_ns < 0)
        return mag_misuse(-EINVAL, "mag_sleep() of less than zero");
    return mag_sleep_until(mag_clock_after(duration_ns));
}

int mag_yield(void)
{
    int rc = mag_worker_yield();

    if (MAG_LIKELY(rc != -ENXIO))
        return rc;
    rc = mag_wait_outside();
    if (rc == 0)
        mag_sys_yield();
    return rc;
}

/* ---- the coroutine ----------------------------------------------------------------------- */

struct mag_sleep_co {
    char value; /* what async.h shows of it */
    mag_time duration;
    struct mag_wait wait;
    struct mag_timer timer;
    void (*fire)(struct mag_timer *timer);
};

enum { IS_CANCELLED = -1 }; /* the duration of a sleep under way that was cancelled */

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
    struct mag_sleep_co *s = mag_container_of(timer, struct mag_sleep_co, timer);

    leaf_end(s, s->duration == IS_CANCELLED ? -ECANCELED : 0);
}

static void leaf_cancel(struct mag_wait *wait)
{
    struct mag_sleep_co *s = mag_container_of(wait, struct mag_sleep_co, wait);

    struct mag_worker *home = mag_task_home(mag_task_of_frame(s));
    bool is_rescue = home != mag_worker_self(); /* which has the owner's place already */
    uint32_t was = is_rescue ? 0 : mag_worker_enter(home);
    bool is_cancelled = mag_timers_cancel(&home->timers, &s->timer);

    if (is_cancelled) { /* it ends in the loop, where what its end brings about may run */
        s->duration = IS_CANCELLED;
        (void)!mag_timers_add(&home->timers, &s->timer, 0); /* there is room: it just left */
    }
    if (!is_rescue)
        mag_worker_leave(home, was);
}

static const struct mag_wait_kind leaf_wait = { "sleep", leaf_cancel, false };

/* Returns with the sleep under way; outside a task, with it over. */
static int leaf_start(void *frame, void *result)
{
    struct mag_sleep_co *s = frame;
    struct mag_task *t = mag_task_of_frame(s);
    struct mag_worker *w = mag_worker_self();
    mag_time now = mag_clock_now();
    uint32_t was;
    int rc;

    (void)result;
    if (w == NULL)
        return s->duration < 0 ? -EINVAL : mag_sys_sleep(s->duration);
    s->wait = (struct mag_wait){ &leaf_wait, NULL };
    t->leaf_wait = &s->wait;
    mag_timer_init(&s->timer, s->fire);
    rc = s->duration < 0 ? -EINVAL : 0;
    was = mag_worker_enter(w);
    if (rc == 0)
        rc = mag_timers_add(&w->timers, &s->timer,
                            s->duration < MAG_NEVER - now ? now + s->duration : MAG_NEVER);
    if (rc == 0) {
        mag_task_set_home(t, w);
        mag_fence_seq(); /* (G) pairs with cancel.c (H) */
        if (mag_task_is_cancelled(t))
            leaf_cancel(&s->wait);
    }
    mag_worker_leave(w, was); /* from here on a rescuer may end it */
    if (rc < 0)
        leaf_end(s, rc);
    return rc;
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

/* ---- threads ------------------------------------------------------------------------------------ */

int mag_to_thread(int (*fn)(void *arg), void *arg)
{
    return mag_wait_job(MAG_LANE_USER, fn, arg);
}
