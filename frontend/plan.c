/* Planning a run: the program is compiled, its costs are counted, the memory it will take is added up. */
#include "frontend/plan.h"
#include "frontend/proc.h"

#include "codegen/codegen.h"
#include "ir/rewrite.h"
#include "runtime/derive.h"
#include "runtime/matmul.h"
#include "runtime/program.h"
#include "runtime/release.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A stored tensor and who reads it. A gather reads a row per token, everything else all of it. */
typedef struct tensor_use {
    const char *name;
    int64_t bytes, elems, row_bytes;
    bool prefill, decode, rows; /* rows: by a gather */
} tensor_use;

typedef struct planner {
    fe_engine engine;
    const rt_program *program;
    fe_plan *plan;
    tensor_use *tensors;
    int tensor_count;
    int64_t base, compile_peak; /* resident bytes after and at most while compiling */
    struct {
        int64_t bytes, slots; /* slots: tokens that fill it */
    } caches[RT_MAX_CACHES];
    int cache_count;
} planner;

/* ---- which tensors are read when ---- */

static int64_t type_bytes(const ir_type *type) {
    int64_t elems = 1;
    for (int i = 0; i < type->rank; i++) elems *= type->dim[i]; /* stored tensors have no symbols */
    return (int64_t)rt_dtype_bytes(type->dtype, (size_t)elems);
}

static tensor_use *use_of(planner *p, const ir_inst *weight, int64_t number) {
    char text[IR_NAME_BYTES];
    const char *name = ir_stored_name(weight, number, text);
    const ir_type *type = &weight->results[0]->type;
    for (int i = 0; i < p->tensor_count; i++)
        if (strcmp(p->tensors[i].name, name) == 0) return &p->tensors[i];
    p->tensors = realloc(p->tensors, sizeof *p->tensors * (size_t)(p->tensor_count + 1));
    GM_ASSERT(p->tensors);
    tensor_use *use = &p->tensors[p->tensor_count++];
    name = gm_arena_strdup(&p->engine.module->arena, name);
    *use = (tensor_use){.name = name, .bytes = type_bytes(type), .elems = 1};
    for (int i = 0; i < type->rank; i++) use->elems *= type->dim[i];
    use->row_bytes = type->rank ? use->bytes / type->dim[0] : use->bytes;
    return use;
}

static void mark_region(planner *p, const ir_region *region, bool decode) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        for (int k = 0; k < inst->operand_count; k++) {
            const ir_inst *def = inst->operands[k]->def;
            for (int64_t n = 0; def && n < ir_stored_count(def); n++) {
                tensor_use *use = use_of(p, def, n);
                if (inst->op == IR_GATHER && k == 0) use->rows = true;
                else *(decode ? &use->decode : &use->prefill) = true;
            }
        }
        if (inst->op == IR_CALL)
            mark_region(p, ir_func_find(p->engine.module, ir_attr_string(inst, IR_ATTR_CALLEE))->body, decode);
        for (int r = 0; r < inst->region_count; r++) mark_region(p, inst->regions[r], decode);
    }
}

/* The function that does it, else the step that the host calls instead. */
static const ir_func *func_or(const planner *p, const char *name, const char *otherwise) {
    const ir_func *func = ir_func_find(p->engine.module, name);
    return func ? func : ir_func_find(p->engine.module, otherwise);
}

/* What takes the prompt: few tokens are taken one by one. */
static const char *prefill_name(const planner *p) {
    return p->plan->prompt > p->program->steps ? "prefill" : "forward.T1";
}

static bool has_func(const planner *p, const char *name) {
    return ir_func_find(p->engine.module, name) != NULL;
}

/* Does a tensor hold parameters that none counted before holds: is it none derived from another that is read too, nor
 * the second from one? */
static bool counts(const planner *p, const tensor_use *use) {
    for (int i = 0; i < p->tensor_count; i++)
        if (rt_is_derived_from(use->name, p->tensors[i].name) ||
            (&p->tensors[i] < use && rt_derived_alike(use->name, p->tensors[i].name)))
            return false;
    return true;
}

