/* SPDX-License-Identifier: MIT */
/*
 * group.c - random trees of task groups, and children that fail at the same moment
 *
 * Each node of a tree is a group, perhaps limited, perhaps under a deadline.  Its children
 * are nodes themselves, or leaves that compute, yield, sleep, begin more children in the
 * group, cancel the group, fail; they are spawned, kept as handles (and awaited, detached,
 * cancelled, or forgotten), or started.  Whole trees are cancelled from outside.  Each leave
 * must find that nothing of its group is left, and an error must come out of exactly those
 * groups in which a child failed.
 *
 * Then children on all workers fail, cancel the group, and time it out at one moment, again
 * and again, while the owner is in the block, begins more, or leaves.  At the end nothing has
 * leaked.
 */
#include "stress.h"

#include <errno.h>

#include <magpie/group.h>
#include <magpie/scope.h>
#include <magpie/sync.h>

enum {
    TREES = STRESS_SCALE(4000, 500),
    MOMENTS = STRESS_SCALE(6000, 1500),
    MOVERS = STRESS_SCALE(2000, 300),
    DEPTH = 3,
    WIDTH = 6,
    FAILURE = -ENOSPC,
};

enum mood { CALM, FAILS, CANCELS, TIMES_OUT, CANCELLED, MOODS };

struct tree {
    struct mag_group        *g;
    enum mood                mood;
    int                      depth;
    bool                     is_limited;
    mag_atomic(uint32_t)     n_open;   /* children of this group that are in their bodies */
    mag_atomic(uint32_t)     n_failed; /* that are going to return FAILURE                */
    mag_atomic(uint32_t)     n_done;
};

async_decl(long, node, (uint64_t, seed), (int, depth), (enum mood, mood));

static int begin_child(struct tree *t, uint64_t seed, int depth, struct mag_rand *r, long *result,
                       void **handle);

/* What a leaf does, by chance; its rc. */
static int act(struct tree *t, struct mag_rand *r, uint64_t seed)
{
    int rc = 0;

    switch (mag_rand_below(r, 8)) {
    case 0: rc = mag_yield(); break;
    case 1: rc = mag_sleep(mag_rand_below(r, 50) * MAG_US); break;
    case 2: stress_spin(mag_rand_below(r, 5) * MAG_US); break;
    case 3:
        if (!t->is_limited && mag_rand_below(r, 4) == 0) /* or all wait for each other */
            rc = begin_child(t, seed * 7 + 1, 0, r, NULL, NULL);
        break;
    case 4:
        if (t->mood == CANCELS && mag_rand_below(r, 4) == 0)
            rc = mag_group_cancel(t->g);
        break;
    case 5: rc = mag_checkpoint(); break;
    default: break;
    }
    if (rc >= 0 && t->mood == FAILS && mag_rand_below(r, 20) == 0)
        rc = FAILURE;
    return rc;
}

async(long, leaf, (struct tree *, t), (uint64_t, seed), (bool, is_started))
{
    struct mag_rand r = stress_rand(seed);
    int             rc;

    mag_fetch_add(&t->n_open, 1);
    rc = act(t, &r, seed);
    if (is_started && rc == 0) {
        rc = mag_started(&seed, sizeof seed);
        if (rc == 0)
            rc = act(t, &r, seed);
        if (rc == FAILURE)
            mag_fetch_add(&t->n_failed, 1);
    } else if (!is_started && rc == FAILURE) {
        mag_fetch_add(&t->n_failed, 1);
    }
    EXPECT(rc == 0 || rc == FAILURE || rc == -ECANCELED);
    mag_fetch_add(&t->n_done, 1);
    mag_fetch_sub(&t->n_open, 1);
    if (rc < 0)
        return rc;
    async_return(1);
}

