/* fuse_attention: scores, mask, softmax and weighted sum become one attention operation.
 *
 *   %s = einsum %q, %k {spec = "tkgd,skd->tkgs"}          %o = attention %q, %k, %v, %pos {scale, cap, window}
 *   %x = select %mask, (mul %s, scale), -inf         ->
 *   %e = exp (sub %x, (reduce_max %x))
 *   %o = einsum (div %e, (reduce_sum %e)), %v {spec = "tkgs,skd->tkgd"}
 *
 * What is recognised, from the last einsum back to the first: any letters and any order of axes; the axes t, k or g may
 * be missing (they have extent 1); with or without scale and cap·tanh(·/cap). The mask must be j <= pos + t, and may be
 * cut to pos + t - j < window: each comparison is read as a linear form in the coordinates, one scalar and a constant,
 * through iota, add, sub, and, reshape and broadcasting, whatever its spelling.
 *
 * Legal because attention means exactly this expansion. Compiled attention skips the keys that the mask hides and adds
 * in another order: equal up to f32 rounding. The pass ends with fold and dce when it found something: the old chain is
 * dead then, and the views around it meet. Refused: other masks, a softmax over another axis, keys and values of
 * different shapes. Needs batch_attention and fold.
 */
#include "passes/match.h"
#include "passes/passes.h"
#include "ir/rewrite.h"

#include <math.h>
#include <string.h>

/* ---- looking at producers ---- */

/* mul of x with a constant on either side: the other operand. */
static const ir_value *scaled_by(const ir_value *x, double *out) {
    const ir_inst *mul = match_made_by(x, IR_MUL);
    if (!mul) return NULL;
    if (match_number(mul->operands[1], out)) return mul->operands[0];
    return match_number(mul->operands[0], out) ? mul->operands[1] : NULL;
}

/* ---- linear forms ---- */

/* sum of coefficient · coordinate over the score's axes + times · scalar + constant */
typedef struct linear {
    int64_t axis[IR_MAX_RANK], constant, times;
    const ir_value *scalar; /* rank 0; NULL: none */
} linear;

/* Which axis of the scores each axis of a value is; -1: extent 1. */
typedef struct axes {
    int of[IR_MAX_RANK];
} axes;

static axes axes_of_operand(const axes *result, int result_rank, int rank) {
    axes out = {{0}};
    for (int i = 0; i < rank; i++) out.of[i] = result->of[i + result_rank - rank];
    return out;
}

/* Before a reshape that only changed extents of 1. */
static bool axes_before_reshape(const axes *result, const ir_type *to, const ir_type *from, axes *out) {
    int j = 0;
    for (int i = 0; i < from->rank; i++) {
        out->of[i] = -1;
        if (from->dim[i] == 1) continue;
        while (j < to->rank && to->dim[j] == 1) j++;
        if (j == to->rank || to->dim[j] != from->dim[i]) return false;
        out->of[i] = result->of[j++];
    }
    while (j < to->rank && to->dim[j] == 1) j++;
    return j == to->rank;
}

static bool add_scaled(linear *sum, const linear *term, int64_t factor) {
    for (int i = 0; i < IR_MAX_RANK; i++) sum->axis[i] += factor * term->axis[i];
    sum->constant += factor * term->constant;
    if (!term->scalar) return true;
    if (sum->scalar && sum->scalar != term->scalar) return false;
    sum->scalar = term->scalar;
    sum->times += factor * term->times;
    if (sum->times == 0) sum->scalar = NULL;
    return true;
}

