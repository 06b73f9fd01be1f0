/* SPDX-License-Identifier: MIT */
/*
 * stuck.c - what waits on a worker that one task keeps busy is not held hostage
 *
 * Worker 1 gets tasks that wait: for bytes in a pipe (an operation of its ring), for a time
 * (its timers), for futures that a plain thread sets (its inbox), under a deadline.  Then a
 * task computes there for a second and more without suspending.  During that, each of the
 * others must go on within 20 ms (median; the worst may be later on a loaded machine) of the
 * moment when what it waits for is there, on another worker.
 *
 * All that is measured by a clock, and on a busy machine each of the threads may get no processor
 * for a while: so the scene is played again if it went badly, and one of some must be good.
 */
#include "stress.h"

#include <errno.h>

enum {
    ROUNDS = 6,
    PROBES = 20,
    GAP_MS = 50,
    HOG_MS = PROBES * GAP_MS + 300,
    MEDIAN_MS = STRESS_IS_SLOW ? 100 : 20,
    WORST_MS = STRESS_IS_SLOW ? 2000 : 300,
};

static mag_atomic(mag_time) begun_; /* of the hog */
static mag_time ended;
static mag_time late[5][PROBES];
static mag_atomic(mag_time) due_at[PROBES]; /* when the bytes and the future of a probe came */
static int pipes[PROBES][2];

async_future(int, signal_);
static struct signal_ *futures[PROBES];

/* ---- those who wait --------------------------------------------------------------------- */

async(void, reader, (int, i))
{
    char name[64], byte;

    snprintf(name, sizeof name, "/proc/self/fd/%d", pipes[i][0]);
    async_with(mag_file, f, name, "r")
    {
        EXPECT(mag_file_read(f, &byte, 1) == 1);
        late[0][i] = mag_now() - mag_load_acquire(&due_at[i]);
    }
    return 0;
}

async(void, sleeper, (int, i))
{
    mag_time due = mag_load_acquire(&begun_) + (i + 1) * GAP_MS * MAG_MS;

    await(mag_sleep_until(due));
    late[1][i] = mag_now() - due;
    return 0;
}

async(void, awaiter, (int, i))
{
    await(futures[i]);
    late[2][i] = mag_now() - mag_load_acquire(&due_at[i]);
    return 0;
}

async(void, limited, (int, i))
{
    mag_time due = mag_load_acquire(&begun_) + (i + 1) * GAP_MS * MAG_MS;
    struct mag_scope s;
    int rc = mag_scope_enter(&s, due, NULL);

    if (rc == 0)
        rc = mag_scope_leave(&s, mag_sleep(3600 * MAG_SECOND));
    EXPECT(rc == -ETIMEDOUT);
    late[3][i] = mag_now() - due;
    return 0;
}

/* Yields all the time, between sleeps: is ready when the hog begins, or sleeps. */
async(void, yielder, (int, i))
{
    mag_time due = mag_load_acquire(&begun_) + (i + 1) * GAP_MS * MAG_MS;

    while (mag_now() < due - 5 * MAG_MS)
        await(mag_sleep(2 * MAG_MS));
    late[4][i] = mag_now() - (due - 5 * MAG_MS);
    return 0;
}

async(void, hog)
{
    mag_time end = mag_load_acquire(&begun_) + HOG_MS * MAG_MS;

    while (mag_now() < end)
        ;
    ended = mag_now();
    return 0;
}

/* ---- the thread outside --------------------------------------------------------------------- */

static void *outside(void *unused)
{
    (void)unused;
    for (int i = 0; i < PROBES; i++) {
        mag_time due = mag_load_acquire(&begun_) + (i + 1) * GAP_MS * MAG_MS;
        while (mag_now() < due)
            usleep(200);
        mag_store_release(&due_at[i], mag_now());
        EXPECT(write(pipes[i][1], "x", 1) == 1);
        EXPECT(future_set(futures[i], i) == 0);
    }
    return NULL;
}

/* ---- the whole -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    mag_time x = *(const mag_time *)a, y = *(const mag_time *)b;

    return (x > y) - (x < y);
}

static bool is_good(const char *what, mag_time *t)
{
    qsort(t, PROBES, sizeof *t, compare);
    printf("stuck: %-8s median %5.1f ms, worst %5.1f ms\n", what,
           (double)t[PROBES / 2] / (double)MAG_MS, (double)t[PROBES - 1] / (double)MAG_MS);
    return t[PROBES / 2] < MEDIAN_MS * MAG_MS && t[PROBES - 1] < WORST_MS * MAG_MS;
}

#define START(co) \
    do { \
        void *object = (co); \
        EXPECT(mag_start(object, &(struct mag_spawn_options){ .worker = 1 }) == 0); \
        all[n++] = object; \
    } while (0)

async(void, scene)
{
    void *all[5 * PROBES + 1];
    size_t n = 0;

    mag_store_release(&begun_, mag_now() + 20 * MAG_MS);
    for (int i = 0; i < PROBES; i++) {
        START(reader(i));
        START(sleeper(i));
        START(awaiter(i));
        START(limited(i));
        START(yielder(i));
    }
    await(mag_sleep(10 * MAG_MS)); /* all of them wait by now */
    START(hog());
    for (size_t i = 0; i < n; i++)
        EXPECT(mag_await(all[i], NULL, 0) == 0);
    return 0;
}

/* The watchdog names the hog; not here. */
static void ignore(void *arg, const char *line)
{
    (void)arg, (void)line;
}

static bool round_is_good(void)
{
    struct mag_rt_options options = { .workers = 2, .report = ignore };
    pthread_t thread;
    bool is_all_good = true;

    ended = 0;
    for (int i = 0; i < PROBES; i++) {
        EXPECT(pipe(pipes[i]) == 0);
        futures[i] = signal_();
    }
    mag_store_release(&begun_, mag_now() + 3600 * MAG_SECOND);
    struct scene *main_task = scene();
    struct mag_rt *rt;
    EXPECT(mag_rt_new(&rt, &options) == 0);
    EXPECT(mag_submit(rt, main_task, NULL) == 0);
    usleep(15 * 1000);
    EXPECT(pthread_create(&thread, NULL, outside, NULL) == 0);
    EXPECT(mag_await(main_task, NULL, 0) == 0);
    pthread_join(thread, NULL);
    mag_rt_free(rt);
    EXPECT(ended != 0);
    for (int i = 0; i < PROBES; i++)
        for (int k = 0; k < 2; k++)
            close(pipes[i][k]);
    if (!MAG_TSAN) /* there no signal is sent, and so the ring has to wait (rescue.c) */
        is_all_good &= is_good("pipe", late[0]);
    is_all_good &= is_good("sleep", late[1]);
    is_all_good &= is_good("future", late[2]);
    is_all_good &= is_good("deadline", late[3]);
    is_all_good &= is_good("naps", late[4]);
    return is_all_good;
}

int main(void)
{
    int n_bad = 0;

    stress_begin("stuck", NULL);
    while (n_bad < ROUNDS && !round_is_good()) {
        n_bad++;
        stress_beat();
    }
    EXPECT(n_bad < ROUNDS);
    return stress_end();
}
