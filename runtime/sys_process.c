/* SPDX-License-Identifier: MIT */
/*
 * sys_process.c - the door for system calls: those that processes need
 *
 * Kin of sys.c and under its rules: errno becomes part of the answer here, before anybody
 * can suspend, and nothing of this file is inlined elsewhere.
 *
 * A write to a pipe that nobody reads raises SIGPIPE in the thread that writes, which by
 * default kills the program.  A library may not change that for the whole process, and a
 * pipe has no MSG_NOSIGNAL: so the signal is blocked in this thread for the time of the
 * write, and taken away if it has come (and was not there before).
 *
 * Invariants
 *   1. A function answers what the call answered, or -errno.
 *   2. Those that make something ask mag_sys_fault() first, so that tests can make them fail.
 *
 * Sources: posix_spawn(3); pidfd_open(2); waitid(2), P_PIDFD (Linux 5.4).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sys_process.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ABOVE_STDIO = 3 };

static MAG_NOINLINE long answer(long rc)
{
    return rc < 0 ? -errno : rc;
}

/* ---- starting a program ----------------------------------------------------------- */

static int add_actions(posix_spawn_file_actions_t *actions, const struct mag_sys_spawn *s)
{
    int rc = 0;

    for (int i = 0; i < ABOVE_STDIO && rc == 0; i++)
        if (s->fds[i] >= 0)
            rc = posix_spawn_file_actions_adddup2(actions, s->fds[i], i);
    if (rc == 0 && !s->keeps_fds)
        rc = posix_spawn_file_actions_addclosefrom_np(actions, ABOVE_STDIO);
    if (rc == 0 && s->cwd)
        rc = posix_spawn_file_actions_addchdir_np(actions, s->cwd);
    return rc;
}

/* These calls fail only for what is not asked of them here. */
static void set_attributes(posix_spawnattr_t *attr, const struct mag_sys_spawn *s)
{
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigset_t set;

    (void)sigemptyset(&set);
    (void)posix_spawnattr_setsigmask(attr, &set);
    (void)sigaddset(&set, SIGPIPE);
    (void)sigaddset(&set, SIGXFSZ);
    (void)posix_spawnattr_setsigdefault(attr, &set);
    if (s->is_session)
        flags |= POSIX_SPAWN_SETSID;
    else if (s->is_group)
        flags |= POSIX_SPAWN_SETPGROUP; /* the group 0: its own */
    (void)posix_spawnattr_setflags(attr, flags);
}

static int spawn_with(const struct mag_sys_spawn *s, posix_spawn_file_actions_t *actions, int *pid)
{
    char *const *argv = (char *const *)(uintptr_t)s->argv;
    char *const *envp = s->envp ? (char *const *)(uintptr_t)s->envp : environ;
    posix_spawnattr_t attr;
    pid_t child;
    int rc = posix_spawnattr_init(&attr);

    if (rc)
        return rc;
    set_attributes(&attr, s);
    rc = posix_spawnp(&child, s->program, actions, &attr, argv, envp);
    (void)posix_spawnattr_destroy(&attr);
    if (rc == 0)
        *pid = child;
    return rc;
}

int mag_sys_spawn(const struct mag_sys_spawn *s, int *pid)
{
    posix_spawn_file_actions_t actions;
    int rc = mag_sys_fault(MAG_SYS_THREAD_START);

    if (rc < 0)
        return rc;
    rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return -rc;
    rc = add_actions(&actions, s);
    if (rc == 0)
        rc = spawn_with(s, &actions, pid);
    (void)posix_spawn_file_actions_destroy(&actions);
    return -rc;
}

/* ---- a process that runs ------------------------------------------------------------ */

int mag_sys_pidfd_open(int pid)
{
    int rc = mag_sys_fault(MAG_SYS_OPENAT);

    return rc < 0 ? rc : (int)answer(syscall(SYS_pidfd_open, pid, 0));
}

int mag_sys_pidfd_signal(int pidfd, int sig)
{
    return (int)answer(syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0));
}

int mag_sys_kill(int pid, int sig)
{
    return (int)answer(kill(pid, sig));
}

int mag_sys_waitid(int pidfd, int options, siginfo_t *info)
{
    return (int)answer(waitid(P_PIDFD, (id_t)pidfd, info, options));
}

int mag_sys_waitpid(int pid)
{
    int rc;

    do
        rc = (int)answer(waitpid(pid, NULL, 0));
    while (rc == -EINTR);
    return rc;
}

/* ---- pipes ------------------------------------------------------------------------------ */

int mag_sys_pipe(int fds[2])
{
    int rc = mag_sys_fault(MAG_SYS_EVENTFD);

    return rc < 0 ? rc : (int)answer(pipe2(fds, O_CLOEXEC));
}

int mag_sys_dup_above(int fd)
{
    int rc = mag_sys_fault(MAG_SYS_EVENTFD);

    return rc < 0 ? rc : (int)answer(fcntl(fd, F_DUPFD_CLOEXEC, ABOVE_STDIO));
}

int mag_sys_set_nonblocking(int fd)
{
    int flags = (int)answer(fcntl(fd, F_GETFL));

    return flags < 0 ? flags : (int)answer(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

/* The signal of our own write is this thread's: it is there when the write has returned. */
static void take_sigpipe(const sigset_t *sigpipe)
{
    struct timespec now = { 0, 0 };

    while (answer(sigtimedwait(sigpipe, NULL, &now)) == -EINTR)
        continue;
}

ssize_t mag_sys_write_quiet(int fd, const void *buf, size_t n)
{
    sigset_t sigpipe, old, pending;
    ssize_t rc = mag_sys_fault(MAG_SYS_WRITE);

    if (rc < 0)
        return rc;
    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    (void)sigemptyset(&pending);
    (void)sigpending(&pending);
    (void)pthread_sigmask(SIG_BLOCK, &sigpipe, &old);
    rc = answer(write(fd, buf, n));
    if (rc == -EPIPE && !sigismember(&pending, SIGPIPE))
        take_sigpipe(&sigpipe);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}
