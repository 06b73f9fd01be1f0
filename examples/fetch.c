/* SPDX-License-Identifier: MIT */
/*
 * fetch.c - downloads many URLs at once
 *
 *      fetch [-qk] [-j N] [-d DIR] [-o FILE] [-i LIST] [-t TRIES] [-w SECONDS] [-x PROXY]
 *            [--cacert FILE] [--http2] [URL...]
 *      fetch --help
 *
 * Each URL becomes a file of its last name (index.html if there is none; the second of a name is
 * called NAME.2).  At most N are under way at a time.  On a terminal each of these has a bar;
 * elsewhere a line is printed for each that is complete.
 *
 * What has come so far is in NAME.part, and what identifies it (the server's ETag, or its date) in
 * NAME.part.tag: when a download breaks off, or the program does, the next one goes on from there,
 * if the server says that the file is still the same; else it begins again.  A download that fails
 * for want of a connection, that breaks off, or that is answered by 429 or 5xx is tried again,
 * after a pause that doubles each time.
 *
 * OPTIONS
 *     -j N           at most N at a time (8)
 *     -d DIR         where the files go (the current directory)
 *     -o FILE        what the file is called; for one URL
 *     -i LIST        a file with a URL in each line; - for standard input
 *     -t TRIES       for each file (5)
 *     -w SECONDS     the first pause before another try (0.5)
 *     -x PROXY       such as http://host:port or socks5h://host:port
 *     --cacert FILE  certificates to trust, instead of the system's
 *     -k             trust any certificate
 *     --http2        offer HTTP/2
 *     -q             say nothing but errors
 *
 * EXIT STATUS
 *     0 if all were downloaded; 1 if some were not; 2 for wrong usage; 130 when interrupted.
 */
#include <magpie/async.h>
#include <magpie/dir.h>
#include <magpie/http_client.h>

#include <getopt.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    EXIT_INTERRUPTED = 130,
    PIECE_BYTES = 64 * 1024,
    PATH_BYTES = 4096,
    TAG_BYTES = 512,
    BAR = 24,
};

struct item {
    const char *url;
    char *path;          /* where it goes; on the heap */
    atomic_ullong n, of; /* bytes there, and in all (0: not known) */
    atomic_int is_active;
    int rc;
    char why[256];
};

static struct {
    struct item *items;
    size_t n, room;
    const char *dir, *output;
    size_t jobs;
    long tries;
    double pause;
    bool is_quiet, is_terminal;
    atomic_size_t n_done, n_failed;
    struct mag_http_client_options client;
} all = { .dir = ".", .jobs = 8, .tries = 5, .pause = 0.5 };

/* ---- one attempt ---------------------------------------------------------------------- */

/* path + suffix. */
static const char *name_of(char buf[PATH_BYTES], const struct item *it, const char *suffix)
{
    snprintf(buf, PATH_BYTES, "%s%s", it->path, suffix);
    return buf;
}

static int fail(struct item *it, int rc, const char *why)
{
    snprintf(it->why, sizeof it->why, "%s", why);
    return rc;
}

/* What says that the file is still the same; "" if nothing does. */
static void validator(const struct mag_http_response *r, char tag[TAG_BYTES])
{
    const char *etag = mag_http_response_header(r, "ETag");
    const char *date = mag_http_response_header(r, "Last-Modified");
    const char *best = etag && strncmp(etag, "W/", 2) != 0 ? etag : date;

    snprintf(tag, TAG_BYTES, "%s", best && strlen(best) < TAG_BYTES ? best : "");
}

async(void, write_tag, (struct item *, it), (const struct mag_http_response *, r))
{
    char tag[TAG_BYTES], path[PATH_BYTES];

    validator(r, tag);
    async_with(mag_file, f, name_of(path, it, ".part.tag"), "w")
        await(mag_file_write(f, tag, strlen(tag)));
    return 0;
}

/* How much of it is there from last time, and its tag; 0: nothing of use. */
async(uint64_t, begun, (struct item *, it), (char *, tag))
{
    char path[PATH_BYTES];
    struct mag_file_stat st;
    int n;

    if (mag_stat(name_of(path, it, ".part"), &st) < 0)
        async_return(0);
    async_with(mag_file, f, name_of(path, it, ".part.tag"), "r")
    {
        n = await(mag_file_read(f, tag, TAG_BYTES - 1));
        tag[n] = '\0';
        async_return(n > 0 ? st.size : 0);
    }
    async_return(0);
}

