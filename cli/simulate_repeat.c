/* ppsim simulate --replications, --sensitivity: one schedule timed many times. How far step times
 * spread, and what they depend on. */
#include "cli/simulate_internal.h"

#include <math.h>

/* ---- running it ---------------------------------------------------------------------------- */

/* The plan's schedule with twice the microbatches; NULL: it has one number alone. */
static pp_status double_plan(pp_plan *plan, pp_schedule **other, pp_error *error) {
    if (plan->schedule_csv) return PP_OK;
    uint64_t hash = plan->schedule_hash;
    plan->microbatches *= 2;
    plan->schedule_hash = 0;
    pp_status status = pp_plan_expand(plan, other, error);
    plan->microbatches /= 2;
    plan->schedule_hash = hash;
    return status;
}

/* The same schedule with twice the microbatches: what M is worth. */
static pp_status double_microbatches(simulation *sim, pp_schedule **other, pp_error *error) {
    *other = NULL;
    if (sim->schedule->microbatches > PP_MICROBATCHES_MAX / 4) return PP_OK;
    if (sim->plan) return double_plan(sim->plan, other, error);
    if (!sim->family) return PP_OK;
    pp_schedule_request twice = sim->request;
    twice.microbatches *= 2;
    return pp_schedule_build(&twice, other, error);
}

static pp_status measure_sensitivity(const simulate_settings *settings, simulation *sim,
                                     pp_error *error) {
    pp_schedule *other;
    PP_TRY(double_microbatches(sim, &other, error));
    pp_status status = pp_measure_sensitivity(&sim->input, other, &sim->sensitivity, error);
    pp_schedule_free(other);
    if (status != PP_OK || !sim->plan) return status;
    return pp_simulate_layers(settings->db, sim, error);
}

pp_status pp_simulate_repeat(const simulate_settings *settings, simulation *sim, pp_error *error) {
    if (settings->replications) {
        pp_sim_input drawn = sim->input;
        drawn.jitter = settings->jitter;
        drawn.transfer_jitter = settings->transfer_jitter;
        if (settings->db)
            PP_TRY(pp_simulate_draws(settings->db, sim->plan, &sim->arena, &sim->draws, error));
        drawn.draws = sim->draws;
        PP_TRY(pp_simulate_replications(&drawn, settings->replications, (uint64_t)settings->seed,
                                        &sim->replications, error));
    }
    return settings->sensitivity ? measure_sensitivity(settings, sim, error) : PP_OK;
}

/* ---- saying it ----------------------------------------------------------------------------- */

static void quantiles_json(pp_json *json, const char *key, pp_quantiles q) {
    pp_json_key(json, key);
    pp_json_object_flat(json);
    pp_json_key(json, "p5");
    pp_json_double(json, q.p5);
    pp_json_key(json, "p50");
    pp_json_double(json, q.p50);
    pp_json_key(json, "p95");
    pp_json_double(json, q.p95);
    pp_json_end_object(json);
}

/* How people know the phases of pp_sim_phase. */
static const char *const phase_names[PP_SIM_PHASES] = {[PP_SIM_FORWARD] = "forward",
                                                       [PP_SIM_INPUT] = "input",
                                                       [PP_SIM_WEIGHT] = "weight",
                                                       [PP_SIM_OPTIMIZER] = "optimizer",
                                                       [PP_SIM_REDUCE] = "reduce",
                                                       [PP_SIM_SEND_FORWARD] = "send_forward",
                                                       [PP_SIM_SEND_BACKWARD] = "send_backward"};

/* Of some stage, the phase is drawn from samples. */
static bool is_drawn(const simulation *sim, int phase) {
    for (int s = 0; s < sim->schedule->stages; s++) {
        const pp_sim_mix *mix = &sim->draws[s].phase[phase];
        for (int i = 0; i < mix->count; i++)
            if (mix->parts[i].count > 0) return true;
    }
    return false;
}

static void drawn_json(const simulation *sim, pp_json *json) {
    pp_json_key(json, "drawn");
    pp_json_array_flat(json);
    for (int phase = 0; sim->draws && phase < PP_SIM_PHASES; phase++)
        if (is_drawn(sim, phase)) pp_json_string(json, phase_names[phase]);
    pp_json_end_array(json);
}

static void drawn_text(const simulation *sim, pp_text *text) {
    if (!sim->draws) return;
    pp_text_string(text, "from samples:");
    for (int phase = 0; phase < PP_SIM_PHASES; phase++)
        if (is_drawn(sim, phase)) pp_text_printf(text, " %s", phase_names[phase]);
    pp_text_string(text, "; all else takes its given time\n");
}

