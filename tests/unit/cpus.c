/* SPDX-License-Identifier: MIT */
/* cpus.c - unit tests of runtime/cpus.[ch] */
#include <criterion/criterion.h>

#include "cpus.h"
#include "sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[] = "/tmp/magpie-cpus-XXXXXX";

static void setup(void)
{
    cr_assert_not_null(mkdtemp(root));
}

static void teardown(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -r %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(cpus, .init = setup, .fini = teardown);

/* Writes a file below the pretended /sys/fs/cgroup, with the directories above it. */
static void put(const char *dir, const char *file, const char *text)
{
    char command[512];

    snprintf(command, sizeof command, "mkdir -p %s/%s && echo '%s' > %s/%s/%s", root, dir, text,
             root, dir, file);
    cr_assert_eq(system(command), 0);
}

Test(cpus, allowed_is_at_least_one_and_not_above_the_mask)
{
    int n = mag_cpus_allowed();

    cr_assert(n >= 1 && n <= mag_sys_affinity_count());
    cr_assert_eq(mag_sys_affinity_set(0), 0);
    cr_assert_eq(mag_cpus_allowed(), 1);
}

Test(cpus, no_files_no_quota)
{
    cr_assert_eq(mag_cpus_quota(root, "0::/a/b\n"), 0);
    cr_assert_eq(mag_cpus_quota("/nowhere", "0::/\n"), 0);
    cr_assert_eq(mag_cpus_quota(root, ""), 0);
    cr_assert_eq(mag_cpus_quota(root, "rubbish\n:\n::\n"), 0);
}

Test(cpus, v2_rounds_up)
{
    put("a", "cpu.max", "150000 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/a\n"), 2);
    put("a", "cpu.max", "200000 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/a\n"), 2);
    put("a", "cpu.max", "1000 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/a\n"), 1);
    put("a", "cpu.max", "max 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/a\n"), 0);
}

Test(cpus, v2_ancestors_limit_too)
{
    put("a/b/c", "cpu.max", "800000 100000");
    put("a", "cpu.max", "300000 100000");
    put("a/b", "cpu.max", "max 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/a/b/c\n"), 3);
    put("a/b/c", "cpu.max", "100000 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/a/b/c\n"), 1);
    cr_assert_eq(mag_cpus_quota(root, "0::/a/b\n"), 3);
}

Test(cpus, v2_in_a_container_the_root_is_the_group)
{
    put(".", "cpu.max", "400000 100000");
    cr_assert_eq(mag_cpus_quota(root, "0::/\n"), 4);
    cr_assert_eq(mag_cpus_quota(root, "0::/docker/0123456789abcdef\n"), 4);
}

Test(cpus, v1)
{
    const char *self = "5:memory:/x\n4:cpu,cpuacct:/x/y\n3:cpuset:/\n0::/\n";

    put("cpu/x/y", "cpu.cfs_quota_us", "-1");
    put("cpu/x/y", "cpu.cfs_period_us", "100000");
    cr_assert_eq(mag_cpus_quota(root, self), 0);
    put("cpu/x", "cpu.cfs_quota_us", "250000");
    put("cpu/x", "cpu.cfs_period_us", "100000");
    cr_assert_eq(mag_cpus_quota(root, self), 3);
    cr_assert_eq(mag_cpus_quota(root, "4:cpuacct,cpu:/x/y\n"), 3);
    cr_assert_eq(mag_cpus_quota(root, "3:cpuset:/x\n2:cpuacct:/x\n1:name=cpu:/x\n"), 0);
}

Test(cpus, long_paths_are_survived)
{
    char text[4096];

    put(".", "cpu.max", "200000 100000");
    memset(text, 'a', sizeof text);
    memcpy(text, "0::/", 4);
    memcpy(text + sizeof text - 2, "\n", 2);
    cr_assert_eq(mag_cpus_quota(root, text), 2);
}
