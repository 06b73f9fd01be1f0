/* SPDX-License-Identifier: MIT */
/*
 * timers.c - the heap against a plain model, and what fire may do
 */
#include "mem.h"
#include "timers.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

struct item {
    struct mag_timer timer;
    int id;
};

static struct mag_timers ts;
static int fired[20000];
static int n_fired;

static void note(struct mag_timer *t)
{
    fired[n_fired++] = mag_container_of(t, struct item, timer)->id;
}

static void setup(void)
{
    mag_timers_init(&ts);
    n_fired = 0;
}

static void teardown(void)
{
    mag_timers_fini(&ts);
    cr_assert_eq(mag_mem_live(), 0);
}

/* Not .init and .fini: Criterion does not count what fails in them. */
#define TIMERS_TEST(name)                                                                      \
    static void name(void);                                                                    \
    Test(timers, name)                                                                         \
    {                                                                                          \
        setup();                                                                               \
        name();                                                                                \
        teardown();                                                                            \
    }                                                                                          \
    static void name(void)

static void add(struct item *it, int id, mag_time deadline)
{
    mag_timer_init(&it->timer, note);
    it->id = id;
    cr_assert_eq(mag_timers_add(&ts, &it->timer, deadline), 0);
}

TIMERS_TEST(empty)
{
    cr_assert_eq(mag_timers_next(&ts), MAG_NEVER);
    cr_assert_eq(mag_timers_count(&ts), 0);
    cr_assert_eq(mag_timers_expire(&ts, 1000), 0);
}

TIMERS_TEST(fires_in_deadline_order_at_the_deadline)
{
    struct item it[3];
    add(&it[0], 0, 30);
    add(&it[1], 1, 10);
    add(&it[2], 2, 20);
    cr_assert_eq(mag_timers_next(&ts), 10);
    cr_assert_eq(mag_timers_expire(&ts, 9), 0);
    cr_assert_eq(mag_timers_expire(&ts, 20), 2);
    cr_assert_eq(fired[0], 1);
    cr_assert_eq(fired[1], 2);
    cr_assert_eq(mag_timers_next(&ts), 30);
    cr_assert_not(mag_timer_is_armed(&it[1].timer));
    cr_assert(mag_timer_is_armed(&it[0].timer));
    cr_assert_eq(mag_timers_expire(&ts, 1000), 1);
}

TIMERS_TEST(ties_fire_in_submission_order)
{
    enum { N = 5000 };
    static struct item it[N];
    for (int i = 0; i < N; i++)
        add(&it[i], i, 100 + i % 3);
    cr_assert_eq(mag_timers_expire(&ts, 200), N);
    int k = 0;
    for (int tie = 0; tie < 3; tie++)
        for (int i = tie; i < N; i += 3)
            cr_assert_eq(fired[k++], i);
}

TIMERS_TEST(never_and_the_past)
{
    struct item it[3];
    add(&it[0], 0, MAG_NEVER);
    cr_assert_eq(mag_timers_next(&ts), MAG_NEVER);
    cr_assert_eq(mag_timers_count(&ts), 1);
    cr_assert_eq(mag_timers_expire(&ts, MAG_NEVER - 1), 0);
    add(&it[1], 1, -5);
    add(&it[2], 2, INT64_MIN);
    cr_assert_eq(mag_timers_expire(&ts, 0), 2);
    cr_assert_eq(fired[0], 2);
    cr_assert(mag_timers_cancel(&ts, &it[0].timer));
}

TIMERS_TEST(cancel_says_whether_it_was_armed)
{
    struct item it[2];
    add(&it[0], 0, 10);
    add(&it[1], 1, 20);
    cr_assert(mag_timers_cancel(&ts, &it[0].timer));
    cr_assert_not(mag_timers_cancel(&ts, &it[0].timer));
    cr_assert_eq(mag_timers_expire(&ts, 100), 1);
    cr_assert_not(mag_timers_cancel(&ts, &it[1].timer));
}

/* ---- from fire --------------------------------------------------------------- */

static struct item chain[3];

static void cancel_next(struct mag_timer *t)
{
    int id = mag_container_of(t, struct item, timer)->id;
    note(t);
    cr_assert(mag_timers_cancel(&ts, &chain[id + 1].timer));
}

TIMERS_TEST(fire_may_cancel_what_is_due_too)
{
    for (int i = 0; i < 3; i++)
        add(&chain[i], i, 10 + i);
    chain[0].timer.fire = cancel_next;
    cr_assert_eq(mag_timers_expire(&ts, 100), 2);
    cr_assert_eq(fired[0], 0);
    cr_assert_eq(fired[1], 2);
}

static void again(struct mag_timer *t)
{
    note(t);
    cr_assert_eq(mag_timers_add(&ts, t, -1000), 0);
}

