/* SPDX-License-Identifier: MIT */
/* watchdog.c - who does not suspend is named, with the place; who does is left alone */
#include "body.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

TestSuite(watchdog, .timeout = 60);

/* ---- what was reported ------------------------------------------------------------ */

static struct {
    mag_atomic(uint32_t) lock;
    char text[32768];
    size_t n;
} seen;

static void note(void *arg, const char *line)
{
    uint32_t free = 0;

    (void)arg;
    while (!mag_cas(&seen.lock, &free, 1))
        free = 0;
    seen.n += (size_t)snprintf(seen.text + seen.n, sizeof seen.text - seen.n, "%s\n", line);
    mag_store_release(&seen.lock, 0);
}

static unsigned count(const char *part)
{
    unsigned n = 0;

    for (const char *at = seen.text; (at = strstr(at, part)) != NULL; at++)
        n++;
    return n;
}

#define SAYS(n, part) \
    cr_assert_eq(count(part), (n), "%u times '%s' in:\n%s", count(part), (part), seen.text)

static int run(unsigned workers, mag_time slow_ns, int (*fn)(void *arg, long *value), void *arg)
{
    struct mag_rt_options options = { .workers = workers, .slow_ns = slow_ns, .report = note };

    seen.n = 0;
    seen.text[0] = '\0';
    return mag_run_with(co(fn, arg), NULL, &options);
}

/* Keeps the processor: counted by the thread's own time, as the machine may be busy. */
static MAG_NOINLINE void spin_here(mag_time ns)
{
    mag_time end = mag_now() + ns;

    while (mag_now() < end)
        mag_cpu_relax();
    mag_compiler_barrier();
}

/* ---- tasks ------------------------------------------------------------------------ */

static mag_time spun; /* how long that took */

/* Until so much was reported, on a machine that may be busy. */
static void spin_until(const char *part)
{
    mag_time begun = mag_now(), end = begun + 15 * MAG_SECOND;

    while (mag_now() < end && count(part) == 0)
        spin_here(MAG_MS);
    spun = mag_now() - begun;
}

static mag_time hog_ns;

static int hog(void *arg, long *value)
{
    *value = 1;
    if (arg)
        spin_until(arg);
    else
        spin_here(hog_ns);
    return 0;
}

static int with_a_hog(void *arg, long *value)
{
    static const struct mag_site site = { "hog.c", 200, "with_a_hog" };
    struct mag_spawn_options options = { .name = "bad example", .site = &site };
    struct co *c = co(hog, arg);

    SHOULD(mag_start(c, &options) == 0);
    SHOULD(settle_down() == 0);
    return await_co(c, value);
}

Test(watchdog, names_a_task_that_computes)
{
    cr_assert_eq(run(2, 30 * MAG_MS, with_a_hog, "at hog"), 0);
    SAYS(1, "task 'bad example' has not suspended for 30 ms (now in 'co', spawned at hog.c:200); "
            "it is here:");
    cr_assert_geq(count("at spin_here at "), 1u, "%s", seen.text);
    cr_assert_geq(count("at hog at watchdog.c:"), 1u, "%s", seen.text);
    if (spun < 250 * MAG_MS) /* the names may have taken so long that it was due */
        SAYS(0, "still");
    cr_assert_eq(mag_mem_live(), 0);
}

Test(watchdog, says_it_again_after_ten_times_as_long)
{
    cr_assert_eq(run(1, 10 * MAG_MS, hog, "still"), 0);
    SAYS(1, "task 'co' has not suspended for 10 ms");
    SAYS(1, "task 'co' still has not suspended for 100 ms");
}

static int blocks(void *arg, long *value)
{
    *value = 0;
    for (int i = 0; i < 750 && count(arg) == 0; i++) /* a signal ends it early */
        usleep(20000);
    return 0;
}

Test(watchdog, names_a_task_that_blocks)
{
    cr_assert_eq(run(2, 30 * MAG_MS, blocks, "at blocks"), 0);
    SAYS(1, "task 'co' has not suspended for 30 ms (created at ");
    cr_assert_geq(count("at blocks at watchdog.c:"), 1u, "%s", seen.text);
}

static int callback_is_over;

static void slow_callback(void *arg)
{
    spin_until(arg);
    mag_store_release(&callback_is_over, 1);
}

static int with_a_callback(void *arg, long *value)
{
    *value = 0;
    mag_store_release(&callback_is_over, 0);
    SHOULD(mag_call_soon(slow_callback, arg) == 0);
    while (!mag_load_acquire(&callback_is_over))
        SHOULD(mag_sleep(MAG_MS) == 0);
    return 0;
}

