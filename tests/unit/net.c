/* SPDX-License-Identifier: MIT */
/*
 * net.c - tests of the calls on descriptors
 *
 * One table of calls that wait, and each of them in every way to end: it completes, is cancelled
 * before it is submitted and in flight, times out, has its descriptor closed, its runtime
 * stopped; on blocking and non-blocking descriptors; in a task and outside one.  After each, as
 * many descriptors are open as before.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <criterion/criterion.h>
#include <magpie.h>

#include "in_task.h"
#include "ring.h"
#include "sys.h"
#include "worker.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void quietly(void)
{
    setenv("MAGPIE_SLOW_MS", "60000", 1); /* a report opens files */
}

TestSuite(net, .init = quietly, .timeout = 60);

static int descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* The watchdog opens some for a moment, when a test is slow. */
static bool as_many_as(int before)
{
    for (int i = 0; i < 2000 && descriptors() != before; i++)
        usleep(5000);
    return descriptors() == before;
}

/* ---- what a call waits on ---------------------------------------------------------------- */

enum { FDS = 8 };

/* fd[0] is what the call is made on, fd[1] its other end; the rest is only closed. */
struct ends {
    int fd[FDS];
    int n;
    struct sockaddr_storage addr; /* to connect to */
    socklen_t addr_len;
};

static int set_blocking(int fd, bool is_blocking)
{
    int flags = fcntl(fd, F_GETFL);

    return fcntl(fd, F_SETFL, is_blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

static void fill(int fd)
{
    static char chunk[4096];

    set_blocking(fd, false);
    while (write(fd, chunk, sizeof chunk) > 0) {
    }
    while (write(fd, chunk, 1) > 0) {
    }
    set_blocking(fd, true);
}

static int drain(int fd)
{
    char chunk[4096];
    int total = 0, n;

    set_blocking(fd, false);
    while ((n = (int)read(fd, chunk, sizeof chunk)) > 0)
        total += n;
    return total;
}

static void make_pair(struct ends *e)
{
    e->n = 2;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, e->fd) != 0)
        abort();
}

static void make_full_pair(struct ends *e)
{
    make_pair(e);
    fill(e->fd[0]);
}

static void make_pipe(struct ends *e)
{
    e->n = 2;
    if (pipe(e->fd) != 0)
        abort();
}

static void make_full_pipe(struct ends *e)
{
    make_pipe(e);
    int reads = e->fd[0];
    e->fd[0] = e->fd[1];
    e->fd[1] = reads;
    fill(e->fd[0]);
}

/* A pipe, and behind it another. */
static void make_pipes(struct ends *e)
{
    make_pipe(e);
    e->n = 4;
    if (pipe(e->fd + 2) != 0)
        abort();
}

/* What io_uring itself does not wait for if it is non-blocking: then the call has to poll. */
static void make_terminal(struct ends *e)
{
    e->n = 2;
    e->fd[0] = posix_openpt(O_RDWR | O_NOCTTY);
    if (grantpt(e->fd[0]) != 0 || unlockpt(e->fd[0]) != 0)
        abort();
    e->fd[1] = open(ptsname(e->fd[0]), O_RDWR | O_NOCTTY);
    if (e->fd[1] < 0)
        abort();
}

static int listener(int domain, struct ends *e, int backlog)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un un = { .sun_family = AF_UNIX }; /* the kernel makes up a name */
    int fd = socket(domain, SOCK_STREAM, 0);
    int rc = domain == AF_INET ? bind(fd, (void *)&in, sizeof in)
                               : bind(fd, (void *)&un, sizeof un.sun_family);

    e->addr_len = sizeof e->addr;
    if (rc != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&e->addr, &e->addr_len) != 0)
        abort();
    return fd;
}

static void make_listener(struct ends *e)
{
    e->fd[0] = listener(AF_INET, e, 8);
    e->fd[1] = socket(AF_INET, SOCK_STREAM, 0);
    e->n = 2;
}

/* A socket to be connected, and a listener with no room for it. */
static void make_crowd(struct ends *e, int domain)
{
    e->fd[1] = listener(domain, e, 0);
    e->fd[0] = socket(domain, SOCK_STREAM, 0);
    e->n = 2;
    for (int i = 0; i < 3; i++) {
        int fd = e->fd[e->n++] = socket(domain, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fd, (struct sockaddr *)&e->addr, e->addr_len);
    }
    /* on a busy machine the first one may still be under way to it */
    if (poll(&(struct pollfd){ .fd = e->fd[1], .events = POLLIN }, 1, 10000) != 1)
        abort();
}

static void make_crowd_unix(struct ends *e)
{
    make_crowd(e, AF_UNIX);
}

static void make_crowd_tcp(struct ends *e)
{
    make_crowd(e, AF_INET);
}

