/* SPDX-License-Identifier: MIT */
/*
 * stream.c - tests of streams: reading, writing, closing, connecting
 *
 * Most read and write a script (pair.h), which gives and takes pieces of exactly the sizes that
 * the test wants, or the two ends of a socketpair(2).
 */
#include "mem.h"
#include "pair.h"
#include "stream_connect.h"
#include "transport.h"

#include <fcntl.h>
#include <magpie/tls.h>
#include <netdb.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

PAIR_SUITE(stream);

#define OPTIONS(...) (&(struct mag_stream_options){ __VA_ARGS__ })

/* ---- reading ----------------------------------------------------------------------------- */

ON_1(stream, read_gives_what_there_is)
{
    struct script x = SCRIPT("hello world", .ends = (size_t[]){ 5 }, .n_ends = 1);
    struct mag_stream s;
    char small[3], large[5000];

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_read(&s, small, 0) == 0 && x.n_reads == 0);
    SHOULD(mag_stream_read(&s, small, 3) == 3 && memcmp(small, "hel", 3) == 0);
    SHOULD(mag_stream_read(&s, large, sizeof large) == 2 && memcmp(large, "lo", 2) == 0);
    SHOULD(x.n_reads == 1);
    SHOULD(mag_stream_read(&s, large, sizeof large) == 6 && memcmp(large, " world", 6) == 0);
    SHOULD(!mag_stream_at_eof(&s));
    SHOULD(mag_stream_read(&s, large, sizeof large) == 0 && mag_stream_at_eof(&s));
    SHOULD(mag_stream_read(&s, small, 1) == 0 && x.n_reads == 3);
    SHOULD(mag_stream_close(&s) == 0 && x.n_closed == 1);
    return 0;
}

ON_1(stream, read_exact_gives_all_or_says_how_much)
{
    char *text = bytes_of(200000), *buf = malloc(200000);
    struct script x = { .text = text,
                        .n = 200000,
                        .ends = (size_t[]){ 1, 3, 1000, 5000, 5001, 100000 },
                        .n_ends = 6 };
    struct mag_stream s;
    size_t done = 7;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_read_exact(&s, buf, 0, &done) == 0 && done == 0);
    SHOULD(mag_stream_read_exact(&s, buf, 2, NULL) == 0 && memcmp(buf, text, 2) == 0);
    SHOULD(mag_stream_read_exact(&s, buf, 150000, &done) == 0 && done == 150000);
    SHOULD(memcmp(buf, text + 2, 150000) == 0);
    SHOULD(mag_stream_read_exact(&s, buf, 50000, &done) == -ENODATA && done == 49998);
    SHOULD(memcmp(buf, text + 150002, 49998) == 0);
    SHOULD(mag_stream_read_exact(&s, buf, 1, &done) == -ENODATA && done == 0);
    mag_stream_close(&s);
    free(text);
    free(buf);
    return 0;
}

/* All that read_until answers to this input, as one text. */
static int answers(char *to, size_t room, const char *text, const size_t *ends, size_t n_ends,
                   const struct mag_str *separators, size_t n_separators, size_t limit)
{
    struct script x = SCRIPT(text, .ends = ends, .n_ends = n_ends);
    struct mag_stream s;
    struct mag_str out;
    size_t at = 0;
    char one;
    int rc;

    if (play(&s, &x, OPTIONS(.limit = limit)) < 0)
        return -1;
    for (;;) {
        rc = mag_stream_read_until_any(&s, separators, n_separators, &out);
        if (rc > 0 && (out.len != (size_t)rc || out.ptr[rc] != '\0'))
            return -2;
        at += (size_t)snprintf(to + at, room - at, "<%s>", rc > 0 ? out.ptr : mag_err_name(rc));
        if (rc > 0)
            continue;
        rc = mag_stream_read(&s, &one, 1);
        if (rc <= 0)
            break;
        at += (size_t)snprintf(to + at, room - at, "%c", one);
    }
    mag_stream_close(&s);
    return rc;
}

static const struct mag_str separators[] = {
    { (char *)(uintptr_t) "ab", 2 },
    { (char *)(uintptr_t) "aab", 3 },
    { (char *)(uintptr_t) "ccc", 3 },
    { (char *)(uintptr_t) "\n", 1 },
};

/* However the input is cut into pieces, the answers are the same. */
static int every_split(const char *text, size_t n_separators, size_t limit)
{
    char whole[400], cut[400];
    size_t n = strlen(text), all[64];

    for (size_t i = 0; i < n; i++)
        all[i] = i + 1;
    SHOULD(answers(whole, sizeof whole, text, NULL, 0, separators, n_separators, limit) == 0);
    SHOULD(answers(cut, sizeof cut, text, all, n, separators, n_separators, limit) == 0);
    SHOULD(strcmp(whole, cut) == 0);
    for (size_t i = 1; i < n; i++) {
        for (size_t k = i; k < n; k++) {
            size_t ends[] = { i, k };
            SHOULD(answers(cut, sizeof cut, text, ends, 2, separators, n_separators, limit) == 0);
            SHOULD(strcmp(whole, cut) == 0);
        }
    }
    return 0;
}

ON_1(stream, read_until_does_not_care_about_pieces)
{
    static const char *const texts[] = { "ab", "aab", "xaabyabab", "aaab\n\nabccc", "cccccc\nccab",
                                         "nothing", "aaaaaaaa", "a\nba\ncc\nccc\nx" };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (size_t n = 1; n <= 4; n++)
            for (size_t limit = 0; limit <= 6; limit += 3) {
                int rc = every_split(texts[i], n, limit);
                if (rc < 0)
                    return rc;
            }
    return 0;
}

ON_1(stream, read_until_takes_the_separator_that_ends_first)
{
    struct script x = SCRIPT("one\r\ntwo\nthree\r\n\r\nrest");
    const struct mag_str ends[] = { { (char *)(uintptr_t) "\r\n", 2 },
                                    { (char *)(uintptr_t) "\r\n\r\n", 4 },
                                    { (char *)(uintptr_t) "\n", 1 } };
    struct mag_stream s;
    struct mag_str out;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_read_until_any(&s, ends, 3, &out) == 5 && is_text(out, "one\r\n"));
    SHOULD(mag_stream_read_until_any(&s, ends, 3, &out) == 4 && is_text(out, "two\n"));
    SHOULD(mag_stream_read_until(&s, "\r\n\r\n", &out) == 9 && is_text(out, "three\r\n\r\n"));
    SHOULD(mag_stream_read_until(&s, "", &out) == -EINVAL);
    SHOULD(mag_stream_read_until_any(&s, ends, 0, &out) == -EINVAL);
    SHOULD(mag_stream_read_until(&s, "!", &out) == -ENODATA && out.len == 0);
    SHOULD(mag_stream_read_until(&s, "e", &out) == 2 && is_text(out, "re"));
    SHOULD(mag_stream_readline(&s, &out) == 2 && is_text(out, "st"));
    SHOULD(mag_stream_readline(&s, &out) == 0 && is_text(out, ""));
    SHOULD(mag_stream_read_until(&s, "e", &out) == -ENODATA);
    mag_stream_close(&s);
    return 0;
}

ON_1(stream, at_the_limit_nothing_is_lost)
{
    struct script x = SCRIPT("0123456789\nabc\n");
    struct mag_stream s;
    struct mag_str out;
    const char *bytes;
    char buf[20];

    SHOULD(play(&s, &x, OPTIONS(.limit = 8)) == 0);
    SHOULD(mag_stream_readline(&s, &out) == -EMSGSIZE && out.len == 0);
    SHOULD(mag_stream_readline(&s, &out) == -EMSGSIZE);
    SHOULD(mag_stream_fill(&s) == -EMSGSIZE);
    SHOULD(mag_stream_peek(&s, &bytes) == 8 && memcmp(bytes, "01234567", 8) == 0);
    SHOULD(mag_stream_read(&s, buf, 4) == 4 && memcmp(buf, "0123", 4) == 0);
    SHOULD(mag_stream_readline(&s, &out) == 7 && is_text(out, "456789\n"));
    SHOULD(mag_stream_readline(&s, &out) == 4 && is_text(out, "abc\n"));
    SHOULD(mag_stream_readline(&s, &out) == 0);
    mag_stream_close(&s);
    return 0;
}

