/* SPDX-License-Identifier: MIT */
/*
 * process.c - tests of starting programs, talking to them, and waiting for their end
 *
 * After each test no child is left, not even a zombie, and no descriptor.
 */
#include "atomic.h"
#include "children.h"
#include "sys.h"

#include <magpie/net.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static void reset(void)
{
    mag_sys_fail_none();
    mag_mem_fail_nth(0, false);
}

TestSuite(process, .timeout = 60, .fini = reset);

/* Its exit status, or -N for a signal; an error is -1000 and less. */
static int status_of(const struct mag_process_options *o)
{
    struct mag_process p;
    int status = -1, rc = mag_process_start(&p, o);

    if (rc == 0)
        rc = mag_process_wait(&p, &status);
    mag_process_close(&p);
    return rc < 0 ? rc - 1000 : status;
}

/* ---- how it ends --------------------------------------------------------------------- */

async(void, ends)
{
    SHOULD(status_of(SHELL("exit 0")) == 0);
    SHOULD(status_of(SHELL("exit 7")) == 7);
    SHOULD(status_of(SHELL("exit 255")) == 255);
    SHOULD(status_of(SHELL("kill -TERM $$")) == -SIGTERM);
    SHOULD(status_of(SHELL("kill -KILL $$")) == -SIGKILL);
    SHOULD(status_of(&(struct mag_process_options){ .argv = PROGRAM("true") }) == 0);
    SHOULD(status_of(&(struct mag_process_options){ .argv = PROGRAM("sh", "-c", "exit 3"),
                                                    .program = "/bin/sh" }) == 3);
    return 0;
}

Test(process, ends)
{
    RUN_CLEAN(ends(), 0);
}

Test(process, ends_outside_a_task)
{
    int before = n_descriptors();
    struct mag_process p;

    cr_assert_eq(mag_process_enter(&p, SHELL("exec sleep 60")), 0);
    mag_process_exit(&p);

    cr_assert_eq(status_of(SHELL("exit 7")), 7);
    cr_assert_eq(status_of(SHELL("kill -TERM $$")), -SIGTERM);
    cr_assert_eq(status_of(&(struct mag_process_options){ .argv = PROGRAM("/no/such") }),
                 -ENOENT - 1000);
    cr_assert(!has_children());
    cr_assert_eq(n_descriptors(), before);
}

async(void, waits_again)
{
    mag_time begun = mag_now();

    async_with(mag_process, p, SHELL("sleep 0.02; exit 9"))
    {
        int status = 0;

        SHOULD(mag_process_wait(p, &status) == 0 && status == 9);
        SHOULD(mag_now() - begun > 10 * MAG_MS);
        SHOULD(mag_process_wait(p, NULL) == 0);
        SHOULD(mag_process_wait(p, &status) == 0 && status == 9);
        SHOULD(mag_process_close(p) == 0);
        SHOULD(mag_process_close(p) == 0);
        SHOULD(mag_process_wait(p, &status) == -ESRCH);
        SHOULD(mag_process_kill(p) == -ESRCH);
    }
    return 0;
}

Test(process, may_be_waited_for_again)
{
    RUN_CLEAN(waits_again(), 0);
}

async(int, waiter, (struct mag_process *, p))
{
    int status = -1;

    await(mag_process_wait(p, &status));
    async_return(status);
}

async(void, several_wait)
{
    async_with(mag_process, p, SHELL("sleep 0.02; exit 4"))
    {
        int r[4];

        gather(r, waiter(p), waiter(p), waiter(p), waiter(p));
        SHOULD(r[0] == 4 && r[1] == 4 && r[2] == 4 && r[3] == 4);
    }
    return 0;
}

Test(process, several_may_wait)
{
    RUN_CLEAN(several_wait(), 0);
}

async(void, lost)
{
    async_with(mag_process, p, SHELL("exit 5"))
    {
        SHOULD(waitpid(p->pid, NULL, 0) == p->pid);
        SHOULD(mag_process_wait(p, NULL) == -ECHILD);
        SHOULD(mag_process_wait(p, NULL) == -ECHILD);
        SHOULD(mag_process_kill(p) == -ESRCH);
    }
    return 0;
}

