/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*gather: result type differs */
#include <magpie/async.h>

async(double, half, (double, x))
{
    async_return(x / 2);
}

async(void, demo)
{
    struct half *many[2] = { half(1), half(2) };
    int r[2];
    gather_n(r, many, 2); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
