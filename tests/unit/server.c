/* SPDX-License-Identifier: MIT */
/*
 * server.c - tests of servers: where they listen, how they begin connections, and how they end
 *
 * Each runs on one worker and on four; afterwards no descriptor and no memory is left.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "atomic.h"
#include "children.h"
#include "clock.h"
#include "sys.h"

#include <arpa/inet.h>
#include <magpie/inspect.h>
#include <magpie/server.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

TestSuite(server, .timeout = 60);

#define LOCAL "127.0.0.1"

#define RUNS(name) \
    Test(server, name) \
    { \
        RUN_CLEAN(name(), 0); \
    }

/* ---- handlers, and what they tell ------------------------------------------------------------- */

struct seen {
    mag_atomic(int) n_begun, n_ended; /* handlers */
    mag_atomic(int) last_rc;          /* of one that failed */
    char peer[64];                    /* as on_error was told it */
    struct mag_event gate;            /* what some wait for */
};

static int echo_lines(struct mag_stream *s, void *arg)
{
    struct seen *seen = arg;
    struct mag_str line;
    int rc;

    mag_fetch_add(&seen->n_begun, 1);
    while ((rc = mag_stream_readline(s, &line)) > 0)
        if ((rc = mag_stream_write(s, line.ptr, line.len, NULL)) < 0)
            break;
    if (rc < 0)
        mag_store_release(&seen->last_rc, rc);
    mag_fetch_add(&seen->n_ended, 1);
    return rc;
}

static int hello(struct mag_stream *s, void *arg)
{
    (void)arg;
    return mag_stream_puts(s, "hello\n"); /* sent by the close */
}

static int waits_for_gate(struct mag_stream *s, void *arg)
{
    struct seen *seen = arg;
    int rc;

    mag_fetch_add(&seen->n_begun, 1);
    rc = mag_event_wait(&seen->gate);
    if (rc == 0)
        rc = mag_stream_puts(s, "through\n");
    mag_store_release(&seen->last_rc, rc);
    mag_fetch_add(&seen->n_ended, 1);
    return rc;
}

static void note_error(int rc, const char *peer, void *arg)
{
    struct seen *seen = arg;

    snprintf(seen->peer, sizeof seen->peer, "%s", peer);
    mag_store_release(&seen->last_rc, rc);
}

/* ---- clients -------------------------------------------------------------------------------------- */

static int until(mag_atomic(int) * what, int n)
{
    int rc = 0;

    while (rc == 0 && mag_load_acquire(what) < n)
        rc = mag_sleep(100 * MAG_US);
    return rc;
}

/* Sends a line, and whether it comes back. */
static bool echoes(struct mag_stream *s, const char *line)
{
    struct mag_str back;

    return mag_stream_puts(s, line) == 0 && mag_stream_readline(s, &back) > 0 &&
           back.len == strlen(line) && memcmp(back.ptr, line, back.len) == 0;
}

static bool says(struct mag_stream *s, const char *text)
{
    char buf[64];
    size_t n = strlen(text);

    return mag_stream_read_exact(s, buf, n, NULL) == 0 && memcmp(buf, text, n) == 0 &&
           mag_stream_read(s, buf, 1) == 0;
}

static int ask(const char *host, uint16_t port)
{
    async_with(mag_stream, s, host, port) SHOULD(echoes(s, "a line\n"));
    return 0;
}

static int ask_unix(const char *path)
{
    struct mag_stream s;

    await(mag_connect_unix(&s, path, NULL));
    SHOULD(echoes(&s, "a line\n"));
    SHOULD(mag_stream_close(&s) == 0);
    return 0;
}

static int stats_open(const struct mag_server *server)
{
    struct mag_server_stats stats;

    mag_server_stats(server, &stats);
    return (int)stats.n_open;
}

static int until_open(const struct mag_server *server, int n)
{
    int rc = 0;

    while (rc == 0 && stats_open(server) != n)
        rc = mag_sleep(100 * MAG_US);
    return rc;
}

/* ---- where it listens ------------------------------------------------------------------------------- */

async(void, all_addresses)
{
    struct seen seen = { 0 };
    struct mag_server *server;

    await(mag_server_start(&server, echo_lines, &seen, NULL));
    SHOULD(mag_server_port(server) > 0);
    await(ask(LOCAL, mag_server_port(server)));
    await(ask("::1", mag_server_port(server)));
    await(ask("localhost", mag_server_port(server)));
    await(mag_server_stop(server));
    SHOULD(seen.n_begun == 3 && seen.n_ended == 3);
    mag_server_free(server);
    return 0;
}
RUNS(all_addresses)

