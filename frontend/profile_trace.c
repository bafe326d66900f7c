/* A profiled run's events as a trace that Perfetto shows. */
#include "frontend/profile.h"

static double microseconds(const fe_profile_result *result, int64_t ticks) {
    return (double)ticks / result->rate * 1e6;
}

static void trace_event(const fe_profile_result *result, int thread, const char *phase, const rt_event *event,
                        gm_string *out) {
    bool waits = event->kind == RT_EVENT_WAIT;
    const fe_op *op = event->inst >= 0 ? &result->ops[event->inst] : NULL;
    double start = microseconds(result, event->start - result->phases[0].start),
           length = microseconds(result, event->end - event->start);
    gm_string_printf(out, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.4f,\"dur\":%.4f,", thread, start, length);
    if (waits) gm_string_printf(out, "\"name\":\"barrier\",\"cat\":\"wait\",\"args\":{");
    else gm_string_printf(out, "\"name\":\"%s %s\",\"cat\":\"%s\",\"args\":{", op->op, op->name, op->op);
    gm_string_printf(out, "\"phase\":\"%s\"", phase);
    if (op) gm_string_printf(out, ",\"func\":\"%s\",\"value\":\"%s\"", op->func, op->name);
    if (op && op->layer >= 0) gm_string_printf(out, ",\"layer\":%d", op->layer);
    if (!waits) {
        fe_op_call call = fe_profile_call(result, event);
        gm_string_printf(out, ",\"shape\":\"%s\"", call.shape);
        if (event->kind == RT_EVENT_OP) /* what comes after a wait is part of the same call */
            gm_string_printf(out, ",\"bytes\":%.0f,\"flop\":%.0f", call.cost.read + call.cost.written, call.cost.flop);
    }
    gm_string_printf(out, "}}");
}

void fe_profile_trace(const fe_profile_result *result, gm_string *out) {
    gm_string_printf(out,
                     "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
                     "{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":\"gemmac\"}}");
    for (int i = 0; i < result->threads; i++) {
        int64_t count;
        const rt_event *events = rt_profile_events(result->events, i, &count);
        gm_string_printf(
            out, ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"thread %d\"}}", i,
            i);
        for (int p = 0; p < FE_PHASES; p++)
            for (int64_t k = result->phases[p].from[i]; k < result->phases[p].to[i]; k++)
                trace_event(result, i, result->phases[p].name, &events[k], out);
    }
    gm_string_printf(out, "\n]}\n");
}
