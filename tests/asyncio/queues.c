/* SPDX-License-Identifier: MIT */
/*
 * queues.c - what CPython's test_queues.py pins of asyncio.Queue, LifoQueue, PriorityQueue
 *
 * One test for each behaviour, written anew.  What cannot be asked in C is in
 * NOT_APPLICABLE.md.  asyncio's queues without a bound are queues with room for all that
 * the test puts.  A CancelledError is -ECANCELED, QueueEmpty and QueueFull are -EAGAIN,
 * QueueShutDown is -EPIPE, and task_done's ValueError is -EINVAL.
 */
#include "waiters.h"

#include <criterion/criterion.h>

TestSuite(queues, .timeout = 60);

enum { ROOM = 100 };

/* ---- what the tests are made of -------------------------------------------------------- */

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

static struct mag_queue *queue_of(enum mag_queue_order order, size_t capacity)
{
    struct mag_queue *q = NULL;

    (void)mag_queue_new(&q, sizeof(int), capacity,
                        &(struct mag_queue_options){ .order = order, .compare = compare_ints });
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

static int try_put(struct mag_queue *q, int item)
{
    return mag_queue_try_put(q, &item);
}

/* The item, or -errno. */
static int get(struct mag_queue *q)
{
    int item = -1, rc = mag_queue_get(q, &item);

    return rc < 0 ? rc : item;
}

static int try_get(struct mag_queue *q)
{
    int item = -1, rc = mag_queue_try_get(q, &item);

    return rc < 0 ? rc : item;
}

/* A task's part: what it puts or gets, and in what. */
struct part {
    struct mag_queue *q;
    int item;
};

static int put_part(void *arg)
{
    struct part *p = arg;

    return put(p->q, p->item);
}

static int get_part(void *arg)
{
    return get(arg);
}

static int join_part(void *arg)
{
    return mag_queue_join(arg);
}

/* Tasks that are suspended in it when this returns (if it suspends). */
static struct co *putter(struct part *p)
{
    return wait_as(p->item, put_part, p);
}

static struct co *getter(struct mag_queue *q)
{
    return wait_as(0, get_part, q);
}

static struct co *joiner(struct mag_queue *q)
{
    return wait_as(0, join_part, q);
}

static int done(struct mag_queue *q)
{
    mag_queue_free(q);
    return 0;
}

/* ---- QueueBasicTests -------------------------------------------------------------------- */

ON_1(queues, a_queue_is_empty_before_the_first_put_and_after_the_last_get)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(mag_queue_is_empty(q));
    SHOULD(put(q, 1) == 0);
    SHOULD(!mag_queue_is_empty(q));
    SHOULD(get(q) == 1);
    SHOULD(mag_queue_is_empty(q));
    return done(q);
}

ON_1(queues, a_queue_is_full_when_it_holds_its_capacity)
{
    struct mag_queue *q = queue(ROOM), *small = queue(1);

    SHOULD(!mag_queue_is_full(q));
    SHOULD(!mag_queue_is_full(small));
    SHOULD(put(small, 1) == 0);
    SHOULD(mag_queue_is_full(small));
    return done(q) + done(small);
}

ON_1(queues, items_come_out_in_the_order_in_which_they_went_in)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(put(q, 1) == 0 && put(q, 3) == 0 && put(q, 2) == 0);
    SHOULD(get(q) == 1 && get(q) == 3 && get(q) == 2);
    return done(q);
}

ON_1(queues, the_capacity_can_be_asked)
{
    struct mag_queue *q = queue(2);

    SHOULD(mag_queue_capacity(q) == 2);
    return done(q);
}

static int put_three(void *arg)
{
    for (int i = 0; i < 3; i++) {
        int rc = put(arg, i);
        if (rc < 0)
            return rc;
        diary_write(i);
    }
    return -1;
}

ON_1_AND_4(queues, a_putter_waits_once_the_queue_is_full)
{
    struct mag_queue *q = queue(2);
    struct co *c = wait_as(9, put_three, q);

    SHOULD(DIARY_IS(0, 1));
    SHOULD(!mag_done(c));
    SHOULD(get(q) == 0);
    let_run();
    SHOULD(DIARY_IS(0, 1, 2));
    SHOULD(get(q) == 1 && get(q) == 2);
    SHOULD(mag_done(c));
    SHOULD(end_of(c) == -1);
    return done(q);
}

/* ---- QueueGetTests ---------------------------------------------------------------------- */