async(void, a_name)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .host = "localhost" };
    struct mag_server *server, *second;

    await(mag_server_start(&server, echo_lines, &seen, &options));
    options.port = mag_server_port(server);
    await(ask("localhost", options.port));
    SHOULD(mag_server_start(&second, echo_lines, &seen, &options) == -EADDRINUSE && !second);
    mag_server_free(server);
    SHOULD(mag_server_start(&server, echo_lines, &seen, &options) == 0); /* at once again */
    mag_server_free(server);
    options.host = "192.0.2.1";
    SHOULD(mag_server_start(&second, echo_lines, &seen, &options) == -EADDRNOTAVAIL);
    options.host = "no-such-host.invalid";
    SHOULD(mag_server_start(&second, echo_lines, &seen, &options) < 0 && !second);
    return 0;
}
RUNS(a_name)

async(void, reuse_port)
{
    struct mag_serve_options options = { .host = LOCAL, .reuse_port = true };
    struct mag_server *one, *two;

    await(mag_server_start(&one, hello, NULL, &options));
    options.port = mag_server_port(one);
    await(mag_server_start(&two, hello, NULL, &options));
    mag_server_free(two);
    mag_server_free(one);
    return 0;
}
RUNS(reuse_port)

/* Of this process: tests run at the same time. */
static const char *own_path(bool is_abstract)
{
    static char path[64];

    snprintf(path, sizeof path, "%smagpie-test-server-%d", is_abstract ? "@" : "/tmp/",
             (int)getpid());
    return path;
}
#define UNIX_PATH     own_path(false)
#define ABSTRACT_NAME own_path(true)

static bool is_socket(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

async(void, unix_path)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .unix_path = UNIX_PATH, .mode = 0600 };
    struct mag_server *server, *second;
    struct stat st;

    unlink(UNIX_PATH);
    await(mag_server_start(&server, echo_lines, &seen, &options));
    SHOULD(mag_server_port(server) == 0);
    SHOULD(stat(UNIX_PATH, &st) == 0 && (st.st_mode & 0777) == 0600);
    await(ask_unix(UNIX_PATH));
    SHOULD(mag_server_start(&second, echo_lines, &seen, &options) == -EADDRINUSE);
    SHOULD(is_socket(UNIX_PATH));
    await(ask_unix(UNIX_PATH)); /* being asked whether it lives has not hurt it */
    mag_server_free(server);
    SHOULD(!is_socket(UNIX_PATH));
    return 0;
}
RUNS(unix_path)

async(void, abstract_name)
{
    struct seen seen = { 0 };
    struct mag_server *server;

    await(mag_server_start(&server, echo_lines, &seen,
                           &(struct mag_serve_options){ .unix_path = ABSTRACT_NAME }));
    await(ask_unix(ABSTRACT_NAME));
    mag_server_free(server);
    return 0;
}
RUNS(abstract_name)

static void leave_dead_socket(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(addr.sun_path, UNIX_PATH);
    unlink(UNIX_PATH);
    (void)!bind(fd, (struct sockaddr *)&addr, sizeof addr);
    close(fd);
}

async(void, a_dead_servers_path_is_taken_over)
{
    struct seen seen = { 0 };
    struct mag_server *server;

    leave_dead_socket();
    SHOULD(is_socket(UNIX_PATH));
    await(mag_server_start(&server, echo_lines, &seen,
                           &(struct mag_serve_options){ .unix_path = UNIX_PATH }));
    await(ask_unix(UNIX_PATH));
    mag_server_free(server);
    SHOULD(!is_socket(UNIX_PATH));
    return 0;
}
RUNS(a_dead_servers_path_is_taken_over)

/* CPython: UnixServerCleanupTests. */
async(void, what_is_not_ours_is_not_removed)
{
    struct mag_serve_options options = { .unix_path = UNIX_PATH };
    struct mag_server *server;
    struct stat st;

    unlink(UNIX_PATH);
    close(open(UNIX_PATH, O_CREAT | O_WRONLY, 0600));
    SHOULD(mag_server_start(&server, hello, NULL, &options) == -EADDRINUSE);
    SHOULD(stat(UNIX_PATH, &st) == 0 && S_ISREG(st.st_mode));
    unlink(UNIX_PATH);

    await(mag_server_start(&server, hello, NULL, &options));
    unlink(UNIX_PATH); /* somebody else's from now on */
    close(open(UNIX_PATH, O_CREAT | O_WRONLY, 0600));
    mag_server_free(server);
    SHOULD(stat(UNIX_PATH, &st) == 0 && S_ISREG(st.st_mode));
    unlink(UNIX_PATH);

    await(mag_server_start(&server, hello, NULL, &options));
    unlink(UNIX_PATH); /* nobody's: no matter */
    mag_server_free(server);
    return 0;
}
RUNS(what_is_not_ours_is_not_removed)

