#!/bin/bash
# SPDX-License-Identifier: MIT
#
# servers: the examples' servers and clients speak with those of others: socat, redis-server.
#
# usage: run.sh SOURCE_DIR BUILD_DIR
#
# What goes through comes out byte for byte: over TCP, over unix sockets, through one relay and
# through two, in many connections at once, and when the relay is told to stop in the middle.
set -u
build=${2:?usage: run.sh SOURCE BUILD}
examples=$build/examples
[ -x "$examples/proxy" ] || { echo 'skipped: the examples were not built'; exit 77; }
command -v socat >/dev/null || { echo 'skipped: socat is not installed'; exit 77; }
work=$(mktemp -d) || exit 1
pids=
cleanup() {
    [ -n "$pids" ] && kill $pids 2>/dev/null
    wait
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1
failures=0

result() { # WHAT STATUS
    if [ "$2" -eq 0 ]; then
        echo "ok    $1"
    else
        echo "FAIL  $1"
        failures=$((failures + 1))
    fi
}

until_says() { # FILE PATTERN: in ten seconds
    for _ in $(seq 1000); do
        grep -q -- "$2" "$1" 2>/dev/null && return 0
        sleep 0.01
    done
    echo "      $1 does not say '$2':"
    cat "$1"
    return 1
}

# begin NAME PROGRAM ARGUMENT...: in the background; its output in NAME.out, its number in $pid
begin() {
    local name=$1 program=$2
    shift 2
    "$examples/$program" "$@" >"$name.out" 2>"$name.err" </dev/null &
    pid=$!
    pids="$pids $pid"
    until_says "$name.out" listening
}

port_of() { sed -n 's/.*port \([0-9]*\)$/\1/p' "$1.out"; }

same() { # WHAT ADDRESS: sends `data', which must come back
    timeout 60 socat -b 65536 -t 30 - "$2" <data >back 2>socat.err
    cmp -s data back
    result "$1" $?
}

head -c 4000000 /dev/urandom >data

# ---- echo ------------------------------------------------------------------------------------

begin echo echo -p 0
echo_pid=$pid
echo_port=$(port_of echo)
begin echo_unix echo -u "$work/echo.sock"
begin echo_all echo -a '*' -p 0
same 'echo, TCP' "TCP:127.0.0.1:$echo_port"
same 'echo, unix socket' "UNIX:$work/echo.sock"
same 'echo, all addresses, IPv4' "TCP:127.0.0.1:$(port_of echo_all)"
[ -e /proc/net/if_inet6 ] && same 'echo, all addresses, IPv6' "TCP6:[::1]:$(port_of echo_all)"

# ---- proxy -----------------------------------------------------------------------------------

begin relay proxy -p 0 "$work/echo.sock"
relay_port=$(port_of relay)
begin relay_2 proxy -u "$work/relay.sock" 127.0.0.1 "$relay_port"
same 'proxy, TCP to unix' "TCP:127.0.0.1:$relay_port"
same 'proxy, unix to TCP to unix' "UNIX:$work/relay.sock"

# a server of others, which ends its side first; and one that says all and hears all afterwards
socat -b 65536 "UNIX-LISTEN:$work/file.sock,fork" 'OPEN:data,rdonly' 2>/dev/null &
pids="$pids $!"
socat -b 65536 "UNIX-LISTEN:$work/sum.sock,fork" 'SYSTEM:cksum' 2>/dev/null &
pids="$pids $!"
begin from_file proxy -v -p 0 "$work/file.sock"
begin to_sum proxy -p 0 "$work/sum.sock"
for _ in $(seq 500); do [ -S "$work/file.sock" ] && [ -S "$work/sum.sock" ] && break; sleep 0.01; done
timeout 60 socat -u "TCP:127.0.0.1:$(port_of from_file)" - >back
cmp -s data back
result 'proxy, a file from socat' $?
until_says from_file.out ': 0 bytes there, 4000000 back, .*, OK$'
result 'proxy -v tells of it' $?
timeout 60 socat -t 30 - "TCP:127.0.0.1:$(port_of to_sum)" <data >back
[ "$(cat back)" = "$(cksum <data)" ]
result 'proxy, an end of one half is passed on' $?

head -c 100000 data >small
for i in $(seq 30); do
    timeout 60 socat -t 30 - "UNIX:$work/relay.sock" <small >"back.$i" 2>/dev/null &
    clients[i]=$!
done
wait "${clients[@]}"
status=0
for i in $(seq 30); do cmp -s small "back.$i" || status=1; done
result 'proxy, 30 connections at once' $status

begin nowhere proxy -p 0 "$work/no-such.sock"
timeout 60 socat -u "TCP:127.0.0.1:$(port_of nowhere)" - >back 2>/dev/null
until_says nowhere.err 'no-such.sock: No such file or directory'
result 'proxy, to nobody' $?

# stopped while a slow client is being served: what is under way arrives
begin stopped proxy -p 0 "$work/file.sock"
timeout 60 socat -u "TCP:127.0.0.1:$(port_of stopped)" - |
    { head -c 1 >first; sleep 0.5; cat; } >rest &
slow=$!
for _ in $(seq 1000); do [ -s first ] && break; sleep 0.01; done
kill "$pid"
wait "$pid"
status=$?
wait $slow
[ $status -eq 0 ] && cat first rest | cmp -s data -
result 'proxy, terminated in the middle' $?

kill "$echo_pid"
wait "$echo_pid"
result 'echo, terminated' $?

# ---- udp -------------------------------------------------------------------------------------

begin udp udp serve 0
udp_port=$(port_of udp)
echo datagram | timeout 20 socat -t 6 - "UDP:127.0.0.1:$udp_port" >back
[ "$(cat back)" = datagram ]
result 'udp, socat' $?
for _ in 1 2 3; do # each waits for a second, which a busy machine may need
    timeout 20 "$examples/udp" ping 127.0.0.1 "$udp_port" 3 >out
    grep -qx '3 of 3 came back' out && break
done
grep -qx '3 of 3 came back' out
result 'udp, ping' $?
kill "$pid"
wait "$pid"
result 'udp, terminated' $?

# ---- redis -----------------------------------------------------------------------------------

if command -v redis-server >/dev/null; then
    redis-server --port 0 --unixsocket "$work/redis.sock" --save '' --dir "$work" >redis.log 2>&1 &
    pids="$pids $!"
    until_says redis.log 'Ready to accept\|ready to accept'
    redis=("$examples/redis" -s "$work/redis.sock")
    timeout 20 "${redis[@]}" --tour >out 2>/dev/null
    status=$?
    [ "$(tr '\n' ';' <out)" = 'the bird is black and white;counted to 1000;heard: the nest is built;heard: four eggs;' ] || status=1
    result 'redis, the tour' $status
    begin to_redis proxy -p 0 "$work/redis.sock"
    redis=("$examples/redis" -p "$(port_of to_redis)")
    [ "$(timeout 20 "${redis[@]}" RPUSH list a 'b c' '')" = 3 ] &&
        [ "$(timeout 20 "${redis[@]}" LRANGE list 0 -1 | tr '\n' ';')" = 'a;b c;;' ] &&
        [ "$(timeout 20 "${redis[@]}" GET nothing)" = '(nil)' ]
    result 'redis, through the relay' $?
    timeout 20 "${redis[@]}" NONSENSE >out 2>/dev/null
    [ $? -eq 1 ] && grep -q '^error: ERR unknown command' out
    result 'redis, an error' $?
else
    echo 'skip  redis: redis-server is not installed'
fi

[ $failures -eq 0 ] && echo 'servers: all well' || echo "servers: $failures failed"
[ $failures -eq 0 ]
