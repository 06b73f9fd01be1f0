/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_SERVER_H
#define MAGPIE_SERVER_H
/*
 * server.h - accepting connections: a task for each
 *
 *      static int echo(struct mag_stream *s, void *arg)
 *      {
 *          struct mag_str line;
 *          int rc;
 *          while ((rc = mag_stream_readline(s, &line)) > 0)
 *              if ((rc = mag_stream_write(s, line.ptr, line.len, NULL)) < 0)
 *                  break;
 *          return rc;
 *      }
 *
 *      mag_serve(echo, NULL, &(struct mag_serve_options){ .port = 7777 });
 *
 * A handler is a plain function that may suspend.  It runs in a task of its own, on whichever
 * worker has time; when it returns, what is buffered is sent and the stream is closed.  (As long as
 * the peer takes for that: a handler that wants a limit closes the stream itself, in a scope.)  Its
 * error is its connection's business: it is counted, and told to .on_error, and the server goes
 * on.
 *
 * Each worker accepts for itself, so there is no door that all connections have to go through.
 * At `max_connections' the rest waits in the kernel's backlog.  When the process or the system
 * runs out of descriptors or memory, accepting pauses (50 ms, doubling up to 1 s) and a line
 * says so, every 10 s at most.
 *
 * A stop is graceful.  No more is accepted; what waits in the backlog is refused by the kernel.
 * Connections end as their handlers do, and to make these notice, their reads come to an end
 * once all that has arrived is read: so a handler that reads a line, answers, and reads the
 * next needs no further thought.  One whose requests are long (HTTP's bodies) should say
 * .has_requests, and wait for each by mag_stream_wait_request: then only connections that wait
 * there are ended, and those amid a request are left alone until they come back to it.  After
 * .drain, handlers that are still at it are cancelled, their peers get a reset, and the stop
 * returns when they have ended.
 *
 * A server belongs to the runtime of the task that starts it.  If that runtime is stopped, or
 * ends, the server's tasks are cancelled; mag_server_free is still due, before mag_rt_free.
 */
#include <magpie/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mag_server; /* opaque: it lives on the heap */

/* One connection.  0 or more: it went well; -errno: it did not.  It may close the stream itself,
 * or abort it; otherwise that is done when it has returned. */
typedef int mag_stream_handler(struct mag_stream *s, void *arg);

struct mag_serve_options {
    const char *host;         /* address or name to listen on, all that it has; NULL: all
                               * addresses of this machine, IPv6 and IPv4                        */
    uint16_t port;            /* 0: the kernel chooses; mag_server_port tells                    */
    const char *unix_path;    /* a unix socket instead; '@': abstract; removed at the end        */
    int listen_fd;            /* a listening socket instead (> 0), e.g. systemd's; the server's
                               * from now on, also if start fails                                */
    int backlog;              /* 0: 4,096, or what the system allows                             */
    unsigned max_connections; /* at a time; 0: 10,000                                            */
    mag_time drain;           /* ns that a stop waits for handlers; 0: 10 s; MAG_NEVER           */
    struct mag_tls *tls;      /* a server's TLS context; NULL: none; the handshake is made in
                               * the handler's task, before the handler is called                */
    mag_time tls_timeout;     /* for the handshake; 0: 10 s                                      */
    struct mag_stream_options stream; /* of each connection's                                    */
    unsigned mode;     /* permissions of a unix socket; 0: 0777 and the umask             */
    bool reuse_port;   /* SO_REUSEPORT: other servers may listen beside this one          */
    bool has_requests; /* the handler waits for each by mag_stream_wait_request           */
    /* A handler, or the handshake before it, has failed: called in its task, before the stream
     * is closed; `peer' as mag_stream_peer_name has it.  NULL: nothing. */
    void (*on_error)(int rc, const char *peer, void *arg);
};

struct mag_server_stats {
    uint64_t n_accepted, n_failed, n_refused; /* n_refused: accept failed for want of something */
    unsigned n_open;
};

/*
 * Listens and begins to accept: 0 and *out, or why not (-EADDRINUSE, -EACCES, -EINVAL, ...), and
 * then *out is NULL.  Options may be NULL (all addresses, any port); `arg' and .tls must live as
 * long as the server, the rest is copied.  Of a name with several addresses those that this
 * machine does not have are passed over, as long as there is one left.  A unix socket's path
 * whose server has gone (it refuses connections) is replaced.  -ENXIO outside a task.
 * Suspends; cancellation point: nothing is left.
 */
MAG_API int mag_server_start(struct mag_server **out, mag_stream_handler *handler, void *arg,
                             const struct mag_serve_options *options);

/* Waits until the server is stopped by somebody: 0, or why it ended by itself.  Cancelled:
 * -ECANCELED, and the server goes on.  Suspends; cancellation point. */
MAG_API int mag_server_wait(struct mag_server *server);

/*
 * Stops it, see above: returns when the last handler has ended.  0; -ETIMEDOUT if some had to be
 * cancelled; or why it ended before.  Cancelled itself: cancels the handlers at once, waits for
 * them, and returns -ECANCELED.  Several tasks may call it, several times.  Suspends;
 * cancellation point.
 */
MAG_API int mag_server_stop(struct mag_server *server);

/* Closes all connections that there are now: half (their reads come to an end once all that has
 * arrived is read), or at once (abort: their handlers get -ECANCELED, their peers a reset).  The
 * server goes on.  Any thread; never suspend. */
MAG_API void mag_server_close_clients(struct mag_server *server);
MAG_API void mag_server_abort_clients(struct mag_server *server);

/* Stops if that was not done (at once if the caller is cancelled), and frees.  NULL is ignored.
 * Suspends; not a cancellation point.  Outside a task it blocks. */
MAG_API void mag_server_free(struct mag_server *server);

/* The port it listens on; 0 for a unix socket.  Any thread. */
MAG_API uint16_t mag_server_port(const struct mag_server *server);

/* Any thread; the numbers are each of some moment during the call. */
MAG_API void mag_server_stats(const struct mag_server *server, struct mag_server_stats *out);

/* Whether the server that this stream belongs to is stopping; false without a server.  By the
 * handler; never suspends. */
MAG_API bool mag_stream_is_draining(const struct mag_stream *s);

/*
 * For handlers between two requests: waits until something of the next one is buffered, and
 * returns how many bytes.  0: there is none: the peer has ended, or the server is stopping and
 * nothing had arrived.  Otherwise as mag_stream_fill, and on a stream without a server the same
 * as that while nothing is buffered.  Suspends; cancellation point: nothing is lost.
 */
MAG_API int mag_stream_wait_request(struct mag_stream *s);

/*
 * start, wait, stop, free.  It ends when the calling task is cancelled (Ctrl-C, a timeout), with a
 * graceful stop: -ECANCELED then, whether .drain was enough or not; or by an error.  Suspends;
 * cancellation point.
 */
MAG_API int mag_serve(mag_stream_handler *handler, void *arg,
                      const struct mag_serve_options *options);

#ifdef __cplusplus
}
#endif
#endif
