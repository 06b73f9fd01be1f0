/* SPDX-License-Identifier: MIT */
/*
 * file_whole.c - whole files: reading all, writing all
 *
 * Reading a small file that is cached is four system calls and no suspension: openat2 on the
 * spot, a read into a buffer that is larger than most small files, a read that answers 0, and
 * close (file.c says when which is made on the spot).  The size is asked for only when the
 * buffer is full: an fstat(2) costs more than the empty read, and does not prove the end.
 *
 * Writing is one job of the pool.  In the ring it would be three operations, each of them
 * (open with O_CREAT, a buffered write on ext4, close) sent to a thread of the kernel's and
 * back.  Only a small file in memory is written on the spot (file_memory.c).
 *
 * Invariants
 *   1. The content of an error is freed.
 *   2. A file that would block (a FIFO, say) blocks no thread: it is opened with O_NONBLOCK,
 *      and what answers -EAGAIN is written by the task.
 *
 * Who may call: anybody.
 *
 * Rejected
 *   - "short, and not at a page boundary, is the end" instead of the second read: 4 to 10 %
 *     faster, and true only of file systems that use the page cache as ext4 does;
 *   - a chain of linked operations (open, read, close) in the ring: 290 thousand files a second
 *     where this reaches 900 on the same machine, because io_uring runs all of it in one thread.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file_handle.h"

#include "file_memory.h"
#include "mem.h"
#include "op.h"
#include "sys_file.h"
#include "sys_process.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <magpie/net.h>
#include <magpie/task.h>
#include <string.h>

enum {
    FIRST_BYTES = 8 * 1024 - 32, /* a malloc of 8 KiB */
    SPARE_BYTES = 128,           /* that are not worth a realloc */
    SPOT_BYTES = 64 * 1024,      /* most that are written without the pool */
};

void mag_str_free(struct mag_str *s)
{
    mag_mem_free(s->ptr);
    *s = (struct mag_str){ 0 };
}

/* ---- reading -------------------------------------------------------------------------- */

struct content {
    char *ptr; /* room + 1 bytes */
    size_t len, room;
    size_t most; /* the limit, and one byte that shows that there is more */
};

static int content_resize(struct content *c, size_t room)
{
    char *ptr = mag_mem_realloc(c->ptr, room + 1);

    if (!ptr)
        return -ENOMEM;
    c->ptr = ptr;
    c->room = room;
    return 0;
}

/* More room: for the whole file and one byte, so that its end is met, or twice as much. */
static int content_grow(struct content *c, struct mag_file *f)
{
    size_t room = c->room ? c->room * 2 : FIRST_BYTES;
    uint64_t size = 0;

    if (c->room && mag_file_is_regular(f, &size) && size >= room)
        room = size < c->most ? (size_t)size + 1 : c->most;
    return content_resize(c, room < c->most ? room : c->most);
}

/* Up to the end: 0; an error leaves what is to be freed. */
static int content_fill(struct content *c, struct mag_file *f)
{
    for (;;) {
        int rc = c->len < c->room ? 0 : content_grow(c, f);

        if (rc < 0)
            return rc;
        rc = mag_file_read_some(f, c->ptr + c->len, c->room - c->len, MAG_OP_HERE);
        if (rc <= 0)
            return rc;
        c->len += (size_t)rc;
        if (c->len == c->most)
            return -EFBIG;
    }
}

static int content_read(struct mag_file *f, struct mag_str *out, size_t limit)
{
    bool is_limited = limit && limit < MAG_OP_BYTES_MAX;
    struct content c = { .most = (is_limited ? limit : MAG_OP_BYTES_MAX) + 1 };
    size_t n_ahead = mag_file_n_ahead(f);
    int rc = n_ahead ? content_resize(&c, n_ahead < c.most ? n_ahead : c.most) : 0;

    if (rc == 0 && n_ahead)
        c.len = mag_file_take_ahead(f, c.ptr, c.room);
    if (rc == 0)
        rc = c.len < c.most ? content_fill(&c, f) : -EFBIG;
    if (rc == 0 && c.room - c.len > c.len / 8 + SPARE_BYTES)
        (void)content_resize(&c, c.len); /* less is always to be had, or the old one stays */
    if (rc < 0) {
        mag_mem_free(c.ptr);
        return rc;
    }
    c.ptr[c.len] = '\0';
    *out = (struct mag_str){ .ptr = c.ptr, .len = c.len };
    return 0;
}

