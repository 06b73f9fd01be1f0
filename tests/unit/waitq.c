/* SPDX-License-Identifier: MIT */
/* The queue in which tasks and threads wait for a primitive. */
#include "body.h"

#include "scope.h"
#include "waitlist.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(waitq, .timeout = 60);

static void wake_all(struct mag_waitq *waitq, int rc)
{
    struct mag_waitlist list = { 0 };

    mag_spin_lock(&waitq->lock);
    mag_waitlist_take_all(&list, waitq);
    mag_spin_unlock(&waitq->lock);
    mag_waitlist_wake(&list, rc);
}

static const struct mag_wait_kind kind = { "test", mag_waitq_cancel, false };

/* ---- the list ------------------------------------------------------------------------------ */

static struct mag_queued *popped(struct mag_waitq *q)
{
    struct mag_queued *w;

    mag_spin_lock(&q->lock);
    w = mag_waitq_pop(q);
    mag_spin_unlock(&q->lock);
    return w;
}

Test(waitq, all_zero_is_an_empty_queue)
{
    struct mag_waitq q = { 0 };

    cr_assert_null(popped(&q));
    cr_assert_eq(mag_load_relaxed(&q.n), 0);
    wake_all(&q, 0);
}

Test(waitq, the_oldest_is_popped_first)
{
    struct mag_waitq q = { 0 };
    struct mag_queued w[3] = { 0 };

    for (int i = 0; i < 3; i++)
        mag_waitq_push(&q, &w[i]);
    cr_assert_eq(mag_load_relaxed(&q.n), 3);
    for (int i = 0; i < 3; i++) {
        cr_assert(w[i].is_queued);
        cr_assert_eq(popped(&q), &w[i]);
        cr_assert(!w[i].is_queued);
    }
    cr_assert_null(popped(&q));
    cr_assert_eq(mag_load_relaxed(&q.n), 0);
}

Test(waitq, push_first_goes_before_all)
{
    struct mag_waitq q = { 0 };
    struct mag_queued a = { 0 }, b = { 0 }, c = { 0 };

    mag_waitq_push_first(&q, &a);
    mag_waitq_push(&q, &b);
    mag_waitq_push_first(&q, &c);
    cr_assert_eq(popped(&q), &c);
    cr_assert_eq(popped(&q), &a);
    cr_assert_eq(popped(&q), &b);
    cr_assert_null(popped(&q));
}

/* Whichever of three leaves, the others stay in order. */
Test(waitq, anyone_may_leave)
{
    for (int out = 0; out < 3; out++) {
        struct mag_waitq q = { 0 };
        struct mag_queued w[3] = { 0 };

        for (int i = 0; i < 3; i++)
            mag_waitq_push(&q, &w[i]);
        mag_waitq_remove(&q, &w[out]);
        cr_assert(!w[out].is_queued);
        cr_assert_eq(mag_load_relaxed(&q.n), 2);
        for (int i = 0; i < 3; i++)
            if (i != out)
                cr_assert_eq(popped(&q), &w[i]);
        cr_assert_null(q.first);
        cr_assert_null(q.last);
    }
}

/* A queue whose only one has left takes new ones. */
Test(waitq, a_queue_that_was_emptied_is_empty)
{
    struct mag_waitq q = { 0 };
    struct mag_queued a = { 0 }, b = { 0 };

    mag_waitq_push(&q, &a);
    mag_waitq_remove(&q, &a);
    mag_waitq_push(&q, &b);
    cr_assert_eq(q.first, &b);
    cr_assert_eq(q.last, &b);
    cr_assert_eq(popped(&q), &b);
}

/* ---- a choice -------------------------------------------------------------------------------- */

/* Of one who waits in two queues, only one queue gives. */
Test(waitq, a_choice_is_given_to_once)
{
    struct mag_waitq q[2] = { 0 };
    struct mag_choice choice = { 0 };
    struct mag_queued w[2] = { { .choice = &choice, .index = 0 },
                               { .choice = &choice, .index = 1 } };
    struct mag_queued behind = { 0 };

    mag_waitq_push(&q[0], &w[0]);
    mag_waitq_push(&q[1], &w[1]);
    mag_waitq_push(&q[0], &behind);
    cr_assert_eq(popped(&q[1]), &w[1]);
    cr_assert_eq(mag_load_relaxed(&choice.won), 2);
    cr_assert_eq(popped(&q[0]), &behind, "who has chosen elsewhere is passed over");
    cr_assert(!w[0].is_queued);
    cr_assert_null(popped(&q[0]));
}

