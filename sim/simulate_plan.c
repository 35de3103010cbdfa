/* From a plan to a simulation: its expanded schedule, its stages' times and bytes, and the links
 * between the devices of its ranks.
 *
 * Replicas and the devices of a tensor-parallel group work alike, so the first of each stands for
 * all. A border between two ranks costs the latency of the link and holds the lane between them for
 * bytes / bandwidth. Stages that share tied weights reduce their gradients together. */
#include "sim/engine_internal.h"

#include <math.h>
#include <stdio.h>

/* Device of the first replica of a rank. */
static int device_of(const pp_plan *plan, int rank) {
    return plan->devices[(size_t)rank * (size_t)plan->dp * (size_t)plan->tp];
}

static double occupancy(double bytes, const pp_link *link) {
    if (bytes <= 0 || isinf(link->bandwidth_bytes_per_s)) return 0;
    return bytes / link->bandwidth_bytes_per_s;
}

/* The border behind stage s of a chain, to stage s + 1. */
static pp_border_cost border_of(const pp_plan *plan, int s) {
    int from = device_of(plan, plan->placement[s]), to = device_of(plan, plan->placement[s + 1]);
    if (from == to) return (pp_border_cost){0};
    double bytes = (double)pp_plan_border_bytes(plan, s);
    pp_link forward = pp_cluster_link(plan->cluster, from, to);
    pp_link backward = pp_cluster_link(plan->cluster, to, from);
    return (pp_border_cost){.latency_s = fmax(forward.latency_s, backward.latency_s),
                            .forward_occupancy_s = occupancy(bytes, &forward),
                            .backward_occupancy_s = occupancy(bytes, &backward)};
}

/* Fills the arrays of an input from the plan. */
static pp_status take_stages(const pp_plan *plan, pp_sim_input *input, pp_arena *arena,
                             pp_error *error) {
    int stages = plan->stage_count;
    pp_stage_cost *cost = PP_NEW(arena, pp_stage_cost, stages);
    pp_border_cost *border = PP_NEW(arena, pp_border_cost, stages);
    pp_stage_bytes *bytes = PP_NEW(arena, pp_stage_bytes, stages);
    int *group = PP_NEW(arena, int, stages);
    if (arena->failed) return pp_fail_memory(error);
    for (int s = 0; s < stages; s++) {
        const pp_stage *stage = &plan->stages[s];
        cost[s] = (pp_stage_cost){.forward_s = stage->forward_s,
                                  .input_s = stage->input_s,
                                  .weight_s = stage->weight_s,
                                  .recompute_s = stage->recompute_s,
                                  .reduce_s = stage->reduce_s,
                                  .optimizer_s = stage->optimizer_s};
        bytes[s] = stage->bytes;
        if (s + 1 < stages) border[s] = border_of(plan, s);
    }
    PP_TRY(pp_plan_reduce_groups(plan, group, error));
    input->stage = cost;
    input->border = border;
    input->bytes = bytes;
    input->reduce_group = group;
    input->blocking = plan->blocking;
    input->last_microbatch_scale = plan->last_microbatch_scale;
    return PP_OK;
}

pp_status pp_simulate_plan(const pp_plan *plan, bool keep_spans, pp_schedule **schedule,
                           pp_sim_result **result, pp_error *error) {
    *result = NULL;
    if (schedule) *schedule = NULL;
    pp_schedule *expanded;
    PP_TRY(pp_plan_expand(plan, &expanded, error));
    pp_arena arena;
    pp_arena_init(&arena);
    pp_sim_input input = {.schedule = expanded, .keep_spans = keep_spans};
    pp_status status = take_stages(plan, &input, &arena, error);
    if (status == PP_OK) status = pp_simulate(&input, result, error);
    if (status == PP_OK && keep_spans)
        snprintf((*result)->trace->title, sizeof(*result)->trace->title, "%.60s on %.60s",
                 plan->model->name, plan->cluster->name);
    pp_arena_deinit(&arena);
    if (status == PP_OK && schedule)
        *schedule = expanded;
    else
        pp_schedule_free(expanded);
    return status;
}
