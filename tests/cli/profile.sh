# gemmac profile and gemmac plan. Sourced by run.sh after outputs.sh; no figure is judged by how large a time it is.
rows='\{"(op":"[a-z0-9_/]+|layer":([0-9]+|null))"?,"calls":[0-9]+,"time_s":'$real',"share":'$real',"wait_share":'$real',"flop":'$real',"bytes":'$real',"gflop_s":'$real',"gb_s":'$real'(,"roofline_share":'$real')?\}'
speed='\{"mean":'$real',"std":'$real'\}'
phase() { printf '\\{"phase":"%s","tokens":%s,"wall_s":%s,"work_share":%s,"wait_share":%s,"rest_share":%s,"idle_share":%s,"tok_s":%s,"profiled_tok_s":%s,"overhead_percent":%s,"overhead_low":%s,"overhead_high":%s,"ops":\\[ (%s,? ?)+\\],"layers":\\[ (%s,? ?)+\\]\\}' \
    "$1" "$2" "$real" "$real" "$real" "$real" "$real" "$speed" "$speed" "$real" "($real|null)" "($real|null)" "$rows" "$rows"; }
profile() { printf '\\{"threads":2,"same_tokens":true,"dropped_events":0%s,"phases":\\[ %s, %s\\]\\}' "$1" "$(phase prefill 3)" "$(phase decode 6)"; }

json profile "$(profile '')" profile "$hf" --ids 2,5,9 -n 6 -r 2 -t 2 --no-probe --format json
# Work, waits and the rest are all the time; so are the rows of a table together with the rest.
total() { sed -n "s/.*\"phase\":\"$1\".*\"work_share\":\([^,]*\),\"wait_share\":\([^,]*\),\"rest_share\":\([^,]*\),.*/\1 \2 \3/p" "$work/out" | awk '{ t = $1 + $2 + $3; print (t > 0.9999 && t < 1.0001) }'; }
check profile_shares_prefill "$(head -c 400 "$work/out")" [ "$(total prefill)" = 1 ]
check profile_shares_decode "$(head -c 400 "$work/out")" [ "$(total decode)" = 1 ]
sums=$(awk '/"phase":/ { n++ } /"(op|layer)":/ { kind = /"op":/ ? "op" : "layer"; s = w = $0; sub(/.*"share":/, "", s); sub(/.*"wait_share":/, "", w); sum[n kind] += s + w }
            /"phase":/ { r = $0; sub(/.*"rest_share":/, "", r); rest[n] = r + 0 }
            END { for (i = 1; i <= n; i++) for (k = 0; k < 2; k++) { t = sum[i (k ? "op" : "layer")] + rest[i]; printf "%d ", (t > 0.999 && t < 1.001) } }' "$work/out")
check profile_rows_add_up "$sums" [ "$sums" = "1 1 1 1 " ]
json profile_probe "$(profile ",\"probe_gb_s\":$real,\"probe_gflop_s\":$real")" profile "$hf" --ids 2,5,9 -n 6 -r 1 -t 2 --format json
good profile_text 'prefill: 8 tokens in .*, threads: 2 +operation +calls +ms .*matmul/stream .* idle share .* tok/s, profiled .* layer .*decode: 4 tokens .*matmul/gemv .*' \
    profile "$gguf" --ids 2,5,9,7,11,40,8,3 -n 4 -r 1 -t 2 --no-probe --precision f32
