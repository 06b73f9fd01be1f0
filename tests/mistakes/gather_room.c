/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*gather: fewer results than coroutines */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    int r[2];
    gather(r, step(1), step(2), step(3)); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
