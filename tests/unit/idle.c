/* SPDX-License-Identifier: MIT */
/* idle.c - who is woken, who may search, and that nobody is counted twice */
#include "idle.h"

#include "clock.h"
#include "mem.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { N = 4 };

static struct mag_idle idle;
static struct mag_sleeper sleepers[N];

static void setup(void)
{
    for (int i = 0; i < N; i++) {
        sleepers[i] = (struct mag_sleeper){ 0 };
        cr_assert_eq(mag_ring_open(&sleepers[i].ring, NULL), 0, "%s", mag_ring_why());
    }
    mag_idle_init(&idle, sleepers, N);
}

static void teardown(void)
{
    for (int i = 0; i < N; i++)
        mag_ring_close(sleepers[i].ring);
    cr_assert_eq(mag_mem_live(), 0);
}

TestSuite(idle, .init = setup, .fini = teardown, .timeout = 60);

/* Whether the wake, which is sticky, ended a sleep before its time. */
static bool ends_sleep(int i, mag_time limit)
{
    mag_time until = mag_clock_now() + limit;

    cr_assert_eq(mag_ring_sleep(sleepers[i].ring, until), 0);
    mag_ring_reap(sleepers[i].ring);
    return mag_clock_now() < until;
}

/* Whether its bell was rung: for `no' it takes 20 s, so that no pause looks like one. */
static bool was_rung(int i)
{
    return ends_sleep(i, 20 * MAG_SECOND);
}

static bool was_not_rung(int i)
{
    return !ends_sleep(i, 20 * MAG_MS);
}

static int n_parked(void)
{
    int n = 0;

    for (int i = 0; i < N; i++)
        n += sleepers[i].is_parked != 0;
    cr_assert_eq((int)idle.n_parked, n, "inv1");
    return n;
}

Test(idle, nobody_parked_nobody_rung)
{
    cr_assert_not(mag_idle_is_hungry(&idle));
    mag_idle_notify(&idle);
    mag_idle_notify_all(&idle);
    for (int i = 0; i < N; i++)
        cr_assert(was_not_rung(i));
}

Test(idle, a_notice_wakes_one_and_makes_it_a_searcher)
{
    mag_idle_park(&idle, &sleepers[1]);
    mag_idle_park(&idle, &sleepers[2]);
    cr_assert(mag_idle_is_hungry(&idle));
    mag_idle_notify(&idle);
    cr_assert_eq(n_parked(), 1);
    cr_assert_eq(idle.n_searching, 1);
    cr_assert(was_rung(1));
    cr_assert(was_not_rung(2));
    cr_assert(sleepers[1].is_searching);
}

Test(idle, a_burst_wakes_one)
{
    mag_idle_park(&idle, &sleepers[0]);
    mag_idle_park(&idle, &sleepers[1]);
    for (int i = 0; i < 100; i++)
        mag_idle_notify(&idle);
    cr_assert_eq(n_parked(), 1, "a searcher is on its way: no second is woken");
}

Test(idle, the_last_searcher_that_found_wakes_the_next)
{
    for (int i = 0; i < N; i++)
        mag_idle_park(&idle, &sleepers[i]);
    mag_idle_notify(&idle);
    cr_assert_eq(n_parked(), 3);
    mag_idle_unpark(&idle, &sleepers[0]);
    mag_idle_search_end(&idle, &sleepers[0], true);
    cr_assert_eq(n_parked(), 2);
    mag_idle_unpark(&idle, &sleepers[1]);
    mag_idle_search_end(&idle, &sleepers[1], false);
    cr_assert_eq(n_parked(), 2, "who found nothing wakes nobody");
    cr_assert_eq(idle.n_searching, 0);
}

Test(idle, half_of_them_may_search)
{
    cr_assert(mag_idle_search_begin(&idle, &sleepers[0]));
    cr_assert(mag_idle_search_begin(&idle, &sleepers[0]), "it does already");
    cr_assert(mag_idle_search_begin(&idle, &sleepers[1]));
    cr_assert_not(mag_idle_search_begin(&idle, &sleepers[2]));
    cr_assert_eq(idle.n_searching, 2);
    mag_idle_search_end(&idle, &sleepers[2], true);
    cr_assert_eq(idle.n_searching, 2, "it never began");
    mag_idle_search_end(&idle, &sleepers[0], false);
    cr_assert(mag_idle_search_begin(&idle, &sleepers[2]));
}

