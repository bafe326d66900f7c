/* .gir text -> module. Errors are the user's: "path:line:column: what was expected". */
#include "ir/build.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ITEMS = 256, MAX_ATTRS = 16, MAX_DEPTH = 64, MAX_SYMBOL_LENGTH = 12 };
/* Types of this size and such symbols fit ir_type_text. */
static const int64_t MAX_ELEMS = (int64_t)1 << 40;

enum { SCOPE_BUCKETS = 4096 };

typedef struct scope_entry {
    const char *name;
    ir_value *value;
    size_t bucket, next; /* number + 1 of an earlier entry of the bucket; 0: none */
} scope_entry;

typedef struct parser {
    const char *text, *at, *end;
    const char *path;
    gm_diag *diag;
    gm_status status;
    ir_builder b;
    gm_arena scratch;
    scope_entry *scope;
    size_t scope_count, scope_capacity;
    size_t *buckets;        /* SCOPE_BUCKETS: number + 1 of the latest entry */
    struct inst_text *idle; /* for reuse: they are large */
    int depth;
} parser;

/* ---- errors and tokens ---- */

static bool fail(parser *p, const char *format, ...) {
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    int line = 1, column = 1;
    for (const char *c = p->text; c < p->at; c++) {
        if (*c == '\n') line++, column = 1;
        else column++;
    }
    p->status = gm_fail(p->diag, GM_FORMAT, "%s:%d:%d: %s", p->path, line, column, what);
    return false;
}

static void skip_space(parser *p) {
    while (p->at < p->end) {
        if (*p->at == '#') {
            while (p->at < p->end && *p->at != '\n') p->at++;
        } else if (isspace((unsigned char)*p->at)) p->at++;
        else return;
    }
}

static bool accept(parser *p, const char *token) {
    skip_space(p);
    size_t length = strlen(token);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, token, length)) return false;
    bool word = isalnum((unsigned char)token[length - 1]);
    if (word && p->at + length < p->end && (isalnum((unsigned char)p->at[length]) || p->at[length] == '_'))
        return false;
    p->at += length;
    return true;
}

static bool expect(parser *p, const char *token) {
    return accept(p, token) || fail(p, "expected '%s'", token);
}

static bool name_char(char c) {
    return isalnum((unsigned char)c) || c == '_' || c == '.';
}

/* A word of letters, digits, '_' and '.'; NULL after an error. */
static const char *word(parser *p, const char *what) {
    skip_space(p);
    const char *start = p->at;
    while (p->at < p->end && name_char(*p->at)) p->at++;
    if (p->at == start) return fail(p, "expected %s", what), NULL;
    return gm_arena_strndup(&p->scratch, start, (size_t)(p->at - start));
}

static bool parse_int(parser *p, int64_t *out) {
    skip_space(p);
    char digits[32], *stop;
    size_t n = 0;
    for (const char *c = p->at;
         c < p->end && n < sizeof digits - 1 && (isdigit((unsigned char)*c) || (n == 0 && *c == '-')); c++)
        digits[n++] = *c;
    digits[n] = '\0';
    *out = strtoll(digits, &stop, 10);
    if (stop == digits) return fail(p, "expected an integer");
    p->at += stop - digits;
    return true;
}

/* A number as f32 in *out; whole numbers are exact there and in *integer. */
static bool parse_number(parser *p, double *out, int64_t *integer) {
    skip_space(p);
    char digits[64], *stop;
    size_t n = 0;
    for (const char *c = p->at; c < p->end && n < sizeof digits - 1 && (name_char(*c) || *c == '-' || *c == '+'); c++)
        digits[n++] = *c;
    digits[n] = '\0';
    *out = (double)strtof(digits, &stop);
    if (stop == digits) return fail(p, "expected a number");
    p->at += stop - digits;
    char *int_stop;
    *integer = strtoll(digits, &int_stop, 10);
    if (int_stop == stop) *out = strtod(digits, NULL);
    return true;
}

static bool parse_float(parser *p, double *out) {
    int64_t integer;
    if (!parse_number(p, out, &integer)) return false;
    *out = (double)(float)*out;
    return true;
}

/* ---- scope ---- */

static size_t bucket_of(const char *name) {
    uint64_t hash = gm_hash(GM_HASH, name, strlen(name));
    return (hash ^ hash >> 32) % SCOPE_BUCKETS;
}

