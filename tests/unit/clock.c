/* SPDX-License-Identifier: MIT */
/* clock.c - unit tests of runtime/clock.[ch] */
#include <criterion/criterion.h>

#include "clock.h"

#include <time.h>

TestSuite(clock);

static mag_time virtual_now(void)
{
    return 42 * MAG_SECOND;
}

Test(clock, is_clock_monotonic)
{
    struct timespec ts;
    mag_time before = mag_clock_now(), kernel, after;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    kernel = ts.tv_sec * MAG_SECOND + ts.tv_nsec;
    after = mag_now();
    cr_assert(before > 0 && before <= kernel && kernel <= after);
}

Test(clock, never_goes_back)
{
    mag_time last = mag_now();

    for (int i = 0; i < 100000; i++) {
        mag_time t = mag_now();

        cr_assert(t >= last);
        last = t;
    }
}

Test(clock, a_source_stands_in_the_door)
{
    mag_clock_set_source(virtual_now);
    cr_assert_eq(mag_clock_now(), 42 * MAG_SECOND);
    cr_assert_eq(mag_now(), 42 * MAG_SECOND);
    mag_clock_set_source(NULL);
    cr_assert_neq(mag_clock_now(), 42 * MAG_SECOND);
}

Test(clock, seconds)
{
    cr_assert_float_eq(mag_seconds(1500 * MAG_MS), 1.5, 1e-12);
    cr_assert_float_eq(mag_seconds(-MAG_US), -1e-6, 1e-15);
}