async(void, bad_unix_paths)
{
    char path[200];
    struct mag_serve_options options = { .unix_path = path };
    struct mag_server *server;

    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    SHOULD(mag_server_start(&server, hello, NULL, &options) == -ENAMETOOLONG);
    path[0] = '\0';
    SHOULD(mag_server_start(&server, hello, NULL, &options) == -EINVAL);
    strcpy(path, "/no/such/directory/sock");
    SHOULD(mag_server_start(&server, hello, NULL, &options) == -ENOENT);
    return 0;
}
RUNS(bad_unix_paths)

static int listener(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 16) < 0)
        abort();
    return fd;
}

async(void, a_socket_that_listens_already)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .listen_fd = listener() };
    struct mag_server *server;

    await(mag_server_start(&server, echo_lines, &seen, &options));
    await(ask(LOCAL, mag_server_port(server)));
    mag_server_free(server);
    /* one that does not; it is closed all the same */
    options.listen_fd = socket(AF_INET, SOCK_STREAM, 0);
    SHOULD(mag_server_start(&server, echo_lines, &seen, &options) == -EINVAL);
    options.listen_fd = listener();
    options.drain = -1;
    SHOULD(mag_server_start(&server, echo_lines, &seen, &options) == -EINVAL);
    return 0;
}
RUNS(a_socket_that_listens_already)

async(void, bad_options)
{
    struct mag_server *server;
    struct mag_serve_options options = { .stream = { .high_water = 10, .low_water = 20 } };

    SHOULD(mag_server_start(&server, NULL, NULL, NULL) == -EINVAL && server == NULL);
    SHOULD(mag_server_start(&server, hello, NULL, &options) == -EINVAL);
    return 0;
}
RUNS(bad_options)

Test(server, outside_a_task)
{
    struct mag_server *server;

    cr_assert_eq(mag_server_start(&server, hello, NULL, NULL), -ENXIO);
    mag_server_free(NULL);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- connections -------------------------------------------------------------------------------------- */

static int asks_nodelay(struct mag_stream *s, void *arg)
{
    mag_atomic(int) *is_on = arg;
    int value = 0;
    socklen_t len = sizeof value;

    getsockopt(mag_stream_fd(s), IPPROTO_TCP, TCP_NODELAY, &value, &len);
    mag_store_release(is_on, value ? 1 : 2);
    return 0;
}

async(void, nodelay_is_set)
{
    struct mag_server *server;
    mag_atomic(int) is_on = 0;

    await(mag_server_start(&server, asks_nodelay, &is_on,
                           &(struct mag_serve_options){ .host = LOCAL }));
    async_with(mag_stream, s, LOCAL, mag_server_port(server)) await(until(&is_on, 1));
    SHOULD(is_on == 1);
    mag_server_free(server);
    return 0;
}
RUNS(nodelay_is_set)

async(void, what_is_buffered_is_sent_at_the_end)
{
    struct mag_server *server;

    await(mag_server_start(&server, hello, NULL, &(struct mag_serve_options){ .host = LOCAL }));
    async_with(mag_stream, s, LOCAL, mag_server_port(server)) SHOULD(says(s, "hello\n"));
    mag_server_free(server);
    return 0;
}
RUNS(what_is_buffered_is_sent_at_the_end)

static int fails(struct mag_stream *s, void *arg)
{
    (void)arg;
    mag_stream_puts(s, "sorry\n");
    return -EPROTO;
}

async(void, an_error_is_its_connections_business)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .host = LOCAL, .on_error = note_error };
    struct mag_server_stats stats;
    struct mag_server *server;

    await(mag_server_start(&server, fails, &seen, &options));
    for (int i = 0; i < 3; i++) {
        char own[64];
        seen.last_rc = 0;
        async_with(mag_stream, s, LOCAL, mag_server_port(server))
        {
            mag_stream_own_name(s, own, sizeof own);
            SHOULD(says(s, "sorry\n"));
        }
        SHOULD(seen.last_rc == -EPROTO);
        SHOULD(strcmp(seen.peer, own) == 0);
    }
    await(until_open(server, 0));
    mag_server_stats(server, &stats);
    SHOULD(stats.n_accepted == 3 && stats.n_failed == 3 && stats.n_refused == 0);
    mag_server_free(server);
    return 0;
}
RUNS(an_error_is_its_connections_business)

