/* SPDX-License-Identifier: MIT */
/*
 * net.c - the calls of POSIX on any descriptor
 *
 * Every call is a struct mag_op on the caller's stack and goes through one of two doors, which
 * make of many kinds of descriptor one kind: what does not wait is made to.
 *
 *      mag_recv(fd, ...)
 *        in a task:    begin --> ring -> result -------------------------------> end
 *                               ^  |  -EAGAIN: the descriptor is non-blocking
 *                         enter |  v
 *                               +-- poll it, by the ring too
 *        outside it:   the system call; poll(2) after -EAGAIN; again
 *
 * begin, enter and end (inflight.c) are what a close finds the call by.
 *
 * Invariants
 *   1. A count is never replaced by an error: whatever the kernel moved is answered.
 *   2. From begin to end the call holds its descriptor: mag_close_fd does not close it.  So no
 *      attempt, the second after a poll neither, meets a number that is somebody else's by now.
 *   3. -ECANCELED means that this task is cancelled; the one that a close brings about is -EBADF.
 *   4. A descriptor that accept or socket made is answered or closed.
 *
 * SIGPIPE.  Sockets have MSG_NOSIGNAL.  write(2), for pipes, has RWF_NOSIGNAL from Linux 6.18;
 * a kernel that refuses it is not asked again, and then the workers that write this way have the
 * signal blocked, for good: to unblock it later would deliver it.  What splice raises is raised
 * in a thread of the kernel's or the pool's, or held and taken out again.
 *
 * Splice.  io_uring makes a splice on a thread of the kernel's, of which a ring has few, and
 * the epoll back-end on one of the pool's, where nothing could end it: with many relays that
 * wait there, all would stand still.  So both ends are polled first, and the splice is asked not
 * to wait.  But sockets heed SPLICE_F_NONBLOCK only where they send (from Linux 6.5), and
 * else their own O_NONBLOCK: a blocking socket of which somebody else reads, too, may still
 * hold the thread until something comes.  Between pipes and non-blocking sockets nothing can
 * wait: these are spliced on the spot.
 *
 * Rejected
 *   - trying recv(2) on the spot before the ring: a system call for each attempt, where the ring
 *     has one for all of them (figures.md: 0.90 without batches);
 *   - trying send(2) on the spot, which nearly always has room: no suspension, but a system call for
 *     each here, too (echo, medians of 24 pairs, 50 and 1,000 connections: 0.96 and 0.96);
 *   - making descriptors non-blocking: the flag is in the open file, shared with whoever else
 *     has it, a parent's terminal for one;
 *   - a poll before each receive: two trips through the ring instead of one.  Who has thousands
 *     of idle connections and wants no buffer for each says so by mag_poll_fd.  Provided
 *     buffers belong to one worker's ring, while the task that reads them may move to another;
 *     and they did not show to be faster (hand-written echo, 1,000 connections, two cores, best
 *     of five in k/s: receive 373, poll and receive 307, one-shot 326, multishot 343; single
 *     runs differed by a factor of three on that busy machine, so this ranks nothing);
 *   - IORING_RECVSEND_POLL_FIRST: best of eleven 356 against 373 there, of ten 351 against 322
 *     at 50: as little to be told apart;
 *   - SEND_ZC: on the loopback the kernel copies all the same (its own report), and waiting until
 *     it has let go of each message costs: 4 KiB go 20 times slower, 64 KiB, 1 MiB and 4 MiB
 *     1.4-2.5 times.  A network card, where it might pay, was not there to be measured;
 *   - multishot accept: medians of six 41.5 against 40 thousand connections a second, for some
 *     10 % less of the server's time, and a queue of accepted descriptors that nobody waits for
 *     when the task is cancelled.
 *
 * Sources: recv(2), accept(2) on -ECONNABORTED, connect(2) on EINPROGRESS and EINTR; splice(2);
 * ip(7), MCAST_JOIN_GROUP; reliability.md B2, 25, 26, 29.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/net.h>
#include <magpie/scope.h>

#include "atomic.h"
#include "inflight.h"
#include "op.h"
#include "sys_file.h"
#include "sys_net.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>

enum {
    NOSIGNAL = 0x100, /* RWF_NOSIGNAL of linux/fs.h */
    AGAIN = INT32_MIN /* among results: another turn */
};

/* ---- without SIGPIPE ---------------------------------------------------------------- */

static mag_atomic(bool) has_no_flag; /* [any] the kernel refused RWF_NOSIGNAL */

