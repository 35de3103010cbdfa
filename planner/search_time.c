/* The step time of one split of the candidate in the workshop, as pp_simulate_plan would give it,
 * for a fraction of the effort: the expanded order is kept from split to split, links are looked up
 * once, and memory, which was settled before, is not followed again.
 *
 * Which stages reduce gradients, and which of them together, follows from the ties of their layers
 * as in sim's expand.c. Only that can change the order from one split to the next. The search's
 * result is simulated once more from the finished plan, and has to agree to the last bit. */
#include <math.h>

#include "planner/planner_internal.h"

pp_status pp_work_prepare_times(pp_work *work, pp_error *error) {
    const pp_terms *terms = &work->terms;
    pp_arena *arena = &work->arena;
    int stages = terms->copies;
    work->costs = PP_NEW(arena, pp_stage_cost, stages);
    work->borders = PP_NEW(arena, pp_border_cost, stages);
    work->links = PP_NEW(arena, pp_link, 2 * stages);
    work->groups = PP_NEW(arena, int, stages);
    if (arena->failed) return pp_fail_memory(error);
    for (int s = 0; s + 1 < stages; s++) {
        const pp_arrangement *a = terms->candidate->arrangement;
        int from = terms->placement[s], to = terms->placement[s + 1];
        if (from == to) continue; /* chains end and begin on one rank, too */
        work->links[2 * s] = pp_arrangement_link(a, work->tables->cluster, from, to);
        work->links[2 * s + 1] = pp_arrangement_link(a, work->tables->cluster, to, from);
    }
    return pp_plan_sim_cards(&work->plan, arena, &work->cards, error);
}

/* ---- ties ---------------------------------------------------------------------------------- */

static int stage_of(const pp_work *work, int layer) {
    int s = 0;
    while (work->plan.stages[s].last < layer) s++;
    return s;
}

static void merge(int *groups, int stages, int a, int b) {
    int low = groups[a] < groups[b] ? groups[a] : groups[b];
    int high = groups[a] < groups[b] ? groups[b] : groups[a];
    for (int s = 0; s < stages; s++) {
        if (groups[s] == high) groups[s] = low;
    }
}

/* groups[s]: the lowest stage that s shares weights with. Returns a hash of the stages that hold
 * tied layers. */
static uint64_t find_groups(pp_work *work) {
    const pp_tables *tables = work->tables;
    int stages = work->terms.copies;
    uint64_t hash = PP_HASH_START;
    for (int s = 0; s < stages; s++) work->groups[s] = s;
    for (int i = 0; i < tables->tied_count; i++) {
        int layer = tables->tied_layers[i], s = stage_of(work, layer);
        merge(work->groups, stages, stage_of(work, tables->tie[layer]), s);
        hash = pp_hash(hash, &s, sizeof s);
    }
    pp_plan_join_copies(&work->plan, work->groups);
    return hash;
}

/* The order with its gradient reductions, made again if they move to other stages. */
static pp_status expand(pp_work *work, pp_error *error) {
    uint64_t ties = find_groups(work);
    if (work->expanded != NULL && work->expanded_ties == ties) return PP_OK;
    pp_schedule_free(work->expanded);
    work->expanded = NULL;
    work->expanded_ties = ties;
    return pp_plan_expand(&work->plan, &work->expanded, error);
}

/* ---- timing -------------------------------------------------------------------------------- */

static double occupancy(double bytes, const pp_link *link) {
    if (bytes <= 0 || isinf(link->bandwidth_bytes_per_s)) return 0;
    return bytes / link->bandwidth_bytes_per_s;
}

static void fill_costs(pp_work *work) {
    const pp_terms *terms = &work->terms;
    for (int s = 0; s < terms->copies; s++) {
        const pp_stage *stage = &work->plan.stages[s];
        work->costs[s] = (pp_stage_cost){.forward_s = stage->forward_s,
                                         .input_s = pp_stage_input_s(stage),
                                         .weight_s = stage->weight_s,
                                         .forward_tilt_s = stage->forward_tilt_s,
                                         .input_tilt_s = stage->input_tilt_s,
                                         .recompute_s = stage->recompute_s,
                                         .reduce_s = stage->reduce_s,
                                         .optimizer_s = stage->optimizer_s};
        if (s + 1 == terms->copies || terms->placement[s] == terms->placement[s + 1]) continue;
        const pp_link *there = &work->links[2 * s], *back = &work->links[2 * s + 1];
        double bytes = (double)terms->timing->border_bytes[stage->last + 1];
        work->borders[s] = (pp_border_cost){.latency_s = fmax(there->latency_s, back->latency_s),
                                            .forward_occupancy_s = occupancy(bytes, there),
                                            .backward_occupancy_s = occupancy(bytes, back)};
    }
}

pp_status pp_work_time(pp_work *work, double *seconds, pp_error *error) {
    PP_TRY(expand(work, error));
    fill_costs(work);
    pp_sim_input input = {.schedule = work->expanded,
                          .stage = work->costs,
                          .border = work->borders,
                          .reduce_group = work->groups,
                          .cards = work->cards,
                          .last_microbatch_scale = work->candidate->last_scale};
    pp_sim_result *result;
    PP_TRY(pp_simulate(&input, &result, error));
    *seconds = result->makespan_s;
    pp_sim_result_free(result);
    work->simulations++;
    work->effort += (double)work->expanded->first_action[work->expanded->ranks];
    return PP_OK;
}
