/* SPDX-License-Identifier: MIT */
/*
 * signal.c - signals as items
 *
 *      handler, in any thread:  for each listener that wants it   set its bit,
 *                                                                 add 1 to its eventfd
 *      next:                    a bit is set: take it
 *                               none: read the eventfd in the ring, and look again
 *
 * A handler may interrupt any thread anywhere.  It takes no lock and allocates nothing: the
 * listeners are a list that is changed by single stores, and who unlinks one waits until no
 * handler is inside (M), (N), as in signal_run.c.  A handler on the very thread that unlinks
 * is over before that thread goes on.
 *
 * The first listener of a signal installs the handler, the last one puts back what was there,
 * if the handler is still ours: both under a lock, which the handler does not know.
 *
 * At least one thread must not block the signal, or the handler never runs.  The threads of
 * the program are not ours, but the worker that opens is: it unblocks the signal, for good.  A
 * thread of the pool blocks all of them (offload.c).
 *
 * Invariants
 *   1. A bit that is set is followed by an addition to the eventfd: so who reads after it has
 *      looked misses nothing.  Additions without a bit cost a turn.
 *   2. A listener is in the list from before the handler is installed until after no handler
 *      can see it; its eventfd lives longer.
 *
 * Rejected: signalfd(2), which sees a signal only if all threads block it, and they are not
 * ours; a pipe of numbers, which fills up; mag_event, whose lock a handler must not take.
 *
 * Sources: signal(7), signal-safety(7); CPython's Lib/asyncio/unix_events.py.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "list.h"
#include "op.h"
#include "sys.h"
#include "sys_wait.h"
#include "wait.h"

#include <errno.h>
#include <magpie/signal.h>
#include <sys/eventfd.h>

enum { SIGNALS = 64 };

struct listener {
    mag_atomic(struct listener *) next; /* [lock writes, handler reads] */
    uint64_t set;                       /* [const] what it listens to */
    mag_atomic(uint64_t) pending;       /* [any] has come, and was not taken */
    int32_t fd;                         /* [const] the eventfd */
    uint32_t is_open;                   /* [owner] */
};

MAG_STATIC_ASSERT(sizeof(struct listener) <= sizeof(struct mag_signals));
MAG_STATIC_ASSERT(_Alignof(struct listener) <= _Alignof(struct mag_signals));

static struct {
    struct mag_spin lock;                 /* of changes, not of the list's readers */
    mag_atomic(struct listener *) first;  /* [lock writes, handler reads] */
    mag_atomic(uint32_t) n_inside;        /* [any] handlers that read the list */
    uint32_t n_users[SIGNALS + 1];        /* [lock] listeners of each signal */
    struct sigaction before[SIGNALS + 1]; /* [lock] what the first one found */
} signals;

static struct listener *listener_of(struct mag_signals *s)
{
    return (struct listener *)(void *)s;
}

/* ---- the handler -------------------------------------------------------------------------- */

static void tell(struct listener *l, int signo)
{
    static const uint64_t one = 1;

    mag_fetch_or(&l->pending, MAG_SIGNAL(signo));
    (void)mag_sys_write(l->fd, &one, sizeof one);
}

static void on_signal(int signo)
{
    int saved = mag_sys_errno_save();

    mag_fetch_add_seq(&signals.n_inside, 1); /* (M) pairs with signal.c (N) */
    for (struct listener *l = mag_load_seq(&signals.first); l; l = mag_load_seq(&l->next))
        if (l->set & MAG_SIGNAL(signo))
            tell(l, signo);
    mag_fetch_sub_seq(&signals.n_inside, 1);
    mag_sys_errno_restore(saved);
}

/* ---- installing it --------------------------------------------------------------------- */

static bool is_ours(int signo)
{
    struct sigaction now;

    return mag_sys_sigaction(signo, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
           now.sa_handler == on_signal;
}

/* With the lock held, as the next two. */
static int use(int signo)
{
    struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK };
    int rc = 0;

    if (signals.n_users[signo] == 0)
        rc = mag_sys_sigaction(signo, &act, &signals.before[signo]);
    if (rc == 0)
        signals.n_users[signo]++;
    return rc;
}

static void unuse(int signo)
{
    if (--signals.n_users[signo] == 0 && is_ours(signo))
        (void)mag_sys_sigaction(signo, &signals.before[signo], NULL);
}

