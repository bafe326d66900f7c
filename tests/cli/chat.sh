# gemmac chat: each answer is what generate says to the whole conversation in the template. Sourced by run.sh.
lines() { sed -n "s/.*\"$2\":\(\[[^]]*\]\).*/\1/p" "$1"; }
untimed() { sed 's/,"prefill_s".*//'; }
# talk NAME ARGUMENT…: standard input in $input; the answers as JSON, each beside generate's.
talk() {
    talk_name=$1
    shift
    gm chat "$gguf" -n 6 --format json "$@"
    check "$talk_name" "$(head -c 300 "$work/err")" [ "$status" -eq 0 ]
    cp "$work/out" "$work/answers"
    : >"$work/expected"
    for prompt in $(lines "$work/answers" prompt_ids | tr -d '[]'); do
        "$gemmac" generate "$gguf" --ids "$prompt" -n 6 --format json "$@" 2>/dev/null | untimed >>"$work/expected"
    done
    untimed <"$work/answers" >"$work/found"
    same "${talk_name}_answers" "$work/found" "$work/expected"
}
printf 'the the\n\nquick brown\nthe dog\n' >"$work/talk.txt"
input=$work/talk.txt
talk chat_greedy --temp 0
check chat_lines "$(cat "$work/answers")" [ "$(wc -l <"$work/answers")" = 3 ]
talk chat_sampled --temp 1 --seed 7
talk chat_without_seeking --temp 0 --with kv_ring
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
gm chat "$gguf" --messages "$work/talk.json" -n 6 --temp 0 --format json
check chat_goes_on "$(cat "$work/out" "$work/err")" [ "$(lines "$work/out" ids)" = "$(lines "$work/answers" ids | tail -n 1)" ]
gm chat "$gguf"
check chat_nothing "$(cat "$work/out" "$work/err")" [ "$status" = 0 -a ! -s "$work/out" ]
input=$work/talk.txt
good chat_text '.+' chat "$gguf" -n 6 --temp 0
check chat_says_no_more "$(cat "$work/err")" [ ! -s "$work/err" ]
gm chat "$gguf" -c 24 -n 6 --temp 0
check chat_beyond_the_context "$(cat "$work/err")" grep -q '^gemmac: .*the prompt has [0-9]* tokens, expected at most the context of 24' "$work/err"
input=/dev/null
printf '[{"role":"assistant","content":"a"}]' >"$work/odd.json"
input=$work/talk.txt
bad chat_odd_messages 'roles must alternate' chat "$gguf" --messages "$work/odd.json"
input=/dev/null
bad chat_no_messages 'none.json' chat "$gguf" --messages none.json
