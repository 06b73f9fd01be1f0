/* SPDX-License-Identifier: MIT */
/*
 * process.c - starting programs, talking to them, and waiting for their end
 *
 *      start --- a job of the pool: pipes, posix_spawn(3), pidfd_open(2) ---> RUNS
 *      wait  --- POLL of the pidfd in the ring, waitid(2) ------------------> OVER
 *      close --- kill, wait in a shield, close the descriptors -------------> closed
 *
 * Where it is started: glibc's posix_spawn is a clone(CLONE_VFORK), so the thread that calls
 * it stands still until the new program's file has been found and read: about 1 ms, and as
 * long as it likes on a network file system.  That is not for a worker; the trip to the pool
 * is 1-40 us.
 *
 * The end of a process makes its pidfd readable.  There is no SIGCHLD handler, which would be the
 * whole program's, and no thread that waits.  waitid(2) then takes the zombie away; it is
 * the one place where the number stops being this process's, so it and the kill of a group,
 * which has no descriptor, exclude each other by a lock.
 *
 * Descriptors.  Those meant for the child are moved above 2 first: then no dup2(2) overwrites
 * the source of the next, wherever pipe(2) put them in a program that has closed its own 0.
 *
 * Invariants
 *   1. A struct that was started holds exactly one child until private_is_over: then none.
 *   2. A descriptor made here is in the struct, or closed, whatever failed.
 *   3. No signal is sent after waitid(2) has succeeded.
 *
 * communicate has one task for each pipe, and gathers them: the first error cancels the
 * others.  Its writes are made on the spot, on a pipe that was made non-blocking, because a
 * write in the ring could raise SIGPIPE where nobody can keep it away (sys_process.c).
 *
 * Rejected: WAITID in the ring (Linux 6.7; a pidfd can be polled by every back-end); fork(2)
 * (copies the page tables, and the locks of other threads as they stand).
 *
 * Sources: pidfd_open(2); waitid(2); CPython's Lib/subprocess.py for what is expected.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "inflight.h"
#include "mem.h"
#include "misuse.h"
#include "op.h"
#include "sys_process.h"
#include "unclosed.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/net.h>
#include <magpie/process.h>
#include <magpie/scope.h>
#include <poll.h>
#include <sys/wait.h>

enum {
    STATUS_LOST = INT32_MIN, /* it has ended, and nobody knows how */
    PIPE_BYTES = 64 * 1024,  /* that a pipe holds: one write, one read */
    GROW_BYTES = 4096,
};

static struct mag_spin *lock_of(struct mag_process *p)
{
    return (struct mag_spin *)(void *)&p->private_lock;
}

MAG_STATIC_ASSERT(sizeof(struct mag_spin) == sizeof(uint32_t));

/* ---- starting --------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)mag_sys_close(*fd);
    *fd = -1;
}

/* Moves a descriptor above those that a child's dup2 goes to. */
static int move_above(int fd)
{
    int rc;

    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    rc = mag_sys_dup_above(fd);
    (void)mag_sys_close(fd);
    return rc;
}

/* One end is the child's (the answer), the other *ours. */
static int make_pipe(bool child_reads, int *ours)
{
    int fds[2], rc = mag_sys_pipe(fds);

    if (rc < 0)
        return rc;
    rc = move_above(fds[child_reads ? 0 : 1]);
    *ours = fds[child_reads ? 1 : 0];
    return rc;
}

struct start {
    const struct mag_process_options *options;
    struct mag_process *p;
    int fds[3]; /* the child's */
};

static int to_out(struct start *s)
{
    return mag_sys_dup_above(s->fds[STDOUT_FILENO] >= 0 ? s->fds[STDOUT_FILENO] : STDOUT_FILENO);
}

/* Fills in fds[i]; below 0 it is inherited. */
static int make_stdio(struct start *s, int i, const struct mag_stdio *how, int *ours)
{
    int rc;

    switch (how->kind) {
    case MAG_STDIO_INHERIT:
        return 0;
    case MAG_STDIO_NULL:
        rc = move_above(mag_sys_openat(AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0));
        break;
    case MAG_STDIO_PIPE:
        rc = make_pipe(i == STDIN_FILENO, ours);
        break;
    case MAG_STDIO_FD:
        rc = mag_sys_dup_above(how->fd);
        break;
    case MAG_STDIO_TO_OUT:
        rc = i == STDERR_FILENO ? to_out(s) : -EINVAL;
        break;
    default:
        rc = -EINVAL;
    }
    if (rc >= 0)
        s->fds[i] = rc;
    return rc < 0 ? rc : 0;
}

