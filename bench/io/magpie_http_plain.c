/* SPDX-License-Identifier: MIT */
/*
 * magpie_http_plain.c - ours: what the limit does, on plain calls: no HTTP server at all
 *
 *      magpie_http_plain PORT WORKERS
 *
 * It finds the ends of the requests and answers each by the same bytes.  So the difference to
 * uring_server is what tasks cost, and the difference to magpie_http is what HTTP costs.
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/net.h>

enum { BUF_BYTES = 4096, ANSWERS = 64 };

static char answers[ANSWERS * HTTP_ANSWER_BYTES];

/* How many requests are whole; what is left of the last one goes to the front. */
static unsigned take_requests(char *buf, size_t *filled)
{
    char *at = buf, *stop = buf + *filled, *crlf;
    unsigned n = 0;

    while (n < ANSWERS && (crlf = memmem(at, (size_t)(stop - at), "\r\n\r\n", 4)) != NULL) {
        at = crlf + 4;
        n++;
    }
    *filled = (size_t)(stop - at);
    memmove(buf, at, *filled);
    return n;
}

async(void, respond, (int, fd))
{
    char buf[BUF_BYTES];
    size_t filled = 0;
    int n;

    while (filled < sizeof buf && (n = mag_recv(fd, buf + filled, sizeof buf - filled, 0)) > 0) {
        filled += (size_t)n;
        unsigned requests = take_requests(buf, &filled);
        if (requests > 0 && mag_send_all(fd, answers, requests * HTTP_ANSWER_BYTES, 0, NULL) < 0)
            break;
    }
    return mag_close_fd(fd);
}

async(void, acceptor, (int, listen_fd))
{
    for (;;) {
        int fd = await(mag_accept(listen_fd, NULL, NULL, 0));
        no_delay(fd);
        struct respond *task = spawn(respond(fd));
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
    for (int i = 0; i < ANSWERS; i++)
        memcpy(answers + (size_t)i * HTTP_ANSWER_BYTES, HTTP_ANSWER, HTTP_ANSWER_BYTES);
    return mag_run_with(serve(atoi(argument(argc, argv, 1, "7777")), n), NULL,
                        &(struct mag_rt_options){ .workers = n }) < 0;
}
