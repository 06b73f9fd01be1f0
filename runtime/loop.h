/* SPDX-License-Identifier: MIT */
#ifndef MAG_LOOP_H
#define MAG_LOOP_H
/*
 * loop.h - a worker's thread (loop.c)
 */
#include "worker.h"

/* A zeroed worker; -ENOMEM. */
int mag_loop_init(struct mag_worker *w, struct mag_rt *rt, unsigned id);
void mag_loop_fini(struct mag_worker *w);

/* The body of the worker's thread. */
void *mag_loop_main(void *worker);

#endif
