/* SPDX-License-Identifier: MIT */
/*
 * select.c - waiting for several things at once, of which exactly one happens
 *
 *      look       each case in turn, from a place by chance: if it can be carried out, that is it
 *      join       each once more, under its lock: carry it out, or join its line
 *      suspend    until somebody claims a case, or a cancel
 *      leave      all the lines, each under its lock; then nobody knows of this any more
 *
 * One word decides: choice.won goes from 0 to something by one compare-and-swap (a claim).
 *
 *      0 --- claimed by who gives or takes, or ends the task --> 1 + index
 *      `---- claimed by ourselves while joining, or a cancel --> OFF
 *
 * Both sides.  Who has something to give holds the lock of its queue, pops a waiter, and
 * claims it (mag_waitq_pop); if that fails, the waiter has been served elsewhere and is
 * skipped.  We, while joining, hold the lock of one queue, see that our case can be carried
 * out, claim ourselves, and only then carry it out; if that fails, somebody has claimed
 * another case and will wake us: we suspend at once, and leave the rest alone.
 *
 * Two selects can meet in one queue, one to put and one to get, without a claim of two words
 * and without an order among the words.  For a queue holds at least one item, so whether a
 * case can be carried out depends on the queue alone, never on who waits: to put there must
 * be room, to get an item.  So we are sure of our own case before we look for somebody to
 * hand over to; and finding nobody, or only those who were served elsewhere, changes nothing,
 * the item stays in the queue, or the room free.  Nobody ever waits for a claim, and at
 * most one queue's lock is held at a time: so there is no deadlock; and a claim that fails
 * means that another one won: so there is no livelock.
 *
 * A task or future of mag_case_done tells its end by a call (told), which may be under way
 * when we leave: then we wait for its last store, as one waits for a lock.
 *
 * Invariants
 *   1. choice.won changes once.
 *   2. Who has claimed a case by its index wakes us, once; who has set OFF does if we sleep.
 *   3. mag_select returns only when no line and no task refers to its memory.
 *
 * Who may call: tasks, and threads outside, which sleep on a futex.  The earliest mag_case_at
 * of a task is a scope around its sleep: the deadline cancels that, and the scope knows it.
 *
 * Rejected: a timer of its own (it would bind the task to its worker); a waiter in all queues
 * that looks again after each wake-up (a thundering herd, and no order); the first ready case
 * always (the others may starve); nodes in an array here (a limit, or memory that can run
 * out): each case brings the room for its own.
 *
 * Sources: CML (Reppy, 1991), Go's select.
 */
#include "cancel.h"
#include "clock.h"
#include "event.h"
#include "misuse.h"
#include "queue.h"
#include "sys.h"

#include <magpie/scope.h>
#include <magpie/select.h>

#include <errno.h>
#include <string.h>

enum { CASE_GET = 1, CASE_PUT, CASE_EVENT, CASE_AT, CASE_DONE };

/* What an attempt came to; or -errno: the select fails. */
enum { NOT_YET, HAPPENED, TOO_LATE };

struct select {
    struct mag_wait wait;
    struct mag_choice choice;
    struct mag_fiber *fiber; /* [const] NULL: a thread outside */
    struct mag_scope scope;  /* [owner] of a task: until the deadline, if there is one */
    mag_time deadline;       /* [const] of the earliest mag_case_at; MAG_NEVER: none */
    uint32_t at;             /* [const] its case */
};

/* To be told that a task has ended. */
struct ending {
    struct mag_waiter waiter;
    struct select *s;
    uint32_t index;
    mag_atomic(bool) is_told; /* [who ends the task] does not touch this any more */
};

/* The private part of a case. */
struct __attribute__((may_alias)) part {
    union {
        struct mag_queue *q;
        struct mag_event_state *event;
        struct mag_task *task;
        mag_time deadline;
        const void *any;
    };
    void *item;
    union {
        struct mag_queued w;  /* of a queue, and of an event */
        struct ending ending; /* of a task */
    };
    bool is_joined; /* [owner] to be left again */
};

MAG_STATIC_ASSERT(sizeof(struct part) <= sizeof(((struct mag_case *)0)->private_));
MAG_STATIC_ASSERT(_Alignof(struct part) <= _Alignof(struct mag_case));

