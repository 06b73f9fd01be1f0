/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - all tasks of a runtime, described by the workers whose they are
 *
 * Only a fiber's home thread may look at what it runs and waits for.  So the question goes
 * to each worker as a message; its loop walks the objects of the process, describes those
 * whose home it is, and counts itself as done:
 *
 *      asker                        worker 1         worker 2 (computes)
 *      request, a part for each --> describe ...     (later)
 *      wait, 100 ms at most   <---- n_left - 1       ...
 *      merge what is there, and look at the rest from outside
 *
 * A worker that answers too late writes to its own part of the request, which is freed by
 * whoever drops the last reference.
 *
 * While a worker describes, no task of its own runs; other workers could only take one of
 * its fibers away (worker.c, move_to), which its move_lock forbids.  Lock order: move_lock,
 * then the slab's.
 *
 * Nobody owns a task that has not started or has ended: its handle may be anywhere, and it
 * may be freed while it is looked at.  Its words are copied first, and what they point to is
 * read through the kernel (mag_sys_peek), which answers -EFAULT where nothing is any more.
 * So the worst is a line that is out of date.
 *
 * Who awaits whom: a coroutine in place knows its outer one; a task's slot has the waiter,
 * and the children of a gather or group know the flag that stops them all: both lie on the
 * stack of who awaits, so the fiber whose stack it is, is the one.
 *
 * Rejected: stopping all workers for a consistent picture (a busy one would stop the others
 * for as long as it computes); a list of all tasks (a cost for each).
 */
#include "snapshot.h"

#include "check.h"
#include "clock.h"
#include "embed.h"
#include "gen.h"
#include "mem.h"
#include "sys.h"
#include "sys_debug.h"

#include <stdlib.h>
#include <string.h>

#define PATIENCE_NS (100 * MAG_MS)

struct part {
    struct mag_message msg;
    struct request *request;         /* [const] */
    struct mag_snapshot_task *tasks; /* [worker, then asker] */
    size_t n, room;
    mag_atomic(uint32_t) is_answered; /* [any] */
};

struct request {
    mag_atomic(uint32_t) refs;   /* [any] the asker, and each part under way */
    mag_atomic(uint32_t) n_left; /* [any] futex: parts not answered */
    unsigned n_parts;            /* [const] */
    struct part parts[];
};

/* ---- waiting for answers ---------------------------------------------------------- */

void mag_snapshot_answered(mag_atomic(uint32_t) * word)
{
    mag_sys_futex_wake(word, 1);
}

struct nap {
    struct mag_timer timer;
    struct mag_fiber *fiber;
};

static void nap_over(struct mag_timer *timer)
{
    mag_worker_ready(mag_container_of(timer, struct nap, timer)->fiber);
}

/* Not a cancellation point: a cancelled task may ask what is going on, too. */
static void nap(mag_time ns)
{
    struct mag_worker *w = mag_worker_self();
    struct nap n = { .fiber = w->fiber };

    mag_timer_init(&n.timer, nap_over);
    (void)mag_worker_enter(w);
    if (mag_timers_add(&w->timers, &n.timer, mag_clock_now() + ns) == 0)
        mag_worker_suspend(NULL, NULL);
    else
        mag_worker_leave(w, 0);
}

bool mag_snapshot_await(mag_atomic(uint32_t) * word, mag_time limit_ns)
{
    mag_time end = mag_clock_now() + limit_ns, step = 20 * MAG_US, now;
    uint32_t left;

    while ((left = mag_load_acquire(word)) != 0 && (now = mag_clock_now()) < end) {
        if (mag_fiber_self()) {
            nap(step);
            step = step < MAG_MS ? 2 * step : step;
        } else {
            (void)mag_sys_futex_wait(word, left, end - now);
        }
    }
    return left == 0;
}

static void request_unref(struct request *r)
{
    if (mag_fetch_sub(&r->refs, 1) != 1)
        return;
    for (unsigned i = 0; i < r->n_parts; i++)
        mag_mem_free(r->parts[i].tasks);
    mag_mem_free(r);
}

/* ---- the home describes its tasks ------------------------------------------------- */

struct walk {
    struct mag_worker *worker;
    struct part *part;
    struct mag_fiber **ready; /* sorted by address */
    size_t n_ready, n_found;
};

static void set_name(char to[48], const char *name)
{
    (void)mag_check_text(to, 48, "%s", name);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

    return (x > y) - (x < y);
}

