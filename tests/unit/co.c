/* SPDX-License-Identifier: MIT */
/* co.c - coroutine objects: started, awaited in any order, refused, given up */
#include "body.h"
#include "in_task.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(co, .timeout = 20);

static bool is_kind(const void *awaitable, const char *kind)
{
    return strcmp(mag_kind_name(awaitable), kind) == 0;
}

/* ---- await, in every order ------------------------------------------------------------ */

enum order { OLDEST_FIRST, NEWEST_FIRST, SHUFFLED, N_ORDERS };
enum { MANY = 3000 };

static void make_order(int *order, enum order how)
{
    unsigned seed = 1;

    for (int i = 0; i < MANY; i++)
        order[i] = how == NEWEST_FIRST ? MANY - 1 - i : i;
    for (int i = MANY - 1; how == SHUFFLED && i > 0; i--) {
        int k = (int)((seed = seed * 1664525 + 1013904223) >> 8) % (i + 1), other = order[k];
        if (k < 0)
            k = -k, other = order[k];
        order[k] = order[i];
        order[i] = other;
    }
}

struct await_in_order {
    enum order order;
    int (*fn)(void *arg, long *value);
};

static int await_in_order(void *arg, long *value)
{
    static struct co *tasks[MANY];
    static int order[MANY];
    struct await_in_order *a = arg;

    (void)value;
    make_order(order, a->order);
    for (int i = 0; i < MANY; i++)
        SHOULD(tasks[i] = go(a->fn, arg_of(i)));
    for (int i = 0; i < MANY; i++) {
        long v = -1;
        SHOULD(await_co(tasks[order[i]], &v) == 0);
        SHOULD(v == order[i]);
        SHOULD(is_kind(tasks[order[i]], "freed"));
    }
    return 0;
}

static int same_after_sleep(void *arg, long *value)
{
    *value = num(arg);
    return mag_sleep(num(arg) % 7 * 100 * MAG_US);
}

Test(co, awaits_in_any_order)
{
    for (int order = 0; order < N_ORDERS; order++) {
        struct await_in_order a = { order, same }, b = { order, same_later },
                              c = { order, same_after_sleep };
        RUN_1_AND_4(await_in_order, &a);
        RUN_1_AND_4(await_in_order, &b);
        RUN_1_AND_4(await_in_order, &c);
    }
}

static int tree(void *arg, long *value)
{
    long n = num(arg), left = 0, right = 0;
    struct co *a, *b;
    int rc;

    if (n == 0) {
        *value = 1;
        return 0;
    }
    a = go(tree, arg_of(n - 1));
    b = co(tree, arg_of(n - 1));
    rc = await_co(b, &right);
    if (rc == 0)
        rc = await_co(a, &left);
    *value = left + right;
    return rc;
}

static int whole_tree(void *arg, long *value)
{
    long n = 0;

    (void)value;
    SHOULD(await_co(co(tree, arg), &n) == 0);
    SHOULD(n == 1L << num(arg));
    return 0;
}

Test(co, a_tree_of_tasks)
{
    for (int i = 0; i < 5; i++)
        RUN_1_AND_4(whole_tree, arg_of(14));
}

/* ---- who am I ----------------------------------------------------------------------------- */

static struct mag_task *who;

static int tell_self(void *arg, long *value)
{
    who = mag_self();
    *value = strcmp(mag_name(who), arg ? arg : "co") == 0;
    return 0;
}

static int identity(void *arg, long *value)
{
    static const struct mag_co_type fancy = {
        .name = "fancy", .body = co_body, .frame_bytes = sizeof(struct co), .result_bytes = 8
    };
    struct mag_spawn_options named = { .name = "given" };
    struct mag_task *me = mag_self();
    struct co *c;
    long ok = 0;

    (void)arg, (void)value;
    SHOULD(me && is_kind(me, "task"));
    c = co(tell_self, NULL);
    SHOULD(await_co(c, &ok) == 0 && ok);
    SHOULD(who == (struct mag_task *)c); /* in place, and still itself */
    SHOULD(mag_self() == me);
    c = co_of(&fancy, tell_self, "fancy");
    SHOULD(strcmp(mag_name(c), "fancy") == 0);
    SHOULD(await_co(c, &ok) == 0 && ok);
    c = co_of(&fancy, tell_self, "given");
    SHOULD(mag_start(c, &named) == 0);
    SHOULD(strcmp(mag_name(c), "given") == 0);
    SHOULD(await_co(c, &ok) == 0 && ok);
    SHOULD(who == (struct mag_task *)c);
    SHOULD(mag_self() == me);
    return 0;
}

Test(co, each_has_its_identity)
{
    RUN_1_AND_4(identity, NULL);
    cr_assert_null(mag_self());
}

/* ---- life ----------------------------------------------------------------------------------- */

