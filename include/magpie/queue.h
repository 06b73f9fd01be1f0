/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_QUEUE_H
#define MAGPIE_QUEUE_H
/*
 * queue.h - bounded queues between tasks, and between tasks and threads (asyncio.Queue)
 *
 *      struct mag_queue *q;
 *      mag_queue_new(&q, sizeof(struct job), 100, NULL);
 *      producer:  mag_queue_put(q, &job);       waits while the queue is full
 *      consumer:  mag_queue_get(q, &job);       waits while it is empty
 *
 * Items are copied in and out.  Every queue is bounded: producers that are faster than
 * their consumers wait, instead of filling the memory.
 *
 * Order: what one task puts is got in the order in which it was put (MAG_FIFO), whoever
 * gets it.  Tasks that wait are served in the order in which they came.
 *
 * All functions may be called from any task of any runtime, and from any thread; a
 * function that would suspend a task blocks a thread.  -EINVAL for NULL.  A callback
 * (mag_call_soon and the like) must not wait: -ENXIO where it would have to.
 *
 * <magpie/async.h> has typed queues: async_queue, queue_put, queue_get, queue_items.
 */
#include <magpie/base.h>

#ifdef __cplusplus
extern "C" {
#else
#include <stdbool.h>
#endif

struct mag_queue;

enum mag_queue_order {
    MAG_FIFO,
    MAG_LIFO,    /* the newest first */
    MAG_PRIORITY /* the least first; among equals the oldest */
};

struct mag_queue_options {
    enum mag_queue_order order;
    /* MAG_PRIORITY: < 0, 0 or > 0 as qsort(3) has it.  It is called while the queue is
     * locked: it must be short, not suspend, and leave the queue alone. */
    int (*compare)(const void *a, const void *b);
    const char *name; /* for reports; must outlive the queue; NULL: "queue" */
};

/*
 * Makes a queue of at most `capacity' items of `item_bytes' bytes (0: no value, a token).
 * `options' may be NULL.  Errors: -EINVAL (capacity 0, MAG_PRIORITY without compare, an
 * order that is none), -ENOMEM.  Never suspends.
 */
MAG_API int mag_queue_new(struct mag_queue **out, size_t item_bytes, size_t capacity,
                          const struct mag_queue_options *options);

/*
 * Frees the queue with what is in it.  NULL is ignored.  Nobody may be waiting in it
 * (the program ends with a sentence) or use it any more: shut it down and wait for its
 * users first.
 */
MAG_API void mag_queue_free(struct mag_queue *q);

/*
 * Puts a copy of the item.  Waits while the queue is full.  Errors: -EPIPE: it was shut
 * down, the item is not in it.  Suspends; cancellation point: after -ECANCELED the item is
 * not in the queue; one that got in is never reported as cancelled.
 */
MAG_API int mag_queue_put(struct mag_queue *q, const void *item);

/*
 * Takes an item (`item' NULL: dropped).  Waits while the queue is empty.  Errors: -EPIPE:
 * it was shut down and is empty.  Suspends; cancellation point: after -ECANCELED no item
 * has left the queue; one that was taken is never lost to a cancel or a timeout.
 */
MAG_API int mag_queue_get(struct mag_queue *q, void *item);

/* The same without waiting: -EAGAIN if it is full, or empty.  Never suspend. */
MAG_API int mag_queue_try_put(struct mag_queue *q, const void *item);
MAG_API int mag_queue_try_get(struct mag_queue *q, void *item);

/*
 * Says that an item which was taken has been dealt with; once for each.  -EINVAL if it is
 * called more often than items were put.  Never suspends.
 */
MAG_API int mag_queue_task_done(struct mag_queue *q);

/*
 * Waits until every item that was put has been taken and mag_queue_task_done was called for
 * it; returns at once if that is so.  Suspends; cancellation point.
 */
MAG_API int mag_queue_join(struct mag_queue *q);

/*
 * From now on nothing can be put: -EPIPE, also for those who wait to put.  What is in the
 * queue can still be taken, then getting fails with -EPIPE too, and so it does for those who
 * wait.  `immediate': drops what is in the queue, as though it had been taken and done.
 * Returns 0; may be called again.  Never suspends.
 */
MAG_API int mag_queue_shutdown(struct mag_queue *q, bool immediate);

/* Items in it, items that it can hold, and the name.  The answer may be old when it comes,
 * unless the caller keeps the others from using the queue.  NULL: 0.  Never suspend. */
MAG_API size_t mag_queue_len(const struct mag_queue *q);
MAG_API size_t mag_queue_capacity(const struct mag_queue *q);
MAG_API bool mag_queue_is_empty(const struct mag_queue *q);
MAG_API bool mag_queue_is_full(const struct mag_queue *q);
MAG_API const char *mag_queue_name(const struct mag_queue *q);

#ifdef __cplusplus
}
#endif
#endif
