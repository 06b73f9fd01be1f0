/* SPDX-License-Identifier: MIT */
/* gather.c - what CPython's suite pins for asyncio.gather (test_tasks.py, GatherTestsBase and
 * the two classes below it) */
#include "words.h"

#include <criterion/criterion.h>

TestSuite(gather, .timeout = 60);

#define LONG (3600 * MAG_SECOND)

/* ---- results ----------------------------------------------------------------------- */

async(int, sets_both, (struct word *, first), (struct word *, then))
{
    await(mag_yield());
    SHOULD(future_set(first, 1) == 0);
    await(mag_yield());
    SHOULD(future_set(then, 2) == 0);
    async_return(3);
}

/* _check_success: in the order of the arguments, not of the ends */
ON_1_AND_4(gather, results_are_in_the_order_of_the_arguments)
{
    struct word *a = word(), *b = word();
    int r[3];

    gather(r, a, b, sets_both(b, a));
    SHOULD(r[0] == 2 && r[1] == 1 && r[2] == 3);
    gather(r, gives_after(2 * MAG_MS, 7), gives(8), gives_later(9));
    SHOULD(r[0] == 7 && r[1] == 8 && r[2] == 9);
    return 0;
}

ON_1_AND_4(gather, it_returns_when_the_last_has_ended)
{
    mag_time begun = mag_now();

    gather(NULL, gives(1), gives_after(5 * MAG_MS, 1), gives_later(1));
    SHOULD(mag_now() - begun >= 5 * MAG_MS);
    return 0;
}

ON_1_AND_4(gather, they_run_at_the_same_time)
{
    mag_time begun, best = MAG_NEVER;

    for (int i = 0; i < 20 && best >= 150 * MAG_MS; i++) { /* on a busy machine, the best of some */
        begun = mag_now();
        gather(NULL, gives_after(50 * MAG_MS, 1), gives_after(50 * MAG_MS, 2),
               gives_after(50 * MAG_MS, 3), gives_after(50 * MAG_MS, 4));
        best = mag_now() - begun < best ? mag_now() - begun : best;
    }
    SHOULD(best < 150 * MAG_MS);
    return 0;
}

/* test_constructor_empty_sequence */
ON_1(gather, of_nothing_is_nothing)
{
    void *none[1] = { NULL };

    SHOULD(mag_gather(NULL, 0, none, 0, NULL) == 0);
    return 0;
}

ON_1_AND_4(gather, takes_coroutines_tasks_and_futures_together)
{
    struct word *w = word();
    int r[4];

    SHOULD(future_set(w, 4) == 0);
    gather(r, gives(1), spawn(gives_later(2)), spawn(gives_after(MAG_MS, 3)), w);
    SHOULD(r[0] == 1 && r[1] == 2 && r[2] == 3 && r[3] == 4);
    return 0;
}

ON_1_AND_4(gather, takes_tasks_that_have_ended)
{
    struct gives *t = spawn(gives(5));
    int r[1];

    SHOULD(has_ended(t));
    gather(r, t);
    SHOULD(r[0] == 5);
    return 0;
}

ON_1_AND_4(gather, results_may_be_dropped)
{
    gather(NULL, gives(1), gives_later(2));
    return 0;
}

/* ---- an error --------------------------------------------------------------------------- */

/* test_one_exception */
ON_1_AND_4(gather, the_first_error_is_the_gathers)
{
    struct word *w = word();

    SHOULD(future_fail(w, -EIO) == 0);
    SHOULD(gather_rc(NULL, gives(1), w, fails_after(LONG, -ENOSPC)) == -EIO);
    SHOULD(gather_rc(NULL, fails_after(LONG, -EIO), fails_after(MAG_MS, -ENOSPC)) == -ENOSPC);
    return 0;
}

/* Not as in asyncio, which leaves the others running: see NOT_APPLICABLE.md. */
ON_1_AND_4(gather, an_error_cancels_the_others_and_waits_for_them)
{
    struct never *t = spawn(never());

    n_never_cancelled = 0;
    SHOULD(have_arrived(1));
    SHOULD(gather_rc(NULL, t, never(), fails_after(2 * MAG_MS, -EIO)) == -EIO);
    SHOULD(n_never_cancelled == 2);
    SHOULD(strcmp(mag_kind_name(t), "freed") == 0);
    return 0;
}

