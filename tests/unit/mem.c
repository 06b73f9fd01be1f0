/* SPDX-License-Identifier: MIT */
/* mem.c - unit tests of runtime/mem.[ch] */
#include <criterion/criterion.h>

#include "mem.h"

#include <pthread.h>
#include <string.h>

TestSuite(mem);

Test(mem, gives_memory_that_can_be_used)
{
    char *a = mag_mem_alloc(100);
    char *z = mag_mem_zalloc(5000);

    cr_assert(a && z && a != z);
    memset(a, 1, 100);
    for (int i = 0; i < 5000; i++)
        cr_assert_eq(z[i], 0);
    mag_mem_free(a);
    mag_mem_free(z);
    mag_mem_free(NULL);
}

Test(mem, zero_bytes_has_an_address)
{
    void *a = mag_mem_alloc(0), *b = mag_mem_zalloc(0);

    cr_assert(a && b && a != b);
    mag_mem_free(a);
    mag_mem_free(b);
}

Test(mem, aligns)
{
    for (size_t align = 1; align <= 65536; align *= 2) {
        void *p = mag_mem_alloc_aligned(align, 24);

        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % align, 0);
        mag_mem_free(p);
    }
}

Test(mem, realloc_keeps_the_bytes)
{
    char *p = mag_mem_realloc(NULL, 4);

    cr_assert_not_null(p);
    memcpy(p, "abc", 4);
    p = mag_mem_realloc(p, 100000);
    cr_assert_str_eq(p, "abc");
    mag_mem_free(p);
}

/* AddressSanitizer ends the process instead. */
Test(mem, an_impossible_size_is_null, .disabled = MAG_ASAN)
{
    volatile size_t huge = SIZE_MAX / 2 - 4096;
    char *p = mag_mem_zalloc(8);
    int64_t live = mag_mem_live();

    cr_assert_null(mag_mem_alloc(huge));
    cr_assert_null(mag_mem_realloc(p, huge));
    cr_assert_eq(mag_mem_live(), live);
    cr_assert_str_eq(p, "");
    mag_mem_free(p);
}

Test(mem, live_counts_blocks)
{
    int64_t before = mag_mem_live();
    void *p[100];

    for (int i = 0; i < 100; i++)
        p[i] = mag_mem_alloc((size_t)i * 100);
    cr_assert_eq(mag_mem_live() - before, 100);
    for (int i = 0; i < 100; i++) {
        p[i] = mag_mem_realloc(p[i], 50000);
        cr_assert_not_null(p[i]);
    }
    cr_assert_eq(mag_mem_live() - before, 100);
    for (int i = 0; i < 100; i++)
        mag_mem_free(p[i]);
    cr_assert_eq(mag_mem_live(), before);
}

static bool fails(void)
{
    void *p = mag_mem_alloc(8);

    mag_mem_free(p);
    return p == NULL;
}

Test(mem, nth_fails_once)
{
    mag_mem_fail_nth(3, false);
    cr_assert(!fails() && !fails() && fails() && !fails() && !fails());
    cr_assert_eq(mag_mem_count(), 5);
    mag_mem_fail_nth(0, false);
}

Test(mem, nth_fails_for_good)
{
    mag_mem_fail_nth(2, true);
    cr_assert(!fails() && fails() && fails() && fails());
    mag_mem_fail_nth(0, false);
    cr_assert(!fails());
}

Test(mem, every_kind_of_request_can_fail)
{
    void *p = mag_mem_alloc(8);
    int64_t live = mag_mem_live();

    mag_mem_fail_nth(1, true);
    cr_assert_null(mag_mem_alloc(8));
    cr_assert_null(mag_mem_zalloc(8));
    cr_assert_null(mag_mem_alloc_aligned(64, 8));
    cr_assert_null(mag_mem_realloc(NULL, 8));
    cr_assert_null(mag_mem_realloc(p, 800));
    cr_assert_eq(mag_mem_count(), 5);
    mag_mem_fail_nth(0, false);
    cr_assert_eq(mag_mem_live(), live);
    mag_mem_free(p);
}

Test(mem, a_huge_n_only_counts)
{
    mag_mem_fail_nth(UINT64_MAX, false);
    cr_assert(!fails() && !fails());
    cr_assert_eq(mag_mem_count(), 2);
    mag_mem_fail_nth(0, false);
    cr_assert(!fails());
    cr_assert_eq(mag_mem_count(), 2);
}

static void *churn(void *unused)
{
    (void)unused;
    for (int i = 0; i < 20000; i++)
        mag_mem_free(mag_mem_alloc((size_t)i % 300));
    return mag_mem_alloc(1);
}

Test(mem, live_is_exact_after_threads)
{
    int64_t before = mag_mem_live();
    pthread_t t[4];
    void *left[4];

    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, churn, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], &left[i]);
    cr_assert_eq(mag_mem_live() - before, 4);
    for (int i = 0; i < 4; i++)
        mag_mem_free(left[i]);
    cr_assert_eq(mag_mem_live(), before);
}