Test(process, somebody_else_took_the_status)
{
    RUN_CLEAN(lost(), 0);
}

/* ---- what is refused ------------------------------------------------------------------- */

static int start_error(const struct mag_process_options *o)
{
    struct mag_process p;
    int rc = mag_process_start(&p, o);

    if (rc == 0)
        mag_process_close(&p);
    return p.pid == 0 && p.pidfd == -1 && p.in == -1 && p.out == -1 && p.err == -1 ? rc : 1;
}

async(void, refused)
{
    SHOULD(start_error(NULL) == -EINVAL);
    SHOULD(start_error(&(struct mag_process_options){ .argv = NULL }) == -EINVAL);
    SHOULD(start_error(&(struct mag_process_options){ .argv = (const char *[]){ NULL } }) ==
           -EINVAL);
    SHOULD(start_error(&(struct mag_process_options){
               .argv = PROGRAM("/no/such/program"), .in = PIPE, .out = PIPE, .err = PIPE }) ==
           -ENOENT);
    SHOULD(start_error(&(struct mag_process_options){
               .argv = PROGRAM("no-such-program-at-all") }) == -ENOENT);
    SHOULD(start_error(&(struct mag_process_options){ .argv = PROGRAM("/etc/passwd") }) == -EACCES);
    SHOULD(start_error(SHELL(":", .cwd = "/no/such/directory")) == -ENOENT);
    SHOULD(start_error(SHELL(":", .in = { MAG_STDIO_TO_OUT, 0 })) == -EINVAL);
    SHOULD(start_error(SHELL(":", .out = { MAG_STDIO_TO_OUT, 0 })) == -EINVAL);
    SHOULD(start_error(SHELL(":", .out = { MAG_STDIO_FD, 9999 })) == -EBADF);
    SHOULD(start_error(SHELL(":", .err = { (enum mag_stdio_kind)77, 0 })) == -EINVAL);
    return 0;
}

Test(process, refused)
{
    RUN_CLEAN(refused(), 0);
}

/* Each system call fails in turn: nothing is left. */
async(void, fails_inside)
{
    static const enum mag_sys_id ids[] = { MAG_SYS_THREAD_START, MAG_SYS_EVENTFD, MAG_SYS_OPENAT };

    SHOULD(status_of(SHELL(":")) == 0); /* the pool has a thread */
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int rc = -EMFILE, n_missed = 0;

        for (uint64_t n = 1; rc < 0; n++) {
            mag_sys_fail_nth(ids[i], n, EMFILE, false);
            rc = start_error(SHELL(":", .in = PIPE, .out = PIPE, .err = { MAG_STDIO_NULL, 0 }));
            mag_sys_fail_none();
            SHOULD(!has_children());
            if (rc == 0 && n == 1 && n_missed++ < 5) { /* it hit the watchdog, which opens a file */
                n = 0;
                rc = -EMFILE;
                continue;
            }
            SHOULD(rc == -EMFILE || (rc == 0 && n > 1));
        }
    }
    return 0;
}

Test(process, system_calls_fail)
{
    RUN_CLEAN(fails_inside(), 0);
}

/* ---- its surroundings ---------------------------------------------------------------------- */

/* What it writes, as text that lives until the next. */
static const char *said(const struct mag_process_options *o)
{
    static char text[1 << 12];
    struct mag_process p;
    struct mag_str out;
    int rc = mag_process_start(&p, o);

    if (rc == 0)
        rc = mag_process_communicate(&p, NULL, 0, &out, NULL, sizeof text - 1);
    snprintf(text, sizeof text, "%s", rc < 0 ? mag_err_name(rc) : out.ptr ? out.ptr : "");
    mag_process_close(&p);
    return text;
}

