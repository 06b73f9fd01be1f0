/* SPDX-License-Identifier: MIT */
/*
 * file.c - asynchronous files
 *
 * Most reads find their data in the page cache, where a system call takes less time
 * than a trip through the ring and back; the others must not hold up a worker.  So
 * a task's read asks twice:
 *
 *      preadv2(RWF_NOWAIT) --- bytes, or the end -----------------> done
 *          |         |
 *          |         +-- -EOPNOTSUPP: remembered, never asked again --+
 *          +-- -EAGAIN: not cached ----------------------------------+|
 *                                                                    vv
 *                                         the ring: suspend until the data is there
 *
 * The on-the-spot part is a cancellation point like the other, and no longer than
 * SPOT_BYTES, so that a reader of cached files is stopped and overtaken as often as
 * anybody else.
 *
 * The position is the descriptor's own, in the kernel: pipes and terminals, which
 * have none, then need no code of their own.
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
 *     and closed, and only a read that comes short needs it.
 *
 * The one system call made on the spot that could wait is that fstat(2): it answers
 * from the inode in memory, except on a network file system.
 *
 * Sources: preadv2(2); fopen(3) for the modes; figures.md, "4 KiB random reads".
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <magpie/file.h>
#include <magpie/task.h>

#include "mem.h"
#include "misuse.h"
#include "op.h"
#include "sys.h"
#include "unclosed.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

enum {
    SPOT_BYTES = 1024 * 1024, /* longest read that is done without the ring */
    GROW_BYTES = 4096,        /* first content of a file that tells no size */
    CREATE_MODE = 0666,
};

/* mag_file.known */
enum {
    KNOWN_TYPE = 1,    /* fstat(2) was asked */
    KNOWN_REGULAR = 2, /* ... and said so */
    KNOWN_NO_SPOT = 4, /* RWF_NOWAIT is refused */
    KNOWN_SEEKABLE = 8,
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
    if (mode[strspn(mode, "+xbe")] != '\0')
        return -EINVAL;
    if (strchr(mode, 'x') && !(flags & O_CREAT))
        return -EINVAL;
    return strchr(mode, 'x') ? flags | O_EXCL : flags;
}

static int open_noted(struct mag_file *f, const char *path, const char *mode, const void *caller)
{
    int flags = flags_of(mode);
    int rc = flags < 0 ? flags : mag_op_open(AT_FDCWD, path, flags, CREATE_MODE);
    const struct mag_rt *rt = mag_rt_self();

    *f = (struct mag_file){ .fd = rc < 0 ? -1 : rc };
    if (rc >= 0 && MAG_UNLIKELY(mag_debug() || (rt && rt->is_debug)))
        mag_unclosed_add(rc, "file", path, rt, caller);
    return rc < 0 ? rc : 0;
}

int mag_file_open(struct mag_file *f, const char *path, const char *mode)
{
    return open_noted(f, path, mode, __builtin_return_address(0));
}

