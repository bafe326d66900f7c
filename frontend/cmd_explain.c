/* --explain: what the compiler chose for products and kernels, and why, a line for each distinct decision. */
#include "frontend/commands.h"

#include <stdio.h>
#include <string.h>

static void print_text(const ir_decision *decision, gm_string *out) {
    gm_string_printf(out, "%-15s %-14s %3lldx %s: %s, since %s\n", decision->step, decision->func,
                     (long long)decision->count, decision->what, decision->choice, decision->reason);
}

static void print_json(const ir_decision *decision, gm_string *out) {
    const struct {
        const char *key, *text;
    } fields[] = {{"step", decision->step},
                  {"func", decision->func},
                  {"what", decision->what},
                  {"choice", decision->choice},
                  {"reason", decision->reason}};
    gm_string_printf(out, "{");
    for (size_t i = 0; i < GM_COUNT(fields); i++) {
        gm_string_printf(out, "\"%s\":", fields[i].key);
        cmd_json_text(out, fields[i].text, strlen(fields[i].text));
        gm_string_printf(out, ",");
    }
    gm_string_printf(out, "\"count\":%lld}", (long long)decision->count);
}

void cmd_print_decisions(const ir_decisions *list, bool json) {
    gm_string out = {0};
    if (json) gm_string_printf(&out, "[\n");
    for (size_t i = 0; i < list->count; i++) {
        if (json) print_json(&list->items[i], &out);
        else print_text(&list->items[i], &out);
        if (json) gm_string_printf(&out, i + 1 < list->count ? ",\n" : "\n");
    }
    if (json) gm_string_printf(&out, "]\n");
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}
