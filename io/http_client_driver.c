/* SPDX-License-Identifier: MIT */
/*
 * http_client_driver.c - a worker's multi handle, and the task that alone calls libcurl
 *
 *      callers --(inbox, eventfd)--> driver <--(epoll)-- libcurl's sockets
 *                                      |
 *              done <------------------+        one turn: commands, sockets, timer, what is
 *                                               complete, who is late; then yield, or sleep
 *
 * The driver is an ordinary task, pinned to its worker.  It sleeps in a poll of its epoll
 * descriptor, which goes through the worker's ring, until the next limit of time.  libcurl tells
 * which sockets to watch (on_socket) and when it wants to be called (on_timer).
 *
 * Which driver gets a request: that of the caller's worker, so that what is sequential meets its
 * own connections again; unless it has clearly more to do than another one.  Without that all of a
 * gather would be done by the worker that has begun it, since a request suspends after microseconds
 * and it is the drivers that work.
 *
 * Invariants
 *   1. libcurl is called from the driver's task only, while that is open; on_socket and on_timer note
 *      what they are told and call nothing of libcurl's but curl_multi_assign.
 *   2. From `is_taken' to `done' a transfer is the driver's.  `done' is the last thing it does to it.
 *   3. A transfer that was not taken yet is its caller's to withdraw: also when the driver will never
 *      run, because the runtime stops.
 *   4. is_asleep is set under the lock that a command is queued under, so either the driver sees the
 *      command or who queues it sees the sleeper, and writes to the eventfd.
 *
 * A turn is bounded: so many commands and sockets, or some milliseconds; epoll is level-triggered,
 * and brings the rest again.
 *
 * Rejected: a poll operation of the ring for each socket: libcurl changes its mind at each state,
 * and each change would be a cancel and a new operation.  A lock around a multi that callers enter
 * by themselves: they would wait for each other's TLS handshakes.
 *
 * Sources: curl_multi_socket_action(3), CURLMOPT_SOCKETFUNCTION(3), CURLMOPT_TIMERFUNCTION(3).
 */
#include "http_client_parts.h"

#include "clock.h"
#include "mem.h"
#include "sys.h"
#include "sys_poll.h"
#include "sys_wait.h"
#include "worker.h"

#include <magpie/net.h>

#include <errno.h>
#include <poll.h>

enum {
    STACK_BYTES = 512 * 1024, /* libcurl and OpenSSL are no small callees */
    STARTS_MAX = 32,          /* commands a turn */
    EVENTS_MAX = 64,          /* sockets a turn */
    TURN_NS = 5 * 1000 * 1000,
    IDLE_MAX = 256, /* easy handles that are kept */
    UNEVEN = 8,     /* a request goes elsewhere if that has so many less */
};

/* ---- handing over --------------------------------------------------------------------- */

static void ring_bell(struct mag_driver *d)
{
    uint64_t one = 1;

    (void)mag_sys_write(d->wake_fd, &one, sizeof one);
}

/* With the lock held: queues it, and says whether the driver sleeps. */
static bool queue(struct mag_driver *d, struct mag_transfer *t, unsigned commands)
{
    bool was_asleep = d->is_asleep;

    t->commands |= commands;
    if (mag_list_empty(&t->command))
        mag_list_push_back(&d->inbox, &t->command);
    d->is_asleep = false;
    return was_asleep;
}

void mag_transfer_command(struct mag_transfer *t, unsigned commands)
{
    struct mag_driver *d = t->driver;
    bool was_asleep = false;

    mag_spin_lock(&d->lock);
    if (!t->is_done)
        was_asleep = queue(d, t, commands);
    mag_spin_unlock(&d->lock);
    if (was_asleep)
        ring_bell(d);
}

static void set_done(struct mag_transfer *t)
{
    mag_fetch_sub(&t->driver->n_transfers, 1);
    mag_event_set(&t->wake);
    mag_event_set(&t->done); /* inv2 */
}

void mag_transfer_cancel(struct mag_transfer *t)
{
    struct mag_driver *d = t->driver;
    bool is_ours;

    mag_spin_lock(&d->lock);
    is_ours = !t->is_taken && !t->is_done; /* inv3 */
    if (is_ours) {
        mag_list_remove(&t->command);
        t->is_done = true;
    }
    mag_spin_unlock(&d->lock);
    if (is_ours) {
        mag_http_fail(&t->error, MAG_HTTP_CANCELED, -ECANCELED, "canceled");
        set_done(t);
    } else {
        mag_transfer_command(t, MAG_COMMAND_CANCEL);
    }
}

