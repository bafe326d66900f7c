#!/bin/sh
# Fails when a line has more than 120 characters or clang-format would lay it out otherwise: format.sh SOURCE_FOLDER
# Versions of clang-format differ, so only 14 is asked; without it the length of lines is all that is looked at.
root=${1:-.}
cd "$root" || exit 2
sources() { find frontend ir passes codegen runtime tests -name '*.[ch]' -print | LC_ALL=C sort; }

long=$(sources | LC_ALL=C.UTF-8 xargs grep -nE '^.{121,}')
[ -z "$long" ] || { echo "$long"; echo "lines of at most 120 characters are expected"; exit 1; }

for format in clang-format-14 clang-format; do
    "$format" --version 2>/dev/null | grep -q ' version 14\.' || continue
    sources | xargs "$format" --dry-run -Werror && exit
    echo "$format -i FILE lays a file out"
    exit 1
done
echo "no clang-format 14: the layout is not looked at"
