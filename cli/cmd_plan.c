/* ppsim plan: opens model, cluster and costs, lets the planner search, prints and writes the plan.
 */
#include "cli/cli.h"
#include "cli/plan_sweep_internal.h"
#include "planner/planner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct plan_settings {
    const char *model, *cluster, *db, *out, *dtype, *optimizer, *schedule, *recompute, *split;
    const char *objective, *sweep;
    int64_t batch, memory_bytes, microbatch_size, zero, sequence;
    int ranks, virtual_stages, microbatches, slices, dp, tp, threads;
    double limit_s;
    bool json, csv, explain, exact, model_missing, no_dropout;
} plan_settings;

static const plan_settings defaults = {.zero = PP_ZERO_SEARCH};

static const pp_option options[] = {
    {0, "model", NULL, "MODEL", NULL, PP_OPTION_STRING, offsetof(plan_settings, model),
     "a model file, or a name from 'ppsim models'"},
    {0, "cluster", NULL, "CLUSTER", NULL, PP_OPTION_STRING, offsetof(plan_settings, cluster),
     "a cluster file, or a name from 'ppsim clusters' (default: local)"},
    {0, "db", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(plan_settings, db),
     "profile store with measured layer times; without it they are modelled from FLOPs and bytes"},
    {0, "model-missing", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(plan_settings, model_missing),
     "with --db: layers that it lacks are modelled, by rates fitted to what it has"},
    {0, "batch", NULL, "N", NULL, PP_OPTION_SIZE, offsetof(plan_settings, batch),
     "global batch: samples per step over all replicas"},
    {0, "memory", NULL, "BYTES", NULL, PP_OPTION_BYTES, offsetof(plan_settings, memory_bytes),
     "memory of each device, as in 80GiB (default: the cluster's)"},
    {0, "out", NULL, "FILE", NULL, PP_OPTION_STRING, offsetof(plan_settings, out),
     "write the plan document"},
    {0, "json", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(plan_settings, json), "print JSON"},
    {0, "explain", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(plan_settings, explain),
     "say why this plan, and what the runners-up would cost"},
    {0, "dtype", NULL, "TYPE", "bf16|fp32", PP_OPTION_STRING, offsetof(plan_settings, dtype),
     "bf16 or fp32 (default: bf16 where the device has it, else fp32)"},
    {0, "optimizer", NULL, "NAME", "adamw|sgd", PP_OPTION_STRING,
     offsetof(plan_settings, optimizer), "adamw (default) or sgd with momentum"},
    {0, "zero", NULL, "STAGE", NULL, PP_OPTION_NUMBER, offsetof(plan_settings, zero),
     "pin ZeRO: 1 shards the optimizer state over the replicas, 0 does not"},
    {0, "no-dropout", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(plan_settings, no_dropout),
     "train without the dropout that the model has"},
    {0, "sequence", NULL, "N", NULL, PP_OPTION_SIZE, offsetof(plan_settings, sequence),
     "sequence length instead of the model's own"},
    {'K', "ranks", NULL, "K", NULL, PP_OPTION_COUNT, offsetof(plan_settings, ranks),
     "pin the pipeline ranks"},
    {'V', "virtual", NULL, "V", NULL, PP_OPTION_COUNT, offsetof(plan_settings, virtual_stages),
     "pin the virtual stages on each rank"},
    {'M', "microbatches", "chunks", "M", NULL, PP_OPTION_COUNT,
     offsetof(plan_settings, microbatches), "pin the microbatches per step and replica"},
    {0, "microbatch-size", NULL, "B", NULL, PP_OPTION_SIZE,
     offsetof(plan_settings, microbatch_size), "pin the samples of a microbatch"},
    {0, "slices", NULL, "Q", NULL, PP_OPTION_COUNT, offsetof(plan_settings, slices),
     "seq1f1b: pin the slices of each microbatch along the sequence (default: 2 to 16)"},
    {0, "dp", NULL, "D", NULL, PP_OPTION_COUNT, offsetof(plan_settings, dp),
     "pin the data-parallel replicas"},
    {0, "tp", NULL, "T", NULL, PP_OPTION_COUNT, offsetof(plan_settings, tp),
     "pin the tensor-parallel width: devices that each layer is divided over"},
    {0, "schedule", NULL, "NAME", NULL, PP_OPTION_STRING, offsetof(plan_settings, schedule),
     "pin the schedule, a name from 'ppsim schedules'"},
    {0, "recompute", NULL, "POLICY", NULL, PP_OPTION_STRING, offsetof(plan_settings, recompute),
     "pin recomputation on all stages: none, full, except-last, attention or every:N (layers)"},
    {0, "split", NULL, "METHOD", NULL, PP_OPTION_STRING, offsetof(plan_settings, split),
     "optimal (default), bottleneck, uniform, parameters, time, memory, pipedream, type:REGEX, or "
     "positions "
     "of the first layers of stages 1, 2, … as in 3,7,11"},
    {0, "objective", NULL, "WHAT", NULL, PP_OPTION_STRING, offsetof(plan_settings, objective),
     "time (default) or throughput: the shortest step; memory: the smallest peak; devices: the "
     "fewest; cost: the cheapest step by the cluster's prices; of several such plans the fastest"},
    {0, "sweep", NULL, "WHAT", "microbatches|ranks|memory", PP_OPTION_STRING,
     offsetof(plan_settings, sweep),
     "the best plan for each number of microbatches or of ranks, or memory of a device: the curve"},
    {0, "csv", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(plan_settings, csv),
     "with --sweep: print CSV"},
    {0, "exact", NULL, NULL, NULL, PP_OPTION_FLAG, offsetof(plan_settings, exact),
     "search until the best plan is proved, however long that takes"},
    {0, "threads", NULL, "N", NULL, PP_OPTION_COUNT, offsetof(plan_settings, threads),
     "search with so many threads, 8 at the most (default: one for each core); the plan is the "
     "same"},
    {0, "limit-seconds", NULL, "S", NULL, PP_OPTION_FACTOR, offsetof(plan_settings, limit_s),
     "stop searching after S seconds and give the best plan so far with its gap (--sweep: each "
     "point)"},
};

