/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*race: result type differs */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(double, half, (double, x))
{
    async_return(x / 2);
}

async(void, demo)
{
    int r;
    race(&r, step(1), half(2)); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
