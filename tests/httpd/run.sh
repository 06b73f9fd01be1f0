#!/bin/bash
# SPDX-License-Identifier: MIT
#
# examples/httpd, met by clients that are not ours: curl and wrk.
#
# usage: run.sh SOURCE_DIR BUILD_DIR
#
# Exit status 0; 1 if something is not as it should be; 77 without curl or the example.
set -u
build=$(cd "$2" && pwd)
httpd=$build/examples/httpd
[ -x "$httpd" ] || { echo 'skipped: httpd is not built'; exit 77; }
command -v curl >/dev/null || { echo 'skipped: curl is missing'; exit 77; }

dir=$(mktemp -d)
pid=
trap '[ -n "$pid" ] && kill -9 $pid 2>/dev/null; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failures=0

check() { # WHAT ACTUAL EXPECTED
    if [ "$2" = "$3" ]; then
        echo "ok    $1"
    else
        echo "FAIL  $1: '$2', not '$3'"
        failures=$((failures + 1))
    fi
}

start() { # ROOT ARGUMENTS...: sets pid and url
    local root=$1
    shift
    : >out
    "$httpd" -p 0 "$@" "$root" >out 2>err &
    pid=$!
    for i in $(seq 500); do
        grep -q '^serving' out && break
        sleep 0.02
    done
    url=$(sed -n 's/^serving .* at \(.*\)\/$/\1/p' out)
}

stop() { # WHAT: terminates it; it must say how much it did, and end well
    kill -TERM $pid
    wait $pid
    check "$1 ends well" $? 0
    pid=
    check "$1 says nothing of errors" "$(cat err)" ''
}

status() {
    curl -s -o /dev/null -w '%{http_code}' "$@"
}

# ---- a directory made for it ------------------------------------------------------------------

mkdir -p root/sub root/empty
echo index >root/index.html
echo sub >root/sub/index.html
printf '' >root/nothing.txt
head -c 3000000 /dev/urandom >root/big.bin
printf 'a name' >'root/with blank & more%.txt'
ln -s big.bin root/inside
ln -s /etc/passwd root/absolute
ln -s ../../../../../../../../../etc/passwd root/above
mkfifo root/fifo
touch -d '2020-02-02 02:02:02 UTC' root/big.bin
start root -l log

check 'the index' "$(curl -s $url/)" index
check 'a directory is led to its slash' "$(curl -s -o /dev/null -w '%{http_code} %{redirect_url}' $url/sub)" \
    "301 $url/sub/"
check 'its index' "$(curl -sL $url/sub)" sub
check 'a directory without one' "$(status $url/empty/)" 404
check 'a name that is not there' "$(status $url/nope)" 404
check 'an empty file' "$(curl -s -w '%{http_code} %{size_download}' $url/nothing.txt)" '200 0'
check 'a name with a blank' "$(curl -s "$url/with%20blank%20&%20more%25.txt")" 'a name'
check 'a query changes nothing' "$(curl -s "$url/index.html?x=/../..")" index
check 'type' "$(curl -s -o /dev/null -w '%{content_type}' $url/)" 'text/html; charset=utf-8'
check 'a fifo' "$(status $url/fifo)" 403
curl -s $url/big.bin | cmp -s - root/big.bin
check 'a large file' $? 0
curl -s $url/inside | cmp -s - root/big.bin
check 'a link that stays inside' $? 0

check 'a link that is absolute' "$(status $url/absolute)" 404
check 'a link that leads out' "$(status $url/above)" 404
for path in ../../etc/passwd ../../../../../../../../etc/passwd a/../../etc/passwd \
    %2e%2e/%2e%2e/etc/passwd ..%2f..%2fetc%2fpasswd %2e%2e%2fetc/passwd; do
    check "$path" "$(status --path-as-is "$url/$path")" 400
done
for path in a/../../../etc/passwd%00 .%00./etc/passwd %zz; do
    check "$path" "$(status --path-as-is "$url/$path")" 400
done
for path in //etc/passwd /./etc/passwd /proc/self/environ '....//etc/passwd'; do
    check "$path" "$(status --path-as-is "$url/$path")" 404
done

check 'a range' "$(curl -s -r 100-299 $url/big.bin | md5sum)" "$(tail -c +101 root/big.bin | head -c 200 | md5sum)"
check 'an open range' "$(curl -s -r 2999990- $url/big.bin | md5sum)" "$(tail -c 10 root/big.bin | md5sum)"
check 'the last bytes' "$(curl -s -r -77 $url/big.bin | md5sum)" "$(tail -c 77 root/big.bin | md5sum)"
check 'more than there are' "$(curl -s -r -9000000 $url/big.bin | md5sum)" "$(md5sum <root/big.bin)"
check 'partial content' "$(status -r 0-0 $url/big.bin)" 206
check 'a range beyond the end' "$(status -r 3000000- $url/big.bin)" 416
check 'no bytes at all' "$(status -r -0 $url/big.bin)" 416
check 'several ranges' "$(status -r 0-1,5-6 $url/big.bin)" 200
check 'a range that is none' "$(status -H 'Range: bytes=5-1' $url/big.bin)" 200
check 'a range of an older version' "$(status -r 0-0 -H 'If-Range: "old"' $url/big.bin)" 200
check 'what Content-Range says' "$(curl -s -o /dev/null -D - -r 1-2 $url/big.bin | grep -i '^content-range' | tr -d '\r')" \
    'Content-Range: bytes 1-2/3000000'
