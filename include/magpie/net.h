/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_NET_H
#define MAGPIE_NET_H
/*
 * net.h - the calls of POSIX on any descriptor: sockets, pipes, terminals
 *
 *      int n = mag_recv(fd, buf, sizeof buf, 0);       recv(2), but only this task waits
 *
 * Each function is the call of that name with these differences:
 *
 *   - it returns the result or -errno; errno means nothing;
 *   - in a task it suspends the task, whether the descriptor is blocking or not (blocking ones
 *     are faster); outside a task it blocks the thread, also on a non-blocking descriptor.
 *     -EAGAIN comes only with MSG_DONTWAIT or SPLICE_F_NONBLOCK; -EINTR never;
 *   - SIGPIPE is never raised: -EPIPE is all;
 *   - it is a cancellation point.  A cancelled task's call returns -ECANCELED and has then moved
 *     nothing; what was moved before the cancellation came is returned as a count, and the next
 *     call is the one to be refused.  So no byte is lost and none is sent twice;
 *   - if another task closes the descriptor by mag_close_fd meanwhile: -EBADF;
 *   - a transfer is short as POSIX has it, and at most 2,147,479,552 bytes; the ones that do
 *     all of it are called _all;
 *   - in a callback (mag_call_soon) it is refused: -ENXIO.
 *
 * A limit of time is a scope around it (with_timeout; scope.h): -ETIMEDOUT.
 *
 * Buffers, addresses and vectors are lent until the call returns, and it does not return before
 * the kernel has let go of them, however it ends.  Several tasks may use a descriptor at once,
 * as several threads could.
 */
#include <magpie/base.h>

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- any descriptor --------------------------------------------------------------- */

/*
 * read(2), write(2), readv(2), writev(2), at the descriptor's own position.  0 from a read is the
 * end.  Suspend; cancellation points.  (mag_file_read is better for files: it takes what is in
 * the page cache on the spot.)
 */
MAG_API int mag_read(int fd, void *buf, size_t n);
MAG_API int mag_write(int fd, const void *buf, size_t n);
MAG_API int mag_readv(int fd, const struct iovec *iov, int n_iov);
MAG_API int mag_writev(int fd, const struct iovec *iov, int n_iov);

/*
 * Writes all n bytes: 0.  Or -errno; `done' (may be NULL) is in every case how many bytes went,
 * so nothing is lost when an error or a cancellation comes half way.
 */
MAG_API int mag_write_all(int fd, const void *buf, size_t n, size_t *done);

/*
 * poll(2) of one descriptor, for who does the rest by a library of his own: returns those of
 * `events' (POLLIN, POLLOUT, ...) that hold, POLLERR and POLLHUP always among them.  -EBADF.
 * Suspends; cancellation point.
 */
MAG_API int mag_poll_fd(int fd, unsigned events);

/*
 * splice(2): moves up to n bytes from one descriptor to another, one of which must be a pipe,
 * without copying them through the program.  Offsets as there, NULL for the descriptor's own
 * position; they are advanced.  0 at the end.  SPLICE_F_NONBLOCK in `flags': -EAGAIN rather
 * than wait.  Pipes and non-blocking sockets are the fast ones.  If others read from a blocking
 * socket at the same time, a call may wait in a way that only data, the end, or (with io_uring)
 * a cancellation ends.  Suspends; cancellation point.
 */
MAG_API int mag_splice(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t n,
                       unsigned flags);

/*
 * Closes a descriptor that other tasks may be using: what they have in flight on it is
 * cancelled and waited for (each gets its result if it has one, else -EBADF), then it is closed.
 * Returns what close(2) said; the number is free in any case, but for -EBADF.  It knows nothing
 * of threads outside a task: one that is blocked on the descriptor stays so (mag_shutdown wakes
 * it), and must not use the number afterwards, as with close(2).  Suspends; not a cancellation
 * point.
 */
MAG_API int mag_close_fd(int fd);

/* ---- sockets ------------------------------------------------------------------------ */

/* socket(2), with SOCK_CLOEXEC always.  Suspends; cancellation point (a socket that was made
 * all the same is closed). */
MAG_API int mag_socket(int domain, int type, int protocol);

/*
 * accept4(2), with SOCK_CLOEXEC always; `flags' may add SOCK_NONBLOCK.  `addr' and `len' (in:
 * its bytes; out: the address's) may be NULL.  A connection that its peer has given up already
 * (-ECONNABORTED) is passed over.  Suspends; cancellation point: a connection that was accepted
 * when the task was cancelled is closed.
 */
MAG_API int mag_accept(int fd, struct sockaddr *addr, socklen_t *len, int flags);

/*
 * connect(2), and then waits until the connection is there or refused: 0 or -errno.  A socket
 * whose connect failed or was cancelled is of no use but to be closed.  -EAGAIN: the backlog of
 * a unix socket is full, and this one is non-blocking.  Suspends; cancellation point.
 */
MAG_API int mag_connect_fd(int fd, const struct sockaddr *addr, socklen_t len);

/* send(2), recv(2), sendmsg(2), recvmsg(2), sendto(2), recvfrom(2); flags MSG_*.  0 from a
 * receive is the end (or an empty datagram).  Suspend; cancellation points. */
MAG_API int mag_send(int fd, const void *buf, size_t n, int flags);
MAG_API int mag_recv(int fd, void *buf, size_t n, int flags);
MAG_API int mag_sendmsg(int fd, const struct msghdr *message, int flags);
MAG_API int mag_recvmsg(int fd, struct msghdr *message, int flags);
MAG_API int mag_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr,
                       socklen_t len);
MAG_API int mag_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr,
                         socklen_t *len);

/* Sends all n bytes on a stream: 0, or -errno; `done' as in mag_write_all. */
MAG_API int mag_send_all(int fd, const void *buf, size_t n, int flags, size_t *done);

/* shutdown(2): SHUT_RD, SHUT_WR, SHUT_RDWR.  Wakes who waits on it, threads as well.
 * Suspends; cancellation point. */
MAG_API int mag_shutdown(int fd, int how);

/*
 * Joins or leaves a multicast group (an IPv4 or IPv6 address) by the network interface of that
 * index (if_nametoindex(3); 0: the kernel chooses).  0 or -errno.  Any thread; never suspends.
 */
MAG_API int mag_multicast_join(int fd, const struct sockaddr *group, unsigned interface_index);
MAG_API int mag_multicast_leave(int fd, const struct sockaddr *group, unsigned interface_index);

#ifdef __cplusplus
}
#endif
#endif
