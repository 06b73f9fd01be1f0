/* SPDX-License-Identifier: MIT */
/* mutex.c - what mutex.c promises beyond asyncio's locks (those: tests/asyncio/locks_mutex.c) */
#include "clock.h"
#include "waiters.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(mutex, .timeout = 20);

static int lock(void *mutex)
{
    return mag_mutex_lock(mutex);
}

static int lock_and_unlock(void *mutex)
{
    int rc = mag_mutex_lock(mutex);

    return rc < 0 ? rc : mag_mutex_unlock(mutex);
}

/* ---- mistakes ----------------------------------------------------------------------- */

ON_1(mutex, null_is_invalid)
{
    SHOULD(mag_mutex_lock(NULL) == -EINVAL);
    SHOULD(mag_mutex_trylock(NULL) == -EINVAL);
    SHOULD(mag_mutex_unlock(NULL) == -EINVAL);
    SHOULD(!mag_mutex_locked(NULL));
    return 0;
}

ON_1(mutex, unlock_of_a_free_one_is_refused_each_time)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_mutex_unlock(&m) == -EPERM);
    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_unlock(&m) == 0);
    SHOULD(mag_mutex_unlock(&m) == -EPERM && mag_mutex_unlock(&m) == -EPERM);
    SHOULD(mag_mutex_lock(&m) == 0);
    return 0;
}

/* What is printed while fn runs. */
static size_t printed_by(void (*fn)(void), char *text, size_t bytes)
{
    FILE *file = tmpfile();
    int saved = dup(2);
    ssize_t n;

    cr_assert(file && saved >= 0 && dup2(fileno(file), 2) == 2);
    fn();
    cr_assert(dup2(saved, 2) == 2);
    close(saved);
    n = pread(fileno(file), text, bytes - 1, 0);
    fclose(file);
    text[n > 0 ? n : 0] = '\0';
    return strlen(text);
}

static void unlock_a_free_one(void)
{
    struct mag_mutex m = { 0 };

    cr_assert_eq(mag_mutex_unlock(&m), -EPERM);
}

Test(mutex, debug_mode_says_what_was_wrong)
{
    char text[500];

    setenv("MAGPIE_DEBUG", "1", 1);
    cr_assert_gt(printed_by(unlock_a_free_one, text, sizeof text), 0);
    cr_assert(strstr(text, "mag_mutex_unlock"), "%s", text);
    cr_assert_eq(strchr(text, '\n'), text + strlen(text) - 1, "more than a line: %s", text);
}

Test(mutex, without_debug_mode_nothing_is_said)
{
    char text[500];

    unsetenv("MAGPIE_DEBUG");
    cr_assert_eq(printed_by(unlock_a_free_one, text, sizeof text), 0, "%s", text);
}

/* ---- taking, at once ------------------------------------------------------------------ */

ON_1(mutex, trylock_takes_a_free_one_only)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_mutex_trylock(&m) == 0 && mag_mutex_locked(&m));
    SHOULD(mag_mutex_trylock(&m) == -EBUSY);
    SHOULD(mag_mutex_unlock(&m) == 0 && !mag_mutex_locked(&m));
    SHOULD(mag_mutex_trylock(&m) == 0);
    return 0;
}

Test(mutex, works_outside_of_any_runtime)
{
    struct mag_mutex m = { 0 };

    cr_assert_eq(mag_mutex_lock(&m), 0);
    cr_assert_eq(mag_mutex_trylock(&m), -EBUSY);
    cr_assert_eq(mag_mutex_unlock(&m), 0);
}

ON_1(mutex, a_cancelled_task_takes_a_free_one)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_cancel(mag_self()) == 0);
    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_unlock(&m) == 0);
    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_lock(&m) == -ECANCELED);
    SHOULD(mag_mutex_unlock(&m) == 0 && mag_mutex_lock(&m) == 0);
    return 0;
}

ON_1(mutex, who_is_there_takes_it_before_who_was_woken)
{
    struct mag_mutex m = { 0 };
    struct co *c;

    SHOULD(mag_mutex_lock(&m) == 0);
    c = wait_as(1, lock, &m);
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(mag_mutex_lock(&m) == 0);
    let_run();
    SHOULD(diary_length() == 0);
    SHOULD(mag_mutex_unlock(&m) == 0);
    return end_of(c);
}

