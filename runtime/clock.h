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
mag_time mag_clock_now(void);

/*
 * From now on the time is what `fn' answers; NULL brings the real clock back.  For
 * tests, and for a simulated world.  Any thread may call `fn' at any moment.
 */
void mag_clock_set_source(mag_time (*fn)(void));

#endif
