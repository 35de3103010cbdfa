/* ppsim simulate: times a plan, or a schedule with given costs.
 *
 * Both ways end in one pp_sim_result; what differs is where the costs come from (DESIGN.md,
 * "Simulator" and "Command line"). */
#include "cli/cli.h"
#include "sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct simulate_settings {
    pp_named_schedule named;
    const char *schedule, *costs, *stage_costs, *trace;
    double comm_s, overlap_factor, activation_limit;
    int64_t activation_bytes;
    bool blocking, json;
} simulate_settings;

static const pp_option options[] = {
    {0, "schedule", NULL, "NAME|FILE", NULL, PP_OPTION_STRING,
     offsetof(simulate_settings, schedule), "a schedule by name, or a file (.csv, .json)"},
    PP_NAMED_SCHEDULE_OPTIONS(simulate_settings),
    {0, "costs", NULL, "F,I,W[,C]", NULL, PP_OPTION_STRING, offsetof(simulate_settings, costs),
     "seconds per rank and microbatch: forward, backward for the input, backward for the weights, "
     "transfer"},
    {0, "stage-costs", NULL, "FILE", NULL, PP_OPTION_STRING,
     offsetof(simulate_settings, stage_costs),
     "CSV, a row per stage: forward_s,input_s,weight_s,activation_bytes,released_by_input_bytes"},
    {0, "comm", NULL, "C", NULL, PP_OPTION_SECONDS, offsetof(simulate_settings, comm_s),
     "seconds per transfer, with --stage-costs"},
    {0, "activation-limit", NULL, "N", NULL, PP_OPTION_FACTOR,
     offsetof(simulate_settings, activation_limit),
     "each rank may hold activations of weight N at most (exit 3 if the schedule holds more)"},
    {0, "activation-bytes", NULL, "B", NULL, PP_OPTION_BYTES,
     offsetof(simulate_settings, activation_bytes),
     "each rank may hold B bytes of activations at most, with --stage-costs or a plan"},
    {0, "overlap-factor", NULL, "X", NULL, PP_OPTION_FACTOR,
     offsetof(simulate_settings, overlap_factor),
     "an overlapped pair takes the sum of its parts times X (default 1)"},
    {0, "blocking", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(simulate_settings, blocking),
     "sender and receiver are both held during a transfer"},
    {0, "json", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(simulate_settings, json), "print JSON"},
    {0, "trace", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(simulate_settings, trace),
     "write the timeline as a Chrome trace (Perfetto opens it)"},
};

/* Everything one simulation needs, whichever way it was described. */
typedef struct simulation {
    pp_plan *plan;
    pp_schedule *schedule;
    pp_sim_input input;
    pp_uniform uniform; /* valid where is_uniform */
    bool is_uniform;
    double activation_limit_bytes; /* 0: none */
    pp_sim_result *result;
    pp_arena arena;
} simulation;

/* ---- the schedule -------------------------------------------------------------------------- */

static bool is_file_name(const char *name) {
    return strchr(name, '/') || strchr(name, '.');
}

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

