#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Builds the fuzzers with clang's libFuzzer, under ASan and UBSan, and runs each for a while, from
# seeds that are the same each time.
#
# usage: run.sh [SECONDS]                     60
#        run.sh SOURCE_DIR BUILD_DIR          5 seconds, as a test
#
# Exit status 0; 1 if something was found (it is in the working directory that is named then);
# 77 where clang or llhttp is missing.
set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
seconds=60
case ${1:-} in
'') ;;
*[!0-9]*) source=$(cd "$1" && pwd) seconds=5 ;;
*) seconds=$1 ;;
esac

skip() {
    echo "skipped: $1"
    exit 77
}
clang=$(command -v clang || ls /usr/bin/clang-[0-9]* 2>/dev/null | head -n 1)
[ -n "$clang" ] || skip 'clang is missing'
[ -f /usr/share/llhttp/llhttp.c ] || skip "llhttp's source is missing (node-llhttp)"
dir=$(mktemp -d)
echo 'int LLVMFuzzerTestOneInput(void *p, unsigned long n) { return p == (void *)n; }' >"$dir/try.c"
"$clang" -fsanitize=fuzzer,address "$dir/try.c" -o "$dir/try" 2>/dev/null ||
    skip 'clang has no libFuzzer here'

flags=(-std=gnu11 -O1 -g -fno-omit-frame-pointer -I"$source/include" -I"$source/runtime"
    -I"$source/io" -I"$source/tests/support" -isystem /usr/share/include/llhttp
    -isystem /usr/include/llhttp -DLLHTTP_STRICT_MODE=1)
failures=0
for file in "$source"/tests/fuzz/*.c; do
    name=$(basename "$file" .c)
    work=$dir/$name
    mkdir -p "$work/corpus"
    "$clang" "${flags[@]}" -DWRITE_SEEDS "$file" -o "$work/seeds" && "$work/seeds" "$work/corpus" &&
        "$clang" "${flags[@]}" -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
            "$file" "$source/io/http_parse.c" /usr/share/llhttp/{api,http,llhttp}.c -o "$work/fuzz"
    if [ $? -ne 0 ]; then
        echo "FAIL  $name does not build"
        failures=$((failures + 1))
        continue
    fi
    (cd "$work" && ./fuzz -max_total_time="$seconds" -max_len=4096 -timeout=10 -seed=1 corpus >log 2>&1)
    status=$?
    if [ $status -eq 0 ]; then
        echo "ok    $name: $(grep -o 'Done [0-9]* runs in [0-9]*' "$work/log" | tail -n 1) seconds," \
            "$(ls "$work/corpus" | wc -l) inputs kept"
    else
        echo "FAIL  $name: status $status, in $work"
        tail -n 40 "$work/log"
        failures=$((failures + 1))
    fi
done
[ $failures -eq 0 ] && rm -rf "$dir"
[ $failures -eq 0 ]
