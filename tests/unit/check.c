/* SPDX-License-Identifier: MIT */
/* check.c - unit tests of runtime/check.[ch] */
#include <criterion/criterion.h>

#include "check.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(check);

static char text[1024];

static void format(size_t room, const char *fmt, ...)
{
    va_list args;
    size_t len;

    va_start(args, fmt);
    len = mag_check_format(text, room, fmt, args);
    va_end(args);
    cr_assert_eq(len, strlen(text));
}

/* Runs fn in a child whose standard error comes into `text'; its wait status. */
static int in_child(void (*fn)(void))
{
    int ends[2], status;
    size_t used = 0;
    ssize_t n;
    pid_t pid;

    cr_assert_eq(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        dup2(ends[1], 2);
        fn();
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    close(ends[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

Test(check, formats_numbers)
{
    format(sizeof text, "%d %i %u %x", -7, 0, 42u, 0xbeefu);
    cr_assert_str_eq(text, "-7 0 42 beef");
    format(sizeof text, "%d %lld %zu %lu", INT_MIN, LLONG_MIN, (size_t)-1, ULONG_MAX);
    cr_assert_str_eq(text, "-2147483648 -9223372036854775808 18446744073709551615 "
                           "18446744073709551615");
    format(sizeof text, "%5d|%3s|%c%%", -12, "a", 'z');
    cr_assert_str_eq(text, "  -12|  a|z%");
    format(sizeof text, "%p", (void *)(uintptr_t)0x1f00);
    cr_assert_str_eq(text, "0x1f00");
}

Test(check, formats_null_string)
{
    const char *volatile none = NULL;

    format(sizeof text, "<%s>", none);
    cr_assert_str_eq(text, "<(null)>");
}

Test(check, cuts_what_does_not_fit)
{
    memset(text, 'x', sizeof text);
    format(6, "%s", "123456789");
    cr_assert_str_eq(text, "12345");
    cr_assert_eq(text[6], 'x');
}

static void holds(void)
{
    int n = 0;

    MAG_CHECK(++n == 1);
    MAG_CHECK(n == 1); /* evaluated once */
}

static void breaks(void)
{
    MAG_CHECK(1 + 1 == 3);
}

static void panics(void)
{
    MAG_PANIC("task '%s' overflowed its %d KiB stack", "fetch", 64);
}

static void prints(void)
{
    char big[2000];

    memset(big, 'y', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    mag_check_print("%s", big);
}

Test(check, true_is_silent)
{
    cr_assert_eq(in_child(holds), 0);
    cr_assert_str_eq(text, "");
}

Test(check, false_names_the_place_and_aborts)
{
    int status = in_child(breaks);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    cr_assert_eq(strncmp(text, "magpie: check failed: 1 + 1 == 3 at ", 36), 0, "%s", text);
    cr_assert_not_null(strstr(text, "check.c:"));
    cr_assert_not_null(strstr(text, " in breaks\n"));
}

Test(check, panic_is_one_line)
{
    int status = in_child(panics);

    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    cr_assert_str_eq(text, "magpie: task 'fetch' overflowed its 64 KiB stack\n");
}

Test(check, a_long_line_is_cut_and_still_ends)
{
    size_t len;

    cr_assert_eq(in_child(prints), 0);
    len = strlen(text);
    cr_assert(len > 100 && len <= 512);
    cr_assert_eq(text[len - 1], '\n');
}
