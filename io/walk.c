/* SPDX-License-Identifier: MIT */
/*
 * walk.c - walking a directory tree
 *
 * io_uring cannot read directories, so the offload pool does: one job opens a
 * directory, reads a batch of its entries with their types and sizes, and closes it
 * if that was all, which for most directories it is.  In between, mag_walk_next
 * hands out what is in memory:
 *
 *      top                                     bottom
 *      level usr/share/doc/a  ->  usr/share/doc  ->  usr/share  ->  usr  ->  NULL
 *      | records: [mode size rc name]...         the path of a level is a prefix of
 *      | next ----^                              the one buffer, path_len bytes
 *      | fd: the rest is still to be read
 *
 * Directories are opened by their full path and not relative to their parent.  That
 * would need a descriptor for each level, and who gets a path longer than PATH_MAX
 * could not open it either; so such a directory is an entry with -ENAMETOOLONG.
 *
 * Invariants
 *   1. At most DIRS_OPEN levels have a descriptor.  Where one more is needed, the
 *      outermost is read to its end, into memory, and closed.
 *   2. A level is in memory with at most one batch, except those of invariant 1.
 *   3. A record is consumed only after everything that can fail for it was done: a
 *      cancelled call can be repeated, and misses nothing.
 *
 * Who may call: one task at a time; the jobs touch only the level they were given
 * and the scratch, while that task waits for them.
 *
 * Rejected
 *   - keeping directory offsets to go on after reopening: not every file system
 *     keeps them (overlayfs), and a walk must not skip;
 *   - readdir(3): its DIR is 32 KiB a level, and its errors are in errno;
 *   - a job per entry: the trip to the pool costs more than a cached statx(2).
 *
 * Sources: getdents64(2); fts(3) and nftw(3), which read ahead when descriptors end.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/file.h>

#include "check.h"
#include "mem.h"
#include "sys.h"
#include "wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

enum {
    BATCH = 256,              /* entries after which a job stops reading */
    SCRATCH_BYTES = 8 * 1024, /* of one getdents64(2): up to about 340 entries */
    DIRS_OPEN = 16,
};

/* One entry that was read, packed; the next follows at `bytes', a multiple of 8. */
struct record {
    uint64_t size;
    uint32_t mode;
    int32_t rc;
    uint32_t bytes; /* of the whole record */
    char name[];    /* NUL-terminated */
};

/* A directory of which entries are still to be handed out. */
struct level {
    struct level *up;  /* the directory that it is in */
    char *records;     /* [job, then task] */
    size_t used, room; /* bytes of records */
    size_t next;       /* offset of the record to hand out next */
    size_t n;          /* records that the last job read */
    size_t path_len;   /* of its path, without the '/' that follows */
    int fd;            /* -1: there is no more to read */
    int rc;            /* why not, if it was an error; to be handed out */
};

struct mag_walk {
    struct level *top;           /* NULL before the root and at the end */
    bool is_begun;               /* the root's type is known */
    unsigned n_open;             /* levels with a descriptor */
    char *path;                  /* of the entry that was handed out last */
    char scratch[SCRATCH_BYTES]; /* [job] for getdents64(2) */
};

/* glibc's struct dirent is the kernel's struct linux_dirent64 in 64 bit programs. */
MAG_STATIC_ASSERT(sizeof(((struct dirent *)0)->d_ino) == 8);
MAG_STATIC_ASSERT(offsetof(struct dirent, d_name) == 19);

/* ---- in the pool: reading ------------------------------------------------------- */

/* Room for one more record with a name of that length, or NULL. */
static struct record *record_new(struct level *l, size_t name_len)
{
    size_t bytes = (sizeof(struct record) + name_len + 1 + 7) & ~(size_t)7;
    struct record *r;

    if (l->used + bytes > l->room) {
        size_t room = (l->room + bytes) * 2;
        char *records = mag_mem_realloc(l->records, room);

        if (!records)
            return NULL;
        l->records = records;
        l->room = room;
    }
    r = (struct record *)(void *)(l->records + l->used);
    l->used += bytes;
    l->n++;
    *r = (struct record){ .bytes = (uint32_t)bytes };
    return r;
}