bool mag_transfer_is_done(struct mag_transfer *t)
{
    bool is_done;

    mag_spin_lock(&t->driver->lock);
    is_done = t->is_done;
    mag_spin_unlock(&t->driver->lock);
    return is_done;
}

/* ---- libcurl's questions -------------------------------------------------------------- */

static struct mag_transfer *transfer_of(CURL *curl)
{
    struct mag_http_easy *e = NULL;

    curl_easy_getinfo(curl, CURLINFO_PRIVATE, &e);
    return e ? e->transfer : NULL;
}

/* Which sockets to watch; `known': it is in epoll already. */
static int on_socket(CURL *curl, curl_socket_t fd, int what, void *driver, void *known)
{
    struct mag_driver *d = driver;
    uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
    struct mag_transfer *t;
    int rc;

    if (what == CURL_POLL_REMOVE) {
        (void)mag_sys_epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, fd, 0);
        return 0;
    }
    rc = mag_sys_epoll_ctl(d->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, events);
    if (rc < 0 && (t = transfer_of(curl)) != NULL) {
        t->failed_rc = rc;
        d->has_failed = true;
    }
    if (known == NULL)
        curl_multi_assign(d->multi, fd, d);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *driver)
{
    struct mag_driver *d = driver;

    (void)multi;
    d->curl_due = ms < 0 ? MAG_NEVER : d->now + ms * MAG_MS;
    return 0;
}

/* ---- a transfer's life in the driver -------------------------------------------------- */

/* Idle connections are bounded together with those in use: so the bound moves with them. */
static void bound_connections(struct mag_driver *d)
{
    unsigned share = (d->pool->o.max_keepalive + d->pool->n_drivers - 1) / d->pool->n_drivers;

    curl_multi_setopt(d->multi, CURLMOPT_MAXCONNECTS, (long)d->n_active + (long)share);
}

static struct mag_http_easy *get_easy(struct mag_driver *d)
{
    struct mag_http_easy *e = d->idle;

    if (e == NULL)
        return mag_http_easy_new();
    d->idle = e->next;
    d->n_idle--;
    return e;
}

static void put_easy(struct mag_driver *d, struct mag_http_easy *e)
{
    if (d->n_idle >= IDLE_MAX) {
        mag_http_easy_free(e);
        return;
    }
    mag_http_easy_clear(e);
    e->next = d->idle;
    d->idle = e;
    d->n_idle++;
}

/* It is not in the multi any more. */
static void let_go(struct mag_driver *d, struct mag_transfer *t)
{
    struct mag_http_easy *e = t->easy;

    t->easy = NULL;
    if (e)
        put_easy(d, e);
    mag_spin_lock(&d->lock);
    mag_list_remove(&t->command);
    t->is_done = true;
    mag_spin_unlock(&d->lock);
    set_done(t);
}

static void finish(struct mag_driver *d, struct mag_transfer *t)
{
    if (t->error.kind == MAG_HTTP_OK)
        mag_transfer_finish_head(t);
    curl_multi_remove_handle(d->multi, t->easy->curl);
    mag_list_remove(&t->link);
    d->n_active--;
    bound_connections(d);
    let_go(d, t);
}

/*
 * Not late before `due'.  But another limit may hold by then, when it has connected, or sent
 * everything, so it is looked at after the shorter one.
 */
static void look_again(struct mag_driver *d, const struct mag_transfer *t, mag_time due)
{
    mag_time pause = t->times.read < t->times.write ? t->times.read : t->times.write;

    if (pause < due - d->now)
        due = d->now + pause;
    if (due < d->check_due)
        d->check_due = due;
}

static void start(struct mag_driver *d, struct mag_transfer *t)
{
    CURLMcode code;

    t->active_at = d->now;
    t->easy = get_easy(d);
    if (t->easy == NULL) {
        mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for a handle");
        let_go(d, t);
        return;
    }
    t->easy->transfer = t;
    if (mag_http_easy_setup(t->easy, t) < 0) {
        let_go(d, t);
        return;
    }
    code = curl_multi_add_handle(d->multi, t->easy->curl);
    if (code != CURLM_OK) {
        mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "%s", curl_multi_strerror(code));
        let_go(d, t);
        return;
    }
    mag_list_push_back(&d->active, &t->link);
    d->n_active++;
    bound_connections(d);
    look_again(d, t, mag_transfer_deadline(t));
}

