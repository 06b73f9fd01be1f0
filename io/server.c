/* SPDX-License-Identifier: MIT */
/*
 * server.c - accepting connections: a task for each
 *
 *      root      owns the halls; waits to be told to stop, then for their end until .drain
 *      |-- hall, one for each listening socket and worker, pinned there
 *      |   |   group of connections ------------------ a task each, not pinned
 *      |   |   '-- group of the door: accept, begin a connection, accept ...
 *      |   |           '-- usher: waits for the stop, then cancels the door's group
 *      |-- hall ...
 *
 * All workers accept on the same socket.  The kernel wakes one of those who wait (an accept in
 * a ring polls exclusively), and a busy worker is not among them.  A connection begins in the
 * deque of the worker that accepted it, so that an idle one may steal it before it has begun;
 * its first suspension ties it to the ring of whoever has run it.  Every hall has a group and
 * a list of its own: what all connections share is the count of free places, once when they
 * come and once when they go.
 *
 * A connection's record is on its hall's list before its task exists, because a task that is
 * cancelled before it has run never runs: what is on the list when all tasks of the hall have
 * ended is such a one's, and is closed by the hall.
 *
 * Stopping.  The usher ends the door's group: what the door waits in (accept, a place, a pause)
 * returns -ECANCELED, and nothing else does.  The last door closes the sockets, so nobody queues
 * up in a backlog that nobody will look at.  Then each hall ends the reading of its connections
 * and waits for them in mag_group_leave.  The deadline is a scope of root's around the group of
 * halls, which a stop brings forward from never: when it fires, groups cancel what is in them.
 *
 * Where connections have requests, only those are ended that wait for one, and not by a
 * shutdown(2): a part of the next request may have come in this very moment, and its rest must not
 * be lost.  What they wait in is interrupted instead, again and again until they have noticed
 * (one may be on its way into its read, or out of it with bytes); then each looks whether
 * there is anything to be served, and never waits again.
 *
 * A descriptor is shut down only with the hall's lock held, and the record forgets it under that
 * lock before the stream closes it (struct mag_stream_owner): so no number is shut down that is
 * somebody else's by now.  An interrupt takes longer than a lock may be held: `is_held' keeps the
 * stream from closing it meanwhile.
 *
 * A quiet connection, which waits in a read, costs 12.6 KiB: two pages of its stack, one of the
 * stream's buffer, and some 600 bytes (19,000 of them, tests/stress/connections.c).
 *
 * Invariants
 *   1. One permit of `room' is held by each record on a list and by each door that accepts.
 *   2. A list is in the order of the numbers.  A sweep (which does something to all of it, one
 *      after the other) has a mark of its own in it, and stops at what came after it began.
 *   3. Every accepted descriptor is in a record, which is freed exactly once: by its task's end,
 *      or by its hall's.
 *   4. `ended' is set by root, last; after that the server may be gone.
 *
 * Order: `is_draining' is stored before `stopping' is set; a record that a hall's sweep does not
 * find there came later, and looks for itself, under the same lock.
 *   (D) Who waits for a request says so, and then looks whether the server stops; a sweep comes
 *       after that was said, and looks who waits.  So one sees the other.
 *   (H) A sweep holds a connection, and then looks whether it waits; that says that it does not
 *       any more, and then looks whether it is held.  So nothing is interrupted that comes after
 *       the wait, an answer for one: who is held waits until the sweep has let go.
 * Neither takes the lock: a hall's line would travel between the workers with each request.
 *
 * Rejected: shutdown(2) of the listening socket to wake who accepts (it is shared with the
 * process that handed it over); one acceptor that deals connections out (4 workers on a busy
 * machine: 37k connections a second instead of 51k, and 1.7 times the processor time for each;
 * with 2 workers there is no difference).
 *
 * Sources: accept(2); CPython's base_events.Server; reliability.md 37 and D10.
 */
#include <magpie/server.h>

