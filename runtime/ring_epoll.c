/* SPDX-License-Identifier: MIT */
/*
 * ring_epoll.c - the ring on epoll(7) and threads, for where io_uring is forbidden
 *
 * An operation is tried when it is submitted, in a way that cannot block.  If it would have
 * to wait, it waits in the record of its descriptor, which epoll watches; what epoll cannot
 * watch, or blocks in any case, goes to a thread (ring_threads.c):
 *
 *     submit -> try -+- has a result -----------------------------> done --reap--> complete
 *                ^   +- would block -> record of the fd -+           ^
 *                +------------------ epoll: it is ready -+           |
 *                    +- a file, a name -----> threads ---> finished -+
 *                    +- no memory, no event to wait for -> later (tried again each ms)
 *
 * How a call is kept from blocking without touching the descriptor's O_NONBLOCK, which others
 * share: RWF_NOWAIT for read and write, MSG_DONTWAIT for sockets.  Files that do not know
 * RWF_NOWAIT (terminals, eventfd writes, inotify) are asked by poll(2) first; a write there is
 * a short one, for which a descriptor that is ready has room.  accept(2) and connect(2) have
 * no such flag: around these O_NONBLOCK is set for a moment, by one thread at a time.
 *
 * As with io_uring (6.x), a descriptor that is O_NONBLOCK is waited for all the same; who does
 * not want to wait says MSG_DONTWAIT or RWF_NOWAIT.
 *
 * Invariants
 *   1. An operation is in exactly one place, which its state names: a list of a record, `later',
 *      the threads, or `done'.
 *   2. n_polled == operations in records and in `later': those whose end shows only when the
 *      kernel is asked.  n_posted == operations that ever came to `done'.
 *   3. A record with operations is armed in epoll for what they wait for, once (EPOLLONESHOT);
 *      after an event it is armed anew.  A number that was closed and belongs to another
 *      file now is found by ENOENT and EEXIST; an event of the former file makes operations be
 *      tried for nothing, no more.
 *   4. Readers of one descriptor, and writers, are served in the order in which they came.
 *   5. wakes_owed as in ring_uring.c, and the wake word too.
 *
 * Cancel takes a waiting operation out at once.  A job that has begun ends by itself.  One
 * that opens a FIFO may never: then the FIFO is opened for both sides, which lets it go (and
 * whoever else waits for the other side of that FIFO; a leak of the thread would be worse).
 *
 * CLOSE of a descriptor with operations of this ring: they are cancelled first.
 *
 * Who may call: as ring.h.  kick runs in a signal handler: it allocates nothing, starts no
 * thread, and puts off what would.
 *
 * Rejected
 *   - EPOLLET, registered once: saves a call for each wait, but a number that is closed and
 *     used again would never be armed again (libev, libuv track every close for that);
 *   - EPOLLEXCLUSIVE where ACCEPTs of several rings wait, all of which a connection wakes (all but
 *     one find it gone): it excludes EPOLLONESHOT and EPOLL_CTL_MOD.  A ring whose ACCEPT has just
 *     ended would be registered still, and swallow the wake for the next connection, while another
 *     ring waits for it: io_uring's exclusive poll is of one shot, and has no such gap;
 *   - O_NONBLOCK for good: it is the open file's, so the user's other processes would see it;
 *   - select and poll: linear in the number of descriptors.
 *
 * Sources: epoll(7); preadv2(2); fifo(7); Linux io_uring/poll.c for what is polled when.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include "check.h"
#include "clock.h"
#include "mem.h"
#include "ring_threads.h"
#include "sys.h"
#include "sys_file.h"
#include "sys_net.h"
#include "sys_poll.h"
#include "sys_wait.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>

enum {
    EVENTS_MAX = 64,
    CHUNK = 64, /* records allocated together */
    LATER_NS = 1000 * 1000,
    CLOSE_ATTEMPTS_MAX = 1000,
    ROOM_WHEN_READY = 256, /* bytes that a terminal takes when it says it is writable */
};

/* What a try may answer beside a result: */
enum {
    WAIT = INT32_MIN,      /* would block: until the descriptor is ready */
    JOB = INT32_MIN + 1,   /* to a thread */
    LATER = INT32_MIN + 2, /* there is no event to wait for */
};

/* op->state: where it is (invariant 1) */
enum {
    STATE_NONE,
    STATE_WAITING, /* in the record of its descriptor */
    STATE_LATER,
    STATE_JOB,
    STATE_DONE,
};

/* The lists of a record. */
enum { READERS, WRITERS, POLLERS, LISTS };

/* The wake word, as in ring_uring.c. */
enum { AWAKE, ASLEEP, WOKEN };

/* One descriptor. */
struct record {
    struct mag_fifo waiting[LISTS]; /* [owner] */
    bool is_known;                  /* [owner] a hint: epoll has it */
};

