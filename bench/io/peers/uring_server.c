/* SPDX-License-Identifier: MIT */
/*
 * uring_server.c - the limit: an echo or HTTP server on io_uring, written by hand
 *
 *      uring_server PORT THREADS echo|http plain|multishot
 *
 * A thread has a ring (DEFER_TASKRUN), a listening socket (SO_REUSEPORT) and its connections;
 * nothing is shared.  All that a batch of completions asks for is submitted by the call that
 * waits for the next batch.
 *
 *      plain      recv into the connection's buffer --> send of it --> recv ...
 *      multishot  one recv per connection for ever, on a ring of provided buffers; each is sent
 *                 as it is and given back when the send is done
 *
 * As HTTP it finds the ends of the requests (\r\n\r\n) and answers each by the same bytes: it
 * understands nothing, so no server that does can be faster.  Anything that it does not expect
 * closes the connection.  With multishot two sends of a connection could be on their way at once and
 * pass each other; in a closed loop, whose messages are small and whole, they are not.
 */
#include "../io.h"

#include <liburing.h>
#include <pthread.h>
#include <sys/mman.h>

enum {
    ENTRIES = 4096,
    BUF_BYTES = 4096, /* of a connection, or of a provided buffer */
    N_BUFS = 4096,    /* provided buffers; a power of two         */
    GROUP = 1,
    ANSWERS = BUF_BYTES / 4, /* at most in one send: no request is shorter than its end */
};

enum kind { ACCEPT, RECV, SEND };

struct connection {
    int fd;
    unsigned filled;  /* bytes in buf (plain)                             */
    unsigned sending; /* bytes of the send that is on its way             */
    unsigned n_sends; /* multishot: sends on their way                    */
    unsigned matched; /* multishot: of "\r\n\r\n", at the end of the last */
    bool closing;
    char buf[]; /* plain only */
};

struct server {
    struct io_uring ring;
    struct io_uring_buf_ring *bufs;
    char *buf_memory;
    int listen_fd;
};

static int port;
static bool is_http, is_multishot;
static char answers[ANSWERS * HTTP_ANSWER_BYTES];

/* user_data: the connection, with the kind in its low bits and the buffer's number on top. */
static uint64_t tag(const struct connection *c, enum kind kind, unsigned buf)
{
    return (uint64_t)(uintptr_t)c | (uint64_t)kind | (uint64_t)buf << 48;
}

static struct io_uring_sqe *next_sqe(struct server *s)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);

    if (!sqe) {
        io_uring_submit(&s->ring);
        sqe = io_uring_get_sqe(&s->ring);
    }
    return sqe;
}

static void accept_more(struct server *s)
{
    struct io_uring_sqe *sqe = next_sqe(s);

    io_uring_prep_multishot_accept(sqe, s->listen_fd, NULL, NULL, 0);
    sqe->user_data = ACCEPT;
}

static void receive(struct server *s, struct connection *c)
{
    struct io_uring_sqe *sqe = next_sqe(s);

    if (is_multishot) {
        io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = GROUP;
    } else {
        io_uring_prep_recv(sqe, c->fd, c->buf + c->filled, BUF_BYTES - c->filled, 0);
    }
    sqe->user_data = tag(c, RECV, 0);
}

static void send_bytes(struct server *s, struct connection *c, const void *p, unsigned n,
                       unsigned buf)
{
    struct io_uring_sqe *sqe = next_sqe(s);

    /* MSG_WAITALL: the kernel goes on after a short send by itself. */
    io_uring_prep_send(sqe, c->fd, p, n, MSG_NOSIGNAL | MSG_WAITALL);
    sqe->user_data = tag(c, SEND, buf);
    c->sending = n;
    c->n_sends++;
}

static void give_back(struct server *s, unsigned buf)
{
    io_uring_buf_ring_add(s->bufs, s->buf_memory + (size_t)buf * BUF_BYTES, BUF_BYTES,
                          (unsigned short)buf, io_uring_buf_ring_mask(N_BUFS), 0);
    io_uring_buf_ring_advance(s->bufs, 1);
}

static void finish(struct connection *c)
{
    c->closing = true;
    if (c->n_sends == 0) {
        close(c->fd);
        free(c);
    }
}

/* ---- plain ------------------------------------------------------------------------------- */

/* How many requests are whole; what is left of the last one goes to the front. */
static unsigned take_requests(struct connection *c)
{
    char *at = c->buf, *stop = c->buf + c->filled, *crlf;
    unsigned n = 0;

    while (n < ANSWERS && (crlf = memmem(at, (size_t)(stop - at), "\r\n\r\n", 4)) != NULL) {
        at = crlf + 4;
        n++;
    }
    c->filled = (unsigned)(stop - at);
    memmove(c->buf, at, c->filled);
    return n;
}

static void received(struct server *s, struct connection *c, int n)
{
    if (n <= 0) {
        finish(c);
        return;
    }
    c->filled += (unsigned)n;
    if (!is_http) {
        send_bytes(s, c, c->buf, c->filled, 0);
        c->filled = 0;
        return;
    }
    unsigned requests = take_requests(c);
    if (requests > 0)
        send_bytes(s, c, answers, requests * HTTP_ANSWER_BYTES, 0);
    else if (c->filled < BUF_BYTES)
        receive(s, c);
    else
        finish(c);
}

