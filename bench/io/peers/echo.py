#!/usr/bin/python3
# SPDX-License-Identifier: MIT
#
# echo.py - an echo server on asyncio, with or without uvloop: a process per core
#
# usage: echo.py PORT PROCESSES asyncio|uvloop
#
# A protocol, not streams: that is the fastest that asyncio has.
import asyncio
import ctypes
import os
import signal
import socket
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data):
        self.transport.write(data)


async def serve(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, reuse_port=True, backlog=4096)
    await server.serve_forever()


if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.install()
for _ in range(int(sys.argv[2]) - 1):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the first one
        break
asyncio.run(serve(int(sys.argv[1])))
