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
#include "vars.h"

#include <errno.h>

#include <magpie/fork.h>

struct mag_sample;
struct mag_watchdog;

struct mag_worker {
    struct mag_deque deque; /* first: mag_tls_hot points here                 */
    /* [owner writes, any reads as a hint] who runs; NULL: the loop */
    mag_atomic(struct mag_fiber *) fiber;
    struct mag_fiber *next;    /* [owner] readied last by a running task         */
    struct mag_fifo ready;     /* [owner] fibers, through link                   */
    mag_atomic(int) budget;    /* [owner writes, any reads] picks until the next look */
    size_t ready_left;         /* [owner] of this generation, see pick           */
    bool owes_oldest;          /* [owner] the next start is of the oldest        */
    void (*commit)(void *arg); /* [owner] to be run on the stack switched to     */
    void *commit_arg;
    struct mag_fiber *idle_fibers; /* [owner] the one used last first                */
    size_t n_idle_fibers;
    bool is_without_stack;        /* [owner] the work that is run now must not suspend */
    struct mag_fiber *reserve;    /* [owner] for what must run when no stack is left */
    struct mag_context context;   /* [owner] the loop, on the thread's own stack    */
    struct mag_ring *ring;        /* [owner]                                        */
    struct mag_timers timers;     /* [owner]                                        */
    struct mag_fifo local;        /* [owner] messages: tasks that must start here   */
    struct mag_slab_cache slab;   /* [owner]                                        */
    struct mag_rand rand;         /* [owner]                                        */
    mag_time polled_at;           /* [owner] last look around: time                 */
    uint64_t polled_ticks;        /* [owner] the same in ticks                      */
    uint64_t poll_ticks;          /* [owner] MAG_POLL_NS in ticks, as measured      */
    uint64_t woke_ticks;          /* [owner] when it last rang for a sleeper        */
    mag_time stole_at;            /* [owner] when it last stole                     */
    mag_time backoff;             /* [owner] pause before it steals again           */
    struct mag_fifo calls;        /* [owner] callbacks that are wanted soon         */
    struct mag_timer calls_timer; /* [owner] armed while there are any              */
    struct mag_vars *call_vars;   /* [owner] of the callback that runs              */
    bool is_calling;              /* [owner] in a callback (call.c)                 */
    uint64_t n_done;              /* [owner] runs, completions, timers: for a step  */
    bool is_debug;                /* [owner] as the runtime's */
    struct mag_rt *rt;            /* [const] */
    unsigned id;                  /* [const] */
    /* [owner] its thread is in the library, at what a rescuer would touch */
    mag_atomic(uint32_t) is_inside;
    mag_atomic(uint32_t) is_rescued;  /* [any, by CAS] a rescuer wants, or has, the owner's place */
    struct mag_inbox_node *kept;      /* [owner] messages that a rescuer has left, oldest first */
    struct mag_message rescue;        /* asks any other worker to rescue this one */
    mag_atomic(uint32_t) rescue_sent; /* [any] it is under way */
    mag_atomic(uint64_t) n_spawned;   /* [owner writes, any reads] tasks begun here     */
    mag_atomic(uint64_t) n_ended;     /* [owner writes, any reads] tasks ended here     */
    mag_atomic(uint64_t) n_steals;    /* [owner writes, any reads] for statistics       */
    mag_atomic(uint64_t) n_parks;     /* [owner writes, any reads] the same             */
    MAG_CACHELINE struct mag_inbox inbox; /* [any] messages                             */
    /* [any] held while a fiber leaves for another home, and while its tasks are cancelled here */
    struct mag_spin move_lock;
    mag_atomic(bool) is_cancelling;         /* [move_lock writes] a cancel is at work */
    struct mag_message sweep;               /* cancels what rt->cancel_level says             */
    mag_atomic(uint32_t) sweep_sent;        /* [any] it is under way                          */
    pthread_t thread;                       /* [rt] */
    mag_atomic(struct mag_sample *) sample; /* [rt, any] for who looks at its stack (sample.c) */
    mag_atomic(int) tid; /* [owner, then any] of the thread, for signals; 0: none yet */
    int start_rc;        /* [owner], then [rt] */
};

enum mag_cancel_level { MAG_CANCEL_NONE, MAG_CANCEL_DETACHED, MAG_CANCEL_ALL };

/* Whether callbacks run: put off while a runtime finds out if it is over; then dropped. */
enum mag_closing { MAG_CLOSING_NOT, MAG_CLOSING_ASKED, MAG_CLOSED };

struct mag_embed;

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
    mag_atomic(uint32_t) is_closing;             /* [any] enum mag_closing */
    struct mag_embed *embed;                     /* [const] stepped by its owner (embed.c); NULL */
    bool keep_sigint;                            /* [const] */
    bool is_debug;                               /* [const] */
    struct mag_watchdog *watchdog;               /* [rt] NULL: none (watchdog.c) */
    mag_atomic(uint32_t) watch_sleeps;           /* [any] futex: it sleeps, all being parked */
    mag_atomic(uint32_t) progress;               /* [any] futex: drain looks again */
    mag_atomic(uint32_t) n_left;                 /* [any] futex: who is past the loop */
    mag_atomic(uint32_t) n_swept;                /* [any] futex: workers with no message left */
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

