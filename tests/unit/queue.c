/* SPDX-License-Identifier: MIT */
/* queue.c - sizes, orders, fairness, cancels, deadlines, threads, and mistakes */
#include "nth_cancel.h"
#include "waiters.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>

TestSuite(queue, .timeout = 60);

static int compare_tens(const void *a, const void *b)
{
    return *(const int *)a / 10 - *(const int *)b / 10;
}

static struct mag_queue *queue_of(enum mag_queue_order order, size_t capacity)
{
    struct mag_queue *q = NULL;

    (void)mag_queue_new(&q, sizeof(int), capacity,
                        &(struct mag_queue_options){ .order = order, .compare = compare_tens });
    return q;
}

static struct mag_queue *queue(size_t capacity)
{
    return queue_of(MAG_FIFO, capacity);
}

static int put(struct mag_queue *q, int item)
{
    return mag_queue_put(q, &item);
}

static int get(struct mag_queue *q)
{
    int item = -1, rc = mag_queue_get(q, &item);

    return rc < 0 ? rc : item;
}

static int get_it(void *q)
{
    return get(q);
}

struct part {
    struct mag_queue *q;
    int item;
};

static int put_it(void *arg)
{
    struct part *p = arg;

    return put(p->q, p->item);
}

static int join_it(void *q)
{
    return mag_queue_join(q);
}

/* ---- making one ---------------------------------------------------------------------------- */

static int refused(size_t bytes, size_t capacity, const struct mag_queue_options *o)
{
    struct mag_queue *q = (struct mag_queue *)1;
    int rc = mag_queue_new(&q, bytes, capacity, o);

    return q == NULL ? rc : 1;
}

