/* SPDX-License-Identifier: MIT */
/*
 * resolve.c - names of hosts and services
 *
 * There is no other way to ask the C library for a name than to block, and no way to stop it;
 * and what it does with nsswitch.conf, NIS, mDNS and systemd-resolved nobody does again.  So a
 * look-up is a job that its caller may leave behind (abandon.h): it has copies of the
 * arguments, and keeps the result until the caller takes it.
 *
 *      mag_getaddrinfo -- numbers only --> the call, on the spot
 *                      `- a name --------> struct lookup on the heap --> the resolver's lane
 *
 * Numbers ask neither a file nor the network, and a thread would be most of their cost.
 *
 * Invariants
 *   1. A list that nobody has taken is freed with its look-up.
 *   2. The caller's buffers are written only after the job is done, and by the caller.
 *
 * Rejected: getaddrinfo_a(3) (threads of its own, without a limit); a resolver of our own
 * (answers differently from every other program of the machine); a cache (the machine has one,
 * and knows when an answer has become old).
 *
 * Sources: getaddrinfo(3), getnameinfo(3); CPython's base_events.py, _ipaddr_info.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "abandon.h"
#include "mem.h"
#include "sys_name.h"

#include <arpa/inet.h>
#include <errno.h>
#include <magpie/resolve.h>
#include <netdb.h>
#include <string.h>

/* ---- errors ----------------------------------------------------------------------------- */

static const struct {
    int eai, rc;
} errors[] = {
    { EAI_NONAME, -ENOENT },
    { EAI_AGAIN, -EAGAIN },
    { EAI_NODATA, -ENODATA },
    { EAI_FAIL, -EREMOTEIO },
    { EAI_ADDRFAMILY, -EADDRNOTAVAIL },
    { EAI_FAMILY, -EAFNOSUPPORT },
    { EAI_SERVICE, -EPROTONOSUPPORT },
    { EAI_SOCKTYPE, -ESOCKTNOSUPPORT },
    { EAI_BADFLAGS, -EINVAL },
    { EAI_OVERFLOW, -EOVERFLOW },
    { EAI_MEMORY, -ENOMEM },
    { EAI_IDN_ENCODE, -EILSEQ },
};

static int rc_of(int eai, int sys_rc)
{
    if (eai == 0)
        return 0;
    if (eai == EAI_SYSTEM)
        return sys_rc < 0 ? sys_rc : -EIO;
    for (size_t i = 0; i < MAG_ARRAY_SIZE(errors); i++)
        if (errors[i].eai == eai)
            return errors[i].rc;
    return -EIO;
}

const char *mag_gai_text(int rc)
{
    for (size_t i = 0; i < MAG_ARRAY_SIZE(errors); i++)
        if (errors[i].rc == rc)
            return gai_strerror(errors[i].eai);
    return mag_err_text(rc);
}

/* ---- addresses of a name ------------------------------------------------------------------ */

struct lookup {
    struct mag_abandonable job;
    struct addrinfo hints;
    struct addrinfo *list; /* [job, then the caller] */
    const char *host, *service;
    bool has_hints;
    char text[]; /* copies of both */
};

static const struct mag_wait_kind lookup_kind = { "name", mag_waitq_cancel, false };

static int ask(const char *host, const char *service, const struct addrinfo *hints,
               struct addrinfo **out)
{
    int sys_rc, eai = mag_sys_getaddrinfo(host, service, hints, out, &sys_rc);

    return rc_of(eai, sys_rc);
}

static int lookup_run(struct mag_abandonable *job)
{
    struct lookup *l = mag_container_of(job, struct lookup, job);

    return ask(l->host, l->service, l->has_hints ? &l->hints : NULL, &l->list);
}

static void lookup_dispose(struct mag_abandonable *job)
{
    struct lookup *l = mag_container_of(job, struct lookup, job);

    mag_freeaddrinfo(l->list);
    mag_mem_free(l);
}

