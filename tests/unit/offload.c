/* SPDX-License-Identifier: MIT */
/* offload.c - unit tests of runtime/offload.[ch] */
#include <criterion/criterion.h>

#include "clock.h"
#include "offload.h"
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>

enum {
    MANY = 100,
    LIMIT = 3,
};

struct counted {
    struct mag_job job;
    mag_atomic(uint32_t) n_run;
    mag_atomic(uint32_t) is_done;
    unsigned place; /* among those that ran */
};

static struct mag_offload pool;
static mag_atomic(uint32_t) n_ran;
static mag_atomic(uint32_t) n_running;
static mag_atomic(uint32_t) n_running_max;
static mag_atomic(uint32_t) gate; /* blocked jobs wait until it is 1 */

static void run_count(struct mag_job *job)
{
    struct counted *c = mag_container_of(job, struct counted, job);

    mag_fetch_add(&c->n_run, 1);
    c->place = mag_fetch_add(&n_ran, 1);
}

static void run_blocked(struct mag_job *job)
{
    uint32_t n = mag_fetch_add(&n_running, 1) + 1;
    uint32_t max = mag_load_acquire(&n_running_max);

    while (n > max && !mag_cas(&n_running_max, &max, n))
        ;
    while (!mag_load_acquire(&gate))
        (void)mag_sys_futex_wait(&gate, 0, MAG_MS);
    mag_fetch_sub(&n_running, 1);
    run_count(job);
}

static void done_count(struct mag_job *job)
{
    mag_store_release(&mag_container_of(job, struct counted, job)->is_done, 1);
}

static struct counted make(void (*run)(struct mag_job *))
{
    struct counted c = { .n_run = 0 };

    mag_job_init(&c.job, run, done_count);
    return c;
}

static void submit(enum mag_lane lane, struct counted *c)
{
    cr_assert_eq(mag_offload_submit(&pool, lane, &c->job), 0);
}

static void await(struct counted *c)
{
    mag_time end = mag_clock_now() + 10 * MAG_SECOND;

    while (!mag_load_acquire(&c->is_done)) {
        cr_assert(mag_clock_now() < end, "a job was never done");
        mag_sys_yield();
    }
}

static void await_running(uint32_t n)
{
    mag_time end = mag_clock_now() + 10 * MAG_SECOND;

    while (mag_load_acquire(&n_running) != n) {
        cr_assert(mag_clock_now() < end, "%u jobs run", mag_load_acquire(&n_running));
        mag_sys_yield();
    }
}

static void open_gate(void)
{
    mag_store_release(&gate, 1);
    (void)mag_sys_futex_wake(&gate, MANY);
}

static int count_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    cr_assert_not_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int n_threads(void)
{
    return count_entries("/proc/self/task");
}

/* A joined thread can be seen in /proc for a moment more. */
static void await_threads(int n)
{
    mag_time end = mag_clock_now() + 10 * MAG_SECOND;

    while (n_threads() != n) {
        cr_assert(mag_clock_now() < end, "%d threads, not %d", n_threads(), n);
        mag_sys_sleep(MAG_MS);
    }
}

static void await_idle(enum mag_lane lane)
{
    struct mag_offload_lane *l = &pool.lanes[lane];
    bool is_idle;

    do {
        mag_sys_yield();
        pthread_mutex_lock(&l->lock);
        is_idle = !mag_list_empty(&l->idle);
        pthread_mutex_unlock(&l->lock);
    } while (!is_idle);
}

static void setup(void)
{
    mag_offload_init(&pool, LIMIT);
}

static void teardown(void)
{
    mag_sys_fail_none();
    mag_offload_fini(&pool);
}

TestSuite(offload, .init = setup, .fini = teardown, .timeout = 60);

Test(offload, runs_then_done)
{
    struct counted c = make(run_count);

    submit(MAG_LANE_USER, &c);
    await(&c);
    cr_assert_eq(c.n_run, 1);
}

Test(offload, one_thread_keeps_the_order)
{
    struct counted c[MANY];

    pool.lanes[MAG_LANE_FILES].n_threads_max = 1;
    for (unsigned i = 0; i < MANY; i++) {
        c[i] = make(run_count);
        submit(MAG_LANE_FILES, &c[i]);
    }
    for (unsigned i = 0; i < MANY; i++) {
        await(&c[i]);
        cr_assert_eq(c[i].place, i);
    }
}

