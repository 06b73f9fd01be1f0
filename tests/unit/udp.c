/* SPDX-License-Identifier: MIT */
/*
 * udp.c - tests of datagrams
 *
 * Each runs on one worker and on four; afterwards no descriptor and no memory is left.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "children.h"

#include <arpa/inet.h>
#include <magpie/net.h>
#include <magpie/udp.h>
#include <net/if.h>

TestSuite(udp, .timeout = 60);

#define LOCAL "127.0.0.1"

#define RUNS(name) \
    Test(udp, name) \
    { \
        RUN_CLEAN(name(), 0); \
    }

static bool is_at(const struct mag_udp_addr *a, const char *host, uint16_t port)
{
    char text[80], expected[80];

    snprintf(expected, sizeof expected, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    return mag_udp_text(a, text, sizeof text) == (int)strlen(expected) &&
           strcmp(text, expected) == 0;
}

async(void, there_and_back)
{
    struct mag_udp_addr to, from;
    char buf[16];

    async_with(mag_udp, one, LOCAL, 0)
    {
        async_with(mag_udp, two, LOCAL, 0)
        {
            await(mag_udp_resolve(&to, LOCAL, mag_udp_port(two)));
            SHOULD(await(mag_udp_send_to(one, "hello", 5, &to)) == 5);
            SHOULD(await(mag_udp_recv_from(two, buf, sizeof buf, &from)) == 5);
            SHOULD(memcmp(buf, "hello", 5) == 0 && is_at(&from, LOCAL, mag_udp_port(one)));
            SHOULD(await(mag_udp_send_to(two, "", 0, &from)) == 0);
            SHOULD(await(mag_udp_recv_from(one, buf, sizeof buf, NULL)) == 0);
        }
    }
    return 0;
}
RUNS(there_and_back)

async(void, all_addresses_are_both_families)
{
    struct mag_udp six = { 0 };
    struct mag_udp_addr to, from;
    char c;

    async_with(mag_udp, all, NULL, 0)
    {
        async_with(mag_udp, four, LOCAL, 0)
        {
            await(mag_udp_resolve(&to, LOCAL, mag_udp_port(all)));
            await(mag_udp_send_to(four, "4", 1, &to));
            await(mag_udp_recv_from(all, &c, 1, &from));
            SHOULD(c == '4' && from.any.sa_family == AF_INET);
            SHOULD(is_at(&from, LOCAL, mag_udp_port(four)));
            await(mag_udp_send_to(all, "a", 1, &from)); /* an IPv4 address, by an IPv6 socket */
            await(mag_udp_recv_from(four, &c, 1, &from));
            SHOULD(c == 'a' && is_at(&from, LOCAL, mag_udp_port(all)));
        }
        if (mag_udp_bind(&six, "::1", 0, NULL) == 0) {
            await(mag_udp_connect(&six, "::1", mag_udp_port(all), NULL));
            await(mag_udp_send(&six, "6", 1));
            await(mag_udp_recv_from(all, &c, 1, &from));
            SHOULD(c == '6' && is_at(&from, "::1", mag_udp_port(&six)));
            mag_udp_close(&six);
        }
    }
    return 0;
}
RUNS(all_addresses_are_both_families)

async(void, what_is_too_long_is_told)
{
    struct mag_udp_addr from;
    char buf[4] = "xxx";
    static char much[70000];

    async_with(mag_udp, u, LOCAL, 0)
    {
        await(mag_udp_connect(u, LOCAL, mag_udp_port(u), NULL)); /* to itself */
        for (int i = 0; i < 3; i++)
            SHOULD(await(mag_udp_send(u, "1234567", 7)) == 7);
        SHOULD(await(mag_udp_recv(u, buf, 3)) == 7 && memcmp(buf, "123", 4) == 0);
        SHOULD(await(mag_udp_recv_from(u, buf, 3, &from)) == 7);
        struct mag_datagram one = { .buf = buf, .n = 3 };
        SHOULD(await(mag_udp_recv_batch(u, &one, 1)) == 1 && one.len == 7);
        SHOULD(is_at(&one.addr, LOCAL, mag_udp_port(u)));
        SHOULD(mag_udp_send(u, much, sizeof much) == -EMSGSIZE);
    }
    return 0;
}
RUNS(what_is_too_long_is_told)

