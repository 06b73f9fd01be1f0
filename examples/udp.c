/* SPDX-License-Identifier: MIT */
/*
 * udp.c - datagrams: a server that sends them back, a client that measures how long that takes
 *
 *      udp serve [PORT]
 *      udp ping HOST PORT [COUNT]
 *      udp
 *      udp --help
 *
 * DESCRIPTION
 *     serve sends back what arrives on PORT (7007; 0: any), in batches if much arrives at once,
 *     until SIGTERM or Ctrl-C.  ping sends COUNT (5) datagrams to it, one after the other, waits a
 *     second at most for each to come back, and says how long that took.
 *
 *     Without arguments both run here, and then there is a tour of batches, of a datagram that
 *     is longer than the buffer, and of a multicast group.
 *
 * EXIT STATUS
 *     0; 1 if a datagram did not come back, or something failed; 2 for wrong usage.
 */
#include <magpie.h>
#include <magpie/async.h>
#include <magpie/net.h>
#include <magpie/signal.h>
#include <magpie/udp.h>

#include <errno.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, BYTES = 1500, EXIT_USAGE = 2 };

/* ---- the server -------------------------------------------------------------------------------- */

/* What has arrived by now goes back in as few calls as possible. */
static int send_back(struct mag_udp *u, struct mag_datagram *list, int n)
{
    int sent = 0;

    for (int i = 0; i < n; i++)
        list[i].n = list[i].len < BYTES ? list[i].len : BYTES;
    while (sent < n)
        sent += await(mag_udp_send_batch(u, list + sent, (size_t)(n - sent)));
    return 0;
}

async(void, echo, (struct mag_udp *, u))
{
    char(*bufs)[BYTES] = calloc(BATCH, BYTES);
    struct mag_datagram list[BATCH];
    int n = bufs ? 0 : -ENOMEM;

    while (n >= 0) {
        for (int i = 0; i < BATCH; i++)
            list[i] = (struct mag_datagram){ .buf = bufs[i], .n = BYTES };
        n = mag_udp_recv_batch(u, list, BATCH);
        if (n > 0)
            n = send_back(u, list, n);
    }
    free(bufs);
    return n;
}

async(void, serve, (uint16_t, port))
{
    int signo;

    async_with(mag_signals, signals, MAG_SIGNAL(SIGTERM) | MAG_SIGNAL(SIGINT))
    {
        async_with(mag_udp, u, NULL, port)
        {
            printf("listening on port %d\n", mag_udp_port(u));
            fflush(stdout);
            task_group(g)
            {
                group_spawn(g, echo(u));
                await(mag_signals_next(signals, &signo));
                mag_group_cancel(g);
            }
        }
    }
    return 0;
}

/* ---- the client ---------------------------------------------------------------------------------- */

/* One that comes late is not taken for the next. */
static int ping_once(struct mag_udp *u, int number)
{
    char out[32], in[32];
    int n;

    snprintf(out, sizeof out, "ping %d", number);
    await(mag_udp_send(u, out, strlen(out)));
    do
        n = await(mag_udp_recv(u, in, sizeof in));
    while ((size_t)n != strlen(out) || memcmp(in, out, strlen(out)) != 0);
    return 0;
}

async(void, ping_limited, (struct mag_udp *, u), (int, number))
{
    with_timeout(1 * MAG_SECOND) await(ping_once(u, number));
    return 0;
}

async(void, ping, (const char *, host), (uint16_t, port), (int, count))
{
    struct mag_udp u = { 0 };
    int n_lost = 0;

    await(mag_udp_connect(&u, host, port, NULL));
    for (int i = 0; i < count; i++) {
        mag_time begun = mag_now();
        int rc = await_rc(ping_limited(&u, i), NULL);
        n_lost += rc < 0;
        if (rc < 0)
            printf("ping %d: %s\n", i, mag_err_text(rc));
        else
            printf("ping %d: %.0f us\n", i, mag_seconds(mag_now() - begun) * 1e6);
    }
    mag_udp_close(&u);
    printf("%d of %d came back\n", count - n_lost, count);
    return n_lost ? -ETIMEDOUT : 0;
}

/* ---- the tour ---------------------------------------------------------------------------------------- */

