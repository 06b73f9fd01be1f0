/* SPDX-License-Identifier: MIT */
/*
 * echo.c - a TCP server that sends back what it gets
 *
 *      echo [-a ADDRESS] [-p PORT] [-c CONNECTIONS] [-i IDLE_SECONDS] [-d DRAIN_SECONDS]
 *      echo --self-test [CLIENTS]
 *      echo --help
 *
 * DESCRIPTION
 *     Listens on ADDRESS (127.0.0.1, an IPv4 address) and PORT (7777; 0: any) and says where.
 *     At most CONNECTIONS (1000) are served at a time; further ones wait in the backlog.  One
 *     that is quiet for IDLE_SECONDS (60) is closed.
 *
 *     SIGTERM or Ctrl-C ends it gracefully: it accepts no more, sends back what has arrived,
 *     closes, and is gone after DRAIN_SECONDS (5) at most.
 *
 *     With --self-test it talks to itself: CLIENTS (20) connections at once, each of which
 *     checks every byte that comes back; then it gets a SIGTERM, of its own.
 *
 * HOW
 *      serve:  waits for the signal ------------- closes the listener, ends reading everywhere
 *      door:   accept -> a child of its group     (-EBADF) waits for its children
 *      child:  recv -> send_all -> recv ...       0: all was sent back; closes
 *
 * EXIT STATUS
 *     0; 1 if it could not listen, had to cut connections off, or the self-test failed; 2 for
 *     wrong usage.
 */
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/net.h>
#include <magpie/signal.h>
#include <magpie/sync.h>

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK = 16 * 1024,
    BACKLOG = 1024,
    ROUNDS = 50, /* of each client of the self-test */
    EXIT_USAGE = 2,
};

/* A connection that is being served; on the stack of the task that serves it. */
struct connection {
    struct connection *next, **link;
    int fd;
};

struct server {
    const char *address;
    long port, limit, idle_s, drain_s;
    long n_clients; /* of the self-test; 0: none */
    int fd;
    struct sockaddr_in where;
    struct mag_sem room;  /* connections that may still be accepted */
    pthread_mutex_t lock; /* of `open'; never held across a suspension */
    struct connection *open;
    bool is_ending; /* with the lock */
    atomic_long n_served, n_bytes;
};

/* ---- one connection --------------------------------------------------------------------- */

static void note(struct server *s, struct connection *c, int fd)
{
    pthread_mutex_lock(&s->lock);
    *c = (struct connection){ .next = s->open, .link = &s->open, .fd = fd };
    if (c->next)
        c->next->link = &c->next;
    s->open = c;
    if (s->is_ending) /* accepted at the last moment */
        shutdown(fd, SHUT_RD);
    pthread_mutex_unlock(&s->lock);
}

static void forget(struct server *s, struct connection *c)
{
    pthread_mutex_lock(&s->lock);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    pthread_mutex_unlock(&s->lock);
}

/* > 0, or why it is over: 0 the end, -ETIMEDOUT, -ECONNRESET, ... */
static int echo_once(struct server *s, int fd, char *buf)
{
    struct mag_scope idle;
    int n, rc = mag_timeout_enter(&idle, s->idle_s * MAG_SECOND, NULL);

    if (rc < 0)
        return rc;
    n = mag_recv(fd, buf, CHUNK, 0);
    rc = n > 0 ? mag_send_all(fd, buf, (size_t)n, 0, NULL) : n;
    if (rc == 0 && n > 0)
        s->n_bytes += n;
    rc = mag_scope_leave(&idle, rc);
    return rc < 0 ? rc : n;
}

/* Its error is its peer's business, and no other connection's: so it has none. */
async(void, serve_one, (struct server *, s), (int, fd))
{
    struct connection c;
    char buf[CHUNK];

    note(s, &c, fd);
    while (echo_once(s, fd, buf) > 0) {
    }
    forget(s, &c); /* before the number can be another's */
    mag_close_fd(fd);
    mag_sem_release(&s->room);
    s->n_served++;
    return 0;
}

/* ---- the door ----------------------------------------------------------------------------- */

/* What passes when others close theirs. */
static bool is_shortage(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOBUFS || rc == -ENOMEM;
}

static int admit(struct server *s, struct mag_group *g)
{
    static const int on = 1;
    int fd = mag_accept(s->fd, NULL, NULL, 0), rc;

    if (fd < 0)
        return fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    rc = mag_group_spawn(g, serve_one(s, fd), NULL, NULL);
    if (rc < 0)
        mag_close_fd(fd);
    return rc;
}

/* Until the listener is closed. */
static int admit_all(struct server *s, struct mag_group *g)
{
    int rc;

    while ((rc = mag_sem_acquire(&s->room)) == 0) {
        rc = admit(s, g);
        if (rc < 0)
            mag_sem_release(&s->room);
        if (is_shortage(rc)) {
            fprintf(stderr, "echo: accept: %s; waits\n", mag_err_text(rc));
            rc = mag_sleep(50 * MAG_MS);
        }
        if (rc < 0)
            break;
    }
    return rc == -EBADF ? 0 : rc;
}

/* Ends when the last connection has. */
async(void, door, (struct server *, s))
{
    int rc = 0;

    task_group(g) rc = admit_all(s, g);
    return rc;
}

/* ---- the self-test --------------------------------------------------------------------------- */

