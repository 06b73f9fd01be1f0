/* SPDX-License-Identifier: MIT */
/*
 * http_server.c - many clients on few workers, some of them rude, and servers that stop amid it
 *
 *      client: requests, pipelined, in pieces --> server --> answers: each to its request, in order
 *
 * Some clients leave amid a request, or do not read their answers.  In every round the server is
 * stopped while it has work: what it has accepted it answers.  At the end there are as many
 * descriptors as before.  (http_idle.c has a crowd that says nothing.)
 */
#include "stress.h"

#include <magpie/async.h>
#include <magpie/http_server.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS = STRESS_SCALE(12, 4),
    CLIENTS = STRESS_SCALE(60, 16),
    BATCHES = STRESS_SCALE(30, 8),
    PIPELINED = 16,
};

static mag_atomic(uint64_t) n_answered, n_left, n_cut, n_drained;

#if MAG_TSAN
/* It knows descriptors by the system calls on them, and does not see those that the ring closes. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\nrace:mag_sys_socket\n";
}
#endif

/* "/N" is answered by N, after a nap for some; a body comes back. */
static int answer(struct mag_http_exchange *x, void *arg)
{
    struct mag_str body;
    int rc;

    (void)arg;
    stress_beat();
    if (x->content_length == 0) {
        if (atoi(x->path + 1) % 7 == 0)
            mag_yield();
        return mag_http_respond(x, 200, NULL, 0, x->path + 1, strlen(x->path + 1));
    }
    rc = mag_http_read_all(x, &body, 0);
    return rc < 0 ? rc : mag_http_respond(x, 200, NULL, 0, body.ptr, body.len);
}

/* ---- clients -------------------------------------------------------------------------------- */

static size_t put_request(struct mag_rand *r, char *p, unsigned number)
{
    char text[12];
    int n = sprintf(text, "%u", number);

    switch (mag_rand_below(r, 3)) {
    case 0:
        return (size_t)sprintf(p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", n,
                               text);
    case 1:
        return (size_t)sprintf(p,
                               "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "1\r\n%c\r\n%x\r\n%s\r\n0\r\n\r\n",
                               text[0], n - 1, text + 1);
    default:
        return (size_t)sprintf(p, "GET /%s HTTP/1.1\r\nHost: a\r\n\r\n", text);
    }
}

static int send_in_pieces(struct mag_rand *r, struct mag_stream *s, const char *p, size_t n)
{
    int rc = 0;

    while (rc == 0 && n > 0) {
        size_t piece = mag_rand_below(r, 2) ? n : 1 + mag_rand_below(r, (uint32_t)n);
        rc = mag_stream_write_all(s, p, piece, NULL);
        p += piece;
        n -= piece;
        if (mag_rand_below(r, 4) == 0)
            mag_yield();
    }
    return rc;
}

/* 0: the answer to that number; -ENODATA: the connection has ended before it. */
static int read_answer(struct mag_stream *s, unsigned number, bool *closes)
{
    struct mag_str head;
    char text[12], body[12] = "";
    int n = sprintf(text, "%u", number), rc = mag_stream_read_until(s, "\r\n\r\n", &head);

    if (rc < 0)
        return rc;
    EXPECT(strncmp(head.ptr, "HTTP/1.1 200 OK\r\n", 17) == 0);
    *closes = strstr(head.ptr, "Connection: close") != NULL;
    EXPECT(strstr(head.ptr, "Content-Length: ") != NULL);
    EXPECT(atoi(strstr(head.ptr, "Content-Length: ") + 16) == n);
    rc = mag_stream_read_exact(s, body, (size_t)n, NULL);
    EXPECT(rc < 0 || strcmp(body, text) == 0);
    return rc;
}

/* Some requests, and their answers; < 0 when the connection has ended. */
static int talk(struct mag_rand *r, struct mag_stream *s, unsigned number)
{
    char text[PIPELINED * 160];
    unsigned k = 1 + mag_rand_below(r, PIPELINED);
    size_t n = 0;
    bool closes = false;
    int rc;

    for (unsigned i = 0; i < k; i++)
        n += put_request(r, text + n, number + i);
    if (mag_rand_below(r, 12) == 0) { /* leaves amid it */
        (void)send_in_pieces(r, s, text, 1 + mag_rand_below(r, (uint32_t)n));
        mag_fetch_add(&n_left, 1);
        return -EPIPE;
    }
    rc = send_in_pieces(r, s, text, n);
    for (unsigned i = 0; rc == 0 && i < k; i++) {
        rc = read_answer(s, number + i, &closes);
        if (rc == 0)
            mag_fetch_add(&n_answered, 1);
        if (rc == 0 && closes)
            return mag_fetch_add(&n_drained, 1), -EPIPE;
    }
    return rc;
}

async(void, client, (struct mag_http_server *, server), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who);
    unsigned number = 100 * who + 10;
    struct mag_stream s;
    int rc = 0;

    for (int i = 0; i < BATCHES; number += PIPELINED) {
        if (mag_connect(&s, "127.0.0.1", mag_http_server_port(server), NULL) < 0)
            return 0; /* it has stopped */
        for (rc = 0; rc == 0 && i < BATCHES; i++)
            rc = talk(&r, &s, number);
        if (rc < 0 && rc != -EPIPE)
            mag_fetch_add(&n_cut, 1);
        if (mag_rand_below(&r, 3) == 0)
            mag_stream_abort(&s);
        else
            mag_stream_close(&s);
    }
    return 0;
}

async(void, round_of, (uint32_t, number))
{
    const struct mag_http_server_options o = { .serve.host = "127.0.0.1" };
    struct mag_rand r = stress_rand(number * 7 + 1);
    struct mag_http_server *server;
    struct mag_http_server_stats stats;

    await(mag_http_server_start(&server, answer, NULL, &o));
    task_group(g)
    {
        for (uint32_t i = 0; i < CLIENTS; i++)
            group_spawn(g, client(server, number * CLIENTS + i));
        mag_sleep((mag_time)mag_rand_below(&r, 60000) * 1000);
        EXPECT(mag_http_server_stop(server) == 0);
    }
    mag_http_server_stats(server, &stats);
    EXPECT(stats.server.n_open == 0);
    mag_http_server_free(server);
    return 0;
}

static bool have_seen_all(void)
{
    return n_answered > 0 && n_left > 0 && n_drained > 0;
}

int main(void)
{
    struct mag_rt_options options = { .workers = 4 };
    int before;

    stress_begin("http_server", NULL);
    before = stress_n_descriptors();
    for (uint32_t i = 0; i < ROUNDS || (i < 20 * ROUNDS && !have_seen_all()); i++)
        EXPECT(mag_run_with(round_of(i), NULL, &options) == 0);
    EXPECT(stress_n_descriptors() == before);
    EXPECT(have_seen_all());
    printf("http_server: %llu answered, %llu left, %llu cut off, %llu told to close\n",
           (unsigned long long)n_answered, (unsigned long long)n_left, (unsigned long long)n_cut,
           (unsigned long long)n_drained);
    return stress_end();
}