/* libcurl may call back from here. */
static void go_on(struct mag_transfer *t)
{
    int paused;

    mag_spin_lock(&t->lock);
    paused = (t->is_in_paused ? CURLPAUSE_RECV : 0) | (t->is_out_paused ? CURLPAUSE_SEND : 0);
    mag_spin_unlock(&t->lock);
    t->active_at = t->driver->now;
    curl_easy_pause(t->easy->curl, paused);
}

static void obey(struct mag_driver *d, struct mag_transfer *t, unsigned commands)
{
    if (commands & MAG_COMMAND_CANCEL) {
        mag_http_fail(&t->error, MAG_HTTP_CANCELED, -ECANCELED, "canceled");
        if (t->easy)
            finish(d, t);
        else
            let_go(d, t);
    } else if (commands & MAG_COMMAND_START) {
        start(d, t);
    } else if (t->easy) {
        go_on(t);
    }
}

/* ---- a turn --------------------------------------------------------------------------- */

static struct mag_transfer *next_command(struct mag_driver *d, unsigned *commands)
{
    struct mag_transfer *t = NULL;
    struct mag_list *link;

    mag_spin_lock(&d->lock);
    link = mag_list_pop_front(&d->inbox);
    if (link) {
        t = mag_container_of(link, struct mag_transfer, command);
        mag_list_init(&t->command);
        *commands = t->commands;
        t->commands = 0;
        t->is_taken = true;
    }
    mag_spin_unlock(&d->lock);
    return t;
}

static unsigned take_commands(struct mag_driver *d)
{
    struct mag_transfer *t;
    unsigned n = 0, commands = 0;

    while (n < STARTS_MAX && (t = next_command(d, &commands)) != NULL) {
        obey(d, t, commands);
        n++;
    }
    return n;
}

static void act(struct mag_driver *d, int fd, uint32_t events)
{
    int what = (events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? CURL_CSELECT_IN : 0) |
               (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (events & EPOLLERR ? CURL_CSELECT_ERR : 0);
    int n_running;

    curl_multi_socket_action(d->multi, fd, what, &n_running);
}

static unsigned take_events(struct mag_driver *d)
{
    struct epoll_event events[EVENTS_MAX];
    int n = mag_sys_epoll_wait(d->epoll_fd, events, EVENTS_MAX, 0);
    mag_time until = d->now + TURN_NS;

    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == d->wake_fd)
            (void)mag_sys_eventfd_take(d->wake_fd);
        else
            act(d, events[i].data.fd, events[i].events);
        if ((i & 7) == 7 && (d->now = mag_clock_now()) > until)
            break;
    }
    return n > 0 ? (unsigned)n : 0;
}

