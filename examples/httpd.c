/* SPDX-License-Identifier: MIT */
/*
 * httpd.c - an HTTP server for the files of a directory
 *
 *      httpd [-a ADDRESS] [-p PORT] [-j WORKERS] [-l LOG] [--tls CERT KEY] [--drain SECONDS] ROOT
 *      httpd --help
 *
 * DESCRIPTION
 *     Serves the regular files below ROOT at ADDRESS (127.0.0.1; any name or address, `*' for
 *     all) and PORT (8080; 0: any), and says where.  A directory is its index.html; there are no
 *     listings.  GET and HEAD; ranges (one at a time), If-Range, If-None-Match and
 *     If-Modified-Since are understood, and types are told from names.
 *
 *     Nothing outside of ROOT is served: `..' above it is refused with 400, and a symbolic link
 *     that leads out, or is absolute, with 404: the kernel follows names beneath ROOT only
 *     (openat2(2), RESOLVE_BENEATH; Linux 5.6).
 *
 *     -j       worker threads (one for each CPU)
 *     -l       appends a line for each request to LOG (`-': standard output), in the common log
 *              format, written once a second
 *     --tls    HTTPS, by the certificate chain and the key in these files
 *     --drain  how long a stop waits for requests that are being answered (10)
 *
 *     SIGTERM or Ctrl-C ends it gracefully: it accepts no more, answers what has come, closes,
 *     and is gone after so many seconds at most.
 *
 * EXIT STATUS
 *     0; 1 if it could not start, or had to cut connections off; 2 for wrong usage.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/async.h>
#include <magpie/http_server.h>
#include <magpie/signal.h>
#include <magpie/tls.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, PATH_BYTES = 4096 };

struct httpd {
    const char *address, *root, *log_path, *cert, *key;
    long port, workers, drain_s;
    int root_fd;
    FILE *log;
};

/* ---- opening beneath the root ------------------------------------------------------------ */

struct opening {
    int root_fd;
    const char *path;
    uint64_t resolve;
};

static int open_beneath(void *arg)
{
    const struct opening *o = arg;
    struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                            .resolve = o->resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    long fd = syscall(SYS_openat2, o->root_fd, o->path, &how, sizeof how);

    return fd < 0 ? -errno : (int)fd;
}

/* On the spot if the kernel knows the name already, else in a thread that may wait for a disk. */
static int open_file(const struct httpd *h, const char *path, struct mag_file *f,
                     struct mag_file_stat *st)
{
    struct opening o = { h->root_fd, path, RESOLVE_CACHED };
    int rc = open_beneath(&o);

    if (rc == -EAGAIN || rc == -EINVAL) {
        o.resolve = 0;
        rc = mag_to_thread(open_beneath, &o);
    }
    if (rc < 0)
        return rc;
    rc = mag_file_from_fd(f, rc);
    if (rc == 0 && (rc = mag_file_stat(f, st)) < 0)
        mag_file_close(f);
    return rc;
}

/* ---- what a file is ------------------------------------------------------------------------ */

static const char *type_of(const char *path)
{
    static const char *const types[][2] = {
        { "html", "text/html; charset=utf-8" },
        { "htm", "text/html; charset=utf-8" },
        { "txt", "text/plain; charset=utf-8" },
        { "md", "text/markdown; charset=utf-8" },
        { "css", "text/css; charset=utf-8" },
        { "js", "text/javascript; charset=utf-8" },
        { "mjs", "text/javascript; charset=utf-8" },
        { "json", "application/json" },
        { "xml", "application/xml" },
        { "csv", "text/csv; charset=utf-8" },
        { "svg", "image/svg+xml" },
        { "png", "image/png" },
        { "jpg", "image/jpeg" },
        { "jpeg", "image/jpeg" },
        { "gif", "image/gif" },
        { "webp", "image/webp" },
        { "ico", "image/x-icon" },
        { "pdf", "application/pdf" },
        { "gz", "application/gzip" },
        { "zip", "application/zip" },
        { "tar", "application/x-tar" },
        { "wasm", "application/wasm" },
        { "woff2", "font/woff2" },
        { "mp3", "audio/mpeg" },
        { "mp4", "video/mp4" },
        { "webm", "video/webm" },
    };
    const char *dot = strrchr(path, '.');

    if (dot && strchr(dot, '/') == NULL)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            if (strcasecmp(dot + 1, types[i][0]) == 0)
                return types[i][1];
    return "application/octet-stream";
}

