/* SPDX-License-Identifier: MIT */
/*
 * deque.c - the split deque as its owner and one thief use it in turn
 *
 * Everything that does not need two threads at the same time; those are the business
 * of tests/model/deque.pml and of the stress programs.
 */
#include "deque.h"

#include "mem.h"
#include "sys.h"

#include <criterion/criterion.h>

enum { SLOTS = MAG_DEQUE_SLOTS };

static struct mag_deque own, other;
static struct mag_work works[2 * SLOTS];
static bool is_hungry;
static unsigned n_asked;

static bool hungry(struct mag_deque *d)
{
    (void)d;
    n_asked++;
    return is_hungry;
}

static void setup(void)
{
    is_hungry = false;
    n_asked = 0;
    for (int i = 0; i < 2 * SLOTS; i++)
        works[i].slot = MAG_SLOT_NONE;
    cr_assert_eq(mag_deque_init(&own, hungry), 0);
    cr_assert_eq(mag_deque_init(&other, hungry), 0);
}

static void teardown(void)
{
    mag_deque_fini(&own);
    mag_deque_fini(&other);
    cr_assert_eq(mag_mem_live(), 0);
}

TestSuite(deque, .init = setup, .fini = teardown, .timeout = 10);

static void push(int from, int to)
{
    for (int i = from; i < to; i++)
        cr_assert(mag_deque_push(&own, &works[i]), "%d", i);
}

/* Answers a request as an owner does: by its next push and pop. */
static void answer(void)
{
    static struct mag_work dummy;

    cr_assert(mag_deque_push(&own, &dummy));
    cr_assert_eq(mag_deque_pop(&own), &dummy);
}

static struct mag_work *steal(void)
{
    return mag_deque_steal(&other, &own);
}

static unsigned long index_of(const struct mag_work *w)
{
    return (unsigned long)(w - works);
}

Test(deque, is_last_in_first_out_for_its_owner)
{
    cr_assert(mag_deque_is_empty(&own));
    cr_assert_null(mag_deque_pop(&own));
    push(0, 100);
    cr_assert_not(mag_deque_is_empty(&own));
    for (int i = 99; i >= 0; i--)
        cr_assert_eq(mag_deque_pop(&own), &works[i]);
    cr_assert_null(mag_deque_pop(&own));
    cr_assert(mag_deque_is_empty(&own));
}

Test(deque, goes_round_its_slots)
{
    for (int round = 0; round < 10; round++) {
        push(0, 3000);
        for (int i = 2999; i >= 0; i--)
            cr_assert_eq(mag_deque_pop(&own), &works[i]);
        /* and forward: what is stolen moves top */
        push(0, 2000);
        for (int n = 0; n < 2000;) {
            struct mag_work *w = steal();
            if (w == NULL)
                answer();
            for (; w; w = mag_deque_pop(&other))
                n++;
        }
        cr_assert(mag_deque_is_empty(&own));
    }
}

Test(deque, refuses_when_full_and_keeps_the_rest)
{
    int n = 0;

    while (mag_deque_push(&own, &works[n]))
        n++;
    cr_assert_geq(n, SLOTS - 2);
    cr_assert_leq(n, SLOTS);
    cr_assert_not(mag_deque_push(&own, &works[n]));
    cr_assert_eq(mag_deque_pop(&own), &works[n - 1]);
    cr_assert(mag_deque_push(&own, &works[n]), "room again");
    cr_assert_eq(mag_deque_pop(&own), &works[n]);
    for (int i = n - 2; i >= 0; i--)
        cr_assert_eq(mag_deque_pop(&own), &works[i]);
    cr_assert_null(mag_deque_pop(&own));
}

Test(deque, refuses_when_full_of_public_works)
{
    int n = 0;

    is_hungry = true;
    mag_deque_request(&own);
    while (mag_deque_push(&own, &works[n]))
        n++;
    cr_assert_geq(n, SLOTS - 2);
    cr_assert_not(mag_deque_push(&own, &works[n]));
    cr_assert_not_null(steal());
    cr_assert(mag_deque_push(&own, &works[n]), "a thief made room");
    cr_assert_eq(mag_deque_pop(&own), &works[n]);
    cr_assert_eq(mag_deque_pop(&own), &works[n - 1]);
}

Test(deque, gives_one_out_of_the_middle)
{
    push(0, 10);
    cr_assert(mag_deque_take(&own, &works[4]));
    cr_assert_not(mag_deque_take(&own, &works[4]), "it is out");
    cr_assert(mag_deque_take(&own, &works[9]), "the newest");
    cr_assert(mag_deque_take(&own, &works[0]), "the oldest");
    cr_assert_not(mag_deque_take(&own, &works[10]), "was never in");
    cr_assert_not(mag_deque_take(&other, &works[5]), "is in another");
    for (int i = 8; i > 0; i--)
        if (i != 4)
            cr_assert_eq(mag_deque_pop(&own), &works[i]);
    cr_assert_null(mag_deque_pop(&own));
}