#include "cancel.h"
#include "clock.h"
#include "list.h"
#include "mem.h"
#include "misuse.h"
#include "report.h"
#include "server_listen.h"
#include "sys_net.h"
#include "transport.h"
#include "wait.h"

#include <errno.h>
#include <magpie/group.h>
#include <magpie/net.h>
#include <magpie/scope.h>
#include <magpie/sync.h>

enum { CONNECTIONS = 10000, PEER_BYTES = 128 };

#define DRAIN       (10 * MAG_SECOND)
#define TLS_TIMEOUT (10 * MAG_SECOND)
#define PAUSE_MIN   (50 * MAG_MS)
#define PAUSE_MAX   MAG_SECOND
#define SAY_AGAIN   (10 * MAG_SECOND)

struct hall;

/* One that was accepted. */
struct connection {
    struct mag_stream_owner owner; /* first: a stream's owner is this              */
    struct mag_list link;          /* [hall->lock]                                 */
    struct hall *hall;             /* [const] NULL: a sweep's mark                 */
    struct mag_task *task;         /* [hall->lock] NULL: it has not begun          */
    uint64_t number;               /* [const] in its hall                          */
    int fd;                        /* [hall->lock] -1: closed, or being closed     */
    mag_atomic(bool) is_waiting;   /* [task] for a request                         */
    mag_atomic(bool) is_held;      /* [hall->lock] a sweep is about to interrupt it */
    bool is_aborted;               /* [hall->lock]                                 */
    struct mag_stream stream;      /* [task]                                       */
};

/* Where one worker accepts from one socket. */
struct hall {
    MAG_CACHELINE struct mag_spin lock;
    mag_atomic(uint32_t) n_open;     /* [lock] read without it as a hint */
    uint64_t n_records;              /* [lock] so far */
    struct mag_list open;            /* [lock] records by number, and marks of sweeps */
    struct mag_server *server;       /* [const] */
    int fd;                          /* [const] listening */
    unsigned worker;                 /* [const] 1..n */
    mag_time pause;                  /* [door] 0: accepting went well */
    mag_atomic(uint64_t) n_accepted; /* [door writes] */
    mag_atomic(uint64_t) n_refused;  /* [door writes] */
    mag_atomic(uint64_t) n_failed;   /* [any] */
};

struct mag_server {
    mag_stream_handler *handler;      /* [const] */
    void *arg;                        /* [const] */
    struct mag_serve_options options; /* [const] without those of listening */
    struct mag_rt *rt;                /* [const] */
    struct mag_listeners listeners;   /* [start], then whoever brings n_doors to 0 */
    uint16_t port;                    /* [const] */
    struct mag_sem room;              /* places for connections */
    struct mag_event started;         /* by root: start_rc is there */
    struct mag_event stopping;        /* by any: the doors are to close */
    struct mag_event ended;           /* by root, last */
    mag_atomic(uint32_t) is_draining; /* [any] */
    mag_atomic(uint32_t) n_doors;     /* [halls] that are open, or not yet */
    mag_atomic(mag_time) next_word;   /* [doors] when a shortage may be told of (again) */
    struct mag_spin lock;
    struct mag_task *root; /* [lock] while it runs */
    int start_rc;          /* [root] until started */
    int rc;                /* [root] until ended */
    unsigned n_halls;      /* [const] */
    struct hall halls[];
};

/* ---- records ------------------------------------------------------------------------------- */

static struct connection *connection_of(const struct mag_stream *s)
{
    return (struct connection *)s->owner;
}

/* While a sweep is about to interrupt the connection. */
static void stand_back(void)
{
    struct mag_scope shield;
    bool is_shielded = mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;

    (void)mag_yield();
    if (is_shielded)
        (void)mag_scope_leave(&shield, 0);
}

static void closing(struct mag_stream *s)
{
    struct connection *c = mag_container_of(s, struct connection, stream);

    mag_spin_lock(&c->hall->lock);
    while (mag_load_relaxed(&c->is_held)) {
        mag_spin_unlock(&c->hall->lock);
        stand_back();
        mag_spin_lock(&c->hall->lock);
    }
    c->fd = -1;
    mag_spin_unlock(&c->hall->lock);
}

