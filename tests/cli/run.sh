#!/bin/sh
# Tests of the gemmac binary through its command line: run.sh GEMMAC [DATA]
# Sources every other script of this folder; prints a line per failure and at the end "N passed, N failed".
here=$(cd "$(dirname "$0")" && pwd)
gemmac=$1
data=${2:-$here/../data}
[ -x "$gemmac" ] || { echo "usage: run.sh GEMMAC [DATA]"; exit 2; }
case $gemmac in /*) ;; *) gemmac=$PWD/$gemmac ;; esac
data=$(cd "$data" && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export LC_ALL=C
passed=0
failed=0

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL $1: $2"
}

# Run gemmac in an empty folder: status in $status, output in $work/out and $work/err, the folder is $work/cwd.
# Nothing is on standard input unless $input names a file.
input=/dev/null
gm() {
    rm -rf "$work/cwd" && mkdir "$work/cwd"
    (cd "$work/cwd" && timeout "${limit:-60}" "$gemmac" "$@" <"$input" >"$work/out" 2>"$work/err")
    status=$?
}

# bad NAME PATTERN ARGUMENT…: the command fails as every failure should: non-zero and not by a signal, exactly one
# line "gemmac: …" without control bytes on standard error that matches PATTERN (extended, any case), nothing on standard
# output, no file.
bad() {
    bad_name=$1 bad_pattern=$2
    shift 2
    gm "$@"
    if [ "$status" -eq 0 ]; then fail "$bad_name" "succeeds"
    elif [ "$status" -ge 124 ]; then fail "$bad_name" "ends with status $status: $(head -c 300 "$work/err")"
    elif [ "$(wc -l <"$work/err")" -ne 1 ]; then fail "$bad_name" "$(wc -l <"$work/err") lines on standard error: $(head -c 300 "$work/err")"
    elif tr -d '\n' <"$work/err" | grep -aq '[[:cntrl:]]'; then fail "$bad_name" "control bytes in: $(tr '[:cntrl:]' '?' <"$work/err")"
    elif ! grep -q '^gemmac: ' "$work/err"; then fail "$bad_name" "no 'gemmac: ' in: $(cat "$work/err")"
    elif ! grep -Eqi -e "$bad_pattern" "$work/err"; then fail "$bad_name" "expected /$bad_pattern/ in: $(cat "$work/err")"
    elif [ -s "$work/out" ]; then fail "$bad_name" "writes to standard output: $(head -c 200 "$work/out")"
    elif [ -n "$(ls -A "$work/cwd")" ]; then fail "$bad_name" "leaves a file: $(ls -A "$work/cwd")"
    else pass
    fi
}

# good NAME PATTERN ARGUMENT…: the command succeeds and its standard output, as one line, matches PATTERN in whole.
good() {
    good_name=$1 good_pattern=$2
    shift 2
    gm "$@"
    if [ "$status" -ne 0 ]; then fail "$good_name" "status $status: $(head -c 300 "$work/err")"
    elif ! tr '\n' ' ' <"$work/out" | grep -aEq -e "^$good_pattern *\$"; then
        fail "$good_name" "expected /$good_pattern/, got: $(head -c 300 "$work/out")"
    else pass
    fi
}

# json NAME PATTERN ARGUMENT…: good, and valid JSON where jq is there to tell.
json() {
    good "$@"
    command -v jq >/dev/null || return
    [ "$status" -ne 0 ] || jq . "$work/out" >/dev/null 2>&1 || fail "$1" "not JSON: $(head -c 300 "$work/out")"
}

# same NAME FILE FILE, and check NAME MESSAGE COMMAND…: anything else that must hold.
same() {
    if cmp -s "$2" "$3"; then pass; else fail "$1" "differs: $(head -c 200 "$2") / $(head -c 200 "$3")"; fi
}
check() {
    check_name=$1 check_message=$2
    shift 2
    if "$@"; then pass; else fail "$check_name" "$check_message"; fi
}

# poke FILE OFFSET BYTES: overwrite in place, BYTES as octal escapes of printf.
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }
# offset FILE TEXT: where TEXT first stands.
offset() { grep -obUaF -e "$2" "$1" | head -n 1 | cut -d: -f1; }

# What several scripts test, and match.
hf=$data/tiny/gemma3-tiny
gguf=$data/gguf/gemma3-tiny-q8_0.gguf
ids='[0-9]+(,[0-9]+)*'
real='-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?'
# field FILE NAME: the value of an integer list or number in a flat JSON object.
field() { sed -n "s/.*\"$2\":\(\[[^]]*\]\|[-0-9.e+]*\).*/\1/p" "$1"; }

for script in "$here"/*.sh; do
    [ "$(basename "$script")" = run.sh ] || . "$script"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
