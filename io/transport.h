/* SPDX-License-Identifier: MIT */
#ifndef MAG_TRANSPORT_H
#define MAG_TRANSPORT_H
/*
 * transport.h - descriptors as what carries a stream's bytes
 *
 * `self' is the descriptor itself, by mag_transport_self: there is nothing to allocate, and
 * nothing to look up.
 */
#include "base.h"

#include <errno.h>
#include <magpie/stream.h>

extern const struct mag_transport mag_transport_socket; /* a connected stream socket */
extern const struct mag_transport mag_transport_file;   /* a pipe, a terminal, ...   */

/* Which of the two: 0, -EBADF, or -EPROTOTYPE for a socket that carries no stream. */
int mag_transport_of_fd(const struct mag_transport **out, int fd);

/*
 * Puts another transport under a stream, for the task that holds both of its sides (mag_tls.start),
 * while others may interrupt it or ask for its descriptor.
 */
MAG_MODULE void mag_stream_replace(struct mag_stream *s, const struct mag_transport *transport,
                                   void *self);

/* mag_stream_peer_name and mag_stream_own_name, of a descriptor; -1: -EBADF. */
int mag_transport_name(int fd, bool is_peer, char *buf, size_t room);

/* What a transport's write has answered.  One that takes nothing, and says no error, would be asked
 * for ever, by a task that may never suspend. */
static inline int mag_transport_wrote(int rc)
{
    return rc == 0 ? -EIO : rc;
}

static inline void *mag_transport_self(int fd)
{
    return (void *)(intptr_t)fd;
}

#endif
