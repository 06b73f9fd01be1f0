/* SPDX-License-Identifier: MIT */
#ifndef MAG_HTTP_CLIENT_PARTS_H
#define MAG_HTTP_CLIENT_PARTS_H
/*
 * http_client_parts.h - what the parts of the HTTP client share
 *
 *      pool       a client: options, permits, cookies, responses           http_client.c
 *      driver     a worker's share of it: a multi handle, and the task     http_client_driver.c
 *                 that alone calls it
 *      transfer   one request under way, between its caller and a driver   http_client_transfer.c
 *      easy       a handle of libcurl's, used again and again              http_client_setup.c
 *
 * Invariants
 *   1. libcurl's handles are touched by their driver's task only, which is pinned to its worker and
 *      suspends in none of libcurl's calls and callbacks.
 *   2. A transfer is the caller's until it is queued, and again from the moment its `done' has been
 *      waited for; in between the driver may use whatever the request points to.
 *   3. Locks are held for a few instructions (the buffers': for a copy), by who suspends in none.
 */
#include <magpie/http_client.h>
#include <magpie/sync.h>

#include "atomic.h"
#include "list.h"

#include <curl/curl.h>
#include <pthread.h>

enum {
    MAG_HTTP_HEAD_MAX = 256 * 1024, /* bytes of header fields: TOO_BIG beyond */
    MAG_HTTP_UPLOAD_BYTES = 64 * 1024,
};

struct mag_http_pool;

/* Bytes between two; a ring. */
struct mag_http_ring {
    char *ptr;
    size_t room, begin, len;
};

/* A handle, and what its callbacks are told. */
struct mag_http_easy {
    CURL *curl;
    struct mag_transfer *transfer;
    struct mag_http_easy *next;
    struct curl_slist *headers;
    curl_mime *mime;
    CURLU *url;
    char *form;
    bool is_plain; /* it is set up for GETs without anything of their own */
    char error[CURL_ERROR_SIZE];
};

/* A driver: all but what is marked is its task's. */
struct mag_driver {
    struct mag_http_pool *pool; /* [const] */
    unsigned index;             /* [const] of its worker */
    struct mag_spin lock;
    struct mag_list inbox;            /* [lock] transfers with commands */
    bool is_asleep, is_over;          /* [lock] */
    bool is_stopping;                 /* [lock] */
    mag_atomic(uint32_t) is_open;     /* [starter] */
    mag_atomic(uint32_t) n_transfers; /* [any] queued and active: a hint */
    void *task;                       /* [starter, closer] */
    CURLM *multi;
    int epoll_fd, wake_fd;
    mag_time now, curl_due, check_due;
    struct mag_list active;
    unsigned n_active;
    struct mag_http_easy *idle;
    unsigned n_idle;
    bool has_failed; /* a transfer of which libcurl's socket could not be watched */
};

struct mag_http_pool {
    struct mag_http_client_options o; /* [const] with its defaults filled in */
    void *strings;                    /* [const] a list of what o points to */
    struct mag_rt *rt;                /* [const] */
    unsigned n_drivers;               /* [const] */
    struct mag_driver *drivers;       /* [const] one for each worker */
    struct mag_sem permits;
    struct mag_mutex starting; /* who opens a driver */
    CURLSH *share;             /* [const] cookies, names, TLS sessions */
    pthread_mutex_t share_locks[CURL_LOCK_DATA_LAST];
    mag_atomic(uint32_t) n_refs;     /* [any] */
    mag_atomic(uint32_t) is_closing; /* [any] */
    mag_atomic(uint64_t) n_kept;     /* [any] bytes of responses */
    struct mag_spin lock;
    struct mag_list responses;  /* [lock] */
    struct mag_http_error last; /* [lock] */
};

/* A response, as it is kept. */
struct mag_http_answer {
    struct mag_http_response r;
    struct mag_list link; /* [pool->lock] */
    struct mag_http_pool *pool;
    char *head; /* name, zero, value, zero, ... */
    size_t head_len, head_room;
    size_t body_room;
    struct mag_http_field *fields;
    char *url;
};

enum mag_http_phase { MAG_HTTP_CONNECTING, MAG_HTTP_SENDING, MAG_HTTP_RECEIVING };

enum {
    MAG_COMMAND_START = 1,
    MAG_COMMAND_CANCEL = 2,
    MAG_COMMAND_GO_ON = 4, /* look whether what was paused is to go on */
};

/* Times of a request: durations, none of them 0. */
struct mag_http_times {
    mag_time connect, read, write, pool;
    mag_time total; /* MAG_NEVER: none */
};

