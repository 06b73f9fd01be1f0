/* SPDX-License-Identifier: MIT */
#ifndef MAG_RT_BASE_H
#define MAG_RT_BASE_H
/*
 * base.h - attributes, container_of, and every limit of the library
 *
 * The lowest file: it includes only the public base header, and everything
 * includes it.  A limit that a user can meet is a constant here, with what
 * happens when it is met.
 */
#include <magpie/base.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAG_CACHE_BYTES      64
#define MAG_CACHELINE        __attribute__((aligned(MAG_CACHE_BYTES)))
#define MAG_PAGE_BYTES       4096
#define MAG_NOINLINE         __attribute__((noinline))
/* For a function that reads hints of another thread's plain fields, on purpose. */
#define MAG_RACY             __attribute__((noinline, no_sanitize("thread")))
#define MAG_ALWAYS_INLINE    inline __attribute__((always_inline))
#define MAG_LIKELY(x)        __builtin_expect(!!(x), 1)
#define MAG_UNLIKELY(x)      __builtin_expect(!!(x), 0)
#define MAG_STATIC_ASSERT(c) _Static_assert(c, #c)
#define MAG_ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))

/*
 * A function that may come back on another thread.  gcc may look into a merely
 * noinline function, see that it stores to no thread-local, and keep a stale
 * thread-local's address across the call; noipa forbids that.  clang has no
 * noipa: there the volatile asm in the accessor (worker.h) must do.
 */
#if defined(__clang__)
#define MAG_SUSPENDS __attribute__((noinline))
#else
#define MAG_SUSPENDS __attribute__((noinline, noipa))
#endif

/* Of a function that is no API, but is used by magpie's other libraries (magpie-tls, magpie-http). */
#define MAG_MODULE __attribute__((visibility("default")))

#define mag_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#if defined(__SANITIZE_ADDRESS__)
#define MAG_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define MAG_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MAG_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define MAG_TSAN 1
#endif
#endif
#ifndef MAG_ASAN
#define MAG_ASAN 0
#endif
#ifndef MAG_TSAN
#define MAG_TSAN 0
#endif

/* ---- limits --------------------------------------------------------------- */

enum {
    /* Workers of one runtime; mag_rt_new() answers -EINVAL above it. */
    MAG_WORKERS_MAX = 256,
    /* Unstarted tasks in one worker's deque (a power of two, and ABI: the inline
     * half of the deque is in <magpie/fork.h>).  What does not fit goes to the
     * worker's overflow list, which is bounded by memory only. */
    MAG_DEQUE_SLOTS = MAG_DEQUE_SLOTS_ABI,
    /* Submission queue entries of one ring; halved on -ENOMEM down to _MIN,
     * below which mag_rt_new() answers -ENOMEM and names RLIMIT_MEMLOCK. */
    MAG_RING_ENTRIES = 256,
    MAG_RING_ENTRIES_MIN = 8,
    /* A stack a user may ask for, in bytes; -EINVAL outside. */
    MAG_STACK_BYTES_DEFAULT = 64 * 1024,
    MAG_STACK_BYTES_MIN = 16 * 1024,
    MAG_STACK_BYTES_MAX = 64 * 1024 * 1024,
    /* A call in place (await, join) needs this much stack left, or the callee
     * gets a fiber of its own. */
    MAG_STACK_RESERVE = 12 * 1024,
    /* Task runs, or nanoseconds, after which a busy worker looks at its ring,
     * inbox and timers. */
    MAG_POLL_RUNS = 61,
    MAG_POLL_NS = 1000 * 1000,
    /* How long an idle worker searches before it sleeps. */
    MAG_SPIN_NS = 50 * 1000,
    /* Threads of one offload lane; further calls queue. */
    MAG_OFFLOAD_THREADS_MAX = 64,
    /* Places that an error's trace remembers; later ones are counted only. */
    MAG_TRACE_MAX = 16,
};

#endif
