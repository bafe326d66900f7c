#!/bin/sh
# A program that gemmac is part of says what the command line says: run.sh GEMMAC EMBED DATA
gemmac=$1 embed=$2 model=$3/gguf/gemma3-tiny-q8_0.gguf
fail() {
    echo "embed: $*" >&2
    exit 1
}
expected=$("$gemmac" generate "$model" -p 'a dog' -n 24 --temp 0 -c 512) || fail "gemmac generate fails"
found=$("$embed" "$model" 'a dog' 24) || fail "it fails"
[ -n "$found" ] || fail "it says nothing"
[ "$found" = "$expected" ] || fail "expected '$expected', found '$found'"
"$embed" /nowhere.gguf 'a dog' 24 2>/dev/null && fail "a model that is not there is no error"
"$embed" "$3/tiny/gemma3-tiny" 'a dog' 24 2>/dev/null && fail "a model without a tokenizer is no error"
exit 0
