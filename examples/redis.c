/* SPDX-License-Identifier: MIT */
/*
 * redis.c - a client of Redis, over a stream
 *
 *      redis [-a ADDRESS] [-p PORT] [-s PATH] COMMAND [ARGUMENT...]
 *      redis [-a ADDRESS] [-p PORT] [-s PATH] --tour
 *      redis --help
 *
 * DESCRIPTION
 *     Sends a command to the server at ADDRESS (127.0.0.1) and PORT (6379), or at the unix socket
 *     PATH, and prints the reply, an array with an element on each line.
 *
 *     --tour shows what streams are good for: a value that is set and got; 1,000 commands that
 *     are sent without waiting for replies (pipelining); and a subscriber, which is another task
 *     with a connection of its own, that hears what is published.
 *
 * HOW
 *     RESP, the protocol: a command is an array of strings, each with its length in front, and
 *     the first byte of a reply's line says what it is (+ status, - error, : number, $ string,
 *     * array).  What is written waits in the stream's buffer, until a read has to wait for the
 *     peer: so pipelining is to write first and read then.
 *
 * EXIT STATUS
 *     0; 1 if the server is not there, or the reply is an error; 2 for wrong usage.
 */
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/stream.h>

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIPELINED = 1000, LINE = 64 * 1024, EXIT_USAGE = 2 };

static struct {
    const char *address, *path;
    long port;
    bool is_tour;
    char **command;
    int n_command;
} given = { .address = "127.0.0.1", .port = 6379 };

/* ---- the protocol ------------------------------------------------------------------------------- */

/* Into the buffer; it is sent by the read of the reply. */
static int send_command(struct mag_stream *s, const char *const *words, int n)
{
    char head[32];
    int rc;

    snprintf(head, sizeof head, "*%d\r\n", n);
    rc = mag_stream_puts(s, head);
    for (int i = 0; i < n && rc == 0; i++) {
        snprintf(head, sizeof head, "$%zu\r\n", strlen(words[i]));
        rc = mag_stream_puts(s, head);
        if (rc == 0)
            rc = mag_stream_puts(s, words[i]);
        if (rc == 0)
            rc = mag_stream_puts(s, "\r\n");
    }
    return rc;
}

