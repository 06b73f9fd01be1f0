/* SPDX-License-Identifier: MIT */
/*
 * op.c - tests of the rules that operations follow
 *
 * As in file.c, a check answers 0 or the line that failed, and runs outside a task
 * and in one where both make sense.
 */
#include <criterion/criterion.h>
#include <magpie.h>

#include "in_task.h"
#include "op.h"
#include "ring.h"
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[32], path[64];

static void make_dir(void)
{
    setenv("MAGPIE_SLOW_MS", "60000", 1); /* a report opens files, and descriptors are counted */
    strcpy(dir, "/tmp/mag-op-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
}

static void remove_dir(void)
{
    mag_sys_fail_none();
    unlink(path);
    cr_assert_eq(rmdir(dir), 0);
}

TestSuite(op, .init = make_dir, .fini = remove_dir, .timeout = 60);

static int descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- the table ---------------------------------------------------------------------- */

Test(op, names)
{
    cr_assert_str_eq(mag_op_name(MAG_OP_READ), "read");
    cr_assert_str_eq(mag_op_name(MAG_OP_STATX), "statx");
    cr_assert_null(mag_op_name(MAG_OP_CODES));
}

/* ---- outside a task: interruptions and short transfers -------------------------------- */

Test(op, interrupted_calls_are_repeated)
{
    char buf[4];
    int fd;

    mag_sys_fail_nth(MAG_SYS_OPENAT, 1, EINTR, false);
    fd = mag_op_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(mag_sys_count(MAG_SYS_OPENAT), 2);
    mag_sys_fail_nth(MAG_SYS_WRITE, 1, EINTR, false);
    cr_assert_eq(mag_op_write(fd, "abcd", 4, MAG_OP_HERE), 4);
    mag_sys_fail_nth(MAG_SYS_WRITE, 1, EINTR, false);
    cr_assert_eq(mag_op_fsync(fd, true), 0);
    mag_sys_fail_nth(MAG_SYS_PREAD, 1, EINTR, false);
    cr_assert_eq(mag_op_read(fd, buf, 4, 0), 4);
    mag_sys_fail_nth(MAG_SYS_PREAD, 1, EIO, false);
    cr_assert_eq(mag_op_read(fd, buf, 4, 0), -EIO);
    cr_assert_eq(mag_op_close(fd), 0);
}

Test(op, close_is_made_once)
{
    int fd = mag_op_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0600);

    mag_sys_fail_nth(MAG_SYS_CLOSE, 1, EINTR, false);
    cr_assert_eq(mag_op_close(fd), -EINTR);
    cr_assert_eq(mag_sys_count(MAG_SYS_CLOSE), 1);
    mag_sys_fail_none();
    cr_assert_eq(mag_op_close(fd), 0);
}

/* A file-size limit makes a write short, and the one after it an error. */
Test(op, moved_bytes_are_reported)
{
    struct rlimit limit = { .rlim_cur = 1000, .rlim_max = RLIM_INFINITY };
    char buf[1500] = { 0 };
    int fd = mag_op_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0600);

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(mag_op_write(fd, buf, sizeof buf, MAG_OP_HERE), 1000);
    cr_assert_eq(mag_op_write(fd, buf, sizeof buf, MAG_OP_HERE), -EFBIG);
    cr_assert_eq(mag_op_write(fd, buf, sizeof buf, 200), 800);
    cr_assert_eq(mag_op_close(fd), 0);
}

/* ---- in both worlds --------------------------------------------------------------------- */

static int at_offsets(void)
{
    char buf[8] = "";
    int fd = mag_op_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct stat st;

    EXPECT(fd >= 0);
    EXPECT(fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0600);
    EXPECT(mag_op_write(fd, "abcd", 4, MAG_OP_HERE) == 4);
    EXPECT(mag_op_write(fd, "B", 1, 1) == 1);
    EXPECT(mag_op_write(fd, "e", 1, MAG_OP_HERE) == 1);
    EXPECT(mag_op_write(fd, "", 0, MAG_OP_HERE) == 0);
    EXPECT(mag_op_read(fd, buf, 8, 0) == 5 && strcmp(buf, "aBcde") == 0);
    EXPECT(mag_op_read(fd, buf, 8, MAG_OP_HERE) == 0);
    EXPECT(mag_op_read(fd, buf, 0, 0) == 0);
    EXPECT(mag_op_read(-1, buf, 8, 0) == -EBADF);
    EXPECT(mag_op_close(fd) == 0);
    EXPECT(mag_op_close(fd) == -EBADF);
    EXPECT(mag_op_fsync(fd, false) == -EBADF);
    EXPECT(mag_op_open(fd, "x", O_RDONLY, 0) == -EBADF);
    return 0;
}

Test(op, at_offsets)
{
    BOTH(at_offsets);
}

/* A writer that fills a pipe goes on as the reader empties it. */
struct pipe_writer {
    int fd;
    const char *bytes;
    size_t n;
};

