/* SPDX-License-Identifier: MIT */
/*
 * tls_context.c - the settings of many connections, as OpenSSL wants them
 *
 * All that reads files, parses and can be wrong in itself is done here, once, so that a
 * connection only has to be made.  Afterwards nothing of it changes, and any number of threads may
 * use it; what does change is the sessions of a client, and the last sentence, with locks of
 * their own.
 *
 * Servers keep no sessions but hand out tickets (RFC 5077, RFC 8446 4.6.1), which need no memory
 * and no lock: the keys are the context's, so a ticket is good as long as that lives.
 *
 * Several certificates: OpenSSL has one set of them for each SSL_CTX, so each further one has an
 * SSL_CTX of its own, which lends it to the connection when the client has said its name.
 *
 * No password is asked for: OpenSSL's default would read one from the terminal, and block.
 *
 * The system's authorities are one file of 140 certificates, which takes 20 ms: so all of this is
 * a job of the offload pool (tls.c), and a program should make a context once, not per connection.
 *
 * Rejected: renegotiation, compression (attacks, no use).
 *
 * Sources: SSL_CTX_new(3), SSL_CTX_set_verify(3), SSL_CTX_set_alpn_select_cb(3),
 * SSL_CTX_set_tlsext_servername_callback(3).
 */
#include "tls_context.h"

#include "mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

static int refuse(char *why, const char *text)
{
    snprintf(why, MAG_TLS_WHY_BYTES, "%s", text);
    return -EINVAL;
}

/* What OpenSSL says, and about what. */
static int failed(char *why, const char *what)
{
    char text[MAG_TLS_WHY_BYTES];
    int rc = mag_tls_why(text, NULL, -EINVAL);

    snprintf(why, MAG_TLS_WHY_BYTES, "%.100s: %.140s", what, text);
    return rc;
}

/* ---- certificates and keys -------------------------------------------------------- */

/* OpenSSL's password callback: never asks anybody. */
static int password(char *buf, int room, int for_writing, void *arg)
{
    const char *text = arg;
    size_t n = text ? strlen(text) : 0;

    (void)for_writing;
    if (text == NULL || n > (size_t)room)
        return -1;
    memcpy(buf, text, n);
    return (int)n;
}

static int use_chain(SSL_CTX *ctx, BIO *pem, char *why)
{
    X509 *certificate = PEM_read_bio_X509(pem, NULL, password, NULL);
    bool is_ok = certificate && SSL_CTX_use_certificate(ctx, certificate) == 1;

    X509_free(certificate);
    while (is_ok && (certificate = PEM_read_bio_X509(pem, NULL, password, NULL)) != NULL) {
        is_ok = SSL_CTX_add0_chain_cert(ctx, certificate) == 1;
        if (!is_ok)
            X509_free(certificate);
    }
    if (!is_ok)
        return failed(why, "the certificate in memory");
    ERR_clear_error(); /* that there is no further one */
    return 0;
}

static int use_key(SSL_CTX *ctx, BIO *pem, const char *secret, char *why)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, password, (void *)(uintptr_t)secret);
    bool is_ok = key && SSL_CTX_use_PrivateKey(ctx, key) == 1;

    EVP_PKEY_free(key);
    return is_ok ? 0 : failed(why, "the key in memory");
}

static int use_certificate(SSL_CTX *ctx, const struct mag_tls_identity *id, char *why)
{
    BIO *pem;
    int rc;

    if (id->cert_file)
        return SSL_CTX_use_certificate_chain_file(ctx, id->cert_file) == 1
                   ? 0
                   : failed(why, id->cert_file);
    pem = BIO_new_mem_buf(id->cert_pem, -1);
    rc = pem ? use_chain(ctx, pem, why) : failed(why, "the certificate");
    BIO_free(pem);
    return rc;
}

static int use_its_key(SSL_CTX *ctx, const struct mag_tls_identity *id, char *why)
{
    const char *file = id->key_file || id->key_pem ? id->key_file : id->cert_file;
    const char *text = id->key_pem ? id->key_pem : id->cert_pem;
    BIO *pem = file ? BIO_new_file(file, "r") : BIO_new_mem_buf(text, -1);
    int rc = pem ? use_key(ctx, pem, id->password, why) : failed(why, file ? file : "the key");

    BIO_free(pem);
    return rc;
}

