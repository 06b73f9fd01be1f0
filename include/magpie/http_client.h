/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_HTTP_CLIENT_H
#define MAGPIE_HTTP_CLIENT_H
/*
 * http_client.h - HTTP requests: httpx's client, on libcurl
 *
 *      async_with(mag_http_client, client, .timeout = 5 * MAG_SECOND) {
 *          struct mag_http_response *r = await(mag_http_get_co(client, "https://example.org/"));
 *          printf("%d, %zu bytes\n", r->status, r->body.len);
 *      }
 *
 * A client keeps connections, cookies, TLS sessions and looked-up names between its requests; one
 * per program is the rule.  The tasks of one runtime, on all its workers, may use it at the same
 * time.  Each worker has connections of its own, and does its share of the work: libcurl's multi
 * interface, driven by the worker's ring.
 *
 * Who owns a response: the client, until it is closed, or mag_http_response_free before.  A program
 * that makes many requests should free them: with more than .max_kept bytes of bodies not freed,
 * requests are refused (-ENOBUFS).
 *
 * A client has to be closed: its drivers, a task of the library on each worker that has made
 * requests, keep their runtime from ending until then.
 *
 * A request whose task is cancelled, or that is late, has been taken out of libcurl before its call
 * returns: nothing of the caller's memory is used after that.  Limits of time are those below and
 * scopes (with_timeout).
 *
 * Errors are -errno, and for who wants to know more a kind and a sentence (struct mag_http_error):
 *
 *      kind                        rc                what has happened
 *      CONNECT_TIMEOUT             -ETIMEDOUT        no connection (name, TCP, TLS) in .connect_timeout
 *      READ_TIMEOUT                -ETIMEDOUT        nothing has come for .read_timeout
 *      WRITE_TIMEOUT               -ETIMEDOUT        nothing could be sent for .write_timeout
 *      POOL_TIMEOUT                -ETIMEDOUT        max_connections were busy for .pool_timeout
 *      TOTAL_TIMEOUT               -ETIMEDOUT        not complete in .total_timeout
 *      RESOLVE                     -ENOENT           the name is not known
 *      CONNECT                     -ECONNREFUSED...  refused, unreachable; what connect(2) said
 *      PROXY                       -ECONNREFUSED...  the same of the proxy
 *      TLS                         -EPROTO           no handshake
 *      TLS_VERIFY                  -EKEYREJECTED     the certificate is not to be trusted
 *      READ, WRITE                 -ECONNRESET...    the connection broke
 *      DISCONNECTED                -ECONNRESET       closed before the answer was complete
 *      PROTOCOL                    -EPROTO           what came is no HTTP
 *      TOO_MANY_REDIRECTS          -ELOOP
 *      UNSUPPORTED_SCHEME          -EPROTONOSUPPORT  neither http: nor https:
 *      BAD_REQUEST                 -EINVAL           the URL, a field, ... is not well formed
 *      DECODING                    -EBADMSG          the body is not what Content-Encoding says
 *      TOO_BIG                     -EFBIG            body or header fields beyond the limit
 *      KEPT                        -ENOBUFS          more than .max_kept bytes of responses
 *      BODY                        its own           .body_read has failed
 *      REWIND                      -ESPIPE           a redirect wants a streamed body again
 *      CANCELED                    -ECANCELED        by its task, by close, or the runtime stops
 *      MEMORY                      -ENOMEM
 *      OTHER                       -EIO              what libcurl says, in the sentence
 *
 * A status such as 404 is no error: mag_http_response_ok.
 *
 * Not here: files in a multipart body (they would be read by blocking), cookies in files, HTTP/3.
 */
