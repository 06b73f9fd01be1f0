/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_HTTP_H
#define MAGPIE_HTTP_H
/*
 * http.h - what the HTTP client and the HTTP server have in common: a field
 *
 * Lists of fields end with one whose name is NULL.
 */

#ifdef __cplusplus
extern "C" {
#endif

/* A header field, a form field, a field of a query. */
struct mag_http_field {
    const char *name, *value;
};

#ifdef __cplusplus
}
#endif
#endif
