/* SPDX-License-Identifier: MIT */
/*
 * gen.c - generators, iterators and the exit stack, by the functions of iter.h and by the
 * words of <magpie/async.h>
 */
#include "keywords.h"

#include "atomic.h"
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

TestSuite(gen, .timeout = 30);

/* ---- generators to use --------------------------------------------------------------- */

async_gen(int, up_to, (int, n))
{
    for (int i = 1; i <= n; i++)
        yield(i);
    return 0;
}

/* Suspends before each item, and says when it ends, and how. */
async_gen(int, careful, (int, n), (mag_time, pause))
{
    tell("(");
    async_with(door, d, "g") {
        for (int i = 1; i <= n; i++) {
            if (pause >= 0)
                await(mag_sleep(pause));
            yield(i);
        }
        tell("e");
    }
    tell(")");
    return 0;
}

struct big {
    char text[5000];
    int n;
};

async_gen(struct big, bigs, (const char *, text), (int, n))
{
    for (int i = 0; i < n; i++) {
        struct big b = { .n = i };
        snprintf(b.text, sizeof b.text, "%s%d", text, i);
        yield(b);
    }
    return 0;
}

async_gen(const char *, letters)
{
    yield("a");
    yield("b");
    return 0;
}

/* ---- items ---------------------------------------------------------------------------- */

async(void, items)
{
    int sum = 0, n = 0;

    async_for(int, i, up_to(5))
        tell_number(i);
    async_for(int, none, up_to(0))
        tell_number(none);
    async_for(int, i, up_to(10)) {
        if (i % 2)
            continue;
        sum += i;
    }
    SHOULD(sum == 30);
    async_for(struct big, b, bigs("n", 3))
        tell(b.text);
    async_for(const char *, s, letters())
        tell(s);
    async_for(int, i, up_to(20))
        async_for(int, j, up_to(i))
            n += j == i;
    SHOULD(n == 20);
    return 0;
}

Test(gen, hands_out_its_items_in_order)
{
    RUN_ON_BOTH(items(), 0, "12345n0n1n2ab");
}

async(void, is_lazy)
{
    struct careful *g = careful(2, 0);
    int v = 0;

    SHOULD(strcmp(mag_name(g), "careful") == 0);
    await(mag_sleep(MAG_MS));
    tell("made");
    SHOULD(mag_gen_next(g, &v) == 1 && v == 1);
    tell("1");
    await(mag_sleep(MAG_MS)); /* it does not run ahead */
    SHOULD(mag_gen_next(g, NULL) == 1 && v == 1);
    tell("2");
    SHOULD(anext(g, &v) == 0 && anext(g, &v) == 0 && v == 1);
    SHOULD(mag_gen_close(g) == 0);
    SHOULD(mag_gen_next(g, &v) == -EALREADY && mag_gen_close(g) == -EALREADY);
    SHOULD(mag_gen_next(NULL, &v) == -ENOMEM && mag_gen_close(NULL) == 0);
    return 0;
}

Test(gen, runs_only_while_somebody_waits_for_an_item)
{
    RUN_ON_BOTH(is_lazy(), 0, "made(<12e>g)");
}

/* ---- closing -------------------------------------------------------------------------- */

enum way { END, BREAK, RETURN, GOTO, RAISE, NEVER };

async(int, leaves, (enum way, how), (int, at), (mag_time, pause))
{
    async_for(int, i, careful(4, pause)) {
        tell_number(i);
        if (i != at)
            continue;
        if (how == BREAK)
            break;
        if (how == RETURN)
            async_return(1);
        if (how == GOTO)
            goto out;
        if (how == RAISE)
            await(-EIO);
    }
    tell("after");
    async_return(2);
out:
    tell("out");
    async_return(3);
}