ON_1(stream, a_line_may_be_as_long_as_the_limit)
{
    for (size_t limit = 1; limit <= 9000; limit += limit < 20 ? 1 : 997) {
        char *text = malloc(2 * limit + 1);
        struct script x = { .text = text, .n = 2 * limit };
        struct mag_stream s;
        struct mag_str out;

        memset(text, 'x', 2 * limit);
        text[limit - 1] = text[2 * limit - 1] = '\n';
        SHOULD(play(&s, &x, OPTIONS(.limit = limit)) == 0);
        SHOULD(mag_stream_readline(&s, &out) == (int)limit && out.ptr[limit - 1] == '\n');
        SHOULD(mag_stream_readline(&s, &out) == (int)limit && out.ptr[limit] == '\0');
        SHOULD(mag_stream_readline(&s, &out) == 0);
        mag_stream_close(&s);
        free(text);
    }
    return 0;
}

ON_1(stream, lines_have_no_ends)
{
    struct script x = SCRIPT("one\r\n\n\r\n\rtwo\r\r\nthree");
    static const char *const lines[] = { "one", "", "", "\rtwo\r", "three" };
    struct mag_stream s;
    int n = 0;

    SHOULD(play(&s, &x, NULL) == 0);
    async_for (struct mag_str, line, mag_stream_lines(&s)) {
        SHOULD(n < 5 && is_text(line, lines[n]));
        n++;
    }
    SHOULD(n == 5);
    mag_stream_close(&s);
    return 0;
}

ON_1(stream, read_all)
{
    char *text = bytes_of(100000);
    struct script x = { .text = text, .n = 100000, .ends = (size_t[]){ 10, 5000 }, .n_ends = 2 };
    struct mag_stream s;
    struct mag_str out;
    char buf[6];

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_read_exact(&s, buf, 5, NULL) == 0);
    SHOULD(mag_stream_read_all(&s, &out, 90000) == -EFBIG && out.len == 90000);
    SHOULD(memcmp(out.ptr, text + 5, 90000) == 0 && out.ptr[90000] == '\0');
    SHOULD(mag_stream_read_all(&s, &out, 9995) == 0 && out.len == 9995);
    SHOULD(memcmp(out.ptr, text + 90005, 9995) == 0);
    SHOULD(mag_stream_read_all(&s, &out, 0) == 0 && is_text(out, ""));
    mag_stream_close(&s);
    x.at = 0;
    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_read_all(&s, &out, 0) == 0 && out.len == 100000);
    SHOULD(memcmp(out.ptr, text, 100000) == 0);
    mag_stream_close(&s);
    free(text);
    return 0;
}

ON_1(stream, an_error_of_reading_stays)
{
    struct script x = SCRIPT("abc", .error = -ECONNRESET);
    struct mag_stream s;
    struct mag_str out;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_readline(&s, &out) == -ECONNRESET);
    x.error = 0;
    SHOULD(mag_stream_readline(&s, &out) == -ECONNRESET && !mag_stream_at_eof(&s));
    SHOULD(mag_stream_read_until(&s, "b", &out) == 2 && is_text(out, "ab"));
    SHOULD(mag_stream_read_all(&s, &out, 0) == -ECONNRESET && is_text(out, "c"));
    SHOULD(mag_stream_puts(&s, "x") == 0 && mag_stream_drain(&s) == 0);
    mag_stream_close(&s);
    return 0;
}

ON_1(stream, peek_consume_fill)
{
    struct script x = SCRIPT("hello\nworld", .ends = (size_t[]){ 7 }, .n_ends = 1);
    struct mag_stream s;
    struct mag_str line;
    const char *p;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_peek(&s, &p) == 0);
    SHOULD(mag_stream_fill(&s) == 7 && mag_stream_peek(&s, &p) == 7);
    mag_stream_consume(&s, 1);
    SHOULD(mag_stream_readline(&s, &line) == 5 && is_text(line, "ello\n"));
    SHOULD(mag_stream_peek(&s, &p) == 1 && *p == 'w');
    SHOULD(mag_stream_fill(&s) == 5 && mag_stream_peek(&s, &p) == 5);
    SHOULD(memcmp(p, "world", 5) == 0);
    SHOULD(mag_stream_fill(&s) == 0);
    mag_stream_consume(&s, 100);
    SHOULD(mag_stream_peek(&s, &p) == 0 && mag_stream_at_eof(&s));
    mag_stream_close(&s);
    return 0;
}

/* What a parser does: takes a piece, keeps the rest, reads on; with buffers that grow. */
ON_1(stream, filling_over_and_over)
{
    char *text = bytes_of(300000);
    struct script x = { .text = text, .n = 300000 };
    struct mag_stream s;
    const char *p;
    size_t at = 0, n;
    int rc = 1;

    SHOULD(play(&s, &x, OPTIONS(.limit = 20000)) == 0);
    for (int i = 0; rc > 0; i++) {
        rc = mag_stream_fill(&s);
        SHOULD(rc >= 0);
        n = mag_stream_peek(&s, &p);
        SHOULD(n <= 20000 && memcmp(p, text + at, n) == 0);
        n = n * (size_t)(i % 4 + 1) / 4;
        n = n > 0 ? n : mag_stream_peek(&s, &p);
        mag_stream_consume(&s, n);
        at += n;
        SHOULD(s.in.room <= 20000);
    }
    at += mag_stream_peek(&s, &p);
    SHOULD(at == 300000);
    mag_stream_close(&s);
    free(text);
    return 0;
}

/* A large buffer does not stay with a stream whose peer has become quiet. */
ON_1(stream, a_buffer_shrinks_again)
{
    char *text = bytes_of(100010);
    struct script x = { .text = text,
                        .n = 100010,
                        .ends = (size_t[]){ 100000, 100001, 100002, 100003 },
                        .n_ends = 4 };
    struct mag_stream s;
    int rc;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(s.in.ptr == NULL && s.out.ptr == NULL);
    while (x.at < 100000) {
        SHOULD((rc = mag_stream_fill(&s)) > 0);
        mag_stream_consume(&s, (size_t)rc);
    }
    SHOULD(s.in.room == 65536);
    for (int i = 0; i < 2; i++) {
        SHOULD(mag_stream_fill(&s) == 1);
        mag_stream_consume(&s, 1);
    }
    SHOULD(s.in.room == 4096);
    mag_stream_close(&s);
    free(text);
    return 0;
}

/* With .poll_first there is no buffer while nothing comes, and none is kept for what was sent. */
async(int, feeds, (struct pair *, p), (bool *, had_buffer))
{
    await(mag_sleep(2 * MAG_MS));
    *had_buffer = p->a.in.ptr || p->a.out.ptr;
    await(mag_stream_write_all(&p->b, "line\n", 5, NULL));
    async_return(0);
}

ON_1(stream, poll_first_waits_without_a_buffer)
{
    for (int i = 0; i < 2; i++) {
        bool had_buffer = false;
        struct pair p;
        struct mag_str line;

        SHOULD(open_pair_with(&p, OPTIONS(.poll_first = i == 0)) == 0);
        for (int k = 0; k < 2; k++) {
            SHOULD(mag_stream_puts(&p.a, "question") == 0);
            __auto_type t = spawn(feeds(&p, &had_buffer));
            SHOULD(mag_stream_readline(&p.a, &line) == 5 && is_text(line, "line\n"));
            SHOULD(await(t) == 0 && had_buffer == (i == 1));
        }
        close_pair(&p);
    }
    return 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

ON_1(stream, small_writes_go_together)
{
    struct script x = SCRIPT("");
    struct mag_stream s;
    struct iovec iov[] = { { (char *)(uintptr_t) "c", 1 }, { NULL, 0 },
                           { (char *)(uintptr_t) "de", 2 } };

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_write(&s, "a", 1, NULL) == 0 && mag_stream_puts(&s, "b") == 0);
    SHOULD(mag_stream_writev(&s, iov, 3) == 0 && mag_stream_writev(&s, NULL, 0) == 0);
    SHOULD(mag_stream_writev(&s, iov, -1) == -EINVAL);
    SHOULD(mag_stream_write(&s, NULL, 0, NULL) == 0);
    SHOULD(mag_stream_n_buffered(&s) == 5 && x.n_writes == 0);
    SHOULD(mag_stream_drain(&s) == 0 && x.n_writes == 1 && mag_stream_n_buffered(&s) == 0);
    SHOULD(memcmp(x.bytes, "abcde", 5) == 0 && x.n_written == 5);
    SHOULD(mag_stream_drain(&s) == 0 && x.n_writes == 1);
    SHOULD(mag_stream_puts(&s, "f") == 0 && mag_stream_write_all(&s, "gh", 2, NULL) == 0);
    SHOULD(x.n_writes == 2 && memcmp(x.bytes, "abcdefgh", 8) == 0);
    mag_stream_close(&s);
    return 0;
}

