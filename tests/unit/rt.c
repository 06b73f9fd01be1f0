/* SPDX-License-Identifier: MIT */
/* rt.c - runtimes: started, refused with a sentence, run, drained, and gone without a trace */
#include "body.h"
#include "ring.h"
#include "sys.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

TestSuite(rt, .timeout = 60);

static int n_in(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- reports ------------------------------------------------------------------------- */

static char reported[4000];

static void report(void *arg, const char *line)
{
    strncat(reported, line, sizeof reported - strlen(reported) - 2);
    strcat(reported, "\n");
    if (arg)
        ++*(int *)arg;
}

/* What a call writes to standard error. */
static char said[4000];
static int  said_fd[2], stderr_before;

static void eavesdrop(void)
{
    fflush(stderr);
    cr_assert_eq(pipe(said_fd), 0);
    stderr_before = dup(2);
    dup2(said_fd[1], 2);
}

static void listened(void)
{
    ssize_t n;

    dup2(stderr_before, 2);
    close(stderr_before);
    close(said_fd[1]);
    n = read(said_fd[0], said, sizeof said - 1);
    said[n > 0 ? n : 0] = '\0';
    close(said_fd[0]);
}

/* ---- run --------------------------------------------------------------------------------- */

Test(rt, runs_a_coroutine)
{
    long v = 0;

    cr_assert_eq(mag_run(co(same_later, arg_of(5)), &v), 0);
    cr_assert_eq(v, 5);
    cr_assert_eq(mag_run(co(same, arg_of(6)), NULL), 0);
    cr_assert_eq(mag_run(co(fails_with, arg_of(9)), &v), 9, "a count");
    v = 1;
    cr_assert_eq(mag_run(co(fails_with, arg_of(-EIO)), &v), -EIO);
    cr_assert_eq(v, 1);
    cr_assert_eq(mag_run(NULL, &v), -ENOMEM);
    cr_assert_eq(mag_mem_live(), 0);
}

static int knows_its_runtime(void *arg, long *value)
{
    SHOULD(mag_rt_self());
    *value = mag_rt_workers(mag_rt_self());
    SHOULD(*value == num(arg));
    return 0;
}

Test(rt, with_so_many_workers)
{
    cr_assert_null(mag_rt_self());
    for (long n = 1; n <= 16; n += 3)
        RUN((unsigned)n, knows_its_runtime, arg_of(n));
}

/* A joined thread can be seen in /proc for a moment more. */
static int n_threads_at_last(int expected)
{
    for (int i = 0; i < 10000 && n_in("/proc/self/task") > expected; i++)
        usleep(1000);
    return n_in("/proc/self/task");
}

Test(rt, leaves_nothing_behind)
{
    int n_descriptors, n_threads;

    RUN(4, same_later, NULL); /* what is there for good is there now */
    n_descriptors = n_in("/proc/self/fd");
    n_threads = n_in("/proc/self/task");
    for (int i = 0; i < 100; i++)
        RUN(1 + (unsigned)i % 4, same_later, NULL);
    cr_assert_eq(n_in("/proc/self/fd"), n_descriptors);
    cr_assert_leq(n_threads_at_last(n_threads), n_threads);
}

/* Tasks that still run are waited for. */
static mag_atomic(uint32_t) n_ended;

static int count_end(void *arg, long *value)
{
    int rc = mag_sleep(num(arg));

    *value = 0;
    mag_fetch_add(&n_ended, 1);
    return rc;
}

static int leaves_tasks(void *arg, long *value)
{
    *value = 8;
    for (int i = 0; i < 100; i++)
        SHOULD(go(count_end, arg_of(i % 5 * MAG_MS)));
    return num(arg) ? mag_yield() : 0;
}

Test(rt, waits_for_tasks_that_nobody_awaited)
{
    for (int i = 0; i < 10; i++) {
        n_ended = 0;
        RUN(1 + (unsigned)i % 4, leaves_tasks, arg_of(i % 2));
        cr_assert_eq(n_ended, 100);
    }
}

static int spawns_more(void *arg, long *value)
{
    *value = 0;
    if (num(arg) == 0)
        mag_fetch_add(&n_ended, 1);
    else
        for (int i = 0; i < 3; i++)
            SHOULD(go(spawns_more, arg_of(num(arg) - 1)));
    return mag_yield();
}

Test(rt, waits_for_the_tasks_of_tasks)
{
    for (int i = 0; i < 20; i++) {
        n_ended = 0;
        RUN(1 + (unsigned)i % 4, spawns_more, arg_of(7));
        cr_assert_eq(n_ended, 2187);
    }
}

static int detaches_many(void *arg, long *value)
{
    *value = 0;
    for (int i = 0; i < 200; i++) {
        struct co *c = go(i % 2 ? forever : count_end, arg_of(MAG_NEVER / 2));
        SHOULD(c && mag_detach(c) == 0);
        if (arg && i % 20 == 0)
            SHOULD(mag_yield() == 0);
    }
    return 0;
}

Test(rt, cancels_what_is_detached)
{
    for (int i = 0; i < 20; i++)
        RUN(1 + (unsigned)i % 4, detaches_many, arg_of(i % 2));
}

/* ---- several, and many times ------------------------------------------------------------------ */

Test(rt, runs_many_coroutines)
{
    struct mag_rt_options options = { .workers = 3 };
    struct mag_rt *rt;
    long v = 0;

    cr_assert_eq(mag_rt_new(&rt, &options), 0);
    cr_assert_eq(mag_rt_workers(rt), 3);
    for (long i = 0; i < 2000; i++) {
        cr_assert_eq(mag_rt_run(rt, co(i % 2 ? same_later : same, arg_of(i)), &v), 0);
        cr_assert_eq(v, i);
    }
    cr_assert_eq(mag_rt_run(rt, NULL, &v), -ENOMEM);
    mag_rt_free(rt);
    mag_rt_free(NULL);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(rt, several_at_once)
{
    struct mag_rt_options options = { .workers = 2 };
    struct mag_rt *rts[5];

    for (int i = 0; i < 5; i++)
        cr_assert_eq(mag_rt_new(&rts[i], &options), 0);
    for (long i = 0; i < 500; i++) {
        long v = 0;
        cr_assert_eq(mag_rt_run(rts[i % 5], co(same_later, arg_of(i)), &v), 0);
        cr_assert_eq(v, i);
    }
    for (int i = 0; i < 5; i++)
        mag_rt_free(rts[i * 2 % 5]);
    cr_assert_eq(mag_mem_live(), 0);
}

static struct mag_rt *shared;

static void *run_many(void *arg)
{
    for (long i = 0; i < 500; i++) {
        long v = -1;
        if (mag_rt_run(shared, co(i % 2 ? same_later : same, arg_of(i)), &v) != 0 || v != i)
            return arg;
    }
    return NULL;
}

static void *submit_many(void *arg)
{
    struct co *tasks[500];

    for (long i = 0; i < 500; i++) {
        struct mag_spawn_options options = { .worker = (unsigned)(i % 5) };
        if (!(tasks[i] = co(i % 3 ? same_later : same, arg_of(i))) ||
            mag_submit(shared, tasks[i], i % 2 ? &options : NULL) != 0)
            return arg;
    }
    for (long i = 499; i >= 0; i--) {
        long v = -1;
        if (i % 7 == 0) {
            if (mag_detach(tasks[i]) != 0)
                return arg;
        } else if (await_co(tasks[i], &v) != 0 || v != i) {
            return arg;
        }
    }
    return NULL;
}

Test(rt, used_by_eight_threads)
{
    struct mag_rt_options options = { .workers = 4 };
    pthread_t threads[8];
    void *failed;

    cr_assert_eq(mag_rt_new(&shared, &options), 0);
    for (long i = 0; i < 8; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i % 2 ? run_many : submit_many, &shared), 0);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], &failed);
        cr_assert_null(failed);
    }
    mag_rt_free(shared);
    cr_assert_eq(mag_mem_live(), 0);
}

