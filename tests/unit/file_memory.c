/* SPDX-License-Identifier: MIT */
/*
 * file_memory.c - tests of files in memory: read and written without the ring and the pool
 *
 * They need /dev/shm to be tmpfs, and those of writing a kernel that numbers its mounts for good
 * (Linux 6.8); without, they say so and end.
 */
#include "file_memory.h"

#include "file_handle.h"
#include "files.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U
#endif

FILES_SUITE(file_memory);

static char disk_dir[sizeof files_dir]; /* the directory that FILES_SUITE has made */

/* The tests' directory is in memory from now on; false: there is none. */
static bool move_to_memory(void)
{
    int fd;

    strcpy(disk_dir, files_dir);
    strcpy(files_dir, "/dev/shm/mag-test-XXXXXX");
    if (mkdtemp(files_dir)) {
        fd = open(at("probe"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        bool is_memory = fd >= 0 && fcntl(fd, F_GET_SEALS) >= 0;
        close(fd);
        unlink(at("probe"));
        if (is_memory) {
            rmdir(disk_dir);
            return true;
        }
        rmdir(files_dir);
    }
    strcpy(files_dir, disk_dir);
    return false;
}

static bool numbers_mounts(void)
{
    struct statx st;

    return statx(AT_FDCWD, "/", 0, STATX_MNT_ID_UNIQUE, &st) == 0 &&
           (st.stx_mask & STATX_MNT_ID_UNIQUE);
}

/* A test that is skipped does not come to its suite's end. */
#define NEED(what, otherwise) \
    do { \
        if (!(what)) { \
            files_end(); \
            cr_skip_test(otherwise); \
        } \
    } while (0)

/* ---- reading ------------------------------------------------------------------------- */

/* The epoll back-end reads by the same call. */
static bool is_on_epoll(void)
{
    const char *backend = getenv("MAGPIE_BACKEND");

    return backend && strcmp(backend, "epoll") == 0;
}

/* How often it was tried on the spot; io_uring does not come by here. */
static uint64_t n_reads(void)
{
    return mag_sys_count(MAG_SYS_PREADV2);
}

static int read_spot(void)
{
    struct mag_str s;
    struct mag_file f;
    char a[4], b[8];
    struct iovec parts[] = { { a, sizeof a }, { b, sizeof b } };

    put("f", "content");
    for (int i = 0; i < 3; i++) {
        mag_sys_fail_nth(MAG_SYS_PREADV2, UINT64_MAX, EIO, false);
        EXPECT(mag_read_file(at("f"), &s, 0) == 0 && s.len == 7 && !memcmp(s.ptr, "content", 7));
        /* the first is refused, and asks; who comes after it knows (or the kernel has learnt) */
        EXPECT(n_reads() == (i ? 2u : 3u) || n_reads() == 2);
        mag_str_free(&s);
    }
    EXPECT(mag_file_open(&f, at("f"), "r") == 0);
    EXPECT(mag_file_readv(&f, parts, 2) == 7 && !memcmp(a, "cont", 4) && !memcmp(b, "ent", 3));
    EXPECT(mag_file_preadv(&f, parts, 2, 5) == 2 && !memcmp(a, "nt", 2));
    EXPECT(mag_file_pread(&f, b, 8, 1) == 6 && !memcmp(b, "ontent", 6));
    EXPECT(mag_file_read(&f, b, 8) == 0);
    EXPECT(mag_file_close(&f) == 0);
    mag_sys_fail_none();
    return 0;
}

Test(file_memory, read_on_the_spot)
{
    NEED(move_to_memory(), "/dev/shm is no tmpfs");
    IN_TASK(read_spot);
}

/* What has no seals, or may not say so, is read by the ring. */
static int read_unsealed(void)
{
    struct mag_str s;

    put("f", "content");
    for (int i = 0; i < 3; i++) {
        mag_sys_fail_nth(MAG_SYS_FSTAT, 1, i ? EINVAL : EPERM, false);
        mag_sys_fail_nth(MAG_SYS_PREADV2, 1, EOPNOTSUPP, false);
        EXPECT(mag_read_file(at("f"), &s, 0) == 0 && s.len == 7);
        EXPECT(mag_sys_count(MAG_SYS_FSTAT) >= 1 && (is_on_epoll() || n_reads() == 1));
        mag_sys_fail_none();
        mag_str_free(&s);
    }
    /* Seals, and yet refused: once is enough. */
    mag_sys_fail_nth(MAG_SYS_PREADV2, 1, EOPNOTSUPP, true);
    EXPECT(mag_read_file(at("f"), &s, 0) == 0 && s.len == 7);
    EXPECT(is_on_epoll() || n_reads() <= 2);
    mag_sys_fail_none();
    mag_str_free(&s);
    return 0;
}

Test(file_memory, read_without_seals)
{
    NEED(move_to_memory(), "/dev/shm is no tmpfs");
    IN_TASK(read_unsealed);
}

/* Memory and a disk by turns: whatever the last file was, this one is read right. */
static int read_mixed(void)
{
    char *bytes = malloc(100000), path[64];
    struct mag_str s;

    for (int i = 0; i < 100000; i++)
        bytes[i] = (char)(i * 7);
    put_bytes("f", bytes, 100000);
    snprintf(path, sizeof path, "%s/f", disk_dir);
    EXPECT(mkdir(disk_dir, 0700) == 0 && mag_write_file(path, bytes, 100000, 0600) == 0);
    for (int i = 0; i < 6; i++) {
        EXPECT(mag_read_file(i % 2 ? path : at("f"), &s, 0) == 0 && s.len == 100000);
        EXPECT(memcmp(s.ptr, bytes, s.len) == 0);
        mag_str_free(&s);
    }
    EXPECT(mag_read_file("/proc/self/status", &s, 0) == 0 && s.len > 100);
    mag_str_free(&s);
    free(bytes);
    return unlink(path) == 0 && rmdir(disk_dir) == 0 ? 0 : __LINE__;
}

Test(file_memory, read_by_turns)
{
    NEED(move_to_memory(), "/dev/shm is no tmpfs");
    IN_TASK(read_mixed);
}

/* ---- making ---------------------------------------------------------------------------- */

static void learn(void)
{
    int fd = open(at("learnt"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    mag_memory_learn(fd);
    close(fd);
    unlink(at("learnt"));
}

static bool made(const char *name, unsigned mode)
{
    int fd = mag_memory_create(at(name), mode);
    struct stat st;

    if (fd < 0)
        return false;
    bool is_right = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 &&
                    (fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    return is_right && has(name);
}

/* Often enough that the knowledge of a moment ago is used, and at times has expired. */
Test(file_memory, made_where_it_was_learnt)
{
    char name[16];
    struct stat st;

    NEED(move_to_memory() && numbers_mounts(), "no tmpfs, or Linux before 6.8");
    umask(022);
    cr_assert_eq(mag_memory_create(at("f"), 0644), -EAGAIN, "nothing is known yet");
    learn();
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "f%d", i % 70); /* the last ones are there already */
        put(i % 3 ? "other" : name, "old");
        cr_assert(made(name, 0100666), "%s", name);
        cr_assert(says(name, ""));
        if (i % 10 == 0)
            usleep(2000);
    }
    cr_assert(stat(at("f1"), &st) == 0 && (st.st_mode & 07777) == 0644);
    cr_assert(chdir(files_dir) == 0);
    for (int i = 0; i < 2; i++) {
        int fd = mag_memory_create("relative", 0600);
        cr_assert_geq(fd, 0);
        close(fd);
    }
    cr_assert(has("relative") && chdir("/") == 0);
}

/* All that may be no small regular file there is the pool's, and untouched. */
static void refused(void)
{
    static const char *const names[] = { "link",   "dangling", "fifo", "dir", "big",
                                         "none/f", "dir/",     ".",    "..",  "" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        cr_assert_eq(mag_memory_create(at(names[i]), 0600), -EAGAIN, "%s", names[i]);
    cr_assert(says("target", "text"));
    cr_assert(!has("none") && !has("away"));
    cr_assert_eq(mag_memory_create("", 0600), -EAGAIN);
    cr_assert_eq(mag_memory_create("/dev/null", 0600), -EAGAIN);
}

Test(file_memory, anything_else_is_refused)
{
    static char big[1024 * 1024 + 1];
    char path[700];
    struct stat st;

    NEED(move_to_memory() && numbers_mounts(), "no tmpfs, or Linux before 6.8");
    learn();
    put("target", "text");
    cr_assert(symlink("target", at("link")) == 0 && symlink("away", at("dangling")) == 0);
    cr_assert(mkfifo(at("fifo"), 0600) == 0 && mkdir(at("dir"), 0700) == 0);
    put_bytes("big", big, sizeof big);
    (void)mknod(at("null"), S_IFCHR | 0666, makedev(1, 3)); /* for who may */
    if (has("null"))
        cr_assert_eq(mag_memory_create(at("null"), 0600), -EAGAIN);
    refused(); /* with nothing known of the directory, ... */
    for (int i = 0; i < 20; i++) {
        cr_assert(made("f", 0600)); /* ... and as the one of a moment ago */
        refused();
    }
    cr_assert(stat(at("big"), &st) == 0 && st.st_size == sizeof big);
    snprintf(path, sizeof path, "%s/%0*d/f", files_dir, 600, 0);
    cr_assert_eq(mag_memory_create(path, 0600), -EAGAIN);
}

/* The same words lead to a disk now: no later than after one file. */
Test(file_memory, a_directory_that_is_replaced)
{
    int fd;

    NEED(move_to_memory() && numbers_mounts(), "no tmpfs, or Linux before 6.8");
    learn();
    cr_assert(mkdir(disk_dir, 0700) == 0);
    fd = open(disk_dir, O_TMPFILE | O_RDWR, 0600);
    bool is_disk = fd >= 0 && fcntl(fd, F_GET_SEALS) < 0;
    close(fd);
    cr_assert(mkdir(at("d"), 0700) == 0 && made("d/a", 0600) && made("d/b", 0600));
    cr_assert(rename(at("d"), at("was")) == 0 && symlink(disk_dir, at("d")) == 0);
    fd = mag_memory_create(at("d/c"), 0600);
    close(fd);
    cr_assert(fd < 0 || has("d/c"));
    cr_assert_eq(n_entries("was"), 2, "nothing is made where the path led before");
    if (is_disk)
        cr_assert_eq(mag_memory_create(at("d/e"), 0600), -EAGAIN);
    unlink(at("d/c"));
    unlink(at("d/e"));
    cr_assert(rmdir(disk_dir) == 0);
}

/* A file of a disk that is mounted on one in memory.  For who may mount. */
Test(file_memory, a_file_of_another_mount)
{
    char path[64];

    NEED(move_to_memory() && numbers_mounts(), "no tmpfs, or Linux before 6.8");
    NEED(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
         "mounting is not allowed");
    learn();
    snprintf(path, sizeof path, "%s/f", disk_dir);
    cr_assert(mkdir(disk_dir, 0700) == 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(write(fd, "text", 4) == 4 && close(fd) == 0);
    put("f", "covered");
    cr_assert(mount(path, at("f"), NULL, MS_BIND, NULL) == 0);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(mag_memory_create(at("f"), 0600), -EAGAIN);
        cr_assert(made("other", 0600));
        cr_assert_eq(mag_memory_create(at("f"), 0600), -EAGAIN);
    }
    cr_assert(says("f", "text") && umount(at("f")) == 0 && says("f", "covered"));
    cr_assert(unlink(path) == 0 && rmdir(disk_dir) == 0);
}

Test(file_memory, a_disk_is_not_learnt)
{
    learn();
    int fd = open(at("f"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool is_memory = fcntl(fd, F_GET_SEALS) >= 0;
    close(fd);
    NEED(!is_memory, "/tmp is tmpfs");
    cr_assert_eq(mag_memory_create(at("g"), 0600), -EAGAIN);
    cr_assert(!has("g"));
}

/* A sandbox without openat2, seals or statx: nothing is made, and nothing left open. */
Test(file_memory, refused_by_a_sandbox)
{
    static const int errors[] = { ENOSYS, EPERM, EINVAL, EAGAIN, EINTR, EMFILE };
    int n = n_descriptors();

    NEED(move_to_memory() && numbers_mounts(), "no tmpfs, or Linux before 6.8");
    mag_sys_fail_nth(MAG_SYS_FSTAT, 1, EINVAL, true);
    learn();
    cr_assert_eq(mag_memory_create(at("f"), 0600), -EAGAIN);
    mag_sys_fail_none();
    learn();
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        mag_sys_fail_nth(MAG_SYS_OPENAT, 1, errors[i], true);
        cr_assert_eq(mag_memory_create(at("f"), 0600), -EAGAIN);
        mag_sys_fail_none();
        usleep(1100);
        mag_sys_fail_nth(MAG_SYS_OPENAT, 2, errors[i], true);
        cr_assert_eq(mag_memory_create(at("f"), 0600), -EAGAIN);
        mag_sys_fail_none();
        mag_sys_fail_nth(MAG_SYS_STATX, 1, errors[i], true);
        usleep(1100);
        cr_assert_eq(mag_memory_create(at("f"), 0600), -EAGAIN);
        mag_sys_fail_none();
        cr_assert(!has("f"));
    }
    cr_assert_eq(n_descriptors(), n);
}

/* ---- writing --------------------------------------------------------------------------- */

static int write_sizes(void)
{
    static const size_t sizes[] = { 0, 1, 4096, 65536, 65537, 3000000, 5, 0 };
    char *bytes = malloc(3000000);
    struct mag_str s;

    for (int i = 0; i < 3000000; i++)
        bytes[i] = (char)(i * 7 + i / 4096);
    for (size_t i = 0; i < 3 * sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i % (sizeof sizes / sizeof *sizes)];
        EXPECT(mag_write_file(at("f"), bytes, n, 0600) == 0);
        EXPECT(mag_read_file(at("f"), &s, 0) == 0 && s.len == n && !memcmp(s.ptr, bytes, n));
        mag_str_free(&s);
    }
    free(bytes);
    EXPECT(mag_write_file(at("no/f"), "x", 1, 0600) == -ENOENT);
    EXPECT(mag_write_file(files_dir, "x", 1, 0600) == -EISDIR);
    EXPECT(mag_write_file("/dev/full", "x", 1, 0600) == -ENOSPC);
    EXPECT(symlink("f", at("link")) == 0);
    EXPECT(mag_write_file(at("link"), "by a link", 9, 0600) == 0 && says("f", "by a link"));
    return 0;
}

Test(file_memory, written)
{
    NEED(move_to_memory(), "/dev/shm is no tmpfs");
    IN_TASK(write_sizes);
}

/* The first is the pool's, which learns. */
static int write_spot(void)
{
    EXPECT(mag_write_file(at("f0"), "text", 4, 0600) == 0);
    mag_sys_fail_nth(MAG_SYS_OPENAT, UINT64_MAX, EIO, false);
    EXPECT(mag_write_file(at("f1"), "text", 4, 0600) == 0 && says("f1", "text"));
    EXPECT(mag_sys_count(MAG_SYS_OPENAT) == 2); /* the directory and the file */
    mag_sys_fail_none();
    for (int i = 1; i <= 2; i++) { /* whichever is refused, the pool does it */
        mag_sys_fail_nth(MAG_SYS_OPENAT, (uint64_t)i, ENOSYS, false);
        EXPECT(mag_write_file(at("f2"), i == 1 ? "one" : "two", 3, 0600) == 0);
        EXPECT(says("f2", i == 1 ? "one" : "two"));
        mag_sys_fail_none();
    }
    return 0;
}

Test(file_memory, written_on_the_spot)
{
    NEED(move_to_memory() && numbers_mounts(), "no tmpfs, or Linux before 6.8");
    IN_TASK(write_spot);
}

static int write_it(void *arg, long *value)
{
    *value = 0;
    nth_point();
    return mag_write_file(arg, "new", 3, 0600);
}

/* Done or not begun: nothing in between. */
static int new_or_none(void *arg, int rc)
{
    (void)arg;
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(rc == 0 ? says("f", "new") : !has("f") || says("f", "new"));
    unlink(at("f"));
    return 0;
}

static int write_cancelled(void *arg, long *value)
{
    char path[256];

    (void)arg;
    *value = 0;
    strcpy(path, at("f"));
    if (mag_write_file(at("first"), "x", 1, 0600) < 0)
        return -EIO;
    return nth_cancel(write_it, path, new_or_none);
}

Test(file_memory, write_cancelled_anywhere)
{
    NEED(move_to_memory(), "/dev/shm is no tmpfs");
    RUN(1, write_cancelled, NULL);
}
