/* SPDX-License-Identifier: MIT */
/*
 * adversarial.c - scenarios that are cancelled at each of their suspensions in turn, and
 * limits that end at the instant of the result
 *
 * The files of the single parts have such tests of a part alone; here a scenario goes through
 * all that a part has, holds something while it waits, and is asked afterwards whether what it
 * held is free, what it began has ended, and what it was given is not lost.
 */
#include "words.h"

#include <criterion/criterion.h>

TestSuite(adversarial, .timeout = 60);

/* ---- books ------------------------------------------------------------------------------- */

static struct {
    mag_atomic(int32_t) n_open;  /* things entered and not left */
    mag_atomic(int32_t) n_begun; /* children, and those that have ended */
    mag_atomic(int32_t) n_ended;
    bool has_ended; /* the scenario has come to its end */
} books;

struct thing {
    int unused;
};

static int thing_enter(struct thing *t)
{
    t->unused = 0;
    mag_fetch_add(&books.n_open, 1);
    return mag_yield() == 0 ? 0 : (mag_fetch_sub(&books.n_open, 1), -ECANCELED);
}

/* An exit may suspend, and is shielded. */
static void thing_exit(struct thing *t)
{
    (void)t;
    if (mag_yield() == 0)
        mag_fetch_sub(&books.n_open, 1);
}

async_resource(thing)

static void close_one(void *arg)
{
    (void)arg;
    if (mag_yield() == 0)
        mag_fetch_sub(&books.n_open, 1);
}

/* A child: suspends twice with a thing in hand. */
async(int, child, (int, n))
{
    mag_fetch_add(&books.n_begun, 1);
    async_with(thing, t) {
        int rc = mag_yield();
        if (rc == 0)
            rc = mag_sleep(10 * MAG_US);
        if (rc < 0) {
            mag_fetch_add(&books.n_ended, 1);
            return rc;
        }
    }
    mag_fetch_add(&books.n_ended, 1);
    async_return(n);
}

/* Whether all is back where it was; a child that ended in entering counts as never begun. */
static int books_balance(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == -ECANCELED || (rc == 0 && books.has_ended));
    SHOULD(mag_load_acquire(&books.n_open) == 0);
    memset(&books, 0, sizeof books);
    return 0;
}