static bool is_write(const struct mag_op *op)
{
    return op->code == MAG_OP_WRITE || op->code == MAG_OP_WRITEV;
}

/* One attempt in a task. */
static int attempt_quietly(struct mag_op *op)
{
    int rc;

    if (!is_write(op))
        return mag_op_once(op);
    /* relaxed: a hint; who misses it is refused once more */
    op->flags = mag_load_relaxed(&has_no_flag) ? 0 : NOSIGNAL;
    if (op->flags == 0)
        mag_sys_sigpipe_block();
    rc = mag_op_once(op);
    if (rc != -EOPNOTSUPP || op->flags == 0)
        return rc;
    mag_store_relaxed(&has_no_flag, true);
    return AGAIN;
}

/* ---- in a task ------------------------------------------------------------------------ */

/* A descriptor in use by a call. */
struct held {
    struct mag_inflight f;
    struct mag_op poll; /* here, because a close may look at it until the end */
};

/* Waits until the descriptor is ready: the events, or -errno.  The other one that the call
 * holds, or NULL: a close of that ends this wait, too. */
static int wait_ready(struct held *h, struct held *other, unsigned events)
{
    int rc;

    do {
        rc = mag_inflight_enter(&h->f, &h->poll);
        if (rc == 0 && other)
            rc = mag_inflight_enter(&other->f, &h->poll);
        if (rc < 0)
            break;
        h->poll = (struct mag_op){ .code = MAG_OP_POLL, .fd = h->f.fd, .flags = events };
        rc = mag_op_once(&h->poll);
    } while (rc == -EINTR);
    return rc;
}

static int error_of_socket(int fd)
{
    int error = 0, rc;
    socklen_t len = sizeof error;

    rc = mag_sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    return rc < 0 ? rc : -error;
}

static bool is_dont_wait(const struct mag_op *op)
{
    bool is_of_socket = op->code >= MAG_OP_SEND && op->code <= MAG_OP_RECVMSG;

    return is_of_socket && (op->flags & MSG_DONTWAIT);
}

/* A connect that goes on without us. */
static bool is_connecting(const struct mag_op *op, int rc)
{
    return op->code == MAG_OP_CONNECT && (rc == -EINPROGRESS || rc == -EINTR || rc == -EALREADY);
}

static bool is_repeated(const struct mag_op *op, int rc)
{
    return rc == -EINTR || (rc == -ECONNABORTED && op->code == MAG_OP_ACCEPT);
}

/* One attempt, which has been entered, and what follows of it; `events': what to wait for after
 * -EAGAIN, 0: nothing. */
static int attempt(struct held *h, struct mag_op *op, unsigned events)
{
    int rc = attempt_quietly(op);

    if (MAG_LIKELY(rc >= 0))
        return rc;
    if (is_connecting(op, rc)) {
        rc = wait_ready(h, NULL, POLLOUT);
        return rc < 0 ? rc : error_of_socket(op->fd);
    }
    if (rc == -EAGAIN && events && !is_dont_wait(op)) {
        rc = wait_ready(h, NULL, events);
        return rc < 0 ? rc : AGAIN;
    }
    return is_repeated(op, rc) ? AGAIN : rc;
}

static int attempt_again(struct held *h, struct mag_op *op, unsigned events)
{
    int rc = mag_inflight_enter(&h->f, op);

    return rc < 0 ? rc : attempt(h, op, events);
}

/* Invariant 3.  -EBADF may be a refused attempt's, of a task that is cancelled. */
static int signed_off(struct held *h, int rc)
{
    bool is_closed = mag_inflight_end(&h->f);

    if (MAG_UNLIKELY(is_closed) && (rc == -ECANCELED || rc == -EBADF))
        return mag_cancelled() ? -ECANCELED : -EBADF;
    return rc;
}

static int call_in_task(struct mag_op *op, unsigned events)
{
    struct held h;
    int rc;

    mag_inflight_begin(&h.f, op->fd, op);
    rc = attempt(&h, op, events);
    while (rc == AGAIN)
        rc = attempt_again(&h, op, events);
    return signed_off(&h, rc);
}

/* ---- outside a task --------------------------------------------------------------------- */

static int attempt_blocking(struct mag_op *op)
{
    struct mag_sigpipe held;
    int rc;

    if (!is_write(op) && op->code != MAG_OP_SPLICE)
        return mag_op_once(op);
    mag_sys_sigpipe_hold(&held);
    rc = mag_op_once(op);
    mag_sys_sigpipe_release(&held, rc == -EPIPE);
    return rc;
}

