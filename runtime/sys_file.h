/* SPDX-License-Identifier: MIT */
#ifndef MAG_SYS_FILE_H
#define MAG_SYS_FILE_H
/*
 * sys_file.h - the door for system calls: those that only files need
 *
 * As in sys.h: the call of that name, which answers -errno.  They block the calling
 * thread, so they are for threads outside a task; but what stands under "from memory" a
 * task may call.
 */
#include "sys.h"

struct open_how; /* linux/openat2.h */
struct statvfs;

/* fsync(2), or fdatasync(2).  A fault armed for MAG_SYS_WRITE fails it too. */
int mag_sys_fsync(int fd, bool data_only);

/* A fault armed for MAG_SYS_OPENAT fails it.  -ENOSYS, or in a sandbox -EPERM: there is none. */
int mag_sys_openat2(int dirfd, const char *path, const struct open_how *how, size_t how_bytes);

/* A fault armed for MAG_SYS_WRITE fails these as well. */
int mag_sys_ftruncate(int fd, off_t length);
int mag_sys_fallocate(int fd, int mode, off_t offset, off_t length);
int mag_sys_fadvise(int fd, off_t offset, off_t length, int advice);
int mag_sys_renameat2(int dirfd, const char *path, int to_dirfd, const char *to, unsigned flags);
int mag_sys_linkat(int dirfd, const char *path, int to_dirfd, const char *to, int flags);
int mag_sys_symlinkat(const char *says, int dirfd, const char *path);
int mag_sys_unlinkat(int dirfd, const char *path, int flags);
int mag_sys_mkdirat(int dirfd, const char *path, mode_t mode);
int mag_sys_fchmodat(int dirfd, const char *path, mode_t mode);
int mag_sys_fchmod(int fd, mode_t mode);
/* At the descriptors' own positions, which it advances. */
ssize_t mag_sys_copy_file_range(int from, int to, size_t n);

/* A fault armed for MAG_SYS_STATX fails these; the access is that of the effective user. */
int mag_sys_faccessat(int dirfd, const char *path, int mode);
ssize_t mag_sys_readlinkat(int dirfd, const char *path, char *buf, size_t n);
int mag_sys_statvfs(const char *path, struct statvfs *out);

/* ---- from memory ---------------------------------------------------------------- */

/*
 * openat2(2) of what the kernel has in its caches, with O_NONBLOCK added (but to O_PATH), which
 * stays on; nothing is created.  -EAGAIN: it would have to look on a disk.  A fault armed for
 * MAG_SYS_OPENAT fails it.
 */
int mag_sys_open_cached(const char *path, int flags);

/* SEEK_SET, SEEK_CUR and SEEK_END. */
int64_t mag_sys_lseek(int fd, off_t offset, int whence);
bool mag_sys_isatty(int fd);
/* fcntl(2), F_GETFL and F_SETFL. */
int mag_sys_getfl(int fd);
int mag_sys_setfl(int fd, int flags);
/* F_GET_SEALS: >= 0 of files in memory (tmpfs, memfd_create, hugetlbfs), and of no others.  A
 * fault armed for MAG_SYS_FSTAT fails it. */
int mag_sys_getseals(int fd);

#endif
