/* ppsim simulate: times a plan, or a schedule with given costs.
 *
 * Both ways end in one pp_sim_result; what differs is where the costs come from. */
#include "cli/simulate_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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
    {0, "objective", NULL, "WHAT", "makespan|span", PP_OPTION_STRING,
     offsetof(simulate_settings, objective),
     "what auto makes short first: the makespan (default) or the span, the longest time from a "
     "rank's "
     "first start to its own last end (the measure of the zero-bubble papers)"},
    {0, "seed", NULL, "N", NULL, PP_OPTION_NUMBER, offsetof(simulate_settings, seed),
     "of --replications, and of auto: another seed may find another schedule"},
    {0, "budget", NULL, "N", NULL, PP_OPTION_NUMBER, offsetof(simulate_settings, budget),
     "auto: how many actions it may time (default: about half a second's)"},
    {0, "replications", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(simulate_settings, replications),
     "simulate N times with durations drawn anew, from --db or by --jitter and --transfer-jitter: "
     "mean, quantiles, and which ranks are critical"},
    {0, "db", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(simulate_settings, db),
     "--replications of a plan draw the durations of layers, optimizer and messages from the "
     "samples "
     "in this store"},
    {0, "jitter", NULL, "PERCENT", NULL, PP_OPTION_PERCENT, offsetof(simulate_settings, jitter),
     "relative standard deviation of each action's duration, as in 5%"},
    {0, "transfer-jitter", NULL, "PERCENT", NULL, PP_OPTION_PERCENT,
     offsetof(simulate_settings, transfer_jitter),
     "relative standard deviation of each transfer's duration"},
    {0, "slow", NULL, "rank=P:Xx", NULL, PP_OPTION_STRING, offsetof(simulate_settings, slow),
     "a straggler: everything on rank P takes X times as long; several, separated by commas"},
    {0, "sensitivity", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(simulate_settings, sensitivity),
     "how much longer the step takes for one per cent more of each stage, border, and M; of a "
     "plan, "
     "of each layer"},
    {0, "launch", NULL, "S", NULL, PP_OPTION_SECONDS, offsetof(simulate_settings, launch_s),
     "seconds that each action takes to be launched"},
    {0, "load-s", NULL, "S", NULL, PP_OPTION_SECONDS, offsetof(simulate_settings, load_s),
     "seconds that reading the data of a microbatch takes, on the ranks of first stage and loss"},
    {0, "prefetch", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(simulate_settings, prefetch),
     "data is read beside compute"},
    {0, "reduce-buckets", NULL, "N", NULL, PP_OPTION_COUNT,
     offsetof(simulate_settings, reduce_buckets),
     "of a plan: gradients are reduced beside compute, those of a stage in N buckets"},
    {0, "transfer-slowdown", NULL, "X", NULL, PP_OPTION_FACTOR,
     offsetof(simulate_settings, transfer_slowdown),
     "actions take X times as long while their rank sends or receives"},
    {0, "overlap-factor", NULL, "X", NULL, PP_OPTION_FACTOR,
     offsetof(simulate_settings, overlap_factor),
     "an overlapped pair takes the sum of its parts times X (default 1)"},
    {0, "blocking", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(simulate_settings, blocking),
     "sender and receiver are both held during a transfer"},
    {0, "json", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(simulate_settings, json), "print JSON"},
    {0, "trace", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(simulate_settings, trace),
     "write the timeline as a Chrome trace (Perfetto opens it)"},
    {0, "schedule-out", NULL, "FILE", NULL, PP_OPTION_STRING,
     offsetof(simulate_settings, schedule_out),
     "write the order of actions as CSV, as torch.distributed.pipelining reads it"},
};

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
    PP_TRY(pp_simulate_describe(settings, sim, error));
    PP_TRY(pp_simulate_disturb(settings, sim, error));
    PP_TRY(pp_simulate(&sim->input, &sim->result, error));
    return pp_simulate_repeat(settings, sim, error);
}

