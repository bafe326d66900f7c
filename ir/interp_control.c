/* The interpreter's regions, calls and generation. Each trip of a loop has its own scratch memory; only what it
 * yields outlives it. */
#include "ir/interp_internal.h"

#include "runtime/likely.h"
#include "runtime/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ir_array int_scalar(gm_arena *arena, int32_t value) {
    ir_array tensor = {.dtype = RT_I32, .data = GM_NEW(arena, int32_t)};
    *(int32_t *)tensor.data = value;
    return tensor;
}

gm_status interp_MAP(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    int64_t trips;
    GM_TRY(interp_extent(frame, inst, ir_attr_int(inst, IR_ATTR_EXTENT, 0), &trips));
    ir_array *yields = GM_NEW_ARRAY(frame->arena, ir_array, inst->result_count);
    for (int j = 0; j < inst->result_count; j++) GM_TRY(interp_alloc(frame, inst, &out[j]));
    for (int64_t i = 0; i < trips; i++) {
        gm_arena trip = {0};
        ir_array index = int_scalar(&trip, (int32_t)i);
        gm_status status = interp_region(frame, inst->regions[0], &index, &trip, yields);
        for (int j = 0; status == GM_OK && j < inst->result_count; j++) {
            size_t bytes = interp_bytes(&yields[j]);
            if (bytes * (size_t)trips != interp_bytes(&out[j]))
                status = interp_fail(frame, inst, "the body yields another shape than its type");
            else memcpy((char *)out[j].data + bytes * (size_t)i, yields[j].data, bytes);
        }
        gm_arena_free(&trip);
        GM_TRY(status);
    }
    return GM_OK;
}

/* The carries of a loop: those of the last trip, in memory of their own. */
typedef struct carry_set {
    ir_array *tensors; /* one more than the carries: [0] is the trip number of a scan */
    gm_arena arena;
} carry_set;

static gm_status finish_loop(interp_frame *frame, const ir_inst *inst, const carry_set *carry, int count,
                             ir_array *out) {
    for (int j = 0; j < count; j++) {
        out[j] = carry->tensors[j + 1];
        GM_TRY(interp_alloc(frame, inst, &out[j]));
        memcpy(out[j].data, carry->tensors[j + 1].data, interp_bytes(&out[j]));
    }
    return GM_OK;
}

/* One trip: args = the carries, with the trip number before them for a scan. */
static gm_status next_trip(interp_frame *frame, const ir_region *body, const ir_array *args, carry_set *carry) {
    gm_arena fresh = {0};
    gm_status status = interp_region(frame, body, args, &fresh, carry->tensors + 1);
    gm_arena_free(&carry->arena);
    carry->arena = fresh;
    return status;
}

gm_status interp_SCAN(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    int count = inst->operand_count - 1;
    int32_t trips = interp_scalar(&in[0]), trip = 0;
    carry_set carry = {.tensors = GM_NEW_ARRAY(frame->arena, ir_array, count + 1)};
    carry.tensors[0] = int_scalar(frame->arena, 0);
    for (int j = 0; j < count; j++) carry.tensors[j + 1] = in[j + 1];
    gm_status status = GM_OK;
    for (; status == GM_OK && trip < trips; trip++) {
        *(int32_t *)carry.tensors[0].data = trip;
        status = next_trip(frame, inst->regions[0], carry.tensors, &carry);
    }
    if (status == GM_OK) status = finish_loop(frame, inst, &carry, count, out);
    gm_arena_free(&carry.arena);
    return status;
}

static gm_status test_while(interp_frame *frame, const ir_inst *inst, const carry_set *carry, bool *out) {
    gm_arena scratch = {0};
    ir_array go;
    gm_status status = interp_region(frame, inst->regions[0], carry->tensors + 1, &scratch, &go);
    *out = status == GM_OK && *(const uint8_t *)go.data;
    gm_arena_free(&scratch);
    return status;
}

gm_status interp_WHILE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    int count = inst->operand_count;
    carry_set carry = {.tensors = GM_NEW_ARRAY(frame->arena, ir_array, count + 1)};
    for (int j = 0; j < count; j++) carry.tensors[j + 1] = in[j];
    bool go = true;
    gm_status status = test_while(frame, inst, &carry, &go);
    while (status == GM_OK && go) {
        status = next_trip(frame, inst->regions[1], carry.tensors + 1, &carry);
        if (status == GM_OK) status = test_while(frame, inst, &carry, &go);
    }
    if (status == GM_OK) status = finish_loop(frame, inst, &carry, count, out);
    gm_arena_free(&carry.arena);
    return status;
}

