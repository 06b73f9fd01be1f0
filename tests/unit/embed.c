/* SPDX-License-Identifier: MIT */
/* embed.c - a runtime that its owner steps: the descriptor, the deadline, and everybody else */
#include "body.h"
#include "ring.h"
#include "sys.h"
#include "wait.h"

#include <magpie/file.h>

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

TestSuite(embed, .timeout = 30);

static struct mag_rt *embedded(void)
{
    struct mag_rt *rt = NULL;

    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .embedded = true }), 0, "%s",
                 mag_rt_why());
    return rt;
}

static void is_gone(struct mag_rt *rt)
{
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0, "%ld blocks left", (long)mag_mem_live());
}

static bool is_readable(struct mag_rt *rt, int timeout_ms)
{
    struct pollfd p = { .fd = mag_rt_fd(rt), .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

/* What a host does: polls, and steps, until the awaitable is done; the number of steps, or -1
 * if nothing came for 5 s. */
static int host(struct mag_rt *rt, void *awaitable)
{
    int n = 0;

    for (; !mag_done(awaitable); n++) {
        if (!is_readable(rt, 5000))
            return -1;
        cr_assert_geq(mag_rt_step(rt, 0), 0);
    }
    return n;
}

static struct co *submit(struct mag_rt *rt, int (*fn)(void *, long *), void *arg)
{
    struct co *c = co(fn, arg);

    cr_assert_eq(mag_submit(rt, c, NULL), 0);
    return c;
}

#define HOST(rt, expected, fn, arg) \
    do { \
        struct co *host_co = submit((rt), (fn), (arg)); \
        cr_assert_geq(host((rt), host_co), 0, "it does not become readable"); \
        cr_assert_eq(await_co(host_co, NULL), (expected), "line %d: %s", broken_line, \
                     broken_claim); \
    } while (0)

/* ---- the descriptor ---------------------------------------------------------------------- */

Test(embed, has_one_worker_and_no_thread)
{
    struct mag_rt *rt = embedded();
    long v = 0;

    cr_assert_eq(mag_rt_workers(rt), 1);
    cr_assert_geq(mag_rt_fd(rt), 0);
    cr_assert_eq(access("/proc/self/task", F_OK), 0);
    cr_assert_eq(mag_rt_run(rt, co(same_later, arg_of(4)), &v), 0);
    cr_assert_eq(v, 4);
    is_gone(rt);
}

Test(embed, is_quiet_when_there_is_nothing_to_do)
{
    struct mag_rt *rt = embedded();

    for (int i = 0; i < 3; i++) {
        int n_spurious = 0; /* a late signal of what has been done is possible */
        while (is_readable(rt, 5)) {
            cr_assert_eq(mag_rt_step(rt, 0), 0);
            cr_assert_lt(++n_spurious, 4);
        }
        cr_assert_eq(mag_rt_deadline(rt), MAG_NEVER);
        HOST(rt, 0, same_later, NULL);
    }
    is_gone(rt);
}

Test(embed, a_submission_makes_it_readable)
{
    struct mag_rt *rt = embedded();
    struct co *c;
    long v = 0;

    for (long i = 0; i < 50; i++) {
        c = submit(rt, same, arg_of(i));
        cr_assert(is_readable(rt, 1000));
        cr_assert(!mag_done(c), "nothing runs outside of a step");
        cr_assert_gt(mag_rt_step(rt, 0), 0);
        cr_assert(mag_done(c));
        cr_assert(await_co(c, &v) == 0 && v == i);
    }
    is_gone(rt);
}

/* Whether it was looked at before the time had passed. */
static bool looks_before(struct mag_rt *rt, mag_time delay)
{
    mag_time begun = mag_now(), left;
    struct co *c = submit(rt, sleep_ns, arg_of(delay));
    bool is_early, was_readable;
    int n;

    cr_assert_gt(mag_rt_step(rt, 0), 0);
    left = mag_rt_deadline(rt) - mag_now();
    was_readable = is_readable(rt, 0);
    is_early = mag_now() - begun < delay;
    cr_assert(!is_early || (left > 0 && left <= delay && !was_readable));
    n = host(rt, c);
    cr_assert(n >= is_early && n <= 5, "%d steps: it does not spin", n);
    cr_assert_geq(mag_now() - begun, delay);
    cr_assert_eq(await_co(c, NULL), 0);
    return is_early;
}

Test(embed, a_timer_makes_it_readable)
{
    struct mag_rt *rt = embedded();
    mag_time delay = 10 * MAG_MS;

    while (!looks_before(rt, delay)) /* a busy machine took longer */
        delay *= 2;
    is_gone(rt);
}

static int reads_and_sleeps(void *arg, long *value)
{
    char buf[16];
    struct mag_file f;

    (void)arg, (void)value;
    SHOULD(mag_file_open(&f, "/proc/self/stat", "r") == 0);
    for (int i = 0; i < 20; i++) {
        SHOULD(mag_file_pread(&f, buf, sizeof buf, 0) == sizeof buf);
        SHOULD(mag_sleep(100 * MAG_US) == 0);
    }
    return mag_file_close(&f);
}

static int blocks_a_bit(void *arg)
{
    usleep(1000);
    return (int)num(arg);
}

static int in_the_pool(void *arg, long *value)
{
    (void)arg, (void)value;
    for (long i = 0; i < 10; i++)
        SHOULD(mag_to_thread(blocks_a_bit, arg_of(i)) == i);
    return 0;
}

Test(embed, files_and_the_pool_make_it_readable)
{
    struct mag_rt *rt = embedded();

    HOST(rt, 0, reads_and_sleeps, NULL);
    HOST(rt, 0, in_the_pool, NULL);
    is_gone(rt);
}

static void *sets_later(void *f)
{
    usleep(3000);
    (void)set(f, 9);
    return NULL;
}

static int waits_for_a_thread(void *arg, long *value)
{
    void *f = future();
    pthread_t t;
    int rc;

    (void)arg;
    SHOULD(pthread_create(&t, NULL, sets_later, f) == 0);
    rc = await_co(f, value);
    SHOULD(pthread_join(t, NULL) == 0);
    return rc;
}

Test(embed, another_thread_makes_it_readable)
{
    struct mag_rt *rt = embedded();

    for (int i = 0; i < 5; i++)
        HOST(rt, 0, waits_for_a_thread, NULL);
    is_gone(rt);
}

static mag_atomic(uint32_t) n_called;

static void note(void *arg)
{
    (void)arg;
    mag_fetch_add(&n_called, 1);
}

Test(embed, a_callback_makes_it_readable)
{
    struct mag_rt *rt = embedded();
    struct mag_call *c;

    n_called = 0;
    cr_assert_eq(mag_rt_call(rt, 0, note, NULL, NULL), 0);
    cr_assert(is_readable(rt, 1000));
    cr_assert_gt(mag_rt_step(rt, 0), 0);
    cr_assert_eq(n_called, 1);
    cr_assert_eq(mag_rt_call(rt, mag_now() + 3 * MAG_MS, note, NULL, &c), 0);
    while (n_called < 2) {
        cr_assert(is_readable(rt, 1000));
        cr_assert_geq(mag_rt_step(rt, 0), 0);
    }
    cr_assert_eq(mag_call_cancel(c), -EALREADY);
    is_gone(rt);
}

/* A completion that comes of a write to an eventfd: kernels are late with it, and then silent. */
static void *writes_now_and_then(void *fd)
{
    const uint64_t one = 1;

    for (int i = 0; i < 8; i++) {
        usleep(2000);
        if (write((int)num(fd), &one, sizeof one) != sizeof one)
            return arg_of(1);
    }
    return NULL;
}

static int reads_an_eventfd(void *arg, long *value)
{
    uint64_t n = 0, sum = 0;

    (void)value;
    while (sum < 8) {
        struct mag_op op = { .code = MAG_OP_READ, .fd = (int)num(arg), .addr = &n, .len = 8 };
        SHOULD(mag_wait_op(&op) == 8);
        sum += n;
    }
    return 0;
}

Test(embed, a_completion_that_comes_of_an_eventfd_makes_it_readable)
{
    struct mag_rt *rt = embedded();
    int fd = eventfd(0, 0);
    pthread_t t;
    void *rc;

    pthread_create(&t, NULL, writes_now_and_then, arg_of(fd));
    HOST(rt, 0, reads_an_eventfd, arg_of(fd));
    pthread_join(t, &rc);
    cr_assert_null(rc);
    close(fd);
    is_gone(rt);
}

/* ---- steps ---------------------------------------------------------------------------------- */

static mag_atomic(int) shall_stop;

static int yields_for_ever(void *arg, long *value)
{
    (void)arg, (void)value;
    while (!mag_load_relaxed(&shall_stop))
        SHOULD(mag_yield() == 0);
    return 0;
}

Test(embed, a_step_ends_although_there_is_more)
{
    struct mag_rt *rt = embedded();
    struct co *c = submit(rt, yields_for_ever, NULL);
    mag_time begun = mag_now();

    cr_assert_gt(mag_rt_step(rt, MAG_NEVER), 0);
    cr_assert_lt(mag_now() - begun, 5 * MAG_SECOND);
    cr_assert(is_readable(rt, 0), "there is more to do");
    cr_assert_leq(mag_rt_deadline(rt), mag_now());
    shall_stop = 1;
    cr_assert_geq(host(rt, c), 1);
    cr_assert_eq(await_co(c, NULL), 0);
    is_gone(rt);
}

Test(embed, a_step_waits_so_long_and_not_longer)
{
    struct mag_rt *rt = embedded();
    mag_time begun = mag_now();
    struct co *c;

    cr_assert_eq(mag_rt_step(rt, 5 * MAG_MS), 0);
    cr_assert_geq(mag_now() - begun, 5 * MAG_MS);
    c = submit(rt, sleep_ns, arg_of(3 * MAG_MS));
    cr_assert_gt(mag_rt_step(rt, 3600 * MAG_SECOND), 0, "what is ready runs at once");
    if (!mag_done(c)) /* as it is, unless that took 3 ms */
        cr_assert_gt(mag_rt_step(rt, 3600 * MAG_SECOND), 0, "then it waits for the timer");
    cr_assert(mag_done(c));
    cr_assert_eq(await_co(c, NULL), 0);
    is_gone(rt);
}

static void *calls_later(void *rt)
{
    usleep(3000);
    (void)mag_rt_call(rt, 0, note, NULL, NULL);
    return NULL;
}

Test(embed, a_step_that_waits_is_woken_by_a_thread)
{
    struct mag_rt *rt = embedded();
    pthread_t t;

    n_called = 0;
    pthread_create(&t, NULL, calls_later, rt);
    cr_assert_gt(mag_rt_step(rt, MAG_NEVER), 0);
    cr_assert_eq(n_called, 1);
    pthread_join(t, NULL);
    is_gone(rt);
}

/* ---- who may step ------------------------------------------------------------------------------ */

static int steps_its_own(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(mag_rt_step(mag_rt_self(), 0) == -EDEADLK);
    return 0;
}

static void *steps_elsewhere(void *rt)
{
    return arg_of(mag_rt_step(rt, 0));
}

static void *frees_elsewhere(void *rt)
{
    int rc = mag_rt_stop(rt, 0);

    mag_rt_free(rt); /* says that it may not, and does nothing */
    return arg_of(rc);
}

static void step_in_callback(void *arg)
{
    *(int *)arg = mag_rt_step(mag_rt_self(), 0);
}

Test(embed, only_the_owner_steps_it)
{
    struct mag_rt *rt = embedded(), *threads;
    pthread_t t;
    void *rc;
    int in_callback = 0;

    HOST(rt, 0, steps_its_own, NULL);
    pthread_create(&t, NULL, steps_elsewhere, rt);
    pthread_join(t, &rc);
    cr_assert_eq(num(rc), -EPERM);
    pthread_create(&t, NULL, frees_elsewhere, rt);
    pthread_join(t, &rc);
    cr_assert_eq(num(rc), -EPERM);
    cr_assert_eq(mag_rt_call(rt, 0, step_in_callback, &in_callback, NULL), 0);
    cr_assert_gt(mag_rt_step(rt, 0), 0);
    cr_assert_eq(in_callback, -EDEADLK);
    cr_assert_eq(mag_rt_step(rt, -1), -EINVAL);
    cr_assert_eq(mag_rt_step(NULL, 0), -EINVAL);
    cr_assert_eq(mag_rt_fd(NULL), -EINVAL);
    cr_assert_eq(mag_rt_new(&threads, &(struct mag_rt_options){ .workers = 1 }), 0);
    cr_assert_eq(mag_rt_step(threads, 0), -EINVAL);
    cr_assert_eq(mag_rt_fd(threads), -EINVAL);
    cr_assert_eq(mag_rt_deadline(threads), MAG_NEVER);
    mag_rt_free(threads);
    is_gone(rt);
    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .embedded = true, .workers = 2 }),
                 -EINVAL);
}

