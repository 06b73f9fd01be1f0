/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_BODY_H
#define MAG_TESTS_BODY_H
/*
 * body.h - coroutines for tests, made of plain functions, without <magpie/async.h>
 *
 * A body answers an rc.  A claim in it is a SHOULD: it remembers the line and fails the
 * body, since an assertion of Criterion's would jump off a fiber's stack.
 */
#include <magpie.h>

#include "atomic.h"
#include "mem.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *broken_claim __attribute__((unused)) = "";
static int broken_line __attribute__((unused));

#define SHOULD(claim) \
    do { \
        if (!(claim)) { \
            broken_line = __LINE__; \
            broken_claim = #claim; \
            return -ENOTRECOVERABLE; \
        } \
    } while (0)

/* The result is first, as <magpie/async.h> has it. */
struct co {
    long value;
    int (*fn)(void *arg, long *value);
    void *arg;
};

static inline int co_body(void *frame, void *result)
{
    struct co *c = frame;

    return c->fn(c->arg, result);
}

static const struct mag_co_type co_type __attribute__((unused)) = {
    .name = "co",
    .body = co_body,
    .frame_bytes = sizeof(struct co),
    .result_bytes = sizeof(long),
};

static inline struct co *co_of(const struct mag_co_type *type,
                               int (*fn)(void *arg, long *value), void *arg)
{
    struct co *c = mag_co_new(type, __builtin_return_address(0));

    if (c) {
        c->fn = fn;
        c->arg = arg;
    }
    return c;
}

/* A coroutine object of that function. */
static inline struct co *co(int (*fn)(void *arg, long *value), void *arg)
{
    return co_of(&co_type, fn, arg);
}

/* The same, spawned; NULL if that failed. */
static inline struct co *go(int (*fn)(void *arg, long *value), void *arg)
{
    struct co *c = co(fn, arg);

    if (c && mag_start(c, NULL) < 0) {
        mag_close(c);
        return NULL;
    }
    return c;
}

static inline int await_co(struct co *c, long *value)
{
    return mag_await(c, value, value ? sizeof *value : 0);
}

/* Numbers as arguments. */
static inline void *arg_of(long n)
{
    return (void *)(intptr_t)n;
}

static inline long num(void *arg)
{
    return (long)(intptr_t)arg;
}

static const struct mag_co_type future_type __attribute__((unused)) = {
    .name = "future",
    .frame_bytes = sizeof(long),
    .result_bytes = sizeof(long),
};

static inline void *future(void)
{
    return mag_future_new(&future_type, __builtin_return_address(0));
}

static inline int set(void *f, long value)
{
    return mag_future_set(f, &value, sizeof value);
}

/* ---- bodies that many tests want ------------------------------------------------ */

static inline int same(void *arg, long *value)
{
    *value = num(arg);
    return 0;
}

/* Suspends once. */
static inline int same_later(void *arg, long *value)
{
    int rc = mag_yield();

    *value = num(arg);
    return rc;
}

static inline int sleep_ns(void *arg, long *value)
{
    *value = num(arg);
    return mag_sleep(num(arg));
}

static inline int forever(void *arg, long *value)
{
    (void)arg;
    *value = -1;
    return mag_sleep(MAG_NEVER);
}

/* Fails with that rc. */
static inline int fails_with(void *arg, long *value)
{
    (void)value;
    return (int)num(arg);
}

/*
 * Whether nobody but the caller gets on by himself just now: all other tasks of this runtime
 * are suspended, or have ended.  Who sleeps is suspended, too.
 */
static inline bool all_others_wait(void)
{
    enum { MANY = 2500 };
    struct mag_task_info *all = calloc(MANY, sizeof *all);
    size_t n = all ? mag_tasks(NULL, all, MANY) : 0;
    bool do_wait = true;
    unsigned mine = 0;

    n = n < MANY ? n : MANY;
    for (size_t i = 0; i < n; i++)
        if (all[i].handle == mag_self())
            mine = all[i].worker; /* what runs there is this, or awaits it in place */
    for (size_t i = 0; i < n; i++)
        if (all[i].is_busy || all[i].state == MAG_TASK_READY ||
            (all[i].state == MAG_TASK_RUNNING && all[i].worker != mine))
            do_wait = false;
    free(all);
    return do_wait;
}

/*
 * Lets others get as far as they can come by themselves, however long a busy machine keeps a
 * worker waiting.  Beside a task that never waits it is of no use: then it takes 4 s.
 */
static inline int settle_down(void)
{
    mag_time last = mag_now() + 4 * MAG_SECOND;
    int rc = mag_sleep(5 * MAG_MS);

    while (rc == 0 && !all_others_wait() && mag_now() < last)
        rc = mag_sleep(MAG_MS);
    return rc;
}

/* ---- running ---------------------------------------------------------------------- */

/* Runs the function as a task of a runtime with so many workers. */
static inline int run_rc(unsigned workers, int (*fn)(void *arg, long *value), void *arg)
{
    struct mag_rt_options options = { .workers = workers };

    return mag_run_with(co(fn, arg), NULL, &options);
}

#define RUN_TO(expected, workers, fn, arg) \
    do { \
        int run_to_rc = run_rc((workers), (fn), (arg)); \
        cr_assert_eq(run_to_rc, (expected), "%u workers: %s, line %d: %s", (unsigned)(workers), \
                     mag_err_name(run_to_rc), broken_line, broken_claim); \
        cr_assert_eq(mag_mem_live(), 0, "%u workers: leaks %ld", (unsigned)(workers), \
                     (long)mag_mem_live()); \
    } while (0)

#define RUN(workers, fn, arg) RUN_TO(0, workers, fn, arg)

#define RUN_1_AND_4(fn, arg) \
    do { \
        RUN(1, fn, arg); \
        RUN(4, fn, arg); \
    } while (0)

#endif
