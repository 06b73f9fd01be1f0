/* SPDX-License-Identifier: MIT */
/*
 * streams.c - what CPython's suite pins for streams (test_streams.py)
 *
 * A StreamReader that is fed is here a stream over a script (pair.h), or one end of a
 * socketpair(2) whose other end feeds it.  What does not apply is in NOT_APPLICABLE.md.
 */
#include "pair.h"

#include <magpie/server.h>

#include <pthread.h>
#include <sys/stat.h>

PAIR_SUITE(streams);

#define DATA "line1\nline2\nline3\n"

/* A stream to which these pieces come, and then the end. */
struct fed {
    struct script x;
    struct mag_stream s;
    char text[200];
    size_t ends[16];
};

static int feed_with(struct fed *f, size_t limit, const char *const *pieces)
{
    *f = (struct fed){ .x.text = f->text, .x.ends = f->ends };
    for (; *pieces; pieces++) {
        strcat(f->text, *pieces);
        f->ends[f->x.n_ends++] = f->x.n = strlen(f->text);
    }
    return play(&f->s, &f->x, &(struct mag_stream_options){ .limit = limit });
}
#define FEED(f, limit, ...) feed_with(f, limit, (const char *const[]){ __VA_ARGS__, NULL })

/* What is left, to the end; closes the stream. */
static bool leaves(struct fed *f, const char *rest)
{
    struct mag_str out;
    bool is_right = mag_stream_read_all(&f->s, &out, 0) == 0 && is_text(out, rest);

    mag_stream_close(&f->s);
    return is_right;
}

static bool gives_bytes(struct mag_stream *s, size_t n, const char *text)
{
    char buf[200];
    int rc = mag_stream_read(s, buf, n);

    return rc == (int)strlen(text) && memcmp(buf, text, (size_t)rc) == 0;
}

static bool gives_line(struct mag_stream *s, const char *text)
{
    struct mag_str line;

    return mag_stream_readline(s, &line) == (int)strlen(text) && is_text(line, text);
}

static bool gives_until(struct mag_stream *s, const char *separator, const char *text)
{
    struct mag_str line;

    return mag_stream_read_until(s, separator, &line) == (int)strlen(text) && is_text(line, text);
}

static int line_error(struct mag_stream *s)
{
    struct mag_str line;

    return mag_stream_readline(s, &line);
}

/* Feeds the other end, some time later. */
async(void, feeds_later, (struct mag_stream *, s), (const char *, text), (bool, is_all))
{
    await(mag_sleep(MAG_MS));
    await(mag_stream_puts(s, text));
    await(mag_stream_drain(s));
    if (is_all)
        await(mag_stream_write_eof(s));
    return 0;
}

/* ---- reading ------------------------------------------------------------------------------ */

ON_1(streams, feed_empty_data)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "") == 0);
    SHOULD(leaves(&f, ""));
    return 0;
}

ON_1(streams, feed_nonempty_data)
{
    struct fed f;

    SHOULD(FEED(&f, 0, DATA) == 0);
    SHOULD(leaves(&f, DATA));
    return 0;
}

ON_1(streams, read_zero)
{
    struct fed f;

    SHOULD(FEED(&f, 0, DATA) == 0);
    SHOULD(gives_bytes(&f.s, 0, "") && leaves(&f, DATA));
    return 0;
}

ON_1_AND_4(streams, read)
{
    struct pair p;

    SHOULD(open_pair(&p) == 0);
    __auto_type t = spawn(feeds_later(&p.b, DATA, false));
    SHOULD(gives_bytes(&p.a, 30, DATA));
    await(t);
    close_pair(&p);
    return 0;
}

ON_1(streams, read_line_breaks)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "line1", "line2") == 0);
    SHOULD(gives_bytes(&f.s, 5, "line1") && leaves(&f, "line2"));
    return 0;
}

