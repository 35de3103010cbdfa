/* ppsim simulate --replications --db: from the raw samples of a profile to what each stage of a
 * plan may take.
 *
 * A layer's share of a phase of its stage is what the medians of all its layers make of it; a
 * sample counts relative to its layer's median, so that a plan's own times stay the middle of what
 * is drawn. Samples are those of the microbatch size measured that is nearest to the plan's.
 *
 * Messages were measured between threads of one machine. Transfers and reductions within a node
 * vary as messages of the nearest size did, a reduction as one message throughout; those between
 * nodes take their given time, since nothing is known of them. */
#include "cli/simulate_internal.h"
#include "profiles/profiles.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    const char *db;
    const pp_plan *plan;
    pp_sample *samples; /* sorted by signature, phase, microbatch, neighbours */
    size_t count;
    double *scratch; /* [count] */
    pp_arena *arena;
} source;

static const pp_phase phases[] = {[PP_SIM_FORWARD] = PP_PHASE_FORWARD,
                                  [PP_SIM_INPUT] = PP_PHASE_INPUT,
                                  [PP_SIM_WEIGHT] = PP_PHASE_WEIGHT,
                                  [PP_SIM_OPTIMIZER] = PP_PHASE_OPTIMIZER};
#define LAYER_PHASES ((int)(sizeof phases / sizeof *phases))

/* ---- samples of one thing ------------------------------------------------------------------- */

static bool is_of(const pp_sample *sample, const char *signature, pp_phase phase) {
    return sample->phase == phase && strcmp(sample->signature, signature) == 0;
}

static int64_t distance(const pp_sample *sample, int64_t size) {
    return llabs((long long)(sample->microbatch - size));
}

/* Those measured at the nearest size, and there with the most neighbours at work, as in a step. */
static int take_samples(const source *from, const char *signature, pp_phase phase, int64_t size,
                        double *to) {
    const pp_sample *best = NULL;
    int count = 0;
    for (size_t i = 0; i < from->count; i++) {
        const pp_sample *sample = &from->samples[i];
        if (!is_of(sample, signature, phase)) continue;
        bool nearer = !best || distance(sample, size) < distance(best, size);
        bool busier =
            best && sample->microbatch == best->microbatch && sample->neighbours > best->neighbours;
        if (nearer || busier) best = sample;
    }
    for (size_t i = 0; best && i < from->count; i++) {
        const pp_sample *sample = &from->samples[i];
        if (is_of(sample, signature, phase) && sample->microbatch == best->microbatch &&
            sample->neighbours == best->neighbours)
            to[count++] = sample->duration_s;
    }
    return count;
}

static pp_status never_measured(const source *from, const pp_layer *layer, const char *signature,
                                pp_error *error) {
    return pp_fail(error, PP_E_INPUT, from->db,
                   "it has no samples of layer '%s' (%s) in %s: run `ppsim profile %s --db %s "
                   "--dtype %s`, or leave out --db and give --jitter",
                   layer->name, signature, pp_dtype_name(from->plan->dtype),
                   from->plan->model->name, from->db, pp_dtype_name(from->plan->dtype));
}

/* A part of the first `count` samples, with their median as its share. */
static pp_status fill_part(const source *from, int count, pp_sim_part *part, pp_error *error) {
    double *relative = PP_NEW(from->arena, double, count);
    if (!relative) return pp_fail_memory(error);
    memcpy(relative, from->scratch, (size_t)count * sizeof *relative);
    double median_s = pp_median_of(from->scratch, (size_t)count).median;
    for (int i = 0; median_s > 0 && i < count; i++) relative[i] /= median_s;
    *part = (pp_sim_part){median_s, relative, median_s > 0 ? count : 0};
    return PP_OK;
}

/* Phases that do nothing have no samples. */
static pp_status layer_part(const source *from, const pp_layer *layer, int phase, pp_sim_part *part,
                            pp_error *error) {
    char signature[PP_SIGNATURE_LENGTH];
    pp_layer whole = *layer, *measured = &whole;
    pp_layer piece;
    if (from->plan->tp > 1) {
        PP_TRY(pp_layer_shard(layer, from->plan->tp, &piece, error));
        measured = &piece;
    }
    pp_layer_signature(measured, signature);
    int count =
        take_samples(from, signature, phases[phase], from->plan->microbatch_size, from->scratch);
    if (count > 0) return fill_part(from, count, part, error);
    return phase == PP_SIM_FORWARD ? never_measured(from, layer, signature, error) : PP_OK;
}

/* ---- stages -------------------------------------------------------------------------------- */

static void shares_of(pp_sim_part *parts, int count) {
    double sum_s = 0;
    for (int i = 0; i < count; i++) sum_s += parts[i].share;
    for (int i = 0; sum_s > 0 && i < count; i++) parts[i].share /= sum_s;
}

