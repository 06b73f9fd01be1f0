/* SPDX-License-Identifier: MIT */
#ifndef MAG_TLS_SESSIONS_H
#define MAG_TLS_SESSIONS_H
/*
 * tls_sessions.h - the sessions that a client has had, to go on from
 */
#include "atomic.h"

#include <openssl/ssl.h>

enum {
    MAG_TLS_SESSIONS_DEFAULT = 256,
    MAG_TLS_SESSIONS_PER_PEER = 4, /* tickets: each is good for one connection */
    MAG_TLS_PEER_BYTES = 300,      /* "name:port"; a longer one is not kept */
};

struct mag_tls_kept {
    char *peer; /* NULL: free */
    SSL_SESSION *session;
    uint64_t turn; /* greater: newer */
};

struct mag_tls_sessions {
    struct mag_spin lock;
    unsigned n;                /* [const] room */
    struct mag_tls_kept *kept; /* [lock] */
    uint64_t turn;             /* [lock] */
};

/* Room for so many (0: none are kept): 0 or -ENOMEM. */
int mag_tls_sessions_init(struct mag_tls_sessions *s, unsigned n);
void mag_tls_sessions_fini(struct mag_tls_sessions *s);

/* Keeps a session, and takes the caller's reference: true; or not.  Any thread. */
bool mag_tls_sessions_put(struct mag_tls_sessions *s, const char *peer, SSL_SESSION *session);

/* The newest for that peer, with a reference for the caller; NULL: none.  Any thread. */
SSL_SESSION *mag_tls_sessions_take(struct mag_tls_sessions *s, const char *peer);

#endif
