/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_PROCESS_H
#define MAGPIE_PROCESS_H
/*
 * process.h - starting programs, talking to them, and waiting for their end
 *
 *      const char *argv[] = { "sort", "-u", NULL };
 *      struct mag_process_options o = { .argv = argv, .in = { MAG_STDIO_PIPE },
 *                                       .out = { MAG_STDIO_PIPE } };
 *
 *      async_with(mag_process, p, &o) {
 *          struct mag_str sorted;
 *          await(mag_process_communicate(p, text, n, &sorted, NULL, 0));
 *          int status = 0;
 *          await(mag_process_wait(p, &status));
 *      }
 *
 * A process that was started must be closed, and that leaves nothing behind: if it still
 * runs it is killed, and it is always waited for, also when the task is cancelled or the
 * runtime stops.  async_with does so on every way out.
 *
 * A process starts with no signal blocked, SIGPIPE and SIGXFSZ at their defaults, and, of
 * this program's descriptors, with none but 0, 1 and 2 (unless .keep_fds).
 *
 * This program must not ignore SIGCHLD, nor wait for children that it does not know:
 * otherwise how they ended is lost, and mag_process_wait answers -ECHILD.
 *
 * There is no "die when the parent dies" (PR_SET_PDEATHSIG): Linux means the thread that
 * has started the process, and here that is one of a pool, which ends when it is idle.
 */
#include <magpie/file.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mag_stdio_kind {
    MAG_STDIO_INHERIT, /* this program's own                                */
    MAG_STDIO_NULL,    /* /dev/null                                         */
    MAG_STDIO_PIPE,    /* a pipe, whose other end is in the struct          */
    MAG_STDIO_FD,      /* that descriptor, which stays the caller's         */
    MAG_STDIO_TO_OUT,  /* .err only: where standard output goes             */
};

struct mag_stdio {
    enum mag_stdio_kind kind;
    int fd; /* of MAG_STDIO_FD */
};

struct mag_process_options {
    const char *const *argv; /* ends with NULL                                        */
    /* The file that is run; NULL: argv[0].  Without a slash it is looked for in PATH. */
    const char *program;
    const char *const *envp; /* "NAME=value"..., NULL; NULL: this program's           */
    const char *cwd;         /* NULL: this program's                                  */
    struct mag_stdio in, out, err;
    bool keep_fds; /* inherits descriptors that are not close-on-exec too             */
    /* It is the first of a new process group, or session (and group).  Signals, and the kill
     * of a close, then go to the whole group. */
    bool new_group, new_session;
};

/* A process; the members from `private_lock' on are private. */
struct mag_process {
    int pid, pidfd; /* of its pidfd_open(2); 0 and -1 when it is closed               */
    /* Our ends of its pipes, for reading and writing as any descriptor; -1: none.  Who
     * closes one sets it to -1.  They are close-on-exec, and block as pipes do.  A write to
     * one that nobody reads raises SIGPIPE; mag_process_communicate does not. */
    int in, out, err;
    uint32_t private_lock;
    int private_status;
    bool private_is_over, private_is_group;
    char *private_content[2];
};

/*
 * Starts a program.  Returns 0 when it runs; otherwise why not, with nothing left behind:
 * -ENOENT, -EACCES, -ENOEXEC... (also of .cwd), -EBADF, -EMFILE, -EINVAL (no argv[0], or
 * .in is TO_OUT), -ENOSYS before Linux 5.4.  The options are not needed any more then.
 * Suspends (in the offload pool: the kernel holds up the thread until the program's file is
 * read); cancellation point, which loses nothing: once it has begun it is carried out, and
 * returns 0.  Outside a task it blocks.
 */
MAG_API int mag_process_start(struct mag_process *p, const struct mag_process_options *options);

/*
 * Waits until it has ended: 0, and *status (may be NULL) is its exit status, or -N if
 * the signal N has killed it.  May be called again, and by several tasks.  -ECHILD: it has
 * ended, but somebody else has taken its status; -ESRCH for one that is closed.  Its pipes
 * must be read by somebody, or it may never end.  Suspends; cancellation point, which
 * leaves the process as it is.
 */
MAG_API int mag_process_wait(struct mag_process *p, int *status);

/*
 * Sends a signal; _kill: SIGKILL.  0, also if it has ended but was not yet waited for;
 * -ESRCH after that; -EINVAL for an unknown signal, -EPERM.  Never hits another process.  Any
 * thread, but not while it is closed.  Never suspends.
 */
MAG_API int mag_process_signal(struct mag_process *p, int signo);
MAG_API int mag_process_kill(struct mag_process *p);

/*
 * Writes `input' to its standard input and closes that, reads its standard output and error
 * to their ends, all at once, and waits for its end: 0.  What it wrote goes to *out and
 * *err; a pipe whose pointer is NULL is read all the same, and what came is dropped; one
 * that is not a pipe is left empty.  The bytes belong to the process, and live until it is
 * closed.  A process that does not read all of its input is no error.  Its status is
 * mag_process_wait's.
 *
 * `limit' is the bytes that each of the two may have; 0: no limit but memory and
 * 2,147,479,552.  -EFBIG if there are more: the process then still runs.  -EINVAL if there
 * is input and no pipe for it, -ENOMEM, -ENXIO outside a task.  Once.  Suspends; cancellation
 * point: what was read so far is lost.
 */
MAG_API int mag_process_communicate(struct mag_process *p, const void *input, size_t n,
                                    struct mag_str *out, struct mag_str *err, size_t limit);

/*
 * Kills it if it still runs, waits for its end, closes its descriptors and frees its
 * content.  0; again: nothing happens.  Tasks that wait, communicate, or read and write its pipes
 * by <magpie/net.h> get -EBADF (a wait may have its status instead); they must not touch *p after
 * that, and it must live until they have ended.  Suspends; not a cancellation point.
 */
MAG_API int mag_process_close(struct mag_process *p);

/* For async_with(mag_process, p, &options): mag_process_start and mag_process_close. */
MAG_API int mag_process_enter(struct mag_process *p, const struct mag_process_options *options);
MAG_API void mag_process_exit(struct mag_process *p);

#ifdef __cplusplus
}
#endif
#endif
