/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_LISTEN_H
#define MAG_SYS_LISTEN_H
/*
 * sys_listen.h - the door for system calls: sockets that others connect to, and datagrams
 *
 * As in sys.h: the call of that name, which answers -errno.  A fault armed for MAG_SYS_OPENAT
 * fails listen and chmod, one for MAG_SYS_STATX asks not, one for MAG_SYS_READ receives not,
 * one for MAG_SYS_WRITE sends not.
 */
#include "sys_net.h"

struct mmsghdr; /* glibc's, visible under _GNU_SOURCE */

int mag_sys_listen(int fd, int backlog);
int mag_sys_chmod(const char *path, unsigned mode);
int mag_sys_lstat(const char *path, struct stat *st);
/* How many went, or came: at least one, or -errno.  Flags MSG_*, with MSG_DONTWAIT for tasks. */
int mag_sys_sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags);
int mag_sys_recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags);

#endif