/* Whether the answer is the rest of what begins at `from'. */
static bool is_rest(const struct mag_http_response *r, uint64_t from)
{
    const char *range = mag_http_response_header(r, "Content-Range");
    unsigned long long begin;

    return r->status == 206 && range && sscanf(range, "bytes %llu-", &begin) == 1 && begin == from;
}

static uint64_t length_of(const struct mag_http_response *r)
{
    const char *length = mag_http_response_header(r, "Content-Length");

    return length ? strtoull(length, NULL, 10) : 0;
}

/* The body, to the end of the .part file, which begins with what is there. */
async(void, save, (struct item *, it), (struct mag_http_stream *, s), (uint64_t, from))
{
    char path[PATH_BYTES], *piece = malloc(PIECE_BYTES);
    struct mag_file f;
    int n = 0, rc = piece ? 0 : -ENOMEM;

    if (rc == 0)
        rc = mag_file_open(&f, name_of(path, it, ".part"), from ? "a" : "w");
    if (rc == 0) {
        while (rc == 0 && (n = mag_http_stream_read(s, piece, PIECE_BYTES)) > 0) {
            rc = mag_file_write(&f, piece, (size_t)n);
            rc = rc == n ? 0 : rc < 0 ? rc : -EIO;
            atomic_fetch_add(&it->n, (unsigned)n);
        }
        rc = rc < 0 ? rc : n;
        mag_file_close(&f);
    }
    free(piece);
    return rc;
}

static int finish(struct item *it)
{
    char part[PATH_BYTES], tag[PATH_BYTES];
    int rc = mag_rename(name_of(part, it, ".part"), it->path);

    return rc < 0 ? rc : (mag_unlink(name_of(tag, it, ".part.tag")), 0);
}

/* With the head of an answer: -EAGAIN for one that may be better next time. */
async(void, take, (struct item *, it), (struct mag_http_stream *, s), (uint64_t, from))
{
    const struct mag_http_response *r = mag_http_stream_response(s);
    char text[40];

    if (r->status != 200 && !(from && is_rest(r, from))) {
        snprintf(text, sizeof text, "status %d", r->status);
        return fail(it,
                    r->status == 429 || r->status >= 500 || r->status == 416 ? -EAGAIN : -EREMOTEIO,
                    text);
    }
    if (r->status == 200) {
        from = 0;
        await(write_tag(it, r));
    }
    atomic_store(&it->n, from);
    atomic_store(&it->of, length_of(r) ? from + length_of(r) : 0);
    await(save(it, s, from));
    await(finish(it));
    return 0;
}

/* Forgets what is there from last time. */
static void start_afresh(struct item *it)
{
    char path[PATH_BYTES];

    mag_unlink(name_of(path, it, ".part"));
    mag_unlink(name_of(path, it, ".part.tag"));
}

async(void, attempt, (struct item *, it), (struct mag_http_client *, client))
{
    struct mag_http_error error = { .kind = MAG_HTTP_OK };
    char tag[TAG_BYTES] = "", range[60];
    uint64_t from = 0;

    if (await_rc(begun(it, tag), &from) < 0)
        from = 0;
    snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)from);
    struct mag_http_field fields[] = { { "Range", range }, { "If-Range", tag }, { NULL, NULL } };
    struct mag_http_request q = { .url = it->url,
                                  .headers = from ? fields : NULL,
                                  .error = &error };
    it->why[0] = '\0';
    struct mag_http_stream *s;
    int rc = mag_http_stream_open(&s, client, &q);
    if (rc < 0)
        return fail(it, rc, error.text);
    rc = await_rc(take(it, s, from), NULL);
    if (mag_http_stream_response(s)->status == 416)
        start_afresh(it);
    mag_http_stream_error(s, &error);
    mag_http_stream_close(s);
    if (rc < 0 && it->why[0] == '\0')
        fail(it, rc, error.kind ? error.text : mag_err_text(rc));
    return rc;
}

/* ---- one file ------------------------------------------------------------------------- */

static bool is_worth_another(int rc)
{
    switch (rc) {
    case -EAGAIN:
    case -ETIMEDOUT:
    case -ECONNREFUSED:
    case -ECONNRESET:
    case -EPIPE:
    case -ENETUNREACH:
    case -EHOSTUNREACH:
    case -EPROTO:
        return true;
    default:
        return false;
    }
}

static const char *short_name(const struct item *it)
{
    const char *slash = strrchr(it->path, '/');

    return slash ? slash + 1 : it->path;
}

