/* Random modules: each step applies a random op to random values in scope; regions are filled the same way. */
#include "tests/random_module.h"

#include "ir/build.h"

#include <string.h>

enum { POOL = 256, MAX_DEPTH = 3, MAX_ELEMS = 256, COLUMNS = 4, MAX_ROWS = 4 };

typedef struct generator {
    ir_builder b;
    uint64_t state;
    ir_value *pool[POOL]; /* what is in scope */
    int count, depth;
    ir_dim rows; /* symbol T */
    const ir_func *helper;
} generator;

static uint32_t draw(uint64_t *state, uint32_t below) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % below;
}

static uint32_t roll(generator *g, uint32_t below) {
    return draw(&g->state, below);
}

static void push(generator *g, ir_value *value) {
    if (g->count < POOL && ir_type_max_elems(g->b.module, &value->type) <= MAX_ELEMS) g->pool[g->count++] = value;
}

/* A value of this dtype and of a rank in [least, most]; NULL when the draw finds none. */
static ir_value *pick(generator *g, rt_dtype dtype, int least, int most) {
    for (int tries = 0; tries < 40; tries++) {
        ir_value *value = g->pool[roll(g, (uint32_t)g->count)];
        if (value->type.dtype == dtype && value->type.rank >= least && value->type.rank <= most) return value;
    }
    return NULL;
}

/* The latest value of this type other than `not`, so that loops do something. */
static ir_value *pick_like(const generator *g, const ir_value *like) {
    for (int i = g->count - 1; i >= 0; i--)
        if (g->pool[i] != like && ir_type_equal(&g->pool[i]->type, &like->type)) return g->pool[i];
    return (ir_value *)(uintptr_t)like;
}

/* An axis with a static extent of at least 1; -1: none. */
static int static_axis(generator *g, const ir_value *x) {
    int axis = (int)roll(g, (uint32_t)x->type.rank);
    return x->type.dim[axis] >= 1 ? axis : -1;
}

static void fill(generator *g, int steps);

/* ---- one function per kind of step; each may do nothing ---- */

static void step_unary(generator *g) {
    static const ir_op ops[] = {IR_NEG, IR_TANH, IR_ERF, IR_SIN, IR_COS, IR_EXP, IR_SQRT, IR_LOG, IR_RSQRT};
    ir_value *x = pick(g, RT_F32, 0, 4);
    if (x) push(g, ir_unary(&g->b, ops[roll(g, GM_COUNT(ops))], x));
}

static void step_binary(generator *g) {
    static const ir_op ops[] = {IR_ADD, IR_SUB, IR_MUL, IR_DIV, IR_MAX, IR_MIN, IR_LT, IR_LE, IR_EQ};
    rt_dtype dtype = roll(g, 4) ? RT_F32 : RT_I32;
    ir_value *x = pick(g, dtype, 0, 4), *y = pick(g, dtype, 0, 4);
    ir_type both;
    if (x && y && ir_broadcast(&x->type, &y->type, &both)) push(g, ir_binary(&g->b, ops[roll(g, GM_COUNT(ops))], x, y));
}

static void step_select(generator *g) {
    ir_value *c = pick(g, RT_BOOL, 0, 4), *x = pick(g, RT_F32, 0, 4), *y = pick(g, RT_F32, 0, 4);
    ir_type both, all;
    if (c && x && y && ir_broadcast(&x->type, &y->type, &both) && ir_broadcast(&both, &c->type, &all))
        push(g, ir_select(&g->b, c, x, y));
}

static void step_logic(generator *g) {
    ir_value *x = pick(g, RT_BOOL, 0, 4), *y = pick(g, RT_BOOL, 0, 4);
    ir_type both;
    if (!x || !y || !ir_broadcast(&x->type, &y->type, &both)) return;
    push(g, ir_unary(&g->b, IR_NOT, ir_binary(&g->b, roll(g, 2) ? IR_AND : IR_OR, x, y)));
}

static void step_reduce(generator *g) {
    ir_value *x = pick(g, RT_F32, 1, 4);
    if (!x) return;
    if (roll(g, 4) == 0) push(g, ir_reduce(&g->b, IR_ARGMAX, x, 0));
    else push(g, ir_reduce(&g->b, roll(g, 2) ? IR_REDUCE_SUM : IR_REDUCE_MAX, x, (int)roll(g, (uint32_t)x->type.rank)));
}

