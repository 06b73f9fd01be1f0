/* SPDX-License-Identifier: MIT */
#ifndef MAG_TIMERS_H
#define MAG_TIMERS_H
/*
 * timers.h - the deadlines of one worker
 *
 * A 4-ary heap of {deadline, timer}; the timer, which is part of the caller's
 * object, remembers its place, so that cancel need not search.  Timers fire in
 * the order of their deadlines, equal ones in the order in which they were added.
 *
 * Who may call: the OWNER THREAD ONLY, which is the worker's; nothing is locked.
 * Another thread that wants to cancel sends the owner a message (inbox.h).
 * timers.c tells how it works and what was rejected.
 */
#include "base.h"

struct mag_timer {
    mag_time deadline;                /* [owner] as given to add; MAG_NEVER is allowed */
    uint64_t seq;                     /* [timers] order among equal deadlines */
    uint32_t index;                   /* [timers] place in the heap, if armed */
    uint32_t armed;                   /* [timers] 1 from add until it fires or is cancelled */
    void (*fire)(struct mag_timer *); /* [owner] set before add; called by expire */
};

struct mag_timer_entry {
    mag_time deadline;       /* beside the pointer, so that a comparison */
    struct mag_timer *timer; /* seldom has to look into the timer itself */
};

struct mag_timers {
    struct mag_timer_entry *heap; /* [owner] heap[0] is due first */
    uint32_t count;               /* [owner] armed timers */
    uint32_t capacity;            /* [owner] entries allocated */
    uint64_t next_seq;            /* [owner] seq of the next timer added */
    mag_time floor;               /* [owner] now of the expire that runs, else the minimum */
};

void mag_timers_init(struct mag_timers *ts);
/* Gives the memory back.  Nothing may be armed. */
void mag_timers_fini(struct mag_timers *ts);

/*
 * Prepares t, whose fire is called at or after the deadline.  Needed once; a timer
 * may be added again after it fired or was cancelled, also from its own fire.
 */
static inline void mag_timer_init(struct mag_timer *t, void (*fire)(struct mag_timer *))
{
    t->armed = 0;
    t->fire = fire;
}

/*
 * Arms t.  A deadline in the past fires in the next expire, MAG_NEVER never.
 * -ENOMEM if the heap cannot grow; then t is not armed.
 */
MAG_MUST_USE int mag_timers_add(struct mag_timers *ts, struct mag_timer *t, mag_time deadline);

/* Disarms t; false if it was not armed, because it has fired or never was. */
bool mag_timers_cancel(struct mag_timers *ts, struct mag_timer *t);

/*
 * Fires what is due at now; the number fired.  A timer is disarmed before its fire
 * is called, which may free it, and may add and cancel any timer.  What fire adds
 * waits for the next call even if already due, so the call ends.
 */
size_t mag_timers_expire(struct mag_timers *ts, mag_time now);

/* The earliest deadline; MAG_NEVER if there is none. */
static inline mag_time mag_timers_next(const struct mag_timers *ts)
{
    return ts->count ? ts->heap[0].deadline : MAG_NEVER;
}

static inline size_t mag_timers_count(const struct mag_timers *ts)
{
    return ts->count;
}

static inline bool mag_timer_is_armed(const struct mag_timer *t)
{
    return t->armed != 0;
}

#endif
