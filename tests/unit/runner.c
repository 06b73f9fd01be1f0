/* SPDX-License-Identifier: MIT */
/* runner.c - many runs on one runtime, Ctrl-C, and the ordered shutdown */
#include "body.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(runner, .timeout = 100);

static char reported[4000];
static pthread_mutex_t reporting = PTHREAD_MUTEX_INITIALIZER;

static void report(void *arg, const char *line)
{
    (void)arg;
    pthread_mutex_lock(&reporting);
    strncat(reported, line, sizeof reported - strlen(reported) - 2);
    strcat(reported, "\n");
    pthread_mutex_unlock(&reporting);
}

static struct mag_rt *rt_with(unsigned workers)
{
    struct mag_rt *rt = NULL;

    reported[0] = '\0';
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = workers, .report = report }),
                 0);
    return rt;
}

/* ---- many runs --------------------------------------------------------------------------- */

Test(runner, runs_many_times)
{
    struct mag_rt *rt = rt_with(2);
    long v;

    for (long i = 0; i < 200; i++) {
        v = -1;
        cr_assert_eq(mag_rt_run(rt, co(i % 2 ? same_later : same, arg_of(i)), &v), 0);
        cr_assert_eq(v, i);
    }
    cr_assert_eq(mag_rt_run(rt, co(fails_with, arg_of(-EIO)), &v), -EIO);
    cr_assert_eq(mag_rt_run(rt, co(same, arg_of(5)), &v), 0, "goes on after a failure");
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

static int outlives_its_run(void *arg, long *value)
{
    struct co **c = arg;

    (void)value;
    *c = go(sleep_ns, arg_of(2 * MAG_MS));
    return 0;
}

Test(runner, what_one_run_spawns_another_may_await)
{
    struct mag_rt *rt = rt_with(2);
    struct co *c = NULL;
    long v = 0;

    cr_assert_eq(mag_rt_run(rt, co(outlives_its_run, &c), NULL), 0);
    cr_assert_eq(mag_rt_run(rt, c, NULL), -EALREADY, "it was started");
    cr_assert_eq(await_co(c, &v), 0);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- Ctrl-C --------------------------------------------------------------------------------- */

static mag_atomic(int) cleaned_up;

static void *interrupt(void *arg)
{
    usleep((useconds_t)num(arg));
    kill(getpid(), SIGINT);
    return NULL;
}

static int interrupted(void *arg, long *value)
{
    pthread_t t;
    int rc;

    *value = 3;
    SHOULD(pthread_create(&t, NULL, interrupt, arg_of(2000)) == 0);
    rc = mag_sleep(10 * MAG_SECOND);
    SHOULD(mag_sleep(MAG_MS) == -ECANCELED);
    mag_store_release(&cleaned_up, 1);
    SHOULD(pthread_join(t, NULL) == 0);
    return num(arg) ? 5 : rc;
}

static void *disposition(void)
{
    struct sigaction now;

    sigaction(SIGINT, NULL, &now);
    return (void *)now.sa_handler;
}

Test(runner, an_interrupt_cancels_the_main_task)
{
    mag_time begun = mag_now();

    cleaned_up = 0;
    cr_assert_eq(mag_run(co(interrupted, arg_of(0)), NULL), -ECANCELED);
    cr_assert_eq(cleaned_up, 1);
    cr_assert_lt(mag_now() - begun, 9 * MAG_SECOND);
    cr_assert_eq(disposition(), (void *)SIG_DFL, "put back");
    cr_assert_eq(mag_mem_live(), 0);
}

Test(runner, a_task_that_was_interrupted_may_return_a_value)
{
    long v = 0;

    cr_assert_eq(mag_run(co(interrupted, arg_of(1)), &v), 5);
    cr_assert_eq(v, 3);
}

Test(runner, each_run_on_a_runtime_can_be_interrupted)
{
    struct mag_rt *rt = rt_with(2);

    for (int i = 0; i < 3; i++) {
        cr_assert_eq(mag_rt_run(rt, co(interrupted, arg_of(0)), NULL), -ECANCELED);
        cr_assert_eq(disposition(), (void *)SIG_DFL);
        cr_assert_eq(mag_rt_run(rt, co(same_later, NULL), NULL), 0);
    }
    mag_rt_free(rt);
}

Test(runner, an_embedded_runtime_can_be_interrupted)
{
    struct mag_rt_options o = { .embedded = true };

    cr_assert_eq(mag_run_with(co(interrupted, arg_of(0)), NULL, &o), -ECANCELED);
    cr_assert_eq(mag_mem_live(), 0);
}

static int twice(void *arg, long *value)
{
    (void)arg, (void)value;
    kill(getpid(), SIGINT);
    (void)mag_sleep(10 * MAG_SECOND);
    for (int i = 0; i < 1000; i++) /* does not care */
        kill(getpid(), SIGINT);
    return 0;
}

Test(runner, the_second_interrupt_kills)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        alarm(10);
        (void)mag_run(co(twice, NULL), NULL);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

static mag_atomic(int) n_handled;

static void handle(int sig)
{
    (void)sig;
    mag_fetch_add(&n_handled, 1);
}

static int not_interrupted(void *arg, long *value)
{
    (void)arg, (void)value;
    kill(getpid(), SIGINT);
    return mag_sleep(5 * MAG_MS);
}

Test(runner, a_programs_own_handler_is_left_alone)
{
    struct sigaction own = { .sa_handler = handle }, now;

    sigaction(SIGINT, &own, NULL);
    cr_assert_eq(mag_run(co(not_interrupted, NULL), NULL), 0);
    cr_assert_eq(n_handled, 1);
    sigaction(SIGINT, NULL, &now);
    cr_assert(now.sa_handler == handle);
    own.sa_handler = SIG_IGN;
    sigaction(SIGINT, &own, NULL);
    cr_assert_eq(mag_run(co(not_interrupted, NULL), NULL), 0);
}

static int looks_at_disposition(void *arg, long *value)
{
    (void)arg;
    *value = disposition() == (void *)SIG_DFL;
    return 0;
}

Test(runner, keep_sigint)
{
    struct mag_rt_options o = { .keep_sigint = true };
    long v = 0;

    cr_assert_eq(mag_run_with(co(looks_at_disposition, NULL), &v, &o), 0);
    cr_assert_eq(v, 1);
    cr_assert_eq(mag_run(co(looks_at_disposition, NULL), &v), 0);
    cr_assert_eq(v, 0);
}

static int installs_its_own(void *arg, long *value)
{
    struct sigaction own = { .sa_handler = handle };

    (void)arg, (void)value;
    return sigaction(SIGINT, &own, NULL);
}

Test(runner, a_handler_that_the_program_installs_meanwhile_stays)
{
    cr_assert_eq(mag_run(co(installs_its_own, NULL), NULL), 0);
    cr_assert_eq(disposition(), (void *)handle);
}

static int waits_to_be_interrupted(void *arg, long *value)
{
    (void)value;
    mag_fetch_add((mag_atomic(uint32_t) *)arg, 1);
    return mag_sleep(10 * MAG_SECOND);
}

static void *runs_in_a_thread(void *n_up)
{
    return arg_of(mag_run(co(waits_to_be_interrupted, n_up), NULL));
}

Test(runner, an_interrupt_reaches_every_run)
{
    mag_atomic(uint32_t) n_up = 0;
    pthread_t t[3];
    void *rc;

    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, runs_in_a_thread, &n_up);
    while (mag_load_acquire(&n_up) < 3)
        usleep(100);
    kill(getpid(), SIGINT);
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], &rc);
        cr_assert_eq(num(rc), -ECANCELED);
    }
    cr_assert_eq(disposition(), (void *)SIG_DFL);
}

