/* SPDX-License-Identifier: MIT */
/*
 * deque.c - a split work-stealing deque without a fence on the owner's path
 *
 * The owner pushes and pops at one end, thieves take at the other.  What makes
 * Chase and Lev's deque slow is the fence in pop, which is only there because the
 * last element may be contended.  So here the deque is split: thieves touch only
 * the public part, and everything above `split' is the owner's alone.
 *
 *      top           split                      bot
 *       v              v                         v
 *       | public: steal| private: the owner only |  free
 *
 * A hungry worker that finds a deque with a private part but no public one asks for
 * it: it sets guard to "everything" and lim to 0, so that the owner's very next push
 * or pop leaves the inlined path (fork.h) and publishes.  The same two words tell
 * "full" and cost the fast path nothing: it compares with them anyway.
 *
 * Invariants
 *   1. top <= split <= bot + 1, and split <= guard: a pop at or above guard is of
 *      the private part.
 *   2. top moves, and split is lowered, only under the lock.  Only the owner lowers
 *      split or moves bot.
 *   3. A slot below bot holds a work, or NULL where it was taken from the middle.
 *
 * Ordering.  The owner's pop stores bot and then loads guard with no fence (C).  A
 * thief never trusts bot for an element above split, so nothing can go wrong, except
 * in force (D): a thief that wants the private part of an owner who does not answer
 * sets guard, executes membarrier (a full fence on the owner's processor), and then
 * under the lock believes bot.  Either the owner's pop came before the fence: then
 * its bot is visible; or its load of guard comes after: then it takes the lock too.
 * An answer in between (guard restored, or n_exposed changed, which counts each
 * restoration after it was made) calls it off; bot is read before both are checked.
 * A push stores lim and then looks whether anybody is hungry (E); who becomes
 * hungry announces it and then stores lim = 0 (F, loop.c): one of them sees the other.
 *
 * Rejected: Chase-Lev with a fence (15 ns a pair instead of 4); a compare-and-swap
 * on top without a lock (the slot must be read before, which is prone to ABA once
 * split can be lowered, and it steals one at a time); waiting while the lock is held
 * during membarrier (stalls the owner for 20 us: hence n_exposed).
 *
 * Sources: van Dijk and van de Pol, "Lace: non-blocking split deque" (2014);
 * Acar, Chargueraud, Rainey (2013) for private deques.  tests/model/deque.pml.
 */
#include "deque.h"

#include "mem.h"
#include "sys.h"

#include <errno.h>

#define MASK MAG_DEQUE_MASK

enum {
    STEAL_MAX = 64, /* works moved in one steal, under the victim's lock   */
    SPINS = 100,    /* looks at a held lock before giving the processor up */
};

int mag_deque_init(struct mag_deque *d, bool (*hungry)(struct mag_deque *d))
{
    *d = (struct mag_deque){ .hungry = hungry };
    d->hot.slots =
        mag_mem_alloc_aligned(MAG_CACHE_BYTES, MAG_DEQUE_SLOTS * sizeof(struct mag_work *));
    if (d->hot.slots == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < MAG_DEQUE_SLOTS; i++)
        d->hot.slots[i] = NULL;
    d->hot.lim = MAG_DEQUE_SLOTS - 1;
    return 0;
}

void mag_deque_fini(struct mag_deque *d)
{
    mag_mem_free(d->hot.slots);
    d->hot.slots = NULL;
}

static struct mag_work *slot_load(struct mag_deque *d, uint64_t i)
{
    return mag_load_relaxed(&d->hot.slots[i & MASK]);
}

static void slot_store(struct mag_deque *d, uint64_t i, struct mag_work *work)
{
    mag_store_relaxed(&d->hot.slots[i & MASK], work);
}

/* A thief that has lost its processor while it holds the lock needs ours to let go. */
static void lock(struct mag_deque *d)
{
    for (unsigned n = 1; !mag_spin_try(&d->lock); n++) {
        mag_cpu_relax();
        if (n % SPINS == 0)
            mag_sys_yield();
    }
}

/* ---- the owner ---------------------------------------------------------------- */