/* Type and size; where they cannot be had, at least the type the directory knows. */
static void record_stat(struct record *r, int dirfd, int flags)
{
    struct statx stx;

    do
        r->rc = mag_sys_statx(dirfd, r->name, flags, STATX_TYPE | STATX_MODE | STATX_SIZE, &stx);
    while (r->rc == -EINTR);
    if (r->rc < 0)
        return;
    r->mode = stx.stx_mode;
    r->size = S_ISREG(stx.stx_mode) ? stx.stx_size : 0;
}

static int record_entry(struct level *l, const struct dirent *d)
{
    size_t len = strlen(d->d_name);
    struct record *r;

    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return 0;
    r = record_new(l, len);
    if (!r)
        return -ENOMEM;
    memcpy(r->name, d->d_name, len + 1);
    r->mode = (uint32_t)DTTOIF(d->d_type);
    record_stat(r, l->fd, AT_SYMLINK_NOFOLLOW);
    return 0;
}

/* Reads the next part of the directory: 1, 0 at its end, or an error. */
static int read_part(struct level *l, char *scratch)
{
    ssize_t n;

    do
        n = mag_sys_getdents(l->fd, scratch, SCRATCH_BYTES);
    while (n == -EINTR);
    if (n <= 0)
        return (int)n;
    for (ssize_t at = 0; at < n;) {
        const struct dirent *d = (const struct dirent *)(const void *)(scratch + at);
        int rc = record_entry(l, d);

        if (rc < 0)
            return rc;
        at += d->d_reclen;
    }
    return 1;
}

/* Reads until there are `enough' records, or to the end, and then closes. */
static void read_level(struct level *l, char *scratch, size_t enough)
{
    int rc = 1;

    l->n = 0;
    if (l->next == l->used)
        l->next = l->used = 0;
    while (rc > 0 && l->n < enough)
        rc = read_part(l, scratch);
    if (rc > 0)
        return;
    l->rc = rc;
    mag_sys_close(l->fd);
    l->fd = -1;
}

static int open_dir(const char *path, int flags)
{
    int fd;

    do
        fd = mag_sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags, 0);
    while (fd == -EINTR);
    return fd;
}

struct job {
    struct mag_walk *walk; /* whose path and scratch it uses */
    struct level *level;   /* that it fills */
    int flags;             /* O_NOFOLLOW or 0 */
    int rc;                /* of the open: a descriptor or -errno */
};

/* A new level: opens the directory at the walk's path, reads a batch. */
static int job_enter(void *arg)
{
    struct job *job = arg;

    job->rc = open_dir(job->walk->path, job->flags);
    if (job->rc < 0)
        return 0;
    job->level->fd = job->rc;
    read_level(job->level, job->walk->scratch, BATCH);
    return 0;
}

static int job_batch(void *arg)
{
    struct job *job = arg;

    read_level(job->level, job->walk->scratch, BATCH);
    return 0;
}

static int job_rest(void *arg)
{
    struct job *job = arg;

    read_level(job->level, job->walk->scratch, SIZE_MAX);
    return 0;
}

/* The root, which alone is followed if it is a symbolic link. */
static int job_root(void *arg)
{
    struct job *job = arg;

    record_stat((struct record *)(void *)job->level->records, AT_FDCWD, 0);
    return 0;
}

/* ---- in the task: handing out --------------------------------------------------- */

/* -ECANCELED if the job was dropped before it began; else 0, and it has ended. */
static int job_run(struct job *job, int (*fn)(void *))
{
    bool was_open = job->level->fd >= 0;
    int rc = mag_wait_job(MAG_LANE_FILES, fn, job);

    job->walk->n_open += (job->level->fd >= 0) - was_open;
    return rc;
}

static void level_free(struct level *l)
{
    if (l->fd >= 0)
        mag_sys_close(l->fd);
    mag_mem_free(l->records);
    mag_mem_free(l);
}

static struct level *level_new(struct level *up, size_t path_len)
{
    struct level *l = mag_mem_zalloc(sizeof *l);

    if (l)
        *l = (struct level){ .up = up, .path_len = path_len, .fd = -1 };
    return l;
}

/* Invariant 1: a descriptor for one more level. */
static int make_room(struct mag_walk *w)
{
    struct job job = { .walk = w };

    if (w->n_open < DIRS_OPEN)
        return 0;
    for (struct level *l = w->top; l; l = l->up)
        if (l->fd >= 0)
            job.level = l;
    MAG_CHECK(job.level);
    return job_run(&job, job_rest);
}

