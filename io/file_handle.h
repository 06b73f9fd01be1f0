/* SPDX-License-Identifier: MIT */
#ifndef MAG_FILE_HANDLE_H
#define MAG_FILE_HANDLE_H
/*
 * file_handle.h - what the parts of the file code know of a handle
 *
 * file.c opens, reads and writes; file_lines.c has the bytes that were read ahead.  Owner: the
 * task that uses the handle.
 */
#include "base.h"

#include <magpie/file.h>

/* mag_file.known */
enum {
    MAG_FILE_TYPE = 1,       /* fstat(2) was asked */
    MAG_FILE_REGULAR = 2,    /* ... and said so */
    MAG_FILE_NO_SPOT = 4,    /* RWF_NOWAIT is refused, or would wait (O_DIRECT) */
    MAG_FILE_SEEKABLE = 8,   /* bytes have offsets */
    MAG_FILE_BORROWED = 16,  /* the descriptor stays open */
    MAG_FILE_CACHED = 32,    /* was opened from the kernel's caches, for reading */
    MAG_FILE_QUICK = 64,     /* ... and read from there: so its close does not wait */
    MAG_FILE_NONBLOCK = 128, /* has an O_NONBLOCK of ours, to be taken off if it matters */
    MAG_FILE_ASKED = 256,    /* whether it lies in memory */
    MAG_FILE_MEMORY = 512,   /* ... and it does: no disk is waited for */
};

enum {
    MAG_FILE_CREATE_MODE = 0666,
    MAG_FILE_PATH_MAX = 4096, /* bytes of a path, the 0 included */
};

/* Opens for reading; O_NONBLOCK may stay on (MAG_FILE_NONBLOCK) for who reads only here. */
int mag_file_open_lazily(struct mag_file *f, const char *path);

/* One read, by the way that costs least; may come short.  Not of what was read ahead. */
int mag_file_read_some(struct mag_file *f, char *buf, size_t n, int64_t offset);

/* Learns the type once.  The size, for who wants it, is 0 where there is none. */
bool mag_file_is_regular(struct mag_file *f, uint64_t *size);

/* ---- file_lines.c ------------------------------------------------------------------ */

/* Moves up to n bytes that were read ahead into buf; how many. */
size_t mag_file_take_ahead(struct mag_file *f, void *buf, size_t n);

/* Sets the position back to what the reader has got, where there are positions: then
 * nothing is ahead any more. */
void mag_file_unread(struct mag_file *f);

/* How many bytes are ahead; forgets them. */
size_t mag_file_n_ahead(const struct mag_file *f);
void mag_file_drop_ahead(struct mag_file *f);

#endif
