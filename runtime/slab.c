/* SPDX-License-Identifier: MIT */
/*
 * slab.c - the pool behind the workers' caches
 *
 *      chunk: | link class | block | block | block | ...            64 KiB
 *                              |
 *      a free block is in a magazine of a worker's cache, in one of pool.full[class],
 *      or in pool.loose[class], where threads without a cache take and give
 *
 * A worker that runs dry takes a full magazine from the pool, one whose two magazines
 * are full gives one: so two workers of which one allocates and the other frees meet at
 * the lock once in 126 objects.  A large object (above 2 KiB) is a chunk with one block.
 *
 * Invariants: (1) a block is in exactly one of these places or used; (2) free blocks have
 * used == 0; (3) chunks are unlinked only by trim, or with their one large block; (4)
 * trim frees only when no cache may hold a block of them.
 *
 * Out of memory for a magazine, blocks go through `loose', slower.
 */
#include "slab.h"

#include "list.h"
#include "mem.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    LARGE = MAG_SLAB_CLASSES + 1,
};

struct chunk {
    struct mag_list link; /* [lock]  */
    uint32_t size_class;  /* [const] */
    uint32_t n_blocks;    /* [const] */
    uint32_t n_cut;       /* [lock]  blocks handed out at least once */
    MAG_CACHELINE char blocks[];
};

/* A free block outside of magazines. */
struct loose {
    struct mag_slab_head head;
    struct loose *next;
};

static struct {
    struct mag_spin lock;
    struct mag_list chunks;                               /* [lock] */
    struct mag_slab_magazine *full[MAG_SLAB_CLASSES + 1]; /* [lock] */
    struct loose *loose[MAG_SLAB_CLASSES + 1];            /* [lock] */
    struct chunk *fresh[MAG_SLAB_CLASSES + 1];            /* [lock] newest, not all cut */
    struct mag_slab_magazine *empty;                      /* [lock] */
    size_t n_caches;                                      /* [lock] */
} pool;

static struct mag_slab_head *block_at(struct chunk *c, uint32_t i)
{
    return (struct mag_slab_head *)(c->blocks + (size_t)i * c->size_class * MAG_SLAB_STEP);
}

/* ---- chunks --------------------------------------------------------------------- */

static struct chunk *chunk_new(uint32_t size_class, size_t bytes, uint32_t n_blocks)
{
    struct chunk *c = mag_mem_alloc_aligned(MAG_CACHE_BYTES, sizeof *c + bytes * n_blocks);

    if (c == NULL)
        return NULL;
    c->size_class = size_class;
    c->n_blocks = n_blocks;
    c->n_cut = 0;
    return c;
}

/* Under the lock. */
static void link_chunk(struct chunk *c)
{
    if (pool.chunks.next == NULL)
        mag_list_init(&pool.chunks);
    mag_list_push_back(&pool.chunks, &c->link);
}

/* Under the lock: the next block that was never used, or NULL. */
static struct mag_slab_head *cut(struct chunk *c)
{
    struct mag_slab_head *block;

    if (c == NULL || c->n_cut == c->n_blocks)
        return NULL;
    block = block_at(c, c->n_cut++);
    mag_store_relaxed(&block->used, 0);
    block->size_class = c->size_class;
    return block;
}

static void *large_new(size_t bytes)
{
    struct chunk *c = chunk_new(LARGE, bytes, 1);
    struct mag_slab_head *block;

    if (c == NULL)
        return NULL;
    mag_spin_lock(&pool.lock);
    link_chunk(c);
    block = cut(c);
    mag_store_relaxed(&block->used, MAG_SLAB_RESERVED);
    mag_spin_unlock(&pool.lock);
    return block;
}

static void large_free(struct mag_slab_head *block)
{
    struct chunk *c = mag_container_of((char *)block, struct chunk, blocks);

    mag_spin_lock(&pool.lock);
    mag_store_relaxed(&block->used, 0);
    mag_list_remove(&c->link);
    mag_spin_unlock(&pool.lock);
    mag_mem_free(c);
}

/* ---- single blocks: threads without a cache ------------------------------------------ */

/* Under the lock. */
static struct mag_slab_head *take_one(uint32_t size_class)
{
    struct loose *l = pool.loose[size_class];
    struct mag_slab_magazine *m = pool.full[size_class];

    if (l) {
        pool.loose[size_class] = l->next;
        return &l->head;
    }
    if (m && m->n) {
        struct mag_slab_head *block = m->blocks[--m->n];
        if (m->n == 0) {
            pool.full[size_class] = m->next;
            m->next = pool.empty;
            pool.empty = m;
        }
        return block;
    }
    return cut(pool.fresh[size_class]);
}

/* A chunk from which blocks can be cut; false when memory is out. */
static bool freshen(uint32_t size_class)
{
    size_t bytes = (size_t)size_class * MAG_SLAB_STEP;
    struct chunk *c = chunk_new(size_class, bytes, (uint32_t)(CHUNK_BYTES / bytes)), *old;

    if (c == NULL)
        return false;
    mag_spin_lock(&pool.lock);
    link_chunk(c);
    while ((old = pool.fresh[size_class]) != NULL) { /* somebody was as quick: keep the rest */
        struct loose *l = (struct loose *)cut(old);
        if (l == NULL)
            break;
        l->next = pool.loose[size_class];
        pool.loose[size_class] = l;
    }
    pool.fresh[size_class] = c;
    mag_spin_unlock(&pool.lock);
    return true;
}

