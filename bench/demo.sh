#!/bin/sh
# The demonstration, from nothing: set up, compile Gemma 3 270M into an artefact, generate from it, measure. bench/demo.sh [PROMPT]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${GEMMAC_BUILD:-$root/build}
prompt=${1:-The capital of France is Paris. The capital of Germany is}
sh "$root/tests/setup.sh"
model=$root/build/deps/models/gemma-3-270m-q4_k_m.gguf
artefact=$build/gemma-3-270m.gmx

show() {
    printf '\n$ gemmac'
    for word; do
        case $word in
        *[!A-Za-z0-9_./=-]*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$build/gemmac" "$@"
}

show compile "$model" -o "$artefact"
show generate "$artefact" -p "$prompt" -n 100 --temp 0
show bench "$artefact" -p 512 -n 64 -r 3