async(void, at_the_limit_the_rest_waits)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .host = LOCAL, .max_connections = 2 };
    struct mag_stream s[5];
    struct mag_server *server;

    await(mag_server_start(&server, waits_for_gate, &seen, &options));
    for (int i = 0; i < 5; i++)
        await(mag_connect(&s[i], LOCAL, mag_server_port(server), NULL));
    await(until(&seen.n_begun, 2));
    mag_sleep(5 * MAG_MS);
    SHOULD(seen.n_begun == 2 && stats_open(server) == 2);
    mag_event_set(&seen.gate);
    for (int i = 0; i < 5; i++) { /* two after two */
        SHOULD(says(&s[i], "through\n"));
        mag_stream_close(&s[i]);
    }
    SHOULD(seen.n_begun == 5);
    mag_server_free(server);
    return 0;
}
RUNS(at_the_limit_the_rest_waits)

static int closes_itself(struct mag_stream *s, void *arg)
{
    struct seen *seen = arg;
    int rc = mag_stream_puts(s, "bye\n"), twin[2];

    if (rc == 0)
        rc = mag_stream_close(s);
    /* its number is somebody else's now: that one must stay readable */
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, twin) < 0)
        return -EIO;
    mag_fetch_add(&seen->n_begun, 1);
    mag_event_wait(&seen->gate);
    if (write(twin[1], "x", 1) != 1 || write(twin[0], "y", 1) != 1 ||
        read(twin[0], &(char){ 0 }, 1) != 1 || read(twin[1], &(char){ 0 }, 1) != 1)
        mag_store_release(&seen->last_rc, -EPIPE);
    close(twin[0]);
    close(twin[1]);
    return rc;
}

async(void, a_handler_may_close_its_stream)
{
    struct seen seen = { 0 };
    struct mag_server *server;

    await(mag_server_start(&server, closes_itself, &seen,
                           &(struct mag_serve_options){ .host = LOCAL }));
    async_with(mag_stream, s, LOCAL, mag_server_port(server)) SHOULD(says(s, "bye\n"));
    await(until(&seen.n_begun, 1));
    mag_server_close_clients(server);
    mag_event_set(&seen.gate);
    await(mag_server_stop(server));
    SHOULD(seen.last_rc == 0);
    mag_server_free(server);
    return 0;
}
RUNS(a_handler_may_close_its_stream)

/* ---- shortage ---------------------------------------------------------------------------------------------- */

static mag_atomic(int) n_lines;
static mag_atomic(mag_time) n_ns_later;

static void count_lines(void *arg, const char *line)
{
    (void)arg;
    if (strstr(line, "cannot accept: Too many open files"))
        mag_fetch_add(&n_lines, 1);
}

static mag_time later(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * MAG_SECOND + ts.tv_nsec + mag_load_relaxed(&n_ns_later);
}

/* A client that finds nobody free to accept it, until there are descriptors again. */
static int knock_in_a_shortage(struct mag_server *server)
{
    struct mag_server_stats before, now;
    struct mag_stream s;
    int fillers[256], n = 0;

    mag_server_stats(server, &before);
    while (n < 256 && (fillers[n] = dup(0)) >= 0)
        n++;
    SHOULD(n > 2 && n < 256);
    close(fillers[--n]); /* one for the client, none for who is to accept it */
    await(mag_connect(&s, LOCAL, mag_server_port(server), NULL));
    do {
        mag_sleep(5 * MAG_MS);
        mag_server_stats(server, &now);
    } while (now.n_refused < before.n_refused + 2);
    while (n > 0)
        close(fillers[--n]);
    SHOULD(echoes(&s, "at last\n")); /* when it has tried again */
    return mag_stream_close(&s);
}

/* What all doors and two shortages have to say is one line; half a minute later it is another. */
async(void, no_more_descriptors)
{
    struct seen seen = { 0 };
    struct mag_server *server;

    await(
        mag_server_start(&server, echo_lines, &seen, &(struct mag_serve_options){ .host = LOCAL }));
    await(ask(LOCAL, mag_server_port(server)));
    for (int i = 0; i < 3; i++) {
        await(until_open(server, 0));
        if (i == 2)
            mag_store_relaxed(&n_ns_later, 30 * MAG_SECOND);
        await(knock_in_a_shortage(server));
        SHOULD(mag_load_relaxed(&n_lines) == (i < 2 ? 1 : 2));
    }
    mag_server_free(server);
    return 0;
}

