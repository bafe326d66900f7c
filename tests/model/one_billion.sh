#!/bin/sh
# A model of Gemma 3 1B's shape with random bf16 weights, 2 GB: one_billion.sh GEMMAC RANDOM_CHECKPOINT DATA FOLDER
# It must load without a second copy of the weights, and its two ways through a prompt (matrix-matrix chunks, and one token at a time
# through the kernels of decode) must draw the same tokens in the f32 plan; the integers of others flip choices of random weights. FOLDER
# holds it meanwhile.
name=one_billion
. "$(dirname -- "$0")/random_model.sh"
"$random_checkpoint" "$data/configs/gemma-3-1b.json" "$folder" 3 || exit 1
ids=$(prompt 40 262144)
tokens() { generated "$folder" --ids "$ids" -n 6 --temp 1 --top-k 40 --seed 7 "$@"; }
chunked=$(tokens --precision f32) || fail "generate"
single=$(tokens --precision f32 --skip chunk_prefill) || fail "generate --skip chunk_prefill"
usual=$(tokens) || fail "generate in the usual plan"
[ "$(count "$usual")" -eq 6 ] || fail "generate in the usual plan: expected 6 tokens, found $usual"
[ "$(count "$chunked")" -eq 6 ] || fail "expected 6 tokens, found $chunked"
[ "$chunked" = "$single" ] || fail "chunks of tokens give $chunked, single tokens $single"

weights=$(cat "$folder"/*.safetensors | wc -c)
peak=$("$gemmac" bench "$folder" -p 64 -n 2 -r 1 --precision f32 --format json | sed -n 's/.*"peak memory","mean":\([0-9]*\).*/\1/p')
[ -n "$peak" ] || fail "bench prints no peak memory"
[ "$peak" -le $((weights * 5 / 4000000)) ] || fail "peak memory $peak MB for $weights bytes of weights, expected at most 5/4 of them"
echo "tokens $chunked, peak memory $peak MB for $((weights / 1000000)) MB of weights"
