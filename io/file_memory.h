/* SPDX-License-Identifier: MIT */
#ifndef MAG_FILE_MEMORY_H
#define MAG_FILE_MEMORY_H
/*
 * file_memory.h - files that are made in memory, where no disk is waited for
 *
 * Who may call: any thread; nothing suspends.
 */
#include "base.h"

/*
 * Opens a file for writing, made or emptied, as open(2) with O_CREAT, O_TRUNC and
 * O_NONBLOCK; on the spot, without waiting for a disk.  The descriptor, or -EAGAIN: it is not
 * known to lie in memory, or something else is in the way, which open(2) will say.
 */
int mag_memory_create(const char *path, unsigned mode);

/* Learns from a file that was made elsewhere where there is memory.  For the pool. */
void mag_memory_learn(int fd);

#endif
