/* SPDX-License-Identifier: MIT */
/*
 * http_server.c - starting and stopping an HTTP server
 *
 * It is a server of <magpie/server.h> whose handler serves HTTP (http_session.c).  What is
 * here: the limits, and the counts.  These are kept in stripes of a cache line each, one for each
 * worker (of the first 16), since a word that several workers add to would cost more than the
 * parsing does.
 *
 * Who may call: tasks; the port and the counts any thread.
 */
#include "atomic.h"
#include "http_session.h"
#include "mem.h"
#include "worker.h"

#include <errno.h>
#include <magpie/scope.h>
#include <string.h>

enum {
    STRIPES = 16,
    HEAD_BYTES_MAX = 1024 * 1024,
};

struct stripe {
    mag_atomic(uint64_t) n_requests, n_refused, n_aborted;
} MAG_CACHELINE;

struct mag_http_server {
    struct mag_server *server;
    struct mag_http_config config;
    struct stripe stripes[STRIPES];
};

/* ---- options ------------------------------------------------------------------------------- */

#define DEFAULT(field, value) \
    do { \
        if (o->field == 0) \
            o->field = (value); \
    } while (0)

static int fill_in(struct mag_http_config *config)
{
    struct mag_http_server_options *o = &config->options;

    DEFAULT(line_bytes, 8 * 1024);
    DEFAULT(head_bytes, 32 * 1024);
    DEFAULT(max_fields, 100);
    DEFAULT(body_bytes, 1024 * 1024);
    DEFAULT(idle_timeout, 60 * MAG_SECOND);
    DEFAULT(head_timeout, 20 * MAG_SECOND);
    DEFAULT(body_timeout, 20 * MAG_SECOND);
    DEFAULT(body_rate, 1024);
    DEFAULT(write_timeout, 60 * MAG_SECOND);
    if (o->idle_timeout < 0 || o->head_timeout < 0 || o->body_timeout < 0 || o->write_timeout < 0 ||
        o->head_bytes > HEAD_BYTES_MAX || o->line_bytes > o->head_bytes)
        return -EINVAL;
    /* A head has to fit into the stream's buffer. */
    if (o->serve.stream.limit == 0 || o->serve.stream.limit < o->head_bytes)
        o->serve.stream.limit = o->head_bytes > 64 * 1024 ? o->head_bytes : 64 * 1024;
    o->serve.has_requests = true;
    config->limits = (struct mag_http_limits){ o->line_bytes, o->head_bytes, o->max_fields };
    config->n_server_name = o->server_name ? strlen(o->server_name) : 0;
    return 0;
}

/* ---- connections ---------------------------------------------------------------------------- */

static void count(void *arg, const struct mag_http_counts *counts)
{
    struct mag_http_server *server = arg;
    struct stripe *s = &server->stripes[mag_worker_number() % STRIPES];

    if (counts->n_requests > 0)
        mag_fetch_add(&s->n_requests, counts->n_requests);
    if (counts->n_refused > 0)
        mag_fetch_add(&s->n_refused, counts->n_refused);
    if (counts->n_aborted > 0)
        mag_fetch_add(&s->n_aborted, counts->n_aborted);
}

static int serve_connection(struct mag_stream *s, void *arg)
{
    struct mag_http_server *server = arg;

    return mag_http_session(s, &server->config, count, server);
}

static void on_error(int rc, const char *peer, void *arg)
{
    struct mag_http_server *server = arg;

    server->config.options.serve.on_error(rc, peer, server->config.arg);
}

/* ---- the server ----------------------------------------------------------------------------- */

int mag_http_server_start(struct mag_http_server **out, mag_http_handler *handler, void *arg,
                          const struct mag_http_server_options *options)
{
    struct mag_http_server *server;
    struct mag_serve_options o;
    int rc;

    *out = NULL;
    server = mag_mem_alloc_aligned(MAG_CACHE_BYTES, sizeof *server);
    if (server == NULL)
        return -ENOMEM;
    *server = (struct mag_http_server){ .config = { .handler = handler, .arg = arg } };
    if (options)
        server->config.options = *options;
    rc = fill_in(&server->config);
    o = server->config.options.serve;
    if (o.on_error)
        o.on_error = on_error;
    if (rc == 0)
        rc = mag_server_start(&server->server, serve_connection, server, &o);
    if (rc < 0) {
        mag_mem_free(server);
        return rc;
    }
    *out = server;
    return 0;
}

int mag_http_server_wait(struct mag_http_server *server)
{
    return mag_server_wait(server->server);
}

int mag_http_server_stop(struct mag_http_server *server)
{
    return mag_server_stop(server->server);
}

void mag_http_server_free(struct mag_http_server *server)
{
    if (server == NULL)
        return;
    mag_server_free(server->server);
    mag_mem_free(server);
}

uint16_t mag_http_server_port(const struct mag_http_server *server)
{
    return mag_server_port(server->server);
}

void mag_http_server_stats(const struct mag_http_server *server, struct mag_http_server_stats *out)
{
    *out = (struct mag_http_server_stats){ 0 };
    mag_server_stats(server->server, &out->server);
    for (size_t i = 0; i < STRIPES; i++) {
        out->n_requests += mag_load_relaxed(&server->stripes[i].n_requests);
        out->n_refused += mag_load_relaxed(&server->stripes[i].n_refused);
        out->n_aborted += mag_load_relaxed(&server->stripes[i].n_aborted);
    }
}

int mag_http_serve(mag_http_handler *handler, void *arg,
                   const struct mag_http_server_options *options)
{
    struct mag_http_server *server;
    struct mag_scope shield;
    int rc = mag_http_server_start(&server, handler, arg, options);

    if (rc < 0)
        return rc;
    rc = mag_http_server_wait(server);
    if (rc == -ECANCELED && mag_shield_enter(&shield, MAG_NEVER, NULL) == 0) {
        (void)mag_http_server_stop(server);
        (void)mag_scope_leave(&shield, 0);
    }
    mag_http_server_free(server);
    return rc;
}
