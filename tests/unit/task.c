/* SPDX-License-Identifier: MIT */
/* task.c - the slot word: who waits, who ends, and that each sees the other */
#include "task.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

static const struct mag_co_type type = { .name = "unit", .frame_bytes = 64, .result_offset = 16 };

static union {
    struct mag_task task;
    char bytes[MAG_TASK_BYTES + 64];
} object;

static struct mag_task *const t = &object.task;
static unsigned n_told;
static struct mag_task *told_of;

static void tell(struct mag_waiter *w, struct mag_task *ended)
{
    (void)w;
    n_told++;
    told_of = ended;
}

static struct mag_waiter waiter = { tell }, second = { tell };

static void setup(void)
{
    memset(&object, 0, sizeof object);
    t->type = &type;
    t->work.slot = MAG_SLOT_NONE;
    n_told = 0;
}

TestSuite(task, .init = setup, .timeout = 60);

Test(task, frame_and_back)
{
    cr_assert_eq(mag_task_of_frame(mag_task_frame(t)), t);
    cr_assert_eq(mag_task_of(mag_task_frame(t)), t);
    cr_assert_null(mag_task_of(NULL));
    cr_assert_eq((char *)mag_task_result(t), (char *)mag_task_frame(t) + 16);
    cr_assert_eq(mag_task_of_work(&t->work), t);
    cr_assert_eq((uintptr_t)mag_task_frame(t) % 16, (uintptr_t)t % 16);
}

Test(task, waited_for_then_ended)
{
    cr_assert_eq(mag_task_wait(t, &waiter), 0);
    cr_assert_not(mag_task_is_done(t));
    cr_assert_not(mag_task_end(t, -EIO));
    cr_assert_eq(n_told, 1);
    cr_assert_eq(told_of, t);
    cr_assert(mag_task_is_done(t));
    cr_assert_eq(t->rc, -EIO);
}

Test(task, ended_then_waited_for)
{
    cr_assert_not(mag_task_end(t, 0));
    cr_assert_eq(mag_task_wait(t, &waiter), -EALREADY);
    cr_assert_eq(n_told, 0);
}

Test(task, one_waiter_only)
{
    cr_assert_eq(mag_task_wait(t, &waiter), 0);
    cr_assert_eq(mag_task_wait(t, &second), -EBUSY);
    cr_assert_not(mag_task_unwait(t, &second));
    cr_assert(mag_task_unwait(t, &waiter));
    cr_assert_not(mag_task_unwait(t, &waiter), "taken back already");
    cr_assert_eq(mag_task_wait(t, &second), 0);
}

Test(task, a_waiter_that_was_told_cannot_be_taken_back)
{
    cr_assert_eq(mag_task_wait(t, &waiter), 0);
    mag_task_end(t, 0);
    cr_assert_not(mag_task_unwait(t, &waiter));
}

Test(task, can_be_waited_for_in_a_deque)
{
    t->work.slot = 5;
    cr_assert_eq(mag_task_wait(t, &waiter), 0);
    mag_task_end(t, 0);
    cr_assert_eq(n_told, 1);
}

Test(task, one_that_runs_in_place_or_is_detached_is_busy)
{
    t->work.slot = MAG_SLOT_TAKEN;
    cr_assert_eq(mag_task_wait(t, &waiter), -EBUSY);
    t->work.slot = MAG_SLOT_DETACHED;
    cr_assert_eq(mag_task_wait(t, &waiter), -EBUSY);
    cr_assert(mag_task_end(t, 0), "the ender frees what was detached");
}

Test(task, cancelled_anywhere_in_the_chain)
{
    struct mag_task outer = { .type = &type };
    uint32_t siblings = 0;
    struct mag_task_ext ext = { .stopping = &siblings };
    struct mag_fiber f = { .current = NULL };

    cr_assert_not(mag_fiber_chain_cancelled(&f));
    f.current = t;
    t->outer = &outer;
    cr_assert_not(mag_fiber_chain_cancelled(&f));
    outer.is_cancelled = 1;
    cr_assert(mag_fiber_chain_cancelled(&f));
    outer.is_cancelled = 0;
    t->is_cancelled = 1;
    cr_assert(mag_fiber_chain_cancelled(&f));
    t->is_cancelled = 0;
    outer.ext = &ext;
    cr_assert_not(mag_fiber_chain_cancelled(&f));
    siblings = 1;
    cr_assert(mag_fiber_chain_cancelled(&f));
}

/* Scopes of the outer task, the task, its scopes: as far as the innermost shield. */
Test(task, a_shield_hides_what_is_further_out)
{
    struct mag_task outer = { .type = &type };
    struct mag_scope_frame of_outer = { .task = &outer };
    struct mag_scope_frame shield = { .outer = &of_outer, .task = t, .is_shield = true };
    struct mag_scope_frame inner = { .outer = &shield, .task = t };
    struct mag_fiber f = { .current = t, .scope = &inner };

    t->outer = &outer;
    outer.is_cancelled = t->is_cancelled = 1;
    of_outer.reason = -1;
    cr_assert_not(mag_fiber_chain_cancelled(&f));
    inner.reason = -1;
    cr_assert(mag_fiber_chain_cancelled(&f));
    inner.reason = 0;
    shield.is_shield = false;
    cr_assert(mag_fiber_chain_cancelled(&f));
    outer.is_cancelled = t->is_cancelled = 0;
    cr_assert(mag_fiber_chain_cancelled(&f), "the outer task's scope");
    of_outer.reason = 0;
    cr_assert_not(mag_fiber_chain_cancelled(&f));
}

Test(task, is_named_by_its_options_or_its_type)
{
    struct mag_task_ext ext = { .name = NULL };

    cr_assert_str_eq(mag_task_name(t), "unit");
    t->ext = &ext;
    cr_assert_str_eq(mag_task_name(t), "unit");
    ext.name = "given";
    cr_assert_str_eq(mag_task_name(t), "given");
}

/* Slot words of addresses, of indices and of states do not collide. */
Test(task, slot_words_are_distinct)
{
    cr_assert(mag_slot_is_index(0));
    cr_assert(mag_slot_is_index(UINT64_C(1) << 61));
    cr_assert_not(mag_slot_is_index(MAG_SLOT_NONE));
    cr_assert_not(mag_slot_is_waiter(MAG_SLOT_NONE));
    cr_assert_not(mag_slot_is_waiter(MAG_SLOT_DONE));
    cr_assert_not(mag_slot_is_waiter(MAG_SLOT_DETACHED));
    cr_assert(mag_slot_is_waiter(mag_slot_of_waiter(&waiter)));
    cr_assert_eq(mag_slot_waiter(mag_slot_of_waiter(&waiter)), &waiter);
}

static void *end_it(void *arg)
{
    pthread_barrier_wait(arg);
    mag_task_end(t, 42);
    return NULL;
}

/* Whoever is second sees the other: waiting and ending at the same time. */
Test(task, wait_and_end_race)
{
    pthread_barrier_t both;
    unsigned n_late = 0;

    pthread_barrier_init(&both, NULL, 2);
    for (int i = 0; i < 3000; i++) {
        pthread_t thread;
        int rc;

        setup();
        pthread_create(&thread, NULL, end_it, &both);
        pthread_barrier_wait(&both);
        rc = mag_task_wait(t, &waiter);
        if (rc == -EALREADY)
            cr_assert_eq(t->rc, 42);
        pthread_join(thread, NULL);
        cr_assert_eq(n_told, rc == 0);
        n_late += rc == -EALREADY;
    }
    cr_log_info("%u of 3000 late", n_late);
}
