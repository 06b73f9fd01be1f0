/* SPDX-License-Identifier: MIT */
/*
 * web.c - a small web application
 *
 *      web [PORT]
 *      web --hello PORT
 *      web --help
 *
 * Listens on 127.0.0.1 and PORT (8080; 0: any) and answers
 *
 *      GET  /              a page
 *      GET  /hello/NAME    a greeting
 *      GET  /clock?N       the time, N (3) times, a tenth of a second apart, as it goes by
 *      GET  /headers       what the client has sent
 *      POST /echo          what was posted (at most 64 KiB)
 *      POST /count         how many bytes and lines were posted, however many
 *
 * until SIGTERM or Ctrl-C; then what is being answered is answered first.
 *
 * With --hello it is the smallest server there is: the page, for everything, until Ctrl-C.
 *
 * EXIT STATUS
 *     0; 1 if it could not start; 2 for wrong usage; 130 after --hello and Ctrl-C.
 */
#include <magpie/async.h>
#include <magpie/http_server.h>
#include <magpie/signal.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct mag_http_field html = { "Content-Type", "text/html; charset=utf-8" };
static const struct mag_http_field plain = { "Content-Type", "text/plain; charset=utf-8" };

static int say(struct mag_http_exchange *x, int status, const char *text)
{
    return mag_http_respond(x, status, &plain, 1, text, strlen(text));
}

static int page(struct mag_http_exchange *x)
{
    static const char text[] = "<!doctype html><title>magpie</title><p>Hello, World!\n";

    return mag_http_respond(x, 200, &html, 1, text, sizeof text - 1);
}

/* A name from the path, decoded; a handler that takes paths from elsewhere would decode them so. */
static int hello(struct mag_http_exchange *x)
{
    char path[256], text[300];

    if (mag_http_path(x->path, path, sizeof path) < 0)
        return say(x, 400, "that is no name\n");
    snprintf(text, sizeof text, "Hello, %s!\n", path + strlen("/hello/"));
    return say(x, 200, text);
}

/* An answer that takes its time: each line goes out when it is there. */
static int tell_time(struct mag_http_exchange *x)
{
    int n = x->query ? atoi(x->query) : 3;

    await(mag_http_begin(x, 200, &plain, 1, MAG_HTTP_UNKNOWN_LENGTH));
    for (int i = 0; i < n; i++) {
        char line[40];
        time_t now = time(NULL);
        struct tm tm;

        strftime(line, sizeof line, "%H:%M:%S\n", localtime_r(&now, &tm));
        await(mag_http_write(x, line, strlen(line)));
        await(mag_http_flush(x));
        await(mag_sleep(MAG_SECOND / 10));
    }
    return mag_http_end(x);
}

static int headers(struct mag_http_exchange *x)
{
    struct mag_http_field f;

    await(mag_http_begin(x, 200, &plain, 1, MAG_HTTP_UNKNOWN_LENGTH));
    for (unsigned i = 0; mag_http_header_at(x, i, &f); i++) {
        char line[512];
        int n = snprintf(line, sizeof line, "%.100s: %.400s\n", f.name, f.value);

        await(mag_http_write(x, line, (size_t)n));
    }
    return 0;
}

static int echo(struct mag_http_exchange *x)
{
    struct mag_str body;

    await(mag_http_read_all(x, &body, 64 * 1024)); /* too much is answered with 413 */
    return mag_http_respond(x, 200, &plain, 1, body.ptr, body.len);
}

static int count(struct mag_http_exchange *x)
{
    char buf[4096], text[80];
    unsigned long n_bytes = 0, n_lines = 0;
    int n;

    while ((n = mag_http_read(x, buf, sizeof buf)) > 0) {
        n_bytes += (unsigned long)n;
        for (int i = 0; i < n; i++)
            n_lines += buf[i] == '\n';
    }
    if (n < 0)
        return n;
    snprintf(text, sizeof text, "%lu bytes, %lu lines\n", n_bytes, n_lines);
    return say(x, 200, text);
}

static int route(struct mag_http_exchange *x, void *arg)
{
    static const struct {
        const char *method, *path;
        int (*answer)(struct mag_http_exchange *x);
    } routes[] = {
        { "GET", "/", page },           { "GET", "/hello/", hello }, { "GET", "/clock", tell_time },
        { "GET", "/headers", headers }, { "POST", "/echo", echo },   { "POST", "/count", count },
    };
    int status = 404;

    (void)arg;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        size_t n = strlen(routes[i].path);
        bool is_prefix = n > 1 && routes[i].path[n - 1] == '/';

        if (is_prefix ? strncmp(x->path, routes[i].path, n) : strcmp(x->path, routes[i].path))
            continue;
        if (strcmp(x->method, routes[i].method) == 0)
            return routes[i].answer(x);
        status = 405;
    }
    return say(x, status, status == 404 ? "there is nothing here\n" : "not like this\n");
}

/* Stops the server at the first signal, which makes mag_http_server_wait return. */
async(void, stops, (struct mag_http_server *, server))
{
    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT))
    {
        int signo;

        await(mag_signals_next(signals, &signo));
    }
    await(mag_http_server_stop(server));
    return 0;
}

async(void, web, (uint16_t, port))
{
    const struct mag_http_server_options o = {
        .serve = { .host = "127.0.0.1", .port = port },
        .body_bytes = UINT64_MAX, /* /count takes it as it comes; /echo has a limit of its own */
    };
    struct mag_http_server *server;

    await(mag_http_server_start(&server, route, NULL, &o));
    printf("http://127.0.0.1:%u/\n", mag_http_server_port(server));
    fflush(stdout);
    struct stops *stopper = spawn(stops(server));
    int rc = mag_http_server_wait(server);
    mag_close(stopper);
    mag_http_server_free(server);
    return rc;
}

static int page_for_all(struct mag_http_exchange *x, void *arg)
{
    (void)arg;
    return page(x);
}

async(void, smallest, (uint16_t, port))
{
    return mag_http_serve(page_for_all, NULL,
                          &(struct mag_http_server_options){ .serve.port = port });
}

static int usage(FILE *to)
{
    fputs("usage: web [PORT]\n       web --hello PORT\n", to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    bool is_smallest = argc == 3 && strcmp(argv[1], "--hello") == 0;
    const char *text = argc > 1 ? argv[argc - 1] : "8080";
    char *end;
    long port = strtol(text, &end, 10);
    int rc;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if ((argc > 2 && !is_smallest) || end == text || *end || port < 0 || port > 65535)
        return usage(stderr);
    if (is_smallest)
        rc = mag_run(smallest((uint16_t)port), NULL);
    else
        rc = mag_run_with(web((uint16_t)port), NULL,
                          &(struct mag_rt_options){ .keep_sigint = true });
    if (rc < 0 && rc != -ECANCELED)
        fprintf(stderr, "web: %s\n", mag_err_text(rc));
    return rc == -ECANCELED ? 130 : rc < 0;
}
