/* SPDX-License-Identifier: MIT */
/*
 * inbox.c - a queue that anybody may fill and whoever empties it empties whole
 *
 * A stack of nodes whose head is swung by compare-and-swap.  The taker exchanges
 * the head for NULL, owns all that was there, and turns the list round, so that
 * tasks run in the order in which they came (asyncio's call_soon_threadsafe is
 * FIFO too, and programs rely on it).
 *
 *     push d:   head -> d -> c -> b -> a        take:   head -> NULL
 *                                               answer: a -> b -> c -> d
 *
 * Invariants
 *   1. A node is reachable from head, or from one taker's list, never both.
 *   2. The order of one producer's nodes is kept; the order between producers is
 *      that of their compare-and-swaps.
 *
 * Ordering.  A push publishes the node's contents to whoever takes it; how many
 * pushes lie in between does not matter, since each is a read-modify-write of the
 * same word.  Both are sequentially consistent besides, for the sleep protocol:
 *
 *     producer                               sleeper
 *     1. push              (seq)             1. store "I sleep", full fence
 *     2. load "sleeping"?  (seq, or fenced)  2. mag_inbox_empty_seq
 *     3. if so, wake it                      3. sleep if it is empty
 *
 * so at least one of them sees the other.  Of many producers only the one whose
 * push answered true needs to wake: the nodes that follow lie on top of a node
 * whose pusher is about to.
 *
 * Progress.  A push is repeated only when another push or a take succeeded in
 * between.  There is no ABA: push does not look into the old head, and nobody takes
 * a single node.
 *
 * Rejected: a linked FIFO with a stub node (Vyukov): a producer stopped between its
 * two steps hides everything behind it, and the sleeper's check sees a queue neither
 * empty nor readable.  A bounded ring: push could fail.  A lock: a producer that
 * loses its processor would stop the worker.
 */
#include "inbox.h"

void mag_inbox_init(struct mag_inbox *q)
{
    /* relaxed: whoever shares the inbox afterwards publishes it */
    mag_store_relaxed(&q->head, NULL);
}

bool mag_inbox_push(struct mag_inbox *q, struct mag_inbox_node *node)
{
    /* relaxed: a guess, which the exchange verifies */
    struct mag_inbox_node *old = mag_load_relaxed(&q->head);
    do
        node->next = old;
    while (!mag_cas_seq(&q->head, &old, node));
    return old == NULL;
}

struct mag_inbox_node *mag_inbox_take(struct mag_inbox *q)
{
    struct mag_inbox_node *newest = mag_xchg_seq(&q->head, NULL);
    struct mag_inbox_node *oldest = NULL;
    while (newest) {
        struct mag_inbox_node *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}
