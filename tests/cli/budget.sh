# gemmac compile --kl-budget: the plans that are tried, in their order, and which is stored. Sourced by run.sh.
printf 'the the quick brown fox jumps over the lazy dog and the dog sleeps. ' >"$work/budget.txt"
for i in 1 2 3 4 5 6 7; do cat "$work/budget.txt"; done >"$work/budget8.txt"
plan_of() { "$gemmac" inspect "$1" --format json | sed -n 's/.*"precision":"\([a-z0-9]*\)".*/\1/p'; }
# budget NAME X ARGUMENT…: compiles, the last plan that was tried is the one that is stored, and only it is within X.
budget() {
    budget_name=$1 budget_x=$2
    shift 2
    gm compile "$gguf" --kl-budget "$budget_x" -o plan.gmx "$@"
    check "$budget_name" "$(head -c 300 "$work/err")" [ "$status" -eq 0 ]
    check "${budget_name}_one_file" "$(ls -A "$work/cwd")" [ "$(ls -A "$work/cwd")" = plan.gmx ]
    tried=$(sed -n 's/^\([a-z0-9]*\)[,:].*mean KL .*/\1/p' "$work/err")
    check "${budget_name}_stored" "$(cat "$work/err")" [ "$(plan_of "$work/cwd/plan.gmx")" = "$(echo "$tried" | tail -n 1)" ]
    sed -n 's/.*: mean KL //p' "$work/err" | awk -v x="$budget_x" '{ kl[NR] = $1 } END { for (i = 1; i < NR; i++) if (kl[i] <= x) exit 1; exit !(NR && kl[NR] <= x) }'
    ordered=$?
    check "${budget_name}_order" "$(cat "$work/err")" [ $ordered -eq 0 ]
}
budget budget_large 1000
check budget_first "$(cat "$work/err")" [ "$(grep -c 'mean KL' "$work/err")" = 1 ]
budget budget_nothing 0 -f "$work/budget8.txt"
check budget_exact "$(cat "$work/err")" grep -q '^f32: mean KL 0$' "$work/err"
budget budget_small_context 0.5 -f "$work/budget8.txt" -c 64
budget budget_own_text 0.5 -c 64
budget budget_some_tokens 0.5 -f "$work/budget8.txt" --tokens 20
bad budget_precision 'no --precision' compile "$gguf" --kl-budget 1 --precision int8 -o plan.gmx
bad budget_wide 'no --wide' compile "$gguf" --kl-budget 1 --wide v_proj -o plan.gmx
bad budget_no_weights 'needs the weights' compile "$gguf" --kl-budget 1 --no-weights -o plan.gmx
bad budget_no_text 'none.txt' compile "$gguf" --kl-budget 1 -f none.txt -o plan.gmx
printf '' >"$work/empty.txt"
bad budget_empty_text 'at least 2 tokens' compile "$gguf" --kl-budget 1 -f "$work/empty.txt" -o plan.gmx
bad budget_text_alone '-f FILE and --tokens N are for --kl-budget' compile "$gguf" -f "$work/budget8.txt" -o plan.gmx
bad budget_tokens_alone 'are for --kl-budget' compile "$gguf" --tokens 5 -o plan.gmx
# What OUT is, is found out before plans are tried.
bad budget_output_elsewhere '^gemmac: no/such/plan.gmx: ' compile "$gguf" --kl-budget 1 -o no/such/plan.gmx
bad budget_output_is_the_model 'a file of the model that is read' compile "$gguf" --kl-budget 1 -o "$gguf"
# --passes names passes that round, and the base of a divergence is not rounded with them.
gm perplexity "$gguf" -f "$work/budget8.txt" -c 64 --precision int8 --kl-base f32 --format json
plain=$(sed -n 's/.*"kl_mean":\([^,]*\).*/\1/p' "$work/out")
gm perplexity "$gguf" -f "$work/budget8.txt" -c 64 --precision int8 --kl-base f32 --format json --passes fold,cse,dce,kv_split,kv_bf16,merge_qkv,batch_attention,form_generate_loop,form_prefill_loop,chunk_prefill
check base_without_passes "$plain $(cat "$work/err" "$work/out")" awk -v a="$plain" -v b="$(sed -n 's/.*"kl_mean":\([^,]*\).*/\1/p' "$work/out")" 'BEGIN { exit !(a > 0 && b > a / 2) }'