/* Without memory for it, tasks that are ready are said to wait. */
static void find_ready(struct walk *walk)
{
    struct mag_worker *w = walk->worker;
    size_t room = w->ready.count + 1;

    walk->ready = mag_mem_alloc(room * sizeof *walk->ready);
    if (walk->ready == NULL)
        return;
    if (w->next)
        walk->ready[walk->n_ready++] = w->next;
    for (struct mag_fifo_node *n = w->ready.head; n && walk->n_ready < room; n = n->next)
        walk->ready[walk->n_ready++] = mag_container_of(n, struct mag_fiber, link);
    qsort(walk->ready, walk->n_ready, sizeof *walk->ready, by_address);
}

static bool is_ready(const struct walk *walk, struct mag_fiber *f)
{
    return bsearch(&f, walk->ready, walk->n_ready, sizeof *walk->ready, by_address) != NULL;
}

/* What the kind of wait says; if that is another task or a future, with its name. */
static void describe_wait(struct mag_task_info *info, const struct mag_wait *wait)
{
    static const char task[] = "task";
    size_t len;

    info->state = MAG_TASK_WAITING;
    info->waiting_for = wait ? wait->kind->what : "something that cannot be cancelled";
    info->waiting_on = wait ? wait->on : NULL;
    if (info->waiting_on == NULL)
        return;
    len = strlen(info->waiting_for);
    if (len < sizeof task - 1 || strcmp(info->waiting_for + len - (sizeof task - 1), task) != 0)
        return;
    set_name(info->waiting_name, mag_task_name(mag_task_of_frame(info->waiting_on)));
    if (mag_load_relaxed(&mag_task_of_frame(info->waiting_on)->head.used) == MAG_FUTURE)
        info->waiting_for = "future";
}

/* The one that `outer' awaits in place, on a fiber that runs more than that. */
static struct mag_task *inner_of(struct mag_fiber *f, const struct mag_task *outer)
{
    struct mag_task *t = f->current;

    while (t && t->outer != outer)
        t = t->outer;
    return t;
}

static void describe_on_fiber(struct walk *walk, struct mag_snapshot_task *s, struct mag_task *t)
{
    struct mag_fiber *f = t->fiber;
    struct mag_task *inner = f->current == t ? NULL : inner_of(f, t);

    s->info.is_in_place = t->outer != NULL;
    s->info.awaited_by = t->outer ? mag_task_frame(t->outer) : NULL;
    if (inner) {
        s->info.state = MAG_TASK_WAITING;
        s->info.waiting_for = "task";
        s->info.waiting_on = mag_task_frame(inner);
        set_name(s->info.waiting_name, mag_task_name(inner));
    } else if (is_ready(walk, f)) {
        s->info.state = MAG_TASK_READY;
    } else if (f != walk->worker->fiber) {
        describe_wait(&s->info, f->wait);
        if (f->wait == NULL && t->work.run == mag_gen_run)
            s->info.waiting_for = "whoever iterates it";
    }
    if (f == walk->worker->fiber) {
        s->info.state = MAG_TASK_RUNNING;
        s->info.waiting_for = NULL;
        s->info.waiting_on = NULL;
        s->info.waiting_name[0] = '\0';
    }
    if (f->current == t) {
        s->lo = f->stack.lo;
        s->hi = f->stack.lo + f->stack.bytes;
    }
}

/* NULL also for one that its awaiter runs in place. */
static const void *waiter_in(uint64_t slot)
{
    return mag_slot_is_waiter(slot) ? mag_slot_waiter(slot) : NULL;
}

static void describe_origin(struct mag_task_info *info, const struct mag_task *t)
{
    if (mag_task_site(t))
        info->spawned_at = *mag_task_site(t);
    else if (t->origin_kind == MAG_ORIGIN_MADE)
        info->made_at = t->made_at;
}

static bool is_at_home(const struct mag_worker *w, struct mag_slab_head *block)
{
    struct mag_task *t = mag_container_of(block, struct mag_task, head);

    return mag_load_acquire(&block->used) == MAG_COROUTINE && mag_task_home(t) == w;
}

static void count_task(struct mag_slab_head *block, void *arg)
{
    struct walk *walk = arg;

    walk->n_found += is_at_home(walk->worker, block);
}