/* A name that stays itself when a number is put behind it: neither nothing nor a number, and without one at its end. */
static bool is_hint(const char *name, size_t length) {
    size_t digits = 0;
    while (digits < length && name[length - 1 - digits] >= '0' && name[length - 1 - digits] <= '9') digits++;
    return digits < length && name[length - 1 - digits] != '.';
}

static void define(parser *p, const char *name, ir_value *value) {
    const char *dot = strrchr(name, '.');
    size_t length = strlen(name);
    if (dot && dot[1] && strspn(dot + 1, "0123456789") == strlen(dot + 1)) length = (size_t)(dot - name);
    if (is_hint(name, length)) value->hint = gm_arena_strndup(&p->b.module->arena, name, length);
    if (p->scope_count == p->scope_capacity) {
        p->scope_capacity = p->scope_capacity ? 2 * p->scope_capacity : 64;
        p->scope = realloc(p->scope, p->scope_capacity * sizeof *p->scope);
        GM_ASSERT(p->scope);
    }
    size_t bucket = bucket_of(name);
    p->scope[p->scope_count++] = (scope_entry){name, value, bucket, p->buckets[bucket]};
    p->buckets[bucket] = p->scope_count;
}

static void leave_scope(parser *p, size_t count) {
    while (p->scope_count > count) {
        const scope_entry *entry = &p->scope[--p->scope_count];
        p->buckets[entry->bucket] = entry->next;
    }
}

static ir_value *lookup(const parser *p, const char *name) {
    for (size_t i = p->buckets[bucket_of(name)]; i; i = p->scope[i - 1].next)
        if (strcmp(p->scope[i - 1].name, name) == 0) return p->scope[i - 1].value;
    return NULL;
}

static const char *new_name(parser *p) {
    if (!expect(p, "%")) return NULL;
    const char *name = word(p, "a value name");
    if (name && lookup(p, name)) return fail(p, "%%%s is defined twice", name), NULL;
    return name;
}

static bool parse_values(parser *p, ir_value **values, int *count) {
    *count = 0;
    do {
        if (!expect(p, "%")) return false;
        const char *name = word(p, "a value name");
        if (!name) return false;
        if (*count == MAX_ITEMS) return fail(p, "more than %d values", MAX_ITEMS);
        if (!(values[(*count)++] = lookup(p, name))) return fail(p, "%%%s is not defined here", name);
    } while (accept(p, ","));
    return true;
}

/* ---- types and attributes ---- */

static bool parse_dim(parser *p, ir_dim *out) {
    skip_space(p);
    if (p->at < p->end && isdigit((unsigned char)*p->at)) return parse_int(p, out);
    const char *name = word(p, "an extent");
    if (!name) return false;
    int symbol = ir_symbol_find(p->b.module, name);
    if (symbol < 0) return fail(p, "symbol %s is not declared", name);
    *out = ir_dim_symbol(symbol);
    return true;
}

/* What the rest of the compiler takes for granted about a type. */
static bool check_type(parser *p, const ir_type *type) {
    int64_t elems = 1;
    for (int i = 0; i < type->rank; i++) {
        int64_t extent = ir_dim_max(p->b.module, type->dim[i]);
        if (extent > MAX_ELEMS || __builtin_mul_overflow(elems, extent ? extent : 1, &elems) || elems > MAX_ELEMS)
            return fail(p, "the tensor is too large");
    }
    const rt_dtype_info *info = rt_dtype_of(type->dtype);
    if (!rt_is_storage(type->dtype)) return true;
    ir_dim row = type->rank ? type->dim[type->rank - 1] : 1;
    if (ir_dim_is_symbol(row) || row % info->block_elems)
        return fail(p, "the last extent of %s must be a multiple of %d", info->text, info->block_elems);
    return true;
}

static bool parse_type(parser *p, ir_type *out) {
    const char *name = word(p, "a type");
    if (!name) return false;
    *out = (ir_type){0};
    if (!rt_dtype_parse(name, strlen(name), &out->dtype)) return fail(p, "unknown dtype '%s'", name);
    if (!accept(p, "[")) return check_type(p, out);
    do {
        if (out->rank == IR_MAX_RANK) return fail(p, "rank exceeds %d", IR_MAX_RANK);
        if (!parse_dim(p, &out->dim[out->rank++])) return false;
    } while (accept(p, ","));
    return expect(p, "]") && check_type(p, out);
}

