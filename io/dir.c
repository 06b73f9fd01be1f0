/* SPDX-License-Identifier: MIT */
/*
 * dir.c - the entries of a directory
 *
 * io_uring has no getdents64(2), so a job of the pool reads a batch: the first one opens the
 * directory as well, the one that meets the end closes it.  What it read is handed out where
 * it is; a batch of 32 KiB has about 1,000 entries, and most directories need one job and
 * another one that finds the end.
 *
 *      batch: | record | record | record ... |      next -> at, n bytes in all
 *
 * Invariants
 *   1. A batch is complete or has not begun: a call that was cancelled can be repeated.
 *   2. fd >= 0 while there is more to read.
 *
 * Who may call: one task at a time.
 *
 * Sources: getdents64(2); walk.c reads its own way, because it wants sizes as well.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mem.h"
#include "sys.h"
#include "wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <string.h>

enum { BATCH_BYTES = 32 * 1024 };

struct mag_dir {
    const char *path; /* NULL once it was opened */
    int fd;           /* -1: not yet open, or there is no more */
    size_t at, n;     /* bytes of the batch */
    _Alignas(struct dirent) char batch[BATCH_BYTES];
};

static int open_dir(const char *path)
{
    int fd;

    do
        fd = mag_sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    while (fd == -EINTR);
    return fd;
}

/* In the pool: opens if that is not done, reads a batch.  0, or why not. */
static int job_read(void *arg)
{
    struct mag_dir *d = arg;
    ssize_t n;

    if (d->path) {
        d->fd = open_dir(d->path);
        if (d->fd < 0)
            return d->fd;
        d->path = NULL;
    }
    do
        n = mag_sys_getdents(d->fd, d->batch, BATCH_BYTES);
    while (n == -EINTR);
    d->at = 0;
    d->n = n > 0 ? (size_t)n : 0;
    if (n <= 0) {
        mag_sys_close(d->fd);
        d->fd = -1;
    }
    return n < 0 ? (int)n : 0;
}

static struct mag_dir *dir_new(const char *path)
{
    struct mag_dir *d = mag_mem_alloc(sizeof *d);

    if (!d)
        return NULL;
    d->path = path;
    d->fd = -1;
    d->at = d->n = 0;
    return d;
}

int mag_dir_open(struct mag_dir **out, const char *path)
{
    struct mag_dir *d = dir_new(path);
    int rc;

    *out = NULL;
    if (!d)
        return -ENOMEM;
    rc = mag_wait_job(MAG_LANE_FILES, job_read, d);
    if (rc < 0)
        mag_dir_close(d);
    else
        *out = d;
    return rc;
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

int mag_dir_next(struct mag_dir *d, struct mag_dir_entry *out)
{
    int rc = mag_wait_in_task() ? mag_wait_checkpoint() : 0;

    while (rc == 0) {
        const struct dirent *e = (const struct dirent *)(const void *)(d->batch + d->at);

        if (d->at == d->n) {
            if (d->fd < 0 && !d->path)
                return 0;
            rc = mag_wait_job(MAG_LANE_FILES, job_read, d);
            continue;
        }
        d->at += e->d_reclen;
        if (is_dots(e->d_name))
            continue;
        *out = (struct mag_dir_entry){ .name = e->d_name,
                                       .len = strlen(e->d_name),
                                       .type = (uint32_t)DTTOIF(e->d_type),
                                       .inode = e->d_ino };
        return 1;
    }
    return rc;
}

void mag_dir_close(struct mag_dir *d)
{
    if (d && d->fd >= 0)
        mag_sys_close(d->fd);
    mag_mem_free(d);
}

/* ---- as an iterator --------------------------------------------------------------------- */

static int next_entry(void *self, void *out)
{
    return self ? mag_dir_next(self, out) : -ENOMEM;
}

static void close_entries(void *self)
{
    mag_dir_close(self);
}

struct mag_iter mag_dir_entries(const char *path)
{
    return (struct mag_iter){ next_entry, close_entries, dir_new(path) };
}
