/* SPDX-License-Identifier: MIT */
/*
 * streams.c - a tour of streams: reading and writing on connections, pipes, and what you like
 *
 *      streams [lines | separators | exact | parser | marks | halves | names | process |
 *               transport]                                              all without one
 *      streams --help
 *
 * lines       a question and its answers, line by line; a limit of time; the rest at once.
 * separators  whatever ends a message; what is too long for the buffer is not lost.
 * exact       so many bytes, straight into the caller's memory, and an end that comes too early.
 * parser      a format of one's own (netstrings), from the buffer, without copying.
 * marks       when a write has to wait: the high and the low water mark.
 * halves      an end of writing that is not one of reading; an abort.
 * names       who is on the other side, over TCP and over a unix socket.
 * process     a program's standard input and output.
 * transport   a stream over something that is no descriptor.
 *
 * EXIT STATUS
 *     0; 1 if something failed; 2 for wrong usage.
 */
#include <magpie/async.h>
#include <magpie/server.h>
#include <magpie/stream.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Two streams that are connected with each other. */
struct pair {
    struct mag_stream a, b;
};

static int pair_enter(struct pair *p, const struct mag_stream_options *options)
{
    int fds[2], rc;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    rc = mag_stream_of_fd(&p->a, fds[0], options);
    return rc < 0 ? rc : mag_stream_of_fd(&p->b, fds[1], options);
}

static void pair_exit(struct pair *p)
{
    mag_stream_close(&p->a);
    mag_stream_close(&p->b);
}

async_resource(pair)

/* ---- lines ------------------------------------------------------------------------------ */

/* A server's handler: asked for a number, it counts to there. */
static int count(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    int rc = mag_stream_readline(s, &line);

    (void)arg;
    for (int i = 1, n = rc > 0 ? atoi(line.ptr) : 0; i <= n && rc >= 0; i++) {
        char text[20];
        snprintf(text, sizeof text, "%d\r\n", i);
        rc = mag_stream_puts(s, text);
    }
    return rc < 0 ? rc : mag_stream_puts(s, "that is all");
}

/* A server, and a stream to it: a resource made of two. */
struct counting {
    struct mag_server *server;
    struct mag_stream s;
};

static int counting_enter(struct counting *c)
{
    const struct mag_serve_options options = { .host = "127.0.0.1" };
    int rc = mag_server_start(&c->server, count, NULL, &options);

    if (rc == 0)
        rc = mag_stream_enter(&c->s, "127.0.0.1", mag_server_port(c->server));
    if (rc < 0)
        mag_server_free(c->server);
    return rc;
}

static void counting_exit(struct counting *c)
{
    mag_stream_exit(&c->s);
    mag_server_free(c->server);
}

async_resource(counting)

async(void, lines)
{
    struct mag_str rest;

    async_with(counting, c)
    {
        await(mag_stream_puts(&c->s, "3\n")); /* sent by the first read, which has to wait */
        with_timeout(10 * MAG_SECOND)
        {
            async_for(struct mag_str, line, mag_stream_lines(&c->s))
            {
                printf("a line: %s\n", line.ptr);
                if (strcmp(line.ptr, "2") == 0)
                    break;
            }
            await(mag_stream_read_all(&c->s, &rest, 0));
        }
        printf("the rest: %zu bytes; at the end: %s\n", rest.len,
               mag_stream_at_eof(&c->s) ? "yes" : "no");
    }
    return 0;
}

/* ---- separators ----------------------------------------------------------------------------- */

async(void, separators)
{
    const struct mag_str either[] = { { ";", 1 }, { "--", 2 } };
    struct mag_str part;
    char some[8];

    async_with(pair, p, &(struct mag_stream_options){ .limit = 8 })
    {
        await(mag_stream_puts(&p->a, "one;two--"));
        await(mag_stream_puts(&p->a, "much too long;"));
        await(mag_stream_write_eof(&p->a));
        await(mag_stream_read_until_any(&p->b, either, 2, &part));
        printf("until either: %s\n", part.ptr);
        await(mag_stream_read_until(&p->b, "--", &part));
        printf("until --: %s\n", part.ptr);
        int rc = mag_stream_read_until(&p->b, ";", &part);
        printf("more than the limit: %s\n", mag_err_name(rc));
        int n = await(mag_stream_read(&p->b, some, sizeof some));
        printf("but it is there: %.*s\n", n, some);
        await(mag_stream_readline(&p->b, &part)); /* the last line may have no end */
        printf("and the rest of it: %s\n", part.ptr);
    }
    return 0;
}

/* ---- exact ------------------------------------------------------------------------------------ */