static void unuse_all(uint64_t set)
{
    for (int signo = 1; signo <= SIGNALS; signo++)
        if (set & MAG_SIGNAL(signo))
            unuse(signo);
}

static int use_all(uint64_t set)
{
    int rc = 0;

    for (int signo = 1; signo <= SIGNALS && rc == 0; signo++) {
        if (!(set & MAG_SIGNAL(signo)))
            continue;
        rc = use(signo);
        if (rc < 0)
            unuse_all(set & (MAG_SIGNAL(signo) - 1));
    }
    return rc;
}

/* In this thread. */
static void unblock(uint64_t set)
{
    sigset_t mask;

    (void)sigemptyset(&mask);
    for (int signo = 1; signo <= SIGNALS; signo++)
        if (set & MAG_SIGNAL(signo))
            (void)sigaddset(&mask, signo);
    (void)mag_sys_sigmask(SIG_UNBLOCK, &mask, NULL);
}

/* ---- opening and closing --------------------------------------------------------------- */

/* With the lock held. */
static void link_in(struct listener *l)
{
    mag_store_seq(&l->next, mag_load_relaxed(&signals.first));
    mag_store_seq(&signals.first, l);
}

static void link_out(struct listener *l)
{
    mag_atomic(struct listener *) *link = &signals.first;

    while (mag_load_relaxed(link) != l)
        link = &mag_load_relaxed(link)->next;
    mag_store_seq(link, mag_load_relaxed(&l->next));
    while (mag_load_seq(&signals.n_inside)) /* (N) pairs with signal.c (M) */
        mag_cpu_relax();
}

static bool is_allowed(uint64_t set)
{
    static const int never[] = { SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE,
                                 SIGILL,  SIGABRT, SIGTRAP, SIGSYS, SIGURG };

    for (size_t i = 0; i < MAG_ARRAY_SIZE(never); i++)
        if (set & MAG_SIGNAL(never[i]))
            return false;
    return set != 0;
}

int mag_signals_open(struct mag_signals *s, uint64_t set)
{
    struct listener *l = listener_of(s);
    int rc;

    *s = (struct mag_signals){ { 0 } };
    if (!is_allowed(set))
        return -EINVAL;
    rc = mag_sys_eventfd(0, EFD_CLOEXEC);
    if (rc < 0)
        return rc;
    l->fd = rc;
    l->set = set;
    mag_spin_lock(&signals.lock);
    link_in(l);
    rc = use_all(set);
    if (rc < 0)
        link_out(l);
    mag_spin_unlock(&signals.lock);
    if (rc < 0) {
        (void)mag_sys_close(l->fd);
        return rc;
    }
    l->is_open = true;
    unblock(set);
    return 0;
}

int mag_signals_close(struct mag_signals *s)
{
    struct listener *l = listener_of(s);

    if (!l->is_open)
        return 0;
    mag_spin_lock(&signals.lock);
    unuse_all(l->set);
    link_out(l);
    mag_spin_unlock(&signals.lock);
    l->is_open = false;
    return mag_sys_close(l->fd);
}

int mag_signals_enter(struct mag_signals *s, uint64_t set)
{
    return mag_signals_open(s, set);
}

void mag_signals_exit(struct mag_signals *s)
{
    (void)mag_signals_close(s);
}

/* ---- taking them ----------------------------------------------------------------------- */

static bool take(struct listener *l, int *signo)
{
    uint64_t pending = mag_load_acquire(&l->pending);

    if (pending == 0)
        return false;
    *signo = __builtin_ctzll(pending) + 1;
    mag_fetch_and(&l->pending, ~MAG_SIGNAL(*signo));
    return true;
}

int mag_signals_next(struct mag_signals *s, int *signo)
{
    struct listener *l = listener_of(s);
    uint64_t count;
    int rc;

    if (!l->is_open)
        return -EBADF;
    while (!take(l, signo)) {
        rc = mag_op_read(l->fd, &count, sizeof count, MAG_OP_HERE);
        if (rc < 0)
            return rc;
    }
    return 1;
}

static int next_item(void *self, void *out)
{
    return mag_signals_next(self, out);
}

struct mag_iter mag_signals_iter(struct mag_signals *s)
{
    return mag_iter_of(next_item, s);
}
