/* SPDX-License-Identifier: MIT */
/*
 * http_session.c - the life of a connection: requests, one after the other
 *
 *           +----------------------------------------------------------------------+
 *           v                                                                      |
 *      WAIT (idle) --> HEAD (more of it) --> handler --> rest of the body --> next |
 *           |               |                   |               |
 *           | end, drain    | 4xx, 5xx          | half an       | too much of it
 *           v               v                   v answer        v
 *         closed         refused, lingers      reset          lingers
 *
 * As long as a complete head is buffered, its request is handled and nothing is sent; before the
 * connection waits for more, all answers go out at once.  So a batch of pipelined requests costs
 * one receive and one send, and the buffers bound what a flood of them can occupy.
 *
 * Time.  A head has to be complete .head_timeout after its first byte, however it trickles.  What
 * is waited for between requests is limited by one scope, whose deadline is put off for each wait
 * and is never while a handler runs.  So the connection's timer stays where it is, early, until it
 * fires for nothing or for something: a scope around each wait would set it and take it away twice
 * a request.  A scope that has fired is left, and another is entered.
 *
 * Lingering.  A socket that is closed with bytes unread sends a reset, which may overtake the
 * answer on its way.  So what still comes is read and dropped for a moment, after the end was sent.
 *
 * The strings of an exchange are the bytes of the head itself, with zeros written over what
 * stood behind them.  See http_exchange.h on how long these stay.
 */
#include "http_session.h"

#include "clock.h"
#include "http_body.h"
#include "http_send.h"
#include "mem.h"

#include <errno.h>
#include <magpie/scope.h>
#include <string.h>

enum {
    LINGER_NS = 1000 * 1000 * 1000,
    LINGER_BYTES = 1024 * 1024,
};

/* ---- strings ------------------------------------------------------------------------------ */

/* The bytes of a span as a string; what stood behind them is gone. */
static char *string_of(const struct mag_http_conn *c, struct mag_http_span span)
{
    char *p = c->base + span.at;

    p[span.len] = '\0';
    return p;
}

const char *mag_http_header(const struct mag_http_exchange *x, const char *name)
{
    const struct mag_http_conn *c = mag_http_conn_of(x);
    size_t n = strlen(name);

    for (uint32_t i = 0; i < c->head.n_fields; i++) {
        const struct mag_http_entry *f = &c->head.fields[i];
        const char *p = c->base + f->name.at;
        size_t k = 0;

        if (f->name.len != n)
            continue;
        while (k < n && ((p[k] ^ name[k]) == 0 || ((p[k] ^ name[k]) == 0x20 &&
                                                   (p[k] | 0x20) >= 'a' && (p[k] | 0x20) <= 'z')))
            k++;
        if (k == n)
            return c->base + f->value.at;
    }
    return NULL;
}

bool mag_http_header_at(const struct mag_http_exchange *x, unsigned i, struct mag_http_field *out)
{
    const struct mag_http_conn *c = mag_http_conn_of(x);

    if (i >= c->head.n_fields)
        return false;
    out->name = c->base + c->head.fields[i].name.at;
    out->value = c->base + c->head.fields[i].value.at;
    return true;
}

struct mag_stream *mag_http_stream(struct mag_http_exchange *x)
{
    return mag_http_conn_of(x)->s;
}

int mag_http_path(const char *path, char *buf, size_t room)
{
    size_t n = strlen(path);
    int rc;

    if (room <= n)
        return -ENOBUFS;
    rc = mag_http_decode_path(buf, path, n);
    return rc < 0 ? -EINVAL : rc;
}

/* Room for the path and the host, where they are not as they came. */
static int make_text_room(struct mag_http_conn *c, size_t n)
{
    char *text;

    if (n <= c->text_room)
        return 0;
    text = mag_mem_realloc(c->text, n);
    if (text == NULL)
        return -ENOMEM;
    c->text = text;
    c->text_room = n;
    return 0;
}

