/* The option parser: the rows of options.def, of which each command takes some. */
#include "frontend/commands.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum flag_kind {
    KIND_TEXT,
    KIND_TEXTS,
    KIND_INT,
    KIND_INTS,
    KIND_REAL,
    KIND_CHOICE,
    KIND_ON,
    KIND_SET
} flag_kind;

typedef struct flag_row {
    const char *short_text, *long_text;
    flag_kind kind;
    size_t offset; /* of the field in cmd_options */
    int64_t min, max;
    double real_min;
    const char *value, *help;
} flag_row;

static const flag_row flags[] = {
#define FLAG(name, short_text, long_text, kind, field, min, max, value, help)                                          \
    {short_text, long_text, KIND_##kind, offsetof(cmd_options, field), (int64_t)(min), max, (double)(min), value, help},
#include "frontend/options.def"
#undef FLAG
};

/* One argument being read. */
typedef struct parse {
    const char *command;
    gm_diag *diag;
    const char *spelled; /* the flag as the user wrote it, without "=value" */
    size_t spelled_length;
} parse;

static gm_status bad_part(const parse *p, const char *value, size_t length, const char *why) {
    return gm_fail(p->diag, GM_INVALID, "%.*s %.*s: %s (see 'gemmac help %s')", (int)p->spelled_length, p->spelled,
                   (int)length, value, why, p->command);
}

static gm_status bad_value(const parse *p, const char *value, const char *why) {
    return bad_part(p, value, strlen(value), why);
}

/* ---- values ---- */

bool cmd_read_int(const char *text, size_t length, int64_t *out) {
    char digits[32], *end;
    size_t sign = length && text[0] == '-';
    if (length <= sign || length >= sizeof digits) return false;
    for (size_t i = sign; i < length; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    errno = 0;
    *out = strtoll(digits, &end, 10);
    return errno == 0;
}

static gm_status store_int(const parse *p, const flag_row *row, const char *text, size_t length, int64_t *out) {
    char why[96];
    if (!cmd_read_int(text, length, out)) return bad_part(p, text, length, "expected a whole number");
    if (*out >= row->min && *out <= row->max) return GM_OK;
    snprintf(why, sizeof why, "expected a number from %lld to %lld", (long long)row->min, (long long)row->max);
    return bad_part(p, text, length, why);
}

static gm_status store_ints(const parse *p, const flag_row *row, const char *text, gm_arena *arena, cmd_ints *out) {
    size_t count = 1;
    for (const char *c = text; *c; c++) count += *c == ',';
    *out = (cmd_ints){.data = GM_NEW_ARRAY(arena, int64_t, count)};
    for (const char *at = text;;) {
        size_t length = strcspn(at, ",");
        if (!cmd_read_int(at, length, &out->data[out->count]))
            return bad_value(p, text, "expected whole numbers separated by commas");
        GM_TRY(store_int(p, row, at, length, &out->data[out->count++]));
        if (!at[length]) return GM_OK;
        at += length + 1;
    }
}

static gm_status store_real(const parse *p, const flag_row *row, const char *text, double *out) {
    char why[96], *end;
    *out = strtod(text, &end);
    bool plain = strspn(text, "0123456789.eE+-") == strlen(text);
    if (!plain || end == text || *end || !isfinite(*out)) return bad_value(p, text, "expected a number");
    if (*out >= row->real_min && *out <= (double)row->max) return GM_OK;
    snprintf(why, sizeof why, "expected a number from %g to %g", row->real_min, (double)row->max);
    return bad_value(p, text, why);
}

static gm_status store_choice(const parse *p, const flag_row *row, const char *text, int64_t *out) {
    char why[96];
    size_t length = strlen(text);
    int64_t index = 0;
    const char *words = row->value ? row->value : "";
    for (const char *word = words; word; index++) {
        const char *bar = strchr(word, '|');
        size_t word_length = bar ? (size_t)(bar - word) : strlen(word);
        if (word_length == length && memcmp(word, text, length) == 0) {
            *out = index;
            return GM_OK;
        }
        word = bar ? bar + 1 : NULL;
    }
    snprintf(why, sizeof why, "expected one of %s", words);
    return bad_value(p, text, why);
}

static gm_status store_text(const parse *p, const flag_row *row, const char *text, cmd_options *out) {
    void *field = (char *)out + row->offset;
    if (row->kind == KIND_TEXT) {
        *(const char **)field = text;
        return GM_OK;
    }
    if (!*text) return bad_value(p, "''", "expected a text that is not empty");
    cmd_texts *list = field;
    const char **longer = GM_NEW_ARRAY(&out->arena, const char *, list->count + 1);
    if (list->count) memcpy(longer, list->data, sizeof *longer * list->count);
    longer[list->count++] = text;
    list->data = longer;
    return GM_OK;
}

static gm_status store(const parse *p, const flag_row *row, const char *text, cmd_options *out) {
    void *field = (char *)out + row->offset;
    switch (row->kind) {
    case KIND_TEXT:
    case KIND_TEXTS: return store_text(p, row, text, out);
    case KIND_INT: return store_int(p, row, text, strlen(text), field);
    case KIND_INTS: return store_ints(p, row, text, &out->arena, field);
    case KIND_REAL: return store_real(p, row, text, field);
    case KIND_CHOICE: return store_choice(p, row, text, field);
    case KIND_ON: *(bool *)field = true; return GM_OK;
    case KIND_SET: *(int64_t *)field = row->min; return GM_OK;
    }
    GM_UNREACHABLE("flag kind");
}

/* ---- arguments ---- */

static bool spells(const parse *p, const char *text) {
    return text && strlen(text) == p->spelled_length && memcmp(text, p->spelled, p->spelled_length) == 0;
}

static gm_status find_flag(const parse *p, cmd_flags accepted, int *out) {
    bool known = false;
    for (int i = 0; i < FLAG_COUNT; i++) {
        if (!spells(p, flags[i].short_text) && !spells(p, flags[i].long_text)) continue;
        *out = i;
        if (accepted >> i & 1) return GM_OK;
        known = true;
    }
    return gm_fail(p->diag, GM_INVALID, "%s%s %.*s (see 'gemmac help %s')", known ? p->command : "",
                   known ? " does not take" : "unknown flag", (int)p->spelled_length, p->spelled, p->command);
}

/* The flag at argv[*at]; *at is left on its last argument. */
static gm_status parse_flag(parse *p, cmd_flags accepted, int argc, char **argv, int *at, cmd_options *out) {
    const char *text = argv[*at];
    const char *equals = text[1] == '-' ? strchr(text, '=') : NULL;
    p->spelled = text;
    p->spelled_length = equals ? (size_t)(equals - text) : strlen(text);
    int flag = 0;
    GM_TRY(find_flag(p, accepted, &flag));
    const flag_row *row = &flags[flag];
    bool takes_value = row->kind != KIND_ON && row->kind != KIND_SET;
    const char *value = equals ? equals + 1 : NULL;
    if (!takes_value && equals)
        return gm_fail(p->diag, GM_INVALID, "%.*s takes no value (see 'gemmac help %s')", (int)p->spelled_length, text,
                       p->command);
    if (takes_value && !value) {
        if (*at + 1 >= argc)
            return gm_fail(p->diag, GM_INVALID, "%s needs a value: %s (see 'gemmac help %s')", text, row->value,
                           p->command);
        value = argv[++*at];
    }
    cmd_give(out, (cmd_flag)flag);
    return store(p, row, value, out);
}

gm_status cmd_parse(const char *command, cmd_flags accepted, int argc, char **argv, gm_diag *diag, cmd_options *out) {
    parse p = {.command = command, .diag = diag};
    bool flags_over = false;
    *out = (cmd_options){0};
    for (int i = 0; i < argc; i++) {
        const char *text = argv[i];
        if (!flags_over && text[0] == '-' && text[1]) {
            if (strcmp(text, "--") == 0) flags_over = true;
            else GM_TRY(parse_flag(&p, accepted, argc, argv, &i, out));
        } else if (out->input) {
            return gm_fail(diag, GM_INVALID, "unexpected argument '%s' (see 'gemmac help %s')", text, command);
        } else out->input = text;
    }
    return GM_OK;
}

void cmd_options_free(cmd_options *options) {
    gm_arena_free(&options->arena);
}

void cmd_print_flags(cmd_flags accepted) {
    for (int i = 0; i < FLAG_COUNT; i++) {
        const flag_row *row = &flags[i];
        if (!(accepted >> i & 1)) continue;
        char left[96];
        snprintf(left, sizeof left, "%s%s%s%s%s", row->short_text ? row->short_text : "  ",
                 row->short_text ? ", " : "  ", row->long_text, row->value ? " " : "", row->value ? row->value : "");
        printf("  %-36s %s\n", left, row->help);
    }
}
