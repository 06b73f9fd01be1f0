/* SPDX-License-Identifier: MIT */
#ifndef MAG_TASK_H
#define MAG_TASK_H
/*
 * task.h - what a task is, what a fiber is, and the three small things that connect
 * them: message, waiter, wait
 *
 * A task (or coroutine, or future) is an object of the slab: this header, then the
 * user's frame, whose address is the handle.  It needs no stack until a worker's
 * loop has started it and it suspends; a coroutine that is awaited, or a task that
 * its awaiter finds still in the deque, runs as a plain call on the awaiter's stack.
 *
 * A fiber is a stack and a context.  It runs works; the tasks that run on it right
 * now form a chain, innermost first:
 *
 *      fiber->current -> fetch -> session -> NULL        (fetch awaited in place)
 *
 * What suspends and resumes is the fiber.  A started fiber belongs to one worker,
 * its home, and only the home's thread touches its queue link, wait and wake-up: so
 * these need no atomics, and who wants something of it from elsewhere (ready,
 * cancel) sends the home a message.  A fiber changes its home only while it is
 * suspended, and under the old home's move_lock (worker.c).
 *
 * The slot word of a task (deque.h) says where it is: an index while it is in a
 * deque, NONE, a waiter, DETACHED, and at last DONE.  Completion is one exchange of
 * that word, waiting one compare-and-swap: whoever comes second sees the other.
 */
#include "context.h"
#include "deque.h"
#include "inbox.h"
#include "list.h"
#include "slab.h"
#include "stack.h"
#include "timers.h"

#include <magpie/task.h>

struct mag_worker;
struct mag_task;
struct mag_trace;

/* Something for a worker to do; delivered on its thread, from its loop. */
struct mag_message {
    union {
        struct mag_inbox_node inbox; /* while in an inbox                */
        struct mag_fifo_node fifo;   /* then in a queue of the receiver  */
    };
    void (*deliver)(struct mag_message *m, struct mag_worker *w);
};

/* Who is told when a task has ended; notify runs on any thread, once, and neither
 * touches the other's memory afterwards. */
struct mag_waiter {
    void (*notify)(struct mag_waiter *waiter, struct mag_task *ended);
};

/*
 * What a fiber, or a task without one, is blocked in, if that can be cancelled.
 * cancel runs on the home's thread while the wait lasts; it brings the end about
 * (it need not have come when it returns).
 */
struct mag_wait;
struct mag_vars;

struct mag_wait_kind {
    const char *what; /* for reports: "sleep", "mutex" */
    void (*cancel)(struct mag_wait *wait);
    bool is_home_only; /* cancel needs the home's own thread: its ring */
};

struct mag_wait {
    const struct mag_wait_kind *kind;
    const void *on; /* the task's frame, or the primitive; for reports */
};

/* What a block of the slab is (head.used); 0 is free. */
enum mag_kind { MAG_COROUTINE = 1, MAG_FUTURE, MAG_AUXILIARY, MAG_CALLBACK };

/* What t->origin is. */
enum mag_origin { MAG_ORIGIN_MADE, MAG_ORIGIN_SITE };

/*
 * [handle]: whoever holds the handle.  [runner]: whoever runs it.  112 bytes, so that
 * an object with a frame of up to 16 is two cache lines.
 */
struct mag_task {
    struct mag_slab_head head;      /* used = enum mag_kind              */
    struct mag_work work;           /* slot: [any] the word, see above   */
    const struct mag_co_type *type; /* [const]                           */
    /* [runner] the worker where it runs; or a worker of its runtime + MAG_HOME_IDLE; or 0:
     * made outside any runtime */
    mag_atomic(uintptr_t) home;
    struct mag_fiber *fiber; /* [home] while it runs; not of a leaf */
    union {
        struct mag_task *outer;     /* [runner] who awaits it in place   */
        struct mag_wait *leaf_wait; /* [runner] how to cancel a leaf     */
    };
    int32_t rc;                       /* [runner] the body's               */
    mag_atomic(uint8_t) is_cancelled; /* [any] level-triggered             */
    mag_atomic(uint8_t) is_begun;     /* [any] spawned, awaited; a future  */
    uint8_t is_counted;               /* [const] its end is counted        */
    uint8_t is_leaf;                  /* [const] type->body starts it: no stack */
    mag_atomic(uint32_t) extra_refs;  /* [any] holders beyond the last one */
    mag_atomic(uint8_t) is_sent;      /* [any] a cancel message is under way */
    uint8_t origin_kind;              /* [handle] enum mag_origin          */
    struct mag_task_ext *ext;         /* [const] NULL: nothing special     */
    struct mag_trace *trace;          /* [runner], then [handle]           */
    union {                           /* [handle] where it comes from:     */
        const void *made_at;          /* return address of its constructor */
        const struct mag_site *site;  /* where it was spawned              */
    };
    struct mag_message msg; /* start elsewhere; then cancel      */
};