Test(gen, is_closed_where_the_loop_is_left)
{
    for (int p = -1; p < 2; p++) {
        mag_time pause = p * 50 * MAG_US;
        RUN_ON_BOTH(leaves(END, 0, pause), 0, "(<1234e>g)after");
        RUN_ON_BOTH(leaves(BREAK, 1, pause), 0, "(<1>gafter");
        RUN_ON_BOTH(leaves(BREAK, 2, pause), 0, "(<12>gafter");
        RUN_ON_BOTH(leaves(BREAK, 3, pause), 0, "(<123>gafter");
        RUN_ON_BOTH(leaves(BREAK, 4, pause), 0, "(<1234>gafter");
        RUN_ON_BOTH(leaves(RETURN, 2, pause), 0, "(<12>g");
        RUN_ON_BOTH(leaves(GOTO, 2, pause), 0, "(<12>gout");
        RUN_ON_BOTH(leaves(RAISE, 2, pause), -EIO, "(<12>g");
    }
}

async_gen(int, stubborn)
{
    int one = 1;

    SHOULD(mag_yield_value(&one, sizeof one) == -ECANCELED);
    tell("1");
    await(mag_sleep(MAG_MS)); /* being closed is no cancellation: this suspends */
    tell("2");
    for (int i = 0; i < 5; i++)
        SHOULD(mag_yield_value(&one, sizeof one) == -ECANCELED);
    tell("3");
    return -EBADF;
}

async(void, closes_stubborn)
{
    struct stubborn *g = stubborn();
    int v = 0;

    SHOULD(mag_gen_next(g, &v) == 1);
    SHOULD(mag_gen_close(g) == -EBADF);
    async_for(int, i, stubborn())
        break;
    tell(".");
    return 0;
}

Test(gen, yields_nothing_more_while_it_is_closed)
{
    RUN_ON_BOTH(closes_stubborn(), 0, "123123.");
}

async(void, nested_leave)
{
    async_for(int, i, careful(3, 0)) {
        async_for(int, j, careful(3, 0)) {
            if (j == 2)
                break;
            tell_number(j);
        }
        tell_number(i);
        if (i == 2)
            return -EIO;
    }
    return 0;
}

Test(gen, nested_loops_close_each_their_own)
{
    RUN_ON_BOTH(nested_leave(), -EIO, "(<(<1>g1(<1>g2>g");
}

/* ---- errors --------------------------------------------------------------------------- */

static int fails_inside(void)
{
    await(-ENOSPC);
    return 0;
}

async_gen(int, breaks_down, (int, after))
{
    for (int i = 0; i < after; i++)
        yield(i);
    await(fails_inside());
    return 0;
}

async(void, meets_error)
{
    async_for(int, i, breaks_down(2))
        tell_number(i);
    tell("?");
    return 0;
}

async(void, traced)
{
    struct breaks_down *g = breaks_down(0);
    char text[1000] = "";
    FILE *to;
    int v;

    SHOULD(await_rc(meets_error(), NULL) == -ENOSPC);
    to = fmemopen(text, sizeof text, "w");
    SHOULD(mag_trace_print(to) == 4);
    fclose(to);
    SHOULD(strstr(text, "in fails_inside") && strstr(text, "in breaks_down") &&
           strstr(text, "in meets_error") && strstr(text, "in traced"));

    SHOULD(anext(g, &v) == -ENOSPC); /* once; then it is at its end */
    SHOULD(anext(g, &v) == 0 && anext(g, &v) == 0);
    SHOULD(mag_gen_close(g) == 0);
    return 0;
}

Test(gen, its_error_comes_out_of_the_loop_with_its_trace)
{
    RUN_ON_BOTH(traced(), 0, "01");
}

async(void, no_memory)
{
    struct up_to *none = NULL;

    async_for(int, i, none)
        tell_number(i);
    return 0;
}

Test(gen, null_is_out_of_memory)
{
    RUN_ON_BOTH(no_memory(), -ENOMEM, "");
}

/* No stack is idle, and the reserve of the worker is not for generators. */
async(void, no_stacks)
{
    struct up_to *gens[40] = { NULL };
    int rc = 1, v = 0, n = 0;

    mag_sys_fail_nth(MAG_SYS_MADVISE, 1, ENOMEM, true);
    while (rc == 1 && n < 40) {
        gens[n] = up_to(3);
        rc = anext(gens[n++], &v);
    }
    mag_sys_fail_none();
    SHOULD(rc == -ENOMEM && n == 1);
    SHOULD(anext(gens[n - 1], &v) == 0); /* at its end */
    for (int i = 0; i < n; i++)
        SHOULD(mag_gen_close(gens[i]) == 0);
    for (long i = 0; i < 50; i++) /* nothing is broken */
        await(spawn(number((int)i, 0)));
    async_for(int, i, up_to(2))
        tell_number(i);
    return 0;
}

