/* SPDX-License-Identifier: MIT */
/*
 * process.c - short processes from all workers at once, with cancels at random moments
 *
 * Each task starts a program that ends at once, or after some milliseconds, or never, or talks;
 * waits for it, talks to it, signals it, or leaves it to the end of its block; and is perhaps
 * cancelled, or under a deadline, at a random moment of all this.  A program that was not
 * killed must have ended as it should.  Meanwhile somebody listens to SIGUSR1, which somebody
 * else sends, and some look up names.  At the end there is no child, not even a zombie, no
 * descriptor, and no memory.
 */
#include "stress.h"

#include <magpie/process.h>
#include <magpie/resolve.h>
#include <magpie/scope.h>
#include <magpie/signal.h>

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <sys/wait.h>

enum { PROCESSES = STRESS_SCALE(400, 120), AT_A_TIME = 16, WAYS = 6 };

static mag_atomic(uint32_t) n_ended, n_stopped, n_heard;

/* One program, and what is done with it. */
static int use(struct mag_process *p, unsigned way, struct mag_rand *r)
{
    char input[20000];
    struct mag_str out;
    int status = -1, rc = 0;

    memset(input, 'x', sizeof input);
    switch (way) {
    case 0: /* exit 7, perhaps later */
        rc = mag_process_wait(p, &status);
        EXPECT(rc < 0 || status == 7);
        break;
    case 1:
        rc = mag_process_communicate(p, input, sizeof input, &out, NULL, 0);
        EXPECT(rc < 0 || (out.len == sizeof input && memcmp(out.ptr, input, out.len) == 0));
        break;
    case 2:
        if (mag_rand_below(r, 2))
            rc = mag_sleep(mag_rand_below(r, 2000) * MAG_US);
        EXPECT(mag_process_signal(p, SIGTERM) == 0);
        if (rc == 0)
            rc = mag_process_wait(p, &status);
        EXPECT(rc < 0 || status == -SIGTERM);
        break;
    case 3: /* its block kills it */
        break;
    case 4:
        rc = mag_process_communicate(p, NULL, 0, &out, NULL, 1000);
        EXPECT(rc == -EFBIG || rc == -ECANCELED);
        rc = rc == -EFBIG ? 0 : rc;
        break;
    default:
        EXPECT(mag_process_kill(p) == 0);
        rc = mag_process_wait(p, &status);
        EXPECT(rc < 0 || status == -SIGKILL);
        break;
    }
    return rc;
}

async(void, one, (uint64_t, seed))
{
    static const char *const commands[WAYS] = { "exit 7",        "exec cat", "exec sleep 60",
                                                "exec sleep 60", "exec yes", "sleep 60; :" };
    struct mag_rand r = stress_rand(seed);
    unsigned way = mag_rand_below(&r, WAYS);
    const char *argv[] = { "/bin/sh", "-c", commands[way], NULL };
    struct mag_process_options o = { .argv = argv, .new_group = way == 5 };

    if (way == 1)
        o.in.kind = MAG_STDIO_PIPE;
    if (way == 1 || way == 4)
        o.out.kind = MAG_STDIO_PIPE;
    async_with(mag_process, p, &o) await(use(p, way, &r));
    mag_fetch_add(&n_ended, 1);
    return 0;
}

async(void, meddled_with, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed + 1);
    struct one *t = one(seed);
    int rc;

    switch (mag_rand_below(&r, 3)) {
    case 0:
        rc = wait_for(t, mag_rand_below(&r, 4000) * MAG_US, NULL);
        break;
    case 1:
        (void)spawn(t);
        await(mag_sleep(mag_rand_below(&r, 4000) * MAG_US));
        mag_cancel(t);
        rc = await_rc(t, NULL);
        break;
    default:
        rc = await_rc(t, NULL);
        EXPECT(rc == 0);
        break;
    }
    EXPECT(rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT);
    if (rc < 0)
        mag_fetch_add(&n_stopped, 1);
    stress_beat();
    return 0;
}

async(void, listens)
{
    async_with(mag_signals, s, MAG_SIGNAL(SIGUSR1)) async_for(int, signo, mag_signals_iter(s))
    {
        EXPECT(signo == SIGUSR1);
        mag_fetch_add(&n_heard, 1);
    }
    return 0;
}

async(void, sends, (uint64_t, seed))
{
    struct mag_rand r = stress_rand(seed);
    struct addrinfo *list;

    for (;;) {
        kill(getpid(), SIGUSR1);
        int rc = mag_getaddrinfo("localhost", "80", NULL, &list);
        EXPECT(rc == 0 || rc == -ECANCELED);
        mag_freeaddrinfo(list);
        await(mag_sleep(mag_rand_below(&r, 1000) * MAG_US));
    }
    return 0;
}

async(void, everything)
{
    struct meddled_with *all[PROCESSES];
    struct listens *l[2] = { listens(), listens() };
    struct sends *s = sends(99);

    (void)spawn(l[0]);
    (void)spawn(l[1]);
    await(mag_sleep(MAG_MS));
    (void)spawn(s);
    for (int i = 0; i < PROCESSES; i++)
        all[i] = meddled_with((uint64_t)i * 77 + 5);
    gather_n(NULL, all, PROCESSES, .limit = AT_A_TIME);
    mag_cancel(s);
    EXPECT(await_rc(s, NULL) == -ECANCELED);
    for (int i = 0; i < 2; i++) {
        mag_cancel(l[i]);
        EXPECT(await_rc(l[i], NULL) == -ECANCELED);
    }
    return 0;
}

async(void, nothing)
{
    return 0;
}

int main(void)
{
    struct mag_rt_options o = { .workers = 4 };
    sigset_t none;
    int n_fds;
    int64_t n_blocks;

    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    signal(SIGUSR1, SIG_IGN); /* one may come when nobody listens yet */
    stress_begin("process", NULL);
    mag_run_with(nothing(), NULL, &o);
    n_fds = stress_n_descriptors();
    n_blocks = mag_mem_live();
    EXPECT(mag_run_with(everything(), NULL, &o) == 0);
    EXPECT(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
    EXPECT(stress_n_descriptors() == n_fds);
    EXPECT(mag_mem_live() == n_blocks);
    EXPECT(n_ended + n_stopped == PROCESSES && n_ended > 0 && n_stopped > 0 && n_heard > 1);
    printf("process: %u ended, %u stopped, %u signals\n", n_ended, n_stopped, n_heard);
    return stress_end();
}
