/* SPDX-License-Identifier: MIT */
/*
 * mutex.c - many want the same mutex, by every way there is to get it or to give up
 *
 *   crowd     tasks and threads outside lock, try, lock under deadlines that are over at any
 *             moment, and are cancelled by others at any moment; some suspend while they
 *             hold it.  Nobody is inside together with another, and everybody ends: a
 *             wake-up that is lost leaves somebody asleep, and the watchdog tells.
 *   store     makers and users of a store with little room, by two conditions, among
 *             them some that are cancelled or out of time: what was made is used or there,
 *             and no notify goes to one that leaves.
 *   fair      a task on each worker takes it again and again without a pause.  Each of them
 *             gets on, and nobody waits long: some hundred microseconds if no worker is
 *             preempted; what is checked has room for a machine that does that a lot, and
 *             if it did too much, it is tried again.
 */
#include "stress.h"

#include <magpie/sync.h>

enum {
    WORKERS = 4,
    CROWD = 24,
    THREADS = 2,
    ROUNDS = STRESS_SCALE(4000, 600),
    ITEMS = STRESS_SCALE(20000, 2000),
    ROOM = 2,
    FAIR_MS = 400,
    WAIT_MAX_MS = 1000,
};

static const char *part = "";

/* ---- crowd ------------------------------------------------------------------------------ */

static struct {
    struct mag_mutex mutex;
    uint64_t n; /* [mutex] sections */
    mag_atomic(uint32_t) n_inside;
    mag_atomic(uint64_t) n_locked;
} crowd;

static void section(struct mag_rand *r, bool may_suspend)
{
    EXPECT(mag_fetch_add(&crowd.n_inside, 1) == 0);
    crowd.n++;
    switch (mag_rand_below(r, 40)) {
    case 0:
        if (may_suspend)
            mag_yield();
        break;
    case 1:
        if (may_suspend)
            mag_sleep(mag_rand_below(r, 50) * MAG_US);
        break;
    case 2:
        stress_spin(mag_rand_below(r, 20) * MAG_US);
        break;
    default:
        break;
    }
    EXPECT(mag_fetch_sub(&crowd.n_inside, 1) == 1);
    mag_fetch_add(&crowd.n_locked, 1);
    EXPECT(mag_mutex_unlock(&crowd.mutex) == 0);
}

static int lock_before(mag_time deadline)
{
    struct mag_scope s;

    EXPECT(mag_scope_enter(&s, deadline, NULL) == 0);
    return mag_scope_leave(&s, mag_mutex_lock(&crowd.mutex));
}

async(void, visitor, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    for (int i = 0; i < ROUNDS; i++) {
        uint32_t how = mag_rand_below(&r, 8);
        int rc = how == 0   ? mag_mutex_trylock(&crowd.mutex)
                 : how == 1 ? lock_before(mag_now() + mag_rand_below(&r, 100) * MAG_US)
                            : mag_mutex_lock(&crowd.mutex);

        EXPECT(rc == 0 || rc == -ECANCELED || (how == 0 && rc == -EBUSY) ||
               (how == 1 && rc == -ETIMEDOUT));
        if (rc == 0)
            section(&r, true);
        if (rc == -ECANCELED)
            return rc;
        stress_beat();
        if (mag_rand_below(&r, 20) == 0 && mag_yield() < 0)
            return -ECANCELED;
    }
    return 0;
}

/* Short lives: each is cancelled after a while, another takes its place. */
async(void, tormentor, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    for (int i = 0; i < ROUNDS / 8; i++) {
        struct visitor *v = visitor(who * 1000 + (uint64_t)i);

        await(mag_start(v, NULL));
        if (mag_rand_below(&r, 2))
            await(mag_yield());
        else
            await(mag_sleep(mag_rand_below(&r, 60) * MAG_US));
        EXPECT(mag_cancel(v) == 0);
        int rc = await_rc(v, NULL);
        EXPECT(rc == 0 || rc == -ECANCELED);
    }
    return 0;
}

static void *stranger(void *arg)
{
    struct mag_rand r = stress_rand((uint64_t)(uintptr_t)arg + 77);

    for (int i = 0; i < ROUNDS; i++) {
        if (mag_rand_below(&r, 4) == 0 ? mag_mutex_trylock(&crowd.mutex) == 0
                                       : mag_mutex_lock(&crowd.mutex) == 0)
            section(&r, false);
        stress_beat();
    }
    return arg;
}

