/* ppsim simulate --schedule: a schedule by name, from a file or made to measure, with costs for a
 * rank or for each stage. */
#include "cli/simulate_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the schedule -------------------------------------------------------------------------- */

static pp_status open_schedule_file(const simulate_settings *settings, simulation *sim,
                                    pp_error *error) {
    pp_check_report report = {0};
    PP_TRY(pp_schedule_open(settings->schedule, &sim->schedule, error));
    const pp_schedule *s = sim->schedule;
    PP_TRY(pp_named_schedule_agrees(&settings->named, s, settings->schedule, error));
    pp_status status = pp_schedule_check(s, settings->blocking, &report, error);
    pp_free(report.peak_activations);
    if (status != PP_OK && error->place[0] == '\0')
        snprintf(error->place, sizeof error->place, "%s", settings->schedule);
    return status;
}

/* Costs are given for stages on ranks, and `auto` needs them before it has an order: until then a
 * named schedule of the same shape stands in. */
static pp_status shape_of_auto(const simulate_settings *settings, pp_schedule_request *request,
                               pp_error *error) {
    if (pp_named_schedule_options(&settings->named))
        return pp_fail(error, PP_E_INPUT, "auto",
                       "makes its own order: leave out --group, --slices, --recompute and "
                       "--reverse-backward");
    if (request->virtual_stages > 2)
        return pp_fail(error, PP_E_INPUT, "-V",
                       "auto takes one stage on each rank, or two in a V, "
                       "not %d",
                       request->virtual_stages);
    request->name = request->virtual_stages == 2 ? "zbv" : "1f1b";
    return PP_OK;
}

static pp_status build_schedule(const simulate_settings *settings, simulation *sim,
                                pp_error *error) {
    if (pp_named_schedule_is_file(settings->schedule))
        return open_schedule_file(settings, sim, error);
    if (!settings->named.ranks || !settings->named.microbatches)
        return pp_fail(error, PP_E_INPUT, "--schedule",
                       "a schedule by name needs -K (ranks) and -M (microbatches)");
    pp_schedule_request request;
    PP_TRY(pp_named_schedule_request(&settings->named, settings->schedule, &request, error));
    sim->is_auto = strcmp(settings->schedule, "auto") == 0;
    if (sim->is_auto) PP_TRY(shape_of_auto(settings, &request, error));
    sim->family = sim->is_auto ? NULL : pp_schedule_family_find(request.name);
    sim->request = request;
    return pp_schedule_build(&request, &sim->schedule, error);
}

/* ---- costs --------------------------------------------------------------------------------- */

/* Splits a line at commas into at most `capacity` non-negative numbers; -1 if one is not. */
static int parse_numbers(const char *line, size_t length, double *numbers, int capacity) {
    int count = 0;
    for (size_t start = 0; start <= length; count++) {
        char cell[64];
        const char *comma = memchr(line + start, ',', length - start);
        size_t size = comma ? (size_t)(comma - line) - start : length - start;
        if (count == capacity || size >= sizeof cell) return -1;
        memcpy(cell, line + start, size);
        cell[size] = '\0';
        char *trimmed = cell + strspn(cell, " \t");
        for (size_t end = strlen(trimmed); end > 0 && strchr(" \t\r", trimmed[end - 1]); end--)
            trimmed[end - 1] = '\0';
        if (!pp_parse_double(trimmed, &numbers[count]) || numbers[count] < 0) return -1;
        start += size + 1;
    }
    return count;
}

static void set_transfer(simulation *sim, pp_border_cost *border, double transfer_s) {
    for (int s = 0; s < sim->schedule->stages; s++) border[s].latency_s = transfer_s;
    sim->input.border = border;
}

/* Recomputation inside the backward passes: every:N goes forward through the whole stage once more,
 * whatever N. Of anything else that happens there these costs say nothing. */
static pp_status recompute_inside(const simulate_settings *settings, const simulation *sim,
                                  pp_stage_cost *stage, pp_error *error) {
    pp_recompute policy = sim->request.recompute;
    if (!pp_recompute_is_inside(policy)) return PP_OK;
    if (policy == PP_RECOMPUTE_ATTENTION)
        return pp_fail(error, PP_E_INPUT, "--recompute",
                       "the costs do not say how long the attention core takes: add that to I and "
                       "leave --recompute out, or simulate a plan");
    if (!settings->costs)
        return pp_fail(
            error, PP_E_INPUT, "--recompute",
            "--stage-costs do not say what every:N keeps: give the kept bytes, and F + I "
            "as input_s, and leave --recompute out, or simulate a plan");
    for (int s = 0; s < sim->schedule->stages; s++) stage[s].input_s += stage[s].forward_s;
    return PP_OK;
}

