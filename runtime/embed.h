/* SPDX-License-Identifier: MIT */
#ifndef MAG_EMBED_H
#define MAG_EMBED_H
/*
 * embed.h - a runtime without threads, stepped by its owner (embed.c)
 */
#include "worker.h"

/* Makes the calling thread the owner of rt, and of its one worker; -errno. */
int mag_embed_open(struct mag_rt *rt);

/* By the owner, when nothing runs any more. */
void mag_embed_close(struct mag_rt *rt);

/* Whether the calling thread is the one that steps it. */
bool mag_embed_is_owner(const struct mag_rt *rt);

/* mag_rt_step, for who knows that he may; does not wait on when *stop (NULL: never) is not 0. */
int mag_embed_step(struct mag_rt *rt, mag_time timeout_ns, const mag_atomic(uint32_t) * stop);

#endif