struct epoll_ring {
    struct mag_ring base;
    struct mag_fifo done;      /* [owner] have their results */
    struct mag_fifo later;     /* [owner] */
    struct record **chunks;    /* [owner] records by descriptor, CHUNK in each; may be NULL */
    size_t n_chunks;           /* [owner] */
    bool is_kicking;           /* [owner] in a signal handler */
    int64_t wakes_owed;        /* [owner] */
    int epoll_fd;              /* [const] */
    int wake_fd;               /* [const] */
    struct mag_ring_jobs jobs; /* see there */

    MAG_CACHELINE mag_atomic(uint32_t) wake; /* [any] AWAKE, ASLEEP or WOKEN */
    mag_atomic(uint32_t) n_posted;           /* [owner] the others only look */
};

static struct epoll_ring *ring_of(struct mag_ring *r)
{
    return mag_container_of(r, struct epoll_ring, base);
}

static struct mag_op *pop(struct mag_fifo *f)
{
    struct mag_fifo_node *node = mag_fifo_pop_front(f);

    return node ? mag_container_of(node, struct mag_op, link) : NULL;
}

/* ---- records --------------------------------------------------------------------------- */

static struct record *find_record(struct epoll_ring *e, int fd)
{
    size_t chunk = (size_t)fd / CHUNK;

    if (fd < 0 || chunk >= e->n_chunks || e->chunks[chunk] == NULL)
        return NULL;
    return &e->chunks[chunk][fd % CHUNK];
}

static bool grow(struct epoll_ring *e, size_t n)
{
    struct record **chunks = mag_mem_realloc(e->chunks, n * sizeof *chunks);

    if (chunks == NULL)
        return false;
    for (; e->n_chunks < n; e->n_chunks++)
        chunks[e->n_chunks] = NULL;
    e->chunks = chunks;
    return true;
}

/* NULL without memory, and in a signal handler if there is none yet. */
static struct record *record_of(struct epoll_ring *e, int fd)
{
    struct record *r = find_record(e, fd);
    size_t chunk = (size_t)fd / CHUNK;

    if (r || fd < 0 || e->is_kicking)
        return r;
    if (chunk >= e->n_chunks && !grow(e, chunk + 1))
        return NULL;
    e->chunks[chunk] = mag_mem_zalloc(CHUNK * sizeof(struct record));
    return find_record(e, fd);
}

static bool is_idle(const struct record *r)
{
    for (int i = 0; i < LISTS; i++)
        if (!mag_fifo_empty(&r->waiting[i]))
            return false;
    return true;
}

/* ---- calls that do not block ------------------------------------------------------------- */

typedef int32_t try_fn(struct epoll_ring *e, struct mag_op *op);

static int32_t try_nop(struct epoll_ring *e, struct mag_op *op)
{
    (void)e, (void)op;
    return 0;
}

static int32_t try_job(struct epoll_ring *e, struct mag_op *op)
{
    (void)e, (void)op;
    return JOB;
}

typedef ssize_t vector_fn(int fd, const struct iovec *v, int n, off_t offset, int flags);

/* What has no position ignores that there is one, as io_uring does. */
static int32_t at_offset(vector_fn *fn, struct mag_op *op, const struct iovec *v, int n, int flags)
{
    off_t offset = op->offset == MAG_OP_OFFSET_CURRENT ? -1 : (off_t)op->offset;
    ssize_t rc = fn(op->fd, v, n, offset, flags);

    if (rc == -ESPIPE && offset != -1)
        rc = fn(op->fd, v, n, -1, flags);
    return (int32_t)rc;
}

static bool is_on_disk(int fd)
{
    struct stat st;

    return mag_sys_fstat(fd, &st) < 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) ||
           S_ISBLK(st.st_mode);
}

static int32_t plainly(struct mag_op *op);

/* A writable terminal has room for a little; the first part that is not empty. */
static int32_t write_little(const struct mag_op *op)
{
    struct mag_op little = *op;
    const struct iovec *v = op->addr;

    if (op->code == MAG_OP_WRITEV) {
        for (; little.len > 1 && v->iov_len == 0; v++)
            little.len--;
        little.code = MAG_OP_WRITE;
        little.addr = little.len ? v->iov_base : NULL;
        little.len = little.len && v->iov_len < UINT32_MAX ? (uint32_t)v->iov_len : little.len;
    }
    if (little.len > ROOM_WHEN_READY)
        little.len = ROOM_WHEN_READY;
    return plainly(&little);
}

/* For what does not know RWF_NOWAIT. */
static int32_t ask_first(struct mag_op *op, unsigned event)
{
    int rc;

    if (is_on_disk(op->fd))
        return JOB;
    rc = mag_sys_poll_one(op->fd, event, 0);
    if (rc <= 0)
        return rc < 0 ? rc : WAIT;
    return event == EPOLLIN ? plainly(op) : write_little(op);
}

