/* SPDX-License-Identifier: MIT */
/*
 * conservation.c - N tasks that compute occupy N workers, however they came about
 *
 * In each round N spinners are made, each of which waits, without ever suspending,
 * until all N run.  Nothing that the busy workers do later can help, so work that
 * stays where only its busy owner sees it, and a worker that sleeps beside it, show.
 * The ways: spawned by a task that then is one of them; each by the one before; forked;
 * gathered; submitted by a foreign thread, to sleeping or to busy workers; with fibers
 * made ready at the same moment.  The others have slept, or searched, or just worked.
 *
 * The limit is 100 ms for each missing worker, of processor time: those who spin use
 * it up even if other programs keep them waiting.  If they keep only the missing one waiting
 * it is not its fault: so a round in a hundred may be slower, but not by more than 15 s.
 */
#include "stress.h"
#include "worker.h"

enum {
    ROUNDS = STRESS_SCALE(1000, 150),
    LIMIT_MS = STRESS_SCALE(100, 1000),
};

static unsigned n_workers;
static mag_atomic(uint32_t) n_running;
static mag_atomic(uint32_t) n_finished;
static mag_atomic(uint32_t) n_gave_up;
static mag_atomic(uint32_t) is_slow; /* the limit is over */
static unsigned n_slow;              /* such rounds */
static unsigned n_wanted; /* that must run at the same time */
static mag_time slowest;
static const char *way_name = "";
static unsigned n_late;

/* Who sleeps, and what lies where: read without any lock. */
static void print_workers(const struct mag_rt *rt)
{
    const struct mag_idle *idle = &rt->idle;

    fprintf(stderr, "  %s: %u of %u run; searching %u, parked %u, watch %u, injected %u\n", way_name,
            n_running, n_wanted, idle->n_searching, idle->n_parked, idle->has_watch,
            (unsigned)rt->n_injected);
    for (unsigned i = 0; i < rt->n_workers; i++) {
        const struct mag_worker *w = &rt->workers[i];
        fprintf(stderr, "  worker %u: %s%s%s, deque %llu %llu %llu, lim %llu, guard %llx, "
                        "local %zu, ready %zu, inbox %d\n", i + 1,
                idle->sleepers[i].is_parked ? "parked" : "awake",
                idle->sleepers[i].is_searching ? ", searching" : "",
                w->fiber ? ", runs a fiber" : "", (unsigned long long)w->deque.top,
                (unsigned long long)w->deque.split, (unsigned long long)w->deque.hot.bot,
                (unsigned long long)w->deque.hot.lim, (unsigned long long)w->deque.hot.guard,
                w->local.count, w->ready.count, w->inbox.head != NULL);
    }
}

/* Until all are there, or time is up. */
static void wait_for_all(void)
{
    mag_time end = stress_cpu_time() + (mag_time)n_workers * LIMIT_MS * MAG_MS;
    mag_time last = mag_clock_now() + 15 * MAG_SECOND;

    while (mag_load_acquire(&n_running) < n_wanted)
        if (stress_cpu_time() > end) {
            mag_store_relaxed(&is_slow, 1);
            if (mag_clock_now() < last)
                continue;
            if (mag_fetch_add(&n_gave_up, 1) == 0 && n_running < n_wanted)
                print_workers(mag_rt_self());
            break;
        }
}

static void meet(void)
{
    mag_fetch_add(&n_running, 1);
    wait_for_all();
    mag_fetch_add(&n_finished, 1);
}

async(void, spinner)
{
    meet();
    return 0;
}

/* Spawns the next, then spins. */
async(void, chain, (unsigned, left))
{
    if (left > 1)
        (void)mag_detach(spawn(chain(left - 1)));
    meet();
    return 0;
}

struct part {
    struct mag_fork fork;
};

static void part_spin(struct mag_fork *fork)
{
    (void)fork;
    meet();
}

/* ---- the ways ------------------------------------------------------------------------ */

/* Spawned, and the spawner spins too: it never pushes or pops again. */
async(void, by_spawner)
{
    struct spinner *all[256];

    for (unsigned i = 0; i + 1 < n_workers; i++)
        all[i] = spawn(spinner());
    meet();
    for (unsigned i = 0; i + 1 < n_workers; i++)
        await(all[i]);
    return 0;
}

async(void, by_chain)
{
    await(spawn(chain(n_workers)));
    while (mag_load_acquire(&n_finished) < n_workers)
        mag_yield();
    return 0;
}

async(void, by_fork)
{
    struct part parts[256];

    for (unsigned i = 0; i + 1 < n_workers; i++)
        mag_fork(&parts[i].fork, part_spin);
    meet();
    for (unsigned i = n_workers - 1; i > 0; i--)
        mag_join(&parts[i - 1].fork);
    return 0;
}

async(void, by_gather)
{
    struct spinner *all[256];

    for (unsigned i = 0; i < n_workers; i++)
        all[i] = spinner();
    gather_n(NULL, all, n_workers);
    return 0;
}

/* A fiber of the last worker, which keeps it busy until the others are there. */
async(void, sleeper, (mag_time, until))
{
    (void)mag_sleep_until(until);
    wait_for_all();
    return 0;
}

/*
 * The last worker is woken by its own timer at the moment at which others are woken to
 * search: who was woken to search, and finds something of its own, must not keep the
 * others from searching.
 */
