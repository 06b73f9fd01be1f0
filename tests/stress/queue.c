/* SPDX-License-Identifier: MIT */
/*
 * queue.c - producers and consumers, tasks and threads, that time out, are cancelled, select
 *
 *      3 tasks + 1 thread put  ->  [ one queue ]  ->  3 tasks + 1 thread get
 *                              ->  [ another   ]  ->
 *
 * Each put and each get takes one of several ways: plain, under a deadline, in a task that
 * is cancelled at some moment, by a select over both queues, with or without a time, or
 * together with a task that ends; or without waiting.  Every item has the number of its
 * producer and its own.  At the end each item whose put said that it is in was got once, and
 * no other; each consumer saw the items of a producer, through one queue, in the order of the
 * puts; and join has come back.  Some rounds end early, by an immediate shutdown: then what
 * was put may be dropped, but nothing else changes.  Nothing has leaked.
 */
#include "stress.h"

#include <magpie/queue.h>
#include <magpie/scope.h>
#include <magpie/select.h>

#include <errno.h>

enum {
    ROUNDS = STRESS_SCALE(250, 50),
    ITEMS = 400,
    TASKS = 3,
    SIDE = TASKS + 1, /* the last is a thread outside */
    QUEUES = 2,
};

struct item {
    uint32_t producer, number;
};

/* One round. */
static struct {
    struct mag_queue *q[QUEUES];
    mag_atomic(uint8_t) put[SIDE][ITEMS]; /* it is in: 1                 */
    mag_atomic(uint8_t) got[SIDE][ITEMS]; /* how often                   */
    bool is_cut;                          /* it ends by an immediate shutdown */
    mag_atomic(uint32_t) number;
} now;

static struct {
    mag_atomic(uint64_t) n_cancelled, n_timed_out, n_told, n_kept;
} seen;

static void beat(void)
{
    stress_beat();
}

/* ---- one put, one get, in a task of its own that may be cancelled --------------------------- */

async(void, put_alone, (struct mag_queue *, q), (struct item, item))
{
    return mag_queue_put(q, &item);
}

async(struct item, get_alone, (struct mag_queue *, q))
{
    struct item item;
    int rc = mag_queue_get(q, &item);

    if (rc < 0)
        return rc;
    async_return(item);
}

static void a_moment(struct mag_rand *r)
{
    switch (mag_rand_below(r, 4)) {
    case 0:
        break;
    case 1:
        mag_yield();
        break;
    case 2:
        stress_spin(mag_rand_below(r, 3000));
        break;
    default:
        mag_sleep(mag_rand_below(r, 60) * MAG_US);
        break;
    }
}

static int note(int rc)
{
    if (rc == -ECANCELED)
        mag_fetch_add(&seen.n_cancelled, 1);
    else if (rc == -ETIMEDOUT)
        mag_fetch_add(&seen.n_timed_out, 1);
    return rc;
}

static int put_cancelled(struct mag_queue *q, struct item item, struct mag_rand *r)
{
    struct put_alone *t = spawn(put_alone(q, item));

    a_moment(r);
    mag_cancel(t);
    return note(await_rc(t, NULL));
}

static int get_cancelled(struct mag_queue *q, struct item *item, struct mag_rand *r)
{
    struct get_alone *t = spawn(get_alone(q));
    int rc;

    a_moment(r);
    mag_cancel(t);
    rc = note(await_rc(t, item));
    if (rc == 0)
        mag_fetch_add(&seen.n_kept, 1);
    return rc;
}

/* ---- under a deadline ------------------------------------------------------------------------- */

static mag_time soon(struct mag_rand *r)
{
    return mag_now() + (mag_time)mag_rand_below(r, 80) * MAG_US;
}

static int put_in_time(struct mag_queue *q, struct item item, struct mag_rand *r)
{
    struct mag_scope s;

    EXPECT(mag_scope_enter(&s, soon(r), NULL) == 0);
    return note(mag_scope_leave(&s, mag_queue_put(q, &item)));
}

static int get_in_time(struct mag_queue *q, struct item *item, struct mag_rand *r)
{
    struct mag_scope s;

    EXPECT(mag_scope_enter(&s, soon(r), NULL) == 0);
    return note(mag_scope_leave(&s, mag_queue_get(q, item)));
}

/* ---- by select ---------------------------------------------------------------------------------- */

/* The queue that it was, or -errno. */
static int queue_of(const struct mag_case *cases, int which)
{
    if (which < 0)
        return which;
    if (which >= QUEUES)
        return note(-ETIMEDOUT);
    return cases[which].rc < 0 ? cases[which].rc : which;
}

