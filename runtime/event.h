/* SPDX-License-Identifier: MIT */
#ifndef MAG_EVENT_H
#define MAG_EVENT_H
/*
 * event.h - what a struct mag_event is, for who waits for several things (select.c)
 *
 * Under q.lock: if is_set, there is nothing to wait for; otherwise who joins the queue is
 * woken, with 0, by the next set.
 */
#include "waitq.h"

#include <magpie/sync.h>

struct mag_event_state {
    struct mag_waitq q;
    mag_atomic(uint32_t) is_set; /* [q.lock] read without it as a hint */
};

static inline struct mag_event_state *mag_event_state(const struct mag_event *event)
{
    return (struct mag_event_state *)(uintptr_t)event;
}

#endif