static struct part *part(struct mag_case *c)
{
    return (struct part *)c->private_;
}

static bool is_in_line(const struct mag_case *c)
{
    return c->kind_ <= CASE_EVENT;
}

/* ---- claims --------------------------------------------------------------------------------- */

static bool claim(struct select *s, uint32_t word)
{
    uint32_t none = 0;

    return mag_cas(&s->choice.won, &none, word);
}

/* By ourselves; before we have joined anything there is nobody else. */
static bool claim_own(struct select *s)
{
    return s == NULL || claim(s, MAG_CHOICE_OFF);
}

/* By who has claimed it.  After the store a thread may be gone: the wake is of an address. */
static void wake(struct select *s)
{
    if (s->fiber) {
        mag_worker_ready(s->fiber);
        return;
    }
    mag_store_seq(&s->choice.is_woken, 1);
    mag_sys_futex_wake(&s->choice.is_woken, 1);
}

static void select_cancel(struct mag_wait *wait)
{
    struct select *s = mag_container_of(wait, struct select, wait);

    if (claim(s, MAG_CHOICE_OFF))
        wake(s);
}

static const struct mag_wait_kind select_kind = { "select", select_cancel, false };

static void told(struct mag_waiter *waiter, struct mag_task *ended)
{
    struct ending *e = mag_container_of(waiter, struct ending, waiter);
    struct select *s = e->s;
    bool is_ours = claim(s, e->index + 1);

    (void)ended;
    mag_store_release(&e->is_told, true); /* unless it is ours, all may be gone now */
    if (is_ours)
        wake(s);
}

/* ---- attempts: carry a case out, or, with a select, join ------------------------------------ */

/* With the lock of the line held. */
static int join(struct select *s, struct mag_waitq *line, struct part *p, uint32_t i)
{
    if (s) {
        p->w = (struct mag_queued){
            .q = line, .fiber = s->fiber, .item = p->item, .choice = &s->choice, .index = i
        };
        mag_waitq_push(line, &p->w);
        p->is_joined = true;
    }
    return NOT_YET;
}

static int attempt_queue(struct mag_case *c, struct select *s, uint32_t i)
{
    struct part *p = part(c);
    struct mag_queue *q = p->q;
    bool is_put = c->kind_ == CASE_PUT;
    struct mag_queued *other = NULL;
    int outcome = HAPPENED;

    mag_queue_lock(q);
    c->rc = is_put ? mag_queue_may_put(q) : mag_queue_may_get(q);
    if (c->rc == -EAGAIN)
        outcome = join(s, &q->waiters, p, i);
    else if (!claim_own(s))
        outcome = TOO_LATE;
    else if (c->rc == 0)
        other = is_put ? mag_queue_do_put(q, p->item) : mag_queue_do_get(q, p->item);
    mag_queue_unlock(q);
    if (other)
        mag_waitq_wake(other, 0);
    return outcome;
}

static int attempt_event(struct mag_case *c, struct select *s, uint32_t i)
{
    struct part *p = part(c);
    struct mag_event_state *e = p->event;
    int outcome;

    mag_spin_lock(&e->q.lock);
    if (!mag_load_relaxed(&e->is_set)) /* it changes under the lock only */
        outcome = join(s, &e->q, p, i);
    else
        outcome = claim_own(s) ? HAPPENED : TOO_LATE;
    mag_spin_unlock(&e->q.lock);
    return outcome;
}

static int attempt_at(struct mag_case *c, struct select *s)
{
    mag_time deadline = part(c)->deadline;

    if (deadline == MAG_NEVER || deadline > mag_clock_now())
        return NOT_YET;
    return claim_own(s) ? HAPPENED : TOO_LATE;
}

static int attempt_done(struct mag_case *c, struct select *s, uint32_t i)
{
    struct part *p = part(c);
    int rc = mag_task_is_done(p->task) ? -EALREADY : 0;

    if (s) {
        p->ending = (struct ending){ .waiter.notify = told, .s = s, .index = i };
        rc = mag_task_wait(p->task, &p->ending.waiter);
        p->is_joined = rc == 0;
    }
    if (rc == 0)
        return NOT_YET;
    if (!claim_own(s))
        return TOO_LATE;
    return rc == -EALREADY ? HAPPENED : rc;
}