async(void, a_connected_one_hears_only_its_peer)
{
    struct mag_udp client = { 0 };
    struct mag_udp_addr to;
    uint16_t port = 0;
    char c;

    async_with(mag_udp, server, LOCAL, 0)
    {
        port = mag_udp_port(server);
        await(mag_udp_connect(&client, LOCAL, port, NULL));
        async_with(mag_udp, stranger, LOCAL, 0)
        {
            await(mag_udp_resolve(&to, LOCAL, mag_udp_port(&client)));
            await(mag_udp_send_to(stranger, "s", 1, &to));
            await(mag_udp_send_to(server, "p", 1, &to));
            await(mag_udp_recv(&client, &c, 1));
            SHOULD(c == 'p');
        }
    }
    /* nobody is there any more */
    await(mag_udp_send(&client, "x", 1));
    SHOULD(mag_udp_recv(&client, &c, 1) == -ECONNREFUSED);
    SHOULD(mag_udp_close(&client) == 0 && mag_udp_close(&client) == 0);
    SHOULD(mag_udp_fd(&client) == -1 && mag_udp_port(&client) == 0);
    SHOULD(mag_udp_recv(&client, &c, 1) == -EBADF);
    return 0;
}
RUNS(a_connected_one_hears_only_its_peer)

enum { MANY = 40 };

async(void, batches)
{
    char out[MANY][8], in[MANY][8];
    struct mag_datagram list[MANY] = { 0 };
    struct mag_udp_addr to;
    int n = 0;

    async_with(mag_udp, one, LOCAL, 0)
    {
        async_with(mag_udp, two, NULL, 0)
        {
            await(mag_udp_resolve(&to, LOCAL, mag_udp_port(two)));
            for (int i = 0; i < MANY; i++) {
                snprintf(out[i], sizeof out[i], "%d", i);
                list[i] = (struct mag_datagram){ out[i], strlen(out[i]), 0, to };
            }
            while (n < MANY)
                n += await(mag_udp_send_batch(one, list + n, (size_t)(MANY - n)));
            for (int i = 0; i < MANY; i++)
                list[i] = (struct mag_datagram){ .buf = in[i], .n = sizeof in[i] };
            for (n = 0; n < MANY;)
                n += await(mag_udp_recv_batch(two, list + n, (size_t)(MANY - n)));
            for (int i = 0; i < MANY; i++) {
                SHOULD(list[i].len == strlen(out[i]) && memcmp(in[i], out[i], list[i].len) == 0);
                SHOULD(is_at(&list[i].addr, LOCAL, mag_udp_port(one)));
            }
            /* back, from an IPv6 socket, by the addresses that were told */
            SHOULD(await(mag_udp_send_batch(two, list, 3)) == 3);
            SHOULD(await(mag_udp_recv_batch(one, list, MANY)) >= 1);
        }
        SHOULD(mag_udp_recv_batch(one, list, 0) == -EINVAL);
        SHOULD(mag_udp_send_batch(one, list, 0) == -EINVAL);
    }
    return 0;
}
RUNS(batches)

async(void, late, (struct mag_udp *, u), (uint16_t, port))
{
    struct mag_udp_addr to;

    await(mag_udp_resolve(&to, LOCAL, port));
    await(mag_sleep(5 * MAG_MS));
    await(mag_udp_send_to(u, "late", 4, &to));
    return 0;
}

async(int, one_batch, (struct mag_udp *, u))
{
    char c[8];
    struct mag_datagram list[2] = { { .buf = c, .n = 4 }, { .buf = c + 4, .n = 4 } };

    async_return(await(mag_udp_recv_batch(u, list, 2)));
}

async(int, one_recv, (struct mag_udp *, u))
{
    char c[8];

    async_return(await(mag_udp_recv(u, c, sizeof c)));
}

async(void, waiting)
{
    int n = 0;

    async_with(mag_udp, u, LOCAL, 0)
    {
        async_with(mag_udp, other, LOCAL, 0)
        {
            struct late *l = spawn(late(other, mag_udp_port(u)));
            SHOULD(await(one_batch(u)) == 1);
            await(l);
            SHOULD(wait_for(one_batch(u), 2 * MAG_MS, &n) == -ETIMEDOUT);
            SHOULD(wait_for(one_recv(u), 2 * MAG_MS, &n) == -ETIMEDOUT);
            l = spawn(late(other, mag_udp_port(u))); /* and nothing was lost */
            SHOULD(await(one_recv(u)) == 4);
            await(l);
        }
        struct one_batch *b = spawn(one_batch(u));
        struct one_recv *r = spawn(one_recv(u));
        mag_sleep(2 * MAG_MS);
        mag_udp_close(u); /* under them */
        SHOULD(await_rc(b, NULL) == -EBADF);
        SHOULD(await_rc(r, NULL) == -EBADF);
    }
    return 0;
}
RUNS(waiting)

async(void, cancelled_before)
{
    async_with(mag_udp, u, LOCAL, 0)
    {
        char c;
        struct mag_datagram one = { .buf = &c, .n = 1 };
        await(mag_udp_connect(u, LOCAL, mag_udp_port(u), NULL));
        await(mag_udp_send(u, "x", 1));
        mag_cancel(mag_self());
        SHOULD(mag_udp_recv_batch(u, &one, 1) == -ECANCELED);
        SHOULD(mag_udp_send_batch(u, &one, 1) == -ECANCELED);
        SHOULD(recv(mag_udp_fd(u), &c, 1, MSG_DONTWAIT) == 1); /* it is still there */
    }
    return 0;
}
RUNS(cancelled_before)