static struct connection *record(struct hall *h, int fd)
{
    struct connection *c = mag_mem_zalloc(sizeof *c);

    if (c == NULL)
        return NULL;
    c->owner.closing = closing;
    c->hall = h;
    c->fd = fd;
    mag_spin_lock(&h->lock);
    c->number = h->n_records++;
    mag_list_push_back(&h->open, &c->link);
    mag_store_relaxed(&h->n_open, h->n_open + 1);
    mag_spin_unlock(&h->lock);
    return c;
}

/* The permit is the caller's again. */
static void strike_out(struct connection *c)
{
    struct hall *h = c->hall;

    mag_spin_lock(&h->lock);
    mag_list_remove(&c->link);
    mag_store_relaxed(&h->n_open, h->n_open - 1);
    mag_spin_unlock(&h->lock);
    mag_mem_free(c);
}

/* With the lock held. */
static void end_reading(struct connection *c)
{
    if (c->fd >= 0)
        (void)mag_sys_shutdown(c->fd, SHUT_RD);
}

/* The next record behind a link of the list that is no sweep's mark, or NULL.  With the lock. */
static struct connection *next_of(const struct hall *h, const struct mag_list *link)
{
    while ((link = mag_list_next(&h->open, link)) != NULL) {
        struct connection *c = mag_container_of(link, struct connection, link);
        if (c->hall)
            return c;
    }
    return NULL;
}

/* Moves the mark behind the next record that is older than the sweep, which is returned. */
static struct connection *step(struct hall *h, struct connection *mark)
{
    struct connection *c = next_of(h, &mark->link);

    if (c == NULL || c->number >= mark->number)
        return NULL;
    mag_list_remove(&mark->link);
    mag_list_push_front(&c->link, &mark->link);
    return c;
}

/* What is to be done to a connection without the lock. */
struct deed {
    struct mag_task *task; /* is cancelled, and released       */
    bool interrupts;       /* what it is in; it is held for it */
};

static void carry_out(struct connection *c, const struct deed *deed)
{
    if (deed->task) {
        mag_cancel_task(deed->task);
        mag_worker_release(deed->task);
    }
    if (deed->interrupts)
        mag_transport_socket.interrupt(mag_transport_self(c->fd));
}

/* Does it to every connection of the hall; the lock is free between any two.  Whether any was
 * interrupted. */
static bool sweep(struct hall *h, void (*to_one)(struct connection *c, struct deed *deed))
{
    struct connection mark = { .hall = NULL }, *c;
    bool is_any = false;

    mag_spin_lock(&h->lock);
    mark.number = h->n_records;
    mag_list_push_front(&h->open, &mark.link);
    while ((c = step(h, &mark)) != NULL) {
        struct deed deed = { NULL, false };
        to_one(c, &deed);
        mag_spin_unlock(&h->lock);
        carry_out(c, &deed);
        mag_spin_lock(&h->lock);
        if (deed.interrupts) {
            mag_store_release(&c->is_held, false);
            is_any = true;
        }
    }
    mag_list_remove(&mark.link);
    mag_spin_unlock(&h->lock);
    return is_any;
}

/* ---- one connection --------------------------------------------------------------------------- */

static void close_one(struct connection *c, struct deed *deed)
{
    (void)deed;
    end_reading(c);
}

static void abort_one(struct connection *c, struct deed *deed)
{
    c->is_aborted = true;
    deed->task = c->task;
    if (c->task)
        mag_fetch_add(&c->task->extra_refs, 1);
}

/* Who waits for a request. */
static void interrupt_one(struct connection *c, struct deed *deed)
{
    mag_store_seq(&c->is_held, true); /* (H) */
    deed->interrupts = mag_load_seq(&c->is_waiting) && c->fd >= 0;
    if (!deed->interrupts)
        mag_store_release(&c->is_held, false);
}

