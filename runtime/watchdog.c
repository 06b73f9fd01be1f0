/* SPDX-License-Identifier: MIT */
/*
 * watchdog.c - a thread that sees what the workers cannot say
 *
 * A task that computes, or blocks in a system call, without suspending keeps all others of
 * its worker waiting, and nothing on that worker can tell.  So a thread looks every 5 ms:
 *
 *      awake ---- all workers parked for a second ----> asleep on rt->watch_sleeps
 *        ^                                                  |
 *        +---- a worker unparks, and sees that word --------+        (loop.c, park)
 *
 * What it looks at are words that each step of a worker changes anyway: the fiber that runs,
 * the budget, the time of the last look around.  So a worker pays nothing, but for one load
 * when it unparks.  If they are the same as 5 ms ago, and a task or a callback runs, the
 * worker is stuck: after one such look rescue.c has others take over what waits there; and
 * after .slow_ns (100 ms) the task is reported, with the stack that it is in (sample.c),
 * again after ten times as long, and so on.  A task that forks (its deque's end moves)
 * computes on purpose, in parallel: rescued from, not reported.
 *
 * Time is counted in looks: a pause of the whole process or machine, in which this thread
 * does not run either, is nobody's fault.  Nor is it if a machine is so busy that the thread
 * did not get its processor: one that does not block must have used half of the limit.
 *
 * At most 5 reports at once and then one a second; the next one says how many were left out.
 * A report is written by a thread of its own, because the names of functions take long to
 * find, and the next look is in 5 ms.
 *
 * Deadlock.  Every worker is parked, with no timer, no operation, no message; the pool has
 * no job; tasks have begun and not ended; and so it was half a second ago, with nothing in
 * between.  Then no task can ever go on, unless a thread outside wakes one: so it is reported
 * once, with the whole tree, and nothing is done about it.
 *
 * SIGQUIT, if its disposition was the default: the handler counts; each watchdog of a
 * runtime that wants it sees that within 100 ms, and prints the tree.
 *
 * Cost (magpie-bench, off and on by turns, the best of 12): switch 11.7 and 11.7 ns, spawn 21.5
 * and 21.4, fib 3.31 and 3.31.  The thread itself takes 0.2 to 0.5 % of one processor while
 * workers run or have run in the last second, and nothing while all sleep.
 *
 * Rejected: a timer in each worker (a stuck one would not see it); CPU time limits by
 * setitimer (say nothing of a task that blocks); a counter that each switch increments (the
 * words above change anyway).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "watchdog.h"

#include "check.h"
#include "clock.h"
#include "inspect.h"
#include "mem.h"
#include "report.h"
#include "rescue.h"
#include "sample.h"
#include "symbol.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define TICK_NS     (5 * MAG_MS)
#define LINGER_NS   MAG_SECOND     /* it goes on looking for so long when all are parked */
#define SLOW_NS     (100 * MAG_MS) /* the default */
#define QUIT_NS     (100 * MAG_MS) /* how often it looks for SIGQUIT when all is quiet */
#define DEADLOCK_NS (500 * MAG_MS)
#define SAMPLE_NS   (50 * MAG_MS) /* it has others to look after */
#define REFILL_NS   MAG_SECOND    /* one more report may be made */

enum { REPORTS_MAX = 5, STILL_FACTOR = 10, TRIES_MAX = 3, TEXT_BYTES = 512 };

/* What changes when a worker gets on. */
struct look {
    const void *fiber;
    int budget;
    uint64_t polled_ticks;
    bool is_calling;
};

struct watched {
    struct look last;
    uint64_t bot;       /* end of its deque */
    mag_time stuck_ns;  /* since `last' has not changed, counted in looks */
    mag_time slow_ns;   /* ... nor bot */
    mag_time report_at; /* slow_ns at which the next report is due */
    mag_time cpu_from;  /* processor time of the thread when slow_ns began */
    unsigned n_tries;   /* its stack could not be read so often */
};