static void date_of(char *buf, size_t room, time_t second)
{
    struct tm tm;

    strftime(buf, room, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&second, &tm));
}

/* What a client may have heard of a file before. */
struct version {
    char etag[48], date[32];
    time_t modified;
};

static void version_of(struct version *v, const struct mag_file_stat *st)
{
    v->modified = (time_t)(st->modified_ns / MAG_SECOND);
    snprintf(v->etag, sizeof v->etag, "\"%llx-%llx\"", (unsigned long long)st->size,
             (unsigned long long)st->modified_ns);
    date_of(v->date, sizeof v->date, v->modified);
}

/* Whether the client has this version already. */
static bool is_known(const struct mag_http_exchange *x, const struct version *v)
{
    const char *tags = mag_http_header(x, "If-None-Match");
    const char *since = mag_http_header(x, "If-Modified-Since");
    struct tm tm = { 0 };

    if (tags)
        return strcmp(tags, "*") == 0 || strstr(tags, v->etag) != NULL;
    return since && strptime(since, "%a, %d %b %Y %H:%M:%S GMT", &tm) && v->modified <= timegm(&tm);
}

/* ---- ranges ---------------------------------------------------------------------------------- */

static bool number(const char **p, uint64_t *n)
{
    char *end;

    if (**p < '0' || **p > '9')
        return false;
    errno = 0;
    *n = strtoull(*p, &end, 10);
    *p = end;
    return errno == 0;
}

/* The bytes asked for: 206, of a file of that size; 200: all of it; 416: none of these exist. */
static int range_of(const struct mag_http_exchange *x, const struct version *v, uint64_t size,
                    uint64_t *first, uint64_t *n)
{
    const char *p = mag_http_header(x, "Range"), *same = mag_http_header(x, "If-Range");
    uint64_t last = UINT64_MAX;
    bool is_tail;

    *first = 0;
    *n = size;
    if (p == NULL || strncasecmp(p, "bytes=", 6) != 0 ||
        (same && strcmp(same, v->etag) != 0 && strcmp(same, v->date) != 0))
        return 200;
    p += 6;
    is_tail = *p == '-';
    if ((!is_tail && !number(&p, first)) || *p++ != '-')
        return 200;
    if ((is_tail || *p) && !number(&p, &last))
        return 200;
    if (*p != '\0' || (!is_tail && last < *first))
        return 200; /* several, or nonsense: may be ignored */
    if (*first >= size || (is_tail && last == 0))
        return 416;
    if (is_tail) {
        *first = last < size ? size - last : 0;
        last = size - 1;
    }
    *n = (last < size ? last + 1 : size) - *first;
    return 206;
}

/* ---- answers -------------------------------------------------------------------------------- */

static int say(struct mag_http_exchange *x, int status, const struct mag_http_field *field)
{
    const struct mag_http_field fields[] = { { "Content-Type", "text/plain; charset=utf-8" },
                                             field ? *field : (struct mag_http_field){ 0 } };
    char text[64];
    int n = snprintf(text, sizeof text, "%d %s\n", status, mag_http_status_text(status));

    return mag_http_respond(x, status, fields, field ? 2 : 1, text, (size_t)n);
}

static int say_error(struct mag_http_exchange *x, int rc)
{
    switch (rc) {
    case -ECANCELED:
        return rc;
    case -EACCES:
    case -EPERM:
        return say(x, 403, NULL);
    case -EMFILE:
    case -ENFILE:
    case -ENOMEM:
        return say(x, 503, NULL);
    case -EIO:
    case -ENOSYS:
        return say(x, 500, NULL);
    default:
        return say(x, 404, NULL);
    }
}

/* To the same name with a slash: relative links in the index need it. */
static int redirect(struct mag_http_exchange *x)
{
    char location[3 * PATH_BYTES + 2], *p = location;

    for (const char *s = x->path; *s; s++) {
        bool is_plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
                        (*s >= '0' && *s <= '9') || strchr("/-._~", *s);
        p += sprintf(p, is_plain ? "%c" : "%%%02X", (unsigned char)*s);
    }
    strcpy(p, "/");
    return say(x, 301, &(struct mag_http_field){ "Location", location });
}