static int pipe_writer_body(void *frame, void *result)
{
    struct pipe_writer *w = frame;

    (void)result;
    return mag_op_write(w->fd, w->bytes, w->n, MAG_OP_HERE);
}

static int long_pipe(void)
{
    enum { BYTES = 1000000 };
    char *out = calloc(1, BYTES), *in = malloc(BYTES);
    struct pipe_writer w = { .bytes = out, .n = BYTES };
    struct mag_task *task;
    int ends[2], n, got = 0;

    for (int i = 0; i < BYTES; i++)
        out[i] = (char)(i % 251);
    EXPECT(pipe(ends) == 0);
    w.fd = ends[1];
    EXPECT(mag_spawn(&task, pipe_writer_body, &w, sizeof w, 0, NULL) == 0);
    while (got < BYTES && (n = mag_op_read(ends[0], in + got, BYTES, MAG_OP_HERE)) > 0)
        got += n;
    EXPECT(mag_await(task, NULL, 0) == BYTES);
    EXPECT(got == BYTES && memcmp(in, out, BYTES) == 0);
    EXPECT(mag_op_close(ends[0]) == 0 && mag_op_close(ends[1]) == 0);
    free(out);
    free(in);
    return 0;
}

Test(op, long_pipe)
{
    int line = run_in_task(long_pipe);

    cr_assert_eq(line, 0, "line %d", line);
}

/* ---- cancellation -------------------------------------------------------------------------- */

/* A write of which the pipe takes the first 64 KiB, and then the task is cancelled. */
static int cancelled_half_way(void)
{
    enum { BYTES = 300000, PIPE_BYTES = 65536 };
    struct pipe_writer w = { .bytes = calloc(1, BYTES), .n = BYTES };
    struct mag_task *task;
    int ends[2], n = 0;

    EXPECT(pipe(ends) == 0);
    w.fd = ends[1];
    EXPECT(mag_spawn(&task, pipe_writer_body, &w, sizeof w, 0, NULL) == 0);
    while (ioctl(ends[0], FIONREAD, &n) == 0 && n < PIPE_BYTES)
        EXPECT(mag_sleep(MAG_MS) == 0);
    EXPECT(mag_cancel(task) == 0);
    EXPECT(mag_await(task, NULL, 0) == PIPE_BYTES);
    EXPECT(mag_op_close(ends[0]) == 0 && mag_op_close(ends[1]) == 0);
    free((char *)(uintptr_t)w.bytes);
    return 0;
}

Test(op, cancelled_half_way)
{
    int line = run_in_task(cancelled_half_way);

    cr_assert_eq(line, 0, "line %d", line);
}

/* Answers what a caller of open has to deal with: a descriptor is closed. */
static int opener_body(void *frame, void *result)
{
    int fd = mag_op_open(AT_FDCWD, path, *(int *)frame, 0600);

    (void)result;
    return fd < 0 ? fd : mag_op_close(fd);
}

/* O_CREAT, because io_uring opens without waiting what it need not create. */
static int cancelled_fifo(void)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC, before = descriptors();
    struct mag_task *task;

    EXPECT(mkfifo(path, 0600) == 0);
    EXPECT(mag_spawn(&task, opener_body, &flags, sizeof flags, 0, NULL) == 0);
    EXPECT(mag_sleep(20 * MAG_MS) == 0);
    EXPECT(!mag_done(task));
    EXPECT(mag_cancel(task) == 0);
    EXPECT(mag_await(task, NULL, 0) == -ECANCELED);
    EXPECT(descriptors() == before);
    return 0;
}

Test(op, cancelled_while_a_fifo_opens)
{
    int line = run_in_task(cancelled_fifo);

    cr_assert_eq(line, 0, "line %d", line);
}

/* Wherever the cancellation meets the open, no descriptor is lost. */
static int cancel_races_open(void)
{
    int flags = O_RDWR | O_CREAT | O_CLOEXEC, before;
    int n_cancelled = 0;

    EXPECT(opener_body(&flags, NULL) == 0);
    before = descriptors();
    for (int i = 0; i < 3000; i++) {
        struct mag_task *task;
        int rc;

        EXPECT(mag_spawn(&task, opener_body, &flags, sizeof flags, 0, NULL) == 0);
        for (int spin = 0; spin < i % 7; spin++)
            EXPECT(mag_yield() == 0);
        EXPECT(mag_cancel(task) == 0);
        rc = mag_await(task, NULL, 0);
        EXPECT(rc == 0 || rc == -ECANCELED);
        n_cancelled += rc < 0;
    }
    EXPECT(n_cancelled > 0);
    EXPECT(descriptors() == before);
    return 0;
}

Test(op, cancel_races_open)
{
    int line = run_in_task(cancel_races_open);

    cr_assert_eq(line, 0, "line %d", line);
}
