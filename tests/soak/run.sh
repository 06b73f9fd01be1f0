#!/bin/bash
# SPDX-License-Identifier: MIT
#
# soak: connections are made and closed for a while; nothing may be left of them.
#
# usage: run.sh SOURCE_DIR BUILD_DIR [SECONDS]        30 in the tests; 600 by hand
#
# tests/stress/connections.c does it, and fails if descriptors, or memory by more than 2 MB,
# have grown between a quarter of the time and its end, in the server or in the client.
set -u
build=${2:?usage: run.sh SOURCE BUILD [SECONDS]} seconds=${3:-30}
program=$build/tests/stress/connections
[ -x "$program" ] || { echo 'skipped: the tests were not built'; exit 77; }
exec "$program" churn "$seconds"
