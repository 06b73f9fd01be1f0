/* SPDX-License-Identifier: MIT */
/*
 * file_whole.c - tests of whole files, replacement and temporary files
 */
#include "files.h"

#include <magpie/async.h>

FILES_SUITE(file_whole);

static bool is_on_epoll(void)
{
    const char *backend = getenv("MAGPIE_BACKEND");

    return backend && strcmp(backend, "epoll") == 0;
}

/* ---- reading ------------------------------------------------------------------------- */

static int sizes(void)
{
    static const int all[] = { 0, 1, 4096, 8159, 8160, 8161, 16384, 100000, 3000000 };
    char *bytes = malloc(3000000);
    struct mag_str s;

    for (int i = 0; i < 3000000; i++)
        bytes[i] = (char)(i * 7 + i / 4096);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        size_t n = (size_t)all[i];

        EXPECT(mag_write_file(at("f"), bytes, n, 0640) == 0);
        EXPECT(mag_read_file(at("f"), &s, 0) == 0);
        EXPECT(s.len == n && memcmp(s.ptr, bytes, n) == 0 && s.ptr[n] == '\0');
        mag_str_free(&s);
        EXPECT(s.ptr == NULL && s.len == 0);
        EXPECT(mag_read_file(at("f"), &s, n ? n : 1) == 0 && s.len == n);
        mag_str_free(&s);
        if (n > 1)
            EXPECT(mag_read_file(at("f"), &s, n - 1) == -EFBIG && s.ptr == NULL);
    }
    free(bytes);
    return 0;
}

Test(file_whole, sizes)
{
    BOTH(sizes);
}

static int other_kinds(void)
{
    struct mag_str s;
    int fd;

    EXPECT(mag_read_file(at("none"), &s, 0) == -ENOENT && s.ptr == NULL);
    EXPECT(mag_read_file(files_dir, &s, 0) == -EISDIR);
    EXPECT(mag_read_file("/proc/self/status", &s, 0) == 0 && s.len > 100);
    mag_str_free(&s);
    EXPECT(mag_read_file("/dev/null", &s, 0) == 0 && s.len == 0);
    mag_str_free(&s);
    EXPECT(mag_read_file("/dev/zero", &s, 100000) == -EFBIG);
    EXPECT(mkfifo(at("fifo"), 0600) == 0);
    fd = open(at("fifo"), O_RDWR); /* so that nobody waits for the other end */
    EXPECT(write(fd, "through a pipe", 14) == 14);
    struct mag_file f;
    char buf[32];
    EXPECT(mag_file_open(&f, at("fifo"), "r") == 0);
    EXPECT((fcntl(f.fd, F_GETFL) & O_NONBLOCK) == 0);
    EXPECT(mag_file_read(&f, buf, sizeof buf) == 14);
    EXPECT(mag_file_close(&f) == 0);
    close(fd);
    unlink(at("fifo"));
    return 0;
}

Test(file_whole, other_kinds)
{
    BOTH(other_kinds);
}

/* Each of the ways on the spot is refused in turn: the ring does it. */
static int refused(void)
{
    static const int errors[] = { EAGAIN, EINVAL, EPERM, ENOSYS };
    struct mag_str s;

    put("f", "content");
    for (size_t i = 0; i < 4; i++) {
        mag_sys_fail_nth(MAG_SYS_OPENAT, 1, errors[i], false);
        EXPECT(mag_read_file(at("f"), &s, 0) == 0 && s.len == 7);
        mag_sys_fail_none();
        mag_str_free(&s);
    }
    mag_sys_fail_nth(MAG_SYS_OPENAT, 1, EMFILE, false);
    EXPECT(mag_read_file(at("f"), &s, 0) == (is_on_epoll() ? -EMFILE : 0)); /* after ENOSYS */
    mag_sys_fail_none();
    mag_str_free(&s);
    return 0;
}

Test(file_whole, refused_on_the_spot)
{
    IN_TASK(refused);
}

static int not_cached(void)
{
    static const int errors[] = { EAGAIN, EOPNOTSUPP, EINTR };
    struct mag_str s;

    put("f", "content");
    for (size_t i = 0; i < 3; i++)
        for (uint64_t n = 1; n < 3; n++) {
            mag_sys_fail_nth(MAG_SYS_PREADV2, n, errors[i], false);
            EXPECT(mag_read_file(at("f"), &s, 0) == 0 && s.len == 7);
            mag_sys_fail_none();
            mag_str_free(&s);
        }
    mag_sys_fail_nth(MAG_SYS_PREADV2, 2, EIO, false);
    EXPECT(mag_read_file(at("f"), &s, 0) == -EIO && s.ptr == NULL);
    mag_sys_fail_none();
    return 0;
}

Test(file_whole, not_cached)
{
    IN_TASK(not_cached);
}

