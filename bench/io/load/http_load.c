/* SPDX-License-Identifier: MIT */
/*
 * http_load.c - the load of the HTTP benchmark: a closed loop, pipelined
 *
 *      http_load PORT CONNECTIONS THREADS SECONDS PIPELINE
 *
 * A connection sends PIPELINE requests by one call, waits for all the answers and sends the
 * next.  To be far cheaper than any server, it does not parse: the first answer of a
 * connection is looked at, and all others must have its length and begin with the same status line,
 * which is so where the same request gets the same answer.  Anything else ends the program.
 * The first fifth of the time is not counted.
 */
#include "../io.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>

#define REQUEST "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
enum {
    REQUEST_BYTES = sizeof REQUEST - 1,
    PIPELINE_MAX = 256,
    EVENTS = 256,
    BUF_BYTES = 1 << 16,
    STATUS_BYTES = 12, /* "HTTP/1.1 200" */
};

struct connection {
    int fd;
    unsigned n_first; /* bytes of the first answer so far                */
    unsigned length;  /* of an answer, once that is known                */
    size_t due;       /* bytes of answers that are still to come         */
    int64_t sent_at;
    char first[2048];
};

struct worker {
    pthread_t thread;
    int cpu;
    unsigned n_connections;
    uint64_t n_answers;
    struct histogram latency;
};

static int port;
static unsigned pipeline;
static int64_t begin, end;
static pthread_barrier_t ready;
static char requests[PIPELINE_MAX * REQUEST_BYTES];

static void broken(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void send_requests(struct connection *c, unsigned n, int64_t now)
{
    c->due = (size_t)n * c->length;
    c->sent_at = now;
    if (send(c->fd, requests, (size_t)n * REQUEST_BYTES, MSG_NOSIGNAL) !=
        (ssize_t)(n * REQUEST_BYTES))
        die("send");
}

/* The first answer: true when it is whole, and its length is known. */
static bool learn(struct connection *c, const char *p, size_t n)
{
    char *blank, *field;

    if (c->n_first + n >= sizeof c->first)
        broken("the first answer is too long");
    memcpy(c->first + c->n_first, p, n);
    c->n_first += (unsigned)n;
    c->first[c->n_first] = '\0';
    blank = strstr(c->first, "\r\n\r\n");
    if (!blank)
        return false;
    if (strncmp(c->first, "HTTP/1.1 200", STATUS_BYTES) != 0)
        broken("the answer is not 200");
    field = strcasestr(c->first, "content-length:");
    if (!field || field > blank)
        broken("the answer has no Content-Length");
    unsigned length = (unsigned)(blank - c->first) + 4 + (unsigned)atoi(field + 15);
    if (c->n_first > length)
        broken("more than the answer");
    if (c->n_first < length)
        return false;
    c->length = length;
    return true;
}

/* Each answer that begins in these bytes must begin as the first one did. */
static void check(const struct connection *c, const char *p, size_t n)
{
    size_t until_next = c->due % c->length;

    for (size_t i = until_next; i + STATUS_BYTES <= n; i += c->length)
        if (memcmp(p + i, "HTTP/1.1 200", STATUS_BYTES) != 0)
            broken("an answer of another length");
}

static void answered(struct worker *w, struct connection *c, char *buf, int64_t now)
{
    ssize_t n = recv(c->fd, buf, BUF_BYTES, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("the server has closed a connection");
    if (c->length == 0) {
        if (learn(c, buf, (size_t)n))
            send_requests(c, pipeline, now);
        return;
    }
    if ((size_t)n > c->due)
        broken("more than the answers");
    check(c, buf, (size_t)n);
    c->due -= (size_t)n;
    if (c->due > 0)
        return;
    if (c->sent_at >= begin && now < end) {
        w->n_answers += pipeline;
        histogram_add(&w->latency, now - c->sent_at);
    }
    send_requests(c, pipeline, now);
}

static void connect_all(struct worker *w, struct connection *all, int ep)
{
    struct sockaddr_in addr = loopback(port);

    for (unsigned i = 0; i < w->n_connections; i++) {
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &all[i] };
        all[i].fd = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
        checked(connect(all[i].fd, (struct sockaddr *)&addr, sizeof addr), "connect");
        no_delay(all[i].fd);
        checked(epoll_ctl(ep, EPOLL_CTL_ADD, all[i].fd, &ev), "epoll_ctl");
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct connection *all = calloc(w->n_connections + 1, sizeof *all);
    struct epoll_event events[EVENTS];
    char *buf = malloc(BUF_BYTES);
    cpu_set_t cpus;
    int ep = checked(epoll_create1(0), "epoll");

    CPU_ZERO(&cpus);
    CPU_SET(w->cpu, &cpus);
    pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
    connect_all(w, all, ep);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    for (unsigned i = 0; i < w->n_connections; i++)
        send_requests(&all[i], 1, now_ns());
    for (int64_t now = now_ns(); now < end; now = now_ns()) {
        int n = epoll_wait(ep, events, EVENTS, 100);
        for (int i = 0; i < n; i++)
            answered(w, events[i].data.ptr, buf, now_ns());
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
    unsigned n = (unsigned)atoi(argument(argc, argv, 2, "64"));
    unsigned n_threads = (unsigned)atoi(argument(argc, argv, 3, "1"));
    int64_t ns = (int64_t)(atof(argument(argc, argv, 4, "1")) * 1e9);
    struct worker *workers = calloc(n_threads, sizeof *workers);
    struct histogram *all = calloc(1, sizeof *all);
    uint64_t n_answers = 0;

    port = atoi(argument(argc, argv, 1, "8080"));
    pipeline = (unsigned)atoi(argument(argc, argv, 5, "1"));
    if (!workers || !all || pipeline < 1 || pipeline > PIPELINE_MAX || n < 1)
        return 2;
    for (unsigned i = 0; i < pipeline; i++)
        memcpy(requests + i * REQUEST_BYTES, REQUEST, REQUEST_BYTES);
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
        n_answers += workers[i].n_answers;
    }
    printf("{\"n\":%llu,\"rate\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
           (unsigned long long)n_answers, (double)n_answers / ((double)ns / 1e9),
           histogram_at(all, 0.5) / 1e3, histogram_at(all, 0.99) / 1e3);
    return 0;
}
