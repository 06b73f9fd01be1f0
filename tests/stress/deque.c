/* SPDX-License-Identifier: MIT */
/*
 * deque.c - every work that is pushed is taken exactly once
 *
 * One owner pushes and pops in all the ways that the runtime does: fork and join at
 * the bottom, bursts, works taken out of the middle, and long silences with private
 * works, which thieves must force.  The thieves steal to deques of their own, steal
 * from each other, ask, and force.  A work carries a word that says whether it is
 * somewhere in a deque; who takes it exchanges the word, and so finds out if he is the
 * second.  Works are used again as soon as they were taken.
 */
#include "deque.h"
#include "stress.h"
#include "sys.h"

enum {
    THIEVES = 3,
    ITEMS = 4096,
    WORKS = STRESS_SCALE(10000000, 1000000),
};

struct item {
    struct mag_work work;
    mag_atomic(uint32_t) is_there;
};

static struct mag_deque deques[THIEVES + 1]; /* the owner's is the last */
static struct item items[ITEMS];
static mag_atomic(uint32_t) n_hungry;
static mag_atomic(uint32_t) is_over;
static mag_atomic(uint64_t) n_taken[THIEVES + 1];
static mag_atomic(uint64_t) n_forced;

static bool is_hungry(struct mag_deque *d)
{
    (void)d;
    return mag_load_relaxed(&n_hungry) != 0;
}

/* Whoever has got a work. */
static void take(unsigned me, struct mag_work *work)
{
    struct item *it = mag_container_of(work, struct item, work);

    EXPECT(mag_xchg(&it->is_there, 0) == 1);
    mag_store_relaxed(&n_taken[me], n_taken[me] + 1);
}

/* ---- thieves ----------------------------------------------------------------------- */

static void ask_all(unsigned me)
{
    mag_fence_seq(); /* (F) pairs with deque.c (E) */
    for (unsigned i = 0; i <= THIEVES; i++)
        if (i != me)
            mag_store_relaxed(&deques[i].hot.lim, 0);
}

static bool steal_once(unsigned me, struct mag_rand *r)
{
    unsigned victim = mag_rand_below(r, 4) ? THIEVES : mag_rand_below(r, THIEVES);
    struct mag_work *work;

    if (victim == me)
        return false;
    work = mag_deque_steal(&deques[me], &deques[victim]);
    if (work) {
        take(me, work);
        return true;
    }
    if (mag_rand_below(r, 16) == 0)
        mag_deque_request(&deques[victim]);
    if (mag_rand_below(r, 8) == 0 && !mag_deque_has_public(&deques[victim]) &&
        !mag_deque_is_empty(&deques[victim]) && mag_deque_force(&deques[victim]))
        mag_fetch_add(&n_forced, 1);
    return false;
}

static void *thief(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    struct mag_rand r = stress_rand(me);
    struct mag_work *work;

    while (!mag_load_acquire(&is_over)) {
        bool has_stolen = false;
        mag_fetch_add_seq(&n_hungry, 1);
        ask_all(me);
        for (int i = 0; i < 20 && !has_stolen; i++)
            has_stolen = steal_once(me, &r);
        mag_fetch_sub_seq(&n_hungry, 1);
        /* Sometimes what was stolen stays for another thief. */
        if (mag_rand_below(&r, 4))
            while ((work = mag_deque_pop(&deques[me])) != NULL)
                take(me, work);
        if (mag_rand_below(&r, 64) == 0)
            sched_yield();
    }
    while ((work = mag_deque_pop(&deques[me])) != NULL)
        take(me, work);
    return NULL;
}

/* ---- the owner ---------------------------------------------------------------------- */

static uint64_t n_pushed;
static unsigned cursor;

static struct mag_deque *own(void)
{
    return &deques[THIEVES];
}

static bool pop_one(void)
{
    struct mag_work *work = mag_deque_pop(own());

    if (work)
        take(THIEVES, work);
    return work != NULL;
}