ON_1(stream, water_marks)
{
    struct script x = SCRIPT("", .n_per_write = 10);
    struct mag_stream s;
    char text[200];

    memset(text, 'x', sizeof text);
    SHOULD(play(&s, &x, OPTIONS(.high_water = 100, .low_water = 30)) == 0);
    SHOULD(mag_stream_write(&s, text, 60, NULL) == 0 && mag_stream_write(&s, text, 40, NULL) == 0);
    SHOULD(mag_stream_n_buffered(&s) == 100 && x.n_writes == 0);
    SHOULD(mag_stream_write(&s, text, 1, NULL) == 0);
    SHOULD(mag_stream_n_buffered(&s) == 21 && x.n_written == 80);
    SHOULD(mag_stream_write(&s, text, 200, NULL) == 0);
    SHOULD(mag_stream_n_buffered(&s) == 21 && x.n_written == 280);
    SHOULD(mag_stream_close(&s) == 0 && x.n_written == 301);
    SHOULD(play(&s, &x, OPTIONS(.high_water = 10, .low_water = 11)) == -EINVAL);
    SHOULD(play(&s, &x, OPTIONS(.limit = (size_t)1 << 31)) == -EINVAL);
    return 0;
}

/* What is large is neither copied nor cut off from what is before it. */
ON_1(stream, large_writes_go_straight)
{
    char *text = bytes_of(300000);
    struct script x = SCRIPT("");
    struct mag_stream s;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_write(&s, text, 100, NULL) == 0 && x.n_writes == 0);
    SHOULD(mag_stream_write(&s, text + 100, 20000, NULL) == 0);
    SHOULD(x.n_writes == 1 && x.written[0] == 20100 && s.out.room <= 4096);
    SHOULD(mag_stream_write(&s, text + 20100, 279900, NULL) == 0);
    SHOULD(x.n_writes == 2 && x.n_written == 300000 && memcmp(x.bytes, text, 4096) == 0);
    mag_stream_close(&s);
    free(text);
    return 0;
}

/* All pieces of a vector, however short the writes come. */
ON_1(stream, writev_in_any_pieces)
{
    for (size_t per = 1; per < 60; per++) {
        struct script x = SCRIPT("", .n_per_write = per);
        struct mag_stream s;
        struct iovec iov[40];
        char text[] = "abcdefghijklmnopqrstuvwxyz";
        size_t n = 0;

        for (size_t i = 0; i < 40; i++, n += i % 7)
            iov[i] = (struct iovec){ text + i % 20, i % 7 };
        SHOULD(play(&s, &x, OPTIONS(.high_water = 30, .low_water = 5)) == 0);
        SHOULD(mag_stream_puts(&s, "0123456789") == 0);
        SHOULD(mag_stream_writev(&s, iov, 40) == 0 && mag_stream_drain(&s) == 0);
        n = 10;
        for (size_t i = 0; i < 40; n += iov[i++].iov_len)
            SHOULD(memcmp(x.bytes + n, iov[i].iov_base, iov[i].iov_len) == 0);
        SHOULD(x.n_written == n);
        mag_stream_close(&s);
    }
    return 0;
}

ON_1(stream, an_error_of_writing_stays)
{
    struct script x = SCRIPT("answer", .write_error = -EPIPE);
    struct mag_stream s;
    size_t done = 9;
    char buf[10];

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_puts(&s, "abc") == 0);
    SHOULD(mag_stream_drain(&s) == -EPIPE);
    x.write_error = 0;
    SHOULD(mag_stream_write(&s, "x", 1, &done) == -EPIPE && done == 0);
    SHOULD(mag_stream_drain(&s) == -EPIPE && mag_stream_n_buffered(&s) == 3);
    SHOULD(mag_stream_read(&s, buf, 10) == 6);
    SHOULD(mag_stream_close(&s) == -EPIPE && x.n_closed == 1 && x.n_written == 0);
    return 0;
}

static int take_nothing(void *self, const struct iovec *iov, int n_iov)
{
    struct script *x = self;

    (void)iov, (void)n_iov;
    x->n_writes++;
    return 0;
}

ON_1(stream, a_transport_that_takes_nothing_has_failed)
{
    struct mag_transport idle = script_transport;
    struct script x = SCRIPT("answer");
    struct mag_stream s;
    size_t done = 9;
    char buf[10];

    idle.write = take_nothing;
    SHOULD(mag_stream_of_transport(&s, &idle, &x, NULL) == 0);
    SHOULD(mag_stream_write_all(&s, "abc", 3, &done) == -EIO && done == 0);
    SHOULD(mag_stream_puts(&s, "abc") == -EIO && mag_stream_write_eof(&s) == -EIO);
    SHOULD(mag_stream_read(&s, buf, 10) == 6);
    SHOULD(mag_stream_close(&s) == -EIO && x.n_closed == 1 && x.n_writes == 1);
    return 0;
}

ON_1(stream, write_eof)
{
    struct script x = SCRIPT("answer");
    struct mag_stream s;
    char buf[10];

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_puts(&s, "abc") == 0);
    SHOULD(mag_stream_write_eof(&s) == 0 && x.n_written == 3 && x.n_eofs == 1);
    SHOULD(mag_stream_write_eof(&s) == 0 && x.n_eofs == 1);
    SHOULD(mag_stream_puts(&s, "abc") == -EPIPE);
    SHOULD(mag_stream_read(&s, buf, 10) == 6);
    SHOULD(mag_stream_close(&s) == 0 && x.n_written == 3);
    return 0;
}

/* ---- the two halves ---------------------------------------------------------------------------- */

ON_1(stream, a_read_that_has_to_wait_sends_first)
{
    struct script x = SCRIPT("abcdef", .ends = (size_t[]){ 3 }, .n_ends = 1);
    struct mag_stream s;
    char buf[2];

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_puts(&s, "1") == 0);
    SHOULD(mag_stream_read(&s, buf, 2) == 2 && x.n_writes == 1);
    SHOULD(mag_stream_puts(&s, "2") == 0);
    SHOULD(mag_stream_read(&s, buf, 2) == 1 && x.n_writes == 1);
    SHOULD(mag_stream_read(&s, buf, 2) == 2 && x.n_writes == 2);
    mag_stream_close(&s);
    return 0;
}

async(int, reader_of, (struct mag_stream *, s), (int *, rc))
{
    char buf[2000];

    arrive();
    *rc = mag_stream_read(s, buf, sizeof buf);
    async_return(*rc);
}

async(int, line_reader_of, (struct mag_stream *, s), (int *, rc))
{
    struct mag_str line;

    arrive();
    *rc = mag_stream_readline(s, &line);
    async_return(*rc);
}

async(int, writer_of, (struct mag_stream *, s), (size_t, n), (int *, rc), (size_t *, done))
{
    char *text = bytes_of(n);

    arrive();
    *rc = mag_stream_write(s, text, n, done);
    free(text);
    async_return(*rc);
}

ON_1_AND_4(stream, two_readers_are_one_too_many)
{
    struct pair p;
    struct mag_str line;
    char buf[2];
    int rc = 1;

    SHOULD(open_pair(&p) == 0);
    __auto_type r = spawn(line_reader_of(&p.a, &rc));
    SHOULD(have_arrived(1));
    SHOULD(mag_stream_read(&p.a, buf, 2) == -EBUSY && mag_stream_readline(&p.a, &line) == -EBUSY);
    SHOULD(mag_stream_fill(&p.a) == -EBUSY && mag_stream_read_exact(&p.a, buf, 2, NULL) == -EBUSY);
    SHOULD(mag_stream_read_all(&p.a, &line, 0) == -EBUSY);
    SHOULD(mag_stream_puts(&p.a, "question") == 0 && mag_stream_drain(&p.a) == 0);
    SHOULD(mag_stream_read(&p.b, buf, 2) == 2);
    SHOULD(mag_stream_puts(&p.b, "answer\n") == 0 && mag_stream_drain(&p.b) == 0);
    SHOULD(await(r) == 7);
    close_pair(&p);
    return 0;
}