Test(server, no_more_descriptors)
{
    struct mag_rt_options options = { .workers = 4, .report = count_lines };
    struct rlimit limit = { 200, 200 };

    setrlimit(RLIMIT_NOFILE, &limit);
    mag_clock_set_source(later);
    cr_assert_eq(mag_run_with(no_more_descriptors(), NULL, &options), 0, "line %d: %s", broken_line,
                 broken_claim);
    cr_assert_eq(n_lines, 2, "%d lines", n_lines);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- the stop ------------------------------------------------------------------------------------------------ */

async(void, quiet_connections_end_at_once)
{
    struct seen seen = { 0 };
    struct mag_stream s[10], late;
    struct mag_server *server;
    uint16_t port;
    char c;

    await(mag_server_start(&server, echo_lines, &seen,
                           &(struct mag_serve_options){ .host = LOCAL, .drain = MAG_NEVER }));
    port = mag_server_port(server);
    for (int i = 0; i < 10; i++) {
        await(mag_connect(&s[i], LOCAL, port, NULL));
        SHOULD(echoes(&s[i], "here\n"));
    }
    for (int i = 0; i < 5; i++) /* arrives before the end */
        await(mag_stream_write_all(&s[i], "last words\n", 11, NULL));
    SHOULD(mag_server_stop(server) == 0);
    SHOULD(seen.n_ended == 10);
    for (int i = 0; i < 10; i++) {
        if (i < 5)
            SHOULD(says(&s[i], "last words\n"));
        else
            SHOULD(mag_stream_read(&s[i], &c, 1) == 0);
        mag_stream_close(&s[i]);
    }
    SHOULD(mag_connect(&late, LOCAL, port, NULL) == -ECONNREFUSED);
    SHOULD(mag_server_stop(server) == 0 && mag_server_wait(server) == 0); /* and again */
    mag_server_free(server);
    return 0;
}
RUNS(quiet_connections_end_at_once)

/* Requests are of two lines. */
static int serve_requests(struct mag_stream *s, void *arg)
{
    struct seen *seen = arg;
    struct mag_str line;
    int rc;

    while ((rc = mag_stream_wait_request(s)) > 0) {
        await(mag_stream_readline(s, &line));
        mag_fetch_add(&seen->n_begun, 1);
        rc = mag_stream_readline(s, &line);
        if (rc <= 0)
            return -EPROTO;
        await(mag_stream_puts(s, mag_stream_is_draining(s) ? "last\n" : "done\n"));
        mag_fetch_add(&seen->n_ended, 1);
    }
    return rc;
}

async(int, stop, (struct mag_server *, server))
{
    int rc = mag_server_stop(server);

    if (rc < 0)
        return rc;
    async_return(rc);
}

async(void, a_request_under_way_is_answered)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .host = LOCAL, .has_requests = true, .drain = MAG_NEVER };
    struct mag_stream quiet, busy;
    struct mag_server *server;
    struct stop *stopping;
    char c;

    await(mag_server_start(&server, serve_requests, &seen, &options));
    await(mag_connect(&quiet, LOCAL, mag_server_port(server), NULL));
    await(mag_connect(&busy, LOCAL, mag_server_port(server), NULL));
    await(mag_stream_write_all(&quiet, "one\ntwo\n", 8, NULL));
    await(until(&seen.n_ended, 1));
    await(mag_stream_write_all(&busy, "one\n", 4, NULL));
    await(until(&seen.n_begun, 2));
    stopping = spawn(stop(server));
    SHOULD(says(&quiet, "done\n")); /* it ends, but for the other one: */
    await(until_open(server, 1));
    mag_sleep(5 * MAG_MS);
    SHOULD(stats_open(server) == 1 && !mag_done(stopping));
    await(mag_stream_write_all(&busy, "two\none\ntwo\n", 12, NULL)); /* and one more at once */
    SHOULD(says(&busy, "last\nlast\n"));
    await(stopping);
    SHOULD(seen.n_ended == 3);
    SHOULD(mag_stream_read(&busy, &c, 1) == 0);
    mag_stream_close(&quiet);
    mag_stream_close(&busy);
    mag_server_free(server);
    return 0;
}
RUNS(a_request_under_way_is_answered)

/* Whether the peer has reset the connection. */
static bool is_reset(struct mag_stream *s)
{
    char c;

    return mag_stream_read(s, &c, 1) == -ECONNRESET;
}

async(void, who_takes_too_long_is_cut_off)
{
    struct seen seen = { 0 };
    struct mag_serve_options options = { .host = LOCAL, .drain = 20 * MAG_MS };
    struct mag_stream s;
    struct mag_server *server;

    await(mag_server_start(&server, waits_for_gate, &seen, &options));
    await(mag_connect(&s, LOCAL, mag_server_port(server), NULL));
    await(until(&seen.n_begun, 1));
    SHOULD(mag_server_stop(server) == -ETIMEDOUT);
    SHOULD(seen.n_ended == 1 && seen.last_rc == -ECANCELED);
    SHOULD(is_reset(&s));
    mag_stream_close(&s);
    SHOULD(mag_server_stop(server) == -ETIMEDOUT && mag_server_wait(server) == 0);
    mag_server_free(server);
    return 0;
}
RUNS(who_takes_too_long_is_cut_off)