static int attempt(struct mag_case *c, struct select *s, uint32_t i)
{
    c->rc = 0;
    switch (c->kind_) {
    case CASE_EVENT:
        return attempt_event(c, s, i);
    case CASE_AT:
        return attempt_at(c, s);
    case CASE_DONE:
        return attempt_done(c, s, i);
    default:
        return attempt_queue(c, s, i);
    }
}

/* All in turn, until one is not NOT_YET: that outcome, and which. */
static int attempt_all(struct mag_case *cases, uint32_t n, uint32_t first, struct select *s,
                       uint32_t *which)
{
    int outcome = NOT_YET;

    for (uint32_t k = 0; k < n && outcome == NOT_YET; k++) {
        uint32_t i = first + k < n ? first + k : first + k - n;
        *which = i;
        outcome = attempt(&cases[i], s, i);
    }
    return outcome;
}

/* ---- leaving -------------------------------------------------------------------------------- */

static void leave_line(struct mag_queued *w)
{
    struct mag_waitq *q = w->q;

    mag_spin_lock(&q->lock);
    if (w->is_queued)
        mag_waitq_remove(q, w);
    mag_spin_unlock(&q->lock);
}

/* Who ends the task may be about to tell: a few instructions, unless it has lost its
 * processor. */
static void leave_task(struct part *p)
{
    unsigned n = 0;

    if (mag_task_unwait(p->task, &p->ending.waiter))
        return;
    while (!mag_load_acquire(&p->ending.is_told)) {
        mag_cpu_relax();
        if (++n % 1024 == 0)
            mag_sys_yield();
    }
}

static void leave_all(struct mag_case *cases, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct part *p = part(&cases[i]);
        if (!p->is_joined)
            continue;
        if (is_in_line(&cases[i]))
            leave_line(&p->w);
        else
            leave_task(p);
    }
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* A thread. */
static void block(struct select *s)
{
    while (!mag_load_acquire(&s->choice.is_woken)) {
        mag_time left = s->deadline == MAG_NEVER ? MAG_NEVER : s->deadline - mag_clock_now();
        if (left <= 0 && claim(s, s->at + 1))
            return;
        mag_sys_futex_wait(&s->choice.is_woken, 0, left > 0 ? left : MAG_NEVER);
    }
}

/* The earliest time among the cases; and before anything is joined. */
static void prepare(struct mag_case *cases, uint32_t n, struct select *s)
{
    for (uint32_t i = 0; i < n; i++) {
        struct part *p = part(&cases[i]);
        p->is_joined = false;
        if (cases[i].kind_ == CASE_AT && p->deadline < s->deadline) {
            s->deadline = p->deadline;
            s->at = i;
        }
    }
}

/* What has happened while it slept. */
static int outcome_of(struct mag_case *cases, const struct select *s)
{
    uint32_t won = mag_load_relaxed(&s->choice.won); /* ordered by the wake-up */

    if (won == MAG_CHOICE_OFF)
        return -ECANCELED;
    if (is_in_line(&cases[won - 1]))
        cases[won - 1].rc = part(&cases[won - 1])->w.rc;
    return (int)won - 1;
}

/* Joins, and sleeps unless that has settled it. */
static int join_and_sleep(struct mag_case *cases, uint32_t n, uint32_t first, struct select *s)
{
    uint32_t which = 0;
    int rc = s->fiber ? mag_wait_begin(s->fiber, &s->wait) : mag_wait_outside();

    if (rc < 0)
        return rc;
    rc = attempt_all(cases, n, first, s, &which);
    if (rc == NOT_YET || rc == TOO_LATE) {
        if (s->fiber)
            mag_wait_suspend_portable(s->fiber);
        else
            block(s);
        rc = outcome_of(cases, s);
    } else {
        if (s->fiber)
            mag_wait_abandon(s->fiber);
        rc = rc == HAPPENED ? (int)which : rc;
    }
    leave_all(cases, n);
    return rc;
}

