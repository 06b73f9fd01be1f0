/* SPDX-License-Identifier: MIT */
/*
 * sys_wait.c - the door for system calls: those that an embedded runtime and a signal
 * handler need
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before anybody
 * can suspend, and nothing of this file is inlined elsewhere.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. Those that make a descriptor ask mag_sys_fault() first, so that tests can make
 *      them fail; the others cannot fail but by a mistake of the caller's.
 */
#include "sys_wait.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

static MAG_NOINLINE int answer(int rc)
{
    return rc < 0 ? -errno : rc;
}

int mag_sys_epoll_create(void)
{
    int rc = mag_sys_fault(MAG_SYS_EVENTFD);

    return rc < 0 ? rc : answer(epoll_create1(EPOLL_CLOEXEC));
}

int mag_sys_epoll_add(int epfd, int fd)
{
    struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };

    return answer(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e));
}

int mag_sys_timerfd_create(void)
{
    int rc = mag_sys_fault(MAG_SYS_EVENTFD);

    return rc < 0 ? rc : answer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
}

/* A time of 0 would disarm it: the first nanosecond of the clock is as good. */
int mag_sys_timerfd_set(int fd, mag_time when)
{
    struct itimerspec it = { .it_value = { 0, 0 } };

    if (when != MAG_NEVER) {
        when = when > 0 ? when : 1;
        it.it_value.tv_sec = when / MAG_SECOND;
        it.it_value.tv_nsec = when % MAG_SECOND;
    }
    return answer(timerfd_settime(fd, TFD_TIMER_ABSTIME, &it, NULL));
}

int mag_sys_errno_save(void)
{
    return errno;
}

void mag_sys_errno_restore(int saved)
{
    errno = saved;
}
