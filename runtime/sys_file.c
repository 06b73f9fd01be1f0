/* SPDX-License-Identifier: MIT */
/*
 * sys_file.c - the door for system calls: those that only files need
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before
 * anybody can suspend, and nothing of this file is inlined elsewhere.  A task never
 * comes here, because its ring has the operation; only a thread outside a task does.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. Each asks mag_sys_fault() first, so that tests can make it fail.
 */
#include "sys_file.h"

#include <errno.h>
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