Test(queue, refuses_what_cannot_be)
{
    struct mag_queue_options priority = { .order = MAG_PRIORITY, .compare = compare_tens };

    cr_assert_eq(refused(4, 0, NULL), -EINVAL);
    cr_assert_eq(refused(4, 1, &(struct mag_queue_options){ .order = MAG_PRIORITY }), -EINVAL);
    cr_assert_eq(refused(4, 1, &(struct mag_queue_options){ .order = 3 }), -EINVAL);
    cr_assert_eq(refused(SIZE_MAX / 2, 3, NULL), -ENOMEM);
    cr_assert_eq(refused(SIZE_MAX, 1, NULL), -ENOMEM);
    cr_assert_eq(refused(1, SIZE_MAX, NULL), -ENOMEM);
    cr_assert_eq(refused(SIZE_MAX, 1, &priority), -ENOMEM);
    cr_assert_eq(refused(SIZE_MAX - 9, SIZE_MAX - 1, &priority), -ENOMEM);
    cr_assert_eq(mag_queue_new(NULL, 4, 1, NULL), -EINVAL);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(queue, without_memory)
{
    struct mag_queue *q;

    for (uint64_t n = 1; n <= 2; n++) {
        mag_mem_fail_nth(n, false);
        cr_assert_eq(mag_queue_new(&q, 8, 8, NULL), -ENOMEM);
        mag_mem_fail_nth(0, false);
        cr_assert_null(q);
        cr_assert_eq(mag_mem_live(), 0);
    }
}

Test(queue, null_is_refused_and_freed)
{
    int item = 0;

    cr_assert_eq(mag_queue_put(NULL, &item), -EINVAL);
    cr_assert_eq(mag_queue_get(NULL, &item), -EINVAL);
    cr_assert_eq(mag_queue_try_put(NULL, &item), -EINVAL);
    cr_assert_eq(mag_queue_try_get(NULL, &item), -EINVAL);
    cr_assert_eq(mag_queue_task_done(NULL), -EINVAL);
    cr_assert_eq(mag_queue_join(NULL), -EINVAL);
    cr_assert_eq(mag_queue_shutdown(NULL, true), -EINVAL);
    cr_assert_eq(mag_queue_len(NULL), 0);
    cr_assert_eq(mag_queue_capacity(NULL), 0);
    cr_assert(mag_queue_is_empty(NULL));
    cr_assert(!mag_queue_is_full(NULL));
    cr_assert_null(mag_queue_name(NULL));
    mag_queue_free(NULL);
}

Test(queue, has_a_name)
{
    struct mag_queue *q;

    cr_assert_eq(mag_queue_new(&q, 8, 8, NULL), 0);
    cr_assert_str_eq(mag_queue_name(q), "queue");
    mag_queue_free(q);
    cr_assert_eq(mag_queue_new(&q, 8, 8, &(struct mag_queue_options){ .name = "jobs" }), 0);
    cr_assert_str_eq(mag_queue_name(q), "jobs");
    mag_queue_free(q);
}

/* ---- items ----------------------------------------------------------------------------------- */

static void fill(unsigned char *item, size_t bytes, unsigned n)
{
    for (size_t i = 0; i < bytes; i++)
        item[i] = (unsigned char)(n * 31 + i);
}

/* All sizes go through, over the end of the ring, and nothing beside an item is touched. */
static void carries(size_t bytes, size_t capacity)
{
    unsigned char in[300], out[302];
    struct mag_queue *q;
    unsigned n_put = 0, n_got = 0;

    cr_assert_eq(mag_queue_new(&q, bytes, capacity, NULL), 0);
    for (unsigned round = 0; round < 20; round++) {
        for (; fill(in, bytes, n_put), mag_queue_try_put(q, in) == 0; n_put++)
            ;
        cr_assert_eq(mag_queue_len(q), capacity);
        for (unsigned i = 0; i <= round % capacity; i++, n_got++) {
            memset(out, 0xee, sizeof out);
            cr_assert_eq(mag_queue_try_get(q, out + 1), 0);
            fill(in, bytes, n_got);
            cr_assert_eq(memcmp(out + 1, in, bytes), 0);
            cr_assert(out[0] == 0xee && out[1 + bytes] == 0xee);
        }
    }
    mag_queue_free(q);
}

Test(queue, carries_items_of_every_size)
{
    static const size_t sizes[] = { 0, 1, 3, 4, 7, 8, 9, 16, 24, 300 };

    for (size_t i = 0; i < MAG_ARRAY_SIZE(sizes); i++)
        for (size_t capacity = 1; capacity < 8; capacity++)
            carries(sizes[i], capacity);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(queue, a_token_needs_no_address_and_an_item_can_be_dropped)
{
    struct mag_queue *q;
    int item = 5;

    cr_assert_eq(mag_queue_new(&q, 0, 2, NULL), 0);
    cr_assert_eq(mag_queue_try_put(q, NULL), 0);
    cr_assert_eq(mag_queue_try_get(q, NULL), 0);
    mag_queue_free(q);
    q = queue(2);
    cr_assert_eq(mag_queue_try_put(q, &item), 0);
    cr_assert_eq(mag_queue_try_get(q, NULL), 0);
    cr_assert_eq(mag_queue_try_get(q, NULL), -EAGAIN);
    mag_queue_free(q);
}

/* Against a model: what is least comes first, and among equals what is oldest. */
Test(queue, priority_is_stable)
{
    enum { N = 200 };
    struct mag_queue *q = queue_of(MAG_PRIORITY, N);
    unsigned seed = 1;
    int last = -1, last_age = -1, item, n = 0, tens[N];

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < N; i++) {
            seed = seed * 1103515245 + 12345;
            tens[i] = (int)(seed >> 16) % 20 * 10;
        }
        /* the last digit does not count for compare: here it is the age, in order */
        for (int t = 0; t < 10; t++)
            for (int i = 0; i < N / 10; i++) {
                item = tens[i] + t;
                cr_assert_eq(mag_queue_try_put(q, &item), 0);
            }
        for (last = last_age = -1; mag_queue_try_get(q, &item) == 0; n++) {
            cr_assert(item / 10 >= last);
            if (item / 10 > last)
                last_age = -1;
            cr_assert(item % 10 >= last_age, "%d after %d", item % 10, last_age);
            last = item / 10;
            last_age = item % 10;
        }
    }
    cr_assert_eq(n, 5 * N);
    mag_queue_free(q);
}

static int waiting_putter_by_order(enum mag_queue_order order, int first, int second, int third)
{
    struct mag_queue *q = queue_of(order, 2);
    struct part p = { q, 20 };
    struct co *c;

    SHOULD(put(q, 10) == 0 && put(q, 30) == 0);
    c = wait_as(1, put_it, &p);
    SHOULD(get(q) == first);
    SHOULD(end_of(c) == 0);
    SHOULD(mag_queue_len(q) == 2);
    SHOULD(get(q) == second && get(q) == third);
    mag_queue_free(q);
    return 0;
}

