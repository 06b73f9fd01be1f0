/* SPDX-License-Identifier: MIT */
/*
 * signal.c - tests of signals as items
 */
#include "atomic.h"
#include "children.h"
#include "context.h"
#include "sys.h"

#include <magpie/signal.h>

#include <pthread.h>

static void reset(void)
{
    mag_sys_fail_none();
}

TestSuite(signal, .timeout = 60, .fini = reset);

static void raise_usr1(void *arg)
{
    (void)arg;
    kill(getpid(), SIGUSR1);
}

static bool is_default(int signo)
{
    struct sigaction now;

    return sigaction(signo, NULL, &now) == 0 && now.sa_handler == SIG_DFL;
}

/* ---- taking them ----------------------------------------------------------------------- */

async(void, taken)
{
    struct mag_signals s;
    int signo = 0;

    SHOULD(mag_signals_open(&s, MAG_SIGNAL(SIGUSR1) | MAG_SIGNAL(SIGUSR2)) == 0);
    await(mag_call_later(5 * MAG_MS, raise_usr1, NULL));
    SHOULD(mag_signals_next(&s, &signo) == 1 && signo == SIGUSR1); /* waits */
    kill(getpid(), SIGUSR2);
    SHOULD(mag_signals_next(&s, &signo) == 1 && signo == SIGUSR2); /* is there */
    for (int i = 0; i < 50; i++) {
        kill(getpid(), i % 2 ? SIGUSR1 : SIGUSR2);
        SHOULD(mag_signals_next(&s, &signo) == 1 && signo == (i % 2 ? SIGUSR1 : SIGUSR2));
    }
    SHOULD(!is_default(SIGUSR1) && !is_default(SIGUSR2));
    SHOULD(mag_signals_close(&s) == 0);
    SHOULD(is_default(SIGUSR1) && is_default(SIGUSR2));
    SHOULD(mag_signals_close(&s) == 0 && mag_signals_next(&s, &signo) == -EBADF);
    return 0;
}

Test(signal, taken)
{
    RUN_CLEAN(taken(), 0);
}

/* Here one thread has it delivered for sure when tgkill returns: itself. */
async(void, are_kept_once)
{
    int signo = 0;

    async_with(mag_signals, s, MAG_SIGNAL(SIGUSR1) | MAG_SIGNAL(SIGUSR2) | MAG_SIGNAL(SIGHUP))
    {
        struct mag_scope limit;

        raise(SIGUSR2);
        raise(SIGUSR1);
        raise(SIGUSR1);
        raise(SIGHUP);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGHUP);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGUSR1);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGUSR2);
        SHOULD(mag_timeout_enter(&limit, 5 * MAG_MS, NULL) == 0);
        SHOULD(mag_scope_leave(&limit, mag_signals_next(s, &signo)) == -ETIMEDOUT);
        raise(SIGUSR1); /* after a cancel it goes on */
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGUSR1);
    }
    return 0;
}

Test(signal, kept_once_lowest_first)
{
    RUN_CLEAN(are_kept_once(), 0);
}

async(void, iterated)
{
    int n = 0;

    async_with(mag_signals, s, MAG_SIGNAL(SIGUSR1) | MAG_SIGNAL(SIGTERM))
    {
        await(mag_call_later(2 * MAG_MS, raise_usr1, NULL)); /* from outside, and not before */
        async_for(int, signo, mag_signals_iter(s))
        {
            SHOULD(signo == (n == 4 ? SIGTERM : SIGUSR1) || n == 0);
            if (signo == SIGTERM)
                break;
            kill(getpid(), ++n < 4 ? SIGUSR1 : SIGTERM);
        }
    }
    SHOULD(n == 4);
    return 0;
}

Test(signal, iterated)
{
    RUN_CLEAN(iterated(), 0);
}