static int poll_blocking(int fd, unsigned events)
{
    int rc;

    do
        rc = mag_sys_poll_one(fd, events, -1);
    while (rc == -EINTR);
    return rc;
}

static int call_outside(struct mag_op *op, unsigned events)
{
    int rc = mag_wait_outside();

    if (rc < 0)
        return rc;
    for (;;) {
        rc = attempt_blocking(op);
        if (is_connecting(op, rc)) {
            rc = poll_blocking(op->fd, POLLOUT);
            return rc < 0 ? rc : error_of_socket(op->fd);
        }
        if (is_repeated(op, rc))
            continue;
        if (rc != -EAGAIN || events == 0 || is_dont_wait(op))
            return rc;
        rc = poll_blocking(op->fd, events);
        if (rc < 0)
            return rc;
    }
}

static int call(struct mag_op *op, unsigned events)
{
    return mag_wait_in_task() ? call_in_task(op, events) : call_outside(op, events);
}

static uint32_t clamped(size_t n)
{
    return (uint32_t)(n < MAG_OP_BYTES_MAX ? n : MAG_OP_BYTES_MAX);
}

static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p;
}

/* ---- any descriptor ----------------------------------------------------------------------- */

static int transfer(enum mag_op_code code, int fd, const void *addr, size_t len, unsigned events)
{
    struct mag_op op = { .code = (uint8_t)code,
                         .fd = fd,
                         .addr = unconst(addr),
                         .len = clamped(len),
                         .offset = MAG_OP_OFFSET_CURRENT };

    return call(&op, events);
}

int mag_read(int fd, void *buf, size_t n)
{
    return transfer(MAG_OP_READ, fd, buf, n, POLLIN);
}

int mag_write(int fd, const void *buf, size_t n)
{
    return transfer(MAG_OP_WRITE, fd, buf, n, POLLOUT);
}

int mag_readv(int fd, const struct iovec *iov, int n_iov)
{
    return n_iov < 0 ? -EINVAL : transfer(MAG_OP_READV, fd, iov, (size_t)n_iov, POLLIN);
}

int mag_writev(int fd, const struct iovec *iov, int n_iov)
{
    return n_iov < 0 ? -EINVAL : transfer(MAG_OP_WRITEV, fd, iov, (size_t)n_iov, POLLOUT);
}

int mag_poll_fd(int fd, unsigned events)
{
    struct mag_op op = { .code = MAG_OP_POLL, .fd = fd, .flags = events };

    return call(&op, 0);
}

int mag_close_fd(int fd)
{
    int rc = mag_wait_in_task() ? 0 : mag_wait_outside();
    struct mag_closer c;

    if (rc < 0)
        return rc;
    mag_inflight_close(&c, fd);
    rc = mag_op_close(fd);
    mag_inflight_closed(&c);
    return rc;
}

/* All of it, by one of the calls that send a part. */
static int send_rest(struct mag_op *op, const void *buf, size_t n, size_t *done)
{
    size_t gone = 0;
    int rc = 0;

    while (gone < n && rc >= 0) {
        struct mag_op part = *op;
        part.addr = unconst((const char *)buf + gone);
        part.len = clamped(n - gone);
        rc = call(&part, POLLOUT);
        gone += rc > 0 ? (size_t)rc : 0;
    }
    if (done)
        *done = gone;
    return rc < 0 ? rc : 0;
}

int mag_write_all(int fd, const void *buf, size_t n, size_t *done)
{
    struct mag_op op = { .code = MAG_OP_WRITE, .fd = fd, .offset = MAG_OP_OFFSET_CURRENT };

    return send_rest(&op, buf, n, done);
}

/* ---- splice -------------------------------------------------------------------------------- */

static bool is_patient(const struct mag_op *op)
{
    return !(op->flags & SPLICE_F_NONBLOCK);
}

/* On the spot if it is ready, which it mostly is. */
static int await_ready(struct held *h, struct held *other, unsigned events)
{
    int rc = mag_sys_poll_one(h->f.fd, events, 0);

    return rc != 0 ? rc : wait_ready(h, other, events);
}

static bool is_pipe_or_non_blocking_socket(int fd)
{
    struct stat st;

    if (mag_sys_fstat(fd, &st) < 0)
        return false;
    return S_ISFIFO(st.st_mode) || (S_ISSOCK(st.st_mode) && (mag_sys_getfl(fd) & O_NONBLOCK) > 0);
}