async(void, surroundings)
{
    const char *const envp[] = { "COLOUR=green", NULL };
    char own[64];

    SHOULD(strcmp(said(SHELL("pwd", .cwd = "/usr", .out = PIPE)), "/usr\n") == 0);
    SHOULD(strcmp(said(SHELL("echo $COLOUR$HOME", .envp = envp, .out = PIPE)), "green\n") == 0);
    setenv("MAG_TEST_SEES", "this", 1);
    SHOULD(strcmp(said(SHELL("echo $MAG_TEST_SEES", .out = PIPE)), "this\n") == 0);
    SHOULD(strcmp(said(SHELL("read x; echo got $x", .in = { MAG_STDIO_NULL, 0 }, .out = PIPE)),
                  "got\n") == 0);
    SHOULD(
        strcmp(said(SHELL("echo out; echo err >&2", .out = PIPE, .err = { MAG_STDIO_TO_OUT, 0 })),
               "out\nerr\n") == 0);
    SHOULD(strcmp(said(SHELL("kill -PIPE $$; echo alive", .out = PIPE)), "") == 0);
    SHOULD(strcmp(said(SHELL("grep SigBlk /proc/self/status", .out = PIPE)),
                  "SigBlk:\t0000000000000000\n") == 0);
    /* the third word is the process, the fifth its group, the sixth its session */
    SHOULD(strcmp(said(SHELL("set -- $(cat /proc/$$/stat); test $1 = $5 && echo first",
                             .new_group = true, .out = PIPE)),
                  "first\n") == 0);
    SHOULD(strcmp(said(SHELL("set -- $(cat /proc/$$/stat); test $1 = $6 && echo first",
                             .new_session = true, .out = PIPE)),
                  "first\n") == 0);
    snprintf(own, sizeof own, "%d\n", (int)getpgid(0));
    SHOULD(strcmp(said(SHELL("set -- $(cat /proc/$$/stat); echo $5", .out = PIPE)), own) == 0);
    return 0;
}

Test(process, surroundings)
{
    RUN_CLEAN(surroundings(), 0);
}

/* A program sees 0, 1, 2, and what ls itself opens. */
async(void, descriptors_of_it, (bool, keep_fds), (const char *, seen))
{
    SHOULD(strcmp(said(SHELL("test -e /proc/self/fd/77 && echo yes || echo no", .out = PIPE,
                             .in = PIPE, .keep_fds = keep_fds)),
                  seen) == 0);
    SHOULD(strcmp(said(SHELL("ls -1 /proc/self/fd | wc -l", .out = PIPE, .in = PIPE, .err = PIPE)),
                  "4\n") == 0);
    return 0;
}

Test(process, descriptors_are_not_inherited)
{
    int null = open("/dev/null", O_RDONLY);

    cr_assert_eq(dup2(null, 77), 77);
    RUN_CLEAN(descriptors_of_it(false, "no\n"), 0);
    RUN_CLEAN(descriptors_of_it(true, "yes\n"), 0);
    close(77);
    close(null);
}

async(void, crossed, (int, a), (int, b))
{
    char buf[16] = "";

    /* 0 and 1 of the program change places */
    SHOULD(status_of(SHELL("read x; echo $x $x", .in = { MAG_STDIO_FD, b },
                           .out = { MAG_STDIO_FD, a })) == 0);
    SHOULD(read(a, buf, sizeof buf - 1) == 0);
    SHOULD(lseek(a, 0, SEEK_SET) == 0 && read(a, buf, sizeof buf - 1) == 6);
    SHOULD(strcmp(buf, "hi hi\n") == 0);
    SHOULD(lseek(b, 0, SEEK_SET) == 0 && ftruncate(a, 0) == 0 && lseek(a, 0, SEEK_SET) == 0);
    return 0;
}

/* In a program that has closed its own standard descriptors, or shuffled them. */
async(void, low_pipes)
{
    SHOULD(strcmp(said(SHELL("cat; echo done", .in = PIPE, .out = PIPE, .err = PIPE)), "done\n") ==
           0);
    return 0;
}

Test(process, low_descriptors)
{
    char name[] = "/tmp/mag-process-XXXXXX", name2[] = "/tmp/mag-process-XXXXXX";
    int b = mkstemp(name), a = mkstemp(name2), rcs[2];

    cr_assert_eq(write(b, "hi\n", 3), 3);
    cr_assert_eq(lseek(b, 0, SEEK_SET), 0);
    int saved0 = dup(0), saved1 = dup(1);
    dup2(a, 0);
    dup2(b, 1);
    rcs[0] = mag_run(crossed(0, 1), NULL);
    close(0);
    close(1);
    rcs[1] = mag_run(low_pipes(), NULL);
    dup2(saved0, 0);
    dup2(saved1, 1);
    unlink(name);
    unlink(name2);
    cr_assert_eq(rcs[0], 0, "line %d: %s", broken_line, broken_claim);
    cr_assert_eq(rcs[1], 0, "line %d: %s", broken_line, broken_claim);
    cr_assert(!has_children());
}

