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
 * What the kernel at hand has no code for (FTRUNCATE below 6.9, SOCKET below 5.19; the ring
 * knows, mag_ring_can) is the same system call on a thread of the pool's file lane.  There it
 * can be cancelled only before it begins; so what may wait for ever is not among these codes
 * on any kernel that has a ring at all (5.11).
 *
 * Rejected
 *   - resuming short reads here: right for a regular file, wrong for a terminal;
 *     file.c knows which it has;
 *   - statx on the spot: io_uring makes every statx on a thread of its own, but on
 *     a network file system it may take as long as a read.
 *
 * Sources: io_uring_enter(2); close(2), "Dealing with error returns from close()".
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "op.h"

#include "ring.h"
#include "sys.h"
#include "sys_file.h"
#include "sys_net.h"
#include "wait.h"

#include <errno.h>
#include <linux/openat2.h>

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

    if (op->offset == MAG_OP_OFFSET_CURRENT && op->flags == 0)
        return (int)mag_sys_write(op->fd, op->addr, op->len);
    return (int)mag_sys_pwritev2(op->fd, &part, 1, (off_t)op->offset, (int)op->flags);
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

static int block_poll(struct mag_op *op)
{
    return mag_sys_poll_one(op->fd, op->flags, -1);
}

static int block_readv(struct mag_op *op)
{
    return (int)mag_sys_preadv2(op->fd, op->addr, (int)op->len, (off_t)op->offset, (int)op->flags);
}

static int block_writev(struct mag_op *op)
{
    off_t offset = (off_t)op->offset;

    return (int)mag_sys_pwritev2(op->fd, op->addr, (int)op->len, offset, (int)op->flags);
}

static int block_socket(struct mag_op *op)
{
    return mag_sys_socket(op->fd, (int)op->flags, (int)op->len);
}

static int block_accept(struct mag_op *op)
{
    socklen_t *len = (socklen_t *)(uintptr_t)op->offset;

    return mag_sys_accept4(op->fd, op->addr, len, (int)op->flags);
}

static int block_connect(struct mag_op *op)
{
    return mag_sys_connect(op->fd, op->addr, op->len);
}

static int block_send(struct mag_op *op)
{
    return (int)mag_sys_send(op->fd, op->addr, op->len, (int)op->flags);
}

static int block_recv(struct mag_op *op)
{
    return (int)mag_sys_recv(op->fd, op->addr, op->len, (int)op->flags);
}

static int block_sendmsg(struct mag_op *op)
{
    return (int)mag_sys_sendmsg(op->fd, op->addr, (int)op->flags);
}

static int block_recvmsg(struct mag_op *op)
{
    return (int)mag_sys_recvmsg(op->fd, op->addr, (int)op->flags);
}

static int block_shutdown(struct mag_op *op)
{
    return mag_sys_shutdown(op->fd, (int)op->flags);
}

static off_t *offset_or_null(uint64_t *offset)
{
    return *offset == MAG_OP_OFFSET_CURRENT ? NULL : (off_t *)offset;
}

static int block_splice(struct mag_op *op)
{
    struct mag_op_splice to = *(const struct mag_op_splice *)op->addr;
    uint64_t offset = op->offset;

    return (int)mag_sys_splice(op->fd, offset_or_null(&offset), to.fd, offset_or_null(&to.offset),
                               op->len, op->flags);
}

static int block_ftruncate(struct mag_op *op)
{
    return mag_sys_ftruncate(op->fd, (off_t)op->offset);
}

static int block_fallocate(struct mag_op *op)
{
    return mag_sys_fallocate(op->fd, (int)op->flags, (off_t)op->offset, (off_t)op->addr);
}

static int block_fadvise(struct mag_op *op)
{
    return mag_sys_fadvise(op->fd, (off_t)op->offset, (off_t)op->len, (int)op->flags);
}

static const char *second_path(const struct mag_op *op)
{
    return (const char *)(uintptr_t)op->offset;
}

static int block_renameat(struct mag_op *op)
{
    return mag_sys_renameat2(op->fd, op->addr, (int)op->len, second_path(op), op->flags);
}

static int block_linkat(struct mag_op *op)
{
    return mag_sys_linkat(op->fd, op->addr, (int)op->len, second_path(op), (int)op->flags);
}

static int block_symlinkat(struct mag_op *op)
{
    return mag_sys_symlinkat(op->addr, op->fd, second_path(op));
}

static int block_unlinkat(struct mag_op *op)
{
    return mag_sys_unlinkat(op->fd, op->addr, (int)op->flags);
}

static int block_mkdirat(struct mag_op *op)
{
    return mag_sys_mkdirat(op->fd, op->addr, (mode_t)op->len);
}

static int block_openat2(struct mag_op *op)
{
    return mag_sys_openat2(op->fd, op->addr, (const void *)(uintptr_t)op->offset, op->len);
}

