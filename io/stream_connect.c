/* SPDX-License-Identifier: MIT */
/*
 * stream_connect.c - streams to hosts and unix sockets: RFC 8305's happy eyeballs
 *
 * A host has several addresses, and one that does not answer must not be waited for: IPv6 that
 * leads nowhere takes TCP two minutes to give up.  So the attempts overlap:
 *
 *      ::1        |--------------------------------- (cancelled)
 *      127.0.0.1       |---- refused
 *      ::2                  |----- connected: the winner
 *                 250 ms^    ^at once, as the one before has failed
 *
 * Each attempt is a task of a group on the caller's stack; the group's end cancels those that
 * have not won, and waits for them, so nothing of the race is left when mag_connect returns.
 *
 * Invariants
 *   1. A socket is the winner's, or closed by the attempt that made it.
 *   2. Attempt i + 1 begins when i has failed, or `attempt_delay' after it, and not after a win.
 *   3. A connection that is there is answered, even if the caller has been cancelled meanwhile.
 *
 * Ordering: an attempt stores its error, or the winner, before it sets the event; who waits
 * clears the event before it looks.
 *
 * Rejected
 *   - RFC 8305's two queries, for A and AAAA: getaddrinfo(3) asks both and sorts by RFC 6724;
 *   - remembering which family won: a cache to be wrong, for 250 ms.
 *
 * Sources: RFC 8305, sections 4 and 5; CPython's Lib/asyncio/staggered.py.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "stream_connect.h"

#include "atomic.h"
#include "clock.h"
#include "sys_net.h"

#include <errno.h>
#include <magpie/group.h>
#include <magpie/net.h>
#include <magpie/resolve.h>
#include <magpie/scope.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>

enum { ATTEMPT_DELAY_MS = 250 };

/* ---- names --------------------------------------------------------------------------- */

