/* SPDX-License-Identifier: MIT */
/*
 * dir.c - tests of names, directory listing, trees and copies
 */
#include "files.h"

#include <magpie/async.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

FILES_SUITE(dir);

/* ---- names ---------------------------------------------------------------------------- */

static int names(void)
{
    char buf[16];
    struct stat a, b;

    put("f", "text");
    EXPECT(mag_mkdir(at("d"), 0755) == 0 && mag_mkdir(at("d"), 0755) == -EEXIST);
    EXPECT(mag_rename(at("f"), at("g")) == 0 && !has("f") && says("g", "text"));
    put("f", "other");
    EXPECT(mag_rename_new(at("f"), at("g")) == -EEXIST && says("g", "text"));
    EXPECT(mag_rename_new(at("f"), at("h")) == 0 && mag_rename(at("h"), at("g")) == 0);
    EXPECT(says("g", "other") && mag_rename(at("h"), at("g")) == -ENOENT);
    EXPECT(mag_link(at("g"), at("d/g")) == 0 && mag_link(at("g"), at("d/g")) == -EEXIST);
    EXPECT(stat(at("g"), &a) == 0 && stat(at("d/g"), &b) == 0 && a.st_ino == b.st_ino);
    EXPECT(mag_symlink("target", at("l")) == 0 && mag_symlink("target", at("l")) == -EEXIST);
    EXPECT(mag_readlink(at("l"), buf, sizeof buf) == 6 && strcmp(buf, "target") == 0);
    EXPECT(mag_readlink(at("l"), buf, 6) == -ENAMETOOLONG);
    EXPECT(mag_readlink(at("l"), buf, 0) == -ENAMETOOLONG);
    EXPECT(mag_readlink(at("g"), buf, sizeof buf) == -EINVAL);
    EXPECT(mag_exists(at("l")) == 0 && mag_exists(at("g")) == 1 && mag_exists(at("g/x")) == 0);
    EXPECT(mag_rmdir(at("d")) == -ENOTEMPTY && mag_unlink(at("d/g")) == 0);
    EXPECT(mag_rmdir(at("d")) == 0 && mag_rmdir(at("d")) == -ENOENT);
    EXPECT(mag_unlink(at("l")) == 0 && mag_unlink(at("g")) == 0 && mag_unlink(at("g")) == -ENOENT);
    return n_entries(".");
}

Test(dir, names)
{
    BOTH(names);
}

static int attributes(void)
{
    struct mag_file_stat st, lst;
    struct mag_volume v;
    struct statvfs vfs;

    put("f", "text");
    unlink(at("l"));
    EXPECT(symlink("f", at("l")) == 0);
    EXPECT(mag_chmod(at("f"), 0640) == 0 && mag_chmod(at("none"), 0640) == -ENOENT);
    EXPECT(mag_stat(at("l"), &st) == 0 && (st.mode & 07777) == 0640 && st.size == 4);
    EXPECT(mag_lstat(at("l"), &lst) == 0 && S_ISLNK(lst.mode));
    EXPECT(mag_access(at("f"), R_OK) == 0 && mag_access(at("none"), F_OK) == -ENOENT);
    EXPECT(mag_access(at("f"), X_OK) == -EACCES);
    EXPECT(mag_statvfs(files_dir, &v) == 0 && statvfs(files_dir, &vfs) == 0);
    EXPECT(v.size == (uint64_t)vfs.f_blocks * vfs.f_frsize && v.available <= v.free);
    EXPECT(mag_statvfs(at("none"), &v) == -ENOENT);
    return 0;
}

Test(dir, attributes)
{
    BOTH(attributes);
}

static int several_levels(void)
{
    char deep[256];

    snprintf(deep, sizeof deep, "%s//a/b///c/d/", files_dir);
    EXPECT(mag_makedirs(deep, 0755) == 0 && has("a/b/c/d"));
    EXPECT(mag_makedirs(deep, 0755) == 0);
    put("a/f", "x");
    EXPECT(mag_makedirs(at("a/f"), 0755) == -ENOTDIR);
    EXPECT(mag_makedirs(at("a/f/g"), 0755) == -ENOTDIR);
    EXPECT(mag_makedirs("", 0755) == -ENOENT);
    EXPECT(mag_removedirs(deep) == 0);
    EXPECT(!has("a/b") && has("a/f")); /* as far as they are empty */
    EXPECT(mag_removedirs(deep) == -ENOENT && mag_removedirs(at("a")) == -ENOTEMPTY);
    mag_mem_fail_nth(1, true);
    EXPECT(mag_makedirs(deep, 0755) == -ENOMEM);
    mag_mem_fail_nth(0, false);
    return 0;
}

