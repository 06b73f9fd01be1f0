/* SPDX-License-Identifier: MIT */
/* EXPECT makes integer from pointer|incompatible pointer to integer */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(int, demo)
{
    int r = step(3); /* MISTAKE */
    async_return(r);
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
