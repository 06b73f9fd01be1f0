/* SPDX-License-Identifier: MIT */
/* rwlock.c - who may be inside together, in which order, and after which cancels */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(rwlock, .timeout = 60);

static int rdlock(void *l)
{
    return mag_rwlock_rdlock(l);
}

static int wrlock(void *l)
{
    return mag_rwlock_wrlock(l);
}

/* ---- alone ----------------------------------------------------------------------------------- */

ON_1_AND_4(rwlock, refuses_null)
{
    SHOULD(mag_rwlock_rdlock(NULL) == -EINVAL && mag_rwlock_wrlock(NULL) == -EINVAL);
    SHOULD(mag_rwlock_tryrdlock(NULL) == -EINVAL && mag_rwlock_trywrlock(NULL) == -EINVAL);
    SHOULD(mag_rwlock_rdunlock(NULL) == -EINVAL && mag_rwlock_wrunlock(NULL) == -EINVAL);
    return 0;
}

ON_1_AND_4(rwlock, refuses_to_end_what_nobody_began)
{
    struct mag_rwlock l = { 0 };

    SHOULD(mag_rwlock_rdunlock(&l) == -EPERM && mag_rwlock_wrunlock(&l) == -EPERM);
    SHOULD(mag_rwlock_rdlock(&l) == 0 && mag_rwlock_wrunlock(&l) == -EPERM);
    SHOULD(mag_rwlock_rdunlock(&l) == 0 && mag_rwlock_rdunlock(&l) == -EPERM);
    SHOULD(mag_rwlock_wrlock(&l) == 0 && mag_rwlock_rdunlock(&l) == -EPERM);
    SHOULD(mag_rwlock_wrunlock(&l) == 0 && mag_rwlock_wrunlock(&l) == -EPERM);
    return 0;
}

ON_1_AND_4(rwlock, many_read_or_one_writes)
{
    struct mag_rwlock l = { 0 };

    SHOULD(mag_rwlock_rdlock(&l) == 0 && mag_rwlock_tryrdlock(&l) == 0);
    SHOULD(mag_rwlock_trywrlock(&l) == -EBUSY);
    SHOULD(mag_rwlock_rdunlock(&l) == 0 && mag_rwlock_trywrlock(&l) == -EBUSY);
    SHOULD(mag_rwlock_rdunlock(&l) == 0 && mag_rwlock_trywrlock(&l) == 0);
    SHOULD(mag_rwlock_tryrdlock(&l) == -EBUSY && mag_rwlock_trywrlock(&l) == -EBUSY);
    SHOULD(mag_rwlock_wrunlock(&l) == 0 && mag_rwlock_tryrdlock(&l) == 0);
    SHOULD(mag_rwlock_rdunlock(&l) == 0);
    return 0;
}

/* ---- in order ----------------------------------------------------------------------------------- */

ON_1(rwlock, readers_that_stand_together_go_in_together)
{
    struct mag_rwlock l = { 0 };
    struct co *c[5];

    SHOULD(mag_rwlock_wrlock(&l) == 0);
    c[0] = wait_as(1, rdlock, &l);
    c[1] = wait_as(2, rdlock, &l);
    c[2] = wait_as(3, wrlock, &l);
    c[3] = wait_as(4, rdlock, &l);
    c[4] = wait_as(5, wrlock, &l);
    SHOULD(mag_rwlock_wrunlock(&l) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2));
    SHOULD(mag_rwlock_rdunlock(&l) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2));
    SHOULD(mag_rwlock_rdunlock(&l) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2, 3));
    SHOULD(mag_rwlock_wrunlock(&l) == 0);
    let_run();
    SHOULD(DIARY_IS(1, 2, 3, 4));
    SHOULD(mag_rwlock_rdunlock(&l) == 0);
    for (int i = 0; i < 5; i++)
        SHOULD(end_of(c[i]) == 0);
    SHOULD(DIARY_IS(1, 2, 3, 4, 5) && mag_rwlock_wrunlock(&l) == 0);
    return 0;
}