async(void, listens, (int *, n_open), (int *, n_heard))
{
    async_with(mag_signals, s, MAG_SIGNAL(SIGUSR1))
    {
        int signo = 0;

        mag_fetch_add(n_open, 1);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGUSR1);
        mag_fetch_add(n_heard, 1);
    }
    return 0;
}

async(void, several)
{
    static int n_open, n_heard;
    struct listens *t[5];

    n_open = n_heard = 0;
    for (int i = 0; i < 5; i++)
        t[i] = spawn(listens(&n_open, &n_heard));
    while (mag_load_acquire(&n_open) < 5)
        await(mag_yield());
    kill(getpid(), SIGUSR1);
    for (int i = 0; i < 5; i++)
        await(t[i]);
    SHOULD(n_heard == 5 && is_default(SIGUSR1));
    return 0;
}

Test(signal, each_listener_gets_it)
{
    RUN_CLEAN(several(), 0);
}

Test(signal, outside_a_task)
{
    struct mag_signals s;
    int signo = 0;

    cr_assert_eq(mag_signals_enter(&s, 0), -EINVAL);
    mag_signals_exit(&s);

    cr_assert_eq(mag_signals_open(&s, MAG_SIGNAL(SIGUSR1)), 0);
    raise(SIGUSR1);
    cr_assert_eq(mag_signals_next(&s, &signo), 1);
    cr_assert_eq(signo, SIGUSR1);
    cr_assert_eq(mag_signals_close(&s), 0);
}

/* ---- what is refused, and what was before ---------------------------------------------------- */

async(void, refused)
{
    static const int never[] = { SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL,
                                 SIGABRT, SIGTRAP, SIGSYS,  SIGURG, 32,     33 };
    struct mag_signals s;

    SHOULD(mag_signals_open(&s, 0) == -EINVAL);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        SHOULD(mag_signals_open(&s, MAG_SIGNAL(SIGUSR1) | MAG_SIGNAL(never[i])) == -EINVAL);
        SHOULD(is_default(SIGUSR1));
        SHOULD(mag_signals_close(&s) == 0);
    }
    mag_sys_fail_nth(MAG_SYS_EVENTFD, 1, EMFILE, false);
    SHOULD(mag_signals_open(&s, MAG_SIGNAL(SIGUSR1)) == -EMFILE);
    mag_sys_fail_nth(MAG_SYS_SIGACTION, 2, ENOMEM, false);
    SHOULD(mag_signals_open(&s, MAG_SIGNAL(SIGUSR1) | MAG_SIGNAL(SIGUSR2)) == -ENOMEM);
    mag_sys_fail_none();
    SHOULD(is_default(SIGUSR1) && is_default(SIGUSR2));
    return 0;
}

Test(signal, refused)
{
    RUN_CLEAN(refused(), 0);
}

static void somebodys(int signo)
{
    (void)signo;
}

static int handler_is(void (*handler)(int))
{
    struct sigaction now;

    return sigaction(SIGUSR1, NULL, &now) == 0 && now.sa_handler == handler;
}

async(void, puts_back)
{
    struct sigaction act = { .sa_handler = somebodys };
    struct mag_signals a, b;

    sigaction(SIGUSR1, &act, NULL);
    SHOULD(mag_signals_open(&a, MAG_SIGNAL(SIGUSR1)) == 0);
    SHOULD(mag_signals_open(&b, MAG_SIGNAL(SIGUSR1)) == 0);
    SHOULD(!handler_is(somebodys));
    SHOULD(mag_signals_close(&a) == 0 && !handler_is(somebodys));
    SHOULD(mag_signals_close(&b) == 0 && handler_is(somebodys));

    SHOULD(mag_signals_open(&a, MAG_SIGNAL(SIGUSR1)) == 0);
    act.sa_handler = SIG_IGN; /* somebody changes it meanwhile */
    sigaction(SIGUSR1, &act, NULL);
    SHOULD(mag_signals_close(&a) == 0 && handler_is(SIG_IGN));
    act.sa_handler = SIG_DFL;
    sigaction(SIGUSR1, &act, NULL);
    return 0;
}