ON_1_AND_4(streams, read_eof)
{
    struct pair p;

    SHOULD(open_pair(&p) == 0);
    __auto_type t = spawn(feeds_later(&p.b, "", true));
    SHOULD(gives_bytes(&p.a, 100, "") && gives_bytes(&p.a, 100, ""));
    await(t);
    close_pair(&p);
    return 0;
}

ON_1_AND_4(streams, read_until_eof)
{
    struct pair p;
    struct mag_str all;

    SHOULD(open_pair(&p) == 0);
    __auto_type t = spawn(feeds_later(&p.b, "chunk1\nchunk2", true));
    SHOULD(mag_stream_read_all(&p.a, &all, 0) == 0 && is_text(all, "chunk1\nchunk2"));
    await(t);
    close_pair(&p);
    return 0;
}

/* What has come before an error is read before it. */
ON_1(streams, read_exception)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "line\n") == 0);
    f.x.error = -EIO;
    SHOULD(gives_bytes(&f.s, 2, "li"));
    SHOULD(gives_bytes(&f.s, 9, "ne\n") && mag_stream_read(&f.s, f.text, 2) == -EIO);
    SHOULD(mag_stream_read(&f.s, f.text, 2) == -EIO);
    mag_stream_close(&f.s);
    return 0;
}

ON_1(streams, read_limit)
{
    struct fed f;

    SHOULD(FEED(&f, 3, "chunk") == 0);
    SHOULD(gives_bytes(&f.s, 5, "chunk") && leaves(&f, ""));
    return 0;
}

ON_1_AND_4(streams, readline)
{
    struct pair p;

    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_puts(&p.b, "chunk1 ") == 0 && mag_stream_drain(&p.b) == 0);
    __auto_type t = spawn(feeds_later(&p.b, "chunk2 chunk3 \n chunk4", false));
    SHOULD(gives_line(&p.a, "chunk1 chunk2 chunk3 \n"));
    SHOULD(gives_bytes(&p.a, 100, " chunk4"));
    await(t);
    close_pair(&p);
    return 0;
}

/* asyncio throws away what was too long; here it stays, and whoever wants can throw it away. */
ON_1(streams, readline_limit_with_existing_data)
{
    struct fed f;

    SHOULD(FEED(&f, 3, "li", "ne1\nline2\n") == 0);
    SHOULD(line_error(&f.s) == -EMSGSIZE && line_error(&f.s) == -EMSGSIZE);
    SHOULD(leaves(&f, "line1\nline2\n"));
    SHOULD(FEED(&f, 3, "li", "ne1", "li") == 0);
    SHOULD(line_error(&f.s) == -EMSGSIZE);
    SHOULD(leaves(&f, "line1li"));
    return 0;
}

ON_1(streams, at_eof)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "some data\n", "some data\n") == 0);
    SHOULD(!mag_stream_at_eof(&f.s) && gives_line(&f.s, "some data\n"));
    SHOULD(!mag_stream_at_eof(&f.s) && gives_line(&f.s, "some data\n"));
    SHOULD(gives_line(&f.s, "") && mag_stream_at_eof(&f.s));
    mag_stream_close(&f.s);
    return 0;
}

/* The limit counts the newline too. */
ON_1(streams, readline_limit)
{
    struct fed f;

    SHOULD(FEED(&f, 7, "chunk1", "chunk2", "chunk3\n") == 0);
    SHOULD(line_error(&f.s) == -EMSGSIZE && leaves(&f, "chunk1chunk2chunk3\n"));
    SHOULD(FEED(&f, 8, "1234567\n", "12345678\n") == 0);
    SHOULD(gives_line(&f.s, "1234567\n"));
    SHOULD(line_error(&f.s) == -EMSGSIZE && leaves(&f, "12345678\n"));
    SHOULD(FEED(&f, 8, "12345678") == 0);
    SHOULD(line_error(&f.s) == -EMSGSIZE && leaves(&f, "12345678"));
    return 0;
}

ON_1(streams, readline_nolimit_nowait)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "line1\n", "line2\nline3\n") == 0);
    SHOULD(gives_line(&f.s, "line1\n") && leaves(&f, "line2\nline3\n"));
    return 0;
}