Test(gen, without_a_stack_it_fails)
{
    RUN_ON_BOTH(no_stacks(), 0, "12");
}

/* ---- cancellation ----------------------------------------------------------------------- */

async(void, cancels, (mag_time, pause))
{
    struct leaves *t = spawn(leaves(NEVER, 0, pause));

    await(told("(<"));
    mag_cancel(t);
    await(t);
    return 0;
}

Test(gen, cancelling_who_waits_for_an_item_ends_it)
{
    RUN_ON_BOTH(cancels(MAG_MINUTE), -ECANCELED, "(<>g");
}

/* The consumer is cancelled while it deals with an item: the generator is at rest. */
async(int, dawdles)
{
    async_for(int, i, careful(9, 0)) {
        tell_number(i);
        await(mag_sleep(MAG_MINUTE));
    }
    async_return(1);
}

async(void, cancels_dawdler)
{
    struct dawdles *t = spawn(dawdles());

    await(told("1"));
    mag_cancel(t);
    await(t);
    return 0;
}

Test(gen, is_closed_when_its_consumer_is_cancelled)
{
    RUN_ON_BOTH(cancels_dawdler(), -ECANCELED, "(<1>g");
}

async(int, limited_loop, (mag_time, pause), (mag_time, limit))
{
    with_timeout (limit)
        async_for(int, i, careful(9, pause)) {
            tell_number(i);
            if (pause == 0)
                await(mag_sleep(MAG_MINUTE));
        }
    async_return(1);
}

/* Again with more time, if a busy machine was late before that was told. */
async(void, limited_after, (const char *, told_first), (mag_time, pause))
{
    mag_time limit = 10 * MAG_MS;
    int rc;

    do {
        story[0] = '\0';
        rc = await_rc(limited_loop(pause, limit), NULL);
        limit *= 2;
    } while (rc == -ETIMEDOUT && strstr(story, told_first) == NULL);
    return rc;
}

Test(gen, a_deadline_of_the_consumer_reaches_it)
{
    RUN_ON_BOTH(limited_after("(<", MAG_MINUTE), -ETIMEDOUT, "(<>g");
    RUN_ON_BOTH(limited_after("1", 0), -ETIMEDOUT, "(<1>g");
}

/* One that keeps its deadline across its yields: that concerns nobody else. */
async_gen(int, hurries, (mag_time, limit))
{
    with_timeout (limit) {
        yield(1);
        yield(2);
        await(mag_sleep(MAG_MINUTE));
    }
    return 0;
}

async(void, meets_deadline, (mag_time, limit))
{
    async_for(int, i, hurries(limit)) {
        tell_number(i);
        if (i == 1)
            await(mag_sleep(MAG_MS / 4));
        else
            await(mag_sleep(limit)); /* its deadline passes, and this is not cut short */
        tell(".");
    }
    return 0;
}

/* Again with more time, if a busy machine was late before the second item. */
async(void, meets_deadline_late)
{
    mag_time limit = 20 * MAG_MS;
    int rc;

    do {
        story[0] = '\0';
        rc = await_rc(meets_deadline(limit), NULL);
        limit *= 2;
    } while (rc == -ETIMEDOUT && strchr(story, '2') == NULL);
    return rc;
}

Test(gen, its_own_deadline_is_not_its_consumers)
{
    RUN_ON_BOTH(meets_deadline_late(), -ETIMEDOUT, "1.2.");
}

/* One that only yields sees its deadline too. */
async_gen(int, never_sleeps)
{
    with_timeout (MAG_MS)
        for (int i = 1;; i++)
            yield(i);
}

async(void, meets_yielded_deadline)
{
    int n = 0;

    async_for(int, i, never_sleeps())
        n = i;
    return n > 0 ? 0 : -EIO;
}

Test(gen, a_deadline_ends_one_that_only_yields)
{
    RUN_ON_BOTH(meets_yielded_deadline(), -ETIMEDOUT, "");
}

