/* SPDX-License-Identifier: MIT */
/*
 * event.c - something that has happened, or not yet
 *
 * A flag and a queue.  A set takes everybody out of the queue in the same critical section
 * in which it raises the flag: so who began to wait before it is woken, also if the flag is
 * lowered again at once, and who comes after a clear is not.
 *
 * Invariant: nobody is in the queue while the flag is up.
 *
 * A wait looks at the flag under the lock even where it would see it without: a task that
 * waits for another's last word often frees the event next, and the setter must be out of
 * it by then.  The setter's last step in the event is to free the lock.
 *
 * Rejected: one word with the flag and the waiters (a set that is a single exchange): the
 * cancelled waiter in the middle of a lock-free list costs more than the lock saves.
 */
#include "event.h"

#include "misuse.h"
#include "waitlist.h"

#include <errno.h>

MAG_STATIC_ASSERT(sizeof(struct mag_event_state) <= sizeof(struct mag_event));
MAG_STATIC_ASSERT(_Alignof(struct mag_event_state) <= _Alignof(struct mag_event));

static const struct mag_wait_kind event_wait = { "event", mag_waitq_cancel, false };

static int null_event(void)
{
    return mag_misuse(-EINVAL, "an event that is NULL");
}

int mag_event_set(struct mag_event *event)
{
    struct mag_event_state *e = mag_event_state(event);
    struct mag_waitlist list = { 0 };

    if (e == NULL)
        return null_event();
    mag_spin_lock(&e->q.lock);
    mag_store_release(&e->is_set, 1);
    mag_waitlist_take_all(&list, &e->q);
    mag_spin_unlock(&e->q.lock);
    mag_waitlist_wake(&list, 0);
    return 0;
}

int mag_event_clear(struct mag_event *event)
{
    struct mag_event_state *e = mag_event_state(event);

    if (e == NULL)
        return null_event();
    mag_spin_lock(&e->q.lock);
    mag_store_relaxed(&e->is_set, 0);
    mag_spin_unlock(&e->q.lock);
    return 0;
}

int mag_event_wait(struct mag_event *event)
{
    struct mag_event_state *e = mag_event_state(event);
    struct mag_queued me;

    if (e == NULL)
        return null_event();
    mag_spin_lock(&e->q.lock);
    if (!e->is_set)
        return mag_waitq_wait(&e->q, &me, &event_wait, event, NULL);
    mag_spin_unlock(&e->q.lock);
    return 0;
}

bool mag_event_is_set(const struct mag_event *event)
{
    return event && mag_load_acquire(&mag_event_state(event)->is_set);
}
