/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_PROCESS_H
#define MAG_SYS_PROCESS_H
/*
 * sys_process.h - the door for system calls: those that processes need
 *
 * As in sys.h: the call of that name, which answers -errno.  Only the spawn may take long.
 */
#include "sys.h"

/* A program to be started; descriptors are of this process. */
struct mag_sys_spawn {
    const char *program; /* without a slash it is looked for in PATH */
    const char *const *argv;
    const char *const *envp; /* NULL: this process's */
    const char *cwd;         /* NULL: this process's */
    int fds[3];              /* its 0, 1 and 2: 3 or more; below 0: inherited */
    bool keeps_fds;          /* else all from 3 on are closed in it */
    bool is_group;           /* it becomes the first of a process group */
    bool is_session;         /* ... of a session */
};

/*
 * posix_spawn(3).  The program starts with no signal blocked, and with SIGPIPE and SIGXFSZ
 * at their defaults.  Blocks until it has begun, or could not: then why.  A fault armed
 * for MAG_SYS_THREAD_START fails it.
 */
int mag_sys_spawn(const struct mag_sys_spawn *s, int *pid);

/* pidfd_open(2), close-on-exec.  A fault armed for MAG_SYS_OPENAT fails it. */
int mag_sys_pidfd_open(int pid);
int mag_sys_pidfd_signal(int pidfd, int sig);
int mag_sys_kill(int pid, int sig);
/* waitid(2) for it. */
int mag_sys_waitid(int pidfd, int options, siginfo_t *info);
int mag_sys_waitpid(int pid);

/* pipe2(2), close-on-exec.  A fault armed for MAG_SYS_EVENTFD fails it. */
int mag_sys_pipe(int fds[2]);
/* A duplicate that is 3 or more, close-on-exec; the same fault. */
int mag_sys_dup_above(int fd);
int mag_sys_set_nonblocking(int fd);

/* write(2) of which no SIGPIPE comes. */
ssize_t mag_sys_write_quiet(int fd, const void *buf, size_t n);

#endif
