/* SPDX-License-Identifier: MIT */
/*
 * async.c - unit tests of <magpie/async.h>: each keyword, against the real runtime
 *
 * What runs in a task reports by its rc: an assertion of Criterion would jump off a
 * fiber's stack.  What the compiler must refuse is in tests/mistakes.
 */
#include <criterion/criterion.h>

#include <magpie/async.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(async, .timeout = 30);

static int broken_line;

/* In a body: remember where a claim was false, and fail. */
#define SHOULD(claim) \
    do { \
        if (!(claim)) { \
            broken_line = __LINE__; \
            return -ENOTRECOVERABLE; \
        } \
    } while (0)

/* Runs a coroutine that is made of SHOULDs and ends with an error. */
static void run_to(void *coro, int expected)
{
    int rc = mag_run(coro, NULL);

    cr_assert_eq(rc, expected, "%s, line %d", mag_err_name(rc), broken_line);
}

static void run(void *coro)
{
    run_to(coro, 0);
}

/* ---- arguments and results ------------------------------------------------------- */

struct point {
    double x, y;
};
struct big {
    int numbers[100];
};

async(int, none)
{
    async_return(42);
}

async(void, nothing)
{
    return 0;
}

async(void, nothing_said)
{
    async_return();
}

async(int, twice, (int, n))
{
    await(mag_yield());
    async_return(2 * n);
}

async(double, half, (double, x))
{
    async_return(x / 2);
}

async(float, sum_float, (float, a), (double, b), (char, c))
{
    async_return(a + (float)b + (float)c);
}

async(struct point, mirror, (struct point, p), (double, by))
{
    await(mag_yield());
    async_return((struct point){ -p.x * by, -p.y * by });
}

async(const char *, tail, (const char *, text), (size_t, n))
{
    async_return(text + n);
}

async(long long, eight, (char, a), (short, b), (int, c), (long, d), (unsigned char, e),
      (float, f), (double, g), (const int *, h))
{
    await(mag_yield());
    async_return(a + b + c + d + e + (long long)f + (long long)g + *h);
}

async(int, sixteen, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g), (int, h),
      (int, i), (int, j), (int, k), (int, l), (int, m), (int, n), (int, o), (int, p))
{
    async_return(a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p);
}

async(struct big, fill, (struct big, start), (const int, step))
{
    for (int i = 0; i < 100; i++)
        start.numbers[i] += i * step;
    async_return(start);
}

/* Names that the macros use themselves must be free for users. */
async(int, names, (int, value), (int, args), (int, frame), (int, out), (int, id), (int, x))
{
    async_return(value + args + frame + out + id + x);
}

async(void, values)
{
    int one = 1;
    struct point p = await(mirror((struct point){ 1, 2 }, 10));
    struct big b = await(fill((struct big){ { 5 } }, 3));

    SHOULD(await(none()) == 42);
    await(nothing());
    await(nothing_said());
    SHOULD(await(twice(21)) == 42);
    SHOULD(await(half(3)) == 1.5);
    SHOULD(await(sum_float(1, 2.5, 3)) == 6.5f);
    SHOULD(p.x == -10 && p.y == -20);
    SHOULD(await(mirror((struct point){ 3, 4 }, 1)).y == -4);
    SHOULD(strcmp(await(tail("magpie", 3)), "pie") == 0);
    SHOULD(await(eight('\1', 2, 3, 4, 5, 6, 7, &one)) == 29);
    SHOULD(await(sixteen(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)) == 136);
    SHOULD(b.numbers[0] == 5 && b.numbers[99] == 297);
    SHOULD(await(names(1, 2, 3, 4, 5, 6)) == 21);
    return 0;
}

Test(async, passes_arguments_and_results_of_all_kinds)
{
    run(values());
}

Test(async, run_takes_the_result)
{
    int n = 0;
    struct point p;

    cr_assert_eq(mag_run(twice(4), &n), 0);
    cr_assert_eq(n, 8);
    cr_assert_eq(mag_run(mirror((struct point){ 1, 2 }, 1), &p), 0);
    cr_assert_eq(p.y, -2);
}