static void sent(struct server *s, struct connection *c, int n)
{
    c->n_sends--;
    if (n == (int)c->sending)
        receive(s, c);
    else
        finish(c);
}

/* ---- multishot ------------------------------------------------------------------------------ */

/* Requests that end in these bytes; how much of a blank line they end in is kept. */
static unsigned count_requests(struct connection *c, const char *p, unsigned n)
{
    static const char blank[] = "\r\n\r\n";
    const char *stop = p + n, *crlf;
    unsigned requests = 0;

    while (p < stop && c->matched > 0) {
        c->matched = *p == blank[c->matched] ? c->matched + 1 : *p == '\r';
        p++;
        if (c->matched == 4) {
            requests++;
            c->matched = 0;
        }
    }
    while ((crlf = memmem(p, (size_t)(stop - p), blank, 4)) != NULL) {
        requests++;
        p = crlf + 4;
    }
    for (unsigned k = 3; k > 0 && c->matched == 0; k--)
        if (stop - p >= (int)k && memcmp(stop - k, blank, k) == 0)
            c->matched = k;
    return requests;
}

static void received_buf(struct server *s, struct connection *c, const struct io_uring_cqe *cqe)
{
    unsigned buf = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    bool more = cqe->flags & IORING_CQE_F_MORE;
    int n = cqe->res;

    if (n == -ENOBUFS) {
        receive(s, c);
        return;
    }
    if (n > 0 && !is_http) {
        send_bytes(s, c, s->buf_memory + (size_t)buf * BUF_BYTES, (unsigned)n, buf);
    } else if (n > 0) {
        unsigned requests = count_requests(c, s->buf_memory + (size_t)buf * BUF_BYTES, (unsigned)n);
        give_back(s, buf);
        if (requests > 0)
            send_bytes(s, c, answers, requests * HTTP_ANSWER_BYTES, 0);
    }
    if (!more && n > 0)
        receive(s, c);
    else if (!more)
        finish(c);
}

static void sent_buf(struct server *s, struct connection *c, unsigned buf)
{
    c->n_sends--;
    if (!is_http)
        give_back(s, buf);
    if (c->closing)
        finish(c);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void accepted(struct server *s, int fd)
{
    struct connection *c = malloc(sizeof *c + (is_multishot ? 0 : BUF_BYTES));

    if (fd < 0 || !c) {
        free(c);
        return;
    }
    *c = (struct connection){ .fd = fd };
    no_delay(fd);
    receive(s, c);
}

static void completed(struct server *s, const struct io_uring_cqe *cqe)
{
    struct connection *c = (struct connection *)(uintptr_t)(cqe->user_data & 0x0000fffffffffff8);
    enum kind kind = cqe->user_data & 7;
    unsigned buf = (unsigned)(cqe->user_data >> 48);

    if (kind == ACCEPT) {
        accepted(s, cqe->res);
        if (!(cqe->flags & IORING_CQE_F_MORE))
            accept_more(s);
    } else if (kind == RECV && is_multishot) {
        received_buf(s, c, cqe);
    } else if (kind == RECV) {
        received(s, c, cqe->res);
    } else if (is_multishot) {
        sent_buf(s, c, buf);
    } else {
        sent(s, c, cqe->res);
    }
}

static void make_bufs(struct server *s)
{
    size_t ring_bytes = N_BUFS * sizeof(struct io_uring_buf), bytes = (size_t)N_BUFS * BUF_BYTES;
    char *p =
        mmap(NULL, ring_bytes + bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    struct io_uring_buf_reg reg = { .ring_addr = (uintptr_t)p,
                                    .ring_entries = N_BUFS,
                                    .bgid = GROUP };

    if (p == MAP_FAILED)
        die("mmap");
    s->bufs = (struct io_uring_buf_ring *)p;
    s->buf_memory = p + ring_bytes;
    io_uring_buf_ring_init(s->bufs);
    checked(io_uring_register_buf_ring(&s->ring, &reg, 0), "register_buf_ring");
    for (unsigned i = 0; i < N_BUFS; i++)
        give_back(s, i);
}

static void *serve(void *arg)
{
    struct server s = { .listen_fd = listener(port, 0) };
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = 4 * ENTRIES,
    };
    struct io_uring_cqe *cqe;

    (void)arg;
    checked(io_uring_queue_init_params(ENTRIES, &s.ring, &params), "io_uring_setup");
    io_uring_register_ring_fd(&s.ring);
    if (is_multishot)
        make_bufs(&s);
    accept_more(&s);
    for (;;) {
        unsigned head, n = 0;
        io_uring_submit_and_wait(&s.ring, 1);
        io_uring_for_each_cqe(&s.ring, head, cqe)
        {
            completed(&s, cqe);
            n++;
        }
        io_uring_cq_advance(&s.ring, n);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int n_threads = atoi(argument(argc, argv, 2, "1"));
    pthread_t thread;

    port = atoi(argument(argc, argv, 1, "7777"));
    is_http = strcmp(argument(argc, argv, 3, "echo"), "http") == 0;
    is_multishot = strcmp(argument(argc, argv, 4, "plain"), "multishot") == 0;
    for (int i = 0; i < ANSWERS; i++)
        memcpy(answers + (size_t)i * HTTP_ANSWER_BYTES, HTTP_ANSWER, HTTP_ANSWER_BYTES);
    for (int i = 1; i < n_threads; i++)
        pthread_create(&thread, NULL, serve, NULL);
    serve(NULL);
    return 0;
}