ON_1_AND_4(gather, an_error_leaves_futures_to_their_setter)
{
    struct word *w = word();

    SHOULD(gather_rc(NULL, w, fails_after(MAG_MS, -EIO)) == -EIO);
    SHOULD(future_set(w, 1) == 0);
    return 0;
}

async(int, gathers_a_failure)
{
    gather(NULL, gives_later(1), fails_after(MAG_MS, -EIO));
    async_return(1);
}

/* test_exception_marking: nothing is said of the second one */
ON_1_AND_4(gather, its_error_leaves_the_function)
{
    SHOULD(await_rc(gathers_a_failure(), NULL) == -EIO);
    SHOULD(await_rc(spawn(gathers_a_failure()), NULL) == -EIO);
    return 0;
}

ON_1_AND_4(gather, memory_that_is_out_is_the_gathers_error)
{
    SHOULD(gather_rc(NULL, gives_later(1), (struct gives *)NULL) == -ENOMEM);
    return 0;
}

/* test_one_cancellation: a child that is cancelled fails the gather, which is not itself cancelled */
ON_1_AND_4(gather, a_cancelled_child_is_an_error)
{
    struct never *t = spawn(never());

    SHOULD(mag_call_later(MAG_MS, (void (*)(void *))(void (*)(void))mag_cancel, t) == 0);
    SHOULD(gather_rc(NULL, gives(1), t, never()) == -ECANCELED);
    SHOULD(!mag_cancelled());
    return 0;
}

/* ---- return_exceptions ---------------------------------------------------------------------- */

/* test_return_exceptions */
ON_1_AND_4(gather, with_rcs_each_has_its_own_error)
{
    struct word *w = word();
    int r[4] = { 0 }, rcs[4];

    SHOULD(future_fail(w, -EIO) == 0);
    gather(r, gives(3), gives_later(1), w, fails_after(MAG_MS, -ENOSPC), (.rcs = rcs));
    SHOULD(r[0] == 3 && r[1] == 1);
    SHOULD(rcs[0] == 0 && rcs[1] == 0 && rcs[2] == -EIO && rcs[3] == -ENOSPC);
    return 0;
}

ON_1_AND_4(gather, with_rcs_an_error_stops_nobody)
{
    int r[2] = { 0 }, rcs[2];

    gather(r, fails(-EIO), gives_after(3 * MAG_MS, 4), (.rcs = rcs));
    SHOULD(rcs[0] == -EIO && rcs[1] == 0 && r[1] == 4);
    return 0;
}

/* test_result_exception_one_cancellation */
ON_1_AND_4(gather, with_rcs_a_cancelled_child_is_one_error_of_many)
{
    struct never *t = spawn(never());
    int r[3] = { 0 }, rcs[3];

    SHOULD(mag_cancel(t) == 0);
    gather(r, gives_later(1), t, fails(-EIO), (.rcs = rcs));
    SHOULD(r[0] == 1 && rcs[0] == 0 && rcs[1] == -ECANCELED && rcs[2] == -EIO);
    return 0;
}

/* ---- the same one twice ------------------------------------------------------------------------- */

/* Not as test_duplicate_coroutines: an object has one result, and is consumed once. */
ON_1(gather, the_same_one_twice_is_refused)
{
    struct gives_after *t = spawn(gives_after(MAG_MS, 1));
    void *all[] = { t, t };
    int r[2], rcs[2];

    SHOULD(mag_gather(r, sizeof *r, all, 2, &(struct mag_gather_options){ .rcs = rcs }) == 0);
    SHOULD(rcs[0] == 0 && r[0] == 1 && rcs[1] == -EALREADY);
    return 0;
}

ON_1_AND_4(gather, what_somebody_awaits_is_refused)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(gather_rc(NULL, w) == -EALREADY);
    SHOULD(future_set(w, 2) == 0 && await(t) == 2);
    return 0;
}

/* ---- cancellation ----------------------------------------------------------------------------------- */

async(int, gathers, (struct never *, a), (struct word *, w))
{
    gather(NULL, a, w, never(), gives(1));
    async_return(1);
}