static int32_t try_vector(vector_fn *fn, struct mag_op *op, const struct iovec *v, unsigned event)
{
    int flags = op->code == MAG_OP_READ ? 0 : (int)op->flags;
    int n = op->code == MAG_OP_READ || op->code == MAG_OP_WRITE ? 1 : (int)op->len;
    int32_t rc = at_offset(fn, op, v, n, flags | RWF_NOWAIT);

    if (flags & RWF_NOWAIT)
        return rc;
    if (rc == -EOPNOTSUPP || rc == -ENOSYS)
        return ask_first(op, event);
    return rc == -EAGAIN ? WAIT : rc;
}

static int32_t try_read(struct epoll_ring *e, struct mag_op *op)
{
    struct iovec v = { op->addr, op->len };

    (void)e;
    return try_vector(mag_sys_preadv2, op, &v, EPOLLIN);
}

static int32_t try_write(struct epoll_ring *e, struct mag_op *op)
{
    struct iovec v = { op->addr, op->len };

    (void)e;
    return try_vector(mag_sys_pwritev2, op, &v, EPOLLOUT);
}

static int32_t try_readv(struct epoll_ring *e, struct mag_op *op)
{
    (void)e;
    return try_vector(mag_sys_preadv2, op, op->addr, EPOLLIN);
}

static int32_t try_writev(struct epoll_ring *e, struct mag_op *op)
{
    (void)e;
    return try_vector(mag_sys_pwritev2, op, op->addr, EPOLLOUT);
}

static int32_t try_poll(struct epoll_ring *e, struct mag_op *op)
{
    int rc = mag_sys_poll_one(op->fd, op->flags, 0);

    (void)e;
    return rc ? rc : WAIT;
}

/* ---- sockets */

static int32_t or_wait(ssize_t rc, const struct mag_op *op)
{
    return rc == -EAGAIN && !(op->flags & MSG_DONTWAIT) ? WAIT : (int32_t)rc;
}

/* With MSG_WAITALL it goes on until all is moved; result_flags counts what was. */
static int32_t and_the_rest(ssize_t rc, struct mag_op *op)
{
    uint32_t before = op->result_flags;

    if (!(op->flags & MSG_WAITALL))
        return or_wait(rc, op);
    if (rc > 0 && (op->result_flags += (uint32_t)rc) < op->len)
        return WAIT;
    if (rc == -EAGAIN && !(op->flags & MSG_DONTWAIT))
        return WAIT;
    return rc < 0 && before == 0 ? (int32_t)rc : (int32_t)op->result_flags;
}

static int32_t try_send(struct epoll_ring *e, struct mag_op *op)
{
    uint32_t done = op->result_flags;

    (void)e;
    return and_the_rest(mag_sys_send(op->fd, (char *)op->addr + done, op->len - done,
                                     (int)op->flags | MSG_DONTWAIT),
                        op);
}

static int32_t try_recv(struct epoll_ring *e, struct mag_op *op)
{
    uint32_t done = op->result_flags;

    (void)e;
    return and_the_rest(mag_sys_recv(op->fd, (char *)op->addr + done, op->len - done,
                                     (int)op->flags | MSG_DONTWAIT),
                        op);
}

static int32_t try_sendmsg(struct epoll_ring *e, struct mag_op *op)
{
    (void)e;
    return or_wait(mag_sys_sendmsg(op->fd, op->addr, (int)op->flags | MSG_DONTWAIT), op);
}

static int32_t try_recvmsg(struct epoll_ring *e, struct mag_op *op)
{
    (void)e;
    return or_wait(mag_sys_recvmsg(op->fd, op->addr, (int)op->flags | MSG_DONTWAIT), op);
}

static int32_t try_socket(struct epoll_ring *e, struct mag_op *op)
{
    (void)e;
    return mag_sys_socket(op->fd, (int)op->flags, (int)op->len);
}

static int32_t try_shutdown(struct epoll_ring *e, struct mag_op *op)
{
    (void)e;
    return mag_sys_shutdown(op->fd, (int)op->flags);
}

/* Two threads that do this to one socket would undo each other's mode. */
static pthread_mutex_t mode_lock = PTHREAD_MUTEX_INITIALIZER;

static int32_t without_blocking(int32_t (*call)(struct mag_op *op), struct mag_op *op)
{
    int32_t rc;
    int flags;

    pthread_mutex_lock(&mode_lock);
    flags = mag_sys_flags_get(op->fd);
    rc = flags < 0 ? flags : 0;
    if (rc == 0 && !(flags & O_NONBLOCK))
        rc = mag_sys_flags_set(op->fd, flags | O_NONBLOCK);
    if (rc == 0) {
        rc = call(op);
        if (!(flags & O_NONBLOCK))
            (void)mag_sys_flags_set(op->fd, flags);
    }
    pthread_mutex_unlock(&mode_lock);
    return rc;
}

