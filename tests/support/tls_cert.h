/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_TLS_CERT_H
#define MAG_TESTS_TLS_CERT_H
/*
 * tls_cert.h - an authority, and certificates by it, made when the test runs
 *
 *      struct tls_certs t;
 *      tls_certs_make(&t);         PEM texts: t.ca, and for each of t.good, .expired, .early, .other,
 *                                  .stranger, .client: .cert and .key
 *      tls_certs_free(&t);
 *
 *      good        localhost, *.good.example, 127.0.0.1, ::1
 *      expired     the same, until a day ago;  early: from tomorrow on
 *      other       other.example
 *      stranger    localhost, but by an authority that nobody knows
 *      client      CN=a client
 *
 * Keys are of P-256: made in microseconds.
 */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tls_cert {
    char *cert, *key; /* PEM */
    X509 *x;
    EVP_PKEY *pkey;
};

struct tls_certs {
    char *ca; /* of root */
    struct tls_cert root, good, expired, early, other, stranger, stranger_root, client;
};

static inline char *tls_text_of(BIO *b)
{
    char *data, *text;
    long n = BIO_get_mem_data(b, &data);

    text = calloc(1, (size_t)n + 1);
    if (text == NULL)
        abort();
    memcpy(text, data, (size_t)n);
    BIO_free(b);
    return text;
}

static inline void tls_extend(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (e == NULL || X509_add_ext(x, e, -1) != 1)
        abort();
    X509_EXTENSION_free(e);
}

/* `alt': as in openssl.cnf; NULL: none.  Valid from so many days from now to so many. */
static inline void tls_cert_make(struct tls_cert *c, const struct tls_cert *by, const char *name,
                                 const char *alt, int from_day, int to_day)
{
    static long serial = 1000;
    const int day = 24 * 3600;
    BIO *b;

    c->pkey = EVP_EC_gen("P-256");
    c->x = X509_new();
    X509_set_version(c->x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c->x), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(c->x), (long)from_day * day);
    X509_gmtime_adj(X509_getm_notAfter(c->x), (long)to_day * day);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c->x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(c->x, X509_get_subject_name(by ? by->x : c->x));
    X509_set_pubkey(c->x, c->pkey);
    if (by == NULL)
        tls_extend(c->x, c->x, NID_basic_constraints, "critical,CA:TRUE");
    if (alt)
        tls_extend(c->x, by ? by->x : c->x, NID_subject_alt_name, alt);
    if (X509_sign(c->x, by ? by->pkey : c->pkey, EVP_sha256()) <= 0)
        abort();
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(b, c->x);
    c->cert = tls_text_of(b);
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(b, c->pkey, NULL, NULL, 0, NULL, NULL);
    c->key = tls_text_of(b);
}

static inline void tls_certs_make(struct tls_certs *t)
{
    const char *local = "DNS:localhost,DNS:*.good.example,IP:127.0.0.1,IP:::1";

    memset(t, 0, sizeof *t);
    tls_cert_make(&t->root, NULL, "an authority", NULL, -10, 100);
    tls_cert_make(&t->good, &t->root, "localhost", local, -1, 10);
    tls_cert_make(&t->expired, &t->root, "localhost", local, -9, -1);
    tls_cert_make(&t->early, &t->root, "localhost", local, 1, 9);
    tls_cert_make(&t->other, &t->root, "other.example", "DNS:other.example", -1, 10);
    tls_cert_make(&t->stranger_root, NULL, "nobody knows", NULL, -10, 100);
    tls_cert_make(&t->stranger, &t->stranger_root, "localhost", local, -1, 10);
    tls_cert_make(&t->client, &t->root, "a client", NULL, -1, 10);
    t->ca = t->root.cert;
}

static inline void tls_certs_free(struct tls_certs *t)
{
    struct tls_cert *all[] = { &t->root,  &t->good,     &t->expired,       &t->early,
                               &t->other, &t->stranger, &t->stranger_root, &t->client };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]->cert);
        free(all[i]->key);
        X509_free(all[i]->x);
        EVP_PKEY_free(all[i]->pkey);
    }
}

/* Writes a text into DIR/NAME. */
static inline bool tls_write_file(const char *dir, const char *name, const char *text)
{
    char path[400];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    return f && fputs(text, f) >= 0 && fclose(f) == 0;
}

#endif
