/* ppsim validate: runs a plan and compares, action by action, what was predicted with what was
 * measured. Exit 1 when the step time is off by more than the tolerance. */
#include "cli/cli.h"
#include "executor/executor.h"
#include "sim/sim.h"

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
    {0, "timeout", NULL, "S", NULL, PP_OPTION_FACTOR, offsetof(pp_run_settings, timeout_s),
     "as for 'ppsim run'"},
    {0, "trace", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(pp_run_settings, trace),
     "write the measured timeline as a Chrome trace"},
    {0, "json", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(pp_run_settings, json), "print JSON"},
};

static const pp_run_settings defaults = {.tolerance = 0.03};

/* One action in both traces. */
typedef struct action_pair {
    const pp_span *predicted, *measured;
} action_pair;

typedef struct validation {
    pp_executed executed;
    pp_sim_result *simulated;
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
    const pp_trace *predicted = v->simulated->trace, *measured = v->executed.result->trace;
    size_t i = 0, j = 0;
    v->pairs = pp_allocate_zeroed(predicted->span_count + 1, sizeof *v->pairs);
    if (!v->pairs) return pp_fail_memory(error);
    for (;;) {
        const pp_span *p = next_compute(predicted, &i), *m = next_compute(measured, &j);
        if (!p && !m) return PP_OK;
        if (!p || !m || !same_action(p, m))
            return pp_fail(error, PP_E_FAILED, NULL,
                           "the measured trace does not hold the actions that were planned");
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
    pp_report_compare(v->executed.plan, &v->executed.result->measured, text);
    pp_text_string(text, "\nmean duration of each kind of action in the step nearest the median\n");
    kinds_table(v, text);
    pp_text_string(text, "\n");
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

static void print_json(validation *v, pp_text *text) {
    int ranks = v->executed.plan->ranks;
    pp_json json = pp_json_start(text);
    pp_json_object(&json);
    pp_json_key(&json, "predicted");
    pp_prediction_write(&v->executed.plan->predicted, ranks, &json);
    pp_json_key(&json, "measured");
    pp_prediction_write(&v->executed.result->measured, ranks, &json);
    pp_json_key(&json, "difference");
    pp_json_double(&json, v->difference);
    pp_json_key(&json, "tolerance");
    pp_json_double(&json, v->tolerance);
    pp_json_key(&json, "within");
    pp_json_bool(&json, fabs(v->difference) <= v->tolerance);
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
        pp_json_end_object(&json);
    }
    pp_json_end_array(&json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static pp_status validate(const char *path, const pp_run_settings *settings, validation *v,
                          pp_error *error) {
    PP_TRY(pp_execute(path, settings, 11, true, &v->executed, error));
    PP_TRY(pp_simulate_plan(v->executed.plan, true, NULL, &v->simulated, error));
    PP_TRY(pair_actions(v, error));
    if (settings->trace) PP_TRY(pp_write_trace(settings->trace, v->executed.result->trace, error));
    double predicted = v->executed.plan->predicted.iteration_time_s;
    v->difference = v->executed.result->measured.iteration_time_s / predicted - 1;
    return PP_OK;
}

static pp_status run_validate(const void *settings_, const char *const *arguments, int count,
                              pp_output *output, pp_error *error) {
    const pp_run_settings *settings = settings_;
    validation v = {.tolerance = settings->tolerance};
    (void)count;
    pp_status status = validate(arguments[0], settings, &v, error);
    if (status == PP_OK) {
        (settings->json ? print_json : print_text)(&v, &output->out);
        if (fabs(v.difference) > v.tolerance)
            status = pp_fail(error, PP_E_TOLERANCE, NULL,
                             "the step time is off by %+.2f %%, more than %.2f %%",
                             100 * v.difference, 100 * v.tolerance);
    }
    pp_free(v.pairs);
    pp_sim_result_free(v.simulated);
    pp_executed_finish(&v.executed);
    return status;
}

const pp_subcommand pp_cmd_validate = {
    .name = "validate",
    .arguments = "PLAN",
    .minimum_arguments = 1,
    .maximum_arguments = 1,
    .summary = "runs a plan and holds the prediction against it, action by action",
    .description = "Exit 1 when the measured step time differs from the prediction by more than "
                   "the tolerance.",
    PP_OPTIONS(options),
    .settings_size = sizeof(pp_run_settings),
    .defaults = &defaults,
    .run = run_validate,
};