static void replications_json(const simulation *sim, pp_json *json) {
    const pp_replications *r = sim->replications;
    pp_json_key(json, "replications");
    pp_json_object(json);
    pp_json_key(json, "count");
    pp_json_int(json, r->count);
    pp_json_key(json, "mean");
    pp_json_double(json, r->mean_s);
    quantiles_json(json, "makespan", r->makespan_s);
    quantiles_json(json, "bubble_fraction", r->bubble_fraction);
    pp_json_key(json, "critical");
    pp_json_array_flat(json);
    for (int p = 0; p < sim->schedule->ranks; p++) pp_json_double(json, r->critical[p]);
    pp_json_end_array(json);
    drawn_json(sim, json);
    pp_json_end_object(json);
}

/* Seconds for one per cent more, or less. */
static void changes_json(pp_json *json, const char *key, const pp_change *changes, int count,
                         bool faster) {
    pp_json_key(json, key);
    pp_json_array_flat(json);
    for (int i = 0; i < count; i++)
        pp_json_double(json, faster ? changes[i].faster_s : changes[i].slower_s);
    pp_json_end_array(json);
}

static void all_changes_json(const simulation *sim, bool faster, pp_json *json) {
    const pp_sensitivity *s = sim->sensitivity;
    int stages = sim->schedule->stages;
    changes_json(json, "forward", s->forward, stages, faster);
    changes_json(json, "input", s->input, stages, faster);
    changes_json(json, "weight", s->weight, stages, faster);
    changes_json(json, "border", s->border, stages, faster);
    if (sim->layers)
        changes_json(json, "layers", sim->layers, sim->plan->model->layer_count, faster);
}

static void sensitivity_json(const simulation *sim, pp_json *json) {
    pp_json_key(json, "sensitivity");
    pp_json_object(json);
    all_changes_json(sim, false, json);
    pp_json_key(json, "microbatches");
    pp_json_double(json, sim->sensitivity->microbatches_s);
    pp_json_key(json, "faster");
    pp_json_object(json);
    all_changes_json(sim, true, json);
    pp_json_end_object(json);
    pp_json_end_object(json);
}

void pp_simulate_repeat_json(const simulation *sim, pp_json *json) {
    if (sim->replications) replications_json(sim, json);
    if (sim->sensitivity) sensitivity_json(sim, json);
}

static void replications_text(const simulation *sim, pp_text *text) {
    const pp_replications *r = sim->replications;
    char low[32], middle[32], high[32], mean[32];
    pp_text_printf(text,
                   "\nof %d replications: step time %s (5 %%), %s (50 %%), %s (95 %%), mean %s\n",
                   r->count, pp_format_seconds(r->makespan_s.p5, low),
                   pp_format_seconds(r->makespan_s.p50, middle),
                   pp_format_seconds(r->makespan_s.p95, high), pp_format_seconds(r->mean_s, mean));
    pp_text_printf(text, "bubble %.4f, %.4f, %.4f; share in which a rank is critical:",
                   r->bubble_fraction.p5, r->bubble_fraction.p50, r->bubble_fraction.p95);
    for (int p = 0; p < sim->schedule->ranks; p++) pp_text_printf(text, " %.2f", r->critical[p]);
    pp_text_string(text, "\n");
    drawn_text(sim, text);
}

static void stages_text(const pp_sensitivity *s, int stages, pp_text *text) {
    pp_table table = pp_table_start("rrrrr");
    static const char *const heads[] = {"stage", "forward", "input", "weight", "border"};
    for (int i = 0; i < 5; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int i = 0; i < stages; i++) {
        const pp_change *columns[] = {s->forward, s->input, s->weight, s->border};
        char buffer[32];
        pp_table_cell(&table, "%d", i);
        for (int c = 0; c < 4; c++)
            pp_table_cell(&table, "%s", pp_format_seconds(columns[c][i].slower_s, buffer));
    }
    pp_table_print(&table, text);
}

static void layers_text(const simulation *sim, pp_text *text) {
    const pp_model *model = sim->plan->model;
    pp_table table = pp_table_start("lrr");
    static const char *const heads[] = {"layer", "more", "less"};
    for (int i = 0; i < 3; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int i = 0; i < model->layer_count; i++) {
        char more[32], less[32];
        pp_table_cell(&table, "%s", model->layers[i].name);
        pp_table_cell(&table, "%s", pp_format_seconds(sim->layers[i].slower_s, more));
        pp_table_cell(&table, "%s", pp_format_seconds(sim->layers[i].faster_s, less));
    }
    pp_text_string(text, "\nand one per cent more, or less, of each layer\n");
    pp_table_print(&table, text);
}

static void sensitivity_text(const simulation *sim, pp_text *text) {
    const pp_sensitivity *s = sim->sensitivity;
    char buffer[32];
    pp_text_string(text, "\none per cent more of this makes the step so much longer\n");
    stages_text(s, sim->schedule->stages, text);
    if (!isnan(s->microbatches_s))
        pp_text_printf(text, "microbatches: %s\n", pp_format_seconds(s->microbatches_s, buffer));
    if (sim->layers) layers_text(sim, text);
}

void pp_simulate_repeat_text(const simulation *sim, pp_text *text) {
    if (sim->replications) replications_text(sim, text);
    if (sim->sensitivity) sensitivity_text(sim, text);
}
