/* SPDX-License-Identifier: MIT */
/*
 * echo.c - a TCP server that sends back what it gets
 *
 *      echo [-a ADDRESS] [-p PORT] [-u PATH] [-c CONNECTIONS] [-i IDLE_SECONDS] [-d DRAIN_SECONDS]
 *      echo --self-test [CLIENTS]
 *      echo --help
 *
 * DESCRIPTION
 *     Listens on ADDRESS (127.0.0.1; any name or address, `*' for all) and PORT (7777; 0: any),
 *     or on a unix socket at PATH (`@' for an abstract one), and says where.  At most CONNECTIONS
 *     (1000) are served at a time; further ones wait in the backlog.  One that is quiet for
 *     IDLE_SECONDS (60) is closed.
 *
 *     SIGTERM or Ctrl-C ends it gracefully: it accepts no more, sends back what has arrived,
 *     closes, and is gone after DRAIN_SECONDS (5) at most.  SIGHUP shows what it has done.
 *
 *     With --self-test it talks to itself: CLIENTS (20) connections at once, each of which
 *     checks every byte that comes back; then it gets a SIGTERM, of its own.
 *
 * HOW
 *     mag_server_start begins a task for each connection, which runs the handler below: it reads,
 *     sends back, and reads again, until there is an end.  At the stop there is one for everybody:
 *     reading ends once all that has arrived is read.
 *
 * EXIT STATUS
 *     0; 1 if it could not listen, had to cut connections off, or the self-test failed; 2 for
 *     wrong usage.
 */
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/server.h>
#include <magpie/signal.h>
#include <magpie/stream.h>

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK = 16 * 1024,
    ROUNDS = 50, /* of each client of the self-test */
    EXIT_USAGE = 2,
};

struct echo_server {
    const char *address, *path;
    long port, limit, idle_s, drain_s;
    long n_clients; /* of the self-test; 0: none */
    struct mag_server *server;
    atomic_long n_bytes;
};

/* ---- one connection --------------------------------------------------------------------- */

/* > 0, or why it is over: 0 the end, -ETIMEDOUT, -ECONNRESET, ... */
static int echo_once(struct echo_server *e, struct mag_stream *s, char *buf)
{
    struct mag_scope idle;
    int n, rc = mag_timeout_enter(&idle, e->idle_s * MAG_SECOND, NULL);

    if (rc < 0)
        return rc;
    n = mag_stream_read(s, buf, CHUNK);
    rc = n > 0 ? mag_stream_write_all(s, buf, (size_t)n, NULL) : n;
    if (rc == 0 && n > 0)
        e->n_bytes += n;
    rc = mag_scope_leave(&idle, rc);
    return rc < 0 ? rc : n;
}

static int serve_one(struct mag_stream *s, void *arg)
{
    char buf[CHUNK];
    int rc;

    while ((rc = echo_once(arg, s, buf)) > 0) {
    }
    return rc;
}

/* ---- the self-test --------------------------------------------------------------------------- */

static int talk(struct mag_stream *s, long number)
{
    char out[1000], in[1000];

    for (int i = 0; i < ROUNDS; i++) {
        size_t n = 1 + (size_t)(number * 37 + i * 101) % sizeof out;
        memset(out, (int)number + i, n);
        await(mag_stream_write(s, out, n, NULL)); /* sent by the read, which has to wait */
        await(mag_stream_read_exact(s, in, n, NULL));
        if (memcmp(in, out, n) != 0)
            return -EPROTO;
    }
    /* What is under way when the signal comes is sent back as well. */
    await(mag_stream_puts(s, "last words"));
    await(mag_stream_write_eof(s));
    await(mag_stream_read_exact(s, in, 10, NULL));
    return mag_stream_read(s, in, 1) == 0 && memcmp(in, "last words", 10) == 0 ? 0 : -EPROTO;
}

async(void, client, (struct echo_server *, e), (long, number))
{
    async_with(mag_stream, s, e->address, mag_server_port(e->server)) await(talk(s, number));
    return 0;
}

