/* SPDX-License-Identifier: MIT */
/*
 * file.c - tests of asynchronous files
 *
 * A check is a function that answers 0, or the line that failed.  Each runs twice:
 * on the test's own thread, where calls block, and in a task.
 */
#include <criterion/criterion.h>
#include <magpie.h>

#include "atomic.h"
#include "in_task.h"
#include "mem.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64], dir[32];

static void make_dir(void)
{
    setenv("MAGPIE_WATCHDOG", "0", 1); /* it opens and reads files, which faults would hit */
    strcpy(dir, "/tmp/mag-file-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
}

static void remove_dir(void)
{
    char command[64];

    mag_sys_fail_none();
    mag_mem_fail_nth(0, false);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(file, .init = make_dir, .fini = remove_dir, .timeout = 60);

/* ---- open, close ------------------------------------------------------------------ */

static int open_error(const char *name, const char *mode)
{
    struct mag_file f = { .fd = 77 };
    int rc = mag_file_open(&f, name, mode);

    if (rc == 0)
        mag_file_close(&f);
    return f.fd == -1 ? rc : 1;
}

static int modes(void)
{
    struct mag_file f;

    unlink(path);
    EXPECT(open_error(path, "r") == -ENOENT);
    EXPECT(open_error(path, "r+") == -ENOENT);
    for (const char **mode = (const char *[]){ "", "q", "wq", "rx", "r w", "+r", "xw", NULL };
         *mode; mode++)
        EXPECT(open_error(path, *mode) == -EINVAL);
    EXPECT(open_error(path, "wx") == 0);
    EXPECT(open_error(path, "wx") == -EEXIST);
    EXPECT(open_error(path, "w+bxe") == -EEXIST);
    EXPECT(open_error(path, "rb") == 0);
    EXPECT(open_error(dir, "w") == -EISDIR);

    EXPECT(mag_file_open(&f, path, "w") == 0);
    EXPECT(fcntl(f.fd, F_GETFD) & FD_CLOEXEC);
    EXPECT((fcntl(f.fd, F_GETFL) & O_ACCMODE) == O_WRONLY);
    EXPECT(mag_file_write(&f, "abc", 3) == 3);
    EXPECT(mag_file_close(&f) == 0);
    EXPECT(mag_file_close(&f) == -EBADF);

    EXPECT(mag_file_open(&f, path, "a+") == 0);
    EXPECT(mag_file_write(&f, "def", 3) == 3);
    EXPECT(mag_file_close(&f) == 0);

    EXPECT(mag_file_open(&f, path, "r+") == 0);
    EXPECT(mag_file_write(&f, "A", 1) == 1);
    EXPECT(mag_file_close(&f) == 0);

    char buf[8] = "";
    EXPECT(mag_file_open(&f, path, "r") == 0);
    EXPECT(mag_file_read(&f, buf, sizeof buf) == 6);
    EXPECT(strcmp(buf, "Abcdef") == 0);
    EXPECT(mag_file_write(&f, "x", 1) == -EBADF);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, modes)
{
    BOTH(modes);
}

static int descriptors_run_out(void)
{
    mag_sys_fail_nth(MAG_SYS_OPENAT, 1, EMFILE, false);
    EXPECT(open_error(path, "w") == -EMFILE);
    return 0;
}

Test(file, open_reports_what_openat_says)
{
    cr_assert_eq(descriptors_run_out(), 0);
}

static int enter_and_exit(void)
{
    struct mag_file f;

    EXPECT(mag_file_enter(&f, path, "w") == 0);
    int fd = f.fd;
    mag_file_exit(&f);
    EXPECT(f.fd == -1);
    EXPECT(fcntl(fd, F_GETFD) < 0);
    return 0;
}

Test(file, enter_and_exit)
{
    BOTH(enter_and_exit);
}

/* ---- transfers -------------------------------------------------------------------- */

static int big_file(void)
{
    enum { BYTES = 5 * 1024 * 1024 + 3 };
    unsigned char *out = malloc(BYTES), *in = malloc(BYTES + 10);
    struct mag_file f;

    for (int i = 0; i < BYTES; i++)
        out[i] = (unsigned char)(i * 2654435761u >> 24);
    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_write(&f, out, BYTES) == BYTES);
    EXPECT(mag_file_fsync(&f, false) == 0);
    EXPECT(mag_file_fsync(&f, true) == 0);
    EXPECT(mag_file_read(&f, in, 10) == 0);
    /* Without the position, past the end of which it is. */
    EXPECT(mag_file_pread(&f, in, BYTES + 10, 0) == BYTES);
    EXPECT(memcmp(in, out, BYTES) == 0);
    EXPECT(mag_file_pread(&f, in, 100, BYTES - 50) == 50);
    EXPECT(memcmp(in, out + BYTES - 50, 50) == 0);
    EXPECT(mag_file_pread(&f, in, 100, BYTES) == 0);
    EXPECT(mag_file_pread(&f, in, 1, -1) == -EINVAL);
    EXPECT(mag_file_pwrite(&f, "hole", 4, BYTES + 100) == 4);
    EXPECT(mag_file_pwrite(&f, "x", 1, -1) == -EINVAL);
    EXPECT(mag_file_pread(&f, in, 200, BYTES) == 104);
    EXPECT(in[0] == 0 && in[99] == 0 && memcmp(in + 100, "hole", 4) == 0);
    EXPECT(mag_file_read(&f, in, 0) == 0);
    EXPECT(mag_file_close(&f) == 0);
    free(out);
    free(in);
    return 0;
}

Test(file, big_file)
{
    BOTH(big_file);
}

static int position(void)
{
    struct mag_file f;
    char buf[4];

    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_pwrite(&f, "0123456789", 10, 0) == 10);
    EXPECT(mag_file_read(&f, buf, 4) == 4 && memcmp(buf, "0123", 4) == 0);
    EXPECT(mag_file_pread(&f, buf, 4, 1) == 4 && memcmp(buf, "1234", 4) == 0);
    EXPECT(mag_file_read(&f, buf, 4) == 4 && memcmp(buf, "4567", 4) == 0);
    EXPECT(mag_file_read(&f, buf, 4) == 2 && memcmp(buf, "89", 2) == 0);
    EXPECT(mag_file_read(&f, buf, 4) == 0);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, position)
{
    BOTH(position);
}

