/* SPDX-License-Identifier: MIT */
/*
 * http_body.c - the body of a request, read as its handler wants it
 *
 * A body of known length goes from the stream to the handler's buffer, large pieces without a
 * copy between; chunks are taken apart in the stream's buffer.
 *
 * Time.  A client is given .body_timeout and a second more for each .body_rate bytes that have
 * come, and only waiting counts: a handler that thinks between two reads takes nothing from its
 * client.  So a body that trickles ends, and one that flows may be as large as it likes.
 *
 * An error is for good: each further read returns it, and says in body_status what the client
 * is told if there is no answer yet.
 */
#include "http_body.h"

#include "clock.h"
#include "http_send.h"
#include "mem.h"

#include <errno.h>
#include <magpie/scope.h>
#include <string.h>

enum {
    CONTENT_BYTES = 4096, /* what mag_http_read_all begins with, where it knows no better */
};

void mag_http_take(struct mag_http_conn *c)
{
    if (c->at > 0)
        mag_stream_consume(c->s, c->at);
    c->at = 0;
}

static int fail(struct mag_http_conn *c, int rc, int status)
{
    /* A cancellation passes; the rest stays. */
    if (rc != -ECANCELED) {
        c->body_error = rc;
        c->body_status = status;
    }
    return rc;
}

/* ---- waiting ---------------------------------------------------------------------------- */

static mag_time patience(const struct mag_http_conn *c)
{
    const struct mag_http_server_options *o = &c->config->options;
    mag_time left;

    if (o->body_timeout == MAG_NEVER)
        return MAG_NEVER;
    left = o->body_timeout - c->waited;
    if (c->n_received / o->body_rate < (uint64_t)(MAG_NEVER / MAG_SECOND) / 2)
        left += (mag_time)(c->n_received / o->body_rate) * MAG_SECOND;
    return left > 0 ? left : 0;
}

/* Waits for more: into buf (n > 0), or into the stream's buffer. */
static int receive(struct mag_http_conn *c, void *buf, size_t n)
{
    mag_time before = mag_clock_now();
    struct mag_scope scope;
    int rc = mag_http_out_flush(c);

    if (rc < 0)
        return fail(c, rc, 0);
    rc = mag_timeout_enter(&scope, patience(c), NULL);
    if (rc < 0)
        return rc;
    rc = n > 0 ? mag_stream_read(c->s, buf, n) : mag_stream_fill(c->s);
    rc = mag_scope_leave(&scope, rc);
    c->waited += mag_clock_now() - before;
    if (rc == 0)
        return fail(c, -ENODATA, 400);
    return rc < 0 ? fail(c, rc, rc == -ETIMEDOUT ? 408 : 0) : rc;
}

