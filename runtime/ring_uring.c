/* SPDX-License-Identifier: MIT */
/*
 * ring_uring.c - the ring on io_uring
 *
 * One io_uring per worker.  submit fills a slot of the submission queue (SQ), which
 * is memory shared with the kernel; flush enters the kernel once for all of them;
 * reap reads the completion queue (CQ), also shared memory, with no system call at
 * all as long as the kernel has not asked for one by a flag.
 *
 *     submit -> [SQ slot free?] -yes-> SQ --flush--> kernel --> CQ --reap--> complete
 *                      `-no-> backlog (fifo) -flush-^
 *
 * Invariants
 *   1. n_in_flight == operations in backlog, SQ, kernel and CQ.  The wake read and
 *      cancel requests, which are nobody's operations, do not count.  An operation whose
 *      cancel has gone to the kernel is in flight until that is answered, too.
 *   2. n_queued == SQEs not handed over + backlog + cancels.
 *   3. user_data of an operation is its address | generation << 48; addresses are
 *      48 bits, and aligned, so no operation looks like one of the tags below.  A cancel's
 *      is that of its operation | TAG_CANCEL.
 *   4. An op is in `backlog' or `cancels' only in the state that says so.
 *   5. wakes_owed == wakes whose sleeper has noticed them but has not yet read their
 *      8 bytes out of the eventfd.  At close it must be 0: then no waker is left
 *      that could write to a descriptor number which somebody else owns by now.
 *
 * Generation.  A record on a task's stack is reused, at the same address, as soon as
 * its operation completed, and a cancel request meant for the old use must not hit
 * the new one (libxev#233).  Cancels are handed over in order, before operations that
 * were submitted later, so the kernel sees none too late; the generation makes that
 * true without the order, and finds a completion that comes for a record long gone.
 *
 * Cancels that miss.  The kernel finds an operation that waits in a poll or on a thread of its
 * own; one that it is about to try once more is in neither place for the moment, and the
 * answer is -ENOENT (seen on 6.18: a connect to a Unix socket with a full backlog; a receive
 * whose data another reader took).  If that try has to wait again, nobody ends it.  So each
 * cancel's answer is looked at, and a cancel that missed is made anew as long as its
 * operation has not completed; and that the record is still there to look at, the operation
 * does not complete before the answer.
 *
 * Wake.  A word says AWAKE, ASLEEP or WOKEN.  A waker exchanges it for WOKEN and
 * writes to the eventfd only if it found ASLEEP, so waking a worker that runs costs
 * one atomic exchange.  The sleeper has a READ of the eventfd in flight, which ends
 * its wait like any completion.  The exchange is sequentially consistent: what the
 * waker wrote before is seen by the owner after the sleep that consumed the wake.
 *
 * Overload.  The kernel may be short of memory (EAGAIN), or want completions reaped
 * first (EBUSY), or be interrupted (EINTR): flush leaves the rest queued and says 0.
 * With nothing in flight no completion would ever end a sleep (liburing#281); so
 * whoever sleeps with something queued sleeps BACK_OFF_NS at most.
 *
 * Who may call: the owner, but for wake.  Kernel 5.11 is the oldest that will do:
 * it never drops completions (NODROP) and takes a timeout with the wait (EXT_ARG).
 *
 * Rejected
 *   - SQPOLL: a kernel thread per ring that burns a processor, and keeps the old
 *     credentials after setuid (CVE-2024-22017).
 *   - MSG_RING for wakes: as fast as the eventfd or slower where it was measured,
 *     fails to wake on 6.1 arm64 (liburing#839), and no help to foreign threads.
 *   - Leaving an operation behind at close: the kernel would write into freed
 *     memory (liburing#733, cloud-hypervisor#8408).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include "check.h"
#include "clock.h"
#include "mem.h"
#include "sys.h"

#include <errno.h>
#include <liburing.h>
#include <sys/eventfd.h>

enum {
    CQ_PER_SQ = 4,
    ENTRIES_MAX = 32768, /* the kernel's own limit */
    BACK_OFF_NS = 1000 * 1000,
    PREFETCH = 4, /* completions ahead */
    /* Attempts to bring in a waker's write at close, 1 ms apart, before the ring's
     * memory is left to it: a wake takes microseconds. */
    CLOSE_ATTEMPTS_MAX = 1000,
    /*
     * Threads that the kernel may start for one ring, for file operations that
     * would block (4 per worker makes 4 per processor, its own default for a single
     * ring), and for others, which may wait for ever, as opening the other end of a
     * pipe does; its default for those is RLIMIT_NPROC.
     */
    IOWQ_BOUNDED_MAX = 4,
    IOWQ_UNBOUNDED_MAX = 64,
};

