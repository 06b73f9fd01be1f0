/* SPDX-License-Identifier: MIT */
/*
 * group.c - task groups: children that do not outlive the block that began them
 *
 *      enter --- block ------------------- leave: scope left, waits --- all have ended
 *        |         |  spawn                   |
 *        scope     +-> child ... ends: `ending', a share less
 *                        `-> child ...
 *
 * The group lies on the owner's stack, under one spin lock, that of the queue in which wait
 * who would exceed the limit:
 *
 *      pending = children that have not ended + the owner + a stop message under way
 *
 * The owner gives its share up only after it has left its stack (as in gather.c); whoever
 * brings pending to 0 finds it suspended, and makes it ready.  Whoever has a share may begin
 * children: so also grandchildren, while the owner waits in leave.
 *
 * A child is a task whose ext (task.h) is the first member of struct child: one block, freed
 * with the task.  The hook of all of them is one constant, and everything that the group has
 * to learn is done in `ending', by whoever ends the task and while it is whole: result out,
 * error noted, child off the list, share given up.  After that the task does not know the
 * group any more, so the owner may leave while the last child is still being freed.
 *
 * Stopping.  Whoever wants the group to stop (an error, a cancel) sets is_asked, once, and
 * sends a message, which holds a share, to the owner's home.  There, in this order:
 *
 *      the scope of the block fires; each child on the list is cancelled
 *
 * So no child is cancelled before the block's scope has fired, and an owner that gets a
 * child's -ECANCELED finds the explanation in its own scope.  The owner may move to another
 * worker while the message is under way; then it is sent on (as in cancel.c).  An owner that
 * stops the group itself needs no message.  From is_asked on no child can be added, so the
 * list only shrinks; one that is on it and has not begun sees its own flag when it does.  The
 * word that all children see as well (ext.stopping) also tells a dump of the tasks who awaits
 * them: it lies on the owner's stack (snapshot.c).
 *
 * Invariants, with the lock held
 *   1. A child is on `running' or, cancelled by the stop, on `stopped' exactly until its
 *      `ending'; then, if it is a handle that nobody has taken, on `kept' until it is taken.
 *   2. n_slots, if there is a limit, is the number of children that run or are about to; one
 *      that ends hands its slot to the oldest waiter.
 *   3. A task on `running' or `stopped' is alive: references may be taken.
 *
 * mag_group_start is the same with one who waits for the child: struct start, on its stack,
 * with two shares, the waiter's (given up off its stack) and the child's.
 *
 * Rejected: counts without a lock (the list needs one anyway, and then `pending' is free);
 * walking the slab for the children to be cancelled (a stop in a process with a million
 * tasks); freeing the handles in the await (a group would grow, or leave would have to wait
 * for those who do not come).
 */
#include "cancel.h"
#include "co.h"
#include "list.h"
#include "misuse.h"
#include "scope.h"
#include "waitq.h"

#include <errno.h>
#include <string.h>

#include <magpie/group.h>

enum { BATCH = 32 }; /* children cancelled at a time: not with the lock held */

static const uintptr_t alive = 0x6d61677069650001; /* and the address, so that no copy is */

struct group {
    struct mag_waitq q;               /* who waits for a slot; its lock is the group's   */
    struct mag_scope_frame scope;     /* [owner] of the block                            */
    struct mag_wait wait;             /* [owner] in leave                                */
    struct mag_message msg;           /* the stop, on its way home                       */
    struct mag_fiber *fiber;          /* [const] the owner                               */
    uintptr_t magic;                  /* [owner] while it is entered                     */
    size_t pending;                   /* [lock] shares, see above                        */
    struct mag_list running;          /* [lock] children that the stop has not reached   */
    struct mag_list stopped;          /* [lock] those that it has                        */
    struct mag_list kept;             /* [lock] ended, and nobody has taken the handle   */
    size_t limit;                     /* [const] 0: none                                 */
    size_t n_slots;                   /* [lock] taken; only with a limit                 */
    mag_atomic(uint32_t) is_stopping; /* [home] children see it; and a dump, where it lies */
    mag_atomic(int32_t) first_rc;     /* [lock writes, any] the first error              */
    int32_t wait_rc;                  /* [home] why the wait in leave was cancelled      */
    bool is_asked;                    /* [lock] to stop                                  */
    bool is_left;                     /* [owner] the scope is left                       */
    struct mag_task *first_task;      /* [lock] whose error is first_rc; only compared   */
    struct mag_trace *trace;          /* [lock] of the first error, if it had no handle  */
    struct mag_group_errors *errors;  /* [const] may be NULL */
    size_t n_errors;                  /* [lock] */
    struct mag_group_error first;     /* [lock] */
};

