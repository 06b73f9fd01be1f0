/* SPDX-License-Identifier: MIT */
/*
 * file.c - asynchronous files: open, read, write, close
 *
 * Most reads find their data in the page cache, where a system call takes less time
 * than a trip through the ring and back; the others must not hold up a worker.  So
 * a task's read asks twice:
 *
 *      preadv2(RWF_NOWAIT) --- bytes, or the end ----------------------> done
 *          |         |                                                     ^
 *          |         +-- -EOPNOTSUPP --- in memory (F_GET_SEALS): preadv2 -+
 *          |                       +---- or not: remembered, never asked again --+
 *          +-- -EAGAIN: not cached ---------------------------------------------+|
 *                                                                               vv
 *                                             the ring: suspend until the data is there
 *
 * Files in memory, those of tmpfs, do not know RWF_NOWAIT and need not: no disk is waited for
 * (unless memory is swapped out; so may a task's own be).  Only they can be sealed, and so no
 * other file answers F_GET_SEALS.
 *
 * An open for reading asks so as well, with openat2(RESOLVE_CACHED): what io_uring would try
 * first as well, but here without a trip (10,000 small files are read at 3 times the speed).
 * The rule for all of files, measured on ext4:
 *
 *      on the spot   what the kernel answers from memory, or refuses to: the two calls
 *                    above, lseek(2), fcntl(2), fstat(2) once a handle, a small
 *                    mag_write_file in memory (file_memory.c), and the close of a file
 *                    of which both calls above have succeeded (so that it is one with a
 *                    page cache and without a flush at close, as network files have)
 *      the ring      what may wait and is one step: reads of what is not cached or is
 *                    O_DIRECT, writes, fsync, opens that create, rename, unlink, ...
 *      the pool      what io_uring has not (directories, chmod, copies), and what is several
 *                    steps of which each would go to a thread of the kernel's: mag_write_file
 *                    (open, write, close: 3 trips) and the like are one job
 *
 * The on-the-spot part is a cancellation point like the other, and no longer than
 * SPOT_BYTES, so that a reader of cached files is stopped and overtaken as often as
 * anybody else.
 *
 * The position is the descriptor's own, in the kernel: pipes and terminals, which
 * have none, then need no code of their own.  What is no regular file is read and written
 * by mag_read and mag_write (net.c), which mind neither O_NONBLOCK nor SIGPIPE; one that
 * refuses RWF_NOWAIT, as terminals do, is polled first, because a read that waits for a key
 * would occupy a thread of the kernel's for as long as nobody types.
 *
 * Invariants
 *   1. fd is -1 when the handle is not open, whatever failed.
 *   2. A read of a regular file comes short only at the end, or when some bytes were
 *      moved before an error or a cancellation; the next call meets that.
 *
 * Who may call: one task at a time, or a thread outside a task, where the plain
 * system call blocks it.
 *
 * Rejected
 *   - a position in the handle: wrong for "a", and one more way to be wrong;
 *   - knowing the type from an fstat(2) at open: most files are opened, read once
 *     and closed, and only a read that comes short needs it;
 *   - opens that create on the spot, except in memory: they wait for the file system's journal;
 *   - fstatfs(2), for the type: it asks the server where there is one.
 *
 * The system calls made on the spot that could wait are that fstat(2), which answers
 * from the inode in memory, except on a network file system; and a close that is the last
 * of a file whose name was removed meanwhile, which frees its blocks.
 *
 * Sources: preadv2(2); openat2(2); fcntl(2), "File Sealing"; fopen(3) for the modes.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file_handle.h"

#include "atomic.h"
#include "mem.h"
#include "misuse.h"
#include "op.h"
#include "ring.h"
#include "sys_file.h"
#include "unclosed.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/dir.h>
#include <magpie/net.h>
#include <magpie/task.h>
#include <poll.h>
#include <string.h>
#include <sys/sysmacros.h>

enum {
    SPOT_BYTES = 1024 * 1024, /* longest read that is done without the ring */
    PARTS_MAX = 1024,         /* of a vector: IOV_MAX */
};

