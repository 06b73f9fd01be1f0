/* SPDX-License-Identifier: MIT */
/*
 * tls.c - a transport over another transport: what goes through it is encrypted
 *
 *      stream's reader                                        stream's writer
 *           |  read                                                |  write
 *           v                          [ssl]                       v
 *      SSL_read <---- in <--- BIO ---- SSL ---- BIO ---> out <---- SSL_write
 *                     ^                                   | [sending]
 *                     |                                   v
 *                  lower->read                          sent ---> lower->write
 *
 * OpenSSL never waits here.  Its BIO copies from and to buffers of ours, and answers "later" when
 * there is nothing; the waiting is done outside, between two calls.  So nothing suspends inside
 * of OpenSSL, which keeps its errors in a queue of the thread: a task that has suspended may
 * be on another one.  Each call is made with [ssl], whose holder never suspends either; errors are
 * read (tls_why.c) before it is given back.
 *
 * Records have numbers, so they must leave in the order in which they were made.  They are made
 * into `out'.  Who sends has [sending], across suspensions: it takes all of `out' away as
 * `sent', in whose place nothing is added, and sends that.
 *
 * What a write has encrypted can not be undone.  So it has been written, whatever happens
 * while it is sent: a cancelled write answers its count, and leaves the rest in `sent', where the
 * next who sends begins.  A new write first sends all that is older; so at most one write's
 * worth (WRITE_BYTES) is waiting.
 *
 * A reader sends what waits before it waits itself, if nobody else is at it.  What its own
 * reading makes are alerts, which can wait for whoever sends next.
 *
 * Buffers.  An idle connection has an `in' of IN_SMALL bytes; if that is filled by one receive, the
 * next are of IN_LARGE.  OpenSSL's own are freed while they are empty (SSL_MODE_RELEASE_BUFFERS).
 *
 * Close.  We say close_notify and do not wait for the peer's.  But TCP answers bytes that come
 * after close(2), or were not read before it, with a reset, which may cost the peer what it
 * has not read yet; and a server of TLS 1.3 sends tickets that a client may never have read.
 * So what has come is read and thrown away, and a client that has read nothing at all waits up
 * to LINGER_NS for it.
 *
 * Invariants
 *   1. in is the reader's; out and the SSL are [ssl]'s; sent is [sending]'s.
 *   2. [sending] is never waited for with [ssl] held.
 *   3. In a handshake and in close its task is the only one here (the stream sees to that).
 *   4. A failure is final: `error' is what every later call answers.
 *
 * Rejected: a socket BIO (blocks, or has its own system calls beside the ring); memory BIOs (a
 * copy more, and they grow for ever); one lock for all (a reader who waits would lock the
 * writer out); a write that waits until the peer has read all (two that do so never end).
 *
 * Sources: SSL_read(3), SSL_write(3), SSL_shutdown(3), BIO_meth_new(3); RFC 8446, 6.1.
 */
#include <magpie/net.h>
#include <magpie/scope.h>
#include <magpie/server.h>
#include <magpie/task.h>
#include <magpie/tls.h>

#include "mem.h"
#include "misuse.h"
#include "tls_context.h"
#include "transport.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum {
    IN_SMALL = 2048,
    IN_LARGE = 4 * 17 * 1024,    /* some records */
    WRITE_BYTES = 4 * 16 * 1024, /* plain bytes that one write takes */
    RECORD_BYTES = 16 * 1024,    /* of which a record has so many at most, */
    RECORD_MORE = 512,           /* and so much more when it is encrypted */
    HANDSHAKE_BYTES = 4 * 1024,  /* what `out' begins with otherwise */
    BYTES_MAX = 1 << 30,         /* that one call of OpenSSL is asked for */
    DRAINS_MAX = 64,             /* reads of what is thrown away */
    NAME_BYTES = 256,            /* of a DNS name */
    LATER = INT32_MIN,           /* among results: when more has come */
};

static const mag_time LINGER_NS = MAG_SECOND;

struct bytes {
    char *ptr;
    size_t begin, end, room;
};

