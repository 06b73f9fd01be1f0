/* SPDX-License-Identifier: MIT */
/*
 * seccomp.c - a program whose sandbox forbids io_uring works all the same, and says so once
 *
 * Each case is a process that installs a seccomp filter, as a container's run-time would
 * (Docker's answers EPERM since 2023, others ENOSYS), and then lets workers sleep, hand on
 * tasks and read files (small.h).  Its standard error is a pipe, in which exactly one line must
 * be found.  A limit that is no refusal (EMFILE) must stay an error.
 */
#define _GNU_SOURCE
#include "small.h"
#include "sys.h"

#include <magpie.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIPPED = 77 };

static const struct sandbox {
    const char *name;
    int setup_answers;  /* io_uring_setup(2) */
    int pwait2_answers; /* epoll_pwait2(2), which is as new; 0: allowed */
    int works;
} sandboxes[] = {
    { "EPERM", EPERM, 0, 1 },
    { "ENOSYS", ENOSYS, 0, 1 },
    { "EACCES", EACCES, 0, 1 },
    { "EPERM, of epoll_pwait2 too", EPERM, EPERM, 1 },
    { "ENOSYS, of epoll_pwait2 too", ENOSYS, ENOSYS, 1 },
    { "EMFILE", EMFILE, 0, 0 },
};

/* if (nr == n) answer err; falls through where err is 0 */
#define REFUSE(n, err)                                                                       \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (n), 0, 1),                                            \
        BPF_STMT(BPF_RET | BPF_K,                                                              \
                 (err) ? SECCOMP_RET_ERRNO | ((err)&SECCOMP_RET_DATA) : SECCOMP_RET_ALLOW)

static int install(const struct sandbox *s)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        REFUSE(SYS_io_uring_setup, s->setup_answers),
        REFUSE(SYS_epoll_pwait2, s->pwait2_answers),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In the child: all that a small program does, twice, since the choice is remembered. */
static int work(const struct sandbox *s, int say_to)
{
    unsetenv("MAGPIE_BACKEND");
    if (install(s) != 0)
        return SKIPPED;
    if (dup2(say_to, STDERR_FILENO) < 0)
        return 1;
    for (unsigned workers = 1; workers <= 3; workers += 2) {
        SMALL_BEGIN("%u workers, io_uring_setup answers %s", workers, s->name);
        int rc = small_program(workers, mag_sys_fail_none);
        if (s->works ? rc != 0 : rc == 0)
            return 2;
    }
    return 0;
}

static int lines_of(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static int run_in(const struct sandbox *s)
{
    char said[4096] = { 0 };
    const char *word = s->setup_answers == ENOSYS ? "ENOSYS" : s->setup_answers == EACCES ? "EACCES" : "EPERM";
    size_t n = 0;
    ssize_t rc;
    int p[2], status = 0;
    pid_t pid;

    if (pipe(p) != 0 || (pid = fork()) < 0)
        return 1;
    if (pid == 0)
        _exit(work(s, p[1]));
    close(p[1]);
    while (n < sizeof said - 1 && (rc = read(p[0], said + n, sizeof said - 1 - n)) > 0)
        n += (size_t)rc;
    close(p[0]);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
        return SKIPPED;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "FAILS: %s: status %#x, said: %s\n", s->name, (unsigned)status, said);
        return 1;
    }
    if (s->works && (lines_of(said) != 1 || !strstr(said, "using epoll") || !strstr(said, word))) {
        fprintf(stderr, "FAILS: %s: one line was to say why, not: %s\n", s->name, said);
        return 1;
    }
    if (!s->works && strstr(said, "using epoll")) {
        fprintf(stderr, "FAILS: %s: is no refusal, but: %s\n", s->name, said);
        return 1;
    }
    printf("seccomp: %s: %s", s->name, n ? said : "an error\n");
    return 0;
}

int main(void)
{
    int rc = 0;

    for (size_t i = 0; i < sizeof sandboxes / sizeof *sandboxes && rc == 0; i++)
        rc = run_in(&sandboxes[i]);
    return rc;
}
