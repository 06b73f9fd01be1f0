/* SPDX-License-Identifier: MIT */
/*
 * inspect.c - what are my tasks doing?
 *
 *      inspect             all of the following
 *      inspect tree        who awaits whom, and what each waits for
 *      inspect stack       where a suspended task stands
 *      inspect table       the same as data: a line for each task
 *      inspect slow        a task that does not suspend, and how it is told
 *      inspect workers     figures of each worker
 *      inspect --help
 *
 * The program is a small bank.  Clerks serve customers: each looks up an account, which takes
 * a while, and writes to the ledger, for which there is one pen.
 *
 * A program of yours that seems to hang needs none of these calls: start it with
 * MAGPIE_DEBUG=1 and press Ctrl-\, and it prints the tree.
 */
#include <magpie/async.h>

#include <stdlib.h>
#include <string.h>

static struct mag_mutex pen;

/* ---- the bank ------------------------------------------------------------------------ */

async(int, look_up, (int, account))
{
    await(mag_sleep(50 * MAG_MS));
    async_return(account * 100);
}

async(int, serve, (int, customer))
{
    int amount = await(look_up(customer)); /* in place: part of this task */

    await(mag_mutex_lock(&pen));
    int rc = mag_sleep(20 * MAG_MS);
    mag_mutex_unlock(&pen);
    if (rc < 0)
        return rc;
    async_return(amount);
}

async(int, clerk, (int, first))
{
    int amounts[3];

    gather(amounts, serve(first), serve(first + 1), serve(first + 2));
    async_return(amounts[0] + amounts[1] + amounts[2]);
}

async_future(void, closing_time);

async(void, janitor, (struct closing_time *, closing))
{
    await(closing);
    return 0;
}

/* ---- the sections --------------------------------------------------------------------- */

async(void, tree)
{
    struct closing_time *closing = closing_time();
    struct clerk        *a = spawn(clerk(1)), *b = spawn_opts(clerk(4), .name = "the new clerk");
    struct janitor      *j = spawn(janitor(closing));

    await(mag_sleep(65 * MAG_MS)); /* now some look up, one writes, the others want the pen */
    await(mag_dump(NULL, stdout));
    int sum = await(a) + await(b);
    future_set(closing);
    await(j);
    printf("all served: %d\n", sum);
    return 0;
}

async(void, stack)
{
    struct clerk *a = spawn(clerk(1));

    await(mag_sleep(10 * MAG_MS));
    puts("the clerk:");
    await(mag_print_stack(a, stdout));
    puts("whoever asks:");
    await(mag_print_stack(NULL, stdout));
    (void)await(a);
    return 0;
}

async(void, table)
{
    struct clerk        *a = spawn(clerk(1));
    struct mag_task_info tasks[16];

    await(mag_sleep(10 * MAG_MS));
    size_t n = mag_tasks(NULL, tasks, 16);
    for (size_t i = 0; i < n && i < 16; i++)
        printf("%-8s %-8s %-6s awaited by %s\n", tasks[i].name,
               mag_task_state_name(tasks[i].state),
               tasks[i].waiting_for ? tasks[i].waiting_for : "-",
               tasks[i].awaited_by ? mag_name(tasks[i].awaited_by) : "nobody");
    (void)await(a);
    return 0;
}

/* The mistake: it computes, and nothing else of its worker can run. */
async(unsigned, bad_example, (unsigned, n))
{
    mag_time end = mag_now() + 400 * MAG_MS;

    while (mag_now() < end)
        n = n * 1664525 + 1013904223;
    async_return(n);
}

async(void, slow)
{
    struct bad_example *bad = spawn(bad_example(1));

    await(mag_sleep(10 * MAG_MS));
    (void)await(bad);
    puts("told on standard error, while it happened");
    return 0;
}

async(void, workers)
{
    struct mag_worker_stats s;

    struct clerk *clerks[6];

    for (int i = 0; i < 6; i++)
        clerks[i] = spawn(clerk(3 * i));
    for (int i = 0; i < 6; i++)
        (void)await(clerks[i]);
    for (unsigned i = 1; i <= mag_rt_workers(mag_rt_self()); i++) {
        await(mag_rt_stats(NULL, i, &s));
        printf("worker %u: %llu tasks begun, %llu ended, %llu steals, %zu timers, %s\n", i,
               (unsigned long long)s.tasks_begun, (unsigned long long)s.tasks_ended,
               (unsigned long long)s.steals, s.timers,
               s.is_running ? "runs" : s.is_parked ? "sleeps" : "looks for work");
    }
    return 0;
}

/* ---- the program -------------------------------------------------------------------------- */

static const struct section {
    const char *name;
    void *(*coroutine)(void);
} sections[] = {
    { "tree", (void *(*)(void))tree },
    { "stack", (void *(*)(void))stack },
    { "table", (void *(*)(void))table },
    { "slow", (void *(*)(void))slow },
    { "workers", (void *(*)(void))workers },
};

static int usage(FILE *to)
{
    fputs("usage: inspect [tree | stack | table | slow | workers]\n\n"
          "Shows what tasks are doing, in as many ways.\n",
          to);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    int n = 0;

    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    if (argc > 2)
        return usage(stderr);
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        if (argc == 2 && strcmp(argv[1], sections[i].name) != 0)
            continue;
        printf("---- %s\n", sections[i].name);
        fflush(stdout);
        if (mag_run(sections[i].coroutine(), NULL) < 0)
            return 1;
        n++;
    }
    return n ? 0 : usage(stderr);
}
