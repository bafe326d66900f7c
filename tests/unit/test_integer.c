/* Compiled scaled_matmul against the interpreter, for every FLOAT and QUANT type and several --target-cpu: all heights
 * of tiles, more columns than one block, rotated rows, W in its own codes, x and W at their extremes. */
#include "tests/unit/kernels.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <stdio.h>

enum {
    SECONDS = 900,
    X_LARGEST = 4095,
    GROUP = IR_SCALE_GROUP,
    RUN = IR_SCALE_RUN,
    BLOCK = 2048,
    NARROW = 32,
    WIDE = 96
};

/* Rows of x: together they fill tiles of every height that a kernel has; tile registers once, twice, and in part after
 * either. The last is the largest. */
static const int heights[] = {1, 2, 5, 6, 7, 21, 40};

static const char *const targets[] = {NULL, "haswell", "x86-64", WIDE_CPU, CG_STAND_IN_CPU, CG_STAND_IN_TILES_CPU};
enum { HEIGHTS = GM_COUNT(heights), TALLEST = 40 };

/* ---- x ---- */

/* Rows of x that are not random, and one whose scale is zero: they come first, so that small products have them. */
enum { ALL_LARGEST, ALL_LEAST, SIGNS, NO_SCALE_ROW, ZEROS, RANDOM_ROWS };

typedef struct integers {
    ir_array codes, scales; /* a scale for each row, or each run beside W as it is stored */
} integers;

/* What is done with W. */
typedef enum treatment { ROUNDED, ROTATED, AS_STORED } treatment;

static int64_t code_of(int64_t row, int64_t column, int64_t largest) {
    switch (row) {
    case ALL_LARGEST: return largest;
    case ALL_LEAST: return -largest;
    case SIGNS: return column % 2 ? largest : -largest;
    case ZEROS: return 0;
    default: return (int64_t)(next_random() % (uint32_t)(2 * largest + 1)) - largest;
    }
}

static integers make_x(rt_dtype dtype, int64_t rows, int64_t columns, treatment how, gm_arena *arena) {
    int64_t scales = how == AS_STORED ? columns / RUN : 1;
    integers x = {
        {.dtype = dtype,
         .rank = 2,
         .dim = {rows, columns},
         .data = gm_arena_alloc(arena, (size_t)(rows * columns) * 2)},
        {.dtype = RT_F32, .rank = 2, .dim = {rows, scales}, .data = GM_NEW_ARRAY(arena, float, rows *scales)}};
    int64_t largest = dtype == RT_I8 ? 127 : X_LARGEST;
    for (int64_t i = 0; i < rows * columns; i++) {
        int64_t code = code_of(i / columns, i % columns, largest);
        if (dtype == RT_I8) ((int8_t *)x.codes.data)[i] = (int8_t)code;
        else ((int16_t *)x.codes.data)[i] = (int16_t)code;
    }
    for (int64_t i = 0; i < rows * scales; i++)
        ((float *)x.scales.data)[i] = i / scales == NO_SCALE_ROW ? 0 : random_float(1e-4f, 1e-3f);
    return x;
}

/* The bits of W beside x: as in the plans. */
static int bits_of(const integers *x) {
    return x->codes.dtype == RT_I8 ? 8 : 12;
}

static double levels_of(const integers *x) {
    return (1 << (bits_of(x) - 1)) - 1;
}

static double x_at(const integers *x, int64_t row, int64_t column) {
    int64_t i = row * x->codes.dim[1] + column;
    int code = x->codes.dtype == RT_I8 ? ((const int8_t *)x->codes.data)[i] : ((const int16_t *)x->codes.data)[i];
    int64_t scales = x->scales.dim[1], each = x->codes.dim[1] / scales;
    return (double)code * (double)((const float *)x->scales.data)[row * scales + column / each];
}

/* The arguments of a call with the first `rows` of x. */
static void take_rows(const integers *x, int64_t rows, ir_array *out) {
    out[0] = x->codes;
    out[1] = x->scales;
    out[0].dim[0] = out[1].dim[0] = rows;
}

/* ---- the function ---- */

enum { MAX_PRODUCTS = 4 };

/* Weights, one after the other, and x for them. */
typedef struct product {
    const rt_tensor *w[GM_COUNT(types)];
    int count;
    treatment how;
    integers x; /* TALLEST rows */
    ir_array want;
    /* of each element: what a sum in f32 is off by in proportion, Σ|w·x|; what codes in doubt may change, or scales */
    const double *sizes, *doubts;
} product;

static int64_t all_rows(const product *p) {
    int64_t rows = 0;
    for (int i = 0; i < p->count; i++) rows += p->w[i]->dim[0];
    return rows;
}

