/* SPDX-License-Identifier: MIT */
#ifndef MAG_CANCEL_H
#define MAG_CANCEL_H
/*
 * cancel.h - asking a task to stop (cancel.c)
 */
#include "worker.h"

/* Cancels a task that has begun; any thread that holds it. */
void mag_cancel_task(struct mag_task *t);

/* On a worker's thread: cancels the tasks whose home it is, by rt->cancel_level. */
void mag_cancel_sweep(struct mag_message *m, struct mag_worker *w);

#endif