ON_1(queues, get_returns_at_once_what_is_there)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(try_put(q, 1) == 0);
    SHOULD(get(q) == 1);
    return done(q);
}

ON_1_AND_4(queues, get_lets_a_waiting_putter_go_on)
{
    struct mag_queue *q = queue(1);
    struct part two = { q, 2 };
    struct co *c;

    SHOULD(put(q, 1) == 0);
    c = putter(&two);
    SHOULD(!mag_done(c));
    SHOULD(get(q) == 1);
    SHOULD(end_of(c) == 0);
    SHOULD(get(q) == 2);
    return done(q);
}

static void put_one(void *arg)
{
    (void)try_put(arg, 1);
}

ON_1_AND_4(queues, get_waits_for_an_item)
{
    struct mag_queue *q = queue(ROOM);
    struct co *c = getter(q);

    SHOULD(!mag_done(c));
    SHOULD(mag_call_later(5 * MAG_MS, put_one, q) >= 0);
    SHOULD(end_of(c) == 1);
    return done(q);
}

ON_1(queues, get_nowait_takes_what_is_there)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(try_put(q, 1) == 0);
    SHOULD(try_get(q) == 1);
    return done(q);
}

ON_1(queues, get_nowait_of_an_empty_queue_fails)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(try_get(q) == -EAGAIN);
    return done(q);
}

static int get_main(void *arg, long *value)
{
    *value = get(arg);
    return *value < 0 ? (int)*value : 0;
}

ON_1_AND_4(queues, get_under_a_timeout_that_does_not_pass)
{
    struct mag_queue *q = queue(ROOM);
    long value = 0;

    SHOULD(mag_call_later(2 * MAG_MS, put_one, q) >= 0);
    SHOULD(mag_wait_for(co(get_main, q), 10 * MAG_SECOND, &value, sizeof value) == 0);
    SHOULD(value == 1);
    return done(q);
}

ON_1_AND_4(queues, a_cancelled_getter_leaves_the_item_to_the_next)
{
    struct mag_queue *q = queue(ROOM);
    struct co *first = getter(q), *second = getter(q);

    SHOULD(cancelled_end_of(first) == -ECANCELED);
    SHOULD(put(q, 'a') == 0);
    SHOULD(end_of(second) == 'a');
    return done(q);
}

ON_1(queues, getters_take_in_turn_from_waiting_putters)
{
    struct mag_queue *q = queue(1);
    struct part a = { q, 'a' }, b = { q, 'b' };
    struct co *put_a = begin_as(1, put_part, &a), *put_b;

    let_run();
    put_b = begin_as(2, put_part, &b);
    SHOULD(get(q) == 'a');
    SHOULD(get(q) == 'b');
    SHOULD(end_of(put_a) == 0 && end_of(put_b) == 0);
    return done(q);
}

static int put_five(void *arg)
{
    int rc = 0;

    for (int i = 0; i < 5 && rc == 0; i++)
        rc = put(arg, i);
    return rc;
}

static int get_five(void *arg)
{
    for (int i = 0; i < 5; i++)
        if (get(arg) != i)
            return -EBADMSG;
    return 0;
}

ON_1_AND_4(queues, a_producer_and_a_consumer_through_a_queue_of_one)
{
    struct mag_queue *q = queue(1);
    struct co *producer = begin_as(1, put_five, q), *consumer = begin_as(2, get_five, q);

    SHOULD(end_of(producer) == 0);
    SHOULD(end_of(consumer) == 0);
    return done(q);
}

ON_1_AND_4(queues, a_getter_that_timed_out_is_not_held)
{
    struct mag_queue *q = queue(5);

    SHOULD(mag_wait_for(co(get_main, q), 5 * MAG_MS, NULL, sizeof(long)) == -ETIMEDOUT);
    SHOULD(put(q, 7) == 0);
    SHOULD(mag_queue_len(q) == 1); /* nobody was handed it */
    SHOULD(get(q) == 7);
    return done(q);
}

/* ---- QueuePutTests ---------------------------------------------------------------------- */

ON_1(queues, put_returns_at_once_where_there_is_room)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(put(q, 1) == 0);
    SHOULD(get(q) == 1);
    return done(q);
}

static void take_one(void *arg)
{
    (void)try_get(arg);
}

static int put_two(void *arg)
{
    int rc = put(arg, 1);

    return rc < 0 ? rc : put(arg, 2);
}

