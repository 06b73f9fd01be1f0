/* SPDX-License-Identifier: MIT */
/*
 * magpie_latency.c - ours: a round trip to a thread, or how late a sleep of 1 ms ends
 *
 *      magpie_latency offload|sleep SECONDS WORKERS
 *
 * One task does it again and again.
 */
#include "io.h"

#include <magpie/async.h>

static struct histogram latency;

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

async(void, offload, (int64_t, end))
{
    for (int64_t begin = now_ns(), now; begin < end; begin = now) {
        await(mag_to_thread(nothing, NULL));
        now = now_ns();
        histogram_add(&latency, now - begin);
    }
    return 0;
}

async(void, sleeper, (int64_t, end))
{
    for (int64_t begin = now_ns(), now; begin < end; begin = now) {
        await(mag_sleep(1 * MAG_MS));
        now = now_ns();
        histogram_add(&latency, now - begin - 1000000);
    }
    return 0;
}

int main(int argc, char **argv)
{
    bool is_sleep = strcmp(argument(argc, argv, 1, "sleep"), "sleep") == 0;
    int64_t end = now_ns() + (int64_t)(atof(argument(argc, argv, 2, "1")) * 1e9);
    struct mag_rt_options options = { .workers = (unsigned)atoi(argument(argc, argv, 3, "1")) };

    checked(is_sleep ? mag_run_with(sleeper(end), NULL, &options)
                     : mag_run_with(offload(end), NULL, &options),
            "run");
    return histogram_print(&latency);
}
