#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install: the installed tree is enough to build with, in each of the ways it offers.
#
# usage: run.sh SOURCE_DIR BUILD_DIR        CC and CXX name the compilers
#
# Installs to a temporary prefix; builds and runs consumer.c through pkg-config (shared, static)
# and find_package (shared, static), and consumer.cpp as C++11; looks at what the libraries export.
# The same with consumer_http.c for magpie-http and magpie-tls, where they were built.
set -eu
source=$1 build=$2
: "${CC:=cc}" "${CXX:=c++}"
here=$source/tests/install
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

say() { printf 'install: %s\n' "$*"; }
fail() { say "FAILED: $*"; exit 1; }

cmake --install "$build" --prefix "$prefix" >"$work/log" || { cat "$work/log"; fail "cmake --install"; }
lib=$(dirname "$(find "$prefix" -name libmagpie.a)")
export PKG_CONFIG_PATH="$lib/pkgconfig"
# The prefix in magpie.pc is the configured one; pkg-config is told the real one.
pkg_of() { # LIBRARY OPTION...
    library=$1
    shift
    pkg-config --define-variable=prefix="$prefix" "$@" "$library"
}
pkg() { pkg_of magpie "$@"; }

say "what the libraries export"
other=$(nm -D --defined-only "$lib/libmagpie.so" | awk '$3 !~ /^mag_/ { print $3 }')
[ -z "$other" ] || fail "libmagpie.so exports: $other"
nm -D --defined-only "$lib/libmagpie.so" | grep -q ' mag_version$' || fail "mag_version is not exported"
other=$(nm -g --defined-only "$lib/libmagpie.a" | awk 'NF == 3 && $3 !~ /^mag_/ { print $3 }')
[ -z "$other" ] || fail "libmagpie.a has global names: $other"
for name in magpie-tls magpie-http; do
    [ -e "$lib/lib$name.so" ] || continue
    other=$(nm -D --defined-only "$lib/lib$name.so" | awk '$3 !~ /^mag_/ { print $3 }')
    [ -z "$other" ] || fail "lib$name.so exports: $other"
done
readelf -d "$lib/libmagpie.so" | grep -q 'SONAME.*\[libmagpie\.so\.0\]' || fail "SONAME is not libmagpie.so.0"

say "C through pkg-config, shared"
# shellcheck disable=SC2046
$CC -std=c11 -Wall -Werror "$here/consumer.c" $(pkg --cflags --libs) -Wl,-rpath,"$lib" -o "$work/shared"
"$work/shared"
ldd "$work/shared" | grep -q libmagpie.so.0 || fail "the program does not use the shared library"

say "C through pkg-config, static"
# shellcheck disable=SC2046
$CC -std=c11 -Wall -Werror "$here/consumer.c" \
    $(pkg --cflags --static --libs | sed 's/-lmagpie/-l:libmagpie.a/') -o "$work/static"
"$work/static"
! ldd "$work/static" | grep -q libmagpie || fail "the static program uses the shared library"

say "C++11"
# shellcheck disable=SC2046
$CXX -std=c++11 -Wall -Wextra -Werror "$here/consumer.cpp" $(pkg --cflags --libs) \
    -Wl,-rpath,"$lib" -o "$work/cpp"
"$work/cpp"

say "find_package"
cmake -G Ninja -S "$here" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$CC" \
    >"$work/log" 2>&1 || { cat "$work/log"; fail "configure"; }
cmake --build "$work/cmake" >"$work/log" 2>&1 || { cat "$work/log"; fail "build"; }
"$work/cmake/consumer"
"$work/cmake/consumer-static"
if [ -e "$lib/libmagpie-http.so" ]; then
    say "magpie-http: find_package, shared and static; pkg-config, shared; C++11"
    "$work/cmake/consumer-http"
    "$work/cmake/consumer-http-static"
    # shellcheck disable=SC2046
    $CC -std=c11 -Wall -Werror "$here/consumer_http.c" $(pkg_of magpie-http --cflags --libs) \
        -Wl,-rpath,"$lib" -o "$work/http"
    "$work/http"
    # shellcheck disable=SC2046
    printf '#include <magpie/tls.h>\n#include <magpie/http_client.h>\n#include <magpie/http_server.h>\n' |
        $CXX -std=c++11 -Wall -Wextra -Werror -fsyntax-only -x c++ - $(pkg_of magpie-http --cflags)
fi

if [ -x "$prefix/bin/magpie-bench" ]; then
    say "magpie-bench is installed"
fi
say "all well"
