/* SPDX-License-Identifier: MIT */
#ifndef MAG_RING_H
#define MAG_RING_H
/*
 * ring.h - the contract between a worker and the kernel
 *
 * A worker hands operations to its ring (submit), gives them to the kernel in
 * batches (flush), collects what has finished (reap), and sleeps here when it has
 * nothing to do.  An operation is a struct mag_op, which lives where its submitter
 * likes, usually on the stack of the task that waits for it:
 *
 *     submit --> queued --> in the kernel --> finished --> complete(op)
 *                                 ^                          (from reap)
 *     cancel ---- asks -----------+
 *
 * Rules that every back-end keeps:
 *  1. complete is called exactly once for each submit, on the owner's thread, from
 *     reap and from nowhere else.  From then on the ring does not touch the op.
 *  2. Until then the op and the memory it names belong to the kernel.  A cancelled
 *     operation is no exception: cancel asks, and what comes is the operation's own
 *     result, or -ECANCELED if it did nothing.  Nobody leaves early (liburing#733).
 *  3. submit and cancel cannot fail.  What the kernel cannot take yet is queued.
 *  4. A wake is sticky: one that comes before sleep makes the next sleep return at
 *     once.  A woken sleeper looks at its inbox after sleep has returned.
 *
 * Who may call: the owner, that is the thread that opened the ring and must close
 * it; only wake is for everybody, signal handlers included (it may change errno,
 * so a handler saves that).  No wake may begin once the owner may be in close;
 * one that began before is waited for.  complete may submit and cancel; it must
 * not reap, sleep or close.  Only sleep blocks.
 *
 * Nothing here names a kernel interface: io_uring is one back-end (ring_uring.c),
 * readiness with helper threads another (ring_epoll.c).
 */
#include "atomic.h"
#include "list.h"

enum mag_op_code {
    MAG_OP_NOP,    /* nothing; result 0 */
    MAG_OP_READ,   /* fd, addr, len, offset: read(2) or pread(2); result bytes, 0 at the end */
    MAG_OP_WRITE,  /* fd, addr, len, offset: write(2) or pwrite(2); flags RWF_*; result bytes */
    MAG_OP_OPENAT, /* fd directory or AT_FDCWD, addr path, flags O_*, len mode; result fd */
    MAG_OP_CLOSE,  /* fd */
    MAG_OP_FSYNC,  /* fd, flags 0 or MAG_OP_DATASYNC */
    MAG_OP_STATX,  /* fd directory, addr path, flags AT_*, len STATX_* mask,
                    * offset address of a struct statx (mag_op_pointer) */
    MAG_OP_POLL,   /* fd, flags POLL*: poll(2) once; result the events that hold */

    /* Vectors: fd, addr struct iovec[len], offset, flags RWF_*; result bytes. */
    MAG_OP_READV,
    MAG_OP_WRITEV,

    /* Sockets.  They are waited for, non-blocking or not (io_uring of Linux 6.18, epoll), but not
     * with MSG_DONTWAIT: -EAGAIN.  That may be the answer for a non-blocking one, too (older
     * kernels; io_uring's for a terminal): then POLL waits. */
    MAG_OP_SOCKET,   /* fd domain, flags type | SOCK_*, len protocol; result fd */
    MAG_OP_ACCEPT,   /* fd, addr struct sockaddr or NULL, offset address of its socklen_t
                      * (mag_op_pointer; 0 with NULL), len its value, flags SOCK_*; result fd */
    MAG_OP_CONNECT,  /* fd, addr struct sockaddr, len its bytes; 0 when it is connected.  Cancelled,
                      * the socket may be connecting still: who asked closes it */
    MAG_OP_SEND,     /* fd, addr, len, flags MSG_*; result bytes */
    MAG_OP_RECV,     /* fd, addr, len, flags MSG_*; result bytes, 0 at the end */
    MAG_OP_SENDMSG,  /* fd, addr struct msghdr, flags MSG_*; result bytes */
    MAG_OP_RECVMSG,  /* fd, addr struct msghdr, flags MSG_*; result bytes.  Its msg_namelen,
                      * msg_controllen and msg_flags are written as recvmsg(2) writes them;
                      * len and offset say what the first two were (who lends reads them) */
    MAG_OP_SHUTDOWN, /* fd, flags SHUT_* */
    MAG_OP_SPLICE,   /* fd from, offset there, len, addr struct mag_op_splice (below), flags
                      * SPLICE_F_*; result bytes, 0 at the end */

    /* Files and names.  "path" is relative to the directory fd, or to AT_FDCWD. */
    MAG_OP_FTRUNCATE, /* fd, offset the new length */
    MAG_OP_FALLOCATE, /* fd, flags FALLOC_FL_*, offset, addr the length (mag_op_number) */
    MAG_OP_FADVISE,   /* fd, flags POSIX_FADV_*, offset, len (0: to the end) */
    MAG_OP_RENAMEAT,  /* fd, addr path; len the new directory ((uint32_t)fd), offset address of
                       * the new path; flags RENAME_* */
    MAG_OP_LINKAT,    /* as RENAMEAT; flags AT_* */
    MAG_OP_SYMLINKAT, /* addr what the link says; fd, offset address of the link's path */
    MAG_OP_UNLINKAT,  /* fd, addr path, flags 0 or AT_REMOVEDIR */
    MAG_OP_MKDIRAT,   /* fd, addr path, len mode */
    MAG_OP_OPENAT2,   /* fd directory, addr path, offset address of a struct open_how, len its
                       * bytes; result fd */
    MAG_OP_CODES,
};

