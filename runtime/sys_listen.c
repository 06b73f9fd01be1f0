/* SPDX-License-Identifier: MIT */
/*
 * sys_listen.c - the door for system calls: sockets that others connect to, and datagrams
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before anybody can
 * suspend, and nothing of this file is inlined elsewhere.  None of these waits: listen and
 * what is done with a path are the kernel's own tables, the batches are asked not to.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. Each asks mag_sys_fault() first, so that tests can make it fail.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_listen.h"

#include <errno.h>
#include <unistd.h>

static MAG_NOINLINE int failed(void)
{
    return -errno;
}

#define ASK(id) \
    do { \
        int fault_ = mag_sys_fault(id); \
        if (fault_ < 0) \
            return fault_; \
    } while (0)

int mag_sys_listen(int fd, int backlog)
{
    ASK(MAG_SYS_OPENAT);
    return listen(fd, backlog) < 0 ? failed() : 0;
}

int mag_sys_chmod(const char *path, unsigned mode)
{
    ASK(MAG_SYS_OPENAT);
    return chmod(path, mode) < 0 ? failed() : 0;
}

int mag_sys_lstat(const char *path, struct stat *st)
{
    ASK(MAG_SYS_STATX);
    return lstat(path, st) < 0 ? failed() : 0;
}

int mag_sys_sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags)
{
    ASK(MAG_SYS_WRITE);
    int rc = sendmmsg(fd, messages, n, flags);
    return rc < 0 ? failed() : rc;
}

int mag_sys_recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags)
{
    ASK(MAG_SYS_READ);
    int rc = recvmmsg(fd, messages, n, flags, NULL);
    return rc < 0 ? failed() : rc;
}
