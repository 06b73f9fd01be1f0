/* SPDX-License-Identifier: MIT */
/*
 * queue.c - a bounded queue: places for items, one lock, one line of waiters
 *
 *      put ->  [ . . a b c . . ]  -> get       in line: getters, if it is empty,
 *                    head  len                          putters, if it is full,
 *                                                       nobody otherwise
 *
 * A put that finds a getter in line copies its item straight to where that one wants it; a
 * get that makes room in a full queue fills it with the oldest putter's item.  So who has
 * come first is served first, nobody can come in between, and who wakes up has what it
 * waited for: a cancel that comes then is too late, and loses nothing.
 *
 * One line is enough because a queue has room for at least one item: it cannot be empty and
 * full.  MAG_FIFO is a ring, MAG_LIFO a stack, MAG_PRIORITY a binary heap in which each item
 * has its age beside it, so that among equals the oldest is the least.
 *
 * Invariants (under the lock)
 *   1. If somebody is in line whom nobody has served, the queue is empty or full; and if it
 *      is empty, they are getters, if it is full, putters.
 *   2. Nobody is in line after a shutdown.
 *   3. n_unfinished is the number of puts less that of dones; joiners wait only while it is
 *      not 0, and those who wait when it gets 0 are woken by that, whatever is put then.
 *
 * Speed is a matter of the lock, which all sides want all the time.  Who finds it taken
 * pauses, twice as long each time, up to a bound: in the meantime the holder, who has the
 * cache lines, does dozens of operations at once instead of handing the lines over for each.
 * Measured, N:N, 4 tasks a side, 1024 items, ns per item with 1, 2, 4 workers (4 cores):
 * 13, 30, 40.  If the bound is lower (8 pauses) 13, 32, 50; no pauses but one 12, 40, 95;
 * higher (128) 13, 31, 34, but then who waits waits long.  A task that never has to wait
 * lets others run now and then, as one that does.
 *
 * Who may call: any thread.  Nothing is woken, and nothing suspends, under the lock; the
 * joiners' lock is taken inside the queue's.
 *
 * Rejected: a plain spin lock (13, 54, 100); a ring of sequence numbers (Vyukov's MPMC queue:
 * 11, 48, 67, without anything that waits, and neither orders nor hand-over on top); a wake-up
 * that only says "look again" (the item may be gone by then: no order, and who was cancelled
 * must hand the wake-up on); a line for each side (a second lock to no use).
 *
 * Sources: asyncio/queues.py for the meaning of join, task_done and shutdown.
 */
#include "queue.h"

#include "check.h"
#include "mem.h"
#include "misuse.h"
#include "sys.h"
#include "waitlist.h"

#include <errno.h>
#include <string.h>

enum {
    PAUSES_MAX = 32,
    PAUSES_BEFORE_YIELD = 4096,
};

/* ---- the lock ----------------------------------------------------------------------------- */

MAG_NOINLINE void mag_queue_lock_slow(struct mag_queue *q)
{
    unsigned pauses = 1, n = 0;

    do {
        for (unsigned i = 0; i < pauses; i++)
            mag_cpu_relax();
        n += pauses;
        if (n > PAUSES_BEFORE_YIELD) {
            mag_sys_yield();
            n = 0;
        }
        if (pauses < PAUSES_MAX)
            pauses *= 2;
    } while (!mag_spin_try(&q->waiters.lock));
}

/* ---- the items ------------------------------------------------------------------------------ */

/* The common sizes without a call. */
static inline void copy(void *to, const void *from, size_t bytes)
{
    if (bytes == 8)
        memcpy(to, from, 8);
    else if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 16)
        memcpy(to, from, 16);
    else if (bytes)
        memcpy(to, from, bytes);
}

static inline void copy_out(const struct mag_queue *q, void *to, const void *place)
{
    if (to)
        copy(to, place, q->item_bytes);
}

static inline char *place(const struct mag_queue *q, size_t i)
{
    return q->items + i * q->place_bytes;
}

static inline void set_len(struct mag_queue *q, size_t len)
{
    mag_store_relaxed(&q->len, len);
}

