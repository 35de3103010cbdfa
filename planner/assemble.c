/* From a candidate and its split points to a plan: stage times, bytes, devices, prediction.
 *
 * Times of a stage are the sums of its layers' times plus the worker's own cost for each action. A
 * whole backward is one action, so that cost goes to I; where I and W are apart both have it. The
 * optimizer steps once over a matrix that two layers of the stage share. Gradients of a tied matrix
 * are summed over the ranks that hold it, after those of the replicas.
 *
 * The same function fills the search's scratch plan and the plan that is handed out, and the
 * prediction is pp_simulate_plan's: whoever simulates the written plan gets the same bits. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "planner/planner_internal.h"

/* ---- stages -------------------------------------------------------------------------------- */

/* Added up layer by layer: round figures stay round, as a difference of sums would not. A rank is
 * as slow as its slowest device. each: where pp_timing has the phase. */
static double sum_layers(const pp_terms *terms, size_t each, int stage, int first, int last) {
    const pp_kinds *kinds = terms->candidate->arrangement->rank_kinds[terms->placement[stage]];
    double slowest = 0;
    for (int k = 0; k < kinds->count; k++) {
        const char *timing = (const char *)terms->on_kind[kinds->kinds[k]];
        const double *of_layer = *(double *const *)(const void *)(timing + each);
        double seconds = 0;
        for (int i = first; i <= last; i++) seconds += of_layer[i];
        slowest = fmax(slowest, seconds);
    }
    return slowest;
}

static double optimizer_s(const pp_terms *terms, int stage, int first, int last) {
    const pp_tables *tables = terms->tables;
    const double *untied = terms->timing->division.weights->untied_share;
    const pp_kinds *kinds = terms->candidate->arrangement->rank_kinds[terms->placement[stage]];
    double slowest = 0;
    for (int k = 0; k < kinds->count; k++) {
        const pp_timing *timing = terms->on_kind[kinds->kinds[k]];
        double seconds = 0;
        for (int i = first; i <= last; i++) {
            double share = pp_tables_tied_before(tables, i, first) ? untied[i] : 1;
            seconds += share * timing->update_each[i];
        }
        slowest = fmax(slowest, seconds);
    }
    return slowest / terms->mode.shards + tables->overhead_s;
}

/* Inside a backward it is the layers alone; an R is an action, and costs what F does. */
static double recompute_s(const pp_terms *terms, const pp_stage *stage, int s) {
    if (stage->recompute == PP_RECOMPUTE_NONE) return 0;
    if (!pp_recompute_is_inside(stage->recompute)) return stage->forward_s;
    bool attention = stage->recompute == PP_RECOMPUTE_ATTENTION;
    size_t each =
        attention ? offsetof(pp_timing, attention_each) : offsetof(pp_timing, forward_each);
    return sum_layers(terms, each, s, stage->first, stage->last);
}

/* Of slices. Where ranks have several kinds of devices, that of the kind that tilts most. What a
 * policy repeats inside the backward tilts like what it repeats: all of F, or its attention, of
 * which slice k of Q has (2k+1)/Q² (core/slices.c), but none more than it has of F. */
static void fill_tilts(const pp_terms *terms, int s, pp_stage *stage) {
    double slices = terms->candidate->slices, attention = 2 * (slices - 1) / (slices * slices);
    if (slices == 1) return;
    stage->forward_tilt_s =
        sum_layers(terms, offsetof(pp_timing, forward_tilt_each), s, stage->first, stage->last);
    stage->input_tilt_s =
        sum_layers(terms, offsetof(pp_timing, input_tilt_each), s, stage->first, stage->last);
    if (!pp_recompute_is_inside(stage->recompute)) return;
    stage->input_tilt_s += stage->recompute == PP_RECOMPUTE_ATTENTION
                               ? fmin(stage->recompute_s * attention, stage->forward_tilt_s)
                               : stage->forward_tilt_s;
}

/* Over replicas; or, where there are copies, over those of all copies at once: like that of a tied
 * matrix it has to wait for other ranks. */
static void fill_reduction(const pp_terms *terms, int s, pp_stage *stage) {
    const pp_all_reduce *reduce = &terms->reduce[terms->placement[s]];
    double gradients = (double)stage->bytes.gradients, seconds = pp_all_reduce_s(reduce, gradients);
    stage->reduce_s = seconds + terms->tables->overhead_s;
    if (terms->copies > terms->stages) {
        stage->tie_transfer_s = seconds;
        return;
    }
    stage->reduce_transfer_s = seconds;
    stage->reduce_latency_s = pp_all_reduce_latency_s(reduce, gradients);
}