struct report;

struct mag_watchdog {
    struct mag_rt *rt;                /* [const] */
    mag_time slow_ns;                 /* [const] */
    bool wants_quit;                  /* [const] */
    bool has_thread;                  /* [const] */
    pthread_t thread;                 /* [const] */
    struct mag_sample *samples;       /* [const] of the workers; NULL */
    mag_atomic(uint32_t) is_stopping; /* [any] futex */
    uint32_t quits_seen;              /* [thread] all below too */
    mag_time looked_at;
    mag_time ran_at; /* when it last saw a worker that was not parked */
    mag_time quiet_since;
    uint64_t quiet_count;
    bool told_deadlock;
    unsigned n_tokens;
    mag_time refilled_at;
    unsigned n_left_out;
    struct report *report; /* being written by its thread, or done */
    struct watched workers[];
};

/* ---- reports, on a thread of their own -------------------------------------------- */

enum report_kind { SLOW_TASK, DEADLOCK, QUIT };

struct report {
    enum report_kind kind;
    struct mag_rt *rt;
    unsigned worker;
    mag_time slow_ns;
    bool is_again, is_callback;
    unsigned n_left_out;
    int sample_rc;
    struct mag_sample sample;
    pthread_t thread;
    mag_atomic(uint32_t) is_done;
};

static void say_duration(char *to, size_t room, mag_time ns)
{
    if (ns < MAG_SECOND)
        (void)mag_check_text(to, room, "%u ms", (unsigned)(ns / MAG_MS));
    else
        (void)mag_check_text(to, room, "%u.%u s", (unsigned)(ns / MAG_SECOND),
                             (unsigned)(ns % MAG_SECOND / (100 * MAG_MS)));
}

/* "(function 'f', spawned at file.c:200)", of which parts may be missing. */
static void say_origin(char *to, size_t room, const struct mag_sample *s)
{
    char place[160] = "";
    bool has_function = strcmp(s->name, s->function) != 0;

    if (s->site.file)
        (void)mag_check_text(place, sizeof place, "spawned at %s:%d", s->site.file, s->site.line);
    else if (s->made_at) {
        size_t n = mag_check_text(place, sizeof place, "created at ");
        mag_symbol_name(s->made_at, place + n, sizeof place - n);
    }
    *to = '\0';
    if (has_function && *place)
        (void)mag_check_text(to, room, " (now in '%s', %s)", s->function, place);
    else if (has_function)
        (void)mag_check_text(to, room, " (now in '%s')", s->function);
    else if (*place)
        (void)mag_check_text(to, room, " (%s)", place);
}

static void say_slow(const struct report *r)
{
    static const char blocked[] = "it blocks or computes where no other task of its worker can run";
    char line[512], time[32], origin[256];
    const struct mag_sample *s = &r->sample;
    const char *verb = r->is_callback ? "returned" : "suspended";

    say_duration(time, sizeof time, r->slow_ns);
    say_origin(origin, sizeof origin, s);
    if (r->sample_rc < 0)
        (void)mag_check_text(line, sizeof line,
                             "a task on worker %u has not suspended for %s; %s (its stack could "
                             "not be read: %s)",
                             r->worker, time, blocked, mag_err_name(r->sample_rc));
    else if (r->is_callback)
        (void)mag_check_text(line, sizeof line,
                             "a callback on worker %u %s not %s for %s; it is "
                             "here:",
                             r->worker, r->is_again ? "still has" : "has", verb, time);
    else
        (void)mag_check_text(line, sizeof line, "task '%s' %s not %s for %s%s; it is here:",
                             s->name[0] ? s->name : "?", r->is_again ? "still has" : "has", verb,
                             time, origin);
    mag_report_line(r->rt, line);
    if (r->sample_rc == 0)
        (void)mag_stack_trace_say(&s->trace, mag_report_line, r->rt);
    if (r->n_left_out) {
        (void)mag_check_text(line, sizeof line, "  (%u reports like this one were left out)",
                             r->n_left_out);
        mag_report_line(r->rt, line);
    }
}

