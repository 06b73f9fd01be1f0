# SPDX-License-Identifier: MIT
"""
benches.py - what is measured: for each bench its peers, its load and its tables

A bench is a function that gets the harness.  It makes its tables, names its peers (a name, and
what to start), and says how a peer is measured once.
"""
import json
import os
import re
import shutil
import time

from harness import Skip
from report import OURS


def echo(h):
    """64 bytes there and back, in a closed loop, over 50 and 1,000 connections."""
    threads = len(h.server_cpus)
    peers = {
        OURS: lambda port: [h.program("magpie_echo"), port, threads],
        "magpie, streams": lambda port: [h.program("magpie_echo_stream"), port, threads],
        "io_uring by hand": lambda port: [h.program("uring_server"), port, threads, "echo", "plain"],
        "io_uring by hand, multishot":
            lambda port: [h.program("uring_server"), port, threads, "echo", "multishot"],
        "epoll by hand": lambda port: [h.program("epoll_server"), port, threads],
        "libuv": lambda port: [h.program("uv_server"), port, threads, "echo"],
        "Go": lambda port: [h.go("echo"), port, threads],
        "tokio": lambda port: [h.rust("tokio"), "echo", port, threads],
        "asyncio + uvloop": lambda port: [*h.python("echo", "uvloop"), port, threads, "uvloop"],
        "asyncio": lambda port: [*h.python("echo"), port, threads, "asyncio"],
    }
    tables = {n: h.table("echo", f"echo, 64 B, {n:,} connections", "messages/s",
                         limits=["io_uring by hand", "io_uring by hand, multishot"],
                         goal=1.0) for n in (50, 1000)}

    def measure(name):
        port = h.free_port()
        with h.server(peers[name](port), port) as server:
            for n, table in tables.items():
                table.add(name, h.loaded(server, lambda: h.values(
                    [h.program("echo_load"), port, n, len(h.load_cpus), h.seconds])))

    h.alternate("echo", peers, measure)


def wrk(h, url, connections=64):
    """Requests per second by wrk, which counts whole seconds only."""
    path = h.tool("wrk", "wrk")
    out = h.output([path, "-t", len(h.load_cpus), "-c", connections, "--latency",
                    "-d", f"{max(1, round(h.seconds))}s", url])
    found = dict(re.findall(r"^\s*(99%|Requests/sec:)\s+(\S+)", out, re.M))
    if "Requests/sec:" not in found:
        raise Skip(f"wrk: {out.strip()[-200:]}")
    if re.search(r"Non-2xx|Socket errors", out):
        raise Skip("wrk: " + re.search(r".*(Non-2xx|Socket errors).*", out).group(0).strip())
    unit = {"us": 1, "ms": 1e3, "s": 1e6}
    amount, which = re.fullmatch(r"([\d.]+)(us|ms|s)", found["99%"]).groups()
    return {"rate": float(found["Requests/sec:"]), "p99_us": float(amount) * unit[which]}


def http(h):
    """GET / of 13 bytes over 64 kept connections: one at a time, and 16 at a time.

    wrk measures the first once more: it is well known, but has more to do for a request than the best
    of these servers, so its figures lie closer together.
    """
    threads = len(h.server_cpus)
    peers = {
        OURS: lambda port: [h.program("magpie_http"), port, threads],
        "magpie, plain calls": lambda port: [h.program("magpie_http_plain"), port, threads],
        "io_uring by hand": lambda port: [h.program("uring_server"), port, threads, "http", "plain"],
        "io_uring by hand, multishot":
            lambda port: [h.program("uring_server"), port, threads, "http", "multishot"],
        "nginx": lambda port: h.nginx(port, threads),
        "libuv + llhttp": lambda port: [h.program("uv_server"), port, threads, "http"],
        "hyper": lambda port: [h.rust("hyper"), port, threads],
        "Go": lambda port: [h.go("http"), port, threads],
    }
    limits = ["io_uring by hand", "io_uring by hand, multishot"]
    alone = h.table("http", "HTTP, keep-alive, 64 connections", "requests/s", limits=limits, goal=0.9)
    by_wrk = h.table("http", "HTTP, keep-alive, 64 connections, wrk", "requests/s", limits=limits,
                     peer_goal=None)
    piped = h.table("http", "HTTP, pipelined by 16, 64 connections", "requests/s", limits=limits, goal=0.9)

    def load(server, port, pipeline):
        return h.loaded(server, lambda: h.values(
            [h.program("http_load"), port, 64, len(h.load_cpus), h.seconds, pipeline]))

    def measure(name):
        port = h.free_port()
        with h.server(peers[name](port), port) as server:
            alone.add(name, load(server, port, 1))
            piped.add(name, load(server, port, 16))
            if has_wrk:
                by_wrk.add(name, h.loaded(server, lambda: wrk(h, f"http://127.0.0.1:{port}/")))

    has_wrk = h.has_tool("wrk", "wrk", "http, by wrk")
    h.alternate("http", peers, measure)


FILE_BYTES = 256 << 20


