/* SPDX-License-Identifier: MIT */
/*
 * signals.c - the skeleton of a daemon: it reloads, reports and stops when it is told to
 *
 *      signals [SECONDS]
 *      signals --help
 *
 * SIGHUP reloads, SIGUSR1 reports, SIGINT and SIGTERM stop it; after SECONDS (10) without one
 * of them it stops by itself.  While it works, a task of its own ticks every 10 ms.
 *
 *      $ signals & sleep 0.2; kill -USR1 $!; kill -HUP $!; kill $!
 *
 * EXIT STATUS
 *     0; 2 for wrong usage.
 */
#define _GNU_SOURCE /* sigabbrev_np */
#include <magpie/async.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct daemon {
    struct mag_signals signals;
    int n_ticks, n_reloads;
};

/* Signals are part of what is entered and left; whoever is told to stop stops in order. */
static int daemon_enter(struct daemon *d)
{
    int rc = mag_signals_enter(&d->signals, MAG_SIGNAL(SIGHUP) | MAG_SIGNAL(SIGUSR1) |
                                                MAG_SIGNAL(SIGINT) | MAG_SIGNAL(SIGTERM));

    if (rc == 0)
        printf("ready, process %d\n", (int)getpid());
    fflush(stdout);
    return rc;
}

static void daemon_exit(struct daemon *d)
{
    mag_signals_exit(&d->signals);
    printf("stopped after %d reload%s\n", d->n_reloads, d->n_reloads == 1 ? "" : "s");
}

async_resource(daemon)

    async(void, ticks, (struct daemon *, d))
{
    for (;;) {
        await(mag_sleep(10 * MAG_MS));
        d->n_ticks++;
    }
}

async(void, serves, (struct daemon *, d))
{
    async_for(int, signo, mag_signals_iter(&d->signals))
    {
        printf("got SIG%s\n", sigabbrev_np(signo));
        if (signo == SIGHUP)
            d->n_reloads++;
        else if (signo == SIGUSR1)
            printf("ticking: %s\n", d->n_ticks > 0 ? "yes" : "no");
        else
            break;
        fflush(stdout);
    }
    return 0;
}

/* One signal, without a loop: the kernel would have ended the program here. */
static int one_signal(void)
{
    struct mag_signals s;
    int signo, rc = mag_signals_open(&s, MAG_SIGNAL(SIGUSR2));

    if (rc < 0)
        return rc;
    kill(getpid(), SIGUSR2);
    rc = mag_signals_next(&s, &signo);
    printf("first, one to myself: SIG%s\n", sigabbrev_np(signo));
    mag_signals_close(&s);
    return rc;
}

async(void, lives, (mag_time, limit))
{
    await(one_signal());
    async_with(daemon, d)
    {
        struct ticks *t = spawn(ticks(d));
        int rc = wait_for(serves(d), limit, NULL);

        mag_cancel(t);
        await_rc(t, NULL);
        if (rc == -ETIMEDOUT)
            puts("nobody wants anything");
        else if (rc < 0)
            return rc;
    }
    return 0;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 10;

    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("usage: signals [SECONDS]");
        return 0;
    }
    if (argc > 2 || seconds <= 0) {
        fputs("usage: signals [SECONDS]\n", stderr);
        return 2;
    }
    return mag_run(lives((mag_time)(seconds * MAG_SECOND)), NULL) < 0;
}