/* ---- open and close ------------------------------------------------------------- */

/* The open(2) flags of a mode as in fopen(3), or -EINVAL. */
static int flags_of(const char *mode)
{
    bool is_update = strchr(mode, '+') != NULL;
    int flags = O_CLOEXEC;

    switch (*mode) {
    case 'r':
        flags |= is_update ? O_RDWR : O_RDONLY;
        break;
    case 'w':
        flags |= (is_update ? O_RDWR : O_WRONLY) | O_CREAT | O_TRUNC;
        break;
    case 'a':
        flags |= (is_update ? O_RDWR : O_WRONLY) | O_CREAT | O_APPEND;
        break;
    default:
        return -EINVAL;
    }
    mode++;
    if (mode[strspn(mode, "+xbde")] != '\0')
        return -EINVAL;
    if (strchr(mode, 'x') && !(flags & O_CREAT))
        return -EINVAL;
    if (strchr(mode, 'd'))
        flags |= O_DIRECT;
    return strchr(mode, 'x') ? flags | O_EXCL : flags;
}

static mag_atomic(bool) has_no_cached_open; /* [any] the kernel or a sandbox refuses it */

/* Not the file's error, but this way's of opening it. */
static bool is_of_the_way(int rc)
{
    return rc == -EAGAIN || rc == -EINTR || rc == -ENOSYS || rc == -EINVAL || rc == -EPERM;
}

/* Opens for reading from the kernel's caches; -EAGAIN: by the ring. */
static int open_cached(const char *path, int flags)
{
    int rc;

    /* relaxed: a hint; who misses it is refused once more */
    if ((flags & ~(O_CLOEXEC | O_DIRECT)) != O_RDONLY || !mag_wait_in_task() ||
        mag_load_relaxed(&has_no_cached_open))
        return -EAGAIN;
    rc = mag_wait_checkpoint();
    if (rc < 0)
        return rc;
    rc = mag_sys_open_cached(path, flags);
    if (MAG_UNLIKELY(rc == -ENOSYS))
        mag_store_relaxed(&has_no_cached_open, true);
    return rc < 0 && is_of_the_way(rc) ? -EAGAIN : rc;
}

static int open_flags(struct mag_file *f, const char *path, int flags)
{
    int rc = open_cached(path, flags);

    *f = (struct mag_file){ .fd = -1 };
    if (rc >= 0)
        f->known = MAG_FILE_CACHED | MAG_FILE_NONBLOCK;
    else if (rc == -EAGAIN)
        rc = mag_op_open(AT_FDCWD, path, flags, MAG_FILE_CREATE_MODE);
    if (rc < 0)
        return rc;
    f->fd = rc;
    if (flags & O_DIRECT)
        f->known |= MAG_FILE_NO_SPOT;
    return 0;
}

int mag_file_open_lazily(struct mag_file *f, const char *path)
{
    return open_flags(f, path, O_RDONLY | O_CLOEXEC);
}

/* Nobody else has the descriptor yet, and so nobody sees the flag. */
static void take_nonblock_off(struct mag_file *f)
{
    int flags = f->known & MAG_FILE_NONBLOCK ? mag_sys_getfl(f->fd) : -1;

    f->known &= ~(unsigned)MAG_FILE_NONBLOCK;
    if (flags >= 0)
        (void)mag_sys_setfl(f->fd, flags & ~O_NONBLOCK);
}

static int open_noted(struct mag_file *f, const char *path, const char *mode, const void *caller)
{
    int flags = flags_of(mode);
    int rc = flags < 0 ? flags : open_flags(f, path, flags);
    const struct mag_rt *rt = mag_rt_self();

    if (rc < 0) {
        *f = (struct mag_file){ .fd = -1 };
        return rc;
    }
    if (f->known & MAG_FILE_NONBLOCK) { /* who takes f->fd should find it as he knows it */
        (void)mag_sys_setfl(f->fd, flags & O_DIRECT);
        f->known &= ~(unsigned)MAG_FILE_NONBLOCK;
    }
    if (MAG_UNLIKELY(mag_debug() || (rt && rt->is_debug)))
        mag_unclosed_add(f->fd, "file", path, rt, caller);
    return 0;
}

