/* SPDX-License-Identifier: MIT */
/* conditions.c - what CPython's suite pins for asyncio.Condition (test_locks.py, ConditionTests) */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>

TestSuite(condition, .timeout = 60);

struct both {
    struct mag_mutex mutex;
    struct mag_cond cond;
    bool is_so; /* [mutex] */
};

/* Waits, and keeps the mutex if it comes back with it. */
static int wait_and_keep(void *arg)
{
    struct both *b = arg;
    int rc = mag_mutex_lock(&b->mutex);

    return rc < 0 ? rc : mag_cond_wait(&b->cond, &b->mutex);
}

static int wait_once(void *arg)
{
    struct both *b = arg;
    int rc = mag_mutex_lock(&b->mutex);

    if (rc < 0)
        return rc;
    rc = mag_cond_wait(&b->cond, &b->mutex);
    return mag_mutex_unlock(&b->mutex) < 0 ? -EBADE : rc;
}

static bool is_so(void *arg)
{
    return ((struct both *)arg)->is_so;
}

static int wait_until_so(void *arg)
{
    struct both *b = arg;
    int rc = mag_mutex_lock(&b->mutex);

    if (rc < 0)
        return rc;
    rc = mag_cond_wait_until_true(&b->cond, &b->mutex, is_so, b);
    return mag_mutex_unlock(&b->mutex) < 0 ? -EBADE : rc;
}

/* With the mutex, as it should be. */
static int notify(struct both *b, size_t n)
{
    int rc = mag_mutex_lock(&b->mutex);

    if (rc < 0)
        return rc;
    rc = mag_cond_notify(&b->cond, n);
    return mag_mutex_unlock(&b->mutex) < 0 ? -EBADE : rc;
}

/* ---- wait ---------------------------------------------------------------------------------- */

ON_1_AND_4(condition, wait_gives_the_lock_back)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_once, &b);

    SHOULD(!mag_done(c) && !mag_mutex_locked(&b.mutex));
    SHOULD(notify(&b, 1) == 0);
    return end_of(c);
}

/* test_wait, to the letter. */
ON_1(condition, a_notified_waiter_returns_only_when_the_lock_is_free)
{
    struct both b = { .is_so = false };
    struct co *c[3];

    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i + 1, wait_and_keep, &b);
    SHOULD(diary_length() == 0 && !mag_mutex_locked(&b.mutex));
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    let_run();
    SHOULD(diary_length() == 0 && mag_mutex_locked(&b.mutex));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    let_run();
    SHOULD(DIARY_IS(1) && mag_mutex_locked(&b.mutex));
    SHOULD(mag_cond_notify(&b.cond, 2) == 0);
    let_run();
    SHOULD(DIARY_IS(1) && mag_mutex_locked(&b.mutex));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2) && mag_mutex_locked(&b.mutex));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2, 3) && mag_mutex_locked(&b.mutex));
    for (int i = 0; i < 3; i++)
        SHOULD(mag_done(c[i]) && end_of(c[i]) == 0);
    return 0;
}

ON_1(condition, wait_without_the_lock_is_an_error)
{
    struct both b = { .is_so = false };

    SHOULD(mag_cond_wait(&b.cond, &b.mutex) == -EPERM && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* ---- wait_for -------------------------------------------------------------------------------- */

ON_1(condition, wait_for_goes_on_only_when_the_predicate_is_true)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_until_so, &b);

    SHOULD(diary_length() == 0);
    SHOULD(notify(&b, 1) == 0);
    let_run();
    SHOULD(diary_length() == 0 && !mag_mutex_locked(&b.mutex));
    b.is_so = true;
    SHOULD(notify(&b, 1) == 0);
    let_run();
    SHOULD(DIARY_IS(1) && mag_done(c));
    return end_of(c);
}

ON_1(condition, wait_for_what_is_true_returns_at_once)
{
    struct both b = { .is_so = true };

    SHOULD(mag_cond_wait_until_true(&b.cond, &b.mutex, is_so, &b) == 0); /* even without the lock */
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_wait_until_true(&b.cond, &b.mutex, is_so, &b) == 0);
    SHOULD(mag_mutex_locked(&b.mutex));
    return 0;
}

ON_1(condition, wait_for_without_the_lock_is_an_error)
{
    struct both b = { .is_so = false };

    SHOULD(mag_cond_wait_until_true(&b.cond, &b.mutex, is_so, &b) == -EPERM);
    return 0;
}

ON_1_AND_4(condition, wait_for_that_is_cancelled_has_the_lock)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_until_so, &b);

    SHOULD(cancelled_end_of(c) == -ECANCELED); /* not -EBADE: the unlock was right */
    SHOULD(!mag_mutex_locked(&b.mutex));
    return 0;
}

/* ---- notify -------------------------------------------------------------------------------------- */