/* The linear form of an i32 value whose axes are `at` in the scores. */
static bool read_linear(const ir_value *x, const axes *at, linear *out) {
    *out = (linear){.constant = 0};
    if (match_made_by(x, IR_CONST)) {
        const ir_attr *value = ir_attr_find(x->def, IR_ATTR_VALUE);
        if (value) out->constant = value->i;
        return value != NULL;
    }
    if (x->type.rank == 0) {
        out->scalar = x;
        out->times = 1;
        return true;
    }
    if (match_made_by(x, IR_IOTA)) {
        int64_t along = ir_attr_int(x->def, IR_ATTR_AXIS, 0);
        if (at->of[along] >= 0 && x->type.dim[along] != 1) out->axis[at->of[along]] = 1;
        return true;
    }
    if (match_made_by(x, IR_RESHAPE)) {
        axes before;
        const ir_value *source = x->def->operands[0];
        return axes_before_reshape(at, &x->type, &source->type, &before) && read_linear(source, &before, out);
    }
    if (!match_made_by(x, IR_ADD) && !match_made_by(x, IR_SUB)) return false;
    for (int i = 0; i < 2; i++) {
        const ir_value *operand = x->def->operands[i];
        axes of_operand = axes_of_operand(at, x->type.rank, operand->type.rank);
        linear term;
        if (!read_linear(operand, &of_operand, &term)) return false;
        if (!add_scaled(out, &term, i == 1 && x->def->op == IR_SUB ? -1 : 1)) return false;
    }
    return true;
}

/* ---- the mask ---- */

typedef struct mask {
    linear bound[2]; /* each >= 0 */
    int count;
} mask;

/* Adds the comparison a <= b (or a < b) as b - a (- 1) >= 0. */
static bool read_comparison(const ir_inst *inst, const axes *at, mask *out) {
    linear side[2], bound = {.constant = inst->op == IR_LT ? -1 : 0};
    if (inst->operands[0]->type.dtype != RT_I32 || out->count == (int)GM_COUNT(out->bound)) return false;
    for (int i = 0; i < 2; i++) {
        const ir_value *operand = inst->operands[i];
        axes of_operand = axes_of_operand(at, inst->results[0]->type.rank, operand->type.rank);
        if (!read_linear(operand, &of_operand, &side[i])) return false;
    }
    if (!add_scaled(&bound, &side[1], 1) || !add_scaled(&bound, &side[0], -1)) return false;
    out->bound[out->count++] = bound;
    return true;
}

static bool read_mask(const ir_value *x, const axes *at, mask *out) {
    if (match_made_by(x, IR_RESHAPE)) {
        axes before;
        const ir_value *source = x->def->operands[0];
        return axes_before_reshape(at, &x->type, &source->type, &before) && read_mask(source, &before, out);
    }
    if (match_made_by(x, IR_AND)) {
        for (int i = 0; i < 2; i++) {
            const ir_value *operand = x->def->operands[i];
            axes of_operand = axes_of_operand(at, x->type.rank, operand->type.rank);
            if (!read_mask(operand, &of_operand, out)) return false;
        }
        return true;
    }
    return (match_made_by(x, IR_LE) || match_made_by(x, IR_LT)) && read_comparison(x->def, at, out);
}

/* pos + t - j >= 0: which axis t is (-1: none). */
static bool is_causal(const linear *form, int rank, int key_axis, int *out_t) {
    *out_t = -1;
    if (form->axis[key_axis] != -1 || (form->scalar && form->times != 1)) return false;
    if (form->scalar && form->constant) return false;
    for (int i = 0; i < rank; i++) {
        if (i == key_axis || form->axis[i] == 0) continue;
        if (form->axis[i] != 1 || *out_t >= 0) return false;
        *out_t = i;
    }
    return true;
}

/* window - 1 - (pos + t - j) >= 0 */
static bool is_window(const linear *form, const linear *causal, int64_t *out_window) {
    linear sum = *form;
    if (!add_scaled(&sum, causal, 1) || sum.scalar) return false;
    for (int i = 0; i < IR_MAX_RANK; i++)
        if (sum.axis[i]) return false;
    *out_window = sum.constant + 1;
    return *out_window > 0 && *out_window <= INT32_MAX;
}

/* ---- the whole pattern ---- */

typedef struct found {
    const ir_value *q, *k, *v, *position; /* position NULL: the constant position_value */
    int64_t position_value, window;
    double scale, cap;
    /* where t, k, g, d (and s) lie in q, k, v and the result; -1: missing */
    int q_axis[4], k_axis[3], v_axis[3], result_axis[4];
    ir_dim dims[4]; /* T, KV, G, D */
    ir_dim keys;
} found;

