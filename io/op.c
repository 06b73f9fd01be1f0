/* SPDX-License-Identifier: MIT */
/*
 * op.c - one kernel operation, as a call that returns when it has ended
 *
 * A caller of read(2) has to know four things by heart: what to do when a signal
 * interrupts it, when it moves fewer bytes than asked, when it is cancelled half
 * way, and what to call where there is no ring.  Here they are data, one row for an
 * operation, and one loop that obeys the row:
 *
 *      mag_op_write(fd, buf, n)
 *        -> transfer: what is left ----------> perform -> in a task:  the ring
 *               ^                                 ^  |    outside it: .block
 *               +-- short, the row says RESUME    +--+-- -EINTR, the row says so
 *
 * The struct mag_op is on the caller's stack, and lent to the kernel until its own
 * completion: mag_wait_op does not return before that, however the wait ends.
 *
 * Invariants
 *   1. Bytes that were moved are reported: an error or a cancellation that comes
 *      after some is left for the next call to meet.
 *   2. A descriptor that the kernel opened is either answered or closed.
 *   3. A close is made once.  Linux has freed the number even when close(2) says
 *      EINTR; a second one could hit somebody else's file.
 *
 * The retry on EINTR ends, because a cancelled task's next attempt is -ECANCELED
 * without the kernel being asked.  It is needed: a cancelled operation on one of
 * the kernel's own threads may well answer -EINTR.
 *
 * Rejected
 *   - resuming short reads here: right for a regular file, wrong for a terminal;
 *     file.c knows which it has;
 *   - openat2(2) with RESOLVE_CACHED on the spot, like the cached reads: io_uring
 *     does that itself, in the batch that is submitted anyway;
 *   - statx on the spot: io_uring makes every statx on a thread of its own, but on
 *     a network file system it may take as long as a read.
 *
 * Sources: io_uring_enter(2); preadv2(2), RWF_NOWAIT; close(2), "Dealing with error
 * returns from close()".
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "op.h"

#include "ring.h"
#include "sys.h"
#include "sys_file.h"
#include "wait.h"

#include <errno.h>

enum {
    RESTART_FIRST = 512, /* ERESTARTSYS */
    RESTART_LAST = 516,  /* ERESTART_RESTARTBLOCK, in linux/errno.h of the kernel */
};

enum on_short { RETURN, RESUME };      /* a transfer that moved less than asked */
enum on_eintr { REPORT, RETRY };       /* -EINTR */
enum on_cancel { STOP, UNDO, SHIELD }; /* UNDO: what it acquired is given back */

struct row {
    const char *name;
    enum on_short on_short;
    enum on_eintr on_eintr;
    enum on_cancel on_cancel;
    int (*block)(struct mag_op *op); /* the system call, for outside a task */
};

/* ---- outside a task ------------------------------------------------------------- */

static int block_read(struct mag_op *op)
{
    if (op->offset == MAG_OP_OFFSET_CURRENT)
        return (int)mag_sys_read(op->fd, op->addr, op->len);
    return (int)mag_sys_pread(op->fd, op->addr, op->len, (off_t)op->offset);
}

static int block_write(struct mag_op *op)
{
    struct iovec part = { .iov_base = op->addr, .iov_len = op->len };

    if (op->offset == MAG_OP_OFFSET_CURRENT)
        return (int)mag_sys_write(op->fd, op->addr, op->len);
    return (int)mag_sys_pwritev2(op->fd, &part, 1, (off_t)op->offset, 0);
}

static int block_openat(struct mag_op *op)
{
    return mag_sys_openat(op->fd, op->addr, (int)op->flags, (mode_t)op->len);
}

static int block_close(struct mag_op *op)
{
    return mag_sys_close(op->fd);
}

static int block_fsync(struct mag_op *op)
{
    return mag_sys_fsync(op->fd, op->flags == MAG_OP_DATASYNC);
}

static int block_statx(struct mag_op *op)
{
    struct statx *out = (struct statx *)(uintptr_t)op->offset;

    return mag_sys_statx(op->fd, op->addr, (int)op->flags, op->len, out);
}

/* ---- the rules ------------------------------------------------------------------ */

