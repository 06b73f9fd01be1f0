/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_FILE_H
#define MAG_SYS_FILE_H
/*
 * sys_file.h - the door for system calls: those that only files need
 *
 * As in sys.h: the call of that name, which answers -errno.  They block the calling
 * thread, so they are for threads outside a task.
 */
#include "sys.h"

/* fsync(2), or fdatasync(2).  A fault armed for MAG_SYS_WRITE fails it too. */
int mag_sys_fsync(int fd, bool data_only);

#endif
