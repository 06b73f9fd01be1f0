/* SPDX-License-Identifier: MIT */
/*
 * http_server.c - tests of the HTTP server, by clients that say what they like
 */
#include "children.h"
#include "http_bad.h"

#include <magpie/http_server.h>
#include <stdlib.h>

TestSuite(http_server, .timeout = 60);

/* ---- a handler that does all kinds of things --------------------------------------------- */

static char big[300000];

static int echo(struct mag_http_exchange *x)
{
    struct mag_str body;
    int rc = mag_http_read_all(x, &body, 0);

    return rc < 0 ? rc : mag_http_respond(x, 200, NULL, 0, body.ptr, body.len);
}

static int pump(struct mag_http_exchange *x)
{
    char buf[7];
    int n, rc = mag_http_begin(x, 200, NULL, 0, MAG_HTTP_UNKNOWN_LENGTH);

    while (rc == 0 && (n = mag_http_read(x, buf, sizeof buf)) != 0)
        rc = n < 0 ? n : mag_http_write(x, buf, (size_t)n);
    return rc < 0 ? rc : mag_http_end(x);
}

/* What came, as text. */
static int report(struct mag_http_exchange *x)
{
    char text[1000];
    struct mag_http_field f;
    int n = snprintf(text, sizeof text, "%s|%s|%s|%s|%s|%d", x->method, x->target, x->path,
                     x->query ? x->query : "-", x->host ? x->host : "-", x->version);

    for (unsigned i = 0; mag_http_header_at(x, i, &f); i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "|%s=%s", f.name, f.value);
    n += snprintf(text + n, sizeof text - (size_t)n, "|%s", mag_http_header(x, "x-A") ?: "-");
    return mag_http_respond(x, 200, NULL, 0, text, (size_t)n);
}

/* The strings live on while a body that does not fit anywhere goes by. */
static int report_after_body(struct mag_http_exchange *x)
{
    char buf[100];
    int rc;

    do
        rc = mag_http_read(x, buf, sizeof buf);
    while (rc > 0);
    return rc < 0 ? rc : report(x);
}

static int send_a_file(struct mag_http_exchange *x)
{
    struct mag_file f;
    int rc = mag_file_open(&f, "/proc/self/exe", "r");

    if (rc == 0)
        rc = mag_http_begin(x, 200, NULL, 0, 200000);
    if (rc == 0)
        rc = mag_http_send_file(x, &f, 100, 200000);
    mag_file_close(&f);
    return rc;
}

