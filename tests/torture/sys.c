/* SPDX-License-Identifier: MIT */
/*
 * sys.c - each system call of a small program fails, in the ways it can
 *
 * Every call of the library must answer success or an error; nothing may hang, crash or
 * leak.  Not here: futex wake, sleep and tgkill, which cannot fail as they are used, and
 * mincore, which only a measurement asks.
 */
#include "small.h"
#include "sys.h"

#include <sys/wait.h>

/* The larger, the more points. */
enum { SPACING = MAG_ASAN || MAG_TSAN ? 1 : 3 };

/* In which such a call is made at all: an old kernel has no guard regions, a small limit
 * on locked memory makes the rings smaller. */
enum setting { USUAL, OLD_KERNEL, SMALL_MEMLOCK };

enum how { ONCE = 1, FROM_THERE_ON = 2, BOTH_WAYS = 3 };

struct row {
    enum mag_sys_id id;
    const char *name;
    int errors[5];
    enum how how;
    int setting; /* enum setting */
};

/* clang-format off */
static const struct row rows[] = {
    { MAG_SYS_MMAP,           "mmap",           { ENOMEM },                         BOTH_WAYS, USUAL },
    { MAG_SYS_MUNMAP,         "munmap",         { ENOMEM },                         BOTH_WAYS, USUAL },
    { MAG_SYS_MADVISE,        "madvise",        { ENOMEM, EINVAL, EAGAIN },         BOTH_WAYS, USUAL },
    { MAG_SYS_MPROTECT,       "mprotect",       { ENOMEM },                         BOTH_WAYS, OLD_KERNEL },
    { MAG_SYS_EVENTFD,        "eventfd",        { EMFILE, ENFILE, ENOMEM },         BOTH_WAYS, USUAL },
    { MAG_SYS_READ,           "read",           { EINTR, EIO },                     ONCE, USUAL },
    { MAG_SYS_CLOSE,          "close",          { EINTR, EIO },                     ONCE, USUAL },
    { MAG_SYS_OPENAT,         "openat",         { EMFILE, ENFILE, EACCES },         BOTH_WAYS, USUAL },
    { MAG_SYS_PREAD,          "pread",          { EINTR, EIO },                     ONCE, USUAL },
    { MAG_SYS_PREADV2,        "preadv2",        { EAGAIN, EOPNOTSUPP, EIO },        BOTH_WAYS, USUAL },
    { MAG_SYS_PWRITEV2,       "pwritev2",       { EIO },                            BOTH_WAYS, USUAL },
    { MAG_SYS_FSTAT,          "fstat",          { EIO },                            BOTH_WAYS, USUAL },
    { MAG_SYS_STATX,          "statx",          { ENOSYS, EIO },                    BOTH_WAYS, USUAL },
    { MAG_SYS_GETDENTS,       "getdents",       { EIO, ENOENT },                    BOTH_WAYS, USUAL },
    { MAG_SYS_FUTEX_WAIT,     "futex wait",     { EINTR, EAGAIN },                  BOTH_WAYS, USUAL },
    { MAG_SYS_MEMBARRIER,     "membarrier",     { EPERM, ENOSYS },                  BOTH_WAYS, USUAL },
    { MAG_SYS_THREAD_START,   "thread start",   { EAGAIN, EPERM },                  BOTH_WAYS, USUAL },
    { MAG_SYS_AFFINITY,       "affinity",       { EINVAL, EPERM },                  BOTH_WAYS, USUAL },
    { MAG_SYS_SIGALTSTACK,    "sigaltstack",    { ENOMEM },                         BOTH_WAYS, USUAL },
    { MAG_SYS_SIGACTION,      "sigaction",      { EINVAL },                         BOTH_WAYS, USUAL },
    { MAG_SYS_SIGMASK,        "sigmask",        { EINVAL },                         BOTH_WAYS, USUAL },
    { MAG_SYS_GETRLIMIT,      "getrlimit",      { EPERM },                          BOTH_WAYS, SMALL_MEMLOCK },
    { MAG_SYS_GETRANDOM,      "getrandom",      { EINTR, ENOSYS, EAGAIN },          BOTH_WAYS, USUAL },
    { MAG_SYS_EPOLL_CTL,      "epoll ctl",      { ENOMEM, ENOSPC },                 BOTH_WAYS, USUAL },
    { MAG_SYS_EPOLL_WAIT,     "epoll wait",     { EINTR },                          ONCE, USUAL },
    { MAG_SYS_URING_SETUP,    "uring setup",    { EMFILE, ENOMEM, EPERM, ENOSYS },  BOTH_WAYS, USUAL },
    { MAG_SYS_URING_ENTER,    "uring enter",    { EINTR, EAGAIN, EBUSY, ENOMEM },   ONCE, USUAL },
    { MAG_SYS_URING_REGISTER, "uring register", { EINVAL, EPERM, ENOMEM },          BOTH_WAYS, USUAL },
};
/* clang-format on */

