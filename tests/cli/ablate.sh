# gemmac ablate: which rows, compared with which, in each form. Sourced by run.sh; no figure is judged.
some="--ids 2,5,9 -n 4 -r 2 -t 2"
number="($real|null)"
row() { printf '\\{"row":"%s","base":%s,("[a-z_]+":%s,){6}"effect_percent":%s,"effect_low":%s,"effect_high":%s,"noise":%s,"same_tokens":true,"tokens_differ_at":null,"logit_margin":%s,"group":%s,"memory_bytes":[0-9]+,"same_program":%s\\}' \
    "$1" "$2" "$real" "$number" "$number" "$number" "$3" "$number" "$4" "$5"; }
json ablate_json "\\[ $(row host-loop null null 1 false), $(row device-generate '"host-loop"' '(true|false)' 1 false) \\]" ablate "$gguf" $some --rows device-generate --format json
json ablate_base "\\[ $(row host-loop '"full"' '(true|false)' 1 false), $(row full null null 1 false) \\]" ablate "$gguf" $some --rows host-loop --base full --format json
json ablate_in_groups "\\[ .*\"group\":1,.*\"group\":2,.* \\]" ablate "$gguf" $some --rows device-generate,full --base host-loop --memory 1 --format json
good ablate_text 'row +base +prefill s .* host-loop .* device-generate +host-loop .* f32 plan, 3 prompt tokens, 4 new tokens, greedy, context 512; mean ± std of 2 runs after a warm-up; tokens compared with host-loop.s\. All rows were open together and run in turn\. report, s: .*' \
    ablate "$gguf" $some --rows device-generate
good ablate_md '\| row +\| base .*\|---\|.*\| device-generate +\| host-loop .*- \*\*device-generate\*\* \(generation is one loop in the IR\), against host-loop: .*' ablate "$gguf" $some --rows device-generate --format md
gm ablate "$gguf" $some --rows device-generate --format csv
check ablate_csv "$(head -c 600 "$work/out" "$work/err")" [ "$(wc -l <"$work/out")" -eq 3 ]
check ablate_csv_names "$(head -n 1 "$work/out")" grep -q '^row,base,prefill_mean,.*,memory_bytes,same_program$' "$work/out"
check ablate_csv_fields "$(cat "$work/out")" [ "$(awk -F, '{ print NF }' "$work/out" | sort -u)" = 18 ]
check ablate_csv_no_base "$(cat "$work/out")" grep -Eq '^host-loop,,' "$work/out"
gm ablate "$gguf" $some --rows device-generate --svg rows.svg
check ablate_svg "$(head -c 300 "$work/err")" grep -q '^<svg' "$work/cwd/rows.svg"
check ablate_svg_rows "not all rows" [ "$(grep -Ec '>(host-loop|device-generate)<' "$work/cwd/rows.svg")" -ge 2 ]
bad ablate_unknown_row '--rows nope: expected one of host-loop, .*' ablate "$gguf" $some --rows host-loop,nope
bad ablate_unknown_base '--base nope: expected one of host-loop, .*' ablate "$gguf" $some --base nope
bad ablate_no_room 'need a context of at least 7' ablate "$gguf" $some -c 6
bad ablate_no_folder 'none/rows.svg' ablate "$gguf" $some --rows host-loop --svg none/rows.svg
