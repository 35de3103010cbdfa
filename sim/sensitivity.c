/* What the step time depends on: each cost is made a hundredth larger, then a hundredth smaller,
 * all else equal, and the step is timed again.
 *
 * Simulating is chosen over adding up durations along the critical path, since in a balanced
 * pipeline there are many critical paths: a cost on any of them makes the step longer, but only one
 * on all of them makes it shorter. That is why the two directions are told apart. */
#include "sim/engine_internal.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const double hundredth = 0.01;

typedef struct trial {
    pp_sim_input input; /* over the copies below */
    pp_stage_cost *stage;
    pp_border_cost *border;
    double makespan_s; /* of the costs as they are */
} trial;

static pp_status time_step(const pp_sim_input *input, double *makespan_s, pp_error *error) {
    pp_sim_result *result;
    PP_TRY(pp_simulate(input, &result, error));
    *makespan_s = result->makespan_s;
    pp_sim_result_free(result);
    return PP_OK;
}

/* A cost, and the part of it that changes. */
typedef struct part {
    double *cost, share;
} part;

#define PARTS_MAX 16

/* Changes `count` parts together, at most PARTS_MAX. */
static pp_status try_change(const trial *t, const part *parts, int count, pp_change *change,
                            pp_error *error) {
    double kept[PARTS_MAX], made_s = 0, *const to[2] = {&change->slower_s, &change->faster_s};
    bool nothing = true;
    for (int i = 0; i < count; i++) {
        kept[i] = *parts[i].cost;
        nothing = nothing && kept[i] * parts[i].share == 0;
    }
    *change = (pp_change){0, 0};
    for (int direction = 0; !nothing && direction < 2; direction++) {
        double grown = direction == 0 ? hundredth : -hundredth;
        for (int i = 0; i < count; i++) *parts[i].cost = kept[i] * (1 + grown * parts[i].share);
        pp_status status = time_step(&t->input, &made_s, error);
        for (int i = 0; i < count; i++) *parts[i].cost = kept[i];
        if (status != PP_OK) return status;
        *to[direction] = made_s - t->makespan_s;
    }
    return PP_OK;
}

static pp_status try_stage(const trial *t, int s, pp_sensitivity *made, pp_error *error) {
    pp_stage_cost *cost = &t->stage[s];
    const part forward[] = {{&cost->forward_s, 1}, {&cost->forward_tilt_s, 1}};
    const part input[] = {{&cost->input_s, 1}, {&cost->input_tilt_s, 1}};
    PP_TRY(try_change(t, forward, 2, &made->forward[s], error));
    PP_TRY(try_change(t, input, 2, &made->input[s], error));
    PP_TRY(try_change(t, &(part){&cost->weight_s, 1}, 1, &made->weight[s], error));
    if (!t->border) return PP_OK;
    pp_border_cost *border = &t->border[s];
    const part of_border[] = {{&border->latency_s, 1},
                              {&border->forward_occupancy_s, 1},
                              {&border->backward_occupancy_s, 1}};
    return try_change(t, of_border, 3, &made->border[s], error);
}

/* From the slope to another number of microbatches. */
static pp_status try_microbatches(const trial *t, const pp_schedule *other, double *change_s,
                                  pp_error *error) {
    *change_s = NAN;
    if (!other) return PP_OK;
    const pp_schedule *schedule = t->input.schedule;
    double here = (double)pp_schedule_all_microbatches(schedule);
    double there = (double)pp_schedule_all_microbatches(other);
    if (other->stages != schedule->stages || other->ranks != schedule->ranks || here == there)
        return pp_fail(error, PP_E_INPUT, other->name,
                       "the schedule to compare with must have as many ranks and stages, and "
                       "another number of microbatches");
    double made_s;
    pp_sim_input input = t->input;
    input.schedule = other;
    PP_TRY(time_step(&input, &made_s, error));
    *change_s = (made_s - t->makespan_s) / (there - here) * here * hundredth;
    return PP_OK;
}