static void *report_main(void *arg)
{
    struct report *r = arg;

    switch (r->kind) {
    case SLOW_TASK:
        say_slow(r);
        break;
    case DEADLOCK:
        mag_report_line(r->rt,
                        "every task waits, and nothing in this runtime can wake them: no timer, no "
                        "operation, no job is under way");
        (void)mag_dump_say(r->rt, mag_report_line, r->rt);
        break;
    case QUIT:
        (void)mag_dump_say(r->rt, mag_report_line, r->rt);
        break;
    }
    mag_store_release(&r->is_done, 1);
    return NULL;
}

static void join_report(struct mag_watchdog *d)
{
    if (d->report == NULL)
        return;
    (void)mag_sys_thread_join(d->report->thread);
    mag_mem_free(d->report);
    d->report = NULL;
}

/* Whether a report can be made now: one at a time. */
static bool can_report(struct mag_watchdog *d)
{
    if (d->report && mag_load_acquire(&d->report->is_done))
        join_report(d);
    return d->report == NULL;
}

/* Takes r over.  Without a thread for it it is written here. */
static void make_report(struct mag_watchdog *d, struct report *r)
{
    r->rt = d->rt;
    if (mag_sys_thread_start(&r->thread, report_main, r, "mag-report") == 0) {
        d->report = r;
        return;
    }
    (void)report_main(r);
    mag_mem_free(r);
}

/* ---- tasks that do not suspend ---------------------------------------------------- */

static bool take_token(struct mag_watchdog *d, mag_time now)
{
    while (d->n_tokens < REPORTS_MAX && now - d->refilled_at >= REFILL_NS) {
        d->refilled_at += REFILL_NS;
        d->n_tokens++;
    }
    if (d->n_tokens == REPORTS_MAX)
        d->refilled_at = now;
    if (d->n_tokens == 0)
        return false;
    d->n_tokens--;
    return true;
}

/* What the kernel says of a thread, a line; "" if it does not say.  Nor under TSan, which takes
 * a descriptor's number for the same that the ring has opened and closed unseen. */
static void read_proc(int tid, const char *file, char text[TEXT_BYTES])
{
    char path[64];
    ssize_t n = 0;
    int fd;

    (void)mag_check_text(path, sizeof path, "/proc/self/task/%d/%s", tid, file);
    fd = MAG_TSAN ? -ENOTSUP : mag_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        n = mag_sys_read(fd, text, TEXT_BYTES - 1);
        (void)mag_sys_close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
}

/* In a system call that waits, and so not in need of a processor. */
static bool is_blocked(struct mag_worker *w)
{
    char text[TEXT_BYTES];
    const char *state;

    read_proc(mag_load_acquire(&w->tid), "stat", text);
    state = strrchr(text, ')'); /* of its name */
    return state && (state[2] == 'S' || state[2] == 'D');
}

static bool is_its_fault(struct mag_worker *w, const struct watched *v)
{
    mag_time now = mag_clock_of_thread(mag_load_acquire(&w->tid));

    return MAG_TSAN || now == 0 || 2 * (now - v->cpu_from) >= v->report_at || is_blocked(w);
}

/* False: not now; ask again at the next look. */
static bool report_slow(struct mag_watchdog *d, struct mag_worker *w, struct watched *v)
{
    struct report *r = NULL;

    if (!can_report(d) || !is_its_fault(w, v))
        return false;
    if (!take_token(d, d->looked_at) || !(r = mag_mem_zalloc(sizeof *r))) {
        d->n_left_out++;
        return true;
    }
    r->kind = SLOW_TASK;
    r->worker = w->id + 1;
    r->slow_ns = v->report_at;
    r->is_again = v->report_at > d->slow_ns;
    r->is_callback = v->last.is_calling;
    r->n_left_out = d->n_left_out;
    r->sample_rc = mag_sample_take(w, &r->sample, SAMPLE_NS);
    if ((r->sample_rc == 0 && r->sample.fiber != v->last.fiber) ||
        (r->sample_rc == -ETIMEDOUT && ++v->n_tries < TRIES_MAX)) {
        mag_mem_free(r); /* it has suspended in this moment; or did not get to run */
        d->n_tokens++;
        return false;
    }
    d->n_left_out = 0;
    make_report(d, r);
    return true;
}