static void close_ends(struct ends *e)
{
    for (int i = 0; i < e->n; i++)
        if (e->fd[i] >= 0)
            close(e->fd[i]);
}

/* ---- the calls ------------------------------------------------------------------------------ */

static char out_bytes[8], in_bytes[8];

static int call_read(struct ends *e)
{
    return mag_read(e->fd[0], in_bytes, 8);
}

static int call_readv(struct ends *e)
{
    struct iovec parts[2] = { { in_bytes, 1 }, { in_bytes + 1, 3 } };

    return mag_readv(e->fd[0], parts, 2);
}

static int call_recv(struct ends *e)
{
    return mag_recv(e->fd[0], in_bytes, 8, 0);
}

static int call_recvmsg(struct ends *e)
{
    char control[64];
    struct iovec part = { in_bytes, 8 };
    struct msghdr m = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
    };
    int rc = mag_recvmsg(e->fd[0], &m, 0);

    memset(control, 1, sizeof control); /* it is ours again, all of it */
    return rc;
}

static int call_recvfrom(struct ends *e)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    int rc = mag_recvfrom(e->fd[0], in_bytes, 8, 0, (struct sockaddr *)&from, &len);

    memset(&from, 1, sizeof from);
    return rc;
}

static int call_write(struct ends *e)
{
    return mag_write(e->fd[0], out_bytes, 1);
}

static int call_write_all(struct ends *e)
{
    size_t done = 99;
    int rc = mag_write_all(e->fd[0], out_bytes, 8, &done);

    return rc == 0 && done != 8 ? -EPROTO : rc < 0 && done != 0 ? -EPROTO : rc;
}

static int call_writev(struct ends *e)
{
    struct iovec parts[2] = { { out_bytes, 1 }, { out_bytes, 1 } };

    return mag_writev(e->fd[0], parts, 2);
}

static int call_send(struct ends *e)
{
    return mag_send(e->fd[0], out_bytes, 1, 0);
}

static int call_send_all(struct ends *e)
{
    size_t done = 99;
    int rc = mag_send_all(e->fd[0], out_bytes, 8, 0, &done);

    return rc == 0 && done != 8 ? -EPROTO : rc < 0 && done != 0 ? -EPROTO : rc;
}

static int call_sendmsg(struct ends *e)
{
    struct iovec part = { out_bytes, 1 };
    struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };

    return mag_sendmsg(e->fd[0], &m, 0);
}

static int call_sendto(struct ends *e)
{
    return mag_sendto(e->fd[0], out_bytes, 1, 0, NULL, 0);
}

static int call_poll(struct ends *e)
{
    int rc = mag_poll_fd(e->fd[0], POLLIN);

    return rc < 0 ? rc : rc == POLLIN ? 0 : -EPROTO;
}

static int call_splice(struct ends *e)
{
    return mag_splice(e->fd[0], NULL, e->fd[3], NULL, 100, 0);
}

static int call_accept(struct ends *e)
{
    struct sockaddr_in from = { 0 };
    socklen_t len = sizeof from;
    int fd = mag_accept(e->fd[0], (struct sockaddr *)&from, &len, 0);

    if (fd < 0)
        return fd;
    int flags = fcntl(fd, F_GETFD);
    close(fd);
    if (!(flags & FD_CLOEXEC) || len != sizeof from || from.sin_family != AF_INET)
        return -EPROTO;
    return 0;
}

static int call_connect(struct ends *e)
{
    return mag_connect_fd(e->fd[0], (struct sockaddr *)&e->addr, e->addr_len);
}

/* What lets the call end. */
static void feed(struct ends *e)
{
    if (write(e->fd[1], "x", 1) != 1)
        abort();
}

static void empty(struct ends *e)
{
    drain(e->fd[1]);
}

static void knock(struct ends *e)
{
    if (connect(e->fd[1], (struct sockaddr *)&e->addr, e->addr_len) != 0)
        abort();
}

static void make_room(struct ends *e)
{
    set_blocking(e->fd[1], false);
    for (int i = 0; i < 2; i++)
        e->fd[e->n++] = accept(e->fd[1], NULL, NULL);
}

enum { ANY, BLOCKING_ONLY, NON_BLOCKING_ONLY };

