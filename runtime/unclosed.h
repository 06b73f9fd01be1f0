/* SPDX-License-Identifier: MIT */
#ifndef MAG_UNCLOSED_H
#define MAG_UNCLOSED_H
/*
 * unclosed.h - debug mode: what was opened and not closed (unclosed.c)
 */
#include "base.h"

/*
 * Notes that `fd' was opened: `what' it is ("file"; static), its name (copied, and cut), the
 * runtime whose task did it (NULL: outside any), and the return address of the call that did.
 * Nothing without memory.  Only in debug mode.  Any thread.
 */
void mag_unclosed_add(int fd, const char *what, const char *name, const void *rt,
                      const void *made_at);
/* It is about to be closed.  Costs a load where nothing was noted. */
void mag_unclosed_remove(int fd);

/* Says, and forgets, what was opened by tasks of that runtime (NULL: outside any), a line for
 * each; how many.  Every runtime at its end; for NULL at the end of the process. */
unsigned mag_unclosed_report(const void *rt, void (*line)(void *arg, const char *text), void *arg);

#endif
