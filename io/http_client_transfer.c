/* SPDX-License-Identifier: MIT */
/*
 * http_client_transfer.c - what libcurl's callbacks do: collect what comes, hand out what goes
 *
 *      plain request    head and body grow in the answer; its caller sees it when it is done
 *      stream           the body goes through a ring of bounded size; when a piece does not fit,
 *                       libcurl is told to pause, and keeps it
 *      body_read        the request's body comes through another ring, which the caller's task
 *                       fills: so the user's function may suspend
 *
 * A callback never suspends, and never waits but for a lock that is held for a copy.  It notes the
 * reason before it tells libcurl to give up.
 *
 * Which head is the last.  Redirects that are followed, 100 Continue and challenges come with heads
 * of their own.  A head after which libcurl may go on by itself is not taken for the last until a
 * piece of body comes, for libcurl hands out the body of the last answer only.
 *
 * Limits of time.  libcurl's are one for connecting and one for all; read and write are kept here:
 * by what was the last sign of life, and not while a pause of our own is the reason.
 */
#include "http_client_parts.h"

#include "mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- rings ---------------------------------------------------------------------------- */

int mag_http_ring_init(struct mag_http_ring *r, size_t room)
{
    r->ptr = mag_mem_alloc(room);
    r->room = r->ptr ? room : 0;
    r->begin = r->len = 0;
    return r->ptr ? 0 : -ENOMEM;
}

/* The part from `at' on that is in one piece. */
static size_t piece(const struct mag_http_ring *r, size_t at, size_t n)
{
    return n < r->room - at ? n : r->room - at;
}

size_t mag_http_ring_put(struct mag_http_ring *r, const char *bytes, size_t n)
{
    size_t at = r->begin + r->len < r->room ? r->begin + r->len : r->begin + r->len - r->room;
    size_t first;

    n = n < r->room - r->len ? n : r->room - r->len;
    if (n == 0)
        return 0;
    first = piece(r, at, n);
    memcpy(r->ptr + at, bytes, first);
    memcpy(r->ptr, bytes + first, n - first);
    r->len += n;
    return n;
}

size_t mag_http_ring_get(struct mag_http_ring *r, char *bytes, size_t n)
{
    size_t first;

    n = n < r->len ? n : r->len;
    if (n == 0)
        return 0;
    first = piece(r, r->begin, n);
    memcpy(bytes, r->ptr + r->begin, first);
    memcpy(bytes + first, r->ptr, n - first);
    r->begin = r->begin + n < r->room ? r->begin + n : r->begin + n - r->room;
    r->len -= n;
    return n;
}

/* ---- answers -------------------------------------------------------------------------- */

struct mag_http_answer *mag_http_answer_new(struct mag_http_pool *pool)
{
    struct mag_http_answer *a = mag_mem_zalloc(sizeof *a);

    if (a) {
        a->pool = pool;
        mag_list_init(&a->link);
        a->r.body.ptr = (char *)"";
    }
    return a;
}

void mag_http_answer_free(struct mag_http_answer *a)
{
    if (a == NULL)
        return;
    if (a->body_room) {
        mag_fetch_sub(&a->pool->n_kept, a->body_room);
        mag_mem_free(a->r.body.ptr);
    }
    mag_mem_free(a->head);
    mag_mem_free(a->fields);
    mag_mem_free(a->url);
    mag_mem_free(a);
}

static int grow_head(struct mag_transfer *t, size_t n)
{
    struct mag_http_answer *a = t->answer;
    size_t room = a->head_room ? a->head_room : 512;
    char *p;

    if (a->head_len + n > MAG_HTTP_HEAD_MAX)
        return mag_http_fail(&t->error, MAG_HTTP_TOO_BIG, -EFBIG,
                             "more than %d bytes of header fields", (int)MAG_HTTP_HEAD_MAX);
    while (room < a->head_len + n)
        room *= 2;
    if (room == a->head_room)
        return 0;
    p = mag_mem_realloc(a->head, room);
    if (p == NULL)
        return mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for header fields");
    a->head = p;
    a->head_room = room;
    return 0;
}

