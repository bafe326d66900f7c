# opt and run on .gir files. Sourced by run.sh.
gir=$work/add.gir
cat >"$gir" <<'END'
symbol T max 8

func @add(%x: f32[T,2], %y: f32[2]) -> (f32[T,2]) {
  %sum = add %x, %y : f32[T,2]
  %unused = mul %x, %x : f32[T,2]
  return %sum
}
END
if ! grep -q '^}' "$gir"; then fail gir "test file not written"; fi

good opt_prints '.*func @add\(.*%unused.*' opt "$gir"
cp "$work/out" "$work/printed.gir"
good opt_is_stable '.*func @add\(.*' opt "$work/printed.gir"
same opt_prints_the_same "$work/out" "$work/printed.gir"
input=$gir
good opt_from_standard_input '.*func @add\(.*' opt -
input=/dev/null
gm opt -p dce "$gir"
check opt_runs_passes "still there: $(cat "$work/out")" sh -c "! grep -q unused '$work/out'"
gm opt -p dce --skip dce "$gir"
check opt_skips_passes "left out" grep -q unused "$work/out"
gm opt "$gir" -o result.gir
same opt_writes_its_output "$work/cwd/result.gir" "$work/printed.gir"
check opt_leaves_one_file "left: $(ls -A "$work/cwd")" [ "$(ls -A "$work/cwd")" = result.gir ]

good run_interprets '0: f32\[4,2\] =( -?[0-9.e-]+){8}' run "$gir" --interp
cp "$work/out" "$work/first"
good run_again '0: f32.*' run "$gir" --seed 0
same run_is_repeatable "$work/out" "$work/first"
good run_another_seed '0: f32.*' run "$gir" --seed 1
check run_seed_matters "same values" sh -c "! cmp -s '$work/out' '$work/first'"
good run_dims '0: f32\[3,2\] =.*' run "$gir" --dims T=3
json run_json '\{"results":\[\{"dtype":"f32","shape":\[4,2\],"values":\[(-?[0-9.e-]+,?){8}\]\}\]\}' run "$gir" --func add --format json
good run_compiles '0: f32\[4,2\] =.*' run "$gir" --jit
same run_compiled_gives_the_same "$work/out" "$work/first"
good run_compares '@add: .*agree' run "$gir" --check

bad gir_missing 'no/such.gir' opt no/such.gir
bad run_unknown_function 'add.gir.*@nope' run "$gir" --func nope
bad run_unknown_symbol '--dims Q=3' run "$gir" --dims Q=3
bad opt_unknown_pass "unknown pass 'nope'" opt -p dce,nope "$gir" -o out.gir
printf 'func @f(' >"$work/cut.gir"
bad gir_cut_off 'cut.gir:1:[0-9]+' opt "$work/cut.gir" -o out.gir
sed 's/add %x/frobnicate %x/' "$gir" >"$work/op.gir"
bad gir_unknown_op 'op.gir:4:[0-9]+.*frobnicate' run "$work/op.gir"
sed 's/%y: f32\[2\]/%y: f32[3]/' "$gir" >"$work/shape.gir"
bad gir_shapes_differ 'shape.gir|@add' run "$work/shape.gir"
head -c 100 /dev/urandom >"$work/noise.gir"
bad gir_noise 'noise.gir' opt "$work/noise.gir"

# calls LIMIT: a function of that many parameters and results, called by another.
calls() {
    awk -v n="$1" 'function list(p, s,  i, t) { for (i = 1; i <= n; i++) t = t (i > 1 ? ", " : "") p i s; return t }
        function types(  i, t) { for (i = 1; i <= n; i++) t = t (i > 1 ? ", " : "") "f32[4]"; return t }
        BEGIN { printf "func @callee(%s) -> (%s) {\n", list("%a", ": f32[4]"), types()
            for (i = 1; i <= n; i++) printf "  %%b%d = exp %%a%d : f32[4]\n", i, i
            printf "  return %s\n}\n\nfunc @caller(%s) -> (%s) {\n  %s = call %s {callee = \"callee\"} : %s\n  return %s\n}\n", list("%b", ""), list("%a", ": f32[4]"), types(), list("%c", ""), list("%a", ""), types(), list("%c", "") }'
}
calls 64 >"$work/calls.gir"
good run_many_arguments '@caller: .*agree' run "$work/calls.gir" --func caller --check
calls 65 >"$work/calls.gir"
bad run_too_many_arguments '@callee: compiled functions have at most 64 parameters and 64 results' run "$work/calls.gir" --func caller --jit
good run_many_threads '@add: .*agree' run "$gir" --check -t 5
# OpenMP may start fewer threads than are asked for.
export OMP_THREAD_LIMIT=1
good run_thread_limit '@add: .*agree' run "$gir" --check -t 4
unset OMP_THREAD_LIMIT
# What is made up fits the operations, and compiled code is judged instruction by instruction.
for seed in 0 1 2; do
    for file in attention gather index window update matmul_interleaved matmul_rows; do
        for func in $(sed -n 's/^func @\([a-zA-Z0-9_]*\).*/\1/p' "$here/../gir/ops/$file.gir"); do
            good "run_check $file $func $seed" "@$func: .*agree" run "$here/../gir/ops/$file.gir" --func "$func" --seed "$seed" --check
        done
    done
