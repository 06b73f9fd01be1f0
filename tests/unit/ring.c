/* SPDX-License-Identifier: MIT */
/*
 * ring.c - the contract of ring.h, on the real kernel
 *
 * What holds here must hold for every back-end: the tests use nothing but the
 * contract, and run on both, except those that make io_uring's system calls fail.
 */
#define _GNU_SOURCE
#include "check.h"
#include "clock.h"
#include "mem.h"
#include "ring.h"
#include "sys.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct mag_ring *ring;
static int n_descriptors;
static unsigned n_completed;

static int count_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void setup(const char *backend)
{
    setenv("MAGPIE_BACKEND", backend, 1);
    n_descriptors = count_descriptors();
    if (mag_ring_open(&ring, NULL) == -EPERM)
        cr_skip_test("%s", mag_ring_why());
    cr_assert_not_null(ring, "%s", mag_ring_why());
    n_completed = 0;
}

/* Every test leaves the ring idle, and the process with the descriptors it had. */
static void teardown(void)
{
    mag_ring_close(ring);
    cr_assert_eq(count_descriptors(), n_descriptors);
    cr_assert_eq(mag_mem_live(), 0);
}

static void reopen(unsigned entries)
{
    struct mag_ring_options options = {.entries = entries};
    mag_ring_close(ring);
    cr_assert_eq(mag_ring_open(&ring, &options), 0, "%s", mag_ring_why());
}

static void completed(struct mag_op *op)
{
    cr_assert_eq(op->state, 0);
    op->addr = (void *)completed; /* a second completion would find it */
    n_completed++;
}

static struct mag_op op_of(enum mag_op_code code)
{
    return (struct mag_op){.complete = completed, .code = (uint8_t)code, .fd = -1};
}

static void drain(void)
{
    mag_time limit = mag_clock_now() + 20 * MAG_SECOND;
    while (mag_ring_in_flight(ring) > 0) {
        cr_assert_eq(mag_ring_sleep(ring, limit), 0);
        mag_ring_reap(ring);
        cr_assert_lt(mag_clock_now(), limit);
    }
}

static int32_t run_op(struct mag_op *op)
{
    mag_ring_submit(ring, op);
    drain();
    return op->result;
}