enum { OP_FTRUNCATE = 55 }; /* IORING_OP_FTRUNCATE, which liburing 2.3 does not know */

/* user_data of what is no operation. */
enum {
    TAG_WAKE = 1,
    TAG_CANCEL = 2,
    GENERATION_SHIFT = 48,
};

/* op->state */
enum {
    STATE_NONE,          /* not ours */
    STATE_BACKLOG,       /* in the backlog */
    STATE_STILLBORN,     /* cancelled while in the backlog: runs as a NOP */
    STATE_SUBMITTED,     /* in the SQ or beyond */
    STATE_CANCEL_WANTED, /* submitted, and in `cancels' until there is an SQE for it */
    STATE_CANCEL_SENT,   /* submitted, and so is its cancel */
    STATE_CANCEL_MET,    /* submitted, and the kernel has answered the cancel */
    STATE_CANCEL_LATE,   /* has its result; the cancel is not answered */
};

/* The wake word. */
enum {
    AWAKE,
    ASLEEP,
    WOKEN,
};

struct uring {
    struct mag_ring base;
    struct io_uring kernel;  /* [owner] liburing's view of the shared queues */
    struct mag_fifo backlog; /* [owner] ops for which the SQ had no room */
    struct mag_fifo cancels; /* [owner] ops to be cancelled for which it had none */
    uint16_t generation;     /* [owner] of the last operation submitted */
    bool wake_armed;         /* [owner] the READ of wake_fd is in flight */
    int64_t wakes_owed;      /* [owner] see invariant 5 */
    uint64_t wake_value;     /* [kernel] while wake_armed */
    int wake_fd;             /* [const] */

    MAG_CACHELINE mag_atomic(uint32_t) wake; /* [any] AWAKE, ASLEEP or WOKEN */
};

static struct uring *uring_of(struct mag_ring *r)
{
    return mag_container_of(r, struct uring, base);
}

/* ---- operations as the kernel wants them ------------------------------------ */

static void prep_nop(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    (void)op;
    io_uring_prep_nop(sqe);
}

static void prep_read(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_read(sqe, op->fd, op->addr, op->len, op->offset);
}

static void prep_write(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_write(sqe, op->fd, op->addr, op->len, op->offset);
    sqe->rw_flags = (int)op->flags;
}

static void prep_openat(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_openat(sqe, op->fd, op->addr, (int)op->flags, op->len);
}

static void prep_close(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_close(sqe, op->fd);
}

static void prep_fsync(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    bool is_data = op->flags & MAG_OP_DATASYNC;
    io_uring_prep_fsync(sqe, op->fd, is_data ? IORING_FSYNC_DATASYNC : 0);
}

static void prep_statx(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    struct statx *out = (struct statx *)(uintptr_t)op->offset;
    io_uring_prep_statx(sqe, op->fd, op->addr, (int)op->flags, op->len, out);
}

static void prep_poll(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_poll_add(sqe, op->fd, op->flags);
}

static void prep_readv(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_readv2(sqe, op->fd, op->addr, op->len, op->offset, (int)op->flags);
}

static void prep_writev(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_writev2(sqe, op->fd, op->addr, op->len, op->offset, (int)op->flags);
}

/* ---- sockets */

static void prep_socket(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_socket(sqe, op->fd, (int)op->flags, (int)op->len, 0);
}

static void prep_accept(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    socklen_t *length = (socklen_t *)(uintptr_t)op->offset;
    io_uring_prep_accept(sqe, op->fd, op->addr, length, (int)op->flags);
}

static void prep_connect(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_connect(sqe, op->fd, op->addr, op->len);
}

static void prep_send(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_send(sqe, op->fd, op->addr, op->len, (int)op->flags);
}

static void prep_recv(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_recv(sqe, op->fd, op->addr, op->len, (int)op->flags);
}

static void prep_sendmsg(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_sendmsg(sqe, op->fd, op->addr, op->flags);
}

static void prep_recvmsg(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_recvmsg(sqe, op->fd, op->addr, op->flags);
}

static void prep_shutdown(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_shutdown(sqe, op->fd, (int)op->flags);
}

static void prep_splice(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    const struct mag_op_splice *to = op->addr;
    io_uring_prep_splice(sqe, op->fd, (int64_t)op->offset, to->fd, (int64_t)to->offset, op->len,
                         op->flags);
}