static int life(void *arg, long *value)
{
    struct co *c = co(same_later, arg_of(6));
    long v = 0;

    (void)arg, (void)value;
    SHOULD(is_kind(c, "coroutine") && !mag_done(c));
    SHOULD(mag_start(c, NULL) == 0);
    SHOULD(is_kind(c, "task"));
    SHOULD(mag_start(c, NULL) == -EALREADY);
    while (!mag_done(c))
        SHOULD(mag_yield() == 0);
    SHOULD(is_kind(c, "task"));
    SHOULD(mag_start(c, NULL) == -EALREADY);
    SHOULD(await_co(c, &v) == 0 && v == 6);
    SHOULD(is_kind(c, "freed") && !mag_done(c));
    SHOULD(mag_start(c, NULL) == -EALREADY);
    SHOULD(is_kind(NULL, "freed") && !mag_done(NULL));
    return 0;
}

Test(co, created_spawned_done_freed)
{
    RUN_1_AND_4(life, NULL);
}

static int does_not_run_early(void *arg, long *value)
{
    static mag_atomic(uint32_t) n;
    struct mag_spawn_options here = { .pin = true };
    struct co *c = co(sleep_ns, arg_of(0));

    (void)arg, (void)value;
    SHOULD(mag_sleep(2 * MAG_MS) == 0);
    SHOULD(!mag_done(c)); /* created only: nothing runs */
    SHOULD(mag_start(c, &here) == 0);
    SHOULD(!mag_done(c)); /* not before the call has returned */
    SHOULD(await_co(c, NULL) == 0);
    (void)n;
    return 0;
}

Test(co, runs_only_when_started)
{
    RUN_1_AND_4(does_not_run_early, NULL);
}

static int drops_results(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_await(co(same, arg_of(1)), NULL, 0) == 0);
    SHOULD(mag_await(go(same, arg_of(1)), NULL, sizeof(long)) == 0);
    return 0;
}

Test(co, a_result_can_be_dropped)
{
    RUN_1_AND_4(drops_results, NULL);
}

static int rc_and_result(void *arg, long *value)
{
    *value = 5;
    return (int)num(arg);
}

static int rcs(void *arg, long *value)
{
    long v = 1;

    (void)arg, (void)value;
    SHOULD(await_co(co(rc_and_result, arg_of(17)), &v) == 17 && v == 5); /* a count */
    v = 1;
    SHOULD(await_co(co(rc_and_result, arg_of(-EIO)), &v) == -EIO && v == 1); /* untouched */
    SHOULD(await_co(go(rc_and_result, arg_of(17)), &v) == 17 && v == 5);
    v = 1;
    SHOULD(await_co(go(rc_and_result, arg_of(-EIO)), &v) == -EIO && v == 1);
    return 0;
}

Test(co, an_error_leaves_the_result_alone)
{
    RUN_1_AND_4(rcs, NULL);
}

/* ---- refused ----------------------------------------------------------------------------------- */

static int wrong_size(void)
{
    struct co *c = co(same, arg_of(3));
    char small[2] = "x";
    long v = 0;

    EXPECT(mag_await(c, small, sizeof small) == -EINVAL);
    EXPECT(small[0] == 'x');
    EXPECT(is_kind(c, "coroutine"));
    EXPECT(await_co(c, &v) == 0 && v == 3); /* it was not consumed */
    return 0;
}

Test(co, refuses_a_result_of_another_size)
{
    BOTH(wrong_size);
}

static int null_awaitable(void)
{
    long v;

    EXPECT(mag_await(NULL, &v, sizeof v) == -ENOMEM);
    EXPECT(mag_await(NULL, NULL, 0) == -ENOMEM);
    EXPECT(mag_start(NULL, NULL) == -ENOMEM);
    EXPECT(mag_cancel(NULL) == -ENOMEM);
    EXPECT(mag_detach(NULL) == -ENOMEM);
    EXPECT(mag_close(NULL) == 0 || mag_close(NULL) == -ENOMEM);
    EXPECT(strcmp(mag_name(NULL), "?") == 0);
    return 0;
}

Test(co, null_means_out_of_memory)
{
    BOTH(null_awaitable);
    cr_assert_eq(mag_run(NULL, NULL), -ENOMEM);
}

/* Awaited by one, then by a second, in each state that the object can be in. */
static int await_it(void *arg, long *value)
{
    return mag_await(arg, value, sizeof *value);
}

/* Until the future is set, however long that takes: what awaits it is not over before. */
static int until_set(void *gate, long *value)
{
    return mag_await(gate, value, sizeof *value);
}