int mag_file_open(struct mag_file *f, const char *path, const char *mode)
{
    return open_noted(f, path, mode, __builtin_return_address(0));
}

/* A handle for what is open already. */
static int adopt(struct mag_file *f, int fd, unsigned known)
{
    int flags = mag_sys_getfl(fd);

    *f = (struct mag_file){ .fd = -1 };
    if (flags < 0)
        return flags;
    f->fd = fd;
    f->known = known | (flags & O_DIRECT ? MAG_FILE_NO_SPOT : 0u);
    return 0;
}

int mag_file_from_fd(struct mag_file *f, int fd)
{
    return adopt(f, fd, 0);
}

int mag_stdin(struct mag_file *f)
{
    return adopt(f, 0, MAG_FILE_BORROWED);
}

int mag_stdout(struct mag_file *f)
{
    return adopt(f, 1, MAG_FILE_BORROWED);
}

int mag_stderr(struct mag_file *f)
{
    return adopt(f, 2, MAG_FILE_BORROWED);
}

int mag_file_fileno(const struct mag_file *f)
{
    return f->fd < 0 ? -EBADF : f->fd;
}

/* Ends the handle, but not the descriptor, which it answers. */
static int let_go(struct mag_file *f)
{
    int fd = f->fd;

    mag_mem_free(f->content);
    mag_mem_free(f->ahead);
    *f = (struct mag_file){ .fd = -1 };
    if (fd < 0)
        return -EBADF;
    mag_unclosed_remove(fd); /* before the number can be another file's */
    return fd;
}

int mag_file_detach(struct mag_file *f)
{
    if (f->fd >= 0)
        mag_file_unread(f);
    return let_go(f);
}

int mag_file_close(struct mag_file *f)
{
    bool is_quick =
        (f->known & (MAG_FILE_CACHED | MAG_FILE_QUICK)) == (MAG_FILE_CACHED | MAG_FILE_QUICK);
    bool is_borrowed = f->known & MAG_FILE_BORROWED;
    int fd = let_go(f);

    if (fd < 0)
        return fd;
    if (is_borrowed)
        return 0;
    return is_quick ? mag_sys_close(fd) : mag_op_close(fd);
}

int mag_file_enter(struct mag_file *f, const char *path, const char *mode)
{
    return open_noted(f, path, mode, __builtin_return_address(0));
}

void mag_file_exit(struct mag_file *f)
{
    /* The scope has its own result by now; who wants this one calls the close. */
    (void)mag_file_close(f);
}

/* ---- reading -------------------------------------------------------------------- */