/* The room that a body is to have: what is announced, else twice as much as before. */
static size_t body_room(const struct mag_transfer *t, size_t need)
{
    size_t room = t->answer->body_room ? t->answer->body_room * 2 : 4096;
    curl_off_t announced = 0;

    if (t->answer->body_room == 0 &&
        curl_easy_getinfo(t->easy->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced) ==
            CURLE_OK &&
        announced > 0 && (uint64_t)announced <= t->max_body)
        room = (size_t)announced + 1;
    return room < need ? need : room;
}

static int grow_body(struct mag_transfer *t, size_t n)
{
    struct mag_http_answer *a = t->answer;
    struct mag_http_pool *pool = t->pool;
    size_t need = a->r.body.len + n + 1, room;
    char *p;

    if (need <= a->body_room)
        return 0;
    room = body_room(t, need);
    if (mag_fetch_add(&pool->n_kept, room - a->body_room) + room - a->body_room >
        pool->o.max_kept) {
        mag_fetch_sub(&pool->n_kept, room - a->body_room);
        return mag_http_fail(&t->error, MAG_HTTP_KEPT, -ENOBUFS,
                             "responses that were not freed hold more than %llu bytes",
                             (unsigned long long)pool->o.max_kept);
    }
    p = mag_mem_realloc(a->body_room ? a->r.body.ptr : NULL, room);
    if (p == NULL) {
        mag_fetch_sub(&pool->n_kept, room - a->body_room);
        return mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for the body");
    }
    a->r.body.ptr = p;
    a->body_room = room;
    return 0;
}

/* ---- the head ------------------------------------------------------------------------- */

static void wake(struct mag_transfer *t)
{
    mag_event_set(&t->wake);
}

static void alive(struct mag_transfer *t)
{
    t->active_at = t->driver->now;
}

static void begin_head(struct mag_transfer *t, const char *line, size_t n)
{
    const char *space = memchr(line, ' ', n);

    t->answer->head_len = 0;
    t->answer->r.n_headers = 0;
    t->answer->r.status = space ? atoi(space) : 0;
    t->is_redirection = false;
}

/* A line that begins with white space goes on with the last one. */
static int fold(struct mag_transfer *t, const char *text, size_t n)
{
    struct mag_http_answer *a = t->answer;

    if (a->r.n_headers == 0 || grow_head(t, n + 2) < 0)
        return a->r.n_headers ? -ENOMEM : 0;
    a->head[a->head_len - 1] = ' ';
    memcpy(a->head + a->head_len, text, n);
    a->head[a->head_len + n] = '\0';
    a->head_len += n + 1;
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void trim(const char **text, size_t *n)
{
    while (*n && is_blank(**text))
        (*text)++, (*n)--;
    while (*n && is_blank((*text)[*n - 1]))
        (*n)--;
}

static int add_field(struct mag_transfer *t, const char *line, size_t n)
{
    struct mag_http_answer *a = t->answer;
    const char *colon = memchr(line, ':', n), *value;
    size_t n_name, n_value;

    if (is_blank(*line)) {
        trim(&line, &n);
        return fold(t, line, n);
    }
    if (colon == NULL)
        return 0;
    n_name = (size_t)(colon - line);
    value = colon + 1;
    n_value = n - n_name - 1;
    trim(&line, &n_name);
    trim(&value, &n_value);
    if (grow_head(t, n_name + n_value + 2) < 0)
        return t->error.rc;
    if (n_name == 8 && strncasecmp(line, "location", 8) == 0)
        t->is_redirection = true;
    memcpy(a->head + a->head_len, line, n_name);
    a->head[a->head_len + n_name] = '\0';
    memcpy(a->head + a->head_len + n_name + 1, value, n_value);
    a->head_len += n_name + n_value + 2;
    a->head[a->head_len - 1] = '\0';
    a->r.n_headers++;
    return 0;
}

/* Whether libcurl may go on by itself after this head. */
static bool is_perhaps_not_last(const struct mag_transfer *t)
{
    int status = t->answer->r.status;

    return status < 200 ||
           (status < 400 && status >= 300 && t->is_redirection && t->is_following) ||
           status == 401 || status == 407;
}

int mag_transfer_finish_head(struct mag_transfer *t)
{
    struct mag_http_answer *a = t->answer;
    CURL *curl = t->easy->curl;
    char *at = a->head, *url = NULL;
    long version = 0, n_redirects = 0;

    if (a->fields)
        return 0;
    a->fields = mag_mem_alloc((a->r.n_headers + 1) * sizeof *a->fields);
    curl_easy_getinfo(curl, CURLINFO_EFFECTIVE_URL, &url);
    a->url = mag_mem_alloc(url ? strlen(url) + 1 : 1);
    if (a->fields == NULL || a->url == NULL)
        return mag_http_fail(&t->error, MAG_HTTP_MEMORY, -ENOMEM, "no memory for header fields");
    strcpy(a->url, url ? url : "");
    for (size_t i = 0; i < a->r.n_headers; i++) {
        a->fields[i].name = at;
        a->fields[i].value = at + strlen(at) + 1;
        at = (char *)a->fields[i].value + strlen(a->fields[i].value) + 1;
    }
    a->fields[a->r.n_headers] = (struct mag_http_field){ NULL, NULL };
    curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &version);
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_COUNT, &n_redirects);
    a->r.url = a->url;
    a->r.headers = a->fields;
    a->r.n_redirects = (unsigned)n_redirects;
    a->r.version = version == CURL_HTTP_VERSION_1_0   ? 10
                   : version == CURL_HTTP_VERSION_2_0 ? 20
                                                      : 11;
    a->r.elapsed = t->driver->now - t->begun;
    return 0;
}