static bool fill_stage(const pp_terms *terms, pp_footprints *footprints, int s, int first, int last,
                       pp_stage *stage) {
    pp_footprint_mode mode = terms->mode;
    mode.recompute = terms->policies[s % terms->stages];
    double overhead = terms->overhead_s;
    *stage = (pp_stage){.first = first, .last = last, .recompute = mode.recompute};
    stage->forward_s =
        sum_layers(terms, offsetof(pp_timing, forward_each), s, first, last) + overhead;
    stage->input_s = sum_layers(terms, offsetof(pp_timing, input_each), s, first, last) + overhead;
    stage->weight_s = sum_layers(terms, offsetof(pp_timing, weight_each), s, first, last);
    if (terms->mode.split_backward) stage->weight_s += overhead;
    stage->recompute_s = recompute_s(terms, stage, s);
    fill_tilts(terms, s, stage);
    stage->optimizer_s = optimizer_s(terms, s, first, last);
    const pp_stage_bytes *bytes = pp_footprint(footprints, first, last, mode);
    if (bytes == NULL) return false;
    stage->bytes = *bytes;
    if (terms->mode.dp > 1) fill_reduction(terms, s, stage);
    return true;
}

/* ---- tied weights -------------------------------------------------------------------------- */

static int stage_of(const pp_plan *plan, int layer) {
    int s = 0;
    while (plan->stages[s].last < layer) s++;
    return s;
}

/* The two ranks hold copies of the same stages, which have been summed: of a matrix that both
 * stages have nothing is left to be done. */
static bool ranks_mirror(const pp_terms *terms, const int *ranks, int count) {
    if (terms->copies == terms->stages || count != 2) return false;
    return ranks[0] + ranks[1] == terms->ranks - 1;
}

/* Adds the all-reduce of one tied matrix to every stage of a chain that holds it, if they are on
 * several ranks. `tie` is the lowest layer of the group, `chain` the first stage of the chain. */
static void add_tie(const pp_terms *terms, int tie, int chain, pp_plan *plan) {
    const pp_tables *tables = terms->tables;
    int *devices = terms->tie_devices, count = 0;
    memset(terms->tie_holds, 0, (size_t)plan->stage_count * sizeof *terms->tie_holds);
    for (int i = 0; i < tables->tied_count; i++) {
        int layer = tables->tied_layers[i];
        if (tables->tie[layer] != tie) continue;
        int s = chain + stage_of(plan, layer), rank = terms->placement[s];
        bool known = false;
        for (int k = 0; k < count; k++) known = known || devices[k] == rank;
        if (!known) devices[count++] = rank;
        terms->tie_holds[s] = true;
    }
    if (count < 2 || ranks_mirror(terms, devices, count)) return;
    for (int k = 0; k < count; k++) devices[k] = plan->devices[devices[k] * plan->dp * plan->tp];
    pp_all_reduce reduce = pp_all_reduce_over(tables->cluster, devices, count, plan->tp);
    const pp_weights *weights = terms->timing->division.weights;
    double seconds = pp_all_reduce_s(&reduce, (double)weights->tied_bytes[tie]);
    for (int s = 0; s < plan->stage_count; s++) {
        if (!terms->tie_holds[s]) continue;
        if (plan->stages[s].reduce_s == 0) plan->stages[s].reduce_s = tables->overhead_s;
        plan->stages[s].reduce_s += seconds;
        plan->stages[s].tie_transfer_s += seconds;
    }
}

static void add_ties(const pp_terms *terms, pp_plan *plan) {
    const pp_tables *tables = terms->tables;
    for (int i = 0; i < tables->tied_count; i++) {
        int layer = tables->tied_layers[i];
        for (int chain = 0; tables->tie[layer] == layer && chain < terms->copies;
             chain += terms->stages)
            add_tie(terms, layer, chain, plan);
    }
}

bool pp_assemble_stages(const pp_terms *terms, pp_footprints *footprints, const int *splits,
                        pp_plan *plan) {
    for (int s = 0; s < terms->copies; s++) {
        int i = s % terms->stages, first = i == 0 ? 0 : splits[i - 1];
        int last = i == terms->stages - 1 ? terms->tables->layers - 1 : splits[i] - 1;
        if (!fill_stage(terms, footprints, s, first, last, &plan->stages[s])) return false;
    }
    add_ties(terms, plan);
    return true;
}

/* ---- the plan ------------------------------------------------------------------------------ */

/* The weakest on the kinds in use. */
static pp_cost_source source_of(const pp_terms *terms) {
    const pp_tables *tables = terms->tables;
    const pp_kinds *kinds = terms->candidate->arrangement->kinds;
    pp_cost_source weakest = PP_COST_MEASURED;
    for (int i = 0; i < kinds->count; i++) {
        pp_cost_source source =
            pp_costs_source_of(tables->request->costs, tables->kinds[kinds->kinds[i]]);
        if (source > weakest) weakest = source;
    }
    return weakest;
}