/* Not .init and .fini: Criterion does not count what fails in them. */
#define ON(backend, name)                                                                      \
    Test(ring, backend##_##name)                                                               \
    {                                                                                          \
        setup(#backend);                                                                       \
        name();                                                                                \
        teardown();                                                                            \
    }

#define URING_TEST(name)                                                                       \
    static void name(void);                                                                    \
    ON(io_uring, name)                                                                         \
    static void name(void)

#define EPOLL_TEST(name)                                                                       \
    static void name(void);                                                                    \
    ON(epoll, name)                                                                            \
    static void name(void)

/* On both. */
#define RING_TEST(name)                                                                        \
    static void name(void);                                                                    \
    ON(io_uring, name)                                                                         \
    ON(epoll, name)                                                                            \
    static void name(void)

TestSuite(ring, .timeout = 60);
TestSuite(choice, .timeout = 20);

/* ---- operations ----------------------------------------------------------------- */

RING_TEST(nop)
{
    struct mag_op op = op_of(MAG_OP_NOP);
    cr_assert_str_eq(mag_ring_backend(ring), getenv("MAGPIE_BACKEND"));
    cr_assert_not(mag_ring_pending(ring));
    mag_ring_submit(ring, &op);
    cr_assert_eq(mag_ring_in_flight(ring), 1);
    cr_assert(mag_ring_pending(ring));
    cr_assert_eq(n_completed, 0);
    cr_assert_eq(mag_ring_flush(ring), 0);
    cr_assert(mag_ring_pending(ring));
    cr_assert_eq(n_completed, 0);
    cr_assert_eq(mag_ring_reap(ring), 1);
    cr_assert_eq(n_completed, 1);
    cr_assert_eq(op.result, 0);
    cr_assert_not(mag_ring_pending(ring));
    cr_assert_eq(mag_ring_reap(ring), 0);
}

RING_TEST(files)
{
    char path[] = "/tmp/mag-ring-XXXXXX";
    int tmp = mkstemp(path);
    close(tmp);

    struct mag_op op = op_of(MAG_OP_OPENAT);
    op.fd = AT_FDCWD;
    op.addr = path;
    op.flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC;
    op.len = 0600;
    int fd = run_op(&op);
    cr_assert_geq(fd, 0);

    char text[] = "hello, ring";
    op = op_of(MAG_OP_WRITE);
    op.fd = fd;
    op.addr = text;
    op.len = 11;
    op.offset = MAG_OP_OFFSET_CURRENT;
    cr_assert_eq(run_op(&op), 11);

    for (unsigned flags = 0; flags <= MAG_OP_DATASYNC; flags++) {
        op = op_of(MAG_OP_FSYNC);
        op.fd = fd;
        op.flags = flags;
        cr_assert_eq(run_op(&op), 0);
    }

    char buf[32] = {0};
    op = op_of(MAG_OP_READ);
    op.fd = fd;
    op.addr = buf;
    op.len = sizeof buf;
    op.offset = 7;
    cr_assert_eq(run_op(&op), 4);
    cr_assert_str_eq(buf, "ring");

    op = op_of(MAG_OP_READ); /* the position is where the write left it */
    op.fd = fd;
    op.addr = buf;
    op.len = sizeof buf;
    op.offset = MAG_OP_OFFSET_CURRENT;
    cr_assert_eq(run_op(&op), 0);

    struct statx stx;
    op = op_of(MAG_OP_STATX);
    op.fd = AT_FDCWD;
    op.addr = path;
    op.len = STATX_SIZE;
    op.offset = mag_op_pointer(&stx);
    cr_assert_eq(run_op(&op), 0);
    cr_assert_eq(stx.stx_size, 11);

    op = op_of(MAG_OP_CLOSE);
    op.fd = fd;
    cr_assert_eq(run_op(&op), 0);
    cr_assert_eq(run_op(&op), -EBADF);
    unlink(path);

    op = op_of(MAG_OP_OPENAT);
    op.fd = AT_FDCWD;
    op.addr = path;
    cr_assert_eq(run_op(&op), -ENOENT);
}

RING_TEST(poll_once)
{
    int p[2];
    cr_assert_eq(pipe(p), 0);
    struct mag_op op = op_of(MAG_OP_POLL);
    op.fd = p[0];
    op.flags = POLLIN;
    mag_ring_submit(ring, &op);
    mag_ring_flush(ring);
    mag_ring_reap(ring);
    cr_assert_eq(n_completed, 0);
    cr_assert_eq(write(p[1], "x", 1), 1);
    drain();
    cr_assert_eq(op.result, POLLIN);
    close(p[0]);
    close(p[1]);
}

/* A bad operation fails by itself and does not hold up its neighbours. */
RING_TEST(bad_operations_among_good_ones)
{
    struct mag_op ops[9];
    char c;
    for (int i = 0; i < 9; i++) {
        ops[i] = op_of(i % 3 == 1 ? MAG_OP_READ : MAG_OP_NOP);
        ops[i].addr = &c;
        ops[i].len = 1;
        mag_ring_submit(ring, &ops[i]);
    }
    cr_assert_eq(mag_ring_flush(ring), 0);
    drain();
    cr_assert_eq(n_completed, 9);
    for (int i = 0; i < 9; i++)
        cr_assert_eq(ops[i].result, i % 3 == 1 ? -EBADF : 0);
}

/* ---- more than fits ---------------------------------------------------------------- */

enum { MANY = 10000 };
static struct mag_op many[MANY];

RING_TEST(more_nops_than_entries)
{
    for (unsigned entries = 4; entries <= 256; entries *= 8) {
        reopen(entries);
        n_completed = 0;
        for (int i = 0; i < MANY; i++) {
            many[i] = op_of(MAG_OP_NOP);
            mag_ring_submit(ring, &many[i]);
        }
        cr_assert_eq(mag_ring_in_flight(ring), MANY);
        drain();
        cr_assert_eq(n_completed, MANY);
        for (int i = 0; i < MANY; i++)
            cr_assert_eq(many[i].addr, completed);
    }
}

/* All complete at once, into a CQ of 16: the kernel keeps the rest (overflow). */
RING_TEST(more_reads_than_the_completion_queue_holds)
{
    static char bytes[MANY];
    int p[2];
    reopen(4);
    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < MANY; i++) {
        many[i] = op_of(MAG_OP_READ);
        many[i].fd = p[0];
        many[i].addr = &bytes[i];
        many[i].len = 1;
        mag_ring_submit(ring, &many[i]);
    }
    cr_assert_eq(mag_ring_flush(ring), 0);
    cr_assert_eq(n_completed, 0);
    char *all = calloc(1, MANY);
    memset(all, 'x', MANY);
    cr_assert_eq(write(p[1], all, MANY), MANY);
    free(all);
    while (mag_ring_in_flight(ring) > 0) {
        cr_assert(mag_ring_due(ring)); /* all is ready, so there is always a reason */
        mag_ring_flush(ring);
        mag_ring_reap(ring);
    }
    cr_assert_eq(n_completed, MANY);
    for (int i = 0; i < MANY; i++)
        cr_assert(many[i].result == 1 && bytes[i] == 'x');
    close(p[0]);
    close(p[1]);
}

static int n_submitted;

static void submit_two_more(struct mag_op *op)
{
    completed(op);
    for (int i = 0; i < 2 && n_submitted < MANY; i++) {
        many[n_submitted] = op_of(MAG_OP_NOP);
        many[n_submitted].complete = submit_two_more;
        mag_ring_submit(ring, &many[n_submitted++]);
    }
}

/* One reap takes what was there when it began, however fast complete submits. */
RING_TEST(reap_is_bounded_when_complete_submits)
{
    struct mag_op first[8];
    reopen(8);
    for (int i = 0; i < 8; i++) {
        first[i] = op_of(MAG_OP_NOP);
        first[i].complete = submit_two_more;
        mag_ring_submit(ring, &first[i]);
    }
    cr_assert_eq(mag_ring_flush(ring), 0);
    cr_assert_eq(mag_ring_reap(ring), 8);
    drain();
    cr_assert_eq(n_completed, MANY + 8);
}

/* ---- cancel ------------------------------------------------------------------------ */

static struct mag_op pipe_read(int fd, void *buf)
{
    struct mag_op op = op_of(MAG_OP_READ);
    op.fd = fd;
    op.addr = buf;
    op.len = 1;
    return op;
}

RING_TEST(cancelled_read_says_so_once)
{
    char c = 'a';
    int p[2];
    cr_assert_eq(pipe(p), 0);
    for (int flush_first = 0; flush_first < 2; flush_first++) {
        n_completed = 0;
        struct mag_op op = pipe_read(p[0], &c);
        mag_ring_submit(ring, &op);
        if (flush_first)
            mag_ring_flush(ring);
        mag_ring_cancel(ring, &op);
        mag_ring_cancel(ring, &op);
        cr_assert_eq(n_completed, 0);
        drain();
        cr_assert_eq(op.result, -ECANCELED);
        for (int i = 0; i < 3; i++)
            mag_ring_reap(ring);
        cr_assert_eq(n_completed, 1);
    }
    cr_assert_eq(write(p[1], "b", 1), 1);
    struct mag_op op = pipe_read(p[0], &c); /* the byte was not lost */
    cr_assert_eq(run_op(&op), 1);
    cr_assert_eq(c, 'b');
    close(p[0]);
    close(p[1]);
}

/* Cancels of operations in every place: backlog, SQ, kernel; more than the SQ holds. */
RING_TEST(cancel_of_many)
{
    static char bytes[MANY];
    int p[2];
    reopen(8);
    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < MANY; i++) {
        many[i] = pipe_read(p[0], &bytes[i]);
        mag_ring_submit(ring, &many[i]);
        if (i == MANY / 2) /* from now on the kernel takes nothing */
            mag_sys_fail_nth(MAG_SYS_URING_ENTER, 1, EAGAIN, true);
    }
    for (int i = MANY - 1; i >= 0; i--)
        mag_ring_cancel(ring, &many[i]);
    cr_assert_eq(mag_ring_flush(ring), 0);
    cr_assert(mag_ring_pending(ring));
    mag_sys_fail_none();
    drain();
    cr_assert_eq(n_completed, MANY);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(many[i].result, -ECANCELED);
    close(p[0]);
    close(p[1]);
}