static const struct kind {
    const char *name;
    void (*make)(struct ends *e);
    int (*call)(struct ends *e);
    void (*release)(struct ends *e); /* NULL: it takes too long */
    int which;
} kinds[] = {
    { "read of a pipe", make_pipe, call_read, feed, ANY },
    { "read", make_pair, call_read, feed, ANY },
    { "read of a terminal", make_terminal, call_read, feed, ANY },
    { "readv", make_pair, call_readv, feed, ANY },
    { "recv", make_pair, call_recv, feed, ANY },
    { "recvmsg", make_pair, call_recvmsg, feed, ANY },
    { "recvfrom", make_pair, call_recvfrom, feed, ANY },
    { "write to a pipe", make_full_pipe, call_write, empty, ANY },
    { "write", make_full_pair, call_write, empty, ANY },
    { "write_all", make_full_pair, call_write_all, empty, ANY },
    { "writev", make_full_pipe, call_writev, empty, ANY },
    { "send", make_full_pair, call_send, empty, ANY },
    { "send_all", make_full_pair, call_send_all, empty, ANY },
    { "sendmsg", make_full_pair, call_sendmsg, empty, ANY },
    { "sendto", make_full_pair, call_sendto, empty, ANY },
    { "poll", make_pair, call_poll, feed, ANY },
    { "splice", make_pipes, call_splice, feed, ANY },
    { "accept", make_listener, call_accept, knock, ANY },
    { "connect", make_crowd_unix, call_connect, make_room, BLOCKING_ONLY },
    { "connect, TCP", make_crowd_tcp, call_connect, NULL, ANY },
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* ---- the ways to end --------------------------------------------------------------------------- */

struct attempt {
    const struct kind *kind;
    struct ends *ends;
};

static int attempt_body(void *frame, void *result)
{
    struct attempt *a = frame;

    (void)result;
    return a->kind->call(a->ends);
}

static struct mag_task *begin(const struct kind *k, struct ends *e)
{
    struct attempt a = { k, e };
    struct mag_task *task = NULL;

    (void)mag_spawn(&task, attempt_body, &a, sizeof a, 0, NULL);
    return task;
}

/* Begins, and lets it get into the kernel. */
static struct mag_task *begin_and_wait(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin(k, e);

    (void)mag_sleep(3 * MAG_MS);
    return task && mag_done(task) ? NULL : task;
}

static int completes(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin_and_wait(k, e);

    if (!k->release)
        return mag_close(task), 0;
    EXPECT(task);
    k->release(e);
    EXPECT(mag_await(task, NULL, 0) >= 0);
    return 0;
}

static int cancelled_before(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin(k, e);

    EXPECT(task);
    EXPECT(mag_cancel(task) == 0);
    EXPECT(mag_await(task, NULL, 0) == -ECANCELED);
    return 0;
}

static int cancelled_in_flight(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin_and_wait(k, e);

    EXPECT(task);
    EXPECT(mag_cancel(task) == 0);
    EXPECT(mag_await(task, NULL, 0) == -ECANCELED);
    return 0;
}

/* And nothing was lost: the next one completes. */
static int cancelled_then_completes(const struct kind *k, struct ends *e)
{
    if (!k->release || k->call == call_connect)
        return 0;
    return cancelled_in_flight(k, e) ? __LINE__ : completes(k, e);
}

static int times_out(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin(k, e);

    EXPECT(mag_wait_for(task, 3 * MAG_MS, NULL, 0) == -ETIMEDOUT);
    return 0;
}

static int times_out_in_scope(const struct kind *k, struct ends *e)
{
    struct mag_scope scope;

    EXPECT(mag_timeout_enter(&scope, 3 * MAG_MS, NULL) == 0);
    EXPECT(mag_scope_leave(&scope, k->call(e)) == -ETIMEDOUT);
    return 0;
}

static int closed_under_it(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin_and_wait(k, e);

    EXPECT(task);
    EXPECT(mag_close_fd(e->fd[0]) == 0);
    e->fd[0] = -1;
    EXPECT(mag_await(task, NULL, 0) == -EBADF);
    return 0;
}

/* It says what its own task is: cancelled. */
static int cancelled_and_closed(const struct kind *k, struct ends *e)
{
    struct mag_task *task = begin_and_wait(k, e);

    EXPECT(task);
    EXPECT(mag_cancel(task) == 0);
    EXPECT(mag_close_fd(e->fd[0]) == 0);
    e->fd[0] = -1;
    EXPECT(mag_await(task, NULL, 0) == -ECANCELED);
    return 0;
}

/* Several at once, on several workers. */
static int closed_under_three(const struct kind *k, struct ends *e)
{
    struct mag_task *tasks[3];

    for (int i = 0; i < 3; i++)
        tasks[i] = begin(k, e);
    (void)mag_sleep(3 * MAG_MS);
    EXPECT(mag_close_fd(e->fd[0]) == 0);
    e->fd[0] = -1;
    for (int i = 0; i < 3; i++) {
        int rc = mag_await(tasks[i], NULL, 0);
        EXPECT(rc == -EBADF || (k->call == call_connect && rc == -EALREADY));
    }
    return 0;
}

static int splice_closed_at_its_end(const struct kind *k, struct ends *e)
{
    struct mag_task *task;

    if (k->call != call_splice)
        return 0;
    fill(e->fd[3]);
    feed(e);
    task = begin_and_wait(k, e);
    EXPECT(task);
    EXPECT(mag_close_fd(e->fd[3]) == 0);
    e->fd[3] = -1;
    EXPECT(mag_await(task, NULL, 0) == -EBADF);
    return 0;
}

/* The same while nothing comes in. */
static int splice_closed_while_quiet(const struct kind *k, struct ends *e)
{
    struct mag_task *task;

    if (k->call != call_splice)
        return 0;
    task = begin_and_wait(k, e);
    EXPECT(task);
    EXPECT(mag_close_fd(e->fd[3]) == 0);
    e->fd[3] = -1;
    EXPECT(mag_await(task, NULL, 0) == -EBADF);
    return 0;
}

/* Who does not want to wait does not, beside one who does. */
static int impatient_beside_another(const struct kind *k, struct ends *e)
{
    struct mag_task *task;

    if (k->call != call_recvfrom && k->call != call_recvmsg)
        return 0;
    task = begin_and_wait(k, e);
    EXPECT(task);
    EXPECT(mag_recv(e->fd[0], in_bytes, 1, MSG_DONTWAIT) == -EAGAIN);
    return mag_close(task), 0;
}

typedef int way_fn(const struct kind *k, struct ends *e);

static way_fn *way;
static const char *failed_kind = "none";
static const char *failed_how = "";

static int each_kind(void)
{
    for (int i = 0; i < KINDS; i++) {
        const struct kind *k = &kinds[i];
        for (int is_blocking = 0; is_blocking < 2; is_blocking++) {
            struct ends e = { .n = 0 };
            int before = descriptors(), line;
            if (k->which == (is_blocking ? NON_BLOCKING_ONLY : BLOCKING_ONLY))
                continue;
            failed_kind = k->name;
            failed_how = is_blocking ? "blocking" : "non-blocking";
            k->make(&e);
            set_blocking(e.fd[0], is_blocking);
            line = way(k, &e);
            close_ends(&e);
            if (line)
                return line;
            EXPECT(as_many_as(before));
        }
    }
    return 0;
}

#define WAY(name) \
    Test(net, name) \
    { \
        way = name; \
        int line = run_in_task(each_kind); \
        cr_assert_eq(line, 0, "%s (%s): line %d", failed_kind, failed_how, line); \
    }

WAY(completes)
WAY(cancelled_before)
WAY(cancelled_in_flight)
WAY(cancelled_then_completes)
WAY(times_out)
WAY(times_out_in_scope)
WAY(closed_under_it)
WAY(cancelled_and_closed)
WAY(closed_under_three)
WAY(splice_closed_at_its_end)
WAY(splice_closed_while_quiet)
WAY(impatient_beside_another)

/* ---- the runtime stops --------------------------------------------------------------------------- */

struct attempt_co {
    struct attempt a;
};

static const struct mag_co_type attempt_type = { .name = "attempt",
                                                 .body = attempt_body,
                                                 .frame_bytes = sizeof(struct attempt_co) };

static int runtime_stops(const struct kind *k, struct ends *e)
{
    struct mag_rt_options options = { .workers = 2 };
    struct attempt_co *co = mag_co_new(&attempt_type, NULL);
    struct mag_rt *rt;

    co->a = (struct attempt){ k, e };
    EXPECT(mag_rt_new(&rt, &options) == 0);
    EXPECT(mag_submit(rt, co, NULL) == 0);
    usleep(3000);
    EXPECT(mag_rt_stop(rt, 10 * MAG_SECOND) == 0);
    EXPECT(mag_await(co, NULL, 0) == -ECANCELED);
    mag_rt_free(rt);
    return 0;
}

Test(net, runtime_stops)
{
    way = runtime_stops;
    int line = each_kind();
    cr_assert_eq(line, 0, "%s (%s): line %d", failed_kind, failed_how, line);
}

/* A thread that is no worker closes what a task uses. */
static int closed_by_a_thread(const struct kind *k, struct ends *e)
{
    struct attempt_co *co = mag_co_new(&attempt_type, NULL);
    struct mag_rt *rt;

    co->a = (struct attempt){ k, e };
    EXPECT(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2 }) == 0);
    EXPECT(mag_submit(rt, co, NULL) == 0);
    usleep(3000);
    EXPECT(mag_close_fd(e->fd[0]) == 0);
    e->fd[0] = -1;
    EXPECT(mag_await(co, NULL, 0) == -EBADF);
    mag_rt_free(rt);
    return 0;
}

