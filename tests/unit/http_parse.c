/* SPDX-License-Identifier: MIT */
/*
 * http_parse.c - tests of the HTTP parser: what is let pass, what is refused, and that it does not
 * matter how the bytes were cut
 */
#include "http_bad.h"
#include "http_messages.h"

#include <criterion/criterion.h>

TestSuite(http_parse, .timeout = 30);

static struct messages whole, cut;

Test(http_parse, the_table_is_refused)
{
    cr_assert_geq(N_HTTP_BAD, 60);
    for (int i = 0; i < N_HTTP_BAD; i++) {
        const struct http_bad *b = &http_bad[i];

        messages_of(&whole, b->bytes, b->n, b->n, 0);
        cr_expect_eq(whole.status, b->status, "%s: %d, not %d", b->what, whole.status, b->status);
    }
}

Test(http_parse, the_good_pass)
{
    for (int i = 0; i < N_HTTP_GOOD; i++) {
        const struct http_bad *b = &http_good[i];

        messages_of(&whole, b->bytes, b->n, b->n, 0);
        cr_expect_eq(whole.status, 0, "%s: %d", b->what, whole.status);
        cr_expect_eq(whole.n, b->status, "%s: %d messages", b->what, whole.n);
    }
}

static void cut_everywhere(const struct http_bad *b)
{
    messages_of(&whole, b->bytes, b->n, b->n, 0);
    for (size_t i = 0; i <= b->n; i++) {
        messages_of(&cut, b->bytes, b->n, i, 0);
        cr_assert_str_eq(cut.text, whole.text, "%s, cut at %zu", b->what, i);
    }
    for (size_t piece = 1; piece < 9; piece++) {
        messages_of(&cut, b->bytes, b->n, piece, piece);
        cr_assert_str_eq(cut.text, whole.text, "%s, in pieces of %zu", b->what, piece);
    }
}

Test(http_parse, cuts_do_not_matter)
{
    for (int i = 0; i < N_HTTP_GOOD; i++)
        cut_everywhere(&http_good[i]);
    for (int i = 0; i < N_HTTP_BAD; i++)
        cut_everywhere(&http_bad[i]);
}

/* At once, and so that the first byte comes alone: that is llhttp's to read.  How many heads were
 * read in one pass, without it. */
static int n_read_alike(const char *bytes, size_t n)
{
    messages_of(&whole, bytes, n, n, 0);
    messages_of(&cut, bytes, n, 1, 0);
    cr_assert_eq(cut.n_plain, 0);
    cr_assert_eq(whole.status, cut.status, "\"%.*s\": %d, %d", (int)n, bytes, whole.status,
                 cut.status);
    cr_assert_str_eq(whole.text, cut.text, "\"%.*s\"", (int)n, bytes);
    return whole.n_plain;
}

#define PLAIN_LINE "GET /a?b=%20 HTTP/1.1\r\nHost: a\r\n"

