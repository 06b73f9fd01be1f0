/* SPDX-License-Identifier: MIT */
/*
 * file_lines.c - tests of lines, positions, vectors, and of descriptors that were open before
 */
#include "files.h"

#include <magpie/async.h>
#include <pty.h>
#include <signal.h>

FILES_SUITE(file_lines);

static bool is_line(struct mag_str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0 && s.ptr[s.len] == '\0';
}

/* ---- lines ---------------------------------------------------------------------------- */

static int lines(void)
{
    struct mag_file f;
    struct mag_str s;

    put_bytes("f", "one\n\ntwo\r\n\0x\nlast", 17);
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    EXPECT(mag_file_readline(&f, &s) == 4 && is_line(s, "one\n"));
    EXPECT(mag_file_readline(&f, &s) == 1 && is_line(s, "\n"));
    EXPECT(mag_file_readline(&f, &s) == 5 && is_line(s, "two\r\n"));
    EXPECT(mag_file_readline(&f, &s) == 3 && memcmp(s.ptr, "\0x\n", 4) == 0);
    EXPECT(mag_file_readline(&f, &s) == 4 && is_line(s, "last"));
    EXPECT(mag_file_readline(&f, &s) == 0 && s.len == 0);
    EXPECT(mag_file_readline(&f, &s) == 0);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file_lines, lines)
{
    BOTH(lines);
}

async(void, loops)
{
    const char *const expected[] = { "one", "", "two", "last" };
    int n = 0;

    async_with(mag_file, f, at("f"), "r")
    {
        async_for(struct mag_str, line, mag_file_lines(f))
        {
            SHOULD(is_line(line, expected[n]));
            if (++n == 2)
                break;
        }
        SHOULD(n == 2);
        async_for(struct mag_str, line, mag_file_lines(f)) SHOULD(is_line(line, expected[n++]));
        SHOULD(n == 4);
    }
    return 0;
}

Test(file_lines, async_for)
{
    put("f", "one\n\ntwo\r\nlast");
    cr_assert_eq(mag_run(loops(), NULL), 0, "line %d", broken_line);
}

/* A file of many lines, of all lengths: every piece of the buffer's arithmetic. */
static int many_lines(void)
{
    enum { LINES = 3000 };
    FILE *out = fopen(at("f"), "w");
    struct mag_file f;
    struct mag_str s;

    for (int i = 0; i < LINES; i++)
        fprintf(out, "%d%*s\n", i, i * 37 % 997 + 1, "x");
    fclose(out);
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    for (int i = 0; i < LINES; i++) {
        EXPECT(mag_file_readline(&f, &s) > 2);
        EXPECT(atoi(s.ptr) == i && s.ptr[s.len - 2] == 'x');
        EXPECT(s.len == (size_t)snprintf(NULL, 0, "%d%*s\n", i, i * 37 % 997 + 1, "x"));
    }
    EXPECT(mag_file_readline(&f, &s) == 0);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file_lines, many_lines)
{
    BOTH(many_lines);
}

