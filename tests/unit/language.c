/* SPDX-License-Identifier: MIT */
/*
 * language.c - the blocks of <magpie/async.h>, each left in every way, and the words that
 * stand on groups, races and queues
 */
#include "keywords.h"

TestSuite(language, .timeout = 30);

enum way { END, CONTINUE, BREAK, RETURN, GOTO, RAISE, LATE, CAUGHT, STUCK };

/* ---- with_timeout, timeout_at ------------------------------------------------------ */

async(int, times, (enum way, how), (mag_time, limit))
{
    with_timeout (limit) {
        async_with(door, d, "a") {
            if (how == CAUGHT)
                SHOULD(await_rc(mag_sleep(MAG_MINUTE), NULL) == -ECANCELED);
        }
        if (how == CONTINUE)
            continue;
        if (how == BREAK)
            break;
        if (how == RETURN)
            async_return(1);
        if (how == GOTO)
            goto out;
        if (how == RAISE)
            await(-EIO);
        if (how == LATE)
            await(mag_sleep(MAG_MINUTE));
        tell(".");
    }
    /* nothing of the timeout is left */
    await(mag_sleep(3 * MAG_MS));
    tell("after");
    async_return(2);
out:
    await(mag_sleep(3 * MAG_MS));
    tell("out");
    async_return(3);
}

Test(language, a_timeout_ends_on_every_way_out)
{
    RUN_ON_BOTH(times(END, MAG_MINUTE), 0, "<>a.after");
    RUN_ON_BOTH(times(CONTINUE, MAG_MINUTE), 0, "<>aafter");
    RUN_ON_BOTH(times(BREAK, MAG_MINUTE), 0, "<>aafter");
    RUN_ON_BOTH(times(RETURN, MAG_MINUTE), 0, "<>a");
    RUN_ON_BOTH(times(GOTO, MAG_MINUTE), 0, "<>aout");
    RUN_ON_BOTH(times(RAISE, MAG_MINUTE), -EIO, "<>a");
    RUN_ON_BOTH(times(END, MAG_NEVER), 0, "<>a.after");
}

Test(language, a_timeout_that_fires_is_ETIMEDOUT)
{
    RUN_ON_BOTH(times(LATE, 5 * MAG_MS), -ETIMEDOUT, "<>a");
    RUN_ON_BOTH(times(CAUGHT, MAG_MS), 0, "<>a.after");
    RUN_ON_BOTH(times(END, -1), -EINVAL, "");
}

/* A plain function, in which the error arises, and one in which it is explained. */
static int sleeps_long(void)
{
    await(mag_sleep(MAG_MINUTE));
    return 0;
}

static int limited(mag_time limit)
{
    with_timeout (limit)
        await(sleeps_long());
    return 0;
}

async(void, nested_timeouts)
{
    /* the inner one fires */
    with_timeout (MAG_MINUTE)
        SHOULD(limited(MAG_MS) == -ETIMEDOUT);
    /* the outer one fires: the inner one has nothing to explain */
    with_timeout (MAG_MS) {
        SHOULD(limited(MAG_MINUTE) == -ECANCELED);
        /* and from now on nothing suspends */
        SHOULD(limited(MAG_MINUTE) == -ECANCELED);
        SHOULD(mag_sleep(0) == -ECANCELED || mag_yield() == -ECANCELED);
    }
    await(mag_sleep(MAG_MS));
    for (int i = 0; i < 3; i++) {
        if (i == 1) {
            with_timeout (MAG_MINUTE)
                continue;
        } else {
            timeout_at (mag_now() - 1)
                SHOULD(mag_yield() == -ECANCELED);
        }
        tell_number(i);
    }
    with_timeout (0.25 * MAG_SECOND)
        await(mag_yield());
    with_timeout (MAG_MINUTE)
        with_timeout (MAG_MINUTE)
            timeout_at (mag_now() + MAG_MS)
                await(number(1, MAG_MINUTE));
    return 0;
}

