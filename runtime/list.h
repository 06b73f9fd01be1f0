/* SPDX-License-Identifier: MIT */
#ifndef MAG_LIST_H
#define MAG_LIST_H
/*
 * list.h - intrusive list and FIFO
 *
 * The links live inside the thing that is listed, so that to queue a task never
 * allocates and never fails.  Two shapes, chosen by what the caller must do:
 *
 *      struct mag_list       a ring through its own head; anything can leave
 *                            from the middle in O(1), without naming the list
 *
 *          head <-> a <-> b <-> c <-> head         an empty list is its own ring
 *
 *      struct mag_fifo       one pointer an element; leaves only at the front
 *
 *          head -> a -> b -> c -> NULL,  tail -> c,  count = 3
 *
 * Invariants
 *   1. For each link of a list: l->next->prev == l and l->prev->next == l.  A link
 *      that was removed is its own ring, so removing it again does nothing and
 *      mag_list_empty(link) answers "is it on no list?".
 *   2. A fifo is empty exactly when head == NULL, tail == NULL and count == 0.  A
 *      node on no fifo has no defined `next'.
 *
 * Nothing here is atomic: a list belongs to one thread, or to the holder of the
 * lock that its owner names.
 */
#include "base.h"

/* ---- doubly linked --------------------------------------------------------- */

struct mag_list {
    struct mag_list *next; /* [owner] the first element, or in an element the next */
    struct mag_list *prev; /* [owner] the last element, or in an element the previous */
};

static inline void mag_list_init(struct mag_list *l)
{
    l->next = l;
    l->prev = l;
}

/* True for a head without elements, and for an element that is on no list. */
static inline bool mag_list_empty(const struct mag_list *l)
{
    return l->next == l;
}

static inline void mag_list_insert_between(struct mag_list *link, struct mag_list *before,
                                           struct mag_list *after)
{
    link->prev = before;
    link->next = after;
    before->next = link;
    after->prev = link;
}

static inline void mag_list_push_back(struct mag_list *head, struct mag_list *link)
{
    mag_list_insert_between(link, head->prev, head);
}

static inline void mag_list_push_front(struct mag_list *head, struct mag_list *link)
{
    mag_list_insert_between(link, head, head->next);
}

/* Leaves the link initialised: to remove it twice is harmless. */
static inline void mag_list_remove(struct mag_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    mag_list_init(link);
}

/* The first element, or NULL. */
static inline struct mag_list *mag_list_first(const struct mag_list *head)
{
    return head->next == head ? NULL : head->next;
}

/* The element after `link', or NULL. */
static inline struct mag_list *mag_list_next(const struct mag_list *head,
                                             const struct mag_list *link)
{
    return link->next == head ? NULL : link->next;
}

/* Takes the first element off, or answers NULL. */
static inline struct mag_list *mag_list_pop_front(struct mag_list *head)
{
    struct mag_list *link = mag_list_first(head);

    if (link)
        mag_list_remove(link);
    return link;
}

/* `it' may be removed in the body; no other element may be. */
#define mag_list_foreach(it, head) \
    for (struct mag_list *it = (head)->next, *it##_next = it->next; it != (head); \
         it = it##_next, it##_next = it->next)

/* ---- singly linked FIFO ---------------------------------------------------- */

struct mag_fifo_node {
    struct mag_fifo_node *next; /* [owner] towards the tail; NULL in the last */
};

struct mag_fifo {
    struct mag_fifo_node *head; /* [owner] leaves next */
    struct mag_fifo_node *tail; /* [owner] came last */
    size_t count;               /* [owner] */
};

static inline void mag_fifo_init(struct mag_fifo *f)
{
    f->head = NULL;
    f->tail = NULL;
    f->count = 0;
}

static inline bool mag_fifo_empty(const struct mag_fifo *f)
{
    return f->head == NULL;
}

static inline void mag_fifo_push_back(struct mag_fifo *f, struct mag_fifo_node *n)
{
    n->next = NULL;
    if (f->tail)
        f->tail->next = n;
    else
        f->head = n;
    f->tail = n;
    f->count++;
}

static inline void mag_fifo_push_front(struct mag_fifo *f, struct mag_fifo_node *n)
{
    n->next = f->head;
    f->head = n;
    if (!f->tail)
        f->tail = n;
    f->count++;
}

/* The oldest node, or NULL. */
static inline struct mag_fifo_node *mag_fifo_pop_front(struct mag_fifo *f)
{
    struct mag_fifo_node *n = f->head;

    if (!n)
        return NULL;
    f->head = n->next;
    if (!f->head)
        f->tail = NULL;
    f->count--;
    return n;
}

/* Moves everything in `from' behind everything in `to', in O(1). */
static inline void mag_fifo_splice(struct mag_fifo *to, struct mag_fifo *from)
{
    if (!from->head)
        return;
    if (to->tail)
        to->tail->next = from->head;
    else
        to->head = from->head;
    to->tail = from->tail;
    to->count += from->count;
    mag_fifo_init(from);
}

#endif
