/* SPDX-License-Identifier: MIT */
/*
 * fork.c - the slow halves of <magpie/fork.h>
 *
 * A part that was taken ends with an exchange of its slot word (worker.c, run_work);
 * who joins it registers in that word as it would in a task's (task.c), after having
 * left its stack.
 *
 * A part that was taken by somebody who gets no stack for it is returned (worker.c): its
 * joiner has one, and runs it there.  To put it into a deque again would not do: when all who
 * have a stack wait for parts, these would be passed on for ever.
 */
#include "worker.h"

/* The push reached lim, or this is no worker. */
void mag_fork_push_slow_(struct mag_hot *hot, struct mag_fork *fork)
{
    struct mag_deque *d = (struct mag_deque *)hot;

    if (d && mag_deque_pushed(d))
        return;
    mag_store_relaxed(&fork->work.slot, MAG_SLOT_DONE);
    fork->part(fork);
}

/* bot was lowered, to below guard. */
int mag_fork_pop_slow_(struct mag_hot *hot, struct mag_fork *fork)
{
    (void)fork;
    return mag_deque_popped((struct mag_deque *)hot);
}

struct join {
    struct mag_work *work;
    struct mag_fiber *fiber;
};

static void join_register(void *arg)
{
    struct join *j = arg;
    uint64_t slot = mag_load_acquire(&j->work->slot);

    do {
        if (slot == MAG_SLOT_DONE || slot == MAG_SLOT_RETURNED) {
            mag_worker_ready(j->fiber);
            return;
        }
    } while (!mag_cas(&j->work->slot, &slot, mag_slot_of_waiter(&j->fiber->waiter)));
}

int mag_fork_wait_(struct mag_fork *fork)
{
    struct mag_worker *w = mag_worker_self();
    struct join j = { .work = &fork->work };
    uint64_t slot = mag_load_acquire(&fork->work.slot);

    if (slot == MAG_SLOT_DONE || slot == MAG_SLOT_RETURNED)
        return slot == MAG_SLOT_RETURNED;
    if (mag_deque_take(&w->deque, &fork->work))
        return 1;
    j.fiber = w->fiber;
    mag_worker_suspend(join_register, &j);
    return mag_load_acquire(&fork->work.slot) == MAG_SLOT_RETURNED;
}

void mag_fork_begin(struct mag_fork *fork, void (*part)(struct mag_fork *fork))
{
    mag_fork(fork, part);
}

void mag_fork_end(struct mag_fork *fork)
{
    mag_join(fork);
}