static void step_convert(generator *g) {
    static const rt_dtype to[] = {RT_I32, RT_BF16, RT_F16, RT_BOOL};
    ir_value *x = pick(g, RT_F32, 0, 4), *i = pick(g, RT_I32, 0, 4);
    if (x) push(g, ir_convert(&g->b, x, to[roll(g, GM_COUNT(to))]));
    if (i) push(g, ir_convert(&g->b, i, RT_F32));
}

static void step_shape(generator *g) {
    ir_value *x = pick(g, RT_F32, 1, 4);
    if (!x) return;
    int axis = static_axis(g, x), rank = x->type.rank;
    int64_t perm[IR_MAX_RANK];
    for (int i = 0; i < rank; i++) perm[i] = (i + (rank > 1)) % rank;
    if (roll(g, 3) == 0) push(g, ir_transpose(&g->b, x, perm));
    if (axis < 0) return;
    int64_t extent = x->type.dim[axis], start = roll(g, (uint32_t)extent);
    ir_value *i = ir_const_int(&g->b, start);
    bool even = !ir_dim_is_symbol(x->type.dim[rank - 1]) && x->type.dim[rank - 1] % 2 == 0;
    switch (roll(g, 6)) {
    case 0: push(g, ir_slice(&g->b, x, axis, start, roll(g, (uint32_t)(extent - start) + 1))); return;
    case 1: push(g, ir_index(&g->b, x, i, axis)); return;
    case 2: push(g, ir_window(&g->b, x, i, axis, extent - start)); return;
    case 3: push(g, ir_concat(&g->b, (ir_value *[]){x, x}, 2, axis)); return;
    case 4:
        if (even) push(g, ir_emit1(&g->b, IR_SWAP_HALVES, &x, 1, NULL, 0, NULL));
        return;
    default: break;
    }
    ir_dim dims[IR_MAX_RANK]; /* a unit axis more */
    for (int d = 0; d < rank; d++) dims[d] = x->type.dim[d];
    dims[rank] = 1;
    push(g, ir_reshape(&g->b, x, rank + 1, dims));
}

static void step_update(generator *g) {
    ir_value *x = pick(g, RT_F32, 1, 4);
    if (!x || x->type.dim[0] < 1) return;
    int64_t start = roll(g, (uint32_t)x->type.dim[0]);
    ir_value *at = ir_const_int(&g->b, start), *zero = ir_const_int(&g->b, 0);
    ir_value *v = ir_slice(&g->b, x, 0, 0, x->type.dim[0] - start);
    ir_value *starts[] = {at, zero};
    push(g, ir_update(&g->b, x, ir_unary(&g->b, IR_NEG, v), starts, x->type.rank > 1 ? 1 + (int)roll(g, 2) : 1));
}

static void step_source(generator *g) {
    ir_dim dims[] = {1 + roll(g, 3), COLUMNS};
    double values[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) values[i] = (double)((float)roll(g, 1000) / 128.0f - 3.0f);
    switch (roll(g, 4)) {
    case 0: push(g, ir_iota(&g->b, 2, dims, (int)roll(g, 2))); return;
    case 1: push(g, ir_const_float(&g->b, (double)((float)roll(g, 100) / 7.0f))); return;
    case 2: push(g, ir_named(ir_const_floats(&g->b, values, COLUMNS), "table")); return;
    default: push(g, ir_const_int(&g->b, (int64_t)roll(g, 7) - 3)); return;
    }
}

static void step_contract(generator *g) {
    ir_value *x = pick(g, RT_F32, 2, 2), *y = pick(g, RT_F32, 2, 2);
    if (!x || !y) return;
    if (x->type.dim[1] == y->type.dim[1]) push(g, ir_einsum(&g->b, "ab,cb->ac", x, y));
    if (x->type.dim[0] == y->type.dim[0]) push(g, ir_einsum(&g->b, "ab,ac->bc", x, y));
    if (x->type.dim[1] == y->type.dim[1] && y->type.dim[0] >= 0) push(g, ir_matmul(&g->b, x, (ir_value *[]){y, y}, 2));
}

static void step_call(generator *g) {
    ir_value *x = pick(g, RT_F32, 2, 2);
    if (!g->helper || !x || x->type.dim[1] != COLUMNS || x->type.dim[0] > MAX_ROWS) return;
    ir_inst *call = ir_call(&g->b, g->helper, &x, 1);
    for (int i = 0; i < call->result_count; i++) push(g, call->results[i]);
}