Test(signal, puts_back_what_was_before)
{
    RUN_CLEAN(puts_back(), 0);
}

/* ---- masks, and SIGINT ---------------------------------------------------------------------------- */

/* All threads block everything, but the worker that opens. */
Test(signal, in_a_program_that_blocks_all)
{
    sigset_t all;

    if (MAG_CONTEXT_UCONTEXT) /* swapcontext(3) puts back the mask of each fiber */
        cr_skip_test("ucontext");
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    RUN_CLEAN(taken(), 0);
}

async(void, interrupted)
{
    int signo = 0;

    async_with(mag_signals, s, MAG_SIGNAL(SIGINT))
    {
        kill(getpid(), SIGINT);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGINT);
        kill(getpid(), SIGINT); /* not only the first */
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGINT);
        await(mag_sleep(5 * MAG_MS)); /* not cancelled */
    }
    SHOULD(!is_default(SIGINT)); /* the runner's is back */
    kill(getpid(), SIGINT);
    return mag_sleep(MAG_MINUTE);
}

Test(signal, interrupt_is_an_item)
{
    for (unsigned n = 1; n <= 4; n += 3) {
        cr_assert_eq(mag_run_with(interrupted(), NULL, &(struct mag_rt_options){ .workers = n }),
                     -ECANCELED, "line %d: %s", broken_line, broken_claim);
        cr_assert(is_default(SIGINT));
    }
}

async(void, kept)
{
    SHOULD(is_default(SIGINT));
    async_with(mag_signals, s, MAG_SIGNAL(SIGINT))
    {
        int signo = 0;

        kill(getpid(), SIGINT);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGINT);
    }
    SHOULD(is_default(SIGINT));
    return 0;
}

Test(signal, with_keep_sigint)
{
    cr_assert_eq(mag_run_with(kept(), NULL, &(struct mag_rt_options){ .keep_sigint = true }), 0,
                 "line %d: %s", broken_line, broken_claim);
}

/* ---- storms ------------------------------------------------------------------------------------------ */

static int is_over;

static void *shoots(void *arg)
{
    while (!mag_load_acquire(&is_over)) {
        kill(getpid(), SIGUSR1);
        kill(getpid(), SIGUSR2);
    }
    return arg;
}

/* Opened and closed while they come down: none kills us, none is lost while it is open. */
async(void, storm)
{
    for (int i = 0; i < 200; i++)
        async_with(mag_signals, s, MAG_SIGNAL(SIGUSR1) | MAG_SIGNAL(SIGUSR2))
        {
            int signo = 0;

            SHOULD(mag_signals_next(s, &signo) == 1);
            SHOULD(signo == SIGUSR1 || signo == SIGUSR2);
        }
    return 0;
}

async(void, storms)
{
    gather(NULL, storm(), storm(), storm(), storm());
    return 0;
}

Test(signal, storm)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    pthread_t t;

    sigaction(SIGUSR1, &ignore, NULL);
    sigaction(SIGUSR2, &ignore, NULL);
    cr_assert_eq(pthread_create(&t, NULL, shoots, NULL), 0);
    RUN_STORY(4, storms(), 0, "");
    mag_store_release(&is_over, 1);
    pthread_join(t, NULL);
}

async(void, cancelled)
{
    async_with(mag_signals, s, MAG_SIGNAL(SIGUSR1))
    {
        int signo = 0;

        mag_cancel(mag_self());
        SHOULD(mag_signals_next(s, &signo) == -ECANCELED);
        raise(SIGUSR1);
        SHOULD(mag_signals_next(s, &signo) == 1); /* one that is there is had all the same */
    }
    return 0;
}

Test(signal, cancelled)
{
    RUN_CLEAN(cancelled(), 0);
}