static int place(const char *letters, char letter) {
    const char *at = letter ? strchr(letters, letter) : NULL;
    return at ? (int)(at - letters) : -1;
}

/* From the weights of the last einsum back to the scaled, capped and masked scores. */
static bool match_softmax(const ir_value *weights, const ir_value **out_masked, int *out_axis) {
    const ir_inst *div = match_made_by(weights, IR_DIV);
    const ir_inst *e = div ? match_made_by(div->operands[0], IR_EXP) : NULL;
    const ir_inst *sum = div ? match_made_by(div->operands[1], IR_REDUCE_SUM) : NULL;
    const ir_inst *shifted = e ? match_made_by(e->operands[0], IR_SUB) : NULL;
    const ir_inst *max = shifted ? match_made_by(shifted->operands[1], IR_REDUCE_MAX) : NULL;
    if (!sum || !max || sum->operands[0] != div->operands[0] || max->operands[0] != shifted->operands[0]) return false;
    *out_masked = shifted->operands[0];
    *out_axis = (int)ir_attr_int(sum, IR_ATTR_AXIS, 0);
    return *out_axis == ir_attr_int(max, IR_ATTR_AXIS, 0);
}

static const ir_inst *match_scores(const ir_value *x, double *scale, double *cap) {
    double outer;
    const ir_value *inner = scaled_by(x, &outer);
    const ir_inst *tanh = inner ? match_made_by(inner, IR_TANH) : NULL;
    const ir_inst *div = tanh ? match_made_by(tanh->operands[0], IR_DIV) : NULL;
    *cap = 0;
    *scale = 1;
    if (div) {
        if (!match_number(div->operands[1], cap) || *cap != outer || !(*cap > 0)) return NULL;
        x = div->operands[0];
        inner = scaled_by(x, scale);
    } else if (inner) *scale = outer;
    return match_made_by(inner ? inner : x, IR_EINSUM);
}

/* q · k over d, result axes each from one of them: where t/g, k, s and d are. false: another contraction. */
static bool match_first(const ir_inst *einsum, bool exchange, int key_axis, int t_axis, found *f) {
    ir_einsum_spec spec = ir_einsum_spec_of(einsum);
    const char *x = spec.operand[exchange], *y = spec.operand[!exchange], *result = spec.result;
    const ir_value *q = einsum->operands[exchange], *k = einsum->operands[!exchange];
    char letter_t = t_axis >= 0 ? result[t_axis] : 0, letter_k = 0, letter_g = 0, letter_d = 0;
    char letter_s = result[key_axis];
    if (strchr(x, letter_s) || !strchr(y, letter_s)) return false;
    for (const char *c = x; *c; c++) {
        bool in_y = strchr(y, *c), in_result = strchr(result, *c);
        char *role = in_y ? (in_result ? &letter_k : &letter_d) : &letter_g;
        if (!in_y && !in_result) return false;
        if (*c == letter_t && !in_y) continue;
        if (role == &letter_g && letter_g && !letter_t) { /* one token: t is the axis of extent 1 */
            if (q->type.dim[place(x, letter_g)] == 1) letter_t = letter_g, letter_g = *c;
            else if (q->type.dim[c - x] == 1) letter_t = *c;
            else return false;
            continue;
        }
        if (*role) return false;
        *role = *c;
    }
    if (!letter_d || (letter_t && strchr(y, letter_t))) return false;
    for (const char *c = y; *c; c++)
        if (*c != letter_s && *c != letter_k && *c != letter_d) return false;
    const char roles[4] = {letter_t, letter_k, letter_g, letter_d}, key_roles[3] = {letter_s, letter_k, letter_d};
    for (int i = 0; i < 4; i++) {
        f->q_axis[i] = place(x, roles[i]);
        f->dims[i] = f->q_axis[i] < 0 ? 1 : q->type.dim[f->q_axis[i]];
        f->result_axis[i] = i < 3 ? place(result, roles[i]) : -1; /* of the scores, for match_second */
    }
    for (int i = 0; i < 3; i++) f->k_axis[i] = place(y, key_roles[i]);
    f->keys = k->type.dim[f->k_axis[0]];
    f->q = q;
    f->k = k;
    return true;
}