/* ---- files and names */

/* liburing 2.3 has neither a function nor the number (Linux 6.9). */
static void prep_ftruncate(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_rw(OP_FTRUNCATE, sqe, op->fd, NULL, 0, op->offset);
}

static void prep_fallocate(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_fallocate(sqe, op->fd, (int)op->flags, (off_t)op->offset, (off_t)op->addr);
}

static void prep_fadvise(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_fadvise(sqe, op->fd, op->offset, op->len, (int)op->flags);
}

static void prep_renameat(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    const char *to = (const char *)(uintptr_t)op->offset;
    io_uring_prep_renameat(sqe, op->fd, op->addr, (int)op->len, to, op->flags);
}

static void prep_linkat(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    const char *to = (const char *)(uintptr_t)op->offset;
    io_uring_prep_linkat(sqe, op->fd, op->addr, (int)op->len, to, (int)op->flags);
}

static void prep_symlinkat(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_symlinkat(sqe, op->addr, op->fd, (const char *)(uintptr_t)op->offset);
}

static void prep_unlinkat(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_unlinkat(sqe, op->fd, op->addr, (int)op->flags);
}

static void prep_mkdirat(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_mkdirat(sqe, op->fd, op->addr, op->len);
}

static void prep_openat2(struct io_uring_sqe *sqe, const struct mag_op *op)
{
    io_uring_prep_rw(IORING_OP_OPENAT2, sqe, op->fd, op->addr, op->len, op->offset);
}

typedef void prep_fn(struct io_uring_sqe *sqe, const struct mag_op *op);

/* How each is asked for, and what the kernel must know for it. */
static const struct {
    prep_fn *prep;
    uint8_t kernel_code;
} preps[] = {
    [MAG_OP_NOP] = { prep_nop, IORING_OP_NOP },
    [MAG_OP_READ] = { prep_read, IORING_OP_READ },
    [MAG_OP_WRITE] = { prep_write, IORING_OP_WRITE },
    [MAG_OP_OPENAT] = { prep_openat, IORING_OP_OPENAT },
    [MAG_OP_CLOSE] = { prep_close, IORING_OP_CLOSE },
    [MAG_OP_FSYNC] = { prep_fsync, IORING_OP_FSYNC },
    [MAG_OP_STATX] = { prep_statx, IORING_OP_STATX },
    [MAG_OP_POLL] = { prep_poll, IORING_OP_POLL_ADD },
    [MAG_OP_READV] = { prep_readv, IORING_OP_READV },
    [MAG_OP_WRITEV] = { prep_writev, IORING_OP_WRITEV },
    [MAG_OP_SOCKET] = { prep_socket, IORING_OP_SOCKET },
    [MAG_OP_ACCEPT] = { prep_accept, IORING_OP_ACCEPT },
    [MAG_OP_CONNECT] = { prep_connect, IORING_OP_CONNECT },
    [MAG_OP_SEND] = { prep_send, IORING_OP_SEND },
    [MAG_OP_RECV] = { prep_recv, IORING_OP_RECV },
    [MAG_OP_SENDMSG] = { prep_sendmsg, IORING_OP_SENDMSG },
    [MAG_OP_RECVMSG] = { prep_recvmsg, IORING_OP_RECVMSG },
    [MAG_OP_SHUTDOWN] = { prep_shutdown, IORING_OP_SHUTDOWN },
    [MAG_OP_SPLICE] = { prep_splice, IORING_OP_SPLICE },
    [MAG_OP_FTRUNCATE] = { prep_ftruncate, OP_FTRUNCATE },
    [MAG_OP_FALLOCATE] = { prep_fallocate, IORING_OP_FALLOCATE },
    [MAG_OP_FADVISE] = { prep_fadvise, IORING_OP_FADVISE },
    [MAG_OP_RENAMEAT] = { prep_renameat, IORING_OP_RENAMEAT },
    [MAG_OP_LINKAT] = { prep_linkat, IORING_OP_LINKAT },
    [MAG_OP_SYMLINKAT] = { prep_symlinkat, IORING_OP_SYMLINKAT },
    [MAG_OP_UNLINKAT] = { prep_unlinkat, IORING_OP_UNLINKAT },
    [MAG_OP_MKDIRAT] = { prep_mkdirat, IORING_OP_MKDIRAT },
    [MAG_OP_OPENAT2] = { prep_openat2, IORING_OP_OPENAT2 },
};
MAG_STATIC_ASSERT(MAG_ARRAY_SIZE(preps) == MAG_OP_CODES);
MAG_STATIC_ASSERT(MAG_OP_CODES <= 64);           /* bits of lacks */
MAG_STATIC_ASSERT(_Alignof(struct mag_op) >= 8); /* invariant 3 */