async(void, cancelled_before)
{
    struct careful *g = careful(2, -1);
    int v = 0;

    SHOULD(anext(g, &v) == 1);
    timeout_at (mag_now() - 1) {
        (void)mag_sleep(0);
        SHOULD(mag_cancelled());
        SHOULD(anext(g, &v) == -ECANCELED && v == 1); /* it was not touched */
    }
    SHOULD(anext(g, &v) == 1 && v == 2);
    SHOULD(anext(g, &v) == 0);
    SHOULD(mag_gen_close(g) == 0);
    return 0;
}

Test(gen, a_cancelled_consumer_does_not_disturb_it)
{
    RUN_ON_BOTH(cancelled_before(), 0, "(<e>g)");
}

/* Each item comes just when the time is over. */
async(void, just_in_time)
{
    int n_late = 0, n_lost = 0;

    for (int i = 0; i < 60; i++) {
        struct careful *g = careful(1, MAG_MS);
        int v = 0, rc;
        story[0] = '\0';
        with_timeout (MAG_MS) {
            rc = anext(g, &v);
            n_late += rc == -ECANCELED;
            n_lost += rc < 0 ? v != 0 : v != 1;
            SHOULD(rc == 1 || rc == -ECANCELED);
        }
        if (rc < 0 && story[0] == '\0') /* it was late before the generator began: untouched */
            SHOULD(anext(g, &v) == 1 && v == 1);
        SHOULD(anext(g, &v) == 0);
        SHOULD(mag_gen_close(g) == 0);
    }
    SHOULD(n_lost == 0 && n_late >= 0);
    story[0] = '\0';
    return 0;
}

Test(gen, an_item_that_has_come_is_not_replaced)
{
    RUN_ON_BOTH(just_in_time(), 0, "");
}

/* A scenario that is cancelled, and left by break, at every point in turn. */
static struct {
    int n_open, n_most;
} nth_doors;

struct nth_door {
    int is_open;
};

static int nth_door_enter(struct nth_door *d)
{
    int rc = mag_yield();

    if (rc < 0)
        return rc;
    d->is_open = ++nth_doors.n_open;
    nth_doors.n_most = nth_doors.n_open > nth_doors.n_most ? nth_doors.n_open : nth_doors.n_most;
    return 0;
}

static void nth_door_exit(struct nth_door *d)
{
    if (mag_sleep(0) == 0 && mag_yield() == 0)
        nth_doors.n_open -= d->is_open > 0;
}

async_resource(nth_door)

async_gen(int, nth_inner, (int, n))
{
    async_with(nth_door, d)
        for (int i = 0; i < n; i++) {
            await(mag_yield());
            yield(i);
        }
    return 0;
}

async_gen(int, nth_outer, (int, n))
{
    async_with(nth_door, d) {
        await(mag_yield());
        async_for(int, i, nth_inner(n)) {
            yield(i);
            await(mag_yield());
        }
    }
    return 0;
}

async(int, nth_scenario, (int, break_at))
{
    int n = 0;

    async_with(nth_door, d)
        async_for(int, i, nth_outer(3)) {
            if (n++ == break_at)
                break;
            await(mag_yield());
            (void)i;
        }
    async_return(n);
}

async(void, nth_all)
{
    int n_turns = 0, n_ended = 0;

    for (int at = 0; at < 5; at++)
        for (n_turns = 0;; n_turns++) {
            struct nth_scenario *t = spawn(nth_scenario(at));
            int rc, n = -1;
            bool was_over;
            for (int i = 0; i < n_turns; i++)
                await(mag_yield());
            was_over = mag_done(t);
            mag_cancel(t);
            rc = await_rc(t, &n);
            SHOULD(rc == 0 || rc == -ECANCELED);
            SHOULD(nth_doors.n_open == 0);
            SHOULD(n_turns < 1000);
            n_ended += rc == 0;
            if (was_over) {
                SHOULD(rc == 0 && n == (at < 3 ? at + 1 : 3));
                break;
            }
        }
    SHOULD(nth_doors.n_most == 3 && n_ended >= 5 && n_turns > 10);
    return 0;
}

