/* SPDX-License-Identifier: MIT */
#ifndef MAG_INBOX_H
#define MAG_INBOX_H
/*
 * inbox.h - a queue that anybody may fill and whoever empties it empties whole
 *
 * What reaches a worker from outside (tasks submitted by foreign threads, tasks
 * made ready by other workers, cancels for its timers) arrives here.  The nodes
 * are part of the caller's objects, so nothing is allocated and push cannot fail.
 *
 * Who may call: push, empty and empty_seq any thread; take any thread too, also
 * several at once: each gets a list of its own, every node is in exactly one.
 * Signal handlers may push.  inbox.c tells how it works and how a sleeper uses it.
 */
#include "atomic.h"

struct mag_inbox_node {
    struct mag_inbox_node *next; /* [inbox] while pushed; then of the taker */
};

struct mag_inbox {
    mag_atomic(struct mag_inbox_node *) head; /* [any] newest node; NULL when empty */
};

void mag_inbox_init(struct mag_inbox *q);

/* Adds node; true if the inbox was empty, so that one of many pushers wakes. */
bool mag_inbox_push(struct mag_inbox *q, struct mag_inbox_node *node);

/* Everything there is, linked by next, oldest first; NULL when empty. */
struct mag_inbox_node *mag_inbox_take(struct mag_inbox *q);

/*
 * A hint whether a take is worth its exchange.  relaxed: a node that it misses is
 * seen by a later call, or by empty_seq before the worker sleeps.
 */
static inline bool mag_inbox_empty(const struct mag_inbox *q)
{
    return mag_load_relaxed(&q->head) == NULL;
}

/* The last look before sleeping, after "I sleep" was stored and fenced. */
static inline bool mag_inbox_empty_seq(const struct mag_inbox *q)
{
    return mag_load_seq(&q->head) == NULL;
}

#endif