static int twice(void *arg, long *value)
{
    struct co *c, *first;
    void *gate;
    long v = 0;

    (void)arg, (void)value;
    c = co(same, arg_of(1)); /* a coroutine, consumed */
    SHOULD(await_co(c, &v) == 0);
    SHOULD(await_co(c, &v) == -EALREADY);
    c = go(same, arg_of(1)); /* a task that never ran elsewhere, consumed */
    SHOULD(await_co(c, &v) == 0);
    SHOULD(await_co(c, &v) == -EALREADY);
    c = go(same, arg_of(1)); /* done before, consumed */
    while (!mag_done(c))
        SHOULD(mag_yield() == 0);
    SHOULD(await_co(c, &v) == 0);
    SHOULD(await_co(c, &v) == -EALREADY);
    gate = future();
    c = go(until_set, gate); /* running, awaited by another task */
    first = go(await_it, c);
    SHOULD(settle_down() == 0);
    SHOULD(await_co(c, &v) == -EALREADY);
    SHOULD(set(gate, 20) == 0);
    SHOULD(await_co(first, &v) == 0 && v == 20);
    SHOULD(await_co(c, &v) == -EALREADY);
    gate = future();
    c = co(until_set, gate); /* runs in place in another task */
    first = go(await_it, c);
    SHOULD(settle_down() == 0);
    SHOULD(await_co(c, &v) == -EALREADY);
    SHOULD(mag_start(c, NULL) == -EALREADY);
    SHOULD(set(gate, 21) == 0);
    SHOULD(await_co(first, &v) == 0 && v == 21);
    SHOULD(await_co(first, &v) == -EALREADY);
    return 0;
}

Test(co, is_awaited_once)
{
    RUN_1_AND_4(twice, NULL);
}

static int await_self(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_await(mag_self(), NULL, 0) == -EDEADLK);
    return 0;
}

static int await_outer(void *arg, long *value)
{
    (void)value;
    SHOULD(mag_await(arg, NULL, 0) == -EDEADLK);
    return mag_yield();
}

static int deadlocks(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_await(mag_self(), NULL, 0) == -EDEADLK);
    SHOULD(await_co(co(await_self, NULL), NULL) == 0);  /* in place */
    SHOULD(await_co(go(await_self, NULL), NULL) == 0);  /* perhaps in place */
    SHOULD(await_co(co(await_outer, mag_self()), NULL) == 0);
    return 0;
}

Test(co, cannot_await_itself)
{
    RUN_1_AND_4(deadlocks, NULL);
}

static int outside(void)
{
    struct mag_task *t;
    struct co *c = co(same, arg_of(1));

    EXPECT(mag_start(c, NULL) == -ENXIO);
    EXPECT(is_kind(c, "coroutine"));
    EXPECT(mag_cancel(c) == -EINVAL && mag_detach(c) == -EINVAL);
    EXPECT(mag_close(c) == 0);
    EXPECT(mag_spawn(&t, co_body, NULL, 0, 0, NULL) == -ENXIO);
    EXPECT(mag_self() == NULL && mag_rt_self() == NULL);
    return 0;
}

Test(co, spawns_only_in_a_task)
{
    cr_assert_eq(outside(), 0, "line %d", outside());
}

/* ---- outside a task --------------------------------------------------------------------------- */

static int nested(void *arg, long *value)
{
    if (num(arg) == 0)
        return mag_yield();
    return await_co(co(nested, arg_of(num(arg) - 1)), value);
}

Test(co, runs_outside_a_task_too)
{
    struct co *c = co(same_later, arg_of(9));
    long v = 0;

    cr_assert_eq(await_co(c, &v), 0);
    cr_assert_eq(v, 9);
    cr_assert_eq(await_co(c, &v), -EALREADY);
    cr_assert_eq(await_co(co(fails_with, arg_of(-EIO)), &v), -EIO);
    cr_assert_eq(await_co(co(nested, arg_of(50)), &v), 0);
}

static mag_atomic(uint32_t) n_threads_over;

static void *await_in_thread(void *arg)
{
    long v = 0;
    int rc = await_co(arg, &v);

    mag_fetch_add(&n_threads_over, 1);
    return rc == 0 ? arg_of(v) : NULL;
}

static int await_by_thread(void *arg, long *value)
{
    struct co *c = go(sleep_ns, arg_of(10 * MAG_MS));
    pthread_t thread;
    void *v;

    (void)arg, (void)value;
    mag_store_seq(&n_threads_over, 0);
    SHOULD(pthread_create(&thread, NULL, await_in_thread, c) == 0);
    while (!mag_load_acquire(&n_threads_over)) /* a join would block the worker that it needs */
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(pthread_join(thread, &v) == 0);
    SHOULD(num(v) == 10 * MAG_MS);
    return 0;
}

Test(co, a_foreign_thread_can_await_a_task)
{
    RUN_1_AND_4(await_by_thread, NULL);
}

