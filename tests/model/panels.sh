#!/bin/sh
# Kept panels in whole models: panels.sh GEMMAC RANDOM_CHECKPOINT DATA FOLDER
# A small model with random weights and a large vocabulary, in the int8 plan. Its panels must be there, and the tokens the same: whether the panels lie in an
# artefact, in a file without a name or in memory, from which no pages are let go of; whatever the chunks that a prompt is read in; and when an
# artefact is compiled again for another plan and back. FOLDER holds it meanwhile.
name=panels
. "$(dirname -- "$0")/random_model.sh"
mkdir -p "$folder" || exit 1
"$random_checkpoint" "$data/configs/gemma3-256.json" "$folder/model" 1 3 || exit 1
compile() { "$gemmac" compile "$@" 2>"$folder/err" || fail "compile $*: $(cat "$folder/err")"; }
compared=0
# same WANT FOUND WHAT
same() {
    [ "$(count "$1")" -eq 60 ] || fail "$3: expected 60 tokens, found $1"
    [ "$1" = "$2" ] || fail "$3: $2 instead of $1"
    compared=$((compared + 1))
}
int8="-c 400 --precision int8"
compile "$folder/model" $int8 -o "$folder/kept.gmx"
"$gemmac" inspect "$folder/kept.gmx" --format json >"$folder/inspected" || fail "inspect"
grep -q 'layers.0.mlp.down_proj.weight:p16' "$folder/inspected" || fail "no panels in the artefact"
grep -q 'layers.2.mlp.down_proj.weight:p16' "$folder/inspected" && fail "panels of the last layer, which has 16 bits"
for length in 7 100 300; do # 300: long enough that pages are let go of, and five chunks of at most 64
    ids=$(prompt $length 20011)
    for sampling in "--temp 0" "--temp 1 --seed 3"; do
        want=$(generated "$folder/kept.gmx" --ids "$ids" -n 60 $sampling)
        same "$want" "$(generated "$folder/model" $int8 --ids "$ids" -n 60 $sampling)" "$length tokens, $sampling, in a file"
        same "$want" "$(TMPDIR=/nowhere/at/all generated "$folder/model" $int8 --ids "$ids" -n 60 $sampling)" "$length tokens, $sampling, in memory"
        for chunk in 64 150; do
            same "$want" "$(generated "$folder/model" $int8 --chunk $chunk --ids "$ids" -n 60 $sampling)" "$length tokens, $sampling, chunks of $chunk"
        done
    done
done
ids=$(prompt 100 20011)
for options in "--precision block8" "--precision f32" "--precision int8 --target-cpu haswell" "--precision int8 --skip keep_panels"; do
    want=$(generated "$folder/model" -c 400 $options --ids "$ids" -n 60 --temp 0)
    same "$want" "$(generated "$folder/kept.gmx" $options --ids "$ids" -n 60 --temp 0)" "the artefact with $options"
    case $options in *haswell*) continue ;; esac # the way back needs this CPU's name
    compile "$folder/kept.gmx" $options -o "$folder/other.gmx"
    compile "$folder/other.gmx" $int8 --skip "" -o "$folder/back.gmx"
    same "$(generated "$folder/kept.gmx" --ids "$ids" -n 60 --temp 0)" "$(generated "$folder/back.gmx" --ids "$ids" -n 60 --temp 0)" "there and back with $options"
done
[ $compared -eq 31 ] || fail "$compared comparisons instead of 31"
echo "$compared runs give the same tokens"
