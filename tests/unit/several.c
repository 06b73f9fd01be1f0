/* SPDX-License-Identifier: MIT */
/* several.c - wait, as completed, race, callbacks, join: who gets what, and what is left */
#include "body.h"
#include "in_task.h"
#include "nth_cancel.h"
#include "task.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(several, .timeout = 60);

enum { MANY = 1000, DAY = 86400 };

static void *tasks[MANY];
static bool done[MANY];
static long results[MANY];

static int wait_for(size_t n, enum mag_wait_how how)
{
    return mag_wait(tasks, n, how, MAG_NEVER, done);
}

static void *sleeper(mag_time ns)
{
    return go(sleep_ns, arg_of(ns));
}

static void *held(void)
{
    return go(forever, NULL);
}

/* Cancels and awaits; whether that is how it ended. */
static int stopped(void *task)
{
    return mag_cancel(task) == 0 && await_co(task, NULL) == -ECANCELED;
}

static int ends_with(void *task, int expected)
{
    long v;

    return await_co(task, &v) == expected;
}

static int awaits(void *arg, long *value)
{
    return await_co(arg, value);
}

/* Until somebody waits for it: on a busy machine that takes its time. */
static int is_awaited(void *task)
{
    const struct mag_task *t = mag_task_of_frame(task);

    while (!mag_slot_is_waiter(mag_load_acquire(&t->work.slot)))
        if (mag_sleep(20 * MAG_US) < 0)
            return 0;
    return 1;
}

/* ---- wait ------------------------------------------------------------------------------ */

static int first_completed(void *arg, long *value)
{
    (void)arg, (void)value;
    tasks[0] = held();
    tasks[1] = sleeper(5 * MAG_MS);
    tasks[2] = held();
    SHOULD(wait_for(3, MAG_FIRST_COMPLETED) == 1);
    SHOULD(!done[0] && done[1] && !done[2]);
    SHOULD(!mag_done(tasks[0]) && mag_done(tasks[1]));
    SHOULD(ends_with(tasks[1], 0));
    SHOULD(stopped(tasks[0]) && stopped(tasks[2]));
    return 0;
}

Test(several, wait_for_the_first)
{
    RUN_1_AND_4(first_completed, NULL);
}

static int all_completed(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < MANY; i++)
        tasks[i] = i % 3 ? go(i % 2 ? same : same_later, arg_of(i)) : sleeper(i * MAG_US);
    SHOULD(wait_for(MANY, MAG_ALL_COMPLETED) == MANY);
    for (long i = 0; i < MANY; i++) {
        long v;
        SHOULD(done[i] && mag_done(tasks[i]));
        SHOULD(await_co(tasks[i], &v) == 0 && v == (i % 3 ? i : i * MAG_US));
    }
    return 0;
}

Test(several, wait_for_all)
{
    RUN_1_AND_4(all_completed, NULL);
}

static int fails_later(void *arg, long *value)
{
    (void)value;
    SHOULD(mag_sleep(5 * MAG_MS) == 0);
    return (int)num(arg);
}

/* The others have ended when it does. */
static int fails_after_two(void *arg, long *value)
{
    void **two = arg;

    (void)value;
    while (!mag_done(two[0]) || !mag_done(two[1]))
        SHOULD(mag_sleep(100 * MAG_US) == 0);
    SHOULD(mag_sleep(5 * MAG_MS) == 0);
    return -EIO;
}

static int first_exception(void *arg, long *value)
{
    (void)arg, (void)value;
    tasks[0] = held();
    tasks[1] = go(same, NULL);
    tasks[2] = held();
    tasks[3] = go(fails_after_two, &tasks[1]);
    SHOULD(mag_cancel(tasks[2]) == 0); /* is no failure */
    SHOULD(wait_for(4, MAG_FIRST_EXCEPTION) == 3);
    SHOULD(!done[0] && done[1] && done[2] && done[3]);
    SHOULD(ends_with(tasks[1], 0) && ends_with(tasks[2], -ECANCELED) && ends_with(tasks[3], -EIO));
    tasks[1] = sleeper(5 * MAG_MS);
    SHOULD(mag_cancel(tasks[0]) == 0);
    SHOULD(wait_for(2, MAG_FIRST_EXCEPTION) == 2);
    SHOULD(ends_with(tasks[0], -ECANCELED) && ends_with(tasks[1], 0));
    return 0;
}

Test(several, wait_for_the_first_failure)
{
    RUN_1_AND_4(first_exception, NULL);
}

/* Also those that had failed before. */
static int ended_before(void *arg, long *value)
{
    (void)arg, (void)value;
    tasks[0] = held();
    tasks[1] = go(fails_with, arg_of(-EIO));
    SHOULD(settle_down() == 0);
    SHOULD(wait_for(2, MAG_FIRST_EXCEPTION) == 1 && done[1]);
    SHOULD(wait_for(2, MAG_FIRST_COMPLETED) == 1 && done[1]);
    SHOULD(mag_wait(tasks, 2, MAG_ALL_COMPLETED, MAG_MS, done) == 1 && done[1]);
    SHOULD(ends_with(tasks[1], -EIO) && stopped(tasks[0]));
    return 0;
}

