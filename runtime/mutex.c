/* SPDX-License-Identifier: MIT */
/*
 * mutex.c - one at a time: fast because it may be taken out of turn, fair because not for long
 *
 * A word, and a queue of those who sleep.  To take a free mutex is one CAS and to give it
 * back another, whether somebody waits or not: whoever runs at that moment gets it.  Who
 * finds it held looks a few times more, then sleeps.
 *
 *      HELD     somebody has it
 *      QUEUED   the queue is not empty (or was, a moment ago)
 *      AWAKE    one who slept has been woken and will try to take it: the others may sleep on
 *
 *      unlock, QUEUED and not AWAKE:  pop the oldest  -+-> TO_TRY: HELD goes, AWAKE comes
 *                                                      `-> OWNED:  HELD stays, it is its own
 *      woken, TO_TRY:  free: takes it, AWAKE goes
 *                      held, also after a few looks: AWAKE goes, back to the front of the queue
 *
 * That alone would let one wait for ever.  So a waiter that was woken in vain and has waited
 * for 1 ms is *impatient*, and the next unlock gives it the mutex instead of freeing it.  Go
 * does the same (sync.Mutex, "starvation mode", but for a state of its own in the word).
 * Only who has just been woken in vain becomes impatient: its worker is awake and near, so
 * the mutex is not kept idle by one that sleeps, or whose worker computes.  And a task that
 * takes a mutex with waiters uses up its share of the worker as one that yields does, so
 * that a woken one on the same worker comes to its turn.
 *
 * No wake-up is lost.  The duty to wake lies with whoever sees, in the one step that frees
 * the mutex, QUEUED without AWAKE.  AWAKE is a token that one woken waiter holds; it leaves
 * only by taking the mutex, or in the one step (A) that says QUEUED and sees HELD: then the
 * unlock (B), which is later in the order of the word, sees QUEUED without AWAKE.  It makes
 * no difference whether that waiter then sleeps or is refused because it has been cancelled
 * meanwhile: the token is gone, and the next one will be woken.
 *
 * Invariants
 *   1. HELD and not AWAKE: only the holder clears HELD, and only under q->lock is QUEUED set.
 *   2. If the queue is not empty and the lock is free, QUEUED is set.
 *   3. At most one woken waiter has not yet taken the mutex or gone back: it is AWAKE's.
 *
 * Ordering: taking acquires, giving back releases; (A) and (B) are CASes of one word.  After
 * the step that frees the mutex nothing of it is touched, except by who has popped a waiter,
 * which still has to have it: so the last holder may free the memory.
 *
 * Rejected, with ns for lock, count, unlock by a task on each of 4 workers, in a loop and with
 * 100 ns of other work in between (this one: 9 and 61; nobody else: 4.8): to give it to the
 * oldest always (790 and 2,100: each turn is a switch, and often a worker to be woken); to
 * sleep without a look (40 and 71); fewer, more, shorter or longer looks (7 to 22 and 64 to
 * 136, within the noise); an unlock without an atomic and a membarrier by who sleeps (saves
 * 2 ns where nobody waits, costs 10 us a sleep); an owner in the word (would find out more
 * mistakes, but another task or thread may give it back, as in asyncio).
 */
#include "mutex.h"

#include "check.h"
#include "clock.h"
#include "misuse.h"
#include "scope.h"

#include <errno.h>

enum {
    HELD = 1,
    QUEUED = 2,
    AWAKE = 4,
};

/* What a wait in the queue returns. */
enum {
    TO_TRY = 0,
    OWNED = 1,
};

/* About a microsecond each: as Go has it. */
enum { LOOKS = 4, PAUSES = 30 };

enum { IMPATIENT_NS = 1000 * 1000 };

struct mutex {
    mag_atomic(uint32_t) state; /* [any] HELD, QUEUED, AWAKE */
    struct mag_waitq q;         /* of struct mag_turn */
};

MAG_STATIC_ASSERT(sizeof(struct mutex) <= sizeof(struct mag_mutex));
MAG_STATIC_ASSERT(_Alignof(struct mutex) <= _Alignof(struct mag_mutex));

