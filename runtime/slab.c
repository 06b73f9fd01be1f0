/* SPDX-License-Identifier: MIT */
/*
 * slab.c - the shared pool behind the workers' caches
 *
 *      chunk: | link class | block | block | block | ...      64 KiB
 *                             |  free ones: in a worker's cache or in pool[class]
 *
 * A cache that runs dry takes a batch of half its size; one that is full gives half
 * back.  So two workers of which one allocates and the other frees meet at the lock
 * once in 128 objects.  A large object (above 2 KiB) is a chunk with one block, freed
 * at once.
 *
 * Invariants: (1) a block is free in exactly one list or used; (2) free blocks have
 * used == 0; (3) chunks are unlinked only by trim, or with their one large block;
 * (4) trim frees only when no cache may hold a block of them.
 */
#include "slab.h"

#include "atomic.h"
#include "list.h"
#include "mem.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    BATCH = MAG_SLAB_CACHE_MAX / 2,
    LARGE = MAG_SLAB_CLASSES + 1,
};

struct chunk {
    struct mag_list link;  /* [lock]  */
    uint32_t size_class;   /* [const] */
    uint32_t n_blocks;     /* [const] */
    MAG_CACHELINE char blocks[];
};

static struct {
    struct mag_spin       lock;
    struct mag_list       chunks;                       /* [lock] */
    struct mag_slab_head *free[MAG_SLAB_CLASSES + 1];   /* [lock] */
    size_t                n_caches;                     /* [lock] that may hold free blocks */
} pool;

static size_t block_bytes(uint32_t size_class, size_t bytes)
{
    return size_class > MAG_SLAB_CLASSES ? bytes : (size_t)size_class * MAG_SLAB_STEP;
}

static struct mag_slab_head *block_at(struct chunk *c, uint32_t i)
{
    return (struct mag_slab_head *)(c->blocks + (size_t)i * c->size_class * MAG_SLAB_STEP);
}

/* ---- chunks --------------------------------------------------------------------- */

static void link_chunk(struct chunk *c)
{
    mag_spin_lock(&pool.lock);
    if (pool.chunks.next == NULL)
        mag_list_init(&pool.chunks);
    mag_list_push_back(&pool.chunks, &c->link);
    mag_spin_unlock(&pool.lock);
}

/* With the first block marked as used, if it goes straight to a user. */
static struct chunk *chunk_new(uint32_t size_class, size_t bytes, uint32_t n_blocks, bool is_used)
{
    struct chunk *c = mag_mem_alloc_aligned(MAG_CACHE_BYTES, sizeof *c + bytes * n_blocks);

    if (c == NULL)
        return NULL;
    c->size_class = size_class;
    c->n_blocks = n_blocks;
    for (uint32_t i = 0; i < n_blocks; i++) {
        struct mag_slab_head *b = (struct mag_slab_head *)(c->blocks + i * bytes);
        b->used = is_used && i == 0;
        b->size_class = size_class;
        b->next = i + 1 < n_blocks ? (struct mag_slab_head *)(c->blocks + (i + 1) * bytes) : NULL;
    }
    link_chunk(c);
    return c;
}

static void *large_new(size_t bytes)
{
    struct chunk *c = chunk_new(LARGE, (bytes + 63) & ~(size_t)63, 1, true);

    return c ? c->blocks : NULL;
}

static void large_free(struct mag_slab_head *block)
{
    struct chunk *c = mag_container_of((char *)block, struct chunk, blocks);

    mag_spin_lock(&pool.lock);
    block->used = 0;
    mag_list_remove(&c->link);
    mag_spin_unlock(&pool.lock);
    mag_mem_free(c);
}

/* ---- batches ----------------------------------------------------------------------- */

/* Detaches up to n blocks of the pool's list; the rest stays.  One that goes straight
 * to a user is marked under the lock, so that trim sees it. */
static struct mag_slab_head *pool_take(uint32_t size_class, uint32_t n, bool is_used,
                                       uint32_t *n_taken)
{
    struct mag_slab_head *first, *last;

    mag_spin_lock(&pool.lock);
    first = last = pool.free[size_class];
    for (*n_taken = last != NULL; last != NULL && *n_taken < n && last->next; ++*n_taken)
        last = last->next;
    if (last) {
        pool.free[size_class] = last->next;
        last->next = NULL;
        mag_store_relaxed(&first->used, is_used);
    }
    mag_spin_unlock(&pool.lock);
    return first;
}