static void drain(struct hall *h)
{
    mag_time nap = 20 * MAG_US;

    if (!h->server->options.has_requests) {
        (void)sweep(h, close_one);
        return;
    }
    while (sweep(h, interrupt_one) && mag_sleep(nap) == 0)
        nap = nap < MAG_MS ? 2 * nap : nap;
}

/* False: the server stops, and who would wait for a request need not. */
static bool wait_begin(struct connection *c)
{
    mag_store_seq(&c->is_waiting, true); /* (D) */
    if (MAG_LIKELY(!mag_load_seq(&c->hall->server->is_draining)))
        return true;
    mag_store_seq(&c->is_waiting, false);
    return false;
}

static void wait_end(struct connection *c)
{
    mag_store_seq(&c->is_waiting, false); /* (H) */
    while (MAG_UNLIKELY(mag_load_seq(&c->is_held)))
        stand_back(); /* what has seen us wait must not meet what we do next */
}

/* The server stops: what has come all the same is served. */
static int fill_if_any(struct mag_stream *s, struct connection *c)
{
    char byte;
    int rc = c->fd < 0 ? -EBADF : mag_recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (rc > 0)
        rc = mag_stream_fill(s);
    return rc < 0 && rc != -ECANCELED ? 0 : rc;
}

int mag_stream_wait_request(struct mag_stream *s)
{
    struct connection *c = connection_of(s);
    const char *bytes;
    size_t n = mag_stream_peek(s, &bytes);
    int rc;

    if (n > 0)
        return (int)n;
    if (c == NULL)
        return mag_stream_fill(s);
    if (!wait_begin(c))
        return fill_if_any(s, c);
    rc = mag_stream_fill(s);
    wait_end(c);
    if (rc == -EBADF && mag_stream_is_draining(s)) /* interrupted, perhaps */
        return fill_if_any(s, c);
    /* TLS calls an end without a goodbye an error */
    return rc < 0 && rc != -ECANCELED && mag_stream_is_draining(s) ? 0 : rc;
}

bool mag_stream_is_draining(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c && mag_load_acquire(&c->hall->server->is_draining);
}

static int start_tls(struct connection *c, const struct mag_serve_options *o)
{
    struct mag_scope limit;
    int rc = mag_timeout_enter(&limit, o->tls_timeout ? o->tls_timeout : TLS_TIMEOUT, NULL);

    return rc < 0 ? rc : mag_scope_leave(&limit, mag_stream_start_tls(&c->stream, o->tls, NULL));
}

/* In its task: it can be cancelled from now on.  -ECANCELED if it was before. */
static int enter(struct connection *c)
{
    struct mag_task *self = mag_fiber_self()->current;
    bool is_aborted;

    (void)mag_stream_of_transport(&c->stream, &mag_transport_socket, mag_transport_self(c->fd),
                                  &c->hall->server->options.stream);
    mag_spin_lock(&c->hall->lock);
    c->stream.owner = &c->owner;
    c->task = self;
    is_aborted = c->is_aborted;
    if (mag_load_acquire(&c->hall->server->is_draining) && !c->hall->server->options.has_requests)
        end_reading(c);
    mag_spin_unlock(&c->hall->lock);
    return is_aborted ? -ECANCELED : 0;
}

/* What was not sent is not sent: then the peer must not take what it has for all. */
static void leave(struct connection *c, int rc)
{
    bool is_cut = mag_cancelled() && (rc < 0 || mag_stream_n_buffered(&c->stream) > 0);

    mag_spin_lock(&c->hall->lock);
    is_cut |= c->is_aborted;
    mag_spin_unlock(&c->hall->lock);
    if (is_cut)
        mag_stream_abort(&c->stream);
    else
        (void)mag_stream_close(&c->stream);
}

static void tell(struct connection *c, int rc, const char *peer)
{
    const struct mag_server *s = c->hall->server;

    mag_fetch_add(&c->hall->n_failed, 1);
    if (s->options.on_error)
        s->options.on_error(rc, peer, s->arg);
}