/* An op that completes while its cancel still waits for a place is forgotten there. */
URING_TEST(completion_before_the_cancel_was_sent)
{
    char c;
    int p[2];
    cr_assert_eq(pipe(p), 0);
    struct mag_op fill[8], ops[3];
    reopen(8);
    for (int i = 0; i < 3; i++) {
        ops[i] = pipe_read(p[0], &c);
        mag_ring_submit(ring, &ops[i]);
    }
    mag_ring_flush(ring);
    for (int i = 0; i < 8; i++) {
        fill[i] = op_of(MAG_OP_NOP);
        mag_ring_submit(ring, &fill[i]);
    }
    mag_sys_fail_nth(MAG_SYS_URING_ENTER, 1, EAGAIN, true);
    for (int i = 0; i < 3; i++)
        mag_ring_cancel(ring, &ops[i]);
    mag_sys_fail_none();
    cr_assert_eq(write(p[1], "xy", 2), 2);
    while (n_completed < 2)
        mag_ring_reap(ring); /* enters for completions, hands nothing over */
    int left = -1;
    for (int i = 0; i < 3; i++) {
        if (ops[i].addr != completed)
            left = i;
        else
            memset(&ops[i], 0xff, sizeof ops[i]); /* the record is gone */
    }
    cr_assert_geq(left, 0);
    drain();
    cr_assert_eq(ops[left].result, -ECANCELED);
    cr_assert_eq(n_completed, 11);
    close(p[0]);
    close(p[1]);
}

static int race_pipe[2];
static mag_atomic(uint32_t) race_go;

static void *race_writer(void *arg)
{
    uint32_t rounds = *(uint32_t *)arg;
    for (uint32_t i = 1; i <= rounds; i++) {
        for (uint32_t k = 1; mag_load_acquire(&race_go) != i; k++)
            k % 1000 ? mag_cpu_relax() : mag_sys_yield(); /* there may be one processor */
        if (write(race_pipe[1], "x", 1) != 1)
            return arg;
    }
    return NULL;
}

/* The outcome is the byte or -ECANCELED, once; and no byte is ever lost. */
RING_TEST(cancel_racing_completion)
{
    uint32_t rounds = MAG_ASAN || MAG_TSAN ? 2000 : 10000;
    unsigned n_cancelled = 0;
    pthread_t writer;
    char c;
    cr_assert_eq(pipe(race_pipe), 0);
    pthread_create(&writer, NULL, race_writer, &rounds);
    for (uint32_t i = 1; i <= rounds; i++) {
        struct mag_op op = pipe_read(race_pipe[0], &c);
        n_completed = 0;
        mag_ring_submit(ring, &op);
        if (i % 2)
            mag_ring_flush(ring);
        mag_store_release(&race_go, i);
        for (uint32_t k = i % 61; k > 0; k--)
            mag_cpu_relax();
        mag_ring_cancel(ring, &op);
        drain();
        cr_assert_eq(n_completed, 1);
        cr_assert(op.result == 1 || op.result == -ECANCELED, "%d", op.result);
        n_cancelled += op.result != 1;
        if (op.result != 1) {
            op = pipe_read(race_pipe[0], &c);
            cr_assert_eq(run_op(&op), 1);
        }
    }
    void *failed;
    pthread_join(writer, &failed);
    cr_assert_null(failed);
    cr_log_info("cancelled %u of %u", n_cancelled, rounds);
    close(race_pipe[0]);
    close(race_pipe[1]);
}

/* ---- sleep and wake ----------------------------------------------------------------- */

static mag_time sleep_for(mag_time ns)
{
    mag_time begin = mag_clock_now();
    cr_assert_eq(mag_ring_sleep(ring, begin + ns), 0);
    return mag_clock_now() - begin;
}

/* By how much it is too long; on a busy machine, the best of some. */
static mag_time overslept(mag_time ns)
{
    mag_time best = MAG_NEVER;

    for (int i = 0; i < 20 && best >= 100 * MAG_MS; i++) {
        mag_time over = sleep_for(ns) - ns;
        cr_assert_geq(over, 0);
        best = over < best ? over : best;
    }
    return best;
}

RING_TEST(deadline)
{
    for (int i = 0; i < 5; i++)
        cr_assert_lt(overslept((i + 1) * 5 * MAG_MS), 100 * MAG_MS);
    cr_assert_lt(overslept(0), 100 * MAG_MS);
    cr_assert_lt(overslept(-MAG_SECOND), MAG_SECOND + 100 * MAG_MS);
}

RING_TEST(wake_before_sleep_is_kept_and_consumed)
{
    for (int i = 0; i < 3; i++)
        mag_ring_wake(ring);
    cr_assert_eq(mag_ring_sleep(ring, MAG_NEVER), 0);
    cr_assert_geq(sleep_for(20 * MAG_MS), 20 * MAG_MS);
}

static void *wake_later(void *arg)
{
    (void)arg;
    usleep(20000);
    mag_ring_wake(ring);
    return NULL;
}

RING_TEST(wake_from_another_thread_ends_the_sleep)
{
    for (int i = 0; i < 3; i++) {
        pthread_t t;
        mag_time begin = mag_clock_now();
        pthread_create(&t, NULL, wake_later, NULL);
        cr_assert_eq(mag_ring_sleep(ring, MAG_NEVER), 0);
        cr_assert_geq(mag_clock_now() - begin, 10 * MAG_MS);
        cr_assert_eq(mag_ring_reap(ring), 0); /* a wake is no operation */
        cr_assert_eq(mag_ring_in_flight(ring), 0);
        pthread_join(t, NULL);
    }
}

static void wake_in_handler(int sig)
{
    (void)sig;
    mag_ring_wake(ring);
}

RING_TEST(wake_from_a_signal_handler)
{
    struct sigaction sa = {.sa_handler = wake_in_handler, .sa_flags = SA_RESTART};
    mag_time begin = mag_clock_now();
    sigaction(SIGALRM, &sa, NULL);
    ualarm(20000, 0);
    do
        cr_assert_eq(mag_ring_sleep(ring, MAG_NEVER), 0);
    while (mag_clock_now() - begin < 10 * MAG_MS);
    cr_assert_lt(mag_clock_now() - begin, 5 * MAG_SECOND);
}

RING_TEST(completion_ends_the_sleep)
{
    struct mag_op op = op_of(MAG_OP_NOP);
    mag_ring_submit(ring, &op);
    cr_assert_lt(sleep_for(10 * MAG_SECOND), 5 * MAG_SECOND);
    cr_assert_eq(n_completed, 0);
    cr_assert_eq(mag_ring_reap(ring), 1);
}

/* The waker may be anywhere between its exchange and its write when close begins. */
static void *wake_once(void *arg)
{
    mag_ring_wake(ring);
    return arg;
}

RING_TEST(close_waits_for_a_waker)
{
    for (int i = 0; i < 300; i++) {
        pthread_t t;
        pthread_create(&t, NULL, wake_once, NULL);
        cr_assert_eq(mag_ring_sleep(ring, MAG_NEVER), 0);
        mag_ring_close(ring); /* the waker has begun, or sleep would not have ended */
        cr_assert_eq(mag_ring_open(&ring, NULL), 0);
        pthread_join(t, NULL);
    }
}

