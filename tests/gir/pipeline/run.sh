#!/bin/sh
# The stages of a two-layer Gemma 3, from its configuration to fused attention: run.sh GEMMAC
# The module texts of gemma3_dce.gir and gemma3_attention.gir are what gemmac dumps, and the dumps have the structure that they should.
here=$(cd "$(dirname "$0")" && pwd)
gemmac=$1
[ -x "$gemmac" ] || { echo "usage: run.sh GEMMAC"; exit 2; }
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export LC_ALL=C
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAIL $1"
}

"$gemmac" compile "$here/config.json" --no-weights --dump=all --dump-dir "$work" || exit 1
stage() { set -- "$work"/[0-9][0-9]."$1".gir; echo "$1"; } # the first of this name

# written FILE: the module of a test, expected FILE: the one it must become
written() { sed -n '/^# expect:/q; /^#/!p' "$here/$1"; }
expected() { sed '1,/^# expect:/d; s/^#$//; s/^# //' "$here/$1"; }
same() { # NAME PASS TEXT
    printf '%s\n' "$3" | diff - "$(stage "$2")" >"$work/diff" || fail "$1: differs from the dump after $2:
$(head -5 "$work/diff")"
}
same "gemma3_dce.gir as written" lower "$(written gemma3_dce.gir)"
same "gemma3_dce.gir, expectation" dce "$(expected gemma3_dce.gir)"
same "gemma3_attention.gir as written" dce "$(written gemma3_attention.gir)"
same "gemma3_attention.gir, expectation" fuse_attention "$(expected gemma3_attention.gir)"

count() { # PASS OP NUMBER: so many of these in the module after the pass
    found=$(grep -c "= $2 " "$(stage "$1")")
    [ "$found" = "$3" ] || fail "after $1: $found of $2 instead of $3"
}
# per layer: Q, K, V, output, gate, up, down; and the head
count lower matmul 15
count dce matmul 15
count fuse_attention matmul 9
count merge_qkv matmul 11
# per layer: queries, key heads, groups, one element
count lower map 8
count dce map 8
count drop_unit_map map 6
count batch_attention map 0
# one mask and one softmax per layer
count dce select 2
count dce exp 2
count batch_attention select 2
count batch_attention exp 2
count fuse_attention select 0
count fuse_attention exp 0
count fuse_attention attention 2
grep -c 'window = 3' "$(stage fuse_attention)" | grep -qx 1 || fail "after fuse_attention: not one layer with a window"

echo "$failed failed"
[ "$failed" = 0 ]
