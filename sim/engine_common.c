/* What all engines need: durations, what an action sends where, and the few
 * actions whose times a result names. */
#include "sim/engine_internal.h"

#include <math.h>

pp_status pp_stages_by_rank(const pp_schedule *schedule, pp_arena *arena, const int **first,
                            const int **stages, pp_error *error) {
    int *begin = PP_NEW(arena, int, schedule->ranks + 2);
    int *list = PP_NEW(arena, int, schedule->stages);
    if (arena->failed) return pp_fail_memory(error);
    for (int s = 0; s < schedule->stages; s++) begin[schedule->placement[s] + 2]++;
    for (int p = 0; p < schedule->ranks; p++) begin[p + 2] += begin[p + 1];
    for (int s = 0; s < schedule->stages; s++) list[begin[schedule->placement[s] + 1]++] = s;
    *first = begin;
    *stages = list;
    return PP_OK;
}

void pp_chain_links(const pp_schedule *schedule, int *previous, int *next) {
    for (int s = 0; s < schedule->stages; s++) previous[s] = next[s] = -1;
    for (int c = 0; c < schedule->chain_count; c++)
        for (int s = schedule->chains[c].first; s < schedule->chains[c].last; s++) {
            next[s] = s + 1;
            previous[s + 1] = s;
        }
}

/* ---- durations ----------------------------------------------------------------------------- */

/* Of a whole microbatch. */
static double kind_duration(const pp_stage_cost *cost, pp_action_kind kind) {
    switch (kind) {
    case PP_FORWARD:
        return cost->forward_s;
    case PP_BACKWARD:
        return cost->input_s + cost->weight_s;
    case PP_INPUT:
        return cost->input_s;
    case PP_WEIGHT:
        return cost->weight_s;
    case PP_RECOMPUTE:
        return cost->recompute_s;
    case PP_REDUCE_GRAD:
        return cost->reduce_s;
    case PP_STEP:
        return cost->optimizer_s;
    default:
        return 0;
    }
}

double pp_slice_duration(const pp_sim_input *input, int stage, pp_action_kind kind) {
    const pp_stage_cost *cost = &input->stage[stage];
    double duration_s = kind_duration(cost, kind);
    if (kind < PP_COMPUTE_KINDS) return duration_s / input->schedule->slices;
    if (kind != PP_REDUCE_GRAD || input->reduce_buckets == 0) return duration_s;
    return fmax(0, duration_s - cost->reduce_transfer_s - cost->tie_transfer_s);
}

double pp_bucket_duration(const pp_sim_input *input, int stage) {
    const pp_stage_cost *cost = &input->stage[stage];
    double bytes_s = cost->reduce_transfer_s - cost->reduce_latency_s;
    return cost->reduce_latency_s + bytes_s / input->reduce_buckets;
}

/* How much longer the last slice takes than the first. */
static double tilt_of(const pp_stage_cost *cost, pp_action_kind kind) {
    if (kind == PP_FORWARD || kind == PP_RECOMPUTE) return cost->forward_tilt_s;
    return kind == PP_BACKWARD || kind == PP_INPUT ? cost->input_tilt_s : 0;
}

double pp_least_slice_duration(const pp_sim_input *input, int stage, pp_action_kind kind) {
    double mean_s = pp_slice_duration(input, stage, kind);
    return input->schedule->slices > 1 ? mean_s - tilt_of(&input->stage[stage], kind) / 2 : mean_s;
}

double pp_action_duration(const pp_sim_input *input, pp_action action) {
    double duration_s = pp_slice_duration(input, action.stage, action.kind);
    int last = input->schedule->slices - 1;
    if (last > 0)
        duration_s +=
            tilt_of(&input->stage[action.stage], action.kind) * ((double)action.slice / last - 0.5);
    bool scaled = input->last_microbatch_scale > 0 && pp_is_last(input->schedule, action);
    if (scaled) duration_s *= input->last_microbatch_scale;
    return pp_durations_vary(input) ? duration_s * pp_draw_factor(input, action) : duration_s;
}

pp_pair_duration pp_pair_time(const pp_sim_input *input, pp_action first, pp_action second) {
    double factor = input->overlap_factor > 0 ? input->overlap_factor : 1;
    double first_s = pp_action_duration(input, first);
    return (pp_pair_duration){first_s * factor,
                              (first_s + pp_action_duration(input, second)) * factor};
}

/* ---- transfers ----------------------------------------------------------------------------- */

pp_sending pp_action_sending(const pp_sim_input *input, const int *previous, const int *next,
                             int stage, pp_action_kind kind) {
    const int *placement = input->schedule->placement;
    pp_sending none = {-1, 0, 0};
    bool forward = kind == PP_FORWARD, backward = kind == PP_BACKWARD || kind == PP_INPUT;
    int to = forward ? next[stage] : backward ? previous[stage] : -1;
    if (to < 0 || placement[to] == placement[stage]) return none;
    if (!input->border) return (pp_sending){placement[to], 0, 0};
    const pp_border_cost *border = &input->border[forward ? stage : to];
    double whole_s = forward ? border->forward_occupancy_s : border->backward_occupancy_s;
    return (pp_sending){placement[to], border->latency_s, whole_s / input->schedule->slices};
}

pp_sending pp_action_transfer(const pp_run *run, pp_action action) {
    pp_sending sending =
        pp_action_sending(run->input, run->previous, run->next, action.stage, action.kind);
    double factor = pp_transfer_factor(run->input, action);
    sending.latency_s *= factor;
    sending.occupancy_s *= factor;
    return sending;
}

/* ---- observations -------------------------------------------------------------------------- */

int32_t pp_run_observe(pp_run *run, int rank, size_t index, double start_s, double end_s) {
    pp_rank_times *times = &run->times[rank];
    if (index == run->order[rank].peak_index) times->peak_time_s = start_s;
    pp_action action = run->schedule->actions[index];
    if (action.kind >= PP_COMPUTE_KINDS || (!run->reduction && !run->sent)) return -1;
    if (run->stage_order[action.stage].last_use != index) return -1;
    return pp_reduction_end_stage(run, rank, index, start_s, end_s);
}