/* ---- what can fail -------------------------------------------------------------------- */

URING_TEST(transient_errors_lose_nothing)
{
    const int errors[] = {EINTR, EAGAIN, EBUSY, ENOMEM};
    for (size_t i = 0; i < MAG_ARRAY_SIZE(errors); i++)
        for (uint64_t nth = 1; nth <= 4; nth++) {
            struct mag_op a = op_of(MAG_OP_NOP), b = op_of(MAG_OP_NOP);
            n_completed = 0;
            mag_sys_fail_nth(MAG_SYS_URING_ENTER, nth, errors[i], false);
            mag_ring_submit(ring, &a);
            cr_assert_eq(mag_ring_flush(ring), 0);
            mag_ring_reap(ring);
            mag_ring_submit(ring, &b);
            drain();
            mag_sys_fail_none();
            cr_assert_eq(n_completed, 2);
        }
}

/* With nothing in flight no completion ends the wait (liburing#281); nor does it spin. */
URING_TEST(overloaded_kernel_is_asked_again)
{
    struct mag_op op = op_of(MAG_OP_NOP);
    mag_ring_submit(ring, &op);
    mag_sys_fail_nth(MAG_SYS_URING_ENTER, 1, EAGAIN, true);
    mag_time begin = mag_clock_now();
    for (int i = 0; i < 5; i++)
        sleep_for(10 * MAG_SECOND);
    mag_time elapsed = mag_clock_now() - begin;
    cr_assert_lt(elapsed, 10 * MAG_SECOND, "a sleep was slept out");
    cr_assert_geq(elapsed, 5 * MAG_MS / 2, "five sleeps in %" PRId64 " ns: it spins", elapsed);
    cr_assert_leq(mag_sys_count(MAG_SYS_URING_ENTER), 15);
    mag_sys_fail_none();
    drain();
    cr_assert_eq(n_completed, 1);
}

/* The SQ is full and the kernel takes nothing just when the wake's read needs a place. */
URING_TEST(wake_that_cannot_be_armed_is_not_lost)
{
    struct mag_op ops[8];
    char bytes[8];
    int p[2];
    pthread_t t;
    reopen(8);
    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < 8; i++) {
        ops[i] = pipe_read(p[0], &bytes[i]);
        mag_ring_submit(ring, &ops[i]);
    }
    pthread_create(&t, NULL, wake_later, NULL);
    mag_sys_fail_nth(MAG_SYS_URING_ENTER, 1, EAGAIN, false);
    cr_assert_lt(sleep_for(10 * MAG_SECOND), 5 * MAG_SECOND);
    mag_sys_fail_none();
    pthread_join(t, NULL);
    cr_assert_eq(write(p[1], "12345678", 8), 8);
    drain();
    close(p[0]);
    close(p[1]);
}

URING_TEST(broken_ring_says_so)
{
    struct mag_op op = op_of(MAG_OP_NOP);
    mag_ring_submit(ring, &op);
    mag_sys_fail_nth(MAG_SYS_URING_ENTER, 1, EBADF, true);
    cr_assert_eq(mag_ring_flush(ring), -EBADF);
    cr_assert_eq(mag_ring_sleep(ring, MAG_NEVER), -EBADF);
    mag_sys_fail_none();
    drain();
}

static int open_second(unsigned entries)
{
    struct mag_ring *second;
    struct mag_ring_options options = {.entries = entries};
    int rc = mag_ring_open(&second, &options);
    if (rc == 0)
        mag_ring_close(second);
    return rc;
}

URING_TEST(setup_halves_the_entries_without_memory)
{
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, ENOMEM, true);
    cr_assert_eq(open_second(256), -ENOMEM);
    cr_assert_eq(mag_sys_count(MAG_SYS_URING_SETUP), 6); /* 256 128 64 32 16 8 */
    cr_assert(strstr(mag_ring_why(), "RLIMIT_MEMLOCK"), "%s", mag_ring_why());
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, ENOMEM, false);
    cr_assert_eq(open_second(256), 0);
}

URING_TEST(setup_falls_back_on_older_kernels)
{
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, EINVAL, false);
    cr_assert_eq(open_second(0), 0);
    cr_assert_eq(mag_sys_count(MAG_SYS_URING_SETUP), 2);
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, EINVAL, true);
    cr_assert_eq(open_second(0), -EINVAL);
    cr_assert_eq(mag_sys_count(MAG_SYS_URING_SETUP), 3);
}

URING_TEST(refusals_are_explained)
{
    const struct {
        int err;
        const char *says;
    } cases[] = {{EPERM, "sandbox"}, {EACCES, "EACCES"}, {ENOSYS, "5.11"}, {EMFILE, "ulimit -n"}};
    for (size_t i = 0; i < MAG_ARRAY_SIZE(cases); i++) {
        mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, cases[i].err, true);
        cr_assert_eq(open_second(0), -cases[i].err);
        cr_assert(strstr(mag_ring_why(), cases[i].says), "%s", mag_ring_why());
    }
    mag_sys_fail_none();
    mag_sys_fail_nth(MAG_SYS_EVENTFD, 1, EMFILE, false);
    cr_assert_eq(open_second(0), -EMFILE);
    mag_mem_fail_nth(1, false);
    cr_assert_eq(open_second(0), -ENOMEM);
    mag_mem_fail_nth(0, false);
}

URING_TEST(works_without_what_is_registered)
{
    mag_sys_fail_nth(MAG_SYS_URING_REGISTER, 1, EPERM, true);
    cr_assert_eq(open_second(0), 0);
    mag_sys_fail_none();
}

URING_TEST(unknown_backend)
{
    struct mag_ring *second;
    struct mag_ring_options options = {.backend = "abacus"};
    cr_assert_eq(mag_ring_open(&second, &options), -EINVAL);
    cr_assert(strstr(mag_ring_why(), "abacus"));
    setenv("MAGPIE_BACKEND", "slide-rule", 1);
    cr_assert_eq(mag_ring_open(&second, NULL), -EINVAL);
    cr_assert(strstr(mag_ring_why(), "slide-rule"));
    setenv("MAGPIE_BACKEND", "io_uring", 1);
    cr_assert_eq(open_second(0), 0);
}

