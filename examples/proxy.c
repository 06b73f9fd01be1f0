/* SPDX-License-Identifier: MIT */
/*
 * proxy.c - a TCP relay: what comes here is passed on there, and back
 *
 *      proxy [-v] [-a ADDRESS] [-p PORT] [-u PATH] [-c CONNECTIONS] [-t SECONDS] [-i IDLE_SECONDS]
 *            [-d DRAIN_SECONDS] HOST PORT
 *      proxy [...] PATH
 *      proxy --help
 *
 * DESCRIPTION
 *     Listens on ADDRESS (127.0.0.1; `*' for all) and PORT (7070; 0: any), or on a unix socket at
 *     PATH (-u), and says where.  Each connection is joined with one of its own to HOST and PORT,
 *     or to the unix socket PATH, which must be there in -t SECONDS (10).  At most CONNECTIONS
 *     (1000) are relayed at a time; further ones wait.  A pair on which nothing moves for
 *     IDLE_SECONDS (300), in either direction, is closed.
 *
 *     An end of one direction is passed on, and the other one goes on.  -v tells of each
 *     connection, on standard output, when it has ended.
 *
 *     SIGTERM or Ctrl-C ends it gracefully: it accepts no more, takes no more from its clients,
 *     passes on what there is and what is answered, and is gone after DRAIN_SECONDS (10) at most.
 *
 * HOW
 *     client --splice--> [pipe] --splice--> server       one task
 *     client <--splice-- [pipe] <--splice-- server       another
 *
 *     The bytes stay in the kernel: splice(2) moves pages from the one socket to the pipe, and
 *     from there to the other.  A connection costs six descriptors, two of a client's own.
 *
 * EXIT STATUS
 *     0; 1 if it could not listen, or had to cut connections off; 2 for wrong usage.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* splice, pipe2 */
#endif
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/net.h>
#include <magpie/server.h>
#include <magpie/signal.h>
#include <magpie/stream.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, EXIT_USAGE = 2 }; /* CHUNK: what a pipe holds */

struct proxy {
    const char *address, *path;    /* where it listens */
    const char *to_host, *to_path; /* where it relays to */
    long port, to_port, limit, connect_s, idle_s, drain_s;
    bool is_verbose;
    struct mag_server *server;
};

/* ---- one connection ------------------------------------------------------------------------ */

struct pair {
    const struct proxy *proxy;
    atomic_llong last_move; /* mag_time, in either direction */
};

/* splice, as long as something moves in either direction. */
static int splice_or_idle(struct pair *pair, int from, int to, size_t n)
{
    mag_time idle = pair->proxy->idle_s * MAG_SECOND;
    struct mag_scope limit;
    int rc;

    do {
        rc = mag_scope_enter(&limit, pair->last_move + idle, NULL);
        if (rc == 0)
            rc = mag_scope_leave(&limit, mag_splice(from, NULL, to, NULL, n, SPLICE_F_MOVE));
    } while (rc == -ETIMEDOUT && pair->last_move + idle > mag_now());
    pair->last_move = mag_now();
    return rc;
}

/* Until there is no more: how many bytes it were is added to *total. */
static int move_all(struct pair *pair, int from, int to, const int pipe_fds[2], long long *total)
{
    int n, rc = 0;

    while ((n = splice_or_idle(pair, from, pipe_fds[1], CHUNK)) > 0)
        for (; n > 0; n -= rc, *total += rc)
            if ((rc = splice_or_idle(pair, pipe_fds[0], to, (size_t)n)) <= 0)
                return rc < 0 ? rc : -EPIPE;
    return n;
}

async(void, one_way, (struct pair *, pair), (int, from), (int, to), (long long *, total))
{
    int pipe_fds[2], rc;

    fcntl(from, F_SETFL, O_NONBLOCK); /* splice is then done on the spot */
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno; /* nothing has suspended since */
    rc = move_all(pair, from, to, pipe_fds, total);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    if (rc == 0)
        rc = mag_shutdown(to, SHUT_WR); /* the end is passed on */
    return rc == -ENOTCONN ? 0 : rc;    /* it has gone, and knows */
}

static int connect_there(const struct proxy *p, struct mag_stream *there)
{
    struct mag_scope limit;
    int rc = mag_timeout_enter(&limit, p->connect_s * MAG_SECOND, NULL);

    if (rc < 0)
        return rc;
    rc = p->to_path ? mag_connect_unix(there, p->to_path, NULL)
                    : mag_connect(there, p->to_host, (uint16_t)p->to_port, NULL);
    return mag_scope_leave(&limit, rc);
}

