/* SPDX-License-Identifier: MIT */
/*
 * consumer.c - a C11 program against an installed magpie: tasks, files, and the inline fork
 *
 * Plain core only, since it is compiled with -std=c11; exit status 0 if all is as it should be.
 */
#include <magpie.h>

#include <stdio.h>
#include <string.h>

/* ---- tasks ---------------------------------------------------------------------------- */

static int square(void *frame, void *result)
{
    int n = *(const int *)frame;
    int rc = mag_sleep(1 * MAG_MS);

    *(int *)result = n * n;
    return rc;
}

/* 1 + 4 + 9 + 16, by four tasks. */
static int sum_of_squares(int *sum)
{
    struct mag_task *tasks[4];
    int              first_rc = 0;

    for (int i = 0; i < 4; i++) {
        int n = i + 1, rc = mag_spawn(&tasks[i], square, &n, sizeof n, sizeof n, NULL);

        if (rc < 0)
            return rc;
    }
    for (int i = 0; i < 4; i++) {
        int value = 0, rc = mag_await(tasks[i], &value, sizeof value);

        *sum += value;
        if (rc < 0)
            first_rc = rc;
    }
    return first_rc;
}

/* ---- fork and join: the inline half, with its thread-local ------------------------------ */

struct fib {
    struct mag_fork fork;
    int             n;
    long            value;
};

static long fib(int n);

static void fib_part(struct mag_fork *fork)
{
    struct fib *part = (struct fib *)fork;

    part->value = fib(part->n);
}

static long fib(int n)
{
    struct fib part = { .n = n - 1 };
    long       rest;

    if (n < 2)
        return n;
    mag_fork(&part.fork, fib_part);
    rest = fib(n - 2);
    mag_join(&part.fork);
    return part.value + rest;
}

/* ---- the coroutine that is run ------------------------------------------------------------ */

static int app(void *frame, void *result)
{
    struct mag_file f;
    char            byte;
    int             sum = 0, rc = sum_of_squares(&sum);

    if (rc < 0)
        return rc;
    rc = mag_file_open(&f, *(const char **)frame, "r");
    if (rc < 0)
        return rc;
    rc = mag_file_read(&f, &byte, 1);
    mag_file_close(&f);
    *(int *)result = sum == 30 && rc == 1 && byte == 0x7f && fib(15) == 610;
    return rc < 0 ? rc : 0;
}

struct app {
    const char *path;
    int         is_right;
};

static const struct mag_co_type app_type = {
    .name = "app",
    .body = app,
    .frame_bytes = sizeof(struct app),
    .result_offset = offsetof(struct app, is_right),
    .result_bytes = sizeof(int),
};

int main(int argc, char **argv)
{
    struct app *co = mag_co_new(&app_type, NULL);
    unsigned    v = mag_version();
    int         is_right = 0, rc;

    (void)argc;
    if (mag_now() <= 0 || strcmp(mag_err_name(-5), "EIO") != 0 || co == NULL)
        return 1;
    co->path = argv[0]; /* an ELF file */
    rc = mag_run(co, &is_right);
    printf("magpie %u.%u.%u: %s, %s\n", v >> 16, v >> 8 & 255, v & 255, mag_err_name(rc),
           is_right ? "right" : "WRONG");
    return rc == 0 && is_right ? 0 : 1;
}
