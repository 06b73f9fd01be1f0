/* SPDX-License-Identifier: MIT */
/*
 * net.c - echoes over socket pairs and loopback TCP, with cancels, time-outs and closes
 *
 *      client: send --> [ socket ] --> server: recv, send back --> [ socket ] --> client: recv
 *
 * Each send and each receive of both sides takes one of several ways: plain, under a deadline of
 * microseconds, or in a task that is cancelled at some moment.  What a call says it moved is all
 * that is counted; so if a cancelled call had moved something after all, or an error had replaced
 * a count, the bytes that come back would not be the ones that are due.  Descriptors are blocking
 * or not, by chance.  At the end another task waits on the client's socket when it is closed.
 *
 * Beside that, connections are made and accepted by tasks that are cancelled at some moment: none
 * of it is left over, which the number of open descriptors shows at the end.
 */
#include "stress.h"

#include <magpie/net.h>
#include <magpie/scope.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

enum {
    PAIRS = STRESS_SCALE(24, 8),
    ROUNDS = STRESS_SCALE(24, 10),
    BYTES = STRESS_SCALE(60000, 12000),
    CHUNK = 3000,
    CHURNS = STRESS_SCALE(400, 60),
};

static mag_atomic(uint64_t) n_cancelled, n_timed_out, n_whole, n_closed, n_accepted;

#if MAG_TSAN
/* It knows descriptors by the system calls on them, and does not see those that the ring closes:
 * who gets such a number next, by open(2), seems to race with its former user. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\n";
}
#endif

/* ---- one call, which may not end well ------------------------------------------------------- */

async(int, one, (int, fd), (bool, is_send), (char *, buf), (size_t, n))
{
    int rc = is_send ? mag_send(fd, buf, n, 0) : mag_recv(fd, buf, n, 0);

    if (rc < 0)
        return rc;
    async_return(rc);
}

static void a_moment(struct mag_rand *r)
{
    switch (mag_rand_below(r, 4)) {
    case 0:
        break;
    case 1:
        mag_yield();
        break;
    case 2:
        stress_spin(mag_rand_below(r, 20000));
        break;
    default:
        mag_sleep(mag_rand_below(r, 60000));
    }
}

/* In a task that is cancelled: -ECANCELED, or what it moved. */
static int cancelled(int fd, bool is_send, char *buf, size_t n, struct mag_rand *r)
{
    struct one *task = one(fd, is_send, buf, n);
    int moved = 0, rc;

    if (mag_start(task, NULL) < 0)
        return mag_close(task), 0;
    a_moment(r);
    EXPECT(mag_cancel(task) == 0);
    rc = mag_await(task, &moved, sizeof moved);
    if (rc == -ECANCELED)
        mag_fetch_add(&n_cancelled, 1);
    return rc < 0 ? rc : moved;
}

static int timed(int fd, bool is_send, char *buf, size_t n, struct mag_rand *r)
{
    struct mag_scope scope;
    int rc = mag_timeout_enter(&scope, mag_rand_below(r, 60000), NULL);

    EXPECT(rc == 0);
    rc = is_send ? mag_send(fd, buf, n, 0) : mag_recv(fd, buf, n, 0);
    rc = mag_scope_leave(&scope, rc);
    if (rc == -ETIMEDOUT)
        mag_fetch_add(&n_timed_out, 1);
    return rc;
}

/* Bytes moved, at least one; 0 at the end. */
static int somehow(int fd, bool is_send, char *buf, size_t n, struct mag_rand *r)
{
    int rc;

    stress_beat();
    for (;;) {
        switch (mag_rand_below(r, 4)) {
        case 0:
            rc = cancelled(fd, is_send, buf, n, r);
            break;
        case 1:
            rc = timed(fd, is_send, buf, n, r);
            break;
        default:
            rc = is_send ? mag_send(fd, buf, n, 0) : mag_recv(fd, buf, n, 0);
        }
        if (rc != -ECANCELED && rc != -ETIMEDOUT)
            return rc;
    }
}

/* ---- a pair -------------------------------------------------------------------------------------- */

static char byte_at(uint32_t who, size_t i)
{
    return (char)(who * 31 + i + (i >> 8) * 7);
}

async(void, server, (int, fd), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who * 3 + 1);
    char buf[CHUNK];
    int n, sent, rc = 0;

    while ((n = somehow(fd, false, buf, 1 + mag_rand_below(&r, CHUNK), &r)) > 0)
        for (sent = 0; sent < n; sent += rc) {
            rc = somehow(fd, true, buf + sent, (size_t)(n - sent), &r);
            EXPECT(rc > 0);
            if (rc <= 0)
                return -EPROTO;
        }
    EXPECT(n == 0);
    EXPECT(mag_close_fd(fd) == 0);
    return 0;
}

async(void, sender, (int, fd), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who * 3 + 2);
    char buf[CHUNK];
    size_t sent = 0;

    while (sent < BYTES) {
        size_t n = 1 + mag_rand_below(&r, CHUNK);
        n = n < BYTES - sent ? n : BYTES - sent;
        for (size_t i = 0; i < n; i++)
            buf[i] = byte_at(who, sent + i);
        int rc = somehow(fd, true, buf, n, &r);
        EXPECT(rc > 0);
        if (rc <= 0)
            return -EPROTO;
        sent += (size_t)rc;
    }
    return 0;
}

