/* SPDX-License-Identifier: MIT */
/*
 * sync.c - events, semaphores, barriers, read-write locks and onces under everything at once
 *
 * Tasks on several workers and threads outside use each primitive; half of the tasks have
 * deadlines that pass now and then, and one task cancels others at random.  Counted, and
 * checked in the end or at each step:
 *
 *   event     a set wakes who waited before it; nobody waits for ever
 *   sem       never more inside than permits, and all permits are back
 *   barrier   in each round that somebody passed, every number once
 *   rwlock    a writer is alone, and what it writes is seen whole
 *   once      the function has succeeded once, and everybody saw that
 *
 * A call that was cancelled or timed out has done nothing.
 */
#include "stress.h"

#include <magpie.h>

#include <errno.h>

enum {
    ROUNDS = STRESS_SCALE(40, 6),
    STEPS = STRESS_SCALE(300, 60), /* of each user in a round */
    TASKS = 24,
    THREADS = 3,
    PERMITS = 3,
    PARTIES = 3,
};

static struct {
    struct mag_sem sem;
    mag_atomic(int32_t) inside;
    struct mag_rwlock lock;
    mag_atomic(int32_t) readers, writers;
    uint64_t left, right; /* [lock] equal */
    struct mag_event event;
    struct mag_once once[4];
    mag_atomic(int32_t) n_succeeded[4];
    mag_atomic(uint32_t) n_users; /* who is not over yet */
    mag_atomic(uint64_t) n_done, n_given_up;
} shared;

static bool is_given_up(int rc)
{
    bool is = rc == -ECANCELED;

    mag_fetch_add(is ? &shared.n_given_up : &shared.n_done, 1);
    EXPECT(rc >= 0 || is);
    return is;
}

/* A moment inside: in a task perhaps with a suspension, whose cancel is of no interest. */
static void linger(struct mag_rand *r, bool is_task)
{
    switch (mag_rand_below(r, 4)) {
    case 0:
        stress_spin(mag_rand_below(r, 2000));
        break;
    case 1:
        if (is_task)
            mag_yield();
        break;
    case 2:
        if (is_task)
            mag_sleep(mag_rand_below(r, 20000));
        break;
    default:
        break;
    }
}

/* ---- one use of each ------------------------------------------------------------------- */

static void use_sem(struct mag_rand *r, bool is_task)
{
    int rc = mag_rand_below(r, 4) ? mag_sem_acquire(&shared.sem) : mag_sem_try_acquire(&shared.sem);

    if (rc == -EAGAIN || is_given_up(rc))
        return;
    EXPECT(mag_fetch_add(&shared.inside, 1) < PERMITS);
    linger(r, is_task);
    mag_fetch_sub(&shared.inside, 1);
    EXPECT(mag_sem_release(&shared.sem) == 0);
}

static void use_to_read(struct mag_rand *r, bool is_task)
{
    uint64_t seen;

    if (is_given_up(mag_rwlock_rdlock(&shared.lock)))
        return;
    mag_fetch_add(&shared.readers, 1);
    seen = shared.left;
    linger(r, is_task);
    EXPECT(mag_load_relaxed(&shared.writers) == 0);
    EXPECT(shared.left == seen && shared.right == seen);
    mag_fetch_sub(&shared.readers, 1);
    EXPECT(mag_rwlock_rdunlock(&shared.lock) == 0);
}

static void use_to_write(struct mag_rand *r, bool is_task)
{
    if (is_given_up(mag_rwlock_wrlock(&shared.lock)))
        return;
    EXPECT(mag_fetch_add(&shared.writers, 1) == 0);
    EXPECT(mag_load_relaxed(&shared.readers) == 0);
    shared.left++;
    linger(r, is_task);
    shared.right++;
    mag_fetch_sub(&shared.writers, 1);
    EXPECT(mag_rwlock_wrunlock(&shared.lock) == 0);
}

