# Files that are not what they claim: each is refused with one line that names the file. Sourced by run.sh.
hf=$data/tiny/gemma3-tiny
gguf=$data/gguf/gemma3-tiny-q8_0.gguf

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
