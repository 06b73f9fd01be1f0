/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_SYNC_H
#define MAGPIE_SYNC_H
/*
 * sync.h - what tasks agree with each other by
 *
 *      mutex, condition    one at a time; until something is so
 *      event               from now on
 *      semaphore           at most n at a time
 *      barrier             all together
 *      read-write lock     many readers, or one writer
 *      once                exactly one does it
 *
 * They are asyncio's, with its rules, and work between tasks on any workers of any
 * runtimes, and between tasks and threads outside: where a task suspends, a thread
 * outside is blocked (and can be neither cancelled nor timed out).
 *
 * Storage is the caller's and all zero is ready for use, unless there is an _init:
 *
 *      struct mag_event e = { 0 };
 *
 * Nothing has to be destroyed.  The storage must live until every call on it has
 * returned; a primitive must not be copied or moved.
 *
 * Who waits is served in the order in which the waits began, and what is given is given
 * there and then, to the oldest: nobody who comes later can take it before that one
 * runs (but for the mutex, see there).  A task that is cancelled while it waits leaves the
 * queue, and nothing is lost; one that has been given what it waits for returns 0, cancelled
 * or not.  A call that need not wait is no cancellation point.
 *
 * Limits of time come from around (scope.h): with_timeout, mag_scope_enter.
 *
 * NULL is -EINVAL; -ENOMEM comes from a wait that a deadline stands over.  What is told
 * in debug mode (MAGPIE_DEBUG=1) is told on standard error.
 */
#include <magpie/base.h>

