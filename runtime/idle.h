/* SPDX-License-Identifier: MIT */
#ifndef MAG_IDLE_H
#define MAG_IDLE_H
/*
 * idle.h - which workers sleep, and who wakes them (idle.c has the protocol)
 */
#include "atomic.h"
#include "ring.h"

/* One per worker. */
struct mag_sleeper {
    MAG_CACHELINE mag_atomic(uint32_t) is_parked; /* [lock] read without it as a hint  */
    bool is_searching;                            /* [owner; while parked: lock]       */
    struct mag_ring *ring;                        /* [const] once it has parked        */
};

/* One per runtime. */
struct mag_idle {
    MAG_CACHELINE mag_atomic(uint32_t) n_searching; /* [any]  */
    mag_atomic(uint32_t) n_parked;                  /* [lock] read without it  */
    struct mag_spin lock;                           /* who parks, and who is claimed */
    MAG_CACHELINE struct mag_sleeper *sleepers;     /* [const] n of them */
    uint32_t n;                                     /* [const] */
    mag_atomic(uint32_t) has_watch;                 /* [any] a sleeper looks after busy ones */
};

void mag_idle_init(struct mag_idle *idle, struct mag_sleeper *sleepers, uint32_t n);

/* Somebody would take work if there were some. */
static inline bool mag_idle_is_hungry(const struct mag_idle *idle)
{
    return mag_load_relaxed(&idle->n_searching) + mag_load_relaxed(&idle->n_parked) != 0;
}

/* After work for anybody was published: wakes one worker if nobody searches. */
void mag_idle_notify(struct mag_idle *idle);

/* After work for this very worker was published. */
void mag_idle_notify_one(struct mag_idle *idle, struct mag_sleeper *s);

/* Wakes everybody. */
void mag_idle_notify_all(struct mag_idle *idle);

/* true: the caller may search; at most half of the workers may. */
bool mag_idle_search_begin(struct mag_idle *idle, struct mag_sleeper *s);
/* The search is over; the last searcher that found something wakes another. */
void mag_idle_search_end(struct mag_idle *idle, struct mag_sleeper *s, bool has_found);

/*
 * The caller, about to sleep, has seen public work: it searches (again), whatever the
 * bound, so that whoever runs it, or something else first, wakes another.
 */
void mag_idle_search_again(struct mag_idle *idle, struct mag_sleeper *s);

/* Parked from now on; the caller then looks everywhere once more. */
void mag_idle_park(struct mag_idle *idle, struct mag_sleeper *s);
/* No longer parked.  If a waker was first, it has made the caller a searcher. */
void mag_idle_unpark(struct mag_idle *idle, struct mag_sleeper *s);

#endif