static const struct mag_wait_kind mutex_wait = { "mutex", mag_waitq_cancel, false };

static struct mutex *mutex_of(const struct mag_mutex *mutex)
{
    return (struct mutex *)(uintptr_t)mutex;
}

static struct mag_turn *turn_of(struct mag_queued *w)
{
    return mag_container_of(w, struct mag_turn, queued);
}

static int null_mutex(void)
{
    return mag_misuse(-EINVAL, "a mutex that is NULL");
}

/* ---- taking -------------------------------------------------------------------------- */

/* `awake' is AWAKE for who holds the token, else 0. */
static bool try_take(struct mutex *m, uint32_t awake)
{
    uint32_t s = mag_load_relaxed(&m->state); /* relaxed: the CAS acquires */

    while (!(s & HELD))
        if (mag_cas(&m->state, &s, (s | HELD) & ~awake))
            return true;
    return false;
}

/* Whether the holder may be running now, on another processor. */
static bool may_be_held_elsewhere(void)
{
    const struct mag_worker *w = mag_worker_self();

    return w == NULL || w->rt->n_workers > 1;
}

/* The same with some patience.  Seldom looks leave the holder its cache line. */
static bool spin(struct mutex *m, uint32_t awake)
{
    if (try_take(m, awake))
        return true;
    for (int i = 0; i < LOOKS && may_be_held_elsewhere(); i++) {
        for (int k = 0; k < PAUSES; k++)
            mag_cpu_relax();
        if (try_take(m, awake))
            return true;
    }
    return false;
}

/* With q.lock held, (A): takes it if it is free, else says that somebody will be queued.
 * The token is given back either way. */
static bool take_or_announce(struct mutex *m, uint32_t awake)
{
    uint32_t s = mag_load_relaxed(&m->state), next;

    do {
        next = (s | (s & HELD ? QUEUED : HELD)) & ~awake;
    } while (!mag_cas(&m->state, &s, next));
    return !(s & HELD);
}

/* Sleeps: OWNED, TO_TRY, or why not; OWNED also if it did not have to. */
static int sleep_in_queue(struct mutex *m, struct mag_turn *me, uint32_t awake)
{
    mag_time now = mag_clock_now();

    if (awake)
        me->is_impatient = now - me->since >= IMPATIENT_NS;
    else
        *me = (struct mag_turn){ .since = now };
    mag_spin_lock(&m->q.lock);
    if (take_or_announce(m, awake)) {
        mag_spin_unlock(&m->q.lock);
        return OWNED;
    }
    return (awake ? mag_waitq_wait_first : mag_waitq_wait)(&m->q, &me->queued, &mutex_wait, m,
                                                           NULL);
}

/* Until it is taken: 0, or -errno. */
static int wait_turn(struct mutex *m, struct mag_turn *me, uint32_t awake)
{
    int rc;

    do {
        if (spin(m, awake))
            return 0;
        rc = sleep_in_queue(m, me, awake);
        awake = AWAKE;
    } while (rc == TO_TRY);
    return rc == OWNED ? 0 : rc;
}

/* Who takes what others wait for lets the others on its worker run now and then. */
static void use_share(void)
{
    struct mag_worker *w = mag_worker_self();

    if (w && w->fiber && --w->budget <= 0)
        (void)mag_worker_yield(); /* a cancelled one does not; it will wait, or get it */
}

static MAG_NOINLINE int lock_slow(struct mutex *m)
{
    struct mag_turn me;

    use_share();
    return wait_turn(m, &me, 0);
}

static bool take_at_once(struct mutex *m)
{
    uint32_t none = 0;

    return MAG_LIKELY(mag_cas(&m->state, &none, HELD));
}

int mag_mutex_lock(struct mag_mutex *mutex)
{
    struct mutex *m = mutex_of(mutex);

    if (MAG_UNLIKELY(m == NULL))
        return null_mutex();
    return take_at_once(m) ? 0 : lock_slow(m);
}

