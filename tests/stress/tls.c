/* SPDX-License-Identifier: MIT */
/*
 * tls.c - 200 TLS connections at once, with time-outs and cancels; and OpenSSL without memory
 *
 * Clients talk over socket pairs to servers that echo, all on one context each, so that they
 * share sessions and tickets.  A client sends and receives at the same time, in two tasks, in
 * pieces of any size, some of which are under a deadline of microseconds; what the calls say they
 * moved is what is counted, and what comes back must be that.  Some break off in the middle, in
 * one of several ways.
 *
 * At first, one allocation of OpenSSL's after the other fails, in contexts, handshakes and
 * transfers: each is an error, never a crash.
 */
#include "stress.h"
#include "tls_cert.h"

#include <magpie/scope.h>
#include <magpie/tls.h>

#include <errno.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

enum {
    CONNECTIONS = 200,
    ROUNDS = STRESS_SCALE(4, 1),
    BYTES = STRESS_SCALE(120000, 30000),
    CHUNK = 8000,
    FAILURES = STRESS_SCALE(2500, 250),
};

#if MAG_TSAN
/* OpenSSL is not compiled with it: what its own atomics order would seem to race. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}

/* It knows descriptors by the system calls on them, and does not see those that the ring closes. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\nrace:^socketpair$\n";
}
#endif

static struct tls_certs certs;
static struct mag_tls *client_tls, *server_tls;
static mag_atomic(uint64_t) n_whole, n_broken, n_reused, n_timed_out;

static int make_contexts(struct mag_tls **client, struct mag_tls **server)
{
    struct mag_tls_options of_server = { .cert_pem = certs.good.cert, .key_pem = certs.good.key };
    struct mag_tls_options of_client = { .ca_pem = certs.ca };
    int rc = mag_tls_server_new(server, &of_server);

    *client = NULL;
    return rc < 0 ? rc : mag_tls_client_new(client, &of_client);
}

static int make_ends(struct mag_stream *a, struct mag_stream *b)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    EXPECT(mag_stream_of_fd(a, fds[0], NULL) == 0);
    EXPECT(mag_stream_of_fd(b, fds[1], NULL) == 0);
    return 0;
}

/* ---- a connection ----------------------------------------------------------------- */

static char byte_at(uint32_t who, size_t i)
{
    return (char)(who * 31 + i + (i >> 8) * 7);
}

/* Its error is its own business: the client may have broken off. */
async(void, server, (struct mag_stream *, s))
{
    char buf[CHUNK];
    int rc = mag_stream_start_tls(s, server_tls, NULL);

    while (rc >= 0 && (rc = mag_stream_read(s, buf, sizeof buf)) > 0) {
        stress_beat();
        rc = mag_stream_write(s, buf, (size_t)rc, NULL);
    }
    mag_stream_close(s);
    return 0;
}

/* Now and then under a deadline: 0, or -ETIMEDOUT; *done in any case. */
static int write_somehow(struct mag_stream *s, const char *buf, size_t n, size_t *done,
                         struct mag_rand *r)
{
    struct mag_scope scope;
    int rc;

    if (mag_rand_below(r, 4))
        return mag_stream_write(s, buf, n, done);
    EXPECT(mag_timeout_enter(&scope, mag_rand_below(r, 100000), NULL) == 0);
    rc = mag_scope_leave(&scope, mag_stream_write_all(s, buf, n, done));
    mag_fetch_add(&n_timed_out, rc == -ETIMEDOUT);
    return rc == -ETIMEDOUT ? 0 : rc;
}

async(void, sender, (struct mag_stream *, s), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who * 2 + 1);
    char buf[CHUNK];

    for (size_t at = 0, done; at < BYTES; at += done) {
        size_t n = 1 + mag_rand_below(&r, CHUNK);
        n = n < BYTES - at ? n : BYTES - at;
        for (size_t i = 0; i < n; i++)
            buf[i] = byte_at(who, at + i);
        int rc = write_somehow(s, buf, n, &done, &r);
        if (rc < 0)
            return rc;
        stress_beat();
    }
    return mag_stream_write_eof(s);
}

/* Bytes that came, all of them right. */
static size_t receive_until(struct mag_stream *s, uint32_t who, size_t n)
{
    char buf[CHUNK];
    size_t got = 0;
    int rc;

    while (got < n && (rc = mag_stream_read(s, buf, sizeof buf)) > 0) {
        stress_beat();
        for (int i = 0; i < rc; i++, got++)
            if (buf[i] != byte_at(who, got)) {
                EXPECT(!"the bytes that are due");
                return got;
            }
    }
    return got;
}

/* In the middle of everything. */
static void break_off(struct mag_stream *s, struct sender *task, struct mag_rand *r)
{
    if (mag_rand_below(r, 2))
        EXPECT(mag_cancel(task) == 0);
    if (mag_rand_below(r, 2))
        mag_stream_abort(s);
    else
        (void)mag_stream_close(s);
    (void)mag_await(task, NULL, 0);
    mag_fetch_add(&n_broken, 1);
}

