# gemmac chat: each answer is what generate says to the whole conversation in the template. Sourced by run.sh.
lines() { sed -n "s/.*\"$2\":\(\[[^]]*\]\).*/\1/p" "$1"; }
untimed() { sed 's/,"prefill_s".*//'; }
# talk NAME ARGUMENT…: standard input in $input; the answers as JSON, each beside generate's, which does not stop at the end of a turn.
talk() {
    talk_name=$1
    shift
    gm chat "$gguf" -n 6 --precision f32 --format json --time "$@"
    check "$talk_name" "$(head -c 300 "$work/err")" [ "$status" -eq 0 ]
    cp "$work/out" "$work/answers"
    check "${talk_name}_lines" "$(cat "$work/answers")" [ "$(wc -l <"$work/answers")" = 3 ]
    sed -n 's/^prefill \([0-9]*\) tokens.*/\1/p' "$work/err" >"$work/read"
    : >"$work/expected"
    begins=yes
    for prompt in $(lines "$work/answers" prompt_ids | tr -d '[]'); do
        "$gemmac" generate "$gguf" --ids "$prompt" -n 6 --precision f32 --format json "$@" 2>/dev/null >>"$work/expected"
    done
    lines "$work/answers" ids | tr -d '[]' >"$work/found"
    lines "$work/expected" ids | tr -d '[]' | paste -d ' ' "$work/found" - >"$work/both"
    while read -r said full; do
        case ,$full, in ,"$said",*) ;; *) begins=no ;; esac
    done <"$work/both"
    check "${talk_name}_answers" "$(cat "$work/both")" [ "$begins $(wc -l <"$work/both")" = "yes 3" ]
}
printf 'the the\n\nquick brown\nthe dog\n' >"$work/talk.txt"
input=$work/talk.txt
talk chat_greedy --temp 0
# Of the second turn the session holds the first, but for what the tokenizer makes anew of the answer's text.
asked() { lines "$work/answers" prompt_ids | sed -n "$1p" | tr ',' '\n' | wc -l; }
check chat_reads_all_at_first "$(cat "$work/read")" [ "$(sed -n 1p "$work/read")" -eq "$(asked 1)" ]
check chat_reads_what_is_new "$(cat "$work/read")" [ "$(sed -n 2p "$work/read")" -le $(($(asked 2) - $(asked 1))) ]
talk chat_sampled --temp 1 --seed 7
talk chat_in_rings --temp 0 --with kv_ring
talk chat_by_steps --temp 0 --skip form_generate_loop
# The prompt of the last turn is what render makes of the conversation.
talk chat_greedy_again --temp 0
text() { sed -n "$1s/.*\"text\":\(\".*\"\),\"stop\".*/\1/p" "$work/answers"; }
printf '[{"role":"user","content":"the the"},{"role":"assistant","content":%s},{"role":"user","content":"quick brown"},{"role":"assistant","content":%s},{"role":"user","content":"the dog"}]' \
    "$(text 1)" "$(text 2)" >"$work/talk.json"