Test(idle, one_alone_may_search)
{
    mag_idle_init(&idle, sleepers, 1);
    cr_assert(mag_idle_search_begin(&idle, &sleepers[0]));
    mag_idle_search_end(&idle, &sleepers[0], false);
}

Test(idle, a_searcher_spares_the_sleepers)
{
    cr_assert(mag_idle_search_begin(&idle, &sleepers[0]));
    mag_idle_park(&idle, &sleepers[1]);
    mag_idle_notify(&idle);
    cr_assert_eq(n_parked(), 1);
    cr_assert(was_not_rung(1));
}

Test(idle, a_notice_for_one_wakes_that_one)
{
    mag_idle_park(&idle, &sleepers[0]);
    mag_idle_park(&idle, &sleepers[3]);
    mag_idle_notify_one(&idle, &sleepers[3]);
    cr_assert(was_rung(3));
    cr_assert_not(sleepers[3].is_searching, "it has work of its own");
    cr_assert_eq(n_parked(), 1);
    mag_idle_notify_one(&idle, &sleepers[3]);
    cr_assert(was_not_rung(3), "it is awake");
}

Test(idle, all_are_woken)
{
    for (int i = 0; i < N; i++)
        mag_idle_park(&idle, &sleepers[i]);
    mag_idle_notify_all(&idle);
    cr_assert_eq(n_parked(), 0);
    for (int i = 0; i < N; i++)
        cr_assert(was_rung(i));
}

Test(idle, who_wakes_by_itself_is_not_parked)
{
    mag_idle_park(&idle, &sleepers[0]);
    mag_idle_unpark(&idle, &sleepers[0]);
    mag_idle_unpark(&idle, &sleepers[0]);
    cr_assert_eq(n_parked(), 0);
    cr_assert_not(mag_idle_is_hungry(&idle));
    mag_idle_notify(&idle);
    cr_assert_eq(idle.n_searching, 0);
}

/* ---- the handshake ------------------------------------------------------------------ */

enum { HANDSHAKES = 20000, SPINS = 2000 };

static mag_atomic(uint32_t) published;
static mag_atomic(uint32_t) taken;
static mag_atomic(uint32_t) is_up;

/* A worker: takes what is published, or parks, without a time limit.  The ring belongs
 * to the thread that opens it. */
static void *sleeper_main(void *arg)
{
    struct mag_sleeper *s = arg;

    if (mag_ring_open(&s->ring, NULL) < 0)
        abort();
    mag_store_release(&is_up, 1);
    while (mag_load_relaxed(&taken) < HANDSHAKES) {
        bool has_found = mag_load_acquire(&published) > mag_load_relaxed(&taken);

        mag_idle_search_end(&idle, s, has_found);
        if (has_found) {
            mag_fetch_add(&taken, 1);
            continue;
        }
        mag_idle_park(&idle, s);
        if (mag_load_seq(&published) == mag_load_relaxed(&taken))
            mag_ring_sleep(s->ring, MAG_NEVER);
        mag_ring_reap(s->ring);
        mag_idle_unpark(&idle, s);
    }
    return NULL;
}

/* Each item is published only when the one before was taken: a lost wake-up hangs. */
Test(idle, no_wake_up_is_lost)
{
    pthread_t thread;

    mag_ring_close(sleepers[0].ring);
    pthread_create(&thread, NULL, sleeper_main, &sleepers[0]);
    while (!mag_load_acquire(&is_up))
        ;
    for (uint32_t i = 0; i < HANDSHAKES; i++) {
        mag_fetch_add(&published, 1);
        mag_idle_notify(&idle);
        for (int n = 0; mag_load_acquire(&taken) <= i; n++)
            if (n < SPINS)
                mag_cpu_relax();
            else
                sched_yield(); /* it has but this processor */
    }
    pthread_join(thread, NULL);
    cr_assert_eq(idle.n_searching, 0);
    cr_assert_eq(n_parked(), 0);
}