static bool parse_string(parser *p, const char **out) {
    if (!expect(p, "\"")) return false;
    gm_string text = {0};
    gm_string_append(&text, "", 0);
    while (p->at < p->end && *p->at != '"' && *p->at != '\n') {
        if (*p->at == '\\' && p->at + 1 < p->end) p->at++;
        gm_string_append(&text, p->at++, 1);
    }
    *out = gm_arena_strndup(&p->scratch, text.data, text.length);
    gm_string_free(&text);
    return expect(p, "\"");
}

static bool parse_list(parser *p, bool floats, ir_attr *attr) {
    size_t capacity = 0;
    double *numbers = malloc(sizeof *numbers); /* one of the two is filled */
    int64_t *integers = malloc(sizeof *integers);
    bool ok = expect(p, "[");
    while (ok && !accept(p, "]")) {
        if (attr->n && !(ok = expect(p, ","))) break;
        if (attr->n == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            numbers = realloc(numbers, capacity * sizeof *numbers);
            integers = realloc(integers, capacity * sizeof *integers);
            GM_ASSERT(numbers && integers);
        }
        ok = floats ? parse_number(p, &numbers[attr->n], &integers[attr->n]) : parse_int(p, &integers[attr->n]);
        attr->n++;
    }
    if (floats)
        attr->floats = memcpy(GM_NEW_ARRAY(&p->scratch, double, attr->n + 1), numbers, attr->n * sizeof *numbers);
    else attr->ints = memcpy(GM_NEW_ARRAY(&p->scratch, int64_t, attr->n + 1), integers, attr->n * sizeof *integers);
    free(numbers);
    free(integers);
    return ok;
}

static bool parse_attr(parser *p, ir_attr *attr) {
    const char *name = word(p, "an attribute name");
    if (!name) return false;
    int key = 0;
    while (key < IR_ATTR_COUNT && strcmp(ir_attr_of((ir_attr_key)key)->text, name)) key++;
    if (key == IR_ATTR_COUNT) return fail(p, "unknown attribute '%s'", name);
    *attr = (ir_attr){.key = (ir_attr_key)key};
    if (!expect(p, "=")) return false;
    switch (ir_attr_of(attr->key)->kind) {
    case IR_KIND_INT: return parse_int(p, &attr->i);
    case IR_KIND_FLOAT: return parse_float(p, &attr->f);
    case IR_KIND_STRING: return parse_string(p, &attr->s);
    case IR_KIND_INTS: return parse_list(p, false, attr);
    case IR_KIND_FLOATS: return parse_list(p, true, attr);
    case IR_KIND_DIM: return parse_dim(p, &attr->i);
    case IR_KIND_NUMBER: return parse_number(p, &attr->f, &attr->i);
    }
    return false;
}

static bool parse_attrs(parser *p, ir_attr *attrs, int *count) {
    *count = 0;
    if (!accept(p, "{")) return true;
    do {
        if (*count == MAX_ATTRS) return fail(p, "more than %d attributes", MAX_ATTRS);
        if (!parse_attr(p, &attrs[*count])) return false;
        for (int i = 0; i < *count; i++)
            if (attrs[i].key == attrs[*count].key) return fail(p, "attribute given twice");
        ++*count;
    } while (accept(p, ","));
    return expect(p, "}");
}

/* ---- instructions ---- */

static bool parse_region(parser *p, const char *last);

static bool parse_params(parser *p, ir_region *region) {
    if (!expect(p, "(")) return false;
    if (accept(p, ")")) return true;
    do {
        ir_type type;
        const char *name = new_name(p);
        if (!name || !expect(p, ":") || !parse_type(p, &type)) return false;
        define(p, name, ir_param(&p->b, region, type, NULL));
    } while (accept(p, ","));
    return expect(p, ")");
}

static bool parse_inst_region(parser *p, ir_region **out) {
    size_t visible = p->scope_count;
    ir_region *outer = p->b.region;
    if (++p->depth > MAX_DEPTH) return fail(p, "regions nest deeper than %d", MAX_DEPTH);
    *out = p->b.region = ir_region_new(&p->b);
    bool ok = parse_params(p, *out) && expect(p, "{") && parse_region(p, "yield");
    p->b.region = outer;
    leave_scope(p, visible);
    p->depth--;
    return ok;
}

