/* SPDX-License-Identifier: MIT */
/* shield.c - what CPython's suite pins for asyncio.shield (test_tasks.py, test_shield*) */
#include "words.h"

#include <criterion/criterion.h>

TestSuite(shield, .timeout = 60);

/* What a shielded one has done by itself. */
static mag_atomic(int32_t) proof;

async(int, proves, (struct word *, w))
{
    int v;

    arrive();
    v = await(w);
    mag_fetch_add(&proof, 1);
    async_return(v);
}

async(int, shields, (struct word *, w))
{
    int v;

    await(mag_shield(proves(w), &v, sizeof v));
    mag_fetch_add(&proof, 100);
    async_return(v);
}

async(int, shields_future, (struct word *, w))
{
    int v;

    arrive();
    await(mag_shield(w, &v, sizeof v));
    async_return(v);
}

static int proof_is(int expected)
{
    for (int i = 0; i < 1000 && mag_load_acquire(&proof) != expected; i++)
        await(mag_sleep(MAG_MS));
    return mag_load_acquire(&proof) == expected;
}

/* ---- the result --------------------------------------------------------------------- */

ON_1_AND_4(shield, gives_the_result)
{
    struct word *w = word();
    struct shields_future *t = spawn(shields_future(w));

    SHOULD(have_arrived(1));
    SHOULD(future_set(w, 42) == 0);
    SHOULD(await(t) == 42);
    return 0;
}

ON_1_AND_4(shield, passes_an_error_on)
{
    struct word *w = word();
    struct shields_future *t = spawn(shields_future(w));

    SHOULD(have_arrived(1));
    SHOULD(future_fail(w, -EIO) == 0);
    SHOULD(await_rc(t, NULL) == -EIO);
    return 0;
}

ON_1_AND_4(shield, of_what_has_ended_returns_at_once)
{
    struct word *w = word();
    struct gives *t = spawn(gives(5));
    int v = 0;

    SHOULD(future_set(w, 42) == 0);
    SHOULD(mag_shield(w, &v, sizeof v) == 0 && v == 42);
    SHOULD(has_ended(t));
    SHOULD(mag_shield(t, &v, sizeof v) == 0 && v == 5);
    return 0;
}

ON_1_AND_4(shield, a_coroutine_becomes_a_task)
{
    struct word *w = word();
    struct shields *t = spawn(shields(w));

    proof = 0;
    SHOULD(have_arrived(1));
    SHOULD(future_set(w, 3) == 0);
    SHOULD(await(t) == 3 && proof == 101);
    return 0;
}

ON_1(shield, consumes_like_an_await)
{
    struct gives_later *t = spawn(gives_later(5));
    int v = 0;
    char small;

    SHOULD(mag_shield(NULL, &v, sizeof v) == -ENOMEM);
    SHOULD(mag_shield(t, &small, sizeof small) == -EINVAL);
    SHOULD(mag_shield(t, &v, sizeof v) == 0 && v == 5);
    SHOULD(mag_shield(t, &v, sizeof v) == -EALREADY);
    return 0;
}

/* ---- cancel of the inner one ------------------------------------------------------------ */

async(int, shields_never, (struct never *, t))
{
    arrive();
    SHOULD(mag_shield(t, NULL, 0) == -ECANCELED);
    SHOULD(!mag_cancelled()); /* only the inner one is */
    async_return(6);
}

ON_1_AND_4(shield, cancel_of_the_inner_task_is_seen_outside)
{
    struct never *inner = spawn(never());
    struct shields_never *outer = spawn(shields_never(inner));

    SHOULD(have_arrived(2));
    SHOULD(mag_cancel(inner) == 0);
    SHOULD(await(outer) == 6);
    return 0;
}

ON_1_AND_4(shield, a_future_that_fails_as_cancelled_is_seen_outside)
{
    struct word *w = word();
    struct shields_future *t = spawn(shields_future(w));

    SHOULD(have_arrived(1));
    SHOULD(future_fail(w, -ECANCELED) == 0);
    SHOULD(await_rc(t, NULL) == -ECANCELED);
    return 0;
}

/* ---- cancel of the outer one --------------------------------------------------------------- */

ON_1_AND_4(shield, cancel_of_the_caller_returns_at_once)
{
    struct word *w = word();
    struct shields *t = spawn(shields(w));

    proof = 0;
    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    SHOULD(proof == 0 && future_set(w, 1) == 0);
    SHOULD(proof_is(1));
    return 0;
}

