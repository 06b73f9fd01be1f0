/* SPDX-License-Identifier: MIT */
/* barriers.c - what CPython's suite pins for asyncio.Barrier (test_locks.py, BarrierTests) */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>

TestSuite(barriers, .timeout = 60);

enum { N = 5 };

/* Of the test that runs: one process each. */
static struct mag_barrier barrier, second;
static mag_atomic(int32_t) n_passed, n_broken, n_more;

static void begin(unsigned parties)
{
    mag_barrier_init(&barrier, parties);
    n_passed = n_broken = n_more = 0;
}

static bool is_idle(void)
{
    return mag_barrier_n_waiting(&barrier) == 0 && !mag_barrier_is_broken(&barrier);
}

static int note(int rc)
{
    if (rc >= 0)
        mag_fetch_add(&n_passed, 1);
    else if (rc == -EPIPE)
        mag_fetch_add(&n_broken, 1);
    return rc;
}

static int pass(void *unused)
{
    (void)unused;
    return note(mag_barrier_wait(&barrier));
}

/* n tasks that run fn; the first that fails otherwise than by a broken barrier says so. */
static int all(int n, int (*fn)(void *unused))
{
    struct co *c[16];
    int worst = 0;

    for (int i = 0; i < n; i++)
        c[i] = begin_as(i, fn, NULL);
    for (int i = 0; i < n; i++) {
        int rc = end_of(c[i]);
        if (rc < 0 && rc != -EPIPE)
            worst = rc;
    }
    return worst;
}

/* ---- filling ------------------------------------------------------------------------------ */

ON_1(barriers, a_new_one_is_filling_and_empty)
{
    begin(N);
    SHOULD(is_idle() && mag_barrier_parties(&barrier) == N);
    return 0;
}

ON_1(barriers, a_barrier_is_for_at_least_one)
{
    SHOULD(mag_barrier_init(&barrier, 0) == -EINVAL);
    SHOULD(mag_barrier_init(&barrier, (unsigned)-4) == -EINVAL);
    SHOULD(mag_barrier_init(&barrier, 1) == 0);
    return 0;
}

ON_1_AND_4(barriers, each_gets_a_number_of_its_own)
{
    struct co *c[N];
    bool is_seen[N] = { false };

    begin(N);
    for (int i = 0; i < N; i++)
        c[i] = begin_as(i, pass, NULL);
    for (int i = 0; i < N; i++) {
        int number = end_of(c[i]);
        SHOULD(number >= 0 && number < N && !is_seen[number]);
        is_seen[number] = true;
    }
    SHOULD(is_idle());
    return 0;
}

ON_1(barriers, numbers_are_in_the_order_of_arrival)
{
    struct co *c[N];

    begin(N);
    for (int i = 0; i < N; i++)
        c[i] = wait_as(i, pass, NULL);
    for (int i = 0; i < N; i++)
        SHOULD(end_of(c[i]) == i);
    return 0;
}

ON_1_AND_4(barriers, one_for_one_does_not_wait)
{
    begin(1);
    SHOULD(mag_barrier_wait(&barrier) == 0 && is_idle());
    return 0;
}

ON_1_AND_4(barriers, one_for_one_can_be_passed_twice)
{
    begin(1);
    SHOULD(mag_barrier_wait(&barrier) == 0 && mag_barrier_wait(&barrier) == 0);
    SHOULD(is_idle());
    return 0;
}

ON_1(barriers, it_fills_one_by_one)
{
    struct co *c[3];

    begin(3);
    for (unsigned i = 0; i < 2; i++) {
        c[i] = wait_as(1, pass, NULL);
        SHOULD(mag_barrier_n_waiting(&barrier) == i + 1 && n_passed == 0);
    }
    c[2] = wait_as(3, pass, NULL);
    for (int i = 0; i < 3; i++)
        SHOULD(end_of(c[i]) == i);
    SHOULD(is_idle() && n_passed == 3);
    return 0;
}

static int pass_twice(void *unused)
{
    int rc = pass(unused);

    return rc < 0 ? rc : pass(unused);
}

ON_1_AND_4(barriers, all_can_pass_it_twice)
{
    begin(N);
    SHOULD(all(N, pass_twice) == 0);
    SHOULD(n_passed == 2 * N && is_idle());
    return 0;
}

