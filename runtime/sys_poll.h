/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_POLL_H
#define MAG_SYS_POLL_H
/*
 * sys_poll.h - the door for system calls: those that a ring on epoll(7) needs
 *
 * As in sys.h: the call of that name, which answers -errno.
 */
#include "sys.h"

#include <sys/epoll.h>

/* epoll_ctl(2); `how' is EPOLL_CTL_*, and data.fd is fd.  A fault armed for MAG_SYS_EPOLL_CTL fails
 * it, unless it is EPOLL_CTL_DEL. */
MAG_MODULE int mag_sys_epoll_ctl(int epfd, int how, int fd, uint32_t events);

/*
 * epoll_pwait2(2) without a mask: the number of events, after at most timeout_ns (MAG_NEVER:
 * no limit; 0 and less: no wait).  Where the kernel is too old for it, or a sandbox forbids
 * it, in whole milliseconds, rounded up.  A fault armed for MAG_SYS_EPOLL_WAIT fails it.
 */
MAG_MODULE int mag_sys_epoll_wait(int epfd, struct epoll_event *events, int n, mag_time timeout_ns);

/*
 * What a non-blocking eventfd holds, and empties it; 0 if nothing.  No fault fails it: it is
 * part of waiting, and io_uring's is not made by us either.
 */
MAG_MODULE uint64_t mag_sys_eventfd_take(int fd);

/* The O_* flags of an open descriptor: fcntl(2), F_GETFL and F_SETFL. */
int mag_sys_flags_get(int fd);
int mag_sys_flags_set(int fd, int flags);

#endif
