/* SPDX-License-Identifier: MIT */
/*
 * idle.c - which workers sleep, and who wakes them
 *
 * A worker with nothing to do should sleep; a worker with too much to do should
 * wake one that sleeps.  Both are easy.  Doing both at once, without a lock on the
 * path of every spawn, is the hard part of this library.
 *
 *      busy ---- nothing local ----> searching ---- nothing anywhere ----> parked
 *        ^                               |  ^                                 |
 *        +--------- found work ----------+  +---------- woken ----------------+
 *
 * The two sides of the handshake:
 *
 *      whoever adds work                    a worker about to park
 *      1. publish it                        1. leave `searching', enter `parked'
 *      2. full fence             (A)        2. full fence              (B)
 *      3. if nobody searches and            3. look everywhere once more: public
 *         somebody is parked: claim            deques, inboxes, timers, ring, *and
 *         one and ring its bell                stop*; only then sleep
 *
 * (A) pairs with (B): each side writes one word and then reads the other's, so at
 * least one of them sees the other.  Drop either fence and a task can sit in a queue
 * while every worker sleeps (tests/model/park.pml shows both).  The bell is the
 * ring's wake, which is sticky: rung before the sleep, it ends the sleep at once.
 *
 * What an owner pushes into the private part of its deque needs none of this: the
 * owner is awake and will run it.  Hungry workers ask for it (deque.c), and whoever
 * becomes hungry sets lim = 0 everywhere after announcing it (F), so that the next
 * push takes the slow path and, seeing the announcement (deque.c, E), publishes.
 *
 * A claimed worker is made a searcher by its waker, before it even runs: so a burst
 * of spawns wakes one worker, not all (waking costs the waker 15 us or more); when
 * that one has found something and was the last searcher, it wakes the next.
 *
 * A worker that sees public work in its last look, but was a searcher until just now,
 * may have kept its producer from ringing; so it becomes a searcher again before it runs
 * anything, even something of its own, and then wakes the next.
 *
 * Invariants
 *   1. Under the lock, n_parked counts the sleepers with is_parked set.
 *   2. If public work exists, some worker is awake or has been woken.
 *   3. Stop is work: it is looked for in step 3 like any other.
 *
 * Rejected: waking a worker on every spawn (a system call a task); handing the task
 * to the woken worker (often stolen back cold); a timeout instead of the fence (hides
 * the bug, and costs a tick of latency).
 *
 * After the comment in Go's runtime/proc.go, "Worker thread parking/unparking".
 */
#include "idle.h"

void mag_idle_init(struct mag_idle *idle, struct mag_sleeper *sleepers, uint32_t n)
{
    *idle = (struct mag_idle){ .sleepers = sleepers, .n = n };
}

/* Under the lock: the worker is awake from now on.  False if it was not parked. */
static bool claim(struct mag_idle *idle, struct mag_sleeper *s)
{
    if (!mag_load_relaxed(&s->is_parked))
        return false;
    mag_store_seq(&s->is_parked, 0);
    mag_fetch_sub_seq(&idle->n_parked, 1);
    return true;
}

/* Claims a parked worker and makes it a searcher, unless there is one by now. */
static struct mag_sleeper *claim_searcher(struct mag_idle *idle)
{
    struct mag_sleeper *found = NULL;

    mag_spin_lock(&idle->lock);
    if (mag_load_seq(&idle->n_searching) == 0)
        for (uint32_t i = 0; i < idle->n && !found; i++)
            if (claim(idle, &idle->sleepers[i]))
                found = &idle->sleepers[i];
    if (found) {
        found->is_searching = true;
        mag_fetch_add_seq(&idle->n_searching, 1);
    }
    mag_spin_unlock(&idle->lock);
    return found;
}

void mag_idle_notify(struct mag_idle *idle)
{
    struct mag_sleeper *s;

    mag_fence_seq(); /* (A) pairs with idle.c (B) */
    if (mag_load_seq(&idle->n_searching) != 0 || mag_load_seq(&idle->n_parked) == 0)
        return;
    s = claim_searcher(idle);
    if (s)
        mag_ring_wake(s->ring);
}

void mag_idle_notify_one(struct mag_idle *idle, struct mag_sleeper *s)
{
    bool is_mine;

    mag_fence_seq(); /* (A) pairs with idle.c (B) */
    if (!mag_load_seq(&s->is_parked))
        return;
    mag_spin_lock(&idle->lock);
    is_mine = claim(idle, s);
    mag_spin_unlock(&idle->lock);
    if (is_mine)
        mag_ring_wake(s->ring);
}

void mag_idle_notify_all(struct mag_idle *idle)
{
    for (uint32_t i = 0; i < idle->n; i++)
        mag_idle_notify_one(idle, &idle->sleepers[i]);
}

bool mag_idle_search_begin(struct mag_idle *idle, struct mag_sleeper *s)
{
    if (s->is_searching)
        return true;
    /* relaxed: the bound is a matter of thrift */
    if (2 * mag_load_relaxed(&idle->n_searching) >= idle->n)
        return false;
    mag_fetch_add_seq(&idle->n_searching, 1);
    s->is_searching = true;
    return true;
}

void mag_idle_search_end(struct mag_idle *idle, struct mag_sleeper *s, bool has_found)
{
    if (!s->is_searching)
        return;
    s->is_searching = false;
    if (mag_fetch_sub_seq(&idle->n_searching, 1) == 1 && has_found)
        mag_idle_notify(idle);
}

void mag_idle_search_again(struct mag_idle *idle, struct mag_sleeper *s)
{
    if (s->is_searching)
        return;
    mag_fetch_add_seq(&idle->n_searching, 1);
    s->is_searching = true;
}

void mag_idle_park(struct mag_idle *idle, struct mag_sleeper *s)
{
    mag_spin_lock(&idle->lock);
    mag_store_seq(&s->is_parked, 1);
    mag_fetch_add_seq(&idle->n_parked, 1);
    mag_spin_unlock(&idle->lock);
    mag_fence_seq(); /* (B) pairs with idle.c (A) */
}

void mag_idle_unpark(struct mag_idle *idle, struct mag_sleeper *s)
{
    mag_spin_lock(&idle->lock);
    (void)claim(idle, s);
    mag_spin_unlock(&idle->lock);
}