static uint64_t age(const struct mag_queue *q, const char *p)
{
    uint64_t n;

    memcpy(&n, p + q->age_offset, sizeof n);
    return n;
}

static bool is_before(const struct mag_queue *q, const char *a, const char *b)
{
    int order = q->compare(a, b);

    return order < 0 || (order == 0 && age(q, a) < age(q, b));
}

/* A binary heap; the place behind the last is always free, to hold what moves. */
static void heap_push(struct mag_queue *q, const void *item)
{
    char *mine = place(q, q->capacity);
    size_t i = q->len;

    copy(mine, item, q->item_bytes);
    memcpy(mine + q->age_offset, &q->n_puts, sizeof q->n_puts);
    for (; i > 0 && is_before(q, mine, place(q, (i - 1) / 2)); i = (i - 1) / 2)
        memcpy(place(q, i), place(q, (i - 1) / 2), q->place_bytes);
    memcpy(place(q, i), mine, q->place_bytes);
}

static void heap_pop(struct mag_queue *q, void *item)
{
    size_t n = q->len - 1, i = 0, child;
    const char *last = place(q, n);

    copy_out(q, item, place(q, 0));
    while ((child = 2 * i + 1) < n) {
        if (child + 1 < n && is_before(q, place(q, child + 1), place(q, child)))
            child++;
        if (!is_before(q, place(q, child), last))
            break;
        memcpy(place(q, i), place(q, child), q->place_bytes);
        i = child;
    }
    memmove(place(q, i), last, q->place_bytes);
}

static inline void store(struct mag_queue *q, const void *item)
{
    size_t i = q->len;

    if (MAG_LIKELY(q->order == MAG_FIFO)) {
        i += q->head;
        if (i >= q->capacity)
            i -= q->capacity;
        copy(place(q, i), item, q->item_bytes);
    } else if (q->order == MAG_LIFO) {
        copy(place(q, i), item, q->item_bytes);
    } else {
        heap_push(q, item);
    }
    set_len(q, q->len + 1);
}

static inline void take(struct mag_queue *q, void *item)
{
    if (MAG_LIKELY(q->order == MAG_FIFO)) {
        copy_out(q, item, place(q, q->head));
        if (++q->head == q->capacity)
            q->head = 0;
    } else if (q->order == MAG_LIFO) {
        copy_out(q, item, place(q, q->len - 1));
    } else {
        heap_pop(q, item);
    }
    set_len(q, q->len - 1);
}

/* ---- put and get, under the lock ------------------------------------------------------------ */

static inline void count_put(struct mag_queue *q)
{
    q->n_puts++;
    q->n_unfinished++;
}

/* Waiters of an empty queue are getters. */
static inline struct mag_queued *next_waiter(struct mag_queue *q)
{
    return MAG_UNLIKELY(q->waiters.first != NULL) ? mag_waitq_pop(&q->waiters) : NULL;
}

struct mag_queued *mag_queue_do_put(struct mag_queue *q, const void *item)
{
    struct mag_queued *getter = q->len ? NULL : next_waiter(q);

    count_put(q);
    if (getter)
        copy_out(q, getter->item, item);
    else
        store(q, item);
    return getter;
}

/* Waiters of a full queue are putters: the oldest one's item comes into the free place. */
struct mag_queued *mag_queue_do_get(struct mag_queue *q, void *item)
{
    struct mag_queued *putter = q->len < q->capacity ? NULL : next_waiter(q);

    take(q, item);
    if (putter) {
        count_put(q);
        store(q, putter->item);
    }
    return putter;
}

/* ---- put and get ---------------------------------------------------------------------------- */

static const struct mag_wait_kind put_kind = { "queue put", mag_waitq_cancel, false };
static const struct mag_wait_kind get_kind = { "queue get", mag_waitq_cancel, false };

static int refuse_put(const struct mag_queue *q)
{
    return mag_misuse(-EPIPE, "put into the queue '%s' after it was shut down", q->name);
}

static int refuse_null(const char *call)
{
    return mag_misuse(-EINVAL, "%s: the queue is NULL", call);
}