/* Measured layers of which some phase's part, on one of tp devices, was not measured. */
static bool parts_are_scaled(const pp_terms *terms) {
    const pp_tables *tables = terms->tables;
    static const pp_phase phases[] = {PP_PHASE_FORWARD, PP_PHASE_INPUT, PP_PHASE_WEIGHT};
    for (int i = 0; i < 3 * tables->layers && terms->mode.tp > 1; i++) {
        pp_cost_query query = {.kind = tables->kinds[0],
                               .layer = i / 3,
                               .phase = phases[i % 3],
                               .samples = terms->mode.samples,
                               .tp = terms->mode.tp};
        if (pp_costs_ask(tables->request->costs, query).source == PP_COST_MODELLED) return true;
    }
    return false;
}

/* Where the plan's times come from, with what a division, or slices, add to that. */
static void note_costs(const pp_terms *terms, pp_plan *plan) {
    bool measured = source_of(terms) == PP_COST_MEASURED;
    bool scaled = measured && parts_are_scaled(terms);
    char division[96] = "";
    if (plan->tp > 1)
        snprintf(division, sizeof division, "; tp %d: %sall-reduces by the links", plan->tp,
                 scaled ? "parts of layers scaled by the model, " : "");
    snprintf(plan->cost_note, sizeof plan->cost_note, "%s%s%s",
             pp_costs_note(terms->tables->request->costs), division,
             measured && plan->slices > 1 ? "; slices scaled by the model" : "");
    plan->costs = source_of(terms);
    if (scaled || (measured && plan->slices > 1)) plan->costs = PP_COST_MODELLED;
}

void pp_assemble_header(const pp_terms *terms, pp_plan *plan) {
    const pp_candidate *c = terms->candidate;
    const pp_plan_request *request = terms->tables->request;
    plan->ranks = c->ranks;
    plan->virtual_stages = c->virtual_stages;
    plan->chains = terms->copies / terms->stages;
    plan->stage_count = terms->copies;
    plan->microbatches = c->microbatches;
    plan->slices = c->slices;
    plan->microbatch_size = c->size;
    plan->global_batch = request->global_batch;
    plan->last_microbatch_scale = c->last_scale;
    plan->dp = c->dp;
    plan->tp = c->tp;
    plan->dtype = request->dtype;
    plan->optimizer = request->optimizer;
    plan->zero = c->zero;
    plan->recompute = c->recompute;
    snprintf(plan->schedule, sizeof plan->schedule, "%s", c->family->name);
    for (int i = 0; i < plan->model->layer_count; i++) plan->order[i] = i;
    for (int s = 0; s < terms->copies; s++) plan->placement[s] = terms->placement[s];
    size_t positions = (size_t)c->ranks * (size_t)c->arrangement->width;
    memcpy(plan->devices, c->arrangement->devices, positions * sizeof *plan->devices);
}

static double peak_flops(const pp_device *device, pp_dtype dtype) {
    return dtype == PP_BF16 ? device->bf16_flops : dtype == PP_FP32 ? device->fp32_flops : 0;
}

/* What all devices of the plan could do together; 0: of some it is not known. */
static double peak_of(const pp_plan *plan) {
    double peak = 0;
    for (int i = 0; i < plan->ranks * plan->dp * plan->tp; i++) {
        double one = peak_flops(pp_cluster_device(plan->cluster, plan->devices[i]), plan->dtype);
        if (!(one > 0)) return 0;
        peak += one;
    }
    return peak;
}

/* Samples of all replicas that except-last does not recompute: of two chains with as many
 * microbatches each has a last one. */
static double kept_samples(const pp_plan *plan) {
    int64_t samples = pp_plan_samples(plan, plan->microbatches - 1);
    if (plan->chains > 1 && plan->microbatches % 2 == 0) samples += plan->microbatch_size;
    return (double)samples * plan->dp;
}

/* Forward FLOPs of a sample that a stage, or its copy, does again in its backward pass. */
static double repeated_flops(const pp_plan *plan, const pp_stage *stage) {
    double flops = 0;
    if (stage->recompute == PP_RECOMPUTE_NONE) return 0;
    for (int i = stage->first; i <= stage->last; i++) {
        pp_layer_work work =
            pp_layer_work_get(&plan->model->layers[plan->order[i]], 1, plan->dtype);
        bool attention = stage->recompute == PP_RECOMPUTE_ATTENTION;
        flops += attention ? work.attention_flops : work.forward_flops;
    }
    if (stage->recompute != PP_RECOMPUTE_EXCEPT_LAST) return flops;
    return flops * (1 - kept_samples(plan) / (double)plan->global_batch);
}