/* weights · v over s. The weights' axes are the scores'. */
static bool match_second(const ir_inst *einsum, bool exchange, int key_axis, found *f) {
    ir_einsum_spec spec = ir_einsum_spec_of(einsum);
    const char *x = spec.operand[exchange], *y = spec.operand[!exchange], *result = spec.result;
    const ir_value *v = einsum->operands[!exchange];
    char letter_s = x[key_axis], letter_d = 0, roles[4] = {0};
    for (int i = 0; i < 3; i++) roles[i] = f->result_axis[i] < 0 ? 0 : x[f->result_axis[i]];
    if (strchr(result, letter_s)) return false;
    for (const char *c = y; *c; c++) {
        if (*c == letter_s || (roles[1] && *c == roles[1])) continue;
        if (letter_d || strchr(x, *c)) return false;
        letter_d = *c;
    }
    if (!letter_d) return false;
    roles[3] = letter_d;
    const char value_roles[3] = {letter_s, roles[1], letter_d};
    for (int i = 0; i < 3; i++) f->v_axis[i] = place(y, value_roles[i]);
    if (f->v_axis[0] < 0 || (roles[1] && f->v_axis[1] < 0)) return false;
    for (int i = 0; i < 4; i++) {
        f->result_axis[i] = place(result, roles[i]);
        if (roles[i] && f->result_axis[i] < 0) return false;
    }
    f->v = v;
    return v->type.dim[f->v_axis[2]] == f->dims[3] && v->type.dim[f->v_axis[0]] == f->keys &&
           v->type.dtype == f->k->type.dtype;
}

static bool match_mask(const ir_value *condition, const ir_type *scores, int key_axis, found *f, int *out_t) {
    mask m = {.count = 0};
    axes all = {{0}};
    for (int i = 0; i < scores->rank; i++) all.of[i] = i;
    axes at = axes_of_operand(&all, scores->rank, condition->type.rank);
    if (!read_mask(condition, &at, &m)) return false;
    int causal = m.count > 0 && is_causal(&m.bound[0], scores->rank, key_axis, out_t) ? 0 : 1;
    if (causal >= m.count || !is_causal(&m.bound[causal], scores->rank, key_axis, out_t)) return false;
    f->window = 0;
    if (m.count == 2 && !is_window(&m.bound[1 - causal], &m.bound[causal], &f->window)) return false;
    f->position = m.bound[causal].scalar;
    f->position_value = m.bound[causal].constant;
    return true;
}

static bool match(const ir_inst *last, bool exchange, found *f) {
    const ir_value *masked;
    int key_axis, t_axis;
    double hidden;
    if (last->op != IR_EINSUM || !match_softmax(last->operands[exchange], &masked, &key_axis)) return false;
    const ir_inst *select = match_made_by(masked, IR_SELECT);
    if (!select || !match_number(select->operands[2], &hidden) || hidden != -INFINITY) return false;
    const ir_inst *first = match_scores(select->operands[1], &f->scale, &f->cap);
    if (!first || !ir_type_equal(&first->results[0]->type, &masked->type)) return false;
    if (!ir_type_equal(&masked->type, &last->operands[exchange]->type)) return false;
    if (!match_mask(select->operands[0], &masked->type, key_axis, f, &t_axis)) return false;
    for (int i = 0; i < 2; i++)
        if (match_first(first, i, key_axis, t_axis, f) && match_second(last, exchange, key_axis, f)) return true;
    return false;
}

/* ---- building ---- */

/* x with the axes axis[0 … n) (−1: a new one of extent 1) in this order; looks through a transpose or reshape that it
 * would only undo. */