static pp_status build_schedule(const simulate_settings *settings, simulation *sim,
                                pp_error *error) {
    if (is_file_name(settings->schedule)) return open_schedule_file(settings, sim, error);
    if (!settings->named.ranks || !settings->named.microbatches)
        return pp_fail(error, PP_E_INPUT, "--schedule",
                       "a schedule by name needs -K (ranks) and -M (microbatches)");
    pp_schedule_request request;
    pp_named_schedule_request(&settings->named, settings->schedule, &request);
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
    sim->input.stage = stage;
    set_transfer(sim, border, c[3]);
    sim->is_uniform = true;
    sim->uniform = (pp_uniform){c[0] / parts, c[1] / parts, c[2] / parts, c[3]};
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
    if (row < stages)
        return bad_row(path, number, "fewer rows than the schedule has stages", error);
    return PP_OK;
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

/* ---- running it ---------------------------------------------------------------------------- */

static pp_status check_limits(const simulate_settings *settings, const simulation *sim,
                              pp_error *error) {
    for (int p = 0; p < sim->schedule->ranks; p++) {
        const pp_sim_rank *rank = &sim->result->rank[p];
        double held = (double)rank->peak.activations;
        if (sim->activation_limit_bytes > 0 && held > sim->activation_limit_bytes)
            return pp_fail(error, PP_E_NO_FIT, NULL,
                           "rank %d holds %.0f bytes of activations, the limit is %.0f: try fewer "
                           "microbatches in flight or another schedule",
                           p, held, sim->activation_limit_bytes);
        if (!sim->input.bytes && settings->activation_limit > 0 &&
            rank->peak_activation_weight > settings->activation_limit * (1 + 1e-12))
            return pp_fail(error, PP_E_NO_FIT, NULL,
                           "rank %d holds activations of weight %g, the limit is %g: try fewer "
                           "microbatches in flight or another schedule",
                           p, rank->peak_activation_weight, settings->activation_limit);
    }
    return PP_OK;
}

static pp_status simulate_schedule(const simulate_settings *settings, simulation *sim,
                                   pp_error *error) {
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
    PP_TRY(build_schedule(settings, sim, error));
    PP_TRY(settings->costs ? costs_per_rank(settings, sim, error)
                           : costs_per_stage(settings, sim, error));
    sim->input.schedule = sim->schedule;
    sim->input.blocking = settings->blocking;
    sim->input.overlap_factor = settings->overlap_factor;
    sim->input.keep_spans = settings->trace != NULL;
    return pp_simulate(&sim->input, &sim->result, error);
}

static pp_status simulate_plan(const simulate_settings *settings, const char *path, simulation *sim,
                               pp_error *error) {
    if (settings->schedule || settings->costs || settings->stage_costs || settings->named.ranks ||
        settings->named.microbatches || settings->named.virtual_stages ||
        pp_named_schedule_options(&settings->named) || settings->comm_s > 0)
        return pp_fail(error, PP_E_INPUT, path,
                       "a plan already says its schedule and costs: leave out --schedule, "
                       "--costs, --stage-costs, --comm, -K, -M, -V, --group, --slices, "
                       "--reverse-backward and --recompute");
    if (settings->overlap_factor > 0)
        return pp_fail(error, PP_E_INPUT, "--overlap-factor",
                       "goes with --schedule, not with a plan");
    PP_TRY(pp_plan_open(path, &sim->plan, error));
    if (settings->blocking) sim->plan->blocking = true;
    sim->activation_limit_bytes = (double)settings->activation_bytes;
    pp_status status =
        pp_simulate_plan(sim->plan, settings->trace != NULL, &sim->schedule, &sim->result, error);
    return pp_in_document(status, path, error);
}

/* ---- saying it ----------------------------------------------------------------------------- */

/* The closed form of this schedule where it applies, else NAN. */
static double closed_form(const simulate_settings *settings, const simulation *sim) {
    const pp_uniform *u = &sim->uniform;
    if (!sim->is_uniform || is_file_name(settings->schedule) || settings->blocking ||
        u->transfer_s > 0 || u->forward_s + u->input_s + u->weight_s <= 0)
        return NAN;
    const pp_schedule_family *family = pp_schedule_family_find(settings->schedule);
    pp_schedule_request request;
    pp_named_schedule_request(&settings->named, settings->schedule, &request);
    request.virtual_stages = sim->schedule->virtual_stages;
    if (!family || !family->closed_form_bubble) return NAN;
    return family->closed_form_bubble(&request, &sim->uniform);
}

static double throughput(const simulation *sim) {
    int64_t units =
        sim->plan ? sim->plan->global_batch : pp_schedule_all_microbatches(sim->schedule);
    return (double)units / sim->result->makespan_s;
}

static void bytes_or_null(pp_json *json, const char *key, int64_t bytes) {
    pp_json_key(json, key);
    if (bytes < 0)
        pp_json_null(json);
    else
        pp_json_int(json, bytes);
}

static void rank_json(const pp_sim_rank *rank, pp_json *json) {
    pp_json_object_flat(json);
    pp_json_key(json, "busy");
    pp_json_double(json, rank->busy_s);
    pp_json_key(json, "idle");
    pp_json_double(json, rank->idle_s);
    pp_json_key(json, "bubble_fraction");
    pp_json_double(json, rank->bubble_fraction);
    pp_json_key(json, "peak_activations");
    pp_json_double(json, rank->peak_activations);
    pp_json_key(json, "peak_activation_weight");
    pp_json_double(json, rank->peak_activation_weight);
    bytes_or_null(json, "peak_bytes", rank->peak.total);
    pp_json_key(json, "bytes");
    pp_json_object(json);
    bytes_or_null(json, "parameters", rank->peak.parameters);
    bytes_or_null(json, "gradients", rank->peak.gradients);
    bytes_or_null(json, "optimizer", rank->peak.optimizer);
    bytes_or_null(json, "activations", rank->peak.activations);
    bytes_or_null(json, "weight_versions", rank->peak.weight_versions);
    bytes_or_null(json, "buffers", rank->peak.buffers);
    pp_json_end_object(json);
    pp_json_end_object(json);
}

static void print_json(const simulate_settings *settings, const simulation *sim, pp_text *text) {
    const pp_sim_result *r = sim->result;
    const pp_schedule *s = sim->schedule;
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"makespan", r->makespan_s},
                   {"span", r->span_s},
                   {"bubble_fraction", r->bubble_fraction},
                   {"span_bubble_fraction", r->span_bubble_fraction},
                   {"closed_form_bubble", closed_form(settings, sim)},
                   {"lower_bound", r->lower_bound_s},
                   {"gap", r->gap},
                   {"throughput", throughput(sim)}};
    pp_json json = pp_json_start(text);
    pp_json_object(&json);
    pp_json_key(&json, "schedule");
    pp_json_string(&json, s->name);
    pp_json_key(&json, "ranks");
    pp_json_int(&json, s->ranks);
    pp_json_key(&json, "microbatches");
    pp_json_int(&json, pp_schedule_all_microbatches(s));
    pp_json_key(&json, "virtual");
    pp_json_int(&json, s->virtual_stages);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        pp_json_key(&json, numbers[i].key);
        pp_json_double(&json, numbers[i].value);
    }
    pp_json_key(&json, "actions");
    pp_json_int(&json, (int64_t)r->action_count);
    pp_json_key(&json, "rank");
    pp_json_array(&json);
    for (int p = 0; p < s->ranks; p++) rank_json(&r->rank[p], &json);
    pp_json_end_array(&json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}