async(void, client, (uint32_t, who))
{
    struct mag_rand r = stress_rand(who * 2);
    struct mag_stream a, b;
    bool is_whole = mag_rand_below(&r, 4) != 0;
    char c;

    EXPECT(make_ends(&a, &b) == 0);
    if (mag_rand_below(&r, 2))
        setsockopt(mag_stream_fd(&a), SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int));
    struct server *peer = server(&b);
    struct sender *task = sender(&a, who);
    EXPECT(mag_start(peer, NULL) == 0);
    EXPECT(mag_stream_start_tls(&a, client_tls, "localhost") == 0);
    mag_fetch_add(&n_reused, mag_stream_tls_reused(&a));
    EXPECT(mag_start(task, NULL) == 0);
    if (is_whole) {
        EXPECT(receive_until(&a, who, BYTES) == BYTES);
        EXPECT(mag_stream_read(&a, &c, 1) == 0);
        EXPECT(mag_await(task, NULL, 0) == 0);
        EXPECT(mag_stream_close(&a) == 0);
        mag_fetch_add(&n_whole, 1);
    } else {
        receive_until(&a, who, mag_rand_below(&r, BYTES));
        break_off(&a, task, &r);
    }
    EXPECT(mag_await(peer, NULL, 0) == 0);
    return 0;
}

async(void, all)
{
    for (uint32_t round = 0; round < ROUNDS; round++)
        task_group(g) for (uint32_t i = 0; i < CONNECTIONS; i++)
            group_spawn(g, client(round * CONNECTIONS + i));
    return 0;
}

/* ---- OpenSSL's memory ------------------------------------------------------------- */

static mag_atomic(int64_t) n_until_failure; /* 0: never */

static bool fails_now(void)
{
    return mag_load_relaxed(&n_until_failure) > 0 && mag_fetch_sub(&n_until_failure, 1) == 1;
}

static void *failing_malloc(size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return fails_now() ? NULL : malloc(n);
}

static void *failing_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return fails_now() ? NULL : realloc(p, n);
}

static void plain_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}

async(void, short_echo, (struct mag_stream *, s), (struct mag_tls *, tls))
{
    char c;
    int rc = mag_stream_start_tls(s, tls, NULL);

    if (rc == 0 && mag_stream_read(s, &c, 1) == 1)
        (void)mag_stream_write(s, &c, 1, NULL);
    mag_stream_close(s);
    return rc;
}

static int short_talk(struct mag_stream *s, struct mag_tls *tls)
{
    char c = 'x';
    int rc = mag_stream_start_tls(s, tls, "localhost");

    if (rc == 0)
        rc = mag_stream_write(s, &c, 1, NULL);
    if (rc == 0)
        rc = mag_stream_read(s, &c, 1) == 1 ? 0 : -EIO;
    mag_stream_close(s);
    return rc;
}

static int short_life(void)
{
    struct mag_tls *client = NULL, *server = NULL;
    struct mag_stream a, b;
    int rc = make_contexts(&client, &server), peer_rc;

    if (rc == 0) {
        EXPECT(make_ends(&a, &b) == 0);
        struct short_echo *peer = short_echo(&b, server);
        EXPECT(mag_start(peer, NULL) == 0);
        rc = short_talk(&a, client);
        peer_rc = mag_await(peer, NULL, 0);
        rc = rc < 0 ? rc : peer_rc;
    }
    mag_tls_free(client);
    mag_tls_free(server);
    return rc;
}

async(void, without_memory)
{
    int n_failed = 0;

    EXPECT(short_life() == 0); /* makes what OpenSSL makes once */
    for (int64_t n = 1; n < FAILURES; n += 1 + n / 30) {
        mag_store_relaxed(&n_until_failure, n);
        n_failed += short_life() < 0;
        stress_beat();
    }
    mag_store_relaxed(&n_until_failure, 0);
    EXPECT(n_failed > 10);
    EXPECT(short_life() == 0);
    return 0;
}

static void state(void)
{
    fprintf(stderr, "%llu whole, %llu broken off\n", (unsigned long long)n_whole,
            (unsigned long long)n_broken);
}

int main(void)
{
    int before;
    int64_t live;

    if (CRYPTO_set_mem_functions(failing_malloc, failing_realloc, plain_free) != 1)
        return 77;
    stress_begin("tls", state);
    tls_certs_make(&certs);
    before = stress_n_descriptors();
    live = mag_mem_live();
    EXPECT(mag_run(without_memory(), NULL) == 0);
    EXPECT(make_contexts(&client_tls, &server_tls) == 0);
    EXPECT(mag_run(all(), NULL) == 0);
    mag_tls_free(client_tls);
    mag_tls_free(server_tls);
    tls_certs_free(&certs);
    EXPECT(n_whole + n_broken == CONNECTIONS * ROUNDS && n_reused > 0);
    EXPECT(stress_n_descriptors() == before);
    EXPECT(mag_mem_live() == live);
    printf("tls: %llu whole, %llu broken off, %llu resumed, %llu timed out\n",
           (unsigned long long)n_whole, (unsigned long long)n_broken, (unsigned long long)n_reused,
           (unsigned long long)n_timed_out);
    return stress_end();
}