/* Far above any training run; sums of counts and bytes stay inside 64 bits. */
#define BATCH_LIMIT (INT64_C(1) << 31)

typedef struct planning {
    pp_model *model;
    pp_cluster *cluster;
    pp_costs_request costs_request;
    pp_costs *costs;
    pp_plan_request request;
    pp_plan_result *result;
} planning;

/* ---- opening ------------------------------------------------------------------------------- */

/* How many devices `local` is made of when the caller knows: ranks pinned; dp and tp count 1 unless
 * pinned. 0: one per core. */
static int64_t pinned_devices(const plan_settings *settings) {
    if (!settings->ranks) return 0;
    return (int64_t)settings->ranks * (settings->dp ? settings->dp : 1) *
           (settings->tp ? settings->tp : 1);
}

static pp_status choose_dtype(const plan_settings *settings, planning *p, pp_error *error) {
    const pp_device *device = pp_cluster_device(p->cluster, 0);
    p->request.dtype = device->bf16_flops > 0 ? PP_BF16 : PP_FP32;
    if (settings->dtype && !pp_dtype_from_name(settings->dtype, &p->request.dtype))
        return pp_fail(error, PP_E_INPUT, "--dtype", "'%s' is not bf16 or fp32", settings->dtype);
    if (settings->optimizer) pp_optimizer_from_name(settings->optimizer, &p->request.optimizer);
    if (settings->zero > 1)
        return pp_fail(error, PP_E_INPUT, "--zero", "%lld is not 0 or 1",
                       (long long)settings->zero);
    p->request.zero = (int)settings->zero;
    return PP_OK;
}

/* Ranks that will be busy beside each: of what a profile was measured with, the nearest is taken.
 */
static int busy_neighbours(const planning *p, int64_t pinned) {
    int64_t devices = pinned ? pinned : pp_cluster_device_count(p->cluster);
    return devices > 1 ? (int)devices - 1 : 0;
}