MAG_RACY static void look_at(const struct mag_worker *worker, struct look *out, uint64_t *bot)
{
    const volatile struct mag_worker *w = worker;

    out->fiber = w->fiber;
    out->budget = w->budget;
    out->polled_ticks = w->polled_ticks;
    out->is_calling = w->is_calling;
    *bot = mag_load_relaxed(&worker->deque.hot.bot);
}

static bool is_same(const struct look *a, const struct look *b)
{
    return a->fiber == b->fiber && a->budget == b->budget && a->polled_ticks == b->polled_ticks &&
           a->is_calling == b->is_calling;
}

/* A worker that is not parked, `passed' after the last look. */
static void watch(struct mag_watchdog *d, struct mag_worker *w, mag_time passed)
{
    struct watched *v = &d->workers[w->id];
    struct look now;
    uint64_t bot;

    look_at(w, &now, &bot);
    if ((now.fiber == NULL && !now.is_calling) || !is_same(&now, &v->last)) {
        *v = (struct watched){ .last = now, .bot = bot, .report_at = d->slow_ns };
        return;
    }
    v->stuck_ns += passed;
    if (bot != v->bot) {
        v->slow_ns = 0;
        v->bot = bot;
    } else {
        if (v->slow_ns == 0)
            v->cpu_from = mag_clock_of_thread(mag_load_acquire(&w->tid));
        v->slow_ns += passed;
    }
    if (v->stuck_ns >= TICK_NS)
        mag_rescue_worker(w);
    if (v->slow_ns >= v->report_at && report_slow(d, w, v))
        v->report_at *= STILL_FACTOR;
}

/* True if a worker is at work. */
static bool watch_all(struct mag_watchdog *d, mag_time passed)
{
    struct mag_rt *rt = d->rt;
    bool is_any_awake = false;

    for (unsigned i = 0; i < rt->n_workers; i++) {
        /* relaxed: a hint; it is looked at again soon */
        if (mag_load_relaxed(&rt->idle.sleepers[i].is_parked)) {
            d->workers[i] = (struct watched){ .report_at = d->slow_ns };
        } else {
            watch(d, &rt->workers[i], passed);
            is_any_awake |= rt->embed == NULL || d->workers[i].last.fiber != NULL;
        }
    }
    return is_any_awake;
}

/* ---- nothing can go on ------------------------------------------------------------ */

/* A job that runs, or is queued, will wake somebody. */
static bool is_pool_idle(struct mag_offload *o)
{
    bool is_idle = true;

    for (int i = 0; i < MAG_LANE_COUNT; i++) {
        struct mag_offload_lane *l = &o->lanes[i];
        uint32_t n = 0;

        pthread_mutex_lock(&l->lock);
        mag_list_foreach (link, &l->idle)
            n++;
        is_idle &= mag_list_empty(&l->queue) && n == mag_load_relaxed(&l->n_threads);
        pthread_mutex_unlock(&l->lock);
    }
    return is_idle;
}

/* With idle.lock held, every worker being parked: they took it after their last word. */
static bool is_worker_quiet(struct mag_worker *w)
{
    return mag_timers_count(&w->timers) == 0 && mag_ring_in_flight(w->ring) == 0 &&
           mag_inbox_empty(&w->inbox) && mag_deque_is_empty(&w->deque) && mag_fifo_empty(&w->ready);
}

/*
 * Whether every worker is parked with nothing to come, and tasks are alive.  *count changes
 * whenever one has begun, ended, or parked.
 */
