/* SPDX-License-Identifier: MIT */
/*
 * server_listen.c - the sockets that a server listens on
 *
 *      no host    [::] and 0.0.0.0, the first for IPv6 only, so that the second has its place
 *      a host     all its addresses that this machine has
 *      a path     one, and a path that a dead server has left is taken over
 *      listen_fd  as it is
 *
 * Several addresses have one port.  If that is the kernel's to choose, the first socket has it
 * chosen, and if another one's is taken, all begin anew.
 *
 * TCP_NODELAY is set on the listener: what it accepts inherits it (Linux), which spares a
 * system call for each connection.
 *
 * A path is left over when a server was killed.  It is taken over only if it is a socket and
 * refuses connections; a living server would accept, or its backlog be full (-EAGAIN).  Two
 * that start at the same moment can both find it dead: the second then takes the first one's
 * place, as with a pid file; who must exclude that locks another file.
 *
 * Invariants
 *   1. A descriptor made here is in the struct, or closed, whatever failed.
 *   2. The path is removed only while what lies there is the socket that was bound: a server
 *      that has taken the place meanwhile keeps it.
 *
 * Rejected: one socket for both families (IPv4 peers then have names like ::ffff:192.0.2.1, and
 * a sysctl can forbid it); SO_REUSEPORT and a socket for each worker (connections of a worker
 * that is busy, or was stopped, wait while others are idle; figures at server.c).
 *
 * Sources: listen(2), ipv6(7), unix(7), CPython's base_events.create_server.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "server_listen.h"

#include "mem.h"
#include "sys_file.h"
#include "sys_listen.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/net.h>
#include <magpie/resolve.h>
#include <magpie/server.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>

enum { BACKLOG = 4096, TRIES = 32 };

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* What is to be listened on. */
struct place {
    union address addr;
    socklen_t len;
};

static int set_flag(int fd, int level, int name)
{
    static const int on = 1;

    return mag_sys_setsockopt(fd, level, name, &on, sizeof on);
}

static int start_listening(int fd, const struct mag_serve_options *o)
{
    return mag_sys_listen(fd, o->backlog > 0 ? o->backlog : BACKLOG);
}

static int keep(struct mag_listeners *l, int fd)
{
    l->fds[l->n++] = fd;
    return 0;
}

static void drop_all(struct mag_listeners *l)
{
    while (l->n)
        (void)mag_sys_close(l->fds[--l->n]);
}

/* ---- TCP -------------------------------------------------------------------------------- */

static in_port_t *port_of(struct place *p)
{
    return p->addr.any.sa_family == AF_INET6 ? &p->addr.v6.sin6_port : &p->addr.v4.sin_port;
}

static int read_port(struct mag_listeners *l, int fd)
{
    struct place p = { .len = sizeof p.addr };
    int rc = mag_sys_getsockname(fd, &p.addr.any, &p.len);

    if (rc == 0 && (p.addr.any.sa_family == AF_INET || p.addr.any.sa_family == AF_INET6))
        l->port = ntohs(*port_of(&p));
    return rc;
}

static int set_up(int fd, const struct place *p, const struct mag_serve_options *o)
{
    int rc = set_flag(fd, SOL_SOCKET, SO_REUSEADDR);

    if (rc == 0 && o->reuse_port)
        rc = set_flag(fd, SOL_SOCKET, SO_REUSEPORT);
    if (rc == 0 && p->addr.any.sa_family == AF_INET6)
        rc = set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
    if (rc == 0)
        rc = set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
    if (rc == 0)
        rc = mag_sys_bind(fd, &p->addr.any, p->len);
    return rc == 0 ? start_listening(fd, o) : rc;
}

static int open_place(struct mag_listeners *l, const struct place *wanted,
                      const struct mag_serve_options *o)
{
    struct place p = *wanted;
    int fd = mag_sys_socket(p.addr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

    if (fd < 0)
        return fd;
    *port_of(&p) = htons(l->port); /* what the first one got */
    rc = set_up(fd, &p, o);
    if (rc == 0 && l->port == 0)
        rc = read_port(l, fd);
    if (rc < 0) {
        (void)mag_sys_close(fd);
        return rc;
    }
    return keep(l, fd);
}

/* What this machine does not have. */
static bool is_foreign(int rc)
{
    return rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT;
}

static int open_places(struct mag_listeners *l, const struct place *places, unsigned n,
                       const struct mag_serve_options *o)
{
    int first = -EADDRNOTAVAIL;

    l->port = o->port;
    for (unsigned i = 0; i < n; i++) {
        int rc = open_place(l, &places[i], o);
        if (i == 0)
            first = rc;
        if (rc < 0 && !is_foreign(rc)) {
            drop_all(l);
            return rc;
        }
    }
    return l->n ? 0 : first;
}

static int open_all(struct mag_listeners *l, const struct place *places, unsigned n,
                    const struct mag_serve_options *o)
{
    int rc = -EADDRINUSE;

    for (int i = 0; i < TRIES && rc == -EADDRINUSE; i++) {
        rc = open_places(l, places, n, o);
        if (o->port)
            break;
    }
    return rc;
}

static int open_everywhere(struct mag_listeners *l, const struct mag_serve_options *o)
{
    const struct place both[] = {
        { .addr.v6 = { .sin6_family = AF_INET6 }, .len = sizeof(struct sockaddr_in6) },
        { .addr.v4 = { .sin_family = AF_INET }, .len = sizeof(struct sockaddr_in) },
    };

    return open_all(l, both, 2, o);
}

/* The files of names may have one address several times. */
static bool is_known(const struct place *places, unsigned n, const struct addrinfo *ai)
{
    for (unsigned i = 0; i < n; i++)
        if (places[i].len == ai->ai_addrlen &&
            memcmp(&places[i].addr, ai->ai_addr, ai->ai_addrlen) == 0)
            return true;
    return false;
}

static int places_of(const struct addrinfo *list, struct place *places)
{
    unsigned n = 0;

    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        if (ai->ai_addrlen > sizeof places[n].addr || is_known(places, n, ai))
            continue;
        if (n == MAG_LISTENERS_MAX)
            return -E2BIG;
        memcpy(&places[n].addr, ai->ai_addr, ai->ai_addrlen);
        places[n++].len = ai->ai_addrlen;
    }
    return (int)n;
}

