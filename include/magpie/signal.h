/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_SIGNAL_H
#define MAGPIE_SIGNAL_H
/*
 * signal.h - signals as items
 *
 *      async_with(mag_signals, s, MAG_SIGNAL(SIGHUP) | MAG_SIGNAL(SIGTERM))
 *          async_for(int, signo, mag_signals_iter(s)) {
 *              if (signo == SIGTERM)
 *                  break;
 *              reload();
 *          }
 *
 * While it is open, these signals do not do what they did before (kill the program, for most),
 * but come out here; closing puts back what was there.  Several may be open for one signal:
 * each gets it.
 *
 * As the kernel does, it keeps that a signal has come, not how often: two that come before the
 * first was taken are one.  Of several, the lowest number comes first.
 *
 * Which thread must not block them: opening unblocks them in the thread that opens, a worker,
 * which is enough; others may block what they like.  So a program that has blocked all signals
 * before it began (workers inherit that) gets them too.  Only one who takes them away by sigwait(3)
 * or signalfd(2) gets them instead.  (A library built with MAGPIE_CONTEXT=ucontext, where each
 * task has a mask of its own, needs a thread of the program that does not block them.)
 *
 * SIGINT: mag_run has a handler of its own, which cancels the main coroutine (.keep_sigint).
 * Open, a mag_signals comes before that: Ctrl-C then is an item, and cancels nothing.
 */
#include <magpie/iter.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The set of one signal; sets are joined by |. */
#define MAG_SIGNAL(signo) ((uint64_t)1 << ((signo)-1))

/* Storage; its contents are private. */
struct mag_signals {
    uint64_t private_[8];
};

/*
 * Begins to listen.  Must be closed, before its runtime ends.  -EINVAL: an empty set, or a
 * signal that cannot be had so (SIGKILL, SIGSTOP, faults such as SIGSEGV, and SIGURG,
 * which the runtime uses); -EMFILE, -ENFILE, -ENOMEM.  The storage may not move.  Never
 * suspends.
 */
MAG_API int mag_signals_open(struct mag_signals *s, uint64_t set);

/*
 * Waits for the next signal: 1, and *signo is its number.  -EBADF after close.  By one task at
 * a time.  Suspends, if none has come; cancellation point, which loses no signal.  Outside a
 * task it blocks.
 */
MAG_API int mag_signals_next(struct mag_signals *s, int *signo);

/* It as an iterator of int; it has no end, and closing the iterator does not close it. */
MAG_API struct mag_iter mag_signals_iter(struct mag_signals *s);

/*
 * Ends it: signals that have come and were not taken are dropped.  What was set for the
 * signals before is set again, unless somebody has changed it meanwhile.  0; again: nothing
 * happens.  Nobody may be waiting in mag_signals_next.  Never suspends.
 */
MAG_API int mag_signals_close(struct mag_signals *s);

/* For async_with(mag_signals, s, set): mag_signals_open and mag_signals_close. */
MAG_API int mag_signals_enter(struct mag_signals *s, uint64_t set);
MAG_API void mag_signals_exit(struct mag_signals *s);

#ifdef __cplusplus
}
#endif
#endif
