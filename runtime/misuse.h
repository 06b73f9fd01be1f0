/* SPDX-License-Identifier: MIT */
#ifndef MAG_MISUSE_H
#define MAG_MISUSE_H
/*
 * misuse.h - one sentence on a mistake of the caller, in debug mode
 *
 * A function that refuses a misuse (an unlock of what is not held) returns -errno, always;
 * with MAGPIE_DEBUG=1 in the environment it also says what was wrong and what to do.
 */
#include "base.h"

/* Whether MAGPIE_DEBUG is set, and not to 0; read once.  Any thread. */
bool mag_debug(void);

/* Has mag_misuse say its sentences from now on, in the whole process. */
void mag_debug_on(void);

/* Prints a line if mag_debug(), or after mag_debug_on(); returns rc, so that `return mag_misuse(-EPERM, "...")'
 * says it all.  Any thread; allocates nothing. */
MAG_MODULE int mag_misuse(int rc, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
