/* SPDX-License-Identifier: MIT */
/* inspect.c - what tasks do is told as it is: states, reasons, who awaits whom, stacks */
#include "body.h"

#include "worker.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(inspect, .timeout = 20);

enum { TASKS_MAX = 64 };

/* Of one task, after another look; its state is -1 if it is not there. */
static struct mag_task_info info_now(void *task)
{
    struct mag_task_info all[TASKS_MAX], none = { .state = (enum mag_task_state) - 1 };
    size_t n = mag_tasks(NULL, all, TASKS_MAX);

    for (size_t i = 0; i < n && i < TASKS_MAX; i++)
        if (all[i].handle == task)
            return all[i];
    return none;
}

/* The same, told by its worker: that may get no processor for longer than a look waits. */
static struct mag_task_info info_of(void *task)
{
    struct mag_task_info i = info_now(task);

    for (int n = 0; n < 50 && i.is_busy; n++)
        i = info_now(task);
    return i;
}

/* On a busy machine it may take a while. */
#define UNTIL(claim) \
    do { \
        for (int i_ = 0; i_ < 5000 && !(claim); i_++) \
            SHOULD(mag_sleep(MAG_MS) == 0); \
        SHOULD(claim); \
    } while (0)

static bool waits_for(void *task, const char *what)
{
    struct mag_task_info i = info_of(task);

    return i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, what) == 0;
}

static bool says(const char *text, const char *part)
{
    bool is_there = text && strstr(text, part) != NULL;

    if (!is_there)
        fprintf(stderr, "no '%s' in:\n%s\n", part, text ? text : "(nothing)");
    return is_there;
}

static char text[16384];

static int dump_text(struct mag_rt *rt)
{
    FILE *to = fmemopen(text, sizeof text, "w");
    int rc = mag_dump(rt, to);

    fclose(to);
    return rc;
}

static int stack_text_now(void *task)
{
    FILE *to = fmemopen(text, sizeof text, "w");
    int rc = mag_print_stack(task, to);

    fclose(to);
    return rc;
}

/* As info_of. */
static int stack_text(void *task)
{
    int rc = stack_text_now(task);

    for (int n = 0; n < 50 && rc == -EBUSY; n++)
        rc = stack_text_now(task);
    return rc;
}

/* ---- what is said of one task ----------------------------------------------------- */

static int await_it(void *arg, long *value)
{
    return mag_await(arg, value, sizeof *value);
}

static int lock_it(void *mutex, long *value)
{
    int rc = mag_mutex_lock(mutex);

    *value = 1;
    return rc < 0 ? rc : mag_mutex_unlock(mutex);
}

static int states(void *arg, long *value)
{
    static const struct mag_site site = { "states.c", 77, "states" };
    struct mag_spawn_options named = { .name = "a name", .site = &site };
    struct co *sleeps = co(forever, NULL), *never = co(same, arg_of(1));
    struct co *done = go(same, arg_of(2)), *ready;
    void *f = future();
    struct co *waits = go(await_it, f);
    struct mag_sleep_co *leaf = mag_sleep_co(MAG_NEVER);
    struct mag_task_info i;

    (void)arg;
    SHOULD(mag_start(sleeps, &named) == 0);
    SHOULD(mag_start(leaf, NULL) == 0);
    UNTIL(waits_for(sleeps, "sleep") && waits_for(waits, "future") && waits_for(leaf, "sleep") &&
          mag_done(done));
    ready = go(same_later, arg_of(3)); /* of one worker: not before this suspends */

    i = info_of(mag_self());
    SHOULD(i.state == MAG_TASK_RUNNING && i.worker == 1 && !i.is_busy && i.awaited_by == NULL);
    SHOULD(i.waiting_for == NULL && i.waiting_on == NULL);
    i = info_of(sleeps);
    SHOULD(i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, "sleep") == 0);
    SHOULD(strcmp(i.name, "a name") == 0 && i.spawned_at.line == 77);
    SHOULD(i.waiting_on == NULL && !i.is_in_place);
    i = info_of(waits);
    SHOULD(i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, "future") == 0);
    SHOULD(i.waiting_on == f && strcmp(i.waiting_name, "future") == 0);
    SHOULD(i.spawned_at.file == NULL && i.made_at != NULL);
    i = info_of(leaf);
    SHOULD(i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, "sleep") == 0);
    SHOULD(info_of(never).state == MAG_TASK_CREATED && info_of(never).worker == 0);
    SHOULD(strcmp(info_of(never).name, "co") == 0);
    SHOULD(info_of(done).state == MAG_TASK_DONE);
    SHOULD(info_of(ready).state == MAG_TASK_READY);
    SHOULD(set(f, 4) == 0);
    SHOULD(await_co(waits, value) == 0 && mag_close(sleeps) == 0);
    SHOULD(await_co(done, value) == 0 && await_co(ready, value) == 0);
    SHOULD(mag_close(leaf) == 0);
    SHOULD(info_of(done).state == (enum mag_task_state) - 1);
    SHOULD(mag_close(never) == 0);
    return 0;
}