/* As another user than root the rings are charged to RLIMIT_MEMLOCK. */
URING_TEST(memlock_limit)
{
    enum { RINGS_MAX = 4000 };
    static struct mag_ring *rings[RINGS_MAX];
    struct rlimit limit = {.rlim_cur = 64 * 1024, .rlim_max = 64 * 1024};
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    if (setresuid(65534, 65534, 65534) != 0)
        return; /* only root can become somebody else */
    int n = 0, rc = 0;
    while (n < RINGS_MAX && (rc = mag_ring_open(&rings[n], NULL)) == 0)
        n++;
    cr_log_info("%d rings in 64 KiB", n);
    cr_assert_eq(rc, -ENOMEM, "%d after %d rings", rc, n);
    cr_assert(strstr(mag_ring_why(), "64 KiB"), "%s", mag_ring_why());
    struct mag_op op = op_of(MAG_OP_NOP);
    cr_assert_eq(run_op(&op), 0);
    while (n > 0)
        mag_ring_close(rings[--n]);
}

#if MAG_ASAN
#include <sanitizer/asan_interface.h>

static void report_made(void)
{
    _exit(23);
}

RING_TEST(lent_memory_is_poisoned)
{
    char buf[64];
    int p[2];
    cr_assert_eq(pipe(p), 0);
    struct mag_op op = pipe_read(p[0], buf);
    op.len = sizeof buf;
    mag_ring_submit(ring, &op);
    cr_assert(__asan_address_is_poisoned(buf + 1));
    mag_ring_flush(ring);
    cr_assert_eq(write(p[1], "xyz", 3), 3);
    drain();
    cr_assert_eq(op.result, 3);
    cr_assert_null(__asan_region_is_poisoned(buf, sizeof buf));
    close(p[0]);
    close(p[1]);
}

/* What the kernel reads from must be there until the end; 23: ASan's report, for this test. */
static void free_what_is_sent(const char *backend)
{
    struct mag_op op = op_of(MAG_OP_SEND);
    int s[2];

    setup(backend);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    while (write(s[0], "x", 1) == 1) {
    }
    op.fd = s[0];
    op.addr = malloc(64);
    op.len = 64;
    mag_ring_submit(ring, &op);
    mag_ring_flush(ring);
    free(op.addr);
    __sanitizer_set_death_callback(report_made);
    mag_ring_cancel(ring, &op);
    drain();
}

Test(ring, io_uring_freed_while_it_is_sent, .exit_code = 23)
{
    free_what_is_sent("io_uring");
}

Test(ring, epoll_freed_while_it_is_sent, .exit_code = 23)
{
    free_what_is_sent("epoll");
}
#endif

/* ---- readiness and threads --------------------------------------------------------------- */

static void turn(void)
{
    cr_assert_eq(mag_ring_flush(ring), 0);
    mag_ring_reap(ring);
}

static struct mag_op sock_op(enum mag_op_code code, int fd, void *addr, uint32_t len)
{
    struct mag_op op = op_of(code);

    op.fd = fd;
    op.addr = addr;
    op.len = len;
    op.offset = MAG_OP_OFFSET_CURRENT;
    return op;
}

/* One descriptor, both ways at once, and several in each direction: in their order. */
RING_TEST(readers_and_writers_of_one_descriptor)
{
    struct mag_op in[3], out[2];
    static char big[2][1 << 20], bytes[3];
    int s[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    for (int i = 0; i < 3; i++) {
        in[i] = sock_op(MAG_OP_RECV, s[0], &bytes[i], 1);
        mag_ring_submit(ring, &in[i]);
    }
    for (int i = 0; i < 2; i++) {
        memset(big[i], 'a' + i, sizeof big[i]);
        out[i] = sock_op(MAG_OP_SEND, s[0], big[i], sizeof big[i]);
        out[i].flags = MSG_WAITALL | MSG_NOSIGNAL;
        mag_ring_submit(ring, &out[i]);
    }
    turn();
    cr_assert_eq(n_completed, 0);
    cr_assert_eq(write(s[1], "12", 2), 2);
    while (n_completed < 2)
        turn();
    bool in_order = strcmp(mag_ring_backend(ring), "epoll") == 0; /* io_uring is free to */
    if (in_order) {
        cr_assert(in[0].result == 1 && in[1].result == 1 && bytes[0] == '1' && bytes[1] == '2');
        cr_assert_neq(in[2].state, 0);
    }

    static char got[1 << 16];
    size_t n = 0;
    while (n < sizeof big) {
        ssize_t rc = recv(s[1], got, sizeof got, MSG_DONTWAIT);
        for (ssize_t i = 0; i < rc; i++, n++)
            cr_assert(!in_order || got[i] == (n < sizeof big[0] ? 'a' : 'b'));
        turn();
    }
    while (n_completed < 4)
        turn();
    cr_assert_eq(out[0].result, (int)sizeof big[0]);
    cr_assert_eq(out[1].result, (int)sizeof big[1]);
    close(s[1]);
    drain();
    cr_assert_eq(in[0].result + in[1].result + in[2].result, 2);
    close(s[0]);
}

/* The number of a closed descriptor is another file's: it must be waited for anew. */
RING_TEST(descriptor_number_used_again)
{
    char c;

    for (int how = 0; how < 3; how++) {
        int p[2], q[2];
        struct mag_op op;

        cr_assert_eq(pipe(p), 0);
        op = pipe_read(p[0], &c);
        mag_ring_submit(ring, &op);
        mag_ring_flush(ring);
        if (how == 0) { /* served, then closed */
            cr_assert_eq(write(p[1], "x", 1), 1);
            drain();
        } else {
            mag_ring_cancel(ring, &op);
            drain();
            cr_assert_eq(op.result, -ECANCELED);
        }
        int keep = how == 2 ? dup(p[0]) : -1; /* the file lives on, epoll has it still */
        cr_assert_eq(pipe(q), 0);
        cr_assert_eq(dup2(q[0], p[0]), p[0]);
        op = pipe_read(p[0], &c);
        mag_ring_submit(ring, &op);
        mag_ring_flush(ring);
        if (keep >= 0)
            cr_assert_eq(write(p[1], "z", 1), 1); /* of the former file */
        turn();
        cr_assert_neq(op.state, 0);
        cr_assert_eq(write(q[1], "y", 1), 1);
        drain();
        cr_assert(op.result == 1 && c == 'y');
        close(p[0]), close(p[1]), close(q[0]), close(q[1]);
        if (keep >= 0)
            close(keep);
    }
}

/* Who comes while another waits does not take what has come for that one. */
EPOLL_TEST(first_come_first_served)
{
    struct mag_op ops[2];
    char bytes[2];
    int p[2];

    cr_assert_eq(pipe(p), 0);
    ops[0] = pipe_read(p[0], &bytes[0]);
    mag_ring_submit(ring, &ops[0]);
    cr_assert_eq(write(p[1], "12", 2), 2);
    ops[1] = pipe_read(p[0], &bytes[1]);
    mag_ring_submit(ring, &ops[1]);
    drain();
    cr_assert(bytes[0] == '1' && bytes[1] == '2');
    close(p[0]), close(p[1]);
}

EPOLL_TEST(close_cancels_those_who_wait)
{
    struct mag_op reads[3], poll, op;
    char c;
    int p[2];

    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < 3; i++) {
        reads[i] = pipe_read(p[0], &c);
        mag_ring_submit(ring, &reads[i]);
    }
    poll = op_of(MAG_OP_POLL);
    poll.fd = p[0];
    poll.flags = POLLIN;
    mag_ring_submit(ring, &poll);
    op = op_of(MAG_OP_CLOSE);
    op.fd = p[0];
    cr_assert_eq(run_op(&op), 0);
    cr_assert_eq(n_completed, 5);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(reads[i].result, -ECANCELED);
    cr_assert_eq(poll.result, -ECANCELED);
    cr_assert_eq(fcntl(p[0], F_GETFD), -1);
    close(p[1]);
}