/* A path that has to be decoded, or stands before a query, and a host in the target. */
static int rewrite_target(struct mag_http_conn *c, const char *target,
                          const struct mag_http_target *t)
{
    size_t n_path = t->path.len, n_host = t->authority.len;
    int rc = make_text_room(c, n_path + n_host + 4);

    if (rc < 0)
        return -500;
    if (n_path == 0)
        rc = mag_http_decode_path(c->text, "/", 1);
    else
        rc = mag_http_decode_path(c->text, target + t->path.at, n_path);
    if (rc < 0)
        return rc;
    c->x.path = c->text;
    if (n_host == 0)
        return 0;
    memcpy(c->text + rc + 1, target + t->authority.at, n_host);
    c->text[(size_t)rc + 1 + n_host] = '\0';
    c->x.host = c->text + rc + 1;
    return 0;
}

/* target, path, query, host.  0 or a status < 0. */
static int read_target(struct mag_http_conn *c)
{
    char *target = c->base + c->head.target.at;
    struct mag_http_target t;
    int rc = mag_http_split_target(target, c->head.target.len, &t);

    if (rc < 0)
        return rc;
    c->x.target = string_of(c, c->head.target);
    c->x.query = t.has_query ? target + t.query.at : NULL;
    c->x.host = c->head.host.at ? string_of(c, c->head.host) : NULL;
    c->x.path = c->x.target;
    if ((t.is_plain && !t.has_query && t.authority.len == 0) || target[0] == '*')
        return 0;
    return rewrite_target(c, target, &t);
}

/* ---- a request ------------------------------------------------------------------------------ */

static void begin_body(struct mag_http_conn *c)
{
    const struct mag_http_head *h = &c->head;

    c->body = h->is_chunked   ? MAG_HTTP_BODY_CHUNKED
              : h->length > 0 ? MAG_HTTP_BODY_LENGTH
                              : MAG_HTTP_BODY_NONE;
    c->is_body_over = c->body == MAG_HTTP_BODY_NONE;
    c->is_continue_due = h->expects_continue && !c->is_body_over;
    c->n_left = h->length;
    c->x.content_length = h->is_chunked ? MAG_HTTP_UNKNOWN_LENGTH : h->length;
    if (c->is_body_over)
        return;
    c->body_error = 0;
    c->body_status = 0;
    c->n_received = 0;
    c->waited = 0;
    c->chunked = (struct mag_http_chunked){ 0 };
}

/* If the body has not arrived, the next fill may move the head away: keeps a copy. */
static int save_head(struct mag_http_conn *c, size_t length, size_t n_buffered)
{
    if (c->is_body_over || (c->body == MAG_HTTP_BODY_LENGTH && n_buffered - length >= c->n_left))
        return 0;
    c->copy = mag_mem_alloc(length);
    if (c->copy == NULL)
        return -500;
    memcpy(c->copy, c->base, length);
    c->base = c->copy;
    return 0;
}

static int make_fields_room(struct mag_http_conn *c)
{
    uint32_t n = c->head.n_lines;

    if (MAG_LIKELY(n <= MAG_HTTP_FEW_FIELDS))
        return 0;
    if (n > c->n_many) {
        mag_mem_free(c->many);
        c->many = mag_mem_alloc(n * sizeof *c->many);
        c->n_many = c->many ? n : 0;
    }
    c->head.fields = c->many;
    return c->many ? 0 : -500;
}

/* Makes the exchange of a head of that length at `bytes'.  0 or a status < 0. */
static int read_request(struct mag_http_conn *c, const char *bytes, size_t length,
                        size_t n_buffered)
{
    struct mag_http_head *h = &c->head;
    int rc = make_fields_room(c);

    /* The stream's own buffer, whose bytes are not looked at as requests again. */
    c->base = (char *)(uintptr_t)bytes;
    if (rc == 0)
        rc = mag_http_head_read(h, bytes, length);
    if (rc < 0)
        return rc;
    begin_body(c);
    rc = save_head(c, length, n_buffered);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < h->n_fields; i++) {
        string_of(c, h->fields[i].name);
        string_of(c, h->fields[i].value);
    }
    c->x.method = string_of(c, h->method);
    c->x.version = 10 + h->minor;
    c->x.n_headers = h->n_fields;
    rc = read_target(c);
    if (rc == 0 && h->length > c->config->options.body_bytes)
        rc = -413;
    return rc;
}

static void forget_request(struct mag_http_conn *c)
{
    mag_mem_free(c->copy);
    mag_mem_free(c->content);
    c->copy = NULL;
    c->content = NULL;
    c->head = (struct mag_http_head){ .fields = c->few, .room = MAG_HTTP_FEW_FIELDS };
}