/* Where a SPLICE goes; lent until complete. */
struct mag_op_splice {
    uint64_t offset; /* MAG_OP_OFFSET_CURRENT for a pipe, or at the descriptor's position */
    int32_t fd;
};

#define MAG_OP_OFFSET_CURRENT \
    UINT64_MAX             /* READ, WRITE, READV, WRITEV, SPLICE: at the
                                          * descriptor's own position */
#define MAG_OP_DATASYNC 1u /* FSYNC: fdatasync(2) */

/*
 * One operation.  The submitter zeroes it and fills in what its code uses.  Fields
 * marked [ring] are the back-end's from submit to complete.
 */
struct mag_op {
    void (*complete)(struct mag_op *op); /* [submitter] called by reap, exactly once */
    struct mag_fifo_node link;           /* [ring] in its queues */
    void *owner;                         /* [submitter] for complete */
    int32_t result;                      /* [ring] then of the submitter: count or -errno */
    uint32_t result_flags;               /* [ring] 0 for the codes above */
    uint8_t code;                        /* [submitter] enum mag_op_code */
    uint8_t state;                       /* [ring] 0 outside of submit..complete */
    uint16_t generation;                 /* [ring] tells this use of the memory from others */
    int32_t fd;                          /* [submitter] */
    void *addr;                          /* [submitter] lent until complete */
    uint64_t offset;                     /* [submitter] */
    uint32_t len;                        /* [submitter] */
    uint32_t flags;                      /* [submitter] */
};