Test(dir, several_levels)
{
    BOTH(several_levels);
}

/* ---- listing ------------------------------------------------------------------------------ */

static int listing(void)
{
    enum { FILES = 1500 }; /* more than one batch */
    static bool seen[FILES];
    struct mag_dir_entry e;
    struct mag_dir *d;
    struct stat st;
    int n = 0, rc;

    mkdir(at("many"), 0700);
    for (int i = 0; i < FILES; i++) {
        char name[64];
        snprintf(name, sizeof name, "many/%d-with-a-name-of-some-length", i);
        put(name, "");
    }
    memset(seen, 0, sizeof seen);
    EXPECT(mag_dir_open(&d, at("many")) == 0);
    while ((rc = mag_dir_next(d, &e)) > 0) {
        int i = atoi(e.name);
        EXPECT(!seen[i] && e.len == strlen(e.name) && S_ISREG(e.type));
        seen[i] = true;
        if (n++ == 0) {
            char name[300];
            snprintf(name, sizeof name, "many/%s", e.name);
            EXPECT(stat(at(name), &st) == 0 && st.st_ino == e.inode);
        }
    }
    EXPECT(rc == 0 && n == FILES && mag_dir_next(d, &e) == 0);
    mag_dir_close(d);
    mag_dir_close(NULL);
    EXPECT(mag_dir_open(&d, at("many/0-with-a-name-of-some-length")) == -ENOTDIR && d == NULL);
    EXPECT(mag_dir_open(&d, at("none")) == -ENOENT);
    mag_mem_fail_nth(1, true);
    EXPECT(mag_dir_open(&d, files_dir) == -ENOMEM);
    mag_mem_fail_nth(0, false);
    mag_sys_fail_nth(MAG_SYS_GETDENTS, 2, EIO, false);
    EXPECT(mag_dir_open(&d, at("many")) == 0);
    while ((rc = mag_dir_next(d, &e)) > 0)
        continue;
    EXPECT(rc == -EIO && mag_dir_next(d, &e) == 0);
    mag_sys_fail_none();
    mag_dir_close(d);
    EXPECT(mag_dir_open(&d, at("many")) == 0 && mag_dir_next(d, &e) == 1);
    mag_dir_close(d); /* in the middle */
    return 0;
}

Test(dir, listing)
{
    BOTH(listing);
}

async(void, loop_over, (const char *, path), (int *, n), (int, enough))
{
    async_for(struct mag_dir_entry, e, mag_dir_entries(path))
    {
        *n += e.len > 0;
        if (*n == enough)
            break;
    }
    return 0;
}

static int loops(void)
{
    int n = 0;

    put("a", "");
    put("b", "");
    put("c", "");
    EXPECT(mag_await(loop_over(files_dir, &n, 100), NULL, 0) == 0 && n == 3);
    n = 0;
    EXPECT(mag_await(loop_over(files_dir, &n, 1), NULL, 0) == 0 && n == 1);
    EXPECT(mag_await(loop_over(at("none"), &n, 1), NULL, 0) == -ENOENT);
    struct loop_over *c = loop_over(files_dir, &n, 1);
    mag_mem_fail_nth(1, true);
    struct mag_iter none = mag_dir_entries(files_dir);
    mag_mem_fail_nth(0, false);
    struct mag_dir_entry e;
    EXPECT(mag_iter_next(&none, &e) == -ENOMEM);
    mag_iter_close(&none);
    mag_close(c);
    return 0;
}

Test(dir, async_for)
{
    IN_TASK(loops);
}

static int list_it(void *arg, long *value)
{
    int n = 0, rc;

    (void)arg;
    *value = 0;
    nth_point();
    rc = mag_await(loop_over(files_dir, &n, 100), NULL, 0);
    SHOULD(rc < 0 || n == 3);
    return rc;
}

static int no_descriptor_is_left(void *arg, int rc)
{
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(n_descriptors() == num(arg));
    return 0;
}

static int listing_cancelled(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    put("a", "");
    put("b", "");
    put("c", "");
    return nth_cancel(list_it, arg_of(n_descriptors()), no_descriptor_is_left);
}

