/* SPDX-License-Identifier: MIT */
/*
 * dir_copy.c - copying, moving and sending files
 *
 *      copy   job: open both            the pool
 *             job: PIECE_BYTES          ... again and again; in between the task looks whether
 *                                       it is cancelled, and tells its progress
 *             job: chmod, close         in a shield
 *
 * copy_file_range(2) copies in the kernel, or shares the blocks (btrfs, xfs, NFS); where it
 * cannot (another file system before Linux 5.19, /proc), a piece is read and written.
 *
 * mag_sendfile is no sendfile(2): that blocks its thread in two ways, for the disk and for a
 * peer that does not read, and io_uring's SPLICE hands each piece to a thread of the kernel's
 * which then waits for the peer, as many threads as there are slow peers.  So a piece is read,
 * mostly on the spot, and written through the ring, where waiting costs nothing; the price is one
 * copy of what is then in the processor's cache.
 *
 * Invariants
 *   1. A file that a failed copy has made is removed.
 *   2. A position that mag_sendfile has moved is that of what was sent, not of what was read.
 *
 * Who may call: anybody.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file_handle.h"

#include "mem.h"
#include "names.h"
#include "op.h"
#include "sys_file.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <magpie/net.h>
#include <magpie/scope.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 8 * 1024 * 1024, /* between two looks at the cancel */
    BUFFER_BYTES = 256 * 1024,
    SEND_BYTES = 128 * 1024, /* fits a second-level cache, and a socket's buffer */
    MODE_BITS = 07777,
};

struct copy {
    const char *from_path, *to_path;
    bool is_exclusive;
    int from, to;  /* -1: not open */
    bool has_made; /* `to' is ours to remove */
    bool by_hand;
    bool has_ended;
    unsigned mode;
    uint64_t total, done;
    int rc;    /* of the copy, for its end */
    char *buf; /* by hand */
};

/* ---- in the pool ------------------------------------------------------------------------- */

static int open_path(const char *path, int flags, unsigned mode)
{
    int fd;

    do
        fd = mag_sys_openat(AT_FDCWD, path, flags | O_CLOEXEC | O_NONBLOCK, (mode_t)mode);
    while (fd == -EINTR);
    return fd;
}

static int open_source(struct copy *c, struct stat *st)
{
    int rc = c->from = open_path(c->from_path, O_RDONLY, 0);

    if (rc >= 0)
        rc = mag_sys_fstat(c->from, st);
    if (rc < 0)
        return rc;
    if (!S_ISREG(st->st_mode))
        return S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL;
    c->mode = st->st_mode & MODE_BITS;
    c->total = (uint64_t)st->st_size;
    return 0;
}

/* The one that is there already; emptied, if it is not the source itself. */
static int reuse_target(struct copy *c, const struct stat *from)
{
    struct stat st;
    int rc = c->to = open_path(c->to_path, O_WRONLY, 0);

    if (rc >= 0)
        rc = mag_sys_fstat(c->to, &st);
    if (rc < 0)
        return rc;
    if (!S_ISREG(st.st_mode) || (st.st_dev == from->st_dev && st.st_ino == from->st_ino))
        return -EINVAL;
    return mag_sys_ftruncate(c->to, 0);
}

static int job_open(void *arg)
{
    struct copy *c = arg;
    struct stat st;
    int rc = open_source(c, &st);

    if (rc < 0)
        return rc;
    c->to = open_path(c->to_path, O_WRONLY | O_CREAT | O_EXCL, c->mode & 0777);
    c->has_made = c->to >= 0;
    if (c->to == -EEXIST && !c->is_exclusive)
        return reuse_target(c, &st);
    return c->to < 0 ? c->to : 0;
}

static int write_whole(int fd, const char *buf, size_t n)
{
    while (n) {
        ssize_t rc = mag_sys_write(fd, buf, n);

        if (rc == -EINTR)
            continue;
        if (rc <= 0)
            return rc < 0 ? (int)rc : -EIO;
        buf += rc;
        n -= (size_t)rc;
    }
    return 0;
}

/* The bytes of this piece, 0 at the end. */
static int piece_by_hand(struct copy *c)
{
    size_t done = 0;

    if (!c->buf)
        c->buf = mag_mem_alloc(BUFFER_BYTES);
    if (!c->buf)
        return -ENOMEM;
    while (done < PIECE_BYTES) {
        ssize_t n = mag_sys_read(c->from, c->buf, BUFFER_BYTES);
        int rc;

        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? (int)n : (int)done;
        rc = write_whole(c->to, c->buf, (size_t)n);
        if (rc < 0)
            return rc;
        done += (size_t)n;
    }
    return (int)done;
}

/* Refused for these two files, or (0 at the beginning) perhaps one of /proc, without a size. */
static bool is_refused(const struct copy *c, ssize_t rc)
{
    if (c->done)
        return false;
    return rc == 0 || rc == -EXDEV || rc == -EINVAL || rc == -EOPNOTSUPP || rc == -ENOSYS ||
           rc == -EPERM;
}

static int job_piece(void *arg)
{
    struct copy *c = arg;
    ssize_t rc;

    if (c->by_hand)
        return piece_by_hand(c);
    do
        rc = mag_sys_copy_file_range(c->from, c->to, PIECE_BYTES);
    while (rc == -EINTR);
    c->by_hand = is_refused(c, rc);
    return c->by_hand ? piece_by_hand(c) : (int)rc;
}