ON_1_AND_4(rwlock, a_waiting_writer_keeps_new_readers_out)
{
    struct mag_rwlock l = { 0 };
    struct co *writer, *reader;

    SHOULD(mag_rwlock_rdlock(&l) == 0);
    writer = wait_as(1, wrlock, &l);
    SHOULD(mag_rwlock_tryrdlock(&l) == -EBUSY && mag_rwlock_trywrlock(&l) == -EBUSY);
    reader = wait_as(2, rdlock, &l);
    SHOULD(!mag_done(reader) && !mag_done(writer));
    SHOULD(mag_rwlock_rdunlock(&l) == 0);
    SHOULD(end_of(writer) == 0 && !mag_done(reader));
    SHOULD(mag_rwlock_wrunlock(&l) == 0);
    SHOULD(end_of(reader) == 0 && mag_rwlock_rdunlock(&l) == 0);
    return 0;
}

static mag_atomic(uint32_t) is_over, n_reads;

static int reads_on_and_on(void *l, long *value)
{
    *value = 0;
    while (!mag_load_acquire(&is_over)) {
        SHOULD(mag_rwlock_rdlock(l) == 0);
        mag_fetch_add(&n_reads, 1);
        SHOULD(mag_yield() == 0);
        SHOULD(mag_rwlock_rdunlock(l) == 0);
        SHOULD(mag_yield() == 0);
    }
    return 0;
}

ON_1_AND_4(rwlock, readers_who_keep_coming_do_not_starve_a_writer)
{
    struct mag_rwlock l = { 0 };
    struct co *c[6];

    is_over = n_reads = 0;
    for (int i = 0; i < 6; i++)
        c[i] = go(reads_on_and_on, &l);
    while (mag_load_relaxed(&n_reads) < 50)
        mag_yield();
    for (int i = 0; i < 50; i++) {
        SHOULD(mag_rwlock_wrlock(&l) == 0);
        SHOULD(mag_rwlock_wrunlock(&l) == 0);
    }
    mag_store_release(&is_over, 1);
    for (int i = 0; i < 6; i++)
        SHOULD(await_co(c[i], NULL) == 0);
    return 0;
}

/* ---- cancelled -------------------------------------------------------------------------------------- */

ON_1_AND_4(rwlock, a_cancelled_writer_lets_the_readers_behind_it_in)
{
    struct mag_rwlock l = { 0 };
    struct co *writer, *reader[2];

    SHOULD(mag_rwlock_rdlock(&l) == 0);
    writer = wait_as(1, wrlock, &l);
    reader[0] = wait_as(2, rdlock, &l);
    reader[1] = wait_as(3, rdlock, &l);
    SHOULD(cancelled_end_of(writer) == -ECANCELED);
    SHOULD(end_of(reader[0]) == 0 && end_of(reader[1]) == 0);
    for (int i = 0; i < 3; i++)
        SHOULD(mag_rwlock_rdunlock(&l) == 0);
    SHOULD(mag_rwlock_trywrlock(&l) == 0);
    return 0;
}

ON_1_AND_4(rwlock, a_cancelled_reader_leaves_the_others)
{
    struct mag_rwlock l = { 0 };
    struct co *reader[2], *writer;

    SHOULD(mag_rwlock_wrlock(&l) == 0);
    reader[0] = wait_as(1, rdlock, &l);
    writer = wait_as(2, wrlock, &l);
    reader[1] = wait_as(3, rdlock, &l);
    SHOULD(cancelled_end_of(reader[0]) == -ECANCELED);
    SHOULD(!mag_done(writer) && !mag_done(reader[1]));
    SHOULD(mag_rwlock_wrunlock(&l) == 0 && end_of(writer) == 0);
    SHOULD(mag_rwlock_wrunlock(&l) == 0 && end_of(reader[1]) == 0);
    SHOULD(mag_rwlock_rdunlock(&l) == 0 && mag_rwlock_rdunlock(&l) == -EPERM);
    return 0;
}

ON_1_AND_4(rwlock, who_was_let_in_stays_in)
{
    struct mag_rwlock l = { 0 };
    struct co *writer;

    SHOULD(mag_rwlock_rdlock(&l) == 0);
    writer = wait_as(1, wrlock, &l);
    SHOULD(mag_rwlock_rdunlock(&l) == 0);
    SHOULD(cancelled_end_of(writer) == 0);
    SHOULD(mag_rwlock_tryrdlock(&l) == -EBUSY && mag_rwlock_wrunlock(&l) == 0);
    return 0;
}