static int refuses_fields(struct mag_http_exchange *x)
{
    static const struct mag_http_field bad[] = {
        { "A", "b\r\nC: d" },
        { "A", "b\nc" },
        { "A b", "c" },
        { "", "c" },
        { "A:", "c" },
        { "A", "\x01" },
        { "content-LENGTH", "5" },
        { "Transfer-Encoding", "x" },
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (mag_http_respond(x, 200, &bad[i], 1, "", 0) != -EINVAL)
            return -EIO;
    if (mag_http_respond(x, 99, NULL, 0, "", 0) != -EINVAL)
        return -EIO;
    return mag_http_respond(x, 200, NULL, 0, "refused", 7);
}

static int misuses(struct mag_http_exchange *x)
{
    if (mag_http_write(x, "a", 1) != -ENOTCONN || mag_http_end(x) != -ENOTCONN)
        return -EIO;
    if (mag_http_begin(x, 200, NULL, 0, 3) != 0 || mag_http_write(x, "ab", 2) != 0)
        return -EIO;
    if (mag_http_write(x, "cd", 2) != -EOVERFLOW || mag_http_end(x) != -ENODATA)
        return -EIO;
    if (mag_http_respond(x, 200, NULL, 0, "", 0) != -EALREADY)
        return -EIO;
    if (mag_http_write(x, "c", 1) != 0 || mag_http_flush(x) != 0 || mag_http_end(x) != 0)
        return -EIO;
    return mag_http_write(x, "d", 1) == -ENOTCONN ? 0 : -EIO;
}

/* Those whose handlers sleep; they do until they may wake up.  By atomic builtins. */
static int n_slow, may_wake;

static int sleeps(void)
{
    int rc = 0;

    __atomic_add_fetch(&n_slow, 1, __ATOMIC_SEQ_CST);
    while (rc == 0 && !__atomic_load_n(&may_wake, __ATOMIC_SEQ_CST))
        rc = mag_sleep(MAG_MS);
    return rc;
}

static int route(struct mag_http_exchange *x, void *arg)
{
    const struct mag_http_field close = { "Connection", "close" };
    char buf[10];

    (void)arg;
#define IS(p) (strcmp(x->path, p) == 0)
    if (IS("/hello") || IS("/"))
        return mag_http_respond(x, 200, NULL, 0, "hello", 5);
    if (IS("/echo"))
        return echo(x);
    if (IS("/pump"))
        return pump(x);
    if (IS("/report"))
        return report(x);
    if (IS("/after"))
        return report_after_body(x);
    if (IS("/file"))
        return send_a_file(x);
    if (IS("/fields"))
        return refuses_fields(x);
    if (IS("/misuses"))
        return misuses(x);
    if (IS("/big"))
        return mag_http_respond(x, 200, NULL, 0, big, sizeof big);
    if (IS("/close"))
        return mag_http_respond(x, 200, &close, 1, "bye", 3);
    if (IS("/error"))
        return -EIO;
    if (IS("/nothing"))
        return 0;
    if (IS("/204") || IS("/304"))
        return mag_http_respond(x, atoi(x->path + 1), NULL, 0, "no body", 7);
    if (IS("/half"))
        return mag_http_begin(x, 200, NULL, 0, 10) ?: mag_http_write(x, "abc", 3);
    if (IS("/late"))
        return mag_http_begin(x, 200, NULL, 0, MAG_HTTP_UNKNOWN_LENGTH)
                   ?: mag_http_write(x, "abc", 3)
                   ?: -EIO;
    if (IS("/nap"))
        return mag_sleep(250 * MAG_MS) ?: mag_http_respond(x, 200, NULL, 0, "slow", 4);
    if (IS("/slow"))
        return sleeps() ?: mag_http_respond(x, 200, NULL, 0, "slow", 4);
    if (IS("/some"))
        return mag_http_read(x, buf, 3) == 3 ? mag_http_respond(x, 200, NULL, 0, buf, 3) : -EIO;
    return mag_http_respond(x, 404, NULL, 0, "none", 4);
}

/* ---- clients ------------------------------------------------------------------------------ */

static int start(struct mag_http_server **out, const struct mag_http_server_options *options)
{
    struct mag_http_server_options o = options ? *options : (struct mag_http_server_options){ 0 };

    o.serve.host = "127.0.0.1";
    return mag_http_server_start(out, route, NULL, &o);
}

/* Says that, and hears the answer up to the end; `ends': says an end, too. */
static int talk(struct mag_http_server *server, const char *bytes, size_t n, bool ends,
                char *answer, size_t room)
{
    struct mag_stream s;
    struct mag_str all;
    int rc = mag_connect(&s, "127.0.0.1", mag_http_server_port(server), NULL);

    answer[0] = '\0';
    if (rc < 0)
        return rc;
    rc = mag_stream_write_all(&s, bytes, n, NULL);
    if (rc == 0 && ends)
        rc = mag_stream_write_eof(&s);
    if (rc == 0) {
        rc = mag_stream_read_all(&s, &all, 0);
        if (all.len < room) {
            memcpy(answer, all.ptr, all.len + 1);
            rc = rc < 0 ? rc : (int)all.len;
        } else {
            rc = -ENOBUFS;
        }
    }
    mag_stream_close(&s);
    return rc;
}

#define ANSWER_BYTES 400000

/* Whether the answer to the text is this, with the line of the date left out. */
static bool answers(struct mag_http_server *server, const char *text, const char *expected)
{
    char *answer = malloc(ANSWER_BYTES), *date;
    bool is_so;

    talk(server, text, strlen(text), true, answer, ANSWER_BYTES);
    while ((date = strstr(answer, "Date: ")))
        memmove(date, strstr(date, "GMT\r\n") + 5, strlen(strstr(date, "GMT\r\n") + 5) + 1);
    is_so = strcmp(answer, expected) == 0;
    if (!is_so)
        snprintf(reported, sizeof reported, "got \"%.400s\"", answer);
    free(answer);
    return is_so;
}

/* Runs claims against a server. */
#define WITH_SERVER(server, options, claims) \
    struct mag_http_server *server; \
    SHOULD(start(&server, options) == 0); \
    claims; \
    SHOULD(mag_http_server_stop(server) == 0); \
    mag_http_server_free(server)

#define OK(more, n, body) "HTTP/1.1 200 OK\r\n" more "Content-Length: " n "\r\n\r\n" body
#define OK_CLOSE(n, body) \
    "HTTP/1.1 200 OK\r\nContent-Length: " n "\r\nConnection: close\r\n\r\n" body
#define GET(path)                "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(path, fields, body) "POST " path " HTTP/1.1\r\nHost: a\r\n" fields "\r\n" body

/* ---- requests and answers -------------------------------------------------------------------- */

async(void, simple)
{
    WITH_SERVER(s, NULL, {
        SHOULD(answers(s, GET("/hello"), OK("", "5", "hello")));
        SHOULD(answers(
            s, GET("/hello") GET("/x") GET("/hello"),
            OK("", "5", "hello") "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone" OK(
                "", "5", "hello")));
        SHOULD(answers(s, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n" GET("/hello"),
                       OK("", "5", "") OK("", "5", "hello")));
        SHOULD(answers(s, GET("/204"), "HTTP/1.1 204 No Content\r\n\r\n"));
        SHOULD(answers(s, GET("/304"), "HTTP/1.1 304 Not Modified\r\n\r\n"));
        SHOULD(answers(s, GET("/close") GET("/hello"), OK_CLOSE("3", "bye")));
        SHOULD(answers(s, "GET /hello HTTP/1.0\r\n\r\n" GET("/hello"), OK_CLOSE("5", "hello")));
        SHOULD(
            answers(s, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"));
        SHOULD(answers(s, "\r\n" GET("/hello") "\r\n" GET("/hello"),
                       OK("", "5", "hello") OK("", "5", "hello")));
        SHOULD(answers(s, GET("/fields"), OK("", "7", "refused")));
        SHOULD(answers(s, GET("/misuses"), OK("", "3", "abc")));
        SHOULD(answers(s, "GET /hel", ""));
        SHOULD(answers(s, "", ""));
    });
    return 0;
}

Test(http_server, simple)
{
    RUN_CLEAN(simple(), 0);
}

async(void, strings)
{
    WITH_SERVER(s, NULL, {
        SHOULD(answers(
            s, "GET /a/../rep%6Frt?x=%20&y HTTP/1.1\r\nHost: h:1\r\nX-a: \tv w \r\nEmpty:\r\n\r\n",
            OK("", "77",
               "GET|/a/../rep%6Frt?x=%20&y|/report|x=%20&y|h:1|11|Host=h:1|X-a=v w|Empty=|v w")));
        SHOULD(answers(s, "GET http://b:8/report HTTP/1.0\r\n\r\n",
                       OK_CLOSE("40", "GET|http://b:8/report|/report|-|b:8|10|-")));
        SHOULD(answers(s, "GET /report HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
                       OK("", "55", "GET|/report|/report|-|a|11|Host=a|Expect=100-continue|-")));
    });
    return 0;
}

Test(http_server, strings)
{
    RUN_CLEAN(strings(), 0);
}

async(void, bodies)
{
    WITH_SERVER(s, NULL, {
        SHOULD(answers(s, POST("/echo", "Content-Length: 3\r\n", "abc") GET("/hello"),
                       OK("", "3", "abc") OK("", "5", "hello")));
        SHOULD(answers(s,
                       POST("/echo", "Transfer-Encoding: chunked\r\n",
                            "2\r\nab\r\n1;x\r\nc\r\n0\r\nT: u\r\n\r\n") GET("/hello"),
                       OK("", "3", "abc") OK("", "5", "hello")));
        SHOULD(answers(s, POST("/pump", "Content-Length: 10\r\n", "0123456789") GET("/hello"),
                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "7\r\n0123456\r\n3\r\n789\r\n0\r\n\r\n" OK("", "5", "hello")));
        SHOULD(answers(s, "POST /pump HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
                       "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"));
        /* what is not read is dropped */
        SHOULD(answers(s, POST("/hello", "Content-Length: 3\r\n", "abc") GET("/hello"),
                       OK("", "5", "hello") OK("", "5", "hello")));
        SHOULD(answers(s,
                       POST("/some", "Transfer-Encoding: chunked\r\n",
                            "9\r\nabcdefghi\r\n0\r\n\r\n") GET("/hello"),
                       OK("", "3", "abc") OK("", "5", "hello")));
        /* the client ends amid the body */
        SHOULD(
            answers(s, POST("/echo", "Content-Length: 9\r\n", "abc"),
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
                    "Connection: close\r\n\r\nBad Request\n"));
        SHOULD(answers(s, POST("/echo", "Expect: 100-continue\r\nContent-Length: 3\r\n", "abc"),
                       "HTTP/1.1 100 Continue\r\n\r\n" OK("", "3", "abc")));
        SHOULD(answers(s, POST("/hello", "Expect: 100-continue\r\nContent-Length: 3\r\n", ""),
                       OK_CLOSE("5", "hello")));
    });
    return 0;
}

Test(http_server, bodies)
{
    RUN_CLEAN(bodies(), 0);
}

/* A body that does not fit into any buffer, and comes in pieces behind its head. */
async(void, large_bodies)
{
    char *answer = malloc(ANSWER_BYTES), *request = malloc(ANSWER_BYTES);
    int n, rc;

    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)('a' + i % 23);
    WITH_SERVER(s, NULL, {
        n = sprintf(request, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
                    sizeof big);
        memcpy(request + n, big, sizeof big);
        rc = talk(s, request, (size_t)n + sizeof big, true, answer, ANSWER_BYTES);
        SHOULD(rc > (int)sizeof big);
        SHOULD(memcmp(answer + rc - sizeof big, big, sizeof big) == 0);

        n = sprintf(request,
                    "POST /after HTTP/1.1\r\nHost: a\r\nX-A: b\r\nContent-Length: %zu\r\n\r\n",
                    sizeof big);
        memcpy(request + n, big, sizeof big);
        rc = talk(s, request, (size_t)n + sizeof big, true, answer, ANSWER_BYTES);
        SHOULD(rc > 0);
        SHOULD(strstr(answer, "POST|/after|/after|-|a|11|Host=a|X-A=b|Content-Length=300000|b"));

        /* It is told, although it has much more to say; if it has said that in a second. */
        n = sprintf(request, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n");
        memcpy(request + n, big, sizeof big);
        rc = -1;
        for (int i = 0; i < 5 && rc <= 0; i++)
            rc = talk(s, request, (size_t)n + sizeof big, false, answer, ANSWER_BYTES);
        SHOULD(rc > 0 && atoi(answer + 9) == 413);

        rc = talk(s, GET("/big"), strlen(GET("/big")), true, answer, ANSWER_BYTES);
        SHOULD(rc > (int)sizeof big);
        SHOULD(memcmp(answer + rc - sizeof big, big, sizeof big) == 0);

        rc = talk(s, GET("/file"), strlen(GET("/file")), true, answer, ANSWER_BYTES);
        SHOULD(rc > 200000);
    });
    free(answer);
    free(request);
    return 0;
}

Test(http_server, large_bodies)
{
    RUN_CLEAN(large_bodies(), 0);
}

/* Answers that cannot be right end so that the client can tell. */
async(void, failures)
{
    const char *error = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n"
                        "Content-Length: 22\r\nConnection: close\r\n\r\nInternal Server Error\n";
    char answer[1000];
    struct mag_http_server_stats stats;

    WITH_SERVER(s, NULL, {
        SHOULD(answers(s, GET("/error") GET("/hello"), error));
        SHOULD(answers(s, GET("/nothing"), error));
        SHOULD(talk(s, GET("/half"), strlen(GET("/half")), false, answer, sizeof answer) ==
               -ECONNRESET);
        SHOULD(talk(s, GET("/late"), strlen(GET("/late")), false, answer, sizeof answer) ==
               -ECONNRESET);
        SHOULD(mag_http_server_stop(s) == 0);
        mag_http_server_stats(s, &stats);
        SHOULD(stats.n_requests == 4 && stats.n_aborted == 2 && stats.n_refused == 0);
    });
    return 0;
}

Test(http_server, failures)
{
    RUN_CLEAN(failures(), 0);
}

/* ---- what has to be refused ----------------------------------------------------------------- */

static int handle_bad(struct mag_http_exchange *x, void *arg)
{
    (void)arg;
    return echo(x);
}

async(void, table)
{
    const struct mag_http_server_options o = { .serve.host = "127.0.0.1" };
    struct mag_http_server *s;
    struct mag_http_server_stats stats;
    char answer[2000], expected[40];

    SHOULD(mag_http_server_start(&s, handle_bad, NULL, &o) == 0);
    for (int i = 0; i < N_HTTP_BAD; i++) {
        const struct http_bad *b = &http_bad[i];
        /* A good request before it is answered first. */
        size_t n_before = strlen(GET("/"));
        char *bytes = malloc(n_before + b->n);

        memcpy(bytes, GET("/"), n_before);
        memcpy(bytes + n_before, b->bytes, b->n);
        int rc = talk(s, bytes, n_before + b->n, false, answer, sizeof answer);
        free(bytes);
        snprintf(expected, sizeof expected, "HTTP/1.1 %d ", b->status);
        const char *second = rc > 0 ? strstr(answer + 5, "HTTP/1.1 ") : NULL;
        if (second == NULL || strncmp(second, expected, strlen(expected)) != 0 ||
            strstr(second, "Connection: close\r\n") == NULL || strstr(second + 5, "HTTP/1.1 ")) {
            snprintf(reported, sizeof reported, "%s: %d \"%.800s\"", b->what, rc, answer);
            SHOULD(!"refused");
        }
    }
    SHOULD(mag_http_server_stop(s) == 0);
    mag_http_server_stats(s, &stats);
    SHOULD(stats.n_refused == N_HTTP_BAD);
    mag_http_server_free(s);
    return 0;
}

Test(http_server, the_table_is_refused)
{
    RUN_CLEAN(table(), 0);
}

async(void, limits)
{
    const struct mag_http_server_options o = { .line_bytes = 100,
                                               .head_bytes = 300,
                                               .max_fields = 3,
                                               .body_bytes = 5,
                                               .max_requests = 2,
                                               .server_name = "m" };
    char answer[2000], request[2000];

    WITH_SERVER(s, &o, {
#define STATUS(text) \
    (talk(s, (text), strlen(text), false, answer, sizeof answer) > 12 ? atoi(answer + 9) : -1)
        snprintf(request, sizeof request, "GET /%0100d HTTP/1.1\r\nHost: a\r\n\r\n", 0);
        SHOULD(STATUS(request) == 414);
        snprintf(request, sizeof request, "GET /%01000d", 0);
        SHOULD(STATUS(request) == 414);
        snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: a\r\nA: %0300d\r\n\r\n", 0);
        SHOULD(STATUS(request) == 431);
        SHOULD(STATUS("GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\n\r\n") == 431);
        SHOULD(STATUS(POST("/echo", "Content-Length: 6\r\n", "abcdef")) == 413);
        SHOULD(STATUS(POST("/echo", "Transfer-Encoding: chunked\r\n",
                           "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")) == 413);
        SHOULD(answers(
            s, POST("/echo", "Content-Length: 5\r\n", "abcde") GET("/hello") GET("/hello"),
            OK("Server: m\r\n", "5", "abcde") "HTTP/1.1 200 OK\r\nServer: m\r\nContent-Length: "
                                              "5\r\nConnection: close\r\n\r\nhello"));
    });
    return 0;
}

Test(http_server, limits)
{
    RUN_CLEAN(limits(), 0);
}

/* ---- time ----------------------------------------------------------------------------------- */

/* Says the text, a byte every so often, until the server ends it: the answer. */
static int drip(struct mag_http_server *server, const char *text, mag_time pause, char *answer,
                size_t room)
{
    struct mag_stream s;
    struct mag_str all = { 0 };
    int rc = mag_connect(&s, "127.0.0.1", mag_http_server_port(server), NULL);

    answer[0] = '\0';
    if (rc < 0)
        return rc;
    for (; *text && rc == 0; text++) {
        rc = mag_stream_write_all(&s, text, 1, NULL);
        if (rc == 0)
            rc = mag_sleep(pause);
    }
    if (rc == 0)
        rc = mag_stream_write_eof(&s);
    if (rc == 0)
        rc = mag_stream_read_all(&s, &all, room - 1);
    if (all.ptr && all.len < room)
        memcpy(answer, all.ptr, all.len + 1);
    mag_stream_close(&s);
    return rc;
}

/* A byte each millisecond: the body takes a tenth of a second. */
#define SLOW_POST \
    POST("/echo", "Content-Length: 100\r\n", \
         "0123456789012345678901234567890123456789012345678901234567890123456789" \
         "012345678901234567890123456789")

async(void, slow_but_steady)
{
    char answer[2000] = "";

    /* Again with more time, if a busy machine kept the first bytes back. */
    for (mag_time pause = MAG_MS; pause <= 64 * MAG_MS && atoi(answer + 9) != 200; pause *= 4) {
        const struct mag_http_server_options o = { .body_timeout = 50 * pause, .body_rate = 1 };
        WITH_SERVER(s, &o, { drip(s, SLOW_POST, pause, answer, sizeof answer); });
    }
    SHOULD(atoi(answer + 9) == 200);
    return 0;
}

Test(http_server, slow_but_steady)
{
    RUN_CLEAN(slow_but_steady(), 0);
}

/* Two requests at once; how long it took to ask. */
static mag_time ask_twice(struct mag_http_server *server, char *answer, size_t room)
{
    static const char both[] = GET("/nap") GET("/nap");
    struct mag_stream s;
    struct mag_str all;
    mag_time begun = mag_now(), took;

    SHOULD(mag_connect(&s, "127.0.0.1", mag_http_server_port(server), NULL) == 0);
    (void)mag_stream_write_all(&s, both, sizeof both - 1, NULL);
    took = mag_now() - begun;
    (void)mag_stream_read_all(&s, &all, room - 1);
    memcpy(answer, all.ptr, all.len + 1);
    mag_stream_close(&s);
    return took;
}

/* The limits of the waiting before and behind it are not the handler's, though the first wait has
 * set the timer; and the connection is ended by the last one. */
async(void, slow_handlers)
{
    const struct mag_http_server_options o = { .head_timeout = 100 * MAG_MS,
                                               .idle_timeout = 100 * MAG_MS,
                                               .write_timeout = 100 * MAG_MS };
    char answer[2000] = "";
    const char *second;

    WITH_SERVER(s, &o, {
        for (int i = 0; i < 20; i++) /* again, if we were too slow ourselves */
            if (ask_twice(s, answer, sizeof answer) < 50 * MAG_MS)
                break;
        second = strstr(answer, "slow");
        SHOULD(second && strstr(second + 1, "slow"));
    });
    return 0;
}

Test(http_server, slow_handlers)
{
    RUN_CLEAN(slow_handlers(), 0);
}

#define HEAD_AND_SLOW "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HT"

/*
 * What it is answered that says so much and then nothing.  A busy machine may keep the text back
 * until the server has enough of a connection that says nothing: then once more.
 */
static int status_of_slow(struct mag_http_server *s, const char *text)
{
    char answer[2000];
    int rc = 0;

    for (int i = 0; i < 50 && rc <= 0; i++)
        rc = talk(s, text, strlen(text), false, answer, sizeof answer);
    return rc > 0 ? atoi(answer + 9) : -1;
}

/* The same, byte by byte: never is it well, but if the server sees them all at once. */
static bool drips_in_vain(struct mag_http_server *s, const char *text, mag_time pause)
{
    char answer[2000];

    for (int i = 0; i < 20; i++) {
        if (drip(s, text, pause, answer, sizeof answer) == -EINVAL)
            return false;
        if (strstr(answer, " 200 ") == NULL)
            return strlen(answer) == 0 || atoi(answer + 9) == 408;
    }
    return false;
}

async(void, slow_clients)
{
    const struct mag_http_server_options o = { .head_timeout = 50 * MAG_MS,
                                               .idle_timeout = 30 * MAG_MS,
                                               .body_timeout = 50 * MAG_MS };
    char answer[2000] = "";
    mag_time begun;

    WITH_SERVER(s, &o, {
        begun = mag_now();
        SHOULD(talk(s, "", 0, false, answer, sizeof answer) == 0);
        SHOULD(status_of_slow(s, GET("/hello")) == 200);
        SHOULD(status_of_slow(s, "GET / HT") == 408);
        /* It has nothing of the request before it, such as that this wants no body. */
        for (int i = 0; i < 20 && strstr(answer, "\r\n\r\nRequest Timeout\n") == NULL; i++)
            (void)talk(s, HEAD_AND_SLOW, strlen(HEAD_AND_SLOW), false, answer, sizeof answer);
        SHOULD(strstr(answer, "HTTP/1.1 408 ") && strstr(answer, "\r\n\r\nRequest Timeout\n"));
        SHOULD(status_of_slow(s, POST("/echo", "Content-Length: 5\r\n", "ab")) == 408);
        SHOULD(mag_now() - begun > 150 * MAG_MS && mag_now() - begun < 30 * MAG_SECOND);
        /* However often a byte comes: the whole head counts. */
        SHOULD(drips_in_vain(s, GET("/hello"), 5 * MAG_MS));
    });
    return 0;
}

Test(http_server, slow_clients)
{
    RUN_CLEAN(slow_clients(), 0);
}

async(void, slow_body)
{
    const struct mag_http_server_options o = { .body_timeout = 50 * MAG_MS };

    WITH_SERVER(s, &o, { SHOULD(drips_in_vain(s, SLOW_POST, MAG_MS)); });
    return 0;
}

Test(http_server, slow_body)
{
    RUN_CLEAN(slow_body(), 0);
}

/* ---- stopping ------------------------------------------------------------------------------- */

async(int, slow_one, (struct mag_http_server *, s))
{
    char answer[1000];
    int rc = talk(s, GET("/slow"), strlen(GET("/slow")), false, answer, sizeof answer);

    if (rc < 0)
        return rc;
    async_return(strstr(answer, "Connection: close") != NULL && strstr(answer, "slow") != NULL);
}

/* Wakes them when nobody is let in any more: then it stops. */
async(void, wakes_when_it_stops, (unsigned, port))
{
    struct mag_stream s;

    while (mag_connect(&s, "127.0.0.1", (uint16_t)port, NULL) == 0) {
        mag_stream_close(&s);
        await(mag_sleep(MAG_MS));
    }
    __atomic_store_n(&may_wake, 1, __ATOMIC_SEQ_CST);
    return 0;
}

async(void, drains)
{
    struct mag_http_server *s;
    struct mag_stream idle;
    struct slow_one *tasks[20];
    int n, rc;
    mag_time begun;

    __atomic_store_n(&may_wake, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&n_slow, 0, __ATOMIC_SEQ_CST);
    SHOULD(start(&s, &(struct mag_http_server_options){ .serve.drain = 40 * MAG_SECOND }) == 0);
    SHOULD(mag_connect(&idle, "127.0.0.1", mag_http_server_port(s), NULL) == 0);
    for (int i = 0; i < 20; i++)
        tasks[i] = spawn(slow_one(s));
    while (__atomic_load_n(&n_slow, __ATOMIC_SEQ_CST) < 20)
        await(mag_sleep(MAG_MS));
    struct wakes_when_it_stops *waker = spawn(wakes_when_it_stops(mag_http_server_port(s)));
    begun = mag_now();
    SHOULD(mag_http_server_stop(s) == 0);
    SHOULD(mag_now() - begun < 30 * MAG_SECOND); /* it does not wait for the idle one */
    for (int i = 0; i < 20; i++) {
        n = 0;
        rc = await_rc(tasks[i], &n);
        SHOULD(rc == 0 && n == 1);
    }
    await(waker);
    SHOULD(mag_stream_read(&idle, &(char){ 0 }, 1) <= 0);
    mag_stream_close(&idle);
    SHOULD(mag_http_server_wait(s) == 0);
    mag_http_server_free(s);
    return 0;
}

Test(http_server, drains)
{
    RUN_CLEAN(drains(), 0);
}

/* ---- the rest ------------------------------------------------------------------------------- */

async(void, serves_until_cancelled)
{
    const struct mag_http_server_options o = { .serve.host = "127.0.0.1" };

    with_timeout(10 * MAG_MS) await(mag_http_serve(route, NULL, &o));
    return 0;
}

Test(http_server, serves_until_cancelled)
{
    RUN_CLEAN(serves_until_cancelled(), -ETIMEDOUT);
}

static int names_its_peer(struct mag_http_exchange *x, void *arg)
{
    char name[100];
    int n = mag_stream_peer_name(mag_http_stream(x), name, sizeof name);

    (void)arg;
    return n < 0 ? n : mag_http_respond(x, 200, NULL, 0, name, (size_t)n);
}

async(void, knows_its_peer)
{
    const struct mag_http_server_options o = { .serve.host = "127.0.0.1" },
                                         bad = { .head_bytes = 5 };
    struct mag_http_server *s;
    char answer[1000];

    SHOULD(mag_http_server_start(&s, route, NULL, &bad) == -EINVAL);
    SHOULD(mag_http_server_start(&s, names_its_peer, NULL, &o) == 0);
    SHOULD(talk(s, GET("/"), strlen(GET("/")), true, answer, sizeof answer) > 0);
    SHOULD(strstr(answer, "\r\n\r\n127.0.0.1:"));
    mag_http_server_free(s);
    return 0;
}

Test(http_server, knows_its_peer)
{
    RUN_CLEAN(knows_its_peer(), 0);
}

Test(http_server, words)
{
    char path[10];

    cr_assert_str_eq(mag_http_status_text(404), "Not Found");
    cr_assert_str_eq(mag_http_status_text(599), "Unknown");
    cr_assert_eq(mag_http_path("/a/../b", path, sizeof path), 2);
    cr_assert_str_eq(path, "/b");
    cr_assert_eq(mag_http_path("/../b", path, sizeof path), -EINVAL);
    cr_assert_eq(mag_http_path("/aaaaaaaaaaaa", path, sizeof path), -ENOBUFS);
}
