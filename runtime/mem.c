/* SPDX-License-Identifier: MIT */
/*
 * mem.c - the door for memory
 *
 * One place through which every heap block of the library passes, so that one
 * place can count the blocks (leaks), make the n-th request fail (to see that
 * everything above survives it), and choose the allocator.
 *
 * The allocator is jemalloc, called by its own names (mallocx, rallocx, dallocx),
 * because `malloc' means whatever the program was linked with.  What that does to
 * the program is worth knowing: Debian's libjemalloc also defines malloc and free.
 *   - Linked with the static library, the program itself names libjemalloc, before
 *     libc, so its own malloc becomes jemalloc's too.
 *   - Linked with the shared library, libc comes first in the search order, so its
 *     malloc stays libc's, and only magpie uses jemalloc.
 * Both are sound: a block always goes back to where it came from.  A program that
 * wants neither builds with -DMAGPIE_ALLOCATOR=system, and sanitizer builds always
 * do, since they must see each block.  A program that was not linked with either
 * and opens libmagpie.so by dlopen(3), as Python's ctypes does, is refused: "cannot
 * allocate memory in static TLS block", since Debian's jemalloc needs more of that
 * than glibc keeps spare.  Remedies: the system allocator, LD_PRELOAD=libjemalloc.so.2,
 * or GLIBC_TUNABLES=glibc.rtld.optional_static_tls=8192.
 *
 * Invariants
 *   1. live == blocks handed out - blocks taken back; a failed request changes
 *      nothing.
 *   2. A block is counted in the cell that its address selects, both when it comes
 *      and when it goes, so no cell drifts and threads seldom share a cache line.
 *
 * Who may call: any thread; may take a lock of the allocator, so no signal handler.
 *
 * Rejected: one counter for all (a cache line that every worker fights over);
 * counters per thread (they outlive nobody, and thread-locals have their own door).
 */
#include "mem.h"

#include "atomic.h"

#include <stdlib.h>
#include <string.h>

#if defined(MAG_ALLOCATOR_JEMALLOC)
#include <jemalloc/jemalloc.h>
#endif

enum {
    CELLS = 64, /* a power of two */
};

static struct {
    MAG_CACHELINE mag_atomic(int64_t) n; /* [any] blocks whose address selects this cell */
} live[CELLS];

static struct {
    mag_atomic(uint32_t) is_armed;  /* [any] the rest means something */
    mag_atomic(bool) is_persistent; /* [any] all from nth on fail, not it alone */
    mag_atomic(uint64_t) nth;       /* [any] which request fails */
    mag_atomic(uint64_t) count;     /* [any] requests since armed */
} fault;

/* ---- back-ends ----------------------------------------------------------------- */

#if defined(MAG_ALLOCATOR_JEMALLOC)

/* mallocx is undefined for zero bytes. */
static size_t at_least_one(size_t bytes)
{
    return bytes ? bytes : 1;
}

static void *raw_alloc(size_t bytes)
{
    return mallocx(at_least_one(bytes), 0);
}

static void *raw_zalloc(size_t bytes)
{
    return mallocx(at_least_one(bytes), MALLOCX_ZERO);
}

static void *raw_aligned(size_t align, size_t bytes)
{
    return mallocx(at_least_one(bytes), MALLOCX_ALIGN(align));
}

static void *raw_realloc(void *p, size_t bytes)
{
    return rallocx(p, at_least_one(bytes), 0);
}

static void raw_free(void *p)
{
    dallocx(p, 0);
}

#else

static void *raw_alloc(size_t bytes)
{
    return malloc(bytes ? bytes : 1);
}

static void *raw_zalloc(size_t bytes)
{
    return calloc(1, bytes ? bytes : 1);
}

static void *raw_aligned(size_t align, size_t bytes)
{
    void *p = NULL;

    if (align < sizeof(void *))
        align = sizeof(void *);
    return posix_memalign(&p, align, bytes ? bytes : 1) == 0 ? p : NULL;
}

static void *raw_realloc(void *p, size_t bytes)
{
    return realloc(p, bytes ? bytes : 1);
}

static void raw_free(void *p)
{
    free(p);
}

#endif

/* ---- counting and failing ------------------------------------------------------ */

static MAG_NOINLINE bool fails_armed(void)
{
    /* relaxed: a test arms before it starts what it tests, and reads at rest. */
    uint64_t n = mag_fetch_add(&fault.count, 1) + 1;
    uint64_t nth = mag_load_relaxed(&fault.nth);

    return n == nth || (n > nth && mag_load_relaxed(&fault.is_persistent));
}

static bool fails(void)
{
    return MAG_UNLIKELY(mag_load_relaxed(&fault.is_armed)) && fails_armed();
}

static void count_block(const void *p, int64_t by)
{
    uintptr_t a = (uintptr_t)p;

    mag_fetch_add(&live[(a >> 6 ^ a >> 12 ^ a >> 22) & (CELLS - 1)].n, by);
}

static void *counted(void *p)
{
    if (MAG_LIKELY(p != NULL))
        count_block(p, 1);
    return p;
}

void mag_mem_fail_nth(uint64_t n, bool persistent)
{
    mag_store_relaxed(&fault.is_armed, 0);
    mag_store_relaxed(&fault.is_persistent, persistent);
    mag_store_relaxed(&fault.nth, n);
    if (n == 0)
        return;
    mag_store_relaxed(&fault.count, 0);
    mag_store_release(&fault.is_armed, 1);
}

uint64_t mag_mem_count(void)
{
    return mag_load_acquire(&fault.count);
}

int64_t mag_mem_live(void)
{
    int64_t n = 0;

    for (size_t i = 0; i < CELLS; i++)
        n += mag_load_acquire(&live[i].n);
    return n;
}

/* ---- the door ------------------------------------------------------------------ */

void *mag_mem_alloc(size_t bytes)
{
    return fails() ? NULL : counted(raw_alloc(bytes));
}

void *mag_mem_zalloc(size_t bytes)
{
    return fails() ? NULL : counted(raw_zalloc(bytes));
}

void *mag_mem_alloc_aligned(size_t align, size_t bytes)
{
    return fails() ? NULL : counted(raw_aligned(align, bytes));
}

void *mag_mem_realloc(void *p, size_t bytes)
{
    void *q;

    if (!p)
        return mag_mem_alloc(bytes);
    if (fails())
        return NULL;
    /* Counted out before, since the address may belong to another at once after. */
    count_block(p, -1);
    q = raw_realloc(p, bytes);
    count_block(q ? q : p, 1);
    return q;
}

void mag_mem_free(void *p)
{
    if (!p)
        return;
    count_block(p, -1);
    raw_free(p);
}
