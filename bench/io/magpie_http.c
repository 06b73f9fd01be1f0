/* SPDX-License-Identifier: MIT */
/*
 * magpie_http.c - ours: the HTTP server with a handler that answers 13 bytes
 *
 *      magpie_http PORT WORKERS [CERTIFICATE]      with one: HTTPS; .crt and .key are added
 */
#include "io.h"

#include <magpie/async.h>
#include <magpie/http_server.h>
#include <magpie/tls.h>

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

static int hello(struct mag_http_exchange *x, void *arg)
{
    static const struct mag_http_field fields[] = { { "Content-Type", "text/plain" } };

    (void)arg;
    return mag_http_respond(x, 200, fields, 1, "Hello, World!", 13);
}

async(void, serve, (int, port), (struct mag_tls *, tls))
{
    return mag_http_serve(hello, NULL,
                          &(struct mag_http_server_options){ .serve.host = "127.0.0.1",
                                                             .serve.port = (uint16_t)port,
                                                             .serve.tls = tls });
}

int main(int argc, char **argv)
{
    unsigned n = (unsigned)atoi(argument(argc, argv, 2, "1"));
    struct mag_tls *tls = argc > 3 ? server_tls(argv[3]) : NULL;

    return mag_run_with(serve(atoi(argument(argc, argv, 1, "7777")), tls), NULL,
                        &(struct mag_rt_options){ .workers = n }) < 0;
}
