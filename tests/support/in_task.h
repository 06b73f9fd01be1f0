/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_IN_TASK_H
#define MAG_TESTS_IN_TASK_H
/*
 * in_task.h - the same check on the test's own thread and in a task
 *
 * A check is a function that answers 0, or the line that failed: an assertion of
 * Criterion's would jump out of a task, past the runtime.
 */
#include <criterion/criterion.h>
#include <magpie.h>

#define EXPECT(cond) \
    do { \
        if (!(cond)) \
            return __LINE__; \
    } while (0)

/* A coroutine that runs a check. */
struct check_co {
    int value;
    int (*fn)(void);
};

static inline int check_body(void *frame, void *result)
{
    *(int *)result = ((struct check_co *)frame)->fn();
    return 0;
}

static const struct mag_co_type check_type = {
    .name = "check",
    .body = check_body,
    .frame_bytes = sizeof(struct check_co),
    .result_offset = offsetof(struct check_co, value),
    .result_bytes = sizeof(int),
};

static inline int run_in_task(int (*fn)(void))
{
    struct check_co *co = mag_co_new(&check_type, NULL);
    int line = -1;

    if (!co)
        return -1;
    co->fn = fn;
    return mag_run(co, &line) < 0 ? -2 : line;
}

#define BOTH(fn) \
    do { \
        cr_assert_eq(fn(), 0, "outside a task: line %d", fn()); \
        int line_in_task = run_in_task(fn); \
        cr_assert_eq(line_in_task, 0, "in a task: line %d", line_in_task); \
    } while (0)

#endif