/* What does not know RWF_NOWAIT: a terminal, the write of an eventfd. */
RING_TEST(terminal_and_eventfd)
{
    struct mag_op op;
    uint64_t n = 7;
    char line[16] = "";
    int master = posix_openpt(O_RDWR | O_NOCTTY), terminal, event = eventfd(0, 0);

    cr_assert(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    cr_assert_geq(terminal, 0);
    op = sock_op(MAG_OP_READ, terminal, line, sizeof line);
    mag_ring_submit(ring, &op);
    turn();
    usleep(2000);
    turn();
    cr_assert_eq(n_completed, 0);
    cr_assert_eq(write(master, "hi\n", 3), 3);
    drain();
    cr_assert_eq(op.result, 3);
    cr_assert_str_eq(line, "hi\n");
    op = sock_op(MAG_OP_WRITE, terminal, line, 3);
    cr_assert_eq(run_op(&op), 3);

    op = sock_op(MAG_OP_WRITE, event, &n, sizeof n);
    cr_assert_eq(run_op(&op), (int)sizeof n);
    n = 0;
    op = sock_op(MAG_OP_READ, event, &n, sizeof n);
    cr_assert_eq(run_op(&op), (int)sizeof n);
    cr_assert_eq(n, 7);
    close(terminal), close(master), close(event);
}

/* Blocking sockets: nothing blocks, and they are blocking still. */
RING_TEST(accept_and_connect)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a, n_peer = sizeof a;
    struct sockaddr_in peer = { 0 };
    struct mag_op accept, connect, op;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client;

    op = op_of(MAG_OP_SOCKET);
    op.fd = AF_INET;
    op.flags = SOCK_STREAM | SOCK_CLOEXEC;
    client = run_op(&op);
    cr_assert_geq(client, 0);
    op = op_of(MAG_OP_ACCEPT); /* not listening yet */
    op.fd = listener;
    cr_assert_eq(run_op(&op), -EINVAL);
    cr_assert_eq(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&a, &n), 0);

    connect = sock_op(MAG_OP_CONNECT, client, &a, sizeof a);
    cr_assert_eq(run_op(&connect), -ECONNREFUSED);
    cr_assert_eq(listen(listener, 5), 0);
    accept = op_of(MAG_OP_ACCEPT);
    accept.fd = listener;
    accept.addr = &peer;
    accept.offset = mag_op_pointer(&n_peer);
    accept.len = sizeof peer;
    accept.flags = SOCK_CLOEXEC;
    mag_ring_submit(ring, &accept);
    turn();
    cr_assert_neq(accept.state, 0);
    connect = sock_op(MAG_OP_CONNECT, client, &a, sizeof a);
    mag_ring_submit(ring, &connect);
    drain();
    cr_assert_eq(connect.result, 0);
    cr_assert_geq(accept.result, 0);
    cr_assert_eq(peer.sin_family, AF_INET);
    cr_assert_eq(fcntl(listener, F_GETFL) & O_NONBLOCK, 0);
    cr_assert_eq(fcntl(client, F_GETFL) & O_NONBLOCK, 0);
    cr_assert_eq(fcntl(accept.result, F_GETFL) & O_NONBLOCK, 0);

    op = op_of(MAG_OP_ACCEPT);
    op.fd = listener;
    mag_ring_submit(ring, &op);
    turn();
    mag_ring_cancel(ring, &op);
    drain();
    cr_assert_eq(op.result, -ECANCELED);
    op = op_of(MAG_OP_SHUTDOWN);
    op.fd = client;
    op.flags = SHUT_WR;
    cr_assert_eq(run_op(&op), 0);
    close(accept.result), close(listener), close(client);
}

/* A Unix socket's full backlog shows in no event. */
RING_TEST(connect_to_a_full_backlog)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), fds[3], n_open = 0;
    struct mag_op ops[3];

    snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "mag-ring-%d", getpid());
    cr_assert_eq(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    cr_assert_eq(listen(listener, 0), 0);
    for (int i = 0; i < 3; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
        ops[i] = sock_op(MAG_OP_CONNECT, fds[i], &a, sizeof a);
        mag_ring_submit(ring, &ops[i]);
    }
    for (int i = 0; i < 10; i++) {
        mag_ring_sleep(ring, mag_clock_now() + MAG_MS);
        mag_ring_reap(ring);
    }
    cr_assert_eq(n_completed, 1);
    mag_ring_cancel(ring, &ops[2]);
    while (ops[2].state != 0) { /* before there is room, which it might find */
        mag_ring_sleep(ring, mag_clock_now() + MAG_MS);
        mag_ring_reap(ring);
    }
    while (mag_ring_in_flight(ring) > 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd >= 0)
            n_open += close(fd) == 0;
        mag_ring_sleep(ring, mag_clock_now() + MAG_MS);
        mag_ring_reap(ring);
        fcntl(listener, F_SETFL, O_NONBLOCK);
    }
    cr_assert_eq(ops[0].result, 0);
    cr_assert_eq(ops[1].result, 0);
    cr_assert(ops[2].result == -ECANCELED || ops[2].result == -EINTR, "%d", ops[2].result);
    close(listener);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