MAG_STATIC_ASSERT(sizeof(struct group) <= sizeof(struct mag_group));

enum state { WAITING, STARTED, GIVEN_UP, ENDED };

/* Who waits in mag_group_start. */
struct start {
    struct mag_wait wait;
    struct mag_fiber *fiber;     /* [const] */
    struct mag_task *task;       /* [const] a reference is held */
    void *value;                 /* [const] NULL: dropped */
    size_t bytes;                /* [const] */
    mag_atomic(uint32_t) state;  /* [any] enum state: who leaves WAITING decides */
    mag_atomic(uint32_t) shares; /* [any] the starter's and the child's */
    int rc;                      /* [child] what the start returns */
    struct mag_trace *trace;     /* [child] of an error before the start */
};

enum kind { NO_HANDLE, HANDLE, TAKEN };

struct child {
    struct mag_task_ext ext; /* first: freed with the task */
    struct mag_list link;    /* [lock] */
    struct group *g;         /* [const] */
    struct mag_task *task;   /* [const] */
    void *result;            /* [const] NULL: dropped */
    struct start *start;     /* [runner] until it has started */
    uint8_t kind;            /* [lock] enum kind */
    bool has_ended;          /* [lock] */
    bool is_startable;       /* [const] begun by mag_group_start */
};

static struct group *group_of(const struct mag_group *g)
{
    return (struct group *)(uintptr_t)g;
}

static bool is_alive(const struct group *g)
{
    return g->magic == (alive ^ (uintptr_t)g);
}

static struct child *child_of(const struct mag_task *t)
{
    return mag_container_of(t->ext, struct child, ext);
}

static void lock(struct group *g)
{
    mag_spin_lock(&g->q.lock);
}

static void unlock(struct group *g)
{
    mag_spin_unlock(&g->q.lock);
}

/* ---- shares ----------------------------------------------------------------------------- */

/* The last touch of the group, unless the caller has another share. */
static void give_up(struct group *g)
{
    struct mag_fiber *f = g->fiber;
    bool is_last;

    lock(g);
    is_last = --g->pending == 0;
    unlock(g);
    if (is_last)
        mag_worker_ready(f);
}

static void drop_own_share(void *arg)
{
    give_up(arg);
}

/* ---- stopping --------------------------------------------------------------------------- */

/* Some of those that the stop has not reached, with a reference each. */
static size_t next_batch(struct group *g, struct mag_task **found)
{
    struct mag_list *link;
    size_t n = 0;

    lock(g);
    while (n < BATCH && (link = mag_list_pop_front(&g->running)) != NULL) {
        mag_list_push_back(&g->stopped, link);
        found[n] = mag_container_of(link, struct child, link)->task;
        mag_fetch_add(&found[n++]->extra_refs, 1);
    }
    unlock(g);
    return n;
}

/* By the owner, or the message; with a share, and is_asked set. */
static void stop_children(struct group *g)
{
    struct mag_task *found[BATCH];
    size_t n;

    mag_store_relaxed(&g->is_stopping, 1); /* the cancels below publish it */
    do {
        n = next_batch(g, found);
        for (size_t i = 0; i < n; i++) {
            mag_cancel_task(found[i]);
            mag_worker_release(found[i]);
        }
    } while (n == BATCH);
}

static int reason_of(const struct group *g)
{
    int rc = mag_load_relaxed(&g->first_rc);

    return rc ? rc : -ECANCELED;
}

