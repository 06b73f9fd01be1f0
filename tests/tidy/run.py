#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tidy: what the architecture stands on, checked by a program.

usage: run.py [SOURCE_DIR [BUILD_DIR]]      CC and CXX name the compilers

 - layers: runtime/ and io/ files include only their own header and strictly lower layers
   (layers.txt; a name with .c or .h is that file alone, a bare name is both);
 - doors: atomics, the heap, system calls, clocks, errno and thread-locals are named only in
   their own files;
 - barriers: each mag_fence_seq() is labelled "/* (A) pairs with file.c (B) */", on its line or
   in the comment before it, and file.c has a fence that is labelled (B);
 - headers: each public header compiles alone, as C11 and (async.h apart) as C++11;
 - uses: each public function and keyword is used by an example and by a test.

Exit status 0 if all hold; otherwise one line for each that does not.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
errors = []


def complain(path, line, text):
    errors.append(f"{path.relative_to(root)}:{line}: {text}")


def without_comments(text):
    """The same text, lines kept, with comments (and the insides of strings) blanked."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''

    def blank(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[0]
        return re.sub(r"[^\n]", " ", s)

    return re.sub(pattern, blank, text, flags=re.S)


sources = sorted(p for d in ("runtime", "io") for p in (root / d).glob("*.[ch]"))
text_of = {p: p.read_text() for p in sources}

# ---- layers ----------------------------------------------------------------------------

rank = {}
for line in (root / "tests/tidy/layers.txt").read_text().splitlines():
    words = line.split("#")[0].split()
    if not words:
        continue
    number = tuple(int(n) for n in words[0].split("."))
    for name in words[1:]:
        rank[name] = number


def rank_of(name):
    return rank.get(name, rank.get(Path(name).stem))


for path in sources:
    mine = rank_of(path.name)
    if mine is None:
        complain(path, 1, "is in no layer; give it a line in tests/tidy/layers.txt")
        continue
    for n, line in enumerate(text_of[path].splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m or m.group(1) == path.stem + ".h":
            continue
        theirs = rank_of(m.group(1))
        if theirs is None:
            complain(path, n, f'"{m.group(1)}" is in no layer')
        elif theirs >= mine:
            complain(path, n, f'layer {".".join(map(str, mine))} includes "{m.group(1)}" '
                              f'of layer {".".join(map(str, theirs))}')

# ---- doors -----------------------------------------------------------------------------


def calls(*names):
    """A call of one of these functions: not a member, not a longer name."""
    return r"(?<![\w.>])(?:" + "|".join(names) + r")\s*\("


# sys_file.c is the part of sys.c that only io/ needs, sys_wait.c what an embedded runtime needs, sys_debug.c reports; symbol.c writes reports only, and
# trace.c prints to a stream that the user hands it.
SYS = {"sys.c", "sys_poll.c", "sys_file.c", "sys_wait.c", "sys_debug.c", "sys_process.c", "sys_name.c", "sys_net.c", "sys_listen.c"}

DOORS = [
    # what                  files that may                            what it looks like
    ("an atomic builtin", {"atomic.h"}, r"\b__(?:atomic|sync)_\w+|stdatomic|\b_Atomic\b"),
    ("the heap", {"mem.c"},
     calls("malloc", "calloc", "realloc", "free", "strdup", "strndup", "posix_memalign",
           "aligned_alloc", "mallocx", "rallocx", "dallocx", "asprintf", "getline")),
    ("a system call", SYS | {"symbol.c", "trace.c"},
     calls("syscall", "mmap", "munmap", "madvise", "mprotect", "mincore", "eventfd", "read", "write",
           "close", "open", "openat", "pread", "pwrite", "preadv2?", "pwritev2?", "fstat", "stat",
           "statx", "fopen", "fprintf", "printf", "puts", "perror", "opendir", "readdir", "closedir",
           "pthread_create", "pthread_join", "pthread_sigmask", "pthread_kill", "sigaction",
           "sigaltstack", "sched_yield", "sched_[gs]etaffinity", "gettid", "getpid", "kill", "tgkill",
           "getrlimit", "setrlimit", "nanosleep", "clock_nanosleep", "usleep", "sleep", "getenv",
           "secure_getenv", "sysconf", "pipe2?", "dup2?", "fork", "posix_spawnp?", "waitpid", "poll",
           "epoll_\\w+", "membarrier")),
    ("a clock", {"clock.c", "clock.h"}, calls("clock_gettime", "gettimeofday", "time", "__builtin_ia32_rdtsc")),
    ("randomness", SYS | {"rand.h"}, calls("getrandom", "getentropy", "rand", "random", "drand48")),
    ("errno", SYS, r"\berrno\b(?!\.h)"),
    ("a C assert", set(), calls("assert")),
]

for path in sources:
    code = without_comments(text_of[path])
    for n, line in enumerate(code.splitlines(), 1):
        if re.match(r"\s*#\s*include", line):
            continue
        for what, allowed, pattern in DOORS:
            m = re.search(pattern, line)
            if m and path.name not in allowed:
                complain(path, n, f"{what} ({m.group(0).rstrip('( ')}) outside of "
                                  f"{' '.join(sorted(allowed)) or 'tests'}")

# Public headers are inline halves of the library; fork.h alone may name atomics.
public = sorted((root / "include").rglob("*.h"))
for path in public:
    for n, line in enumerate(without_comments(path.read_text()).splitlines(), 1):
        if re.search(DOORS[0][2], line) and path.name != "fork.h":
            complain(path, n, "an atomic builtin outside of fork.h")

# Thread-locals: all in one file, behind the accessor that the compiler cannot see through.
users = [(p, n) for p in sources
         for n, line in enumerate(without_comments(text_of[p]).splitlines(), 1)
         if re.search(r"\b(?:__thread|_Thread_local)\b", line)]
if len({p for p, _ in users}) > 1:
    for p, n in users:
        complain(p, n, "thread-locals are in more than one file")

# ---- barriers ----------------------------------------------------------------------------

LABEL = re.compile(r"\(([A-Z]\d?)\)\s+pairs\s+with\s+(?:([\w./]+\.[ch])\s+)?\(([A-Z]\d?)\)")
fences = {}  # (file name, label) -> (path, line, other file, other label)

for path in sources + public:
    lines = path.read_text().splitlines()
    code = without_comments("\n".join(lines)).splitlines()
    for n, line in enumerate(code):
        if "mag_fence_seq()" not in line or path.name == "atomic.h":
            continue
        # The comment on the line, or the whole comment that ends just above it.
        start = n
        while start > 0 and not code[start - 1].strip() and lines[start - 1].strip():
            start -= 1
        m = LABEL.search(re.sub(r"\s*\n\s*\*?\s*", " ", "\n".join(lines[start:n + 1])))
        if m:
            fences[path.name, m.group(1)] = (path, n + 1, m.group(2) or path.name, m.group(3))
        else:
            complain(path, n + 1, "mag_fence_seq() without /* (A) pairs with file.c (B) */")

all_texts = {p.name: p.read_text() for p in sources + public}
for (name, label), (path, n, other, other_label) in fences.items():
    # The other side may be a fence or an operation that is one (xchg); its comment says so.
    back = all_texts.get(Path(other).name, "")
    wanted = re.compile(rf"\({other_label}\)\s+pairs\s+with\s+(?:[\w./]+\.[ch]\s+)?\({label}\)")
    if not wanted.search(re.sub(r"\s*\n\s*\*?\s*", " ", back)):
        complain(path, n, f"({label}) pairs with {other} ({other_label}), where nothing says "
                          f"({other_label}) pairs with ({label})")

# ---- public headers -----------------------------------------------------------------------

CC = os.environ.get("CC") or "cc"
CXX = os.environ.get("CXX") or "c++"


def compiles(path, compiler, language, *flags):
    """Includes it twice, so that its guard is tried too."""
    name = path.relative_to(root / "include")
    run = subprocess.run([compiler, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags,
                          f"-I{root}/include", "-x", language, "-"],
                         input=f"#include <{name}>\n#include <{name}>\n", text=True,
                         capture_output=True)
    if run.returncode:
        complain(path, 1, f"does not compile alone ({' '.join(flags)}):\n" + run.stderr.rstrip())


for path in public:
    if path.name == "async.h":
        compiles(path, CC, "c", "-std=gnu11")
    else:
        compiles(path, CC, "c", "-std=c11", "-pedantic")
        compiles(path, CXX, "c++", "-std=c++11")

# ---- uses of what is public -----------------------------------------------------------------

# Names that end in _ are private.
DECLARED = re.compile(r"(?:MAG_API|static inline)\b[^;{}]*?\b(mag_\w*[a-z0-9])\s*\(")
KEYWORD = re.compile(r"^#define ([a-z]\w*)\b", re.M)


def words_of(*globs):
    return {word for g in globs for p in root.glob(g)
            for word in re.findall(r"\w+", without_comments(p.read_text()))}


used_by = {"example": words_of("examples/*.c"), "test": words_of("tests/**/*.[ch]")}
for path in public:
    code = without_comments(path.read_text())
    declared = [(m.group(1), m.start(1)) for m in (KEYWORD if path.name == "async.h" else DECLARED)
                .finditer(code)]
    for name, at in declared:
        for where, words in used_by.items():
            if name not in words:
                complain(path, code.count("\n", 0, at) + 1, f"{name} is used by no {where}")

for e in errors:
    print(e)
print(f"tidy: {len(sources)} files, {len(public)} public headers, {len(fences)} labelled fences, "
      f"{len(errors)} complaints")
sys.exit(1 if errors else 0)
