/* SPDX-License-Identifier: MIT */
#ifndef MAG_RAND_H
#define MAG_RAND_H
/*
 * rand.h - the door for randomness: a small seeded generator
 *
 * A thief picks its victim, a back-off picks its length.  Neither needs a good
 * generator, both need a fast one, and a simulation needs one that a seed repeats.
 * This is splitmix64: one word of state, which just counts; every seed is good,
 * zero too; it passes BigCrush; under 1 ns.  Nothing secret may come from it.
 *
 * Owner only: each worker has its own.
 *
 * Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators"
 * (2014), with Stafford's mix 13.
 */
#include "base.h"
#include "sys.h"

struct mag_rand {
    uint64_t s; /* [owner] the counter */
};

static inline void mag_rand_init(struct mag_rand *r, uint64_t seed)
{
    r->s = seed;
}

/* A seed from the kernel, or, should it have none yet, from an address (which the
 * kernel randomized). */
static inline uint64_t mag_rand_seed(void)
{
    uint64_t seed;

    if (mag_sys_getrandom(&seed, sizeof seed) != (ssize_t)sizeof seed)
        seed = (uint64_t)(uintptr_t)&seed;
    return seed;
}

static inline uint64_t mag_rand_next(struct mag_rand *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Below n, which is at least 1.  Multiplies instead of dividing; the bias is under
 * n / 2^32. */
static inline uint32_t mag_rand_below(struct mag_rand *r, uint32_t n)
{
    return (uint32_t)(((mag_rand_next(r) >> 32) * n) >> 32);
}

#endif
