/* SPDX-License-Identifier: MIT */
/* as_completed.c - what CPython's suite pins for asyncio.as_completed (test_tasks.py) */
#include "words.h"

#include <criterion/criterion.h>

TestSuite(as_completed, .timeout = 60);

/* ---- the order of the ends --------------------------------------------------------- */

/* They end one after the other, in another order than that of the array. */
ON_1_AND_4(as_completed, yields_in_the_order_in_which_they_end)
{
    static const int order[] = { 2, 0, 1 };
    struct mag_completed c;
    struct word *w[3];
    void *t[3], *one;

    for (int i = 0; i < 3; i++)
        t[i] = reads(w[i] = word());
    SHOULD(mag_completed_begin(&c, t, 3) == 0);
    for (int i = 0; i < 3; i++) {
        SHOULD(future_set(w[order[i]], order[i]) == 0);
        SHOULD(has_ended(t[order[i]]));
    }
    let_run(); /* the one who has ended it may not have told it yet */
    for (int i = 0; i < 3; i++) {
        SHOULD(mag_completed_next(&c, &one) == 1 && one == t[order[i]]);
        SHOULD(await((struct reads *)one) == order[i]);
    }
    SHOULD(mag_completed_next(&c, &one) == 0);
    mag_completed_end(&c);
    return 0;
}

ON_1_AND_4(as_completed, each_comes_as_soon_as_it_has_ended)
{
    struct word *w[] = { word(), word(), word() };
    struct reads *t[] = { reads(w[0]), reads(w[1]), reads(w[2]) };
    int n = 0;

    SHOULD(future_set(w[1], 1) == 0);
    async_for(struct reads *, one, as_completed(t, 3))
    {
        SHOULD(one == t[(n + 1) % 3] && await(one) == (n + 1) % 3);
        if (++n < 3)
            SHOULD(future_set(w[(n + 1) % 3], (n + 1) % 3) == 0);
    }
    SHOULD(n == 3);
    return 0;
}

ON_1_AND_4(as_completed, each_is_yielded_once)
{
    struct gives_later *t[50];
    bool seen[50] = { false };
    int n = 0;

    for (int i = 0; i < 50; i++)
        t[i] = i % 2 ? spawn(gives_later(i)) : gives_later(i);
    async_for(struct gives_later *, one, as_completed(t, 50))
    {
        int v = await(one);
        SHOULD(!seen[v] && one == t[v]);
        seen[v] = true;
        n++;
    }
    SHOULD(n == 50);
    return 0;
}

ON_1_AND_4(as_completed, what_had_ended_before_comes_first)
{
    struct gives_after *t[] = { spawn(gives_after(3600 * MAG_SECOND, 0)), spawn(gives_after(0, 1)),
                                spawn(gives_after(0, 2)) };
    int expected = 1;

    SHOULD(has_ended(t[1]) && has_ended(t[2]));
    async_for(struct gives_after *, one, as_completed(t, 3))
    {
        SHOULD(await(one) == expected);
        if (++expected == 3)
            break;
    }
    SHOULD(CANCELS(t[0]));
    return 0;
}

ON_1(as_completed, of_nothing_ends_at_once)
{
    struct gives *t[1] = { NULL };

    async_for(struct gives *, one, as_completed(t, 0)) SHOULD(one && false);
    return 0;
}

/* ---- errors ------------------------------------------------------------------------------ */

ON_1_AND_4(as_completed, an_error_is_the_awaits)
{
    struct fails_after *t[] = { fails_after(MAG_MS, -EIO), fails_after(0, -ENOSPC) };
    int n = 0;

    async_for(struct fails_after *, one, as_completed(t, 2))
    {
        SHOULD(await_rc(one, NULL) == (one == t[0] ? -EIO : -ENOSPC));
        n++;
    }
    SHOULD(n == 2);
    return 0;
}

static struct never *left_running;

async(int, leaves_by_an_error)
{
    void *t[2] = { spawn(never()), fails(-EIO) };

    left_running = t[0];
    async_for(void *, one, as_completed(t, 2)) await((struct fails *)one);
    async_return(1);
}

ON_1_AND_4(as_completed, an_error_that_leaves_the_loop_leaves_the_others_alone)
{
    SHOULD(await_rc(leaves_by_an_error(), NULL) == -EIO);
    SHOULD(!mag_done(left_running) && CANCELS(left_running));
    return 0;
}

ON_1_AND_4(as_completed, a_cancelled_task_is_yielded_too)
{
    struct never *t[] = { spawn(never()), spawn(never()) };

    SHOULD(mag_cancel(t[1]) == 0);
    async_for(struct never *, one, as_completed(t, 2))
    {
        SHOULD(one == t[1] && await_rc(one, NULL) == -ECANCELED);
        break;
    }
    SHOULD(CANCELS(t[0]));
    return 0;
}

/* An object that could not be made is told by its await, as everywhere. */
ON_1_AND_4(as_completed, a_null_is_yielded_for_its_await_to_tell)
{
    struct gives *t[] = { gives(1), NULL };
    int n_good = 0, n_bad = 0;

    async_for(struct gives *, one, as_completed(t, 2))
    {
        int rc = await_rc(one, NULL);
        n_good += rc == 0;
        n_bad += rc == -ENOMEM;
    }
    SHOULD(n_good == 1 && n_bad == 1);
    return 0;
}

/* test_as_completed_duplicate_coroutines: asyncio's is a set, ours says so */
async(int, has_one_twice)
{
    struct never *t[] = { spawn(never()), NULL };

    left_running = t[1] = t[0];
    async_for(struct never *, one, as_completed(t, 2)) SHOULD(one && false);
    async_return(1);
}