Test(http_parse, plain_heads_are_as_llhttp_reads_them)
{
    static const char *const plain[] = {
        PLAIN_LINE "\r\n",
        PLAIN_LINE "Name:\r\n\r\n",
        PLAIN_LINE "Name:   \r\n\r\n",
        PLAIN_LINE "Name:\t \tvalue \t \r\n\r\n",
        PLAIN_LINE "Name:value\r\n\r\n",
        PLAIN_LINE "Name: a b\tc\r\n\r\n",
        PLAIN_LINE "Name: a:b\r\nName: c\r\n\r\n",
        PLAIN_LINE "Upgrade: websocket\r\n\r\n",
        PLAIN_LINE "Connection: upgrade\r\nUpgrade: x\r\n\r\n",
        PLAIN_LINE "Connection: close\r\n\r\n",
        PLAIN_LINE "Content-Lengthx: y\r\n\r\n",
        PLAIN_LINE "Proxy-Connection: close, a\r\n\r\n",
        PLAIN_LINE "N: 0123456789abcdef0123456\x80\xff\r\n\r\n",
        "PUT /0123456789/ HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "HEAD / HTTP/1.1\r\nhost:\r\n\r\n",
        "DELETE / HTTP/1.1\r\nX: y\r\nhost: b\r\n\r\n",
    };
    static const char *const others[] = {
        "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n" PLAIN_LINE "\r\n",
        PLAIN_LINE "Content-Length: 0\r\n\r\n",
        PLAIN_LINE "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        PLAIN_LINE "Expect: 100-continue\r\n\r\n",
        PLAIN_LINE "Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        PLAIN_LINE
        "1:\r\n2:\r\n3:\r\n4:\r\n5:\r\n6:\r\n7:\r\n8:\r\n9:\r\n10:\r\n11:\r\n12:\r\n13:\r\n"
        "14:\r\n15:\r\n16:\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        cr_assert_eq(n_read_alike(plain[i], strlen(plain[i])), 1, "\"%s\"", plain[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_assert_eq(n_read_alike(others[i], strlen(others[i])), 0, "\"%s\"", others[i]);
}

/* Each byte of a plain head made each other one, and taken away. */
Test(http_parse, what_is_nearly_plain_is_as_llhttp_reads_it)
{
    static const char head[] = PLAIN_LINE "Connection: x\r\nA-b: c d\r\n\r\n";
    char bytes[sizeof head];
    size_t n = sizeof head - 1;

    for (size_t at = 0; at < n; at++) {
        for (int byte = 0; byte < 256; byte++) {
            memcpy(bytes, head, n);
            bytes[at] = (char)byte;
            (void)n_read_alike(bytes, n);
        }
        memmove(bytes + at, head + at + 1, n - at - 1);
        (void)n_read_alike(bytes, n - 1);
    }
}

Test(http_parse, the_next_control)
{
    char bytes[40];

    for (size_t n = 0; n <= sizeof bytes; n++)
        for (size_t at = 0; at < n; at++)
            for (size_t from = 0; from <= at; from++) {
                memset(bytes, at % 2 ? 0x80 : 0x20, sizeof bytes);
                cr_assert_eq(mag_http_next_control(bytes, from, n), n);
                bytes[at] = at % 3 ? 0x7f : 0x1f;
                cr_assert_eq(mag_http_next_control(bytes, from, n), at, "%zu %zu %zu", from, at, n);
            }
}

Test(http_parse, what_a_request_says)
{
    static const char bytes[] =
        "POST /a%20b/./c/../d?e=f HTTP/1.1\r\nHOST: x:1\r\nA: \t b c \t\r\nB:\r\n"
        "Content-Length: 3\r\n\r\nxyzGET /";

    messages_of(&whole, bytes, sizeof bytes - 1, 1000, 0);
    cr_assert_str_eq(whole.text, "POST /a b/d|1k x:1|HOST=x:1|A=b c|B=|Content-Length=3|xyz\n+");
}

static bool keeps_alive(const char *text)
{
    const struct mag_http_limits limits = { 100, 1000, 10 };
    struct mag_http_entry fields[10];
    struct mag_http_head h = { .fields = fields };
    int n = mag_http_head_scan(&h, text, strlen(text), &limits);

    cr_assert_eq((size_t)n, strlen(text));
    cr_assert_eq(mag_http_head_read(&h, text, (size_t)n), 0);
    return h.is_kept_alive;
}

Test(http_parse, connection)
{
    cr_assert(keeps_alive(GET_11 "\r\n"));
    cr_assert(keeps_alive(GET_11 "Connection: x, closed\r\n\r\n"));
    cr_assert(!keeps_alive(GET_11 "Connection: close\r\n\r\n"));
    cr_assert(!keeps_alive(GET_11 "Connection: TE ,Close , x\r\n\r\n"));
    cr_assert(!keeps_alive(GET_11 "Connection: keep-alive\r\nConnection: close\r\n\r\n"));
    cr_assert(!keeps_alive("GET / HTTP/1.0\r\n\r\n"));
    cr_assert(keeps_alive("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    cr_assert(!keeps_alive("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"));
}

/* ---- limits ------------------------------------------------------------------------------ */

static int status_at(size_t n, size_t first, size_t n_target, int n_fields, size_t n_value)
{
    static char text[80000];
    char *p = text;

    p += sprintf(p, "GET /");
    memset(p, 'a', n_target - 1);
    p += n_target - 1;
    p += sprintf(p, " HTTP/1.1\r\nHost: a\r\n");
    for (int i = 1; i < n_fields; i++) {
        p += sprintf(p, "A: ");
        memset(p, 'b', n_value);
        p += n_value;
        p += sprintf(p, "\r\n");
    }
    p += sprintf(p, "\r\n");
    if (n == 0)
        n = (size_t)(p - text);
    messages_of(&whole, text, n, first, 1000);
    return whole.status;
}

Test(http_parse, limits)
{
    cr_assert_eq(status_at(0, 1, 8192 - 13, 1, 1), 0);
    cr_assert_eq(status_at(0, 1, 8192 - 12, 1, 1), 414);
    cr_assert_eq(status_at(0, 60000, 8192 - 12, 1, 1), 414);
    cr_assert_eq(status_at(8300, 1, 50000, 1, 1), 414, "no line end in sight");
    cr_assert_eq(status_at(0, 1, 1, 100, 10), 0);
    cr_assert_eq(status_at(0, 1, 1, 101, 10), 431);
    cr_assert_eq(status_at(0, 60000, 1, 50, 1000), 431);
    cr_assert_eq(status_at(0, 500, 1, 50, 1000), 431);
    cr_assert_eq(status_at(0, 500, 1, 30, 1000), 0);
    cr_assert_eq(status_at(33000, 500, 1, 2, 50000), 431, "an endless line");
}

/* Many chunks of a byte each, with long extensions: more framing than content deserves. */
Test(http_parse, framing_is_bounded)
{
    static char text[200000];
    char *p = text + sprintf(text, CHUNKED);

    for (int i = 0; i < 200; i++)
        p += sprintf(p, "1;%0200d\r\na\r\n", 0);
    messages_of(&whole, text, (size_t)(p - text), 100000, 0);
    cr_assert_eq(whole.status, 400);

    p = text + sprintf(text, CHUNKED "1;%0300d\r\na\r\n0\r\n\r\n", 0);
    messages_of(&whole, text, (size_t)(p - text), 100000, 0);
    cr_assert_eq(whole.status, 400);

    p = text + sprintf(text, CHUNKED);
    for (int i = 0; i < 5000; i++)
        p += sprintf(p, "1\r\na\r\n");
    p += sprintf(p, "0\r\n\r\n");
    messages_of(&whole, text, (size_t)(p - text), 100000, 0);
    cr_assert_eq(whole.status, 0, "plain chunks of a byte are nobody's fault");

    p = text + sprintf(text, CHUNKED "0\r\n");
    for (int i = 0; i < 1000; i++)
        p += sprintf(p, "trailer: x\r\n");
    p += sprintf(p, "\r\n");
    messages_of(&whole, text, (size_t)(p - text), 100, 1);
    cr_assert_eq(whole.status, 431);
}

/* ---- paths ----------------------------------------------------------------------------------- */

static const char *path_of(const char *path)
{
    static char out[100];
    int rc = mag_http_decode_path(out, path, strlen(path));

    return rc < 0 ? "" : (size_t)rc == strlen(out) ? out : "?";
}

Test(http_parse, paths)
{
    cr_assert_str_eq(path_of("/"), "/");
    cr_assert_str_eq(path_of("/a/b"), "/a/b");
    cr_assert_str_eq(path_of("/a%2fb%41"), "/a/bA");
    cr_assert_str_eq(path_of("//a///b//"), "/a/b/");
    cr_assert_str_eq(path_of("/a/./b/."), "/a/b/");
    cr_assert_str_eq(path_of("/a/b/.."), "/a/");
    cr_assert_str_eq(path_of("/a/b/../c"), "/a/c");
    cr_assert_str_eq(path_of("/a/../"), "/");
    cr_assert_str_eq(path_of("/a/.."), "/");
    cr_assert_str_eq(path_of("/.a/..b/c.."), "/.a/..b/c..");
    cr_assert_str_eq(path_of("/.../a"), "/.../a");
    cr_assert_str_eq(path_of("/a//../b"), "/b");
    cr_assert_str_eq(path_of("/%2e/a/%2E%2e/b"), "/b");
    cr_assert_str_eq(path_of("/.."), "");
    cr_assert_str_eq(path_of("/../a"), "");
    cr_assert_str_eq(path_of("/a/../../b"), "");
    cr_assert_str_eq(path_of("/%2e%2e/a"), "");
    cr_assert_str_eq(path_of("/..%2fa"), "");
    cr_assert_str_eq(path_of("/a%00"), "");
    cr_assert_str_eq(path_of("/a%"), "");
    cr_assert_str_eq(path_of("/a%4"), "");
    cr_assert_str_eq(path_of("/a%g0"), "");
    cr_assert_str_eq(path_of("a"), "");
    cr_assert_str_eq(path_of(""), "");
}