static uint64_t user_data_of(const struct mag_op *op)
{
    return mag_op_pointer(op) | (uint64_t)op->generation << GENERATION_SHIFT;
}

static struct mag_op *op_of(uint64_t user_data)
{
    uint64_t address = user_data & ((UINT64_C(1) << GENERATION_SHIFT) - 1);
    struct mag_op *op = (struct mag_op *)(uintptr_t)address;
    MAG_CHECK(op->generation == user_data >> GENERATION_SHIFT);
    return op;
}

static void fill_op(struct io_uring_sqe *sqe, struct mag_op *op)
{
    if (op->state == STATE_STILLBORN) {
        io_uring_prep_nop(sqe);
    } else {
        preps[op->code].prep(sqe, op);
        op->state = STATE_SUBMITTED;
    }
    sqe->user_data = user_data_of(op);
}

static void fill_cancel(struct io_uring_sqe *sqe, struct mag_op *op)
{
    io_uring_prep_cancel64(sqe, user_data_of(op), 0);
    sqe->user_data = user_data_of(op) | TAG_CANCEL;
    op->state = STATE_CANCEL_SENT;
}

/* ---- handing over ----------------------------------------------------------- */

static bool is_transient(int rc)
{
    return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM;
}

static void count_queued(struct uring *u)
{
    u->base.n_queued =
        (uint32_t)(io_uring_sq_ready(&u->kernel) + u->backlog.count + u->cancels.count);
}

/* Room for what one enter may complete at once; otherwise reaping comes first. */
static bool cq_has_room(struct uring *u)
{
    return io_uring_cq_ready(&u->kernel) + u->kernel.sq.ring_entries <= u->kernel.cq.ring_entries;
}

/* Enters the kernel with what is in the SQ: how much it took, or -errno. */
static int enter(struct uring *u)
{
    if (!cq_has_room(u))
        return -EBUSY;
    int rc = mag_sys_fault(MAG_SYS_URING_ENTER);
    return rc ? rc : io_uring_submit_and_get_events(&u->kernel);
}

static struct mag_op *pop(struct mag_fifo *f)
{
    return mag_container_of(mag_fifo_pop_front(f), struct mag_op, link);
}

/* Moves what waits in user space to the SQ, cancels first; true if all of it fit. */
static bool fill(struct uring *u)
{
    struct io_uring_sqe *sqe;
    while (!mag_fifo_empty(&u->cancels) && (sqe = io_uring_get_sqe(&u->kernel)))
        fill_cancel(sqe, pop(&u->cancels));
    while (!mag_fifo_empty(&u->backlog) && (sqe = io_uring_get_sqe(&u->kernel)))
        fill_op(sqe, pop(&u->backlog));
    return mag_fifo_empty(&u->cancels) && mag_fifo_empty(&u->backlog);
}

/* An SQE, if need be by entering the kernel; NULL if it takes nothing now. */
static struct io_uring_sqe *get_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->kernel);
    if (!sqe && enter(u) > 0)
        sqe = io_uring_get_sqe(&u->kernel);
    return sqe;
}

static void uring_submit(struct mag_ring *r, struct mag_op *op)
{
    struct uring *u = uring_of(r);
    MAG_CHECK(op->state == STATE_NONE && op->code < MAG_OP_CODES);
    MAG_CHECK(mag_op_pointer(op) >> GENERATION_SHIFT == 0);
    op->generation = ++u->generation;
    mag_ring_lend(op);
    r->n_in_flight++;

    struct io_uring_sqe *sqe = mag_fifo_empty(&u->backlog) ? get_sqe(u) : NULL;
    if (sqe) {
        fill_op(sqe, op);
    } else {
        op->state = STATE_BACKLOG;
        mag_fifo_push_back(&u->backlog, &op->link);
    }
    count_queued(u);
}

static void uring_cancel(struct mag_ring *r, struct mag_op *op)
{
    struct uring *u = uring_of(r);
    MAG_CHECK(op->state != STATE_NONE);
    if (op->state == STATE_BACKLOG)
        op->state = STATE_STILLBORN;
    if (op->state != STATE_SUBMITTED)
        return;

    struct io_uring_sqe *sqe = mag_fifo_empty(&u->cancels) ? get_sqe(u) : NULL;
    if (sqe) {
        fill_cancel(sqe, op);
    } else {
        op->state = STATE_CANCEL_WANTED;
        mag_fifo_push_back(&u->cancels, &op->link);
    }
    count_queued(u);
}