struct mag_transfer {
    struct mag_http_pool *pool;      /* [const] */
    struct mag_http_request request; /* [const] */
    struct mag_http_times times;     /* [const] */
    mag_time begun, deadline;        /* [const] */
    uint64_t max_body;               /* [const] */
    bool is_stream, is_following;    /* [const] */
    struct mag_driver *driver;       /* [const] */
    struct mag_list command;         /* [driver->lock] */
    unsigned commands;               /* [driver->lock] */
    bool is_taken, is_done;          /* [driver->lock] */

    struct mag_list link; /* [driver] */
    struct mag_http_easy *easy;
    struct mag_http_answer *answer; /* [driver], then [caller] */
    enum mag_http_phase phase;
    mag_time active_at;  /* of the last sign of life */
    uint64_t n_sent;     /* bytes of body that libcurl has taken */
    int64_t n_uploaded;  /* and sent, as it says */
    int failed_rc;       /* why its sockets cannot be watched */
    bool has_body;       /* one is sent */
    bool is_redirection; /* the head that is coming is perhaps not the last */

    struct mag_spin lock;
    struct mag_http_ring in, out;     /* [lock] of a stream; of body_read */
    bool is_in_paused, is_out_paused; /* [lock] */
    bool is_out_over;                 /* [lock] */
    bool has_head;                    /* [lock] */

    struct mag_event wake; /* something has changed, of a stream or a body_read */
    struct mag_event done; /* the driver has let go of it */
    struct mag_http_error error;
};

/* ---- http_client_error.c -------------------------------------------------------------- */

/* Fills in the error, unless there is one already.  Returns its rc. */
int mag_http_fail(struct mag_http_error *e, enum mag_http_kind kind, int rc, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

/* What libcurl says. */
int mag_http_fail_curl(struct mag_transfer *t, CURLcode code);

/* ---- http_client_setup.c -------------------------------------------------------------- */

/* A new handle; NULL: no memory. */
struct mag_http_easy *mag_http_easy_new(void);
void mag_http_easy_free(struct mag_http_easy *e);

/* Sets it up for a transfer: 0, or the transfer's error. */
int mag_http_easy_setup(struct mag_http_easy *e, struct mag_transfer *t);

/* Frees what the transfer needed. */
void mag_http_easy_clear(struct mag_http_easy *e);

/* ---- http_client_transfer.c ----------------------------------------------------------- */

size_t mag_transfer_on_header(char *line, size_t size, size_t n, void *easy);
size_t mag_transfer_on_body(char *bytes, size_t size, size_t n, void *easy);
size_t mag_transfer_on_upload(char *buf, size_t size, size_t n, void *easy);
int mag_transfer_on_seek(void *easy, curl_off_t offset, int whence);
int mag_transfer_on_progress(void *easy, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                             curl_off_t ul);
int mag_transfer_on_connected(void *easy, char *ip, char *local_ip, int port, int local_port);

/* When it is late, if nothing happens; and what it is then. */
mag_time mag_transfer_deadline(struct mag_transfer *t);
int mag_transfer_fail_late(struct mag_transfer *t);

/* Fills in the response's status, fields, ... ; 0 or -ENOMEM. */
int mag_transfer_finish_head(struct mag_transfer *t);

/* An answer to collect what comes. */
struct mag_http_answer *mag_http_answer_new(struct mag_http_pool *pool);
void mag_http_answer_free(struct mag_http_answer *a);

int mag_http_ring_init(struct mag_http_ring *r, size_t room);
/* How many of n bytes there was room for, or there were. */
size_t mag_http_ring_put(struct mag_http_ring *r, const char *bytes, size_t n);
size_t mag_http_ring_get(struct mag_http_ring *r, char *bytes, size_t n);

/* ---- http_client_driver.c ------------------------------------------------------------- */

/* Hands the transfer to a driver: 0, and `done' will be set; or why not.  Suspends. */
int mag_transfer_begin(struct mag_transfer *t);

/* Asks the driver for that; without effect on one that is done. */
void mag_transfer_command(struct mag_transfer *t, unsigned commands);

/* Ends it: `done' will be set soon. */
void mag_transfer_cancel(struct mag_transfer *t);

bool mag_transfer_is_done(struct mag_transfer *t);

void mag_driver_init(struct mag_driver *d, struct mag_http_pool *pool, unsigned index);

/* Ends all its transfers and its task.  Suspends; the caller is shielded. */
void mag_driver_close(struct mag_driver *d);

#endif
