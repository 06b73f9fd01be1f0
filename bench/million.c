/* SPDX-License-Identifier: MIT */
/*
 * million.c - what a task costs that only waits: a million of them
 *
 * million-fiber: a million tasks, each suspended in mag_sleep_until() inside a function
 * that the task has called, so each has a stack.  Bytes per task; million-fiber-start is
 * the time of each from creation to its suspension, million-fiber-end from the deadline,
 * which is the same for all, until it has been awaited.
 *
 * million-sleep: a million bare sleeps (mag_sleep_co) in one gather, which need no stack.
 * Bytes per sleep; million-sleep-time is all that creating, starting and ending it took.
 *
 * Bytes are the growth of VmRSS + VmPTE (/proc/self/status): memory that is really
 * there, and the page tables that lead to it.  The array of handles is not counted, it
 * is the caller's.  Each run has a process of its own, since what an earlier run left in
 * caches would count as nothing.  A pilot with fewer tasks, after the first reading,
 * finds out how long the deadline must be away so that all are asleep before it; the
 * memory that the pilot leaves behind is used again by the million and counted with it.
 *
 * Checked: the deadline was far enough, and every task returned 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#include <magpie/async.h>

enum {
    MILLION = 1000000,
    PILOT = 20000,
    FIBER_MIB_NEEDED = 5000,
    SLEEP_MIB_NEEDED = 600,
};

/* ---- memory --------------------------------------------------------------------- */

/* A value in KiB from a file of lines like "VmRSS:   1234 kB"; 0 if it is not there. */
static uint64_t read_kib(const char *path, const char *key)
{
    static char buf[8192]; /* not on a task's stack; one reader at a time */
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);

    if (fd >= 0)
        close(fd);
    buf[n < 0 ? 0 : n] = '\0';
    const char *line = strstr(buf, key);
    return line == NULL ? 0 : strtoull(line + strlen(key), NULL, 10);
}

static double memory_bytes(void)
{
    return 1024.0 * (double)(read_kib("/proc/self/status", "VmRSS:") +
                             read_kib("/proc/self/status", "VmPTE:"));
}

static bool has_memory(unsigned mib)
{
    return read_kib("/proc/meminfo", "MemAvailable:") / 1024 >= mib;
}

static const char *why_no_fibers(unsigned workers)
{
    (void)workers;
    return has_memory(FIBER_MIB_NEEDED) ? NULL : "it takes 5 GB of free memory";
}

static const char *why_no_sleeps(unsigned workers)
{
    (void)workers;
    return has_memory(SLEEP_MIB_NEEDED) ? NULL : "it takes 600 MB of free memory";
}

/* An array of n handles whose pages are there already. */
static void **new_handles(size_t n)
{
    void **handle = malloc(n * sizeof *handle);

    if (handle != NULL)
        memset(handle, 0xff, n * sizeof *handle);
    return handle;
}

/* ---- tasks with a stack ------------------------------------------------------------ */

/* Tasks that sleep until one deadline. */
struct crowd {
    unsigned n;
    mag_time deadline;
    _Atomic(unsigned) n_asleep;
    mag_time begin, all_asleep, end;
    double bytes; /* in use when the last one went to sleep */
};

/* The function that a task sleeps in.  The last one to come looks at the memory. */
static __attribute__((noinline)) int nap(struct crowd *c)
{
    if (atomic_fetch_add_explicit(&c->n_asleep, 1, memory_order_relaxed) + 1 == c->n) {
        c->all_asleep = mag_now();
        c->bytes = memory_bytes();
    }
    int rc = mag_sleep_until(c->deadline);
    __asm__ volatile(""); /* no tail call: this frame has to stay */
    return rc;
}

async(void, napper, (struct crowd *, c))
{
    return nap(c);
}

static int run_crowd(struct crowd *c, void **handle)
{
    int rc = 0;

    c->begin = mag_now();
    for (unsigned i = 0; i < c->n; i++) {
        handle[i] = napper(c);
        await(mag_start(handle[i], NULL));
    }
    for (unsigned i = 0; i < c->n; i++) {
        int rc_i = mag_await(handle[i], NULL, 0);
        rc = rc_i < 0 ? rc_i : rc;
    }
    c->end = mag_now();
    return rc;
}