static off_t *offset_or_null(uint64_t *offset)
{
    return *offset == MAG_OP_OFFSET_CURRENT ? NULL : (off_t *)offset;
}

/* On the spot, on the worker's own thread. */
static int splice_now(const struct mag_op *op)
{
    const struct mag_op_splice *there = op->addr;
    uint64_t from = op->offset, to = there->offset;
    struct mag_sigpipe held;
    int rc;

    mag_sys_sigpipe_hold(&held);
    rc = (int)mag_sys_splice(op->fd, offset_or_null(&from), there->fd, offset_or_null(&to), op->len,
                             op->flags | SPLICE_F_NONBLOCK);
    mag_sys_sigpipe_release(&held, rc == -EPIPE);
    return rc;
}

/* An attempt that does not wait, but for a file on a disk. */
static int splice_attempt(struct held *from, struct held *to, struct mag_op *op, bool is_quick)
{
    uint32_t flags = op->flags;
    int rc = is_quick ? mag_wait_checkpoint() : 0;

    if (rc >= 0)
        rc = mag_inflight_enter(&to->f, op);
    if (rc >= 0 && is_quick) {
        rc = mag_inflight_enter(&from->f, op);
        rc = rc < 0 ? rc : splice_now(op);
    } else if (rc >= 0) {
        op->flags |= SPLICE_F_NONBLOCK;
        rc = attempt_again(from, op, 0);
        op->flags = flags;
    }
    return rc == -EINTR ? AGAIN : rc;
}

static int splice_turn(struct held *from, struct held *to, struct mag_op *op, bool is_quick)
{
    int rc = is_quick ? splice_attempt(from, to, op, true) : -EAGAIN;

    if (rc != -EAGAIN || (is_quick && !is_patient(op)))
        return rc;
    rc = 0;
    if (is_patient(op))
        rc = await_ready(from, to, POLLIN);
    if (rc >= 0 && is_patient(op))
        rc = await_ready(to, from, POLLOUT);
    if (rc < 0 || is_quick)
        return rc < 0 ? rc : AGAIN;
    rc = splice_attempt(from, to, op, false);
    return rc == -EAGAIN && is_patient(op) ? AGAIN : rc;
}

static int splice_in_task(struct mag_op *op, int to_fd)
{
    struct held from, to;
    bool is_upwards = op->fd < to_fd, is_quick;
    int rc;

    mag_inflight_begin(is_upwards ? &from.f : &to.f, is_upwards ? op->fd : to_fd, NULL);
    mag_inflight_begin(is_upwards ? &to.f : &from.f, is_upwards ? to_fd : op->fd, NULL);
    is_quick = is_pipe_or_non_blocking_socket(op->fd) && is_pipe_or_non_blocking_socket(to_fd);
    do
        rc = splice_turn(&from, &to, op, is_quick);
    while (rc == AGAIN);
    rc = signed_off(&to, rc);
    return signed_off(&from, rc);
}

static int splice_outside(struct mag_op *op, int to_fd)
{
    int rc;

    do {
        rc = call_outside(op, 0);
        if (rc != -EAGAIN || !is_patient(op))
            return rc;
        rc = poll_blocking(op->fd, POLLIN);
        if (rc >= 0)
            rc = poll_blocking(to_fd, POLLOUT);
    } while (rc >= 0);
    return rc;
}

int mag_splice(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t n, unsigned flags)
{
    struct mag_op_splice there = { .fd = to,
                                   .offset =
                                       to_offset ? (uint64_t)*to_offset : MAG_OP_OFFSET_CURRENT };
    struct mag_op op = { .code = MAG_OP_SPLICE,
                         .fd = from,
                         .offset = from_offset ? (uint64_t)*from_offset : MAG_OP_OFFSET_CURRENT,
                         .addr = &there,
                         .len = clamped(n),
                         .flags = flags };
    int rc;

    if (from == to) /* never a splice, and held twice it could not be closed */
        return from < 0 ? -EBADF : -EINVAL;
    rc = mag_wait_in_task() ? splice_in_task(&op, to) : splice_outside(&op, to);
    if (rc > 0 && from_offset)
        *from_offset += rc;
    if (rc > 0 && to_offset)
        *to_offset += rc;
    return rc;
}

/* ---- sockets --------------------------------------------------------------------------------- */

int mag_socket(int domain, int type, int protocol)
{
    struct mag_op op = { .code = MAG_OP_SOCKET,
                         .fd = domain,
                         .flags = (uint32_t)type | SOCK_CLOEXEC,
                         .len = (uint32_t)protocol };
    int rc = mag_wait_in_task() ? 0 : mag_wait_outside();

    return rc < 0 ? rc : mag_op_call(&op);
}