static int select_put(struct item item, mag_time deadline)
{
    struct mag_case cases[] = { mag_case_put(now.q[0], &item), mag_case_put(now.q[1], &item),
                                mag_case_at(deadline) };

    return queue_of(cases, mag_select(cases, 3));
}

static int select_get(struct item *item, mag_time deadline)
{
    struct mag_case cases[] = { mag_case_get(now.q[0], item), mag_case_get(now.q[1], item),
                                mag_case_at(deadline) };

    return queue_of(cases, mag_select(cases, 3));
}

async(void, nap, (mag_time, ns))
{
    return mag_sleep(ns);
}

/* Against the end of a task, which is then awaited. */
static int select_get_or_told(struct item *item, struct mag_rand *r)
{
    struct nap *t = spawn(nap(mag_rand_below(r, 80) * MAG_US));
    struct mag_case cases[] = { mag_case_get(now.q[0], item), mag_case_get(now.q[1], item),
                                mag_case_done(t) };
    int which = mag_select(cases, 3);

    if (which == 2) {
        EXPECT(mag_done(t));
        mag_fetch_add(&seen.n_told, 1);
    }
    EXPECT(await_rc(t, NULL) == 0);
    return queue_of(cases, which);
}

/* ---- producers ------------------------------------------------------------------------------------ */

/* The queue in which it is, or -errno. */
static int put_somehow(struct item item, struct mag_rand *r, bool in_task)
{
    unsigned i = mag_rand_below(r, QUEUES), way = mag_rand_below(r, in_task ? 6 : 4);
    struct mag_queue *q = now.q[i];
    int rc;

    switch (way) {
    case 0:
        rc = mag_queue_put(q, &item);
        break;
    case 1:
        rc = mag_queue_try_put(q, &item);
        break;
    case 2:
        return select_put(item, MAG_NEVER);
    case 3:
        return select_put(item, soon(r));
    case 4:
        rc = put_in_time(q, item, r);
        break;
    default:
        rc = put_cancelled(q, item, r);
        break;
    }
    return rc < 0 ? rc : (int)i;
}

static void produce_all(uint32_t me, struct mag_rand *r, bool in_task)
{
    int rc = 0;

    for (uint32_t n = 0; n < ITEMS && rc != -EPIPE; n++) {
        rc = put_somehow((struct item){ me, n }, r, in_task);
        EXPECT(rc >= 0 || rc == -EAGAIN || rc == -ETIMEDOUT || rc == -ECANCELED ||
               (rc == -EPIPE && now.is_cut));
        if (rc >= 0)
            mag_store_relaxed(&now.put[me][n], 1);
        if (mag_rand_below(r, 8) == 0)
            in_task ? a_moment(r) : stress_spin(mag_rand_below(r, 3000));
        beat();
    }
}

async(void, produce, (uint32_t, me))
{
    struct mag_rand r = stress_rand(now.number * 100 + me);

    produce_all(me, &r, true);
    return 0;
}

static void *produce_outside(void *arg)
{
    struct mag_rand r = stress_rand(now.number * 100 + TASKS);

    produce_all(TASKS, &r, false);
    return arg;
}

/* ---- consumers ------------------------------------------------------------------------------------ */

/* The queue from which it is, or -errno.  Nobody waits in one queue alone for ever: those
 * who put may wait in the other. */
static int get_somehow(struct item *item, struct mag_rand *r, bool in_task)
{
    unsigned i = mag_rand_below(r, QUEUES), way = mag_rand_below(r, in_task ? 6 : 3);
    struct mag_queue *q = now.q[i];
    int rc;

    switch (way) {
    case 0:
        rc = mag_queue_try_get(q, item);
        break;
    case 1:
        return select_get(item, MAG_NEVER);
    case 2:
        return select_get(item, soon(r));
    case 3:
        return select_get_or_told(item, r);
    case 4:
        rc = get_in_time(q, item, r);
        break;
    default:
        rc = get_cancelled(q, item, r);
        break;
    }
    return rc < 0 ? rc : (int)i;
}

/* After -EPIPE, which may be of one queue only: what is left in the other, or the end. */
static int get_rest(struct item *item, bool *is_over)
{
    *is_over = true;
    for (int i = 0; i < QUEUES; i++) {
        int rc = mag_queue_try_get(now.q[i], item);
        *is_over &= rc == -EPIPE;
        if (rc == 0)
            return i;
    }
    return -EAGAIN;
}

