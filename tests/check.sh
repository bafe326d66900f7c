#!/bin/sh
# Every test, from nothing: set up, then ctest with the real model. The last line is ctest's summary. tests/check.sh [CTEST ARGUMENT…]
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${GEMMAC_BUILD:-$root/build}
sh "$root/tests/setup.sh" || exit 1
GEMMAC_270M=$root/build/deps/models/gemma-3-270m-q4_k_m.gguf
export GEMMAC_270M
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
ctest --test-dir "$build" --parallel "$(getconf _NPROCESSORS_ONLN)" --output-on-failure --output-log "$log" "$@"
status=$?
grep 'tests passed, .* tests failed out of' "$log" || echo "no tests were found in $build"
exit "$status"
