/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_FILES_H
#define MAG_TESTS_FILES_H
/*
 * files.h - a directory for the files of a test, and looks at them past magpie
 *
 * FILES_SUITE(name) is a TestSuite whose tests find an empty directory, and must leave as many
 * descriptors and as much memory as they found.
 */
#include "in_task.h"
#include "nth_cancel.h"
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <magpie/file.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char files_dir[32];
static int files_descriptors;
static int64_t files_blocks;

static inline int n_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* A path in the directory; good for the next seven. */
static inline const char *at(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", files_dir, name);
    return path;
}

static inline void put_bytes(const char *name, const char *bytes, size_t n)
{
    FILE *f = fopen(at(name), "w");

    if (f) {
        fwrite(bytes, 1, n, f);
        fclose(f);
    }
}

static inline void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static inline bool has(const char *name)
{
    struct stat st;

    return lstat(at(name), &st) == 0;
}

static inline bool says(const char *name, const char *text)
{
    char buf[4096] = "";
    FILE *f = fopen(at(name), "r");
    size_t n = f ? fread(buf, 1, sizeof buf - 1, f) : 0;

    if (f)
        fclose(f);
    return f && n == strlen(text) && strcmp(buf, text) == 0;
}

/* Entries of the directory, or of one in it. */
static inline int n_entries(const char *name)
{
    DIR *d = opendir(at(name));
    int n = -2;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static inline void files_begin(void)
{
    strcpy(files_dir, "/tmp/mag-files-XXXXXX");
    cr_assert_not_null(mkdtemp(files_dir));
    setenv("TMPDIR", files_dir, 1);
    setenv("MAGPIE_WATCHDOG", "0", 1); /* the tests' own calls block, and it opens files then */
    files_descriptors = n_descriptors();
    files_blocks = mag_mem_live();
}

static inline void files_end(void)
{
    char command[128];

    mag_sys_fail_none();
    mag_mem_fail_nth(0, false);
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", files_dir, files_dir);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(n_descriptors(), files_descriptors, "%d descriptors are left",
                 n_descriptors() - files_descriptors);
    cr_assert_eq(mag_mem_live(), files_blocks, "%ld blocks are left",
                 (long)(mag_mem_live() - files_blocks));
}

#define FILES_SUITE(name) TestSuite(name, .init = files_begin, .fini = files_end, .timeout = 60)

#define IN_TASK(fn) \
    do { \
        int line_in_task = run_in_task(fn); \
        cr_assert_eq(line_in_task, 0, "in a task: line %d", line_in_task); \
    } while (0)

#endif
