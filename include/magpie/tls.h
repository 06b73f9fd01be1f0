/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_TLS_H
#define MAGPIE_TLS_H
/*
 * tls.h - TLS under a stream (magpie-tls, a library of its own, on OpenSSL 3)
 *
 *      struct mag_tls *tls;
 *      await(mag_tls_client_new(&tls, NULL));
 *      await(mag_connect(&s, "example.org", 443, &(struct mag_connect_options){ .tls = tls }));
 *      await(mag_stream_puts(&s, "GET / HTTP/1.0\r\nHost: example.org\r\n\r\n"));
 *
 *      await(mag_tls_server_new(&tls, &(struct mag_tls_options){ .cert_file = "chain.pem",
 *                                                                .key_file = "key.pem" }));
 *      await(mag_serve(handler, NULL, &(struct mag_serve_options){ .port = 443, .tls = tls }));
 *
 * A context (struct mag_tls) is the settings of many connections, a client's or a server's.  With
 * it mag_connect, mag_serve and mag_stream_start_tls (STARTTLS) make the handshake; from then on
 * the stream is one like any other.
 *
 * A client checks the peer's certificate against the system's authorities, or those it is given,
 * and the name or address that it has connected to against the certificate, unless it is told to
 * be insecure.  At least TLS 1.2 is spoken.  Sessions are resumed by themselves.
 *
 * Errors of a handshake; mag_stream_tls_error and mag_tls_error have a sentence for each:
 *
 *      -EKEYREJECTED   a certificate was refused, by us or by the peer: it has expired, it is
 *                      another name's, nobody vouches for it, a client has none
 *      -EPROTO         the peer speaks no TLS, or none that both can
 *      -ECONNABORTED   the peer has closed the connection in the middle of it
 *      -ECANCELED      such a stream can only be closed
 *      and what the transport below says
 *
 * Later, reading and writing:
 *
 *      0               the peer has said that it ends (close_notify)
 *      -ECONNABORTED   the connection ended without that: what was read may have been cut short by
 *                      anybody.  HTTP with a length, and protocols with an end of their own, may
 *                      take it for an end
 *      -EPROTO         what came is no TLS; -EKEYREJECTED: a peer refuses our certificate (in
 *                      TLS 1.3 a client learns this when it first reads)
 *
 * mag_stream_write_eof sends close_notify; the stream can still be read.  mag_stream_close sends
 * one and does not wait for the peer's.
 *
 * What a cancelled or timed out write has encrypted counts as written, as what a kernel has in its
 * buffer does: it is sent with the next write, with a read that has to wait, or by close.
 */
#include <magpie/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A context; counted: connections keep it. */
struct mag_tls {
    /* Private: a handshake over s->transport; then s->transport is TLS's. */
    int (*start)(struct mag_tls *tls, struct mag_stream *s, const char *name);
};

enum {
    MAG_TLS_1_2 = 0x0303,
    MAG_TLS_1_3 = 0x0304,
};

/* What a server does about clients' certificates. */
enum mag_tls_client_cert {
    MAG_TLS_CERT_NONE = 0, /* does not ask for one                               */
    MAG_TLS_CERT_OPTIONAL, /* none is fine, a bad one is not                     */
    MAG_TLS_CERT_REQUIRED,
};

/* A certificate and what proves that it is ours; of each a file, or the same text (PEM). */
struct mag_tls_identity {
    const char *cert_file; /* the certificate, and those between it and the authority */
    const char *key_file;  /* NULL: it is in cert_file                                */
    const char *cert_pem, *key_pem;
    const char *password; /* of an encrypted key; nobody is ever asked for one       */
};

struct mag_tls_options {
    union {
        struct mag_tls_identity identity; /* a server's; a client's, if it is to have one */
        struct {
            const char *cert_file, *key_file, *cert_pem, *key_pem, *password;
        };
    };
    /* A server's further ones: a client that asks for a name which one of these is for gets that;
     * every other client gets the one above. */
    const struct mag_tls_identity *more;
    size_t n_more;
    /* Authorities; none of the three: the system's, for a client. */
    const char *ca_file, *ca_dir, *ca_pem;
    bool insecure;                        /* a client that checks nothing      */
    enum mag_tls_client_cert client_cert; /* a server's, with authorities      */
    const char *const *alpn;              /* protocols, the best first; NULL-terminated */
    int min_version, max_version;         /* 0: TLS 1.2, and the newest        */
    unsigned n_sessions;                  /* a client's that are kept; 0: 256  */
    bool no_resumption;                   /* neither keeps nor hands out any   */
    char *why;                            /* gets a sentence on what is wrong; may be NULL */
    size_t why_bytes;
};

/*
 * Make a context: 0 and *out.  `options' may be NULL for a client, and is not needed afterwards.
 * -ENOENT and so on: a file cannot be read; -EINVAL: what is in it, or the options, make no sense;
 * -EKEYREJECTED: key and certificate do not belong together; -ENOMEM.  .why has a sentence then.
 * A client's takes 20 ms if it reads the system's authorities: make one, and use it for all.
 * Suspends (it is done on the offload pool); cancellation point.  Any thread.
 */
MAG_API int mag_tls_client_new(struct mag_tls **out, const struct mag_tls_options *options);
MAG_API int mag_tls_server_new(struct mag_tls **out, const struct mag_tls_options *options);

/* Gives a context up; connections that have it go on.  NULL: nothing.  Any thread. */
MAG_API void mag_tls_free(struct mag_tls *tls);

/*
 * A sentence on the last connection of this context that failed ("certificate has expired"), for
 * who has no stream to ask any more, as after mag_connect; of several at once, any.  Its length; 0:
 * none has.  Any thread; never suspends.
 */
MAG_API int mag_tls_error(struct mag_tls *tls, char *buf, size_t room);

/* ---- of a stream: for its own tasks; never suspend.  NULL without TLS. ------------------ */

/* Why its handshake, or a later call, failed; "" if none did.  Valid until it is closed. */
MAG_API const char *mag_stream_tls_error(const struct mag_stream *s);

/* The protocol that both chose among .alpn; NULL: none.  Valid until it is closed. */
MAG_API const char *mag_stream_alpn(const struct mag_stream *s);

/* "TLSv1.3"; "TLS_AES_256_GCM_SHA384".  Static storage. */
MAG_API const char *mag_stream_tls_version(const struct mag_stream *s);
MAG_API const char *mag_stream_tls_cipher(const struct mag_stream *s);

/* Server: the name that the client asked for (SNI); NULL: none.  Valid until it is closed. */
MAG_API const char *mag_stream_tls_server_name(const struct mag_stream *s);

/* Whether the handshake went on from an earlier session. */
MAG_API bool mag_stream_tls_reused(const struct mag_stream *s);

/* The subject of the peer's certificate, "CN=example.org,O=Example" (RFC 2253): its length, cut to
 * `room' with the NUL; 0: it has shown none; -ENOTCONN: no TLS. */
MAG_API int mag_stream_tls_peer(const struct mag_stream *s, char *buf, size_t room);

#ifdef __cplusplus
}
#endif
#endif