/* Each round hands over at least one SQE, so it ends. */
static int uring_flush(struct mag_ring *r)
{
    struct uring *u = uring_of(r);
    int rc = 0;
    do {
        fill(u);
        rc = io_uring_sq_ready(&u->kernel) ? enter(u) : 0;
    } while (rc > 0);
    count_queued(u);
    return is_transient(rc) ? 0 : rc;
}

/* ---- taking back ------------------------------------------------------------- */

static void forget_cancel(struct uring *u, struct mag_op *op)
{
    struct mag_fifo others;
    mag_fifo_init(&others);
    while (!mag_fifo_empty(&u->cancels)) {
        struct mag_op *it = pop(&u->cancels);
        if (it != op)
            mag_fifo_push_back(&others, &it->link);
    }
    u->cancels = others;
    count_queued(u);
}

static void finish(struct uring *u, struct mag_op *op)
{
    op->state = STATE_NONE;
    mag_ring_give_back(op, op->result);
    MAG_CHECK(u->base.n_in_flight > 0);
    u->base.n_in_flight--;
    op->complete(op);
}

/* 1 if it is finished. */
static unsigned answer_op(struct uring *u, struct mag_op *op, int32_t result, uint32_t flags)
{
    op->result = op->state == STATE_STILLBORN ? -ECANCELED : result;
    op->result_flags = flags;
    if (op->state == STATE_CANCEL_WANTED)
        forget_cancel(u, op);
    if (op->state == STATE_CANCEL_SENT) {
        op->state = STATE_CANCEL_LATE;
        return 0;
    }
    finish(u, op);
    return 1;
}

/* The same for a cancel of it. */
static unsigned answer_cancel(struct uring *u, struct mag_op *op, int32_t result)
{
    if (op->state == STATE_CANCEL_LATE) {
        finish(u, op);
        return 1;
    }
    if (result == -ENOENT) {
        op->state = STATE_CANCEL_WANTED;
        mag_fifo_push_back(&u->cancels, &op->link);
        count_queued(u);
    } else {
        op->state = STATE_CANCEL_MET;
    }
    return 0;
}

/* Any failure means only that the next sleep reads again. */
static void finish_wake(struct uring *u, int32_t result)
{
    u->wake_armed = false;
    if (result == (int32_t)sizeof u->wake_value)
        u->wakes_owed -= (int64_t)u->wake_value;
}

/* 1 if an operation is finished. */
static unsigned dispatch(struct uring *u, uint64_t user_data, int32_t result, uint32_t flags)
{
    if (user_data == TAG_WAKE) {
        finish_wake(u, result);
        return 0;
    }
    if (user_data & TAG_CANCEL)
        return answer_cancel(u, op_of(user_data - TAG_CANCEL), result);
    return answer_op(u, op_of(user_data), result, flags);
}

/* Lets the kernel post what it holds back, deferred or overflown. */
static void collect(struct uring *u)
{
    /* relaxed: a missed flag is seen the next time, and a sleep enters anyway */
    if ((mag_load_relaxed(u->base.attention) & u->base.attention_mask) == 0)
        return;
    if (mag_sys_fault(MAG_SYS_URING_ENTER) == 0)
        (void)io_uring_get_events(&u->kernel); /* transient, or the next flush says it */
}

/* Records lie on the stacks of tasks that have slept: a miss of the cache and of the TLB each,
 * which is made while the one before is completed. */
static void prefetch(const struct io_uring_cq *cq, uint32_t i)
{
    uint64_t address = cq->cqes[i & cq->ring_mask].user_data << 16 >> 16;
    __builtin_prefetch((void *)(uintptr_t)address);
}

/*
 * Bounded by what was posted when it began: complete may submit, and a full SQ
 * enter, so the queue could otherwise fill as fast as it is emptied.
 */
static unsigned uring_reap_posted(struct mag_ring *r)
{
    struct uring *u = uring_of(r);
    struct io_uring_cq *cq = &u->kernel.cq;
    unsigned n = 0;
    uint32_t end = mag_load_acquire(cq->ktail); /* pairs with the kernel's release */
    while (r->reaped != end) {
        struct io_uring_cqe cqe = cq->cqes[r->reaped & cq->ring_mask];
        r->reaped++;
        if (end - r->reaped > PREFETCH)
            prefetch(cq, r->reaped + PREFETCH);
        mag_store_release(cq->khead, r->reaped); /* the kernel may overwrite it now */
        n += dispatch(u, cqe.user_data, cqe.res, cqe.flags);
    }
    return n;
}