static void mark_tensors(planner *p) {
    mark_region(p, func_or(p, prefill_name(p), "forward.T1")->body, false);
    mark_region(p, func_or(p, "generate", "forward.T1")->body, true);
    if (!has_func(p, "generate")) mark_region(p, func_or(p, "head.R1", "head")->body, true);
    for (int i = 0; i < p->tensor_count; i++) {
        if (counts(p, &p->tensors[i])) p->plan->parameters += p->tensors[i].elems;
        p->plan->weight_bytes += p->tensors[i].bytes;
    }
}

/* Bytes that are resident once `tokens` rows anywhere in a tensor were read: a fault maps its neighbours too, as many
 * as the system's default says. */
static double resident_rows(const tensor_use *use, int64_t tokens) {
    enum { FAULT_BYTES = 65536 };
    double touched = (double)tokens * (double)(use->row_bytes + FAULT_BYTES);
    return (double)use->bytes * (1 - exp(-touched / (double)use->bytes));
}

/* Are a tensor's pages given back where much is generated: is something derived from it, or are they kept panels? */
static bool given_back(const planner *p, const tensor_use *use) {
    for (int i = 0; i < p->tensor_count; i++)
        if (rt_is_derived_from(p->tensors[i].name, use->name)) return true;
    return rt_is_panels(use->name);
}

/* As runtime/residency.c does: are panels larger than the weights whose rows a screen spares? */
static bool trades_all(const planner *p) {
    int64_t panels = 0, rows = 0;
    for (int i = 0; i < p->tensor_count; i++) {
        if (rt_is_panels(p->tensors[i].name)) panels += p->tensors[i].bytes;
        for (int s = 0; s < p->tensor_count && rt_is_screen(p->tensors[i].name); s++)
            if (rt_is_derived_from(p->tensors[i].name, p->tensors[s].name)) rows += p->tensors[s].bytes;
    }
    return panels > rows;
}

static int64_t resident_weights(const planner *p, bool decode, int64_t tokens, int64_t predict) {
    int64_t bytes = 0;
    for (int i = 0; i < p->tensor_count; i++) {
        const tensor_use *use = &p->tensors[i];
        bool gone = decode && (predict >= RT_LONG_DECODE || trades_all(p)) && given_back(p, use);
        if ((use->prefill && !gone) || (decode && use->decode)) bytes += use->bytes;
        else if (use->rows) bytes += (int64_t)resident_rows(use, tokens);
    }
    return bytes;
}

/* ---- costs ---- */

static ir_cost cost_at(const planner *p, const char *name, const char *otherwise, int64_t tokens, int64_t position) {
    const ir_module *module = p->engine.module;
    int64_t symbols[IR_MAX_SYMBOLS];
    for (int i = 0; i < module->symbol_count; i++) symbols[i] = module->symbols[i].max;
    if (p->program->dim_t >= 0) symbols[p->program->dim_t] = tokens;
    return ir_cost_func(module, func_or(p, name, otherwise), &(ir_cost_at){symbols, position});
}

/* Does @prefill take the prompt in chunks (its symbol is bound inside), or token by token? */
static bool binds_symbol(const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        if (region->insts[i]->op == IR_DIM) return true;
        for (int r = 0; r < region->insts[i]->region_count; r++)
            if (binds_symbol(region->insts[i]->regions[r])) return true;
    }
    return false;
}

