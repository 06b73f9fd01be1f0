/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_HTTP_SERVER_H
#define MAGPIE_HTTP_SERVER_H
/*
 * http_server.h - an HTTP/1.1 server: a plain function answers each request
 *
 *      static int hello(struct mag_http_exchange *x, void *arg)
 *      {
 *          const struct mag_http_field fields[] = { { "Content-Type", "text/plain" } };
 *
 *          return mag_http_respond(x, 200, fields, 1, "Hello, World!\n", 14);
 *      }
 *
 *      mag_http_serve(hello, NULL, &(struct mag_http_server_options){ .serve.port = 8080 });
 *
 * Each connection has a task, in which its requests are handled one after the other; handlers may
 * suspend, and those of different connections run at once, on all workers.  Answers are
 * buffered and sent together when no further request has come in, so a client that pipelines
 * costs one send for many.
 *
 * Connections are kept alive as the client wishes.  Malformed requests are refused by the
 * grammar of RFC 9112 (nothing is repaired) with 400 or what fits better, and the connection is
 * closed.  Everything has a limit (struct mag_http_server_options).  A stop lets each request that
 * has come be answered, with "Connection: close"; connections that wait for a request are closed at
 * once.
 *
 * Link with magpie-http.  With .serve.tls (<magpie/tls.h>; let it offer "http/1.1" by ALPN) it is
 * HTTPS.
 */
#include <magpie/http.h>
#include <magpie/server.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- a request, and its answer --------------------------------------------------------- */

#define MAG_HTTP_UNKNOWN_LENGTH UINT64_MAX

/*
 * A request and its answer.  All strings end with a zero byte, have none inside, and live until the
 * handler returns.  Made by the server only, and used by the handler's task only.
 */
struct mag_http_exchange {
    const char *method; /* "GET", in the case that it came in                               */
    const char *target; /* as it came                                                       */
    const char *path;   /* of the target: decoded, without dot segments; begins with '/'
                         * (or is "*", for OPTIONS)                                         */
    const char *query;  /* of the target, behind '?', not decoded; NULL: none               */
    const char *host;   /* the target's or the Host field's; NULL: none (HTTP/1.0)          */
    int version;        /* 10 or 11                                                         */
    unsigned n_headers; /* for mag_http_header_at                                           */
    /* Of the body: 0: there is none; MAG_HTTP_UNKNOWN_LENGTH: it comes in chunks. */
    uint64_t content_length;
    /* Of the answer, for logs: its status, 0 before there is one; bytes of body so far. */
    int status;
    uint64_t n_sent;
};

/*
 * Answers a request, by one of the functions below, and returns 0.  Without an answer, or with an
 * error before there is one, the client gets 500; with an error after that, or less body than
 * was promised, the connection is aborted, so that the client can tell.  Body that the handler
 * leaves unread is read and dropped if it is short, else the connection is closed.
 */
typedef int mag_http_handler(struct mag_http_exchange *x, void *arg);

/* The value of the first field of that name, in any case; NULL: none.  Never suspends. */
MAG_API const char *mag_http_header(const struct mag_http_exchange *x, const char *name);

/* The i-th field of the request: true; false: there are fewer.  Never suspends. */
MAG_API bool mag_http_header_at(const struct mag_http_exchange *x, unsigned i,
                                struct mag_http_field *out);

/* The connection, for its peer's name and for TLS; not to be read or written. */
MAG_API struct mag_stream *mag_http_stream(struct mag_http_exchange *x);

/* ---- the request's body: these suspend and are cancellation points ---------------------- */

/*
 * The next 1 to n bytes of the body; 0 at its end.  A client that has asked for it is told to go
 * on (100 Continue).  Errors, each of which the handler should just return (the
 * client is told what fits, if it can be): -ENODATA the client has gone amid the body, -EBADMSG it
 * is malformed (400), -EFBIG it is longer than .body_bytes (413), -ETIMEDOUT it comes too slowly
 * (408), and those of the connection.
 */
MAG_API int mag_http_read(struct mag_http_exchange *x, void *buf, size_t n);

/*
 * All of the body: 0, and *out is the exchange's, until the handler returns.  -EFBIG for more than
 * `limit' bytes (0: .body_bytes of the options); -ENOMEM.
 */
MAG_API int mag_http_read_all(struct mag_http_exchange *x, struct mag_str *out, size_t limit);

/* ---- the answer ---------------------------------------------------------------------------
 *
 * The server itself says Date, Content-Length, Transfer-Encoding and Connection; the middle two
 * are refused among the fields (-EINVAL), as are values with line breaks in them; "Connection:
 * close" closes.  Answers to HEAD, 204 and 304 have no body: what is written is dropped. Each
 * suspends only when much is waiting to be sent, and is a cancellation point then.
 * -EALREADY: there is an answer; -ETIMEDOUT: the client takes nothing for .write_timeout; the
 * connection's errors.
 */