static unsigned uring_reap(struct mag_ring *r)
{
    collect(uring_of(r));
    return uring_reap_posted(r);
}

static void uring_kick(struct mag_ring *r)
{
    (void)uring_flush(r);
    collect(uring_of(r));
}

/* ---- sleeping and waking ----------------------------------------------------- */

static void arm_wake(struct uring *u)
{
    struct io_uring_sqe *sqe = u->wake_armed ? NULL : get_sqe(u);
    if (!sqe)
        return;
    io_uring_prep_read(sqe, u->wake_fd, &u->wake_value, sizeof u->wake_value, 0);
    sqe->user_data = TAG_WAKE;
    u->wake_armed = true;
}

/*
 * One enter that hands over the SQ and waits for a completion or the time.  A time in
 * the past is not handed on: the kernel would set a timer and switch away (17 us).
 */
static int enter_and_wait(struct uring *u, mag_time deadline)
{
    struct io_uring_cqe *cqe;
    int rc = mag_sys_fault(MAG_SYS_URING_ENTER);
    if (rc)
        return rc;
    if (deadline == MAG_NEVER)
        return io_uring_submit_and_wait_timeout(&u->kernel, &cqe, 1, NULL, NULL);

    mag_time now = mag_clock_now();
    if (deadline <= now)
        return io_uring_submit_and_get_events(&u->kernel);
    mag_time left = deadline - now;
    struct __kernel_timespec ts = { .tv_sec = left / MAG_SECOND, .tv_nsec = left % MAG_SECOND };
    return io_uring_submit_and_wait_timeout(&u->kernel, &cqe, 1, &ts, NULL);
}

/* Waits without handing over, since the kernel would not take it. */
static void back_off(struct uring *u)
{
    struct __kernel_timespec ts = { .tv_sec = 0, .tv_nsec = BACK_OFF_NS };
    struct io_uring_cqe *cqe;
    (void)io_uring_wait_cqes(&u->kernel, &cqe, 1, &ts, NULL);
}

/*
 * What did not fit into the SQ goes first, by itself; the rest, and the read that
 * lets a waker end the wait, go with the same enter that waits.
 */
static int sleep_until(struct uring *u, mag_time deadline)
{
    int rc = fill(u) ? 0 : uring_flush(&u->base);
    if (rc)
        return rc;
    arm_wake(u);
    if (!fill(u) || !u->wake_armed) {
        mag_time soon = mag_clock_now() + BACK_OFF_NS;
        deadline = soon < deadline ? soon : deadline;
    }
    rc = enter_and_wait(u, deadline);
    if (rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM)
        back_off(u);
    return rc >= 0 || rc == -ETIME || is_transient(rc) ? 0 : rc;
}

static int uring_sleep(struct mag_ring *r, mag_time deadline)
{
    struct uring *u = uring_of(r);
    uint32_t was = AWAKE;
    if (!mag_cas_seq(&u->wake, &was, ASLEEP)) {
        (void)mag_xchg_seq(&u->wake, AWAKE); /* a wake came before: it is consumed */
        return uring_flush(r);
    }
    int rc = sleep_until(u, deadline);
    if (mag_xchg_seq(&u->wake, AWAKE) == WOKEN)
        u->wakes_owed++;
    count_queued(u);
    return rc;
}

/* ---- waiting elsewhere --------------------------------------------------------- */

/*
 * The eventfd is signalled also for completions that are deferred until the owner enters.
 * But a completion that itself comes of a write to some eventfd, as a wake's does, signals
 * it late, and on some kernels (6.18) only the first time after the registration, because
 * the bit IO_EVENTFD_OP_SIGNAL_BIT stays set.  So it is registered anew each time, and wakes
 * are seen at their own descriptor.
 */
static int uring_watch(struct mag_ring *r, int event_fd)
{
    struct uring *u = uring_of(r);
    int rc = mag_sys_fault(MAG_SYS_URING_REGISTER);

    if (rc == 0) {
        (void)io_uring_unregister_eventfd(&u->kernel); /* if there is one */
        rc = io_uring_register_eventfd(&u->kernel, event_fd);
    }
    return rc < 0 ? rc : u->wake_fd;
}