/* io_uring does not find what it is about to try again: such a cancel is made anew. */
RING_TEST(cancel_right_behind_a_connect)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    socklen_t len = sizeof a;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), fds[3], n = 0;

    cr_assert_eq(bind(listener, (struct sockaddr *)&a, sizeof a.sun_family), 0);
    cr_assert_eq(listen(listener, 0), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    do
        fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    while (connect(fds[n++], (struct sockaddr *)&a, len) == 0 && n < 3);
    for (int i = 0; i < 50; i++) {
        struct mag_op op = op_of(MAG_OP_CONNECT);
        op.fd = socket(AF_UNIX, SOCK_STREAM, 0);
        op.addr = &a;
        op.len = (uint32_t)len;
        mag_ring_submit(ring, &op);
        if (i % 2)
            mag_ring_flush(ring);
        mag_ring_cancel(ring, &op);
        mag_ring_cancel(ring, &op);
        drain();
        cr_assert(op.result == -ECANCELED || op.result == -EINTR, "%d", op.result);
        close(op.fd);
    }
    close(listener);
    while (n-- > 0)
        close(fds[n]);
}

/* More than there are threads; some are cancelled before they begin. */
RING_TEST(many_files_on_threads)
{
    enum { FILES = 300 };
    static struct statx stx[FILES];

    for (int round = 0; round < 5; round++) {
        n_completed = 0;
        for (int i = 0; i < FILES; i++) {
            many[i] = op_of(i % 3 ? MAG_OP_STATX : MAG_OP_OPENAT);
            many[i].fd = AT_FDCWD;
            many[i].addr = (void *)(uintptr_t)"/proc/self/exe";
            many[i].flags = i % 3 ? 0 : O_RDONLY | O_CLOEXEC;
            many[i].len = i % 3 ? STATX_SIZE : 0;
            many[i].offset = i % 3 ? mag_op_pointer(&stx[i]) : 0;
            mag_ring_submit(ring, &many[i]);
        }
        for (int i = 0; i < FILES; i += 2)
            mag_ring_cancel(ring, &many[i]);
        drain();
        cr_assert_eq(n_completed, FILES);
        for (int i = 0; i < FILES; i++) {
            cr_assert(many[i].result >= 0 || (i % 2 == 0 && many[i].result == -ECANCELED));
            if (i % 3 == 0 && many[i].result >= 0)
                close(many[i].result);
        }
    }
}

static void cancel_fifo(int flags)
{
    char dir[] = "/tmp/mag-ring-XXXXXX", path[64];
    struct mag_op op = op_of(MAG_OP_OPENAT);

    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/fifo", dir);
    cr_assert_eq(mkfifo(path, 0600), 0);
    for (int wait_ms = 0; wait_ms < 20; wait_ms += 5) {
        op = op_of(MAG_OP_OPENAT);
        op.fd = AT_FDCWD;
        op.addr = path;
        op.flags = (uint32_t)flags | O_CLOEXEC;
        mag_ring_submit(ring, &op);
        mag_ring_flush(ring);
        usleep((useconds_t)wait_ms * 1000);
        mag_ring_cancel(ring, &op);
        mag_ring_cancel(ring, &op);
        drain();
        cr_assert(op.result >= 0 || op.result == -ECANCELED, "%d", op.result);
        cr_assert_eq(op.result_flags, 0);
        if (op.result >= 0)
            close(op.result);
    }
    unlink(path);
    rmdir(dir);
}

/* The thread that opens it is let go, whichever side it waits for. */
EPOLL_TEST(cancelled_open_of_a_fifo)
{
    cancel_fifo(O_RDONLY);
    cancel_fifo(O_WRONLY);
}

/* All threads are held by a FIFO; what waits for one is dropped, and the pool goes on. */
EPOLL_TEST(cancelled_before_a_thread_is_free)
{
    enum { HOLDERS = 64 };
    char path[64];
    struct statx stx;
    struct mag_op files[3];

    snprintf(path, sizeof path, "/tmp/mag-ring-fifo-%d", getpid());
    unlink(path); /* another's that had this number and was killed */
    cr_assert_eq(mkfifo(path, 0600), 0);
    for (int i = 0; i < HOLDERS; i++) {
        many[i] = op_of(MAG_OP_OPENAT);
        many[i].fd = AT_FDCWD;
        many[i].addr = path;
        many[i].flags = O_RDONLY | O_CLOEXEC;
        mag_ring_submit(ring, &many[i]);
    }
    usleep(20000); /* mostly all have begun: then the queue is empty after the drops */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            files[i] = op_of(MAG_OP_STATX);
            files[i].fd = AT_FDCWD;
            files[i].addr = (void *)(uintptr_t)"/";
            files[i].offset = mag_op_pointer(&stx);
            mag_ring_submit(ring, &files[i]);
        }
        for (int i = 0; i < 3 && round == 0; i++)
            mag_ring_cancel(ring, &files[(i + 1) % 3]);
        mag_ring_reap(ring);
        cr_assert(round > 0 || n_completed == 3);
        for (int i = 0; i < HOLDERS && round == 0; i++)
            mag_ring_cancel(ring, &many[i]);
        drain();
        for (int i = 0; i < 3; i++)
            cr_assert_eq(files[i].result, round ? 0 : -ECANCELED);
    }
    for (int i = 0; i < HOLDERS; i++)
        if (many[i].result >= 0)
            close(many[i].result);
    unlink(path);
}

