#!/bin/sh
# gemmac serve as its clients see it: run.sh GEMMAC HTTP_CLIENT DATA. Prints a line per failure and at the end "N passed, N failed".
gemmac=$1 client=$2 data=$3
gguf=$data/gguf/gemma3-tiny-q8_0.gguf
work=$(mktemp -d) || exit 2
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0

check() {
    check_name=$1 check_text=$2
    shift 2
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAIL $check_name: $check_text"; fi
}

# ask METHOD PATH BODY: the status in $code, the answer in $work/answer.
ask() {
    printf '%s' "$3" | "$client" "$port" "$1" "$2" >"$work/all" 2>"$work/client"
    code=$(head -n 1 "$work/all")
    tail -n +2 "$work/all" >"$work/answer"
}
# said NAME STATUS PATTERN METHOD PATH BODY: the answer, as one line, matches PATTERN in whole.
said() {
    said_name=$1 said_code=$2 said_pattern=$3
    shift 3
    ask "$@"
    check "$said_name" "$code, expected $said_code: $(head -c 300 "$work/answer" "$work/client")" [ "$code" = "$said_code" ]
    check "${said_name}_text" "expected $said_pattern: $(head -c 400 "$work/answer")" sh -c "tr '\n' ' ' <'$work/answer' | grep -Eq '^$said_pattern *\$'"
}
post() { said "$1" "$2" "$3" POST "$4" "$5"; }
refused() { post "$1" 400 "\\{\"error\":\\{\"message\":\".*$2.*\",\"type\":\"invalid_request_error\",\"code\":400\\}\\}" "${4:-/v1/completions}" "$3"; }
# field NAME: the first string of that name in the answer.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$work/answer" | head -n 1; }

# start MODEL ARGUMENT…: the server of $server at $port, instead of the one before; what it says is in $work/err.
start() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null
    : >"$work/err"
    "$gemmac" serve "$@" --port 0 --precision f32 --temp 0 2>"$work/err" &
    server=$! port='' tries=0
    while [ -z "$port" ] && [ $tries -lt 600 ] && kill -0 "$server" 2>/dev/null; do
        sleep 0.1
        port=$(sed -n 's/^listening at http:\/\/127.0.0.1:\([0-9]*\)$/\1/p' "$work/err") tries=$((tries + 1))
    done
    check "listens $1" "$(cat "$work/err")" [ -n "$port" ]
}

start "$gguf" -c 64
said health 200 '\{"status":"ok"\}' GET /health ''
said models 200 '\{"object":"list","data":\[\{"id":"gemma3-tiny-q8_0.gguf",.*' GET /v1/models ''
said no_path 404 '\{"error":.*' GET /v2 ''
said other_method 405 '\{"error":.*' GET /v1/completions ''

# What is said is what generate and chat say.
usage() { printf '"usage":\{"prompt_tokens":%s,"completion_tokens":%s,"total_tokens":%s\}' "$1" "$2" "$3"; }
said_by() { sed -n 's/.*"text":"\(.*\)","stop".*/\1/p'; }
post text 200 "\\{\"id\":\"cmpl-[0-9]+\",\"object\":\"text_completion\",\"created\":[0-9]+,\"model\":\"[^\"]*\",\"choices\":\\[\\{\"index\":0,\"text\":\".*\",\"finish_reason\":\"length\"\\}\\],$(usage 3 6 9)\\}" \
    /v1/completions '{"prompt":[2,5,7],"max_tokens":6}'
expected=$("$gemmac" generate "$gguf" --ids 2,5,7 -n 6 --precision f32 -c 64 --temp 0 --format json | said_by)
check text_of_generate "expected $expected: $(cat "$work/answer")" grep -Fq "\"text\":\"$expected\"" "$work/answer"
post text_again 200 '\{.*' /v1/completions '{"prompt":[2,5,7],"max_tokens":6}'
check text_again_same "expected $expected: $(cat "$work/answer")" grep -Fq "\"text\":\"$expected\"" "$work/answer"
for seed in 1 2 3; do # of the best alone the most likely one is drawn
    post top_p 200 '\{.*' /v1/completions "{\"prompt\":[2,5,7],\"max_tokens\":6,\"temperature\":1,\"top_p\":0,\"seed\":$seed}"
    check "top_p_greedy $seed" "expected $expected: $(cat "$work/answer")" grep -Fq "\"text\":\"$expected\"" "$work/answer"