static void uring_rouse(struct mag_ring *r)
{
    struct uring *u = uring_of(r);

    if (mag_xchg_seq(&u->wake, AWAKE) == WOKEN)
        u->wakes_owed++;
}

static int uring_doze(struct mag_ring *r)
{
    struct uring *u = uring_of(r);
    uint32_t was = AWAKE;
    int rc;

    if (!mag_cas_seq(&u->wake, &was, ASLEEP)) {
        (void)mag_xchg_seq(&u->wake, AWAKE); /* a wake came before: it is consumed */
        return 0;
    }
    arm_wake(u);
    rc = uring_flush(r);
    if (rc == 0 && u->wake_armed && r->n_queued == 0)
        return 1;
    uring_rouse(r);
    return rc;
}

/* After the exchange the ring may be closed, as soon as the write was read. */
static void uring_wake(struct mag_ring *r)
{
    struct uring *u = uring_of(r);
    const uint64_t one = 1;
    int fd = u->wake_fd;
    if (mag_xchg_seq(&u->wake, WOKEN) != ASLEEP)
        return;
    ssize_t n;
    do
        n = mag_sys_write(fd, &one, sizeof one);
    while (n == -EINTR);
    MAG_CHECK(n == (ssize_t)sizeof one); /* a lost wake would be a hang */
}

/* ---- life -------------------------------------------------------------------- */

/*
 * Brings in the writes of wakers that are still at it, and the read of the eventfd,
 * which a write of our own ends.  False if that cannot be had.
 */
static bool settle_wakes(struct uring *u)
{
    uint64_t one = 1;
    if (u->wake_armed && mag_sys_write(u->wake_fd, &one, sizeof one) == (ssize_t)sizeof one)
        u->wakes_owed++;
    for (int i = 0; i < CLOSE_ATTEMPTS_MAX && (u->wakes_owed > 0 || u->wake_armed); i++) {
        arm_wake(u);
        (void)enter_and_wait(u, mag_clock_now() + BACK_OFF_NS);
        (void)uring_reap(&u->base);
    }
    return u->wakes_owed == 0 && !u->wake_armed;
}

/* TSan sees neither the unmapping of a ring nor that another one got its address. */
static void order_mappings(void)
{
    static mag_atomic(uint32_t) n_mapped;

    if (MAG_TSAN)
        (void)mag_fetch_add_seq(&n_mapped, 1);
}

/* Where the kernel may yet write into the ring's memory, that is left to it. */
static void uring_close(struct mag_ring *r)
{
    struct uring *u = uring_of(r);
    bool is_settled = settle_wakes(u);
    order_mappings();
    io_uring_queue_exit(&u->kernel);
    (void)mag_sys_close(u->wake_fd);
    if (is_settled)
        mag_mem_free(u);
}

static const struct mag_ring_ops uring_ops = {
    .name = "io_uring",
    .close = uring_close,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .flush = uring_flush,
    .reap = uring_reap,
    .kick = uring_kick,
    .reap_posted = uring_reap_posted,
    .sleep = uring_sleep,
    .wake = uring_wake,
    .watch = uring_watch,
    .doze = uring_doze,
    .rouse = uring_rouse,
};

/*
 * What to ask for, best first; a kernel answers -EINVAL to what it does not know.
 * With DEFER_TASKRUN (6.1) completions are worked on when the owner enters, and only
 * by it; with COOP_TASKRUN (5.19) when it enters for any reason; else it is
 * interrupted.  TASKRUN_FLAG says in shared memory that an enter is due.
 * SUBMIT_ALL (5.18) goes on after an SQE that is bad.
 */
static const unsigned modes[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
        IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
    0,
};

static int setup_best_mode(struct io_uring *ring, unsigned entries)
{
    int rc = -EINVAL;
    for (size_t i = 0; i < MAG_ARRAY_SIZE(modes) && rc == -EINVAL; i++) {
        struct io_uring_params p = {
            .flags = modes[i] | IORING_SETUP_CQSIZE,
            .cq_entries = entries * CQ_PER_SQ,
        };
        rc = mag_sys_fault(MAG_SYS_URING_SETUP);
        if (rc == 0)
            rc = io_uring_queue_init_params(entries, ring, &p);
    }
    return rc;
}

/* Halves the entries while locked memory does not suffice. */
static int setup(struct io_uring *ring, unsigned entries)
{
    int rc = setup_best_mode(ring, entries);
    while (rc == -ENOMEM && entries / 2 >= MAG_RING_ENTRIES_MIN) {
        entries /= 2;
        rc = setup_best_mode(ring, entries);
    }
    return rc;
}