static int limit(void)
{
    char *big = malloc(70000);
    struct mag_file f;
    struct mag_str s;

    memset(big, 'b', 70000);
    big[65536] = '\n'; /* the longest that there may be, and one that is too long after it */
    put_bytes("f", big, 70000);
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    EXPECT(mag_file_readline(&f, &s) == 65537);
    EXPECT(mag_file_readline(&f, &s) == 70000 - 65537);
    EXPECT(mag_file_seek(&f, 0, SEEK_SET) == 0);
    EXPECT(mag_file_set_limit(&f, (size_t)1 << 40) == -EINVAL);
    EXPECT(mag_file_set_limit(&f, 65535) == 0);
    EXPECT(mag_file_readline(&f, &s) == -EMSGSIZE && s.len == 0);
    EXPECT(mag_file_readline(&f, &s) == -EMSGSIZE);
    EXPECT(mag_file_tell(&f) == 0); /* nothing is consumed */
    EXPECT(mag_file_read(&f, big, 70000) == 70000 && big[65536] == '\n');
    EXPECT(mag_file_close(&f) == 0);

    put("f", "12345\n1234\n");
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    EXPECT(mag_file_set_limit(&f, 5) == 0);
    EXPECT(mag_file_readline(&f, &s) == 6 && mag_file_readline(&f, &s) == 5);
    EXPECT(mag_file_seek(&f, 0, SEEK_SET) == 0);
    EXPECT(mag_file_set_limit(&f, 4) == 0);
    EXPECT(mag_file_readline(&f, &s) == -EMSGSIZE);
    EXPECT(mag_file_close(&f) == 0);

    put("f", "1\n12345"); /* all of it is in the buffer when the limit comes */
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    EXPECT(mag_file_readline(&f, &s) == 2 && mag_file_set_limit(&f, 4) == 0);
    EXPECT(mag_file_readline(&f, &s) == -EMSGSIZE);
    EXPECT(mag_file_close(&f) == 0);
    free(big);
    return 0;
}

Test(file_lines, limit)
{
    BOTH(limit);
}

/* What was read ahead is not lost to the other calls. */
static int mixed(void)
{
    struct mag_file f;
    struct mag_str s;
    char buf[8];

    put("f", "one\ntwo\nthree\nfour\n");
    EXPECT(mag_file_open(&f, at("f"), "r+") == 0);
    EXPECT(mag_file_readline(&f, &s) == 4);
    EXPECT(mag_file_tell(&f) == 4);
    EXPECT(mag_file_read(&f, buf, 4) == 4 && memcmp(buf, "two\n", 4) == 0);
    EXPECT(mag_file_readv(&f, &(struct iovec){ buf, 2 }, 1) == 2 && memcmp(buf, "th", 2) == 0);
    EXPECT(mag_file_seek(&f, 2, SEEK_CUR) == 12);
    EXPECT(mag_file_readline(&f, &s) == 2 && is_line(s, "e\n"));
    EXPECT(mag_file_write(&f, "FO", 2) == 2); /* at the reader's position */
    EXPECT(mag_file_readline(&f, &s) == 3 && is_line(s, "ur\n"));
    EXPECT(mag_file_seek(&f, 0, SEEK_SET) == 0);
    EXPECT(mag_file_readline(&f, &s) == 4);
    EXPECT(mag_file_read_all(&f, &s) == 0 && is_line(s, "two\nthree\nFOur\n"));
    EXPECT(mag_file_seek(&f, -5, SEEK_END) == 14);
    EXPECT(mag_file_readline(&f, &s) == 5);
    EXPECT(mag_file_seek(&f, 0, 3) == -EINVAL && mag_file_seek(&f, -1, SEEK_SET) == -EINVAL);
    EXPECT(mag_file_close(&f) == 0);
    EXPECT(says("f", "one\ntwo\nthree\nFOur\n"));
    return 0;
}

Test(file_lines, mixed_with_other_calls)
{
    BOTH(mixed);
}

static int out_of_memory(void)
{
    struct mag_file f;
    struct mag_str s;
    char *big = malloc(40000);

    memset(big, 'b', 40000);
    big[39999] = '\n';
    put_bytes("f", big, 40000);
    free(big);
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    for (int n = 1; n < 4; n++) { /* the struct, the buffer, a larger one */
        mag_mem_fail_nth(n == 1 ? 1 : 2, true);
        EXPECT(mag_file_readline(&f, &s) == -ENOMEM);
        mag_mem_fail_nth(0, false);
    }
    EXPECT(mag_file_readline(&f, &s) == 40000);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file_lines, out_of_memory)
{
    BOTH(out_of_memory);
}

/* ---- cancelled anywhere -------------------------------------------------------------------- */

struct reading {
    int ends[2];
    struct mag_file f;
    int n; /* lines that came */
};