async(void, exact)
{
    char head[4], body[100];
    size_t done;

    async_with(pair, p, NULL)
    {
        await(mag_stream_write_all(&p->a, "HEADbody, cut sho", 17, NULL));
        await(mag_stream_close(&p->a));
        await(mag_stream_read_exact(&p->b, head, sizeof head, NULL));
        int rc = mag_stream_read_exact(&p->b, body, sizeof body, &done);
        printf("%.4s, then %s after %zu bytes: %.*s\n", head, mag_err_name(rc), done, (int)done,
               body);
    }
    return 0;
}

/* ---- parser ------------------------------------------------------------------------------------- */

/* The length of the netstring ("5:hello,") that begins there, and where its text is; 0: there is
 * not all of it yet. */
static int parse(const char *bytes, size_t n, struct mag_str *text)
{
    const char *colon = n > 0 ? memchr(bytes, ':', n) : NULL;
    size_t len = colon ? strtoul(bytes, NULL, 10) : 0;

    if (colon == NULL || (size_t)(bytes + n - colon) < len + 2)
        return 0;
    *text = (struct mag_str){ (char *)(uintptr_t)colon + 1, len };
    return colon[1 + len] == ',' ? (int)(colon - bytes) + (int)len + 2 : -EPROTO;
}

async(void, parser)
{
    const struct iovec parts[] = { { "5:hello,", 8 }, { "0:,5:wo", 7 }, { "rld,", 4 } };
    struct mag_str text;
    const char *bytes;

    async_with(pair, p, NULL)
    {
        await(mag_stream_writev(&p->a, parts, 3));
        await(mag_stream_write_eof(&p->a));
        for (;;) {
            int n = await(parse(bytes, mag_stream_peek(&p->b, &bytes), &text));
            if (n == 0 && await(mag_stream_fill(&p->b)) == 0)
                break;
            if (n > 0)
                printf("a netstring: <%.*s>\n", (int)text.len, text.ptr);
            mag_stream_consume(&p->b, (size_t)n);
        }
    }
    return 0;
}

/* ---- marks ---------------------------------------------------------------------------------------- */

async(void, reads_slowly, (struct mag_stream *, s))
{
    char piece[1000];

    do
        await(mag_sleep(50 * MAG_US));
    while (await(mag_stream_read(s, piece, sizeof piece)) > 0);
    return 0;
}

async(void, marks)
{
    const struct mag_stream_options options = { .high_water = 4000, .low_water = 1000 };
    char piece[1500];
    size_t most = 0;

    memset(piece, 'x', sizeof piece);
    async_with(pair, p, &options)
    {
        __auto_type peer = spawn(reads_slowly(&p->b));
        for (int i = 0; i < 300; i++) {
            await(mag_stream_write(&p->a, piece, sizeof piece, NULL));
            size_t n = mag_stream_n_buffered(&p->a);
            most = n > most ? n : most;
        }
        await(mag_stream_drain(&p->a));
        printf("never more than %d bytes waited: %s; after the drain %zu\n", 4000,
               most <= 4000 ? "yes" : "no", mag_stream_n_buffered(&p->a));
        await(mag_stream_close(&p->a));
        await(peer);
    }
    return 0;
}

/* ---- halves ---------------------------------------------------------------------------------------- */

async(void, halves)
{
    struct mag_str all;

    async_with(pair, p, NULL)
    {
        await(mag_stream_puts(&p->a, "question"));
        await(mag_stream_write_eof(&p->a));
        await(mag_stream_read_all(&p->b, &all, 100));
        printf("asked: %s\n", all.ptr);
        await(mag_stream_puts(&p->b, "answer"));
        await(mag_stream_close(&p->b));
        await(mag_stream_read_all(&p->a, &all, 100));
        printf("answered: %s\n", all.ptr);
        int rc = mag_stream_puts(&p->a, "more");
        printf("after the end: %s\n", mag_err_name(rc));
        mag_stream_abort(&p->a);
        rc = mag_stream_readline(&p->a, &all);
        printf("after the abort: %s, descriptor %d\n", mag_err_name(rc), mag_stream_fd(&p->a));
    }
    return 0;
}

/* ---- names ------------------------------------------------------------------------------------------ */

/* Says who asks. */
static int greet(struct mag_stream *s, void *arg)
{
    char name[100];
    int rc = mag_stream_peer_name(s, name, sizeof name);

    (void)arg;
    return rc < 0 ? rc : mag_stream_puts(s, name);
}

