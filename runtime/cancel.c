/* SPDX-License-Identifier: MIT */
/*
 * cancel.c - asking a task to stop
 *
 * A cancel sets the flag and then looks where the task runs; the
 * task says where it runs and then looks at the flag, at its first suspension: (H)
 * here pairs with (G) in worker.c, so one of them sees the other.  If the task was
 * found, a message goes to its home, which alone may touch what the fiber waits for; if the
 * caller is there, it is done at once.  While the message is under way it holds a reference.
 */
#include "cancel.h"

/* On the home's thread, which it cannot leave just now: ends what it is blocked in. */
static void cancel_at_home(struct mag_task *t)
{
    struct mag_fiber *f = t->is_leaf ? NULL : t->fiber;
    struct mag_wait *wait = f ? f->wait : t->leaf_wait;

    if (f) /* a shield may be between it and the task */
        f->is_cancelled = mag_fiber_chain_cancelled(f);
    if (wait && (f == NULL || f->is_cancelled))
        wait->kind->cancel(wait);
}

/* Where it is; if that is here, it has been cancelled. */
static struct mag_worker *cancel_if_here(struct mag_task *t, struct mag_worker *w)
{
    struct mag_worker *home;

    mag_cancel_hold(w);
    home = mag_task_home(t);
    if (home == w)
        cancel_at_home(t);
    mag_cancel_release(w);
    return home;
}

/* On the home's thread, or on its way there. */
static void cancel_deliver(struct mag_message *m, struct mag_worker *w)
{
    struct mag_task *t = mag_container_of(m, struct mag_task, msg);
    struct mag_worker *home = cancel_if_here(t, w);

    if (home != NULL && home != w)
        mag_worker_send(home, m);
    else
        mag_worker_release(t);
}

/* By a rescuer, in the place of w's owner. */
static bool is_cancellable(const struct mag_worker *w, const struct mag_fiber *f)
{
    return f != mag_load_relaxed(&w->fiber) && f->wait && !f->wait->kind->is_home_only;
}

bool mag_cancel_elsewhere(struct mag_message *m, struct mag_worker *w)
{
    struct mag_task *t = mag_container_of(m, struct mag_task, msg);
    struct mag_worker *home;
    bool is_ours = true;

    if (m->deliver != cancel_deliver)
        return false;
    mag_cancel_hold(w); /* from here on it does not leave w, and its wait stays */
    home = mag_task_home(t);
    if (home == w && !t->is_leaf)
        is_ours = is_cancellable(w, t->fiber);
    if (home == w && is_ours)
        cancel_at_home(t);
    mag_cancel_release(w);
    if (is_ours && home != NULL && home != w)
        mag_worker_send(home, m);
    else if (is_ours)
        mag_worker_release(t);
    return is_ours;
}

/* pick has started a leaf there whose end cancels it; its wait is not registered yet. */
static bool is_leaving(const struct mag_worker *w, const struct mag_task *t)
{
    return w->fiber && !t->is_leaf && t->fiber == w->fiber && w->fiber->wait;
}

/* By a task on the target's own worker: at once, as who knows one thread expects.  A cancel
 * that a cancel brings about is a message all the same. */
static struct mag_worker *cancel_now(struct mag_task *t, struct mag_worker *w)
{
    uint32_t was = mag_worker_enter(w);
    struct mag_worker *home = w;

    if (!mag_load_relaxed(&w->is_cancelling) && !is_leaving(w, t)) {
        home = cancel_if_here(t, w);
        home = home == w ? NULL : home;
    }
    mag_worker_leave(w, was);
    return home;
}

void mag_cancel_task(struct mag_task *t)
{
    struct mag_worker *w = mag_worker_self(), *home;
    uint8_t sent = 0;

    mag_store_seq(&t->is_cancelled, 1);
    mag_fence_seq(); /* (H) pairs with worker.c (G) */
    if (mag_task_is_done(t))
        return;
    home = mag_task_home(t);
    if (home == w && home != NULL)
        home = cancel_now(t, w);
    if (home == NULL || !mag_cas(&t->is_sent, &sent, 1))
        return;
    mag_fetch_add(&t->extra_refs, 1);
    t->msg.deliver = cancel_deliver;
    mag_worker_send(home, &t->msg);
}

/* ---- when a runtime stops ----------------------------------------------------------- */

enum { SWEEP = 64 }; /* tasks found at a time: the slab's lock is not held to cancel them */

struct sweep {
    struct mag_worker *worker;
    struct mag_task *found[SWEEP];
    unsigned n;
};

/* Only tasks whose home this worker is are touched: none of them can end meanwhile.
 * What has not started sees rt->cancel_level when it does (worker.c). */
static void find_one(struct mag_slab_head *block, void *arg)
{
    struct sweep *s = arg;
    struct mag_rt *rt = s->worker->rt;
    struct mag_task *t = mag_container_of(block, struct mag_task, head);

    if (s->n == SWEEP || mag_load_acquire(&block->used) != MAG_COROUTINE ||
        mag_task_home(t) != s->worker || !mag_load_relaxed(&t->is_begun) ||
        mag_load_relaxed(&t->is_cancelled))
        return;
    if (mag_load_relaxed(&rt->cancel_level) < MAG_CANCEL_ALL && !mag_task_is_nobodys(t))
        return;
    s->found[s->n++] = t;
}

void mag_cancel_sweep(struct mag_message *m, struct mag_worker *w)
{
    struct sweep s = { .worker = w };

    (void)m;
    mag_store_seq(&w->sweep_sent, 0);
    do {
        s.n = 0;
        mag_slab_foreach(find_one, &s);
        for (unsigned i = 0; i < s.n; i++) {
            mag_store_seq(&s.found[i]->is_cancelled, 1);
            (void)cancel_if_here(s.found[i], w);
        }
    } while (s.n == SWEEP);
}
