/* SPDX-License-Identifier: MIT */
/* EXPECT incompatible pointer type */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    double d;
    return await_rc(step(1), &d); /* MISTAKE */
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