done
post completion_tokens 200 "\{.*\"finish_reason\":\"length\"\}\],$(usage 3 3 6)\}" /v1/completions '{"prompt":[2,5,7],"max_completion_tokens":3}'
# many N ID: a list of N ids.
many() { yes "$2," | head -n $(($1 - 1)) | tr -d '\n' && printf %s "$2"; }
post context_full 200 "\{.*\"text\":\"\",\"finish_reason\":\"length\"\}\],$(usage 64 0 64)\}" /v1/completions "{\"prompt\":[$(many 64 5)]}"
conversation='[{"role":"user","content":"the the"},{"role":"assistant","content":"dog"},{"role":"user","content":"quick"}]'
post chat 200 '\{"id":"chatcmpl-[0-9]+","object":"chat.completion",.*"choices":\[\{"index":0,"message":\{"role":"assistant","content":".*"\},"finish_reason":"(length|stop)"\}\],"usage":.*' \
    /v1/chat/completions "{\"messages\":$conversation,\"max_tokens\":6}"
printf '%s' "$conversation" >"$work/messages"
expected=$("$gemmac" chat "$gguf" --messages "$work/messages" -n 6 --precision f32 -c 64 --temp 0 --format json </dev/null | said_by)
check chat_of_chat "expected $expected: $(cat "$work/answer")" grep -Fq "\"content\":\"$expected\"" "$work/answer"

# A stream's pieces are the whole, and it ends with why, what it took and that it is done.
ask POST /v1/chat/completions "{\"messages\":$conversation,\"max_tokens\":6,\"stream\":true,\"stream_options\":{\"include_usage\":true}}"
check stream "$code" [ "$code" = 200 ]
pieces=$(sed -n 's/^data: .*"delta":{"content":"\(.*\)"},"finish_reason":null}\]}$/\1/p' "$work/answer" | tr -d '\n')
check stream_text "expected $expected: $pieces" [ "$pieces" = "$expected" ]
check stream_role "$(cat "$work/answer")" grep -q '^data: .*"delta":{"role":"assistant","content":""}' "$work/answer"
check stream_reason "$(cat "$work/answer")" grep -Eq '^data: .*"delta":\{\},"finish_reason":"(length|stop)"\}\]\}$' "$work/answer"
check stream_usage "$(cat "$work/answer")" grep -Eq '^data: .*"choices":\[\],"usage":\{"prompt_tokens":[0-9]+,"completion_tokens":[0-9]+,' "$work/answer"
check stream_done "$(cat "$work/answer")" [ "$(grep . "$work/answer" | tail -n 1)" = 'data: [DONE]' ]

# Sampled answers repeat with their seed; a text that ends them does, and does not come.
for seed in 5 0; do
    post sampled 200 '\{.*' /v1/completions "{\"prompt\":\"the\",\"max_tokens\":24,\"temperature\":1,\"seed\":$seed}"
    first=$(field text)
    post sampled_again 200 '\{.*' /v1/completions "{\"prompt\":\"the\",\"max_tokens\":24,\"temperature\":1,\"seed\":$seed}"
    check "seeded $seed" "$first / $(field text)" [ "$first" = "$(field text)" ]
done
post whole 200 '\{.*"finish_reason":"length".*' /v1/completions '{"prompt":[2,5,7],"max_tokens":6}'
middle=$(field text | sed 's/\\u[0-9a-f]*//g' | grep -ao '[a-z]' | head -n 1)
post stopped 200 '\{.*"finish_reason":"stop".*' /v1/completions "{\"prompt\":[2,5,7],\"max_tokens\":6,\"stop\":[\"$middle\"]}"
before=$(field text)
check stopped_before "$middle in $(field text)" sh -c "! printf '%s' '$(field text)' | grep -Fq '$middle'"

