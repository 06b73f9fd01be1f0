/* SPDX-License-Identifier: MIT */
/* correct_other.c - defines what correct.h declares; step is another one than correct.c's */
#include "correct.h"

async(long, step)
{
    async_return(1);
}

async_def(struct pair, swap, (struct pair, p))
{
    async_return((struct pair){ p.b, p.a + (int)await(step()) });
}

async_def(void, say_nothing)
{
    async_return();
}