/* From a task of another runtime, with every kind of options. */
static int submits_elsewhere(void *arg, long *value)
{
    static const struct mag_spawn_options options[] = {
        { .name = NULL }, { .pin = true }, { .worker = 2 }, { .stack_bytes = 128 * 1024 },
        { .name = "named" }
    };

    (void)arg, (void)value;
    for (long i = 0; i < 100; i++) {
        struct co *c = co(i % 2 ? same_later : same, arg_of(i));
        long v = -1;
        SHOULD(mag_submit(shared, c, &options[i % 5]) == 0);
        SHOULD(mag_submit(shared, c, NULL) == -EALREADY);
        if (i % 10 == 9) {
            SHOULD(mag_detach(c) == 0);
            continue;
        }
        SHOULD(await_co(c, &v) == 0 && v == i);
    }
    return 0;
}

Test(rt, tasks_of_two_runtimes_meet)
{
    struct mag_rt_options options = { .workers = 2 };

    for (unsigned n = 1; n <= 4; n += 3) {
        int rc;
        cr_assert_eq(mag_rt_new(&shared, &options), 0);
        rc = run_rc(n, submits_elsewhere, NULL);
        cr_assert_eq(rc, 0, "%s, line %d: %s", mag_err_name(rc), broken_line, broken_claim);
        mag_rt_free(shared);
        cr_assert_eq(mag_mem_live(), 0);
    }
}

