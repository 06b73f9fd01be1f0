/* SPDX-License-Identifier: MIT */
/*
 * symbol.c - from an address in code to a name, for reports
 *
 * "task overflowed its stack in parse_header at http.c:212" helps; an address does
 * not.  dladdr(3) knows the functions that a binary exports; the lines, and static
 * functions, are in the debugging information, which addr2line (of binutils, so
 * there wherever a compiler is) reads for us in a process of its own.  What cannot
 * be found out is left out of the answer.
 *
 *      address - load address of its binary = address in the file -> addr2line -e
 *
 * A return address is the instruction after the call, which may belong to another
 * line or even to another function, so the question is asked for the byte before.
 * But the byte before a function's entry is not in that function: both are asked
 * for at once, and where the functions differ, the address was an entry.
 *
 * Who may call: any thread, in reports only.  It starts a process and waits for it,
 * which is why this file, of all, may do so past sys.c: fault injection has no
 * business in a report about the fault.  It allocates nothing and takes no stdio
 * lock, but the loader's lock is taken by dladdr; so in a signal handler it is for
 * a process that ends anyway.
 *
 * Rejected: libunwind, libdw or libbacktrace (a dependency for a rare report);
 * backtrace_symbols(3) (allocates, knows no lines).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "symbol.h"

#include "check.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    OUTPUT_BYTES = 768, /* two functions and two paths; a longer answer is not used */
    PATH_BYTES = 512,   /* a longer path is cut, and then not found */
    NUMBER_BYTES = 24,
};

static void print(char *buf, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void print(char *buf, size_t n, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)mag_check_format(buf, n, fmt, args);
    va_end(args);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* ---- asking addr2line ---------------------------------------------------------- */

static bool spawn_addr2line(const char *binary, uintptr_t at, int out_fd, pid_t *pid)
{
    /* A fixed environment, so that it neither translates nor asks a server. */
    static char *const env[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", NULL };
    char before[NUMBER_BYTES], exact[NUMBER_BYTES];
    char *const argv[] = { "addr2line", "-f", "-e", (char *)binary, before, exact, NULL };
    posix_spawn_file_actions_t actions;
    bool ok;

    print(before, sizeof before, "0x%lx", (unsigned long)(at - 1));
    print(exact, sizeof exact, "0x%lx", (unsigned long)at);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    ok = posix_spawn_file_actions_adddup2(&actions, out_fd, 1) == 0 &&
         posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) == 0 &&
         posix_spawnp(pid, argv[0], &actions, NULL, argv, env) == 0;
    (void)posix_spawn_file_actions_destroy(&actions);
    return ok;
}

static size_t read_all(int fd, char *buf, size_t room)
{
    size_t used = 0;
    ssize_t n;

    while (used < room && (n = read(fd, buf + used, room - used)) > 0)
        used += (size_t)n;
    return used;
}

/* Fills out with addr2line's four lines; false if there are not four. */
static bool ask(const char *binary, uintptr_t at, char out[OUTPUT_BYTES])
{
    size_t used;
    pid_t pid;
    int ends[2];
    bool ok;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    ok = spawn_addr2line(binary, at, ends[1], &pid);
    (void)close(ends[1]);
    used = ok ? read_all(ends[0], out, OUTPUT_BYTES - 1) : 0;
    (void)close(ends[0]);
    if (ok)
        (void)waitpid(pid, NULL, 0);
    out[used] = '\0';
    return used > 0 && out[used - 1] == '\n';
}

/* Cuts the next line off *text; NULL if there is none. */
static char *take_line(char **text)
{
    char *line = *text;
    char *end = line ? strchr(line, '\n') : NULL;

    if (!end)
        return NULL;
    *end = '\0';
    *text = end + 1;
    return line;
}

/* "path/file.c:31 (discriminator 2)" becomes "file.c:31"; false for "??:0". */
static bool tidy_place(char **place)
{
    char *space = strstr(*place, " (");

    if (space)
        *space = '\0';
    *place = (char *)base_name(*place);
    return (*place)[0] != '?';
}

static MAG_NOINLINE bool name_by_addr2line(const char *binary, uintptr_t at, char *buf, size_t n)
{
    char out[OUTPUT_BYTES];
    char *rest = out;
    char *func, *place, *exact_func, *exact_place;

    if (!ask(binary, at, out))
        return false;
    func = take_line(&rest);
    place = take_line(&rest);
    exact_func = take_line(&rest);
    exact_place = take_line(&rest);
    if (!exact_place)
        return false;
    if (strcmp(func, exact_func) != 0) {
        func = exact_func;
        place = exact_place;
    }
    if (!tidy_place(&place) || func[0] == '?')
        return false;
    print(buf, n, "%s at %s", func, place);
    return true;
}

/* ---- putting it together ------------------------------------------------------- */

/* The file that was mapped; the main program has no name in the loader's map. */
static void find_binary(const struct link_map *map, char *path, size_t room)
{
    ssize_t len;

    if (map->l_name && map->l_name[0]) {
        print(path, room, "%s", map->l_name);
        return;
    }
    len = readlink("/proc/self/exe", path, room - 1);
    path[len > 0 ? len : 0] = '\0';
}

static void name_by_loader(const Dl_info *info, uintptr_t at, char *buf, size_t n)
{
    const char *binary = base_name(info->dli_fname);

    if (info->dli_sname)
        print(buf, n, "%s+0x%lx (%s)", info->dli_sname,
              (unsigned long)(at - (uintptr_t)info->dli_saddr), binary);
    else
        print(buf, n, "0x%lx (%s)", (unsigned long)at, binary);
}

void mag_symbol_name(const void *addr, char *buf, size_t n)
{
    struct link_map *map = NULL;
    uintptr_t at = (uintptr_t)addr;
    char binary[PATH_BYTES];
    Dl_info info;

    if (dladdr1(addr, &info, (void **)&map, RTLD_DL_LINKMAP) == 0 || !map) {
        print(buf, n, "0x%lx", (unsigned long)at);
        return;
    }
    find_binary(map, binary, sizeof binary);
    if (!name_by_addr2line(binary, at - map->l_addr, buf, n))
        name_by_loader(&info, at, buf, n);
}
