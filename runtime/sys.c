/* SPDX-License-Identifier: MIT */
/*
 * sys.c - the door for system calls
 *
 * One place through which every system call of the library passes (those that
 * liburing makes ask mag_sys_fault() first), so that one place can make the n-th
 * call of a kind fail, and so that errno ends here: it becomes part of the answer
 * before anybody can suspend.
 *
 * Why errno may be read here: the compiler computes the address of errno once in a
 * function, and after a switch that is the errno of another thread (reproduced with
 * gcc 12.2 and clang 14).  Nothing in this file suspends, and no function of it is
 * inlined elsewhere, as it is a translation unit of its own; hence MAG_NOINLINE on
 * the one reader, which keeps that true under link-time optimisation.
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno; it never answers -1
 *      and never leaves the meaning in errno.
 *   2. Without an armed fault a call costs one relaxed load and a branch more.
 *
 * Who may call: any thread.  write, read, futex_wake, tgkill, gettid and madvise
 * are async-signal-safe here too.
 *
 * Rejected
 *   - raw syscalls for all: glibc's wrappers carry the ABI details (offsets of 64
 *     bit, the size of a signal set), and cancellation points we never cancel;
 *   - a retry on EINTR for all: who calls knows what an interruption means.
 *
 * Sources: membarrier(2) PRIVATE_EXPEDITED; futex(2), FUTEX_WAIT's relative timeout
 * is on CLOCK_MONOTONIC.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys.h"

#include "atomic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- faults -------------------------------------------------------------------- */

static mag_atomic(uint32_t) n_armed; /* [any] kinds with a fault */

static struct fault {
    mag_atomic(uint64_t) nth;       /* [any] which call fails; 0 none */
    mag_atomic(uint64_t) count;     /* [any] calls since armed */
    mag_atomic(int) err;            /* [any] what it answers, positive */
    mag_atomic(bool) is_persistent; /* [any] all from nth on fail, not it alone */
} faults[MAG_SYS_COUNT];

static MAG_NOINLINE int fault_armed(struct fault *f)
{
    /* relaxed: a test arms before it starts what it tests, and reads at rest. */
    uint64_t nth = mag_load_relaxed(&f->nth);
    uint64_t n;

    if (nth == 0)
        return 0;
    n = mag_fetch_add(&f->count, 1) + 1;
    if (n == nth || (n > nth && mag_load_relaxed(&f->is_persistent)))
        return -mag_load_relaxed(&f->err);
    return 0;
}

int mag_sys_fault(enum mag_sys_id id)
{
    return MAG_UNLIKELY(mag_load_relaxed(&n_armed)) ? fault_armed(&faults[id]) : 0;
}

void mag_sys_fail_nth(enum mag_sys_id id, uint64_t n, int err, bool persistent)
{
    struct fault *f = &faults[id];
    uint64_t before = mag_xchg(&f->nth, 0);

    if (before)
        mag_fetch_sub(&n_armed, 1);
    if (n == 0)
        return;
    mag_store_relaxed(&f->count, 0);
    mag_store_relaxed(&f->err, err);
    mag_store_relaxed(&f->is_persistent, persistent);
    mag_store_release(&f->nth, n);
    mag_fetch_add(&n_armed, 1);
}

void mag_sys_fail_none(void)
{
    for (int id = 0; id < MAG_SYS_COUNT; id++)
        mag_sys_fail_nth((enum mag_sys_id)id, 0, 0, false);
}

uint64_t mag_sys_count(enum mag_sys_id id)
{
    return mag_load_acquire(&faults[id].count);
}

/* ---- the answer of a call ------------------------------------------------------ */

static MAG_NOINLINE long failed(void)
{
    return -errno;
}

static long answer(long rc)
{
    return MAG_LIKELY(rc != -1) ? rc : failed();
}

/* Makes the call unless a test wants it to fail. */
#define CALL(id, expr) \
    do { \
        int fault_rc = mag_sys_fault(id); \
        return MAG_UNLIKELY(fault_rc) ? fault_rc : (__typeof__(expr))answer(expr); \
    } while (0)

