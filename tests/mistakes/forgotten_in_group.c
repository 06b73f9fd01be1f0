/* SPDX-License-Identifier: MIT */
/* EXPECT ignoring return value of .*warn_unused_result */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    task_group (g) {
        group_spawn(g, step(1));
        step(2); /* MISTAKE */
    }
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
