/* SPDX-License-Identifier: MIT */
/*
 * sys_file.c - the door for system calls: those that only files need
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before
 * anybody can suspend, and nothing of this file is inlined elsewhere.  Those that may
 * wait are for the offload pool and for threads outside a task; the four that answer
 * from memory (open_cached, lseek, isatty, fcntl) a task calls itself.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. Each asks mag_sys_fault() first, so that tests can make it fail.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20 /* Linux 5.12 */
#endif

static MAG_NOINLINE int failed(void)
{
    return -errno;
}

int mag_sys_fsync(int fd, bool data_only)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    rc = data_only ? fdatasync(fd) : fsync(fd);
    return rc < 0 ? failed() : 0;
}

int mag_sys_openat2(int dirfd, const char *path, const struct open_how *how, size_t how_bytes)
{
    int rc = mag_sys_fault(MAG_SYS_OPENAT);

    if (rc < 0)
        return rc;
    rc = (int)syscall(SYS_openat2, dirfd, path, how, how_bytes);
    return rc < 0 ? failed() : rc;
}

int mag_sys_ftruncate(int fd, off_t length)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return ftruncate(fd, length) < 0 ? failed() : 0;
}

int mag_sys_fallocate(int fd, int mode, off_t offset, off_t length)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return fallocate(fd, mode, offset, length) < 0 ? failed() : 0;
}

int mag_sys_fadvise(int fd, off_t offset, off_t length, int advice)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return -posix_fadvise(fd, offset, length, advice); /* which answers the errno itself */
}

int mag_sys_renameat2(int dirfd, const char *path, int to_dirfd, const char *to, unsigned flags)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return renameat2(dirfd, path, to_dirfd, to, flags) < 0 ? failed() : 0;
}

int mag_sys_linkat(int dirfd, const char *path, int to_dirfd, const char *to, int flags)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return linkat(dirfd, path, to_dirfd, to, flags) < 0 ? failed() : 0;
}

int mag_sys_symlinkat(const char *says, int dirfd, const char *path)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return symlinkat(says, dirfd, path) < 0 ? failed() : 0;
}

int mag_sys_unlinkat(int dirfd, const char *path, int flags)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return unlinkat(dirfd, path, flags) < 0 ? failed() : 0;
}

int mag_sys_mkdirat(int dirfd, const char *path, mode_t mode)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return mkdirat(dirfd, path, mode) < 0 ? failed() : 0;
}

int mag_sys_open_cached(const char *path, int flags)
{
    int more = flags & O_PATH ? 0 : O_NONBLOCK;
    struct open_how how = { .flags = (unsigned)(flags | more), .resolve = RESOLVE_CACHED };
    long rc = mag_sys_fault(MAG_SYS_OPENAT);

    if (rc < 0)
        return (int)rc;
    rc = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
    return rc < 0 ? failed() : (int)rc;
}

int64_t mag_sys_lseek(int fd, off_t offset, int whence)
{
    off_t rc = lseek(fd, offset, whence);

    return rc < 0 ? failed() : rc;
}

bool mag_sys_isatty(int fd)
{
    return isatty(fd) == 1;
}

int mag_sys_getfl(int fd)
{
    int rc = fcntl(fd, F_GETFL);

    return rc < 0 ? failed() : rc;
}

int mag_sys_setfl(int fd, int flags)
{
    return fcntl(fd, F_SETFL, flags) < 0 ? failed() : 0;
}

int mag_sys_getseals(int fd)
{
    int rc = mag_sys_fault(MAG_SYS_FSTAT);

    if (rc < 0)
        return rc;
    rc = fcntl(fd, F_GET_SEALS);
    return rc < 0 ? failed() : rc;
}

int mag_sys_fchmodat(int dirfd, const char *path, mode_t mode)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return fchmodat(dirfd, path, mode, 0) < 0 ? failed() : 0;
}

int mag_sys_fchmod(int fd, mode_t mode)
{
    int rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    return fchmod(fd, mode) < 0 ? failed() : 0;
}

int mag_sys_faccessat(int dirfd, const char *path, int mode)
{
    int rc = mag_sys_fault(MAG_SYS_STATX);

    if (rc < 0)
        return rc;
    return faccessat(dirfd, path, mode, AT_EACCESS) < 0 ? failed() : 0;
}

ssize_t mag_sys_readlinkat(int dirfd, const char *path, char *buf, size_t n)
{
    ssize_t rc = mag_sys_fault(MAG_SYS_STATX);

    if (rc < 0)
        return rc;
    rc = readlinkat(dirfd, path, buf, n);
    return rc < 0 ? failed() : rc;
}

int mag_sys_statvfs(const char *path, struct statvfs *out)
{
    int rc = mag_sys_fault(MAG_SYS_STATX);

    if (rc < 0)
        return rc;
    return statvfs(path, out) < 0 ? failed() : 0;
}

ssize_t mag_sys_copy_file_range(int from, int to, size_t n)
{
    ssize_t rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    rc = copy_file_range(from, NULL, to, NULL, n, 0);
    return rc < 0 ? failed() : rc;
}
