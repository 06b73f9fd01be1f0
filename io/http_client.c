/* SPDX-License-Identifier: MIT */
/*
 * http_client.c - requests, as the tasks that make them see it
 *
 *      permit --> transfer --> driver ... done --> response          (http_client_driver.c)
 *                    ^                |
 *                    +-- body_read ---+--> stream read
 *
 * A request takes a permit of the client's (max_connections, over all workers), makes a transfer,
 * hands it to a driver, and waits until the driver has let go of it: also when it is cancelled, it
 * then asks for the end first.  A body_read is called here, in the caller's task, between two
 * waits, so it may suspend; libcurl meets only the ring that it fills.
 *
 * Who holds the pool: the client, and each request and stream until it has let go of its transfer.
 * So a close need not wait for tasks whose requests it has ended.
 *
 * The permit is one for a request, not for a connection: with HTTP/2 several requests share one,
 * and are counted each.  Idle connections have a bound of their own, which drivers share evenly.
 */
#include "http_client_parts.h"

#include "clock.h"
#include "mem.h"
#include "misuse.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

enum {
    TIMEOUT_S = 5,
    CONNECTIONS = 100,
    KEEPALIVE = 20,
    REDIRECTS = 20,
    STREAM_BYTES = 64 * 1024,
};

/* ---- a client's options --------------------------------------------------------------- */

/* What a string is kept in. */
struct kept {
    struct kept *next;
    char text[];
};

static int keep(struct mag_http_pool *pool, const char **text)
{
    size_t n = *text ? strlen(*text) + 1 : 0;
    struct kept *k;

    if (*text == NULL)
        return 0;
    k = mag_mem_alloc(sizeof *k + n);
    if (k == NULL)
        return -ENOMEM;
    memcpy(k->text, *text, n);
    k->next = pool->strings;
    pool->strings = k;
    *text = k->text;
    return 0;
}

static int keep_headers(struct mag_http_pool *pool)
{
    const struct mag_http_field *from = pool->o.headers;
    struct mag_http_field *fields;
    struct kept *k;
    size_t n = 0;
    int rc = 0;

    if (from == NULL)
        return 0;
    while (from[n].name)
        n++;
    k = mag_mem_alloc(sizeof *k + (n + 1) * sizeof *fields);
    if (k == NULL)
        return -ENOMEM;
    k->next = pool->strings;
    pool->strings = k;
    fields = (struct mag_http_field *)k->text;
    memcpy(fields, from, (n + 1) * sizeof *fields);
    pool->o.headers = fields;
    for (size_t i = 0; i < n && rc == 0; i++)
        if ((rc = keep(pool, &fields[i].name)) == 0)
            rc = keep(pool, &fields[i].value);
    return rc;
}

static int keep_texts(struct mag_http_pool *pool)
{
    struct mag_http_client_options *o = &pool->o;
    const char **texts[] = { &o->ca_file,  &o->cert_file,     &o->key_file,  &o->proxy,
                             &o->base_url, &o->auth.password, &o->auth.user, &o->user_agent };
    int rc = keep_headers(pool);

    for (size_t i = 0; i < MAG_ARRAY_SIZE(texts) && rc == 0; i++)
        rc = keep(pool, texts[i]);
    return rc;
}

static void default_time(mag_time *t, mag_time value)
{
    if (*t == 0)
        *t = value;
}