gm render "$gguf" --messages "$work/talk.json" --format json
check chat_is_rendered "$(cat "$work/out")" [ "$(lines "$work/out" ids)" = "$(lines "$work/answers" prompt_ids | tail -n 1)" ]
# It may go on from messages: the last one, of the user, is answered first.
input=/dev/null
gm chat "$gguf" --messages "$work/talk.json" -n 6 --precision f32 --temp 0 --format json
check chat_goes_on "$(cat "$work/out" "$work/err")" [ "$(lines "$work/out" ids)" = "$(lines "$work/answers" ids | tail -n 1)" ]
cp "$work/out" "$work/once"
input=$work/talk.json
gm chat "$gguf" --messages - -n 6 --precision f32 --temp 0 --format json
check chat_from_standard_input "$(cat "$work/out" "$work/err")" [ "$(untimed <"$work/out")" = "$(untimed <"$work/once")" ]
printf 'a\0b\n' >"$work/nul.txt"
input=$work/nul.txt
bad chat_nul 'a NUL in message 0' chat "$gguf"
input=/dev/null
gm chat "$gguf"
check chat_nothing "$(cat "$work/out" "$work/err")" [ "$status" = 0 -a ! -s "$work/out" ]
input=$work/talk.txt
good chat_text '.+' chat "$gguf" -n 6 --temp 0
check chat_says_no_more "$(cat "$work/err")" [ ! -s "$work/err" ]
gm chat "$gguf" -c 24 -n 6 --temp 0
check chat_beyond_the_context "$(cat "$work/err")" grep -q '^gemmac: .*the prompt has [0-9]* tokens, expected at most the context of 24' "$work/err"
printf '[{"role":"assistant","content":"a"}]' >"$work/odd.json"
input=$work/talk.txt
bad chat_odd_messages 'odd.json: .*roles must alternate' chat "$gguf" --messages "$work/odd.json"
input=/dev/null
bad chat_no_messages 'none.json' chat "$gguf" --messages none.json
# The end of a turn ends answers beside the model's own ids, of which there may be 15 then, or 16 with it.
ends() { printf '{"architecture":"%s/config.json","weights":"%s","generation":{"eos_token_id":[%s]}}' "$hf" "$gguf" "$1" >"$work/ends.json"; }
input=$work/talk.txt
ends 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17
bad chat_without_room_for_its_end '16 ids end generation, expected one less beside the end of a turn' chat "$work/ends.json" -n 2
ends 1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,261
good chat_end_is_one_of_them '.+' chat "$work/ends.json" -n 2 --temp 0
input=/dev/null
# What repeats a sampled answer is said.
gm generate "$gguf" --ids 2,5 -n 4 --temp 1 --ignore-eos
seed=$(sed -n 's/.*, seed: \([0-9]*\)$/\1/p' "$work/err")
cp "$work/out" "$work/sampled"
check seed_is_said "$(cat "$work/err")" [ -n "$seed" ]
gm generate "$gguf" --ids 2,5 -n 4 --temp 1 --ignore-eos --seed "$seed"
check seed_repeats "$(cat "$work/out" "$work/sampled")" cmp -s "$work/out" "$work/sampled"
# Messages may come from a pipe with a name.
mkfifo "$work/pipe"
cat "$work/talk.json" >"$work/pipe" &
gm render "$gguf" --messages "$work/pipe" --format json
wait
cp "$work/out" "$work/piped"
gm render "$gguf" --messages "$work/talk.json" --format json
check messages_from_a_pipe "$(head -c 300 "$work/piped" "$work/err")" cmp -s "$work/out" "$work/piped"
# A model's own chat template is not run, which is said where its turns are others than Gemma's.
warns='^gemmac: warning: .*its own chat template is not used'
cp -r "$data/tiny/gemma3-tiny" "$work/spoken"
printf '[{{ role }}] {{ content }}' >"$work/spoken/chat_template.jinja"
gm render "$work/spoken" --messages "$work/talk.json"
check other_template_is_said "$(cat "$work/err")" grep -q "$warns" "$work/err"
printf '<start_of_turn>{{ role }}' >"$work/spoken/chat_template.jinja"
printf '{"chat_template":"[{{ role }}]"}' >"$work/spoken/tokenizer_config.json"
gm render "$work/spoken" --messages "$work/talk.json"
check gemma_template_is_not "$(cat "$work/err")" [ ! -s "$work/err" ]
rm "$work/spoken/chat_template.jinja"
gm render "$work/spoken" --messages "$work/talk.json"
check other_template_in_settings "$(cat "$work/err")" grep -q "$warns" "$work/err"
printf '{"chat_template":[{"name":"tool_use","template":"x"},{"name":"default","template":"<start_of_turn>"}]}' >"$work/spoken/tokenizer_config.json"
gm render "$work/spoken" --messages "$work/talk.json"
check named_gemma_template "$(cat "$work/err")" [ ! -s "$work/err" ]
