#!/bin/bash
# SPDX-License-Identifier: MIT
#
# tls: magpie's TLS with OpenSSL's own programs, and with curl, at the other end.
#
# usage: run.sh SOURCE_DIR BUILD_DIR
#
# The example tls is both our server and our client.  The certificates are made here.
set -u
build=${2:?usage: run.sh SOURCE BUILD}
tls=$build/examples/tls
[ -x "$tls" ] || { echo "skipped: the example tls was not built"; exit 77; }
command -v openssl >/dev/null || { echo "skipped: there is no openssl"; exit 77; }
work=$(mktemp -d) || exit 1
pids=
trap 'kill $pids 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

ok() { # NAME STATUS-OF-THE-LAST-TEST
    if [ "$2" -eq 0 ]; then
        echo "ok    $1"
    else
        echo "FAIL  $1"
        sed 's/^/      out: /' out 2>/dev/null | head -20
        sed 's/^/      err: /' err 2>/dev/null | head -20
        failures=$((failures + 1))
    fi
}

# is NAME COMMAND...       succeeds; isnt: fails
is() {
    local name=$1
    shift
    "$@"
    ok "$name" $?
}
isnt() {
    local name=$1
    shift
    ! "$@"
    ok "$name" $?
}

quietly() {
    timeout 20 "$@" >out 2>err </dev/null
}

# ---- certificates ----------------------------------------------------------------------------

request() { # NAME SUBJECT
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" \
        -subj "$2" 2>/dev/null
}

sign() { # NAME EXTENSIONS
    printf '%s\n' "$2" >ext
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext \
        -out "$1.pem" 2>/dev/null
}

{
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem \
        -days 2 -subj '/CN=an authority' 2>/dev/null &&
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout no.key \
            -out no.pem -days 2 -subj '/CN=nobody knows' 2>/dev/null &&
        request good '/CN=localhost' && sign good 'subjectAltName=DNS:localhost,IP:127.0.0.1' &&
        request other '/CN=other' && sign other 'subjectAltName=DNS:other.example' &&
        request client '/CN=a client' && sign client 'extendedKeyUsage=clientAuth' &&
        cat client.pem client.key >client.both &&
        openssl req -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.csr -subj '/CN=localhost' \
            2>/dev/null && sign rsa 'subjectAltName=DNS:localhost'
} || { echo "FAIL  openssl makes no certificates"; exit 1; }
head -c 3000000 /dev/urandom >large

# ---- our server ---------------------------------------------------------------------------------

serve() { # CERT KEY OPTION...: sets pid and port
    local cert=$1 key=$2
    shift 2
    env --default-signal=INT "$tls" serve -p 0 "$@" "$cert" "$key" >served 2>complaints </dev/null &
    pid=$!
    pids="$pids $pid"
    for _ in $(seq 1000); do
        grep -q https served && break
        sleep 0.02
    done
    port=$(sed -n 's|https://localhost:\([0-9]*\)/|\1|p' served)
}

client() { # OPTION...: s_client, which asks for /
    printf 'GET / HTTP/1.0\r\n\r\n' |
        timeout 20 openssl s_client -connect "127.0.0.1:$port" -servername localhost -CAfile ca.pem \
            -verify_return_error -verify_hostname localhost -ign_eof "$@" >out 2>err
}

has() { # PATTERN
    grep -Eq -- "$1" out
}

told() { # PATTERN
    grep -Eq -- "$1" err
}

serve good.pem good.key -c ca.pem

client -quiet
is 's_client, TLS 1.3' has '^TLSv1.3 TLS_'
client -quiet -tls1_2
is 's_client, TLS 1.2' has '^TLSv1.2 ECDHE'
isnt 's_client, TLS 1.1' client -quiet -tls1_1 -cipher DEFAULT@SECLEVEL=0
isnt 's_client, another authority' client -quiet -CAfile no.pem
client -quiet -cert client.pem -key client.key
is 's_client, with a certificate' has '^you are: CN=a client'
client -quiet -cert no.pem -key no.key
isnt 's_client, with a bad one' has '^TLSv1'
client -sess_out session && client -sess_in session
is 's_client, TLS 1.3, again' has '^resumed: yes'
client -tls1_2 -sess_out session && client -tls1_2 -sess_in session
is 's_client, TLS 1.2, again' has '^resumed: yes'
# K at the beginning of a line: new keys, please, for both directions.
until_says() { # FILE PATTERN
    for _ in $(seq 500); do
        grep -q -- "$2" "$1" && break
        sleep 0.02
    done
}
: >out
: >err
{
    until_says out 'Verify return code' # else it reads both lines at once
    printf 'K\n'
    until_says err '^KEYUPDATE'
    printf 'GET /bytes/100000 HTTP/1.0\r\n\r\n'
    for _ in $(seq 500); do
        [ "$(tr -cd . <out | wc -c)" -ge 100000 ] && break
        sleep 0.02
    done
} | timeout 20 openssl s_client -connect "127.0.0.1:$port" -CAfile ca.pem >out 2>err
is 's_client, new keys' told '^KEYUPDATE'
is 's_client, and all bytes' test "$(tr -cd . <out | wc -c)" -ge 100000

