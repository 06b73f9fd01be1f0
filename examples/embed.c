/* SPDX-License-Identifier: MIT */
/*
 * embed.c - magpie in a program that has an event loop already
 *
 *      $ ./embed
 *      host: tick 1
 *      task: slept 20 ms, in the host's thread
 *      ...
 *
 * A user interface, a game, or the kernel of a Jupyter notebook has a loop of its own and
 * cannot give its thread away.  Here the host waits in poll(2) for a timer and a pipe of its
 * own, and for one descriptor more, magpie's: whenever that is readable, it lets the tasks run
 * (mag_rt_step).  All of them run in the host's thread, so they may touch what is the host's.
 */
#include <magpie/async.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

static struct mag_rt *rt;
static int n_ticks; /* the host's, and no lock is needed */
static pthread_t host_thread;

/* ---- the tasks ------------------------------------------------------------------------ */

async(int, sleeper, (int, ms))
{
    await(mag_sleep(ms * MAG_MS));
    printf("task: slept %d ms, %s\n", ms,
           pthread_equal(pthread_self(), host_thread) ? "in the host's thread" : "elsewhere!");
    async_return(n_ticks);
}

static int blocks(void *arg)
{
    (void)arg;
    usleep(10000);
    return 42;
}

async(int, everything)
{
    int seen[3];

    gather(seen, sleeper(20), sleeper(40), sleeper(60));
    printf("task: a call in a thread gave %d\n", await(mag_to_thread(blocks, NULL)));
    async_return(seen[2]);
}

/* ---- other threads ----------------------------------------------------------------------- */

static void greet(void *name)
{
    printf("callback: hello from %s\n", (const char *)name);
}

static void *other_thread(void *arg)
{
    usleep(30000);
    mag_rt_call(rt, 0, greet, "another thread", NULL);
    return arg;
}

/* ---- the host ------------------------------------------------------------------------------ */

static int new_timer(int ms)
{
    struct itimerspec it = { { 0, ms * 1000000 }, { 0, ms * 1000000 } };
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);

    timerfd_settime(fd, 0, &it, NULL);
    return fd;
}

static void tick(int fd)
{
    unsigned long long n = 0;

    if (read(fd, &n, sizeof n) == (ssize_t)sizeof n && n_ticks < 3)
        printf("host: tick %d\n", n_ticks + 1);
    n_ticks++;
}

/* A host whose loop takes a time-out instead of a descriptor asks for the deadline. */
static void say_deadline(void)
{
    mag_time next = mag_rt_deadline(rt);

    printf("host: the next timer is %s\n", next == MAG_NEVER ? "none" : "set");
}

static void host_loop(struct everything *task)
{
    struct pollfd fds[2] = { { .fd = mag_rt_fd(rt), .events = POLLIN },
                             { .fd = new_timer(15), .events = POLLIN } };

    while (!mag_done(task) && poll(fds, 2, 5000) > 0) {
        if (fds[0].revents)
            mag_rt_step(rt, 0);
        if (fds[1].revents)
            tick(fds[1].fd);
    }
    close(fds[1].fd);
}

int main(void)
{
    struct mag_rt_options options = { .embedded = true };
    struct everything *task = everything();
    struct mag_call *never;
    pthread_t thread;
    int seen = 0, rc = mag_rt_new(&rt, &options);

    if (rc < 0) {
        fprintf(stderr, "embed: %s\n", mag_rt_why());
        return 1;
    }
    host_thread = pthread_self();
    mag_submit(rt, task, NULL);
    mag_rt_step(rt, 0);
    say_deadline();
    pthread_create(&thread, NULL, other_thread, NULL);
    mag_rt_call(rt, mag_now() + 3600 * MAG_SECOND, greet, "nobody", &never);
    host_loop(task);
    printf("host: the far callback is cancelled: %s\n", mag_err_name(mag_call_cancel(never)));
    pthread_join(thread, NULL);
    rc = mag_await(task, &seen, sizeof seen); /* it is done: does not block */
    printf("host: the tasks are done, %s, and saw the host's ticks: %s\n", mag_err_name(rc),
           seen > 0 ? "yes" : "no");
    mag_rt_free(rt);
    return rc < 0;
}