static void report(const struct item *it, mag_time begun_at)
{
    double seconds = mag_seconds(mag_now() - begun_at);

    if (it->rc < 0)
        fprintf(stderr, "%sfetch: %s: %s\n", all.is_terminal ? "\r\033[J" : "", it->url, it->why);
    else if (!all.is_quiet && !all.is_terminal)
        printf("%s  %llu bytes  %.2f s\n", it->path, (unsigned long long)it->n, seconds);
}

/* Its error is its own affair; but a cancel stops everything. */
async(void, fetch, (struct item *, it), (struct mag_http_client *, client))
{
    mag_time pause = (mag_time)(all.pause * MAG_SECOND), begun_at = mag_now();

    atomic_store(&it->is_active, 1);
    for (long i = 1;; i++) {
        it->rc = await_rc(attempt(it, client), NULL);
        if (it->rc >= 0 || i >= all.tries || !is_worth_another(it->rc))
            break;
        await(mag_sleep(pause));
        pause *= 2;
    }
    atomic_store(&it->is_active, 0);
    atomic_fetch_add(it->rc < 0 ? &all.n_failed : &all.n_done, 1);
    if (it->rc != -ECANCELED)
        report(it, begun_at);
    return it->rc == -ECANCELED ? it->rc : 0;
}

/* ---- bars ----------------------------------------------------------------------------- */

static int print_bar(const struct item *it, char *to, size_t room)
{
    unsigned long long n = it->n, of = it->of;
    int full = of ? (int)(n * BAR / of) : 0;
    char bar[BAR + 1];

    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)(full > BAR ? BAR : full));
    bar[BAR] = '\0';
    return snprintf(to, room, "%-30.30s [%s] %3d%% %8.1f MiB\033[K\n", short_name(it), bar,
                    of ? (int)(n * 100 / of) : 0, (double)n / (1 << 20));
}

static void print_bars(int rows)
{
    char text[16384];
    int len = 0, n = 0;

    len += snprintf(text, sizeof text, "\r\033[J");
    for (size_t i = 0; i < all.n && n < rows && (size_t)len < sizeof text - 256; i++)
        if (all.items[i].is_active) {
            len += print_bar(&all.items[i], text + len, sizeof text - (size_t)len);
            n++;
        }
    len += snprintf(text + len, sizeof text - (size_t)len, "%zu of %zu done, %zu failed\033[K",
                    (size_t)all.n_done, all.n, (size_t)all.n_failed);
    if (n)
        len += snprintf(text + len, sizeof text - (size_t)len, "\r\033[%dA", n);
    fwrite(text, 1, (size_t)len, stderr);
}

async(void, paint)
{
    struct winsize size;

    for (;;) {
        await(mag_sleep(100 * MAG_MS));
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row < 3)
            size.ws_row = 24;
        print_bars(size.ws_row - 2);
    }
    return 0;
}

/* ---- all of them ---------------------------------------------------------------------- */

async(void, fetch_list, (struct mag_http_client *, client))
{
    struct fetch **list = calloc(all.n, sizeof *list);
    struct paint *painter = all.is_terminal ? spawn(paint()) : NULL;
    int rc;

    if (list == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < all.n; i++)
        list[i] = fetch(&all.items[i], client);
    rc = mag_gather(NULL, 0, (void **)list, all.n,
                    &(struct mag_gather_options){ .limit = all.jobs });
    if (painter) {
        mag_cancel(painter);
        await_rc(painter, NULL);
        fputs("\r\033[J", stderr);
    }
    free(list);
    return rc;
}

async(void, fetch_all)
{
    struct mag_http_client client;
    int rc = await(mag_http_client_open(&client, &all.client));

    rc = await_rc(fetch_list(&client), NULL);
    mag_http_client_close(&client);
    return rc;
}

/* ---- the program ---------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fputs("usage: fetch [-qk] [-j N] [-d DIR] [-o FILE] [-i LIST] [-t TRIES] [-w SECONDS]\n"
          "             [-x PROXY] [--cacert FILE] [--http2] [URL...]\n",
          to);
    return to == stdout ? 0 : EXIT_USAGE;
}

static int add_url(const char *url)
{
    struct item *bigger = all.items;

    if (all.n == all.room) {
        all.room = all.room ? all.room * 2 : 64;
        bigger = realloc(all.items, all.room * sizeof *bigger);
        if (bigger == NULL)
            return -ENOMEM;
        all.items = bigger;
    }
    all.items[all.n] = (struct item){ .url = strdup(url), .rc = -ECANCELED };
    return all.items[all.n].url ? (all.n++, 0) : -ENOMEM;
}

/* A URL a line; empty ones and those that begin with # are passed over. */
static int add_list(const char *path)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = f ? 0 : -errno;

    while (rc == 0 && (n = getline(&line, &room, f)) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        if (*line && *line != '#')
            rc = add_url(line);
    }
    free(line);
    if (f && f != stdin)
        fclose(f);
    if (rc < 0)
        fprintf(stderr, "fetch: %s: %s\n", path, strerror(-rc));
    return rc;
}