static pp_status open_inputs(const plan_settings *settings, planning *p, pp_error *error) {
    int64_t pinned = pinned_devices(settings);
    if (!settings->model) return pp_fail(error, PP_E_INPUT, NULL, "ppsim plan needs --model MODEL");
    if (!settings->batch)
        return pp_fail(error, PP_E_INPUT, NULL, "ppsim plan needs --batch N, 1 or more");
    if (settings->batch > BATCH_LIMIT)
        return pp_fail(error, PP_E_INPUT, "--batch",
                       "%lld samples are more than %lld, the most "
                       "that can be planned",
                       (long long)settings->batch, (long long)BATCH_LIMIT);
    if (pinned > 1000000)
        return pp_fail(error, PP_E_INPUT, "--ranks",
                       "ranks * dp * tp is %lld devices, more than "
                       "the 1000000 that ppsim handles",
                       (long long)pinned);
    if (settings->model_missing && !settings->db)
        return pp_fail(error, PP_E_INPUT, "--model-missing",
                       "goes with --db FILE; without a profile everything is modelled anyway");
    const char *inputs[] = {settings->model, settings->cluster, settings->db};
    PP_TRY(pp_check_output(settings->out, inputs, 3, error));
    PP_TRY(pp_model_open(settings->model, &p->model, error));
    if (settings->sequence) PP_TRY(pp_model_set_sequence(p->model, settings->sequence, error));
    if (settings->no_dropout) pp_model_clear_dropout(p->model);
    PP_TRY(pp_cluster_open(settings->cluster ? settings->cluster : "local", (int)pinned,
                           &p->cluster, error));
    PP_TRY(choose_dtype(settings, p, error));
    p->costs_request = (pp_costs_request){.model = p->model,
                                          .cluster = p->cluster,
                                          .dtype = p->request.dtype,
                                          .db = settings->db,
                                          .model_missing = settings->model_missing,
                                          .neighbours = busy_neighbours(p, pinned)};
    pp_status status = pp_costs_open(&p->costs_request, &p->costs, error);
    if (status != PP_OK && settings->sequence && strstr(error->message, "`ppsim profile")) {
        char too[64];
        snprintf(too, sizeof too, "profile with --sequence %lld too",
                 (long long)settings->sequence);
        pp_fail_cause(error, too);
    }
    return status;
}

static void show_progress(void *context, double fraction) {
    (void)context;
    pp_progress(fraction, "searching plans");
}

static void fill_request(const plan_settings *settings, planning *p) {
    pp_plan_request *r = &p->request;
    r->model = p->model;
    r->cluster = p->cluster;
    r->costs = p->costs;
    r->global_batch = settings->batch;
    r->memory_bytes = settings->memory_bytes;
    r->ranks = settings->ranks;
    r->virtual_stages = settings->virtual_stages;
    r->microbatches = settings->microbatches;
    r->microbatch_size = settings->microbatch_size;
    r->slices = settings->slices;
    r->dp = settings->dp;
    r->tp = settings->tp;
    r->runnable = !settings->cluster || strcmp(settings->cluster, "local") == 0;
    r->schedule = settings->schedule;
    r->recompute = settings->recompute;
    r->split = settings->split;
    r->objective = settings->objective;
    r->limit_s = settings->limit_s;
    r->threads = settings->threads;
    r->exact = settings->exact;
    r->tell_changes = settings->explain;
    r->progress = show_progress;
}

/* ---- neighbours that rest ------------------------------------------------------------------ */

#define IDLE_ROUNDS 4
#define IDLE_SETTLED 0.005

/* The bubble of the best plan by the costs at hand; what was found before where there is none. */
static pp_status find_bubble(planning *p, double *bubble, pp_error *error) {
    pp_plan_request request = p->request;
    pp_plan_result *result;
    request.best_alone = true;
    request.exact = request.tell_changes = false;
    request.limit_s /= 2 * IDLE_ROUNDS;
    PP_TRY(pp_plan_search(&request, &result, error));
    if (result->best) *bubble = result->best->predicted.bubble_fraction;
    pp_plan_result_free(result);
    return PP_OK;
}

/* How long a layer takes beside neighbours depends on how often these are idle, which is the bubble
 * of a plan that is not known yet: plans with one share until it is what comes out. Whatever fails
 * here will fail again, and be told, where the plan is wanted. */
static pp_status settle_idle(planning *p, pp_error *error) {
    double bubble = 0, start_s = pp_now_s();
    for (int round = 0; round < IDLE_ROUNDS && pp_costs_contended(p->costs); round++) {
        if (find_bubble(p, &bubble, NULL) != PP_OK) return PP_OK;
        if (fabs(bubble - p->costs_request.idle_share) < IDLE_SETTLED) break;
        p->costs_request.idle_share = bubble;
        pp_costs *costs;
        PP_TRY(pp_costs_open(&p->costs_request, &costs, error));
        pp_costs_close(p->costs);
        p->request.costs = p->costs = costs;
    }
    if (p->request.limit_s > 0)
        p->request.limit_s =
            fmax(p->request.limit_s / 2, p->request.limit_s + start_s - pp_now_s());
    return PP_OK;
}

