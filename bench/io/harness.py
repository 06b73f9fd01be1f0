# SPDX-License-Identifier: MIT
"""
harness.py - processes, CPUs, turns and repetitions of the I/O benchmarks

A bench has peers, one of them ours, and tables.  In each round every peer is measured once, one
after the other, and each round begins with another one; so what the machine does meanwhile (another
guest, a warmer core) hits all of them alike.  A server is a process of its own for each turn,
on its own CPUs; the load runs on the others.

Nothing outlives the run: each process gets a group of its own, which is killed when its turn is
over, however that ends; if this program is killed itself, its guard does that, and removes its folders.  A peer that cannot run
says so once (Skip) and is left out.
"""
import contextlib
import ctypes
import glob
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from report import OURS, Table

PR_SET_PDEATHSIG = 1
START_LIMIT_S = 10
CRATES = os.environ.get("CRATES", "/usr/share/cargo/registry")  # where librust-*-dev put them
CRATES_OF = {"tokio": {"tokio": "1"}, "hyper": {"hyper": "0.14", "tokio": "1", "socket2": "0.4"}}
FEATURES = {"socket2": "all"}
libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """Why a peer, or a whole bench, cannot be measured here."""


def python3():
    """Debian's, whose packages the peers come from."""
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def divide(cpus, n_servers=0):
    """The CPUs of servers and those of loads: a half each, unless told otherwise."""
    n = min(n_servers or len(cpus) // 2, len(cpus) - 1) or 1
    return cpus[:n], cpus[n:] or cpus


def share_in_use(seconds=0.5):
    """Which share of the machine's CPU time goes to others at the moment."""
    def times():
        with open("/proc/stat") as f:
            field = [int(n) for n in f.readline().split()[1:9]]
        return sum(field), field[3] + field[4]  # all, idle

    all_before, idle_before = times()
    time.sleep(seconds)
    all_after, idle_after = times()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


class Guard:
    """A process that ends what this one has left behind, even when it was killed.

    It reads what is running and which folders are there; at the end of the pipe, however that came, it
    kills the groups that still run and removes the folders.
    """

    def __init__(self):
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.close(write_end)
            os.setsid()
            self.watch(os.fdopen(read_end))
            os._exit(0)
        os.close(read_end)
        self.pipe = os.fdopen(write_end, "w")

    def tell(self, what, who):
        """"+" or "-" and a process group, "folder" and its path."""
        self.pipe.write(f"{what} {who}\n")
        self.pipe.flush()

    def close(self):
        self.pipe.close()
        with contextlib.suppress(ChildProcessError):
            os.wait()

    @staticmethod
    def watch(lines):
        groups, folders = set(), []
        for line in lines:
            what, _, who = line.rstrip("\n").partition(" ")
            if what == "folder":
                folders.append(who)
            else:
                (groups.add if what == "+" else groups.discard)(int(who))
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


class Failed(Skip):
    """The same, of what is here and should have worked."""


class Process:
    """A child in a group of its own, on the CPUs given."""

    def __init__(self, argv, cpus, env=None, stdout=subprocess.DEVNULL, cwd=None):
        parent = os.getpid()

        def prepare():
            os.sched_setaffinity(0, cpus)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self.name = os.path.basename(argv[0])
        self.errors = tempfile.TemporaryFile("w+")
        self.popen = subprocess.Popen(argv, stdout=stdout, stderr=self.errors, cwd=cwd,
                                      stdin=subprocess.DEVNULL, start_new_session=True,
                                      env={**os.environ, **(env or {})}, preexec_fn=prepare)

    def said(self):
        self.errors.seek(0)
        return self.errors.read().strip()[-500:]

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()
        self.errors.close()

    def cpu_seconds(self):
        """What all processes of the group have used so far."""
        ticks = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/stat") as stat:
                    field = stat.read().rpartition(")")[2].split()
                if int(field[2]) == self.popen.pid:
                    ticks += int(field[11]) + int(field[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Harness:
    def __init__(self, source, build, seconds, rounds, without, n_server_cpus=0):
        self.source, self.build = source, build
        self.seconds, self.rounds, self.without = seconds, rounds, without
        self.cpus = sorted(os.sched_getaffinity(0))
        self.server_cpus, self.load_cpus = divide(self.cpus, n_server_cpus)
        self.tables, self.running, self.skipped = [], [], {}
        self.others, self.n_failed = share_in_use(), 0
        self.guard = Guard()
        self.memory = None
        self.work = self.folder(".work-", build)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def close(self):
        for process in list(self.running):
            process.kill()
        self.guard.close()

    def folder(self, prefix, parent):
        """A temporary folder, which is removed at the end."""
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        self.guard.tell("folder", path)
        return path

    def memory_folder(self):
        """A folder in memory (tmpfs), where there is one."""
        if self.memory is None and os.access("/dev/shm", os.W_OK):
            self.memory = self.folder("magpie-bench-", "/dev/shm")
        return self.memory or self.work

    # ---- programs ------------------------------------------------------------------------

    def program(self, name):
        """One of ours, or a peer in C, which CMake has built."""
        path = os.path.join(self.build, name)
        if not os.path.exists(path):
            raise Skip(f"{name} was not built here")
        return path

    def tool(self, name, package):
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
        if not path:
            raise Skip(f"no {name}: it is in Debian's {package}")
        return path

    def has_tool(self, name, package, bench):
        """The same for a load: without it, its part of the bench is left out, with a word."""
        try:
            return bool(self.tool(name, package))
        except Skip as why:
            self.skipped[bench, "all of it"] = str(why)
            return False

    def go(self, name):
        """A peer in Go; it is compiled when it is wanted for the first time."""
        source = os.path.join(self.source, "peers", name + ".go")
        path = os.path.join(self.build, "go", name)
        if os.path.exists(path) and os.path.getmtime(path) > os.path.getmtime(source):
            return path
        compiler = self.tool("go", "golang-go")
        self.progress(f"compiling {name}.go")
        env = {"GO111MODULE": "off", "GOCACHE": os.path.join(self.build, "go", "cache"),
               "GOPATH": os.path.join(self.build, "go", "path"), "GOFLAGS": ""}
        done = subprocess.run([compiler, "build", "-o", path, source], env={**os.environ, **env},
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"{name}.go does not compile: {done.stderr.strip()[:300]}")
        return path

    def rust(self, name):
        """A peer in Rust, from the crates that Debian packages, without a network."""
        source = os.path.join(self.source, "peers", name + ".rs")
        folder = os.path.join(self.build, "rust", name)
        path = os.path.join(folder, "target", "release", name)
        if os.path.exists(path) and os.path.getmtime(path) > os.path.getmtime(source):
            return path
        for crate, version in CRATES_OF[name].items():
            if not glob.glob(f"{CRATES}/{crate}-{version}.*"):
                raise Skip(f"no {crate}: it is in Debian's librust-{crate}-dev")
        crates = "".join(f'{crate} = {{ version = "{version}", features = ["{FEATURES.get(crate, "full")}"] }}\n'
                         for crate, version in CRATES_OF[name].items())
        cargo = self.tool("cargo", "cargo")
        self.progress(f"compiling {name}.rs")
        os.makedirs(os.path.join(folder, ".cargo"), exist_ok=True)
        with open(os.path.join(folder, ".cargo", "config.toml"), "w") as f:
            f.write(f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{CRATES}"\n')
        with open(os.path.join(folder, "Cargo.toml"), "w") as f:
            f.write(f'[package]\nname = "{name}-peer"\nversion = "1.0.0"\nedition = "2021"\n'
                    f'[[bin]]\nname = "{name}"\npath = "{source}"\n'
                    f'[dependencies]\n{crates}')
        done = subprocess.run([cargo, "build", "--release", "--offline", "--quiet"], cwd=folder,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"{name}.rs does not compile: {done.stderr.strip()[-300:]}")
        return path

    def python(self, name, *modules):
        for module in modules:
            if subprocess.run([python3(), "-c", f"import {module}"], capture_output=True).returncode:
                raise Skip(f"no {module}: it is in Debian's python3-{module}")
        return [python3(), "-B", os.path.join(self.source, "peers", name + ".py")]

    # ---- running them --------------------------------------------------------------------

    def start(self, argv, cpus, **options):
        process = Process(list(map(str, argv)), cpus, **options)
        self.guard.tell("+", process.popen.pid)
        self.running.append(process)
        return process

    def stop(self, process):
        self.running.remove(process)
        process.kill()
        self.guard.tell("-", process.popen.pid)

    @contextlib.contextmanager
    def server(self, argv, port, cpus=None, env=None):
        """A server, as soon as it accepts connections; gone at the end of the block."""
        process = self.start(argv, cpus or self.server_cpus, env=env)
        try:
            self.await_port(process, port)
            yield process
        finally:
            self.stop(process)

    def await_port(self, process, port):
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            if process.popen.poll() is not None:
                raise Failed(f"{process.name} ended at once: {process.said() or 'without a word'}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            time.sleep(0.02)
        raise Failed(f"{process.name} did not listen on port {port} within {START_LIMIT_S} s")

    def output(self, argv, cpus=None, limit_s=None, env=None, cwd=None):
        """What a program that measures writes to standard output."""
        process = self.start(argv, cpus or self.load_cpus, stdout=subprocess.PIPE, env=env, cwd=cwd)
        try:
            out, _ = process.popen.communicate(timeout=limit_s or 30 + 5 * self.seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{process.name} did not end in time") from None
        else:
            if process.popen.returncode != 0:
                raise Failed(f"{process.name} failed: {process.said() or out.decode()[-300:]}")
            return out.decode()
        finally:
            self.stop(process)

    def values(self, argv, **options):
        """The same, of a program whose last line is one JSON object."""
        lines = self.output(argv, **options).strip().splitlines()
        return json.loads(lines[-1]) if lines else {}

    def loaded(self, server, measure):
        """What measure() answers, and how many microseconds of CPU one operation cost the server."""
        before, since = server.cpu_seconds(), time.monotonic()
        value = measure()
        share = (server.cpu_seconds() - before) / (time.monotonic() - since)
        if value.get("rate"):
            value["cpu_us"] = share * 1e6 / value["rate"]
        return value

    def free_port(self):
        """A port that nobody listens on."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def nginx(self, port, workers, tls=None):
        """nginx, as a process group of its own, with nothing written anywhere but to its own folder."""
        folder = tempfile.mkdtemp(prefix="nginx-", dir=self.work)
        secure = f"ssl_certificate {tls}.crt; ssl_certificate_key {tls}.key;" if tls else ""
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(os.path.join(folder, "conf"), "w") as conf:
            conf.write(f"""
                daemon off; pid {folder}/pid; error_log stderr error;
                worker_processes {workers}; worker_rlimit_nofile 10000;
                events {{ worker_connections 4096; multi_accept on; }}
                http {{
                    access_log off; {temporary}
                    keepalive_requests 1000000000; keepalive_timeout 60; tcp_nodelay on;
                    server {{
                        listen 127.0.0.1:{port} reuseport backlog=4096 {"ssl" if tls else ""};
                        {secure}
                        location / {{ default_type text/plain; return 200 "Hello, World!"; }}
                    }}
                }}""")
        return [self.tool("nginx", "nginx-light"), "-p", folder, "-c", os.path.join(folder, "conf"),
                "-e", "stderr"]

    # ---- turns ---------------------------------------------------------------------------

    def table(self, *args, **options):
        table = Table(*args, **options)
        self.tables.append(table)
        return table

    def alternate(self, bench, peers, measure):
        """measure(name) for each peer in each round; a Skip takes the peer out."""
        names = [n for n in peers if not any(w in n.lower() for w in self.without)]
        for k in range(self.rounds):
            for name in names[k % len(names):] + names[:k % len(names)]:
                if (bench, name) in self.skipped:
                    continue
                self.progress(f"{bench}: round {k + 1} of {self.rounds}, {name}")
                try:
                    measure(name)
                except Skip as why:
                    self.skipped[bench, name] = str(why)
                    self.n_failed += isinstance(why, Failed) and name.startswith(OURS)
        self.progress("")

    def progress(self, text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)