ON_1_AND_4(queue, a_waiting_putters_item_takes_its_place_in_the_order)
{
    SHOULD(waiting_putter_by_order(MAG_FIFO, 10, 30, 20) == 0);
    SHOULD(waiting_putter_by_order(MAG_LIFO, 30, 20, 10) == 0);
    SHOULD(waiting_putter_by_order(MAG_PRIORITY, 10, 20, 30) == 0);
    return 0;
}

/* ---- fairness -------------------------------------------------------------------------------- */

ON_1_AND_4(queue, getters_are_served_in_the_order_in_which_they_came)
{
    struct mag_queue *q = queue(8);
    struct co *c[4];

    for (int i = 0; i < 4; i++)
        c[i] = wait_as(i, get_it, q);
    for (int i = 0; i < 4; i++)
        SHOULD(put(q, 100 + i) == 0);
    SHOULD(mag_queue_is_empty(q)); /* handed over, not stored */
    for (int i = 0; i < 4; i++)
        SHOULD(end_of(c[i]) == 100 + i);
    mag_queue_free(q);
    return 0;
}

ON_1_AND_4(queue, putters_are_served_in_the_order_in_which_they_came)
{
    struct mag_queue *q = queue(2);
    struct part p[6];
    struct co *c[6];

    for (int i = 0; i < 6; i++) {
        p[i] = (struct part){ q, i };
        c[i] = wait_as(i, put_it, &p[i]);
    }
    for (int i = 0; i < 6; i++)
        SHOULD(get(q) == i);
    for (int i = 0; i < 6; i++)
        SHOULD(end_of(c[i]) == 0);
    mag_queue_free(q);
    return 0;
}

/* Who comes after a served getter cannot take its item. */
ON_1(queue, nobody_comes_between_a_getter_and_its_item)
{
    struct mag_queue *q = queue(2);
    struct co *c = wait_as(1, get_it, q);
    int item;

    SHOULD(put(q, 7) == 0);
    SHOULD(mag_queue_try_get(q, &item) == -EAGAIN);
    SHOULD(end_of(c) == 7);
    mag_queue_free(q);
    return 0;
}

static int n_turns;

static int take_turns(void *arg)
{
    (void)arg;
    for (;; n_turns++)
        if (mag_yield() < 0)
            return -1;
}

/* A task that never finds it full or empty does not keep its worker for itself. */
ON_1(queue, a_task_that_never_waits_lets_others_run)
{
    struct mag_queue *q = queue(2);
    struct co *c = wait_as(1, take_turns, NULL);
    int before = n_turns;

    for (int i = 0; i < 10000; i++)
        SHOULD(put(q, i) == 0 && get(q) == i);
    SHOULD(n_turns - before > 50);
    SHOULD(cancelled_end_of(c) == -1);
    mag_queue_free(q);
    return 0;
}

/* ---- cancels ----------------------------------------------------------------------------------- */

ON_1_AND_4(queue, a_cancelled_task_may_take_what_is_there_but_not_wait)
{
    struct mag_queue *q = queue(1);

    SHOULD(mag_cancel(mag_self()) == 0);
    SHOULD(put(q, 3) == 0);
    SHOULD(put(q, 4) == -ECANCELED);
    SHOULD(get(q) == 3);
    SHOULD(get(q) == -ECANCELED);
    SHOULD(put(q, 5) == 0);
    SHOULD(mag_queue_join(q) == -ECANCELED);
    mag_queue_free(q);
    return 0;
}

ON_1_AND_4(queue, a_cancelled_joiner_leaves)
{
    struct mag_queue *q = queue(1);
    struct co *a, *b;

    SHOULD(put(q, 1) == 0);
    a = wait_as(1, join_it, q);
    b = wait_as(2, join_it, q);
    SHOULD(cancelled_end_of(a) == -ECANCELED);
    SHOULD(get(q) == 1 && mag_queue_task_done(q) == 0);
    SHOULD(end_of(b) == 0);
    mag_queue_free(q);
    return 0;
}

/* What a scenario that is cancelled anywhere has put must be what it, and who comes after
 * it, have got. */
static struct {
    struct mag_queue *q;
    long n_put, n_got;
} books;