async(void, client, (struct server *, s), (long, number))
{
    char out[1000], in[1000];
    int fd = mag_socket(AF_INET, SOCK_STREAM, 0), rc;

    if (fd < 0)
        return fd;
    rc = mag_connect_fd(fd, (struct sockaddr *)&s->where, sizeof s->where);
    for (int i = 0; i < ROUNDS && rc == 0; i++) {
        size_t n = 1 + (size_t)(number * 37 + i * 101) % sizeof out;
        memset(out, (int)number + i, n);
        rc = mag_send_all(fd, out, n, 0, NULL);
        if (rc == 0)
            rc = mag_recv(fd, in, n, MSG_WAITALL);
        if (rc >= 0)
            rc = (size_t)rc == n && memcmp(in, out, n) == 0 ? 0 : -EPROTO;
    }
    /* What is under way when the signal comes is sent back as well. */
    if (rc == 0)
        rc = mag_send_all(fd, "last words", 10, 0, NULL);
    if (rc == 0)
        rc = mag_shutdown(fd, SHUT_WR);
    if (rc == 0)
        rc = mag_recv(fd, in, sizeof in, MSG_WAITALL) == 10 ? 0 : -EPROTO;
    mag_close_fd(fd);
    return rc;
}

async(void, self_test, (struct server *, s))
{
    task_group(g) for (long i = 0; i < s->n_clients; i++) group_spawn(g, client(s, i));
    printf("%ld clients got back what they had sent\n", s->n_clients);
    return 0;
}

/* ---- the server ------------------------------------------------------------------------------- */

static int start_listening(struct server *s)
{
    static const int on = 1;
    socklen_t len = sizeof s->where;
    int rc = mag_socket(AF_INET, SOCK_STREAM, 0);

    if (rc < 0)
        return rc;
    s->fd = rc;
    s->where = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)s->port) };
    if (inet_pton(AF_INET, s->address, &s->where.sin_addr) != 1)
        return -EINVAL;
    setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s->fd, (struct sockaddr *)&s->where, sizeof s->where) < 0 ||
        listen(s->fd, BACKLOG) < 0 || getsockname(s->fd, (struct sockaddr *)&s->where, &len) < 0)
        return -errno; /* nothing has suspended since */
    return 0;
}

/* What has arrived is still read, and then there is an end. */
static void end_reading(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_ending = true;
    for (struct connection *c = s->open; c; c = c->next)
        shutdown(c->fd, SHUT_RD);
    pthread_mutex_unlock(&s->lock);
}

static int wait_for_signal(struct server *s, struct mag_signals *signals)
{
    int signo = 0, rc = 0;

    if (s->n_clients > 0) {
        rc = mag_await(self_test(s), NULL, 0);
        kill(getpid(), SIGTERM);
    }
    if (mag_signals_next(signals, &signo) > 0)
        printf("%s: no more is accepted\n", strsignal(signo));
    return rc;
}

async(void, serve, (struct server *, s))
{
    struct door *the_door = door(s);
    int rc, ended = 0;

    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT))
    {
        await(mag_start(the_door, NULL));
        printf("listening on %s port %d\n", s->address, ntohs(s->where.sin_port));
        fflush(stdout);
        rc = wait_for_signal(s, signals);
        mag_close_fd(s->fd);
        end_reading(s);
        ended = mag_wait_for(the_door, s->drain_s * MAG_SECOND, NULL, 0);
    }
    printf("%ld connections served, %ld bytes sent back\n", s->n_served, s->n_bytes);
    if (ended == -ETIMEDOUT)
        fprintf(stderr, "echo: some connections took too long and were cut off\n");
    return rc < 0 ? rc : ended;
}

async(void, echo, (struct server *, s))
{
    int rc = start_listening(s);

    if (rc < 0) {
        fprintf(stderr, "echo: %s port %ld: %s\n", s->address, s->port, mag_err_text(rc));
        if (s->fd >= 0)
            mag_close_fd(s->fd);
        return rc;
    }
    return await_rc(serve(s), NULL);
}

/* ---- the command line -------------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fprintf(to, "usage: echo [-a ADDRESS] [-p PORT] [-c CONNECTIONS] [-i IDLE_SECONDS] "
                "[-d DRAIN_SECONDS]\n"
                "       echo --self-test [CLIENTS]\n");
    return to == stdout ? 0 : EXIT_USAGE;
}

static bool parse(const char *text, long least, long most, long *out)
{
    char *end;

    *out = strtol(text, &end, 10);
    return *text && !*end && *out >= least && *out <= most;
}

static bool parse_option(struct server *s, int option)
{
    switch (option) {
    case 'a':
        s->address = optarg;
        return true;
    case 'p':
        return parse(optarg, 0, 65535, &s->port);
    case 'c':
        return parse(optarg, 1, 1000000, &s->limit);
    case 'i':
        return parse(optarg, 1, 86400, &s->idle_s);
    case 'd':
        return parse(optarg, 0, 86400, &s->drain_s);
    case 's':
        s->n_clients = 20;
        s->port = 0;
        return !optarg || parse(optarg, 1, 10000, &s->n_clients);
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "self-test", optional_argument, NULL, 's' },
                                             { 0 } };
    struct server s = { .address = "127.0.0.1",
                        .port = 7777,
                        .limit = 1000,
                        .idle_s = 60,
                        .drain_s = 5,
                        .fd = -1,
                        .lock = PTHREAD_MUTEX_INITIALIZER };
    int option;

    while ((option = getopt_long(argc, argv, "a:p:c:i:d:", options, NULL)) != -1) {
        if (option == 'h')
            return usage(stdout);
        if (!parse_option(&s, option))
            return usage(stderr);
    }
    if (s.n_clients > 0 && optind < argc && !parse(argv[optind++], 1, 10000, &s.n_clients))
        return usage(stderr);
    if (optind < argc)
        return usage(stderr);
    mag_sem_init(&s.room, (unsigned)s.limit);
    return mag_run_with(echo(&s), NULL, &(struct mag_rt_options){ .workers = 0 }) < 0;
}
