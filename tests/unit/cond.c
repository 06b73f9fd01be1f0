/* SPDX-License-Identifier: MIT */
/* cond.c - what cond.c promises beyond asyncio's conditions (those: tests/asyncio/conditions.c) */
#include "waiters.h"
#include "worker.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(cond, .timeout = 20);

struct both {
    struct mag_mutex mutex;
    struct mag_cond cond;
    bool is_so;   /* [mutex] */
    int n_waited; /* [mutex] who has begun to wait */
};

/* Takes the mutex, waits, and gives it back, if it has it. */
static int wait_once(void *arg)
{
    struct both *b = arg;
    int rc = mag_mutex_lock(&b->mutex), rc2;

    if (rc < 0)
        return rc;
    b->n_waited++;
    rc = mag_cond_wait(&b->cond, &b->mutex);
    rc2 = mag_mutex_unlock(&b->mutex);
    return rc2 < 0 ? -EBADE : rc;
}

/* Until n have begun to wait: the mutex that they gave back says that they do wait. */
static int have_waited(struct both *b, int n)
{
    for (;;) {
        bool have;
        SHOULD(mag_mutex_lock(&b->mutex) == 0);
        have = b->n_waited >= n;
        SHOULD(mag_mutex_unlock(&b->mutex) == 0);
        if (have)
            return 0;
        SHOULD(mag_yield() == 0);
    }
}

/* ---- mistakes ------------------------------------------------------------------------- */

static bool never(void *arg)
{
    (void)arg;
    return false;
}

ON_1(cond, null_is_invalid)
{
    struct both b = { .is_so = false };

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_wait(NULL, &b.mutex) == -EINVAL);
    SHOULD(mag_cond_wait(&b.cond, NULL) == -EINVAL);
    SHOULD(mag_cond_wait_until_true(&b.cond, &b.mutex, NULL, NULL) == -EINVAL);
    SHOULD(mag_cond_wait_until_true(NULL, &b.mutex, never, NULL) == -EINVAL);
    SHOULD(mag_cond_notify(NULL, 1) == -EINVAL);
    SHOULD(mag_cond_notify_all(NULL) == -EINVAL);
    SHOULD(mag_mutex_locked(&b.mutex));
    return 0;
}

ON_1(cond, nobody_waits_and_notify_does_nothing)
{
    struct both b = { .is_so = false };
    struct co *c;

    SHOULD(mag_cond_notify(&b.cond, 0) == 0);
    SHOULD(mag_cond_notify(&b.cond, 5) == 0);
    SHOULD(mag_cond_notify_all(&b.cond) == 0);
    c = wait_as(1, wait_once, &b);
    SHOULD(diary_length() == 0); /* it was not kept for who came later */
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    return end_of(c);
}

/* ---- no herd -------------------------------------------------------------------------- */

enum { HERD = 50 };

ON_1(cond, notify_all_makes_nobody_run_while_the_mutex_is_held)
{
    struct both b = { .is_so = false };
    struct co *c[HERD];

    for (int i = 0; i < HERD; i++)
        c[i] = wait_as(i, wait_once, &b);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify_all(&b.cond) == 0);
    SHOULD(!mag_worker_has_work(mag_worker_self()));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(mag_worker_self()->ready.count + (mag_worker_self()->next != NULL) == 1);
    for (int i = 0; i < HERD; i++)
        SHOULD(end_of(c[i]) == 0 && diary.entry[i] == i);
    return 0;
}

ON_1_AND_4(cond, notify_without_the_mutex_wakes_too)
{
    struct both b = { .is_so = false };
    struct co *c[HERD];

    for (int i = 0; i < HERD; i++)
        c[i] = begin_as(i, wait_once, &b);
    SHOULD(have_waited(&b, HERD) == 0);
    SHOULD(mag_cond_notify_all(&b.cond) == 0);
    for (int i = 0; i < HERD; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(diary_length() == HERD && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* ---- cancelled, late -------------------------------------------------------------------- */

ON_1(cond, a_notified_one_that_is_cancelled_then_returns_0_with_the_mutex)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_once, &b);

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(!mag_done(c));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c) == 0 && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* It was woken to try, is cancelled, and finds the mutex held: it must wait on, shielded. */
ON_1(cond, a_notified_one_that_is_woken_in_vain_and_cancelled_waits_on)
{
    struct both b = { .is_so = false };
    struct co *c = wait_as(1, wait_once, &b);

    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_notify(&b.cond, 1) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0 && mag_mutex_trylock(&b.mutex) == 0);
    SHOULD(mag_cancel(c) == 0);
    let_run();
    SHOULD(!mag_done(c));
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    SHOULD(end_of(c) == 0 && !mag_mutex_locked(&b.mutex));
    return 0;
}

/* The wait alone has the limit: to get the mutex may take longer. */
static int wait_within_a_millisecond(void *arg)
{
    struct both *b = arg;
    struct mag_scope s;
    int rc = mag_mutex_lock(&b->mutex), rc2;

    if (rc < 0)
        return rc;
    b->n_waited++;
    rc = mag_scope_enter(&s, mag_now() + MAG_MS, NULL);
    if (rc == 0)
        rc = mag_scope_leave(&s, mag_cond_wait(&b->cond, &b->mutex));
    rc2 = mag_mutex_unlock(&b->mutex);
    return rc2 < 0 ? -EBADE : rc;
}

