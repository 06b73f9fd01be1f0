/* SPDX-License-Identifier: MIT */
#ifndef MAG_HTTP_SEND_H
#define MAG_HTTP_SEND_H
/*
 * http_send.h - answers: composing and sending them
 */
#include "http_exchange.h"

/* Sends all that has been composed.  Suspends; cancellation point. */
int mag_http_out_flush(struct mag_http_conn *c);

/* The same for answers that are there, within whatever limit the caller is in. */
int mag_http_out_send(struct mag_http_conn *c);

/* Appends bytes that go out as they are. */
int mag_http_out_put(struct mag_http_conn *c, const char *bytes, size_t n);

/* Answers in the server's own words; the connection ends after it. */
int mag_http_refuse(struct mag_http_conn *c, int status);

/* Forgets the answer, for the next request. */
void mag_http_answer_reset(struct mag_http_conn *c);

#endif
