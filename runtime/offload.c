/* SPDX-License-Identifier: MIT */
/*
 * offload.c - threads for calls that must block
 *
 * Some calls have no asynchronous form: reading a directory, looking up a name,
 * a user's library.  On a worker they would stop every task of that worker, so they
 * run here.  There is one pool in three lanes with their own threads and limits; a
 * name server that does not answer uses up the resolver's lane, while files go on.
 *
 *      submit --- a thread idles ------------------------> handed to it
 *         |                                                    ^
 *         +------ none idles: queue, and start one more        | its next job
 *                 thread if the limit allows -------------> a busy thread
 *
 * A job is handed to an idle thread directly, and to the one that became idle last:
 * its stack is warm, and those at the end of the list stay idle long enough to end.
 * An idle thread waits on a word of its own:
 *
 *      SPINNING --- a few us without a call ---> ASLEEP     (the thread, CAS)
 *          |                                       |
 *          +-------------> CALLED <----------------+        (the submitter, exchange)
 *
 * and who calls enters the kernel only if the word said ASLEEP.  Only the thread that
 * became idle last spins, so at most one for each lane burns a processor.
 *
 * Invariants
 *   1. If a thread is on the idle list, no job is queued.
 *   2. If a job is queued, the lane has a thread that will look at the queue.
 *   3. After done() the pool does not touch the job: it may lie on the stack of a
 *      task that runs on meanwhile.
 *   4. A thread that ends joins the one that ended before it, so at most one ended
 *      thread for each lane is unjoined, and whoever joins the last has joined all.
 *
 * Ordering.  The lane's lock orders everything but the word's exchange, which
 * publishes the job handed over to the thread that waits for it.
 *
 * Rejected
 *   - one queue and a condition variable: wakes more threads than there are jobs, and
 *     who is called must find the lock free first;
 *   - starting threads outside the lock: a start that fails would have to find out
 *     who relied on it;
 *   - lanes that lend each other threads: then the one that is full wins again.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "offload.h"

#include "check.h"
#include "clock.h"
#include "cpus.h"
#include "sys.h"

#include <errno.h>
#include <signal.h>

enum {
    THREADS_DEFAULT_MIN = 4,
    /* Covers the way from a job's end to the task and to its next job.  Round trips that
     * find the thread spinning take 1 us, others 20-40. */
    SPIN_NS = 20 * 1000,
    /* Looks at the word between two looks at the clock. */
    SPIN_LOOKS = 16,
};

#define IDLE_NS (10 * MAG_SECOND)

enum word {
    SPINNING,
    ASLEEP,
    CALLED,
};

/* A thread of a lane; lies on its own stack. */
struct mag_offload_thread {
    struct mag_offload_lane *lane; /* [const] */
    struct mag_list link;          /* [lane lock] on the idle list */
    struct mag_job *job;           /* [lane lock] handed over; NULL: the pool stops */
    mag_atomic(uint32_t) word;     /* [any] enum word */
    pthread_t before;              /* [own] ended before this one */
    bool has_before;               /* [own] */
};

/* ---- idle threads -------------------------------------------------------------- */

/*
 * After the exchange the thread may be gone.  The wake then names an address where
 * nothing, or some later thread, sleeps; who sleeps expects to be woken for nothing.
 */
static void call(struct mag_offload_thread *t)
{
    if (mag_xchg(&t->word, CALLED) == ASLEEP)
        (void)mag_sys_futex_wake(&t->word, 1);
}

static bool is_called(struct mag_offload_thread *t)
{
    return mag_load_acquire(&t->word) == CALLED;
}

static void spin(struct mag_offload_thread *t)
{
    mag_time end = mag_clock_now() + t->lane->spin_ns;

    /* relaxed: only whether to go on spinning depends on it */
    while (mag_load_relaxed(&t->lane->newest) == t && mag_clock_now() < end) {
        for (int i = 0; i < SPIN_LOOKS; i++) {
            if (is_called(t))
                return;
            mag_cpu_relax();
        }
    }
}

