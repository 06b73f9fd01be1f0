/* SPDX-License-Identifier: MIT */
#ifndef MAG_DEQUE_H
#define MAG_DEQUE_H
/*
 * deque.h - the split deque of one worker: what has not started
 *
 * push, pop, take and expose: the owner only.  steal, request and force: any other
 * worker.  The hot half, and the inlined push and take, are in <magpie/fork.h>;
 * deque.c tells how it works.
 */
#include "atomic.h"

#include <magpie/fork.h>

struct mag_deque {
    MAG_CACHELINE struct mag_hot hot; /* bot [owner]; lim, guard [owner, and thieves ask]    */
    /* An upward call: work has become public; says whether anybody is hungry. */
    bool (*hungry)(struct mag_deque *d); /* [const]                       */
    MAG_CACHELINE struct mag_spin lock;  /* who moves top, or lowers split */
    mag_atomic(uint64_t) top;            /* [lock] next to be stolen      */
    mag_atomic(uint64_t) split;     /* [owner; or a forcing thief, lock] end of the public part */
    mag_atomic(uint64_t) n_exposed; /* [owner] times guard was restored */
};

/* -ENOMEM. */
int mag_deque_init(struct mag_deque *d, bool (*hungry)(struct mag_deque *d));
void mag_deque_fini(struct mag_deque *d);

/*
 * The slow paths of the inlined halves (fork.h): a push that reached lim, false if
 * the deque was full and the work is out again; a pop that lowered bot below guard,
 * false if a thief has the work.
 */
bool mag_deque_pushed(struct mag_deque *d);
bool mag_deque_popped(struct mag_deque *d);

/* One that is not the newest; see mag_deque_take. */
bool mag_deque_take_far(struct mag_deque *d, struct mag_work *work);

/* The newest, or NULL. */
struct mag_work *mag_deque_pop(struct mag_deque *d);

/* The oldest, or NULL. */
struct mag_work *mag_deque_pop_oldest(struct mag_deque *d);

/*
 * Steals half of the public part: the oldest is returned, the others go to the
 * thief's own deque, public.  NULL if there was nothing public, and then the owner
 * has been asked to publish what it has.
 */
struct mag_work *mag_deque_steal(struct mag_deque *thief, struct mag_deque *victim);

/* Asks the owner to publish at its next push or pop. */
void mag_deque_request(struct mag_deque *d);

/*
 * Publishes for an owner who was asked and has not answered, by membarrier(2): tens
 * of microseconds, so a last resort.  True if something has become public.
 */
bool mag_deque_force(struct mag_deque *d);

/* Hints, for any thread: something to steal; something at all. */
static inline bool mag_deque_has_public(const struct mag_deque *d)
{
    return mag_load_relaxed(&d->split) > mag_load_relaxed(&d->top);
}

static inline bool mag_deque_is_empty(const struct mag_deque *d)
{
    return mag_load_relaxed(&d->hot.bot) == mag_load_relaxed(&d->top);
}

/* How much is in it; a hint, for any thread. */
static inline uint64_t mag_deque_size(const struct mag_deque *d)
{
    uint64_t bot = mag_load_relaxed(&d->hot.bot), top = mag_load_relaxed(&d->top);

    return bot > top ? bot - top : 0;
}

/* ---- the fast paths; <magpie/fork.h> has the same for forks ------------------------- */

#define MAG_DEQUE_MASK ((uint64_t)MAG_DEQUE_SLOTS - 1)

/* false when full; then nothing has changed. */
static inline bool mag_deque_push(struct mag_deque *d, struct mag_work *work)
{
    uint64_t b = d->hot.bot;

    mag_store_relaxed(&work->slot, b); /* relaxed: nobody else knows the work yet */
    mag_store_relaxed(&d->hot.slots[b & MAG_DEQUE_MASK], work);
    mag_store_release(&d->hot.bot, b + 1);
    if (MAG_LIKELY(b + 1 < mag_load_relaxed(&d->hot.lim)))
        return true;
    return mag_deque_pushed(d);
}

/* Takes this one out, wherever it is; false if it is not here (any more). */
static inline bool mag_deque_take(struct mag_deque *d, struct mag_work *work)
{
    uint64_t i = mag_load_relaxed(&work->slot); /* relaxed: as in take_far */

    if (MAG_UNLIKELY(i + 1 != d->hot.bot) ||
        MAG_UNLIKELY(mag_load_relaxed(&d->hot.slots[i & MAG_DEQUE_MASK]) != work))
        return mag_deque_take_far(d, work);
    mag_store_relaxed(&d->hot.bot, i);
    mag_compiler_barrier(); /* (C): bot, then guard; force supplies the fence */
    return MAG_LIKELY(i >= mag_load_relaxed(&d->hot.guard)) || mag_deque_popped(d);
}

/* ---- the slot word of a work: where it is, who waits for it, or that it is done --- */

#define MAG_SLOT_NONE     ((uint64_t)1 << 62) /* in no deque, and nobody waits        */
#define MAG_SLOT_WAITER   ((uint64_t)1 << 63) /* or'ed to the address of a mag_waiter */
#define MAG_SLOT_TAKEN    MAG_SLOT_WAITER     /* its awaiter runs it in place          */
#define MAG_SLOT_DONE     UINT64_MAX
#define MAG_SLOT_DETACHED (UINT64_MAX - 1)
#define MAG_SLOT_RETURNED MAG_SLOT_DETACHED /* a part (fork.h): its joiner is to run it */

static inline bool mag_slot_is_index(uint64_t slot)
{
    return slot < MAG_SLOT_NONE;
}

#endif
