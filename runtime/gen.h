/* SPDX-License-Identifier: MIT */
#ifndef MAG_GEN_H
#define MAG_GEN_H
/*
 * gen.h - generators (gen.c), for who looks at tasks
 */
#include "worker.h"

#include <magpie/iter.h>

/* work.run of a generator that has been iterated; of another coroutine never. */
void mag_gen_run(struct mag_work *work);

#endif
