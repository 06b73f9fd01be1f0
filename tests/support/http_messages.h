/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_HTTP_MESSAGES_H
#define MAG_TESTS_HTTP_MESSAGES_H
/*
 * http_messages.h - bytes through the parser, cut into pieces: what it makes of them, as a text
 *
 *      GET /a|1k a|Host=a|abcde    a message: HTTP/1.1, kept alive, its host; then the next, or
 *                                  "-400", or "+" (more is wanted)
 */
#include "http_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The fields alone, "name=value|". */
struct messages_fields {
    char text[8192];
    size_t n;
};

struct messages {
    char text[8192];
    size_t n_text;
    int n;       /* complete ones */
    int n_plain; /* of which the scan has read the head */
    int status;
    size_t n_done;      /* bytes of these */
    size_t n_body;      /* bytes of content, of all so far */
    size_t n_body_done; /* of complete ones */
    struct messages_fields fields;
    size_t n_fields_done; /* bytes of these */
};

static inline void messages_add(struct messages *m, const char *bytes, size_t n)
{
    if (n > sizeof m->text - m->n_text - 1)
        n = sizeof m->text - m->n_text - 1;
    if (n > 0)
        memcpy(m->text + m->n_text, bytes, n);
    m->n_text += n;
    m->text[m->n_text] = '\0';
}

static inline void messages_add_field(struct messages_fields *f, const char *bytes, size_t n,
                                      char end)
{
    if (n + 1 > sizeof f->text - f->n)
        return;
    if (n > 0)
        memcpy(f->text + f->n, bytes, n);
    f->text[f->n + n] = end;
    f->n += n + 1;
}

/* A parser, as the server uses it. */
struct messages_parser {
    struct messages *m;
    struct mag_http_limits limits;
    struct mag_http_head head;
    struct mag_http_chunked chunked;
    struct mag_http_entry fields[128];
    uint64_t left;
    bool is_in_body;
    uint64_t body_max;
    size_t base; /* where what is fed begins */
};

static inline int messages_path(struct messages *m, const char *target, size_t n)
{
    struct mag_http_target t;
    char path[8300];
    int rc = mag_http_split_target(target, n, &t);

    if (rc < 0 || *target == '*')
        return rc;
    rc = mag_http_decode_path(path, t.path.len ? target + t.path.at : "/",
                              t.path.len ? t.path.len : 1);
    if (rc < 0)
        return rc;
    messages_add(m, path, (size_t)rc);
    messages_add(m, "|", 1);
    return 0;
}

static inline void messages_forget(struct messages_parser *p)
{
    enum { ROOM = 16 }; /* as the server has: what has more is not read by the scan */

    p->head = (struct mag_http_head){ .fields = p->fields, .room = ROOM };
}

static inline int messages_head(struct messages_parser *p, const char *bytes, size_t length)
{
    struct mag_http_head *h = &p->head;
    int rc;

    rc = mag_http_head_read(h, bytes, length);
    if (rc < 0)
        return rc;
    p->m->n_plain += h->is_read;
    messages_add(p->m, bytes + h->method.at, h->method.len);
    messages_add(p->m, " ", 1);
    rc = messages_path(p->m, bytes + h->target.at, h->target.len);
    if (rc < 0)
        return rc;
    messages_add(p->m, &"01"[h->minor], 1);
    messages_add(p->m, h->is_kept_alive ? "k " : "c ", 2);
    messages_add(p->m, bytes + h->host.at, h->host.len);
    messages_add(p->m, h->expects_continue ? "|e|" : "|", h->expects_continue ? 3 : 1);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        messages_add(p->m, bytes + h->fields[i].name.at, h->fields[i].name.len);
        messages_add(p->m, "=", 1);
        messages_add(p->m, bytes + h->fields[i].value.at, h->fields[i].value.len);
        messages_add(p->m, "|", 1);
        messages_add_field(&p->m->fields, bytes + h->fields[i].name.at, h->fields[i].name.len, '=');
        messages_add_field(&p->m->fields, bytes + h->fields[i].value.at, h->fields[i].value.len,
                           '|');
    }
    if (h->length > p->body_max)
        return -413;
    p->left = h->length;
    p->is_in_body = h->is_chunked || h->length > 0;
    p->chunked = (struct mag_http_chunked){ 0 };
    return 0;
}

/* Bytes of the body: how many were taken; < 0: a status. */
static inline int messages_body(struct messages_parser *p, const char *bytes, size_t n)
{
    size_t used = 0, n_data = 0;
    int event = MAG_HTTP_CHUNK_DATA;

    if (p->head.is_chunked) {
        event = mag_http_chunk(&p->chunked, bytes, n, &used, &n_data);
        if (event < 0)
            return event;
        p->is_in_body = event != MAG_HTTP_CHUNK_END;
    } else {
        n_data = p->left < n ? (size_t)p->left : n;
        p->left -= n_data;
        p->is_in_body = p->left > 0;
    }
    messages_add(p->m, bytes + used, n_data);
    p->m->n_body += n_data;
    return (int)(used + n_data);
}

static inline void messages_next(struct messages_parser *p)
{
    messages_add(p->m, "\n", 1);
    p->m->n++;
    p->m->n_body_done = p->m->n_body;
    p->m->n_fields_done = p->m->fields.n;
    messages_forget(p);
}

/* Takes what it can of the bytes that are there: how many; < 0: a status. */
static inline int messages_feed(struct messages_parser *p, const char *bytes, size_t n)
{
    size_t at = 0;
    int rc;

    while (at < n) {
        if (p->is_in_body) {
            rc = messages_body(p, bytes + at, n - at);
        } else {
            rc = mag_http_head_scan(&p->head, bytes + at, n - at, &p->limits);
            if (rc == 0)
                break;
            if (rc > 0) {
                int head_rc = messages_head(p, bytes + at, (size_t)rc);
                rc = head_rc < 0 ? head_rc : rc;
            }
        }
        if (rc < 0)
            return rc;
        at += (size_t)rc;
        if (!p->is_in_body) {
            messages_next(p);
            p->m->n_done = p->base + at;
        }
    }
    return (int)at;
}

/*
 * The bytes in pieces of `piece' (0: the first of `first', then all the rest).  Each feed gets a
 * block of just the bytes that are there, so a sanitizer sees who looks beyond.
 */
static inline void messages_of(struct messages *m, const char *bytes, size_t n, size_t first,
                               size_t piece)
{
    struct messages_parser p = { .m = m, .limits = { 8192, 32768, 100 }, .body_max = 1 << 20 };
    size_t at = 0, end = first < n ? first : n;
    char note[16];
    int rc = 0;

    *m = (struct messages){ .n = 0 };
    messages_forget(&p);
    for (;;) {
        char *copy = malloc(end - at + !(end - at));

        if (copy == NULL)
            abort();
        memcpy(copy, bytes + at, end - at);
        p.base = at;
        rc = messages_feed(&p, copy, end - at);
        free(copy);
        if (rc < 0 || end == n)
            break;
        at += (size_t)rc;
        end = piece && n - end > piece ? end + piece : n;
    }
    m->status = rc < 0 ? -rc : 0;
    snprintf(note, sizeof note, rc < 0 ? "%d" : "+", rc);
    if (rc < 0 || at + (size_t)rc < n || p.is_in_body)
        messages_add(m, note, strlen(note));
}

#endif
