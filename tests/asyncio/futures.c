/* SPDX-License-Identifier: MIT */
/* futures.c - what CPython's suite pins for futures and their callbacks (test_futures.py,
 * test_futures2.py) */
#include "words.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(futures, .timeout = 60);

/* ---- state -------------------------------------------------------------------------- */

ON_1(futures, a_new_future_is_not_done)
{
    struct word *w = word();

    SHOULD(!mag_done(w) && strcmp(mag_kind_name(w), "future") == 0);
    SHOULD(strcmp(mag_name(w), "word") == 0);
    SHOULD(future_set(w, 1) == 0 && await(w) == 1);
    return 0;
}

ON_1(futures, a_future_that_is_set_is_done)
{
    struct word *w = word();

    SHOULD(future_set(w, 42) == 0 && mag_done(w));
    SHOULD(await(w) == 42);
    SHOULD(strcmp(mag_kind_name(w), "freed") == 0);
    return 0;
}

ON_1(futures, a_future_that_has_failed_is_done)
{
    struct word *w = word();
    int v = 3;

    SHOULD(future_fail(w, -EIO) == 0 && mag_done(w));
    SHOULD(await_rc(w, &v) == -EIO && v == 3);
    return 0;
}

/* test_exception, test_exception_class: an error is a negative errno and nothing else */
ON_1(futures, what_is_no_error_cannot_be_its_error)
{
    struct word *w = word();

    SHOULD(future_fail(w, 0) == -EINVAL && future_fail(w, 5) == -EINVAL && !mag_done(w));
    SHOULD(future_set(w, 1) == 0 && await(w) == 1);
    return 0;
}

/* SetMethodsTest: InvalidStateError */
ON_1(futures, a_future_is_set_only_once)
{
    struct word *a = word(), *b = word();

    SHOULD(future_set(a, 1) == 0);
    SHOULD(future_set(a, 2) == -EALREADY && future_fail(a, -EIO) == -EALREADY);
    SHOULD(await(a) == 1);
    SHOULD(future_fail(b, -EIO) == 0);
    SHOULD(future_fail(b, -ENOSPC) == -EALREADY && future_set(b, 1) == -EALREADY);
    SHOULD(await_rc(b, NULL) == -EIO);
    return 0;
}

/* test_yield_from_twice; asyncio's may be awaited again, ours is consumed */
ON_1(futures, a_second_await_is_refused)
{
    struct word *w = word();

    SHOULD(future_set(w, 1) == 0 && await(w) == 1);
    SHOULD(await_rc(w, NULL) == -EALREADY);
    return 0;
}

ON_1(futures, a_future_that_could_not_be_made_says_so)
{
    SHOULD(await_rc((struct word *)NULL, NULL) == -ENOMEM);
    SHOULD(future_set((struct word *)NULL, 1) == -ENOMEM);
    SHOULD(future_fail((struct word *)NULL, -EIO) == -ENOMEM);
    return 0;
}

ON_1(futures, a_future_is_cancelled_by_failing_it)
{
    struct word *w = word();

    SHOULD(mag_cancel(w) == -EINVAL); /* it is no task */
    SHOULD(future_fail(w, -ECANCELED) == 0);
    SHOULD(await_rc(w, NULL) == -ECANCELED && !mag_cancelled());
    return 0;
}

/* ---- values --------------------------------------------------------------------------- */

async_future(void, bell);

ON_1_AND_4(futures, a_future_may_have_no_value)
{
    struct bell *b = bell();

    SHOULD(future_set(b) == 0);
    await(b);
    return 0;
}

struct big {
    long n[40];
};
async_future(struct big, parcel);

ON_1_AND_4(futures, a_future_may_have_a_big_value)
{
    struct parcel *p = parcel();
    struct big big = { { 1, 2, 3 } };

    big.n[39] = 40;
    SHOULD(future_set(p, big) == 0);
    big = (struct big){ { 0 } };
    big = await(p);
    SHOULD(big.n[2] == 3 && big.n[39] == 40);
    return 0;
}

ON_1(futures, a_value_of_another_size_is_refused)
{
    struct word *w = word();
    char small = 1;

    SHOULD(mag_future_set(w, &small, sizeof small) == -EINVAL && !mag_done(w));
    SHOULD(future_set(w, 1) == 0);
    SHOULD(mag_await(w, &small, sizeof small) == -EINVAL);
    SHOULD(await(w) == 1);
    return 0;
}