Test(language, timeouts_nest)
{
    RUN_ON_BOTH(nested_timeouts(), -ETIMEDOUT, "012");
}

async(void, both_fire)
{
    with_timeout (MAG_MS) {
        with_timeout (MAG_MS)
            (void)await_rc(mag_sleep(MAG_MINUTE), NULL);
        tell("caught");
        await(mag_sleep(MAG_MINUTE));
    }
    return 0;
}

Test(language, of_two_timeouts_that_fire_the_outer_one_goes_on)
{
    RUN_ON_BOTH(both_fire(), -ETIMEDOUT, "caught");
}

async(void, keeps_scope)
{
    struct mag_scope s;
    mag_time now = mag_now();
    int rc = 0;

    with_timeout (MAG_MINUTE, &s) {
        SHOULD(mag_scope_when(&s) >= now + MAG_MINUTE && !mag_scope_expired(&s));
        SHOULD(mag_scope_reschedule(&s, mag_now() + MAG_MS) == 0);
        rc = await_rc(mag_sleep(MAG_MINUTE), NULL);
    }
    SHOULD(rc == -ECANCELED && mag_scope_expired(&s));
    timeout_at (mag_now() + MAG_MINUTE, &s)
        SHOULD(mag_scope_cancel(&s) == 0 && mag_yield() == -ECANCELED);
    SHOULD(!mag_scope_expired(&s));
    return 0;
}

Test(language, a_timeout_can_be_asked_and_moved)
{
    RUN_ON_BOTH(keeps_scope(), 0, "");
}

async(void, in_time)
{
    with_timeout (MAG_MS) {
        mag_time until = mag_now() + 2 * MAG_MS;
        while (mag_now() < until) {
        }
        SHOULD(await(number(4, 0)) == 4 || true);
    }
    return 0;
}

async(void, result_stays)
{
    int rc = await_rc(in_time(), NULL);

    SHOULD(rc == 0 || rc == -ETIMEDOUT);
    with_timeout (MAG_MS) {
        mag_time until = mag_now() + 2 * MAG_MS;
        while (mag_now() < until) {
        }
        /* late, but nothing has suspended since */
    }
    return 0;
}

Test(language, a_block_that_does_not_suspend_is_never_late)
{
    RUN_ON_BOTH(result_stays(), 0, "");
}

static int outside_timeout(void)
{
    with_timeout (MAG_SECOND)
        tell("never");
    return 0;
}

static int outside_shield(void)
{
    with_shield (MAG_NEVER)
        tell("never");
    return 0;
}

static int outside_group(void)
{
    task_group (g)
        group_spawn(g, number(1, 0));
    return 0;
}

Test(language, blocks_of_tasks_are_refused_outside_a_task)
{
    story[0] = '\0';
    cr_assert_eq(outside_timeout(), -ENXIO);
    cr_assert_eq(outside_shield(), -ENXIO);
    cr_assert_eq(outside_group(), -ENXIO);
    cr_assert_str_empty(story);
}

/* The trace calls the error by its right name, and shows the block's function. */
async(void, trace_of_timeout)
{
    char text[1000] = "";
    FILE *to;

    SHOULD(await_rc(times(LATE, MAG_MS), NULL) == -ETIMEDOUT);
    to = fmemopen(text, sizeof text, "w");
    mag_trace_print(to);
    fclose(to);
    SHOULD(strncmp(text, "ETIMEDOUT", 9) == 0 && strstr(text, "in times"));
    return 0;
}

Test(language, a_timeout_leaves_a_trace)
{
    RUN_STORY(1, trace_of_timeout(), 0, "<>a");
}

/* ---- with_shield --------------------------------------------------------------------- */

