/* SPDX-License-Identifier: MIT */
/*
 * walk.c - tests of directory walks
 *
 * As in file.c, a check answers 0 or the line that failed, and runs outside a task
 * and in one.
 */
#include <criterion/criterion.h>
#include <magpie.h>

#include "in_task.h"
#include "mem.h"
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[32];

static void make_dir(void)
{
    strcpy(dir, "/tmp/mag-walk-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(chdir(dir), 0);
}

static void remove_dir(void)
{
    char command[64];

    mag_sys_fail_none();
    mag_mem_fail_nth(0, false);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    cr_assert_eq(chdir("/") + system(command), 0);
}

TestSuite(walk, .init = make_dir, .fini = remove_dir, .timeout = 200);

static void shell(const char *command)
{
    cr_assert_eq(system(command), 0, "%s", command);
}

static int descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* What a walk was like. */
static struct tally {
    int n, files, dirs, links, others, errors;
    uint64_t bytes;
    int rc, last_error, descriptors_max;
    char last_path[8192], error_path[8192];
} tally;

static void count(const struct mag_walk_entry *e)
{
    tally.n++;
    strcpy(tally.last_path, e->path);
    if (e->rc < 0) {
        tally.errors++;
        tally.last_error = e->rc;
        strcpy(tally.error_path, e->path);
        return;
    }
    tally.files += S_ISREG(e->mode);
    tally.dirs += S_ISDIR(e->mode);
    tally.links += S_ISLNK(e->mode);
    tally.others += !S_ISREG(e->mode) && !S_ISDIR(e->mode) && !S_ISLNK(e->mode);
    tally.bytes += e->size;
}

static int walk(const char *path)
{
    struct mag_walk_entry e;
    struct mag_walk *w;

    memset(&tally, 0, sizeof tally);
    EXPECT(mag_walk_open(&w, path) == 0);
    while ((tally.rc = mag_walk_next(w, &e)) > 0)
        count(&e);
    EXPECT(tally.rc == 0);
    EXPECT(mag_walk_next(w, &e) == 0);
    mag_walk_close(w);
    return 0;
}

/* ---- what is found ----------------------------------------------------------------- */

static int kinds(void)
{
    EXPECT(walk(".") == 0);
    EXPECT(tally.dirs == 4 && tally.files == 3 && tally.links == 2 && tally.others == 1);
    EXPECT(tally.errors == 0 && tally.bytes == 11);
    return 0;
}

Test(walk, kinds)
{
    int64_t live = mag_mem_live();
    int before = descriptors();

    shell("mkdir -p a/b empty; printf hello >a/x; printf world! >a/b/y; : >zero; ln -s a link;"
          "ln -s nowhere dangling; mkfifo fifo");
    BOTH(kinds);
    cr_assert_eq(mag_mem_live(), live);
    cr_assert_eq(descriptors(), before);
}

static int roots(void)
{
    EXPECT(walk("file") == 0 && tally.n == 1 && tally.files == 1 && tally.bytes == 2);
    EXPECT(strcmp(tally.last_path, "file") == 0);
    EXPECT(walk("link-to-file") == 0 && tally.n == 1 && tally.files == 1);
    EXPECT(walk("link-to-d") == 0 && tally.n == 2 && tally.dirs == 1 && tally.files == 1);
    EXPECT(strcmp(tally.last_path, "link-to-d/in") == 0);
    EXPECT(walk("d") == 0 && strcmp(tally.last_path, "d/in") == 0);
    EXPECT(walk("d/") == 0 && strcmp(tally.last_path, "d/in") == 0);
    EXPECT(walk("d//") == 0 && strcmp(tally.last_path, "d//in") == 0);
    EXPECT(walk("nowhere") == 0 && tally.n == 1 && tally.last_error == -ENOENT);
    EXPECT(strcmp(tally.error_path, "nowhere") == 0);
    EXPECT(walk("") == 0 && tally.n == 1 && tally.last_error == -ENOENT);
    EXPECT(walk("file/below") == 0 && tally.n == 1 && tally.last_error == -ENOTDIR);
    return 0;
}

Test(walk, roots)
{
    shell("mkdir d; printf ab >file; : >d/in; ln -s file link-to-file; ln -s d link-to-d");
    BOTH(roots);
}

/* The root directory: no path begins with two slashes.  Ended after some entries. */
static int slash(void)
{
    struct mag_walk_entry e;
    struct mag_walk *w;

    EXPECT(mag_walk_open(&w, "/") == 0);
    EXPECT(mag_walk_next(w, &e) == 1 && strcmp(e.path, "/") == 0 && S_ISDIR(e.mode));
    for (int i = 0; i < 500; i++)
        EXPECT(mag_walk_next(w, &e) == 1 && e.path[0] == '/' && e.path[1] != '/');
    mag_walk_close(w);
    return 0;
}

Test(walk, slash)
{
    int64_t live = mag_mem_live();
    int before = descriptors();

    BOTH(slash);
    cr_assert_eq(mag_mem_live(), live);
    cr_assert_eq(descriptors(), before);
}

/* More entries than a batch: each exactly once. */
static int many(void)
{
    static bool seen[2000];
    struct mag_walk_entry e;
    struct mag_walk *w;
    int n = 0;

    memset(seen, 0, sizeof seen);
    EXPECT(mag_walk_open(&w, "many") == 0);
    EXPECT(mag_walk_next(w, &e) == 1);
    while (mag_walk_next(w, &e) == 1) {
        int i = atoi(strrchr(e.path, '/') + 1);

        EXPECT(e.rc == 0 && !seen[i]);
        seen[i] = true;
        n++;
    }
    EXPECT(n == 2000);
    mag_walk_close(w);
    return 0;
}

Test(walk, many)
{
    shell("mkdir many; cd many; seq 0 1999 | xargs touch");
    BOTH(many);
}

/* A directory comes before its content, and the content right behind it. */
static int order(void)
{
    struct mag_walk_entry e;
    struct mag_walk *w;
    char inside[64] = "", path[64];

    EXPECT(mag_walk_open(&w, "o") == 0);
    while (mag_walk_next(w, &e) == 1) {
        snprintf(path, sizeof path, "%s", e.path);
        /* Once left, a directory is never entered again. */
        if (strlen(path) == strlen("o/dN/fN")) {
            char *name = strrchr(path, '/');
            *name = '\0';
            EXPECT(strcmp(path, inside) == 0);
        } else {
            strcpy(inside, path);
        }
    }
    mag_walk_close(w);
    return 0;
}

Test(walk, order)
{
    shell("for d in 1 2 3 4; do mkdir -p o/d$d; for f in 1 2 3; do : >o/d$d/f$f; done; done");
    BOTH(order);
}

/* ---- limits -------------------------------------------------------------------------- */

/*
 * 30 levels, each with more than a batch behind the way down, so that each stays
 * half read: no more descriptors than the walk's limit, and nothing is lost.
 */
static int half_read_levels(void)
{
    struct mag_walk_entry e;
    struct mag_walk *w;
    int n = 0, n_max = 0, before = descriptors();

    EXPECT(mag_walk_open(&w, "t") == 0);
    while (mag_walk_next(w, &e) == 1) {
        EXPECT(e.rc == 0);
        if (n++ % 64 == 0 || S_ISDIR(e.mode)) {
            int now = descriptors();
            n_max = now > n_max ? now : n_max;
        }
    }
    mag_walk_close(w);
    EXPECT(n == 1 + 30 * 401);
    EXPECT(descriptors() == before);
    EXPECT(n_max > before + 8 && n_max <= before + 16);
    return 0;
}

Test(walk, half_read_levels)
{
    /* Names that differ, or a hashed directory has each at the same, perhaps last, place. */
    shell("d=t; for l in $(seq 30); do mkdir -p $d/d$l; (cd $d; seq 1 400 | xargs touch);"
          " d=$d/d$l; done");
    BOTH(half_read_levels);
}

/* The deepest path that open(2) takes, and what is deeper. */
static int deep(void)
{
    EXPECT(walk("d") == 0);
    EXPECT(tally.errors == 1 && tally.last_error == -ENAMETOOLONG);
    EXPECT(strlen(tally.error_path) >= 4096);
    EXPECT(tally.dirs == 2048 - 1 + 1 && tally.files == 0);
    return 0;
}

Test(walk, ten_thousand_levels)
{
    /* d/d/d/...: level n has a path of 2n - 1 bytes; open(2) takes 4095, level 2048. */
    int fd = AT_FDCWD, up;

    for (int level = 0; level < 10000; level++) {
        cr_assert_eq(mkdirat(fd, "d", 0755), 0);
        up = openat(fd, "d", O_RDONLY | O_DIRECTORY);
        cr_assert_geq(up, 0);
        if (fd >= 0)
            close(fd);
        fd = up;
    }
    close(fd);
    BOTH(deep);
}

static int long_root(void)
{
    char root[9000];

    memset(root, 'x', sizeof root - 1);
    root[sizeof root - 1] = '\0';
    struct mag_walk *w;
    struct mag_walk_entry e;
    EXPECT(mag_walk_open(&w, root) == 0);
    EXPECT(mag_walk_next(w, &e) == 1 && e.rc == -ENAMETOOLONG && strcmp(e.path, root) == 0);
    EXPECT(mag_walk_next(w, &e) == 0);
    mag_walk_close(w);
    return 0;
}

Test(walk, long_root)
{
    BOTH(long_root);
}

/* ---- errors --------------------------------------------------------------------------- */

static int unreadable(void)
{
    EXPECT(walk("u") == 0);
    EXPECT(tally.errors == 1 && tally.last_error == -EACCES);
    EXPECT(strcmp(tally.error_path, "u/a") == 0);
    EXPECT(tally.dirs == 2 && tally.files == 1);
    return 0;
}

/* The second open of a directory is refused: root may read everything. */
static int unreadable_by_fault(void)
{
    mag_sys_fail_nth(MAG_SYS_OPENAT, 2, EACCES, false);
    int line = walk("u");
    mag_sys_fail_none();
    EXPECT(line == 0);
    EXPECT(tally.errors == 1 && tally.last_error == -EACCES && tally.dirs == 2);
    return 0;
}

static int read_error(void)
{
    /* u, then u/a's first part is an error. */
    mag_sys_fail_nth(MAG_SYS_GETDENTS, 1, EIO, false);
    int line = walk("u");
    mag_sys_fail_none();
    EXPECT(line == 0);
    EXPECT(tally.n == 2 && tally.errors == 1 && tally.last_error == -EIO);
    EXPECT(strcmp(tally.error_path, "u") == 0);
    return 0;
}

Test(walk, errors)
{
    shell("mkdir -p u/a u/b; : >u/b/f; chmod 0 u/a");
    if (geteuid() != 0)
        BOTH(unreadable);
    cr_assert_eq(unreadable_by_fault(), 0);
    BOTH(read_error);
}

static int vanished(void)
{
    mag_sys_fail_nth(MAG_SYS_STATX, 2, ENOENT, false);
    int line = walk("v");
    mag_sys_fail_none();
    EXPECT(line == 0);
    EXPECT(tally.n == 2 && tally.errors == 1 && tally.last_error == -ENOENT);
    return 0;
}

Test(walk, vanished)
{
    shell("mkdir v; : >v/file");
    cr_assert_eq(vanished(), 0);
}

/* Every allocation fails once: an entry says so or the open does; nothing is lost. */
Test(walk, out_of_memory)
{
    int64_t live = mag_mem_live();
    int before = descriptors(), n_said = 0;
    uint64_t n = 0;

    shell("mkdir -p m/a m/b/c; : >m/b/c/f; : >m/g");
    do {
        struct mag_walk_entry e;
        struct mag_walk *w;

        mag_mem_fail_nth(++n, false);
        if (mag_walk_open(&w, "m") < 0) {
            n_said++;
            cr_assert_null(w);
            continue;
        }
        while (mag_walk_next(w, &e) == 1)
            n_said += e.rc == -ENOMEM;
        mag_walk_close(w);
    } while (mag_mem_count() >= n);
    mag_mem_fail_nth(0, false);
    cr_assert_eq((uint64_t)n_said, n - 1);
    cr_assert_geq(n, 8);
    cr_assert_eq(mag_mem_live(), live);
    cr_assert_eq(descriptors(), before);
}

/* ---- cancellation ------------------------------------------------------------------------ */

struct walker {
    struct mag_walk *walk;
    int n;
};

static int walker_body(void *frame, void *result)
{
    struct walker *walker = *(struct walker **)frame;
    struct mag_walk_entry e;
    int rc;

    (void)result;
    while ((rc = mag_walk_next(walker->walk, &e)) == 1)
        walker->n++;
    return rc;
}

/* A walk that was cancelled anywhere goes on in another task, and misses nothing. */
static int cancelled_and_resumed(void)
{
    for (int i = 0; i < 200; i++) {
        struct walker walker = { .n = 0 }, *arg = &walker;
        struct mag_task *task;
        int rc, tries = 0;

        EXPECT(mag_walk_open(&walker.walk, "c") == 0);
        do {
            EXPECT(mag_spawn(&task, walker_body, &arg, sizeof arg, 0, NULL) == 0);
            for (int spin = 0; spin < (i + tries) % 9; spin++)
                EXPECT(mag_yield() == 0);
            if (tries++ < 20)
                EXPECT(mag_cancel(task) == 0);
            rc = mag_await(task, NULL, 0);
            EXPECT(rc == 0 || rc == -ECANCELED);
        } while (rc < 0);
        mag_walk_close(walker.walk);
        EXPECT(walker.n == 1 + 10 * 11);
    }
    return 0;
}

Test(walk, cancelled_and_resumed)
{
    int line;

    shell("for d in $(seq 10); do mkdir -p c/$d; for f in $(seq 10); do : >c/$d/$f; done; done");
    line = run_in_task(cancelled_and_resumed);
    cr_assert_eq(line, 0, "line %d", line);
}
