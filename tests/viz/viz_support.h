/* Traces for the tests of viz, made by hand: the orders of GPipe and 1F1B timed by a few lines that
 * know nothing of the simulator, with jitter where a measurement is to be imitated. */
#ifndef PPSIM_TESTS_VIZ_SUPPORT_H
#define PPSIM_TESTS_VIZ_SUPPORT_H

#include "viz/chart_internal.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct recipe {
    int ranks, microbatches;
    int chunks;     /* stages of a rank, loop placement, GPipe order only; 0: 1 */
    bool gpipe;     /* else 1F1B */
    bool split;     /* I and W instead of B, one right after the other */
    bool recompute; /* an R before each B */
    bool tail;      /* REDUCE_GRAD and STEP at the end */
    bool measured;
    bool curves;      /* memory over time */
    double forward_s; /* B takes twice that; 0: nothing takes any time */
    double transfer_s;
    double jitter; /* share of each duration */
    uint64_t seed;
} recipe;

/* What a trace is built from. */
typedef struct builder {
    recipe with;
    pp_span *spans;
    size_t count, capacity;
    double *free_s;                         /* [ranks] when each rank is free */
    double *forward_end_s, *backward_end_s; /* [stages × microbatches]; negative: not yet */
    uint64_t drawn;
} builder;

static inline int stage_total(const recipe *with) {
    return with->ranks * (with->chunks > 0 ? with->chunks : 1);
}

static inline void add_span(builder *b, int rank, pp_lane lane, pp_action_kind kind, int stage,
                            uint32_t microbatch, double start_s, double end_s) {
    if (b->count == b->capacity) {
        b->capacity = b->capacity ? 2 * b->capacity : 64;
        b->spans = realloc(b->spans, b->capacity * sizeof *b->spans);
        cr_assert(b->spans != NULL);
    }
    b->spans[b->count++] = (pp_span){.start_s = start_s,
                                     .end_s = end_s,
                                     .action = {.kind = (unsigned)kind & 127,
                                                .stage = (uint16_t)stage,
                                                .microbatch = microbatch},
                                     .rank = rank,
                                     .lane = (uint8_t)lane};
}

static inline double vary(builder *b, double duration_s) {
    pp_random_key key = pp_random_key_make(b->with.seed, "jitter", 0);
    return duration_s * (1 + b->with.jitter * pp_random_unit(key, b->drawn++));
}

/* Runs an action on its rank, not before `ready_s`; returns its end. */
static inline double work(builder *b, pp_action_kind kind, int stage, uint32_t m, double ready_s,
                          double duration_s) {
    int rank = stage % b->with.ranks;
    double start_s = fmax(ready_s, b->free_s[rank]);
    b->free_s[rank] = start_s + vary(b, duration_s);
    add_span(b, rank, PP_LANE_COMPUTE, kind, stage, m, start_s, b->free_s[rank]);
    return b->free_s[rank];
}

static inline double transfer(builder *b, pp_action_kind send, int from, int to, uint32_t m,
                              double start_s) {
    int a = from % b->with.ranks, z = to % b->with.ranks;
    if (a == z) return start_s;
    double end_s = start_s + vary(b, b->with.transfer_s);
    add_span(b, a, PP_LANE_SEND, send, from, m, start_s, end_s);
    add_span(b, z, PP_LANE_RECEIVE, send + 1, to, m, start_s, end_s);
    return end_s;
}

/* One forward or backward if what it needs is done. */
static inline bool try_forward(builder *b, int stage, int m) {
    int last = stage_total(&b->with), M = b->with.microbatches;
    double before_s = stage == 0 ? 0 : b->forward_end_s[(stage - 1) * M + m];
    if (before_s < 0) return false;
    if (stage > 0) before_s = transfer(b, PP_SEND_F, stage - 1, stage, (uint32_t)m, before_s);
    b->forward_end_s[stage * M + m] = work(b, PP_FORWARD, stage, (uint32_t)m, before_s,
                                           b->with.forward_s / (last / b->with.ranks));
    return true;
}

static inline bool try_backward(builder *b, int stage, int m) {
    int last = stage_total(&b->with), M = b->with.microbatches;
    double each_s = b->with.forward_s / (last / b->with.ranks);
    double before_s = stage == last - 1 ? b->forward_end_s[stage * M + m]
                                        : b->backward_end_s[(stage + 1) * M + m];
    if (before_s < 0) return false;
    if (stage < last - 1)
        before_s = transfer(b, PP_SEND_B, stage + 1, stage, (uint32_t)m, before_s);
    if (b->with.recompute) before_s = work(b, PP_RECOMPUTE, stage, (uint32_t)m, before_s, each_s);
    double *end_s = &b->backward_end_s[stage * M + m];
    if (!b->with.split) {
        *end_s = work(b, PP_BACKWARD, stage, (uint32_t)m, before_s, 2 * each_s);
    } else {
        *end_s = work(b, PP_INPUT, stage, (uint32_t)m, before_s, each_s);
        work(b, PP_WEIGHT, stage, (uint32_t)m, 0, each_s);
    }
    return true;
}

