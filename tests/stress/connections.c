/* SPDX-License-Identifier: MIT */
/*
 * connections.c - many connections: at one time, and one after the other
 *
 *      connections                    as many as there may be descriptors, held at one time
 *      connections churn SECONDS      made and closed, for so long (tests/soak)
 *
 * Server and clients are two processes, so that each has the descriptors for itself.
 *
 *      client process: streams, and a few tasks that use them in turn
 *      server process: a task for each connection, which waits for its client
 *
 * Held: all are connected, and each is answered, twice; what a quiet connection costs the server
 * is printed.  Less than HELD_MIN is a failure, unless fewer descriptors are allowed.
 *
 * Churned: after a warm-up, neither process may have more descriptors than before, nor 2 MB more
 * memory, nor may a connection fail.  The server has a limit then: without one, clients that do
 * not wait for an answer let it fall behind by thousands now and then, whose stacks it keeps.
 */
#include "stress.h"

#include <magpie/server.h>
#include <magpie/stream.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum {
    HELD_MIN = STRESS_SCALE(15000, 1000), /* ThreadSanitizer cannot have more fibers than 8,000 */
    HELD_MAX = STRESS_SCALE(19000, 1000),
    OTHERS = 300, /* descriptors that are not connections */
    TASKS = 64,
    GROWTH_KB = 2048,
};

/* ---- the server process -------------------------------------------------------------------------- */

static int answer(struct mag_stream *s, void *arg)
{
    struct mag_str line;
    int rc;

    (void)arg;
    while ((rc = mag_stream_readline(s, &line)) > 0)
        if ((rc = mag_stream_write(s, line.ptr, line.len, NULL)) < 0)
            break;
    return rc;
}

/* Until the other end of the pipe is closed. */
async(void, serve, (unsigned, limit), (int, to_parent), (int, from_parent))
{
    struct mag_server *server;
    uint16_t port;
    char c;

    await(mag_server_start(
        &server, answer, NULL,
        &(struct mag_serve_options){ .host = "127.0.0.1", .max_connections = limit }));
    port = mag_server_port(server);
    EXPECT(mag_write_all(to_parent, &port, sizeof port, NULL) == 0);
    EXPECT(mag_read(from_parent, &c, 1) == 0);
    EXPECT(mag_server_stop(server) == 0);
    mag_server_free(server);
    return 0;
}

struct other {
    pid_t pid;
    int pipe_to; /* closed: it is to end */
    uint16_t port;
};

static struct other fork_server(unsigned limit)
{
    struct other o;
    int up[2], down[2];

    if (pipe(up) < 0 || pipe(down) < 0 || (o.pid = fork()) < 0)
        abort();
    if (o.pid == 0) {
        close(up[0]);
        close(down[1]);
        _exit(mag_run(serve(limit, up[1], down[0]), NULL) != 0 || stress.n_wrong != 0);
    }
    close(up[1]);
    close(down[0]);
    EXPECT(read(up[0], &o.port, sizeof o.port) == sizeof o.port);
    close(up[0]);
    o.pipe_to = down[1];
    return o;
}

static void end_server(struct other *o)
{
    int status = -1;

    close(o->pipe_to);
    EXPECT(waitpid(o->pid, &status, 0) == o->pid && status == 0);
}

/* ---- what a process has ---------------------------------------------------------------------------- */

struct sample {
    long rss_kb;
    int n_descriptors;
};

static struct sample sample_of(pid_t pid)
{
    struct sample s = { 0 };
    char path[64], line[256];
    FILE *f;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmRSS: %ld", &s.rss_kb);
    if (f)
        fclose(f);
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    d = opendir(path);
    while (d && readdir(d))
        s.n_descriptors++;
    if (d)
        closedir(d);
    return s;
}

/* ---- held -------------------------------------------------------------------------------------------- */

static struct mag_stream *held;
static int n_held;

static int how_many(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur < HELD_MAX + OTHERS ? (int)limit.rlim_cur - OTHERS : HELD_MAX;
}

static int ask(struct mag_stream *s, int number)
{
    struct mag_str line;
    char text[32];

    snprintf(text, sizeof text, "I am %d\n", number);
    await(mag_stream_puts(s, text));
    await(mag_stream_readline(s, &line));
    return line.len == strlen(text) && memcmp(line.ptr, text, line.len) == 0 ? 0 : -EPROTO;
}

/* Every TASKS-th one. */
async(void, connect_some, (int, first), (uint16_t, port))
{
    for (int i = first; i < n_held; i += TASKS) {
        stress_beat();
        await(mag_connect(&held[i], "127.0.0.1", port, NULL));
    }
    return 0;
}

async(void, ask_some, (int, first))
{
    for (int i = first; i < n_held; i += TASKS) {
        stress_beat();
        await(ask(&held[i], i));
    }
    return 0;
}