/* Waits for what never comes.  It may begin after the close, and then with whatever has got the
 * number by then: that is why it only peeks. */
async(void, loiterer, (int, fd))
{
    char c;

    if (mag_recv(fd, &c, 1, MSG_PEEK) == -EBADF)
        mag_fetch_add(&n_closed, 1);
    return 0;
}

async(void, client, (int, fd), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who * 3);
    struct sender *s = sender(fd, who);
    struct loiterer *l = loiterer(fd);
    char buf[CHUNK];
    size_t got = 0;

    EXPECT(mag_start(s, NULL) == 0);
    while (got < BYTES) {
        int n = somehow(fd, false, buf, 1 + mag_rand_below(&r, CHUNK), &r);
        EXPECT(n > 0);
        if (n <= 0)
            break;
        for (int i = 0; i < n; i++, got++)
            if (buf[i] != byte_at(who, got)) {
                EXPECT(!"the bytes that are due");
                break;
            }
    }
    EXPECT(mag_await(s, NULL, 0) == 0);
    EXPECT(got == BYTES);
    mag_fetch_add(&n_whole, 1);
    EXPECT(mag_start(l, NULL) == 0);
    a_moment(&r);
    EXPECT(mag_close_fd(fd) == 0);
    EXPECT(mag_await(l, NULL, 0) == 0);
    return 0;
}

/* ---- making pairs ----------------------------------------------------------------------------------- */

static int make_listener(struct sockaddr_in *a)
{
    socklen_t len = sizeof *a;
    int fd = mag_socket(AF_INET, SOCK_STREAM, 0);

    *a = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    EXPECT(fd >= 0 && bind(fd, (void *)a, sizeof *a) == 0 && listen(fd, 128) == 0);
    EXPECT(getsockname(fd, (void *)a, &len) == 0);
    return fd;
}

static void unblock_some(int fd, struct mag_rand *r)
{
    if (mag_rand_below(r, 3) == 0)
        EXPECT(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

static void make_pair(int fds[2], bool is_tcp, struct mag_rand *r)
{
    struct sockaddr_in a;

    if (is_tcp) {
        int fd = make_listener(&a);
        fds[0] = mag_socket(AF_INET, SOCK_STREAM, 0);
        EXPECT(mag_connect_fd(fds[0], (void *)&a, sizeof a) == 0);
        fds[1] = mag_accept(fd, NULL, NULL, 0);
        EXPECT(mag_close_fd(fd) == 0);
    } else {
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    }
    EXPECT(fds[0] >= 0 && fds[1] >= 0);
    unblock_some(fds[0], r);
    unblock_some(fds[1], r);
}

/* ---- connections that come to nothing ------------------------------------------------------------------ */

async(void, knocker, (struct sockaddr_in, a))
{
    int fd = mag_socket(AF_INET, SOCK_STREAM, 0), rc;

    if (fd < 0)
        return fd;
    rc = mag_connect_fd(fd, (void *)&a, sizeof a);
    EXPECT(mag_close_fd(fd) == 0);
    return rc;
}

async(void, doorman, (int, fd))
{
    int rc;

    while ((rc = mag_accept(fd, NULL, NULL, 0)) >= 0) {
        mag_fetch_add(&n_accepted, 1);
        EXPECT(mag_close_fd(rc) == 0);
    }
    return rc;
}

async(void, churn, (uint32_t, who))
{
    struct mag_rand r = stress_rand(who);
    struct sockaddr_in a;
    int fd = make_listener(&a);

    for (int i = 0; i < CHURNS; i++) {
        struct doorman *d = doorman(fd);
        struct knocker *k = knocker(a);
        stress_beat();
        EXPECT(mag_start(d, NULL) == 0 && mag_start(k, NULL) == 0);
        a_moment(&r);
        EXPECT(mag_cancel(mag_rand_below(&r, 2) ? (void *)d : (void *)k) == 0);
        a_moment(&r);
        mag_close(k);
        mag_close(d);
    }
    EXPECT(mag_close_fd(fd) == 0);
    return 0;
}

async(void, round_of, (uint32_t, number))
{
    struct mag_rand r = stress_rand(1000 + number);

    task_group(g)
    {
        group_spawn(g, churn(5000 + number));
        for (uint32_t i = 0; i < PAIRS; i++) {
            int fds[2];
            make_pair(fds, i % 2, &r);
            group_spawn(g, server(fds[1], number * PAIRS + i));
            group_spawn(g, client(fds[0], number * PAIRS + i));
        }
    }
    return 0;
}

int main(void)
{
    struct mag_rt_options options = { .workers = 4 };
    int before;

    stress_begin("net", NULL);
    before = stress_n_descriptors();
    for (uint32_t i = 0; i < ROUNDS; i++)
        EXPECT(mag_run_with(round_of(i), NULL, &options) == 0);
    EXPECT(stress_n_descriptors() == before);
    EXPECT(n_whole == PAIRS * ROUNDS);
    EXPECT(n_cancelled > 0 && n_timed_out > 0 && n_closed > 0 && n_accepted > 0);
    printf("net: %llu cancelled, %llu timed out, %llu closed under it, %llu accepted\n",
           (unsigned long long)n_cancelled, (unsigned long long)n_timed_out,
           (unsigned long long)n_closed, (unsigned long long)n_accepted);
    return stress_end();
}
