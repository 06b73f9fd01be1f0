/* SPDX-License-Identifier: MIT */
/*
 * sys_debug.c - the door for system calls: those that only reports and debug mode need
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_debug.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { POISON = 4095 }; /* the largest that the kernel could mean; "Unknown error 4095" */

int mag_sys_peek(const void *from, void *to, size_t n)
{
    struct iovec local = { .iov_base = to, .iov_len = n };
    struct iovec remote = { .iov_base = (void *)from, .iov_len = n };
    int saved = errno;
    ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    int rc = got == (ssize_t)n ? 0 : got < 0 ? -errno : -EFAULT;

    errno = saved;
    return rc;
}

int mag_sys_peek_text(const char *from, char *to, size_t room)
{
    for (size_t i = 0; i + 1 < room;) {
        /* not across the end of a page: the next one may not be there */
        size_t left = MAG_PAGE_BYTES - (uintptr_t)(from + i) % MAG_PAGE_BYTES;
        size_t n = left < room - 1 - i ? left : room - 1 - i;
        int rc = mag_sys_peek(from + i, to + i, n);

        if (rc < 0)
            return rc;
        for (; n > 0; n--, i++) {
            if (to[i] == '\0')
                return i ? 0 : -EILSEQ;
            if ((unsigned char)to[i] < ' ')
                return -EILSEQ;
        }
    }
    to[room - 1] = '\0';
    return 0;
}

MAG_NOINLINE void mag_sys_poison_errno(void)
{
    errno = POISON;
}
