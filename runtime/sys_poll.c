/* SPDX-License-Identifier: MIT */
/*
 * sys_poll.c - the door for system calls: those that a ring on epoll(7) needs
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before anybody
 * can suspend, and nothing of this file is inlined elsewhere.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. What can fail asks mag_sys_fault() first; to forget a descriptor cannot.
 *
 * epoll_pwait2(2) came with Linux 5.11, and a sandbox that was written before that answers
 * EPERM or ENOSYS.  Then milliseconds have to do; that is remembered (relaxed: whoever does
 * not know it yet finds out by itself).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_poll.h"

#include "atomic.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { WAIT_MS_MAX = 1000 * 1000 };

static mag_atomic(bool) has_no_pwait2; /* [any] */

static MAG_NOINLINE int answer(int rc)
{
    return rc < 0 ? -errno : rc;
}

int mag_sys_epoll_ctl(int epfd, int how, int fd, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.fd = fd };
    int rc = how == EPOLL_CTL_DEL ? 0 : mag_sys_fault(MAG_SYS_EPOLL_CTL);

    return rc < 0 ? rc : answer(epoll_ctl(epfd, how, fd, &e));
}

static int wait_ms(int epfd, struct epoll_event *events, int n, mag_time timeout_ns)
{
    mag_time ms = (timeout_ns + MAG_MS - 1) / MAG_MS;

    return answer(epoll_wait(epfd, events, n, ms < WAIT_MS_MAX ? (int)ms : WAIT_MS_MAX));
}

int mag_sys_epoll_wait(int epfd, struct epoll_event *events, int n, mag_time timeout_ns)
{
    struct timespec ts = { .tv_sec = timeout_ns / MAG_SECOND, .tv_nsec = timeout_ns % MAG_SECOND };
    int rc = mag_sys_fault(MAG_SYS_EPOLL_WAIT);

    if (rc < 0)
        return rc;
    if (timeout_ns <= 0 || timeout_ns == MAG_NEVER)
        return answer(epoll_wait(epfd, events, n, timeout_ns <= 0 ? 0 : -1));
    if (mag_load_relaxed(&has_no_pwait2))
        return wait_ms(epfd, events, n, timeout_ns);
    rc = answer(epoll_pwait2(epfd, events, n, &ts, NULL));
    if (rc != -ENOSYS && rc != -EPERM)
        return rc;
    mag_store_relaxed(&has_no_pwait2, true);
    return wait_ms(epfd, events, n, timeout_ns);
}

uint64_t mag_sys_eventfd_take(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof n) == (ssize_t)sizeof n ? n : 0;
}

int mag_sys_flags_get(int fd)
{
    return answer(fcntl(fd, F_GETFL));
}

int mag_sys_flags_set(int fd, int flags)
{
    return answer(fcntl(fd, F_SETFL, flags));
}
