/* SPDX-License-Identifier: MIT */
/*
 * file_lines.c - the lines of a file
 *
 *      bytes:  | given |   the next lines   | part of one |  to be read  |
 *              0       begin                             end           room
 *
 * A read fetches what the buffer has room for, and lines are handed out where they are, with
 * a 0 behind them; the byte that stood there is kept in `under' and put back by the next
 * call.  Only when the buffer is full is what is left moved to its beginning, and if that
 * is all one line, the buffer is doubled, up to the limit.
 *
 * The descriptor's position is that of `end'.  Who is at `begin' has to be told apart: file.c
 * asks here before it reads, writes or seeks.
 *
 * Invariants
 *   1. begin <= end <= room <= limit + 1; the byte at `room' exists, for the 0.
 *   2. `begin' moves only when a line is complete, so a call that failed, or was cancelled,
 *      can be repeated.
 *
 * Who may call: the task that has the handle.
 *
 * Rejected: a copy of each line (a malloc a line; the caller can do that); getline(3)'s
 * unlimited line, which makes one bad file the end of a server.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file_handle.h"

#include "mem.h"
#include "op.h"
#include "sys_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    FIRST_BYTES = 16 * 1024,
    LIMIT_DEFAULT = 64 * 1024,
    LIMIT_MAX = 1024 * 1024 * 1024,
};

struct mag_file_ahead {
    size_t begin, end, room;
    size_t limit;
    bool is_cut; /* bytes[begin] is 0 for the caller; it was `under' */
    char under;
    char bytes[]; /* room + 1 */
};

size_t mag_file_n_ahead(const struct mag_file *f)
{
    return f->ahead ? f->ahead->end - f->ahead->begin : 0;
}

void mag_file_drop_ahead(struct mag_file *f)
{
    if (!f->ahead)
        return;
    f->ahead->begin = f->ahead->end = 0;
    f->ahead->is_cut = false;
}

void mag_file_unread(struct mag_file *f)
{
    size_t n = mag_file_n_ahead(f);

    if (n && mag_sys_lseek(f->fd, -(off_t)n, SEEK_CUR) >= 0)
        mag_file_drop_ahead(f);
}

/* Takes the caller's 0 away. */
static void mend(struct mag_file_ahead *a)
{
    if (a->is_cut)
        a->bytes[a->begin] = a->under;
    a->is_cut = false;
}

size_t mag_file_take_ahead(struct mag_file *f, void *buf, size_t n)
{
    struct mag_file_ahead *a = f->ahead;
    size_t left = mag_file_n_ahead(f);

    if (n > left)
        n = left;
    if (n == 0)
        return 0;
    mend(a);
    memcpy(buf, a->bytes + a->begin, n);
    a->begin += n;
    return n;
}

/* A buffer of that room, with what is ahead. */
static int resize(struct mag_file *f, size_t room)
{
    struct mag_file_ahead *a = mag_mem_realloc(f->ahead, sizeof *a + room + 1);

    if (!a)
        return -ENOMEM;
    if (!f->ahead)
        *a = (struct mag_file_ahead){ .limit = LIMIT_DEFAULT };
    a->room = room;
    f->ahead = a;
    return 0;
}

int mag_file_set_limit(struct mag_file *f, size_t limit)
{
    int rc = f->ahead || limit > LIMIT_MAX ? 0 : resize(f, 0);

    if (limit > LIMIT_MAX)
        return -EINVAL;
    if (rc == 0)
        f->ahead->limit = limit ? limit : LIMIT_DEFAULT;
    return rc;
}

/* Room for at least one more byte. */
static int make_room(struct mag_file *f)
{
    struct mag_file_ahead *a = f->ahead;
    size_t most = a->limit + 1, room;

    if (a->end < a->room)
        return 0;
    if (a->begin > 0) {
        memmove(a->bytes, a->bytes + a->begin, a->end - a->begin);
        a->end -= a->begin;
        a->begin = 0;
        return 0;
    }
    if (a->room >= most)
        return -EMSGSIZE;
    room = a->room ? a->room * 2 : FIRST_BYTES;
    return resize(f, room < most ? room : most);
}

/* More bytes: how many, 0 at the end. */
static int fetch(struct mag_file *f)
{
    int rc = make_room(f);
    struct mag_file_ahead *a = f->ahead;

    if (rc < 0)
        return rc;
    rc = mag_file_read_some(f, a->bytes + a->end, a->room - a->end, MAG_OP_HERE);
    a->end += rc > 0 ? (size_t)rc : 0;
    return rc;
}

/* The length of the next line, which then begins at `begin'; 0 at the end. */
static int find_line(struct mag_file *f)
{
    size_t seen = 0;

    for (;;) {
        struct mag_file_ahead *a = f->ahead;
        char *from = a->bytes + a->begin;
        const char *newline = memchr(from + seen, '\n', a->end - a->begin - seen);
        int rc;

        if (newline)
            return (size_t)(newline - from) <= a->limit ? (int)(newline + 1 - from) : -EMSGSIZE;
        seen = a->end - a->begin;
        if (seen > a->limit)
            return -EMSGSIZE;
        rc = fetch(f);
        if (rc <= 0)
            return rc < 0 ? rc : (int)seen;
    }
}

int mag_file_readline(struct mag_file *f, struct mag_str *out)
{
    struct mag_file_ahead *a;
    int rc = f->ahead ? 0 : mag_file_set_limit(f, 0);

    *out = (struct mag_str){ 0 };
    if (rc < 0)
        return rc;
    mend(f->ahead);
    rc = find_line(f);
    if (rc <= 0)
        return rc;
    a = f->ahead;
    *out = (struct mag_str){ .ptr = a->bytes + a->begin, .len = (size_t)rc };
    a->begin += (size_t)rc;
    a->under = a->bytes[a->begin];
    a->bytes[a->begin] = '\0';
    a->is_cut = true;
    return rc;
}

/* For the iterator: the line without its end. */
static int next_line(void *self, void *out)
{
    struct mag_str *line = out;
    int rc = mag_file_readline(self, line);

    if (rc <= 0)
        return rc;
    if (line->ptr[line->len - 1] == '\n')
        line->len--;
    if (line->len < (size_t)rc && line->len && line->ptr[line->len - 1] == '\r')
        line->len--;
    line->ptr[line->len] = '\0';
    return 1;
}

struct mag_iter mag_file_lines(struct mag_file *f)
{
    return mag_iter_of(next_line, f);
}