static pp_status measure(trial *t, const pp_schedule *other, pp_sensitivity *made,
                         pp_error *error) {
    int stages = t->input.schedule->stages;
    made->forward = PP_NEW(&made->arena, pp_change, stages);
    made->input = PP_NEW(&made->arena, pp_change, stages);
    made->weight = PP_NEW(&made->arena, pp_change, stages);
    made->border = PP_NEW(&made->arena, pp_change, stages);
    if (made->arena.failed) return pp_fail_memory(error);
    PP_TRY(time_step(&t->input, &t->makespan_s, error));
    made->makespan_s = t->makespan_s;
    for (int s = 0; s < stages; s++) PP_TRY(try_stage(t, s, made, error));
    return try_microbatches(t, other, &made->microbatches_s, error);
}

/* Copies of the costs, to be changed. */
static pp_status trial_init(trial *t, const pp_sim_input *input, pp_arena *arena, pp_error *error) {
    size_t stages = (size_t)input->schedule->stages;
    *t = (trial){.input = *input, .stage = PP_NEW(arena, pp_stage_cost, stages)};
    if (input->border) t->border = PP_NEW(arena, pp_border_cost, stages);
    if (arena->failed) return pp_fail_memory(error);
    memcpy(t->stage, input->stage, stages * sizeof *t->stage);
    if (t->border) memcpy(t->border, input->border, stages * sizeof *t->border);
    t->input.stage = t->stage;
    t->input.border = t->border;
    t->input.bytes = NULL;
    t->input.keep_spans = false;
    return PP_OK;
}

/* Fills the parts of the layer at `share`; returns how many stages have it. */
static int parts_of_layer(const trial *t, const pp_stage_share *share, const pp_stage_share *end,
                          part *parts, int *count) {
    int stages = 0;
    *count = 0;
    for (const pp_stage_share *at = share; at < end && at->layer == share->layer; at++, stages++) {
        pp_stage_cost *cost = &t->stage[at->stage];
        const part of_stage[] = {
            {&cost->forward_s, at->forward},    {&cost->forward_tilt_s, at->forward},
            {&cost->input_s, at->input},        {&cost->input_tilt_s, at->input},
            {&cost->weight_s, at->weight},      {&cost->recompute_s, at->recompute},
            {&cost->optimizer_s, at->optimizer}};
        for (size_t i = 0; i < sizeof of_stage / sizeof *of_stage && *count < PARTS_MAX; i++)
            parts[(*count)++] = of_stage[i];
    }
    return stages;
}

pp_status pp_measure_layers(const pp_sim_input *input, const pp_stage_share *shares,
                            int share_count, pp_change *changes, pp_error *error) {
    PP_TRY(pp_sim_input_check(input, error));
    pp_arena work;
    pp_arena_init(&work);
    trial t;
    pp_status status = trial_init(&t, input, &work, error);
    if (status == PP_OK) status = time_step(&t.input, &t.makespan_s, error);
    const pp_stage_share *end = shares + share_count;
    for (const pp_stage_share *at = shares; status == PP_OK && at < end;) {
        part parts[PARTS_MAX];
        int count, layer = at->layer;
        at += parts_of_layer(&t, at, end, parts, &count);
        status = try_change(&t, parts, count, &changes[layer], error);
    }
    pp_arena_deinit(&work);
    return status;
}

pp_status pp_measure_sensitivity(const pp_sim_input *input, const pp_schedule *other,
                                 pp_sensitivity **result, pp_error *error) {
    *result = NULL;
    PP_TRY(pp_sim_input_check(input, error));
    pp_sensitivity *made = pp_allocate_zeroed(1, sizeof *made);
    if (!made) return pp_fail_memory(error);
    pp_arena work;
    pp_arena_init(&work);
    pp_arena_init(&made->arena);
    trial t;
    pp_status status = trial_init(&t, input, &work, error);
    if (status == PP_OK) status = measure(&t, other, made, error);
    pp_arena_deinit(&work);
    if (status == PP_OK)
        *result = made;
    else
        pp_sensitivity_free(made);
    return status;
}

void pp_sensitivity_free(pp_sensitivity *sensitivity) {
    if (!sensitivity) return;
    pp_arena_deinit(&sensitivity->arena);
    pp_free(sensitivity);
}