ON_1_AND_4(rwlock, a_wait_can_time_out)
{
    struct mag_rwlock l = { 0 };
    struct mag_scope s;
    struct co *reader;

    SHOULD(mag_rwlock_rdlock(&l) == 0);
    SHOULD(mag_scope_enter(&s, mag_now() + 5 * MAG_MS, NULL) == 0);
    reader = go(waiter_main, &(struct waiter){ 1, rdlock, &l });
    SHOULD(mag_scope_leave(&s, mag_rwlock_wrlock(&l)) == -ETIMEDOUT);
    SHOULD(end_of(reader) == 0);
    SHOULD(mag_rwlock_rdunlock(&l) == 0 && mag_rwlock_rdunlock(&l) == 0);
    return 0;
}

/* ---- tasks and threads, cancelled everywhere ------------------------------------------------------------ */

struct book {
    struct mag_rwlock l;
    mag_atomic(int32_t) n_readers, n_writers, n_wrong;
    long pages[2]; /* equal, except while somebody writes */
};

static int use(struct book *b, bool writes, bool suspends)
{
    int rc = writes ? mag_rwlock_wrlock(&b->l) : mag_rwlock_rdlock(&b->l);

    if (rc < 0)
        return rc;
    mag_fetch_add(writes ? &b->n_writers : &b->n_readers, 1);
    if (writes) {
        b->pages[0]++;
        rc = suspends ? mag_yield() : 0;
        if (mag_load_relaxed(&b->n_readers) || mag_load_relaxed(&b->n_writers) != 1)
            mag_fetch_add(&b->n_wrong, 1);
        b->pages[1]++;
    } else {
        rc = suspends ? mag_yield() : 0;
        if (b->pages[0] != b->pages[1] || mag_load_relaxed(&b->n_writers))
            mag_fetch_add(&b->n_wrong, 1);
    }
    mag_fetch_sub(writes ? &b->n_writers : &b->n_readers, 1);
    return (writes ? mag_rwlock_wrunlock(&b->l) : mag_rwlock_rdunlock(&b->l)) < 0 ? -EPROTO : rc;
}

static void *thread_uses(void *book)
{
    for (int i = 0; i < 500; i++)
        if (use(book, i % 4 == 0, false) < 0)
            return book;
    return NULL;
}

static int task_uses(void *book, long *value)
{
    *value = 0;
    for (int i = 0; i < 500; i++)
        SHOULD(use(book, i % 4 == 0, true) == 0);
    return 0;
}

ON_1_AND_4(rwlock, tasks_and_threads_share_it)
{
    struct book b = { .n_wrong = 0 };
    pthread_t t[2];
    void *c[4], *failed;

    for (int i = 0; i < 2; i++)
        SHOULD(pthread_create(&t[i], NULL, thread_uses, &b) == 0);
    for (int i = 0; i < 4; i++)
        c[i] = co(task_uses, &b);
    SHOULD(mag_gather(NULL, 0, c, 4, NULL) == 0);
    for (int i = 0; i < 2; i++)
        SHOULD(pthread_join(t[i], &failed) == 0 && failed == NULL);
    SHOULD(b.n_wrong == 0 && b.pages[0] == 6 * 125 && b.pages[1] == 6 * 125);
    return 0;
}

static int uses_a_few_times(void *book, long *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++) {
        int rc = use(book, i % 2, true);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int club(void *book, long *value)
{
    void *c[5];

    *value = 0;
    for (int i = 0; i < 5; i++)
        c[i] = co(uses_a_few_times, book);
    nth_point();
    return mag_gather(NULL, 0, c, 5, NULL);
}

static int nobody_is_in(void *book, int rc)
{
    struct book *b = book;

    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(b->n_wrong == 0 && b->n_readers == 0 && b->n_writers == 0);
    SHOULD(mag_rwlock_trywrlock(&b->l) == 0 && mag_rwlock_wrunlock(&b->l) == 0);
    return 0;
}

ON_1_AND_4(rwlock, is_whole_after_a_cancel_at_any_suspension)
{
    struct book b = { .n_wrong = 0 };

    return nth_cancel(club, &b, nobody_is_in);
}
