/* SPDX-License-Identifier: MIT */
/*
 * http_client.c - requests from all workers by clients that are shared, closed and opened again,
 * while tasks are cancelled and limits of time pass at any moment
 *
 *      tasks: get | stream | upload, plain or under a deadline of microseconds, or cancelled
 *        `--> shared client --> drivers on all workers --> a server in the same process
 *
 * Whatever comes back is compared with what the server has sent; what fails must say why.  At the end
 * of each round the client is closed with requests under way, and no descriptor is left.
 */
#include "stress.h"

#include "canned_http.h"

#include <magpie/http_client.h>

#include <errno.h>
#include <stdlib.h>

enum {
    ROUNDS = STRESS_SCALE(4, 3),
    TASKS = STRESS_SCALE(60, 24),
    REQUESTS = STRESS_SCALE(30, 8), /* of each task */
    BIG = 50000,
};

static mag_atomic(uint64_t) n_whole, n_cut, n_closed;

#if MAG_TSAN
/* It does not see into libcurl, nor what the ring does with descriptors. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:mag_sys_close\ncalled_from_lib:libcurl\n";
}
#endif

static bool is_big(const char *bytes, size_t at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != (char)((at + i) * 7 >> 3))
            return false;
    return true;
}

async(void, get, (struct mag_http_client *, client), (const char *, url))
{
    struct mag_http_response *r = await(mag_http_get_co(client, url));

    EXPECT(r->status == 200 && r->body.len == BIG && is_big(r->body.ptr, 0, BIG));
    mag_http_response_free(r);
    return 0;
}

async(void, stream, (struct mag_http_client *, client), (const char *, url), (uint64_t, chance))
{
    struct mag_http_stream *s;
    char buf[4000];
    size_t at = 0;
    int n;

    await(mag_http_stream_open(&s, client, &(struct mag_http_request){ .url = url }));
    while ((n = mag_http_stream_read(s, buf, 1 + chance % sizeof buf)) > 0) {
        EXPECT(is_big(buf, at, (size_t)n));
        at += (size_t)n;
    }
    EXPECT(n < 0 || at == BIG);
    mag_http_stream_close(s);
    return n;
}

static int read_some(void *arg, void *buf, size_t n)
{
    size_t *left = arg, m = n < *left ? n : *left;
    int rc = *left % 3 ? mag_yield() : mag_sleep(50 * MAG_US);

    m = m < 999 ? m : 999;
    memset(buf, 'u', m);
    *left -= m;
    return rc < 0 ? rc : (int)m;
}

async(void, upload, (struct mag_http_client *, client), (const char *, url))
{
    size_t left = 20000;
    struct mag_http_response *r;

    await(mag_http_request(
        client, &(struct mag_http_request){ .url = url, .body_read = read_some, .body_arg = &left },
        &r));
    EXPECT(r->status == 200 && r->body.len > 20000 && r->body.ptr[r->body.len - 1] == 'u');
    mag_http_response_free(r);
    return 0;
}

static void *any(struct mag_http_client *client, const struct canned *server,
                 char url[2][URL_BYTES], struct mag_rand *r)
{
    canned_url(server, url[0], "/big/50000");
    canned_url(server, url[1], "/echo");
    switch (mag_rand_below(r, 4)) {
    case 0:
        return upload(client, url[1]);
    case 1:
        return stream(client, url[0], mag_rand_below(r, 4000));
    default:
        return get(client, url[0]);
    }
}

/* In one of several ways: its rc. */
static int make(struct mag_http_client *client, const struct canned *server, struct mag_rand *r)
{
    char url[2][URL_BYTES];
    void *co = any(client, server, url, r);

    switch (mag_rand_below(r, 4)) {
    case 0:
        return mag_wait_for(co, mag_rand_below(r, 5000000), NULL, 0);
    case 1:
        if (mag_start(co, NULL) < 0)
            return mag_close(co), -ENOMEM;
        mag_sleep(mag_rand_below(r, 3000000));
        mag_cancel(co);
        return mag_await(co, NULL, 0);
    default:
        return mag_await(co, NULL, 0);
    }
}

async(void, some, (struct mag_http_client *, client), (const struct canned *, server),
      (unsigned, who))
{
    struct mag_rand r = stress_rand(who);
    int rc;

    for (int i = 0; i < REQUESTS; i++) {
        rc = make(client, server, &r);
        EXPECT(rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT);
        mag_fetch_add(rc == 0 ? &n_whole : &n_cut, 1);
        stress_beat();
        if (client->private_ == NULL)
            break;
    }
    return 0;
}

/* Begins requests until the client is closed by another. */
async(void, to_be_cut, (struct mag_http_client *, client), (const struct canned *, server))
{
    char url[URL_BYTES];
    struct mag_http_response *r;
    int rc = mag_http_get(client, canned_url(server, url, "/hold-body"), &r);

    EXPECT(rc == -ECANCELED);
    mag_fetch_add(&n_closed, 1);
    return 0;
}

async(void, one_round, (unsigned, round))
{
    async_with(canned, server)
    {
        struct mag_http_client client;
        struct to_be_cut *last[8];

        await(mag_http_client_open(
            &client, &(struct mag_http_client_options){ .max_connections = 40,
                                                        .max_keepalive = round % 2 ? 100 : 4,
                                                        .timeout = MAG_MINUTE }));
        task_group(g)
        {
            for (unsigned i = 0; i < TASKS; i++)
                group_spawn(g, some(&client, server, round * 1000 + i));
        }
        for (int i = 0; i < 8; i++)
            last[i] = spawn(to_be_cut(&client, server));
        while (__atomic_load_n(&server->n_held, __ATOMIC_SEQ_CST) < 8)
            await(mag_sleep(MAG_MS));
        mag_http_client_close(&client);
        for (int i = 0; i < 8; i++)
            await(last[i]);
    }
    return 0;
}

async(void, all)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        await(one_round(round));
    return 0;
}

static void state(void)
{
    fprintf(stderr, "whole %llu, cut %llu, closed %llu\n", (unsigned long long)n_whole,
            (unsigned long long)n_cut, (unsigned long long)n_closed);
    mag_dump(NULL, stderr);
}

int main(void)
{
    int n_before;

    stress_begin("http_client", state);
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    n_before = stress_n_descriptors();
    EXPECT(mag_run_with(all(), NULL, &(struct mag_rt_options){ .workers = 4 }) == 0);
    EXPECT(stress_n_descriptors() == n_before);
    state();
    EXPECT(n_whole > 0 && n_cut > 0 && n_closed == ROUNDS * 8);
    return stress_end();
}