/* Text of product `number`; rows: of x, a number or a symbol. */
typedef void (*line_fn)(const product *p, int number, const char *rows, gm_string *out);

static void write_params(const product *p, int number, const char *rows, gm_string *out) {
    gm_string_printf(out, "%s%%x%d: %s[%s,%d], %%s%d: f32[%s,%d]", number ? ", " : "", number,
                     rt_dtype_of(p->x.codes.dtype)->text, rows, (int)p->x.codes.dim[1], number, rows,
                     (int)p->x.scales.dim[1]);
}

static void write_type(const product *p, int number, const char *rows, gm_string *out) {
    gm_string_printf(out, "%sf32[%s,%d]", number ? ", " : "", rows, (int)all_rows(p));
}

static void write_product(const product *p, int number, const char *rows, gm_string *out) {
    for (int i = 0; i < p->count; i++)
        gm_string_printf(out, "  %%w%d_%d = weight {name = \"%s\"} : %s[%d,%d]\n", number, i, p->w[i]->name,
                         rt_dtype_of(p->w[i]->dtype)->text, (int)p->w[i]->dim[0], (int)p->w[i]->dim[1]);
    gm_string_printf(out, "  %%y%d = scaled_matmul %%x%d, %%s%d", number, number, number);
    for (int i = 0; i < p->count; i++) gm_string_printf(out, ", %%w%d_%d", number, i);
    if (p->how != AS_STORED)
        gm_string_printf(out, " {bits = %d%s}", bits_of(&p->x), p->how == ROTATED ? ", rotate = 1" : "");
    gm_string_printf(out, " : f32[%s,%d]\n", rows, (int)all_rows(p));
}

/* One of HEIGHTS calls of the function of a product. */
static void write_call(const product *p, int number, const char *rows, gm_string *out) {
    gm_string_printf(out, "  %%y%d = call %%x%d, %%s%d {callee = \"product%d\"} : f32[%s,%d]\n", number, number, number,
                     number / HEIGHTS, rows, (int)all_rows(p));
}

static void write_result(const product *p, int number, const char *rows, gm_string *out) {
    gm_string_printf(out, "%s%%y%d", number ? ", " : "", number);
}

/* A function of `count` lines of each kind; rows: NULL for the heights in turn. */
static void write_function(const char *name, const product *products, int count, const char *rows, line_fn line,
                           gm_string *out) {
    const struct {
        const char *before;
        line_fn line;
    } parts[] = {{"(", write_params}, {") -> (", write_type}, {") {\n", line}, {"  return ", write_result}};
    gm_string_printf(out, "func @%s", name);
    for (size_t part = 0; part < GM_COUNT(parts); part++) {
        gm_string_printf(out, "%s", parts[part].before);
        for (int i = 0; i < count; i++) {
            char height[16];
            snprintf(height, sizeof height, "%d", heights[i % HEIGHTS]);
            parts[part].line(&products[rows ? i : i / HEIGHTS], i, rows ? rows : height, out);
        }
    }
    gm_string_printf(out, "\n}\n");
}

/* All products with each number of rows of x: compiled once each and called, so that only a run's rows say how many
 * there are; or `apart`, each compiled for its own. */
static void write_module(const product *products, int count, bool apart, gm_string *out) {
    if (!apart) gm_string_printf(out, "symbol T max %d\n", TALLEST);
    for (int i = 0; i < count && !apart; i++) {
        char name[32];
        snprintf(name, sizeof name, "product%d", i);
        write_function(name, &products[i], 1, "T", write_product, out);
    }
    write_function("f", products, count * HEIGHTS, NULL, apart ? write_product : write_call, out);
}

/* ---- comparison ---- */

static ir_array interpret(const product *p, const rt_weights *weights, gm_arena *arena) {
    gm_string text = {0};
    gm_diag diag = {0};
    ir_module *module = NULL;
    ir_array args[2], y;
    take_rows(&p->x, TALLEST, args);
    char rows[16];
    snprintf(rows, sizeof rows, "%d", TALLEST);
    write_function("f", p, 1, rows, write_product, &text);
    ck_assert_msg(ir_parse(text.data, text.length, "test", &diag, &module) == GM_OK, "%s", diag.message);
    ir_interp_env env = {.weights = weights};
    ck_assert_msg(ir_interp(module, "f", &env, args, 2, arena, &y, &diag) == GM_OK, "%s", diag.message);
    ir_module_free(module);
    gm_string_free(&text);
    return y;
}