Test(waitq, a_choice_that_is_off_gets_nothing)
{
    struct mag_waitq q = { 0 };
    struct mag_choice choice = { .won = MAG_CHOICE_OFF };
    struct mag_queued w = { .choice = &choice };

    mag_waitq_push(&q, &w);
    cr_assert_null(popped(&q));
    cr_assert(!w.is_queued);
}

/* ---- waiting, waking -------------------------------------------------------------------------- */

static struct mag_waitq the_queue;
static int order[64];
static mag_atomic(uint32_t) n_order;

static int wait_here(void *arg, long *value)
{
    struct mag_queued me;

    mag_spin_lock(&the_queue.lock);
    *value = mag_waitq_wait(&the_queue, &me, &kind, NULL, arg);
    order[mag_fetch_add(&n_order, 1) % 64] = (int)num(arg);
    return 0;
}

static int wait_here_first(void *arg, long *value)
{
    struct mag_queued me;

    mag_spin_lock(&the_queue.lock);
    *value = mag_waitq_wait_first(&the_queue, &me, &kind, NULL, arg);
    order[mag_fetch_add(&n_order, 1) % 64] = (int)num(arg);
    return 0;
}

static int until_queued(uint32_t n)
{
    while (mag_load_relaxed(&the_queue.n) < n)
        mag_yield();
    return 0;
}

/* The item goes along; what wake says is what the wait returns. */
static int wakes_in_order(void *arg, long *value)
{
    struct co *c[4];
    struct mag_queued *w;
    long got;

    (void)arg, (void)value;
    mag_store_relaxed(&n_order, 0);
    for (int i = 0; i < 3; i++) {
        c[i] = go(wait_here, arg_of(i));
        until_queued((uint32_t)i + 1);
    }
    c[3] = go(wait_here_first, arg_of(3));
    until_queued(4);
    for (int i = 0; i < 4; i++) {
        int expected = (i + 3) % 4; /* 3, 0, 1, 2 */

        w = popped(&the_queue);
        SHOULD(w != NULL && num(w->item) == expected);
        mag_waitq_wake(w, 100 + expected);
        SHOULD(await_co(c[expected], &got) == 0 && got == 100 + expected);
        SHOULD(order[i] == expected);
    }
    SHOULD(the_queue.first == NULL && the_queue.last == NULL);
    return 0;
}

Test(waitq, who_is_popped_returns_what_wake_says)
{
    RUN_1_AND_4(wakes_in_order, NULL);
}

static int wakes_all(void *arg, long *value)
{
    struct co *c[10];
    long got;

    (void)arg, (void)value;
    mag_store_relaxed(&n_order, 0);
    for (int i = 0; i < 10; i++) {
        c[i] = go(wait_here, arg_of(i));
        until_queued((uint32_t)i + 1);
    }
    wake_all(&the_queue, 5);
    for (int i = 0; i < 10; i++)
        SHOULD(await_co(c[i], &got) == 0 && got == 5);
    return 0;
}

Test(waitq, wake_all_wakes_all)
{
    RUN_1_AND_4(wakes_all, NULL);
}

/* ---- woken before suspended ---------------------------------------------------------------------- */

static void *wake_from_outside(void *arg)
{
    struct mag_queued **box = arg, *w;

    for (int i = 0; i < 200; i++) {
        while ((w = __atomic_exchange_n(box, NULL, __ATOMIC_ACQ_REL)) == NULL)
            ;
        mag_waitq_wake(w, i);
    }
    return NULL;
}

/* A thread wakes at once, the waiter computes on for a while, and then suspends. */
static int woken_early(void *arg, long *value)
{
    struct mag_queued **box = arg, me, *w;

    (void)value;
    for (int i = 0; i < 200; i++) {
        mag_spin_lock(&the_queue.lock);
        SHOULD(mag_waitq_join(&the_queue, &me, &kind, NULL, NULL) == 0);
        w = popped(&the_queue);
        SHOULD(w == &me);
        __atomic_store_n(box, w, __ATOMIC_RELEASE);
        for (int k = 0; k < i % 20 * 100; k++)
            mag_cpu_relax();
        SHOULD(mag_waitq_sleep(&me) == i);
    }
    return 0;
}

Test(waitq, a_wake_before_the_suspension_is_not_lost)
{
    static struct mag_queued *box;
    pthread_t t;

    for (unsigned workers = 1; workers <= 4; workers += 3) {
        box = NULL;
        cr_assert_eq(pthread_create(&t, NULL, wake_from_outside, &box), 0);
        RUN(workers, woken_early, &box);
        pthread_join(t, NULL);
    }
}

/* ---- cancels -------------------------------------------------------------------------------------- */