ON_1_AND_4(queues, put_waits_for_room)
{
    struct mag_queue *q = queue(1);
    struct co *c = wait_as(0, put_two, q);

    SHOULD(!mag_done(c));
    SHOULD(mag_call_later(5 * MAG_MS, take_one, q) >= 0);
    SHOULD(end_of(c) == 0);
    SHOULD(get(q) == 2);
    return done(q);
}

ON_1(queues, put_nowait_puts_where_there_is_room)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(try_put(q, 1) == 0);
    SHOULD(try_get(q) == 1);
    return done(q);
}

/* asyncio may give the reader a CancelledError, and keep the item; here it has the item. */
ON_1_AND_4(queues, cancelling_a_reader_that_was_served_drops_nothing)
{
    struct mag_queue *q = queue(ROOM);
    struct co *reader = getter(q);

    SHOULD(try_put(q, 1) == 0 && try_put(q, 2) == 0);
    SHOULD(cancelled_end_of(reader) == 1);
    SHOULD(try_get(q) == 2);
    return done(q);
}

ON_1_AND_4(queues, cancelling_one_of_many_readers_drops_nothing)
{
    struct mag_queue *q = queue(ROOM);
    struct co *readers[3];
    int got[3];

    for (int i = 0; i < 3; i++)
        readers[i] = getter(q);
    SHOULD(mag_cancel(readers[0]) == 0);
    SHOULD(try_put(q, 1) == 0 && try_put(q, 2) == 0);
    let_run();
    if (!mag_done(readers[2])) { /* the cancelled one came first */
        SHOULD(try_put(q, 3) == 0);
    }
    for (int i = 0; i < 3; i++)
        got[i] = end_of(readers[i]);
    if (got[0] == -ECANCELED)
        SHOULD(got[1] == 1 && got[2] == 2 && mag_queue_is_empty(q));
    else
        SHOULD(got[0] == 1 && got[1] == 2 && got[2] == 3);
    return done(q);
}

/* As with the reader: a putter whose item is in has put it. */
ON_1_AND_4(queues, cancelling_a_putter_whose_item_is_in_drops_nothing)
{
    struct mag_queue *q = queue(1);
    struct part two = { q, 2 };
    struct co *writer;

    SHOULD(try_put(q, 1) == 0);
    writer = putter(&two);
    SHOULD(try_get(q) == 1);
    SHOULD(cancelled_end_of(writer) == 0);
    SHOULD(try_get(q) == 2);
    SHOULD(mag_queue_len(q) == 0);
    return done(q);
}

ON_1(queues, put_nowait_into_a_full_queue_fails)
{
    struct mag_queue *q = queue(1);

    SHOULD(try_put(q, 1) == 0);
    SHOULD(try_put(q, 2) == -EAGAIN);
    return done(q);
}

ON_1_AND_4(queues, a_put_has_happened_before_its_item_is_got)
{
    struct mag_queue *q = queue(ROOM);
    struct part one = { q, 1 };
    struct co *c = begin_as(1, put_part, &one);

    SHOULD(get(q) == 1);
    SHOULD(end_of(c) == 0);
    return done(q);
}

ON_1_AND_4(queues, a_cancelled_putter_has_put_nothing)
{
    struct mag_queue *q = queue(1);
    struct part a = { q, 'a' }, b = { q, 'b' }, x = { q, 'x' };
    struct co *put_a = putter(&a), *put_b = putter(&b), *put_x = putter(&x);

    SHOULD(mag_done(put_a));
    SHOULD(!mag_done(put_b));
    SHOULD(cancelled_end_of(put_x) == -ECANCELED);
    SHOULD(try_get(q) == 'a');
    let_run();
    SHOULD(try_get(q) == 'b');
    SHOULD(try_get(q) == -EAGAIN);
    SHOULD(end_of(put_a) == 0 && end_of(put_b) == 0);
    return done(q);
}

ON_1_AND_4(queues, put_serves_a_waiting_getter)
{
    struct mag_queue *q = queue(ROOM);
    struct co *c = getter(q);

    SHOULD(put(q, 'a') == 0);
    SHOULD(end_of(c) == 'a');
    return done(q);
}

ON_1_AND_4(queues, every_putter_goes_on_when_the_queue_is_emptied)
{
    struct mag_queue *q = queue(2);
    struct part parts[4];
    struct co *putters[4];

    for (int i = 0; i < 4; i++) {
        parts[i] = (struct part){ q, i };
        putters[i] = putter(&parts[i]);
    }
    for (size_t n = mag_queue_len(q); n > 0; n--)
        SHOULD(try_get(q) >= 0);
    for (int i = 0; i < 4; i++)
        SHOULD(end_of(putters[i]) == 0);
    SHOULD(mag_queue_len(q) == 2);
    return done(q);
}