ON_1_AND_4(as_completed, the_same_one_twice_is_refused)
{
    SHOULD(await_rc(has_one_twice(), NULL) == -EALREADY);
    SHOULD(CANCELS(left_running));
    return 0;
}

ON_1(as_completed, what_was_awaited_before_is_refused)
{
    struct gives *t[] = { gives(1) };
    struct mag_completed c;
    void *one;

    SHOULD(await(t[0]) == 1);
    SHOULD(mag_completed_begin(&c, (void **)t, 1) == -EALREADY);
    SHOULD(mag_completed_next(&c, &one) == -EALREADY);
    mag_completed_end(&c);
    return 0;
}

/* ---- timeouts ------------------------------------------------------------------------------- */

async(int, counts_until_late, (struct gives_after **, t), (int *, n), (mag_time, limit))
{
    with_timeout(limit)
    {
        async_for(struct gives_after *, one, as_completed(t, 2)) *n += await(one);
    }
    async_return(1);
}

/* test_as_completed_with_timeout */
ON_1_AND_4(as_completed, a_timeout_ends_the_loop)
{
    struct gives_after *t[] = { spawn(gives_after(MAG_MS, 5)),
                                spawn(gives_after(3600 * MAG_SECOND, 6)) };
    int n = 0;

    SHOULD(has_ended(t[0]));
    SHOULD(await_rc(counts_until_late(t, &n, 3 * MAG_MS), NULL) == -ETIMEDOUT);
    SHOULD(n == 5 && !mag_done(t[1]));
    SHOULD(CANCELS(t[1]));
    return 0;
}

ON_1_AND_4(as_completed, a_timeout_that_is_not_needed)
{
    struct gives_after *t[] = { gives_after(MAG_MS, 5), gives_after(0, 6) };
    int n = 0;

    SHOULD(await(counts_until_late(t, &n, 3600 * MAG_SECOND)) == 1 && n == 11);
    SHOULD(!mag_cancelled());
    return 0;
}

/* ---- awaited later, elsewhere ------------------------------------------------------------------ */

/* test_as_completed_reverse_wait */
ON_1_AND_4(as_completed, what_was_yielded_may_be_awaited_in_any_order)
{
    struct gives_after *t[] = { gives_after(MAG_MS, 1), gives_after(5 * MAG_MS, 2) }, *got[2];
    int n = 0;

    async_for(struct gives_after *, one, as_completed(t, 2)) got[n++] = one;
    SHOULD(n == 2 && await(got[1]) == 2 && await(got[0]) == 1);
    return 0;
}

/* test_as_completed_concurrent */
ON_1_AND_4(as_completed, what_was_yielded_may_be_waited_for_again)
{
    struct gives_after *t[] = { gives_after(MAG_MS, 1), gives_after(MAG_MS, 2) };
    void *got[2];
    int n = 0;

    async_for(struct gives_after *, one, as_completed(t, 2)) got[n++] = one;
    SHOULD(mag_wait(got, 2, MAG_ALL_COMPLETED, MAG_NEVER, NULL) == 2);
    SHOULD(await(t[0]) == 1 && await(t[1]) == 2);
    return 0;
}

ON_1_AND_4(as_completed, futures_are_yielded_when_they_are_set)
{
    struct word *t[] = { word(), word(), word() };
    int order[] = { 1, 2, 0 }, n = 0;

    SHOULD(future_set(t[1], 1) == 0);
    async_for(struct word *, one, as_completed(t, 3))
    {
        SHOULD(one == t[order[n]] && await(one) == order[n]);
        if (++n < 3)
            SHOULD(future_set(t[order[n]], order[n]) == 0);
    }
    SHOULD(n == 3);
    return 0;
}

ON_1_AND_4(as_completed, break_gives_the_others_back)
{
    struct gives_after *t[] = { spawn(gives_after(0, 1)), gives_after(MAG_MS, 2),
                                gives_after(MAG_MS, 3) };

    SHOULD(has_ended(t[0]));
    async_for(struct gives_after *, one, as_completed(t, 3))
    {
        SHOULD(await(one) == 1);
        break;
    }
    SHOULD(await(t[2]) == 3 && await(t[1]) == 2);
    return 0;
}

/* ---- cancellation ---------------------------------------------------------------------------------- */

static struct gives_after *many[4];

async(int, sums_up)
{
    int sum = 0;

    async_for(struct gives_after *, one, as_completed(many, 4))
    {
        int i = 0;
        while (many[i] != one)
            i++;
        many[i] = NULL; /* ours now, whatever happens */
        sum += await(one);
        nth_point();
    }
    async_return(sum);
}

static int sums_up_too(void *arg, long *value)
{
    *value = await(sums_up());
    *(int *)arg = (int)*value;
    return 0;
}

static void make_many(void)
{
    for (int i = 0; i < 4; i++)
        many[i] = spawn(gives_after(i * 30 * MAG_US, 1 << i));
}

static int rest_is_whole(void *arg, int rc)
{
    SHOULD(rc == -ECANCELED || (rc == 0 && *(int *)arg == 15));
    for (int i = 0; i < 4; i++)
        if (many[i])
            SHOULD(await(many[i]) == 1 << i);
    make_many();
    return 0;
}

ON_1_AND_4(as_completed, cancel_at_each_suspension_in_turn)
{
    int sum = 0, rc;

    make_many();
    rc = nth_cancel(sums_up_too, &sum, rest_is_whole);
    for (int i = 0; i < 4; i++)
        (void)await_rc(many[i], NULL);
    return rc;
}