Test(several, wait_for_what_has_ended_already)
{
    RUN_1_AND_4(ended_before, NULL);
}

static int timeouts(void *arg, long *value)
{
    mag_time begun = mag_now();
    int n;

    (void)arg, (void)value;
    tasks[0] = held();
    tasks[1] = go(same, arg_of(1));
    tasks[2] = sleeper(10 * MAG_MS);
    SHOULD(mag_wait(tasks, 1, MAG_ALL_COMPLETED, 0, done) == 0 && !done[0]);
    while (!mag_done(tasks[1]))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_wait(tasks, 2, MAG_ALL_COMPLETED, 5 * MAG_MS, done) == 1);
    SHOULD(mag_now() - begun >= 5 * MAG_MS && done[1]);
    while ((n = mag_wait(tasks, 3, MAG_ALL_COMPLETED, 50 * MAG_MS, done)) == 1)
        SHOULD(!done[2]); /* its worker is busy */
    SHOULD(n == 2 && done[2]);
    SHOULD(mag_wait(tasks, 3, MAG_ALL_COMPLETED, 0, NULL) == 2);
    SHOULD(!mag_done(tasks[0]));
    SHOULD(mag_sleep(1) == 0); /* the limit is no longer there */
    SHOULD(ends_with(tasks[1], 0) && ends_with(tasks[2], 0) && stopped(tasks[0]));
    return 0;
}

Test(several, wait_with_a_timeout)
{
    RUN_1_AND_4(timeouts, NULL);
}

static int gaps(void *arg, long *value)
{
    (void)arg, (void)value;
    memset(tasks, 0, sizeof tasks);
    memset(done, 1, sizeof done);
    SHOULD(wait_for(3, MAG_ALL_COMPLETED) == 0 && !done[0] && !done[2]);
    SHOULD(wait_for(3, MAG_FIRST_COMPLETED) == 0);
    tasks[1] = tasks[4] = sleeper(MAG_MS); /* twice */
    SHOULD(wait_for(5, MAG_ALL_COMPLETED) == 2);
    SHOULD(!done[0] && done[1] && done[4]);
    SHOULD(ends_with(tasks[1], 0));
    return 0;
}

Test(several, wait_with_gaps_and_one_twice)
{
    RUN_1_AND_4(gaps, NULL);
}

static int which_task(void *arg, long *value)
{
    (void)arg;
    *value = (long)(uintptr_t)mag_self();
    return mag_yield();
}

static int coroutines(void *arg, long *value)
{
    long v;

    (void)arg, (void)value;
    tasks[0] = co(which_task, NULL);
    tasks[1] = mag_sleep_co(MAG_MS);
    SHOULD(wait_for(2, MAG_ALL_COMPLETED) == 2);
    SHOULD(strcmp(mag_kind_name(tasks[0]), "task") == 0);
    SHOULD(await_co(tasks[0], &v) == 0 && v == (long)(uintptr_t)tasks[0]);
    SHOULD(mag_await(tasks[1], NULL, 0) == 0);
    return 0;
}

Test(several, wait_starts_coroutines)
{
    RUN_1_AND_4(coroutines, NULL);
}

static int futures(void *arg, long *value)
{
    long v;

    (void)arg, (void)value;
    tasks[0] = future();
    tasks[1] = future();
    SHOULD(set(tasks[1], 5) == 0);
    SHOULD(wait_for(2, MAG_FIRST_COMPLETED) == 1 && done[1]);
    SHOULD(mag_future_fail(tasks[0], -EIO) == 0);
    SHOULD(wait_for(2, MAG_ALL_COMPLETED) == 2);
    SHOULD(ends_with(tasks[0], -EIO) && await_co(tasks[1], &v) == 0 && v == 5);
    return 0;
}

Test(several, wait_for_futures)
{
    RUN_1_AND_4(futures, NULL);
}

static int mistakes(void *arg, long *value)
{
    struct co *awaiter;

    (void)arg, (void)value;
    tasks[0] = held();
    tasks[1] = held();
    SHOULD(mag_wait(tasks, 0, MAG_ALL_COMPLETED, MAG_NEVER, NULL) == -EINVAL);
    SHOULD(mag_wait(tasks, 1, MAG_ALL_COMPLETED, -1, NULL) == -EINVAL);
    SHOULD(mag_wait(tasks, 1, (enum mag_wait_how)3, MAG_NEVER, NULL) == -EINVAL);
    SHOULD(mag_wait(tasks, 1, (enum mag_wait_how) - 1, MAG_NEVER, NULL) == -EINVAL);
    awaiter = go(awaits, tasks[1]);
    SHOULD(is_awaited(tasks[1]));
    SHOULD(wait_for(2, MAG_FIRST_COMPLETED) == -EALREADY);
    tasks[2] = mag_self();
    SHOULD(wait_for(3, MAG_FIRST_COMPLETED) == -EDEADLK);
    SHOULD(stopped(tasks[0])); /* has been given back */
    SHOULD(wait_for(1, MAG_FIRST_COMPLETED) == -EALREADY);
    SHOULD(stopped(awaiter));
    return 0;
}