/* With the lock held, which it releases. */
static inline int finish_put(struct mag_queue *q, const void *item)
{
    struct mag_queued *getter = mag_queue_do_put(q, item);

    mag_queue_unlock(q);
    if (getter)
        mag_waitq_wake(getter, 0);
    return 0;
}

static inline int finish_get(struct mag_queue *q, void *item)
{
    struct mag_queued *putter = mag_queue_do_get(q, item);

    mag_queue_unlock(q);
    if (putter)
        mag_waitq_wake(putter, 0);
    return 0;
}

int mag_queue_try_put(struct mag_queue *q, const void *item)
{
    int rc;

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_try_put");
    mag_queue_lock(q);
    rc = mag_queue_may_put(q);
    if (rc == 0)
        return finish_put(q, item);
    mag_queue_unlock(q);
    return rc == -EPIPE ? refuse_put(q) : rc;
}

int mag_queue_try_get(struct mag_queue *q, void *item)
{
    int rc;

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_try_get");
    mag_queue_lock(q);
    rc = mag_queue_may_get(q);
    if (rc == 0)
        return finish_get(q, item);
    mag_queue_unlock(q);
    return rc;
}

MAG_SUSPENDS int mag_queue_put(struct mag_queue *q, const void *item)
{
    struct mag_queued me;
    int rc;

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_put");
    mag_queue_lock(q);
    rc = mag_queue_may_put(q);
    if (MAG_LIKELY(rc == 0)) {
        (void)finish_put(q, item);
        mag_queue_take_turns();
        return 0;
    }
    if (rc == -EPIPE) {
        mag_queue_unlock(q);
        return refuse_put(q);
    }
    return mag_waitq_wait(&q->waiters, &me, &put_kind, q, (void *)(uintptr_t)item);
}

MAG_SUSPENDS int mag_queue_get(struct mag_queue *q, void *item)
{
    struct mag_queued me;
    int rc;

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_get");
    mag_queue_lock(q);
    rc = mag_queue_may_get(q);
    if (MAG_LIKELY(rc == 0)) {
        (void)finish_get(q, item);
        mag_queue_take_turns();
        return 0;
    }
    if (rc == -EPIPE) {
        mag_queue_unlock(q);
        return rc;
    }
    return mag_waitq_wait(&q->waiters, &me, &get_kind, q, item);
}

/* ---- done and join -------------------------------------------------------------------------- */

static const struct mag_wait_kind join_kind = { "queue join", mag_waitq_cancel, false };

/* With the lock held, when everything is done: those who join now, and nobody who comes
 * after the next put. */
static void pop_joiners(struct mag_queue *q, struct mag_waitlist *joiners)
{
    mag_spin_lock(&q->joiners.lock);
    mag_waitlist_take_all(joiners, &q->joiners);
    mag_spin_unlock(&q->joiners.lock);
}

int mag_queue_task_done(struct mag_queue *q)
{
    struct mag_waitlist joiners = { 0 };
    bool is_too_often;

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_task_done");
    mag_queue_lock(q);
    is_too_often = q->n_unfinished == 0;
    if (!is_too_often && --q->n_unfinished == 0)
        pop_joiners(q, &joiners);
    mag_queue_unlock(q);
    if (is_too_often)
        return mag_misuse(-EINVAL,
                          "mag_queue_task_done was called more often than items were "
                          "put into the queue '%s'",
                          q->name);
    mag_waitlist_wake(&joiners, 0);
    return 0;
}

MAG_SUSPENDS int mag_queue_join(struct mag_queue *q)
{
    struct mag_queued me;

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_join");
    mag_queue_lock(q);
    if (q->n_unfinished == 0) {
        mag_queue_unlock(q);
        return 0;
    }
    mag_spin_lock(&q->joiners.lock);
    mag_queue_unlock(q);
    return mag_waitq_wait(&q->joiners, &me, &join_kind, q, NULL);
}

/* ---- shutting down ---------------------------------------------------------------------------- */

/* As though all had been taken and done; no more than was put, which done() may have said
 * of items that are still here. */
static void drop_items(struct mag_queue *q)
{
    size_t n = q->len;

    q->n_unfinished -= n < q->n_unfinished ? n : q->n_unfinished;
    q->head = 0;
    set_len(q, 0);
}