struct connection {
    struct mag_tls_context *context;
    SSL *ssl;                          /* [ssl_lock] */
    const struct mag_stream *stream;   /* [const] */
    const struct mag_transport *lower; /* [const] */
    void *lower_self;
    struct mag_mutex ssl_lock; /* never held across a suspension */
    struct mag_mutex sending;
    struct bytes in;   /* [reader] encrypted, received */
    struct bytes out;  /* [ssl_lock] encrypted, to be sent */
    struct bytes sent; /* [sending] encrypted, being sent */
    bool is_reading;   /* [ssl_lock] the BIO may use `in' */
    bool is_in_large;  /* [reader] */
    bool is_up;        /* [const once up] the handshake is done */
    bool has_heard;    /* [reader] something has come since then */
    bool has_ended;    /* [ssl_lock] close_notify was made */
    mag_atomic(int) error;
    char alpn[NAME_BYTES];
    char name[NAME_BYTES];           /* [const] the peer's, as the certificate must have it */
    char peer[MAG_TLS_PEER_BYTES];   /* [const] of the client's session; "": none */
    char refused[MAG_TLS_WHY_BYTES]; /* [ssl_lock] what is wrong with the peer's certificate */
    char why[MAG_TLS_WHY_BYTES];     /* [ssl_lock] */
    mag_atomic(bool) is_cut_off;     /* a write did not end */
};

static size_t length_of(const struct bytes *b)
{
    return b->end - b->begin;
}

static void drop(struct bytes *b)
{
    mag_mem_free(b->ptr);
    *b = (struct bytes){ 0 };
}

/* Room for so many behind what is there. */
static int reserve(struct bytes *b, size_t n)
{
    size_t room = b->end + n;
    char *ptr;

    if (b->room >= room)
        return 0;
    room = room > 2 * b->room ? room : 2 * b->room;
    ptr = mag_mem_realloc(b->ptr, room);
    if (ptr == NULL)
        return -ENOMEM;
    b->ptr = ptr;
    b->room = room;
    return 0;
}

/* ---- OpenSSL's side: never waits -------------------------------------------------- */

static int bio_read(BIO *bio, char *buf, size_t room, size_t *n)
{
    struct connection *c = BIO_get_data(bio);
    size_t have = c->is_reading ? length_of(&c->in) : 0;

    BIO_clear_retry_flags(bio);
    if (have == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    *n = have < room ? have : room;
    memcpy(buf, c->in.ptr + c->in.begin, *n);
    c->in.begin += *n;
    return 1;
}

static int bio_write(BIO *bio, const char *buf, size_t n, size_t *written)
{
    struct connection *c = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (reserve(&c->out, c->out.room ? n : n + HANDSHAKE_BYTES) < 0) {
        ERR_raise(ERR_LIB_BIO, ERR_R_MALLOC_FAILURE);
        return 0;
    }
    memcpy(c->out.ptr + c->out.end, buf, n);
    c->out.end += n;
    *written = n;
    return 1;
}

static long bio_ctrl(BIO *bio, int what, long number, void *arg)
{
    (void)bio, (void)number, (void)arg;
    return what == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *make_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "magpie");

    if (m && BIO_meth_set_read_ex(m, bio_read) && BIO_meth_set_write_ex(m, bio_write) &&
        BIO_meth_set_ctrl(m, bio_ctrl) && BIO_meth_set_create(m, bio_create))
        return m;
    BIO_meth_free(m);
    return NULL;
}

/* ---- failures --------------------------------------------------------------------- */

static void tell(struct connection *c, const char *text)
{
    struct mag_tls_context *context = c->context;

    snprintf(c->why, sizeof c->why, "%s", text);
    mag_spin_lock(&context->lock);
    memcpy(context->why, c->why, sizeof c->why);
    mag_spin_unlock(&context->lock);
}

/* Final: invariant 4. */
static int fail(struct connection *c, int rc, const char *text)
{
    mag_store_release(&c->error, rc == -ECANCELED ? -ECONNABORTED : rc);
    tell(c, text);
    return rc;
}

