#!/bin/sh
# Measures the report's experiments here and writes bench/report.md with bench/report.svg: bench/report.sh [MODEL]
# MODEL: Gemma 3 270M as tests/setup.sh fetches it when none is given. RUNS, TOKENS: 5 and 100 unless set. Nothing else should run
# meanwhile; it takes about 10 minutes with the 270M.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${GEMMAC_BUILD:-$root/build}
gemmac=$build/gemmac
model=${1:-$build/deps/models/gemma-3-270m-q4_k_m.gguf}
runs=${RUNS:-5}
tokens=${TOKENS:-100}
prompt="The capital of France is Paris. The capital of Germany is"
out=$root/bench/report.md
[ -x "$gemmac" ] || { echo "report: no $gemmac: run tests/setup.sh first" >&2; exit 1; }
[ -f "$model" ] || [ -d "$model" ] || { echo "report: no model $model" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

cpu_field() { lscpu | sed -n "s/^$1: *//p" | head -n 1; }
features() { cpu_field Flags | tr ' ' '\n' | grep -E '^(avx2|fma|avx512f|avx512_vnni|avx512_bf16|avx_vnni|amx_bf16|amx_int8)$' | tr '\n' ' '; }
onednn() { readlink -f "$(ldd "$gemmac" | sed -n 's/.*libdnnl[^ ]* => \([^ ]*\).*/\1/p')" | sed 's/.*\.so\.//'; }
llvm() { ldd "$gemmac" | sed -n 's/.*libLLVM[^0-9]*\([0-9.]*[0-9]\).*=>.*/\1/p' | head -n 1; }

"$gemmac" ablate "$model" -p "$prompt" -n "$tokens" -c 1024 -r "$runs" --format md --svg "$work/report.svg" >"$work/ablate"
"$gemmac" profile "$model" -p "$prompt" -n "$tokens" -o "$work/trace.json" >"$work/profile"
"$gemmac" plan "$model" >"$work/plan"
"$gemmac" bench "$model" -p 128,512,2048 -n 64 -r "$runs" >"$work/bench"

{
    echo "# The report's experiments, measured by gemmac"
    echo
    echo "Written by \`bench/report.sh\` on $(date -u +%Y-%m-%d), not edited. The report measured Gemma 3 in JAX on an accelerator; here the"
    echo "same experiments are passes over the same naive IR, run on a CPU."
    echo
    echo "| | |"
    echo "|---|---|"
    echo "| model | $(basename "$model"), $(du -Lsm "$model" | cut -f1) MiB |"
    echo "| CPU | $(cpu_field 'Model name'), family $(cpu_field 'CPU family') model $(cpu_field 'Model'), $(nproc) CPUs: $(features)|"
    echo "| memory | $(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo | awk '{ printf "%.1f GiB", $1 / 1048576 }') |"
    echo "| software | $("$gemmac" --version), LLVM $(llvm), oneDNN $(onednn), $(cc --version | head -n 1), commit $(git -C "$root" rev-parse --short HEAD) |"
    echo
    echo "## Program variants"
    echo
    echo "![bars per variant](report.svg)"
    echo
    echo "\`gemmac ablate MODEL -n $tokens -c 1024 -r $runs\`; the last column is the report's prefill / generation / total on its own device."
    echo
    cat "$work/ablate"
    echo
    echo "## Where the remaining time goes"
    echo
    echo "\`gemmac profile MODEL -n $tokens\` of the full pipeline:"
    echo
    echo '```'
    cat "$work/profile"
    echo '```'
    echo
    echo "## What the machine allows"
    echo
    echo '```'
    cat "$work/plan"
    echo '```'
    echo
    echo "\`gemmac bench MODEL -p 128,512,2048 -n 64 -r $runs\`:"
    echo
    echo '```'
    cat "$work/bench"
    echo '```'
} >"$work/report.md"
cp "$work/report.svg" "$root/bench/report.svg"
cp "$work/report.md" "$out"
echo "$out"