static int run_fibers(uint64_t n, double *value)
{
    void **handle = new_handles(n);
    struct crowd pilot = { .n = PILOT, .deadline = mag_now() + MAG_SECOND };
    struct crowd crowd = { .n = (unsigned)n };

    if (handle == NULL)
        return -ENOMEM;
    double before = memory_bytes();
    int rc = run_crowd(&pilot, handle);
    if (rc >= 0) {
        mag_time start_ns = (pilot.all_asleep - pilot.begin) / PILOT * (mag_time)n;
        crowd.deadline = mag_now() + 3 * start_ns + 2 * MAG_SECOND;
        rc = run_crowd(&crowd, handle);
    }
    free(handle);
    value[0] = (crowd.bytes - before) / (double)n;
    value[1] = (double)(crowd.all_asleep - crowd.begin) / (double)n;
    value[2] = (double)(crowd.end - crowd.deadline) / (double)n;
    return rc >= 0 && crowd.all_asleep >= crowd.deadline ? -ETIME : rc;
}

/* ---- sleeps without one ---------------------------------------------------------------- */

/* Looks at the memory while everybody sleeps. */
struct look {
    mag_time at, was_at;
    double bytes;
};

async(void, looker, (struct look *, l))
{
    await(mag_sleep_until(l->at));
    l->was_at = mag_now();
    l->bytes = memory_bytes();
    return 0;
}

/* n sleeps in one gather; how long all of it took. */
static int gather_sleeps(void **handle, uint64_t n, mag_time duration_ns, mag_time *took)
{
    mag_time begin = mag_now();

    for (uint64_t i = 0; i < n; i++)
        handle[i] = mag_sleep_co(duration_ns);
    int rc = mag_gather(NULL, 0, handle, n, NULL);
    *took = mag_now() - begin;
    return rc;
}

/*
 * The sleeps begin while the gather starts them, so they end over as long a time again.
 * Eight times the time that the starts should take leaves a wide space in the middle
 * when all of them sleep.
 */
static int run_sleeps(uint64_t n, double *value)
{
    void **handle = new_handles(n);
    mag_time took = 0, sleep_ns;

    if (handle == NULL)
        return -ENOMEM;
    double before = memory_bytes();
    int rc = gather_sleeps(handle, PILOT, 20 * MAG_MS, &took);
    sleep_ns = 8 * (took - 20 * MAG_MS) / PILOT * (mag_time)n + MAG_SECOND;
    mag_time begin = mag_now();
    struct look look = { .at = begin + sleep_ns * 3 / 4 };
    struct looker *task = looker(&look);
    if (rc >= 0)
        rc = mag_start(task, NULL);
    if (rc >= 0) {
        rc = gather_sleeps(handle, n, sleep_ns, &took);
        int rc_look = await_rc(task, NULL);
        rc = rc < 0 ? rc : rc_look;
    }
    free(handle);
    value[0] = (look.bytes - before) / (double)n;
    value[1] = (double)(took - sleep_ns) / (double)n;
    bool is_late = look.was_at - look.at > 50 * MAG_MS || look.was_at - begin >= sleep_ns;
    return rc >= 0 && is_late ? -ETIME : rc;
}

const struct bench bench_million_fiber = {
    .name = "million-fiber",
    .what = "one of a million tasks suspended in a sleep inside a function: memory, time",
    .metric = { { "million-fiber", "B" },
                { "million-fiber-start", "ns" },
                { "million-fiber-end", "ns" } },
    .n_fixed = MILLION,
    .runs_max = 3,
    .is_single = true,
    .is_apart = true,
    .why_not = why_no_fibers,
    .run = run_fibers,
};

const struct bench bench_million_sleep = {
    .name = "million-sleep",
    .what = "one of a million bare sleeps in one gather: memory, time",
    .metric = { { "million-sleep", "B" }, { "million-sleep-time", "ns" } },
    .n_fixed = MILLION,
    .runs_max = 3,
    .is_single = true,
    .is_apart = true,
    .why_not = why_no_sleeps,
    .run = run_sleeps,
};