static size_t bytes_of(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* A copy at `to', or NULL. */
static const char *copy(char *to, const char *text)
{
    return text ? memcpy(to, text, strlen(text) + 1) : NULL;
}

static struct lookup *lookup_new(const char *host, const char *service,
                                 const struct addrinfo *hints)
{
    struct lookup *l = mag_mem_zalloc(sizeof *l + bytes_of(host) + bytes_of(service));

    if (l == NULL)
        return NULL;
    mag_abandon_init(&l->job, lookup_run, lookup_dispose);
    l->host = copy(l->text, host);
    l->service = copy(l->text + bytes_of(host), service);
    l->has_hints = hints != NULL;
    if (hints) {
        l->hints.ai_flags = hints->ai_flags;
        l->hints.ai_family = hints->ai_family;
        l->hints.ai_socktype = hints->ai_socktype;
        l->hints.ai_protocol = hints->ai_protocol;
    }
    return l;
}

static int look_up(const char *host, const char *service, const struct addrinfo *hints,
                   struct addrinfo **out)
{
    struct lookup *l = lookup_new(host, service, hints);
    int rc;

    if (l == NULL)
        return -ENOMEM;
    rc = mag_abandon_wait(&l->job, MAG_LANE_RESOLVER, &lookup_kind);
    if (rc == 0) {
        *out = l->list;
        l->list = NULL;
    }
    mag_abandon_release(&l->job);
    return rc;
}

static bool is_number(const char *service)
{
    return service == NULL || service[strspn(service, "0123456789")] == '\0';
}

static bool is_address(const char *host)
{
    unsigned char bytes[sizeof(struct in6_addr)];

    return host && (inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1);
}

int mag_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                    struct addrinfo **out)
{
    bool wants_name = hints && (hints->ai_flags & AI_CANONNAME);
    int rc;

    *out = NULL;
    if (!is_address(host) || !is_number(service) || wants_name)
        return look_up(host, service, hints, out);
    rc = mag_wait_in_task() ? mag_wait_checkpoint() : 0;
    return rc < 0 ? rc : ask(host, service, hints, out);
}

void mag_freeaddrinfo(struct addrinfo *list)
{
    if (list)
        freeaddrinfo(list);
}

/* ---- names of an address -------------------------------------------------------------------- */

struct reverse {
    struct mag_abandonable job;
    struct sockaddr_storage addr;
    unsigned addr_bytes;
    int flags;
    unsigned host_bytes, service_bytes; /* that the caller has room for */
    char host[NI_MAXHOST], service[NI_MAXSERV];
};

static int reverse_run(struct mag_abandonable *job)
{
    struct reverse *r = mag_container_of(job, struct reverse, job);
    int sys_rc, eai;

    eai = mag_sys_getnameinfo(
        (const struct sockaddr *)&r->addr, r->addr_bytes, r->host_bytes ? r->host : NULL,
        r->host_bytes, r->service_bytes ? r->service : NULL, r->service_bytes, r->flags, &sys_rc);
    return rc_of(eai, sys_rc);
}

static void reverse_dispose(struct mag_abandonable *job)
{
    mag_mem_free(mag_container_of(job, struct reverse, job));
}

static unsigned at_most(size_t bytes, unsigned limit)
{
    return bytes < limit ? (unsigned)bytes : limit;
}

static struct reverse *reverse_new(const struct sockaddr *addr, unsigned addr_bytes,
                                   size_t host_bytes, size_t service_bytes, int flags)
{
    struct reverse *r = mag_mem_zalloc(sizeof *r);

    if (r == NULL)
        return NULL;
    mag_abandon_init(&r->job, reverse_run, reverse_dispose);
    memcpy(&r->addr, addr, addr_bytes);
    r->addr_bytes = addr_bytes;
    r->host_bytes = at_most(host_bytes, sizeof r->host);
    r->service_bytes = at_most(service_bytes, sizeof r->service);
    r->flags = flags;
    return r;
}

/* Numbers are had on the spot. */
static int reverse_wait(struct reverse *r)
{
    const int numbers = NI_NUMERICHOST | NI_NUMERICSERV;
    int rc;

    if ((r->flags & numbers) != numbers)
        return mag_abandon_wait(&r->job, MAG_LANE_RESOLVER, &lookup_kind);
    rc = mag_wait_in_task() ? mag_wait_checkpoint() : 0;
    return rc < 0 ? rc : reverse_run(&r->job);
}

int mag_getnameinfo(const struct sockaddr *addr, unsigned addr_bytes, char *host, size_t host_bytes,
                    char *service, size_t service_bytes, int flags)
{
    struct reverse *r;
    int rc;

    if (addr == NULL || addr_bytes > sizeof r->addr)
        return -EINVAL;
    r = reverse_new(addr, addr_bytes, host ? host_bytes : 0, service ? service_bytes : 0, flags);
    if (r == NULL)
        return -ENOMEM;
    rc = reverse_wait(r);
    if (rc == 0 && r->host_bytes)
        (void)copy(host, r->host);
    if (rc == 0 && r->service_bytes)
        (void)copy(service, r->service);
    mag_abandon_release(&r->job);
    return rc;
}