static int use_identity(SSL_CTX *ctx, const struct mag_tls_identity *id, char *why)
{
    int rc;

    if (id->cert_file == NULL && id->cert_pem == NULL)
        return refuse(why, "a key without a certificate, or neither");
    rc = use_certificate(ctx, id, why);
    if (rc == 0)
        rc = use_its_key(ctx, id, why);
    if (rc == 0 && SSL_CTX_check_private_key(ctx) != 1)
        rc = failed(why, "the key");
    return rc;
}

static bool has_identity(const struct mag_tls_identity *id)
{
    return id->cert_file || id->cert_pem || id->key_file || id->key_pem;
}

/* ---- authorities ------------------------------------------------------------------ */

static int add_authorities(SSL_CTX *ctx, const char *text, char *why)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *pem = BIO_new_mem_buf(text, -1);
    X509 *certificate;
    int n = 0;

    while (pem && (certificate = PEM_read_bio_X509(pem, NULL, password, NULL)) != NULL) {
        n += X509_STORE_add_cert(store, certificate) == 1;
        X509_free(certificate);
    }
    BIO_free(pem);
    if (n == 0)
        return failed(why, "the authorities in memory");
    ERR_clear_error();
    return 0;
}

static bool has_authorities(const struct mag_tls_options *o)
{
    return o->ca_file || o->ca_dir || o->ca_pem;
}

static int use_authorities(SSL_CTX *ctx, const struct mag_tls_options *o, char *why)
{
    if (o->ca_file && SSL_CTX_load_verify_file(ctx, o->ca_file) != 1)
        return failed(why, o->ca_file);
    if (o->ca_dir && SSL_CTX_load_verify_dir(ctx, o->ca_dir) != 1)
        return failed(why, o->ca_dir);
    if (o->ca_pem)
        return add_authorities(ctx, o->ca_pem, why);
    return 0;
}

static int verify_as_client(SSL_CTX *ctx, const struct mag_tls_options *o, char *why)
{
    if (o->insecure)
        return 0;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (has_authorities(o))
        return use_authorities(ctx, o, why);
    return SSL_CTX_set_default_verify_paths(ctx) == 1 ? 0 : failed(why, "the system's authorities");
}

static int verify_as_server(SSL_CTX *ctx, const struct mag_tls_options *o, char *why)
{
    int mode = SSL_VERIFY_PEER;

    if (o->client_cert == MAG_TLS_CERT_NONE)
        return 0;
    if (!has_authorities(o))
        return refuse(why, "clients' certificates are wanted, but no authority is given");
    if (o->client_cert == MAG_TLS_CERT_REQUIRED)
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(ctx, mode, NULL);
    if (o->ca_file) /* says to clients with several which one is meant */
        SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(o->ca_file));
    return use_authorities(ctx, o, why);
}

/* ---- ALPN and SNI ----------------------------------------------------------------- */

static int set_alpn(struct mag_tls_context *c, const char *const *names, char *why)
{
    for (; names && *names; names++) {
        size_t n = strlen(*names);
        if (n == 0 || c->n_alpn + 1 + n > sizeof c->alpn)
            return refuse(why, "a name in .alpn is empty, or they are too many");
        c->alpn[c->n_alpn] = (unsigned char)n;
        memcpy(&c->alpn[c->n_alpn + 1], *names, n);
        c->n_alpn += 1 + (unsigned)n;
    }
    return 0;
}

/* Server: the first of ours that the client has as well; without one the handshake fails. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *n,
                       const unsigned char *theirs, unsigned n_theirs, void *arg)
{
    struct mag_tls_context *c = arg;
    unsigned char *chosen;

    (void)ssl;
    if (SSL_select_next_proto(&chosen, n, c->alpn, c->n_alpn, theirs, n_theirs) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Server: the certificate for the name that the client asks for. */
static int select_certificate(SSL *ssl, int *alert, void *arg)
{
    struct mag_tls_context *c = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void)alert;
    for (size_t i = 0; name && i < c->n_more; i++)
        if (X509_check_host(SSL_CTX_get0_certificate(c->more[i]), name, 0, 0, NULL) == 1) {
            SSL_set_SSL_CTX(ssl, c->more[i]);
            break;
        }
    return SSL_TLSEXT_ERR_OK;
}

/* ---- a context -------------------------------------------------------------------- */