static void describe_task(struct mag_slab_head *block, void *arg)
{
    struct walk *walk = arg;
    struct part *p = walk->part;
    struct mag_task *t = mag_container_of(block, struct mag_task, head);
    struct mag_snapshot_task *s;

    if (!is_at_home(walk->worker, block) || p->n == p->room)
        return;
    s = &p->tasks[p->n++];
    s->info.handle = mag_task_frame(t);
    set_name(s->info.name, mag_task_name(t));
    s->info.worker = walk->worker->id + 1;
    s->waiter = waiter_in(mag_load_acquire(&t->work.slot));
    s->siblings = t->ext ? t->ext->stopping : NULL;
    describe_origin(&s->info, t);
    if (t->is_leaf)
        describe_wait(&s->info, t->leaf_wait);
    else
        describe_on_fiber(walk, s, t);
}

/* On the worker's thread: from its loop, or by the task that asks. */
static void describe_all(struct part *p, struct mag_worker *w)
{
    struct walk walk = { .worker = w, .part = p };

    find_ready(&walk);
    mag_spin_lock(&w->move_lock);
    mag_slab_foreach(count_task, &walk);
    mag_spin_unlock(&w->move_lock);
    p->tasks = mag_mem_zalloc(walk.n_found * sizeof *p->tasks);
    p->room = p->tasks ? walk.n_found : 0;
    mag_spin_lock(&w->move_lock);
    mag_slab_foreach(describe_task, &walk);
    mag_spin_unlock(&w->move_lock);
    mag_mem_free(walk.ready);
}

static void answer(struct mag_message *m, struct mag_worker *w)
{
    struct part *p = mag_container_of(m, struct part, msg);
    struct request *r = p->request;

    describe_all(p, w);
    mag_store_release(&p->is_answered, 1);
    if (mag_fetch_sub(&r->n_left, 1) == 1)
        mag_snapshot_answered(&r->n_left);
    request_unref(r);
}

/* ---- the others, from outside ----------------------------------------------------- */

/* The words of a task that nobody owns, as they were at one moment or another. */
struct words {
    uint64_t slot;
    uintptr_t home;
    const struct mag_co_type *type;
    const struct mag_task_ext *ext;
    const void *origin;
    uint8_t origin_kind;
    uint8_t is_begun;
};

struct others {
    struct mag_rt *rt;
    const struct request *request;
    struct mag_snapshot_task *tasks;
    struct words *words;
    size_t n, room;
};

static struct mag_worker *worker_of(const struct mag_rt *rt, uintptr_t home)
{
    struct mag_worker *w = (struct mag_worker *)(home & ~(uintptr_t)MAG_HOME_IDLE);

    return w >= rt->workers && w < rt->workers + rt->n_workers ? w : NULL;
}

/* Not at home anywhere, or where nobody answers. */
static bool is_other(const struct others *o, struct mag_slab_head *block)
{
    struct mag_task *t = mag_container_of(block, struct mag_task, head);
    uintptr_t home = mag_load_acquire(&t->home);
    struct mag_worker *w = worker_of(o->rt, home);

    if (mag_load_acquire(&block->used) != MAG_COROUTINE || w == NULL)
        return false;
    return (home & MAG_HOME_IDLE) || !mag_load_acquire(&o->request->parts[w->id].is_answered);
}

static void count_other(struct mag_slab_head *block, void *arg)
{
    struct others *o = arg;

    o->room += is_other(o, block);
}

/* These reads are races, whose outcome is checked. */
MAG_RACY static void copy_words(const volatile struct mag_task *t, struct words *words)
{
    words->slot = t->work.slot;
    words->home = t->home;
    words->type = t->type;
    words->ext = t->ext;
    words->origin_kind = t->origin_kind;
    words->origin = t->made_at;
    words->is_begun = t->is_begun;
}

static void note_other(struct mag_slab_head *block, void *arg)
{
    struct others *o = arg;
    struct mag_task *t = mag_container_of(block, struct mag_task, head);

    if (o->n == o->room || !is_other(o, block))
        return;
    o->tasks[o->n].info.handle = mag_task_frame(t);
    copy_words(t, &o->words[o->n]);
    o->n++;
}

static void peek_name(struct mag_snapshot_task *s, const struct words *words)
{
    struct mag_task_info *info = &s->info;
    struct mag_co_type type;
    struct mag_task_ext ext = { .name = NULL };

    if (words->ext && mag_sys_peek(words->ext, &ext, sizeof ext) == 0)
        s->siblings = ext.stopping;
    if (ext.head.used == MAG_AUXILIARY && !ext.is_shared && ext.name &&
        mag_sys_peek_text(ext.name, info->name, sizeof info->name) == 0)
        return;
    if (mag_sys_peek(words->type, &type, sizeof type) < 0 ||
        mag_sys_peek_text(type.name, info->name, sizeof info->name) < 0)
        set_name(info->name, "?");
}