Test(net, closed_by_a_thread)
{
    way = closed_by_a_thread;
    int line = each_kind();
    cr_assert_eq(line, 0, "%s (%s): line %d", failed_kind, failed_how, line);
}

/* ---- outside a task ---------------------------------------------------------------------------------- */

static void *release_later(void *arg)
{
    struct attempt *a = arg;

    usleep(3000);
    a->kind->release(a->ends);
    return NULL;
}

static int completes_outside(const struct kind *k, struct ends *e)
{
    struct attempt a = { k, e };
    pthread_t t;
    int rc;

    if (!k->release)
        return 0;
    EXPECT(pthread_create(&t, NULL, release_later, &a) == 0);
    rc = k->call(e);
    EXPECT(pthread_join(t, NULL) == 0);
    EXPECT(rc >= 0);
    return 0;
}

Test(net, completes_outside)
{
    way = completes_outside;
    int line = each_kind();
    cr_assert_eq(line, 0, "%s (%s): line %d", failed_kind, failed_how, line);
}

Test(net, interrupted_calls_are_repeated)
{
    struct ends e;
    char c;

    make_pair(&e);
    mag_sys_fail_nth(MAG_SYS_WRITE, 1, EINTR, false);
    cr_assert_eq(mag_send(e.fd[0], "ab", 2, 0), 2);
    cr_assert_eq(mag_sys_count(MAG_SYS_WRITE), 2);
    mag_sys_fail_nth(MAG_SYS_READ, 1, EINTR, false);
    cr_assert_eq(mag_recv(e.fd[1], &c, 1, 0), 1);
    mag_sys_fail_nth(MAG_SYS_READ, 1, EIO, false);
    cr_assert_eq(mag_recv(e.fd[1], &c, 1, 0), -EIO);
    mag_sys_fail_none();
    close_ends(&e);

    make_listener(&e);
    cr_assert_eq(mag_connect_fd(e.fd[1], (struct sockaddr *)&e.addr, e.addr_len), 0);
    mag_sys_fail_nth(MAG_SYS_READ, 1, ECONNABORTED, false);
    int fd = mag_accept(e.fd[0], NULL, NULL, 0);
    cr_assert_geq(fd, 0, "%d", fd);
    mag_sys_fail_none();
    close(fd);
    close_ends(&e);
}

