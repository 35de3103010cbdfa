/* ppsim validate: runs a plan, or takes the trace of a run, and compares, action by action, what
 * was predicted with what was measured. Exit 1 when the step time is off by more than the
 * tolerance.
 *
 * Where the difference comes from is told in two ways: by cause (validate_explain.c), and rank by
 * rank: a rank's step is what its actions take and what it waits between them, so the differences
 * of these add up to that of the step time. */
#include "cli/validate_internal.h"
#include "executor/executor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const pp_option options[] = {
    {0, "tolerance", NULL, "PERCENT", NULL, PP_OPTION_PERCENT, offsetof(pp_run_settings, tolerance),
     "how far the step time may be off (default 3%)"},
    {0, "steps", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(pp_run_settings, steps),
     "steps to run; medians are over all but the first (default 11)"},
    {0, "data", NULL, "PATH", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, data),
     "as for 'ppsim run'"},
    {0, "seed", NULL, "N", NULL, PP_OPTION_NUMBER, offsetof(pp_run_settings, seed),
     "as for 'ppsim run'"},
    {0, "backend", NULL, "NAME", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, backend),
     "as for 'ppsim run'"},
    {0, "device", NULL, "DEVICE", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, device),
     "as for 'ppsim run'"},
    {0, "slices", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(pp_run_settings, slices),
     "as for 'ppsim run'"},
    {0, "timeout", NULL, "S", NULL, PP_OPTION_FACTOR, offsetof(pp_run_settings, timeout_s),
     "as for 'ppsim run'"},
    {0, "trace", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, trace),
     "write the measured timeline as a Chrome trace"},
    {0, "measured", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, measured),
     "do not run: take this trace of a run, which 'run --trace' wrote"},
    {0, "explain", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(pp_run_settings, explain),
     "say where the difference comes from: by cause, stage, action and rank"},
    {0, "json", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(pp_run_settings, json), "print JSON"},
};

static const pp_run_settings defaults = {.tolerance = 0.03};

/* One action in both traces. */
typedef struct action_pair {
    const pp_span *predicted, *measured;
} action_pair;

typedef struct validation {
    pp_executed executed; /* the plan, and its run unless that was recorded … */
    pp_trace *recorded;   /* … then its trace … */
    const char *recorded_path;
    pp_prediction summary;         /* … and what follows from it */
    const pp_prediction *measured; /* of either */
    const pp_trace *trace;
    pp_sim_result *simulated;
    pp_attribution *why; /* NULL: nobody asked */
    action_pair *pairs;
    size_t pair_count;
    double tolerance;
    double difference; /* of the step time, relative */
} validation;

/* ---- pairing ------------------------------------------------------------------------------- */

static bool is_compute_lane(const pp_span *span) {
    return span->lane == PP_LANE_COMPUTE;
}

static bool same_action(const pp_span *a, const pp_span *b) {
    return a->rank == b->rank && memcmp(&a->action, &b->action, sizeof a->action) == 0;
}

/* The next compute span from *index on, or NULL. */
static const pp_span *next_compute(const pp_trace *trace, size_t *index) {
    while (*index < trace->span_count && !is_compute_lane(&trace->spans[*index])) (*index)++;
    return *index < trace->span_count ? &trace->spans[(*index)++] : NULL;
}

/* Both traces hold the actions of each rank in the same order, since both followed it. */
static pp_status pair_actions(validation *v, pp_error *error) {
    const pp_trace *predicted = v->simulated->trace, *measured = v->trace;
    size_t i = 0, j = 0;
    v->pairs = pp_allocate_zeroed(predicted->span_count + 1, sizeof *v->pairs);
    if (!v->pairs) return pp_fail_memory(error);
    for (;;) {
        const pp_span *p = next_compute(predicted, &i), *m = next_compute(measured, &j);
        if (!p && !m) return PP_OK;
        if (!p || !m || !same_action(p, m))
            return pp_fail(error, v->recorded ? PP_E_INPUT : PP_E_FAILED, v->recorded_path,
                           "%s hold the actions that were planned",
                           v->recorded ? "does not" : "the measured trace does not");
        v->pairs[v->pair_count++] = (action_pair){p, m};
    }
}

/* ---- saying it ----------------------------------------------------------------------------- */

static double duration(const pp_span *span) {
    return span->end_s - span->start_s;
}