static void peek_origin(struct mag_task_info *info, const struct words *words)
{
    struct mag_site site;
    char text[256];

    if (words->origin_kind == MAG_ORIGIN_MADE)
        info->made_at = words->origin;
    else if (mag_sys_peek(words->origin, &site, sizeof site) == 0 &&
             mag_sys_peek_text(site.file, text, sizeof text) == 0)
        info->spawned_at = (struct mag_site){ site.file, site.line, NULL };
}

/* Many tasks in a row are of one kind: what was found out of the last one serves again. */
static void describe_other(const struct others *o, size_t i)
{
    struct mag_snapshot_task *s = &o->tasks[i];
    const struct words *words = &o->words[i], *last = i ? words - 1 : NULL;

    if (!(words->home & MAG_HOME_IDLE)) {
        s->info.is_busy = true;
        s->info.worker = worker_of(o->rt, words->home)->id + 1;
        s->info.state = MAG_TASK_WAITING;
        s->info.waiting_for = "its worker, which is busy";
    } else if (words->slot == MAG_SLOT_DONE) {
        s->info.state = MAG_TASK_DONE;
    } else {
        s->info.state = words->is_begun ? MAG_TASK_READY : MAG_TASK_CREATED;
    }
    s->waiter = waiter_in(words->slot);
    if (last && last->type == words->type && last->ext == words->ext) {
        set_name(s->info.name, s[-1].info.name);
        s->siblings = s[-1].siblings;
    } else {
        peek_name(s, words);
    }
    if (last && last->origin_kind == words->origin_kind && last->origin == words->origin) {
        s->info.made_at = s[-1].info.made_at;
        s->info.spawned_at = s[-1].info.spawned_at;
    } else {
        peek_origin(&s->info, words);
    }
}

static int describe_others(struct others *o)
{
    mag_slab_foreach(count_other, o);
    o->tasks = mag_mem_zalloc(o->room * sizeof *o->tasks);
    o->words = mag_mem_zalloc(o->room * sizeof *o->words);
    if (o->tasks && o->words) {
        mag_slab_foreach(note_other, o);
        for (size_t i = 0; i < o->n; i++)
            describe_other(o, i);
    }
    mag_mem_free(o->words);
    return o->tasks && o->words ? 0 : -ENOMEM;
}

/* ---- the whole -------------------------------------------------------------------- */

/* By handle; of two that are the same, the one with a worker that answered first. */
static int by_handle(const void *a, const void *b)
{
    const struct mag_snapshot_task *x = a, *y = b;

    if (x->info.handle != y->info.handle)
        return (uintptr_t)x->info.handle < (uintptr_t)y->info.handle ? -1 : 1;
    return (x->info.worker == 0 || x->info.is_busy) - (y->info.worker == 0 || y->info.is_busy);
}

static void add_all(struct mag_snapshot *out, const struct mag_snapshot_task *tasks, size_t n)
{
    if (n)
        memcpy(out->tasks + out->n, tasks, n * sizeof *tasks);
    out->n += n;
}

/* One that moved, or ended, in between was seen twice. */
static void sort_and_drop_twins(struct mag_snapshot *out)
{
    size_t kept = 0;

    qsort(out->tasks, out->n, sizeof *out->tasks, by_handle);
    for (size_t i = 0; i < out->n; i++)
        if (kept == 0 || out->tasks[kept - 1].info.handle != out->tasks[i].info.handle)
            out->tasks[kept++] = out->tasks[i];
    out->n = kept;
}

static int merge(const struct request *r, const struct others *o, struct mag_snapshot *out)
{
    size_t room = o->n;

    for (unsigned i = 0; i < r->n_parts; i++) {
        out->is_busy[i] = !mag_load_acquire(&r->parts[i].is_answered);
        room += out->is_busy[i] ? 0 : r->parts[i].n;
    }
    out->n = 0;
    out->tasks = mag_mem_alloc(room * sizeof *out->tasks);
    if (out->tasks == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < r->n_parts; i++)
        if (!out->is_busy[i])
            add_all(out, r->parts[i].tasks, r->parts[i].n);
    add_all(out, o->tasks, o->n);
    sort_and_drop_twins(out);
    return 0;
}