static int set_versions(SSL_CTX *ctx, const struct mag_tls_options *o, char *why)
{
    int least = o->min_version ? o->min_version : TLS1_2_VERSION;

    if (SSL_CTX_set_min_proto_version(ctx, least) != 1 ||
        SSL_CTX_set_max_proto_version(ctx, o->max_version) != 1 ||
        (o->max_version && o->max_version < least))
        return refuse(why, "no such versions of TLS");
    return 0;
}

static SSL_CTX *make_ctx(const struct mag_tls_options *o, bool is_server, int *rc, char *why)
{
    SSL_CTX *ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());

    if (ctx == NULL) {
        *rc = failed(why, "OpenSSL");
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"magpie", 6);
    if (is_server && o->no_resumption) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(ctx, 0);
    }
    *rc = set_versions(ctx, o, why);
    return ctx;
}

static int make_more(struct mag_tls_context *c, const struct mag_tls_options *o, char *why)
{
    int rc = 0;

    if (o->n_more == 0)
        return 0;
    c->more = mag_mem_zalloc(o->n_more * sizeof(SSL_CTX *));
    if (c->more == NULL)
        return -ENOMEM;
    for (; rc == 0 && c->n_more < o->n_more; c->n_more++) {
        c->more[c->n_more] = make_ctx(o, true, &rc, why);
        if (rc == 0)
            rc = use_identity(c->more[c->n_more], &o->more[c->n_more], why);
    }
    SSL_CTX_set_tlsext_servername_callback(c->ctx, select_certificate);
    SSL_CTX_set_tlsext_servername_arg(c->ctx, c);
    return rc;
}

static int set_server(struct mag_tls_context *c, const struct mag_tls_options *o, char *why)
{
    int rc = use_identity(c->ctx, &o->identity, why);

    if (rc == 0)
        rc = verify_as_server(c->ctx, o, why);
    if (rc == 0)
        rc = make_more(c, o, why);
    if (rc == 0 && c->n_alpn)
        SSL_CTX_set_alpn_select_cb(c->ctx, select_alpn, c);
    return rc;
}

static int set_client(struct mag_tls_context *c, const struct mag_tls_options *o, char *why)
{
    unsigned n = o->n_sessions ? o->n_sessions : MAG_TLS_SESSIONS_DEFAULT;
    int rc = mag_tls_sessions_init(&c->sessions, o->no_resumption ? 0 : n);

    if (rc == 0)
        rc = verify_as_client(c->ctx, o, why);
    if (rc == 0 && has_identity(&o->identity))
        rc = use_identity(c->ctx, &o->identity, why);
    /* This one answers 0 if all is well. */
    if (rc == 0 && c->n_alpn && SSL_CTX_set_alpn_protos(c->ctx, c->alpn, c->n_alpn) != 0)
        rc = failed(why, "ALPN");
    if (rc == 0 && !o->no_resumption)
        SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    return rc;
}

int mag_tls_context_new(struct mag_tls_context **out, const struct mag_tls_options *options,
                        bool is_server, char why[static MAG_TLS_WHY_BYTES])
{
    struct mag_tls_context *c = mag_mem_zalloc(sizeof *c);
    int rc = c ? 0 : -ENOMEM;

    *out = NULL;
    refuse(why, "out of memory");
    if (c == NULL)
        return rc;
    c->n_refs = 1;
    c->is_server = is_server;
    c->is_insecure = options->insecure;
    ERR_clear_error();
    c->ctx = make_ctx(options, is_server, &rc, why);
    if (rc == 0)
        rc = set_alpn(c, options->alpn, why);
    if (rc == 0)
        rc = is_server ? set_server(c, options, why) : set_client(c, options, why);
    ERR_clear_error();
    if (rc < 0)
        mag_tls_context_unref(c);
    else
        *out = c;
    return rc;
}

void mag_tls_context_ref(struct mag_tls_context *c)
{
    mag_fetch_add(&c->n_refs, 1);
}

void mag_tls_context_unref(struct mag_tls_context *c)
{
    if (mag_fetch_sub(&c->n_refs, 1) > 1)
        return;
    mag_tls_sessions_fini(&c->sessions);
    for (size_t i = 0; i < c->n_more; i++)
        SSL_CTX_free(c->more[i]);
    mag_mem_free(c->more);
    SSL_CTX_free(c->ctx);
    BIO_meth_free(c->bio);
    mag_mem_free(c);
}
