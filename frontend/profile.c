/* The profiled run: two programs of one model run in turn, and the events of the last round added up. */
#include "frontend/profile.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REST_NANOSECONDS = 20000000, MAX_EVENTS = 1 << 22, SPARE_EVENTS = 64 };

/* ---- instructions ---- */

typedef struct lister {
    gm_arena *arena;
    const ir_func *func;
    const char **names;
    const int *layers;
    fe_op *ops;
    int count, capacity;
} lister;

static fe_op op_of(const lister *l, const ir_inst *inst) {
    fe_op op = {.inst = inst,
                .func = l->func->name,
                .op = ir_op_of(inst->op)->text,
                .name = "",
                .layer = -1,
                .symbol = ir_cost_symbol(inst)};
    const char *impl = ir_attr_string(inst, IR_ATTR_IMPL);
    if (impl) op.op = gm_arena_printf(l->arena, "%s/%s", op.op, impl);
    if (!inst->result_count) return op;
    op.name = gm_arena_printf(l->arena, "%%%s", l->names[inst->results[0]->id]);
    op.layer = l->layers[inst->results[0]->id];
    return op;
}

static void list_region(lister *l, const ir_region *region) {
    for (int i = 0; i < region->inst_count; i++) {
        const ir_inst *inst = region->insts[i];
        if (l->count == l->capacity) {
            l->capacity = l->capacity ? 2 * l->capacity : 1024;
            l->ops = realloc(l->ops, sizeof *l->ops * (size_t)l->capacity);
            GM_ASSERT(l->ops);
        }
        l->ops[l->count++] = op_of(l, inst);
        for (int r = 0; inst->op != IR_FUSE && r < inst->region_count; r++) list_region(l, inst->regions[r]);
    }
}

/* Instructions in the order of cg_trace_number; texts and list in `arena`. */
static fe_op *profiled_ops(const ir_module *module, gm_arena *arena, int *out_count) {
    lister l = {.arena = arena};
    for (int i = 0; i < module->func_count; i++) {
        int *layers = ir_value_layers(module->funcs[i]);
        l.func = module->funcs[i];
        l.names = ir_value_names(l.func, arena);
        l.layers = layers;
        list_region(&l, l.func->body);
        free(layers);
    }
    fe_op *ops = GM_NEW_ARRAY(arena, fe_op, l.count + 1);
    if (l.count) memcpy(ops, l.ops, sizeof *ops * (size_t)l.count);
    free(l.ops);
    *out_count = l.count;
    return ops;
}

/* ---- the cost of an event ---- */

fe_op_call fe_profile_call(const fe_profile_result *result, const rt_event *event) {
    const ir_module *module = result->engine.module;
    const fe_op *op = &result->ops[event->inst];
    int64_t symbols[IR_MAX_SYMBOLS];
    for (int i = 0; i < module->symbol_count; i++) symbols[i] = module->symbols[i].max;
    if (op->symbol >= 0) symbols[op->symbol] = event->extent;
    ir_cost_at at = {.symbols = symbols, .position = event->position};
    fe_op_call call = {.cost = ir_cost_of(module, op->inst, &at)};
    if (!op->inst->result_count) return call;
    ir_type type = op->inst->results[0]->type;
    for (int i = 0; i < type.rank; i++)
        if (ir_dim_is_symbol(type.dim[i])) type.dim[i] = symbols[ir_dim_symbol_of(type.dim[i])];
    ir_type_text(module, &type, call.shape);
    return call;
}

/* ---- adding up ---- */

static fe_profile_row *row_for(fe_profile_rows *rows, const char *name, int layer) {
    for (int i = 0; i < rows->count; i++)
        if (rows->rows[i].layer == layer && (!name || strcmp(rows->rows[i].name, name) == 0)) return &rows->rows[i];
    rows->rows = realloc(rows->rows, sizeof *rows->rows * (size_t)(rows->count + 1));
    GM_ASSERT(rows->rows);
    rows->rows[rows->count] = (fe_profile_row){.name = name, .layer = layer};
    return &rows->rows[rows->count++];
}

static void add_event(fe_profile_row *row, const rt_event *event, double seconds, const ir_cost *cost) {
    if (event->kind == RT_EVENT_WAIT) row->wait_s += seconds;
    else row->work_s += seconds;
    if (!cost) return;
    row->calls++;
    row->cost = ir_cost_add(row->cost, *cost, 1);
}

/* All threads run every instruction: what it costs is counted for the first alone. */
static void add_thread(fe_profile_result *result, fe_profile_phase *phase, int thread) {
    int64_t count;
    const rt_event *events = rt_profile_events(result->events, thread, &count);
    for (int64_t i = phase->from[thread]; i < phase->to[thread]; i++) {
        const rt_event *event = &events[i];
        double seconds = (double)(event->end - event->start) / result->rate;
        if (event->kind == RT_EVENT_WAIT) phase->wait_s += seconds;
        else phase->work_s += seconds;
        const fe_op *op = event->inst >= 0 ? &result->ops[event->inst] : NULL;
        bool first = thread == 0 && event->kind == RT_EVENT_OP;
        fe_op_call call = {{0}, ""};
        if (first) call = fe_profile_call(result, event);
        if (first) phase->cost = ir_cost_add(phase->cost, call.cost, 1);
        add_event(row_for(&phase->ops, op ? op->op : "return", -1), event, seconds, first ? &call.cost : NULL);
        add_event(row_for(&phase->layers, NULL, op ? op->layer : -1), event, seconds, first ? &call.cost : NULL);
    }
}