Test(inspect, states_and_reasons)
{
    RUN(1, states, NULL);
}

Test(inspect, states_have_names)
{
    cr_assert_str_eq(mag_task_state_name(MAG_TASK_CREATED), "created");
    cr_assert_str_eq(mag_task_state_name(MAG_TASK_DONE), "done");
    cr_assert_str_eq(mag_task_state_name((enum mag_task_state)77), "?");
}

static int primitives(void *arg, long *value)
{
    static struct mag_mutex mutex;
    struct mag_task_info i;
    struct co *waits;

    (void)arg;
    SHOULD(mag_mutex_lock(&mutex) == 0);
    waits = go(lock_it, &mutex);
    UNTIL(waits_for(waits, "mutex"));
    i = info_of(waits);
    SHOULD(i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, "mutex") == 0);
    SHOULD(i.waiting_on == &mutex && i.waiting_name[0] == '\0');
    SHOULD(mag_mutex_unlock(&mutex) == 0);
    return await_co(waits, value);
}

Test(inspect, names_the_primitive)
{
    RUN_1_AND_4(primitives, NULL);
}

/* Suspended, and ready again, but not running: another one has the worker. */
static int yields_twice(void *arg, long *value)
{
    *value = num(arg);
    SHOULD(mag_yield() == 0);
    return mag_yield();
}

static int ready_again(void *arg, long *value)
{
    struct co *c = go(yields_twice, arg_of(8));

    (void)arg;
    SHOULD(mag_yield() == 0);
    SHOULD(info_of(c).state == MAG_TASK_READY && info_of(c).worker == 1);
    return await_co(c, value);
}

Test(inspect, a_suspended_task_can_be_ready)
{
    RUN(1, ready_again, NULL);
}

static int more_than_fit(void *arg, long *value)
{
    struct mag_task_info one[1];
    struct co *c[10];

    (void)arg;
    for (int i = 0; i < 10; i++)
        c[i] = go(forever, NULL);
    SHOULD(settle_down() == 0);
    SHOULD(mag_tasks(NULL, one, 1) == 11);
    SHOULD(mag_tasks(NULL, NULL, 0) == 11);
    for (int i = 0; i < 10; i++)
        SHOULD(mag_close(c[i]) == 0);
    *value = 0;
    SHOULD(mag_tasks(mag_rt_self(), one, 1) == 1);
    return 0;
}

Test(inspect, counts_more_than_fit)
{
    RUN_1_AND_4(more_than_fit, NULL);
}

/* ---- who awaits whom -------------------------------------------------------------- */

static void *inner_handle, *outer_handle, *gate;

/* Until the gate, a future, is set. */
static int inner(void *arg, long *value)
{
    (void)arg;
    inner_handle = mag_self();
    int rc = mag_await(gate, value, sizeof *value);

    mag_compiler_barrier(); /* no tail call */
    return rc;
}

static int outer(void *arg, long *value)
{
    (void)arg;
    outer_handle = mag_self();
    int rc = await_co(co(inner, NULL), value);

    mag_compiler_barrier(); /* no tail call: the stack shows who waits */
    return rc;
}