static int read_lines(void *arg, long *value)
{
    struct reading *r = arg;
    struct mag_str s;
    int rc;

    *value = 0;
    while (r->n < 4) {
        nth_point();
        rc = mag_file_readline(&r->f, &s);
        if (rc < 0)
            return rc;
        SHOULD(rc == 2 && s.ptr[0] == 'a' + r->n);
        r->n++;
        if (r->n == 2)
            SHOULD(write(r->ends[1], "\nd\n", 3) == 3);
        nth_point();
        if ((rc = mag_yield()) < 0)
            return rc;
    }
    return 0;
}

/* Whoever reads on misses nothing. */
static int none_is_lost(void *arg, int rc)
{
    struct reading *r = arg;
    long value;

    SHOULD(rc == 0 || rc == -ECANCELED);
    nth.at = 0;
    if (r->n < 4)
        SHOULD(await_co(co(read_lines, arg), &value) == 0);
    SHOULD(r->n == 4);
    r->n = 0;
    SHOULD(write(r->ends[1], "a\nb\nc", 5) == 5);
    return 0;
}

static int cancel_everywhere(void *arg, long *value)
{
    struct reading r = { .n = 0 };

    (void)arg;
    *value = 0;
    SHOULD(pipe(r.ends) == 0);
    SHOULD(mag_file_from_fd(&r.f, r.ends[0]) == 0);
    SHOULD(write(r.ends[1], "a\nb\nc", 5) == 5);
    int rc = nth_cancel(read_lines, &r, none_is_lost);
    SHOULD(mag_file_close(&r.f) == 0);
    close(r.ends[1]);
    return rc;
}

Test(file_lines, cancelled_anywhere)
{
    RUN(1, cancel_everywhere, NULL);
}

/* ---- positions, length, vectors ------------------------------------------------------------- */

static int vectors(void)
{
    char a[4] = "", b[8] = "";
    struct iovec out[] = { { "abc", 3 }, { "defgh", 5 } }, in[] = { { a, 3 }, { b, 8 } };
    struct mag_file f;

    EXPECT(mag_file_open(&f, at("f"), "w+") == 0);
    EXPECT(mag_file_writev(&f, out, 2) == 8);
    EXPECT(mag_file_pwritev(&f, out, 1, 10) == 3);
    EXPECT(mag_file_preadv(&f, in, 2, 0) == 11);
    EXPECT(memcmp(a, "abc", 3) == 0 && memcmp(b, "defgh\0\0a", 8) == 0);
    EXPECT(mag_file_seek(&f, 5, SEEK_SET) == 5);
    EXPECT(mag_file_readv(&f, in, 2) == 8 && mag_file_readv(&f, in, 2) == 0);
    EXPECT(memcmp(a, "fgh", 3) == 0 && memcmp(b, "\0\0abc", 5) == 0);
    EXPECT(mag_file_readv(&f, in, -1) == -EINVAL && mag_file_writev(&f, in, 1025) == -EINVAL);
    EXPECT(mag_file_preadv(&f, in, 2, -1) == -EINVAL && mag_file_pwritev(&f, in, 2, -1) == -EINVAL);
    EXPECT(mag_file_advise(&f, 0, 0, POSIX_FADV_DONTNEED) == 0);
    EXPECT(mag_file_advise(&f, 0, 0, 77) == -EINVAL);
    EXPECT(mag_file_fsync(&f, true) == 0);
    EXPECT(mag_file_advise(&f, 0, 0, POSIX_FADV_DONTNEED) == 0);
    EXPECT(mag_file_preadv(&f, in, 2, 8) == 5);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file_lines, vectors)
{
    BOTH(vectors);
}