Test(dir, listing_cancelled_anywhere)
{
    RUN(1, listing_cancelled, NULL);
}

/* ---- trees ----------------------------------------------------------------------------------- */

/* Removed in more than one job; made fast enough for the watchdog. */
static int make_tree(void)
{
    char name[300] = "t", file[320];

    mkdir(at("t"), 0700);
    for (int depth = 0; depth < 10; depth++) {
        strcat(name, depth % 2 ? "/dd" : "/e");
        EXPECT(mkdir(at(name), 0700) == 0);
        for (int i = 0; i < 6; i++) {
            snprintf(file, sizeof file, "%s/%d", name, i);
            put(file, "x");
        }
    }
    for (int i = 0; i < 250; i++) {
        snprintf(file, sizeof file, "t/%d", i);
        EXPECT(i % 2 ? mkdir(at(file), 0700) == 0 : symlink(files_dir, at(file)) == 0);
    }
    return 0;
}

static int tree_removed(void)
{
    char path[256];

    put("keep", "this");
    EXPECT(make_tree() == 0);
    snprintf(path, sizeof path, "%s/t//", files_dir);
    EXPECT(mag_remove_tree(path) == 0 && !has("t"));
    EXPECT(says("keep", "this")); /* which 125 links in the tree have led to */
    EXPECT(mag_remove_tree(at("t")) == -ENOENT);
    EXPECT(mag_remove_tree("") == -ENOENT && mag_remove_tree("/") == -EINVAL);
    EXPECT(mag_remove_tree(".") == -EINVAL && mag_remove_tree("/tmp/..") == -EINVAL);
    EXPECT(mkdir(at("d"), 0700) == 0);
    put("d/f", "x");
    EXPECT(symlink(at("d"), at("l")) == 0);
    EXPECT(mag_remove_tree(at("l")) == 0 && has("d/f") && !has("l"));
    EXPECT(mag_remove_tree(at("keep")) == 0 && !has("keep")); /* a file is a tree */
    EXPECT(mag_remove_tree(at("d")) == 0 && n_entries(".") == 0);
    return 0;
}

Test(dir, tree_removed)
{
    BOTH(tree_removed);
}

/* Each of its system calls and allocations fails in turn; afterwards nothing is in use. */
static int removal_fails(void)
{
    static const enum mag_sys_id ids[] = { MAG_SYS_OPENAT, MAG_SYS_FSTAT, MAG_SYS_GETDENTS };
    int n_failed = 0;

    for (int i = 0; i < 4; i++)
        for (uint64_t n = 1, rc = 1; rc != 0; n += 3) {
            EXPECT(has("t") || (mkdir(at("t"), 0700) == 0 && mkdir(at("t/d"), 0700) == 0 &&
                                mkdir(at("t/d/e"), 0700) == 0));
            put("t/d/e/f", "x");
            if (i < 3)
                mag_sys_fail_nth(ids[i], n, EIO, false);
            else
                mag_mem_fail_nth(n, false);
            int result = mag_remove_tree(at("t"));
            mag_sys_fail_none();
            mag_mem_fail_nth(0, false);
            EXPECT(result == 0 || result == (i < 3 ? -EIO : -ENOMEM));
            EXPECT(has("t") == (result < 0));
            rc = (uint64_t)-result;
            n_failed += rc != 0;
        }
    EXPECT(n_failed >= 4);
    return 0;
}

Test(dir, removal_fails)
{
    BOTH(removal_fails);
}

static int remove_it(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    nth_point();
    return mag_remove_tree(at("t"));
}

static int some_is_left(void *arg, int rc)
{
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(has("t") == (rc < 0));
    SHOULD(n_descriptors() == num(arg));
    if (!has("t"))
        SHOULD(make_tree() == 0);
    return 0;
}

static int removal_cancelled(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    SHOULD(make_tree() == 0);
    return nth_cancel(remove_it, arg_of(n_descriptors()), some_is_left);
}

Test(dir, removal_cancelled_anywhere)
{
    RUN(1, removal_cancelled, NULL);
}