/* Its name, while it is there to be asked. */
static MAG_NOINLINE int serve_telling(struct connection *c)
{
    const struct mag_server *s = c->hall->server;
    char peer[PEER_BYTES] = "";
    int rc = 0;

    if (s->options.on_error)
        (void)mag_stream_peer_name(&c->stream, peer, sizeof peer);
    if (s->options.tls)
        rc = start_tls(c, &s->options);
    if (rc == 0)
        rc = s->handler(&c->stream, s->arg);
    if (rc < 0)
        tell(c, rc, peer);
    return rc;
}

/* Without the frame of the above, which an idle connection would hold. */
static int serve(struct connection *c)
{
    const struct mag_server *s = c->hall->server;
    int rc;

    if (s->options.on_error || s->options.tls)
        return serve_telling(c);
    rc = s->handler(&c->stream, s->arg);
    if (rc < 0)
        tell(c, rc, "");
    return rc;
}

static int connection_body(void *frame, void *result)
{
    struct connection *c = *(struct connection **)frame;
    struct mag_server *s = c->hall->server;
    int rc = enter(c);

    (void)result;
    if (rc == 0)
        rc = serve(c);
    leave(c, rc);
    strike_out(c);
    (void)mag_sem_release(&s->room);
    return 0;
}

static const struct mag_co_type connection_type = {
    .name = "connection",
    .body = connection_body,
    .frame_bytes = sizeof(struct connection *),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "connection_body" },
};

/* ---- accepting ----------------------------------------------------------------------------------- */

static void *co_of(const struct mag_co_type *type, void *arg)
{
    void **frame = mag_co_new(type, NULL);

    if (frame)
        *frame = arg;
    return frame;
}

/* It is counted before it can end, and may be told of. */
static int begin(struct hall *h, struct mag_group *connections, int fd)
{
    struct connection *c = record(h, fd);
    int rc;

    if (c == NULL)
        return -ENOMEM;
    mag_store_relaxed(&h->n_accepted, h->n_accepted + 1);
    rc = mag_group_spawn(connections, co_of(&connection_type, c), NULL, NULL);
    if (rc < 0) {
        mag_store_relaxed(&h->n_accepted, h->n_accepted - 1);
        strike_out(c);
    }
    return rc;
}

/* With a permit, which is the connection's after 0. */
static int admit(struct hall *h, struct mag_group *connections)
{
    int fd = mag_accept(h->fd, NULL, NULL, 0), rc;

    if (fd < 0)
        return fd;
    rc = begin(h, connections, fd);
    if (rc < 0)
        (void)mag_close_fd(fd);
    return rc;
}

/* Told apart from what passes: descriptors, memory, a network that is away for a moment. */
static bool is_for_good(int rc)
{
    return rc == -ECANCELED || rc == -EBADF || rc == -EINVAL || rc == -ENOTSOCK;
}

/* The other doors have the same trouble, and at the limit it comes with every second client: so
 * it is said once, and not again for a while. */
static void say(struct mag_server *s, int rc)
{
    mag_time now = mag_clock_now(), due = mag_load_relaxed(&s->next_word);

    if (now >= due && mag_cas(&s->next_word, &due, now + SAY_AGAIN))
        mag_report(s->rt, "a server cannot accept: %s; it tries again", mag_err_text(rc));
}

static int wait_out(struct hall *h, int rc)
{
    mag_store_relaxed(&h->n_refused, h->n_refused + 1);
    say(h->server, rc);
    h->pause = h->pause == 0 ? PAUSE_MIN : h->pause * 2 < PAUSE_MAX ? h->pause * 2 : PAUSE_MAX;
    return mag_sleep(h->pause);
}

/* Not before the server counts as started: whoever was accepted is told goodbye by a stop, also
 * if who starts it is cancelled just then. */
static int accept_all(struct hall *h, struct mag_group *connections)
{
    int rc = mag_event_wait(&h->server->started);

    while (rc == 0 && (rc = mag_sem_acquire(&h->server->room)) == 0) {
        rc = admit(h, connections);
        if (rc == 0) {
            h->pause = 0;
            continue;
        }
        (void)mag_sem_release(&h->server->room);
        if (!is_for_good(rc))
            rc = wait_out(h, rc);
    }
    return rc;
}