static void print_ranks(const simulation *sim, pp_text *text) {
    bool bytes = sim->result->rank[0].peak.total >= 0;
    pp_table table = pp_table_start(bytes ? "rrrrrr" : "rrrrr");
    static const char *const heads[] = {"rank", "busy", "idle", "bubble", "activations", "peak"};
    for (int i = 0; i < 5 + bytes; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int p = 0; p < sim->schedule->ranks; p++) {
        const pp_sim_rank *rank = &sim->result->rank[p];
        char busy[32], idle[32], peak[32];
        pp_table_cell(&table, "%d", p);
        pp_table_cell(&table, "%s", pp_format_seconds(rank->busy_s, busy));
        pp_table_cell(&table, "%s", pp_format_seconds(rank->idle_s, idle));
        pp_table_cell(&table, "%.2f %%", 100 * rank->bubble_fraction);
        pp_table_cell(&table, "%.4g", rank->peak_activations);
        if (bytes) pp_table_cell(&table, "%s", pp_format_bytes((double)rank->peak.total, peak));
    }
    pp_table_print(&table, text);
}

static void print_text(const simulate_settings *settings, const simulation *sim, pp_text *text) {
    const pp_sim_result *r = sim->result;
    const pp_schedule *s = sim->schedule;
    char time[32], bound[32];
    pp_text_printf(text, "%s: K=%d M=%lld V=%d, %zu compute actions\n", s->name, s->ranks,
                   (long long)pp_schedule_all_microbatches(s), s->virtual_stages, r->action_count);
    pp_text_printf(text, "step time    %s (%.4g %s/s)\n", pp_format_seconds(r->makespan_s, time),
                   throughput(sim), sim->plan ? "samples" : "microbatches");
    pp_text_printf(text, "bubble       %.4f", r->bubble_fraction);
    double closed = closed_form(settings, sim);
    if (!isnan(closed)) pp_text_printf(text, ", closed form %.4f", closed);
    pp_text_printf(text, "; of the span %.4f\n", r->span_bubble_fraction);
    pp_text_printf(text, "lower bound  %s, gap %.2f %%\n\n",
                   pp_format_seconds(r->lower_bound_s, bound), 100 * r->gap);
    print_ranks(sim, text);
}

static pp_status check_settings(const simulate_settings *settings, const char *plan,
                                pp_error *error) {
    const char *inputs[] = {plan, settings->schedule, settings->stage_costs};
    if (!plan && !settings->schedule)
        return pp_fail(error, PP_E_INPUT, NULL, "ppsim simulate needs a PLAN or --schedule");
    if (settings->activation_limit > 0 && settings->activation_bytes)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "give --activation-limit or --activation-bytes, not both");
    return pp_check_output(settings->trace, inputs, 3, error);
}

static pp_status run_simulate(const void *settings_, const char *const *arguments, int count,
                              pp_output *output, pp_error *error) {
    const simulate_settings *settings = settings_;
    simulation sim = {0};
    pp_arena_init(&sim.arena);
    pp_status status = check_settings(settings, count == 1 ? arguments[0] : NULL, error);
    if (status == PP_OK)
        status = count == 1 ? simulate_plan(settings, arguments[0], &sim, error)
                            : simulate_schedule(settings, &sim, error);
    if (status == PP_OK) status = check_limits(settings, &sim, error);
    if (status == PP_OK && settings->trace)
        status = pp_write_trace(settings->trace, sim.result->trace, error);
    if (status == PP_OK) (settings->json ? print_json : print_text)(settings, &sim, &output->out);
    pp_sim_result_free(sim.result);
    pp_schedule_free(sim.schedule);
    pp_plan_free(sim.plan);
    pp_arena_deinit(&sim.arena);
    return status;
}

const pp_subcommand pp_cmd_simulate = {
    .name = "simulate",
    .arguments = "[PLAN]",
    .maximum_arguments = 1,
    .summary = "computes step time, bubble and memory of a plan or schedule",
    .description =
        "Give a PLAN, or --schedule with --costs (uniform stages) or --stage-costs (a row per "
        "stage). The bubble fraction is 1 - busy / (K * step time); for GPipe and 1F1B on equal "
        "stages that is (K-1)/(M+K-1). 'of the span' is the measure of the zero-bubble papers.",
    PP_OPTIONS(options),
    .settings_size = sizeof(simulate_settings),
    .run = run_simulate,
};