async(void, names)
{
    struct mag_server *tcp, *local;
    struct mag_stream s;
    struct mag_str greeting;
    char path[64], own[100], peer[100];

    snprintf(path, sizeof path, "@magpie-example-%d", (int)getpid());
    await(mag_server_start(&tcp, greet, NULL, &(struct mag_serve_options){ .host = "localhost" }));
    await(mag_server_start(&local, greet, NULL, &(struct mag_serve_options){ .unix_path = path }));
    await(mag_connect(&s, "localhost", mag_server_port(tcp),
                      &(struct mag_connect_options){ .attempt_delay = 100 * MAG_MS }));
    await(mag_stream_own_name(&s, own, sizeof own));
    await(mag_stream_read_all(&s, &greeting, 100));
    printf("each says the same of us: %s\n", strcmp(own, greeting.ptr) == 0 ? "yes" : "no");
    await(mag_stream_close(&s));
    await(mag_connect_unix(&s, path, NULL));
    await(mag_stream_peer_name(&s, peer, sizeof peer));
    printf("a unix socket: %.20s\n", peer);
    await(mag_stream_close(&s));
    mag_server_free(tcp);
    mag_server_free(local);
    return 0;
}

/* ---- process ----------------------------------------------------------------------------------------- */

async(void, process)
{
    static const char *const argv[] = { "tr", "a-z", "A-Z", NULL };
    struct mag_stream in, out;
    struct mag_str all;

    async_with(mag_process, p,
               &(struct mag_process_options){ .argv = argv,
                                              .in.kind = MAG_STDIO_PIPE,
                                              .out.kind = MAG_STDIO_PIPE })
    {
        await(mag_stream_of_fd(&in, p->in, NULL));
        p->in = -1; /* the stream's now */
        await(mag_stream_of_fd(&out, p->out, NULL));
        p->out = -1;
        await(mag_stream_puts(&in, "through a process"));
        await(mag_stream_close(&in));
        await(mag_stream_read_all(&out, &all, 1000));
        printf("%s\n", all.ptr);
        await(mag_stream_close(&out));
    }
    return 0;
}

/* ---- transport ----------------------------------------------------------------------------------------- */

/* What is written comes back, in rot13. */
struct mirror {
    char bytes[100];
    size_t begin, end;
};

static int mirror_write(void *self, const struct iovec *iov, int n_iov)
{
    struct mirror *m = self;
    size_t n = 0;

    for (int i = 0; i < n_iov; i++)
        for (size_t k = 0; k < iov[i].iov_len && m->end < sizeof m->bytes; k++, n++) {
            int c = ((const char *)iov[i].iov_base)[k];
            m->bytes[m->end++] = (char)(isalpha(c) ? c + (tolower(c) < 'n' ? 13 : -13) : c);
        }
    return n > 0 ? (int)n : -ENOSPC;
}

static int mirror_read(void *self, void *buf, size_t n)
{
    struct mirror *m = self;

    n = n < m->end - m->begin ? n : m->end - m->begin;
    memcpy(buf, m->bytes + m->begin, n);
    m->begin += n;
    return (int)n;
}

static int mirror_end(void *self)
{
    (void)self;
    return 0;
}

static void mirror_abort(void *self)
{
    (void)self;
}

static int mirror_fd(void *self)
{
    (void)self;
    return -1;
}

async(void, transport)
{
    static const struct mag_transport rot13 = { .name = "rot13",
                                                .read = mirror_read,
                                                .write = mirror_write,
                                                .write_eof = mirror_end,
                                                .close = mirror_end,
                                                .abort = mirror_abort,
                                                .fd = mirror_fd };
    struct mirror m = { .end = 0 };
    struct mag_stream s;
    struct mag_str line;

    await(mag_stream_of_transport(&s, &rot13, &m, NULL));
    await(mag_stream_puts(&s, "uryyb, zntcvr\n"));
    await(mag_stream_readline(&s, &line));
    printf("%s", line.ptr);
    return mag_stream_close(&s);
}

/* ---- the program ------------------------------------------------------------------------------------------ */

#define PART(name) { #name, run_##name }
#define PART_OF(name) \
    static int run_##name(void) \
    { \
        return mag_run(name(), NULL); \
    }
PART_OF(lines)
PART_OF(separators)
PART_OF(exact)
PART_OF(parser)
PART_OF(marks)
PART_OF(halves)
PART_OF(names)
PART_OF(process)
PART_OF(transport)

static const struct {
    const char *name;
    int (*run)(void);
} parts[] = { PART(lines), PART(separators), PART(exact),   PART(parser),   PART(marks),
              PART(halves), PART(names),     PART(process), PART(transport) };

static int usage(FILE *to)
{
    fputs("usage: streams [lines | separators | exact | parser | marks | halves | names | "
          "process | transport]\n",
          to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    int n_run = 0;

    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc > 2)
        return usage(stderr);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (argc > 1 && strcmp(argv[1], parts[i].name) != 0)
            continue;
        n_run++;
        int rc = parts[i].run();
        if (rc < 0) {
            fprintf(stderr, "streams: %s: %s\n", parts[i].name, mag_err_text(rc));
            return 1;
        }
    }
    return n_run > 0 ? 0 : usage(stderr);
}
