/* SPDX-License-Identifier: MIT */
/*
 * core.c - magpie without keywords: plain functions, C11, nothing but <magpie.h>
 *
 *      core               all sections, in order (less than a second)
 *      core SECTION       one of them
 *      core --help        their names
 *
 * What <magpie/async.h> writes for you is written out here: the frame of a coroutine,
 * its type, the place of its result.  So this is also what a binding for another
 * language does, since everything is an exported function and a plain struct.
 *
 * Three kinds of things can be awaited, and mag_await takes any of them:
 *
 *      coroutine   mag_co_new: a frame and a function; nothing runs yet
 *      task        the same object after mag_start, or what mag_spawn makes at once
 *      future      mag_future_new: somebody will set it
 */
#include <magpie.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- a task of a plain function ---------------------------------------------------- */

/* The function of a task: its arguments, and the place of its result. */
static int square(void *frame, void *result)
{
    long n = *(const long *)frame;

    *(long *)result = n * n;
    return mag_yield(); /* others may run; -ECANCELED if this task is to stop */
}

static int tasks(void)
{
    struct mag_spawn_options options = { .name = "seven", .pin = true };
    struct mag_task         *task;
    long                     n = 7, value = 0;
    int                      rc;

    rc = mag_spawn(&task, square, &n, sizeof n, sizeof value, &options);
    if (rc < 0)
        return rc;
    printf("%s '%s', started by '%s', done: %s\n", mag_kind_name(task), mag_name(task),
           mag_name(mag_self()), mag_done(task) ? "yes" : "no");
    rc = mag_await(task, &value, sizeof value); /* takes the result, frees the task */
    printf("square(7) = %ld (%s)\n", value, mag_err_name(rc));
    return rc;
}

/* ---- coroutine objects --------------------------------------------------------------- */

/* A frame: the result and the arguments, in any order. */
struct wait_and_double {
    long     value;
    long     n;
    mag_time pause;
};

static int wait_and_double_body(void *frame, void *result)
{
    struct wait_and_double *c = frame;
    int                     rc = mag_sleep(c->pause);

    *(long *)result = 2 * c->n;
    return rc;
}

static const struct mag_co_type wait_and_double_type = {
    .name = "wait_and_double",
    .body = wait_and_double_body,
    .frame_bytes = sizeof(struct wait_and_double),
    .result_offset = offsetof(struct wait_and_double, value),
    .result_bytes = sizeof(long),
    .defined = { __FILE__, __LINE__, "wait_and_double" },
};

/* The typed constructor; NULL when memory is out, which mag_await answers for. */
static struct wait_and_double *wait_and_double(long n, mag_time pause)
{
    struct wait_and_double *c = mag_co_new(&wait_and_double_type, __builtin_return_address(0));

    if (c != NULL) {
        c->n = n;
        c->pause = pause;
    }
    return c;
}

static int objects(void)
{
    struct wait_and_double *now = wait_and_double(1, 0);
    struct wait_and_double *later = wait_and_double(2, 5 * MAG_MS);
    struct wait_and_double *never = wait_and_double(3, MAG_NEVER);
    long                    a = 0, b = 0;
    int                     rc;

    rc = mag_start(later, NULL); /* from now on a task, and runs beside us */
    if (rc == 0)
        rc = mag_await(now, &a, sizeof a); /* a coroutine: runs here, like a call */
    if (rc == 0)
        rc = mag_await(later, &b, sizeof b);
    mag_close(never); /* not wanted after all; it has never run */
    printf("in place: %ld, beside: %ld, again: %s\n", a, b,
           mag_err_name(mag_await(later, &b, sizeof b)));
    return rc;
}

/* ---- many at once ----------------------------------------------------------------------- */

static int gathers(void)
{
    void    *all[5];
    long     r[5];
    int      rcs[5];
    mag_time start = mag_now();
    int      rc;

    for (int i = 0; i < 5; i++)
        all[i] = wait_and_double(i, 20 * MAG_MS);
    rc = mag_gather(r, sizeof r[0], all, 5, NULL);
    if (rc < 0)
        return rc;
    printf("%ld %ld %ld %ld %ld\n", r[0], r[1], r[2], r[3], r[4]);
    printf("5 times 20 ms, at once: less than 100 ms: %s\n",
           mag_now() - start < 100 * MAG_MS ? "yes" : "no");

    /* Sleeps need no stack; with .rcs a failure is only noted. */
    struct mag_gather_options options = { .limit = 2, .rcs = rcs };
    for (int i = 0; i < 5; i++)
        all[i] = mag_sleep_co(i == 3 ? -1 : 1 * MAG_MS);
    rc = mag_gather(NULL, 0, all, 5, &options);
    printf("sleep of -1 ns: %s, the others: %s\n", mag_err_name(rcs[3]), mag_err_name(rcs[4]));
    return rc;
}

/* ---- futures -------------------------------------------------------------------------------- */

static const struct mag_co_type number_type = {
    .name = "number",
    .frame_bytes = sizeof(long),
    .result_bytes = sizeof(long),
};

/* Both run on a worker when their time has come, and must not suspend. */
static void set_number(void *future)
{
    const long value = 42;

    mag_future_set(future, &value, sizeof value);
}

static void give_up(void *future)
{
    mag_future_fail(future, -ETIMEDOUT);
}

