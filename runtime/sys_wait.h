/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_WAIT_H
#define MAG_SYS_WAIT_H
/*
 * sys_wait.h - the door for system calls: those that an embedded runtime and a signal
 * handler need
 *
 * As in sys.h: the call of that name, which answers -errno.
 */
#include "sys.h"

/* A new epoll(7) descriptor, close-on-exec.  A fault armed for MAG_SYS_EVENTFD fails it. */
MAG_MODULE int mag_sys_epoll_create(void);
/* Has epfd report when fd is readable. */
int mag_sys_epoll_add(int epfd, int fd);

/* A new timerfd_create(2) on CLOCK_MONOTONIC, non-blocking, close-on-exec; the same fault. */
int mag_sys_timerfd_create(void);
/* It becomes readable at that time; MAG_NEVER: not at all. */
int mag_sys_timerfd_set(int fd, mag_time when);

/* For a handler, which must leave errno as it found it. */
int mag_sys_errno_save(void);
void mag_sys_errno_restore(int saved);

#endif