static void set_port(struct addrinfo *list, uint16_t port)
{
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        if (a->ai_family == AF_INET)
            ((struct sockaddr_in *)(void *)a->ai_addr)->sin_port = htons(port);
        else if (a->ai_family == AF_INET6)
            ((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_port = htons(port);
    }
}

/* The port is not asked of getaddrinfo(3), which for a number then needs no thread. */
static int look_up(const char *host, uint16_t port, int family, int flags, struct addrinfo **list)
{
    const struct addrinfo hints = { .ai_family = family,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = flags };
    int rc = mag_getaddrinfo(host, host ? NULL : "0", &hints, list);

    if (rc == 0)
        set_port(*list, port);
    return rc;
}

/* ---- one attempt ------------------------------------------------------------------------- */

/* The local address that a socket of this family is to have. */
static int bind_local(int fd, int family, const struct mag_connect_options *o)
{
    struct addrinfo *list;
    const int on = 1;
    int rc;

    if (o->local_host == NULL && o->local_port == 0)
        return 0;
    rc = look_up(o->local_host, o->local_port, family, AI_PASSIVE, &list);
    if (rc == 0)
        rc = mag_sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (rc == 0)
        rc = mag_sys_bind(fd, list->ai_addr, list->ai_addrlen);
    mag_freeaddrinfo(list);
    return rc;
}

static int connect_socket(int fd, const struct addrinfo *a, const struct mag_connect_options *o)
{
    const int on = 1;
    int rc = bind_local(fd, a->ai_family, o);

    if (rc == 0)
        rc = mag_connect_fd(fd, a->ai_addr, a->ai_addrlen);
    if (rc == 0)
        rc = mag_sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return rc;
}

static int attempt(const struct addrinfo *a, const struct mag_connect_options *o)
{
    int fd = mag_socket(a->ai_family, SOCK_STREAM, 0), rc;

    if (fd < 0)
        return fd;
    rc = connect_socket(fd, a, o);
    if (rc == 0)
        return fd;
    (void)mag_close_fd(fd);
    return rc;
}

/* ---- several ------------------------------------------------------------------------------- */

struct race {
    const struct mag_connect_options *options;
    const struct addrinfo *address[MAG_CONNECT_ADDRESSES_MAX];
    mag_atomic(int) error[MAG_CONNECT_ADDRESSES_MAX]; /* [attempt i] 0: it has not failed */
    int n;                                            /* addresses */
    mag_atomic(int) n_failed;                         /* [attempts] */
    mag_atomic(int) winner;                           /* [attempts] a socket; -1: none yet */
    struct mag_event news;                            /* an attempt has ended */
};

struct attempt_frame {
    struct race *race;
    int i;
};

static int run_attempt(void *frame, void *result)
{
    const struct attempt_frame *a = frame;
    struct race *r = a->race;
    int rc = attempt(r->address[a->i], r->options), none = -1;

    (void)result;
    if (rc < 0) {
        mag_store_release(&r->error[a->i], rc);
        mag_fetch_add(&r->n_failed, 1);
    } else if (!mag_cas(&r->winner, &none, rc)) {
        (void)mag_close_fd(rc);
    }
    mag_event_set(&r->news);
    return 0;
}

static const struct mag_co_type attempt_type = {
    .name = "connect",
    .body = run_attempt,
    .frame_bytes = sizeof(struct attempt_frame),
};

static int begin_attempt(struct race *r, struct mag_group *g, int i)
{
    struct attempt_frame *a = mag_co_new(&attempt_type, __builtin_return_address(0));

    if (a)
        *a = (struct attempt_frame){ .race = r, .i = i };
    return mag_group_spawn(g, a, NULL, NULL);
}

/* Whether there is nothing more to wait for after attempt i: the next one is due, or none. */
static bool is_over(const struct race *r, int i)
{
    if (mag_load_acquire(&r->winner) >= 0)
        return true;
    return i + 1 < r->n ? mag_load_acquire(&r->error[i]) < 0
                        : mag_load_acquire(&r->n_failed) == r->n;
}

static int await_news(struct race *r, int i)
{
    int rc = 0;

    while (rc == 0 && !is_over(r, i)) {
        rc = mag_event_wait(&r->news);
        mag_event_clear(&r->news);
    }
    return rc;
}

/* After attempt i: until the next one is due, or there is no need of one. */
static int await_turn(struct race *r, int i)
{
    mag_time delay =
        r->options->attempt_delay ? r->options->attempt_delay : ATTEMPT_DELAY_MS * MAG_MS;
    struct mag_scope limit;
    int rc = mag_timeout_enter(&limit, i + 1 < r->n ? delay : MAG_NEVER, NULL);

    if (rc < 0)
        return rc;
    rc = mag_scope_leave(&limit, await_news(r, i));
    return rc == -ETIMEDOUT ? 0 : rc;
}

static int run_race(struct race *r)
{
    struct mag_group g;
    int rc = mag_group_enter(&g, NULL);

    if (rc < 0)
        return rc;
    for (int i = 0; i < r->n && rc == 0 && mag_load_acquire(&r->winner) < 0; i++) {
        rc = begin_attempt(r, &g, i);
        if (rc == 0)
            rc = await_turn(r, i);
    }
    if (rc == 0)
        mag_group_cancel(&g);
    return mag_group_leave(&g, rc);
}

/* One after the other, for a thread outside a task, and where there is but one. */
static int walk(struct race *r)
{
    int rc = 0;

    for (int i = 0; i < r->n; i++) {
        rc = attempt(r->address[i], r->options);
        if (rc >= 0 || rc == -ECANCELED)
            return rc;
        r->error[i] = rc;
    }
    return r->error[0];
}

/* The next one of the list that is of that family, or that is not. */
static const struct addrinfo *next_of(const struct addrinfo *a, int family, bool is_of_it)
{
    while (a && (a->ai_family == family) != is_of_it)
        a = a->ai_next;
    return a;
}

/* IPv6 and IPv4 by turns, each in the order of the list, beginning with what that begins with. */
static void interleave(struct race *r, const struct addrinfo *list)
{
    const struct addrinfo *by_turns[2] = { list, list };
    int turn = 0;

    while (r->n < MAG_CONNECT_ADDRESSES_MAX && (by_turns[0] || by_turns[1])) {
        const struct addrinfo *a = next_of(by_turns[turn], list->ai_family, turn == 0);
        if (a)
            r->address[r->n++] = a;
        by_turns[turn] = a ? a->ai_next : NULL;
        turn = !turn;
    }
}

int mag_connect_to_first(const struct addrinfo *list, const struct mag_connect_options *options)
{
    static const struct mag_connect_options none;
    struct race r = { .options = options ? options : &none, .winner = -1 };
    int rc;

    interleave(&r, list);
    if (r.n == 0)
        return -EADDRNOTAVAIL;
    if (r.n == 1 || mag_self() == NULL)
        return walk(&r);
    if (r.options->attempt_delay < 0)
        return -EINVAL;
    rc = run_race(&r);
    if (r.winner >= 0)
        return r.winner;
    return rc < 0 ? rc : r.error[0];
}

/* ---- streams ------------------------------------------------------------------------------- */

/* A stream over a connected socket, which is closed if that fails. */
static int make_stream(struct mag_stream *s, int fd, const struct mag_connect_options *o,
                       const char *tls_name)
{
    int rc = mag_stream_of_fd(s, fd, o ? &o->stream : NULL);

    if (rc < 0) {
        (void)mag_close_fd(fd);
        return rc;
    }
    if (o && o->tls)
        rc = mag_stream_start_tls(s, o->tls, tls_name);
    if (rc < 0)
        mag_stream_abort(s);
    return rc;
}

int mag_connect(struct mag_stream *s, const char *host, uint16_t port,
                const struct mag_connect_options *o)
{
    struct addrinfo *list;
    int rc = look_up(host, port, o ? o->family : AF_UNSPEC, 0, &list);

    *s = (struct mag_stream){ 0 };
    if (rc < 0)
        return rc;
    rc = mag_connect_to_first(list, o);
    mag_freeaddrinfo(list);
    return rc < 0 ? rc : make_stream(s, rc, o, o && o->tls_name ? o->tls_name : host);
}

/* '@' at the beginning stands for the zero that makes a name abstract. */
static int unix_address(struct sockaddr_un *a, const char *path)
{
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof a->sun_path)
        return n == 0 ? -EINVAL : -ENAMETOOLONG;
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(a->sun_path, path, n);
    if (path[0] == '@')
        a->sun_path[0] = '\0';
    return (int)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] != '@'));
}

int mag_connect_unix(struct mag_stream *s, const char *path, const struct mag_connect_options *o)
{
    struct sockaddr_un a;
    int len = unix_address(&a, path), fd, rc;

    *s = (struct mag_stream){ 0 };
    if (len < 0)
        return len;
    fd = mag_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return fd;
    rc = mag_connect_fd(fd, (struct sockaddr *)&a, (socklen_t)len);
    if (rc < 0)
        (void)mag_close_fd(fd);
    return rc < 0 ? rc : make_stream(s, fd, o, o ? o->tls_name : NULL);
}

int mag_stream_enter(struct mag_stream *s, const char *host, uint16_t port)
{
    return mag_connect(s, host, port, NULL);
}

void mag_stream_exit(struct mag_stream *s)
{
    (void)mag_stream_close(s);
}