int mag_mutex_trylock(struct mag_mutex *mutex)
{
    if (mutex == NULL)
        return null_mutex();
    return try_take(mutex_of(mutex), 0) ? 0 : -EBUSY;
}

bool mag_mutex_locked(const struct mag_mutex *mutex)
{
    /* relaxed: it may be over when the caller looks at the answer */
    return mutex && mag_load_relaxed(&mutex_of(mutex)->state) & HELD;
}

/* ---- giving back ---------------------------------------------------------------------- */

/*
 * By the holder, who has seen QUEUED without AWAKE: pops whose turn it is, says in the word
 * what will be, and what it is to be told.  NULL: nobody waits any more, and the mutex is
 * still the caller's.  The store is as good as a CAS, by invariant 1.
 */
static struct mag_queued *next_turn(struct mutex *m, int *rc)
{
    struct mag_queued *w;
    uint32_t queued;

    mag_spin_lock(&m->q.lock);
    w = mag_waitq_pop(&m->q);
    queued = m->q.first ? QUEUED : 0;
    *rc = w && turn_of(w)->is_impatient ? OWNED : TO_TRY;
    mag_store_release(&m->state, (w && *rc == TO_TRY ? AWAKE : HELD) | queued);
    mag_spin_unlock(&m->q.lock);
    return w;
}

static MAG_NOINLINE int unlock_slow(struct mutex *m)
{
    uint32_t s = mag_load_relaxed(&m->state); /* relaxed: the holder knows what it needs of it */
    struct mag_queued *w;
    int rc;

    while (s & HELD) {
        if ((s & (QUEUED | AWAKE)) != QUEUED) {
            if (mag_cas(&m->state, &s, s & ~HELD)) /* (B) */
                return 0;
        } else if ((w = next_turn(m, &rc)) != NULL) {
            mag_waitq_wake(w, rc);
            return 0;
        } else {
            s = HELD;
        }
    }
    return mag_misuse(-EPERM, "mag_mutex_unlock() of a mutex that nobody holds");
}

int mag_mutex_unlock(struct mag_mutex *mutex)
{
    struct mutex *m = mutex_of(mutex);
    uint32_t held = HELD;

    if (MAG_UNLIKELY(m == NULL))
        return null_mutex();
    return MAG_LIKELY(mag_cas(&m->state, &held, 0)) ? 0 : unlock_slow(m);
}

/* ---- for the condition ------------------------------------------------------------------ */

/* If the mutex is free, the caller takes it, and gives it back to whose turn it is. */
void mag_mutex_requeue(struct mag_mutex *mutex, struct mag_turn *turn)
{
    struct mutex *m = mutex_of(mutex);
    uint32_t s;

    turn->since = mag_clock_now();
    mag_spin_lock(&m->q.lock);
    mag_waitq_push(&m->q, &turn->queued);
    s = mag_load_relaxed(&m->state);
    while (!mag_cas(&m->state, &s, s | HELD | QUEUED))
        ;
    mag_spin_unlock(&m->q.lock);
    if (!(s & HELD))
        (void)unlock_slow(m);
}

static void wait_turn_shielded(struct mutex *m, struct mag_turn *me, uint32_t awake)
{
    struct mag_fiber *f = mag_fiber_self();
    struct mag_scope_frame shield;

    if (f)
        mag_scope_push(f, &shield, MAG_NEVER, NULL, true);
    MAG_CHECK(wait_turn(m, me, awake) == 0);
    if (f)
        (void)mag_scope_pop(f, &shield);
}

void mag_mutex_resume(struct mag_mutex *mutex, struct mag_turn *me, int woken)
{
    if (woken != OWNED)
        wait_turn_shielded(mutex_of(mutex), me, AWAKE);
}

void mag_mutex_lock_shielded(struct mag_mutex *mutex)
{
    struct mutex *m = mutex_of(mutex);
    struct mag_turn me;

    if (!take_at_once(m))
        wait_turn_shielded(m, &me, 0);
}
