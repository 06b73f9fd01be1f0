/* SPDX-License-Identifier: MIT */
/*
 * stream.c - buffered reading and writing on a connection
 *
 *      read side    transport -> [ begin..end ] -> read, readline, peek ...
 *                        `---- a large read with nothing buffered ----> the caller's
 *      write side   write -> [ begin..end ] -> transport
 *                        `---- a large write, after what is buffered, in one send ---->
 *
 * Nobody works for a stream but the tasks that call it.  So there is nothing to start or to
 * stop, and what is buffered to be sent is sent by whoever has reason to: a write over the high
 * water, a drain, a close, and a read that has to wait for the peer, who may be waiting for it.
 *
 * Who is inside.  Two tasks may use a stream at once, and a third close it, and its storage is
 * the caller's, to be freed after the close.  One word, s->state, says whether it is open and
 * who is inside; each way in and out is one step on that word.  close takes OPEN away, so that
 * nobody comes, and interrupts the transport until nobody is left; then it closes that.
 *
 * Several may close, and each may free the storage when its close has returned: the task whose
 * stream it is, after one that has aborted it.  So one of them does it (s->closing), and the
 * others wait for that one, each by an event of its own: they have touched the stream for the
 * last time before they wait, and that one does before it wakes them.
 *
 * Who sends.  `writing' is a mutex: writes of several tasks stay together.  A reader must not
 * wait for it: the writer who has it may wait for a peer who first wants to be read.  So the
 * reader tries; if it is refused it says FLUSH (A) and tries once more; who has the mutex looks
 * for FLUSH after it has given it back, in the step by which it leaves (B).  Both are steps on
 * s->state: if (A) comes first (B) sees it, and otherwise the reader's second try succeeds.
 * Neither must a reader wait for the peer's reading while there is something for it to read: two
 * who both send more than the kernel holds would wait for each other.  So on a socket it sends
 * what goes at once, and then waits for either.
 *
 * Who has said FLUSH relies on another's sending, and that one may be cancelled before it has sent
 * all.  So it waits for its peer for a while only, and then looks whether it can send by itself;
 * each while is twice as long as the one before, up to a second.
 *
 * Invariants
 *   1. What the transport has given is in the caller's memory, or buffered: an error comes
 *      after it.  What was taken from a writer is buffered, or has gone.
 *   2. `in' belongs to who has READING, `out' to who has `writing'; both to close at the end.
 *   3. length_of(in) <= limit.  length_of(out) <= high_water, unless memory was short for that.
 *   4. s->ended is NULL, or what it points to is a zero that stands for s->covered: the end of
 *      the bytes that the last read has handed out.
 *   5. After OPEN has gone, nothing but close touches the stream once the others have left.
 *   6. s->closing is NULL, or somebody closes it: the head of a list of who waits for that.
 *
 * Errors stay (error_in, error_out): the kernel tells of a reset once, and then says "end".
 *
 * A buffer is 4 KiB, and doubles while reads fill it; it is small again as soon as a read of
 * little finds it empty.  So 10,000 quiet connections have 40 MB, less than their stacks;
 * .poll_first has them wait without one.
 *
 * Cost, over the transport's own calls: 30 to 50 ns for a message that is read and answered.
 *
 * Rejected: a task that sends in the background, as asyncio's transports do (a stream would need
 * a task, and an end of it to wait for); one for what a cancelled writer leaves to a reader that
 * waits (if it is cancelled itself before it has begun, nobody tells the stream); to flush at each
 * write (two sends for a header and a body); two words, one for each half (a close would have to
 * look at both).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/stream.h>

#include "atomic.h"
#include "mem.h"
#include "misuse.h"
#include "transport.h"
#include "wait.h"

#include <errno.h>
#include <magpie/net.h>
#include <magpie/scope.h>
#include <magpie/task.h>
#include <magpie/tls.h>
#include <poll.h>
#include <string.h>

enum {
    BUFFER_BYTES = 4096,    /* what a buffer begins with                            */
    READ_STRAIGHT = 1024,   /* a read of so much goes past an empty buffer          */
    WRITE_STRAIGHT = 16384, /* a write of so much is not copied                     */
    PIECES = 16,            /* in one send                                          */
    DEFAULT_BYTES = 65536,  /* .limit, .high_water                                  */
    BYTES_MAX = 0x7ffff000, /* that a call moves                                    */
    NAP_NS = 20 * 1000,     /* between two looks whether all have left; doubles     */
    NAP_NS_MAX = 1000 * 1000,
    LOOK_NS = 20 * 1000 * 1000, /* a reader's first wait while another is to send; doubles */
    LOOK_NS_MAX = 1000 * 1000 * 1000,
};

/* Of s->state. */
enum {
    OPEN = 1,
    FLUSH = 2,   /* a reader waits for its peer: whoever has `writing' is to send all of it */
    READING = 4, /* somebody is in the read side */
    WRITER = 8,  /* one of those who are in the write side, or wait for it */
};