ON_1_AND_4(condition, notify_wakes_as_many_as_it_says_the_oldest_first)
{
    struct both b = { .is_so = false };
    struct co *c[3];

    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i + 1, wait_once, &b);
    SHOULD(diary_length() == 0);
    SHOULD(notify(&b, 1) == 0);
    let_run();
    SHOULD(DIARY_IS(1));
    SHOULD(notify(&b, 1) == 0);
    SHOULD(notify(&b, 2048) == 0);
    let_run();
    SHOULD(diary_length() == 3);
    for (int i = 0; i < 3; i++)
        SHOULD(end_of(c[i]) == 0);
    return 0;
}

ON_1(condition, notify_of_many_in_one_lock_lets_them_go_in_order)
{
    struct both b = { .is_so = false };
    struct co *c[3];

    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i + 1, wait_once, &b);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    SHOULD(mag_cond_notify(&b.cond, 2048) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2, 3));
    for (int i = 0; i < 3; i++)
        SHOULD(end_of(c[i]) == 0);
    return 0;
}

ON_1_AND_4(condition, notify_all_wakes_all)
{
    struct both b = { .is_so = false };
    struct co *c[5];

    for (int i = 0; i < 5; i++)
        c[i] = wait_as(i + 1, wait_once, &b);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify_all(&b.cond) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    for (int i = 0; i < 5; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(diary_length() == 5 && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* ---- cancelled --------------------------------------------------------------------------------------- */

static struct both *kept; /* of the test below */

static int wait_with_the_lock_held_already(void *arg)
{
    kept = arg;
    return mag_cond_wait(&kept->cond, &kept->mutex);
}

/* test_wait_cancel: the waiter comes back with the lock. */
ON_1_AND_4(condition, a_cancelled_wait_takes_the_lock_again)
{
    struct both b = { .is_so = false };
    struct co *c;

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    c = wait_as(1, wait_with_the_lock_held_already, &b);
    SHOULD(!mag_mutex_locked(&b.mutex));
    SHOULD(cancelled_end_of(c) == -ECANCELED);
    SHOULD(mag_mutex_locked(&b.mutex));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(mag_cond_notify_all(&b.cond) == 0); /* nobody is in the queue */
    return 0;
}

/* test_wait_cancel_contested: notified, the lock contested, then cancelled. */
ON_1_AND_4(condition, a_wait_that_is_cancelled_while_it_takes_the_lock_again_has_it)
{
    struct both b = { .is_so = false };
    struct co *c;

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    c = wait_as(1, wait_with_the_lock_held_already, &b);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(!mag_done(c));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c) == 0 && mag_mutex_locked(&b.mutex));
    return 0;
}

/* The same, not notified: it waits for the lock although it is cancelled. */
ON_1_AND_4(condition, a_cancelled_wait_waits_for_the_lock_that_another_holds)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_once, &b);

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(!mag_done(c));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c) == -ECANCELED && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* test_wait_cancel_after_notify (bpo-32841), but for what magpie promises: a wait that was
 * notified returns 0, and the next suspension fails. */
static int wait_and_then_yield(void *arg)
{
    int rc = wait_once(arg);

    return rc < 0 ? -EBADE : mag_yield();
}

ON_1_AND_4(condition, a_cancel_after_the_notify_is_told_by_the_next_suspension)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_and_then_yield, &b);

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    let_run();
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c) == -ECANCELED && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* test_cancelled_wakeup (3.13): cancelled and notified at the same time. */
ON_1_AND_4(condition, a_notify_that_meets_a_cancelled_waiter_goes_to_the_next)
{
    struct both b = { .is_so = false };
    struct co *c[3];

    for (int i = 0; i < 3; i++)
        c[i] = wait_as(i + 1, wait_once, &b);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cancel(c[0]) == 0);
    let_run(); /* it has left the queue, and waits for the lock */
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c[0]) == -ECANCELED && end_of(c[1]) == 0);
    SHOULD(DIARY_IS(2) && !mag_done(c[2]));
    SHOULD(notify(&b, 1) == 0);
    return end_of(c[2]);
}

/* The same with nothing in between: one of the two has been notified. */
ON_1_AND_4(condition, cancel_and_notify_in_one_breath_lose_no_notify)
{
    for (int i = 0; i < 20; i++) {
        struct both b = { .is_so = false };
        struct co *first = begin_as(1, wait_once, &b), *second;
        int rc;

        let_run();
        second = begin_as(2, wait_once, &b);
        let_run();
        if (i % 2)
            SHOULD(mag_cancel(first) == 0);
        SHOULD(notify(&b, 1) == 0);
        SHOULD(mag_cancel(first) == 0);
        rc = end_of(first);
        SHOULD(rc == 0 || rc == -ECANCELED);
        if (rc == 0)
            SHOULD(!mag_done(second) && notify(&b, 1) == 0);
        SHOULD(end_of(second) == 0);
    }
    return 0;
}