int mag_queue_shutdown(struct mag_queue *q, bool immediate)
{
    struct mag_waitlist waiters = { 0 }, joiners = { 0 };

    if (MAG_UNLIKELY(q == NULL))
        return refuse_null("mag_queue_shutdown");
    mag_queue_lock(q);
    mag_store_relaxed(&q->is_shut, true);
    mag_waitlist_take_all(&waiters, &q->waiters);
    if (immediate) {
        drop_items(q);
        if (q->n_unfinished == 0)
            pop_joiners(q, &joiners);
    }
    mag_queue_unlock(q);
    mag_waitlist_wake(&waiters, -EPIPE);
    mag_waitlist_wake(&joiners, 0);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------- */

static int check_options(size_t capacity, const struct mag_queue_options *o)
{
    if (capacity == 0)
        return mag_misuse(-EINVAL, "mag_queue_new: the capacity is 0; queues are bounded");
    if ((unsigned)o->order > MAG_PRIORITY)
        return mag_misuse(-EINVAL, "mag_queue_new: no such order: %d", (int)o->order);
    if (o->order == MAG_PRIORITY && o->compare == NULL)
        return mag_misuse(-EINVAL, "mag_queue_new: MAG_PRIORITY needs .compare");
    return 0;
}

/* Bytes of all places and the free one; false: more than there can be. */
static bool measure(struct mag_queue *q, size_t *bytes)
{
    q->place_bytes = q->item_bytes;
    if (q->order == MAG_PRIORITY) {
        if (q->item_bytes > SIZE_MAX / 2)
            return false;
        q->age_offset = (q->item_bytes + 7) & ~(size_t)7;
        q->place_bytes = q->age_offset + sizeof(uint64_t);
    }
    return q->capacity < SIZE_MAX / 2 &&
           !__builtin_mul_overflow(q->capacity + 1, q->place_bytes, bytes) && *bytes <= PTRDIFF_MAX;
}

int mag_queue_new(struct mag_queue **out, size_t item_bytes, size_t capacity,
                  const struct mag_queue_options *options)
{
    static const struct mag_queue_options defaults;
    const struct mag_queue_options *o = options ? options : &defaults;
    struct mag_queue *q;
    size_t bytes;
    int rc;

    if (out == NULL)
        return mag_misuse(-EINVAL, "mag_queue_new: there is no place for the queue");
    *out = NULL;
    rc = check_options(capacity, o);
    if (rc < 0)
        return rc;
    q = mag_mem_alloc_aligned(MAG_CACHE_BYTES, sizeof *q);
    if (q == NULL)
        return -ENOMEM;
    *q = (struct mag_queue){ .capacity = capacity,
                             .item_bytes = item_bytes,
                             .order = o->order,
                             .compare = o->compare,
                             .name = o->name ? o->name : "queue" };
    if (measure(q, &bytes))
        q->items = mag_mem_alloc_aligned(MAG_CACHE_BYTES, bytes);
    if (q->items == NULL) {
        mag_mem_free(q);
        return -ENOMEM;
    }
    *out = q;
    return 0;
}

void mag_queue_free(struct mag_queue *q)
{
    if (q == NULL)
        return;
    mag_queue_lock(q); /* whoever has just woken the last user is through */
    if (q->waiters.first || q->joiners.first)
        MAG_PANIC("mag_queue_free: somebody waits in the queue '%s'; shut it down and wait for "
                  "its users first",
                  q->name);
    mag_mem_free(q->items);
    mag_mem_free(q);
}

size_t mag_queue_len(const struct mag_queue *q)
{
    return q ? mag_load_relaxed(&q->len) : 0; /* old when it comes, in any case */
}

size_t mag_queue_capacity(const struct mag_queue *q)
{
    return q ? q->capacity : 0;
}

bool mag_queue_is_empty(const struct mag_queue *q)
{
    return mag_queue_len(q) == 0;
}

bool mag_queue_is_full(const struct mag_queue *q)
{
    return q && mag_queue_len(q) == q->capacity;
}

const char *mag_queue_name(const struct mag_queue *q)
{
    return q ? q->name : NULL;
}