Test(several, wait_refuses_mistakes)
{
    RUN_1_AND_4(mistakes, NULL);
}

static int waits_for_two(void *arg, long *value)
{
    *value = 0;
    return mag_wait(arg, 2, MAG_FIRST_COMPLETED, MAG_NEVER, NULL);
}

static int cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 30; i++) {
        struct co *waiter;
        tasks[0] = held();
        tasks[1] = future();
        waiter = go(waits_for_two, tasks);
        if (i % 3)
            SHOULD(mag_sleep(i % 3 * 30 * MAG_US) == 0);
        SHOULD(stopped(waiter));
        SHOULD(!mag_done(tasks[0]) && !mag_done(tasks[1]));
        SHOULD(stopped(tasks[0]));
        SHOULD(set(tasks[1], 1) == 0 && ends_with(tasks[1], 0));
    }
    return 0;
}

Test(several, a_cancelled_wait_leaves_the_tasks_alone)
{
    RUN_1_AND_4(cancelled, NULL);
}

static int under_deadline(void *arg, long *value)
{
    struct mag_scope s;
    int rc;

    (void)arg, (void)value;
    tasks[0] = held();
    SHOULD(mag_scope_enter(&s, mag_now() + 5 * MAG_MS, NULL) == 0);
    rc = wait_for(1, MAG_ALL_COMPLETED);
    SHOULD(rc == -ECANCELED && mag_scope_leave(&s, rc) == -ETIMEDOUT);
    SHOULD(mag_scope_enter(&s, mag_now() + 5 * MAG_MS, NULL) == 0);
    rc = mag_wait(tasks, 1, MAG_ALL_COMPLETED, DAY * MAG_SECOND, NULL);
    SHOULD(rc == -ECANCELED && mag_scope_leave(&s, rc) == -ETIMEDOUT);
    SHOULD(mag_scope_enter(&s, mag_now() + DAY * MAG_SECOND, NULL) == 0);
    rc = mag_wait(tasks, 1, MAG_ALL_COMPLETED, 5 * MAG_MS, NULL);
    SHOULD(rc == 0 && mag_scope_leave(&s, rc) == 0);
    SHOULD(stopped(tasks[0]));
    return 0;
}

Test(several, a_deadline_around_a_wait)
{
    RUN_1_AND_4(under_deadline, NULL);
}

/* What has arrived is told, though the caller is cancelled. */
static int waits_when_cancelled(void *arg, long *value)
{
    void *t[2] = { sleeper(MAG_MS), held() };

    (void)arg, (void)value;
    while (!mag_done(t[0]))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_cancel(mag_self()) == 0);
    SHOULD(mag_wait(t, 2, MAG_FIRST_COMPLETED, MAG_NEVER, done) == 1 && done[0]);
    SHOULD(mag_wait(t, 2, MAG_ALL_COMPLETED, MAG_NEVER, done) == -ECANCELED);
    SHOULD(ends_with(t[0], 0) && stopped(t[1]));
    return 0;
}

static int result_wins(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(ends_with(go(waits_when_cancelled, NULL), 0));
    return 0;
}

Test(several, a_result_wins_over_a_cancel)
{
    RUN_1_AND_4(result_wins, NULL);
}

/* Many wait, each for the same number of its own, on whichever worker. */
static int waits_for_its_own(void *arg, long *value)
{
    void *mine[10];
    bool over[10];
    int left = 10;

    (void)arg;
    for (int i = 0; i < 10; i++)
        mine[i] = go(i % 2 ? same_later : sleep_ns, arg_of(i * 10000));
    for (*value = 0; left > 0;) {
        SHOULD(mag_wait(mine, 10, MAG_FIRST_COMPLETED, MAG_NEVER, over) > 0);
        for (int i = 0; i < 10; i++) {
            long v;
            if (!over[i])
                continue;
            SHOULD(await_co(mine[i], &v) == 0 && v == i * 10000);
            *value += i;
            mine[i] = NULL;
            left--;
        }
    }
    return 0;
}

static int many_wait(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 200; i++)
        tasks[i] = co(waits_for_its_own, NULL);
    SHOULD(mag_gather(results, sizeof *results, tasks, 200, NULL) == 0);
    for (int i = 0; i < 200; i++)
        SHOULD(results[i] == 45);
    return 0;
}

Test(several, many_wait_at_once)
{
    RUN_1_AND_4(many_wait, NULL);
}

/* ---- as completed ------------------------------------------------------------------------- */