/* ---- in both worlds ------------------------------------------------------------------------------------ */

static int errors(void)
{
    struct ends e;
    char c = 0;

    EXPECT(mag_recv(-1, &c, 1, 0) == -EBADF);
    EXPECT(mag_read(-1, &c, 1) == -EBADF);
    EXPECT(mag_poll_fd(-1, POLLIN) == -EBADF);
    EXPECT(mag_poll_fd(999, POLLIN) == -EBADF);
    EXPECT(mag_close_fd(-1) == -EBADF);
    EXPECT(mag_close_fd(999) == -EBADF);
    EXPECT(mag_readv(0, NULL, -1) == -EINVAL && mag_writev(1, NULL, -1) == -EINVAL);
    make_pipe(&e);
    EXPECT(mag_recv(e.fd[0], &c, 1, 0) == -ENOTSOCK);
    EXPECT(mag_accept(e.fd[0], NULL, NULL, 0) == -ENOTSOCK);
    close_ends(&e);
    make_pair(&e);
    EXPECT(mag_recv(e.fd[0], &c, 1, MSG_DONTWAIT) == -EAGAIN);
    EXPECT(mag_send_all(e.fd[0], "abc", 3, 0, NULL) == 0);
    EXPECT(mag_shutdown(e.fd[0], SHUT_WR) == 0);
    EXPECT(drain(e.fd[1]) == 3);
    EXPECT(mag_recv(e.fd[1], &c, 1, 0) == 0);
    EXPECT(mag_close_fd(e.fd[0]) == 0 && mag_close_fd(e.fd[1]) == 0);
    EXPECT(mag_close_fd(e.fd[1]) == -EBADF);
    return 0;
}

Test(net, errors)
{
    BOTH(errors);
}

