# The machine-readable outputs, and that commands agree with each other. Sourced by run.sh.
# ---- tokenize, detokenize, render ----
printf 'the the' >"$work/the.txt"
input=$work/the.txt
json tokenize '\{"ids":\[2,279,265,269\]\}' tokenize "$gguf" --format json
json tokenize_no_bos '\{"ids":\[279,265,269\]\}' tokenize "$gguf" --no-bos --format json
good tokenize_text ' *2 "<bos>" +279 .*' tokenize "$gguf"
input=/dev/null
json tokenize_nothing '\{"ids":\[2\]\}' tokenize "$gguf" --format json
json tokenize_nothing_no_bos '\{"ids":\[\]\}' tokenize "$gguf" --no-bos --format json
json tokenize_flag '\{"ids":\[2,279,265\]\}' tokenize -m "$gguf" -p the --format=json
json detokenize '\{"text":"the the"\}' detokenize "$gguf" --ids 279,265,269 --format json
json detokenize_control '\{"text":"<bos>the"\}' detokenize "$gguf" --ids 2,279,265 --format json
json detokenize_skips_control '\{"text":"the"\}' detokenize "$gguf" --ids 2,279,265 --skip-special --format json
printf 'a "quote", a \\ and \001\t\177, é世界, cut \303' >"$work/odd.txt"
json tokenize_odd_text "\\{\"ids\":\\[$ids\\]\\}" tokenize "$gguf" -f "$work/odd.txt" --no-bos --format json
list=$(field "$work/out" ids | tr -d '[]')
json detokenize_odd_text '\{"text":"a \\"quote\\", a \\\\ and \\u0001\\t\\u007f, é世界, cut �"\}' detokenize "$gguf" --ids "${list:-0}" --format json
printf '[{"role":"user","content":"Hi \\"you\\""}]' >"$work/chat.json"
turn='<bos><start_of_turn>user\\nHi \\"you\\"<end_of_turn>\\n'
json render "\\{\"text\":\"$turn<start_of_turn>model\\\\n\",\"ids\":\\[2,$ids\\]\\}" render "$gguf" --messages "$work/chat.json" --format json
json render_closed "\\{\"text\":\"$turn\",\"ids\":\\[2,$ids\\]\\}" render "$gguf" --messages "$work/chat.json" --no-generation-prompt --format json
good render_text '<bos><start_of_turn>user Hi "you"<end_of_turn> <start_of_turn>model' render "$gguf" --messages "$work/chat.json"

# ---- generate ----
generated() { printf '\\{"prompt_ids":\\[%s\\],"ids":\\[%s\\],"text":"%s","stop":"%s","prefill_s":%s,"generate_s":%s\\}' "$1" "$2" "$3" "$4" "$real" "$real"; }
for model in "$hf" "$gguf"; do
    json "generate_json $model" "$(generated 2,5,9 "$ids" '.*' length)" generate "$model" --ids 2,5,9 -n 6 --temp 0 --ignore-eos --format json
    six=$(field "$work/out" ids)
    json "generate_prefix $model" "$(generated 2,5,9 "$ids" '.*' length)" generate "$model" --ids 2,5,9 -n 3 --temp 0 --ignore-eos --format json
    three=$(field "$work/out" ids)
    check "generate_prefix_agrees $model" "$three / $six" [ "${six#"${three%]}",}" != "$six" ]