async_decl(long, fibonacci, (int, n));

async(long, sum_of_two, (int, n))
{
    async_return(await(fibonacci(n - 1)) + await(fibonacci(n - 2)));
}

async_def(long, fibonacci, (int, n))
{
    async_return(n < 2 ? n : await(sum_of_two(n)));
}

Test(async, declared_before_it_is_defined)
{
    long n = 0;

    cr_assert_eq(mag_run(fibonacci(10), &n), 0);
    cr_assert_eq(n, 55);
}

/* ---- objects and spawn ------------------------------------------------------------- */

async(void, objects)
{
    struct twice *coro = twice(1), *task, *named;

    SHOULD(strcmp(mag_kind_name(coro), "coroutine") == 0);
    SHOULD(strcmp(mag_name(coro), "twice") == 0);
    task = spawn(coro);
    SHOULD(task == coro);
    SHOULD(strcmp(mag_kind_name(task), "task") == 0);
    named = spawn_opts(twice(2), .name = "the second", .pin = true);
    SHOULD(strcmp(mag_name(named), "the second") == 0);
    SHOULD(await(named) == 4);
    SHOULD(await(task) == 2);
    SHOULD(await(spawn(twice(3))) == 6);
    return 0;
}

Test(async, an_object_stays_the_same_when_spawned)
{
    run(objects());
}

async(void, once)
{
    struct twice *coro = twice(1);
    int n = 0;

    SHOULD(await(coro) == 2);
    SHOULD(await_rc(coro, &n) == -EALREADY && n == 0);
    return 0;
}

Test(async, awaited_twice_is_an_error)
{
    run(once());
}

async(void, no_memory)
{
    struct twice *none_left = NULL;
    int rcs[2], r[2];

    SHOULD(await_rc(none_left, NULL) == -ENOMEM);
    SHOULD(await_rc(spawn(none_left), NULL) == -ENOMEM);
    SHOULD(gather_rc(r, twice(1), none_left) == -ENOMEM);
    gather(r, none_left, twice(1), (.rcs = rcs));
    SHOULD(rcs[0] == -ENOMEM && rcs[1] == 0 && r[1] == 2);
    await(none_left);
    return 0;
}

Test(async, null_is_out_of_memory)
{
    run_to(no_memory(), -ENOMEM);
}

/* ---- await and errors -------------------------------------------------------------- */

static int n_cleaned;

static void cleaned(int *unused)
{
    (void)unused;
    n_cleaned++;
}

async(int, fails, (int, rc), (int *, line))
{
    *line = __LINE__ + 1;
    await(rc);
    async_return(1);
}

async(int, passes_on, (int, rc), (int *, lines))
{
    int scope __attribute__((cleanup(cleaned))) = 0;
    int n;

    lines[1] = __LINE__ + 1;
    n = await(fails(rc, &lines[0])) + scope;
    async_return(n + 1);
}

/* The trace of the current task as text. */
static int print_trace(char *text, size_t room)
{
    FILE *to = fmemopen(text, room, "w");
    int n;

    if (to == NULL)
        return -ENOMEM;
    n = mag_trace_print(to);
    fclose(to);
    return n;
}

static const char *find_place(const char *text, int line)
{
    char place[64];

    snprintf(place, sizeof place, "unit/async.c:%d", line);
    return strstr(text, place);
}

/* A plain function that awaits: any function that returns int may. */
static int plain(int rc)
{
    int n = await(rc);

    return n + 1;
}