static int connects(int domain)
{
    struct ends e = { .n = 2 };
    int fd, before = descriptors();
    char buf[4] = "";

    e.fd[1] = listener(domain, &e, 4);
    e.fd[0] = mag_socket(domain, SOCK_STREAM, 0);
    EXPECT(e.fd[0] >= 0 && (fcntl(e.fd[0], F_GETFD) & FD_CLOEXEC));
    set_blocking(e.fd[0], false); /* then connect(2) says EINPROGRESS */
    EXPECT(mag_connect_fd(e.fd[0], (struct sockaddr *)&e.addr, e.addr_len) == 0);
    fd = mag_accept(e.fd[1], NULL, NULL, SOCK_NONBLOCK);
    EXPECT(fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK));
    EXPECT(mag_send(e.fd[0], "abc", 3, 0) == 3);
    EXPECT(mag_recv(fd, buf, 4, 0) == 3 && memcmp(buf, "abc", 3) == 0);
    EXPECT(mag_close_fd(fd) == 0);
    EXPECT(mag_close_fd(e.fd[1]) == 0);
    EXPECT(mag_close_fd(e.fd[0]) == 0);
    if (domain == AF_INET) { /* to one that does not listen, but keeps the port from others */
        e.fd[1] = socket(AF_INET, SOCK_STREAM, 0);
        ((struct sockaddr_in *)(void *)&e.addr)->sin_port = 0;
        EXPECT(bind(e.fd[1], (struct sockaddr *)&e.addr, e.addr_len) == 0);
        EXPECT(getsockname(e.fd[1], (struct sockaddr *)&e.addr, &e.addr_len) == 0);
        for (int is_blocking = 0; is_blocking < 2; is_blocking++) {
            e.fd[0] = mag_socket(AF_INET, SOCK_STREAM, 0);
            set_blocking(e.fd[0], is_blocking);
            EXPECT(mag_connect_fd(e.fd[0], (struct sockaddr *)&e.addr, e.addr_len) ==
                   -ECONNREFUSED);
            EXPECT(mag_close_fd(e.fd[0]) == 0);
        }
        close(e.fd[1]);
    }
    EXPECT(as_many_as(before));
    return 0;
}

static int connects_each(void)
{
    int line = connects(AF_INET);

    return line ? line : connects(AF_UNIX);
}

Test(net, connects)
{
    BOTH(connects_each);
}

static int moves_vectors(void)
{
    char a[3] = "", b[6] = "";
    struct iovec out[2] = { { (void *)(uintptr_t) "ab", 2 }, { (void *)(uintptr_t) "cdefg", 5 } };
    struct iovec in[2] = { { a, 2 }, { b, 5 } };
    struct ends e;

    make_pipe(&e);
    EXPECT(mag_writev(e.fd[1], out, 2) == 7);
    EXPECT(mag_readv(e.fd[0], in, 2) == 7);
    EXPECT(strcmp(a, "ab") == 0 && strcmp(b, "cdefg") == 0);
    close_ends(&e);
    return 0;
}

Test(net, moves_vectors)
{
    BOTH(moves_vectors);
}

/* A file through a pipe into a socket. */
static int splices_a_file(void)
{
    char path[] = "/tmp/mag-net-XXXXXX", buf[16] = "";
    int file = mkstemp(path);
    int64_t offset = 2;
    struct ends p, s;

    EXPECT(file >= 0 && write(file, "0123456789", 10) == 10);
    make_pipe(&p);
    make_pair(&s);
    EXPECT(mag_splice(file, &offset, p.fd[1], NULL, 100, 0) == 8 && offset == 10);
    EXPECT(mag_splice(p.fd[0], NULL, s.fd[0], NULL, 100, 0) == 8);
    EXPECT(mag_recv(s.fd[1], buf, 16, 0) == 8 && strcmp(buf, "23456789") == 0);
    EXPECT(mag_splice(file, &offset, p.fd[1], NULL, 100, 0) == 0);
    EXPECT(mag_splice(p.fd[0], NULL, s.fd[0], NULL, 100, SPLICE_F_NONBLOCK) == -EAGAIN);
    EXPECT(mag_splice(file, &offset, s.fd[0], NULL, 100, 0) == -EINVAL);
    close_ends(&p);
    close_ends(&s);
    close(file);
    unlink(path);
    return 0;
}

Test(net, splices_a_file)
{
    BOTH(splices_a_file);
}

/* ---- a kernel that does not wait on a non-blocking descriptor ----------------------------------- */

static const struct mag_ring_ops *real;

static void submit_impatient(struct mag_ring *r, struct mag_op *op)
{
    uint32_t flags = op->flags;

    if (op->code == MAG_OP_RECV || op->code == MAG_OP_SEND)
        op->flags |= MSG_DONTWAIT;
    real->submit(r, op); /* which has read them */
    op->flags = flags;
}

static int impatient_kernel(void)
{
    struct mag_ring *r = mag_worker_self()->ring;
    struct mag_ring_ops ops = *r->ops;
    int line = 0;

    if (strcmp(ops.name, "io_uring") != 0)
        return 0;
    real = r->ops;
    ops.submit = submit_impatient;
    r->ops = &ops;
    for (int i = 0; i < KINDS && line == 0; i++) {
        struct ends e = { .n = 0 };
        if (kinds[i].call != call_recv && kinds[i].call != call_send_all)
            continue;
        kinds[i].make(&e);
        line = cancelled_in_flight(&kinds[i], &e);
        if (line == 0)
            line = completes(&kinds[i], &e);
        if (line == 0)
            line = kinds[i].call == call_recv ? closed_under_it(&kinds[i], &e) : 0;
        close_ends(&e);
    }
    r->ops = real;
    return line;
}