static int fill_in(struct mag_http_client_options *o)
{
    mag_time *const times[] = { &o->connect_timeout, &o->read_timeout, &o->write_timeout,
                                &o->pool_timeout };

    default_time(&o->timeout, TIMEOUT_S * MAG_SECOND);
    default_time(&o->total_timeout, MAG_NEVER);
    default_time(&o->keepalive_expiry, TIMEOUT_S * MAG_SECOND);
    for (size_t i = 0; i < MAG_ARRAY_SIZE(times); i++)
        default_time(times[i], o->timeout);
    for (size_t i = 0; i < MAG_ARRAY_SIZE(times); i++)
        if (*times[i] < 0)
            return -EINVAL;
    o->max_connections = o->max_connections ? o->max_connections : CONNECTIONS;
    o->max_keepalive = o->max_keepalive ? o->max_keepalive : KEEPALIVE;
    o->max_redirects = o->max_redirects ? o->max_redirects : REDIRECTS;
    o->max_body = o->max_body ? o->max_body : (uint64_t)256 << 20;
    o->max_kept = o->max_kept ? o->max_kept : (uint64_t)1 << 30;
    if (o->stream_buffer < STREAM_BYTES)
        o->stream_buffer = STREAM_BYTES;
    o->user_agent = o->user_agent ? o->user_agent : "magpie/0.1";
    return o->total_timeout < 0 || o->keepalive_expiry < 0 ? -EINVAL : 0;
}

/* ---- pools ---------------------------------------------------------------------------- */

static void lock_share(CURL *curl, curl_lock_data data, curl_lock_access access, void *pool)
{
    (void)curl, (void)access;
    pthread_mutex_lock(&((struct mag_http_pool *)pool)->share_locks[data]);
}

static void unlock_share(CURL *curl, curl_lock_data data, void *pool)
{
    (void)curl;
    pthread_mutex_unlock(&((struct mag_http_pool *)pool)->share_locks[data]);
}