static mag_atomic(uint32_t) n_finished;

static void *runs_on_it(void *rt)
{
    long v = 0;
    int rc = mag_rt_run(rt, co(sleep_ns, arg_of(2 * MAG_MS)), &v);

    mag_fetch_add(&n_finished, 1);
    return arg_of(rc < 0 ? rc : v == 2 * MAG_MS);
}

Test(embed, another_thread_runs_on_it_while_the_host_steps)
{
    struct mag_rt *rt = embedded();
    pthread_t t[2];
    void *rc;

    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, runs_on_it, rt);
    while (mag_load_acquire(&n_finished) < 2)
        if (is_readable(rt, 1))
            cr_assert_geq(mag_rt_step(rt, 0), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], &rc);
        cr_assert_eq(num(rc), 1);
    }
    is_gone(rt);
}

/* ---- as any other runtime ------------------------------------------------------------------------ */

static int gathers(void *arg, long *value)
{
    void *children[50];
    long results[50];

    (void)arg, (void)value;
    for (long i = 0; i < 50; i++)
        children[i] = co(i % 2 ? same_later : sleep_ns, arg_of(i * MAG_US));
    SHOULD(mag_gather(results, sizeof(long), children, 50, NULL) == 0);
    for (long i = 0; i < 50; i++)
        SHOULD(results[i] == i * MAG_US);
    return 0;
}