ON_1(streams, readline_eof)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "some data") == 0);
    SHOULD(gives_line(&f.s, "some data") && leaves(&f, ""));
    return 0;
}

ON_1(streams, readline_empty_eof)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "") == 0);
    SHOULD(gives_line(&f.s, "") && leaves(&f, ""));
    return 0;
}

ON_1(streams, readline_read_byte_count)
{
    struct fed f;

    SHOULD(FEED(&f, 0, DATA) == 0);
    SHOULD(gives_line(&f.s, "line1\n") && gives_bytes(&f.s, 7, "line2\nl") && leaves(&f, "ine3\n"));
    return 0;
}

ON_1(streams, readline_exception)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "line\n") == 0);
    f.x.error = -EIO;
    SHOULD(gives_line(&f.s, "line\n") && line_error(&f.s) == -EIO);
    mag_stream_close(&f.s);
    return 0;
}

ON_1(streams, readuntil_separator)
{
    struct fed f;
    struct mag_str out;

    SHOULD(FEED(&f, 0, DATA) == 0);
    SHOULD(mag_stream_read_until(&f.s, "", &out) == -EINVAL && leaves(&f, DATA));
    return 0;
}

ON_1(streams, readuntil_multi_chunks)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "lineAAA", "lineAAA", "lineAAAxxx") == 0);
    for (int i = 0; i < 3; i++)
        SHOULD(gives_until(&f.s, "AAA", "lineAAA"));
    SHOULD(leaves(&f, "xxx"));
    return 0;
}

ON_1(streams, readuntil_multi_chunks_1)
{
    struct fed f;

    SHOULD(FEED(&f, 0, "QWEaa", "XYaa", "a", "QWEaa", "XYa", "aa", "aaa", "Xaaa", "XXX", "a", "a",
                "a") == 0);
    SHOULD(gives_until(&f.s, "aaa", "QWEaaXYaaa") && gives_until(&f.s, "aaa", "QWEaaXYaaa"));
    SHOULD(gives_until(&f.s, "aaa", "aaa") && gives_until(&f.s, "aaa", "Xaaa"));
    SHOULD(gives_until(&f.s, "aaa", "XXXaaa") && leaves(&f, ""));
    return 0;
}

/* The exception's `partial' is what can still be read. */
ON_1(streams, readuntil_eof)
{
    struct fed f;
    struct mag_str out;

    SHOULD(FEED(&f, 0, "some dataAA") == 0);
    SHOULD(mag_stream_read_until(&f.s, "AAA", &out) == -ENODATA && leaves(&f, "some dataAA"));
    return 0;
}

ON_1(streams, readuntil_limit_found_sep)
{
    struct fed f;
    struct mag_str out;

    SHOULD(FEED(&f, 3, "some dataAA", "A") == 0);
    SHOULD(mag_stream_read_until(&f.s, "AAA", &out) == -EMSGSIZE);
    SHOULD(leaves(&f, "some dataAAA"));
    return 0;
}

/* Tuples of separators, from CPython 3.13's test_streams.py. */
ON_1(streams, readuntil_multi_separator)
{
    static const struct mag_str separators[] = { { (char *)(uintptr_t) "A", 1 },
                                                 { (char *)(uintptr_t) "long sep", 8 } };
    struct fed f;
    struct mag_str out;

    SHOULD(FEED(&f, 0, "some data", "A", "some data", "long sep", "long sepA") == 0);
    SHOULD(mag_stream_read_until_any(&f.s, separators, 2, &out) > 0 && is_text(out, "some dataA"));
    SHOULD(mag_stream_read_until_any(&f.s, separators, 2, &out) > 0 &&
           is_text(out, "some datalong sep"));
    SHOULD(mag_stream_read_until_any(&f.s, separators, 2, &out) > 0 && is_text(out, "long sep"));
    SHOULD(leaves(&f, "A"));
    return 0;
}