good profile_prefill_only 'prefill: 3 tokens .*' profile "$gguf" -p 'the the' -n 0 -r 1 --no-probe --no-bos --special
gm profile "$hf" --ids 2,5,9 -n 4 -r 1 -t 2 --no-probe --precision f32 -o trace.json
check profile_trace "$(cat "$work/err")" [ "$status" -eq 0 ]
check profile_one_file "$(ls -A "$work/cwd")" [ "$(ls -A "$work/cwd")" = trace.json ]
check profile_tracks "$(head -c 300 "$work/cwd/trace.json")" [ "$(grep -c '"name":"thread_name"' "$work/cwd/trace.json")" = 2 ]
check profile_events "$(head -c 600 "$work/cwd/trace.json")" grep -Eq "^\\{\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":$real,\"dur\":$real,\"name\":\"matmul/gemv %[a-z0-9_.]+\",\"cat\":\"matmul/gemv\",\"args\":\\{\"phase\":\"decode\",\"func\":\"forward.T1\",\"value\":\"%[a-z0-9_.]+\",\"layer\":[0-9]+,\"shape\":\"f32\\[1,[0-9]+\\]\",\"bytes\":[0-9]+,\"flop\":[0-9]+\\}\\},?\$" "$work/cwd/trace.json"
good profile_artefact 'prefill: 3 tokens .*' profile "$work/model.gmx" --ids 2,5,9 -n 2 -r 1 --no-probe
good profile_skip 'prefill: 3 tokens .*' profile "$hf" --ids 2,5,9 -n 2 -r 1 --no-probe --skip form_generate_loop,form_prefill_loop,chunk_prefill
# Few tokens of a prompt go one by one, fewer where a chunk takes W in bytes as they lie. chunks NAME PRECISION IDS SCANS
chunks() {
    gm profile "$gguf" --precision "$2" --ids "$3" -n 1 -r 1 --no-probe
    check "$1" "$(cat "$work/out" "$work/err")" [ "$(grep -c '^  scan ' "$work/out")" = "$4" ]
}
chunks profile_two_in_bytes block8 2,5 0
chunks profile_three_in_bytes block8 2,5,6 1
chunks profile_six_in_floats f32 2,5,6,7,8,9 0
chunks profile_seven_in_floats f32 2,5,6,7,8,9,10 1
bad profile_no_prompt 'no prompt given' profile "$hf"
bad profile_no_room 'too small' profile "$hf" --ids 2,5,9 -n 6 -c 8
bad profile_no_folder 'trace.json' profile "$hf" --ids 2,5,9 -n 1 -r 1 --no-probe -o none/trace.json
bad profile_no_model 'nope' profile nope.gguf --ids 2

# ---- plan ----
cost() { printf '\\{"tokens":%s,"read":%s,"written":%s,"flop":%s%s\\}' "$1" "$real" "$real" "$real" "$2"; }
peak="\\{\"bytes\":[0-9]+,\"when\":\"(compile|prefill|decode)\",\"process\":[0-9]+,\"weights\":[0-9]+,\"packed\":[0-9]+,\"cache\":[0-9]+,\"activations\":[0-9]+,\"other\":[0-9]+\\}"
plan() { printf '\\{"threads":2,"context":64,"chunk":64,"parameters":%s,"weight_bytes":[0-9]+,"cache_token_bytes":3072,"cache_bytes":196608,"arena_bytes":[0-9]+,"scratch_bytes":[0-9]+,"packed_bytes":[0-9]+,"prefill":%s,"decode":%s,"peak":%s,"peak_full":%s%s\\}' \
    "$1" "$(cost 20 "$2")" "$(cost 8 "$2")" "$peak" "$peak" "$3"; }
json plan "$(plan 121760 '' '')" plan "$hf" -p 20 -n 8 -c 64 -t 2 --precision f32 --no-probe --format json
json plan_no_weights "$(plan 121760 '' '')" plan "$hf/config.json" --no-weights -p 20 -n 8 -c 64 -t 2 --precision f32 --no-probe --format json
json plan_probe "$(plan 121760 ",\"roofline_tok_s\":$real" ",\"probe_gb_s\":$real,\"probe_gflop_s\":$real")" plan "$hf" -p 20 -n 8 -c 64 -t 2 --precision f32 --format json
good plan_text 'parameters +[0-9]+ in .* MB prefill +512 tokens, .* decode +.* KV cache .* activations .* packed weights .* peak memory .* context full .*' plan "$gguf" --no-probe
good plan_artefact 'parameters .*' plan "$work/model.gmx" --no-probe
bad plan_no_model 'no model given' plan
bad plan_context 'context size must be' plan "$hf" -c 100000
bad plan_no_prompt '-p|n-prompt' plan "$hf" -p 0