/* The whole answer.  `fields' may be NULL. */
MAG_API int mag_http_respond(struct mag_http_exchange *x, int status,
                             const struct mag_http_field *fields, size_t n_fields, const void *body,
                             size_t length);

/*
 * Begins an answer of `length' bytes; MAG_HTTP_UNKNOWN_LENGTH: in chunks, or, to HTTP/1.0, up to
 * the end of the connection.
 */
MAG_API int mag_http_begin(struct mag_http_exchange *x, int status,
                           const struct mag_http_field *fields, size_t n_fields, uint64_t length);

/* Some of its body.  -EOVERFLOW: more than was promised; nothing of it was taken.  -ENOTCONN: it
 * was not begun, or has ended. */
MAG_API int mag_http_write(struct mag_http_exchange *x, const void *buf, size_t n);

/* n bytes of a file, from an offset on.  -ENODATA: it has fewer; errors of mag_file_pread. */
MAG_API int mag_http_send_file(struct mag_http_exchange *x, struct mag_file *f, int64_t offset,
                               uint64_t n);

/* Sends what is buffered now. */
MAG_API int mag_http_flush(struct mag_http_exchange *x);

/* Ends it; the handler's return does so too.  -ENODATA: less was written than was promised. */
MAG_API int mag_http_end(struct mag_http_exchange *x);

/* "Not Found"; "Unknown" for a number without a name.  Any thread. */
MAG_API const char *mag_http_status_text(int status);

/*
 * What x->path is made by: decodes the percent signs of the path of a target into buf, removes dot
 * segments and makes one slash of several.  The length; -EINVAL for a percent sign without two
 * digits, a byte 0, a path that does not begin with a slash or leads above its root; -ENOBUFS.  Any
 * thread.
 */
MAG_API int mag_http_path(const char *path, char *buf, size_t room);

/* ---- the server ------------------------------------------------------------------------------ */

struct mag_http_server; /* opaque: it lives on the heap */

struct mag_http_server_options {
    struct mag_serve_options serve; /* where to listen, connections, drain, TLS               */
    /* Limits; 0: what is said here.  At most 1 MiB for a head. */
    uint32_t line_bytes;     /* of a request line: else 414; 8,192                            */
    uint32_t head_bytes;     /* of a request's head: else 431; 32,768                         */
    uint32_t max_fields;     /* of a request's head: else 431; 100                            */
    uint64_t body_bytes;     /* of a body: else 413; 1 MiB; UINT64_MAX: none                  */
    uint32_t max_requests;   /* on a connection, which is then closed; none                   */
    mag_time idle_timeout;   /* without a request; 60 s                                       */
    mag_time head_timeout;   /* from the first byte of a head to its last: else 408; 20 s     */
    mag_time body_timeout;   /* spent waiting for a body, and ...: else 408; 20 s             */
    uint32_t body_rate;      /* ... a second more for so many bytes that have come; 1,024     */
    mag_time write_timeout;  /* for a client to take something; 60 s                          */
    const char *server_name; /* of the field Server; none                                     */
};

struct mag_http_server_stats {
    struct mag_server_stats server;
    uint64_t n_requests; /* that were answered, by handlers and by refusals */
    uint64_t n_refused;  /* malformed, too long, too slow                   */
    uint64_t n_aborted;  /* answers that were cut short                     */
};

/* As mag_server_start; .server_name must live as long as the server.  -EINVAL also for limits that
 * cannot be. */
MAG_API int mag_http_server_start(struct mag_http_server **out, mag_http_handler *handler,
                                  void *arg, const struct mag_http_server_options *options);

/* As mag_server_wait, mag_server_stop, mag_server_free. */
MAG_API int mag_http_server_wait(struct mag_http_server *server);
MAG_API int mag_http_server_stop(struct mag_http_server *server);
MAG_API void mag_http_server_free(struct mag_http_server *server);

/* Any thread. */
MAG_API uint16_t mag_http_server_port(const struct mag_http_server *server);
MAG_API void mag_http_server_stats(const struct mag_http_server *server,
                                   struct mag_http_server_stats *out);

/* start, wait, and when the calling task is cancelled (Ctrl-C, a timeout): stop (as .serve.drain
 * says), free.  -ECANCELED then, or why it ended by itself.  Suspends; cancellation point. */
MAG_API int mag_http_serve(mag_http_handler *handler, void *arg,
                           const struct mag_http_server_options *options);

#ifdef __cplusplus
}
#endif
#endif