Test(net, polls_after_eagain)
{
    setenv("MAGPIE_WORKERS", "1", 1);
    int line = run_in_task(impatient_kernel);

    cr_assert_eq(line, 0, "line %d", line);
}

/* ---- SIGPIPE ---------------------------------------------------------------------------------------- */

static int broken_pipes(void)
{
    struct iovec part = { out_bytes, 8 };
    struct ends e, p;
    sigset_t pending;

    make_pipe(&e);
    close(e.fd[0]);
    e.fd[0] = -1;
    EXPECT(mag_write(e.fd[1], out_bytes, 8) == -EPIPE);
    EXPECT(mag_writev(e.fd[1], &part, 1) == -EPIPE);
    make_pipe(&p);
    EXPECT(write(p.fd[1], "x", 1) == 1);
    EXPECT(mag_splice(p.fd[0], NULL, e.fd[1], NULL, 1, 0) == -EPIPE);
    close_ends(&p);
    close_ends(&e);
    make_pair(&e);
    close(e.fd[1]);
    e.fd[1] = -1;
    EXPECT(mag_send(e.fd[0], out_bytes, 8, 0) == -EPIPE);
    EXPECT(mag_write(e.fd[0], out_bytes, 8) == -EPIPE);
    EXPECT(mag_sendto(e.fd[0], out_bytes, 8, 0, NULL, 0) == -EPIPE);
    close_ends(&e);
    EXPECT(mag_self() || (sigpending(&pending) == 0 && !sigismember(&pending, SIGPIPE)));
    return 0;
}

Test(net, no_sigpipe)
{
    signal(SIGPIPE, SIG_DFL);
    BOTH(broken_pipes);
}

/* ---- all of it --------------------------------------------------------------------------------------- */

enum { LONG = 1000000 };

struct long_send {
    int fd;
    bool is_write;
    size_t *done;
};

static int long_send_body(void *frame, void *result)
{
    static char bytes[LONG];
    struct long_send *s = frame;

    (void)result;
    return s->is_write ? mag_write_all(s->fd, bytes, LONG, s->done)
                       : mag_send_all(s->fd, bytes, LONG, 0, s->done);
}

/* What is said to be done has arrived, no more and no less. */
static int all_reports(void)
{
    static const int ends_with[] = { 0, -ECANCELED, -EBADF };

    for (int how = 0; how < 6; how++) { /* ends, is cancelled, is closed; by send and write */
        size_t done = 0, got = 0;
        struct long_send s = { .is_write = how >= 3, .done = &done };
        struct mag_task *task;
        char buf[4096];
        struct ends e;
        int n = 0, rc;

        make_pair(&e);
        s.fd = e.fd[0];
        EXPECT(mag_spawn(&task, long_send_body, &s, sizeof s, 0, NULL) == 0);
        EXPECT(mag_sleep(2 * MAG_MS) == 0);
        while (got < LONG / 2 && (n = mag_recv(e.fd[1], buf, sizeof buf, 0)) > 0)
            got += (size_t)n;
        EXPECT(!mag_done(task));
        if (how % 3 == 1)
            EXPECT(mag_cancel(task) == 0);
        if (how % 3 == 2) {
            EXPECT(mag_close_fd(e.fd[0]) == 0);
            e.fd[0] = -1;
        }
        while (how % 3 == 0 && got < LONG && (n = mag_recv(e.fd[1], buf, sizeof buf, 0)) > 0)
            got += (size_t)n;
        rc = mag_await(task, NULL, 0);
        got += (size_t)drain(e.fd[1]);
        EXPECT(rc == ends_with[how % 3]);
        EXPECT(got == done);
        close_ends(&e);
    }
    return 0;
}

Test(net, all_reports_what_went)
{
    int line = run_in_task(all_reports);

    cr_assert_eq(line, 0, "line %d", line);
}

/* ---- datagrams ----------------------------------------------------------------------------------------- */

static int datagrams(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in from = { 0 };
    socklen_t len = sizeof a;
    int x = mag_socket(AF_INET, SOCK_DGRAM, 0), y = mag_socket(AF_INET, SOCK_DGRAM, 0);
    char buf[4];

    EXPECT(bind(x, (void *)&a, sizeof a) == 0 && getsockname(x, (void *)&a, &len) == 0);
    EXPECT(mag_sendto(y, "hello", 5, 0, (void *)&a, sizeof a) == 5);
    EXPECT(mag_sendto(y, "", 0, 0, (void *)&a, sizeof a) == 0);
    len = sizeof from;
    EXPECT(mag_recvfrom(x, buf, 4, MSG_TRUNC, (void *)&from, &len) == 5);
    EXPECT(len == sizeof from && from.sin_port != 0 && memcmp(buf, "hell", 4) == 0);
    EXPECT(mag_recvfrom(x, buf, 4, 0, NULL, NULL) == 0);
    EXPECT(mag_connect_fd(x, (void *)&from, sizeof from) == 0);
    EXPECT(mag_send(x, "ok", 2, 0) == 2 && mag_recv(y, buf, 4, 0) == 2);
    EXPECT(mag_close_fd(x) == 0 && mag_close_fd(y) == 0);
    return 0;
}

