/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_FILE_H
#define MAGPIE_FILE_H
/*
 * file.h - asynchronous files, and walks of directory trees
 *
 *      async_with(mag_file, f, "words", "r")
 *          async_for(struct mag_str, line, mag_file_lines(f))
 *              fwrite(line.ptr, 1, line.len, stdout);
 *
 *      struct mag_str text;
 *      await(mag_read_file("words", &text, 0));        a whole file at once
 *      ...
 *      mag_str_free(&text);
 *
 * Where it is done: what the kernel has in memory (a path whose parts are cached, pages of
 * the page cache, files of tmpfs) is taken on the spot, at the price of the system call; what
 * may have to wait goes through the worker's ring; what io_uring has not, or would give to a
 * thread of its own for each step, is one job of the offload pool.  A worker never waits for a
 * disk, unless memory is swapped out, its own or that of tmpfs.
 *
 * A handle belongs to one task at a time.  Outside a task every function blocks the calling
 * thread.  Names, directories and copies are in <magpie/dir.h>.
 */
#include <magpie/base.h>
#include <magpie/iter.h>

#include <sys/uio.h>

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

/* Frees bytes that are the caller's (mag_read_file), and empties *s.  Any thread. */
MAG_API void mag_str_free(struct mag_str *s);

struct mag_file_ahead; /* what was read of a file beyond what its reader has got */

/* An open file; the fields but fd are private.  Its position is the descriptor's own. */
struct mag_file {
    int fd;
    unsigned known;               /* what has been learnt about the file */
    char *content;                /* of mag_file_read_all                */
    struct mag_file_ahead *ahead; /* of mag_file_readline, or NULL       */
};

struct mag_file_stat {
    uint64_t size; /* bytes                                   */
    uint32_t mode; /* type and permissions, as in stat(2)     */
    uint32_t n_links;
    uint64_t inode, device;
    mag_time modified_ns; /* since 1970, CLOCK_REALTIME              */
};

/* ---- open and close ---------------------------------------------------------------- */

/*
 * Opens a file; `mode' as in fopen(3): "r", "w", "a", each with "+", and "x"
 * (exclusive), "d" (O_DIRECT: past the page cache; buffer, length and offset must be
 * aligned as open(2) says); "e" and "b" are accepted, close-on-exec is always set.
 * -EINVAL for a mode unknown, else as openat(2).  A task may not wait for the other end
 * of a FIFO: it is opened as if with O_NONBLOCK where that can be.  Suspends;
 * cancellation point (a descriptor that was opened all the same is closed).
 */
MAG_API int mag_file_open(struct mag_file *f, const char *path, const char *mode);

/*
 * A handle for a descriptor that is open already, of whatever kind, blocking or not; its
 * flags are left alone.  The handle owns it from now on: mag_file_close closes it.  0, or
 * -EBADF, and it is still the caller's.  Never suspends.
 */
MAG_API int mag_file_from_fd(struct mag_file *f, int fd);

/*
 * Gives the descriptor back, which is the caller's from now on, and ends the handle.
 * What mag_file_readline has read ahead is unread first, where there are positions, and
 * lost elsewhere.  The descriptor, or -EBADF.  Never suspends.
 */
MAG_API int mag_file_detach(struct mag_file *f);

/* The descriptor, which stays the handle's; -EBADF if it is closed.  Never suspends. */
MAG_API int mag_file_fileno(const struct mag_file *f);

/*
 * Standard input, output and error: a terminal, a pipe or a file.  The handle borrows the
 * descriptor, which mag_file_close leaves open; O_NONBLOCK, which other processes share, is
 * neither changed nor minded; a reader waits in the ring and occupies no thread.
 * 0, or -EBADF if it is closed.  Never suspend.
 */
MAG_API int mag_stdin(struct mag_file *f);
MAG_API int mag_stdout(struct mag_file *f);
MAG_API int mag_stderr(struct mag_file *f);

/* ---- reading and writing ----------------------------------------------------------- */

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

/*
 * Writes all n bytes, as mag_file_write: 0.  Or -errno; `done' (may be NULL) is in every
 * case how many bytes went.  Suspends; cancellation point.
 */
MAG_API int mag_file_write_all(struct mag_file *f, const void *buf, size_t n, size_t *done);

/*
 * readv(2), writev(2), preadv(2), pwritev(2): the count, which may be short; 0 from a read
 * is the end.  The vector is lent until the call returns.  -EINVAL for more than 1024 parts
 * or an offset below 0.  Suspend; cancellation points.
 */
MAG_API int mag_file_readv(struct mag_file *f, const struct iovec *iov, int n_iov);
MAG_API int mag_file_writev(struct mag_file *f, const struct iovec *iov, int n_iov);
MAG_API int mag_file_preadv(struct mag_file *f, const struct iovec *iov, int n_iov, int64_t offset);
MAG_API int mag_file_pwritev(struct mag_file *f, const struct iovec *iov, int n_iov,
                             int64_t offset);

/*
 * The next line, with its '\n'; the last one may have none.  Its length; 0 at the end, and
 * out->len is then 0.  The bytes are the handle's, until its next call.  -EMSGSIZE: there
 * are more than the limit (65,536 bytes, or mag_file_set_limit's) before the '\n'; nothing
 * is consumed then, mag_file_read gets them.  -ENOMEM.  Suspends; cancellation point: a
 * cancelled call can be repeated, and misses nothing.
 *
 * It reads ahead.  mag_file_read and mag_file_read_all go on where the lines ended; so does
 * a write, for which the position is set back (not in what has no positions, where what was
 * read ahead stays to be read).
 */
MAG_API int mag_file_readline(struct mag_file *f, struct mag_str *out);