#include <magpie/file.h>
#include <magpie/http.h>
#include <magpie/scope.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mag_http_kind {
    MAG_HTTP_OK,
    MAG_HTTP_CONNECT_TIMEOUT,
    MAG_HTTP_READ_TIMEOUT,
    MAG_HTTP_WRITE_TIMEOUT,
    MAG_HTTP_POOL_TIMEOUT,
    MAG_HTTP_TOTAL_TIMEOUT,
    MAG_HTTP_RESOLVE,
    MAG_HTTP_CONNECT,
    MAG_HTTP_PROXY,
    MAG_HTTP_TLS,
    MAG_HTTP_TLS_VERIFY,
    MAG_HTTP_READ,
    MAG_HTTP_WRITE,
    MAG_HTTP_DISCONNECTED,
    MAG_HTTP_PROTOCOL,
    MAG_HTTP_TOO_MANY_REDIRECTS,
    MAG_HTTP_UNSUPPORTED_SCHEME,
    MAG_HTTP_BAD_REQUEST,
    MAG_HTTP_DECODING,
    MAG_HTTP_TOO_BIG,
    MAG_HTTP_KEPT,
    MAG_HTTP_BODY,
    MAG_HTTP_REWIND,
    MAG_HTTP_CANCELED,
    MAG_HTTP_MEMORY,
    MAG_HTTP_OTHER,
};

/* What was wrong with a request. */
struct mag_http_error {
    enum mag_http_kind kind;
    int rc;
    char text[240];
};

/* "connect timeout" for MAG_HTTP_CONNECT_TIMEOUT; static storage.  Any thread. */
MAG_API const char *mag_http_kind_name(enum mag_http_kind kind);

/* ---- the client ------------------------------------------------------------------------- */

enum mag_http_auth_kind { MAG_HTTP_NO_AUTH, MAG_HTTP_BASIC, MAG_HTTP_DIGEST, MAG_HTTP_BEARER };

struct mag_http_auth {
    enum mag_http_auth_kind kind;
    const char *user, *password; /* bearer: the password is the token */
};

/* Zero is the default everywhere.  Times are ns; MAG_NEVER: no limit.  What is pointed to is
 * copied. */
struct mag_http_client_options {
    mag_time timeout;                 /* for each of the next four that is 0; 0: 5 s             */
    mag_time connect_timeout;         /* name, TCP and TLS                                       */
    mag_time read_timeout;            /* without a header line or a piece of the body            */
    mag_time write_timeout;           /* without a piece of the request's body being sent        */
    mag_time pool_timeout;            /* for one of max_connections to be free                   */
    mag_time total_timeout;           /* for the whole request, redirects included; 0: no limit  */
    unsigned max_connections;         /* requests under way, and so connections in use; 0: 100   */
    unsigned max_keepalive;           /* idle connections, all workers together; 0: 20           */
    mag_time keepalive_expiry;        /* an idle connection is used again for so long; 0: 5 s    */
    unsigned connect_retries;         /* of connections that failed, 0, 0.5, 1, 2 s ... later    */
    uint64_t max_body;                /* bytes of a response's body, decoded; 0: 256 MiB         */
    uint64_t max_kept;                /* bytes of all responses that are not freed; 0: 1 GiB     */
    size_t stream_buffer;             /* bytes that a stream may be ahead of its reader; 0: 64 KiB,
                               * and that is the least                                   */
    bool http2;                       /* offer HTTP/2 to TLS servers                             */
    bool http2_prior_knowledge;       /* HTTP/2 without asking, without TLS too                */
    bool insecure;                    /* do not verify certificates                              */
    const char *ca_file;              /* instead of the system's                                 */
    const char *cert_file, *key_file; /* the client's certificate, PEM                   */
    const char *proxy;      /* "http://host:port", "socks5h://..."; NULL: as the environment says
                        * (http_proxy, https_proxy, all_proxy, no_proxy), "": none       */
    bool no_cookies;        /* else what servers set is sent back to them                     */
    bool no_decoding;       /* else gzip, br, ... are asked for, and undone                   */
    bool follow_redirects;  /* else a redirect is a response                             */
    unsigned max_redirects; /* 0: 20                                                     */
    const struct mag_http_field *headers; /* for each request                            */
    const char *base_url; /* what the URLs of requests are relative to (RFC 3986)      */
    struct mag_http_auth auth;
    const char *user_agent; /* NULL: "magpie/VERSION"                                    */
};

/* A client; its fields are private. */
struct mag_http_client {
    struct mag_http_pool *private_;
};

