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

async_gen(int, count_to, (int, n), (const char *, after))
{
    for (int i = 1; i <= n; i++) {
        if (i == 2)
            yield(i);
        else
            yield(await(step(i)));
    }
    if (after != NULL)
        puts(after);
    return 0;
}

async_gen(const char *, names_of)
{
    yield("a");
    return 0;
}

async_gen(struct pair, never_iterated)
{
    yield((struct pair){ 1, 2 });
    return 0;
}

async_queue(struct pair, pairs);
async_queue(const char *, never_made);

struct range {
    int at, end;
};

static int range_next(struct range *r, int *out)
{
    *out = r->at;
    return r->at++ < r->end;
}

/* What is set in a block, and used after it. */
async(int, set_inside, (int, n))
{
    int a, b, c, d;

    with_timeout (MAG_SECOND)
        a = await(step(n));
    timeout_at (MAG_NEVER)
        with_shield (MAG_NEVER)
            b = a;
    task_group (g)
        group_spawn(g, step(b), &c);
    task_group (unused, .limit = 2)
        d = b;
    async_return(b + d - n);
}

/* A plain function, each way of which ends in a block. */
static int ends_inside(int n)
{
    if (n > 2) {
        task_group (g) {
            struct step *s = group_task(g, step(n));
            if (n > 3)
                return await(s) - n;
            return -EIO;
        }
    } else if (n > 1) {
        with_timeout (0.5 * MAG_SECOND)
            return 0;
    } else {
        with_shield (MAG_SECOND) {
            if (n == 1)
                return -EPERM;
            await(-EIO);
        }
    }
    return 0;
}

async(int, loops, (struct pairs, q))
{
    int n = 0, v;
    struct count_to *g = count_to(3, NULL);
    struct step *steps[] = { step(1), step(2) };

    async_for(int, i, count_to(4, NULL))
        async_for(int, j, count_to(i, NULL)) {
            if (i == j)
                continue;
            if (i > 3)
                break;
            n += j;
        }
    async_for(const char *, name, names_of())
        n += name[0] == 'a';
    async_for(int, i, async_iter(range_next, &(struct range){ 0, 3 }))
        n += i;
    async_for(int, unused, count_to(2, NULL))
        n++;
    async_for(struct step *, s, as_completed(steps, 2))
        n += await(s);
    while (await(anext(g, &v)) > 0)
        if (v == 2)
            queue_put(q, (struct pair){ v, v });
    mag_gen_close(g);
    mag_queue_shutdown(q.queue, false);
    async_for(struct pair, p, queue_items(q))
        n += p.a;
    n += (int)race(&v, step(5), step(await(step(5))));
    n += wait_for(step(1), MAG_SECOND, NULL) + wait_for(step(0), MAG_SECOND, &v);
    async_return(n);
}

/* Blocks and loops in each other, with and without braces. */
static int mixed(int how)
{
    for (int i = 0; i < 3; i++)
        async_with(lock, l, 1)
            with_timeout (MAG_SECOND)
                task_group (g)
                    async_for(int, k, count_to(2, NULL)) {
                        if (k == how)
                            return l->depth;
                        group_spawn(g, step(k));
                    }
    return 0;
}

async(void, blocks)
{
    struct pairs q = pairs(2, NULL);

    if (await(set_inside(4)) != 4)
        return -EINVAL;
    if (ends_inside(4) != 0 || ends_inside(3) != -EIO || ends_inside(2) != 0 ||
        ends_inside(1) != -EPERM || ends_inside(0) != -EIO)
        return -EINVAL;
    if (mixed(0) != 0 || mixed(2) != 1)
        return -EINVAL;
    if (await(loops(q)) < 15)
        return -EINVAL;
    mag_queue_free(q.queue);
    return 0;
}

async(void, demo)
{
    int n = 0, rcs[3];
    struct returns_inside *many[3] = { returns_inside(2), returns_inside(-1), returns_inside(1) };

    await(futures());
    await(blocks());
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