enum outcome { FINE, WRONG, NOT_REACHED };

/*
 * The n-th call fails; after that all must be well again.  In a process of its own, because
 * some calls are made once in the life of one.
 */
static enum outcome attempt(const struct row *r, int err, bool is_persistent, unsigned workers,
                            uint64_t n)
{
    bool is_reached;
    int rc;

    SMALL_BEGIN("%u workers, %s number %lu%s: %s", workers, r->name, (unsigned long)n,
                is_persistent ? " and all after" : "", mag_err_name(err));
    small.leaks_descriptors = r->id == MAG_SYS_CLOSE; /* which was not made */
    if (r->setting == OLD_KERNEL)
        mag_sys_fail_nth(MAG_SYS_MADVISE, 1, EINVAL, true);
    if (r->setting == SMALL_MEMLOCK)
        mag_sys_fail_nth(MAG_SYS_URING_SETUP, 1, ENOMEM, true);
    mag_sys_fail_nth(r->id, n, err, is_persistent);
    rc = small_program(workers, mag_sys_fail_none);
    is_reached = mag_sys_count(r->id) >= n;
    if (rc == 1 || (rc < 0 && !is_reached && r->setting == USUAL))
        return WRONG;
    if (n % 4 == 1 && small_program(workers, mag_sys_fail_none) != 0)
        return WRONG;
    return is_reached ? FINE : NOT_REACHED;
}

static enum outcome in_child(const struct row *r, int err, bool is_persistent, unsigned workers,
                             uint64_t n)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(attempt(r, err, is_persistent, workers, n));
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) != WRONG)
        return (enum outcome)WEXITSTATUS(status);
    fprintf(stderr, "FAILS: %u workers, %s number %lu%s: %s (status %#x)\n", workers, r->name,
            (unsigned long)n, is_persistent ? " and all after" : "", mag_err_name(err),
            (unsigned)status);
    return WRONG;
}

/* All points, of many calls some. */
static int torture(const struct row *r, int err, bool is_persistent)
{
    long n_points = 0, n_bad = 0;

    /* one worker for the first error only: how a call fails matters less than when */
    for (unsigned workers = err == r->errors[0] ? 1 : 3; workers <= 3 && n_bad < 3; workers += 2)
        for (uint64_t n = 1; n_bad < 3; n += 1 + n / SPACING) {
            enum outcome o = in_child(r, err, is_persistent, workers, n);
            if (o == NOT_REACHED)
                break;
            n_points++;
            n_bad += o == WRONG;
        }
    printf("%s, %s%s: %ld points\n", r->name, mag_err_name(err),
           is_persistent ? " from there on" : "", n_points);
    fflush(stdout);
    return n_bad != 0;
}

int main(int argc, char **argv)
{
    int n_bad = 0, n_rows = 0;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (argc > 1 && strcmp(argv[1], rows[i].name) != 0)
            continue;
        for (int e = 0; e < 5 && rows[i].errors[e]; e++, n_rows++) {
            if (rows[i].how & ONCE)
                n_bad += torture(&rows[i], rows[i].errors[e], false);
            if (rows[i].how & FROM_THERE_ON)
                n_bad += torture(&rows[i], rows[i].errors[e], true);
        }
    }
    printf("%d kinds of failure, %d bad\n", n_rows, n_bad);
    return n_bad != 0;
}