MAG_SUSPENDS static int wait_for_one(struct mag_case *cases, uint32_t n, uint32_t first)
{
    struct select s = { .wait = { &select_kind, NULL },
                        .fiber = mag_fiber_self(),
                        .deadline = MAG_NEVER };
    int rc;

    prepare(cases, n, &s);
    if (s.fiber == NULL || s.deadline == MAG_NEVER)
        return join_and_sleep(cases, n, first, &s);
    rc = mag_scope_enter(&s.scope, s.deadline, NULL);
    if (rc < 0)
        return rc;
    rc = mag_scope_leave(&s.scope, join_and_sleep(cases, n, first, &s));
    return rc == -ETIMEDOUT ? (int)s.at : rc;
}

/* ---- the interface -------------------------------------------------------------------------- */

static int check_task(const struct mag_task *t)
{
    struct mag_fiber *f = mag_fiber_self();
    uint32_t kind;

    if (t == NULL)
        return -ENOMEM;
    kind = mag_load_relaxed(&t->head.used);
    if (kind == 0)
        return mag_misuse(-EALREADY, "mag_select: the task of a case was awaited before");
    if (kind == MAG_COROUTINE && !mag_load_relaxed(&t->is_begun))
        return mag_misuse(-EINVAL, "mag_select: the coroutine '%s' of a case was never started",
                          mag_task_name(t));
    for (const struct mag_task *u = f ? f->current : NULL; u; u = u->outer)
        if (u == t)
            return mag_misuse(-EDEADLK, "mag_select: '%s' waits for its own end", mag_task_name(t));
    return 0;
}

static int check(struct mag_case *cases, size_t n)
{
    int rc = 0;

    if (cases == NULL || n == 0 || n > MAG_SELECT_MAX)
        return mag_misuse(-EINVAL, "mag_select: %zu cases; there may be 1 to %d", n,
                          MAG_SELECT_MAX);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (cases[i].kind_ < CASE_GET || cases[i].kind_ > CASE_DONE)
            rc =
                mag_misuse(-EINVAL, "mag_select: case %zu was not made by a mag_case_ function", i);
        else if (cases[i].kind_ == CASE_DONE)
            rc = check_task(part(&cases[i])->task);
        else if (cases[i].kind_ != CASE_AT && part(&cases[i])->any == NULL)
            rc = mag_misuse(-EINVAL, "mag_select: the queue or event of case %zu is NULL", i);
    }
    return rc;
}

/* Where to begin, so that no case is always behind another. */
static uint32_t first_of(uint32_t n)
{
    struct mag_worker *w = mag_worker_self();

    if (n == 1)
        return 0;
    return w ? mag_rand_below(&w->rand, n) : (uint32_t)(mag_clock_ticks() >> 4) % n;
}

MAG_SUSPENDS int mag_select(struct mag_case *cases, size_t n)
{
    uint32_t which = 0, first;
    int rc = check(cases, n);

    if (rc < 0)
        return rc;
    first = first_of((uint32_t)n);
    rc = attempt_all(cases, (uint32_t)n, first, NULL, &which);
    if (rc == NOT_YET)
        return wait_for_one(cases, (uint32_t)n, first);
    mag_queue_take_turns();
    return (int)which;
}

int mag_select_nowait(struct mag_case *cases, size_t n)
{
    uint32_t which = 0;
    int rc = check(cases, n);

    if (rc < 0)
        return rc;
    rc = attempt_all(cases, (uint32_t)n, first_of((uint32_t)n), NULL, &which);
    return rc == NOT_YET ? -EAGAIN : (int)which;
}

static struct mag_case case_of(int kind, struct part p)
{
    struct mag_case c = { .kind_ = kind };

    memcpy(c.private_, &p, sizeof p);
    return c;
}

struct mag_case mag_case_get(struct mag_queue *q, void *item)
{
    return case_of(CASE_GET, (struct part){ .q = q, .item = item });
}

struct mag_case mag_case_put(struct mag_queue *q, const void *item)
{
    return case_of(CASE_PUT, (struct part){ .q = q, .item = (void *)(uintptr_t)item });
}

struct mag_case mag_case_event(struct mag_event *e)
{
    return case_of(CASE_EVENT, (struct part){ .event = mag_event_state(e) });
}

struct mag_case mag_case_at(mag_time deadline)
{
    return case_of(CASE_AT, (struct part){ .deadline = deadline });
}

struct mag_case mag_case_done(void *task)
{
    return case_of(CASE_DONE, (struct part){ .task = mag_task_of(task) });
}