typedef struct inst_text { /* fields count only up to the counts */
    const char *results[MAX_ITEMS];
    ir_value *operands[MAX_ITEMS];
    ir_attr attrs[MAX_ATTRS];
    ir_region *regions[2];
    ir_type types[MAX_ITEMS];
    int result_count, operand_count, attr_count, region_count, type_count;
    ir_op op;
    struct inst_text *next; /* idle */
} inst_text;

static bool parse_results(parser *p, inst_text *t) {
    skip_space(p);
    if (p->at >= p->end || *p->at != '%') return true;
    do {
        if (t->result_count == MAX_ITEMS) return fail(p, "more than %d results", MAX_ITEMS);
        if (!(t->results[t->result_count++] = new_name(p))) return false;
    } while (accept(p, ","));
    return expect(p, "=");
}

static bool check_and_emit(parser *p, inst_text *t, const char *start) {
    ir_inst probe = {.op = t->op,
                     .operand_count = t->operand_count,
                     .result_count = t->type_count,
                     .region_count = t->region_count,
                     .attr_count = t->attr_count,
                     .operands = t->operands,
                     .regions = t->regions,
                     .attrs = t->attrs};
    ir_type inferred[MAX_ITEMS];
    char why[256];
    inferred[0] = ir_scalar(RT_F32);
    memcpy(inferred, t->types, sizeof *inferred * (size_t)t->type_count);
    const char *after = p->at;
    p->at = start;
    for (int i = 0; i < t->attr_count; i++) {
        const ir_attr *attr = &t->attrs[i];
        if (ir_attr_of(attr->key)->kind == IR_KIND_NUMBER && t->type_count &&
            rt_dtype_of(t->types[0].dtype)->class != RT_CLASS_FLOAT && (double)attr->i != attr->f)
            return fail(p, "%s: %s is not an integer", ir_op_of(t->op)->text, ir_attr_of(attr->key)->text);
    }
    if (t->type_count != t->result_count) return fail(p, "%d results but %d types", t->result_count, t->type_count);
    if (!ir_infer(p->b.module, &probe, inferred, why)) return fail(p, "%s: %s", ir_op_of(t->op)->text, why);
    for (int i = 0; i < t->type_count; i++) {
        char is[96], said[96];
        if (!ir_type_equal(&inferred[i], &t->types[i]))
            return fail(p, "%s: result %d has type %s, not %s", ir_op_of(t->op)->text, i,
                        ir_type_text(p->b.module, &inferred[i], is), ir_type_text(p->b.module, &t->types[i], said));
    }
    p->at = after;
    ir_inst *inst = ir_emit(&p->b, t->op, t->operands, t->operand_count, t->attrs, t->attr_count, t->regions,
                            t->region_count, t->types, t->type_count);
    for (int i = 0; i < t->result_count; i++) define(p, t->results[i], inst->results[i]);
    return true;
}

static inst_text *inst_text_new(parser *p) {
    inst_text *t = p->idle;
    if (!t) return GM_NEW(&p->scratch, inst_text);
    p->idle = t->next;
    t->result_count = t->operand_count = t->attr_count = t->region_count = t->type_count = 0;
    return t;
}

static bool parse_inst(parser *p) {
    inst_text *t = inst_text_new(p);
    skip_space(p);
    const char *start = p->at;
    if (!parse_results(p, t)) return false;
    const char *name = word(p, "an operation");
    if (!name) return false;
    if (!ir_op_parse(name, strlen(name), &t->op)) return fail(p, "unknown operation '%s'", name);
    skip_space(p);
    if (p->at < p->end && *p->at == '%' && !parse_values(p, t->operands, &t->operand_count)) return false;
    if (!parse_attrs(p, t->attrs, &t->attr_count)) return false;
    for (skip_space(p); p->at < p->end && *p->at == '('; skip_space(p)) {
        if (t->region_count == 2) return fail(p, "more than two regions");
        if (!parse_inst_region(p, &t->regions[t->region_count++])) return false;
    }
    if (accept(p, ":")) {
        do {
            if (t->type_count == MAX_ITEMS) return fail(p, "more than %d types", MAX_ITEMS);
            if (!parse_type(p, &t->types[t->type_count++])) return false;
        } while (accept(p, ","));
    }
    if (!check_and_emit(p, t, start)) return false;
    t->next = p->idle;
    p->idle = t;
    return true;
}