static bool is_quiet(struct mag_rt *rt, uint64_t *count)
{
    uint64_t n_begun = mag_load_acquire(&rt->n_submitted), n_ended = 0;
    bool is_quiet = true;

    *count = 0;
    mag_spin_lock(&rt->idle.lock);
    if (mag_load_relaxed(&rt->idle.n_parked) != rt->n_workers ||
        mag_load_relaxed(&rt->n_injected) != 0)
        is_quiet = false;
    for (unsigned i = 0; i < rt->n_workers && is_quiet; i++) {
        n_begun += mag_load_acquire(&rt->workers[i].n_spawned);
        n_ended += mag_load_acquire(&rt->workers[i].n_ended);
        *count += mag_load_relaxed(&rt->workers[i].n_parks);
        is_quiet = is_worker_quiet(&rt->workers[i]);
    }
    mag_spin_unlock(&rt->idle.lock);
    *count += n_begun + n_ended;
    return is_quiet && n_begun != n_ended && is_pool_idle(&rt->offload);
}

static void look_for_deadlock(struct mag_watchdog *d, mag_time now)
{
    struct report *r;
    uint64_t count;

    if (d->told_deadlock || d->rt->embed)
        return;
    if (!is_quiet(d->rt, &count) || count != d->quiet_count) {
        d->quiet_since = now;
        d->quiet_count = count;
        return;
    }
    if (now - d->quiet_since < DEADLOCK_NS || !can_report(d) || !(r = mag_mem_zalloc(sizeof *r)))
        return;
    d->told_deadlock = true;
    r->kind = DEADLOCK;
    make_report(d, r);
}

/* ---- SIGQUIT ---------------------------------------------------------------------- */

static struct {
    struct mag_spin lock;
    unsigned n_users;             /* [lock] */
    bool is_installed;            /* [lock] */
    mag_atomic(uint32_t) n_quits; /* [any] */
} quit;

static void on_quit(int sig)
{
    (void)sig;
    mag_fetch_add(&quit.n_quits, 1);
}

/* Who handles SIGQUIT already, or ignores it, goes on doing so. */
static void use_quit(void)
{
    struct sigaction act = { .sa_handler = on_quit, .sa_flags = SA_RESTART }, old;

    mag_spin_lock(&quit.lock);
    if (quit.n_users++ == 0 && mag_sys_sigaction(SIGQUIT, NULL, &old) == 0 &&
        !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
        quit.is_installed = mag_sys_sigaction(SIGQUIT, &act, NULL) == 0;
    mag_spin_unlock(&quit.lock);
}

static void leave_quit(void)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };

    mag_spin_lock(&quit.lock);
    if (--quit.n_users == 0 && quit.is_installed) {
        (void)mag_sys_sigaction(SIGQUIT, &dfl, NULL);
        quit.is_installed = false;
    }
    mag_spin_unlock(&quit.lock);
}

static void look_for_quit(struct mag_watchdog *d)
{
    uint32_t n = mag_load_relaxed(&quit.n_quits); /* relaxed: nothing else is told by it */
    struct report *r;

    if (!d->wants_quit || n == d->quits_seen || !can_report(d) || !(r = mag_mem_zalloc(sizeof *r)))
        return;
    d->quits_seen = n;
    r->kind = QUIT;
    make_report(d, r);
}

/* ---- the thread ------------------------------------------------------------------- */

static bool is_stopping(struct mag_watchdog *d)
{
    return mag_load_seq(&d->is_stopping) != 0;
}

/* Until a worker unparks; or it is time to look for SIGQUIT. */
static void sleep_long(struct mag_watchdog *d)
{
    struct mag_rt *rt = d->rt;
    mag_time limit = d->wants_quit || rt->embed ? QUIT_NS : MAG_NEVER;

    mag_store_seq(&rt->watch_sleeps, 1);
    if (!is_stopping(d) && (rt->embed || mag_load_seq(&rt->idle.n_parked) == rt->n_workers))
        (void)mag_sys_futex_wait(&rt->watch_sleeps, 1, limit);
    mag_store_seq(&rt->watch_sleeps, 0);
    d->looked_at = mag_clock_now();
}