async(int, shields, (enum way, how), (mag_time, grace), (bool, is_cancelled))
{
    with_shield (grace) {
        if (is_cancelled)
            mag_cancel(mag_self());
        tell(await_rc(mag_sleep(2 * MAG_MS), NULL) == 0 ? "slept" : "woken");
        if (how == CONTINUE)
            continue;
        if (how == BREAK)
            break;
        if (how == RETURN)
            async_return(1);
        if (how == GOTO)
            goto out;
        if (how == RAISE)
            await(-EIO);
        tell(".");
    }
    tell("after");
    await(mag_yield());
    tell("?");
    async_return(2);
out:
    tell("out");
    async_return(3);
}

Test(language, a_shield_keeps_cancellation_out)
{
    RUN_ON_BOTH(shields(END, MAG_NEVER, true), -ECANCELED, "slept.after");
    RUN_ON_BOTH(shields(CONTINUE, MAG_MINUTE, true), -ECANCELED, "sleptafter");
    RUN_ON_BOTH(shields(BREAK, MAG_MINUTE, true), -ECANCELED, "sleptafter");
    RUN_ON_BOTH(shields(RETURN, MAG_MINUTE, true), 0, "slept");
    RUN_ON_BOTH(shields(GOTO, MAG_MINUTE, true), 0, "sleptout");
    RUN_ON_BOTH(shields(RAISE, MAG_MINUTE, true), -EIO, "slept");
    RUN_ON_BOTH(shields(END, 0, true), -ECANCELED, "woken.after");
    RUN_ON_BOTH(shields(END, MAG_NEVER, false), 0, "slept.after?");
    RUN_ON_BOTH(shields(END, -1, false), -EINVAL, "");
}

async(void, shield_and_timeout)
{
    with_timeout (MAG_MS) {
        with_shield (MAG_NEVER) {
            await(mag_sleep(3 * MAG_MS));
            tell("done");
        }
        await(mag_sleep(MAG_MINUTE));
    }
    return 0;
}

Test(language, a_shield_keeps_a_deadline_out)
{
    RUN_ON_BOTH(shield_and_timeout(), -ETIMEDOUT, "done");
}

/* ---- async_with: the exit is shielded --------------------------------------------------- */

/* An exit that would take for ever. */
struct slow_door {
    char none;
};

static int slow_door_enter(struct slow_door *d)
{
    d->none = 0;
    return 0;
}

static void slow_door_exit(struct slow_door *d)
{
    (void)d;
    tell(mag_sleep(MAG_MINUTE) == -ECANCELED ? "grace" : "?");
}

async_resource(slow_door, .grace = MAG_MS)

async(void, cancels_in_doors)
{
    async_with(slow_door, s)
        async_with(door, d, "x") {
            mag_cancel(mag_self());
            await(mag_sleep(MAG_MINUTE));
        }
    return 0;
}

async(void, late_in_doors)
{
    with_timeout (MAG_MS)
        async_with(slow_door, s)
            async_with(door, d, "x")
                await(mag_sleep(MAG_MINUTE));
    return 0;
}

Test(language, cancellation_does_not_reach_an_exit)
{
    RUN_ON_BOTH(cancels_in_doors(), -ECANCELED, "<>xgrace");
    RUN_ON_BOTH(late_in_doors(), -ETIMEDOUT, "<>xgrace");
}

/* Outside a task async_with works as ever. */
static int opens_door(void)
{
    async_with(door, d, "o")
        tell(d->name);
    return 0;
}

Test(language, with_works_outside_a_task)
{
    story[0] = '\0';
    cr_assert_eq(opens_door(), 0);
    cr_assert_str_eq(story, "<o>o");
}

/* ---- task_group ------------------------------------------------------------------------- */