static int job_end(void *arg)
{
    struct copy *c = arg;
    int rc = c->rc, closed;

    c->has_ended = true;
    if (rc == 0)
        rc = mag_sys_fchmod(c->to, (mode_t)c->mode);
    if (c->from >= 0)
        mag_sys_close(c->from);
    closed = c->to >= 0 ? mag_sys_close(c->to) : 0;
    if (rc == 0)
        rc = closed;
    if (rc < 0 && c->has_made)
        mag_sys_unlinkat(AT_FDCWD, c->to_path, 0);
    return rc;
}

/* ---- copying ---------------------------------------------------------------------------------- */

static int copy_pieces(struct copy *c, const struct mag_copy_options *o)
{
    for (;;) {
        int rc = mag_wait_job(MAG_LANE_FILES, job_piece, c);

        if (rc <= 0)
            return rc;
        c->done += (unsigned)rc;
        rc = o && o->progress ? o->progress(o->arg, c->done, c->total) : 0;
        if (rc < 0)
            return rc;
    }
}

static int copy_end(struct copy *c)
{
    struct mag_scope shield;
    bool is_shielded = mag_wait_in_task() && mag_shield_enter(&shield, MAG_NEVER, NULL) == 0;
    int rc = mag_wait_job(MAG_LANE_FILES, job_end, c);

    if (MAG_UNLIKELY(!c->has_ended)) /* the pool has no thread */
        rc = job_end(c);
    mag_mem_free(c->buf);
    if (is_shielded)
        (void)mag_scope_leave(&shield, 0);
    return rc;
}

int mag_copy_file(const char *from, const char *to, const struct mag_copy_options *options)
{
    struct copy c = { .from_path = from,
                      .to_path = to,
                      .is_exclusive = options && options->exclusive,
                      .from = -1,
                      .to = -1 };

    c.rc = mag_wait_job(MAG_LANE_FILES, job_open, &c);
    if (c.rc == 0)
        c.rc = copy_pieces(&c, options);
    return c.from < 0 ? c.rc : copy_end(&c);
}

/* ---- moving ------------------------------------------------------------------------------------- */

static int move_across(const char *from, const char *to, const char *dir)
{
    const struct mag_copy_options exclusive = { .exclusive = true };
    int tries = 0, rc;
    char *temp;

    do {
        rc = mag_names_fresh(&temp, dir, ".magpie-");
        if (rc < 0)
            return rc;
        rc = mag_copy_file(from, temp, &exclusive);
        if (rc == 0) {
            rc = mag_rename(temp, to);
            if (rc < 0)
                (void)mag_remove_tree(temp);
        }
        mag_mem_free(temp);
    } while (mag_names_again(rc, &tries));
    return rc < 0 ? rc : mag_unlink(from);
}

int mag_move(const char *from, const char *to)
{
    struct mag_file_stat st;
    char *dir;
    int rc = mag_rename(from, to);

    if (rc != -EXDEV)
        return rc;
    rc = mag_lstat(from, &st);
    if (rc < 0)
        return rc;
    if (!S_ISREG(st.mode))
        return -EXDEV;
    rc = mag_names_parent(&dir, to);
    if (rc == 0)
        rc = move_across(from, to, dir);
    mag_mem_free(dir);
    return rc;
}

/* ---- sending --------------------------------------------------------------------------------------- */

/* From what has no positions: a pipe, which splice(2) can move without taking anything out of
 * it that is not sent. */
static int send_from_pipe(int out_fd, int in_fd, size_t n)
{
    size_t done = 0;

    while (done < n) {
        int rc = mag_splice(in_fd, NULL, out_fd, NULL, n - done, 0);

        if (rc <= 0)
            return done ? (int)done : rc;
        done += (size_t)rc;
    }
    return (int)done;
}

/* One piece: how much of it went, and whether that was all. */
static int send_piece(struct mag_file *in, int out_fd, char *buf, size_t n, int64_t offset,
                      size_t *went)
{
    int rc = mag_file_pread(in, buf, n, offset);

    *went = 0;
    if (rc <= 0)
        return rc;
    rc = mag_write_all(out_fd, buf, (size_t)rc, went);
    return rc < 0 ? rc : 1;
}

static int send_pieces(int out_fd, int in_fd, int64_t *offset, size_t n)
{
    size_t piece = n < SEND_BYTES ? n : SEND_BYTES, done = 0, went;
    char *buf = mag_mem_alloc(piece);
    struct mag_file in;
    int rc = buf ? mag_file_from_fd(&in, in_fd) : -ENOMEM;

    for (; rc >= 0 && done < n; done += went, *offset += (int64_t)went) {
        size_t left = n - done;

        rc = send_piece(&in, out_fd, buf, left < piece ? left : piece, *offset, &went);
        if (rc == 0)
            break;
    }
    mag_mem_free(buf);
    return done || rc > 0 ? (int)done : rc;
}

int mag_sendfile(int out_fd, int in_fd, int64_t *offset, size_t n)
{
    int64_t at = offset ? *offset : mag_sys_lseek(in_fd, 0, SEEK_CUR);
    int rc;

    if (n > MAG_OP_BYTES_MAX)
        n = MAG_OP_BYTES_MAX;
    if (at < 0)
        return at == -ESPIPE && !offset ? send_from_pipe(out_fd, in_fd, n)
               : offset                 ? -EINVAL
                                        : (int)at;
    rc = send_pieces(out_fd, in_fd, &at, n);
    if (offset)
        *offset = at;
    else
        (void)mag_sys_lseek(in_fd, at, SEEK_SET);
    return rc;
}
