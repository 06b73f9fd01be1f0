/* SPDX-License-Identifier: MIT */
#ifndef MAG_TLS_CONTEXT_H
#define MAG_TLS_CONTEXT_H
/*
 * tls_context.h - the settings of many connections, as OpenSSL wants them
 */
#include "tls_sessions.h"
#include "tls_why.h"

#include <magpie/tls.h>

struct mag_tls_context {
    struct mag_tls base;
    mag_atomic(uint32_t) n_refs; /* [any] the user's, and one for each connection */
    SSL_CTX *ctx;                /* [const] */
    BIO_METHOD *bio;             /* [const] tls.c's */
    SSL_CTX **more;              /* [const] with other certificates, for other names */
    size_t n_more;
    bool is_server, is_insecure;      /* [const] */
    unsigned char alpn[256];          /* [const] as it is sent: a length, a name, ... */
    unsigned n_alpn;                  /* bytes of it */
    struct mag_tls_sessions sessions; /* a client's */
    struct mag_spin lock;
    char why[MAG_TLS_WHY_BYTES]; /* [lock] of the last connection that failed */
};

/* 0 and *out, with the caller's reference and without `base'; or -errno and a sentence in `why'. */
int mag_tls_context_new(struct mag_tls_context **out, const struct mag_tls_options *options,
                        bool is_server, char why[static MAG_TLS_WHY_BYTES]);

void mag_tls_context_ref(struct mag_tls_context *c);
void mag_tls_context_unref(struct mag_tls_context *c);

#endif
