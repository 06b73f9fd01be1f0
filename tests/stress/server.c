/* SPDX-License-Identifier: MIT */
/*
 * server.c - servers under load: stopped, cut short, and with clients that misbehave
 *
 * drained: clients send requests of a line as fast as answers come, on connections that they
 * keep or make anew, until the server has gone.  It is stopped in the middle of that, with time
 * to drain.  Each request that a handler has read is answered, and each answer has come: so the
 * two counts are equal, whenever the stop came.
 *
 * churned: few places, clients that go away in the middle or reset, clients that are sent away
 * (close_clients, abort_clients), and at the end a stop whose drain is too short, or which is
 * cancelled.  Nothing is to be left: places, descriptors, connections.
 *
 * spread: 50 connections that stay, and are all busy, end up on several workers.
 */
#include "stress.h"

#include "worker.h"

#include <magpie/server.h>
#include <magpie/stream.h>

#include <errno.h>
#include <sys/socket.h>

enum {
    DRAINS = STRESS_SCALE(20, 6),
    CHURNS = STRESS_SCALE(20, 6),
    CLIENTS = STRESS_SCALE(40, 12),
    KEPT = 50,
    ROUNDS = STRESS_SCALE(400, 60),
};

#if MAG_TSAN
/* It knows descriptors by the system calls on them, and does not see those that the ring closes:
 * who gets such a number next, by open(2), seems to race with its former user. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\n";
}
#endif

static mag_atomic(uint64_t) n_requests, n_answers, n_connections, n_cut, n_gone;

static void a_moment(struct mag_rand *r)
{
    switch (mag_rand_below(r, 3)) {
    case 0:
        mag_yield();
        break;
    case 1:
        stress_spin(mag_rand_below(r, 50000));
        break;
    default:
        mag_sleep(mag_rand_below(r, 300000));
    }
}

/* ---- drained ------------------------------------------------------------------------------------- */

static int answer(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    int rc;

    (void)arg;
    while ((rc = mag_stream_wait_request(s)) > 0) {
        if ((rc = mag_stream_readline(s, &line)) <= 0 || line.ptr[line.len - 1] != '\n')
            break; /* cut off by its client */
        mag_fetch_add(&n_requests, 1);
        if (line.ptr[0] == 's')
            mag_sleep(100 * MAG_US);
        if ((rc = mag_stream_write(s, line.ptr, line.len, NULL)) < 0)
            break;
    }
    return rc;
}

/* One connection: so many requests, or until the server ends it.  Whether it got in. */
static bool talk(uint16_t port, unsigned n, struct mag_rand *r)
{
    struct mag_stream s;
    struct mag_str line;

    if (mag_connect(&s, "127.0.0.1", port, NULL) < 0)
        return false;
    mag_fetch_add(&n_connections, 1);
    for (unsigned i = 0; i < n; i++) {
        stress_beat();
        if (mag_stream_puts(&s, mag_rand_below(r, 4) ? "quick\n" : "slow\n") < 0 ||
            mag_stream_readline(&s, &line) <= 0)
            break;
        EXPECT(line.ptr[line.len - 1] == '\n');
        mag_fetch_add(&n_answers, 1);
    }
    mag_stream_close(&s);
    return true;
}

async(void, asker, (uint16_t, port), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who);

    while (talk(port, 1 + mag_rand_below(&r, 100), &r)) {
    }
    return 0;
}

async(void, drained, (uint32_t, number))
{
    struct mag_serve_options options = { .host = "127.0.0.1",
                                         .has_requests = true,
                                         .drain = MAG_NEVER };
    struct mag_rand r = stress_rand(number);
    struct mag_server *server;
    struct mag_server_stats stats;

    EXPECT(mag_server_start(&server, answer, NULL, &options) == 0);
    task_group(g)
    {
        for (uint32_t i = 0; i < CLIENTS; i++)
            group_spawn(g, asker(mag_server_port(server), number * 1000 + i));
        mag_sleep(mag_rand_below(&r, 20) * MAG_MS);
        EXPECT(mag_server_stop(server) == 0);
    }
    mag_server_stats(server, &stats);
    EXPECT(stats.n_open == 0 && stats.n_refused == 0);
    EXPECT(n_requests == n_answers);
    mag_server_free(server);
    return 0;
}

/* ---- churned ---------------------------------------------------------------------------------------- */

struct place {
    mag_atomic(int32_t) n_inside;
    int32_t limit;
};

static int echo(struct mag_stream *s, void *arg)
{
    struct place *place = arg;
    char buf[256];
    int n;

    EXPECT(mag_fetch_add(&place->n_inside, 1) < place->limit);
    while ((n = mag_stream_read(s, buf, sizeof buf)) > 0)
        if ((n = mag_stream_write_all(s, buf, (size_t)n, NULL)) < 0)
            break;
    if (n == -ECANCELED)
        mag_fetch_add(&n_cut, 1);
    mag_fetch_sub(&place->n_inside, 1);
    if (buf[0] == 'c')
        mag_stream_close(s);
    return n;
}