done
bad run_beyond_its_bound 'makes T = 9, its bound is 8' run "$gir" --dims T=9 --jit
bad run_beyond_its_bound_interpreted 'makes T = 9, its bound is 8' run "$gir" --dims T=9
# 0 is what --help says that it is.
printf 'symbol S\nsymbol T\nfunc @f(%%x: f32[T,4], %%c: f32[S,4]) -> (f32[T,4], f32[S,4]) {\n  return %%x, %%c\n}\n' >"$work/zero.gir"
gm opt -p specialize "$work/zero.gir"
cp "$work/out" "$work/usual"
gm opt -p specialize "$work/zero.gir" -c 0 --chunk 0
check opt_zero_is_usual "$(head -c 300 "$work/out" "$work/err")" cmp -s "$work/out" "$work/usual"
check opt_usual_context "$(head -c 300 "$work/out")" grep -q 'f32\[4096,4\]' "$work/out"

# A function that has the name of a copy which specialize makes is not called in its place.
cat >"$work/clash.gir" <<'TEXT'
symbol T max 8
func @f.T1(%x: f32[1]) -> (f32[1]) {
  %c = const {value = 100} : f32
  %y = mul %x, %c : f32[1]
  return %y
}
func @f(%x: f32[T]) -> (f32[T]) {
  %y = add %x, %x : f32[T]
  return %y
}
func @main(%x: f32[1]) -> (f32[1]) {
  %y = call %x {callee = "f"} : f32[1]
  return %y
}
TEXT
bad specialize_clash '@f\.T1: is not @f for those extents' opt -p specialize "$work/clash.gir"
bad run_clash '@f\.T1: is not @f for those extents' run "$work/clash.gir" --func main --jit
sed 's/@f\.T1(%x: f32\[1\])/@g(%x: f32[1])/' "$work/clash.gir" >"$work/no_clash.gir"
good specialize_makes_the_copy '.*func @f\.T1\(.*' opt -p specialize "$work/no_clash.gir"
cp "$work/out" "$work/special.gir"
good specialize_again '.*func @f\.T1\(.*' opt -p specialize "$work/special.gir"
same specialize_knows_its_copies "$work/out" "$work/special.gir"

# What compiled code does not look at is refused before it runs.
cat >"$work/beyond.gir" <<'TEXT'
symbol T max 4
func @far(%x: f32[4,2], %v: f32[1,2]) -> (f32[4,2]) {
  %at = const {value = 1000000000} : i32
  %y = update %x, %v, %at : f32[4,2]
  return %y
}
func @long(%x: f32[T]) -> (f32[T]) {
  return %x
}
func @blocks(%x: f32[3,32], %w: q8_0[8,32]) -> (f32[3,8]) {
  %y = matmul %x, %w : f32[3,8]
  return %y
}
TEXT
bad run_beyond_the_extent 'leaves axis 0 of extent 4' run "$work/beyond.gir" --func far --jit
bad run_beyond_the_bound 'makes T = 5, its bound is 4' run "$work/beyond.gir" --func long --jit --dims T=5
good run_blocks_interpreted '0: f32\[3,8\] =.*' run "$work/beyond.gir" --func blocks --interp
bad run_blocks_compiled 'matmul of a parameter in q8_0: expected a weight' run "$work/beyond.gir" --func blocks --jit

# Chains of operations whose terms cancel, as in gelu: what one of them rounds is not what the chain may be off by.
gm compile "$data/tiny/gemma3-tiny" --no-weights --precision f32 --dump=after:fuse_rows
cp "$work/out" "$work/fused.gir"
good check_fused '@forward\.T1: compiled and interpreted values agree' run "$work/fused.gir" --check --seed 3