static void step_emit(generator *g) {
    ir_value *t = pick(g, RT_I32, 0, 0);
    if (t) ir_emit(&g->b, IR_EMIT, &t, 1, NULL, 0, NULL, 0, NULL, 0);
}

/* ---- regions ---- */

typedef struct region_mark {
    ir_region *outer;
    int count;
} region_mark;

static region_mark enter(generator *g, ir_region *region) {
    region_mark mark = {g->b.region, g->count};
    g->b.region = region;
    g->depth++;
    return mark;
}

static void leave(generator *g, region_mark mark) {
    g->b.region = mark.outer;
    g->count = mark.count;
    g->depth--;
}

static ir_value *param(generator *g, ir_region *region, ir_type type, const char *hint) {
    ir_value *value = ir_param(&g->b, region, type, hint);
    push(g, value);
    return value;
}

static void step_scan(generator *g) {
    ir_value *init = pick(g, RT_F32, 0, 4), *n = ir_const_int(&g->b, (int64_t)roll(g, 5) - 1);
    if (!init) return;
    ir_region *body = ir_region_new(&g->b);
    region_mark mark = enter(g, body);
    param(g, body, ir_scalar(RT_I32), "i");
    ir_value *carry = param(g, body, init->type, "carry");
    fill(g, 4);
    ir_value *next = pick_like(g, carry);
    ir_yield(&g->b, &next, 1);
    leave(g, mark);
    push(g, ir_emit(&g->b, IR_SCAN, (ir_value *[]){n, init}, 2, NULL, 0, &body, 1, NULL, 1)->results[0]);
}

static void step_while(generator *g) {
    ir_value *init[] = {ir_const_int(&g->b, 0), pick(g, RT_F32, 0, 4)};
    if (!init[1]) return;
    ir_region *regions[] = {ir_region_new(&g->b), ir_region_new(&g->b)};
    region_mark mark = enter(g, regions[0]);
    ir_value *k = param(g, regions[0], ir_scalar(RT_I32), "k");
    param(g, regions[0], init[1]->type, NULL);
    ir_value *go = ir_binary(&g->b, IR_LT, k, ir_const_int(&g->b, roll(g, 4)));
    ir_yield(&g->b, &go, 1);
    leave(g, mark);
    mark = enter(g, regions[1]);
    k = param(g, regions[1], ir_scalar(RT_I32), "k");
    ir_value *carry = param(g, regions[1], init[1]->type, "carry");
    fill(g, 3);
    ir_value *next[] = {ir_binary(&g->b, IR_ADD, k, ir_const_int(&g->b, 1)), pick_like(g, carry)};
    ir_yield(&g->b, next, 2);
    leave(g, mark);
    ir_inst *loop = ir_emit(&g->b, IR_WHILE, init, 2, NULL, 0, regions, 2, NULL, 2);
    push(g, loop->results[0]);
    push(g, loop->results[1]);
}

static void step_if(generator *g) {
    ir_value *c = pick(g, RT_BOOL, 0, 0), *like = pick(g, RT_F32, 0, 4);
    if (!c || !like) return;
    ir_region *regions[] = {ir_region_new(&g->b), ir_region_new(&g->b)};
    for (int i = 0; i < 2; i++) {
        region_mark mark = enter(g, regions[i]);
        fill(g, 3);
        ir_value *value = pick_like(g, like);
        ir_yield(&g->b, &value, 1);
        leave(g, mark);
    }
    push(g, ir_emit(&g->b, IR_IF, &c, 1, NULL, 0, regions, 2, NULL, 1)->results[0]);
}

static void step_map(generator *g) {
    ir_region *body = ir_region_new(&g->b);
    ir_attr extent = ir_attr_make_int(IR_ATTR_EXTENT, roll(g, 3) ? (int64_t)roll(g, 4) : g->rows);
    region_mark mark = enter(g, body);
    param(g, body, ir_scalar(RT_I32), "i");
    fill(g, 4);
    ir_value *yields[] = {pick(g, RT_F32, 0, 3), g->pool[g->count - 1]};
    if (!yields[0]) yields[0] = body->params[0];
    if (yields[1]->type.rank > 3) yields[1] = body->params[0];
    ir_yield(&g->b, yields, 2);
    leave(g, mark);
    ir_inst *map = ir_emit(&g->b, IR_MAP, NULL, 0, &extent, 1, &body, 1, NULL, 2);
    push(g, map->results[0]);
    push(g, map->results[1]);
}