static int temporary(void)
{
    struct mag_temp_dir d;
    struct stat st;
    char path[300];

    EXPECT(mag_temp_dir_enter(&d, NULL) == 0);
    EXPECT(stat(d.path, &st) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0777) == 0700);
    EXPECT(strncmp(d.path, files_dir, strlen(files_dir)) == 0);
    snprintf(path, sizeof path, "%s/a/b", d.path);
    EXPECT(mag_makedirs(path, 0700) == 0);
    mag_temp_dir_exit(&d);
    EXPECT(n_entries(".") == 0 && d.path == NULL);
    EXPECT(mag_temp_dir_enter(&d, at("no/such")) == -ENOENT && d.path == NULL);
    mag_mem_fail_nth(1, true);
    EXPECT(mag_temp_dir_enter(&d, NULL) == -ENOMEM);
    mag_mem_fail_nth(0, false);
    return 0;
}

Test(dir, temporary)
{
    BOTH(temporary);
}

/* ---- copies ---------------------------------------------------------------------------------- */

struct seen {
    int n, stop_at;
    uint64_t done, total;
};

static int progress(void *arg, uint64_t done, uint64_t total)
{
    struct seen *s = arg;

    s->done = done;
    s->total = total;
    return ++s->n == s->stop_at ? -EINTR : 0;
}

static bool equal_files(const char *a, const char *b)
{
    char command[600];

    snprintf(command, sizeof command, "cmp -s %s %s", at(a), at(b));
    return system(command) == 0;
}

static int copied(void)
{
    enum { BYTES = 20 * 1024 * 1024 + 5 };
    char *bytes = malloc(BYTES);
    struct seen seen = { .n = 0 };
    struct mag_copy_options o = { .progress = progress, .arg = &seen };
    struct stat st;

    for (int i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 2654435761u >> 20);
    put_bytes("f", bytes, BYTES);
    free(bytes);
    chmod(at("f"), 0751);
    EXPECT(mag_copy_file(at("f"), at("g"), &o) == 0 && equal_files("f", "g"));
    EXPECT(seen.done == BYTES && seen.total == BYTES && seen.n == 3);
    EXPECT(stat(at("g"), &st) == 0 && (st.st_mode & 07777) == 0751);
    put("g", "short");
    EXPECT(mag_copy_file(at("f"), at("g"), NULL) == 0 && equal_files("f", "g"));
    o.exclusive = true;
    EXPECT(mag_copy_file(at("f"), at("g"), &o) == -EEXIST);
    seen = (struct seen){ .stop_at = 1 };
    EXPECT(mag_copy_file(at("f"), at("h"), &o) == -EINTR && !has("h"));
    put("empty", "");
    EXPECT(mag_copy_file(at("empty"), at("g"), NULL) == 0 && says("g", ""));
    EXPECT(mag_copy_file(at("none"), at("h"), NULL) == -ENOENT && !has("h"));
    EXPECT(mag_copy_file(at("f"), at("f"), NULL) == -EINVAL && equal_files("f", "f"));
    EXPECT(link(at("f"), at("same")) == 0);
    EXPECT(mag_copy_file(at("f"), at("same"), NULL) == -EINVAL);
    EXPECT(stat(at("f"), &st) == 0 && st.st_size == BYTES);
    EXPECT(mag_copy_file(files_dir, at("h"), NULL) == -EISDIR);
    EXPECT(mag_copy_file("/dev/zero", at("h"), NULL) == -EINVAL);
    EXPECT(mag_copy_file(at("f"), "/dev/null", NULL) == -EINVAL);
    unlink(at("same"));
    return 0;
}

Test(dir, copied)
{
    BOTH(copied);
}

/* Where copy_file_range(2) cannot: a file that has no size, and one it is refused for. */
static int by_hand(void)
{
    put("f", "text");
    EXPECT(mag_copy_file("/proc/version", at("g"), NULL) == 0);
    EXPECT(system("cat /proc/version | cmp -s - $TMPDIR/g") == 0);
    mag_sys_fail_nth(MAG_SYS_WRITE, 1, EXDEV, false);
    unlink(at("g"));
    EXPECT(mag_copy_file(at("f"), at("g"), NULL) == 0 && says("g", "text"));
    mag_mem_fail_nth(1, true);
    mag_sys_fail_nth(MAG_SYS_WRITE, 1, EXDEV, false);
    unlink(at("g"));
    EXPECT(mag_copy_file(at("f"), at("g"), NULL) == -ENOMEM && !has("g"));
    mag_mem_fail_nth(0, false);
    for (uint64_t n = 2; n < 4; n++) { /* the second piece, the chmod */
        mag_sys_fail_nth(MAG_SYS_WRITE, n, ENOSPC, false);
        EXPECT(mag_copy_file(at("f"), at("g"), NULL) == -ENOSPC && !has("g"));
        mag_sys_fail_none();
    }
    return 0;
}

