/* SPDX-License-Identifier: MIT */
#ifndef MAG_OP_H
#define MAG_OP_H
/*
 * op.h - one kernel operation, as a call that returns when it has ended
 *
 * Each function answers 0, a count or a descriptor, or -errno.  In a task they go
 * through the worker's ring and suspend; outside a task they block the calling
 * thread.  All are cancellation points except mag_op_close.  What an operation does
 * when it is interrupted, comes short or is cancelled is a row of the table in op.c.
 */
#include "base.h"

struct mag_op;
struct open_how; /* linux/openat2.h */
struct statx;    /* glibc's, visible under _GNU_SOURCE */

/* Bytes that read(2) and write(2) move at most in a call; more is clamped. */
#define MAG_OP_BYTES_MAX ((size_t)0x7ffff000)
/* An offset: the descriptor's own position, which the transfer advances. */
#define MAG_OP_HERE      ((int64_t)-1)

/* openat(2).  Cancelled, but opened all the same: closed again, -ECANCELED. */
int mag_op_open(int dirfd, const char *path, int flags, unsigned mode);

/* openat2(2), with its rules for the path (RESOLVE_BENEATH, ...).  -ENOSYS: not on this kernel.
 * Undone as mag_op_open. */
int mag_op_open2(int dirfd, const char *path, const struct open_how *how);

/* One read: may come short.  0 at the end. */
int mag_op_read(int fd, void *buf, size_t n, int64_t offset);

/* Writes all n bytes; fewer if an error or a cancellation came after some. */
int mag_op_write(int fd, const void *buf, size_t n, int64_t offset);

/* fsync(2), or fdatasync(2). */
int mag_op_fsync(int fd, bool data_only);

/* statx(2). */
int mag_op_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *out);

/* close(2).  The descriptor is gone whatever it answers. */
int mag_op_close(int fd);

/*
 * Any operation of ring.h, as its row in op.c has it: repeated when it was interrupted, undone
 * when it was cancelled too late; a transfer may come short.
 */
int mag_op_call(struct mag_op *op);

/* One attempt, for who has rules of its own; what was interrupted is -EINTR. */
int mag_op_once(struct mag_op *op);

/* "read", "openat", ...: for reports.  NULL for a code without a row. */
const char *mag_op_name(unsigned code);

#endif