/* Opens a client; options may be NULL.  -EINVAL, -ENOMEM, -ENXIO outside a task.  Suspends. */
MAG_API int mag_http_client_open(struct mag_http_client *client,
                                 const struct mag_http_client_options *options);

/*
 * Closes it: requests under way end with -ECANCELED, in whatever task they are, and their memory is
 * left alone when this returns; all connections are closed, all responses freed (but not those of
 * open streams, which end with -ECANCELED and still have to be closed).  Twice: nothing happens.
 * Nobody may begin a request meanwhile.  Suspends; not a cancellation point.
 */
MAG_API int mag_http_client_close(struct mag_http_client *client);

/* For async_with(mag_http_client, client, .timeout = ...). */
#define mag_http_client_enter(client, ...) \
    mag_http_client_open((client), &(struct mag_http_client_options){ __VA_ARGS__ })
MAG_API void mag_http_client_exit(struct mag_http_client *client);

/* Of the request of this client that failed last: for who has no .error.  Any task. */
MAG_API void mag_http_client_error(const struct mag_http_client *client,
                                   struct mag_http_error *out);

/*
 * Cookies.  set: a line as in a response, "Set-Cookie: name=value; domain=example.org; path=/", or
 * one of Netscape's cookie files; "ALL" forgets all cookies, "SESS" those of the session.  get: all
 * of them, as lines of Netscape's format, one call each.  0, -EINVAL (.no_cookies; a line break),
 * -ENOMEM.  Suspend; cancellation points.
 */
MAG_API int mag_http_client_set_cookie(struct mag_http_client *client, const char *line);
MAG_API int mag_http_client_cookies(struct mag_http_client *client,
                                    void (*each)(void *arg, const char *line), void *arg);

/* ---- requests --------------------------------------------------------------------------- */

/* A part of a multipart/form-data body. */
struct mag_http_part {
    const char *name; /* NULL: the end of the list */
    const void *data;
    size_t len;            /* 0: data is a string                      */
    const char *file_name; /* NULL: not a file                         */
    const char *type;      /* NULL: none (libcurl guesses, for a file) */
};

/*
 * Zero is the client's, or none.  Everything pointed to is lent until the call returns; for a
 * stream until it is closed.  At most one of body, body_read, form and parts.
 */
struct mag_http_request {
    const char *method; /* NULL: GET, or POST with a body */
    const char *url;
    const struct mag_http_field *query; /* added to the URL, encoded                        */
    const struct mag_http_field
        *headers; /* a value of NULL: leave the client's, or libcurl's, out */
    const void *body;
    size_t body_len;
    /*
     * The body piece by piece: writes at most n bytes to buf and returns how many; 0: the end; < 0
     * fails the request.  Called in the task that makes the call, may suspend.
     */
    int (*body_read)(void *arg, void *buf, size_t n);
    void *body_arg;
    uint64_t body_length;              /* of body_read; 0: not known (HTTP/1.1 sends chunks) */
    const char *content_type;          /* NULL: what form and parts need; else none           */
    const struct mag_http_field *form; /* application/x-www-form-urlencoded */
    const struct mag_http_part *parts; /* multipart/form-data               */
    struct mag_http_auth auth;
    mag_time connect_timeout, read_timeout, write_timeout, pool_timeout, total_timeout;
    int follow_redirects; /* 1: follow, -1: do not */
    uint64_t max_body;
    struct mag_http_error *error; /* filled in when the request fails */
};

struct mag_http_response {
    int status;
    int version; /* 10, 11, 20 */
    unsigned n_redirects;
    mag_time elapsed; /* from the call to the end of the body (a stream: to the header) */
    const char *url;  /* after redirects */
    struct mag_str body;
    const struct mag_http_field *headers; /* in their order; ends with a NULL */
    size_t n_headers;
};

/*
 * Makes a request, and waits for the whole response: 0, or an error of the table above; -ENXIO
 * outside a task, -EINVAL for a task of another runtime than the client's; *out is then NULL.  The
 * response is the client's, see above.  Suspends; cancellation point.  A response that is there when
 * a cancellation comes is returned.
 */
