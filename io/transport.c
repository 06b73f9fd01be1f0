/* SPDX-License-Identifier: MIT */
/*
 * transport.c - descriptors as what carries a stream's bytes
 *
 * Two tables of functions over the calls of net.c: sockets are received from and sent to, which
 * needs no care for SIGPIPE and works on every kernel; everything else is read and written.
 * Which of the two a descriptor wants is asked once, when its stream is made.
 *
 * interrupt is a close without the close(2): it ends what is in flight on the descriptor, and
 * whoever is between two operations then is met by the next one (stream.c repeats it until
 * nobody is inside).  So no task ever holds on to a number that is somebody else's by now.
 *
 * Names are made of what getpeername(2) and getsockname(2) say, as
 *
 *      192.0.2.1:80    [2001:db8::1]:80    [fe80::1%2]:80    unix:/run/x    unix:@abstract
 *
 * and "unix:" for the end of a unix connection that was never bound.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "transport.h"

#include "inflight.h"
#include "sys_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <magpie/net.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

static int number(void *self)
{
    return (int)(intptr_t)self;
}

/* ---- both --------------------------------------------------------------------------- */

static int close_fd(void *self)
{
    return mag_close_fd(number(self));
}

static void interrupt_fd(void *self)
{
    struct mag_closer c;

    mag_inflight_close(&c, number(self));
    mag_inflight_closed(&c);
}

/* ---- sockets ------------------------------------------------------------------------ */

static int receive(void *self, void *buf, size_t n)
{
    return mag_recv(number(self), buf, n, 0);
}

static int send_pieces(void *self, const struct iovec *iov, int n_iov)
{
    struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov,
                              .msg_iovlen = (size_t)n_iov };

    if (n_iov == 1)
        return mag_send(number(self), iov->iov_base, iov->iov_len, 0);
    return mag_sendmsg(number(self), &message, 0);
}

static int send_or_readable(void *self, const struct iovec *iov, int n_iov)
{
    struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)iov,
                              .msg_iovlen = (size_t)n_iov };
    int fd = number(self), rc;

    for (;;) {
        rc = n_iov == 1 ? mag_send(fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
                        : mag_sendmsg(fd, &message, MSG_DONTWAIT);
        if (rc != -EAGAIN)
            return rc;
        rc = mag_poll_fd(fd, POLLIN | POLLOUT);
        if (rc < 0)
            return rc;
        if (rc & ~POLLOUT)
            return -EAGAIN;
    }
}

static int send_end(void *self)
{
    return mag_shutdown(number(self), SHUT_WR);
}

/* A reset, instead of an end that looks as if all had been said. */
static void abort_socket(void *self)
{
    const struct linger none = { .l_onoff = 1, .l_linger = 0 };

    (void)mag_sys_setsockopt(number(self), SOL_SOCKET, SO_LINGER, &none, sizeof none);
    (void)mag_close_fd(number(self));
}

const struct mag_transport mag_transport_socket = {
    .name = "socket",
    .read = receive,
    .write = send_pieces,
    .write_eof = send_end,
    .close = close_fd,
    .abort = abort_socket,
    .fd = number,
    .interrupt = interrupt_fd,
    .write_or_readable = send_or_readable,
};

/* ---- the rest ------------------------------------------------------------------------ */

static int read_file(void *self, void *buf, size_t n)
{
    return mag_read(number(self), buf, n);
}

static int write_pieces(void *self, const struct iovec *iov, int n_iov)
{
    if (n_iov == 1)
        return mag_write(number(self), iov->iov_base, iov->iov_len);
    return mag_writev(number(self), iov, n_iov);
}

/* A pipe ends when it is closed, which is the owner's to do. */
static int no_end(void *self)
{
    (void)self;
    return -EOPNOTSUPP;
}

static void abort_file(void *self)
{
    (void)mag_close_fd(number(self));
}

const struct mag_transport mag_transport_file = {
    .name = "file",
    .read = read_file,
    .write = write_pieces,
    .write_eof = no_end,
    .close = close_fd,
    .abort = abort_file,
    .fd = number,
    .interrupt = interrupt_fd,
};

int mag_transport_of_fd(const struct mag_transport **out, int fd)
{
    int type = 0, rc;
    socklen_t len = sizeof type;

    rc = mag_sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
    if (rc == 0 && type != SOCK_STREAM)
        return -EPROTOTYPE;
    if (rc < 0 && rc != -ENOTSOCK)
        return rc;
    *out = rc == 0 ? &mag_transport_socket : &mag_transport_file;
    return 0;
}

/* ---- names ----------------------------------------------------------------------------- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
    struct sockaddr_storage all;
};

static int written(int n, size_t room)
{
    return n < 0 || (size_t)n >= room ? -EOVERFLOW : n;
}

static int print_v4(const struct sockaddr_in *a, char *buf, size_t room)
{
    char host[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, &a->sin_addr, host, sizeof host);
    return written(snprintf(buf, room, "%s:%u", host, ntohs(a->sin_port)), room);
}

static int print_v6(const struct sockaddr_in6 *a, char *buf, size_t room)
{
    char host[INET6_ADDRSTRLEN], zone[16] = "";

    inet_ntop(AF_INET6, &a->sin6_addr, host, sizeof host);
    if (a->sin6_scope_id)
        snprintf(zone, sizeof zone, "%%%u", (unsigned)a->sin6_scope_id);
    return written(snprintf(buf, room, "[%s%s]:%u", host, zone, ntohs(a->sin6_port)), room);
}

static int print_unix(const struct sockaddr_un *a, socklen_t len, char *buf, size_t room)
{
    size_t n = len > offsetof(struct sockaddr_un, sun_path)
                   ? len - offsetof(struct sockaddr_un, sun_path)
                   : 0;
    bool is_abstract = n > 0 && a->sun_path[0] == '\0';

    if (is_abstract)
        return written(snprintf(buf, room, "unix:@%.*s", (int)n - 1, a->sun_path + 1), room);
    return written(snprintf(buf, room, "unix:%.*s", (int)n, n ? a->sun_path : ""), room);
}

static int print_address(const union address *a, socklen_t len, char *buf, size_t room)
{
    switch (a->any.sa_family) {
    case AF_INET:
        return print_v4(&a->v4, buf, room);
    case AF_INET6:
        return print_v6(&a->v6, buf, room);
    case AF_UNIX:
        return print_unix(&a->un, len, buf, room);
    default:
        return -EAFNOSUPPORT;
    }
}

int mag_transport_name(int fd, bool is_peer, char *buf, size_t room)
{
    union address a = { 0 };
    socklen_t len = sizeof a;
    int rc = -EBADF;

    if (room > 0)
        buf[0] = '\0';
    if (fd >= 0)
        rc =
            is_peer ? mag_sys_getpeername(fd, &a.any, &len) : mag_sys_getsockname(fd, &a.any, &len);
    return rc < 0 ? rc : print_address(&a, len, buf, room);
}