/* Instructions up to `last` (yield or return), its values and the closing brace. */
static bool parse_region(parser *p, const char *last) {
    while (!accept(p, last)) {
        skip_space(p);
        if (p->at >= p->end) return fail(p, "expected '%s'", last);
        if (!parse_inst(p)) return false;
    }
    ir_value *values[MAX_ITEMS];
    int count = 0;
    skip_space(p);
    if (p->at < p->end && *p->at == '%' && !parse_values(p, values, &count)) return false;
    ir_yield(&p->b, values, count);
    return expect(p, "}");
}

/* ---- top level ---- */

static bool parse_symbol(parser *p) {
    const char *name = word(p, "a symbol name");
    int64_t max = 0;
    if (!name) return false;
    if (ir_symbol_find(p->b.module, name) >= 0) return fail(p, "symbol %s is declared twice", name);
    if (p->b.module->symbol_count == IR_MAX_SYMBOLS) return fail(p, "more than %d symbols", IR_MAX_SYMBOLS);
    if (strlen(name) > MAX_SYMBOL_LENGTH)
        return fail(p, "symbol %s is longer than %d characters", name, MAX_SYMBOL_LENGTH);
    if (accept(p, "max") && (!parse_int(p, &max) || max <= 0)) return fail(p, "expected a bound of at least 1");
    ir_symbol_intern(p->b.module, name, max);
    return true;
}

static bool parse_alias(parser *p, ir_func *func, int results) {
    if (!accept(p, "alias")) return true;
    func->alias = GM_NEW_ARRAY(&p->b.module->arena, int, results + 1);
    if (!expect(p, "[")) return false;
    for (int i = 0; i < results; i++) {
        int64_t param;
        if ((i && !expect(p, ",")) || !parse_int(p, &param)) return false;
        if (param < -1 || param >= func->body->param_count) return fail(p, "alias names no parameter");
        func->alias[i] = (int)param;
    }
    return expect(p, "]");
}

static bool parse_func(parser *p) {
    ir_type types[MAX_ITEMS];
    int count = 0;
    if (!expect(p, "@")) return false;
    const char *name = word(p, "a function name");
    if (!name) return false;
    if (ir_func_find(p->b.module, name)) return fail(p, "@%s is defined twice", name);
    ir_module *module = p->b.module;
    ir_func *func = ir_func_new(&p->b, module, name);
    leave_scope(p, 0);
    if (!parse_params(p, func->body) || !expect(p, "->") || !expect(p, "(")) return false;
    while (!accept(p, ")")) {
        if (count == MAX_ITEMS) return fail(p, "more than %d results", MAX_ITEMS);
        if ((count && !expect(p, ",")) || !parse_type(p, &types[count++])) return false;
    }
    if (!parse_alias(p, func, count)) return false;
    if (accept(p, "frame") && !parse_int(p, &func->frame)) return false;
    if (!expect(p, "{") || !parse_region(p, "return")) return false;
    if (func->body->yield_count != count)
        return fail(p, "@%s declares %d results but returns %d", name, count, func->body->yield_count);
    for (int i = 0; i < count; i++)
        if (!ir_type_equal(&types[i], &func->body->yields[i]->type))
            return fail(p, "@%s: returned value %d has another type", name, i);
    return true;
}

gm_status ir_parse(const char *text, size_t bytes, const char *path, gm_diag *diag, ir_module **out) {
    parser p = {.text = text,
                .at = text,
                .end = text + bytes,
                .path = path,
                .diag = diag,
                .buckets = calloc(SCOPE_BUCKETS, sizeof *p.buckets)};
    GM_ASSERT(p.buckets);
    p.b.module = ir_module_new();
    ir_module *module = p.b.module;
    bool ok = true;
    for (skip_space(&p); ok && p.at < p.end; skip_space(&p)) {
        if (accept(&p, "symbol")) ok = parse_symbol(&p);
        else if (accept(&p, "func")) ok = parse_func(&p);
        else ok = fail(&p, "expected 'symbol' or 'func'");
    }
    gm_arena_free(&p.scratch);
    free(p.scope);
    free(p.buckets);
    gm_status status = ok ? ir_verify(module, path, diag) : p.status;
    if (status != GM_OK) {
        ir_module_free(module);
        return status;
    }
    *out = module;
    return GM_OK;
}
