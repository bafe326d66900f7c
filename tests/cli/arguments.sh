# Arguments that are refused, and help. Sourced by run.sh.
model=$gguf

bad no_command "see 'gemmac help'"
bad unknown_command "frobnicate.*see 'gemmac help'" frobnicate
bad unknown_flag "unknown flag --frobnicate" generate "$model" -p a --frobnicate
bad unknown_short_flag "unknown flag -z" generate "$model" -p a -z
bad flag_of_another_command "tokenize does not take --temp" tokenize "$model" --temp 1
bad value_missing "-n needs a value" generate "$model" -p a -n
bad value_for_a_switch "--ignore-eos takes no value" generate "$model" -p a --ignore-eos=1
bad number_with_letters "-n 12x.*whole number" generate "$model" -p a -n 12x
bad number_empty "whole number" generate "$model" -p a -n ""
bad number_too_large "-n 99999999999999999999.*whole number" generate "$model" -p a -n 99999999999999999999
bad number_below_range "-n -2: expected a number from -1" generate "$model" -p a -n -2
bad real_out_of_range "--top-p 1.5: expected a number from 0 to 1" generate "$model" -p a --top-p 1.5
bad real_not_a_number "--temp nan: expected a number" generate "$model" -p a --temp nan
bad real_with_two_points "--temp 0.5.5: expected a number" generate "$model" -p a --temp 0.5.5
bad real_in_hexadecimal "--temp 0x1: expected a number" generate "$model" -p a --temp 0x1
bad choice_unknown "--format xml: expected one of text.json" generate "$model" -p a --format xml
bad precision_unknown "--precision f64: expected one of auto.f32.bf16.int16.int8.block8" generate "$model" -p a --precision f64
bad wide_without_a_list "--wide needs a value" generate "$model" -p a --wide
bad wide_of_another_command "opt does not take --wide" opt -p dce --wide v_proj
bad list_with_a_hole "--ids 2,,3: expected whole numbers" generate "$model" --ids 2,,3
bad list_with_a_negative "--ids -3: expected a number from 0" generate "$model" --ids 2,-3
bad stop_empty "--stop.*not empty" generate "$model" -p a --stop ""
bad argument_left_over "unexpected argument 'b'" generate "$model" b -p a
bad model_missing "no model given" generate -p a
bad model_twice "given twice" generate "$model" -m "$model" -p a
bad prompt_missing "expected one of -p TEXT, -f FILE and --ids LIST" generate "$model"
bad prompt_twice "given twice" generate "$model" -p a --ids 2
bad prompt_empty_list "whole number" generate "$model" --ids ""
bad prompt_file_missing "no/such: cannot open" generate "$model" -f no/such
bad logits_without_output "expected -o FILE" logits "$model" --ids 2,3
cp "$data/gguf/gemma3-tiny-q8_0.gguf" "$work/read.gguf"
for command in logits profile compile; do
    bad "output_is_model_$command" 'read\.gguf: is a file of the model that is read' $command "$work/read.gguf" $([ $command = compile ] || echo --ids 2,3) -o "$work/../$(basename "$work")/read.gguf"
done
cmp -s "$data/gguf/gemma3-tiny-q8_0.gguf" "$work/read.gguf" || fail output_is_model "the model has changed"
bad detokenize_without_ids "expected --ids" detokenize "$model"
bad render_without_messages "expected --messages" render "$model"
bad perplexity_without_file "expected -f FILE" perplexity "$model"
bad bench_context_too_small "at least 512" bench "$model" -c 100
bad bench_sampling_without_temperature "greedy without a --temp" bench "$model" --top-k 5
bad opt_without_file "expected IN.gir" opt -p dce
bad run_without_file "expected IN.gir" run --interp

good version 'gemmac [0-9]+\.[0-9]+\.[0-9]+' --version
good help '.*compile .*generate .*bench .*run .*' help
good help_command 'usage: gemmac generate .*--temp X .*' help generate
good help_precision '.*--precision auto\|f32\|bf16\|int16\|int8\|block8 +arithmetic of the matrix-matrix products.*' help compile
for command in compile generate bench ablate profile plan perplexity logits; do
    good "help_wide $command" '.*--wide LIST +int8, block8: weights whose names hold one of these words keep 16 bits \(int8: v_proj,layers\.-1\., of the last layer\).*' help "$command"
done
good help_flag 'usage: gemmac bench .*--n-gen LIST .*' bench --help
good help_ops '.*matmul +contract .*scaled_matmul +contract .*attention +fused .*' help ops
good help_passes '.*merge_qkv +one projection .*plan_memory .*\(required\)' help passes
bad help_unknown "no help on 'frobnicate'" help frobnicate
