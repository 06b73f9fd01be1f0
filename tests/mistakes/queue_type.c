/* SPDX-License-Identifier: MIT */
/* EXPECT (initializing|initialization|makes integer from pointer|incompatible pointer to integer) */
#include <magpie/async.h>

async_queue(int, numbers);

async(void, demo, (struct numbers, q))
{
    queue_put(q, "one"); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(numbers(1, NULL)), NULL) < 0;
}
