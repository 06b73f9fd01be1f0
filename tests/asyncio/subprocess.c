/* SPDX-License-Identifier: MIT */
/* subprocess.c - what CPython's suite pins for processes and signals (test_subprocess.py,
 * test_unix_events.py: SelectorEventLoopSignalTests) */
#include "atomic.h"
#include "children.h"

#include <magpie/signal.h>

TestSuite(subprocess, .timeout = 60);

enum { PIPE_MAX_SIZE = 4 * 1024 * 1024 + 1 }; /* support.PIPE_MAX_SIZE */

#define PROGRAM_BLOCKED (&(struct mag_process_options){ .argv = PROGRAM("sleep", "3600") })
#define PROGRAM_CAT \
    { \
        .argv = PROGRAM("cat"), .in = PIPE, .out = PIPE \
    }

static int returncode(struct mag_process *p)
{
    int status = 12345, rc = mag_process_wait(p, &status);

    return rc < 0 ? rc - 1000 : status;
}

/* Each in a task, and the child is gone afterwards. */
#define CPYTHON(name) async(void, name)
#define RUNS(name) \
    Test(subprocess, name) \
    { \
        RUN_CLEAN(name(), 0); \
    }

CPYTHON(stdin_stdout)
{
    async_with(mag_process, p, &(struct mag_process_options)PROGRAM_CAT)
    {
        char data[32] = "";

        SHOULD(write(p->in, "some data", 9) == 9);
        close(p->in);
        p->in = -1;
        SHOULD(read(p->out, data, sizeof data) == 9 && strcmp(data, "some data") == 0);
        SHOULD(read(p->out, data, sizeof data) == 0);
        SHOULD(returncode(p) == 0);
    }
    return 0;
}
RUNS(stdin_stdout)

CPYTHON(communicate)
{
    async_with(mag_process, p, &(struct mag_process_options)PROGRAM_CAT)
    {
        struct mag_str out, err;

        await(mag_process_communicate(p, "some data", 9, &out, &err, 0));
        SHOULD(is_str(out, "some data") && err.ptr == NULL);
        SHOULD(returncode(p) == 0);
    }
    return 0;
}
RUNS(communicate)

CPYTHON(shell)
{
    async_with(mag_process, p, SHELL("exit 7")) SHOULD(returncode(p) == 7);
    return 0;
}
RUNS(shell)

CPYTHON(start_new_session)
{
    async_with(mag_process, p, SHELL("exit 8", .new_session = true)) SHOULD(returncode(p) == 8);
    return 0;
}
RUNS(start_new_session)

CPYTHON(kill_it)
{
    async_with(mag_process, p, PROGRAM_BLOCKED)
    {
        SHOULD(mag_process_kill(p) == 0);
        SHOULD(returncode(p) == -SIGKILL);
    }
    return 0;
}
RUNS(kill_it)

/* bpo-43884: a shell that is not the last process; its child keeps the pipe open. */
CPYTHON(kill_issue43884)
{
    async_with(mag_process, p, SHELL("sleep 1; sleep 1", .out = PIPE))
    {
        await(mag_sleep(10 * MAG_MS));
        SHOULD(mag_process_kill(p) == 0);
        SHOULD(returncode(p) == -SIGKILL);
    }
    return 0;
}
RUNS(kill_issue43884)

CPYTHON(terminate)
{
    async_with(mag_process, p, PROGRAM_BLOCKED)
    {
        SHOULD(mag_process_signal(p, SIGTERM) == 0);
        SHOULD(returncode(p) == -SIGTERM);
    }
    return 0;
}
RUNS(terminate)

CPYTHON(send_signal)
{
    async_with(mag_process, p, SHELL("echo sleeping; exec sleep 3600", .out = PIPE))
    {
        char line[16] = "";

        SHOULD(read(p->out, line, sizeof line) == 9 && strcmp(line, "sleeping\n") == 0);
        SHOULD(mag_process_signal(p, SIGHUP) == 0);
        SHOULD(returncode(p) == -SIGHUP);
    }
    return 0;
}
RUNS(send_signal)

static char large_data[PIPE_MAX_SIZE];

CPYTHON(communicate_ignore_broken_pipe)
{
    async_with(mag_process, p, SHELL("exit 0", .in = PIPE))
    {
        await(mag_process_communicate(p, large_data, sizeof large_data, NULL, NULL, 0));
        SHOULD(returncode(p) == 0);
    }
    async_with(mag_process, p, SHELL("exit 0", .in = PIPE))
    {
        SHOULD(returncode(p) == 0); /* it has ended before */
        await(mag_process_communicate(p, large_data, sizeof large_data, NULL, NULL, 0));
    }
    return 0;
}
RUNS(communicate_ignore_broken_pipe)

CPYTHON(stdin_not_inheritable)
{
    async_with(mag_process, p, SHELL("wc -c", .in = PIPE, .out = PIPE))
    {
        struct mag_str out;
        /* another process that had our end would keep it open */
        async_with(mag_process, other, PROGRAM_BLOCKED)
        {
            await(mag_process_communicate(p, "hello", 5, &out, NULL, 0));
            SHOULD(atoi(out.ptr) == 5);
            SHOULD(mag_process_signal(other, 0) == 0);
        }
    }
    return 0;
}
RUNS(stdin_not_inheritable)

CPYTHON(empty_input)
{
    async_with(mag_process, p, SHELL("wc -c", .in = PIPE, .out = PIPE))
    {
        struct mag_str out;

        await(mag_process_communicate(p, "", 0, &out, NULL, 0));
        SHOULD(atoi(out.ptr) == 0 && returncode(p) == 0);
    }
    return 0;
}
RUNS(empty_input)