static int open_host(struct mag_listeners *l, const struct mag_serve_options *o)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct place places[MAG_LISTENERS_MAX] = { 0 };
    struct addrinfo *list;
    int rc = mag_getaddrinfo(o->host, NULL, &hints, &list);

    if (rc < 0)
        return rc;
    rc = places_of(list, places);
    mag_freeaddrinfo(list);
    return rc < 0 ? rc : open_all(l, places, (unsigned)rc, o);
}

/* ---- unix sockets ------------------------------------------------------------------------ */

struct unix_name {
    struct sockaddr_un addr;
    socklen_t len;
};

static int name_of(const char *path, struct unix_name *name)
{
    size_t n = strlen(path);

    if (n == 0)
        return -EINVAL;
    if (n >= sizeof name->addr.sun_path)
        return -ENAMETOOLONG;
    name->addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(name->addr.sun_path, path, n);
    name->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    if (path[0] == '@') {
        name->addr.sun_path[0] = '\0';
        name->len--; /* such a name has no end but its length */
    }
    return 0;
}

/* Whether a server has left the path behind. */
static bool is_dead(const struct unix_name *name)
{
    struct stat st;
    int fd, rc;

    if (mag_sys_lstat(name->addr.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    fd = mag_sys_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    rc = mag_sys_connect(fd, (const struct sockaddr *)&name->addr, name->len);
    (void)mag_sys_close(fd);
    return rc == -ECONNREFUSED;
}

static int bind_name(int fd, const struct unix_name *name)
{
    const struct sockaddr *addr = (const struct sockaddr *)&name->addr;
    const char *path = name->addr.sun_path;
    int rc = mag_sys_bind(fd, addr, name->len);

    if (rc == -EADDRINUSE && path[0] && is_dead(name)) {
        (void)mag_sys_unlinkat(AT_FDCWD, path, 0);
        rc = mag_sys_bind(fd, addr, name->len);
    }
    return rc;
}

static void remove_path(struct mag_listeners *l)
{
    struct stat st;

    if (l->path && mag_sys_lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
        st.st_ino == l->ino) /* inv2 */
        (void)mag_sys_unlinkat(AT_FDCWD, l->path, 0);
    mag_mem_free(l->path);
    l->path = NULL;
}

/* Bound: from now on it is ours to remove. */
static int own_path(struct mag_listeners *l, const struct mag_serve_options *o)
{
    size_t n = strlen(o->unix_path) + 1;
    struct stat st;
    int rc = mag_sys_lstat(o->unix_path, &st);

    if (rc < 0)
        return rc;
    l->path = mag_mem_alloc(n);
    if (l->path == NULL) {
        (void)mag_sys_unlinkat(AT_FDCWD, o->unix_path, 0);
        return -ENOMEM;
    }
    memcpy(l->path, o->unix_path, n);
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    return o->mode ? mag_sys_chmod(o->unix_path, o->mode) : 0;
}

struct unix_job {
    struct mag_listeners *l;
    const struct mag_serve_options *o;
};

/* On a thread of the pool: a path may lie on a slow disk. */
static int open_unix(void *arg)
{
    const struct unix_job *job = arg;
    const char *path = job->o->unix_path;
    struct unix_name name;
    int rc = name_of(path, &name), fd;

    if (rc < 0)
        return rc;
    fd = mag_sys_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    rc = bind_name(fd, &name);
    if (rc == 0 && path[0] != '@')
        rc = own_path(job->l, job->o);
    if (rc == 0)
        rc = start_listening(fd, job->o);
    if (rc == 0)
        return keep(job->l, fd);
    remove_path(job->l);
    (void)mag_sys_close(fd);
    return rc;
}

/* ---- one that is there -------------------------------------------------------------------- */

static int take_fd(struct mag_listeners *l, const struct mag_serve_options *o)
{
    int is_listening = 0, rc;
    socklen_t len = sizeof is_listening;

    rc = mag_sys_getsockopt(o->listen_fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len);
    if (rc == 0 && !is_listening)
        rc = -EINVAL;
    if (rc == 0)
        rc = read_port(l, o->listen_fd);
    if (rc < 0) {
        (void)mag_sys_close(o->listen_fd);
        return rc;
    }
    (void)set_flag(o->listen_fd, IPPROTO_TCP, TCP_NODELAY); /* a unix socket has none */
    return keep(l, o->listen_fd);
}

int mag_listeners_open(struct mag_listeners *l, const struct mag_serve_options *options)
{
    struct unix_job job = { l, options };

    *l = (struct mag_listeners){ 0 };
    if (options->listen_fd > 0)
        return take_fd(l, options);
    if (options->unix_path)
        return mag_wait_job(MAG_LANE_FILES, open_unix, &job);
    return options->host ? open_host(l, options) : open_everywhere(l, options);
}

void mag_listeners_close(struct mag_listeners *l)
{
    remove_path(l); /* first: a path that is there answers */
    while (l->n)
        (void)mag_close_fd(l->fds[--l->n]);
}