/* Where the owner is; if that is here, the block's scope has fired. */
static struct mag_worker *fire_if_here(struct group *g, struct mag_worker *w)
{
    struct mag_worker *home;

    mag_cancel_hold(w);
    home = mag_load_relaxed(&g->fiber->home);
    if (home == w && !g->is_left)
        mag_scope_fire(g->fiber, &g->scope, reason_of(g));
    mag_cancel_release(w);
    return home;
}

/* On the owner's home thread, or on its way there. */
static void stop_deliver(struct mag_message *m, struct mag_worker *w)
{
    struct group *g = mag_container_of(m, struct group, msg);
    struct mag_worker *home = fire_if_here(g, w);

    if (home != w) {
        mag_worker_send(home, m);
        return;
    }
    stop_children(g);
    give_up(g);
}

/* With the lock held: whether the caller has to see to it that the group stops. */
static bool ask(struct group *g)
{
    bool is_first = !g->is_asked;

    g->is_asked = true;
    return is_first;
}

/* With the lock not held, and a share that becomes the message's. */
static void send_stop(struct group *g)
{
    g->msg.deliver = stop_deliver;
    mag_worker_send(mag_load_relaxed(&g->fiber->home), &g->msg);
}

/* ---- errors ----------------------------------------------------------------------------- */

/* With the lock held. */
static void note(struct group *g, int rc, const struct mag_task *t, const struct mag_site *site)
{
    struct mag_group_error e = { rc, mag_task_name(t), site };

    if (g->n_errors == 0) {
        mag_store_relaxed(&g->first_rc, rc);
        g->first = e;
    }
    if (g->errors && g->n_errors < MAG_GROUP_ERRORS_MAX)
        g->errors->list[g->n_errors] = e;
    g->n_errors++;
    if (g->errors)
        g->errors->n = g->n_errors;
}

/* With the lock held: the error of a child; whether the caller is to send the stop. */
static bool note_child(struct group *g, struct child *c, int rc)
{
    if (g->n_errors == 0) {
        g->first_task = c->task;
        if (c->kind == NO_HANDLE) { /* otherwise who awaits it gets the trace */
            g->trace = c->task->trace;
            c->task->trace = NULL;
        }
    }
    note(g, rc, c->task, mag_task_site(c->task));
    return ask(g);
}

/* The trace of the error that is returned becomes the task's; `trace' may be NULL. */
static void hand_trace(struct mag_task *to, struct mag_trace *trace)
{
    if (trace == NULL)
        return;
    if (to->trace)
        mag_slab_free(&mag_worker_self()->slab, &to->trace->head);
    to->trace = trace;
}

static void drop_trace(struct mag_trace *trace)
{
    if (trace)
        mag_slab_free(&mag_worker_self()->slab, &trace->head);
}

/* ---- who waits for a start ---------------------------------------------------------------- */

static void start_give_up(struct start *s)
{
    struct mag_fiber *f = s->fiber;

    if (mag_fetch_sub(&s->shares, 1) == 1)
        mag_worker_ready(f);
}

static void start_drop_own_share(void *arg)
{
    start_give_up(arg);
}

static bool start_decide(struct start *s, enum state state)
{
    uint32_t expected = WAITING;

    return mag_cas(&s->state, &expected, state);
}

/* The starter was cancelled: the end of the child answers, unless it has started already. */
static void start_cancel(struct mag_wait *wait)
{
    struct start *s = mag_container_of(wait, struct start, wait);

    if (start_decide(s, GIVEN_UP))
        mag_cancel_task(s->task);
}

static const struct mag_wait_kind start_kind = { "start of a task", start_cancel, false };

/* The child has ended and had not started. */
static void start_ended(struct start *s, struct mag_task *t, int rc)
{
    (void)start_decide(s, ENDED);
    s->rc = rc < 0 ? rc : -ENODATA;
    s->trace = t->trace;
    t->trace = NULL;
    start_give_up(s);
}

/* ---- the end of a child ------------------------------------------------------------------- */

/* With the lock held: a slot less; who gets it, or NULL. */
static struct mag_queued *free_slot(struct group *g)
{
    struct mag_queued *next = NULL;

