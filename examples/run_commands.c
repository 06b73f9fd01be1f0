/* SPDX-License-Identifier: MIT */
/*
 * run_commands.c - runs shell commands, several at a time, and prints what they say
 *
 *      run_commands [-j N] [-t SECONDS] COMMAND...
 *      run_commands --help
 *
 * Each COMMAND is given to /bin/sh; at most N (the number of processors, but at least 2) run at
 * a time.  What each has written comes in one piece, in the order of the arguments:
 *
 *      $ run_commands 'echo one' 'sleep 1; echo two' 'exit 3'
 *      == echo one
 *      one
 *      == sleep 1; echo two
 *      two
 *      == exit 3: status 3
 *
 * A command that takes longer than SECONDS is asked to stop (SIGTERM), and killed one second
 * later; so are all when SIGINT or SIGTERM comes.  A command is a process group, so that what
 * it has started stops with it.  None is left behind, whatever happens.
 *
 * OPTIONS
 *     -j N        at most N commands at a time
 *     -t SECONDS  for each command (a number such as 0.5)
 *
 * EXIT STATUS
 *     0 if all commands ended with 0; 1 if one did not; 2 for wrong usage; 130 when
 *     interrupted.
 */
#include <magpie/async.h>

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    EXIT_INTERRUPTED = 130,
    OUTPUT_MAX = 16 * 1024 * 1024, /* of a command, kept until its turn has come */
};

struct command {
    const char *text;
    mag_time limit;
    char *said; /* both its outputs; on the heap */
    size_t len;
    int status; /* exit status, -N for a signal */
    int rc;     /* why it could not be run, or was stopped */
};

/* ---- one command --------------------------------------------------------------------------- */

/* Politely first. */
static int stop(struct mag_process *p)
{
    int rc = mag_process_signal(p, SIGTERM);

    if (rc < 0)
        return rc; /* it has ended */
    with_timeout(MAG_SECOND) rc = mag_process_wait(p, NULL);
    return rc < 0 ? mag_process_kill(p) : 0;
}

/* A running command; async_with stops it however the block is left. */
struct job {
    struct mag_process process;
};

static int job_enter(struct job *j, const struct command *c)
{
    const char *const argv[] = { "/bin/sh", "-c", c->text, NULL };

    return mag_process_enter(&j->process, &(struct mag_process_options){
                                              .argv = argv,
                                              .in = { .kind = MAG_STDIO_NULL },
                                              .out = { .kind = MAG_STDIO_PIPE },
                                              .err = { .kind = MAG_STDIO_TO_OUT },
                                              .new_group = true,
                                          });
}

static void job_exit(struct job *j)
{
    stop(&j->process);
    mag_process_exit(&j->process);
}

async_resource(job)

    async(void, run_command, (struct command *, c))
{
    struct mag_str said;

    async_with(job, j, c)
    {
        with_timeout(c->limit)
            await(mag_process_communicate(&j->process, NULL, 0, &said, NULL, OUTPUT_MAX));
        await(mag_process_wait(&j->process, &c->status));
        c->said = malloc(said.len + 1);
        if (c->said == NULL)
            return -ENOMEM;
        memcpy(c->said, said.ptr, said.len);
        c->len = said.len;
    }
    return 0;
}

/* The same, and why not is the command's own affair; but a cancel stops everything. */
async(void, try_command, (struct command *, c))
{
    c->rc = await_rc(run_command(c), NULL);
    return c->rc == -ECANCELED ? c->rc : 0;
}

/* ---- all of them ------------------------------------------------------------------------------- */

struct plan {
    struct command *commands;
    size_t n, n_at_a_time;
    bool is_interrupted;
};

/* Cancels the group when a signal comes. */
async(void, watch_signals, (struct plan *, plan), (struct mag_group *, g))
{
    async_with(mag_signals, s, MAG_SIGNAL(SIGINT) | MAG_SIGNAL(SIGTERM))
        async_for(int, signo, mag_signals_iter(s))
    {
        fprintf(stderr, "run_commands: %s, stopping\n", strsignal(signo));
        plan->is_interrupted = true;
        mag_group_cancel(g);
        break;
    }
    return 0;
}

async(void, run_all, (struct plan *, plan))
{
    struct try_command **all = calloc(plan->n, sizeof *all);
    int rc = 0;

    if (all == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n; i++)
        all[i] = try_command(&plan->commands[i]);
    task_group(g)
    {
        struct watch_signals *watch = group_task(g, watch_signals(plan, g));

        rc = mag_gather(NULL, 0, (void **)all, plan->n,
                        &(struct mag_gather_options){ .limit = plan->n_at_a_time });
        mag_cancel(watch);
    }
    free(all);
    return plan->is_interrupted ? 0 : rc;
}

/* Whether it ended well. */
static bool print_command(const struct command *c)
{
    printf("== %s", c->text);
    if (c->rc < 0)
        printf(": %s", mag_err_text(c->rc));
    else if (c->status < 0)
        printf(": killed by %s", strsignal(-c->status));
    else if (c->status > 0)
        printf(": status %d", c->status);
    putchar('\n');
    if (c->len > 0)
        fwrite(c->said, 1, c->len, stdout);
    return c->rc == 0 && c->status == 0;
}

/* ---- the program ----------------------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fputs("usage: run_commands [-j N] [-t SECONDS] COMMAND...\n", to);
    return to == stdout ? 0 : EXIT_USAGE;
}

/* A shell that cannot be started would say so once for each command. */
static int try_shell(void)
{
    const char *const argv[] = { "/bin/sh", "-c", ":", NULL };
    struct mag_process p;
    int rc = mag_process_start(&p, &(struct mag_process_options){ .argv = argv });

    if (rc < 0)
        fprintf(stderr, "run_commands: /bin/sh: %s\n", mag_err_text(rc));
    mag_process_close(&p);
    return rc;
}

static int run_and_print(struct plan *plan, char **texts, mag_time limit)
{
    bool is_well = true;
    int rc;

    plan->commands = calloc(plan->n, sizeof *plan->commands);
    if (plan->commands == NULL)
        return 1;
    for (size_t i = 0; i < plan->n; i++)
        plan->commands[i] = (struct command){ .text = texts[i], .limit = limit, .rc = -ECANCELED };
    rc = mag_run(run_all(plan), NULL);
    if (rc < 0)
        fprintf(stderr, "run_commands: %s\n", mag_err_text(rc));
    for (size_t i = 0; i < plan->n; i++) {
        is_well &= print_command(&plan->commands[i]);
        free(plan->commands[i].said);
    }
    free(plan->commands);
    return plan->is_interrupted ? EXIT_INTERRUPTED : !is_well || rc < 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
    struct plan plan = { .n_at_a_time = 0 };
    double seconds = 0;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    int c;

    n = n < 2 ? 2 : n;
    while ((c = getopt_long(argc, argv, "+j:t:h", options, NULL)) != -1) {
        switch (c) {
        case 'j':
            n = strtol(optarg, NULL, 10);
            break;
        case 't':
            seconds = strtod(optarg, NULL);
            break;
        case 'h':
            return usage(stdout);
        default:
            return usage(stderr);
        }
        if (n < 1 || seconds < 0 || (c == 't' && !(seconds > 0)))
            return usage(stderr);
    }
    if (optind == argc)
        return usage(stderr);
    if (try_shell() < 0)
        return 1;
    plan.n = (size_t)(argc - optind);
    plan.n_at_a_time = (size_t)n;
    return run_and_print(&plan, argv + optind,
                         seconds > 0 ? (mag_time)(seconds * MAG_SECOND) : MAG_NEVER);
}