/* ---- given up ------------------------------------------------------------------------------------ */

static mag_atomic(uint32_t) n_ended;

static int count_end(void *arg, long *value)
{
    int rc = mag_sleep(num(arg));

    *value = 0;
    mag_fetch_add(&n_ended, 1);
    return rc;
}

static int detaches(void *arg, long *value)
{
    struct co *c;

    (void)arg, (void)value;
    n_ended = 0;
    for (int i = 0; i < 100; i++) {
        c = go(count_end, arg_of(i % 3 * MAG_MS));
        if (i % 2) /* ended before, or after */
            while (i % 4 == 1 && !mag_done(c))
                SHOULD(mag_yield() == 0);
        SHOULD(mag_detach(c) == 0);
    }
    while (mag_load_acquire(&n_ended) < 100)
        SHOULD(mag_sleep(MAG_MS) == 0);
    c = co(same, arg_of(1));
    SHOULD(mag_detach(c) == -EINVAL); /* never spawned */
    SHOULD(mag_close(c) == 0);
    return 0;
}

Test(co, detached_tasks_end_by_themselves)
{
    RUN_1_AND_4(detaches, NULL);
}

static int closes(void *arg, long *value)
{
    struct co *c = co(same, arg_of(1));
    void *f;

    (void)arg, (void)value;
    SHOULD(mag_close(c) == 0); /* unstarted: dropped */
    SHOULD(is_kind(c, "freed"));
    SHOULD(mag_close(c) == -EALREADY);
    c = go(forever, NULL); /* running: cancelled, and waited for */
    SHOULD(settle_down() == 0);
    SHOULD(mag_close(c) == 0);
    SHOULD(is_kind(c, "freed"));
    c = go(forever, NULL); /* not begun */
    SHOULD(mag_close(c) == 0);
    c = go(same, arg_of(2)); /* done */
    while (!mag_done(c))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_close(c) == 0);
    f = future(); /* the awaiter's hold is given up, the setter's remains */
    SHOULD(mag_close(f) == 0);
    SHOULD(set(f, 1) == 0 || set(f, 1) == -EALREADY);
    f = future();
    SHOULD(set(f, 1) == 0);
    SHOULD(mag_close(f) == 0);
    return 0;
}

Test(co, close_drops_or_cancels)
{
    RUN_1_AND_4(closes, NULL);
}

/* ---- plain functions -------------------------------------------------------------------------------- */

struct frame {
    long a, b;
    char text[100];
};

static int plain_body(void *frame, void *result)
{
    struct frame *f = frame;
    int rc = mag_yield();

    *(long *)result = f->a * f->b + (long)strlen(f->text);
    return rc;
}

static int no_frame(void *frame, void *result)
{
    (void)frame, (void)result;
    return 3;
}

static int plain(void *arg, long *value)
{
    struct frame f = { 6, 7, "hello" };
    struct mag_spawn_options named = { .name = "product" };
    struct mag_task *t;
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_spawn(&t, plain_body, &f, sizeof f, sizeof v, NULL) == 0);
    f.a = 0; /* the frame was copied */
    SHOULD(mag_await(t, &v, sizeof v) == 0 && v == 47);
    SHOULD(mag_spawn(&t, plain_body, &f, sizeof f, sizeof v, &named) == 0);
    SHOULD(strcmp(mag_name(t), "product") == 0);
    SHOULD(mag_await(t, &v, 4) == -EINVAL);
    SHOULD(mag_await(t, &v, sizeof v) == 0 && v == 5);
    SHOULD(mag_spawn(&t, no_frame, NULL, 0, 0, NULL) == 0);
    SHOULD(mag_await(t, NULL, 0) == 3);
    SHOULD(mag_spawn(&t, NULL, NULL, 0, 0, NULL) == -EINVAL);
    return 0;
}

Test(co, plain_functions_are_tasks_too)
{
    RUN_1_AND_4(plain, NULL);
}

static int large_frame_body(void *frame, void *result)
{
    unsigned char *bytes = frame;
    long sum = 0;
    int rc = mag_yield();

    for (int i = 0; i < 100000; i++)
        sum += bytes[i];
    *(long *)result = sum;
    return rc;
}

static int large_frames(void *arg, long *value)
{
    static unsigned char bytes[100000];
    struct mag_task *t;
    long v = 0;

    (void)arg, (void)value;
    memset(bytes, 3, sizeof bytes);
    for (int i = 0; i < 20; i++) {
        SHOULD(mag_spawn(&t, large_frame_body, bytes, sizeof bytes, sizeof v, NULL) == 0);
        SHOULD(mag_await(t, &v, sizeof v) == 0 && v == 300000);
    }
    return 0;
}

Test(co, frames_can_be_large)
{
    RUN_1_AND_4(large_frames, NULL);
}
