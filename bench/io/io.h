/* SPDX-License-Identifier: MIT */
#ifndef BENCH_IO_H
#define BENCH_IO_H
/*
 * io.h - what the programs of the I/O benchmarks have in common
 *
 * Each of them (ours, a peer in C, a load generator) is one small program that takes its
 * arguments by position, and, if it measures, ends by one line of JSON on standard output.
 * Nothing here is fast or slow: it is what happens before, after and beside that what is timed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define IO_UNUSED __attribute__((unused))

/* Ends the program with a sentence. */
static IO_UNUSED void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static IO_UNUSED int checked(int rc, const char *what)
{
    if (rc >= 0)
        return rc;
    if (rc < -1)
        errno = -rc;
    die(what);
    return rc;
}

/* An argument, or what it is when it was not given. */
static IO_UNUSED const char *argument(int argc, char **argv, int i, const char *otherwise)
{
    return i < argc ? argv[i] : otherwise;
}

static IO_UNUSED int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static IO_UNUSED struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

/* A listening socket on the loopback; several threads may have one each on the same port. */
static IO_UNUSED int listener(int port, int flags)
{
    struct sockaddr_in addr = loopback(port);
    int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), "socket"), on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    checked(bind(fd, (struct sockaddr *)&addr, sizeof addr), "bind");
    checked(listen(fd, 4096), "listen");
    return fd;
}

static IO_UNUSED void no_delay(int fd)
{
    int on = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* xorshift64: the state must not be 0. */
static IO_UNUSED uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static IO_UNUSED uint64_t file_bytes(const char *path)
{
    struct stat st;

    checked(stat(path, &st), path);
    return (uint64_t)st.st_size;
}

/* ---- the constant answer of the HTTP servers ------------------------------------------ */

#define HTTP_ANSWER \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
enum { HTTP_ANSWER_BYTES = sizeof HTTP_ANSWER - 1 };

/* ---- latencies --------------------------------------------------------------------- */

/* Counts by value, exact to 1/32 of it. */
struct histogram {
    uint64_t n, bucket[64 * 32];
};

static IO_UNUSED unsigned bucket_of(uint64_t v)
{
    if (v < 32)
        return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - 5;
    return (shift + 1) * 32 + (unsigned)((v >> shift) & 31);
}

static IO_UNUSED uint64_t bucket_value(unsigned i)
{
    if (i < 32)
        return i;
    return (32ULL + i % 32) << (i / 32 - 1);
}

static IO_UNUSED void histogram_add(struct histogram *h, int64_t v)
{
    h->n++;
    h->bucket[bucket_of(v < 0 ? 0 : (uint64_t)v)]++;
}

static IO_UNUSED void histogram_merge(struct histogram *into, const struct histogram *h)
{
    into->n += h->n;
    for (unsigned i = 0; i < sizeof h->bucket / sizeof h->bucket[0]; i++)
        into->bucket[i] += h->bucket[i];
}

/* The value that `share' of all are not above. */
static IO_UNUSED double histogram_at(const struct histogram *h, double share)
{
    uint64_t want = (uint64_t)((double)h->n * share), seen = 0;

    for (unsigned i = 0; i < sizeof h->bucket / sizeof h->bucket[0]; i++)
        if ((seen += h->bucket[i]) > want)
            return (double)bucket_value(i);
    return 0;
}

static IO_UNUSED int histogram_print(const struct histogram *h)
{
    printf("{\"n\":%llu,\"p50_us\":%.2f,\"p99_us\":%.2f}\n", (unsigned long long)h->n,
           histogram_at(h, 0.5) / 1e3, histogram_at(h, 0.99) / 1e3);
    return 0;
}

/* ---- many small files: passes over all of them, of which the first is not counted --------- */

enum { FILES_PATH = 512 };

struct files {
    const char *dir;
    unsigned n;
    size_t bytes; /* of each */
    bool is_write;
    double seconds;
    char *content;
    int64_t begin, spent;
    unsigned n_passes;
};

/* DIR N BYTES SECONDS (anything) read|write */
static IO_UNUSED struct files files_of(int argc, char **argv)
{
    struct files f = {
        .dir = argument(argc, argv, 1, "."),
        .n = (unsigned)atoi(argument(argc, argv, 2, "10000")),
        .bytes = (size_t)atoi(argument(argc, argv, 3, "1024")),
        .seconds = atof(argument(argc, argv, 4, "1")),
        .is_write = strcmp(argument(argc, argv, 6, "read"), "write") == 0,
    };

    f.content = calloc(1, f.bytes + 1);
    if (!f.content)
        die("memory");
    return f;
}

static IO_UNUSED void files_path(const struct files *f, unsigned i, char *path)
{
    snprintf(path, FILES_PATH, "%s/%05u", f->dir, i);
}

/* Begins a pass, the files removed if they are to be written; false when it was enough. */
static IO_UNUSED bool files_begin(struct files *f)
{
    char path[FILES_PATH];

    if (f->n_passes > 1 && (double)f->spent >= f->seconds * 1e9)
        return false;
    for (unsigned i = 0; f->is_write && i < f->n; i++) {
        files_path(f, i, path);
        unlink(path);
    }
    f->begin = now_ns();
    return true;
}

static IO_UNUSED void files_end(struct files *f)
{
    if (f->n_passes++ > 0)
        f->spent += now_ns() - f->begin;
}

static IO_UNUSED int files_print(const struct files *f)
{
    printf("{\"rate\":%.0f}\n", (double)f->n * (f->n_passes - 1) / ((double)f->spent / 1e9));
    return 0;
}

#endif