def make_file(h):
    """A file with real bytes on the disk, all of them in the page cache as well."""
    path = os.path.join(h.work, "file")
    if not os.path.exists(path):
        h.progress("writing a file of 256 MiB")
        room = os.statvfs(h.work)
        if room.f_bavail * room.f_frsize < 2 * FILE_BYTES:
            raise Skip("no room for a file of 256 MiB")
        with open(path, "wb") as f:
            for _ in range(FILE_BYTES >> 22):
                f.write(os.urandom(1 << 22))
            f.flush()
            os.fsync(f.fileno())
    with open(path, "rb") as f:
        while f.read(1 << 22):
            pass
    return path


def takes_direct(path):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        return True
    except OSError:
        return False


FILE_SHARE = 0.7  # there are many of these, and they waver less than a network's: for so much of --seconds


def fio(h, path, depth, how, engine, jobs):
    """Reads per second by fio; a thread for each job, which share the depth."""
    out = h.output([h.tool("fio", "fio"), "--name=r", f"--filename={path}", "--readonly", "--rw=randread",
                    "--bs=4k", "--thread", f"--numjobs={jobs}", f"--iodepth={depth // jobs}",
                    f"--ioengine={engine}", f"--direct={int(how == 'direct')}", "--invalidate=0",
                    "--time_based", f"--runtime={int(h.seconds * FILE_SHARE * 1000)}ms", "--ramp_time=200ms",
                    "--norandommap", "--randrepeat=0", "--gtod_reduce=1", "--group_reporting",
                    "--output-format=json"], cpus=h.cpus, cwd=h.work)
    return {"rate": json.loads(out[out.index("{"):])["jobs"][0]["read"]["iops"]}


def file(h):
    """Random reads of 4 KiB, 1, 32 and 128 at a time, from the page cache and from the disk."""
    path = make_file(h)
    n, seconds = len(h.cpus), h.seconds * FILE_SHARE

    def uv(depth, how):
        # Reads from the cache are quickest with a thread per core, those from the disk with many.
        size = n if how == "cached" else max(4, min(depth, 128))
        return h.values([h.program("uv_file"), path, depth, seconds, how], cpus=h.cpus,
                        env={"UV_THREADPOOL_SIZE": str(size)})

    peers = {
        OURS: lambda d, how: h.values([h.program("magpie_file"), path, d, seconds, n, how], cpus=h.cpus),
        "fio, io_uring": lambda d, how: fio(h, path, d, how, "io_uring", min(d, n)),
        "fio, pread in threads": lambda d, how: fio(h, path, d, how, "psync", d),
        "libuv": uv,
        "Go": lambda d, how: h.values([h.go("file"), path, d, seconds, how], cpus=h.cpus),
    }
    tables = {(d, how): h.table("file", f"file, random reads of 4 KiB, {name}, {d} at a time", "reads/s",
                                limits=["fio, io_uring"], goal=0.95, peer_goal=None)
              for how, name in (("cached", "cached"), ("direct", "O_DIRECT")) for d in (1, 32, 128)}
    if not takes_direct(path):
        h.skipped["file", "O_DIRECT"] = "this file system does not have it"
        tables = {k: t for k, t in tables.items() if k[1] == "cached"}

    def measure(name):
        for (depth, how), table in tables.items():
            table.add(name, peers[name](depth, how))

    h.alternate("file", peers, measure)
    os.unlink(path)


def files(h):
    """10,000 files of 1 KiB: read whole (cached, from a disk and from memory), and written to where
    there are none.

    Written only on a file system in memory: what a disk's journal does at the moment differs more
    from one run to the next than all peers from each other.
    """
    folders = {"disk": os.path.join(h.work, "files"),
               "tmpfs": os.path.join(h.memory_folder(), "files")}
    n = len(h.cpus)

    def arguments(how, count=10000):
        where, how = how
        return [folders[where], count, 1024, h.seconds, n, how]

    def tokio(how):
        folder, count, length, seconds, threads, what = arguments(how)
        return [h.rust("tokio"), "files", folder, threads, count, length, seconds, what]

    peers = {
        OURS: lambda how: [h.program("magpie_files"), *arguments(how)],
        "threads in C": lambda how: [h.program("thread_files"), *arguments(how)],
        "libuv": lambda how: [h.program("uv_files"), *arguments(how)],
        "Go": lambda how: [h.go("files"), *arguments(how)],
        "tokio": tokio,
        "aiofiles": lambda how: [*h.python("files", "aiofiles"), *arguments(how, 1000)],
    }
    tables = {how: h.table("files", f"10,000 files of 1 KiB, {what}", "files/s")
              for how, what in ((("disk", "read"), "read, cached, from a disk"),
                                (("tmpfs", "read"), "read, tmpfs"),
                                (("tmpfs", "write"), "created and written, tmpfs"))}
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
        for i in range(10000):
            with open(os.path.join(folder, f"{i:05d}"), "wb") as f:
                f.write(bytes(1024))

    def measure(name):
        for how, table in tables.items():
            table.add(name, h.values(peers[name](how), cpus=h.cpus,
                                     env={"UV_THREADPOOL_SIZE": str(max(4, n))}))

    h.alternate("files", peers, measure)
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


