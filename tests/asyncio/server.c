/* SPDX-License-Identifier: MIT */
/* server.c - what CPython's suite pins for servers (test_server.py, of 3.11 to 3.13) */
#include "atomic.h"
#include "children.h"

#include <arpa/inet.h>
#include <magpie/server.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

TestSuite(server, .timeout = 60);

#define HOSTV4 "127.0.0.1"

/* Of this process: tests run at the same time. */
static const char *own_path(void)
{
    static char path[64];

    snprintf(path, sizeof path, "/tmp/magpie-test-asyncio-server-%d.sock", (int)getpid());
    return path;
}
#define PATH own_path()

#define CPYTHON(name) async(void, name)
#define RUNS(name) \
    Test(server, name) \
    { \
        RUN_CLEAN(name(), 0); \
    }

/* ---- BaseStartServer.test_start_server_1, test_start_unix_server_1 ----------------------------- */

/* The handler ends the server that it belongs to, and answers all the same. */
static int reads_a_line_and_cancels(struct mag_stream *s, void *main_task)
{
    struct mag_str line;

    await(mag_stream_readline(s, &line));
    if (line.len != 5 * 1024 + 1)
        return -EPROTO;
    mag_cancel(main_task);
    return mag_stream_puts(s, "1");
}

async(void, serves_forever, (uint16_t, port), (const char *, path))
{
    return mag_serve(
        reads_a_line_and_cancels, mag_self(),
        &(struct mag_serve_options){ .host = HOSTV4, .port = port, .unix_path = path });
}

static int connect_when_up(struct mag_stream *s, uint16_t port, const char *path)
{
    int rc;

    while ((rc = path ? mag_connect_unix(s, path, NULL) : mag_connect(s, HOSTV4, port, NULL)) < 0)
        if (mag_sleep(MAG_MS) < 0)
            break;
    return rc;
}

static int talks_to_it(uint16_t port, const char *path)
{
    char message[5 * 1024 + 1], c = 0;
    struct mag_stream s;
    struct serves_forever *main_task = spawn(serves_forever(port, path));

    memset(message, '1', sizeof message);
    message[sizeof message - 1] = '\n';
    await(connect_when_up(&s, port, path));
    await(mag_stream_write_all(&s, message, sizeof message, NULL));
    SHOULD(mag_stream_read(&s, &c, 1) == 1 && c == '1');
    SHOULD(await_rc(main_task, NULL) == -ECANCELED);
    SHOULD(mag_stream_close(&s) == 0);
    SHOULD((path ? mag_connect_unix(&s, path, NULL) : mag_connect(&s, HOSTV4, port, NULL)) < 0);
    return 0;
}

/* A port that nobody has. */
static uint16_t find_unused_port(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET };
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        abort();
    close(fd);
    return ntohs(a.sin_port);
}

CPYTHON(start_server_1)
{
    return talks_to_it(find_unused_port(), NULL);
}
RUNS(start_server_1)

CPYTHON(start_unix_server_1)
{
    unlink(PATH);
    return talks_to_it(0, PATH);
}
RUNS(start_unix_server_1)

/* ---- TestServer2 ------------------------------------------------------------------------------------ */

struct seen {
    mag_atomic(int) n_begun, rc;
    struct mag_event gate;
};

static int until_begun(struct seen *seen, int n)
{
    int rc = 0;

    while (rc == 0 && mag_load_acquire(&seen->n_begun) < n)
        rc = mag_sleep(100 * MAG_US);
    return rc;
}

static int waits(struct mag_stream *s, void *arg)
{
    struct seen *seen = arg;
    int rc;

    (void)s;
    mag_fetch_add(&seen->n_begun, 1);
    rc = mag_event_wait(&seen->gate);
    mag_store_release(&seen->rc, rc);
    return rc;
}

static int reads_all(struct mag_stream *s, void *arg)
{
    struct seen *seen = arg;
    char buf[4096];
    int rc;

    mag_fetch_add(&seen->n_begun, 1);
    while ((rc = mag_stream_read(s, buf, sizeof buf)) > 0) {
    }
    mag_store_release(&seen->rc, rc == 0 ? 1 : rc);
    return rc;
}

async(int, wait_closed, (struct mag_server *, server))
{
    async_return(await(mag_server_wait(server)));
}

async(int, close_server, (struct mag_server *, server))
{
    async_return(await(mag_server_stop(server)));
}

/* Closed, and the last connection has ended: both must be so. */
CPYTHON(wait_closed_basic)
{
    struct seen seen = { 0 };
    struct mag_server *server;
    struct mag_stream s;

    await(mag_server_start(&server, waits, &seen, &(struct mag_serve_options){ .host = HOSTV4 }));
    await(mag_connect(&s, HOSTV4, mag_server_port(server), NULL));
    await(until_begun(&seen, 1));
    struct wait_closed *task1 = spawn(wait_closed(server));
    await(mag_sleep(MAG_MS));
    SHOULD(!mag_done(task1)); /* active, with a connection */
    struct close_server *closing = spawn(close_server(server));
    await(mag_sleep(5 * MAG_MS));
    SHOULD(!mag_done(task1)); /* closed, with a connection */
    mag_event_set(&seen.gate);
    mag_stream_close(&s);
    SHOULD(await(task1) == 0 && await(closing) == 0);
    SHOULD(await(wait_closed(server)) == 0); /* and again, at once */
    mag_server_free(server);
    return 0;
}
RUNS(wait_closed_basic)

