/* A schedule made to measure for a candidate and its splits (sim/auto.c).
 *
 * It is made for the stage times, transfers and memory of the plan itself: what a rank has left for
 * activations is its limit less what lies there all the time and the slots of the named order.
 * Slots follow from the order, so where the made one turns out to need more than the limit it is
 * made again with so much less for activations. What it takes and needs is what pp_simulate_plan
 * says of the finished plan, reductions, optimizer steps and a smaller last microbatch included.
 *
 * The named order, written out, is an order like any other: whoever asks for `auto` gets it where
 * nothing shorter was found, so auto is never slower than a named schedule on the same splits. */
#include <math.h>
#include <string.h>

#include "planner/planner_internal.h"

enum { ATTEMPTS = 4 };

static const pp_schedule_family auto_family = {
    .name = "auto", .natural_virtual = 1, .splits_backward = true, .placement = PP_PLACE_LOOP};

/* What a schedule is made from. Arrays are in the workshop's arena. */
typedef struct measure {
    pp_work *work;
    pp_candidate candidate; /* the same, backward split */
    pp_terms terms;
    const int *splits;
    pp_sim_input input;
    pp_stage_cost *cost;
    double *weight, *released; /* [stages] */
    double *limit;             /* [ranks] */
} measure;

/* auto knows one stage on each rank, or two in a V. */
static bool has_placement(const pp_schedule *order) {
    int ranks = order->ranks, stages = order->stages;
    if (order->chain_count > 1 || order->slices > 1) return false;
    if (stages != ranks && stages != 2 * ranks) return false;
    for (int s = 0; s < stages; s++)
        if (order->placement[s] != (s < ranks ? s : 2 * ranks - 1 - s)) return false;
    return true;
}

/* Stage times with what is recomputed, and what one microbatch holds. */
static void fill_stages(measure *m, const pp_plan *plan) {
    for (int s = 0; s < plan->stage_count; s++) {
        const pp_stage_bytes *bytes = &plan->stages[s].bytes;
        bool recomputed = plan->stages[s].recompute != PP_RECOMPUTE_NONE;
        m->cost[s] = m->input.stage[s];
        if (recomputed) m->cost[s].input_s += m->cost[s].recompute_s;
        bool dropped = bytes->checkpoint > 0; /* what F leaves, until R */
        m->weight[s] = (double)(dropped ? bytes->checkpoint : bytes->activation);
        m->released[s] = dropped ? 0 : (double)bytes->released_by_input;
    }
}

/* What is left for activations of each rank under the named order's slots. */
static pp_status fill_limits(measure *m, const pp_plan *plan, pp_error *error) {
    pp_work *work = m->work;
    pp_stage_bytes *bytes = PP_NEW(&work->arena, pp_stage_bytes, plan->stage_count);
    if (bytes == NULL) return pp_fail_memory(error);
    for (int s = 0; s < plan->stage_count; s++) {
        bytes[s] = plan->stages[s].bytes;
        bytes[s].activation = bytes[s].released_by_input = 0;
        bytes[s].checkpoint = bytes[s].stash = 0;
    }
    for (int p = 0; p < plan->ranks; p++) {
        pp_peak_bytes peak = pp_rank_peak_bytes(work->order, p, bytes, work->input_slots,
                                                work->gradient_slots, NULL);
        m->limit[p] = fmax(0, (double)(m->terms.limit_bytes[p] - peak.total));
    }
    return PP_OK;
}

/* Whether every rank holds the plan; where not, limits shrink by what is too much. */
static bool holds(measure *m, const pp_plan *plan) {
    bool all = true;
    for (int p = 0; p < plan->ranks; p++) {
        int64_t excess = plan->predicted.rank[p].peak_bytes - m->terms.limit_bytes[p];
        if (excess <= 0) continue;
        m->limit[p] = fmax(0, m->limit[p] - (double)excess);
        all = false;
    }
    return all;
}

/* *plan stays NULL where no order keeps the limits. */
static pp_status make_orders(measure *m, int64_t budget, pp_plan **plan, pp_error *error) {
    pp_auto_request request = {.ranks = m->terms.ranks,
                               .microbatches = m->candidate.microbatches,
                               .virtual_stages = m->terms.stages / m->terms.ranks,
                               .stage = m->cost,
                               .border = m->input.border,
                               .activation_weight = m->weight,
                               .released_by_input_weight = m->released,
                               .limit = m->limit,
                               .budget = budget};
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        pp_auto_result made = {0};
        pp_status status = pp_auto_schedule(&request, &made, error);
        if (status == PP_E_NO_FIT) return PP_OK;
        if (status == PP_OK)
            status = pp_assemble_order(&m->terms, m->work->view->footprints, m->splits,
                                       made.schedule, plan, error);
        pp_schedule_free(made.schedule);
        if (status != PP_OK) return status;
        if (holds(m, *plan)) return PP_OK;
        pp_plan_free(*plan);
        *plan = NULL;
    }
    return PP_OK;
}

static pp_status measure_and_make(measure *m, const pp_plan *named, int64_t budget, pp_plan **plan,
                                  pp_error *error) {
    pp_schedule *expanded;
    pp_arena *arena = &m->work->arena;
    m->cost = PP_NEW(arena, pp_stage_cost, named->stage_count);
    m->weight = PP_NEW(arena, double, named->stage_count);
    m->released = PP_NEW(arena, double, named->stage_count);
    m->limit = PP_NEW(arena, double, named->ranks);
    if (arena->failed) return pp_fail_memory(error);
    PP_TRY(pp_plan_expand(named, &expanded, error));
    pp_status status = pp_plan_sim_input(named, expanded, arena, &m->input, error);
    if (status == PP_OK) fill_stages(m, named);
    if (status == PP_OK) status = fill_limits(m, named, error);
    if (status == PP_OK) status = make_orders(m, budget, plan, error);
    pp_schedule_free(expanded);
    return status;
}

pp_status pp_work_auto(pp_work *work, const int *splits, int64_t budget, pp_plan **plan,
                       pp_error *error) {
    pp_plan *written = NULL, *split = NULL, *made = NULL;
    measure m = {.work = work, .candidate = *work->candidate, .splits = splits};
    m.candidate.family = &auto_family;
    *plan = NULL;
    PP_TRY(pp_assemble_order(&work->terms, work->view->footprints, splits, work->order, &written,
                             error));
    pp_status status = PP_OK;
    if (has_placement(work->order)) {
        status = pp_terms_init(&m.terms, work->view, &m.candidate, work->order->placement,
                               &work->arena, error);
        if (status == PP_OK)
            status = pp_assemble_order(&m.terms, work->view->footprints, splits, work->order,
                                       &split, error);
        if (status == PP_OK) status = measure_and_make(&m, split, budget, &made, error);
    }
    bool shorter =
        made != NULL && made->predicted.iteration_time_s < written->predicted.iteration_time_s;
    if (status == PP_OK) *plan = shorter ? made : written;
    if (*plan != made) pp_plan_free(made);
    if (*plan != written) pp_plan_free(written);
    pp_plan_free(split);
    return status;
}

double pp_bound_any_order(const pp_tables *tables, const pp_candidate *candidate) {
    pp_candidate any = *candidate;
    if (pp_candidate_chains(candidate) == 1) any.family = &auto_family; /* else only its own is */
    return pp_bound_totals(tables, &any);
}