static int32_t call_accept(struct mag_op *op)
{
    return mag_sys_accept4(op->fd, op->addr, (socklen_t *)(uintptr_t)op->offset, (int)op->flags);
}

static int32_t call_connect(struct mag_op *op)
{
    return mag_sys_connect(op->fd, op->addr, op->len);
}

static int get_option(int fd, int name)
{
    int value = 0;
    socklen_t len = sizeof value;
    int rc = mag_sys_getsockopt(fd, SOL_SOCKET, name, &value, &len);

    return rc < 0 ? rc : value;
}

static int32_t try_accept(struct epoll_ring *e, struct mag_op *op)
{
    int32_t rc = mag_sys_poll_one(op->fd, EPOLLIN, 0);

    (void)e;
    if (rc == 0) { /* one that does not listen is never ready */
        rc = get_option(op->fd, SO_ACCEPTCONN);
        return rc < 0 ? rc : rc ? WAIT : -EINVAL;
    }
    if (rc > 0)
        rc = without_blocking(call_accept, op);
    return rc == -EAGAIN ? WAIT : rc;
}

/*
 * result_flags: it is connecting.  Then connect(2) once more says how that ended, and leaves
 * the socket, as SO_ERROR would not, fit for another.  A full backlog of a Unix socket
 * (-EAGAIN) shows in no event.
 */
static int32_t try_connect(struct epoll_ring *e, struct mag_op *op)
{
    int32_t rc = without_blocking(call_connect, op);
    bool is_connecting = op->result_flags != 0;

    (void)e;
    if (rc == -EAGAIN)
        return LATER;
    if (rc == -EINPROGRESS || (rc == -EALREADY && is_connecting)) {
        op->result_flags = 1;
        return WAIT;
    }
    return rc == -EISCONN && is_connecting ? 0 : rc;
}

static void cancel_waiting(struct epoll_ring *e, int fd);

/* Only the last close of a file, a directory or a terminal may take long. */
static int32_t try_close(struct epoll_ring *e, struct mag_op *op)
{
    struct stat st;

    cancel_waiting(e, op->fd);
    if (mag_sys_fstat(op->fd, &st) == 0 &&
        (S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode) || (st.st_mode & S_IFMT) == 0))
        return mag_sys_close(op->fd);
    return JOB;
}

/* ---- calls that block, on a thread --------------------------------------------------------- */

/* Not preadv2(2), which may be what is lacking. */
static int32_t block_read(struct mag_op *op)
{
    ssize_t rc = -ESPIPE;

    if (op->offset != MAG_OP_OFFSET_CURRENT)
        rc = mag_sys_pread(op->fd, op->addr, op->len, (off_t)op->offset);
    return (int32_t)(rc == -ESPIPE ? mag_sys_read(op->fd, op->addr, op->len) : rc);
}

static int32_t block_write(struct mag_op *op)
{
    struct iovec v = { op->addr, op->len };

    if (op->offset == MAG_OP_OFFSET_CURRENT && op->flags == 0)
        return (int32_t)mag_sys_write(op->fd, op->addr, op->len);
    return at_offset(mag_sys_pwritev2, op, &v, 1, (int)op->flags);
}

static int32_t block_readv(struct mag_op *op)
{
    return at_offset(mag_sys_preadv2, op, op->addr, (int)op->len, (int)op->flags);
}

static int32_t block_writev(struct mag_op *op)
{
    return at_offset(mag_sys_pwritev2, op, op->addr, (int)op->len, (int)op->flags);
}

static int32_t block_openat(struct mag_op *op)
{
    return mag_sys_openat(op->fd, op->addr, (int)op->flags, (mode_t)op->len);
}

static int32_t block_close(struct mag_op *op)
{
    return mag_sys_close(op->fd);
}

static int32_t block_fsync(struct mag_op *op)
{
    return mag_sys_fsync(op->fd, op->flags & MAG_OP_DATASYNC);
}

static int32_t block_statx(struct mag_op *op)
{
    struct statx *out = (struct statx *)(uintptr_t)op->offset;

    return mag_sys_statx(op->fd, op->addr, (int)op->flags, op->len, out);
}

/* ---- the table ----------------------------------------------------------------------------- */