/* The plan as it was made is checked first: reductions beside compute stand elsewhere in the order,
 * which then has another hash. */
static pp_status expand_plan(const simulate_settings *settings, simulation *sim, pp_error *error) {
    PP_TRY(pp_plan_expand(sim->plan, &sim->schedule, error));
    if (settings->reduce_buckets == 0) return PP_OK;
    pp_schedule_free(sim->schedule);
    sim->plan->reduce_buckets = settings->reduce_buckets;
    sim->plan->schedule_hash = 0;
    return pp_plan_expand(sim->plan, &sim->schedule, error);
}

static pp_status simulate_expanded(const simulate_settings *settings, simulation *sim,
                                   pp_error *error) {
    PP_TRY(expand_plan(settings, sim, error));
    PP_TRY(pp_plan_sim_input(sim->plan, sim->schedule, &sim->arena, &sim->input, error));
    sim->input.keep_spans = settings->trace != NULL;
    PP_TRY(pp_simulate_disturb(settings, sim, error));
    PP_TRY(pp_simulate(&sim->input, &sim->result, error));
    return pp_simulate_repeat(settings, sim, error);
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
    return pp_in_document(simulate_expanded(settings, sim, error), path, error);
}

/* ---- saying it ----------------------------------------------------------------------------- */

/* The closed form of this schedule where it applies, else NAN. */
static double closed_form(const simulate_settings *settings, const simulation *sim) {
    const pp_uniform *u = &sim->uniform;
    if (!sim->is_uniform || pp_named_schedule_is_file(settings->schedule) || settings->blocking ||
        settings->overlap_factor > 0 || u->transfer_s > 0 || settings->slow ||
        settings->launch_s > 0 || settings->load_s > 0 ||
        u->forward_s + u->input_s + u->weight_s <= 0)
        return NAN;
    const pp_schedule_family *family = pp_schedule_family_find(settings->schedule);
    pp_schedule_request request;
    if (pp_named_schedule_request(&settings->named, settings->schedule, &request, NULL) != PP_OK)
        return NAN;
    request.virtual_stages = sim->schedule->virtual_stages;
    if (!family || !family->closed_form_bubble) return NAN;
    return family->closed_form_bubble(&request, &sim->uniform);
}

static double throughput(const simulation *sim) {
    int64_t units =
        sim->plan ? sim->plan->global_batch : pp_schedule_all_microbatches(sim->schedule);
    return (double)units / sim->result->makespan_s;
}

/* What no order of these actions beats. What `auto` proved under the limits is higher than what the
 * simulation knows, which is told of none. */
typedef struct bounds {
    double makespan_s, gap;
    double span_s, span_gap; /* NAN unless auto */
} bounds;

static bounds proved_bounds(const simulation *sim) {
    const pp_sim_result *r = sim->result;
    bounds b = {r->lower_bound_s, r->gap, NAN, NAN};
    if (!sim->is_auto) return b;
    b.makespan_s = fmax(r->lower_bound_s, sim->made.makespan_bound_s);
    b.gap = (r->makespan_s - b.makespan_s) / b.makespan_s;
    b.span_s = sim->made.span_bound_s;
    b.span_gap = (r->span_s - b.span_s) / b.span_s;
    return b;
}

static void bytes_or_null(pp_json *json, const char *key, int64_t bytes) {
    pp_json_key(json, key);
    if (bytes < 0)
        pp_json_null(json);
    else
        pp_json_int(json, bytes);
}

