/* SPDX-License-Identifier: MIT */
/*
 * loop.c - a worker's thread: look around, run, search, sleep
 *
 *      look around -> run what is ready (worker.c) -> nothing? search elsewhere -> sleep
 *           ^                    |                          | found              | woken
 *           +--------------------+--------------------------+--------------------+
 *
 * Looking around: submissions go to the kernel and completions come back, in batches;
 * messages are delivered; timers fire; fibers that are too many here are given away.
 *
 * Searching: at most half of the workers spin for some 50 us, on their own ring and inbox
 * too, because waking a sleeper costs more than that; they steal what is public and
 * ask for what is private (deque.c), and publish for an owner who does not answer.  A
 * thief whose last catch was too small waits a little longer each time: short parallel
 * regions lose on many hungry workers.
 *
 * Sleeping: in the ring, until the next timer.  idle.c says why no wake-up is lost.  While
 * others are busy, one of the sleepers wakes now and then to publish for owners who
 * compute without end.
 *
 * Who may call: the thread is the worker's; mag_loop_init and _fini are the runtime's.
 */
#include "loop.h"

#include "check.h"
#include "clock.h"
#include "fiber.h"
#include "ring.h"
#include "sys.h"

enum {
    FORCE_NS = 20 * 1000, /* a search this long may publish for a silent owner     */
    WAKES_PER_POLL = 20,  /* a worker rings for help so often in MAG_POLL_NS       */
    TINY_NS = 3000,       /* stolen work shorter than this was not worth it        */
    BACKOFF_MAX_NS = 8000,
    WATCH_NS = 10 * 1000 * 1000, /* a sleeper looks after busy workers so often       */
};

/* ---- looking around --------------------------------------------------------------------- */

static void deliver_list(struct mag_inbox_node *node, struct mag_worker *w)
{
    struct mag_inbox_node *next;

    for (; node; node = next) {
        struct mag_message *m = mag_container_of(node, struct mag_message, inbox);
        next = node->next;
        m->deliver(m, w);
        w->n_done++;
    }
}

/* What a rescuer has left is older. */
static void deliver_all(struct mag_worker *w)
{
    struct mag_inbox_node *kept = w->kept;

    w->kept = NULL;
    deliver_list(kept, w);
    if (!mag_inbox_empty(&w->inbox))
        deliver_list(mag_inbox_take(&w->inbox), w);
}

/* Keeps the length of MAG_POLL_NS in ticks, from intervals long enough to measure. */
static void measure_ticks(struct mag_worker *w, mag_time now)
{
    uint64_t ticks = mag_clock_ticks();

    if (now - w->polled_at > MAG_POLL_NS / 64)
        w->poll_ticks = (uint64_t)((double)(ticks - w->polled_ticks) * MAG_POLL_NS /
                                   (double)(now - w->polled_at));
    w->polled_at = now;
    w->polled_ticks = ticks;
}

/* Looks at everything that may have come from outside.  On the loop's stack. */
static void look_around(struct mag_worker *w)
{
    mag_time now = mag_clock_now();

    measure_ticks(w, now);
    mag_store_relaxed(&w->budget, MAG_POLL_RUNS);
    w->owes_oldest = true;
    if (w->next) { /* its turn comes, after those who have waited longer */
        mag_fifo_push_back(&w->ready, &w->next->link);
        w->next = NULL;
    }
    if (mag_ring_due(w->ring)) {
        MAG_CHECK(mag_ring_flush(w->ring) == 0);
        w->n_done += mag_ring_reap(w->ring);
    }
    deliver_all(w);
    if (mag_timers_next(&w->timers) <= now)
        w->n_done += mag_timers_expire(&w->timers, now);
    mag_worker_give_away(w);
}

/* ---- searching and sleeping ----------------------------------------------------------- */

static struct mag_worker *victim(struct mag_worker *w, unsigned i)
{
    return &w->rt->workers[i % w->rt->n_workers];
}

static struct mag_work *steal(struct mag_worker *w)
{
    unsigned first = mag_rand_below(&w->rand, w->rt->n_workers);
    struct mag_work *work = NULL;

    for (unsigned i = 0; i < w->rt->n_workers && !work; i++) {
        struct mag_worker *v = victim(w, first + i);
        if (v != w)
            work = mag_deque_steal(&w->deque, &v->deque);
    }
    return work;
}

/* Owners who compute and do not answer: publishes for one of them. */
static void force(struct mag_worker *w)
{
    for (unsigned i = 0; i < w->rt->n_workers; i++) {
        struct mag_deque *d = &victim(w, i)->deque;
        if (d != &w->deque && !mag_deque_has_public(d) && !mag_deque_is_empty(d) &&
            mag_deque_force(d))
            return;
    }
}

/* Whoever pushes next will see that we are hungry. */
static void ask_all(struct mag_worker *w)
{
    mag_fence_seq(); /* (F) pairs with deque.c (E) */
    for (unsigned i = 0; i < w->rt->n_workers; i++)
        if (victim(w, i) != w)
            mag_store_relaxed(&victim(w, i)->deque.hot.lim, 0);
}

