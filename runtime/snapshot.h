/* SPDX-License-Identifier: MIT */
#ifndef MAG_SNAPSHOT_H
#define MAG_SNAPSHOT_H
/*
 * snapshot.h - all tasks of a runtime, described by the workers whose they are
 */
#include "worker.h"

#include <magpie/inspect.h>

struct mag_snapshot_task {
    struct mag_task_info info;
    const void *waiter;   /* who is told of its end: memory of who awaits it; NULL */
    const void *siblings; /* what it shares with its siblings, of a gather or group: the same */
    const char *lo, *hi;  /* its fiber's stack, if it is the innermost there; else NULL */
};

struct mag_snapshot {
    struct mag_snapshot_task *tasks; /* in the order of their handles */
    size_t n;
    bool is_busy[MAG_WORKERS_MAX]; /* worker i did not answer */
};

/* 0 or -ENOMEM.  In a task it suspends (no cancellation point), elsewhere it blocks, for at
 * most 100 ms or so. */
int mag_snapshot_take(struct mag_rt *rt, struct mag_snapshot *out);
void mag_snapshot_free(struct mag_snapshot *s);

/* The task with that handle, or NULL. */
struct mag_snapshot_task *mag_snapshot_find(const struct mag_snapshot *s, const void *handle);

/*
 * Waits until *word is 0, or for that long: true if it became 0.  The word is some request's
 * count of answers that are missing; who decrements it to 0 calls mag_snapshot_answered.
 */
bool mag_snapshot_await(mag_atomic(uint32_t) * word, mag_time limit_ns);
void mag_snapshot_answered(mag_atomic(uint32_t) * word);

#endif