static int out_of_memory(void)
{
    char *bytes = calloc(1, 50000);
    struct mag_str s;
    int n_failed = 0;

    put_bytes("f", bytes, 50000);
    free(bytes);
    for (uint64_t n = 1;; n++) {
        mag_mem_fail_nth(n, false);
        int rc = mag_read_file(at("f"), &s, 0);
        mag_mem_fail_nth(0, false);
        EXPECT((rc == -ENOMEM && s.ptr == NULL) || (rc == 0 && s.len == 50000));
        if (rc == 0) {
            mag_str_free(&s);
            break;
        }
        n_failed++;
    }
    EXPECT(n_failed >= 2);
    return 0;
}

Test(file_whole, out_of_memory)
{
    BOTH(out_of_memory);
}

/* ---- writing ---------------------------------------------------------------------------- */

static int written(void)
{
    struct stat st;

    umask(022);
    EXPECT(mag_write_file(at("f"), "longer text", 11, 0666) == 0 && says("f", "longer text"));
    EXPECT(stat(at("f"), &st) == 0 && (st.st_mode & 0777) == 0644);
    EXPECT(mag_write_file(at("f"), "text", 4, 0600) == 0 && says("f", "text"));
    EXPECT(stat(at("f"), &st) == 0 && (st.st_mode & 0777) == 0644);
    EXPECT(mag_write_file(at("f"), NULL, 0, 0600) == 0 && says("f", ""));
    EXPECT(mag_write_file(at("no/f"), "x", 1, 0600) == -ENOENT);
    EXPECT(mag_write_file(files_dir, "x", 1, 0600) == -EISDIR);
    EXPECT(mag_write_file("/dev/full", "x", 1, 0600) == -ENOSPC);
    EXPECT(mkfifo(at("fifo"), 0600) == 0);
    EXPECT(mag_write_file(at("fifo"), "x", 1, 0600) == -ENXIO); /* and does not wait */
    unlink(at("fifo"));
    mag_sys_fail_nth(MAG_SYS_OPENAT, 1, EDQUOT, true); /* also on the spot, if /tmp is memory */
    EXPECT(mag_write_file(at("f"), "x", 1, 0600) == -EDQUOT);
    mag_sys_fail_none();
    return 0;
}

Test(file_whole, written)
{
    BOTH(written);
    /* Not in a task: there rings wake each other by writes, which the fault would hit. */
    mag_sys_fail_nth(MAG_SYS_WRITE, 1, EDQUOT, false);
    cr_assert_eq(mag_write_file(at("f"), "x", 1, 0600), -EDQUOT);
}

/* A FIFO that is full: the task waits, not a thread. */
static int fill_fifo(void *arg, long *value)
{
    char *bytes = calloc(1, 200000);
    int rc = mag_write_file(arg, bytes, 200000, 0600);

    *value = 0;
    free(bytes);
    return rc;
}

static int full_fifo(void)
{
    static char buf[65536];
    char path[256];
    struct co *c;
    int fd, n = 0;

    strcpy(path, at("fifo"));
    EXPECT(mkfifo(path, 0600) == 0);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    c = go(fill_fifo, path);
    while (n < 200000) {
        ssize_t rc = read(fd, buf, sizeof buf);
        n += rc > 0 ? (int)rc : 0;
        EXPECT(mag_yield() == 0);
    }
    EXPECT(await_co(c, NULL) == 0);
    c = go(fill_fifo, path);
    EXPECT(mag_sleep(10 * MAG_MS) == 0);
    mag_cancel(c);
    EXPECT(await_co(c, NULL) == -ECANCELED);
    close(fd);
    return 0;
}

Test(file_whole, full_fifo)
{
    IN_TASK(full_fifo);
}

/* ---- replacing ---------------------------------------------------------------------------- */

static int replaced(void)
{
    struct mag_replacing r;
    struct stat st;

    put("f", "old");
    EXPECT(mag_replace_file(at("f"), "new", 3, 0600) == 0 && says("f", "new"));
    EXPECT(stat(at("f"), &st) == 0 && (st.st_mode & 0777) == 0600);
    EXPECT(mag_replace_file(at("g"), "made", 4, 0644) == 0 && says("g", "made"));
    EXPECT(mag_replace_file(at("no/f"), "new", 3, 0600) == -ENOENT);
    EXPECT(mag_replace_file(files_dir, "new", 3, 0600) == -EISDIR);

    EXPECT(mag_replacing_enter(&r, at("f"), 0600) == 0);
    EXPECT(mag_file_write_all(&r.file, "newer", 5, NULL) == 0);
    EXPECT(says("f", "new") && n_entries(".") == 3);
    EXPECT(mag_replacing_commit(&r) == 0 && says("f", "newer"));
    EXPECT(mag_replacing_commit(&r) == -EALREADY);
    mag_replacing_exit(&r);

    EXPECT(mag_replacing_enter(&r, at("f"), 0600) == 0);
    EXPECT(mag_file_write_all(&r.file, "never", 5, NULL) == 0);
    mag_replacing_exit(&r);
    EXPECT(says("f", "newer"));
    EXPECT(n_entries(".") == 2); /* nothing else is left */
    return 0;
}

