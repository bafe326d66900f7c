#!/bin/sh
# Fails when a function has more than 120 lines or a file more than 1000: sizes.sh SOURCE_FOLDER
root=${1:-.}
cd "$root" || exit 2
find frontend ir passes codegen runtime tests -name '*.[ch]' -print | LC_ALL=C sort | xargs awk '
    function file_end() { if (lines > 1000) { print file ": " lines " lines, at most 1000"; wrong = 1 } }
    FNR == 1 { file_end(); file = FILENAME; open = 0 }
    { lines = FNR }
    # A body opens at the end of a line that begins a definition, or alone, and closes in the first column.
    /^[A-Za-z_].*[^;]$/ && !/^(typedef|enum|struct|union|static const|extern)[ a-zA-Z_]*\{/ { name = $0; at = FNR }
    /^[^ \t#].*\{$/ || /^\{$/ { open = at ? at : FNR }
    /^ .*\) \{$/ && !open && at { open = at }
    /^\}/ {
        if (open && FNR - open + 1 > 120) { print FILENAME ":" open ": " FNR - open + 1 " lines, at most 120: " name; wrong = 1 }
        open = 0; at = 0
    }
    END { file_end(); exit wrong }'
