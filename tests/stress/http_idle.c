/* SPDX-License-Identifier: MIT */
/*
 * http_idle.c - 10,000 connections of an HTTP server that say nothing, and more than it may have
 *
 *      this process: the server -- orders, by a socketpair --> client process: plain sockets
 *
 * Two processes, so that each has the descriptors for itself.  The client is forked before there
 * is any thread, and does what it is told for all its connections; it answers how that went.
 *
 * Idle: all are held at one time, and each is answered, twice; then half of them begin a head
 * and do not end it, the others stay quiet.  head_timeout refuses the first (408), idle_timeout
 * closes the others, none of them before its time, and the server has the descriptors that it had
 * before, and not much more memory than with a crowd before; when its runtime has ended, no block
 * is left.  (What stack.c and malloc keep for the next crowd is their business.)  If the machine
 * was so slow that a time-out came between the questions, all is tried again with longer ones.
 *
 * Limited: twice as many come as there are places.  Those who wait in the backlog hear nothing
 * until others have gone, and then are answered too.
 */
#include "stress.h"

#include <magpie/async.h>
#include <magpie/http_server.h>
#include <magpie/net.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum {
    IDLE = STRESS_SCALE(10000, 600), /* ThreadSanitizer cannot have more fibers than 8,000 */
    OTHERS = 300,                    /* descriptors that are not connections */
    PLACES_PART = 4,                 /* of them are the places when these are limited */
    TRIES = 3,
    GROWTH_PERCENT = STRESS_SCALE(50, 1000), /* a stack that has run deeper has a page more */
};

#define TIMEOUT (2 * MAG_SECOND)
#define PAUSE   (100 * MAG_MS)

static int n_idle, n_places; /* IDLE and what it makes, unless fewer descriptors are allowed */

/* ---- the client process ----------------------------------------------------------------------- */

enum what { CONNECT, ASK, BEGIN_HEAD, AWAIT_END, FILL, DRAIN, CLOSE };

struct order {
    enum what what;
    int n; /* the first so many connections */
    uint16_t port;
    mag_time timeout; /* the server's */
};

/* Counts of connections. */
struct outcome {
    int n_good, n_refused; /* n_refused: of the good, those that got 408 */
    int n_late;            /* ended by the server when they might be */
    int n_wrong;
};

static struct {
    int fd;
    mag_time asked; /* when something was sent last                                       */
    mag_time since; /* when that was of which it is known that the server has seen it     */
    bool has_ended;
} conns[IDLE];

static void connect_all(const struct order *o, struct outcome *out)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(o->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    for (int i = 0; i < o->n; i++) {
        conns[i].since = mag_clock_now();
        conns[i].has_ended = false;
        conns[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(conns[i].fd, (struct sockaddr *)&to, sizeof to) == 0)
            out->n_good++;
        else
            out->n_wrong++;
    }
}

/* One that has ended, or failed: might it? */
static void judge_end(int i, const struct order *o, struct outcome *out)
{
    conns[i].has_ended = true;
    if (mag_clock_now() - conns[i].since >= o->timeout)
        out->n_late++;
    else
        out->n_wrong++;
}

