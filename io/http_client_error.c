/* SPDX-License-Identifier: MIT */
/*
 * http_client_error.c - what libcurl says, as a kind, an errno, and a sentence
 *
 * The first error counts: a callback that refuses what has come notes why, and what libcurl then
 * says of the callback is not news.
 */
#include "http_client_parts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const char *const names[] = {
    [MAG_HTTP_OK] = "ok",
    [MAG_HTTP_CONNECT_TIMEOUT] = "connect timeout",
    [MAG_HTTP_READ_TIMEOUT] = "read timeout",
    [MAG_HTTP_WRITE_TIMEOUT] = "write timeout",
    [MAG_HTTP_POOL_TIMEOUT] = "pool timeout",
    [MAG_HTTP_TOTAL_TIMEOUT] = "total timeout",
    [MAG_HTTP_RESOLVE] = "unknown host",
    [MAG_HTTP_CONNECT] = "connect error",
    [MAG_HTTP_PROXY] = "proxy error",
    [MAG_HTTP_TLS] = "TLS error",
    [MAG_HTTP_TLS_VERIFY] = "certificate not trusted",
    [MAG_HTTP_READ] = "read error",
    [MAG_HTTP_WRITE] = "write error",
    [MAG_HTTP_DISCONNECTED] = "disconnected",
    [MAG_HTTP_PROTOCOL] = "protocol error",
    [MAG_HTTP_TOO_MANY_REDIRECTS] = "too many redirects",
    [MAG_HTTP_UNSUPPORTED_SCHEME] = "unsupported scheme",
    [MAG_HTTP_BAD_REQUEST] = "bad request",
    [MAG_HTTP_DECODING] = "decoding error",
    [MAG_HTTP_TOO_BIG] = "too big",
    [MAG_HTTP_KEPT] = "too much kept",
    [MAG_HTTP_BODY] = "body error",
    [MAG_HTTP_REWIND] = "body cannot be repeated",
    [MAG_HTTP_CANCELED] = "canceled",
    [MAG_HTTP_MEMORY] = "out of memory",
    [MAG_HTTP_OTHER] = "error",
};

const char *mag_http_kind_name(enum mag_http_kind kind)
{
    return (unsigned)kind < MAG_ARRAY_SIZE(names) ? names[kind] : "?";
}

int mag_http_fail(struct mag_http_error *e, enum mag_http_kind kind, int rc, const char *format,
                  ...)
{
    va_list args;

    if (e->kind != MAG_HTTP_OK)
        return e->rc;
    e->kind = kind;
    e->rc = rc;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    return rc;
}

/* rc 0: what the system said, else -ECONNRESET. */
static const struct {
    CURLcode code;
    enum mag_http_kind kind;
    int rc;
} rows[] = {
    { CURLE_COULDNT_RESOLVE_HOST, MAG_HTTP_RESOLVE, -ENOENT },
    { CURLE_COULDNT_RESOLVE_PROXY, MAG_HTTP_PROXY, -ENOENT },
    { CURLE_COULDNT_CONNECT, MAG_HTTP_CONNECT, 0 },
    { CURLE_PROXY, MAG_HTTP_PROXY, -ECONNREFUSED },
    { CURLE_SSL_CONNECT_ERROR, MAG_HTTP_TLS, -EPROTO },
    { CURLE_SSL_CIPHER, MAG_HTTP_TLS, -EPROTO },
    { CURLE_PEER_FAILED_VERIFICATION, MAG_HTTP_TLS_VERIFY, -EKEYREJECTED },
    { CURLE_SSL_CACERT_BADFILE, MAG_HTTP_BAD_REQUEST, -EINVAL },
    { CURLE_SSL_CERTPROBLEM, MAG_HTTP_BAD_REQUEST, -EINVAL },
    { CURLE_RECV_ERROR, MAG_HTTP_READ, 0 },
    { CURLE_SEND_ERROR, MAG_HTTP_WRITE, 0 },
    { CURLE_GOT_NOTHING, MAG_HTTP_DISCONNECTED, -ECONNRESET },
    { CURLE_PARTIAL_FILE, MAG_HTTP_DISCONNECTED, -ECONNRESET },
    { CURLE_WEIRD_SERVER_REPLY, MAG_HTTP_PROTOCOL, -EPROTO },
    { CURLE_UNSUPPORTED_PROTOCOL, MAG_HTTP_UNSUPPORTED_SCHEME, -EPROTONOSUPPORT },
    { CURLE_HTTP2, MAG_HTTP_PROTOCOL, -EPROTO },
    { CURLE_HTTP2_STREAM, MAG_HTTP_PROTOCOL, -EPROTO },
    { CURLE_TOO_MANY_REDIRECTS, MAG_HTTP_TOO_MANY_REDIRECTS, -ELOOP },
    { CURLE_URL_MALFORMAT, MAG_HTTP_BAD_REQUEST, -EINVAL },
    { CURLE_BAD_CONTENT_ENCODING, MAG_HTTP_DECODING, -EBADMSG },
    { CURLE_SEND_FAIL_REWIND, MAG_HTTP_REWIND, -ESPIPE },
    { CURLE_OUT_OF_MEMORY, MAG_HTTP_MEMORY, -ENOMEM },
};

/* libcurl's limit of time is for the connection only; the others are ours. */
static int fail_timed_out(struct mag_transfer *t, const char *text)
{
    return mag_http_fail(&t->error, MAG_HTTP_CONNECT_TIMEOUT, -ETIMEDOUT, "%s", text);
}

int mag_http_fail_curl(struct mag_transfer *t, CURLcode code)
{
    const char *text = t->easy && t->easy->error[0] ? t->easy->error : curl_easy_strerror(code);
    long os = 0;

    if (code == CURLE_OPERATION_TIMEDOUT)
        return fail_timed_out(t, text);
    for (size_t i = 0; i < MAG_ARRAY_SIZE(rows); i++) {
        if (rows[i].code != code)
            continue;
        if (t->easy)
            curl_easy_getinfo(t->easy->curl, CURLINFO_OS_ERRNO, &os);
        return mag_http_fail(&t->error, rows[i].kind,
                             rows[i].rc ? rows[i].rc
                             : os > 0   ? -(int)os
                                        : -ECONNRESET,
                             "%s", text);
    }
    return mag_http_fail(&t->error, MAG_HTTP_OTHER, -EIO, "%s", text);
}
