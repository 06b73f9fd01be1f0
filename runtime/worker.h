/* SPDX-License-Identifier: MIT */
#ifndef MAG_WORKER_H
#define MAG_WORKER_H
/*
 * worker.h - one worker: a thread, a ring, a deque, and the fibers whose home it is
 *
 * worker.c has what runs next and the one way to suspend, loop.c the thread; this file says
 * what others may do with a worker.  struct mag_rt is here because workers share it; rt.c
 * makes it.
 */
#include "idle.h"
#include "offload.h"
#include "rand.h"
#include "task.h"
#include "timers.h"

#include <errno.h>

#include <magpie/fork.h>

struct mag_worker {
    struct mag_deque deque;    /* first: mag_tls_hot points here                 */
    struct mag_fiber *fiber;   /* [owner] who runs; NULL: the loop               */
    struct mag_fiber *next;    /* [owner] readied last by a running task         */
    struct mag_fifo ready;     /* [owner] fibers, through link                   */
    int budget;                /* [owner] picks until the next look              */
    size_t ready_left;         /* [owner] of this generation, see pick           */
    bool owes_oldest;          /* [owner] the next start is of the oldest        */
    void (*commit)(void *arg); /* [owner] to be run on the stack switched to     */
    void *commit_arg;
    struct mag_fiber *idle_fibers; /* [owner] the one used last first                */
    size_t n_idle_fibers;
    bool is_without_stack;                /* [owner] the work that is run now must not suspend */
    struct mag_fiber *reserve;            /* [owner] for what must run when no stack is left */
    struct mag_context context;           /* [owner] the loop, on the thread's own stack    */
    struct mag_ring *ring;                /* [owner]                                        */
    struct mag_timers timers;             /* [owner]                                        */
    struct mag_fifo local;                /* [owner] messages: tasks that must start here   */
    struct mag_slab_cache slab;           /* [owner]                                        */
    struct mag_rand rand;                 /* [owner]                                        */
    mag_time polled_at;                   /* [owner] last look around: time                 */
    uint64_t polled_ticks;                /* [owner] the same in ticks                      */
    uint64_t poll_ticks;                  /* [owner] MAG_POLL_NS in ticks, as measured      */
    uint64_t woke_ticks;                  /* [owner] when it last rang for a sleeper        */
    mag_time stole_at;                    /* [owner] when it last stole                     */
    mag_time backoff;                     /* [owner] pause before it steals again           */
    struct mag_rt *rt;                    /* [const] */
    unsigned id;                          /* [const] */
    mag_atomic(uint64_t) n_spawned;       /* [owner writes, any reads] tasks begun here     */
    mag_atomic(uint64_t) n_ended;         /* [owner writes, any reads] tasks ended here     */
    MAG_CACHELINE struct mag_inbox inbox; /* [any] messages                             */
    /* [any] held while a fiber leaves for another home, and while its tasks are cancelled here */
    struct mag_spin move_lock;
    struct mag_message sweep;        /* cancels what rt->cancel_level says             */
    mag_atomic(uint32_t) sweep_sent; /* [any] it is under way                          */
    pthread_t thread;                /* [rt] */
    int start_rc;                    /* [owner], then [rt] */
};

enum mag_cancel_level { MAG_CANCEL_NONE, MAG_CANCEL_DETACHED, MAG_CANCEL_ALL };

struct mag_rt {
    struct mag_worker *workers;                  /* [const] */
    unsigned n_workers;                          /* [const] */
    size_t stack_bytes;                          /* [const] */
    struct mag_stacks stacks;                    /* [any]   */
    struct mag_idle idle;                        /* [any]   */
    struct mag_offload offload;                  /* [any]   */
    void (*report)(void *arg, const char *line); /* [const] */
    void *report_arg;                            /* [const] */
    mag_atomic(uint32_t) is_stopping;            /* [any]   */
    mag_atomic(uint32_t) is_draining;            /* [any]   */
    mag_atomic(uint32_t) cancel_level;           /* [any] enum mag_cancel_level */
    mag_atomic(uint32_t) progress;               /* [any] futex: drain looks again */
    mag_atomic(uint32_t) n_left;                 /* [any] futex: who is past the loop */
    mag_atomic(uint32_t) n_started;              /* [any] futex: workers that are up, or failed */
    mag_atomic(uint64_t) n_submitted;            /* [any] tasks begun by other threads */
    mag_atomic(uint32_t) n_outside;              /* [any] threads inside send or post */
    MAG_CACHELINE struct mag_spin inject_lock;
    mag_atomic(uint32_t) n_injected; /* [lock] read without it as a hint */
    struct mag_fifo inject;          /* [lock] messages for whoever comes first */
};