static void send_all(const char *text, const struct order *o, struct outcome *out)
{
    for (int i = 0; i < o->n; i++) {
        if (conns[i].has_ended)
            continue;
        conns[i].asked = mag_clock_now();
        if (send(conns[i].fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
            judge_end(i, o, out);
    }
}

static bool is_answer(const char *text, ssize_t n)
{
    return n > 16 && memcmp(text, "HTTP/1.1 200 OK\r", 16) == 0 &&
           memcmp(text + n - 4, "idle", 4) == 0;
}

/* An answer is so short that it comes in one piece. */
static void read_all(const struct order *o, struct outcome *out)
{
    char text[512];

    for (int i = 0; i < o->n; i++) {
        if (conns[i].has_ended)
            continue;
        if (!is_answer(text, recv(conns[i].fd, text, sizeof text, 0))) {
            judge_end(i, o, out);
            continue;
        }
        conns[i].since = conns[i].asked;
        out->n_good++;
    }
}

/* Which can be read, or are over; of those that have ended already, none. */
static int look(struct pollfd *p, int n)
{
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){ .fd = conns[i].has_ended ? -1 : conns[i].fd, .events = POLLIN };
    n = poll(p, (nfds_t)n, 10);
    usleep(10000); /* some more at a time */
    return n;
}

static struct pollfd looked[IDLE];

static void await_end(const struct order *o, struct outcome *out)
{
    char text[512];

    for (int left = o->n; left > 0;) {
        look(looked, o->n);
        for (int i = 0; i < o->n; i++) {
            ssize_t n = looked[i].revents ? recv(conns[i].fd, text, sizeof text, 0) : 1;
            if (looked[i].revents == 0)
                continue;
            if (n > 0) { /* its answer comes before its end */
                out->n_refused += n > 13 && memcmp(text, "HTTP/1.1 408 ", 13) == 0;
                continue;
            }
            judge_end(i, o, out);
            left--;
        }
    }
    out->n_good = out->n_late; /* which is what was to happen */
    out->n_late = 0;
}

static const char question[] = "GET /idle HTTP/1.1\r\nHost: a\r\n\r\n";

/* Until as many have been answered as there are places: and not one more. */
static void fill(const struct order *o, struct outcome *out)
{
    send_all(question, o, out);
    while (out->n_good < n_places)
        out->n_good = look(looked, o->n);
    usleep(PAUSE / 1000);
    out->n_good = look(looked, o->n);
}

/* Who was answered goes, and so there is a place for the next. */
static void drain(const struct order *o, struct outcome *out)
{
    char text[512];

    while (out->n_good + out->n_wrong < o->n) {
        if (look(looked, o->n) > n_places)
            out->n_wrong++;
        for (int i = 0; i < o->n; i++) {
            if (looked[i].revents == 0)
                continue;
            if (is_answer(text, recv(conns[i].fd, text, sizeof text, 0)))
                out->n_good++;
            else
                out->n_wrong++;
            conns[i].has_ended = true;
            shutdown(conns[i].fd, SHUT_RDWR);
        }
    }
}

static void close_all(const struct order *o, struct outcome *out)
{
    for (int i = 0; i < o->n; i++)
        out->n_good += close(conns[i].fd) == 0;
}

static void do_order(const struct order *o, struct outcome *out)
{
    switch (o->what) {
    case CONNECT: connect_all(o, out); break;
    case ASK: send_all(question, o, out); read_all(o, out); break;
    case BEGIN_HEAD: send_all("GET /idle HT", o, out); break;
    case AWAIT_END: await_end(o, out); break;
    case FILL: fill(o, out); break;
    case DRAIN: drain(o, out); break;
    case CLOSE: close_all(o, out); break;
    }
}

/* Until the other end is closed. */
static int client_process(int orders)
{
    struct order o;

    while (read(orders, &o, sizeof o) == sizeof o) {
        struct outcome out = { 0 };
        do_order(&o, &out);
        if (write(orders, &out, sizeof out) != sizeof out)
            return 1;
    }
    return 0;
}

static pid_t fork_client(int *orders)
{
    int ends[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0 || (pid = fork()) < 0)
        abort();
    if (pid == 0) {
        close(ends[0]);
        _exit(client_process(ends[1]));
    }
    close(ends[1]);
    *orders = ends[0];
    return pid;
}

/* ---- the server --------------------------------------------------------------------------------- */

static int client; /* takes orders */

static int answer(struct mag_http_exchange *x, void *arg)
{
    (void)arg;
    stress_beat();
    return mag_http_respond(x, 200, NULL, 0, "idle", 4);
}

/* In a task. */
static struct outcome tell(enum what what, int n, const struct mag_http_server *server,
                           mag_time timeout)
{
    const struct order o = { what, n, mag_http_server_port(server), timeout };
    struct outcome out = { .n_wrong = 1 };

    stress_beat();
    EXPECT(mag_write_all(client, &o, sizeof o, NULL) == 0);
    EXPECT(mag_read(client, &out, sizeof out) == (int)sizeof out);
    EXPECT(out.n_wrong == 0);
    stress_beat();
    return out;
}

static unsigned n_open(const struct mag_http_server *server)
{
    struct mag_http_server_stats stats;

    mag_http_server_stats(server, &stats);
    return stats.server.n_open;
}

static long rss_kb(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;

    while (f && fgets(line, sizeof line, f))
        sscanf(line, "VmRSS: %ld", &kb);
    if (f)
        fclose(f);
    return kb;
}

/* The last ones are on their way out. */
static void await_none(const struct mag_http_server *server, int n_descriptors)
{
    while (n_open(server) > 0 || stress_n_descriptors() > n_descriptors)
        mag_sleep(5 * MAG_MS);
}

/* All are connected, and answered, twice.  False: too slowly for the time-outs. */
static bool hold(const struct mag_http_server *server, mag_time timeout)
{
    bool is_held = tell(CONNECT, n_idle, server, timeout).n_good == n_idle;

    for (int i = 0; i < 2; i++)
        is_held &= tell(ASK, n_idle, server, timeout).n_good == n_idle;
    return is_held && n_open(server) == (unsigned)n_idle;
}

/* Half of them amid a head.  True: there was time for that. */
static bool let_them_end(const struct mag_http_server *server, mag_time timeout)
{
    struct outcome begun = tell(BEGIN_HEAD, n_idle / 2, server, timeout), ended;

    if (begun.n_late > 0)
        return false;
    ended = tell(AWAIT_END, n_idle, server, timeout);
    EXPECT(ended.n_good == n_idle);
    return ended.n_refused == n_idle / 2;
}

/* One crowd; by a time-out it is ended by the server, and otherwise by the clients. */
async(bool, crowd, (mag_time, timeout), (long *, kb))
{
    const struct mag_http_server_options o = {
        .serve = { .host = "127.0.0.1", .max_connections = (unsigned)(n_idle + n_idle / 5) },
        .head_timeout = timeout,
        .idle_timeout = timeout,
    };
    struct mag_http_server *server;
    bool is_done;
    int before;

    await(mag_http_server_start(&server, answer, NULL, &o));
    before = stress_n_descriptors();
    is_done = hold(server, timeout);
    *kb = rss_kb();
    if (is_done && timeout < MAG_NEVER)
        is_done = let_them_end(server, timeout);
    (void)tell(CLOSE, n_idle, server, timeout);
    await_none(server, before);
    EXPECT(stress_n_descriptors() == before);
    mag_http_server_free(server);
    async_return(is_done);
}

async(void, idle)
{
    mag_time timeout = TIMEOUT;
    long first, last, after;
    int i = 0;

    EXPECT(await(crowd(MAG_NEVER, &first)));
    while (i < TRIES && !await(crowd(timeout << i, &last)))
        i++;
    after = rss_kb();
    printf("http_idle: %d held and answered, closed by time-outs at try %d\n", n_idle, i + 1);
    printf("http_idle: with a crowd %ld kB, with another %ld kB, after it %ld kB\n", first, last,
           after);
    EXPECT(i < TRIES);
    EXPECT(last <= first + first / 100 * GROWTH_PERCENT);
    EXPECT(after <= first + first / 100 * GROWTH_PERCENT);
    return 0;
}

async(void, limited)
{
    const struct mag_http_server_options o = {
        .serve = { .host = "127.0.0.1", .max_connections = (unsigned)n_places },
        .head_timeout = MAG_NEVER,
        .idle_timeout = MAG_NEVER,
    };
    struct mag_http_server *server;
    int n = 2 * n_places, before;

    await(mag_http_server_start(&server, answer, NULL, &o));
    before = stress_n_descriptors();
    EXPECT(tell(CONNECT, n, server, MAG_NEVER).n_good == n);
    EXPECT(tell(FILL, n, server, MAG_NEVER).n_good == n_places);
    EXPECT(n_open(server) == (unsigned)n_places);
    EXPECT(stress_n_descriptors() == before + n_places);
    EXPECT(tell(DRAIN, n, server, MAG_NEVER).n_good == n);
    (void)tell(CLOSE, n, server, MAG_NEVER);
    await_none(server, before);
    mag_http_server_free(server);
    return 0;
}

static void find_numbers(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    n_idle = limit.rlim_cur < IDLE + OTHERS ? (int)limit.rlim_cur - OTHERS : IDLE;
    n_places = n_idle / PLACES_PART;
    if (n_idle < IDLE)
        printf("http_idle: only %d connections: RLIMIT_NOFILE\n", n_idle);
}

int main(void)
{
    int64_t n_blocks = mag_mem_live();
    long kb = rss_kb();
    int status = -1, before;
    pid_t pid;

    find_numbers();
    before = stress_n_descriptors();
    pid = fork_client(&client);
    stress_begin("http_idle", NULL);
    EXPECT(mag_run(idle(), NULL) == 0);
    EXPECT(mag_run(limited(), NULL) == 0);
    close(client);
    EXPECT(waitpid(pid, &status, 0) == pid && status == 0);
    EXPECT(mag_mem_live() == n_blocks);
    printf("http_idle: at first %ld kB, at the end %ld kB\n", kb, rss_kb());
    EXPECT(stress_n_descriptors() == before);
    return stress_end();
}