/* A child that is a whole group. */
async(long, inner, (struct tree *, t), (uint64_t, seed), (int, depth))
{
    long sum = 0;
    int  rc;

    mag_fetch_add(&t->n_open, 1);
    rc = mag_await(node(seed, depth, t->mood), &sum, sizeof sum);
    if (rc == FAILURE)
        mag_fetch_add(&t->n_failed, 1);
    mag_fetch_sub(&t->n_open, 1);
    if (rc < 0)
        return rc;
    async_return(sum);
}

static int begin_child(struct tree *t, uint64_t seed, int depth, struct mag_rand *r, long *result,
                       void **handle)
{
    struct mag_spawn_options options = { .worker = 1 + mag_rand_below(r, 4) };
    bool                     is_placed = mag_rand_below(r, 4) == 0;
    struct mag_spawn_options *o = is_placed ? &options : NULL;
    uint64_t                 said = 0;
    int                      rc;

    if (depth > 0 && mag_rand_below(r, 3) == 0)
        return mag_group_spawn(t->g, inner(t, seed, depth - 1), result, o);
    switch (mag_rand_below(r, handle ? 4 : 3)) {
    case 0:
        rc = mag_group_start(t->g, leaf(t, seed, true), &said, sizeof said, o);
        EXPECT(rc != 0 || said == seed);
        return rc == FAILURE ? 0 : rc; /* the starter's own business */
    case 3:
        *handle = leaf(t, seed, false);
        return mag_group_task(t->g, *handle, o);
    default:
        return mag_group_spawn(t->g, leaf(t, seed, false), result, o);
    }
}

static int use_handle(void *task, struct mag_rand *r)
{
    long v;

    switch (mag_rand_below(r, 5)) {
    case 0: mag_cancel(task); break;
    case 1: mag_detach(task); break;
    case 2:
        mag_cancel(task);
        mag_detach(task);
        break;
    case 3: return 0;
    default: return mag_await(task, &v, sizeof v) == -ECANCELED ? -ECANCELED : 0;
    }
    return 0;
}

static int node_block(struct tree *t, uint64_t seed, struct mag_rand *r, long *results)
{
    unsigned n = 1 + mag_rand_below(r, WIDTH);

    for (unsigned i = 0; i < n; i++) {
        void *handle = NULL;
        int   rc = begin_child(t, seed * 31 + i, t->depth, r, &results[i], &handle);
        if (rc < 0)
            return rc;
        if (handle && (rc = use_handle(handle, r)) < 0)
            return rc;
        if (mag_rand_below(r, 8) == 0 && (rc = mag_yield()) < 0)
            return rc;
    }
    if (mag_rand_below(r, 4) == 0)
        return mag_sleep(mag_rand_below(r, 100) * MAG_US);
    return 0;
}

static int node_group(struct tree *t, uint64_t seed, struct mag_rand *r, long *results)
{
    struct mag_group         g;
    struct mag_group_errors  errors;
    struct mag_group_options o = { .errors = mag_rand_below(r, 2) ? &errors : NULL };
    int                      rc;

    if (mag_rand_below(r, 4) == 0)
        o.limit = 1 + mag_rand_below(r, 4);
    t->g = &g;
    t->is_limited = o.limit != 0;
    EXPECT(mag_group_enter(&g, &o) == 0);
    rc = mag_group_leave(&g, node_block(t, seed, r, results));
    EXPECT(mag_load_acquire(&t->n_open) == 0);
    EXPECT(!o.errors || (rc == FAILURE) <= (errors.n > 0));
    EXPECT((rc == FAILURE) == (mag_load_relaxed(&t->n_failed) != 0));
    return rc;
}

