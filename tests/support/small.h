/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_SMALL_H
#define MAG_TESTS_SMALL_H
/*
 * small.h - a small program that uses a bit of everything, for the torture tests
 *
 * Any call of it may fail.  small_program answers 0, or the first error, whatever that
 * is; but 1 (and says what) if a call claimed success and did not do its work, or if
 * memory or descriptors are left.  It always takes care of what it has made.
 */
#include "body.h"

#include <magpie/file.h>
#include <magpie/fork.h>
#include <magpie/net.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    mag_atomic(int32_t) first_rc; /* the first error of any call */
    mag_atomic(uint32_t) n_wrong;
    mag_atomic(bool) is_there; /* the other end of a talk */
    bool leaks_descriptors;    /* is no mistake */
} small;

/* Notes an error; whether it was none. */
static inline int is_ok(int rc)
{
    int32_t none = 0;

    if (rc < 0)
        (void)mag_cas(&small.first_rc, &none, rc);
    return rc >= 0;
}

#define RIGHT(claim) \
    do { \
        if (!(claim)) { \
            mag_fetch_add(&small.n_wrong, 1); \
            fprintf(stderr, "wrong: %s (%s:%d)\n", #claim, __FILE__, __LINE__); \
        } \
    } while (0)

/* ---- its parts --------------------------------------------------------------------- */

/* In another task, on whatever stack it gets. */
static int small_spawns(void)
{
    struct mag_spawn_options options = { .name = "small", .stack_bytes = 128 * 1024, .worker = 1 };
    struct co *tasks[20] = { NULL };

    for (long i = 0; i < 20; i++) {
        tasks[i] = co(i % 3 == 0 ? same : i % 3 == 1 ? same_later : sleep_ns, arg_of(i));
        int rc = mag_start(tasks[i], i % 5 == 4 ? &options : NULL);
        if (!is_ok(rc)) {
            mag_close(tasks[i]);
            tasks[i] = NULL;
        }
    }
    for (long i = 0; i < 20; i++) {
        long v = -1;
        if (tasks[i] && is_ok(await_co(tasks[i], &v)))
            RIGHT(v == i);
    }
    return 0;
}

static int small_gathers(size_t limit)
{
    struct mag_gather_options options = { .limit = limit };
    void *children[30];
    long results[30];

    for (long i = 0; i < 30; i++)
        children[i] = co(i % 2 ? same_later : same, arg_of(i));
    if (is_ok(mag_gather(results, sizeof *results, children, 30, &options)))
        for (long i = 0; i < 30; i++)
            RIGHT(results[i] == i);
    for (long i = 0; i < 30; i++) {
        RIGHT(children[i] == NULL);
        children[i] = mag_sleep_co(i % 3 * 100 * MAG_US);
    }
    (void)is_ok(mag_gather(NULL, 0, children, 30, &options));
    return 0;
}

static void small_set(void *f)
{
    set(f, 21);
}

static void *small_setter(void *f)
{
    set(f, 22);
    return NULL;
}

static int small_futures(void)
{
    void *f = future();
    pthread_t thread;
    bool has_thread;
    long v = 0;

    if (f && !is_ok(mag_call_later(100 * MAG_US, small_set, f)))
        set(f, 21);
    if (is_ok(await_co(f, &v)))
        RIGHT(v == 21);
    f = future();
    has_thread = f && pthread_create(&thread, NULL, small_setter, f) == 0;
    if (f && !has_thread)
        set(f, 22);
    if (is_ok(await_co(f, &v)))
        RIGHT(v == 22);
    if (has_thread) /* it has a hold of the future until its call has returned */
        pthread_join(thread, NULL);
    return 0;
}

static int small_seven(void *arg)
{
    *(int *)arg = 7;
    return 7;
}

static int small_offload(void)
{
    int seen = 0, rc = mag_to_thread(small_seven, &seen);

    if (is_ok(rc))
        RIGHT(rc == 7 && seen == 7);
    return 0;
}

/* This program's own file. */
static int small_file(void)
{
    struct mag_file f;
    struct mag_file_stat st;
    struct mag_str all;
    char start[4] = "";

    if (!is_ok(mag_file_open(&f, "/proc/self/exe", "r")))
        return 0;
    if (is_ok(mag_file_pread(&f, start, 4, 0)))
        RIGHT(memcmp(start, "\177ELF", 4) == 0);
    if (is_ok(mag_file_stat(&f, &st)))
        RIGHT(st.size > 1000);
    (void)is_ok(mag_file_close(&f));
    if (!is_ok(mag_file_open(&f, "/proc/self/cmdline", "r")))
        return 0;
    if (is_ok(mag_file_read_all(&f, &all)))
        RIGHT(all.len > 0 && all.ptr[all.len] == '\0');
    (void)is_ok(mag_file_close(&f));
    if (!is_ok(mag_file_open(&f, "/dev/null", "w")))
        return 0;
    if (is_ok(mag_file_pwrite(&f, start, 4, 0)))
        (void)is_ok(mag_file_write(&f, start, 4));
    (void)is_ok(mag_file_close(&f));
    return 0;
}

static int small_answers(void *arg, long *value)
{
    int fd = (int)num(arg), rc;
    char c;

    *value = 0;
    mag_store_release(&small.is_there, true);
    while ((rc = mag_recv(fd, &c, 1, 0)) > 0 && (rc = mag_send(fd, &c, 1, 0)) > 0)
        ++*value;
    shutdown(fd, SHUT_RDWR); /* or the other would wait for ever */
    return rc;
}

/* Two ends of a socket, each waiting for the other. */
static int small_talks(void)
{
    struct co *other;
    long n = 0, n_answers = 0;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return 0;
    mag_store_relaxed(&small.is_there, false);
    other = go(small_answers, arg_of(fds[1]));
    while (other && !mag_load_acquire(&small.is_there) && !mag_done(other))
        mag_yield();
    for (; mag_load_acquire(&small.is_there) && n < 5; n++) {
        char c = (char)n;
        if (!is_ok(mag_send(fds[0], &c, 1, 0)) || !is_ok(mag_recv(fds[0], &c, 1, 0)))
            break;
        RIGHT(c == n || small.first_rc < 0);
    }
    shutdown(fds[0], SHUT_RDWR);
    if (other && is_ok(await_co(other, &n_answers)))
        RIGHT(n_answers == n || small.first_rc < 0);
    (void)is_ok(mag_close_fd(fds[0]));
    (void)is_ok(mag_close_fd(fds[1]));
    return 0;
}

static int small_walk(void)
{
    struct mag_walk *w;
    struct mag_walk_entry e;
    int rc, n = 0;

    if (!is_ok(mag_walk_open(&w, "/proc/self/attr")))
        return 0;
    while ((rc = mag_walk_next(w, &e)) > 0) {
        (void)is_ok(e.rc);
        n++;
    }
    (void)is_ok(rc);
    RIGHT(rc < 0 || n > 0);
    mag_walk_close(w);
    return 0;
}

struct small_part {
    struct mag_fork fork;
    long n, sum;
};

static long small_sum(long n);

static void small_run_part(struct mag_fork *fork)
{
    struct small_part *part = (struct small_part *)fork;

    part->sum = small_sum(part->n);
}

static long small_sum(long n)
{
    struct small_part part = { .n = n / 2 };
    long rest;

    if (n < 2) {
        mag_yield();
        return n;
    }
    mag_fork(&part.fork, small_run_part);
    rest = small_sum(n - n / 2);
    mag_join(&part.fork);
    return part.sum + rest;
}

/* In place, ever deeper, so that it moves to other stacks. */
static int small_deep(void *arg, long *value)
{
    volatile char room[2048];
    long below = 0;
    int rc;

    room[0] = 1;
    if (num(arg) == 0) {
        *value = 0;
        return mag_yield();
    }
    rc = await_co(co(small_deep, arg_of(num(arg) - 1)), &below);
    *value = below + room[0];
    return rc;
}

static int small_main(void *arg, long *value)
{
    long depth = 0;

    *value = 11;
    (void)arg;
    small_spawns();
    small_gathers(0);
    small_gathers(4);
    small_futures();
    small_offload();
    small_file();
    small_walk();
    small_talks();
    RIGHT(small_sum(40) == 40);
    if (is_ok(await_co(co(small_deep, arg_of(60)), &depth)))
        RIGHT(depth == 60);
    (void)is_ok(mag_sleep(200 * MAG_US));
    for (int i = 0; i < 3; i++) {
        struct co *c = go(i ? forever : same, NULL);
        if (c)
            (void)is_ok(mag_detach(c));
    }
    return mag_load_relaxed(&small.first_rc);
}

/* ---- the whole ------------------------------------------------------------------------ */

static int small_descriptors(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void small_quiet(void *arg, const char *line)
{
    (void)arg, (void)line;
}

/* Runs it; `after' disarms the faults before memory and descriptors are counted. */
static inline int small_program(unsigned workers, void (*after)(void))
{
    struct mag_rt_options options = { .workers = workers, .report = small_quiet };
    struct mag_rt *rt = NULL;
    int n_descriptors = small_descriptors(), rc;
    int64_t n_live = mag_mem_live();
    long v = 0;

    small.first_rc = 0;
    small.n_wrong = 0;
    rc = mag_rt_new(&rt, &options);
    if (rc == 0) {
        struct co *c = co(small_main, NULL);
        if (is_ok(mag_rt_run(rt, c, &v)))
            RIGHT(v == 11);
        small_file(); /* outside a task, too */
        if (c && strcmp(mag_kind_name(c), "coroutine") == 0)
            mag_close(c);
        mag_rt_free(rt);
    } else {
        (void)is_ok(rc);
        RIGHT(rt == NULL);
        RIGHT(*mag_rt_why() != '\0');
    }
    after();
    if (mag_mem_live() != n_live)
        fprintf(stderr, "%ld blocks of memory are left\n", (long)(mag_mem_live() - n_live));
    RIGHT(mag_mem_live() == n_live);
    RIGHT(small.leaks_descriptors || small_descriptors() == n_descriptors);
    return small.n_wrong ? 1 : small.first_rc;
}

/* ---- for who tortures it ----------------------------------------------------------------- */

static char small_what[200];

/* A hang is an error, with its name. */
static void small_on_alarm(int sig)
{
    static const char text[] = "HANGS: ";

    (void)sig;
    (void)!write(2, text, sizeof text - 1);
    (void)!write(2, small_what, strlen(small_what));
    (void)!write(2, "\n", 1);
    if (getenv("TORTURE_WAIT"))
        pause();
    _exit(1);
}

#define SMALL_BEGIN(...) \
    do { \
        snprintf(small_what, sizeof small_what, __VA_ARGS__); \
        signal(SIGALRM, small_on_alarm); \
        alarm(60); \
    } while (0)

#endif