static int in_place(void *arg, long *value)
{
    struct mag_task_info i;
    struct co *c;

    (void)arg;
    gate = future();
    inner_handle = outer_handle = NULL;
    c = go(outer, NULL);
    UNTIL(inner_handle && waits_for(inner_handle, "future"));
    SHOULD(outer_handle == c && inner_handle && inner_handle != c);
    i = info_of(inner_handle);
    SHOULD(i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, "future") == 0);
    SHOULD(i.is_in_place);
    UNTIL(info_of(inner_handle).awaited_by == outer_handle);
    i = info_of(outer_handle);
    SHOULD(i.state == MAG_TASK_WAITING && strcmp(i.waiting_for, "task") == 0);
    SHOULD(i.waiting_on == inner_handle && !i.is_in_place && i.awaited_by == NULL);
    SHOULD(set(gate, 1) == 0);
    return await_co(c, value);
}

Test(inspect, coroutines_in_place)
{
    RUN_1_AND_4(in_place, NULL);
}

static int waiter(void *task, long *value)
{
    return await_co(task, value);
}

static int awaited_task(void *arg, long *value)
{
    struct co *slow = go(forever, NULL), *w = go(waiter, slow);

    (void)arg;
    UNTIL(waits_for(w, "task"));
    UNTIL(info_of(slow).awaited_by == w);
    SHOULD(info_of(w).awaited_by == NULL && info_of(w).waiting_on == slow);
    SHOULD(mag_cancel(w) == 0);
    return await_co(w, value) == -ECANCELED ? 0 : -EBADMSG;
}

Test(inspect, a_task_that_is_awaited)
{
    RUN_1_AND_4(awaited_task, NULL);
}

enum { CHILDREN = 5 };

static void *children[CHILDREN];

/* One that runs in place, on the stack of who gathers, awaits another in place. */
static int nested(void *arg, long *value)
{
    return await_co(co(forever, arg), value);
}

static int gathers(void *arg, long *value)
{
    void *all[CHILDREN];
    long results[CHILDREN];

    (void)arg, (void)value;
    for (int i = 0; i < CHILDREN; i++)
        children[i] = all[i] = co(nested, NULL);
    return mag_gather(results, sizeof *results, all, CHILDREN, NULL);
}

static int gathered(void *arg, long *value)
{
    struct co *c;

    (void)arg;
    memset(children, 0, sizeof children);
    c = go(gathers, NULL);
    for (int i = 0; i < CHILDREN; i++)
        UNTIL(children[i] && waits_for(children[i], "task"));
    for (int i = 0; i < CHILDREN; i++)
        UNTIL(info_of(children[i]).awaited_by == c);
    SHOULD(info_of(c).awaited_by == NULL);
    SHOULD(mag_cancel(c) == 0);
    return await_co(c, value) == -ECANCELED ? 0 : -EBADMSG;
}

Test(inspect, children_of_a_gather)
{
    RUN_1_AND_4(gathered, NULL);
}

static int groups(void *arg, long *value)
{
    struct mag_group g;
    int rc = mag_group_enter(&g, NULL);

    (void)arg, (void)value;
    for (int i = 0; i < CHILDREN && rc == 0; i++) {
        children[i] = co(forever, NULL);
        rc = mag_group_spawn(&g, children[i], NULL, NULL);
    }
    return mag_group_leave(&g, rc);
}

static int grouped(void *arg, long *value)
{
    struct co *c;

    (void)arg;
    memset(children, 0, sizeof children);
    c = go(groups, NULL);
    for (int i = 0; i < CHILDREN; i++)
        UNTIL(children[i] && waits_for(children[i], "sleep"));
    for (int i = 0; i < CHILDREN; i++)
        UNTIL(info_of(children[i]).awaited_by == c);
    SHOULD(mag_cancel(c) == 0);
    return await_co(c, value) == -ECANCELED ? 0 : -EBADMSG;
}

Test(inspect, children_of_a_group)
{
    RUN_1_AND_4(grouped, NULL);
}

/* ---- the tree --------------------------------------------------------------------- */