TIMERS_TEST(fire_may_add_itself_for_the_past_and_starves_nobody)
{
    for (int i = 0; i < 3; i++)
        add(&chain[i], i, 10 + i);
    chain[0].timer.fire = again;
    for (int round = 1; round <= 3; round++)
        cr_assert_eq(mag_timers_expire(&ts, 100), round == 1 ? 3 : 1);
    const int expected[] = {0, 1, 2, 0, 0};
    cr_assert_arr_eq(fired, expected, sizeof expected);
    cr_assert(mag_timers_cancel(&ts, &chain[0].timer));
}

static void free_it(struct mag_timer *t)
{
    n_fired++;
    free(mag_container_of(t, struct item, timer));
}

TIMERS_TEST(fire_may_free_its_timer)
{
    for (int i = 0; i < 100; i++) {
        struct item *it = malloc(sizeof *it);
        add(it, i, i);
        it->timer.fire = free_it;
    }
    cr_assert_eq(mag_timers_expire(&ts, 1000), 100);
    cr_assert_eq(n_fired, 100);
}

/* ---- memory ------------------------------------------------------------------- */

TIMERS_TEST(growth_failure_leaves_everything_as_it_was)
{
    enum { N = 300 };
    static struct item it[N];
    int n_failed = 0;
    for (int i = 0; i < N; i++) {
        mag_timer_init(&it[i].timer, note);
        it[i].id = i;
        mag_mem_fail_nth(1, false);
        int rc = mag_timers_add(&ts, &it[i].timer, i);
        mag_mem_fail_nth(0, false);
        if (rc == 0)
            continue;
        cr_assert_eq(rc, -ENOMEM);
        cr_assert_not(mag_timer_is_armed(&it[i].timer));
        cr_assert_eq(mag_timers_count(&ts), (size_t)i);
        n_failed++;
        cr_assert_eq(mag_timers_add(&ts, &it[i].timer, i), 0);
    }
    cr_assert_eq(n_failed, 4); /* 64, 128, 256, 512 */
    cr_assert_eq(mag_timers_expire(&ts, N), N);
    for (int i = 0; i < N; i++)
        cr_assert_eq(fired[i], i);
}

TIMERS_TEST(memory_is_given_back_without_oscillating)
{
    enum { N = 10000 };
    static struct item it[N];
    for (int i = 0; i < N; i++)
        add(&it[i], i, i);
    cr_assert_geq(ts.capacity, N);
    for (int i = N - 1; i >= 10; i--)
        cr_assert(mag_timers_cancel(&ts, &it[i].timer));
    cr_assert_leq(ts.capacity, 128);

    /* To and fro over every size at which it could grow or shrink. */
    mag_mem_fail_nth(UINT64_MAX, false); /* counts only */
    for (int n = 10; n < 300; n++) {
        add(&it[n], n, n);
        for (int i = 0; i < 10; i++) {
            add(&it[n + 1], n, n);
            add(&it[n + 2], n, n);
            mag_timers_cancel(&ts, &it[n + 2].timer);
            mag_timers_cancel(&ts, &it[n + 1].timer);
        }
    }
    cr_assert_leq(mag_mem_count(), 3); /* it grew, and that is all */
    mag_mem_fail_nth(0, false);
    mag_timers_expire(&ts, N);
}

/* ---- against a model ------------------------------------------------------------ */

enum { MODEL = 400, STEPS = 60000 };

static struct item model[MODEL];
static uint64_t order[MODEL]; /* when it was added; 0 not armed */
static uint64_t seed = 88172645463325252u;

static uint32_t rnd(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % below;
}

/* The armed one that must fire first, or -1. */
static int model_first(void)
{
    int best = -1;
    for (int i = 0; i < MODEL; i++) {
        if (!order[i])
            continue;
        if (best < 0 || model[i].timer.deadline < model[best].timer.deadline ||
            (model[i].timer.deadline == model[best].timer.deadline && order[i] < order[best]))
            best = i;
    }
    return best;
}

static void model_fire(struct mag_timer *t)
{
    int id = mag_container_of(t, struct item, timer)->id;
    cr_assert_eq(id, model_first());
    order[id] = 0;
}

TIMERS_TEST(random_against_a_list)
{
    mag_time now = 0;
    for (int i = 0; i < MODEL; i++) {
        mag_timer_init(&model[i].timer, model_fire);
        model[i].id = i;
    }
    for (uint64_t step = 1; step <= STEPS; step++) {
        int i = (int)rnd(MODEL);
        if (order[i]) {
            cr_assert(mag_timers_cancel(&ts, &model[i].timer));
            order[i] = 0;
        } else {
            cr_assert_eq(mag_timers_add(&ts, &model[i].timer, now + rnd(200)), 0);
            order[i] = step;
        }
        if (rnd(20) == 0)
            mag_timers_expire(&ts, now += rnd(40));
        if (rnd(10) == 0) {
            int first = model_first();
            cr_assert_eq(mag_timers_next(&ts), first < 0 ? MAG_NEVER : model[first].timer.deadline);
        }
    }
    mag_timers_expire(&ts, now + 1000);
    cr_assert_eq(mag_timers_count(&ts), 0);
    cr_assert_eq(model_first(), -1);
}
