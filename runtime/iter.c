/* SPDX-License-Identifier: MIT */
/*
 * iter.c - iterators by hand, and the exit stack
 *
 * Both end with code of the user's that must run whatever has happened and may suspend: it is
 * called in a shield (scope.h), where there is a task that could be cancelled.
 *
 * An exit stack keeps its first entries in itself, which is all that most of them have, and
 * then in blocks from the heap, newest first:
 *
 *      struct exits { inside: 5 entries } -> block of 30 -> block of 30 -> NULL
 *                     oldest                 newest
 *
 * Who may call: its owner.
 */
#include "mem.h"
#include "scope.h"

#include <errno.h>

#include <magpie/iter.h>

static bool shield(struct mag_scope *s)
{
    return mag_fiber_self() != NULL && mag_shield_enter(s, MAG_NEVER, NULL) == 0;
}

static void unshield(struct mag_scope *s, bool is_shielded)
{
    if (is_shielded)
        (void)mag_scope_leave(s, 0);
}

/* ---- iterators ------------------------------------------------------------------------ */

struct mag_iter mag_iter_of(int (*next)(void *self, void *out), void *self)
{
    return (struct mag_iter){ next, NULL, self };
}

int mag_iter_next(struct mag_iter *it, void *out)
{
    return it->next ? it->next(it->self, out) : -EINVAL;
}

void mag_iter_close(struct mag_iter *it)
{
    void (*end)(void *self) = it->close;
    struct mag_scope s;
    bool is_shielded;

    it->next = NULL;
    it->close = NULL;
    if (end == NULL)
        return;
    is_shielded = shield(&s);
    end(it->self);
    unshield(&s, is_shielded);
}

/* ---- exit stack -------------------------------------------------------------------------- */

enum { INSIDE = 5, IN_BLOCK = 30 };

struct exit {
    void (*fn)(void *arg);
    void *arg;
};

struct block {
    struct block *older;
    struct exit exits[IN_BLOCK];
};

struct exits {
    size_t n;             /* in `newest', or inside  */
    struct block *newest; /* NULL: all are inside    */
    struct exit inside[INSIDE];
};

MAG_STATIC_ASSERT(sizeof(struct exits) <= sizeof(struct mag_exit_stack));

static struct exits *exits_of(struct mag_exit_stack *st)
{
    return (struct exits *)st;
}

int mag_exit_stack_enter(struct mag_exit_stack *st)
{
    *exits_of(st) = (struct exits){ .n = 0 };
    return 0;
}

int mag_exit_stack_push(struct mag_exit_stack *st, void (*fn)(void *arg), void *arg)
{
    struct exits *e = exits_of(st);
    struct block *b = e->newest;

    if (e->n == (b ? IN_BLOCK : INSIDE)) {
        b = mag_mem_alloc(sizeof *b);
        if (b == NULL)
            return -ENOMEM;
        b->older = e->newest;
        e->newest = b;
        e->n = 0;
    }
    (b ? b->exits : e->inside)[e->n++] = (struct exit){ fn, arg };
    return 0;
}

/* The last one pushed; false if there is none. */
static bool pop(struct exits *e, struct exit *out)
{
    struct block *b = e->newest;

    if (e->n == 0 && b) {
        e->newest = b->older;
        mag_mem_free(b);
        b = e->newest;
        e->n = b ? IN_BLOCK : INSIDE;
    }
    if (e->n == 0)
        return false;
    *out = (b ? b->exits : e->inside)[--e->n];
    return true;
}

int mag_exit_stack_pop_all(struct mag_exit_stack *st, struct mag_exit_stack *to)
{
    if (exits_of(to)->n || exits_of(to)->newest)
        return -EINVAL;
    *to = *st;
    return mag_exit_stack_enter(st);
}

void mag_exit_stack_exit(struct mag_exit_stack *st)
{
    struct mag_scope s;
    struct exit exit;
    bool is_shielded = shield(&s);

    while (pop(exits_of(st), &exit))
        exit.fn(exit.arg);
    unshield(&s, is_shielded);
}
