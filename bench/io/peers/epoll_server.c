/* SPDX-License-Identifier: MIT */
/*
 * epoll_server.c - an echo server on epoll, written by hand
 *
 *      epoll_server PORT THREADS
 *
 * A thread has an epoll, a listening socket (SO_REUSEPORT) and its connections.  What was
 * received is sent at once; if the socket is full, the rest waits for EPOLLOUT and nothing is
 * received meanwhile.
 */
#include "../io.h"

#include <pthread.h>
#include <sys/epoll.h>

enum { BUF_BYTES = 4096, EVENTS = 256 };

struct connection {
    int fd;
    unsigned from, filled; /* what is still to be sent of buf */
    char buf[BUF_BYTES];
};

static int port;

static void watch(int ep, int how, int fd, uint32_t events, void *who)
{
    struct epoll_event ev = { .events = events, .data.ptr = who };

    checked(epoll_ctl(ep, how, fd, &ev), "epoll_ctl");
}

static void accept_all(int ep, int listen_fd)
{
    int fd;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = malloc(sizeof *c);
        if (!c)
            die("malloc");
        c->fd = fd;
        c->from = c->filled = 0;
        no_delay(fd);
        watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static void finish(struct connection *c)
{
    close(c->fd);
    free(c);
}

/* Sends what is there: false if the connection is gone. */
static bool flush(int ep, struct connection *c)
{
    ssize_t n = send(c->fd, c->buf + c->from, c->filled - c->from, MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN)
        return false;
    c->from += n > 0 ? (unsigned)n : 0;
    if (c->from < c->filled) {
        watch(ep, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
        return true;
    }
    c->from = c->filled = 0;
    return true;
}

static void event(int ep, struct connection *c, uint32_t events)
{
    if (events & EPOLLOUT) {
        if (!flush(ep, c))
            finish(c);
        else if (c->filled == 0)
            watch(ep, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
        return;
    }
    ssize_t n = recv(c->fd, c->buf, BUF_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    c->filled = n > 0 ? (unsigned)n : 0;
    if (n <= 0 || !flush(ep, c))
        finish(c);
}

static void *serve(void *arg)
{
    int ep = checked(epoll_create1(0), "epoll"), listen_fd = listener(port, SOCK_NONBLOCK);
    struct epoll_event events[EVENTS];

    (void)arg;
    watch(ep, EPOLL_CTL_ADD, listen_fd, EPOLLIN, NULL);
    for (;;) {
        int n = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++)
            if (events[i].data.ptr)
                event(ep, events[i].data.ptr, events[i].events);
            else
                accept_all(ep, listen_fd);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int n_threads = atoi(argument(argc, argv, 2, "1"));
    pthread_t thread;

    port = atoi(argument(argc, argv, 1, "7777"));
    for (int i = 1; i < n_threads; i++)
        pthread_create(&thread, NULL, serve, NULL);
    serve(NULL);
    return 0;
}