/* What is not here is done by op.c on the offload pool (lacks). */
static const struct how {
    try_fn *attempt;
    int32_t (*block)(struct mag_op *op); /* NULL: never a job */
    int list;                            /* where it waits; LISTS: nowhere */
} hows[MAG_OP_CODES] = {
    [MAG_OP_NOP] = { try_nop, NULL, LISTS },
    [MAG_OP_READ] = { try_read, block_read, READERS },
    [MAG_OP_WRITE] = { try_write, block_write, WRITERS },
    [MAG_OP_OPENAT] = { try_job, block_openat, LISTS },
    [MAG_OP_CLOSE] = { try_close, block_close, LISTS },
    [MAG_OP_FSYNC] = { try_job, block_fsync, LISTS },
    [MAG_OP_STATX] = { try_job, block_statx, LISTS },
    [MAG_OP_POLL] = { try_poll, NULL, POLLERS },
    [MAG_OP_READV] = { try_readv, block_readv, READERS },
    [MAG_OP_WRITEV] = { try_writev, block_writev, WRITERS },
    [MAG_OP_SOCKET] = { try_socket, NULL, LISTS },
    [MAG_OP_ACCEPT] = { try_accept, NULL, READERS },
    [MAG_OP_CONNECT] = { try_connect, NULL, WRITERS },
    [MAG_OP_SEND] = { try_send, NULL, WRITERS },
    [MAG_OP_RECV] = { try_recv, NULL, READERS },
    [MAG_OP_SENDMSG] = { try_sendmsg, NULL, WRITERS },
    [MAG_OP_RECVMSG] = { try_recvmsg, NULL, READERS },
    [MAG_OP_SHUTDOWN] = { try_shutdown, NULL, LISTS },
};

static uint64_t find_lacks(void)
{
    uint64_t lacks = 0;

    for (unsigned i = 0; i < MAG_OP_CODES; i++)
        if (hows[i].attempt == NULL)
            lacks |= UINT64_C(1) << i;
    return lacks;
}

static int32_t plainly(struct mag_op *op)
{
    return hows[op->code].block(op);
}

/*
 * TSan takes a call on a descriptor for a read of it, and socket(2) for a write.  A task that
 * uses a number which another has just closed is no race of ours: the kernel sorts it out.
 */
#if MAG_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
#define IGNORE_BEGIN() AnnotateIgnoreReadsBegin(__FILE__, __LINE__)
#define IGNORE_END()   AnnotateIgnoreReadsEnd(__FILE__, __LINE__)
#else
#define IGNORE_BEGIN() ((void)0)
#define IGNORE_END()   ((void)0)
#endif

/* The memory is ours while we look. */
static int32_t attempt(struct epoll_ring *e, struct mag_op *op)
{
    int32_t rc;

    mag_ring_give_back(op, -EAGAIN);
    IGNORE_BEGIN();
    rc = hows[op->code].attempt(e, op);
    IGNORE_END();
    mag_ring_lend(op);
    return rc;
}

static void run_job(struct mag_op *op)
{
    mag_ring_give_back(op, -EAGAIN);
    op->result = hows[op->code].block(op);
    mag_ring_lend(op);
}

/* ---- from place to place --------------------------------------------------------------------- */

static void done(struct epoll_ring *e, struct mag_op *op)
{
    op->state = STATE_DONE;
    mag_fifo_push_back(&e->done, &op->link);
    mag_store_release(&e->n_posted, e->n_posted + 1);
}

static void post(struct epoll_ring *e, struct mag_op *op, int32_t result)
{
    op->result = result;
    done(e, op);
}

/* What was moved before counts (MSG_WAITALL). */
static void post_cancelled(struct epoll_ring *e, struct mag_op *op)
{
    bool is_part = op->result_flags && (op->code == MAG_OP_SEND || op->code == MAG_OP_RECV);

    post(e, op, is_part ? (int32_t)op->result_flags : -ECANCELED);
}

static void put_off(struct epoll_ring *e, struct mag_op *op)
{
    op->state = STATE_LATER;
    mag_fifo_push_back(&e->later, &op->link);
    e->base.n_polled++;
}

static void hand_to_thread(struct epoll_ring *e, struct mag_op *op)
{
    if (e->is_kicking || hows[op->code].block == NULL) {
        put_off(e, op);
        return;
    }
    op->state = STATE_JOB;
    mag_ring_jobs_add(&e->jobs, op);
}

static uint32_t wanted(const struct record *r)
{
    uint32_t events = EPOLLONESHOT;

    if (!mag_fifo_empty(&r->waiting[READERS]))
        events |= EPOLLIN | EPOLLRDHUP;
    if (!mag_fifo_empty(&r->waiting[WRITERS]))
        events |= EPOLLOUT;
    for (struct mag_fifo_node *n = r->waiting[POLLERS].head; n; n = n->next)
        events |= mag_container_of(n, struct mag_op, link)->flags & 0xffff;
    return events;
}

