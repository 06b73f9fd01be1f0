/* SPDX-License-Identifier: MIT */
/*
 * names.c - names of files: making, changing and removing them
 *
 * What io_uring has (MKDIRAT, RENAMEAT, ...) is an operation of the ring, a row of op.c; what
 * it has not is a job of the pool's file lane: one struct with what goes in and what comes
 * out, on the stack of the task that waits.  makedirs and removedirs are one job each,
 * whatever their number of steps: a trip for each would be most of the time.
 *
 * Invariants
 *   1. A job touches only its struct, and the task waits until the job has ended.
 *
 * Who may call: anybody.
 *
 * Rejected: relative-to-a-directory forms (openat(2)'s) in public: they need a second argument
 * everywhere, and who needs them has the system calls and mag_to_thread.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "names.h"

#include "mem.h"
#include "op.h"
#include "rand.h"
#include "ring.h"
#include "sys_file.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <string.h>
#include <sys/statvfs.h>

enum { RANDOM_CHARS = 12, PATH_BYTES_MAX = 4096 };

static void *unconst(const char *path)
{
    return (void *)(uintptr_t)path;
}

/* ---- fresh names ------------------------------------------------------------------------ */

static const char *temp_dir(void)
{
    const char *dir = mag_sys_getenv("TMPDIR");

    return dir && *dir ? dir : "/tmp";
}

static void random_chars(char *to)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    struct mag_rand r;

    mag_rand_init(&r, mag_rand_seed());
    for (int i = 0; i < RANDOM_CHARS; i++)
        to[i] = chars[mag_rand_below(&r, sizeof chars - 1)];
    to[RANDOM_CHARS] = '\0';
}

int mag_names_fresh(char **out, const char *dir, const char *prefix)
{
    const char *in = strchr(prefix, '/') ? "" : dir ? dir : temp_dir();
    size_t in_len = strlen(in), prefix_len = strlen(prefix);
    char *path;

    *out = NULL;
    if (in_len + 1 + prefix_len + RANDOM_CHARS + 1 > PATH_BYTES_MAX)
        return -ENAMETOOLONG;
    path = mag_mem_alloc(in_len + 1 + prefix_len + RANDOM_CHARS + 1);
    if (!path)
        return -ENOMEM;
    *out = path;
    memcpy(path, in, in_len);
    if (in_len && path[in_len - 1] != '/')
        path[in_len++] = '/';
    memcpy(path + in_len, prefix, prefix_len);
    random_chars(path + in_len + prefix_len);
    return 0;
}

int mag_names_parent(char **out, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 1;
    char *dir;

    *out = NULL;
    if (len >= PATH_BYTES_MAX)
        return -ENAMETOOLONG;
    if (slash == path)
        len = 1;
    dir = mag_mem_alloc(len + 1);
    if (!dir)
        return -ENOMEM;
    memcpy(dir, slash ? path : ".", len);
    dir[len] = '\0';
    *out = dir;
    return 0;
}

/* ---- in the ring --------------------------------------------------------------------------- */

int mag_mkdir(const char *path, unsigned mode)
{
    struct mag_op op = {
        .code = MAG_OP_MKDIRAT, .fd = AT_FDCWD, .addr = unconst(path), .len = mode
    };

    return mag_op_call(&op);
}

static int unlink_at(const char *path, unsigned flags)
{
    struct mag_op op = {
        .code = MAG_OP_UNLINKAT, .fd = AT_FDCWD, .addr = unconst(path), .flags = flags
    };

    return mag_op_call(&op);
}

int mag_rmdir(const char *path)
{
    return unlink_at(path, AT_REMOVEDIR);
}

int mag_unlink(const char *path)
{
    return unlink_at(path, 0);
}

static int two_paths(enum mag_op_code code, const char *path, const char *second, unsigned flags)
{
    struct mag_op op = { .code = (uint8_t)code,
                         .fd = AT_FDCWD,
                         .addr = unconst(path),
                         .len = (uint32_t)AT_FDCWD,
                         .offset = mag_op_pointer(second),
                         .flags = flags };

    return mag_op_call(&op);
}

int mag_link(const char *path, const char *new_path)
{
    return two_paths(MAG_OP_LINKAT, path, new_path, 0);
}

int mag_symlink(const char *target, const char *path)
{
    return two_paths(MAG_OP_SYMLINKAT, target, path, 0);
}

int mag_rename(const char *from, const char *to)
{
    return two_paths(MAG_OP_RENAMEAT, from, to, 0);
}

int mag_rename_new(const char *from, const char *to)
{
    return two_paths(MAG_OP_RENAMEAT, from, to, RENAME_NOREPLACE);
}

int mag_exists(const char *path)
{
    struct mag_file_stat st;
    int rc = mag_stat(path, &st);

    if (rc == -ENOENT || rc == -ENOTDIR)
        return 0;
    return rc < 0 ? rc : 1;
}

/* ---- in the pool ------------------------------------------------------------------------------ */