/* Not in a task: there rings wake each other by writes, which the fault would hit. */
Test(dir, copied_by_hand)
{
    cr_assert_eq(by_hand(), 0, "line %d", by_hand());
}

static int copy_it(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    nth_point();
    return mag_copy_file(at("f"), at("g"), NULL);
}

static int whole_or_nothing(void *arg, int rc)
{
    SHOULD(rc == 0 || rc == -ECANCELED);
    SHOULD(has("g") == (rc == 0));
    SHOULD(rc < 0 || equal_files("f", "g"));
    SHOULD(n_descriptors() == num(arg));
    unlink(at("g"));
    return 0;
}

static int copy_cancelled(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    put("f", "");
    SHOULD(truncate(at("f"), 20 * 1024 * 1024) == 0);
    return nth_cancel(copy_it, arg_of(n_descriptors()), whole_or_nothing);
}

Test(dir, copy_cancelled_anywhere)
{
    RUN(1, copy_cancelled, NULL);
}

static int moved(void)
{
    char other[] = "/dev/shm/mag-move-XXXXXX", path[64];
    struct stat here, there;

    put("f", "text");
    EXPECT(mag_move(at("f"), at("g")) == 0 && !has("f") && says("g", "text"));
    EXPECT(mag_move(at("f"), at("g")) == -ENOENT);
    if (!mkdtemp(other))
        return 0;
    snprintf(path, sizeof path, "%s/x", other);
    if (stat(other, &there) == 0 && stat(files_dir, &here) == 0 && here.st_dev != there.st_dev) {
        chmod(at("g"), 0640);
        EXPECT(mag_move(at("g"), path) == 0 && !has("g"));
        EXPECT(stat(path, &there) == 0 && (there.st_mode & 07777) == 0640 && there.st_size == 4);
        put("old", "is replaced");
        EXPECT(mag_move(path, at("old")) == 0 && says("old", "text"));
        EXPECT(mag_move(files_dir, path) == -EXDEV);
        EXPECT(access(path, F_OK) < 0 && n_entries(".") == 1);
    }
    rmdir(other);
    return 0;
}

Test(dir, moved)
{
    BOTH(moved);
}

/* ---- sending ------------------------------------------------------------------------------------ */

static int drain(void *arg, long *value)
{
    char buf[5000];
    int rc;

    for (*value = 0; (rc = mag_read((int)num(arg), buf, sizeof buf)) > 0; *value += rc)
        for (int i = 0; i < rc; i++)
            SHOULD(buf[i] == (char)((*value + i) * 7));
    return rc;
}

static int sent(void)
{
    enum { BYTES = 700001 };
    char *bytes = malloc(BYTES);
    int fds[2], in;
    int64_t offset = 0;
    long got = 0;

    for (int i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 7);
    put_bytes("f", bytes, BYTES);
    free(bytes);
    in = open(at("f"), O_RDONLY);
    for (int is_pipe = 0; is_pipe < 2; is_pipe++) {
        EXPECT((is_pipe ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) == 0);
        struct co *c = go(drain, arg_of(fds[0]));
        offset = 0;
        EXPECT(mag_sendfile(fds[1], in, &offset, 300000) == 300000 && offset == 300000);
        EXPECT(lseek(in, offset, SEEK_SET) == offset);
        EXPECT(mag_sendfile(fds[1], in, NULL, 1000000) == BYTES - 300000); /* to the end */
        EXPECT(lseek(in, 0, SEEK_CUR) == BYTES);
        EXPECT(mag_sendfile(fds[1], in, NULL, 10) == 0 && mag_sendfile(fds[1], in, NULL, 0) == 0);
        close(fds[1]);
        EXPECT(await_co(c, &got) == 0 && got == BYTES);
        close(fds[0]);
    }
    EXPECT(pipe(fds) == 0);
    close(fds[0]);
    offset = 0;
    EXPECT(mag_sendfile(fds[1], in, &offset, 10) == -EPIPE && offset == 0);
    offset = -1;
    EXPECT(mag_sendfile(fds[1], in, &offset, 10) == -EINVAL);
    offset = 0;
    EXPECT(mag_sendfile(-1, in, &offset, 10) == -EBADF);
    EXPECT(mag_sendfile(fds[1], -1, NULL, 10) == -EBADF);
    close(fds[1]);
    close(in);
    return 0;
}

