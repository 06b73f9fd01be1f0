/* SPDX-License-Identifier: MIT */
/*
 * tls_why.c - what OpenSSL's error queue says, as an errno and a sentence
 *
 * OpenSSL keeps what went wrong in a queue of the thread, the cause first and then who passed
 * it on.  A task may be on another thread after its next suspension, so the queue is read and
 * emptied before that, right after the call.
 *
 *      an error of the system           its errno                      "No such file or directory"
 *      no memory                        -ENOMEM
 *      the certificate was refused      -EKEYREJECTED                  why, and for which names
 *      an alert of the peer's           -EKEYREJECTED if it is         "the peer says: ..."
 *                                       about a certificate, or -EPROTO
 *      anything else                    what the caller says
 *
 * Who may call: whoever has just called OpenSSL and not suspended since.
 *
 * Sources: ERR_get_error(3); SSL_get_verify_result(3); RFC 8446, 6.2.
 */
#include "tls_why.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum {
    ALERT = 1000, /* SSL_AD_REASON_OFFSET: alerts among the reasons */
    NAMES_MAX = 4,
};

static void say(char *text, const char *what)
{
    snprintf(text, MAG_TLS_WHY_BYTES, "%s", what ? what : "unknown error");
}

/* ---- certificates ----------------------------------------------------------------- */

int mag_tls_subject(const X509 *certificate, char *buf, size_t room)
{
    BIO *memory = BIO_new(BIO_s_mem());
    int n = 0;

    buf[0] = '\0';
    if (memory &&
        X509_NAME_print_ex(memory, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0)
        n = BIO_read(memory, buf, (int)(room < INT32_MAX ? room : INT32_MAX) - 1);
    n = n > 0 ? n : 0;
    buf[n] = '\0';
    BIO_free(memory);
    ERR_clear_error();
    return n;
}

/* Adds the names that a certificate is for. */
static void add_names(char *text, X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    size_t n = strlen(text);

    for (int i = 0, told = 0; i < sk_GENERAL_NAME_num(names) && told < NAMES_MAX; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS || n >= MAG_TLS_WHY_BYTES)
            continue;
        n += (size_t)snprintf(text + n, MAG_TLS_WHY_BYTES - n, "%s%.*s", told++ ? ", " : "",
                              ASN1_STRING_length(name->d.dNSName),
                              (const char *)ASN1_STRING_get0_data(name->d.dNSName));
    }
    if (names == NULL)
        mag_tls_subject(certificate, text + n, MAG_TLS_WHY_BYTES - n);
    GENERAL_NAMES_free(names);
}

void mag_tls_why_refused(char text[static MAG_TLS_WHY_BYTES], int error, X509 *certificate,
                         const char *name)
{
    bool is_name = error == X509_V_ERR_HOSTNAME_MISMATCH;

    say(text, X509_verify_cert_error_string(error));
    if (certificate == NULL || (!is_name && error != X509_V_ERR_IP_ADDRESS_MISMATCH))
        return;
    snprintf(text, MAG_TLS_WHY_BYTES, "%s mismatch: '%.80s' was wanted, the certificate is for ",
             is_name ? "host name" : "IP address", name);
    add_names(text, certificate);
}

/* ---- the queue -------------------------------------------------------------------- */

static bool is_about_certificates(int alert)
{
    return (alert >= SSL_AD_NO_CERTIFICATE && alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
           alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_ACCESS_DENIED ||
           alert == SSL_AD_CERTIFICATE_REQUIRED;
}

MAG_STATIC_ASSERT(SSL_AD_BAD_CERTIFICATE == SSL_AD_NO_CERTIFICATE + 1);

static int why_alert(char *text, int alert)
{
    /* OpenSSL 3.0 has no text for this one. */
    snprintf(text, MAG_TLS_WHY_BYTES, "the peer says: %s",
             alert == SSL_AD_CERTIFICATE_REQUIRED ? "certificate required"
                                                  : SSL_alert_desc_string_long(alert));
    return is_about_certificates(alert) ? -EKEYREJECTED : -EPROTO;
}

static int why_ssl(char *text, const char *refused, int reason, int otherwise)
{
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && refused) {
        say(text, refused);
        return -EKEYREJECTED;
    }
    if (reason > ALERT && reason < ALERT + 256)
        return why_alert(text, reason - ALERT);
    if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST)
        say(text, "what the peer sends is not TLS");
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        say(text, "the peer has shown no certificate");
        return -EKEYREJECTED;
    }
    return otherwise;
}

static int why_x509(int reason, int otherwise)
{
    return reason == X509_R_KEY_VALUES_MISMATCH || reason == X509_R_KEY_TYPE_MISMATCH
               ? -EKEYREJECTED
               : otherwise;
}

static int why_one(char *text, unsigned long error, const char *refused, int otherwise)
{
    int reason = ERR_GET_REASON(error);

    if (ERR_SYSTEM_ERROR(error)) {
        say(text, mag_err_text(-reason));
        return reason > 0 ? -reason : otherwise;
    }
    say(text, ERR_reason_error_string(error));
    if (ERR_GET_LIB(error) == ERR_LIB_SSL)
        return why_ssl(text, refused, reason, otherwise);
    return ERR_GET_LIB(error) == ERR_LIB_X509 ? why_x509(reason, otherwise) : otherwise;
}

int mag_tls_why(char text[static MAG_TLS_WHY_BYTES], const char *refused, int otherwise)
{
    unsigned long error = ERR_get_error(), later;
    bool has_no_memory = ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE;
    int rc = otherwise;

    if (error)
        rc = why_one(text, error, refused, otherwise);
    else
        say(text, mag_err_text(otherwise));
    while ((later = ERR_get_error()) != 0)
        has_no_memory |= ERR_GET_REASON(later) == ERR_R_MALLOC_FAILURE;
    if (has_no_memory) {
        say(text, mag_err_text(-ENOMEM));
        rc = -ENOMEM;
    }
    return rc;
}
