/* SPDX-License-Identifier: MIT */
#ifndef MAG_CPUS_H
#define MAG_CPUS_H
/*
 * cpus.h - how many processors this process may use
 */
#include "base.h"

/*
 * The processors in the affinity mask of the calling thread, or the cgroup's CPU
 * quota, rounded up, if that is less; at least 1.  Reads files, so it may block.
 */
int mag_cpus_allowed(void);

/*
 * The quota alone, rounded up, or 0 if there is none: the least over this process's
 * control group and its ancestors.  `cgroup_root' is where the hierarchies are
 * mounted ("/sys/fs/cgroup"), `self_cgroup_text' the text of /proc/self/cgroup.
 */
int mag_cpus_quota(const char *cgroup_root, const char *self_cgroup_text);

#endif