/* A client that waits for it is told to go on, unless the answer has begun. */
static int go_on(struct mag_http_conn *c)
{
    if (!c->is_continue_due)
        return 0;
    c->is_continue_due = false;
    if (c->answer != MAG_HTTP_ANSWER_NONE)
        return 0;
    return mag_http_out_put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* ---- reading ------------------------------------------------------------------------------ */

static int received(struct mag_http_conn *c, int n)
{
    c->n_received += (uint64_t)n;
    return n;
}

static int read_length(struct mag_http_conn *c, void *buf, size_t n)
{
    int rc;

    if (n > c->n_left)
        n = (size_t)c->n_left;
    if (mag_stream_peek(c->s, &(const char *){ NULL }) > 0)
        rc = mag_stream_read(c->s, buf, n);
    else
        rc = receive(c, buf, n);
    if (rc <= 0)
        return rc;
    c->n_left -= (uint64_t)rc;
    c->is_body_over = c->n_left == 0;
    return received(c, rc);
}

/* What is buffered of a chunk: > 0; 0: there is only framing; c->is_body_over: the end. */
static int take_chunk(struct mag_http_conn *c, void *buf, size_t n)
{
    size_t used = 0, n_data = 0, there;
    const char *bytes;
    int event;

    there = mag_stream_peek(c->s, &bytes);
    event = mag_http_chunk(&c->chunked, bytes, there < n ? there : n, &used, &n_data);
    if (event < 0)
        return fail(c, -EBADMSG, -event);
    if (n_data > 0)
        memcpy(buf, bytes + used, n_data);
    mag_stream_consume(c->s, used + n_data);
    c->is_body_over = event == MAG_HTTP_CHUNK_END;
    return (int)n_data;
}

static int read_chunked(struct mag_http_conn *c, void *buf, size_t n)
{
    int rc = 0;

    while (rc == 0 && !c->is_body_over) {
        if (mag_stream_peek(c->s, &(const char *){ NULL }) == 0) {
            rc = receive(c, NULL, 0);
            if (rc < 0)
                return rc;
        }
        rc = take_chunk(c, buf, n);
    }
    if (rc > 0 && received(c, rc) > 0 && c->n_received > c->config->options.body_bytes)
        return fail(c, -EFBIG, 413);
    return rc;
}

int mag_http_read(struct mag_http_exchange *x, void *buf, size_t n)
{
    struct mag_http_conn *c = mag_http_conn_of(x);
    int rc;

    if (c->body_error)
        return c->body_error;
    if (c->is_body_over || n == 0)
        return 0;
    mag_http_take(c);
    rc = go_on(c);
    if (rc < 0)
        return rc;
    if (n > INT32_MAX)
        n = INT32_MAX;
    return c->body == MAG_HTTP_BODY_CHUNKED ? read_chunked(c, buf, n) : read_length(c, buf, n);
}

static int grow_content(struct mag_http_conn *c, size_t n, size_t *room, size_t limit)
{
    size_t more = *room ? *room * 2 : CONTENT_BYTES;
    char *content;

    if (n < *room)
        return 0;
    if (*room == 0 && c->body == MAG_HTTP_BODY_LENGTH)
        more = (size_t)c->n_left;
    if (more > limit)
        more = limit;
    /* One byte more than the limit, to see that it is too much, and one for the zero. */
    content = mag_mem_realloc(c->content, more + 2);
    if (content == NULL)
        return -ENOMEM;
    c->content = content;
    *room = more + 1;
    return 0;
}

int mag_http_read_all(struct mag_http_exchange *x, struct mag_str *out, size_t limit)
{
    struct mag_http_conn *c = mag_http_conn_of(x);
    size_t n = 0, room = 0;
    int rc;

    *out = (struct mag_str){ 0 };
    if (limit == 0 || limit > c->config->options.body_bytes)
        limit = c->config->options.body_bytes < SIZE_MAX / 4 ? (size_t)c->config->options.body_bytes
                                                             : SIZE_MAX / 4;
    if (c->body == MAG_HTTP_BODY_LENGTH && c->n_left > limit)
        return fail(c, -EFBIG, 413);
    do {
        rc = grow_content(c, n, &room, limit);
        if (rc == 0)
            rc = mag_http_read(x, c->content + n, room - n);
        n += rc > 0 ? (size_t)rc : 0;
        if (n > limit)
            rc = fail(c, -EFBIG, 413);
    } while (rc > 0);
    if (rc < 0)
        return rc;
    c->content[n] = '\0';
    *out = (struct mag_str){ .ptr = c->content, .len = n };
    return 0;
}

bool mag_http_discard(struct mag_http_conn *c)
{
    char buf[512];
    uint64_t before = c->n_received;
    int rc = 1;

    if (c->is_body_over)
        return true;
    if (c->is_continue_due || c->n_left > MAG_HTTP_DISCARD_MAX)
        return false;
    while (rc > 0 && c->n_received - before <= MAG_HTTP_DISCARD_MAX)
        rc = mag_http_read(&c->x, buf, sizeof buf);
    return c->is_body_over;
}
