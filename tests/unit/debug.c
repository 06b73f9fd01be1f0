/* SPDX-License-Identifier: MIT */
/* debug.c - debug mode: what was left open is told; errno means nothing after a suspension */
#include "body.h"

#include <criterion/criterion.h>
#include <unistd.h>

/* Slow tasks are not what is to be told here. */
static void slow_is_fine(void)
{
    setenv("MAGPIE_SLOW_MS", "0", 1);
}

TestSuite(debug, .init = slow_is_fine, .timeout = 20);

static char seen[8192];

static void note(void *arg, const char *line)
{
    (void)arg;
    strncat(seen, line, sizeof seen - strlen(seen) - 2);
    strcat(seen, "\n");
}

static int run(int (*fn)(void *arg, long *value), bool is_debug)
{
    struct mag_rt_options options = { .workers = 2, .report = note, .debug = is_debug };

    seen[0] = '\0';
    return mag_run_with(co(fn, NULL), NULL, &options);
}

static struct mag_file left_open, closed, *moved;

static MAG_NOINLINE int opens(void)
{
    int rc = mag_file_open(&left_open, "/proc/self/maps", "r");

    mag_compiler_barrier(); /* no tail call: the report names this function */
    return rc;
}

static int leaves_one_open(void *arg, long *value)
{
    struct mag_file f;

    (void)arg;
    *value = 0;
    SHOULD(opens() == 0);
    SHOULD(mag_file_open(&f, "/proc/self/stat", "r") == 0);
    closed = f; /* the handle may move */
    moved = &closed;
    return mag_file_close(moved);
}

Test(debug, unclosed_files)
{
    setenv("MAGPIE_DEBUG", "1", 1);
    cr_assert_eq(run(leaves_one_open, false), 0);
    cr_assert(strstr(seen, "file '/proc/self/maps' (descriptor "), "%s", seen);
    cr_assert(strstr(seen, "was never closed (opened at opens at debug.c:"), "%s", seen);
    cr_assert_null(strstr(seen, "stat"), "%s", seen);
    cr_assert_eq(mag_file_close(&left_open), 0); /* late, but well */
    cr_assert_eq(mag_mem_live(), 0);
}

Test(debug, by_the_option)
{
    cr_assert_eq(run(leaves_one_open, true), 0);
    cr_assert(strstr(seen, "file '/proc/self/maps' (descriptor "), "%s", seen);
    cr_assert_null(strstr(seen, "stat"), "%s", seen);
    cr_assert_eq(mag_file_close(&left_open), 0);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(debug, says_nothing_otherwise)
{
    unsetenv("MAGPIE_DEBUG");
    cr_assert_eq(run(leaves_one_open, false), 0);
    cr_assert_str_empty(seen);
    cr_assert_eq(mag_file_close(&left_open), 0);
}

/* The address of errno is asked for anew, as nobody can who was optimised. */
static MAG_NOINLINE int errno_now(void)
{
    int value = *__errno_location();

    mag_compiler_barrier();
    return value;
}

static int reads_errno(void *arg, long *value)
{
    (void)arg;
    errno = ENOENT;
    SHOULD(errno_now() == ENOENT);
    SHOULD(mag_sleep(MAG_MS) == 0);
    *value = errno_now();
    errno = ENOENT;
    SHOULD(mag_yield() == 0);
    SHOULD(*value == errno_now());
    return *value == 4095 ? 1 : 0;
}

Test(debug, errno_is_poisoned)
{
    cr_assert_eq(run(reads_errno, true), 1);
}
