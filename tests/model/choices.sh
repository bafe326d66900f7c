#!/bin/sh
# Tokens are those of the full product of the head, whatever finds them: choices.sh GEMMAC RANDOM_CHECKPOINT DATA FOLDER
# Small models with random weights and more ids than those that guesses take for usual, with and without a soft cap: with the screened head and
# guesses, without guesses, and without a screen they must give the same tokens, greedy and sampled, with penalties and without. FOLDER holds them
# meanwhile.
name=choices
. "$(dirname -- "$0")/random_model.sh"
mkdir -p "$folder" || exit 1
ids=$(prompt 30 20011)
compared=0
for model in gemma2-256 gemma3-256; do
    "$random_checkpoint" "$data/configs/$model.json" "$folder/$model" 1 3 || exit 1
    compile() { "$gemmac" compile "$folder/$model" -c 256 -o "$folder/$model.$1.gmx" $2 2>"$folder/err" || fail "compile $model $2: $(cat "$folder/err")"; } # words
    compile usual
    compile screened "--skip guess_ahead"
    compile full "--skip screen_head,guess_ahead"
    while read -r settings; do
        tokens() { generated "$folder/$model.$1.gmx" --ids "$ids" -n 60 $settings; } # words
        full=$(tokens full)
        [ "$(count "$full")" -eq 60 ] || fail "$model $settings: expected 60 tokens, found $full"
        for form in usual screened; do
            found=$(tokens $form)
            [ "$found" = "$full" ] || fail "$model $settings, $form: $found instead of $full"
            compared=$((compared + 1))
        done
    done <<'SETTINGS'
--temp 0
--temp 0 --repeat-penalty 1.3
--temp 0 --repeat-penalty 0.8 --repeat-last-n 5
--temp 1 --seed 1
--temp 1 --seed 2 --top-k 256 --top-p 1
--temp 0.2 --seed 3 --top-k 3 --min-p 0.1
--temp 2 --seed 4 --repeat-penalty 1.2 --repeat-last-n 1000
--temp 1 --seed 5 --repeat-penalty 0.9
--temp 1 --seed 6 --top-k 0
--temp 1 --seed 7 --top-k 300
SETTINGS
done
[ $compared -eq 40 ] || fail "$compared comparisons instead of 40"
echo "$compared runs give the tokens of the full product"