/* Each of several writers' bytes stay together. */
ON_1_AND_4(stream, writers_take_turns)
{
    enum { N = 8, BYTES = 50000 };
    struct pair p;
    struct mag_str all;
    int rc[N];
    size_t done[N];

    SHOULD(open_pair_with(&p, OPTIONS(.high_water = 1000)) == 0);
    task_group(g)
    {
        for (int i = 0; i < N; i++)
            group_spawn(g, writer_of(&p.a, BYTES, &rc[i], &done[i]));
        for (int i = 0; i < N; i++) {
            char *buf = malloc(BYTES);
            size_t n = i < N - 1 ? BYTES : BYTES - 250; /* the last one's low water */
            SHOULD(mag_stream_read_exact(&p.b, buf, n, NULL) == 0);
            for (size_t k = 0; k < n; k++)
                SHOULD(buf[k] == byte_at(k));
            free(buf);
        }
    }
    for (int i = 0; i < N; i++)
        SHOULD(rc[i] == 0 && done[i] == BYTES);
    SHOULD(mag_stream_close(&p.a) == 0);
    SHOULD(mag_stream_read_all(&p.b, &all, 0) == 0 && all.len == 250);
    close_pair(&p);
    return 0;
}

async(int, echoes, (struct mag_stream *, s))
{
    char buf[4096];
    int rc;

    while ((rc = mag_stream_read(s, buf, sizeof buf)) > 0)
        if ((rc = mag_stream_write_all(s, buf, (size_t)rc, NULL)) < 0)
            break;
    if (rc == 0)
        rc = mag_stream_write_eof(s);
    async_return(rc);
}

/* One that reads is not held up by one that writes and has to wait, and the other way round. */
ON_1_AND_4(stream, both_ways_at_once)
{
    enum { BYTES = 3000000 };
    struct pair p;
    int rc = 1;
    size_t done = 0;
    char *buf = malloc(BYTES);

    SHOULD(open_pair(&p) == 0);
    __auto_type e = spawn(echoes(&p.b));
    __auto_type w = spawn(writer_of(&p.a, BYTES, &rc, &done));
    SHOULD(mag_stream_read_exact(&p.a, buf, BYTES, NULL) == 0);
    for (size_t i = 0; i < BYTES; i++)
        SHOULD(buf[i] == byte_at(i));
    free(buf);
    SHOULD(await(w) == 0 && done == BYTES);
    SHOULD(mag_stream_write_eof(&p.a) == 0);
    SHOULD(await(e) == 0);
    close_pair(&p);
    return 0;
}

/* Writes n bytes in small pieces, which are buffered, and then reads as many. */
async(void, writes_and_reads, (struct mag_stream *, s), (size_t, n))
{
    char *buf = calloc(1, n);
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i += 1000)
        rc = mag_stream_write(s, buf + i, 1000, NULL);
    if (rc == 0)
        rc = mag_stream_read_exact(s, buf, n, NULL);
    if (rc == 0)
        rc = mag_stream_drain(s); /* what was not sent, as there was something to be read */
    free(buf);
    return rc;
}

/* Both send more than the kernel holds before they read: neither waits for the other's reading
 * while there is something to be read. */
ON_1_AND_4(stream, a_reader_who_has_to_send_reads_too)
{
    struct pair p;
    int rc = 0;

    SHOULD(open_pair(&p) == 0);
    narrow(&p.a);
    narrow(&p.b);
    with_timeout (10 * MAG_SECOND)
    {
        __auto_type a = spawn(writes_and_reads(&p.a, 60000));
        __auto_type b = spawn(writes_and_reads(&p.b, 60000));
        rc = await_rc(a, NULL);
        rc = rc < 0 ? rc : await_rc(b, NULL);
    }
    SHOULD(rc == 0);
    close_pair(&p);
    return 0;
}

async(void, drains, (struct mag_stream *, s))
{
    arrive();
    return mag_stream_drain(s);
}

/* A writer is cancelled that a reader relies on: the rest of what is buffered goes all the same. */
ON_1_AND_4(stream, a_reader_does_what_a_cancelled_writer_has_left)
{
    enum { N = 60000 };
    char *text = bytes_of(N), *got = malloc(N);

    for (int i = 0; i < 2; i++) {
        struct pair p;
        int rc = 1;

        diary_clear();
        SHOULD(open_pair_with(&p, OPTIONS(.poll_first = i == 1)) == 0);
        narrow(&p.a);
        narrow(&p.b);
        for (int k = 0; k < N; k += 10000)
            SHOULD(mag_stream_write(&p.a, text + k, 10000, NULL) == 0);
        __auto_type w = spawn(drains(&p.a));
        SHOULD(have_arrived(1));
        __auto_type r = spawn(line_reader_of(&p.a, &rc));
        SHOULD(have_arrived(2));
        SHOULD(mag_stream_n_buffered(&p.a) > 0);
        SHOULD(CANCELS(w));
        with_timeout (10 * MAG_SECOND)
            rc = mag_stream_read_exact(&p.b, got, N, NULL);
        SHOULD(rc == 0 && memcmp(got, text, N) == 0);
        SHOULD(mag_stream_puts(&p.b, "thanks\n") == 0 && mag_stream_drain(&p.b) == 0);
        SHOULD(await(r) == 7);
        close_pair(&p);
    }
    free(text);
    free(got);
    return 0;
}

/* ---- closing --------------------------------------------------------------------------------- */

ON_1(stream, close_sends_what_is_buffered)
{
    struct pair p;
    struct mag_str all;

    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_puts(&p.a, "last words") == 0);
    SHOULD(mag_stream_close(&p.a) == 0 && mag_stream_close(&p.a) == 0);
    SHOULD(mag_stream_read_all(&p.b, &all, 0) == 0 && is_text(all, "last words"));
    SHOULD(mag_stream_close(&p.b) == 0);
    mag_stream_abort(&p.b);
    return 0;
}

ON_1(stream, a_closed_stream_answers)
{
    struct mag_stream s = { 0 };
    struct mag_str out;
    const char *bytes;
    char buf[3];

    for (int i = 0; i < 2; i++) {
        SHOULD(mag_stream_read(&s, buf, 3) == -EBADF && mag_stream_fill(&s) == -EBADF);
        SHOULD(mag_stream_read_exact(&s, buf, 3, NULL) == -EBADF);
        SHOULD(mag_stream_readline(&s, &out) == -EBADF && mag_stream_read_all(&s, &out, 0) == -EBADF);
        SHOULD(mag_stream_peek(&s, &bytes) == 0 && mag_stream_n_buffered(&s) == 0);
        SHOULD(mag_stream_puts(&s, "x") == -EBADF && mag_stream_drain(&s) == -EBADF);
        SHOULD(mag_stream_write_eof(&s) == -EBADF && mag_stream_write_all(&s, "x", 1, NULL) == -EBADF);
        SHOULD(mag_stream_fd(&s) == -1 && mag_stream_peer_name(&s, buf, 3) == -EBADF);
        SHOULD(mag_stream_own_name(&s, buf, 3) == -EBADF && mag_stream_close(&s) == 0);
        mag_stream_abort(&s);
        SHOULD(mag_stream_of_fd(&s, open("/dev/null", O_RDWR), NULL) == 0);
        SHOULD(mag_stream_puts(&s, "x") == 0 && mag_stream_close(&s) == 0);
    }
    SHOULD(mag_stream_of_fd(&s, -1, NULL) == -EBADF);
    return 0;
}

ON_1_AND_4(stream, close_ends_a_read)
{
    for (int i = 0; i < 20; i++) {
        struct pair p;
        int rc = 1;

        diary_clear();
        SHOULD(open_pair(&p) == 0);
        __auto_type r = spawn(reader_of(&p.a, &rc));
        while (i % 2 && diary.n_arrived == 0)
            await(mag_yield());
        SHOULD(i % 4 < 2 || have_arrived(1));
        if (i % 8 < 4)
            mag_stream_abort(&p.a);
        else
            SHOULD(mag_stream_close(&p.a) == 0);
        SHOULD(await(r) == -EBADF);
        close_pair(&p);
    }
    return 0;
}