/* After a call of OpenSSL, with [ssl_lock]: LATER, 0 for the peer's close_notify, or an error. */
static int outcome(struct connection *c, int result)
{
    char text[MAG_TLS_WHY_BYTES];
    int rc;

    switch (SSL_get_error(c->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        return LATER;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        rc = mag_tls_why(text, c->refused, -EPROTO);
        return fail(c, rc, text);
    }
}

/* ---- sending ---------------------------------------------------------------------- */

typedef int lower_write(void *self, const struct iovec *iov, int n_iov);

/* Of who is about to read. */
static lower_write *write_or_readable(const struct connection *c)
{
    return c->lower->write_or_readable ? c->lower->write_or_readable : c->lower->write;
}

/* With [sending]: what was taken away. */
static int send_taken_by(struct connection *c, lower_write *by)
{
    struct bytes *b = &c->sent;

    while (b->begin < b->end) {
        struct iovec piece = { b->ptr + b->begin, length_of(b) };
        int rc = mag_transport_wrote(by(c->lower_self, &piece, 1));
        if (rc < 0)
            return rc;
        b->begin += (size_t)rc;
    }
    drop(b);
    return 0;
}

static int send_taken(struct connection *c)
{
    return send_taken_by(c, c->lower->write);
}

/* With both locks, and nothing in `sent'. */
static void take_out(struct connection *c)
{
    c->sent = c->out;
    c->out = (struct bytes){ 0 };
}

/* With [sending]: all that there is. */
static int send_all(struct connection *c)
{
    int rc = send_taken(c);

    if (rc == 0)
        rc = mag_mutex_lock(&c->ssl_lock);
    if (rc < 0)
        return rc;
    take_out(c);
    mag_mutex_unlock(&c->ssl_lock);
    return send_taken(c);
}

/* For a reader that is about to wait.  What is wrong with sending is the writer's to find out. */
static int send_for_reader(struct connection *c)
{
    int rc = 0;

    if (mag_mutex_trylock(&c->sending) < 0)
        return 0;
    if (length_of(&c->sent) > 0)
        rc = send_taken_by(c, write_or_readable(c));
    mag_mutex_unlock(&c->sending);
    return rc == -ECANCELED ? rc : 0;
}

/* ---- receiving -------------------------------------------------------------------- */

/* Room for the next receive; smaller if there is not enough memory. */
static int make_room(struct connection *c)
{
    size_t room = c->is_in_large ? IN_LARGE : IN_SMALL;

    c->in.begin = c->in.end = 0;
    if (c->in.room == room)
        return 0;
    drop(&c->in);
    c->in.ptr = mag_mem_alloc(room);
    if (c->in.ptr == NULL)
        return -ENOMEM;
    c->in.room = room;
    return 0;
}

/* Receives once: > 0; 0 at the end of the connection; with `in' empty. */
static int receive(struct connection *c)
{
    int rc = make_room(c);

    if (rc < 0)
        return rc;
    do {
        rc = c->lower->read(c->lower_self, c->in.ptr, c->in.room);
    } while (rc == -EAGAIN);
    if (rc > 0) {
        c->in.end = (size_t)rc;
        c->is_in_large = c->in.end == c->in.room || c->in.end >= RECORD_BYTES / 2;
        c->has_heard |= c->is_up;
    }
    return rc;
}

/* As much as there is of what was received: > 0; 0: close_notify; LATER; or an error. */
static int decrypt(struct connection *c, char *buf, size_t n)
{
    size_t done = 0, some = 0;
    int rc = mag_mutex_lock(&c->ssl_lock);

    if (rc < 0)
        return rc;
    rc = mag_load_relaxed(&c->error);
    if (rc < 0) {
        mag_mutex_unlock(&c->ssl_lock);
        return rc;
    }
    ERR_clear_error();
    c->is_reading = true;
    do {
        rc = SSL_read_ex(c->ssl, buf + done, n - done, &some);
        done += rc > 0 ? some : 0;
    } while (rc > 0 && done < n);
    /* A failure is final, and an end stays one: they are met again after what came before. */
    if (rc <= 0)
        rc = outcome(c, rc);
    c->is_reading = false;
    mag_mutex_unlock(&c->ssl_lock);
    return done > 0 ? (int)done : rc;
}

/* The end, without close_notify.  If that is the doing of our own server, which drains, it is an
 * end all the same. */
static int cut_short(struct connection *c)
{
    if (mag_stream_is_draining(c->stream))
        return 0;
    if (mag_mutex_lock(&c->ssl_lock) == 0) {
        if (mag_load_relaxed(&c->error) == 0)
            tell(c, "the connection has ended without a close_notify");
        mag_mutex_unlock(&c->ssl_lock);
    }
    return -ECONNABORTED;
}

static int tls_read(void *self, void *buf, size_t n)
{
    struct connection *c = self;
    int rc;

    n = n < BYTES_MAX ? n : BYTES_MAX;
    rc = decrypt(c, buf, n);
    if (rc != LATER)
        return rc;
    rc = send_for_reader(c);
    if (rc == 0)
        rc = receive(c);
    else
        return rc;
    if (rc <= 0)
        return rc == 0 ? cut_short(c) : rc;
    rc = decrypt(c, buf, n);
    return rc == LATER ? -EAGAIN : rc; /* a ticket, or a part of a record */
}

/* ---- writing ---------------------------------------------------------------------- */

static size_t total(const struct iovec *iov, int n_iov)
{
    size_t n = 0;

    for (int i = 0; i < n_iov && n < WRITE_BYTES; i++)
        n += iov[i].iov_len;
    return n < WRITE_BYTES ? n : WRITE_BYTES;
}

/* With [ssl_lock]: bytes that were taken, >= 1, or an error. */
static int encrypt(struct connection *c, const struct iovec *iov, int n_iov)
{
    size_t left = total(iov, n_iov), done = 0, some = 0;
    size_t n_records = left / RECORD_BYTES + (size_t)n_iov + 1;
    int rc = mag_load_relaxed(&c->error);

    if (rc == 0)
        rc = reserve(&c->out, left + n_records * RECORD_MORE);
    if (rc < 0)
        return rc;
    ERR_clear_error();
    for (int i = 0; i < n_iov && left > 0; i++) {
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
        for (size_t at = 0; at < n; at += some) {
            rc = SSL_write_ex(c->ssl, (char *)iov[i].iov_base + at, n - at, &some);
            if (rc <= 0) {
                rc = outcome(c, rc);
                return done > 0 ? (int)done : rc < 0 && rc != LATER ? rc : -EPROTO;
            }
            done += some;
        }
        left -= n;
    }
    return (int)done;
}

/* With [sending]. */
static int write_some_by(struct connection *c, lower_write *by, const struct iovec *iov, int n_iov)
{
    int rc = send_taken_by(c, by), n;

    if (rc == 0)
        rc = mag_mutex_lock(&c->ssl_lock);
    if (rc < 0)
        return rc;
    n = encrypt(c, iov, n_iov);
    take_out(c);
    mag_mutex_unlock(&c->ssl_lock);
    rc = send_taken_by(c, by);
    return n > 0 && rc < 0 && rc != -ECANCELED && rc != -EAGAIN ? rc : n;
}

static int tls_write(void *self, const struct iovec *iov, int n_iov)
{
    struct connection *c = self;
    int rc = mag_mutex_lock(&c->sending);

    if (rc < 0)
        return rc;
    rc = write_some_by(c, c->lower->write, iov, n_iov);
    mag_mutex_unlock(&c->sending);
    return rc;
}

/* Whether a read would have something, or know something, without receiving more. */
static bool is_readable(struct connection *c)
{
    char byte;
    size_t n = 0;
    bool is_later;

    if (mag_mutex_lock(&c->ssl_lock) < 0)
        return true; /* the read will say why */
    ERR_clear_error();
    c->is_reading = true;
    is_later = mag_load_relaxed(&c->error) == 0 && SSL_peek_ex(c->ssl, &byte, 1, &n) <= 0 &&
               outcome(c, 0) == LATER;
    c->is_reading = false;
    mag_mutex_unlock(&c->ssl_lock);
    return !is_later;
}

/* What is encrypted and could not go is sent by the read that follows (send_for_reader), if that
 * has to wait. */
static int tls_write_or_readable(void *self, const struct iovec *iov, int n_iov)
{
    struct connection *c = self;
    int rc = mag_mutex_lock(&c->sending);

    if (rc < 0)
        return rc;
    if (length_of(&c->sent) > 0 && is_readable(c))
        rc = -EAGAIN;
    else
        rc = write_some_by(c, write_or_readable(c), iov, n_iov);
    mag_mutex_unlock(&c->sending);
    return rc;
}

/* ---- ending ----------------------------------------------------------------------- */

/* With [sending]: a close_notify, once, if there can be one. */
static int say_end(struct connection *c)
{
    int rc = mag_mutex_lock(&c->ssl_lock);

    if (rc < 0)
        return rc;
    rc = mag_load_relaxed(&c->error);
    if (rc == 0 && !c->has_ended) {
        ERR_clear_error();
        c->has_ended = true;
        if (SSL_shutdown(c->ssl) < 0)
            rc = -EPROTO;
        ERR_clear_error();
    }
    mag_mutex_unlock(&c->ssl_lock);
    return rc;
}

static int tls_write_eof(void *self)
{
    struct connection *c = self;
    int rc = mag_mutex_lock(&c->sending);

    if (rc < 0)
        return rc;
    rc = say_end(c);
    if (rc == 0)
        rc = send_all(c);
    mag_mutex_unlock(&c->sending);
    return rc;
}

/* Reads what has come already, so that close(2) causes no reset. */
static void drain(struct connection *c)
{
    int fd = c->lower->fd(c->lower_self);

    for (int i = 0; fd >= 0 && i < DRAINS_MAX && make_room(c) == 0; i++)
        if (mag_recv(fd, c->in.ptr, c->in.room, MSG_DONTWAIT) <= 0)
            break;
}

/* The tickets of a server, that would meet a closed socket. */
static void await_tickets(struct connection *c)
{
    struct mag_scope scope;

    if (c->context->is_server || c->has_heard || SSL_version(c->ssl) < TLS1_3_VERSION ||
        mag_timeout_enter(&scope, LINGER_NS, NULL) < 0)
        return;
    (void)receive(c);
    (void)mag_scope_leave(&scope, 0);
}

static void free_connection(struct connection *c)
{
    SSL_free(c->ssl);
    drop(&c->in);
    drop(&c->out);
    drop(&c->sent);
    mag_tls_context_unref(c->context);
    mag_mem_free(c);
}

static int tls_close(void *self)
{
    struct connection *c = self;
    int rc = mag_cancelled() ? -ECANCELED : 0, close_rc;

    if (mag_load_relaxed(&c->is_cut_off))
        rc = -EBADF;
    if (rc == 0)
        rc = send_taken(c);
    if (rc == 0 && c->is_up && tls_write_eof(c) == 0) {
        await_tickets(c);
        drain(c);
    }
    close_rc = c->lower->close(c->lower_self);
    free_connection(c);
    return rc < 0 ? rc : close_rc;
}

static void tls_abort(void *self)
{
    struct connection *c = self;

    c->lower->abort(c->lower_self);
    free_connection(c);
}

static int tls_fd(void *self)
{
    struct connection *c = self;

    return c->lower->fd(c->lower_self);
}

static void tls_interrupt(void *self)
{
    struct connection *c = self;

    /* Whoever is sending is cut off, and nothing can come after that. */
    if (mag_mutex_locked(&c->sending))
        mag_store_relaxed(&c->is_cut_off, true);
    if (c->lower->interrupt)
        c->lower->interrupt(c->lower_self);
}

static const struct mag_transport transport = {
    .name = "tls",
    .read = tls_read,
    .write = tls_write,
    .write_eof = tls_write_eof,
    .close = tls_close,
    .abort = tls_abort,
    .fd = tls_fd,
    .interrupt = tls_interrupt,
    .write_or_readable = tls_write_or_readable,
};

/* ---- the handshake ---------------------------------------------------------------- */

/* OpenSSL's, in the middle of a read: keeps a session, and its reference (1), or not. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct connection *c = SSL_get_app_data(ssl);

    return c->peer[0] != '\0' && mag_tls_sessions_put(&c->context->sessions, c->peer, session);
}

static void offer_session(struct connection *c, const struct mag_stream *s)
{
    char peer[128] = "";
    SSL_SESSION *session;
    int n;

    (void)mag_stream_peer_name(s, peer, sizeof peer);
    const char *port = strrchr(peer, ':');
    n = snprintf(c->peer, sizeof c->peer, "%s%s", c->name, port ? port : "");
    if (n < 0 || (size_t)n >= sizeof c->peer)
        c->peer[0] = '\0';
    session = c->peer[0] ? mag_tls_sessions_take(&c->context->sessions, c->peer) : NULL;
    if (session)
        SSL_set_session(c->ssl, session);
    SSL_SESSION_free(session);
}

/* OpenSSL's, for each certificate of the peer's chain: notes why one is refused. */
static int note_refusal(int is_ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct connection *c = SSL_get_app_data(ssl);

    if (!is_ok)
        mag_tls_why_refused(c->refused, X509_STORE_CTX_get_error(store),
                            X509_STORE_CTX_get0_cert(store), c->name);
    return is_ok;
}

/* An address is checked as one, and no server is asked for it by name. */
static int expect_name(struct connection *c)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(c->ssl);
    bool is_address = c->name[0] && X509_VERIFY_PARAM_set1_ip_asc(param, c->name) == 1;

    ERR_clear_error();
    if (is_address || c->name[0] == '\0')
        return 0;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_set_tlsext_host_name(c->ssl, c->name) != 1 ||
        X509_VERIFY_PARAM_set1_host(param, c->name, 0) != 1)
        return -ENOMEM;
    return 0;
}