static void explain(int rc)
{
    struct rlimit limit = { 0 };
    switch (rc) {
    case -ENOMEM:
        (void)mag_sys_getrlimit(RLIMIT_MEMLOCK, &limit); /* on failure it reads 0 */
        mag_ring_set_why("io_uring: ENOMEM: RLIMIT_MEMLOCK is %lu KiB, too little for one more "
                         "ring; raise it (ulimit -l) or use fewer workers",
                         (unsigned long)(limit.rlim_cur / 1024));
        break;
    case -EPERM:
    case -EACCES:
        mag_ring_set_why("io_uring: %s: forbidden by a sandbox (a container's seccomp profile) "
                         "or by sysctl kernel.io_uring_disabled",
                         mag_err_name(rc));
        break;
    case -ENOSYS:
        mag_ring_set_why("io_uring: ENOSYS: the kernel is older than 5.11 or built without it, "
                         "or a sandbox hides it");
        break;
    case -EMFILE:
    case -ENFILE:
        mag_ring_set_why("io_uring: %s: no file descriptor is left; raise the limit (ulimit -n)",
                         mag_err_name(rc));
        break;
    default:
        mag_ring_set_why("io_uring: %s: the kernel refuses a ring", mag_err_name(rc));
    }
}

/* Improvements that the ring works without, so failures do not matter. */
static void tune(struct io_uring *ring)
{
    unsigned iowq[2] = { IOWQ_BOUNDED_MAX, IOWQ_UNBOUNDED_MAX };
    if (mag_sys_fault(MAG_SYS_URING_REGISTER) == 0)
        (void)io_uring_register_ring_fd(ring); /* 5.18 */
    if (mag_sys_fault(MAG_SYS_URING_REGISTER) == 0)
        (void)io_uring_register_iowq_max_workers(ring, iowq); /* 5.15 */
    (void)io_uring_ring_dontfork(ring); /* a child cannot spoil the queues (liburing#612) */
}

/* The codes that the kernel says it has not (5.6 says it; ours are all older than 5.19 but for
 * FTRUNCATE).  One that does not tell is asked for nothing but what 5.11 has. */
static uint64_t find_lacks(struct io_uring *ring)
{
    bool is_asked = mag_sys_fault(MAG_SYS_URING_REGISTER) == 0;
    struct io_uring_probe *probe = is_asked ? io_uring_get_probe_ring(ring) : NULL;
    uint64_t lacks = 0;

    for (unsigned i = 0; i < MAG_OP_CODES; i++) {
        bool is_had = probe ? io_uring_opcode_supported(probe, preps[i].kernel_code)
                            : preps[i].kernel_code <= IORING_OP_UNLINKAT;
        if (!is_had)
            lacks |= UINT64_C(1) << i;
    }
    if (probe)
        io_uring_free_probe(probe);
    return lacks;
}

static int open_kernel(struct uring *u, unsigned entries)
{
    const unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    int rc;

    rc = setup(&u->kernel, entries);
    if (rc)
        return rc;
    order_mappings();
    if ((u->kernel.features & needed) != needed) {
        io_uring_queue_exit(&u->kernel);
        return -ENOSYS;
    }
    tune(&u->kernel);
    return 0;
}

static int open_both(struct uring *u, unsigned entries)
{
    /* Blocking: older kernels end the READ of a non-blocking one with -EAGAIN. */
    u->wake_fd = mag_sys_eventfd(0, EFD_CLOEXEC);
    if (u->wake_fd < 0)
        return u->wake_fd;
    int rc = open_kernel(u, entries);
    if (rc)
        (void)mag_sys_close(u->wake_fd);
    return rc;
}

int mag_ring_uring_open(struct mag_ring **out, unsigned entries)
{
    struct uring *u = mag_mem_alloc_aligned(_Alignof(struct uring), sizeof *u);
    if (!u) {
        mag_ring_set_why("io_uring: ENOMEM: no memory for the ring");
        return -ENOMEM;
    }
    *u = (struct uring){ .wake = AWAKE };
    int rc = open_both(u, entries < ENTRIES_MAX ? entries : ENTRIES_MAX);
    if (rc) {
        explain(rc);
        mag_mem_free(u);
        return rc;
    }
    u->base.ops = &uring_ops;
    u->base.posted = u->kernel.cq.ktail;
    u->base.attention = u->kernel.sq.kflags;
    u->base.attention_mask = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
    u->base.lacks = find_lacks(&u->kernel);
    *out = &u->base;
    return 0;
}