static void kinds_table(const validation *v, pp_text *text) {
    pp_table table = pp_table_start("lrrrr");
    static const char *const heads[] = {"action", "count", "predicted", "measured", "difference"};
    for (int i = 0; i < 5; i++) pp_table_cell(&table, "%s", heads[i]);
    for (int kind = 0; kind < PP_ACTION_KIND_COUNT; kind++) {
        double predicted = 0, measured = 0;
        int count = 0;
        for (size_t i = 0; i < v->pair_count; i++) {
            if (v->pairs[i].predicted->action.kind != kind) continue;
            predicted += duration(v->pairs[i].predicted);
            measured += duration(v->pairs[i].measured);
            count++;
        }
        if (count == 0) continue;
        char left[32], right[32];
        pp_table_cell(&table, "%s", pp_action_kind_name((pp_action_kind)kind));
        pp_table_cell(&table, "%d", count);
        pp_table_cell(&table, "%s", pp_format_seconds(predicted / count, left));
        pp_table_cell(&table, "%s", pp_format_seconds(measured / count, right));
        if (predicted > 0)
            pp_table_cell(&table, "%+.2f %%", 100 * (measured / predicted - 1));
        else
            pp_table_cell(&table, "%s", "");
    }
    pp_table_print(&table, text);
}

/* Seconds of a rank's step: by kind of action, and what is left. */
typedef struct shares {
    double kind_s[PP_ACTION_KIND_COUNT];
    double waiting_s;
} shares;

static shares shares_of(const validation *v, int rank, bool measured) {
    shares of = {.waiting_s = measured ? v->trace->makespan_s : v->simulated->trace->makespan_s};
    for (size_t i = 0; i < v->pair_count; i++) {
        const pp_span *span = measured ? v->pairs[i].measured : v->pairs[i].predicted;
        if (span->rank != rank) continue;
        of.kind_s[span->action.kind] += duration(span);
        of.waiting_s -= duration(span);
    }
    return of;
}

static bool occurs(const validation *v, int kind) {
    for (size_t i = 0; i < v->pair_count; i++)
        if ((int)v->pairs[i].predicted->action.kind == kind) return true;
    return false;
}

/* Each row adds up to the difference between the two steps. */
static void differences_table(const validation *v, pp_text *text) {
    char columns[PP_ACTION_KIND_COUNT + 4] = "lrr"; /* the name, waiting, the step … */
    for (int k = 0; k < PP_ACTION_KIND_COUNT; k++)
        if (occurs(v, k)) strcat(columns, "r");
    pp_table table = pp_table_start(columns);
    pp_table_cell(&table, "measured - predicted");
    for (int k = 0; k < PP_ACTION_KIND_COUNT; k++)
        if (occurs(v, k)) pp_table_cell(&table, "%s", pp_action_kind_name((pp_action_kind)k));
    pp_table_cell(&table, "waiting");
    pp_table_cell(&table, "step");
    for (int p = 0; p < v->trace->ranks; p++) {
        shares before = shares_of(v, p, false), after = shares_of(v, p, true);
        double sum = after.waiting_s - before.waiting_s;
        pp_table_cell(&table, "rank %d", p);
        for (int k = 0; k < PP_ACTION_KIND_COUNT; k++) {
            double more = after.kind_s[k] - before.kind_s[k];
            sum += more;
            if (occurs(v, k)) pp_signed_cell(&table, more);
        }
        pp_signed_cell(&table, after.waiting_s - before.waiting_s);
        pp_signed_cell(&table, sum);
    }
    pp_table_print(&table, text);
}

static int by_difference(const void *a, const void *b) {
    const action_pair *x = a, *y = b;
    double dx = fabs(duration(x->measured) - duration(x->predicted));
    double dy = fabs(duration(y->measured) - duration(y->predicted));
    return dx > dy ? -1 : dx < dy;
}

/* Reorders the pairs: call last. */
static void worst_actions(validation *v, pp_text *text) {
    enum { SHOWN = 5 };
    pp_table table = pp_table_start("lrrrr");
    static const char *const heads[] = {"furthest off", "rank", "predicted", "measured",
                                        "difference"};
    for (int i = 0; i < 5; i++) pp_table_cell(&table, "%s", heads[i]);
    qsort(v->pairs, v->pair_count, sizeof *v->pairs, by_difference);
    for (size_t i = 0; i < v->pair_count && i < SHOWN; i++) {
        const action_pair *pair = &v->pairs[i];
        char action[32], left[32], right[32], difference[32];
        pp_table_cell(&table, "%s", pp_action_text(pair->predicted->action, action));
        pp_table_cell(&table, "%d", pair->predicted->rank);
        pp_table_cell(&table, "%s", pp_format_seconds(duration(pair->predicted), left));
        pp_table_cell(&table, "%s", pp_format_seconds(duration(pair->measured), right));
        pp_table_cell(
            &table, "%s",
            pp_format_seconds(duration(pair->measured) - duration(pair->predicted), difference));
    }
    pp_table_print(&table, text);
}

