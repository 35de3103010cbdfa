/* ppsim simulate: what goes beyond one step of a synchronous schedule. Stragglers, jitter and
 * launch times; how far step times spread and what they depend on; the weight versions of
 * asynchronous schedules. */
#include "cli/simulate_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- disturbances -------------------------------------------------------------------------- */

/* "rank=3:1.5x": the x may be left out. */
static pp_status parse_slow(const char *text, int ranks, int *rank, double *factor,
                            pp_error *error) {
    char number[32] = "", times[32] = "";
    int64_t value = -1;
    const char *colon = strchr(text, ':');
    if (strncmp(text, "rank=", 5) == 0 && colon && (size_t)(colon - text - 5) < sizeof number &&
        strlen(colon + 1) < sizeof times) {
        memcpy(number, text + 5, (size_t)(colon - text - 5));
        strcpy(times, colon + 1);
        size_t length = strlen(times);
        if (length > 0 && times[length - 1] == 'x') times[length - 1] = '\0';
    }
    bool fine =
        pp_parse_int(number, 0, ranks - 1, &value) && pp_parse_double(times, factor) && *factor > 0;
    *rank = (int)value;
    if (fine) return PP_OK;
    return pp_fail(error, PP_E_INPUT, "--slow",
                   "'%s' is not rank=P:FACTORx with a rank from 0 to %d, as in rank=%d:1.5x", text,
                   ranks - 1, ranks - 1);
}

static pp_status slow_down(const simulate_settings *settings, simulation *sim, pp_error *error) {
    int rank, stages = sim->schedule->stages;
    double factor;
    PP_TRY(parse_slow(settings->slow, sim->schedule->ranks, &rank, &factor, error));
    pp_stage_cost *stage = PP_NEW(&sim->arena, pp_stage_cost, stages);
    if (!stage) return pp_fail_memory(error);
    memcpy(stage, sim->input.stage, (size_t)stages * sizeof *stage);
    pp_slow_rank(sim->schedule, rank, factor, stage);
    sim->input.stage = stage;
    return PP_OK;
}

pp_status pp_simulate_disturb(const simulate_settings *settings, simulation *sim, pp_error *error) {
    if (settings->slow) PP_TRY(slow_down(settings, sim, error));
    if (settings->load_s > 0) sim->input.load_s = settings->load_s;
    if (settings->prefetch) sim->input.prefetch = true;
    if (settings->prefetch && sim->input.load_s <= 0)
        return pp_fail(error, PP_E_INPUT, "--prefetch",
                       "needs data to read: give --load-s, or a plan that has load_s");
    if (settings->reduce_buckets > PP_REDUCE_BUCKETS_MAX ||
        (settings->reduce_buckets && !sim->plan))
        return pp_fail(error, PP_E_INPUT, "--reduce-buckets",
                       "goes with a plan, whose stages reduce gradients, and is at most %d",
                       PP_REDUCE_BUCKETS_MAX);
    sim->input.launch_s = settings->launch_s;
    sim->input.transfer_slowdown = settings->transfer_slowdown;
    if ((settings->jitter > 0 || settings->db) && !settings->replications)
        return pp_fail(error, PP_E_INPUT, settings->db ? "--db" : "--jitter",
                       "goes with --replications N");
    if (settings->replications && !(settings->jitter > 0) && !settings->db)
        return pp_fail(error, PP_E_INPUT, "--replications",
                       "needs --db, a store with samples of a plan's layers, or --jitter, the "
                       "relative spread of durations, as in 5%%");
    if (settings->db && !sim->plan)
        return pp_fail(error, PP_E_INPUT, "--db",
                       "goes with a plan: of a schedule's stages it is not known which layers they "
                       "have");
    return PP_OK;
}

/* ---- repetition ---------------------------------------------------------------------------- */

/* The same schedule with twice the microbatches: what M is worth. */
static pp_status sensitivity(simulation *sim, pp_error *error) {
    pp_schedule *other = NULL;
    if (sim->family && sim->schedule->microbatches <= PP_MICROBATCHES_MAX / 4) {
        pp_schedule_request twice = sim->request;
        twice.microbatches *= 2;
        PP_TRY(pp_schedule_build(&twice, &other, error));
    }
    pp_status status = pp_measure_sensitivity(&sim->input, other, &sim->sensitivity, error);
    pp_schedule_free(other);
    return status;
}

pp_status pp_simulate_repeat(const simulate_settings *settings, simulation *sim, pp_error *error) {
    if (settings->replications) {
        sim->input.jitter = settings->jitter;
        if (settings->db)
            PP_TRY(
                pp_simulate_draws(settings->db, sim->plan, &sim->arena, &sim->input.draws, error));
        pp_status status =
            pp_simulate_replications(&sim->input, settings->replications, (uint64_t)settings->seed,
                                     &sim->replications, error);
        sim->input.jitter = 0;
        sim->input.draws = NULL;
        if (status != PP_OK) return status;
    }
    return settings->sensitivity ? sensitivity(sim, error) : PP_OK;
}

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

static void replications_json(const pp_replications *r, int ranks, pp_json *json) {
    pp_json_key(json, "replications");
    pp_json_object(json);
    pp_json_key(json, "count");
    pp_json_int(json, r->count);
    quantiles_json(json, "makespan", r->makespan_s);
    quantiles_json(json, "bubble_fraction", r->bubble_fraction);
    pp_json_key(json, "critical");
    pp_json_array_flat(json);
    for (int p = 0; p < ranks; p++) pp_json_double(json, r->critical[p]);
    pp_json_end_array(json);
    pp_json_end_object(json);
}

