/* SPDX-License-Identifier: MIT */
/*
 * limits.c - what the kernel refuses: descriptors, locked memory, threads
 *
 * A runtime starts, or says clearly why it does not; a small program on it never hangs
 * and leaves nothing.  Each limit is tried in a process of its own, which gives up root,
 * because root is above most limits.
 */
#include "small.h"

#include <sys/resource.h>

enum { NOBODY = 65534, SKIP = 77, WORKERS = 3 };

static void nothing(void)
{
}

static int become_nobody(void)
{
    return geteuid() != 0 || (setgid(NOBODY) == 0 && setuid(NOBODY) == 0) ? 0 : SKIP;
}

/* A runtime that fails must name the cause by one of these words. */
static int says(const char *const *words)
{
    for (; *words; words++)
        if (strstr(mag_rt_why(), *words))
            return 1;
    fprintf(stderr, "not clear: \"%s\"\n", mag_rt_why());
    return 0;
}

static int try_limit(int resource, rlim_t value, const char *const *words)
{
    struct rlimit limit = { value, value };
    struct mag_rt_options options = { .workers = WORKERS };
    struct mag_rt *rt = NULL;
    int rc;

    if (setrlimit(resource, &limit) < 0)
        return SKIP;
    rc = mag_rt_new(&rt, &options);
    if (rc < 0 && !says(words))
        return 1;
    if (rc == 0)
        mag_rt_free(rt);
    for (int i = 0; i < 3; i++)
        if (small_program(WORKERS, nothing) > 0)
            return 1;
    return 0;
}

/* From too few descriptors for the rings to nearly enough for everything. */
static int descriptors(int n)
{
    static const char *const words[] = { "descriptor", "EMFILE", "NOFILE", "open files", NULL };

    return try_limit(RLIMIT_NOFILE, (rlim_t)n, words);
}

static int locked_memory(int kib)
{
    static const char *const words[] = { "RLIMIT_MEMLOCK", "memlock", NULL };

    return try_limit(RLIMIT_MEMLOCK, (rlim_t)kib * 1024, words);
}

static int threads(int n)
{
    static const char *const words[] = { "thread", NULL };

    return try_limit(RLIMIT_NPROC, (rlim_t)n, words);
}

static int address_space(int mib)
{
    static const char *const words[] = { "memory", "ENOMEM", "thread", "stack", NULL };

    return try_limit(RLIMIT_AS, (rlim_t)mib << 20, words);
}

static int in_child(const char *name, int (*fn)(int), int value)
{
    int status = 0, rc;
    pid_t pid = fork();

    if (pid == 0) {
        SMALL_BEGIN("%s %d", name, value);
        rc = become_nobody();
        _exit(rc ? rc : fn(value));
    }
    waitpid(pid, &status, 0);
    rc = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (rc != 0 && rc != SKIP)
        fprintf(stderr, "FAILS: %s %d (status %#x)\n", name, value, (unsigned)status);
    return rc;
}

int main(void)
{
    int n_run = 0, n_bad = 0;
    static const int mibs[] = { 16, 64, 128, 256, 512 };
    static const int kibs[] = { 0, 1, 8, 16, 32, 64, 256 };

#define TRY(fn, value) \
    do { \
        int try_rc = in_child(#fn, fn, value); \
        n_run += try_rc != SKIP; \
        n_bad += try_rc != 0 && try_rc != SKIP; \
    } while (0)

    for (int n = 3; n < 24; n++)
        TRY(descriptors, n);
    for (size_t i = 0; i < sizeof kibs / sizeof *kibs; i++)
        TRY(locked_memory, kibs[i]);
    for (int n = 1; n < 8; n++)
        TRY(threads, n);
    for (size_t i = 0; i < sizeof mibs / sizeof *mibs && !MAG_ASAN && !MAG_TSAN; i++)
        TRY(address_space, mibs[i]);
    printf("%d limits tried, %d bad\n", n_run, n_bad);
    return n_bad ? 1 : n_run ? 0 : SKIP;
}
