/* SPDX-License-Identifier: MIT */
/*
 * sys_net.c - the door for system calls: sockets, vectors, splice, poll
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before anybody can
 * suspend, and nothing of this file is inlined elsewhere.  A task comes here only for what
 * cannot wait (an option of a socket); the rest is its ring's.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. Each asks mag_sys_fault() first, so that tests can make it fail.
 *   3. After hold and release the thread's mask is as before, and a SIGPIPE that was pending
 *      before is pending still.
 *
 * A write to a pipe without a reader sends SIGPIPE, whose default kills the process.  Sockets
 * have MSG_NOSIGNAL, Linux 6.18 has RWF_NOSIGNAL; before that there is only the mask: blocked,
 * written, and what became pending taken out again.  It is directed at the thread, so nobody
 * else can take it, or be hit.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>

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

int mag_sys_socket(int domain, int type, int protocol)
{
    ASK(MAG_SYS_OPENAT);
    int rc = socket(domain, type, protocol);
    return rc < 0 ? failed() : rc;
}

int mag_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    ASK(MAG_SYS_READ);
    int rc = accept4(fd, addr, len, flags);
    return rc < 0 ? failed() : rc;
}

int mag_sys_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    ASK(MAG_SYS_WRITE);
    return connect(fd, addr, len) < 0 ? failed() : 0;
}

ssize_t mag_sys_send(int fd, const void *buf, size_t n, int flags)
{
    ASK(MAG_SYS_WRITE);
    ssize_t rc = send(fd, buf, n, flags);
    return rc < 0 ? failed() : rc;
}

ssize_t mag_sys_recv(int fd, void *buf, size_t n, int flags)
{
    ASK(MAG_SYS_READ);
    ssize_t rc = recv(fd, buf, n, flags);
    return rc < 0 ? failed() : rc;
}

ssize_t mag_sys_sendmsg(int fd, const struct msghdr *m, int flags)
{
    ASK(MAG_SYS_WRITE);
    ssize_t rc = sendmsg(fd, m, flags);
    return rc < 0 ? failed() : rc;
}

ssize_t mag_sys_recvmsg(int fd, struct msghdr *m, int flags)
{
    ASK(MAG_SYS_READ);
    ssize_t rc = recvmsg(fd, m, flags);
    return rc < 0 ? failed() : rc;
}

int mag_sys_shutdown(int fd, int how)
{
    ASK(MAG_SYS_WRITE);
    return shutdown(fd, how) < 0 ? failed() : 0;
}

int mag_sys_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    ASK(MAG_SYS_OPENAT);
    return bind(fd, addr, len) < 0 ? failed() : 0;
}

int mag_sys_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    ASK(MAG_SYS_READ);
    return getsockname(fd, addr, len) < 0 ? failed() : 0;
}

int mag_sys_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    ASK(MAG_SYS_READ);
    return getpeername(fd, addr, len) < 0 ? failed() : 0;
}

int mag_sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    ASK(MAG_SYS_READ);
    return getsockopt(fd, level, name, value, len) < 0 ? failed() : 0;
}

int mag_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    ASK(MAG_SYS_WRITE);
    return setsockopt(fd, level, name, value, len) < 0 ? failed() : 0;
}

ssize_t mag_sys_splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t n,
                       unsigned flags)
{
    ASK(MAG_SYS_WRITE);
    ssize_t rc = splice(from, from_offset, to, to_offset, n, flags);
    return rc < 0 ? failed() : rc;
}

int mag_sys_poll_one(int fd, unsigned events, int timeout_ms)
{
    struct pollfd one = { .fd = fd, .events = (short)events };

    ASK(MAG_SYS_READ);
    if (fd < 0) /* which poll(2) ignores */
        return -EBADF;
    if (poll(&one, 1, timeout_ms) < 0)
        return failed();
    return one.revents & POLLNVAL ? -EBADF : one.revents;
}

/* ---- without SIGPIPE --------------------------------------------------------------- */

static void only_sigpipe(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGPIPE);
}

void mag_sys_sigpipe_block(void)
{
    sigset_t pipe_only;

    only_sigpipe(&pipe_only);
    (void)pthread_sigmask(SIG_BLOCK, &pipe_only, NULL);
}

void mag_sys_sigpipe_hold(struct mag_sigpipe *h)
{
    sigset_t pipe_only, pending;

    only_sigpipe(&pipe_only);
    sigemptyset(&pending);
    (void)pthread_sigmask(SIG_BLOCK, &pipe_only, &h->before);
    (void)sigpending(&pending);
    h->was_pending = sigismember(&pending, SIGPIPE);
}

void mag_sys_sigpipe_release(const struct mag_sigpipe *h, bool is_raised)
{
    const struct timespec at_once = { 0 };
    sigset_t pipe_only;

    only_sigpipe(&pipe_only);
    if (is_raised && !h->was_pending)
        (void)sigtimedwait(&pipe_only, NULL, &at_once); /* none, if it is ignored */
    (void)pthread_sigmask(SIG_SETMASK, &h->before, NULL);
}
