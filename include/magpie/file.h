/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_FILE_H
#define MAGPIE_FILE_H
/*
 * file.h - asynchronous files and directory walks
 *
 * Every operation goes through the worker's ring; one whose data is in the page
 * cache may be done on the spot.  A handle belongs to one task at a time.
 */
#include <magpie/base.h>

#ifdef __cplusplus
extern "C" {
#else
#include <stdbool.h>
#endif

/* Bytes with a length; ptr[len] is 0.  Who owns them is said where one is returned. */
struct mag_str {
    char *ptr;
    size_t len;
};

/* An open file; the fields are private.  Its position is the descriptor's own. */
struct mag_file {
    int fd;
    unsigned known; /* what has been learnt about the file */
    char *content;  /* of mag_file_read_all                */
};

struct mag_file_stat {
    uint64_t size; /* bytes                                   */
    uint32_t mode; /* type and permissions, as in stat(2)     */
    uint32_t n_links;
    uint64_t inode, device;
    mag_time modified_ns; /* since 1970, CLOCK_REALTIME              */
};

/*
 * Opens a file; `mode' as in fopen(3): "r", "w", "a", each with "+", and "x"
 * (exclusive); "e" and "b" are accepted, close-on-exec is always set.  -EINVAL for a
 * mode unknown, else as openat(2).  A task may not wait for the other end of a FIFO:
 * io_uring opens as if with O_NONBLOCK where it can.  Suspends; cancellation point (a
 * descriptor that was opened all the same is closed).
 */
MAG_API int mag_file_open(struct mag_file *f, const char *path, const char *mode);

/*
 * Reads at the handle's position and advances it.  Returns the bytes read; of a
 * regular file fewer than n only at its end, or when an error or a cancellation came
 * after some; 0 at the end.  At most 2,147,479,552 bytes a call.  Suspends;
 * cancellation point.
 */
MAG_API int mag_file_read(struct mag_file *f, void *buf, size_t n);

/*
 * Reads at an offset, without the handle's position; otherwise as mag_file_read.
 * -EINVAL for an offset below zero, -ESPIPE for what has none.
 */
MAG_API int mag_file_pread(struct mag_file *f, void *buf, size_t n, int64_t offset);

/*
 * Writes n bytes at the handle's position (or, opened with "a", at the end) and
 * advances it.  Returns n, or fewer when an error or a cancellation came after some
 * bytes.  Suspends; cancellation point.
 */
MAG_API int mag_file_write(struct mag_file *f, const void *buf, size_t n);

/* Writes at an offset, without the handle's position (opened with "a": at the end). */
MAG_API int mag_file_pwrite(struct mag_file *f, const void *buf, size_t n, int64_t offset);

/* fsync(2), or fdatasync(2).  Suspends; cancellation point. */
MAG_API int mag_file_fsync(struct mag_file *f, bool data_only);

/* statx(2) of the open file, or of a path (follows links).  Suspend; cancellation points. */
MAG_API int mag_file_stat(struct mag_file *f, struct mag_file_stat *out);
MAG_API int mag_stat(const char *path, struct mag_file_stat *out);

/*
 * Reads from the position to the end; returns 0.  The bytes belong to the handle and
 * live until its next mag_file_read_all or its close.  -ENOMEM, -EFBIG for more than
 * 2,147,479,552 bytes; after an error the position is anywhere.  Suspends;
 * cancellation point.
 */
MAG_API int mag_file_read_all(struct mag_file *f, struct mag_str *out);

/*
 * Closes the file, frees its content.  Waits for the close(2), also when cancelled.
 * Returns what close(2) said; the handle is closed in any case.  Suspends; not a
 * cancellation point.
 */
MAG_API int mag_file_close(struct mag_file *f);

/* For async_with(mag_file, f, path, mode): mag_file_open and mag_file_close. */
MAG_API int mag_file_enter(struct mag_file *f, const char *path, const char *mode);
MAG_API void mag_file_exit(struct mag_file *f);

/* mag_file_read_all as a coroutine whose value is the content. */
struct mag_file_read_all_co;
MAG_API MAG_MUST_USE struct mag_file_read_all_co *mag_file_read_all_co(struct mag_file *f);

/* ---- walking a directory tree -------------------------------------------------- */

struct mag_walk; /* a walk in progress */

struct mag_walk_entry {
    const char *path; /* root/sub/name; valid until the next mag_walk_next    */
    uint32_t mode;    /* type and permissions, as in lstat(2); 0: not known   */
    uint64_t size;    /* bytes, of a regular file                             */
    int rc;           /* < 0: this directory or entry could not be read       */
};

/*
 * Begins a walk of the tree at `path': first `path' itself, which may also be a
 * file, then what is below it, each directory before its content, the entries of a
 * directory in its own order.  Symbolic links are not followed, except `path'
 * itself.  Directories are read in the offload pool.  A directory whose path is too
 * long for open(2) (4,095 bytes) is an entry with -ENAMETOOLONG.  -ENOMEM.  Never
 * suspends.
 */
MAG_API int mag_walk_open(struct mag_walk **out, const char *path);

/*
 * The next entry: 1; 0 at the end; < 0 and nothing was read: -ECANCELED, or why no
 * thread could be had.  What cannot be read is an entry with .rc < 0, and the walk
 * goes on; so is a directory of which the rest cannot be read, which then comes a
 * second time, after the part that could.  Suspends; cancellation point.
 */
MAG_API int mag_walk_next(struct mag_walk *w, struct mag_walk_entry *out);

/* Ends the walk and frees it; NULL is ignored. */
MAG_API void mag_walk_close(struct mag_walk *w);

#ifdef __cplusplus
}
#endif
#endif
