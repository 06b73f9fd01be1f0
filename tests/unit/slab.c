/* SPDX-License-Identifier: MIT */
/* slab.c - blocks are the caller's alone, are found again, and go back at the end */
#include "slab.h"

#include "mem.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct mag_slab_cache cache;

static void setup(void)
{
    mag_slab_open(&cache);
}

static void teardown(void)
{
    mag_slab_close(&cache);
    cr_assert_eq(mag_slab_trim(), 0);
    cr_assert_eq(mag_mem_live(), 0, "%ld", (long)mag_mem_live());
}

TestSuite(slab, .init = setup, .fini = teardown, .timeout = 60);

static struct mag_slab_head *get_from(struct mag_slab_cache *c, size_t bytes)
{
    struct mag_slab_head *b = mag_slab_alloc(c, bytes);

    cr_assert_not_null(b);
    mag_store_relaxed(&b->used, 7);
    memset((char *)b + sizeof *b, 0x5a, bytes - sizeof *b);
    return b;
}

static struct mag_slab_head *get(size_t bytes)
{
    return get_from(&cache, bytes);
}

static void put(struct mag_slab_head *b)
{
    mag_slab_free(&cache, b);
}

static void count(struct mag_slab_head *block, void *arg)
{
    (void)block;
    ++*(unsigned *)arg;
}

static unsigned n_used(void)
{
    unsigned n = 0;

    mag_slab_foreach(count, &n);
    return n;
}

Test(slab, blocks_are_aligned_and_apart)
{
    static struct mag_slab_head *blocks[3000];
    static const size_t sizes[] = { 64, 65, 200, 1024, 2048, 2049, 5000, 100000 };

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        unsigned n = sizes[s] > 10000 ? 10 : 3000;
        for (unsigned i = 0; i < n; i++) {
            blocks[i] = get(sizes[s]);
            cr_assert_eq((uintptr_t)blocks[i] % 64, 0);
            memcpy((char *)blocks[i] + sizeof *blocks[i], &i, sizeof i);
            memcpy((char *)blocks[i] + sizes[s] - sizeof i, &i, sizeof i);
        }
        cr_assert_eq(n_used(), n);
        for (unsigned i = 0; i < n; i++) {
            cr_assert_eq(memcmp((char *)blocks[i] + sizeof *blocks[i], &i, sizeof i), 0);
            cr_assert_eq(memcmp((char *)blocks[i] + sizes[s] - sizeof i, &i, sizeof i), 0);
            put(blocks[i]);
        }
        cr_assert_eq(n_used(), 0);
    }
}

/* A fresh chunk may hold more than a cache keeps: the first free trims it. */
static void warm_up(size_t bytes)
{
    put(get(bytes));
}

Test(slab, last_freed_is_first_reused)
{
    struct mag_slab_head *a, *b;

    warm_up(100);
    a = get(100);
    b = get(100);
    put(a);
    put(b);
    cr_assert_eq(get(100), b);
    cr_assert_eq(get(100), a);
    put(a);
    put(b);
}

Test(slab, a_freed_block_is_known_as_free)
{
    struct mag_slab_head *a = get(100);

    put(a);
    cr_assert_eq(a->used, 0);
}

Test(slab, sizes_of_one_class_share_blocks)
{
    struct mag_slab_head *a, *b;

    warm_up(65);
    a = get(65);
    put(a);
    b = get(128);
    cr_assert_eq(a, b);
    put(b);
    cr_assert_neq(b = get(129), a);
    put(b);
}

Test(slab, reuses_memory)
{
    struct mag_slab_head *blocks[500];
    int64_t live = 0;

    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 500; i++)
            blocks[i] = get(192);
        for (int i = 0; i < 500; i++)
            put(blocks[i]);
        if (round == 1)
            live = mag_mem_live();
    }
    cr_assert_eq(mag_mem_live(), live);
}

Test(slab, what_one_cache_frees_another_gets)
{
    static struct mag_slab_head *blocks[5000];
    struct mag_slab_cache second;
    int64_t live = 0;

    mag_slab_open(&second);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 5000; i++)
            blocks[i] = get_from(&cache, 192);
        for (int i = 0; i < 5000; i++)
            mag_slab_free(&second, blocks[i]);
        if (round == 2)
            live = mag_mem_live();
    }
    cr_assert_leq(second.bins[3].now->n, MAG_SLAB_MAGAZINE);
    cr_assert_leq(mag_mem_live(), live + 2);
    mag_slab_close(&second);
}

Test(slab, works_without_a_cache)
{
    struct mag_slab_head *a = get_from(NULL, 300), *b = get_from(NULL, 300);
    struct mag_slab_head *large = get_from(NULL, 9000);

    cr_assert_neq(a, b);
    cr_assert_eq(n_used(), 3);
    mag_slab_free(NULL, a);
    mag_slab_free(NULL, b);
    mag_slab_free(NULL, large);
    cr_assert_eq(n_used(), 0);
}

Test(slab, trims_only_when_nothing_is_used_or_cached)
{
    struct mag_slab_head *a;

    mag_slab_close(&cache);
    a = get_from(NULL, 100);
    cr_assert_eq(mag_slab_trim(), 1);
    cr_assert_gt(mag_mem_live(), 0);
    mag_slab_free(NULL, a);

    mag_slab_open(&cache);
    put(get(100));
    cr_assert_eq(mag_slab_trim(), 0);
    cr_assert_gt(mag_mem_live(), 0, "a cache may hold free blocks");
    put(get(100));
    mag_slab_close(&cache);
    cr_assert_eq(mag_slab_trim(), 0);
    cr_assert_eq(mag_mem_live(), 0);
    mag_slab_open(&cache);
}

Test(slab, answers_null_without_memory)
{
    mag_mem_fail_nth(1, true);
    cr_assert_null(mag_slab_alloc(&cache, 100));
    cr_assert_null(mag_slab_alloc(NULL, 100));
    cr_assert_null(mag_slab_alloc(&cache, 100000));
    mag_mem_fail_nth(0, false);
    put(get(100));
}

static void *churn(void *arg)
{
    struct mag_slab_cache mine;
    struct mag_slab_head *held[64] = { NULL };
    unsigned seed = (unsigned)(uintptr_t)arg;

    mag_slab_open(&mine);
    for (int i = 0; i < 100000; i++) {
        unsigned r = (seed = seed * 1664525 + 1013904223) >> 16, at = r % 64;
        if (held[at]) {
            mag_slab_free(r & 64 ? &mine : NULL, held[at]);
            held[at] = NULL;
        } else {
            held[at] = get_from(r & 64 ? &mine : NULL, 64 + r / 64 % 8 * 300);
        }
        if (i % 1000 == 0)
            (void)n_used();
    }
    for (int i = 0; i < 64; i++)
        if (held[i])
            mag_slab_free(&mine, held[i]);
    mag_slab_close(&mine);
    return NULL;
}

Test(slab, many_threads)
{
    pthread_t threads[4];

    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, churn, (void *)(i + 1));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(n_used(), 0);
}
