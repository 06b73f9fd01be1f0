/* SPDX-License-Identifier: MIT */
/*
 * magpie_echo.c - ours: an echo server of plain calls on descriptors
 *
 *      magpie_echo PORT WORKERS
 *
 * A task per connection: mag_recv, mag_send_all, again.  As many tasks accept as there are workers.
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/net.h>

enum { BUF_BYTES = 4096 };

async(void, echo, (int, fd))
{
    char buf[BUF_BYTES];
    int n;

    while ((n = mag_recv(fd, buf, sizeof buf, 0)) > 0)
        if (mag_send_all(fd, buf, (size_t)n, 0, NULL) < 0)
            break;
    return mag_close_fd(fd);
}

async(void, acceptor, (int, listen_fd))
{
    for (;;) {
        int fd = await(mag_accept(listen_fd, NULL, NULL, 0));
        no_delay(fd);
        struct echo *task = spawn(echo(fd));
        if (mag_detach(task) < 0)
            mag_close_fd(fd);
    }
}

async(void, serve, (int, port), (unsigned, n))
{
    void *acceptors[256];

    for (unsigned i = 0; i < n; i++)
        acceptors[i] = acceptor(listener(port, 0));
    return mag_gather(NULL, 0, acceptors, n, NULL);
}

int main(int argc, char **argv)
{
    unsigned n = (unsigned)atoi(argument(argc, argv, 2, "1"));

    if (n < 1 || n > 256)
        return 2;
    return mag_run_with(serve(atoi(argument(argc, argv, 1, "7777")), n), NULL,
                        &(struct mag_rt_options){ .workers = n }) < 0;
}
