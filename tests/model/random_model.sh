# What the tests of models with random weights begin with; sourced with GEMMAC RANDOM_CHECKPOINT DATA FOLDER and `name` set. The models go to $folder,
# which is gone at the end.
gemmac=$1 random_checkpoint=$2 data=$3 folder=$4/$name
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
rm -rf "$folder"
fail() {
    echo "FAIL $*"
    exit 1
}
# COUNT VOCAB: a prompt, <bos> and ids all over the vocabulary
prompt() {
    ids=2
    i=1
    while [ $i -lt "$1" ]; do
        ids=$ids,$((i * 6007 % $2))
        i=$((i + 1))
    done
    echo "$ids"
}
# MODEL ARGUMENT…: the ids that are generated
generated() { "$gemmac" generate "$@" --ignore-eos --format json | grep -o '"ids":\[[0-9,]*\]'; }
count() { echo "$1" | tr ',' '\n' | wc -l; }