static int in_the_order_of_ends(void *arg, long *value)
{
    static const int order[] = { 1, 2, 0 };
    bool is_alone = mag_rt_workers(mag_rt_self()) == 1;
    struct mag_completed c;
    void *futures[3], *task;
    long v;

    (void)arg, (void)value;
    for (int i = 0; i < 3; i++)
        tasks[i] = co(awaits, futures[i] = future());
    SHOULD(mag_completed_begin(&c, tasks, 3) == 0);
    for (int i = 0; i < 3 && is_alone; i++) {
        SHOULD(set(futures[order[i]], order[i]) == 0);
        while (!mag_done(tasks[order[i]]))
            SHOULD(mag_yield() == 0);
    }
    for (int i = 0; i < 3; i++) {
        /* another worker may have ended one, and not told it, when a third ends the next */
        SHOULD(is_alone || set(futures[order[i]], order[i]) == 0);
        SHOULD(mag_completed_next(&c, &task) == 1 && task == tasks[order[i]]);
        SHOULD(await_co(task, &v) == 0 && v == order[i]);
    }
    SHOULD(mag_completed_next(&c, &task) == 0);
    SHOULD(mag_completed_next(&c, &task) == 0);
    mag_completed_end(&c);
    return 0;
}

Test(several, as_they_complete)
{
    RUN_1_AND_4(in_the_order_of_ends, NULL);
}

static int those_that_had_ended(void *arg, long *value)
{
    struct mag_completed c;
    void *task;

    (void)arg, (void)value;
    for (int i = 0; i < 20; i++)
        tasks[i] = i == 3 ? NULL : i == 5 ? held() : go(i % 2 ? same : fails_with, arg_of(-i));
    for (int i = 0; i < 20; i++)
        while (i != 3 && i != 5 && !mag_done(tasks[i]))
            SHOULD(mag_yield() == 0);
    SHOULD(mag_completed_begin(&c, tasks, 20) == 0);
    for (int i = 0; i < 20; i++) {
        if (i == 5)
            continue;
        SHOULD(mag_completed_next(&c, &task) == 1 && task == tasks[i]);
        SHOULD(ends_with(task, i == 3 ? -ENOMEM : i % 2 ? 0 : -i));
    }
    SHOULD(mag_cancel(tasks[5]) == 0);
    SHOULD(mag_completed_next(&c, &task) == 1 && task == tasks[5]);
    SHOULD(mag_completed_next(&c, &task) == 0);
    mag_completed_end(&c);
    SHOULD(ends_with(tasks[5], -ECANCELED));
    return 0;
}

Test(several, completed_before_come_first_in_order)
{
    RUN_1_AND_4(those_that_had_ended, NULL);
}

static int left_early(void *arg, long *value)
{
    struct mag_completed c, moved;
    void *task;

    (void)arg, (void)value;
    tasks[0] = held();
    tasks[1] = sleeper(MAG_MS);
    tasks[2] = future();
    tasks[3] = sleeper(MAG_MS);
    SHOULD(mag_completed_begin(&c, tasks, 4) == 0);
    SHOULD(await_co(tasks[0], NULL) == -EALREADY); /* for the time being */
    moved = c;
    SHOULD(mag_completed_next(&moved, &task) == 1);
    SHOULD(task == tasks[1] || task == tasks[3]);
    SHOULD(ends_with(task, 0));
    mag_completed_end(&moved);
    SHOULD(ends_with(task == tasks[1] ? tasks[3] : tasks[1], 0));
    SHOULD(stopped(tasks[0]));
    SHOULD(set(tasks[2], 1) == 0 && ends_with(tasks[2], 0));
    return 0;
}

Test(several, completed_may_be_left_early)
{
    RUN_1_AND_4(left_early, NULL);
}

static int nothing_to_complete(void *arg, long *value)
{
    struct mag_completed c = { { 0 } };
    void *task = &c;
    int rc, n = 0;

    (void)arg, (void)value;
    mag_completed_end(&c);
    SHOULD(mag_completed_begin(&c, NULL, 0) == 0);
    SHOULD(mag_completed_next(&c, &task) == 0 && task == (void *)&c);
    mag_completed_end(&c);
    tasks[0] = held();
    tasks[1] = held();
    tasks[2] = tasks[0];
    SHOULD(mag_completed_begin(&c, tasks, 3) == -EALREADY);
    SHOULD(mag_completed_next(&c, &task) == -EALREADY);
    mag_completed_end(&c);
    do { /* the fault may be another thread's: then again */
        mag_completed_end(&c);
        mag_mem_fail_nth(1, false);
        rc = mag_completed_begin(&c, tasks, 2);
        mag_mem_fail_nth(0, false);
    } while (rc == 0 && ++n < 100);
    SHOULD(rc == -ENOMEM);
    SHOULD(mag_completed_next(&c, &task) == -ENOMEM);
    mag_completed_end(&c);
    tasks[2] = mag_self();
    SHOULD(mag_completed_begin(&c, tasks, 3) == -EDEADLK);
    SHOULD(stopped(tasks[0]) && stopped(tasks[1]));
    SHOULD(mag_completed_begin(&c, tasks, 1) == -EALREADY);
    return 0;
}

static int takes_one(void *arg, long *value)
{
    void *task;

    *value = 0;
    return mag_completed_next(arg, &task);
}

static int next_cancelled(void *arg, long *value)
{
    struct mag_completed c;
    void *task;

    (void)arg, (void)value;
    tasks[0] = future();
    SHOULD(mag_completed_begin(&c, tasks, 1) == 0);
    for (int i = 0; i < 20; i++) {
        struct co *taker = go(takes_one, &c);
        SHOULD(mag_sleep(i * 10 * MAG_US) == 0);
        SHOULD(stopped(taker));
    }
    SHOULD(set(tasks[0], 4) == 0);
    SHOULD(mag_completed_next(&c, &task) == 1 && task == tasks[0]);
    mag_completed_end(&c);
    SHOULD(ends_with(task, 0));
    return 0;
}