/* The setter of this program never stops, so that each wait ends. */
static void use_event(struct mag_rand *r, bool is_task)
{
    (void)r, (void)is_task;
    is_given_up(mag_event_wait(&shared.event));
}

struct attempt {
    struct mag_rand *r;
    int i;
    bool is_task;
};

static int try_it(void *arg)
{
    struct attempt *a = arg;

    linger(a->r, a->is_task);
    if (mag_rand_below(a->r, 3))
        return -ENOSPC;
    mag_fetch_add(&shared.n_succeeded[a->i], 1);
    return 0;
}

static void use_once(struct mag_rand *r, bool is_task)
{
    int i = (int)mag_rand_below(r, 4);
    int rc = mag_once(&shared.once[i], try_it, &(struct attempt){ r, i, is_task });

    if (rc == -ENOSPC || is_given_up(rc))
        return;
    EXPECT(mag_load_acquire(&shared.n_succeeded[i]) == 1);
}

static void use_one(struct mag_rand *r, bool is_task)
{
    static void (*const use[])(struct mag_rand *, bool) = {
        use_sem, use_sem, use_to_read, use_to_read, use_to_write, use_event, use_once,
    };

    use[mag_rand_below(r, sizeof use / sizeof use[0])](r, is_task);
    stress_beat();
}

/* ---- the users ------------------------------------------------------------------------------ */

async(void, user, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    for (int i = 0; i < STEPS; i++) {
        struct mag_scope s;
        bool is_hasty = mag_rand_below(&r, 4) == 0;
        if (is_hasty)
            EXPECT(mag_scope_enter(&s, mag_now() + mag_rand_below(&r, 30000), NULL) == 0);
        use_one(&r, true);
        if (is_hasty)
            EXPECT(mag_scope_leave(&s, 0) == 0);
        if (mag_cancelled())
            break;
    }
    mag_fetch_sub(&shared.n_users, 1);
    return 0;
}

static void *thread_user(void *arg)
{
    struct mag_rand r = stress_rand((uint64_t)(uintptr_t)arg + 1000);

    for (int i = 0; i < STEPS; i++)
        use_one(&r, false);
    mag_fetch_sub(&shared.n_users, 1);
    return NULL;
}

/* Sets and clears for as long as anybody may wait. */
async(void, setter)
{
    while (mag_load_acquire(&shared.n_users) > 0) {
        EXPECT(mag_event_set(&shared.event) == 0);
        EXPECT(mag_event_clear(&shared.event) == 0);
        await(mag_sleep(10 * MAG_US));
    }
    return 0;
}

async(void, round_of, (uint64_t, number))
{
    struct mag_rand r = stress_rand(number * 7919);
    struct user *users[TASKS];
    pthread_t threads[THREADS];

    memset(&shared.once, 0, sizeof shared.once);
    memset(&shared.n_succeeded, 0, sizeof shared.n_succeeded);
    mag_store_release(&shared.n_users, TASKS + THREADS);
    for (int i = 0; i < THREADS; i++)
        threads[i] =
            stress_thread(thread_user, (void *)(uintptr_t)(number * THREADS + (uint64_t)i));
    for (int i = 0; i < TASKS; i++)
        users[i] = spawn(user(number * TASKS + (uint64_t)i));
    struct setter *s = spawn(setter());
    await(mag_sleep(200 * MAG_US)); /* who is cancelled now has begun, so that it counts itself */
    while (mag_load_relaxed(&shared.n_users) > TASKS / 2) {
        struct user *victim = users[mag_rand_below(&r, TASKS)];
        if (mag_rand_below(&r, 8) == 0 && mag_load_relaxed(&shared.n_done) > 100)
            EXPECT(mag_cancel(victim) == 0);
        await(mag_sleep(mag_rand_below(&r, 200) * MAG_US));
    }
    for (int i = 0; i < TASKS; i++) {
        int rc = await_rc(users[i], NULL);
        EXPECT(rc == 0 || rc == -ECANCELED);
        if (rc == -ECANCELED) /* it never began */
            mag_fetch_sub(&shared.n_users, 1);
    }
    await(s);
    for (int i = 0; i < THREADS; i++)
        stress_joined(threads[i]);
    EXPECT(mag_sem_value(&shared.sem) == PERMITS && shared.inside == 0);
    EXPECT(mag_rwlock_trywrlock(&shared.lock) == 0 && mag_rwlock_wrunlock(&shared.lock) == 0);
    EXPECT(shared.left == shared.right);
    for (int i = 0; i < 4; i++)
        EXPECT(shared.n_succeeded[i] <= 1);
    return 0;
}

