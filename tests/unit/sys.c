/* SPDX-License-Identifier: MIT */
/* sys.c - unit tests of runtime/sys.[ch] */
#include <criterion/criterion.h>

#include "atomic.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

TestSuite(sys);

static int64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * MAG_SECOND + ts.tv_nsec;
}

Test(sys, answers_minus_errno)
{
    char c;

    cr_assert_eq(mag_sys_close(-1), -EBADF);
    cr_assert_eq(mag_sys_read(-1, &c, 1), -EBADF);
    cr_assert_eq(mag_sys_openat(AT_FDCWD, "/nowhere/at/all", O_RDONLY, 0), -ENOENT);
    cr_assert_eq(mag_sys_munmap((void *)1, 1), -EINVAL);
    cr_assert_eq(mag_sys_tgkill(mag_sys_gettid(), 12345), -EINVAL);
}

Test(sys, memory)
{
    unsigned char resident[2] = { 0 };
    void *p = NULL;

    cr_assert_eq(
        mag_sys_mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &p),
        0);
    *(char *)p = 1;
    cr_assert_eq(mag_sys_mincore(p, 8192, resident), 0);
    cr_assert((resident[0] & 1) == 1 && (resident[1] & 1) == 0);
    cr_assert_eq(mag_sys_madvise(p, 8192, MADV_DONTNEED), 0);
    cr_assert_eq(*(char *)p, 0);
    cr_assert_eq(mag_sys_mprotect(p, 4096, PROT_NONE), 0);
    cr_assert_eq(mag_sys_munmap(p, 8192), 0);
    cr_assert_eq(mag_sys_mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &p), -EINVAL);
}

Test(sys, files)
{
    char buf[16] = "";
    struct iovec iov = { buf, sizeof buf };
    struct iovec out = { (char[]){ "magpie" }, 6 };
    struct stat st;
    struct statx stx;
    char path[] = "/tmp/magpie-sys-XXXXXX";
    int fd = mkstemp(path);

    cr_assert(fd >= 0);
    cr_assert_eq(mag_sys_pwritev2(fd, &out, 1, 0, 0), 6);
    cr_assert_eq(mag_sys_write(fd, "MAG", 3), 3);
    cr_assert_eq(mag_sys_preadv2(fd, &iov, 1, 0, 0), 6);
    cr_assert_eq(memcmp(buf, "MAGpie", 6), 0);
    cr_assert_eq(mag_sys_pread(fd, buf, 2, 4), 2);
    cr_assert_eq(memcmp(buf, "ie", 2), 0);
    cr_assert_eq(mag_sys_fstat(fd, &st), 0);
    cr_assert_eq(st.st_size, 6);
    cr_assert_eq(mag_sys_statx(AT_FDCWD, path, 0, STATX_SIZE, &stx), 0);
    cr_assert_eq(stx.stx_size, 6);
    cr_assert_eq(mag_sys_close(fd), 0);
    unlink(path);
}

Test(sys, directory_entries)
{
    int fd = mag_sys_openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
    char buf[4096];
    ssize_t n, total = 0;

    while ((n = mag_sys_getdents(fd, buf, sizeof buf)) > 0)
        total += n;
    cr_assert_eq(n, 0);
    cr_assert(total > 0);
    cr_assert_eq(mag_sys_close(fd), 0);
}