/*
 * The lines, for async_for(struct mag_str, line, mag_file_lines(f)), without their '\n' or
 * "\r\n"; a loop that is left early leaves the rest to be read.  Errors, suspension and
 * whose the bytes are as mag_file_readline.  Never suspends itself.
 */
MAG_API struct mag_iter mag_file_lines(struct mag_file *f);

/* The bytes that a line may have; 0: 65,536.  -EINVAL for more than 1 GiB; -ENOMEM.  Never
 * suspends. */
MAG_API int mag_file_set_limit(struct mag_file *f, size_t limit);

/* ---- position, length, advice ------------------------------------------------------ */

/*
 * lseek(2) with SEEK_SET, SEEK_CUR or SEEK_END: the new position.  Drops what was read
 * ahead.  -ESPIPE for what has no positions, -EINVAL.  _tell: the position of the reader,
 * that is without what was read ahead.  Never suspend, and are no int: not for await.
 */
MAG_API int64_t mag_file_seek(struct mag_file *f, int64_t offset, int whence);
MAG_API int64_t mag_file_tell(struct mag_file *f);

/* Whether it has positions; whether it is a terminal.  Never suspend. */
MAG_API bool mag_file_seekable(struct mag_file *f);
MAG_API bool mag_file_isatty(struct mag_file *f);

/* ftruncate(2); the position stays.  Suspends; cancellation point. */
MAG_API int mag_file_truncate(struct mag_file *f, int64_t length);

/* fallocate(2) with flags FALLOC_FL_*, posix_fadvise(2) with POSIX_FADV_*.  Suspend;
 * cancellation points. */
MAG_API int mag_file_allocate(struct mag_file *f, int flags, int64_t offset, int64_t length);
MAG_API int mag_file_advise(struct mag_file *f, int64_t offset, int64_t length, int advice);

/* fsync(2), or fdatasync(2).  Suspends; cancellation point. */
MAG_API int mag_file_fsync(struct mag_file *f, bool data_only);

/* statx(2) of the open file, or of a path (follows links).  Suspend; cancellation points. */
MAG_API int mag_file_stat(struct mag_file *f, struct mag_file_stat *out);
MAG_API int mag_stat(const char *path, struct mag_file_stat *out);

/* ---- whole files ------------------------------------------------------------------- */

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

/*
 * Reads a whole file: 0, and the bytes are the caller's (mag_str_free).  `limit': the bytes
 * it may have; 0: 2,147,479,552.  -EFBIG if there are more, -ENOMEM, else as mag_file_open
 * and mag_file_read; *out is then empty.  The fastest way to read a small file: three or
 * four system calls on the spot if it is cached.  Suspends; cancellation point.
 */
MAG_API int mag_read_file(const char *path, struct mag_str *out, size_t limit);

/*
 * Makes the file, or empties it, and writes n bytes: 0 or -errno.  `mode' is for a file
 * that is made (umask(2) applies).  After an error it may have some of the bytes;
 * mag_replace_file is all or nothing.  Suspends; cancellation point, which loses nothing:
 * once it has begun it is carried out, and returns what it returns.  A job of the pool; but
 * up to 64 KiB are written on the spot where an earlier call has found the file system to be
 * memory (tmpfs, Linux 6.8), unless they replace more than 1 MiB.
 */
MAG_API int mag_write_file(const char *path, const void *buf, size_t n, unsigned mode);

/* ---- atomic replacement ------------------------------------------------------------- */

/*
 * As mag_write_file, but who opens the path sees the old content or the new one, all of it,
 * also after a crash: a temporary file beside it is written, synced, and renamed.  The
 * temporary file is removed after an error.  A symbolic link is replaced itself.
 */
MAG_API int mag_replace_file(const char *path, const void *buf, size_t n, unsigned mode);

/*
 * The same for a file that is written piece by piece:
 *
 *      async_with(mag_replacing, r, path, 0644) {
 *          await(mag_file_write_all(&r->file, text, n, NULL));
 *          await(mag_replacing_commit(r));
 *      }
 *
 * Without the commit the exit removes it, and the old file stays.
 */
struct mag_replacing {
    struct mag_file file; /* to be written */
    char *private_path, *private_temp;
};

/* Makes the temporary file: 0 or -errno (also -ENAMETOOLONG, -ENOMEM).  Suspends;
 * cancellation point. */
MAG_API int mag_replacing_enter(struct mag_replacing *r, const char *path, unsigned mode);

/*
 * Syncs the file, renames it to the path, syncs the directory, and closes it: 0.  After
 * -errno the old file is still there, unless only the last sync has failed.  Once; then
 * -EALREADY.  Suspends; cancellation point before it begins.
 */
MAG_API int mag_replacing_commit(struct mag_replacing *r);

/* Removes it if it was not committed.  Suspends. */
MAG_API void mag_replacing_exit(struct mag_replacing *r);

/* ---- temporary files ----------------------------------------------------------------- */

/*
 * A file that is removed at the exit of its scope:
 *
 *      async_with(mag_temp_file, t, NULL)
 *          await(mag_file_write_all(&t->file, text, n, NULL));
 */
struct mag_temp_file {
    struct mag_file file; /* open for reading and writing, mode 0600 */
    char *path;           /* NULL: it has no name */
};

/*
 * `prefix' NULL: a file without a name, in TMPDIR or /tmp, of which nothing is left even
 * after a crash.  Otherwise its name is the prefix and 12 letters and digits; a prefix
 * without a slash is put in TMPDIR or /tmp.  0 or -errno (also -ENAMETOOLONG, -ENOMEM).
 * Suspends; cancellation point.
 */
MAG_API int mag_temp_file_enter(struct mag_temp_file *t, const char *prefix);

/* Closes it and removes its name, if that is still there.  Suspends. */
MAG_API void mag_temp_file_exit(struct mag_temp_file *t);

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