/* ---- fairness ------------------------------------------------------------------------- */

/* No millisecond passes here: after one, who waits is given it (see below). */
static mag_time the_same_moment(void)
{
    return 3600 * MAG_SECOND;
}

static int frozen(void)
{
    struct mag_mutex m = { 0 };
    struct co *a, *b;

    SHOULD(mag_mutex_lock(&m) == 0);
    a = wait_as(1, lock_and_unlock, &m);
    b = wait_as(2, lock_and_unlock, &m);
    for (int i = 0; i < 3; i++) {
        SHOULD(mag_mutex_unlock(&m) == 0);
        SHOULD(mag_mutex_trylock(&m) == 0);
        mag_yield();
    }
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(end_of(b) == 0 && end_of(a) == 0 && DIARY_IS(1, 2));
    return 0;
}

ON_1(mutex, who_was_woken_in_vain_stays_the_first)
{
    int rc;

    mag_clock_set_source(the_same_moment);
    rc = frozen();
    mag_clock_set_source(NULL);
    return rc;
}

ON_1(mutex, who_was_woken_in_vain_after_a_millisecond_is_given_it)
{
    struct mag_mutex m = { 0 };
    struct co *c;

    SHOULD(mag_mutex_lock(&m) == 0);
    c = wait_as(1, lock, &m);
    SHOULD(mag_sleep(2 * MAG_MS) == 0);
    SHOULD(mag_mutex_unlock(&m) == 0 && mag_mutex_trylock(&m) == 0);
    mag_yield(); /* in vain */
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(mag_mutex_locked(&m) && mag_mutex_trylock(&m) == -EBUSY);
    SHOULD(end_of(c) == 0 && DIARY_IS(1));
    return mag_mutex_unlock(&m);
}

/* One that never suspends by itself, on the same worker as one who waits. */
static int take_again_and_again(void *arg, long *value)
{
    for (*value = 0; diary_length() == 0 && *value < 1000000; ++*value) {
        SHOULD(mag_mutex_lock(arg) == 0);
        SHOULD(mag_mutex_unlock(arg) == 0);
    }
    return 0;
}

ON_1(mutex, one_that_never_suspends_does_not_keep_its_worker_from_a_waiter)
{
    struct mag_mutex m = { 0 };
    struct co *c, *hog;
    long n = 0;

    SHOULD(mag_mutex_lock(&m) == 0);
    c = wait_as(1, lock_and_unlock, &m);
    hog = go(take_again_and_again, &m);
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(await_co(hog, &n) == 0 && n < 1000);
    return end_of(c);
}

/* ---- cancelled, late -------------------------------------------------------------------- */

/* Woken and cancelled before it runs: it has the mutex, or another one was woken. */
ON_1(mutex, woken_and_cancelled_at_once_still_takes_a_free_one)
{
    struct mag_mutex m = { 0 };
    struct co *a;

    SHOULD(mag_mutex_lock(&m) == 0);
    a = wait_as(1, lock, &m);
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(cancelled_end_of(a) == 0 && mag_mutex_locked(&m));
    return mag_mutex_unlock(&m);
}

ON_1(mutex, woken_and_cancelled_and_in_vain_leaves_the_wake_up_to_the_next)
{
    struct mag_mutex m = { 0 };
    struct co *a, *b;

    SHOULD(mag_mutex_lock(&m) == 0);
    a = wait_as(1, lock_and_unlock, &m);
    b = wait_as(2, lock_and_unlock, &m);
    SHOULD(mag_mutex_unlock(&m) == 0 && mag_mutex_trylock(&m) == 0);
    SHOULD(cancelled_end_of(a) == -ECANCELED);
    SHOULD(mag_mutex_unlock(&m) == 0);
    SHOULD(end_of(b) == 0 && DIARY_IS(2) && !mag_mutex_locked(&m));
    return 0;
}

static int lock_within_a_millisecond(void *mutex)
{
    struct mag_scope s;
    int rc = mag_scope_enter(&s, mag_now() + MAG_MS, NULL);

    return rc < 0 ? rc : mag_scope_leave(&s, mag_mutex_lock(mutex));
}

ON_1_AND_4(mutex, a_deadline_ends_the_wait)
{
    struct mag_mutex m = { 0 };

    SHOULD(mag_mutex_lock(&m) == 0);
    SHOULD(lock_within_a_millisecond(&m) == -ETIMEDOUT);
    SHOULD(mag_mutex_unlock(&m) == 0 && lock_within_a_millisecond(&m) == 0);
    return 0;
}

