/* SPDX-License-Identifier: MIT */
/*
 * fairness.c - nobody starves beside tasks that are always ready
 *
 * Twice as many hogs as workers compute for 1 ms and yield, for ever.  Beside them
 * sleeps must end at most 20 ms late, and bytes that come through a pipe must be seen
 * as soon.  And whoever yields in a loop until a flag is set must see it set by a task
 * that has not started yet: spawned, bound to the same worker, or from outside.
 *
 * The time that a thread itself waited for a processor is not counted: that is how
 * other programs disturb.  A task that has begun stays on its thread.
 */
#include "stress.h"
#include "wait.h"

enum {
    HOG_NS = 1000 * 1000,
    LATE_MAX_NS = 20 * 1000 * 1000 * STRESS_SCALE(1, 5),
    SLEEPS = STRESS_SCALE(150, 40),
    BYTES = STRESS_SCALE(150, 40),
    FLAGS = STRESS_SCALE(200, 30),
};

static mag_atomic(uint32_t) is_over;
static mag_atomic(uint64_t) latest;     /* of all, in ns */

static void note_late(const char *what, mag_time late)
{
    uint64_t was = mag_load_relaxed(&latest);

    if (late > LATE_MAX_NS)
        fprintf(stderr, "  a %s was late by %.1f ms\n", what, (double)late / MAG_MS);
    EXPECT(late <= LATE_MAX_NS);
    while (late > (mag_time)was && !mag_cas(&latest, &was, (uint64_t)late))
        ;
    stress_beat();
}

async(void, hog)
{
    while (!mag_load_relaxed(&is_over)) {
        stress_spin(HOG_NS);
        await(mag_yield());
    }
    return 0;
}

/* ---- timers -------------------------------------------------------------------------- */

async(void, sleeps, (uint64_t, who))
{
    struct mag_rand r = stress_rand(who);

    for (int i = 0; i < SLEEPS; i++) {
        mag_time queued = stress_queued_time();
        mag_time until = mag_now() + mag_rand_below(&r, 10000) * MAG_US;
        await(mag_sleep_until(until));
        mag_time now = mag_now();
        note_late("sleep", now - until - (stress_queued_time() - queued));
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

static void *write_bytes(void *arg)
{
    for (int i = 0; i < BYTES; i++) {
        mag_time now = mag_clock_now();
        EXPECT(write(ends[1], &now, sizeof now) == (ssize_t)sizeof now);
        usleep(5000);
    }
    return arg;
}

async(void, reads)
{
    for (int i = 0; i < BYTES; i++) {
        mag_time      queued = stress_queued_time(), sent = 0;
        struct mag_op op = { .code = MAG_OP_READ, .fd = ends[0], .addr = &sent,
                             .len = sizeof sent, .offset = MAG_OP_OFFSET_CURRENT };
        EXPECT(await(mag_wait_op(&op)) == (int)sizeof sent);
        mag_time now = mag_now();
        note_late("byte", now - sent - (stress_queued_time() - queued));
    }
    return 0;
}

async(void, beside_hogs)
{
    unsigned       n = mag_rt_workers(mag_rt_self());
    struct hog    *hogs[512];
    struct sleeps *all[256];
    struct reads  *reader = spawn(reads());

    for (unsigned i = 0; i < n; i++)
        all[i] = spawn_opts(sleeps(i), .pin = true, .worker = i + 1);
    for (unsigned i = 0; i < 2 * n; i++)
        hogs[i] = spawn_opts(hog(), .pin = true, .worker = i % n + 1);
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
    writer = stress_thread(write_bytes, NULL);
    EXPECT(mag_run_with(beside_hogs(), NULL, &o) == 0);
    (void)stress_joined(writer);
    close(ends[0]);
    close(ends[1]);
    printf("fairness: at most %.1f ms late\n", (double)latest / MAG_MS);
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
