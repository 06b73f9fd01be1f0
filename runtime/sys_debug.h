/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_DEBUG_H
#define MAG_SYS_DEBUG_H
/*
 * sys_debug.h - the door for system calls: those that only reports and debug mode need
 */
#include "sys.h"

/*
 * Copies n bytes from an address of this process that may no longer be mapped: 0, or -errno
 * (-EFAULT; -EPERM where a sandbox forbids process_vm_readv(2)).  For reports about objects
 * that another thread may be freeing.
 */
int mag_sys_peek(const void *from, void *to, size_t n);

/* The string there, of which room - 1 characters count; -EILSEQ if it is empty or not
 * printable. */
int mag_sys_peek_text(const char *from, char *to, size_t room);

/*
 * Debug mode: makes errno of this thread a number that means nothing, so that who reads it
 * after a suspension, where it is another thread's or a stale one, sees that.
 */
void mag_sys_poison_errno(void);

#endif
