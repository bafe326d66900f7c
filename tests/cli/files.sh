# Files that are written: in place when all is there, never over the model, and what they are written to. Sourced by run.sh.
mkdir "$work/own" && cp "$hf"/* "$work/own/"
cp "$gguf" "$work/own.gguf"
printf '{"architecture":"own/config.json","weights":["own/model.safetensors"]}' >"$work/own.json"
for file in config.json model.safetensors; do
    bad "compile_over $file" "own/$file: is a file of the model" compile "$work/own" -o "$work/own/$file"
    bad "compile_manifest_over $file" "own/$file: is a file of the model" compile "$work/own.json" -o "$work/own/$file"
    bad "logits_over $file" "own/$file: is a file of the model" logits "$work/own" --ids 2,3 -o "$work/own/$file"
    bad "profile_over $file" "own/$file: is a file of the model" profile "$work/own" --ids 2,3 -n 1 -r 1 --no-probe -o "$work/own/$file"
    same "still_there $file" "$work/own/$file" "$hf/$file"
done
bad compile_over_manifest 'own.json: is a file of the model' compile "$work/own.json" -o "$work/own.json"
bad ablate_over_model 'own.gguf: is a file of the model' ablate "$work/own.gguf" --ids 2,3 -n 2 -r 1 --rows host-loop --svg "$work/own.gguf"
ln -s own.gguf "$work/link.gguf"
bad compile_over_link 'link.gguf: is a file of the model' compile "$work/own.gguf" -o "$work/link.gguf"
same still_there_too "$work/own.gguf" "$gguf"

# written ARGUMENT…: a file of logits, without the compiler's progress.
gm logits "$gguf" --ids 2,3 -o plain.st && cp "$work/cwd/plain.st" "$work/plain.st"
printf 'old' >"$work/target.st" && ln -sf target.st "$work/link.st"
gm logits "$gguf" --ids 2,3 -o "$work/link.st"
same link_is_followed "$work/target.st" "$work/plain.st"
check link_stays "$(ls -l "$work/link.st")" [ -L "$work/link.st" ]
gm logits "$gguf" --ids 2,3 -o /dev/stdout
same device_is_written_to "$work/out" "$work/plain.st"
gm logits "$gguf" --ids 2,3 -o -
same dash_is_standard_output "$work/out" "$work/plain.st"
check dash_is_no_file "$(ls -A "$work/cwd")" [ -z "$(ls -A "$work/cwd")" ]
bad empty_name 'expected the name of a file' logits "$gguf" --ids 2,3 -o ''
bad dump_of_no_run 'after:kv_ring: the pass is not run here' compile "$gguf" --no-weights --dump=after:kv_ring
bad dump_of_a_skipped_pass 'after:merge_qkv: the pass is not run here' compile "$gguf" --no-weights --skip merge_qkv --dump=after:merge_qkv
bad plan_no_room 'must be 1..512 for this model, found 600' plan "$gguf" -p 536 -n 64 --no-probe
bad plan_no_room_in_context 'need a context of at least 600, found 64' plan "$gguf" -p 536 -n 64 -c 64 --no-probe
bad threads_out_of_range '--threads.*0 to 64|-t.*0 to 64' generate "$gguf" -p the -t 65
good bench_fills_the_context 'test .*pp512 .*' bench "$gguf" -p 512 -n 0 -r 1
input=$work/chat.json
printf '[{"role":"user","content":"Hi"}]' >"$work/chat.json"
good render_standard_input '<bos><start_of_turn>user Hi<end_of_turn> <start_of_turn>model' render "$gguf" --messages -
input=/dev/null
if [ -w /dev/full ]; then
    (cd "$work/cwd" && timeout 60 "$gemmac" generate "$gguf" -p the -n 400 --ignore-eos >/dev/full 2>"$work/err")
    check generate_to_a_full_disk "$(cat "$work/err")" grep -q '^gemmac: standard output: cannot write: No space' "$work/err"
    check generate_says_nothing_else "$(cat "$work/err")" [ "$(wc -l <"$work/err")" = 1 ]
fi
if [ "$(id -u)" != 0 ]; then
    chmod 000 "$work/own.gguf"
    bad model_unreadable 'own.gguf: Permission denied' inspect "$work/own.gguf"
fi
# What is said on standard output by others comes before or behind, and a descriptor of a file keeps its place.
gm profile "$gguf" --ids 2,3 -n 2 -r 1 -t 2 --no-probe -o -
check dash_and_a_report "$(head -c 300 "$work/out")" grep -q '^prefill: 2 tokens' "$work/out"
check dash_trace_stays "$(head -c 300 "$work/out")" grep -q '"name":"thread_name"' "$work/out"
gm compile "$gguf" --dump=after:dce -o /dev/fd/1
check descriptor_dump_stays "$(head -c 300 "$work/out")" grep -aq 'func @' "$work/out"
check descriptor_artefact "no artefact behind it" grep -aq 'GMX1' "$work/out"
if [ -d /dev/shm ] && [ -w /dev/shm ]; then
    shm=$(mktemp -d /dev/shm/gemmac.XXXXXX)
    gm logits "$gguf" --ids 2,3 -o "$shm/new.st"
    same memory_is_a_folder "$shm/new.st" "$work/plain.st"
    gm logits "$gguf" --ids 2,3 -o "$shm/new.st"
    same memory_is_replaced "$shm/new.st" "$work/plain.st"
    rm -rf "$shm"
fi
mkdir "$work/elsewhere" && ln -s elsewhere/made.st "$work/dangling.st"
gm logits "$gguf" --ids 2,3 -o "$work/dangling.st"
same dangling_link_is_followed "$work/elsewhere/made.st" "$work/plain.st"
check dangling_link_stays "$(ls -l "$work/dangling.st")" [ -L "$work/dangling.st" ]
printf '[{"role":"user","content":"Hi"}]' | (cd "$work/cwd" && "$gemmac" render "$gguf" --messages - >"$work/out" 2>"$work/err")
check render_from_a_pipe "$(cat "$work/out" "$work/err")" grep -q 'Hi<end_of_turn>' "$work/out"