/* The pthread functions answer a positive error number. */
#define CALL_PTHREAD(id, expr) \
    do { \
        int fault_rc = mag_sys_fault(id); \
        return MAG_UNLIKELY(fault_rc) ? fault_rc : -(expr); \
    } while (0)

/* ---- memory -------------------------------------------------------------------- */

int mag_sys_mmap(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset, void **out)
{
    int rc = mag_sys_fault(MAG_SYS_MMAP);
    void *p;

    if (rc)
        return rc;
    p = mmap(hint, bytes, prot, flags, fd, offset);
    if (p == MAP_FAILED)
        return (int)failed();
    *out = p;
    return 0;
}

int mag_sys_munmap(void *p, size_t bytes)
{
    CALL(MAG_SYS_MUNMAP, munmap(p, bytes));
}

int mag_sys_madvise(void *p, size_t bytes, int advice)
{
    CALL(MAG_SYS_MADVISE, madvise(p, bytes, advice));
}

int mag_sys_mprotect(void *p, size_t bytes, int prot)
{
    CALL(MAG_SYS_MPROTECT, mprotect(p, bytes, prot));
}

int mag_sys_mincore(void *p, size_t bytes, unsigned char *vec)
{
    CALL(MAG_SYS_MINCORE, mincore(p, bytes, vec));
}

/* ---- files --------------------------------------------------------------------- */

int mag_sys_eventfd(unsigned initial, int flags)
{
    CALL(MAG_SYS_EVENTFD, eventfd(initial, flags));
}

ssize_t mag_sys_read(int fd, void *buf, size_t n)
{
    CALL(MAG_SYS_READ, read(fd, buf, n));
}

ssize_t mag_sys_write(int fd, const void *buf, size_t n)
{
    CALL(MAG_SYS_WRITE, write(fd, buf, n));
}

int mag_sys_close(int fd)
{
    CALL(MAG_SYS_CLOSE, close(fd));
}

int mag_sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    CALL(MAG_SYS_OPENAT, openat(dirfd, path, flags, mode));
}

ssize_t mag_sys_pread(int fd, void *buf, size_t n, off_t offset)
{
    CALL(MAG_SYS_PREAD, pread(fd, buf, n, offset));
}

ssize_t mag_sys_preadv2(int fd, const struct iovec *iov, int n_iov, off_t offset, int flags)
{
    CALL(MAG_SYS_PREADV2, preadv2(fd, iov, n_iov, offset, flags));
}

ssize_t mag_sys_pwritev2(int fd, const struct iovec *iov, int n_iov, off_t offset, int flags)
{
    CALL(MAG_SYS_PWRITEV2, pwritev2(fd, iov, n_iov, offset, flags));
}

int mag_sys_fstat(int fd, struct stat *st)
{
    CALL(MAG_SYS_FSTAT, fstat(fd, st));
}

int mag_sys_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx)
{
    CALL(MAG_SYS_STATX, statx(dirfd, path, flags, mask, stx));
}

ssize_t mag_sys_getdents(int fd, void *buf, size_t n)
{
    CALL(MAG_SYS_GETDENTS, syscall(SYS_getdents64, fd, buf, n));
}

/* ---- threads and waiting ------------------------------------------------------- */

static struct timespec timespec_of(mag_time ns)
{
    return (struct timespec){ .tv_sec = ns / MAG_SECOND, .tv_nsec = ns % MAG_SECOND };
}

static mag_time not_negative(mag_time ns)
{
    return ns < 0 ? 0 : ns;
}

static int futex_wait(uint32_t *word, uint32_t expected, const struct timespec *limit)
{
    CALL(MAG_SYS_FUTEX_WAIT,
         (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, limit, NULL, 0));
}

/* ThreadSanitizer keeps a signal back until the thread calls what it intercepts, which
 * syscall(2) is not: who only waits here would never see one.  So it looks now and then. */
static int futex_wait_a_little(uint32_t *word, uint32_t expected)
{
    static const struct timespec a_little = { .tv_nsec = 20 * MAG_MS };
    int rc = futex_wait(word, expected, &a_little);

    (void)usleep(0);
    return rc == -ETIMEDOUT ? -EINTR : rc;
}