Test(deque, is_empty_after_only_holes)
{
    push(0, 5);
    for (int i = 0; i < 5; i++)
        cr_assert(mag_deque_take(&own, &works[i]));
    cr_assert_null(mag_deque_pop(&own));
    push(0, 1);
    cr_assert_eq(mag_deque_pop(&own), &works[0]);
}

Test(deque, does_not_take_by_a_stale_index)
{
    push(0, 3);
    cr_assert_eq(mag_deque_pop(&own), &works[2]);
    push(3, 4); /* in the slot that works[2] still names */
    cr_assert_eq(works[2].slot, works[3].slot);
    cr_assert_not(mag_deque_take(&own, &works[2]));
    cr_assert_eq(mag_deque_pop(&own), &works[3]);
}

Test(deque, keeps_works_private_until_asked)
{
    push(0, 10);
    cr_assert_not(mag_deque_has_public(&own));
    cr_assert_null(steal(), "private: this only asks");
    cr_assert_not(mag_deque_has_public(&own), "the owner has not answered");
    push(10, 11);
    cr_assert(mag_deque_has_public(&own));
    cr_assert_eq(steal(), &works[0], "the oldest first");
}

Test(deque, a_pop_answers_too)
{
    push(0, 10);
    mag_deque_request(&own);
    cr_assert_eq(mag_deque_pop(&own), &works[9]);
    cr_assert(mag_deque_has_public(&own));
    cr_assert_eq(steal(), &works[0]);
}

Test(deque, a_take_of_the_newest_answers_too)
{
    push(0, 10);
    mag_deque_request(&own);
    cr_assert(mag_deque_take(&own, &works[9]));
    cr_assert(mag_deque_has_public(&own));
}

Test(deque, a_thief_gets_half)
{
    struct mag_work *w;
    int n = 0;

    push(0, 20);
    mag_deque_request(&own);
    push(20, 21); /* 21 are public */
    w = steal();
    cr_assert_eq(w, &works[0]);
    while ((w = mag_deque_pop(&other)) != NULL) {
        n++;
        cr_assert_eq((int)index_of(w), 11 - n, "1 to 10 moved");
    }
    cr_assert_eq(n, 10);
    for (int i = 20; i > 10; i--)
        cr_assert_eq(mag_deque_pop(&own), &works[i]);
    cr_assert_null(mag_deque_pop(&own));
}

Test(deque, what_a_thief_moved_can_be_taken_where_it_is)
{
    push(0, 20);
    mag_deque_request(&own);
    push(20, 21);
    cr_assert_eq(steal(), &works[0]);
    cr_assert_not(mag_deque_take(&own, &works[5]));
    cr_assert(mag_deque_take(&other, &works[5]));
    cr_assert(mag_deque_has_public(&other), "loot is public");
}

Test(deque, loot_of_loot)
{
    static struct mag_deque third;
    int n = 1;

    cr_assert_eq(mag_deque_init(&third, hungry), 0);
    push(0, 20);
    mag_deque_request(&own);
    push(20, 21);
    cr_assert_not_null(steal());
    cr_assert_eq(mag_deque_steal(&third, &other), &works[1]);
    while (mag_deque_pop(&third))
        n++;
    cr_assert_eq(n, 5);
    while (mag_deque_pop(&other))
        n++;
    cr_assert_eq(n, 10);
    mag_deque_fini(&third);
}

Test(deque, a_steal_keeps_who_waits_for_a_work)
{
    uint64_t waiter = MAG_SLOT_WAITER | 4096;

    push(0, 4);
    works[1].slot = waiter;
    mag_deque_request(&own);
    push(4, 5);
    cr_assert_eq(steal(), &works[0]);
    cr_assert_eq(works[1].slot, waiter);
    cr_assert_lt(works[2].slot, MAG_SLOT_NONE);
    cr_assert_not(mag_deque_take(&own, &works[1]), "who waits does not take");
    cr_assert_eq(mag_deque_pop(&other), &works[2]);
    cr_assert_eq(mag_deque_pop(&other), &works[1]);
}

Test(deque, thieves_step_over_holes)
{
    push(0, 6);
    cr_assert(mag_deque_take(&own, &works[0]));
    cr_assert(mag_deque_take(&own, &works[2]));
    mag_deque_request(&own);
    push(6, 7);
    cr_assert_eq(steal(), &works[1], "0 to 3 are taken, two of them holes");
    cr_assert_eq(mag_deque_pop(&other), &works[3]);
    cr_assert_null(mag_deque_pop(&other));
}

Test(deque, only_holes_are_no_loot)
{
    push(0, 3);
    for (int i = 0; i < 2; i++)
        cr_assert(mag_deque_take(&own, &works[i]));
    mag_deque_request(&own);
    cr_assert(mag_deque_take(&own, &works[2]));
    cr_assert_null(steal());
    cr_assert_null(steal());
    cr_assert_null(mag_deque_pop(&own));
}

