/* SPDX-License-Identifier: MIT */
/*
 * magpie_tls_echo.c - ours: an echo server on mag_serve, streams and TLS
 *
 *      magpie_tls_echo PORT WORKERS CERTIFICATE      .crt and .key are added
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/server.h>
#include <magpie/tls.h>

enum { BUF_BYTES = 4096 };

/* The context of a server, from PREFIX.crt and PREFIX.key. */
static struct mag_tls *server_tls(const char *prefix)
{
    char cert[512], key[512], why[256] = "";
    struct mag_tls *tls = NULL;

    snprintf(cert, sizeof cert, "%s.crt", prefix);
    snprintf(key, sizeof key, "%s.key", prefix);
    if (mag_tls_server_new(&tls, &(struct mag_tls_options){ .cert_file = cert,
                                                            .key_file = key,
                                                            .why = why,
                                                            .why_bytes = sizeof why }) < 0) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
    return tls;
}

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

async(void, serve, (int, port), (struct mag_tls *, tls))
{
    return mag_serve(
        echo, NULL,
        &(struct mag_serve_options){ .host = "127.0.0.1", .port = (uint16_t)port, .tls = tls });
}

int main(int argc, char **argv)
{
    unsigned n = (unsigned)atoi(argument(argc, argv, 2, "1"));
    struct mag_tls *tls = server_tls(argument(argc, argv, 3, "localhost"));

    return mag_run_with(serve(atoi(argument(argc, argv, 1, "7777")), tls), NULL,
                        &(struct mag_rt_options){ .workers = n }) < 0;
}
