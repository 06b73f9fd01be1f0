/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_STREAM_H
#define MAGPIE_STREAM_H
/*
 * stream.h - buffered reading and writing on a connection, asyncio's streams
 *
 *      async_with(mag_stream, s, "example.org", 80) {          mag_connect, mag_stream_close
 *          await(mag_stream_puts(s, "GET / HTTP/1.0\r\nHost: example.org\r\n\r\n"));
 *          async_for(struct mag_str, line, mag_stream_lines(s))
 *              fwrite(line.ptr, 1, line.len, stdout);
 *      }
 *
 * A stream is one object with two halves: one task may read, and a second one is refused
 * (-EBUSY), while others write, each of whose writes stays together.  Outside a task all of it
 * works too, and blocks the thread.
 *
 *      read side    bytes wait in a buffer of at most `limit' bytes: a line, or whatever
 *                   read_until looks for, has to fit in there.  It begins with 4 KiB, and is
 *                   as large only as what comes at once.
 *      write side   mag_stream_write copies into a buffer and suspends only when more than
 *                   `high_water' bytes wait; then it sends until at most `low_water' do.
 *                   What is buffered is sent by mag_stream_drain, by a read on the same stream
 *                   that has to wait for its peer, by write_eof, and by close.  So a program
 *                   that writes a request and reads the answer needs no drain.  One whose
 *                   reader waits already, in another task, does.
 *
 * Nothing is lost: what a failed or cancelled call has read is in the buffer for the next, or, of
 * read_exact and read_all, with the caller; what it has not sent stays in the buffer too.  A limit
 * of time is a scope around the call (with_timeout).
 *
 * Errors: -ECONNRESET, -EPIPE and so on as the system says them, and then each time, when what
 * came before has been read; -ENODATA: the stream ended before what was asked for (asyncio's
 * IncompleteReadError); -EMSGSIZE: `limit' bytes are buffered and the separator is not among
 * them (LimitOverrunError); -EBADF: it is closed; -ENOMEM.
 *
 * What carries the bytes is a transport (struct mag_transport): a descriptor (socket, pipe,
 * terminal), TLS on top of one (<magpie/tls.h>), or a program's own.
 */
#include <magpie/file.h>
#include <magpie/iter.h>
#include <magpie/sync.h>

#include <sys/socket.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mag_stream;
struct mag_tls; /* <magpie/tls.h> */

/*
 * What lies below a stream.  All but fd and interrupt may suspend; read, write and write_eof are
 * cancellation points; they answer as the calls of <magpie/net.h> do.  One task reads while
 * another writes; close and abort come when nobody is inside any more, and nothing comes after.
 */
struct mag_transport {
    const char *name;                                             /* "tcp", "tls", ...        */
    int (*read)(void *self, void *buf, size_t n);                 /* > 0; 0: the end; -EAGAIN:
                                                                     ask again, there was
                                                                     nothing for the reader */
    int (*write)(void *self, const struct iovec *iov, int n_iov); /* bytes that went, >= 1; 0 is
                                                                     taken for -EIO           */
    int (*write_eof)(void *self);                                 /* the peer reads an end    */
    int (*close)(void *self);                                     /* politely, and frees self */
    void (*abort)(void *self);                                    /* at once, and frees self  */
    int (*fd)(void *self);                                        /* the descriptor, or -1    */
    /* Ends what other tasks are in now: they get -EBADF.  Before a close, perhaps several times;
     * NULL: they are waited for.  One on top of another hands it down. */
    void (*interrupt)(void *self);
    /* As write, for who is about to read: gives up with -EAGAIN as soon as read would not have to
     * wait.  Two peers that both write much before they read would wait for each other for ever
     * otherwise.  NULL: write is used. */
    int (*write_or_readable)(void *self, const struct iovec *iov, int n_iov);
};

struct mag_stream_options {
    size_t limit;      /* bytes of the read buffer at most; 0: 65,536                    */
    size_t high_water; /* bytes that may wait to be sent; 0: 65,536                      */
    size_t low_water;  /* where a write that had to wait goes on; 0: high_water / 4      */
    bool poll_first;   /* waits for its peer without a buffer, at the price of one more trip
                        * to the kernel each time: for thousands of quiet connections.  Not
                        * under TLS                                                      */
};

/* Bytes of a buffer: those from begin to end are in use; ptr is NULL while there is none. */
struct mag_stream_buffer {
    char *ptr;
    size_t begin, end, room;
};

/* Who is told that a stream is about to be closed: a server.  Private. */
struct mag_stream_owner {
    void (*closing)(struct mag_stream *s);
};