static int join_stranger(void *thread)
{
    (void)stress_joined(*(pthread_t *)thread);
    return 0;
}

async(void, run_crowd)
{
    pthread_t thread[THREADS];
    void *all[CROWD + 4];

    part = "crowd";
    for (uintptr_t i = 0; i < THREADS; i++)
        thread[i] = stress_thread(stranger, (void *)i);
    for (uint64_t i = 0; i < CROWD; i++)
        all[i] = visitor(i);
    for (uint64_t i = CROWD; i < CROWD + 4; i++)
        all[i] = tormentor(i);
    EXPECT(mag_gather(NULL, 0, all, CROWD + 4, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        await(mag_to_thread(join_stranger, &thread[i]));
    EXPECT(!mag_mutex_locked(&crowd.mutex));
    EXPECT(crowd.n == crowd.n_locked);
    return 0;
}

/* ---- store --------------------------------------------------------------------------------- */

static struct {
    struct mag_mutex mutex;
    struct mag_cond not_empty, not_full;
    int n;                   /* [mutex] in the store */
    long n_made, n_used;     /* [mutex] */
    bool is_closed;          /* [mutex] */
    mag_atomic(long) n_left; /* that makers have to make */
    mag_atomic(long) n_given_up; /* that a maker was cancelled at */
} store;

static bool has_room(void *arg)
{
    (void)arg;
    return store.n < ROOM || store.is_closed;
}

static bool has_item(void *arg)
{
    (void)arg;
    return store.n > 0 || store.is_closed;
}

/* One step, in or out, with the mutex held; no cancel may come between wait and change. */
static int change(struct mag_cond *wait, bool (*can)(void *), int by, struct mag_cond *tell)
{
    int rc = mag_mutex_lock(&store.mutex);

    if (rc < 0)
        return rc;
    rc = mag_cond_wait_until_true(wait, &store.mutex, can, NULL);
    EXPECT(mag_mutex_locked(&store.mutex));
    if (rc == 0 && (by > 0 || store.n > 0)) {
        store.n += by;
        *(by > 0 ? &store.n_made : &store.n_used) += 1;
        EXPECT(store.n >= 0 && (store.n <= ROOM || store.is_closed));
        mag_cond_notify(tell, 1);
    } else if (rc == 0) {
        rc = -EPIPE;
    }
    EXPECT(mag_mutex_unlock(&store.mutex) == 0);
    return rc;
}

static int change_in_time(struct mag_rand *r, struct mag_cond *wait, bool (*can)(void *), int by,
                          struct mag_cond *tell)
{
    struct mag_scope s;

    if (mag_rand_below(r, 4))
        return change(wait, can, by, tell);
    EXPECT(mag_scope_enter(&s, mag_now() + mag_rand_below(r, 50) * MAG_US, NULL) == 0);
    return mag_scope_leave(&s, change(wait, can, by, tell));
}

async(void, maker, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);
    int rc = 0;

    while (rc != -ECANCELED && mag_fetch_sub(&store.n_left, 1) > 0) {
        do {
            rc = change_in_time(&r, &store.not_full, has_room, 1, &store.not_empty);
        } while (rc == -ETIMEDOUT);
        if (rc == -ECANCELED) /* the others may have gone home already: so it is nobody's */
            mag_fetch_add(&store.n_given_up, 1);
        stress_beat();
    }
    return rc;
}

async(void, user, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);
    int rc;

    do {
        rc = change_in_time(&r, &store.not_empty, has_item, -1, &store.not_full);
        stress_beat();
    } while (rc == 0 || rc == -ETIMEDOUT);
    return rc == -EPIPE ? 0 : rc;
}

/* Cancels makers and users that take part for a while. */
async(void, spoiler, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    while (mag_load_relaxed(&store.n_left) > 0) {
        bool is_user = mag_rand_below(&r, 2);
        void *victim = is_user ? (void *)user(who) : (void *)maker(who);

        await(mag_start(victim, NULL));
        await(mag_sleep(mag_rand_below(&r, 100) * MAG_US));
        EXPECT(mag_cancel(victim) == 0);
        int rc = mag_await(victim, NULL, 0);
        EXPECT(rc == 0 || rc == -ECANCELED);
    }
    return 0;
}

