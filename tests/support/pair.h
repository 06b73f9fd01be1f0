/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_PAIR_H
#define MAG_TESTS_PAIR_H
/*
 * pair.h - two streams that are connected with each other, and one that plays a script
 *
 * PAIR_SUITE(name) is a TestSuite whose tests must leave as many descriptors as they found.
 */
#include "words.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int n_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static int n_descriptors_before __attribute__((unused));

#define PAIR_SUITE(name) \
    static void name##_begins(void) \
    { \
        setenv("MAGPIE_SLOW_MS", "60000", 1); /* a report opens files */ \
        n_descriptors_before = n_descriptors(); \
    } \
    static void name##_ends(void) \
    { \
        mag_mem_fail_nth(0, false); \
        cr_assert_eq(n_descriptors(), n_descriptors_before, "%d descriptors are left", \
                     n_descriptors() - n_descriptors_before); \
    } \
    TestSuite(name, .init = name##_begins, .fini = name##_ends, .timeout = 60)

/* ---- two ends ------------------------------------------------------------------------ */

struct pair {
    struct mag_stream a, b;
};

static inline int open_pair_with(struct pair *p, const struct mag_stream_options *options)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    if (mag_stream_of_fd(&p->a, fds[0], options) < 0)
        return -1;
    return mag_stream_of_fd(&p->b, fds[1], options);
}

static inline int open_pair(struct pair *p)
{
    return open_pair_with(p, NULL);
}

static inline void close_pair(struct pair *p)
{
    mag_stream_close(&p->a);
    mag_stream_close(&p->b);
}

/* Little is under way between them. */
static inline void narrow(struct mag_stream *s)
{
    int bytes = 1; /* the kernel makes some thousand of it */

    setsockopt(mag_stream_fd(s), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(mag_stream_fd(s), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

/* A listener on that address (127.0.0.1, ::1), on a port that the kernel chooses. */
static inline int listen_at(const char *host, uint16_t *port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
    bool is_v6 = inet_pton(AF_INET6, host, &v6.sin6_addr) == 1;
    struct sockaddr *a = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t len = is_v6 ? sizeof v6 : sizeof v4;
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *port = 0;
    if (!is_v6)
        inet_pton(AF_INET, host, &v4.sin_addr);
    if (fd < 0 || bind(fd, a, len) < 0 || listen(fd, 100) < 0 || getsockname(fd, a, &len) < 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
    return fd;
}

/* Two ends of a TCP connection. */
static inline int open_tcp_pair(struct pair *p)
{
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port), rc, fd;

    rc = mag_connect(&p->a, "127.0.0.1", port, NULL);
    fd = rc == 0 ? mag_accept(listener, NULL, NULL, 0) : rc;
    close(listener);
    return fd < 0 ? fd : mag_stream_of_fd(&p->b, fd, NULL);
}

static inline bool is_text(struct mag_str s, const char *text)
{
    return s.ptr && s.len == strlen(text) && memcmp(s.ptr, text, s.len + 1) == 0;
}

/* Byte i of what tests send. */
static inline char byte_at(size_t i)
{
    return (char)(i * 31 + (i >> 8) + 'a');
}

static inline char *bytes_of(size_t n)
{
    char *p = malloc(n);

    for (size_t i = 0; p && i < n; i++)
        p[i] = byte_at(i);
    return p;
}

/* ---- a script ------------------------------------------------------------------------------ */

enum { SCRIPT_WRITES = 64 };

/* A transport: what a read gives, piece by piece, and what was written, call by call. */
struct script {
    const char *text;    /* all that comes */
    size_t n, at;        /* bytes of it; those that have been read */
    const size_t *ends;  /* where pieces end; the last one is n */
    size_t n_ends;
    int error;           /* instead of the end; 0: the end */
    bool is_slow;        /* each read and write suspends */
    size_t n_per_write;  /* bytes that a write takes; 0: all */
    int write_error;     /* what a write fails with; 0: not at all */
    size_t n_written, n_reads, n_writes;
    size_t written[SCRIPT_WRITES]; /* how much each write has brought */
    char bytes[4096];              /* what was written first */
    int n_closed, n_aborted, n_eofs;
};

static inline int script_read(void *self, void *buf, size_t n)
{
    struct script *x = self;
    size_t i = 0, more;
    int rc = x->is_slow ? mag_yield() : 0;

    if (rc < 0)
        return rc;
    x->n_reads++;
    if (x->at == x->n)
        return x->error;
    while (i < x->n_ends && x->ends[i] <= x->at)
        i++;
    more = (i < x->n_ends ? x->ends[i] : x->n) - x->at;
    more = more < n ? more : n;
    memcpy(buf, x->text + x->at, more);
    x->at += more;
    return (int)more;
}

static inline int script_write(void *self, const struct iovec *iov, int n_iov)
{
    struct script *x = self;
    size_t n = 0;
    int rc = x->is_slow ? mag_yield() : 0;

    if (rc < 0 || x->write_error)
        return rc < 0 ? rc : x->write_error;
    for (int i = 0; i < n_iov; i++) {
        for (size_t k = 0; k < iov[i].iov_len; k++, n++) {
            if (x->n_per_write && n == x->n_per_write)
                break;
            if (x->n_written + n < sizeof x->bytes)
                x->bytes[x->n_written + n] = ((const char *)iov[i].iov_base)[k];
        }
    }
    x->n_written += n;
    x->written[x->n_writes++ % SCRIPT_WRITES] = n;
    return (int)n;
}

static inline int script_eof(void *self)
{
    ((struct script *)self)->n_eofs++;
    return 0;
}

static inline int script_close(void *self)
{
    ((struct script *)self)->n_closed++;
    return 0;
}

static inline void script_abort(void *self)
{
    ((struct script *)self)->n_aborted++;
}

static inline int script_fd(void *self)
{
    (void)self;
    return -1;
}

static const struct mag_transport script_transport = {
    .name = "script",
    .read = script_read,
    .write = script_write,
    .write_eof = script_eof,
    .close = script_close,
    .abort = script_abort,
    .fd = script_fd,
};

static inline int play(struct mag_stream *s, struct script *x,
                       const struct mag_stream_options *options)
{
    return mag_stream_of_transport(s, &script_transport, x, options);
}

/* A script of one text, which comes in one piece. */
#define SCRIPT(what, ...) { .text = (what), .n = strlen(what), __VA_ARGS__ }

#endif
