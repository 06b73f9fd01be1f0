/* SPDX-License-Identifier: MIT */
#ifndef MAG_STREAM_CONNECT_H
#define MAG_STREAM_CONNECT_H
/*
 * stream_connect.h - connecting to the first of several addresses that answers
 */
#include <magpie/stream.h>

struct addrinfo;

/* Addresses of one host that are tried; what is beyond is not. */
enum { MAG_CONNECT_ADDRESSES_MAX = 16 };

/*
 * A connected socket, or the error of the first address: -EADDRNOTAVAIL without any.  `options'
 * may be NULL; of these, attempt_delay and the local address count.  Suspends; cancellation
 * point.
 */
int mag_connect_to_first(const struct addrinfo *list, const struct mag_connect_options *options);

#endif
