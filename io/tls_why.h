/* SPDX-License-Identifier: MIT */
#ifndef MAG_TLS_WHY_H
#define MAG_TLS_WHY_H
/*
 * tls_why.h - what OpenSSL's error queue says, as an errno and a sentence
 */
#include "base.h"

#include <openssl/ssl.h>

enum { MAG_TLS_WHY_BYTES = 256 };

/*
 * Right after a call of OpenSSL that failed, on the same thread: -errno, a sentence in `text', and
 * the queue is empty.  `refused' (may be NULL) is what a certificate was refused for.  `otherwise'
 * is the answer where the queue says nothing that has one of its own.
 */
int mag_tls_why(char text[static MAG_TLS_WHY_BYTES], const char *refused, int otherwise);

/*
 * Why a certificate is refused: X509_V_ERR_..., and the name that it was to be for.
 */
void mag_tls_why_refused(char text[static MAG_TLS_WHY_BYTES], int error, X509 *certificate,
                         const char *name);

/* "CN=localhost,O=Example": its length, terminated, cut to `room'; 0: there is none. */
int mag_tls_subject(const X509 *certificate, char *buf, size_t room);

#endif