ON_1_AND_4(barriers, the_second_time_has_numbers_of_its_own)
{
    struct co *c[N];
    unsigned seen = 0;

    begin(N);
    for (int i = 0; i < N; i++)
        c[i] = begin_as(i, pass_twice, NULL);
    for (int i = 0; i < N; i++)
        seen |= 1u << end_of(c[i]);
    SHOULD(seen == (1u << N) - 1u && is_idle());
    return 0;
}

static int pass_often(void *unused)
{
    for (int i = 0; i < 50; i++) {
        int rc = pass(unused);
        if (rc < 0)
            return rc;
        if (mag_load_relaxed(&n_passed) < i * N) /* somebody is a round behind */
            return -EPROTO;
    }
    return 0;
}

ON_1_AND_4(barriers, nobody_is_a_round_ahead)
{
    begin(N);
    SHOULD(all(N, pass_often) == 0);
    SHOULD(n_passed == 50 * N && is_idle());
    return 0;
}

/* ---- draining ------------------------------------------------------------------------------- */

/* test_draining_state: none waits to fill it, although new ones have come. */
ON_1(barriers, nobody_waits_in_it_while_it_drains)
{
    struct co *c[3], *late;

    begin(3);
    c[0] = wait_as(1, pass, NULL);
    c[1] = wait_as(2, pass, NULL);
    SHOULD(mag_barrier_wait(&barrier) == 2); /* the others have not left yet */
    SHOULD(mag_barrier_n_waiting(&barrier) == 0 && n_passed == 0);
    late = wait_as(3, pass, NULL);
    SHOULD(end_of(c[0]) == 0 && end_of(c[1]) == 1);
    SHOULD(mag_barrier_n_waiting(&barrier) == 1 && !mag_done(late));
    SHOULD(cancelled_end_of(late) == -ECANCELED && is_idle());
    return 0;
}

/* test_blocking_tasks_while_draining */
static int pass_and_come_again(void *unused)
{
    int rc = pass(unused);

    if (rc < 0)
        return rc;
    if (mag_fetch_add(&n_more, 1) < 2)
        return pass(unused);
    rc = mag_barrier_wait(&second);
    return rc < 0 ? rc : pass(unused);
}

ON_1_AND_4(barriers, who_comes_while_it_drains_waits_for_the_next_round)
{
    begin(N);
    SHOULD(mag_barrier_init(&second, N - 2) == 0);
    SHOULD(all(N, pass_and_come_again) == 0);
    SHOULD(n_passed == 2 * N && is_idle() && mag_barrier_n_waiting(&second) == 0);
    return 0;
}

/*
 * Tasks that come to the barrier before somebody who was let go has run: each wakes the next
 * one and then waits, and who is woken by a task runs before who was woken earlier.
 */
static struct mag_event gate[8];
static mag_atomic(int32_t) n_at_gate;

static int come_in_turn(void *unused)
{
    int i = mag_fetch_add(&n_at_gate, 1);
    int rc = mag_event_wait(&gate[i]);

    (void)unused;
    mag_event_set(&gate[i + 1]);
    return rc < 0 ? rc : note(mag_barrier_wait(&barrier));
}

static void line_up(int n, struct co **c)
{
    memset(gate, 0, sizeof gate);
    n_at_gate = 0;
    for (int i = 0; i < n; i++)
        c[i] = wait_as(100 + i, come_in_turn, NULL);
}

/* More than a round comes while it drains: as many rounds as are full go. */
ON_1(barriers, who_waits_outside_comes_in_when_the_last_has_left)
{
    struct co *c, *late[5];

    begin(2);
    line_up(5, late);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_wait(&barrier) == 1); /* c has not left */
    SHOULD(mag_event_set(&gate[0]) == 0);
    let_run();
    SHOULD(diary.entry[0] == 0); /* nobody was a round ahead */
    SHOULD(end_of(c) == 0 && n_passed == 1 + 4 && mag_barrier_n_waiting(&barrier) == 1);
    for (int i = 0; i < 4; i++)
        SHOULD(end_of(late[i]) == i % 2);
    SHOULD(cancelled_end_of(late[4]) == -ECANCELED && is_idle());
    return 0;
}

ON_1(barriers, who_comes_while_it_resets_waits_for_its_end)
{
    struct co *c, *late[2];

    begin(2);
    line_up(2, late);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_reset(&barrier) == 0); /* c has not left */
    SHOULD(mag_event_set(&gate[0]) == 0);
    let_run();
    SHOULD(end_of(c) == -EPIPE && end_of(late[0]) == 0 && end_of(late[1]) == 1);
    SHOULD(n_broken == 1 && n_passed == 2 && is_idle());
    return 0;
}