    if (g->limit && (next = mag_waitq_pop(&g->q)) == NULL)
        g->n_slots--;
    return next;
}

static void wake(struct mag_queued *next)
{
    if (next)
        mag_waitq_wake(next, 0);
}

/* With the lock held. */
static void take_off(struct group *g, struct child *c)
{
    mag_list_remove(&c->link);
    c->has_ended = true;
    if (c->kind == HANDLE)
        mag_list_push_back(&g->kept, &c->link);
}

static void child_ending(struct mag_end_hook *hook, struct mag_task *t, int rc)
{
    struct child *c = child_of(t);
    struct group *g = c->g;
    struct mag_fiber *f = g->fiber;
    struct mag_queued *next;
    bool is_error = rc < 0 && rc != -ECANCELED && c->start == NULL, sends, is_last;

    (void)hook;
    if (c->start)
        start_ended(c->start, t, rc);
    if (rc >= 0 && c->result)
        memcpy(c->result, mag_task_result(t), t->type->result_bytes);
    lock(g);
    take_off(g, c);
    next = free_slot(g);
    sends = is_error && note_child(g, c, rc);
    is_last = !sends && --g->pending == 0;
    unlock(g);
    wake(next);
    if (sends)
        send_stop(g);
    else if (is_last)
        mag_worker_ready(f);
}

/* Somebody awaits the handle, or has given it up: leave need not free it. */
static void child_taken(struct mag_end_hook *hook, struct mag_task *t)
{
    struct child *c = child_of(t);

    (void)hook;
    if (c->kind != HANDLE) /* taken before: the group may have ended */
        return;
    lock(c->g);
    c->kind = TAKEN;
    if (c->has_ended)
        mag_list_remove(&c->link);
    unlock(c->g);
}

static struct mag_end_hook child_hook = { .ending = child_ending, .taken = child_taken };

/* ---- the beginning of a child --------------------------------------------------------------- */

static const struct mag_wait_kind slot_kind = { "group limit", mag_waitq_cancel, false };

/* With the lock held; it may have been given up in between.  0: the caller has a slot, if
 * there is a limit. */
static int take_slot(struct group *g)
{
    struct mag_queued me;
    int rc;

    if (g->is_asked)
        return -ECANCELED;
    if (g->limit == 0)
        return 0;
    if (g->n_slots < g->limit && g->q.first == NULL) {
        g->n_slots++;
        return 0;
    }
    rc = mag_waitq_wait(&g->q, &me, &slot_kind, g, NULL);
    lock(g);
    return rc;
}

/* On the list, with a share; or -ECANCELED.  Suspends if there is a limit.  An owner that is
 * refused does not wait for the message to be told why. */
static int admit(struct group *g, struct child *c)
{
    bool is_owner = mag_fiber_self() == g->fiber && !g->is_left, is_asked;
    struct mag_queued *next = NULL;
    int rc;

    lock(g);
    rc = take_slot(g);
    is_asked = g->is_asked;
    if (rc == 0 && is_asked) {
        rc = -ECANCELED;
        next = free_slot(g);
    } else if (rc == 0) {
        mag_list_push_back(&g->running, &c->link);
        g->pending++;
    }
    unlock(g);
    wake(next);
    if (rc < 0 && is_owner && is_asked)
        mag_scope_fire(g->fiber, &g->scope, reason_of(g));
    return rc;
}

/* It did not start after all. */
static void expel(struct group *g, struct child *c)
{
    struct mag_queued *next;

    lock(g);
    mag_list_remove(&c->link);
    next = free_slot(g);
    g->pending--; /* the caller has another */
    unlock(g);
    wake(next);
}

static struct child *child_new(struct group *g, struct mag_task *t, enum kind kind, void *result)
{
    struct child *c = mag_slab_alloc(&mag_worker_self()->slab, sizeof *c);

