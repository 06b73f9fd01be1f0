/* SPDX-License-Identifier: MIT */
/* wait.c - the ways to block, below the public interface */
#include "body.h"
#include "ring.h"
#include "sys.h"
#include "wait.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

TestSuite(wait, .timeout = 60);

static int where(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_wait_in_task());
    SHOULD(mag_wait_checkpoint() == 0);
    return 0;
}

Test(wait, knows_whether_it_can_suspend)
{
    cr_assert_not(mag_wait_in_task());
    RUN(1, where, NULL);
}

/* A task that never suspends but for checkpoints lets the others run. */
static mag_atomic(uint32_t) is_over;

static int ends_it(void *arg, long *value)
{
    *value = 0;
    SHOULD(mag_sleep(num(arg)) == 0);
    mag_store_release(&is_over, 1);
    return 0;
}

static int checkpoints(void *arg, long *value)
{
    struct co *c = go(ends_it, arg);
    mag_time limit = mag_now() + 15 * MAG_SECOND;

    (void)value;
    is_over = 0;
    while (!mag_load_acquire(&is_over)) {
        SHOULD(mag_wait_checkpoint() == 0);
        SHOULD(mag_now() < limit);
    }
    return await_co(c, NULL);
}

Test(wait, checkpoints_let_others_run)
{
    RUN(1, checkpoints, arg_of(0));
    RUN(1, checkpoints, arg_of(5 * MAG_MS));
}

static int checks(void *arg, long *value)
{
    int rc;

    (void)arg, (void)value;
    while ((rc = mag_wait_checkpoint()) == 0)
        ;
    return rc;
}

static int checkpoint_cancelled(void *arg, long *value)
{
    struct co *c = go(checks, NULL);

    (void)arg, (void)value;
    SHOULD(mag_sleep(2 * MAG_MS) == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    return 0;
}

Test(wait, checkpoints_are_cancellation_points)
{
    RUN_1_AND_4(checkpoint_cancelled, NULL);
}

/* ---- operations ------------------------------------------------------------------------ */

static int nops(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    for (int i = 0; i < 1000; i++) {
        struct mag_op op = { .code = MAG_OP_NOP };
        SHOULD(mag_wait_op(&op) == 0);
    }
    return 0;
}

static int many_nops(void *arg, long *value)
{
    struct co *tasks[20];

    (void)arg, (void)value;
    for (int i = 0; i < 20; i++)
        SHOULD(tasks[i] = go(nops, NULL));
    for (int i = 0; i < 20; i++)
        SHOULD(await_co(tasks[i], NULL) == 0);
    return 0;
}

Test(wait, operations_of_many_tasks)
{
    RUN_1_AND_4(many_nops, NULL);
}

static int polls(void *arg, long *value)
{
    struct mag_op op = { .code = MAG_OP_POLL, .fd = (int)num(arg), .flags = POLLIN };

    *value = 0;
    return mag_wait_op(&op);
}

static int polls_shielded(void *arg, long *value)
{
    struct mag_op op = { .code = MAG_OP_POLL, .fd = (int)num(arg), .flags = POLLIN };
    int rc = mag_wait_op_shielded(&op);

    *value = 0;
    SHOULD(mag_wait_checkpoint() == -ECANCELED);
    return rc;
}

static int operation_cancelled(void *arg, long *value)
{
    int ends[2];
    struct co *c;

    (void)arg, (void)value;
    SHOULD(pipe(ends) == 0);
    for (int i = 0; i < 50; i++) {
        SHOULD(c = go(polls, arg_of(ends[0])));
        if (i)
            SHOULD(mag_sleep(i * 10 * MAG_US) == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
    }
    SHOULD(c = go(polls_shielded, arg_of(ends[0])));
    SHOULD(settle_down() == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(settle_down() == 0);
    SHOULD(!mag_done(c)); /* shielded: the cancel is not passed on */
    SHOULD(write(ends[1], "x", 1) == 1);
    SHOULD(await_co(c, NULL) == POLLIN);
    SHOULD(await_co(go(polls, arg_of(ends[0])), NULL) == POLLIN);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

Test(wait, an_operation_is_cancelled_unless_shielded)
{
    RUN_1_AND_4(operation_cancelled, NULL);
}

/* ---- jobs ------------------------------------------------------------------------------- */

static int thread_is_other(void *arg)
{
    return !pthread_equal(*(pthread_t *)arg, pthread_self());
}

static int jobs(void *arg, long *value)
{
    pthread_t me = pthread_self();

    (void)arg, (void)value;
    for (int lane = 0; lane < MAG_LANE_COUNT; lane++) {
        me = pthread_self();
        SHOULD(mag_wait_job((enum mag_lane)lane, thread_is_other, &me) == 1);
    }
    return 0;
}

Test(wait, jobs_run_on_other_threads)
{
    pthread_t me = pthread_self();

    RUN_1_AND_4(jobs, NULL);
    cr_assert_eq(mag_wait_job(MAG_LANE_FILES, thread_is_other, &me), 0, "outside: a call");
}

static int no_thread(void *arg, long *value)
{
    pthread_t me = pthread_self();
    int rc;

    (void)arg, (void)value;
    mag_sys_fail_nth(MAG_SYS_THREAD_START, 1, EAGAIN, true);
    rc = mag_wait_job(MAG_LANE_FILES, thread_is_other, &me);
    mag_sys_fail_none();
    SHOULD(rc == -EAGAIN);
    SHOULD(mag_wait_job(MAG_LANE_FILES, thread_is_other, &me) == 1);
    return 0;
}

Test(wait, a_job_without_a_thread_fails)
{
    RUN_1_AND_4(no_thread, NULL);
}

/* ---- many at once, of all kinds ------------------------------------------------------------ */

static int small_job(void *arg)
{
    return (int)num(arg);
}

static int all_sorts(void *arg, long *value)
{
    struct mag_op op = { .code = MAG_OP_NOP };

    *value = num(arg);
    switch (num(arg) % 4) {
    case 0:
        return mag_wait_op(&op);
    case 1:
        return mag_wait_until(mag_now() + num(arg) % 10 * 100 * MAG_US);
    case 2:
        return mag_wait_job(MAG_LANE_USER, small_job, arg) == num(arg) ? 0 : -EIO;
    default:
        return mag_yield();
    }
}

static int mixture(void *arg, long *value)
{
    enum { N = 1000 };
    static struct co *tasks[N];

    (void)arg, (void)value;
    for (long i = 0; i < N; i++)
        SHOULD(tasks[i] = go(all_sorts, arg_of(i)));
    for (long i = 0; i < N; i++) {
        long v = -1;
        SHOULD(await_co(tasks[i], &v) == 0 && v == i);
    }
    return 0;
}

Test(wait, all_sorts_at_once)
{
    struct mag_rt_options options = { .unguarded_ok = true };

    for (options.workers = 1; options.workers <= 4; options.workers += 3) {
        int rc = mag_run_with(co(mixture, NULL), NULL, &options);
        cr_assert_eq(rc, 0, "%s, line %d: %s", mag_err_name(rc), broken_line, broken_claim);
        cr_assert_eq(mag_mem_live(), 0);
    }
}