int mag_file_close(struct mag_file *f)
{
    int fd = f->fd;

    mag_mem_free(f->content);
    *f = (struct mag_file){ .fd = -1 };
    if (fd < 0)
        return -EBADF;
    mag_unclosed_remove(fd); /* before the number can be another file's */
    return mag_op_close(fd);
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

/* Learns the type once.  The size, for who wants it, is 0 where there is none. */
static bool is_regular(struct mag_file *f, uint64_t *size)
{
    struct stat st;

    if (size)
        *size = 0;
    if ((f->known & KNOWN_TYPE) && (!size || !(f->known & KNOWN_REGULAR)))
        return f->known & KNOWN_REGULAR;
    f->known |= KNOWN_TYPE;
    if (mag_sys_fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    f->known |= KNOWN_REGULAR;
    if (size)
        *size = (uint64_t)st.st_size;
    return true;
}

/* One transfer, by the way that costs least. */
static int read_some(struct mag_file *f, char *buf, size_t n, int64_t offset)
{
    int rc;

    if (!mag_wait_in_task() || (f->known & KNOWN_NO_SPOT))
        return mag_op_read(f->fd, buf, n, offset);
    rc = mag_op_read_cached(f->fd, buf, n < SPOT_BYTES ? n : SPOT_BYTES, offset);
    if (rc == -EOPNOTSUPP)
        f->known |= KNOWN_NO_SPOT;
    if (rc == -EOPNOTSUPP || rc == -EAGAIN)
        rc = mag_op_read(f->fd, buf, n, offset);
    return rc;
}

/* Goes on after a short transfer if, and only if, the file is a regular one. */
static int read_at(struct mag_file *f, char *buf, size_t n, int64_t offset)
{
    size_t done = 0;
    int rc;

    if (n > MAG_OP_BYTES_MAX)
        n = MAG_OP_BYTES_MAX;
    do {
        rc = read_some(f, buf + done, n - done, offset);
        if (rc <= 0)
            return done ? (int)done : rc;
        done += (size_t)rc;
        if (offset != MAG_OP_HERE)
            offset += rc;
    } while (done < n && is_regular(f, NULL));
    return (int)done;
}

int mag_file_read(struct mag_file *f, void *buf, size_t n)
{
    return read_at(f, buf, n, MAG_OP_HERE);
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
    if (f->known & KNOWN_SEEKABLE)
        return 0;
    if (mag_sys_preadv2(f->fd, &none, 1, 0, 0) == -ESPIPE)
        return -ESPIPE;
    f->known |= KNOWN_SEEKABLE;
    return 0;
}

int mag_file_pread(struct mag_file *f, void *buf, size_t n, int64_t offset)
{
    int rc = check_offset(f, offset);

    return rc < 0 ? rc : read_at(f, buf, n, offset);
}

/* ---- writing -------------------------------------------------------------------- */

int mag_file_write(struct mag_file *f, const void *buf, size_t n)
{
    return mag_op_write(f->fd, buf, n, MAG_OP_HERE);
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

/* ---- the whole content ---------------------------------------------------------- */

/* Bytes to begin with: the file and one more, so that one read meets its end. */
static size_t content_hint(struct mag_file *f)
{
    uint64_t size;

    if (!is_regular(f, &size) || size < GROW_BYTES)
        return GROW_BYTES;
    return size < MAG_OP_BYTES_MAX ? (size_t)size + 1 : MAG_OP_BYTES_MAX + 1;
}

/* Makes room for `bytes' and the terminating 0. */
static int content_grow(struct mag_file *f, size_t bytes)
{
    char *content = mag_mem_realloc(f->content, bytes + 1);

    if (!content)
        return -ENOMEM;
    f->content = content;
    return 0;
}

static int content_read(struct mag_file *f, size_t *len)
{
    size_t room = content_hint(f);
    int rc = content_grow(f, room);

    while (rc == 0) {
        rc = mag_file_read(f, f->content + *len, room - *len);
        if (rc <= 0)
            return rc;
        *len += (size_t)rc;
        if (*len > MAG_OP_BYTES_MAX)
            return -EFBIG;
        rc = 0;
        if (*len == room) {
            room = room < MAG_OP_BYTES_MAX / 2 ? room * 2 : MAG_OP_BYTES_MAX + 1;
            rc = content_grow(f, room);
        }
    }
    return rc;
}

int mag_file_read_all(struct mag_file *f, struct mag_str *out)
{
    size_t len = 0;
    int rc;

    *out = (struct mag_str){ 0 };
    mag_mem_free(f->content);
    f->content = NULL;
    rc = content_read(f, &len);
    if (rc < 0) {
        mag_mem_free(f->content);
        f->content = NULL;
        return rc;
    }
    f->content[len] = '\0';
    *out = (struct mag_str){ .ptr = f->content, .len = len };
    return 0;
}

/* The frame of the coroutine; who awaits it looks for the value at its beginning. */
struct mag_file_read_all_co {
    struct mag_str value;
    struct mag_file *file;
};

static int read_all_body(void *frame, void *result)
{
    struct mag_file_read_all_co *co = frame;

    return mag_file_read_all(co->file, result);
}

static const struct mag_co_type read_all_type = {
    .name = "mag_file_read_all_co",
    .body = read_all_body,
    .frame_bytes = sizeof(struct mag_file_read_all_co),
    .result_offset = offsetof(struct mag_file_read_all_co, value),
    .result_bytes = sizeof(struct mag_str),
    .defined = { .file = __FILE__, .line = __LINE__, .function = "mag_file_read_all_co" },
};

struct mag_file_read_all_co *mag_file_read_all_co(struct mag_file *f)
{
    struct mag_file_read_all_co *co = mag_co_new(&read_all_type, __builtin_return_address(0));

    if (co)
        co->file = f;
    return co;
}
