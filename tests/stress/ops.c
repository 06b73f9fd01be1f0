/* SPDX-License-Identifier: MIT */
/*
 * ops.c - every operation, in every way in which it may end
 *
 *                      completes | cancelled before | cancelled in flight | cancelled as it completes
 *      read of a pipe      x              x                   x                         x
 *      ...                     ... | times out | descriptor closed under it | runtime stops
 *
 * A row is an operation: what it needs (make), the call, what lets it end (release), and what must
 * hold afterwards, whatever the call said (is_sound): all bytes that went in came out, or are
 * still there; a file that was to be made is there if and only if the call says so.  Rows of two
 * kinds: those that wait for a release, and those that end by themselves, which the other task
 * may meet at any moment; for these own result and cancellation are both right, if the
 * effect agrees.  After each cell as many descriptors are open as before.  In ASan builds
 * memory that the kernel may write to must be poisoned as long as the operation waits.
 *
 * A cell that makes no sense is named with the reason.  A code of ring.h that has no row fails.
 * With an argument, `ops WORD' runs the rows whose name contains it, and names each cell.
 */
#include "stress.h"

#include "op.h"
#include "ring.h"

#include <magpie/inspect.h>
#include <magpie/net.h>
#include <magpie/scope.h>

#include <errno.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

#if MAG_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum way { COMPLETES, BEFORE, IN_FLIGHT, RACES, TIMES_OUT, CLOSED, STOPS, WAYS };

static const char *const way_names[WAYS] = {
    [COMPLETES] = "completes",           [BEFORE] = "cancelled before it is submitted",
    [IN_FLIGHT] = "cancelled in flight", [RACES] = "cancelled as it completes",
    [TIMES_OUT] = "times out",           [CLOSED] = "descriptor closed under it",
    [STOPS] = "runtime stops",
};

enum { FDS = 8, LENT = 5, BYTES = 64, TRIES = STRESS_SCALE(4, 2) };

/* What a cell works on.  fd[0] is the one that may be closed under the call. */
struct cell {
    int fd[FDS];
    int n;
    char dir[32], path[64], path2[64];
    size_t given; /* bytes on their way, or in the way, before the call  */
    size_t moved; /* the calls say                                        */
    size_t taken; /* out at the other end                                 */
    struct sockaddr_storage addr;
    socklen_t addr_len;
    _Alignas(8) char in[BYTES]; /* ASan poisons whole eights of bytes */
    _Alignas(8) char in2[BYTES];
    _Alignas(8) char control[BYTES];
    struct sockaddr_storage from;
    struct iovec parts[2];
    struct msghdr message;
    struct statx stx;
    struct lent {
        const void *p;
        size_t n;
    } lent[LENT]; /* must be poisoned while the call waits */
};

struct row {
    const char *name;
    enum mag_op_code code;
    void (*make)(struct cell *c);
    int (*call)(struct cell *c);
    void (*release)(struct cell *c);                /* NULL: it ends by itself              */
    bool (*is_sound)(struct cell *c, bool is_done); /* NULL: the descriptors say it all     */
    const char *without[WAYS];                      /* why there is no such cell            */
    int partial;                                    /* moved before it waits, and so answered */
    bool is_shielded;                               /* a cancelled task does it all the same */
    bool is_counted;                                /* the result is bytes                   */
    bool has_modes;                                 /* fd[0] may be blocking or not          */
};

static const struct row *now_row;
static const char *now_way = "", *now_mode = "";
static const char *wanted;
static unsigned n_cells, n_left_out;

static void wrong(const char *what, int line)
{
    mag_fetch_add(&stress.n_wrong, 1);
    fprintf(stderr, "ops: FAILS: %s, %s%s: %s (ops.c:%d)\n", now_row->name, now_way, now_mode, what,
            line);
}

#define HOLDS(cond) ((cond) ? (void)0 : wrong(#cond, __LINE__))
#define MUST(cond)  ((cond) ? (void)0 : (perror(#cond), abort()))

#if MAG_TSAN
/* It knows descriptors by the system calls on them, and does not see those that the ring closes:
 * who gets such a number next, by open(2), seems to race with its former user. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\n";
}
#endif

/* ---- sockets and pipes ------------------------------------------------------------------- */