/* An item that is nowhere. */
static struct item *free_item(void)
{
    for (;;) {
        struct item *it = &items[cursor++ % ITEMS];
        if (!mag_load_acquire(&it->is_there))
            return it;
        if (cursor % ITEMS == 0 && !pop_one())
            sched_yield();
    }
}

static struct item *push_one(void)
{
    struct item *it = free_item();

    mag_store_relaxed(&it->is_there, 1);
    EXPECT(mag_deque_push(own(), &it->work));
    n_pushed++;
    return it;
}

/* As fork and join do, down to a depth. */
static void fork_join(int depth)
{
    struct item *it;

    if (depth == 0)
        return;
    it = push_one();
    fork_join(depth - 1);
    if (mag_deque_take(own(), &it->work))
        take(THIEVES, &it->work);
}

static void burst(struct mag_rand *r)
{
    struct item *some[64];
    unsigned n = 1 + mag_rand_below(r, 64);

    for (unsigned i = 0; i < n; i++)
        some[i] = push_one();
    /* Out of the middle; a thief may have had it, and the owner may have got it again
     * meanwhile: take says which. */
    for (unsigned i = 0; i < n / 4; i++) {
        struct item *it = some[mag_rand_below(r, n)];
        if (mag_load_relaxed(&it->is_there) && mag_deque_take(own(), &it->work))
            take(THIEVES, &it->work);
    }
    for (unsigned i = mag_rand_below(r, n + 1); i > 0; i--)
        (void)pop_one();
}

/* Busy with works in the private part: only force helps. */
static void silence(struct mag_rand *r)
{
    for (int i = 0; i < 4; i++)
        (void)push_one();
    stress_spin(mag_rand_below(r, 100) * MAG_US);
    for (unsigned i = mag_rand_below(r, 5); i > 0; i--)
        (void)pop_one();
}

static void own_deque(void)
{
    struct mag_rand r = stress_rand(THIEVES);

    while (n_pushed < WORKS) {
        unsigned what = mag_rand_below(&r, 256);
        if (what == 0)
            silence(&r);
        else if (what < 64)
            burst(&r);
        else
            fork_join((int)mag_rand_below(&r, 8));
        stress_beat();
    }
    while (pop_one())
        ;
}

static void state(void)
{
    for (unsigned i = 0; i <= THIEVES; i++)
        fprintf(stderr, "  deque %u: top %llu split %llu bot %llu guard %llx lim %llu\n", i,
                (unsigned long long)deques[i].top, (unsigned long long)deques[i].split,
                (unsigned long long)deques[i].hot.bot, (unsigned long long)deques[i].hot.guard,
                (unsigned long long)deques[i].hot.lim);
}

int main(void)
{
    pthread_t threads[THIEVES];
    uint64_t sum = 0;

    stress_begin("deque", state);
    (void)mag_sys_membarrier_register();
    for (unsigned i = 0; i <= THIEVES; i++)
        EXPECT(mag_deque_init(&deques[i], is_hungry) == 0);
    for (uintptr_t i = 0; i < THIEVES; i++)
        threads[i] = stress_thread(thief, (void *)i);
    own_deque();
    mag_store_release(&is_over, 1);
    for (unsigned i = 0; i < THIEVES; i++)
        (void)stress_joined(threads[i]);
    /* A thief may have ended before another asked it for what it kept. */
    for (unsigned i = 0; i <= THIEVES; i++) {
        struct mag_work *work;
        while ((work = mag_deque_pop(&deques[i])) != NULL)
            take(i, work);
        sum += n_taken[i];
        mag_deque_fini(&deques[i]);
    }
    EXPECT(sum == n_pushed);
    for (unsigned i = 0; i < ITEMS; i++)
        EXPECT(items[i].is_there == 0);
    printf("deque: %llu works, %llu taken by the owner, %llu forced\n",
           (unsigned long long)n_pushed, (unsigned long long)n_taken[THIEVES],
           (unsigned long long)n_forced);
    return stress_end();
}
