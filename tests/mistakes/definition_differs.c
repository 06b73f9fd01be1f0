/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*async_def: result type differs from async_decl */
#include <magpie/async.h>

async_decl(int, step, (int, n));

async_def(double, step, (int, n)) /* MISTAKE */
{
    async_return(n);
}

int main(void)
{
    return mag_run(step(1), NULL) < 0;
}