/* ---- who awaits ---------------------------------------------------------------------------- */

/* test_future_iter and FutureTests.test_future_traceback's half: the waiting task goes on */
ON_1_AND_4(futures, set_wakes_who_awaits)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(!mag_done(t));
    SHOULD(future_set(w, 9) == 0);
    SHOULD(await(t) == 9);
    return 0;
}

ON_1_AND_4(futures, fail_wakes_who_awaits)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(future_fail(w, -EIO) == 0);
    SHOULD(await_rc(t, NULL) == -EIO);
    return 0;
}

ON_1_AND_4(futures, set_before_anybody_awaits)
{
    struct word *w = word();

    SHOULD(future_set(w, 9) == 0);
    SHOULD(await(spawn(reads(w))) == 9);
    return 0;
}

ON_1_AND_4(futures, a_setter_that_comes_after_the_awaiter_has_gone)
{
    struct word *w = word();
    struct reads *t = spawn(reads(w));

    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    SHOULD(!mag_done(w) && future_set(w, 1) == 0);
    return 0;
}

ON_1_AND_4(futures, a_timeout_gives_the_future_up)
{
    struct word *w = word();

    SHOULD(wait_for(w, MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(future_set(w, 1) == 0);
    return 0;
}

async(int, hands_on, (struct word *, from), (struct word *, to))
{
    int v = await(from);

    SHOULD(future_set(to, v + 1) == 0);
    async_return(v);
}

ON_1_AND_4(futures, a_chain_of_futures)
{
    struct word *w[21];

    for (int i = 0; i <= 20; i++)
        w[i] = word();
    for (int i = 0; i < 20; i++)
        SHOULD(mag_detach(spawn(hands_on(w[i], w[i + 1]))) == 0);
    SHOULD(future_set(w[0], 1) == 0);
    SHOULD(await(w[20]) == 21);
    return 0;
}

/* ---- set from elsewhere ------------------------------------------------------------------------ */

static void rings(void *w)
{
    future_set((struct word *)w, 42);
}

ON_1_AND_4(futures, set_by_a_callback_later)
{
    struct word *w = word();

    SHOULD(mag_call_later(MAG_MS, rings, w) == 0);
    SHOULD(await(w) == 42);
    return 0;
}

static void *rings_in_thread(void *w)
{
    rings(w);
    return NULL;
}

/* test_wrap_future: concurrent.futures' are the same thing here */
ON_1_AND_4(futures, set_by_another_thread)
{
    struct word *w = word();
    pthread_t thread;

    SHOULD(pthread_create(&thread, NULL, rings_in_thread, w) == 0);
    SHOULD(await(w) == 42);
    SHOULD(pthread_join(thread, NULL) == 0);
    return 0;
}

/* ---- done callbacks (BaseFutureDoneCallbackTests) ------------------------------------------------ */

static struct {
    mag_atomic(int32_t) n;
    int rc, value;
    void *task; /* of the callback */
} called;

static void on_done(void *arg, int rc, const void *result)
{
    called.rc = rc;
    called.value = result ? *(const int *)result : -1;
    called.task = mag_self();
    mag_fetch_add(&called.n, (int)num(arg));
}

static int calls_are(int n)
{
    for (int i = 0; i < 1000 && mag_load_acquire(&called.n) != n; i++)
        await(mag_sleep(MAG_MS));
    return mag_load_acquire(&called.n) == n;
}

ON_1_AND_4(futures, callbacks_are_called_on_set)
{
    struct word *w = word();

    called.n = 0;
    SHOULD(mag_on_done(w, on_done, arg_of(3)) == 0 && called.n == 0);
    SHOULD(future_set(w, 42) == 0);
    SHOULD(called.n == 3 && called.rc == 0 && called.value == 42);
    return 0;
}

ON_1_AND_4(futures, callbacks_are_called_on_fail)
{
    struct word *w = word();

    called.n = 0;
    SHOULD(mag_on_done(w, on_done, arg_of(3)) == 0);
    SHOULD(future_fail(w, -EIO) == 0);
    SHOULD(called.n == 3 && called.rc == -EIO && called.value == -1);
    return 0;
}

ON_1_AND_4(futures, a_callback_for_what_is_done_is_called_at_once)
{
    struct word *w = word();

    called.n = 0;
    SHOULD(future_set(w, 42) == 0);
    SHOULD(mag_on_done(w, on_done, arg_of(1)) == 0 && called.n == 1 && called.value == 42);
    return 0;
}

ON_1_AND_4(futures, a_callback_of_a_task_comes_when_it_ends)
{
    called.n = 0;
    SHOULD(mag_on_done(spawn(gives_after(MAG_MS, 7)), on_done, arg_of(1)) == 0);
    SHOULD(called.n == 0);
    SHOULD(calls_are(1) && called.value == 7);
    SHOULD(mag_on_done(spawn(fails_after(MAG_MS, -EIO)), on_done, arg_of(1)) == 0);
    SHOULD(calls_are(2) && called.rc == -EIO);
    return 0;
}

ON_1_AND_4(futures, a_callback_of_a_task_that_is_cancelled)
{
    struct never *t = spawn(never());

    called.n = 0;
    SHOULD(have_arrived(1));
    SHOULD(mag_on_done(t, on_done, arg_of(1)) == 0);
    SHOULD(mag_cancel(t) == 0);
    SHOULD(calls_are(1) && called.rc == -ECANCELED);
    return 0;
}

ON_1_AND_4(futures, a_callback_runs_in_no_task)
{
    struct word *w = word();

    called.n = 0;
    called.task = w;
    SHOULD(mag_on_done(w, on_done, arg_of(1)) == 0);
    SHOULD(future_set(w, 1) == 0);
    SHOULD(called.n == 1 && called.task == NULL && mag_self() != NULL);
    return 0;
}

/* Not as in asyncio, where there may be many: one who is told (NOT_APPLICABLE.md). */
ON_1_AND_4(futures, a_future_has_one_callback_or_one_awaiter)
{
    struct word *w = word();

    called.n = 0;
    SHOULD(mag_on_done(w, on_done, arg_of(1)) == 0);
    SHOULD(mag_on_done(w, on_done, arg_of(1)) == -EALREADY);
    SHOULD(await_rc(w, NULL) == -EALREADY);
    SHOULD(future_set(w, 1) == 0 && called.n == 1);
    return 0;
}

static void sets_another(void *arg, int rc, const void *result)
{
    future_set((struct word *)arg, rc < 0 ? rc : *(const int *)result);
}

/* test_schedule_callbacks_list_mutation: a callback may cause others */
ON_1_AND_4(futures, a_callback_may_set_the_next_future)
{
    struct word *w[10];

    for (int i = 0; i < 10; i++)
        w[i] = word();
    for (int i = 0; i < 9; i++)
        SHOULD(mag_on_done(w[i], sets_another, w[i + 1]) == 0);
    SHOULD(future_set(w[0], 5) == 0);
    SHOULD(mag_done(w[9]) && await(w[9]) == 5);
    return 0;
}

static void spawns_one(void *arg, int rc, const void *result)
{
    struct gives_later *t = spawn(gives_later(rc < 0 ? rc : *(const int *)result));

    (void)mag_on_done(t, sets_another, arg);
}

ON_1_AND_4(futures, a_callback_may_spawn)
{
    struct word *w = word(), *then = word();

    SHOULD(mag_on_done(w, spawns_one, then) == 0);
    SHOULD(future_set(w, 6) == 0);
    SHOULD(await(then) == 6);
    return 0;
}

/* ---- adversarial ---------------------------------------------------------------------------------- */

static void *rings_soon(void *arg)
{
    struct word **w = arg;

    for (int i = 0; i < 300; i++) {
        struct word *one;
        while ((one = mag_load_acquire(&w[i])) == NULL)
            mag_cpu_relax();
        future_set(one, i);
    }
    return NULL;
}

static struct word *shared[300];

ON_1_AND_4(futures, set_and_cancel_at_the_same_instant)
{
    pthread_t thread;

    memset(shared, 0, sizeof shared);
    SHOULD(pthread_create(&thread, NULL, rings_soon, shared) == 0);
    for (int i = 0; i < 300; i++) {
        struct word *w = word();
        struct reads *t = spawn(reads(w));
        int v = -1, rc;
        if (i % 2)
            await(mag_yield());
        mag_store_release(&shared[i], w);
        for (int k = 0; k < i % 7 * 20; k++)
            mag_cpu_relax();
        SHOULD(mag_cancel(t) == 0);
        rc = await_rc(t, &v);
        SHOULD(rc == 0 ? v == i : rc == -ECANCELED && v == -1);
    }
    SHOULD(pthread_join(thread, NULL) == 0);
    return 0;
}
