/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*async_for: the items have another type */
#include <magpie/async.h>

async(int, step, (int, n))
{
    async_return(n);
}

async(void, demo)
{
    struct step *steps[] = { step(1), step(2) };

    async_for(int, done, as_completed(steps, 2)) /* MISTAKE */
        await(mag_sleep(done));
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
