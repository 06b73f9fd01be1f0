/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_ITER_H
#define MAGPIE_ITER_H
/*
 * iter.h - iterators, generators, and the exit stack
 *
 * An iterator is two functions and what they work on:
 *
 *      struct mag_iter it = mag_iter_of(next, self);
 *      while ((rc = mag_iter_next(&it, &item)) > 0)
 *          use(item);
 *      mag_iter_close(&it);
 *
 * A generator is the same written as a function that hands its items out one by one: a
 * coroutine with a stack of its own, which runs only while somebody waits for its next item.
 *
 *      static int count_body(void *frame, void *item)      runs on its own stack
 *      {
 *          for (long i = 0, rc; i < 10; i++)
 *              if ((rc = mag_yield_value(&i, sizeof i)) < 0)
 *                  return (int)rc;
 *          return 0;
 *      }
 *
 *      while ((rc = mag_gen_next(gen, &item)) > 0)
 *          use(item);
 *      mag_gen_close(gen);
 *
 * Closing is deterministic.  A generator that is closed before its end is resumed once more,
 * there and then: its yield returns -ECANCELED, so it ends like any other code that was
 * cancelled, and its cleanups run before mag_gen_close returns.  They may suspend.
 *
 * A consumer that is cancelled while it waits for an item cancels the generator, which ends;
 * then its next returns -ECANCELED.  The generator is no task: what it sets in task-local
 * variables its consumer sees, as asyncio has it, and scopes that are open in it across a yield
 * concern nobody but itself.
 *
 * One that is dropped without having been iterated is reported like a coroutine that was
 * never awaited.
 *
 * <magpie/async.h> has async_gen, yield, async_for, async_iter and anext.
 */
#include <magpie/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- iterators -------------------------------------------------------------------- */

struct mag_iter {
    /* 1: *out is the next item, 0: there are no more, < 0: an error. */
    int (*next)(void *self, void *out);
    void (*close)(void *self); /* may suspend; NULL: nothing to do */
    void *self;
};

/* One with nothing to close. */
MAG_API struct mag_iter mag_iter_of(int (*next)(void *self, void *out), void *self);

/*
 * The next item: 1, and it is in *out; 0 at the end; or an error, < 0.  -EINVAL after
 * mag_iter_close.  Suspends, and is a cancellation point, if the iterator's own function does.
 */
MAG_API int mag_iter_next(struct mag_iter *it, void *out);

/*
 * Closes it, at the end or before, once; later calls do nothing.  Cancellation does not reach
 * the iterator's function.  Suspends if that does.
 */
MAG_API void mag_iter_close(struct mag_iter *it);

/* ---- generators -------------------------------------------------------------------- */

/* What the frame of a generator must begin with; private. */
struct mag_gen {
    uint64_t private_[8];
};

/*
 * A new generator: returns its frame, whose bytes after the struct mag_gen are not
 * initialised (the caller writes the arguments), or NULL when memory is out.  `type' is as of
 * mag_co_new: its result is the item, whose place in the frame is not used, and its stack has
 * the runtime's size.  Nothing runs before the first next.  `made_at' as of mag_co_new.  Any
 * thread.
 */
MAG_API MAG_MUST_USE void *mag_gen_new(const struct mag_co_type *type, const void *made_at);

/*
 * Runs it up to its next yield: 1, and the item was copied to `out' (NULL: dropped).  0 when
 * its body has returned 0, and ever after; the body's error, once, with its trace.  Between
 * two calls the generator rests; the next call may come from another task.  Errors:
 * -ENOMEM (NULL, or no stack), -EBUSY (it runs already, and so waits for its own consumer: a
 * generator has one at a time), -EALREADY (it was closed, or awaited as a coroutine), -ENXIO
 * outside a task.  Suspends; cancellation point: a cancel while it waits cancels the
 * generator, which cannot go on from there; one that came before has not touched it.
 */
MAG_API int mag_gen_next(void *gen, void *out);

/*
 * Ends it and frees it.  If it rests in a yield, that returns -ECANCELED, and this returns
 * when the body has ended: 0, or its error if that is another.  NULL is ignored.  Errors that
 * leave it as it is: -EBUSY (it runs), -EALREADY (closed before), -ENXIO (it rests, and this
 * is outside a task).  Suspends; not a cancellation point.
 */
MAG_API int mag_gen_close(void *gen);

/* It as an iterator, which closes it. */
MAG_API struct mag_iter mag_gen_iter(void *gen);

/*
 * Hands an item to whoever waits for it, and rests until the next one is wanted.  `bytes' is
 * the item's size, else -EINVAL.  By the body of a generator, or functions called from it, but
 * not by a coroutine that it awaits: that is another one's body (-EINVAL).  Returns
 * -ECANCELED, then and each time, if the generator is being closed, or was cancelled: it
 * should return.  Suspends; cancellation point.
 */
MAG_API int mag_yield_value(const void *value, size_t bytes);

/* ---- exit stack ---------------------------------------------------------------------- */

/*
 * What is to be done at the end of a block, known only at run time: contextlib's
 * AsyncExitStack.
 *
 *      async_with(mag_exit_stack, st) {
 *          for (int i = 0; i < n; i++) {
 *              files[i] = open_file(names[i]);
 *              await(mag_exit_stack_push(st, close_file, files[i]));
 *          }
 *          ...
 *      }
 *
 * Its contents are private.
 */
struct mag_exit_stack {
    uint64_t private_[12];
};

/* Makes it empty; 0.  Any thread. */
MAG_API int mag_exit_stack_enter(struct mag_exit_stack *st);

/*
 * fn(arg) is called at the exit.  -ENOMEM: it will not be, and is for the caller to do; the
 * first five need no memory.  Never suspends.
 */
MAG_API int mag_exit_stack_push(struct mag_exit_stack *st, void (*fn)(void *arg), void *arg);

/*
 * Moves everything to `to', which must be empty (-EINVAL), so that the exit does nothing: for
 * what is to be undone only if the block does not come to its end.  Never suspends.
 */
MAG_API int mag_exit_stack_pop_all(struct mag_exit_stack *st, struct mag_exit_stack *to);

/*
 * Calls them, the last one pushed first, unreached by cancellation; also what they push
 * themselves.  Then it is empty.  Suspends if they do.
 */
MAG_API void mag_exit_stack_exit(struct mag_exit_stack *st);

#ifdef __cplusplus
}
#endif
#endif
