/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*(invalid type argument of .->.|member reference type .int. is not a pointer) */
#include <magpie/async.h>

async(void, demo)
{
    task_group (g)
        group_spawn(g, mag_sleep(MAG_SECOND)); /* MISTAKE */
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
