/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_BASE_H
#define MAGPIE_BASE_H
/*
 * base.h - version, visibility, time, and the error convention
 *
 * Every function of magpie returns 0 or a count on success and -errno on
 * failure.  errno itself is never set and never meaningful after a call that may
 * suspend: a task can continue on another thread, and compilers keep the address
 * of errno across such a call.  mag_err_name(-5) is "EIO".
 *
 * Time is mag_time, signed 64 bit nanoseconds of CLOCK_MONOTONIC.  A deadline is
 * a point on that clock, a duration a difference.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MAGPIE_VERSION_MAJOR 0
#define MAGPIE_VERSION_MINOR 1
#define MAGPIE_VERSION_PATCH 0

#define MAG_API      __attribute__((visibility("default")))
/* The compiler warns where the result is dropped. */
#define MAG_MUST_USE __attribute__((warn_unused_result))

typedef int64_t mag_time;

#define MAG_US     ((mag_time)1000)
#define MAG_MS     ((mag_time)1000000)
#define MAG_SECOND ((mag_time)1000000000)
#define MAG_MINUTE (60 * MAG_SECOND)
#define MAG_NEVER  INT64_MAX

/* Slots of a worker's deque; part of the ABI because <magpie/fork.h> is inline. */
#define MAG_DEQUE_SLOTS_ABI 8192

/*
 * The version of the library in use as (major << 16 | minor << 8 | patch), which
 * may differ from the header's.  Any thread.
 */
MAG_API unsigned mag_version(void);

/*
 * Now, in nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)).  Any thread; never
 * suspends.
 */
MAG_API mag_time mag_now(void);

/* A duration in seconds, for printing.  Any thread. */
MAG_API double mag_seconds(mag_time duration_ns);

/*
 * The name of an error: "ECANCELED" for -ECANCELED or ECANCELED, "OK" for 0 and
 * counts, "E?" for a number that is no error.  Static storage.  Any thread.
 */
MAG_API const char *mag_err_name(int rc);

/* What strerror(3) says of an error, from static storage.  Any thread. */
MAG_API const char *mag_err_text(int rc);

#ifdef __cplusplus
}
#endif
#endif