/* --costs: per rank and microbatch. Each of V virtual stages takes 1/V of them; of several chains
 * every visit takes the full cost. */
static pp_status costs_per_rank(const simulate_settings *settings, simulation *sim,
                                pp_error *error) {
    double c[4] = {0};
    int stages = sim->schedule->stages;
    int count = parse_numbers(settings->costs, strlen(settings->costs), c, 4);
    if (count < 3)
        return pp_fail(error, PP_E_INPUT, "--costs",
                       "'%s' is not F,I,W or F,I,W,C: three or four numbers, 0 or more",
                       settings->costs);
    pp_stage_cost *stage = PP_NEW(&sim->arena, pp_stage_cost, stages);
    pp_border_cost *border = PP_NEW(&sim->arena, pp_border_cost, stages);
    if (!stage || !border) return pp_fail_memory(error);
    double parts = sim->schedule->chain_count > 1 ? 1 : sim->schedule->virtual_stages;
    for (int s = 0; s < stages; s++)
        stage[s] = (pp_stage_cost){.forward_s = c[0] / parts,
                                   .input_s = c[1] / parts,
                                   .weight_s = c[2] / parts,
                                   .recompute_s = c[0] / parts};
    PP_TRY(recompute_inside(settings, sim, stage, error));
    sim->input.stage = stage;
    set_transfer(sim, border, c[3]);
    sim->is_uniform = true;
    sim->uniform = (pp_uniform){stage[0].forward_s, stage[0].input_s, stage[0].weight_s, c[3]};
    return PP_OK;
}

#define UTF8_MARK "\xef\xbb\xbf" /* that some spreadsheets begin with */
#define STAGE_COSTS_HEADER "forward_s,input_s,weight_s,activation_bytes,released_by_input_bytes"

static pp_status bad_row(const char *path, int line, const char *what, pp_error *error) {
    char place[300];
    snprintf(place, sizeof place, "%s:%d", path, line);
    return pp_fail(error, PP_E_INPUT, place, "%s", what);
}

/* The next line of a text, without its end; false at the end of the text. */
static bool next_line(const char **cursor, const char **line, size_t *length) {
    if (**cursor == '\0') return false;
    *line = *cursor;
    *length = strcspn(*cursor, "\n");
    *cursor += *length + ((*cursor)[*length] == '\n');
    if (*length > 0 && (*line)[*length - 1] == '\r') (*length)--;
    return true;
}

/* Rows of the stage-costs file into stage, bytes and release, [stages] each. */
static pp_status read_rows(const char *path, const char *text, int stages, pp_stage_cost *stage,
                           pp_stage_bytes *bytes, pp_error *error) {
    const char *line;
    size_t length;
    int row = 0, number = 1;
    if (strncmp(text, UTF8_MARK, strlen(UTF8_MARK)) == 0) text += strlen(UTF8_MARK);
    bool some = next_line(&text, &line, &length);
    for (; some && (length == 0 || *line == '#'); number++) some = next_line(&text, &line, &length);
    if (!some || length != strlen(STAGE_COSTS_HEADER) ||
        memcmp(line, STAGE_COSTS_HEADER, length) != 0)
        return bad_row(path, number, "expected the header " STAGE_COSTS_HEADER, error);
    while (next_line(&text, &line, &length)) {
        double c[5];
        number++;
        if (length == 0 || *line == '#') continue;
        if (parse_numbers(line, length, c, 5) != 5)
            return bad_row(path, number, "expected five numbers, 0 or more", error);
        if (c[3] > 4e18) return bad_row(path, number, "activation_bytes is more than 4e18", error);
        if (c[4] > c[3])
            return bad_row(path, number, "released_by_input_bytes is more than activation_bytes",
                           error);
        if (row == stages)
            return bad_row(path, number, "more rows than the schedule has stages", error);
        stage[row] = (pp_stage_cost){
            .forward_s = c[0], .input_s = c[1], .weight_s = c[2], .recompute_s = c[0]};
        bytes[row].activation = (int64_t)nearbyint(c[3]);
        bytes[row].released_by_input = (int64_t)nearbyint(c[4]);
        row++;
    }
    if (row == stages) return PP_OK;
    return pp_fail(error, PP_E_INPUT, path,
                   "fewer rows than the schedule has stages: %d of %d (ranks times virtual stages)",
                   row, stages);
}

