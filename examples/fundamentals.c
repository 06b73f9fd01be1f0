/* SPDX-License-Identifier: MIT */
/*
 * fundamentals.c - the tutorial "asyncio fundamentals", section by section, in C
 *
 *      fundamentals               all sections, in order (half a minute)
 *      fundamentals exercise      one section
 *      fundamentals --help        their names
 *
 * Each section is a coroutine of its own and can be read alone; what it says is what
 * the tutorial says with asyncio.  <magpie/async.h> explains each keyword.
 *
 * The HTTP client's section asks a server of its own, or what FUNDAMENTALS_URL in the environment
 * names.
 */
#include <magpie/async.h>
#include <magpie/http_client.h>
#include <magpie/server.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- async def, await, asyncio.run ------------------------------------- */

async(const char *, greet)
{
    async_return("Hello, World!");
}

async(void, hello)
{
    puts(await(greet()));
    return 0;
}

/* ---- the life of a coroutine -------------------------------------------- */

async(int, slow_operation)
{
    puts("Starting slow operation...");
    await(mag_sleep(2 * MAG_SECOND)); /* a plain function that suspends */
    puts("Slow operation complete!");
    async_return(42);
}

async(void, lifecycle)
{
    struct slow_operation *coro = slow_operation();         /* 1 define, 2 create      */
    printf("%s %s\n", mag_kind_name(coro), mag_name(coro)); /* nothing runs yet        */
    struct slow_operation *task = spawn(coro);              /* 3 schedule: same object */
    printf("%s %s\n", mag_kind_name(task), mag_name(task));
    int result = await(task);                               /* 4 execute, 5 complete   */
    printf("Result: %d\n", result);
    return 0;
}

/* ---- what can be awaited ------------------------------------------------- */

async_future(int, answer);

static void set_answer(void *f)
{
    future_set((struct answer *)f, 42);
}

async(void, awaitables)
{
    await(slow_operation());                       /* a coroutine                       */
    await(spawn(slow_operation()));                /* a task                            */
    struct answer *f = answer();                   /* a future, which anyone may set,   */
    mag_call_later(1 * MAG_SECOND, set_answer, f); /* in any thread                     */
    printf("The future's result: %d\n", await(f));
    await(mag_sleep(MAG_SECOND / 2));              /* a plain function                  */
    return 0;
}

/* ---- sequential and concurrent ------------------------------------------- */

async(int, step, (int, n))
{
    printf("Step %d starting\n", n);
    await(mag_sleep(1 * MAG_SECOND));
    printf("Step %d done\n", n);
    async_return(n);
}

async(int, fails, (int, n))
{
    printf("Step %d fails\n", n);
    return -EIO; /* raise */
}

async(int, small_step, (int, n))
{
    await(mag_sleep(10 * MAG_MS));
    async_return(n);
}

async(void, patterns)
{
    mag_time start = mag_now();
    int a = await(step(1)), b = await(step(2)), c = await(step(3));
    printf("Results: %d, %d, %d after %.0f s\n", a, b, c, mag_seconds(mag_now() - start));

    int r[3];
    start = mag_now();
    gather(r, step(1), step(2), step(3));
    printf("Results: [%d, %d, %d] after %.0f s\n", r[0], r[1], r[2],
           mag_seconds(mag_now() - start));

    struct small_step *many[1000];
    int out[1000];
    for (int i = 0; i < 1000; i++)
        many[i] = small_step(i);
    start = mag_now();
    gather_n(out, many, 1000, .limit = 100); /* asked for, and refused, in asyncio */
    printf("1000 steps of 10 ms, at most 100 at a time: %.1f s\n",
           mag_seconds(mag_now() - start));

    int rcs[3]; /* return_exceptions=True */
    gather(r, step(1), fails(2), step(3), (.rcs = rcs));
    printf("Results: %s, %s, %s\n", mag_err_name(rcs[0]), mag_err_name(rcs[1]),
           mag_err_name(rcs[2]));
    return 0;
}

/* ---- async with ----------------------------------------------------------- */

struct resource {
    const char *name;
};

static int resource_enter(struct resource *r, const char *name)
{
    puts("Acquiring resource...");
    r->name = name;
    return mag_sleep(MAG_SECOND / 2);
}

static void resource_exit(struct resource *r)
{
    printf("Releasing resource %s...\n", r->name);
    mag_sleep(MAG_SECOND / 2);
}

async_resource(resource)

async(void, with_resource)
{
    async_with(resource, res, "db") { /* exit runs on every way out: end, */
        printf("Working with %s...\n", res->name); /* break, return, error, cancellation */
        await(mag_sleep(1 * MAG_SECOND));
    }
    return 0;
}

async(void, read_file, (const char *, path))
{
    async_with(mag_file, f, path, "w")
        await(mag_file_write(f, "Hello from a file!\n", 19));
    async_with(mag_file, f, path, "r") {
        struct mag_str content = await(mag_file_read_all_co(f));
        fwrite(content.ptr, 1, content.len, stdout);
    }
    async_with(mag_file, f, path, "a")
        await(mag_file_write(f, "again, in lines", 15));
    async_with(mag_file, f, path, "r")
        async_for(struct mag_str, line, mag_file_lines(f))
            printf("a line: %s\n", line.ptr);
    return 0;
}