def latency(h, what, title, target):
    peers = {
        OURS: lambda: [h.program("magpie_latency"), what, h.seconds, len(h.cpus)],
        "libuv": lambda: [h.program("uv_latency"), what, h.seconds],
        "Go": lambda: [h.go("latency"), what, h.seconds],
        "tokio": lambda: [h.rust("tokio"), what, h.seconds, len(h.cpus)],
        "asyncio + uvloop": lambda: [*h.python("latency", "uvloop"), what, h.seconds, "uvloop"],
        "asyncio": lambda: [*h.python("latency"), what, h.seconds, "asyncio"],
    }
    table = h.table(what, title, "us (p50)", key="p50_us", less_is_better=True, target=target)
    h.alternate(what, peers, lambda name: table.add(name, h.values(peers[name](), cpus=h.cpus)))


def offload(h):
    """A call on another thread, there and back."""
    latency(h, "offload", "offload: a call on a thread and back", 5)


def sleep(h):
    """How late a sleep of 1 ms ends."""
    latency(h, "sleep", "sleep: overshoot of 1 ms", 80)


def client(h):
    """1,000 GETs at a time from nginx, which has one CPU; the client has the others."""
    cpus = h.cpus[1:] or h.cpus
    n, concurrent = len(cpus), 1000

    def curl(url):
        count = int(15000 * max(h.seconds, 0.2))
        argv = [h.tool("curl", "curl"), "-s", "--parallel", "--parallel-max", "300", "--parallel-immediate",
                "-o", "/dev/null", "--fail", f"{url}?[1-{count}]"]
        begin = time.monotonic()
        h.output(argv, cpus=cpus)
        return {"rate": count / (time.monotonic() - begin)}

    peers = {
        OURS: lambda url: [h.program("magpie_client"), url, concurrent, h.seconds, n],
        "libcurl multi, one thread": lambda url: [h.program("curl_multi"), url, concurrent, h.seconds],
        "curl --parallel (300)": curl,
        "Go": lambda url: [h.go("client"), url, concurrent, h.seconds, n],
        "httpx": lambda url: [*h.python("client", "httpx"), url, concurrent],
    }
    table = h.table("client", f"client, {concurrent:,} GETs at a time from nginx", "requests/s",
                    goals={"libcurl multi, one thread": 3, "httpx": 50})
    port = h.free_port()

    def measure(name):
        url = f"http://127.0.0.1:{port}/"
        table.add(name, curl(url) if peers[name] is curl else h.values(peers[name](url), cpus=cpus))

    with h.server(h.nginx(port, 1), port, cpus=h.cpus[:1]):
        h.alternate("client", peers, measure)


def certificate(h):
    """A certificate for localhost that nobody vouches for: the prefix of its two files."""
    prefix = os.path.join(h.work, "localhost")
    if not os.path.exists(prefix + ".crt"):
        h.output([h.tool("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
                  "ec_paramgen_curve:P-256", "-nodes", "-keyout", prefix + ".key", "-out", prefix + ".crt",
                  "-days", "2", "-subj", "/CN=localhost"])
    return prefix


def tls(h):
    """Echo and HTTPS over TLS 1.3, over 50 and 64 connections that have been made before."""
    threads, prefix = len(h.server_cpus), certificate(h)
    echoes = {
        OURS: lambda port: [h.program("magpie_tls_echo"), port, threads, prefix],
        "epoll + OpenSSL by hand": lambda port: [h.program("tls_server"), port, threads, prefix],
        "Go": lambda port: [h.go("echo"), port, threads, prefix],
    }
    servers = {
        OURS: lambda port: [h.program("magpie_http"), port, threads, prefix],
        "nginx": lambda port: h.nginx(port, threads, prefix),
        "Go": lambda port: [h.go("http"), port, threads, prefix],
    }
    echo_table = h.table("tls", "TLS echo, 64 B, 50 connections", "messages/s",
                         limits=["epoll + OpenSSL by hand"], goal=0.9)
    http_table = h.table("tls", "HTTPS, keep-alive, 64 connections", "requests/s", goals={"nginx": 0.9})

    def measure_echo(name):
        port = h.free_port()
        with h.server(echoes[name](port), port) as server:
            echo_table.add(name, h.loaded(server, lambda: h.values(
                [h.program("tls_load"), port, 50, len(h.load_cpus), h.seconds])))

    def measure_http(name):
        port = h.free_port()
        with h.server(servers[name](port), port) as server:
            http_table.add(name, h.loaded(server, lambda: wrk(h, f"https://127.0.0.1:{port}/")))

    h.alternate("tls echo", echoes, measure_echo)
    if h.has_tool("wrk", "wrk", "https"):
        h.alternate("https", servers, measure_http)


BENCHES = {"echo": echo, "http": http, "file": file, "files": files, "client": client, "offload": offload,
           "sleep": sleep, "tls": tls}