async(void, addresses_that_are_none)
{
    struct mag_udp u;
    struct mag_udp_addr a = { 0 };
    char text[10];

    SHOULD(mag_udp_bind(&u, "192.0.2.1", 0, NULL) == -EADDRNOTAVAIL && mag_udp_fd(&u) == -1);
    SHOULD(mag_udp_bind(&u, "no-such-host.invalid", 0, NULL) < 0);
    SHOULD(mag_udp_connect(&u, "no-such-host.invalid", 1, NULL) < 0);
    SHOULD(mag_udp_resolve(&a, NULL, 1) == -EINVAL);
    SHOULD(mag_udp_text(&a, text, sizeof text) == -EAFNOSUPPORT);
    SHOULD(mag_udp_resolve(&a, "127.0.0.1", 12345) == 0);
    SHOULD(mag_udp_text(&a, text, sizeof text) == -EOVERFLOW);
    async_with(mag_udp, one, LOCAL, 0)
    {
        SHOULD(mag_udp_bind(&u, LOCAL, mag_udp_port(one), NULL) == -EADDRINUSE);
        SHOULD(mag_udp_bind(&u, LOCAL, mag_udp_port(one),
                            &(struct mag_udp_options){ .reuse_port = true }) == -EADDRINUSE);
    }
    return 0;
}
RUNS(addresses_that_are_none)

async(void, multicast)
{
    struct mag_udp_options shared = { .reuse_addr = true, .reuse_port = true, .broadcast = true };
    struct mag_udp one, two;
    struct mag_udp_addr group;
    unsigned lo = if_nametoindex("lo");
    uint16_t port;
    char c = 0;

    await(mag_udp_bind(&one, NULL, 0, &shared));
    port = mag_udp_port(&one);
    await(mag_udp_bind(&two, NULL, port, &shared));
    await(mag_udp_resolve(&group, "239.255.77.77", port));
    SHOULD(mag_multicast_join(mag_udp_fd(&one), &group.any, lo) == 0);
    SHOULD(mag_multicast_join(mag_udp_fd(&two), &group.any, lo) == 0);
    async_with(mag_udp, sender, LOCAL, 0)
    {
        struct ip_mreqn by = { .imr_ifindex = (int)lo };
        SHOULD(setsockopt(mag_udp_fd(sender), IPPROTO_IP, IP_MULTICAST_IF, &by, sizeof by) == 0);
        SHOULD(mag_udp_send_to(sender, "m", 1, &group) == 1);
    }
    with_timeout(5 * MAG_SECOND)
    {
        SHOULD(await(mag_udp_recv(&one, &c, 1)) == 1 && c == 'm'); /* both have it */
        SHOULD(await(mag_udp_recv(&two, &c, 1)) == 1);
    }
    SHOULD(mag_multicast_leave(mag_udp_fd(&one), &group.any, lo) == 0);
    mag_udp_close(&one);
    mag_udp_close(&two);
    return 0;
}
RUNS(multicast)

Test(udp, outside_a_task)
{
    struct mag_udp u;
    char c[2];
    struct mag_datagram list[2] = { { .buf = c, .n = 1 }, { .buf = c + 1, .n = 1 } };
    int n_before = n_descriptors();

    cr_assert_eq(mag_udp_bind(&u, LOCAL, 0, NULL), 0);
    cr_assert_eq(mag_udp_connect(&u, LOCAL, mag_udp_port(&u), NULL), 0);
    c[0] = 'a', c[1] = 'b';
    cr_assert_eq(mag_udp_send_batch(&u, list, 2), 2);
    cr_assert_eq(mag_udp_recv(&u, c, 1), 1);
    cr_assert_eq(mag_udp_recv_batch(&u, list, 2), 1);
    cr_assert_eq(c[0], 'b');
    cr_assert_eq(mag_udp_close(&u), 0);
    cr_assert_eq(mag_udp_enter(&u, "localhost", 0), 0);
    cr_assert_neq(mag_udp_port(&u), 0);
    mag_udp_exit(&u);
    cr_assert_eq(n_descriptors(), n_before);
    cr_assert_eq(mag_mem_live(), 0);
}

async(void, no_memory_for_a_batch)
{
    char c;
    struct mag_datagram one = { .buf = &c, .n = 1 };

    async_with(mag_udp, u, LOCAL, 0)
    {
        mag_mem_fail_nth(1, false);
        SHOULD(mag_udp_recv_batch(u, &one, 1) == -ENOMEM);
        mag_mem_fail_nth(1, false);
        SHOULD(mag_udp_send_batch(u, &one, 1) == -ENOMEM);
        mag_mem_fail_nth(0, false);
    }
    return 0;
}
RUNS(no_memory_for_a_batch)