async(int, groups, (enum way, how))
{
    int v = 0;

    task_group (g) {
        group_spawn(g, number(5, how == CONTINUE ? MAG_MS : MAG_MINUTE), &v);
        if (how == CONTINUE)
            continue;
        group_spawn(g, patient("p"));
        await(patients(1));
        if (how == STUCK) {
            mag_cancel(mag_self());
            await(mag_sleep(MAG_MINUTE));
        }
        if (how == BREAK)
            break;
        if (how == RETURN)
            async_return(1);
        if (how == GOTO)
            goto out;
        if (how == RAISE)
            await(-EIO);
        if (how == LATE) { /* a child fails while the block waits */
            group_spawn(g, failing(-ENODEV, 0));
            await(mag_sleep(MAG_MINUTE));
        }
        tell(".");
        if (how == CAUGHT) /* a child fails while the end waits */
            group_spawn(g, failing(-EPERM, MAG_MS));
        else
            mag_group_cancel(g);
    }
    tell("after");
    tell_number(v);
    async_return(2);
out:
    tell("out");
    async_return(3);
}

Test(language, a_group_joins_or_cancels_on_every_way_out)
{
    RUN_ON_BOTH(groups(CONTINUE), 0, "after5");
    RUN_ON_BOTH(groups(BREAK), 0, "pafter0");
    RUN_ON_BOTH(groups(RETURN), 0, "p");
    RUN_ON_BOTH(groups(GOTO), 0, "pout");
    RUN_ON_BOTH(groups(RAISE), -EIO, "p");
    RUN_ON_BOTH(groups(END), 0, ".pafter0");
}

Test(language, a_groups_first_error_leaves_the_function)
{
    RUN_ON_BOTH(groups(LATE), -ENODEV, "p");
    RUN_ON_BOTH(groups(CAUGHT), -EPERM, ".p");
}

async(void, counts, (int *, n), (struct mag_group *, g), (int, depth))
{
    __atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
    await(mag_yield());
    if (depth > 0) {
        group_spawn(g, counts(n, g, depth - 1));
        group_spawn(g, counts(n, g, depth - 1));
    }
    return 0;
}

async(void, many_groups)
{
    struct mag_group_errors errors = { 0 };
    int n = 0, total = 0;

    task_group (g)
        group_spawn(g, counts(&n, g, 6));
    SHOULD(n == 127);
    for (int i = 0; i < 5; i++) {
        if (i == 3)
            continue;
        task_group (outer, .limit = 2) {
            task_group (inner) {
                for (int k = 0; k < 10; k++)
                    group_spawn(inner, counts(&total, inner, 0));
                if (i == 1)
                    break;
            }
            if (i == 2) {
                task_group (third)
                    group_spawn(third, counts(&total, third, 0));
            } else {
                tell_number(i);
            }
            for (int k = 0; k < 10; k++)
                group_spawn(outer, counts(&total, outer, 0));
        }
    }
    SHOULD(total >= 40 + 30 + 1 && total <= 40 + 40 + 1);
    task_group (empty)
        (void)empty;
    task_group (g, .errors = &errors) {
        group_spawn(g, failing(-EIO, 0));
        await(mag_sleep(MAG_MINUTE));
    }
    return 0;
}

Test(language, groups_nest_and_stand_in_loops)
{
    RUN_ON_BOTH(many_groups(), -EIO, "014");
}

async(void, group_tasks)
{
    struct number *kept;

    task_group (g) {
        struct number *a = group_task(g, number(1, MAG_MS)), *b = group_task(g, number(2, 0));
        kept = group_task(g, number(3, 0));
        (void)kept; /* nobody awaits it */
        SHOULD(await(a) + await(b) == 3);
        SHOULD(await(group_task(g, number(4, 0))) == 4);
    }
    task_group (g) {
        mag_group_cancel(g);
        group_spawn(g, number(1, 0)); /* refused, and so the function is left */
        tell("?");
    }
    return 0;
}

Test(language, group_task_is_a_handle)
{
    RUN_ON_BOTH(group_tasks(), -ECANCELED, "");
}

async(void, no_memory_for_a_child)
{
    struct number *none = NULL;

    task_group (g) {
        group_spawn(g, patient("p"));
        await(patients(1));
        group_spawn(g, none);
    }
    return 0;
}

