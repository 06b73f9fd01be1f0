/* SPDX-License-Identifier: MIT */
/*
 * Misuse is told: each mistake of a caller is answered by its -errno and, in debug mode, by
 * one sentence on standard error that names the call or the thing.
 *
 * mag_debug() reads the environment once, so it is set before anything else runs.
 */
#include "body.h"

#include "clock.h"
#include "misuse.h"

#include <magpie/async.h>

#include <criterion/criterion.h>
#include <unistd.h>

TestSuite(misuse, .timeout = 60);

__attribute__((constructor)) static void debug_mode(void)
{
    setenv("MAGPIE_DEBUG", "1", 1);
    setenv("MAGPIE_SLOW_MS", "0", 1); /* a report of a slow task is no answer to a mistake */
}

/* ---- what is said ---------------------------------------------------------------------------- */

static int said_fd = -1, stderr_fd = -1;
static char said[2000];

static void listen_begin(void)
{
    if (said_fd < 0)
        said_fd = fileno(tmpfile());
    (void)!ftruncate(said_fd, 0);
    (void)lseek(said_fd, 0, SEEK_SET);
    stderr_fd = dup(2);
    (void)dup2(said_fd, 2);
}

static int listen_end(int rc)
{
    ssize_t n;

    (void)dup2(stderr_fd, 2);
    close(stderr_fd);
    n = pread(said_fd, said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = '\0';
    return rc;
}

static int n_untold;

/* The rc, and a line, one, with these words in it. */
static bool is_told(int rc, int expected, const char *words, int line)
{
    const char *end = strchr(said, '\n');

    if (rc == expected && end && end[1] == '\0' && strstr(said, words))
        return true;
    fprintf(stderr, "misuse.c:%d: %s instead of %s, and \"%s\" instead of \"%s\"\n", line,
            mag_err_name(rc), mag_err_name(expected), said, words);
    n_untold++;
    return false;
}

/* It goes on after a failure, which is counted. */
#define TOLD(expected, words, call) \
    (listen_begin(), (void)is_told(listen_end(call), (expected), (words), __LINE__))

#define MISUSE(name) \
    static int name##_main(void); \
    static int name##_body(void *arg, long *value) \
    { \
        (void)arg, (void)value; \
        return name##_main(); \
    } \
    Test(misuse, name) \
    { \
        RUN_1_AND_4(name##_body, NULL); \
        cr_assert_eq(n_untold, 0); \
    } \
    static int name##_main(void)

Test(misuse, debug_mode_is_on)
{
    cr_assert(mag_debug());
    listen_begin();
    cr_assert_eq(listen_end(mag_misuse(-EPERM, "a number: %d", 7)), -EPERM);
    cr_assert(is_told(-EPERM, -EPERM, "a number: 7", __LINE__));
}

/* ---- locks ------------------------------------------------------------------------------------- */

MISUSE(unlocking_what_is_not_held)
{
    struct mag_mutex m = { 0 };
    struct mag_rwlock rw = { 0 };
    struct mag_cond c = { 0 };
    struct mag_sem sem;

    TOLD(-EPERM, "unlock", mag_mutex_unlock(&m));
    TOLD(-EPERM, "rdunlock", mag_rwlock_rdunlock(&rw));
    TOLD(-EPERM, "wrunlock", mag_rwlock_wrunlock(&rw));
    TOLD(-EPERM, "mag_cond_wait", mag_cond_wait(&c, &m));
    SHOULD(mag_sem_init_bounded(&sem, 1) == 0);
    TOLD(-EOVERFLOW, "more often", mag_sem_release(&sem));
    TOLD(-EINVAL, "permits", mag_sem_init(&sem, -1));
    SHOULD(mag_mutex_lock(&m) == 0 && mag_mutex_unlock(&m) == 0);
    TOLD(-EPERM, "unlock", mag_mutex_unlock(&m)); /* the second time */
    return 0;
}

MISUSE(primitives_that_are_null)
{
    struct mag_mutex m = { 0 };

    TOLD(-EINVAL, "NULL", mag_mutex_lock(NULL));
    TOLD(-EINVAL, "NULL", mag_mutex_trylock(NULL));
    TOLD(-EINVAL, "NULL", mag_mutex_unlock(NULL));
    TOLD(-EINVAL, "NULL", mag_cond_wait(NULL, &m));
    TOLD(-EINVAL, "NULL", mag_cond_notify(NULL, 1));
    TOLD(-EINVAL, "NULL", mag_event_set(NULL));
    TOLD(-EINVAL, "NULL", mag_event_clear(NULL));
    TOLD(-EINVAL, "NULL", mag_event_wait(NULL));
    TOLD(-EINVAL, "NULL", mag_sem_acquire(NULL));
    TOLD(-EINVAL, "NULL", mag_sem_release(NULL));
    TOLD(-EINVAL, "NULL", mag_barrier_wait(NULL));
    TOLD(-EINVAL, "NULL", mag_rwlock_rdlock(NULL));
    TOLD(-EINVAL, "NULL", mag_rwlock_wrlock(NULL));
    TOLD(-EINVAL, "NULL", mag_once(NULL, NULL, NULL));
    TOLD(-EINVAL, "NULL", mag_queue_put(NULL, &m));
    TOLD(-EINVAL, "NULL", mag_queue_get(NULL, &m));
    TOLD(-EINVAL, "NULL", mag_queue_join(NULL));
    TOLD(-EINVAL, "NULL", mag_queue_shutdown(NULL, false));
    TOLD(-EINVAL, "NULL", mag_var_set(NULL, NULL));
    return 0;
}

static int calls_itself(void *once)
{
    return mag_once(once, calls_itself, once);
}

MISUSE(once_from_its_own_function)
{
    struct mag_once once = { 0 };

    TOLD(-EDEADLK, "mag_once", mag_once(&once, calls_itself, &once));
    return 0;
}

MISUSE(a_barrier_of_nobody)
{
    struct mag_barrier b = { 0 };

    TOLD(-EINVAL, "0 parties", mag_barrier_init(&b, 0));
    TOLD(-EINVAL, "not initialised", mag_barrier_wait(&b));
    return 0;
}

/* ---- awaitables ----------------------------------------------------------------------------------- */

MISUSE(a_double_await)
{
    struct co *c = co(same, arg_of(1)), *t = go(same, arg_of(1));
    long v;
    bool done;
    void *set[1];

    SHOULD(await_co(c, &v) == 0 && await_co(t, &v) == 0);
    TOLD(-EALREADY, "await", mag_await(c, &v, sizeof v));
    TOLD(-EALREADY, "await", mag_await(t, &v, sizeof v));
    TOLD(-EALREADY, "await", mag_wait_for(t, MAG_SECOND, &v, sizeof v));
    TOLD(-EALREADY, "await", mag_shield(t, &v, sizeof v));
    set[0] = t;
    TOLD(-EALREADY, "await", mag_wait(set, 1, MAG_ALL_COMPLETED, MAG_NEVER, &done));
    return 0;
}

static int awaits_it(void *task, long *value)
{
    return mag_await(task, value, sizeof *value);
}

/* By two tasks at a time: the second is refused. */
MISUSE(an_await_of_what_somebody_awaits)
{
    struct co *c = go(forever, NULL), *other = go(awaits_it, c);
    long v;

    SHOULD(settle_down() == 0);
    TOLD(-EALREADY, "await", mag_await(c, &v, sizeof v));
    TOLD(-EALREADY, "await", mag_shield(c, &v, sizeof v));
    mag_cancel(c);
    SHOULD(await_co(other, NULL) == -ECANCELED);
    return 0;
}

static int awaits_itself(void *arg, long *value)
{
    (void)arg, (void)value;
    TOLD(-EDEADLK, "itself", mag_await(mag_self(), NULL, 0));
    TOLD(-EDEADLK, "itself", mag_shield(mag_self(), NULL, 0));
    return 0;
}

MISUSE(an_await_of_itself)
{
    return await_co(go(awaits_itself, NULL), NULL);
}

MISUSE(a_result_of_another_size)
{
    struct co *c = co(same, arg_of(1));
    int small;
    long v;

    SHOULD(mag_await(c, &small, sizeof small) == -EINVAL);
    return await_co(c, &v);
}

/* NULL is what a constructor returns without memory: an error as any, no misuse. */
MISUSE(null_is_no_memory)
{
    listen_begin();
    int rc = listen_end(mag_await(NULL, NULL, 0));

    SHOULD(rc == -ENOMEM && said[0] == '\0');
    SHOULD(mag_start(NULL, NULL) == -ENOMEM && mag_cancel(NULL) == -ENOMEM);
    return 0;
}

/* ---- times ------------------------------------------------------------------------------------------ */

static void nothing(void *arg)
{
    (void)arg;
}

MISUSE(a_negative_time)
{
    struct co *c = co(same, arg_of(1)), *t = go(same, arg_of(2));
    struct mag_scope s;
    bool done;
    long v;
    void *set[1] = { t };

    TOLD(-EINVAL, "less than zero", mag_sleep(-1));
    TOLD(-EINVAL, "below zero", mag_wait_for(c, -1, &v, sizeof v));
    TOLD(-EINVAL, "below zero", mag_wait(set, 1, MAG_ALL_COMPLETED, -1, &done));
    TOLD(-EINVAL, "below zero", mag_shield_enter(&s, -1, NULL));
    TOLD(-EINVAL, "", mag_timeout_enter(&s, -1, NULL));
    TOLD(-EINVAL, "negative", mag_call_later(-1, nothing, NULL));
    TOLD(-EINVAL, "", mag_call_at(-1, nothing, NULL));
    SHOULD(await_co(c, &v) == 0 && await_co(t, &v) == 0); /* nothing was consumed */
    return 0;
}

/* ---- scopes, groups ----------------------------------------------------------------------------------- */

MISUSE(scopes_that_cross)
{
    struct mag_scope a, b;

    SHOULD(mag_scope_enter(&a, MAG_NEVER, NULL) == 0);
    SHOULD(mag_scope_enter(&b, MAG_NEVER, NULL) == 0);
    TOLD(-EPERM, "innermost", mag_scope_leave(&a, 0));
    SHOULD(mag_scope_leave(&b, 0) == 0 && mag_scope_leave(&a, 0) == 0);
    TOLD(-EPERM, "innermost", mag_scope_leave(&a, 0));
    SHOULD(mag_scope_enter(&a, mag_now() - 1, NULL) == 0);
    SHOULD(mag_checkpoint() == -ECANCELED);
    TOLD(-EPERM, "fired", mag_scope_reschedule(&a, MAG_NEVER));
    SHOULD(mag_scope_leave(&a, 0) == 0);
    return 0;
}

static struct mag_scope left_behind;

static int forgets_a_scope(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_scope_enter(&left_behind, MAG_NEVER, NULL);
}

MISUSE(a_scope_that_is_not_left)
{
    TOLD(0, "without leaving", await_co(co(forgets_a_scope, NULL), NULL));
    return 0;
}

MISUSE(a_group_after_its_end)
{
    struct mag_group g;
    struct co *c = co(same, arg_of(1));
    long v;

    SHOULD(mag_group_enter(&g, NULL) == 0 && mag_group_leave(&g, 0) == 0);
    TOLD(-EINVAL, "ended", mag_group_spawn(&g, co(same, arg_of(1)), NULL, NULL));
    TOLD(-EINVAL, "ended", mag_group_cancel(&g));
    TOLD(-EINVAL, "ended", mag_group_leave(&g, 0));
    TOLD(-EINVAL, "ended", mag_group_errors(&g, NULL, 0));
    TOLD(-ENXIO, "mag_started", mag_started(NULL, 0));
    return await_co(c, &v);
}

MISUSE(a_group_is_given_a_used_coroutine)
{
    struct mag_group g;
    struct co *t = go(same, arg_of(1));
    long v;

    SHOULD(mag_group_enter(&g, NULL) == 0);
    TOLD(-EALREADY, "used before", mag_group_spawn(&g, t, NULL, NULL));
    SHOULD(mag_group_leave(&g, 0) == 0);
    return await_co(t, &v);
}

/* ---- queues, select ------------------------------------------------------------------------------------- */

MISUSE(a_put_after_shutdown)
{
    struct mag_queue *q;
    long item = 1;

    SHOULD(mag_queue_new(&q, sizeof item, 2, &(struct mag_queue_options){ .name = "letters" }) ==
           0);
    TOLD(-EINVAL, "task_done", mag_queue_task_done(q));
    SHOULD(mag_queue_shutdown(q, false) == 0);
    TOLD(-EPIPE, "'letters' after it was shut down", mag_queue_put(q, &item));
    TOLD(-EPIPE, "'letters' after it was shut down", mag_queue_try_put(q, &item));
    SHOULD(mag_queue_get(q, &item) == -EPIPE);
    mag_queue_free(q);
    TOLD(-EINVAL, "bounded", mag_queue_new(&q, sizeof item, 0, NULL));
    TOLD(-EINVAL, ".compare",
         mag_queue_new(&q, 8, 1, &(struct mag_queue_options){ .order = MAG_PRIORITY }));
    return 0;
}

MISUSE(a_select_of_nothing)
{
    struct mag_case none = { 0 }, null = mag_case_get(NULL, NULL);

    TOLD(-EINVAL, "0 cases", mag_select(&none, 0));
    TOLD(-EINVAL, "case 0", mag_select(&none, 1));
    TOLD(-EINVAL, "NULL", mag_select(&null, 1));
    return 0;
}

/* ---- generators -------------------------------------------------------------------------------------------- */

static void *itself;
static int rc_of_itself;

async_gen(int, asks_itself)
{
    int item;

    yield(1);
    rc_of_itself = mag_gen_next(itself, &item);
    yield(2);
    return 0;
}

MISUSE(a_generator_that_is_re_entered)
{
    int item, rc;

    itself = asks_itself();
    SHOULD(mag_gen_next(itself, &item) == 1 && item == 1);
    listen_begin();
    rc = mag_gen_next(itself, &item);
    SHOULD(listen_end(rc) == 1 && item == 2);
    SHOULD(is_told(rc_of_itself, -EBUSY, "'asks_itself' runs already", __LINE__));
    SHOULD(mag_gen_close(itself) == 0);
    TOLD(-EINVAL, "mag_yield_value", mag_yield_value(&item, sizeof item));
    return 0;
}

/* ---- where a call does not belong -------------------------------------------------------------------------- */

static int rc_in_callback;

static void suspends(void *arg)
{
    (void)arg;
    rc_in_callback = mag_sleep(MAG_MS);
}

static int callback_main(void *arg, long *value)
{
    (void)arg, (void)value;
    listen_begin();
    SHOULD(mag_call_soon(suspends, NULL) == 0);
    SHOULD(listen_end(mag_sleep(3 * MAG_MS)) == 0);
    SHOULD(is_told(rc_in_callback, -ENXIO, "callback must not suspend", __LINE__));
    return 0;
}

Test(misuse, a_callback_that_suspends)
{
    RUN(1, callback_main, NULL);
}

static int outside_main(void)
{
    struct co *c = co(same, arg_of(1));
    struct mag_scope s;
    struct mag_group g;
    long v;

    TOLD(-ENXIO, "outside a task", mag_scope_enter(&s, MAG_NEVER, NULL));
    TOLD(-ENXIO, "outside a task", mag_shield_enter(&s, MAG_NEVER, NULL));
    TOLD(-ENXIO, "outside a task", mag_group_enter(&g, NULL));
    TOLD(-ENXIO, "outside a task", mag_wait_for(c, MAG_SECOND, &v, sizeof v));
    TOLD(-ENXIO, "outside a task", mag_call_soon(nothing, NULL));
    TOLD(-ENXIO, "outside a task", mag_start(c, NULL));
    TOLD(-ENXIO, "outside a task", mag_dump(NULL, stderr));
    return await_co(c, &v);
}

Test(misuse, outside_a_task)
{
    int rc = outside_main();

    cr_assert_eq(rc, 0, "line %d: %s", broken_line, broken_claim);
    cr_assert_eq(n_untold, 0);
}
