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

/* A fault armed for MAG_SYS_WRITE fails these as well. */
int mag_sys_ftruncate(int fd, off_t length);
int mag_sys_fallocate(int fd, int mode, off_t offset, off_t length);
int mag_sys_fadvise(int fd, off_t offset, off_t length, int advice);
int mag_sys_renameat2(int dirfd, const char *path, int to_dirfd, const char *to, unsigned flags);
int mag_sys_linkat(int dirfd, const char *path, int to_dirfd, const char *to, int flags);
int mag_sys_symlinkat(const char *says, int dirfd, const char *path);
int mag_sys_unlinkat(int dirfd, const char *path, int flags);
int mag_sys_mkdirat(int dirfd, const char *path, mode_t mode);

#endif