async(void, traced)
{
    char text[1000] = "";
    const char *at[3];
    int lines[3], n = 7, other;

    lines[2] = __LINE__ + 1;
    SHOULD(await_rc(passes_on(-EIO, lines), &n) == -EIO);
    SHOULD(n == 7 && n_cleaned == 1);

    SHOULD(print_trace(text, sizeof text) == 3);
    for (int i = 0; i < 3; i++)
        SHOULD((at[i] = find_place(text, lines[i])) != NULL);
    SHOULD(at[0] < at[1] && at[1] < at[2]);
    SHOULD(strstr(text, "fails") && strstr(text, "passes_on") && strstr(text, "traced"));

    /* the next error begins anew, also one of the same kind */
    SHOULD(await_rc(fails(-EIO, &other), NULL) == -EIO);
    memset(text, 0, sizeof text);
    SHOULD(print_trace(text, sizeof text) == 2);
    SHOULD(find_place(text, other) && !find_place(text, lines[1]));
    SHOULD(await_rc(plain(-EIO), NULL) == -EIO);
    memset(text, 0, sizeof text);
    SHOULD(print_trace(text, sizeof text) == 2);
    SHOULD(strstr(text, "plain") && !find_place(text, other));
    return 0;
}

Test(async, an_error_passes_and_leaves_a_trace)
{
    n_cleaned = 0;
    run(traced());
}

async(void, spawned_error)
{
    char text[1000] = "";
    int lines[2];
    struct passes_on *task = spawn(passes_on(-ENODEV, lines));

    SHOULD(await_rc(task, NULL) == -ENODEV);
    SHOULD(print_trace(text, sizeof text) == 3);
    SHOULD(find_place(text, lines[0]) && find_place(text, lines[1]));
    return 0;
}

Test(async, the_trace_of_a_task_goes_to_who_awaits_it)
{
    run(spawned_error());
}

static int await_pair(int first, int second)
{
    return await(plain(await(plain(first)) + second));
}

async(void, plain_functions)
{
    int n = 9;

    SHOULD(await(3) == 3);
    SHOULD(await(await_pair(1, 2)) == 5);
    SHOULD(await(twice(await(twice(await(plain(4)))))) == 20);
    SHOULD(await_rc(await_pair(-EIO, 1), &n) == -EIO && n == 9);
    SHOULD(await_rc(plain(1), &n) == 2 && n == 2);
    SHOULD(await_rc(mag_sleep(-1), NULL) == -EINVAL);
    await(mag_sleep_co(MAG_MS));
    await(spawn(mag_sleep_co(MAG_MS)));
    return 0;
}

Test(async, awaits_what_a_plain_function_returns)
{
    run(plain_functions());
}

async(void, run_inside)
{
    struct twice *coro = twice(1);

    SHOULD(mag_run(coro, NULL) == -EDEADLK);
    return 0;
}

Test(async, run_inside_a_task_is_refused)
{
    run(run_inside());
}

/* ---- gather ------------------------------------------------------------------------- */

static int n_running, n_running_most;

