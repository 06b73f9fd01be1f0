/* SPDX-License-Identifier: MIT */
/*
 * correct.c - programs without mistakes that are close to the compilers' warnings:
 * nothing may be said of them
 */
#include "correct.h"

#include <stdio.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(int, never_used, (double, x), (const char *, s))
{
    async_return(x > 0 && s != NULL);
}

async_future(int, answer);

struct lock {
    int depth;
};

static int lock_enter(struct lock *l, int depth)
{
    l->depth = depth;
    return depth < 0 ? -EINVAL : 0;
}

static void lock_exit(struct lock *l)
{
    l->depth = 0;
}

async_resource(lock)

/* Nested words, whose temporaries must not shadow each other. */
async(int, nests, (int, n))
{
    int x, r[2];
    struct pair p[1];

    if (n > 0)
        await(step(await(step(await(step(n))))));
    else
        await(say_nothing());

    if (n > 1)
        spawn(step(1));
    else if (n == 1)
        gather(r, step(await(step(1))), spawn(step(2)));
    else
        gather(NULL, say_nothing());

    if (n == 2)
        gather(p, swap((struct pair){ 1, 2 }), (.limit = 1));

    /* set in the block and used after it */
    async_with(lock, outer, await(step(1))) {
        async_with(lock, inner, outer->depth + 1)
            x = inner->depth;
    }
    for (int i = await(step(0)); i < await(step(2)); i++)
        x += await_rc(step(i), &r[0]) < 0 ? 0 : await(swap((struct pair){ i, i })).a;
    async_return(x);
}

/* Every way ends with a return of the block's own. */
async(int, returns_inside, (int, n))
{
    async_with(lock, l, n) {
        if (n > 1)
            async_return(l->depth);
        await(-EIO);
    }
    return -EINVAL;
}

async(void, futures)
{
    struct answer *f = answer(), *g = answer();

    if (f != NULL)
        future_set(f, await(step(4)));
    if (g != NULL)
        future_fail(g, -EIO);
    await(f);
    return await_rc(g, NULL) == -EIO ? 0 : -EINVAL;
}

async(void, demo)
{
    int n = 0, rcs[3];
    struct returns_inside *many[3] = { returns_inside(2), returns_inside(-1), returns_inside(1) };

    await(futures());
    gather_n(NULL, many, 3, .rcs = rcs);
    if (rcs[0] != 0 || rcs[1] != -EINVAL || rcs[2] != -EIO)
        return -EINVAL;
    for (int i = 0; i < 4; i++)
        n += await(nests(i));
    printf("%d\n", n);
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
