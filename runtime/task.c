/* SPDX-License-Identifier: MIT */
/*
 * task.c - the end of a task, and who waits for it
 *
 * One word decides (task.h, deque.h):
 *
 *      index/NONE --- mag_task_wait: CAS ---> waiter --- mag_task_unwait: CAS ---> NONE
 *           |                                   |
 *           +------- mag_task_end: xchg --------+----------> DONE, and tell the waiter
 *           +------- mag_task_detach: CAS ------> DETACHED -> DONE, and the ender frees
 *
 * A thief that moves a task to its own deque changes index to index by CAS
 * (deque.c, adopt), so it never overwrites a waiter.
 *
 * Ordering: the exchange releases the result and rc, the failed or later CAS (or the
 * load of DONE) acquires them.  After the exchange the ender touches the task no more,
 * unless it was detached and so is the ender's.
 */
#include "task.h"

#include "clock.h"

#include <errno.h>

/* Puts `word' where an index or NONE is: 0, -EALREADY if the task is done, -EBUSY if
 * somebody waits, or gave it up.  Retried only when a thief has moved it in between. */
static int claim_slot(struct mag_task *t, uint64_t word)
{
    uint64_t slot = mag_load_acquire(&t->work.slot);

    do {
        if (slot == MAG_SLOT_DONE)
            return -EALREADY;
        if (slot > MAG_SLOT_NONE)
            return -EBUSY;
    } while (!mag_cas_seq(&t->work.slot, &slot, word));
    return 0;
}

int mag_task_wait(struct mag_task *t, struct mag_waiter *waiter)
{
    return claim_slot(t, mag_slot_of_waiter(waiter));
}

int mag_task_detach(struct mag_task *t)
{
    return claim_slot(t, MAG_SLOT_DETACHED);
}

bool mag_task_unwait(struct mag_task *t, struct mag_waiter *waiter)
{
    uint64_t slot = mag_slot_of_waiter(waiter);

    return mag_cas(&t->work.slot, &slot, MAG_SLOT_NONE);
}

bool mag_task_end(struct mag_task *t, int rc)
{
    uint64_t slot;

    t->rc = rc;
    slot = mag_xchg(&t->work.slot, MAG_SLOT_DONE);
    if (mag_slot_is_waiter(slot))
        mag_slot_waiter(slot)->notify(mag_slot_waiter(slot), t);
    return slot == MAG_SLOT_DETACHED;
}

/* Outwards: the scopes of a task, then the task itself, then who awaits it in place; as
 * far as the innermost shield. */
bool mag_fiber_chain_cancelled(const struct mag_fiber *f)
{
    const struct mag_scope_frame *s = f->scope;

    for (const struct mag_task *t = f->current;; t = t->outer) {
        for (; s && s->task == t; s = s->outer) {
            if (s->is_shield)
                return false;
            if (s->reason)
                return true;
        }
        if (t == NULL)
            return false;
        if (mag_task_is_cancelled(t))
            return true;
    }
}

mag_time mag_fiber_deadline_seen(const struct mag_fiber *f)
{
    mag_time deadline = MAG_NEVER;

    for (const struct mag_scope_frame *s = f->scope; s; s = s->outer) {
        if (s->reason == 0 && s->deadline < deadline)
            deadline = s->deadline;
        if (s->is_shield)
            break;
    }
    return deadline;
}

/* Fires everything that is due and seen; what a lifted shield uncovers included. */
void mag_fiber_fire_due(struct mag_fiber *f)
{
    mag_time now = mag_clock_now();

    for (struct mag_scope_frame *s = f->scope; s; s = s->outer) {
        if (s->reason == 0 && s->deadline <= now) {
            if (s->is_shield) {
                s->is_shield = false;
                s->deadline = MAG_NEVER;
            } else {
                s->reason = -ETIMEDOUT;
            }
        }
        if (s->is_shield)
            break;
    }
    f->deadline = mag_fiber_deadline_seen(f);
    f->is_cancelled = mag_fiber_chain_cancelled(f);
}

void mag_fiber_poll_deadline(struct mag_fiber *f)
{
    if (f->deadline <= mag_clock_now())
        mag_fiber_fire_due(f);
}

const char *mag_task_name(const struct mag_task *t)
{
    return t->ext && t->ext->name ? t->ext->name : t->type->name;
}
