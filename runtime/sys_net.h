/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_NET_H
#define MAG_SYS_NET_H
/*
 * sys_net.h - the door for system calls: sockets, vectors, splice, poll
 *
 * As in sys.h: the call of that name, which answers -errno.  Those that may block are for
 * threads outside a task.  A fault armed for MAG_SYS_READ fails what receives (and accepts
 * and polls), one for MAG_SYS_WRITE what sends (and connects and splices), one for
 * MAG_SYS_OPENAT makes no socket.
 */
#include "sys.h"

#include <sys/socket.h>

int mag_sys_socket(int domain, int type, int protocol);
int mag_sys_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int mag_sys_connect(int fd, const struct sockaddr *addr, socklen_t len);
ssize_t mag_sys_send(int fd, const void *buf, size_t n, int flags);
ssize_t mag_sys_recv(int fd, void *buf, size_t n, int flags);
ssize_t mag_sys_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t mag_sys_recvmsg(int fd, struct msghdr *m, int flags);
int mag_sys_shutdown(int fd, int how);
int mag_sys_bind(int fd, const struct sockaddr *addr, socklen_t len);
int mag_sys_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int mag_sys_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
int mag_sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int mag_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
/* NULL offsets: at the descriptors' own positions. */
ssize_t mag_sys_splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t n,
                       unsigned flags);
/* poll(2) of one descriptor: the events that hold; 0 after timeout_ms (-1: no limit). */
int mag_sys_poll_one(int fd, unsigned events, int timeout_ms);

/*
 * Around a call that may raise SIGPIPE in this thread: afterwards it has not, and the mask is
 * as it was.  The one that wants none from now on calls _block, once or often.
 */
struct mag_sigpipe {
    sigset_t before;
    bool was_pending;
};

void mag_sys_sigpipe_hold(struct mag_sigpipe *h);
void mag_sys_sigpipe_release(const struct mag_sigpipe *h, bool is_raised);
void mag_sys_sigpipe_block(void);

#endif