Test(net, datagrams)
{
    BOTH(datagrams);
}

static int multicast(void)
{
    struct sockaddr_in any = { .sin_family = AF_INET }, group = { .sin_family = AF_INET };
    socklen_t len = sizeof any;
    int one = 1, fd = mag_socket(AF_INET, SOCK_DGRAM, 0), rc;
    unsigned lo = if_nametoindex("lo");
    struct ip_mreqn by = { .imr_ifindex = (int)lo };
    char buf[4];

    inet_pton(AF_INET, "239.1.2.3", &group.sin_addr);
    EXPECT(bind(fd, (void *)&any, sizeof any) == 0 && getsockname(fd, (void *)&any, &len) == 0);
    group.sin_port = any.sin_port;
    rc = mag_multicast_join(fd, (void *)&group, lo);
    EXPECT(rc == 0);
    EXPECT(mag_multicast_join(fd, (void *)&group, lo) == -EADDRINUSE);
    EXPECT(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof by) == 0);
    EXPECT(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof one) == 0);
    EXPECT(mag_sendto(fd, "hi", 2, 0, (void *)&group, sizeof group) == 2);
    EXPECT(mag_recv(fd, buf, 4, 0) == 2);
    EXPECT(mag_multicast_leave(fd, (void *)&group, lo) == 0);
    EXPECT(mag_multicast_leave(fd, (void *)&group, lo) == -EADDRNOTAVAIL);
    group.sin_family = AF_UNIX;
    EXPECT(mag_multicast_join(fd, (void *)&group, lo) == -EAFNOSUPPORT);
    EXPECT(mag_close_fd(fd) == 0);
    return 0;
}

Test(net, multicast)
{
    BOTH(multicast);
}

/* ---- callbacks ------------------------------------------------------------------------------------------ */

static int callback_rc[4];
static uint32_t callback_is_over;

static void callback(void *arg)
{
    char c;

    (void)arg;
    callback_rc[0] = mag_recv(0, &c, 1, 0);
    callback_rc[1] = mag_close_fd(999);
    callback_rc[2] = mag_socket(AF_UNIX, SOCK_STREAM, 0);
    callback_rc[3] = mag_splice(0, NULL, 1, NULL, 1, 0);
    mag_store_release(&callback_is_over, 1);
}

static int in_a_callback(void)
{
    EXPECT(mag_call_soon(callback, NULL) == 0);
    while (!mag_load_acquire(&callback_is_over))
        EXPECT(mag_sleep(MAG_MS) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(callback_rc[i] == -ENXIO);
    return 0;
}

Test(net, refused_in_callbacks)
{
    int line = run_in_task(in_a_callback);

    cr_assert_eq(line, 0, "line %d", line);
}

/* ---- in a child of fork(2) ------------------------------------------------------------------------------ */

/* Has none of its parent's tasks, and can close what these wait on, and use the number again. */
static int in_the_child(struct ends *e)
{
    char c = 0;
    int fds[2];

    EXPECT(mag_close_fd(e->fd[0]) == 0);
    EXPECT(pipe(fds) == 0 && fds[0] == e->fd[0]);
    EXPECT(mag_write(fds[1], "x", 1) == 1 && mag_read(fds[0], &c, 1) == 1 && c == 'x');
    EXPECT(mag_close_fd(fds[0]) == 0);
    return 0;
}

static void *fork_on_a_thread(void *arg)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none); /* threads of a worker's block the alarm's, too */
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        signal(SIGALRM, SIG_DFL);
        alarm(10);
        _exit(in_the_child(arg) != 0);
    }
    return waitpid(pid, &status, 0) == pid && status == 0 ? arg : NULL;
}

static int forks_amid_a_call(void)
{
    struct ends e;
    struct mag_task *task;
    pthread_t thread;
    void *good = NULL;

    make_pipe(&e);
    task = begin_and_wait(&kinds[0], &e);
    EXPECT(task);
    EXPECT(pthread_create(&thread, NULL, fork_on_a_thread, &e) == 0);
    EXPECT(pthread_join(thread, &good) == 0);
    feed(&e); /* here it goes on as if nothing had been */
    EXPECT(mag_await(task, NULL, 0) > 0);
    close_ends(&e);
    EXPECT(good == &e);
    return 0;
}

Test(net, a_forked_child_can_close)
{
    int line = run_in_task(forks_amid_a_call);

    cr_assert_eq(line, 0, "line %d", line);
}