async(void, spawner_of_timer, (mag_time, until))
{
    struct spinner *all[256];

    (void)mag_sleep_until(until - 5 * MAG_US);
    while (mag_now() < until)
        mag_cpu_relax();
    for (unsigned i = 0; i + 1 < n_wanted; i++)
        all[i] = spawn(spinner());
    meet();
    for (unsigned i = 0; i + 1 < n_wanted; i++)
        await(all[i]);
    return 0;
}

async(void, by_timer)
{
    mag_time                 until = mag_now() + 300 * MAG_US;
    struct spawner_of_timer *first;
    struct sleeper          *last;

    n_wanted = n_workers > 1 ? n_workers - 1 : 1;
    first = spawn_opts(spawner_of_timer(until), .pin = true, .worker = 1);
    last = spawn_opts(sleeper(until), .pin = true, .worker = n_workers);
    await(first);
    await(last);
    return 0;
}

/* ---- rounds ---------------------------------------------------------------------------- */

/* Leaves the workers asleep, searching, or just come from work. */
static void pause_a_little(struct mag_rand *r)
{
    static const int us[] = { 0, 0, 20, 60, 200, 1000 };

    if (us[mag_rand_below(r, 6)])
        usleep((useconds_t)us[mag_rand_below(r, 6)]);
}

static void check_round(mag_time begun)
{
    mag_time took = mag_clock_now() - begun;

    EXPECT(n_gave_up == 0 && n_running == n_wanted);
    n_slow += is_slow;
    if (n_gave_up)
        fprintf(stderr, "  %s: %u gave up\n", way_name, n_gave_up);
    slowest = took > slowest ? took : slowest;
    if (took > 20 * MAG_MS && getenv("STRESS_VERBOSE"))
        fprintf(stderr, "  %s: %.1f ms\n", way_name, (double)took / MAG_MS);
    n_late += took > 5 * MAG_MS;
    stress_beat();
}

static void reset(const char *name)
{
    way_name = name;
    mag_store_seq(&n_running, 0);
    mag_store_seq(&n_finished, 0);
    mag_store_seq(&n_gave_up, 0);
    mag_store_seq(&is_slow, 0);
    n_wanted = n_workers;
}

static void run_way(struct mag_rt *rt, const char *name, void *coro)
{
    mag_time begun = mag_clock_now();

    reset(name);
    EXPECT(mag_rt_run(rt, coro, NULL) == 0);
    while (mag_load_acquire(&n_finished) < n_wanted)
        sched_yield();
    check_round(begun);
}

async(void, briefly_busy, (mag_time, ns))
{
    stress_spin(ns);
    return 0;
}

/* From outside: to workers that sleep, or that are busy for a moment. */
static void submit_all(struct mag_rt *rt, struct mag_rand *r)
{
    struct briefly_busy *busy[256];
    struct spinner      *all[256];
    bool                 has_busy = mag_rand_below(r, 2);
    mag_time             begun = mag_clock_now();

    reset("submitted");
    for (unsigned i = 0; has_busy && i < n_workers; i++) {
        busy[i] = briefly_busy(mag_rand_below(r, 300) * MAG_US);
        EXPECT(mag_submit(rt, busy[i], NULL) == 0);
    }
    if (has_busy)
        usleep(mag_rand_below(r, 200));
    for (unsigned i = 0; i < n_workers; i++) {
        all[i] = spinner();
        EXPECT(mag_submit(rt, all[i], NULL) == 0);
    }
    for (unsigned i = 0; i < n_workers; i++)
        EXPECT(mag_await(all[i], NULL, 0) == 0);
    for (unsigned i = 0; has_busy && i < n_workers; i++)
        EXPECT(mag_await(busy[i], NULL, 0) == 0);
    check_round(begun);
}

static void rounds(unsigned workers)
{
    struct mag_rand        r = stress_rand(workers);
    struct mag_rt_options  o = { .workers = workers };
    struct mag_rt         *rt;

    if (mag_rt_new(&rt, &o) < 0) {
        stress_wrong(mag_rt_why(), __FILE__, __LINE__);
        return;
    }
    n_workers = mag_rt_workers(rt);
    for (int i = 0; i < ROUNDS && stress.n_wrong < 5; i++) {
        pause_a_little(&r);
        switch (mag_rand_below(&r, 6)) {
        case 0: run_way(rt, "spawner", by_spawner()); break;
        case 1: run_way(rt, "chain", by_chain()); break;
        case 2: run_way(rt, "fork", by_fork()); break;
        case 3: run_way(rt, "gather", by_gather()); break;
        case 4: run_way(rt, "timer", by_timer()); break;
        default: submit_all(rt, &r);
        }
    }
    mag_rt_free(rt);
    printf("conservation: %u workers, slowest round %.1f ms, %u over 5 ms, %u over the limit\n",
           n_workers, (double)slowest / MAG_MS, n_late, n_slow);
    EXPECT(n_slow <= ROUNDS / 100);
    slowest = 0;
    n_late = n_slow = 0;
}

static void state(void)
{
    fprintf(stderr, "  %s: %u of %u run, %u finished\n", way_name, n_running, n_workers, n_finished);
}

int main(void)
{
    stress_begin("conservation", state);
    if (getenv("MAGPIE_WORKERS")) {
        rounds(0);
    } else {
        rounds(4);
        rounds(2);
    }
    return stress_end();
}