ON_1_AND_4(stream, close_ends_a_write)
{
    for (int i = 0; i < 10; i++) {
        struct pair p;
        int rc = 1;
        size_t done = 0;

        diary_clear();
        SHOULD(open_pair(&p) == 0);
        __auto_type w = spawn(writer_of(&p.a, 10000000, &rc, &done));
        SHOULD(have_arrived(1));
        (void)mag_stream_close(&p.a);
        SHOULD(await(w) == -EBADF && done < 10000000);
        close_pair(&p);
    }
    return 0;
}

/* A task whose stream it is: it waits in something, closes, and lets the memory go. */
async(void, owns_and_frees, (struct pair *, p), (bool, writes))
{
    static const char noise[60000];
    char buf[10];
    int rc = 0;

    if (writes) /* more than the kernel takes: the close waits */
        for (int i = 0; i < 60 && rc == 0; i++)
            rc = mag_stream_write(&p->a, noise, 1000, NULL);
    arrive();
    if (!writes)
        rc = mag_stream_read(&p->a, buf, sizeof buf);
    (void)mag_stream_close(&p->a);
    memset(&p->a, 0x55, sizeof p->a);
    return rc;
}

/* Another task ends it: the owner's close returns when that one has let go of it. */
ON_1_AND_4(stream, the_owner_may_go_when_another_has_ended_it)
{
    for (int i = 0; i < 40; i++) {
        struct pair *p = calloc(1, sizeof *p);
        bool writes = i % 2;
        int rc;

        diary_clear();
        SHOULD(p && open_pair(p) == 0);
        narrow(&p->a);
        narrow(&p->b);
        __auto_type owner = spawn(owns_and_frees(p, writes));
        SHOULD(have_arrived(1));
        if (i % 4 < 2)
            mag_stream_abort(&p->a);
        else
            (void)mag_stream_close(&p->a);
        rc = await_rc(owner, NULL);
        SHOULD(rc == (writes ? 0 : -EBADF));
        SHOULD(mag_stream_close(&p->b) == 0);
        free(p);
    }
    return 0;
}

/* The same for a pipe, on which there is no shutdown(2). */
ON_1_AND_4(stream, close_ends_a_read_of_a_pipe)
{
    struct mag_stream s;
    int fds[2], rc = 1;

    SHOULD(pipe2(fds, O_CLOEXEC) == 0);
    SHOULD(mag_stream_of_fd(&s, fds[0], NULL) == 0);
    __auto_type r = spawn(line_reader_of(&s, &rc));
    SHOULD(have_arrived(1));
    SHOULD(mag_stream_close(&s) == 0);
    SHOULD(await(r) == -EBADF);
    close(fds[1]);
    return 0;
}

/* A peer that does not read keeps a close for as long as its limit of time, and no longer. */
ON_1_AND_4(stream, a_limit_of_time_around_close)
{
    static const char text[1000];
    int before = n_descriptors(), rc;
    struct mag_scope limit;
    struct mag_str all;
    struct pair p;

    SHOULD(open_pair(&p) == 0);
    narrow(&p.a);
    narrow(&p.b);
    for (int i = 0; i < 60; i++)
        SHOULD(mag_stream_write(&p.a, text, sizeof text, NULL) == 0);
    SHOULD(mag_timeout_enter(&limit, 20 * MAG_MS, NULL) == 0);
    rc = mag_scope_leave(&limit, mag_stream_close(&p.a));
    SHOULD(rc == -ETIMEDOUT && mag_stream_fd(&p.a) == -1 && n_descriptors() == before + 1);
    SHOULD(mag_stream_read_all(&p.b, &all, 0) == 0 && all.len < 60000);
    mag_stream_close(&p.b);
    return 0;
}

static int closing_closes(void *arg, long *value)
{
    struct pair *p = arg;

    (void)value;
    nth_point();
    return mag_stream_close(&p->a);
}

/* Cancelled before: nothing is sent, and it is closed all the same. */
ON_1(stream, close_of_a_cancelled_task_sends_nothing)
{
    struct pair p;
    struct mag_str all;
    struct co *c;

    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_puts(&p.a, "last words") == 0);
    nth.n = 0;
    nth.at = 1;
    c = go(closing_closes, &p);
    SHOULD(await_co(c, NULL) == -ECANCELED);
    nth.at = 0;
    SHOULD(mag_stream_read_all(&p.b, &all, 0) == 0 && all.len == 0);
    close_pair(&p);
    return 0;
}

ON_1(stream, abort_resets)
{
    struct pair p;
    char buf[10];

    SHOULD(open_tcp_pair(&p) == 0);
    SHOULD(mag_stream_puts(&p.a, "never sent") == 0);
    mag_stream_abort(&p.a);
    SHOULD(mag_stream_read(&p.b, buf, 10) == -ECONNRESET);
    SHOULD(mag_stream_read(&p.b, buf, 10) == -ECONNRESET);
    close_pair(&p);
    return 0;
}

/* A server's record hears of it first, once. */
static int n_told;

static void count_closing(struct mag_stream *s)
{
    n_told += s->owner == NULL && mag_stream_fd(s) >= 0;
}

ON_1(stream, an_owner_is_told)
{
    struct mag_stream_owner owner = { count_closing };
    struct pair p;

    n_told = 0;
    SHOULD(open_pair(&p) == 0);
    p.a.owner = p.b.owner = &owner;
    SHOULD(mag_stream_close(&p.a) == 0 && n_told == 1);
    SHOULD(mag_stream_close(&p.a) == 0 && n_told == 1);
    mag_stream_abort(&p.b);
    SHOULD(n_told == 2);
    return 0;
}

/* ---- cancelled everywhere ------------------------------------------------------------------------ */

/* A reader that is cancelled, and what it has read so far. */
struct reading {
    struct script x;
    struct mag_stream s;
    char got[100];
    size_t n;
};

static int reads_lines(void *arg, long *value)
{
    struct reading *r = arg;
    struct mag_str line;
    int rc;

    (void)value;
    for (;;) {
        nth_point();
        rc = mag_stream_read_until(&r->s, "--", &line);
        if (rc < 0)
            return rc;
        memcpy(r->got + r->n, line.ptr, line.len);
        r->n += line.len;
    }
}

/* What it has not got is there for the next. */
static int rest_is_there(void *arg, int rc)
{
    struct reading *r = arg;
    struct mag_str all;

    SHOULD(rc == -ECANCELED || rc == -ENODATA);
    SHOULD(mag_stream_read_all(&r->s, &all, 0) == 0);
    memcpy(r->got + r->n, all.ptr, all.len + 1);
    SHOULD(strcmp(r->got, r->x.text) == 0);
    mag_stream_close(&r->s);
    r->n = r->x.at = 0;
    return play(&r->s, &r->x, NULL);
}

ON_1(stream, a_cancelled_reader_loses_nothing)
{
    struct reading r = { .x = SCRIPT("one--two-three--four-", .is_slow = true,
                                     .ends = (size_t[]){ 1, 4, 5, 6, 9, 10, 15, 16, 17, 18, 20 },
                                     .n_ends = 11) };
    int rc;

    SHOULD(play(&r.s, &r.x, NULL) == 0);
    rc = nth_cancel(reads_lines, &r, rest_is_there);
    mag_stream_close(&r.s);
    return rc;
}

/* A writer over its high water; what it was told to have been taken arrives, and nothing else. */
struct writing {
    struct script x;
    struct mag_stream s;
    size_t n;
};

static int writes_pieces(void *arg, long *value)
{
    struct writing *w = arg;
    int rc = 0;

    (void)value;
    for (size_t i = 0; rc == 0 && i < 12; i++) {
        char text[120];
        size_t n = i * 10, done = 0;

        for (size_t k = 0; k < n; k++)
            text[k] = byte_at(w->n + k);
        nth_point();
        rc = i % 4 == 3 ? mag_stream_write_all(&w->s, text, n, &done)
                        : mag_stream_write(&w->s, text, n, &done);
        SHOULD(rc < 0 || done == n);
        w->n += done;
        if (rc == 0 && i % 5 == 4) {
            nth_point();
            rc = mag_stream_drain(&w->s);
        }
    }
    return rc;
}