static int make_all_stdio(struct start *s)
{
    const struct mag_process_options *o = s->options;
    int rc = make_stdio(s, STDIN_FILENO, &o->in, &s->p->in);

    if (rc == 0)
        rc = make_stdio(s, STDOUT_FILENO, &o->out, &s->p->out);
    if (rc == 0)
        rc = make_stdio(s, STDERR_FILENO, &o->err, &s->p->err);
    return rc;
}

/* Without a descriptor it could not be waited for: so it is not let live. */
static int open_pidfd(struct mag_process *p)
{
    int rc = mag_sys_pidfd_open(p->pid);

    if (rc < 0) {
        (void)mag_sys_kill(p->pid, SIGKILL);
        (void)mag_sys_waitpid(p->pid);
        return rc;
    }
    p->pidfd = rc;
    return 0;
}

static int spawn(struct start *s)
{
    const struct mag_process_options *o = s->options;
    struct mag_sys_spawn spec = { .program = o->program ? o->program : o->argv[0],
                                  .argv = o->argv,
                                  .envp = o->envp,
                                  .cwd = o->cwd,
                                  .fds = { s->fds[0], s->fds[1], s->fds[2] },
                                  .keeps_fds = o->keep_fds,
                                  .is_group = o->new_group,
                                  .is_session = o->new_session };
    int rc = mag_sys_spawn(&spec, &s->p->pid);

    return rc < 0 ? rc : open_pidfd(s->p);
}

static void close_pipes(struct mag_process *p)
{
    close_fd(&p->in);
    close_fd(&p->out);
    close_fd(&p->err);
}

/* On a thread of the pool. */
static int start_job(void *arg)
{
    struct start *s = arg;
    int rc = make_all_stdio(s);

    if (rc == 0)
        rc = spawn(s);
    for (int i = 0; i < 3; i++)
        close_fd(&s->fds[i]);
    if (rc < 0)
        close_pipes(s->p);
    return rc;
}

static void make_closed(struct mag_process *p)
{
    *p = (struct mag_process){ .pidfd = -1, .in = -1, .out = -1, .err = -1 };
}

static int start_noted(struct mag_process *p, const struct mag_process_options *o,
                       const void *caller)
{
    struct start s = { .options = o, .p = p, .fds = { -1, -1, -1 } };
    const struct mag_rt *rt = mag_rt_self();
    int rc;

    make_closed(p);
    if (o == NULL || o->argv == NULL || o->argv[0] == NULL)
        return mag_misuse(-EINVAL, "a process needs options with an argv, whose first is its name");
    p->private_is_group = o->new_group || o->new_session;
    rc = mag_wait_job(MAG_LANE_FILES, start_job, &s);
    if (rc < 0)
        make_closed(p);
    else if (MAG_UNLIKELY(mag_debug() || (rt && rt->is_debug)))
        mag_unclosed_add(p->pidfd, "process", o->argv[0], rt, caller);
    return rc;
}

int mag_process_start(struct mag_process *p, const struct mag_process_options *options)
{
    return start_noted(p, options, __builtin_return_address(0));
}

int mag_process_enter(struct mag_process *p, const struct mag_process_options *options)
{
    return start_noted(p, options, __builtin_return_address(0));
}

/* ---- its end ------------------------------------------------------------------------------ */

static int status_of(const siginfo_t *info)
{
    return info->si_code == CLD_EXITED ? info->si_status : -info->si_status;
}

/* With the lock held: takes its zombie away, if it is one. */
static void take_status(struct mag_process *p)
{
    siginfo_t info = { 0 };
    int rc = mag_sys_waitid(p->pidfd, WEXITED | WNOHANG, &info);

    if (rc == -ECHILD) {
        p->private_status = STATUS_LOST;
        p->private_is_over = true;
    } else if (rc == 0 && info.si_pid != 0) {
        p->private_status = status_of(&info);
        p->private_is_over = true;
    }
}

/* Whether it has ended. */
static bool reap(struct mag_process *p)
{
    bool is_over;

    mag_spin_lock(lock_of(p));
    if (!p->private_is_over)
        take_status(p);
    is_over = p->private_is_over;
    mag_spin_unlock(lock_of(p));
    return is_over;
}

