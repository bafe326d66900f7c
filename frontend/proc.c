/* Reading /proc: see proc.h. */
#include "frontend/proc.h"

#include <stdio.h>
#include <string.h>

int64_t fe_proc_bytes(const char *path, const char *key) {
    char line[256];
    long long kib = 0;
    size_t length = strlen(key);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, length) == 0 && line[length] == ':') sscanf(line + length + 1, "%lld", &kib);
    if (file) fclose(file);
    return kib * 1024;
}
