#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# files.py - many small files, read or written whole with aiofiles: 64 tasks
#
# usage: files.py DIR N BYTES SECONDS - read|write
import asyncio
import os
import sys
import time

import aiofiles

folder, how = sys.argv[1], sys.argv[6]
n, size, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
content = bytes(size)


async def one(i):
    path = f"{folder}/{i:05d}"
    if how == "write":
        async with aiofiles.open(path, "wb") as f:
            await f.write(content)
        return
    async with aiofiles.open(path, "rb") as f:
        assert len(await f.read()) == size


async def run_pass():
    if how == "write":
        for i in range(n):
            if os.path.exists(f"{folder}/{i:05d}"):
                os.unlink(f"{folder}/{i:05d}")
    numbers = iter(range(n))

    async def worker():
        for i in numbers:
            await one(i)

    begin = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(64)))
    return time.monotonic() - begin


async def main():
    await run_pass()
    spent = passes = 0
    while spent < seconds:
        spent += await run_pass()
        passes += 1
    print(f'{{"rate": {n * passes / spent:.0f}}}')


asyncio.run(main())