Test(embed, runs_what_others_run)
{
    struct mag_rt *rt = embedded();
    struct mag_rt_options o = { .embedded = true };

    cr_assert_eq(mag_rt_run(rt, co(gathers, NULL), NULL), 0, "line %d: %s", broken_line,
                 broken_claim);
    HOST(rt, 0, gathers, NULL);
    is_gone(rt);
    cr_assert_eq(mag_run_with(co(gathers, NULL), NULL, &o), 0);
    cr_assert_eq(mag_run_with(co(fails_with, arg_of(-EIO)), NULL, &o), -EIO);
    cr_assert_eq(mag_mem_live(), 0);
}

static int leaves_some(void *arg, long *value)
{
    (void)arg, (void)value;
    SHOULD(go(sleep_ns, arg_of(2 * MAG_MS)));
    SHOULD(mag_detach(go(forever, NULL)) == 0);
    SHOULD(mag_call_later(3600 * MAG_SECOND, note, NULL) == 0);
    return 0;
}

Test(embed, is_drained_and_stopped)
{
    struct mag_rt *rt = embedded();

    cr_assert_eq(mag_rt_run(rt, co(leaves_some, NULL), NULL), 0);
    is_gone(rt);
    rt = embedded();
    HOST(rt, 0, leaves_some, NULL);
    submit(rt, forever, NULL);
    cr_assert_eq(mag_rt_stop(rt, 5 * MAG_SECOND), 0);
    is_gone(rt);
}

