/* ppsim simulate: what goes beyond one step of a synchronous schedule. Stragglers, launch times and
 * reading of data; the weight versions of asynchronous schedules. */
#include "cli/simulate_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- disturbances -------------------------------------------------------------------------- */

/* "rank=3:1.5x", of `length` bytes: the x may be left out. */
static bool parse_slow(const char *text, size_t length, int ranks, int *rank, double *factor) {
    char number[32] = "", times[32] = "";
    int64_t value = -1;
    const char *colon = memchr(text, ':', length), *end = text + length;
    if (length < 5 || strncmp(text, "rank=", 5) != 0 || !colon) return false;
    size_t digits = (size_t)(colon - text) - 5, rest = (size_t)(end - colon) - 1;
    if (digits >= sizeof number || rest >= sizeof times) return false;
    memcpy(number, text + 5, digits);
    memcpy(times, colon + 1, rest);
    if (rest > 0 && times[rest - 1] == 'x') times[rest - 1] = '\0';
    bool fine =
        pp_parse_int(number, 0, ranks - 1, &value) && pp_parse_double(times, factor) && *factor > 0;
    *rank = (int)value;
    return fine;
}

/* "rank=3:1.5x,rank=5:2x" */
static pp_status slow_down(const simulate_settings *settings, simulation *sim, pp_error *error) {
    int stages = sim->schedule->stages, last = sim->schedule->ranks - 1;
    pp_stage_cost *stage = PP_NEW(&sim->arena, pp_stage_cost, stages);
    if (!stage) return pp_fail_memory(error);
    memcpy(stage, sim->input.stage, (size_t)stages * sizeof *stage);
    sim->input.stage = stage;
    for (const char *at = settings->slow;; at++) {
        int rank;
        double factor;
        size_t length = strcspn(at, ",");
        if (!parse_slow(at, length, last + 1, &rank, &factor))
            return pp_fail(error, PP_E_INPUT, "--slow",
                           "'%.*s' is not rank=P:FACTORx with a rank from 0 to %d, as in "
                           "rank=%d:1.5x; several are separated by commas",
                           (int)length, at, last, last);
        pp_slow_rank(sim->schedule, rank, factor, stage);
        at += length;
        if (*at == '\0') return PP_OK;
    }
}

#define JITTER_MAX 2.0 /* what is more was meant to be per cent */

static pp_status check_jitter(const char *option, double jitter, pp_error *error) {
    if (jitter <= JITTER_MAX) return PP_OK;
    return pp_fail(error, PP_E_INPUT, option, "%g %% is more than %g %%; write 5%% or 0.05",
                   100 * jitter, 100 * JITTER_MAX);
}

/* Draws and replications go together. */
static pp_status check_repeat(const simulate_settings *settings, pp_error *error) {
    const char *drawn = settings->db                    ? "--db"
                        : settings->jitter > 0          ? "--jitter"
                        : settings->transfer_jitter > 0 ? "--transfer-jitter"
                                                        : NULL;
    PP_TRY(check_jitter("--jitter", settings->jitter, error));
    PP_TRY(check_jitter("--transfer-jitter", settings->transfer_jitter, error));
    bool to_divide = settings->db && settings->sensitivity;
    if (drawn && !settings->replications && !to_divide)
        return pp_fail(error, PP_E_INPUT, drawn, "goes with --replications N");
    if (settings->replications && !drawn)
        return pp_fail(error, PP_E_INPUT, "--replications",
                       "needs --db, a store with samples of a plan's layers, or --jitter or "
                       "--transfer-jitter, the relative spread of durations, as in 5%%");
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
    PP_TRY(check_repeat(settings, error));
    if (settings->db && !sim->plan)
        return pp_fail(error, PP_E_INPUT, "--db",
                       "goes with a plan: of a schedule's stages it is not known which layers they "
                       "have");
    return PP_OK;
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
