/* SPDX-License-Identifier: MIT */
/* EXPECT makes integer from pointer|incompatible pointer to integer */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    await(step("a")); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