static void print_text(validation *v, pp_text *text) {
    pp_text_printf(text, "%s: ", v->executed.plan->model->name);
    pp_report_plan_line(v->executed.plan, text);
    pp_text_string(text, "\n\n");
    pp_report_compare(v->executed.plan, v->measured, text);
    pp_text_string(text, v->recorded
                             ? "\nmean duration of each kind of action in the recorded step\n"
                             : "\nmean duration of each kind of action in the step nearest "
                               "the median\n");
    kinds_table(v, text);
    pp_text_string(text, "\n");
    if (v->why) {
        pp_explain_text(v->why, v->measured->iteration_time_s, text);
        differences_table(v, text);
        pp_text_string(text, "\n");
    }
    worst_actions(v, text);
    pp_text_printf(text, "\nstep time is off by %+.2f %%, tolerance %.2f %%: %s\n",
                   100 * v->difference, 100 * v->tolerance,
                   fabs(v->difference) <= v->tolerance ? "within" : "outside");
}

static void span_json(pp_json *json, const char *key, const pp_span *span) {
    pp_json_key(json, key);
    pp_json_array_flat(json);
    pp_json_double(json, span->start_s);
    pp_json_double(json, span->end_s);
    pp_json_end_array(json);
}

/* Parts of the difference, see sim.h. */
static void action_json(const pp_attributed *part, pp_json *json) {
    pp_json_key(json, "duration_part");
    pp_json_double(json, part->duration_s);
    pp_json_key(json, "gap_part");
    pp_json_double(json, part->gap_s);
    pp_json_key(json, "transfer_part");
    pp_json_double(json, part->transfer_s);
}

static void shares_json(pp_json *json, const char *key, shares of) {
    pp_json_key(json, key);
    pp_json_object_flat(json);
    for (int k = 0; k < PP_ACTION_KIND_COUNT; k++) {
        if (!(of.kind_s[k] > 0)) continue;
        pp_json_key(json, pp_action_kind_name((pp_action_kind)k));
        pp_json_double(json, of.kind_s[k]);
    }
    pp_json_key(json, "waiting");
    pp_json_double(json, of.waiting_s);
    pp_json_end_object(json);
}