async(void, files)
{
    char path[] = "/tmp/magpie-fundamentals-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0)
        return -EACCES;
    close(fd);
    int rc = await_rc(read_file(path), NULL); /* except: the file is to be removed */
    unlink(path);
    return rc;
}

/* The other one that everybody uses. */
async(void, fetch, (const char *, url))
{
    async_with(mag_http_client, client, .timeout = 5 * MAG_SECOND) {
        struct mag_http_response *response = await(mag_http_get_co(client, url));
        printf("%d, %zu bytes\n", response->status, response->body.len);
    }
    return 0;
}

/* Somebody to ask: one answer to whatever comes. */
static int say_hello(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    (void)arg;
    while (await(mag_stream_readline(s, &line)) > 2)
        continue; /* the request, up to its empty line */
    return mag_stream_puts(s, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!");
}

async(void, http)
{
    const char *given = getenv("FUNDAMENTALS_URL");
    if (given)
        return await_rc(fetch(given), NULL);
    struct mag_server *server;
    char url[40];
    await(mag_server_start(&server, say_hello, NULL,
                           &(struct mag_serve_options){ .host = "127.0.0.1" }));
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", mag_server_port(server));
    int rc = await_rc(fetch(url), NULL);
    mag_server_free(server);
    return rc;
}

/* ---- async for --------------------------------------------------------------- */

async_gen(int, countdown, (int, n))
{
    while (n > 0) {
        yield(n);
        await(mag_sleep(1 * MAG_SECOND));
        n--;
    }
    return 0;
}

struct counter {
    int current, stop;
};

/* __aiter__ and __anext__ by hand: 1 an item, 0 the end, < 0 an error */
static int counter_next(struct counter *c, int *out)
{
    if (c->current >= c->stop)
        return 0;
    await(mag_sleep(MAG_SECOND / 2));
    *out = ++c->current;
    return 1;
}

async(void, iteration)
{
    async_for(int, num, countdown(5)) {
        printf("T-minus %d\n", num);
        if (num == 2)
            break; /* closes the generator here and now */
    }
    puts("Liftoff!");
    async_for(int, num, async_iter(counter_next, &(struct counter){ .stop = 5 }))
        printf("%d\n", num);

    struct countdown *last = countdown(1); /* without a loop: anext() and aclose() */
    int first, more;
    await(anext(last, &first));
    more = await(anext(last, &first));
    printf("%d, then %s\n", first, more ? "more" : "the end");
    return mag_gen_close(last);
}

/* ---- concurrent tasks (the tutorial's next chapter) -------------------------- */

async(void, one_fails)
{
    task_group (g) { /* the first error cancels the rest, and is the group's */
        struct small_step *first = group_task(g, small_step(1)); /* one to be awaited */
        printf("Small step %d\n", await(first));
        group_spawn(g, step(1));
        group_spawn(g, fails(2));
    }
    puts("This is not reached.");
    return 0;
}

async(void, too_late)
{
    with_timeout (MAG_SECOND / 2) {
        await(slow_operation());
    }
    return 0;
}

async(void, structured)
{
    int results[2];
    task_group (g) { /* joins at } */
        group_spawn(g, step(1), &results[0]);
        group_spawn(g, step(2), &results[1]);
    }
    printf("Both are done: %d, %d\n", results[0], results[1]);
    int rc = await_rc(one_fails(), NULL);
    printf("One of a group failed: %s\n", mag_err_name(rc));

    with_timeout (5 * MAG_SECOND) { /* every suspension inside obeys it */
        await(slow_operation());
    }
    rc = await_rc(too_late(), NULL);
    printf("Half a second was too short: %s\n", mag_err_name(rc));
    timeout_at (mag_now() + 1 * MAG_SECOND) {
        with_shield (MAG_NEVER) { /* not even that reaches this */
            await(small_step(1));
        }
    }
    rc = wait_for(slow_operation(), 1 * MAG_SECOND, NULL);
    printf("wait_for: %s\n", mag_err_name(rc));

    struct slow_operation *t = spawn(slow_operation());
    mag_cancel(t);
    rc = await_rc(t, NULL);
    printf("Cancelled: %s\n", mag_err_name(rc));

    struct step *steps[] = { step(3), step(1), step(2) };
    async_for(struct step *, done, as_completed(steps, 3))
        printf("step %d is done\n", await(done));

    int value;
    size_t winner = race(&value, slow_operation(), small_step(7));
    printf("The race was won by number %zu, with %d\n", winner, value);
    return rc == -ECANCELED ? 0 : rc;
}

/* ---- errors ---------------------------------------------------------------- */

async(int, open_missing)
{
    async_with(mag_file, f, "/no/such/file", "r")
        puts("This is not reached.");
    async_return(1);
}

async(void, errors)
{
    int value;
    int rc = await_rc(open_missing(), &value); /* try ... except */
    printf("open_missing failed: %s\n", mag_err_name(rc));
    mag_trace_print(stdout); /* the places that the error has passed */

    int both[2];
    rc = gather_rc(both, small_step(1), open_missing()); /* the same for a gather */
    printf("One of two failed: %s\n", mag_err_name(rc));
    return 0;
}

/*
 * ---- common mistakes -------------------------------------------------------
 *
 *     slow_operation();          warning: ignoring return value       (compiler)
 *     int r = slow_operation();  warning: makes integer from pointer  (compiler)
 *     step("a");                 warning: makes integer from pointer  (compiler)
 *
 * and at run time:
 */
async(void, bad_example)
{
    mag_time until = mag_now() + 300 * MAG_MS;
    while (mag_now() < until) /* time.sleep(0.3): nobody else of this worker gets on */
        continue;
    return 0;
}

async(void, mistakes)
{
    struct small_step *once = small_step(1);
    int n = await(once);
    int rc = await_rc(once, &n);
    printf("Awaited twice: %s\n", mag_err_name(rc));

    puts("mag_run() inside a task says on standard error:");
    fflush(stdout);
    rc = mag_run(small_step(2), NULL);
    printf("and returns %s\n", mag_err_name(rc));

    puts("A task that blocks is reported, with its stack, after 100 ms:");
    fflush(stdout);
    await(spawn(bad_example()));

    puts("A coroutine that is never awaited is reported at the end:");
    fflush(stdout);
    struct small_step *forgotten = small_step(3);
    (void)forgotten;
    return 0;
}

/* ---- the hands-on exercise --------------------------------------------------- */

struct api {
    const char *name, *data;
};

async(struct api, fetch_api, (const char *, name), (double, delay))
{
    printf("Fetching from %s...\n", name);
    await(mag_sleep(delay * MAG_SECOND));
    printf("Got response from %s\n", name);
    async_return((struct api){ name, "sample" });
}

async(void, exercise)
{
    puts("=== Sequential ===");
    mag_time start = mag_now();
    await(fetch_api("API-1", 1.0));
    await(fetch_api("API-2", 1.5));
    await(fetch_api("API-3", 0.5));
    double sequential = mag_seconds(mag_now() - start);
    printf("Sequential time: %.2fs\n\n", sequential);

    puts("=== Concurrent ===");
    struct api r[3];
    start = mag_now();
    gather(r, fetch_api("API-1", 1.0), fetch_api("API-2", 1.5), fetch_api("API-3", 0.5));
    double concurrent = mag_seconds(mag_now() - start);
    printf("Concurrent time: %.2fs\n\n", concurrent);

    printf("Speedup: %.1fx faster!\n", sequential / concurrent);
    return 0;
}

/* ---- the program ---------------------------------------------------------------- */

/* A constructor of whatever type as a function that gives a void pointer. */
#define SECTION(co, about) { #co, about, make_##co }
#define MAKE(co) \
    static void *make_##co(void) \
    { \
        return co(); \
    }
MAKE(hello)
MAKE(lifecycle)
MAKE(awaitables)
MAKE(patterns)
MAKE(with_resource)
MAKE(files)
MAKE(http)
MAKE(iteration)
MAKE(structured)
MAKE(errors)
MAKE(mistakes)
MAKE(exercise)

static const struct section {
    const char *name, *about;
    void *(*make)(void);
} sections[] = {
    SECTION(hello, "async def, await, asyncio.run"),
    SECTION(lifecycle, "define, create, schedule, execute, complete"),
    SECTION(awaitables, "coroutines, tasks, futures, plain functions"),
    SECTION(patterns, "sequential, concurrent, limited, with errors"),
    SECTION(with_resource, "async with"),
    SECTION(files, "async with a file"),
    SECTION(http, "async with an HTTP client"),
    SECTION(iteration, "async for, generators, iterators by hand"),
    SECTION(structured, "task groups, timeouts, cancellation, as completed"),
    SECTION(errors, "an error and the places it passed"),
    SECTION(mistakes, "the common mistakes, as seen at run time"),
    SECTION(exercise, "the hands-on exercise"),
};
enum { N_SECTIONS = sizeof sections / sizeof *sections };

static int usage(FILE *to)
{
    fputs("usage: fundamentals [SECTION]\n\n"
          "Runs one section of the tutorial, or all of them in order.\n\n",
          to);
    for (int i = 0; i < N_SECTIONS; i++)
        fprintf(to, "  %-15s%s\n", sections[i].name, sections[i].about);
    return to == stdout ? 0 : 2;
}

static int run_all(void)
{
    for (int i = 0; i < N_SECTIONS; i++) {
        printf("%s---- %s: %s\n\n", i ? "\n" : "", sections[i].name, sections[i].about);
        if (mag_run(sections[i].make(), NULL) < 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 1)
        return run_all();
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return usage(stdout);
    for (int i = 0; argc == 2 && i < N_SECTIONS; i++)
        if (strcmp(argv[1], sections[i].name) == 0)
            return mag_run(sections[i].make(), NULL) < 0; /* asyncio.run(main()) */
    return usage(stderr);
}