/* The scenario `name', and what holds after it. */
#define EVERYWHERE(name, holds) \
    static int name##_scene(void); \
    static int name##_scenario(void *arg, long *value) \
    { \
        int rc = name##_scene(); \
        (void)arg; \
        *value = 0; \
        books.has_ended = rc == 0; \
        return rc; \
    } \
    ON_1_AND_4(adversarial, name) \
    { \
        memset(&books, 0, sizeof books); \
        return nth_cancel(name##_scenario, NULL, holds); \
    } \
    static int name##_scene(void)

/* ---- tasks in groups ---------------------------------------------------------------------- */

EVERYWHERE(cancel_everywhere_in_a_group, books_balance)
{
    int a = 0, b = 0;

    nth_point();
    async_with(thing, t) {
        task_group(g) {
            group_spawn(g, child(1), &a);
            nth_point();
            await(mag_yield());
            group_spawn(g, child(2), &b);
            nth_point();
        }
    }
    SHOULD(a == 1 && b == 2);
    return 0;
}

EVERYWHERE(cancel_everywhere_in_nested_groups, books_balance)
{
    int v[4] = { 0 };

    task_group(outer) {
        group_spawn(outer, child(1), &v[0]);
        task_group(inner) {
            group_spawn(inner, child(2), &v[1]);
            group_spawn(outer, child(3), &v[2]);
            nth_point();
            await(mag_yield());
        }
        nth_point();
        group_spawn(outer, child(4), &v[3]);
    }
    SHOULD(v[0] == 1 && v[1] == 2 && v[2] == 3 && v[3] == 4);
    return 0;
}

EVERYWHERE(cancel_everywhere_in_a_group_with_a_limit, books_balance)
{
    int v[5] = { 0 };

    task_group(g, .limit = 2) {
        for (int i = 0; i < 5; i++) {
            nth_point();
            group_spawn(g, child(i + 1), &v[i]);
        }
    }
    for (int i = 0; i < 5; i++)
        SHOULD(v[i] == i + 1);
    return 0;
}

async(void, server, (int, n))
{
    async_with(thing, t) {
        await(mag_yield());
        int rc = mag_started(&n, sizeof n);
        if (rc < 0)
            return rc;
        await(mag_sleep(30 * MAG_US));
    }
    return 0;
}

EVERYWHERE(cancel_everywhere_while_a_child_starts, books_balance)
{
    int port = 0;

    task_group(g) {
        nth_point();
        await(mag_group_start(g, server(80), &port, sizeof port, NULL));
        SHOULD(port == 80);
        nth_point();
        await(mag_group_start(g, server(81), &port, sizeof port, NULL));
        SHOULD(port == 81);
    }
    return 0;
}

async(int, awaits_sibling, (struct child *, c))
{
    async_return(await(c));
}

EVERYWHERE(cancel_everywhere_where_children_await_each_other, books_balance)
{
    int v = 0;

    task_group(g) {
        struct child *c = group_task(g, child(7));
        group_spawn(g, awaits_sibling(c), &v);
        nth_point();
    }
    SHOULD(v == 7);
    return 0;
}

/* ---- several at a time ------------------------------------------------------------------------ */

EVERYWHERE(cancel_everywhere_in_a_gather, books_balance)
{
    struct child *t = spawn(child(2));
    int v[3] = { 0 };

    nth_point();
    gather(v, child(1), t, child(3));
    SHOULD(v[0] == 1 && v[1] == 2 && v[2] == 3);
    nth_point();
    struct child *five[5];
    int w[5];
    for (int i = 0; i < 5; i++)
        five[i] = child(i);
    gather_n(w, five, 5, .limit = 2);
    SHOULD(w[4] == 4);
    return 0;
}

EVERYWHERE(cancel_everywhere_in_a_race, books_balance)
{
    int v = 0;

    nth_point();
    size_t winner = race(&v, never(), child(5), never());
    SHOULD(winner == 1 && v == 5);
    nth_point();
    winner = race(&v, child(1), child(2));
    SHOULD(winner < 2 && v == (int)winner + 1);
    return 0;
}

/* What is only waited for is not cancelled: the scenario takes care of it itself. */
EVERYWHERE(cancel_everywhere_in_wait_and_as_completed, books_balance)
{
    struct child *c[3];
    bool done[3];
    int rc, v, sum = 0;

    for (int i = 0; i < 3; i++)
        c[i] = spawn(child(i + 1));
    nth_point();
    rc = mag_wait((void *const *)c, 3, MAG_FIRST_COMPLETED, MAG_NEVER, done);
    nth_point();
    if (rc >= 0)
        rc = mag_wait((void *const *)c, 3, MAG_ALL_COMPLETED, MAG_MINUTE, done);
    struct mag_completed completed;
    void *task;
    if (rc >= 0) {
        SHOULD(rc == 3);
        SHOULD(mag_completed_begin(&completed, (void *const *)c, 3) == 0);
        nth_point();
        while ((rc = mag_completed_next(&completed, &task)) == 1)
            sum++;
        mag_completed_end(&completed);
    }
    for (int i = 0; i < 3; i++)
        if (rc < 0)
            mag_close(c[i]);
        else
            rc = await_rc(c[i], &v);
    if (rc == 0)
        SHOULD(sum == 3);
    return rc;
}

EVERYWHERE(cancel_everywhere_in_wait_for_and_shield, books_balance)
{
    int v = 0, rc;

    nth_point();
    rc = wait_for(child(1), MAG_MINUTE, &v);
    if (rc < 0)
        return rc;
    nth_point();
    rc = wait_for(spawn(child(2)), MAG_MINUTE, &v);
    if (rc < 0)
        return rc;
    SHOULD(v == 2);
    nth_point();
    with_shield (MAG_MINUTE) {
        SHOULD(await_rc(child(3), &v) == 0 && v == 3); /* whatever happens outside */
    }
    return 0;
}

/* ---- timeouts in timeouts ------------------------------------------------------------------------- */

EVERYWHERE(cancel_everywhere_in_nested_timeouts, books_balance)
{
    struct mag_scope outer, inner;
    int rc, v = 0;

    with_timeout (MAG_MINUTE, &outer) {
        async_with(thing, t) {
            nth_point();
            with_timeout (MAG_SECOND * 20, &inner) {
                nth_point();
                v = await(child(1));
            }
        }
    }
    SHOULD(v == 1 && !mag_scope_expired(&outer) && !mag_scope_expired(&inner));
    SHOULD(mag_scope_enter(&outer, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_enter(&inner, mag_now(), NULL) == 0);
    nth_point();
    rc = mag_sleep(MAG_MINUTE); /* the inner fires at once */
    SHOULD(rc == -ECANCELED);
    rc = mag_scope_leave(&inner, rc);
    SHOULD(rc == -ETIMEDOUT || rc == -ECANCELED);
    rc = mag_scope_leave(&outer, rc == -ETIMEDOUT ? mag_yield() : rc);
    return rc;
}

/* ---- resources ---------------------------------------------------------------------------------- */

EVERYWHERE(cancel_everywhere_in_an_exit_stack, books_balance)
{
    async_with(mag_exit_stack, st) {
        for (int i = 0; i < 3; i++) {
            nth_point();
            await(mag_yield());
            mag_fetch_add(&books.n_open, 1);
            SHOULD(mag_exit_stack_push(st, close_one, NULL) == 0);
        }
        async_with(thing, t) {
            nth_point();
            await(mag_sleep(10 * MAG_US));
        }
    }
    return 0;
}

async_gen(int, counts, (int, to))
{
    async_with(thing, t) {
        for (int i = 1; i <= to; i++) {
            await(mag_yield());
            yield(i);
        }
    }
    return 0;
}

async_gen(int, doubles_of, (int, to))
{
    async_for(int, i, counts(to)) {
        await(mag_sleep(5 * MAG_US));
        yield(2 * i);
    }
    return 0;
}

EVERYWHERE(cancel_everywhere_in_a_generator, books_balance)
{
    int sum = 0;

    nth_point();
    async_for(int, i, counts(3)) {
        nth_point();
        await(mag_yield());
        sum += i;
    }
    SHOULD(sum == 6);
    async_for(int, i, doubles_of(3)) {
        nth_point();
        sum += i;
    }
    SHOULD(sum == 18);
    async_for(int, i, doubles_of(9)) {
        nth_point();
        sum += i;
        if (i == 4)
            break;
    }
    SHOULD(sum == 24);
    return 0;
}

/* ---- locks --------------------------------------------------------------------------------------- */

static struct mag_mutex mutex;
static struct mag_cond cond;
static struct mag_rwlock rwlock;
static struct mag_once once;
static struct mag_sem sem;
static struct mag_event event;
static int n_free;

static int locks_are_free(void *arg, int rc)
{
    SHOULD(!mag_mutex_locked(&mutex));
    SHOULD(mag_rwlock_trywrlock(&rwlock) == 0 && mag_rwlock_wrunlock(&rwlock) == 0);
    return books_balance(arg, rc);
}

async(void, holds_mutex)
{
    await(mag_mutex_lock(&mutex));
    int rc = mag_sleep(5 * MAG_US);
    mag_mutex_unlock(&mutex);
    return rc;
}

EVERYWHERE(cancel_everywhere_around_a_mutex, locks_are_free)
{
    int rc = 0;

    task_group(g) {
        group_spawn(g, holds_mutex());
        group_spawn(g, holds_mutex());
        for (int i = 0; i < 2; i++) {
            nth_point();
            await(mag_mutex_lock(&mutex));
            nth_point();
            rc = mag_yield();
            mag_mutex_unlock(&mutex);
            if (rc < 0)
                return rc;
        }
    }
    return rc;
}

static bool is_free(void *arg)
{
    (void)arg;
    return n_free > 0;
}

async(void, frees_one)
{
    int rc = mag_yield();

    if (rc == 0)
        rc = mag_mutex_lock(&mutex);
    if (rc < 0)
        return rc;
    mag_fetch_add(&books.n_open, 1);
    for (int i = 0; i < 3; i++) /* who is cancelled in the condition has to wait for the mutex */
        (void)mag_yield();
    n_free++;
    mag_cond_notify(&cond, 1);
    for (int i = 0; i < 3; i++) /* and who was notified */
        (void)mag_yield();
    if (mag_mutex_unlock(&mutex) == 0) /* nobody else has given it back */
        mag_fetch_sub(&books.n_open, 1);
    return 0;
}

/* Whatever happens, the mutex is held when the wait returns. */
EVERYWHERE(cancel_everywhere_around_a_condition, locks_are_free)
{
    int rc = 0;

    n_free = 0;
    task_group(g) {
        group_spawn(g, frees_one());
        nth_point();
        await(mag_mutex_lock(&mutex));
        nth_point();
        rc = mag_cond_wait_until_true(&cond, &mutex, is_free, NULL);
        SHOULD(mag_mutex_locked(&mutex));
        SHOULD(rc < 0 || n_free == 1);
        SHOULD(mag_mutex_unlock(&mutex) == 0);
        if (rc < 0)
            return rc;
    }
    return 0;
}

async(void, reads_shared, (bool, writes))
{
    int rc;

    await(writes ? mag_rwlock_wrlock(&rwlock) : mag_rwlock_rdlock(&rwlock));
    rc = mag_yield();
    (void)(writes ? mag_rwlock_wrunlock(&rwlock) : mag_rwlock_rdunlock(&rwlock));
    return rc;
}

EVERYWHERE(cancel_everywhere_around_a_rwlock, locks_are_free)
{
    int rc = 0;

    task_group(g) {
        group_spawn(g, reads_shared(false));
        group_spawn(g, reads_shared(true));
        group_spawn(g, reads_shared(false));
        nth_point();
        await(mag_rwlock_rdlock(&rwlock));
        nth_point();
        rc = mag_yield();
        mag_rwlock_rdunlock(&rwlock);
        if (rc < 0)
            return rc;
        nth_point();
        await(mag_rwlock_wrlock(&rwlock));
        nth_point();
        rc = mag_yield();
        mag_rwlock_wrunlock(&rwlock);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int makes_once(void *arg)
{
    (void)arg;
    nth_point();
    return mag_yield();
}

async(void, wants_once)
{
    return mag_once(&once, makes_once, NULL);
}

/* Who is cancelled in it lets the next one try. */
EVERYWHERE(cancel_everywhere_around_a_once, books_balance)
{
    int rc;

    memset(&once, 0, sizeof once);
    task_group(g) {
        group_spawn(g, wants_once());
        nth_point();
        rc = mag_once(&once, makes_once, NULL);
        if (rc < 0)
            return rc;
        nth_point();
        await(mag_yield());
    }
    SHOULD(mag_once(&once, makes_once, NULL) == 0);
    return 0;
}

static bool has_sem;

static int permits_are_back(void *arg, int rc)
{
    SHOULD(mag_sem_value(&sem) == 2 || !has_sem); /* cancelled before it had begun */
    return books_balance(arg, rc);
}

async(void, customer)
{
    await(mag_sem_acquire(&sem));
    int rc = mag_yield();
    mag_sem_release(&sem);
    return rc;
}

EVERYWHERE(cancel_everywhere_around_a_semaphore, permits_are_back)
{
    int rc;

    SHOULD(mag_sem_init_bounded(&sem, 2) == 0);
    has_sem = true;
    task_group(g) {
        for (int i = 0; i < 4; i++)
            group_spawn(g, customer());
        nth_point();
        await(mag_sem_acquire(&sem));
        nth_point();
        rc = mag_yield();
        mag_sem_release(&sem);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static struct mag_barrier barrier;

async(void, party)
{
    int rc = mag_barrier_wait(&barrier);

    return rc < 0 ? rc : 0;
}

EVERYWHERE(cancel_everywhere_at_a_barrier, books_balance)
{
    int rc;

    SHOULD(mag_barrier_init(&barrier, 3) == 0);
    task_group(g) {
        for (int round = 0; round < 2; round++) {
            group_spawn(g, party());
            group_spawn(g, party());
            nth_point();
            rc = mag_barrier_wait(&barrier);
            if (rc < 0)
                return rc;
        }
    }
    SHOULD(mag_barrier_n_waiting(&barrier) == 0);
    return 0;
}

async(void, sets_event)
{
    await(mag_yield());
    mag_event_set(&event);
    return 0;
}

EVERYWHERE(cancel_everywhere_around_an_event, books_balance)
{
    for (int i = 0; i < 2; i++) {
        task_group(g) {
            mag_event_clear(&event);
            group_spawn(g, sets_event());
            nth_point();
            await(mag_event_wait(&event));
        }
    }
    return 0;
}

/* ---- queues, select ------------------------------------------------------------------------------- */

static struct mag_queue *queue;
static mag_atomic(int32_t) n_put, n_got;

async(void, produces, (int, n))
{
    for (int i = 0; i < n; i++) {
        await(mag_queue_put(queue, &i));
        mag_fetch_add(&n_put, 1);
    }
    return 0;
}

/* What was put is in the queue or was got, once. */
static int items_are_there(void *arg, int rc)
{
    int item;

    while (queue && mag_queue_try_get(queue, &item) == 0)
        mag_fetch_add(&n_got, 1);
    SHOULD(mag_load_acquire(&n_put) == mag_load_acquire(&n_got));
    mag_store_relaxed(&n_put, 0);
    mag_store_relaxed(&n_got, 0);
    mag_queue_free(queue);
    queue = NULL; /* the next one may be cancelled before it has begun */
    return books_balance(arg, rc);
}

EVERYWHERE(cancel_everywhere_around_a_queue, items_are_there)
{
    int item;

    SHOULD(mag_queue_new(&queue, sizeof item, 2, NULL) == 0);
    task_group(g) {
        group_spawn(g, produces(5));
        for (int i = 0; i < 5; i++) {
            nth_point();
            await(mag_queue_get(queue, &item));
            mag_fetch_add(&n_got, 1);
        }
        for (int i = 0; i < 3; i++) {
            nth_point();
            if (i == 2)
                break;
            await(mag_queue_put(queue, &item));
            mag_fetch_add(&n_put, 1);
        }
    }
    return 0;
}

EVERYWHERE(cancel_everywhere_in_a_select, items_are_there)
{
    int item, rc;

    SHOULD(mag_queue_new(&queue, sizeof item, 2, NULL) == 0);
    mag_event_clear(&event);
    task_group(g) {
        group_spawn(g, produces(3));
        group_spawn(g, sets_event());
        for (bool has_event = false, has_all = false; !has_event || !has_all;) {
            struct mag_case cases[] = { mag_case_get(queue, &item), mag_case_event(&event),
                                        mag_case_at(mag_now() + MAG_MINUTE) };
            nth_point();
            rc = mag_select(cases, 3);
            if (rc < 0)
                return rc;
            SHOULD(rc < 2);
            if (rc == 0)
                has_all = mag_fetch_add(&n_got, 1) == 2;
            if (rc == 1) {
                has_event = true;
                mag_event_clear(&event);
            }
        }
    }
    return 0;
}

/* ---- everything in one ------------------------------------------------------------------------------ */

async_gen(int, all_items)
{
    int item;

    /* what a cancelled consumer refuses is the generator's to keep: here it counts as got */
    while (mag_queue_get(queue, &item) == 0) {
        mag_fetch_add(&n_got, 1);
        yield(item);
    }
    return 0;
}

async(void, feeds)
{
    async_with(thing, t) {
        for (int i = 1; i <= 3; i++) {
            await(mag_mutex_lock(&mutex));
            int rc = mag_queue_put(queue, &i);
            mag_fetch_add(&n_put, rc == 0);
            mag_mutex_unlock(&mutex);
            if (rc < 0)
                return rc;
        }
    }
    await(mag_queue_shutdown(queue, false));
    return 0;
}

EVERYWHERE(cancel_everywhere_with_all_of_it, items_are_there)
{
    int sum = 0, v = 0;

    SHOULD(mag_queue_new(&queue, sizeof v, 1, NULL) == 0);
    with_timeout (MAG_MINUTE) {
        async_with(mag_exit_stack, st) {
            mag_fetch_add(&books.n_open, 1);
            SHOULD(mag_exit_stack_push(st, close_one, NULL) == 0);
            task_group(g, .limit = 2) {
                group_spawn(g, feeds());
                group_spawn(g, child(9), &v);
                async_for(int, i, all_items()) {
                    nth_point();
                    await(mag_yield());
                    sum += i;
                }
            }
            int r[2];
            nth_point();
            gather(r, child(1), child(2));
            SHOULD(r[0] + r[1] == 3);
        }
    }
    SHOULD(sum == 6 && v == 9);
    return 0;
}

/* ---- limits at the instant of the result -------------------------------------------------------------- */

enum { INSTANTS = 60 };

static mag_time at_that_time(int i)
{
    return (60 + i % 9 * 3) * MAG_US;
}

/* Runs `wait' under a limit that ends when `fn', in another task, makes it end.  `there' says
 * afterwards whether what was waited for is (still) there: it must be, unless it was had. */
typedef void (*happening)(void);

struct instant {
    int (*wait)(void);
    happening happen;
    bool (*is_left)(void);
};

async(void, happens, (happening, fn), (mag_time, when))
{
    await(mag_sleep_until(when));
    fn();
    return 0;
}

static int at_each_instant(const struct instant *in)
{
    int n_had = 0;

    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        struct happens *h = spawn(happens(in->happen, when + (i % 5 - 2) * 2 * MAG_US));
        struct mag_scope s;
        int rc = mag_scope_enter(&s, when, NULL);

        if (rc == 0)
            rc = mag_scope_leave(&s, in->wait());
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        SHOULD(await_rc(h, NULL) == 0);
        SHOULD(in->is_left() == (rc != 0));
        SHOULD(mag_checkpoint() == 0);
        n_had += rc == 0;
    }
    return n_had >= 0 ? 0 : -1;
}

static int wait_mutex(void)
{
    return mag_mutex_lock(&mutex);
}

/* It is held when the wait begins, by nobody in particular, and given back in time. */
static void give_mutex(void)
{
    mag_mutex_unlock(&mutex);
}

/* Free: so nobody had it; held: who waited has it.  Held for the next round either way. */
static bool mutex_is_left(void)
{
    return mag_mutex_trylock(&mutex) == 0;
}

ON_1_AND_4(adversarial, a_mutex_at_the_instant_of_the_deadline)
{
    static const struct instant in = { wait_mutex, give_mutex, mutex_is_left };

    SHOULD(mag_mutex_trylock(&mutex) == 0);
    int rc = at_each_instant(&in);
    mag_mutex_unlock(&mutex);
    return rc;
}

static int wait_sem(void)
{
    return mag_sem_acquire(&sem);
}

static void give_sem(void)
{
    mag_sem_release(&sem);
}

static bool sem_is_left(void)
{
    return mag_sem_try_acquire(&sem) == 0;
}

ON_1_AND_4(adversarial, a_permit_at_the_instant_of_the_deadline)
{
    static const struct instant in = { wait_sem, give_sem, sem_is_left };

    SHOULD(mag_sem_init(&sem, 0) == 0);
    return at_each_instant(&in);
}

static int wait_rwlock(void)
{
    return mag_rwlock_wrlock(&rwlock);
}

static void give_rwlock(void)
{
    mag_rwlock_wrunlock(&rwlock);
}

static bool rwlock_is_left(void)
{
    return mag_rwlock_trywrlock(&rwlock) == 0;
}

ON_1_AND_4(adversarial, a_rwlock_at_the_instant_of_the_deadline)
{
    static const struct instant in = { wait_rwlock, give_rwlock, rwlock_is_left };

    SHOULD(mag_rwlock_trywrlock(&rwlock) == 0);
    int rc = at_each_instant(&in);
    mag_rwlock_wrunlock(&rwlock);
    return rc;
}

/* A notification that meets a limit is not swallowed: a second waiter has it then. */
static mag_atomic(int32_t) n_notified;

async(void, second_waiter)
{
    int rc;

    await(mag_mutex_lock(&mutex));
    rc = mag_cond_wait(&cond, &mutex);
    mag_mutex_unlock(&mutex);
    mag_fetch_add(&n_notified, rc == 0);
    return rc;
}

static void notify_one(void)
{
    mag_cond_notify(&cond, 1);
}

ON_1_AND_4(adversarial, a_notification_at_the_instant_of_the_deadline)
{
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when;
        struct happens *h;
        struct second_waiter *second;
        struct mag_scope s;
        int rc, n;

        mag_store_relaxed(&n_notified, 0);
        SHOULD(mag_mutex_lock(&mutex) == 0);
        second = spawn(second_waiter());
        when = mag_now() + 100 * MAG_US;
        h = spawn(happens(notify_one, when + (i % 5 - 2) * 2 * MAG_US));
        SHOULD(mag_scope_enter(&s, when, NULL) == 0);
        rc = mag_cond_wait(&cond, &mutex);
        mag_mutex_unlock(&mutex);
        rc = mag_scope_leave(&s, rc);
        SHOULD(rc == 0 || rc == -ETIMEDOUT);
        SHOULD(await_rc(h, NULL) == 0);
        for (int k = 0; k < 100 && mag_load_acquire(&n_notified) == 0; k++)
            SHOULD(mag_yield() == 0);
        mag_cancel(second);
        n = (await_rc(second, NULL) == 0) + (rc == 0);
        /* one notification, one who has it; none if nobody waited yet when it came */
        SHOULD(n == 1 || n == 0);
    }
    return 0;
}

/* A barrier that is full at that instant: all pass, or none. */
ON_1_AND_4(adversarial, a_full_barrier_at_the_instant_of_the_deadline)
{
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        struct mag_scope s;
        struct party *other;
        int rc;

        SHOULD(mag_barrier_init(&barrier, 2) == 0);
        SHOULD(mag_scope_enter(&s, when, NULL) == 0);
        struct happens *h = spawn(happens(notify_one, when));
        other = spawn(party());
        if (i % 2)
            while (mag_now() < when)
                ;
        rc = mag_scope_leave(&s, mag_barrier_wait(&barrier));
        SHOULD(rc == 0 || rc == 1 || rc == -ETIMEDOUT);
        SHOULD(await_rc(h, NULL) == 0);
        if (rc < 0)
            mag_cancel(other);
        SHOULD(await_rc(other, NULL) == (rc < 0 ? -ECANCELED : 0));
        SHOULD(mag_barrier_n_waiting(&barrier) == 0 && !mag_barrier_is_broken(&barrier));
    }
    return 0;
}

async(int, gives_at, (mag_time, when), (int, n))
{
    await(mag_sleep_until(when));
    async_return(n);
}

/* Under one deadline: a gather, a race, a group, a generator that end just then. */
ON_1_AND_4(adversarial, a_gather_at_the_instant_of_the_deadline)
{
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        void *c[] = { gives_at(when, 1), spawn(gives_at(when - MAG_US, 2)) };
        int v[2] = { 0 };
        struct mag_scope s;
        int rc;

        SHOULD(mag_scope_enter(&s, when, NULL) == 0);
        rc = mag_scope_leave(&s, mag_gather(v, sizeof *v, c, 2, NULL));
        SHOULD(rc == 0 ? v[0] == 1 && v[1] == 2 : rc == -ETIMEDOUT);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}

ON_1_AND_4(adversarial, a_race_at_the_instant_of_the_deadline)
{
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        void *c[] = { gives_at(when, 1), gives_at(when, 2) };
        struct mag_scope s;
        size_t winner = 9;
        int rc, v = 0;

        SHOULD(mag_scope_enter(&s, when, NULL) == 0);
        rc = mag_scope_leave(&s, mag_race(&v, sizeof v, c, 2, &winner));
        SHOULD(rc == 0 ? v == (int)winner + 1 : rc == -ETIMEDOUT);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}

static int group_until(mag_time when, int *v)
{
    task_group(g) {
        group_spawn(g, gives_at(when, 1), &v[0]);
        group_spawn(g, gives_at(when, 2), &v[1]);
    }
    return 0;
}

ON_1_AND_4(adversarial, a_group_at_the_instant_of_the_deadline)
{
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        int v[2] = { 0 }, rc;
        struct mag_scope s;

        SHOULD(mag_scope_enter(&s, when, NULL) == 0);
        rc = mag_scope_leave(&s, group_until(when, v));
        SHOULD(rc == 0 ? v[0] == 1 && v[1] == 2 : rc == -ETIMEDOUT);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}

async_gen(int, items_at, (mag_time, when))
{
    async_with(thing, t) {
        await(mag_sleep_until(when));
        yield(1);
    }
    return 0;
}

static int first_of(mag_time when, int *v)
{
    async_for(int, i, items_at(when)) {
        *v = i;
    }
    return 0;
}

ON_1_AND_4(adversarial, a_generator_at_the_instant_of_the_deadline)
{
    mag_store_relaxed(&books.n_open, 0);
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        struct mag_scope s;
        int rc, v = 0;

        SHOULD(mag_scope_enter(&s, when, NULL) == 0);
        rc = mag_scope_leave(&s, first_of(when, &v));
        SHOULD(rc == 0 ? v == 1 : rc == -ETIMEDOUT);
        SHOULD(mag_load_acquire(&books.n_open) == 0);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}

static int blocks_for(void *ns)
{
    mag_sleep(num(ns)); /* a thread of the pool: it blocks */
    return 7;
}

ON_1_AND_4(adversarial, a_thread_at_the_instant_of_the_deadline)
{
    for (int i = 0; i < INSTANTS / 2; i++) {
        mag_time ns = at_that_time(i);
        struct mag_scope s;
        int rc;

        SHOULD(mag_scope_enter(&s, mag_now() + ns, NULL) == 0);
        rc = mag_scope_leave(&s, mag_to_thread(blocks_for, arg_of(ns)));
        SHOULD(rc == 7 || rc == -ETIMEDOUT);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}

/* Two limits at the same instant: the outer one has the say. */
ON_1_AND_4(adversarial, two_deadlines_at_the_same_instant)
{
    for (int i = 0; i < INSTANTS; i++) {
        mag_time when = mag_now() + at_that_time(i);
        struct mag_scope outer, inner;
        int rc;

        SHOULD(mag_scope_enter(&outer, when, NULL) == 0);
        SHOULD(mag_scope_enter(&inner, when, NULL) == 0);
        rc = mag_scope_leave(&inner, mag_sleep(MAG_MINUTE));
        SHOULD(rc == -ECANCELED);
        SHOULD(mag_scope_expired(&inner) && mag_scope_expired(&outer));
        SHOULD(mag_scope_leave(&outer, rc) == -ETIMEDOUT);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}