Test(gen, cancelled_at_each_suspension_and_left_at_each_item_it_cleans_up)
{
    RUN_STORY(1, nth_all(), 0, "");
}

/* ---- misuse ----------------------------------------------------------------------------- */

static struct eats_itself *itself;

async_gen(int, eats_itself)
{
    int v;

    SHOULD(anext(itself, &v) == -EBUSY);
    SHOULD(mag_gen_close(itself) == -EBUSY);
    yield(1);
    SHOULD(anext(itself, &v) == -EBUSY);
    return 0;
}

async(void, re_entered)
{
    int v = 0;

    itself = eats_itself();
    SHOULD(anext(itself, &v) == 1 && v == 1);
    SHOULD(anext(itself, &v) == 0);
    SHOULD(mag_gen_close(itself) == 0);
    return 0;
}

/* Its first item comes when that has been told. */
async_gen(int, after_word, (const char *, word), (int, n))
{
    tell("(");
    await(told(word));
    for (int i = 1; i <= n; i++)
        yield(i);
    return 0;
}

async(int, takes_one, (struct after_word *, g))
{
    int v = -1;

    await(anext(g, &v));
    async_return(v);
}

async(void, two_consumers)
{
    struct after_word *g = after_word("go", 3);
    struct takes_one *t = spawn(takes_one(g));
    int v = 0;

    await(told("("));
    SHOULD(anext(g, &v) == -EBUSY && mag_gen_close(g) == -EBUSY);
    tell("go");
    SHOULD(await(t) == 1);
    SHOULD(anext(g, &v) == 1 && v == 2);
    SHOULD(mag_gen_close(g) == 0);
    return 0;
}

Test(gen, has_one_consumer_at_a_time)
{
    RUN_ON_BOTH(re_entered(), 0, "");
    RUN_ON_BOTH(two_consumers(), 0, "(go");
}

async(int, yields_for_another)
{
    int v = 1;

    SHOULD(mag_yield_value(&v, sizeof v) == -EINVAL);
    async_return(v);
}

static int yields_two(void)
{
    for (int i = 1; i <= 2; i++)
        await(mag_yield_value(&i, sizeof i));
    return 0;
}

async_gen(int, delegates)
{
    long wrong = 1;

    SHOULD(mag_yield_value(&wrong, sizeof wrong) == -EINVAL);
    await(yields_for_another());
    await(spawn(yields_for_another()));
    await(yields_two());
    return 0;
}

async(void, delegation)
{
    int v = 0;
    struct up_to *awaited = up_to(3), *started = up_to(3);

    SHOULD(mag_yield_value(&v, sizeof v) == -EINVAL);
    async_for(int, i, delegates())
        tell_number(i);

    /* an object that is awaited or started instead is no generator */
    SHOULD(mag_await(awaited, NULL, 0) == -EINVAL);
    SHOULD(mag_gen_next(awaited, &v) == -EALREADY);
    SHOULD(mag_start(started, NULL) == 0);
    SHOULD(mag_gen_next(started, &v) == -EALREADY && mag_gen_close(started) == -EALREADY);
    SHOULD(mag_await(started, NULL, 0) == -EINVAL);
    started = up_to(3);
    SHOULD(mag_gen_next(started, &v) == 1);
    SHOULD(mag_start(started, NULL) == -EALREADY && mag_await(started, NULL, 0) == -EALREADY);
    SHOULD(mag_gen_close(started) == 0);
    return 0;
}

Test(gen, yields_from_its_body_only)
{
    RUN_ON_BOTH(delegation(), 0, "12");
}

Test(gen, is_for_tasks)
{
    struct up_to *g = up_to(3);
    int v = 7;

    cr_assert_eq(mag_gen_next(g, &v), -ENXIO);
    cr_assert_eq(mag_yield_value(&v, sizeof v), -EINVAL);
    cr_assert_eq(mag_gen_close(g), 0);
    cr_assert_eq(v, 7);
}

async(void, drops_one)
{
    struct up_to *g = up_to(1);

    return g ? 0 : -ENOMEM;
}

Test(gen, one_that_is_dropped_is_reported)
{
    RUN_STORY(1, drops_one(), 0, "");
    cr_assert(strstr(reported, "'up_to' was never"), "%s", reported);
}

