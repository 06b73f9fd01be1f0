/* SPDX-License-Identifier: MIT */
/*
 * timers.c - the deadlines of one worker
 *
 * A heap in an array in which each entry has four children: half as deep as a
 * binary one, and the four lie side by side, so that going down a level costs about
 * one cache miss.  An entry holds the deadline beside the pointer; the timers, which
 * are scattered over memory, are looked into only to break ties and to note where
 * their entry went.
 *
 *     entry:     0 | 1  2  3  4 | 5  6  7  8 | 9 ...      children of i: 4i+1 .. 4i+4
 *     parent:    - | 0  0  0  0 | 1  1  1  1 | 2 ...      parent of i:   (i-1)/4
 *
 * Invariants
 *   1. No entry is due before its parent.
 *   2. heap[t->index].timer == t for each armed t; count is the number of armed ones.
 *   3. Order is (deadline, seq), and seq only grows, so equal deadlines are FIFO.
 *   4. While expire runs at `now', what is added counts as due at `now' or later.
 *      So it comes after all that was due before, expire can stop at the first timer
 *      that is younger than itself, and a fire that adds itself again for a time in
 *      the past starves nobody.
 *
 * Who may call: the owner only.  Memory grows by doubling in add, and is halved when
 * seven eighths are unused, so a burst is given back and nothing oscillates.
 *
 * Rejected
 *   - A lock for foreign cancels: started tasks resume on their own worker, which
 *     therefore owns their timers; the rare cancel from elsewhere is a message to
 *     it, while a lock would be taken on every sleep.
 *   - A hierarchical wheel: equal in speed at a million timers (cache misses on the
 *     timers decide), but neither order nor next deadline is exact, and real ones had
 *     bugs at every boundary of theirs (tokio#8334, #3229).
 *   - Cancelling lazily, with dead entries in the heap: a server whose timeouts
 *     never expire would fill its memory with them (tokio#8252).
 */
#include "timers.h"

#include "check.h"
#include "mem.h"

#include <errno.h>

enum {
    CAPACITY_MIN = 64,
};

void mag_timers_init(struct mag_timers *ts)
{
    *ts = (struct mag_timers){ .floor = INT64_MIN };
}

void mag_timers_fini(struct mag_timers *ts)
{
    MAG_CHECK(ts->count == 0);
    mag_mem_free(ts->heap);
    mag_timers_init(ts);
}

/* ---- the array ------------------------------------------------------------- */

static int resize(struct mag_timers *ts, uint32_t capacity)
{
    struct mag_timer_entry *heap = mag_mem_realloc(ts->heap, capacity * sizeof *heap);
    if (!heap)
        return -ENOMEM;
    ts->heap = heap;
    ts->capacity = capacity;
    return 0;
}

static int grow(struct mag_timers *ts)
{
    if (ts->count < ts->capacity)
        return 0;
    if (ts->capacity > UINT32_MAX / 8)
        return -ENOMEM;
    return resize(ts, ts->capacity ? ts->capacity * 2 : CAPACITY_MIN);
}

static void shrink(struct mag_timers *ts)
{
    if (ts->capacity > CAPACITY_MIN && ts->count < ts->capacity / 8)
        (void)resize(ts, ts->capacity / 2); /* without memory it stays as large as it is */
}

/* ---- the heap -------------------------------------------------------------- */

static bool is_before(const struct mag_timer_entry *a, const struct mag_timer_entry *b)
{
    if (a->deadline != b->deadline)
        return a->deadline < b->deadline;
    return a->timer->seq < b->timer->seq;
}

static void place(struct mag_timers *ts, uint32_t i, struct mag_timer_entry e)
{
    ts->heap[i] = e;
    e.timer->index = i;
}

/* Puts e at i, or above it as far as it is due before its parents. */
static void sift_up(struct mag_timers *ts, uint32_t i, struct mag_timer_entry e)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;
        if (!is_before(&e, &ts->heap[parent]))
            break;
        place(ts, i, ts->heap[parent]);
        i = parent;
    }
    place(ts, i, e);
}

static uint32_t first_child(const struct mag_timers *ts, uint32_t i)
{
    uint32_t best = 4 * i + 1;
    uint32_t end = best + 4 < ts->count ? best + 4 : ts->count;
    for (uint32_t c = best + 1; c < end; c++)
        if (is_before(&ts->heap[c], &ts->heap[best]))
            best = c;
    return best;
}

/* Puts e at i, or below it as far as children are due before it. */
static void sift_down(struct mag_timers *ts, uint32_t i, struct mag_timer_entry e)
{
    while (4 * (uint64_t)i + 1 < ts->count) {
        uint32_t child = first_child(ts, i);
        if (!is_before(&ts->heap[child], &e))
            break;
        place(ts, i, ts->heap[child]);
        i = child;
    }
    place(ts, i, e);
}

/* Takes t out; the last entry fills the hole and finds its place from there. */
static void take_out(struct mag_timers *ts, struct mag_timer *t)
{
    uint32_t i = t->index;
    MAG_CHECK(i < ts->count && ts->heap[i].timer == t);
    t->armed = 0;
    struct mag_timer_entry last = ts->heap[--ts->count];
    if (last.timer == t)
        return;
    if (i > 0 && is_before(&last, &ts->heap[(i - 1) / 4]))
        sift_up(ts, i, last);
    else
        sift_down(ts, i, last);
}

/* ---- public ---------------------------------------------------------------- */

int mag_timers_add(struct mag_timers *ts, struct mag_timer *t, mag_time deadline)
{
    MAG_CHECK(!t->armed);
    int rc = grow(ts);
    if (rc)
        return rc;
    t->deadline = deadline;
    t->seq = ts->next_seq++;
    t->armed = 1;
    mag_time due = deadline > ts->floor ? deadline : ts->floor;
    sift_up(ts, ts->count++, (struct mag_timer_entry){ due, t });
    return 0;
}

bool mag_timers_cancel(struct mag_timers *ts, struct mag_timer *t)
{
    if (!t->armed)
        return false;
    take_out(ts, t);
    shrink(ts);
    return true;
}

size_t mag_timers_expire(struct mag_timers *ts, mag_time now)
{
    MAG_CHECK(now < MAG_NEVER && ts->floor == INT64_MIN);
    uint64_t younger = ts->next_seq;
    size_t n_fired = 0;

    ts->floor = now;
    while (ts->count && ts->heap[0].deadline <= now && ts->heap[0].timer->seq < younger) {
        struct mag_timer *t = ts->heap[0].timer;
        take_out(ts, t);
        t->fire(t);
        n_fired++;
    }
    ts->floor = INT64_MIN;
    shrink(ts);
    return n_fired;
}