/* ---- the barrier, by itself: who leaves it early must not hold the others up ----------------- */

static struct mag_barrier barrier;
static mag_atomic(int64_t) n_passed[PARTIES], n_left, n_broken;
static mag_atomic(uint32_t) is_over;

static void pass(int rc)
{
    if (rc >= 0 && rc < PARTIES)
        mag_fetch_add(&n_passed[rc], 1);
    else
        mag_fetch_add(rc == -EPIPE ? &n_broken : &n_left, 1);
    EXPECT(rc < PARTIES && (rc >= 0 || rc == -ECANCELED || rc == -EPIPE));
    stress_beat();
}

async(void, party, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    while (!mag_load_acquire(&is_over)) {
        struct mag_scope s;
        EXPECT(mag_scope_enter(&s, mag_now() + mag_rand_below(&r, 50000), NULL) == 0);
        pass(mag_barrier_wait(&barrier));
        EXPECT(mag_scope_leave(&s, 0) == 0);
        if (mag_rand_below(&r, 50) == 0)
            EXPECT(mag_barrier_reset(&barrier) == 0);
        mag_yield();
    }
    return 0;
}

static void *thread_party(void *arg)
{
    while (!mag_load_acquire(&is_over))
        pass(mag_barrier_wait(&barrier));
    return arg;
}

async(void, barriers)
{
    struct party *p[7];
    pthread_t t = stress_thread(thread_party, NULL);
    int64_t sum = 0, most = 0;

    for (int i = 0; i < 7; i++)
        p[i] = spawn(party(stress.seed + (uint64_t)i));
    await(mag_sleep(STRESS_SCALE(500, 700) * MAG_MS));
    mag_store_release(&is_over, 1);
    for (int i = 0; i < 7; i++)
        await(p[i]);
    EXPECT(mag_barrier_abort(&barrier) == 0); /* the thread may wait still */
    stress_joined(t);
    for (int i = 0; i < PARTIES; i++) {
        sum += n_passed[i];
        most = n_passed[i] > most ? n_passed[i] : most;
    }
    /* So many rounds at least; only a reset keeps one who was let go from passing. */
    EXPECT(most > 0 && sum >= most * PARTIES - n_broken);
    EXPECT(mag_barrier_reset(&barrier) == 0 && mag_barrier_n_waiting(&barrier) == 0);
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------------ */

async(void, whole)
{
    for (uint64_t i = 0; i < ROUNDS; i++)
        await(round_of(i + 1));
    await(barriers());
    return 0;
}

static void state(void)
{
    fprintf(stderr, "  %llu done, %llu given up, %u users, inside %d, permits %lld\n",
            (unsigned long long)shared.n_done, (unsigned long long)shared.n_given_up,
            shared.n_users, shared.inside, (long long)mag_sem_value(&shared.sem));
}

int main(void)
{
    struct mag_rt_options o = { .workers = getenv("MAGPIE_WORKERS") ? 0 : 4 };

    stress_begin("sync", state);
    EXPECT(mag_sem_init_bounded(&shared.sem, PERMITS) == 0);
    EXPECT(mag_barrier_init(&barrier, PARTIES) == 0);
    EXPECT(mag_run_with(whole(), NULL, &o) == 0);
    EXPECT(shared.n_done > 0 && shared.n_given_up > 0);
    EXPECT(mag_mem_live() == 0);
    if (getenv("STRESS_VERBOSE"))
        state();
    return stress_end();
}
