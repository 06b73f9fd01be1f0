/* SPDX-License-Identifier: MIT */
/*
 * ring_threads.c - threads for operations that block and cannot be polled
 *
 * Reading a file that is not cached, opening, fsync: epoll(7) knows nothing of them, and on
 * the owner's thread they would stop all its tasks.  io_uring has kernel threads for them;
 * here are ours:
 *
 *      add ---> the ring's queue --+
 *      add ---> another's  --------+--> rings in turn --> a thread: run --> finished, wake
 *
 * One pool for the process, because rings seldom all read files at the same time.  Rings that
 * have jobs take turns, so that one with thousands does not hold up the others.
 *
 * Invariants
 *   1. A ring is in `rings' if and only if it has queued jobs.
 *   2. An operation is in `queued' until a thread takes it, then on no list, then in
 *      `finished': so whether it has begun is whether it is still found in `queued'.
 *   3. If a job is queued there is a thread that will look at the queue.
 *   4. A ring is woken with the pool locked: when its owner has taken the last operation and
 *      comes to close it, nobody is still about to ring it.
 *
 * Threads start when there are more jobs than idle threads, up to THREADS_MAX, and stay until
 * the last ring closes.  They block all signals, SIGPIPE included: what a write to a
 * broken pipe answers is enough.
 *
 * Who may call: see ring_threads.h.  Ordering: the lock.
 *
 * Rejected: the offload pool (a higher layer; and its lanes are the user's to fill up, while
 * this must go on); a pool for each ring (256 workers would have 1,000 threads); ending idle
 * threads early (a fallback need not be that frugal).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring_threads.h"

#include "check.h"
#include "sys.h"

#include <pthread.h>
#include <signal.h>

/* Many, because opening a FIFO may hold one for as long as it likes. */
enum { THREADS_MAX = 64 };

static struct {
    pthread_mutex_t life; /* held to open and close; before `lock' */
    unsigned n_rings;     /* [life] */

    pthread_mutex_t lock;
    pthread_cond_t work;            /* [lock] something is queued, or is_ending */
    struct mag_list rings;          /* [lock] with queued jobs, the next one first */
    unsigned n_queued;              /* [lock] in all of them */
    unsigned n_idle;                /* [lock] threads that wait */
    unsigned n_threads;             /* [lock] */
    bool is_ending;                 /* [lock] */
    pthread_t threads[THREADS_MAX]; /* [lock] the first n_threads */
} pool = { .life = PTHREAD_MUTEX_INITIALIZER,
           .lock = PTHREAD_MUTEX_INITIALIZER,
           .work = PTHREAD_COND_INITIALIZER,
           .rings = { &pool.rings, &pool.rings } };

bool mag_ring_fifo_remove(struct mag_fifo *f, struct mag_op *op)
{
    struct mag_fifo_node *before = NULL;

    for (struct mag_fifo_node *it = f->head; it; before = it, it = it->next) {
        if (it != &op->link)
            continue;
        if (before == NULL)
            return mag_fifo_pop_front(f) != NULL;
        before->next = it->next;
        if (f->tail == it)
            f->tail = before;
        f->count--;
        return true;
    }
    return false;
}

/* ---- with the pool locked ---------------------------------------------------------- */

static void finished(struct mag_ring_jobs *jobs, struct mag_op *op)
{
    mag_fifo_push_back(&jobs->finished, &op->link);
    mag_store_release(&jobs->n_finished, (uint32_t)jobs->finished.count);
    jobs->wake(jobs);
}

static void left_the_queue(struct mag_ring_jobs *jobs)
{
    pool.n_queued--;
    if (mag_fifo_empty(&jobs->queued))
        mag_list_remove(&jobs->link);
}

/* The next job, of the ring whose turn it is. */
static struct mag_op *next(struct mag_ring_jobs **of)
{
    struct mag_list *link = mag_list_pop_front(&pool.rings);
    struct mag_op *op;

    if (link == NULL)
        return NULL;
    *of = mag_container_of(link, struct mag_ring_jobs, link);
    op = mag_container_of(mag_fifo_pop_front(&(*of)->queued), struct mag_op, link);
    mag_list_push_back(&pool.rings, link);
    left_the_queue(*of);
    return op;
}

