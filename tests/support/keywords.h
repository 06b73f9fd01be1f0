/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_KEYWORDS_H
#define MAG_TESTS_KEYWORDS_H
/*
 * keywords.h - tests that are written with <magpie/async.h>
 *
 * A body is made of SHOULDs: a false one remembers its line and ends the body with
 * -ENOTRECOVERABLE, since an assertion of Criterion's would jump off a fiber's stack.  What
 * happens in which order is told to a story, a string, and compared at the end.
 *
 *      RUN_STORY(1, my_body(3), 0, "<ab>");        on one worker: the rc, and the story
 *      RUN_ON_BOTH(my_body(3), 0, "<ab>");         on one, and on four
 */
#include <magpie/async.h>

#include "mem.h"

#include <criterion/criterion.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int broken_line __attribute__((unused));
static const char *broken_claim __attribute__((unused)) = "";

#define SHOULD(claim) \
    do { \
        if (!(claim)) { \
            broken_line = __LINE__; \
            broken_claim = #claim; \
            return -ENOTRECOVERABLE; \
        } \
    } while (0)

static char story[400] __attribute__((unused));

/* Two may tell at the same time. */
static inline void tell(const char *what)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    pthread_mutex_lock(&lock);
    if (strlen(story) + strlen(what) < sizeof story)
        strcat(story, what);
    pthread_mutex_unlock(&lock);
}

static inline void tell_number(long n)
{
    char text[24];

    snprintf(text, sizeof text, "%ld", n);
    tell(text);
}

/* Until somebody has told that; others run meanwhile. */
static inline int told(const char *what)
{
    int rc = 0;

    while (rc == 0 && strstr(story, what) == NULL)
        rc = mag_yield();
    return rc;
}

#define RUN_STORY(n_workers, coro, expected, told) \
    do { \
        int64_t live = mag_mem_live(); \
        story[0] = '\0'; \
        n_patients = 0; \
        int rc_of_run = mag_run_with( \
            (coro), NULL, \
            &(struct mag_rt_options){ .workers = (n_workers), .report = keep_report }); \
        cr_assert_eq(rc_of_run, (expected), "%d workers: %s, line %d: %s; story \"%s\"; %s", \
                     (n_workers), mag_err_name(rc_of_run), broken_line, broken_claim, story, \
                     reported); \
        cr_assert_str_eq(story, (told)); \
        cr_assert_eq(mag_mem_live(), live, "leaks %ld", (long)(mag_mem_live() - live)); \
    } while (0)

#define RUN_ON_BOTH(coro, expected, told) \
    do { \
        RUN_STORY(1, coro, expected, told); \
        RUN_STORY(4, coro, expected, told); \
    } while (0)

/* What the runtime has reported last. */
static char reported[1000] __attribute__((unused));

static inline void keep_report(void *arg, const char *line)
{
    (void)arg;
    if (strlen(reported) + strlen(line) + 1 < sizeof reported) {
        strcat(reported, line);
        strcat(reported, "\n");
    }
}

/* ---- things to use -------------------------------------------------------------- */

/* A resource whose exit suspends, and tells whether it could. */
struct door {
    const char *name;
};

static inline int door_enter(struct door *d, const char *name)
{
    d->name = name;
    tell("<");
    return 0;
}

static inline void door_exit(struct door *d)
{
    int rc = mag_sleep(MAG_MS);

    tell(rc < 0 ? "!" : ">");
    tell(d->name);
}

async_resource(door)

/* Ends well, with its number, after so long. */
async(int, number, (int, n), (mag_time, after))
{
    await(mag_sleep(after));
    async_return(n);
}

/* Fails after so long. */
async(int, failing, (int, rc), (mag_time, after))
{
    await(mag_sleep(after));
    return rc;
}

static int n_patients __attribute__((unused)); /* who has begun to wait */

/* Tells when it is cancelled. */
async(int, patient, (const char *, name))
{
    __atomic_add_fetch(&n_patients, 1, __ATOMIC_SEQ_CST);
    int rc = mag_sleep(MAG_MINUTE);

    if (rc == -ECANCELED)
        tell(name);
    return rc;
}

/* Until so many are waiting. */
static inline int patients(int n)
{
    int rc = 0;

    while (rc == 0 && __atomic_load_n(&n_patients, __ATOMIC_SEQ_CST) < n)
        rc = mag_yield();
    return rc;
}

#endif