async_def(long, node, (uint64_t, seed), (int, depth), (enum mood, mood))
{
    struct mag_rand  r = stress_rand(seed);
    struct tree      t = { .mood = mood, .depth = depth };
    long             results[WIDTH] = { 0 }, sum = 0;
    struct mag_scope s;
    mag_time         deadline = MAG_NEVER;
    int              rc;

    if (mood == TIMES_OUT && mag_rand_below(&r, 3) == 0)
        deadline = mag_now() + mag_rand_below(&r, 200) * MAG_US;
    EXPECT(mag_scope_enter(&s, deadline, NULL) == 0);
    rc = mag_scope_leave(&s, node_group(&t, seed, &r, results));
    stress_beat();
    EXPECT(rc == 0 || rc == -ECANCELED || (rc == FAILURE && mood == FAILS) ||
           (rc == -ETIMEDOUT && deadline != MAG_NEVER));
    EXPECT(mood != CALM || rc == 0 || rc == -ECANCELED); /* a handle that it cancelled itself */
    if (rc == -ETIMEDOUT)
        rc = 0;
    if (rc < 0)
        return rc;
    for (int i = 0; i < WIDTH; i++)
        sum += results[i];
    async_return(sum);
}

async(void, trees)
{
    for (int i = 0; i < TREES; i++) {
        uint64_t        seed = stress.seed + (uint64_t)i * 1000003;
        struct mag_rand r = stress_rand(seed + 7);
        enum mood       mood = (enum mood)(i % MOODS);
        struct node    *root = node(seed, DEPTH, mood);

        if (mood == CANCELLED) {
            (void)spawn(root);
            await(mag_sleep(mag_rand_below(&r, 200) * MAG_US));
            EXPECT(mag_cancel(root) == 0);
        }
        int rc = await_rc(root, NULL);
        EXPECT(rc == 0 || rc == -ECANCELED || (rc == FAILURE && mood == FAILS));
    }
    return 0;
}

/* ---- at one moment ----------------------------------------------------------------------- */

enum deed { FAIL, CANCEL_GROUP, CANCEL_OWNER, GO_ON, DEEDS };

struct moment {
    struct mag_group    *g;
    struct mag_task     *owner;
    mag_atomic(uint32_t) n_there;
    mag_atomic(uint32_t) n_failed;
    uint32_t             n;
};

static void meet(struct moment *m)
{
    mag_time end = mag_clock_now() + 50 * MAG_US; /* on a busy machine they miss each other */

    mag_fetch_add(&m->n_there, 1);
    while (mag_load_acquire(&m->n_there) < m->n && mag_clock_now() < end)
        mag_cpu_relax();
}

async(void, doer, (struct moment *, m), (enum deed, deed))
{
    meet(m);
    switch (deed) {
    case FAIL: mag_fetch_add(&m->n_failed, 1); return FAILURE;
    case CANCEL_GROUP: return mag_group_cancel(m->g);
    case CANCEL_OWNER: return mag_cancel(m->owner);
    default: return mag_sleep(MAG_NEVER); /* the owner's deadline ends it */
    }
}

static int moment_block(struct moment *m, struct mag_rand *r)
{
    uint32_t way = mag_rand_below(r, 4);
    int      rc = 0;

    for (unsigned i = 0; i < 4 && rc == 0; i++) {
        struct mag_spawn_options o = { .worker = 1 + i };
        enum deed                deed = (enum deed)mag_rand_below(r, DEEDS);
        rc = mag_group_spawn(m->g, doer(m, deed), NULL, &o);
    }
    if (rc == 0 && way == 1)
        rc = mag_sleep(mag_rand_below(r, 20) * MAG_US);
    for (int i = 0; i < 20 && rc == 0 && way == 2; i++)
        rc = mag_group_spawn(m->g, doer(m, GO_ON), NULL, NULL);
    return rc;
}

async(void, one_moment, (uint64_t, seed))
{
    struct mag_rand  r = stress_rand(seed);
    struct mag_group g;
    struct moment    m = { .g = &g, .owner = mag_self(), .n = 4 };
    struct mag_scope s;
    int              rc;

    EXPECT(mag_scope_enter(&s, mag_now() + mag_rand_below(&r, 60) * MAG_US, NULL) == 0);
    EXPECT(mag_group_enter(&g, NULL) == 0);
    rc = mag_group_leave(&g, moment_block(&m, &r));
    EXPECT(rc == 0 || rc == FAILURE || rc == -ECANCELED);
    EXPECT((rc == FAILURE) == (mag_load_relaxed(&m.n_failed) != 0));
    rc = mag_scope_leave(&s, rc);
    EXPECT(rc == 0 || rc == FAILURE || rc == -ECANCELED || rc == -ETIMEDOUT);
    return 0;
}