static void tell(const char *peer, const long long n[2], mag_time begun, int rc)
{
    printf("%s: %lld bytes there, %lld back, %.3f s, %s\n", peer, n[0], n[1],
           mag_seconds(mag_now() - begun), mag_err_name(rc));
    fflush(stdout);
}

static int relay(struct mag_stream *here, void *arg)
{
    const struct proxy *p = arg;
    struct pair pair = { .proxy = p, .last_move = mag_now() };
    struct mag_stream there;
    mag_time begun = mag_now();
    long long n[2] = { 0 };
    char peer[80] = "";
    int rc = connect_there(p, &there);

    if (p->is_verbose)
        mag_stream_peer_name(here, peer, sizeof peer);
    if (rc < 0) {
        fprintf(stderr, "proxy: %s: %s\n", p->to_path ? p->to_path : p->to_host, mag_err_text(rc));
    } else {
        int fd = mag_stream_fd(here), fd_there = mag_stream_fd(&there);
        rc = gather_rc(NULL, one_way(&pair, fd, fd_there, &n[0]),
                       one_way(&pair, fd_there, fd, &n[1]));
        mag_stream_close(&there);
    }
    if (rc < 0)
        mag_stream_abort(here); /* what it got is not all */
    if (p->is_verbose)
        tell(peer, n, begun, rc);
    return rc;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int start(struct proxy *p)
{
    struct mag_serve_options options = {
        .host = strcmp(p->address, "*") == 0 ? NULL : p->address,
        .port = (uint16_t)p->port,
        .unix_path = p->path,
        .max_connections = (unsigned)p->limit,
        .drain = p->drain_s * MAG_SECOND + 1, /* 0 would be the default */
    };
    int rc = mag_server_start(&p->server, relay, p, &options);

    if (rc < 0)
        fprintf(stderr, "proxy: %s: %s\n", p->path ? p->path : p->address, mag_err_text(rc));
    else if (p->path)
        printf("listening on %s\n", p->path);
    else
        printf("listening on %s port %d\n", p->address, mag_server_port(p->server));
    fflush(stdout);
    return rc;
}

async(void, run_proxy, (struct proxy *, p))
{
    int signo = 0, ended = 0;

    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT))
    {
        await(start(p));
        mag_signals_next(signals, &signo);
        ended = mag_server_stop(p->server);
    }
    mag_server_free(p->server);
    if (ended == -ETIMEDOUT)
        fprintf(stderr, "proxy: some connections took too long and were cut off\n");
    return ended;
}

/* ---- the command line --------------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fprintf(to, "usage: proxy [-v] [-a ADDRESS] [-p PORT] [-u PATH] [-c CONNECTIONS] [-t SECONDS]\n"
                "             [-i IDLE_SECONDS] [-d DRAIN_SECONDS] HOST PORT | PATH\n");
    return to == stdout ? 0 : EXIT_USAGE;
}

static bool parse(const char *text, long least, long most, long *out)
{
    char *end;

    *out = strtol(text, &end, 10);
    return *text && !*end && *out >= least && *out <= most;
}

static bool parse_option(struct proxy *p, int option)
{
    switch (option) {
    case 'v':
        p->is_verbose = true;
        return true;
    case 'a':
        p->address = optarg;
        return true;
    case 'u':
        p->path = optarg;
        return true;
    case 'p':
        return parse(optarg, 0, 65535, &p->port);
    case 'c':
        return parse(optarg, 1, 1000000, &p->limit);
    case 't':
        return parse(optarg, 1, 86400, &p->connect_s);
    case 'i':
        return parse(optarg, 1, 86400, &p->idle_s);
    case 'd':
        return parse(optarg, 0, 86400, &p->drain_s);
    default:
        return false;
    }
}

static bool parse_target(struct proxy *p, char **args, int n)
{
    if (n == 1 && strchr("/@.", args[0][0]))
        p->to_path = args[0];
    else if (n == 2 && parse(args[1], 1, 65535, &p->to_port))
        p->to_host = args[0];
    return p->to_path || p->to_host;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
    struct proxy p = { .address = "127.0.0.1",
                       .port = 7070,
                       .limit = 1000,
                       .connect_s = 10,
                       .idle_s = 300,
                       .drain_s = 10 };
    int option;

    while ((option = getopt_long(argc, argv, "va:p:u:c:t:i:d:", options, NULL)) != -1) {
        if (option == 'h')
            return usage(stdout);
        if (!parse_option(&p, option))
            return usage(stderr);
    }
    if (!parse_target(&p, argv + optind, argc - optind))
        return usage(stderr);
    return mag_run(run_proxy(&p), NULL) < 0;
}
