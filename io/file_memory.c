/* SPDX-License-Identifier: MIT */
/*
 * file_memory.c - files that are made in memory, where no disk is waited for
 *
 * To make a file may have to wait: for the directory, for the journal, for room.  Of a path
 * nobody can say beforehand, so it is done in the pool, and the way there and back costs as
 * much as the work.  But on tmpfs (/dev/shm, /run, often /tmp) only memory is moved, and a
 * task may do it itself, once it is known that the path leads there:
 *
 *      "/dev/shm/" --- openat2(RESOLVE_CACHED, O_PATH) ---> the directory; no disk was asked
 *                      statx: the mount's number ---------> one of those that are memory?
 *      "name"     ---- openat2(O_CREAT | O_EXCL) ---------> a new file
 *                 or, if it is there: statx --------------> a small regular file of this mount?
 *                      openat2(O_CREAT | O_TRUNC)
 *
 * Which mounts are memory is learnt from files that the pool has made: only files in memory
 * have seals (F_GET_SEALS).  The number is the one that is never given again
 * (STATX_MNT_ID_UNIQUE, Linux 6.8), so that what was learnt stays true; on older kernels
 * nothing is learnt, and the pool does it all.
 *
 * To find the directory costs a fifth of the whole, so it is not repeated for one file after
 * the other there: until the millisecond is over the same words are taken to lead to memory,
 * and the file that was made by its whole path is asked whether it does lie there.  Where a
 * path leads is never remembered, only what kind of place that is; so somebody who puts a
 * directory of a disk in the place of one in memory risks no wrong file, but that a file (for
 * each worker, if they are at it at once) is made on the spot there.
 *
 * That memory can be swapped out is no reason against any of this: so can the task's own.
 *
 * Invariants
 *   1. Nothing is opened here that could be a device or a link: what exists is looked at first.
 *      (Only root could make a device in its place between the two calls.)
 *   2. Whatever is refused is -EAGAIN: the pool tries again, and its answer counts.
 *   3. A file that is emptied here is small: to free a large one takes long.
 *
 * Who may call: any thread; nothing suspends.
 *
 * Rejected
 *   - statfs(2), for the type: it asks the server where there is one;
 *   - the device's number: another file system may get it later;
 *   - keeping the directory open: its path may lead elsewhere by then;
 *   - leaving O_CREAT away for a file that exists: the kernel then does not protect files of
 *     others in sticky directories (fs.protected_regular).
 *
 * Sources: openat2(2); statx(2); fcntl(2), "File Sealing"; mm/shmem.c and mm/memfd.c of Linux.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file_memory.h"

#include "atomic.h"
#include "clock.h"
#include "sys_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U /* Linux 6.8 */
#endif

#define FRESH_NS  MAG_MS /* what was found out of a directory is believed for so long at most */
#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

enum {
    PRINTS = 16,             /* directories that are remembered for a moment */
    MOUNTS = 8,              /* that are remembered */
    DIR_MAX = 512,           /* bytes of a directory's path, which is copied */
    FREED_MAX = 1024 * 1024, /* bytes of a file that is emptied on the spot */
    MODE_MASK = 07777,       /* of which open(2) ignores the rest, and openat2(2) does not */
};

/* Numbers of mounts, or 0; the oldest gives way. */
static mag_atomic(uint64_t) mounts[MOUNTS]; /* [any] */
static mag_atomic(uint32_t) n_learnt;       /* [any] */

/* relaxed: a number says all by itself, and who misses it goes to the pool */
static bool is_memory(uint64_t mount)
{
    for (int i = 0; i < MOUNTS; i++)
        if (mag_load_relaxed(&mounts[i]) == mount)
            return mount != 0;
    return false;
}

/* Type, size and mount, as far as they are in memory: 0 or -errno. */
static int look(int dirfd, const char *name, struct statx *out)
{
    unsigned mask = STATX_TYPE | STATX_SIZE | STATX_MNT_ID_UNIQUE;
    int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
    int rc = mag_sys_statx(dirfd, name, flags, mask, out);

    return rc == 0 && (out->stx_mask & mask) != mask ? -EAGAIN : rc;
}

void mag_memory_learn(int fd)
{
    struct statx st;

    if (mag_sys_getseals(fd) < 0 || look(fd, "", &st) < 0 || is_memory(st.stx_mnt_id))
        return;
    mag_store_relaxed(&mounts[mag_fetch_add(&n_learnt, 1) % MOUNTS], st.stx_mnt_id);
}