ON_1_AND_4(queues, a_cancelled_putter_is_not_held)
{
    struct mag_queue *q = queue(1);
    struct part two = { q, 2 };
    struct co *c;

    SHOULD(try_put(q, 1) == 0);
    c = putter(&two);
    SHOULD(cancelled_end_of(c) == -ECANCELED);
    SHOULD(try_get(q) == 1);
    SHOULD(mag_queue_is_empty(q)); /* nobody's item came after it */
    return done(q);
}

ON_1_AND_4(queues, cancelling_a_putter_after_its_turn_came_is_harmless)
{
    struct mag_queue *q = queue(1);
    struct part two = { q, 2 }, three = { q, 3 };
    struct co *c, *d;

    SHOULD(try_put(q, 1) == 0);
    c = putter(&two);
    d = putter(&three);
    SHOULD(try_get(q) == 1);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(end_of(c) == 0); /* it had been given the place */
    SHOULD(try_get(q) == 2);
    SHOULD(end_of(d) == 0);
    SHOULD(try_get(q) == 3);
    return done(q);
}

/* ---- LifoQueueTests, PriorityQueueTests --------------------------------------------------- */

ON_1(queues, a_lifo_queue_gives_the_newest_first)
{
    struct mag_queue *q = queue_of(MAG_LIFO, ROOM);

    SHOULD(put(q, 1) == 0 && put(q, 3) == 0 && put(q, 2) == 0);
    SHOULD(get(q) == 2 && get(q) == 3 && get(q) == 1);
    return done(q);
}

ON_1(queues, a_priority_queue_gives_the_least_first)
{
    struct mag_queue *q = queue_of(MAG_PRIORITY, ROOM);

    SHOULD(put(q, 1) == 0 && put(q, 3) == 0 && put(q, 2) == 0);
    SHOULD(get(q) == 1 && get(q) == 2 && get(q) == 3);
    return done(q);
}

/* ---- the mix-ins: each for the three orders ------------------------------------------------ */

