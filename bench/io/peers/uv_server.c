/* SPDX-License-Identifier: MIT */
/*
 * uv_server.c - an echo or HTTP server on libuv
 *
 *      uv_server PORT THREADS echo|http
 *
 * A loop per thread, each with a listening socket (SO_REUSEPORT).  Answers are tried at once
 * (uv_try_write) and queued if that is not possible.  HTTP requests are parsed by llhttp.
 */
#include "../io.h"

#include <pthread.h>
#include <uv.h>
#ifdef BENCH_HAS_LLHTTP
#include <llhttp.h>
#endif

enum { BUF_BYTES = 16384, ANSWERS = 256 };

struct connection {
    uv_tcp_t tcp;
#ifdef BENCH_HAS_LLHTTP
    llhttp_t parser;
#endif
    unsigned n_requests; /* that the bytes received last have brought */
};

struct queued {
    uv_write_t req;
    char bytes[];
};

static int port;
static bool is_http;
static char answers[ANSWERS * HTTP_ANSWER_BYTES];
static _Thread_local char scratch[BUF_BYTES]; /* a read's bytes are dealt with before the next */

static void closed(uv_handle_t *h)
{
    free(h->data);
}

static void written(uv_write_t *req, int status)
{
    (void)status;
    free(req);
}

static void write_out(struct connection *c, const char *p, size_t n)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)p, (unsigned)n);
    int rc = uv_try_write((uv_stream_t *)&c->tcp, &buf, 1);
    size_t done = rc > 0 ? (size_t)rc : 0;

    if (done == n)
        return;
    struct queued *q = malloc(sizeof *q + n - done);
    memcpy(q->bytes, p + done, n - done);
    buf = uv_buf_init(q->bytes, (unsigned)(n - done));
    uv_write(&q->req, (uv_stream_t *)&c->tcp, &buf, 1, written);
}

static void lend(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(scratch, sizeof scratch);
}

#ifdef BENCH_HAS_LLHTTP
static llhttp_settings_t settings;

static int request_done(llhttp_t *parser)
{
    ((struct connection *)parser->data)->n_requests++;
    return 0;
}

static bool parse(struct connection *c, const char *p, size_t n)
{
    c->n_requests = 0;
    if (llhttp_execute(&c->parser, p, n) != HPE_OK)
        return false;
    for (unsigned k; c->n_requests > 0; c->n_requests -= k) {
        k = c->n_requests < ANSWERS ? c->n_requests : ANSWERS;
        write_out(c, answers, k * HTTP_ANSWER_BYTES);
    }
    return true;
}
#else
static bool parse(struct connection *c, const char *p, size_t n)
{
    (void)c, (void)p, (void)n;
    return false;
}
#endif

static void received(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct connection *c = s->data;

    if (n < 0 || (is_http && !parse(c, buf->base, (size_t)n)))
        uv_close((uv_handle_t *)s, closed);
    else if (!is_http && n > 0)
        write_out(c, buf->base, (size_t)n);
}

static void accepted(uv_stream_t *listening, int status)
{
    struct connection *c = calloc(1, sizeof *c);

    if (status < 0 || !c)
        return;
    uv_tcp_init(listening->loop, &c->tcp);
    c->tcp.data = c;
#ifdef BENCH_HAS_LLHTTP
    llhttp_init(&c->parser, HTTP_REQUEST, &settings);
    c->parser.data = c;
#endif
    if (uv_accept(listening, (uv_stream_t *)&c->tcp) != 0) {
        uv_close((uv_handle_t *)&c->tcp, closed);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    uv_read_start((uv_stream_t *)&c->tcp, lend, received);
}

static void *serve(void *arg)
{
    uv_loop_t loop;
    uv_tcp_t listening;

    (void)arg;
    uv_loop_init(&loop);
    uv_tcp_init(&loop, &listening);
    uv_tcp_open(&listening, listener(port, SOCK_NONBLOCK));
    checked(uv_listen((uv_stream_t *)&listening, 4096, accepted), "uv_listen");
    uv_run(&loop, UV_RUN_DEFAULT);
    return NULL;
}

int main(int argc, char **argv)
{
    int n_threads = atoi(argument(argc, argv, 2, "1"));
    pthread_t thread;

    port = atoi(argument(argc, argv, 1, "7777"));
    is_http = strcmp(argument(argc, argv, 3, "echo"), "http") == 0;
    for (int i = 0; i < ANSWERS; i++)
        memcpy(answers + (size_t)i * HTTP_ANSWER_BYTES, HTTP_ANSWER, HTTP_ANSWER_BYTES);
#ifdef BENCH_HAS_LLHTTP
    llhttp_settings_init(&settings);
    settings.on_message_complete = request_done;
#endif
    for (int i = 1; i < n_threads; i++)
        pthread_create(&thread, NULL, serve, NULL);
    serve(NULL);
    return 0;
}
