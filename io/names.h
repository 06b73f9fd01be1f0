/* SPDX-License-Identifier: MIT */
#ifndef MAG_NAMES_H
#define MAG_NAMES_H
/*
 * names.h - names that nobody else has (names.c)
 */
#include "base.h"

#include <errno.h>

/*
 * A fresh path: directory, prefix, 12 random letters and digits.  A prefix that has a slash
 * is a path itself; without one it is put in the directory (NULL: TMPDIR, or /tmp).  0,
 * -ENOMEM or -ENAMETOOLONG; *out is from mag_mem_alloc.  Any thread.
 */
int mag_names_fresh(char **out, const char *dir, const char *prefix);

/* The directory that a path's last part is in: "." for "name", "/" for "/name".  As above. */
int mag_names_parent(char **out, const char *path);

/* Whether to try another fresh name: there are at most 100 tries. */
static inline bool mag_names_again(int rc, int *tries)
{
    return rc == -EEXIST && ++*tries < 100;
}

#endif