#define IN_EACH_ORDER(on, name) \
    static int name(enum mag_queue_order order); \
    on(queues, name##_fifo) \
    { \
        return name(MAG_FIFO); \
    } \
    on(queues, name##_lifo) \
    { \
        return name(MAG_LIFO); \
    } \
    on(queues, name##_priority) \
    { \
        return name(MAG_PRIORITY); \
    } \
    static int name(enum mag_queue_order order)

/* ---- _QueueJoinTestMixin --------------------------------------------------------------------- */

IN_EACH_ORDER(ON_1, task_done_without_an_item_fails)
{
    struct mag_queue *q = queue_of(order, ROOM);

    SHOULD(mag_queue_task_done(q) == -EINVAL);
    SHOULD(put(q, 1) == 0);
    SHOULD(mag_queue_task_done(q) == 0);
    SHOULD(mag_queue_task_done(q) == -EINVAL);
    return done(q);
}

static mag_atomic(uint32_t) sum;

static int sum_up(void *arg)
{
    int item;

    while ((item = get(arg)) > 0) {
        mag_yield();
        mag_fetch_add(&sum, (uint32_t)item);
        if (mag_queue_task_done(arg) < 0)
            return -1;
    }
    return item == 0 ? 0 : -1;
}

IN_EACH_ORDER(ON_1_AND_4, join_waits_until_all_items_are_done)
{
    struct mag_queue *q = queue_of(order, ROOM);
    struct co *workers[2];

    mag_store_relaxed(&sum, 0);
    for (int i = 1; i <= 100; i++)
        SHOULD(try_put(q, i) == 0);
    for (int i = 0; i < 2; i++)
        workers[i] = begin_as(i, sum_up, q);
    SHOULD(mag_queue_join(q) == 0);
    SHOULD(mag_load_acquire(&sum) == 5050);
    SHOULD(put(q, 0) == 0 && put(q, 0) == 0);
    SHOULD(end_of(workers[0]) == 0 && end_of(workers[1]) == 0);
    return done(q);
}

IN_EACH_ORDER(ON_1, join_of_a_queue_that_was_never_used_returns)
{
    struct mag_queue *q = queue_of(order, ROOM);

    SHOULD(mag_queue_join(q) == 0);
    SHOULD(mag_queue_join(q) == 0);
    return done(q);
}

/* ---- _QueueShutdownTestMixin ------------------------------------------------------------------ */

static int nothing_goes(struct mag_queue *q)
{
    SHOULD(put(q, 9) == -EPIPE);
    SHOULD(try_put(q, 9) == -EPIPE);
    SHOULD(get(q) == -EPIPE);
    SHOULD(try_get(q) == -EPIPE);
    return 0;
}

IN_EACH_ORDER(ON_1_AND_4, shutdown_of_an_empty_queue)
{
    struct mag_queue *q = queue_of(order, ROOM);
    struct co *c = getter(q);

    SHOULD(mag_queue_shutdown(q, false) == 0);
    SHOULD(mag_queue_len(q) == 0);
    SHOULD(mag_queue_join(q) == 0);
    SHOULD(end_of(c) == -EPIPE);
    SHOULD(nothing_goes(q) == 0);
    return done(q);
}

IN_EACH_ORDER(ON_1_AND_4, shutdown_lets_getters_drain_the_queue)
{
    struct mag_queue *q = queue_of(order, 1);
    struct part two = { q, 2 };
    struct co *join, *c;

    SHOULD(try_put(q, 1) == 0);
    join = joiner(q);
    c = putter(&two);
    SHOULD(!mag_done(c));
    SHOULD(mag_queue_shutdown(q, false) == 0);
    SHOULD(mag_queue_len(q) == 1);
    SHOULD(end_of(c) == -EPIPE); /* who waits to put is told */
    SHOULD(get(q) == 1);
    let_run();
    SHOULD(!mag_done(join)); /* it is not done yet */
    SHOULD(nothing_goes(q) == 0);
    SHOULD(mag_queue_task_done(q) == 0);
    SHOULD(end_of(join) == 0);
    SHOULD(mag_queue_task_done(q) == -EINVAL);
    return done(q);
}

IN_EACH_ORDER(ON_1_AND_4, an_immediate_shutdown_drops_what_is_in)
{
    struct mag_queue *q = queue_of(order, 1);
    struct part two = { q, 2 };
    struct co *join, *c;

    SHOULD(try_put(q, 1) == 0);
    join = joiner(q);
    c = putter(&two);
    SHOULD(mag_queue_shutdown(q, true) == 0);
    SHOULD(mag_queue_len(q) == 0);
    SHOULD(end_of(c) == -EPIPE);
    SHOULD(end_of(join) == 0); /* nothing is unfinished */
    SHOULD(nothing_goes(q) == 0);
    SHOULD(mag_queue_task_done(q) == -EINVAL);
    return done(q);
}

IN_EACH_ORDER(ON_1_AND_4, an_immediate_shutdown_leaves_what_was_taken_unfinished)
{
    struct mag_queue *q = queue_of(order, 2);
    struct co *join;

    SHOULD(try_put(q, 1) == 0 && try_put(q, 2) == 0);
    join = joiner(q);
    SHOULD(try_get(q) > 0);
    SHOULD(mag_queue_shutdown(q, true) == 0);
    SHOULD(mag_queue_len(q) == 0);
    let_run();
    SHOULD(!mag_done(join));
    SHOULD(nothing_goes(q) == 0);
    SHOULD(mag_queue_task_done(q) == 0);
    SHOULD(mag_queue_task_done(q) == -EINVAL);
    SHOULD(end_of(join) == 0);
    return done(q);
}

/* ---- what the documentation says besides ---------------------------------------------------- */

ON_1(queues, shutdown_may_be_repeated_and_become_immediate)
{
    struct mag_queue *q = queue(ROOM);

    SHOULD(try_put(q, 1) == 0 && try_put(q, 2) == 0);
    SHOULD(mag_queue_shutdown(q, false) == 0);
    SHOULD(mag_queue_shutdown(q, false) == 0);
    SHOULD(get(q) == 1);
    SHOULD(mag_queue_shutdown(q, true) == 0);
    SHOULD(try_get(q) == -EPIPE);
    return done(q);
}

ON_1_AND_4(queues, a_joiner_goes_on_when_the_count_reaches_zero_even_if_more_is_put_then)
{
    struct mag_queue *q = queue(ROOM);
    struct co *join;

    SHOULD(put(q, 1) == 0);
    join = joiner(q);
    SHOULD(get(q) == 1);
    SHOULD(mag_queue_task_done(q) == 0);
    SHOULD(put(q, 2) == 0);
    SHOULD(end_of(join) == 0);
    return done(q);
}
