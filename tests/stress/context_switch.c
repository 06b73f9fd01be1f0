/* SPDX-License-Identifier: MIT */
/*
 * context_switch.c - fibers that wander between threads, on stacks that are reused
 *
 * Two threads take fibers each from a queue of its own, run one until it yields, and put
 * it into the other's queue, so that a fiber changes threads at every switch.  It counts
 * in plain memory, in a local and in a heap word, which TSan must see as ordered by the
 * lock and by the switch; when one is done, its stack goes back and a new fiber starts.
 * At the same time two more threads get and put the largest stacks, of which only four
 * stay warm, so that slabs grow and pages are given back in parallel.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "clock.h"
#include "context.h"
#include "stack.h"
#include "sys.h"

#include <stdio.h>
#include <string.h>

enum {
    SCALE = MAG_TSAN || MAG_ASAN || MAG_CONTEXT_UCONTEXT ? 10 : 1,
    THREADS = 2,
    FIBERS = 32,
    YIELDS = 50,
    LIVES = 8 * 1000 / SCALE, /* fibers that are started in all */
    CHURNS = 4000 / SCALE,
    HELD_MAX = 7,
    TOP_BYTES = 1024,
};

struct fiber {
    struct mag_context ctx;
    struct mag_stack stack;
    struct mag_context *back; /* the loop that runs it now */
    struct fiber *next;
    uint64_t count;           /* plain memory that moves between the threads */
    bool is_done;
};

static struct mag_stacks stacks;
static struct fiber fibers[FIBERS];
static struct mag_context selves[THREADS]; /* of the threads' own stacks */
static struct mag_spin lock;
static struct fiber *heads[THREADS], *tails[THREADS]; /* [lock] */
static int n_started, n_ended;    /* [lock] */
static uint64_t n_migrations;     /* [lock] */
static mag_time last; /* [const] then no more are begun: a busy machine may be slow */

MAG_SUSPENDS static void yield(struct fiber *f)
{
    mag_context_switch(&f->ctx, f->back);
}

MAG_SUSPENDS static void resume(struct fiber *f, struct mag_context *self)
{
    f->back = self;
    mag_context_switch(self, &f->ctx);
}

static MAG_NOINLINE uint64_t deep(struct fiber *f, int depth)
{
    char frame[64];

    memset(frame, depth, sizeof frame);
    f->count++;
    if (depth == 0)
        yield(f);
    else
        (void)deep(f, depth - 1);
    return (uint64_t)frame[depth];
}

/* The array leaves poison on the stack under ASan: nobody returns from this frame. */
static MAG_NOINLINE void leave(struct fiber *f)
{
    volatile char frame[200];

    for (size_t i = 0; i < sizeof frame; i++)
        frame[i] = (char)f->count;
    f->is_done = frame[7] == (char)f->count;
    mag_context_leave(&f->ctx, f->back);
}

static void entry(void *arg)
{
    struct fiber *f = arg;
    uint64_t local = 0;

    for (int i = 0; i < YIELDS; i++) {
        local += deep(f, i % 5);
        yield(f);
    }
    MAG_CHECK(local == YIELDS / 5 * (0 + 1 + 2 + 3 + 4));
    MAG_CHECK(f->count == YIELDS / 5 * (1 + 2 + 3 + 4 + 5));
    leave(f);
}

static void push(struct fiber *f, unsigned to)
{
    mag_spin_lock(&lock);
    f->next = NULL;
    if (heads[to])
        tails[to]->next = f;
    else
        heads[to] = f;
    tails[to] = f;
    mag_spin_unlock(&lock);
}

static struct fiber *pop(unsigned from)
{
    struct fiber *f;

    mag_spin_lock(&lock);
    f = heads[from];
    if (f)
        heads[from] = f->next;
    mag_spin_unlock(&lock);
    return f;
}

static void start(struct fiber *f, unsigned to)
{
    memset(f, 0, sizeof *f);
    MAG_CHECK(mag_stack_get(&stacks, MAG_STACK_BYTES_MIN, &f->stack) == 0);
    /* The task layer keeps its records there. */
    memset(f->stack.lo + f->stack.bytes - TOP_BYTES, 0, TOP_BYTES);
    mag_context_make(&f->ctx, f->stack.lo, f->stack.bytes, entry, f);
    push(f, to);
}

/* The stack of f is free; a new life starts, if there are any left. */
static void end(struct fiber *f, unsigned to)
{
    bool again;

    mag_context_destroy(&f->ctx);
    mag_stack_put(&stacks, &f->stack);
    mag_spin_lock(&lock);
    n_ended++;
    again = n_started < LIVES && mag_clock_now() < last;
    n_started += again;
    mag_spin_unlock(&lock);
    if (again)
        start(f, to);
}

static bool all_ended(void)
{
    bool all;

    mag_spin_lock(&lock);
    all = n_ended == n_started;
    mag_spin_unlock(&lock);
    return all;
}

static void *loop(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg, other = (me + 1) % THREADS;
    struct mag_context *self = &selves[me];
    struct mag_stack_alt alt;
    uint64_t n = 0;
    struct fiber *f;

    MAG_CHECK(mag_stack_altstack_init(&alt) == 0);
    mag_context_thread(self);
    while (!all_ended()) {
        if ((f = pop(me)) == NULL) {
            mag_sys_yield();
            continue;
        }
        n += f->back != NULL && f->back != self;
        resume(f, self);
        if (f->is_done)
            end(f, other);
        else
            push(f, other);
    }
    mag_context_destroy(self);
    mag_stack_altstack_fini(&alt);
    mag_spin_lock(&lock);
    n_migrations += n;
    mag_spin_unlock(&lock);
    return NULL;
}

static void *churn(void *arg)
{
    struct mag_stack held[HELD_MAX];
    unsigned n, seed = (unsigned)(uintptr_t)arg;

    for (int i = 0; i < CHURNS; i++) {
        n = (seed = seed * 1103515245u + 12345u) >> 16;
        n = 1 + n % HELD_MAX;
        for (unsigned k = 0; k < n; k++) {
            MAG_CHECK(mag_stack_get(&stacks, MAG_STACK_BYTES_MAX, &held[k]) == 0);
            memset(held[k].lo + held[k].bytes - 64, (int)k, 64);
        }
        for (unsigned k = 0; k < n; k++) {
            MAG_CHECK(held[k].lo[held[k].bytes - 64] == (char)k);
            mag_stack_put(&stacks, &held[k]);
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[2 * THREADS];

    MAG_CHECK(mag_stacks_init(&stacks, false) == 0);
    MAG_CHECK(mag_stack_watch(NULL) == 0);
    n_started = FIBERS;
    last = mag_clock_now() + 10 * MAG_SECOND;
    for (int i = 0; i < FIBERS; i++)
        start(&fibers[i], (unsigned)i % THREADS);
    for (int i = 0; i < THREADS; i++) {
        void *arg = (void *)(uintptr_t)i;

        MAG_CHECK(mag_sys_thread_start(&threads[i], loop, arg, "loop") == 0);
        MAG_CHECK(mag_sys_thread_start(&threads[THREADS + i], churn, arg, "churn") == 0);
    }
    for (int i = 0; i < 2 * THREADS; i++)
        MAG_CHECK(mag_sys_thread_join(threads[i]) == 0);
    mag_stacks_fini(&stacks);
    printf("%d fibers, %llu migrations\n", n_ended, (unsigned long long)n_migrations);
    return n_migrations > 0 ? 0 : 1;
}