/* ---- stopping ------------------------------------------------------------------------------------- */

static mag_atomic(int) n_cancelled;

static int until_cancelled(void *arg, long *value)
{
    int rc = mag_sleep(MAG_NEVER);

    (void)arg, (void)value;
    mag_fetch_add(&n_cancelled, rc == -ECANCELED);
    return rc;
}

static int spawns_some(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 10; i++)
        SHOULD(go(until_cancelled, NULL));
    return mag_yield();
}

Test(runner, stop_cancels_everything)
{
    struct mag_rt *rt = rt_with(2);

    n_cancelled = 0;
    cr_assert_eq(mag_rt_run(rt, co(spawns_some, NULL), NULL), 0);
    usleep(1000);
    cr_assert_eq(mag_rt_stop(rt, 5 * MAG_SECOND), 0);
    cr_assert_leq(n_cancelled, 10);
    cr_assert_eq(mag_rt_run(rt, co(same, NULL), NULL), -ECANCELED);
    cr_assert_eq(mag_rt_stop(rt, MAG_SECOND), 0, "again");
    mag_rt_free(rt);
    cr_assert_str_empty(reported);
    cr_assert_eq(mag_mem_live(), 0);
}

static mag_atomic(int) may_end, has_begun;

static int refuses_to_end(void *arg, long *value)
{
    (void)arg, (void)value;
    mag_store_release(&has_begun, 1);
    while (!mag_load_acquire(&may_end)) {
        struct timespec ts = { 0, 1000000 };
        (void)mag_sleep(MAG_MS);
        nanosleep(&ts, NULL);
    }
    return 0;
}

static int spawns_a_stubborn_one(void *arg, long *value)
{
    static const struct mag_site site = { "runner.c", 77, "here" };
    struct mag_spawn_options o = { .name = "stubborn", .site = &site };
    struct co *c = co(refuses_to_end, NULL);

    (void)arg, (void)value;
    mag_store_relaxed(&has_begun, 0);
    SHOULD(mag_start(c, &o) == 0);
    while (!mag_load_acquire(&has_begun)) /* one that is cancelled before never begins */
        SHOULD(mag_yield() == 0);
    return 0;
}