/* Steps of a row's codes that are in doubt: compiled code may round a rotated value to the next integer where it lies
 * that near to the middle of two. 0 for the others, and for all where rows are not rotated. */
static double *doubtful_steps(const product *p, const float *w, int64_t columns, gm_arena *arena) {
    double *steps = GM_NEW_ARRAY(arena, double, columns), *sizes = GM_NEW_ARRAY(arena, double, columns),
           levels = levels_of(&p->x);
    float *turned = GM_NEW_ARRAY(arena, float, columns);
    if (p->how != ROTATED) return steps;
    memcpy(turned, w, sizeof *turned * (size_t)columns);
    rt_rotate_row(turned, columns);
    rotated_magnitudes(w, columns, sizes);
    int64_t group = ir_scale_group(p->x.codes.dtype, true);
    for (int64_t from = 0; from < columns; from += group) {
        int64_t to = from + group < columns ? from + group : columns;
        double most = (double)RT_SCALE_LEAST;
        for (int64_t k = from; k < to; k++) most = fmax(most, fabs((double)turned[k]));
        for (int64_t k = from; k < to; k++) {
            double code = fabs((double)turned[k]) * levels / most,
                   off = ROTATED_TOLERANCE * (sizes[k / rt_rotate_run(columns)] * levels / most + code);
            if (fabs(code - floor(code) - 0.5) <= off) steps[k] = most / levels;
        }
    }
    return steps;
}

/* The largest scale of a row: the least distance of two of a group's values, which random codes have. */
static double largest_scale(const float *w, int64_t columns, int run) {
    double largest = 0;
    for (int64_t from = 0; from < columns; from += run) {
        double least = INFINITY;
        for (int64_t i = from; i < from + run; i++)
            for (int64_t k = from; k < i; k++)
                if (w[i] != w[k]) least = fmin(least, fabs((double)w[i] - (double)w[k]));
        if (isfinite(least)) largest = fmax(largest, least);
    }
    return largest;
}

/* W as stored: compiled code has scales in 32767ths of the row's largest, so that a value may be off by half of one
 * times its code. */
static double *scale_steps(const rt_tensor *tensor, const float *w, gm_arena *arena) {
    const rt_codes *codes = rt_codes_of(tensor->dtype);
    int64_t columns = tensor->dim[1];
    double *steps = GM_NEW_ARRAY(arena, double, columns), step = largest_scale(w, columns, codes->run) / 65534;
    for (int64_t k = 0; k < columns; k++) steps[k] = step * fmax(codes->most, -codes->least);
    return steps;
}

/* What the tolerance of each element is made of. */
static void bound(product *p, gm_arena *arena) {
    int64_t total = all_rows(p), column = 0, columns = p->x.codes.dim[1];
    double *sizes = GM_NEW_ARRAY(arena, double, TALLEST *total), *doubts = GM_NEW_ARRAY(arena, double, TALLEST *total);
    for (int i = 0; i < p->count; i++)
        for (int64_t n = 0; n < p->w[i]->dim[0]; n++, column++) {
            float *w = widened_row(p->w[i], n, arena);
            const double *steps =
                p->how == AS_STORED ? scale_steps(p->w[i], w, arena) : doubtful_steps(p, w, columns, arena);
            if (p->how == ROTATED) rt_rotate_row(w, columns);
            for (int64_t r = 0; r < TALLEST; r++)
                for (int64_t k = 0; k < columns; k++) {
                    double x = fabs(x_at(&p->x, r, k));
                    sizes[r * total + column] += fabs((double)w[k]) * x;
                    doubts[r * total + column] += steps[k] * x;
                }
        }
    p->sizes = sizes;
    p->doubts = doubts;
}

/* The first rows. The tolerance is that of the other kernels; below normal numbers each group is rounded to 2^-149.
 * Where rows are rotated each code in doubt may be another by one. */
static void check_rows(const product *p, const ir_array *got, const char *cpu) {
    int64_t total = got->dim[1], first = 0;
    for (int i = 0; i < p->count; first += p->w[i++]->dim[0]) {
        int64_t rows = p->w[i]->dim[0];
        for (int64_t at = 0; at < got->dim[0] * rows; at++) {
            int64_t index = at / rows * total + first + at % rows;
            float a = ((const float *)p->want.data)[index], b = ((const float *)got->data)[index];
            double off = fabs((double)a - (double)b), most = type_of(p->w[i]->dtype)->tolerance * p->sizes[index] +
                                                             p->doubts[index] + (double)p->w[i]->dim[1] * 0x1p-148;
            bool near = isnan(a) ? isnan(b) != 0 : a == b || off <= most;
            ck_assert_msg(near,
                          "%s, %s, %lld columns, %lld rows: row %lld of x, row %lld of W: %.9g instead of %.9g, off by "
                          "%.3g of the sum of magnitudes",
                          rt_dtype_of(p->w[i]->dtype)->text, cpu ? cpu : "host", (long long)p->w[i]->dim[1],
                          (long long)got->dim[0], (long long)(at / rows), (long long)(at % rows), (double)b, (double)a,
                          off / p->sizes[index]);
        }
    }
}