/* ---- an exchange ---------------------------------------------------------------------------- */

/* What is sent, and then the end; what still comes is dropped, for a moment. */
static void linger(struct mag_http_conn *c)
{
    struct mag_scope scope;
    const char *bytes;
    size_t dropped = 0;
    int rc = mag_http_out_flush(c);

    if (rc < 0 || mag_timeout_enter(&scope, LINGER_NS, NULL) < 0)
        return;
    rc = mag_stream_write_eof(c->s);
    if (rc == 0)
        rc = 1;
    while (rc > 0 && dropped < LINGER_BYTES) {
        size_t n = mag_stream_peek(c->s, &bytes);

        dropped += n;
        mag_stream_consume(c->s, n);
        rc = mag_stream_fill(c->s);
    }
    (void)mag_scope_leave(&scope, rc);
}

static int refuse(struct mag_http_conn *c, int status)
{
    c->n_refused++;
    (void)mag_http_refuse(c, status);
    linger(c);
    return 0;
}

/* Of a request that never got to a handler.  What is left of the one before it is not its own: its
 * method, in bytes that are gone, and that it was answered. */
static int refuse_head(struct mag_http_conn *c, int status)
{
    c->n_requests++;
    mag_http_answer_reset(c);
    c->x.method = NULL;
    return refuse(c, status);
}

/* The handler has failed, or said nothing. */
static int answer_for_handler(struct mag_http_conn *c, int rc)
{
    if (c->answer != MAG_HTTP_ANSWER_NONE || c->is_broken || rc == -ECANCELED)
        return rc;
    if (c->body_error && c->body_status == 0)
        return rc;
    if (c->body_error)
        c->n_refused++;
    rc = mag_http_refuse(c, c->body_error ? c->body_status : 500);
    return rc;
}

/* After the handler: 1: the next request; 0: the connection ends; < 0: it was cut. */
static int end_exchange(struct mag_http_conn *c, int rc)
{
    if (rc < 0 || c->answer == MAG_HTTP_ANSWER_NONE)
        rc = answer_for_handler(c, rc);
    if (rc >= 0 && !c->is_broken && c->answer != MAG_HTTP_ANSWER_OVER)
        rc = mag_http_end(&c->x);
    if (rc < 0 || c->is_broken) {
        c->n_aborted++;
        mag_stream_abort(c->s);
        return rc < 0 ? rc : -EPIPE;
    }
    if (c->keeps && mag_http_discard(c))
        return 1;
    if (!c->is_body_over || mag_stream_peek(c->s, &(const char *){ NULL }) > c->at)
        linger(c);
    return 0;
}