static int open_share(struct mag_http_pool *pool)
{
    pool->share = curl_share_init();
    if (pool->share == NULL)
        return -ENOMEM;
    for (int i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_init(&pool->share_locks[i], NULL);
    curl_share_setopt(pool->share, CURLSHOPT_LOCKFUNC, lock_share);
    curl_share_setopt(pool->share, CURLSHOPT_UNLOCKFUNC, unlock_share);
    curl_share_setopt(pool->share, CURLSHOPT_USERDATA, pool);
    curl_share_setopt(pool->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(pool->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    if (!pool->o.no_cookies &&
        curl_share_setopt(pool->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_COOKIE) != CURLSHE_OK)
        return -ENOMEM;
    return 0;
}

static void pool_free(struct mag_http_pool *pool)
{
    struct kept *k;

    if (pool->share)
        curl_share_cleanup(pool->share);
    while ((k = pool->strings) != NULL) {
        pool->strings = k->next;
        mag_mem_free(k);
    }
    mag_mem_free(pool->drivers);
    mag_mem_free(pool);
}

static void pool_unref(struct mag_http_pool *pool)
{
    if (mag_fetch_sub(&pool->n_refs, 1) == 1)
        pool_free(pool);
}

static int open_libcurl(void *unused)
{
    (void)unused;
    return curl_global_init(CURL_GLOBAL_ALL) == CURLE_OK ? 0 : -ENOMEM;
}

/* In a thread: it reads configuration files. */
static int open_libcurl_there(void *unused)
{
    return mag_to_thread(open_libcurl, unused);
}

static int pool_init(struct mag_http_pool *pool)
{
    static struct mag_once once;
    int rc = mag_once(&once, open_libcurl_there, NULL);

    if (rc == 0)
        rc = fill_in(&pool->o);
    if (rc == 0)
        rc = keep_texts(pool);
    if (rc == 0)
        rc = open_share(pool);
    if (rc < 0)
        return rc;
    pool->rt = mag_rt_self();
    pool->n_drivers = mag_rt_workers(pool->rt);
    pool->drivers = mag_mem_alloc_aligned(MAG_CACHE_BYTES, pool->n_drivers * sizeof *pool->drivers);
    if (pool->drivers == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < pool->n_drivers; i++)
        mag_driver_init(&pool->drivers[i], pool, i);
    mag_list_init(&pool->responses);
    mag_store_relaxed(&pool->n_refs, 1);
    return mag_sem_init(&pool->permits, pool->o.max_connections);
}

int mag_http_client_open(struct mag_http_client *client,
                         const struct mag_http_client_options *options)
{
    struct mag_http_pool *pool;
    int rc;

    if (client == NULL)
        return mag_misuse(-EINVAL, "a client that is NULL");
    client->private_ = NULL;
    if (mag_rt_self() == NULL)
        return mag_misuse(-ENXIO, "mag_http_client_open() outside a task: it is tasks that do its "
                                  "work");
    pool = mag_mem_zalloc(sizeof *pool);
    if (pool == NULL)
        return -ENOMEM;
    if (options)
        pool->o = *options;
    rc = pool_init(pool);
    if (rc < 0) {
        pool_free(pool);
        return rc;
    }
    client->private_ = pool;
    return 0;
}

static void free_responses(struct mag_http_pool *pool)
{
    struct mag_list *link;

    do {
        mag_spin_lock(&pool->lock);
        link = mag_list_pop_front(&pool->responses);
        mag_spin_unlock(&pool->lock);
        if (link)
            mag_http_answer_free(mag_container_of(link, struct mag_http_answer, link));
    } while (link);
}

int mag_http_client_close(struct mag_http_client *client)
{
    struct mag_http_pool *pool = client ? client->private_ : NULL;
    struct mag_scope shield;
    bool is_shielded;

    if (pool == NULL)
        return 0;
    client->private_ = NULL;
    is_shielded = mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;
    mag_store_release(&pool->is_closing, 1);
    mag_mutex_lock(
        &pool->starting); /* who opens a driver now has done so; the next sees is_closing */
    mag_mutex_unlock(&pool->starting);
    for (unsigned i = 0; i < pool->n_drivers; i++)
        mag_driver_close(&pool->drivers[i]);
    free_responses(pool);
    if (is_shielded)
        (void)mag_scope_leave(&shield, 0);
    pool_unref(pool);
    return 0;
}

void mag_http_client_exit(struct mag_http_client *client)
{
    (void)mag_http_client_close(client);
}

void mag_http_client_error(const struct mag_http_client *client, struct mag_http_error *out)
{
    struct mag_http_pool *pool = client ? client->private_ : NULL;

    *out = (struct mag_http_error){ .kind = MAG_HTTP_OK };
    if (pool == NULL)
        return;
    mag_spin_lock(&pool->lock);
    *out = pool->last;
    mag_spin_unlock(&pool->lock);
}

/* ---- cookies -------------------------------------------------------------------------- */

struct cookies {
    struct mag_http_pool *pool;
    const char *line;
    struct curl_slist *list;
};

/* On a pool thread: libcurl's parser wants more stack than a task may have. */
static int with_cookies(void *arg)
{
    struct cookies *c = arg;
    CURL *curl = curl_easy_init();
    CURLcode code =
        curl ? curl_easy_setopt(curl, CURLOPT_SHARE, c->pool->share) : CURLE_OUT_OF_MEMORY;

    if (code == CURLE_OK && c->line)
        code = curl_easy_setopt(curl, CURLOPT_COOKIELIST, c->line);
    if (code == CURLE_OK && c->line == NULL)
        code = curl_easy_getinfo(curl, CURLINFO_COOKIELIST, &c->list);
    if (curl)
        curl_easy_cleanup(curl);
    return code == CURLE_OK ? 0 : -ENOMEM;
}

static int call_cookies(struct mag_http_client *client, struct cookies *c)
{
    c->pool = client ? client->private_ : NULL;
    if (c->pool == NULL || c->pool->o.no_cookies)
        return mag_misuse(-EINVAL, "cookies of a client that is closed, or has none");
    return mag_to_thread(with_cookies, c);
}

int mag_http_client_set_cookie(struct mag_http_client *client, const char *line)
{
    struct cookies c = { .line = line };

    if (line == NULL || strpbrk(line, "\r\n"))
        return -EINVAL;
    return call_cookies(client, &c);
}

int mag_http_client_cookies(struct mag_http_client *client,
                            void (*each)(void *arg, const char *line), void *arg)
{
    struct cookies c = { .line = NULL };
    int rc = each ? call_cookies(client, &c) : -EINVAL;

    for (struct curl_slist *s = rc == 0 ? c.list : NULL; s; s = s->next)
        each(arg, s->data);
    curl_slist_free_all(c.list);
    return rc;
}

/* ---- a request's way ------------------------------------------------------------------ */

static mag_time pick(mag_time own, mag_time clients)
{
    return own ? own : clients;
}

static void set_times(struct mag_transfer *t)
{
    const struct mag_http_client_options *o = &t->pool->o;
    const struct mag_http_request *r = &t->request;

    t->times = (struct mag_http_times){
        .connect = pick(r->connect_timeout, o->connect_timeout),
        .read = pick(r->read_timeout, o->read_timeout),
        .write = pick(r->write_timeout, o->write_timeout),
        .pool = pick(r->pool_timeout, o->pool_timeout),
        .total = pick(r->total_timeout, o->total_timeout),
    };
    t->begun = mag_clock_now();
    t->deadline = mag_clock_after(t->times.total);
}

static int check_request(struct mag_transfer *t)
{
    const struct mag_http_request *r = &t->request;
    int n_bodies =
        (r->body != NULL) + (r->body_read != NULL) + (r->form != NULL) + (r->parts != NULL);

    t->has_body = n_bodies > 0;
    if (r->url == NULL)
        return mag_http_fail(&t->error, MAG_HTTP_BAD_REQUEST, -EINVAL, "no URL");
    if (n_bodies > 1)
        return mag_http_fail(&t->error, MAG_HTTP_BAD_REQUEST, -EINVAL, "more than one body");
    if (r->connect_timeout < 0 || r->read_timeout < 0 || r->write_timeout < 0 ||
        r->pool_timeout < 0 || r->total_timeout < 0)
        return mag_http_fail(&t->error, MAG_HTTP_BAD_REQUEST, -EINVAL, "a negative timeout");
    if (r->body_read && mag_http_ring_init(&t->out, MAG_HTTP_UPLOAD_BYTES) < 0)
        return mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for the body");
    if (t->is_stream && mag_http_ring_init(&t->in, t->pool->o.stream_buffer) < 0)
        return mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for the body");
    return 0;
}

static void transfer_free(struct mag_transfer *t)
{
    struct mag_http_pool *pool = t->pool;

    mag_mem_free(t->in.ptr);
    mag_mem_free(t->out.ptr);
    mag_http_answer_free(t->answer);
    mag_mem_free(t);
    pool_unref(pool);
}

static struct mag_transfer *transfer_new(struct mag_http_pool *pool,
                                         const struct mag_http_request *request, bool is_stream)
{
    struct mag_transfer *t = mag_mem_zalloc(sizeof *t);

    if (t == NULL)
        return NULL;
    mag_fetch_add(&pool->n_refs, 1);
    t->pool = pool;
    t->request = *request;
    t->is_stream = is_stream;
    t->is_following =
        request->follow_redirects ? request->follow_redirects > 0 : pool->o.follow_redirects;
    t->max_body = request->max_body ? request->max_body : is_stream ? UINT64_MAX : pool->o.max_body;
    t->answer = mag_http_answer_new(pool);
    if (t->answer)
        return t;
    transfer_free(t);
    return NULL;
}

/* A permit, or the pool's timeout, or that of the whole. */
static int take_permit(struct mag_transfer *t)
{
    struct mag_http_pool *pool = t->pool;
    mag_time due = mag_clock_after(t->times.pool);
    bool is_total = t->deadline < due;
    struct mag_scope scope;
    int rc;

    if (mag_sem_try_acquire(&pool->permits) == 0)
        return 0;
    rc = mag_scope_enter(&scope, is_total ? t->deadline : due, NULL);
    if (rc == 0)
        rc = mag_scope_leave(&scope, mag_sem_acquire(&pool->permits));
    if (rc == -ETIMEDOUT)
        return mag_http_fail(&t->error, is_total ? MAG_HTTP_TOTAL_TIMEOUT : MAG_HTTP_POOL_TIMEOUT,
                             rc, "%u requests were under way for %.1f s", pool->o.max_connections,
                             mag_seconds(mag_clock_now() - t->begun));
    return rc;
}

/* Until the driver has let go of it. */
static void wait_done(struct mag_transfer *t)
{
    struct mag_scope shield;
    int rc = mag_shield_enter(&shield, MAG_NEVER, NULL);

    (void)mag_event_wait(&t->done);
    if (rc == 0)
        (void)mag_scope_leave(&shield, 0);
}

/* Ends it, with that error, unless it has come to its own end: its rc. */
static int give_up(struct mag_transfer *t, int rc)
{
    mag_transfer_cancel(t);
    wait_done(t);
    return t->error.kind == MAG_HTTP_CANCELED ? (t->error.rc = rc) : t->error.rc;
}

/* ---- the request's body --------------------------------------------------------------- */

/* Where body_read may write: the ring's free part, as far as it is in one piece. */
static char *place_for_body(struct mag_transfer *t, size_t *room)
{
    struct mag_http_ring *r = &t->out;
    size_t at, n_free;

    mag_spin_lock(&t->lock);
    n_free = t->is_out_over ? 0 : r->room - r->len;
    at = r->begin + r->len < r->room ? r->begin + r->len : r->begin + r->len - r->room;
    mag_spin_unlock(&t->lock);
    *room = n_free < r->room - at ? n_free : r->room - at;
    return n_free >= r->room / 4 ? r->ptr + at : NULL;
}

/* n bytes are there, 0: the end; whether libcurl waits for it. */
static bool put_body(struct mag_transfer *t, size_t n)
{
    bool was_paused;

    mag_spin_lock(&t->lock);
    t->out.len += n;
    t->is_out_over = n == 0;
    was_paused = t->is_out_paused;
    t->is_out_paused = false;
    mag_spin_unlock(&t->lock);
    return was_paused;
}

/* Calls body_read as long as there is room: 0, or its error. */
static int feed(struct mag_transfer *t)
{
    size_t room;
    char *place;
    int n;

    while (t->request.body_read && !mag_transfer_is_done(t) &&
           (place = place_for_body(t, &room)) != NULL) {
        n = t->request.body_read(t->request.body_arg, place, room);
        if (n < 0)
            return n;
        if ((size_t)n > room)
            return mag_misuse(-EINVAL, "body_read has returned %d, more than it was asked for", n);
        if (put_body(t, (size_t)n))
            mag_transfer_command(t, MAG_COMMAND_GO_ON);
    }
    return 0;
}

static int fail_body(struct mag_transfer *t, int rc)
{
    rc = give_up(t, rc);
    if (t->error.kind == MAG_HTTP_CANCELED && rc != -ECANCELED) {
        t->error.kind = MAG_HTTP_OK;
        mag_http_fail(&t->error, MAG_HTTP_BODY, rc, "the request's body failed: %s",
                      mag_err_text(rc));
    }
    return rc;
}

/* ---- waiting -------------------------------------------------------------------------- */

/* A plain one: until it is done. */
static int wait_plain(struct mag_transfer *t)
{
    int rc = mag_event_wait(&t->done);

    return rc < 0 ? give_up(t, rc) : t->error.rc;
}

/* 1: the condition holds; 0: it is done; < 0: given up. */
static int wait_for_it(struct mag_transfer *t, bool (*holds)(struct mag_transfer *t))
{
    int rc;

    for (;;) {
        mag_event_clear(&t->wake);
        if (holds(t))
            return 1;
        if (mag_transfer_is_done(t)) {
            wait_done(t);
            return holds(t);
        }
        rc = feed(t);
        if (rc < 0)
            return fail_body(t, rc);
        rc = mag_event_wait(&t->wake);
        if (rc < 0)
            return rc;
    }
}

static bool never_holds(struct mag_transfer *t)
{
    (void)t;
    return false;
}

static bool has_head(struct mag_transfer *t)
{
    bool has;

    mag_spin_lock(&t->lock);
    has = t->has_head && t->answer->fields;
    mag_spin_unlock(&t->lock);
    return has;
}

static bool has_bytes(struct mag_transfer *t)
{
    bool has;

    mag_spin_lock(&t->lock);
    has = t->in.len > 0;
    mag_spin_unlock(&t->lock);
    return has;
}

static int wait_for_response(struct mag_transfer *t)
{
    int rc;

    if (!t->is_stream && t->request.body_read == NULL)
        return wait_plain(t);
    rc = wait_for_it(t, t->is_stream ? has_head : never_holds);
    if (rc > 0)
        return 0;
    return rc < 0 && t->error.kind == MAG_HTTP_OK ? give_up(t, rc) : t->error.rc;
}

/* One attempt, with the permit. */
static int attempt(struct mag_transfer *t)
{
    int rc = mag_load_acquire(&t->pool->is_closing) ? -ECANCELED : mag_transfer_begin(t);

    if (rc < 0)
        return mag_http_fail(&t->error,
                             rc == -ECANCELED ? MAG_HTTP_CANCELED
                             : rc == -ENOMEM  ? MAG_HTTP_MEMORY
                                              : MAG_HTTP_OTHER,
                             rc, "cannot begin: %s", mag_err_text(rc));
    return wait_for_response(t);
}

static bool is_retried(const struct mag_transfer *t, unsigned n)
{
    return n < t->pool->o.connect_retries && t->request.body_read == NULL &&
           (t->error.kind == MAG_HTTP_CONNECT || t->error.kind == MAG_HTTP_CONNECT_TIMEOUT);
}

/* As it was before the attempt, whose driver has let go of it. */
static void begin_again(struct mag_transfer *t)
{
    mag_event_clear(&t->done);
    t->error = (struct mag_http_error){ .kind = MAG_HTTP_OK };
    t->is_taken = t->is_done = false;
    t->commands = 0;
    t->phase = MAG_HTTP_CONNECTING;
    t->n_sent = 0;
    t->n_uploaded = 0;
    t->failed_rc = 0;
}

static int perform(struct mag_transfer *t)
{
    mag_time pause = 0;
    int rc = attempt(t);

    for (unsigned n = 0; rc < 0 && is_retried(t, n); n++) {
        rc = mag_sleep(pause);
        if (rc < 0)
            return rc;
        pause = pause ? pause * 2 : MAG_SECOND / 2;
        begin_again(t);
        rc = attempt(t);
    }
    return rc;
}

/* ---- a whole request ------------------------------------------------------------------ */

static int explain(struct mag_transfer *t, int rc)
{
    struct mag_http_pool *pool = t->pool;

    mag_http_fail(&t->error, rc == -ECANCELED ? MAG_HTTP_CANCELED : MAG_HTTP_OTHER, rc, "%s",
                  mag_err_text(rc));
    t->error.rc = rc;
    if (t->request.error)
        *t->request.error = t->error;
    mag_spin_lock(&pool->lock);
    pool->last = t->error;
    mag_spin_unlock(&pool->lock);
    return rc;
}

/* *out is a transfer that goes on (a stream) or is done; < 0: it is gone. */
static int make(struct mag_transfer **out, struct mag_http_client *client,
                const struct mag_http_request *request, bool is_stream)
{
    struct mag_http_pool *pool = client ? client->private_ : NULL;
    struct mag_transfer *t;
    int rc;

    if (pool == NULL || request == NULL)
        return mag_misuse(-EINVAL, "a request without a client that is open, or without a request");
    if (mag_rt_self() == NULL)
        return mag_misuse(-ENXIO, "a request outside a task");
    if (mag_rt_self() != pool->rt)
        return mag_misuse(-EINVAL, "a client of another runtime");
    t = transfer_new(pool, request, is_stream);
    if (t == NULL)
        return -ENOMEM;
    set_times(t);
    rc = check_request(t);
    if (rc == 0 && (rc = take_permit(t)) == 0) {
        rc = perform(t);
        if (rc < 0 || !is_stream)
            mag_sem_release(&pool->permits);
    }
    *out = t;
    if (rc == 0)
        return 0;
    rc = explain(t, rc);
    transfer_free(t);
    return rc;
}

int mag_http_request(struct mag_http_client *client, const struct mag_http_request *request,
                     struct mag_http_response **out)
{
    struct mag_transfer *t;
    struct mag_http_answer *a;
    int rc;

    if (out == NULL)
        return mag_misuse(-EINVAL, "a request whose response nobody wants");
    *out = NULL;
    rc = make(&t, client, request, false);
    if (rc < 0)
        return rc;
    a = t->answer;
    t->answer = NULL;
    a->r.elapsed = mag_clock_now() - t->begun;
    mag_spin_lock(&a->pool->lock);
    mag_list_push_back(&a->pool->responses, &a->link);
    mag_spin_unlock(&a->pool->lock);
    *out = &a->r;
    transfer_free(t);
    return 0;
}

void mag_http_response_free(struct mag_http_response *r)
{
    struct mag_http_answer *a;

    if (r == NULL)
        return;
    a = mag_container_of(r, struct mag_http_answer, r);
    mag_spin_lock(&a->pool->lock);
    mag_list_remove(&a->link);
    mag_spin_unlock(&a->pool->lock);
    mag_http_answer_free(a);
}

const char *mag_http_response_header(const struct mag_http_response *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcasecmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    return NULL;
}

int mag_http_response_ok(const struct mag_http_response *r)
{
    return r->status < 400 ? 0 : -EREMOTEIO;
}

/* ---- the usual ones ------------------------------------------------------------------- */

static int simple(struct mag_http_client *client, const char *method, const char *url,
                  struct mag_http_response **out)
{
    return mag_http_request(client, &(struct mag_http_request){ .method = method, .url = url },
                            out);
}

static int with_body(struct mag_http_client *client, const char *method, const char *url,
                     const void *body, size_t len, const char *type, struct mag_http_response **out)
{
    struct mag_http_request r = { .method = method,
                                  .url = url,
                                  .body = body ? body : "",
                                  .body_len = body ? len : 0,
                                  .content_type = type };

    return mag_http_request(client, &r, out);
}

int mag_http_get(struct mag_http_client *client, const char *url, struct mag_http_response **out)
{
    return simple(client, NULL, url, out);
}

int mag_http_head(struct mag_http_client *client, const char *url, struct mag_http_response **out)
{
    return simple(client, "HEAD", url, out);
}

int mag_http_delete(struct mag_http_client *client, const char *url, struct mag_http_response **out)
{
    return simple(client, "DELETE", url, out);
}

int mag_http_post(struct mag_http_client *client, const char *url, const void *body, size_t len,
                  const char *content_type, struct mag_http_response **out)
{
    return with_body(client, "POST", url, body, len, content_type, out);
}

int mag_http_put(struct mag_http_client *client, const char *url, const void *body, size_t len,
                 const char *content_type, struct mag_http_response **out)
{
    return with_body(client, "PUT", url, body, len, content_type, out);
}

int mag_http_patch(struct mag_http_client *client, const char *url, const void *body, size_t len,
                   const char *content_type, struct mag_http_response **out)
{
    return with_body(client, "PATCH", url, body, len, content_type, out);
}

/* ---- coroutines ----------------------------------------------------------------------- */

static int get_body(void *frame, void *result)
{
    struct mag_http_get_co *co = frame;

    return mag_http_get(co->private_client, co->private_url, result);
}

static int request_body(void *frame, void *result)
{
    struct mag_http_request_co *co = frame;

    return mag_http_request(co->private_client, co->private_request, result);
}

static const struct mag_co_type get_type = {
    .name = "mag_http_get_co",
    .body = get_body,
    .frame_bytes = sizeof(struct mag_http_get_co),
    .result_offset = offsetof(struct mag_http_get_co, value),
    .result_bytes = sizeof(struct mag_http_response *),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "mag_http_get_co" },
};

static const struct mag_co_type request_type = {
    .name = "mag_http_request_co",
    .body = request_body,
    .frame_bytes = sizeof(struct mag_http_request_co),
    .result_offset = offsetof(struct mag_http_request_co, value),
    .result_bytes = sizeof(struct mag_http_response *),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "mag_http_request_co" },
};

struct mag_http_get_co *mag_http_get_co(struct mag_http_client *client, const char *url)
{
    struct mag_http_get_co *co = mag_co_new(&get_type, __builtin_return_address(0));

    if (co) {
        co->private_client = client;
        co->private_url = url;
    }
    return co;
}

struct mag_http_request_co *mag_http_request_co(struct mag_http_client *client,
                                                const struct mag_http_request *request)
{
    struct mag_http_request_co *co = mag_co_new(&request_type, __builtin_return_address(0));

    if (co) {
        co->private_client = client;
        co->private_request = request;
    }
    return co;
}

/* ---- streams -------------------------------------------------------------------------- */

struct mag_http_stream {
    struct mag_transfer t;
};

static struct mag_transfer *transfer_of(const struct mag_http_stream *s)
{
    return (struct mag_transfer *)&s->t;
}

int mag_http_stream_open(struct mag_http_stream **out, struct mag_http_client *client,
                         const struct mag_http_request *request)
{
    struct mag_transfer *t = NULL;
    int rc;

    if (out == NULL)
        return mag_misuse(-EINVAL, "a stream that nobody wants");
    *out = NULL;
    rc = make(&t, client, request, true);
    if (rc == 0)
        *out = mag_container_of(t, struct mag_http_stream, t);
    return rc;
}

const struct mag_http_response *mag_http_stream_response(const struct mag_http_stream *s)
{
    return &s->t.answer->r;
}

/* Bytes, and whether libcurl is to go on bringing more. */
static size_t get_bytes(struct mag_transfer *t, void *buf, size_t n, bool *must_go_on)
{
    mag_spin_lock(&t->lock);
    n = mag_http_ring_get(&t->in, buf, n);
    *must_go_on = t->is_in_paused && t->in.len <= t->in.room / 2;
    if (*must_go_on)
        t->is_in_paused = false;
    mag_spin_unlock(&t->lock);
    return n;
}

int mag_http_stream_read(struct mag_http_stream *s, void *buf, size_t n)
{
    struct mag_transfer *t = transfer_of(s);
    bool must_go_on;
    int rc;

    if (n == 0)
        return 0;
    rc = wait_for_it(t, has_bytes);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return t->error.rc;
    n = get_bytes(t, buf, n < INT32_MAX ? n : INT32_MAX, &must_go_on);
    if (must_go_on)
        mag_transfer_command(t, MAG_COMMAND_GO_ON);
    return (int)n;
}

void mag_http_stream_error(const struct mag_http_stream *s, struct mag_http_error *out)
{
    if (mag_event_is_set(&s->t.done))
        *out = s->t.error;
    else
        *out = (struct mag_http_error){ .kind = MAG_HTTP_OK };
}

void mag_http_stream_close(struct mag_http_stream *s)
{
    struct mag_transfer *t;
    struct mag_http_pool *pool;

    if (s == NULL)
        return;
    t = transfer_of(s);
    pool = t->pool;
    mag_transfer_cancel(t);
    wait_done(t);
    mag_sem_release(&pool->permits);
    transfer_free(t);
}