/* Short stolen works are not worth a steal: each makes the thief wait a little longer. */
static void back_off(struct mag_worker *w, mag_time now)
{
    mag_time until;

    if (now - w->stole_at > TINY_NS)
        w->backoff = 0;
    else
        w->backoff = w->backoff ? 2 * w->backoff : TINY_NS / 6;
    if (w->backoff > BACKOFF_MAX_NS)
        w->backoff = BACKOFF_MAX_NS;
    for (until = now + w->backoff; now < until && mag_inbox_empty(&w->inbox); now = mag_clock_now())
        mag_cpu_relax();
}

/* Spins for work; the ring, which is this worker's alone, included. */
static struct mag_work *search(struct mag_worker *w)
{
    mag_time begun = mag_clock_now(), now = begun;
    struct mag_work *work = NULL;

    ask_all(w);
    back_off(w, now);
    while (work == NULL && now - begun < MAG_SPIN_NS) {
        if (mag_load_relaxed(&w->rt->is_stopping))
            break;
        look_around(w);
        if (mag_worker_has_work(w))
            break;
        work = steal(w);
        if (work == NULL && now - begun > FORCE_NS)
            force(w);
        for (int i = 0; i < 8 && work == NULL; i++)
            mag_cpu_relax();
        now = mag_clock_now();
    }
    if (work) {
        w->stole_at = mag_clock_now();
        mag_store_relaxed(&w->n_steals, w->n_steals + 1);
    }
    return work;
}

/* The last look, after it was announced that we sleep: step 3 of idle.c.  For anybody: */
static bool sees_public_work(struct mag_worker *w)
{
    if (mag_load_seq(&w->rt->n_injected) != 0)
        return true;
    for (unsigned i = 0; i < w->rt->n_workers; i++)
        if (mag_deque_has_public(&victim(w, i)->deque))
            return true;
    return false;
}

/* ... and for this worker. */
static bool sees_own_work(struct mag_worker *w)
{
    return mag_load_seq(&w->rt->is_stopping) || !mag_inbox_empty_seq(&w->inbox) ||
           mag_ring_pending(w->ring);
}

bool mag_loop_sees_work(struct mag_worker *w)
{
    return sees_public_work(w) || sees_own_work(w);
}

/*
 * While some workers are busy one of the sleepers wakes now and then, to publish for
 * owners who compute without end.
 */
void mag_loop_park(struct mag_worker *w, mag_time until)
{
    struct mag_idle *idle = &w->rt->idle;
    struct mag_sleeper *s = &idle->sleepers[w->id];
    mag_time deadline = mag_timers_next(&w->timers);
    uint32_t watch = 0;
    bool is_watch, sees_public;

    mag_idle_park(idle, s);
    ask_all(w);
    if (mag_load_relaxed(&w->rt->is_draining))
        mag_worker_progress(w->rt);
    is_watch = mag_load_relaxed(&idle->n_parked) < idle->n && mag_cas(&idle->has_watch, &watch, 1);
    if (is_watch && deadline > w->polled_at + WATCH_NS)
        deadline = w->polled_at + WATCH_NS;
    sees_public = sees_public_work(w);
    mag_store_relaxed(&w->n_parks, w->n_parks + 1);
    if (!sees_public && !sees_own_work(w))
        MAG_CHECK(mag_ring_sleep(w->ring, deadline < until ? deadline : until) == 0);
    if (is_watch)
        mag_store_relaxed(&idle->has_watch, 0);
    mag_idle_unpark(idle, s);
    if (MAG_UNLIKELY(mag_load_seq(&w->rt->watch_sleeps)) && mag_xchg(&w->rt->watch_sleeps, 0))
        mag_sys_futex_wake(&w->rt->watch_sleeps, 1);
    if (sees_public)
        mag_idle_search_again(idle, s);
}

static struct mag_fiber *idle(struct mag_worker *w)
{
    struct mag_idle *i = &w->rt->idle;
    struct mag_sleeper *s = &i->sleepers[w->id];
    struct mag_work *work = NULL;
    bool has_found;

    if (mag_idle_search_begin(i, s)) {
        work = search(w);
        has_found = work != NULL || mag_worker_has_work(w);
        mag_idle_search_end(i, s, has_found);
        if (has_found)
            return work ? mag_worker_start(w, work) : NULL;
    }
    mag_loop_park(w, MAG_NEVER);
    look_around(w);
    return NULL;
}

static void run(struct mag_worker *w, struct mag_fiber *f)
{
    /* one that was woken to search has found something, by whatever way */
    mag_idle_search_end(&w->rt->idle, &w->rt->idle.sleepers[w->id], true);
    w->n_done++;
    mag_worker_run(w, f);
}

