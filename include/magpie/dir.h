/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_DIR_H
#define MAGPIE_DIR_H
/*
 * dir.h - names, directories, copies
 *
 *      async_for(struct mag_dir_entry, e, mag_dir_entries("/etc"))
 *          puts(e.name);
 *
 * What the ring has (rename, link, unlink, mkdir) goes through it, the rest is a job of the
 * offload pool.  All answer 0 or a count, or -errno as the system call of that name; paths
 * are lent until the call returns.  All suspend and are cancellation points: -ECANCELED says
 * that nothing was done, where nothing else is said; what has begun is carried out.
 */
#include <magpie/file.h>
#include <magpie/iter.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- names ---------------------------------------------------------------------------- */

/* mkdir(2), rmdir(2), unlink(2), link(2), symlink(2) (which says `target'). */
MAG_API int mag_mkdir(const char *path, unsigned mode);
MAG_API int mag_rmdir(const char *path);
MAG_API int mag_unlink(const char *path);
MAG_API int mag_link(const char *path, const char *new_path);
MAG_API int mag_symlink(const char *target, const char *path);

/* rename(2): a file that `to' names already is replaced.  _new: -EEXIST then
 * (renameat2(2), RENAME_NOREPLACE). */
MAG_API int mag_rename(const char *from, const char *to);
MAG_API int mag_rename_new(const char *from, const char *to);

/*
 * Makes a directory and those above it that are missing, as mkdir -p: 0 also if it is there
 * already, -ENOTDIR if something else is.  A cancel or an error may leave some of them.
 */
MAG_API int mag_makedirs(const char *path, unsigned mode);

/* Removes a directory, and those above it as far as they become empty (not those of a
 * path's leading "/" or "."); only the first failure counts. */
MAG_API int mag_removedirs(const char *path);

/* What a symbolic link says, with a 0 at the end: its length.  -ENAMETOOLONG if `room', in
 * bytes, is too small; -EINVAL if it is no link. */
MAG_API int mag_readlink(const char *path, char *buf, size_t room);

/* chmod(2).  access(2) with R_OK, W_OK, X_OK or F_OK, for the effective user: 0 or why not. */
MAG_API int mag_chmod(const char *path, unsigned mode);
MAG_API int mag_access(const char *path, int how);

/* 1 if the path leads to something, 0 if not, < 0 if that cannot be known (-EACCES). */
MAG_API int mag_exists(const char *path);

/* mag_stat that does not follow a symbolic link at the end. */
MAG_API int mag_lstat(const char *path, struct mag_file_stat *out);

/* A file system, statvfs(3); bytes. */
struct mag_volume {
    uint64_t size, free, available; /* available: to who is not root */
    uint64_t n_files, n_files_free;
};
MAG_API int mag_statvfs(const char *path, struct mag_volume *out);

/* ---- listing ---------------------------------------------------------------------------- */

struct mag_dir; /* a directory that is being read */

struct mag_dir_entry {
    const char *name; /* valid until the next mag_dir_next                            */
    size_t len;       /* of it                                                        */
    uint32_t type;    /* S_IFREG, S_IFDIR, S_IFLNK, ...; 0: the file system does not tell */
    uint64_t inode;
};

/* Opens a directory; one task at a time may use it.  -ENOMEM. */
MAG_API int mag_dir_open(struct mag_dir **out, const char *path);

/*
 * The next entry but "." and "..", in the directory's own order: 1; 0 at the end.  They are
 * read in batches of 32 KiB, in the offload pool; only a call that needs the next batch
 * suspends.  A cancelled call can be repeated.
 */
MAG_API int mag_dir_next(struct mag_dir *d, struct mag_dir_entry *out);

/* Closes and frees it; NULL is ignored.  Never suspends. */
MAG_API void mag_dir_close(struct mag_dir *d);

/*
 * For async_for(struct mag_dir_entry, e, mag_dir_entries(path)): opens the directory at the
 * first item, and closes it where the loop is left.  An error of the open is the loop's.
 * `path' is lent until then.  Never suspends itself.
 */
MAG_API struct mag_iter mag_dir_entries(const char *path);

/* ---- trees ----------------------------------------------------------------------------------- */

/*
 * Removes what the path names, and if that is a directory all that is in it.  Follows no
 * symbolic link, also not one that somebody puts there meanwhile; needs two descriptors.  0;
 * -ENOENT if there is nothing; or the first error, and the rest is left.  A cancellation
 * point now and then: the rest is left.
 */
MAG_API int mag_remove_tree(const char *path);

/*
 * A directory that is removed with everything in it at the exit of its scope:
 *
 *      async_with(mag_temp_dir, d, "build-")
 *          ... d->path ...
 */
struct mag_temp_dir {
    char *path;
};

/* Its name is the prefix (NULL: "magpie-") and 12 letters and digits, mode 0700; a prefix
 * without a slash is put in TMPDIR or /tmp.  0 or -errno (also -ENAMETOOLONG, -ENOMEM). */
MAG_API int mag_temp_dir_enter(struct mag_temp_dir *d, const char *prefix);
MAG_API void mag_temp_dir_exit(struct mag_temp_dir *d);

/* ---- copies --------------------------------------------------------------------------------- */

struct mag_copy_options {
    /* Called in the task after each piece with the bytes so far and in all (0: not known);
     * what it returns < 0 ends the copy with that error. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    bool exclusive; /* -EEXIST if `to' is there already */
};

/*
 * Copies a file's content and its permissions: 0.  By copy_file_range(2), which shares the
 * blocks where the file system can, else by reading and writing; `to' is made, or emptied
 * and filled; symbolic links are followed.  options may be NULL.  -EINVAL if both are one
 * file.  A cancellation point every 8 MiB.  If it fails or is cancelled, a file that it made
 * is removed, and one that was there has what was copied so far.
 */
MAG_API int mag_copy_file(const char *from, const char *to, const struct mag_copy_options *options);

/* Renames a file, or, to another file system, copies it, beside `to', and removes the old
 * one: 0.  Directories only within a file system (-EXDEV).  Cancelled: either name is whole. */
MAG_API int mag_move(const char *from, const char *to);

/*
 * Sends n bytes of a file to a socket, a pipe or anything that can be written, from
 * *offset (advanced by what was sent), or with NULL from the descriptor's position.  Returns
 * the bytes sent: fewer than n (at most 2,147,479,552) only at the file's end, or when an
 * error or a cancellation came after some.  Pages in the cache are taken on the spot.
 * -EPIPE raises no signal.
 */
MAG_API int mag_sendfile(int out_fd, int in_fd, int64_t *offset, size_t n);

#ifdef __cplusplus
}
#endif
#endif