/* ---- pipes ------------------------------------------------------------------------------------ */

async(void, pipes)
{
    async_with(
        mag_process, p,
        &(struct mag_process_options){ .argv = PROGRAM("/bin/cat"), .in = PIPE, .out = PIPE })
    {
        char buf[8] = "";

        SHOULD(p->in >= 0 && p->out >= 0 && p->err == -1);
        SHOULD(fcntl(p->in, F_GETFD) & FD_CLOEXEC && fcntl(p->out, F_GETFD) & FD_CLOEXEC);
        SHOULD(fcntl(p->pidfd, F_GETFD) & FD_CLOEXEC);
        SHOULD(write(p->in, "meow", 4) == 4);
        SHOULD(read(p->out, buf, sizeof buf) == 4 && strcmp(buf, "meow") == 0);
        close(p->in);
        p->in = -1;
        int status = -1;
        await(mag_process_wait(p, &status));
        SHOULD(status == 0);
    }
    return 0;
}

Test(process, pipes)
{
    RUN_CLEAN(pipes(), 0);
}

enum { BIG = 3 * 1000 * 1000 + 7 };

async(void, talks_much)
{
    static char big[BIG];
    struct mag_str out, err;

    for (int i = 0; i < BIG; i++)
        big[i] = (char)(i * 7 + i / 1000);
    async_with(mag_process, p, SHELL("tee /dev/stderr", .in = PIPE, .out = PIPE, .err = PIPE))
    {
        await(mag_process_communicate(p, big, BIG, &out, &err, 0));
        SHOULD(out.len == BIG && memcmp(out.ptr, big, BIG) == 0 && out.ptr[BIG] == 0);
        SHOULD(err.len == BIG && memcmp(err.ptr, big, BIG) == 0);
        SHOULD(p->in == -1 && p->out == -1 && p->err == -1);
    }
    return 0;
}

Test(process, communicates_more_than_pipes_hold)
{
    RUN_CLEAN(talks_much(), 0);
}

async(void, talks)
{
    struct mag_str out, err;
    int status = 0;

    async_with(mag_process, p,
               SHELL("cat; echo oops >&2; exit 3", .in = PIPE, .out = PIPE, .err = PIPE))
    {
        await(mag_process_communicate(p, "hello", 5, &out, &err, 100));
        SHOULD(is_str(out, "hello") && is_str(err, "oops\n"));
        await(mag_process_wait(p, &status));
        SHOULD(status == 3);
    }
    async_with(mag_process, p, SHELL("echo x; echo y >&2", .out = PIPE, .err = PIPE))
    {
        await(mag_process_communicate(p, NULL, 0, NULL, &err, 2)); /* the other is not kept */
        SHOULD(is_str(err, "y\n"));
    }
    async_with(mag_process, p, SHELL("exit 0"))
    {
        SHOULD(mag_process_communicate(p, "x", 1, &out, &err, 0) == -EINVAL);
        await(mag_process_communicate(p, NULL, 0, &out, &err, 0));
        SHOULD(out.ptr == NULL && out.len == 0 && err.ptr == NULL);
    }
    return 0;
}

Test(process, communicates)
{
    RUN_CLEAN(talks(), 0);
}

Test(process, communicates_in_tasks_only)
{
    struct mag_process p;

    cr_assert_eq(mag_process_start(&p, SHELL("exit 0", .out = PIPE)), 0);
    cr_assert_eq(mag_process_communicate(&p, NULL, 0, NULL, NULL, 0), -ENXIO);
    cr_assert_eq(mag_process_close(&p), 0);
    cr_assert_eq(mag_process_communicate(&p, NULL, 0, NULL, NULL, 0), -ESRCH);
}

/* Who does not read is no error, and no SIGPIPE kills us. */
async(void, nobody_reads)
{
    static char big[BIG];
    struct mag_str out;

    async_with(mag_process, p, SHELL("exec <&-; echo enough", .in = PIPE, .out = PIPE))
    {
        await(mag_process_communicate(p, big, BIG, &out, NULL, 0));
        SHOULD(is_str(out, "enough\n"));
    }
    return 0;
}