/* clang-format off */
static const struct row rows[MAG_OP_CODES] = {
    /*                 name      short   -EINTR  cancelled  outside a task */
    [MAG_OP_READ]   = { "read",   RETURN, RETRY,  STOP,   block_read },
    [MAG_OP_WRITE]  = { "write",  RESUME, RETRY,  STOP,   block_write },
    [MAG_OP_OPENAT] = { "openat", RETURN, RETRY,  UNDO,   block_openat },
    [MAG_OP_CLOSE]  = { "close",  RETURN, REPORT, SHIELD, block_close },
    [MAG_OP_FSYNC]  = { "fsync",  RETURN, RETRY,  STOP,   block_fsync },
    [MAG_OP_STATX]  = { "statx",  RETURN, RETRY,  STOP,   block_statx },
};
/* clang-format on */

const char *mag_op_name(unsigned code)
{
    return code < MAG_OP_CODES ? rows[code].name : NULL;
}

static int attempt(struct mag_op *op, const struct row *row)
{
    if (!mag_wait_in_task())
        return row->block(op);
    if (row->on_cancel == SHIELD)
        return mag_wait_op_shielded(op);
    return mag_wait_op(op);
}

/*
 * io_uring hands out the kernel's own restart codes where a system call would have
 * been restarted or have said EINTR (seen: a cancelled open of a FIFO, Linux 6.18).
 */
static bool is_interrupted(int rc)
{
    return rc == -EINTR || (rc <= -RESTART_FIRST && rc >= -RESTART_LAST);
}

static bool is_cancelled(void)
{
    return mag_wait_in_task() && mag_wait_checkpoint() < 0;
}

static int perform(struct mag_op *op)
{
    const struct row *row = &rows[op->code];
    int rc;

    do
        rc = attempt(op, row);
    while (is_interrupted(rc) && row->on_eintr == RETRY);
    if (rc >= 0 && row->on_cancel == UNDO && is_cancelled()) {
        mag_op_close(rc);
        return -ECANCELED;
    }
    return rc;
}

/* Moves n bytes, as far as the row wants it; invariant 1. */
static int transfer(struct mag_op *op, size_t n)
{
    size_t left = n < MAG_OP_BYTES_MAX ? n : MAG_OP_BYTES_MAX;
    size_t done = 0;
    int rc;

    do {
        op->len = (uint32_t)left;
        rc = perform(op);
        if (rc <= 0)
            return done ? (int)done : rc;
        done += (size_t)rc;
        left -= (size_t)rc;
        op->addr = (char *)op->addr + rc;
        if (op->offset != MAG_OP_OFFSET_CURRENT)
            op->offset += (uint64_t)rc;
    } while (left && rows[op->code].on_short == RESUME);
    return (int)done;
}

/* ---- the operations ------------------------------------------------------------- */

int mag_op_open(int dirfd, const char *path, int flags, unsigned mode)
{
    struct mag_op op = { .code = MAG_OP_OPENAT,
                         .fd = dirfd,
                         .addr = (void *)(uintptr_t)path,
                         .flags = (uint32_t)flags,
                         .len = mode };

    return perform(&op);
}

int mag_op_read(int fd, void *buf, size_t n, int64_t offset)
{
    struct mag_op op = { .code = MAG_OP_READ, .fd = fd, .addr = buf, .offset = (uint64_t)offset };

    return transfer(&op, n);
}

int mag_op_read_cached(int fd, void *buf, size_t n, int64_t offset)
{
    struct iovec part = { .iov_base = buf, .iov_len = n };
    int rc = mag_wait_checkpoint();

    if (rc < 0)
        return rc;
    do
        rc = (int)mag_sys_preadv2(fd, &part, 1, offset, RWF_NOWAIT);
    while (rc == -EINTR);
    return rc;
}

int mag_op_write(int fd, const void *buf, size_t n, int64_t offset)
{
    struct mag_op op = {
        .code = MAG_OP_WRITE, .fd = fd, .addr = (void *)(uintptr_t)buf, .offset = (uint64_t)offset
    };

    return transfer(&op, n);
}

int mag_op_fsync(int fd, bool data_only)
{
    struct mag_op op = { .code = MAG_OP_FSYNC, .fd = fd, .flags = data_only ? MAG_OP_DATASYNC : 0 };

    return perform(&op);
}

int mag_op_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *out)
{
    struct mag_op op = { .code = MAG_OP_STATX,
                         .fd = dirfd,
                         .addr = (void *)(uintptr_t)path,
                         .flags = (uint32_t)flags,
                         .len = mask,
                         .offset = mag_op_pointer(out) };

    return perform(&op);
}

int mag_op_close(int fd)
{
    struct mag_op op = { .code = MAG_OP_CLOSE, .fd = fd };

    return perform(&op);
}