struct job {
    const char *path;
    unsigned mode;
    char *buf; /* of readlink; the path that makedirs and removedirs cut */
    size_t room;
    struct mag_volume *volume;
};

static int job_chmod(void *arg)
{
    struct job *j = arg;

    return mag_sys_fchmodat(AT_FDCWD, j->path, (mode_t)j->mode);
}

int mag_chmod(const char *path, unsigned mode)
{
    return mag_wait_job(MAG_LANE_FILES, job_chmod, &(struct job){ .path = path, .mode = mode });
}

static int job_access(void *arg)
{
    struct job *j = arg;

    return mag_sys_faccessat(AT_FDCWD, j->path, (int)j->mode);
}

int mag_access(const char *path, int how)
{
    struct job j = { .path = path, .mode = (unsigned)how };

    return mag_wait_job(MAG_LANE_FILES, job_access, &j);
}

static int job_readlink(void *arg)
{
    struct job *j = arg;

    return (int)mag_sys_readlinkat(AT_FDCWD, j->path, j->buf, j->room);
}

int mag_readlink(const char *path, char *buf, size_t room)
{
    struct job j = { .path = path, .buf = buf, .room = room };
    int rc = room ? mag_wait_job(MAG_LANE_FILES, job_readlink, &j) : -ENAMETOOLONG;

    if (rc < 0)
        return rc;
    if ((size_t)rc == room)
        return -ENAMETOOLONG;
    buf[rc] = '\0';
    return rc;
}

static int job_statvfs(void *arg)
{
    struct job *j = arg;
    struct statvfs st;
    int rc;

    do
        rc = mag_sys_statvfs(j->path, &st);
    while (rc == -EINTR);
    if (rc < 0)
        return rc;
    *j->volume = (struct mag_volume){ .size = (uint64_t)st.f_blocks * st.f_frsize,
                                      .free = (uint64_t)st.f_bfree * st.f_frsize,
                                      .available = (uint64_t)st.f_bavail * st.f_frsize,
                                      .n_files = st.f_files,
                                      .n_files_free = st.f_ffree };
    return 0;
}

int mag_statvfs(const char *path, struct mag_volume *out)
{
    struct job j = { .path = path, .volume = out };

    return mag_wait_job(MAG_LANE_FILES, job_statvfs, &j);
}

/* ---- several directories at once ---------------------------------------------------------------- */

static int check_directory(const char *path)
{
    struct statx stx;
    int rc = mag_sys_statx(AT_FDCWD, path, 0, STATX_TYPE, &stx);

    if (rc < 0)
        return rc;
    return S_ISDIR(stx.stx_mode) ? 0 : -ENOTDIR;
}

/* One of them: 0 if it is there, now or before.  Who came first does not matter. */
static int make_one(const char *path, unsigned mode)
{
    int rc = mag_sys_mkdirat(AT_FDCWD, path, (mode_t)mode);

    return rc == -EEXIST ? check_directory(path) : rc;
}

/* The whole path first, which mostly is all; else each part of it from the beginning. */
static int job_makedirs(void *arg)
{
    struct job *j = arg;
    int rc = make_one(j->path, j->mode);
    char *end = j->buf;

    if (rc != -ENOENT)
        return rc;
    do {
        char kept;

        end += strspn(end, "/");
        end += strcspn(end, "/");
        kept = *end;
        *end = '\0';
        rc = make_one(j->buf, j->mode);
        *end = kept;
    } while (rc == 0 && end[strspn(end, "/")] != '\0');
    return rc;
}

static int job_removedirs(void *arg)
{
    struct job *j = arg;
    int rc = mag_sys_unlinkat(AT_FDCWD, j->buf, AT_REMOVEDIR);
    char *slash;

    if (rc < 0)
        return rc;
    while ((slash = strrchr(j->buf, '/')) != NULL) {
        bool is_end = slash[1] == '\0'; /* "a/b/": this one was removed just now */

        *slash = '\0';
        if (is_end)
            continue;
        if (*j->buf == '\0' || mag_sys_unlinkat(AT_FDCWD, j->buf, AT_REMOVEDIR) < 0)
            break;
    }
    return 0;
}

/* A job that needs the path to cut it. */
static int with_copy(int (*fn)(void *), const char *path, unsigned mode)
{
    size_t bytes = strlen(path) + 1;
    struct job j = { .path = path, .mode = mode };
    int rc;

    if (bytes > PATH_BYTES_MAX)
        return -ENAMETOOLONG;
    if (bytes == 1)
        return -ENOENT;
    j.buf = mag_mem_alloc(bytes);
    if (!j.buf)
        return -ENOMEM;
    memcpy(j.buf, path, bytes);
    rc = mag_wait_job(MAG_LANE_FILES, fn, &j);
    mag_mem_free(j.buf);
    return rc;
}

int mag_makedirs(const char *path, unsigned mode)
{
    return with_copy(job_makedirs, path, mode);
}

int mag_removedirs(const char *path)
{
    return with_copy(job_removedirs, path, 0);
}