bool mag_file_is_regular(struct mag_file *f, uint64_t *size)
{
    struct stat st;

    if (size)
        *size = 0;
    if ((f->known & MAG_FILE_TYPE) && (!size || !(f->known & MAG_FILE_REGULAR)))
        return f->known & MAG_FILE_REGULAR;
    f->known |= MAG_FILE_TYPE;
    if (mag_sys_fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    f->known |= MAG_FILE_REGULAR;
    if (size)
        *size = (uint64_t)st.st_size;
    return true;
}

/* The last file that was asked lay in memory: so the next one is asked before it is read. */
static mag_atomic(bool) memory_is_likely; /* [any] a hint */

/* Asks, once a handle. */
static bool learn_memory(struct mag_file *f)
{
    bool is_memory = mag_sys_getseals(f->fd) >= 0;

    f->known |= MAG_FILE_ASKED | (is_memory ? MAG_FILE_MEMORY : 0u);
    /* relaxed: a hint; read first, so that workers that agree share the line */
    if (mag_load_relaxed(&memory_is_likely) != is_memory)
        mag_store_relaxed(&memory_is_likely, is_memory);
    return is_memory;
}

static bool is_in_memory(struct mag_file *f)
{
    if (!(f->known & MAG_FILE_ASKED) && mag_load_relaxed(&memory_is_likely))
        return learn_memory(f);
    return f->known & MAG_FILE_MEMORY;
}

/* A read that may have to wait. */
static int read_patiently(struct mag_file *f, char *buf, size_t n, int64_t offset)
{
    int rc = 0;

    if (offset != MAG_OP_HERE || mag_file_is_regular(f, NULL))
        return mag_op_read(f->fd, buf, n, offset);
    take_nonblock_off(f);
    if ((f->known & MAG_FILE_NO_SPOT) && mag_wait_in_task())
        rc = mag_poll_fd(f->fd, POLLIN);
    return rc < 0 ? rc : mag_read(f->fd, buf, n);
}

/* The system call; -EAGAIN: it would have to wait, or cannot say so. */
static int read_on_the_spot(struct mag_file *f, const struct iovec *iov, int n_iov, int64_t offset)
{
    int flags, rc;

    if (!mag_wait_in_task() || (f->known & MAG_FILE_NO_SPOT))
        return -EAGAIN;
    rc = mag_wait_checkpoint();
    if (rc < 0)
        return rc;
    do {
        flags = is_in_memory(f) ? 0 : RWF_NOWAIT;
        rc = (int)mag_sys_preadv2(f->fd, iov, n_iov, offset, flags);
    } while (rc == -EINTR || (rc == -EOPNOTSUPP && flags && learn_memory(f)));
    if (MAG_LIKELY(rc >= 0))
        f->known |= MAG_FILE_QUICK;
    if (rc != -EOPNOTSUPP)
        return rc;
    f->known |= MAG_FILE_NO_SPOT;
    return -EAGAIN;
}

int mag_file_read_some(struct mag_file *f, char *buf, size_t n, int64_t offset)
{
    struct iovec part = { .iov_base = buf, .iov_len = n < SPOT_BYTES ? n : SPOT_BYTES };
    int rc = read_on_the_spot(f, &part, 1, offset);

    return rc == -EAGAIN ? read_patiently(f, buf, n, offset) : rc;
}

/* Goes on after a short transfer if, and only if, the file is a regular one. */
static int read_rest(struct mag_file *f, char *buf, size_t n, int64_t offset, size_t done)
{
    int rc;

    do {
        rc = mag_file_read_some(f, buf + done, n - done, offset);
        if (rc <= 0)
            return done ? (int)done : rc;
        done += (size_t)rc;
        if (offset != MAG_OP_HERE)
            offset += rc;
    } while (done < n && mag_file_is_regular(f, NULL));
    return (int)done;
}

static size_t clamped(size_t n)
{
    return n < MAG_OP_BYTES_MAX ? n : MAG_OP_BYTES_MAX;
}

int mag_file_read(struct mag_file *f, void *buf, size_t n)
{
    size_t done = MAG_UNLIKELY(f->ahead != NULL) ? mag_file_take_ahead(f, buf, clamped(n)) : 0;

    if (done && (done == clamped(n) || !mag_file_is_regular(f, NULL)))
        return (int)done;
    return read_rest(f, buf, clamped(n), MAG_OP_HERE, done);
}

/*
 * Whether bytes have offsets, learnt once by reading none of them.  io_uring would
 * not say -ESPIPE: it ignores the offset and waits for the next bytes of a pipe.
 */
static int check_offset(struct mag_file *f, int64_t offset)
{
    struct iovec none = { 0 };

    if (offset < 0)
        return -EINVAL;
    if (f->known & MAG_FILE_SEEKABLE)
        return 0;
    if (mag_sys_preadv2(f->fd, &none, 1, 0, 0) == -ESPIPE)
        return -ESPIPE;
    f->known |= MAG_FILE_SEEKABLE;
    return 0;
}

int mag_file_pread(struct mag_file *f, void *buf, size_t n, int64_t offset)
{
    int rc = check_offset(f, offset);

    return rc < 0 ? rc : read_rest(f, buf, clamped(n), offset, 0);
}

/* ---- writing -------------------------------------------------------------------- */

/* What has no positions: all n bytes, as its other end takes them. */
static int write_stream(struct mag_file *f, const char *buf, size_t n)
{
    size_t done = 0;
    int rc = mag_write_all(f->fd, buf, n, &done);

    return done ? (int)done : rc;
}

int mag_file_write(struct mag_file *f, const void *buf, size_t n)
{
    if (f->ahead)
        mag_file_unread(f);
    if (!mag_file_is_regular(f, NULL))
        return write_stream(f, buf, clamped(n));
    return mag_op_write(f->fd, buf, n, MAG_OP_HERE);
}

int mag_file_write_all(struct mag_file *f, const void *buf, size_t n, size_t *done)
{
    size_t gone = 0;
    int rc = 1;

    while (gone < n && rc > 0) {
        rc = mag_file_write(f, (const char *)buf + gone, n - gone);
        gone += rc > 0 ? (size_t)rc : 0;
    }
    if (done)
        *done = gone;
    if (gone == n)
        return 0;
    return rc < 0 ? rc : -EIO; /* a write of nothing would be repeated for ever */
}

int mag_file_pwrite(struct mag_file *f, const void *buf, size_t n, int64_t offset)
{
    int rc = check_offset(f, offset);

    return rc < 0 ? rc : mag_op_write(f->fd, buf, n, offset);
}

int mag_file_fsync(struct mag_file *f, bool data_only)
{
    return mag_op_fsync(f->fd, data_only);
}

/* ---- vectors ---------------------------------------------------------------------- */

static int vector_op(struct mag_file *f, enum mag_op_code code, const struct iovec *iov, int n_iov,
                     int64_t offset)
{
    struct mag_op op = { .code = (uint8_t)code,
                         .fd = f->fd,
                         .addr = (void *)(uintptr_t)iov,
                         .len = (uint32_t)n_iov,
                         .offset = (uint64_t)offset };

    return mag_op_call(&op);
}

static int read_parts(struct mag_file *f, const struct iovec *iov, int n_iov, int64_t offset)
{
    int rc = read_on_the_spot(f, iov, n_iov, offset);

    if (rc != -EAGAIN)
        return rc;
    if (offset == MAG_OP_HERE && !mag_file_is_regular(f, NULL))
        return mag_readv(f->fd, iov, n_iov);
    return vector_op(f, MAG_OP_READV, iov, n_iov, offset);
}

/* What was read ahead comes first, and then it is a short read. */
static int take_parts(struct mag_file *f, const struct iovec *iov, int n_iov)
{
    size_t done = 0;

    for (int i = 0; i < n_iov && mag_file_n_ahead(f); i++)
        done += mag_file_take_ahead(f, iov[i].iov_base, iov[i].iov_len);
    return (int)done;
}

int mag_file_readv(struct mag_file *f, const struct iovec *iov, int n_iov)
{
    if (n_iov < 0 || n_iov > PARTS_MAX)
        return -EINVAL;
    if (mag_file_n_ahead(f))
        return take_parts(f, iov, n_iov);
    return read_parts(f, iov, n_iov, MAG_OP_HERE);
}

int mag_file_writev(struct mag_file *f, const struct iovec *iov, int n_iov)
{
    if (n_iov < 0 || n_iov > PARTS_MAX)
        return -EINVAL;
    if (f->ahead)
        mag_file_unread(f);
    if (!mag_file_is_regular(f, NULL))
        return mag_writev(f->fd, iov, n_iov);
    return vector_op(f, MAG_OP_WRITEV, iov, n_iov, MAG_OP_HERE);
}

int mag_file_preadv(struct mag_file *f, const struct iovec *iov, int n_iov, int64_t offset)
{
    int rc = n_iov < 0 || n_iov > PARTS_MAX ? -EINVAL : check_offset(f, offset);

    return rc < 0 ? rc : read_parts(f, iov, n_iov, offset);
}

int mag_file_pwritev(struct mag_file *f, const struct iovec *iov, int n_iov, int64_t offset)
{
    int rc = n_iov < 0 || n_iov > PARTS_MAX ? -EINVAL : check_offset(f, offset);

    return rc < 0 ? rc : vector_op(f, MAG_OP_WRITEV, iov, n_iov, offset);
}

/* ---- position, length, advice ------------------------------------------------------- */

int64_t mag_file_seek(struct mag_file *f, int64_t offset, int whence)
{
    int64_t rc;

    if (whence != SEEK_SET && whence != SEEK_CUR && whence != SEEK_END)
        return -EINVAL; /* SEEK_DATA and SEEK_HOLE may have to read */
    if (whence == SEEK_CUR && __builtin_sub_overflow(offset, (int64_t)mag_file_n_ahead(f), &offset))
        return -EOVERFLOW;
    rc = mag_sys_lseek(f->fd, offset, whence);
    if (rc >= 0)
        mag_file_drop_ahead(f);
    return rc;
}

int64_t mag_file_tell(struct mag_file *f)
{
    int64_t rc = mag_sys_lseek(f->fd, 0, SEEK_CUR);

    return rc < 0 ? rc : rc - (int64_t)mag_file_n_ahead(f);
}

bool mag_file_seekable(struct mag_file *f)
{
    return mag_sys_lseek(f->fd, 0, SEEK_CUR) >= 0;
}

bool mag_file_isatty(struct mag_file *f)
{
    return mag_sys_isatty(f->fd);
}

int mag_file_truncate(struct mag_file *f, int64_t length)
{
    struct mag_op op = { .code = MAG_OP_FTRUNCATE, .fd = f->fd, .offset = (uint64_t)length };

    if (length < 0)
        return -EINVAL;
    mag_file_unread(f);
    return mag_op_call(&op);
}

int mag_file_allocate(struct mag_file *f, int flags, int64_t offset, int64_t length)
{
    struct mag_op op = { .code = MAG_OP_FALLOCATE,
                         .fd = f->fd,
                         .flags = (uint32_t)flags,
                         .offset = (uint64_t)offset,
                         .addr = mag_op_number((uint64_t)length) };

    return offset < 0 || length <= 0 ? -EINVAL : mag_op_call(&op);
}

/* The ring's length has 32 bits, and 0 means to the end, which is enough of an advice. */
int mag_file_advise(struct mag_file *f, int64_t offset, int64_t length, int advice)
{
    struct mag_op op = { .code = MAG_OP_FADVISE,
                         .fd = f->fd,
                         .flags = (uint32_t)advice,
                         .offset = (uint64_t)offset,
                         .len = length <= UINT32_MAX ? (uint32_t)length : 0 };

    return offset < 0 || length < 0 ? -EINVAL : mag_op_call(&op);
}

/* ---- stat ----------------------------------------------------------------------- */

static int stat_at(int dirfd, const char *path, int flags, struct mag_file_stat *out)
{
    struct statx stx;
    int rc = mag_op_statx(dirfd, path, flags, STATX_BASIC_STATS, &stx);

    if (rc < 0)
        return rc;
    *out = (struct mag_file_stat){
        .size = stx.stx_size,
        .mode = stx.stx_mode,
        .n_links = stx.stx_nlink,
        .inode = stx.stx_ino,
        .device = makedev(stx.stx_dev_major, stx.stx_dev_minor),
        .modified_ns = stx.stx_mtime.tv_sec * MAG_SECOND + stx.stx_mtime.tv_nsec,
    };
    return 0;
}

int mag_file_stat(struct mag_file *f, struct mag_file_stat *out)
{
    return stat_at(f->fd, "", AT_EMPTY_PATH, out);
}

int mag_stat(const char *path, struct mag_file_stat *out)
{
    return stat_at(AT_FDCWD, path, 0, out);
}

int mag_lstat(const char *path, struct mag_file_stat *out)
{
    return stat_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, out);
}