Test(offload, no_thread_before_it_is_needed_and_an_idle_one_is_used_again)
{
    int before = n_threads();

    for (unsigned i = 0; i < MANY; i++) {
        struct counted c = make(run_count);

        cr_assert_eq(n_threads(), before + (i > 0));
        submit(MAG_LANE_USER, &c);
        await(&c);
        await_idle(MAG_LANE_USER);
        if (i % 10 == 0)
            mag_sys_sleep(MAG_MS); /* so that it sleeps, not spins */
    }
}

Test(offload, limit_holds_and_the_rest_queues)
{
    struct counted c[MANY];

    for (unsigned i = 0; i < MANY; i++) {
        c[i] = make(run_blocked);
        submit(MAG_LANE_USER, &c[i]);
    }
    await_running(LIMIT);
    mag_sys_sleep(20 * MAG_MS);
    open_gate();
    for (unsigned i = 0; i < MANY; i++) {
        await(&c[i]);
        cr_assert_eq(c[i].n_run, 1);
    }
    cr_assert_eq(n_running_max, LIMIT);
}

Test(offload, a_full_lane_delays_no_other)
{
    struct counted blocked[MANY];
    struct counted free_lanes[2];

    for (unsigned i = 0; i < MANY; i++) {
        blocked[i] = make(run_blocked);
        submit(MAG_LANE_RESOLVER, &blocked[i]);
    }
    await_running(LIMIT);
    for (unsigned i = 0; i < 2; i++)
        free_lanes[i] = make(run_count);
    submit(MAG_LANE_FILES, &free_lanes[0]);
    submit(MAG_LANE_USER, &free_lanes[1]);
    await(&free_lanes[0]);
    await(&free_lanes[1]);
    cr_assert_eq(mag_load_acquire(&n_running), LIMIT);
    open_gate();
    for (unsigned i = 0; i < MANY; i++)
        await(&blocked[i]);
}

Test(offload, cancel_of_a_queued_job_takes_it_out)
{
    struct counted blocked[LIMIT];
    struct counted queued = make(run_count), after = make(run_count);

    for (unsigned i = 0; i < LIMIT; i++) {
        blocked[i] = make(run_blocked);
        submit(MAG_LANE_USER, &blocked[i]);
    }
    await_running(LIMIT);
    submit(MAG_LANE_USER, &queued);
    submit(MAG_LANE_USER, &after);
    cr_assert(mag_offload_cancel(&pool, &queued.job));
    cr_assert_not(mag_offload_cancel(&pool, &queued.job), "a second cancel finds nothing");
    open_gate();
    await(&after);
    for (unsigned i = 0; i < LIMIT; i++)
        await(&blocked[i]);
    cr_assert_eq(queued.n_run, 0);
    cr_assert_eq(queued.is_done, 0);
}

Test(offload, cancel_of_a_running_or_done_job_is_refused)
{
    struct counted c = make(run_blocked);

    submit(MAG_LANE_USER, &c);
    await_running(1);
    cr_assert_not(mag_offload_cancel(&pool, &c.job));
    open_gate();
    await(&c);
    cr_assert_not(mag_offload_cancel(&pool, &c.job));
    cr_assert_eq(c.n_run, 1);
}

Test(offload, first_thread_cannot_start)
{
    struct counted c = make(run_count);

    mag_sys_fail_nth(MAG_SYS_THREAD_START, 1, EAGAIN, true);
    cr_assert_eq(mag_offload_submit(&pool, MAG_LANE_USER, &c.job), -EAGAIN);
    cr_assert_not(mag_offload_cancel(&pool, &c.job), "the job is the caller's again");
    mag_sys_fail_none();
    submit(MAG_LANE_USER, &c);
    await(&c);
    cr_assert_eq(c.n_run, 1);
}

Test(offload, second_thread_cannot_start_so_the_first_does_all)
{
    struct counted c[MANY];

    mag_sys_fail_nth(MAG_SYS_THREAD_START, 2, EAGAIN, true);
    for (unsigned i = 0; i < MANY; i++) {
        c[i] = make(run_blocked);
        submit(MAG_LANE_USER, &c[i]);
    }
    open_gate();
    for (unsigned i = 0; i < MANY; i++)
        await(&c[i]);
    cr_assert_eq(n_running_max, 1);
}