async(void, a_stop_that_is_cancelled_cuts_off_at_once)
{
    struct seen seen = { 0 };
    struct mag_stream s;
    struct mag_server *server;

    await(mag_server_start(&server, waits_for_gate, &seen,
                           &(struct mag_serve_options){ .host = LOCAL, .drain = MAG_NEVER }));
    await(mag_connect(&s, LOCAL, mag_server_port(server), NULL));
    await(until(&seen.n_begun, 1));
    SHOULD(wait_for(stop(server), 10 * MAG_MS, NULL) == -ETIMEDOUT);
    SHOULD(seen.n_ended == 1 && seen.last_rc == -ECANCELED && stats_open(server) == 0);
    mag_stream_close(&s);
    mag_server_free(server);
    return 0;
}
RUNS(a_stop_that_is_cancelled_cuts_off_at_once)

async(int, waiting, (struct mag_server *, server))
{
    int rc = mag_server_wait(server);

    if (rc < 0)
        return rc;
    async_return(rc);
}

async(void, who_waits_is_told)
{
    struct seen seen = { 0 };
    struct mag_server *server;
    struct waiting *one, *two;

    await(
        mag_server_start(&server, echo_lines, &seen, &(struct mag_serve_options){ .host = LOCAL }));
    SHOULD(wait_for(waiting(server), 5 * MAG_MS, NULL) == -ETIMEDOUT);
    await(ask(LOCAL, mag_server_port(server))); /* it goes on */
    one = spawn(waiting(server));
    two = spawn(waiting(server));
    mag_sleep(MAG_MS);
    SHOULD(!mag_done(one));
    await(mag_server_stop(server));
    SHOULD(await(one) == 0 && await(two) == 0);
    mag_server_free(server);
    return 0;
}
RUNS(who_waits_is_told)

/* ---- clients are sent away -------------------------------------------------------------------------------------- */

async(void, close_clients)
{
    struct seen seen = { 0 };
    struct mag_stream s[8];
    struct mag_server *server;
    char c;

    await(
        mag_server_start(&server, echo_lines, &seen, &(struct mag_serve_options){ .host = LOCAL }));
    for (int i = 0; i < 8; i++) {
        await(mag_connect(&s[i], LOCAL, mag_server_port(server), NULL));
        SHOULD(echoes(&s[i], "here\n"));
    }
    mag_server_close_clients(server);
    for (int i = 0; i < 8; i++) {
        SHOULD(mag_stream_read(&s[i], &c, 1) == 0);
        mag_stream_close(&s[i]);
    }
    await(until(&seen.n_ended, 8));
    SHOULD(seen.last_rc == 0);
    await(ask(LOCAL, mag_server_port(server))); /* others may come */
    mag_server_free(server);
    return 0;
}
RUNS(close_clients)

async(void, abort_clients)
{
    struct seen seen = { 0 };
    struct mag_stream s[8];
    struct mag_server *server;

    await(
        mag_server_start(&server, echo_lines, &seen, &(struct mag_serve_options){ .host = LOCAL }));
    for (int i = 0; i < 8; i++) {
        await(mag_connect(&s[i], LOCAL, mag_server_port(server), NULL));
        SHOULD(echoes(&s[i], "here\n"));
    }
    mag_server_abort_clients(server);
    for (int i = 0; i < 8; i++) {
        SHOULD(is_reset(&s[i]));
        mag_stream_close(&s[i]);
    }
    await(until(&seen.n_ended, 8));
    SHOULD(seen.last_rc == -ECANCELED);
    await(ask(LOCAL, mag_server_port(server)));
    mag_server_free(server);
    return 0;
}
RUNS(abort_clients)

static int takes_it_lightly(struct mag_stream *s, void *arg)
{
    (void)waits_for_gate(s, arg);
    return 0;
}

async(void, an_aborted_connection_is_reset_whatever_its_handler_says)
{
    struct seen seen = { 0 };
    struct mag_stream s;
    struct mag_server *server;

    await(mag_server_start(&server, takes_it_lightly, &seen,
                           &(struct mag_serve_options){ .host = LOCAL }));
    await(mag_connect(&s, LOCAL, mag_server_port(server), NULL));
    await(until(&seen.n_begun, 1));
    mag_server_abort_clients(server);
    SHOULD(is_reset(&s));
    mag_stream_close(&s);
    mag_server_free(server);
    return 0;
}
RUNS(an_aborted_connection_is_reset_whatever_its_handler_says)

