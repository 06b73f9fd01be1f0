/* SPDX-License-Identifier: MIT */
#ifndef MAG_FIBER_H
#define MAG_FIBER_H
/*
 * fiber.h - a fiber's memory: one stack, with the control block at its top
 *
 * struct mag_fiber is in task.h.  The block shares a page with the first frames, so that
 * a suspended fiber that needs little costs one page, 4 KiB, in all.
 */
#include "task.h"

/* A fiber that will call entry(fiber) when it is first switched to; NULL when there is no
 * memory for a stack.  Any thread. */
struct mag_fiber *mag_fiber_new(struct mag_stacks *stacks, size_t bytes, void (*entry)(void *f));

/* One that has left for good, or has never run; on another stack. */
void mag_fiber_destroy(struct mag_fiber *f, struct mag_stacks *stacks);

/* Names the task that runs on a stack, for the report of its overflow: its name, function
 * and where it was spawned.  Async-signal-safe. */
void mag_fiber_describe(const struct mag_stack *stack, char *buf, size_t n);

#endif