static int batches(struct mag_udp *to)
{
    struct mag_datagram list[BATCH];
    struct mag_udp_addr peer;
    char out[BATCH], in[BATCH], name[64];
    int n = 0;

    await(mag_udp_resolve(&peer, "127.0.0.1", mag_udp_port(to)));
    async_with(mag_udp, u, "127.0.0.1", 0)
    {
        for (int i = 0; i < BATCH; i++) {
            out[i] = (char)('a' + i % 26);
            list[i] = (struct mag_datagram){ .buf = &out[i], .n = 1, .addr = peer };
        }
        while (n < BATCH)
            n += await(mag_udp_send_batch(u, list + n, (size_t)(BATCH - n)));
        for (int i = 0; i < BATCH; i++)
            list[i] = (struct mag_datagram){ .buf = &in[i], .n = 1 };
        for (n = 0; n < BATCH;)
            n += await(mag_udp_recv_batch(u, list + n, (size_t)(BATCH - n)));
        await(mag_udp_text(&list[0].addr, name, sizeof name));
        printf("%d datagrams came back, the first, '%c', from %s\n", n, in[0], name);
        await(mag_udp_send_to(u, "a long one", 10, &peer));
        n = await(mag_udp_recv_from(u, in, 6, &peer));
        printf("%.6s... it was %d bytes long\n", in, n);
    }
    return 0;
}

/* Two that have joined a group, on this machine alone. */
static int multicast(void)
{
    struct mag_udp_options shared = { .reuse_addr = true, .reuse_port = true };
    struct mag_udp one, two, sender;
    struct mag_udp_addr group;
    unsigned lo = if_nametoindex("lo");
    struct ip_mreqn by = { .imr_ifindex = (int)lo };
    char in[8];

    await(mag_udp_bind(&one, NULL, 0, &shared));
    await(mag_udp_bind(&two, NULL, mag_udp_port(&one), &shared));
    await(mag_udp_resolve(&group, "239.255.7.7", mag_udp_port(&one)));
    await(mag_multicast_join(mag_udp_fd(&one), &group.any, lo));
    await(mag_multicast_join(mag_udp_fd(&two), &group.any, lo));
    await(mag_udp_enter(&sender, "127.0.0.1", 0)); /* what async_with does */
    setsockopt(mag_udp_fd(&sender), IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof by);
    await(mag_udp_send_to(&sender, "hello", 5, &group));
    mag_udp_exit(&sender);
    with_timeout(5 * MAG_SECOND)
    {
        int n = await(mag_udp_recv(&one, in, sizeof in));
        n += await(mag_udp_recv(&two, in, sizeof in));
        printf("one hello, and %d bytes have arrived\n", n);
    }
    await(mag_multicast_leave(mag_udp_fd(&one), &group.any, lo));
    mag_udp_close(&one);
    return mag_udp_close(&two);
}

async(void, tour)
{
    async_with(mag_udp, u, NULL, 0)
    {
        task_group(g)
        {
            group_spawn(g, echo(u));
            await(ping("127.0.0.1", mag_udp_port(u), 3));
            await(ping("localhost", mag_udp_port(u), 1));
            await(batches(u));
            mag_group_cancel(g);
        }
    }
    return multicast();
}

/* ---- the command line ---------------------------------------------------------------------------------- */

static int usage(FILE *to)
{
    fprintf(to, "usage: udp [serve [PORT] | ping HOST PORT [COUNT]]\n");
    return to == stdout ? 0 : EXIT_USAGE;
}

static bool parse(const char *text, long least, long most, long *out)
{
    char *end;

    *out = strtol(text, &end, 10);
    return *text && !*end && *out >= least && *out <= most;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    long port = 7007, count = 5;

    if (strcmp(what, "--help") == 0)
        return usage(stdout);
    if (argc == 1)
        return mag_run(tour(), NULL) < 0;
    if (strcmp(what, "serve") == 0 && argc <= 3 && (argc < 3 || parse(argv[2], 0, 65535, &port)))
        return mag_run(serve((uint16_t)port), NULL) < 0;
    if (strcmp(what, "ping") == 0 && (argc == 4 || argc == 5) && parse(argv[3], 1, 65535, &port) &&
        (argc < 5 || parse(argv[4], 1, 1000000, &count)))
        return mag_run(ping(argv[2], (uint16_t)port, (int)count), NULL) < 0;
    return usage(stderr);
}