bool mag_loop_turn(struct mag_worker *w)
{
    struct mag_fiber *f;

    if (w->budget <= 0)
        look_around(w);
    f = mag_worker_pick(w);
    if (f) {
        run(w, f);
        return true;
    }
    if (!mag_worker_has_work(w))
        look_around(w);
    return mag_worker_has_work(w);
}

static void loop(struct mag_worker *w)
{
    while (!mag_load_relaxed(&w->rt->is_stopping)) {
        struct mag_fiber *f = mag_loop_turn(w) ? NULL : idle(w);

        if (f)
            run(w, f);
    }
}

/* ---- life ---------------------------------------------------------------------------------- */

/* The deque's upward call: something is public.  Rings for help, not too often. */
static bool is_anybody_hungry(struct mag_deque *d)
{
    struct mag_worker *w = (struct mag_worker *)d;
    struct mag_idle *idle = &w->rt->idle;
    uint64_t ticks;

    if (!mag_idle_is_hungry(idle))
        return false;
    if (mag_load_relaxed(&idle->n_searching) == 0 && mag_deque_has_public(d)) {
        ticks = mag_clock_ticks();
        if (ticks - w->woke_ticks > w->poll_ticks / WAKES_PER_POLL) {
            w->woke_ticks = ticks;
            mag_idle_notify(idle);
        }
    }
    return true;
}

int mag_loop_init(struct mag_worker *w, struct mag_rt *rt, unsigned id)
{
    int rc = mag_deque_init(&w->deque, is_anybody_hungry);

    if (rc < 0)
        return rc;
    w->rt = rt;
    w->id = id;
    w->is_inside = 1; /* as the loop is */
    mag_fifo_init(&w->ready);
    mag_fifo_init(&w->local);
    mag_timers_init(&w->timers);
    mag_inbox_init(&w->inbox);
    mag_rand_init(&w->rand, mag_rand_seed());
    return 0;
}

/* Only callbacks that will not run can be left in the heap, and they are gone (call.c). */
void mag_loop_fini(struct mag_worker *w)
{
    w->timers.count = 0;
    mag_timers_fini(&w->timers);
    mag_deque_fini(&w->deque);
}

static void wait_for_all(mag_atomic(uint32_t) * count, uint32_t all)
{
    uint32_t n = mag_fetch_add(count, 1) + 1;

    if (n == all)
        mag_sys_futex_wake(count, (int)all);
    while ((n = mag_load_acquire(count)) < all)
        mag_sys_futex_wait(count, n, MAG_NEVER);
}

/* Waits until everybody who could ring for us is past doing so.  What came in the last moment,
 * such as a question that nobody waits for any more, is answered: it may own memory. */
static void leave_together(struct mag_worker *w, bool has_begun)
{
    wait_for_all(&w->rt->n_left, w->rt->n_workers + 1);
    if (has_begun)
        deliver_all(w);
    wait_for_all(&w->rt->n_swept, w->rt->n_workers);
}

static void started(struct mag_worker *w, int rc)
{
    w->start_rc = rc;
    mag_fetch_add(&w->rt->n_started, 1);
    mag_sys_futex_wake(&w->rt->n_started, 1);
}

static int set_up(struct mag_worker *w)
{
    int rc = mag_worker_reserve(w);

    if (rc < 0)
        return rc;
    rc = mag_ring_open(&w->ring, NULL);
    if (rc < 0) {
        mag_fiber_destroy(w->reserve, &w->rt->stacks); /* it has never run */
        w->reserve = NULL;
        return rc;
    }
    w->rt->idle.sleepers[w->id].ring = w->ring;
    mag_store_relaxed(&w->tid, mag_sys_gettid());
    mag_context_thread(&w->context);
    mag_slab_open(&w->slab);
    return 0;
}

int mag_loop_open(struct mag_worker *w, struct mag_stack_alt *alt)
{
    int rc = mag_stack_altstack_init(alt);

    if (rc < 0)
        return rc;
    w->is_debug = w->rt->is_debug;
    rc = set_up(w);
    if (rc < 0)
        mag_stack_altstack_fini(alt);
    return rc;
}

void mag_loop_enter(struct mag_worker *w)
{
    mag_tls_hot = w ? &w->deque.hot : NULL;
}

void mag_loop_close(struct mag_worker *w, struct mag_stack_alt *alt)
{
    deliver_all(w); /* of an embedded runtime; a worker has none left (leave_together) */
    mag_worker_end_fibers(w);
    mag_loop_enter(NULL);
    mag_slab_close(&w->slab);
    mag_ring_close(w->ring);
    mag_context_destroy(&w->context);
    mag_stack_altstack_fini(alt);
}

void *mag_loop_main(void *worker)
{
    struct mag_worker *w = worker;
    struct mag_stack_alt alt;
    int rc = mag_loop_open(w, &alt);

    started(w, rc);
    if (rc == 0) {
        mag_loop_enter(w);
        loop(w);
    }
    leave_together(w, rc == 0);
    if (rc == 0)
        mag_loop_close(w, &alt);
    return NULL;
}