static int cancelled_waiter(void *arg, long *value)
{
    struct co *a = go(wait_here, arg_of(1)), *b = go(wait_here, arg_of(2));
    long got;

    (void)arg, (void)value;
    until_queued(2);
    settle_down();
    mag_cancel(a);
    SHOULD(await_co(a, &got) == 0 && got == -ECANCELED);
    SHOULD(mag_load_relaxed(&the_queue.n) == 1);
    wake_all(&the_queue, 3);
    SHOULD(await_co(b, &got) == 0 && got == 3);
    SHOULD(the_queue.first == NULL);
    return 0;
}

Test(waitq, who_is_cancelled_leaves_the_queue)
{
    RUN_1_AND_4(cancelled_waiter, NULL);
}

/* Popped first: the cancel comes too late, and what wake said stands. */
static int popped_then_cancelled(void *arg, long *value)
{
    struct co *c = go(wait_here, arg_of(1));
    struct mag_queued *w;
    long got;

    (void)arg, (void)value;
    until_queued(1);
    settle_down();
    w = popped(&the_queue);
    SHOULD(w != NULL);
    mag_cancel(c);
    settle_down();
    SHOULD(!mag_done(c));
    mag_waitq_wake(w, 9);
    SHOULD(await_co(c, &got) == 0 && got == 9);
    return 0;
}

Test(waitq, who_was_popped_is_not_cancelled)
{
    RUN_1_AND_4(popped_then_cancelled, NULL);
}

/* Many waiters, one task that pops and wakes, one that cancels: each ends once, with what
 * the one who had it said, and no wake-up is lost. */
enum { CROWD = 60 };
static struct co *crowd[CROWD];

static int cancels_the_crowd(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < CROWD; i += 2) {
        mag_cancel(crowd[i]);
        if (i % 6 == 0)
            mag_yield();
    }
    return 0;
}

static int wake_and_cancel(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int round = 0; round < 30; round++) {
        int n_woken = 0, n_cancelled = 0, n_given = 0;
        struct mag_queued *w;
        struct co *canceller;
        long got;

        for (int i = 0; i < CROWD; i++)
            SHOULD((crowd[i] = go(wait_here, arg_of(i))) != NULL);
        until_queued(CROWD);
        canceller = go(cancels_the_crowd, NULL);
        while (mag_load_relaxed(&the_queue.n) > 0 || n_given == 0) {
            if ((w = popped(&the_queue)) != NULL) {
                mag_waitq_wake(w, 1);
                n_given++;
            }
            if (n_given % 4 == 0)
                mag_yield();
            if (n_given == 0 && mag_load_relaxed(&the_queue.n) == 0)
                break;
        }
        SHOULD(await_co(canceller, NULL) == 0);
        for (int i = 0; i < CROWD; i++) {
            SHOULD(await_co(crowd[i], &got) == 0);
            SHOULD(got == 1 || (got == -ECANCELED && i % 2 == 0));
            n_woken += got == 1;
            n_cancelled += got == -ECANCELED;
        }
        SHOULD(n_woken == n_given && n_woken + n_cancelled == CROWD);
        SHOULD(the_queue.first == NULL && mag_load_relaxed(&the_queue.n) == 0);
    }
    return 0;
}

Test(waitq, a_wake_or_a_cancel_never_both)
{
    RUN_1_AND_4(wake_and_cancel, NULL);
}

/* ---- a wait that cannot begin --------------------------------------------------------------------- */

static int begun_cancelled(void *arg, long *value)
{
    struct mag_queued me;
    int rc;

    (void)arg, (void)value;
    mag_cancel(mag_self());
    mag_spin_lock(&the_queue.lock);
    rc = mag_waitq_wait(&the_queue, &me, &kind, NULL, NULL);
    SHOULD(rc == -ECANCELED);
    SHOULD(!me.is_queued && the_queue.first == NULL && mag_load_relaxed(&the_queue.n) == 0);
    mag_spin_lock(&the_queue.lock); /* it was given back */
    mag_spin_unlock(&the_queue.lock);
    return 0;
}

Test(waitq, who_is_cancelled_already_does_not_wait)
{
    RUN_TO(0, 1, begun_cancelled, NULL);
    RUN_TO(0, 4, begun_cancelled, NULL);
}

static struct mag_waitq callback_queue;
static int callback_rc = 1;

static void waits_in_a_callback(void *arg)
{
    struct mag_queued me;

    (void)arg;
    mag_spin_lock(&callback_queue.lock);
    callback_rc = mag_waitq_wait(&callback_queue, &me, &kind, NULL, NULL);
}