struct usher {
    struct mag_server *server;
    struct mag_group *door;
};

static int usher_body(void *frame, void *result)
{
    const struct usher *u = frame;
    int rc = mag_event_wait(&u->server->stopping);

    (void)result;
    return rc < 0 ? rc : mag_group_cancel(u->door);
}

static const struct mag_co_type usher_type = {
    .name = "usher",
    .body = usher_body,
    .frame_bytes = sizeof(struct usher),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "usher_body" },
};

static const struct mag_spawn_options pinned = { .pin = true };

/* Until the stop: 0. */
static int keep_door(struct hall *h, struct mag_group *connections)
{
    struct mag_group door;
    struct usher *u;
    int rc = mag_group_enter(&door, NULL);

    if (rc < 0)
        return rc;
    u = mag_co_new(&usher_type, NULL);
    if (u)
        *u = (struct usher){ h->server, &door };
    rc = mag_group_spawn(&door, u, NULL, &pinned);
    if (rc == 0)
        rc = accept_all(h, connections);
    return mag_group_leave(&door, rc);
}

/* The last one takes the sockets with it. */
static void close_door(struct mag_server *s)
{
    if (mag_fetch_sub(&s->n_doors, 1) == 1)
        mag_listeners_close(&s->listeners);
}

static struct connection *first_of(struct hall *h, int *fd)
{
    struct connection *c;

    mag_spin_lock(&h->lock);
    c = next_of(h, &h->open);
    if (c) {
        *fd = c->fd;
        c->fd = -1;
    }
    mag_spin_unlock(&h->lock);
    return c;
}

/* Those whose tasks were cancelled before they had run. */
static void close_the_rest(struct hall *h)
{
    struct connection *c;

    int fd;

    while ((c = first_of(h, &fd)) != NULL) { /* only sweeps are left beside us */
        (void)mag_close_fd(fd);
        strike_out(c);
        (void)mag_sem_release(&h->server->room);
    }
}

static int hall_body(void *frame, void *result)
{
    struct hall *h = *(struct hall **)frame;
    struct mag_group connections;
    int rc = mag_group_enter(&connections, NULL);

    (void)result;
    if (rc == 0)
        rc = keep_door(h, &connections);
    close_door(h->server);
    if (rc == 0)
        drain(h);
    rc = mag_group_leave(&connections, rc);
    close_the_rest(h);
    return rc;
}

static const struct mag_co_type hall_type = {
    .name = "hall",
    .body = hall_body,
    .frame_bytes = sizeof(struct hall *),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "hall_body" },
};

/* ---- the whole ------------------------------------------------------------------------------------- */

static int open_halls(struct mag_server *s, struct mag_group *halls)
{
    int rc = 0;

    for (unsigned i = 0; i < s->n_halls && rc == 0; i++) {
        const struct mag_spawn_options there = { .pin = true, .worker = s->halls[i].worker };
        rc = mag_group_spawn(halls, co_of(&hall_type, &s->halls[i]), NULL, &there);
    }
    return rc;
}

static mag_time drain_deadline(const struct mag_server *s)
{
    mag_time drain = s->options.drain ? s->options.drain : DRAIN, now = mag_now();

    return drain < MAG_NEVER - now ? now + drain : MAG_NEVER;
}

/* Until all halls have ended. */
static int run_halls(struct mag_server *s, struct mag_scope *limit)
{
    struct mag_group halls;
    int rc = mag_group_enter(&halls, NULL);

    if (rc < 0)
        return rc;
    rc = s->start_rc = open_halls(s, &halls);
    (void)mag_event_set(&s->started);
    if (rc == 0)
        rc = mag_event_wait(&s->stopping);
    if (rc == 0)
        (void)mag_scope_reschedule(limit, drain_deadline(s));
    return mag_group_leave(&halls, rc);
}