/* test_cancellation_broadcast */
ON_1_AND_4(gather, cancel_reaches_all_children)
{
    struct word *w = word();
    struct never *a = spawn(never());
    struct gathers *t = spawn(gathers(a, w));

    n_never_cancelled = 0;
    SHOULD(have_arrived(2));
    SHOULD(CANCELS(t));
    SHOULD(n_never_cancelled == 2);
    SHOULD(strcmp(mag_kind_name(a), "freed") == 0);
    SHOULD(future_set(w, 1) == 0); /* its setter's */
    return 0;
}

async(int, gathers_with_rcs)
{
    int rcs[2], n;

    for (n = 0; n < 1000; n++)
        gather(NULL, gives_after(MAG_MS, 1), gives_later(2), (.rcs = rcs));
    async_return(n);
}

/* test_cancel_gather_2: also with return_exceptions a cancel of the caller is one */
ON_1_AND_4(gather, with_rcs_a_cancel_of_the_caller_is_not_swallowed)
{
    struct gathers_with_rcs *t = spawn(gathers_with_rcs());

    await(mag_sleep(4 * MAG_MS));
    SHOULD(CANCELS(t));
    return 0;
}

async(int, gathers_one, (struct word *, w))
{
    int r[1];

    gather(r, w);
    async_return(r[0]);
}

/* test_cancel_gather_1: a cancel that comes when all children have ended changes nothing */
ON_1(gather, cancel_when_all_have_ended_keeps_the_results)
{
    struct word *w = word();
    struct gathers_one *t = spawn(gathers_one(w));

    let_run();
    SHOULD(future_set(w, 42) == 0);
    SHOULD(mag_cancel(t) == 0); /* it has not run yet */
    SHOULD(await(t) == 42);
    return 0;
}

ON_1_AND_4(gather, a_timeout_around_it_cancels_all)
{
    struct word *w = word();
    struct never *a = spawn(never());

    n_never_cancelled = 0;
    SHOULD(wait_for(gathers(a, w), 3 * MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(n_never_cancelled >= 1);
    SHOULD(future_set(w, 1) == 0);
    return 0;
}

static int gathers_some(void *arg, long *value)
{
    int r[3] = { 0 }, rc;

    *value = 0;
    nth_point();
    rc = gather_rc(r, gives_later(1), spawn(gives_after(30 * MAG_US, 2)),
                   gives_after(50 * MAG_US, 4));
    nth_point();
    if (rc == 0)
        rc = mag_yield();
    *(int *)arg = r[0] + r[1] + r[2];
    return rc;
}

static int sum_is_whole(void *arg, int rc)
{
    SHOULD(rc == -ECANCELED || (rc == 0 && *(int *)arg == 7));
    return 0;
}

ON_1_AND_4(gather, cancel_at_each_suspension_in_turn)
{
    int sum = 0;

    return nth_cancel(gathers_some, &sum, sum_is_whole);
}

/* ---- many, and nested -------------------------------------------------------------------------------- */

async(int, gathers_two, (int, n))
{
    int r[2];

    if (n == 0)
        async_return(1);
    gather(r, (struct gathers_two *)gathers_two(n - 1), (struct gathers_two *)gathers_two(n - 1));
    async_return(r[0] + r[1]);
}

ON_1_AND_4(gather, gathers_nest)
{
    SHOULD(await(gathers_two(6)) == 64);
    return 0;
}

static mag_atomic(int32_t) n_now, n_most;

async(int, counts_how_many)
{
    int32_t n = mag_fetch_add(&n_now, 1) + 1, most = mag_load_relaxed(&n_most);

    while (n > most && !mag_cas(&n_most, &most, n))
        ;
    await(mag_sleep(200 * MAG_US));
    mag_fetch_sub(&n_now, 1);
    async_return(1);
}

/* Asked for in asyncio, and refused there: a limit. */
ON_1_AND_4(gather, at_most_so_many_run_at_a_time)
{
    struct counts_how_many *all[40];
    int r[40];

    n_now = n_most = 0;
    for (int i = 0; i < 40; i++)
        all[i] = counts_how_many();
    gather_n(r, all, 40, .limit = 7);
    SHOULD(n_most <= 7 && n_most > 1 && n_now == 0);
    return 0;
}
