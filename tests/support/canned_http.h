/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_CANNED_HTTP_H
#define MAG_TESTS_CANNED_HTTP_H
/*
 * canned_http.h - a server of canned answers, right and wrong ones, for tests of the HTTP client
 *
 *      async_with(canned, server) {
 *          char url[URL_BYTES];
 *          mag_http_get(client, canned_url(server, url, "/hello"), &r);
 *      }
 *
 * It knows just enough of HTTP to answer by path; what the paths do stands in the table `routes'.
 */
#include <magpie/async.h>
#include <magpie/net.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { URL_BYTES = 200, CANNED_HEAD = 16 * 1024, CANNED_BODY = 1024 * 1024 };

struct canned {
    int fd;
    unsigned port;
    void *task;
    int n_connections, n_requests, n_held; /* by atomic builtins */
};

/* A request, as far as it is looked at. */
struct canned_request {
    struct canned *server;
    int fd;
    char head[CANNED_HEAD];
    size_t n_head, n_buffered; /* bytes in head; those of the head itself */
    char method[16], path[1024];
    char *body;
    size_t n_body;
};

static inline const char *canned_url(const struct canned *s, char url[URL_BYTES], const char *path)
{
    snprintf(url, URL_BYTES, "http://127.0.0.1:%u%s", s->port, path);
    return url;
}

static inline int canned_send(int fd, const char *bytes, size_t n)
{
    return mag_send_all(fd, bytes, n, 0, NULL);
}

static inline int canned_puts(int fd, const char *text)
{
    return canned_send(fd, text, strlen(text));
}

static inline int canned_answer(int fd, const char *status, const char *fields, const char *body,
                                size_t n)
{
    char head[1200];

    snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, n, fields);
    int rc = canned_puts(fd, head);
    return rc < 0 || n == 0 ? rc : canned_send(fd, body, n);
}

static inline const char *canned_field(const struct canned_request *q, const char *name)
{
    static __thread char value[1024]; /* used before the next suspension */
    const char *line = q->head;

    while ((line = strstr(line, "\r\n")) != NULL && line[2] != '\r') {
        line += 2;
        size_t n = strlen(name);
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            line += n + 1 + strspn(line + n + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(line, "\r"), line);
            return value;
        }
    }
    return NULL;
}

/* ---- what the paths do ---------------------------------------------------------------- */

static inline int canned_hello(struct canned_request *q)
{
    return canned_answer(q->fd, "200 OK", "Content-Type: text/plain\r\nX-One: 1\r\nX-Empty:\r\n",
                         "hello", 5);
}

static inline int canned_status(struct canned_request *q)
{
    char status[40];
    int n = atoi(q->path + strlen("/status/"));

    snprintf(status, sizeof status, "%d Whatever", n);
    if (n == 204 || n == 304) {
        char text[80];
        snprintf(text, sizeof text, "HTTP/1.1 %s\r\n\r\n", status);
        return canned_puts(q->fd, text);
    }
    return canned_answer(q->fd, status, "", "x", 1);
}

/* Method, path, head and body, as they came. */
static inline int canned_echo(struct canned_request *q)
{
    size_t n = q->n_head + q->n_body;
    char *all = malloc(n + 1);
    int rc;

    if (all == NULL)
        return -ENOMEM;
    memcpy(all, q->head, q->n_head);
    if (q->n_body)
        memcpy(all + q->n_head, q->body, q->n_body);
    rc = canned_answer(q->fd, "200 OK", "", all, strcmp(q->method, "HEAD") == 0 ? 0 : n);
    free(all);
    return rc;
}

static inline int canned_redirect(struct canned_request *q)
{
    char fields[80];
    int n = atoi(q->path + strlen("/redirect/"));

    if (n > 1)
        snprintf(fields, sizeof fields, "Location: /redirect/%d\r\n", n - 1);
    else
        snprintf(fields, sizeof fields, "Location: /hello\r\n");
    return canned_answer(q->fd, "302 Found", fields, "not here", 8);
}

static inline int canned_see_other(struct canned_request *q)
{
    return canned_answer(q->fd, "303 See Other", "Location: /echo\r\n", "", 0);
}