/* A pointer for a field that holds 64 bits. */
static inline uint64_t mag_op_pointer(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* A number for the field that holds a pointer (FALLOCATE's length). */
static inline void *mag_op_number(uint64_t n)
{
    return (void *)(uintptr_t)n;
}

struct mag_ring;

/* What a back-end provides; each as the function of the same name below. */
struct mag_ring_ops {
    const char *name;
    void (*close)(struct mag_ring *r);
    void (*submit)(struct mag_ring *r, struct mag_op *op);
    void (*cancel)(struct mag_ring *r, struct mag_op *op);
    int (*flush)(struct mag_ring *r);
    unsigned (*reap)(struct mag_ring *r);
    void (*kick)(struct mag_ring *r);
    unsigned (*reap_posted)(struct mag_ring *r);
    int (*sleep)(struct mag_ring *r, mag_time deadline);
    void (*wake)(struct mag_ring *r);
    int (*watch)(struct mag_ring *r, int event_fd);
    int (*doze)(struct mag_ring *r);
    void (*rouse)(struct mag_ring *r);
};

/* The part of a ring that every back-end begins with; hot, so read in line. */
struct mag_ring {
    const struct mag_ring_ops *ops;         /* [const] */
    uint32_t n_in_flight;                   /* [owner] submitted, not completed */
    uint32_t n_queued;                      /* [owner] flush has something to do */
    uint32_t n_polled;                      /* [owner] of those whose end only reap finds out */
    uint32_t reaped;                        /* [owner] completions taken so far */
    uint32_t attention_mask;                /* [const] bits of *attention that mean "reap" */
    const mag_atomic(uint32_t) * posted;    /* [const] completions posted so far */
    const mag_atomic(uint32_t) * attention; /* [const] flags of the back-end */
    uint64_t lacks;                         /* [const] bit c: code c is not to be had (MAG_OP_*) */
};

/*
 * Whether this ring can do that operation.  Of those above "Vectors" each can; one that it
 * cannot is not submitted: op.c then makes the system call on a thread of the offload pool.
 */
#define mag_ring_can(r, code) (((r)->lacks >> (code)&1) == 0)

struct mag_ring_options {
    unsigned entries;    /* operations one flush can hand over; 0: MAG_RING_ENTRIES */
    /* "io_uring" or "epoll": that one or an error.  NULL: MAGPIE_BACKEND, or else io_uring,
     * or, where that is refused, epoll. */
    const char *backend;
};

/*
 * Opens a ring owned by the calling thread.  options may be NULL.  0 or -errno;
 * -EINVAL for an unknown back-end, -ENOMEM where locked memory does not suffice
 * even for MAG_RING_ENTRIES_MIN, -EMFILE without a descriptor.  mag_ring_why() then is
 * a sentence for the user.  The first io_uring that the kernel or a sandbox refuses
 * (-EPERM, -EACCES, -ENOSYS, -EINVAL) makes this and all later rings of the process use
 * epoll, which one line on standard error says; but it is the answer if io_uring was
 * asked for by name, or if other rings that are open use it.
 */
MAG_MUST_USE int mag_ring_open(struct mag_ring **out, const struct mag_ring_options *options);

/* Nothing may be in flight. */
void mag_ring_close(struct mag_ring *r);

/* Why the last open that failed did; "" if none has.  Any thread. */
const char *mag_ring_why(void);

/* Takes op over; it reaches the kernel with the next flush or sleep, or earlier. */
static inline void mag_ring_submit(struct mag_ring *r, struct mag_op *op)
{
    r->ops->submit(r, op);
}

/*
 * Asks that op, which is in flight, end soon; a second request is ignored.  It too
 * takes effect with the next flush or sleep.
 */
static inline void mag_ring_cancel(struct mag_ring *r, struct mag_op *op)
{
    r->ops->cancel(r, op);
}

/*
 * Hands what was submitted to the kernel.  0, also if the kernel cannot take all of
 * it just now: the rest stays queued, mag_ring_pending() stays true, and a later
 * flush or sleep goes on.  -errno only if the ring is broken.  Never blocks.
 */
static inline int mag_ring_flush(struct mag_ring *r)
{
    return r->ops->flush(r);
}

/*
 * Calls complete for what had finished when it began; the number of them.  Never
 * blocks.  It does not flush: what complete submits waits for the next flush.
 */
static inline unsigned mag_ring_reap(struct mag_ring *r)
{
    return r->ops->reap(r);
}

/*
 * For a rescue (rescue.c).  kick: on the owner's thread, in a signal handler that has not
 * interrupted the ring: hands over what is queued, and has the kernel post what is done.
 * reap_posted: reap by another thread, which has the owner's place for the time: of what is
 * posted; it asks the kernel for nothing.
 */
static inline void mag_ring_kick(struct mag_ring *r)
{
    r->ops->kick(r);
}

static inline unsigned mag_ring_reap_posted(struct mag_ring *r)
{
    return r->ops->reap_posted(r);
}

/*
 * Whether flush or reap has something to do: a hint of a few loads, for the loop.
 * relaxed: what it misses is seen a turn later, and sleep looks for itself.
 */
static inline bool mag_ring_pending(const struct mag_ring *r)
{
    return r->n_queued != 0 || mag_load_relaxed(r->posted) != r->reaped ||
           (mag_load_relaxed(r->attention) & r->attention_mask) != 0;
}

/*
 * Whether a flush and a reap are worth while now and then, for an owner that is busy: as
 * pending, or there are operations whose completion nothing shows until reap asks.  No
 * reason not to sleep.
 */
static inline bool mag_ring_due(const struct mag_ring *r)
{
    return r->n_polled != 0 || mag_ring_pending(r);
}

/*
 * Flushes, then waits for a completion, a wake, or the deadline, an absolute time
 * or MAG_NEVER; may return early (a signal).  Does not reap.  0, or -errno only if
 * the ring is broken.
 */
static inline int mag_ring_sleep(struct mag_ring *r, mag_time deadline)
{
    return r->ops->sleep(r, deadline);
}

/*
 * Makes the owner's sleep, this one or the next, return.  Any thread; cheap if the
 * owner is awake or somebody woke it already.  Everything written before wake is
 * visible to the owner after that sleep.
 */
static inline void mag_ring_wake(struct mag_ring *r)
{
    r->ops->wake(r);
}

/*
 * For an owner who waits somewhere else, in poll(2): from now on completions make that
 * eventfd readable, or the other descriptor that it returns, which a wake makes readable too;
 * or -errno.
 * Whoever has read the eventfd calls this again before it looks whether anything is pending.
 */
static inline int mag_ring_watch(struct mag_ring *r, int event_fd)
{
    return r->ops->watch(r, event_fd);
}

/*
 * Sleep without the wait.  1: everything is with the kernel, and a wake from now on shows,
 * until rouse.  0: there has been a wake, or the kernel
 * does not take all of it just now; -errno if the ring is broken.  Then rouse is not called.
 */
static inline int mag_ring_doze(struct mag_ring *r)
{
    return r->ops->doze(r);
}

static inline void mag_ring_rouse(struct mag_ring *r)
{
    r->ops->rouse(r);
}

/* Operations submitted and not completed, queued ones included. */
static inline unsigned mag_ring_in_flight(const struct mag_ring *r)
{
    return r->n_in_flight;
}

static inline const char *mag_ring_backend(const struct mag_ring *r)
{
    return r->ops->name;
}

/* ---- for ring.c and the back-ends ------------------------------------------ */

int mag_ring_uring_open(struct mag_ring **out, unsigned entries);
int mag_ring_epoll_open(struct mag_ring **out, unsigned entries);

/* Remembers the sentence that mag_ring_why() gives. */
void mag_ring_set_why(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Around the time in which the kernel may use what op names.  Neither ASan nor
 * valgrind sees what the kernel does; so in an ASan build touching memory that it may write
 * to is reported as use-after-poison, and memory that it reads from must be there at both
 * ends; and valgrind is told what became defined.
 */
void mag_ring_lend(const struct mag_op *op);
void mag_ring_give_back(const struct mag_op *op, int32_t result);

#endif