/* ---- the rules ------------------------------------------------------------------ */

/* clang-format off */
static const struct row rows[MAG_OP_CODES] = {
    /*                    name         short   -EINTR  cancelled  outside a task, or without a ring */
    [MAG_OP_READ]      = { "read",      RETURN, RETRY,  STOP,   block_read },
    [MAG_OP_WRITE]     = { "write",     RESUME, RETRY,  STOP,   block_write },
    [MAG_OP_OPENAT]    = { "openat",    RETURN, RETRY,  UNDO,   block_openat },
    [MAG_OP_CLOSE]     = { "close",     RETURN, REPORT, SHIELD, block_close },
    [MAG_OP_FSYNC]     = { "fsync",     RETURN, RETRY,  STOP,   block_fsync },
    [MAG_OP_STATX]     = { "statx",     RETURN, RETRY,  STOP,   block_statx },
    [MAG_OP_POLL]      = { "poll",      RETURN, RETRY,  STOP,   block_poll },
    [MAG_OP_READV]     = { "readv",     RETURN, RETRY,  STOP,   block_readv },
    [MAG_OP_WRITEV]    = { "writev",    RETURN, RETRY,  STOP,   block_writev },
    [MAG_OP_SOCKET]    = { "socket",    RETURN, RETRY,  UNDO,   block_socket },
    [MAG_OP_ACCEPT]    = { "accept",    RETURN, RETRY,  UNDO,   block_accept },
    [MAG_OP_CONNECT]   = { "connect",   RETURN, REPORT, STOP,   block_connect },
    [MAG_OP_SEND]      = { "send",      RETURN, RETRY,  STOP,   block_send },
    [MAG_OP_RECV]      = { "recv",      RETURN, RETRY,  STOP,   block_recv },
    [MAG_OP_SENDMSG]   = { "sendmsg",   RETURN, RETRY,  STOP,   block_sendmsg },
    [MAG_OP_RECVMSG]   = { "recvmsg",   RETURN, RETRY,  STOP,   block_recvmsg },
    [MAG_OP_SHUTDOWN]  = { "shutdown",  RETURN, RETRY,  STOP,   block_shutdown },
    [MAG_OP_SPLICE]    = { "splice",    RETURN, RETRY,  STOP,   block_splice },
    [MAG_OP_FTRUNCATE] = { "ftruncate", RETURN, RETRY,  STOP,   block_ftruncate },
    [MAG_OP_FALLOCATE] = { "fallocate", RETURN, RETRY,  STOP,   block_fallocate },
    [MAG_OP_FADVISE]   = { "fadvise",   RETURN, RETRY,  STOP,   block_fadvise },
    [MAG_OP_RENAMEAT]  = { "renameat",  RETURN, RETRY,  STOP,   block_renameat },
    [MAG_OP_LINKAT]    = { "linkat",    RETURN, RETRY,  STOP,   block_linkat },
    [MAG_OP_SYMLINKAT] = { "symlinkat", RETURN, RETRY,  STOP,   block_symlinkat },
    [MAG_OP_UNLINKAT]  = { "unlinkat",  RETURN, RETRY,  STOP,   block_unlinkat },
    [MAG_OP_MKDIRAT]   = { "mkdirat",   RETURN, RETRY,  STOP,   block_mkdirat },
    [MAG_OP_OPENAT2]   = { "openat2",   RETURN, RETRY,  UNDO,   block_openat2 },
};
/* clang-format on */

const char *mag_op_name(unsigned code)
{
    return code < MAG_OP_CODES ? rows[code].name : NULL;
}

/* On a thread of the pool: what the ring cannot do. */
static int job(void *op)
{
    return rows[((struct mag_op *)op)->code].block(op);
}

static int attempt(struct mag_op *op, const struct row *row)
{
    if (!mag_wait_in_task())
        return row->block(op);
    if (MAG_UNLIKELY(!mag_ring_can(mag_worker_self()->ring, op->code)))
        return mag_wait_job(MAG_LANE_FILES, job, op);
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

int mag_op_call(struct mag_op *op)
{
    return perform(op);
}

int mag_op_once(struct mag_op *op)
{
    int rc = attempt(op, &rows[op->code]);

    return is_interrupted(rc) ? -EINTR : rc;
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

int mag_op_open2(int dirfd, const char *path, const struct open_how *how)
{
    struct mag_op op = { .code = MAG_OP_OPENAT2,
                         .fd = dirfd,
                         .addr = (void *)(uintptr_t)path,
                         .offset = mag_op_pointer(how),
                         .len = sizeof *how };

    return perform(&op);
}

int mag_op_read(int fd, void *buf, size_t n, int64_t offset)
{
    struct mag_op op = { .code = MAG_OP_READ, .fd = fd, .addr = buf, .offset = (uint64_t)offset };

    return transfer(&op, n);
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
