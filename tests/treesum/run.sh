#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh SOURCE BUILD - does treesum say what sha256sum says?
#
# A tree with every name and every kind of file that has ever broken such a program is
# hashed by both, and the outputs are compared; then sha256sum -c checks treesum's.
set -u
treesum=${2:?usage: run.sh SOURCE BUILD}/examples/treesum
if [ ! -x "$treesum" ]; then
    echo "skipped: $treesum was not built (it needs libcrypto)"
    exit 77
fi
# sha256sum's messages are compared.
export LC_ALL=C
work=$(mktemp -d) || exit 1
# Directories that cannot be read cannot be removed either.
trap 'chmod -R u+rwX "$work" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

check() { # check WHAT COMMAND...
    local what=$1
    shift
    if "$@"; then
        echo "ok    $what"
    else
        echo "FAIL  $what"
        failures=$((failures + 1))
    fi
}

# Both outputs, sorted, to out.* and their complaints to err.*, for the same paths.
hash_both() {
    "$treesum" -- "$@" >ours.unsorted 2>ours.err
    status=$?
    sort ours.unsorted >ours
    # -H: like treesum, find follows a path that it was given.
    find -H "$@" -type f -print0 2>theirs.err | xargs -0 -r sha256sum -- 2>>theirs.err | sort >theirs
}

same() {
    hash_both "$@"
    [ $status -eq 0 ] && diff ours theirs || return 1
    # Of no lines at all, sha256sum -c says that they are not properly formatted.
    [ ! -s ours.unsorted ] || sha256sum --quiet -c ours.unsorted
}

# ---- names and kinds ------------------------------------------------------------

mkdir -p tree/empty-dir tree/'dir with spaces'/sub tree/$'new\nline-dir'
printf 'plain' >tree/plain
printf 'x' >tree/'a name with spaces'
printf 'x' >tree/$'new\nline'
printf 'x' >tree/$'carriage\rreturn'
printf 'x' >tree/'back\slash'
printf 'x' >tree/'back\nslash-n'
printf 'x' >tree/-dash
printf 'x' >tree/--help
printf 'x' >tree/'*?[]$"'\'
printf 'x' >tree/'grüße-中文-🐦'
printf 'x' >tree/$'not-utf8-\xff\xfe'
printf 'x' >tree/' leading and trailing '
printf 'x' >tree/$'tab\tbell\a'
printf 'x' >tree/.hidden
printf 'x' >tree/"$(printf 'n%.0s' {1..255})"
printf 'x' >tree/'dir with spaces'/sub/file
printf 'x' >tree/$'new\nline-dir'/file
: >tree/empty
head -c 1 /dev/zero >tree/one
for n in 262143 262144 262145 524288 1048577 5000000; do
    head -c $n /dev/urandom >tree/size-$n
done
truncate -s 3M tree/sparse
ln -s plain tree/link
ln -s . tree/loop
ln -s nowhere tree/dangling
mkfifo tree/fifo
ln tree/plain tree/hard-link
check 'names and kinds' same tree
check 'a trailing slash' same tree/
check 'several paths, some of them files' same tree/plain tree/sparse 'tree/dir with spaces'
check 'a path that is a link' same tree/loop
check 'a path with a dash' bash -c "cd tree && '$treesum' -- -dash --help 2>/dev/null |
    diff - <(sha256sum -- -dash --help)"
check 'no file at all' same tree/empty-dir
"$treesum" -j 1 tree >one 2>/dev/null
"$treesum" -j 50 tree >fifty 2>/dev/null
check 'the order does not depend on -j' cmp one fifty

# ---- many and deep ---------------------------------------------------------------

mkdir many
(cd many && seq 1 3000 | split -l 1 -a 4 -)
check '3000 files in one directory' same many

deep=deep
for level in {1..300}; do
    deep=$deep/d$level
    [ $((level % 50)) -eq 0 ] && mkdir -p $deep && echo $level >$deep/file && echo x >${deep%/*}/beside
done
check '300 levels' same deep

# A path longer than open(2) takes: sha256sum cannot read below it, nor do we; but it is
# said, and the rest is done.
mkdir long && (
    cd long || exit 1
    name=$(printf 'n%.0s' {1..250})
    echo x >file
    for level in {1..20}; do mkdir "$name" && cd "$name" || exit 1; done
)
hash_both long
check 'a path too long: the rest' diff ours theirs
check 'a path too long: said' grep -q 'File name too long' ours.err
check 'a path too long: status' [ $status -eq 1 ]

# ---- /proc: files that tell no size ----------------------------------------------

check 'files of no size' same /proc/sys/kernel/ostype /proc/version /proc/filesystems /proc/cpuinfo

# ---- what cannot be read ---------------------------------------------------------

mkdir -p closed/dir closed/noexec
echo secret >closed/file
echo x >closed/dir/file
echo x >closed/open
echo x >closed/noexec/file
chmod 000 closed/file closed/dir
chmod 444 closed/noexec
chmod 755 . "$work" closed
run=()
if [ "$(id -u)" -eq 0 ]; then
    # root may read everything, so be somebody else.
    run=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
if "${run[@]}" true 2>/dev/null && "${run[@]}" test -x "$treesum"; then
    "${run[@]}" "$treesum" closed nowhere >ours 2>ours.err
    status=$?
    check 'unreadable: status 1' [ $status -eq 1 ]
    check 'unreadable: the others are hashed' diff ours <(sha256sum closed/open)
    for path in closed/file closed/dir closed/noexec/file; do
        check "unreadable: $path is said" grep -qx "treesum: $path: Permission denied" ours.err
    done
    check 'missing is said' grep -qx 'treesum: nowhere: No such file or directory' ours.err
else
    echo 'skip  unreadable files: cannot be another user here'
fi

# ---- the command -----------------------------------------------------------------

status_is() { # status_is N COMMAND...
    local want=$1
    shift
    "$@" >out 2>err
    [ $? -eq "$want" ]
}
check 'no path: usage' status_is 2 "$treesum"
check 'a bad option: usage' status_is 2 "$treesum" --nonsense
for n in 0 -1 x 1x '' 99999; do
    check "-j '$n': usage" status_is 2 "$treesum" -j "$n" tree
done
check '--help' status_is 0 "$treesum" --help
check '--help says usage' grep -q '^usage: treesum' out
check '--version' status_is 0 "$treesum" --version
check '-j 3' status_is 0 "$treesum" -j 3 tree
check 'the summary' grep -Eqx '[0-9]+ files, [0-9]+ bytes, [0-9.]+ s, [0-9.]+ GB/s' err
check 'no bar without a terminal' [ "$(wc -l <err)" -eq 1 ]
check 'standard output full' status_is 1 bash -c "'$treesum' tree >/dev/full"
check 'few descriptors' bash -c "ulimit -n 64; '$treesum' -j 8 tree many deep 2>/dev/null | sort |
    diff - <(find tree many deep -type f -print0 | xargs -0 sha256sum | sort)"
if command -v script >/dev/null; then
    head -c 300000000 /dev/zero >big
    check 'a bar on a terminal' bash -c "timeout 60 script -qec '$treesum big' /dev/null |
        grep -aqE '\[=+ *\] .*/0\.30 GB .*/1 files .* GB/s  ETA'"
fi

echo
[ $failures -eq 0 ] && echo 'treesum: all well' || echo "treesum: $failures failed"
[ $failures -eq 0 ]
