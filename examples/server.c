/* SPDX-License-Identifier: MIT */
/*
 * server.c - a server with requests: a small store of values, and how it ends
 *
 *      server [PORT]
 *      server
 *      server --help
 *
 * DESCRIPTION
 *     A client sends lines: `SET NAME VALUE' is answered by OK, `GET NAME' by the value or
 *     NOTHING.  With PORT (0: any) it serves on 127.0.0.1 until Ctrl-C or SIGTERM.  Without, it
 *     has clients of its own, and shows what becomes of them when it
 *
 *         closes them     what they have sent is answered, then there is an end
 *         aborts them     their connections are reset
 *         stops           who is amid a request gets an answer, and is told that it is the last
 *
 * HOW
 *     The handler waits for each request by mag_stream_wait_request, and the server was told so
 *     (.has_requests): so the stop can tell connections that wait from those amid a request.
 *
 * EXIT STATUS
 *     0; 1 if something failed; 2 for wrong usage.
 */
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/server.h>
#include <magpie/signal.h>
#include <magpie/stream.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES = 100, EXIT_USAGE = 2 };

static struct {
    struct mag_mutex lock;
    char names[VALUES][32], values[VALUES][64];
    int n;
} store;

/* ---- requests ------------------------------------------------------------------------------------ */

/* The place of a name; with `is_new' one is made. */
static int find(const char *name, bool is_new)
{
    for (int i = 0; i < store.n; i++)
        if (strcmp(store.names[i], name) == 0)
            return i;
    if (!is_new || store.n == VALUES)
        return -1;
    snprintf(store.names[store.n], sizeof store.names[0], "%s", name);
    return store.n++;
}

static int answer(struct mag_stream *s, const char *request)
{
    char name[32], value[64], reply[100] = "WHAT?";
    int n = sscanf(request, "SET %31s %63s", name, value), i;

    await(mag_mutex_lock(&store.lock));
    if (n == 2 && (i = find(name, true)) >= 0) {
        strcpy(store.values[i], value);
        strcpy(reply, "OK");
    } else if (sscanf(request, "GET %31s", name) == 1) {
        i = find(name, false);
        strcpy(reply, i < 0 ? "NOTHING" : store.values[i]);
    }
    mag_mutex_unlock(&store.lock);
    strcat(reply, mag_stream_is_draining(s) ? " and goodbye\n" : "\n");
    return mag_stream_puts(s, reply);
}

static int serve_requests(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    char request[200];
    int rc;

    (void)arg;
    while ((rc = mag_stream_wait_request(s)) > 0) {
        with_timeout(10 * MAG_SECOND) /* it has begun: it should come to its end */
            await(mag_stream_readline(s, &line));
        snprintf(request, sizeof request, "%.*s", (int)line.len, line.ptr);
        await(answer(s, request));
    }
    return rc;
}

/* ---- its own clients ------------------------------------------------------------------------------ */

static int ask(struct mag_stream *s, const char *request)
{
    struct mag_str line;

    await(mag_stream_puts(s, request));
    await(mag_stream_readline(s, &line));
    printf("%.*s -> %.*s\n", (int)strcspn(request, "\n"), request, (int)strcspn(line.ptr, "\n"),
           line.ptr);
    return 0;
}

static void show_end(const char *what, struct mag_stream *s)
{
    char c;
    int rc = mag_stream_read(s, &c, 1);

    printf("%s: %s\n", what, rc == 0 ? "the end" : mag_err_text(rc));
    mag_stream_close(s);
}

async(void, stop, (struct mag_server *, server))
{
    return mag_server_stop(server);
}

async(void, tour)
{
    struct mag_serve_options options = { .host = "127.0.0.1", .has_requests = true };
    struct mag_server_stats stats;
    struct mag_server *server;
    struct mag_stream s;

    await(mag_server_start(&server, serve_requests, NULL, &options));
    uint16_t port = mag_server_port(server);

    await(mag_connect(&s, "127.0.0.1", port, NULL));
    await(ask(&s, "SET bird magpie\n"));
    await(ask(&s, "GET bird\n"));
    mag_server_close_clients(server);
    show_end("closed", &s);

    await(mag_connect(&s, "127.0.0.1", port, NULL));
    await(ask(&s, "GET fish\n"));
    mag_server_abort_clients(server);
    show_end("aborted", &s);

    await(mag_connect(&s, "127.0.0.1", port, NULL));
    await(ask(&s, "GET bird\n"));
    await(mag_stream_write_all(&s, "GET ", 4, NULL)); /* amid a request */
    await(mag_sleep(50 * MAG_MS));
    struct stop *stopping = spawn(stop(server));
    await(mag_sleep(50 * MAG_MS));
    await(ask(&s, "bird\n"));
    show_end("stopped", &s);
    await(stopping);
    mag_server_stats(server, &stats);
    printf("%llu connections, %llu failed\n", (unsigned long long)stats.n_accepted,
           (unsigned long long)stats.n_failed);
    mag_server_free(server);
    return 0;
}

/* ---- the command line -------------------------------------------------------------------------------- */

static int serve(uint16_t port)
{
    return mag_serve(
        serve_requests, NULL,
        &(struct mag_serve_options){ .host = "127.0.0.1", .port = port, .has_requests = true });
}

async(void, serve_on, (uint16_t, port))
{
    return serve(port);
}

/* mag_serve ends gracefully when it is cancelled. */
async(void, serve_until_told, (uint16_t, port))
{
    int signo;

    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT))
    {
        task_group(g)
        {
            group_spawn(g, serve_on(port));
            await(mag_signals_next(signals, &signo));
            mag_group_cancel(g);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    char *end = "";
    long port = argc == 2 ? strtol(argv[1], &end, 10) : 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        printf("usage: server [PORT]\n");
        return 0;
    }
    if (argc > 2 || *end || port < 0 || port > 65535) {
        fprintf(stderr, "usage: server [PORT]\n");
        return EXIT_USAGE;
    }
    return mag_run(argc == 2 ? (void *)serve_until_told((uint16_t)port) : (void *)tour(), NULL) < 0;
}