static void *work(void *arg)
{
    struct mag_ring_jobs *jobs = NULL;
    struct mag_op *op;

    pthread_mutex_lock(&pool.lock);
    while (!pool.is_ending) {
        op = next(&jobs);
        if (op == NULL) {
            pool.n_idle++;
            pthread_cond_wait(&pool.work, &pool.lock);
            pool.n_idle--;
            continue;
        }
        pthread_mutex_unlock(&pool.lock);
        jobs->run(op);
        pthread_mutex_lock(&pool.lock);
        finished(jobs, op);
    }
    pthread_mutex_unlock(&pool.lock);
    return arg;
}

static void start_thread(void)
{
    sigset_t all, before;

    sigfillset(&all);
    if (mag_sys_sigmask(SIG_SETMASK, &all, &before) < 0)
        return;
    if (mag_sys_thread_start(&pool.threads[pool.n_threads], work, NULL, "mag-ring") == 0)
        pool.n_threads++;
    (void)mag_sys_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- jobs ----------------------------------------------------------------------------- */

static void enqueue(struct mag_ring_jobs *jobs, struct mag_op *op)
{
    mag_fifo_push_back(&jobs->queued, &op->link);
    pool.n_queued++;
    if (mag_list_empty(&jobs->link))
        mag_list_push_back(&pool.rings, &jobs->link);
    pthread_cond_signal(&pool.work);
}

void mag_ring_jobs_add(struct mag_ring_jobs *jobs, struct mag_op *op)
{
    bool has_threads;

    pthread_mutex_lock(&pool.lock);
    if (pool.n_queued >= pool.n_idle && pool.n_threads < THREADS_MAX)
        start_thread();
    has_threads = pool.n_threads > 0;
    if (has_threads)
        enqueue(jobs, op);
    pthread_mutex_unlock(&pool.lock);
    if (has_threads)
        return;
    jobs->run(op);
    pthread_mutex_lock(&pool.lock);
    finished(jobs, op);
    pthread_mutex_unlock(&pool.lock);
}

bool mag_ring_jobs_drop(struct mag_ring_jobs *jobs, struct mag_op *op)
{
    bool was_queued;

    pthread_mutex_lock(&pool.lock);
    was_queued = mag_ring_fifo_remove(&jobs->queued, op);
    if (was_queued)
        left_the_queue(jobs);
    pthread_mutex_unlock(&pool.lock);
    return was_queued;
}

void mag_ring_jobs_take(struct mag_ring_jobs *jobs, struct mag_fifo *to)
{
    pthread_mutex_lock(&pool.lock);
    mag_fifo_splice(to, &jobs->finished);
    mag_store_relaxed(&jobs->n_finished, 0); /* relaxed: the lock orders it */
    pthread_mutex_unlock(&pool.lock);
}

/* ---- life ------------------------------------------------------------------------------- */

void mag_ring_jobs_open(struct mag_ring_jobs *jobs)
{
    mag_list_init(&jobs->link);
    mag_fifo_init(&jobs->queued);
    mag_fifo_init(&jobs->finished);
    jobs->n_finished = 0;
    pthread_mutex_lock(&pool.life);
    pool.n_rings++;
    pthread_mutex_unlock(&pool.life);
}

/* With `life' held, so nobody adds a job. */
static void end_threads(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.is_ending = true;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    for (; pool.n_threads > 0; pool.n_threads--)
        (void)mag_sys_thread_join(pool.threads[pool.n_threads - 1]);
    pool.is_ending = false;
}

void mag_ring_jobs_close(struct mag_ring_jobs *jobs)
{
    pthread_mutex_lock(&pool.life);
    pthread_mutex_lock(&pool.lock); /* whoever wakes this ring is past it: invariant 4 */
    MAG_CHECK(mag_fifo_empty(&jobs->queued) && mag_fifo_empty(&jobs->finished));
    pthread_mutex_unlock(&pool.lock);
    if (--pool.n_rings == 0)
        end_threads();
    pthread_mutex_unlock(&pool.life);
}