Test(watchdog, names_a_callback)
{
    cr_assert_eq(run(1, 20 * MAG_MS, with_a_callback, "at slow_callback"), 0);
    SAYS(1, "a callback on worker 1 has not returned for 20 ms; it is here:");
    cr_assert_geq(count("at slow_callback at watchdog.c:"), 1u, "%s", seen.text);
}

/* ---- who is left alone ------------------------------------------------------------ */

static int polite(void *arg, long *value)
{
    mag_time end = mag_now() + num(arg);

    *value = 0;
    while (mag_now() < end) {
        spin_here(MAG_MS / 4);
        SHOULD(mag_checkpoint() == 0);
    }
    return 0;
}

struct part {
    struct mag_fork fork;
    int n;
    long sum;
};

static long sum(int n);

static void run_part(struct mag_fork *fork)
{
    struct part *p = (struct part *)fork;

    p->sum = sum(p->n);
}

static long sum(int n)
{
    struct part p = { .n = n - 1 };
    long right;

    if (n < 2) {
        spin_here(10 * MAG_US);
        return n;
    }
    mag_fork(&p.fork, run_part);
    right = sum(n - 2);
    mag_join(&p.fork);
    return p.sum + right;
}

static int forks(void *arg, long *value)
{
    (void)arg;
    *value = sum(22); /* some 200 ms */
    return *value == 17711 ? 0 : -EBADMSG;
}

Test(watchdog, leaves_others_alone)
{
    cr_assert_eq(run(2, 20 * MAG_MS, polite, arg_of(80 * MAG_MS)), 0);
    cr_assert_eq(run(1, 20 * MAG_MS, polite, arg_of(80 * MAG_MS)), 0);
    SAYS(0, "suspended");
    cr_assert_eq(run(1, 20 * MAG_MS, sleep_ns, arg_of(80 * MAG_MS)), 0);
    SAYS(0, "suspended");
    cr_assert_eq(run(1, 70 * MAG_MS, forks, NULL), 0);
    SAYS(0, "suspended");
}

Test(watchdog, can_be_off)
{
    hog_ns = 200 * MAG_MS; /* longer than what is the limit if none is given */
    cr_assert_eq(run(2, MAG_NEVER, with_a_hog, NULL), 0);
    SAYS(0, "suspended");
    setenv("MAGPIE_SLOW_MS", "0", 1);
    cr_assert_eq(run(2, 0, with_a_hog, NULL), 0);
    SAYS(0, "suspended");
    setenv("MAGPIE_SLOW_MS", "15", 1);
    cr_assert_eq(run(2, 0, with_a_hog, "for 15 ms"), 0);
    SAYS(1, "suspended for 15 ms");
    hog_ns = 40 * MAG_MS; /* that much processor time is no fault, however long it takes */
    setenv("MAGPIE_SLOW_MS", "fast", 1);
    cr_assert_eq(run(2, 0, with_a_hog, NULL), 0);
    SAYS(0, "suspended");
    cr_assert_eq(run(2, -1, with_a_hog, NULL), -EINVAL);
}

static int many_hogs(void *arg, long *value)
{
    *value = 0;
    for (int i = 0; i < num(arg) || (i < 200 && count("for 10 ms") == 0); i++) {
        spin_here(25 * MAG_MS);
        SHOULD(mag_sleep(MAG_MS) == 0);
    }
    return 0;
}

Test(watchdog, does_not_flood)
{
    mag_time begun = mag_now();

    cr_assert_eq(run(1, 10 * MAG_MS, many_hogs, arg_of(20)), 0);
    cr_assert_leq(count("suspended for 10 ms"), 6u + (mag_now() - begun) / MAG_SECOND, "%s",
                  seen.text);
    cr_assert_geq(count("suspended for 10 ms"), 1u, "%s", seen.text);
}

/* When all have been parked for more than a second it is asleep. */
static int after_a_rest(void *arg, long *value)
{
    *value = 0;
    SHOULD(mag_sleep(1200 * MAG_MS) == 0);
    spin_until(arg);
    return 0;
}

Test(watchdog, wakes_with_the_workers)
{
    cr_assert_eq(run(2, 20 * MAG_MS, after_a_rest, "for 20 ms"), 0);
    SAYS(1, "suspended for 20 ms");
}

/* ---- deadlock --------------------------------------------------------------------- */

static void *first, *second;

static int await_it(void *f, long *value)
{
    return mag_await(f, value, sizeof *value);
}

/* When all of it was told; or never will be. */
static void *opens_late(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2000 && count("waiting for future 'future'") < 2; i++)
        usleep(10 * 1000);
    set(first, 1);
    set(second, 2);
    return NULL;
}