/* The directory of which it is known that it is in memory, or < 0. */
static int open_dir(const char *path, size_t n)
{
    char dir[DIR_MAX];
    struct statx st;
    int fd;

    if (n >= sizeof dir)
        return -EAGAIN;
    memcpy(dir, path, n);
    dir[n] = '\0';
    fd = mag_sys_open_cached(n ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (look(fd, "", &st) == 0 && is_memory(st.stx_mnt_id)))
        return fd;
    (void)mag_sys_close(fd); /* which waits for nothing, as O_PATH has opened nothing */
    return -EAGAIN;
}

/* ---- what was found out a moment ago ----------------------------------------------------- */

/* A directory's path and the millisecond, in which it led to memory, as one number that no other
 * pair has but by a chance of 2^-64. */
static uint64_t print_of(const char *path, size_t n, mag_time now)
{
    uint64_t print = FNV_BASIS ^ (uint64_t)(now / FRESH_NS);

    for (size_t i = 0; i < n; i++)
        print = (print ^ (unsigned char)path[i]) * FNV_PRIME;
    return print ^ (print >> 32);
}

static mag_atomic(uint64_t) fresh[PRINTS]; /* [any] */
static mag_atomic(bool) is_overwriting;    /* [any] a hint: the last file was there */

/* relaxed: as is_memory */
static bool is_fresh(uint64_t print)
{
    return mag_load_relaxed(&fresh[print % PRINTS]) == print;
}

static void set_fresh(uint64_t print, bool is)
{
    mag_store_relaxed(&fresh[print % PRINTS], is ? print : 0);
}

/* ---- making --------------------------------------------------------------------------- */

struct place {
    int dirfd;
    const char *name;
    unsigned mode;
    unsigned resolve; /* openat2(2)'s rules */
};

static int create(const struct place *p, unsigned flags)
{
    flags |= O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
    struct open_how how = { .flags = flags, .mode = p->mode & MODE_MASK, .resolve = p->resolve };

    return mag_sys_openat2(p->dirfd, p->name, &how, sizeof how);
}

/* -ENOENT: it is not there. */
static int overwrite(const struct place *p)
{
    struct statx st;
    int rc = look(p->dirfd, p->name, &st);

    if (rc < 0)
        return rc;
    if (!S_ISREG(st.stx_mode) || st.stx_size > FREED_MAX || !is_memory(st.stx_mnt_id))
        return -EAGAIN;
    return create(p, O_TRUNC);
}

/* First what the last one was, then the other. */
static int make(const struct place *p)
{
    bool is_there = mag_load_relaxed(&is_overwriting);
    int fd = is_there ? overwrite(p) : create(p, O_EXCL);

    if (fd != (is_there ? -ENOENT : -EEXIST))
        return fd;
    mag_store_relaxed(&is_overwriting, !is_there);
    return is_there ? create(p, O_EXCL) : overwrite(p);
}

/* By its whole path, in a directory that was in memory a moment ago. */
static int make_again(const char *path, unsigned mode, uint64_t print)
{
    int fd = make(&(struct place){ .dirfd = AT_FDCWD, .name = path, .mode = mode });

    if (fd >= 0 && mag_sys_getseals(fd) < 0)
        set_fresh(print, false);
    return fd;
}

static int make_carefully(const char *path, size_t n, unsigned mode, uint64_t print)
{
    struct place p = { .name = path + n,
                       .mode = mode,
                       .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV };
    int fd;

    p.dirfd = open_dir(path, n);
    if (p.dirfd < 0)
        return p.dirfd;
    fd = make(&p);
    (void)mag_sys_close(p.dirfd);
    set_fresh(print, true);
    return fd;
}

int mag_memory_create(const char *path, unsigned mode)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash + 1 - path) : 0;
    uint64_t print;
    int fd;

    if (!mag_load_relaxed(&n_learnt) || path[n] == '\0') /* relaxed: as is_memory */
        return -EAGAIN;
    print = print_of(path, n, mag_clock_now());
    fd = is_fresh(print) ? make_again(path, mode, print) : make_carefully(path, n, mode, print);
    return fd < 0 ? -EAGAIN : fd;
}
