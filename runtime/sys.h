/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_H
#define MAG_SYS_H
/*
 * sys.h - the door for system calls
 *
 * Each function is the call of the same name with the same arguments, except that
 * it answers -errno.  No other file of runtime/ or io/ makes a system call or reads
 * errno (reports, in symbol.c, apart).  None retries -EINTR but where it says so.
 * Any thread; those that may block the calling thread are for workers' parking and
 * for the offload pool.
 */
#include "base.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

struct statx; /* glibc's, visible under _GNU_SOURCE */

/* ---- memory -------------------------------------------------------------------- */

int mag_sys_mmap(void *hint, size_t bytes, int prot, int flags, int fd, off_t offset, void **out);
int mag_sys_munmap(void *p, size_t bytes);
int mag_sys_madvise(void *p, size_t bytes, int advice);
int mag_sys_mprotect(void *p, size_t bytes, int prot);
int mag_sys_mincore(void *p, size_t bytes, unsigned char *vec);

/* ---- files --------------------------------------------------------------------- */

MAG_MODULE int mag_sys_eventfd(unsigned initial, int flags);
ssize_t mag_sys_read(int fd, void *buf, size_t n);
MAG_MODULE ssize_t mag_sys_write(int fd, const void *buf, size_t n);
MAG_MODULE int mag_sys_close(int fd);
int mag_sys_openat(int dirfd, const char *path, int flags, mode_t mode);
ssize_t mag_sys_pread(int fd, void *buf, size_t n, off_t offset);
ssize_t mag_sys_preadv2(int fd, const struct iovec *iov, int n_iov, off_t offset, int flags);
ssize_t mag_sys_pwritev2(int fd, const struct iovec *iov, int n_iov, off_t offset, int flags);
int mag_sys_fstat(int fd, struct stat *st);
int mag_sys_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *stx);
/* getdents64(2): records of struct linux_dirent64; 0 at the end. */
ssize_t mag_sys_getdents(int fd, void *buf, size_t n);

/* ---- threads and waiting -------------------------------------------------------- */

/*
 * Sleeps while *word == expected, between threads of this process, for at most
 * timeout_ns (MAG_NEVER: no limit).  0 woken (perhaps for nothing), -EAGAIN the word
 * differs, -ETIMEDOUT, -EINTR.
 */
int mag_sys_futex_wait(uint32_t *word, uint32_t expected, mag_time timeout_ns);
/* Wakes up to n sleepers; how many. */
int mag_sys_futex_wake(uint32_t *word, int n);
/* Every running thread of this process passes a full fence; register once before. */
int mag_sys_membarrier_register(void);
int mag_sys_membarrier(void);
/* A new joinable thread; the name, of which 15 characters count, may be NULL. */
int mag_sys_thread_start(pthread_t *t, void *(*fn)(void *), void *arg, const char *name);
int mag_sys_thread_join(pthread_t t);
int mag_sys_gettid(void);
int mag_sys_tgkill(int tid, int sig);
/* Processors in this thread's affinity mask, at least 1. */
int mag_sys_affinity_count(void);
/* Ties the calling thread to the i-th processor of its mask (modulo their number). */
int mag_sys_affinity_set(int i);
void mag_sys_yield(void);
/* Both go on after -EINTR.  A point in the past returns at once. */
int mag_sys_sleep(mag_time duration_ns);
int mag_sys_sleep_until(mag_time when_ns);

/* ---- signals, limits, environment ------------------------------------------------ */

int mag_sys_sigaltstack(const stack_t *new_stack, stack_t *old_stack);
int mag_sys_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
/* pthread_sigmask(3). */
int mag_sys_sigmask(int how, const sigset_t *set, sigset_t *old);
int mag_sys_getrlimit(int resource, struct rlimit *limit);
const char *mag_sys_getenv(const char *name);
ssize_t mag_sys_getrandom(void *buf, size_t n);

/* ---- faults, for tests ----------------------------------------------------------- */

enum mag_sys_id {
    MAG_SYS_MMAP,
    MAG_SYS_MUNMAP,
    MAG_SYS_MADVISE,
    MAG_SYS_MPROTECT,
    MAG_SYS_MINCORE,
    MAG_SYS_EVENTFD,
    MAG_SYS_READ,
    MAG_SYS_WRITE,
    MAG_SYS_CLOSE,
    MAG_SYS_OPENAT,
    MAG_SYS_PREAD,
    MAG_SYS_PREADV2,
    MAG_SYS_PWRITEV2,
    MAG_SYS_FSTAT,
    MAG_SYS_STATX,
    MAG_SYS_GETDENTS,
    MAG_SYS_FUTEX_WAIT,
    MAG_SYS_FUTEX_WAKE,
    MAG_SYS_MEMBARRIER,
    MAG_SYS_THREAD_START,
    MAG_SYS_TGKILL,
    MAG_SYS_AFFINITY,
    MAG_SYS_SLEEP,
    MAG_SYS_SIGALTSTACK,
    MAG_SYS_SIGACTION,
    MAG_SYS_SIGMASK,
    MAG_SYS_GETRLIMIT,
    MAG_SYS_GETRANDOM,
    MAG_SYS_EPOLL_CTL, /* to add or to change */
    MAG_SYS_EPOLL_WAIT,
    /* Made by liburing; ring_uring.c asks mag_sys_fault() before each. */
    MAG_SYS_URING_SETUP,
    MAG_SYS_URING_ENTER,
    MAG_SYS_URING_REGISTER,
    MAG_SYS_COUNT,
};

/*
 * The n-th call of this kind from now (1 is the next) answers -err instead of being
 * made, and if `persistent' all after it as well.  `err' is positive.  n = 0 disarms
 * this kind; a huge n only counts.
 */
void mag_sys_fail_nth(enum mag_sys_id id, uint64_t n, int err, bool persistent);
/* Disarms every kind. */
void mag_sys_fail_none(void);
/* Calls of this kind since it was armed; the failed ones too. */
uint64_t mag_sys_count(enum mag_sys_id id);
/* For who makes a call elsewhere: 0, or the -errno to answer instead.  Counts it. */
int mag_sys_fault(enum mag_sys_id id);

#endif
