/* SPDX-License-Identifier: MIT */
/*
 * wakeups.c - no wake-up is lost, whether the other side is busy, searches, or sleeps
 *
 * Balls go to and fro: between two tasks on different workers, by futures; between
 * tasks that are made ready by the end of others, anywhere; between a foreign thread
 * and the runtime, both ways; from many to one.  Between passes there is nothing, or a
 * pause that is as long as a worker searches, or longer, so that the wake meets every
 * step of going to sleep.  One lost wake-up stops a ball, and the watchdog says so.
 * A worker that sleeps in wrong belief until its timer or the watch (10 ms) saves it
 * would hide: so long passes are counted, in a runtime without anything else to do.
 */
#include "stress.h"

enum {
    /* Without a pause; where a processor that sleeps is slow to wake each takes 90 us. */
    PASSES = STRESS_SCALE(300000, 8000),
    SLOW_PASSES = STRESS_SCALE(4000, 500),
    CHUNK = 500,
};

static const char *game = "";
static mag_atomic(uint64_t) n_passes;

static void passed(void)
{
    mag_fetch_add(&n_passes, 1);
    stress_beat();
}

/* As long as a search, more or less, computing or asleep. */
static void pause_a_little(struct mag_rand *r, bool has_pauses)
{
    uint32_t what = mag_rand_below(r, 8);

    if (!has_pauses)
        return;
    if (what < 4)
        stress_spin(mag_rand_below(r, 120) * MAG_US);
    else if (what == 4)
        (void)mag_sleep(mag_rand_below(r, 120) * MAG_US);
}

/* ---- two tasks and futures ------------------------------------------------------------- */

async_future(int, ball);

struct court {
    struct ball *go[CHUNK], *back[CHUNK];
};

async(void, serves, (struct court *, c), (bool, has_pauses))
{
    struct mag_rand r = stress_rand(1);

    for (int i = 0; i < CHUNK; i++) {
        pause_a_little(&r, has_pauses);
        EXPECT(future_set(c->go[i], i) == 0);
        EXPECT(await(c->back[i]) == i);
        passed();
    }
    return 0;
}

async(void, returns, (struct court *, c), (bool, has_pauses))
{
    struct mag_rand r = stress_rand(2);

    for (int i = 0; i < CHUNK; i++) {
        EXPECT(await(c->go[i]) == i);
        pause_a_little(&r, has_pauses);
        EXPECT(future_set(c->back[i], i) == 0);
    }
    return 0;
}

async(void, match, (int, n), (bool, has_pauses))
{
    unsigned      n_workers = mag_rt_workers(mag_rt_self());
    struct court *c = mag_mem_alloc(sizeof *c);

    for (; n > 0; n -= CHUNK) {
        for (int i = 0; i < CHUNK; i++) {
            c->go[i] = ball();
            c->back[i] = ball();
        }
        struct serves  *s = spawn_opts(serves(c, has_pauses), .pin = true, .worker = 1);
        struct returns *t = spawn_opts(returns(c, has_pauses), .pin = true, .worker = n_workers);
        await(s);
        await(t);
    }
    mag_mem_free(c);
    return 0;
}

/* ---- the ends of tasks -------------------------------------------------------------------- */

async(int, brief, (mag_time, ns))
{
    stress_spin(ns);
    async_return(1);
}

/* Awaits what another worker runs: by its end. */
async(void, ends, (int, n), (bool, has_pauses))
{
    struct mag_rand r = stress_rand(3);

    for (int i = 0; i < n; i++) {
        struct brief *b = spawn(brief(mag_rand_below(&r, 20) * MAG_US));
        if (mag_rand_below(&r, 2))
            stress_spin(mag_rand_below(&r, 30) * MAG_US);
        pause_a_little(&r, has_pauses);
        EXPECT(await(b) == 1);
        passed();
    }
    return 0;
}

/* ---- foreign threads -------------------------------------------------------------------------- */

static struct mag_rt *rt;

static void *submits(void *arg)
{
    struct mag_rand r = stress_rand(4);
    bool            has_pauses = arg != NULL;
    int             n = (has_pauses ? SLOW_PASSES : PASSES) / 8, one;

    for (int i = 0; i < n; i++) {
        struct brief *b = brief(0);
        if (has_pauses)
            usleep(mag_rand_below(&r, 2) ? 0 : mag_rand_below(&r, 150));
        EXPECT(mag_submit(rt, b, NULL) == 0);
        if (mag_rand_below(&r, 2))
            stress_spin(mag_rand_below(&r, 20) * MAG_US);
        EXPECT(mag_await(b, &one, sizeof one) == 0 && one == 1);
        passed();
    }
    return NULL;
}

struct rally {
    mag_atomic(struct ball *) at_thread; /* to be set by the thread */
};

static void *sets(void *arg)
{
    struct rally *y = arg;

    for (int i = 0; i < SLOW_PASSES; i++) {
        struct ball *b;
        while ((b = mag_xchg(&y->at_thread, NULL)) == NULL)
            mag_cpu_relax();
        if (i & 1)
            stress_spin((i % 128) * MAG_US);
        EXPECT(future_set(b, i) == 0);
    }
    return NULL;
}

/* The thread sets what a task awaits: at the moment at which its worker parks. */
async(void, awaits_thread, (struct rally *, y))
{
    for (int i = 0; i < SLOW_PASSES; i++) {
        struct ball *b = ball();
        mag_store_release(&y->at_thread, b);
        EXPECT(await(b) == i);
        passed();
    }
    return 0;
}

/* ---- main ------------------------------------------------------------------------------------------ */

static void play(const char *name, void *coro, void *(*thread)(void *), void *arg, int n_threads)
{
    pthread_t threads[4];
    mag_time  begun = mag_clock_now();

    game = name;
    mag_store_seq(&n_passes, 0);
    for (int i = 0; i < n_threads; i++)
        threads[i] = stress_thread(thread, arg);
    if (coro)
        EXPECT(mag_rt_run(rt, coro, NULL) == 0);
    for (int i = 0; i < n_threads; i++)
        (void)stress_joined(threads[i]);
    printf("wakeups: %s: %llu passes, %.1f us each\n", name, (unsigned long long)n_passes,
           (double)(mag_clock_now() - begun) / 1000 / (n_passes ? (double)n_passes : 1));
}

static void state(void)
{
    fprintf(stderr, "  %s: %llu passes\n", game, (unsigned long long)n_passes);
}

static void games(unsigned workers)
{
    struct mag_rt_options o = { .workers = workers };
    struct rally          y = { NULL };
    static int            yes;

    EXPECT(mag_rt_new(&rt, &o) == 0);
    play("futures", match(PASSES / 4, false), NULL, NULL, 0);
    play("futures with pauses", match(SLOW_PASSES, true), NULL, NULL, 0);
    play("ends", ends(PASSES / 8, false), NULL, NULL, 0);
    play("ends with pauses", ends(SLOW_PASSES / 2, true), NULL, NULL, 0);
    play("submits", NULL, submits, NULL, 2);
    play("submits with pauses", NULL, submits, &yes, 2);
    play("thread sets", awaits_thread(&y), sets, &y, 1);
    mag_rt_free(rt);
}

int main(void)
{
    stress_begin("wakeups", state);
    if (getenv("MAGPIE_WORKERS")) {
        games(0);
    } else {
        games(2);
        games(4);
    }
    return stress_end();
}