Test(file_whole, replaced)
{
    BOTH(replaced);
}

static int replace_without_memory(void)
{
    int rc = -1;

    put("f", "old");
    for (uint64_t n = 1; rc < 0; n++) {
        mag_mem_fail_nth(n, false);
        rc = mag_replace_file(at("f"), "new", 3, 0600);
        mag_mem_fail_nth(0, false);
        EXPECT(rc == -ENOMEM || (rc == 0 && n > 3));
        EXPECT(says("f", rc == 0 ? "new" : "old") || n > 3); /* the last is the directory's sync */
        EXPECT(n_entries(".") == 1);
    }
    return 0;
}

Test(file_whole, replace_without_memory)
{
    BOTH(replace_without_memory);
}

static int replace_it(void *arg, long *value)
{
    *value = 0;
    nth_point();
    return mag_replace_file(arg, "new", 3, 0600);
}

static int old_or_new(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(says("f", rc == 0 ? "new" : "old"));
    SHOULD(n_entries(".") == 1);
    put("f", "old");
    return 0;
}

static int replace_cancelled(void *arg, long *value)
{
    char path[256];

    (void)arg;
    *value = 0;
    put("f", "old");
    strcpy(path, at("f"));
    return nth_cancel(replace_it, path, old_or_new);
}

Test(file_whole, replace_cancelled_anywhere)
{
    RUN(1, replace_cancelled, NULL);
}

/* ---- temporary files ------------------------------------------------------------------------ */

static int temporary(void)
{
    struct mag_temp_file t, u;
    struct stat st;
    char buf[8], path[256], *big;

    EXPECT(mag_temp_file_enter(&t, NULL) == 0 && t.path == NULL && n_entries(".") == 0);
    EXPECT(mag_file_write(&t.file, "hidden", 6) == 6);
    EXPECT(mag_file_pread(&t.file, buf, 8, 0) == 6);
    mag_temp_file_exit(&t);

    EXPECT(mag_temp_file_enter(&t, "pre-") == 0 && n_entries(".") == 1);
    EXPECT(mag_temp_file_enter(&u, at("other.")) == 0 && n_entries(".") == 2);
    snprintf(path, sizeof path, "%s/pre-", files_dir);
    EXPECT(strncmp(t.path, path, strlen(path)) == 0 && strlen(t.path) == strlen(path) + 12);
    EXPECT(stat(t.path, &st) == 0 && (st.st_mode & 0777) == 0600);
    EXPECT(unlink(u.path) == 0); /* no harm */
    mag_temp_file_exit(&u);
    mag_temp_file_exit(&t);
    EXPECT(n_entries(".") == 0);

    EXPECT(mag_temp_file_enter(&t, at("no/x")) == -ENOENT && t.path == NULL && t.file.fd == -1);
    big = malloc(5000);
    memset(big, 'x', 5000);
    big[4999] = '\0';
    EXPECT(mag_temp_file_enter(&t, big) == -ENAMETOOLONG);
    free(big);
    mag_mem_fail_nth(1, true);
    EXPECT(mag_temp_file_enter(&t, "x") == -ENOMEM);
    mag_mem_fail_nth(0, false);
    return 0;
}

Test(file_whole, temporary)
{
    BOTH(temporary);
}

async(void, scopes)
{
    async_with(mag_temp_file, t, "x")
    {
        SHOULD(n_entries(".") == 1);
        await(mag_file_write_all(&t->file, "text", 4, NULL));
        break;
    }
    SHOULD(n_entries(".") == 0);
    async_with(mag_temp_dir, d, NULL)
    {
        char path[256];
        snprintf(path, sizeof path, "%s/a/b", d->path);
        await(mag_makedirs(path, 0700));
        async_with(mag_replacing, r, at("done"), 0600) await(mag_replacing_commit(r));
        SHOULD(n_entries(".") == 2);
    }
    SHOULD(n_entries(".") == 1);
    return 0;
}

Test(file_whole, scopes)
{
    cr_assert_eq(mag_run(scopes(), NULL), 0, "line %d: %s", broken_line, broken_claim);
}

async(void, uses_scopes)
{
    nth_point();
    async_with(mag_temp_dir, d, "d")
    {
        nth_point();
        async_with(mag_temp_file, t, "t")
        {
            nth_point();
            await(mag_file_write_all(&t->file, "text", 4, NULL));
            await(mag_yield());
        }
        char path[256];
        snprintf(path, sizeof path, "%s/a/b", d->path);
        nth_point();
        await(mag_makedirs(path, 0700));
    }
    return 0;
}

static int use_scopes(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    return mag_await(uses_scopes(), NULL, 0);
}

static int nothing_is_left(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(n_entries(".") == 0);
    return 0;
}

static int scopes_cancelled(void *arg, long *value)
{
    *value = 0;
    return nth_cancel(use_scopes, arg, nothing_is_left);
}

Test(file_whole, scopes_cancelled_anywhere)
{
    RUN(1, scopes_cancelled, NULL);
}