ON_1_AND_4(cond, a_deadline_ends_the_wait_with_the_mutex_held)
{
    struct both b = { .is_so = false };

    SHOULD(wait_within_a_millisecond(&b) == -ETIMEDOUT);
    SHOULD(!mag_mutex_locked(&b.mutex));
    return 0;
}

ON_1_AND_4(cond, a_deadline_at_the_moment_of_the_notify_loses_no_notify)
{
    for (int i = 0; i < 40; i++) {
        struct both b = { .is_so = false };
        struct co *early = begin_as(1, wait_within_a_millisecond, &b), *late;
        mag_time begun = mag_now();
        int rc;

        SHOULD(have_waited(&b, 1) == 0);
        late = begin_as(2, wait_once, &b);
        SHOULD(have_waited(&b, 2) == 0);
        SHOULD(mag_sleep_until(begun + MAG_MS / 2 + i * 25 * MAG_US) == 0);
        SHOULD(mag_cond_notify(&b.cond, 1) == 0);
        rc = end_of(early);
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        if (rc == 0) {
            SHOULD(!mag_done(late));
            SHOULD(mag_cond_notify(&b.cond, 1) == 0);
        }
        SHOULD(end_of(late) == 0);
    }
    return 0;
}

/* ---- threads outside -------------------------------------------------------------------- */

static void *wait_outside(void *arg)
{
    struct both *b = arg;

    if (mag_mutex_lock(&b->mutex) < 0)
        return NULL;
    while (!b->is_so)
        if (mag_cond_wait(&b->cond, &b->mutex) < 0)
            return NULL;
    return mag_mutex_unlock(&b->mutex) < 0 ? NULL : arg;
}

ON_1_AND_4(cond, a_task_notifies_threads_outside)
{
    struct both b = { .is_so = false };
    pthread_t thread[3];
    void *got;

    for (int i = 0; i < 3; i++)
        SHOULD(pthread_create(&thread[i], NULL, wait_outside, &b) == 0);
    SHOULD(mag_sleep(3 * MAG_MS) == 0);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    b.is_so = true;
    SHOULD(mag_cond_notify_all(&b.cond) == 0);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], &got);
        SHOULD(got == &b);
    }
    return 0;
}

static void *notify_outside(void *arg)
{
    struct both *b = arg;

    usleep(3000);
    mag_mutex_lock(&b->mutex);
    b->is_so = true;
    mag_cond_notify_all(&b->cond);
    mag_mutex_unlock(&b->mutex);
    return NULL;
}

static bool is_so(void *arg)
{
    return ((struct both *)arg)->is_so;
}

ON_1_AND_4(cond, a_thread_outside_notifies_a_task)
{
    struct both b = { .is_so = false };
    pthread_t thread;

    SHOULD(pthread_create(&thread, NULL, notify_outside, &b) == 0);
    SHOULD(mag_mutex_lock(&b.mutex) == 0);
    SHOULD(mag_cond_wait_until_true(&b.cond, &b.mutex, is_so, &b) == 0 && b.is_so);
    SHOULD(mag_mutex_unlock(&b.mutex) == 0);
    pthread_join(thread, NULL);
    return 0;
}

/* ---- a queue made of it -------------------------------------------------------------------- */

enum { ITEMS = 300, ROOM = 3, MAKERS = 4 };

static struct {
    struct mag_mutex mutex;
    struct mag_cond not_empty, not_full;
    int n, n_made, n_used; /* [mutex] */
} store;

static bool has_room(void *arg)
{
    (void)arg;
    return store.n < ROOM;
}

static bool has_item(void *arg)
{
    (void)arg;
    return store.n > 0;
}

static int make(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < ITEMS; i++) {
        SHOULD(mag_mutex_lock(&store.mutex) == 0);
        SHOULD(mag_cond_wait_until_true(&store.not_full, &store.mutex, has_room, NULL) == 0);
        SHOULD(++store.n <= ROOM);
        store.n_made++;
        SHOULD(mag_cond_notify(&store.not_empty, 1) == 0);
        SHOULD(mag_mutex_unlock(&store.mutex) == 0);
    }
    return 0;
}

static int use(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < ITEMS; i++) {
        SHOULD(mag_mutex_lock(&store.mutex) == 0);
        SHOULD(mag_cond_wait_until_true(&store.not_empty, &store.mutex, has_item, NULL) == 0);
        SHOULD(--store.n >= 0);
        store.n_used++;
        SHOULD(mag_cond_notify(&store.not_full, 1) == 0);
        SHOULD(mag_mutex_unlock(&store.mutex) == 0);
    }
    return 0;
}

ON_1_AND_4(cond, makers_and_users_of_a_small_store_all_get_done)
{
    struct co *c[2 * MAKERS];

    memset(&store, 0, sizeof store);
    for (int i = 0; i < 2 * MAKERS; i++)
        c[i] = go(i % 2 ? make : use, NULL);
    for (int i = 0; i < 2 * MAKERS; i++)
        SHOULD(await_co(c[i], NULL) == 0);
    SHOULD(store.n == 0 && store.n_made == MAKERS * ITEMS && store.n_used == MAKERS * ITEMS);
    return 0;
}