/*
 * Enters the directory at w->path.  -ECANCELED: nothing happened.  Otherwise 0, and
 * *rc is what the entry is to say.
 */
static int enter(struct mag_walk *w, int *rc)
{
    struct job job = { .walk = w, .level = level_new(w->top, strlen(w->path)) };
    int dropped;

    *rc = -ENOMEM;
    if (!job.level)
        return 0;
    job.flags = w->top->up ? O_NOFOLLOW : 0;
    dropped = make_room(w);
    if (dropped == 0)
        dropped = job_run(&job, job_enter);
    *rc = job.rc < 0 ? job.rc : 0;
    if (dropped < 0 || job.rc < 0)
        level_free(job.level);
    else
        w->top = job.level;
    return dropped;
}

/* Puts directory and name together in w->path. */
static void path_set(struct mag_walk *w, size_t dir_len, const char *name)
{
    if (dir_len && w->path[dir_len - 1] != '/')
        w->path[dir_len++] = '/';
    strcpy(w->path + dir_len, name);
}

static int hand_out(struct mag_walk *w, struct level *l, struct mag_walk_entry *out)
{
    const struct record *r = (const struct record *)(const void *)(l->records + l->next);
    size_t next = l->next + r->bytes;
    int dropped = 0;

    path_set(w, l->path_len, r->name);
    *out =
        (struct mag_walk_entry){ .path = w->path, .mode = r->mode, .size = r->size, .rc = r->rc };
    if (r->rc == 0 && S_ISDIR(r->mode))
        dropped = enter(w, &out->rc);
    if (dropped < 0)
        return dropped;
    l->next = next;
    return 1;
}

/* The directory of this level could not be read to its end. */
static int hand_out_error(struct mag_walk *w, struct level *l, struct mag_walk_entry *out)
{
    w->path[l->path_len] = '\0';
    *out = (struct mag_walk_entry){ .path = w->path, .mode = S_IFDIR, .rc = l->rc };
    l->rc = 0;
    return 1;
}

static int begin(struct mag_walk *w)
{
    struct job job = { .walk = w, .level = w->top };
    int rc = w->is_begun ? 0 : job_run(&job, job_root);

    w->is_begun = w->is_begun || rc == 0;
    return rc;
}

int mag_walk_next(struct mag_walk *w, struct mag_walk_entry *out)
{
    int rc = mag_wait_in_task() ? mag_wait_checkpoint() : 0;

    if (rc == 0)
        rc = begin(w);
    while (rc == 0 && w->top) {
        struct level *l = w->top;
        struct job job = { .walk = w, .level = l };

        if (l->next < l->used)
            return hand_out(w, l, out);
        if (l->fd >= 0) {
            rc = job_run(&job, job_batch);
        } else if (l->rc < 0) {
            return hand_out_error(w, l, out);
        } else {
            w->top = l->up;
            level_free(l);
        }
    }
    return rc;
}

/* ---- begin and end -------------------------------------------------------------- */

/*
 * The root is the one record of a level above all directories.  Names come from
 * getdents64(2), so each is shorter than the scratch, and the path of a directory
 * that was opened is shorter than PATH_MAX: hence the size of the path's buffer.
 */
int mag_walk_open(struct mag_walk **out, const char *path)
{
    size_t len = strlen(path);
    size_t room = (len < PATH_MAX ? PATH_MAX : len) + SCRATCH_BYTES;
    struct mag_walk *w = mag_mem_zalloc(sizeof *w + room);
    struct record *root;

    *out = NULL;
    if (!w)
        return -ENOMEM;
    w->path = (char *)(w + 1);
    w->top = level_new(NULL, 0);
    root = w->top ? record_new(w->top, len) : NULL;
    if (!root) {
        mag_walk_close(w);
        return -ENOMEM;
    }
    memcpy(root->name, path, len + 1);
    strcpy(w->path, path);
    *out = w;
    return 0;
}

void mag_walk_close(struct mag_walk *w)
{
    if (!w)
        return;
    while (w->top) {
        struct level *l = w->top;

        w->top = l->up;
        level_free(l);
    }
    mag_mem_free(w);
}
