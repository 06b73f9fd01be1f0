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
 * A block begins with a word whose `used' half is the owner's, and 0 while the block is
 * free: struct mag_slab_head.  One pool for the process, because coroutines are made
 * before their runtime is.
 *
 * A cache holds, for each size, two magazines: arrays of free blocks.  Arrays, not
 * lists, because the next blocks are then known without touching this one, and can be
 * fetched into the processor's cache ahead of time: 100,000 objects in a row are more
 * than it holds.  Magazines are exchanged with the pool whole.
 *
 * Who may call: alloc and free any thread, with its worker's cache or NULL; foreach
 * any thread, but what it visits may be changing.
 *
 * Rejected: malloc for each (16 to 20 ns a pair, and nothing can be walked); one list
 * of live objects (two cache misses and a lock for each task); linked lists of free
 * blocks (each allocation waits for a cache miss).
 *
 * After Bonwick and Adams, "Magazines and Vmem" (2001).
 */
#include "atomic.h"

enum {
    MAG_SLAB_RESERVED = 255, /* used: handed out without a cache, not yet made           */
    MAG_SLAB_STEP = 64,      /* block sizes are multiples of it                         */
    MAG_SLAB_CLASSES = 32,   /* up to 2 KiB; larger objects are chunks of their own      */
    MAG_SLAB_MAGAZINE = 126, /* blocks in a magazine, which is 1 KiB then                */
    MAG_SLAB_AHEAD = 8       /* blocks fetched ahead                                     */
};

struct mag_slab_head {
    mag_atomic(uint32_t) used; /* [owner] not 0 while used                    */
    uint32_t size_class;       /* [slab] const                                */
};

struct mag_slab_magazine {
    struct mag_slab_magazine *next; /* [pool]  */
    uint32_t n;                     /* [owner] */
    struct mag_slab_head *blocks[MAG_SLAB_MAGAZINE];
};

/* [owner] of one size: `now' is in use; `spare' is full, empty or NULL. */
struct mag_slab_bin {
    struct mag_slab_magazine *now, *spare;
};

/* [owner] one per worker. */
struct mag_slab_cache {
    struct mag_slab_bin bins[MAG_SLAB_CLASSES + 1];
};

/* The slow halves: another magazine, or without a cache.  NULL when memory is out. */
void *mag_slab_refill(struct mag_slab_cache *cache, uint32_t size_class, size_t bytes);
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
        struct mag_slab_magazine *m = cache->bins[class].now;
        if (MAG_LIKELY(m != NULL && m->n != 0)) {
            if (m->n > MAG_SLAB_AHEAD) {
                __builtin_prefetch(m->blocks[m->n - 1 - MAG_SLAB_AHEAD], 1);
                __builtin_prefetch((char *)m->blocks[m->n - 1 - MAG_SLAB_AHEAD] + 64, 1);
            }
            return m->blocks[--m->n];
        }
    }
    return mag_slab_refill(cache, class, bytes);
}

static inline void mag_slab_free(struct mag_slab_cache *cache, struct mag_slab_head *block)
{
    if (MAG_LIKELY(cache != NULL && block->size_class <= MAG_SLAB_CLASSES)) {
        struct mag_slab_magazine *m = cache->bins[block->size_class].now;
        if (MAG_LIKELY(m != NULL && m->n < MAG_SLAB_MAGAZINE)) {
            mag_store_relaxed(&block->used, 0); /* read by foreach as a hint */
            m->blocks[m->n++] = block;
            return;
        }
    }
    mag_slab_spill(cache, block);
}

#endif