/* The number may belong to another file than when it was armed last. */
static int tell_kernel(struct epoll_ring *e, struct record *r, int fd)
{
    uint32_t events = wanted(r);
    int rc =
        mag_sys_epoll_ctl(e->epoll_fd, r->is_known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, events);

    if (rc == -ENOENT)
        rc = mag_sys_epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, events);
    else if (rc == -EEXIST)
        rc = mag_sys_epoll_ctl(e->epoll_fd, EPOLL_CTL_MOD, fd, events);
    r->is_known = rc == 0;
    return rc;
}

/* -EPERM: a file that cannot be watched, so its calls block; or there is no memory now. */
static void evict(struct epoll_ring *e, struct record *r, int why)
{
    struct mag_op *op;

    for (int i = 0; i < LISTS; i++)
        while ((op = pop(&r->waiting[i])) != NULL) {
            e->base.n_polled--;
            if (why == -EBADF)
                post(e, op, why);
            else if (why == -EPERM)
                hand_to_thread(e, op);
            else
                put_off(e, op);
        }
}

static void arm(struct epoll_ring *e, struct record *r, int fd)
{
    int rc = is_idle(r) ? 0 : tell_kernel(e, r, fd);

    if (rc < 0)
        evict(e, r, rc);
}

static void wait_in(struct epoll_ring *e, struct record *r, struct mag_op *op)
{
    op->state = STATE_WAITING;
    mag_fifo_push_back(&r->waiting[hows[op->code].list], &op->link);
    e->base.n_polled++;
}

static void wait_for(struct epoll_ring *e, struct mag_op *op)
{
    struct record *r = record_of(e, op->fd);

    if (r == NULL) {
        put_off(e, op);
        return;
    }
    wait_in(e, r, op);
    arm(e, r, op->fd);
}

static void place(struct epoll_ring *e, struct mag_op *op, int32_t rc)
{
    if (rc == WAIT)
        wait_for(e, op);
    else if (rc == JOB)
        hand_to_thread(e, op);
    else if (rc == LATER)
        put_off(e, op);
    else
        post(e, op, rc);
}

static bool is_impatient(const struct mag_op *op)
{
    bool is_of_socket = op->code >= MAG_OP_SEND && op->code <= MAG_OP_RECVMSG;
    bool is_vector =
        op->code == MAG_OP_WRITE || op->code == MAG_OP_READV || op->code == MAG_OP_WRITEV;

    return (is_of_socket && (op->flags & MSG_DONTWAIT)) || (is_vector && (op->flags & RWF_NOWAIT));
}

/* Invariant 4: others may be waiting for the same; who will not wait cannot be behind them. */
static bool is_after_others(struct epoll_ring *e, const struct mag_op *op)
{
    int list = is_impatient(op) ? LISTS : hows[op->code].list;
    struct record *r = list < POLLERS ? find_record(e, op->fd) : NULL;

    return r && !mag_fifo_empty(&r->waiting[list]);
}

static void begin(struct epoll_ring *e, struct mag_op *op)
{
    place(e, op, is_after_others(e, op) ? WAIT : attempt(e, op));
}

/* ---- what the kernel says ------------------------------------------------------------------- */

/* Tries those in a list; the first that still has to wait speaks for all behind it. */
static void serve(struct epoll_ring *e, struct record *r, int list)
{
    struct mag_fifo waiting = r->waiting[list];
    struct mag_op *op;
    int32_t rc;

    mag_fifo_init(&r->waiting[list]);
    while ((op = pop(&waiting)) != NULL) {
        rc = attempt(e, op);
        if (rc == WAIT) {
            mag_fifo_push_back(&r->waiting[list], &op->link);
            if (list != POLLERS)
                break;
            continue;
        }
        e->base.n_polled--;
        place(e, op, rc);
    }
    mag_fifo_splice(&r->waiting[list], &waiting);
}

static void on_event(struct epoll_ring *e, int fd, uint32_t events)
{
    struct record *r = find_record(e, fd);

    if (r == NULL)
        return;
    if (events & ~(uint32_t)EPOLLOUT)
        serve(e, r, READERS);
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
        serve(e, r, WRITERS);
    serve(e, r, POLLERS);
    arm(e, r, fd);
}

static void read_wake(struct epoll_ring *e)
{
    e->wakes_owed -= (int64_t)mag_sys_eventfd_take(e->wake_fd);
}

static int ask_kernel(struct epoll_ring *e, mag_time timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    int n = mag_sys_epoll_wait(e->epoll_fd, events, EVENTS_MAX, timeout_ns);

    for (int i = 0; i < n; i++)
        if (events[i].data.fd == e->wake_fd)
            read_wake(e);
        else
            on_event(e, events[i].data.fd, events[i].events);
    return n == -EINTR ? 0 : n;
}

/* ---- the owner's side --------------------------------------------------------------------------- */

