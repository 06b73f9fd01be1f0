/* SPDX-License-Identifier: MIT */
/*
 * signal_run.c - Ctrl-C while something runs
 *
 *      SIGINT --> handler: for each run   set a bit, wake its thread  --> mag_rt_run: cancels
 *                 disposition is default again                            the coroutine
 *      SIGINT --> kills
 *
 * As asyncio's runner does: the first Ctrl-C asks the main task to stop, so that every
 * cleanup runs; who cannot wait presses it again.  SA_RESETHAND makes the second one the
 * kernel's business: it works however stuck the program is.
 *
 * The handler may interrupt any thread anywhere.  It sets a bit in each run of a list, and
 * rings a futex or a ring; all of that is async-signal-safe.  It takes no lock: a run is
 * linked, and then published by one store; who unlinks one waits until no handler is inside
 * (M), (N).  A handler on the very thread that unlinks is over before that thread goes on.
 *
 * A disposition that is not the default belongs to somebody, and is left alone: then no
 * handler is installed, and a Ctrl-C does whatever it does.  When the last run leaves, the
 * default is put back, unless somebody has installed something of his own meanwhile.
 *
 * Rejected: signalfd(2) (the signal would have to be blocked in every thread of the process,
 * which are not ours); a thread that waits for signals (the same); a second Ctrl-C that
 * raises something (there is nothing to raise in C but what already did not work).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "signal_run.h"

#include "sys.h"
#include "sys_wait.h"

static struct {
    struct mag_spin lock;                      /* of the list's changes, not of its readers */
    mag_atomic(struct mag_signal_run *) first; /* [lock writes, handler reads] */
    mag_atomic(uint32_t) n_inside;             /* [any] handlers that read the list */
    bool is_installed;                         /* [lock] */
} runs;

static void on_sigint(int sig)
{
    int saved = mag_sys_errno_save();

    (void)sig;
    mag_fetch_add_seq(&runs.n_inside, 1); /* (M) pairs with signal_run.c (N) */
    for (struct mag_signal_run *r = mag_load_seq(&runs.first); r; r = mag_load_seq(&r->next)) {
        mag_fetch_or(&r->word, MAG_RUN_INTERRUPTED);
        mag_sys_futex_wake(&r->word, 1);
        if (r->ring)
            mag_ring_wake(r->ring);
    }
    mag_fetch_sub_seq(&runs.n_inside, 1);
    mag_sys_errno_restore(saved);
}

static bool is_default(void)
{
    struct sigaction now;

    return mag_sys_sigaction(SIGINT, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
           now.sa_handler == SIG_DFL;
}

static bool is_ours(void)
{
    struct sigaction now;

    return mag_sys_sigaction(SIGINT, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
           now.sa_handler == on_sigint;
}

static void install(void)
{
    struct sigaction act = { .sa_handler = on_sigint,
                             .sa_flags = (int)SA_RESETHAND | SA_RESTART | SA_ONSTACK };

    runs.is_installed = is_default() && mag_sys_sigaction(SIGINT, &act, NULL) == 0;
}

static void uninstall(void)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };

    if (runs.is_installed && is_ours())
        (void)mag_sys_sigaction(SIGINT, &dfl, NULL);
    runs.is_installed = false;
}

/* Before the first is listed the handler would have nobody to tell, and the signal is lost:
 * so it is listed first. */
void mag_signal_enter(struct mag_signal_run *run)
{
    bool is_first;

    mag_spin_lock(&runs.lock);
    is_first = runs.first == NULL;
    run->next = runs.first;
    mag_store_seq(&runs.first, run);
    if (is_first)
        install();
    mag_spin_unlock(&runs.lock);
    run->is_listed = true;
}

void mag_signal_leave(struct mag_signal_run *run)
{
    struct mag_signal_run **link = &runs.first;

    if (!run->is_listed)
        return;
    mag_spin_lock(&runs.lock);
    if (runs.first == run && run->next == NULL)
        uninstall();
    while (*link != run)
        link = &(*link)->next;
    mag_store_seq(link, run->next);
    mag_spin_unlock(&runs.lock);
    while (mag_load_seq(&runs.n_inside)) /* (N) pairs with signal_run.c (M) */
        mag_cpu_relax();
    run->is_listed = false;
}