async(void, close_some, (int, first))
{
    for (int i = first; i < n_held; i += TASKS)
        mag_stream_close(&held[i]);
    return 0;
}

/* Its watchdog may have a file open just then: looks until it has no more than that, for 10 s. */
static struct sample settled(pid_t pid, int n_descriptors)
{
    struct sample s = sample_of(pid);

    for (int i = 0; i < 1000 && s.n_descriptors > n_descriptors; i++) {
        stress_beat();
        mag_sleep(10 * MAG_MS);
        s = sample_of(pid);
    }
    return s;
}

async(void, hold, (struct other *, server))
{
    struct sample before = sample_of(server->pid), after;

    task_group(g) for (int i = 0; i < TASKS; i++) group_spawn(g, connect_some(i, server->port));
    for (int k = 0; k < 2; k++)
        task_group(g) for (int i = 0; i < TASKS; i++) group_spawn(g, ask_some(i));
    after = settled(server->pid, before.n_descriptors + n_held);
    EXPECT(after.n_descriptors - before.n_descriptors == n_held);
    printf("connections: %d held and answered; a quiet one costs %.1f KiB\n", n_held,
           (double)(after.rss_kb - before.rss_kb) / n_held);
    task_group(g) for (int i = 0; i < TASKS; i++) group_spawn(g, close_some(i));
    return 0;
}

static void run_held(void)
{
    struct other server;

    n_held = how_many();
    EXPECT(n_held >= HELD_MIN || n_held < HELD_MAX);
    held = calloc((size_t)n_held, sizeof *held);
    server = fork_server(HELD_MAX + 100);
    stress_begin("connections", NULL);
    EXPECT(mag_run(hold(&server), NULL) == 0);
    end_server(&server);
    free(held);
}

/* ---- churned ------------------------------------------------------------------------------------------- */

static mag_atomic(uint64_t) n_churned;
static mag_atomic(uint32_t) is_over;

static int come_and_go(uint16_t port, uint64_t number)
{
    struct mag_stream s;
    char c;
    int rc = mag_connect(&s, "127.0.0.1", port, NULL);

    if (rc == -EADDRNOTAVAIL) /* all ports were used a moment ago */
        return mag_sleep(20 * MAG_MS);
    if (rc < 0)
        return rc;
    if (number % 4)
        rc = ask(&s, (int)(number % 1000000));
    if (rc == 0 && number % 3 == 0) { /* ends as it should */
        rc = mag_stream_write_eof(&s);
        if (rc == 0)
            rc = mag_stream_read(&s, &c, 1);
    }
    if (number % 3 == 1)
        mag_stream_abort(&s);
    else
        mag_stream_close(&s);
    return rc;
}

async(void, churn, (uint16_t, port), (uint64_t, number))
{
    for (; !mag_load_relaxed(&is_over); number += TASKS) {
        stress_beat();
        await(come_and_go(port, number));
        mag_fetch_add(&n_churned, 1);
    }
    return 0;
}

static void compare(const char *who, struct sample a, struct sample b)
{
    printf("connections: %s: %ld kB and %d descriptors, then %ld kB and %d\n", who, a.rss_kb,
           a.n_descriptors, b.rss_kb, b.n_descriptors);
    EXPECT(b.rss_kb - a.rss_kb <= GROWTH_KB);
    EXPECT(b.n_descriptors <= a.n_descriptors + 2 * TASKS); /* those that are open just now */
}

async(void, churn_for, (struct other *, server), (mag_time, duration))
{
    struct sample mine, its;
    pid_t self = getpid();

    task_group(g)
    {
        for (int i = 0; i < TASKS; i++)
            group_spawn(g, churn(server->port, (uint64_t)i));
        await(mag_sleep(duration / 4));
        mine = sample_of(self);
        its = sample_of(server->pid);
        await(mag_sleep(duration - duration / 4));
        compare("client", mine, sample_of(self));
        compare("server", its, sample_of(server->pid));
        mag_store_relaxed(&is_over, 1);
    }
    EXPECT(settled(server->pid, its.n_descriptors).n_descriptors <= its.n_descriptors);
    printf("connections: %llu made and closed\n", (unsigned long long)n_churned);
    return 0;
}

static void run_churned(int seconds)
{
    struct other server = fork_server(TASKS * 2);

    stress_begin("connections", NULL);
    EXPECT(mag_run(churn_for(&server, seconds * MAG_SECOND), NULL) == 0);
    EXPECT(n_churned > 0);
    end_server(&server);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "churn") == 0 && atoi(argv[2]) > 0)
        run_churned(atoi(argv[2]));
    else if (argc == 1)
        run_held();
    else
        return 2;
    return stress_end();
}