static int handle(struct mag_http_conn *c, const char *bytes, size_t length, size_t n_buffered)
{
    int rc;

    mag_http_answer_reset(c);
    c->n_requests++;
    rc = read_request(c, bytes, length, n_buffered);
    c->at += length;
    if (rc < 0) {
        c->x.method = NULL;
        rc = refuse(c, -rc);
    } else {
        rc = end_exchange(c, c->config->handler(&c->x, c->config->arg));
    }
    forget_request(c);
    return rc;
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* Another scope for the one that has fired; rc, explained by that. */
static MAG_NOINLINE int renew_limit(struct mag_http_conn *c, int rc)
{
    rc = mag_scope_leave(&c->limit, rc);
    (void)mag_scope_enter(&c->limit, MAG_NEVER, NULL); /* in a task: it does not fail */
    return rc;
}

static void set_limit(struct mag_http_conn *c, mag_time deadline)
{
    if (MAG_UNLIKELY(mag_scope_expired(&c->limit))) /* too late to matter */
        (void)renew_limit(c, 0);
    (void)mag_scope_reschedule(&c->limit, deadline);
}

/* What was waited for within the limit has answered rc: what that is, and no limit. */
static int unlimited(struct mag_http_conn *c, int rc)
{
    if (MAG_UNLIKELY(rc == -ECANCELED || mag_scope_expired(&c->limit)))
        return renew_limit(c, rc);
    (void)mag_scope_reschedule(&c->limit, MAG_NEVER);
    return rc;
}

/* Between two requests, everything is sent. */
static int wait_idle(struct mag_http_conn *c)
{
    const struct mag_http_server_options *o = &c->config->options;
    mag_time timeout = c->n_requests > 0 ? o->idle_timeout : o->head_timeout;
    int rc;

    set_limit(c, mag_clock_after(timeout));
    rc = unlimited(c, mag_stream_wait_request(c->s));
    /* Nothing was asked for, so however the client went, it is no error: TLS without a goodbye,
     * too. */
    return rc == -ETIMEDOUT || rc == -ECONNRESET || rc == -ECONNABORTED || rc == -EPIPE ? 0 : rc;
}

/* Amid a head; *begun is when its first byte was seen. */
static int wait_head(struct mag_http_conn *c, mag_time *begun)
{
    mag_time timeout = c->config->options.head_timeout;
    int rc;

    if (*begun == 0)
        *begun = mag_clock_now();
    set_limit(c, timeout < MAG_NEVER - *begun ? *begun + timeout : MAG_NEVER);
    rc = unlimited(c, mag_stream_fill(c->s));
    return rc == -ETIMEDOUT ? refuse_head(c, 408) : rc;
}

/* As mag_http_out_flush, between two requests; leaves a limit to whoever waits next. */
static int flush_answers(struct mag_http_conn *c)
{
    int rc;

    if (c->n_out == 0)
        return mag_http_out_flush(c);
    set_limit(c, mag_clock_after(c->config->options.write_timeout));
    rc = mag_http_out_send(c);
    return MAG_UNLIKELY(rc == -ECANCELED) ? renew_limit(c, rc) : rc;
}

/* More of the next request: > 0; 0: the connection ends. */
static int wait_more(struct mag_http_conn *c, bool is_amid, mag_time *begun)
{
    int rc = flush_answers(c);

    if (rc < 0)
        return rc;
    mag_http_take(c);
    if (c->out_room > MAG_HTTP_OUT_KEPT) {
        mag_mem_free(c->out);
        c->out = NULL;
        c->out_room = 0;
    }
    rc = is_amid ? wait_head(c, begun) : wait_idle(c);
    if (rc > 0)
        c->wall = mag_clock_wall();
    return rc;
}

/* Handles what is buffered: 1: more is wanted; 0: the connection ends. */
static int handle_buffered(struct mag_http_conn *c, bool *is_amid, mag_time *begun)
{
    const char *bytes;
    int rc;

    for (;;) {
        size_t n = mag_stream_peek(c->s, &bytes) - c->at;

        *is_amid = n > 0;
        if (n == 0)
            return 1;
        rc = mag_http_head_scan(&c->head, bytes + c->at, n, &c->config->limits);
        if (rc == 0)
            return 1;
        *begun = 0;
        if (rc < 0)
            return refuse_head(c, -rc);
        rc = handle(c, bytes + c->at, (size_t)rc, n);
        if (rc <= 0)
            return rc;
    }
}

static void tell_counts(struct mag_http_conn *c, mag_http_tell *tell, void *arg)
{
    const struct mag_http_counts counts = { c->n_requests - c->n_counted, c->n_refused,
                                            c->n_aborted };

    c->n_counted = c->n_requests;
    c->n_refused = c->n_aborted = 0;
    tell(arg, &counts);
}

static int serve(struct mag_http_conn *c, mag_http_tell *tell, void *arg)
{
    bool is_amid = false;
    mag_time begun = 0;
    int rc = mag_scope_enter(&c->limit, MAG_NEVER, NULL);

    if (rc < 0)
        return rc;
    do {
        rc = wait_more(c, is_amid, &begun);
        if (rc > 0)
            rc = handle_buffered(c, &is_amid, &begun);
        tell_counts(c, tell, arg);
    } while (rc > 0);
    if (rc == 0)
        rc = mag_http_out_flush(c);
    return mag_scope_leave(&c->limit, rc);
}

int mag_http_session(struct mag_stream *s, const struct mag_http_config *config,
                     mag_http_tell *tell, void *tell_arg)
{
    struct mag_http_conn *c = mag_mem_zalloc(sizeof *c);
    int rc;

    if (c == NULL)
        return -ENOMEM;
    c->config = config;
    c->s = s;
    c->is_body_over = true;
    c->date_second = -1;
    c->wall = mag_clock_wall();
    forget_request(c);
    rc = serve(c, tell, tell_arg);
    mag_mem_free(c->out);
    mag_mem_free(c->text);
    mag_mem_free(c->many);
    mag_mem_free(c);
    return rc;
}