Test(process, nobody_reads_the_input)
{
    struct sigaction dfl = { .sa_handler = SIG_DFL };

    sigaction(SIGPIPE, &dfl, NULL);
    RUN_CLEAN(nobody_reads(), 0);
}

async(void, limited)
{
    struct mag_str out = { 0 }, err = { 0 };

    async_with(mag_process, p, SHELL("yes", .out = PIPE, .err = PIPE))
    {
        SHOULD(mag_process_communicate(p, NULL, 0, &out, &err, 1000) == -EFBIG);
        SHOULD(out.ptr == NULL && kill(p->pid, 0) == 0);
    }
    async_with(mag_process, p, SHELL("printf 12345", .out = PIPE))
    {
        await(mag_process_communicate(p, NULL, 0, &out, NULL, 5));
        SHOULD(is_str(out, "12345"));
    }
    async_with(mag_process, p, SHELL("printf 123456", .out = PIPE))
    {
        SHOULD(mag_process_communicate(p, NULL, 0, &out, NULL, 5) == -EFBIG);
    }
    return 0;
}

Test(process, output_is_limited)
{
    RUN_CLEAN(limited(), 0);
}

async(void, no_memory)
{
    bool has_failed = false;

    /* other threads allocate too, and may be the one that fails: then again */
    for (uint64_t n = 1; n < 30 || (!has_failed && n < 300); n++) {
        async_with(mag_process, p,
                   SHELL("echo x; echo y >&2", .in = PIPE, .out = PIPE, .err = PIPE))
        {
            struct mag_str out, err;
            int rc;

            mag_mem_fail_nth(n % 30 + 1, false);
            rc = mag_process_communicate(p, "z", 1, &out, &err, 0);
            mag_mem_fail_nth(0, false);
            SHOULD(rc == -ENOMEM || (rc == 0 && is_str(out, "x\n") && is_str(err, "y\n")));
            has_failed |= rc < 0;
        }
    }
    SHOULD(has_failed);
    return 0;
}

Test(process, communicates_without_memory)
{
    RUN_CLEAN(no_memory(), 0);
}

/* ---- signals --------------------------------------------------------------------------------------- */

async(void, signalled)
{
    int status = 0;

    async_with(mag_process, p, SHELL("exec sleep 60"))
    {
        SHOULD(mag_process_signal(p, 0) == 0);
        SHOULD(mag_process_signal(p, 9999) == -EINVAL);
        SHOULD(mag_process_signal(p, SIGTERM) == 0);
        await(mag_process_wait(p, &status));
        SHOULD(status == -SIGTERM);
        SHOULD(mag_process_signal(p, SIGTERM) == -ESRCH);
        SHOULD(mag_process_kill(p) == -ESRCH);
    }
    async_with(mag_process, p, SHELL("exec sleep 60"))
    {
        SHOULD(mag_process_kill(p) == 0);
        await(mag_process_wait(p, &status));
        SHOULD(status == -SIGKILL);
    }
    return 0;
}

Test(process, signalled)
{
    RUN_CLEAN(signalled(), 0);
}

/* What a group's first process has started dies with it: its end of the pipe is closed. */
async(void, group_dies)
{
    struct mag_process p;
    char c;
    int kept;

    await(mag_process_start(&p, SHELL("sleep 60 & echo x; wait", .new_group = true, .out = PIPE)));
    SHOULD(read(p.out, &c, 1) == 1);
    kept = dup(p.out);
    SHOULD(mag_process_close(&p) == 0);
    SHOULD(read(kept, &c, 1) == 1 && read(kept, &c, 1) == 0);
    close(kept);

    /* the first has ended, and was not waited for */
    await(mag_process_start(&p, SHELL("sleep 60 & echo x", .new_session = true, .out = PIPE)));
    await(mag_poll_fd(p.pidfd, POLLIN));
    kept = dup(p.out);
    SHOULD(mag_process_close(&p) == 0);
    SHOULD(read(kept, &c, 1) == 1 && read(kept, &c, 1) == 1 && read(kept, &c, 1) == 0);
    close(kept);
    return 0;
}