static int send_contents(struct mag_http_exchange *x, const char *path, struct mag_file *f,
                         const struct mag_file_stat *st)
{
    struct version v;
    char range[80];
    uint64_t first, n;
    int status, rc;

    version_of(&v, st);
    status = range_of(x, &v, st->size, &first, &n);
    snprintf(range, sizeof range, "bytes %llu-%llu/%llu", (unsigned long long)first,
             (unsigned long long)(first + n - 1), (unsigned long long)st->size);
    const struct mag_http_field fields[] = { { "Content-Type", type_of(path) },
                                             { "Last-Modified", v.date },
                                             { "ETag", v.etag },
                                             { "Accept-Ranges", "bytes" },
                                             { "Content-Range", range } };
    if (is_known(x, &v))
        return mag_http_respond(x, 304, fields + 1, 2, NULL, 0);
    if (status == 416) {
        snprintf(range, sizeof range, "bytes */%llu", (unsigned long long)st->size);
        return say(x, 416, &fields[4]);
    }
    rc = mag_http_begin(x, status, fields, status == 206 ? 5 : 4, n);
    return rc < 0 ? rc : mag_http_send_file(x, f, (int64_t)first, n);
}

/* The file's name, relative to the root. */
static int serve_path(const struct httpd *h, struct mag_http_exchange *x)
{
    char path[PATH_BYTES];
    size_t n = strlen(x->path);
    struct mag_file_stat st;
    struct mag_file f;
    int rc;

    if (n + sizeof "index.html" > sizeof path)
        return say(x, 414, NULL);
    strcpy(path, x->path + 1);
    if (x->path[n - 1] == '/')
        strcat(path, "index.html");
    rc = open_file(h, path, &f, &st);
    if (rc < 0)
        return say_error(x, rc);
    if (S_ISREG(st.mode))
        rc = send_contents(x, path, &f, &st);
    else if (S_ISDIR(st.mode) && x->path[n - 1] != '/')
        rc = redirect(x);
    else
        rc = say(x, 403, NULL);
    mag_file_close(&f);
    return rc;
}

/* ---- the log -------------------------------------------------------------------------------- */

static void write_log(const struct httpd *h, struct mag_http_exchange *x)
{
    char peer[160] = "-", when[40], *colon;
    time_t now = time(NULL);
    struct tm tm;

    mag_stream_peer_name(mag_http_stream(x), peer, sizeof peer);
    if ((colon = strrchr(peer, ':')) && peer[0] != 'u')
        *colon = '\0';
    strftime(when, sizeof when, "%d/%b/%Y:%H:%M:%S %z", localtime_r(&now, &tm));
    fprintf(h->log, "%s - - [%s] \"%s %s HTTP/1.%d\" %d %llu\n", peer, when, x->method, x->target,
            x->version - 10, x->status, (unsigned long long)x->n_sent);
}

static int handle(struct mag_http_exchange *x, void *arg)
{
    const struct httpd *h = arg;
    int rc;

    if (strcmp(x->method, "GET") != 0 && strcmp(x->method, "HEAD") != 0)
        rc = say(x, 405, &(struct mag_http_field){ "Allow", "GET, HEAD" });
    else
        rc = serve_path(h, x);
    if (h->log)
        write_log(h, x);
    return rc;
}

/* A buffered line is not lost for long. */
async(void, flush_log, (FILE *, log))
{
    for (;;) {
        await(mag_sleep(MAG_SECOND));
        fflush(log);
    }
}

/* ---- the server ----------------------------------------------------------------------------- */

static int start(struct httpd *h, struct mag_tls *tls, struct mag_http_server **server)
{
    const struct mag_http_server_options o = {
        .serve = { .host = strcmp(h->address, "*") == 0 ? NULL : h->address,
                   .port = (uint16_t)h->port,
                   .drain = h->drain_s * MAG_SECOND,
                   .tls = tls },
        .body_bytes = 64 * 1024,
        .server_name = "magpie-httpd",
    };
    int rc = mag_http_server_start(server, handle, h, &o);

    if (rc < 0)
        fprintf(stderr, "httpd: %s port %ld: %s\n", h->address, h->port, mag_err_text(rc));
    else
        printf("serving %s at http%s://%s:%u/\n", h->root, tls ? "s" : "", h->address,
               mag_http_server_port(*server));
    fflush(stdout);
    return rc;
}