/* The time that work of any thread covers. Each thread's events are in order, so the earliest start among the next ones
 * is next. */
static double covered(const fe_profile_result *result, const fe_profile_phase *phase) {
    int64_t at[RT_MAX_THREADS], reached = phase->start, total = 0, count;
    memcpy(at, phase->from, sizeof at);
    for (;;) {
        const rt_event *next = NULL;
        int next_thread = 0;
        for (int i = 0; i < result->threads; i++) {
            const rt_event *events = rt_profile_events(result->events, i, &count);
            while (at[i] < phase->to[i] && events[at[i]].kind == RT_EVENT_WAIT) at[i]++;
            if (at[i] == phase->to[i] || (next && events[at[i]].start >= next->start)) continue;
            next = &events[at[i]];
            next_thread = i;
        }
        if (!next) return (double)total / result->rate;
        at[next_thread]++;
        int64_t from = next->start > reached ? next->start : reached;
        if (next->end > from) total += next->end - from;
        if (next->end > reached) reached = next->end;
    }
}

static int by_work(const void *a, const void *b) {
    const fe_profile_row *x = a, *y = b;
    return (x->work_s < y->work_s) - (x->work_s > y->work_s);
}

static int by_layer(const void *a, const void *b) {
    const fe_profile_row *x = a, *y = b;
    return (x->layer > y->layer) - (x->layer < y->layer);
}

static void add_up(fe_profile_result *result, fe_profile_phase *phase) {
    phase->wall_s = (double)(phase->end - phase->start) / result->rate;
    for (int i = 0; i < result->threads; i++) add_thread(result, phase, i);
    phase->idle_s = phase->wall_s - covered(result, phase);
    if (phase->ops.count) qsort(phase->ops.rows, (size_t)phase->ops.count, sizeof *phase->ops.rows, by_work);
    if (phase->layers.count)
        qsort(phase->layers.rows, (size_t)phase->layers.count, sizeof *phase->layers.rows, by_layer);
}

/* ---- running ---- */

typedef struct runner {
    const fe_profile_request *request;
    fe_profile_result *result;
    int32_t *tokens, *plain_tokens; /* [predict] */
    double *seconds[2][FE_PHASES];  /* plain, profiled: per repetition */
} runner;

static void mark(const fe_profile_result *result, int64_t *at) {
    for (int i = 0; result->events && i < result->threads; i++) rt_profile_events(result->events, i, &at[i]);
}

/* One run of the prompt and the tokens after it; seconds of each phase. It begins when the threads of the other program
 * have stopped spinning for work. */
static gm_status run_once(runner *r, rt_session *session, int32_t *tokens, double *seconds, gm_diag *diag) {
    const fe_profile_request *request = r->request;
    fe_profile_phase *phases = r->result->phases;
    rt_sampling greedy = {.top_p = 1, .repeat_penalty = 1};
    int64_t count = 0;
    rt_stop stop;
    rt_session_reset(session);
    nanosleep(&(struct timespec){.tv_nsec = REST_NANOSECONDS}, NULL);
    mark(r->result, phases[0].from);
    phases[0].start = rt_ticks();
    double start = gm_now();
    GM_TRY(rt_session_prefill(session, request->ids, request->id_count, diag));
    seconds[0] = gm_now() - start;
    phases[0].end = rt_ticks();
    mark(r->result, phases[0].to);
    mark(r->result, phases[1].from);
    phases[1].start = rt_ticks();
    start = gm_now();
    if (request->predict)
        GM_TRY(
            rt_session_generate(session, &greedy, NULL, 0, request->predict, NULL, NULL, tokens, &count, &stop, diag));
    seconds[1] = gm_now() - start;
    phases[1].end = rt_ticks();
    mark(r->result, phases[1].to);
    if (count == request->predict) return GM_OK;
    return gm_fail(diag, GM_INTERNAL, "%lld tokens generated, expected %lld", (long long)count,
                   (long long)request->predict);
}

/* Room for exactly the events of this run, which a warm-up without room has counted. */
static gm_status open_events(runner *r, gm_diag *diag) {
    fe_profile_result *result = r->result;
    double seconds[FE_PHASES];
    int64_t most = 0;
    rt_profile *counter;
    GM_TRY(rt_profile_open(result->threads, 0, diag, &counter));
    rt_session_profile(result->engine.session, counter);
    gm_status status = run_once(r, result->engine.session, r->tokens, seconds, diag);
    for (int i = 0; i < result->threads; i++)
        if (rt_profile_dropped(counter, i) > most) most = rt_profile_dropped(counter, i);
    rt_session_profile(result->engine.session, NULL);
    rt_profile_close(counter);
    GM_TRY(status);
    most += SPARE_EVENTS;
    GM_TRY(rt_profile_open(result->threads, most < MAX_EVENTS ? most : MAX_EVENTS, diag, &result->events));
    rt_session_profile(result->engine.session, result->events);
    return GM_OK;
}