ON_1(streams, readexactly_zero)
{
    struct fed f;
    char buf[1];

    SHOULD(FEED(&f, 0, DATA) == 0);
    SHOULD(mag_stream_read_exact(&f.s, buf, 0, NULL) == 0 && leaves(&f, DATA));
    return 0;
}

ON_1(streams, readexactly)
{
    struct fed f;
    char buf[36];

    SHOULD(FEED(&f, 0, DATA, DATA, DATA) == 0);
    SHOULD(mag_stream_read_exact(&f.s, buf, 36, NULL) == 0 && memcmp(buf, DATA DATA, 36) == 0);
    SHOULD(leaves(&f, DATA));
    return 0;
}

ON_1(streams, readexactly_limit)
{
    struct fed f;
    char buf[5];

    SHOULD(FEED(&f, 3, "chunk") == 0);
    SHOULD(mag_stream_read_exact(&f.s, buf, 5, NULL) == 0 && memcmp(buf, "chunk", 5) == 0);
    SHOULD(leaves(&f, ""));
    return 0;
}

ON_1(streams, readexactly_eof)
{
    struct fed f;
    char buf[36];
    size_t done = 0;

    SHOULD(FEED(&f, 0, DATA) == 0);
    SHOULD(mag_stream_read_exact(&f.s, buf, 36, &done) == -ENODATA);
    SHOULD(done == 18 && memcmp(buf, DATA, 18) == 0 && leaves(&f, ""));
    return 0;
}

ON_1(streams, readexactly_exception)
{
    struct fed f;
    char buf[20];
    size_t done = 0;

    SHOULD(FEED(&f, 0, "line\n") == 0);
    f.x.error = -EIO;
    SHOULD(mag_stream_read_exact(&f.s, buf, 2, NULL) == 0);
    SHOULD(mag_stream_read_exact(&f.s, buf, 20, &done) == -EIO && done == 3);
    mag_stream_close(&f.s);
    return 0;
}

/* ---- errors and cancellation, while somebody waits ------------------------------------------- */

async(int, waits_for_line, (struct mag_stream *, s))
{
    arrive();
    async_return(line_error(s));
}

ON_1_AND_4(streams, exception_waiter)
{
    struct pair p;

    SHOULD(open_tcp_pair(&p) == 0);
    __auto_type t = spawn(waits_for_line(&p.a));
    SHOULD(have_arrived(1));
    mag_stream_abort(&p.b);
    SHOULD(await(t) == -ECONNRESET);
    close_pair(&p);
    return 0;
}

/* The stream can be read on. */
ON_1_AND_4(streams, exception_cancel)
{
    struct pair p;
    int rc = 0;

    SHOULD(open_pair(&p) == 0);
    __auto_type t = spawn(waits_for_line(&p.a));
    SHOULD(have_arrived(1));
    SHOULD(mag_cancel(t) == 0);
    SHOULD(await_rc(t, &rc) == 0 && rc == -ECANCELED);
    SHOULD(mag_stream_puts(&p.b, "line\n") == 0 && mag_stream_drain(&p.b) == 0);
    SHOULD(gives_line(&p.a, "line\n"));
    close_pair(&p);
    return 0;
}

/* ---- connections and servers --------------------------------------------------------------------- */

/* test_utils.run_test_server(): says what it is asked with some lines. */
static int test_server(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    int rc;

    (void)arg;
    while ((rc = mag_stream_readline(s, &line)) > 2)
        ;
    if (rc == 2)
        rc = mag_stream_puts(s, "HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\nTest message");
    return rc;
}

static int start_test_server(struct mag_server **server, const char *path)
{
    return mag_server_start(server, test_server, NULL,
                            &(struct mag_serve_options){ .host = path ? NULL : "127.0.0.1",
                                                         .unix_path = path });
}

static int talk(struct mag_stream *s)
{
    struct mag_str rest;

    SHOULD(mag_stream_puts(s, "GET / HTTP/1.0\r\n\r\n") == 0);
    SHOULD(gives_line(s, "HTTP/1.0 200 OK\r\n"));
    SHOULD(mag_stream_read_all(s, &rest, 0) == 0 && rest.len > 16);
    SHOULD(strcmp(rest.ptr + rest.len - 16, "\r\n\r\nTest message") == 0);
    return 0;
}