static void *alloc_one(uint32_t size_class)
{
    struct mag_slab_head *block;

    do {
        mag_spin_lock(&pool.lock);
        block = take_one(size_class);
        if (block)
            mag_store_relaxed(&block->used, MAG_SLAB_RESERVED); /* so that trim sees it */
        mag_spin_unlock(&pool.lock);
    } while (block == NULL && freshen(size_class));
    return block;
}

static void free_one(struct mag_slab_head *block)
{
    struct loose *l = (struct loose *)block;

    mag_spin_lock(&pool.lock);
    mag_store_relaxed(&block->used, 0);
    l->next = pool.loose[block->size_class];
    pool.loose[block->size_class] = l;
    mag_spin_unlock(&pool.lock);
}

/* ---- magazines ------------------------------------------------------------------------- */

/* Under the lock: as many as fit. */
static void fill(struct mag_slab_magazine *m, uint32_t size_class)
{
    struct mag_slab_head *block;

    while (m->n < MAG_SLAB_MAGAZINE && (block = take_one(size_class)) != NULL)
        m->blocks[m->n++] = block;
}

static struct mag_slab_magazine *magazine_new(void)
{
    struct mag_slab_magazine *m;

    mag_spin_lock(&pool.lock);
    m = pool.empty;
    if (m)
        pool.empty = m->next;
    mag_spin_unlock(&pool.lock);
    if (m == NULL)
        m = mag_mem_alloc(sizeof *m);
    if (m)
        m->n = 0;
    return m;
}

/* Exchanges an empty magazine for one with blocks. */
static struct mag_slab_magazine *exchange(struct mag_slab_magazine *m, uint32_t size_class)
{
    struct mag_slab_magazine *full;

    mag_spin_lock(&pool.lock);
    full = pool.full[size_class];
    if (full) {
        pool.full[size_class] = full->next;
        m->next = pool.empty;
        pool.empty = m;
        m = full;
    } else {
        fill(m, size_class);
    }
    mag_spin_unlock(&pool.lock);
    return m;
}

static void give(struct mag_slab_magazine *m, uint32_t size_class)
{
    struct mag_slab_magazine **list = m->n ? &pool.full[size_class] : &pool.empty;

    mag_spin_lock(&pool.lock);
    m->next = *list;
    *list = m;
    mag_spin_unlock(&pool.lock);
}

static void swap(struct mag_slab_bin *bin)
{
    struct mag_slab_magazine *m = bin->now;

    bin->now = bin->spare;
    bin->spare = m;
}

void *mag_slab_refill(struct mag_slab_cache *cache, uint32_t size_class, size_t bytes)
{
    struct mag_slab_bin *bin;

    if (size_class > MAG_SLAB_CLASSES)
        return large_new(bytes);
    if (cache == NULL)
        return alloc_one(size_class);
    bin = &cache->bins[size_class];
    if (bin->spare && bin->spare->n)
        swap(bin);
    else if (bin->now == NULL && (bin->now = magazine_new()) == NULL)
        return alloc_one(size_class);
    do {
        if (bin->now->n == 0)
            bin->now = exchange(bin->now, size_class);
        if (bin->now->n)
            return bin->now->blocks[--bin->now->n];
    } while (freshen(size_class));
    return NULL;
}

void mag_slab_spill(struct mag_slab_cache *cache, struct mag_slab_head *block)
{
    uint32_t size_class = block->size_class;
    struct mag_slab_bin *bin = cache ? &cache->bins[size_class % LARGE] : NULL;
    struct mag_slab_magazine *m;

    if (size_class > MAG_SLAB_CLASSES) {
        large_free(block);
        return;
    }
    if (bin && bin->spare && bin->spare->n == 0)
        swap(bin);
    if (bin && (bin->now == NULL || bin->now->n == MAG_SLAB_MAGAZINE) &&
        (m = magazine_new()) != NULL) {
        if (bin->spare)
            give(bin->spare, size_class);
        bin->spare = bin->now;
        bin->now = m;
    }
    if (bin && bin->now && bin->now->n < MAG_SLAB_MAGAZINE) {
        mag_store_relaxed(&block->used, 0);
        bin->now->blocks[bin->now->n++] = block;
    } else {
        free_one(block);
    }
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
    for (uint32_t i = 0; i <= MAG_SLAB_CLASSES; i++) {
        if (cache->bins[i].now)
            give(cache->bins[i].now, i);
        if (cache->bins[i].spare)
            give(cache->bins[i].spare, i);
    }
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
        for (uint32_t i = 0; i < c->n_cut; i++)
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

static void magazines_free(struct mag_slab_magazine **list)
{
    struct mag_slab_magazine *m;

    while ((m = *list) != NULL) {
        *list = m->next;
        mag_mem_free(m);
    }
}

size_t mag_slab_trim(void)
{
    size_t n_used = 0;

    mag_spin_lock(&pool.lock);
    foreach_locked(count_used, &n_used);
    if (n_used == 0 && pool.n_caches == 0 && pool.chunks.next != NULL) {
        while (!mag_list_empty(&pool.chunks))
            mag_mem_free(mag_container_of(mag_list_pop_front(&pool.chunks), struct chunk, link));
        for (uint32_t i = 0; i <= MAG_SLAB_CLASSES; i++) {
            magazines_free(&pool.full[i]);
            pool.loose[i] = NULL;
            pool.fresh[i] = NULL;
        }
        magazines_free(&pool.empty);
    }
    mag_spin_unlock(&pool.lock);
    return n_used;
}