if command -v curl >/dev/null; then
    url=https://localhost:$port
    is 'curl' quietly curl -sS --cacert ca.pem "$url/"
    is 'curl, what it is told' has '^TLSv1.3 .*'
    is 'curl, TLS 1.2' quietly curl -sS --cacert ca.pem --tls-max 1.2 "$url/"
    is 'curl, what it is told' has '^TLSv1.2 .*'
    is 'curl, 20,000,000 bytes' quietly curl -sS --cacert ca.pem "$url/bytes/20000000"
    is 'curl, all of them' test "$(wc -c <out)" -eq 20000000
    quietly curl -sS --cacert ca.pem --cert client.pem --key client.key "$url/"
    is 'curl, with a certificate' has '^you are: CN=a client'
    quietly curl -sS --cacert no.pem "$url/"
    is 'curl, another authority' test $? -eq 60
    isnt 'curl, without TLS' quietly curl -sS "http://localhost:$port/"
    is 'curl, 40 at once' quietly curl -sS --cacert ca.pem --parallel --parallel-immediate \
        --parallel-max 40 "$url/bytes/[100001-100040]"
    is 'curl, all of theirs' test "$(tr -cd . <out | wc -c)" -eq 4000820
else
    echo 'there is no curl: left out'
fi

exec 3<>"/dev/tcp/127.0.0.1/$port" # says nothing
exec 4<>"/dev/tcp/127.0.0.1/$port"
printf 'SSH-2.0-x\r\n' >&4
exec 4>&-
client -quiet
is 'among those who say nothing, or nonsense' has '^TLSv1.3 TLS_'
kill -INT "$pid"
wait "$pid"
is 'our server, interrupted' test $? -eq 0
exec 3>&-
is 'told of the nonsense' grep -q 'what the peer sends is not TLS' complaints

serve rsa.pem rsa.key
client -quiet
is 's_client, an RSA key' has '^TLSv1.3 TLS_'
kill -INT "$pid"
wait "$pid"

# ---- our client --------------------------------------------------------------------------------------

other_server() { # OPTION...: sets pid and port
    openssl s_server -accept 127.0.0.1:0 "$@" >served 2>&1 </dev/null &
    pid=$!
    pids="$pids $pid"
    for _ in $(seq 1000); do
        grep -q '^ACCEPT' served && break
        sleep 0.02
    done
    port=$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' served | head -1)
}

get() { # HOST PATH OPTION...
    local host=$1 path=$2
    shift 2
    quietly "$tls" get "$@" "$host" "$port" "$path"
}

other_server -cert good.pem -key good.key -WWW
is 's_server' get localhost /large -c ca.pem
is 's_server, all bytes' cmp -s out large
is 's_server, who it is' told '^TLSv1.3, .*, the peer is CN=localhost'
is 's_server, by address' get 127.0.0.1 /large -c ca.pem
is 's_server, TLS 1.2' get localhost /large -c ca.pem -2
is 's_server, who it is' told '^TLSv1.2, '
is 's_server, all bytes' cmp -s out large
isnt 's_server, another authority' get localhost /large -c no.pem
is 's_server, why' told 'unable to get local issuer certificate'
isnt "s_server, the system's authorities" get localhost /large
is 's_server, whoever it is' get localhost /large -k
kill "$pid"

other_server -cert other.pem -key other.key -WWW
isnt 's_server, another name' get localhost /large -c ca.pem
is 's_server, why' told "host name mismatch: 'localhost' was wanted, .* for other.example"
kill "$pid"

other_server -cert good.pem -key good.key -CAfile ca.pem -Verify 2 -verify_return_error -WWW
isnt 's_server wants a certificate' get localhost /large -c ca.pem
is 's_server, why' told 'the peer says: (certificate required|handshake failure)'
is 's_server gets one' get localhost /large -c ca.pem -e client.both
is 's_server, all bytes' cmp -s out large
kill "$pid"

other_server -cert good.pem -key good.key -tls1_3 -no_ticket -num_tickets 0 -WWW
is 's_server, without tickets' get localhost /large -c ca.pem
isnt 's_server, only TLS 1.3' get localhost /large -c ca.pem -2
is 's_server, why' told 'the peer says: protocol version'
kill "$pid"

[ $failures -eq 0 ] && echo 'tls: all well' || echo "tls: $failures failed"
[ $failures -eq 0 ]