/* A stream's caller gets it now. */
static int head_is_last(struct mag_transfer *t)
{
    int rc = t->is_stream ? mag_transfer_finish_head(t) : 0;

    if (rc < 0)
        return rc;
    mag_spin_lock(&t->lock);
    t->has_head = true;
    mag_spin_unlock(&t->lock);
    if (t->is_stream)
        wake(t);
    return 0;
}

size_t mag_transfer_on_header(char *line, size_t size, size_t n, void *easy)
{
    struct mag_transfer *t = ((struct mag_http_easy *)easy)->transfer;
    int rc = 0;

    (void)size;
    alive(t);
    t->phase = MAG_HTTP_RECEIVING;
    if (t->has_head && (t->is_stream || n < 5 || memcmp(line, "HTTP/", 5) != 0))
        return n; /* a trailer */
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0)
        begin_head(t, line, n);
    else if (n <= 2 && is_blank(*line))
        rc = is_perhaps_not_last(t) ? 0 : head_is_last(t);
    else
        rc = add_field(t, line, n);
    return rc < 0 ? 0 : n;
}

/* ---- the body ------------------------------------------------------------------------- */

static int collect(struct mag_transfer *t, const char *bytes, size_t n)
{
    struct mag_http_answer *a = t->answer;

    if (n > t->max_body - a->r.body.len)
        return mag_http_fail(&t->error, MAG_HTTP_TOO_BIG, -EFBIG, "more than %llu bytes of body",
                             (unsigned long long)t->max_body);
    if (grow_body(t, n) < 0)
        return t->error.rc;
    memcpy(a->r.body.ptr + a->r.body.len, bytes, n);
    a->r.body.len += n;
    a->r.body.ptr[a->r.body.len] = '\0';
    return 0;
}

static bool put_or_pause(struct mag_transfer *t, const char *bytes, size_t n)
{
    bool fits;

    mag_spin_lock(&t->lock);
    fits = n <= t->in.room - t->in.len;
    if (fits)
        mag_http_ring_put(&t->in, bytes, n);
    t->is_in_paused = !fits;
    mag_spin_unlock(&t->lock);
    wake(t);
    return fits;
}

size_t mag_transfer_on_body(char *bytes, size_t size, size_t n, void *easy)
{
    struct mag_transfer *t = ((struct mag_http_easy *)easy)->transfer;

    (void)size;
    alive(t);
    if (!t->has_head && head_is_last(t) < 0)
        return 0;
    if (!t->is_stream)
        return collect(t, bytes, n) < 0 ? 0 : n;
    if (n > t->max_body) {
        mag_http_fail(&t->error, MAG_HTTP_TOO_BIG, -EFBIG, "more body than was asked for");
        return 0;
    }
    if (!put_or_pause(t, bytes, n))
        return CURL_WRITEFUNC_PAUSE;
    t->max_body -= n;
    return n;
}

