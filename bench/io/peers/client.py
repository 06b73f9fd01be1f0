#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# client.py - so many GETs at a time, of one URL, by httpx on asyncio
#
# usage: client.py URL CONCURRENT
#
# Each is made once to open the connections, and once again, which is what counts: that alone takes
# more than a second.
import asyncio
import sys
import time

import httpx


async def main(url, n):
    limits = httpx.Limits(max_connections=n, max_keepalive_connections=n)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        for _ in range(2):
            begin = time.monotonic()
            responses = await asyncio.gather(*(client.get(url) for _ in range(n)))
            spent = time.monotonic() - begin
            assert all(r.status_code == 200 for r in responses)
    print(f'{{"rate": {n / spent:.0f}}}')


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