static void rank_json(const pp_sim_rank *rank, pp_json *json) {
    char action[32];
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
    pp_json_key(json, "peak_time");
    pp_json_double(json, rank->peak_time_s);
    pp_json_key(json, "peak_action");
    if (rank->peak_activations > 0)
        pp_json_string(json, pp_action_text(rank->peak_action, action));
    else
        pp_json_null(json);
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
    const bounds b = proved_bounds(sim);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"makespan", r->makespan_s},
                   {"span", r->span_s},
                   {"bubble_fraction", r->bubble_fraction},
                   {"span_bubble_fraction", r->span_bubble_fraction},
                   {"closed_form_bubble", closed_form(settings, sim)},
                   {"lower_bound", b.makespan_s},
                   {"gap", b.gap},
                   {"span_lower_bound", b.span_s},
                   {"span_gap", b.span_gap},
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
    pp_simulate_async_json(sim, &json);
    pp_simulate_repeat_json(sim, &json);
    pp_json_key(&json, "rank");
    pp_json_array(&json);
    for (int p = 0; p < s->ranks; p++) rank_json(&r->rank[p], &json);
    pp_json_end_array(&json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}

static void print_ranks(const simulation *sim, pp_text *text) {
    bool bytes = sim->result->rank[0].peak.total >= 0;
    pp_table table = pp_table_start(bytes ? "rrrrrrl" : "rrrrr");
    static const char *const heads[] = {"rank",        "busy", "idle", "bubble",
                                        "activations", "peak", "at"};
    for (int i = 0; i < (bytes ? 7 : 5); i++) pp_table_cell(&table, "%s", heads[i]);
    for (int p = 0; p < sim->schedule->ranks; p++) {
        const pp_sim_rank *rank = &sim->result->rank[p];
        char busy[32], idle[32], peak[32], at[32];
        pp_table_cell(&table, "%d", p);
        pp_table_cell(&table, "%s", pp_format_seconds(rank->busy_s, busy));
        pp_table_cell(&table, "%s", pp_format_seconds(rank->idle_s, idle));
        pp_table_cell(&table, "%.2f %%", 100 * rank->bubble_fraction);
        pp_table_cell(&table, "%.4g", rank->peak_activations);
        if (!bytes) continue;
        pp_table_cell(&table, "%s", pp_format_bytes((double)rank->peak.total, peak));
        pp_table_cell(&table, "%s", pp_action_text(rank->peak_action, at));
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
    const bounds b = proved_bounds(sim);
    pp_text_printf(text, "lower bound  %s, gap %.2f %%\n", pp_format_seconds(b.makespan_s, bound),
                   100 * b.gap);
    if (sim->is_auto)
        pp_text_printf(text, "span         %s, lower bound %s, gap %.2f %%; found by %s\n",
                       pp_format_seconds(r->span_s, time), pp_format_seconds(b.span_s, bound),
                       100 * b.span_gap, sim->made.origin);
    pp_text_string(text, "\n");
    print_ranks(sim, text);
    pp_simulate_async_text(sim, text);
    pp_simulate_repeat_text(sim, text);
}

static pp_status check_settings(const simulate_settings *settings, const char *plan,
                                pp_error *error) {
    const char *inputs[] = {plan, settings->schedule, settings->stage_costs};
    if (!plan && !settings->schedule)
        return pp_fail(error, PP_E_INPUT, NULL, "ppsim simulate needs a PLAN or --schedule");
    if (settings->activation_limit > 0 && settings->activation_bytes)
        return pp_fail(error, PP_E_INPUT, NULL,
                       "give --activation-limit or --activation-bytes, not both");
    PP_TRY(pp_check_output(settings->schedule_out, inputs, 3, error));
    return pp_check_output(settings->trace, inputs, 3, error);
}

static pp_status write_schedule(const char *path, const pp_schedule *schedule, pp_error *error) {
    pp_text text = {0};
    pp_schedule_write_csv(schedule, &text);
    pp_status status = pp_file_write(path, &text, error);
    pp_text_deinit(&text);
    return status;
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
    if (status == PP_OK && settings->schedule_out)
        status = write_schedule(settings->schedule_out, sim.schedule, error);
    if (status == PP_OK) (settings->json ? print_json : print_text)(settings, &sim, &output->out);
    pp_replications_free(sim.replications);
    pp_sensitivity_free(sim.sensitivity);
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
