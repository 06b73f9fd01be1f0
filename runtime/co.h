/* SPDX-License-Identifier: MIT */
#ifndef MAG_CO_H
#define MAG_CO_H
/*
 * co.h - coroutine objects, for the other primitives (co.c)
 */
#include "worker.h"

/* A new object of the slab, its frame not initialised; NULL when memory is out. */
struct mag_task *mag_co_make(const struct mag_co_type *type, enum mag_kind kind,
                             const void *made_at);

/* Sets a task going that has begun and does not run as a call: a leaf starts here. */
void mag_co_launch(struct mag_worker *w, struct mag_task *t);

/* Claims the right to start it: false if somebody has, or if it was consumed.  Plain
 * load and store: two threads that start one object race anyway. */
static inline bool mag_co_begin(struct mag_task *t)
{
    if (mag_load_relaxed(&t->head.used) == 0 || mag_load_relaxed(&t->is_begun))
        return false;
    mag_store_relaxed(&t->is_begun, 1);
    return true;
}

/* Hands a task that has begun to the scheduler; w is the calling worker or NULL. */
void mag_co_schedule(struct mag_worker *w, struct mag_rt *rt, struct mag_task *t);

/* Whether it can run as a call on this stack. */
static MAG_ALWAYS_INLINE bool mag_co_fits_here(const struct mag_fiber *f, const struct mag_task *t)
{
    if (MAG_UNLIKELY(t->is_leaf || t->type->stack_bytes != 0))
        return false;
    if (t->origin_kind == MAG_ORIGIN_INFO && (t->info->stack_bytes || t->info->worker))
        return false;
    return mag_fiber_has_room(f);
}

/* The end of every await: copies the result (unless rc < 0, or result is NULL), hands
 * an error's trace on, frees the object; rc. */
int mag_co_collect(struct mag_task *t, int rc, void *result, struct mag_task *heir);

#endif