static int taken_arrives(void *arg, int rc)
{
    struct writing *w = arg;

    SHOULD(rc == -ECANCELED || rc == 0);
    SHOULD(mag_stream_n_buffered(&w->s) <= 50);
    SHOULD(mag_stream_drain(&w->s) == 0 && w->x.n_written == w->n);
    for (size_t i = 0; i < w->n; i++)
        SHOULD(w->x.bytes[i] == byte_at(i));
    mag_stream_close(&w->s);
    w->n = 0;
    w->x = (struct script){ .is_slow = true, .n_per_write = 7 };
    return play(&w->s, &w->x, OPTIONS(.high_water = 50, .low_water = 20));
}

ON_1(stream, a_cancelled_writer_knows_what_was_taken)
{
    struct writing w = { .x = { .is_slow = true, .n_per_write = 7 } };
    int rc;

    SHOULD(play(&w.s, &w.x, OPTIONS(.high_water = 50, .low_water = 20)) == 0);
    rc = nth_cancel(writes_pieces, &w, taken_arrives);
    mag_stream_close(&w.s);
    return rc;
}

/* Over a real connection, with a time limit instead. */
ON_1_AND_4(stream, a_limit_of_time)
{
    struct pair p;
    struct mag_str line;
    struct mag_scope limit;
    int rc;

    SHOULD(open_pair(&p) == 0);
    SHOULD(mag_stream_puts(&p.b, "half a ") == 0 && mag_stream_drain(&p.b) == 0);
    SHOULD(mag_timeout_enter(&limit, 2 * MAG_MS, NULL) == 0);
    rc = mag_scope_leave(&limit, mag_stream_readline(&p.a, &line));
    SHOULD(rc == -ETIMEDOUT);
    SHOULD(mag_stream_puts(&p.b, "line\n") == 0 && mag_stream_drain(&p.b) == 0);
    SHOULD(mag_stream_readline(&p.a, &line) == 12 && is_text(line, "half a line\n"));
    close_pair(&p);
    return 0;
}

/* ---- without memory ---------------------------------------------------------------------------------- */

static int uses_memory(struct mag_stream *s, struct script *x)
{
    struct mag_str out;
    int rc = mag_stream_puts(s, "hello");

    if (rc == 0)
        rc = mag_stream_readline(s, &out);
    if (rc > 0)
        rc = strcmp(out.ptr, "a line\n") == 0 ? 0 : -EPROTO;
    if (rc == 0 && (rc = mag_stream_read_all(s, &out, 0)) == 0)
        rc = strcmp(out.ptr, "and more") == 0 ? 0 : -EPROTO;
    return rc == 0 && x->n_written != 5 ? -EPROTO : rc;
}

ON_1(stream, out_of_memory_is_an_error)
{
    int rc = -ENOMEM;

    for (uint64_t n = 1; rc == -ENOMEM; n++) {
        struct script x = SCRIPT("a line\nand more");
        struct mag_stream s;

        SHOULD(n < 20 && play(&s, &x, NULL) == 0);
        mag_mem_fail_nth(n, false);
        rc = uses_memory(&s, &x);
        SHOULD(rc == -ENOMEM || rc == 0);
        mag_mem_fail_nth(0, false);
        if (rc < 0 && x.n_written == 5 && mag_stream_n_buffered(&s) == 0) {
            struct mag_str all; /* what has been read is still there */
            SHOULD(mag_stream_read_all(&s, &all, 0) == 0 && all.len >= strlen("and more"));
        }
        mag_stream_close(&s);
        if (rc == 0)
            SHOULD(n > 2);
    }
    return rc;
}

/* ---- descriptors ---------------------------------------------------------------------------------------- */

ON_1(stream, pipes)
{
    struct mag_stream in, out;
    struct mag_str all;
    int fds[2];

    SHOULD(pipe2(fds, O_CLOEXEC) == 0);
    SHOULD(mag_stream_of_fd(&in, fds[0], NULL) == 0 && mag_stream_of_fd(&out, fds[1], NULL) == 0);
    SHOULD(mag_stream_puts(&out, "through a pipe") == 0);
    SHOULD(mag_stream_write_eof(&out) == -EOPNOTSUPP);
    SHOULD(mag_stream_peer_name(&in, (char[10]){ 0 }, 10) == -ENOTSOCK);
    SHOULD(mag_stream_close(&out) == 0);
    SHOULD(mag_stream_read_all(&in, &all, 0) == 0 && is_text(all, "through a pipe"));
    mag_stream_close(&in);
    SHOULD(pipe2(fds, O_CLOEXEC) == 0);
    SHOULD(mag_stream_of_fd(&out, fds[1], NULL) == 0);
    close(fds[0]);
    SHOULD(mag_stream_write_all(&out, "x", 1, NULL) == -EPIPE);
    mag_stream_abort(&out);
    return 0;
}

ON_1(stream, a_process_is_two_pipes)
{
    async_with(mag_process, p,
               &(struct mag_process_options){
                   .argv = (const char *[]){ "/bin/sh", "-c", "while read x; do echo \"<$x>\"; done",
                                             NULL },
                   .in = { .kind = MAG_STDIO_PIPE },
                   .out = { .kind = MAG_STDIO_PIPE } })
    {
        struct mag_stream in, out;
        struct mag_str line;
        int status = 1;

        SHOULD(mag_stream_of_fd(&in, p->in, NULL) == 0);
        p->in = -1;
        SHOULD(mag_stream_of_fd(&out, p->out, NULL) == 0);
        p->out = -1;
        for (int i = 0; i < 3; i++) {
            SHOULD(mag_stream_puts(&in, "hello\n") == 0 && mag_stream_drain(&in) == 0);
            SHOULD(mag_stream_readline(&out, &line) == 8 && is_text(line, "<hello>\n"));
        }
        SHOULD(mag_stream_close(&in) == 0);
        SHOULD(mag_stream_readline(&out, &line) == 0);
        SHOULD(mag_stream_close(&out) == 0);
        SHOULD(mag_process_wait(p, &status) == 0 && status == 0);
    }
    return 0;
}

ON_1(stream, a_datagram_socket_is_none)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct mag_stream s;

    SHOULD(mag_stream_of_fd(&s, fd, NULL) == -EPROTOTYPE && mag_stream_fd(&s) == -1);
    close(fd);
    return 0;
}

/* Everything works outside a task too, and blocks. */
Test(stream, outside_a_task)
{
    struct pair p;
    struct mag_str line;
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port);

    cr_assert_eq(open_pair(&p), 0);
    cr_assert_eq(mag_stream_puts(&p.a, "hello\n"), 0);
    cr_assert_eq(mag_stream_drain(&p.a), 0);
    cr_assert_eq(mag_stream_readline(&p.b, &line), 6);
    cr_assert(is_text(line, "hello\n"));
    close_pair(&p);
    cr_assert_eq(mag_stream_enter(&p.a, "localhost", port), 0);
    mag_stream_exit(&p.a);
    close(listener);
}

/* ---- names ------------------------------------------------------------------------------------------------ */

ON_1(stream, names_of_both_ends)
{
    char peer[64], own[64], wanted[64];
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port), fd;
    struct mag_stream s;

    SHOULD(mag_connect(&s, "127.0.0.1", port, NULL) == 0);
    snprintf(wanted, sizeof wanted, "127.0.0.1:%u", port);
    SHOULD(mag_stream_peer_name(&s, peer, sizeof peer) == (int)strlen(wanted));
    SHOULD(strcmp(peer, wanted) == 0);
    SHOULD(mag_stream_peer_name(&s, peer, strlen(wanted)) == -EOVERFLOW);
    SHOULD(mag_stream_own_name(&s, own, sizeof own) > 10 && memcmp(own, "127.0.0.1:", 10) == 0);
    fd = mag_accept(listener, NULL, NULL, 0);
    mag_stream_close(&s);
    SHOULD(mag_stream_of_fd(&s, fd, NULL) == 0);
    SHOULD(mag_stream_peer_name(&s, peer, sizeof peer) > 0 && strcmp(peer, own) == 0);
    mag_stream_close(&s);
    close(listener);
    return 0;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, path, strlen(path));
    if (path[0] == '@')
        a.sun_path[0] = '\0';
    if (bind(fd, (struct sockaddr *)&a, len + (path[0] != '@')) == 0 && listen(fd, 5) == 0)
        return fd;
    close(fd);
    return -1;
}