CPYTHON(wait_closed_without_connections)
{
    struct seen seen = { 0 };
    struct mag_server *server;

    await(mag_server_start(&server, waits, &seen, &(struct mag_serve_options){ .host = HOSTV4 }));
    struct wait_closed *task = spawn(wait_closed(server));
    await(mag_sleep(MAG_MS));
    SHOULD(!mag_done(task));
    await(mag_server_stop(server));
    SHOULD(await(task) == 0);
    mag_server_free(server);
    return 0;
}
RUNS(wait_closed_without_connections)

/* bpo-79033: the last connection ends just when it is closed. */
CPYTHON(wait_closed_race)
{
    for (int i = 0; i < 20; i++) {
        struct seen seen = { 0 };
        struct mag_server *server;
        struct mag_stream s;

        await(mag_server_start(&server, reads_all, &seen,
                               &(struct mag_serve_options){ .host = HOSTV4 }));
        await(mag_connect(&s, HOSTV4, mag_server_port(server), NULL));
        await(until_begun(&seen, 1));
        struct close_server *closing = spawn(close_server(server));
        mag_stream_close(&s);
        SHOULD(await(wait_closed(server)) == 0 && await(closing) == 0);
        mag_server_free(server);
    }
    return 0;
}
RUNS(wait_closed_race)

CPYTHON(close_clients)
{
    struct seen seen = { 0 };
    struct mag_server *server;
    struct mag_stream s;

    await(
        mag_server_start(&server, reads_all, &seen, &(struct mag_serve_options){ .host = HOSTV4 }));
    await(mag_connect(&s, HOSTV4, mag_server_port(server), NULL));
    await(mag_stream_write_all(&s, "abcdef", 6, NULL));
    await(until_begun(&seen, 1));
    mag_server_close_clients(server);
    await(mag_server_stop(server));
    SHOULD(seen.rc == 1); /* the handler has read to the end */
    mag_stream_close(&s);
    mag_server_free(server);
    return 0;
}
RUNS(close_clients)

/* The client does not read, so that a close that is polite would last. */
static int writes_a_lot(struct mag_stream *s, void *arg)
{
    static const char much[64 * 1024];
    struct seen *seen = arg;
    int rc;

    mag_fetch_add(&seen->n_begun, 1);
    do
        rc = mag_stream_write_all(s, much, sizeof much, NULL);
    while (rc == 0);
    mag_store_release(&seen->rc, rc);
    return rc;
}

CPYTHON(abort_clients)
{
    struct seen seen = { 0 };
    struct mag_server *server;
    struct mag_stream s;
    char buf[4096];
    int rc;

    await(mag_server_start(&server, writes_a_lot, &seen,
                           &(struct mag_serve_options){ .host = HOSTV4 }));
    await(mag_connect(&s, HOSTV4, mag_server_port(server), NULL));
    await(until_begun(&seen, 1));
    mag_server_abort_clients(server);
    await(mag_server_stop(server));
    SHOULD(seen.rc == -ECANCELED);
    while ((rc = mag_stream_read(&s, buf, sizeof buf)) > 0) {
    }
    SHOULD(rc == -ECONNRESET);
    mag_stream_close(&s);
    mag_server_free(server);
    return 0;
}
RUNS(abort_clients)

/* ---- UnixServerCleanupTests ------------------------------------------------------------------------- */

static bool exists(void)
{
    struct stat st;

    return lstat(PATH, &st) == 0;
}

static int listen_at_path(void)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(addr.sun_path, PATH);
    unlink(PATH);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, 1) < 0)
        abort();
    return fd;
}

CPYTHON(unix_server_addr_cleanup)
{
    struct mag_server *server;

    unlink(PATH);
    await(mag_server_start(&server, reads_all, NULL,
                           &(struct mag_serve_options){ .unix_path = PATH }));
    SHOULD(exists());
    await(mag_server_stop(server));
    SHOULD(!exists());
    mag_server_free(server);
    return 0;
}
RUNS(unix_server_addr_cleanup)

/* CPython removes the path of a socket that it was given, too; whoever bound this one may want it
 * for the next server, as systemd does. */
CPYTHON(unix_server_sock_keeps_the_path)
{
    struct mag_server *server;

    await(mag_server_start(&server, reads_all, NULL,
                           &(struct mag_serve_options){ .listen_fd = listen_at_path() }));
    mag_server_free(server);
    SHOULD(exists());
    unlink(PATH);
    return 0;
}
RUNS(unix_server_sock_keeps_the_path)

CPYTHON(unix_server_cleanup_gone)
{
    struct mag_server *server;

    unlink(PATH);
    await(mag_server_start(&server, reads_all, NULL,
                           &(struct mag_serve_options){ .unix_path = PATH }));
    unlink(PATH);
    SHOULD(mag_server_stop(server) == 0);
    mag_server_free(server);
    return 0;
}
RUNS(unix_server_cleanup_gone)

CPYTHON(unix_server_cleanup_replaced)
{
    struct mag_server *server;
    int other;

    unlink(PATH);
    await(mag_server_start(&server, reads_all, NULL,
                           &(struct mag_serve_options){ .unix_path = PATH }));
    other = listen_at_path();
    await(mag_server_stop(server));
    SHOULD(exists());
    mag_server_free(server);
    close(other);
    unlink(PATH);
    return 0;
}
RUNS(unix_server_cleanup_replaced)