# Log probabilities: of the same tokens as without them, in the form of each path.
real='-?[0-9.]+(e-[0-9]+)?' string='"([^"\\]|\\.)*"'
for sampling in '"temperature":0' '"temperature":1,"seed":4'; do
    post plain 200 '\{.*' /v1/completions "{\"prompt\":[2,5,7],\"max_tokens\":8,$sampling}"
    plain=$(field text)
    post scored 200 "\\{.*\"choices\":\\[\\{\"index\":0,\"logprobs\":\\{\"tokens\":\\[($string,?){8}\\],\"token_logprobs\":\\[($real,?){8}\\],\"top_logprobs\":\\[(\\{$string:$real,$string:$real\\},?){8}\\],\"text_offset\":\\[0(,[0-9]+){7}\\]\\},\"text\":.*" \
        /v1/completions "{\"prompt\":[2,5,7],\"max_tokens\":8,\"logprobs\":2,$sampling}"
    check "scored_same $sampling" "$plain / $(field text)" [ "$(field text)" = "$plain" ]
done
likely="\\{\"token\":$string,\"logprob\":$real,\"bytes\":\\[[0-9,]*\\]"
post chat_scored 200 "\\{.*\"logprobs\":\\{\"content\":\\[($likely,\"top_logprobs\":\\[$likely\\}\\]\\},?)+\\]\\},\"message\":.*" \
    /v1/chat/completions "{\"messages\":$conversation,\"max_tokens\":6,\"logprobs\":true,\"top_logprobs\":1}"
check chat_scored_same "expected $expected: $(cat "$work/answer")" grep -Fq "\"content\":\"$expected\"" "$work/answer"
ask POST /v1/completions '{"prompt":[2,5,7],"max_tokens":6,"logprobs":0,"stream":true}'
told=$(sed -n 's/.*"token_logprobs":\[\([^]]*\)\].*/\1/p' "$work/answer" | tr , '\n' | grep -c .)
check stream_scored "$told: $(cat "$work/answer")" [ "$told" = 6 ]
# Several choices for several prompts are those that each prompt alone gets, with seeds that follow one another.
# texts_of: the texts of the choices, a line for each, with their numbers.
texts_of() { grep -o '"index":[0-9]*,"text":"\([^"\\]\|\\.\)*"' "$work/answer"; }
sampled='"max_tokens":8,"temperature":1'
single() { # INDEX PROMPT SEED
    ask POST /v1/completions "{\"prompt\":$2,$sampled,\"seed\":$3}"
    texts_of | sed "s/\"index\":0/\"index\":$1/"
}
{ single 0 '"the"' 5; single 1 '"the"' 6; single 2 '[2,9]' 5; single 3 '[2,9]' 6; } >"$work/alone"
post choices 200 "\\{.*\\],$(usage '[0-9]+' 32 '[0-9]+')\\}" /v1/completions "{\"prompt\":[\"the\",[2,9]],\"n\":2,$sampled,\"seed\":5}"
read_tokens=$(sed -n 's/.*"prompt_tokens":\([0-9]*\).*/\1/p' "$work/answer")
check choices_same "$(texts_of), alone $(cat "$work/alone")" [ "$(texts_of)" = "$(cat "$work/alone")" ]
check choices_differ "$(cat "$work/alone")" [ "$(sed 's/.*"text"//' "$work/alone" | sort -u | wc -l)" -ge 3 ]
check choices_read "$read_tokens" [ "$read_tokens" = $((2 + $("$gemmac" tokenize "$gguf" --format json -p the | tr -dc '0-9,' | tr , '\n' | grep -c .))) ]
ask POST /v1/completions "{\"prompt\":[\"the\",[2,9]],\"n\":2,$sampled,\"seed\":5,\"stream\":true}"
for i in 0 1 2 3; do
    sed -n "s/.*\"index\":$i,\"text\":\"\(.*\)\",\"finish_reason\":.*/\1/p" "$work/answer" | tr -d '\n' | sed "s/.*/\"index\":$i,\"text\":\"&\"/"
    echo