/* Leaves the zombie: whoever reaps it does so under the lock. */
static int block_until_end(struct mag_process *p)
{
    siginfo_t info;
    int rc = mag_wait_outside();

    while (rc == 0 || rc == -EINTR) {
        rc = mag_sys_waitid(p->pidfd, WEXITED | WNOWAIT, &info);
        if (rc != -EINTR)
            break;
    }
    return rc == -ECHILD ? 0 : rc;
}

int mag_process_wait(struct mag_process *p, int *status)
{
    int rc;

    if (p == NULL || p->pid <= 0)
        return -ESRCH;
    while (!reap(p)) {
        rc = mag_wait_in_task() ? mag_poll_fd(p->pidfd, POLLIN) : block_until_end(p);
        if (rc < 0)
            return rc;
    }
    if (p->private_status == STATUS_LOST)
        return -ECHILD;
    if (status)
        *status = p->private_status;
    return 0;
}

/* ---- signals -------------------------------------------------------------------------------- */

int mag_process_signal(struct mag_process *p, int signo)
{
    int rc = -ESRCH;

    if (p == NULL || p->pid <= 0)
        return rc;
    mag_spin_lock(lock_of(p));
    if (!p->private_is_over) /* inv3 */
        rc = p->private_is_group ? mag_sys_kill(-p->pid, signo)
                                 : mag_sys_pidfd_signal(p->pidfd, signo);
    mag_spin_unlock(lock_of(p));
    return rc;
}

int mag_process_kill(struct mag_process *p)
{
    return mag_process_signal(p, SIGKILL);
}

/* ---- closing --------------------------------------------------------------------------- */

/* Other tasks may be reading and writing: these get -EBADF.  (Closed under them, a pipe that a
 * child of the child holds open would keep them; with epoll(7) nothing would ever wake them.) */
static void close_used(int *fd)
{
    struct mag_closer c;

    if (*fd < 0)
        return;
    mag_inflight_close(&c, *fd);
    (void)mag_sys_close(*fd);
    mag_inflight_closed(&c);
    *fd = -1;
}

/* A group is killed also when its first process has ended: others may be left. */
static void kill_and_wait(struct mag_process *p)
{
    struct mag_scope shield;
    bool is_shielded;

    if (!p->private_is_group && reap(p))
        return;
    (void)mag_process_kill(p);
    is_shielded = mag_wait_in_task() && mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;
    (void)mag_process_wait(p, NULL);
    if (is_shielded)
        (void)mag_scope_leave(&shield, 0);
}

int mag_process_close(struct mag_process *p)
{
    if (p == NULL || p->pid <= 0)
        return 0;
    kill_and_wait(p);
    close_used(&p->in);
    close_used(&p->out);
    close_used(&p->err);
    mag_unclosed_remove(p->pidfd); /* before the number can be another's */
    close_used(&p->pidfd);
    mag_mem_free(p->private_content[0]);
    mag_mem_free(p->private_content[1]);
    make_closed(p);
    return 0;
}

void mag_process_exit(struct mag_process *p)
{
    (void)mag_process_close(p);
}

/* ---- communicate ----------------------------------------------------------------------- */

/* The frame of the coroutine that writes the input. */
struct feed {
    struct mag_process *p;
    const char *input;
    size_t n;
};

static int feed_all(struct feed *f)
{
    int rc = f->n ? mag_sys_set_nonblocking(f->p->in) : 0;

    while (f->n && rc >= 0) {
        rc = mag_wait_checkpoint();
        if (rc < 0)
            break;
        rc = (int)mag_sys_write_quiet(f->p->in, f->input, f->n < PIPE_BYTES ? f->n : PIPE_BYTES);
        if (rc == -EAGAIN) {
            rc = mag_poll_fd(f->p->in, POLLOUT);
        } else if (rc == -EINTR) {
            rc = 0;
        } else if (rc > 0) {
            f->input += rc;
            f->n -= (size_t)rc;
        }
    }
    return rc == -EPIPE ? 0 : rc; /* it has read what it wanted */
}

static int feed_body(void *frame, void *result)
{
    struct feed *f = frame;
    int rc = feed_all(f);

    (void)result;
    if (rc >= 0)
        close_fd(&f->p->in);
    return rc < 0 ? rc : 0;
}

