/* SPDX-License-Identifier: MIT */
/*
 * inflight.c - which operations use a descriptor, so that a close can end them first
 *
 * close(2) ends nothing: a task that receives would wait on, in the kernel, on a socket that
 * has no number any more, and the next socket that gets the number would be met by a call that
 * was meant for the old one (liburing#363, #782).  So each call is on a list, by its
 * descriptor, and a close goes through the list first:
 *
 *      bucket[fd % N]:  lock | calls -> call -> call ...      | closers -> closer
 *                                |        |                        |
 *                              home A   home B                  message: A, then B, then done
 *
 * An operation can only be cancelled by the worker whose ring has it.  One message, which is on
 * the closer's own stack, visits these workers one after the other; each cancels all of them
 * that are its own.  The closer sleeps until the message is back and the last call has signed
 * off.  Then it closes, and nobody begins with that number before this is over: a call that came
 * between would hold the file open in the kernel, and wait there for ever, with nobody left who
 * could end it.
 *
 * Invariants (all under the bucket's lock)
 *   1. A call with a closer submits nothing any more: enter refuses.  So its home is fixed.
 *   2. closer->n_left == calls that have this closer; new ones wait in begin.  A descriptor has
 *      one closer at a time.
 *   3. While the message is on its way to a worker, closer->target is a call whose home that is;
 *      that call does not sign off before the message has come, so its runtime, and that
 *      worker, are still there.
 *   4. A closer is woken once, when it is asleep, n_left == 0 and target == NULL.
 *   5. Sleepers are woken with the lock held: they may be gone as soon as it is free.
 *   6. Who waits in begin holds at most a lower descriptor: so nobody waits in a ring.
 *
 * Cost: two turns of a lock that is seldom shared, some 20 ns a call.
 *
 * Who may call: begin, enter, end the task that calls; cancel any thread.
 *
 * Ordering: the lock alone.
 *
 * Rejected
 *   - IORING_ASYNC_CANCEL_FD: reaches one ring only, and no other back-end;
 *   - a list per worker: a close would have to visit all of them, also when nothing is in
 *     flight, which is nearly always;
 *   - shutdown(2) by the closer: wakes what waits on a socket, but the peer sees the end before
 *     the owner has closed; and there are pipes.
 *
 * Threads outside a task are not on the list: nothing but a signal could end their call.
 *
 * A child of fork(2) has the lists, and none of those who are on them: it forgets them, so that it
 * can close what it has inherited.
 */
#include "inflight.h"

#include "sys.h"
#include "wait.h"

#include <errno.h>
#include <pthread.h>

enum { BUCKETS = 1024 }; /* a power of two */

static struct bucket {
    MAG_CACHELINE struct mag_spin lock;
    struct mag_inflight *calls;
    struct mag_closer *closers;
} buckets[BUCKETS];

static struct bucket *bucket_of(int fd)
{
    return &buckets[(unsigned)fd % BUCKETS];
}

static struct mag_closer *closer_of(const struct bucket *b, int fd)
{
    struct mag_closer *c = b->closers;

    while (c && c->fd != fd)
        c = c->next;
    return c;
}

/* ---- sleeping ------------------------------------------------------------------------ */

static void wake(struct mag_inflight_sleeper *s)
{
    if (s->fiber) {
        mag_worker_ready(s->fiber);
    } else {
        mag_store_seq(&s->is_woken, 1);
        mag_sys_futex_wake(&s->is_woken, 1);
    }
}

/* `commit' arranges for the wake; it may wake at once. */
static void sleep_after(struct mag_inflight_sleeper *s, void (*commit)(void *arg), void *arg)
{
    if (s->fiber) {
        mag_worker_suspend(commit, arg);
        return;
    }
    commit(arg);
    while (!mag_load_acquire(&s->is_woken))
        mag_sys_futex_wait(&s->is_woken, 0, MAG_NEVER);
}

struct wish {
    struct mag_inflight_sleeper self;
    int fd;
};

static void queue_behind(void *arg)
{
    struct wish *w = arg;
    struct bucket *b = bucket_of(w->fd);
    struct mag_closer *c;

    mag_spin_lock(&b->lock);
    c = closer_of(b, w->fd);
    if (c) {
        w->self.next = c->behind;
        c->behind = &w->self;
    } else {
        wake(&w->self);
    }
    mag_spin_unlock(&b->lock);
}

/* Returns with the lock held, and nobody closes that descriptor. */
static struct bucket *lock_when_free(int fd)
{
    struct bucket *b = bucket_of(fd);

    mag_spin_lock(&b->lock);
    while (MAG_UNLIKELY(closer_of(b, fd) != NULL)) {
        struct wish w = { .self.fiber = mag_fiber_self(), .fd = fd };
        mag_spin_unlock(&b->lock);
        sleep_after(&w.self, queue_behind, &w);
        mag_spin_lock(&b->lock);
    }
    return b;
}

/* ---- a call -------------------------------------------------------------------------- */

void mag_inflight_begin(struct mag_inflight *f, int fd, struct mag_op *op)
{
    struct bucket *b = lock_when_free(fd);

    *f = (struct mag_inflight){ .fd = fd,
                                .next = b->calls,
                                .link = &b->calls,
                                .op = op,
                                .home = op ? mag_worker_self() : NULL };
    if (f->next)
        f->next->link = &f->next;
    b->calls = f;
    mag_spin_unlock(&b->lock);
}