/* Two conventions. MFU (Chowdhery et al. 2022, appendix B) counts the model's FLOPs, forward three
 * times; HFU those that the hardware does, recomputation included. Both count attention over the
 * full square, as core/layer_work.c does, though a causal mask leaves half of it. */
static void utilize(const pp_tables *tables, const pp_plan *plan, pp_prediction *predicted) {
    double peak = peak_of(plan), repeated = 0;
    if (!(peak > 0)) return;
    double samples = (double)plan->global_batch / (peak * predicted->iteration_time_s);
    for (int s = 0; s < plan->stage_count / plan->chains; s++)
        repeated += repeated_flops(plan, &plan->stages[s]);
    predicted->mfu = tables->flops_per_sample * samples;
    predicted->hfu = (tables->flops_per_sample + repeated) * samples;
}

static double cost_of(const pp_plan *plan, double seconds) {
    double per_hour = 0;
    for (int i = 0; i < plan->ranks * plan->dp * plan->tp; i++) {
        per_hour += pp_cluster_device(plan->cluster, plan->devices[i])->cost_per_hour;
    }
    return per_hour * seconds / 3600;
}

static void predict(const pp_tables *tables, const pp_sim_result *result, pp_plan *plan) {
    pp_prediction *predicted = &plan->predicted;
    double seconds = result->makespan_s;
    predicted->iteration_time_s = seconds;
    predicted->bubble_fraction = result->bubble_fraction;
    for (int p = 0; p < plan->ranks; p++) {
        predicted->rank[p].busy_s = result->rank[p].busy_s;
        predicted->rank[p].peak_bytes = result->rank[p].peak.total;
    }
    if (!(seconds > 0)) return; /* a model that costs nothing */
    predicted->throughput = (double)plan->global_batch / seconds;
    predicted->tokens_per_s = predicted->throughput * (double)tables->sequence;
    utilize(tables, plan, predicted);
    predicted->cost_per_step = cost_of(plan, seconds);
    double tokens = (double)plan->global_batch * (double)tables->sequence;
    if (tokens > 0) predicted->cost_per_million_tokens = predicted->cost_per_step * 1e6 / tokens;
}

/* The plan's expanded order is what its hash is of, so it is made first with no hash to compare. */
static pp_status expand_and_predict(const pp_terms *terms, pp_plan *plan, pp_error *error) {
    pp_schedule *schedule = NULL;
    pp_sim_result *result = NULL;
    plan->recompute = pp_plan_recompute(plan);
    plan->schedule_hash = 0;
    pp_status status = pp_simulate_plan(plan, false, &schedule, &result, error);
    if (status == PP_OK) {
        plan->schedule_hash = pp_schedule_hash(schedule);
        predict(terms->tables, result, plan);
    }
    pp_sim_result_free(result);
    pp_schedule_free(schedule);
    return status;
}

/* The plan brings its own order, under the name "auto". */
static bool attach_order(const pp_schedule *order, pp_plan *plan) {
    pp_text csv = {0};
    pp_schedule_write_csv(order, &csv);
    if (!csv.failed) plan->schedule_csv = pp_arena_copy(&plan->arena, csv.bytes, csv.length);
    pp_text_deinit(&csv);
    snprintf(plan->schedule, sizeof plan->schedule, "auto");
    return plan->schedule_csv != NULL;
}

pp_status pp_assemble_plan(const pp_terms *terms, pp_footprints *footprints, const int *splits,
                           pp_plan **plan, pp_error *error) {
    return pp_assemble_order(terms, footprints, splits, NULL, plan, error);
}

pp_status pp_assemble_order(const pp_terms *terms, pp_footprints *footprints, const int *splits,
                            const pp_schedule *order, pp_plan **plan, pp_error *error) {
    const pp_tables *tables = terms->tables;
    PP_TRY(pp_plan_new(tables->request->model, tables->cluster, terms->ranks, terms->stages,
                       terms->candidate->dp, terms->candidate->tp, plan, error));
    if (terms->copies > terms->stages && !pp_plan_add_chain(*plan)) {
        pp_plan_free(*plan);
        *plan = NULL;
        return pp_fail_memory(error);
    }
    pp_assemble_header(terms, *plan);
    for (int i = 0; i < tables->layers && tables->order != NULL; i++) {
        (*plan)->order[i] = tables->order[i];
    }
    note_costs(terms, *plan);
    (*plan)->cost_hash = pp_costs_hash(tables->request->costs);
    bool done = pp_assemble_stages(terms, footprints, splits, *plan) &&
                (order == NULL || attach_order(order, *plan));
    pp_status status = done ? expand_and_predict(terms, *plan, error) : pp_fail_memory(error);
    if (status == PP_OK) return PP_OK;
    pp_plan_free(*plan);
    *plan = NULL;
    return status;
}
