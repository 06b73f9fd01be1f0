/* SPDX-License-Identifier: MIT */
/*
 * several.c - several downloads at once, and five ways to wait for them
 *
 *      several
 *      several --help
 *
 *      as_completed     handle each as it comes in
 *      mag_wait         look after the first, or after some time, and go on waiting
 *      race             the fastest mirror; the slower ones are cancelled
 *      mag_on_done      be told, without waiting
 *      mag_join_task    wait on a plain thread, with a limit
 *
 * EXIT STATUS
 *     0; 1 after an error; 2 for wrong usage.
 */
#include <magpie/async.h>

#include <stdio.h>
#include <string.h>

/* Stands for a download: its size in KiB, after a while. */
async(int, fetch, (const char *, name), (int, ms))
{
    await(mag_sleep(ms * MAG_MS));
    if (ms > 90)
        return -ETIMEDOUT;
    printf("  (%s is here)\n", name);
    async_return(ms * 10);
}

async(void, each_as_it_comes)
{
    struct fetch *all[] = { fetch("big", 60), fetch("small", 20), fetch("medium", 40) };

    puts("as they complete:");
    async_for(struct fetch *, one, as_completed(all, 3)) printf("  %d KiB\n", await(one));
    return 0;
}

/* Those that are waited for stay the caller's: each is awaited once, when it is done. */
async(void, in_rounds)
{
    void *all[] = { spawn(fetch("first", 10)), spawn(fetch("second", 40)),
                    spawn(fetch("late", 95)) };
    bool done[3];
    int n;

    n = await(mag_wait(all, 3, MAG_FIRST_COMPLETED, MAG_NEVER, done));
    printf("after the first: %d of 3\n", n);
    n = await(mag_wait(all, 3, MAG_ALL_COMPLETED, 50 * MAG_MS, done));
    printf("50 ms later: %d of 3\n", n);
    n = await(mag_wait(all, 3, MAG_FIRST_EXCEPTION, MAG_NEVER, done));
    printf("at the end: %d of 3\n", n);
    for (int i = 0; i < 3; i++) {
        int size = 0, rc = await_rc((struct fetch *)all[i], &size);
        printf("  %s, %d KiB\n", mag_err_name(rc), size);
    }
    return 0;
}

async(void, fastest)
{
    static const char *const mirrors[] = { "Oslo", "Porto", "Tallinn" };
    int size;
    size_t i = race(&size, fetch(mirrors[0], 50), fetch(mirrors[1], 15), fetch(mirrors[2], 95));

    printf("%s was the fastest: %d KiB\n", mirrors[i], size);
    return 0;
}

/* A callback: it runs where the task ends, and must not suspend. */
static void tell(void *arg, int rc, const void *result)
{
    printf("%s: %s, %d KiB\n", (const char *)arg, mag_err_name(rc),
           result ? *(const int *)result : 0);
}

async(void, everything)
{
    await(mag_on_done(spawn(fetch("in the background", 30)), tell, "told"));
    await(each_as_it_comes());
    await(in_rounds());
    await(fastest());
    return 0;
}

/* On a thread that is none of the runtime's. */
static int on_a_thread(struct mag_rt *rt)
{
    struct fetch *f = fetch("for a thread", 30);
    int size = 0, rc = mag_submit(rt, f, NULL);

    if (rc < 0)
        return rc;
    rc = mag_join_task(f, 5 * MAG_MS, &size, sizeof size);
    printf("after 5 ms: %s\n", mag_err_name(rc));
    rc = mag_join_task(f, MAG_NEVER, &size, sizeof size);
    printf("joined: %d KiB\n", size);
    return rc;
}

/* What as_completed does, by its functions: for a plain C program. */
static int by_hand(struct mag_rt *rt)
{
    void *all[] = { fetch("one", 20), fetch("two", 5) }, *task;
    struct mag_completed c = { { 0 } };
    int size, rc = 0;

    for (int i = 0; i < 2 && rc == 0; i++)
        rc = mag_submit(rt, all[i], NULL);
    if (rc == 0)
        rc = mag_completed_begin(&c, all, 2);
    while (rc >= 0 && (rc = mag_completed_next(&c, &task)) > 0) {
        rc = mag_await(task, &size, sizeof size);
        printf("by hand: %d KiB\n", size);
    }
    mag_completed_end(&c);
    return rc;
}

/* And a race by its function: here among tasks that are running already. */
static int race_by_hand(struct mag_rt *rt)
{
    void *both[] = { fetch("slow", 40), fetch("quick", 5) };
    size_t winner;
    int size = 0, rc = mag_submit(rt, both[0], NULL);

    if (rc == 0)
        rc = mag_submit(rt, both[1], NULL);
    if (rc == 0)
        rc = mag_race(&size, sizeof size, both, 2, &winner);
    if (rc == 0)
        printf("number %zu has won: %d KiB\n", winner, size);
    return rc;
}

static int usage(FILE *to, int status)
{
    fputs("usage: several\n", to);
    return status;
}

int main(int argc, char **argv)
{
    struct mag_rt *rt;
    int rc;

    if (argc > 1)
        return strcmp(argv[1], "--help") == 0 ? usage(stdout, 0) : usage(stderr, 2);
    rc = mag_rt_new(&rt, NULL);
    if (rc < 0) {
        fprintf(stderr, "several: %s\n", mag_rt_why());
        return 1;
    }
    rc = mag_rt_run(rt, everything(), NULL);
    if (rc == 0)
        rc = on_a_thread(rt);
    if (rc == 0)
        rc = by_hand(rt);
    if (rc == 0)
        rc = race_by_hand(rt);
    mag_rt_free(rt);
    return rc < 0;
}