ON_1_AND_4(streams, open_connection)
{
    struct mag_server *server;
    struct mag_stream s;

    SHOULD(start_test_server(&server, NULL) == 0);
    SHOULD(mag_connect(&s, "127.0.0.1", mag_server_port(server), NULL) == 0);
    SHOULD(talk(&s) == 0 && mag_stream_close(&s) == 0);
    mag_server_free(server);
    return 0;
}

static const char *path_of_test(void)
{
    static char path[64];

    snprintf(path, sizeof path, "/tmp/magpie-streams-%d", (int)getpid());
    return path;
}

ON_1_AND_4(streams, open_unix_connection)
{
    struct mag_server *server;
    struct mag_stream s;

    SHOULD(start_test_server(&server, path_of_test()) == 0);
    SHOULD(mag_connect_unix(&s, path_of_test(), NULL) == 0);
    SHOULD(talk(&s) == 0 && mag_stream_close(&s) == 0);
    mag_server_free(server);
    return 0;
}

/* What was read is there; then the error. */
ON_1(streams, open_connection_error)
{
    struct pair p;

    SHOULD(open_tcp_pair(&p) == 0);
    SHOULD(mag_stream_puts(&p.b, "half") == 0 && mag_stream_drain(&p.b) == 0);
    SHOULD(gives_bytes(&p.a, 1, "h"));
    mag_stream_abort(&p.b);
    SHOULD(gives_bytes(&p.a, 9, "alf") && mag_stream_read(&p.a, (char[1]){ 0 }, 1) == -ECONNRESET);
    close_pair(&p);
    return 0;
}

/* handle_client of test_start_server. */
static int echoes_a_line(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    int rc = mag_stream_readline(s, &line);

    (void)arg;
    return rc > 0 ? mag_stream_write_all(s, line.ptr, line.len, NULL) : rc;
}

static int hello_world(struct mag_stream *s)
{
    SHOULD(mag_stream_puts(s, "hello world!\n") == 0);
    SHOULD(gives_line(s, "hello world!\n") && gives_line(s, ""));
    return mag_stream_close(s);
}

ON_1_AND_4(streams, start_server)
{
    struct mag_server *server;
    struct mag_stream s;

    SHOULD(mag_server_start(&server, echoes_a_line, NULL,
                            &(struct mag_serve_options){ .host = "127.0.0.1" }) == 0);
    SHOULD(mag_connect(&s, "127.0.0.1", mag_server_port(server), NULL) == 0);
    SHOULD(hello_world(&s) == 0 && mag_server_stop(server) == 0);
    mag_server_free(server);
    return 0;
}

ON_1_AND_4(streams, start_unix_server)
{
    struct mag_server *server;
    struct mag_stream s;

    SHOULD(mag_server_start(&server, echoes_a_line, NULL,
                            &(struct mag_serve_options){ .unix_path = path_of_test() }) == 0);
    SHOULD(mag_connect_unix(&s, path_of_test(), NULL) == 0);
    SHOULD(hello_world(&s) == 0 && mag_server_stop(server) == 0);
    mag_server_free(server);
    return 0;
}

