#!/bin/bash
# SPDX-License-Identifier: MIT
#
# fetch: the HTTP client against nginx, by the example `fetch'.
#
# usage: run.sh SOURCE_DIR BUILD_DIR
#
# What is asked: 1,000 files come as they are; what broke off goes on where it broke off, unless the
# file is another one by now; what fails is tried again; HTTP/2 and TLS, with and without a
# certificate to trust; a proxy; Ctrl-C.
set -u
build=${2:?usage: run.sh SOURCE BUILD}
fetch=$build/examples/fetch
skip() {
    echo "skipped: $1"
    exit 77
}
[ -x "$fetch" ] || skip 'the example fetch was not built'
PATH=$PATH:/usr/sbin
for program in nginx openssl curl python3; do
    command -v $program >/dev/null || skip "no $program"
done
unset http_proxy https_proxy all_proxy HTTPS_PROXY ALL_PROXY

work=$(mktemp -d) || exit 1
flaky=
cleanup() {
    [ -n "$flaky" ] && kill "$flaky" 2>/dev/null
    [ -f "$work/pid" ] && kill "$(cat "$work/pid")" 2>/dev/null
    for i in $(seq 100); do
        [ -f "$work/pid" ] || break
        sleep 0.02
    done
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1
failures=0

ok() { # NAME COMMAND...: it must succeed
    local name=$1
    shift
    if "$@" >said 2>&1; then
        echo "ok    $name"
    else
        echo "FAIL  $name: $*"
        head -5 said err 2>/dev/null | sed 's/^/      /'
        failures=$((failures + 1))
    fi
}

run() { # STATUS ARGUMENT...: fetch, with what it says in out and err
    local want=$1 status
    shift
    timeout 60 "$fetch" "$@" >out 2>err </dev/null
    status=$?
    [ $status -eq "$want" ] || {
        echo "status $status instead of $want: fetch $*"
        cat err
        return 1
    }
}

# ---- an origin ---------------------------------------------------------------------------------

mkdir www
python3 - <<'PY'
import random
random.seed(7)
for i in range(1000):
    n = random.choice((0, 1, 100, 1000, 5000, 20000, 70000)) if i else 3000000
    open(f"www/file-{i}.bin", "wb").write(random.randbytes(n))
PY
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null || skip 'openssl makes no certificate'

start_nginx() {
    local p
    port=$((20000 + RANDOM % 20000))
    for p in $port $((port + 1)) $((port + 2)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null && return 1 # somebody is there
    done
    cat >nginx.conf <<NGINX
$([ "$(id -u)" -eq 0 ] && echo 'user root;') # who else cannot read what mktemp makes
worker_processes 2;
pid $work/pid;
error_log $work/error.log;
events { worker_connections 1000; }
http {
    log_format short '\$server_protocol \$request_method \$uri \$status';
    access_log $work/log short;
    client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
    uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
    server {
        listen 127.0.0.1:$port;
        root $work/www;
        location /busy { return 503; }
        location /moved { return 302 /file-3.bin; }
        location /slow/ { alias $work/www/; limit_rate 300k; }
    }
    server {
        listen 127.0.0.1:$((port + 1)) ssl http2;
        ssl_certificate $work/cert.pem;
        ssl_certificate_key $work/key.pem;
        root $work/www;
    }
    server {
        listen 127.0.0.1:$((port + 2));
        location / { proxy_pass http://\$http_host\$request_uri; }
    }
}
NGINX
    nginx -e "$work/error.log" -c "$work/nginx.conf" 2>/dev/null
}
started=
for i in 1 2 3 4 5; do
    start_nginx && started=1 && break
done
[ -n "$started" ] || skip 'nginx does not start'
origin=http://127.0.0.1:$port
secure=https://127.0.0.1:$((port + 1))
for i in $(seq 1000); do
    curl -s -o /dev/null $origin/file-1.bin && break
    sleep 0.02
done

# ---- many ----------------------------------------------------------------------------------------

for i in $(seq 0 999); do echo "$origin/file-$i.bin"; done >list
mkdir all
ok '1,000 files' run 0 -j 50 -d all -i list
ok '1,000 files equal the originals' diff -r www all
ok 'a line for each' [ "$(wc -l <out)" -eq 1000 ]
mkdir names
ok 'names' run 0 -q -d names "$origin/file-1.bin?x=/y" $origin/file-1.bin $origin/moved
ok 'names: as they should be' [ "$(ls names | tr '\n' ' ')" = 'file-1.bin file-1.bin.2 moved ' ]
ok 'a redirect is followed' cmp names/moved www/file-3.bin
ok '-o' run 0 -q -d names -o other $origin/file-5.bin
ok '-o: the file' cmp names/other www/file-5.bin
ok '404' run 1 -d names $origin/none $origin/file-9.bin
ok '404 is said' grep -q 'none: status 404' err
ok '404 does not stop the others' cmp names/file-9.bin www/file-9.bin
ok 'standard input' bash -c "echo $origin/file-7.bin | '$fetch' -q -d names -i - && cmp names/file-7.bin www/file-7.bin"

# ---- going on ---------------------------------------------------------------------------------------

mkdir resumed
head -c 1000000 www/file-0.bin >resumed/file-0.bin.part
curl -sI $origin/file-0.bin | sed -n 's/^ETag: \(.*\)\r/\1/p' | tr -d '\n' >resumed/file-0.bin.part.tag
ok 'goes on' run 0 -q -d resumed $origin/file-0.bin
ok 'goes on: equal' cmp resumed/file-0.bin www/file-0.bin
ok 'goes on: by a range' grep -q '/file-0.bin 206' log
ok 'goes on: nothing is left' [ "$(ls resumed)" = file-0.bin ]
mkdir changed
head -c 1000 /dev/zero >changed/file-0.bin.part
echo -n '"another"' >changed/file-0.bin.part.tag
ok 'begins again' run 0 -q -d changed $origin/file-0.bin
ok 'begins again: equal' cmp changed/file-0.bin www/file-0.bin

mkdir stopped
env --default-signal=INT "$fetch" -q -d stopped $origin/slow/file-0.bin 2>err </dev/null &
pid=$!
for i in $(seq 1000); do # Ctrl-C when there is a part
    [ -s stopped/file-0.bin.part ] && break
    sleep 0.01
done
kill -INT $pid
wait $pid
status=$?
if [ $status -eq 130 ]; then
    ok 'Ctrl-C leaves a part' [ -s stopped/file-0.bin.part ]
    ok 'Ctrl-C, and again' run 0 -q -d stopped $origin/file-0.bin
    ok 'Ctrl-C, and again: equal' cmp stopped/file-0.bin www/file-0.bin
    ok 'Ctrl-C, and again: by a range' [ "$(grep -c '/file-0.bin 206' log)" -eq 2 ]
else
    echo "FAIL  Ctrl-C: status $status"
    failures=$((failures + 1))
fi

# ---- trying again ------------------------------------------------------------------------------------

ok '503' run 1 -q -t 3 -w 0.01 -d names $origin/busy
ok '503: three times' [ "$(grep -c '/busy 503' log)" -eq 3 ]

# 503, then half of it, then the rest of it.
cat >flaky.py <<'PY'
import http.server, sys
n = 0
body = open("www/file-0.bin", "rb").read()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_GET(self):
        global n
        n += 1
        begin = 0
        if n == 1:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.headers["Range"] and self.headers["If-Range"] == '"one"':
            begin = int(self.headers["Range"][6:].split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        self.wfile.write(body[begin:begin + 1000000])
        self.wfile.flush()
        self.close_connection = True
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 flaky.py >flaky.port &
flaky=$!
for i in $(seq 1000); do
    [ -s flaky.port ] && break
    sleep 0.02
done
mkdir broken
ok 'breaks off, goes on' run 0 -q -w 0.01 -d broken "http://127.0.0.1:$(cat flaky.port)/file-0.bin"
ok 'breaks off, goes on: equal' cmp broken/file-0.bin www/file-0.bin

# ---- TLS, HTTP/2, a proxy -------------------------------------------------------------------------------

mkdir tls
ok 'an unknown certificate' run 1 -q -t 1 -d tls $secure/file-0.bin
ok 'an unknown certificate is said' grep -qi certificate err
ok '--cacert' run 0 -q -d tls --cacert cert.pem $secure/file-0.bin
ok '--cacert: equal' cmp tls/file-0.bin www/file-0.bin
ok '--cacert: HTTP/1.1' grep -q 'HTTP/1.1 GET /file-0.bin 200' log
for i in $(seq 0 99); do echo "$secure/file-$i.bin"; done >list
ok '-k, HTTP/2' run 0 -q -k --http2 -j 20 -d tls -i list
for i in $(seq 0 99); do cmp "tls/file-$i.bin" "www/file-$i.bin" || echo; done >differ 2>&1
ok 'HTTP/2: equal' [ ! -s differ ]
ok 'HTTP/2: 100 times' [ "$(grep -c 'HTTP/2.0 GET /file-[0-9]*.bin 200' log)" -eq 100 ]
mkdir far
ok 'a proxy' run 0 -q -d far -x "http://127.0.0.1:$((port + 2))" $origin/file-0.bin
ok 'a proxy: equal' cmp far/file-0.bin www/file-0.bin
ok 'a proxy: it was asked' grep -q 'HTTP/1.0 GET /file-0.bin 200' log
ok 'no proxy there' run 1 -q -t 1 -d far -x http://127.0.0.1:1 $origin/file-0.bin

[ $failures -eq 0 ] && echo 'fetch: all well' || echo "fetch: $failures failed"
[ $failures -eq 0 ]