static const struct mag_co_type feed_type = {
    .name = "mag_process_communicate: input",
    .body = feed_body,
    .frame_bytes = sizeof(struct feed),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "feed_body" },
};

/* The frame of one that reads a pipe to its end. */
struct drain {
    int *fd;
    char **content; /* grows; on the heap */
    size_t limit;   /* bytes it may have */
    bool is_wanted; /* else what comes is dropped */
    size_t *len;
};

/* Room for at least one more byte, and the terminating 0. */
static int grow(char **content, size_t *room, size_t len)
{
    size_t bigger = *room ? *room * 2 : GROW_BYTES;
    char *p;

    if (len < *room)
        return 0;
    p = mag_mem_realloc(*content, bigger + 1);
    if (p == NULL)
        return -ENOMEM;
    *content = p;
    *room = bigger;
    return 0;
}

static int drain_all(const struct drain *d)
{
    size_t room = 0, len = 0;
    int rc;

    do {
        rc = grow(d->content, &room, len);
        if (rc == 0)
            rc = mag_read(*d->fd, *d->content + len, room - len);
        if (rc > 0 && d->is_wanted)
            len += (size_t)rc;
        if (len > d->limit)
            return -EFBIG;
    } while (rc > 0);
    if (rc == 0) {
        (*d->content)[len] = '\0';
        *d->len = len;
    }
    return rc;
}

static int drain_body(void *frame, void *result)
{
    const struct drain *d = frame;
    int rc = drain_all(d);

    (void)result;
    if (rc == 0)
        close_fd(d->fd);
    return rc;
}

static const struct mag_co_type drain_type = {
    .name = "mag_process_communicate: output",
    .body = drain_body,
    .frame_bytes = sizeof(struct drain),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "drain_body" },
};

/* A coroutine with that frame joins those that are to be gathered. */
static void add_feed(void **all, size_t *n_all, struct feed feed)
{
    struct feed *f = mag_co_new(&feed_type, NULL);

    if (f)
        *f = feed;
    all[(*n_all)++] = f; /* a NULL is gather's to refuse */
}

static void add_drain(void **all, size_t *n_all, struct drain drain)
{
    struct drain *d = mag_co_new(&drain_type, NULL);

    if (d)
        *d = drain;
    all[(*n_all)++] = d;
}

static int talk(struct mag_process *p, const char *input, size_t n, const bool is_wanted[2],
                size_t lens[2], size_t limit)
{
    void *all[3];
    size_t n_all = 0;
    int *fds[2] = { &p->out, &p->err };

    if (p->in >= 0)
        add_feed(all, &n_all, (struct feed){ p, input, n });
    for (int i = 0; i < 2; i++)
        if (*fds[i] >= 0)
            add_drain(
                all, &n_all,
                (struct drain){ fds[i], &p->private_content[i], limit, is_wanted[i], &lens[i] });
    return n_all ? mag_gather(NULL, 0, all, n_all, NULL) : 0;
}

static void hand_out(struct mag_str *str, char *content, size_t len)
{
    if (str && content)
        *str = (struct mag_str){ .ptr = content, .len = len };
}

int mag_process_communicate(struct mag_process *p, const void *input, size_t n, struct mag_str *out,
                            struct mag_str *err, size_t limit)
{
    bool is_wanted[2] = { out != NULL, err != NULL };
    size_t lens[2] = { 0, 0 };
    int rc;

    if (out)
        *out = (struct mag_str){ 0 };
    if (err)
        *err = (struct mag_str){ 0 };
    if (p == NULL || p->pid <= 0)
        return -ESRCH;
    if (!mag_wait_in_task())
        return mag_misuse(-ENXIO, "mag_process_communicate() outside a task: it reads and writes "
                                  "at once, which takes tasks");
    if (n > 0 && p->in < 0)
        return mag_misuse(-EINVAL, "input for a process that was not started with .in a pipe");
    if (limit == 0 || limit > MAG_OP_BYTES_MAX)
        limit = MAG_OP_BYTES_MAX;
    rc = talk(p, input, n, is_wanted, lens, limit);
    if (rc == 0)
        rc = mag_process_wait(p, NULL);
    if (rc < 0)
        return rc;
    hand_out(out, p->private_content[0], lens[0]);
    hand_out(err, p->private_content[1], lens[1]);
    return 0;
}