/* test_cancelled_wakeup_relock (3.13): notified, and cancelled while it takes the lock. */
ON_1_AND_4(condition, notified_ones_that_are_cancelled_all_return_and_free_the_lock)
{
    struct both b = { .is_so = false };
    struct co *c[4];

    for (int i = 0; i < 4; i++)
        c[i] = wait_as(i + 1, wait_once, &b);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify_all(&b.cond) == 0);
    for (int i = 0; i < 4; i++)
        SHOULD(mag_cancel(c[i]) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    for (int i = 0; i < 4; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(diary_length() == 4 && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* test_cancelled_error_re_aquire (3.13): cancelled twice, the second time while it takes the
 * lock again. */
ON_1_AND_4(condition, a_second_cancel_while_it_takes_the_lock_changes_nothing)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_once, &b);

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(!mag_done(c));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c) == -ECANCELED && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* test_timeout_in_block */
ON_1_AND_4(condition, a_timeout_in_the_block_leaves_the_lock_held)
{
    struct both b = { .is_so = false };
    struct mag_scope s;

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_scope_enter(&s, mag_now() + MAG_MS, NULL) == 0);
    SHOULD(mag_scope_leave(&s, mag_cond_wait(&b.cond, &b.mutex)) == -ETIMEDOUT);
    SHOULD(mag_mutex_locked(&b.mutex) && mag_mutex_unlock(&b.mutex) == 0);
    return 0;
}

/* ---- a lock of its own, or one that is shared ------------------------------------------------ */

/* test_explicit_lock: two conditions of one lock are independent. */
ON_1_AND_4(condition, two_conditions_may_share_a_lock)
{
    struct both b = { .is_so = false };
    struct mag_cond other = { 0 };
    struct co *c = wait_as(1, wait_once, &b);

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify_all(&other) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    let_run();
    SHOULD(!mag_done(c));
    SHOULD(notify(&b, 1) == 0);
    return end_of(c);
}

/* ---- cancelled at each suspension in turn ------------------------------------------------------ */

struct scene {
    struct both both;
    int n_ready, n_got; /* [mutex] */
    bool is_broken;
};

static bool has_one(void *arg)
{
    return ((struct scene *)arg)->n_ready > 0;
}

static int get(struct scene *s)
{
    int rc = mag_mutex_lock(&s->both.mutex);

    if (rc < 0)
        return rc;
    rc = mag_cond_wait_until_true(&s->both.cond, &s->both.mutex, has_one, s);
    s->is_broken |= !mag_mutex_locked(&s->both.mutex);
    if (rc == 0)
        s->n_ready--, s->n_got++;
    s->is_broken |= mag_mutex_unlock(&s->both.mutex) < 0;
    return rc;
}

enum { WANTED = 3 };

static int get_all(struct scene *s, bool is_victim)
{
    int rc = 0;

    for (int i = 0; i < WANTED && rc == 0; i++) {
        if (is_victim)
            nth_point();
        rc = get(s);
    }
    return rc;
}

static int bystander_main(void *arg, long *value)
{
    (void)value;
    return get_all(arg, false);
}

/* Puts one at a time, notifies one, until everybody who wants has had theirs. */
static int put_until(struct scene *s, const bool *is_over)
{
    while (!*is_over) {
        SHOULD(mag_mutex_lock(&s->both.mutex) == 0);
        if (s->n_ready == 0) {
            s->n_ready++;
            SHOULD(mag_cond_notify(&s->both.cond, 1) == 0);
        }
        SHOULD(mag_mutex_unlock(&s->both.mutex) == 0);
        SHOULD(mag_yield() == 0);
    }
    return 0;
}

struct putting {
    struct scene *scene;
    bool is_over;
};

static int putter(void *arg, long *value)
{
    struct putting *p = arg;

    (void)value;
    return put_until(p->scene, &p->is_over);
}

/* The victim gets; a bystander gets as many: a notify that went with the victim would leave
 * the bystander waiting for ever, with something to have. */
static int victim_and_bystander(void *arg, long *value)
{
    struct putting p = { .scene = arg };
    struct co *put = go(putter, &p), *bystander = go(bystander_main, arg);
    struct mag_scope shield;
    int rc = get_all(arg, true);

    (void)value;
    SHOULD(mag_shield_enter(&shield, MAG_NEVER, NULL) == 0);
    SHOULD(await_co(bystander, NULL) == 0);
    p.is_over = true;
    SHOULD(mag_scope_leave(&shield, await_co(put, NULL)) == 0);
    return rc;
}

static int everybody_got_theirs(void *arg, int rc)
{
    struct scene *s = arg;

    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(!s->is_broken && !mag_mutex_locked(&s->both.mutex));
    SHOULD(rc < 0 || s->n_got == 2 * WANTED);
    *s = (struct scene){ .n_ready = 0 };
    return 0;
}

ON_1(condition, cancelled_at_each_suspension_it_keeps_nothing_from_the_others)
{
    struct scene s = { .n_ready = 0 };

    return nth_cancel(victim_and_bystander, &s, everybody_got_theirs);
}