/*
 * Publishes everything and answers the hungry.  Owner.  The release of split makes
 * the works and their slots visible to whoever takes the lock and reads it.
 */
static void expose(struct mag_deque *d)
{
    uint64_t bot = d->hot.bot;

    mag_store_release(&d->split, bot);
    mag_store_relaxed(&d->hot.guard, bot);
    mag_store_release(&d->n_exposed, d->n_exposed + 1); /* after guard: see force */
    /* acquire: slots below top may be overwritten, so the thieves have read them */
    mag_store_relaxed(&d->hot.lim, mag_load_acquire(&d->top) + MAG_DEQUE_SLOTS - 1);
    mag_fence_seq(); /* (E) pairs with loop.c (F) */
    if (d->hungry(d))
        mag_store_relaxed(&d->hot.lim, 0);
}

static bool pop_at(struct mag_deque *d, uint64_t b);

/* The last push reached lim: the deque is full, or somebody is hungry. */
bool mag_deque_pushed(struct mag_deque *d)
{
    uint64_t bot = d->hot.bot;

    if (bot - mag_load_acquire(&d->top) < MAG_DEQUE_SLOTS - 1) {
        expose(d);
        return true;
    }
    /* Full.  The newest goes back to the caller; it was private a moment ago, and a
     * forcing thief may have published it meanwhile: so take it like anybody. */
    return !pop_at(d, bot - 1);
}

/*
 * Puts a work that others know at the bottom.  Its slot becomes the index, unless
 * somebody waits for it by now: then the word is the waiter's, and stays.
 */
static void adopt(struct mag_deque *d, struct mag_work *work)
{
    uint64_t b = d->hot.bot;
    uint64_t old = mag_load_relaxed(&work->slot);

    slot_store(d, b, work);
    if (old <= MAG_SLOT_NONE)
        (void)mag_cas(&work->slot, &old, b);
    mag_store_release(&d->hot.bot, b + 1);
}

/*
 * bot has been lowered to b, below guard: finds out whether b is the owner's still.
 * If a thief has it, bot goes back, and the deque is empty.
 */
static bool pop_slow(struct mag_deque *d, uint64_t b)
{
    bool is_mine;
    uint64_t guard;

    lock(d);
    guard = mag_load_relaxed(&d->hot.guard);
    is_mine = b >= mag_load_relaxed(&d->top);
    if (!is_mine)
        mag_store_relaxed(&d->hot.bot, b + 1);
    else if (b < mag_load_relaxed(&d->split))
        mag_store_relaxed(&d->split, b);
    /* relaxed: only the lock's next holder and the owner rely on it */
    mag_store_relaxed(&d->hot.guard, mag_load_relaxed(&d->split));
    mag_store_release(&d->n_exposed, d->n_exposed + 1); /* after guard: see force */
    mag_spin_unlock(&d->lock);
    if (guard == UINT64_MAX)
        expose(d);
    return is_mine;
}

bool mag_deque_popped(struct mag_deque *d)
{
    return pop_slow(d, d->hot.bot);
}

/* Lowers bot by one; false if that element turns out to be stolen. */
static bool pop_at(struct mag_deque *d, uint64_t b)
{
    mag_store_relaxed(&d->hot.bot, b);
    mag_compiler_barrier(); /* (C): bot, then guard; force supplies the fence */
    return MAG_LIKELY(b >= mag_load_relaxed(&d->hot.guard)) || pop_slow(d, b);
}

struct mag_work *mag_deque_pop(struct mag_deque *d)
{
    while (!mag_deque_is_empty(d)) {
        uint64_t b = d->hot.bot - 1;
        struct mag_work *work = slot_load(d, b);

        if (!pop_at(d, b))
            return NULL;
        if (work)
            return work;
    }
    return NULL;
}

/* As a thief would: so the private part gives way at its lower end. */
struct mag_work *mag_deque_pop_oldest(struct mag_deque *d)
{
    struct mag_work *work = NULL;
    uint64_t top;