static int keep_getting(void *arg, long *value)
{
    (void)arg;
    for (;;) {
        int item = get(books.q);
        if (item < 0)
            return item == -EPIPE ? 0 : item;
        books.n_got++;
        *value += item;
        mag_queue_task_done(books.q);
    }
}

static int put_seven(void *arg, long *value)
{
    struct co *c = go(keep_getting, NULL);
    int rc = 0, end;

    (void)arg, (void)value;
    for (int i = 0; i < 7 && rc == 0; i++) {
        nth_point();
        rc = put(books.q, i);
        books.n_put += rc == 0;
        if (rc == 0 && i == 3) {
            nth_point();
            rc = mag_queue_join(books.q);
        }
        if (rc == 0 && i % 2) {
            nth_point();
            rc = mag_yield();
        }
    }
    mag_queue_shutdown(books.q, false);
    end = await_co(c, NULL);
    return rc < 0 ? rc : end;
}

static int books_hold(void *arg, int rc)
{
    int item;

    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    while (mag_queue_try_get(books.q, &item) == 0)
        books.n_got++;
    SHOULD(books.n_got == books.n_put);
    SHOULD(rc < 0 || books.n_put == 7);
    mag_queue_free(books.q);
    books.n_put = books.n_got = 0;
    books.q = queue(2);
    return 0;
}

ON_1(queue, nothing_is_lost_wherever_a_cancel_comes)
{
    books.q = queue(2);
    SHOULD(nth_cancel(put_seven, NULL, books_hold) == 0);
    mag_queue_free(books.q);
    return 0;
}

/* ---- deadlines ------------------------------------------------------------------------------------ */

ON_1_AND_4(queue, a_deadline_ends_a_put_a_get_and_a_join)
{
    struct mag_queue *q = queue(1);
    struct mag_scope s;
    int (*const calls[])(void *) = { get_it, put_it, join_it };
    struct part p = { q, 2 };

    for (int i = 0; i < 3; i++) {
        if (i == 1)
            SHOULD(put(q, 1) == 0);
        SHOULD(mag_scope_enter(&s, mag_now() + 2 * MAG_MS, NULL) == 0);
        SHOULD(mag_scope_leave(&s, calls[i](i == 1 ? (void *)&p : q)) == -ETIMEDOUT);
    }
    SHOULD(mag_queue_len(q) == 1);
    mag_queue_free(q);
    return 0;
}

struct meeting {
    struct mag_queue *q;
    mag_time at;
};

static int put_at(void *arg, long *value)
{
    struct meeting *m = arg;

    *value = mag_sleep_until(m->at);
    return *value < 0 ? (int)*value : put(m->q, 1);
}

/* The item comes at the instant of the deadline: it is got, or else still there. */
ON_1_AND_4(queue, an_item_at_the_instant_of_the_deadline_is_not_lost)
{
    struct mag_queue *q = queue(1);

    for (int i = 0; i < 200; i++) {
        struct meeting m = { q, mag_now() + 100 * MAG_US };
        struct co *c = go(put_at, &m);
        struct mag_scope s;
        int rc;
        SHOULD(mag_scope_enter(&s, m.at + (i % 5 - 2) * 10 * MAG_US, NULL) == 0);
        rc = mag_scope_leave(&s, get(q));
        SHOULD(rc == 1 || rc == -ETIMEDOUT);
        SHOULD(await_co(c, NULL) == 0);
        SHOULD(mag_queue_len(q) == (rc == 1 ? 0 : 1));
        if (rc != 1)
            SHOULD(get(q) == 1);
    }
    mag_queue_free(q);
    return 0;
}

/* ---- shutting down ---------------------------------------------------------------------------------- */

ON_1_AND_4(queue, shutdown_wakes_everybody_who_waits)
{
    struct mag_queue *q = queue(1), *full = queue(1);
    struct part p = { full, 2 };
    struct co *getters[3], *putters[3];

    SHOULD(put(full, 1) == 0);
    for (int i = 0; i < 3; i++) {
        getters[i] = wait_as(i, get_it, q);
        putters[i] = wait_as(i, put_it, &p);
    }
    SHOULD(mag_queue_shutdown(q, false) == 0 && mag_queue_shutdown(full, false) == 0);
    for (int i = 0; i < 3; i++)
        SHOULD(end_of(getters[i]) == -EPIPE && end_of(putters[i]) == -EPIPE);
    SHOULD(get(full) == 1 && get(full) == -EPIPE);
    mag_queue_free(q);
    mag_queue_free(full);
    return 0;
}