/* A stream.  All members are private; it must not be moved or copied.  All zero: closed. */
struct mag_stream {
    const struct mag_transport *transport; /* NULL: closed */
    void *self;                            /* the transport's */
    struct mag_stream_options options;
    struct mag_stream_buffer in, out;
    struct mag_mutex writing; /* who sends what `out' holds */
    size_t n_out;             /* how much that is, for others to see */
    char *content;            /* of mag_stream_read_all */
    char *ended;              /* where a zero stands for `covered', after a line; NULL */
    struct mag_stream_owner *owner;
    struct mag_stream_closer *closing; /* who waits for the one who closes it */
    uint32_t state;                    /* who is inside, and whether it is closed */
    int error_in, error_out;           /* what each half has failed with, for good */
    char covered;                      /* the byte below the zero */
    bool is_at_end, is_large;          /* reads come in large pieces */
    bool is_write_closed;
};

/* ---- opening ------------------------------------------------------------------------ */

struct mag_connect_options {
    struct mag_stream_options stream;
    struct mag_tls *tls;    /* a client's TLS context; NULL: none                    */
    const char *tls_name;   /* the name its certificate must have; NULL: the host    */
    mag_time attempt_delay; /* until the next address is tried too; 0: 250 ms        */
    const char *local_host; /* the address to connect from; NULL: any                */
    uint16_t local_port;
    int family; /* AF_INET, AF_INET6; 0: both                            */
};

/*
 * Connects to a host (name or address) and port by TCP: RFC 8305's happy eyeballs: the addresses
 * are tried in turn, IPv6 and IPv4 by turns, the next one `attempt_delay' after the one before or
 * as soon as that has failed; the first that answers wins and the others are closed.  TCP_NODELAY
 * is set.  `options' may be NULL, and are not needed afterwards.  0, or the error of the first
 * address, or of the name (-ENOENT: it is unknown; mag_getaddrinfo has the others); the stream is
 * then a closed one.  With .tls the handshake is part of it.  Suspends; cancellation point:
 * nothing is left open.
 */
MAG_API int mag_connect(struct mag_stream *s, const char *host, uint16_t port,
                        const struct mag_connect_options *options);

/* To a unix socket; a path that begins with '@' is an abstract one.  0, or as connect(2) says
 * (-ENOENT, -ECONNREFUSED, ...), -EINVAL, -ENAMETOOLONG.  Else as mag_connect. */
MAG_API int mag_connect_unix(struct mag_stream *s, const char *path,
                             const struct mag_connect_options *options);

/* A stream over a descriptor that can be read or written: a socket, a pipe, a terminal.  It is the
 * stream's from now on, unless this fails: -EBADF, -EPROTOTYPE for a socket of datagrams, -EINVAL
 * (options).  Any thread; never suspends. */
MAG_API int mag_stream_of_fd(struct mag_stream *s, int fd,
                             const struct mag_stream_options *options);

/* A stream over a transport of the caller's, which closes `self' when the stream is closed; the
 * table must live as long.  0, or -EINVAL (options), and `self' is still the caller's.  Any
 * thread; never suspends. */
MAG_API int mag_stream_of_transport(struct mag_stream *s, const struct mag_transport *transport,
                                    void *self, const struct mag_stream_options *options);

/* ---- reading: each suspends and is a cancellation point, unless it says otherwise ---------- */

/* 1 to n bytes; 0 at the end. */
MAG_API int mag_stream_read(struct mag_stream *s, void *buf, size_t n);

/* Exactly n bytes: 0.  -ENODATA, or another error: the *done (may be NULL) bytes in buf have been
 * taken from the stream. */
MAG_API int mag_stream_read_exact(struct mag_stream *s, void *buf, size_t n, size_t *done);

/*
 * Up to and with the first occurrence of a separator (of several, the one that ends first): how
 * many bytes, and *out are they, with a zero behind them: in the buffer, until the next call on
 * the read side, peek and consume among them.
 * -ENODATA: there is none before the end (what there is can be read); -EMSGSIZE; -EINVAL for an
 * empty separator.
 */
MAG_API int mag_stream_read_until(struct mag_stream *s, const char *separator, struct mag_str *out);
MAG_API int mag_stream_read_until_any(struct mag_stream *s, const struct mag_str *separators,
                                      size_t n_separators, struct mag_str *out);

/* A line with its '\n'; the last one may have none.  Its length; 0 at the end.  *out as above.
 * -EMSGSIZE: what is there of it can be read by mag_stream_read. */
MAG_API int mag_stream_readline(struct mag_stream *s, struct mag_str *out);

/* The lines, for async_for(struct mag_str, line, mag_stream_lines(s)); without their '\n' or
 * "\r\n".  Never suspends itself. */
MAG_API struct mag_iter mag_stream_lines(struct mag_stream *s);