Test(dir, sent)
{
    IN_TASK(sent);
}

static int sent_from_a_pipe(void)
{
    int from[2], to[2];
    char buf[16];

    EXPECT(pipe(from) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, to) == 0);
    EXPECT(write(from[1], "through", 7) == 7);
    close(from[1]);
    EXPECT(mag_sendfile(to[1], from[0], NULL, 100) == 7);
    EXPECT(read(to[0], buf, sizeof buf) == 7);
    close(from[0]);
    close(to[0]);
    close(to[1]);
    return 0;
}

Test(dir, sent_from_a_pipe)
{
    BOTH(sent_from_a_pipe);
}

/* The peer reads nothing: what was sent when the cancel came is told, and the offset is that. */
struct sending {
    int fd, in, rc;
    int64_t offset;
};

static int send_it(void *arg, long *value)
{
    struct sending *s = arg;

    *value = 0;
    s->rc = mag_sendfile(s->fd, s->in, &s->offset, 10000000);
    return 0;
}

static int sending_cancelled(void)
{
    struct sending s = { .offset = 0 };
    static char buf[65536];
    int64_t got = 0;
    int ends[2];
    ssize_t n;

    put("f", "");
    EXPECT(truncate(at("f"), 10000000) == 0);
    s.in = open(at("f"), O_RDONLY);
    EXPECT(pipe(ends) == 0);
    s.fd = ends[1];
    struct co *c = go(send_it, &s);
    for (int n_there = 0; n_there == 0;) /* it has begun */
        EXPECT(mag_sleep(10 * MAG_MS) == 0 && ioctl(ends[0], FIONREAD, &n_there) == 0);
    mag_cancel(c);
    EXPECT(await_co(c, NULL) == 0);
    EXPECT(s.rc > 0 && s.rc < 10000000 && s.offset == s.rc);
    close(ends[1]);
    while ((n = read(ends[0], buf, sizeof buf)) > 0)
        got += n;
    EXPECT(got == s.rc);
    close(ends[0]);
    close(s.in);
    return 0;
}

Test(dir, sending_cancelled)
{
    IN_TASK(sending_cancelled);
}

/* ---- all of them, cancelled before they begin --------------------------------------------------- */

static int cancelled_before(void *arg, long *value)
{
    struct mag_file_stat st;
    struct mag_volume v;
    struct mag_dir *d;
    struct mag_str s;
    char buf[8];

    (void)arg;
    *value = 0;
    mag_cancel(mag_self());
    SHOULD(mag_mkdir(at("d"), 0700) == -ECANCELED && mag_makedirs(at("d"), 0700) == -ECANCELED);
    SHOULD(mag_unlink(at("f")) == -ECANCELED && mag_rmdir(at("e")) == -ECANCELED);
    SHOULD(mag_rename(at("f"), at("g")) == -ECANCELED && mag_move(at("f"), at("g")) == -ECANCELED);
    SHOULD(mag_link(at("f"), at("g")) == -ECANCELED && mag_symlink("f", at("g")) == -ECANCELED);
    SHOULD(mag_readlink(at("f"), buf, 8) == -ECANCELED && mag_chmod(at("f"), 0) == -ECANCELED);
    SHOULD(mag_access(at("f"), R_OK) == -ECANCELED && mag_exists(at("f")) == -ECANCELED);
    SHOULD(mag_lstat(at("f"), &st) == -ECANCELED && mag_statvfs(at("f"), &v) == -ECANCELED);
    SHOULD(mag_dir_open(&d, files_dir) == -ECANCELED && mag_removedirs(at("e")) == -ECANCELED);
    SHOULD(mag_remove_tree(at("f")) == -ECANCELED);
    SHOULD(mag_copy_file(at("f"), at("g"), NULL) == -ECANCELED);
    SHOULD(mag_read_file(at("f"), &s, 0) == -ECANCELED);
    SHOULD(mag_write_file(at("f"), "x", 1, 0600) == -ECANCELED);
    SHOULD(mag_replace_file(at("f"), "x", 1, 0600) == -ECANCELED);
    SHOULD(n_entries(".") == 2 && says("f", "text"));
    return 0;
}

Test(dir, cancelled_before)
{
    put("f", "text");
    mkdir(at("e"), 0700);
    RUN(1, cancelled_before, NULL);
}