static int pipe_comes_short(void)
{
    struct mag_file f;
    char name[32], buf[100];
    int ends[2];

    EXPECT(pipe(ends) == 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
    EXPECT(mag_file_open(&f, name, "r") == 0);
    EXPECT(write(ends[1], "hello", 5) == 5);
    /* A regular file would be read on; here that would wait for ever. */
    EXPECT(mag_file_read(&f, buf, sizeof buf) == 5);
    EXPECT(mag_file_pread(&f, buf, 1, 0) == -ESPIPE);
    EXPECT(mag_file_pwrite(&f, buf, 1, 0) == -ESPIPE);
    EXPECT(write(ends[1], "rest", 4) == 4);
    close(ends[1]);
    struct mag_str all;
    EXPECT(mag_file_read_all(&f, &all) == 0);
    EXPECT(all.len == 4 && strcmp(all.ptr, "rest") == 0);
    EXPECT(mag_file_close(&f) == 0);
    close(ends[0]);
    return 0;
}

Test(file, pipe_comes_short)
{
    BOTH(pipe_comes_short);
}

/* procfs refuses RWF_NOWAIT and hands out less than is asked for. */
static int proc_file(void)
{
    struct mag_file f;
    struct mag_str all;

    EXPECT(mag_file_open(&f, "/proc/self/smaps", "r") == 0);
    EXPECT(mag_file_read_all(&f, &all) == 0);
    EXPECT(all.len > 8192 && all.ptr[all.len - 1] == '\n');
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, proc_file)
{
    BOTH(proc_file);
}

static int dropped_from_the_cache(void)
{
    enum { BYTES = 3 * 1024 * 1024 };
    char *buf = malloc(BYTES);
    struct mag_file f;

    memset(buf, 'x', BYTES);
    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_write(&f, buf, BYTES) == BYTES);
    EXPECT(mag_file_fsync(&f, false) == 0);
    EXPECT(posix_fadvise(f.fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
    memset(buf, 0, BYTES);
    EXPECT(mag_file_pread(&f, buf, BYTES, 0) == BYTES);
    for (int i = 0; i < BYTES; i += 997)
        EXPECT(buf[i] == 'x');
    EXPECT(mag_file_close(&f) == 0);
    free(buf);
    return 0;
}

Test(file, dropped_from_the_cache)
{
    BOTH(dropped_from_the_cache);
}

/* ---- refusals of the cached read --------------------------------------------------- */

/* There the ring asks as well, before it troubles a thread. */
static bool is_on_epoll(void)
{
    const char *backend = getenv("MAGPIE_BACKEND");

    return backend && strcmp(backend, "epoll") == 0;
}

static uint64_t cached_reads;

static int cached_read_refused(void)
{
    struct mag_file f;
    char buf[4];

    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_write(&f, "01234567", 8) == 8);
    EXPECT(mag_file_pread(&f, buf, 4, 0) == 4); /* now it is known to have offsets */
    mag_sys_fail_nth(MAG_SYS_PREADV2, 1, EOPNOTSUPP, true);
    EXPECT(mag_file_pread(&f, buf, 4, 0) == 4 && memcmp(buf, "0123", 4) == 0);
    EXPECT(mag_file_pread(&f, buf, 4, 4) == 4 && memcmp(buf, "4567", 4) == 0);
    cached_reads = mag_sys_count(MAG_SYS_PREADV2);
    mag_sys_fail_none();
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, refusal_is_remembered)
{
    int line = run_in_task(cached_read_refused);

    cr_assert_eq(line, 0, "line %d", line);
    cr_assert_eq(cached_reads, is_on_epoll() ? 3 : 1, "%llu", (unsigned long long)cached_reads);
}

static int cached_read_would_block(void)
{
    struct mag_file f;
    char buf[4];

    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_write(&f, "01234567", 8) == 8);
    EXPECT(mag_file_pread(&f, buf, 4, 0) == 4);
    for (int err = 0; err < 2; err++) {
        mag_sys_fail_nth(MAG_SYS_PREADV2, 1, err ? EAGAIN : EINTR, false);
        EXPECT(mag_file_pread(&f, buf, 4, 4) == 4 && memcmp(buf, "4567", 4) == 0);
        EXPECT(mag_sys_count(MAG_SYS_PREADV2) == (err ? 1 : 2) || is_on_epoll());
    }
    mag_sys_fail_nth(MAG_SYS_PREADV2, 1, EIO, false);
    EXPECT(mag_file_pread(&f, buf, 4, 4) == -EIO);
    mag_sys_fail_none();
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, cached_read_would_block)
{
    int line = run_in_task(cached_read_would_block);

    cr_assert_eq(line, 0, "line %d", line);
}