/* ---- across tasks and workers ------------------------------------------------------------- */

async(int, takes_some, (struct careful *, g), (int, n))
{
    int v = 0, last = 0;

    while (n-- > 0 && await(anext(g, &v)) > 0) {
        SHOULD(v == last + 1 || last == 0);
        last = v;
    }
    async_return(last);
}

async(void, handed_around, (mag_time, pause), (int, per_turn))
{
    struct careful *g = careful(400, pause);
    int last = 0;

    for (unsigned i = 0; last < 400 - per_turn; i++) {
        int v = await(spawn_opts(takes_some(g, per_turn), .worker = 1 + i % 4));
        SHOULD(v == last + per_turn);
        last = v;
    }
    SHOULD(mag_gen_close(g) == 0);
    return 0;
}

Test(gen, may_be_consumed_on_one_worker_after_the_other)
{
    RUN_STORY(4, handed_around(-1, 1), 0, "(<>g");
    RUN_STORY(4, handed_around(-1, 7), 0, "(<>g");
    RUN_STORY(4, handed_around(0, 3), 0, "(<>g");
}

/* Cancelled from another worker while items come by message. */
async(void, far_cancel)
{
    for (int i = 0; i < 100; i++) {
        struct careful *g = careful(INT_MAX, -1); /* more than it can take in time */
        struct takes_some *t;
        int v = 0;
        await(spawn_opts(takes_some(g, 1), .worker = 2));
        t = spawn_opts(takes_some(g, INT_MAX), .worker = 3);
        await(mag_sleep(i * 2 * MAG_US));
        mag_cancel(t);
        SHOULD(await_rc(t, NULL) == -ECANCELED);
        SHOULD(anext(g, &v) >= 0); /* at its end, if the cancel came while it was asked */
        SHOULD(mag_gen_close(g) == 0);
        story[0] = '\0';
    }
    return 0;
}

Test(gen, may_be_cancelled_from_afar)
{
    RUN_STORY(4, far_cancel(), 0, "");
}

async(long, sums, (int, n))
{
    long sum = 0;

    async_for(int, i, up_to(n)) {
        sum += i;
        if (i % 5 == 0)
            await(mag_yield());
    }
    async_return(sum);
}

async(void, many)
{
    struct sums *all[300];
    long out[300];

    for (int i = 0; i < 300; i++)
        all[i] = sums(i);
    gather_n(out, all, 300);
    for (long i = 0; i < 300; i++)
        SHOULD(out[i] == i * (i + 1) / 2);
    return 0;
}

Test(gen, many_live_at_once)
{
    RUN_ON_BOTH(many(), 0, "");
}

/* A tree in order, by generators that iterate generators. */
async_gen(int, in_order, (int, lo), (int, hi))
{
    int mid = (lo + hi) / 2;

    if (lo >= hi)
        return 0;
    async_for(int, i, in_order(lo, mid))
        yield(i);
    yield(mid);
    async_for(int, i, in_order(mid + 1, hi))
        yield(i);
    return 0;
}

async(void, tree)
{
    int next = 0;

    async_for(int, i, in_order(0, 100))
        SHOULD(i == next++);
    SHOULD(next == 100);
    async_for(int, i, in_order(0, 100))
        if (i == 37)
            break;
    return 0;
}

Test(gen, generators_iterate_generators)
{
    RUN_ON_BOTH(tree(), 0, "");
}

static struct mag_var depth = { "depth", NULL };

async_gen(int, with_vars)
{
    SHOULD(mag_var_get(&depth) == (void *)1);
    SHOULD(mag_var_set(&depth, (void *)2) == 0);
    yield(1);
    SHOULD(mag_var_get(&depth) == (void *)3);
    await(mag_sleep(MAG_US));
    SHOULD(mag_var_set(&depth, (void *)4) == 0);
    return 0;
}

async(void, shares_vars)
{
    SHOULD(mag_var_set(&depth, (void *)1) == 0);
    async_for(int, i, with_vars()) {
        SHOULD(i == 1 && mag_var_get(&depth) == (void *)2);
        SHOULD(mag_var_set(&depth, (void *)3) == 0);
    }
    SHOULD(mag_var_get(&depth) == (void *)4);
    return 0;
}