static int serve(struct httpd *h, struct mag_tls *tls, struct mag_signals *signals)
{
    struct mag_http_server *server;
    struct mag_http_server_stats stats;
    int signo, rc = start(h, tls, &server);

    if (rc < 0)
        return rc;
    rc = mag_signals_next(signals, &signo);
    if (rc >= 0)
        rc = mag_http_server_stop(server);
    mag_http_server_stats(server, &stats);
    mag_http_server_free(server);
    if (rc == -ETIMEDOUT)
        fputs("httpd: some requests took too long and were cut off\n", stderr);
    printf("%llu requests on %llu connections\n", (unsigned long long)stats.n_requests,
           (unsigned long long)stats.server.n_accepted);
    return rc;
}

async(void, serves, (struct httpd *, h), (struct mag_tls *, tls))
{
    struct flush_log *flusher = h->log ? spawn(flush_log(h->log)) : NULL;
    int rc = 0;

    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT))
    {
        rc = serve(h, tls, signals);
    }
    if (flusher)
        mag_close(flusher);
    return rc;
}

/* ---- the command line ----------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fputs("usage: httpd [-a ADDRESS] [-p PORT] [-j WORKERS] [-l LOG] [--tls CERT KEY]\n"
          "             [--drain SECONDS] ROOT\n",
          to);
    return to == stdout ? 0 : EXIT_USAGE;
}

static bool parse_number(const char *text, long min, long max, long *out)
{
    char *end;

    *out = strtol(text, &end, 10);
    return end > text && *end == '\0' && *out >= min && *out <= max;
}

static bool parse_option(struct httpd *h, int option, int argc, char **argv)
{
    switch (option) {
    case 'a':
        h->address = optarg;
        return true;
    case 'p':
        return parse_number(optarg, 0, 65535, &h->port);
    case 'j':
        return parse_number(optarg, 1, 256, &h->workers);
    case 'l':
        h->log_path = optarg;
        return true;
    case 'd':
        return parse_number(optarg, 1, 86400, &h->drain_s);
    case 't':
        h->cert = optarg;
        h->key = optind < argc ? argv[optind++] : NULL;
        return h->key != NULL;
    default:
        return false;
    }
}

static int open_root_and_log(struct httpd *h)
{
    h->root_fd = open(h->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (h->root_fd < 0) {
        fprintf(stderr, "httpd: %s: %s\n", h->root, strerror(errno));
        return -1;
    }
    if (h->log_path == NULL)
        return 0;
    h->log = strcmp(h->log_path, "-") == 0 ? stdout : fopen(h->log_path, "ae");
    if (h->log == NULL) {
        fprintf(stderr, "httpd: %s: %s\n", h->log_path, strerror(errno));
        return -1;
    }
    setvbuf(h->log, NULL, _IOFBF, 1 << 16);
    return 0;
}

static int run(struct httpd *h)
{
    static const char *const alpn[] = { "http/1.1", NULL };
    const struct mag_rt_options options = { .workers = (unsigned)h->workers, .keep_sigint = true };
    struct mag_tls *tls = NULL;
    char why[200] = "";
    int rc;

    if (open_root_and_log(h) < 0)
        return 1;
    if (h->cert) {
        rc = mag_tls_server_new(&tls, &(struct mag_tls_options){ .cert_file = h->cert,
                                                                 .key_file = h->key,
                                                                 .alpn = alpn,
                                                                 .why = why,
                                                                 .why_bytes = sizeof why });
        if (rc < 0) {
            fprintf(stderr, "httpd: %s\n", why);
            return 1;
        }
    }
    rc = mag_run_with(serves(h, tls), NULL, &options);
    if (tls)
        mag_tls_free(tls);
    if (h->log)
        fclose(h->log);
    close(h->root_fd);
    return rc < 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "tls", required_argument, NULL, 't' },
                                             { "drain", required_argument, NULL, 'd' },
                                             { 0 } };
    struct httpd h = { .address = "127.0.0.1", .port = 8080, .drain_s = 10 };
    int option;

    while ((option = getopt_long(argc, argv, "a:p:j:l:", options, NULL)) != -1) {
        if (option == 'h')
            return usage(stdout);
        if (!parse_option(&h, option, argc, argv))
            return usage(stderr);
    }
    if (optind + 1 != argc)
        return usage(stderr);
    h.root = argv[optind];
    return run(&h);
}