static int set_up_client(struct connection *c, const struct mag_stream *s)
{
    int rc = expect_name(c);

    if (rc == 0 && c->context->sessions.n > 0)
        offer_session(c, s);
    SSL_set_connect_state(c->ssl);
    return rc;
}

static int set_up(struct connection *c, const struct mag_stream *s)
{
    BIO *bio;

    c->ssl = SSL_new(c->context->ctx);
    bio = c->ssl ? BIO_new(c->context->bio) : NULL;
    if (bio == NULL)
        return -ENOMEM;
    BIO_set_data(bio, c);
    SSL_set_bio(c->ssl, bio, bio);
    SSL_set_app_data(c->ssl, c);
    SSL_set_verify(c->ssl, SSL_get_verify_mode(c->ssl), note_refusal);
    if (!c->context->is_server)
        return set_up_client(c, s);
    SSL_set_accept_state(c->ssl);
    return 0;
}

/* Without the brackets of "[::1]", the zone of "fe80::1%2", and the last dot of "example.org.". */
static int copy_name(char *to, const char *name)
{
    size_t n;

    if (*name == '[')
        name++;
    n = strcspn(name, "]%");
    if (n > 0 && name[n - 1] == '.')
        n--;
    if (n >= NAME_BYTES)
        return -EINVAL;
    memcpy(to, name, n);
    to[n] = '\0';
    return 0;
}

