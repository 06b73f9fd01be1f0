/* SPDX-License-Identifier: MIT */
#ifndef MAG_SLAB_H
#define MAG_SLAB_H
/*
 * slab.h - memory for coroutine objects, which stays theirs
 *
 * Blocks of equal size are cut from chunks, and a chunk never becomes anything else
 * while objects exist.  That buys three things: a block costs 2 ns from the worker's
 * cache; a handle that was consumed can still be recognised as such (-EALREADY, not
 * a crash); and all objects of the process can be walked, which is how a coroutine
 * that was never awaited is found without a list that every task would have to join.
 *
 * A block begins with a word of this file (its link while it is free) and then a
 * `used' byte of the owner's choosing that is 0 while it is free: struct mag_slab_head.
 * One pool for the process, because coroutines are made before their runtime is.
 *
 * Who may call: alloc and free any thread, with its worker's cache or NULL; foreach
 * any thread, but what it visits may be changing.
 *
 * Rejected: malloc for each (16 to 20 ns a pair, and nothing can be walked); one list
 * of live objects (two cache misses and a lock for each task).
 */
#include "atomic.h"

enum {
    MAG_SLAB_STEP = 64,      /* block sizes are multiples of it                         */
    MAG_SLAB_CLASSES = 32,   /* up to 2 KiB; larger objects are chunks of their own      */
    MAG_SLAB_CACHE_MAX = 256 /* free blocks of one class in one worker's cache           */
};

struct mag_slab_head {
    struct mag_slab_head *next; /* [slab] while free; the owner's while used   */
    mag_atomic(uint32_t) used;  /* [owner] not 0 while used                    */
    uint32_t size_class;        /* [slab] const                                */
};

struct mag_slab_bin {
    struct mag_slab_head *free; /* [owner] last freed first */
    uint32_t count;             /* [owner]                  */
};

/* [owner] one per worker. */
struct mag_slab_cache {
    struct mag_slab_bin bins[MAG_SLAB_CLASSES + 1];
};

/* From the shared pool, or by a new chunk; NULL when memory is out. */
void *mag_slab_refill(struct mag_slab_cache *cache, uint32_t size_class, size_t bytes);
/* A block that the cache has no room for. */
void mag_slab_spill(struct mag_slab_cache *cache, struct mag_slab_head *block);

/* Begins an empty cache; gives all that is cached back, before the owner ends. */
void mag_slab_open(struct mag_slab_cache *cache);
void mag_slab_close(struct mag_slab_cache *cache);

/* Frees every chunk if no block is used and no cache is open; returns the used blocks. */
size_t mag_slab_trim(void);

/* Calls fn, which must not allocate or free here, for each used block. */
void mag_slab_foreach(void (*fn)(struct mag_slab_head *block, void *arg), void *arg);

/* A block of at least `bytes', contents undefined but for the class. */
static inline void *mag_slab_alloc(struct mag_slab_cache *cache, size_t bytes)
{
    uint32_t class = (uint32_t)((bytes + MAG_SLAB_STEP - 1) / MAG_SLAB_STEP);

    if (MAG_LIKELY(cache != NULL && class <= MAG_SLAB_CLASSES)) {
        struct mag_slab_bin  *bin = &cache->bins[class];
        struct mag_slab_head *block = bin->free;
        if (MAG_LIKELY(block != NULL)) {
            bin->free = block->next;
            bin->count--;
            return block;
        }
    }
    return mag_slab_refill(cache, class, bytes);
}

static inline void mag_slab_free(struct mag_slab_cache *cache, struct mag_slab_head *block)
{
    if (MAG_LIKELY(cache != NULL && block->size_class <= MAG_SLAB_CLASSES)) {
        struct mag_slab_bin *bin = &cache->bins[block->size_class];
        if (MAG_LIKELY(bin->count < MAG_SLAB_CACHE_MAX)) {
            mag_store_relaxed(&block->used, 0); /* read by foreach as a hint */
            block->next = bin->free;
            bin->free = block;
            bin->count++;
            return;
        }
    }
    mag_slab_spill(cache, block);
}

#endif
