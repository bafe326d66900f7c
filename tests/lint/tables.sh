#!/bin/sh
# Fails when a row of ir/ops.def or passes/passes.def has no test: tables.sh SOURCE_FOLDER
root=${1:-.}
missing=0
need() {
    [ -f "$root/$1" ] && return
    echo "$2: no test $1"
    missing=1
}
ops=$(sed -n 's/^OP([A-Z0-9_]*, "\([a-z0-9_]*\)".*/\1/p' "$root/ir/ops.def")
passes=$(sed -n 's/^PASS(\([a-z0-9_]*\),.*/\1/p' "$root/passes/passes.def")
[ -n "$ops" ] && [ -n "$passes" ] || { echo "the tables cannot be read under $root"; exit 1; }
for op in $ops; do need "tests/gir/ops/$op.gir" "ir/ops.def: $op"; done
for pass in $passes; do need "tests/gir/passes/$pass.gir" "passes/passes.def: $pass"; done
exit $missing