Test(process, a_group_dies_together)
{
    RUN_CLEAN(group_dies(), 0);
}

/* ---- cancellation ------------------------------------------------------------------------------------- */

async(void, sleeps, (int *, pid))
{
    async_with(mag_process, p, SHELL("exec sleep 60", .in = PIPE, .out = PIPE))
    {
        mag_store_release(pid, p->pid);
        await(mag_process_wait(p, NULL));
    }
    return 0;
}

async(void, cancelled)
{
    mag_atomic(int) pid = 0;
    struct sleeps *t = spawn(sleeps(&pid));

    while (mag_load_acquire(&pid) == 0)
        await(mag_yield());
    SHOULD(kill(pid, 0) == 0);
    mag_cancel(t);
    SHOULD(await_rc(t, NULL) == -ECANCELED);
    SHOULD(kill(pid, 0) < 0 && errno == ESRCH);
    pid = 0;
    SHOULD(wait_for(sleeps(&pid), 20 * MAG_MS, NULL) == -ETIMEDOUT);
    return 0;
}

Test(process, killed_when_cancelled)
{
    RUN_CLEAN(cancelled(), 0);
}

/* By hand, in a task that is cancelled already. */
async(void, closes_cancelled)
{
    struct mag_process p;

    await(mag_process_start(&p, SHELL("exec sleep 60")));
    mag_cancel(mag_self());
    SHOULD(mag_process_wait(&p, NULL) == -ECANCELED);
    SHOULD(mag_process_close(&p) == 0 && !has_children());
    return 0;
}

Test(process, closed_although_cancelled)
{
    RUN_CLEAN(closes_cancelled(), 0);
}

/* Somebody reads its output, which a child of the child keeps open, as long as we want. */
async(int, reads_one, (int, fd), (uint32_t *, has_begun))
{
    char c;

    mag_store_release(has_begun, 1);
    return mag_read(fd, &c, 1);
}

async(void, closes_while_read)
{
    struct mag_process p;
    uint32_t has_begun = 0;
    int ends[2];
    char c;

    SHOULD(pipe2(ends, O_CLOEXEC) == 0);
    SHOULD(mag_process_start(&p, SHELL("exec 3<&0; cat <&3 & printf x; wait",
                                       .in = { MAG_STDIO_FD, ends[0] }, .out = PIPE)) == 0);
    close(ends[0]);
    SHOULD(mag_read(p.out, &c, 1) == 1); /* now it has its child */
    __auto_type reader = spawn(reads_one(p.out, &has_begun));
    while (!mag_load_acquire(&has_begun))
        await(mag_yield());
    await(mag_sleep(5 * MAG_MS));
    SHOULD(mag_process_close(&p) == 0);
    SHOULD(await_rc(reader, NULL) == -EBADF);
    SHOULD(write(ends[1], "x", 1) == 1); /* the child's child is still there */
    close(ends[1]);
    return 0;
}

Test(process, closed_while_somebody_reads)
{
    RUN_CLEAN(closes_while_read(), 0);
}

async(int, waits_for, (struct mag_process *, p))
{
    return mag_process_wait(p, NULL);
}

async(int, talks_to, (struct mag_process *, p))
{
    struct mag_str out;

    return mag_process_communicate(p, NULL, 0, &out, NULL, 0);
}

async(void, closes_while_used)
{
    struct mag_process p;
    int said[2], kept[2], n = 1;
    char c;

    for (int i = 0; i < 20; i++) {
        SHOULD(mag_process_start(&p, SHELL("exec sleep 60")) == 0);
        __auto_type waiter = spawn(waits_for(&p));
        await(mag_sleep(2 * MAG_MS));
        SHOULD(mag_process_close(&p) == 0);
        int rc = await_rc(waiter, NULL);
        SHOULD(rc == 0 || rc == -EBADF || rc == -ESRCH);
    }
    SHOULD(pipe2(said, O_CLOEXEC) == 0 && pipe2(kept, O_CLOEXEC) == 0);
    SHOULD(mag_process_start(&p, SHELL("exec 3<&0; echo x; cat <&3 & echo y >&2; wait",
                                       .in = { MAG_STDIO_FD, kept[0] }, .out = PIPE,
                                       .err = { MAG_STDIO_FD, said[1] })) == 0);
    __auto_type talker = spawn(talks_to(&p));
    SHOULD(mag_read(said[0], &c, 1) == 1);
    while (ioctl(p.out, FIONREAD, &n) == 0 && n > 0) /* it has not begun to read */
        await(mag_sleep(MAG_MS));
    close(said[0]);
    close(said[1]);
    SHOULD(mag_process_close(&p) == 0);
    SHOULD(await_rc(talker, NULL) == -EBADF);
    close(kept[0]);
    close(kept[1]);
    return 0;
}