static void check_products(product *products, int count, bool apart, const rt_weights *weights, gm_arena *arena) {
    for (int i = 0; i < count; i++) {
        products[i].want = interpret(&products[i], weights, arena);
        bound(&products[i], arena);
    }
    for (size_t c = 0; c < GM_COUNT(targets); c++) {
        ir_array args[2 * HEIGHTS * MAX_PRODUCTS], got[HEIGHTS * MAX_PRODUCTS];
        gm_string text = {0};
        for (int i = 0; i < count * HEIGHTS; i++)
            take_rows(&products[i / HEIGHTS].x, heights[i % HEIGHTS], &args[2 * i]);
        write_module(products, count, apart, &text);
        if (!run_text(targets[c], &text, weights, args, 2 * count * HEIGHTS, arena, got)) continue;
        for (int i = 0; i < count * HEIGHTS; i++) check_rows(&products[i / HEIGHTS], &got[i], targets[c]);
    }
}

/* ---- random weights ---- */

/* Less than a group of columns, whole groups, groups and a rest in whole tile registers, more than a block: for types
 * with blocks of a group, whole groups. */
static int widths_of(rt_dtype dtype, int64_t *widths) {
    static const int64_t wanted[MAX_PRODUCTS] = {32, GROUP, 2 * GROUP + 64, BLOCK + GROUP + 32};
    int64_t unit = rt_dtype_of(dtype)->block_elems;
    int count = 0;
    for (int i = 0; i < MAX_PRODUCTS; i++) {
        int64_t columns = (wanted[i] + unit - 1) / unit * unit;
        if (!count || columns != widths[count - 1]) widths[count++] = columns;
    }
    return count;
}

/* Two weights of one type in each product, of 1 and 3 or more panels, so that pieces dealt out lie in either; x of one
 * type of integers after the other. */
static void check_type(rt_dtype dtype, const int64_t *wanted, int count, const rt_dtype *x, treatment how) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    product products[MAX_PRODUCTS] = {{.count = 0}};
    char name[2 * MAX_PRODUCTS][16];
    for (int i = 0; i < 2 * count; i++) {
        snprintf(name[i], sizeof name[i], "w%d", i);
        make_weight(&weights, name[i], dtype, i % 2 ? WIDE : NARROW, wanted[i / 2]);
    }
    for (int i = 0; i < 2 * count; i++) products[i / 2].w[products[i / 2].count++] = rt_weights_find(&weights, name[i]);
    for (int i = 0; i < count; i++) {
        products[i].how = how;
        products[i].x = make_x(x[i], TALLEST, wanted[i], how, &arena);
    }
    check_products(products, count, false, &weights, &arena);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}

START_TEST(each_type) {
    static const rt_dtype x[MAX_PRODUCTS] = {RT_I16, RT_I16, RT_I16, RT_I16};
    int64_t widths[MAX_PRODUCTS];
    int count = widths_of(types[_i].dtype, widths);
    state = (uint64_t)_i + 1;
    check_type(types[_i].dtype, widths, count, x, ROUNDED);
}
END_TEST

/* Types without small codes are refused by the op's rule (tests/gir). */
START_TEST(each_type_as_stored) {
    static const rt_dtype x[MAX_PRODUCTS] = {RT_I8, RT_I8, RT_I8, RT_I8};
    int64_t widths[MAX_PRODUCTS];
    int count = widths_of(types[_i].dtype, widths);
    state = (uint64_t)_i + 201;
    if (rt_codes_of(types[_i].dtype)) check_type(types[_i].dtype, widths, count, x, AS_STORED);
}
END_TEST

/* Five runs of 128 columns, or three of 256 where those are blocks; nine of 256, which are packed whole, not a block of
 * columns at a time. */
START_TEST(each_type_rotated) {
    static const rt_dtype x[] = {RT_I8, RT_I16, RT_I8, RT_I16};
    rt_dtype dtype = types[_i].dtype;
    int64_t few = rt_dtype_of(dtype)->block_elems > 128 ? 3 * GROUP : 640, many = BLOCK + GROUP,
            widths[] = {few, few, many, many};
    state = (uint64_t)_i + 101;
    check_type(dtype, widths, (int)GM_COUNT(widths), x, ROTATED);
}
END_TEST

