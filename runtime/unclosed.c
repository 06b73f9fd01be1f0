/* SPDX-License-Identifier: MIT */
/*
 * unclosed.c - debug mode: what was opened and not closed
 *
 * A descriptor that nobody closes is found late, when there are no more: so in debug mode
 * each one is on a list, with where it was opened, until it is closed.  The list is known by
 * the descriptor's number, which is one file's at a time, while the user may move the handle.
 *
 * Who may call: any thread.  The lock is held for a walk of the list, which is short in a
 * program that closes its files.
 */
#include "unclosed.h"

#include "atomic.h"
#include "check.h"
#include "mem.h"
#include "symbol.h"

struct entry {
    struct entry *next; /* [lock] */
    int fd;             /* [const] this too, and the rest */
    const char *what;
    const void *rt, *made_at;
    char name[128];
};

static struct {
    struct mag_spin lock;
    mag_atomic(struct entry *) first; /* [lock] newest first; read without it: any at all? */
} open_now;

void mag_unclosed_add(int fd, const char *what, const char *name, const void *rt,
                      const void *made_at)
{
    struct entry *e = mag_mem_alloc(sizeof *e);

    if (e == NULL)
        return;
    e->fd = fd;
    e->what = what;
    e->rt = rt;
    e->made_at = made_at;
    (void)mag_check_text(e->name, sizeof e->name, "%s", name);
    mag_spin_lock(&open_now.lock);
    e->next = open_now.first;
    mag_store_relaxed(&open_now.first, e); /* a release build looks without the lock */
    mag_spin_unlock(&open_now.lock);
}

/* Takes the first off for which fits() holds; NULL: there is none. */
static struct entry *take(bool (*fits)(const struct entry *e, const void *arg), const void *arg)
{
    mag_atomic(struct entry *) *at = &open_now.first;
    struct entry *found;

    mag_spin_lock(&open_now.lock);
    while (*at && !fits(*at, arg))
        at = &(*at)->next;
    found = *at;
    if (found)
        *at = found->next;
    mag_spin_unlock(&open_now.lock);
    return found;
}

static bool is_fd(const struct entry *e, const void *fd)
{
    return e->fd == *(const int *)fd;
}

static bool is_of(const struct entry *e, const void *rt)
{
    return e->rt == rt;
}

void mag_unclosed_remove(int fd)
{
    /* relaxed: who closes a file knows that it was opened */
    if (mag_load_relaxed(&open_now.first))
        mag_mem_free(take(is_fd, &fd));
}

unsigned mag_unclosed_report(const void *rt, void (*line)(void *arg, const char *text), void *arg)
{
    char place[160], text[384];
    struct entry *e;
    unsigned n = 0;

    for (; (e = take(is_of, rt)) != NULL; n++) {
        mag_symbol_name(e->made_at, place, sizeof place);
        (void)mag_check_text(text, sizeof text,
                             "%s '%s' (descriptor %d) was never closed (opened at "
                             "%s)",
                             e->what, e->name, e->fd, place);
        line(arg, text);
        mag_mem_free(e);
    }
    return n;
}
