/* SPDX-License-Identifier: MIT */
/* EXPECT error: .*async_for: the items have another type */
#include <magpie/async.h>

struct counter {
    int current, stop;
};

static int counter_next(struct counter *c, int *out)
{
    *out = c->current++;
    return c->current < c->stop;
}

async(void, demo)
{
    async_for(double, d, async_iter(counter_next, &(struct counter){ .stop = 3 })) /* MISTAKE */
        await(mag_sleep(d * MAG_SECOND));
    return 0;
}

int main(void)
{
    return mag_run(demo(), NULL) < 0;
}