/* Weights of many types in one product, x of either type, rows as they are and rotated. */
START_TEST(mixed_types) {
    rt_weights weights = {0};
    gm_arena arena = {0};
    product products[] = {{.count = GM_COUNT(types), .how = _i ? ROTATED : ROUNDED},
                          {.count = GM_COUNT(types), .how = _i ? ROTATED : ROUNDED}};
    char name[GM_COUNT(types)][8];
    state = 77;
    for (size_t i = 0; i < GM_COUNT(types); i++) {
        snprintf(name[i], sizeof name[i], "w%d", (int)i);
        make_weight(&weights, name[i], types[i].dtype, NARROW * (1 + (int64_t)i % 2), 2 * GROUP);
    }
    for (size_t k = 0; k < GM_COUNT(products); k++) {
        for (size_t i = 0; i < GM_COUNT(types); i++) products[k].w[i] = rt_weights_find(&weights, name[i]);
        products[k].x = make_x(k ? RT_I16 : RT_I8, TALLEST, 2 * GROUP, ROUNDED, &arena);
    }
    check_products(products, GM_COUNT(products), true, &weights, &arena);
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

/* ---- the bound of the integer sums ---- */

/* Every weight of row n is ±(n+1), so that all codes are the largest: with equal signs, with those of row SIGNS of x,
 * and with neither. */
static float extreme(int64_t row, int64_t column) {
    float size = (float)(row + 1);
    bool minus = row % 3 == 1 ? column % 2 == 0 : row % 3 == 2 && column / GROUP % 2;
    return minus ? -size : size;
}

/* A group of the largest products is 256 · 2047 · 4095 < 2^31: the sums, known in closed form, must have their size and
 * sign. */
START_TEST(sums_do_not_overflow) {
    enum { COLUMNS = BLOCK + 3 * GROUP };
    ck_assert_int_lt((int64_t)GROUP * 2047 * X_LARGEST, INT64_C(1) << 31);
    rt_weights weights = {0};
    gm_arena arena = {0};
    gm_diag diag = {0};
    float *data = GM_NEW_ARRAY(&arena, float, NARROW *COLUMNS);
    for (int64_t i = 0; i < NARROW * COLUMNS; i++) data[i] = extreme(i / COLUMNS, i % COLUMNS);
    rt_tensor tensor = {.name = "w",
                        .dtype = RT_F32,
                        .rank = 2,
                        .dim = {NARROW, COLUMNS},
                        .data = data,
                        .bytes = sizeof *data * NARROW * COLUMNS};
    ck_assert(rt_weights_add(&weights, "test", &tensor, &diag) == GM_OK);
    product products[2] = {{.w = {rt_weights_find(&weights, "w")}, .count = 1},
                           {.w = {rt_weights_find(&weights, "w")}, .count = 1}};
    products[0].x = make_x(RT_I16, TALLEST, COLUMNS, ROUNDED, &arena);
    products[1].x = make_x(RT_I8, TALLEST, COLUMNS, ROUNDED, &arena);
    check_products(products, 2, true, &weights, &arena);
    for (int n = 0; n < NARROW; n++) {
        /* of ALL_LARGEST: signs of columns cancel, those of groups but one */
        int groups = n % 3 == 0 ? COLUMNS / GROUP : n % 3 == 2 ? 1 : 0;
        double scale = (double)((const float *)products[0].x.scales.data)[ALL_LARGEST],
               want = scale * X_LARGEST * GROUP * groups * (n + 1);
        ck_assert_double_eq_tol((double)((const float *)products[0].want.data)[ALL_LARGEST * NARROW + n], want,
                                1e-6 * scale * X_LARGEST * COLUMNS * (n + 1));
    }
    rt_weights_close(&weights);
    gm_arena_free(&arena);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("integer");
    TCase *together = tcase_create("types together and the bound of sums"), *each = tcase_create("each type");
    tcase_set_timeout(together, SECONDS);
    tcase_set_timeout(each, SECONDS);
    tcase_add_loop_test(together, mixed_types, 0, 2);
    tcase_add_test(together, sums_do_not_overflow);
    tcase_add_loop_test(each, each_type, 0, (int)GM_COUNT(types));
    tcase_add_loop_test(each, each_type_as_stored, 0, (int)GM_COUNT(types));
    tcase_add_loop_test(each, each_type_rotated, 0, (int)GM_COUNT(types));
    suite_add_tcase(suite, together);
    suite_add_tcase(suite, each);
    return suite_run(suite);
}
