/* SPDX-License-Identifier: MIT */
/*
 * tls_server.c - an echo server on epoll and OpenSSL, written by hand
 *
 *      tls_server PORT THREADS CERTIFICATE      .crt and .key are added
 *
 * A thread has an epoll, a listening socket (SO_REUSEPORT) and its connections.  A message that
 * the socket has no room for closes the connection: with a closed loop that does not happen.
 */
#include "../io.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/epoll.h>

enum { BUF_BYTES = 4096, EVENTS = 256 };

static int port;
static SSL_CTX *context;

static void accept_all(int ep, int listen_fd)
{
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        SSL *ssl = SSL_new(context);
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = ssl };
        if (!ssl)
            die("SSL_new");
        no_delay(fd);
        SSL_set_fd(ssl, fd);
        SSL_set_accept_state(ssl);
        checked(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), "epoll_ctl");
    }
}

static void event(SSL *ssl)
{
    char buf[BUF_BYTES];
    int n;

    while ((n = SSL_read(ssl, buf, sizeof buf)) > 0) {
        if (SSL_write(ssl, buf, n) != n) {
            n = -1;
            break;
        }
        if (n < BUF_BYTES && SSL_pending(ssl) == 0)
            return; /* what else has come is another event */
    }
    if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ)
        return;
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
    ERR_clear_error();
}

static void *serve(void *arg)
{
    int ep = checked(epoll_create1(0), "epoll"), listen_fd = listener(port, SOCK_NONBLOCK);
    struct epoll_event events[EVENTS], ev = { .events = EPOLLIN };

    (void)arg;
    checked(epoll_ctl(ep, EPOLL_CTL_ADD, listen_fd, &ev), "epoll_ctl");
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr)
                event(events[i].data.ptr);
            else
                accept_all(ep, listen_fd);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int n_threads = atoi(argument(argc, argv, 2, "1"));
    const char *prefix = argument(argc, argv, 3, "localhost");
    char name[512];
    pthread_t thread;

    port = atoi(argument(argc, argv, 1, "7777"));
    context = SSL_CTX_new(TLS_server_method());
    snprintf(name, sizeof name, "%s.crt", prefix);
    if (SSL_CTX_use_certificate_chain_file(context, name) != 1)
        die(name);
    snprintf(name, sizeof name, "%s.key", prefix);
    if (SSL_CTX_use_PrivateKey_file(context, name, SSL_FILETYPE_PEM) != 1)
        die(name);
    for (int i = 1; i < n_threads; i++)
        pthread_create(&thread, NULL, serve, NULL);
    serve(NULL);
    return 0;
}