static int calls_back(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_call_soon(waits_in_a_callback, NULL) == 0);
    while (callback_rc == 1)
        SHOULD(settle_down() == 0);
    SHOULD(callback_rc == -ENXIO);
    SHOULD(callback_queue.first == NULL);
    return 0;
}

Test(waitq, a_callback_does_not_wait)
{
    RUN(1, calls_back, NULL);
}

/* Somebody pops it between its joining and its failure to begin: it is given what was given.
 * Both are in threads, so that each order comes. */
static mag_atomic(uint32_t) gifts_over;
static uint32_t n_gifts;

static void *gives(void *arg)
{
    struct mag_queued *w;

    while (!mag_load_acquire(&gifts_over))
        if ((w = popped(&the_queue)) != NULL) {
            n_gifts++;
            mag_waitq_wake(w, 1);
        }
    return arg;
}

static int takes_cancelled(void *arg, long *value)
{
    struct mag_queued me;
    uint32_t n_taken = 0;
    pthread_t t;
    int rc = 0;

    (void)arg, (void)value;
    n_gifts = 0;
    mag_store_relaxed(&gifts_over, 0);
    SHOULD(pthread_create(&t, NULL, gives, NULL) == 0);
    mag_cancel(mag_self());
    for (int i = 0; i < 100000; i++) {
        mag_spin_lock(&the_queue.lock);
        rc = mag_waitq_wait(&the_queue, &me, &kind, NULL, NULL);
        if (rc != -ECANCELED && rc != 1)
            break;
        n_taken += rc == 1;
    }
    mag_store_release(&gifts_over, 1);
    pthread_join(t, NULL);
    SHOULD(rc == -ECANCELED || rc == 1);
    SHOULD(n_taken == n_gifts);
    return 0;
}

Test(waitq, what_was_given_to_who_could_not_wait_is_not_lost)
{
    RUN(2, takes_cancelled, NULL);
}

/* ---- deadlines ------------------------------------------------------------------------------------ */

static int under_a_deadline(void *arg, long *value)
{
    struct mag_queued me;
    struct mag_scope s;
    int rc;

    (void)arg, (void)value;
    SHOULD(mag_scope_enter(&s, mag_now() + 2 * MAG_MS, NULL) == 0);
    mag_spin_lock(&the_queue.lock);
    rc = mag_waitq_wait(&the_queue, &me, &kind, NULL, NULL);
    SHOULD(rc == -ECANCELED);
    SHOULD(mag_scope_leave(&s, rc) == -ETIMEDOUT);
    SHOULD(the_queue.first == NULL);
    return 0;
}

Test(waitq, a_deadline_takes_the_waiter_out)
{
    RUN_1_AND_4(under_a_deadline, NULL);
}

/* ---- threads outside --------------------------------------------------------------------------------- */

static void *waits_outside(void *arg)
{
    struct mag_queued me;

    mag_spin_lock(&the_queue.lock);
    return arg_of(mag_waitq_wait(&the_queue, &me, &kind, NULL, arg));
}

Test(waitq, threads_wait_without_a_runtime)
{
    pthread_t t[3];
    void *got;

    for (long i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&t[i], NULL, waits_outside, arg_of(i)), 0);
        while (mag_load_relaxed(&the_queue.n) < (uint32_t)i + 1)
            sched_yield();
    }
    for (long i = 0; i < 3; i++) {
        struct mag_queued *w = popped(&the_queue);
        cr_assert_not_null(w);
        cr_assert_eq(num(w->item), i);
        mag_waitq_wake(w, 20 + (int)i);
        pthread_join(t[i], &got);
        cr_assert_eq(num(got), 20 + i);
    }
}

/* A task and a thread in one queue, in the order of their coming. */
static int task_and_thread(void *arg, long *value)
{
    pthread_t t;
    struct co *c;
    long got;
    void *got_outside;

    (void)arg, (void)value;
    SHOULD(pthread_create(&t, NULL, waits_outside, arg_of(1)) == 0);
    until_queued(1);
    c = go(wait_here, arg_of(2));
    until_queued(2);
    for (int i = 1; i <= 2; i++) {
        struct mag_queued *w = popped(&the_queue);
        SHOULD(w != NULL && num(w->item) == i);
        mag_waitq_wake(w, i);
    }
    pthread_join(t, &got_outside);
    SHOULD(num(got_outside) == 1);
    SHOULD(await_co(c, &got) == 0 && got == 2);
    return 0;
}

Test(waitq, tasks_and_threads_share_a_queue)
{
    RUN_1_AND_4(task_and_thread, NULL);
}
