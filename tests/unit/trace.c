/* SPDX-License-Identifier: MIT */
/* trace.c - where an error has been: through awaits, tasks, gathers, and into the report */
#include "body.h"
#include "trace.h"

#include <criterion/criterion.h>

TestSuite(trace, .timeout = 60);

#define SITE(name, n, where) static const struct mag_site name = { "file.c", n, where }

SITE(inner_site, 10, "inner");
SITE(outer_site, 20, "outer");
SITE(main_site, 30, "main");

static char text[2000];

/* The current trace as text. */
static int print(void)
{
    FILE *f = fmemopen(memset(text, 0, sizeof text), sizeof text, "w");
    int n = mag_trace_print(f);

    fclose(f);
    return n;
}

static int is_text(const char *expected)
{
    if (strcmp(text, expected) == 0)
        return 1;
    fprintf(stderr, "expected:\n%sgot:\n%s", expected, text);
    return 0;
}

static int inner(void *arg, long *value)
{
    *value = 0;
    return mag_trace((int)num(arg), &inner_site);
}

static int outer(void *arg, long *value)
{
    return mag_trace(await_co(co(inner, arg), value), &outer_site);
}

static int outer_of_task(void *arg, long *value)
{
    return mag_trace(await_co(go(inner, arg), value), &outer_site);
}

#define EIO_TRACE \
    "EIO: Input/output error\n" \
    "  at file.c:10 in inner\n" \
    "  at file.c:20 in outer\n" \
    "  at file.c:30 in main\n"

static int through(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(print() == 0 && is_text(""));
    SHOULD(mag_trace(await_co(co(outer, arg_of(-EIO)), NULL), &main_site) == -EIO);
    SHOULD(print() == 3);
    SHOULD(is_text(EIO_TRACE));
    mag_trace_caught();
    SHOULD(print() == 3); /* still to be seen */

    /* the next one begins anew, also if it is the same error */
    SHOULD(mag_trace(await_co(go(outer_of_task, arg_of(-EIO)), NULL), &main_site) == -EIO);
    SHOULD(print() == 3);
    SHOULD(is_text(EIO_TRACE));

    /* another error begins anew, caught or not */
    SHOULD(mag_trace(-EPERM, &main_site) == -EPERM);
    SHOULD(print() == 1);
    SHOULD(is_text("EPERM: Operation not permitted\n  at file.c:30 in main\n"));
    SHOULD(mag_trace(-EPERM, &outer_site) == -EPERM);
    SHOULD(print() == 2); /* goes on */
    mag_trace_caught();
    SHOULD(mag_trace(-EPERM, &outer_site) == -EPERM);
    SHOULD(print() == 1);
    SHOULD(is_text("EPERM: Operation not permitted\n  at file.c:20 in outer\n"));
    return 0;
}

Test(trace, grows_from_inside_out)
{
    RUN_1_AND_4(through, NULL);
}

static int success(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_trace(0, &main_site) == 0);
    SHOULD(mag_trace(7, &main_site) == 7);
    SHOULD(print() == 0 && is_text(""));
    mag_trace_caught();
    return 0;
}

Test(trace, no_error_no_trace)
{
    RUN(1, success, NULL);
}

static int deep(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < MAG_TRACE_MAX + 5; i++)
        mag_trace(-EIO, i ? &outer_site : &inner_site);
    SHOULD(print() == MAG_TRACE_MAX + 5);
    SHOULD(strstr(text, "at file.c:10 in inner\n") != NULL);
    SHOULD(strstr(text, "... and 5 more\n") != NULL);
    return 0;
}

Test(trace, remembers_so_many_places)
{
    RUN(1, deep, NULL);
}

static int in_gather(void *arg, long *value)
{
    void *c[3] = { co(forever, NULL), co(outer, arg_of(-EIO)), co(forever, NULL) };

    (void)arg, (void)value;
    SHOULD(mag_trace(mag_gather(NULL, 0, c, 3, NULL), &main_site) == -EIO);
    SHOULD(print() == 3);
    SHOULD(is_text(EIO_TRACE));
    return 0;
}

Test(trace, through_a_gather)
{
    for (int i = 0; i < 20; i++)
        RUN_1_AND_4(in_gather, NULL);
}

static int without_memory(void *arg, long *value)
{
    enum { N = 2000 };
    static struct co *filling[N];

    (void)arg, (void)value;
    mag_mem_fail_nth(1, true);
    int n = 0;
    while (n < N && (filling[n] = co(same, NULL)) != NULL)
        n++;
    int rc = mag_trace(-EIO, &main_site); /* the error matters more */
    (void)print();
    mag_mem_fail_nth(0, false);
    for (int i = 0; i < n; i++)
        mag_close(filling[i]);
    SHOULD(rc == -EIO);
    return 0;
}

Test(trace, is_left_out_without_memory)
{
    RUN(1, without_memory, NULL);
}

Test(trace, outside_a_task_there_is_none)
{
    cr_assert_eq(mag_trace(-EIO, &main_site), -EIO);
    mag_trace_caught();
    cr_assert_eq(mag_trace_print(stderr), 0);
}

/* ---- what mag_run reports ----------------------------------------------------------------- */

static char reported[2000];

static void report(void *arg, const char *line)
{
    (void)arg;
    strncat(reported, line, sizeof reported - strlen(reported) - 2);
    strcat(reported, "\n");
}

static int fails_at_last(void *arg, long *value)
{
    return mag_trace(await_co(co(outer, arg), value), &main_site);
}

Test(trace, of_the_main_coroutine_is_reported)
{
    struct mag_rt_options options = { .workers = 2, .report = report };

    cr_assert_eq(mag_run_with(co(fails_at_last, arg_of(-EIO)), NULL, &options), -EIO);
    cr_assert_str_eq(reported, "task 'co' failed:\n" EIO_TRACE);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- the formatter ---------------------------------------------------------------------------- */

static void append(void *arg, const char *line)
{
    strcat(arg, line);
    strcat(arg, "\n");
}

Test(trace, is_formatted)
{
    struct mag_trace t = { .rc = -EIO, .n = 2, .sites = { &inner_site, &outer_site } };
    char lines[500] = "";

    cr_assert_eq(mag_trace_format(&t, append, lines), 2);
    cr_assert_str_eq(lines, "EIO: Input/output error\n  at file.c:10 in inner\n"
                            "  at file.c:20 in outer\n");
}
