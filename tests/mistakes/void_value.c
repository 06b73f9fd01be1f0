/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*(incompatible type|using type .struct mag_nothing) */
#include <magpie/async.h>

async(void, nothing)
{
    return 0;
}

async(int, demo)
{
    int r = await(nothing()); /* MISTAKE */
    async_return(r);
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
