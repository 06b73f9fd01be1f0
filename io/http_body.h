/* SPDX-License-Identifier: MIT */
#ifndef MAG_HTTP_BODY_H
#define MAG_HTTP_BODY_H
/*
 * http_body.h - the body of a request
 */
#include "http_exchange.h"

/* Before the first read: takes from the stream what is done with. */
void mag_http_take(struct mag_http_conn *c);

/* Reads away what the handler has left of the body, if it is little: whether nothing is left. */
bool mag_http_discard(struct mag_http_conn *c);

#endif