static int make_connection(struct connection **out, struct mag_tls_context *context,
                           const struct mag_stream *s, const char *name)
{
    struct connection *c = mag_mem_zalloc(sizeof *c);
    int rc;

    *out = c;
    if (c == NULL)
        return -ENOMEM;
    mag_tls_context_ref(context);
    c->context = context;
    c->stream = s;
    c->lower = s->transport;
    c->lower_self = s->self;
    rc = copy_name(c->name, name ? name : "");
    if (rc == 0)
        rc = set_up(c, s);
    ERR_clear_error();
    if (rc < 0)
        free_connection(c);
    return rc;
}

/* As far as it goes with what has come: 1: done; LATER; or an error. */
static int step(struct connection *c)
{
    int rc = mag_mutex_lock(&c->ssl_lock);

    if (rc < 0)
        return rc;
    ERR_clear_error();
    c->is_reading = true;
    rc = SSL_do_handshake(c->ssl);
    if (rc != 1) {
        rc = outcome(c, rc);
        rc = rc == 0 ? fail(c, -ECONNABORTED, "the peer has given the handshake up") : rc;
    }
    c->is_reading = false;
    mag_mutex_unlock(&c->ssl_lock);
    return rc;
}

static int receive_handshake(struct connection *c)
{
    int rc = receive(c);

    return rc != 0 ? rc : fail(c, -ECONNABORTED, "the peer has closed during the handshake");
}

