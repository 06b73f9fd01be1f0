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

bool mag_task_chain_cancelled(const struct mag_task *t)
{
    for (; t; t = t->outer) /* relaxed: ordered by the caller's fence */
        if (mag_load_relaxed(&t->is_cancelled) ||
            (t->scope_cancelled && mag_load_relaxed(t->scope_cancelled)))
            return true;
    return false;
}

const struct mag_site *mag_task_site(const struct mag_task *t)
{
    if (t->origin_kind == MAG_ORIGIN_SITE)
        return t->site;
    return t->origin_kind == MAG_ORIGIN_INFO ? t->info->site : NULL;
}

const char *mag_task_name(const struct mag_task *t)
{
    const struct mag_spawn_info *info = mag_task_info(t);

    return info && info->name ? info->name : t->type->name;
}
