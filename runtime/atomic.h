/* SPDX-License-Identifier: MIT */
#ifndef MAG_ATOMIC_H
#define MAG_ATOMIC_H
/*
 * atomic.h - the door for atomic operations
 *
 * No other file of runtime/ or io/ names an atomic builtin (the one exception is
 * the inline half of the deque, include/magpie/fork.h, which users compile).
 * So one place decides what they are: the compiler's builtins; under TSan, which
 * does not model fences (google/sanitizers#1352), a fence is a read-modify-write
 * of a common word; in a model checker, a scheduling point.
 *
 * An atomic word is a plain integer or pointer whose declaration says so:
 * mag_atomic(uint64_t) top;  It is touched only through these names, and every
 * one names its ordering, because the costly mistake is a seq_cst store that
 * nobody meant (5 ns a spawn, invisible in the source).
 *
 * mag_fence_seq() pairs: each use is labelled (A), (B) ... in a comment, and
 * the banner of the file says which label pairs with which.
 */
#include "base.h"

#define mag_atomic(T) T

#define mag_load_relaxed(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define mag_load_acquire(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define mag_load_seq(p)         __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define mag_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define mag_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define mag_store_seq(p, v)     __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)

/* Read-modify-writes.  On x86-64 all are full fences; elsewhere the name holds. */
#define mag_xchg(p, v)          __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define mag_xchg_seq(p, v)      __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)
#define mag_fetch_add(p, v)     __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define mag_fetch_sub(p, v)     __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define mag_fetch_or(p, v)      __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)
#define mag_fetch_and(p, v)     __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
#define mag_fetch_add_seq(p, v) __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
#define mag_fetch_sub_seq(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_SEQ_CST)
/* Strong; on failure *expected is what was there, with acquire ordering. */
#define mag_cas(p, expected, v) \
    __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define mag_cas_seq(p, expected, v) \
    __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#if MAG_TSAN
static inline void mag_fence_seq(void)
{
    static unsigned char common;
    (void)__atomic_fetch_add(&common, 1, __ATOMIC_SEQ_CST);
}
#else
static inline void mag_fence_seq(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

/* Keeps the compiler, not the processor, from moving memory accesses across. */
static inline void mag_compiler_barrier(void)
{
    __asm__ volatile("" ::: "memory");
}

/* In a loop that waits for another processor. */
static inline void mag_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    mag_compiler_barrier();
#endif
}

/* ---- a spin lock for critical sections of a few instructions --------------- */

struct mag_spin {
    mag_atomic(uint32_t) held;
};

static inline bool mag_spin_try(struct mag_spin *s)
{
    /* relaxed: only a hint whether the exchange is worth its cost */
    return mag_load_relaxed(&s->held) == 0 && mag_xchg(&s->held, 1) == 0;
}

static inline void mag_spin_lock(struct mag_spin *s)
{
    while (!mag_spin_try(s))
        mag_cpu_relax();
}

static inline void mag_spin_unlock(struct mag_spin *s)
{
    mag_store_release(&s->held, 0);
}

#endif