static void set_blocking(int fd, bool is_blocking)
{
    int flags = fcntl(fd, F_GETFL);

    MUST(fcntl(fd, F_SETFL, is_blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0);
}

static void lend(struct cell *c, const void *p, size_t n)
{
    for (int i = 0; i < LENT; i++)
        if (c->lent[i].p == NULL) {
            c->lent[i] = (struct lent){ p, n };
            return;
        }
    abort();
}

static size_t fill(int fd)
{
    static const char chunk[4096];
    size_t total = 0;
    ssize_t n;

    set_blocking(fd, false);
    while ((n = write(fd, chunk, sizeof chunk)) > 0)
        total += (size_t)n;
    while ((n = write(fd, chunk, 1)) > 0)
        total += (size_t)n;
    set_blocking(fd, true);
    return total;
}

static size_t drain(int fd)
{
    char chunk[4096];
    size_t total = 0;
    ssize_t n;

    set_blocking(fd, false);
    while ((n = read(fd, chunk, sizeof chunk)) > 0)
        total += (size_t)n;
    return total;
}

static void make_pair(struct cell *c)
{
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->fd) == 0);
    c->n = 2;
}

static void make_pipe(struct cell *c)
{
    MUST(pipe2(c->fd, O_CLOEXEC) == 0);
    c->n = 2;
}

static void make_read_pair(struct cell *c)
{
    make_pair(c);
    lend(c, c->in, 8);
}

/* Half of what it waits for is there, and is received at once. */
static void make_half(struct cell *c)
{
    make_read_pair(c);
    MUST(write(c->fd[1], "1234", 4) == 4);
    c->given = 4;
}

static void make_read_pipe(struct cell *c)
{
    make_pipe(c);
    lend(c, c->in, 8);
}

static void make_full_pair(struct cell *c)
{
    make_pair(c);
    c->given = fill(c->fd[0]);
}

static void make_full_pipe(struct cell *c)
{
    make_pipe(c);
    int reads = c->fd[0];
    c->fd[0] = c->fd[1];
    c->fd[1] = reads;
    c->given = fill(c->fd[0]);
}

static void make_parts(struct cell *c)
{
    c->parts[0] = (struct iovec){ c->in, 8 };
    c->parts[1] = (struct iovec){ c->in2, 8 };
}

static void make_readv(struct cell *c)
{
    make_pipe(c);
    make_parts(c);
    lend(c, c->in, 8);
    lend(c, c->in2, 8);
}

static void make_recvmsg(struct cell *c)
{
    make_pair(c);
    make_parts(c);
    c->message = (struct msghdr){ .msg_name = &c->from,
                                  .msg_namelen = sizeof c->from,
                                  .msg_iov = c->parts,
                                  .msg_iovlen = 2,
                                  .msg_control = c->control,
                                  .msg_controllen = sizeof c->control };
    lend(c, c->in, 8);
    lend(c, c->in2, 8);
    lend(c, &c->from, sizeof c->from);
    lend(c, c->control, sizeof c->control);
    lend(c, &c->message, sizeof c->message);
}

static void make_recvfrom(struct cell *c)
{
    make_read_pair(c);
    lend(c, &c->from, sizeof c->from);
}

static void make_full_parts(struct cell *c)
{
    make_full_pair(c);
    make_parts(c);
    c->message = (struct msghdr){ .msg_iov = c->parts, .msg_iovlen = 2 };
}

/* From the pipe fd[0] to the pipe fd[3]. */
static void make_pipes(struct cell *c)
{
    make_pipe(c);
    MUST(pipe2(c->fd + 2, O_CLOEXEC) == 0);
    c->n = 4;
}

static void make_pair_to_pipe(struct cell *c)
{
    make_pair(c);
    MUST(pipe2(c->fd + 2, O_CLOEXEC) == 0);
    c->n = 4;
}

static void make_pipe_to_full_pair(struct cell *c)
{
    make_full_pair(c);
    MUST(pipe2(c->fd + 2, O_CLOEXEC) == 0);
    c->n = 4;
    MUST(write(c->fd[3], "12345678", 8) == 8);
}

/* From fd[2], which has something, into the full pipe fd[0]. */
static void make_full_pipes(struct cell *c)
{
    make_full_pipe(c);
    MUST(pipe2(c->fd + 2, O_CLOEXEC) == 0);
    c->n = 4;
    MUST(write(c->fd[3], "12345678", 8) == 8);
}

static int listener(struct cell *c, int domain, int backlog)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un un = { .sun_family = AF_UNIX }; /* the kernel makes up a name */
    int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);

    c->addr_len = sizeof c->addr;
    MUST((domain == AF_INET ? bind(fd, (void *)&in, sizeof in)
                            : bind(fd, (void *)&un, sizeof un.sun_family)) == 0);
    MUST(listen(fd, backlog) == 0);
    MUST(getsockname(fd, (struct sockaddr *)&c->addr, &c->addr_len) == 0);
    return fd;
}