static void *watchdog_main(void *arg)
{
    struct mag_watchdog *d = arg;
    mag_time now, passed;
    sigset_t all;

    sigfillset(&all);
    (void)mag_sys_sigmask(SIG_BLOCK, &all, NULL);
    d->ran_at = d->looked_at = d->refilled_at = mag_clock_now();
    while (!is_stopping(d)) {
        now = mag_clock_now();
        passed = now - d->looked_at < 2 * TICK_NS ? now - d->looked_at : 2 * TICK_NS;
        d->looked_at = now;
        if (watch_all(d, passed))
            d->ran_at = now;
        else
            look_for_deadlock(d, now);
        look_for_quit(d);
        if (now - d->ran_at < LINGER_NS)
            (void)mag_sys_futex_wait(&d->is_stopping, 0, TICK_NS);
        else
            sleep_long(d);
    }
    join_report(d);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------- */

/* For who measures what it costs: MAGPIE_WATCHDOG=0. */
static bool is_wanted(void)
{
    const char *text = mag_sys_getenv("MAGPIE_WATCHDOG");

    return text == NULL || strcmp(text, "0") != 0;
}

/* MAG_NEVER: none is too slow. */
static mag_time slow_wanted(mag_time slow_ns)
{
    const char *text = mag_sys_getenv("MAGPIE_SLOW_MS");
    char *end = NULL;
    long ms;

    if (slow_ns != 0 || text == NULL || *text == '\0')
        return slow_ns != 0 ? slow_ns : SLOW_NS;
    ms = strtol(text, &end, 10);
    if (*end || ms < 0)
        return SLOW_NS;
    return ms == 0 || ms > MAG_NEVER / MAG_MS ? MAG_NEVER : ms * MAG_MS;
}

int mag_watchdog_start(struct mag_rt *rt, const struct mag_watchdog_options *options)
{
    mag_time slow_ns = slow_wanted(options->slow_ns);
    struct mag_watchdog *d;
    int rc = slow_ns < 0 ? -EINVAL : mag_rescue_install();

    if (rc < 0)
        return rc;
    d = mag_mem_zalloc(sizeof *d + rt->n_workers * sizeof d->workers[0]);
    if (d == NULL)
        return -ENOMEM;
    rt->watchdog = d;
    d->rt = rt;
    d->slow_ns = slow_ns;
    d->n_tokens = REPORTS_MAX;
    d->samples = mag_samples_new(rt);
    if (d->samples == NULL)
        rc = -ENOMEM;
    if (rc == 0 && is_wanted()) {
        d->wants_quit = options->dump_on_sigquit || rt->is_debug;
        d->quits_seen = mag_load_relaxed(&quit.n_quits); /* relaxed: as in look_for_quit */
        rc = mag_sys_thread_start(&d->thread, watchdog_main, d, "mag-watch");
        d->has_thread = rc == 0;
    }
    if (d->has_thread && d->wants_quit)
        use_quit();
    return rc;
}

void mag_watchdog_stop(struct mag_rt *rt)
{
    struct mag_watchdog *d = rt->watchdog;

    if (d == NULL || !d->has_thread)
        return;
    if (d->wants_quit)
        leave_quit();
    mag_store_seq(&d->is_stopping, 1);
    mag_store_seq(&rt->watch_sleeps, 0);
    mag_sys_futex_wake(&d->is_stopping, 1);
    mag_sys_futex_wake(&rt->watch_sleeps, 1);
    (void)mag_sys_thread_join(d->thread);
    d->has_thread = false;
}

void mag_watchdog_free(struct mag_rt *rt)
{
    struct mag_watchdog *d = rt->watchdog;

    if (d == NULL)
        return;
    mag_mem_free(d->samples);
    mag_mem_free(d);
    rt->watchdog = NULL;
}
