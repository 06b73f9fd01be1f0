/* SPDX-License-Identifier: MIT */
/*
 * op_codes.c - tests of the operations on files and names, by their codes
 *
 * Each outside a task, in a task by the ring, and in a task whose ring says that it cannot: then
 * the offload pool does it.  SOCKET and READV are among the latter too.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <magpie.h>

#include "in_task.h"
#include "op.h"
#include "ring.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(op_codes, .timeout = 60);

static int call(enum mag_op_code code, struct mag_op op)
{
    op.code = (uint8_t)code;
    return mag_op_call(&op);
}

#define CALL(code, ...) call(MAG_OP_##code, (struct mag_op){ __VA_ARGS__ })

static void *path_of(const char *p)
{
    return (void *)(uintptr_t)p;
}

static int names(void)
{
    char dir[] = "/tmp/mag-codes-XXXXXX", says[16] = "";
    int d, fd;
    struct stat st;

    EXPECT(mkdtemp(dir) && (d = open(dir, O_RDONLY | O_DIRECTORY)) >= 0);
    EXPECT(CALL(MKDIRAT, .fd = d, .addr = path_of("sub"), .len = 0700) == 0);
    EXPECT(CALL(MKDIRAT, .fd = d, .addr = path_of("sub"), .len = 0700) == -EEXIST);
    EXPECT(fstatat(d, "sub", &st, 0) == 0 && (st.st_mode & 0777) == 0700);
    EXPECT((fd = openat(d, "a", O_RDWR | O_CREAT, 0600)) >= 0);
    EXPECT(CALL(LINKAT, .fd = d, .addr = path_of("a"), .len = (uint32_t)d,
                .offset = mag_op_pointer("sub/b")) == 0);
    EXPECT(fstat(fd, &st) == 0 && st.st_nlink == 2);
    EXPECT(CALL(SYMLINKAT, .fd = d, .addr = path_of("sub/b"), .offset = mag_op_pointer("s")) == 0);
    EXPECT(readlinkat(d, "s", says, sizeof says) == 5 && strcmp(says, "sub/b") == 0);
    EXPECT(CALL(RENAMEAT, .fd = d, .addr = path_of("a"), .len = (uint32_t)d,
                .offset = mag_op_pointer("s"), .flags = RENAME_NOREPLACE) == -EEXIST);
    EXPECT(CALL(RENAMEAT, .fd = d, .addr = path_of("s"), .len = (uint32_t)d,
                .offset = mag_op_pointer("t")) == 0);
    EXPECT(CALL(UNLINKAT, .fd = d, .addr = path_of("t")) == 0);
    EXPECT(CALL(UNLINKAT, .fd = d, .addr = path_of("sub/b")) == 0);
    EXPECT(CALL(UNLINKAT, .fd = d, .addr = path_of("sub")) == -EISDIR);
    EXPECT(CALL(UNLINKAT, .fd = d, .addr = path_of("sub"), .flags = AT_REMOVEDIR) == 0);
    EXPECT(CALL(UNLINKAT, .fd = d, .addr = path_of("a")) == 0);
    EXPECT(close(fd) == 0 && close(d) == 0 && rmdir(dir) == 0);
    return 0;
}

/* openat2(2) heeds what openat(2) does not know. */
static int beneath(void)
{
    struct open_how how = { .flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_BENEATH };
    char dir[] = "/tmp/mag-codes-XXXXXX";
    int d, fd;

    EXPECT(mkdtemp(dir) && (d = open(dir, O_RDONLY | O_DIRECTORY)) >= 0);
    EXPECT(mag_op_open2(d, "..", &how) == -EXDEV);
    EXPECT(mag_op_open2(d, "/etc", &how) == -EXDEV);
    EXPECT(mag_op_open2(d, "none", &how) == -ENOENT);
    EXPECT((fd = mag_op_open2(d, ".", &how)) >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    EXPECT(close(fd) == 0);
    how.resolve = 1ull << 63;
    EXPECT(mag_op_open2(d, ".", &how) == -EINVAL);
    EXPECT(close(d) == 0 && rmdir(dir) == 0);
    return 0;
}

static int lengths(void)
{
    const uint64_t large = (uint64_t)5 << 30;
    char path[] = "/tmp/mag-codes-XXXXXX", buf[8];
    struct iovec part = { buf, sizeof buf };
    int fd = mkstemp(path), s;
    struct stat st;

    EXPECT(fd >= 0 && unlink(path) == 0);
    EXPECT(CALL(FTRUNCATE, .fd = fd, .offset = large) == 0);
    EXPECT(fstat(fd, &st) == 0 && (uint64_t)st.st_size == large);
    EXPECT(CALL(FTRUNCATE, .fd = fd, .offset = 0) == 0);
    EXPECT(CALL(FTRUNCATE, .fd = -1, .offset = 0) == -EBADF);
    EXPECT(CALL(FALLOCATE, .fd = fd, .offset = 4096, .addr = mag_op_number(8192)) == 0);
    EXPECT(fstat(fd, &st) == 0 && st.st_size == 12288);
    EXPECT(CALL(FADVISE, .fd = fd, .flags = POSIX_FADV_DONTNEED) == 0);
    EXPECT(CALL(FADVISE, .fd = fd, .flags = 99) == -EINVAL);
    EXPECT(pwrite(fd, "12345678", 8, 5) == 8);
    EXPECT(CALL(READV, .fd = fd, .addr = &part, .len = 1, .offset = 5) == 8);
    EXPECT(memcmp(buf, "12345678", 8) == 0);
    s = CALL(SOCKET, .fd = AF_UNIX, .flags = SOCK_DGRAM | SOCK_CLOEXEC);
    EXPECT(s >= 0 && (fcntl(s, F_GETFD) & FD_CLOEXEC));
    EXPECT(CALL(SOCKET, .fd = 9999, .flags = SOCK_DGRAM) == -EAFNOSUPPORT);
    EXPECT(close(s) == 0 && close(fd) == 0);
    return 0;
}

static int both(void)
{
    int line = names();

    line = line ? line : beneath();
    return line ? line : lengths();
}

/* One worker, pinned by being the only one. */
static int without_the_ring(void)
{
    struct mag_ring *r = mag_worker_self()->ring;

    r->lacks |= ~(uint64_t)0 << MAG_OP_READV;
    EXPECT(!mag_ring_can(r, MAG_OP_FTRUNCATE) && mag_ring_can(r, MAG_OP_READ));
    return both();
}

Test(op_codes, outside_a_task)
{
    int line = both();

    cr_assert_eq(line, 0, "line %d", line);
}

Test(op_codes, in_a_task)
{
    int line = run_in_task(both);

    cr_assert_eq(line, 0, "line %d", line);
}

Test(op_codes, what_the_ring_lacks)
{
    setenv("MAGPIE_WORKERS", "1", 1);
    int line = run_in_task(without_the_ring);

    cr_assert_eq(line, 0, "line %d", line);
}

/* Every code but NOP has a row, with a name of its own. */
Test(op_codes, rows)
{
    for (unsigned i = MAG_OP_READ; i < MAG_OP_CODES; i++) {
        cr_assert_not_null(mag_op_name(i), "code %u", i);
        for (unsigned k = MAG_OP_READ; k < i; k++)
            cr_assert_str_neq(mag_op_name(i), mag_op_name(k));
    }
}