/* ---- buffers -------------------------------------------------------------------------- */

static size_t length_of(const struct mag_stream_buffer *b)
{
    return b->end - b->begin;
}

static void drop_buffer(struct mag_stream_buffer *b)
{
    mag_mem_free(b->ptr);
    *b = (struct mag_stream_buffer){ 0 };
}

/* Moves what it has to a block of that many bytes, and one for a zero behind them. */
static int move_buffer(struct mag_stream_buffer *b, size_t room)
{
    size_t n = length_of(b);
    char *ptr = mag_mem_alloc(room + 1);

    if (ptr == NULL)
        return -ENOMEM;
    if (n > 0)
        memcpy(ptr, b->ptr + b->begin, n);
    mag_mem_free(b->ptr);
    *b = (struct mag_stream_buffer){ .ptr = ptr, .end = n, .room = room };
    return 0;
}

static void pack_buffer(struct mag_stream_buffer *b)
{
    size_t n = length_of(b);

    if (n > 0)
        memmove(b->ptr, b->ptr + b->begin, n);
    b->begin = 0;
    b->end = n;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of `room' bytes, doubled until they are so many, but at most max. */
static size_t grown(size_t room, size_t bytes, size_t max)
{
    if (room < BUFFER_BYTES)
        room = BUFFER_BYTES;
    while (room < bytes && room < max)
        room *= 2;
    return smaller(room, max);
}

static void take(struct mag_stream_buffer *b, size_t n)
{
    b->begin += n;
    if (b->begin == b->end)
        b->begin = b->end = 0;
}

/* Takes the zero behind the last line away. */
static void uncover(struct mag_stream *s)
{
    if (s->ended)
        *s->ended = s->covered;
    s->ended = NULL;
}

/* ---- who is inside --------------------------------------------------------------------- */

static int enter_read(struct mag_stream *s)
{
    uint32_t state = mag_load_relaxed(&s->state);

    do {
        if (!(state & OPEN))
            return -EBADF;
        if (state & READING)
            return mag_misuse(-EBUSY, "two tasks read from one stream");
    } while (!mag_cas(&s->state, &state, state | READING));
    uncover(s);
    return 0;
}

static void leave_read(struct mag_stream *s)
{
    mag_fetch_and(&s->state, ~(uint32_t)READING);
}

static bool is_open(const struct mag_stream *s)
{
    return mag_load_acquire(&s->state) & OPEN;
}

static int send_buffered(struct mag_stream *s, size_t keep);

/* Sends what a reader has left to us to send.  False: somebody else has `writing', and will
 * see FLUSH in leaving.  (If we are cancelled it is left to the next who sends, or to the reader,
 * who looks again.) */
static MAG_NOINLINE bool flush_in_leaving(struct mag_stream *s)
{
    if (mag_mutex_trylock(&s->writing) < 0)
        return false;
    mag_fetch_and(&s->state, ~(uint32_t)FLUSH);
    if (!s->error_out)
        (void)send_buffered(s, 0);
    mag_mutex_unlock(&s->writing);
    return true;
}

/* Gives `writing' back, and leaves. */
static void leave_write(struct mag_stream *s)
{
    uint32_t state;

    mag_mutex_unlock(&s->writing);
    state = mag_load_relaxed(&s->state); /* relaxed: the CAS decides */
    do {
        while (MAG_UNLIKELY(state & FLUSH) && flush_in_leaving(s))
            state = mag_load_relaxed(&s->state);
    } while (!mag_cas(&s->state, &state, state - WRITER)); /* (B) */
}

static int enter_write(struct mag_stream *s)
{
    int rc = -EBADF;

    if (mag_fetch_add(&s->state, WRITER) & OPEN)
        rc = mag_mutex_lock(&s->writing);
    if (rc < 0) {
        mag_fetch_sub(&s->state, WRITER);
        return rc;
    }
    if (!is_open(s))
        rc = -EBADF;
    else if (s->error_out)
        rc = s->error_out;
    if (rc < 0)
        leave_write(s);
    return rc;
}

/* An error that will be there next time too, even if the system tells of it only once. */
static bool is_final(int rc)
{
    switch (rc) {
    case -ECANCELED:
    case -EBADF:
    case -ENOMEM:
    case -ENOBUFS:
    case -EINTR:
    case -EAGAIN:
        return false;
    default:
        return rc < 0;
    }
}

/* ---- sending --------------------------------------------------------------------------- */

typedef int transport_write(void *self, const struct iovec *iov, int n_iov);

static int send_iov_by(struct mag_stream *s, transport_write *by, const struct iovec *iov,
                       int n_iov)
{
    int rc = is_open(s) ? mag_transport_wrote(by(s->self, iov, n_iov)) : -EBADF;

    if (is_final(rc))
        mag_store_relaxed(&s->error_out, rc);
    return rc;
}

static int send_iov(struct mag_stream *s, const struct iovec *iov, int n_iov)
{
    return send_iov_by(s, s->transport->write, iov, n_iov);
}

static void sent(struct mag_stream *s, size_t n)
{
    take(&s->out, n);
    mag_store_relaxed(&s->n_out, length_of(&s->out));
    if (s->n_out == 0 && (s->out.room > BUFFER_BYTES || s->options.poll_first))
        drop_buffer(&s->out);
}

/* With `writing' held: until at most so much is left. */
static int send_buffered_by(struct mag_stream *s, transport_write *by, size_t keep)
{
    int rc = 0;

    while (s->n_out > keep && rc >= 0) {
        struct iovec piece = { s->out.ptr + s->out.begin, s->n_out };
        rc = send_iov_by(s, by, &piece, 1);
        if (rc > 0)
            sent(s, (size_t)rc);
    }
    return rc < 0 ? rc : 0;
}

static int send_buffered(struct mag_stream *s, size_t keep)
{
    return send_buffered_by(s, s->transport->write, keep);
}

/* With `writing' held: all of it, or until there is something to read. */
static int send_or_find_input(struct mag_stream *s)
{
    transport_write *by = s->transport->write_or_readable;

    return send_buffered_by(s, by ? by : s->transport->write, 0);
}

/* For a reader that has to wait; its peer may be one that reads nothing before we do.  Its own
 * errors are the writer's to hear of.  1: somebody else is to do it. */
static MAG_NOINLINE int flush_for_reader(struct mag_stream *s)
{
    int rc;

    if (mag_mutex_trylock(&s->writing) < 0) {
        mag_fetch_or(&s->state, FLUSH); /* (A) */
        if (mag_mutex_trylock(&s->writing) < 0)
            return 1;
    }
    if (mag_load_relaxed(&s->state) & FLUSH) /* ours, of now or of a look before */
        mag_fetch_and(&s->state, ~(uint32_t)FLUSH);
    rc = s->error_out ? 0 : send_or_find_input(s);
    mag_mutex_unlock(&s->writing);
    return rc == -ECANCELED || rc == -EBADF ? rc : 0;
}

/* ---- receiving ------------------------------------------------------------------------- */

static int flush_before_wait(struct mag_stream *s)
{
    return mag_load_relaxed(&s->n_out) > 0 ? flush_for_reader(s) : 0;
}

typedef int wait_step(struct mag_stream *s, void *buf, size_t n);

static int read_step(struct mag_stream *s, void *buf, size_t n)
{
    return is_open(s) ? s->transport->read(s->self, buf, n) : -EBADF;
}

static int poll_step(struct mag_stream *s, void *buf, size_t n)
{
    (void)buf, (void)n;
    return is_open(s) ? mag_poll_fd(s->transport->fd(s->self), POLLIN) : -EBADF;
}

/* For so long: -EAGAIN.  A thread outside a task waits without a limit. */
static MAG_NOINLINE int step_for(struct mag_stream *s, wait_step *step, void *buf, size_t n,
                                 mag_time duration)
{
    struct mag_scope scope;
    int rc, why;

    if (!mag_wait_in_task() || mag_timeout_enter(&scope, duration, NULL) < 0)
        return step(s, buf, n);
    rc = step(s, buf, n);
    why = mag_scope_leave(&scope, rc);
    return rc == -ECANCELED && why == -ETIMEDOUT ? -EAGAIN : why;
}

/* A step that waits for the peer, after what waits to be sent. */
static inline int wait_for_peer(struct mag_stream *s, wait_step *step, void *buf, size_t n)
{
    mag_time look = LOOK_NS;
    int rc;

    do { /* again: nothing for us came, but it may have made room for what waits to be sent */
        rc = flush_before_wait(s);
        if (rc < 0)
            return rc;
        if (MAG_LIKELY(rc == 0)) {
            rc = step(s, buf, n);
        } else {
            rc = step_for(s, step, buf, n, look);
            look = look < LOOK_NS_MAX ? 2 * look : LOOK_NS_MAX;
        }
    } while (rc == -EAGAIN);
    return rc;
}

/* One read of the transport's. */
static int receive(struct mag_stream *s, void *buf, size_t n)
{
    int rc;

    if (s->is_at_end || s->error_in)
        return s->error_in;
    rc = wait_for_peer(s, read_step, buf, n);
    if (rc == 0)
        s->is_at_end = true;
    else if (is_final(rc))
        s->error_in = rc;
    return rc;
}

/* .poll_first: waits without a buffer, where the descriptor tells when there is something. */
static int wait_without_buffer(struct mag_stream *s)
{
    int rc;

    if (s->transport != &mag_transport_socket && s->transport != &mag_transport_file)
        return 0;
    drop_buffer(&s->in);
    rc = wait_for_peer(s, poll_step, NULL, 0);
    return rc < 0 ? rc : 0;
}

/* Room behind what is buffered.  An empty buffer is as large as the last pieces were. */
static int make_room(struct mag_stream *s)
{
    struct mag_stream_buffer *b = &s->in;
    size_t n = length_of(b), limit = s->options.limit;

    if (n >= limit)
        return -EMSGSIZE;
    if (n == 0)
        b->begin = b->end = 0;
    if (b->ptr == NULL || (n == 0 && b->room > BUFFER_BYTES && !s->is_large))
        return move_buffer(b, smaller(BUFFER_BYTES, limit));
    if (b->end < b->room && b->room - b->end >= b->room / 4 && !(n == 0 && s->is_large))
        return 0;
    if (b->room < limit && (n > b->room / 2 || s->is_large))
        return move_buffer(b, grown(b->room, b->room + 1, limit));
    if (b->begin > 0)
        pack_buffer(b);
    return 0;
}

/* At least one byte more into the buffer: how many; 0 at the end. */
static int fill(struct mag_stream *s)
{
    struct mag_stream_buffer *b = &s->in;
    size_t room;
    int rc;

    if (s->is_at_end || s->error_in)
        return s->error_in;
    rc = s->options.poll_first && length_of(b) == 0 ? wait_without_buffer(s) : 0;
    if (rc == 0)
        rc = make_room(s);
    if (rc < 0)
        return rc;
    room = b->room - b->end;
    rc = receive(s, b->ptr + b->end, room);
    if (rc > 0) {
        b->end += (size_t)rc;
        s->is_large = (size_t)rc == room || rc > BUFFER_BYTES;
    }
    return rc;
}

static size_t copy_out(struct mag_stream *s, void *buf, size_t n)
{
    n = smaller(n, length_of(&s->in));
    if (n > 0) {
        memcpy(buf, s->in.ptr + s->in.begin, n);
        take(&s->in, n);
    }
    return n;
}

/* ---- reading ----------------------------------------------------------------------------- */

static int read_some(struct mag_stream *s, void *buf, size_t n)
{
    int rc;

    if (n == 0)
        return 0;
    if (length_of(&s->in) == 0) {
        if (n >= smaller(READ_STRAIGHT, s->options.limit))
            return receive(s, buf, smaller(n, BYTES_MAX));
        rc = fill(s);
        if (rc <= 0)
            return rc;
    }
    return (int)copy_out(s, buf, smaller(n, BYTES_MAX));
}

int mag_stream_read(struct mag_stream *s, void *buf, size_t n)
{
    int rc = enter_read(s);

    if (rc < 0)
        return rc;
    rc = read_some(s, buf, n);
    leave_read(s);
    return rc;
}

int mag_stream_read_exact(struct mag_stream *s, void *buf, size_t n, size_t *done)
{
    size_t gone = 0;
    int rc = enter_read(s);

    if (rc == 0) {
        rc = 1;
        while (gone < n && rc > 0) {
            rc = read_some(s, (char *)buf + gone, n - gone);
            gone += rc > 0 ? (size_t)rc : 0;
        }
        leave_read(s);
        rc = rc < 0 ? rc : gone < n ? -ENODATA : 0;
    }
    if (done)
        *done = gone;
    return rc;
}

/* The first n bytes, taken out of the buffer, but still in it, and a zero behind them. */
static int hand_out(struct mag_stream *s, size_t n, struct mag_str *out)
{
    char *ptr = s->in.ptr + s->in.begin;

    *out = (struct mag_str){ .ptr = ptr, .len = n };
    s->ended = ptr + n;
    s->covered = *s->ended;
    *s->ended = '\0';
    s->in.begin += n;
    return (int)n;
}

static const struct mag_str nothing = { .ptr = (char *)(uintptr_t) "", .len = 0 };

/* How many bytes there are up to the end of the first separator, looking from `from'; 0: none. */
static size_t find_end(const struct mag_stream_buffer *b, size_t from, const struct mag_str *sep)
{
    const char *begin = b->ptr + b->begin, *at;

    at = memmem(begin + from, length_of(b) - from, sep->ptr, sep->len);
    return at ? (size_t)(at - begin) + sep->len : 0;
}

static size_t find_first_end(const struct mag_stream_buffer *b, size_t seen,
                             const struct mag_str *separators, size_t n_separators)
{
    size_t best = 0;

    for (size_t i = 0; i < n_separators; i++) {
        size_t back = separators[i].len - 1;
        size_t end = find_end(b, seen > back ? seen - back : 0, &separators[i]);
        if (end > 0 && (best == 0 || end < best))
            best = end;
    }
    return best;
}

/* Until a separator is buffered: the bytes up to its end; 0: the stream has ended. */
static int find(struct mag_stream *s, const struct mag_str *separators, size_t n)
{
    size_t seen = 0, end;
    int rc;

    for (;;) {
        if (length_of(&s->in) > seen) {
            end = find_first_end(&s->in, seen, separators, n);
            if (end > 0)
                return (int)end;
            seen = length_of(&s->in);
        }
        rc = fill(s);
        if (rc <= 0)
            return rc;
    }
}

static bool are_separators(const struct mag_str *separators, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (separators[i].len == 0)
            return false;
    return n > 0;
}

int mag_stream_read_until_any(struct mag_stream *s, const struct mag_str *separators,
                              size_t n_separators, struct mag_str *out)
{
    int rc;

    *out = nothing;
    if (!are_separators(separators, n_separators))
        return -EINVAL;
    rc = enter_read(s);
    if (rc < 0)
        return rc;
    rc = find(s, separators, n_separators);
    if (rc == 0)
        rc = -ENODATA;
    if (rc > 0)
        rc = hand_out(s, (size_t)rc, out);
    leave_read(s);
    return rc;
}

int mag_stream_read_until(struct mag_stream *s, const char *separator, struct mag_str *out)
{
    struct mag_str one = { .ptr = (char *)(uintptr_t)separator, .len = strlen(separator) };

    return mag_stream_read_until_any(s, &one, 1, out);
}

int mag_stream_readline(struct mag_stream *s, struct mag_str *out)
{
    static const struct mag_str newline = { .ptr = (char *)(uintptr_t) "\n", .len = 1 };
    int rc = enter_read(s);

    *out = nothing;
    if (rc < 0)
        return rc;
    rc = find(s, &newline, 1);
    if (rc == 0)
        rc = (int)length_of(&s->in);
    if (rc > 0)
        rc = hand_out(s, (size_t)rc, out);
    leave_read(s);
    return rc;
}

static int next_line(void *self, void *out)
{
    struct mag_stream *s = self;
    struct mag_str *line = out;
    int rc = mag_stream_readline(s, line);

    if (rc <= 0)
        return rc;
    if (line->ptr[line->len - 1] == '\n') {
        line->len -= line->len > 1 && line->ptr[line->len - 2] == '\r' ? 2 : 1;
        line->ptr[line->len] = '\0';
    }
    return 1;
}

struct mag_iter mag_stream_lines(struct mag_stream *s)
{
    return mag_iter_of(next_line, s);
}

bool mag_stream_at_eof(const struct mag_stream *s)
{
    return s->is_at_end && length_of(&s->in) == 0;
}

/* ---- all of it --------------------------------------------------------------------------- */

static int grow_content(struct mag_stream *s, size_t *room, size_t limit)
{
    size_t more = grown(*room, *room + 1, limit);
    char *ptr = mag_mem_realloc(s->content, more + 1);

    if (ptr == NULL)
        return -ENOMEM;
    s->content = ptr;
    *room = more;
    return 0;
}

/* More than the limit: what comes next is read into the buffer, and so not lost. */
static int expect_end(struct mag_stream *s)
{
    int rc = length_of(&s->in) > 0 ? 1 : fill(s);

    return rc > 0 ? -EFBIG : rc;
}

static int read_content(struct mag_stream *s, size_t limit, size_t *n)
{
    size_t room = 0;
    int rc = 1;

    while (rc > 0) {
        if (*n == limit)
            return expect_end(s);
        rc = *n == room ? grow_content(s, &room, limit) : 0;
        if (rc == 0)
            rc = read_some(s, s->content + *n, room - *n);
        *n += rc > 0 ? (size_t)rc : 0;
    }
    return rc;
}

int mag_stream_read_all(struct mag_stream *s, struct mag_str *out, size_t limit)
{
    size_t n = 0;
    int rc = enter_read(s);

    *out = nothing;
    if (rc < 0)
        return rc;
    mag_mem_free(s->content);
    s->content = NULL;
    rc = read_content(s, limit && limit < BYTES_MAX ? limit : BYTES_MAX, &n);
    if (s->content && is_open(s)) { /* who closes it frees them */
        s->content[n] = '\0';
        *out = (struct mag_str){ .ptr = s->content, .len = n };
    }
    leave_read(s);
    return rc;
}

/* ---- for parsers --------------------------------------------------------------------------- */

size_t mag_stream_peek(struct mag_stream *s, const char **bytes)
{
    uncover(s);
    *bytes = s->in.ptr + s->in.begin;
    return length_of(&s->in);
}

void mag_stream_consume(struct mag_stream *s, size_t n)
{
    uncover(s);
    s->in.begin += smaller(n, length_of(&s->in));
}

int mag_stream_fill(struct mag_stream *s)
{
    int rc = enter_read(s);

    if (rc < 0)
        return rc;
    rc = fill(s);
    if (rc > 0)
        rc = (int)length_of(&s->in);
    leave_read(s);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* What a call still has to write: pieces of the caller's, the first one from `skip'. */
struct pieces {
    const struct iovec *iov;
    int n_iov;
    size_t skip, n; /* n: bytes in all */
};

static void skip_bytes(struct pieces *p, size_t n)
{
    p->n -= n;
    p->skip += n;
    while (p->n_iov > 0 && p->skip >= p->iov->iov_len) {
        p->skip -= p->iov->iov_len;
        p->iov++;
        p->n_iov--;
    }
}

/* What is buffered, and the pieces after it: as many as fit. */
static int gather_pieces(const struct mag_stream *s, const struct pieces *p, struct iovec *iov)
{
    size_t skip = p->skip;
    int n = 0;

    if (s->n_out > 0)
        iov[n++] = (struct iovec){ s->out.ptr + s->out.begin, s->n_out };
    for (int i = 0; i < p->n_iov && n < PIECES; i++, skip = 0)
        if (p->iov[i].iov_len > skip)
            iov[n++] =
                (struct iovec){ (char *)p->iov[i].iov_base + skip, p->iov[i].iov_len - skip };
    return n;
}

/* One send of all there is. */
static int send_with(struct mag_stream *s, struct pieces *p)
{
    struct iovec iov[PIECES];
    size_t older = s->n_out;
    int rc = send_iov(s, iov, gather_pieces(s, p, iov));

    if (rc < 0)
        return rc;
    sent(s, smaller((size_t)rc, older));
    if ((size_t)rc > older)
        skip_bytes(p, (size_t)rc - older);
    return 0;
}

static int room_to_append(struct mag_stream_buffer *b, size_t n)
{
    size_t had = length_of(b);

    if (b->room - b->end >= n)
        return 0;
    if (b->room >= had + n && had <= b->room / 2) {
        pack_buffer(b);
        return 0;
    }
    return move_buffer(b, grown(b->room, had + n, SIZE_MAX / 2));
}

static int append(struct mag_stream *s, struct pieces *p)
{
    int rc = room_to_append(&s->out, p->n);

    if (rc < 0)
        return rc;
    while (p->n > 0) {
        size_t n = p->iov->iov_len - p->skip;
        memcpy(s->out.ptr + s->out.end, (char *)p->iov->iov_base + p->skip, n);
        s->out.end += n;
        skip_bytes(p, n);
    }
    mag_store_relaxed(&s->n_out, length_of(&s->out));
    return 0;
}

/*
 * Sends what is buffered and then the pieces, until no more than `keep' of both is left, and
 * buffers that.  If an error comes half way, so that some of the pieces have gone, and the rest
 * may wait, it does: then all is taken, and the error will be met by the next who sends.
 */
static int send_and_keep(struct mag_stream *s, struct pieces *p, size_t keep)
{
    size_t n = p->n;
    int rc;

    do
        rc = send_with(s, p);
    while (rc == 0 && s->n_out + p->n > keep);
    if (rc < 0 && (p->n == n || p->n > s->options.high_water))
        return rc;
    return p->n > 0 ? append(s, p) : 0;
}

static int write_pieces(struct mag_stream *s, struct pieces *p)
{
    const struct mag_stream_options *o = &s->options;
    size_t all = s->n_out + p->n;

    if (MAG_LIKELY(p->n < WRITE_STRAIGHT && all <= o->high_water))
        return append(s, p);
    return send_and_keep(s, p, all <= o->high_water ? o->high_water : o->low_water);
}

/* Past the buffer, if everything has to go anyway. */
static int write_through(struct mag_stream *s, struct pieces *p)
{
    int rc = 0;

    if (MAG_LIKELY(p->n_iov == 1 && s->n_out == 0 && p->n > 0)) { /* what it mostly is: in one */
        rc = send_iov(s, p->iov, 1);
        if (rc > 0)
            skip_bytes(p, (size_t)rc);
        rc = rc < 0 ? rc : 0;
    }
    while (rc == 0 && s->n_out + p->n > 0)
        rc = send_with(s, p);
    return rc;
}

static int write_by(int (*how)(struct mag_stream *, struct pieces *), struct mag_stream *s,
                    struct pieces *p, size_t *done)
{
    size_t n = p->n;
    int rc = enter_write(s);

    if (rc == 0) {
        skip_bytes(p, 0); /* empty ones */
        rc = s->is_write_closed ? -EPIPE : how(s, p);
        leave_write(s);
    }
    if (done)
        *done = n - p->n;
    return rc;
}

int mag_stream_write(struct mag_stream *s, const void *buf, size_t n, size_t *done)
{
    const struct iovec one = { (void *)(uintptr_t)buf, n };
    struct pieces p = { .iov = &one, .n_iov = 1, .n = n };

    return write_by(write_pieces, s, &p, done);
}

int mag_stream_puts(struct mag_stream *s, const char *text)
{
    return mag_stream_write(s, text, strlen(text), NULL);
}

int mag_stream_writev(struct mag_stream *s, const struct iovec *iov, int n_iov)
{
    struct pieces p = { .iov = iov, .n_iov = n_iov };

    if (n_iov < 0)
        return -EINVAL;
    for (int i = 0; i < n_iov; i++)
        p.n += iov[i].iov_len;
    return write_by(write_pieces, s, &p, NULL);
}

int mag_stream_write_all(struct mag_stream *s, const void *buf, size_t n, size_t *done)
{
    const struct iovec one = { (void *)(uintptr_t)buf, n };
    struct pieces p = { .iov = &one, .n_iov = 1, .n = n };

    return write_by(write_through, s, &p, done);
}

int mag_stream_drain(struct mag_stream *s)
{
    int rc = enter_write(s);

    if (rc < 0)
        return rc;
    rc = send_buffered(s, 0);
    leave_write(s);
    return rc;
}

size_t mag_stream_n_buffered(const struct mag_stream *s)
{
    return mag_load_relaxed(&s->n_out);
}

int mag_stream_write_eof(struct mag_stream *s)
{
    int rc = enter_write(s);

    if (rc < 0)
        return rc;
    if (!s->is_write_closed) {
        rc = send_buffered(s, 0);
        if (rc == 0)
            rc = s->transport->write_eof(s->self);
        s->is_write_closed = rc == 0;
    }
    leave_write(s);
    return rc;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static int with_defaults(struct mag_stream_options *o, const struct mag_stream_options *options)
{
    *o = options ? *options : (struct mag_stream_options){ 0 };
    if (o->limit == 0)
        o->limit = DEFAULT_BYTES;
    if (o->high_water == 0)
        o->high_water = DEFAULT_BYTES;
    if (o->low_water == 0)
        o->low_water = o->high_water / 4;
    return o->limit > BYTES_MAX || o->high_water > BYTES_MAX || o->low_water > o->high_water
               ? -EINVAL
               : 0;
}

int mag_stream_of_transport(struct mag_stream *s, const struct mag_transport *transport, void *self,
                            const struct mag_stream_options *options)
{
    *s = (struct mag_stream){ 0 };
    if (with_defaults(&s->options, options) < 0)
        return -EINVAL;
    s->transport = transport;
    s->self = self;
    s->state = OPEN;
    return 0;
}

int mag_stream_of_fd(struct mag_stream *s, int fd, const struct mag_stream_options *options)
{
    const struct mag_transport *transport;
    int rc = mag_transport_of_fd(&transport, fd);

    *s = (struct mag_stream){ 0 };
    return rc < 0 ? rc : mag_stream_of_transport(s, transport, mag_transport_self(fd), options);
}

static int no_fd(void *self)
{
    (void)self;
    return -1;
}

/* Stands in the place of a transport while `self' is another's: there is nothing to interrupt. */
static const struct mag_transport being_replaced = { .name = "", .fd = no_fd };

void mag_stream_replace(struct mag_stream *s, const struct mag_transport *transport, void *self)
{
    /* seq: before the new self, as release says nothing of what comes after it */
    mag_store_seq(&s->transport, &being_replaced);
    mag_store_release(&s->self, self);
    mag_store_release(&s->transport, transport);
}

/* The two that belong together: if the transport has not changed, self is its own. */
static const struct mag_transport *transport_of(const struct mag_stream *s, void **self)
{
    const struct mag_transport *transport, *again = mag_load_acquire(&s->transport);

    do {
        transport = again;
        *self = mag_load_acquire(&s->self);
        again = mag_load_acquire(&s->transport);
    } while (transport != again);
    return transport;
}

int mag_stream_fd(const struct mag_stream *s)
{
    uint32_t *state = (uint32_t *)(uintptr_t)&s->state;
    void *self;
    int fd = -1;

    if (!is_open(s))
        return -1;
    if (mag_fetch_add(state, WRITER) & OPEN) /* nobody closes it under our hands */
        fd = transport_of(s, &self)->fd(self);
    mag_fetch_sub(state, WRITER);
    return fd;
}

int mag_stream_peer_name(const struct mag_stream *s, char *buf, size_t room)
{
    return mag_transport_name(mag_stream_fd(s), true, buf, room);
}

int mag_stream_own_name(const struct mag_stream *s, char *buf, size_t room)
{
    return mag_transport_name(mag_stream_fd(s), false, buf, room);
}

int mag_stream_start_tls(struct mag_stream *s, struct mag_tls *tls, const char *name)
{
    int rc = enter_read(s);

    if (rc < 0)
        return rc;
    rc = enter_write(s);
    if (rc == 0) {
        rc = length_of(&s->in) > 0 || s->n_out > 0 ? -EBUSY : tls->start(tls, s, name);
        leave_write(s);
    }
    leave_read(s);
    return rc;
}

/* ---- closing ------------------------------------------------------------------------------------ */

static void nap(mag_time duration)
{
    struct mag_scope shield;
    bool is_in_task = mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;

    (void)mag_sleep(duration);
    if (is_in_task)
        mag_scope_leave(&shield, 0);
}

/* The stream is not open any more, so nobody comes; whoever is inside is made to leave. */
static void wait_until_alone(struct mag_stream *s)
{
    mag_time duration = NAP_NS;

    /* acquire: what they have left behind is ours */
    while (mag_load_acquire(&s->state) >= READING) {
        void *self;
        const struct mag_transport *transport = transport_of(s, &self);
        if (transport->interrupt)
            transport->interrupt(self);
        nap(duration);
        duration = duration < NAP_NS_MAX ? 2 * duration : NAP_NS_MAX;
    }
}

static void tell_owner(struct mag_stream *s)
{
    struct mag_stream_owner *owner = mag_xchg(&s->owner, NULL);

    if (owner)
        owner->closing(s);
}

static void free_parts(struct mag_stream *s)
{
    drop_buffer(&s->in);
    drop_buffer(&s->out);
    mag_mem_free(s->content);
    s->content = NULL;
    s->ended = NULL;
    s->n_out = 0;
    s->transport = NULL;
}

/* What is left to be sent; if another task is sending, it has failed to: that one is cut off. */
static int flush_at_close(struct mag_stream *s)
{
    int rc = mag_load_relaxed(&s->error_out);

    if (mag_load_relaxed(&s->n_out) == 0 || rc < 0)
        return rc;
    if (mag_cancelled())
        return -ECANCELED;
    if (mag_mutex_trylock(&s->writing) < 0)
        return -EBUSY;
    rc = send_buffered(s, 0);
    mag_mutex_unlock(&s->writing);
    return rc;
}

/* Who closes a stream that somebody else closes.  In s->closing: a list of them. */
struct mag_stream_closer {
    struct mag_stream_closer *next;
    struct mag_event is_over;
};

static struct mag_stream_closer nobody; /* the end of such a list */

enum { OURS, THEIRS, CLOSED };

/* Among those who want to close it, and are inside: whose it is to do.  THEIRS: we are listed. */
static int claim(struct mag_stream *s, struct mag_stream_closer *me)
{
    struct mag_stream_closer *first = mag_load_acquire(&s->closing), *wanted;

    do {
        if (first == NULL && !is_open(s))
            return CLOSED;
        me->next = first;
        wanted = first ? me : &nobody;
    } while (!mag_cas(&s->closing, &first, wanted));
    if (wanted == me)
        return THEIRS;
    mag_fetch_and(&s->state, ~(uint32_t)OPEN);
    return OURS;
}

static void await_the_other(struct mag_stream_closer *me)
{
    struct mag_scope shield;
    bool is_in_task = mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;

    while (mag_event_wait(&me->is_over) < 0) /* memory may be out for a moment */
        nap(NAP_NS);
    if (is_in_task)
        mag_scope_leave(&shield, 0);
}

/* The last step on the stream, which may be gone as soon as it is made. */
static void let_go(struct mag_stream *s)
{
    struct mag_stream_closer *c = mag_xchg(&s->closing, NULL), *next;

    for (; c != &nobody; c = next) {
        next = c->next;
        mag_event_set(&c->is_over);
    }
}

/*
 * Both ends of a stream.  In here, too, everybody is counted in s->state until who closes it is
 * settled: so that it is not gone before.
 */
static int end_stream(struct mag_stream *s, bool is_polite)
{
    struct mag_stream_closer me = { 0 };
    int rc = 0, close_rc = 0, whose;

    if (!is_open(s) && mag_load_acquire(&s->closing) == NULL)
        return 0;
    if (!mag_wait_in_task() && mag_wait_outside() < 0)
        return -ENXIO;
    if (mag_fetch_add(&s->state, WRITER) & OPEN) {
        tell_owner(s);
        rc = is_polite ? flush_at_close(s) : 0;
    }
    whose = claim(s, &me);
    mag_fetch_sub(&s->state, WRITER);
    if (whose == THEIRS)
        await_the_other(&me);
    if (whose != OURS)
        return rc;
    wait_until_alone(s);
    if (is_polite)
        close_rc = s->transport->close(s->self);
    else
        s->transport->abort(s->self);
    free_parts(s);
    let_go(s);
    return rc < 0 ? rc : close_rc;
}

int mag_stream_close(struct mag_stream *s)
{
    return end_stream(s, true);
}

void mag_stream_abort(struct mag_stream *s)
{
    (void)end_stream(s, false);
}