/* ---- sweeps -------------------------------------------------------------------------------- */

/* A curve has no single plan to write or to explain. */
static pp_status check_sweep(const plan_settings *settings, pp_error *error) {
    if (!settings->sweep)
        return settings->csv ? pp_fail(error, PP_E_INPUT, "--csv", "goes with --sweep") : PP_OK;
    if (settings->json && settings->csv)
        return pp_fail(error, PP_E_INPUT, "--csv", "goes without --json");
    if (settings->out || settings->explain)
        return pp_fail(error, PP_E_INPUT, settings->out ? "--out" : "--explain",
                       "is of one plan, and --sweep gives many: pin the value of interest instead");
    return PP_OK;
}

static pp_status run_sweep(const plan_settings *settings, const planning *p, pp_output *output,
                           pp_error *error) {
    pp_plan_sweep_settings asked = {settings->sweep, settings->json, settings->csv};
    return pp_plan_sweep_print(&p->request, &asked, &output->out, error);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static void int_field(pp_json *json, const char *key, int64_t value) {
    pp_json_key(json, key);
    pp_json_int(json, value);
}

static void ints_field(pp_json *json, const char *key, const int *values, int count) {
    pp_json_key(json, key);
    pp_json_array_flat(json);
    for (int i = 0; i < count; i++) pp_json_int(json, values[i]);
    pp_json_end_array(json);
}

static void plan_json(const pp_plan *plan, pp_json *json) {
    pp_json_object(json);
    int_field(json, "ranks", plan->ranks);
    int_field(json, "virtual", plan->virtual_stages);
    int_field(json, "chains", plan->chains);
    int_field(json, "microbatches", plan->microbatches);
    int_field(json, "microbatch_size", plan->microbatch_size);
    int_field(json, "slices", plan->slices);
    int_field(json, "dp", plan->dp);
    int_field(json, "tp", plan->tp);
    pp_json_key(json, "schedule");
    pp_json_string(json, plan->schedule);
    pp_json_key(json, "recompute");
    char policy[PP_RECOMPUTE_LENGTH];
    pp_json_string(json, pp_recompute_text(plan->recompute, policy));
    pp_json_key(json, "dtype");
    pp_json_string(json, pp_dtype_name(plan->dtype));
    pp_json_key(json, "optimizer");
    pp_json_string(json, pp_optimizer_name(plan->optimizer));
    int_field(json, "zero", plan->zero);
    ints_field(json, "order", plan->order, plan->model->layer_count);
    pp_json_key(json, "splits");
    pp_json_array_flat(json);
    for (int s = 1; s < plan->stage_count / plan->chains; s++)
        pp_json_int(json, plan->stages[s].first);
    pp_json_end_array(json);
    ints_field(json, "placement", plan->placement, plan->stage_count);
    pp_json_key(json, "costs");
    pp_json_string(json, plan->cost_note);
    pp_json_end_object(json);
}

static void stage_json(pp_split_stage stage, pp_json *json) {
    pp_json_object_flat(json);
    int_field(json, "first", stage.first);
    int_field(json, "last", stage.last);
    int_field(json, "replicas", stage.replicas);
    pp_json_key(json, "seconds");
    pp_json_double(json, stage.seconds);
    pp_json_end_object(json);
}

static pp_split_stage stage_of(const pp_stage *stage) {
    double seconds = stage->forward_s + stage->input_s + stage->weight_s + stage->recompute_s;
    return (pp_split_stage){stage->first, stage->last, 1, seconds};
}

/* What there is of a plan whose stages have replicas of their own. */
static void replicated_json(const pp_model *model, const pp_plan_split *split, pp_json *json) {
    pp_json_object(json);
    int_field(json, "ranks", split->stage_count);
    int_field(json, "virtual", 1);
    ints_field(json, "order", split->order, model->layer_count);
    pp_json_key(json, "splits");
    pp_json_array_flat(json);
    for (int s = 1; s < split->stage_count; s++) pp_json_int(json, split->stages[s].first);
    pp_json_end_array(json);
    pp_json_end_object(json);
}

static void split_json(const pp_plan_result *result, pp_json *json) {
    const pp_plan *plan = result->best;
    const pp_plan_split *split = &result->split;
    pp_json_object(json);
    pp_json_key(json, "method");
    pp_json_string(json, result->split.method);
    pp_json_key(json, "bottleneck");
    pp_json_double(json, result->split.bottleneck_s);
    pp_json_key(json, "lower_bound");
    pp_json_double(json, result->split.lower_bound_s);
    pp_json_key(json, "stages");
    pp_json_array(json);
    for (int s = 0; s < split->stage_count; s++) stage_json(split->stages[s], json);
    for (int s = 0; plan && s < plan->stage_count; s++)
        stage_json(stage_of(&plan->stages[s]), json);
    pp_json_end_array(json);
    pp_json_end_object(json);
}

static void predicted_json(const pp_plan *plan, pp_json *json) {
    pp_json_key(json, "plan");
    plan_json(plan, json);
    pp_json_key(json, "predicted");
    pp_prediction_write(&plan->predicted, plan->ranks, json);
}

static void alternatives_json(const pp_plan_result *result, pp_json *json) {
    pp_json_array(json);
    for (int i = 0; i < result->alternative_count; i++) {
        pp_json_object(json);
        predicted_json(result->alternatives[i], json);
        pp_json_key(json, "difference_doubt");
        pp_json_double(json, result->alternative_doubt_s[i]);
        pp_json_key(json, "tie");
        pp_json_bool(json, pp_plan_ties(result, i));
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
}

static void frontier_json(const pp_plan_result *result, pp_json *json) {
    pp_json_array(json);
    for (int i = 0; i < result->frontier_count; i++) {
        pp_json_object(json);
        predicted_json(result->frontier[i], json);
        pp_json_end_object(json);
    }
    pp_json_end_array(json);
}

static void result_json(const planning *p, pp_text *text) {
    const pp_plan_result *result = p->result;
    pp_json json = pp_json_start(text);
    pp_json_object(&json);
    pp_json_key(&json, "plan");
    if (result->best)
        plan_json(result->best, &json);
    else
        replicated_json(p->model, &result->split, &json);
    pp_json_key(&json, "split");
    split_json(result, &json);
    pp_json_key(&json, "predicted");
    if (result->best)
        pp_prediction_write(&result->best->predicted, result->best->ranks, &json);
    else
        pp_json_null(&json);
    pp_json_key(&json, "doubt");
    pp_json_double(&json, result->best ? result->doubt_s : NAN);
    pp_json_key(&json, "alternatives");
    alternatives_json(result, &json);
    pp_json_key(&json, "frontier");
    frontier_json(result, &json);
    pp_json_key(&json, "frontier_complete");
    pp_json_bool(&json, result->frontier_complete);
    pp_json_key(&json, "objective");
    pp_json_string(&json, pp_objective_name(result->objective));
    pp_json_key(&json, "lower_bound");
    pp_json_double(&json, result->lower_bound);
    pp_json_key(&json, "lower_bound_unit");
    pp_json_string(&json, pp_objective_unit(result->objective));
    pp_json_key(&json, "gap");
    pp_json_double(&json, result->gap);
    pp_json_key(&json, "stats");
    pp_json_object_flat(&json);
    int_field(&json, "searched", result->searched);
    int_field(&json, "pruned", result->pruned);
    int_field(&json, "left", result->left);
    pp_json_key(&json, "seconds");
    pp_json_double(&json, result->seconds);
    pp_json_end_object(&json);
    pp_json_end_object(&json);
    pp_text_string(text, "\n");
}

/* ---- text ---------------------------------------------------------------------------------- */

/* What the executor refuses of it (executor/run_check.c), so that nobody finds out only then. */
static void tell_unrunnable(const pp_plan *plan, pp_text *text) {
    const struct {
        bool is;
        const char *what;
    } reasons[] = {{plan->slices > 1, "microbatches cut along the sequence"},
                   {plan->tp > 1, "layers divided over devices"}};
    const char *before = "note         run cannot execute this plan yet: ";
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (!reasons[i].is) continue;
        pp_text_printf(text, "%s%s", before, reasons[i].what);
        before = ", ";
    }
    if (before[0] == ',') pp_text_string(text, "\n");
}

static void replicated_text(const planning *p, pp_text *text) {
    const pp_plan_split *split = &p->result->split;
    char seconds[32];
    pp_text_printf(text, "%s on %s: %s\n", p->model->name, p->cluster->name, split->method);
    pp_text_append(text, p->result->explanation.bytes, p->result->explanation.length);
    pp_text_string(text, "\nstage  replicas  time        layers\n");
    for (int s = 0; s < split->stage_count; s++) {
        const pp_split_stage *stage = &split->stages[s];
        pp_text_printf(text, "%5d  %8d  %-10s  %s \u2026 %s\n", s, stage->replicas,
                       pp_format_seconds(stage->seconds, seconds),
                       p->model->layers[split->order[stage->first]].name,
                       p->model->layers[split->order[stage->last]].name);
    }
}

enum { FRONTIER_ROWS = 8 };

static int64_t peak_of(const pp_plan *plan) {
    int64_t peak = 0;
    for (int p = 0; p < plan->ranks; p++)
        if (plan->predicted.rank[p].peak_bytes > peak) peak = plan->predicted.rank[p].peak_bytes;
    return peak;
}

/* Some rows of it, the first and the last among them. */
static void frontier_text(const pp_plan_result *result, pp_text *text) {
    int count = result->frontier_count, rows = count < FRONTIER_ROWS ? count : FRONTIER_ROWS;
    pp_table table = pp_table_start("rrl");
    if (count < 2) return;
    pp_text_printf(
        text,
        "\nstep time against peak memory (%d of the %d plans that no other%s beats in both%s):\n",
        rows, count, result->frontier_complete ? "" : " found",
        rows < count ? "; --json has all" : "");
    for (int i = 0; i < 2; i++) pp_table_cell(&table, "%s", i ? "peak memory" : "step time");
    pp_table_cell(&table, "plan");
    for (int i = 0; i < rows; i++) {
        const pp_plan *plan = result->frontier[i * (count - 1) / (rows - 1)];
        char buffer[32];
        pp_text line = {0};
        pp_report_plan_line(plan, &line);
        pp_table_cell(&table, "%s", pp_format_seconds(plan->predicted.iteration_time_s, buffer));
        pp_table_cell(&table, "%s", pp_format_bytes((double)peak_of(plan), buffer));
        pp_table_cell(&table, "%s", line.bytes ? line.bytes : "");
        pp_text_deinit(&line);
    }
    pp_table_print(&table, text);
}

/* What other plans might be first if all were measured again. */
static void ties_text(const pp_plan_result *result, pp_text *text) {
    char doubt[32], seconds[32];
    if (!isnan(result->doubt_s))
        pp_text_printf(text,
                       "doubt        ±%s of the step time, from the spread of what was "
                       "measured (95 %%)\n",
                       pp_format_seconds(result->doubt_s, doubt));
    for (int i = 0; i < result->alternative_count; i++) {
        const pp_plan *plan = result->alternatives[i];
        if (!pp_plan_ties(result, i)) continue;
        pp_text_string(text, "tie          ");
        pp_report_plan_line(plan, text);
        pp_text_printf(text, ": %s, where ±%s of the difference is open\n",
                       pp_format_seconds(plan->predicted.iteration_time_s, seconds),
                       pp_format_seconds(result->alternative_doubt_s[i], doubt));
    }
}

static void result_text(const planning *p, bool explain, pp_text *text) {
    const pp_plan_result *result = p->result;
    const pp_prediction *predicted = &result->best->predicted;
    char buffer[32], rate[32];
    pp_text_printf(text, "%s on %s, batch %lld, %s: ", p->model->name, p->cluster->name,
                   (long long)result->best->global_batch, pp_dtype_name(result->best->dtype));
    pp_report_plan_line(result->best, text);
    pp_text_printf(text, "\ncosts        %s\n", result->best->cost_note);
    pp_text_printf(text, "step time    %s (%s samples/s",
                   pp_format_seconds(predicted->iteration_time_s, buffer),
                   pp_format_rate(predicted->throughput, rate));
    if (predicted->tokens_per_s > 0)
        pp_text_printf(text, ", %s tokens/s", pp_format_rate(predicted->tokens_per_s, rate));
    pp_text_printf(text, ")\nbubble       %.2f %%\n", 100 * predicted->bubble_fraction);
    if (predicted->mfu > 0)
        pp_text_printf(
            text, "MFU          %.2f %% (model FLOPs; HFU, with what is recomputed, %.2f %%)\n",
            100 * predicted->mfu, 100 * predicted->hfu);
    if (predicted->cost_per_step > 0)
        pp_text_printf(text, "cost         %.4g a step", predicted->cost_per_step);
    if (predicted->cost_per_million_tokens > 0)
        pp_text_printf(text, ", %.4g per million tokens", predicted->cost_per_million_tokens);
    if (predicted->cost_per_step > 0) pp_text_string(text, "\n");
    pp_text_printf(text, "lower bound  %s, gap %.2f %% (objective: %s)\n",
                   pp_objective_text(result->objective, result->lower_bound, buffer),
                   100 * result->gap, pp_objective_name(result->objective));
    ties_text(result, text);
    pp_text_printf(text, "searched     %lld plans simulated, %lld ruled out by bounds",
                   (long long)result->searched, (long long)result->pruned);
    if (result->left > 0) pp_text_printf(text, ", %lld left", (long long)result->left);
    bool had_enough = result->left > 0 && p->request.limit_s == 0;
    pp_text_string(text, had_enough ? " (--exact tries them)\n" : "\n");
    tell_unrunnable(result->best, text);
    pp_text_string(text, "\n");
    pp_report_stages(result->best, text);
    frontier_text(result, text);
    if (!explain || result->explanation.length == 0) return;
    pp_text_string(text, "\n");
    pp_text_append(text, result->explanation.bytes, result->explanation.length);
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static pp_status write_plan(const char *path, const pp_plan *plan, pp_error *error) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_plan_write(plan, &json);
    pp_text_string(&text, "\n");
    pp_status status = pp_file_write(path, &text, error);
    pp_text_deinit(&text);
    return status;
}

/* One plan: searched, written, printed. */
static pp_status answer(const plan_settings *settings, planning *p, pp_output *output,
                        pp_error *error) {
    pp_status status = pp_plan_search(&p->request, &p->result, error);
    bool replicated = status == PP_OK && !p->result->best;
    if (replicated && settings->out)
        status = pp_fail(error, PP_E_UNSUPPORTED, "--out",
                         "stages have replicas of their own, which a plan document cannot say yet; "
                         "--json prints them, and --dp 1 makes a plan without them");
    if (status == PP_OK && settings->out)
        status = write_plan(settings->out, p->result->best, error);
    if (status == PP_OK && settings->json) result_json(p, &output->out);
    if (status == PP_OK && settings->json && settings->explain)
        fprintf(stderr, "%s", p->result->explanation.bytes ? p->result->explanation.bytes : "");
    if (status == PP_OK && !settings->json && replicated) replicated_text(p, &output->out);
    if (status == PP_OK && !settings->json && !replicated)
        result_text(p, settings->explain, &output->out);
    return status;
}

static pp_status run_plan(const void *settings_, const char *const *arguments, int count,
                          pp_output *output, pp_error *error) {
    const plan_settings *settings = settings_;
    planning p = {0};
    (void)arguments, (void)count;
    pp_status status = check_sweep(settings, error);
    if (status == PP_OK) status = open_inputs(settings, &p, error);
    if (status == PP_OK) fill_request(settings, &p);
    if (status == PP_OK) status = settle_idle(&p, error);
    if (status == PP_OK && settings->sweep)
        status = run_sweep(settings, &p, output, error);
    else if (status == PP_OK)
        status = answer(settings, &p, output, error);
    pp_plan_result_free(p.result);
    pp_costs_close(p.costs);
    pp_cluster_free(p.cluster);
    pp_model_free(p.model);
    return status;
}

const pp_subcommand pp_cmd_plan = {
    .name = "plan",
    .arguments = "",
    .summary = "picks ranks, microbatches, schedule, recomputation and split points",
    .description =
        "Searches every combination that is not pinned, under each rank's memory limit, and prints "
        "the one with the shortest step. Exit 3, with the nearest miss, when nothing fits. --sweep "
        "prints a curve instead; 'ppsim render --what sweep' draws what --sweep --json printed.",
    PP_OPTIONS(options),
    .defaults = &defaults,
    .settings_size = sizeof(plan_settings),
    .run = run_plan,
};
