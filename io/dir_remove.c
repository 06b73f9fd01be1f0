/* SPDX-License-Identifier: MIT */
/*
 * dir_remove.c - removing a directory tree, and temporary directories
 *
 * Removing by paths is a race: between looking and removing, somebody may put a symbolic link
 * in the place of a directory, and the removal goes on where that points to.  So everything
 * is done relative to one descriptor, the directory in which we are, and it only moves by
 * steps that are checked:
 *
 *      down   openat(at, name, O_NOFOLLOW)      name, device and inode of `at' are noted
 *      up     openat(at, "..")                  must be that device and inode, else -ESTALE
 *             unlinkat(at, name, REMOVEDIR)
 *
 *      trail: [dev ino name] [dev ino name] ...        one for each level above `at'
 *
 * A directory's entries are read anew when we come back up: what was removed is gone from it,
 * so each reading gets on, and no level needs memory for its rest, or a descriptor.
 *
 * It is work for the pool, in jobs of STEPS removals, between which the task may be
 * cancelled.
 *
 * Invariants
 *   1. The trail's first entry is the directory that the root is in.
 *   2. Nothing is removed through a descriptor that was not checked.
 *
 * Who may call: one task.
 *
 * Rejected: rm's and shutil.rmtree's descriptor for each level (a deep tree needs more than
 * there are).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mem.h"
#include "names.h"
#include "sys_file.h"
#include "wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <magpie/scope.h>
#include <string.h>

enum {
    STEPS = 256, /* removals of one job */
    SCRATCH_BYTES = 8 * 1024,
    DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
};

/* A level above the one where we are. */
struct trail {
    struct trail *up;
    dev_t dev;
    ino_t ino;
    char name[]; /* of the directory in it through which we went down */
};

struct removal {
    struct trail *trail; /* the level just above; NULL: `at' is where the root is */
    int at;              /* the directory where we are */
    int steps;           /* left in this job */
    const char *root;    /* its name in the first directory */
    bool is_over;
    _Alignas(struct dirent) char scratch[SCRATCH_BYTES];
};

static int open_at(int dirfd, const char *name, int flags)
{
    int fd;

    do
        fd = mag_sys_openat(dirfd, name, flags, 0);
    while (fd == -EINTR);
    return fd;
}

static void move_to(struct removal *r, int fd)
{
    mag_sys_close(r->at);
    r->at = fd;
}

/* Into a directory that is not empty. */
static int go_down(struct removal *r, const char *name)
{
    size_t bytes = strlen(name) + 1;
    struct stat st;
    int rc = mag_sys_fstat(r->at, &st);
    struct trail *t = rc < 0 ? NULL : mag_mem_alloc(sizeof *t + bytes);
    int fd;

    if (!t)
        return rc < 0 ? rc : -ENOMEM;
    fd = open_at(r->at, name, DIR_FLAGS);
    if (fd < 0) {
        mag_mem_free(t);
        return fd;
    }
    t->up = r->trail;
    t->dev = st.st_dev;
    t->ino = st.st_ino;
    memcpy(t->name, name, bytes);
    r->trail = t;
    move_to(r, fd);
    return 0;
}

/* Out of a directory that is empty now, which is removed. */
static int go_up(struct removal *r)
{
    struct trail *t = r->trail;
    int fd = open_at(r->at, "..", DIR_FLAGS), rc;
    struct stat st;

    if (fd < 0)
        return fd;
    rc = mag_sys_fstat(fd, &st);
    if (rc == 0 && (st.st_dev != t->dev || st.st_ino != t->ino))
        rc = -ESTALE; /* somebody has moved it */
    if (rc < 0) {
        mag_sys_close(fd);
        return rc;
    }
    move_to(r, fd);
    rc = mag_sys_unlinkat(r->at, t->name, AT_REMOVEDIR);
    r->is_over = t->up == NULL;
    r->trail = t->up;
    mag_mem_free(t);
    /* Somebody has put something there meanwhile: once more, unless it is the root. */
    return (rc == -ENOTEMPTY && !r->is_over) || rc == -ENOENT ? 0 : rc;
}

/* Removes a name: 0; 1 if it is a directory with something in it, which was entered. */
static int remove_name(struct removal *r, const char *name)
{
    int rc = mag_sys_unlinkat(r->at, name, 0);

    r->steps--;
    if (rc != -EISDIR && rc != -EPERM)
        return rc;
    rc = mag_sys_unlinkat(r->at, name, AT_REMOVEDIR);
    if (rc == -ENOTDIR)
        return -EPERM; /* a file that may not be removed */
    if (rc != -ENOTEMPTY && rc != -EEXIST)
        return rc;
    rc = go_down(r, name);
    return rc < 0 ? rc : 1;
}

