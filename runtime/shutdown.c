/* SPDX-License-Identifier: MIT */
/*
 * shutdown.c - how a runtime comes to rest
 *
 *      cancel    detached tasks; everything, if the main coroutine failed or time is up
 *      drain     wait until all tasks have ended: while they clean up, everything still
 *                works, callbacks, timers and the offload pool included
 *      close     callbacks that are not due are dropped
 *      generators that rest are closed, which may run more tasks: so drained again
 *      collect   when the workers are gone: what nobody awaited is reported, and freed
 *
 * Drained?  Each worker counts the tasks begun and ended on it, and only it writes its
 * counters.  Whoever asks reads all `ended' first and then all `begun': both only grow and
 * ended <= begun at all times, so if the sums are equal, then at the moment between the two
 * readings nothing ran; and what does not run begins nothing, but for callbacks.  A
 * callback counts itself and then looks at is_closing (K); we set that and then count again
 * (L), so that one of the two sees the other.
 *
 * Callbacks outlive the tasks, although a program that ends does not wait for them: a task
 * that is still running may wait for what a callback is about to set.
 *
 * Who may call: the thread that stops the runtime, which is none of its workers; of an
 * embedded one its owner, who steps it while he waits.
 */
#include "shutdown.h"

#include "call.h"
#include "cancel.h"
#include "clock.h"
#include "co.h"
#include "check.h"
#include "embed.h"
#include "gen.h"
#include "mem.h"
#include "misuse.h"
#include "report.h"
#include "symbol.h"
#include "sys.h"

#include <errno.h>
#include <magpie/inspect.h>

#define LOOK_AGAIN_NS (100 * MAG_MS)

/* ---- draining ------------------------------------------------------------------------------ */

static bool is_drained(struct mag_rt *rt)
{
    uint64_t n_ended = 0, n_begun = 0;

    for (unsigned i = 0; i < rt->n_workers; i++)
        n_ended += mag_load_acquire(&rt->workers[i].n_ended);
    mag_fence_seq(); /* (I) pairs with shutdown.c (I): the readings do not overlap */
    n_begun = mag_load_acquire(&rt->n_submitted);
    for (unsigned i = 0; i < rt->n_workers; i++)
        n_begun += mag_load_acquire(&rt->workers[i].n_spawned);
    return n_ended == n_begun;
}

/* Whether it is over for good; if not, callbacks may run again. */
static bool close_if_drained(struct mag_rt *rt)
{
    if (!is_drained(rt))
        return false;
    mag_store_seq(&rt->is_closing, MAG_CLOSING_ASKED);
    mag_fence_seq(); /* (L) pairs with call.c (K) */
    if (is_drained(rt))
        return true;
    mag_store_seq(&rt->is_closing, MAG_CLOSING_NOT);
    return false;
}

static void wait_for_progress(struct mag_rt *rt, uint32_t seen, mag_time deadline)
{
    mag_time left = deadline - mag_clock_now();

    left = left < LOOK_AGAIN_NS ? left : LOOK_AGAIN_NS;
    if (left <= 0)
        return;
    if (rt->embed)
        (void)mag_embed_step(rt, left, NULL);
    else
        (void)mag_sys_futex_wait(&rt->progress, seen, left);
}

void mag_shutdown_cancel(struct mag_rt *rt, enum mag_cancel_level level)
{
    mag_store_seq(&rt->cancel_level, level);
    for (unsigned i = 0; i < rt->n_workers; i++) {
        struct mag_worker *w = &rt->workers[i];
        uint32_t idle = 0;
        if (!mag_cas(&w->sweep_sent, &idle, 1)) /* it will look at the level again */
            continue;
        w->sweep.deliver = mag_cancel_sweep;
        mag_worker_send(w, &w->sweep);
    }
}

static int drain_tasks(struct mag_rt *rt, mag_time deadline)
{
    for (;;) {
        uint32_t progress = mag_load_acquire(&rt->progress);

        if (close_if_drained(rt))
            return 0;
        if (mag_clock_now() >= deadline)
            return -ETIMEDOUT;
        wait_for_progress(rt, progress, deadline);
    }
}