/* Action i of a rank: its stage and microbatch; true: forward. 2 · M · chunks in all. */
static inline bool order_at(const recipe *with, int rank, int i, int *stage, int *m) {
    int M = with->microbatches, chunks = with->chunks > 0 ? with->chunks : 1;
    if (with->gpipe || chunks > 1) {
        bool forward = i < M * chunks;
        int j = forward ? i : i - M * chunks, chunk = j / M;
        *stage = (forward ? chunk : chunks - 1 - chunk) * with->ranks + rank;
        *m = j % M;
        return forward;
    }
    int warm = with->ranks - 1 - rank < M ? with->ranks - 1 - rank : M;
    *stage = rank;
    if (i < warm) return *m = i, true;
    if (i >= 2 * M - warm) return *m = i - M, false;
    *m = (i - warm) % 2 == 0 ? warm + (i - warm) / 2 : (i - warm) / 2;
    return (i - warm) % 2 == 0;
}

static inline void run_order(builder *b) {
    const recipe *with = &b->with;
    int each = 2 * with->microbatches * (stage_total(with) / with->ranks);
    int *at = calloc((size_t)with->ranks, sizeof *at);
    for (bool moved = true; moved;) {
        moved = false;
        for (int p = 0; p < with->ranks; p++) {
            int stage, m;
            if (at[p] == each) continue;
            bool forward = order_at(with, p, at[p], &stage, &m);
            if (!(forward ? try_forward : try_backward)(b, stage, m)) continue;
            at[p]++;
            moved = true;
        }
    }
    for (int p = 0; p < with->ranks; p++) cr_assert_eq(at[p], each, "the maker of traces is stuck");
    free(at);
    for (int p = 0; p < with->ranks && with->tail; p++) {
        work(b, PP_REDUCE_GRAD, p, PP_NO_MICROBATCH, 0, 0.8 * with->forward_s);
        work(b, PP_STEP, p, PP_NO_MICROBATCH, 0, 1.5 * with->forward_s);
    }
}

static inline int by_place(const void *a_, const void *b_) {
    const pp_span *a = a_, *b = b_;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    if (a->lane != b->lane) return a->lane < b->lane ? -1 : 1;
    return (a->start_s > b->start_s) - (a->start_s < b->start_s);
}

/* Activations alive on each rank as a curve, 256 MiB each over 2 GiB of weights. */
static inline void add_curves(pp_trace *trace) {
    trace->points = PP_NEW(&trace->arena, pp_trace_point, trace->span_count + (size_t)trace->ranks);
    for (int p = 0; p < trace->ranks; p++) {
        int64_t bytes = (int64_t)2 << 30;
        trace->points[trace->point_count++] = (pp_trace_point){0, bytes, p};
        trace->rank[p].peak_bytes = bytes;
        for (size_t i = 0; i < trace->span_count; i++) {
            const pp_span *span = &trace->spans[i];
            bool opens = span->action.kind == PP_FORWARD;
            bool closes = span->action.kind == PP_BACKWARD || span->action.kind == PP_WEIGHT;
            if (span->rank != p || span->lane != PP_LANE_COMPUTE || !(opens || closes)) continue;
            bytes += opens ? 256 << 20 : -(256 << 20);
            trace->points[trace->point_count++] =
                (pp_trace_point){opens ? span->start_s : span->end_s, bytes, p};
            if (bytes > trace->rank[p].peak_bytes) trace->rank[p].peak_bytes = bytes;
        }
    }
}

static inline void sum_up(pp_trace *trace) {
    double busy_s = 0;
    for (size_t i = 0; i < trace->span_count; i++) {
        const pp_span *span = &trace->spans[i];
        trace->makespan_s = fmax(trace->makespan_s, span->end_s);
        if (span->lane != PP_LANE_COMPUTE) continue;
        trace->rank[span->rank].busy_s += span->end_s - span->start_s;
        busy_s += span->end_s - span->start_s;
    }
    trace->bubble_fraction =
        trace->makespan_s > 0 ? 1 - busy_s / (trace->ranks * trace->makespan_s) : 0;
}

static inline pp_trace *make_trace(recipe with) {
    size_t cells = (size_t)stage_total(&with) * (size_t)with.microbatches;
    builder b = {.with = with,
                 .free_s = calloc((size_t)with.ranks, sizeof(double)),
                 .forward_end_s = malloc(cells * sizeof(double)),
                 .backward_end_s = malloc(cells * sizeof(double))};
    for (size_t i = 0; i < cells; i++) b.forward_end_s[i] = b.backward_end_s[i] = -1;
    run_order(&b);
    pp_trace *trace;
    cr_assert_eq(pp_trace_new(with.ranks, b.count, &trace, NULL), PP_OK);
    memcpy(trace->spans, b.spans, b.count * sizeof *b.spans);
    trace->span_count = b.count;
    qsort(trace->spans, b.count, sizeof *trace->spans, by_place);
    snprintf(trace->title, sizeof trace->title, "gpt2-124m on %d devices", with.ranks);
    snprintf(trace->schedule, sizeof trace->schedule, "%s", with.gpipe ? "gpipe" : "1f1b");
    trace->measured = with.measured;
    trace->stages = stage_total(&with);
    trace->virtual_stages = trace->stages / with.ranks;
    trace->microbatches = with.microbatches;
    for (int p = 0; p < with.ranks; p++)
        trace->rank[p].peak_bytes = ((int64_t)20 << 30) / (p + 3) + 12345;
    sum_up(trace);
    if (with.curves) add_curves(trace);
    free(b.spans), free(b.free_s), free(b.forward_end_s), free(b.backward_end_s);
    return trace;
}

#endif