static int futures(void)
{
    void    *good = mag_future_new(&number_type, __builtin_return_address(0));
    void    *bad = mag_future_new(&number_type, __builtin_return_address(0));
    long     value = 0;
    mag_time start = mag_now();
    int      rc;

    if (good == NULL || bad == NULL)
        return -ENOMEM;
    rc = mag_call_later(10 * MAG_MS, set_number, good);
    if (rc == 0)
        rc = mag_call_later(20 * MAG_MS, give_up, bad);
    if (rc < 0)
        return rc;
    rc = mag_await(good, &value, sizeof value);
    printf("%ld (%s) after at least 10 ms: %s\n", value, mag_err_name(rc),
           mag_now() - start >= 10 * MAG_MS ? "yes" : "no");
    rc = mag_await(bad, &value, sizeof value);
    printf("the other: %s, %s\n", mag_err_name(rc), mag_err_text(rc));
    return rc == -ETIMEDOUT ? 0 : rc;
}

/* ---- cancellation ---------------------------------------------------------------------------- */

/* Ticks at fixed points in time, until it is cancelled; what it has done it still says. */
static int metronome(void *frame, void *result)
{
    mag_time period = *(const mag_time *)frame, next = mag_now();
    int      n = 0, rc;

    while ((rc = mag_sleep_until(next)) == 0) {
        n++;
        next += period;
    }
    *(int *)result = n;
    return rc == -ECANCELED ? 0 : rc;
}

static int cancels(void)
{
    mag_time         period = 5 * MAG_MS;
    struct mag_task *awaited, *detached;
    int              n = 0, rc;

    rc = mag_spawn(&awaited, metronome, &period, sizeof period, sizeof n, NULL);
    if (rc < 0)
        return rc;
    rc = mag_spawn(&detached, metronome, &period, sizeof period, sizeof n, NULL);
    if (rc == 0)
        rc = mag_detach(detached); /* nobody awaits it: cancelled when the runtime stops */
    mag_sleep(23 * MAG_MS);
    mag_cancel(awaited); /* asks; the await below waits until it has ended */
    mag_await(awaited, &n, sizeof n);
    printf("a tick or more before the cancel: %s\n", n >= 1 ? "yes" : "no");
    return rc;
}

/* ---- calls that block -------------------------------------------------------------------------- */

/* On a thread of the offload pool: may block as it likes, cannot suspend. */
static int ask_the_system(void *arg)
{
    return gethostname(arg, 64) == 0 ? (int)strlen(arg) : -EIO;
}

static int blocking(void)
{
    char name[65] = "";
    int  rc = mag_to_thread(ask_the_system, name);

    printf("this host's name has letters: %s\n", rc > 0 && name[0] ? "yes" : "no");
    return rc < 0 ? rc : 0;
}

/* ---- errors --------------------------------------------------------------------------------------- */

/* What await() does by itself: each place that an error passes is noted. */
#define PASS(rc, function) \
    do { \
        static const struct mag_site site = { __FILE__, __LINE__, function }; \
        if ((rc) < 0) \
            return mag_trace((rc), &site); \
    } while (0)

static int read_config(void)
{
    struct mag_file file;
    int             rc = mag_file_open(&file, "/no/such/file", "r");

    PASS(rc, "read_config");
    return mag_file_close(&file);
}

static int configure(void)
{
    int rc = read_config();

    PASS(rc, "configure");
    return 0;
}

static int errors(void)
{
    int rc = configure();

    printf("configure: %s; the places it passed:\n", mag_err_name(rc));
    mag_trace_print(stdout);
    mag_trace_caught(); /* dealt with: the next error begins a new trace */
    return rc == -ENOENT ? 0 : rc;
}

/* ---- the program ------------------------------------------------------------------------------------ */

static const struct section {
    const char *name, *about;
    int (*run)(void);
} sections[] = {
    { "tasks", "mag_spawn and mag_await", tasks },
    { "objects", "coroutine objects: made, started, awaited, closed", objects },
    { "gathers", "many at once, a few at a time, with errors", gathers },
    { "futures", "results that somebody sets later", futures },
    { "cancels", "mag_cancel and mag_detach", cancels },
    { "blocking", "calls that block, on a thread of their own", blocking },
    { "errors", "an error and the places it passed", errors },
};
enum { N_SECTIONS = sizeof sections / sizeof *sections };

/* The coroutine that mag_run is given: its one argument is the section. */
static int section_body(void *frame, void *result)
{
    const struct section *section = *(const struct section **)frame;

    (void)result;
    printf("---- %s: %s\n", section->name, section->about);
    return section->run();
}

static const struct mag_co_type section_type = {
    .name = "section",
    .body = section_body,
    .frame_bytes = sizeof(struct section *),
};

static int run_section(const struct section *section)
{
    struct mag_rt_options  options = { .workers = 2 };
    const struct section **frame = mag_co_new(&section_type, __builtin_return_address(0));

    if (frame != NULL)
        *frame = section;
    return mag_run_with(frame, NULL, &options);
}

static int usage(FILE *to)
{
    unsigned v = mag_version();

    fputs("usage: core [SECTION]\n\nmagpie's plain core, without keywords.\n\n", to);
    for (int i = 0; i < N_SECTIONS; i++)
        fprintf(to, "  %-10s%s\n", sections[i].name, sections[i].about);
    fprintf(to, "\nmagpie %u.%u.%u\n", v >> 16, v >> 8 & 255, v & 255);
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    int n_run = 0;

    if (argc > 2 || (argc == 2 && strcmp(argv[1], "--help") == 0))
        return usage(argc == 2 ? stdout : stderr);
    for (int i = 0; i < N_SECTIONS; i++) {
        if (argc == 2 && strcmp(argv[1], sections[i].name) != 0)
            continue;
        n_run++;
        if (run_section(&sections[i]) < 0)
            return 1;
    }
    return n_run ? 0 : usage(stderr);
}
