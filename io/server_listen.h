/* SPDX-License-Identifier: MIT */
#ifndef MAG_SERVER_LISTEN_H
#define MAG_SERVER_LISTEN_H
/*
 * server_listen.h - the sockets that a server listens on
 */
#include "base.h"

#include <sys/types.h>

struct mag_serve_options;

enum { MAG_LISTENERS_MAX = 8 }; /* addresses of one name; more are -E2BIG */

struct mag_listeners {
    int fds[MAG_LISTENERS_MAX];
    unsigned n;
    uint16_t port; /* 0: of a unix socket */
    char *path;    /* to be removed at the end; on the heap; NULL: none */
    dev_t dev;     /* what lies there, as long as it is ours */
    ino_t ino;
};

/*
 * By the options: 0, or -errno and then nothing is open; .listen_fd is closed too.  In a task.
 * Suspends; cancellation point.
 */
int mag_listeners_open(struct mag_listeners *l, const struct mag_serve_options *options);

/* Nobody can connect any more; accepts that are in flight end with -EBADF.  Once or more often.
 * Suspends; not a cancellation point. */
void mag_listeners_close(struct mag_listeners *l);

#endif