static void run_resubmit(struct mag_job *job)
{
    static struct counted second;

    second = make(run_count);
    submit(MAG_LANE_FILES, &second);
    await(&second);
    run_count(job);
}

Test(offload, a_job_may_submit)
{
    struct counted c = make(run_resubmit);

    submit(MAG_LANE_USER, &c);
    await(&c);
    cr_assert_eq(n_ran, 2);
}

static sigset_t mask_seen;

static void run_mask(struct mag_job *job)
{
    (void)job;
    (void)mag_sys_sigmask(SIG_SETMASK, NULL, &mask_seen);
}

Test(offload, the_programs_signals_stay_away)
{
    struct counted c = make(run_mask);

    submit(MAG_LANE_USER, &c);
    await(&c);
    cr_assert(sigismember(&mask_seen, SIGINT) && sigismember(&mask_seen, SIGCHLD));
    cr_assert(sigismember(&mask_seen, SIGURG) && sigismember(&mask_seen, SIGRTMIN));
    cr_assert(!sigismember(&mask_seen, SIGSEGV) && !sigismember(&mask_seen, SIGPROF));
}

Test(offload, idle_threads_end_but_one_stays)
{
    struct counted c[LIMIT], last = make(run_count);
    int before = n_threads();

    pool.lanes[MAG_LANE_USER].idle_ns = 10 * MAG_MS;
    for (unsigned i = 0; i < LIMIT; i++) {
        c[i] = make(run_blocked);
        submit(MAG_LANE_USER, &c[i]);
    }
    await_running(LIMIT);
    cr_assert_eq(n_threads(), before + LIMIT);
    open_gate();
    await_threads(before + 1);
    mag_sys_sleep(50 * MAG_MS);
    cr_assert_eq(n_threads(), before + 1);
    submit(MAG_LANE_USER, &last);
    await(&last);
}

Test(offload, default_limit)
{
    static struct mag_offload other;

    mag_offload_init(&other, 0);
    cr_assert_geq(other.lanes[0].n_threads_max, 4);
    cr_assert_leq(other.lanes[0].n_threads_max, MAG_OFFLOAD_THREADS_MAX);
    mag_offload_fini(&other);
    mag_offload_init(&other, 1000000);
    cr_assert_eq(other.lanes[0].n_threads_max, MAG_OFFLOAD_THREADS_MAX);
    mag_offload_fini(&other);
}

static void run_slow(struct mag_job *job)
{
    mag_sys_sleep(20 * MAG_MS);
    run_count(job);
}

Test(offload, fini_waits_for_what_runs_and_leaves_nothing)
{
    static struct mag_offload other;
    int threads = n_threads(), files = count_entries("/proc/self/fd");
    struct counted c[MAG_LANE_COUNT];

    for (unsigned round = 0; round < 20; round++) {
        mag_offload_init(&other, LIMIT);
        for (int i = 0; i < MAG_LANE_COUNT; i++) {
            c[i] = make(round == 0 ? run_slow : run_count);
            cr_assert_eq(mag_offload_submit(&other, (enum mag_lane)i, &c[i].job), 0);
        }
        /* fini allows nothing queued: each is taken by the thread started for it. */
        for (int i = 0; i < MAG_LANE_COUNT; i++)
            while (!mag_list_empty(&other.lanes[i].queue))
                mag_sys_sleep(MAG_MS);
        mag_offload_fini(&other);
        for (int i = 0; i < MAG_LANE_COUNT; i++)
            cr_assert(c[i].is_done);
        await_threads(threads);
    }
    cr_assert_eq(count_entries("/proc/self/fd"), files);
}

Test(offload, fini_refuses_a_queued_job, .signal = SIGABRT)
{
    static struct mag_offload other;
    struct counted c[2] = { make(run_blocked), make(run_blocked) };

    mag_offload_init(&other, 1);
    cr_assert_eq(mag_offload_submit(&other, MAG_LANE_USER, &c[0].job), 0);
    await_running(1);
    cr_assert_eq(mag_offload_submit(&other, MAG_LANE_USER, &c[1].job), 0);
    mag_offload_fini(&other);
}
