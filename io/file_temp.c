/* SPDX-License-Identifier: MIT */
/*
 * file_temp.c - files that are temporary, or until they are complete
 *
 *      replacing:  open "dir/.magpie-xxxxxxxxxxxx"   enter
 *                  write, write, ...                 the caller
 *                  fsync, rename, fsync of dir       commit
 *                  close, unlink                     exit; after a commit nothing is left to do
 *
 * The order of a commit is what makes it atomic: the content is on the disk before the name
 * leads to it, and the name is before the caller is told so.
 *
 * Invariants
 *   1. A handle that is entered holds its name exactly as long as somebody must remove it:
 *      the exit unlinks what has one.
 *   2. An exit, and a commit from its rename on, run in a shield.
 *
 * Who may call: the task that has it.
 *
 * Rejected: O_TMPFILE and linkat(2) for the replacement: a link cannot replace a name, so it
 * would need a temporary name all the same, and another step.
 *
 * Sources: open(2), O_TMPFILE; "ext4 and data loss", 2009, for the two syncs.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file_handle.h"

#include "mem.h"
#include "names.h"
#include "op.h"
#include "sys.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <magpie/scope.h>
#include <string.h>

enum { PRIVATE_MODE = 0600 };

static bool shield(struct mag_scope *s)
{
    return mag_wait_in_task() && mag_shield_enter(s, MAG_NEVER, NULL) == 0;
}

static void unshield(struct mag_scope *s, bool is_shielded)
{
    if (is_shielded)
        (void)mag_scope_leave(s, 0);
}

struct making {
    const char *path;
    unsigned mode;
};

/* In the pool, where it is done or not begun: a cancelled open of the ring's closes what it has
 * opened, but what it has made is there. */
static int job_make(void *arg)
{
    const struct making *m = arg;
    int rc;

    do
        rc = mag_sys_openat(AT_FDCWD, m->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                            (mode_t)m->mode);
    while (rc == -EINTR);
    return rc;
}

/* A new file of a fresh name; *path is the caller's. */
static int make_fresh(struct mag_file *f, char **path, const char *dir, const char *prefix,
                      unsigned mode)
{
    int tries = 0, rc;

    *f = (struct mag_file){ .fd = -1 };
    do {
        rc = mag_names_fresh(path, dir, prefix);
        if (rc < 0)
            return rc;
        rc =
            mag_wait_job(MAG_LANE_FILES, job_make, &(struct making){ .path = *path, .mode = mode });
        if (rc >= 0)
            return mag_file_from_fd(f, rc);
        mag_mem_free(*path);
        *path = NULL;
    } while (mag_names_again(rc, &tries));
    return rc;
}

static void forget(char **path)
{
    mag_mem_free(*path);
    *path = NULL;
}

/* ---- temporary files -------------------------------------------------------------------- */

static const char *temp_dir(void)
{
    const char *dir = mag_sys_getenv("TMPDIR");

    return dir && *dir ? dir : "/tmp";
}

/* Not the directory's error: its file system, or the kernel, has no O_TMPFILE. */
static bool lacks_tmpfile(int rc)
{
    return rc == -EOPNOTSUPP || rc == -EISDIR || rc == -EINVAL;
}

static int enter_nameless(struct mag_temp_file *t)
{
    int rc = mag_op_open(AT_FDCWD, temp_dir(), O_TMPFILE | O_RDWR | O_CLOEXEC, PRIVATE_MODE);

    if (rc >= 0)
        return mag_file_from_fd(&t->file, rc);
    if (!lacks_tmpfile(rc))
        return rc;
    rc = make_fresh(&t->file, &t->path, NULL, "magpie-", PRIVATE_MODE);
    if (rc == 0)
        rc = mag_unlink(t->path);
    if (rc < 0)
        mag_temp_file_exit(t);
    forget(&t->path);
    return rc;
}

int mag_temp_file_enter(struct mag_temp_file *t, const char *prefix)
{
    *t = (struct mag_temp_file){ .file.fd = -1 };
    return prefix ? make_fresh(&t->file, &t->path, NULL, prefix, PRIVATE_MODE) : enter_nameless(t);
}

void mag_temp_file_exit(struct mag_temp_file *t)
{
    struct mag_scope s;
    bool is_shielded = shield(&s);

    if (t->path)
        (void)mag_unlink(t->path); /* the user may have, or may have renamed it */
    (void)mag_file_close(&t->file);
    forget(&t->path);
    unshield(&s, is_shielded);
}

/* ---- replacing a file -------------------------------------------------------------------- */

int mag_replacing_enter(struct mag_replacing *r, const char *path, unsigned mode)
{
    char *dir;
    int rc = mag_names_parent(&dir, path);

    *r = (struct mag_replacing){ .file.fd = -1 };
    if (rc == 0)
        rc = make_fresh(&r->file, &r->private_temp, dir, ".magpie-", mode);
    mag_mem_free(dir);
    if (rc < 0)
        return rc;
    /* The path is copied last: with it enter cannot fail any more. */
    r->private_path = mag_mem_alloc(strlen(path) + 1);
    if (!r->private_path) {
        mag_replacing_exit(r);
        return -ENOMEM;
    }
    strcpy(r->private_path, path);
    return 0;
}

/* fsync(2) of the directory that holds the path. */
static int sync_parent(const char *path)
{
    char *dir;
    int rc = mag_names_parent(&dir, path), fd;

    if (rc < 0)
        return rc;
    fd = rc = mag_op_open(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    mag_mem_free(dir);
    if (fd < 0)
        return rc;
    rc = mag_op_fsync(fd, false);
    (void)mag_op_close(fd);
    return rc;
}

static int rename_now(struct mag_replacing *r)
{
    int rc = mag_rename(r->private_temp, r->private_path);

    if (rc < 0)
        return rc;
    forget(&r->private_temp);
    rc = sync_parent(r->private_path);
    if (rc == -EINVAL) /* a file system that does not sync directories */
        rc = 0;
    (void)mag_file_close(&r->file);
    return rc;
}

int mag_replacing_commit(struct mag_replacing *r)
{
    struct mag_scope s;
    bool is_shielded;
    int rc = r->private_temp ? mag_file_fsync(&r->file, false) : -EALREADY;

    if (rc < 0)
        return rc;
    is_shielded = shield(&s);
    rc = rename_now(r);
    unshield(&s, is_shielded);
    return rc;
}

void mag_replacing_exit(struct mag_replacing *r)
{
    struct mag_scope s;
    bool is_shielded = shield(&s);

    if (r->private_temp)
        (void)mag_unlink(r->private_temp);
    (void)mag_file_close(&r->file);
    forget(&r->private_temp);
    forget(&r->private_path);
    unshield(&s, is_shielded);
}

int mag_replace_file(const char *path, const void *buf, size_t n, unsigned mode)
{
    struct mag_replacing r;
    int rc = mag_replacing_enter(&r, path, mode);

    if (rc < 0)
        return rc;
    rc = mag_file_write_all(&r.file, buf, n, NULL);
    if (rc == 0)
        rc = mag_replacing_commit(&r);
    mag_replacing_exit(&r);
    return rc;
}
