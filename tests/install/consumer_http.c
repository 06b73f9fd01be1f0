/* SPDX-License-Identifier: MIT */
/*
 * consumer_http.c - a C11 program against an installed magpie-http and magpie-tls: a server on a
 * port of the system's choice answers a client, and a TLS context is made
 *
 * Exit status 0 if all is as it should be.
 */
#include <magpie.h>
#include <magpie/http_client.h>
#include <magpie/http_server.h>
#include <magpie/tls.h>

#include <stdio.h>
#include <string.h>

static int hello(struct mag_http_exchange *x, void *arg)
{
    return mag_http_respond(x, 200, NULL, 0, arg, strlen(arg));
}

static int ask(uint16_t port, const char *expected)
{
    struct mag_http_client    client;
    struct mag_http_response *r = NULL;
    char                      url[64];
    int                       rc = mag_http_client_open(&client, NULL);

    if (rc < 0)
        return rc;
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", (unsigned)port);
    rc = mag_http_get(&client, url, &r);
    if (rc == 0 && (r->status != 200 || strcmp(r->body.ptr, expected) != 0))
        rc = -1;
    mag_http_client_close(&client);
    return rc;
}

static int body(void *frame, void *result)
{
    static char text[] = "Hello, World!";
    struct mag_http_server_options options = { .serve.host = "127.0.0.1" };
    struct mag_http_server *server = NULL;
    struct mag_tls *tls = NULL;
    int rc = mag_tls_client_new(&tls, &(struct mag_tls_options){ .insecure = true });

    (void)frame, (void)result;
    if (rc == 0)
        rc = mag_http_server_start(&server, hello, text, &options);
    if (rc == 0) {
        rc = ask(mag_http_server_port(server), text);
        mag_http_server_free(server);
    }
    mag_tls_free(tls);
    return rc;
}

static const struct mag_co_type type = {
    .name = "consumer_http",
    .body = body,
    .frame_bytes = 1,
};

int main(void)
{
    int rc = mag_run(mag_co_new(&type, NULL), NULL);

    if (rc != 0)
        fprintf(stderr, "consumer_http: %s\n", mag_err_text(rc));
    return rc != 0;
}
