/* SPDX-License-Identifier: MIT */
/* cancel.c - a cancel reaches a task wherever it is, stays, and loses no result */
#include "body.h"
#include "op.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <magpie/file.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(cancel, .timeout = 20);

/* Spawns it, cancels it after a while, or at once, and wants that rc. */
static int cancel_after(mag_time pause, int (*fn)(void *, long *), void *arg, int expected)
{
    struct co *c = go(fn, arg);

    SHOULD(c);
    if (pause)
        SHOULD(mag_sleep(pause) == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(mag_cancel(c) == 0); /* once more does no harm */
    SHOULD(await_co(c, NULL) == expected);
    return 0;
}

/* At once, a bit later, and when it waits for certain. */
static int cancel_at_all_times(int (*fn)(void *, long *), void *arg)
{
    for (int i = 0; i < 40; i++)
        SHOULD(cancel_after(i * 5 * MAG_US, fn, arg, -ECANCELED) == 0);
    return cancel_after(10 * MAG_MS, fn, arg, -ECANCELED);
}

/* ---- not begun, or over --------------------------------------------------------------- */

static mag_atomic(uint32_t) n_ran;

static int count_run(void *arg, long *value)
{
    (void)arg;
    *value = 1;
    mag_fetch_add(&n_ran, 1);
    return 0;
}

static int unstarted(void *arg, long *value)
{
    struct mag_spawn_options here = { .pin = true };
    struct co *c;

    (void)arg, (void)value;
    for (int i = 0; i < 100; i++) {
        SHOULD(c = co(count_run, NULL));
        SHOULD(mag_cancel(c) == -EINVAL); /* never spawned */
        SHOULD(mag_start(c, &here) == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
    }
    SHOULD(n_ran == 0);
    return 0;
}

Test(cancel, what_has_not_begun_does_not_run)
{
    RUN_1_AND_4(unstarted, NULL);
}

static int after_the_end(void *arg, long *value)
{
    struct co *c = go(same, arg_of(4));
    long v = 0;

    (void)arg, (void)value;
    while (!mag_done(c))
        SHOULD(mag_yield() == 0);
    SHOULD(mag_cancel(c) == 0);
    SHOULD(await_co(c, &v) == 0 && v == 4); /* the result is kept */
    SHOULD(mag_cancel(c) == -EINVAL); /* consumed */
    return 0;
}

Test(cancel, after_the_end_changes_nothing)
{
    RUN_1_AND_4(after_the_end, NULL);
}

/* ---- wherever it waits ------------------------------------------------------------------ */

static int sleeping(void *arg, long *value)
{
    (void)arg, (void)value;
    return cancel_at_all_times(forever, NULL);
}

Test(cancel, in_sleep)
{
    RUN_1_AND_4(sleeping, NULL);
}

static int yields(void *arg, long *value)
{
    int rc;

    (void)arg;
    *value = 0;
    while ((rc = mag_yield()) == 0)
        ;
    return rc;
}

static int yielding(void *arg, long *value)
{
    (void)arg, (void)value;
    return cancel_at_all_times(yields, NULL);
}

Test(cancel, in_yield)
{
    RUN_1_AND_4(yielding, NULL);
}

static int awaits_task(void *arg, long *value)
{
    struct mag_spawn_options other = { .stack_bytes = 128 * 1024 };
    struct co *c = co(forever, NULL);

    (void)arg;
    SHOULD(mag_start(c, &other) == 0);
    return await_co(c, value);
}

static int awaits_in_place(void *arg, long *value)
{
    if (num(arg) == 0)
        return mag_sleep(MAG_NEVER);
    return await_co(co(awaits_in_place, arg_of(num(arg) - 1)), value);
}

static int awaiting(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(cancel_at_all_times(awaits_task, NULL) == 0);
    SHOULD(cancel_at_all_times(awaits_in_place, arg_of(1)) == 0);
    return cancel_at_all_times(awaits_in_place, arg_of(300)); /* over several stacks */
}

Test(cancel, in_await_of_a_task)
{
    RUN_1_AND_4(awaiting, NULL);
}

/* The inner one is cancelled, the outer goes on. */
static int outlives_inner(void *arg, long *value)
{
    struct co *inner = arg;

    *value = 0;
    SHOULD(await_co(inner, NULL) == -ECANCELED);
    SHOULD(mag_sleep(MAG_MS) == 0); /* not cancelled itself */
    SHOULD(mag_yield() == 0);
    return 3;
}

static int inner_only(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 50; i++) {
        struct co *inner = go(forever, NULL);
        struct co *outer = go(outlives_inner, inner);
        if (i % 2)
            SHOULD(mag_sleep(i % 10 * 50 * MAG_US) == 0);
        SHOULD(mag_cancel(inner) == 0);
        SHOULD(await_co(outer, NULL) == 3);
    }
    return 0;
}

Test(cancel, of_the_awaited_leaves_the_awaiter)
{
    RUN_1_AND_4(inner_only, NULL);
}

static int gathers(void *arg, long *value)
{
    void *c[6] = { co(forever, NULL), go(forever, NULL), mag_sleep_co(MAG_NEVER),
                   co(awaits_task, NULL), co(awaits_in_place, arg_of(3)), co(forever, NULL) };
    struct mag_gather_options options = { .limit = (size_t)num(arg) };

    *value = 0;
    return mag_gather(NULL, 0, c, 6, &options);
}

static int in_gather(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(cancel_at_all_times(gathers, arg_of(0)) == 0);
    SHOULD(cancel_at_all_times(gathers, arg_of(2)) == 0);
    return cancel_at_all_times(gathers, arg_of(1));
}

Test(cancel, in_gather)
{
    RUN_1_AND_4(in_gather, NULL);
}

/* ---- in a thread -------------------------------------------------------------------------- */

static mag_atomic(uint32_t) gate, n_in_gate;

static int through_gate(void *arg)
{
    mag_fetch_add(&n_in_gate, 1);
    while (!mag_load_acquire(&gate))
        usleep(1000);
    return (int)num(arg);
}

static int offload(void *arg, long *value)
{
    *value = 0;
    return mag_to_thread(through_gate, arg);
}

static int in_thread(void *arg, long *value)
{
    struct co *running, *queued;

    (void)arg, (void)value;
    gate = n_in_gate = 0;
    running = go(offload, arg_of(5));
    while (!mag_load_acquire(&n_in_gate))
        SHOULD(mag_sleep(MAG_MS) == 0);
    queued = go(offload, arg_of(6));
    SHOULD(settle_down() == 0);
    SHOULD(mag_cancel(queued) == 0 && mag_cancel(running) == 0);
    SHOULD(await_co(queued, NULL) == -ECANCELED); /* never began */
    SHOULD(settle_down() == 0);
    SHOULD(!mag_done(running)); /* its arguments are in use: waited for */
    mag_store_release(&gate, 1);
    SHOULD(await_co(running, NULL) == 5); /* the result that arrived is kept */
    SHOULD(n_in_gate == 1);
    return 0;
}

Test(cancel, in_to_thread)
{
    struct mag_rt_options options = { .offload_threads = 1 };

    for (options.workers = 1; options.workers <= 4; options.workers += 3) {
        int rc = mag_run_with(co(in_thread, NULL), NULL, &options);
        cr_assert_eq(rc, 0, "%s, line %d: %s", mag_err_name(rc), broken_line, broken_claim);
        cr_assert_eq(mag_mem_live(), 0);
    }
}

/* ---- in an operation ----------------------------------------------------------------------- */

static int pipe_ends[2];

static int reads(void *arg, long *value)
{
    char c;

    (void)arg;
    *value = 0;
    return mag_op_read(pipe_ends[0], &c, 1, MAG_OP_HERE);
}

static int in_operation(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(pipe(pipe_ends) == 0);
    SHOULD(cancel_at_all_times(reads, NULL) == 0);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

Test(cancel, in_a_read)
{
    RUN_1_AND_4(in_operation, NULL);
}

/* What came is not lost: a byte that was read is told of, or is still in the pipe. */
static int read_or_not(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(pipe2(pipe_ends, O_NONBLOCK) == 0);
    for (int i = 0; i < 200; i++) {
        struct co *c = go(reads, NULL);
        char byte;
        int rc;
        if (i % 2)
            SHOULD(mag_sleep(i % 20 * 10 * MAG_US) == 0);
        SHOULD(write(pipe_ends[1], "x", 1) == 1);
        SHOULD(mag_cancel(c) == 0);
        rc = await_co(c, NULL);
        SHOULD(rc == 1 || rc == -ECANCELED || rc == -EAGAIN);
        SHOULD(read(pipe_ends[0], &byte, 1) == (rc == 1 ? -1 : 1));
    }
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

Test(cancel, loses_no_byte)
{
    RUN_1_AND_4(read_or_not, NULL);
}

static int n_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 200; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* A pipe for reading, without a writer: it may have to wait. */
static int opens_fifo(void *arg, long *value)
{
    struct mag_file f;
    int rc = mag_file_open(&f, arg, "r");

    *value = 0;
    if (rc == 0)
        mag_file_close(&f);
    return rc;
}

/* What was opened all the same is closed. */
static int in_open(void *arg, long *value)
{
    char path[] = "/tmp/magpie-cancel-XXXXXX", fifo[64];
    int n_before;

    (void)arg, (void)value;
    SHOULD(mkdtemp(path));
    snprintf(fifo, sizeof fifo, "%s/fifo", path);
    SHOULD(mkfifo(fifo, 0600) == 0);
    n_before = n_descriptors();
    for (int i = 0; i < 100; i++) {
        struct co *c = go(opens_fifo, fifo);
        int rc;
        if (i)
            SHOULD(mag_sleep(i * 3 * MAG_US) == 0);
        SHOULD(mag_cancel(c) == 0);
        rc = await_co(c, NULL);
        SHOULD(rc == 0 || rc == -ECANCELED);
    }
    SHOULD(n_descriptors() == n_before);
    unlink(fifo);
    rmdir(path);
    return 0;
}

Test(cancel, in_an_open)
{
    setenv("MAGPIE_WATCHDOG", "0", 1); /* it opens files of its own while a task is stuck */
    RUN_1_AND_4(in_open, NULL);
}

/* ---- it stays --------------------------------------------------------------------------------- */

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int all_fail(void *arg, long *value)
{
    void *f = future();
    char c;

    *value = 0;
    mag_store_release((uint32_t *)arg, 1);
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    for (int i = 0; i < 3; i++) {
        struct mag_file file;
        struct co *t;
        SHOULD(mag_sleep(0) == -ECANCELED);
        SHOULD(mag_sleep(MAG_MS) == -ECANCELED);
        SHOULD(mag_yield() == -ECANCELED);
        SHOULD(mag_to_thread(nothing, NULL) == -ECANCELED);
        SHOULD(mag_op_read(pipe_ends[0], &c, 1, MAG_OP_HERE) == -ECANCELED);
        SHOULD(mag_file_open(&file, "/dev/null", "r") == -ECANCELED);
        SHOULD(await_co(co(sleep_ns, arg_of(1)), NULL) == -ECANCELED); /* in place */
        SHOULD(t = go(forever, NULL));
        SHOULD(await_co(t, NULL) == -ECANCELED); /* passed on */
        SHOULD(mag_await(mag_sleep_co(MAG_NEVER), NULL, 0) == -ECANCELED);
    }
    SHOULD(mag_await(f, NULL, 0) == -ECANCELED);
    SHOULD(set(f, 1) == 0);
    SHOULD(f = future());
    SHOULD(set(f, 4) == 0); /* what is there is taken */
    SHOULD(mag_await(f, value, sizeof *value) == 0 && *value == 4);
    return 11;
}

static int level_triggered(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(pipe(pipe_ends) == 0);
    for (int i = 0; i < 5; i++) {
        mag_atomic(uint32_t) is_up = 0;
        struct co *c = go(all_fail, (void *)&is_up);
        long v = 0;
        while (!mag_load_acquire(&is_up))
            SHOULD(mag_sleep(i * 100 * MAG_US) == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, &v) == 11 && v == 4); /* a result all the same is kept */
    }
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

Test(cancel, every_later_suspension_fails)
{
    RUN_1_AND_4(level_triggered, NULL);
}

/* The fiber of a cancelled task is clean for the next. */
static int next_is_clean(void *arg, long *value)
{
    (void)arg, (void)value;
    for (int i = 0; i < 200; i++) {
        struct co *c = go(forever, NULL);
        if (i % 2)
            SHOULD(mag_yield() == 0);
        SHOULD(mag_cancel(c) == 0);
        SHOULD(await_co(c, NULL) == -ECANCELED);
        SHOULD(await_co(go(sleep_ns, arg_of(1)), NULL) == 0);
        SHOULD(mag_yield() == 0);
    }
    return 0;
}

Test(cancel, does_not_stick_to_the_next_task)
{
    RUN_1_AND_4(next_is_clean, NULL);
}

/* ---- by others, and oneself ----------------------------------------------------------------------- */

static int cancels_itself(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    SHOULD(mag_cancel(mag_self()) == 0);
    SHOULD(mag_yield() == -ECANCELED);
    SHOULD(mag_sleep(MAG_NEVER) == -ECANCELED);
    return 2;
}

static int oneself(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(await_co(go(cancels_itself, NULL), NULL) == 2);
    SHOULD(mag_yield() == 0);
    return 0;
}

Test(cancel, of_oneself)
{
    RUN_1_AND_4(oneself, NULL);
}

static void *cancel_all(void *arg)
{
    struct co **tasks = arg;

    for (int i = 0; i < 500; i++)
        mag_cancel(tasks[i]);
    return NULL;
}

static int from_threads(void *arg, long *value)
{
    struct co *tasks[500];
    pthread_t threads[3];

    (void)arg, (void)value;
    for (int i = 0; i < 500; i++)
        SHOULD(tasks[i] = go(i % 2 ? forever : yields, NULL));
    for (int i = 0; i < 3; i++)
        SHOULD(pthread_create(&threads[i], NULL, cancel_all, tasks) == 0);
    for (int i = 0; i < 3; i++)
        SHOULD(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 500; i++)
        SHOULD(await_co(tasks[i], NULL) == -ECANCELED);
    return 0;
}

Test(cancel, from_foreign_threads)
{
    for (int i = 0; i < 5; i++)
        RUN_1_AND_4(from_threads, NULL);
}

/* A detached task is cancelled when its runtime ends, wherever it waits. */
static int leaves_them(void *arg, long *value)
{
    struct co *tasks[] = { go(forever, NULL), go(awaits_task, NULL), go(gathers, arg_of(2)),
                           go(awaits_in_place, arg_of(10)), go(yields, NULL) };

    (void)value;
    if (arg)
        SHOULD(mag_sleep(5 * MAG_MS) == 0); /* one of them yields for ever */
    for (int i = 0; i < 5; i++)
        SHOULD(mag_detach(tasks[i]) == 0);
    return 0;
}

Test(cancel, of_detached_tasks_at_the_end)
{
    for (int i = 0; i < 20; i++) {
        RUN_1_AND_4(leaves_them, NULL);
        RUN_1_AND_4(leaves_them, arg_of(1));
    }
}

/* If the main coroutine fails, all others are cancelled, also those not detached. */
static int fails_and_leaves(void *arg, long *value)
{
    struct co *tasks[3];

    (void)value;
    for (int i = 0; i < 3; i++)
        SHOULD(tasks[i] = go(forever, NULL));
    if (arg)
        SHOULD(settle_down() == 0);
    return -EPROTO;
}

Test(cancel, of_all_when_the_main_coroutine_fails)
{
    for (int i = 0; i < 20; i++) {
        RUN_TO(-EPROTO, 1 + i % 4, fails_and_leaves, NULL);
        RUN_TO(-EPROTO, 1 + i % 4, fails_and_leaves, arg_of(1));
    }
}