/* What one getdents64(2) has shown: 0; 1 where `at' is another directory now. */
static int remove_shown(struct removal *r, ssize_t n)
{
    int rc = 0;

    for (ssize_t i = 0; i < n && rc == 0;) {
        const struct dirent *e = (const struct dirent *)(const void *)(r->scratch + i);

        i += e->d_reclen;
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = remove_name(r, e->d_name);
        if (rc == -ENOENT) /* somebody else was faster */
            rc = 0;
    }
    return rc;
}

/* The rest of the directory where we are, or as far as a directory in it. */
static int remove_here(struct removal *r)
{
    ssize_t n;

    do
        n = mag_sys_getdents(r->at, r->scratch, SCRATCH_BYTES);
    while (n == -EINTR);
    if (n < 0)
        return n == -ENOENT ? go_up(r) : (int)n;
    return n == 0 ? go_up(r) : remove_shown(r, n);
}

/* In the pool: some steps. */
static int job_remove(void *arg)
{
    struct removal *r = arg;
    int rc = 0;

    for (r->steps = STEPS; r->steps > 0 && !r->is_over && rc >= 0; r->steps--)
        rc = remove_here(r);
    return rc < 0 ? rc : 0;
}

/* In the pool: the first step, from the directory that the root is in. */
static int job_begin(void *arg)
{
    struct removal *r = arg;
    int rc = remove_name(r, r->root);

    r->is_over = rc <= 0;
    return rc < 0 ? rc : 0;
}

struct opening {
    struct removal *removal;
    const char *dir;
};

static int job_open(void *arg)
{
    struct opening *o = arg;
    struct removal *r = o->removal;

    r->at = open_at(AT_FDCWD, o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return r->at < 0 ? r->at : job_begin(r);
}

static void removal_end(struct removal *r)
{
    if (r->at >= 0)
        mag_sys_close(r->at);
    while (r->trail) {
        struct trail *t = r->trail;

        r->trail = t->up;
        mag_mem_free(t);
    }
    mag_mem_free(r);
}

static int remove_in(const char *dir, const char *name)
{
    struct removal *r = mag_mem_alloc(sizeof *r);
    int rc;

    if (!r)
        return -ENOMEM;
    r->trail = NULL;
    r->at = -1;
    r->root = name;
    r->is_over = false;
    rc = mag_wait_job(MAG_LANE_FILES, job_open, &(struct opening){ .removal = r, .dir = dir });
    while (rc == 0 && !r->is_over)
        rc = mag_wait_job(MAG_LANE_FILES, job_remove, r);
    removal_end(r);
    return rc;
}

/* The path without slashes at its end, which would be followed; from mag_mem_alloc. */
static int trimmed(char **out, const char *path)
{
    size_t len = strlen(path);

    *out = NULL;
    while (len > 1 && path[len - 1] == '/')
        len--;
    *out = mag_mem_alloc(len + 1);
    if (!*out)
        return -ENOMEM;
    memcpy(*out, path, len);
    (*out)[len] = '\0';
    return 0;
}

int mag_remove_tree(const char *path)
{
    char *dir = NULL, *whole;
    const char *name;
    int rc = trimmed(&whole, path);

    if (rc < 0)
        return rc;
    name = strrchr(whole, '/');
    name = name ? name + 1 : whole;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        rc = *whole ? -EINVAL : -ENOENT;
    if (rc == 0)
        rc = mag_names_parent(&dir, whole);
    if (rc == 0)
        rc = remove_in(dir, name);
    mag_mem_free(dir);
    mag_mem_free(whole);
    return rc;
}

/* ---- temporary directories ----------------------------------------------------------------- */

int mag_temp_dir_enter(struct mag_temp_dir *d, const char *prefix)
{
    int tries = 0, rc;

    do {
        rc = mag_names_fresh(&d->path, NULL, prefix ? prefix : "magpie-");
        if (rc < 0)
            return rc;
        rc = mag_mkdir(d->path, 0700);
        if (rc < 0) {
            mag_mem_free(d->path);
            d->path = NULL;
        }
    } while (mag_names_again(rc, &tries));
    return rc;
}

void mag_temp_dir_exit(struct mag_temp_dir *d)
{
    struct mag_scope shield;
    bool is_shielded = mag_self() != NULL && mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;

    if (d->path)
        (void)mag_remove_tree(d->path); /* what cannot be removed is left */
    mag_mem_free(d->path);
    d->path = NULL;
    if (is_shielded)
        (void)mag_scope_leave(&shield, 0);
}
