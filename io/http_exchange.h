/* SPDX-License-Identifier: MIT */
#ifndef MAG_HTTP_EXCHANGE_H
#define MAG_HTTP_EXCHANGE_H
/*
 * http_exchange.h - a connection of the HTTP server, and the exchange that is going on on it
 *
 *      in:   [ answered | head ... body ... | next head ... ]     the stream's read buffer
 *                       ^at
 *      out:  [ answer | answer | ... ]                            the connection's own
 *
 * Answers are composed in `out', and sent by one call when no complete head is buffered any
 * more.  What is read stays in the stream's buffer up to the next fill, and so do the strings of
 * the exchange, which point into it: `at' bytes are taken from the stream only before a fill.
 * If a fill has to come amid the exchange, because its body has not arrived, then the head is
 * copied first.
 */
#include "http_parse.h"

#include <magpie/http_server.h>
#include <magpie/scope.h>

enum {
    MAG_HTTP_FEW_FIELDS = 16,         /* for which a connection has room of its own       */
    MAG_HTTP_OUT_KEPT = 4096,         /* bytes of `out' that an idle connection keeps     */
    MAG_HTTP_OUT_MAX = 64 * 1024,     /* bytes of answers that are buffered before a send */
    MAG_HTTP_PIECE_MAX = 256 * 1024,  /* bytes that are sent within one .write_timeout    */
    MAG_HTTP_DISCARD_MAX = 64 * 1024, /* bytes of an unread body that are read all the same */
};

/* The options of a server, defaults filled in. */
struct mag_http_config {
    mag_http_handler *handler;
    void *arg;
    struct mag_http_server_options options;
    struct mag_http_limits limits;
    size_t n_server_name;
};

enum mag_http_body_kind {
    MAG_HTTP_BODY_NONE,
    MAG_HTTP_BODY_LENGTH,
    MAG_HTTP_BODY_CHUNKED,
};

enum mag_http_answer {
    MAG_HTTP_ANSWER_NONE,
    MAG_HTTP_ANSWER_LENGTH,  /* begun: so many bytes                        */
    MAG_HTTP_ANSWER_CHUNKED, /* begun: in chunks                            */
    MAG_HTTP_ANSWER_CLOSE,   /* begun: up to the end of the connection      */
    MAG_HTTP_ANSWER_OVER,
};

struct mag_http_conn {
    struct mag_http_exchange x; /* first: handlers know its address only */
    const struct mag_http_config *config;
    struct mag_stream *s;
    size_t at;              /* bytes at the front of the stream's buffer that are done with */
    struct mag_scope limit; /* of the waiting between requests; MAG_NEVER: a handler runs */

    /* The request. */
    struct mag_http_head head;
    char *base; /* where its head lies                                            */
    char *copy; /* the same, if it had to be copied                               */
    char *text; /* path and host, where they had to be written anew               */
    size_t text_room;
    struct mag_http_entry *many; /* for more than few fields                      */
    uint32_t n_many;
    struct mag_http_entry few[MAG_HTTP_FEW_FIELDS];

    /* Its body. */
    enum mag_http_body_kind body;
    bool is_body_over;
    bool is_continue_due; /* the client waits for 100 Continue         */
    int body_error;       /* -errno, for good                          */
    int body_status;      /* what to answer then                       */
    uint64_t n_left;      /* of a body of known length                 */
    uint64_t n_received;  /* bytes of body                             */
    mag_time waited;      /* for them                                  */
    struct mag_http_chunked chunked;
    char *content; /* of mag_http_read_all */

    /* The answer. */
    enum mag_http_answer answer;
    bool has_no_body; /* HEAD, 204, 304: what is written is dropped */
    bool keeps;       /* the connection goes on after it            */
    bool is_broken;   /* the connection, while writing              */
    uint64_t n_due;   /* bytes that were promised and not written   */

    char *out;
    size_t n_out, out_room;

    mag_time wall; /* time of day, of the batch */
    mag_time date_second;
    char date[37]; /* "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", without a zero */

    uint32_t n_requests, n_refused, n_aborted;
    uint32_t n_counted; /* of the requests: told to the server */
};

static inline struct mag_http_conn *mag_http_conn_of(const struct mag_http_exchange *x)
{
    return (struct mag_http_conn *)(uintptr_t)x;
}

#endif