done >"$work/streamed"
check choices_streamed "$(cat "$work/answer"), alone $(cat "$work/alone")" cmp -s "$work/streamed" "$work/alone"
check choices_ends "$(cat "$work/answer")" [ "$(grep -c '"finish_reason":"length"' "$work/answer") $(grep -c DONE "$work/answer")" = '4 1' ]
post chat_choices 200 '\{.*"choices":\[\{"index":0,"message":.*\},\{"index":1,"message":.*\}\],.*' \
    /v1/chat/completions "{\"messages\":$conversation,\"max_tokens\":4,\"n\":2}"
post echo_both 200 '\{.*"index":0,"text":"the quick".*"index":1,"text":"dog".*' /v1/completions '{"prompt":["the quick","dog"],"max_tokens":0,"echo":true}'
post scored_both 200 "\\{.*\"index\":0,\"logprobs\":\\{.*\"text_offset\":\\[0,[0-9]+\\].*\"index\":1,\"logprobs\":\\{.*\"text_offset\":\\[0,[0-9]+\\].*" \
    /v1/completions '{"prompt":["the","dog"],"max_tokens":2,"logprobs":1}'
# Biases: of an id that is pushed up comes nothing else, one that is pushed down does not come.
post pushed 200 '\{.*' /v1/completions '{"prompt":[2,5,7],"max_tokens":3,"logit_bias":{"9":100}}'
check pushed_up "$(cat "$work/answer")" grep -Fq "\"text\":\"$("$gemmac" detokenize "$gguf" --ids 9,9,9 --format json | sed -n 's/.*"text":"\(.*\)".*/\1/p')\"" "$work/answer"
first_id() { "$gemmac" generate "$gguf" --ids 2,5,7 -n 1 --precision f32 -c 64 --temp 0 --format json | sed 's/.*"ids":\[\([0-9]*\)\].*/\1/'; }
post unpushed 200 '\{.*' /v1/completions '{"prompt":[2,5,7],"max_tokens":1}'
first=$(field text)
post pushed_down 200 '\{.*' /v1/completions "{\"prompt\":[2,5,7],\"max_tokens\":1,\"logit_bias\":{\"$(first_id)\":-100,\"99999999\":5}}"
check pushed_away "$first / $(field text)" [ "$(field text)" != "$first" ]
# Penalties are those of generate. With a large one no token comes twice, nor one of the prompt's.
post penalised 200 '\{.*' /v1/completions '{"prompt":[2,5,7],"max_tokens":12,"frequency_penalty":1.5,"presence_penalty":2}'
penalised() { "$gemmac" generate "$gguf" --ids 2,5,7 -n 12 --ignore-eos --precision f32 -c 64 --temp 0 --format json "$@"; }
expected=$(penalised --frequency-penalty 1.5 --presence-penalty 2 | said_by)
check penalised_same "expected $expected: $(cat "$work/answer")" grep -Fq "\"text\":\"$expected\"" "$work/answer"
check penalised_differs "$expected" [ "$expected" != "$(penalised | said_by)" ]
for penalty in frequency presence; do
    ids=$(penalised --$penalty-penalty 100 | sed 's/.*"ids":\[\([0-9,]*\)\].*/2,5,7,\1/' | tr , '\n')
    check "no_$penalty" "$(echo $ids)" [ "$(echo "$ids" | wc -l) $(echo "$ids" | sort -u | wc -l)" = '15 15' ]
done
refused large_penalty 'presence_penalty.*expected a number -2 to 2' '{"prompt":"a","presence_penalty":3}'
# Of a prompt that is said too log probabilities are what perplexity sums: its first token has none.
printf 'the quick brown fox jumps over the lazy dog and the quick brown fox' >"$work/text"
ids=$("$gemmac" tokenize "$gguf" --no-bos --format json <"$work/text" | tr -dc '0-9,' | cut -d, -f1-11)
post echo 200 "\\{.*\"token_logprobs\":\\[null(,$real){12}\\],\"top_logprobs\":\\[null(,\\{$string:$real\\}){11},.*\"text\":\".*quick.*" \
    /v1/completions "{\"prompt\":[[2,$ids]],\"max_tokens\":1,\"logprobs\":1,\"echo\":true}"
