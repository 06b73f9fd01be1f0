/* SPDX-License-Identifier: MIT */
/*
 * fairness.c - nobody starves beside tasks that are always ready
 *
 * Twice as many hogs as workers compute for 1 ms and yield, for ever.  Beside them
 * sleeps must end at most 20 ms late, and bytes that come through a pipe must be seen
 * as soon.  And whoever yields in a loop until a flag is set must see it set by a task
 * that has not started yet: spawned, bound to the same worker, or from outside.
 *
 * What is late is counted in slices of the hogs of the same worker that began after the
 * time, not in milliseconds: so a busy machine, which keeps the whole worker waiting,
 * does not matter.  Everything here is bound to its worker, so a worker's notes of its
 * slices are its thread's alone.
 */
#include "stress.h"
#include "wait.h"

enum {
    HOG_NS = 1000 * 1000,
    LATE_MAX = 20, /* slices, which are milliseconds of processor time */
    WORKERS_MAX = 256,
    NOTED = 64,    /* slices remembered */
    SLEEPS = STRESS_SCALE(150, 40),
    BYTES = STRESS_SCALE(150, 40),
    FLAGS = STRESS_SCALE(200, 30),
};

static mag_atomic(uint32_t) is_over;
static mag_atomic(uint64_t) latest; /* of all, in slices */

static struct slices {
    mag_time begun[NOTED];
    uint64_t n;
} slices[WORKERS_MAX];

static void note_late(const char *what, unsigned worker, mag_time due)
{
    struct slices *s = &slices[worker];
    uint64_t       late = 0, was = mag_load_relaxed(&latest);

    while (late < NOTED && late < s->n && s->begun[(s->n - 1 - late) % NOTED] > due)
        late++;
    if (late > LATE_MAX)
        fprintf(stderr, "  a %s was late by %d slices, %.1f ms\n", what, (int)late,
                (double)(mag_now() - due) / MAG_MS);
    EXPECT(late <= LATE_MAX);
    while (late > was && !mag_cas(&latest, &was, late))
        ;
    stress_beat();
}

async(void, hog, (unsigned, worker))
{
    while (!mag_load_relaxed(&is_over)) {
        struct slices *s = &slices[worker];
        s->begun[s->n++ % NOTED] = mag_now();
        stress_spin(HOG_NS);
        await(mag_yield());
    }
    return 0;
}

/* ---- timers -------------------------------------------------------------------------- */

async(void, sleeps, (unsigned, who))
{
    struct mag_rand r = stress_rand(who);

    for (int i = 0; i < SLEEPS; i++) {
        mag_time until = mag_now() + mag_rand_below(&r, 10000) * MAG_US;
        await(mag_sleep_until(until));
        note_late("sleep", who, until);
    }
    return 0;
}

async(void, flag_setter, (mag_atomic(uint32_t) *, flag))
{
    mag_store_release(flag, 1);
    return 0;
}

/* ---- I/O ------------------------------------------------------------------------------- */

static int ends[2];
static mag_atomic(int) n_read;
static mag_atomic(mag_time) sent[BYTES]; /* when it was surely there; 0: not known yet */

/* Each after the one before was read, so that the reader already waits. */
static void *write_bytes(void *arg)
{
    for (int i = 0; i < BYTES; i++) {
        while (mag_load_acquire(&n_read) < i)
            usleep(1000);
        EXPECT(write(ends[1], "x", 1) == 1);
        mag_store_release(&sent[i], mag_clock_now());
        usleep(5000);
    }
    return arg;
}

async(void, reads)
{
    for (int i = 0; i < BYTES; i++) {
        char          byte;
        struct mag_op op = { .code = MAG_OP_READ, .fd = ends[0], .addr = &byte, .len = 1,
                             .offset = MAG_OP_OFFSET_CURRENT };
        EXPECT(await(mag_wait_op(&op)) == 1);
        if (mag_load_acquire(&sent[i])) /* else it was read before its writer could note it */
            note_late("byte", 0, mag_load_acquire(&sent[i]));
        stress_beat();
        mag_store_release(&n_read, i + 1);
    }
    return 0;
}

async(void, beside_hogs)
{
    unsigned       n = mag_rt_workers(mag_rt_self());
    struct hog    *hogs[512];
    struct sleeps *all[256];
    struct reads  *reader = spawn_opts(reads(), .pin = true, .worker = 1);

    for (unsigned i = 0; i < n; i++)
        all[i] = spawn_opts(sleeps(i), .pin = true, .worker = i + 1);
    for (unsigned i = 0; i < 2 * n; i++)
        hogs[i] = spawn_opts(hog(i % n), .pin = true, .worker = i % n + 1);
    for (unsigned i = 0; i < n; i++)
        await(all[i]);
    await(reader);
    mag_store_seq(&is_over, 1);
    for (unsigned i = 0; i < 2 * n; i++)
        await(hogs[i]);
    return 0;
}

static void hogs(unsigned workers)
{
    struct mag_rt_options o = { .workers = workers };
    pthread_t             writer;

    EXPECT(pipe2(ends, O_CLOEXEC) == 0);
    mag_store_seq(&is_over, 0);
    mag_store_seq(&n_read, 0);
    mag_store_seq(&latest, 0);
    for (int i = 0; i < BYTES; i++)
        mag_store_seq(&sent[i], 0);
    writer = stress_thread(write_bytes, NULL);
    EXPECT(mag_run_with(beside_hogs(), NULL, &o) == 0);
    (void)stress_joined(writer);
    close(ends[0]);
    close(ends[1]);
    printf("fairness: at most %d slices late\n", (int)latest);
}

/* ---- flags ------------------------------------------------------------------------------- */

static struct mag_rt *runtime;

static void *submit_setter(void *flag)
{
    struct flag_setter *s = flag_setter(flag);

    EXPECT(mag_submit(runtime, s, NULL) == 0);
    EXPECT(mag_detach(s) == 0);
    return NULL;
}

/* Who yields until the flag is set, which may be after all the hogs had many turns. */
async(void, waits_for_flag, (int, way))
{
    mag_atomic(uint32_t) flag = 0;
    struct flag_setter  *s = NULL;
    pthread_t            thread = 0;

    runtime = mag_rt_self();
    if (way == 0)
        s = spawn(flag_setter(&flag));
    else if (way == 1)
        s = spawn_opts(flag_setter(&flag), .pin = true, .worker = 1);
    else
        thread = stress_thread(submit_setter, &flag);
    while (!mag_load_acquire(&flag))
        await(mag_yield());
    if (s)
        await(s);
    else
        (void)stress_joined(thread);
    stress_beat();
    return 0;
}

static void flags(unsigned workers)
{
    struct mag_rt_options o = { .workers = workers };

    for (int i = 0; i < FLAGS; i++)
        EXPECT(mag_run_with(waits_for_flag(i % 3), NULL, &o) == 0);
}

int main(void)
{
    stress_begin("fairness", NULL);
    flags(1);
    flags(2);
    hogs(1);
    hogs(2);
    return stress_end();
}