/* task_done may have been said before the get: the drop does not count below zero. */
Test(queue, an_immediate_shutdown_counts_no_further_than_zero)
{
    struct mag_queue *q = queue(3);
    int item = 1;

    cr_assert_eq(mag_queue_try_put(q, &item), 0);
    cr_assert_eq(mag_queue_try_put(q, &item), 0);
    cr_assert_eq(mag_queue_task_done(q), 0);
    cr_assert_eq(mag_queue_shutdown(q, true), 0);
    cr_assert_eq(mag_queue_task_done(q), -EINVAL);
    cr_assert_eq(mag_queue_join(q), 0);
    mag_queue_free(q);
}

/* ---- threads outside ---------------------------------------------------------------------------------- */

enum { PER_THREAD = 3000 };

static void *put_many(void *arg)
{
    for (int i = 1; i <= PER_THREAD; i++)
        if (put(arg, i) < 0)
            return arg;
    return NULL;
}

static void *get_many(void *arg)
{
    long sum = 0;

    for (int item; (item = get(arg)) >= 0;)
        sum += item;
    return arg_of(sum);
}

static int get_until_the_end(void *arg, long *value)
{
    *value = 0;
    for (int item; (item = get(arg)) >= 0;)
        *value += item;
    return 0;
}

struct joining {
    pthread_t thread;
    void *end;
};

static int join_it_there(void *arg)
{
    struct joining *j = arg;

    return -pthread_join(j->thread, &j->end);
}

/* pthread_join without keeping the worker. */
static void *joined(pthread_t thread)
{
    struct joining j = { thread, (void *)1 };

    return mag_to_thread(join_it_there, &j) < 0 ? (void *)1 : j.end;
}

/* Two threads put; a task and a thread get. */
ON_1_AND_4(queue, works_between_tasks_and_threads)
{
    struct mag_queue *q = queue(16);
    pthread_t producers[2], consumer;
    struct co *c = go(get_until_the_end, q);
    void *end;
    long sum;

    SHOULD(pthread_create(&consumer, NULL, get_many, q) == 0);
    for (int i = 0; i < 2; i++)
        SHOULD(pthread_create(&producers[i], NULL, put_many, q) == 0);
    for (int i = 0; i < 2; i++) {
        SHOULD((end = joined(producers[i])) == NULL);
    }
    SHOULD(mag_queue_shutdown(q, false) == 0);
    end = joined(consumer);
    SHOULD(await_co(c, &sum) == 0);
    SHOULD(sum + num(end) == 2L * PER_THREAD * (PER_THREAD + 1) / 2);
    mag_queue_free(q);
    return 0;
}

static void *join_in_thread(void *arg)
{
    return arg_of(mag_queue_join(arg));
}

Test(queue, join_blocks_a_thread)
{
    struct mag_queue *q = queue(2);
    pthread_t thread;
    void *end;

    cr_assert_eq(put(q, 1), 0);
    cr_assert_eq(pthread_create(&thread, NULL, join_in_thread, q), 0);
    mag_sleep(5 * MAG_MS);
    cr_assert_eq(get(q), 1);
    cr_assert_eq(mag_queue_task_done(q), 0);
    cr_assert_eq(pthread_join(thread, &end), 0);
    cr_assert_eq(num(end), 0);
    mag_queue_free(q);
}

/* ---- mistakes ------------------------------------------------------------------------------------------ */

static int rc_of_callback;

static void get_in_a_callback(void *arg)
{
    rc_of_callback = get(arg);
}

ON_1(queue, a_callback_must_not_wait)
{
    struct mag_queue *q = queue(2);

    SHOULD(mag_call_later(0, get_in_a_callback, q) >= 0);
    SHOULD(settle_down() == 0);
    SHOULD(rc_of_callback == -ENXIO);
    mag_queue_free(q);
    return 0;
}

static int free_in_use(void *arg, long *value)
{
    struct mag_queue *q = queue(2);

    (void)arg, (void)value;
    (void)wait_as(1, get_it, q);
    mag_queue_free(q);
    return 0;
}

Test(queue, to_free_one_in_which_somebody_waits_ends_the_program, .signal = SIGABRT)
{
    (void)run_rc(1, free_in_use, NULL);
}