Test(embed, several_beside_each_other)
{
    struct mag_rt *rt[3];
    struct co *c[3];

    for (int i = 0; i < 3; i++) {
        rt[i] = embedded();
        c[i] = submit(rt[i], sleep_ns, arg_of((3 - i) * MAG_MS));
    }
    for (int n_done = 0; n_done < 3;) {
        struct pollfd p[3];
        for (int i = 0; i < 3; i++)
            p[i] = (struct pollfd){ .fd = mag_rt_fd(rt[i]), .events = POLLIN };
        cr_assert_gt(poll(p, 3, 5000), 0);
        n_done = 0;
        for (int i = 0; i < 3; i++) {
            if (p[i].revents)
                cr_assert_geq(mag_rt_step(rt[i], 0), 0);
            n_done += mag_done(c[i]);
        }
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(await_co(c[i], NULL), 0);
        mag_rt_free(rt[i]);
    }
    cr_assert_eq(mag_mem_live(), 0);
}

static int n_open(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Each call of a kind fails in turn: it is refused with a sentence, or works all the same. */
static void fail_each(enum mag_sys_id id, int err)
{
    int n = n_open();

    for (uint64_t i = 1; i <= 5; i++) {
        struct mag_rt *rt = NULL;
        mag_sys_fail_nth(id, i, err, false);
        int rc = mag_rt_new(&rt, &(struct mag_rt_options){ .embedded = true });
        if (rc == 0)
            HOST(rt, 0, same_later, NULL);
        else
            cr_assert(*mag_rt_why() != '\0' && rt == NULL);
        mag_rt_free(rt);
        mag_sys_fail_none();
        cr_assert_eq(mag_mem_live(), 0, "the %d. of %d: leaks", (int)i, (int)id);
        cr_assert_eq(n_open(), n, "the %d. of %d: a descriptor is left", (int)i, (int)id);
    }
}

Test(embed, is_refused_in_good_order)
{
    fail_each(MAG_SYS_EVENTFD, EMFILE);
    fail_each(MAG_SYS_URING_SETUP, EPERM);
    fail_each(MAG_SYS_URING_REGISTER, ENOMEM);
    fail_each(MAG_SYS_MMAP, ENOMEM);
    for (uint64_t i = 1; i < 12; i++) {
        struct mag_rt *rt = NULL;
        mag_mem_fail_nth(i, false);
        if (mag_rt_new(&rt, &(struct mag_rt_options){ .embedded = true }) == 0)
            (void)mag_rt_step(rt, 0);
        mag_rt_free(rt);
        mag_mem_fail_nth(0, false);
        cr_assert_eq(mag_mem_live(), 0, "allocation %d: leaks", (int)i);
    }
}

Test(embed, leaves_no_descriptor)
{
    int n = n_open();

    for (int i = 0; i < 20; i++) {
        struct mag_rt *rt = embedded();
        HOST(rt, 0, same_later, NULL);
        is_gone(rt);
    }
    cr_assert_eq(n_open(), n);
}