int mag_file_read_all(struct mag_file *f, struct mag_str *out)
{
    int rc;

    *out = (struct mag_str){ 0 };
    mag_mem_free(f->content);
    f->content = NULL;
    rc = content_read(f, out, 0);
    f->content = out->ptr;
    return rc;
}

int mag_read_file(const char *path, struct mag_str *out, size_t limit)
{
    struct mag_file f;
    int rc = mag_file_open_lazily(&f, path);

    *out = (struct mag_str){ 0 };
    if (rc < 0)
        return rc;
    rc = content_read(&f, out, limit);
    (void)mag_file_close(&f); /* which says nothing of what was read */
    return rc;
}

/* ---- ... as a coroutine ------------------------------------------------------------------- */

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

/* ---- writing ---------------------------------------------------------------------------- */

struct writing {
    const char *path;
    const char *buf;
    size_t n, done;
    unsigned mode;
    int fd;          /* left open for the task, or -1 */
    bool is_regular; /* known to be: there is no SIGPIPE */
};

static int open_for_writing(const struct writing *w)
{
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int rc;

    do
        rc = mag_sys_openat(AT_FDCWD, w->path, flags, (mode_t)w->mode);
    while (rc == -EINTR);
    return rc;
}

static ssize_t write_some(const struct writing *w, int fd, size_t n)
{
    const char *from = w->buf + w->done;

    return w->is_regular ? mag_sys_write(fd, from, n) : mag_sys_write_quiet(fd, from, n);
}

static int write_bytes(struct writing *w, int fd)
{
    while (w->done < w->n) {
        size_t left = w->n - w->done;
        ssize_t rc = write_some(w, fd, left < MAG_OP_BYTES_MAX ? left : MAG_OP_BYTES_MAX);

        if (rc <= 0 && rc != -EINTR)
            return rc < 0 ? (int)rc : -EIO;
        w->done += rc > 0 ? (size_t)rc : 0;
    }
    return 0;
}

static int write_and_close(struct writing *w, int fd)
{
    int rc = write_bytes(w, fd), closed;

    if (rc == -EAGAIN) {
        w->fd = fd;
        return 0;
    }
    closed = mag_sys_close(fd); /* a quota or a full network disk is known only here */
    return rc < 0 ? rc : closed;
}

/* In the pool. */
static int write_job(void *arg)
{
    struct writing *w = arg;
    int fd = open_for_writing(w);

    if (fd < 0)
        return fd;
    mag_memory_learn(fd);
    return write_and_close(w, fd);
}

/* In the task itself, if it is little and for a file in memory. */
static int write_in_memory(struct writing *w)
{
    int rc = mag_wait_checkpoint();

    if (rc < 0)
        return rc;
    rc = mag_memory_create(w->path, w->mode);
    w->is_regular = rc >= 0;
    return rc < 0 ? rc : write_and_close(w, rc);
}

int mag_write_file(const char *path, const void *buf, size_t n, unsigned mode)
{
    struct writing w = { .path = path, .buf = buf, .n = n, .mode = mode, .fd = -1 };
    bool is_little = n <= SPOT_BYTES && mag_wait_in_task();
    int rc = is_little ? write_in_memory(&w) : -EAGAIN;

    if (rc == -EAGAIN)
        rc = mag_wait_job(MAG_LANE_FILES, write_job, &w);
    if (MAG_UNLIKELY(w.fd >= 0)) {
        rc = mag_write_all(w.fd, w.buf + w.done, w.n - w.done, NULL);
        (void)mag_op_close(w.fd);
    }
    return rc;
}