/* The calling thread's worker; NULL outside.  Never keep it across a suspension. */
static inline struct mag_worker *mag_worker_self(void)
{
    return (struct mag_worker *)mag_hot_();
}

/* The running fiber; NULL outside a task. */
static inline struct mag_fiber *mag_fiber_self(void)
{
    struct mag_worker *w = mag_worker_self();

    return w ? w->fiber : NULL;
}

/* ---- suspending (worker.c) -------------------------------------------------------- */

/*
 * Suspends the running fiber until somebody makes it ready.  `commit' (may be NULL)
 * runs after the switch, on the next stack: from there on the fiber may be found and
 * made ready, never before.  Comes back perhaps on another thread.
 */
void mag_worker_suspend(void (*commit)(void *arg), void *arg);

/* Lets the others run first.  0, or -ECANCELED at once; outside a task -ENXIO. */
int mag_worker_yield(void);

/* Makes a suspended fiber ready, once.  Any thread. */
void mag_worker_ready(struct mag_fiber *f);

/* Whether the running task, or whoever awaits it in place, is cancelled: the check of
 * a cancellation point.  The slow half looks at the chain, once for each new task. */
bool mag_worker_check_chain(struct mag_fiber *f);

static inline bool mag_worker_is_cancelled(struct mag_fiber *f)
{
    return MAG_UNLIKELY(f->is_unchecked | f->is_cancelled) && mag_worker_check_chain(f);
}

/* ---- work ---------------------------------------------------------------------------- */

/* Has m delivered by that worker, or by any.  Any thread. */
void mag_worker_send(struct mag_worker *w, struct mag_message *m);
void mag_worker_post(struct mag_rt *rt, struct mag_message *m);

/* A task of the current worker that may run anywhere, from now on. */
void mag_worker_push(struct mag_worker *w, struct mag_task *t);

/* mag_message.deliver of a task: starts it here. */
void mag_worker_deliver_task(struct mag_message *m, struct mag_worker *w);

/* Ends a task that this worker (NULL: a foreign thread) has run. */
void mag_worker_end(struct mag_worker *w, struct mag_task *t, int rc);

/* work.run of every task. */
void mag_worker_run_task(struct mag_work *work);

/* One holder less; the last one frees. */
void mag_worker_release_slow(struct mag_task *t);

static inline void mag_worker_release(struct mag_task *t)
{
    struct mag_worker *w = mag_worker_self();

    if (MAG_LIKELY(w != NULL && mag_load_acquire(&t->extra_refs) == 0 && t->trace == NULL &&
                   t->origin_kind != MAG_ORIGIN_INFO))
        mag_slab_free(&w->slab, &t->head);
    else
        mag_worker_release_slow(t);
}

/* Runs a task's body on this stack, as part of what runs; its rc.  Suspends. */
static inline int mag_worker_call(struct mag_fiber *f, struct mag_task *t)
{
    int rc = -ECANCELED;

    t->outer = f->current;
    t->fiber = f;
    mag_task_set_home(t, f->home);
    f->current = t;
    f->is_unchecked = true;
    if (MAG_LIKELY(!mag_load_relaxed(&t->is_cancelled)))
        rc = t->type->body(mag_task_frame(t), mag_task_result(t));
    f->current = t->outer;
    mag_task_set_idle(t, f->home);
    if (MAG_UNLIKELY(f->is_cancelled))
        f->is_cancelled = mag_task_chain_cancelled(f->current);
    return rc;
}

/* Room for a call in place. */
static MAG_ALWAYS_INLINE bool mag_fiber_has_room(const struct mag_fiber *f)
{
    return (char *)__builtin_frame_address(0) > f->floor;
}

/* ---- for the loop (loop.c) ------------------------------------------------------------- */

/* The fiber to run now; NULL: none, or it is time to look around. */
struct mag_fiber *mag_worker_pick(struct mag_worker *w);

/* Runs it, and what is ready after it.  Returns to the loop's own stack. */
void mag_worker_run(struct mag_worker *w, struct mag_fiber *f);

/* Puts a work on a fiber; NULL if it needs none, or there is no memory for one. */
struct mag_fiber *mag_worker_start(struct mag_worker *w, struct mag_work *work);

bool mag_worker_has_work(const struct mag_worker *w);

/* Gives ready fibers to hungry workers, if there are many. */
void mag_worker_give_away(struct mag_worker *w);

/* Wakes who waits for the runtime to drain. */
void mag_worker_progress(struct mag_rt *rt);

/* Makes the reserve fiber; -ENOMEM.  Frees it and all idle ones. */
int mag_worker_reserve(struct mag_worker *w);
void mag_worker_end_fibers(struct mag_worker *w);

#endif