enum { MAG_HOME_IDLE = 1 };
enum { MAG_TASK_BYTES = 112 };
MAG_STATIC_ASSERT(sizeof(struct mag_task) == MAG_TASK_BYTES);

/* Told of a task: `ending' by whoever ends it, while it is whole (its result and rc are
 * there), `ended' when it may be gone; `taken' when somebody consumes the handle, or gives it
 * up, perhaps more than once.  `ended' and `taken' may be NULL. */
struct mag_end_hook {
    void (*ending)(struct mag_end_hook *hook, struct mag_task *t, int rc);
    void (*ended)(struct mag_end_hook *hook);
    void (*taken)(struct mag_end_hook *hook, struct mag_task *t);
};

/*
 * What few tasks have.  A block of its own, freed with the task; or, of the children of a
 * gather, one that they share, on the gather's stack.
 */
struct mag_task_ext {
    struct mag_slab_head head;
    const mag_atomic(uint32_t) * stopping; /* [const] not 0: cancelled with its siblings; NULL */
    const char *name;                      /* [const] NULL: the function's            */
    struct mag_worker *worker;             /* [const] NULL: any                       */
    size_t stack_bytes;                    /* [const] 0: default                      */
    struct mag_vars *vars;                 /* [const] task-local variables it begins with */
    struct mag_end_hook *hook;             /* [const] a group's; NULL                 */
    bool pin;                              /* [const] */
    bool is_shared;                        /* [const] */
};

/* The places that an error has passed; of a task, or being handed on with the error. */
struct mag_trace {
    struct mag_slab_head head;
    int rc;
    bool is_caught; /* the next error begins anew        */
    unsigned n;     /* may exceed MAG_TRACE_MAX          */
    const struct mag_site *sites[MAG_TRACE_MAX];
};

struct mag_fiber {
    struct mag_context context;           /* while it does not run             */
    struct mag_fifo_node link;            /* [home] in ready                   */
    struct mag_fiber *next_idle;          /* [home] in the cache               */
    struct mag_message msg;               /* made ready by another thread      */
    struct mag_waiter waiter;             /* to be told that a task ended      */
    mag_atomic(struct mag_worker *) home; /* [home]                            */
    struct mag_task *current;             /* [home] innermost task running here */
    struct mag_work *assigned;            /* [home] what to run when resumed   */
    struct mag_wait *wait;                /* [home] NULL: not blocked, or not cancellable */
    struct mag_scope_frame *scope;        /* [home] the innermost scope; scope.c */
    mag_time deadline;                    /* [home] of the scopes that are seen; MAG_NEVER */
    struct mag_timer timer;               /* [home] if armed, not later than deadline */
    struct mag_vars *vars;                /* [home] task-local variables; vars.c */
    struct mag_stack stack;               /* [const] */
    char *floor;                          /* [const] calls in place end here   */
    const struct mag_worker *maker;       /* [const] whose it was first        */
    struct mag_worker *waker;             /* [waker] who made it ready last    */
    unsigned n_wakes;                     /* [waker] how often in a row        */
    mag_atomic(bool) is_portable;         /* [home writes] suspended, and free to move */
    bool is_pinned;                       /* [home] runs a task that is        */
    bool has_timer;                       /* [home] `timer' may be armed        */
    bool is_cancelled;                    /* [home] some task of the chain is  */
    bool is_unchecked;                    /* [home] the chain has grown since   */
    bool is_special;                      /* [const] not of the default size   */
};

static inline void *mag_task_frame(struct mag_task *t)
{
    return (char *)t + MAG_TASK_BYTES;
}

static inline void *mag_task_result(struct mag_task *t)
{
    return (char *)t + MAG_TASK_BYTES + t->type->result_offset;
}

static inline struct mag_task *mag_task_of_frame(const void *frame)
{
    return (struct mag_task *)((uintptr_t)frame - MAG_TASK_BYTES);
}

/* NULL for NULL. */
static inline struct mag_task *mag_task_of(const void *frame)
{
    return frame ? mag_task_of_frame(frame) : NULL;
}

static inline struct mag_task *mag_task_of_work(struct mag_work *work)
{
    return mag_container_of(work, struct mag_task, work);
}

static inline uint64_t mag_slot_of_waiter(struct mag_waiter *waiter)
{
    return (uint64_t)(uintptr_t)waiter | MAG_SLOT_WAITER;
}

static inline bool mag_slot_is_waiter(uint64_t slot)
{
    return slot >= MAG_SLOT_WAITER && slot < MAG_SLOT_DETACHED;
}

