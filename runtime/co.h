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

/* What the child of a group has beside its options (task.h, struct mag_task_ext). */
struct mag_co_extra {
    const mag_atomic(uint32_t) * stopping;
    struct mag_end_hook *hook;
    /* A slab block of the caller's that begins with it, freed with the task, but not if the
     * start fails; NULL: one is made. */
    struct mag_task_ext *ext;
};

/* mag_start for a worker (NULL: a thread outside) and a runtime; `extra' may be NULL.  After
 * 0 the task may have ended already; it is the caller's handle all the same. */
int mag_co_start(struct mag_worker *w, struct mag_rt *rt, void *coro,
                 const struct mag_spawn_options *options, const struct mag_co_extra *extra);

/* Gives a begun task's handle up: 0, or -EALREADY if somebody awaits it. */
int mag_co_detach(struct mag_task *t);

/* Whether it can run as a call on this stack. */
static MAG_ALWAYS_INLINE bool mag_co_fits_here(const struct mag_fiber *f, const struct mag_task *t)
{
    if (MAG_UNLIKELY(t->is_leaf || t->type->stack_bytes != 0))
        return false;
    if (t->ext && (t->ext->stack_bytes || t->ext->worker))
        return false;
    return mag_fiber_has_room(f);
}

/* Whether the fiber runs it, or something that it awaits in place. */
bool mag_co_is_in_chain(const struct mag_fiber *f, const struct mag_task *t);

/* -EALREADY, and in debug mode the sentence on it; `what' names the call. */
int mag_co_used_before(const char *what);

/* The trace of an error goes from t to whoever receives the error (NULL: nobody). */
void mag_co_hand_trace(struct mag_task *t, struct mag_task *to);

/* The end of every await: copies the result (unless rc < 0, or result is NULL), hands
 * an error's trace on, frees the object; rc. */
int mag_co_collect(struct mag_task *t, int rc, void *result, struct mag_task *heir);

#endif