Test(gen, shares_its_consumers_variables)
{
    RUN_ON_BOTH(shares_vars(), 0, "");
}

/* ---- iterators by hand ----------------------------------------------------------------------- */

struct counter {
    int current, stop;
};

static int counter_next(struct counter *c, int *out)
{
    if (c->current >= c->stop)
        return c->stop < 0 ? -ERANGE : 0;
    await(mag_sleep(MAG_US));
    *out = ++c->current;
    return 1;
}

static int any_next(void *self, void *out)
{
    return counter_next(self, out);
}

static void counter_close(void *self)
{
    tell(mag_sleep(MAG_US) == 0 ? "c" : "!");
    ((struct counter *)self)->stop = 0;
}

async(void, by_hand)
{
    struct counter c = { 0, 3 };
    struct mag_iter it = mag_iter_of(any_next, &c);
    int v = 0;

    async_for(int, i, async_iter(counter_next, &(struct counter){ .stop = 3 }))
        tell_number(i);
    async_for(int, i, async_iter(any_next, &c))
        tell_number(i);
    SHOULD(c.current == 3);
    c.current = 0;
    SHOULD(anext(it, &v) == 1 && v == 1 && mag_iter_next(&it, &v) == 1 && v == 2);
    async_for(int, i, it)
        tell_number(i);
    mag_iter_close(&it);
    SHOULD(anext(it, &v) == -EINVAL && mag_iter_next(&it, &v) == -EINVAL);

    c = (struct counter){ 0, 9 };
    it = (struct mag_iter){ any_next, counter_close, &c };
    async_for(int, i, it) {
        tell_number(i);
        if (i == 2)
            break;
    }
    SHOULD(c.stop == 0);
    it = (struct mag_iter){ any_next, counter_close, &c };
    mag_iter_close(&it);
    mag_iter_close(&it);
    tell(".");
    it = mag_gen_iter(up_to(2));
    SHOULD(mag_iter_next(&it, &v) == 1 && v == 1);
    mag_iter_close(&it);
    mag_iter_close(&it);
    async_for(int, i, mag_gen_iter(up_to(2)))
        tell_number(i);
    async_for(int, i, async_iter(counter_next, &(struct counter){ .stop = -1 }))
        tell_number(i);
    return 0;
}

Test(gen, iterators_by_hand)
{
    RUN_ON_BOTH(by_hand(), -ERANGE, "123123312cc.12");
}

async(void, closes_in_shield)
{
    struct counter c = { 0, 9 };
    struct mag_scope s;

    with_timeout (MAG_MINUTE, &s)
        async_for(int, i, ((struct mag_iter){ any_next, counter_close, &c })) {
            tell_number(i);
            await(mag_scope_reschedule(&s, mag_now() + MAG_MS));
            await(mag_sleep(MAG_MINUTE));
        }
    return 0;
}

Test(gen, an_iterator_is_closed_in_a_shield)
{
    RUN_ON_BOTH(closes_in_shield(), -ETIMEDOUT, "1c");
}

static int outside_loop(void)
{
    struct counter c = { 0, 3 };

    async_for(int, i, ((struct mag_iter){ any_next, counter_close, &c }))
        tell_number(i);
    return 0;
}

Test(gen, an_iterator_works_outside_a_task)
{
    story[0] = '\0';
    cr_assert_eq(outside_loop(), 0);
    cr_assert_str_eq(story, "123c");
}

/* Without keywords: a frame that begins with a struct mag_gen. */
struct plain_gen {
    struct mag_gen gen;
    long n, item;
};

static int plain_body(void *frame, void *item)
{
    struct plain_gen *g = frame;
    int rc = 0;

    (void)item;
    for (long i = 0; i < g->n && rc == 0; i++)
        rc = mag_yield_value(&i, sizeof i);
    return rc;
}

static const struct mag_co_type plain_type = {
    .name = "plain",
    .body = plain_body,
    .frame_bytes = sizeof(struct plain_gen),
    .result_offset = offsetof(struct plain_gen, item),
    .result_bytes = sizeof(long),
};

