/* SPDX-License-Identifier: MIT */
/*
 * sys_file.c - the door for system calls: those that only files need
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before
 * anybody can suspend, and nothing of this file is inlined elsewhere.  A task
 * never comes here, because its ring has the operation (or a thread of the offload pool makes
 * the call for it); only a thread outside a task does.
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
#include <stdio.h>
#include <unistd.h>

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