#define COMMAND(s, ...) \
    send_command((s), (const char *const[]){ __VA_ARGS__ }, \
                 sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

/* One reply, or one element of an array. */
struct reply {
    char kind;      /* + - : $ * and _ for none */
    long number;    /* of :, and elements of *  */
    char text[256]; /* of + - $, as much as fits */
    size_t len;     /* of the whole string        */
};

/* A string of `len' bytes and its "\r\n": what fits into the reply. */
static int read_string(struct mag_stream *s, struct reply *r)
{
    char end[2], dropped[256];
    size_t kept = r->len < sizeof r->text - 1 ? r->len : sizeof r->text - 1;

    await(mag_stream_read_exact(s, r->text, kept, NULL));
    r->text[kept] = '\0';
    for (size_t left = r->len - kept; left > 0;)
        left -= (size_t)await(
            mag_stream_read(s, dropped, left < sizeof dropped ? left : sizeof dropped));
    return mag_stream_read_exact(s, end, 2, NULL);
}

static int read_reply(struct mag_stream *s, struct reply *r)
{
    struct mag_str line;

    await(mag_stream_read_until(s, "\r\n", &line));
    if (line.len < 3)
        return -EPROTO;
    *r = (struct reply){ .kind = line.ptr[0] };
    r->number = strtol(line.ptr + 1, NULL, 10); /* a line has at least the "\r\n" to stop at */
    if (strchr("$*", r->kind) && r->number < 0)
        r->kind = '_';
    if (r->kind == '$') {
        r->len = (size_t)r->number;
        return read_string(s, r);
    }
    r->len = line.len - 3;
    snprintf(r->text, sizeof r->text, "%.*s", (int)r->len, line.ptr + 1);
    return strchr("+-:*_", r->kind) ? 0 : -EPROTO;
}

/* Prints a reply: whether it was an error. */
static int print_reply(struct mag_stream *s, int depth)
{
    struct reply r;
    int n_errors;

    await(read_reply(s, &r));
    n_errors = r.kind == '-';
    if (r.kind != '*')
        printf("%s%s\n", n_errors ? "error: " : "", r.kind == '_' ? "(nil)" : r.text);
    for (long i = 0; r.kind == '*' && i < r.number; i++)
        n_errors += depth < 8 ? await(print_reply(s, depth + 1)) : -EPROTO;
    return n_errors;
}

/* ---- the tour ------------------------------------------------------------------------------------- */

static int open_redis(struct mag_stream *s)
{
    return given.path ? mag_connect_unix(s, given.path, NULL)
                      : mag_connect(s, given.address, (uint16_t)given.port, NULL);
}

static int set_and_get(struct mag_stream *s)
{
    struct reply r;

    await(COMMAND(s, "SET", "magpie:bird", "black and white"));
    await(read_reply(s, &r));
    await(COMMAND(s, "GET", "magpie:bird"));
    await(read_reply(s, &r));
    printf("the bird is %s\n", r.text);
    return 0;
}

static int count_in_a_row(struct mag_stream *s)
{
    struct reply r;
    mag_time begun = mag_now();

    await(COMMAND(s, "DEL", "magpie:count"));
    for (int i = 0; i < PIPELINED; i++)
        await(COMMAND(s, "INCR", "magpie:count"));
    for (int i = 0; i <= PIPELINED; i++)
        await(read_reply(s, &r));
    printf("counted to %ld\n", r.number);
    fprintf(stderr, "in %.1f ms\n", mag_seconds(mag_now() - begun) * 1000);
    return r.number == PIPELINED ? 0 : -EPROTO;
}

/* Hears so many messages, each an array of three strings: "message", the channel, the text. */
async(void, subscriber, (int, n_messages))
{
    struct mag_stream s;
    struct reply r;
    int rc = open_redis(&s);

    if (rc == 0)
        rc = COMMAND(&s, "SUBSCRIBE", "magpie:news");
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = read_reply(&s, &r); /* an array: "subscribe", the channel, how many */
    if (rc == 0)
        rc = mag_started(NULL, 0);
    for (int i = 0; i < 4 * n_messages && rc == 0; i++) {
        rc = read_reply(&s, &r);
        if (i % 4 == 3)
            printf("heard: %s\n", r.text);
    }
    mag_stream_close(&s);
    return rc;
}

static int publish(struct mag_stream *s)
{
    struct reply r;

    task_group(g)
    {
        await(mag_group_start(g, subscriber(2), NULL, 0, NULL)); /* it has subscribed */
        await(COMMAND(s, "PUBLISH", "magpie:news", "the nest is built"));
        await(COMMAND(s, "PUBLISH", "magpie:news", "four eggs"));
        await(read_reply(s, &r));
        await(read_reply(s, &r));
    }
    await(COMMAND(s, "DEL", "magpie:bird", "magpie:count"));
    return read_reply(s, &r);
}

static int tour(struct mag_stream *s)
{
    await(set_and_get(s));
    await(count_in_a_row(s));
    return publish(s);
}

/* ---- the command line -------------------------------------------------------------------------------- */

static int run_command(struct mag_stream *s)
{
    await(send_command(s, (const char *const *)given.command, given.n_command));
    return print_reply(s, 0) == 0 ? 0 : -EREMOTEIO;
}

async(void, redis)
{
    struct mag_stream s;
    int rc = open_redis(&s);

    if (rc < 0) {
        fprintf(stderr, "redis: %s: %s\n", given.path ? given.path : given.address,
                mag_err_text(rc));
        return await_rc(rc, NULL);
    }
    rc = given.is_tour ? tour(&s) : run_command(&s);
    mag_stream_close(&s);
    return rc;
}

static int usage(FILE *to)
{
    fprintf(to, "usage: redis [-a ADDRESS] [-p PORT] [-s PATH] COMMAND [ARGUMENT...]\n"
                "       redis [-a ADDRESS] [-p PORT] [-s PATH] --tour\n");
    return to == stdout ? 0 : EXIT_USAGE;
}

static bool parse_option(int option)
{
    switch (option) {
    case 'a':
        given.address = optarg;
        return true;
    case 's':
        given.path = optarg;
        return true;
    case 'p':
        given.port = strtol(optarg, NULL, 10);
        return given.port > 0 && given.port < 65536;
    case 't':
        given.is_tour = true;
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' },
                                             { "tour", no_argument, NULL, 't' },
                                             { 0 } };
    int option;

    while ((option = getopt_long(argc, argv, "+a:p:s:", options, NULL)) != -1) {
        if (option == 'h')
            return usage(stdout);
        if (!parse_option(option))
            return usage(stderr);
    }
    given.command = argv + optind;
    given.n_command = argc - optind;
    if ((given.n_command == 0) != given.is_tour)
        return usage(stderr);
    return mag_run(redis(), NULL) < 0;
}