static void plan_costs(planner *p) {
    fe_plan *plan = p->plan;
    const ir_func *prefill = ir_func_find(p->engine.module, prefill_name(p));
    bool in_chunks = prefill && binds_symbol(prefill->body);
    int64_t chunks = (plan->prompt + plan->chunk - 1) / plan->chunk; /* of one size */
    int64_t step = in_chunks && chunks ? (plan->prompt + chunks - 1) / chunks : 1;
    for (int64_t done = 0; done < plan->prompt; done += step) {
        int64_t tokens = plan->prompt - done < step ? plan->prompt - done : step;
        plan->prefill = ir_cost_add(plan->prefill, cost_at(p, prefill_name(p), "forward.T1", tokens, done),
                                    1.0 / (double)plan->prompt);
    }
    for (int64_t i = 0; i < plan->predict; i++) {
        double part = 1.0 / (double)plan->predict;
        ir_cost round = cost_at(p, "generate", "forward.T1", 1, plan->prompt + i); /* may be of several tokens */
        plan->decode = ir_cost_add(plan->decode, round, part / (round.tokens > 1 ? round.tokens : 1));
        if (!has_func(p, "generate"))
            plan->decode = ir_cost_add(plan->decode, cost_at(p, "head.R1", "head", 1, 0), part);
    }
}

/* ---- memory ---- */

/* Resident bytes of a mapping, which the system may keep in several pieces. */
static int64_t mapping_bytes(const rt_mapping *mapping) {
    char line[512];
    bool inside = false;
    long long kib = 0, more;
    uintptr_t first = (uintptr_t)mapping->address, end = first + mapping->bytes;
    unsigned long low, high;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx-%lx ", &low, &high) == 2) inside = low >= first && low < end;
        else if (inside && sscanf(line, "Rss: %lld", &more) == 1) kib += more;
    }
    if (file) fclose(file);
    return kib * 1024;
}

/* What is resident where a session would be opened and is none of the tensors: what the files hold besides has been
 * read by then, and its pages given back, like those of oneDNN's start. */
static int64_t base_bytes(const rt_weights *weights) {
    rt_weights_release(weights);
    rt_release_library("libdnnl");
    int64_t bytes = fe_proc_bytes("/proc/self/status", "VmRSS");
    for (size_t i = 0; i < weights->mapping_count; i++) bytes -= mapping_bytes(&weights->mappings[i]);
    return bytes;
}

/* The axis along which tokens are put into caches of this type: that of an update's last start. */
typedef struct token_axis {
    const ir_type *type;
    int axis;
} token_axis;

static void find_axis(const ir_inst *inst, void *user) {
    token_axis *t = user;
    if (inst->op == IR_UPDATE && ir_type_equal(&inst->operands[0]->type, t->type)) t->axis = inst->operand_count - 3;
}

/* The caches are @forward's parameters after ids and position; functions that do not update them in place need them
 * twice. */
static void plan_cache(planner *p) {
    const ir_func *forward = ir_func_find(p->engine.module, "forward");
    bool twice = false;
    double token = 0;
    for (int i = 2; i < forward->body->param_count; i++) twice |= !forward->alias || forward->alias[i - 1] < 0;
    for (int i = 2; i < forward->body->param_count; i++) {
        token_axis t = {&forward->body->params[i]->type, 1};
        ir_visit(forward->body, find_axis, &t);
        int64_t bytes =
            (1 + twice) * (int64_t)rt_dtype_bytes(t.type->dtype, (size_t)ir_type_max_elems(p->engine.module, t.type));
        int64_t slots = ir_dim_max(p->engine.module, t.type->dim[t.axis]);
        p->caches[p->cache_count].bytes = bytes;
        p->caches[p->cache_count++].slots = slots;
        p->plan->cache_bytes += bytes;
        token += (double)bytes / (double)slots;
    }
    p->plan->cache_token_bytes = (int64_t)token;
}

/* Resident after this many tokens: a ring is full sooner. */
static int64_t resident_caches(const planner *p, int64_t tokens) {
    double bytes = 0;
    for (int i = 0; i < p->cache_count; i++) {
        double part = (double)tokens / (double)p->caches[i].slots;
        bytes += (double)p->caches[i].bytes * (part < 1 ? part : 1);
    }
    return (int64_t)bytes;
}

/* The arena's buffers hold rows: a prompt shorter than a chunk fills a part of them. */
static int64_t prefill_activations(const planner *p, int64_t prompt) {
    const fe_plan *plan = p->plan;
    double rows = prompt < plan->chunk ? (double)prompt / (double)plan->chunk : 1;
    return (int64_t)(rows * (double)func_or(p, prefill_name(p), "forward.T1")->frame) + plan->scratch_bytes;
}

