/* How much of a step's steady phase all ranks compute at once: from the last rank's first backward
 * to the first rank's last forward. usage: trace_overlap TRACE.json */
#include "core/core.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct edge {
    double time_s;
    int change;
} edge;

static int compare_edges(const void *left, const void *right) {
    const edge *a = left, *b = right;
    if (a->time_s != b->time_s) return a->time_s > b->time_s ? 1 : -1;
    return a->change - b->change;
}

static bool is_backward(const pp_span *span) {
    return span->action.kind == PP_BACKWARD || span->action.kind == PP_INPUT;
}

/* Start and end of the steady phase. */
static void steady_phase(const pp_trace *trace, double *from_s, double *to_s) {
    *from_s = 0;
    *to_s = trace->makespan_s;
    for (int p = 0; p < trace->ranks; p++) {
        double first = INFINITY, last = 0;
        for (size_t i = 0; i < trace->span_count; i++) {
            const pp_span *span = &trace->spans[i];
            if (span->rank != p || span->lane != PP_LANE_COMPUTE) continue;
            if (is_backward(span) && span->start_s < first) first = span->start_s;
            if (span->action.kind == PP_FORWARD && span->end_s > last) last = span->end_s;
        }
        if (first > *from_s) *from_s = first;
        if (last < *to_s) *to_s = last;
    }
}

static double all_busy_s(const pp_trace *trace, double from_s, double to_s) {
    edge *edges = calloc(2 * trace->span_count + 1, sizeof *edges);
    size_t count = 0;
    double sum = 0, since = from_s;
    int busy = 0;
    for (size_t i = 0; edges && i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        if (span->lane != PP_LANE_COMPUTE || span->end_s <= from_s || span->start_s >= to_s)
            continue;
        edges[count++] = (edge){span->start_s > from_s ? span->start_s : from_s, 1};
        edges[count++] = (edge){span->end_s < to_s ? span->end_s : to_s, -1};
    }
    qsort(edges, count, sizeof *edges, compare_edges);
    for (size_t i = 0; i < count; i++) {
        if (busy >= trace->ranks) sum += edges[i].time_s - since;
        busy += edges[i].change;
        since = edges[i].time_s;
    }
    free(edges);
    return sum;
}

int main(int count, char **arguments) {
    pp_text text = {0};
    pp_trace *trace;
    pp_error error = {0};
    if (count != 2) {
        fprintf(stderr, "usage: trace_overlap TRACE.json\n");
        return 2;
    }
    if (pp_file_read(arguments[1], PP_FILE_LIMIT_BYTES, &text, &error) != PP_OK ||
        pp_trace_read(text.bytes, text.length, arguments[1], &trace, &error) != PP_OK) {
        fprintf(stderr, "trace_overlap: %s %s\n", error.place, error.message);
        return 2;
    }
    double from_s, to_s;
    steady_phase(trace, &from_s, &to_s);
    if (to_s > from_s)
        printf("%d ranks: all busy for %.1f %% of the steady phase of %.3f ms\n", trace->ranks,
               100 * all_busy_s(trace, from_s, to_s) / (to_s - from_s), 1e3 * (to_s - from_s));
    else
        printf("%d ranks: no steady phase\n", trace->ranks);
    pp_trace_free(trace);
    pp_text_deinit(&text);
    return 0;
}