/* ---- stat --------------------------------------------------------------------------- */

static int stat_both(void)
{
    struct mag_file_stat by_file, by_path;
    struct mag_file f;
    struct stat st;

    EXPECT(mag_file_open(&f, path, "w") == 0);
    EXPECT(mag_file_write(&f, "12345", 5) == 5);
    EXPECT(mag_file_stat(&f, &by_file) == 0);
    EXPECT(mag_stat(path, &by_path) == 0);
    EXPECT(stat(path, &st) == 0);
    EXPECT(memcmp(&by_file, &by_path, sizeof by_file) == 0);
    EXPECT(by_file.size == 5 && by_file.mode == st.st_mode && by_file.n_links == 1);
    EXPECT(by_file.inode == st.st_ino && by_file.device == st.st_dev);
    EXPECT(by_file.modified_ns == st.st_mtim.tv_sec * MAG_SECOND + st.st_mtim.tv_nsec);
    EXPECT(mag_file_close(&f) == 0);
    EXPECT(mag_stat("/nowhere", &by_path) == -ENOENT);
    EXPECT(mag_file_stat(&f, &by_file) == -EBADF);
    return 0;
}

Test(file, stat)
{
    BOTH(stat_both);
}

/* ---- the whole content ---------------------------------------------------------------- */

static int read_all_sizes(void)
{
    static const int sizes[] = { 0, 1, 4095, 4096, 4097, 8192, 100000, 3000000 };
    char *bytes = malloc(3000000);
    struct mag_file f;
    struct mag_str all;

    memset(bytes, 'y', 3000000);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        EXPECT(mag_file_open(&f, path, "w+") == 0);
        EXPECT(mag_file_pwrite(&f, bytes, (size_t)sizes[i], 0) == sizes[i]);
        EXPECT(mag_file_read_all(&f, &all) == 0);
        EXPECT((int)all.len == sizes[i] && all.ptr[all.len] == 0);
        EXPECT(memcmp(all.ptr, bytes, all.len) == 0);
        /* From the position, which is the end now. */
        EXPECT(mag_file_read_all(&f, &all) == 0 && all.len == 0 && *all.ptr == 0);
        EXPECT(mag_file_close(&f) == 0);
    }
    free(bytes);
    return 0;
}

Test(file, read_all)
{
    int64_t live = mag_mem_live();

    BOTH(read_all_sizes);
    cr_assert_eq(mag_mem_live(), live);
}

static int read_all_fails(void)
{
    struct mag_file f;
    struct mag_str all = { .ptr = path, .len = 1 };

    EXPECT(mag_file_open(&f, dir, "r") == 0);
    EXPECT(mag_file_read_all(&f, &all) == -EISDIR);
    EXPECT(all.ptr == NULL && all.len == 0);
    mag_mem_fail_nth(1, true);
    EXPECT(mag_file_read_all(&f, &all) == -ENOMEM);
    mag_mem_fail_nth(0, false);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, read_all_fails)
{
    int64_t live = mag_mem_live();

    BOTH(read_all_fails);
    cr_assert_eq(mag_mem_live(), live);
}

