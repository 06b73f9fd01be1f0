#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# latency.py - a round trip to a thread, or how late a sleep of 1 ms ends, on asyncio
#
# usage: latency.py offload|sleep SECONDS asyncio|uvloop
import asyncio
import sys
import time


async def main(what, seconds):
    late = []
    begin = time.perf_counter()
    end = begin + seconds
    while begin < end:
        if what == "sleep":
            await asyncio.sleep(0.001)
        else:
            await asyncio.to_thread(int)
        now = time.perf_counter()
        late.append((now - begin - (0.001 if what == "sleep" else 0)) * 1e6)
        begin = now
    late.sort()
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    print(f'{{"n": {len(late)}, "p50_us": {p50:.2f}, "p99_us": {p99:.2f}}}')


if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.install()
asyncio.run(main(sys.argv[1], float(sys.argv[2])))
