/* SPDX-License-Identifier: MIT */
#ifndef MAG_OFFLOAD_H
#define MAG_OFFLOAD_H
/*
 * offload.h - threads for calls that must block
 *
 * Directories, name lookup and what the user hands to mag_to_thread() run here, on
 * threads that start when they are needed.  It knows nothing of tasks: a job is two
 * functions.  offload.c tells how it works.
 *
 * Who may call: submit and cancel any thread, also a job; init and fini whoever owns
 * the pool.  None waits for a job but fini.
 */
#include "atomic.h"
#include "list.h"

#include <pthread.h>

/* Lanes have threads of their own, so that one that is full delays no other. */
enum mag_lane {
    MAG_LANE_FILES,
    MAG_LANE_RESOLVER,
    MAG_LANE_USER,
    MAG_LANE_COUNT,
};

struct mag_job {
    struct mag_list link;           /* [lane lock] in the queue */
    void (*run)(struct mag_job *);  /* [const] the call that blocks; on a pool thread */
    void (*done)(struct mag_job *); /* [const] after run, there too; may free the job */
    uint8_t lane;                   /* [const from submit on] enum mag_lane */
    bool is_queued;                 /* [lane lock] no thread has it yet */
};

struct mag_offload_thread;

struct mag_offload_lane {
    MAG_CACHELINE pthread_mutex_t lock;             /* held for a few instructions, or while
                                                     * a thread starts */
    struct mag_list queue;                          /* [lock] jobs, oldest first */
    struct mag_list idle;                           /* [lock] threads, latest idle first */
    mag_atomic(struct mag_offload_thread *) newest; /* [lock writes, any reads] may spin */
    mag_atomic(uint32_t) n_threads;                 /* [lock] that will look at the queue */
    uint32_t n_threads_max;                         /* [const] */
    mag_time spin_ns;                               /* [const] before an idle thread sleeps */
    mag_time idle_ns;                               /* [const] after which it ends */
    pthread_t ended;                                /* [lock] ended last, not yet joined */
    bool has_ended;                                 /* [lock] */
    bool is_stopping;                               /* [lock] */
};

struct mag_offload {
    struct mag_offload_lane lanes[MAG_LANE_COUNT];
};

static inline void mag_job_init(struct mag_job *job, void (*run)(struct mag_job *),
                                void (*done)(struct mag_job *))
{
    mag_list_init(&job->link);
    job->run = run;
    job->done = done;
    job->is_queued = false;
}

/*
 * Starts no thread yet.  A lane has at most n_threads_max of them: 0 means as many as
 * there are processors but at least 4; MAG_OFFLOAD_THREADS_MAX is the most.
 */
void mag_offload_init(struct mag_offload *o, unsigned n_threads_max);

/*
 * Runs job->run, then job->done, on a thread of that lane; in the order of submission
 * if the lane has one thread.  From here to done the job is the pool's; done is the
 * last that the pool does with it.  -EAGAIN, or what else kept a thread from starting,
 * if the lane has no thread at all; then the job is the caller's again.
 */
MAG_MUST_USE int mag_offload_submit(struct mag_offload *o, enum mag_lane lane, struct mag_job *job);

/*
 * True: no thread had taken the job, none will, and done is not called.  False: it
 * runs, or is done.  Only for who knows that the job's memory is still there.
 */
bool mag_offload_cancel(struct mag_offload *o, struct mag_job *job);

/*
 * Waits for the jobs that run and ends all threads.  Nothing may be queued, and
 * nobody may submit any more.
 */
void mag_offload_fini(struct mag_offload *o);

#endif