    lock(d);
    for (top = mag_load_relaxed(&d->top); top < d->hot.bot && work == NULL; top++)
        work = slot_load(d, top);
    mag_store_relaxed(&d->top, top);
    if (mag_load_relaxed(&d->split) < top)
        mag_store_relaxed(&d->split, top);
    if (mag_load_relaxed(&d->hot.guard) < top) { /* may overwrite a request: so counted */
        mag_store_relaxed(&d->hot.guard, top);
        mag_store_release(&d->n_exposed, d->n_exposed + 1);
    }
    mag_spin_unlock(&d->lock);
    return work;
}

/* Out of the middle: leaves a hole, which pop and steal step over. */
static bool take_middle(struct mag_deque *d, struct mag_work *work, uint64_t i)
{
    bool is_mine;

    lock(d);
    is_mine = i >= mag_load_relaxed(&d->top) && slot_load(d, i) == work;
    if (is_mine)
        slot_store(d, i, NULL);
    mag_spin_unlock(&d->lock);
    return is_mine;
}

bool mag_deque_take_far(struct mag_deque *d, struct mag_work *work)
{
    /* relaxed: a thief may change it, but if slots[i] is the work it is ours to try */
    uint64_t i = mag_load_relaxed(&work->slot);

    if (!mag_slot_is_index(i) || i >= d->hot.bot || slot_load(d, i) != work)
        return false;
    return take_middle(d, work, i);
}

/* ---- thieves -------------------------------------------------------------------- */

void mag_deque_request(struct mag_deque *d)
{
    mag_store_relaxed(&d->hot.guard, UINT64_MAX);
    mag_store_relaxed(&d->hot.lim, 0);
}

/* Under the victim's lock. */
static struct mag_work *steal_half(struct mag_deque *thief, struct mag_deque *victim)
{
    uint64_t top = mag_load_relaxed(&victim->top);
    uint64_t split = mag_load_acquire(&victim->split);
    uint64_t n = split > top ? (split - top + 1) / 2 : 0;
    struct mag_work *first = NULL;

    if (n > STEAL_MAX)
        n = STEAL_MAX;
    for (uint64_t i = top; i < top + n; i++) {
        struct mag_work *work = slot_load(victim, i);
        if (work == NULL)
            continue;
        if (first == NULL)
            first = work;
        else
            adopt(thief, work);
    }
    mag_store_release(&victim->top, top + n);
    return first;
}

struct mag_work *mag_deque_steal(struct mag_deque *thief, struct mag_deque *victim)
{
    struct mag_work *work;
    bool is_crowded;

    if (!mag_deque_has_public(victim)) {
        /* relaxed: hints; the worst is a request too many or a round later */
        if (mag_load_relaxed(&victim->hot.bot) > mag_load_relaxed(&victim->split) &&
            mag_load_relaxed(&victim->hot.guard) != UINT64_MAX)
            mag_deque_request(victim);
        return NULL;
    }
    if (thief->hot.bot - mag_load_relaxed(&thief->top) > MAG_DEQUE_SLOTS - 2 * STEAL_MAX ||
        !mag_spin_try(&victim->lock))
        return NULL;
    work = steal_half(thief, victim);
    mag_spin_unlock(&victim->lock);
    is_crowded = thief->hot.bot != mag_load_relaxed(&thief->split);
    if (is_crowded)
        expose(thief);
    return work;
}

bool mag_deque_force(struct mag_deque *d)
{
    uint64_t n_exposed = mag_load_acquire(&d->n_exposed);
    uint64_t bot;
    bool forced = false;

    if (mag_load_relaxed(&d->hot.guard) != UINT64_MAX) {
        mag_deque_request(d);
        return false;
    }
    if (mag_sys_membarrier() < 0) /* (D): the fence that the owner's pop lacks */
        return false;
    if (!mag_spin_try(&d->lock))
        return false;
    bot = mag_load_acquire(&d->hot.bot); /* before the checks, which vouch for it */
    if (mag_load_acquire(&d->hot.guard) == UINT64_MAX &&
        mag_load_acquire(&d->n_exposed) == n_exposed)
        forced = bot > mag_load_relaxed(&d->split);
    if (forced)
        mag_store_release(&d->split, bot);
    mag_spin_unlock(&d->lock);
    return forced;
}