Test(deque, a_hungry_one_is_answered_by_every_push)
{
    is_hungry = true;
    mag_deque_request(&own);
    for (int i = 0; i < 10; i++) {
        push(i, i + 1);
        cr_assert(mag_deque_has_public(&own), "%d", i);
        cr_assert_eq((int)n_asked, i + 1);
        cr_assert_eq(steal(), &works[i]);
    }
    is_hungry = false;
    push(10, 11); /* answers, and finds nobody hungry any more */
    n_asked = 0;
    push(11, 20);
    cr_assert_eq(n_asked, 0, "back on the short path");
}

Test(deque, the_last_public_one_goes_to_owner_or_thief)
{
    push(0, 1);
    mag_deque_request(&own);
    push(1, 2);
    cr_assert_eq(mag_deque_pop(&own), &works[1]);
    cr_assert_eq(mag_deque_pop(&own), &works[0], "public, but not stolen");
    cr_assert_null(steal());

    push(2, 3);
    mag_deque_request(&own);
    answer();
    cr_assert_eq(steal(), &works[2]);
    cr_assert_null(mag_deque_pop(&own));
    cr_assert_not(mag_deque_take(&own, &works[2]), "the thief has it");
}

Test(deque, can_be_forced)
{
    cr_assert_eq(mag_sys_membarrier_register(), 0);
    push(0, 8);
    cr_assert_not(mag_deque_force(&own), "first it asks");
    cr_assert_not(mag_deque_has_public(&own));
    cr_assert(mag_deque_force(&own), "nobody has answered");
    cr_assert(mag_deque_has_public(&own));
    cr_assert_eq(steal(), &works[0]);
    /* 4 were moved, the owner keeps the other 4 and finds its way back */
    for (int i = 7; i >= 4; i--)
        cr_assert_eq(mag_deque_pop(&own), &works[i]);
    cr_assert_null(mag_deque_pop(&own));
    push(10, 12);
    cr_assert_eq(mag_deque_pop(&own), &works[11]);
}

Test(deque, is_not_forced_when_empty_or_answered)
{
    cr_assert_eq(mag_sys_membarrier_register(), 0);
    cr_assert_not(mag_deque_force(&own));
    cr_assert_not(mag_deque_force(&own), "nothing is there");
    push(0, 2);
    cr_assert_not(mag_deque_force(&own), "the push answered, so this asks again");
    cr_assert(mag_deque_force(&own));
}

Test(deque, needs_membarrier_to_be_forced)
{
    push(0, 2);
    mag_sys_fail_nth(MAG_SYS_MEMBARRIER, 1, 38, true);
    cr_assert_not(mag_deque_force(&own));
    cr_assert_not(mag_deque_force(&own));
    mag_sys_fail_none();
    cr_assert_not(mag_deque_has_public(&own));
}

Test(deque, a_full_thief_steals_nothing)
{
    int n = 0;

    push(0, 10);
    mag_deque_request(&own);
    answer();
    while (mag_deque_push(&other, &works[SLOTS + n]))
        n++;
    cr_assert_null(steal());
    cr_assert(mag_deque_has_public(&own));
    while (mag_deque_pop(&other))
        ;
    cr_assert_eq(steal(), &works[0]);
}

Test(deque, mixed_at_random_loses_and_doubles_nothing)
{
    static bool is_in[SLOTS];
    unsigned seed = 1, n_in = 0, n_out = 0;

    cr_assert_eq(mag_sys_membarrier_register(), 0);
    for (int step = 0; step < 300000; step++) {
        unsigned r = (seed = seed * 1664525 + 1013904223) >> 16, i = r % 1000;
        struct mag_work *got[64] = { NULL };
        unsigned n_got = 0;

        switch (r / 1000 % 8) {
        case 0:
        case 1:
        case 2:
            if (!is_in[i]) {
                cr_assert(mag_deque_push(&own, &works[i]));
                is_in[i] = true;
                n_in++;
            }
            break;
        case 3:
            got[n_got++] = mag_deque_pop(&own);
            break;
        case 4:
            if (mag_deque_take(&own, &works[i]))
                got[n_got++] = &works[i];
            break;
        case 5:
            mag_deque_request(&own);
            break;
        case 6:
            (void)mag_deque_force(&own);
            break;
        default:
            got[n_got++] = steal();
            while (n_got < 64 && (got[n_got] = mag_deque_pop(&other)) != NULL)
                n_got++;
        }
        for (unsigned k = 0; k < n_got; k++)
            if (got[k]) {
                cr_assert(is_in[index_of(got[k])], "step %d", step);
                is_in[index_of(got[k])] = false;
                n_out++;
            }
    }
    for (struct mag_work *w; (w = mag_deque_pop(&own)) != NULL; n_out++)
        cr_assert(is_in[index_of(w)]);
    cr_assert_eq(n_in, n_out);
    cr_assert_gt(n_in, 10000);
}

Test(deque, needs_memory)
{
    struct mag_deque d;

    mag_mem_fail_nth(1, false);
    cr_assert_eq(mag_deque_init(&d, hungry), -12);
    mag_mem_fail_nth(0, false);
}