/* test_shield_effect: the inner one goes on, the outer one does not */
ON_1_AND_4(shield, cancel_of_the_caller_lets_the_inner_go_on)
{
    struct word *w = word();
    struct shields *t = spawn(shields(w));

    proof = 0;
    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(t) == 0);
    SHOULD(future_set(w, 1) == 0);
    SHOULD(await_rc(t, NULL) == -ECANCELED || proof == 101);
    SHOULD(proof == 101 || proof_is(1));
    return 0;
}

ON_1_AND_4(shield, cancel_of_the_caller_gives_a_future_up)
{
    struct word *w = word();
    struct shields_future *t = spawn(shields_future(w));

    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    SHOULD(future_set(w, 1) == 0);
    return 0;
}

ON_1_AND_4(shield, a_timeout_of_the_caller_lets_the_inner_go_on)
{
    struct word *w = word();

    proof = 0;
    SHOULD(wait_for(shields(w), 2 * MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(future_set(w, 1) == 0);
    SHOULD(proof_is(1));
    return 0;
}

async(int, shields_when_cancelled, (struct word *, w))
{
    int v;

    SHOULD(mag_cancel(mag_self()) == 0);
    await(mag_shield(proves(w), &v, sizeof v));
    async_return(v);
}

/* As every suspension of a cancelled task: but the inner one is begun. */
ON_1_AND_4(shield, of_a_caller_that_is_cancelled_already)
{
    struct word *w = word();

    proof = 0;
    SHOULD(await_rc(spawn(shields_when_cancelled(w)), NULL) == -ECANCELED);
    SHOULD(future_set(w, 1) == 0);
    SHOULD(proof_is(1));
    return 0;
}

/* ---- with gather ------------------------------------------------------------------------------ */

async(int, gathers_both, (struct word *, a), (struct word *, b))
{
    gather(NULL, proves(a), proves(b));
    mag_fetch_add(&proof, 10);
    async_return(1);
}

async(int, shields_gather, (struct word *, a), (struct word *, b))
{
    int v;

    await(mag_shield(gathers_both(a, b), &v, sizeof v));
    async_return(v);
}

/* test_shield_gather */
ON_1_AND_4(shield, around_a_gather)
{
    struct word *a = word(), *b = word();
    struct shields_gather *t = spawn(shields_gather(a, b));

    proof = 0;
    SHOULD(have_arrived(2));
    SHOULD(CANCELS(t));
    SHOULD(future_set(a, 1) == 0 && future_set(b, 2) == 0);
    SHOULD(proof_is(12));
    return 0;
}

async(int, gathers_shields, (struct word *, a), (struct word *, b))
{
    gather(NULL, shields(a), shields(b));
    async_return(1);
}

/* test_gather_shield */
ON_1_AND_4(shield, inside_a_gather)
{
    struct word *a = word(), *b = word();
    struct gathers_shields *t = spawn(gathers_shields(a, b));

    proof = 0;
    SHOULD(have_arrived(2));
    SHOULD(CANCELS(t));
    SHOULD(proof == 0);
    SHOULD(future_set(a, 1) == 0 && future_set(b, 2) == 0);
    SHOULD(proof_is(2));
    return 0;
}

/* ---- adversarial -------------------------------------------------------------------------------- */

static int shields_some(void *arg, long *value)
{
    int v = 0, rc;

    *value = 0;
    *(int *)arg = 0;
    nth_point();
    rc = mag_shield(gives_after(30 * MAG_US, 1), &v, sizeof v);
    *(int *)arg += v;
    nth_point();
    if (rc == 0 && (rc = mag_shield(spawn(gives_later(2)), &v, sizeof v)) == 0)
        *(int *)arg += v;
    return rc;
}

static int all_or_cancelled(void *arg, int rc)
{
    SHOULD(rc == -ECANCELED || (rc == 0 && *(int *)arg == 3));
    return 0;
}

ON_1_AND_4(shield, cancel_at_each_suspension_in_turn)
{
    int sum = 0;

    return nth_cancel(shields_some, &sum, all_or_cancelled);
}

ON_1_AND_4(shield, cancel_at_the_same_instant_as_the_end)
{
    for (int i = 0; i < 200; i++) {
        struct word *w = word();
        struct shields *t = spawn(shields(w));
        int rc, v = 0;
        if (i % 3)
            await(mag_sleep(i % 25 * MAG_US));
        if (i % 2) {
            SHOULD(future_set(w, 4) == 0 && mag_cancel(t) == 0);
        } else {
            SHOULD(mag_cancel(t) == 0 && future_set(w, 4) == 0);
        }
        rc = await_rc(t, &v);
        SHOULD(rc == 0 ? v == 4 : rc == -ECANCELED && v == 0);
    }
    return 0;
}