/* N times the largest, over ranks, sum of its own stages' activation bytes. */
static double limit_in_bytes(const pp_schedule *schedule, const pp_stage_bytes *bytes, double n) {
    double largest = 0;
    for (int p = 0; p < schedule->ranks; p++) {
        double sum = 0;
        for (int s = 0; s < schedule->stages; s++)
            if (schedule->placement[s] == p) sum += (double)bytes[s].activation;
        if (sum > largest) largest = sum;
    }
    return n * largest;
}

static bool equal_stages(const pp_stage_cost *stage, int stages) {
    for (int s = 1; s < stages; s++)
        if (stage[s].forward_s != stage[0].forward_s || stage[s].input_s != stage[0].input_s ||
            stage[s].weight_s != stage[0].weight_s)
            return false;
    return true;
}

static pp_status costs_per_stage(const simulate_settings *settings, simulation *sim,
                                 pp_error *error) {
    int stages = sim->schedule->stages;
    pp_text file;
    pp_stage_cost *stage = PP_NEW(&sim->arena, pp_stage_cost, stages);
    pp_border_cost *border = PP_NEW(&sim->arena, pp_border_cost, stages);
    pp_stage_bytes *bytes = PP_NEW(&sim->arena, pp_stage_bytes, stages);
    double *weight = PP_NEW(&sim->arena, double, stages);
    double *released = PP_NEW(&sim->arena, double, stages);
    if (sim->arena.failed) return pp_fail_memory(error);
    PP_TRY(pp_file_read(settings->stage_costs, PP_FILE_LIMIT_BYTES, &file, error));
    pp_status status = read_rows(settings->stage_costs, file.bytes, stages, stage, bytes, error);
    pp_text_deinit(&file);
    if (status != PP_OK) return status;
    for (int s = 0; s < stages; s++) {
        weight[s] = 1.0 / sim->schedule->virtual_stages;
        if (bytes[s].activation > 0)
            released[s] =
                weight[s] * (double)bytes[s].released_by_input / (double)bytes[s].activation;
    }
    PP_TRY(recompute_inside(settings, sim, stage, error));
    sim->input.stage = stage;
    sim->input.bytes = bytes;
    sim->input.activation_weight = weight;
    sim->input.released_by_input_weight = released;
    sim->activation_limit_bytes =
        settings->activation_bytes
            ? (double)settings->activation_bytes
            : limit_in_bytes(sim->schedule, bytes, settings->activation_limit);
    set_transfer(sim, border, settings->comm_s);
    sim->is_uniform = equal_stages(stage, stages);
    sim->uniform =
        (pp_uniform){stage[0].forward_s, stage[0].input_s, stage[0].weight_s, settings->comm_s};
    return PP_OK;
}

/* ---- auto ---------------------------------------------------------------------------------- */

static double *as_doubles(pp_arena *arena, const pp_stage_bytes *bytes, int stages, bool released) {
    double *values = PP_NEW(arena, double, stages);
    for (int s = 0; values && s < stages; s++)
        values[s] = (double)(released ? bytes[s].released_by_input : bytes[s].activation);
    return values;
}

/* Limits are weights with --costs, and bytes where bytes are known. */
static pp_status limits_of_auto(const simulate_settings *settings, simulation *sim,
                                pp_auto_request *request, pp_error *error) {
    const pp_schedule *shape = sim->schedule;
    double limit = sim->input.bytes ? sim->activation_limit_bytes : settings->activation_limit;
    double *limits = PP_NEW(&sim->arena, double, shape->ranks);
    if (sim->input.bytes) {
        request->activation_weight =
            as_doubles(&sim->arena, sim->input.bytes, shape->stages, false);
        request->released_by_input_weight =
            as_doubles(&sim->arena, sim->input.bytes, shape->stages, true);
    }
    if (sim->arena.failed) return pp_fail_memory(error);
    for (int p = 0; p < shape->ranks; p++) limits[p] = limit;
    request->limit = limit > 0 ? limits : NULL;
    return PP_OK;
}