ON_1(barriers, abort_while_it_drains_breaks_it_for_all)
{
    struct co *c, *late[2];

    begin(2);
    line_up(2, late);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_wait(&barrier) == 1);
    SHOULD(mag_barrier_abort(&barrier) == 0 && mag_event_set(&gate[0]) == 0);
    SHOULD(end_of(c) == -EPIPE && end_of(late[0]) == -EPIPE && end_of(late[1]) == -EPIPE);
    SHOULD(mag_barrier_is_broken(&barrier) && n_broken == 3);
    return 0;
}

/* ---- cancelled --------------------------------------------------------------------------------- */

ON_1(barriers, a_cancelled_waiter_just_leaves)
{
    struct co *c[4];

    begin(3);
    c[0] = wait_as(0, pass, NULL);
    c[1] = wait_as(1, pass, NULL);
    SHOULD(mag_barrier_n_waiting(&barrier) == 2);
    SHOULD(cancelled_end_of(c[0]) == -ECANCELED);
    SHOULD(mag_barrier_n_waiting(&barrier) == 1 && !mag_barrier_is_broken(&barrier));
    c[2] = wait_as(2, pass, NULL);
    SHOULD(mag_barrier_n_waiting(&barrier) == 2);
    c[3] = wait_as(3, pass, NULL);
    for (int i = 1; i < 4; i++)
        SHOULD(end_of(c[i]) == i - 1); /* no number twice */
    SHOULD(n_passed == 3 && is_idle());
    return 0;
}

ON_1_AND_4(barriers, all_may_be_cancelled)
{
    struct co *c[N - 1];

    begin(N);
    for (int i = 0; i < N - 1; i++)
        c[i] = wait_as(i, pass, NULL);
    for (int i = 0; i < N - 1; i++)
        SHOULD(cancelled_end_of(c[i]) == -ECANCELED);
    SHOULD(is_idle());
    SHOULD(all(N, pass) == 0 && n_passed == N);
    return 0;
}

ON_1(barriers, who_was_let_go_is_not_cancelled_any_more)
{
    struct co *c;

    begin(2);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_wait(&barrier) == 1);
    SHOULD(cancelled_end_of(c) == 0 && is_idle());
    return 0;
}

ON_1(barriers, who_waits_outside_can_be_cancelled)
{
    struct co *c, *late;

    begin(2);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_wait(&barrier) == 1);
    SHOULD(mag_barrier_reset(&barrier) == 0); /* c is inside still */
    late = begin_as(1, pass, NULL);
    SHOULD(end_of(c) == -EPIPE);
    SHOULD(cancelled_end_of(late) == -ECANCELED && is_idle());
    return 0;
}

ON_1_AND_4(barriers, a_wait_can_time_out)
{
    struct mag_scope s;

    begin(2);
    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, mag_barrier_wait(&barrier)) == -ETIMEDOUT);
    SHOULD(is_idle());
    return 0;
}

/* ---- reset ---------------------------------------------------------------------------------------- */

ON_1(barriers, reset_of_an_empty_one_changes_nothing)
{
    begin(1);
    SHOULD(mag_barrier_reset(&barrier) == 0 && is_idle());
    SHOULD(mag_barrier_wait(&barrier) == 0);
    return 0;
}

ON_1_AND_4(barriers, reset_breaks_it_for_those_who_wait)
{
    struct co *c[N - 1];

    begin(N);
    for (int i = 0; i < N - 1; i++)
        c[i] = wait_as(i, pass, NULL);
    SHOULD(mag_barrier_reset(&barrier) == 0);
    for (int i = 0; i < N - 1; i++)
        SHOULD(end_of(c[i]) == -EPIPE);
    SHOULD(n_broken == N - 1 && is_idle());
    return 0;
}

ON_1(barriers, while_it_resets_nobody_waits_in_it_and_it_is_not_broken)
{
    struct co *c, *late;

    begin(2);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_reset(&barrier) == 0 && is_idle());
    late = begin_as(1, pass, NULL);
    SHOULD(mag_barrier_reset(&barrier) == 0);
    SHOULD(end_of(c) == -EPIPE);
    let_run();
    SHOULD(mag_barrier_n_waiting(&barrier) == 1 && mag_barrier_wait(&barrier) == 1);
    SHOULD(end_of(late) == 0);
    return 0;
}

