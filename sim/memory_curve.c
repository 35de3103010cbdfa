/* How much each rank holds over time: the walk of memory.c once more, with the times of a trace.
 *
 * A point for each start that takes memory and each end that gives some back, in the order in which
 * the rank does them; several may have one time. The largest point of a rank is its peak. What is
 * there for the whole step is in all of them, the first of which is at time 0. */
#include "sim/memory_internal.h"

#include <string.h>

typedef struct curve {
    const pp_sim_input *input;
    const pp_schedule *schedule;
    pp_effect *effects; /* [stages][PP_EFFECT_ROWS] */
    bool *recomputed;   /* [stages][units] has an R */
    const int *input_slots, *gradient_slots;
    pp_trace_point *points;
    size_t count;
    int rank;
    int64_t bytes;
} curve;

static bool *recomputed_at(const curve *c, pp_action action) {
    return &c->recomputed[action.stage * pp_stage_units(c->schedule) +
                          pp_unit_in_stage(c->schedule, action)];
}

static const pp_effect *effect_of(const curve *c, pp_action action) {
    bool later = action.kind == PP_FORWARD && *recomputed_at(c, action);
    return &c->effects[action.stage * PP_EFFECT_ROWS + (later ? PP_F_RECOMPUTED : action.kind)];
}

static void change(curve *c, double time_s, int64_t bytes) {
    if (bytes == 0) return;
    c->bytes += bytes;
    c->points[c->count++] = (pp_trace_point){time_s, c->bytes, c->rank};
}

/* One action, or an overlapped pair: all parts start, then all end. */
static void follow(curve *c, const pp_span *spans, int parts) {
    int64_t rise = 0, fall = 0;
    for (int part = 0; part < parts; part++) {
        const pp_effect *effect = effect_of(c, spans[part].action);
        rise += effect->held_rise;
        fall += effect->held_fall;
    }
    change(c, spans[0].start_s, rise);
    change(c, spans[parts - 1].end_s, -fall);
}

/* Stages of a rank into list; returns how many. */
static int stages_of(const pp_schedule *schedule, int rank, int *list) {
    int count = 0;
    for (int s = 0; s < schedule->stages; s++)
        if (schedule->placement[s] == rank) list[count++] = s;
    return count;
}

static void follow_rank(curve *c, const pp_trace *trace, size_t *at, int *stages) {
    pp_peak_bytes constant;
    int count = stages_of(c->schedule, c->rank, stages);
    if (!pp_memory_constant(c->input, stages, count, c->input_slots, c->gradient_slots, &constant))
        constant.total = 0; /* has been refused before */
    c->bytes = constant.total;
    c->points[c->count++] = (pp_trace_point){0, c->bytes, c->rank};
    for (; *at < trace->span_count && trace->spans[*at].rank == c->rank; ++*at) {
        const pp_span *span = &trace->spans[*at];
        if (span->lane != PP_LANE_COMPUTE || span->action.kind >= PP_COMPUTE_KINDS) continue;
        bool pair = span->action.overlapped;
        follow(c, span, pair ? 2 : 1);
        *at += pair;
    }
}

static size_t most_points(const pp_trace *trace) {
    size_t count = (size_t)trace->ranks;
    for (size_t i = 0; i < trace->span_count; i++)
        if (trace->spans[i].lane == PP_LANE_COMPUTE) count += 2;
    return count;
}

static void find_recomputed(curve *c, const pp_trace *trace) {
    for (size_t i = 0; i < trace->span_count; i++)
        if (trace->spans[i].action.kind == PP_RECOMPUTE)
            *recomputed_at(c, trace->spans[i].action) = true;
}

pp_status pp_memory_curves(const pp_sim_input *input, const int *input_slots,
                           const int *gradient_slots, pp_trace *trace, pp_error *error) {
    const pp_schedule *schedule = input->schedule;
    size_t stages = (size_t)schedule->stages;
    pp_arena work;
    pp_arena_init(&work);
    curve c = {.input = input,
               .schedule = schedule,
               .input_slots = input_slots,
               .gradient_slots = gradient_slots,
               .effects = PP_NEW(&work, pp_effect, stages * PP_EFFECT_ROWS),
               .recomputed = PP_NEW(&work, bool, stages *pp_stage_units(schedule)),
               .points = PP_NEW(&trace->arena, pp_trace_point, most_points(trace))};
    int *list = PP_NEW(&work, int, stages);
    bool failed = work.failed || trace->arena.failed;
    if (!failed) {
        size_t at = 0;
        for (size_t s = 0; s < stages; s++)
            pp_memory_effects(&input->bytes[s], schedule->slices, &c.effects[s * PP_EFFECT_ROWS]);
        find_recomputed(&c, trace);
        for (c.rank = 0; c.rank < schedule->ranks; c.rank++) follow_rank(&c, trace, &at, list);
        trace->points = c.points;
        trace->point_count = c.count;
    }
    pp_arena_deinit(&work);
    return failed ? pp_fail_memory(error) : PP_OK;
}
