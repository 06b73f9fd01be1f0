/* SPDX-License-Identifier: MIT */
/*
 * cpus.c - how many processors this process may use
 *
 * A worker more than there are processors is worse than useless: it is preempted
 * while it holds work that others wait for.  What a process may use is less than
 * what the machine has in two ways.  Its affinity mask (taskset, cpuset) names the
 * processors.  Its control group may have a quota: so many microseconds of processor
 * time in each period, over all processors; a program in a container with two CPUs'
 * worth on a machine of 64 would, with 64 workers, spend its quota in 3 ms and then
 * stand still for 97.
 *
 *      /proc/self/cgroup          version 2: "0::/a/b"
 *      root/a/b/cpu.max           "200000 100000" or "max 100000"
 *      root/a/cpu.max             every ancestor limits too
 *
 *      /proc/self/cgroup          version 1: "4:cpu,cpuacct:/a/b"
 *      root/cpu,cpuacct/a/b/cpu.cfs_quota_us  and cpu.cfs_period_us; -1 is none
 *      (the hierarchy is also reachable as root/cpu)
 *
 * In a container the path in /proc/self/cgroup may be the host's, of which nothing
 * is mounted: levels without files are skipped, and the root, which is then the
 * container's own group, is always looked at.
 *
 * Quotas are rounded up: 1.5 CPUs keep two workers busy three quarters of the time,
 * while one worker could never use the half.
 *
 * Who may call: any thread, at start; it reads files and so may block.
 *
 * Sources: cgroups(7), Documentation/admin-guide/cgroup-v2.rst; the same rules in
 * Go 1.25 (GOMAXPROCS) and the JVM (container support).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cpus.h"

#include "mem.h"
#include "sys.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* A cgroup path longer than this is taken as without quota. */
    PATH_BYTES = 512,
    /* /proc/self/cgroup has a line for each hierarchy, of which there are 13. */
    TEXT_BYTES = 4096,
    NUMBER_BYTES = 64,
};

/* Reads the whole of a small file as a string; its length or -errno. */
static int read_text(const char *path, char *buf, size_t room)
{
    int fd = mag_sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    size_t used = 0;
    ssize_t n;

    if (fd < 0)
        return fd;
    do {
        n = mag_sys_read(fd, buf + used, room - 1 - used);
        used += n > 0 ? (size_t)n : 0;
    } while (n > 0 && used < room - 1);
    (void)mag_sys_close(fd);
    buf[used] = '\0';
    return n < 0 ? (int)n : (int)used;
}

/* ---- one group ----------------------------------------------------------------- */

static int cpus_of(long long quota_us, long long period_us)
{
    long long n;

    if (quota_us <= 0 || period_us <= 0)
        return 0;
    n = quota_us / period_us + (quota_us % period_us != 0);
    return n > INT_MAX ? INT_MAX : (int)n;
}

static int read_file(const char *dir, const char *name, char *text)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);

    return n > 0 && n < PATH_BYTES ? read_text(path, text, NUMBER_BYTES) : -1;
}

/* "max 100000" has no number in front, so its quota is 0: none. */
static int quota_v2(const char *dir)
{
    char text[NUMBER_BYTES];
    char *end = text;
    long long quota;

    if (read_file(dir, "cpu.max", text) < 0)
        return 0;
    quota = strtoll(text, &end, 10);
    return cpus_of(quota, strtoll(end, NULL, 10));
}

static int quota_v1(const char *dir)
{
    char quota[NUMBER_BYTES], period[NUMBER_BYTES];

    if (read_file(dir, "cpu.cfs_quota_us", quota) < 0 ||
        read_file(dir, "cpu.cfs_period_us", period) < 0)
        return 0;
    return cpus_of(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

/* ---- a group and its ancestors ------------------------------------------------- */

/* The lesser of two quotas, where 0 is none. */
static int lesser(int a, int b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

/* From base/path up to base itself; the loop ends as path gets shorter. */
static int quota_upwards(const char *base, const char *path, size_t path_len,
                         int (*quota_of)(const char *dir))
{
    char dir[PATH_BYTES];
    size_t base_len = strlen(base);
    int n = snprintf(dir, sizeof dir, "%s%.*s", base, (int)path_len, path);
    int least = 0;

    if (n < 0 || n >= PATH_BYTES)
        return quota_of(base);
    for (size_t len = (size_t)n; len > base_len;) {
        least = lesser(least, quota_of(dir));
        while (len > base_len && dir[len - 1] != '/')
            len--;
        len -= len > base_len;
        dir[len] = '\0';
    }
    return lesser(least, quota_of(base));
}

/* Is `word' an element of the comma-separated list? */
static bool lists(const char *list, size_t list_len, const char *word)
{
    size_t word_len = strlen(word);

    for (size_t i = 0; i + word_len <= list_len; i++) {
        bool starts = i == 0 || list[i - 1] == ',';
        bool ends = i + word_len == list_len || list[i + word_len] == ',';

        if (starts && ends && memcmp(list + i, word, word_len) == 0)
            return true;
    }
    return false;
}

/* One line "id:controllers:path" of /proc/self/cgroup. */
static int quota_of_line(const char *root, const char *line, size_t len)
{
    const char *controllers = memchr(line, ':', len);
    const char *path =
        controllers ? memchr(controllers + 1, ':', len - (size_t)(controllers + 1 - line)) : NULL;
    char base[PATH_BYTES];
    size_t names_len, path_len;
    int n;

    if (!path)
        return 0;
    controllers++;
    names_len = (size_t)(path - controllers);
    path++;
    path_len = len - (size_t)(path - line);
    if (names_len == 0)
        return quota_upwards(root, path, path_len, quota_v2);
    if (!lists(controllers, names_len, "cpu"))
        return 0;
    n = snprintf(base, sizeof base, "%s/cpu", root);
    return n > 0 && n < PATH_BYTES ? quota_upwards(base, path, path_len, quota_v1) : 0;
}

int mag_cpus_quota(const char *cgroup_root, const char *self_cgroup_text)
{
    int least = 0;

    for (const char *line = self_cgroup_text; *line;) {
        size_t len = strcspn(line, "\n");

        least = lesser(least, quota_of_line(cgroup_root, line, len));
        line += len + (line[len] == '\n');
    }
    return least;
}

int mag_cpus_allowed(void)
{
    char *text = mag_mem_alloc(TEXT_BYTES);
    int quota = 0;

    if (text && read_text("/proc/self/cgroup", text, TEXT_BYTES) > 0)
        quota = mag_cpus_quota("/sys/fs/cgroup", text);
    mag_mem_free(text);
    return lesser(mag_sys_affinity_count(), quota);
}