MAG_API int mag_http_request(struct mag_http_client *client, const struct mag_http_request *request,
                             struct mag_http_response **out);

/* The same for the usual ones. */
MAG_API int mag_http_get(struct mag_http_client *client, const char *url,
                         struct mag_http_response **out);
MAG_API int mag_http_head(struct mag_http_client *client, const char *url,
                          struct mag_http_response **out);
MAG_API int mag_http_delete(struct mag_http_client *client, const char *url,
                            struct mag_http_response **out);
MAG_API int mag_http_post(struct mag_http_client *client, const char *url, const void *body,
                          size_t len, const char *content_type, struct mag_http_response **out);
MAG_API int mag_http_put(struct mag_http_client *client, const char *url, const void *body,
                         size_t len, const char *content_type, struct mag_http_response **out);
MAG_API int mag_http_patch(struct mag_http_client *client, const char *url, const void *body,
                           size_t len, const char *content_type, struct mag_http_response **out);

/*
 * mag_http_get and mag_http_request as coroutines, for await, spawn and gather.  What they are
 * given is lent until they have ended.
 */
struct mag_http_get_co {
    struct mag_http_response *value;
    struct mag_http_client *private_client;
    const char *private_url;
};
struct mag_http_request_co {
    struct mag_http_response *value;
    struct mag_http_client *private_client;
    const struct mag_http_request *private_request;
};
MAG_API MAG_MUST_USE struct mag_http_get_co *mag_http_get_co(struct mag_http_client *client,
                                                             const char *url);
MAG_API MAG_MUST_USE struct mag_http_request_co *
mag_http_request_co(struct mag_http_client *client, const struct mag_http_request *request);

/* The value of the first field of that name, in any case; NULL: none.  Any thread. */
MAG_API const char *mag_http_response_header(const struct mag_http_response *r, const char *name);

/* 0 for a status below 400, else -EREMOTEIO: httpx's raise_for_status.  Any thread. */
MAG_API int mag_http_response_ok(const struct mag_http_response *r);

/* Frees a response before the client's end; NULL is ignored.  Not that of a stream.  Any thread of
 * the program, while the client is open. */
MAG_API void mag_http_response_free(struct mag_http_response *r);

/* ---- streams ------------------------------------------------------------------------------ */

/* A response whose body is read piece by piece; for one task at a time. */
struct mag_http_stream;

/*
 * Makes a request and waits for the header of the response.  If the server is faster than the
 * reader, it is left waiting; no more than .stream_buffer bytes are kept.  A body_read goes on to
 * be called by reads.  max_body is no limit here, unless the request has one.  0, and the stream is
 * the caller's, to be closed by mag_http_stream_close; errors as mag_http_request, *out is then
 * NULL.  Suspends; cancellation point.
 */
MAG_API int mag_http_stream_open(struct mag_http_stream **out, struct mag_http_client *client,
                                 const struct mag_http_request *request);

/* Status and header fields; the body is empty.  The stream's. */
MAG_API const struct mag_http_response *mag_http_stream_response(const struct mag_http_stream *s);

/* 1 to n bytes of the body; 0 at its end; or an error.  Nothing is lost when it is cancelled.
 * Suspends; cancellation point. */
MAG_API int mag_http_stream_read(struct mag_http_stream *s, void *buf, size_t n);

/* What made a read fail.  Never suspends. */
MAG_API void mag_http_stream_error(const struct mag_http_stream *s, struct mag_http_error *out);

/* Ends it, at whatever point it is, and frees it; NULL is ignored.  Suspends; not a cancellation
 * point. */
MAG_API void mag_http_stream_close(struct mag_http_stream *s);

#ifdef __cplusplus
}
#endif

/* What async_resource(mag_http_client) of <magpie/async.h> would define; here, so that the two
 * headers can be included in any order. */
#if defined(__GNUC__) && !defined(__cplusplus)
struct mag_http_client__scope {
    struct mag_http_client object;
    int is_entered;
};
static __attribute__((unused)) inline void
mag_http_client__leave(struct mag_http_client__scope *scope)
{
    if (scope->is_entered)
        mag_http_client_exit(&scope->object);
}
#endif
#endif