etag=$(curl -sI $url/big.bin | sed -n 's/^ETag: \(.*\)\r$/\1/p')
check 'a range of this version' "$(status -r 0-0 -H "If-Range: $etag" $url/big.bin)" 206

check 'If-None-Match' "$(status -H "If-None-Match: \"x\", $etag" $url/big.bin)" 304
check 'another tag' "$(status -H 'If-None-Match: "x"' $url/big.bin)" 200
check 'If-Modified-Since' "$(status -z 'Sun, 02 Feb 2020 02:02:02 GMT' $url/big.bin)" 304
check 'a second before' "$(status -z 'Sun, 02 Feb 2020 02:02:01 GMT' $url/big.bin)" 200
check 'Last-Modified' "$(curl -sI $url/big.bin | sed -n 's/^Last-Modified: \(.*\)\r$/\1/p')" \
    'Sun, 02 Feb 2020 02:02:02 GMT'
check 'HEAD' "$(curl -sI -o /dev/null -w '%{http_code} %{size_download}' $url/big.bin)" '200 0'
check 'HEAD, its length' "$(curl -sI $url/big.bin | sed -n 's/^Content-Length: \(.*\)\r$/\1/p')" 3000000
check 'POST' "$(status -d x $url/)" 405
check 'POST, what is allowed' "$(curl -s -D - -o /dev/null -d x $url/ | grep -ci '^allow: GET, HEAD')" 1
check 'a body of a megabyte' "$(head -c 1000000 /dev/zero | status --data-binary @- $url/)" 413
check 'HTTP/1.0' "$(curl -s0 $url/)" index
stop 'the first server'
check 'the log' "$(grep -c '^127.0.0.1 - - \[.*\] "GET / HTTP/1.1" 200 6$' log)" 2
check 'the log, of a range' "$(grep -c '"GET /big.bin HTTP/1.1" 206 200$' log)" 1

# ---- all the documentation, byte for byte ---------------------------------------------------------

doc=/usr/share/doc
if [ -d $doc ]; then
    start $doc
    find $doc -xdev -type f -size -4096k ! -name '*[\\"]*' | LC_ALL=C sort | head -n 3000 >files
    mkdir got
    n=0
    while IFS= read -r file; do
        n=$((n + 1))
        path=${file#$doc}
        path=${path//%/%25} path=${path//\#/%23} path=${path//\?/%3F} path=${path// /%20}
        printf 'url = "%s%s"\noutput = "got/%d"\n' "$url" "$path" $n
    done <files >config
    curl -s --globoff --path-as-is --parallel --parallel-max 16 -K config 2>/dev/null
    n=0 n_different=0
    while IFS= read -r file; do
        n=$((n + 1))
        [ -s "$file" ] || touch got/$n # curl makes no file of nothing
        cmp -s "$file" got/$n || { n_different=$((n_different + 1)); echo "differs: $file"; }
    done <files
    check "$n files of $doc" $n_different 0
    stop 'the second server'
    check 'requests that it counts' "$(sed -n 's/^\([0-9]*\) requests on .*/\1/p' out)" $n
fi

# ---- TLS --------------------------------------------------------------------------------------------

if command -v openssl >/dev/null; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
    start root --tls cert.pem key.pem
    curl -s --cacert cert.pem $url/big.bin | cmp -s - root/big.bin
    check 'a large file by TLS' $? 0
    check 'by HTTP/1.1' "$(curl -s --cacert cert.pem -o /dev/null -w '%{http_version}' $url/)" 1.1
    stop 'the TLS server'
fi

# ---- stopped under load ---------------------------------------------------------------------------------

if command -v wrk >/dev/null; then
    for round in 1 2 3; do
        start root --drain 5
        wrk -t2 -c100 -d2 $url/index.html >wrk.out 2>&1 &
        wrk_pid=$!
        sleep 0.5
        begun=$(date +%s%N)
        stop "under load ($round)"
        took=$((($(date +%s%N) - begun) / 1000000))
        [ $took -lt 5000 ] || took="late: $took ms"
        check 'in time' "${took//[0-9]/}" ''
        wait $wrk_pid
        # Each request that it has counted has been answered, to the last byte.
        check "requests that wrk got answered" "$(sed -n 's/^ *\([0-9]*\) requests in.*/\1/p' wrk.out)" \
            "$(sed -n 's/^\([0-9]*\) requests on .*/\1/p' out)"
        check 'answers that are not 200' "$(grep -c 'Non-2xx' wrk.out)" 0
    done
else
    echo 'wrk is missing: no stop under load'
fi

# ---- wrong usage ----------------------------------------------------------------------------------------------

"$httpd" >out 2>&1
check 'no root' $? 2
"$httpd" -p x root >out 2>&1
check 'a port that is none' $? 2
"$httpd" --help >out 2>&1
check 'help' "$? $(grep -c '^usage: httpd' out)" '0 1'
"$httpd" nope >out 2>&1
check 'a root that is not there' "$? $(cat out)" '1 httpd: nope: No such file or directory'
"$httpd" --tls nope nope root >out 2>&1
check 'a certificate that is not there' $? 1
"$httpd" -a 192.0.2.1 root >out 2>&1
check 'an address that is not ours' $? 1

[ $failures -eq 0 ] && echo 'httpd: all well' || echo "httpd: $failures failed"
[ $failures -eq 0 ]