CPYTHON(devnull_input)
{
    async_with(mag_process, p, SHELL("wc -c", .in = { MAG_STDIO_NULL, 0 }, .out = PIPE))
    {
        struct mag_str out;

        SHOULD(p->in == -1);
        await(mag_process_communicate(p, NULL, 0, &out, NULL, 0));
        SHOULD(atoi(out.ptr) == 0 && returncode(p) == 0);
    }
    return 0;
}
RUNS(devnull_input)

CPYTHON(devnull_output)
{
    async_with(mag_process, p, SHELL("cat; echo x", .in = PIPE, .out = { MAG_STDIO_NULL, 0 }))
    {
        struct mag_str out;

        await(mag_process_communicate(p, "abc", 3, &out, NULL, 0));
        SHOULD(p->out == -1 && out.ptr == NULL && returncode(p) == 0);
    }
    return 0;
}
RUNS(devnull_output)

CPYTHON(devnull_error)
{
    async_with(mag_process, p, SHELL("echo x >&2", .err = { MAG_STDIO_NULL, 0 }))
    {
        struct mag_str err;

        await(mag_process_communicate(p, NULL, 0, NULL, &err, 0));
        SHOULD(err.ptr == NULL && returncode(p) == 0);
    }
    return 0;
}
RUNS(devnull_error)

async(void, waits, (struct mag_process *, p))
{
    return mag_process_wait(p, NULL);
}

CPYTHON(cancel_process_wait)
{
    async_with(mag_process, p, PROGRAM_BLOCKED)
    {
        struct waits *t = spawn(waits(p));

        await(mag_sleep(5 * MAG_MS));
        mag_cancel(t);
        SHOULD(await_rc(t, NULL) == -ECANCELED);
        SHOULD(mag_process_kill(p) == 0); /* the process is as it was */
        SHOULD(returncode(p) == -SIGKILL);
    }
    return 0;
}
RUNS(cancel_process_wait)

async(void, blocked)
{
    async_with(mag_process, p, PROGRAM_BLOCKED) await(mag_sleep(MAG_NEVER));
    return 0;
}

/* At whatever moment of the start: no process is left. */
CPYTHON(cancel_make_subprocess)
{
    for (int i = 0; i < 20; i++) {
        struct blocked *t = spawn(blocked());

        await(mag_sleep(i * 100 * MAG_US));
        mag_cancel(t);
        SHOULD(await_rc(t, NULL) == -ECANCELED);
        SHOULD(!has_children());
    }
    return 0;
}
RUNS(cancel_make_subprocess)

CPYTHON(close_kill_running)
{
    struct mag_process p;

    await(mag_process_start(&p, PROGRAM_BLOCKED));
    SHOULD(mag_process_close(&p) == 0);
    SHOULD(!has_children());
    return 0;
}
RUNS(close_kill_running)

CPYTHON(close_dont_kill_finished)
{
    struct mag_process p;
    int status = -1;

    await(mag_process_start(&p, SHELL("exit 3")));
    await(mag_process_wait(&p, &status));
    SHOULD(status == 3 && mag_process_kill(&p) == -ESRCH);
    SHOULD(mag_process_close(&p) == 0);
    return 0;
}
RUNS(close_dont_kill_finished)

CPYTHON(popen_error)
{
    struct mag_process p;

    SHOULD(mag_process_start(&p, &(struct mag_process_options){
                                     .argv = PROGRAM("/no/such/program") }) == -ENOENT);
    SHOULD(mag_process_start(&p, &(struct mag_process_options){ .argv = PROGRAM("/no/such/program"),
                                                                .in = PIPE }) == -ENOENT);
    return 0;
}
RUNS(popen_error)

/* All of it is there when the process has ended long ago. */
CPYTHON(read_stdout_after_process_exit)
{
    async_with(mag_process, p, SHELL("echo x; sleep 0.005; echo y", .out = PIPE))
    {
        struct mag_str out;

        SHOULD(returncode(p) == 0);
        await(mag_process_communicate(p, NULL, 0, &out, NULL, 0));
        SHOULD(is_str(out, "x\ny\n"));
    }
    return 0;
}
RUNS(read_stdout_after_process_exit)

CPYTHON(exec_with_path)
{
    async_with(mag_process, p, &(struct mag_process_options){ .argv = PROGRAM("true") })
        SHOULD(returncode(p) == 0);
    return 0;
}
RUNS(exec_with_path)

/* ---- signals ------------------------------------------------------------------------------ */

CPYTHON(add_signal_handler)
{
    int signo = 0;

    async_with(mag_signals, s, MAG_SIGNAL(SIGHUP))
    {
        kill(getpid(), SIGHUP);
        SHOULD(mag_signals_next(s, &signo) == 1 && signo == SIGHUP);
    }
    return 0;
}
RUNS(add_signal_handler)

/* test_check_signal, test_add_signal_handler_install_error3: refused, and nothing is changed. */
CPYTHON(add_signal_handler_install_error)
{
    struct mag_signals s;

    SHOULD(mag_signals_open(&s, MAG_SIGNAL(SIGKILL)) == -EINVAL);
    SHOULD(mag_signals_open(&s, 0) == -EINVAL);
    return 0;
}
RUNS(add_signal_handler_install_error)

/* test_remove_signal_handler, _2: the default is back, and twice is no error. */
CPYTHON(remove_signal_handler)
{
    struct sigaction now;
    struct mag_signals s;

    SHOULD(mag_signals_open(&s, MAG_SIGNAL(SIGHUP)) == 0);
    SHOULD(mag_signals_close(&s) == 0);
    SHOULD(sigaction(SIGHUP, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    SHOULD(mag_signals_close(&s) == 0);
    return 0;
}
RUNS(remove_signal_handler)