static int lengths(void)
{
    struct mag_file_stat st;
    struct mag_file f;
    size_t done = 7;

    EXPECT(mag_file_open(&f, at("f"), "w+") == 0);
    EXPECT(mag_file_write_all(&f, "0123456789", 10, &done) == 0 && done == 10);
    EXPECT(mag_file_truncate(&f, 5) == 0 && mag_file_truncate(&f, -1) == -EINVAL);
    EXPECT(mag_file_stat(&f, &st) == 0 && st.size == 5);
    EXPECT(mag_file_tell(&f) == 10 && mag_file_seekable(&f) && !mag_file_isatty(&f));
    int rc = mag_file_allocate(&f, 0, 0, 4096);
    EXPECT(rc == 0 || rc == -EOPNOTSUPP);
    EXPECT(mag_file_stat(&f, &st) == 0 && st.size == (rc == 0 ? 4096 : 5));
    EXPECT(mag_file_allocate(&f, 0, 0, 0) == -EINVAL);
    EXPECT(mag_file_fileno(&f) == f.fd);
    EXPECT(mag_file_close(&f) == 0 && mag_file_fileno(&f) == -EBADF);

    EXPECT(mag_file_open(&f, "/dev/full", "w") == 0);
    EXPECT(mag_file_write_all(&f, "x", 1, &done) == -ENOSPC && done == 0);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file_lines, lengths)
{
    BOTH(lengths);
}

/* O_DIRECT is never tried on the spot, where it would wait for the disk. */
static int direct(void)
{
    char *page = aligned_alloc(4096, 8192);
    struct mag_file f;
    int rc;

    memset(page, 'p', 8192);
    put_bytes("f", page, 8192);
    rc = mag_file_open(&f, at("f"), "rd");
    if (rc != -EINVAL) { /* a file system without it */
        EXPECT(rc == 0 && (fcntl(f.fd, F_GETFL) & O_DIRECT));
        EXPECT(mag_file_pread(&f, page, 4096, 0) == 4096);
        mag_sys_fail_nth(MAG_SYS_PREADV2, 1, EIO, true);
        EXPECT(mag_file_pread(&f, page, 4096, 4096) == 4096 && page[4095] == 'p');
        mag_sys_fail_none();
        EXPECT(mag_file_close(&f) == 0);
    }
    free(page);
    return 0;
}

Test(file_lines, direct)
{
    const char *backend = getenv("MAGPIE_BACKEND");

    if (backend && strcmp(backend, "epoll") == 0)
        return; /* whose threads use preadv2 themselves */
    IN_TASK(direct);
}

/* ---- descriptors that were open before ------------------------------------------------------- */

static int adopted(void)
{
    struct mag_file f;
    struct mag_str s;
    char buf[8];
    int fd;

    put("f", "one\ntwo\nthree\n");
    fd = open(at("f"), O_RDONLY);
    EXPECT(mag_file_from_fd(&f, 12345) == -EBADF && f.fd == -1);
    EXPECT(mag_file_from_fd(&f, fd) == 0);
    EXPECT(mag_file_readline(&f, &s) == 4);
    EXPECT(mag_file_detach(&f) == fd && f.fd == -1 && mag_file_detach(&f) == -EBADF);
    EXPECT(read(fd, buf, 4) == 4 && memcmp(buf, "two\n", 4) == 0); /* unread */
    EXPECT(mag_file_from_fd(&f, fd) == 0);
    EXPECT(mag_file_close(&f) == 0 && fcntl(fd, F_GETFD) < 0);
    return 0;
}

Test(file_lines, from_fd_and_detach)
{
    BOTH(adopted);
}

