/* SPDX-License-Identifier: MIT */
/*
 * clock.c - the door for time
 *
 * One place reads the clock, so that one place can replace it: under a virtual
 * clock a test of an hour's sleep takes no time, and a run can be repeated exactly.
 *
 * The clock is CLOCK_MONOTONIC: it never goes back, is the same for all threads,
 * and is the one that the kernel's own timeouts (futex, io_uring) are measured on.
 * It stands still while the machine is suspended, which is what a timeout of a
 * program should do.  clock_gettime(2) is answered without entering the kernel, in
 * about 20 ns, and cannot fail for this clock.
 *
 * The time of day is the coarse one, of the kernel's last tick, at a quarter of the price: it is
 * written into messages that count seconds.
 *
 * Who may call: any thread, any task, any signal handler; never suspends.
 *
 * Rejected: rdtsc (7 ns, but it needs calibration, and virtual machines that move
 * break it); CLOCK_MONOTONIC_COARSE (1-4 ms steps, seen by every sleep).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "clock.h"

#include "atomic.h"

#include <time.h>

typedef mag_time source_fn(void);

static mag_atomic(source_fn *) source; /* [any] who is asked; NULL: the kernel */

static mag_time real_now(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (mag_time)ts.tv_sec * MAG_SECOND + ts.tv_nsec;
}

mag_time mag_clock_now(void)
{
    /* acquire: whoever put a source there also prepared what it reads. */
    source_fn *fn = mag_load_acquire(&source);

    return MAG_UNLIKELY(fn != NULL) ? fn() : real_now();
}

mag_time mag_clock_wall(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return (mag_time)ts.tv_sec * MAG_SECOND + ts.tv_nsec;
}

/* As the kernel numbers it; pthread_getcpuclockid(3) wants a pthread_t. */
mag_time mag_clock_of_thread(int tid)
{
    const unsigned per_thread = 4, run_time = 2;
    clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | per_thread | run_time);
    struct timespec ts = { 0 };

    (void)clock_gettime(clock, &ts);
    return (mag_time)ts.tv_sec * MAG_SECOND + ts.tv_nsec;
}

void mag_clock_set_source(mag_time (*fn)(void))
{
    mag_store_release(&source, fn);
}

mag_time mag_now(void)
{
    return mag_clock_now();
}

double mag_seconds(mag_time duration_ns)
{
    return (double)duration_ns / (double)MAG_SECOND;
}
