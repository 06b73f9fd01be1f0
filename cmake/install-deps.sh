#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Installs what magpie's build needs and this Debian or Ubuntu does not have yet: does nothing,
# and needs no rights, where nothing is missing.
#
# usage: install-deps.sh build|test|bench
set -eu

# What is installed is asked of dpkg alone, so that a second run is instant and silent.
wanted="gcc libc6-dev cmake ninja-build pkg-config liburing-dev libjemalloc-dev libssl-dev
    libcurl4-openssl-dev node-llhttp"
if [ "${1:-build}" = test ]; then
    wanted="$wanted g++ binutils libcriterion-dev valgrind python3 spin clang
        curl wrk nginx-light openssl socat redis-server"
elif [ "${1:-build}" = bench ]; then
    # The peers of bench/io/run.
    wanted="$wanted python3 golang-go libuv1-dev nginx-light openssl wrk fio curl
        python3-uvloop python3-httpx python3-aiofiles cargo librust-tokio-dev librust-hyper-dev"
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "No apt-get here: please install by hand what these Debian packages hold: $wanted" >&2
    exit 0
fi

missing=
for package in $wanted; do
    # pkg-config is a virtual name on newer systems, where pkgconf provides it.
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "Please install as root:$missing" >&2; exit 1; }
    as_root=sudo
fi
echo "Installing:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