    if (c == NULL)
        return NULL;
    c->ext.head = (struct mag_slab_head){ MAG_AUXILIARY, c->ext.head.size_class };
    mag_list_init(&c->link);
    c->g = g;
    c->task = t;
    c->result = result;
    c->start = NULL;
    c->kind = (uint8_t)kind;
    c->has_ended = false;
    c->is_startable = false;
    return c;
}

static int start_child(struct group *g, struct child *c, const struct mag_spawn_options *options)
{
    struct mag_co_extra extra = { &g->is_stopping, &child_hook, &c->ext };
    struct mag_worker *w;
    int rc = admit(g, c);

    if (rc < 0)
        return rc;
    w = mag_worker_self(); /* not before: admit may suspend */
    rc = mag_co_start(w, w->rt, mag_task_frame(c->task), options, &extra);
    if (rc < 0)
        expel(g, c);
    return rc;
}

/* What every beginning asks first. */
static int check(const struct group *g, void *coro, const char *what)
{
    const struct mag_task *t = mag_task_of(coro);

    if (t == NULL)
        return -ENOMEM;
    if (mag_load_relaxed(&t->head.used) != MAG_COROUTINE || mag_load_relaxed(&t->is_begun))
        return mag_misuse(-EALREADY, "%s() of a coroutine that was used before", what);
    if (mag_fiber_self() == NULL)
        return mag_misuse(-ENXIO, "%s() outside a task", what);
    if (!is_alive(g))
        return mag_misuse(-EINVAL,
                          "%s() in a group that has ended (or was never entered): a group "
                          "may be used between mag_group_enter() and mag_group_leave() only",
                          what);
    return 0;
}

/* Nobody has it as a handle, so nobody else can free it. */
static int close_it(void *coro, int rc)
{
    if (rc != -EALREADY)
        mag_close(coro);
    return rc;
}

int mag_group_spawn(struct mag_group *group, void *coro, void *result,
                    const struct mag_spawn_options *options)
{
    struct group *g = group_of(group);
    struct mag_task *t = mag_task_of(coro);
    int rc = check(g, coro, "mag_group_spawn");
    struct child *c;

    if (rc < 0)
        return close_it(coro, rc);
    c = child_new(g, t, NO_HANDLE, result);
    if (c == NULL)
        return close_it(coro, -ENOMEM);
    rc = start_child(g, c, options);
    if (rc < 0) {
        mag_slab_free(&mag_worker_self()->slab, &c->ext.head);
        return close_it(coro, rc);
    }
    if (mag_task_detach(t) == -EALREADY) /* it has ended already */
        mag_worker_release(t);
    return 0;
}

/* A handle that could not start has ended with that error, for whoever awaits it. */
static int end_unstarted(struct group *g, struct mag_task *t, struct child *c, int rc)
{
    mag_store_relaxed(&t->is_begun, 1);
    t->rc = rc;
    if (c) {
        c->ext = (struct mag_task_ext){ .head = c->ext.head, .hook = &child_hook };
        t->ext = &c->ext;
        lock(g);
        take_off(g, c);
        unlock(g);
    }
    mag_store_release(&t->work.slot, MAG_SLOT_DONE);
    return rc;
}

int mag_group_task(struct mag_group *group, void *coro, const struct mag_spawn_options *options)
{
    struct group *g = group_of(group);
    struct mag_task *t = mag_task_of(coro);
    int rc = check(g, coro, "mag_group_task");
    struct child *c;

    if (rc == -ENOMEM || rc == -EALREADY)
        return rc;
    if (rc < 0)
        return end_unstarted(g, t, NULL, rc);
    c = child_new(g, t, HANDLE, NULL);
    if (c == NULL)
        return end_unstarted(g, t, NULL, -ENOMEM);
    rc = start_child(g, c, options);
    return rc < 0 ? end_unstarted(g, t, c, rc) : 0;
}

/* ---- start and started ------------------------------------------------------------------------ */

static int wait_for_start(struct start *s)
{
    if (mag_wait_begin(s->fiber, &s->wait) < 0) {
        s->fiber->wait = &s->wait;
        start_cancel(&s->wait);
    }
    mag_worker_suspend(start_drop_own_share, s);
    if (s->rc < 0)
        hand_trace(s->fiber->current, s->trace);
    else
        drop_trace(s->trace);
    return s->rc;
}