static void make_listener(struct cell *c)
{
    c->fd[0] = listener(c, AF_INET, 8);
    c->fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->n = 2;
    lend(c, &c->from, sizeof c->from);
}

/* fd[0] is to be connected to a listener that has no room. */
static void make_crowd(struct cell *c, int domain)
{
    c->fd[1] = listener(c, domain, 0);
    c->fd[0] = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->n = 2;
    for (int i = 0; i < 3; i++) {
        int fd = c->fd[c->n++] = socket(domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(fd, (struct sockaddr *)&c->addr, c->addr_len);
    }
}

static void make_crowd_unix(struct cell *c)
{
    make_crowd(c, AF_UNIX);
}

static void make_crowd_tcp(struct cell *c)
{
    make_crowd(c, AF_INET);
}

static int call_read(struct cell *c)
{
    return mag_read(c->fd[0], c->in, 8);
}

static int call_readv(struct cell *c)
{
    return mag_readv(c->fd[0], c->parts, 2);
}

static int call_recv(struct cell *c)
{
    return mag_recv(c->fd[0], c->in, 8, 0);
}

static int call_recv_all(struct cell *c)
{
    return mag_recv(c->fd[0], c->in, 8, MSG_WAITALL);
}

static int call_recvmsg(struct cell *c)
{
    c->message.msg_namelen = sizeof c->from;
    c->message.msg_controllen = sizeof c->control;
    return mag_recvmsg(c->fd[0], &c->message, 0);
}

static int call_recvfrom(struct cell *c)
{
    socklen_t len = sizeof c->from;

    return mag_recvfrom(c->fd[0], c->in, 8, 0, (struct sockaddr *)&c->from, &len);
}

static int call_write(struct cell *c)
{
    return mag_write(c->fd[0], c->in, 8);
}

static int call_writev(struct cell *c)
{
    return mag_writev(c->fd[0], c->parts, 2);
}

static int call_send(struct cell *c)
{
    return mag_send(c->fd[0], c->in, 8, 0);
}

static int call_sendmsg(struct cell *c)
{
    return mag_sendmsg(c->fd[0], &c->message, 0);
}

/* What went is told beside the result, which is an error if it was not all. */
static int call_all(struct cell *c, bool is_send)
{
    enum { MANY = 300000 };
    static const char many[MANY];
    size_t done = 99;
    int rc = is_send ? mag_send_all(c->fd[0], many, MANY, 0, &done)
                     : mag_write_all(c->fd[0], many, MANY, &done);

    HOLDS(rc < 0 || done == MANY);
    c->moved += done;
    return rc;
}

static int call_send_all(struct cell *c)
{
    return call_all(c, true);
}

static int call_write_all(struct cell *c)
{
    return call_all(c, false);
}

static int call_poll(struct cell *c)
{
    int rc = mag_poll_fd(c->fd[0], POLLIN);

    HOLDS(rc < 0 || rc == POLLIN);
    return rc;
}

static int call_splice(struct cell *c)
{
    return mag_splice(c->fd[0], NULL, c->fd[3], NULL, 100, 0);
}

static int call_splice_into(struct cell *c)
{
    return mag_splice(c->fd[2], NULL, c->fd[0], NULL, 8, 0);
}

static int call_accept(struct cell *c)
{
    socklen_t len = sizeof c->from;
    int fd = mag_accept(c->fd[0], (struct sockaddr *)&c->from, &len, 0);

    if (fd < 0)
        return fd;
    HOLDS(len == sizeof(struct sockaddr_in) && c->from.ss_family == AF_INET);
    close(fd);
    return 0;
}

static int call_connect(struct cell *c)
{
    return mag_connect_fd(c->fd[0], (struct sockaddr *)&c->addr, c->addr_len);
}

static void feed(struct cell *c)
{
    MUST(write(c->fd[1], "12345678", 8) == 8);
    c->given += 8;
}

static void empty(struct cell *c)
{
    c->taken += drain(c->fd[1]);
}

/* And on, until the call has ended: it sends more than there is room for. */
static void empty_on(struct cell *c)
{
    for (int i = 0; i < 100; i++) {
        empty(c);
        mag_sleep(50 * MAG_US);
    }
}

static void knock(struct cell *c)
{
    MUST(connect(c->fd[1], (struct sockaddr *)&c->addr, c->addr_len) == 0);
}

static void make_room(struct cell *c)
{
    set_blocking(c->fd[1], false);
    for (int i = 0; i < 2; i++)
        c->fd[c->n++] = accept4(c->fd[1], NULL, NULL, SOCK_CLOEXEC);
}

/* What came in was received, or is still there. */
static bool is_all_received(struct cell *c, bool is_done)
{
    (void)is_done;
    return c->fd[0] < 0 || c->given == c->moved + drain(c->fd[0]);
}

static bool is_all_sent(struct cell *c, bool is_done)
{
    (void)is_done;
    empty(c);
    return c->given + c->moved == c->taken;
}

static bool is_all_spliced(struct cell *c, bool is_done)
{
    size_t there = drain(c->fd[2]);

    (void)is_done;
    return there == c->moved && (c->fd[0] < 0 || c->given == there + drain(c->fd[0]));
}

static bool is_all_spliced_into(struct cell *c, bool is_done)
{
    return is_all_sent(c, is_done) && c->moved + drain(c->fd[2]) == 8;
}

/* ---- files and names ------------------------------------------------------------------------ */

static int perform(struct mag_op op)
{
    return mag_op_call(&op);
}

#define OP(name, ...) perform((struct mag_op){ .code = MAG_OP_##name, __VA_ARGS__ })

static void *path_of(const char *p)
{
    return (void *)(uintptr_t)p;
}

/* fd[0] is the directory, and the names are relative to it. */
static void make_dir(struct cell *c)
{
    snprintf(c->dir, sizeof c->dir, "/tmp/mag-ops-XXXXXX");
    MUST(mkdtemp(c->dir));
    snprintf(c->path, sizeof c->path, "%s/a", c->dir);
    snprintf(c->path2, sizeof c->path2, "%s/b", c->dir);
    MUST((c->fd[0] = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    c->n = 1;
}

static void make_dir_with(struct cell *c)
{
    int fd;

    make_dir(c);
    MUST((fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) >= 0);
    MUST(write(fd, "0123456789", 10) == 10);
    close(fd);
}

/* fd[0] is a file of 10 bytes. */
static void make_file(struct cell *c)
{
    make_dir_with(c);
    close(c->fd[0]);
    MUST((c->fd[0] = open(c->path, O_RDWR | O_CLOEXEC)) >= 0);
    make_parts(c);
}

static void make_fifo(struct cell *c)
{
    make_dir(c);
    MUST(mkfifo(c->path, 0600) == 0);
}

/* Anything to be closed. */
static void make_spare(struct cell *c)
{
    MUST((c->fd[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
    c->n = 1;
}

static int closed(int fd)
{
    if (fd >= 0)
        close(fd);
    return fd < 0 ? fd : 0;
}

/* O_CREAT keeps io_uring from asking for O_NONBLOCK first, with which it would not wait. */
static int call_open_fifo(struct cell *c)
{
    return closed(mag_op_open(AT_FDCWD, c->path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
}

static void open_other_side(struct cell *c)
{
    MUST((c->fd[c->n++] = open(c->path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) >= 0);
}

static int call_open(struct cell *c)
{
    return closed(mag_op_open(c->fd[0], "b", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
}

static int call_open2(struct cell *c)
{
    struct open_how how = { .flags = O_RDWR | O_CREAT | O_CLOEXEC,
                            .mode = 0600,
                            .resolve = RESOLVE_BENEATH };
    int rc = mag_op_open2(c->fd[0], "../b", &how);

    HOLDS(rc == -EXDEV || rc == -ECANCELED || rc == -EBADF);
    return closed(mag_op_open2(c->fd[0], "b", &how));
}

static int call_socket(struct cell *c)
{
    (void)c;
    return closed(mag_socket(AF_INET, SOCK_STREAM, 0));
}

static int call_shutdown(struct cell *c)
{
    return mag_shutdown(c->fd[0], SHUT_WR);
}

static int call_close(struct cell *c)
{
    int rc = mag_op_close(c->fd[0]);

    c->fd[0] = -1;
    return rc;
}

static int call_fsync(struct cell *c)
{
    return mag_op_fsync(c->fd[0], false);
}

static int call_statx(struct cell *c)
{
    int rc = mag_op_statx(c->fd[0], "a", 0, STATX_SIZE, &c->stx);

    HOLDS(rc < 0 || c->stx.stx_size == 10);
    c->stx.stx_size = 0; /* it is ours again */
    return rc;
}

static int call_pread(struct cell *c)
{
    int rc = mag_op_read(c->fd[0], c->in, 8, 1);

    HOLDS(rc < 0 || (rc == 8 && memcmp(c->in, "12345678", 8) == 0));
    return rc;
}

static int call_pwrite(struct cell *c)
{
    return mag_op_write(c->fd[0], "abcdefgh", 8, 10);
}

static int call_preadv(struct cell *c)
{
    int rc = OP(READV, .fd = c->fd[0], .addr = c->parts, .len = 2, .offset = 1);

    HOLDS(rc < 0 || (rc == 9 && memcmp(c->in, "12345678", 8) == 0 && c->in2[0] == '9'));
    return rc;
}

static int call_pwritev(struct cell *c)
{
    return OP(WRITEV, .fd = c->fd[0], .addr = c->parts, .len = 2, .offset = 2);
}

static int call_ftruncate(struct cell *c)
{
    return OP(FTRUNCATE, .fd = c->fd[0], .offset = 18);
}

static int call_fallocate(struct cell *c)
{
    return OP(FALLOCATE, .fd = c->fd[0], .offset = 10, .addr = mag_op_number(8));
}

static int call_fadvise(struct cell *c)
{
    return OP(FADVISE, .fd = c->fd[0], .flags = POSIX_FADV_WILLNEED);
}

static int call_rename(struct cell *c)
{
    return OP(RENAMEAT, .fd = c->fd[0], .addr = path_of("a"), .len = (uint32_t)c->fd[0],
              .offset = mag_op_pointer("b"));
}

static int call_link(struct cell *c)
{
    return OP(LINKAT, .fd = c->fd[0], .addr = path_of("a"), .len = (uint32_t)c->fd[0],
              .offset = mag_op_pointer("b"));
}

static int call_symlink(struct cell *c)
{
    return OP(SYMLINKAT, .fd = c->fd[0], .addr = path_of("a"), .offset = mag_op_pointer("b"));
}

static int call_unlink(struct cell *c)
{
    return OP(UNLINKAT, .fd = c->fd[0], .addr = path_of("a"));
}

static int call_mkdir(struct cell *c)
{
    return OP(MKDIRAT, .fd = c->fd[0], .addr = path_of("b"), .len = 0700);
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static bool is_made(struct cell *c, bool is_done)
{
    return exists(c->path2) == is_done;
}

/* Cancelled, it may have been made all the same: open(2) is two things. */
static bool is_made_if_opened(struct cell *c, bool is_done)
{
    return !is_done || exists(c->path2);
}

static bool is_moved(struct cell *c, bool is_done)
{
    return exists(c->path2) == is_done && exists(c->path) == !is_done;
}

static bool is_gone(struct cell *c, bool is_done)
{
    return exists(c->path) == !is_done;
}

static bool is_longer(struct cell *c, bool is_done)
{
    struct stat st;

    return stat(c->path, &st) == 0 && st.st_size == (is_done ? 18 : 10);
}

static bool is_closed(struct cell *c, bool is_done)
{
    return is_done == (c->fd[0] == -1);
}

/* ---- the table ---------------------------------------------------------------------------------- */

#define NO_DESCRIPTOR \
    { \
        [CLOSED] = "it has no descriptor" \
    }
#define BYTES_IN  .is_sound = is_all_received, .is_counted = true, .has_modes = true
#define BYTES_OUT .is_sound = is_all_sent, .is_counted = true, .has_modes = true

/* clang-format off */
static const struct row rows[] = {
    { "read of a pipe", MAG_OP_READ, make_read_pipe, call_read, feed, BYTES_IN },
    { "read of a socket", MAG_OP_READ, make_read_pair, call_read, feed, BYTES_IN },
    { "readv", MAG_OP_READV, make_readv, call_readv, feed, BYTES_IN },
    { "recv", MAG_OP_RECV, make_read_pair, call_recv, feed, BYTES_IN },
    { "recv with MSG_WAITALL", MAG_OP_RECV, make_half, call_recv_all, feed, BYTES_IN,
      .partial = 4 },
    { "recvmsg", MAG_OP_RECVMSG, make_recvmsg, call_recvmsg, feed, BYTES_IN },
    { "recvfrom", MAG_OP_RECVMSG, make_recvfrom, call_recvfrom, feed, BYTES_IN },
    { "write to a pipe", MAG_OP_WRITE, make_full_pipe, call_write, empty, BYTES_OUT },
    { "write to a socket", MAG_OP_WRITE, make_full_pair, call_write, empty, BYTES_OUT },
    { "write_all", MAG_OP_WRITE, make_full_pair, call_write_all, empty_on,
      .is_sound = is_all_sent, .has_modes = true },
    { "writev", MAG_OP_WRITEV, make_full_parts, call_writev, empty, BYTES_OUT },
    { "send", MAG_OP_SEND, make_full_pair, call_send, empty, BYTES_OUT },
    { "send_all", MAG_OP_SEND, make_full_pair, call_send_all, empty_on,
      .is_sound = is_all_sent, .has_modes = true },
    { "sendmsg", MAG_OP_SENDMSG, make_full_parts, call_sendmsg, empty, BYTES_OUT },
    { "poll", MAG_OP_POLL, make_pair, call_poll, feed, .has_modes = true },
    { "splice, nothing to read", MAG_OP_SPLICE, make_pipes, call_splice, feed,
      .is_sound = is_all_spliced, .is_counted = true, .has_modes = true },
    { "splice, no room to write", MAG_OP_SPLICE, make_full_pipes, call_splice_into, empty,
      .is_sound = is_all_spliced_into, .is_counted = true, .has_modes = true },
    { "splice from a socket", MAG_OP_SPLICE, make_pair_to_pipe, call_splice, feed,
      .is_sound = is_all_spliced, .is_counted = true, .has_modes = true },
    { "splice to a full socket", MAG_OP_SPLICE, make_pipe_to_full_pair, call_splice_into, empty,
      .is_sound = is_all_spliced_into, .is_counted = true, .has_modes = true },
    { "accept", MAG_OP_ACCEPT, make_listener, call_accept, knock, .has_modes = true },
    { "connect to a full backlog", MAG_OP_CONNECT, make_crowd_unix, call_connect, make_room, .has_modes = false },
    { "connect over TCP", MAG_OP_CONNECT, make_crowd_tcp, call_connect, make_room,
      .without = { [COMPLETES] = "the next SYN goes out after a second" } },
    { "open of a FIFO", MAG_OP_OPENAT, make_fifo, call_open_fifo, open_other_side,
      .without = NO_DESCRIPTOR },

    { "open", MAG_OP_OPENAT, make_dir, call_open, .is_sound = is_made_if_opened },
    { "openat2", MAG_OP_OPENAT2, make_dir, call_open2, .is_sound = is_made_if_opened },
    { "socket", MAG_OP_SOCKET, make_spare, call_socket, .without = NO_DESCRIPTOR },
    { "shutdown", MAG_OP_SHUTDOWN, make_pair, call_shutdown, .release = NULL },
    { "close", MAG_OP_CLOSE, make_spare, call_close, .is_sound = is_closed, .is_shielded = true,
      .without = { [CLOSED] = "then the number is another's" } },
    { "fsync", MAG_OP_FSYNC, make_file, call_fsync, .release = NULL },
    { "statx", MAG_OP_STATX, make_dir_with, call_statx, .release = NULL },
    { "read of a file", MAG_OP_READ, make_file, call_pread, .release = NULL },
    { "write of a file", MAG_OP_WRITE, make_file, call_pwrite, .is_sound = is_longer },
    { "readv of a file", MAG_OP_READV, make_file, call_preadv, .release = NULL },
    { "writev of a file", MAG_OP_WRITEV, make_file, call_pwritev, .is_sound = is_longer },
    { "ftruncate", MAG_OP_FTRUNCATE, make_file, call_ftruncate, .is_sound = is_longer },
    { "fallocate", MAG_OP_FALLOCATE, make_file, call_fallocate, .is_sound = is_longer },
    { "fadvise", MAG_OP_FADVISE, make_file, call_fadvise, .release = NULL },
    { "renameat", MAG_OP_RENAMEAT, make_dir_with, call_rename, .is_sound = is_moved },
    { "linkat", MAG_OP_LINKAT, make_dir_with, call_link, .is_sound = is_made },
    { "symlinkat", MAG_OP_SYMLINKAT, make_dir, call_symlink, .is_sound = is_made },
    { "unlinkat", MAG_OP_UNLINKAT, make_dir_with, call_unlink, .is_sound = is_gone },
    { "mkdirat", MAG_OP_MKDIRAT, make_dir, call_mkdir, .is_sound = is_made },
};
/* clang-format on */
enum { ROWS = sizeof rows / sizeof rows[0] };

/* NOP does nothing, and no call of op.h submits it; unit/ring.c does. */
static void every_code_has_a_row(void)
{
    for (unsigned code = MAG_OP_NOP + 1; code < MAG_OP_CODES; code++) {
        int i = 0;
        while (i < ROWS && rows[i].code != code)
            i++;
        if (i == ROWS)
            stress_wrong(mag_op_name(code), "no row for this code", 0);
    }
}

/* ---- a cell -------------------------------------------------------------------------------------- */

async(int, attempt, (const struct row *, row), (struct cell *, c), (bool, is_cancelled))
{
    int rc;

    if (is_cancelled)
        HOLDS(mag_cancel(mag_self()) == 0);
    rc = row->call(c);
    if (rc < 0)
        return rc;
    c->moved += row->is_counted ? (size_t)rc : 0;
    async_return(rc);
}

static int result_of(struct attempt *a)
{
    int value = 0, rc = mag_await(a, &value, sizeof value);

    return rc < 0 ? rc : value;
}

/* Until the call waits in the kernel, or on a thread. */
static void wait_in_flight(struct mag_rt *rt, struct attempt *a)
{
    struct mag_task_info info[8];
    size_t n;

    for (int i = 0; i < 100000 && !mag_done(a); i++) {
        n = mag_tasks(rt, info, 8);
        for (size_t t = 0; t < n && t < 8; t++)
            if (strcmp(info[t].name, "attempt") == 0 && info[t].state == MAG_TASK_WAITING &&
                info[t].waiting_for && strcmp(info[t].waiting_for, "task") != 0)
                return;
        stress_beat();
    }
}

static struct attempt *begin(const struct row *row, struct cell *c)
{
    struct attempt *a = attempt(row, c, false);

    MUST(mag_start(a, NULL) == 0);
    return a;
}

static struct attempt *begin_in_flight(const struct row *row, struct cell *c)
{
    struct attempt *a = begin(row, c);

    if (row->release) {
        wait_in_flight(NULL, a);
        HOLDS(!mag_done(a));
    } else if (n_cells % 2) {
        mag_yield();
    }
    return a;
}

static void check_lent(const struct cell *c, bool is_lent)
{
#if MAG_ASAN
    for (int i = 0; i < LENT && c->lent[i].p; i++)
        if (is_lent)
            HOLDS(__asan_address_is_poisoned(c->lent[i].p) &&
                  __asan_address_is_poisoned((const char *)c->lent[i].p + c->lent[i].n - 1));
        else
            HOLDS(!__asan_region_is_poisoned((void *)(uintptr_t)c->lent[i].p, c->lent[i].n));
#else
    (void)c, (void)is_lent;
#endif
}

/* One that ends by itself may have done so. */
static bool is_fine(const struct row *row, int rc, int why)
{
    if (row->partial)
        return rc == row->partial;
    return rc == why || (row->release == NULL && rc >= 0);
}

static int completes(const struct row *row, struct cell *c)
{
    struct attempt *a = begin_in_flight(row, c);
    int rc;

    if (row->release)
        row->release(c);
    rc = result_of(a);
    HOLDS(rc >= 0);
    return rc;
}

static int cancelled_before(const struct row *row, struct cell *c)
{
    struct attempt *a = attempt(row, c, true);
    int rc;

    MUST(mag_start(a, NULL) == 0);
    rc = result_of(a);
    HOLDS(row->is_shielded ? rc == 0 : rc == -ECANCELED);
    return rc;
}

/* And nothing is lost: the next one completes. */
static int cancelled_in_flight(const struct row *row, struct cell *c)
{
    struct attempt *a = begin_in_flight(row, c);
    int rc;

    if (row->release)
        check_lent(c, true);
    HOLDS(mag_cancel(a) == 0);
    rc = result_of(a);
    HOLDS(is_fine(row, rc, -ECANCELED));
    check_lent(c, false);
    if (row->release && row->code != MAG_OP_CONNECT && !row->without[COMPLETES])
        rc = completes(row, c);
    return rc;
}

static int cancelled_as_it_completes(const struct row *row, struct cell *c)
{
    struct attempt *a = begin_in_flight(row, c);
    int rc;

    if (row->release && row->release != empty_on)
        row->release(c);
    HOLDS(mag_cancel(a) == 0);
    rc = result_of(a);
    HOLDS(rc >= 0 || rc == -ECANCELED);
    return rc;
}

static int times_out(const struct row *row, struct cell *c)
{
    struct mag_scope scope;
    int rc = mag_timeout_enter(&scope, row->release ? MAG_MS : 20 * MAG_US, NULL);

    MUST(rc == 0);
    rc = row->call(c);
    if (rc > 0 && row->is_counted)
        c->moved += (size_t)rc;
    rc = mag_scope_leave(&scope, rc);
    HOLDS(is_fine(row, rc, -ETIMEDOUT));
    return rc;
}

/* One that is no call of net.h finds out by itself that the number is free. */
static int closed_under_it(const struct row *row, struct cell *c)
{
    struct attempt *a = begin_in_flight(row, c);
    int fd = c->fd[0], rc;

    HOLDS(mag_close_fd(fd) == 0);
    rc = result_of(a);
    c->fd[0] = -1;
    HOLDS(is_fine(row, rc, -EBADF));
    return rc;
}

static int runtime_stops(const struct row *row, struct cell *c)
{
    struct mag_rt_options options = { .workers = 2 };
    struct attempt *a = attempt(row, c, false);
    struct mag_rt *rt;
    int rc;

    MUST(mag_rt_new(&rt, &options) == 0 && mag_submit(rt, a, NULL) == 0);
    if (row->release)
        wait_in_flight(rt, a);
    HOLDS(mag_rt_stop(rt, 60 * MAG_SECOND) == 0);
    rc = result_of(a);
    HOLDS(is_fine(row, rc, -ECANCELED));
    mag_rt_free(rt);
    return rc;
}

static int (*const ways[WAYS])(const struct row *row, struct cell *c) = {
    [COMPLETES] = completes,           [BEFORE] = cancelled_before,
    [IN_FLIGHT] = cancelled_in_flight, [RACES] = cancelled_as_it_completes,
    [TIMES_OUT] = times_out,           [CLOSED] = closed_under_it,
    [STOPS] = runtime_stops,
};

static void clean_up(struct cell *c)
{
    for (int i = 0; i < c->n; i++)
        if (c->fd[i] >= 0)
            close(c->fd[i]);
    if (c->dir[0]) {
        (void)!(unlink(c->path) && errno != ENOENT);
        (void)!(unlink(c->path2) && rmdir(c->path2));
        MUST(rmdir(c->dir) == 0);
    }
}

/* The watchdog opens some for a moment, when a test is slow. */
static bool is_same_number(int before)
{
    for (int i = 0; i < 4000 && stress_n_descriptors() != before; i++)
        usleep(5000);
    return stress_n_descriptors() == before;
}

static void run_cell(const struct row *row, enum way way, bool is_blocking)
{
    struct cell c = { .n = 0 };
    int before = stress_n_descriptors(), rc;

    now_way = way_names[way];
    now_mode = !row->has_modes ? "" : is_blocking ? " (blocking)" : " (non-blocking)";
    stress_beat();
    row->make(&c);
    if (row->has_modes)
        set_blocking(c.fd[0], is_blocking);
    rc = ways[way](row, &c);
    check_lent(&c, false);
    if (row->is_sound)
        HOLDS(row->is_sound(&c, rc >= 0));
    clean_up(&c);
    HOLDS(is_same_number(before));
}

static void run_row(const struct row *row, enum way way)
{
    int tries = row->release && way != RACES ? 1 : TRIES;

    if (wanted && !strstr(row->name, wanted))
        return;
    now_row = row;
    if (row->without[way]) {
        n_left_out++;
        if (wanted)
            printf("ops: %s: not \"%s\": %s\n", row->name, way_names[way], row->without[way]);
        return;
    }
    for (int i = 0; i < tries; i++)
        for (int is_blocking = !row->has_modes; is_blocking < 2; is_blocking++) {
            run_cell(row, way, is_blocking);
            n_cells++;
        }
    if (wanted)
        printf("ops: %s: %s\n", row->name, way_names[way]);
}

async(void, in_a_task)
{
    for (int i = 0; i < ROWS; i++)
        for (enum way way = 0; way < STOPS; way++)
            run_row(&rows[i], way);
    return 0;
}

static void state(void)
{
    fprintf(stderr, "ops: at %s, %s%s\n", now_row ? now_row->name : "", now_way, now_mode);
}

int main(int argc, char **argv)
{
    struct mag_rt_options options = { .workers = 2 };

    wanted = argc > 1 ? argv[1] : NULL;
    stress_begin("ops", state);
    every_code_has_a_row();
    EXPECT(mag_run_with(in_a_task(), NULL, &options) == 0);
    for (int i = 0; i < ROWS; i++)
        run_row(&rows[i], STOPS);
    printf("ops: %u cells, %u make no sense\n", n_cells, n_left_out);
    return stress_end();
}
