#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh SOURCE BUILD - does bench/io/run measure, write its results, and leave nothing behind?
#
# The shortest run of two benches, without what would have to be compiled; the figures mean nothing.
# Then twice more, interrupted and killed in the middle.
set -u
source=${1:?usage: run.sh SOURCE BUILD} build=${2:?usage: run.sh SOURCE BUILD}
if [ ! -x "$build/bench-io/magpie_echo" ]; then
    echo "skipped: the benchmarks were not built"
    exit 77
fi
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then
        echo "ok    $what"
    else
        echo "FAIL  $what"
        failures=$((failures + 1))
    fi
}

bench() {
    exec python3 "$source/bench/io/run" --build "$build" --out "$work" --without go,asyncio "$@" \
        >"$work/out" 2>&1
}

# Processes of this build's programs, and its temporary folders.
nothing_left() {
    local left
    left=$(ls -d "$build"/bench-io/.work-* 2>/dev/null)
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in
        "$(realpath "$build")"/bench-io/*) left="$left $exe" ;;
        esac
    done
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# Until one of this build's programs is at work.
until_it_runs() {
    for i in $(seq 300); do
        nothing_left >/dev/null || break
        sleep 0.1
    done
    sleep 0.5
}

says() { grep -Eq -- "$1" "$work/$2" || { echo "no '$1' in $2:"; cat "$work/$2"; return 1; }; }

well_formed() { python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$1"; }

(bench echo sleep --seconds 0.2 --rounds 1)
check "it ends well" [ $? -eq 0 ]
check "echo was measured" says '^  magpie +[0-9,]+ ' out
check "the hand-written server was measured" says '^  io_uring by hand +[0-9,]+ ' out
check "sleep was measured" says '^sleep: overshoot' out
check "results.md has a row of ours" says '^\| \*\*magpie\*\* \| [0-9]' results.md
check "results.svg is well-formed" well_formed "$work/results.svg"
check "nothing is left behind" nothing_left

bench echo --seconds 5 --rounds 9 &
until_it_runs
kill -TERM $!
wait $!
check "it can be interrupted" [ $? -eq 130 ]
check "and leaves nothing behind" nothing_left

bench echo --seconds 5 --rounds 9 &
until_it_runs
kill -KILL $!
wait $! 2>/dev/null
for i in $(seq 100); do # they are told by the kernel, and may take a moment
    nothing_left >/dev/null && break
    sleep 0.1
done
check "nor when it is killed" nothing_left

python3 "$source/bench/io/run" --build "$build" nonsense >"$work/out" 2>&1
check "a bench that is none is a mistake" [ $? -eq 2 ]

[ $failures -eq 0 ]