int mag_group_start(struct mag_group *group, void *coro, void *value, size_t bytes,
                    const struct mag_spawn_options *options)
{
    struct group *g = group_of(group);
    struct mag_task *t = mag_task_of(coro);
    int rc = check(g, coro, "mag_group_start");
    struct start s = { .wait = { &start_kind, coro },
                       .fiber = mag_fiber_self(),
                       .task = t,
                       .value = value,
                       .bytes = bytes,
                       .shares = 2 };
    struct child *c;

    if (rc < 0)
        return close_it(coro, rc);
    c = child_new(g, t, NO_HANDLE, NULL);
    if (c == NULL)
        return close_it(coro, -ENOMEM);
    c->start = &s;
    c->is_startable = true;
    mag_fetch_add(&t->extra_refs, 1); /* the starter's, to cancel it */
    rc = start_child(g, c, options);
    if (rc < 0) {
        mag_slab_free(&mag_worker_self()->slab, &c->ext.head);
        mag_worker_release(t);
        return close_it(coro, rc);
    }
    if (mag_task_detach(t) == -EALREADY)
        mag_worker_release(t);
    rc = wait_for_start(&s);
    mag_worker_release(t);
    return rc;
}

/* The innermost task of the chain that was begun by mag_group_start. */
static struct child *startable(const struct mag_fiber *f)
{
    for (const struct mag_task *t = f ? f->current : NULL; t; t = t->outer)
        if (t->ext && t->ext->hook == &child_hook && child_of(t)->is_startable)
            return child_of(t);
    return NULL;
}

int mag_started(const void *value, size_t bytes)
{
    struct child *c = startable(mag_fiber_self());
    struct start *s = c ? c->start : NULL;

    if (c == NULL)
        return mag_misuse(-ENXIO, "mag_started() in a task that was not begun by "
                                  "mag_group_start()");
    if (s == NULL)
        return mag_misuse(-EALREADY, "mag_started() called twice");
    if (s->value && s->bytes != bytes)
        return mag_misuse(-EINVAL, "mag_started() with %zu bytes, but mag_group_start() wants %zu",
                          bytes, s->bytes);
    if (!start_decide(s, STARTED))
        return -ECANCELED;
    c->start = NULL;
    if (s->value && bytes)
        memcpy(s->value, value, bytes);
    start_give_up(s);
    return 0;
}

/* ---- enter, cancel, leave --------------------------------------------------------------------- */

static void leave_cancel(struct mag_wait *wait);
static const struct mag_wait_kind leave_kind = { "task group", leave_cancel, false };

int mag_group_enter(struct mag_group *group, const struct mag_group_options *options)
{
    struct group *g = group_of(group);
    struct mag_fiber *f = mag_fiber_self();

    if (f == NULL || f->current == NULL)
        return mag_misuse(-ENXIO, "mag_group_enter() outside a task: groups belong to tasks");
    memset(g, 0, sizeof *g);
    g->wait = (struct mag_wait){ &leave_kind, g };
    g->fiber = f;
    g->pending = 1;
    mag_list_init(&g->running);
    mag_list_init(&g->stopped);
    mag_list_init(&g->kept);
    if (options) {
        g->limit = options->limit;
        g->errors = options->errors;
    }
    if (g->errors)
        g->errors->n = 0;
    mag_scope_push(f, &g->scope, MAG_NEVER, options ? options->site : NULL, false);
    g->magic = alive ^ (uintptr_t)g;
    return 0;
}

int mag_group_cancel(struct mag_group *group)
{
    struct group *g = group_of(group);
    bool is_owner, sends;

    if (!is_alive(g))
        return mag_misuse(-EINVAL, "mag_group_cancel() of a group that has ended");
    is_owner = mag_fiber_self() == g->fiber && !g->is_left;
    lock(g);
    sends = ask(g);
    if (sends)
        g->pending++;
    unlock(g);
    if (!sends)
        return 0;
    if (!is_owner) {
        send_stop(g);
        return 0;
    }
    mag_scope_fire(g->fiber, &g->scope, reason_of(g));
    stop_children(g);
    give_up(g);
    return 0;
}