Test(process, closed_while_somebody_waits)
{
    RUN_CLEAN(closes_while_used(), 0);
}

/* A cancel leaves the process, and communicate, as they are. */
async(void, wait_timed_out)
{
    async_with(mag_process, p, SHELL("read x; exit 6", .in = PIPE, .out = PIPE))
    {
        struct mag_scope s;
        int status = 0;

        SHOULD(mag_timeout_enter(&s, 10 * MAG_MS, NULL) == 0);
        SHOULD(mag_scope_leave(&s, mag_process_wait(p, NULL)) == -ETIMEDOUT);
        SHOULD(kill(p->pid, 0) == 0 && write(p->in, "\n", 1) == 1);
        await(mag_process_wait(p, &status));
        SHOULD(status == 6);
    }
    return 0;
}

Test(process, a_wait_may_time_out)
{
    RUN_CLEAN(wait_timed_out(), 0);
}

async(void, talk_timed_out, (const char *, command), (size_t, n))
{
    static char big[BIG];

    async_with(mag_process, p, SHELL(command, .in = PIPE, .out = PIPE, .err = PIPE))
    {
        struct mag_str out, err;
        struct mag_scope s;

        SHOULD(mag_timeout_enter(&s, 15 * MAG_MS, NULL) == 0);
        SHOULD(mag_scope_leave(&s, mag_process_communicate(p, big, n, &out, &err, 0)) ==
               -ETIMEDOUT);
        SHOULD(kill(p->pid, 0) == 0);
    }
    return 0;
}

Test(process, communicate_may_time_out)
{
    RUN_CLEAN(talk_timed_out("exec sleep 60", 0), 0);
    RUN_CLEAN(talk_timed_out("exec sleep 60", BIG), 0);
    RUN_CLEAN(talk_timed_out("exec sleep 60 >&- 2>&-", 0), 0);
}

async(void, many_at_once)
{
    struct waiter *w[20];
    struct mag_process p[20];
    int r[20];

    for (int i = 0; i < 20; i++) {
        char command[32];

        snprintf(command, sizeof command, "exit %d", i);
        await(mag_process_start(&p[i], SHELL(command)));
        w[i] = waiter(&p[i]);
    }
    gather_n(r, w, 20);
    for (int i = 0; i < 20; i++) {
        SHOULD(r[i] == i);
        mag_process_close(&p[i]);
    }
    return 0;
}

Test(process, many_at_once)
{
    RUN_CLEAN(many_at_once(), 0);
}

/* The runtime ends while it runs: its task, given up, is cancelled, and cleans up. */
async(void, gives_up, (int *, pid))
{
    mag_detach(spawn(sleeps(pid)));
    while (mag_load_acquire(pid) == 0)
        await(mag_yield());
    return 0;
}

Test(process, the_runtime_stops)
{
    static mag_atomic(int) pid;

    for (int i = 0; i < 3; i++) {
        pid = 0;
        RUN_STORY(2, gives_up(&pid), 0, "");
        cr_assert(!has_children());
    }
}

static mag_atomic(int) rc_of_callback;

static void in_callback(void *arg)
{
    (void)arg;
    mag_store_release(&rc_of_callback, status_of(SHELL("exit 0")));
}

async(void, calls_back)
{
    rc_of_callback = 1;
    await(mag_call_soon(in_callback, NULL));
    while (mag_load_acquire(&rc_of_callback) == 1)
        await(mag_yield());
    SHOULD(rc_of_callback == -ENXIO - 1000);
    return 0;
}

Test(process, not_in_a_callback)
{
    RUN_CLEAN(calls_back(), 0);
}