ON_1(stream, unix_sockets)
{
    char path[80], name[100], wanted[100], longer[200];
    struct mag_stream s;

    for (int i = 0; i < 2; i++) {
        int listener, fd;
        snprintf(path, sizeof path, "%s/magpie-stream-%d", i ? "@x" : "/tmp", (int)getpid());
        SHOULD(mag_connect_unix(&s, path, NULL) == (i ? -ECONNREFUSED : -ENOENT));
        listener = listen_unix(path);
        SHOULD(listener >= 0 && mag_connect_unix(&s, path, NULL) == 0);
        snprintf(wanted, sizeof wanted, "unix:%s", path);
        SHOULD(mag_stream_peer_name(&s, name, sizeof name) == (int)strlen(wanted));
        SHOULD(strcmp(name, wanted) == 0);
        SHOULD(mag_stream_own_name(&s, name, sizeof name) == 5 && strcmp(name, "unix:") == 0);
        fd = mag_accept(listener, NULL, NULL, 0);
        SHOULD(mag_stream_write_all(&s, "x", 1, NULL) == 0);
        close(fd);
        mag_stream_close(&s);
        close(listener);
        unlink(path);
    }
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    SHOULD(mag_connect_unix(&s, longer, NULL) == -ENAMETOOLONG);
    SHOULD(mag_connect_unix(&s, "", NULL) == -EINVAL && mag_stream_fd(&s) == -1);
    return 0;
}

/* ---- connecting ----------------------------------------------------------------------------------------------- */

ON_1(stream, connect_says_why_not)
{
    struct mag_stream s;
    uint16_t port;

    close(listen_at("127.0.0.1", &port));
    SHOULD(mag_connect(&s, "127.0.0.1", port, NULL) == -ECONNREFUSED && mag_stream_fd(&s) == -1);
    SHOULD(mag_connect(&s, "localhost", port, NULL) == -ECONNREFUSED);
    SHOULD(mag_connect(&s, "no such host", 80, NULL) == -ENOENT);
    SHOULD(mag_connect(&s, "127.0.0.1", port,
                       &(struct mag_connect_options){ .stream.limit = (size_t)1 << 40 }) < 0);
    SHOULD(mag_connect(&s, "127.0.0.1", port,
                       &(struct mag_connect_options){ .family = AF_INET6 }) < 0);
    mag_stream_close(&s);
    return 0;
}

ON_1(stream, connect_from_an_address)
{
    struct mag_stream s;
    uint16_t port, own;
    char name[64], wanted[64];
    int listener = listen_at("127.0.0.1", &port);

    close(listen_at("127.0.0.1", &own));
    SHOULD(mag_connect(&s, "127.0.0.1", port,
                       &(struct mag_connect_options){ .local_host = "127.0.0.2",
                                                      .local_port = own }) == 0);
    snprintf(wanted, sizeof wanted, "127.0.0.2:%u", own);
    SHOULD(mag_stream_own_name(&s, name, sizeof name) > 0 && strcmp(name, wanted) == 0);
    mag_stream_abort(&s);
    SHOULD(mag_connect(&s, "127.0.0.1", port,
                       &(struct mag_connect_options){ .local_host = "192.0.2.1" }) ==
           -EADDRNOTAVAIL);
    close(listener);
    return 0;
}

async(void, with_a_stream, (uint16_t, port))
{
    async_with(mag_stream, s, "localhost", port)
    {
        SHOULD(mag_stream_puts(s, "bye") == 0);
    }
    return 0;
}

/* The exit of a task that is cancelled does not wait for a peer that does not read. */
async(void, with_a_stuck_stream, (uint16_t, port))
{
    async_with(mag_stream, s, "localhost", port)
    {
        char text[4096] = { 0 };
        narrow(s);
        arrive();
        for (;;)
            await(mag_stream_write(s, text, sizeof text, NULL));
    }
    return 0;
}

ON_1_AND_4(stream, async_with_closes)
{
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port), fd;
    char buf[10];

    await(with_a_stream(port));
    fd = mag_accept(listener, NULL, NULL, 0);
    SHOULD(mag_recv(fd, buf, 10, MSG_WAITALL) == 3);
    close(fd);
    __auto_type t = spawn(with_a_stuck_stream(port));
    SHOULD(have_arrived(1));
    SHOULD(CANCELS(t));
    close(listener);
    return 0;
}

/* ---- happy eyeballs ---------------------------------------------------------------------------------------------- */

/* Addresses for a race: "127.0.0.1", "::1", ... each with its port. */
struct addresses {
    struct addrinfo info[MAG_CONNECT_ADDRESSES_MAX + 4];
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } addr[MAG_CONNECT_ADDRESSES_MAX + 4];
    int n;
};

static void add(struct addresses *a, const char *host, uint16_t port)
{
    struct addrinfo *i = &a->info[a->n];
    bool is_v6 = inet_pton(AF_INET6, host, &a->addr[a->n].v6.sin6_addr) == 1;

    if (is_v6) {
        a->addr[a->n].v6.sin6_family = AF_INET6;
        a->addr[a->n].v6.sin6_port = htons(port);
    } else {
        a->addr[a->n].v4.sin_family = AF_INET;
        a->addr[a->n].v4.sin_port = htons(port);
        inet_pton(AF_INET, host, &a->addr[a->n].v4.sin_addr);
    }
    *i = (struct addrinfo){ .ai_family = is_v6 ? AF_INET6 : AF_INET,
                            .ai_addr = (struct sockaddr *)&a->addr[a->n],
                            .ai_addrlen = is_v6 ? sizeof a->addr->v6 : sizeof a->addr->v4 };
    if (a->n++ > 0)
        i[-1].ai_next = i;
}

/* A port that does not answer: its backlog is full.  The descriptors that make it so. */
struct hole {
    int listener, fds[4];
    uint16_t port;
};

static int dig(struct hole *h)
{
    struct sockaddr_in a = { .sin_family = AF_INET };

    h->listener = listen_at("127.0.0.1", &h->port);
    a.sin_port = htons(h->port);
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    if (h->listener < 0 || listen(h->listener, 0) < 0)
        return -1;
    for (int i = 0; i < 4; i++) {
        h->fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(h->fds[i], (struct sockaddr *)&a, sizeof a);
    }
    /* on a busy machine the first one may still be under way to it */
    return poll(&(struct pollfd){ .fd = h->listener, .events = POLLIN }, 1, 10000) == 1 ? 0 : -1;
}

static void fill_up(struct hole *h)
{
    for (int i = 0; i < 4; i++)
        close(h->fds[i]);
    close(h->listener);
}

static uint16_t peer_port(int fd)
{
    struct sockaddr_in6 a;
    socklen_t len = sizeof a;

    if (getpeername(fd, (struct sockaddr *)&a, &len) < 0)
        return 0;
    return ntohs(a.sin6_family == AF_INET6 ? a.sin6_port
                                           : ((struct sockaddr_in *)(void *)&a)->sin_port);
}

ON_1_AND_4(stream, the_next_address_is_tried_at_once_after_a_refusal)
{
    const struct mag_connect_options patient = { .attempt_delay = MAG_MINUTE };
    struct addresses a = { 0 };
    uint16_t port, closed;
    int listener = listen_at("127.0.0.1", &port), fd;

    close(listen_at("127.0.0.1", &closed));
    add(&a, "127.0.0.1", closed);
    add(&a, "127.0.0.2", closed);
    add(&a, "127.0.0.1", port);
    fd = mag_connect_to_first(a.info, &patient);
    SHOULD(fd >= 0 && peer_port(fd) == port);
    close(fd);
    close(listener);
    return 0;
}

ON_1_AND_4(stream, the_next_address_is_tried_when_one_does_not_answer)
{
    const struct mag_connect_options quick = { .attempt_delay = 5 * MAG_MS };
    struct addresses a = { 0 };
    struct hole h;
    uint16_t port;
    int listener = listen_at("127.0.0.1", &port), fd;
    mag_time begun = mag_now();

    SHOULD(dig(&h) == 0);
    add(&a, "127.0.0.1", h.port);
    add(&a, "127.0.0.1", h.port);
    add(&a, "127.0.0.1", port);
    add(&a, "127.0.0.1", h.port);
    fd = mag_connect_to_first(a.info, &quick);
    SHOULD(fd >= 0 && peer_port(fd) == port && mag_now() - begun >= 10 * MAG_MS);
    close(fd);
    fill_up(&h);
    close(listener);
    return 0;
}