/* ---- looking at what is there ------------------------------------------------------------------ */

enum { FOUND_MAX = 16 };

struct search {
    struct mag_rt *rt;
    bool (*is_wanted)(const struct mag_task *t, uint32_t kind);
    struct mag_task *found[FOUND_MAX];
    unsigned n;
};

/* By address only: of an object of another runtime it may be gone. */
static bool is_home_of(const struct mag_rt *rt, uintptr_t home)
{
    if (rt == NULL)
        return home == 0;
    return home >= (uintptr_t)rt->workers && home < (uintptr_t)(rt->workers + rt->n_workers);
}

static void find_one(struct mag_slab_head *block, void *arg)
{
    struct search *s = arg;
    struct mag_task *t = mag_container_of(block, struct mag_task, head);
    uint32_t kind = mag_load_acquire(&block->used);

    if ((kind == MAG_COROUTINE || kind == MAG_FUTURE) && s->n < FOUND_MAX &&
        is_home_of(s->rt, mag_load_relaxed(&t->home)) && s->is_wanted(t, kind))
        s->found[s->n++] = t;
}

/* Up to FOUND_MAX of them. */
static void search(struct search *s)
{
    s->n = 0;
    mag_slab_foreach(find_one, s);
}

/* ---- generators ---------------------------------------------------------------------------------- */

/* One that rests: nobody has closed it. */
static bool is_open_generator(const struct mag_task *t, uint32_t kind)
{
    return kind == MAG_COROUTINE && t->work.run == mag_gen_run && !mag_task_is_done(t);
}

struct closing {
    void *gen;
};

static int close_generator(void *frame, void *result)
{
    (void)result;
    (void)mag_gen_close(((struct closing *)frame)->gen); /* whose end nobody waits for */
    return 0;
}

static const struct mag_co_type closing_type = {
    .name = "mag_gen_close",
    .body = close_generator,
    .frame_bytes = sizeof(struct closing),
    .defined = { __FILE__, __LINE__, "mag_gen_close" },
};

static void origin_text(const struct mag_task *t, char *text, size_t n)
{
    const struct mag_site *site = mag_task_site(t);
    char place[256];

    if (site) {
        mag_check_text(text, n, "spawned at %s:%d", site->file, site->line);
        return;
    }
    mag_symbol_name(t->made_at, place, sizeof place);
    mag_check_text(text, n, "created at %s", place);
}

/* In a task of the runtime, as its cleanups may suspend; false: without memory. */
static bool close_in_task(struct mag_rt *rt, struct mag_task *gen)
{
    struct closing *c = mag_co_new(&closing_type, NULL);
    char origin[300];

    origin_text(gen, origin, sizeof origin);
    mag_report(rt, "generator '%s' was never closed (%s)", mag_task_name(gen), origin);
    if (c == NULL)
        return false;
    c->gen = mag_task_frame(gen);
    if (mag_submit(rt, c, NULL) < 0) {
        mag_close(c);
        return false;
    }
    return true;
}

/* 1 if there were any, which are closed now; 0; or -ETIMEDOUT.  Who closes them is not
 * cancelled, as all else is. */
static int close_generators(struct mag_rt *rt, mag_time deadline)
{
    struct search s = { .rt = rt, .is_wanted = is_open_generator };
    uint32_t level = mag_load_relaxed(&rt->cancel_level);
    bool has_begun = false;
    int rc;

    search(&s);
    if (s.n == 0)
        return 0;
    mag_store_seq(&rt->cancel_level, MAG_CANCEL_NONE);
    mag_store_seq(&rt->is_closing, MAG_CLOSING_NOT); /* they may wait for callbacks */
    for (unsigned i = 0; i < s.n; i++)
        has_begun |= close_in_task(rt, s.found[i]);
    rc = drain_tasks(rt, deadline);
    mag_store_seq(&rt->cancel_level, level);
    return rc < 0 ? rc : has_begun;
}