/* A pipe that another process writes, through a buffer of one byte. */
ON_1(streams, read_all_from_pipe_reader)
{
    struct mag_stream s;
    struct mag_str all;
    int fds[2], status = 1;

    SHOULD(pipe(fds) == 0);
    async_with(mag_process, p,
               &(struct mag_process_options){
                   .argv = (const char *[]){ "/bin/sh", "-c", "printf data", NULL },
                   .out = { .kind = MAG_STDIO_FD, .fd = fds[1] } })
    {
        SHOULD(mag_stream_of_fd(&s, fds[0], &(struct mag_stream_options){ .limit = 1 }) == 0);
        SHOULD(mag_process_wait(p, &status) == 0 && status == 0);
        close(fds[1]);
        SHOULD(mag_stream_read_all(&s, &all, 0) == 0 && is_text(all, "data"));
        SHOULD(mag_stream_close(&s) == 0);
    }
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------------- */

async(void, drainer, (struct mag_stream *, s), (int *, n_drained))
{
    await(mag_stream_drain(s));
    __atomic_add_fetch(n_drained, 1, __ATOMIC_SEQ_CST);
    return 0;
}

async(void, reads_all_of_it, (struct mag_stream *, s), (size_t, n))
{
    char buf[5000];

    await(mag_sleep(2 * MAG_MS));
    for (int rc; n > 0; n -= (size_t)rc) {
        rc = mag_stream_read(s, buf, sizeof buf);
        SHOULD(rc > 0);
    }
    return 0;
}

/* Ten tasks wait for the same peer to read. */
ON_1_AND_4(streams, multiple_drain)
{
    enum { N = 1000000 };
    char *text = bytes_of(N);
    struct pair p;
    int n_drained = 0;

    SHOULD(open_pair_with(&p, &(struct mag_stream_options){ .high_water = 2 * N }) == 0);
    for (int i = 0; i < N; i += 10000)
        SHOULD(mag_stream_write(&p.a, text + i, 10000, NULL) == 0);
    SHOULD(mag_stream_n_buffered(&p.a) == N);
    task_group(g)
    {
        for (int i = 0; i < 10; i++)
            group_spawn(g, drainer(&p.a, &n_drained));
        group_spawn(g, reads_all_of_it(&p.b, N));
    }
    SHOULD(n_drained == 10 && mag_stream_n_buffered(&p.a) == 0);
    close_pair(&p);
    free(text);
    return 0;
}

static void *accepts_and_closes(void *listener)
{
    int fd = accept(*(int *)listener, NULL, NULL);

    close(fd);
    return NULL;
}

/* Writing to a peer that has gone does not go on for ever. */
ON_1(streams, drain_raises)
{
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port), rc = 0;
    struct mag_stream s;
    pthread_t t;

    pthread_create(&t, NULL, accepts_and_closes, &listener);
    SHOULD(mag_connect(&s, "127.0.0.1", port, NULL) == 0);
    while (rc == 0)
        if ((rc = mag_stream_puts(&s, "foo\n")) == 0)
            rc = mag_stream_drain(&s);
    SHOULD(rc == -ECONNRESET || rc == -EPIPE);
    mag_stream_close(&s);
    pthread_join(t, NULL);
    close(listener);
    return 0;
}

/* ---- closing --------------------------------------------------------------------------------------- */

ON_1_AND_4(streams, wait_closed_on_close)
{
    struct mag_server *server;
    struct mag_stream s;

    SHOULD(start_test_server(&server, NULL) == 0);
    SHOULD(mag_connect(&s, "127.0.0.1", mag_server_port(server), NULL) == 0);
    SHOULD(talk(&s) == 0);
    SHOULD(mag_stream_fd(&s) >= 0 && mag_stream_close(&s) == 0 && mag_stream_fd(&s) == -1);
    mag_server_free(server);
    return 0;
}

ON_1_AND_4(streams, wait_closed_on_close_with_unread_data)
{
    struct mag_server *server;
    struct mag_stream s;

    SHOULD(start_test_server(&server, NULL) == 0);
    SHOULD(mag_connect(&s, "127.0.0.1", mag_server_port(server), NULL) == 0);
    SHOULD(mag_stream_puts(&s, "GET / HTTP/1.0\r\n\r\n") == 0);
    SHOULD(gives_line(&s, "HTTP/1.0 200 OK\r\n") && mag_stream_close(&s) == 0);
    mag_server_free(server);
    return 0;
}

ON_1(streams, async_writer_api_exception_after_close)
{
    struct pair p;

    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_close(&p.a) == 0);
    SHOULD(mag_stream_puts(&p.a, "data") == -EBADF && mag_stream_drain(&p.a) == -EBADF);
    close_pair(&p);
    return 0;
}