static gm_status run_rounds(runner *r, rt_session *plain, gm_diag *diag) {
    fe_profile_result *result = r->result;
    double seconds[FE_PHASES];
    GM_TRY(run_once(r, plain, r->plain_tokens, seconds, diag));
    GM_TRY(open_events(r, diag));
    result->same_tokens = true;
    for (int64_t i = 0; i < r->request->repetitions; i++) {
        for (int which = 0; which < 2; which++) {
            rt_profile_reset(result->events);
            GM_TRY(run_once(r, which ? result->engine.session : plain, which ? r->tokens : r->plain_tokens, seconds,
                            diag));
            for (int p = 0; p < FE_PHASES; p++) r->seconds[which][p][i] = seconds[p];
        }
        size_t bytes = sizeof *r->tokens * (size_t)r->request->predict;
        if (memcmp(r->tokens, r->plain_tokens, bytes) != 0) result->same_tokens = false;
    }
    return GM_OK;
}

static fe_speed speed_of(const double *seconds, int64_t n, int64_t tokens) {
    double *speeds = malloc(sizeof *speeds * (size_t)n);
    GM_ASSERT(speeds);
    for (int64_t i = 0; i < n; i++) speeds[i] = seconds[i] > 0 ? (double)tokens / seconds[i] : 0;
    fe_speed speed = {fe_mean(speeds, n), fe_std(speeds, n)};
    free(speeds);
    return speed;
}

static void finish(runner *r) {
    static const char *const names[FE_PHASES] = {"prefill", "decode"};
    fe_profile_result *result = r->result;
    const int64_t tokens[FE_PHASES] = {r->request->id_count, r->request->predict};
    result->rate = rt_profile_rate(result->events);
    result->ops = profiled_ops(result->engine.module, &result->arena, &result->op_count);
    for (int i = 0; i < result->threads; i++) result->dropped += rt_profile_dropped(result->events, i);
    for (int p = 0; p < FE_PHASES; p++) {
        result->phases[p].name = names[p];
        result->phases[p].tokens = tokens[p];
        result->plain[p] = speed_of(r->seconds[0][p], r->request->repetitions, tokens[p]);
        result->profiled[p] = speed_of(r->seconds[1][p], r->request->repetitions, tokens[p]);
        result->overhead[p] = fe_paired_effect(r->seconds[1][p], r->seconds[0][p], r->request->repetitions);
        add_up(result, &result->phases[p]);
    }
}

static gm_status run_both(runner *r, fe_engine *plain, gm_diag *diag) {
    fe_options options = r->request->options;
    GM_TRY(fe_engine_open(r->request->path, &options, diag, plain));
    int64_t context = rt_session_context(plain->session), room = r->request->id_count + r->request->predict;
    if (context < room)
        return gm_fail(diag, GM_INVALID,
                       "%s: a context of %lld is too small: prompt and tokens need at least %lld (see -c)",
                       r->request->path, (long long)context, (long long)room);
    options.profile = true;
    GM_TRY(fe_engine_open(r->request->path, &options, diag, &r->result->engine));
    r->result->threads = rt_session_threads(r->result->engine.session);
    GM_TRY(run_rounds(r, plain->session, diag));
    finish(r);
    return GM_OK;
}

gm_status fe_profile_run(const fe_profile_request *request, gm_diag *diag, fe_profile_result *out) {
    fe_engine plain = {0};
    *out = (fe_profile_result){.threads = 0};
    runner r = {.request = request, .result = out};
    r.tokens = GM_NEW_ARRAY(&out->arena, int32_t, request->predict + 1);
    r.plain_tokens = GM_NEW_ARRAY(&out->arena, int32_t, request->predict + 1);
    for (int i = 0; i < 2; i++)
        for (int p = 0; p < FE_PHASES; p++) r.seconds[i][p] = GM_NEW_ARRAY(&out->arena, double, request->repetitions);
    gm_status status = run_both(&r, &plain, diag);
    fe_engine_close(&plain);
    rt_session_close(out->engine.session); /* what it held must not be there when the machine is probed */
    out->engine.session = NULL;
    if (status == GM_OK && request->probe)
        status = rt_probe_run(request->options.threads, ir_cost_products(out->engine.module), diag, &out->probe);
    return status;
}

void fe_profile_free(fe_profile_result *result) {
    for (int p = 0; p < FE_PHASES; p++) {
        free(result->phases[p].ops.rows);
        free(result->phases[p].layers.rows);
    }
    fe_engine_close(&result->engine);
    rt_profile_close(result->events);
    gm_arena_free(&result->arena);
    *result = (fe_profile_result){.threads = 0};
}