static int handshake(struct connection *c)
{
    int rc, sent;

    for (;;) {
        rc = step(c);
        /* Also the alert that says what we do not like; and the last of it, tickets: if the
         * peer does not want those, it may have sent something all the same. */
        sent = rc == -ECANCELED ? 0 : send_all(c);
        if (rc != LATER)
            break;
        rc = sent < 0 ? sent : receive_handshake(c);
        if (rc < 0)
            break;
    }
    if (rc < 0)
        return mag_load_relaxed(&c->error) ? rc : fail(c, rc, mag_err_text(rc));
    return 0;
}

static void note_alpn(struct connection *c)
{
    const unsigned char *name = NULL;
    unsigned n = 0;

    SSL_get0_alpn_selected(c->ssl, &name, &n);
    if (n > 0 && n < sizeof c->alpn)
        memcpy(c->alpn, name, n);
}

static int start(struct mag_tls *tls, struct mag_stream *s, const char *name)
{
    struct mag_tls_context *context = mag_container_of(tls, struct mag_tls_context, base);
    struct connection *c;
    int rc;

    if (!context->is_server && !context->is_insecure && (name == NULL || *name == '\0'))
        return mag_misuse(-EINVAL, "a TLS client must be told the name that the peer's "
                                   "certificate is to have");
    rc = make_connection(&c, context, s, context->is_server ? NULL : name);
    if (rc < 0)
        return rc;
    mag_stream_replace(s, &transport, c);
    rc = handshake(c);
    if (rc < 0)
        return rc;
    note_alpn(c);
    c->is_up = true;
    c->has_heard = length_of(&c->in) > 0;
    return 0;
}

