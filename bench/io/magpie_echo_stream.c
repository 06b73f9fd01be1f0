/* SPDX-License-Identifier: MIT */
/*
 * magpie_echo_stream.c - ours: the same echo server on mag_serve and streams
 *
 *      magpie_echo_stream PORT WORKERS
 *
 * What is read is written and sent by the next read, which has to wait for the peer.
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/server.h>

enum { BUF_BYTES = 4096 };

static int echo(struct mag_stream *s, void *arg)
{
    char buf[BUF_BYTES];
    int n, rc;

    (void)arg;
    no_delay(mag_stream_fd(s));
    while ((n = mag_stream_read(s, buf, sizeof buf)) > 0)
        if ((rc = mag_stream_write(s, buf, (size_t)n, NULL)) < 0)
            return rc;
    return n;
}

async(void, serve, (int, port))
{
    return mag_serve(echo, NULL,
                     &(struct mag_serve_options){ .host = "127.0.0.1", .port = (uint16_t)port });
}

int main(int argc, char **argv)
{
    unsigned n = (unsigned)atoi(argument(argc, argv, 2, "1"));

    return mag_run_with(serve(atoi(argument(argc, argv, 1, "7777"))), NULL,
                        &(struct mag_rt_options){ .workers = n }) < 0;
}
