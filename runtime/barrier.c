/* SPDX-License-Identifier: MIT */
/*
 * barrier.c - a number of parties that wait for each other, again and again
 *
 *                      .--------- the last one has left ----------.
 *                      v                                          |
 *      abort      +---------+   parties are inside          +----------+
 *    .----------- | FILLING | ----------------------------> | DRAINING |
 *    v            +---------+                               +----------+
 *  +--------+ reset,   ^  |  reset, somebody inside             | reset
 *  | BROKEN | -nobody--'  |         +-----------+               |
 *  +--------+  inside     `-------> | RESETTING | <-------------'   abort: BROKEN, from any
 *                                   +-----------+ --> FILLING when the last one has left
 *
 * asyncio's states, with its rules: who was let go is inside until its wait returns, and what
 * it returns is what the state says then.  So a reset while some have not left yet breaks it
 * for these.
 *
 * One queue has both who waits for it to be full and who waits outside until it fills again,
 * because never both wait:
 *
 *   FILLING                  the queue waits for it to be full, and is shorter than parties
 *   DRAINING, RESETTING      the queue waits outside; `leaving' were popped and are inside
 *   BROKEN                   the queue is empty; `leaving' were popped
 *
 * So who is cancelled has nothing to take back: it has left the queue, and never counted
 * otherwise.  When the last one leaves, the queue outside is the queue inside without
 * anybody having run (asyncio wakes them all to look again, and newcomers may overtake them).
 *
 * The number that a wait returns is given by the one who fills the barrier, in the order
 * of the queue.  asyncio gives it on entry, and twice if somebody was cancelled.
 */
#include "misuse.h"
#include "waitlist.h"

#include <magpie/sync.h>

#include <errno.h>

enum state { FILLING, DRAINING, RESETTING, BROKEN };

struct barrier {
    struct mag_waitq q;
    uint32_t parties;           /* [const] */
    uint32_t leaving;           /* [q.lock] who was popped and has not returned; 0 if FILLING */
    mag_atomic(uint32_t) state; /* [q.lock] enum state; read without it as a hint */
};

MAG_STATIC_ASSERT(sizeof(struct barrier) <= sizeof(struct mag_barrier));
MAG_STATIC_ASSERT(_Alignof(struct barrier) <= _Alignof(struct mag_barrier));

static const struct mag_wait_kind barrier_wait = { "barrier", mag_waitq_cancel, false };

static struct barrier *barrier_of(const struct mag_barrier *barrier)
{
    return (struct barrier *)(uintptr_t)barrier;
}

static int null_barrier(void)
{
    return mag_misuse(-EINVAL, "a barrier that is NULL, or was not initialised");
}

int mag_barrier_init(struct mag_barrier *barrier, unsigned parties)
{
    if (barrier == NULL)
        return null_barrier();
    if (parties == 0 || parties > INT32_MAX)
        return mag_misuse(-EINVAL, "a barrier cannot be for %u parties", parties);
    *barrier_of(barrier) = (struct barrier){ .parties = parties };
    return 0;
}

/* ---- with the lock held; who is to be woken is added to the list ------------------------- */

static void pop(struct barrier *b, uint32_t n, struct mag_waitlist *list)
{
    for (uint32_t i = 0; i < n; i++) {
        struct mag_queued *w = mag_waitq_pop(&b->q);
        *(uint32_t *)w->item = i;
        mag_waitlist_add(list, w);
    }
    b->leaving += n;
}

/* It is full: the oldest n of the queue go. */
static void drain(struct barrier *b, uint32_t n, struct mag_waitlist *list)
{
    mag_store_relaxed(&b->state, n ? DRAINING : FILLING);
    pop(b, n, list);
}

/* Who waited outside is inside now. */
static void fill(struct barrier *b, struct mag_waitlist *list)
{
    mag_store_relaxed(&b->state, FILLING);
    if (b->q.n >= b->parties)
        drain(b, b->parties, list);
}

static void leave(struct barrier *b, struct mag_waitlist *list)
{
    b->leaving--;
    if (b->leaving == 0 && b->state != BROKEN)
        fill(b, list);
}

/* True: without having to wait, to return *rc. */
static bool pass(struct barrier *b, struct mag_waitlist *list, int *rc)
{
    if (b->state == BROKEN) {
        *rc = -EPIPE;
        return true;
    }
    if (b->state != FILLING || b->q.n + 1 < b->parties)
        return false;
    *rc = (int)b->parties - 1;
    drain(b, b->parties - 1, list);
    return true;
}

/* ---- the calls ------------------------------------------------------------------------------ */

int mag_barrier_wait(struct mag_barrier *barrier)
{
    struct barrier *b = barrier_of(barrier);
    struct mag_waitlist list = { 0 };
    struct mag_queued me;
    uint32_t number;
    int rc;

    if (b == NULL || b->parties == 0)
        return null_barrier();
    mag_spin_lock(&b->q.lock);
    if (!pass(b, &list, &rc)) {
        rc = mag_waitq_wait(&b->q, &me, &barrier_wait, barrier, &number);
        if (rc < 0)
            return rc;
        mag_spin_lock(&b->q.lock);
        rc = b->state == DRAINING ? (int)number : -EPIPE;
        leave(b, &list);
    }
    mag_spin_unlock(&b->q.lock);
    mag_waitlist_wake(&list, 0);
    return rc;
}

int mag_barrier_reset(struct mag_barrier *barrier)
{
    struct barrier *b = barrier_of(barrier);
    struct mag_waitlist list = { 0 };

    if (b == NULL)
        return null_barrier();
    mag_spin_lock(&b->q.lock);
    if (b->state == FILLING)
        pop(b, b->q.n, &list);
    mag_store_relaxed(&b->state, b->leaving ? RESETTING : FILLING);
    mag_spin_unlock(&b->q.lock);
    mag_waitlist_wake(&list, 0);
    return 0;
}

int mag_barrier_abort(struct mag_barrier *barrier)
{
    struct barrier *b = barrier_of(barrier);
    struct mag_waitlist list = { 0 };

    if (b == NULL)
        return null_barrier();
    mag_spin_lock(&b->q.lock);
    mag_store_relaxed(&b->state, BROKEN);
    pop(b, b->q.n, &list);
    mag_spin_unlock(&b->q.lock);
    mag_waitlist_wake(&list, 0);
    return 0;
}

unsigned mag_barrier_n_waiting(const struct mag_barrier *barrier)
{
    const struct barrier *b = barrier_of(barrier);

    return b && mag_load_relaxed(&b->state) == FILLING ? mag_load_relaxed(&b->q.n) : 0;
}

unsigned mag_barrier_parties(const struct mag_barrier *barrier)
{
    return barrier ? barrier_of(barrier)->parties : 0;
}

bool mag_barrier_is_broken(const struct mag_barrier *barrier)
{
    return barrier && mag_load_relaxed(&barrier_of(barrier)->state) == BROKEN;
}