/* Sleeps until called or until idle for too long. */
static void await_call(struct mag_offload_thread *t)
{
    mag_time end = mag_clock_now() + t->lane->idle_ns;
    mag_time now;
    uint32_t word = SPINNING;

    if (t->lane->spin_ns)
        spin(t);
    (void)mag_cas(&t->word, &word, ASLEEP);
    while (!is_called(t) && (now = mag_clock_now()) < end)
        (void)mag_sys_futex_wait(&t->word, ASLEEP, end - now);
}

/*
 * Under the lock: the last thread stays however long it idles, and so does one that a
 * submitter has taken off the list and is about to call.
 */
static bool must_wait(struct mag_offload_thread *t)
{
    /* relaxed: it changes under the lock only */
    bool is_last = mag_load_relaxed(&t->lane->n_threads) == 1;

    return !is_called(t) && (is_last || mag_list_empty(&t->link));
}

/* Under the lock, which it lets go of meanwhile.  What it was called for, or NULL. */
static struct mag_job *idle(struct mag_offload_thread *t)
{
    struct mag_offload_lane *lane = t->lane;

    t->job = NULL;
    mag_store_relaxed(&t->word, SPINNING);
    mag_list_push_front(&lane->idle, &t->link);
    mag_store_relaxed(&lane->newest, t);
    do {
        pthread_mutex_unlock(&lane->lock);
        await_call(t);
        pthread_mutex_lock(&lane->lock);
    } while (must_wait(t));
    mag_list_remove(&t->link);
    return t->job;
}

/* ---- a thread's life ------------------------------------------------------------ */

static struct mag_job *pop_queued(struct mag_offload_lane *lane)
{
    struct mag_list *link = mag_list_pop_front(&lane->queue);
    struct mag_job *job;

    if (!link)
        return NULL;
    job = mag_container_of(link, struct mag_job, link);
    job->is_queued = false;
    return job;
}

/* Under the lock: from now on nobody counts on this thread. */
static void retire(struct mag_offload_thread *t)
{
    struct mag_offload_lane *lane = t->lane;

    mag_fetch_sub(&lane->n_threads, 1);
    t->before = lane->ended;
    t->has_before = lane->has_ended;
    lane->ended = pthread_self();
    lane->has_ended = true;
}

/* NULL: the thread has retired. */
static struct mag_job *next_job(struct mag_offload_thread *t)
{
    struct mag_offload_lane *lane = t->lane;
    struct mag_job *job;

    pthread_mutex_lock(&lane->lock);
    job = pop_queued(lane);
    if (!job && !lane->is_stopping)
        job = idle(t);
    if (!job)
        retire(t);
    pthread_mutex_unlock(&lane->lock);
    return job;
}

/*
 * The program's signals are for the program's threads: here they would interrupt
 * calls that need not expect it.  Faults must stay, and so may a profiler.
 */
static void block_signals(void)
{
    static const int kept[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGPROF };
    sigset_t set;

    (void)sigfillset(&set);
    for (size_t i = 0; i < MAG_ARRAY_SIZE(kept); i++)
        (void)sigdelset(&set, kept[i]);
    (void)mag_sys_sigmask(SIG_SETMASK, &set, NULL);
}

static void *thread_main(void *arg)
{
    struct mag_offload_thread t = { .lane = arg };
    struct mag_job *job;

    block_signals();
    while ((job = next_job(&t)) != NULL) {
        job->run(job);
        job->done(job); /* inv3 */
    }
    if (t.has_before)
        (void)mag_sys_thread_join(t.before);
    (void)mag_sys_futex_wake(&t.lane->n_threads, 1);
    return NULL;
}

/* ---- the lanes ------------------------------------------------------------------ */

static void lane_init(struct mag_offload_lane *lane, unsigned n_threads_max, mag_time spin_ns)
{
    MAG_CHECK(pthread_mutex_init(&lane->lock, NULL) == 0);
    mag_list_init(&lane->queue);
    mag_list_init(&lane->idle);
    mag_store_relaxed(&lane->newest, NULL);
    mag_store_relaxed(&lane->n_threads, 0);
    lane->n_threads_max = n_threads_max;
    lane->spin_ns = spin_ns;
    lane->idle_ns = IDLE_NS;
    lane->has_ended = false;
    lane->is_stopping = false;
}

