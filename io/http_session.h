/* SPDX-License-Identifier: MIT */
#ifndef MAG_HTTP_SESSION_H
#define MAG_HTTP_SESSION_H
/*
 * http_session.h - the life of a connection: requests, one after the other
 */
#include "http_exchange.h"

/* What connections tell: from time to time, and at their end. */
struct mag_http_counts {
    uint32_t n_requests, n_refused, n_aborted;
};
typedef void mag_http_tell(void *arg, const struct mag_http_counts *counts);

/* Serves a connection to its end.  0, or why it ended; the caller closes the stream.  Suspends;
 * cancellation point. */
int mag_http_session(struct mag_stream *s, const struct mag_http_config *config,
                     mag_http_tell *tell, void *tell_arg);

#endif