int mag_sys_futex_wait(uint32_t *word, uint32_t expected, mag_time timeout_ns)
{
    struct timespec ts = timespec_of(not_negative(timeout_ns));

    if (MAG_TSAN && timeout_ns > 20 * MAG_MS)
        return futex_wait_a_little(word, expected);
    return futex_wait(word, expected, timeout_ns == MAG_NEVER ? NULL : &ts);
}

int mag_sys_futex_wake(uint32_t *word, int n)
{
    CALL(MAG_SYS_FUTEX_WAKE, (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0));
}

static int membarrier(int command)
{
    CALL(MAG_SYS_MEMBARRIER, (int)syscall(SYS_membarrier, command, 0, 0));
}

int mag_sys_membarrier_register(void)
{
    return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
}

int mag_sys_membarrier(void)
{
    return membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}

int mag_sys_thread_start(pthread_t *t, void *(*fn)(void *), void *arg, const char *name)
{
    char short_name[16];
    int rc = mag_sys_fault(MAG_SYS_THREAD_START);

    if (rc)
        return rc;
    rc = -pthread_create(t, NULL, fn, arg);
    if (rc < 0 || !name)
        return rc;
    strncpy(short_name, name, sizeof short_name - 1);
    short_name[sizeof short_name - 1] = '\0';
    /* A thread without its name is no reason to fail. */
    (void)pthread_setname_np(*t, short_name);
    return 0;
}

int mag_sys_thread_join(pthread_t t)
{
    return -pthread_join(t, NULL);
}

int mag_sys_gettid(void)
{
    return (int)gettid();
}

int mag_sys_tgkill(int tid, int sig)
{
    CALL(MAG_SYS_TGKILL, tgkill(getpid(), tid, sig));
}

int mag_sys_affinity_count(void)
{
    cpu_set_t set;

    /* More than 1024 processors do not fit the set; then the one we run on counts. */
    if (mag_sys_fault(MAG_SYS_AFFINITY) || sched_getaffinity(0, sizeof set, &set) < 0)
        return 1;
    return CPU_COUNT(&set);
}

int mag_sys_affinity_set(int i)
{
    cpu_set_t all, one;
    int rc = mag_sys_fault(MAG_SYS_AFFINITY);

    if (rc)
        return rc;
    if (sched_getaffinity(0, sizeof all, &all) < 0)
        return (int)failed();
    i %= CPU_COUNT(&all);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && i-- == 0)
            CPU_SET(cpu, &one);
    return (int)answer(sched_setaffinity(0, sizeof one, &one));
}

void mag_sys_yield(void)
{
    (void)sched_yield();
}

/* The kernel writes what is left, so that interruptions do not add up. */
int mag_sys_sleep(mag_time duration_ns)
{
    struct timespec left = timespec_of(not_negative(duration_ns));
    int rc = mag_sys_fault(MAG_SYS_SLEEP);

    if (rc)
        return rc;
    do
        rc = -clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left);
    while (rc == -EINTR);
    return rc;
}

int mag_sys_sleep_until(mag_time when_ns)
{
    struct timespec when = timespec_of(not_negative(when_ns));
    int rc = mag_sys_fault(MAG_SYS_SLEEP);

    if (rc)
        return rc;
    do
        rc = -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
    while (rc == -EINTR);
    return rc;
}

/* ---- signals, limits, environment ---------------------------------------------- */

int mag_sys_sigaltstack(const stack_t *new_stack, stack_t *old_stack)
{
    CALL(MAG_SYS_SIGALTSTACK, sigaltstack(new_stack, old_stack));
}

int mag_sys_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    CALL(MAG_SYS_SIGACTION, sigaction(sig, act, old));
}

int mag_sys_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    CALL_PTHREAD(MAG_SYS_SIGMASK, pthread_sigmask(how, set, old));
}

int mag_sys_getrlimit(int resource, struct rlimit *limit)
{
    /* glibc's first parameter is an enum under _GNU_SOURCE. */
    CALL(MAG_SYS_GETRLIMIT, getrlimit((__rlimit_resource_t)resource, limit));
}

const char *mag_sys_getenv(const char *name)
{
    return getenv(name);
}

ssize_t mag_sys_getrandom(void *buf, size_t n)
{
    CALL(MAG_SYS_GETRANDOM, getrandom(buf, n, 0));
}
