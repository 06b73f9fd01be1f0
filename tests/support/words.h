/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_WORDS_H
#define MAG_TESTS_WORDS_H
/*
 * words.h - small coroutines for tests that are written with the words of async.h
 *
 * Together with waiters.h (ON_1, ON_1_AND_4) and nth_cancel.h.
 */
#include "nth_cancel.h"
#include "waiters.h"

#include <magpie/async.h>

async_future(int, word);

/*
 * Those that are to be met while they are suspended say arrive() when they begin, and the
 * test waits for so many: on a busy machine a task may not have begun after milliseconds.
 */
static inline void arrive(void)
{
    mag_fetch_add(&diary.n_arrived, 1);
}

static inline bool have_arrived(uint32_t n)
{
    while (mag_load_acquire(&diary.n_arrived) < n)
        if (mag_sleep(20 * MAG_US) < 0)
            return false;
    let_run();
    return true;
}

/* Until it has ended, without awaiting it. */
static inline bool has_ended(const void *task)
{
    while (!mag_done(task))
        if (mag_sleep(20 * MAG_US) < 0)
            return false;
    return true;
}

/* At once; after one suspension; after a time. */
async(int, gives, (int, n))
{
    async_return(n);
}

async(int, gives_later, (int, n))
{
    await(mag_yield());
    async_return(n);
}

async(int, gives_after, (mag_time, ns), (int, n))
{
    await(mag_sleep(ns));
    async_return(n);
}

/* Fails, the same. */
async(int, fails, (int, rc))
{
    return rc;
}

async(int, fails_after, (mag_time, ns), (int, rc))
{
    await(mag_sleep(ns));
    return rc;
}

/* Until it is cancelled; notes that it was. */
static mag_atomic(int32_t) n_never_cancelled __attribute__((unused));

async(int, never)
{
    int rc;

    arrive();
    rc = mag_sleep(MAG_NEVER);
    mag_fetch_add(&n_never_cancelled, rc == -ECANCELED);
    return rc;
}

/* Awaits a future, in a task of its own. */
async(int, reads, (struct word *, w))
{
    arrive();
    async_return(await(w));
}

/* Whether that is how it ends when it is cancelled. */
#define CANCELS(task) (mag_cancel(task) == 0 && await_rc(task, NULL) == -ECANCELED)

#endif