static int stuck(void *arg, long *value)
{
    struct mag_spawn_options named = { .name = "lost" };
    struct co *c = co(await_it, second);

    (void)arg;
    SHOULD(mag_start(c, &named) == 0);
    SHOULD(mag_await(first, value, sizeof *value) == 0);
    return await_co(c, value);
}

Test(watchdog, tells_of_a_deadlock)
{
    pthread_t thread;

    first = future();
    second = future();
    cr_assert_eq(pthread_create(&thread, NULL, opens_late, NULL), 0);
    cr_assert_eq(run(2, 0, stuck, NULL), 0);
    pthread_join(thread, NULL);
    SAYS(1, "every task waits, and nothing in this runtime can wake them");
    SAYS(1, "2 tasks: 0 running, 0 ready, 2 waiting");
    SAYS(2, "waiting for future 'future'");
    cr_assert_geq(count("lost "), 1u, "%s", seen.text);
    cr_assert_eq(mag_mem_live(), 0);
}

static int takes_800_ms(void *arg)
{
    (void)arg;
    usleep(800 * 1000);
    return 0;
}

static int waits_for_a_job(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_to_thread(takes_800_ms, NULL);
}

static int waits_for_a_time(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_sleep(800 * MAG_MS);
}

static int waits_for_an_operation(void *arg, long *value)
{
    struct mag_file pipe;
    char byte;
    int rc;

    (void)value;
    SHOULD(mag_file_open(&pipe, arg, "r") == 0);
    rc = (int)mag_file_read(&pipe, &byte, 1);
    SHOULD(mag_file_close(&pipe) == 0);
    return rc == 1 ? 0 : -EBADMSG;
}

static char pipe_path[64];

/* Each in a runtime of its own, beside the others; the last one has no task at all. */
static void *runs_one(void *fn)
{
    struct mag_rt_options options = { .workers = 2, .report = note };
    int (*body)(void *arg, long *value) = (int (*)(void *, long *))fn;
    struct mag_rt *rt = NULL;
    int rc = mag_rt_new(&rt, &options);

    if (rc == 0 && body)
        rc = mag_rt_run(rt, co(body, pipe_path), NULL);
    else
        usleep(800 * 1000);
    mag_rt_free(rt);
    return (void *)(intptr_t)rc;
}

Test(watchdog, waits_for_jobs_timers_and_operations)
{
    void *bodies[] = { (void *)waits_for_a_job, (void *)waits_for_a_time,
                       (void *)waits_for_an_operation, NULL };
    pthread_t threads[4];
    void *rc;
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    snprintf(pipe_path, sizeof pipe_path, "/proc/self/fd/%d", ends[0]);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, runs_one, bodies[i]), 0);
    usleep(900 * 1000);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(pthread_join(threads[i], &rc), 0);
        cr_assert_null(rc, "%d: %s", i, mag_err_name((int)(intptr_t)rc));
    }
    SAYS(0, "every task waits");
}

/* ---- SIGQUIT ---------------------------------------------------------------------- */

static int sends_quit(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    SHOULD(kill(getpid(), SIGQUIT) == 0);
    for (int i = 0; i < 4000 && count("tasks:") == 0; i++)
        SHOULD(mag_sleep(5 * MAG_MS) == 0);
    return 0;
}

Test(watchdog, sigquit_prints_the_tasks)
{
    struct mag_rt_options options = { .workers = 2, .report = note, .dump_on_sigquit = true };
    struct sigaction now;

    cr_assert_eq(mag_run_with(co(sends_quit, NULL), NULL, &options), 0);
    SAYS(1, "runtime: 2 workers, 1 tasks:");
    cr_assert_eq(sigaction(SIGQUIT, NULL, &now), 0);
    cr_assert_eq(now.sa_handler, SIG_DFL);
}

static mag_atomic(int) n_quits;

static void on_quit(int sig)
{
    (void)sig;
    mag_fetch_add(&n_quits, 1);
}

static int quits_by_itself(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    SHOULD(kill(getpid(), SIGQUIT) == 0);
    return mag_sleep(150 * MAG_MS);
}

Test(watchdog, sigquit_of_the_program_stays_its_own)
{
    struct mag_rt_options options = { .workers = 2, .report = note, .dump_on_sigquit = true };

    signal(SIGQUIT, on_quit);
    cr_assert_eq(mag_run_with(co(quits_by_itself, NULL), NULL, &options), 0);
    cr_assert_eq(n_quits, 1);
    SAYS(0, "tasks:");
}
