#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs each Spin model as written (must pass) and with each of its mutations (must fail),
# several at a time, and prints a table.
#
#   run.sh [SOURCE_DIR BUILD_DIR] [FILTER]     FILTER: a regular expression on "model flags"
#
# Exit status: 0 if every expectation holds, 1 if not, 77 if spin or a compiler is missing.
# Needs the Debian packages spin and gcc; a run takes at most 1.5 GB of memory.
set -u

# model  expectation  flags.  "claim" checks the model's ltl formula under weak fairness.
table='
park   pass
park   pass  -DNW=3 -DNB=3 -DNI=0
park   claim -DLIVE -DNI=0
park   fail  -DNO_PFENCE
park   fail  -DNO_WFENCE
park   fail  -DNO_STOPCHK
park   fail  -DNO_INBOXCHK
park   fail  -DLAST_SEARCHER
park   fail  -DRUN_SEARCHING
park   fail  -DNO_SEARCH_AGAIN
park   fail  -DNOT_STICKY
park   fail  -DSTEAL_BELL
deque  pass  -DOLDEST
deque  fail  -DNO_MEMBARRIER
deque  fail  -DNO_GUARD
deque  fail  -DGUARD_BEFORE_BOT
deque  fail  -DNO_LOCK
deque  fail  -DNO_GEN
deque  fail  -DGEN_FIRST
deque  fail  -DSLOW_UNCOUNTED
deque  fail  -DBOT_LATE
deque  fail  -DOLDEST -DOLDEST_UNCOUNTED
op     pass
op     pass  -DLATE_CANCEL
op     pass  -DNO_GEN
op     fail  -DNO_GEN -DLATE_CANCEL
op     fail  -DEARLY_LEAVE
op     fail  -DNO_FORGET
op     fail  -DLOST_STILLBORN
op     fail  -DABANDON_ON_EXIT
wait   pass
wait   claim -DLIVE
wait   fail  -DTWO_WINNERS
wait   fail  -DTWO_POPS
wait   fail  -DDROP_ON_CANCEL
wait   fail  -DTOUCH_AFTER_LOSE
wait   fail  -DLOOK_THEN_LOCK
wait   fail  -DREADY_ON_STACK
mutex  pass
mutex  pass  -DNT=4
mutex  claim -DLIVE
mutex  fail  -DKEEP_TOKEN
mutex  fail  -DLATE_TOKEN
mutex  fail  -DNO_LOOK
mutex  fail  -DALWAYS_STORE
mutex  fail  -DSTORE_LATE
'

here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-gcc}

# One row, in a directory of its own; prints one line.
if [ "${1:-}" = --row ]; then
    model=$2 want=$3
    shift 3
    work=$(mktemp -d "$MODEL_TMP/row.XXXXXX") && cd "$work" || exit 1
    case $want in
    claim) build='-O2 -DNFAIR=8' run='-a -f' ;;
    pass) build='-O2 -DSAFETY' run='' ;;
    fail) build='-O1 -DSAFETY' run='' ;; # ends early: not worth compiling well
    esac
    begin=$(date +%s%N)
    # The verifier ends with an error count, unless it ran out of memory or depth.
    # shellcheck disable=SC2086
    if spin -a "$@" "$here/$model.pml" >log 2>&1 &&
        "$cc" -w $build -DVECTORSZ=2048 -DMEMLIM=2000 -o pan pan.c >>log 2>&1 &&
        ./pan $run -m1000000 -w23 >>log 2>&1 &&
        ! grep -Eq 'max search depth|not reached|out of mem|MEMLIM bound' log
    then
        got=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' log)
        states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' log)
    else
        got='' states=''
    fi
    ms=$((($(date +%s%N) - begin) / 1000000))
    case $want$got in
    pass0 | claim0 | fail[1-9]*) verdict=ok ;;
    *) verdict=WRONG ;;
    esac
    why=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' log | cut -c1-60)
    [ -n "$got" ] || { why='did not run:' && cat log >&2; }
    printf '%-6s %-6s %-28s %-6s %10s %6d.%01d s  %s\n' "$verdict" "$model" \
        "${*:-(as written)}" "$want" "$states" $((ms / 1000)) $((ms % 1000 / 100)) "$why"
    cd / && rm -rf "$work"
    [ "$verdict" = ok ]
    exit
fi

if ! { command -v spin && command -v "$cc"; } >/dev/null; then
    echo "model: needs spin and $cc (Debian: apt-get install spin gcc)"
    exit 77
fi
[ -d "${1:-}" ] && [ $# -ge 2 ] && shift 2
filter=${1:-.}

MODEL_TMP=$(mktemp -d) || exit 1
export MODEL_TMP
trap 'rm -rf "$MODEL_TMP"' EXIT
trap 'exit 1' INT TERM

# The longest first, so that no core waits for the last one at the end.
printf '%s\n' "$table" | grep . | grep -E -- "$filter" |
    awk '{ print ($2 == "fail") "\t" $0 }' | sort -s -k1,1n | cut -f2- >"$MODEL_TMP/rows"
[ -s "$MODEL_TMP/rows" ] || {
    echo "model: nothing matches '$filter'"
    exit 1
}
xargs -P "$(nproc)" -L 1 "$0" --row <"$MODEL_TMP/rows" >"$MODEL_TMP/table"
status=$?
sort -k2,2 -k4,4r "$MODEL_TMP/table"
wc -l <"$MODEL_TMP/table" | awk -v n="$(wc -l <"$MODEL_TMP/rows")" \
    '{ if ($1 != n) { print "model: " n - $1 " rows are missing"; exit 1 } }' || status=1
[ $status = 0 ]