Test(several, a_cancelled_next_loses_nothing)
{
    RUN_1_AND_4(next_cancelled, NULL);
}

/* ---- race ------------------------------------------------------------------------------------ */

static int race(size_t n, long *value, size_t *winner)
{
    return mag_race(value, sizeof *value, tasks, n, winner);
}

static int all_taken(size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tasks[i])
            return 0;
    return 1;
}

static int n_begun, n_cancelled; /* bodies that did, that saw it */

/* Until so many have. */
static int have_begun(int n)
{
    while (mag_load_acquire(&n_begun) < n)
        if (mag_sleep(20 * MAG_US) < 0)
            return 0;
    return 1;
}

static int notes_cancel(void *arg, long *value)
{
    int rc;

    mag_fetch_add(&n_begun, 1);
    rc = mag_sleep(MAG_NEVER);
    (void)arg, (void)value;
    mag_fetch_add(&n_cancelled, rc == -ECANCELED);
    return rc;
}

static int first_well(void *arg, long *value)
{
    size_t winner = 99;
    void *f = future();
    long v = 0;

    (void)arg, (void)value;
    n_begun = n_cancelled = 0;
    tasks[0] = go(notes_cancel, NULL);
    tasks[5] = go(notes_cancel, NULL);
    SHOULD(have_begun(2));
    tasks[1] = co(fails_with, arg_of(-EIO));
    tasks[2] = co(sleep_ns, arg_of(3 * MAG_MS));
    tasks[3] = f;
    tasks[4] = NULL;
    SHOULD(race(6, &v, &winner) == 0 && winner == 2 && v == 3 * MAG_MS);
    SHOULD(all_taken(6));
    SHOULD(n_cancelled == 2);
    SHOULD(set(f, 1) == 0); /* the setter's to free */
    return 0;
}

Test(several, race_the_first_that_ends_well_wins)
{
    RUN_1_AND_4(first_well, NULL);
}

static int counts(void *arg, long *value)
{
    *value = 8;
    return (int)num(arg);
}

static int nobody_wins(void *arg, long *value)
{
    bool is_alone = mag_rt_workers(mag_rt_self()) == 1;
    size_t winner = 99;
    long v = 7;
    int rc;

    (void)arg, (void)value;
    tasks[0] = co(fails_later, arg_of(-ENOSPC));
    tasks[1] = co(fails_with, arg_of(-EIO));
    rc = race(2, &v, &winner); /* which fails first, if another worker is to run one of them? */
    SHOULD((rc == -EIO || (rc == -ENOSPC && !is_alone)) && winner == 2 && v == 7 && all_taken(2));
    tasks[0] = NULL;
    SHOULD(race(1, &v, NULL) == -ENOMEM);
    tasks[0] = co(counts, arg_of(5));
    SHOULD(race(1, &v, &winner) == 5 && winner == 0 && v == 8);
    tasks[0] = go(same_later, arg_of(5));
    SHOULD(mag_race(NULL, 0, tasks, 1, NULL) == 0 && all_taken(1));
    SHOULD(race(0, &v, &winner) == -EINVAL && winner == 0);
    return 0;
}

Test(several, race_that_nobody_wins)
{
    RUN_1_AND_4(nobody_wins, NULL);
}

static int race_mistakes(void *arg, long *value)
{
    struct co *awaiter;
    void *other;
    size_t winner = 99;
    long v;
    int small;

    (void)arg, (void)value;
    tasks[0] = co(same, arg_of(1));
    tasks[1] = held();
    SHOULD(mag_race(&small, sizeof small, tasks, 2, NULL) == -EINVAL && all_taken(2));
    other = tasks[0] = held();
    awaiter = go(awaits, other);
    tasks[1] = sleeper(MAG_MS);
    SHOULD(is_awaited(other));
    SHOULD(race(2, &v, &winner) == 0 && winner == 1);
    tasks[0] = other;
    tasks[1] = mag_self();
    SHOULD(race(2, &v, &winner) == -EALREADY && winner == 2);
    SHOULD(!mag_done(other) && stopped(awaiter));
    return 0;
}

Test(several, race_with_mistakes)
{
    RUN_1_AND_4(race_mistakes, NULL);
}

static int n_ran;

static int runs(void *arg, long *value)
{
    mag_fetch_add(&n_ran, 1);
    return same(arg, value);
}

static int won_before(void *arg, long *value)
{
    size_t winner;
    long v;

    (void)arg, (void)value;
    n_ran = 0;
    tasks[0] = go(runs, arg_of(4));
    while (!mag_done(tasks[0]))
        SHOULD(mag_yield() == 0);
    tasks[1] = co(runs, NULL);
    tasks[2] = held();
    tasks[3] = mag_sleep_co(MAG_NEVER);
    SHOULD(mag_race(&v, sizeof v, tasks, 3, &winner) == 0 && winner == 0 && v == 4);
    SHOULD(mag_close(tasks[3]) == 0);
    SHOULD(n_ran == 1);
    return 0;
}