static void ep_submit(struct mag_ring *r, struct mag_op *op)
{
    struct epoll_ring *e = ring_of(r);

    MAG_CHECK(op->state == STATE_NONE && op->code < MAG_OP_CODES && hows[op->code].attempt);
    r->n_in_flight++;
    op->result_flags = 0;
    mag_ring_lend(op);
    begin(e, op);
}

/*
 * Opening the other side, too, ends the wait of the thread, now or when it comes to wait;
 * so it stays open until then.  result_flags: it, plus 1.
 */
static void let_go(struct mag_op *op)
{
    struct statx stx = { .stx_mode = 0 };
    int fd;

    if (op->code != MAG_OP_OPENAT || op->result_flags ||
        mag_sys_statx(op->fd, op->addr, 0, STATX_TYPE, &stx) < 0 || !S_ISFIFO(stx.stx_mode))
        return;
    fd = mag_sys_openat(op->fd, op->addr, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd >= 0)
        op->result_flags = (uint32_t)fd + 1;
}

static void ep_cancel(struct mag_ring *r, struct mag_op *op)
{
    struct epoll_ring *e = ring_of(r);
    struct record *record = find_record(e, op->fd);

    MAG_CHECK(op->state != STATE_NONE);
    if (op->state == STATE_JOB) {
        if (mag_ring_jobs_drop(&e->jobs, op))
            post_cancelled(e, op);
        else
            let_go(op);
    } else if (op->state == STATE_WAITING) {
        MAG_CHECK(mag_ring_fifo_remove(&record->waiting[hows[op->code].list], op));
        r->n_polled--;
        post_cancelled(e, op);
    } else if (op->state == STATE_LATER) {
        MAG_CHECK(mag_ring_fifo_remove(&e->later, op));
        r->n_polled--;
        post_cancelled(e, op);
    }
}

static void cancel_waiting(struct epoll_ring *e, int fd)
{
    struct record *r = find_record(e, fd);
    struct mag_op *op;

    if (r == NULL)
        return;
    for (int i = 0; i < LISTS; i++)
        while ((op = pop(&r->waiting[i])) != NULL) {
            e->base.n_polled--;
            post_cancelled(e, op);
        }
    r->is_known = false;
}

/* Once each, although they may be put off again. */
static int ep_flush(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);

    for (size_t n = e->later.count; n > 0; n--) {
        struct mag_op *op = pop(&e->later);
        r->n_polled--;
        begin(e, op);
    }
    return 0;
}

static void take_finished(struct epoll_ring *e)
{
    struct mag_fifo finished;
    struct mag_op *op;

    if (mag_load_acquire(&e->jobs.n_finished) == 0)
        return;
    mag_fifo_init(&finished);
    mag_ring_jobs_take(&e->jobs, &finished);
    while ((op = pop(&finished)) != NULL)
        done(e, op);
}

static void finish(struct epoll_ring *e, struct mag_op *op)
{
    if (op->code == MAG_OP_OPENAT && op->result_flags)
        (void)mag_sys_close((int)(op->result_flags - 1));
    op->result_flags = 0;
    op->state = STATE_NONE;
    mag_ring_give_back(op, op->result);
    MAG_CHECK(e->base.n_in_flight > 0);
    e->base.n_in_flight--;
    e->base.reaped++;
    op->complete(op);
}

static unsigned ep_reap_posted(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);
    unsigned n;

    take_finished(e);
    n = (unsigned)e->done.count;
    for (unsigned i = 0; i < n; i++)
        finish(e, pop(&e->done));
    return n;
}

static unsigned ep_reap(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);

    if (r->n_polled > e->later.count)
        (void)ask_kernel(e, 0);
    return ep_reap_posted(r);
}

static void ep_kick(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);

    e->is_kicking = true;
    (void)ask_kernel(e, 0);
    e->is_kicking = false;
}

/* ---- sleeping and waking ---------------------------------------------------------------------------- */

static bool has_results(const struct epoll_ring *e)
{
    return !mag_fifo_empty(&e->done) || mag_load_acquire(&e->jobs.n_finished) != 0;
}

static mag_time time_left(const struct epoll_ring *e, mag_time deadline)
{
    mag_time now = deadline == MAG_NEVER ? 0 : mag_clock_now();
    mag_time left = deadline == MAG_NEVER ? MAG_NEVER : deadline > now ? deadline - now : 0;

    if (!mag_fifo_empty(&e->later) && left > LATER_NS)
        left = LATER_NS;
    return left;
}

static int sleep_until(struct epoll_ring *e, mag_time deadline)
{
    int rc = 0;

    if (!has_results(e))
        rc = ask_kernel(e, time_left(e, deadline));
    return rc < 0 ? rc : 0;
}

static bool begin_sleep(struct epoll_ring *e)
{
    uint32_t was = AWAKE;

    if (mag_cas_seq(&e->wake, &was, ASLEEP))
        return true;
    (void)mag_xchg_seq(&e->wake, AWAKE); /* a wake came before: it is consumed */
    return false;
}