done
text_ids=$six
json generate_one_thread "$(generated 2,5,9 "$ids" '.*' length)" generate "$gguf" --ids 2,5,9 -n 6 --temp 0 --ignore-eos -t 1 --format json
check generate_threads_agree "$text_ids / $(cat "$work/out")" [ "$(field "$work/out" ids)" = "$text_ids" ]
json generate_prompt "$(generated 2,279,265 "$ids" '.*' length)" generate "$gguf" -p the -n 2 --temp 0 --ignore-eos --format json
json generate_from_file "$(generated 2,279,265,269 "$ids" '.*' length)" generate "$gguf" -f "$work/the.txt" -n 2 --temp 0 --ignore-eos --format json
json generate_nothing "$(generated 2 '' '' length)" generate "$gguf" --ids 2 -n 0 --format json
json generate_to_the_end "$(generated 2,5 "[0-9]+(,[0-9]+){5}" '.*' length)" generate "$gguf" --ids 2,5 -c 8 -n -1 --ignore-eos --temp 0 --format json
json generate_seed_0 "$(generated 2,5,9 "$ids" '.*' length)" generate "$gguf" --ids 2,5,9 -n 24 --temp 1 --seed 0 --ignore-eos --format json
sampled=$(field "$work/out" ids)
json generate_seed_0_again "$(generated 2,5,9 "$ids" '.*' length)" generate "$gguf" --ids 2,5,9 -n 24 --temp 1 --seed 0 --ignore-eos --format json
check generate_seed_0_repeats "$sampled / $(cat "$work/out")" [ "$(field "$work/out" ids)" = "$sampled" ]
json generate_sampled "$(generated 2,5,9 "$ids" '.*' '[a-z]+')" generate "$gguf" --ids 2,5,9 -n 8 --temp 1.5 --seed 7 --format json
sampled=$(field "$work/out" ids)
json generate_sampled_again "$(generated 2,5,9 "$ids" '.*' '[a-z]+')" generate "$gguf" --ids 2,5,9 -n 8 --temp 1.5 --seed 7 --format json
check generate_is_repeatable "$sampled / $(cat "$work/out")" [ "$(field "$work/out" ids)" = "$sampled" ]
gm generate "$gguf" --ids 2,5,9 -n 24 --temp 0 --ignore-eos --format json
text=$(sed -n 's/.*"text":"\(.*\)","stop".*/\1/p' "$work/out")
stop=$(printf %s "$text" | grep -Eo '[a-z ]{2,}' | head -n 1)
if [ -n "$stop" ]; then
    before=${text%%"$stop"*}
    gm generate "$gguf" --ids 2,5,9 -n 24 --temp 0 --ignore-eos --stop "$stop" --format json
    check generate_stops "text before '$stop' of $text expected: $(cat "$work/out")" grep -qF -e "\"text\":\"$before\",\"stop\":\"stop\"" "$work/out"
fi
# An answer that ends within a character: that may complete a text to stop at, and comes after what was held back for one.
json generate_cut_character "$(generated 2,5,7 "$ids" '.*\+s�' length)" generate "$gguf" --ids 2,5,7 -n 5 --temp 0 --precision f32 --format json
json generate_stops_in_the_end "$(generated 2,5,7 "$ids" '.*\+' stop)" generate "$gguf" --ids 2,5,7 -n 5 --temp 0 --precision f32 --stop s� --format json
json generate_held_back "$(generated 2,5,7 "$ids" '.*\+s�' length)" generate "$gguf" --ids 2,5,7 -n 5 --temp 0 --precision f32 --stop s�X --format json
good generate_text '.*' generate "$gguf" -p the -n 4 --temp 0
check generate_reports_speed "$(cat "$work/err")" grep -Eq '^prefill 3 tokens [0-9.]+ tok/s, decode [0-9]+ tokens [0-9.]+ tok/s' "$work/err"

# ---- logits ----
for model in "$hf" "$gguf"; do
    gm logits "$model" --ids 2,5,9 -o out.safetensors
    check "logits $model" "$(cat "$work/err")" [ "$status" -eq 0 ]
    check "logits_header $model" "not found" grep -aqF '{"logits":{"dtype":"F32","shape":[3,288],"data_offsets":[0,3456]}}' "$work/cwd/out.safetensors"
    header=$(od -An -tu8 -N8 "$work/cwd/out.safetensors" 2>/dev/null | tr -d ' ')
    check "logits_size $model" "header $header" [ "$(wc -c <"$work/cwd/out.safetensors")" -eq $((8 + ${header:-0} + 3456)) ]
    check "logits_one_file $model" "$(ls -A "$work/cwd")" [ "$(ls -A "$work/cwd")" = out.safetensors ]
done