static pp_status draw_layers(const source *from, const pp_stage *stage, int phase, pp_sim_mix *mix,
                             pp_error *error) {
    const pp_plan *plan = from->plan;
    int count = stage->last - stage->first + 1;
    pp_sim_part *parts = PP_NEW(from->arena, pp_sim_part, count);
    if (!parts) return pp_fail_memory(error);
    for (int i = 0; i < count; i++)
        PP_TRY(layer_part(from, &plan->model->layers[plan->order[stage->first + i]], phase,
                          &parts[i], error));
    shares_of(parts, count);
    *mix = (pp_sim_mix){parts, count};
    return PP_OK;
}

/* All devices of ranks first … last are on one node. */
static bool on_one_node(const pp_plan *plan, int first, int last) {
    size_t width = (size_t)plan->dp * (size_t)plan->tp;
    const int *devices = plan->devices + (size_t)first * width;
    size_t count = (size_t)(last - first + 1) * width;
    int node = pp_cluster_node_of(plan->cluster, devices[0]);
    for (size_t i = 1; i < count; i++)
        if (pp_cluster_node_of(plan->cluster, devices[i]) != node) return false;
    return true;
}

static pp_status draw_messages(const source *from, int64_t bytes, pp_sim_mix *mix,
                               pp_error *error) {
    int count = take_samples(from, "link", PP_PHASE_TRANSFER, bytes, from->scratch);
    if (count == 0) return PP_OK;
    pp_sim_part *part = PP_NEW(from->arena, pp_sim_part, 1);
    if (!part) return pp_fail_memory(error);
    PP_TRY(fill_part(from, count, part, error));
    part->share = 1;
    *mix = (pp_sim_mix){part, 1};
    return PP_OK;
}

/* What the stage sends across the border behind stage `border`, between two ranks. */
static pp_status draw_border(const source *from, int border, pp_sim_mix *mix, pp_error *error) {
    const int *placement = from->plan->placement;
    int low = placement[border], high = placement[border + 1];
    if (low > high) low = high, high = placement[border];
    if (low == high || !on_one_node(from->plan, low, high)) return PP_OK;
    return draw_messages(from, pp_plan_border_bytes(from->plan, border), mix, error);
}

static pp_status draw_reduction(const source *from, int s, pp_sim_mix *mix, pp_error *error) {
    const pp_plan *plan = from->plan;
    int rank = plan->placement[s];
    bool tied = plan->stages[s].tie_transfer_s > 0;
    if (plan->stages[s].reduce_s <= 0) return PP_OK;
    if (!on_one_node(plan, tied ? 0 : rank, tied ? plan->ranks - 1 : rank)) return PP_OK;
    return draw_messages(from, plan->stages[s].bytes.gradients, mix, error);
}

static pp_status draw_stage(const source *from, int s, pp_sim_mix *mixes, pp_error *error) {
    const pp_plan *plan = from->plan;
    bool begins = s == 0 || s == plan->stage_count / plan->chains;
    bool ends = s == plan->stage_count - 1 || s + 1 == plan->stage_count / plan->chains;
    for (int phase = 0; phase < LAYER_PHASES; phase++)
        PP_TRY(draw_layers(from, &plan->stages[s], phase, &mixes[phase], error));
    if (!ends) PP_TRY(draw_border(from, s, &mixes[PP_SIM_SEND_FORWARD], error));
    if (!begins) PP_TRY(draw_border(from, s - 1, &mixes[PP_SIM_SEND_BACKWARD], error));
    return draw_reduction(from, s, &mixes[PP_SIM_REDUCE], error);
}

static pp_status draw_stages(source *from, const pp_sim_draws **draws, pp_error *error) {
    int stages = from->plan->stage_count;
    pp_sim_draws *made = PP_NEW(from->arena, pp_sim_draws, stages);
    from->scratch = pp_allocate((from->count + 1) * sizeof *from->scratch);
    pp_status status = made && from->scratch ? PP_OK : pp_fail_memory(error);
    for (int s = 0; status == PP_OK && s < stages; s++)
        status = draw_stage(from, s, made[s].phase, error);
    pp_free(from->scratch);
    *draws = made;
    return status;
}

pp_status pp_simulate_draws(const char *db, const pp_plan *plan, pp_arena *arena,
                            const pp_sim_draws **draws, pp_error *error) {
    pp_store *store;
    source from = {.db = db, .plan = plan, .arena = arena};
    PP_TRY(pp_store_open(db, true, &store, error));
    pp_session session = {0};
    bool found;
    pp_status status =
        pp_store_choose(store, plan->cluster, NULL, plan->dtype, &session, &found, error);
    if (status == PP_OK && found)
        status = pp_store_samples(store, 0, session.backend, session.device, plan->dtype,
                                  &from.samples, &from.count, error);
    pp_store_close(store);
    if (status == PP_OK) status = draw_stages(&from, draws, error);
    pp_free(from.samples);
    return status;
}