static unsigned run_timer(struct mag_driver *d)
{
    int n_running;

    if (d->now < d->curl_due)
        return 0;
    d->curl_due = MAG_NEVER;
    curl_multi_socket_action(d->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
    return 1;
}

static unsigned take_complete(struct mag_driver *d)
{
    const CURLMsg *message;
    int n_left;
    unsigned n = 0;

    while ((message = curl_multi_info_read(d->multi, &n_left)) != NULL) {
        struct mag_transfer *t = transfer_of(message->easy_handle);
        if (message->msg != CURLMSG_DONE || t == NULL)
            continue;
        if (message->data.result != CURLE_OK)
            mag_http_fail_curl(t, message->data.result);
        finish(d, t);
        n++;
    }
    return n;
}

static void look_at(struct mag_driver *d, struct mag_transfer *t)
{
    mag_time due = mag_transfer_deadline(t);

    if (t->failed_rc < 0) {
        mag_http_fail(&t->error, MAG_HTTP_MEMORY, t->failed_rc, "its socket cannot be watched: %s",
                      mag_err_text(t->failed_rc));
        finish(d, t);
    } else if (due <= d->now) {
        mag_transfer_fail_late(t);
        finish(d, t);
    } else {
        look_again(d, t, due);
    }
}

/*
 * Signs of life move limits away, so nothing need be looked at before the nearest one that was seen
 * last (look_again); and then not more often than every millisecond.
 */
static void check_late(struct mag_driver *d)
{
    struct mag_list *link = mag_list_first(&d->active), *next;

    if (d->now < d->check_due && !d->has_failed)
        return;
    d->has_failed = false;
    d->check_due = MAG_NEVER;
    for (; link; link = next) {
        next = mag_list_next(&d->active, link);
        look_at(d, mag_container_of(link, struct mag_transfer, link));
    }
    if (d->check_due < d->now + MAG_MS)
        d->check_due = d->now + MAG_MS;
}

/* ---- the task ------------------------------------------------------------------------- */

static bool may_sleep(struct mag_driver *d)
{
    bool may;

    mag_spin_lock(&d->lock);
    may = d->is_asleep = mag_list_empty(&d->inbox) && !d->is_stopping; /* inv4 */
    mag_spin_unlock(&d->lock);
    return may;
}

static int sleep_until(struct mag_driver *d, mag_time due)
{
    struct mag_scope scope;
    int rc;

    if (due == MAG_NEVER)
        return mag_poll_fd(d->epoll_fd, POLLIN);
    rc = mag_scope_enter(&scope, due, NULL);
    if (rc < 0)
        return rc;
    rc = mag_scope_leave(&scope, mag_poll_fd(d->epoll_fd, POLLIN));
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int rest(struct mag_driver *d)
{
    int rc = 0;

    if (may_sleep(d))
        rc = sleep_until(d, d->curl_due < d->check_due ? d->curl_due : d->check_due);
    mag_spin_lock(&d->lock);
    d->is_asleep = false;
    mag_spin_unlock(&d->lock);
    return rc == -ECANCELED ? rc : 0;
}

static bool is_stopping(struct mag_driver *d)
{
    bool is;

    mag_spin_lock(&d->lock);
    is = d->is_stopping;
    mag_spin_unlock(&d->lock);
    return is;
}

/* What is queued or active ends, and nothing comes any more. */
static void end_transfers(struct mag_driver *d)
{
    struct mag_transfer *t;
    struct mag_list *link;
    unsigned commands;

    mag_spin_lock(&d->lock);
    d->is_over = true;
    mag_spin_unlock(&d->lock);
    while ((link = mag_list_first(&d->active)) != NULL) {
        t = mag_container_of(link, struct mag_transfer, link);
        mag_http_fail(&t->error, MAG_HTTP_CANCELED, -ECANCELED, "the client was closed");
        finish(d, t);
    }
    while ((t = next_command(d, &commands)) != NULL) {
        mag_http_fail(&t->error, MAG_HTTP_CANCELED, -ECANCELED, "the client was closed");
        let_go(d, t);
    }
}

/* The handles, by whoever is the last to use them. */
static void close_handles(struct mag_driver *d)
{
    struct mag_http_easy *e;

    while ((e = d->idle) != NULL) {
        d->idle = e->next;
        mag_http_easy_free(e);
    }
    d->n_idle = 0;
    if (d->multi)
        curl_multi_cleanup(d->multi);
    d->multi = NULL;
}

static int driver_body(void *frame, void *result)
{
    struct mag_driver *d = *(struct mag_driver **)frame;
    unsigned n;
    int rc = 0;

    (void)result;
    while (rc == 0 && !is_stopping(d)) {
        d->now = mag_clock_now();
        n = take_commands(d);
        n += take_events(d);
        n += run_timer(d);
        n += take_complete(d);
        check_late(d);
        rc = n ? mag_yield() : rest(d);
    }
    end_transfers(d);
    close_handles(d);
    return 0;
}

static const struct mag_co_type driver_type = {
    .name = "mag_http_client: driver",
    .body = driver_body,
    .frame_bytes = sizeof(struct mag_driver *),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "driver_body" },
};

/* ---- opening and closing -------------------------------------------------------------- */

void mag_driver_init(struct mag_driver *d, struct mag_http_pool *pool, unsigned index)
{
    *d = (struct mag_driver){ .pool = pool, .index = index, .epoll_fd = -1, .wake_fd = -1 };
    mag_list_init(&d->inbox);
    mag_list_init(&d->active);
    d->curl_due = d->check_due = MAG_NEVER;
}

static void close_descriptors(struct mag_driver *d)
{
    if (d->epoll_fd >= 0)
        (void)mag_sys_close(d->epoll_fd);
    if (d->wake_fd >= 0)
        (void)mag_sys_close(d->wake_fd);
    d->epoll_fd = d->wake_fd = -1;
}

static int open_multi(struct mag_driver *d)
{
    d->multi = curl_multi_init();
    if (d->multi == NULL)
        return -ENOMEM;
    curl_multi_setopt(d->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(d->multi, CURLMOPT_SOCKETDATA, d);
    curl_multi_setopt(d->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(d->multi, CURLMOPT_TIMERDATA, d);
    return 0;
}

static int open_descriptors(struct mag_driver *d)
{
    int rc = d->epoll_fd = mag_sys_epoll_create();

    if (rc >= 0)
        rc = d->wake_fd = mag_sys_eventfd(0, 02000000 | 04000); /* EFD_CLOEXEC, EFD_NONBLOCK */
    if (rc >= 0)
        rc = mag_sys_epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->wake_fd, EPOLLIN);
    return rc < 0 ? rc : 0;
}

static int start_task(struct mag_driver *d)
{
    struct mag_driver **frame = mag_co_new(&driver_type, NULL);
    struct mag_spawn_options options = { .stack_bytes = STACK_BYTES,
                                         .pin = true,
                                         .worker = d->index + 1 };
    int rc;

    if (frame)
        *frame = d;
    rc = mag_start(frame, &options);
    if (rc == 0)
        d->task = frame;
    else if (frame)
        mag_close(frame);
    return rc;
}

static int driver_open(struct mag_driver *d)
{
    int rc = open_descriptors(d);

    if (rc == 0)
        rc = open_multi(d);
    if (rc == 0)
        rc = start_task(d);
    if (rc == 0) {
        mag_store_release(&d->is_open, 1);
        return 0;
    }
    close_handles(d);
    close_descriptors(d);
    return rc;
}

/* The first request for a driver opens it. */
static int ensure_open(struct mag_driver *d)
{
    int rc;

    if (MAG_LIKELY(mag_load_acquire(&d->is_open)))
        return 0;
    rc = mag_mutex_lock(&d->pool->starting);
    if (rc < 0)
        return rc;
    rc = mag_load_acquire(&d->is_open)            ? 0
         : mag_load_acquire(&d->pool->is_closing) ? -ECANCELED
                                                  : driver_open(d);
    mag_mutex_unlock(&d->pool->starting);
    return rc;
}

void mag_driver_close(struct mag_driver *d)
{
    if (!mag_load_acquire(&d->is_open))
        return;
    mag_spin_lock(&d->lock);
    d->is_stopping = true;
    mag_spin_unlock(&d->lock);
    ring_bell(d);
    (void)mag_await(d->task, NULL, 0);
    end_transfers(d); /* the task may never have run: inv3 */
    close_handles(d);
    close_descriptors(d);
}

/* ---- beginning ------------------------------------------------------------------------ */

static struct mag_driver *choose(struct mag_http_pool *pool)
{
    const struct mag_worker *w = mag_worker_self();
    unsigned here = (unsigned)(w - w->rt->workers), n = pool->n_drivers;
    struct mag_driver *d = &pool->drivers[here], *other;
    uint32_t load = mag_load_relaxed(&d->n_transfers); /* hints, all of them */

    for (unsigned i = 1; i < n && i <= 8 && load >= UNEVEN; i++) {
        other = &pool->drivers[(here + i) % n];
        if (mag_load_relaxed(&other->n_transfers) + UNEVEN <= load) {
            d = other;
            load = mag_load_relaxed(&d->n_transfers);
        }
    }
    return d;
}

int mag_transfer_begin(struct mag_transfer *t)
{
    struct mag_driver *d = t->driver = choose(t->pool);
    bool is_over, was_asleep = false;
    int rc = ensure_open(d);

    if (rc < 0)
        return rc;
    mag_list_init(&t->command);
    mag_list_init(&t->link);
    mag_fetch_add(&d->n_transfers, 1);
    mag_spin_lock(&d->lock);
    is_over = d->is_over || d->is_stopping;
    if (!is_over)
        was_asleep = queue(d, t, MAG_COMMAND_START);
    mag_spin_unlock(&d->lock);
    if (is_over)
        mag_fetch_sub(&d->n_transfers, 1);
    if (was_asleep)
        ring_bell(d);
    return is_over ? -ECANCELED : 0;
}