Test(language, a_child_that_cannot_be_started_raises)
{
    RUN_ON_BOTH(no_memory_for_a_child(), -ENOMEM, "p");
}

async(void, group_and_timeout, (bool, group_inside))
{
    struct mag_scope s;

    if (group_inside) {
        with_timeout (MAG_MINUTE, &s) {
            task_group (g) {
                group_spawn(g, patient("in"));
                await(patients(1));
                await(mag_scope_reschedule(&s, mag_now() + 2 * MAG_MS));
            }
            tell("?");
        }
    } else {
        task_group (g) {
            group_spawn(g, patient("out"));
            await(patients(1));
            with_timeout (2 * MAG_MS)
                await(mag_sleep(MAG_MINUTE));
            tell("?");
        }
    }
    return 0;
}

Test(language, groups_and_timeouts_nest)
{
    RUN_ON_BOTH(group_and_timeout(true), -ETIMEDOUT, "in");
    RUN_ON_BOTH(group_and_timeout(false), -ETIMEDOUT, "out");
}

Test(language, a_cancelled_owner_waits_for_its_children)
{
    RUN_ON_BOTH(groups(STUCK), -ECANCELED, "p");
}

/* A plain function with a block. */
static int sum_of_three(int *sum)
{
    int v[3];

    task_group (g)
        for (int i = 0; i < 3; i++)
            group_spawn(g, number(i + 1, MAG_MS), &v[i]);
    *sum = v[0] + v[1] + v[2];
    return 0;
}

async(int, in_plain_function)
{
    int sum = 0;

    await(sum_of_three(&sum));
    SHOULD(sum == 6);
    async_return(sum);
}

Test(language, a_plain_function_may_have_blocks)
{
    RUN_ON_BOTH(in_plain_function(), 0, "");
}

/* ---- wait_for, as_completed, race -------------------------------------------------------- */

async(void, waits_for)
{
    int n = 0;
    struct number *t = spawn(number(3, MAG_MS));

    SHOULD(wait_for(number(7, 0), MAG_MINUTE, &n) == 0 && n == 7);
    SHOULD(wait_for(t, MAG_MINUTE, &n) == 0 && n == 3);
    SHOULD(wait_for(number(8, MAG_MINUTE), MAG_MS, &n) == -ETIMEDOUT && n == 3);
    SHOULD(wait_for(failing(-EIO, 0), MAG_MINUTE, NULL) == -EIO);
    SHOULD(wait_for(spawn(number(8, MAG_MINUTE)), MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(wait_for(mag_sleep_co(MAG_MS), MAG_MINUTE, NULL) == 0);
    await(wait_for(number(8, MAG_MINUTE), 0.001 * MAG_SECOND, &n));
    return 0;
}

Test(language, wait_for_has_a_limit)
{
    RUN_ON_BOTH(waits_for(), -ETIMEDOUT, "");
}

static int turn; /* by atomic builtins */

/* Ends, with its number, when it is its turn. */
async(int, in_turn, (int, n))
{
    while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) < n)
        await(mag_sleep(MAG_MS));
    async_return(n);
}

async(void, completes, (enum way, how))
{
    struct in_turn *tasks[] = { in_turn(3), in_turn(1), in_turn(2) };
    int n_left = 0;

    __atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
    async_for(struct in_turn *, done, as_completed(tasks, 3)) {
        int n = await(done);
        tell_number(n);
        __atomic_store_n(&turn, how == BREAK ? 3 : n + 1, __ATOMIC_SEQ_CST);
        if (how == BREAK)
            break;
    }
    if (how == BREAK) /* the others are still ours */
        for (int i = 0; i < 3; i++)
            if (i != 1)
                n_left += await(tasks[i]);
    SHOULD(n_left == (how == BREAK ? 5 : 0));
    async_for(struct in_turn *, none, as_completed(tasks, 0))
        tell("?");
    return 0;
}

