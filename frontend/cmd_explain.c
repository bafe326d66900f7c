/* --explain: what the compiler chose for products and kernels, and why. As text, each choice with its reason is a line,
 * and those for which it was made stand below; as JSON each distinct decision is an object. */
#include "frontend/commands.h"

#include <stdio.h>
#include <string.h>

static bool are_alike(const ir_decision *a, const ir_decision *b) {
    return strcmp(a->step, b->step) == 0 && strcmp(a->choice, b->choice) == 0 && strcmp(a->reason, b->reason) == 0;
}

/* The choice of item `first` and all that share it, unless it was printed with one before. */
static void print_choice(const ir_decisions *list, size_t first, gm_string *out) {
    const ir_decision *choice = &list->items[first];
    for (size_t i = 0; i < first; i++)
        if (are_alike(&list->items[i], choice)) return;
    gm_string_printf(out, "%s: %s, since %s\n", choice->step, choice->choice, choice->reason);
    for (size_t i = first; i < list->count; i++)
        if (are_alike(&list->items[i], choice))
            gm_string_printf(out, "    %-14s %3lldx %s\n", list->items[i].func, (long long)list->items[i].count,
                             list->items[i].what);
}

static void print_text(const ir_decisions *list, gm_string *out) {
    for (size_t i = 0; i < list->count; i++) print_choice(list, i, out);
}

static void print_object(const ir_decision *decision, gm_string *out) {
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

static void print_json(const ir_decisions *list, gm_string *out) {
    gm_string_printf(out, "[\n");
    for (size_t i = 0; i < list->count; i++) {
        print_object(&list->items[i], out);
        gm_string_printf(out, i + 1 < list->count ? ",\n" : "\n");
    }
    gm_string_printf(out, "]\n");
}

void cmd_print_decisions(const ir_decisions *list, bool json) {
    gm_string out = {0};
    (json ? print_json : print_text)(list, &out);
    fwrite(out.data, 1, out.length, stdout);
    gm_string_free(&out);
}