int mag_accept(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    struct mag_op op = { .code = MAG_OP_ACCEPT,
                         .fd = fd,
                         .addr = addr,
                         .offset = mag_op_pointer(addr ? len : NULL),
                         .len = addr && len ? *len : 0,
                         .flags = (uint32_t)flags | SOCK_CLOEXEC };
    int rc = call(&op, POLLIN);

    if (rc >= 0 && mag_cancelled()) {
        (void)mag_op_close(rc);
        return -ECANCELED;
    }
    return rc;
}

int mag_connect_fd(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct mag_op op = { .code = MAG_OP_CONNECT, .fd = fd, .addr = unconst(addr), .len = len };

    return call(&op, 0);
}

int mag_send(int fd, const void *buf, size_t n, int flags)
{
    struct mag_op op = { .code = MAG_OP_SEND,
                         .fd = fd,
                         .addr = unconst(buf),
                         .len = clamped(n),
                         .flags = (uint32_t)flags | MSG_NOSIGNAL };

    return call(&op, POLLOUT);
}

int mag_send_all(int fd, const void *buf, size_t n, int flags, size_t *done)
{
    /* MSG_WAITALL: io_uring goes on after a short send by itself (Linux 5.19) */
    struct mag_op op = { .code = MAG_OP_SEND,
                         .fd = fd,
                         .flags = (uint32_t)flags | MSG_NOSIGNAL | MSG_WAITALL };

    return send_rest(&op, buf, n, done);
}

int mag_recv(int fd, void *buf, size_t n, int flags)
{
    struct mag_op op = {
        .code = MAG_OP_RECV, .fd = fd, .addr = buf, .len = clamped(n), .flags = (uint32_t)flags
    };

    return call(&op, POLLIN);
}

int mag_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct mag_op op = { .code = MAG_OP_SENDMSG,
                         .fd = fd,
                         .addr = unconst(message),
                         .flags = (uint32_t)flags | MSG_NOSIGNAL };

    return call(&op, POLLOUT);
}

int mag_recvmsg(int fd, struct msghdr *message, int flags)
{
    struct mag_op op = { .code = MAG_OP_RECVMSG,
                         .fd = fd,
                         .addr = message,
                         .len = message->msg_namelen,
                         .offset = message->msg_controllen,
                         .flags = (uint32_t)flags };

    return call(&op, POLLIN);
}

int mag_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr,
               socklen_t len)
{
    struct iovec part = { .iov_base = unconst(buf), .iov_len = clamped(n) };
    struct msghdr message = {
        .msg_name = unconst(addr), .msg_namelen = addr ? len : 0, .msg_iov = &part, .msg_iovlen = 1
    };

    return mag_sendmsg(fd, &message, flags);
}

int mag_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len)
{
    struct iovec part = { .iov_base = buf, .iov_len = clamped(n) };
    struct msghdr message = {
        .msg_name = addr, .msg_namelen = addr && len ? *len : 0, .msg_iov = &part, .msg_iovlen = 1
    };
    int rc = mag_recvmsg(fd, &message, flags);

    if (rc >= 0 && addr && len)
        *len = message.msg_namelen;
    return rc;
}

int mag_shutdown(int fd, int how)
{
    struct mag_op op = { .code = MAG_OP_SHUTDOWN, .fd = fd, .flags = (uint32_t)how };

    return call(&op, 0);
}

/* ---- multicast -------------------------------------------------------------------------------- */

static int set_membership(int fd, const struct sockaddr *group, unsigned index, int option)
{
    struct group_req request = { .gr_interface = index };
    bool is_v6 = group->sa_family == AF_INET6;

    if (!is_v6 && group->sa_family != AF_INET)
        return -EAFNOSUPPORT;
    __builtin_memcpy(&request.gr_group, group,
                     is_v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    return mag_sys_setsockopt(fd, is_v6 ? IPPROTO_IPV6 : IPPROTO_IP, option, &request,
                              sizeof request);
}

int mag_multicast_join(int fd, const struct sockaddr *group, unsigned interface_index)
{
    return set_membership(fd, group, interface_index, MCAST_JOIN_GROUP);
}

int mag_multicast_leave(int fd, const struct sockaddr *group, unsigned interface_index)
{
    return set_membership(fd, group, interface_index, MCAST_LEAVE_GROUP);
}