static void print_json(const validation *v, pp_text *text) {
    int ranks = v->executed.plan->ranks;
    pp_json json = pp_json_start(text);
    pp_json_object(&json);
    pp_json_key(&json, "predicted");
    pp_prediction_write(&v->executed.plan->predicted, ranks, &json);
    pp_json_key(&json, "measured");
    pp_prediction_write(v->measured, ranks, &json);
    pp_json_key(&json, "difference");
    pp_json_double(&json, v->difference);
    pp_json_key(&json, "tolerance");
    pp_json_double(&json, v->tolerance);
    pp_json_key(&json, "within");
    pp_json_bool(&json, fabs(v->difference) <= v->tolerance);
    if (v->why) {
        pp_json_key(&json, "causes");
        pp_explain_json(v->why, v->measured->iteration_time_s, &json);
    }
    pp_json_key(&json, "shares"); /* of each rank's step */
    pp_json_array(&json);
    for (int p = 0; p < ranks; p++) {
        pp_json_object(&json);
        shares_json(&json, "predicted", shares_of(v, p, false));
        shares_json(&json, "measured", shares_of(v, p, true));
        pp_json_end_object(&json);
    }
    pp_json_end_array(&json);
    pp_json_key(&json, "actions");
    pp_json_array(&json);
    for (size_t i = 0; i < v->pair_count; i++) {
        char action[32];
        pp_json_object_flat(&json);
        pp_json_key(&json, "rank");
        pp_json_int(&json, v->pairs[i].predicted->rank);
        pp_json_key(&json, "action");
        pp_json_string(&json, pp_action_text(v->pairs[i].predicted->action, action));
        span_json(&json, "predicted", v->pairs[i].predicted);
        span_json(&json, "measured", v->pairs[i].measured);
        if (v->why) action_json(&v->why->actions[i], &json);
        pp_json_end_object(&json);
    }
    pp_json_end_array(&json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static pp_status open_recorded(const char *path, pp_trace **trace, pp_error *error) {
    pp_text file;
    PP_TRY(pp_file_read(path, PP_FILE_LIMIT_BYTES, &file, error));
    pp_status status = pp_trace_recognise(file.bytes, file.length)
                           ? pp_trace_read(file.bytes, file.length, path, trace, error)
                           : pp_fail(error, PP_E_INPUT, path,
                                     "is no trace; give one of a run ('ppsim run PLAN --trace')");
    pp_text_deinit(&file);
    if (status == PP_OK && !(*trace)->measured)
        return pp_fail(error, PP_E_INPUT, path,
                       "is a simulated step; give the trace of a run ('ppsim run PLAN --trace')");
    return status;
}

/* What a trace says of its step. The rest of a prediction follows from the plan and stays out. */
static pp_status summarise(validation *v, const char *path, pp_error *error) {
    const pp_trace *trace = v->recorded;
    const pp_plan *plan = v->executed.plan;
    if (trace->ranks != plan->ranks)
        return pp_fail(error, PP_E_INPUT, path, "has %d ranks, the plan %d", trace->ranks,
                       plan->ranks);
    v->summary = (pp_prediction){
        .iteration_time_s = trace->makespan_s,
        .bubble_fraction = trace->bubble_fraction,
        .throughput = trace->makespan_s > 0 ? (double)plan->global_batch / trace->makespan_s : 0,
        .rank = pp_allocate_zeroed((size_t)trace->ranks, sizeof *v->summary.rank)};
    if (!v->summary.rank) return pp_fail_memory(error);
    for (int p = 0; p < trace->ranks; p++) {
        v->summary.rank[p].busy_s = trace->rank[p].busy_s;
        v->summary.rank[p].peak_bytes = trace->rank[p].peak_bytes;
    }
    v->recorded_path = path;
    v->measured = &v->summary;
    v->trace = trace;
    return PP_OK;
}

static pp_status take_recorded(const char *plan, const char *path, validation *v, pp_error *error) {
    PP_TRY(pp_plan_open(plan, &v->executed.plan, error));
    PP_TRY(open_recorded(path, &v->recorded, error));
    return summarise(v, path, error);
}

static pp_status take_run(const char *plan, const pp_run_settings *settings, validation *v,
                          pp_error *error) {
    PP_TRY(pp_execute(plan, settings, 11, true, &v->executed, error));
    v->measured = &v->executed.result->measured;
    v->trace = v->executed.result->trace;
    return PP_OK;
}

static pp_status check_settings(const pp_run_settings *settings, pp_error *error) {
    bool runs = settings->steps || settings->data || settings->backend || settings->device ||
                settings->slices || settings->trace || settings->seed || settings->timeout_s > 0;
    if (!settings->measured || !runs) return PP_OK;
    return pp_fail(
        error, PP_E_INPUT, "--measured",
        "nothing is run, so --steps, --data, --seed, --backend, --device, --slices, --timeout and "
        "--trace have no meaning");
}

static pp_status validate(const char *path, const pp_run_settings *settings, validation *v,
                          pp_error *error) {
    PP_TRY(check_settings(settings, error));
    PP_TRY(settings->measured ? take_recorded(path, settings->measured, v, error)
                              : take_run(path, settings, v, error));
    if (!pp_processes_speaks(v->executed.processes)) return PP_OK;
    PP_TRY(pp_simulate_plan(v->executed.plan, true, NULL, &v->simulated, error));
    PP_TRY(pair_actions(v, error));
    if (settings->explain)
        PP_TRY(pp_explain_make(v->executed.plan, v->simulated->trace, v->trace, &v->why, error));
    if (settings->trace) PP_TRY(pp_write_trace(settings->trace, v->trace, error));
    double predicted = v->executed.plan->predicted.iteration_time_s;
    v->difference = v->measured->iteration_time_s / predicted - 1;
    return PP_OK;
}

static pp_status run_validate(const void *settings_, const char *const *arguments, int count,
                              pp_output *output, pp_error *error) {
    const pp_run_settings *settings = settings_;
    validation v = {.tolerance = settings->tolerance};
    (void)count;
    pp_status status = validate(arguments[0], settings, &v, error);
    output->processes = v.executed.processes;
    if (status == PP_OK && pp_processes_speaks(output->processes)) {
        if (settings->json)
            print_json(&v, &output->out);
        else
            print_text(&v, &output->out);
        if (fabs(v.difference) > v.tolerance)
            status = pp_fail(error, PP_E_TOLERANCE, NULL,
                             "the step time is off by %+.2f %%, more than %.2f %%",
                             100 * v.difference, 100 * v.tolerance);
    }
    pp_free(v.pairs);
    pp_attribution_free(v.why);
    pp_sim_result_free(v.simulated);
    pp_free(v.summary.rank);
    pp_trace_free(v.recorded);
    pp_executed_finish(&v.executed);
    return status;
}

const pp_subcommand pp_cmd_validate = {
    .name = "validate",
    .arguments = "PLAN",
    .minimum_arguments = 1,
    .maximum_arguments = 1,
    .summary = "holds a run of a plan against its prediction, action by action",
    .description = "Exit 1 when the measured step time differs from the prediction by more than "
                   "the tolerance.",
    PP_OPTIONS(options),
    .settings_size = sizeof(pp_run_settings),
    .defaults = &defaults,
    .together = true,
    .run = run_validate,
};
