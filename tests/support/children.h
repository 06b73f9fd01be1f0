/* SPDX-License-Identifier: MIT */
#ifndef MAG_TESTS_CHILDREN_H
#define MAG_TESTS_CHILDREN_H
/*
 * children.h - tests that start processes: what must not be left afterwards
 *
 *      RUN_CLEAN(coro(args), expected)     runs it on one worker, and on four; then no child
 *                                          is left, no descriptor, and no memory
 */
#include "keywords.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static inline int n_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* Not even a zombie. */
static inline bool has_children(void)
{
    return !(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

#define RUN_CLEAN(coro, expected) \
    do { \
        int n_before = n_descriptors(); \
        RUN_ON_BOTH(coro, expected, ""); \
        cr_assert(!has_children()); \
        cr_assert_eq(n_descriptors(), n_before, "%d descriptors, then %d", n_before, n_descriptors()); \
    } while (0)

/* Options of a shell's command. */
#define SHELL(command, ...) \
    (&(struct mag_process_options){ .argv = (const char *[]){ "/bin/sh", "-c", (command), NULL }, \
                                    __VA_ARGS__ })
#define PROGRAM(...) ((const char *[]){ __VA_ARGS__, NULL })
#define PIPE \
    { \
        .kind = MAG_STDIO_PIPE \
    }

static inline bool is_str(struct mag_str s, const char *text)
{
    return s.ptr && s.len == strlen(text) && memcmp(s.ptr, text, s.len + 1) == 0;
}

#endif
