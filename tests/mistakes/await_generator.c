/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*no member named .value. */
#include <magpie/async.h>

async_gen(int, countdown, (int, n))
{
    while (n > 0)
        yield(n--);
    return 0;
}

async(void, demo)
{
    await(countdown(3)); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
