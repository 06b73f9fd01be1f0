/* SPDX-License-Identifier: MIT */
/*
 * future.c - a result that somebody else will set
 *
 * The same object as a task, without a body: setting it is its end (task.c).  Two
 * hold it, the setter and the awaiter, and one word knows who is left: if the awaiter
 * has given up (DETACHED) the setter frees it, otherwise the awaiter does.  So a setter
 * that comes after the awaiter was cancelled writes to live memory.
 */
#include "co.h"

#include <errno.h>
#include <string.h>

void *mag_future_new(const struct mag_co_type *type, const void *made_at)
{
    struct mag_task *t = mag_co_make(type, MAG_FUTURE, made_at);

    if (t == NULL)
        return NULL;
    mag_store_relaxed(&t->is_begun, 1);
    return mag_task_frame(t);
}

static int settle(struct mag_task *t, const void *value, int rc)
{
    if (mag_load_relaxed(&t->head.used) != MAG_FUTURE || mag_task_is_done(t))
        return -EALREADY;
    if (value)
        memcpy(mag_task_result(t), value, t->type->result_bytes);
    if (mag_task_end(t, rc))
        mag_worker_release(t);
    return 0;
}

int mag_future_set(void *future, const void *value, size_t bytes)
{
    struct mag_task *t = mag_task_of(future);

    if (t == NULL)
        return -ENOMEM;
    if (mag_load_relaxed(&t->head.used) == MAG_FUTURE && bytes != t->type->result_bytes)
        return -EINVAL;
    return settle(t, value, 0);
}

int mag_future_fail(void *future, int rc)
{
    struct mag_task *t = mag_task_of(future);

    if (t == NULL)
        return -ENOMEM;
    return rc < 0 ? settle(t, NULL, rc) : -EINVAL;
}
