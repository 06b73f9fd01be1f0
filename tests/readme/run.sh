#!/bin/bash
# SPDX-License-Identifier: MIT
#
# readme: every program in README.md compiles as it is printed, and those that can be run, run.
#
# usage: run.sh SOURCE_DIR BUILD_DIR        CC names the compiler
#        run.sh --update                    write the true line counts into the reading list
#
# A program is a block that begins with ```c.  One with a main() is linked with the libraries that
# its headers belong to, and must exit 0 within 10 seconds; if such a library was not built, and
# without a main(), it is compiled only.  A block ```text output after it is what it prints.
# There is a certificate for it: chain.pem and key.pem.  Files that the README links to must exist, and the line counts of its reading list
# must be near the truth.
set -u
if [ "${1:-}" = --update ]; then
    cd "$(dirname "$0")/../.." || exit 1
    sed -nE 's/^\| `([^`]+)` \| [0-9]+ \|.*/\1/p' README.md | while read -r path; do
        sed -i -E "s,^(\| \`$path\` \|) [0-9]+ ,\1 $(wc -l <"$path") ," README.md
    done
    exit
fi
source=${1:?usage: run.sh SOURCE BUILD} build=${2:?usage: run.sh SOURCE BUILD}
# Programs run in a directory of their own.
source=$(cd "$source" && pwd) && build=$(cd "$build" && pwd) || exit 1
: "${CC:=cc}"
readme=$source/README.md
if [ ! -f "$readme" ]; then
    echo 'skipped: there is no README.md'
    exit 77
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
flags="-std=gnu11 -O1 -g -Wall -Wextra -Wshadow -Werror -I$source/include"
failures=0

fail() {
    echo "FAIL  $*"
    failures=$((failures + 1))
}

# Each block to a file that is named after its line; #line so that errors name the README.
awk -v dir="$work" '
    /^```c$/ { file = dir "/line" NR ".c"; print "#line " NR + 1 " \"README.md\"" > file; next }
    /^```/   { if (file) close(file); file = ""; next }
    file     { print > file }
' "$readme"

# As the README says; without openssl what needs it is not run.
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key.pem" -out "$work/chain.pem" \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null

# The libraries of a program, as its headers say; 1 if one of them was not built.
libraries() { # FILE
    local lib libs="$build/libmagpie.so"

    for lib in tls http; do
        grep -q "^#include <magpie/$lib" "$1" || continue
        [ -e "$build/libmagpie-$lib.so" ] || return 1
        libs="$build/libmagpie-$lib.so $libs"
    done
    echo "$libs"
}

n=0
for file in "$work"/line*.c; do
    [ -e "$file" ] || break
    n=$((n + 1))
    name=$(basename "$file" .c)
    # shellcheck disable=SC2086
    if ! $CC $flags -c "$file" -o "$work/$name.o"; then
        fail "$name does not compile"
        continue
    fi
    grep -q '^int main(' "$file" || continue
    libs=$(libraries "$file") || { echo "$name is not run: its library was not built"; continue; }
    if grep -q '"chain.pem"' "$file" && [ ! -e "$work/chain.pem" ]; then
        echo "$name is not run: there is no openssl"
        continue
    fi
    # shellcheck disable=SC2086
    $CC "$work/$name.o" $libs -pthread -Wl,-rpath,"$build" -o "$work/$name" ||
        { fail "$name does not link"; continue; }
    (cd "$work" && timeout 10 "./$name" >"$name.out" 2>"$name.err" </dev/null) ||
        { cat "$work/$name.out" "$work/$name.err"; fail "$name ends with an error"; }
    # What a program prints stands in the block after it that begins with ```text output.
    awk -v from="${name#line}" 'NR > from && /^```text output$/ { on = 1; next }
        NR > from && /^```c$/ { exit } on && /^```$/ { exit } on' "$readme" >"$work/$name.want"
    [ ! -s "$work/$name.want" ] || diff "$work/$name.want" "$work/$name.out" ||
        fail "$name prints something else"
done
[ $n -gt 0 ] || fail 'README.md has no program'

# Links to files: [text](path), without http and anchors.
for path in $(grep -oE '\]\([^)#:]+\)' "$readme" | sed 's/^](//; s/)$//'); do
    [ -e "$source/$path" ] || fail "README.md links to $path, which does not exist"
done

# The reading list: | `path` | lines | ...  A third, or 60 lines, more or less is no lie yet.
while read -r path lines; do
    [ -e "$source/$path" ] || { fail "$path is in the reading list and does not exist"; continue; }
    real=$(wc -l <"$source/$path")
    off=$((real > lines ? real - lines : lines - real))
    [ $off -le 60 ] || [ $((off * 3)) -le "$real" ] ||
        fail "$path has $real lines, README.md says $lines; run tests/readme/run.sh --update"
done < <(sed -nE 's/^\| `([^`]+)` \| ([0-9]+) \|.*/\1 \2/p' "$readme")

for file in "$source"/runtime/*.[ch] "$source"/io/*.[ch] "$source"/include/magpie/*.h; do
    path=${file#"$source"/}
    grep -q "^| \`$path\` |" "$readme" || fail "$path is not in the reading list of README.md"
done

[ $failures -eq 0 ] && echo "readme: $n programs, all well" || echo "readme: $failures failed"
[ $failures -eq 0 ]