gm_status interp_IF(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    const ir_region *branch = inst->regions[*(const uint8_t *)in[0].data ? 0 : 1];
    return interp_region(frame, branch, NULL, frame->arena, out);
}

gm_status interp_CALL(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    const ir_func *callee = ir_func_find(frame->module, ir_attr_string(inst, IR_ATTR_CALLEE));
    return interp_function(frame->run, frame->module, callee, in, inst->operand_count, frame, frame->quiet,
                           frame->arena, out);
}

gm_status interp_DIM(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    int symbol = ir_symbol_find(frame->module, ir_attr_string(inst, IR_ATTR_SYMBOL));
    const ir_symbol *s = &frame->module->symbols[symbol];
    int32_t value = interp_scalar(&in[0]);
    if (value < 0 || (s->max && value > s->max))
        return interp_fail(frame, inst, "%s = %d, its bound is %lld", s->name, (int)value, (long long)s->max);
    frame->extent[symbol] = value;
    return GM_OK;
}

gm_status interp_FUSE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    return interp_region(frame, inst->regions[0], in, frame->arena, out);
}

/* ---- generation ---- */

/* Operands 1 and 2: tokens, of which those before a position are there. */
static gm_status check_position(interp_frame *frame, const ir_inst *inst, const ir_array *in) {
    int32_t position = interp_scalar(&in[2]);
    if (position >= 0 && position <= in[1].dim[0]) return GM_OK;
    return interp_fail(frame, inst, "position %d is not in 0..%lld", (int)position, (long long)in[1].dim[0]);
}

static bool is_likely(const ir_inst *inst, const ir_array *in, int64_t block, int64_t position) {
    const int32_t *tokens = in[1].data;
    bool likely = block * RT_LIKELY_BLOCK < ir_attr_int(inst, IR_ATTR_USUAL, 0);
    for (int64_t i = position - 1; i >= 0 && i >= position - RT_LIKELY_TOKENS && !likely; i--)
        likely = tokens[i] >= 0 && tokens[i] < in[0].dim[1] && tokens[i] / RT_LIKELY_BLOCK == block;
    return likely;
}

gm_status interp_GUESS(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int64_t vocab = in[0].dim[1], position = interp_scalar(&in[2]), best = -1;
    const float *logits = in[0].data;
    GM_TRY(check_position(frame, inst, in));
    for (int64_t first = 0; first < vocab; first += RT_LIKELY_BLOCK) {
        bool likely = is_likely(inst, in, first / RT_LIKELY_BLOCK, position);
        for (int64_t i = first; likely && i < vocab && i < first + RT_LIKELY_BLOCK; i++)
            if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
    }
    *(int32_t *)out->data = best < 0 ? 0 : (int32_t)best;
    return GM_OK;
}

/* The logits, and NaN, which is never chosen, for ids that are not likely. */
static const float *likely_logits(interp_frame *frame, const ir_inst *inst, const ir_array *in, int64_t position) {
    int64_t vocab = in[0].dim[1];
    float *logits = gm_arena_alloc(frame->arena, sizeof *logits * (size_t)vocab);
    for (int64_t i = 0; i < vocab; i++)
        logits[i] = is_likely(inst, in, i / RT_LIKELY_BLOCK, position) ? ((const float *)in[0].data)[i] : NAN;
    return logits;
}

gm_status interp_SAMPLE(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    GM_TRY(interp_alloc(frame, inst, out));
    int64_t rows = in[0].dim[0], vocab = in[0].dim[1];
    GM_TRY(check_position(frame, inst, in));
    if (vocab < 1) return interp_fail(frame, inst, "there are no logits");
    rt_choice by = {.options = in[3].data,
                    .tokens = in[1].data,
                    .position = interp_scalar(&in[2]),
                    .seed = *(const uint64_t *)in[4].data};
    const float *logits = ir_attr_find(inst, IR_ATTR_USUAL) ? likely_logits(frame, inst, in, by.position) : in[0].data;
    void *scratch = gm_arena_alloc(frame->arena, rt_sample_scratch_bytes(vocab));
    for (; by.row < rows; by.row++)
        ((int32_t *)out->data)[by.row] = rt_sample(logits + by.row * vocab, vocab, &by, scratch);
    return GM_OK;
}

gm_status interp_EMIT(interp_frame *frame, const ir_inst *inst, const ir_array *in, ir_array *out) {
    const ir_interp_env *env = frame->run->env;
    if (env->emit) env->emit(env->user, interp_scalar(&in[0]));
    return GM_OK;
}
