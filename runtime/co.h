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

/* Claims the right to start it: false if somebody has, or if it was consumed. */
bool mag_co_begin(struct mag_task *t);

/* Hands a task that has begun to the scheduler; w is the calling worker or NULL. */
void mag_co_schedule(struct mag_worker *w, struct mag_rt *rt, struct mag_task *t);

/* Whether it can run as a call on this stack. */
bool mag_co_fits_here(const struct mag_fiber *f, const struct mag_task *t);

/* The end of every await: copies the result (unless rc < 0, or result is NULL), hands
 * an error's trace on, frees the object; rc. */
int mag_co_collect(struct mag_task *t, int rc, void *result, struct mag_task *heir);

#endif