static inline int canned_again(struct canned_request *q)
{
    return canned_answer(q->fd, "307 Temporary Redirect", "Location: /echo\r\n", "", 0);
}

static inline int canned_cookie(struct canned_request *q)
{
    return canned_answer(q->fd, "200 OK", "Set-Cookie: flavour=oat; Path=/\r\n", "", 0);
}

static inline int canned_chunked(struct canned_request *q)
{
    return canned_puts(q->fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-Trailer: t\r\n\r\n");
}

static const unsigned char canned_gzip_bytes[] = {
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9,
    0xd7, 0x51, 0x48, 0xce, 0xcf, 0x2d, 0x28, 0x4a, 0x2d, 0x2e, 0x4e, 0x4d, 0x51, 0x28, 0xcf,
    0x2f, 0xca, 0x49, 0x01, 0x00, 0x08, 0x9e, 0x34, 0x35, 0x17, 0x00, 0x00, 0x00
};

static inline int canned_gzip(struct canned_request *q)
{
    return canned_answer(q->fd, "200 OK", "Content-Encoding: gzip\r\n",
                         (const char *)canned_gzip_bytes, sizeof canned_gzip_bytes);
}

static inline int canned_bad_gzip(struct canned_request *q)
{
    return canned_answer(q->fd, "200 OK", "Content-Encoding: gzip\r\n", "this is no gzip", 15);
}

static inline int canned_slow_head(struct canned_request *q)
{
    (void)q;
    return mag_sleep(MAG_NEVER);
}

/* Counted apart: who waits for these is not misled by requests that were given up before. */
static inline int canned_hold(struct canned_request *q)
{
    __atomic_add_fetch(&q->server->n_held, 1, __ATOMIC_SEQ_CST);
    return mag_sleep(MAG_NEVER);
}

static inline int canned_hold_body(struct canned_request *q)
{
    int rc = canned_puts(q->fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");

    return rc < 0 ? rc : canned_hold(q);
}

static inline int canned_slow_body(struct canned_request *q)
{
    int rc = canned_puts(q->fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");

    return rc < 0 ? rc : mag_sleep(MAG_NEVER);
}

/* A byte now and then: slow, but alive. */
static inline int canned_drip(struct canned_request *q)
{
    int rc = canned_puts(q->fd, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");

    for (int i = 0; i < 8 && rc >= 0; i++)
        if ((rc = mag_sleep(20 * MAG_MS)) >= 0)
            rc = canned_send(q->fd, &"01234567"[i], 1);
    return rc;
}

static inline int canned_pieces(int fd, size_t n)
{
    char piece[8192];
    int rc = 0;

    for (size_t at = 0; at < n && rc >= 0; at += sizeof piece) {
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = (char)((at + i) * 7 >> 3);
        rc = canned_send(fd, piece, n - at < sizeof piece ? n - at : sizeof piece);
    }
    return rc;
}

/* The byte there at offset i is (char)(i * 7 >> 3). */
static inline int canned_big(struct canned_request *q)
{
    size_t n = strtoul(q->path + strlen("/big/"), NULL, 10);
    char head[80];
    int rc;

    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n);
    rc = canned_puts(q->fd, head);
    return rc < 0 ? rc : canned_pieces(q->fd, n);
}

static inline int canned_close(struct canned_request *q)
{
    (void)q;
    return -EPIPE;
}

static inline int canned_partial(struct canned_request *q)
{
    canned_puts(q->fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789");
    return -EPIPE;
}

static inline int canned_garbage(struct canned_request *q)
{
    canned_puts(q->fd, "THIS IS NO HTTP\r\n\r\n");
    return -EPIPE;
}

static inline int canned_endless_head(struct canned_request *q)
{
    int rc = canned_puts(q->fd, "HTTP/1.1 200 OK\r\n");

    while (rc >= 0)
        rc = canned_puts(q->fd, "X-More: 0123456789012345678901234567890123456789\r\n");
    return rc;
}

static inline int canned_basic(struct canned_request *q)
{
    const char *value = canned_field(q, "Authorization");

    if (value && strcmp(value, "Basic dXNlcjpwYXNz") == 0) /* user:pass */
        return canned_hello(q);
    return canned_answer(q->fd, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", "no",
                         2);
}

static inline int canned_bearer(struct canned_request *q)
{
    const char *value = canned_field(q, "Authorization");

    return value && strcmp(value, "Bearer t0ken") == 0
               ? canned_hello(q)
               : canned_answer(q->fd, "401 Unauthorized", "", "no", 2);
}

static inline int canned_digest(struct canned_request *q)
{
    const char *value = canned_field(q, "Authorization");

    if (value && strncmp(value, "Digest username=\"user\"", 22) == 0)
        return canned_hello(q);
    return canned_answer(q->fd, "401 Unauthorized",
                         "WWW-Authenticate: Digest realm=\"x\", nonce=\"abc\", qop=\"auth\"\r\n",
                         "no", 2);
}

static inline int canned_hints(struct canned_request *q)
{
    int rc = canned_puts(q->fd, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-Hint: 1\r\n\r\n");

    return rc < 0 ? rc : canned_hello(q);
}

static inline int canned_folded(struct canned_request *q)
{
    return canned_answer(q->fd, "200 OK", "X-Folded: one\r\n  two\r\nX-Twice: a\r\nX-Twice: b\r\n",
                         "", 0);
}

static const struct canned_route {
    const char *path; /* a beginning */
    int (*answer)(struct canned_request *q);
    bool leaves_body; /* unread */
} routes[] = {
    { "/hello", canned_hello, false },         { "/status/", canned_status, false },
    { "/echo", canned_echo, false },           { "/redirect/", canned_redirect, false },
    { "/see-other", canned_see_other, false }, { "/again", canned_again, false },
    { "/cookie", canned_cookie, false },       { "/chunked", canned_chunked, false },
    { "/gzip", canned_gzip, false },           { "/bad-gzip", canned_bad_gzip, false },
    { "/slow-head", canned_slow_head, false }, { "/slow-body", canned_slow_body, false },
    { "/drip", canned_drip, false },           { "/big/", canned_big, false },
    { "/close", canned_close, false },         { "/partial", canned_partial, false },
    { "/garbage", canned_garbage, false },     { "/endless-head", canned_endless_head, false },
    { "/basic", canned_basic, false },         { "/bearer", canned_bearer, false },
    { "/digest", canned_digest, false },       { "/hints", canned_hints, false },
    { "/folded", canned_folded, false },       { "/sink", canned_slow_head, true },
    { "/hold-body", canned_hold_body, false }, { "/hold", canned_hold, false },
};

/* ---- reading -------------------------------------------------------------------------- */

/* More into the head's buffer; 0: the end. */
static inline int canned_more(struct canned_request *q)
{
    if (q->n_buffered >= sizeof q->head - 1)
        return -EMSGSIZE;
    int n = mag_recv(q->fd, q->head + q->n_buffered, sizeof q->head - 1 - q->n_buffered, 0);
    if (n > 0)
        q->n_buffered += (size_t)n;
    q->head[q->n_buffered] = '\0';
    return n;
}

/* n more bytes to where they go, first of those that came with the head. */
static inline int canned_bytes(struct canned_request *q, char *to, size_t n)
{
    size_t there = q->n_buffered - q->n_head, first = there < n ? there : n;
    int rc = 1;

    memcpy(to, q->head + q->n_head, first);
    memmove(q->head + q->n_head, q->head + q->n_head + first, there - first);
    q->n_buffered -= first;
    for (size_t at = first; at < n && rc > 0; at += (size_t)rc)
        rc = mag_recv(q->fd, to + at, n - at, 0);
    return rc > 0 || n == first ? 0 : rc < 0 ? rc : -EPIPE;
}

static inline int canned_read_chunks(struct canned_request *q)
{
    char line[40];
    size_t n, i;
    int rc;

    for (;;) {
        for (i = 0; i < sizeof line - 1; i++) {
            if ((rc = canned_bytes(q, line + i, 1)) < 0)
                return rc;
            if (line[i] == '\n')
                break;
        }
        line[i] = '\0';
        n = strtoul(line, NULL, 16);
        if (q->n_body + n > CANNED_BODY)
            return -EFBIG;
        if ((rc = canned_bytes(q, q->body + q->n_body, n)) < 0 ||
            (rc = canned_bytes(q, line, 2)) < 0)
            return rc;
        q->n_body += n;
        if (n == 0)
            return 0;
    }
}

static inline int canned_read_body(struct canned_request *q)
{
    const char *coding = canned_field(q, "Transfer-Encoding"), *length;

    if (coding)
        return canned_read_chunks(q);
    length = canned_field(q, "Content-Length");
    q->n_body = length ? strtoul(length, NULL, 10) : 0;
    return q->n_body > CANNED_BODY ? -EFBIG : canned_bytes(q, q->body, q->n_body);
}

static inline int canned_one(struct canned_request *q)
{
    const struct canned_route *route = NULL;
    char *end;
    int rc;

    q->n_body = 0;
    while ((end = strstr(q->head, "\r\n\r\n")) == NULL)
        if ((rc = canned_more(q)) <= 0)
            return rc < 0 ? rc : -EPIPE;
        else if (q->head[0] == 0x16) /* TLS */
            return canned_puts(q->fd, "HTTP/1.1 400 No\r\n\r\n"), -EPIPE;
    __atomic_add_fetch(&q->server->n_requests, 1, __ATOMIC_SEQ_CST);
    q->n_head = (size_t)(end + 4 - q->head);
    if (sscanf(q->head, "%15s %1023s", q->method, q->path) != 2)
        return -EPROTO;
    for (size_t i = 0; i < sizeof routes / sizeof *routes && route == NULL; i++)
        if (strncmp(q->path, routes[i].path, strlen(routes[i].path)) == 0)
            route = &routes[i];
    if (route == NULL)
        return canned_answer(q->fd, "404 Not Found", "", "", 0);
    if (!route->leaves_body && (rc = canned_read_body(q)) < 0)
        return rc;
    rc = route->answer(q);
    memmove(q->head, q->head + q->n_head, q->n_buffered - q->n_head + 1);
    q->n_buffered -= q->n_head;
    q->head[q->n_buffered] = '\0';
    return rc;
}

/* The descriptor is its own from when it says that it has started. */
async(void, canned_talk, (struct canned *, server), (int, fd))
{
    struct canned_request *q;
    int rc = mag_started(NULL, 0);

    if (rc < 0)
        return rc;
    q = calloc(1, sizeof *q);
    if (q && (q->body = malloc(CANNED_BODY)) != NULL) {
        q->server = server;
        q->fd = fd;
        while (rc >= 0)
            rc = canned_one(q);
        free(q->body);
    }
    free(q);
    with_shield(MAG_NEVER) mag_close_fd(fd);
    return 0;
}

async(void, canned_accept, (struct canned *, server))
{
    task_group(g)
    {
        for (;;) { /* a fault that was meant for the client may hit this: it goes on */
            int fd = mag_accept(server->fd, NULL, NULL, 0);
            if (fd == -ENOMEM)
                continue;
            await(fd);
            __atomic_add_fetch(&server->n_connections, 1, __ATOMIC_SEQ_CST);
            if (mag_group_start(g, canned_talk(server, fd), NULL, 0, NULL) < 0) {
                with_shield(MAG_NEVER) mag_close_fd(fd);
            }
        }
    }
    return 0;
}

/* A socket on a free port of loopback; its number in *port. */
static inline int canned_listen(unsigned *port, int backlog)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, backlog) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        return -EIO;
    *port = ntohs(addr.sin_port);
    return fd;
}

static inline int canned_enter(struct canned *s)
{
    s->fd = canned_listen(&s->port, 1024);
    if (s->fd < 0)
        return s->fd;
    s->task = spawn(canned_accept(s));
    return 0;
}

static inline void canned_exit(struct canned *s)
{
    mag_cancel(s->task);
    mag_await(s->task, NULL, 0);
    mag_close_fd(s->fd);
}

async_resource(canned)

#endif