static inline struct mag_waiter *mag_slot_waiter(uint64_t slot)
{
    return (struct mag_waiter *)(uintptr_t)(slot & ~MAG_SLOT_WAITER);
}

/*
 * Where it runs; NULL while it does not.  A worker outlives its tasks, so whoever holds
 * the task may send to it: which a fiber's address would not allow.
 */
static inline struct mag_worker *mag_task_home(const struct mag_task *t)
{
    uintptr_t home = mag_load_acquire(&t->home);

    return home & MAG_HOME_IDLE ? NULL : (struct mag_worker *)home;
}

/* Running on that worker from now on; or no longer, and any worker of its runtime. */
static inline void mag_task_set_home(struct mag_task *t, struct mag_worker *w)
{
    mag_store_release(&t->home, (uintptr_t)w);
}

static inline void mag_task_set_idle(struct mag_task *t, struct mag_worker *w)
{
    mag_store_release(&t->home, w ? (uintptr_t)w | MAG_HOME_IDLE : 0);
}

static inline bool mag_task_is_done(const struct mag_task *t)
{
    return mag_load_acquire(&t->work.slot) == MAG_SLOT_DONE;
}

/*
 * Registers a waiter: 0, or -EALREADY if the task is done (then notify is not
 * called), or -EBUSY if somebody else waits.
 */
int mag_task_wait(struct mag_task *t, struct mag_waiter *waiter);

/* Takes a waiter back; false if it has been, or is being, notified. */
bool mag_task_unwait(struct mag_task *t, struct mag_waiter *waiter);

/*
 * Gives the handle up: 0, and whoever ends it frees it; -EALREADY if it is done, and
 * so is the caller's to free; -EBUSY if somebody awaits it.
 */
int mag_task_detach(struct mag_task *t);

/*
 * Ends the task: one exchange; then its waiter is told.  True if it was detached,
 * and so is the caller's to free.  Otherwise it may be gone when this returns.
 */
bool mag_task_end(struct mag_task *t, int rc);

/* What its group is told by who ends it; `ended' of the hook, if there is one, is to be called
 * when the task may be gone. */
static inline struct mag_end_hook *mag_task_ending(struct mag_task *t, int rc)
{
    struct mag_end_hook *hook = t->ext ? t->ext->hook : NULL;

    if (MAG_UNLIKELY(hook != NULL))
        hook->ending(hook, t, rc);
    return hook;
}

/* Before the handle is consumed, or given up. */
static inline void mag_task_taken(struct mag_task *t)
{
    if (MAG_UNLIKELY(t->ext != NULL) && t->ext->hook && t->ext->hook->taken)
        t->ext->hook->taken(t->ext->hook, t);
}

/* Whether the task itself is cancelled, by itself or with its siblings. */
static inline bool mag_task_is_cancelled(const struct mag_task *t)
{
    /* relaxed: ordered by the caller's fence */
    return mag_load_relaxed(&t->is_cancelled) ||
           (t->ext && t->ext->stopping && mag_load_relaxed(t->ext->stopping));
}

/* Detached, and of no group: a runtime that drains cancels it. */
static inline bool mag_task_is_nobodys(const struct mag_task *t)
{
    return mag_load_relaxed(&t->work.slot) == MAG_SLOT_DETACHED && !(t->ext && t->ext->hook);
}

/*
 * A scope (scope.c), on the stack of the task that has entered it.  The scopes of a fiber
 * form one list, innermost first, through all the tasks of its chain; each says in which
 * task it was entered, so that the walk outwards can take tasks and scopes in turn.
 */
struct mag_scope_frame {
    struct mag_scope_frame *outer; /* [home] */
    struct mag_task *task;         /* [const] fiber->current when it was entered */
    const struct mag_site *site;   /* [const] where; may be NULL */
    mag_time deadline;             /* [home] a shield's: when it is lifted */
    int32_t reason;                /* [home] not 0: it has fired, with this */
    bool is_shield;                /* [home] until it is lifted */
};

/* Whether anything that is seen from where the fiber is now has fired or is cancelled. */
bool mag_fiber_chain_cancelled(const struct mag_fiber *f);

/* The earliest deadline that is seen from there. */
mag_time mag_fiber_deadline_seen(const struct mag_fiber *f);

/* Fires every scope that is seen and due.  _poll: if the fiber's deadline has passed. */
void mag_fiber_fire_due(struct mag_fiber *f);
void mag_fiber_poll_deadline(struct mag_fiber *f);

/* Where it was spawned, or NULL. */
static inline const struct mag_site *mag_task_site(const struct mag_task *t)
{
    return t->origin_kind == MAG_ORIGIN_SITE ? t->site : NULL;
}

/* The name for reports. */
const char *mag_task_name(const struct mag_task *t);

#endif