/* ---- contexts --------------------------------------------------------------------- */

/* What a thread of the pool makes. */
struct making {
    struct mag_tls_context *context;
    const struct mag_tls_options *options;
    bool is_server;
    char why[MAG_TLS_WHY_BYTES];
};

static int make_context(void *arg)
{
    struct making *m = arg;
    int rc = mag_tls_context_new(&m->context, m->options, m->is_server, m->why);

    if (rc < 0)
        return rc;
    m->context->bio = make_bio_method();
    if (m->context->bio)
        return 0;
    mag_tls_context_unref(m->context);
    return -ENOMEM;
}

static int make(struct mag_tls **out, const struct mag_tls_options *options, bool is_server)
{
    static const struct mag_tls_options none = { 0 };
    struct making m = { .options = options ? options : &none, .is_server = is_server };
    int rc;

    *out = NULL;
    rc = mag_to_thread(make_context, &m);
    if (rc < 0) {
        if (m.options->why && m.options->why_bytes)
            snprintf(m.options->why, m.options->why_bytes, "%s",
                     m.why[0] ? m.why : mag_err_text(rc));
        return rc;
    }
    SSL_CTX_sess_set_new_cb(m.context->ctx, is_server ? NULL : keep_session);
    m.context->base.start = start;
    *out = &m.context->base;
    return 0;
}

int mag_tls_client_new(struct mag_tls **out, const struct mag_tls_options *options)
{
    return make(out, options, false);
}

int mag_tls_server_new(struct mag_tls **out, const struct mag_tls_options *options)
{
    return make(out, options, true);
}

void mag_tls_free(struct mag_tls *tls)
{
    if (tls)
        mag_tls_context_unref(mag_container_of(tls, struct mag_tls_context, base));
}

int mag_tls_error(struct mag_tls *tls, char *buf, size_t room)
{
    struct mag_tls_context *c = mag_container_of(tls, struct mag_tls_context, base);
    char why[MAG_TLS_WHY_BYTES];

    mag_spin_lock(&c->lock);
    memcpy(why, c->why, sizeof why);
    mag_spin_unlock(&c->lock);
    snprintf(buf, room, "%s", why);
    return (int)strlen(why);
}

/* ---- of a stream ------------------------------------------------------------------ */

static const struct connection *connection_of(const struct mag_stream *s)
{
    return s->transport == &transport ? s->self : NULL;
}

const char *mag_stream_tls_error(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c ? c->why : NULL;
}

const char *mag_stream_alpn(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c && c->alpn[0] ? c->alpn : NULL;
}

const char *mag_stream_tls_version(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c && c->is_up ? SSL_get_version(c->ssl) : NULL;
}

const char *mag_stream_tls_cipher(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c && c->is_up ? SSL_get_cipher_name(c->ssl) : NULL;
}

const char *mag_stream_tls_server_name(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c && c->context->is_server ? SSL_get_servername(c->ssl, TLSEXT_NAMETYPE_host_name)
                                      : NULL;
}

bool mag_stream_tls_reused(const struct mag_stream *s)
{
    const struct connection *c = connection_of(s);

    return c && c->is_up && SSL_session_reused(c->ssl) == 1;
}

int mag_stream_tls_peer(const struct mag_stream *s, char *buf, size_t room)
{
    const struct connection *c = connection_of(s);
    const X509 *certificate;

    if (room > 0)
        buf[0] = '\0';
    if (c == NULL || !c->is_up)
        return -ENOTCONN;
    certificate = SSL_get0_peer_certificate(c->ssl);
    return certificate && room > 0 ? mag_tls_subject(certificate, buf, room) : 0;
}