/* A pipe that is non-blocking, as another process may have made our standard input. */
static int nonblocking(void)
{
    struct mag_file in, out;
    struct mag_str s;
    char buf[8];
    int ends[2];

    EXPECT(pipe2(ends, O_NONBLOCK) == 0);
    EXPECT(mag_file_from_fd(&in, ends[0]) == 0 && mag_file_from_fd(&out, ends[1]) == 0);
    EXPECT(!mag_file_seekable(&in) && mag_file_seek(&in, 0, SEEK_SET) == -ESPIPE);
    EXPECT(mag_file_tell(&in) == -ESPIPE);
    EXPECT(mag_file_write(&out, "one\ntwo\nth", 10) == 10);
    EXPECT(mag_file_readline(&in, &s) == 4 && mag_file_read(&in, buf, 8) == 6);
    EXPECT(memcmp(buf, "two\nth", 6) == 0);
    EXPECT(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    EXPECT(mag_file_close(&out) == 0);
    EXPECT(mag_file_readline(&in, &s) == 0);
    EXPECT(mag_file_close(&in) == 0);
    return 0;
}

Test(file_lines, nonblocking)
{
    BOTH(nonblocking);
}

static int no_reader(void)
{
    struct mag_file out;
    int ends[2];

    EXPECT(pipe(ends) == 0);
    close(ends[0]);
    EXPECT(mag_file_from_fd(&out, ends[1]) == 0);
    EXPECT(mag_file_write(&out, "x", 1) == -EPIPE); /* and no SIGPIPE */
    EXPECT(mag_file_writev(&out, &(struct iovec){ "x", 1 }, 1) == -EPIPE);
    EXPECT(mag_file_close(&out) == 0);
    return 0;
}

Test(file_lines, no_reader)
{
    BOTH(no_reader);
}

/* A task that waits for a key: it is cancelled, and leaves what comes for the next. */
static int wait_for_a_key(void *arg, long *value)
{
    struct mag_str s;
    int rc = mag_file_readline(arg, &s);

    *value = rc > 0 ? s.ptr[0] : 0;
    return rc < 0 ? rc : 0;
}

static int terminal(void)
{
    int ours, theirs;
    struct mag_file f;
    struct co *c;
    long key = 0;

    EXPECT(openpty(&ours, &theirs, NULL, NULL, NULL) == 0);
    EXPECT(mag_file_from_fd(&f, theirs) == 0 && mag_file_isatty(&f));
    for (int i = 0; i < 2; i++) {
        c = go(wait_for_a_key, &f);
        EXPECT(mag_sleep(5 * MAG_MS) == 0);
        if (i == 0)
            mag_cancel(c);
        else
            EXPECT(write(ours, "key\n", 4) == 4);
        EXPECT(await_co(c, &key) == (i == 0 ? -ECANCELED : 0));
    }
    EXPECT(key == 'k');
    EXPECT(mag_file_write(&f, "echo", 4) == 4);
    EXPECT(mag_file_close(&f) == 0);
    close(ours);
    return 0;
}

Test(file_lines, terminal)
{
    IN_TASK(terminal);
}

/* ---- the standard streams --------------------------------------------------------------------- */

static int standard(void)
{
    int saved[3] = { dup(0), dup(1), dup(2) };
    struct mag_file in, out, err;
    struct mag_str s;
    int fd, line = 0;

    put("in", "a line\n");
    dup2(fd = open(at("in"), O_RDONLY), 0);
    close(fd);
    dup2(fd = open(at("out"), O_WRONLY | O_CREAT, 0600), 1);
    close(fd);
    dup2(1, 2);
#define EXPECT_THEN(cond) line = line || (cond) ? line : __LINE__
    EXPECT_THEN(mag_stdin(&in) == 0 && mag_stdout(&out) == 0 && mag_stderr(&err) == 0);
    EXPECT_THEN(mag_file_readline(&in, &s) == 7 && is_line(s, "a line\n"));
    EXPECT_THEN(mag_file_write(&out, "out ", 4) == 4 && mag_file_write(&err, "err", 3) == 3);
    EXPECT_THEN(mag_file_close(&in) == 0 && mag_file_close(&out) == 0 && mag_file_close(&err) == 0);
    EXPECT_THEN(fcntl(0, F_GETFD) >= 0 && fcntl(1, F_GETFD) >= 0); /* they stay open */
    close(0);
    EXPECT_THEN(mag_stdin(&in) == -EBADF);
    for (int i = 0; i < 3; i++) {
        dup2(saved[i], i);
        close(saved[i]);
    }
    EXPECT_THEN(says("out", "out err"));
    return line;
}

Test(file_lines, standard_streams)
{
    BOTH(standard);
}
