/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*yield_stands_only_in_async_gen */
#include <magpie/async.h>

async(int, step, (int, n))
{
    yield(n); /* MISTAKE */
    async_return(n);
}

int main(void)
{
    return mag_run(step(1), NULL) < 0;
}
