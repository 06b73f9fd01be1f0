/* SPDX-License-Identifier: MIT */
#ifndef MAGPIE_INSPECT_H
#define MAGPIE_INSPECT_H
/*
 * inspect.h - what the tasks of a runtime are doing, and what they wait for
 *
 *      mag_dump(NULL, stderr);
 *
 *      runtime: 4 workers, 5 tasks: 1 running, 0 ready, 4 waiting
 *      main            worker 1  waiting for gather         spawned at server.c:310
 *        session       worker 2  waiting for task 'fetch'   spawned at server.c:290
 *          = fetch     worker 2  waiting for operation      created at session at server.c:41
 *        session       worker 3  waiting for mutex 0x7ffe.. spawned at server.c:290
 *        report        worker 1  running                    spawned at server.c:301
 *
 * A task stands below the one that awaits it; `=' marks a coroutine that runs in place, on
 * the stack of who awaits it.  A program that does not answer prints the same on SIGQUIT
 * (Ctrl-\) if MAGPIE_DEBUG=1 is set, or .dump_on_sigquit in struct mag_rt_options.
 *
 * Each worker describes its own tasks, between two of them, so what is said of one task is
 * true, but not all at the same instant: one that begins or ends meanwhile may be missing.  A
 * worker that does not get to it within 100 ms is busy, and its tasks are listed with what
 * can be seen from outside.
 *
 * `rt' may be NULL in a task: its own runtime.
 */
#include <magpie/task.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mag_task_state {
    MAG_TASK_CREATED, /* a coroutine that nobody has spawned or awaited        */
    MAG_TASK_READY,   /* it will run when a worker comes to it                 */
    MAG_TASK_RUNNING, /* it runs, or one runs that it awaits in place          */
    MAG_TASK_WAITING, /* it is suspended                                       */
    MAG_TASK_DONE     /* it has ended, and nobody has taken its result         */
};

/*
 * One task, as it was when it was looked at.  The pointers are for comparing: the task may
 * have ended since, and only who holds a handle may use it.
 */
struct mag_task_info {
    void *handle;  /* what mag_self() is in it                               */
    char name[48]; /* cut if it is longer                                    */
    enum mag_task_state state;
    bool is_busy;               /* its worker did not answer: the state is a guess        */
    bool is_in_place;           /* runs on the stack of awaited_by                        */
    unsigned worker;            /* 1..n, where it runs or is suspended; 0: nowhere yet    */
    const char *waiting_for;    /* "sleep", "mutex", "task" ...; NULL unless it waits     */
    const void *waiting_on;     /* the awaited handle, or the primitive's address; NULL   */
    char waiting_name[48];      /* of an awaited task or future, else ""                  */
    void *awaited_by;           /* handle of the task that awaits it; NULL: none is known */
    struct mag_site spawned_at; /* .file is NULL if it was not given                      */
    const void *made_at;        /* return address of its constructor, then; or NULL       */
};

/*
 * Describes up to n tasks to out[], in no particular order; returns how many there are, which
 * may be more than n, or 0 without memory.  In a task: suspends for a moment, not a
 * cancellation point; outside: blocks.  Up to 100 ms, if a worker is busy.
 */
MAG_API size_t mag_tasks(struct mag_rt *rt, struct mag_task_info *out, size_t n);

/* "created", "ready", "running", "waiting" or "done".  Any thread. */
MAG_API const char *mag_task_state_name(enum mag_task_state state);

/*
 * Prints all tasks as the tree of who awaits whom, and what each waits for; tasks that await
 * each other in a circle are named.  Returns the number of tasks; -ENOMEM; -ENXIO (rt is
 * NULL outside a task).  Suspends or blocks as mag_tasks; what it prints is for people and
 * may change.
 */
MAG_API int mag_dump(struct mag_rt *rt, FILE *to);

/*
 * Prints the C stack of a task, innermost call first, with the functions' names and lines;
 * NULL: of the caller.  A task that is suspended is looked at where it stands; one that
 * computes is interrupted by a signal (SIGURG).  Returns the number of calls; 0 and a
 * sentence for a task that has no stack (it has not started, has ended, or sleeps without
 * one), or that a callback on its own worker asks for; -EBUSY if its worker does not answer;
 * -ENOMEM, -ENXIO (NULL outside a task).  The caller holds the handle.  Suspends or blocks as
 * mag_tasks; names take milliseconds each.
 */
MAG_API int mag_print_stack(void *task, FILE *to);

/* Counts of one worker since it began, and how it is now. */
struct mag_worker_stats {
    uint64_t tasks_begun; /* spawned by tasks on this worker            */
    uint64_t tasks_ended; /* that it has run to their end               */
    uint64_t steals;      /* times it took tasks from another worker    */
    uint64_t parks;       /* times it went to sleep                     */
    size_t ready;         /* suspended tasks that can go on             */
    size_t unstarted;     /* spawned tasks that it has not begun        */
    size_t timers;        /* sleeps and deadlines                       */
    size_t operations;    /* given to the kernel, not completed         */
    bool is_parked;       /* asleep                                     */
    bool is_running;      /* in a task                                  */
};

/*
 * The figures of worker 1..n, read without stopping it: each is true, but they need not fit
 * together.  -EINVAL for another number; -ENXIO (rt is NULL outside a task).  Any thread;
 * never suspends.
 */
MAG_API int mag_rt_stats(struct mag_rt *rt, unsigned worker, struct mag_worker_stats *out);

#ifdef __cplusplus
}
#endif
#endif