static fe_peak peak_part(const planner *p, bool decode, int64_t prompt, int64_t predict) {
    const fe_plan *plan = p->plan;
    int64_t tokens = prompt + (decode ? predict : 0);
    int64_t prompt_left = prefill_activations(p, prompt), step = func_or(p, "generate", "forward.T1")->frame;
    fe_peak peak = {.when = decode ? "decode" : "prefill",
                    .base = p->base,
                    .packed = plan->packed_bytes,
                    .cache = resident_caches(p, tokens)};
    peak.weights = resident_weights(p, decode, tokens, predict);
    peak.activations = decode && prompt >= RT_LONG_PROMPT ? step : prompt_left > step || !decode ? prompt_left : step;
    peak.other = rt_session_fixed_bytes(p->program, plan->threads);
    peak.bytes = peak.base + peak.weights + peak.packed + peak.cache + peak.activations + peak.other;
    return peak;
}

static fe_peak peak_of(const planner *p, int64_t prompt, int64_t predict) {
    fe_peak prefill = peak_part(p, false, prompt, predict), decode = peak_part(p, true, prompt, predict);
    fe_peak peak = predict && decode.bytes > prefill.bytes ? decode : prefill;
    if (peak.bytes < p->compile_peak)
        peak = (fe_peak){.when = "compile", .bytes = p->compile_peak, .base = p->compile_peak};
    return peak;
}

static void plan_memory(planner *p) {
    fe_plan *plan = p->plan;
    plan->arena_bytes = p->program->arena_bytes;
    plan->scratch_bytes = p->program->scratch_bytes * plan->threads;
    plan->packed_bytes = rt_matmul_packed_bytes(p->program->sites, p->program->site_count);
    plan_cache(p);
    plan->run = peak_of(p, plan->prompt, plan->predict);
    int64_t prompt = plan->prompt < plan->context ? plan->prompt : plan->context;
    plan->full = peak_of(p, prompt, plan->context - prompt);
}

/* ---- all of it ---- */

static double tokens_per_second(const rt_probe *probe, const ir_cost *cost) {
    double seconds = rt_roofline_seconds(probe, cost->read + cost->written, cost->flop);
    return seconds > 0 ? 1 / seconds : 0;
}

static void plan_engine(planner *p, int threads, int64_t prompt, int64_t predict) {
    fe_plan *plan = p->plan;
    p->base = base_bytes(&p->engine.model.weights);
    p->compile_peak = fe_proc_bytes("/proc/self/status", "VmHWM");
    p->program = fe_engine_program(&p->engine);
    *plan = (fe_plan){.threads = threads ? threads : rt_team_default_threads(),
                      .context = p->program->context,
                      .chunk = p->program->chunk};
    plan->prompt = prompt < plan->context ? prompt : plan->context;
    plan->predict = predict < plan->context - plan->prompt ? predict : plan->context - plan->prompt;
    mark_tensors(p);
    plan_costs(p);
    plan_memory(p);
}

gm_status fe_plan_make(const char *path, const fe_options *options, int64_t prompt, int64_t predict, bool probe,
                       gm_diag *diag, fe_plan *out) {
    planner p = {.plan = out};
    fe_options settled = *options;
    settled.no_session = true;
    GM_TRY(fe_engine_open(path, &settled, diag, &p.engine));
    plan_engine(&p, options->threads, prompt, predict);
    rt_dtype products = ir_cost_products(p.engine.module);
    free(p.tensors);
    fe_engine_close(&p.engine);
    if (!probe) return GM_OK;
    GM_TRY(rt_probe_run(options->threads, products, diag, &out->probe));
    out->prefill_tok_s = tokens_per_second(&out->probe, &out->prefill);
    out->decode_tok_s = tokens_per_second(&out->probe, &out->decode);
    return GM_OK;
}
