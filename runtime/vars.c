/* SPDX-License-Identifier: MIT */
/*
 * vars.c - task-local variables: inherited by a pointer, copied when they are set
 *
 *      parent: set A ----> [A] <------------- spawned: ext->vars, then its fiber's
 *                           ^ 3 holders             |
 *      parent: set A again: [A'] own copy           set B: [A, B] own copy
 *
 * What a task has set is one block; whoever inherits it refers to the same block, and
 * whoever sets a variable while somebody else refers to it makes a copy first.  So to spawn
 * costs a reference, and to set costs a copy at most once after each spawn.
 *
 * Invariants
 *   1. A block that more than one refers to does not change.  Only a holder can make another
 *      one, so who finds that it is the only one stays so while it writes.
 *   2. fiber->vars is what runs on the fiber now; its home's thread alone touches it.
 *   3. No variable is in a block twice; at most MAG_VARS_MAX are in it.
 *
 * Who may call: get and set the running task; the references any thread.  A search looks at
 * every entry: a few pointers in one or two cache lines.
 *
 * Rejected: a hash trie as in CPython (immutable.c there; pays for hundreds of variables,
 * and a program has three); an index in each variable (needs a registry of the process);
 * thread-locals saved and restored by every switch (all switches would pay).
 */
#include "vars.h"

#include "mem.h"
#include "misuse.h"
#include "worker.h"

#include <errno.h>
#include <string.h>

void mag_vars_free(struct mag_vars *v)
{
    mag_mem_free(v);
}

static struct mag_vars_entry *find(struct mag_vars *v, const struct mag_var *var)
{
    for (uint32_t i = 0; v && i < v->n; i++)
        if (v->list[i].var == var)
            return &v->list[i];
    return NULL;
}

/* Where the running task's, or callback's, block is; NULL: nothing of ours runs. */
static struct mag_vars **current(void)
{
    struct mag_worker *w = mag_worker_self();

    if (w == NULL)
        return NULL;
    return w->fiber ? &w->fiber->vars : w->is_calling ? &w->call_vars : NULL;
}

void *mag_var_get(const struct mag_var *var)
{
    struct mag_vars **where = current();
    const struct mag_vars_entry *e = where ? find(*where, var) : NULL;

    return e ? e->value : var->initial;
}

/* A block of this task alone, with what the old one holds and room for `more'; the reference
 * to the old one is given up. */
static struct mag_vars *copy(struct mag_vars *old, uint32_t more)
{
    uint32_t n = old ? old->n : 0;
    struct mag_vars *v = mag_mem_alloc(sizeof *v + (n + more) * sizeof v->list[0]);

    if (v == NULL)
        return NULL;
    mag_store_relaxed(&v->n_refs, 1);
    v->n = n;
    if (old)
        memcpy(v->list, old->list, n * sizeof v->list[0]);
    mag_vars_unref(old);
    return v;
}

static int set(struct mag_vars **where, const struct mag_var *var, void *value)
{
    struct mag_vars *v = *where;
    struct mag_vars_entry *e = find(v, var);

    if (e == NULL && v && v->n == MAG_VARS_MAX)
        return -ENOSPC;
    if (e == NULL || mag_load_acquire(&v->n_refs) != 1) {
        v = copy(v, e == NULL);
        if (v == NULL)
            return -ENOMEM;
        e = e ? find(v, var) : &v->list[v->n++];
        *where = v;
    }
    *e = (struct mag_vars_entry){ var, value };
    return 0;
}

int mag_var_set(const struct mag_var *var, void *value)
{
    struct mag_vars **where = current();

    if (var == NULL)
        return mag_misuse(-EINVAL, "mag_var_set(): no variable (NULL)");
    if (where == NULL)
        return mag_misuse(-ENXIO,
                          "mag_var_set(): '%s' is set outside a task: what it would "
                          "belong to does not exist; set it in the first task",
                          var->name ? var->name : "?");
    return set(where, var, value);
}