static void end_sleep(struct epoll_ring *e)
{
    if (mag_xchg_seq(&e->wake, AWAKE) == WOKEN)
        e->wakes_owed++;
}

static int ep_sleep(struct mag_ring *r, mag_time deadline)
{
    struct epoll_ring *e = ring_of(r);
    int rc;

    (void)ep_flush(r);
    if (!begin_sleep(e))
        return 0;
    rc = sleep_until(e, deadline);
    end_sleep(e);
    return rc;
}

/* Whoever waits elsewhere waits for epoll's descriptor, which everything shows at. */
static int ep_watch(struct mag_ring *r, int event_fd)
{
    (void)event_fd;
    return ring_of(r)->epoll_fd;
}

/* A wake that was seen must not go on showing. */
static void ep_rouse(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);

    end_sleep(e);
    if (e->wakes_owed > 0)
        read_wake(e);
}

static int ep_doze(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);

    (void)ep_flush(r);
    if (!begin_sleep(e))
        return 0;
    if (!has_results(e) && mag_fifo_empty(&e->later))
        return 1;
    ep_rouse(r);
    return 0;
}

/* After the exchange the ring may be closed, as soon as the write was read. */
static void ep_wake(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);
    const uint64_t one = 1;
    int fd = e->wake_fd;
    ssize_t n;

    if (mag_xchg_seq(&e->wake, WOKEN) != ASLEEP)
        return;
    do
        n = mag_sys_write(fd, &one, sizeof one);
    while (n == -EINTR);
    MAG_CHECK(n == (ssize_t)sizeof one); /* a lost wake would be a hang */
}

static void wake_for_job(struct mag_ring_jobs *jobs)
{
    ep_wake(&mag_container_of(jobs, struct epoll_ring, jobs)->base);
}

/* ---- life ------------------------------------------------------------------------------------------ */

static bool settle_wakes(struct epoll_ring *e)
{
    for (int i = 0; i < CLOSE_ATTEMPTS_MAX && e->wakes_owed > 0; i++)
        (void)ask_kernel(e, LATER_NS);
    return e->wakes_owed <= 0;
}

/* Where a waker may yet write to the eventfd, that is left to it. */
static void ep_close(struct mag_ring *r)
{
    struct epoll_ring *e = ring_of(r);

    mag_ring_jobs_close(&e->jobs);
    if (settle_wakes(e))
        (void)mag_sys_close(e->wake_fd);
    (void)mag_sys_close(e->epoll_fd);
    for (size_t i = 0; i < e->n_chunks; i++)
        mag_mem_free(e->chunks[i]);
    mag_mem_free(e->chunks);
    mag_mem_free(e);
}

static const struct mag_ring_ops ep_ops = {
    .name = "epoll",
    .close = ep_close,
    .submit = ep_submit,
    .cancel = ep_cancel,
    .flush = ep_flush,
    .reap = ep_reap,
    .kick = ep_kick,
    .reap_posted = ep_reap_posted,
    .sleep = ep_sleep,
    .wake = ep_wake,
    .watch = ep_watch,
    .doze = ep_doze,
    .rouse = ep_rouse,
};

static int open_descriptors(struct epoll_ring *e)
{
    int rc;

    e->wake_fd = mag_sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->wake_fd < 0)
        return e->wake_fd;
    e->epoll_fd = mag_sys_epoll_create();
    rc = e->epoll_fd < 0 ? e->epoll_fd : mag_sys_epoll_add(e->epoll_fd, e->wake_fd);
    if (rc == 0)
        return 0;
    if (e->epoll_fd >= 0)
        (void)mag_sys_close(e->epoll_fd);
    (void)mag_sys_close(e->wake_fd);
    return rc;
}

int mag_ring_epoll_open(struct mag_ring **out, unsigned entries)
{
    struct epoll_ring *e = mag_mem_alloc_aligned(_Alignof(struct epoll_ring), sizeof *e);
    int rc = -ENOMEM;

    (void)entries; /* there are no queues of fixed size */
    if (e) {
        *e = (struct epoll_ring){ .wake = AWAKE };
        rc = open_descriptors(e);
    }
    if (rc < 0) {
        mag_ring_set_why("epoll: %s: no descriptor or no memory is left for a ring",
                         mag_err_name(rc));
        mag_mem_free(e);
        return rc;
    }
    mag_ring_jobs_open(&e->jobs);
    e->jobs.run = run_job;
    e->jobs.wake = wake_for_job;
    e->base.ops = &ep_ops;
    e->base.posted = &e->n_posted;
    e->base.attention = &e->jobs.n_finished;
    e->base.attention_mask = UINT32_MAX;
    e->base.lacks = find_lacks();
    *out = &e->base;
    return 0;
}
