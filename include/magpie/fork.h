/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_FORK_H
#define MAGPIE_FORK_H
/*
 * fork.h - fork and join of a part of the current task, at the cost of a call
 *
 *      struct fib { struct mag_fork fork; int n; long value; };
 *
 *      static long fib(int n);
 *      static void fib_part(struct mag_fork *f)
 *      {
 *          struct fib *part = (struct fib *)f;
 *          part->value = fib(part->n);
 *      }
 *      static long fib(int n)
 *      {
 *          struct fib part = { .n = n - 1 };
 *          if (n < 2)
 *              return n;
 *          mag_fork(&part.fork, fib_part);
 *          long rest = fib(n - 2);
 *          mag_join_call(&part.fork, fib_part);
 *          return part.value + rest;
 *      }
 *
 * The record lives in the caller's frame: no allocation, no reference count, no
 * fence.  A fork pushes the record on the worker's deque; the join pops it again
 * and calls the function directly, unless another worker has taken it in the
 * meantime: then it waits.  A part may suspend like any code of a task; it has no
 * identity of its own and cannot be cancelled by itself.
 *
 * This file is the inline half of runtime/deque.c, so its layouts are ABI, and it
 * is the one file beside runtime/atomic.h that names atomic builtins.  Callers who
 * cannot use inline functions have the exported mag_fork_begin and mag_fork_end.
 *
 * After Lace's split deque (van Dijk and van de Pol, 2014).
 */
#include <magpie/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a deque holds: something that has not started.  Private to the library. */
struct mag_work {
    void (*run)(struct mag_work *work); /* NULL: it is a struct mag_fork          */
    uint64_t slot;                      /* index in a deque, a waiter, or "done"  */
};

/* A part of the current task; its fields are private. */
struct mag_fork {
    struct mag_work work;
    void (*part)(struct mag_fork *fork);
};

/* The part of a worker that its owner touches on every fork and join.  Private. */
struct mag_hot {
    uint64_t bot;            /* next free slot                                     */
    uint64_t lim;            /* a push that reaches it takes the slow path         */
    uint64_t guard;          /* a pop below it takes the slow path                 */
    struct mag_work **slots; /* MAG_DEQUE_SLOTS_ABI of them                        */
};

#define MAG_SLOT_MASK_ ((uint64_t)MAG_DEQUE_SLOTS_ABI - 1)

extern MAG_API __thread struct mag_hot *mag_tls_hot __attribute__((tls_model("initial-exec")));

/* The exported slow paths of the inline functions below; not for direct use. */
MAG_API void mag_fork_push_slow_(struct mag_hot *hot, struct mag_fork *fork);
MAG_API int mag_fork_pop_slow_(struct mag_hot *hot, struct mag_fork *fork);
MAG_API int mag_fork_wait_(struct mag_fork *fork);

/*
 * The current worker, or NULL outside a task.  A volatile asm, because a task may
 * resume on another thread and a compiler keeps a thread-local's address.
 */
static inline struct mag_hot *mag_hot_(void)
{
    struct mag_hot *hot;
#if defined(__x86_64__) && defined(__LP64__)
    __asm__ volatile("movq mag_tls_hot@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(hot));
#elif defined(__aarch64__)
    uint64_t tp;
    __asm__ volatile("adrp %0, :gottprel:mag_tls_hot\n\t"
                     "ldr %0, [%0, :gottprel_lo12:mag_tls_hot]\n\t"
                     "mrs %1, tpidr_el0\n\t"
                     "ldr %0, [%1, %0]"
                     : "=&r"(hot), "=&r"(tp));
#else
    struct mag_hot **where = &mag_tls_hot;
    __asm__ volatile("" : "+r"(where) : : "memory");
    hot = *where;
#endif
    return hot;
}

/*
 * Lets `part(fork)' run concurrently with what follows, until mag_join or
 * mag_join_call with the same record, which must follow in the same function
 * before the record's frame ends.  Tasks only in parallel; outside a task it runs
 * the part at once.  Never suspends, never fails: with the deque full the part
 * runs at once.
 */
static inline void mag_fork(struct mag_fork *fork, void (*part)(struct mag_fork *fork))
{
    struct mag_hot *hot = mag_hot_();
    uint64_t b;

    fork->work.run = NULL;
    fork->part = part;
    if (__builtin_expect(hot == NULL, 0)) {
        mag_fork_push_slow_(hot, fork);
        return;
    }
    b = hot->bot;
    __atomic_store_n(&fork->work.slot, b, __ATOMIC_RELAXED);
    __atomic_store_n(&hot->slots[b & MAG_SLOT_MASK_], &fork->work, __ATOMIC_RELAXED);
    __atomic_store_n(&hot->bot, b + 1, __ATOMIC_RELEASE);
    if (__builtin_expect(b + 1 >= __atomic_load_n(&hot->lim, __ATOMIC_RELAXED), 0))
        mag_fork_push_slow_(hot, fork);
}

/*
 * 1: nobody has taken the part and it is the caller's to run.  0: it is done; the
 * call has waited for it if it had to.  Suspends.  Private to the two joins.
 */
static inline int mag_fork_take_(struct mag_fork *fork)
{
    struct mag_hot *hot = mag_hot_();
    uint64_t b = __atomic_load_n(&fork->work.slot, __ATOMIC_RELAXED);

    if (__builtin_expect(hot != NULL && hot->bot == b + 1, 1) &&
        __builtin_expect(
            __atomic_load_n(&hot->slots[b & MAG_SLOT_MASK_], __ATOMIC_RELAXED) == &fork->work, 1)) {
        __atomic_store_n(&hot->bot, b, __ATOMIC_RELAXED);
        __asm__ volatile("" ::: "memory"); /* bot first, then guard: deque.c, (C) */
        if (__builtin_expect(b >= __atomic_load_n(&hot->guard, __ATOMIC_RELAXED), 1))
            return 1;
        if (mag_fork_pop_slow_(hot, fork))
            return 1;
    }
    return mag_fork_wait_(fork);
}

/*
 * Returns when the part is done: by a direct call where nobody else has taken it.
 * Suspends; not a cancellation point (the record is in the caller's frame).
 */
static inline void mag_join(struct mag_fork *fork)
{
    if (mag_fork_take_(fork))
        fork->part(fork);
}

/*
 * The same where the caller names the function once more, so that the compiler
 * sees a direct call (about 1 ns of 5).
 */
static inline void mag_join_call(struct mag_fork *fork, void (*part)(struct mag_fork *fork))
{
    if (mag_fork_take_(fork))
        part(fork);
}

/* mag_fork as an exported function, for foreign-function callers. */
MAG_API void mag_fork_begin(struct mag_fork *fork, void (*part)(struct mag_fork *fork));

/* mag_join as an exported function, for foreign-function callers. */
MAG_API void mag_fork_end(struct mag_fork *fork);

#ifdef __cplusplus
}
#endif
#endif
