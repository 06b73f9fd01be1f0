/* SPDX-License-Identifier: MIT */
/*
 * fiber.c - a fiber's memory: one stack, with the control block at its top
 *
 *      lo                floor                               fiber
 *      |  calls in place  |  room for frames                   | control block |
 *      |  are refused     |                              <---- |               | top
 *
 * Below lo is the guard (stack.h).  Between lo and floor the code that runs anyway still
 * has room, but nothing is called in place that could have a stack of its own.
 */
#include "fiber.h"

#include "check.h"

/* The control block lies at the top of the stack, in one page with the first frames. */
static struct mag_fiber *fiber_at(const struct mag_stack *stack)
{
    uintptr_t top = (uintptr_t)stack->lo + stack->bytes - sizeof(struct mag_fiber);

    return (struct mag_fiber *)(top & ~(uintptr_t)(MAG_CACHE_BYTES - 1));
}

void mag_fiber_describe(const struct mag_stack *stack, char *buf, size_t n)
{
    const struct mag_task *t = fiber_at(stack)->current;
    const struct mag_task *root = t;

    while (root && root->outer)
        root = root->outer;
    if (t == NULL)
        mag_check_text(buf, n, "a part of a task (mag_fork)");
    else if (mag_task_site(root))
        mag_check_text(buf, n, "task '%s' (function '%s', spawned at %s:%d)", mag_task_name(root),
                       t->type->name, mag_task_site(root)->file, mag_task_site(root)->line);
    else
        mag_check_text(buf, n, "task '%s' (function '%s')", mag_task_name(root), t->type->name);
}

struct mag_fiber *mag_fiber_new(struct mag_stacks *stacks, size_t bytes, void (*entry)(void *f))
{
    struct mag_stack stack;
    struct mag_fiber *f;

    if (mag_stack_get(stacks, bytes, &stack) < 0)
        return NULL;
    f = fiber_at(&stack);
    *f = (struct mag_fiber){ .stack = stack, .floor = stack.lo + MAG_STACK_RESERVE };
    mag_context_make(&f->context, stack.lo, (size_t)((char *)f - stack.lo), entry, f);
    return f;
}

void mag_fiber_destroy(struct mag_fiber *f, struct mag_stacks *stacks)
{
    struct mag_stack stack = f->stack; /* f lies on it */

    mag_context_destroy(&f->context);
    mag_stack_put(stacks, &stack);
}
