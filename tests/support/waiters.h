/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_WAITERS_H
#define MAG_TESTS_WAITERS_H
/*
 * waiters.h - tasks that wait for a primitive in a known order, and a diary of who went on
 *
 *      struct co *a = wait_as(1, wait_event, &event);      suspended in it when this returns
 *
 * A waiter notes that it arrives, calls its function, and writes its number into the diary
 * if that returned >= 0.  Its value is what the function returned.  The order of arrivals
 * is certain on one worker; on several all tasks are looked at until every other one waits.
 */
#include "body.h"

#include <magpie/inspect.h>

enum { DIARY_MAX = 256 };

static struct {
    mag_atomic(uint32_t) n_arrived;
    mag_atomic(uint32_t) n; /* entries */
    int entry[DIARY_MAX];
} diary __attribute__((unused));

struct waiter {
    int number;
    int (*fn)(void *primitive);
    void *primitive;
};

static struct waiter waiters[DIARY_MAX] __attribute__((unused)); /* in turn */
static mag_atomic(uint32_t) n_waiters __attribute__((unused));

static inline void diary_clear(void)
{
    memset(&diary, 0, sizeof diary);
}

static inline void diary_write(int number)
{
    diary.entry[mag_fetch_add(&diary.n, 1) % DIARY_MAX] = number;
}

static inline int diary_length(void)
{
    return (int)mag_load_acquire(&diary.n);
}

/* Whether it has these entries and no others: DIARY_IS(1, 2, 3). */
static inline bool diary_is(const int *entry, size_t n)
{
    return diary_length() == (int)n && memcmp(entry, diary.entry, n * sizeof *entry) == 0;
}
#define DIARY_IS(...) \
    diary_is((const int[]){ __VA_ARGS__ }, sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))

static inline int waiter_main(void *arg, long *value)
{
    struct waiter w = *(struct waiter *)arg;

    mag_fetch_add(&diary.n_arrived, 1);
    *value = w.fn(w.primitive);
    if (*value >= 0)
        diary_write(w.number);
    return 0;
}

/* Everybody gets as far as they can come by themselves. */
static inline void let_run(void)
{
    if (mag_rt_workers(mag_rt_self()) > 1)
        (void)settle_down();
    for (int i = 0; i < 20; i++)
        mag_yield();
}

static inline struct co *begin_as(int number, int (*fn)(void *primitive), void *primitive)
{
    struct waiter *w = &waiters[mag_fetch_add(&n_waiters, 1) % DIARY_MAX];

    *w = (struct waiter){ number, fn, primitive };
    return go(waiter_main, w);
}

/* The same; has arrived, and got as far as it can, when this returns. */
static inline struct co *wait_as(int number, int (*fn)(void *primitive), void *primitive)
{
    uint32_t n = mag_load_acquire(&diary.n_arrived);
    struct co *c = begin_as(number, fn, primitive);

    while (c && mag_load_acquire(&diary.n_arrived) == n)
        mag_yield();
    let_run();
    return c;
}

/* What its function returned. */
static inline int end_of(struct co *c)
{
    long value = 0;
    int rc = await_co(c, &value);

    return rc < 0 ? rc : (int)value;
}

/*
 * A test of one behaviour, on one worker or on one and on four:
 *
 *      ON_1(events, an_event_is_clear_at_first)
 *      {
 *          SHOULD(...);
 *          return 0;
 *      }
 */
#define WAITERS_TEST_(suite, name, run) \
    static int name##_main(void); \
    static int name##_body(void *arg, long *value) \
    { \
        (void)arg, (void)value; \
        diary_clear(); \
        return name##_main(); \
    } \
    Test(suite, name) \
    { \
        run(name##_body, NULL); \
    } \
    static int name##_main(void)
#define WAITERS_RUN_1_(fn, arg) RUN(1, fn, arg)
#define ON_1(suite, name)       WAITERS_TEST_(suite, name, WAITERS_RUN_1_)
#define ON_1_AND_4(suite, name) WAITERS_TEST_(suite, name, RUN_1_AND_4)

/* Cancels it, and says how it ended. */
static inline int cancelled_end_of(struct co *c)
{
    int rc = mag_cancel(c);

    return rc < 0 ? rc : end_of(c);
}

#endif
