/* SPDX-License-Identifier: MIT */
#ifndef MAG_VARS_H
#define MAG_VARS_H
/*
 * vars.h - the task-local variables of a task: one block, shared until somebody writes
 *
 *      fiber->vars  --> { n_refs, n, [var, value]... }   what runs on the fiber now
 *      task->ext->vars --^                               what a spawned task begins with
 *
 * NULL is no variable set, which costs nothing but the looks at NULL.  vars.c has the rest.
 */
#include "task.h"

#include <magpie/vars.h>

struct mag_vars_entry {
    const struct mag_var *var;
    void *value;
};

/* Not changed while anybody else refers to it. */
struct mag_vars {
    mag_atomic(uint32_t) n_refs; /* [any] */
    uint32_t n;                  /* [const; the only holder] */
    struct mag_vars_entry list[];
};

/* One holder more.  NULL for NULL.  Any thread. */
static inline struct mag_vars *mag_vars_ref(struct mag_vars *v)
{
    if (MAG_UNLIKELY(v != NULL))
        mag_fetch_add(&v->n_refs, 1);
    return v;
}

/* One holder less; the last frees.  Any thread. */
void mag_vars_free(struct mag_vars *v);

static inline void mag_vars_unref(struct mag_vars *v)
{
    if (MAG_UNLIKELY(v != NULL) && mag_fetch_sub(&v->n_refs, 1) == 1)
        mag_vars_free(v);
}

/*
 * Around the body of a task with variables of its own, that is any that was spawned or
 * gathered, on whatever fiber it runs, also in place of its awaiter's await: enter returns
 * what leave puts back.  A coroutine that is awaited needs neither: it shares its awaiter's.
 */
static inline struct mag_vars *mag_vars_enter(struct mag_fiber *f, const struct mag_task *t)
{
    struct mag_vars *outer = f->vars;

    f->vars = t->ext ? mag_vars_ref(t->ext->vars) : NULL;
    return outer;
}

static inline void mag_vars_leave(struct mag_fiber *f, struct mag_vars *outer)
{
    mag_vars_unref(f->vars);
    f->vars = outer;
}

#endif
