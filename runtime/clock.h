/* SPDX-License-Identifier: MIT */
#ifndef MAG_CLOCK_H
#define MAG_CLOCK_H
/*
 * clock.h - the door for time
 *
 * No other file of runtime/ or io/ reads a clock.  A worker reads it once per loop
 * turn and keeps the value; 20 ns a reading would be felt on every task.
 */
#include "base.h"

/* Now, in nanoseconds of CLOCK_MONOTONIC, or what stands in the door says. */
MAG_MODULE mag_time mag_clock_now(void);

/* The time of day, in nanoseconds since 1970, some milliseconds late (CLOCK_REALTIME_COARSE): for
 * what is written down in seconds, never for deadlines. */
MAG_MODULE mag_time mag_clock_wall(void);

/* Processor time in ns that a thread of this process has used; 0: not known. */
mag_time mag_clock_of_thread(int tid);

/* The time after a duration (>= 0) from now; MAG_NEVER if that is beyond what there is. */
static inline mag_time mag_clock_after(mag_time duration)
{
    mag_time now;

    if (duration == MAG_NEVER)
        return MAG_NEVER;
    now = mag_clock_now();
    return duration < MAG_NEVER - now ? now + duration : MAG_NEVER;
}

/*
 * A counter that grows evenly, at a rate the caller finds out by comparing it with
 * mag_clock_now(): 5 to 10 ns where the processor has one, for "has it been long?".
 */
static inline uint64_t mag_clock_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return (uint64_t)mag_clock_now();
#endif
}

/*
 * From now on the time is what `fn' answers; NULL brings the real clock back.  For
 * tests, and for a simulated world.  Any thread may call `fn' at any moment.
 */
void mag_clock_set_source(mag_time (*fn)(void));

#endif