static int tree(void *arg, long *value)
{
    struct mag_spawn_options named = { .name = "middle" };
    struct co *slow, *w;

    (void)arg;
    gate = future();
    inner_handle = NULL;
    slow = go(outer, NULL);
    w = co(waiter, slow);
    UNTIL(inner_handle && waits_for(inner_handle, "future")); /* so nobody runs it in place */
    SHOULD(mag_start(w, &named) == 0);
    UNTIL(waits_for(w, "task"));
    UNTIL(dump_text(NULL) == 4 && !strstr(text, "is busy") && strstr(text, "\n    = co "));
    SHOULD(says(text, "4 tasks: 1 running, 0 ready, 3 waiting"));
    SHOULD(says(text, "\nmiddle "));
    SHOULD(says(text, "waiting for task 'co'"));
    SHOULD(says(text, "\n  co "));     /* slow, awaited by middle */
    SHOULD(says(text, "\n    = co ")); /* inner, in its place */
    SHOULD(says(text, "waiting for future 'future'"));
    SHOULD(says(text, "created at "));
    SHOULD(set(gate, 2) == 0);
    return await_co(w, value);
}

Test(inspect, the_tree_is_indented)
{
    RUN_1_AND_4(tree, NULL);
}

static int awaits_slot(void *slot, long *value)
{
    SHOULD(mag_sleep(5 * MAG_MS) == 0);
    return await_co(*(struct co **)slot, value);
}

/* It cannot end, and so its runtime is left to the end of the process. */
Test(inspect, tasks_that_await_each_other)
{
    static struct co *a, *b;
    struct mag_rt_options options = { .workers = 2, .slow_ns = MAG_NEVER };
    struct mag_rt *rt;

    cr_assert_eq(mag_rt_new(&rt, &options), 0);
    a = co(awaits_slot, &b);
    b = co(awaits_slot, &a);
    cr_assert_eq(mag_submit(rt, a, NULL), 0);
    cr_assert_eq(mag_submit(rt, b, NULL), 0);
    for (int i = 0; i < 3000; i++) {
        mag_sleep(5 * MAG_MS);
        cr_assert_eq(dump_text(rt), 2);
        if (strstr(text, "circle"))
            break;
    }
    cr_assert(says(text, "these await each other in a circle"));
}

static void *keep_going;

static int computes(void *arg, long *value)
{
    *value = 3;
    mag_store_seq((mag_atomic(long) *)arg, 1);
    while (mag_load_acquire((void **)&keep_going) == NULL)
        mag_cpu_relax();
    return 0;
}

/* What is claimed while it computes.  A thread that gets no processor cannot say where it is. */
static int seen_busy(struct co *c, struct co *other)
{
    mag_time begun = mag_now();

    SHOULD(dump_text(NULL) == 3);
    SHOULD(mag_now() - begun < 10 * MAG_SECOND); /* it waits, but not for ever */
    for (int i = 0; i < 30 && strstr(text, "at computes") == NULL; i++)
        SHOULD(dump_text(NULL) == 3);
    SHOULD(says(text, "worker 2 is busy with 'busy one', in 'co':"));
    SHOULD(says(text, "at computes"));
    SHOULD(info_now(other).is_busy && strcmp(info_now(other).name, "busy one") == 0);
    for (int i = 0; i < 30 && stack_text_now(c) <= 0; i++)
        continue;
    SHOULD(says(text, "at computes"));
    SHOULD(stack_text_now(other) == -EBUSY);
    return 0;
}

static int busy(void *arg, long *value)
{
    static mag_atomic(long) has_begun;
    struct mag_spawn_options options = { .worker = 2, .pin = true, .name = "busy one" };
    struct co *c = co(computes, &has_begun), *other = co(forever, NULL);
    int rc;

    (void)arg;
    SHOULD(mag_start(other, &options) == 0);
    UNTIL(waits_for(other, "sleep"));
    SHOULD(mag_start(c, &options) == 0);
    UNTIL(mag_load_acquire(&has_begun));
    rc = seen_busy(c, other);
    mag_store_release(&keep_going, arg_of(1));
    mag_close(other);
    SHOULD(await_co(c, value) == 0);
    return rc;
}