static int run_server(struct mag_server *s)
{
    struct mag_scope limit;
    int rc = mag_scope_enter(&limit, MAG_NEVER, NULL);

    return rc < 0 ? rc : mag_scope_leave(&limit, run_halls(s, &limit));
}

static void set_root(struct mag_server *s, struct mag_task *root)
{
    mag_spin_lock(&s->lock);
    s->root = root;
    mag_spin_unlock(&s->lock);
}

static int root_body(void *frame, void *result)
{
    struct mag_server *s = *(struct mag_server **)frame;

    (void)result;
    s->start_rc = -ECANCELED;
    set_root(s, mag_fiber_self()->current);
    s->rc = run_server(s);
    mag_listeners_close(&s->listeners); /* a hall that never ran has not closed its door */
    set_root(s, NULL);
    (void)mag_event_set(&s->started);
    (void)mag_event_set(&s->ended);
    return 0; /* whoever asks is told s->rc */
}

static const struct mag_co_type root_type = {
    .name = "server",
    .body = root_body,
    .frame_bytes = sizeof(struct mag_server *),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "root_body" },
};

/* ---- starting ---------------------------------------------------------------------------------------- */

static void fill_halls(struct mag_server *s)
{
    unsigned n_workers = mag_rt_workers(s->rt);

    for (unsigned i = 0; i < s->n_halls; i++) {
        struct hall *h = &s->halls[i];
        h->server = s;
        h->fd = s->listeners.fds[i / n_workers];
        h->worker = 1 + i % n_workers;
        mag_list_init(&h->open);
    }
}

static struct mag_server *server_new(const struct mag_serve_options *o,
                                     const struct mag_listeners *l)
{
    struct mag_rt *rt = mag_rt_self();
    unsigned n_halls = l->n * mag_rt_workers(rt);
    size_t bytes = sizeof(struct mag_server) + n_halls * sizeof(struct hall);
    struct mag_server *s = mag_mem_alloc_aligned(MAG_CACHE_BYTES, bytes);

    if (s == NULL)
        return NULL;
    __builtin_memset(s, 0, bytes);
    s->options = *o;
    s->options.host = s->options.unix_path = NULL; /* the caller's */
    s->listeners = *l;
    s->port = l->port;
    s->rt = rt;
    s->n_halls = n_halls;
    mag_store_relaxed(&s->n_doors, n_halls);
    (void)mag_sem_init(&s->room, o->max_connections ? o->max_connections : CONNECTIONS);
    fill_halls(s);
    return s;
}

/* Until it accepts: 0; else its task has ended. */
static int run_root(struct mag_server *s)
{
    struct mag_server **root = co_of(&root_type, s);
    int rc = root ? mag_start(root, NULL) : -ENOMEM;

    if (rc < 0) {
        mag_listeners_close(&s->listeners);
        if (root)
            (void)mag_close(root);
        return rc;
    }
    rc = mag_event_wait(&s->started);
    if (rc == 0 || mag_event_is_set(&s->started)) /* what has come stays, although cancelled */
        rc = s->start_rc;
    if (rc == 0)
        return mag_detach(root); /* the runtime cancels it when nothing else is left */
    (void)mag_close(root);
    mag_listeners_close(&s->listeners); /* it may never have run */
    return rc;
}

static void close_given(const struct mag_serve_options *o)
{
    if (o && o->listen_fd > 0)
        (void)mag_close_fd(o->listen_fd);
}

/* That no connection will stumble over them. */
static int check(const struct mag_serve_options *o)
{
    struct mag_stream probe;
    int rc = mag_stream_of_transport(&probe, &mag_transport_socket, NULL, &o->stream);

    if (rc == 0 && (o->drain < 0 || o->tls_timeout < 0 || o->backlog < 0))
        rc = -EINVAL;
    if (rc < 0)
        close_given(o);
    return rc;
}

