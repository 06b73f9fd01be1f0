/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_RESOLVE_H
#define MAGPIE_RESOLVE_H
/*
 * resolve.h - names of hosts and services
 *
 *      struct addrinfo *list;
 *      int rc = mag_getaddrinfo("example.org", "https", NULL, &list);
 *      if (rc < 0)
 *          fprintf(stderr, "example.org: %s\n", mag_gai_text(rc));
 *
 * getaddrinfo(3) and getnameinfo(3) of the C library, and so with all that /etc/hosts,
 * nsswitch.conf and resolv.conf say, on threads of their own, so that names which nobody
 * answers for hold up nothing else.  A caller that is cancelled leaves at once; the thread goes
 * on until the C library gives up.  A runtime that ends waits for such threads.
 *
 * Errors are -errno, as everywhere:
 *
 *      EAI_NONAME      -ENOENT             EAI_AGAIN       -EAGAIN
 *      EAI_NODATA      -ENODATA            EAI_FAIL        -EREMOTEIO
 *      EAI_ADDRFAMILY  -EADDRNOTAVAIL      EAI_FAMILY      -EAFNOSUPPORT
 *      EAI_SERVICE     -EPROTONOSUPPORT    EAI_SOCKTYPE    -ESOCKTNOSUPPORT
 *      EAI_BADFLAGS    -EINVAL             EAI_OVERFLOW    -EOVERFLOW
 *      EAI_MEMORY      -ENOMEM             EAI_IDN_ENCODE  -EILSEQ
 *      EAI_SYSTEM      its errno           others          -EIO
 */
#include <magpie/base.h>

struct addrinfo; /* <netdb.h>      */
struct sockaddr; /* <sys/socket.h> */

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The addresses of a host and a service, either of which may be NULL; `hints' too, of which
 * flags, family, socket type and protocol count.  0, and *out is a list for
 * mag_freeaddrinfo; on errors, those above and -ECANCELED, it is NULL.  The arguments are
 * copied.  A number for a host, with none for a service, needs no thread.  Suspends;
 * cancellation point.  Outside a task it blocks.
 */
MAG_API int mag_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                            struct addrinfo **out);

/* Frees a list; NULL is ignored.  Any thread. */
MAG_API void mag_freeaddrinfo(struct addrinfo *list);

/*
 * The names of an address of `addr_bytes' bytes: into `host' and `service', each of which may
 * be NULL with 0 bytes.  Flags are NI_*; with NI_NUMERICHOST and NI_NUMERICSERV it needs no
 * thread.  0; on errors, those above and -ECANCELED, nothing is written; -EOVERFLOW if a name
 * does not fit.
 * The address is copied.  Suspends; cancellation point.  Outside a task it blocks.
 */
MAG_API int mag_getnameinfo(const struct sockaddr *addr, unsigned addr_bytes, char *host,
                            size_t host_bytes, char *service, size_t service_bytes, int flags);

/* What an error of these two says, as gai_strerror(3) does.  Static storage.  Any thread. */
MAG_API const char *mag_gai_text(int rc);

#ifdef __cplusplus
}
#endif
#endif
