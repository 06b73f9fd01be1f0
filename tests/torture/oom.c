/* SPDX-License-Identifier: MIT */
/*
 * oom.c - each allocation of a small program fails once, and once with all that follow
 *
 * Every call must answer success or an error; nothing may hang, crash or leak.
 */
#include "small.h"

static void disarm(void)
{
    mag_mem_fail_nth(0, false);
}

/* The points at which something could fail, or -1 if one of them went wrong. */
static long torture(unsigned workers, bool is_persistent)
{
    int n_without = 0;
    long n = 0;

    while (n_without < 3) { /* the count differs from run to run */
        int rc;
        n++;
        SMALL_BEGIN("%u workers, allocation %ld%s", workers, n, is_persistent ? " and all after" : "");
        mag_mem_fail_nth((uint64_t)n, is_persistent);
        rc = small_program(workers, disarm);
        n_without = mag_mem_count() < (uint64_t)n ? n_without + 1 : 0;
        if (rc > 0 || (rc < 0 && rc != -ENOMEM)) {
            fprintf(stderr, "%s: %s\n", small_what, rc > 0 ? "wrong" : mag_err_name(rc));
            return -1;
        }
        if (rc < 0 && n_without) {
            fprintf(stderr, "%s: %s without a failure\n", small_what, mag_err_name(rc));
            return -1;
        }
    }
    return n - 3;
}

int main(void)
{
    int is_bad = 0;

    for (unsigned workers = 1; workers <= 4; workers *= 2)
        for (int is_persistent = 0; is_persistent < 2; is_persistent++) {
            long n = torture(workers, is_persistent);
            printf("%u workers, %s: %ld points\n", workers,
                   is_persistent ? "from there on" : "one fails", n);
            fflush(stdout);
            is_bad |= n < 0;
        }
    return is_bad;
}