static pp_status make_auto(const simulate_settings *settings, simulation *sim, pp_error *error) {
    bool span = settings->objective && strcmp(settings->objective, "span") == 0;
    pp_auto_request request = {.ranks = sim->schedule->ranks,
                               .microbatches = sim->schedule->microbatches,
                               .virtual_stages = sim->schedule->virtual_stages,
                               .stage = sim->input.stage,
                               .border = sim->input.border,
                               .objective = span ? PP_AUTO_SPAN : PP_AUTO_MAKESPAN,
                               .seed = (uint64_t)settings->seed,
                               .budget = settings->budget};
    PP_TRY(limits_of_auto(settings, sim, &request, error));
    PP_TRY(pp_auto_schedule(&request, &sim->made, error));
    pp_schedule_free(sim->schedule);
    sim->schedule = sim->made.schedule;
    return PP_OK;
}

/* An asynchronous schedule needs room for more than one version of its weights, and its steady
 * state is read off the spans. */
static pp_status copies_of_weights(simulation *sim, pp_error *error) {
    if (!sim->family || !sim->family->async) return PP_OK;
    int *copies = PP_NEW(&sim->arena, int, sim->schedule->ranks);
    if (!copies) return pp_fail_memory(error);
    for (int p = 0; p < sim->schedule->ranks; p++)
        copies[p] = pp_async_rank_of(&sim->request, p).weight_copies;
    sim->input.weight_copies = copies;
    sim->input.keep_spans = true;
    return PP_OK;
}

/* ---- patterns made for equal times ----------------------------------------------------------- */

/* F, I and W take equal times on all stages and transfers none: the pattern as published. */
static bool times_are_equal(const simulation *sim) {
    const pp_uniform *u = &sim->uniform;
    return sim->is_uniform && u->transfer_s == 0 && u->forward_s == u->input_s &&
           u->forward_s == u->weight_s;
}

/* Elsewhere the order is made for the times given, within the same memory. */
static pp_status fit_to_times(simulation *sim, pp_error *error) {
    if (!sim->family || !sim->family->equal_times || times_are_equal(sim)) return PP_OK;
    if (sim->request.recompute != PP_RECOMPUTE_NONE) return PP_OK;
    pp_schedule *better;
    sim->input.schedule = sim->schedule;
    PP_TRY(pp_schedule_retime(&sim->input, &sim->request, &better, error));
    if (!better) return PP_OK;
    pp_schedule_free(sim->schedule);
    sim->schedule = better;
    return PP_OK;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static pp_status check_settings(const simulate_settings *settings, pp_error *error) {
    bool is_auto = strcmp(settings->schedule, "auto") == 0;
    if (!settings->costs == !settings->stage_costs)
        return pp_fail(error, PP_E_INPUT, NULL,
                       settings->costs
                           ? "give --costs or --stage-costs, not both"
                           : "--schedule needs --costs F,I,W[,C] or --stage-costs FILE");
    if (settings->costs && settings->activation_bytes)
        return pp_fail(error, PP_E_INPUT, "--activation-bytes", "needs --stage-costs or a plan");
    if (settings->costs && settings->comm_s > 0)
        return pp_fail(error, PP_E_INPUT, "--comm",
                       "goes with --stage-costs; with --costs give the transfer as fourth number");
    if (!is_auto && (settings->objective || settings->budget))
        return pp_fail(error, PP_E_INPUT, settings->schedule,
                       "--objective and --budget are for --schedule auto");
    return PP_OK;
}

pp_status pp_simulate_describe(const simulate_settings *settings, simulation *sim,
                               pp_error *error) {
    PP_TRY(check_settings(settings, error));
    PP_TRY(build_schedule(settings, sim, error));
    PP_TRY(settings->costs ? costs_per_rank(settings, sim, error)
                           : costs_per_stage(settings, sim, error));
    if (sim->is_auto) PP_TRY(make_auto(settings, sim, error));
    PP_TRY(fit_to_times(sim, error));
    sim->input.schedule = sim->schedule;
    sim->input.blocking = settings->blocking;
    sim->input.overlap_factor = settings->overlap_factor;
    sim->input.keep_spans = settings->trace != NULL;
    return copies_of_weights(sim, error);
}