static void consume_all(struct mag_rand *r, bool in_task)
{
    int64_t last[QUEUES][SIDE];
    struct item item;
    bool is_over = false;

    memset(last, -1, sizeof last);
    while (!is_over) {
        int i = get_somehow(&item, r, in_task);
        EXPECT(i >= 0 || i == -EAGAIN || i == -ETIMEDOUT || i == -ECANCELED || i == -EPIPE);
        if (i == -EPIPE)
            i = get_rest(&item, &is_over);
        if (i < 0)
            continue;
        EXPECT(item.producer < SIDE && item.number < ITEMS);
        EXPECT(last[i][item.producer] < (int64_t)item.number);
        last[i][item.producer] = item.number;
        mag_fetch_add(&now.got[item.producer][item.number], 1);
        EXPECT(mag_queue_task_done(now.q[i]) == 0);
        if (mag_rand_below(r, 8) == 0)
            in_task ? a_moment(r) : stress_spin(mag_rand_below(r, 3000));
        beat();
    }
}

async(void, consume, (uint32_t, me))
{
    struct mag_rand r = stress_rand(now.number * 100 + 50 + me);

    consume_all(&r, true);
    return 0;
}

static void *consume_outside(void *arg)
{
    struct mag_rand r = stress_rand(now.number * 100 + 50 + TASKS);

    consume_all(&r, false);
    return arg;
}

/* ---- a round ----------------------------------------------------------------------------------------- */

static void check_books(void)
{
    for (int p = 0; p < SIDE; p++) {
        for (int n = 0; n < ITEMS; n++) {
            if (now.is_cut)
                EXPECT(now.got[p][n] <= now.put[p][n]);
            else
                EXPECT(now.got[p][n] == now.put[p][n]);
        }
    }
}

static int join_thread(void *arg)
{
    return -pthread_join(*(pthread_t *)arg, NULL);
}

async(void, a_round)
{
    struct mag_rand r = stress_rand(now.number * 100 + 99);
    struct produce *producers[TASKS];
    struct consume *consumers[TASKS];
    pthread_t producer, consumer;

    now.is_cut = now.number % 4 == 3;
    memset(now.put, 0, sizeof now.put);
    memset(now.got, 0, sizeof now.got);
    for (int i = 0; i < QUEUES; i++)
        EXPECT(mag_queue_new(&now.q[i], sizeof(struct item), 1 + mag_rand_below(&r, 8), NULL) == 0);
    producer = stress_thread(produce_outside, NULL);
    consumer = stress_thread(consume_outside, NULL);
    for (uint32_t i = 0; i < TASKS; i++) {
        producers[i] = spawn(produce(i));
        consumers[i] = spawn(consume(i));
    }
    if (now.is_cut) {
        await(mag_sleep(mag_rand_below(&r, 2000) * MAG_US));
        for (int i = 0; i < QUEUES; i++)
            EXPECT(mag_queue_shutdown(now.q[i], true) == 0);
    }
    for (int i = 0; i < TASKS; i++)
        EXPECT(await_rc(producers[i], NULL) == 0);
    EXPECT(mag_to_thread(join_thread, &producer) == 0);
    for (int i = 0; i < QUEUES; i++) {
        EXPECT(mag_queue_join(now.q[i]) == 0);
        EXPECT(mag_queue_shutdown(now.q[i], false) == 0);
    }
    for (int i = 0; i < TASKS; i++)
        EXPECT(await_rc(consumers[i], NULL) == 0);
    EXPECT(mag_to_thread(join_thread, &consumer) == 0);
    check_books();
    for (int i = 0; i < QUEUES; i++)
        mag_queue_free(now.q[i]);
    return 0;
}

async(void, rounds)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        mag_store_relaxed(&now.number, i);
        await(a_round());
    }
    return 0;
}

async(void, nothing)
{
    return 0;
}

static void state(void)
{
    fprintf(stderr, "  round %u\n", mag_load_relaxed(&now.number));
}

int main(void)
{
    struct mag_rt_options o = { .workers = getenv("MAGPIE_WORKERS") ? 0 : 4 };
    int64_t n_blocks;

    stress_begin("queue", state);
    mag_run(nothing(), NULL);
    n_blocks = mag_mem_live();
    EXPECT(mag_run_with(rounds(), NULL, &o) == 0);
    EXPECT(mag_mem_live() == n_blocks);
    printf("queue: %llu cancelled, %llu timed out, %llu told, %llu kept\n",
           (unsigned long long)seen.n_cancelled, (unsigned long long)seen.n_timed_out,
           (unsigned long long)seen.n_told, (unsigned long long)seen.n_kept);
    EXPECT(seen.n_cancelled && seen.n_timed_out && seen.n_told && seen.n_kept);
    return stress_end();
}