sum=$(sed -n 's/.*"token_logprobs":\[null,\([^]]*\)\].*/\1/p' "$work/answer" | tr , '\n' | head -n 11 | awk '{ s -= $1 } END { printf "%.5f", s / NR }')
nll=$("$gemmac" perplexity "$gguf" -f "$work/text" -c 12 --tokens 12 --precision f32 --format json | sed 's/.*"nll":\([^,]*\),.*/\1/' | awk '{ printf "%.5f", $1 }')
check echo_sums "$sum, perplexity says $nll" [ "$sum" = "$nll" ]
post echo_only 200 '\{.*"choices":\[\{"index":0,"text":"the quick","finish_reason":"length"\}\].*' /v1/completions '{"prompt":"the quick","max_tokens":0,"echo":true}'
refused many_logprobs 'logprobs.*expected a whole number 0 to 20' '{"prompt":"a","logprobs":21}'
refused top_alone 'top_logprobs.*expected .*logprobs.* to be true' '{"messages":[],"top_logprobs":2}' /v1/chat/completions
refused chat_echo 'does not do this' '{"messages":[],"echo":true}' /v1/chat/completions

refused nothing 'byte 0: expected a JSON value' ''
refused no_object 'expected an object' '[]'
refused no_prompt 'expected key' '{}'
not_prompt='expected a text, a list of token ids, or a list of such'
refused bad_prompt "$not_prompt" '{"prompt":5}'
refused empty_prompts "$not_prompt" '{"prompt":[]}'
refused empty_among "$not_prompt" '{"prompt":["a",[]]}'
refused mixed_ids "$not_prompt" '{"prompt":[5,"a"]}'
refused bad_id_among 'outside the vocabulary' '{"prompt":["a",[99999999]]}'
refused bad_id 'outside the vocabulary' '{"prompt":[99999999]}'
refused bad_number 'temperature' '{"prompt":"a","temperature":-1}'
refused bad_count 'max_tokens' '{"prompt":"a","max_tokens":1.5}'
refused bad_stop 'stop' '{"prompt":"a","stop":[5]}'
refused many_stops 'at most 16 texts' "{\"prompt\":\"a\",\"stop\":[$(yes '"a",' | head -n 16 | tr -d '\n')\"a\"]}"
refused no_choices 'expected a whole number 1 to 128' '{"prompt":"a","n":0}'
refused best 'expected as many as .*n' '{"prompt":"a","n":2,"best_of":3}'
refused bad_biases 'expected an object of token ids' '{"prompt":"a","logit_bias":[5]}'
refused bad_bias 'expected token ids with numbers -100 to 100' '{"prompt":"a","logit_bias":{"5":101}}'
refused bias_of_text 'expected token ids with numbers' '{"prompt":"a","logit_bias":{"the":1}}'
refused tools 'does not do this' '{"messages":[],"tools":[{}]}' /v1/chat/completions
refused roles 'roles must alternate' '{"messages":[{"role":"assistant","content":"a"}]}' /v1/chat/completions
refused too_long 'expected at most the context of 64' "{\"prompt\":[$(many 65 5)]}"
post idle_keys 200 '\{.*' /v1/completions '{"prompt":"the","max_tokens":1,"n":1,"tools":[],"logprobs":false,"user":"me","frequency_penalty":0,"stop":null}'

# More than is taken in.
head -c 9000000 /dev/zero | tr '\0' ' ' | "$client" "$port" POST /v1/completions >"$work/answer" 2>"$work/client"
check too_large "$(head -c 300 "$work/answer" "$work/client")" [ "$(head -n 1 "$work/answer")" = 413 ]

# Clients that go away, before or within their answers, leave it to the others; those that come at once are answered one after the other.
for stream in true false; do
    printf '{"prompt":"the","stream":%s}' $stream | "$client" "$port" POST /v1/completions hang-up
done
waiting=
for i in 1 2 3 4 5 6; do
    printf '{"prompt":[2,5,7],"max_tokens":6}' | "$client" "$port" POST /v1/completions >"$work/answer$i" &
    waiting="$waiting $!"