void mag_offload_init(struct mag_offload *o, unsigned n_threads_max)
{
    unsigned n_cpus = (unsigned)mag_cpus_allowed();

    if (n_threads_max == 0)
        n_threads_max = n_cpus > THREADS_DEFAULT_MIN ? n_cpus : THREADS_DEFAULT_MIN;
    if (n_threads_max > MAG_OFFLOAD_THREADS_MAX)
        n_threads_max = MAG_OFFLOAD_THREADS_MAX;
    for (int i = 0; i < MAG_LANE_COUNT; i++)
        /* On one processor a spin keeps away the very thread it waits for. */
        lane_init(&o->lanes[i], n_threads_max, n_cpus > 1 ? SPIN_NS : 0);
}

static struct mag_offload_thread *pop_idle(struct mag_offload_lane *lane)
{
    struct mag_list *link = mag_list_pop_front(&lane->idle);

    return link ? mag_container_of(link, struct mag_offload_thread, link) : NULL;
}

static int start_thread(struct mag_offload_lane *lane)
{
    pthread_t handle; /* the thread leaves its own when it retires */
    int rc = mag_sys_thread_start(&handle, thread_main, lane, "mag-offload");

    if (rc == 0)
        mag_fetch_add(&lane->n_threads, 1);
    return rc;
}

/* Under the lock.  Queues the job, unless no thread would ever look at it (inv2). */
static int enqueue(struct mag_offload_lane *lane, struct mag_job *job)
{
    int rc = 0;

    /* relaxed: it changes under the lock only */
    if (mag_load_relaxed(&lane->n_threads) < lane->n_threads_max)
        rc = start_thread(lane);
    if (mag_load_relaxed(&lane->n_threads) == 0)
        return rc;
    mag_list_push_back(&lane->queue, &job->link);
    job->is_queued = true;
    return 0;
}

int mag_offload_submit(struct mag_offload *o, enum mag_lane which, struct mag_job *job)
{
    struct mag_offload_lane *lane = &o->lanes[which];
    struct mag_offload_thread *idler;
    int rc = 0;

    job->lane = (uint8_t)which;
    pthread_mutex_lock(&lane->lock);
    MAG_CHECK(!lane->is_stopping);
    idler = pop_idle(lane);
    if (idler)
        idler->job = job;
    else
        rc = enqueue(lane, job);
    pthread_mutex_unlock(&lane->lock);
    if (idler)
        call(idler);
    return rc;
}

bool mag_offload_cancel(struct mag_offload *o, struct mag_job *job)
{
    struct mag_offload_lane *lane = &o->lanes[job->lane];
    bool was_queued;

    pthread_mutex_lock(&lane->lock);
    was_queued = job->is_queued;
    if (was_queued) {
        mag_list_remove(&job->link);
        job->is_queued = false;
    }
    pthread_mutex_unlock(&lane->lock);
    return was_queued;
}

static void lane_fini(struct mag_offload_lane *lane)
{
    struct mag_offload_thread *idler;
    uint32_t n;

    pthread_mutex_lock(&lane->lock);
    MAG_CHECK(mag_list_empty(&lane->queue));
    lane->is_stopping = true;
    while ((idler = pop_idle(lane)) != NULL)
        call(idler);
    while ((n = mag_load_relaxed(&lane->n_threads)) != 0) {
        pthread_mutex_unlock(&lane->lock);
        (void)mag_sys_futex_wait(&lane->n_threads, n, MAG_NEVER);
        pthread_mutex_lock(&lane->lock);
    }
    pthread_mutex_unlock(&lane->lock);
    if (lane->has_ended)
        (void)mag_sys_thread_join(lane->ended); /* and so all before it: inv4 */
    (void)pthread_mutex_destroy(&lane->lock);
}

void mag_offload_fini(struct mag_offload *o)
{
    for (int i = 0; i < MAG_LANE_COUNT; i++)
        lane_fini(&o->lanes[i]);
}