/* ---- refused ------------------------------------------------------------------------------------- */

static void refused(const struct mag_rt_options *options, int expected, const char *part)
{
    struct mag_rt *rt = NULL;
    int rc = mag_rt_new(&rt, options);

    cr_assert_eq(rc, expected, "%s: %s", mag_err_name(rc), mag_rt_why());
    cr_assert_not_null(strstr(mag_rt_why(), part), "\"%s\" is not in \"%s\"", part, mag_rt_why());
    cr_assert_null(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(rt, refuses_bad_options)
{
    refused(&(struct mag_rt_options){ .workers = 257 }, -EINVAL, "257 workers");
    refused(&(struct mag_rt_options){ .stack_bytes = 1 }, -EINVAL, ".stack_bytes");
    refused(&(struct mag_rt_options){ .stack_bytes = (size_t)1 << 40 }, -EINVAL, ".stack_bytes");
    refused(&(struct mag_rt_options){ .offload_threads = 65 }, -EINVAL, ".offload_threads");
}

static long workers_by_environment(const char *value)
{
    struct mag_rt *rt;
    long n;

    setenv("MAGPIE_WORKERS", value, 1);
    cr_assert_eq(mag_rt_new(&rt, NULL), 0, "%s: %s", value, mag_rt_why());
    n = mag_rt_workers(rt);
    mag_rt_free(rt);
    return n;
}

Test(rt, workers_by_environment)
{
    static const char *const bad[] = { "0", "-1", "257", "four", "4x", " ", "1e3",
                                       "99999999999999999999" };
    struct mag_rt_options two = { .workers = 2 };
    struct mag_rt *rt;
    cpu_set_t cpus;
    long n_cpus;

    sched_getaffinity(0, sizeof cpus, &cpus);
    n_cpus = CPU_COUNT(&cpus);
    cr_assert_eq(workers_by_environment("1"), 1);
    cr_assert_eq(workers_by_environment("7"), 7);
    cr_assert_leq(workers_by_environment(""), n_cpus);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("MAGPIE_WORKERS", bad[i], 1);
        refused(NULL, -EINVAL, "MAGPIE_WORKERS");
        cr_assert_not_null(strstr(mag_rt_why(), bad[i]));
    }
    cr_assert_eq(mag_rt_new(&rt, &two), 0, "who says so in the code need not care");
    cr_assert_eq(mag_rt_workers(rt), 2);
    mag_rt_free(rt);
    unsetenv("MAGPIE_WORKERS");
    cr_assert_eq(mag_rt_new(&rt, NULL), 0);
    cr_assert_leq((long)mag_rt_workers(rt), n_cpus);
    cr_assert_geq(mag_rt_workers(rt), 1);
    mag_rt_free(rt);
}

Test(rt, back_end_by_environment)
{
    setenv("MAGPIE_BACKEND", "nonsense", 1);
    refused(&(struct mag_rt_options){ .workers = 3 }, -EINVAL, "nonsense");
    eavesdrop();
    int rc = mag_run(co(same, NULL), NULL);
    listened();
    cr_assert_eq(rc, -EINVAL);
    cr_assert_not_null(strstr(said, "nonsense"), "mag_run says why: %s", said);
    setenv("MAGPIE_BACKEND", "io_uring", 1);
    RUN(2, same_later, NULL);
}

/* ---- inside a task ------------------------------------------------------------------------------------ */

static int run_inside(void *arg, long *value)
{
    struct mag_rt *rt = NULL;

    (void)arg, (void)value;
    SHOULD(mag_rt_new(&rt, NULL) == -EDEADLK && rt == NULL);
    SHOULD(strstr(mag_rt_why(), "inside a task"));
    SHOULD(strstr(mag_rt_why(), "await"));
    SHOULD(mag_run(co(same, NULL), NULL) == -EDEADLK);
    SHOULD(mag_yield() == 0);
    return 0;
}

static int rt_run_inside(void *arg, long *value)
{
    struct co *c = co(same, arg_of(4));
    long v = 0;

    (void)arg, (void)value;
    SHOULD(mag_rt_run(mag_rt_self(), c, NULL) == -EDEADLK);
    if (strcmp(mag_kind_name(c), "coroutine") == 0) /* not consumed: still to be awaited */
        SHOULD(await_co(c, &v) == 0 && v == 4);
    return 0;
}

Test(rt, does_not_run_inside_a_task)
{
    eavesdrop();
    RUN(2, run_inside, NULL);
    listened();
    cr_assert_not_null(strstr(said, "magpie: "), "%s", said);
    cr_assert_not_null(strstr(said, "mag_run()"), "%s", said);
    cr_assert_not_null(strstr(said, "await"), "%s", said);
    eavesdrop();
    RUN(2, rt_run_inside, NULL);
    listened();
    cr_assert_not_null(strstr(said, "mag_rt_run()"), "%s", said);
}

/* ---- never awaited --------------------------------------------------------------------------------------- */

/* As the constructor of a type: the place is where it is called. */
static MAG_NOINLINE struct co *make(void)
{
    return co_of(&co_type, same, NULL);
}

static int forgets(void *arg, long *value)
{
    struct co *c = make(), *dropped = make();

    (void)arg, (void)value;
    SHOULD(c && dropped);
    return mag_close(dropped);
}

Test(rt, reports_what_was_never_awaited)
{
    int n_lines = 0;
    struct mag_rt_options options = { .workers = 2, .report = report, .report_arg = &n_lines };

    cr_assert_eq(mag_run_with(co(forgets, NULL), NULL, &options), 0);
    cr_assert_eq(n_lines, 1, "%s", reported);
    cr_assert_not_null(strstr(reported, "coroutine 'co' was never awaited"), "%s", reported);
    cr_assert_not_null(strstr(reported, "created at"), "%s", reported);
    if (strstr(reported, "rt.c:")) /* where addr2line is, also the place */
        cr_assert_not_null(strstr(reported, "forgets"), "%s", reported);
    cr_assert_eq(mag_mem_live(), 0);
}

Test(rt, reports_to_standard_error)
{
    eavesdrop();
    RUN(1, forgets, NULL);
    listened();
    cr_assert_not_null(strstr(said, "magpie: coroutine 'co' was never awaited"), "%s", said);
}

static int forgets_many(void *arg, long *value)
{
    (void)value;
    for (int i = 0; i < num(arg); i++)
        SHOULD(co(same, NULL));
    return 0;
}

Test(rt, reports_each)
{
    int n_lines = 0;
    struct mag_rt_options options = { .workers = 1, .report = report, .report_arg = &n_lines };

    cr_assert_eq(mag_run_with(co(forgets_many, arg_of(20)), NULL, &options), 0);
    cr_assert_eq(n_lines, 20);
    cr_assert_eq(mag_mem_live(), 0);
}

static int clean(void *arg, long *value)
{
    struct co *t = go(same, NULL);

    (void)value;
    SHOULD(await_co(co(same, NULL), NULL) == 0);
    (void)arg, (void)t; /* a task that nobody awaits is no mistake: the runtime waits */
    return 0;
}

Test(rt, reports_nothing_else)
{
    int n_lines = 0;
    struct mag_rt_options options = { .workers = 2, .report = report, .report_arg = &n_lines };

    cr_assert_eq(mag_run_with(co(clean, NULL), NULL, &options), 0);
    cr_assert_eq(n_lines, 0, "%s", reported);
}

/* ---- when starting fails -------------------------------------------------------------------------------------- */

Test(rt, says_which_thread_does_not_start)
{
    for (unsigned n = 1; n <= 4; n++) {
        mag_sys_fail_nth(MAG_SYS_THREAD_START, n, EAGAIN, false);
        refused(&(struct mag_rt_options){ .workers = 4 }, -EAGAIN, "worker thread");
        mag_sys_fail_none();
    }
}

Test(rt, says_why_there_is_no_ring)
{
    static const int errors[] = { ENOSYS, EPERM, ENOMEM, EMFILE };

    setenv("MAGPIE_BACKEND", "io_uring", 1); /* by name: else the first two choose epoll */
    for (int i = 0; i < 4; i++)
        for (unsigned n = 1; n <= 3; n++) {
            mag_sys_fail_nth(MAG_SYS_URING_SETUP, n, errors[i], true);
            refused(&(struct mag_rt_options){ .workers = 3 }, -errors[i], "io_uring");
            mag_sys_fail_none();
        }
    RUN(3, same_later, NULL);
}

Test(rt, without_memory)
{
    int rc = -1;

    for (uint64_t n = 1; n < 1000; n++) {
        struct mag_rt *rt = NULL;
        mag_mem_fail_nth(n, true);
        rc = mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2 });
        mag_mem_fail_nth(0, false);
        if (rc == 0)
            mag_rt_free(rt);
        cr_assert_eq(mag_mem_live(), 0);
        if (rc == 0)
            return;
        cr_assert_eq(rc, -ENOMEM);
    }
    cr_assert_fail("never succeeded");
}

/* Where membarrier(2) is forbidden nothing is forced, and all works. */
Test(rt, without_membarrier)
{
    mag_sys_fail_nth(MAG_SYS_MEMBARRIER, 1, EPERM, true);
    n_ended = 0;
    RUN(4, spawns_more, arg_of(6));
    cr_assert_eq(n_ended, 729);
    mag_sys_fail_none();
}
