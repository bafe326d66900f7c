# gemmac inspect: every kind of model, what was defaulted, and the warnings about configurations. Sourced by run.sh.
mixed=$data/gguf/gemma3-tiny256-q4_k_m.gguf

# ---- JSON ----
json inspect_hf '\{"architecture":"gemma3_text","generation":3,.*"layers":12,"layers_local":10,"layers_global":2,"layer_kinds":"lllllglllllg","window":5,.*"parameters":121760,"tensors":158,"tensor_bytes":487040,"types":\{"f32":\{"tensors":158,"bytes":487040\}\},"tokenizer":"none","pieces":0,"defaulted":\{.*\},"tensor_list":\[\{"name":"embed_tokens\.weight","type":"f32","shape":\[288,32\],"bytes":36864\},.*\]\}' inspect "$hf" --format json
check inspect_lists_every_tensor "$(grep -o '"name":' "$work/out" | wc -l)" [ "$(grep -o '"name":' "$work/out" | wc -l)" -eq 158 ]
json inspect_gguf_defaults '.*"tokenizer":"sentencepiece","pieces":288,.*"add_bos":true,"add_eos":false,"other_turns":false,"defaulted":\{"gemma3\.attention\.sliding_window_pattern":6,"gemma3\.rope\.scaling\.factor":1,"gemma3\.rope\.freq_base_swa":10000,"gemma3\.final_logit_softcapping":0,"gemma3\.attn_logit_softcapping":0,"query_pre_attn_scalar":16\},.*' inspect "$gguf" --format json
defaulted=$(grep -o '"defaulted":{[^}]*}' "$work/out")
tensors=$(grep -o '"tensor_list":.*' "$work/out")
gm compile "$gguf" -o m.gmx -c 64
cp "$work/cwd/m.gmx" "$work/inspected.gmx"
json inspect_gmx '\{"architecture":"gemma3",.*"compiled":\{"gemmac":"[^"]+","target":"[^"]+","target_cpu":null,"precision":"auto","plan":"(bf16|int8|block8)","wide":null,"passes":null,"skip":null,"with":null,"ctx_size":64,"chunk":[0-9]+,"measured":\[\]\},"defaulted":.*' inspect "$work/inspected.gmx" --format json
check inspect_gmx_defaulted "$(cat "$work/out")" [ "$(grep -o '"defaulted":{[^}]*}' "$work/out")" = "$defaulted" ]
# The model's tensors, then the 12 layers' 7 matrices with their rows interleaved.
listed=$(grep -o '"tensor_list":.*' "$work/out")
check inspect_gmx_tensors "$(head -c 600 "$work/out")" [ "${listed#"${tensors%]*}"}" != "$listed" ]
check inspect_gmx_derived "$(head -c 600 "$work/out")" [ "$(grep -o ':r16","type":"q8_0_r16"' "$work/out" | wc -l)" = 84 ]
gm compile "$gguf" -o m.gmx -c 64 --precision int8 --wide v_proj --with kv_ring --skip merge_qkv --target-cpu x86-64-v2
cp "$work/cwd/m.gmx" "$work/given.gmx"
json inspect_gmx_given '.*"target_cpu":"x86-64-v2","precision":"int8","plan":"int8","wide":"v_proj","passes":null,"skip":"merge_qkv","with":"kv_ring",.*' inspect "$work/given.gmx" --format json
good inspect_gmx_given_text '.*compiled .*target_cpu +x86-64-v2 precision +int8 plan +int8 wide +v_proj passes +the pipeline skip +merge_qkv with +kv_ring .*' inspect "$work/given.gmx"
printf '{"architecture":"%s/config.json","weights":"%s","tokenizer":"%s","generation":{"temperature":0.5,"top_k":40}}' "$hf" "$gguf" "$data/tokenizer/gemma1-new.json" >"$work/manifest.json"
bad inspect_foreign_tokenizer 'manifest\.json: tokenizer: expected at most the 288 pieces.*found 369' inspect "$work/manifest.json" --format json
sed -i "s|$data/tokenizer/gemma1-new.json|$gguf|" "$work/manifest.json"
json inspect_manifest '\{"architecture":"gemma3",.*"stops":\[[0-9,]+\],"temperature":0\.5,"top_k":40,.*"pieces":288,.*"defaulted":\{.*' inspect "$work/manifest.json" --format json

# The config of a folder without weights, and one that leaves out all it can.
mkdir -p "$work/sparse"
printf '{"model_type":"gemma2"}' >"$work/sparse/config.json"
json inspect_sparse '\{"architecture":"gemma2","generation":2,"vocab":256000,.*"layers":26,"layers_local":13,.*"tensors":0,.*"defaulted":\{"vocab_size":256000,"hidden_size":2304,"intermediate_size":9216,"num_hidden_layers":26,"num_attention_heads":8,"num_key_value_heads":4,"head_dim":256,"max_position_embeddings":8192,"rms_norm_eps":1e-06,"attention_bias":false,"query_pre_attn_scalar":256,"sliding_window":4096,"attn_logit_softcapping":50,"final_logit_softcapping":30,"use_bidirectional_attention":false,"rope_scaling":null,"rope_theta":10000,"layer_types":"every 2nd layer global","hidden_activation":"gelu_pytorch_tanh","dtype":"float32","tie_word_embeddings":true,"bos_token_id":2,"eos_token_id":1\},"tensor_list":\[\]\}' inspect "$work/sparse" --no-weights --format json

# ---- text ----
good inspect_text_hf 'architecture +gemma3_text .*layers_local +10 layers_global +2 layer_kinds +lllllglllllg .*tensor_bytes +487040 \(0\.5 MB\)   f32 +158 tensors, 487040 bytes .*defaulted .*tensors   embed_tokens\.weight +1 × \[288,32\] +36864 bytes  f32.*layers\.\*\.mlp\.down_proj\.weight +12 × \[32,32\] +49152 bytes  f32.*' inspect "$hf"
good inspect_text_mixed '.*q4_k +10 tensors, 331776 bytes   q6_k +5 tensors, 221760 bytes .*layers\.\*\.mlp\.down_proj\.weight +2 × \[256,256\] +107520 bytes  q6_k .*' inspect "$mixed"
good inspect_text_gmx '.*compiled gemmac .*target .*defaulted   gemma3\.attention\.sliding_window_pattern +6 .*' inspect "$work/inspected.gmx"

# ---- warnings: read as the reference reads it, and said ----
# warns NAME PATTERN CONFIG: the configuration is accepted with one warning.
warns() {
    printf '%s' "$3" >"$work/sparse/config.json"
    gm inspect "$work/sparse" --no-weights --format json
    check "$1" "status $status: $(cat "$work/err")" [ "$status" -eq 0 ]
    check "$1_says" "$(cat "$work/err")" grep -Eq -e "^gemmac: warning: .*sparse/config\.json: $2" "$work/err"
    check "$1_once" "$(cat "$work/err")" [ "$(wc -l <"$work/err")" -eq 1 ]
}
warns flat_rope_in_gemma3 'key "rope_parameters": .*not read in Gemma 3' '{"model_type":"gemma3_text","rope_parameters":{"rope_type":"linear","factor":8.0,"rope_theta":5}}'
check flat_rope_is_not_read "$(cat "$work/out")" grep -q '"rope_theta":1e+06,"rope_factor":1,"rope_local_theta":10000' "$work/out"
warns legacy_rope_type 'key "text_config\.rope_scaling\.type": .*honoured' '{"model_type":"gemma3","text_config":{"rope_scaling":{"type":"linear","factor":8.0}}}'
check legacy_rope_is_read "$(cat "$work/out")" grep -q '"rope_theta":1e+06,"rope_factor":8,"rope_local_theta":10000,"rope_local_factor":1' "$work/out"
warns cap_of_the_wrapper 'key "text_config\.final_logit_softcapping": not used' '{"model_type":"gemma3","text_config":{"final_logit_softcapping":30.0}}'
warns factor_without_a_type 'key "rope_scaling\.factor": not used' '{"model_type":"gemma2","rope_scaling":{"factor":8.0}}'
check factor_without_a_type_is_not_used "$(cat "$work/out")" grep -q '"rope_theta":10000,"rope_factor":1,' "$work/out"