/* ---- the request's body --------------------------------------------------------------- */

static size_t upload_bytes(struct mag_transfer *t, char *buf, size_t n)
{
    size_t left = t->request.body_len - t->n_sent;

    n = n < left ? n : left;
    if (n)
        memcpy(buf, (const char *)t->request.body + t->n_sent, n);
    t->n_sent += n;
    return n;
}

size_t mag_transfer_on_upload(char *buf, size_t size, size_t n, void *easy)
{
    struct mag_transfer *t = ((struct mag_http_easy *)easy)->transfer;
    bool is_paused;

    n *= size;
    alive(t);
    if (t->request.body_read == NULL)
        return upload_bytes(t, buf, n);
    mag_spin_lock(&t->lock);
    n = mag_http_ring_get(&t->out, buf, n);
    is_paused = t->is_out_paused = n == 0 && !t->is_out_over;
    mag_spin_unlock(&t->lock);
    t->n_sent += n;
    wake(t); /* there is room */
    return is_paused ? CURL_READFUNC_PAUSE : n;
}

int mag_transfer_on_seek(void *easy, curl_off_t offset, int whence)
{
    struct mag_transfer *t = ((struct mag_http_easy *)easy)->transfer;

    if (whence != SEEK_SET || offset < 0)
        return CURL_SEEKFUNC_FAIL;
    if (t->request.body_read)
        return (uint64_t)offset == t->n_sent ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
    if ((uint64_t)offset > t->request.body_len)
        return CURL_SEEKFUNC_FAIL;
    t->n_sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* Asked for only with requests that have a body: when bytes of it go. */
int mag_transfer_on_progress(void *easy, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                             curl_off_t ul)
{
    struct mag_transfer *t = ((struct mag_http_easy *)easy)->transfer;

    (void)dl_total, (void)dl;
    if (t->phase != MAG_HTTP_SENDING)
        return 0;
    if (ul > 0 && ul == ul_total) {
        t->phase = MAG_HTTP_RECEIVING;
        alive(t);
    } else if (ul != t->n_uploaded) {
        t->n_uploaded = ul;
        alive(t);
    }
    return 0;
}

int mag_transfer_on_connected(void *easy, char *ip, char *local_ip, int port, int local_port)
{
    struct mag_transfer *t = ((struct mag_http_easy *)easy)->transfer;

    (void)ip, (void)local_ip, (void)port, (void)local_port;
    t->phase = t->has_body ? MAG_HTTP_SENDING : MAG_HTTP_RECEIVING;
    alive(t);
    return CURL_PREREQFUNC_OK;
}

/* ---- limits of time ------------------------------------------------------------------- */

static bool is_paused(struct mag_transfer *t)
{
    bool is;

    mag_spin_lock(&t->lock);
    is = t->is_in_paused || t->is_out_paused;
    mag_spin_unlock(&t->lock);
    return is;
}

static mag_time later(mag_time when, mag_time duration)
{
    return duration < MAG_NEVER - when ? when + duration : MAG_NEVER;
}

mag_time mag_transfer_deadline(struct mag_transfer *t)
{
    mag_time idle = t->phase == MAG_HTTP_SENDING ? t->times.write : t->times.read;
    mag_time due = MAG_NEVER;

    if (t->phase != MAG_HTTP_CONNECTING) {
        if (is_paused(t))
            alive(t);
        due = later(t->active_at, idle);
    }
    return due < t->deadline ? due : t->deadline;
}

int mag_transfer_fail_late(struct mag_transfer *t)
{
    if (t->driver->now >= t->deadline)
        return mag_http_fail(&t->error, MAG_HTTP_TOTAL_TIMEOUT, -ETIMEDOUT,
                             "not complete after %.1f s", mag_seconds(t->times.total));
    if (t->phase == MAG_HTTP_SENDING)
        return mag_http_fail(&t->error, MAG_HTTP_WRITE_TIMEOUT, -ETIMEDOUT,
                             "nothing could be sent for %.1f s", mag_seconds(t->times.write));
    return mag_http_fail(&t->error, MAG_HTTP_READ_TIMEOUT, -ETIMEDOUT,
                         "nothing has come for %.1f s", mag_seconds(t->times.read));
}