/* Marks them as free under the lock, so that trim sees either all of it or nothing. */
static void pool_give(struct mag_slab_head *first)
{
    struct mag_slab_head *last = first;
    uint32_t              size_class;

    if (first == NULL)
        return;
    size_class = first->size_class;
    mag_spin_lock(&pool.lock);
    mag_store_relaxed(&first->used, 0);
    while (last->next)
        last = last->next;
    last->next = pool.free[size_class];
    pool.free[size_class] = first;
    mag_spin_unlock(&pool.lock);
}

void *mag_slab_refill(struct mag_slab_cache *cache, uint32_t size_class, size_t bytes)
{
    struct mag_slab_head *first;
    uint32_t              n;

    if (size_class > MAG_SLAB_CLASSES)
        return large_new(bytes);
    first = pool_take(size_class, cache ? BATCH : 1, cache == NULL, &n);
    if (first == NULL) {
        size_t        block = block_bytes(size_class, bytes);
        struct chunk *c = chunk_new(size_class, block, (uint32_t)(CHUNK_BYTES / block), cache == NULL);
        if (c == NULL)
            return NULL;
        first = block_at(c, 0);
        n = c->n_blocks;
    }
    if (cache) {
        cache->bins[size_class].free = first->next;
        cache->bins[size_class].count = n - 1;
    } else {
        pool_give(first->next);
    }
    return first;
}

void mag_slab_spill(struct mag_slab_cache *cache, struct mag_slab_head *block)
{
    struct mag_slab_bin  *bin;
    struct mag_slab_head *last;

    if (block->size_class > MAG_SLAB_CLASSES) {
        large_free(block);
        return;
    }
    block->next = NULL;
    if (cache) { /* keep the half that was freed last */
        bin = &cache->bins[block->size_class];
        last = bin->free;
        for (uint32_t i = 1; i < BATCH; i++)
            last = last->next;
        pool_give(last->next);
        last->next = NULL;
        bin->count = BATCH;
    }
    pool_give(block);
}

void mag_slab_open(struct mag_slab_cache *cache)
{
    *cache = (struct mag_slab_cache){ 0 };
    mag_spin_lock(&pool.lock);
    pool.n_caches++;
    mag_spin_unlock(&pool.lock);
}

void mag_slab_close(struct mag_slab_cache *cache)
{
    for (uint32_t i = 0; i <= MAG_SLAB_CLASSES; i++)
        pool_give(cache->bins[i].free);
    mag_spin_lock(&pool.lock);
    pool.n_caches--;
    mag_spin_unlock(&pool.lock);
}

/* ---- all of them ---------------------------------------------------------------------- */

static void foreach_locked(void (*fn)(struct mag_slab_head *block, void *arg), void *arg)
{
    if (pool.chunks.next == NULL)
        return;
    mag_list_foreach (link, &pool.chunks) {
        struct chunk *c = mag_container_of(link, struct chunk, link);
        for (uint32_t i = 0; i < c->n_blocks; i++)
            if (mag_load_relaxed(&block_at(c, i)->used)) /* a hint; fn looks closer */
                fn(block_at(c, i), arg);
    }
}

void mag_slab_foreach(void (*fn)(struct mag_slab_head *block, void *arg), void *arg)
{
    mag_spin_lock(&pool.lock);
    foreach_locked(fn, arg);
    mag_spin_unlock(&pool.lock);
}

static void count_used(struct mag_slab_head *block, void *arg)
{
    (void)block;
    ++*(size_t *)arg;
}

size_t mag_slab_trim(void)
{
    size_t n_used = 0;

    mag_spin_lock(&pool.lock);
    foreach_locked(count_used, &n_used);
    if (n_used == 0 && pool.n_caches == 0 && pool.chunks.next != NULL) {
        while (!mag_list_empty(&pool.chunks))
            mag_mem_free(mag_container_of(mag_list_pop_front(&pool.chunks), struct chunk, link));
        for (uint32_t i = 0; i <= MAG_SLAB_CLASSES; i++)
            pool.free[i] = NULL;
    }
    mag_spin_unlock(&pool.lock);
    return n_used;
}
