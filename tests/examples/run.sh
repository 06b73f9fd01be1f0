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
unset MAGPIE_SLOW_MS # some show what the watchdog says of slow tasks
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
    last=("$examples/$name" "$@")
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

# slow NAME ORIGIN: the watchdog's report.  A machine with other work may not give the task so much
# of a processor that it counts as slow: then the program is run again.  Who it is takes a signal,
# which no fiber gets under ThreadSanitizer (runtime/sample.c): there it says that somebody is slow,
# and why not who.
slow() {
    local pattern="task '$1' has not suspended for 100 ms$2" tries=0
    if grep -qx 'MAGPIE_SANITIZE:STRING=thread' "$build/CMakeCache.txt"; then
        pattern='a task on worker [0-9]+ has not suspended for 100 ms; .*could not be read: EOPNOTSUPP'
    fi
    while ! grep -Eq -- "$pattern" err && [ $((tries += 1)) -lt 20 ]; do
        timeout 60 "${last[@]}" >out 2>err </dev/null
    done
    says "$pattern"
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
expect 0 'a line: again, in lines' fundamentals files
expect 0 '1, then the end' fundamentals iteration
grep -qx 'T-minus 1' out && { echo 'FAIL  break does not leave the loop'; failures=$((failures + 1)); }
expect 0 'The race was won by number 1, with 7' fundamentals structured
for line in 'Both are done: 1, 2' 'One of a group failed: EIO' 'Half a second was too short: ETIMEDOUT' \
    'wait_for: ETIMEDOUT' 'Cancelled: ECANCELED' 'step 3 is done'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  fundamentals structured does not say '$line'"
    failures=$((failures + 1))
done
expect 0 '  at examples/fundamentals.c:[0-9]+ in open_missing.*' fundamentals errors
expect 0 'and returns EDEADLK' fundamentals mistakes
says "coroutine 'small_step' was never awaited"
slow '(mistakes|bad_example)' ''
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

# ---- files -----------------------------------------------------------------------------------

expect 0 'usage: files \[lines \|.*' files --help
expect 2 '' files nonsense
expect 0 '567 was sent' files
for line in 'first: one' 'then: 5 bytes' 'settings: colour = blue' 'with a limit of 4 bytes: EFBIG' \
    'replaced: colour = green' 'a temporary file of 7 bytes, without a name' 'after the write: 10' \
    "read 20: 'head' and ', body'" "at 20: 'head'" 'through a pipe, without positions' \
    'old: 0, new: 1' 'a second name: EEXIST' 'old is a link: yes, to new' 'readable: yes' \
    'room is left: yes' 'copied 10 of 10' '2 entries' 'in deep: er'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  files does not say '$line'"
    failures=$((failures + 1))
done
says 'done, without a trace'
printf 'one\ntwo\nthree' >three
expect 0 '3 lines, 11 bytes in them, in three' files count three
[ "$(cat three | "$examples/files" count)" = '3 lines, 11 bytes in them, in standard input' ] || {
    echo 'FAIL  files count: of a pipe'
    failures=$((failures + 1))
}
expect 1 '' files count /no/such/file
says 'files: No such file or directory'

# ---- generators --------------------------------------------------------------------------------

mkdir -p tree/a/b && for i in 1 2 3 4 5 6 7; do : >tree/a/b/$i; done
expect 0 '5 files were enough' generators tree
for line in '  5 tree/a/b/[1-7]' '\(the directory is closed\)' 'AC AB CB AC BA BC AC ' \
    'the 1000th move: B to A' '3: BC' 'plain: functions do it too' '1 4 9 16 25 ' 'three: ENOSPC' \
    'then: EPIPE' '1 \+ ... \+ 100 = 5050'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  generators does not say '$line'"
    failures=$((failures + 1))
done
expect 2 '' generators too many
expect 1 '' generators /no/such/directory

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

# ---- several ---------------------------------------------------------------------------------

expect 0 'usage: several' several --help
expect 2 '' several nonsense
expect 0 'Porto was the fastest: 150 KiB' several
for line in 'told: OK, 300 KiB' 'after the first: 1 of 3' 'at the end: 3 of 3' '  ETIMEDOUT, 0 KiB' \
    'after 5 ms: ETIMEDOUT' 'joined: 300 KiB' 'number 1 has won: 50 KiB'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  several does not say '$line'"
    failures=$((failures + 1))
done

# ---- groups ----------------------------------------------------------------------------------

expect 0 'Usage: groups \[fetch.*' groups --help
expect 2 '' groups one two
expect 0 '  fetch: No such file or directory, spawned at groups.c:[0-9]+' groups fetch
expect 0 'both have ended' groups service
expect 0 '31 pages' groups crawl
expect 0 '20 downloads, never more than 4 at a time' groups limit
expect 0 'plain: 1 byte, rc 0' groups

# ---- queues ----------------------------------------------------------------------------------

expect 0 'usage: queues \[pipeline \| orders \| select\]' queues --help
expect 2 '' queues nonsense
expect 0 'read 12 pages, never more than 4 ahead' queues pipeline
expect 0 '3 workers crawled 12 pages' queues
expect 0 'fifo: b a c z' queues orders
expect 0 'lifo: z c a b' queues orders
expect 0 'priority: a b c z' queues orders
expect 0 'closed after 5 jobs and 5 answers' queues select
expect 0 '5 answers were waiting' queues select

# ---- locks -----------------------------------------------------------------------------------

expect 0 'usage: locks' locks --help
expect 2 '' locks nonsense
expect 0 'all have started, their places add up to 6' locks
for line in '5 meals served, 0 left, the counter is free' 'to give back what nobody has: EPERM' \
    'the shot has been heard: no; waiting at the line: 0 of 4' 'called off: EPIPE, broken: yes' \
    '1 lost patience, 2 places are free' 'one release too many: EOVERFLOW' 'full: yes' \
    'the library was called 2 times' '1023 books, edition 2, loaded 1 time' \
    'while one writes, to read: EBUSY'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  locks does not say '$line'"
    failures=$((failures + 1))
done

# ---- timeouts --------------------------------------------------------------------------------

expect 0 'usage: timeouts' timeouts --help
expect 2 '' timeouts nonsense
expect 0 'the search: ETIMEDOUT' timeouts
for line in 'with_timeout: ETIMEDOUT' 'mag_scope_enter: ETIMEDOUT' 'mag_wait_for: ETIMEDOUT' \
    'in time: 42' 'fired: yes, at the later time: yes' 'it ends with ETIMEDOUT' \
    'called off: ECANCELED, fired by time: no' 'asked to stop: ECANCELED; in the shield: OK' \
    'after it: still cancelled' 'the worker ended with ECANCELED' 'the client: ETIMEDOUT' \
    'written all the same: 1'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  timeouts does not say '$line'"
    failures=$((failures + 1))
done

# ---- embed, runner -----------------------------------------------------------------------------

expect 0 'host: the tasks are done, OK, and saw the host.s ticks: yes' embed
for line in "task: slept 60 ms, in the host's thread" 'task: a call in a thread gave 42' \
    'callback: hello from another thread' 'host: the far callback is cancelled: OK'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  embed does not say '$line'"
    failures=$((failures + 1))
done
expect 0 'request 3: logged in as carol' runner
expect 0 'everything has stopped' runner
tr '\n' ' ' <out | grep -q 'first, soon callback: second, after a delay callback: third, at' || {
    echo 'FAIL  runner: the callbacks are not in their order'
    failures=$((failures + 1))
}
# Ctrl-C, once; `timeout' in the background would send it twice
timeout --foreground --preserve-status -s INT 3 "$examples/runner" 20 >out 2>err </dev/null
status=$?
if [ $status -eq 130 ] && grep -q 'interrupted: cleaning up' out; then
    echo 'ok    runner, interrupted'
elif grep -q 'nobody came' out; then
    echo 'skip  runner, interrupted: SIGINT is ignored here'
else
    echo "FAIL  runner, interrupted: status $status"
    cat out
    failures=$((failures + 1))
fi

# ---- inspect -----------------------------------------------------------------------------------

expect 0 'usage: inspect \[tree \|.*' inspect --help
expect 2 '' inspect nonsense
expect 0 'runtime: [0-9]+ workers, [0-9]+ tasks: 1 running.*' inspect tree
grep -q '^the new clerk  ' out && grep -q '^  serve .*waiting for mutex' out &&
    grep -q '^janitor .*waiting for future .closing_time.' out || {
    echo 'FAIL  inspect: the tree is not what it should be'
    cat out
    failures=$((failures + 1))
}
expect 0 '  at look_up at inspect.c:[0-9]+' inspect stack
expect 0 'serve +waiting  task   awaited by clerk' inspect table
expect 0 'told on standard error, while it happened' inspect slow
slow 'bad_example' ' \(spawned at .*inspect.c:[0-9]+\); it is here:'
expect 0 'worker 1: [0-9]+ tasks begun, .*' inspect workers

# ---- run_commands, signals, resolve ------------------------------------------------------------

expect 0 'usage: run_commands \[-j N\] \[-t SECONDS\] COMMAND\.\.\.' run_commands --help
expect 2 '' run_commands
expect 2 '' run_commands -j 0 true
expect 0 'two' run_commands -j 3 'sleep 0.05; echo one' 'echo two' 'echo three >&2'
[ "$(grep -v == out | tr '\n' ' ')" = 'one two three ' ] || {
    echo 'FAIL  run_commands: the outputs are not in their order'
    failures=$((failures + 1))
}
expect 1 '== exit 3: status 3' run_commands true 'exit 3'
expect 1 '== kill \$\$: killed by .*' run_commands 'kill $$'
expect 1 '== sleep 60; :: Connection timed out' run_commands -t 0.1 'sleep 60; :'
# Ctrl-C when both commands run, which nobody else's tests run beside
nap="sleep 61.$$"
env --default-signal=INT "$examples/run_commands" "$nap" "echo x; $nap" >out 2>err </dev/null &
pid=$!
for i in $(seq 2000); do
    [ "$(pgrep -x -f -c "$nap")" -eq 2 ] && break
    sleep 0.01
done
kill -INT $pid
wait $pid
status=$?
if [ $status -eq 130 ] && grep -q ', stopping' err && ! pgrep -x -f "$nap" >/dev/null; then
    echo 'ok    run_commands, interrupted'
else
    echo "FAIL  run_commands, interrupted: status $status"
    failures=$((failures + 1))
fi

expect 0 'usage: signals \[SECONDS\]' signals --help
expect 2 '' signals -1
expect 0 'nobody wants anything' signals 0.05
"$examples/signals" 20 >out 2>err </dev/null &
pid=$!
for signal in USR1 HUP TERM; do # one after the other has been told
    for i in $(seq 2000); do
        grep -q "$([ $signal = USR1 ] && echo ready || echo got)" out && break
        sleep 0.01
    done
    sleep 0.05
    kill -$signal $pid
done
wait $pid
status=$?
if [ $status -eq 0 ] && grep -qx 'ticking: yes' out && grep -qx 'stopped after 1 reload' out; then
    echo 'ok    signals'
else
    echo "FAIL  signals: status $status"
    cat out
    failures=$((failures + 1))
fi

expect 0 'usage: resolve \[-t SECONDS\] NAME\.\.\.' resolve --help
expect 2 '' resolve -t 0 localhost
expect 0 'localhost: .*(127\.0\.0\.1|::1).*' resolve localhost 127.0.0.1
expect 1 'no-such-host\.invalid: .* \(E[A-Z]+\)' resolve no-such-host.invalid

# ---- streams -----------------------------------------------------------------------------------

expect 0 'usage: streams \[lines \|.*' streams --help
expect 2 '' streams nonsense
expect 0 'hello, magpie' streams
for line in 'a line: 2' 'the rest: 14 bytes; at the end: yes' 'until either: one;' 'until --: two--' \
    'more than the limit: EMSGSIZE' 'but it is there: much too' 'and the rest of it:  long;' \
    'HEAD, then ENODATA after 13 bytes: body, cut sho' 'a netstring: <world>' 'a netstring: <>' \
    'never more than 4000 bytes waited: yes; after the drain 0' 'asked: question' \
    'answered: answer' 'after the end: EPIPE' 'after the abort: EBADF, descriptor -1' \
    'each says the same of us: yes' 'a unix socket: unix:@magpie-example' 'THROUGH A PROCESS'; do
    grep -Fqx -- "$line" out && continue
    echo "FAIL  streams does not say '$line'"
    failures=$((failures + 1))
done

# ---- descriptors, echo -------------------------------------------------------------------------

expect 0 'usage: descriptors \[vectors.*' descriptors --help
expect 2 '' descriptors nonsense
expect 0 'the reader: EBADF' descriptors
for line in 'head 0005, body helloand more, of which 8 later' 'to nobody: EPIPE' \
    'spliced 65536 bytes, 65536 have come; an ELF file: yes' 'got a file with: content' \
    'the answer: 42' "the group's answer: 42" 'a library reads: line'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  descriptors does not say '$line'"
    failures=$((failures + 1))
done

expect 0 'usage: echo \[-a ADDRESS\].*' echo --help
expect 2 '' echo -c 0
expect 1 '' echo -a 192.0.2.1
says 'echo: 192.0.2.1 port 7777: Cannot assign requested address'
expect 0 '300 clients got back what they had sent' echo --self-test 300
expect 0 '20 connections served, 499200 bytes sent back' echo --self-test
: >out # of the one before
"$examples/echo" -p 0 >out 2>err </dev/null &
pid=$!
for i in $(seq 2000); do
    grep -q listening out && break
    sleep 0.01
done
exec 3<>"/dev/tcp/127.0.0.1/$(sed -n 's/.* port //p' out)"
printf 'one\n' >&3
read -r one <&3
printf 'two\n' >&3
kill $pid # which sends back what has come
read -r two <&3
wait $pid
status=$?
exec 3>&-
if [ $status -eq 0 ] && [ "$one $two" = 'one two' ] && grep -q '^1 connections served, 8 bytes' out; then
    echo 'ok    echo, terminated'
else
    echo "FAIL  echo, terminated: status $status, '$one $two'"
    cat out err
    failures=$((failures + 1))
fi

# ---- fundamentals http, requests, fetch (which tests/fetch tries in earnest) ---------------------

if [ -x "$examples/requests" ]; then
    expect 0 '200, 13 bytes' fundamentals http
    expect 0 'usage: requests \[URL\]' requests --help
    expect 2 '' requests one two
    expect 1 '' requests http://127.0.0.1:1/
    expect 0 'EPROTONOSUPPORT: unsupported scheme' requests
    for line in 'get: 200, GET /echo with 0 bytes' 'post: 200, POST /echo with 3 bytes' \
        'form: 200, POST /echo\?page=1 with 19 bytes' 'upload: 200, PUT /echo with 10 bytes' \
        'its end after several pieces: yes, ok' 'cookie: 1'; do
        grep -Eqx -- "$line" out && continue
        echo "FAIL  requests does not say '$line'"
        failures=$((failures + 1))
    done
    expect 0 'usage: fetch \[-qk\].*' fetch --help
    expect 2 '' fetch
    expect 1 '' fetch -t 2 -w 0.01 http://127.0.0.1:1/
    says 'fetch: http://127.0.0.1:1/: .*'
fi

# ---- tls ---------------------------------------------------------------------------------------

if [ -x "$examples/tls" ]; then # not without OpenSSL
    expect 0 'usage: tls' tls --help
    expect 2 '' tls get localhost
    expect 2 '' tls get localhost 70000 /
    expect 1 '' tls serve /no/cert /no/key
    says 'tls: /no/cert: No such file or directory'
    expect 1 '' tls get 127.0.0.1 1 /
    says 'tls: 127.0.0.1 port 1: Connection refused'
    expect 0 "as example.org: EKEYREJECTED: host name mismatch: 'example.org' was wanted, .* for localhost" tls
    for line in 'as localhost: over http/1.0' '    resumed: yes' 'plain: 220 go ahead.*' \
        'TLSv1.3: 250 and now nobody listens.*'; do
        grep -Eqx -- "$line" out && continue
        echo "FAIL  tls does not say '$line'"
        failures=$((failures + 1))
    done
fi

# ---- server, proxy, redis, udp: what they do with others is in tests/servers ---------------------------

expect 0 'usage: server \[PORT\]' server --help
expect 2 '' server -1
expect 0 'bird -> magpie and goodbye' server
for line in 'SET bird magpie -> OK' 'closed: the end' 'aborted: Connection reset by peer' \
    'stopped: the end' '3 connections, 1 failed'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  server does not say '$line'"
    failures=$((failures + 1))
done
expect 0 'usage: proxy \[-v\] \[-a ADDRESS\].*' proxy --help
expect 2 '' proxy
expect 2 '' proxy -c 0 127.0.0.1 80
expect 1 '' proxy -a 192.0.2.1 127.0.0.1 80
says 'proxy: 192.0.2.1: Cannot assign requested address'
expect 0 'usage: redis \[-a ADDRESS\].*' redis --help
expect 2 '' redis
expect 1 '' redis -s "$work/no-such.sock" PING
says 'no-such.sock: No such file or directory'
expect 0 'usage: udp \[serve.*' udp --help
expect 2 '' udp nonsense
expect 1 '' udp ping no-such-host.invalid 1
expect 0 "32 datagrams came back, the first, 'a', from 127.0.0.1:[0-9]+" udp
for line in '3 of 3 came back' 'a long\.\.\. it was 10 bytes long' 'one hello, and 10 bytes have arrived'; do
    grep -Eqx -- "$line" out && continue
    echo "FAIL  udp does not say '$line'"
    failures=$((failures + 1))
done

# ---- httpd, web (tests/httpd meets the former) ----------------------------------------------------

if [ -x "$examples/httpd" ]; then
    expect 0 'usage: httpd \[-a ADDRESS\].*' httpd --help
    expect 2 '' httpd
    expect 0 'usage: web \[PORT\].*' web --help
    expect 2 '' web nonsense
    "$examples/web" 0 >out 2>err &
    pid=$!
    for i in $(seq 300); do
        grep -q http out && break
        sleep 0.01
    done
    web=$(cat out)
    if command -v curl >/dev/null; then
        answers=$(curl -s "${web}hello/a%20b" "${web}clock?2" -d x=y "${web}echo" |
            tr '0-9' '#' | tr '\n' ' ')
        answers="$answers$(seq 100000 | curl -s --data-binary @- "${web}count")"
        answers="$answers$(curl -s -A me "${web}headers" | grep -c '^User-Agent: me')"
        # curl posts to all of its URLs
        wanted="not like this not like this x=y588895 bytes, 100000 lines1"
        if [ "$answers" = "$wanted" ] && [ "$(curl -s "${web}hello/a%20b")" = 'Hello, a b!' ] &&
            [ "$(curl -s "${web}clock?2" | grep -c '^..:..:..$')" = 2 ]; then
            echo 'ok    web, asked by curl'
        else
            echo "FAIL  web, asked by curl: $answers"
            failures=$((failures + 1))
        fi
    fi
    kill $pid
    wait $pid
    [ $? -eq 0 ] || { echo 'FAIL  web, terminated'; failures=$((failures + 1)); }
fi

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