async(void, moments)
{
    for (int i = 0; i < MOMENTS; i++) {
        struct one_moment *m = one_moment(stress.seed + (uint64_t)i * 7919);
        (void)spawn(m);
        int rc = await_rc(m, NULL);
        EXPECT(rc == 0 || rc == -ECANCELED);
        stress_beat();
    }
    return 0;
}

/* ---- owners that move --------------------------------------------------------------------- */

enum { N_PARTNERS = 2, ROUNDS = 8 };

struct court {
    struct mag_event     there[N_PARTNERS], back[N_PARTNERS];
    mag_atomic(uint32_t) is_over;
};

/* Answers, on its worker. */
async(void, partner, (struct court *, c), (int, i))
{
    for (;;) {
        await(mag_event_wait(&c->there[i]));
        mag_event_clear(&c->there[i]);
        if (mag_load_acquire(&c->is_over))
            return 0;
        mag_event_set(&c->back[i]);
    }
}

/* Who is woken by one worker again and again moves there: so the owner is to and fro, until
 * the group has stopped, wherever the message finds it. */
static int rally(struct court *c)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0; i++) {
        unsigned side = i / ROUNDS % N_PARTNERS;
        mag_event_set(&c->there[side]);
        rc = mag_event_wait(&c->back[side]);
        mag_event_clear(&c->back[side]);
    }
    return rc;
}

async(void, fails_after, (mag_time, ns))
{
    mag_time end = mag_now() + ns;

    while (mag_now() < end)
        await(mag_yield());
    return FAILURE;
}

async(void, mover, (struct court *, c), (uint64_t, seed))
{
    struct mag_rand          r = stress_rand(seed);
    struct mag_spawn_options o = { .worker = 1 + mag_rand_below(&r, 4) };
    struct mag_group         g;
    int                      rc;

    EXPECT(mag_group_enter(&g, NULL) == 0);
    rc = mag_group_spawn(&g, fails_after(mag_rand_below(&r, 200) * MAG_US), NULL, &o);
    EXPECT(rc == 0);
    rc = mag_group_leave(&g, rally(c));
    EXPECT(rc == FAILURE);
    return 0;
}

async(void, movers)
{
    struct court    c = { .is_over = 0 };
    struct partner *p[N_PARTNERS];

    for (int i = 0; i < N_PARTNERS; i++) {
        p[i] = partner(&c, i);
        EXPECT(mag_start(p[i], &(struct mag_spawn_options){ .worker = 2 + (unsigned)i,
                                                            .pin = true }) == 0);
    }
    for (int i = 0; i < MOVERS; i++) {
        struct mover *m = mover(&c, stress.seed + (uint64_t)i * 31);
        (void)spawn(m);
        await(m);
        stress_beat();
    }
    mag_store_release(&c.is_over, 1);
    for (int i = 0; i < N_PARTNERS; i++) {
        mag_event_set(&c.there[i]);
        await(p[i]);
    }
    return 0;
}

async(void, nothing)
{
    return 0;
}

int main(void)
{
    struct mag_rt_options o = { .workers = 4 };
    int64_t               n_blocks;

    stress_begin("group", NULL);
    mag_run(nothing(), NULL);
    n_blocks = mag_mem_live();
    EXPECT(mag_run_with(trees(), NULL, &o) == 0);
    EXPECT(mag_run_with(moments(), NULL, &o) == 0);
    EXPECT(mag_run_with(movers(), NULL, &o) == 0);
    EXPECT(mag_mem_live() == n_blocks);
    return stress_end();
}
