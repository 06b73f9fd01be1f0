/* SPDX-License-Identifier: MIT */
/*
 * overflow.c - a task that overflows its stack dies with one line that tells which task,
 * which function, how large the stack is, and what to do
 */
#include "small.h"

#include <sys/resource.h>

enum { SKIP = 77 };

long overflow_here(long depth); /* with a name that dladdr(3) can see, or not */

long MAG_NOINLINE overflow_here(long depth)
{
    volatile char room[512];

    room[0] = (char)depth;
    return depth < 0 ? 0 : overflow_here(depth + 1) + room[0];
}

static int overflows(void *arg, long *value)
{
    (void)arg;
    *value = overflow_here(1);
    return 0;
}

static int overflows_after_suspending(void *arg, long *value)
{
    mag_sleep(MAG_MS);
    return overflows(arg, value);
}

static const struct mag_co_type deep_type = {
    .name = "deep_function", .body = co_body, .frame_bytes = sizeof(struct co),
    .result_bytes = sizeof(long),
};

static const struct mag_site site = { "place.c", 77, "somewhere" };

struct attempt {
    struct mag_spawn_options options;
    int (*fn)(void *, long *);
    bool in_place;
    const char *parts[6]; /* of the line */
};

static int starts(void *arg, long *value)
{
    struct attempt *a = arg;
    struct co *c = co_of(&deep_type, a->fn, NULL);

    if (!a->in_place && mag_start(c, &a->options) < 0)
        return -EINVAL;
    while (!a->in_place && !mag_done(c)) /* not in place */
        mag_sleep(MAG_MS);
    return await_co(c, value);
}

static const struct attempt attempts[] = {
    { .options = { .name = "named", .site = &site },
      .fn = overflows,
      .parts = { "'named'", "deep_function", "64 KiB", "place.c:77", ".stack_bytes" } },
    { .options = { .stack_bytes = 256 * 1024 },
      .fn = overflows_after_suspending,
      .parts = { "deep_function", "256 KiB", ".stack_bytes" } },
    { .fn = overflows, .parts = { "deep_function", "64 KiB", ".stack_bytes" } },
    { .in_place = true, .fn = overflows,
      .parts = { "'co'", "deep_function", "64 KiB", ".stack_bytes" } },
};

/* What a child that overflows writes to standard error; its wait status. */
static int watch(const struct attempt *a, unsigned workers, char *text, size_t n)
{
    size_t used = 0;
    ssize_t got;
    int ends[2], status = 0;
    pid_t pid;

    if (pipe(ends) < 0 || (pid = fork()) < 0)
        return -1;
    if (pid == 0) {
        struct rlimit no_core = { 0, 0 };
        setrlimit(RLIMIT_CORE, &no_core);
        SMALL_BEGIN("overflow");
        dup2(ends[1], 2);
        (void)run_rc(workers, starts, (void *)(uintptr_t)a);
        _exit(0);
    }
    close(ends[1]);
    while (used < n - 1 && (got = read(ends[0], text + used, n - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(ends[0]);
    waitpid(pid, &status, 0);
    return status;
}

static int check(const struct attempt *a, int status, const char *text)
{
    const char *newline = strchr(text, '\n');
    int is_bad = 0;

    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
        is_bad = 1, fprintf(stderr, "not a SIGSEGV: status %#x\n", (unsigned)status);
    if (newline == NULL || newline[1] != '\0' || strncmp(text, "magpie: ", 8) != 0)
        is_bad = 1, fprintf(stderr, "not one line\n");
    for (const char *const *part = a->parts; *part; part++)
        if (!strstr(text, *part))
            is_bad = 1, fprintf(stderr, "lacks \"%s\"\n", *part);
    if (is_bad)
        fprintf(stderr, "it said: %s\n", text);
    return is_bad;
}

int main(void)
{
    int n_bad = 0;

    if (MAG_ASAN || MAG_TSAN)
        return SKIP; /* the sanitizer's own handler comes first */
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++)
        for (unsigned workers = 1; workers <= 4; workers += 3) {
            char text[2000];
            int status = watch(&attempts[i], workers, text, sizeof text);
            n_bad += check(&attempts[i], status, text);
            if (workers == 1)
                printf("%s", text);
        }
    return n_bad != 0;
}
