/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*async_for: the items have another type */
#include <magpie/async.h>

async_gen(int, countdown, (int, n))
{
    while (n > 0)
        yield(n--);
    return 0;
}

async(void, demo)
{
    async_for(long, i, countdown(3)) /* MISTAKE */
        await(mag_sleep(i));
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
