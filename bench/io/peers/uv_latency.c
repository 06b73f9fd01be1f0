/* SPDX-License-Identifier: MIT */
/*
 * uv_latency.c - a round trip to a thread, or how late a timer of 1 ms fires, on libuv
 *
 *      uv_latency offload|sleep SECONDS
 *
 * libuv counts whole milliseconds from the time that the loop knows, so its timer may also be early;
 * the loop's time is brought up to date before each.
 */
#include "../io.h"

#include <uv.h>

static struct histogram latency;
static int64_t begin, end;
static uv_work_t work;
static uv_timer_t timer;

static void nothing(uv_work_t *w)
{
    (void)w;
}

static void worked(uv_work_t *w, int status)
{
    int64_t now = now_ns();

    (void)status;
    histogram_add(&latency, now - begin);
    begin = now;
    if (now < end)
        uv_queue_work(w->loop, w, nothing, worked);
}

static void fired(uv_timer_t *t)
{
    int64_t now = now_ns();

    histogram_add(&latency, now - begin - 1000000);
    begin = now;
    uv_update_time(t->loop);
    if (now < end)
        uv_timer_start(t, fired, 1, 0);
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();

    begin = now_ns();
    end = begin + (int64_t)(atof(argument(argc, argv, 2, "1")) * 1e9);
    uv_timer_init(loop, &timer);
    if (strcmp(argument(argc, argv, 1, "sleep"), "sleep") == 0)
        uv_timer_start(&timer, fired, 1, 0);
    else
        uv_queue_work(loop, &work, nothing, worked);
    uv_run(loop, UV_RUN_DEFAULT);
    return histogram_print(&latency);
}