/* Connected by the kernel, whoever accepts it or not. */
static int connect_blocking(uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        abort();
    return fd;
}

/* Whether every task but this one waits for something. */
static bool halls_wait(void)
{
    enum { TASKS_MAX = 64 };
    struct mag_task_info *infos = malloc(TASKS_MAX * sizeof *infos);
    size_t n = mag_tasks(NULL, infos, TASKS_MAX), n_waiting = 0;

    for (size_t i = 0; i < n && i < TASKS_MAX; i++)
        n_waiting += infos[i].state == MAG_TASK_WAITING && !infos[i].is_busy;
    free(infos);
    return n > 1 && n_waiting == n - 1;
}

/*
 * Cancelled between the accept and the first step of the handler's task, which here has no stack:
 * then the record, the descriptor and the place are the hall's to give back.
 */
async(void, who_is_cancelled_before_he_begins)
{
    enum { N = 50 };
    struct seen seen = { 0 };
    struct mag_serve_options options = { .host = LOCAL, .drain = 1 };
    struct mag_server_stats stats = { 0 };
    struct mag_server *server;
    int fds[N], n_times = 0;

    await(mag_server_start(&server, waits_for_gate, &seen, &options));
    while (!halls_wait()) /* they have begun, and have their stacks */
        mag_sleep(MAG_MS);
    mag_sys_fail_nth(MAG_SYS_MMAP, 1, ENOMEM, true);
    mag_sys_fail_nth(MAG_SYS_MPROTECT, 1, ENOMEM, true);
    mag_sys_fail_nth(MAG_SYS_MADVISE, 1, ENOMEM, true);
    for (int i = 0; i < N; i++)
        fds[i] = connect_blocking(mag_server_port(server));
    for (int i = 0; i < 1000 && n_times < 5; i++) {
        mag_sleep(MAG_MS);
        mag_server_stats(server, &stats);
        n_times += (int)stats.n_accepted > mag_load_acquire(&seen.n_begun);
    }
    SHOULD(n_times == 5);
    (void)mag_server_stop(server); /* a usher that ends may leave its stack to one of them */
    mag_sys_fail_none();
    mag_server_free(server);
    for (int i = 0; i < N; i++)
        close(fds[i]);
    return 0;
}
RUNS(who_is_cancelled_before_he_begins)

/* ---- the handshake ------------------------------------------------------------------------------------------------- */

struct mag_tls { /* as tls.h begins */
    int (*start)(struct mag_tls *tls, struct mag_stream *s, const char *name);
};

static int start_well(struct mag_tls *tls, struct mag_stream *s, const char *name)
{
    (void)tls, (void)s;
    return name ? -EINVAL : mag_sleep(MAG_MS);
}

static int start_never(struct mag_tls *tls, struct mag_stream *s, const char *name)
{
    (void)tls, (void)s, (void)name;
    return mag_sleep(MAG_NEVER);
}

async(void, the_handshake_has_a_limit_of_its_own)
{
    struct seen seen = { 0 };
    struct mag_tls well = { start_well }, never = { start_never };
    struct mag_serve_options options = { .host = LOCAL, .tls = &well, .on_error = note_error };
    struct mag_stream s;
    struct mag_server *server;
    char c;

    await(mag_server_start(&server, echo_lines, &seen, &options));
    await(ask(LOCAL, mag_server_port(server)));
    mag_server_free(server);
    SHOULD(seen.n_ended == 1 && seen.last_rc == 0);

    options.tls = &never;
    options.tls_timeout = 5 * MAG_MS;
    await(mag_server_start(&server, echo_lines, &seen, &options));
    await(mag_connect(&s, LOCAL, mag_server_port(server), NULL));
    SHOULD(mag_stream_read(&s, &c, 1) <= 0);
    mag_stream_close(&s);
    SHOULD(seen.n_begun == 1 && seen.last_rc == -ETIMEDOUT);
    mag_server_free(server);
    return 0;
}
RUNS(the_handshake_has_a_limit_of_its_own)

/* ---- mag_serve, and the end of everything ---------------------------------------------------------------------------- */

async(int, serve, (struct seen *, seen), (const char *, path))
{
    return mag_serve(echo_lines, seen, &(struct mag_serve_options){ .unix_path = path });
}