/* The last name of the URL's path, in `to'. */
static void last_name(const char *url, char *to, size_t room)
{
    const char *begin = strstr(url, "://"), *at, *end;

    begin = begin ? begin + 3 : url;
    begin += strcspn(begin, "/?#");
    end = begin + strcspn(begin, "?#");
    for (at = end; at > begin && at[-1] != '/';)
        at--;
    snprintf(to, room, "%.*s", (int)(end - at), at);
    if (*to == '\0' || strcmp(to, ".") == 0 || strcmp(to, "..") == 0)
        snprintf(to, room, "index.html");
}

static bool is_taken(size_t i, const char *path)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(all.items[k].path, path) == 0)
            return true;
    return false;
}

static int name_items(void)
{
    char name[256], path[PATH_BYTES];

    for (size_t i = 0; i < all.n; i++) {
        last_name(all.items[i].url, name, sizeof name - 16);
        snprintf(path, sizeof path, "%s/%s", all.dir, all.output ? all.output : name);
        if (all.output && *all.output == '/')
            snprintf(path, sizeof path, "%s", all.output);
        for (int k = 2; is_taken(i, path); k++)
            snprintf(path, sizeof path, "%s/%s.%d", all.dir, name, k);
        all.items[i].path = strdup(path);
        if (all.items[i].path == NULL)
            return -ENOMEM;
    }
    return 0;
}

static int read_option(int c)
{
    switch (c) {
    case 'j':
        all.jobs = strtoul(optarg, NULL, 10);
        return all.jobs >= 1 && all.jobs <= 10000 ? 0 : -EINVAL;
    case 'd':
        all.dir = optarg;
        return 0;
    case 'o':
        all.output = optarg;
        return 0;
    case 'i':
        return add_list(optarg) < 0 ? -EIO : 0;
    case 't':
        all.tries = strtol(optarg, NULL, 10);
        return all.tries >= 1 ? 0 : -EINVAL;
    case 'w':
        all.pause = strtod(optarg, NULL);
        return all.pause >= 0 && all.pause < 1000 ? 0 : -EINVAL;
    case 'x':
        all.client.proxy = optarg;
        return 0;
    case 'C':
        all.client.ca_file = optarg;
        return 0;
    case 'k':
        all.client.insecure = true;
        return 0;
    case '2':
        all.client.http2 = true;
        return 0;
    case 'q':
        all.is_quiet = true;
        return 0;
    default:
        return -EINVAL;
    }
}

static int read_options(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "cacert", required_argument, NULL, 'C' },
                                             { "http2", no_argument, NULL, '2' },
                                             { 0 } };
    int c, rc;

    while ((c = getopt_long(argc, argv, "j:d:o:i:t:w:x:kqh", options, NULL)) != -1) {
        if (c == 'h')
            exit(usage(stdout));
        rc = read_option(c);
        if (rc < 0)
            return rc == -EIO ? 1 : usage(stderr);
    }
    for (; optind < argc; optind++)
        if (add_url(argv[optind]) < 0)
            return 1;
    return all.n == 0 || (all.output && all.n > 1) ? usage(stderr) : 0;
}

int main(int argc, char **argv)
{
    int rc = read_options(argc, argv);

    if (rc)
        return rc;
    if (name_items() < 0)
        return 1;
    all.is_terminal = !all.is_quiet && isatty(STDERR_FILENO);
    all.client.follow_redirects = true;
    all.client.no_decoding = true;
    all.client.timeout = 30 * MAG_SECOND;
    all.client.max_connections = (unsigned)all.jobs;
    all.client.max_keepalive = (unsigned)all.jobs;
    rc = mag_run(fetch_all(), NULL);
    for (size_t i = 0; i < all.n; i++) {
        free((char *)all.items[i].url);
        free(all.items[i].path);
    }
    free(all.items);
    if (rc == -ECANCELED)
        return EXIT_INTERRUPTED;
    if (rc < 0)
        fprintf(stderr, "fetch: %s\n", mag_err_text(rc));
    return rc < 0 || all.n_failed > 0;
}
