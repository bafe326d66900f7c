#!/bin/sh
# Fails when a folder includes what it may not: layering.sh SOURCE_FOLDER
# The arrows, from the bottom: runtime knows nothing above it; ir stands on a few headers of runtime; passes and codegen on ir,
# and not on each other; frontend on everything. oneDNN is fenced in runtime, LLVM in codegen, cJSON in frontend.
root=${1:-.}
cd "$root" || exit 2
wrong=0

# allow FOLDER PATTERN: every #include of the folder's files matches PATTERN (the name between quotes or angle brackets).
allow() {
    [ -d "$1" ] || { echo "no folder $1"; exit 2; }
    found=$(grep -nE '^ *# *include' "$1"/*.[ch] "$1"/*.def 2>/dev/null | grep -vE "include *[<\"]($2)[>\"]")
    [ -z "$found" ] && return
    echo "$1/ may not include:"
    echo "$found"
    wrong=1
}

# What C, POSIX and Linux bring: headers of no folder, of sys/ or of linux/.
libc='[a-z]+\.h|(sys|linux)/[a-z]+\.h'
allow runtime "$libc|runtime/[a-z_]+\.(h|def)|oneapi/dnnl/dnnl\.h"
allow ir "$libc|ir/[a-z_]+\.(h|def)|runtime/(base|dtype|rotate|interleave|likely|panel|screen|weights|sampler)\.h|runtime/dtype\.def"
allow passes "$libc|passes/[a-z_]+\.(h|def)|ir/[a-z_]+\.(h|def)|runtime/(abi|base|derive|dtype|interleave|screen|sampler)\.h"
allow codegen "$libc|codegen/[a-z_]+\.(h|def)|ir/[a-z_]+\.(h|def)|runtime/(base|abi|dtype|grid|interleave|likely|panel|release|rotate|screen|sampler|tiles)\.h|llvm-c/[A-Za-z/]+\.h"
allow frontend "$libc|(frontend|ir|passes|codegen|runtime)/[a-z_]+\.(h|def)|cjson/cJSON\.h"

# Inside another folder only what is meant for others.
found=$(grep -nE '"(codegen/(cg|decode|llvm)|ir/interp_internal|passes/(fold|loops|screened)|runtime/(onednn|tokenizer_impl))\.h"' ./*/*.[ch] |
    grep -vE '^\./(codegen/[^:]*:.*"codegen|ir/[^:]*:.*"ir|passes/[^:]*:.*"passes|runtime/[^:]*:.*"runtime)')
if [ -n "$found" ]; then
    echo "headers of one folder only:"
    echo "$found"
    wrong=1
fi
exit $wrong