/* Who looks is on the other worker. */
Test(inspect, a_busy_worker)
{
    struct mag_rt_options options = { .workers = 2, .slow_ns = MAG_NEVER };
    struct mag_spawn_options first = { .worker = 1, .pin = true };
    struct co *c = co(busy, NULL);
    struct mag_rt *rt;

    cr_assert_eq(mag_rt_new(&rt, &options), 0);
    cr_assert_eq(mag_submit(rt, c, &first), 0);
    cr_assert_eq(await_co(c, NULL), 0, "line %d: %s", broken_line, broken_claim);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- from elsewhere --------------------------------------------------------------- */

Test(inspect, from_a_thread_outside)
{
    struct mag_rt_options options = { .workers = 3 };
    struct mag_task_info all[TASKS_MAX];
    struct mag_worker_stats stats;
    struct mag_rt *rt;
    struct co *c;
    long v;

    cr_assert_eq(mag_tasks(NULL, all, TASKS_MAX), 0);
    cr_assert_eq(mag_dump(NULL, stdout), -ENXIO);
    cr_assert_eq(mag_rt_stats(NULL, 1, &stats), -ENXIO);
    cr_assert_eq(mag_print_stack(NULL, stdout), -ENXIO);
    cr_assert_eq(mag_rt_new(&rt, &options), 0);
    cr_assert_eq(mag_tasks(rt, all, TASKS_MAX), 0);
    gate = future();
    c = co(outer, NULL);
    cr_assert_eq(mag_submit(rt, c, NULL), 0);
    do {
        cr_assert_eq(mag_sleep(MAG_MS), 0);
    } while (mag_tasks(rt, all, TASKS_MAX) != 2 || all[0].state != MAG_TASK_WAITING ||
             all[1].state != MAG_TASK_WAITING);
    cr_assert_eq(dump_text(rt), 2);
    cr_assert(stack_text(c) > 0, "%s", text);
    cr_assert(says(text, "at outer"));
    cr_assert_eq(set(gate, 5), 0);
    cr_assert_eq(mag_await(c, &v, sizeof v), 0);
    cr_assert_eq(v, 5);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}

static struct {
    size_t n_tasks;
    bool is_over;
} callback;

static void look_around(void *arg)
{
    struct mag_task_info all[TASKS_MAX];

    callback.n_tasks = mag_tasks(arg, all, TASKS_MAX);
    callback.is_over = true;
}

static int by_callback(void *arg, long *value)
{
    (void)arg;
    *value = 0;
    callback.is_over = false;
    SHOULD(mag_call_soon(look_around, mag_rt_self()) == 0);
    while (!mag_load_acquire(&callback.is_over))
        SHOULD(mag_sleep(MAG_MS) == 0);
    SHOULD(callback.n_tasks == 1);
    return 0;
}

Test(inspect, from_a_callback)
{
    RUN_1_AND_4(by_callback, NULL);
}

/* ---- stacks ----------------------------------------------------------------------- */

static MAG_NOINLINE int deeper(int n, void *f, long *value)
{
    int rc = n ? deeper(n - 1, f, value) : mag_await(f, value, sizeof *value);

    mag_compiler_barrier();
    return rc;
}

static int goes_deeper(void *arg, long *value)
{
    int rc = deeper(4, arg, value);

    mag_compiler_barrier(); /* no tail call */
    return rc;
}

static int stacks(void *arg, long *value)
{
    void *f = future();
    struct co *c = go(goes_deeper, f), *never = co(same, NULL), *o;
    struct mag_sleep_co *leaf = mag_sleep_co(MAG_NEVER);

    (void)arg;
    SHOULD(mag_start(leaf, NULL) == 0);
    UNTIL(waits_for(c, "future") && waits_for(leaf, "sleep"));
    for (int i = 0; i < 3; i++) { /* it stays as it was */
        SHOULD(stack_text(c) >= 6);
        SHOULD(says(text, "at deeper at inspect.c:"));
        SHOULD(says(text, "at goes_deeper at inspect.c:"));
    }
    SHOULD(set(f, 6) == 0);
    SHOULD(await_co(c, value) == 0 && *value == 6);
    SHOULD(stack_text(never) == 0 && says(text, "no stack"));
    SHOULD(stack_text(leaf) == 0 && says(text, "needs no stack"));
    SHOULD(stack_text(NULL) > 0 && says(text, "at stacks"));
    SHOULD(stack_text(mag_self()) > 0 && says(text, "at stacks"));
    SHOULD(mag_close(leaf) == 0);
    f = future();
    SHOULD(mag_print_stack(f, stdout) == -EINVAL);
    SHOULD(set(f, 1) == 0 && mag_await(f, value, sizeof *value) == 0);
    SHOULD(mag_close(never) == 0);
    gate = future();
    inner_handle = NULL;
    o = go(outer, NULL);
    UNTIL(inner_handle && waits_for(inner_handle, "future"));
    SHOULD(stack_text(inner_handle) > 0 && says(text, "at inner") && says(text, "at outer"));
    SHOULD(set(gate, 3) == 0);
    return await_co(o, value);
}

Test(inspect, stacks)
{
    struct mag_rt_options options = { .workers = 4 };

    cr_assert_eq(mag_run_with(co(stacks, NULL), NULL, &options), 0, "line %d: %s", broken_line,
                 broken_claim);
}

/* Suspends where hardly anything of its stack is left. */
static MAG_NOINLINE int to_the_end(void)
{
    volatile char room[256];

    room[0] = 1;
    if ((char *)__builtin_frame_address(0) - mag_fiber_self()->stack.lo > 5000)
        return to_the_end() + room[0] - 1;
    return mag_sleep(MAG_NEVER);
}

static int used_up(void *arg, long *value)
{
    (void)arg;
    *value = 9;
    return to_the_end();
}

static int no_room(void *arg, long *value)
{
    struct co *c = go(used_up, NULL);

    (void)arg;
    UNTIL(waits_for(c, "sleep"));
    *value = 0;
    SHOULD(stack_text(c) == 0 && says(text, "nearly used up"));
    return mag_close(c);
}

Test(inspect, a_stack_that_is_used_up)
{
    if (MAG_ASAN)
        return; /* its frames do not fit there */
    RUN_1_AND_4(no_room, NULL);
}

/* ---- figures ---------------------------------------------------------------------- */

static int figures(void *arg, long *value)
{
    struct mag_worker_stats s;
    struct co *c[5];

    (void)arg;
    for (int i = 0; i < 5; i++)
        c[i] = go(forever, NULL);
    SHOULD(mag_rt_stats(NULL, 1, &s) == 0);
    SHOULD(s.tasks_begun == 5 && s.tasks_ended == 0 && s.unstarted == 5 && s.is_running);
    SHOULD(!s.is_parked && s.steals == 0);
    do { /* so late that it need not park it may be once */
        SHOULD(settle_down() == 0);
        SHOULD(mag_rt_stats(mag_rt_self(), 1, &s) == 0);
    } while (s.parks == 0);
    SHOULD(s.unstarted == 0 && s.timers == 5 && s.operations == 0);
    *value = 0;
    for (int i = 0; i < 5; i++)
        SHOULD(mag_close(c[i]) == 0);
    SHOULD(mag_rt_stats(NULL, 1, &s) == 0 && s.tasks_ended == 5 && s.timers == 0);
    SHOULD(mag_rt_stats(NULL, 0, &s) == -EINVAL && mag_rt_stats(NULL, 2, &s) == -EINVAL);
    return 0;
}

Test(inspect, figures_of_a_worker)
{
    RUN(1, figures, NULL);
}

static int nothing(void *arg, long *value)
{
    *value = num(arg);
    return 0;
}

/* The owner of an embedded runtime, between two steps. */
Test(inspect, an_embedded_runtime)
{
    struct mag_rt_options options = { .workers = 1, .embedded = true };
    struct mag_task_info all[TASKS_MAX];
    struct mag_rt *rt;
    struct co *c, *d;
    long v;

    cr_assert_eq(mag_rt_new(&rt, &options), 0);
    gate = future();
    c = co(await_it, gate);
    d = co(nothing, arg_of(2));
    cr_assert_eq(mag_submit(rt, c, NULL), 0);
    mag_rt_step(rt, 0);
    cr_assert_eq(mag_tasks(rt, all, TASKS_MAX), 1);
    cr_assert_eq(all[0].handle, c);
    cr_assert_eq(all[0].state, MAG_TASK_WAITING);
    cr_assert_eq(mag_close(d), 0);
    cr_assert_eq(set(gate, 5), 0);
    while (!mag_done(c))
        mag_rt_step(rt, MAG_SECOND);
    cr_assert_eq(mag_await(c, &v, sizeof v), 0);
    mag_rt_free(rt);
    cr_assert_eq(mag_mem_live(), 0);
}