Test(language, as_completed_gives_tasks_in_the_order_of_their_ends)
{
    RUN_ON_BOTH(completes(END), 0, "123");
    RUN_ON_BOTH(completes(BREAK), 0, "1");
}

async(void, completes_const)
{
    struct number *const tasks[] = { number(4, 0), NULL };

    async_for(struct number *, done, as_completed(tasks, 1))
        tell_number(await(done));
    async_for(struct number *, done, as_completed(&tasks[1], 1))
        tell(mag_err_name(await_rc(done, NULL)));
    return 0;
}

Test(language, as_completed_of_const_pointers)
{
    RUN_STORY(1, completes_const(), 0, "4ENOMEM");
}

async(int, waits_for_patient)
{
    await(patients(1));
    async_return(3);
}

async(void, races)
{
    int v = 0;
    size_t winner = race(&v, number(1, MAG_MINUTE), number(2, MAG_MS), failing(-EIO, 0));

    SHOULD(winner == 1 && v == 2);
    SHOULD(race(NULL, mag_sleep_co(MAG_MINUTE), mag_sleep_co(MAG_MS)) == 1);
    SHOULD(race(&v, spawn(number(9, 0))) == 0 && v == 9);
    SHOULD(race(&v, patient("p"), waits_for_patient()) == 1 && v == 3);
    struct failing *first = spawn(failing(-EIO, 0));
    while (!mag_done(first))
        await(mag_yield());
    race(&v, first, failing(-EPERM, MAG_MS));
    return 0;
}

Test(language, race_has_a_winner_or_an_error)
{
    RUN_ON_BOTH(races(), -EIO, "p");
}

/* ---- queues ------------------------------------------------------------------------------- */

struct job {
    int id;
    double weight;
};
async_queue(struct job, jobs);
async_queue(const char *, words);

async(void, produces, (struct jobs, q), (int, n))
{
    for (int i = 0; i < n; i++)
        queue_put(q, (struct job){ i, 0.5 });
    mag_queue_shutdown(q.queue, false);
    return 0;
}

async(int, consumes, (struct jobs, q))
{
    int n = 0;

    async_for(struct job, j, queue_items(q))
        n += j.id;
    async_return(n);
}

async(void, queues)
{
    struct jobs q = jobs(3, NULL);
    struct words w = words(2, &(struct mag_queue_options){ .order = MAG_LIFO, .name = "words" });
    const char *word = NULL;
    int r[3], rc = 0;
    struct job j = { 0 };

    SHOULD(q.queue && w.queue && strcmp(mag_queue_name(w.queue), "words") == 0);
    task_group (g) {
        group_spawn(g, produces(q, 100));
        group_spawn(g, consumes(q), &r[0]);
        group_spawn(g, consumes(q), &r[1]);
        group_spawn(g, consumes(q), &r[2]);
    }
    SHOULD(r[0] + r[1] + r[2] == 4950);
    SHOULD(queue_put_rc(q, (struct job){ 1, 2 }) == -EPIPE);
    SHOULD(queue_get_rc(q, &j) == -EPIPE && j.id == 0);

    queue_put(w, "first");
    SHOULD(queue_put_rc(w, "second") == 0);
    SHOULD(strcmp(queue_get(w), "second") == 0);
    SHOULD(queue_get_rc(w, &word) == 0 && strcmp(word, "first") == 0);
    with_timeout (MAG_MS)
        rc = queue_get_rc(w, NULL);
    SHOULD(rc == -ECANCELED);
    mag_queue_shutdown(w.queue, true);
    async_for(const char *, never, queue_items(w))
        tell(never);
    mag_queue_free(q.queue);
    mag_queue_free(w.queue);
    w = words(0, NULL);
    SHOULD(w.queue == NULL && queue_get_rc(w, &word) == -EINVAL);
    queue_put(w, "no queue");
    return 0;
}

Test(language, queues_have_types)
{
    RUN_ON_BOTH(queues(), -EINVAL, "");
}