/* ---- the owner's place (rescue.c) --------------------------------------------------- */

/*
 * Around what only the owner touches and a rescuer may: ready queue, timers, ring.  The
 * loop is inside all the time, a fiber while it suspends, readies, arms or submits; user code
 * never.  Two stores and a look: the fence between them is the rescuer's (rescue.c).  enter
 * returns what leave puts back, so that they nest.
 */
void mag_worker_enter_slow(struct mag_worker *w);

static inline uint32_t mag_worker_enter(struct mag_worker *w)
{
    uint32_t was = mag_load_relaxed(&w->is_inside);

    mag_store_relaxed(&w->is_inside, 1);
    mag_compiler_barrier(); /* (J) pairs with rescue.c (J): its membarrier */
    if (MAG_UNLIKELY(mag_load_acquire(&w->is_rescued)) && was == 0)
        mag_worker_enter_slow(w);
    return was;
}

static inline void mag_worker_leave(struct mag_worker *w, uint32_t was)
{
    mag_store_release(&w->is_inside, was);
}

/* The number of the worker that the caller runs on, from 0: for what each of them has a share of.
 * 0 elsewhere, too. */
MAG_MODULE unsigned mag_worker_number(void);

/* The task-local variables of what runs: a task's, a callback's; NULL. */
static inline struct mag_vars *mag_worker_vars(void)
{
    struct mag_worker *w = mag_worker_self();

    return w == NULL ? NULL : w->fiber ? w->fiber->vars : w->call_vars;
}

/* ---- suspending (worker.c) -------------------------------------------------------- */

/*
 * Suspends the running fiber until somebody makes it ready.  `commit' (may be NULL)
 * runs after the switch, on the next stack: from there on the fiber may be found and
 * made ready, never before.  Comes back perhaps on another thread.
 */
void mag_worker_suspend(void (*commit)(void *arg), void *arg);

/*
 * Suspends as mag_worker_suspend, and runs a suspended fiber whose home this worker is, at
 * once: what is ready waits, unless it is time to look around.
 */
void mag_worker_hand_over(struct mag_fiber *to);

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

/* The fiber, suspended, has a new home.  By who alone may find it; from a rescue, or by who
 * makes it ready. */
void mag_worker_move(struct mag_worker *w, struct mag_fiber *f);

/* The same to the calling worker, if nothing binds the fiber to its home. */
void mag_worker_adopt(struct mag_fiber *f);

/* The message of a fiber that was made ready elsewhere, or NULL if m is something else. */
struct mag_fiber *mag_worker_fiber_of(struct mag_message *m);

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
                   t->ext == NULL))
        mag_slab_free(&w->slab, &t->head);
    else
        mag_worker_release_slow(t);
}

/* The body has returned without leaving its scopes: they go with its frame. */
void mag_worker_drop_scopes(struct mag_fiber *f);

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
    if (MAG_UNLIKELY(f->scope != NULL && f->scope->task == t))
        mag_worker_drop_scopes(f);
    f->current = t->outer;
    mag_task_set_idle(t, f->home);
    if (MAG_UNLIKELY(f->is_cancelled))
        f->is_cancelled = mag_fiber_chain_cancelled(f);
    return rc;
}

/* The same for a task, which has task-local variables of its own (vars.h): mostly none. */
int mag_worker_call_with_vars(struct mag_fiber *f, struct mag_task *t);

static inline int mag_worker_call_task(struct mag_fiber *f, struct mag_task *t)
{
    int rc;

    if (MAG_UNLIKELY(f->vars != NULL || (t->ext && t->ext->vars)))
        return mag_worker_call_with_vars(f, t);
    rc = mag_worker_call(f, t);
    if (MAG_UNLIKELY(f->vars != NULL)) /* set by the body */
        mag_vars_leave(f, NULL);
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

/* Calls fn(arg) on the stack of a fiber that is suspended, and whose home this worker is,
 * and leaves it suspended: to look at its stack. */
void mag_worker_visit(struct mag_fiber *f, void (*fn)(void *arg), void *arg);

bool mag_worker_has_work(const struct mag_worker *w);

/* Gives ready fibers to hungry workers, if there are many. */
void mag_worker_give_away(struct mag_worker *w);

/* Wakes who waits for the runtime to drain. */
void mag_worker_progress(struct mag_rt *rt);

/* Makes the reserve fiber; -ENOMEM.  Frees it and all idle ones. */
int mag_worker_reserve(struct mag_worker *w);
void mag_worker_end_fibers(struct mag_worker *w);

#endif
