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

/* ---- for who steps a worker on a thread of its own (embed.c) ------------------------- */

/* The calling thread becomes the worker's: its ring, its stacks.  -errno.  close, by the same
 * thread, inside enter, undoes it; nothing may be in flight. */
int mag_loop_open(struct mag_worker *w, struct mag_stack_alt *alt);
void mag_loop_close(struct mag_worker *w, struct mag_stack_alt *alt);

/* From now on what the calling thread does is done on that worker; NULL: on none. */
void mag_loop_enter(struct mag_worker *w);

/* Runs what is ready, up to the next look around; false: nothing is. */
bool mag_loop_turn(struct mag_worker *w);

/* Sleeps until something comes, a timer is due, or that time. */
void mag_loop_park(struct mag_worker *w, mag_time until);

/* The last look before a sleep, after mag_idle_park: whether there is something to do. */
bool mag_loop_sees_work(struct mag_worker *w);

#endif