int mag_inflight_enter(struct mag_inflight *f, struct mag_op *op)
{
    struct bucket *b = bucket_of(f->fd);
    int rc = -EBADF;

    mag_spin_lock(&b->lock);
    if (f->closer == NULL) {
        f->home = mag_worker_self();
        f->op = op;
        rc = 0;
    }
    mag_spin_unlock(&b->lock);
    return rc;
}

static void wake_if_over(struct mag_closer *c)
{
    if (!c->is_asleep || c->n_left > 0 || c->target)
        return;
    c->is_asleep = false;
    wake(&c->self);
}

/* The commit step of a call that the message is on its way to, unless it has come. */
static void detain(void *arg)
{
    struct mag_inflight *f = arg;
    struct bucket *b = bucket_of(f->fd);

    mag_spin_lock(&b->lock);
    f->is_detained = f->closer->target == f;
    if (!f->is_detained)
        mag_worker_ready(f->fiber);
    mag_spin_unlock(&b->lock);
}

/* With the lock held: off the list. */
static void sign_off(struct mag_inflight *f)
{
    *f->link = f->next;
    if (f->next)
        f->next->link = f->link;
    if (MAG_LIKELY(f->closer == NULL))
        return;
    f->closer->n_left--;
    wake_if_over(f->closer);
}

bool mag_inflight_end(struct mag_inflight *f)
{
    struct bucket *b = bucket_of(f->fd);

    mag_spin_lock(&b->lock);
    if (MAG_UNLIKELY(f->closer && f->closer->target == f)) {
        mag_spin_unlock(&b->lock);
        f->fiber = mag_fiber_self();
        mag_worker_suspend(detain, f);
        mag_spin_lock(&b->lock);
    }
    sign_off(f);
    mag_spin_unlock(&b->lock);
    return f->closer != NULL;
}

/* ---- a close ------------------------------------------------------------------------- */

/* Sends the message to the next worker that has not seen it; without one it is back. */
static void send_on(struct bucket *b, struct mag_closer *c)
{
    struct mag_inflight *f = b->calls;

    while (f && (f->closer != c || f->is_asked || f->home == NULL))
        f = f->next;
    c->target = f;
    if (f)
        mag_worker_send(f->home, &c->msg);
}

/* On a worker's thread: cancels what is in its ring. */
static void deliver(struct mag_message *m, struct mag_worker *w)
{
    struct mag_closer *c = mag_container_of(m, struct mag_closer, msg);
    struct bucket *b = bucket_of(c->fd);
    struct mag_inflight *came_to;

    mag_spin_lock(&b->lock);
    came_to = c->target;
    for (struct mag_inflight *f = b->calls; f; f = f->next) {
        if (f->closer != c || f->home != w || f->is_asked)
            continue;
        f->is_asked = true;
        if (f->op->state) /* 0: it has completed, and the call will see */
            mag_ring_cancel(w->ring, f->op);
    }
    send_on(b, c);
    if (came_to->is_detained)
        mag_worker_ready(came_to->fiber);
    wake_if_over(c);
    mag_spin_unlock(&b->lock);
}

/* From here on the closer may be woken. */
static void start_message(void *arg)
{
    struct mag_closer *c = arg;
    struct bucket *b = bucket_of(c->fd);

    mag_spin_lock(&b->lock);
    c->is_asleep = true;
    send_on(b, c);
    wake_if_over(c);
    mag_spin_unlock(&b->lock);
}

void mag_inflight_close(struct mag_closer *c, int fd)
{
    struct bucket *b = lock_when_free(fd);
    bool is_used;

    *c = (struct mag_closer){
        .fd = fd, .next = b->closers, .msg.deliver = deliver, .self.fiber = mag_fiber_self()
    };
    b->closers = c;
    for (struct mag_inflight *f = b->calls; f; f = f->next) {
        if (f->fd != fd)
            continue;
        f->closer = c;
        c->n_left++;
    }
    is_used = c->n_left > 0;
    mag_spin_unlock(&b->lock);
    if (MAG_UNLIKELY(is_used))
        sleep_after(&c->self, start_message, c);
}

void mag_inflight_closed(struct mag_closer *c)
{
    struct bucket *b = bucket_of(c->fd);
    struct mag_closer **link = &b->closers;
    struct mag_inflight_sleeper *next;

    mag_spin_lock(&b->lock);
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    for (struct mag_inflight_sleeper *s = c->behind; s; s = next) {
        next = s->next;
        wake(s);
    }
    mag_spin_unlock(&b->lock);
}

/* ---- fork(2) ------------------------------------------------------------------------- */

/* A lock, too, may be held by a thread that the child does not have.  What is untouched stays so:
 * its page is still the parent's. */
static void forget_all(void)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct bucket *b = &buckets[i];
        if (b->calls || b->closers || mag_load_relaxed(&b->lock.held))
            *b = (struct bucket){ .calls = NULL };
    }
}

/* (Where there is no memory so early, the process will not get far.) */
__attribute__((constructor)) static void at_load(void)
{
    (void)pthread_atfork(NULL, NULL, forget_all);
}