static int too_big(void)
{
    struct mag_file f;
    struct mag_str all;

    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(ftruncate(f.fd, 0x7ffff001) == 0);
    EXPECT(mag_file_read_all(&f, &all) == -EFBIG);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, read_all_too_big, .disabled = MAG_ASAN)
{
    cr_assert_eq(too_big(), 0);
}

static int read_all_as_coroutine(void)
{
    struct mag_file f;
    struct mag_str all;

    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_pwrite(&f, "content", 7, 0) == 7);
    EXPECT(mag_await(mag_file_read_all_co(&f), &all, sizeof all) == 0);
    EXPECT(all.len == 7 && strcmp(all.ptr, "content") == 0);
    EXPECT(mag_file_close(&f) == 0);
    return 0;
}

Test(file, read_all_as_coroutine)
{
    int line = run_in_task(read_all_as_coroutine);

    cr_assert_eq(line, 0, "line %d", line);
}

/* ---- cancellation ---------------------------------------------------------------------- */

struct reader {
    struct mag_file *f;
    char buf[16];
};

static int reader_body(void *frame, void *result)
{
    struct reader *r = *(struct reader **)frame;

    (void)result;
    return mag_file_read(r->f, r->buf, sizeof r->buf);
}

static int spawn_reader(struct mag_task **task, struct reader *r)
{
    return mag_spawn(task, reader_body, &r, sizeof r, 0, NULL);
}

static int cancelled_read(void)
{
    struct mag_file f;
    struct reader reader = { .f = &f };
    struct mag_task *task;
    char name[32];
    int ends[2];

    EXPECT(pipe(ends) == 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
    EXPECT(mag_file_open(&f, name, "r") == 0);
    /* One that waits for data, and gets some. */
    EXPECT(spawn_reader(&task, &reader) == 0);
    EXPECT(mag_sleep(10 * MAG_MS) == 0);
    EXPECT(write(ends[1], "data", 4) == 4);
    EXPECT(mag_await(task, NULL, 0) == 4 && memcmp(reader.buf, "data", 4) == 0);
    /* One that is cancelled while it waits. */
    EXPECT(spawn_reader(&task, &reader) == 0);
    EXPECT(mag_sleep(10 * MAG_MS) == 0);
    EXPECT(mag_cancel(task) == 0);
    EXPECT(mag_await(task, NULL, 0) == -ECANCELED);
    /* The kernel has given the buffer back: what comes now is for the next read. */
    EXPECT(write(ends[1], "next", 4) == 4);
    EXPECT(mag_file_read(&f, reader.buf, sizeof reader.buf) == 4);
    EXPECT(memcmp(reader.buf, "next", 4) == 0);
    EXPECT(mag_file_close(&f) == 0);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

Test(file, cancelled_read)
{
    int line = run_in_task(cancelled_read);

    cr_assert_eq(line, 0, "line %d", line);
}

/* What a cancelled task still gets: errors from each point, and the close. */
static mag_atomic(uint32_t) has_begun; /* or a cancel would keep it from that */

static int cancelled_task(void *frame, void *result)
{
    struct mag_file f, *open = *(struct mag_file **)frame;
    struct mag_file_stat st;
    struct mag_str all;
    int fd = open->fd;
    char c;

    (void)result;
    mag_store_release(&has_begun, 1);
    while (mag_yield() == 0)
        continue;
    EXPECT(mag_file_open(&f, path, "w") == -ECANCELED && f.fd == -1);
    EXPECT(mag_file_read(open, &c, 1) == -ECANCELED);
    EXPECT(mag_file_write(open, &c, 1) == -ECANCELED);
    EXPECT(mag_file_fsync(open, false) == -ECANCELED);
    EXPECT(mag_file_stat(open, &st) == -ECANCELED);
    EXPECT(mag_file_read_all(open, &all) == -ECANCELED);
    EXPECT(mag_file_close(open) == 0);
    EXPECT(fcntl(fd, F_GETFD) < 0);
    return 0;
}

static int cancelled_operations(void)
{
    struct mag_file f, *open = &f;
    struct mag_task *task;

    EXPECT(mag_file_open(&f, path, "w+") == 0);
    EXPECT(mag_file_pwrite(&f, "bytes", 5, 0) == 5);
    EXPECT(mag_spawn(&task, cancelled_task, &open, sizeof open, 0, NULL) == 0);
    while (!mag_load_acquire(&has_begun))
        EXPECT(mag_sleep(MAG_MS) == 0);
    EXPECT(mag_cancel(task) == 0);
    return mag_await(task, NULL, 0);
}

Test(file, cancelled_operations)
{
    int line = run_in_task(cancelled_operations);

    cr_assert_eq(line, 0, "line %d", line);
}