Test(several, race_that_was_won_before)
{
    RUN_1_AND_4(won_before, NULL);
}

static int races(void *arg, long *value)
{
    void *mine[3] = { co(notes_cancel, NULL), co(notes_cancel, NULL), arg };

    return mag_race(value, sizeof *value, mine, 3, NULL);
}

static int race_cancelled(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 30; i++) {
        void *f = future();
        struct co *racer;
        n_begun = n_cancelled = 0;
        racer = go(races, f);
        SHOULD(have_begun(2));
        SHOULD(stopped(racer));
        SHOULD(n_cancelled == 2);
        SHOULD(set(f, 1) == 0);
    }
    return 0;
}

Test(several, a_cancelled_race_cancels_all)
{
    RUN_1_AND_4(race_cancelled, NULL);
}

/* Ends well although cancelled. */
static int stubborn(void *arg, long *value)
{
    mag_fetch_add(&n_begun, 1);
    (void)mag_sleep(MAG_NEVER);
    return same(arg, value);
}

static int races_stubborn(void *arg, long *value)
{
    void *mine[2] = { co(notes_cancel, NULL), co(stubborn, arg) };

    return mag_race(value, sizeof *value, mine, 2, NULL);
}

static int stubborn_wins(void *arg, long *value)
{
    struct co *racer;
    long v;

    (void)arg, (void)value;
    n_begun = 0;
    racer = go(races_stubborn, arg_of(6));
    SHOULD(have_begun(2));
    SHOULD(mag_cancel(racer) == 0);
    SHOULD(await_co(racer, &v) == 0 && v == 6);
    return 0;
}

Test(several, a_cancelled_race_keeps_a_result)
{
    RUN_1_AND_4(stubborn_wins, NULL);
}

static int races_some(void *arg, long *value)
{
    void *mine[4] = { go(sleep_ns, arg_of(30 * MAG_US)), co(same_later, arg_of(2)),
                      mag_sleep_co(MAG_NEVER), NULL };
    int rc;

    *value = 0;
    nth_point();
    rc = mag_race(NULL, 0, mine, 4, NULL);
    *(int *)arg = mine[0] || mine[1] || mine[2];
    nth_point();
    return rc < 0 ? rc : mag_yield();
}

static int race_is_over(void *arg, int rc)
{
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(*(int *)arg == 0);
    return 0;
}

static int race_nth(void *arg, long *value)
{
    int left = 0;

    (void)arg, (void)value;
    return nth_cancel(races_some, &left, race_is_over);
}

Test(several, a_race_cancelled_at_each_suspension)
{
    RUN_1_AND_4(race_nth, NULL);
}

/* Two that end well at the same instant: one wins, and its own value is there. */
static int race_photo_finish(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 200; i++) {
        size_t winner;
        long v = -1;
        for (long k = 0; k < 4; k++)
            tasks[k] = co(k % 2 ? same_later : sleep_ns, arg_of(k));
        SHOULD(race(4, &v, &winner) == 0 && winner < 4 && v == (long)winner);
    }
    return 0;
}

Test(several, a_race_with_a_photo_finish)
{
    RUN_1_AND_4(race_photo_finish, NULL);
}

/* ---- callbacks ---------------------------------------------------------------------------------- */

static struct {
    mag_atomic(uint32_t) n_calls;
    long sum;
    int rc;
    bool was_in_task;
} seen;

static void note(void *arg, int rc, const void *result)
{
    seen.rc = rc;
    seen.was_in_task = mag_self() != NULL;
    seen.sum += num(arg) + (result ? *(const long *)result : 0);
    mag_fetch_add(&seen.n_calls, 1);
}

static int called(uint32_t n)
{
    for (int i = 0; i < 20000 && mag_load_acquire(&seen.n_calls) < n; i++)
        if (mag_sleep(MAG_MS) < 0)
            return 0;
    return mag_load_acquire(&seen.n_calls) == n && !seen.was_in_task;
}

static int callbacks(void *arg, long *value)
{
    void *f = future(), *gate, *t;

    (void)arg, (void)value;
    memset(&seen, 0, sizeof seen);
    gate = future(); /* it must not end, and be freed, before it is looked at */
    t = go(awaits, gate);
    SHOULD(mag_on_done(t, note, arg_of(5)) == 0);
    SHOULD(await_co(t, NULL) == -EALREADY); /* the handle is given away */
    SHOULD(set(gate, MAG_MS) == 0);
    SHOULD(called(1) && seen.rc == 0 && seen.sum == 5 + MAG_MS);
    SHOULD(mag_on_done(co(fails_with, arg_of(-EIO)), note, arg_of(5)) == 0);
    SHOULD(called(2) && seen.rc == -EIO && seen.sum == 10 + MAG_MS);
    SHOULD(mag_on_done(f, note, NULL) == 0);
    SHOULD(seen.n_calls == 2);
    SHOULD(set(f, -MAG_MS) == 0);
    SHOULD(called(3) && seen.sum == 10);
    t = go(same, arg_of(1));
    while (!mag_done(t))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_on_done(t, note, NULL) == 0);
    SHOULD(seen.n_calls == 4 && seen.sum == 11); /* at once */
    SHOULD(mag_on_done(mag_sleep_co(0), note, NULL) == 0);
    SHOULD(called(5) && mag_self() != NULL);
    return 0;
}