async(void, self_test, (struct echo_server *, e))
{
    task_group(g) for (long i = 0; i < e->n_clients; i++) group_spawn(g, client(e, i));
    printf("%ld clients got back what they had sent\n", e->n_clients);
    return 0;
}

/* ---- the server ------------------------------------------------------------------------------- */

static void show(const struct echo_server *e)
{
    struct mag_server_stats stats;

    mag_server_stats(e->server, &stats);
    printf("%llu connections served, %ld bytes sent back", (unsigned long long)stats.n_accepted,
           e->n_bytes);
    printf(stats.n_open ? ", %u open\n" : "\n", stats.n_open);
    fflush(stdout);
}

static int wait_for_signal(struct echo_server *e, struct mag_signals *signals)
{
    int signo = 0, rc = 0;

    if (e->n_clients > 0) {
        rc = mag_await(self_test(e), NULL, 0);
        kill(getpid(), SIGTERM);
    }
    while (mag_signals_next(signals, &signo) > 0 && signo == SIGHUP)
        show(e);
    printf("%s: no more is accepted\n", strsignal(signo));
    return rc;
}

static int start(struct echo_server *e)
{
    struct mag_serve_options options = {
        .host = strcmp(e->address, "*") == 0 ? NULL : e->address,
        .port = (uint16_t)e->port,
        .unix_path = e->path,
        .max_connections = (unsigned)e->limit,
        .drain = e->drain_s * MAG_SECOND + 1, /* 0 would be the default */
    };
    int rc = mag_server_start(&e->server, serve_one, e, &options);

    if (rc < 0 && e->path)
        fprintf(stderr, "echo: %s: %s\n", e->path, mag_err_text(rc));
    else if (rc < 0)
        fprintf(stderr, "echo: %s port %ld: %s\n", e->address, e->port, mag_err_text(rc));
    else if (e->path)
        printf("listening on %s\n", e->path);
    else
        printf("listening on %s port %d\n", e->address, mag_server_port(e->server));
    fflush(stdout);
    return rc;
}

async(void, echo, (struct echo_server *, e))
{
    int rc = 0, ended = 0;

    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT) | MAG_SIGNAL(SIGHUP))
    {
        await(start(e));
        rc = wait_for_signal(e, signals);
        ended = mag_server_stop(e->server);
    }
    show(e);
    mag_server_free(e->server);
    if (ended == -ETIMEDOUT)
        fprintf(stderr, "echo: some connections took too long and were cut off\n");
    return rc < 0 ? rc : ended;
}

/* ---- the command line -------------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fprintf(to, "usage: echo [-a ADDRESS] [-p PORT] [-u PATH] [-c CONNECTIONS] [-i IDLE_SECONDS] "
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

static bool parse_option(struct echo_server *e, int option)
{
    switch (option) {
    case 'a':
        e->address = optarg;
        return true;
    case 'u':
        e->path = optarg;
        return true;
    case 'p':
        return parse(optarg, 0, 65535, &e->port);
    case 'c':
        return parse(optarg, 1, 1000000, &e->limit);
    case 'i':
        return parse(optarg, 1, 86400, &e->idle_s);
    case 'd':
        return parse(optarg, 0, 86400, &e->drain_s);
    case 's':
        e->n_clients = 20;
        e->port = 0;
        return !optarg || parse(optarg, 1, 10000, &e->n_clients);
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "self-test", optional_argument, NULL, 's' },
                                             { 0 } };
    struct echo_server e = {
        .address = "127.0.0.1", .port = 7777, .limit = 1000, .idle_s = 60, .drain_s = 5
    };
    int option;

    while ((option = getopt_long(argc, argv, "a:p:u:c:i:d:", options, NULL)) != -1) {
        if (option == 'h')
            return usage(stdout);
        if (!parse_option(&e, option))
            return usage(stderr);
    }
    if (e.n_clients > 0 && optind < argc && !parse(argv[optind++], 1, 10000, &e.n_clients))
        return usage(stderr);
    if (optind < argc)
        return usage(stderr);
    return mag_run(echo(&e), NULL) < 0;
}
