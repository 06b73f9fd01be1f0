/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_NTH_CANCEL_H
#define MAG_TESTS_NTH_CANCEL_H
/*
 * nth_cancel.h - a scenario that is cancelled at each of its suspensions in turn
 *
 *      int nth_cancel(scenario, arg, holds)
 *
 * runs scenario(arg) as a task again and again, and cancels it a step later each time:
 * after the first, second, third ... turn that it had (on one worker that is what it is
 * suspended in then), and, where the scenario says nth_point() before its suspensions, just
 * before the first, second, third of these.  After each run holds(arg, rc) looks whether what
 * must hold does, and makes arg ready for the next.  It ends when the scenario has run to
 * its end.  Returns 0, or what SHOULD says in a test's body.
 *
 * Beside work in another thread a turn means little, and a busy machine needs many of them:
 * after NTH_FEW, which no scenario of one thread needs, there is a limit of time, too.
 */
#include "body.h"

enum { NTH_MAX = 400, NTH_FEW = 100, NTH_ENOUGH = 3 };
#define NTH_LIMIT (10 * MAG_SECOND)

static struct {
    int n, at; /* points passed; the one that cancels, 0: none */
} nth __attribute__((unused));

/* Before a suspension of the scenario's own task. */
static inline void nth_point(void)
{
    if (++nth.n == nth.at)
        mag_cancel(mag_self());
}

/* After n turns.  *was_over: it had ended by itself. */
static inline int nth_run(int (*scenario)(void *arg, long *value), void *arg, int n, bool *was_over)
{
    struct co *c = go(scenario, arg);

    nth.n = 0;
    if (c == NULL)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        mag_yield();
    *was_over = mag_done(c);
    mag_cancel(c);
    return await_co(c, NULL);
}

static inline int nth_cancel(int (*scenario)(void *arg, long *value), void *arg,
                             int (*holds)(void *arg, int rc))
{
    mag_time last = mag_now() + NTH_LIMIT;
    bool was_over = false;
    int rc;

    for (int n = 1, n_over = 0; n <= NTH_MAX && n_over < NTH_ENOUGH; n++) {
        nth.at = 0;
        rc = holds(arg, nth_run(scenario, arg, n, &was_over));
        if (rc < 0)
            return rc;
        n_over = was_over ? n_over + 1 : 0;
        if (n > NTH_FEW && mag_now() > last)
            break;
    }
    for (int n = 1; n <= NTH_MAX; n++) {
        nth.n = 0;
        nth.at = n;
        rc = holds(arg, await_co(go(scenario, arg), NULL));
        if (rc < 0)
            return rc;
        if (nth.n < n)
            break;
    }
    nth.at = 0;
    return 0;
}

#endif