static void step_fuse(generator *g) {
    ir_value *x = pick(g, RT_F32, 1, 3);
    if (!x) return;
    ir_region *body = ir_region_new(&g->b);
    region_mark mark = enter(g, body);
    ir_value *around[POOL];
    memcpy(around, g->pool, sizeof around);
    g->count = 0; /* the body sees its parameter only */
    param(g, body, x->type, "a");
    for (int i = 0; i < 3; i++) step_binary(g), step_unary(g);
    ir_value *y = g->pool[g->count - 1];
    ir_yield(&g->b, &y, 1);
    memcpy(g->pool, around, sizeof around);
    leave(g, mark);
    push(g, ir_emit(&g->b, IR_FUSE, &x, 1, NULL, 0, &body, 1, NULL, 1)->results[0]);
}

static void fill(generator *g, int steps) {
    typedef void step_fn(generator *);
    static step_fn *const flat[] = {step_unary,  step_binary,   step_binary, step_select, step_logic,
                                    step_reduce, step_convert,  step_shape,  step_shape,  step_update,
                                    step_source, step_contract, step_call,   step_emit};
    static step_fn *const nested[] = {step_scan, step_while, step_if, step_map, step_fuse};
    for (int i = 0; i < steps; i++) {
        if (g->depth < MAX_DEPTH && roll(g, 5) == 0) nested[roll(g, GM_COUNT(nested))](g);
        else flat[roll(g, GM_COUNT(flat))](g);
    }
}

/* ---- functions ---- */

static void begin(generator *g, ir_module *module, const char *name) {
    ir_func_new(&g->b, module, name);
    g->count = g->depth = 0;
}

static void finish(generator *g, int results) {
    ir_value *yields[8];
    for (int i = 0; i < results; i++) yields[i] = g->pool[g->count - 1 - (i < g->count ? i : 0)];
    ir_yield(&g->b, yields, results);
}

ir_module *random_module(uint64_t seed) {
    ir_module *module = ir_module_new();
    generator g = {.state = seed * 0x9e3779b97f4a7c15u + 1};
    g.rows = ir_dim_symbol(ir_symbol_intern(module, "T", MAX_ROWS));
    begin(&g, module, "helper");
    param(&g, g.b.region, ir_tensor(RT_F32, 2, (ir_dim[]){g.rows, COLUMNS}), "x");
    fill(&g, 4);
    finish(&g, 1);
    g.helper = module->funcs[0];
    begin(&g, module, "f");
    param(&g, g.b.region, ir_tensor(RT_F32, 2, (ir_dim[]){g.rows, COLUMNS}), "x");
    param(&g, g.b.region, ir_tensor(RT_F32, 2, (ir_dim[]){3, COLUMNS}), "y");
    param(&g, g.b.region, ir_scalar(RT_F32), "s");
    param(&g, g.b.region, ir_scalar(RT_I32), "i");
    param(&g, g.b.region, ir_scalar(RT_BOOL), "c");
    fill(&g, 30);
    finish(&g, 5);
    return module;
}

void random_args(uint64_t seed, gm_arena *arena, ir_array args[RANDOM_ARGS]) {
    uint64_t state = seed + 17;
    int64_t rows = 1 + draw(&state, MAX_ROWS);
    args[0] = (ir_array){.dtype = RT_F32, .rank = 2, .dim = {rows, COLUMNS}};
    args[1] = (ir_array){.dtype = RT_F32, .rank = 2, .dim = {3, COLUMNS}};
    args[2] = (ir_array){.dtype = RT_F32};
    args[3] = (ir_array){.dtype = RT_I32};
    args[4] = (ir_array){.dtype = RT_BOOL};
    for (int i = 0; i < RANDOM_ARGS; i++) {
        int64_t elems = ir_array_elems(&args[i]);
        args[i].data = gm_arena_alloc(arena, rt_dtype_bytes(args[i].dtype, (size_t)elems));
        for (int64_t j = 0; j < elems; j++) {
            if (args[i].dtype == RT_F32) ((float *)args[i].data)[j] = (float)draw(&state, 2000) / 500.0f - 2.0f;
            else if (args[i].dtype == RT_I32) ((int32_t *)args[i].data)[j] = (int32_t)draw(&state, 5);
            else ((uint8_t *)args[i].data)[j] = (uint8_t)draw(&state, 2);
        }
    }
}
