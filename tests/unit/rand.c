/* SPDX-License-Identifier: MIT */
/* rand.c - unit tests of runtime/rand.h */
#include <criterion/criterion.h>

#include "rand.h"

#include <errno.h>

TestSuite(rand);

Test(rand, known_values)
{
    struct mag_rand r;

    /* The reference implementation's first values for this seed. */
    mag_rand_init(&r, 1234567);
    cr_assert_eq(mag_rand_next(&r), UINT64_C(6457827717110365317));
    cr_assert_eq(mag_rand_next(&r), UINT64_C(3203168211198807973));
    cr_assert_eq(mag_rand_next(&r), UINT64_C(9817491932198370423));
}

Test(rand, a_seed_repeats)
{
    struct mag_rand a, b;

    mag_rand_init(&a, 7);
    mag_rand_init(&b, 7);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(mag_rand_next(&a), mag_rand_next(&b));
}

Test(rand, below_is_below_and_even)
{
    int seen[7] = { 0 };
    struct mag_rand r;

    mag_rand_init(&r, 0);
    for (int i = 0; i < 70000; i++) {
        uint32_t v = mag_rand_below(&r, 7);

        cr_assert(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++)
        cr_assert(seen[i] > 9500 && seen[i] < 10500);
    cr_assert_eq(mag_rand_below(&r, 1), 0);
}

Test(rand, seeds_differ)
{
    cr_assert_neq(mag_rand_seed(), mag_rand_seed());
}

Test(rand, a_seed_even_without_the_kernel)
{
    mag_sys_fail_nth(MAG_SYS_GETRANDOM, 1, EAGAIN, true);
    cr_assert_neq(mag_rand_seed(), 0);
    mag_sys_fail_none();
}