/*
 * All up to the end, at most `limit' bytes (0: 2,147,479,552): 0.  After an error *out is what has
 * come so far; -EFBIG: there is more, which can be read.  The bytes are the stream's, until its
 * next read_all or its close.
 */
MAG_API int mag_stream_read_all(struct mag_stream *s, struct mag_str *out, size_t limit);

/* Whether the end has come and nothing is buffered.  Never suspends. */
MAG_API bool mag_stream_at_eof(const struct mag_stream *s);

/*
 * For parsers: peek answers how many bytes are buffered and where (never suspends); consume takes
 * n of these away (never suspends); fill reads more behind them, at least one byte: how many are
 * buffered then; 0 at the end; -EMSGSIZE if `limit' bytes are there.
 */
MAG_API size_t mag_stream_peek(struct mag_stream *s, const char **bytes);
MAG_API void mag_stream_consume(struct mag_stream *s, size_t n);
MAG_API int mag_stream_fill(struct mag_stream *s);

/* ---- writing: each suspends and is a cancellation point, unless it says otherwise ---------- */

/*
 * Takes all n bytes: 0.  What is large (16 KiB, or more than high_water) is not copied but sent at
 * once from the caller's memory, after what was buffered; some of the end of it may be buffered.
 * On errors *done (may be NULL) says how many of the bytes have gone; that is none of them unless n
 * is more than high_water.  -EPIPE after write_eof.
 */
MAG_API int mag_stream_write(struct mag_stream *s, const void *buf, size_t n, size_t *done);
MAG_API int mag_stream_puts(struct mag_stream *s, const char *text);
MAG_API int mag_stream_writev(struct mag_stream *s, const struct iovec *iov, int n_iov);

/* Writes, and returns when all has been handed to the kernel: 0; otherwise *done as above, and the
 * rest is not buffered.  What is there is sent in one go with what was buffered. */
MAG_API int mag_stream_write_all(struct mag_stream *s, const void *buf, size_t n, size_t *done);

/* Sends all that is buffered. */
MAG_API int mag_stream_drain(struct mag_stream *s);

/* Bytes that wait to be sent.  Never suspends. */
MAG_API size_t mag_stream_n_buffered(const struct mag_stream *s);

/* Sends all that is buffered, and then an end; the stream can still be read.  Twice: 0.
 * -EOPNOTSUPP for what is no socket: a pipe ends when it is closed. */
MAG_API int mag_stream_write_eof(struct mag_stream *s);

/* ---- the rest ------------------------------------------------------------------------------- */

/*
 * Sends what is buffered, closes, frees: 0, or the error of the sending; the stream is closed in
 * any case.  A task that reads or writes it meanwhile gets -EBADF, and is waited for, so that the
 * storage is the caller's again; -EBUSY: one that was sending was cut off.  (A thread outside a
 * task that is blocked in the stream is waited for until it returns; mag_shutdown wakes it.)
 * Twice: nothing happens; while another task closes or aborts it: waits for that, for the same
 * reason (-EBADF: it was sending).  Suspends; a cancelled task's close sends nothing more
 * (-ECANCELED), and closes.  So a scope around it limits how long a peer that does not read can
 * keep it waiting, which is for ever without one; it is closed after -ETIMEDOUT, too.  -ENXIO in a
 * callback: then it is open still.
 */
MAG_API int mag_stream_close(struct mag_stream *s);

/* Closes at once: what is buffered is thrown away, and a TCP peer gets a reset.  May suspend
 * shortly; not a cancellation point. */
MAG_API void mag_stream_abort(struct mag_stream *s);

/* The descriptor below it, or -1.  Any thread. */
MAG_API int mag_stream_fd(const struct mag_stream *s);

/* "192.0.2.1:80", "[2001:db8::1]:80", "unix:/path"; its length, or -errno.  Never suspend. */
MAG_API int mag_stream_peer_name(const struct mag_stream *s, char *buf, size_t room);
MAG_API int mag_stream_own_name(const struct mag_stream *s, char *buf, size_t room);

/* For async_with(mag_stream, s, host, port): mag_connect without options, mag_stream_close.  (Of a
 * task that is cancelled: nothing more is sent.) */
MAG_API int mag_stream_enter(struct mag_stream *s, const char *host, uint16_t port);
MAG_API void mag_stream_exit(struct mag_stream *s);

/*
 * Puts TLS over the stream as it is (STARTTLS): nothing may be buffered on either side: -EBUSY.
 * A context for clients checks the certificate against `name'; for servers `name' is NULL.
 * After an error the stream can only be closed.  Suspends; cancellation point.
 */
MAG_API int mag_stream_start_tls(struct mag_stream *s, struct mag_tls *tls, const char *name);

#ifdef __cplusplus
}
#endif
#endif
