/* SPDX-License-Identifier: MIT */
/* EXPECT ignoring return value */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    step(1); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