async(void, without_keywords)
{
    struct plain_gen *g = mag_gen_new(&plain_type, NULL);
    long v, sum = 0;
    int rc;

    SHOULD(g != NULL);
    g->n = 5;
    while ((rc = mag_gen_next(g, &v)) > 0)
        sum += v;
    SHOULD(rc == 0 && sum == 10);
    return mag_gen_close(g);
}

Test(gen, works_without_keywords)
{
    RUN_ON_BOTH(without_keywords(), 0, "");
}

/* ---- exit stack --------------------------------------------------------------------------------- */

static void tells(void *what)
{
    tell(mag_sleep(MAG_US) == 0 ? what : "!");
}

static void pushes_more(void *st)
{
    tell("m");
    mag_exit_stack_push(st, tells, "n");
}

async(int, stacks, (enum way, how), (int, n))
{
    static char names[60][8];
    struct mag_exit_stack kept;

    mag_exit_stack_enter(&kept);
    async_with(mag_exit_stack, st) {
        for (int i = 0; i < n; i++) {
            snprintf(names[i], sizeof names[i], "%d", i % 10);
            await(mag_exit_stack_push(st, tells, names[i]));
        }
        if (how != GOTO)
            await(mag_exit_stack_push(st, pushes_more, st));
        if (how == BREAK)
            break;
        if (how == RETURN)
            async_return(1);
        if (how == RAISE)
            await(-EIO);
        if (how == NEVER) {
            mag_cancel(mag_self());
            await(mag_sleep(MAG_MINUTE));
        }
        if (how == GOTO) {
            SHOULD(mag_exit_stack_pop_all(st, &kept) == 0);
            SHOULD(mag_exit_stack_push(st, tells, "x") == 0);
            SHOULD(mag_exit_stack_pop_all(st, &kept) == -EINVAL);
        }
        tell(".");
    }
    tell("after");
    if (how == GOTO)
        tell(",");
    mag_exit_stack_exit(&kept);
    mag_exit_stack_exit(&kept);
    async_return(2);
}

async(void, cancels_stack)
{
    return await_rc(spawn(stacks(NEVER, 3)), NULL);
}

Test(gen, an_exit_stack_undoes_in_reverse)
{
    RUN_ON_BOTH(stacks(END, 0), 0, ".mnafter");
    RUN_ON_BOTH(stacks(END, 3), 0, ".mn210after");
    RUN_ON_BOTH(stacks(END, 5), 0, ".mn43210after");
    RUN_ON_BOTH(stacks(END, 45), 0,
                ".mn432109876543210987654321098765432109876543210after");
    RUN_ON_BOTH(stacks(BREAK, 2), 0, "mn10after");
    RUN_ON_BOTH(stacks(GOTO, 2), 0, ".xafter,10");
    RUN_ON_BOTH(stacks(RETURN, 2), 0, "mn10");
    RUN_ON_BOTH(stacks(RAISE, 2), -EIO, "mn10");
    RUN_ON_BOTH(cancels_stack(), -ECANCELED, "mn210");
}

async(void, exits_cancelled)
{
    struct mag_exit_stack st;

    SHOULD(mag_exit_stack_enter(&st) == 0 && mag_exit_stack_push(&st, tells, "a") == 0);
    mag_cancel(mag_self());
    SHOULD(mag_yield() == -ECANCELED);
    mag_exit_stack_exit(&st);
    return 0;
}

Test(gen, an_exit_stack_is_shielded_by_itself)
{
    RUN_ON_BOTH(exits_cancelled(), 0, "a");
}

async(void, fills_stack)
{
    int rc = 0, n = 0;

    async_with(mag_exit_stack, st) {
        mag_mem_fail_nth(1, true);
        while (rc == 0 && n < 100)
            if ((rc = mag_exit_stack_push(st, tells, "x")) == 0)
                n++;
        mag_mem_fail_nth(0, false);
    }
    SHOULD(rc == -ENOMEM && n == 5);
    return 0;
}

Test(gen, an_exit_stack_without_memory_keeps_what_it_has)
{
    RUN_STORY(1, fills_stack(), 0, "xxxxx");
}