static int count_threads(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* What was counted as queued is counted off again, or each would start a thread. */
EPOLL_TEST(one_thread_for_one_job_after_the_other)
{
    int before = count_threads();
    struct statx stx;

    for (int i = 0; i < 20; i++) {
        struct mag_op op = op_of(MAG_OP_STATX);
        op.fd = AT_FDCWD;
        op.addr = (void *)(uintptr_t)"/";
        op.offset = mag_op_pointer(&stx);
        cr_assert_eq(run_op(&op), 0);
    }
    cr_assert_eq(count_threads(), before + 1);
}

static void *write_later(void *fd)
{
    usleep(20000);
    return write(*(int *)fd, "m", 1) == 1 ? NULL : fd;
}

/* Without memory for a record, or without a thread, it takes longer, no more. */
EPOLL_TEST(without_memory_or_threads)
{
    struct mag_op op, file;
    struct statx stx;
    char c = 0;
    int p[2];

    cr_assert_eq(pipe(p), 0);
    mag_mem_fail_nth(1, true);
    mag_sys_fail_nth(MAG_SYS_THREAD_START, 1, EAGAIN, true);
    op = pipe_read(p[0], &c);
    mag_ring_submit(ring, &op);
    cr_assert(mag_ring_due(ring));
    cr_assert_not(mag_ring_pending(ring));
    sleep_for(0);
    mag_ring_reap(ring);
    cr_assert_eq(n_completed, 0);
    file = op_of(MAG_OP_STATX);
    file.fd = AT_FDCWD;
    file.addr = (void *)(uintptr_t)"/";
    file.offset = mag_op_pointer(&stx);
    mag_ring_submit(ring, &file);
    while (n_completed == 0)
        turn();
    cr_assert_eq(file.result, 0);
    pthread_t writer;
    pthread_create(&writer, NULL, write_later, &p[1]);
    mag_time began = mag_clock_now();
    drain(); /* no event ends its sleep */
    cr_assert_lt(mag_clock_now() - began, 15 * MAG_SECOND);
    pthread_join(writer, NULL);
    cr_assert(op.result == 1 && c == 'm');
    op = pipe_read(p[0], &c);
    mag_ring_submit(ring, &op);
    mag_ring_cancel(ring, &op);
    drain();
    cr_assert_eq(op.result, -ECANCELED);
    mag_mem_fail_nth(0, false);
    mag_sys_fail_none();
    close(p[0]);
    close(p[1]);
}

static bool is_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

/* Waiting in poll(2): a completion and a wake show at one of the two, and then no more. */
EPOLL_TEST(watched_from_elsewhere)
{
    int event = eventfd(0, EFD_NONBLOCK), other = mag_ring_watch(ring, event), p[2];
    struct mag_op op;
    uint64_t n;
    char c;

    cr_assert_geq(other, 0);
    cr_assert_eq(pipe(p), 0);
    for (int i = 0; i < 3; i++) {
        op = pipe_read(p[0], &c);
        mag_ring_submit(ring, &op);
        cr_assert_eq(mag_ring_doze(ring), 1);
        cr_assert_not(is_readable(event) || is_readable(other));
        cr_assert_eq(write(p[1], "x", 1), 1);
        cr_assert(is_readable(event) || is_readable(other));
        mag_ring_rouse(ring);
        (void)!read(event, &n, sizeof n);
        other = mag_ring_watch(ring, event);
        turn();
        cr_assert_eq(op.result, 1);

        cr_assert_eq(mag_ring_doze(ring), 1);
        cr_assert_not(is_readable(event) || is_readable(other));
        mag_ring_wake(ring);
        cr_assert(is_readable(other));
        mag_ring_rouse(ring);
        turn();
        cr_assert_not(is_readable(event));
        mag_ring_wake(ring);
        cr_assert_eq(mag_ring_doze(ring), 0);
    }
    close(event), close(p[0]), close(p[1]);
}

/* A stuck owner's handler, then another thread in its place. */
static void *reap_for_owner(void *arg)
{
    *(unsigned *)arg = mag_ring_reap_posted(ring);
    return NULL;
}

RING_TEST(kicked_and_reaped_by_another)
{
    struct mag_op op;
    pthread_t t;
    unsigned n = 0;
    char c;
    int p[2];

    cr_assert_eq(pipe(p), 0);
    op = pipe_read(p[0], &c);
    mag_ring_submit(ring, &op);
    cr_assert_eq(write(p[1], "x", 1), 1);
    mag_ring_kick(ring);
    pthread_create(&t, NULL, reap_for_owner, &n);
    pthread_join(t, NULL);
    cr_assert_eq(n, 1);
    cr_assert_eq(op.result, 1);
    close(p[0]), close(p[1]);
}

/* ---- the choice -------------------------------------------------------------------------------- */

static char said[1024];

static int open_saying(void)
{
    int p[2], before = dup(STDERR_FILENO), rc;
    ssize_t n;

    cr_assert_eq(pipe(p), 0);
    dup2(p[1], STDERR_FILENO);
    rc = mag_ring_open(&ring, NULL);
    dup2(before, STDERR_FILENO);
    close(before), close(p[1]);
    n = read(p[0], said, sizeof said - 1);
    said[n > 0 ? n : 0] = '\0';
    close(p[0]);
    return rc;
}

Test(choice, refused_it_is_epoll_and_says_so_once)
{
    const int errors[] = { EPERM, EACCES, ENOSYS, EINVAL };

    unsetenv("MAGPIE_BACKEND");
    srand((unsigned)getpid());
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, errors[rand() % 4], true);
    cr_assert_eq(open_saying(), 0);
    cr_assert_str_eq(mag_ring_backend(ring), "epoll");
    cr_assert(strstr(said, "io_uring is not available (E"), "%s", said);
    cr_assert(strstr(said, "using epoll\n"), "%s", said);
    mag_ring_close(ring);
    mag_sys_fail_none();
    cr_assert_eq(open_saying(), 0);
    cr_assert_str_eq(mag_ring_backend(ring), "epoll", "remembered");
    cr_assert_str_eq(said, "");
    mag_ring_close(ring);
}

Test(choice, other_errors_stay_errors)
{
    const int errors[] = { ENOMEM, EMFILE, ENFILE };

    unsetenv("MAGPIE_BACKEND");
    for (size_t i = 0; i < 3; i++) {
        mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, errors[i], true);
        cr_assert_eq(open_saying(), -errors[i]);
        cr_assert_str_eq(said, "");
    }
}

/* By name there is no other; nor while other rings are on io_uring. */
Test(choice, no_other_where_it_would_mix)
{
    struct mag_ring_options options = { .backend = "io_uring" };
    struct mag_ring *first;

    unsetenv("MAGPIE_BACKEND");
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, EPERM, true);
    cr_assert_eq(mag_ring_open(&ring, &options), -EPERM);
    mag_sys_fail_none();
    if (mag_ring_open(&first, &options) != 0)
        cr_skip_test("%s", mag_ring_why());
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, EPERM, true);
    cr_assert_eq(open_saying(), -EPERM);
    mag_ring_close(first);
    cr_assert_eq(open_saying(), 0);
    cr_assert_str_eq(mag_ring_backend(ring), "epoll");
    mag_ring_close(ring);
}

Test(choice, epoll_by_name)
{
    setenv("MAGPIE_BACKEND", "epoll", 1);
    cr_assert_eq(open_saying(), 0);
    cr_assert_str_eq(mag_ring_backend(ring), "epoll");
    cr_assert_str_eq(said, "");
    mag_ring_close(ring);
    mag_sys_fail_nth(MAG_SYS_EVENTFD, 1, EMFILE, true);
    cr_assert_eq(open_saying(), -EMFILE);
    cr_assert(strstr(mag_ring_why(), "EMFILE"));
    mag_sys_fail_nth(MAG_SYS_EVENTFD, 2, EMFILE, true);
    cr_assert_eq(open_saying(), -EMFILE);
    mag_sys_fail_none();
    mag_mem_fail_nth(1, false);
    cr_assert_eq(open_saying(), -ENOMEM);
}
