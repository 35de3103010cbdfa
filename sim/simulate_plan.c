/* From a plan to a simulation: its expanded schedule, its stages' times and bytes, and the links
 * between the devices of its ranks.
 *
 * Replicas and the devices of a tensor-parallel group work alike and in step, so one stands for
 * all, over the slowest of their links. A border between two ranks costs the latency of the link
 * and holds the lane between them for bytes / bandwidth. Where the link between nodes is shared and
 * more than one transfer may leave or enter a node at a time, transfers share the nodes' network
 * cards; the devices of a rank on its node send at the same time. Stages that share tied weights
 * reduce their gradients together.
 */
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

/* From one rank to another: all their devices send at the same time, and the slowest counts. */
static pp_link slowest_link(const pp_plan *plan, int from, int to) {
    int width = plan->dp * plan->tp;
    return pp_cluster_slowest_link(plan->cluster, plan->devices + (size_t)from * (size_t)width,
                                   plan->devices + (size_t)to * (size_t)width, width);
}

/* The border behind stage s of a chain, to stage s + 1. */
static pp_border_cost border_of(const pp_plan *plan, int s) {
    int from = plan->placement[s], to = plan->placement[s + 1];
    if (from == to) return (pp_border_cost){0};
    double bytes = (double)pp_plan_border_bytes(plan, s);
    pp_link forward = slowest_link(plan, from, to), backward = slowest_link(plan, to, from);
    return (pp_border_cost){.latency_s = fmax(forward.latency_s, backward.latency_s),
                            .forward_occupancy_s = occupancy(bytes, &forward),
                            .backward_occupancy_s = occupancy(bytes, &backward)};
}

/* ---- cards --------------------------------------------------------------------------------- */

/* Of the n-th device of a rank. */
static int node_of(const pp_plan *plan, int rank, size_t n) {
    size_t at = (size_t)rank * (size_t)plan->dp * (size_t)plan->tp + n;
    return pp_cluster_node_of(plan->cluster, plan->devices[at]);
}

/* Devices of a rank on the node of the first; each sends what crosses a border to its own partner.
 */
static int copies_of(const pp_plan *plan, int rank) {
    int count = 0;
    for (size_t n = 0; n < (size_t)plan->dp * (size_t)plan->tp; n++)
        count += node_of(plan, rank, n) == node_of(plan, rank, 0);
    return count;
}

static bool passes_cards(const pp_plan *plan, int from_rank, int to_rank) {
    int from = device_of(plan, from_rank), to = device_of(plan, to_rank);
    return pp_cluster_node_of(plan->cluster, from) != pp_cluster_node_of(plan->cluster, to) &&
           pp_cluster_link(plan->cluster, from, to).shared_per_node;
}

/* Transfers that may pass the cards of each node at once: those of ranks at a border that does. */
static bool cards_matter(const pp_plan *plan, const pp_sim_cards *cards, pp_arena *arena) {
    bool *crosses = PP_NEW(arena, bool, plan->ranks);
    int *count = PP_NEW(arena, int, pp_cluster_device_count(plan->cluster));
    if (arena->failed) return false;
    for (int s = 0; s + 1 < plan->stage_count; s++)
        if (cards->forward[s] || cards->backward[s])
            crosses[plan->placement[s]] = crosses[plan->placement[s + 1]] = true;
    for (int p = 0; p < plan->ranks; p++)
        if (crosses[p] && (count[cards->node[p]] += cards->copies[p]) > 1) return true;
    return false;
}

pp_status pp_plan_sim_cards(const pp_plan *plan, pp_arena *arena, const pp_sim_cards **cards,
                            pp_error *error) {
    *cards = NULL;
    if (!plan->cluster->inter.shared_per_node) return PP_OK;
    pp_sim_cards *made = PP_NEW(arena, pp_sim_cards, 1);
    int *node = PP_NEW(arena, int, plan->ranks), *copies = PP_NEW(arena, int, plan->ranks);
    bool *forward = PP_NEW(arena, bool, plan->stage_count);
    bool *backward = PP_NEW(arena, bool, plan->stage_count);
    if (arena->failed) return pp_fail_memory(error);
    for (int p = 0; p < plan->ranks; p++) {
        node[p] = node_of(plan, p, 0);
        copies[p] = copies_of(plan, p);
    }
    for (int s = 0; s + 1 < plan->stage_count; s++) {
        forward[s] = passes_cards(plan, plan->placement[s], plan->placement[s + 1]);
        backward[s] = passes_cards(plan, plan->placement[s + 1], plan->placement[s]);
    }
    *made =
        (pp_sim_cards){.node = node, .forward = forward, .backward = backward, .copies = copies};
    if (cards_matter(plan, made, arena)) *cards = made;
    return arena->failed ? pp_fail_memory(error) : PP_OK;
}

/* ---- the input ----------------------------------------------------------------------------- */

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
                                  .input_s = pp_stage_input_s(stage),
                                  .weight_s = stage->weight_s,
                                  .forward_tilt_s = stage->forward_tilt_s,
                                  .input_tilt_s = stage->input_tilt_s,
                                  .recompute_s = stage->recompute_s,
                                  .reduce_s = stage->reduce_s,
                                  .optimizer_s = stage->optimizer_s,
                                  .reduce_transfer_s = stage->reduce_transfer_s,
                                  .reduce_latency_s = stage->reduce_latency_s,
                                  .tie_transfer_s = stage->tie_transfer_s};
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
    input->reduce_buckets = plan->reduce_buckets;
    input->load_s = plan->load_s;
    input->prefetch = plan->prefetch;
    return PP_OK;
}

pp_status pp_plan_sim_input(const pp_plan *plan, const pp_schedule *expanded, pp_arena *arena,
                            pp_sim_input *input, pp_error *error) {
    *input = (pp_sim_input){.schedule = expanded};
    PP_TRY(take_stages(plan, input, arena, error));
    return pp_plan_sim_cards(plan, arena, &input->cards, error);
}

pp_status pp_simulate_plan(const pp_plan *plan, bool keep_spans, pp_schedule **schedule,
                           pp_sim_result **result, pp_error *error) {
    *result = NULL;
    if (schedule) *schedule = NULL;
    pp_schedule *expanded;
    PP_TRY(pp_plan_expand(plan, &expanded, error));
    pp_arena arena;
    pp_arena_init(&arena);
    pp_sim_input input;
    pp_status status = pp_plan_sim_input(plan, expanded, &arena, &input, error);
    input.keep_spans = keep_spans;
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