/* The unlock comes when the deadline does: it has been taken, or not. */
ON_1_AND_4(mutex, a_deadline_at_the_moment_of_the_unlock_is_one_or_the_other)
{
    struct mag_mutex m = { 0 };

    for (int i = 0; i < 40; i++) {
        struct co *c;
        int rc;

        SHOULD(mag_mutex_lock(&m) == 0);
        c = begin_as(1, lock_within_a_millisecond, &m);
        SHOULD(mag_sleep(MAG_MS - 20 * MAG_US + i * MAG_US) == 0);
        SHOULD(mag_mutex_unlock(&m) == 0);
        rc = end_of(c);
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        SHOULD(mag_mutex_locked(&m) == (rc == 0));
        if (rc == 0)
            SHOULD(mag_mutex_unlock(&m) == 0);
    }
    return 0;
}

/* ---- together ---------------------------------------------------------------------------- */

enum { SHARERS = 8, ROUNDS = 300 };

static struct {
    struct mag_mutex mutex;
    long n; /* [mutex] */
} shared;

static int add(void *arg, long *value)
{
    (void)value;
    for (int i = 0; i < ROUNDS; i++) {
        SHOULD(mag_mutex_lock(&shared.mutex) == 0);
        long n = shared.n;
        if ((i + num(arg)) % 7 == 0)
            mag_yield();
        shared.n = n + 1;
        SHOULD(mag_mutex_unlock(&shared.mutex) == 0);
    }
    return 0;
}

static void *add_outside(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        mag_mutex_lock(&shared.mutex);
        long n = shared.n;
        if (i % 50 == 0)
            usleep(100);
        shared.n = n + 1;
        mag_mutex_unlock(&shared.mutex);
    }
    return arg;
}

ON_1_AND_4(mutex, tasks_and_threads_outside_exclude_each_other)
{
    struct co *c[SHARERS];
    pthread_t thread[2];

    shared.n = 0;
    for (int i = 0; i < 2; i++)
        SHOULD(pthread_create(&thread[i], NULL, add_outside, NULL) == 0);
    for (int i = 0; i < SHARERS; i++)
        c[i] = go(add, arg_of(i));
    for (int i = 0; i < SHARERS; i++)
        SHOULD(await_co(c[i], NULL) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    SHOULD(shared.n == (SHARERS + 2) * ROUNDS && !mag_mutex_locked(&shared.mutex));
    return 0;
}

/* Two threads outside; one is blocked, the other gives the mutex back. */
static void *lock_outside(void *mutex)
{
    return mag_mutex_lock(mutex) == 0 ? mutex : NULL;
}

Test(mutex, a_thread_outside_is_blocked_until_the_unlock)
{
    struct mag_mutex m = { 0 };
    pthread_t thread;
    void *got;

    cr_assert_eq(mag_mutex_lock(&m), 0);
    cr_assert_eq(pthread_create(&thread, NULL, lock_outside, &m), 0);
    usleep(3000);
    cr_assert_eq(mag_mutex_unlock(&m), 0);
    pthread_join(thread, &got);
    cr_assert_eq(got, &m);
    cr_assert(mag_mutex_locked(&m));
}

/* The last to leave frees it: nothing may touch it any more by then. */
struct counted {
    struct mag_mutex mutex;
    int n_refs; /* [mutex] */
};

static int drop(void *arg, long *value)
{
    struct counted *c = arg;
    bool is_last;

    (void)value;
    SHOULD(mag_mutex_lock(&c->mutex) == 0);
    is_last = --c->n_refs == 0;
    SHOULD(mag_mutex_unlock(&c->mutex) == 0);
    if (is_last) {
        memset(c, 0xee, sizeof *c);
        free(c);
    }
    return 0;
}

ON_1_AND_4(mutex, the_last_holder_may_free_it)
{
    for (int round = 0; round < 100; round++) {
        struct counted *c = calloc(1, sizeof *c);
        struct co *droppers[6];

        c->n_refs = 6;
        for (int i = 0; i < 6; i++)
            droppers[i] = go(drop, c);
        for (int i = 0; i < 6; i++)
            SHOULD(await_co(droppers[i], NULL) == 0);
    }
    return 0;
}
