/* The bubble of the steady state: what a pipeline idles once it is full, for schedules that run on
 * without a flush. Filling and draining, which a long training does once, are left out. */
#include "sim/sim.h"

#include <math.h>

static bool is_backward(unsigned kind) {
    return kind == PP_BACKWARD || kind == PP_INPUT;
}

static bool takes_time(const pp_span *span) {
    unsigned kind = span->action.kind;
    return span->lane == PP_LANE_COMPUTE &&
           (kind <= PP_RECOMPUTE || kind == PP_REDUCE_GRAD || kind == PP_STEP);
}

typedef struct window {
    double from_s, to_s;
} window;

/* From the last rank's first backward to the first rank's last forward. */
static pp_status find_window(const pp_trace *trace, pp_arena *work, window *steady) {
    window *rank = PP_NEW(work, window, trace->ranks);
    if (!rank) return PP_E_OUT_OF_MEMORY;
    for (int p = 0; p < trace->ranks; p++) rank[p] = (window){INFINITY, -INFINITY};
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        window *own = &rank[span->rank];
        if (!takes_time(span)) continue;
        if (is_backward(span->action.kind)) own->from_s = fmin(own->from_s, span->start_s);
        if (span->action.kind == PP_FORWARD) own->to_s = fmax(own->to_s, span->end_s);
    }
    *steady = (window){0, INFINITY};
    for (int p = 0; p < trace->ranks; p++) {
        steady->from_s = fmax(steady->from_s, rank[p].from_s);
        steady->to_s = fmin(steady->to_s, rank[p].to_s);
    }
    return PP_OK;
}

/* Overlapped actions count once: each adds what ends later than all before it on its rank. */
static double busy_within(const pp_trace *trace, const window *steady, pp_arena *work) {
    double *until_s = PP_NEW(work, double, trace->ranks), busy_s = 0;
    if (!until_s) return NAN;
    for (int p = 0; p < trace->ranks; p++) until_s[p] = steady->from_s;
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        if (!takes_time(span)) continue;
        double start_s = fmax(span->start_s, until_s[span->rank]);
        double end_s = fmin(span->end_s, steady->to_s);
        if (end_s <= start_s) continue;
        busy_s += end_s - start_s;
        until_s[span->rank] = end_s;
    }
    return busy_s;
}

double pp_steady_bubble_fraction(const pp_sim_result *result) {
    const pp_trace *trace = result->trace;
    pp_arena work;
    window steady;
    double bubble = NAN;
    if (!trace) return NAN;
    pp_arena_init(&work);
    if (find_window(trace, &work, &steady) == PP_OK && steady.to_s > steady.from_s &&
        isfinite(steady.to_s)) {
        double idle =
            1 - busy_within(trace, &steady, &work) / (trace->ranks * (steady.to_s - steady.from_s));
        bubble = idle < 0 ? 0 : idle;
    }
    pp_arena_deinit(&work);
    return bubble;
}