/* Ends somehow. */
static bool misbehave(uint16_t port, struct mag_rand *r)
{
    struct mag_stream s;
    char buf[256];

    if (mag_connect(&s, "127.0.0.1", port, NULL) < 0)
        return false;
    for (unsigned i = mag_rand_below(r, 4); i > 0; i--) {
        stress_beat();
        if (mag_stream_puts(&s, mag_rand_below(r, 2) ? "call" : "other") < 0 ||
            mag_stream_read(&s, buf, sizeof buf) <= 0)
            break;
    }
    if (mag_rand_below(r, 2))
        mag_stream_puts(&s, "not waited for");
    if (mag_rand_below(r, 2))
        mag_stream_abort(&s);
    else
        mag_stream_close(&s);
    mag_fetch_add(&n_gone, 1);
    return true;
}

async(void, rowdy, (uint16_t, port), (uint32_t, who))
{
    struct mag_rand r = stress_rand(who);

    while (misbehave(port, &r)) {
    }
    return 0;
}

async(void, stop, (struct mag_server *, server))
{
    return mag_server_stop(server);
}

static void end_somehow(struct mag_server *server, struct mag_rand *r)
{
    int rc = 0;

    switch (mag_rand_below(r, 3)) {
    case 0:
        rc = mag_server_stop(server); /* reading ends: all ends */
        break;
    case 1:
        rc = mag_wait_for(stop(server), mag_rand_below(r, 200) * MAG_US, NULL, 0);
        break;
    default: /* by who frees it */
        break;
    }
    EXPECT(rc == 0 || rc == -ETIMEDOUT || rc == -ECANCELED);
}

async(void, churned, (uint32_t, number))
{
    struct mag_rand r = stress_rand(number);
    struct place place = { .limit = 1 + mag_rand_below(&r, 12) };
    struct mag_serve_options options = { .host = "127.0.0.1",
                                         .max_connections = (unsigned)place.limit,
                                         .drain = 1 + mag_rand_below(&r, 10) * MAG_MS };
    struct mag_server *server;

    EXPECT(mag_server_start(&server, echo, &place, &options) == 0);
    task_group(g)
    {
        for (uint32_t i = 0; i < CLIENTS; i++)
            group_spawn(g, rowdy(mag_server_port(server), number * 1000 + i));
        for (unsigned i = mag_rand_below(&r, 50); i > 0; i--) {
            a_moment(&r);
            if (mag_rand_below(&r, 2))
                mag_server_abort_clients(server);
            else
                mag_server_close_clients(server);
        }
        end_somehow(server, &r);
        mag_server_free(server);
    }
    EXPECT(place.n_inside == 0);
    return 0;
}

/* ---- spread -------------------------------------------------------------------------------------------- */

static mag_atomic(uint32_t) worked[4];

static int work(struct mag_stream *s, void *arg)
{
    char c;

    (void)arg;
    while (mag_stream_read(s, &c, 1) > 0) {
        stress_spin(20 * MAG_US);
        mag_fetch_add(&worked[mag_worker_self()->id % 4], 1);
        if (mag_stream_write_all(s, &c, 1, NULL) < 0)
            break;
    }
    return 0;
}

/* From a thread of its own, so that the workers have nothing else to do. */
static void *keep_busy(void *arg)
{
    struct mag_stream s[KEPT];
    char c = 'x';

    for (int i = 0; i < KEPT; i++)
        EXPECT(mag_connect(&s[i], "127.0.0.1", *(uint16_t *)arg, NULL) == 0);
    for (int k = 0; k < ROUNDS; k++) {
        stress_beat();
        for (int i = 0; i < KEPT; i++)
            EXPECT(mag_stream_write_all(&s[i], &c, 1, NULL) == 0);
        for (int i = 0; i < KEPT; i++)
            EXPECT(mag_stream_read(&s[i], &c, 1) == 1);
    }
    for (int i = 0; i < KEPT; i++)
        mag_stream_close(&s[i]);
    return NULL;
}

static int joined(void *thread)
{
    stress_joined(*(pthread_t *)thread);
    return 0;
}

async(void, spread)
{
    struct mag_server *server;
    pthread_t thread;
    uint16_t port;
    int n = 0;

    EXPECT(mag_server_start(&server, work, NULL,
                            &(struct mag_serve_options){ .host = "127.0.0.1" }) == 0);
    port = mag_server_port(server);
    thread = stress_thread(keep_busy, &port);
    mag_to_thread(joined, &thread);
    mag_server_free(server);
    for (int i = 0; i < 4; i++)
        n += worked[i] > KEPT * ROUNDS / 50;
    printf("server: of %d pieces of work the workers did %u, %u, %u, %u\n", KEPT * ROUNDS,
           worked[0], worked[1], worked[2], worked[3]);
    EXPECT(n >= 2); /* all four, on a machine that has as many processors to spare */
    return 0;
}

int main(void)
{
    struct mag_rt_options options = { .workers = 4 };
    int before;

    stress_begin("server", NULL);
    before = stress_n_descriptors();
    for (uint32_t i = 0; i < DRAINS; i++)
        EXPECT(mag_run_with(drained(i), NULL, &options) == 0);
    for (uint32_t i = 0; i < CHURNS; i++)
        EXPECT(mag_run_with(churned(1000 + i), NULL, &options) == 0);
    EXPECT(mag_run_with(spread(), NULL, &options) == 0);
    EXPECT(stress_n_descriptors() == before);
    EXPECT(n_cut > 0 && n_gone > 0);
    printf("server: %llu connections, %llu requests answered; %llu others, %llu cut off\n",
           (unsigned long long)n_connections, (unsigned long long)n_answers,
           (unsigned long long)n_gone, (unsigned long long)n_cut);
    return stress_end();
}
