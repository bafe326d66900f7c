/* The settings that a model's files leave out, with the values that stand in for them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontend/model_impl.h"

void fe_note_default(fe_defaulted *list, const char *key, const char *format, ...) {
    char value[256];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    fe_setting *items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) gm_abort(__FILE__, __LINE__, "out of memory");
    list->items = items;
    items[list->count++] = (fe_setting){
        .key = gm_arena_strdup(&list->arena, key),
        .value = gm_arena_strdup(&list->arena, value),
    };
}

void fe_defaulted_free(fe_defaulted *list) {
    free(list->items);
    gm_arena_free(&list->arena);
    *list = (fe_defaulted){0};
}