async(void, serve_until_it_is_cancelled)
{
    struct seen seen = { 0 };
    struct serve *task = spawn(serve(&seen, ABSTRACT_NAME));
    struct mag_stream s;
    char c;

    while (mag_connect_unix(&s, ABSTRACT_NAME, NULL) < 0)
        mag_sleep(MAG_MS);
    SHOULD(echoes(&s, "here\n"));
    mag_cancel(task);
    SHOULD(mag_stream_read(&s, &c, 1) == 0); /* gracefully */
    SHOULD(await_rc(task, NULL) == -ECANCELED);
    SHOULD(seen.n_ended == 1 && seen.last_rc == 0);
    mag_stream_close(&s);
    SHOULD(await_rc(serve(&seen, "/no/such/directory/sock"), NULL) == -ENOENT);
    return 0;
}
RUNS(serve_until_it_is_cancelled)

async(void, started_while_cancelled)
{
    struct seen seen = { 0 };
    struct mag_server *server = NULL;
    int rc = 0;

    mag_cancel(mag_self());
    rc = mag_server_start(&server, echo_lines, &seen, &(struct mag_serve_options){ .host = LOCAL });
    if (rc == 0) /* nothing in it had to wait */
        mag_server_free(server);
    return rc == 0 || rc == -ECANCELED ? 0 : rc;
}
RUNS(started_while_cancelled)

static struct seen stopped;

async(void, stopped_under_it, (struct mag_server **, server), (mag_atomic(int) *, is_up))
{
    struct mag_stream s;
    int rc;

    rc = mag_server_start(server, waits_for_gate, &stopped,
                          &(struct mag_serve_options){ .host = LOCAL, .drain = MAG_NEVER });
    if (rc < 0)
        return rc;
    rc = mag_connect(&s, LOCAL, mag_server_port(*server), NULL);
    if (rc == 0)
        rc = until(&stopped.n_begun, 1);
    mag_store_release(is_up, 1);
    if (rc == 0)
        rc = mag_server_wait(*server);
    mag_stream_close(&s);
    mag_server_free(*server);
    return rc;
}

Test(server, a_runtime_that_is_stopped_ends_it)
{
    int n_before = n_descriptors();
    struct mag_server *server = NULL;
    mag_atomic(int) is_up = 0;
    struct stopped_under_it *co = stopped_under_it(&server, &is_up);
    struct mag_rt *rt;

    cr_assert_eq(mag_rt_new(&rt, &(struct mag_rt_options){ .workers = 2 }), 0);
    cr_assert_eq(mag_submit(rt, co, NULL), 0);
    while (!mag_load_acquire(&is_up))
        usleep(1000);
    cr_assert_eq(mag_rt_stop(rt, 10 * MAG_SECOND), 0);
    cr_assert_eq(mag_await(co, NULL, 0), -ECANCELED);
    cr_assert_eq(stopped.last_rc, -ECANCELED);
    mag_rt_free(rt);
    cr_assert_eq(n_descriptors(), n_before);
    cr_assert_eq(mag_mem_live(), 0);
}

/* Forgotten: the runtime ends it, and what is left is its memory. */
async(void, forgets_it, (struct mag_server **, server))
{
    await(mag_server_start(server, hello, NULL, &(struct mag_serve_options){ .host = LOCAL }));
    return 0;
}

Test(server, a_server_that_was_forgotten_does_not_keep_the_runtime)
{
    int n_before = n_descriptors();
    struct mag_server *server = NULL;

    cr_assert_eq(mag_run(forgets_it(&server), NULL), 0);
    cr_assert_eq(n_descriptors(), n_before);
    mag_server_free(server);
    cr_assert_eq(mag_mem_live(), 0);
}

/* ---- out of memory ----------------------------------------------------------------------------------------------------- */

async(void, starts_and_ends, (uint64_t, nth), (int *, start_rc))
{
    struct mag_server *server;

    mag_mem_fail_nth(nth, false);
    *start_rc =
        mag_server_start(&server, hello, NULL, &(struct mag_serve_options){ .host = LOCAL });
    mag_mem_fail_nth(0, false);
    if (*start_rc == 0)
        mag_server_free(server);
    return 0;
}

Test(server, out_of_memory_while_it_starts)
{
    struct mag_rt_options options = { .workers = 2, .report = count_lines };
    int n_before = n_descriptors(), n_refused = 0;

    for (uint64_t n = 1; n < 40; n++) {
        int rc = 1;
        cr_assert_eq(mag_run_with(starts_and_ends(n, &rc), NULL, &options), 0);
        cr_assert(rc == 0 || rc == -ENOMEM, "the %d-th: %s", (int)n, mag_err_name(rc));
        n_refused += rc == -ENOMEM;
        cr_assert_eq(mag_mem_live(), 0, "the %d-th leaks", (int)n);
        cr_assert_eq(n_descriptors(), n_before);
    }
    cr_assert(n_refused > 0);
}