async(void, close_when_made, (void **, makers), (size_t, n))
{
    int rc = mag_gather(NULL, 0, makers, n, NULL);

    EXPECT(rc == 0);
    await(mag_mutex_lock(&store.mutex));
    store.is_closed = true;
    mag_cond_notify_all(&store.not_empty);
    mag_cond_notify_all(&store.not_full);
    return mag_mutex_unlock(&store.mutex);
}

async(void, run_store)
{
    void *makers[6], *all[6];

    part = "store";
    store.n_left = ITEMS;
    for (uint64_t i = 0; i < 6; i++)
        makers[i] = i < 4 ? (void *)maker(100 + i) : (void *)spoiler(200 + i);
    for (uint64_t i = 0; i < 5; i++)
        all[i] = user(300 + i);
    all[5] = close_when_made(makers, 6);
    EXPECT(mag_gather(NULL, 0, all, 6, NULL) == 0);
    EXPECT(store.n == 0 && store.n_made == store.n_used);
    EXPECT(store.n_made + store.n_given_up == ITEMS);
    return 0;
}

/* ---- fair ------------------------------------------------------------------------------------ */

static struct {
    _Alignas(64) struct mag_mutex mutex;
    uint64_t n;   /* [mutex] */
    mag_time end; /* [const] */
} fair;

struct share {
    uint64_t n;
    mag_time worst;
};

async(struct share, greedy)
{
    struct share mine = { 0 };
    mag_time before, after;

    do {
        before = mag_now();
        await(mag_mutex_lock(&fair.mutex));
        after = mag_now();
        fair.n++;
        mag_mutex_unlock(&fair.mutex);
        mine.n++;
        mine.worst = after - before > mine.worst ? after - before : mine.worst;
        if (mine.n % 4096 == 0)
            stress_beat();
    } while (after < fair.end);
    async_return(mine);
}

static bool is_fair(struct share s, uint64_t *total, mag_time *worst)
{
    *total += s.n;
    *worst = s.worst > *worst ? s.worst : *worst;
    return s.n > 100 && s.worst < WAIT_MAX_MS * MAG_MS;
}

async(bool, run_fair_once, (unsigned, n_tasks))
{
    struct greedy *all[2 * WORKERS];
    uint64_t total = 0;
    mag_time worst = 0;
    bool was_fair = true;

    part = "fair";
    fair.n = 0;
    fair.end = mag_now() + FAIR_MS * MAG_MS;
    for (unsigned i = 0; i < n_tasks; i++)
        await(
            mag_start(all[i] = greedy(), &(struct mag_spawn_options){ .worker = i % WORKERS + 1,
                                                                      .pin = n_tasks > WORKERS }));
    for (unsigned i = 0; i < n_tasks; i++)
        was_fair &= is_fair(await(all[i]), &total, &worst);
    EXPECT(total == fair.n);
    printf("  %u tasks: %.0f ns a lock, none waited longer than %.1f ms\n", n_tasks,
           (double)FAIR_MS * MAG_MS / (double)total, mag_seconds(worst) * 1e3);
    async_return(was_fair);
}

async(void, run_fair, (unsigned, n_tasks))
{
    bool was_fair = false;

    for (int i = 0; i < 5 && !was_fair; i++)
        was_fair = await(run_fair_once(n_tasks));
    EXPECT(was_fair);
    return 0;
}

/* ---- all ---------------------------------------------------------------------------------------- */

async(void, everything)
{
    await(run_crowd());
    await(run_store());
    await(run_fair(WORKERS));
    await(run_fair(2 * WORKERS));
    return 0;
}

static void state(void)
{
    fprintf(stderr, "  in %s; crowd %llu; store %ld made, %ld used, %d there\n", part,
            (unsigned long long)crowd.n, store.n_made, store.n_used, store.n);
}

int main(void)
{
    stress_begin("mutex", state);
    EXPECT(mag_run_with(everything(), NULL, &(struct mag_rt_options){ .workers = WORKERS }) == 0);
    return stress_end();
}