int mag_server_start(struct mag_server **out, mag_stream_handler *handler, void *arg,
                     const struct mag_serve_options *options)
{
    static const struct mag_serve_options defaults = { 0 };
    struct mag_listeners l;
    int rc;

    *out = NULL;
    if (handler == NULL || !mag_wait_in_task()) {
        close_given(options);
        return mag_misuse(handler ? -ENXIO : -EINVAL, "a server needs a handler, and a task to "
                                                      "start it in: it runs in its runtime");
    }
    options = options ? options : &defaults;
    rc = check(options);
    if (rc == 0)
        rc = mag_listeners_open(&l, options);
    if (rc < 0)
        return rc;
    struct mag_server *s = server_new(options, &l);
    if (s == NULL) {
        mag_listeners_close(&l);
        return -ENOMEM;
    }
    s->handler = handler;
    s->arg = arg;
    rc = run_root(s);
    if (rc < 0)
        mag_mem_free(s);
    else
        *out = s;
    return rc;
}

/* ---- stopping ------------------------------------------------------------------------------------------ */

static void cancel_root(struct mag_server *s)
{
    struct mag_task *root;

    mag_spin_lock(&s->lock);
    root = s->root;
    if (root)
        mag_fetch_add(&root->extra_refs, 1);
    mag_spin_unlock(&s->lock);
    if (root == NULL)
        return;
    mag_cancel_task(root);
    mag_worker_release(root);
}

static void wait_shielded(struct mag_server *s)
{
    struct mag_scope shield;
    bool is_shielded = mag_wait_in_task() && mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;

    while (mag_event_wait(&s->ended) < 0) { /* memory may be out for a moment */
        if (!is_shielded)
            break;
        (void)mag_yield();
    }
    if (is_shielded)
        (void)mag_scope_leave(&shield, 0);
}

int mag_server_wait(struct mag_server *server)
{
    int rc = mag_event_wait(&server->ended);

    /* who stops it is told how that went */
    return rc < 0 ? rc : server->rc == -ETIMEDOUT || server->rc == -ECANCELED ? 0 : server->rc;
}

int mag_server_stop(struct mag_server *server)
{
    int rc;

    mag_store_seq(&server->is_draining, 1); /* (D) */
    (void)mag_event_set(&server->stopping);
    rc = mag_event_wait(&server->ended);
    if (rc == 0)
        return server->rc;
    cancel_root(server);
    wait_shielded(server);
    return rc;
}

void mag_server_free(struct mag_server *server)
{
    if (server == NULL)
        return;
    (void)mag_server_stop(server);
    mag_mem_free(server);
}

int mag_serve(mag_stream_handler *handler, void *arg, const struct mag_serve_options *options)
{
    struct mag_server *server;
    struct mag_scope shield;
    int rc = mag_server_start(&server, handler, arg, options);

    if (rc < 0)
        return rc;
    rc = mag_server_wait(server);
    if (rc == -ECANCELED && mag_shield_enter(&shield, MAG_NEVER, NULL) == 0) {
        (void)mag_server_stop(server);
        (void)mag_scope_leave(&shield, 0);
    }
    mag_server_free(server);
    return rc;
}

/* ---- while it runs --------------------------------------------------------------------------------------- */

void mag_server_close_clients(struct mag_server *server)
{
    for (unsigned i = 0; i < server->n_halls; i++)
        (void)sweep(&server->halls[i], close_one);
}

void mag_server_abort_clients(struct mag_server *server)
{
    for (unsigned i = 0; i < server->n_halls; i++)
        (void)sweep(&server->halls[i], abort_one);
}

uint16_t mag_server_port(const struct mag_server *server)
{
    return server->port;
}

void mag_server_stats(const struct mag_server *server, struct mag_server_stats *out)
{
    *out = (struct mag_server_stats){ 0 };
    for (unsigned i = 0; i < server->n_halls; i++) {
        const struct hall *h = &server->halls[i];
        /* relaxed: numbers of some moment */
        out->n_accepted += mag_load_relaxed(&h->n_accepted);
        out->n_refused += mag_load_relaxed(&h->n_refused);
        out->n_failed += mag_load_relaxed(&h->n_failed);
        out->n_open += mag_load_relaxed(&h->n_open);
    }
}