async(int, counted, (int, n), (int, rc))
{
    int now = __atomic_add_fetch(&n_running, 1, __ATOMIC_SEQ_CST);
    int most = __atomic_load_n(&n_running_most, __ATOMIC_SEQ_CST);

    while (now > most &&
           !__atomic_compare_exchange_n(&n_running_most, &most, now, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
    }
    await(mag_sleep(2 * MAG_MS));
    __atomic_sub_fetch(&n_running, 1, __ATOMIC_SEQ_CST);
    await(rc);
    async_return(n);
}

async(void, adds, (int *, to), (int, n))
{
    await(mag_yield());
    __atomic_add_fetch(to, n, __ATOMIC_SEQ_CST);
    return 0;
}

async(void, gathers)
{
    int r[3], *in_heap = malloc(2 * sizeof *in_heap), total = 0;
    struct point p[2];
    const char *s[1];
    struct twice *task = spawn(twice(50));

    gather(r, twice(1), task, spawn(twice(3)));
    SHOULD(r[0] == 2 && r[1] == 100 && r[2] == 6);
    gather(in_heap, twice(7), twice(await(twice(4))));
    SHOULD(in_heap[0] == 14 && in_heap[1] == 16);
    free(in_heap);
    gather(p, mirror((struct point){ 1, 2 }, 1), mirror((struct point){ 3, 4 }, 2));
    SHOULD(p[0].y == -2 && p[1].x == -6);
    gather(s, tail("magpie", 3));
    SHOULD(strcmp(s[0], "pie") == 0);
    gather(NULL, adds(&total, 1), adds(&total, 10), adds(&total, 100));
    SHOULD(total == 111);
    gather(NULL, twice(1), half(1), nothing());
    gather(r);
    gather(NULL, mag_sleep_co(MAG_MS), mag_sleep_co(2 * MAG_MS));
    gather(r, twice(1), twice(1), twice(1), (.limit = 2));
    return 0;
}

Test(async, gathers_results_in_order)
{
    run(gathers());
}

async(void, gather_errors)
{
    int r[3] = { 0 }, rcs[3];
    char text[2000] = "";
    int lines[2], line;

    gather(r, counted(1, 0), counted(2, -EIO), counted(3, 0), (.rcs = rcs));
    SHOULD(rcs[0] == 0 && rcs[1] == -EIO && rcs[2] == 0);
    SHOULD(r[0] == 1 && r[2] == 3);

    /* the trace is that of the first error, not of the siblings that it cancelled */
    line = __LINE__ + 1;
    SHOULD(gather_rc(r, counted(1, 0), passes_on(-EIO, lines), counted(3, 0)) == -EIO);
    SHOULD(print_trace(text, sizeof text) == 3);
    SHOULD(find_place(text, lines[0]) && find_place(text, lines[1]) && find_place(text, line));
    gather(r, counted(1, 0), counted(2, -ENOSPC), counted(3, 0));
    return 0;
}

Test(async, gather_collects_or_passes_on_errors)
{
    run_to(gather_errors(), -ENOSPC);
}

enum { MANY = 30 };

async(void, gather_arrays)
{
    struct counted *many[MANY];
    int out[MANY], rcs[MANY], n = MANY;

    for (int i = 0; i < MANY; i++)
        many[i] = counted(i, 0);
    n_running_most = 0;
    gather_n(out, many, n, .limit = 4);
    SHOULD(n_running_most <= 4);
    for (int i = 0; i < MANY; i++)
        SHOULD(out[i] == i && many[i] == NULL);

    for (int i = 0; i < MANY; i++)
        many[i] = counted(i, i % 3 ? 0 : -EIO);
    gather_n(NULL, many, MANY, .limit = 7, .rcs = rcs);
    for (int i = 0; i < MANY; i++)
        SHOULD(rcs[i] == (i % 3 ? 0 : -EIO));

    many[0] = counted(0, -EPERM);
    gather_n(out, many, 1);
    return 0;
}

Test(async, gathers_arrays_with_a_limit)
{
    run_to(gather_arrays(), -EPERM);
}

/* ---- futures ------------------------------------------------------------------------ */

async_future(int, answer);
async_future(void, signal_of);
async_future(struct point, place);

static void set_answer(void *f)
{
    future_set((struct answer *)f, 42);
}

async(void, futures)
{
    struct answer *f = answer(), *early = answer(), *bad = answer();
    struct signal_of *s = signal_of();
    struct place *p = place();

    SHOULD(strcmp(mag_kind_name(f), "future") == 0);
    SHOULD(mag_call_later(MAG_MS, set_answer, f) == 0);
    SHOULD(await(f) == 42);
    SHOULD(future_set(early, 7) == 0);
    SHOULD(await(early) == 7);
    SHOULD(future_set(s) == 0);
    await(s);
    SHOULD(future_set(p, (struct point){ 1, 2 }) == 0);
    SHOULD(await(p).y == 2);
    SHOULD(future_fail(bad, -ECONNRESET) == 0);
    SHOULD(await_rc(bad, NULL) == -ECONNRESET);
    return 0;
}

Test(async, futures_have_types)
{
    run(futures());
}

/* ---- async with ---------------------------------------------------------------------- */

static char story[100];

static void tell(const char *what)
{
    strcat(story, what);
}

struct door {
    const char *name;
    int zero;
};

static int door_enter(struct door *d, const char *name)
{
    int rc = mag_yield();

    d->name = name;
    if (rc == 0 && strcmp(name, "locked") == 0)
        rc = -EACCES;
    tell(rc < 0 ? "!" : "<");
    return rc;
}

static void door_exit(struct door *d)
{
    mag_yield();
    tell(">");
    tell(d->name);
}

async_resource(door)

/* A resource without arguments. */
struct lamp {
    int is_on;
};

static int lamp_enter(struct lamp *l)
{
    l->is_on = 1;
    return 0;
}

static void lamp_exit(struct lamp *l)
{
    tell(l->is_on ? "*" : "?");
}

async_resource(lamp)

async(int, leaves, (const char *, how))
{
    int assigned_inside;

    async_with(door, d, "a")
    {
        SHOULD(d->zero == 0 && strcmp(d->name, "a") == 0);
        if (strcmp(how, "break") == 0)
            break;
        if (strcmp(how, "continue") == 0)
            continue;
        if (strcmp(how, "return") == 0)
            async_return(5);
        if (strcmp(how, "goto") == 0)
            goto out;
        if (strcmp(how, "error") == 0)
            await(-EIO);
        if (strcmp(how, "enter") == 0) {
            async_with(door, locked, "locked")
                tell(locked->name);
        }
        tell(".");
    }
    async_with(lamp, l)
        assigned_inside = l->is_on;
    async_return(assigned_inside);
out:
    tell("out");
    async_return(6);
}

async(void, nested)
{
    for (int i = 0; i < 2; i++)
        async_with(door, outer, "o")
            async_with(door, inner, "i") {
                if (i == 0)
                    continue;
                tell(outer->name);
                tell(inner->name);
            }
    return 0;
}

static void expect_story(void *coro, int rc, const char *expected)
{
    story[0] = '\0';
    run_to(coro, rc);
    cr_assert_str_eq(story, expected);
}

Test(async, with_exits_on_every_way_out)
{
    expect_story(leaves("end"), 0, "<.>a*");
    expect_story(leaves("break"), 0, "<>a*");
    expect_story(leaves("continue"), 0, "<>a*");
    expect_story(leaves("return"), 0, "<>a");
    expect_story(leaves("goto"), 0, "<>aout");
    expect_story(leaves("error"), -EIO, "<>a");
    expect_story(leaves("enter"), -EACCES, "<!>a");
    expect_story(nested(), 0, "<<>i>o<<oi>i>o");
}

async(void, stops_in_door)
{
    async_with(door, d, "x")
        await(mag_sleep(MAG_MINUTE));
    return 0;
}

async(void, cancels)
{
    struct stops_in_door *task = spawn(stops_in_door());

    while (strchr(story, '<') == NULL) /* it has entered, and sleeps, or is about to */
        await(mag_yield());
    SHOULD(mag_cancel(task) == 0);
    SHOULD(await_rc(task, NULL) == -ECANCELED);
    return 0;
}

Test(async, with_exits_when_cancelled)
{
    expect_story(cancels(), 0, "<>x");
}

async(size_t, writes_and_reads, (const char *, path))
{
    size_t len = 0;

    async_with(mag_file, f, path, "w")
        SHOULD(await(mag_file_write(f, "a magpie", 8)) == 8);
    async_with(mag_file, f, path, "r") {
        struct mag_str content = await(mag_file_read_all_co(f));

        SHOULD(content.len == 8 && strcmp(content.ptr, "a magpie") == 0);
        len = content.len;
    }
    SHOULD(await_rc(spawn(writes_and_reads("/nonexistent/file")), NULL) == -ENOENT);
    async_return(len);
}

Test(async, with_file)
{
    char path[] = "/tmp/magpie-async-XXXXXX";
    size_t len = 0;

    close(mkstemp(path));
    cr_assert_eq(mag_run(writes_and_reads(path), &len), 0);
    cr_assert_eq(len, 8);
    unlink(path);
}
