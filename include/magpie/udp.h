/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_UDP_H
#define MAGPIE_UDP_H
/*
 * udp.h - datagrams
 *
 *      async_with(mag_udp, u, NULL, 5300) {                 mag_udp_bind, mag_udp_close
 *          struct mag_udp_addr peer;
 *          char buf[1500];
 *          for (;;) {
 *              int n = await(mag_udp_recv_from(u, buf, sizeof buf, &peer));
 *              await(mag_udp_send_to(u, buf, (size_t)n, &peer));
 *          }
 *      }
 *
 * A datagram comes whole or not at all, and it may not come.  Several tasks may use a socket at
 * once.  A limit of time is a scope around the call (with_timeout), as everywhere.
 *
 * A socket for all addresses takes IPv6 and IPv4; IPv4 addresses look as such, going in and
 * coming out.  What else there is, setsockopt(2) does on mag_udp_fd: SO_RCVBUF, IP_MULTICAST_TTL,
 * ...; multicast groups are joined by mag_multicast_join (<magpie/net.h>).
 *
 * Errors are those of the system.  A connected socket tells of an ICMP message by -ECONNREFUSED
 * from the next call: a datagram before it was not taken, and the socket is as good as before.
 */
#include <magpie/base.h>

#include <netinet/in.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#else
#include <stdbool.h>
#endif

/* An address and a port; the family is any.sa_family. */
struct mag_udp_addr {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
    socklen_t len; /* bytes of it */
};

/* A socket.  Its members are private; all zero is closed. */
struct mag_udp {
    int fd_plus_1;
    int family;
};

struct mag_udp_options {
    bool reuse_addr; /* SO_REUSEADDR: several may have one address, for multicast         */
    bool reuse_port; /* SO_REUSEPORT: several may, and the kernel spreads the peers        */
    bool broadcast;  /* SO_BROADCAST: broadcast addresses may be sent to                   */
};

/* ---- opening ---------------------------------------------------------------------------- */

/*
 * A socket that receives at that address (a name or a number; NULL: all of this machine, IPv6
 * and IPv4) and port (0: the kernel chooses; mag_udp_port tells).  `options' may be NULL.  0, or
 * -EADDRINUSE, -EADDRNOTAVAIL, ..., and those of mag_getaddrinfo.  Suspends for a name;
 * cancellation point then: nothing is left open.
 */
MAG_API int mag_udp_bind(struct mag_udp *u, const char *host, uint16_t port,
                         const struct mag_udp_options *options);

/*
 * Connects it to a peer: then mag_udp_send sends there, and only what comes from there is
 * received.  A socket that is closed (all zero) is opened; one that is bound stays so.  Errors,
 * suspends: as bind; a socket that was open stays so after an error.
 */
MAG_API int mag_udp_connect(struct mag_udp *u, const char *host, uint16_t port,
                            const struct mag_udp_options *options);

/* Closes it: tasks that use it get -EBADF.  0; twice: nothing happens.  Suspends; not a
 * cancellation point. */
MAG_API int mag_udp_close(struct mag_udp *u);

/* The port it receives at; 0 if it has none.  The descriptor, or -1.  Any thread. */
MAG_API uint16_t mag_udp_port(const struct mag_udp *u);
MAG_API int mag_udp_fd(const struct mag_udp *u);

/* For async_with(mag_udp, u, host, port): mag_udp_bind without options, mag_udp_close. */
MAG_API int mag_udp_enter(struct mag_udp *u, const char *host, uint16_t port);
MAG_API void mag_udp_exit(struct mag_udp *u);

/* ---- one datagram: each suspends, if it has to wait, and is a cancellation point ------------ */

/* Sends all n bytes as one, or none: n, or -errno; -EMSGSIZE: that is too much for one. */
MAG_API int mag_udp_send(struct mag_udp *u, const void *buf, size_t n);
MAG_API int mag_udp_send_to(struct mag_udp *u, const void *buf, size_t n,
                            const struct mag_udp_addr *to);

/*
 * Receives one: its length, which may be 0.  More than n: it was longer than that, the first n
 * bytes are in buf, and the rest is gone.  `from' may be NULL.
 */
MAG_API int mag_udp_recv(struct mag_udp *u, void *buf, size_t n);
MAG_API int mag_udp_recv_from(struct mag_udp *u, void *buf, size_t n, struct mag_udp_addr *from);

/* ---- several ------------------------------------------------------------------------------- */

/* One of a batch. */
struct mag_datagram {
    void *buf;
    size_t n;                 /* to be sent; or, to receive, bytes at buf                    */
    size_t len;               /* received: its length; more than n: it was cut, as above     */
    struct mag_udp_addr addr; /* whose it is, or to whom; len 0: to whom the socket is
                               * connected                                                   */
};

enum { MAG_UDP_BATCH_MAX = 1024 };

/*
 * Receives as many as are there, at least one and at most n (and MAG_UDP_BATCH_MAX), in one
 * system call: how many.  Suspends if there is none; cancellation point: none is lost.
 */
MAG_API int mag_udp_recv_batch(struct mag_udp *u, struct mag_datagram *list, size_t n);

/*
 * Sends the first of n, as many as there is room for, at least one: how many went.  -errno: none
 * did, by the first one's fault.  Suspends if there is no room; cancellation point.
 */
MAG_API int mag_udp_send_batch(struct mag_udp *u, const struct mag_datagram *list, size_t n);

/* ---- addresses ------------------------------------------------------------------------------ */

/* The (first) address of a host, a name or a number, with that port: 0, or the errors of
 * mag_getaddrinfo.  Suspends for a name; cancellation point then. */
MAG_API int mag_udp_resolve(struct mag_udp_addr *out, const char *host, uint16_t port);

/* "192.0.2.1:53", "[2001:db8::1]:53"; its length, or -EOVERFLOW.  Any thread; never suspends. */
MAG_API int mag_udp_text(const struct mag_udp_addr *addr, char *buf, size_t room);

#ifdef __cplusplus
}
#endif
#endif
