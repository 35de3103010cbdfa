/* A trace made ready for drawing: checked once, so that everything behind may trust it, and indexed
 * by rank. Two or three passes over the spans.
 *
 * A trace does not say where its stages live, so this is read off the spans: a stage belongs to the
 * rank that ran it, and its chunk is the number of lower stages there. */
#include "viz/chart_internal.h"

#include <math.h>

enum { STAGE_LIMIT = 65536 };

static pp_status check_span(const pp_trace *trace, size_t i, pp_error *error) {
    const pp_span *span = &trace->spans[i];
    const pp_span *before = i > 0 ? span - 1 : NULL;
    if (!(fabs(span->start_s) <= VIZ_SECONDS_MAX && fabs(span->end_s) <= VIZ_SECONDS_MAX))
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "span %zu of the trace starts or ends at a time that is not a number of "
                       "seconds up to 1e15",
                       i);
    if (span->end_s < span->start_s)
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "span %zu of the trace ends before it starts", i);
    if (span->rank < 0 || span->rank >= trace->ranks)
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "span %zu of the trace is of rank %d, but ranks go from 0 to %d", i,
                       (int)span->rank, trace->ranks - 1);
    if (span->action.kind >= PP_ACTION_KIND_COUNT || span->lane > PP_LANE_RECEIVE)
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "span %zu of the trace is of an unknown kind or lane", i);
    if (before && (before->rank > span->rank ||
                   (before->rank == span->rank &&
                    (before->lane > span->lane ||
                     (before->lane == span->lane && before->start_s > span->start_s)))))
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "the spans of the trace must be sorted by rank, lane and start; span %zu is "
                       "out of order",
                       i);
    return PP_OK;
}

static pp_status check_trace(const pp_trace *trace, pp_error *error) {
    if (trace->ranks < 1 || trace->ranks > PP_RANKS_MAX)
        return pp_fail(error, PP_E_INPUT, trace->title, "the trace has %d ranks; expected 1 to %d",
                       trace->ranks, PP_RANKS_MAX);
    if (!(trace->makespan_s >= 0 && trace->makespan_s <= VIZ_SECONDS_MAX))
        return pp_fail(error, PP_E_INPUT, trace->title,
                       "the makespan of the trace is not a number of seconds up to 1e15");
    for (size_t i = 0; i < trace->span_count; i++) PP_TRY(check_span(trace, i, error));
    return PP_OK;
}

/* first[p]: how many spans lie before rank p's. */
static void index_ranks(viz_view *view) {
    const pp_trace *trace = view->trace;
    size_t i = 0;
    for (int p = 0; p <= trace->ranks; p++) {
        while (i < trace->span_count && trace->spans[i].rank < p) i++;
        view->first[p] = i;
    }
}

/* owner: [STAGE_LIMIT] the last rank that ran each stage, plus 1. */
static void number_chunks(viz_view *view, int *owner, uint16_t *stages_of_rank) {
    for (size_t i = 0; i < view->trace->span_count; i++) {
        const pp_span *span = &view->trace->spans[i];
        if (span->lane == PP_LANE_COMPUTE && pp_action_is_compute(span->action))
            owner[span->action.stage] = span->rank + 1;
    }
    view->chunks = 1;
    for (int s = 0; s < STAGE_LIMIT; s++) {
        if (owner[s] == 0) continue;
        view->chunk[s] = stages_of_rank[owner[s] - 1]++;
        if (view->chunk[s] >= view->chunks) view->chunks = view->chunk[s] + 1;
    }
}

static void add_up(viz_view *view) {
    const pp_trace *trace = view->trace;
    view->start_s = 0;
    view->end_s = trace->makespan_s;
    for (int p = 0; p < trace->ranks; p++) {
        double work_s = 0;
        for (size_t i = view->first[p]; i < view->first[p + 1]; i++) {
            const pp_span *span = &trace->spans[i];
            double duration_s = span->end_s - span->start_s;
            view->start_s = fmin(view->start_s, span->start_s);
            view->end_s = fmax(view->end_s, span->end_s);
            if (!(duration_s > 0)) continue;
            if (span->lane != PP_LANE_COMPUTE) {
                view->sent[span->action.kind] = true;
                continue;
            }
            view->count[span->action.kind]++;
            view->total_s[span->action.kind] += duration_s;
            if (pp_action_is_compute(span->action)) work_s += duration_s;
        }
        if (trace->microbatches > 0)
            view->period_s = fmax(view->period_s, work_s / trace->microbatches);
    }
}

pp_status viz_view_make(const pp_trace *trace, pp_arena *arena, viz_view *view, pp_error *error) {
    PP_TRY(check_trace(trace, error));
    *view = (viz_view){.trace = trace,
                       .first = PP_NEW(arena, size_t, trace->ranks + 1),
                       .chunk = PP_NEW(arena, uint16_t, STAGE_LIMIT)};
    int *owner = PP_NEW(arena, int, STAGE_LIMIT);
    uint16_t *stages_of_rank = PP_NEW(arena, uint16_t, trace->ranks);
    if (arena->failed) return pp_fail_memory(error);
    index_ranks(view);
    number_chunks(view, owner, stages_of_rank);
    add_up(view);
    return PP_OK;
}

size_t viz_view_spans(const viz_view *view) {
    size_t sum = 0;
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) sum += view->count[kind];
    return sum;
}

double viz_view_mean_s(const viz_view *view) {
    double sum = 0;
    size_t count = viz_view_spans(view);
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) sum += view->total_s[kind];
    return count > 0 ? sum / (double)count : 0;
}

bool viz_view_transfers(const viz_view *view) {
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++)
        if (view->sent[kind]) return true;
    return false;
}