struct mag_snapshot_task *mag_snapshot_find(const struct mag_snapshot *s, const void *handle)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uintptr_t)s->tasks[mid].info.handle < (uintptr_t)handle)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->tasks[lo].info.handle == handle ? &s->tasks[lo] : NULL;
}

static int by_stack(const void *a, const void *b)
{
    const struct mag_snapshot_task *x = *(struct mag_snapshot_task *const *)a;
    const struct mag_snapshot_task *y = *(struct mag_snapshot_task *const *)b;

    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* The innermost task of the fiber on whose stack that address (NULL: none) lies. */
static struct mag_snapshot_task *on_stack(struct mag_snapshot_task **fibers, size_t n,
                                          const char *at)
{
    size_t lo = 0, hi = n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (fibers[mid]->hi <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && fibers[lo]->lo <= at ? fibers[lo] : NULL;
}

/*
 * Of the tasks that run on one fiber, from the innermost outwards: the one that awaits those
 * siblings.  One of them may run in place, and further ones in that.
 */
static struct mag_snapshot_task *above_siblings(const struct mag_snapshot *s,
                                                struct mag_snapshot_task *innermost,
                                                const void *siblings)
{
    struct mag_snapshot_task *t = innermost, *found = innermost;

    for (; t && siblings; t = t->info.is_in_place ? mag_snapshot_find(s, t->info.awaited_by) : NULL)
        if (t->siblings == siblings)
            found = mag_snapshot_find(s, t->info.awaited_by);
    return found;
}

static void set_awaited_by(struct mag_snapshot *s)
{
    struct mag_snapshot_task **fibers = mag_mem_alloc(s->n * sizeof(void *)), *other;
    size_t n = 0;

    for (size_t i = 0; i < s->n && fibers; i++)
        if (s->tasks[i].lo)
            fibers[n++] = &s->tasks[i];
    if (fibers)
        qsort(fibers, n, sizeof *fibers, by_stack);
    for (size_t i = 0; i < s->n && fibers; i++) {
        struct mag_snapshot_task *t = &s->tasks[i];
        if (t->info.awaited_by)
            continue;
        other = on_stack(fibers, n, t->waiter ? t->waiter : t->siblings);
        other = other ? above_siblings(s, other, t->siblings) : NULL;
        if (other && other != t)
            t->info.awaited_by = other->info.handle;
    }
    for (size_t i = 0; i < s->n; i++) { /* and what the awaiting ones say themselves */
        struct mag_task_info *info = &s->tasks[i].info;
        if (info->waiting_name[0] && (other = mag_snapshot_find(s, info->waiting_on)) &&
            other->info.awaited_by == NULL)
            other->info.awaited_by = info->handle;
    }
    mag_mem_free(fibers);
}

static struct request *ask(struct mag_rt *rt)
{
    struct mag_worker *self = mag_worker_self();
    struct request *r = mag_mem_zalloc(sizeof *r + rt->n_workers * sizeof r->parts[0]);
    uint32_t was;

    if (r == NULL)
        return NULL;
    if (rt->embed && self == NULL && mag_embed_is_owner(rt)) /* outside a step */
        self = rt->workers;
    r->n_parts = rt->n_workers;
    mag_store_relaxed(&r->refs, 1 + rt->n_workers); /* published by the sends */
    mag_store_relaxed(&r->n_left, rt->n_workers);
    for (unsigned i = 0; i < rt->n_workers; i++) {
        r->parts[i].request = r;
        r->parts[i].msg.deliver = answer;
        if (&rt->workers[i] != self)
            mag_worker_send(&rt->workers[i], &r->parts[i].msg);
    }
    if (self && self->rt == rt) {
        was = mag_worker_enter(self);
        answer(&r->parts[self->id].msg, self);
        mag_worker_leave(self, was);
    }
    return r;
}

int mag_snapshot_take(struct mag_rt *rt, struct mag_snapshot *out)
{
    struct request *r = ask(rt);
    struct others o = { .rt = rt, .request = r };
    int rc;

    if (r == NULL)
        return -ENOMEM;
    (void)mag_snapshot_await(&r->n_left, PATIENCE_NS);
    rc = describe_others(&o);
    if (rc == 0)
        rc = merge(r, &o, out);
    mag_mem_free(o.tasks);
    request_unref(r);
    if (rc == 0)
        set_awaited_by(out);
    return rc;
}

void mag_snapshot_free(struct mag_snapshot *s)
{
    mag_mem_free(s->tasks);
    s->tasks = NULL;
}
