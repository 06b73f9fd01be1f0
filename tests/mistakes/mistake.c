/* SPDX-License-Identifier: MIT */
/* mistake.c - what only the run time can see; run.sh compares what it says */
#include <magpie/async.h>

#include <stdio.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    struct step *forgotten = step(1); /* FORGOTTEN */
    struct step *once = step(2);
    int rc;

    (void)forgotten;
    await(once);
    printf("awaited twice: %s\n", mag_err_name(await_rc(once, NULL)));
    rc = mag_run(step(3), NULL);
    printf("mag_run inside: %s\n", mag_err_name(rc));
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
