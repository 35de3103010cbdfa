/* ppsim simulate --sensitivity of a plan: what each layer has of its stage's times.
 *
 * A plan has times of stages alone. How they are divided among the layers is what the costs say of
 * the layers one by one, at the plan's microbatch size, on the devices of the stage's rank:
 * measured where --db has them, else modelled. */
#include "cli/simulate_internal.h"
#include "profiles/profiles.h"

typedef struct asker {
    const pp_plan *plan;
    const pp_costs *costs;
} asker;

static int kind_of(const pp_plan *plan, int stage) {
    size_t width = (size_t)plan->dp * (size_t)plan->tp;
    int device = plan->devices[(size_t)plan->placement[stage] * width];
    return (int)(pp_cluster_device(plan->cluster, device) - plan->cluster->devices);
}

static double seconds(const asker *a, int stage, int position, pp_phase phase) {
    return pp_costs_ask(a->costs, (pp_cost_query){.kind = kind_of(a->plan, stage),
                                                  .layer = a->plan->order[position],
                                                  .phase = phase,
                                                  .samples = a->plan->microbatch_size,
                                                  .tp = a->plan->tp})
        .seconds;
}

static double share_of(const asker *a, int stage, int position, pp_phase phase) {
    double all_s = 0;
    for (int i = a->plan->stages[stage].first; i <= a->plan->stages[stage].last; i++)
        all_s += seconds(a, stage, i, phase);
    return all_s > 0 ? seconds(a, stage, position, phase) / all_s : 0;
}

static pp_stage_share shares_of(const asker *a, int stage, int position) {
    double forward = share_of(a, stage, position, PP_PHASE_FORWARD);
    return (pp_stage_share){.layer = a->plan->order[position],
                            .stage = stage,
                            .forward = forward,
                            .input = share_of(a, stage, position, PP_PHASE_INPUT),
                            .weight = share_of(a, stage, position, PP_PHASE_WEIGHT),
                            .recompute = forward,
                            .optimizer = share_of(a, stage, position, PP_PHASE_OPTIMIZER)};
}

/* Copies of a stage have the same layers at the same positions. */
static int fill_shares(const asker *a, pp_stage_share *shares) {
    const pp_plan *plan = a->plan;
    int count = 0;
    for (int i = 0; i < plan->model->layer_count; i++)
        for (int s = 0; s < plan->stage_count; s++)
            if (i >= plan->stages[s].first && i <= plan->stages[s].last)
                shares[count++] = shares_of(a, s, i);
    return count;
}

pp_status pp_simulate_layers(const char *db, simulation *sim, pp_error *error) {
    const pp_plan *plan = sim->plan;
    int layers = plan->model->layer_count;
    pp_stage_share *shares =
        PP_NEW(&sim->arena, pp_stage_share, (size_t)layers * (size_t)plan->chains);
    pp_change *changes = PP_NEW(&sim->arena, pp_change, layers);
    if (sim->arena.failed) return pp_fail_memory(error);
    pp_costs *costs;
    pp_costs_request request = {.model = plan->model,
                                .cluster = plan->cluster,
                                .dtype = plan->dtype,
                                .db = db,
                                .neighbours = plan->ranks * plan->dp - 1,
                                .model_missing = true};
    PP_TRY(pp_costs_open(&request, &costs, error));
    int count = fill_shares(&(asker){plan, costs}, shares);
    pp_costs_close(costs);
    sim->layers = changes;
    return pp_measure_layers(&sim->input, shares, count, changes, error);
}