static ir_value *arrange(ir_builder *b, ir_value *x, const int *axis, int n, const ir_type *type) {
    int64_t perm[IR_MAX_RANK], composed[IR_MAX_RANK];
    int count = 0;
    for (int i = 0; i < n; i++)
        if (axis[i] >= 0) perm[count++] = axis[i];
    GM_ASSERT(count == x->type.rank);
    if (match_made_by(x, IR_TRANSPOSE)) {
        const ir_attr *inner = ir_attr_find(x->def, IR_ATTR_PERM);
        for (int i = 0; i < count; i++) composed[i] = inner->ints[perm[i]];
        memcpy(perm, composed, sizeof perm);
        x = x->def->operands[0];
    }
    bool identity = true; /* as far as elements are concerned */
    int64_t last = -1;
    for (int i = 0; i < count; i++) {
        if (x->type.dim[perm[i]] == 1) continue;
        identity &= perm[i] > last;
        last = perm[i];
    }
    if (!identity) x = ir_transpose(b, x, perm);
    while (match_made_by(x, IR_RESHAPE) && !ir_type_equal(&x->type, type)) x = x->def->operands[0];
    return ir_type_equal(&x->type, type) ? x : ir_reshape(b, x, type->rank, type->dim);
}

/* The attention's [T,KV,G,D] in the axes of the einsum that it replaces. */
static ir_value *arrange_result(ir_builder *b, ir_value *x, const found *f, const ir_type *type) {
    int64_t perm[IR_MAX_RANK] = {0};
    int rest = type->rank;
    for (int i = 0; i < 4; i++) perm[f->result_axis[i] >= 0 ? f->result_axis[i] : rest++] = i;
    int order[IR_MAX_RANK];
    for (int i = 0; i < 4; i++) order[i] = (int)perm[i];
    return arrange(b, x, order, 4, type);
}

static ir_value *build(ir_rewrite *rw, const found *f, const ir_type *type) {
    ir_builder *b = &rw->b;
    ir_type q_type = ir_tensor(RT_F32, 4, f->dims);
    ir_type kv_type = ir_tensor(f->k->type.dtype, 3, (ir_dim[]){f->keys, f->dims[1], f->dims[3]});
    ir_value *operands[4] = {arrange(b, ir_rewrite_get(rw, f->q), f->q_axis, 4, &q_type),
                             arrange(b, ir_rewrite_get(rw, f->k), f->k_axis, 3, &kv_type),
                             arrange(b, ir_rewrite_get(rw, f->v), f->v_axis, 3, &kv_type),
                             f->position ? ir_rewrite_get(rw, f->position) : ir_const_int(b, f->position_value)};
    ir_attr attrs[3] = {ir_attr_make_float(IR_ATTR_SCALE, f->scale)};
    int count = 1;
    if (f->cap > 0) attrs[count++] = ir_attr_make_float(IR_ATTR_CAP, f->cap);
    if (f->window > 0) attrs[count++] = ir_attr_make_int(IR_ATTR_WINDOW, f->window);
    return arrange_result(b, ir_emit1(b, IR_ATTENTION, operands, 4, attrs, count, NULL), f, type);
}

static bool fuse(ir_rewrite *rw, const ir_inst *inst) {
    found f;
    if (inst->op != IR_EINSUM || (!match(inst, false, &f) && !match(inst, true, &f))) return false;
    ir_rewrite_map(rw, inst->results[0], build(rw, &f, &inst->results[0]->type));
    *(bool *)rw->user = true;
    return true;
}

gm_status pass_fuse_attention(const pass_options *options, const ir_module *in, gm_diag *diag, ir_module **out) {
    bool found_any = false;
    ir_module *fused = ir_rewrite_module(in, fuse, &found_any);
    *out = fused;
    if (!found_any) return GM_OK;
    ir_module *folded = NULL;
    gm_status status = pass_fold(options, fused, diag, &folded);
    ir_module_free(fused);
    return status == GM_OK ? pass_sweep(true, options, folded, diag, out) : status;
}
