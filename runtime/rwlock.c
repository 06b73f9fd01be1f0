/* SPDX-License-Identifier: MIT */
/*
 * rwlock.c - many readers, or one writer
 *
 *      queue, oldest first      r r W r r W
 *      a writer ends            r r go in together, W waits for both
 *      the second reader ends   W goes in, alone
 *
 * Strictly first come, first served: whoever cannot go in at once joins the queue, and
 * nobody goes in past the queue.  So a writer waits for those who were there before it and
 * no others, and readers that stand together in the queue read together.
 *
 * Invariants
 *   1. Either one writes, or any number read, or nobody is inside.
 *   2. The oldest in the queue is one who cannot go in now; or somebody is about to admit
 *      it: who has just been cancelled in front of it, and has not run since.
 *
 * The second is why a wait that failed admits others before it returns: the writer who
 * kept readers waiting may be gone.
 *
 * Rejected: readers first (a stream of readers keeps writers out for ever); a counter that
 * readers raise without the lock (it pays only where readers do next to nothing).
 */
#include "misuse.h"
#include "waitlist.h"

#include <magpie/sync.h>

#include <errno.h>

struct rwlock {
    struct mag_waitq q;
    uint32_t n_readers; /* [q.lock] inside */
    bool is_writing;    /* [q.lock] */
};

MAG_STATIC_ASSERT(sizeof(struct rwlock) <= sizeof(struct mag_rwlock));
MAG_STATIC_ASSERT(_Alignof(struct rwlock) <= _Alignof(struct mag_rwlock));

static const struct mag_wait_kind read_wait = { "rwlock, to read", mag_waitq_cancel, false };
static const struct mag_wait_kind write_wait = { "rwlock, to write", mag_waitq_cancel, false };

static int null_rwlock(void)
{
    return mag_misuse(-EINVAL, "a read-write lock that is NULL");
}

/* With the lock held: goes in, if those inside permit. */
static bool enter(struct rwlock *l, const struct mag_wait_kind *kind)
{
    if (l->is_writing || (kind == &write_wait && l->n_readers > 0))
        return false;
    if (kind == &write_wait)
        l->is_writing = true;
    else
        l->n_readers++;
    return true;
}

/* With the lock held, which it frees: lets in who can go in now. */
static void admit_and_unlock(struct rwlock *l)
{
    struct mag_waitlist list = { 0 };

    while (l->q.first && enter(l, l->q.first->wait.kind))
        mag_waitlist_add(&list, mag_waitq_pop(&l->q));
    mag_spin_unlock(&l->q.lock);
    mag_waitlist_wake(&list, 0);
}

static int lock(struct mag_rwlock *rwlock, const struct mag_wait_kind *kind, bool may_wait)
{
    struct rwlock *l = (struct rwlock *)rwlock;
    struct mag_queued me;
    bool is_in;
    int rc;

    if (l == NULL)
        return null_rwlock();
    mag_spin_lock(&l->q.lock);
    is_in = l->q.first == NULL && enter(l, kind);
    if (is_in || !may_wait) {
        mag_spin_unlock(&l->q.lock);
        return is_in ? 0 : -EBUSY;
    }
    rc = mag_waitq_wait(&l->q, &me, kind, rwlock, NULL);
    if (rc < 0) {
        mag_spin_lock(&l->q.lock);
        admit_and_unlock(l);
    }
    return rc;
}

int mag_rwlock_rdlock(struct mag_rwlock *rwlock)
{
    return lock(rwlock, &read_wait, true);
}

int mag_rwlock_wrlock(struct mag_rwlock *rwlock)
{
    return lock(rwlock, &write_wait, true);
}

int mag_rwlock_tryrdlock(struct mag_rwlock *rwlock)
{
    return lock(rwlock, &read_wait, false);
}

int mag_rwlock_trywrlock(struct mag_rwlock *rwlock)
{
    return lock(rwlock, &write_wait, false);
}

int mag_rwlock_rdunlock(struct mag_rwlock *rwlock)
{
    struct rwlock *l = (struct rwlock *)rwlock;

    if (l == NULL)
        return null_rwlock();
    mag_spin_lock(&l->q.lock);
    if (l->n_readers == 0) {
        mag_spin_unlock(&l->q.lock);
        return mag_misuse(-EPERM, "mag_rwlock_rdunlock of a lock that nobody reads under");
    }
    l->n_readers--;
    admit_and_unlock(l);
    return 0;
}

int mag_rwlock_wrunlock(struct mag_rwlock *rwlock)
{
    struct rwlock *l = (struct rwlock *)rwlock;

    if (l == NULL)
        return null_rwlock();
    mag_spin_lock(&l->q.lock);
    if (!l->is_writing) {
        mag_spin_unlock(&l->q.lock);
        return mag_misuse(-EPERM, "mag_rwlock_wrunlock of a lock that nobody writes under");
    }
    l->is_writing = false;
    admit_and_unlock(l);
    return 0;
}
