# Files that are not what they claim: each is refused with one line that names the file. Sourced by run.sh.

# refuse NAME PATTERN MODEL: by a command that reads it, one that runs it and one that compiles it to a file.
refuse() {
    bad "$1, logits" "$2" logits "$3" --ids 2,5 -o out.safetensors
    bad "$1, generate" "$2" generate "$3" --ids 2,5 -n 2 --temp 0
    bad "$1, compile" "$2" compile "$3" -o out.gmx
}

# hf_copy NAME: a folder with the tiny model to spoil, in $m.
hf_copy() {
    m=$work/hf/$1
    mkdir -p "$m"
    cp "$hf"/*config.json "$hf/model.safetensors" "$m/"
    chmod u+w "$m"/*
}
# config NAME PATTERN SED: the model with its config.json edited is refused.
config() {
    hf_copy "config_$1"
    sed "$3" "$hf/config.json" >"$m/config.json"
    if cmp -s "$m/config.json" "$hf/config.json"; then fail "$1" "the edit changes nothing"; fi
    refuse "$1" "$2" "$m"
}
# weights NAME PATTERN SED: the same for the header of model.safetensors; edits keep its length.
weights() {
    hf_copy "weights_$1"
    sed "$3" "$hf/model.safetensors" >"$m/model.safetensors"
    if cmp -s "$m/model.safetensors" "$hf/model.safetensors"; then fail "$1" "the edit changes nothing"; fi
    refuse "$1" "$2" "$m"
}
# gguf_copy NAME: a copy of the GGUF file to spoil, in $m.
gguf_copy() {
    m=$work/$1.gguf
    cp "$gguf" "$m" && chmod u+w "$m"
}

# ---- no model at all ----
refuse missing_file 'no/such\.gguf' no/such.gguf
refuse missing_folder 'no/such' no/such
mkdir -p "$work/hf/empty"
refuse empty_folder 'hf/empty.*config\.json' "$work/hf/empty"
: >"$work/empty.gguf"
refuse empty_file 'empty\.gguf' "$work/empty.gguf"
head -c 4096 /dev/urandom >"$work/noise.gguf"
refuse noise 'noise\.gguf' "$work/noise.gguf"
echo "just some text" >"$work/mini.txt"
refuse not_a_model 'mini\.txt' "$work/mini.txt"

# ---- config.json ----
config architecture_unknown 'config\.json.*(llama|supported|expected)' 's/gemma3_text/llama/; s/Gemma3ForCausalLM/LlamaForCausalLM/'
config activation_unknown 'config\.json.*(activation|relu)' 's/gelu_pytorch_tanh/relu/'
config rope_type_unknown 'config\.json.*(rope|yarn)' 's/"rope_type": "default"/"rope_type": "yarn", "factor": 2.0/'
config layer_type_unknown 'config\.json.*(layer_types|chunked)' 's/"sliding_attention",/"chunked_attention",/'
config integer_as_real 'config\.json: key "head_dim": expected an integer 1 to 2048, found 16\.0' 's/"head_dim": 16/"head_dim": 16.0/'
config integer_null 'config\.json: key "vocab_size": expected an integer.*found null' 's/"vocab_size": 288/"vocab_size": null/'
config cap_in_gemma3 'config\.json: key "attn_logit_softcapping": expected null in Gemma 3, found 50\.0' 's/"attn_logit_softcapping": null/"attn_logit_softcapping": 50.0/'
config bias_missing 'config_bias_missing: tensor "layers\.0\.self_attn\.q_proj\.bias": expected shape \[64\], found no such tensor' 's/"attention_bias": false/"attention_bias": true/'
config head_missing 'config_head_missing: tensor "lm_head\.weight": expected shape \[288,32\], found no such tensor' 's/"tie_word_embeddings": true/"tie_word_embeddings": false/'
config quantised 'config\.json.*quantization' 's/"use_cache": true/"quantization_config": {"quant_method": "gptq"}/'
config bidirectional 'config\.json.*bidirectional' 's/"use_bidirectional_attention": false/"use_bidirectional_attention": true/'
config heads_not_divisible 'config\.json.*(head)' 's/"num_key_value_heads": 2/"num_key_value_heads": 3/'
config negative_size 'config\.json.*hidden_size' 's/"hidden_size": 32/"hidden_size": -32/'
config absurd_size 'config\.json.*(hidden_size|shape|tensor)|model\.safetensors.*(shape|expected)' 's/"hidden_size": 32/"hidden_size": 4611686018427387904/'
config size_is_text 'config\.json.*hidden_size' 's/"hidden_size": 32/"hidden_size": "32"/'
config layers_missing_from_list 'config\.json.*layer_types' 's/"num_hidden_layers": 12/"num_hidden_layers": 13/'
config wrong_shape '(model\.safetensors|config_wrong_shape).*(shape|expected).*' 's/"intermediate_size": 32/"intermediate_size": 64/'
config wrong_vocab '(model\.safetensors|config_wrong_vocab).*(shape|expected).*' 's/"vocab_size": 288/"vocab_size": 289/'
config duplicate_key 'config\.json.*' 's/"head_dim": 16/"head_dim": 16, "head_dim": 16/'
config cut_off 'config\.json.*' '20,$d'
hf_copy config_deep
{ printf '{"a":'; head -c 20000 /dev/zero | tr '\0' '['; } >"$m/config.json"
refuse config_deep 'config\.json.*' "$m"
hf_copy no_weights
rm "$m/model.safetensors"
refuse no_weights_file 'no_weights.*safetensors' "$m"

# ---- model.safetensors ----
weights type_unknown 'model\.safetensors.*(F99|dtype|type)' 's/"F32"/"F99"/'
weights type_not_float 'model\.safetensors.*(I32|dtype|type)' 's/"F32"/"I32"/'
weights shape_lies 'model\.safetensors.*(shape|bytes|expected)' 's/\[288,32\]/[289,32]/'
weights shape_negative 'model\.safetensors.*(shape|expected)' 's/\[288,32\]/[-28,32]/'
weights offsets_reversed 'model\.safetensors.*offset' 's/\[36864,36992\]/[36992,36864]/'
weights offsets_overlap 'model\.safetensors.*(offset|overlap|expected)' 's/\[36864,36992\]/[36860,36988]/'
weights offset_beyond_the_end 'model\.safetensors.*(offset|bytes|expected)' 's/\[36864,36992\]/[936864,936992]/; s/"format":"pt"/"format":""/'
weights tensor_missing '(model\.safetensors|tensor_missing).*norm.*' 's/"model\.norm\.weight"/"model.nrom.weight"/'
weights tensor_twice 'model\.safetensors.*' 's/"model\.layers\.1\.input_layernorm/"model.layers.0.input_layernorm/'
weights header_not_json 'model\.safetensors.*' 's/{"__metadata__"/x"__metadata__"/'
hf_copy pointer
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 487040\n' >"$work/pointer"
cp "$work/pointer" "$m/model.safetensors"
refuse safetensors_not_fetched 'model\.safetensors: .*Git LFS' "$m"
cp "$work/pointer" "$m/tokenizer.json"
bad tokenizer_not_fetched 'tokenizer\.json: .*Git LFS' tokenize "$m" -p a
mv "$m/tokenizer.json" "$m/tokenizer.model"
bad sentencepiece_not_fetched 'tokenizer\.model: .*Git LFS' tokenize "$m" -p a
cp "$work/pointer" "$work/pointer.gguf"
refuse gguf_not_fetched 'pointer\.gguf: .*Git LFS' "$work/pointer.gguf"
hf_copy truncated
head -c 300000 "$hf/model.safetensors" >"$m/model.safetensors"
refuse safetensors_truncated 'model\.safetensors.*' "$m"
head -c 5 "$hf/model.safetensors" >"$m/model.safetensors"
refuse safetensors_five_bytes 'model\.safetensors.*' "$m"
: >"$m/model.safetensors"
refuse safetensors_empty 'model\.safetensors.*' "$m"
hf_copy header_length
poke "$m/model.safetensors" 0 '\377\377\377\377\377\377\377\177'
refuse safetensors_header_too_long 'model\.safetensors.*' "$m"
poke "$m/model.safetensors" 0 '\050\000\000\000\000\000\000\000'
refuse safetensors_header_too_short 'model\.safetensors.*' "$m"
poke "$m/model.safetensors" 0 '\000\000\000\000\000\000\000\000'
refuse safetensors_header_of_no_bytes 'model\.safetensors.*' "$m"

# Values: a norm is refused at once, any other weight when it first spoils the activations.
data_start=$((8 + $(od -An -tu8 -N8 "$hf/model.safetensors" | tr -d ' ')))
hf_copy norm_nan
poke "$m/model.safetensors" $((data_start + 36864)) '\000\000\300\177'
refuse norm_nan 'norm_nan/model.safetensors: tensor "layers\.0\.input_layernorm\.weight": expected finite values, found -?nan at 0' "$m"
hf_copy norm_inf
poke "$m/model.safetensors" $((data_start + 36868)) '\000\000\200\177'
refuse norm_inf 'norm_inf/model.safetensors: tensor "layers\.0\.input_layernorm\.weight": expected finite values, found inf at 1' "$m"
hf_copy weight_nan
poke "$m/model.safetensors" $((data_start + 36992)) '\000\000\300\177'
bad weight_nan 'hf/weight_nan: the activations are not finite' generate "$m" --ids 2,5 -n 2
bad weight_nan_logits 'hf/weight_nan: the activations are not finite' logits "$m" --ids 2,5 -o out.safetensors
# A row of the embedding that the prompt does not have: its logit, and what comes after it when it is chosen.
hf_copy row_nan
poke "$m/model.safetensors" $((data_start + 7 * 32 * 4)) '\000\000\300\177'
bad row_nan_logits 'hf/row_nan: the logits are not finite' logits "$m" --ids 2,5 -o out.safetensors
hf_copy row_inf
poke "$m/model.safetensors" $((data_start + 7 * 32 * 4)) '\000\000\200\177'
bad row_inf 'hf/row_inf: the activations are not finite' generate "$m" --ids 2,5 -n 20 --temp 0 --ignore-eos --format json # text comes as it is generated
weights type_f64 'model\.safetensors.*embed_tokens\.weight": expected dtype F32, F16 or BF16, found F64' 's/"F32","shape":\[288,32\]/"F64","shape":[144,32]/'
weights type_f8 'model\.safetensors.*embed_tokens\.weight": expected dtype F32, F16 or BF16, found F8_E5M2' 's/"F32","shape":\[288,32\]/"F8_E5M2","shape":[36864]/; s/"format":"pt"/"for":"pt"/'

# ---- shards ----
sharded=$data/tiny/gemma3-tiny-bf16
# shards NAME PATTERN SED: the sharded model with its index edited is refused.
shards() {
    m=$work/hf/shards_$1
    mkdir -p "$m"
    cp "$sharded"/*config.json "$sharded"/model* "$m/"
    chmod u+w "$m"/*
    sed "$3" "$sharded/model.safetensors.index.json" >"$m/model.safetensors.index.json"
    if cmp -s "$m/model.safetensors.index.json" "$sharded/model.safetensors.index.json"; then fail "$1" "the edit changes nothing"; fi
    refuse "$1" "$2" "$m"
}
first='s/\("model\.embed_tokens\.weight": \)"model-00001-of-00006\.safetensors"'
shards shard_absent 'model-00009-of-00006\.safetensors: No such file' "$first/\\1\"model-00009-of-00006.safetensors\"/"
shards shard_wrong 'model-00002-of-00006\.safetensors: tensor "model\.embed_tokens\.weight": expected it here' "$first/\\1\"model-00002-of-00006.safetensors\"/"
shards shard_above 'index\.json: key "weight_map\.model\.embed_tokens\.weight": expected a file name without folders' "$first/\\1\"..\"/"
shards shard_elsewhere 'index\.json: key "weight_map\.model\.embed_tokens\.weight": expected a file name without folders' "$first/\\1\"\\/tmp\\/model-00001-of-00006.safetensors\"/"
shards shard_number 'index\.json: key "weight_map\.model\.embed_tokens\.weight"' "$first/\\1 3/"
shards shard_of_another 'tensor "model\.layers\.8\.' 's/model\.layers\.7\.mlp\.up_proj/model.layers.8.mlp.up_proj/'
sed 's/"model\.layers\.0\.mlp\.up_proj\.weight"/"model.layers.0.mlp.up_proj.extra_"/' "$sharded/model-00002-of-00006.safetensors" >"$m/extra.safetensors"
sed 's/"weight_map": {/&"model.layers.0.mlp.up_proj.extra_": "extra.safetensors",/' "$sharded/model.safetensors.index.json" >"$m/model.safetensors.index.json"
refuse tensor_in_two_shards 'tensor "layers\.0\..*": expected only one of this name' "$m"

# ---- tokenizers ----
# tokenizer NAME PATTERN SED: a tokenizer of 369 pieces with the configuration edited is refused.
tokenizer() {
    hf_copy "tokenizer_$1"
    cp "$data/tokenizer/gemma1-new.json" "$m/tokenizer.json"
    sed "$3" "$hf/config.json" >"$m/config.json"
    rm "$m/model.safetensors"
    bad "$1" "$2" tokenize "$m" -p a
    bad "$1_compile" "$2" compile "$m" --no-weights --dump=after:lower
}
tokenizer tokenizer_too_large 'tokenizer: expected at most the 288 pieces the embedding has rows for, found 369' 's/x/x/'
tokenizer tokenizer_too_small 'tokenizer: expected as many pieces as the embedding has rows \(262144, .*found 369' 's/"vocab_size": 288/"vocab_size": 262144/'
tokenizer tokenizer_other_bos 'tokenizer: expected <bos> to be 5, .*found 2' 's/"vocab_size": 288/"vocab_size": 384/; s/"bos_token_id": 2/"bos_token_id": 5/'
tokenizer tokenizer_without_the_stop 'tokenizer: expected a piece for id 380, .*found 369 pieces' 's/"vocab_size": 288/"vocab_size": 384/; s/"eos_token_id": 1/"eos_token_id": 380/'
hf_copy tokenizer_cut
sed 's/"vocab_size": 288/"vocab_size": 384/' "$hf/config.json" >"$m/config.json"
head -c 3000 "$data/tokenizer/gemma1-new.json" >"$m/tokenizer.json"
rm "$m/model.safetensors"
bad tokenizer_cut 'tokenizer\.json: byte 3000: expected' tokenize "$m" -p a
sed 's/"<0x08>"/"<08>"/' "$data/tokenizer/gemma1-new.json" >"$m/tokenizer.json"
bad tokenizer_without_a_byte 'tokenizer\.json: model\.vocab: expected a byte piece <0x08>' tokenize "$m" -p a
sed 's/"lstrip":false/"lstrip":null/' "$data/tokenizer/gemma1-new.json" >"$m/tokenizer.json"
bad tokenizer_flag 'tokenizer\.json: added token "<pad>": lstrip: expected true or false' tokenize "$m" -p a
rm "$m/tokenizer.json"
echo "not a model" >"$m/tokenizer.model"
bad tokenizer_not_sentencepiece 'tokenizer\.model: ' tokenize "$m" -p a

# ---- GGUF ----
for bytes in 3 11 23 40 1000 17000 18000; do
    head -c $bytes "$gguf" >"$work/cut_$bytes.gguf"
    refuse "gguf_cut_after_$bytes" "cut_$bytes\\.gguf" "$work/cut_$bytes.gguf"
done
size=$(wc -c <"$gguf")
head -c $((size - 64)) "$gguf" >"$work/cut_end.gguf"
refuse gguf_without_its_end 'cut_end\.gguf.*' "$work/cut_end.gguf"
gguf_copy magic
poke "$m" 0 'GGML'
refuse gguf_magic 'magic\.gguf.*' "$m"
gguf_copy version
poke "$m" 4 '\011'
refuse gguf_version 'version\.gguf.*version' "$m"
gguf_copy version_1
poke "$m" 4 '\001'
refuse gguf_version_1 'version_1\.gguf: expected GGUF version 2 or 3, found 1' "$m"
gguf_copy big_endian
poke "$m" 4 '\000\000\000\003'
refuse gguf_big_endian 'big_endian\.gguf.*' "$m"
gguf_copy tensor_count
poke "$m" 8 '\377\377\377\377\377\377\377\177'
refuse gguf_tensor_count 'tensor_count\.gguf.*' "$m"
gguf_copy key_count
poke "$m" 16 '\377\377\377\377\377\377\377\177'
refuse gguf_key_count 'key_count\.gguf.*' "$m"
gguf_copy key_length
poke "$m" 24 '\377\377\377\377\377\377\377\377'
refuse gguf_key_length 'key_length\.gguf.*' "$m"
gguf_copy value_type
poke "$m" 52 '\143'
refuse gguf_value_type 'value_type\.gguf.*' "$m"
gguf_copy architecture
poke "$m" 64 'gemma9'
refuse gguf_architecture 'architecture\.gguf.*(gemma9|supported|expected)' "$m"

# After a tensor's name: u32 rank, u64 extents, u32 type, u64 offset.
name=$(offset "$gguf" output_norm.weight)
gguf_copy type
poke "$m" $((name + 30)) '\143'
refuse gguf_type_unknown 'type\.gguf.*(output_norm|type)' "$m"
gguf_copy control_bytes
poke "$m" 64 'g\033[31m'
refuse gguf_control_bytes 'control_bytes\.gguf.*g \[31m' "$m"
gguf_copy rank
poke "$m" $((name + 18)) '\011'
refuse gguf_rank 'rank\.gguf.*(output_norm|dimension|rank)' "$m"
gguf_copy shape
poke "$m" $((name + 22)) '\041'
refuse gguf_shape 'shape\.gguf.*' "$m"
gguf_copy extent
poke "$m" $((name + 22)) '\377\377\377\377\377\377\377\177'
refuse gguf_extent 'extent\.gguf.*' "$m"
gguf_copy data_offset
poke "$m" $((name + 34)) '\000\000\000\000\001'
refuse gguf_data_offset 'data_offset\.gguf.*' "$m"
gguf_copy tensor_missing
poke "$m" "$name" 'output_nrom'
refuse gguf_tensor_missing 'tensor_missing\.gguf.*output_n' "$m"
gguf_copy nan
key=$(offset "$gguf" gemma3.attention.layer_norm_rms_epsilon)
poke "$m" $((key + 43)) '\000\000\300\177'
refuse gguf_epsilon_nan 'nan\.gguf.*(epsilon)' "$m"

# ---- a compiled artefact ----
head -c 100 /dev/zero >"$work/zero.gmx"
bad gmx_zeroes 'zero\.gmx' generate "$work/zero.gmx" --ids 2
gm compile "$gguf" -o made.gmx
if [ "$status" -eq 0 ]; then
    cp "$work/cwd/made.gmx" "$work/made.gmx"
    for bytes in 7 100 5000; do
        head -c $bytes "$work/made.gmx" >"$work/cut.gmx"
        bad "gmx_cut_after_$bytes" 'cut\.gmx' generate "$work/cut.gmx" --ids 2 -n 1
    done
    head -c $(($(wc -c <"$work/made.gmx") - 1)) "$work/made.gmx" >"$work/cut.gmx"
    bad gmx_one_byte_short 'cut\.gmx' generate "$work/cut.gmx" --ids 2 -n 1
else fail gmx_compiles "$(cat "$work/err")"
fi

# ---- inputs that do not fit the model ----
bad id_out_of_range 'id 288 .*expected 0 to 287' generate "$hf" --ids 2,288 -n 1
bad id_out_of_range_logits 'id 288 .*expected 0 to 287' logits "$hf" --ids 288 -o out.safetensors
bad id_out_of_range_detokenize 'id 99999 ' detokenize "$gguf" --ids 99999
bad prompt_longer_than_context 'gemma3-tiny.*9 tokens.*context of 8' generate "$hf" -c 8 --ids 2,5,5,5,5,5,5,5,5
bad prompt_longer_than_context_logits 'gemma3-tiny.*9 tokens.*context of 8' logits "$hf" -c 8 --ids 2,5,5,5,5,5,5,5,5 -o out.safetensors
bad text_without_a_tokenizer 'gemma3-tiny.*tokenizer' generate "$hf" -p hello
bad stop_without_a_tokenizer 'gemma3-tiny.*tokenizer' generate "$hf" --ids 2 --stop a
echo short >"$work/short.txt"
bad text_shorter_than_a_chunk 'expected at least one chunk of 64' perplexity "$gguf" -f "$work/short.txt" -c 64
bad output_folder_missing 'no/such/out' logits "$hf" --ids 2 -o no/such/out.safetensors
bad pass_unknown 'nope' generate "$hf" --ids 2 --skip nope
printf '[{"role":"user","content":"a"},{"role":"user","content":"b"}]' >"$work/roles.json"
bad chat_roles_do_not_alternate 'alternate' render "$gguf" --messages "$work/roles.json"
printf '[{"role":"user"' >"$work/cut.json"
bad chat_file_cut_off 'cut\.json' render "$gguf" --messages "$work/cut.json"
# A manifest whose one weight file is not there, or a pointer to it, says so, not that a key is missing.
mkdir "$work/alone"
printf '{"weights":"gone.gguf"}' >"$work/alone/gone.json"
bad manifest_weights_gone 'alone/gone.gguf: no such file' tokenize "$work/alone/gone.json" -p a
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' >"$work/alone/pointer.gguf"
printf '{"weights":"pointer.gguf"}' >"$work/alone/pointer.json"
bad manifest_weights_pointer 'alone/pointer.gguf: .*Git LFS pointer' tokenize "$work/alone/pointer.json" -p a
printf '{"weights":"other.gguf"}' >"$work/alone/other.json"
printf 'text' >"$work/alone/other.gguf"
bad manifest_without_architecture 'alone/other.json: expected key "architecture"' tokenize "$work/alone/other.json" -p a
# A key of the wrapper is named as it stands there, one of a manifest's generation as part of it.
printf '{"model_type":"gemma3","quantization_config":{},"text_config":{"model_type":"gemma3_text"}}' >"$work/alone/quantised.json"
bad wrapper_quantised 'key "quantization_config": expected null' plan "$work/alone/quantised.json" --no-weights
printf '{"model_type":"gemma3","text_config":{"model_type":"gemma3_text","eos_token_id":"x"}}' >"$work/alone/stops.json"
bad wrapper_stops 'key "text_config.eos_token_id": expected a token id' plan "$work/alone/stops.json" --no-weights
printf '{"architecture":{"model_type":"gemma"},"generation":{"top_p":2}}' >"$work/alone/top_p.json"
bad manifest_top_p 'key "generation.top_p": expected a number' plan "$work/alone/top_p.json" --no-weights
# Sizes that are allowed each, and together are more than there are addresses.
printf '{"model_type":"gemma","num_attention_heads":16777216,"num_key_value_heads":16777216,"head_dim":2048,"num_hidden_layers":256,"hidden_size":1,"max_position_embeddings":1073741824}' >"$work/alone/huge.json"
bad cache_of_too_many_bytes 'KV cache of 16777216 tokens' plan "$work/alone/huge.json" --no-weights -c 16777216