# ---- compile ----
gm compile "$gguf"
check compile_default_name "$(ls -A "$work/cwd") $(cat "$work/err")" [ "$(ls -A "$work/cwd")" = gemma3-tiny-q8_0.gmx ]
cp "$work/cwd"/*.gmx "$work/model.gmx" 2>/dev/null
json generate_compiled "$(generated 2,5,9 "$ids" '.*' length)" generate "$work/model.gmx" --ids 2,5,9 -n 6 --temp 0 --ignore-eos --format json
check compiled_agrees "$text_ids / $(cat "$work/out")" [ "$(field "$work/out" ids)" = "$text_ids" ]
json tokenize_compiled '\{"ids":\[2,279,265\]\}' tokenize "$work/model.gmx" -p the --format json
gm compile "$gguf" -t 1 -o one.gmx
cp "$work/cwd/one.gmx" "$work/one.gmx"
gm compile "$gguf" -t 3 -o three.gmx
same compiled_alike_by_any_threads "$work/one.gmx" "$work/cwd/three.gmx"
gm compile "$gguf" --dump=after:dce
check dump_prints_ir "$(head -c 300 "$work/err")" grep -q 'func @' "$work/out"
check dump_only "left: $(ls -A "$work/cwd")" [ -z "$(ls -A "$work/cwd")" ]
cp "$work/out" "$work/dump.gir"
good dump_parses_back '.*func @.*' opt "$work/dump.gir"
gm compile "$gguf" --dump=all --dump-dir dumps
check dump_all "$(ls "$work/cwd" "$work/err")" [ "$(ls "$work/cwd/dumps" 2>/dev/null | wc -l)" -ge 10 ]
gm compile "$gguf" --dump=llvm
check dump_llvm "$(head -c 300 "$work/err")" grep -q '^define ' "$work/out"
gm compile "$gguf" --dump=asm
check dump_asm "$(head -c 300 "$work/err")" grep -q 'ret' "$work/out"
# other_cpu NAME CPU PRECISION INSTRUCTION: code for a CPU that this machine may not be has the instruction in vectors of 512 bits, none as two.
other_cpu() {
    gm compile "$hf" --no-weights -c 64 --dump=asm --target-cpu="$2" --precision "$3"
    check "$1" "$(head -c 300 "$work/err")" grep -q "$4.*%zmm" "$work/out"
    check "$1_alone" "$(grep -m3 vpmaddwd "$work/out")" [ "$(grep -c 'vpmaddwd.*%zmm' "$work/out")" = 0 ]
}
other_cpu dump_zen4 znver4 int8 vpdpbusd
other_cpu dump_emerald_rapids emeraldrapids int16 vpdpwssd
gm compile "$gguf" --dump=dot
check dump_dot "$(head -c 300 "$work/err")" grep -q '^digraph' "$work/out"
# wide NAME INT16 INT8 ARGUMENT…: how many products of the int8 plan have integers of 16 bits and of 8.
wide() {
    wide_name=$1 wide_counts="$2 $3"
    shift 3
    gm compile "$gguf" -c 128 --precision int8 --skip last_row --dump=after:lower_precision "$@"
    counts="$(grep -c 'scaled_matmul.*bits = 12}' "$work/out") $(grep -c 'scaled_matmul.*bits = 8, rotate = 1}' "$work/out")"
    check "$wide_name" "$counts products instead of $wide_counts: $(head -c 300 "$work/err")" [ "$counts" = "$wide_counts" ]
}
wide wide_usual 15 44
cp "$work/out" "$work/usual"
wide wide_written_out 15 44 --wide v_proj,layers.-1.
check wide_usual_is "the usual list is another" cmp -s "$work/usual" "$work/out"
wide wide_none 0 48 --wide ''
wide wide_all 48 0 --wide proj
wide wide_some 12 36 --wide mlp.down
bad wide_names_nothing "--wide v_porj: no weight.s name holds this word" compile "$gguf" --precision int8 --wide v_proj,v_porj -o out.gmx
bad wide_beyond_the_layers "--wide layers.-99.: no weight" compile "$gguf" --precision block8 --wide layers.-99. -o out.gmx
# --explain: reasons and nothing else. explained: a line for each product, behind the choice that was made for it.
explained() {
    awk '/^ /{sub(/^ +/, ""); print choice " | " $0; next} {choice = $0}' "$work/out" >"$work/lines"
}
explains() { # NAME REGEX
    check "$1" "$(head -c 600 "$work/out" "$work/err")" grep -Eq "$2" "$work/lines"
}
gm compile "$gguf" --precision int16 --explain --no-weights
explained
check explain_once "$(grep '^[a-z]' "$work/out" | sort | uniq -d | head -3)" [ -z "$(grep '^[a-z]' "$work/out" | sort | uniq -d)" ]
explains explain_text '^choose_matmul: gemv_int16, since rows of x: 1, at most 6.* \| forward\.T1 +[0-9]+x %[a-z_]+ = matmul f32\[1,[0-9]+\] '
explains explain_code '^code: .*gemv.*\| head\.R1 +1x %logits = matmul |^code: gemv(_int16)?_q8_0(_r16)?, since .*\| forward\.T1 +[0-9]+x %[a-z_]+ = matmul '
explains explain_plan '^lower_precision: int16, since plan int16.* \| forward +[0-9]+x %[a-z_]+ = matmul '
explains explain_one_token '^code: attention of one token, .*a window of [0-9]+ keys, a cache of [0-9]+ slots in bf16, K by row; .*tiles of [0-9]+ keys by.* \| forward\.T1 +[0-9]+x %attention = attention '
explains explain_many_tokens '^code: attention of blocks of tokens, since tokens: more than 6; all keys before, .*panel of 128 keys (that is packed once for all of them|of their own), in (floats|integers of 16 bits), tiles of [0-9]+ rows.* \| forward +[0-9]+x %attention = attention '
explains explain_head '^screen_head: the full product, since W has a number of columns that a screen cannot have.* \| head\.R1 +1x %logits = matmul '
check explain_only "left: $(ls -A "$work/cwd")" [ -z "$(ls -A "$work/cwd")" ]
json explain_json '\[ \{"step":"[a-z_]+","func":"[a-zA-Z0-9.]+","what":"[^"]+","choice":"[^"]+","reason":"[^"]+","count":[0-9]+\}(, \{"step":[^}]*\})* \]' \
    compile "$gguf" --explain --no-weights --format json
gm compile "$gguf" --explain --precision f32 -o explained.gmx
check explain_artefact "$(ls -A "$work/cwd")" [ "$(ls -A "$work/cwd")" = explained.gmx ]
check explain_f32 "$(head -c 600 "$work/out")" grep -q 'plan f32: W is widened a slice at a time' "$work/out"
# --measure: what was measured is the reason, is kept, and is used again; which way was the fastest is nobody's business here.
gm compile "$gguf" --precision int16 --measure --explain -o measured.gmx
explained
explains measured_reason '^choose_matmul: integer(, tile [48])?, since measured [0-9.e+-]+ ms of one thread; integer.* \| forward +[0-9]+x %[a-z_]+ = matmul '
grep '^choose_matmul: .*| forward  ' "$work/lines" >"$work/reasons"
cp "$work/cwd/measured.gmx" "$work/measured.gmx"
json measured_inspect '.*"measured":\[\{"what":"int16 f32\[[0-9,]+\] q8_0.*","choice":"integer","seconds":[0-9.e-]+\},.*\]\},"defaulted":.*' inspect "$work/measured.gmx" --format json
good measured_inspect_text '.*measured +int16 f32\[.*: integer, tile 4, [0-9.e+-]+ ms measured .*' inspect "$work/measured.gmx"
gm compile "$work/measured.gmx" --explain
explained
check measured_again "$(head -c 600 "$work/out")" [ "$(grep '^choose_matmul: .*| forward  ' "$work/lines")" = "$(cat "$work/reasons")" ]
gm compile "$work/measured.gmx" --explain --target-cpu x86-64-v2 --no-weights
check measured_elsewhere "$(head -c 600 "$work/out")" [ "$(grep -c measured "$work/out")" = 0 ]
gm generate "$work/measured.gmx" --ids 2,5 -n 2 --temp 0 --time
check measured_runs "$(cat "$work/err")" grep -q 'warm start' "$work/err"
json measured_generate '\{"prompt_ids":\[2,5\],"ids":\[[0-9]+,[0-9]+\],.*\}' generate "$gguf" --measure --ids 2,5 -n 2 --temp 0 --ignore-eos --format json
bad measure_without_weights 'needs the weights' compile "$gguf" --measure --no-weights --explain
bad dump_unknown 'nope' compile "$gguf" --dump=nope

# ---- perplexity and bench ----
text=$here/run.sh
json perplexity "\\{\"tokens\":[0-9]+,\"nll\":$real,\"ppl\":$real\\}" perplexity "$gguf" -f "$text" -c 64 --tokens 200 --format json
check perplexity_tokens "$(cat "$work/out")" [ "$(field "$work/out" tokens)" = 189 ]
json perplexity_kl "\\{\"tokens\":63,\"nll\":$real,\"ppl\":$real,\"kl_mean\":$real,\"kl_p99\":$real,\"kl_max\":$real,\"top1\":$real\\}" \
    perplexity "$gguf" -f "$text" -c 64 --tokens 64 --kl-base f32 --format json
json perplexity_kl_of_itself '\{.*"kl_max":(0|[0-9.]+e-(0[789]|1[0-9])),"top1":1\}' \
    perplexity "$gguf" -f "$text" -c 64 --tokens 64 --precision f32 --kl-base f32 --format json
json perplexity_kl_of_int16 "\\{.*\"kl_mean\":0\\.000[0-9]*[1-9][0-9]*,.*\\}" \
    perplexity "$gguf" -f "$text" -c 128 --tokens 128 --precision int16 --kl-base f32 --format json
json perplexity_kl_of_int8 "\\{.*\"kl_mean\":0\\.0[0-9]*[1-9][0-9]*,.*\\}" \
    perplexity "$gguf" -f "$text" -c 128 --tokens 128 --precision int8 --kl-base f32 --format json
row() { printf '\\{"test":"%s","mean":%s,"std":%s,"unit":"%s"\\}' "$1" "$real" "$real" "$2"; }
json bench "\\[ $(row pp16 tok/s), $(row pp32 tok/s), $(row tg8 tok/s), $(row load s), $(row compile s), $(row 'peak memory' MB) \\]" \
    bench "$gguf" -p 16,32 -n 8 -r 2 -t 2 --format json
# An artefact is measured as it was compiled, unless its context is too small.
gm compile "$gguf" -o "$work/bench.gmx" -c 64
gm bench "$work/bench.gmx" -p 4 -n 2 -r 1 -t 2 --time
check bench_artefact "compiled again: $(head -c 300 "$work/err")" grep -q "^warm start" "$work/err"
gm bench "$work/bench.gmx" -p 100 -n 2 -r 1 -t 2 --time
check bench_artefact_too_small "$(head -c 300 "$work/err")" grep -q plan_memory "$work/err"
json bench_depth "\\[ $(row 'pp16 @ d32' tok/s), $(row 'tg8 @ d32' tok/s), .*\\]" bench "$gguf" -p 16 -n 8 -d 32 -r 1 --format json
json bench_depths "\\[ $(row 'tg8' tok/s), $(row 'tg4' tok/s), $(row 'tg8 @ d24' tok/s), $(row 'tg4 @ d24' tok/s), $(row 'tg8 @ d9' tok/s), $(row 'tg4 @ d9' tok/s), .*\\]" \
    bench "$gguf" -p 0 -n 8,4 -d 0,24,9 -r 2 --format json
json bench_rings "\\[ $(row 'pp16 @ d40' tok/s), $(row 'tg8 @ d40' tok/s), $(row 'pp16' tok/s), $(row 'tg8' tok/s), .*\\]" \
    bench "$gguf" -p 16 -n 8 -d 40,0 -r 1 --chunk 4 --with kv_ring --format json
json bench_sampled "\\[ $(row tg8 tok/s), .*\\]" bench "$gguf" -p 0 -n 8 -r 1 --temp 0.8 --top-k 5 --repeat-penalty 1.1 --seed 3 --format json
good bench_text 'test .*pp16 .*tok/s +tg8 .*' bench "$gguf" -p 16 -n 8 -r 1
# A vocabulary that ends texts with <eos>: tokenize does, where it begins them with <bos>; a prompt goes on.
cp "$gguf" "$work/eos.gguf" && chmod u+w "$work/eos.gguf"
poke "$work/eos.gguf" $(($(offset "$work/eos.gguf" 'tokenizer.ggml.add_eos_token') + 28 + 4)) '\001' # behind the key and the type
json eos_added '\{"ids":\[2,[0-9,]*,1\]\}' tokenize "$work/eos.gguf" -p 'the dog' --format json
json eos_not_without_bos '\{"ids":\[[0-9,]*[02-9]\]\}' tokenize "$work/eos.gguf" -p 'the dog' --no-bos --format json
json eos_not_in_prompts '\{"prompt_ids":\[2,[0-9,]*[02-9]\],.*' generate "$work/eos.gguf" -p 'the dog' -n 1 --temp 0 --format json