/* test_reset_barrier_when_tasks_half_draining: when half have left, the other half has not. */
static int pass_and_reset_in_the_middle(void *unused)
{
    int rc = pass(unused);

    if (rc >= 0 && n_passed == N - N / 2)
        mag_barrier_reset(&barrier);
    return rc;
}

ON_1(barriers, reset_breaks_it_for_those_who_have_not_left)
{
    begin(N);
    SHOULD(all(N, pass_and_reset_in_the_middle) == 0);
    SHOULD(n_passed == N - N / 2 && n_broken == N / 2 && is_idle());
    return 0;
}

/* test_reset_barrier_when_tasks_half_draining_half_blocking */
static int reset_when_half_has_come_again(void *unused)
{
    int rc = pass(unused);

    if (rc == -EPIPE) /* it has not left when somebody reset it */
        return mag_barrier_wait(&barrier);
    if (mag_fetch_add(&n_more, 1) + 1 > N / 2) {
        mag_barrier_reset(&barrier);
        return mag_barrier_wait(&barrier);
    }
    rc = mag_barrier_wait(&barrier);
    return rc == -EPIPE ? -EPROTO : rc; /* outside at that time: not concerned */
}

ON_1(barriers, reset_does_not_concern_those_who_wait_outside)
{
    begin(N);
    SHOULD(all(N, reset_when_half_has_come_again) == 0);
    SHOULD(n_broken == N / 2 && is_idle());
    return 0;
}

/* test_reset_barrier_while_tasks_waiting_and_waiting_again */
ON_1_AND_4(barriers, those_it_was_reset_for_can_wait_again)
{
    struct co *c[N];

    begin(N);
    for (int i = 0; i < N - 1; i++)
        c[i] = wait_as(i, pass, NULL);
    SHOULD(mag_barrier_reset(&barrier) == 0);
    for (int i = 0; i < N - 1; i++)
        SHOULD(end_of(c[i]) == -EPIPE);
    SHOULD(all(N, pass) == 0 && n_passed == N && is_idle());
    return 0;
}

static int wait_again_if_broken(void *unused)
{
    int rc = pass(unused);

    return rc == -EPIPE ? pass(unused) : rc;
}

ON_1(barriers, who_waits_again_at_once_waits_for_the_reset_to_end)
{
    struct co *c[N];

    begin(N);
    for (int i = 0; i < N - 1; i++)
        c[i] = wait_as(i, wait_again_if_broken, NULL);
    SHOULD(mag_barrier_reset(&barrier) == 0);
    c[N - 1] = begin_as(N, pass, NULL);
    for (int i = 0; i < N; i++)
        SHOULD(end_of(c[i]) >= 0);
    SHOULD(n_broken == N - 1 && n_passed == N && is_idle());
    return 0;
}

/* test_reset_barrier_while_tasks_draining: by the last who leaves, before anybody else runs. */
static int last_one_resets(void *unused)
{
    int rc = pass(unused);

    if (rc < 0)
        return rc;
    rc = mag_barrier_wait(&second);
    if (rc == N - 1)
        mag_barrier_reset(&barrier);
    rc = mag_barrier_wait(&second);
    return rc < 0 ? rc : pass(unused);
}

ON_1_AND_4(barriers, reset_when_all_have_left_breaks_nothing)
{
    begin(N);
    SHOULD(mag_barrier_init(&second, N) == 0);
    SHOULD(all(N, last_one_resets) == 0);
    SHOULD(n_passed == 2 * N && n_broken == 0 && is_idle());
    return 0;
}

/* ---- abort ----------------------------------------------------------------------------------------- */

ON_1(barriers, abort_breaks_it)
{
    begin(1);
    SHOULD(mag_barrier_abort(&barrier) == 0);
    SHOULD(mag_barrier_n_waiting(&barrier) == 0 && mag_barrier_is_broken(&barrier));
    SHOULD(mag_barrier_wait(&barrier) == -EPIPE);
    return 0;
}

ON_1_AND_4(barriers, abort_breaks_it_for_those_who_wait)
{
    struct co *c[N - 1];

    begin(N);
    for (int i = 0; i < N - 1; i++)
        c[i] = wait_as(i, pass, NULL);
    SHOULD(mag_barrier_abort(&barrier) == 0);
    for (int i = 0; i < N - 1; i++)
        SHOULD(end_of(c[i]) == -EPIPE);
    SHOULD(mag_barrier_is_broken(&barrier) && mag_barrier_wait(&barrier) == -EPIPE);
    return 0;
}

