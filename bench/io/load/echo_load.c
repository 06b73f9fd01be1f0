/* SPDX-License-Identifier: MIT */
/*
 * echo_load.c - the load of the echo benchmark: a closed loop over many connections
 *
 *      echo_load PORT CONNECTIONS THREADS SECONDS [BYTES]
 *
 * Each connection sends a message, waits for all of it to come back, checks the first byte and
 * sends the next one.  Each thread is pinned to a CPU of those that the program may use, and
 * has an epoll and its share of the connections.  The first fifth of the time is not counted.
 *
 * The load has as much to do as the server: a receive and a send each message.  So with as many
 * cores each, servers that are better than this program look alike in messages per second; what they
 * then differ in is what the runner prints beside it, their own time on the CPU per message.
 */
#include "../io.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>

enum { BYTES_MAX = 65536, EVENTS = 256 };

struct connection {
    int fd;
#ifdef LOAD_TLS
    SSL *ssl;
#endif
    unsigned got; /* of the message that is on its way */
    unsigned char mark;
    int64_t sent_at;
};

struct worker {
    pthread_t thread;
    int cpu;
    unsigned n_connections;
    uint64_t n_messages;
    struct histogram latency;
};

static int port;
static unsigned bytes;
static int64_t begin, end;
static pthread_barrier_t ready;

/* ---- the bytes, plain or in TLS (tls_load.c) ----------------------------------------------- */

#ifdef LOAD_TLS
static SSL_CTX *context;

static void start(struct connection *c)
{
    c->ssl = SSL_new(context);
    if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1 || SSL_connect(c->ssl) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static ssize_t put(struct connection *c, const void *buf, size_t n)
{
    return SSL_write(c->ssl, buf, (int)n);
}

static ssize_t get(struct connection *c, void *buf, size_t n)
{
    int rc = SSL_read(c->ssl, buf, (int)n);

    if (rc <= 0 && SSL_get_error(c->ssl, rc) == SSL_ERROR_WANT_READ) {
        errno = EAGAIN;
        return -1;
    }
    return rc;
}
#else
static void start(struct connection *c)
{
    (void)c;
}

static ssize_t put(struct connection *c, const void *buf, size_t n)
{
    return send(c->fd, buf, n, MSG_NOSIGNAL);
}

static ssize_t get(struct connection *c, void *buf, size_t n)
{
    return recv(c->fd, buf, n, MSG_DONTWAIT);
}
#endif

/* ---- a connection --------------------------------------------------------------------------- */

static void send_next(struct connection *c, unsigned char *buf, int64_t now)
{
    buf[0] = ++c->mark;
    c->got = 0;
    c->sent_at = now;
    /* A message fits into an empty socket buffer. */
    if (put(c, buf, bytes) != (ssize_t)bytes)
        die("send");
}

static void connect_all(struct worker *w, struct connection *all, int ep)
{
    struct sockaddr_in addr = loopback(port);

    for (unsigned i = 0; i < w->n_connections; i++) {
        struct connection *c = &all[i];
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        c->fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
        checked(connect(c->fd, (struct sockaddr *)&addr, sizeof addr), "connect");
        no_delay(c->fd);
        start(c);
        checked(epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev), "epoll_ctl");
    }
}

/* What has arrived; the next message once this one is whole. */
static void answer(struct worker *w, struct connection *c, unsigned char *buf, int64_t now)
{
    ssize_t n = get(c, buf, bytes - c->got);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("the server has closed a connection");
    if (c->got == 0 && buf[0] != c->mark) {
        fprintf(stderr, "not the message that was sent\n");
        exit(1);
    }
    c->got += (unsigned)n;
    if (c->got < bytes)
        return;
    if (c->sent_at >= begin && now < end) {
        w->n_messages++;
        histogram_add(&w->latency, now - c->sent_at);
    }
    send_next(c, buf, now);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct connection *all = calloc(w->n_connections + 1, sizeof *all);
    struct epoll_event events[EVENTS];
    unsigned char *buf = calloc(1, BYTES_MAX);
    cpu_set_t cpus;
    int ep = checked(epoll_create1(0), "epoll");

    CPU_ZERO(&cpus);
    CPU_SET(w->cpu, &cpus);
    pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    connect_all(w, all, ep);
    pthread_barrier_wait(&ready); /* all are connected */
    pthread_barrier_wait(&ready); /* and the time is set */
    for (unsigned i = 0; i < w->n_connections; i++)
        send_next(&all[i], buf, now_ns());
    for (int64_t now = now_ns(); now < end; now = now_ns()) {
        int n = epoll_wait(ep, events, EVENTS, 100);
        for (int i = 0; i < n; i++)
            answer(w, events[i].data.ptr, buf, now_ns());
    }
    return NULL;
}

/* The i-th CPU, again from the first, of those that the program may use. */
static int cpu_number(unsigned i)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof cpus, &cpus);
    for (unsigned k = i % (unsigned)CPU_COUNT(&cpus), cpu = 0;; cpu++)
        if (CPU_ISSET(cpu, &cpus) && k-- == 0)
            return (int)cpu;
}

int main(int argc, char **argv)
{
    unsigned n = (unsigned)atoi(argument(argc, argv, 2, "50"));
    unsigned n_threads = (unsigned)atoi(argument(argc, argv, 3, "1"));
    int64_t ns = (int64_t)(atof(argument(argc, argv, 4, "1")) * 1e9);
    struct worker *workers = calloc(n_threads, sizeof *workers);
    struct histogram *all = calloc(1, sizeof *all);

    port = atoi(argument(argc, argv, 1, "7777"));
    bytes = (unsigned)atoi(argument(argc, argv, 5, "64"));
    if (!workers || !all || bytes < 1 || bytes > BYTES_MAX || n < 1)
        return 2;
#ifdef LOAD_TLS
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384");
#endif
    pthread_barrier_init(&ready, NULL, n_threads + 1);
    for (unsigned i = 0; i < n_threads; i++) {
        workers[i].cpu = cpu_number(i);
        workers[i].n_connections = n / n_threads + (i < n % n_threads);
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    pthread_barrier_wait(&ready);
    begin = now_ns() + ns / 4;
    end = begin + ns;
    pthread_barrier_wait(&ready);
    for (unsigned i = 0; i < n_threads; i++) {
        pthread_join(workers[i].thread, NULL);
        histogram_merge(all, &workers[i].latency);
    }
    printf("{\"n\":%llu,\"rate\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
           (unsigned long long)all->n, (double)all->n / ((double)ns / 1e9),
           histogram_at(all, 0.5) / 1e3, histogram_at(all, 0.99) / 1e3);
    return 0;
}
