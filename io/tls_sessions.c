/* SPDX-License-Identifier: MIT */
/*
 * tls_sessions.c - the sessions that a client has had, to go on from
 *
 * A session is kept under the name that was checked and the port, so it is never offered to a
 * peer that this name was not proved by.  In TLS 1.3 a ticket is taken out when it is used: two
 * connections with one ticket could be told to be the same client's (RFC 8446, C.4); servers send
 * two or more, and a few are kept for each peer.  In TLS 1.2 a session is used again and again.
 *
 * A table that is searched from end to end: some hundred comparisons are 1 us, beside a handshake
 * of a hundred, and there is no second structure for what is oldest.
 *
 * Invariants
 *   1. Who puts more than PER_PEER for one peer, or more than there is room for, replaces the
 *      oldest of that peer's, or of all.
 *   2. Nothing is freed, and OpenSSL is not called but for a reference, while the lock is held.
 *
 * Rejected: OpenSSL's own cache (it is the servers': keyed by session identifiers, which a
 * client cannot know).
 */
#include "tls_sessions.h"

#include "mem.h"

#include <errno.h>
#include <string.h>

int mag_tls_sessions_init(struct mag_tls_sessions *s, unsigned n)
{
    *s = (struct mag_tls_sessions){ .n = n };
    if (n == 0)
        return 0;
    s->kept = mag_mem_zalloc(n * sizeof *s->kept);
    return s->kept ? 0 : -ENOMEM;
}

static void drop(struct mag_tls_kept *kept)
{
    mag_mem_free(kept->peer);
    SSL_SESSION_free(kept->session);
}

void mag_tls_sessions_fini(struct mag_tls_sessions *s)
{
    for (unsigned i = 0; s->kept && i < s->n; i++)
        drop(&s->kept[i]);
    mag_mem_free(s->kept);
}

static bool is_of(const struct mag_tls_kept *kept, const char *peer)
{
    return kept->peer && strcmp(kept->peer, peer) == 0;
}

/* Where a new one for that peer goes: invariant 1. */
static struct mag_tls_kept *place_for(struct mag_tls_sessions *s, const char *peer, unsigned most)
{
    struct mag_tls_kept *oldest = &s->kept[0], *oldest_of_peer = NULL;
    unsigned n_of_peer = 0;

    for (struct mag_tls_kept *k = s->kept; k < s->kept + s->n; k++) {
        if (k->turn < oldest->turn)
            oldest = k;
        if (!is_of(k, peer))
            continue;
        n_of_peer++;
        if (oldest_of_peer == NULL || k->turn < oldest_of_peer->turn)
            oldest_of_peer = k;
    }
    return n_of_peer >= most ? oldest_of_peer : oldest;
}

static bool is_ticket_for_one(const SSL_SESSION *session)
{
    return SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION;
}

bool mag_tls_sessions_put(struct mag_tls_sessions *s, const char *peer, SSL_SESSION *session)
{
    unsigned most = is_ticket_for_one(session) ? MAG_TLS_SESSIONS_PER_PEER : 1;
    size_t bytes = strlen(peer) + 1;
    struct mag_tls_kept *place, old;
    char *copy;

    if (s->n == 0 || !SSL_SESSION_is_resumable(session))
        return false;
    copy = mag_mem_alloc(bytes);
    if (copy == NULL)
        return false;
    memcpy(copy, peer, bytes);
    mag_spin_lock(&s->lock);
    place = place_for(s, peer, most);
    old = *place;
    *place = (struct mag_tls_kept){ copy, session, ++s->turn };
    mag_spin_unlock(&s->lock);
    drop(&old);
    return true;
}

SSL_SESSION *mag_tls_sessions_take(struct mag_tls_sessions *s, const char *peer)
{
    struct mag_tls_kept *newest = NULL, out = { 0 };
    SSL_SESSION *session = NULL;

    mag_spin_lock(&s->lock);
    for (struct mag_tls_kept *k = s->kept; k < s->kept + s->n; k++)
        if (is_of(k, peer) && (newest == NULL || k->turn > newest->turn))
            newest = k;
    if (newest) {
        session = newest->session;
        if (is_ticket_for_one(session)) {
            out = *newest;
            *newest = (struct mag_tls_kept){ 0 };
        } else {
            SSL_SESSION_up_ref(session);
        }
    }
    mag_spin_unlock(&s->lock);
    mag_mem_free(out.peer);
    return session;
}
