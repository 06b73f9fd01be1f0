/* SPDX-License-Identifier: MIT */
#ifndef MAG_MEM_H
#define MAG_MEM_H
/*
 * mem.h - the door for memory
 *
 * No other file of runtime/ or io/ allocates from the heap.  Each function answers
 * NULL where there is no memory, which the caller turns into -ENOMEM.  Zero bytes
 * is a valid size with an address of its own.  Any thread; never suspends.
 */
#include "base.h"

MAG_MODULE void *mag_mem_alloc(size_t bytes) MAG_MUST_USE;
MAG_MODULE void *mag_mem_zalloc(size_t bytes) MAG_MUST_USE;
/* `align' is a power of two. */
MAG_MODULE void *mag_mem_alloc_aligned(size_t align, size_t bytes) MAG_MUST_USE;
/* As realloc(3): on NULL the old block is still there.  Loses an alignment above 16. */
MAG_MODULE void *mag_mem_realloc(void *p, size_t bytes) MAG_MUST_USE;
/* NULL is allowed. */
MAG_MODULE void mag_mem_free(void *p);

/* ---- for tests --------------------------------------------------------------- */

/*
 * The n-th allocation from now fails (1 is the next), and if `persistent' all after
 * it as well.  0 disarms.  A huge n only counts.
 */
void mag_mem_fail_nth(uint64_t n, bool persistent);
/* Allocations asked for since mag_mem_fail_nth() armed; the failed ones too. */
uint64_t mag_mem_count(void);
/* Blocks that are allocated and not freed, exact while no other thread allocates. */
int64_t mag_mem_live(void);

#endif