done
for pid in $waiting; do wait "$pid"; done
texts() { cat "$work"/answer[1-6] | sed -n 's/.*"text":\("[^"]*"\).*/\1/p'; }
check together "$(cat "$work"/answer[1-6])" [ "$(texts | wc -l) $(texts | sort -u | wc -l)" = "6 1" ]
check still_there "$(cat "$work/err")" kill -0 "$server"

"$gemmac" serve "$gguf" --port "$port" >"$work/out" 2>"$work/second"
check port_is_taken "$(cat "$work/second")" grep -Eq "^gemmac: 127.0.0.1:$port: cannot listen: Address already in use$" "$work/second"
"$gemmac" serve "$gguf" --host nowhere.invalid >"$work/out" 2>"$work/second"
check no_host "$(cat "$work/second")" grep -Eq '^gemmac: nowhere.invalid:8080: cannot listen: ' "$work/second"

# Texts of the server's own end answers also where a request has others.
start "$gguf" -c 64 --stop "$middle"
post both_stops 200 '\{.*"finish_reason":"stop".*' /v1/completions '{"prompt":[2,5,7],"max_tokens":6,"stop":"never this"}'
check servers_stop "expected $before: $(cat "$work/answer")" [ "$(field text)" = "$before" ]

# An answer that nobody waits for any more ends: only those that came to their end say how fast they were.
sed 's/"max_position_embeddings": 512/"max_position_embeddings": 32768/' "$data/tiny/gemma3-tiny/config.json" >"$work/long.config.json"
printf '{"architecture":"long.config.json","weights":"%s"}' "$(cd "$data" && pwd)/gguf/gemma3-tiny-q8_0.gguf" >"$work/long.json"
start "$work/long.json" -c 32768 --time
for stream in true false; do
    printf '{"prompt":[2,5,7],"stream":%s}' $stream | "$client" "$port" POST /v1/completions hang-up
    post "after_hang_up $stream" 200 '\{.*' /v1/completions '{"prompt":[2,5],"max_tokens":1}'
done
check hang_up_ends "$(grep decode "$work/err")" [ "$(grep -c decode "$work/err") $(grep -c 'decode 1 tokens' "$work/err")" = '2 2' ]

# So does one that is only scored, between its prompts.
printf '{"prompt":[%s],"max_tokens":0,"echo":true,"logprobs":1}' "$(many 2000 "[$(many 200 5)]")" | "$client" "$port" POST /v1/completions hang-up
post after_scoring 200 '\{.*' /v1/completions '{"prompt":[2,5],"max_tokens":1}'
check hang_up_ends_scoring "$(grep -c 'decode 0' "$work/err")" [ "$(grep -c 'decode 0 tokens' "$work/err")" -lt 2000 ]

# A prompt that spoils what the session holds fails, and leaves nothing of it to the next: the row of id 200 is NaN here, the others are not.
mkdir "$work/nan"
cp "$data/tiny/gemma3-tiny"/*config.json "$data/tiny/gemma3-tiny/model.safetensors" "$work/nan/" && chmod u+w "$work/nan"/*
row=$((8 + $(od -An -tu8 -N8 "$work/nan/model.safetensors" | tr -d ' ') + 200 * 32 * 4))
printf '\000\000\300\177' | dd of="$work/nan/model.safetensors" bs=1 seek="$row" conv=notrunc 2>/dev/null
start "$work/nan" -c 64
post before_nan 200 '\{.*"text":"[0-9 ]+".*' /v1/completions '{"prompt":[2,5,9,11],"max_tokens":6}'
first=$(field text)
ask POST /v1/completions "{\"prompt\":[2,5,$(many 20 200)]}"
check nan_fails "$code: $(cat "$work/answer")" sh -c "[ '$code' = 500 ] && grep -q 'not finite' '$work/answer'"
post after_nan 200 '\{.*' /v1/completions '{"prompt":[2,5,9,11],"max_tokens":6}'
check after_nan_same "expected $first: $(cat "$work/answer")" [ "$(field text)" = "$first" ]
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