/* One that answers late wins all the same, if the others do not. */
ON_1_AND_4(stream, an_attempt_goes_on_beside_the_next)
{
    const struct mag_connect_options quick = { .attempt_delay = 2 * MAG_MS };
    struct addresses a = { 0 };
    struct hole h;
    uint16_t closed;
    struct mag_scope limit;
    int fd;

    close(listen_at("127.0.0.1", &closed));
    SHOULD(dig(&h) == 0);
    add(&a, "127.0.0.1", h.port);
    add(&a, "127.0.0.1", closed);
    SHOULD(mag_timeout_enter(&limit, 20 * MAG_MS, NULL) == 0);
    fd = mag_scope_leave(&limit, mag_connect_to_first(a.info, &quick));
    SHOULD(fd == -ETIMEDOUT);
    fill_up(&h);
    return 0;
}

/* Two that answer at the same moment: the second one's socket is closed. */
ON_1_AND_4(stream, only_one_attempt_wins)
{
    const struct mag_connect_options at_once = { .attempt_delay = 1 };
    struct addresses a = { 0 };
    uint16_t port;
    int listener = listen_at("0.0.0.0", &port), n_before = n_descriptors(), fd;

    listen(listener, 4096);
    for (int i = 0; i < 4; i++)
        add(&a, i % 2 ? "127.0.0.2" : "127.0.0.1", port);
    for (int i = 0; i < 200; i++) {
        fd = mag_connect_to_first(a.info, &at_once);
        SHOULD(fd >= 0);
        close(fd);
    }
    SHOULD(n_descriptors() == n_before);
    close(listener);
    return 0;
}

ON_1(stream, the_first_address_explains)
{
    struct addresses a = { 0 };
    uint16_t closed;

    close(listen_at("127.0.0.1", &closed));
    SHOULD(mag_connect_to_first(NULL, NULL) == -EADDRNOTAVAIL);
    add(&a, "255.255.255.255", closed);
    SHOULD(mag_connect_to_first(a.info, NULL) == -ENETUNREACH ||
           mag_connect_to_first(a.info, NULL) == -EACCES);
    add(&a, "127.0.0.1", closed);
    SHOULD(mag_connect_to_first(a.info, NULL) != -ECONNREFUSED);
    SHOULD(mag_connect_to_first(a.info + 1, NULL) == -ECONNREFUSED);
    SHOULD(mag_connect_to_first(a.info, &(struct mag_connect_options){ .attempt_delay = -1 }) ==
           -EINVAL);
    return 0;
}

/* With an attempt that takes for ever between two, IPv6 and IPv4 take turns: so one of the other
 * family is second, wherever it is in the list. */
ON_1(stream, families_take_turns)
{
    const struct mag_connect_options one = { .attempt_delay = 20 * MAG_MS };
    struct addresses a = { 0 };
    struct hole h;
    uint16_t port;
    int listener = listen_at("::1", &port), fd;
    mag_time begun, best = MAG_NEVER;

    if (listener < 0)
        return 0; /* no IPv6 here */
    SHOULD(dig(&h) == 0);
    for (int i = 0; i < 10; i++)
        add(&a, "127.0.0.1", h.port);
    add(&a, "::1", port);
    for (int i = 0; i < 20 && best >= 9 * 20 * MAG_MS; i++) { /* in turns it never is that fast */
        begun = mag_now();
        fd = mag_connect_to_first(a.info, &one);
        SHOULD(fd >= 0);
        best = mag_now() - begun < best ? mag_now() - begun : best;
        close(fd);
    }
    SHOULD(best < 9 * 20 * MAG_MS);
    fill_up(&h);
    close(listener);
    return 0;
}

ON_1(stream, too_many_addresses_are_cut_off)
{
    struct addresses a = { 0 };
    uint16_t port, closed;
    int listener = listen_at("127.0.0.1", &port);

    close(listen_at("127.0.0.1", &closed));
    for (int i = 0; i < MAG_CONNECT_ADDRESSES_MAX; i++)
        add(&a, "127.0.0.1", closed);
    add(&a, "127.0.0.1", port);
    SHOULD(mag_connect_to_first(a.info, NULL) == -ECONNREFUSED);
    close(listener);
    return 0;
}

static int connects(void *arg, long *value)
{
    const struct mag_connect_options quick = { .attempt_delay = MAG_US };

    nth_point();
    *value = mag_connect_to_first(((struct addresses *)arg)->info, &quick);
    if (*value >= 0)
        close((int)*value);
    return *value < 0 ? (int)*value : 0;
}

static int n_descriptors_of_race, listener_of_race;

/* What was begun is over: also a look-up of a name, which outlives who wanted it. */
static int nothing_is_open(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    for (int fd; (fd = accept4(listener_of_race, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
        close(fd);
    for (int i = 0; n_descriptors() != n_descriptors_of_race; i++)
        SHOULD(i < 5000 && mag_sleep(MAG_MS) == 0);
    return 0;
}

static int race_is_clean(int (*scenario)(void *arg, long *value), void *arg, int listener)
{
    fcntl(listener, F_SETFL, O_NONBLOCK);
    listener_of_race = listener;
    n_descriptors_of_race = n_descriptors();
    return nth_cancel(scenario, arg, nothing_is_open);
}

ON_1(stream, a_cancelled_connect_leaves_nothing_open)
{
    struct addresses a = { 0 };
    struct hole h;
    uint16_t port, closed;
    int listener = listen_at("127.0.0.1", &port), rc;

    close(listen_at("127.0.0.1", &closed));
    SHOULD(dig(&h) == 0);
    add(&a, "127.0.0.1", h.port);
    add(&a, "127.0.0.1", closed);
    add(&a, "127.0.0.1", h.port);
    add(&a, "127.0.0.1", port);
    rc = race_is_clean(connects, &a, listener);
    fill_up(&h);
    close(listener);
    return rc;
}

struct target {
    const char *host;
    uint16_t port;
};

static int connects_by_name(void *arg, long *value)
{
    const struct target *t = arg;
    struct mag_stream s;
    int rc;

    (void)value;
    nth_point();
    rc = mag_connect(&s, t->host, t->port, NULL);
    if (rc == 0)
        mag_stream_abort(&s);
    else if (mag_stream_fd(&s) != -1)
        return -EPROTO;
    return rc;
}

ON_1(stream, connect_by_name_cancelled_everywhere)
{
    struct target t = { "localhost", 0 };
    int listener = listen_at("127.0.0.1", &t.port), rc;

    t.host = "127.0.0.1";
    rc = race_is_clean(connects_by_name, &t, listener);
    t.host = "localhost";
    if (rc == 0)
        rc = race_is_clean(connects_by_name, &t, listener);
    close(listener);
    return rc;
}

/* ---- TLS, as far as it is ours ---------------------------------------------------------------------------------------- */

struct fake_tls {
    struct mag_tls tls;
    int n_started;
};

static int start_fake(struct mag_tls *tls, struct mag_stream *s, const char *name)
{
    ((struct fake_tls *)tls)->n_started++;
    return s->transport->write(s->self, &(struct iovec){ (void *)(uintptr_t)name, 2 }, 1) == 2
               ? 0
               : -EPROTO;
}

ON_1(stream, start_tls_wants_empty_buffers)
{
    struct fake_tls f = { .tls.start = start_fake };
    struct script x = SCRIPT("xy");
    struct mag_stream s;
    char c;

    SHOULD(play(&s, &x, NULL) == 0);
    SHOULD(mag_stream_puts(&s, "a") == 0);
    SHOULD(mag_stream_start_tls(&s, &f.tls, "me") == -EBUSY);
    SHOULD(mag_stream_read(&s, &c, 1) == 1);
    SHOULD(mag_stream_start_tls(&s, &f.tls, "me") == -EBUSY);
    SHOULD(mag_stream_read(&s, &c, 1) == 1);
    SHOULD(f.n_started == 0 && mag_stream_start_tls(&s, &f.tls, "me") == 0 && f.n_started == 1);
    SHOULD(memcmp(x.bytes, "ame", 3) == 0);
    SHOULD(mag_stream_puts(&s, "b") == 0 && mag_stream_close(&s) == 0);
    SHOULD(mag_stream_start_tls(&s, &f.tls, "me") == -EBADF);
    return 0;
}
