#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mistakes: the usual mistakes are told, by gcc and by clang or at run time; correct programs are
# not bothered.
#
# usage: run.sh SOURCE_DIR BUILD_DIR        CC may name one more compiler than gcc and clang
#
# A file with an EXPECT line must make the compiler say that, about the line marked MISTAKE.
set -eu
source=$1 build=$2
here=$source/tests/mistakes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-std=gnu11 -g -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wundef
    -I$source/include -I$here"

fail() {
    printf 'mistakes: FAILED: %s\n' "$*"
    exit 1
}

line_of() { # mark file
    grep -n "/\* $1 \*/" "$2" | cut -d: -f1
}

expect_diagnostic() { # compiler file
    pattern=$(sed -n 's,^/\* EXPECT \(.*\) \*/$,\1,p' "$2")
    place=$(basename "$2"):$(line_of MISTAKE "$2"):
    # shellcheck disable=SC2086
    $1 $flags -O1 -c "$2" -o "$work/mistake.o" 2>"$work/said" || true
    grep -Eq "$pattern" "$work/said" && grep -Fq "$place" "$work/said" || {
        cat "$work/said"
        fail "$1 does not say '$pattern' about $place"
    }
}

expect_silence() { # compiler level file...
    said=$work/said
    compiler=$1 level=$2
    shift 2
    for file; do
        # shellcheck disable=SC2086
        $compiler $flags "$level" -c "$file" -o "$work/$(basename "$file" .c).o" >"$said" 2>&1 ||
            { cat "$said"; fail "$compiler $level $file"; }
        [ ! -s "$said" ] || { cat "$said"; fail "$compiler $level warns about $file"; }
    done
}

link() { # compiler program object...
    compiler=$1 program=$2
    shift 2
    "$compiler" "$@" -o "$work/$program" "$build/libmagpie.so" -Wl,-rpath,"$build"
}

at_run_time() { # compiler
    link "$1" correct "$work/correct.o" "$work/correct_other.o"
    "$work/correct" >"$work/out" 2>"$work/err" || { cat "$work/err"; fail "$1: correct fails"; }
    [ ! -s "$work/err" ] || { cat "$work/err"; fail "$1: correct says something"; }
    [ "$(cat "$work/out")" = 12 ] || { cat "$work/out"; fail "$1: correct prints the wrong sum"; }

    link "$1" mistake "$work/mistake.o"
    "$work/mistake" >"$work/out" 2>"$work/err" || { cat "$work/err"; fail "$1: mistake fails"; }
    place="mistake.c:$(line_of FORGOTTEN "$here/mistake.c")"
    grep -q "^awaited twice: EALREADY$" "$work/out" || fail "$1: awaited twice is not EALREADY"
    grep -q "^mag_run inside: EDEADLK$" "$work/out" || fail "$1: mag_run inside is not EDEADLK"
    grep -Eq "mag_run.*inside a task.*await" "$work/err" ||
        { cat "$work/err"; fail "$1: mag_run inside a task is not explained"; }
    told="coroutine 'step' was never awaited \(created at ([^ ]* at )?[^ ]*$place\)"
    grep -Eq "$told" "$work/err" ||
        { cat "$work/err"; fail "$1: the forgotten coroutine is not reported with $place"; }
    [ "$(grep -c 'never awaited' "$work/err")" = 1 ] ||
        { cat "$work/err"; fail "$1: more than one coroutine is called forgotten"; }
}

n=0
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    n=$((n + 1))
    for file in $(grep -l '^/\* EXPECT' "$here"/*.c); do
        expect_diagnostic "$compiler" "$file"
    done
    for level in -O0 -O2; do
        expect_silence "$compiler" "$level" "$here/correct.c" "$here/correct_other.c" \
            "$here/mistake.c" "$source/examples/fundamentals.c" "$source/examples/generators.c"
        at_run_time "$compiler"
    done
done
[ $n -gt 0 ] || exit 77
[ -z "${CC:-}" ] || expect_silence "$CC" -O1 "$here/correct.c" "$here/correct_other.c"
printf 'mistakes: all told, by %d compilers\n' $n