/* Seconds per per cent, slower. */
static void changes_json(pp_json *json, const char *key, const pp_change *changes, int count) {
    pp_json_key(json, key);
    pp_json_array_flat(json);
    for (int s = 0; s < count; s++) pp_json_double(json, changes[s].slower_s);
    pp_json_end_array(json);
}

static void sensitivity_json(const pp_sensitivity *s, int stages, pp_json *json) {
    pp_json_key(json, "sensitivity");
    pp_json_object(json);
    changes_json(json, "forward", s->forward, stages);
    changes_json(json, "input", s->input, stages);
    changes_json(json, "weight", s->weight, stages);
    changes_json(json, "border", s->border, stages);
    pp_json_key(json, "microbatches");
    pp_json_double(json, s->microbatches_s);
    pp_json_end_object(json);
}

void pp_simulate_extras_json(const simulation *sim, pp_json *json) {
    if (sim->replications) replications_json(sim->replications, sim->schedule->ranks, json);
    if (sim->sensitivity) sensitivity_json(sim->sensitivity, sim->schedule->stages, json);
}

static void replications_text(const pp_replications *r, int ranks, pp_text *text) {
    char low[32], middle[32], high[32];
    pp_text_printf(text, "\nof %d replications: step time %s (5 %%), %s (50 %%), %s (95 %%)\n",
                   r->count, pp_format_seconds(r->makespan_s.p5, low),
                   pp_format_seconds(r->makespan_s.p50, middle),
                   pp_format_seconds(r->makespan_s.p95, high));
    pp_text_printf(text, "bubble %.4f, %.4f, %.4f; share in which a rank is critical:",
                   r->bubble_fraction.p5, r->bubble_fraction.p50, r->bubble_fraction.p95);
    for (int p = 0; p < ranks; p++) pp_text_printf(text, " %.2f", r->critical[p]);
    pp_text_string(text, "\n");
}

static void sensitivity_text(const pp_sensitivity *s, int stages, pp_text *text) {
    pp_table table = pp_table_start("rrrrr");
    static const char *const heads[] = {"stage", "forward", "input", "weight", "border"};
    pp_text_string(text, "\nstep time gained by one per cent more of\n");
    for (int i = 0; i < 5; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int i = 0; i < stages; i++) {
        const pp_change *columns[] = {s->forward, s->input, s->weight, s->border};
        char buffer[32];
        pp_table_cell(&table, "%d", i);
        for (int c = 0; c < 4; c++)
            pp_table_cell(&table, "%s", pp_format_seconds(columns[c][i].slower_s, buffer));
    }
    pp_table_print(&table, text);
    char buffer[32];
    if (!isnan(s->microbatches_s))
        pp_text_printf(text, "microbatches: %s\n", pp_format_seconds(s->microbatches_s, buffer));
}

void pp_simulate_extras_text(const simulation *sim, pp_text *text) {
    if (sim->replications) replications_text(sim->replications, sim->schedule->ranks, text);
    if (sim->sensitivity) sensitivity_text(sim->sensitivity, sim->schedule->stages, text);
}

/* ---- asynchronous schedules ---------------------------------------------------------------- */

void pp_simulate_async_json(const simulation *sim, pp_json *json) {
    if (!sim->family || !sim->family->async) return;
    pp_json_key(json, "steady_bubble_fraction");
    pp_json_double(json, pp_steady_bubble_fraction(sim->result));
    pp_json_key(json, "async");
    pp_json_array(json);
    for (int p = 0; p < sim->schedule->ranks; p++) {
        pp_async_rank rank = pp_async_rank_of(&sim->request, p);
        pp_json_object_flat(json);
        pp_json_key(json, "weight_versions");
        pp_json_int(json, rank.weight_versions);
        pp_json_key(json, "weight_copies");
        pp_json_int(json, rank.weight_copies);
        pp_json_key(json, "delay");
        pp_json_int(json, rank.delay);
        pp_json_key(json, "forward_ahead");
        pp_json_int(json, rank.forward_ahead);
        pp_json_key(json, "backward_ahead");
        pp_json_int(json, rank.backward_ahead);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
}

void pp_simulate_async_text(const simulation *sim, pp_text *text) {
    if (!sim->family || !sim->family->async) return;
    double steady = pp_steady_bubble_fraction(sim->result);
    if (!isnan(steady)) pp_text_printf(text, "steady state  bubble %.4f\n", steady);
    pp_table table = pp_table_start("rrrrrr");
    static const char *const heads[] = {"rank",  "versions",      "copies",
                                        "delay", "forward ahead", "backward ahead"};
    for (int i = 0; i < 6; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int p = 0; p < sim->schedule->ranks; p++) {
        pp_async_rank rank = pp_async_rank_of(&sim->request, p);
        const int cells[] = {p,          rank.weight_versions, rank.weight_copies,
                             rank.delay, rank.forward_ahead,   rank.backward_ahead};
        for (int i = 0; i < 6; i++) pp_table_cell(&table, "%d", cells[i]);
    }
    pp_text_string(text, "\n");
    pp_table_print(&table, text);
}