/* test_abort_barrier_when_tasks_half_draining_half_blocking */
static int abort_when_half_has_come_again(void *unused)
{
    int rc = pass(unused);

    if (rc < 0)
        return rc;
    if (mag_fetch_add(&n_more, 1) + 1 > N / 2)
        return mag_barrier_abort(&barrier);
    return pass(unused);
}

ON_1(barriers, abort_breaks_it_for_those_outside_too)
{
    begin(N);
    SHOULD(all(N, abort_when_half_has_come_again) == 0);
    SHOULD(mag_barrier_is_broken(&barrier));
    SHOULD(n_more == N / 2 + 1 && n_broken == N / 2 + (N - N / 2 - 1));
    return 0;
}

/* test_abort_barrier_when_exception */
static int one_fails_and_aborts(void *unused)
{
    int rc = pass(unused);

    if (rc == N / 2)
        return mag_barrier_abort(&barrier);
    if (rc < 0)
        return rc;
    rc = mag_barrier_wait(&barrier);
    if (rc >= 0)
        return -EPROTO;
    mag_fetch_add(&n_broken, rc == -EPIPE);
    return rc;
}

ON_1_AND_4(barriers, who_fails_can_break_it_for_the_others)
{
    begin(N);
    SHOULD(all(N, one_fails_and_aborts) == 0);
    SHOULD(mag_barrier_is_broken(&barrier) && n_broken == N - 1);
    SHOULD(mag_barrier_n_waiting(&barrier) == 0);
    return 0;
}

/* test_abort_barrier_when_exception_then_resetting */
static int one_fails_then_all_reset(void *unused)
{
    int rc = one_fails_and_aborts(unused);

    if (rc < 0 && rc != -EPIPE)
        return rc;
    rc = mag_barrier_wait(&second);
    if (rc == N / 2)
        mag_barrier_reset(&barrier);
    mag_barrier_wait(&second);
    rc = mag_barrier_wait(&barrier);
    mag_fetch_add(&n_more, rc >= 0);
    return rc;
}

ON_1_AND_4(barriers, reset_mends_what_was_aborted)
{
    begin(N);
    SHOULD(mag_barrier_init(&second, N) == 0);
    SHOULD(all(N, one_fails_then_all_reset) == 0);
    SHOULD(n_broken == N - 1 && n_more == N && is_idle());
    return 0;
}

ON_1(barriers, reset_of_a_broken_and_empty_one_mends_it_at_once)
{
    begin(1);
    SHOULD(mag_barrier_abort(&barrier) == 0 && mag_barrier_reset(&barrier) == 0);
    SHOULD(is_idle() && mag_barrier_wait(&barrier) == 0);
    return 0;
}

ON_1(barriers, reset_of_a_broken_one_waits_for_those_inside)
{
    struct co *c;

    begin(2);
    c = wait_as(0, pass, NULL);
    SHOULD(mag_barrier_abort(&barrier) == 0 && mag_barrier_reset(&barrier) == 0);
    SHOULD(is_idle()); /* resetting */
    SHOULD(end_of(c) == -EPIPE && is_idle());
    SHOULD(all(2, pass) == 0 && n_passed == 2);
    return 0;
}

/* ---- cancelled everywhere --------------------------------------------------------------------------- */

static int three_rounds(void *arg, long *value)
{
    void *c[N];

    (void)arg;
    *value = 0;
    for (int i = 0; i < N; i++)
        c[i] = begin_as(i, pass_twice, NULL);
    nth_point();
    for (int i = 0; i < N; i++) {
        long ignored;
        mag_cancelled() ? mag_cancel(c[i]) : 0;
        mag_await(c[i], &ignored, sizeof ignored);
    }
    return mag_yield();
}

static int barrier_is_whole(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(is_idle() && n_broken == 0);
    SHOULD(rc < 0 || n_passed == 2 * N);
    n_passed = 0;
    SHOULD(all(N, pass) == 0 && n_passed == N && is_idle());
    n_passed = 0;
    return 0;
}

ON_1_AND_4(barriers, it_is_whole_after_a_cancel_at_any_suspension)
{
    begin(N);
    return nth_cancel(three_rounds, NULL, barrier_is_whole);
}