Test(runner, stop_says_what_does_not_end)
{
    struct mag_rt *rt = rt_with(2);

    cr_assert_eq(mag_rt_run(rt, co(spawns_a_stubborn_one, NULL), NULL), 0);
    cr_assert_eq(mag_rt_stop(rt, 20 * MAG_MS), -ETIMEDOUT);
    cr_assert(strstr(reported, "stubborn"), "%s", reported);
    cr_assert(strstr(reported, "runner.c:77"), "%s", reported);
    mag_store_release(&may_end, 1);
    cr_assert_eq(mag_rt_stop(rt, 5 * MAG_SECOND), 0);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

static int stops_its_own(void *arg, long *value)
{
    (void)arg, (void)value;
    return mag_rt_stop(mag_rt_self(), MAG_SECOND);
}

Test(runner, stop_refuses_nonsense)
{
    struct mag_rt *rt = rt_with(1);

    cr_assert_eq(mag_rt_stop(NULL, 0), -EINVAL);
    cr_assert_eq(mag_rt_stop(rt, -1), -EINVAL);
    cr_assert_eq(mag_rt_run(rt, co(stops_its_own, NULL), NULL), -EDEADLK);
    mag_rt_free(rt);
}

static int leaves_a_sleeper(void *arg, long *value)
{
    (void)value;
    SHOULD(go(sleep_ns, arg));
    return 0;
}

Test(runner, shutdown_in_time_waits_and_then_cancels)
{
    struct mag_rt_options o = { .shutdown_ns = 4 * MAG_SECOND }; /* no stall is that long */
    mag_time begun = mag_now();

    cr_assert_eq(mag_run_with(co(leaves_a_sleeper, arg_of(5 * MAG_MS)), NULL, &o), 0);
    cr_assert_geq(mag_now() - begun, 5 * MAG_MS);
    cr_assert_eq(mag_run_with(co(leaves_a_sleeper, arg_of(3600 * MAG_SECOND)), NULL, &o), 0);
    cr_assert_geq(mag_now() - begun, 4 * MAG_SECOND);
    cr_assert_lt(mag_now() - begun, MAG_MINUTE);
    cr_assert_eq(mag_mem_live(), 0);
    o.shutdown_ns = -1;
    cr_assert_eq(mag_run_with(co(same, NULL), NULL, &o), -EINVAL);
}

Test(runner, shutdown_that_is_not_in_time_is_told)
{
    struct mag_rt_options o = { .shutdown_ns = 10 * MAG_MS, .workers = 2, .report = report };

    may_end = 0;
    cr_assert_eq(mag_run_with(co(spawns_a_stubborn_one, NULL), NULL, &o), -ETIMEDOUT);
    cr_assert(strstr(reported, "stubborn"), "%s", reported);
}

/* ---- what nobody awaited ------------------------------------------------------------------------------- */

static int leaves_failures(void *arg, long *value)
{
    static const struct mag_site site = { "f.c", 12, "main" };
    struct mag_spawn_options o = { .name = "broken", .site = &site };
    struct co *c = co(fails_with, arg_of(-EIO)), *d;

    (void)arg, (void)value;
    SHOULD(mag_start(c, &o) == 0);
    d = go(until_cancelled, NULL);
    SHOULD(go(same_later, NULL));
    SHOULD(mag_yield() == 0);
    SHOULD(mag_cancel(d) == 0); /* is no failure */
    return settle_down();
}

Test(runner, a_failure_that_nobody_awaited_is_told)
{
    struct mag_rt *rt = rt_with(2);

    cr_assert_eq(mag_rt_run(rt, co(leaves_failures, NULL), NULL), 0);
    mag_rt_free(rt);
    cr_assert_str_eq(reported,
                     "task 'broken' failed with EIO and nobody awaited it (spawned at f.c:12)\n");
    cr_assert_eq(mag_mem_live(), 0);
}

static int leaves_a_future(void *arg, long *value)
{
    (void)value;
    *(void **)arg = future();
    return 0;
}

Test(runner, a_future_that_was_never_set_is_told_in_debug_mode)
{
    struct mag_rt_options o = { .workers = 1, .report = report };
    void *f = NULL;

    reported[0] = '\0';
    cr_assert_eq(mag_run_with(co(leaves_a_future, &f), NULL, &o), 0);
    cr_assert_str_empty(reported);
    cr_assert_eq(set(f, 1), 0);
    o.debug = true;
    cr_assert_eq(mag_run_with(co(leaves_a_future, &f), NULL, &o), 0);
    cr_assert(strstr(reported, "future 'future' was never set (created at "), "%s", reported);
    cr_assert_eq(set(f, 1), 0, "it is still its setter's");
}