Test(sys, eventfd)
{
    int fd = mag_sys_eventfd(2, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t n = 0;

    cr_assert(fd >= 0);
    cr_assert_eq(mag_sys_read(fd, &n, sizeof n), 8);
    cr_assert_eq(n, 2);
    cr_assert_eq(mag_sys_read(fd, &n, sizeof n), -EAGAIN);
    cr_assert_eq(mag_sys_close(fd), 0);
}

/* ---- threads and waiting -------------------------------------------------------- */

static uint32_t word;

static void *waiter(void *unused)
{
    (void)unused;
    while (mag_load_acquire(&word) == 0)
        (void)mag_sys_futex_wait(&word, 0, MAG_NEVER);
    return &word;
}

Test(sys, futex, .timeout = 10)
{
    int64_t start = now();
    pthread_t t;

    cr_assert_eq(mag_sys_futex_wait(&word, 1, MAG_NEVER), -EAGAIN);
    cr_assert_eq(mag_sys_futex_wait(&word, 0, 20 * MAG_MS), -ETIMEDOUT);
    cr_assert(now() - start >= 20 * MAG_MS);
    cr_assert_eq(mag_sys_futex_wait(&word, 0, -5), -ETIMEDOUT);

    cr_assert_eq(mag_sys_thread_start(&t, waiter, NULL, "a name that is much too long"), 0);
    mag_sys_sleep(20 * MAG_MS);
    mag_store_release(&word, 1);
    (void)mag_sys_futex_wake(&word, 1);
    cr_assert_eq(mag_sys_thread_join(t), 0);
}

static char name[16];

static mag_atomic(uint32_t) is_named;

static void *read_name(void *unused)
{
    (void)unused;
    while (!mag_load_acquire(&is_named)) /* the starter names us */
        mag_sys_sleep(MAG_MS);
    pthread_getname_np(pthread_self(), name, sizeof name);
    return NULL;
}

Test(sys, thread_has_its_name)
{
    pthread_t t;

    cr_assert_eq(mag_sys_thread_start(&t, read_name, NULL, "mag-worker-0123456789"), 0);
    mag_store_release(&is_named, 1);
    cr_assert_eq(mag_sys_thread_join(t), 0);
    cr_assert_str_eq(name, "mag-worker-0123");
}

Test(sys, membarrier)
{
    int rc = mag_sys_membarrier_register();

    if (rc == -ENOSYS)
        cr_skip("no membarrier here");
    cr_assert_eq(rc, 0);
    cr_assert_eq(mag_sys_membarrier(), 0);
}

Test(sys, affinity)
{
    int n = mag_sys_affinity_count();

    cr_assert(n >= 1 && n <= sysconf(_SC_NPROCESSORS_CONF));
    cr_assert_eq(mag_sys_affinity_set(n + 1), 0); /* counted modulo n */
    cr_assert_eq(mag_sys_affinity_count(), 1);
}

static void on_signal(int sig)
{
    (void)sig;
    mag_fetch_add(&word, 1);
}

Test(sys, signals_and_sleep)
{
    struct sigaction act = { .sa_handler = on_signal };
    int64_t start = now();
    sigset_t set;

    cr_assert_eq(mag_sys_sigaction(SIGUSR1, &act, NULL), 0);
    cr_assert_eq(mag_sys_tgkill(mag_sys_gettid(), SIGUSR1), 0);
    cr_assert_eq(word, 1);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    cr_assert_eq(mag_sys_sigmask(SIG_BLOCK, &set, NULL), 0);
    cr_assert_eq(mag_sys_tgkill(mag_sys_gettid(), SIGUSR1), 0);
    cr_assert_eq(word, 1);
    cr_assert_eq(mag_sys_sigmask(SIG_UNBLOCK, &set, NULL), 0);
    cr_assert_eq(word, 2);
    cr_assert_eq(mag_sys_sigmask(999, &set, NULL), -EINVAL);

    cr_assert_eq(mag_sys_sleep(10 * MAG_MS), 0);
    cr_assert(now() - start >= 10 * MAG_MS);
    start = now();
    cr_assert_eq(mag_sys_sleep_until(start + 10 * MAG_MS), 0);
    cr_assert(now() - start >= 10 * MAG_MS);
    cr_assert_eq(mag_sys_sleep_until(0), 0);
    cr_assert_eq(mag_sys_sleep(-1), 0);
}

Test(sys, alternate_stack_and_limits)
{
    static char space[65536];
    stack_t ss = { .ss_sp = space, .ss_size = sizeof space }, old;
    struct rlimit limit;
    char bytes[16] = "";

    cr_assert_eq(mag_sys_sigaltstack(&ss, &old), 0);
    cr_assert_eq(mag_sys_sigaltstack(&old, &ss), 0);
    cr_assert_eq(ss.ss_sp, space);
    cr_assert_eq(mag_sys_getrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert(limit.rlim_cur > 2);
    cr_assert_eq(mag_sys_getrandom(bytes, sizeof bytes), 16);
    cr_assert_null(mag_sys_getenv("MAGPIE_NO_SUCH_NAME"));
    cr_assert_not_null(mag_sys_getenv("PATH"));
    mag_sys_yield();
}

/* ---- faults ---------------------------------------------------------------------- */

Test(sys, nth_fails_once)
{
    mag_sys_fail_nth(MAG_SYS_EVENTFD, 2, EMFILE, false);
    cr_assert(mag_sys_eventfd(0, 0) >= 0);
    cr_assert_eq(mag_sys_eventfd(0, 0), -EMFILE);
    cr_assert(mag_sys_eventfd(0, 0) >= 0);
    cr_assert_eq(mag_sys_count(MAG_SYS_EVENTFD), 3);
    mag_sys_fail_none();
}

Test(sys, nth_fails_for_good_and_only_its_kind)
{
    void *p;
    pthread_t t;

    mag_sys_fail_nth(MAG_SYS_MMAP, 1, ENOMEM, true);
    mag_sys_fail_nth(MAG_SYS_THREAD_START, 1, EAGAIN, true);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(mag_sys_mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &p),
                     -ENOMEM);
    cr_assert_eq(mag_sys_thread_start(&t, waiter, NULL, NULL), -EAGAIN);
    cr_assert(mag_sys_eventfd(0, 0) >= 0);
    mag_sys_fail_nth(MAG_SYS_MMAP, 0, 0, false);
    cr_assert_eq(mag_sys_mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &p), 0);
    cr_assert_eq(mag_sys_thread_start(&t, waiter, NULL, NULL), -EAGAIN);
    mag_sys_fail_none();
}

Test(sys, others_may_ask_for_the_fault)
{
    cr_assert_eq(mag_sys_fault(MAG_SYS_URING_SETUP), 0);
    mag_sys_fail_nth(MAG_SYS_URING_SETUP, 2, EPERM, false);
    cr_assert_eq(mag_sys_fault(MAG_SYS_URING_SETUP), 0);
    cr_assert_eq(mag_sys_fault(MAG_SYS_URING_SETUP), -EPERM);
    cr_assert_eq(mag_sys_fault(MAG_SYS_URING_SETUP), 0);
    mag_sys_fail_none();
}