int mag_shutdown_drain(struct mag_rt *rt, mag_time deadline)
{
    int rc;

    mag_store_seq(&rt->is_draining, 1);
    if (mag_load_relaxed(&rt->cancel_level) < MAG_CANCEL_DETACHED)
        mag_shutdown_cancel(rt, MAG_CANCEL_DETACHED);
    rc = drain_tasks(rt, deadline);
    while (rc == 0 && (rc = close_generators(rt, deadline)) > 0)
        rc = 0;
    if (rc == 0)
        mag_store_seq(&rt->is_closing, MAG_CLOSED);
    return rc;
}

/* ---- what does not end ----------------------------------------------------------------------------- */

enum { STUCK_MAX = 64 };

static void report_stuck(struct mag_rt *rt, const struct mag_task_info *t)
{
    char where[300] = "";

    if (t->spawned_at.file)
        mag_check_text(where, sizeof where, " (spawned at %s:%d)", t->spawned_at.file,
                       t->spawned_at.line);
    if (t->is_busy)
        mag_report(rt, "task '%s'%s does not end: it does not suspend, or its worker %u is busy",
                   t->name, where, t->worker);
    else if (t->waiting_for)
        mag_report(rt, "task '%s'%s does not end: it waits for %s %s", t->name, where,
                   t->waiting_for, t->waiting_name);
    else
        mag_report(rt, "task '%s'%s does not end: it is %s", t->name, where,
                   mag_task_state_name(t->state));
}

void mag_shutdown_report(struct mag_rt *rt)
{
    struct mag_task_info *infos = mag_mem_alloc(STUCK_MAX * sizeof *infos);
    size_t n = infos ? mag_tasks(rt, infos, STUCK_MAX) : 0;

    for (size_t i = 0; i < n && i < STUCK_MAX; i++)
        if (infos[i].state != MAG_TASK_DONE && infos[i].state != MAG_TASK_CREATED)
            report_stuck(rt, &infos[i]);
    if (n > STUCK_MAX)
        mag_report(rt, "... and %zu more tasks", n - STUCK_MAX);
    mag_mem_free(infos);
}

/* ---- what nobody awaited -------------------------------------------------------------------------------- */

/* A future that is not set belongs to its setter, too, in whatever thread: it may still
 * come, and frees it. */
static bool is_left(const struct mag_task *t, uint32_t kind)
{
    return kind == MAG_COROUTINE || mag_task_is_done(t);
}

static void report_leftover(struct mag_rt *rt, const struct mag_task *t)
{
    char origin[300];
    int rc = t->rc;

    if (mag_load_relaxed(&t->head.used) != MAG_COROUTINE)
        return;
    if (!mag_load_relaxed(&t->is_begun)) {
        origin_text(t, origin, sizeof origin);
        mag_report(rt, "coroutine '%s' was never awaited (%s)", mag_task_name(t), origin);
    } else if (mag_task_is_done(t) && rc < 0 && rc != -ECANCELED) {
        origin_text(t, origin, sizeof origin);
        mag_report(rt, "task '%s' failed with %s and nobody awaited it (%s)", mag_task_name(t),
                   mag_err_name(rc), origin);
    }
}

static bool is_unset(const struct mag_task *t, uint32_t kind)
{
    return kind == MAG_FUTURE && mag_load_acquire(&t->work.slot) == MAG_SLOT_NONE;
}

static void report_futures(struct mag_rt *rt)
{
    struct search s = { .rt = rt, .is_wanted = is_unset };
    char origin[300];

    search(&s);
    for (unsigned i = 0; i < s.n; i++) {
        origin_text(s.found[i], origin, sizeof origin);
        mag_report(rt, "future '%s' was never set (%s)", mag_task_name(s.found[i]), origin);
    }
}

void mag_shutdown_collect(struct mag_rt *rt)
{
    struct search s = { .rt = rt, .is_wanted = is_left };

    if (rt)
        mag_call_drop_all(rt);
    do {
        search(&s);
        for (unsigned i = 0; i < s.n; i++) {
            report_leftover(rt, s.found[i]);
            mag_store_relaxed(&s.found[i]->extra_refs, 0);
            mag_worker_release(s.found[i]);
        }
    } while (s.n == FOUND_MAX);
    if (rt ? rt->is_debug : mag_debug())
        report_futures(rt);
}
