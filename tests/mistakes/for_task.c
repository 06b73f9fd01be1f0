/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*no member named .mag_each. */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    async_for(int, i, step(1)) /* MISTAKE */
        await(mag_sleep(i));
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
