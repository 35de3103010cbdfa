/* ppsim simulate --replications --db: from the raw samples of a profile to what each stage of a
 * plan may take.
 *
 * A layer's share of a phase of its stage is what the medians of all its layers make of it; a
 * sample counts relative to its layer's median, so that a plan's own times stay the middle of what
 * is drawn. Samples are those of the microbatch size measured that is nearest to the plan's. */
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
    pp_arena *arena;
} source;

static const pp_phase phases[PP_SIM_PHASES] = {[PP_SIM_FORWARD] = PP_PHASE_FORWARD,
                                               [PP_SIM_INPUT] = PP_PHASE_INPUT,
                                               [PP_SIM_WEIGHT] = PP_PHASE_WEIGHT};

/* ---- the samples of one layer and phase ----------------------------------------------------- */

static bool is_of(const pp_sample *sample, const char *signature, pp_phase phase) {
    return sample->phase == phase && strcmp(sample->signature, signature) == 0;
}

static int64_t distance(const pp_sample *sample, int64_t microbatch) {
    return llabs((long long)(sample->microbatch - microbatch));
}

/* Those measured at the nearest size, and there with the most neighbours at work, as in a step. */
static int take_samples(const source *from, const char *signature, pp_phase phase, double *to) {
    const pp_sample *best = NULL;
    int count = 0;
    for (size_t i = 0; i < from->count; i++) {
        const pp_sample *sample = &from->samples[i];
        if (!is_of(sample, signature, phase)) continue;
        int64_t size = from->plan->microbatch_size;
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

/* Fills a part, with the median as its share. Phases that do nothing have no samples. */
static pp_status make_part(const source *from, const pp_layer *layer, pp_sim_phase phase,
                           double *scratch, pp_sim_part *part, pp_error *error) {
    char signature[PP_SIGNATURE_LENGTH];
    pp_layer whole = *layer, *measured = &whole;
    pp_layer piece;
    if (from->plan->tp > 1) {
        PP_TRY(pp_layer_shard(layer, from->plan->tp, &piece, error));
        measured = &piece;
    }
    pp_layer_signature(measured, signature);
    int count = take_samples(from, signature, phases[phase], scratch);
    if (count == 0)
        return phase == PP_SIM_FORWARD ? never_measured(from, layer, signature, error) : PP_OK;
    double *relative = PP_NEW(from->arena, double, count);
    if (!relative) return pp_fail_memory(error);
    memcpy(relative, scratch, (size_t)count * sizeof *relative);
    double median_s = pp_median_of(scratch, (size_t)count).median;
    for (int i = 0; median_s > 0 && i < count; i++) relative[i] /= median_s;
    *part = (pp_sim_part){median_s, relative, median_s > 0 ? count : 0};
    return PP_OK;
}

/* ---- stages -------------------------------------------------------------------------------- */

static void shares_of(pp_sim_part *parts, int count) {
    double sum_s = 0;
    for (int i = 0; i < count; i++) sum_s += parts[i].share;
    for (int i = 0; sum_s > 0 && i < count; i++) parts[i].share /= sum_s;
}

static pp_status make_stage(const source *from, int s, double *scratch, pp_sim_draws *draws,
                            pp_error *error) {
    const pp_plan *plan = from->plan;
    const pp_stage *stage = &plan->stages[s];
    draws->part_count = stage->last - stage->first + 1;
    for (int phase = 0; phase < PP_SIM_PHASES; phase++) {
        pp_sim_part *parts = PP_NEW(from->arena, pp_sim_part, draws->part_count);
        if (!parts) return pp_fail_memory(error);
        for (int i = 0; i < draws->part_count; i++)
            PP_TRY(make_part(from, &plan->model->layers[plan->order[stage->first + i]],
                             (pp_sim_phase)phase, scratch, &parts[i], error));
        shares_of(parts, draws->part_count);
        draws->parts[phase] = parts;
    }
    return PP_OK;
}

static pp_status make_stages(const source *from, const pp_sim_draws **draws, pp_error *error) {
    int stages = from->plan->stage_count;
    pp_sim_draws *made = PP_NEW(from->arena, pp_sim_draws, stages);
    double *scratch = pp_allocate((from->count + 1) * sizeof *scratch);
    pp_status status = made && scratch ? PP_OK : pp_fail_memory(error);
    for (int s = 0; status == PP_OK && s < stages; s++)
        status = make_stage(from, s, scratch, &made[s], error);
    pp_free(scratch);
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
    if (status == PP_OK) status = make_stages(&from, draws, error);
    pp_free(from.samples);
    return status;
}
