#!/bin/bash
# SPDX-License-Identifier: MIT
#
# examples: each example runs, ends as it should, and says what it should.
#
# usage: run.sh SOURCE_DIR BUILD_DIR        CC names the compiler
#
# treesum has a test of its own (tests/treesum).  The times of the tutorial's exercise are
# checked with room for a busy machine; what they should be is in the README.
set -u
source=${1:?usage: run.sh SOURCE BUILD} build=${2:?usage: run.sh SOURCE BUILD}
examples=$build/examples
if [ ! -d "$examples" ]; then
    echo "skipped: the examples were not built"
    exit 77
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
tried=' treesum '

# expect STATUS LINE PROGRAM ARGUMENT...    LINE: a regular expression for a whole line of out
expect() {
    local want=$1 line=$2 name=$3 status
    shift 3
    tried="$tried$name "
    timeout 60 "$examples/$name" "$@" >out 2>err </dev/null
    status=$?
    if [ $status -eq "$want" ] && { [ -z "$line" ] || grep -Eqx -- "$line" out; }; then
        printf 'ok    %.70s\n' "$name $*"
        return 0
    fi
    printf 'FAIL  %.70s: ' "$name $*"
    echo "status $status instead of $want, or no line '$line'"
    sed 's/^/      out: /' out
    sed 's/^/      err: /' err
    failures=$((failures + 1))
    return 1
}

says() { # PATTERN: about the last program's standard error
    grep -Eq -- "$1" err && return
    echo "FAIL  no '$1' on standard error:"
    cat err
    failures=$((failures + 1))
}

# ---- fundamentals: each section by itself ------------------------------------------------

expect 0 'usage: fundamentals \[SECTION\]' fundamentals --help
expect 2 '' fundamentals nonsense
expect 0 'Hello, World!' fundamentals hello
expect 0 'Result: 42' fundamentals lifecycle
expect 0 "The future's result: 42" fundamentals awaitables
expect 0 'Results: OK, EIO, OK' fundamentals patterns
expect 0 'Releasing resource db...' fundamentals with_resource
expect 0 'Hello from a file!' fundamentals files
expect 0 '  at examples/fundamentals.c:[0-9]+ in open_missing.*' fundamentals errors
expect 0 'and returns EDEADLK' fundamentals mistakes
says "coroutine 'small_step' was never awaited"
expect 0 'Sequential time: 3\.[0-9]+s' fundamentals exercise
grep -Eqx 'Concurrent time: 1\.[5-9][0-9]s' out || { cat out; failures=$((failures + 1)); }

# ---- core ---------------------------------------------------------------------------------

expect 0 'usage: core \[SECTION\]' core --help
expect 2 '' core nonsense
expect 0 'square\(7\) = 49 \(OK\)' core
for line in 'in place: 2, beside: 4, again: EALREADY' 'sleep of -1 ns: EINVAL, the others: OK' \
    '42 \(OK\) after at least 10 ms: yes' 'the other: ETIMEDOUT, Connection timed out' \
    'a tick or more before the cancel: yes' 'configure: ENOENT; the places it passed:' \
    '  at examples/core.c:[0-9]+ in read_config'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  core does not say '$line'"
    failures=$((failures + 1))
done
expect 0 '' core errors
# Its banner says that this is C11 and nothing else.
${CC:-cc} -std=c11 -pedantic -Wall -Wextra -Werror -D_DEFAULT_SOURCE -fsyntax-only \
    -I"$source/include" "$source/examples/core.c" || failures=$((failures + 1))

# ---- threads, forkjoin ---------------------------------------------------------------------

expect 0 'usage: threads \[N\]' threads --help
expect 2 '' threads -5
expect 0 'primes below 200000: 17984, in 48 entries' threads 200000
expect 0 'a runtime that is too big: EINVAL: .* at most 256 are possible' threads 0
expect 0 'usage: forkjoin \[N\]' forkjoin --help
expect 2 '' forkjoin 0
expect 0 '300000 numbers sorted, sum [0-9]+' forkjoin 300000
expect 0 '1 numbers sorted, sum 723471715' forkjoin 1

# ---- cp --------------------------------------------------------------------------------------

head -c 5000001 /dev/urandom >from
expect 0 'usage: cp \[-j N\] \[--verify\] FROM TO' cp --help
expect 2 '' cp from
expect 2 '' cp -j 0 from to
expect 0 '5000001 bytes in [0-9.]+ s, compared' cp --verify from to && cmp from to
expect 0 '5000001 bytes in [0-9.]+ s' cp -j 1 from to && cmp from to
: >empty
expect 0 '0 bytes in [0-9.]+ s, compared' cp --verify empty to && cmp empty to
expect 0 '[1-9][0-9]* bytes in [0-9.]+ s' cp /proc/self/status to
expect 1 '' cp from from
says EINVAL
expect 1 '' cp /no/such/file to
says 'ENOENT'
expect 1 '' cp from /dev/full
says 'ENOSPC'
[ "$(wc -c <from)" = 5000001 ] || { echo 'FAIL  from has changed'; failures=$((failures + 1)); }

# ---- first -----------------------------------------------------------------------------------

mkdir many
for i in $(seq 300); do echo "line of $i." >many/$i; done
expect 0 'usage: first TEXT FILE\.\.\.' first --help
expect 2 '' first text
expect 0 'many/217' first 'line of 217.' many/*
expect 0 'many/[0-9]+' first 'line of' many/* # many find it, one is told
expect 1 '' first 'line of 301' many/* /no/such/file
says 'first: /no/such/file: No such file or directory'
says 'first: no file contains it'

# ---- is any left out? --------------------------------------------------------------------------

for file in "$source"/examples/*.c; do
    name=$(basename "$file" .c)
    [ -x "$examples/$name" ] || continue # treesum, without libcrypto
    case $tried in
    *" $name "*) ;;
    *)
        echo "FAIL  $name has no test here"
        failures=$((failures + 1))
        ;;
    esac
done

[ $failures -eq 0 ] && echo 'examples: all well' || echo "examples: $failures failed"
[ $failures -eq 0 ]