int mag_group_errors(const struct mag_group *group, struct mag_group_error *list, size_t n)
{
    struct group *g = group_of(group);
    size_t kept, total;

    if (!is_alive(g))
        return mag_misuse(-EINVAL, "mag_group_errors() of a group that has ended");
    lock(g);
    total = g->n_errors;
    kept = g->errors ? MAG_GROUP_ERRORS_MAX : 1;
    for (size_t i = 0; i < n && i < total && i < kept; i++)
        list[i] = i == 0 ? g->first : g->errors->list[i];
    unlock(g);
    return total < INT32_MAX ? (int)total : INT32_MAX;
}

/* The owner was cancelled while it waits: on the thread that is its home now.  All may have
 * ended by now, with the owner ready but not yet resumed: then nothing is changed. */
static void leave_cancel(struct mag_wait *wait)
{
    struct group *g = mag_container_of(wait, struct group, wait);
    bool sends = false;

    lock(g);
    if (g->pending) {
        if (g->wait_rc == 0)
            g->wait_rc = -ECANCELED;
        sends = ask(g);
        if (sends)
            g->pending++;
    }
    unlock(g);
    if (sends)
        send_stop(g);
}

/* Until all shares but the owner's are given up. */
static void wait_all(struct group *g)
{
    bool is_alone;
    int rc;

    lock(g); /* not only to read: who gave the last share up has unlocked then */
    is_alone = g->pending == 1;
    unlock(g);
    if (is_alone)
        return;
    rc = mag_wait_begin(g->fiber, &g->wait);
    if (rc < 0) {
        g->wait_rc = rc;
        g->fiber->wait = &g->wait;
        leave_cancel(&g->wait);
    }
    mag_worker_suspend(drop_own_share, g);
}

/* The handles that nobody wanted; the trace of the first error may be in one of them. */
static void free_kept(struct group *g)
{
    struct mag_list *link;

    while ((link = mag_list_pop_front(&g->kept)) != NULL) {
        struct mag_task *t = mag_container_of(link, struct child, link)->task;

        if (mag_task_detach(t) != -EALREADY)
            continue; /* who ends it is just about to, and frees it */
        if (t == g->first_task) {
            g->trace = t->trace;
            t->trace = NULL;
        }
        mag_worker_release(t);
    }
}

/* The block has failed: all the others need not go on. */
static void stop_by_owner(struct group *g, int rc)
{
    struct mag_task *owner = g->fiber->current;
    bool is_first;

    lock(g);
    if (rc != -ECANCELED && rc != g->scope.reason)
        note(g, rc, owner, g->scope.site);
    is_first = ask(g);
    unlock(g);
    if (is_first)
        stop_children(g);
}

/* What leave returns; all have ended. */
static int outcome(struct group *g, int rc)
{
    int first = g->first_rc;

    if (rc < 0 && rc != -ECANCELED && rc != g->scope.reason)
        return rc;
    if (first) {
        hand_trace(g->fiber->current, g->trace);
        g->trace = NULL;
        return first;
    }
    if (rc == -ECANCELED && g->scope.reason && !mag_worker_is_cancelled(g->fiber))
        return 0;
    return rc >= 0 && g->wait_rc ? g->wait_rc : rc;
}

int mag_group_leave(struct mag_group *group, int rc)
{
    struct group *g = group_of(group);

    if (!is_alive(g))
        return mag_misuse(-EINVAL, "mag_group_leave() of a group that has ended");
    if (mag_fiber_self() != g->fiber || !mag_scope_pop(g->fiber, &g->scope))
        return mag_misuse(-EPERM, "mag_group_leave() of a group that is not the innermost one "
                                  "(with scopes) of this task: leave in reverse order");
    g->is_left = true;
    if (rc < 0)
        stop_by_owner(g, rc);
    wait_all(g);
    free_kept(g);
    rc = outcome(g, rc);
    drop_trace(g->trace);
    g->magic = 0;
    return rc;
}