#ifdef __cplusplus
extern "C" {
#else
#include <stdbool.h>
#endif

/* ---- mutex and condition ------------------------------------------------------------ */

/* One at a time; storage, zero: nobody. */
struct mag_mutex {
    uint64_t private_[4];
};

/*
 * Takes the mutex, if it is held waits for it, and returns 0.  Unlike the others here it may
 * be taken before those who wait, by one who comes at the right moment; but the oldest of
 * them, once it has waited for 1 ms and found another quicker, is given it next.  Not
 * recursive: who holds it and locks it waits for ever.  -ECANCELED: not taken.  Suspends;
 * cancellation point if it waits.  Any thread.
 */
MAG_API int mag_mutex_lock(struct mag_mutex *mutex);

/* The same without waiting: -EBUSY.  Any thread; never suspends. */
MAG_API int mag_mutex_trylock(struct mag_mutex *mutex);

/*
 * Gives it back.  Need not be the one who took it.  -EPERM, told in debug mode, if nobody
 * holds it.  Any thread; never suspends.
 */
MAG_API int mag_mutex_unlock(struct mag_mutex *mutex);

/* Whether somebody holds it, at some moment during the call.  Any thread; never suspends. */
MAG_API bool mag_mutex_locked(const struct mag_mutex *mutex);

/* Where tasks wait until something is so; storage, zero: nobody waits. */
struct mag_cond {
    uint64_t private_[3];
};

/*
 * Gives the mutex, which the caller holds, back, waits to be notified, takes the mutex again,
 * and returns 0: then it is to be looked at again whether what is waited for is so.  However
 * it ends, the mutex is the caller's: also after -ECANCELED, when nothing was notified to it.
 * One that has been notified returns 0, cancelled or not.  All who wait at a time must name
 * the same mutex.  -EPERM, told in debug mode, if nobody holds the mutex.  Suspends;
 * cancellation point.  Any thread.
 */
MAG_API int mag_cond_wait(struct mag_cond *cond, struct mag_mutex *mutex);

/*
 * Waits again and again until is_true(arg), which is asked with the mutex held, before the
 * first wait too.  Otherwise as mag_cond_wait.
 */
MAG_API int mag_cond_wait_until_true(struct mag_cond *cond, struct mag_mutex *mutex,
                                     bool (*is_true)(void *arg), void *arg);

/*
 * Lets the n who have waited longest, or all, go on, one after the other as they get the
 * mutex.  Should be called with the mutex held, or who is about to wait may miss it; need not
 * be.  Returns 0, also if fewer wait.  Any thread; never suspend.
 */
MAG_API int mag_cond_notify(struct mag_cond *cond, size_t n);
MAG_API int mag_cond_notify_all(struct mag_cond *cond);

/* ---- event --------------------------------------------------------------------------- */

/* Something that has happened, or not yet; storage, zero: not yet. */
struct mag_event {
    uint64_t private_[4];
};

/*
 * It has happened: everybody who waits now goes on, in the order of the waits, and whoever
 * waits from now on does not wait.  Returns 0.  Any thread; never suspends.
 */
MAG_API int mag_event_set(struct mag_event *event);

/*
 * It has not happened any more: who waits from now on, waits.  Who was woken by the set
 * stays woken.  Returns 0.  Any thread; never suspends.
 */
MAG_API int mag_event_clear(struct mag_event *event);

/*
 * Waits until it has happened, and returns 0.  -ECANCELED leaves the event as it is.
 * Suspends if it is not set; cancellation point.  Any thread.
 */
MAG_API int mag_event_wait(struct mag_event *event);

/*
 * Whether it is set, at some moment during the call.  Only a wait that has returned says
 * that the setter is done with the storage.  Any thread; never suspends.
 */
MAG_API bool mag_event_is_set(const struct mag_event *event);

/* ---- semaphore ------------------------------------------------------------------------- */

/* A number of permits; storage, for mag_sem_init. */
struct mag_sem {
    uint64_t private_[5];
};

/*
 * A semaphore with `value' permits; bounded: one that never has more than that, so that a
 * release too many is found out.  -EINVAL below zero.  Any thread; never suspends.
 */
MAG_API int mag_sem_init(struct mag_sem *sem, int64_t value);
MAG_API int mag_sem_init_bounded(struct mag_sem *sem, int64_t value);

/*
 * Takes a permit, if there is none waits for it, and returns 0.  -ECANCELED: none was taken.
 * Suspends; cancellation point.  Any thread.
 */
MAG_API int mag_sem_acquire(struct mag_sem *sem);

/* The same without waiting: -EAGAIN.  Any thread; never suspends. */
MAG_API int mag_sem_try_acquire(struct mag_sem *sem);

/*
 * Gives a permit back, or a new one: to whoever has waited longest.  Need not be the one
 * who took it.  -EOVERFLOW, told in debug mode, if a bounded one has them all already.  Any
 * thread; never suspends.
 */
MAG_API int mag_sem_release(struct mag_sem *sem);

/* Permits that are there to be taken, at some moment during the call; and whether there are
 * none, so that an acquire would wait.  Any thread; never suspend. */
MAG_API int64_t mag_sem_value(const struct mag_sem *sem);
MAG_API bool mag_sem_locked(const struct mag_sem *sem);

/*
 * mag_to_thread with a limit of its own: holds a permit of `limiter' while fn(arg) runs on
 * the offload pool.  Returns what fn returned, or -ECANCELED if it never began; the permit
 * is back in any case.  Suspends; cancellation point, as mag_to_thread.
 */
MAG_API int mag_to_thread_limited(struct mag_sem *limiter, int (*fn)(void *arg), void *arg);

/* ---- barrier ------------------------------------------------------------------------------ */

/* Where a number of parties wait for each other, again and again; for mag_barrier_init. */
struct mag_barrier {
    uint64_t private_[5];
};

/* For so many parties; -EINVAL for 0.  Any thread; never suspends. */
MAG_API int mag_barrier_init(struct mag_barrier *barrier, unsigned parties);

/*
 * Waits until so many are here, and returns a number from 0 to parties - 1, different for
 * each.  A barrier that is full lets them all go, and only when the last of them has left
 * fills again: who comes in between waits for that first.  -EPIPE if the barrier is broken,
 * or is broken or reset before this one has left; -ECANCELED: this one has left, and the
 * barrier wants one more in its place.  Suspends; cancellation point.  Any thread.
 */
MAG_API int mag_barrier_wait(struct mag_barrier *barrier);

/*
 * Empties it: those who are in it, who have not left included, get -EPIPE; then it fills
 * anew, even if it was broken.  Returns 0.  Any thread; never suspends.
 */
MAG_API int mag_barrier_reset(struct mag_barrier *barrier);

/* Breaks it: everybody who waits, and who comes later, gets -EPIPE.  Returns 0.  Any thread;
 * never suspends. */
MAG_API int mag_barrier_abort(struct mag_barrier *barrier);

/* How many wait for it to be full; how many it takes; whether it is broken.  At some moment
 * during the call.  Any thread; never suspend. */
MAG_API unsigned mag_barrier_n_waiting(const struct mag_barrier *barrier);
MAG_API unsigned mag_barrier_parties(const struct mag_barrier *barrier);
MAG_API bool mag_barrier_is_broken(const struct mag_barrier *barrier);

/* ---- read-write lock ---------------------------------------------------------------------- */

/* Many who read, or one who writes; storage, zero: nobody. */
struct mag_rwlock {
    uint64_t private_[4];
};

/*
 * Begins to read: together with other readers, not beside a writer, and not before a writer
 * who waits already, so that readers who keep coming do not keep writers out.  For the same
 * reason who reads must not begin to read once more inside: it may wait for a writer who
 * waits for it.  Returns 0.  -ECANCELED: not begun.  Suspends; cancellation point.  Any thread.
 */
MAG_API int mag_rwlock_rdlock(struct mag_rwlock *rwlock);

/* Begins to write: alone.  Otherwise as mag_rwlock_rdlock. */
MAG_API int mag_rwlock_wrlock(struct mag_rwlock *rwlock);

/* The same without waiting: -EBUSY.  Any thread; never suspend. */
MAG_API int mag_rwlock_tryrdlock(struct mag_rwlock *rwlock);
MAG_API int mag_rwlock_trywrlock(struct mag_rwlock *rwlock);

/* Ends to read, ends to write; need not be the one who began.  -EPERM, told in debug mode,
 * if nobody reads, or writes.  Any thread; never suspend. */
MAG_API int mag_rwlock_rdunlock(struct mag_rwlock *rwlock);
MAG_API int mag_rwlock_wrunlock(struct mag_rwlock *rwlock);

/* ---- once ------------------------------------------------------------------------------------ */

/* Something to be done once; storage, zero: not done. */
struct mag_once {
    uint64_t private_[5];
};

/*
 * Calls fn(arg), unless somebody has done that before; who comes meanwhile waits for its end.
 * Returns 0 when it is done.  If fn fails (returns < 0) that is returned to whoever called it,
 * and the next one, who may wait already, calls its own.  fn may suspend.  -EDEADLK, told in
 * debug mode, if fn itself comes back here; -ECANCELED: the wait was cancelled.  Suspends;
 * cancellation point if it waits.  Any thread.
 */
MAG_API int mag_once(struct mag_once *once, int (*fn)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif
#endif