Test(several, callbacks_are_called_once)
{
    RUN_1_AND_4(callbacks, NULL);
}

static int callback_mistakes(void *arg, long *value)
{
    struct co *awaiter;
    void *t;

    (void)arg, (void)value;
    memset(&seen, 0, sizeof seen);
    n_begun = 0;
    t = go(notes_cancel, NULL);
    SHOULD(have_begun(1)); /* else its worker may be in want of memory now */
    SHOULD(mag_on_done(NULL, note, NULL) == -ENOMEM);
    SHOULD(mag_on_done(t, NULL, NULL) == -EINVAL);
    mag_mem_fail_nth(1, true); /* whoever else asks */
    SHOULD(mag_on_done(t, note, NULL) == -ENOMEM);
    mag_mem_fail_nth(0, false);
    SHOULD(mag_on_done(mag_self(), note, NULL) == -EDEADLK);
    awaiter = go(awaits, t);
    SHOULD(is_awaited(t));
    SHOULD(mag_on_done(t, note, NULL) == -EALREADY);
    SHOULD(stopped(awaiter));
    SHOULD(mag_on_done(t, note, NULL) == -EALREADY);
    SHOULD(seen.n_calls == 0);
    return 0;
}

Test(several, callbacks_with_mistakes)
{
    RUN_1_AND_4(callback_mistakes, NULL);
}

/* What it spawns runs, and what it sets wakes. */
static void spawns_and_sets(void *arg, int rc, const void *result)
{
    struct co *c = go(same_later, NULL);

    (void)rc, (void)result;
    if (c)
        mag_detach(c);
    set(arg, 3);
}

static int busy_callback(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 100; i++) {
        void *f = future();
        long v;
        SHOULD(mag_on_done(go(same_later, NULL), spawns_and_sets, f) == 0);
        SHOULD(await_co(f, &v) == 0 && v == 3);
    }
    return 0;
}

Test(several, callbacks_may_spawn_and_set)
{
    RUN_1_AND_4(busy_callback, NULL);
}

static struct mag_var colour = { "colour", "red" };
static int rcs_in_callback[5];
static const void *colour_in_callback;

static void tries_to_suspend(void *arg, int rc, const void *result)
{
    void *t[1] = { arg };

    (void)rc, (void)result;
    rcs_in_callback[0] = mag_sleep(MAG_MS);
    rcs_in_callback[1] = mag_wait(t, 1, MAG_ALL_COMPLETED, MAG_NEVER, NULL);
    rcs_in_callback[2] = mag_race(NULL, 0, t, 1, NULL);
    rcs_in_callback[3] = mag_join_task(arg, MAG_MS, NULL, 0);
    colour_in_callback = mag_var_get(&colour);
    rcs_in_callback[4] = mag_var_set(&colour, "green");
    mag_fetch_add(&seen.n_calls, 1);
}

static int callback_on_a_worker(void *arg, long *value)
{
    void *t = held();

    (void)arg, (void)value;
    memset(&seen, 0, sizeof seen);
    SHOULD(mag_var_set(&colour, "blue") == 0);
    SHOULD(mag_on_done(go(same, NULL), tries_to_suspend, t) == 0);
    SHOULD(mag_var_set(&colour, "black") == 0);
    SHOULD(called(1));
    for (int i = 0; i < 4; i++)
        SHOULD(rcs_in_callback[i] == -ENXIO);
    SHOULD(rcs_in_callback[4] == 0 && strcmp(colour_in_callback, "blue") == 0);
    SHOULD(strcmp(mag_var_get(&colour), "black") == 0);
    SHOULD(stopped(t));
    return 0;
}

Test(several, callbacks_do_not_suspend_and_have_their_variables)
{
    RUN_1_AND_4(callback_on_a_worker, NULL);
}

/* The runtime waits for a task that was given to a callback. */
static int leaves_one(void *arg, long *value)
{
    (void)arg, (void)value;
    memset(&seen, 0, sizeof seen);
    return mag_on_done(sleeper(5 * MAG_MS), note, NULL);
}

Test(several, a_callback_comes_before_the_runtime_ends)
{
    RUN(1, leaves_one, NULL);
    cr_assert_eq(seen.n_calls, 1);
    RUN(4, leaves_one, NULL);
    cr_assert(seen.n_calls == 1 && seen.rc == 0);
}

/* ---- threads outside ---------------------------------------------------------------------------- */

static void *set_soon(void *arg)
{
    usleep(5000);
    set(arg, 8);
    return NULL;
}

