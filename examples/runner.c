/* SPDX-License-Identifier: MIT */
/*
 * runner.c - one runtime, many runs, and an end in good order
 *
 *      $ ./runner [SECONDS]
 *      request 1: logged in as alice
 *      ...
 *
 * What asyncio.Runner is for: a program that calls into async code again and again keeps its
 * runtime.  Ctrl-C cancels what runs, once; every cleanup happens, and the program ends with
 * 130, as a shell expects of one that was interrupted.  With SECONDS it waits so long, for you
 * to try.
 */
#include <magpie/async.h>

#include <stdio.h>
#include <stdlib.h>

/* A variable of the task, which everything that is called from it, and every task spawned
 * from it, sees: what contextvars are for. */
static struct mag_var user = { "user", "nobody" };

static void log_line(const char *what)
{
    printf("%s as %s\n", what, (const char *)mag_var_get(&user));
}

async(int, check_password, (int, request))
{
    await(mag_sleep(5 * MAG_MS));
    printf("request %d: ", request);
    log_line("logged in");
    async_return(request * 10);
}

async(int, handle_request, (int, request), (const char *, name))
{
    mag_var_set(&user, (void *)name);
    async_return(await(spawn(check_password(request)))); /* a task of its own, that inherits */
}

/* ---- callbacks --------------------------------------------------------------------------- */

static void note(void *text)
{
    puts(text);
}

async(void, callbacks)
{
    mag_time now = mag_now();

    mag_call_at(now + 10 * MAG_MS, note, "callback: third, at a time");
    mag_call_later(5 * MAG_MS, note, "callback: second, after a delay");
    mag_call_soon(note, "callback: first, soon");
    await(mag_sleep(20 * MAG_MS));
    return 0;
}

/* ---- Ctrl-C ------------------------------------------------------------------------------- */

async(void, wait_for_you, (int, seconds))
{
    int rc;

    printf("waiting %d s; press Ctrl-C\n", seconds);
    rc = await_rc(mag_sleep(seconds * MAG_SECOND), NULL);
    puts(rc == -ECANCELED ? "interrupted: cleaning up" : "nobody came");
    return rc;
}

async(void, goes_on_for_ever)
{
    int rc = mag_sleep(MAG_NEVER);

    puts("a background task is told to stop");
    return rc;
}

async(void, leave_one_behind)
{
    mag_detach(spawn(goes_on_for_ever()));
    await(mag_yield());
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "alice", "bob", "carol" };
    struct mag_rt *rt;
    int rc = mag_rt_new(&rt, NULL), value = 0;

    if (rc < 0) {
        fprintf(stderr, "runner: %s\n", mag_rt_why());
        return 1;
    }
    for (int i = 0; i < 3 && rc == 0; i++) {
        rc = mag_rt_run(rt, handle_request(i + 1, names[i]), &value);
        printf("request %d: %s, %d\n", i + 1, mag_err_name(rc), value);
    }
    if (rc == 0)
        rc = mag_rt_run(rt, callbacks(), NULL);
    if (rc == 0)
        rc = mag_rt_run(rt, leave_one_behind(), NULL);
    if (rc == 0 && argc > 1)
        rc = mag_rt_run(rt, wait_for_you(atoi(argv[1])), NULL);
    if (mag_rt_stop(rt, 2 * MAG_SECOND) == 0) /* says what does not end, if something */
        puts("everything has stopped");
    mag_rt_free(rt);
    return rc == -ECANCELED ? 130 : rc < 0;
}