static int outside_wait(struct mag_rt *rt)
{
    struct mag_completed c;
    pthread_t thread;
    void *task;
    long v;

    tasks[0] = co(sleep_ns, arg_of(5 * MAG_MS));
    tasks[1] = co(forever, NULL);
    SHOULD(wait_for(2, MAG_FIRST_COMPLETED) == -ENXIO);
    SHOULD(mag_completed_begin(&c, tasks, 2) == -ENXIO);
    SHOULD(mag_on_done(tasks[0], note, NULL) == -ENXIO);
    SHOULD(mag_join_task(tasks[0], 0, &v, sizeof v) == -ENXIO);
    SHOULD(mag_submit(rt, tasks[0], NULL) == 0 && mag_submit(rt, tasks[1], NULL) == 0);
    SHOULD(wait_for(2, MAG_FIRST_COMPLETED) == 1 && done[0]);
    SHOULD(mag_wait(tasks, 2, MAG_ALL_COMPLETED, 3 * MAG_MS, done) == 1);
    tasks[2] = future();
    SHOULD(pthread_create(&thread, NULL, set_soon, tasks[2]) == 0);
    SHOULD(mag_completed_begin(&c, tasks, 3) == 0);
    SHOULD(mag_completed_next(&c, &task) == 1 && task == tasks[0] && ends_with(task, 0));
    SHOULD(mag_completed_next(&c, &task) == 1 && task == tasks[2] && ends_with(task, 0));
    SHOULD(pthread_join(thread, NULL) == 0);
    mag_completed_end(&c);
    SHOULD(mag_cancel(tasks[1]) == 0 && ends_with(tasks[1], -ECANCELED));
    return 0;
}

static int outside_race(struct mag_rt *rt)
{
    size_t winner;
    long v;

    n_begun = n_cancelled = 0;
    tasks[0] = co(notes_cancel, NULL);
    tasks[1] = co(sleep_ns, arg_of(5 * MAG_MS));
    tasks[2] = future();
    SHOULD(mag_submit(rt, tasks[0], NULL) == 0 && mag_submit(rt, tasks[1], NULL) == 0);
    SHOULD(have_begun(1));
    SHOULD(set(tasks[2], 9) == 0);
    SHOULD(race(3, &v, &winner) == 0 && (winner == 2 ? v == 9 : winner == 1));
    SHOULD(n_cancelled == 1);
    tasks[0] = co(same, NULL);
    SHOULD(race(1, &v, NULL) == -ENXIO && all_taken(1));
    return 0;
}

static int outside_join(struct mag_rt *rt)
{
    void *t = co(forever, NULL);
    long v;

    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(NULL, 0, NULL, 0) == -ENOMEM);
    SHOULD(mag_join_task(t, -1, NULL, 0) == -EINVAL);
    SHOULD(mag_join_task(t, 0, &v, 1) == -EINVAL);
    SHOULD(mag_join_task(t, 0, &v, sizeof v) == -ETIMEDOUT);
    SHOULD(mag_join_task(t, 2 * MAG_MS, &v, sizeof v) == -ETIMEDOUT);
    SHOULD(mag_cancel(t) == 0);
    SHOULD(mag_join_task(t, MAG_NEVER, &v, sizeof v) == -ECANCELED);
    SHOULD(mag_join_task(t, 0, &v, sizeof v) == -EALREADY);
    t = co(sleep_ns, arg_of(2 * MAG_MS));
    SHOULD(mag_submit(rt, t, NULL) == 0);
    SHOULD(mag_join_task(t, DAY * MAG_SECOND, &v, sizeof v) == 0 && v == 2 * MAG_MS);
    return 0;
}

Test(several, outside_a_task)
{
    struct mag_rt *rt;

    for (unsigned workers = 1; workers <= 4; workers += 3) {
        struct mag_rt_options options = { .workers = workers };
        cr_assert_eq(mag_rt_new(&rt, &options), 0);
        cr_assert_eq(outside_wait(rt), 0, "line %d: %s", broken_line, broken_claim);
        cr_assert_eq(outside_race(rt), 0, "line %d: %s", broken_line, broken_claim);
        cr_assert_eq(outside_join(rt), 0, "line %d: %s", broken_line, broken_claim);
        mag_rt_free(rt);
        cr_assert_eq(mag_mem_live(), 0);
    }
}

static int joins(void *arg, long *value)
{
    return mag_join_task(arg, MAG_NEVER, value, sizeof *value);
}

static int join_in_a_task(void *arg, long *value)
{
    void *t = held();
    struct co *joiner;
    long v;

    (void)arg, (void)value;
    SHOULD(mag_join_task(t, MAG_MS, &v, sizeof v) == -ETIMEDOUT);
    joiner = go(joins, t);
    SHOULD(settle_down() == 0);
    SHOULD(stopped(joiner) && !mag_done(t));
    SHOULD(stopped(t));
    SHOULD(mag_join_task(co(same_later, arg_of(4)), MAG_NEVER, &v, sizeof v) == 0 && v == 4);
    return 0;
}

Test(several, join_in_a_task_leaves_it_alone)
{
    RUN_1_AND_4(join_in_a_task, NULL);
}

Test(several, nothing_to_complete)
{
    RUN_1_AND_4(nothing_to_complete, NULL);
}
