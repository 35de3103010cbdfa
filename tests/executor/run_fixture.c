#include "run_fixture.h"

#include "executor/cuda/arithmetic.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool fixture_failed(char message[512], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, 512, format, arguments);
    va_end(arguments);
    return false;
}

const char fixture_gpt[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small-gpt\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"embedding\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"},"
    "{\"name\": \"b0\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8,"
    " \"dropout\": 0.1},"
    "{\"name\": \"b1\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8},"
    "{\"name\": \"b2\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8,"
    " \"dropout\": 0.2},"
    "{\"name\": \"norm\", \"op\": \"layer_norm\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"}]}";

/* Three numbers added in another order give another sum; two would not. */
const char fixture_ties[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"three-ties\", \"layers\": ["
    "{\"name\": \"e0\", \"op\": \"embedding\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"},"
    "{\"name\": \"e1\", \"op\": \"embedding\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"},"
    "{\"name\": \"add\", \"op\": \"add\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"b\", \"op\": \"gpt_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8},"
    "{\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"}],"
    "\"edges\": [[0,2],[1,2],[2,3],[3,4]]}";

/* Layer 0 is read by 1, 3 and 8, layer 3 by 4 and 6: borders carry one to three tensors. */
const char fixture_graph[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small-graph\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"embedding\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": "
    "8},"
    "{\"name\": \"expand\", \"op\": \"linear\", \"dim\": 16, \"output_dim\": 16,"
    " \"sequence\": 8},"
    "{\"name\": \"gelu\", \"op\": \"gelu\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"add0\", \"op\": \"add\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"norm\", \"op\": \"layer_norm\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"drop\", \"op\": \"dropout\", \"dim\": 16, \"sequence\": 8, \"dropout\": 0.25},"
    "{\"name\": \"add1\", \"op\": \"add\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"attend\", \"op\": \"attention\", \"dim\": 16, \"heads\": 4, \"sequence\": 8},"
    "{\"name\": \"add2\", \"op\": \"add\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"relu\", \"op\": \"relu\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"logits\", \"op\": \"linear\", \"dim\": 16, \"output_dim\": 32, \"sequence\": 8},"
    "{\"name\": \"loss\", \"op\": \"softmax_cross_entropy\", \"dim\": 32, \"sequence\": 8}],"
    "\"edges\": [[0,1],[1,2],[0,3],[2,3],[3,4],[4,5],[3,6],[5,6],[6,7],[0,8],[7,8],[8,9],[9,10],"
    "[10,11]]}";

const char fixture_llama[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small-llama\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"token_embedding\", \"vocabulary\": 32, \"dim\": 16,"
    " \"sequence\": 8},"
    "{\"name\": \"b0\", \"op\": \"llama_block\", \"dim\": 16, \"heads\": 4, \"kv_heads\": 2,"
    " \"hidden\": 24, \"sequence\": 8},"
    "{\"name\": \"norm\", \"op\": \"rms_norm\", \"dim\": 16, \"sequence\": 8},"
    "{\"name\": \"b1\", \"op\": \"llama_block\", \"dim\": 16, \"heads\": 2, \"kv_heads\": 1,"
    " \"head_dim\": 6, \"hidden\": 20, \"sequence\": 8, \"qkv_bias\": true},"
    "{\"name\": \"head\", \"op\": \"rms_lm_head\", \"vocabulary\": 32, \"dim\": 16,"
    " \"sequence\": 8}]}";

const char fixture_bert[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small-bert\", \"layers\": ["
    "{\"name\": \"embed\", \"op\": \"bert_embedding\", \"vocabulary\": 32, \"dim\": 16,"
    " \"sequence\": 8, \"tie\": \"wte\", \"dropout\": 0.1},"
    "{\"name\": \"b0\", \"op\": \"bert_block\", \"dim\": 16, \"heads\": 2, \"sequence\": 8,"
    " \"dropout\": 0.1},"
    "{\"name\": \"b1\", \"op\": \"bert_block\", \"dim\": 16, \"heads\": 2, \"hidden\": 20,"
    " \"sequence\": 8},"
    "{\"name\": \"head\", \"op\": \"mlm_head\", \"vocabulary\": 32, \"dim\": 16, \"sequence\": 8,"
    " \"tie\": \"wte\"}]}";

const char fixture_mlp[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"small-mlp\", \"layers\": ["
    "{\"name\": \"in\", \"op\": \"linear\", \"dim\": 12, \"output_dim\": 16, \"sequence\": 1},"
    "{\"name\": \"relu0\", \"op\": \"relu\", \"dim\": 16, \"sequence\": 1},"
    "{\"name\": \"mid\", \"op\": \"linear\", \"dim\": 16, \"output_dim\": 16, \"sequence\": 1},"
    "{\"name\": \"relu1\", \"op\": \"relu\", \"dim\": 16, \"sequence\": 1},"
    "{\"name\": \"out\", \"op\": \"linear\", \"dim\": 16, \"output_dim\": 5, \"sequence\": 1},"
    "{\"name\": \"loss\", \"op\": \"softmax_cross_entropy\", \"dim\": 5, \"sequence\": 1}]}";

const char fixture_opaque[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"known\", \"layers\": ["
    "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 0.0010, \"input_s\": 0.0007,"
    " \"weight_s\": 0.0005, \"parameter_bytes\": 4096, \"output_bytes\": 1000,"
    " \"activation_bytes\": 2000},"
    "{\"name\": \"b\", \"op\": \"opaque\", \"forward_s\": 0.0008, \"input_s\": 0.0009,"
    " \"weight_s\": 0.0006, \"parameter_bytes\": 4096, \"output_bytes\": 1000,"
    " \"activation_bytes\": 2000},"
    "{\"name\": \"c\", \"op\": \"opaque\", \"forward_s\": 0.0012, \"input_s\": 0.0004,"
    " \"weight_s\": 0.0003, \"parameter_bytes\": 4096, \"output_bytes\": 1000,"
    " \"activation_bytes\": 2000},"
    "{\"name\": \"d\", \"op\": \"opaque\", \"forward_s\": 0.0006, \"input_s\": 0.0011,"
    " \"weight_s\": 0.0008, \"parameter_bytes\": 4096, \"output_bytes\": 0,"
    " \"activation_bytes\": 2000}]}";

static bool give_up(char message[512], const char *what, const pp_error *error) {
    snprintf(message, 512, "%s: %.400s", what, error->message);
    return false;
}

/* ---- schedules by hand --------------------------------------------------------------------- */

typedef struct writer {
    pp_schedule *schedule;
    const fixture_request *request;
    size_t count;
} writer;

pp_recompute fixture_policy(int index) {
    static const pp_recompute policies[FIXTURE_POLICIES] = {
        PP_RECOMPUTE_NONE,      PP_RECOMPUTE_EVERY + 2, PP_RECOMPUTE_FULL,
        PP_RECOMPUTE_ATTENTION, PP_RECOMPUTE_EVERY + 1, PP_RECOMPUTE_EXCEPT_LAST,
        PP_RECOMPUTE_EVERY + 3};
    return policies[index % FIXTURE_POLICIES];
}

static pp_recompute policy_of(const fixture_request *request, int stage) {
    bool mixed = request->recompute == PP_RECOMPUTE_MIXED;
    return mixed ? fixture_policy(stage + request->microbatches) : request->recompute;
}

static void put(writer *w, pp_action_kind kind, int stage, int microbatch) {
    bool backward = kind == PP_BACKWARD || kind == PP_INPUT;
    if (backward &&
        pp_recompute_applies(policy_of(w->request, stage), microbatch, w->request->microbatches))
        put(w, PP_RECOMPUTE, stage, microbatch);
    w->schedule->actions[w->count++] =
        (pp_action){.kind = (unsigned)kind & 0x7fu,
                    .stage = (uint16_t)stage,
                    .microbatch = microbatch < 0 ? PP_NO_MICROBATCH : (uint32_t)microbatch};
}

static void write_gpipe(writer *w, int p) {
    int count = w->request->microbatches;
    for (int m = 0; m < count; m++) put(w, PP_FORWARD, p, m);
    for (int m = 0; m < count; m++) put(w, PP_BACKWARD, p, m);
}

static void write_1f1b(writer *w, int p) {
    int count = w->request->microbatches, ahead = w->request->ranks - 1 - p;
    for (int m = 0; m < count + ahead; m++) {
        if (m < count) put(w, PP_FORWARD, p, m);
        if (m >= ahead) put(w, PP_BACKWARD, p, m - ahead);
    }
}

/* W of a microbatch runs p microbatches after its I. */
static void write_split(writer *w, int p) {
    int count = w->request->microbatches, ahead = w->request->ranks - 1 - p;
    for (int m = 0; m < count + ahead; m++) {
        if (m < count) put(w, PP_FORWARD, p, m);
        if (m < ahead) continue;
        put(w, PP_INPUT, p, m - ahead);
        if (m - ahead >= p) put(w, PP_WEIGHT, p, m - ahead - p);
    }
    for (int m = count > p ? count - p : 0; m < count; m++) put(w, PP_WEIGHT, p, m);
}

static void write_pairs(writer *w, int p) {
    int count = w->request->microbatches, ahead = w->request->ranks - 1 - p;
    for (int m = 0; m < count + ahead; m++) {
        bool forward = m < count, backward = m >= ahead;
        if (ahead == 0) put(w, PP_FORWARD, p, m);
        if (backward) put(w, PP_BACKWARD, p, m - ahead);
        if (ahead == 0 || !forward) continue;
        if (backward) w->schedule->actions[w->count - 1].overlapped = 1;
        put(w, PP_FORWARD, p, m);
    }
}

static void write_loops(writer *w, int p) {
    int count = w->request->microbatches, ranks = w->request->ranks;
    for (int s = p; s < w->schedule->stages; s += ranks)
        for (int m = 0; m < count; m++) put(w, PP_FORWARD, s, m);
    for (int s = w->schedule->stages - ranks + p; s >= 0; s -= ranks)
        for (int m = 0; m < count; m++) put(w, PP_BACKWARD, s, m);
}

/* What ends a step: all reductions of the rank, then all its optimizer steps. */
static void write_end(writer *w, int p, const bool *reduces) {
    for (int s = p; s < w->schedule->stages; s += w->request->ranks)
        if (reduces[s]) put(w, PP_REDUCE_GRAD, s, -1);
    for (int s = p; s < w->schedule->stages; s += w->request->ranks) put(w, PP_STEP, s, -1);
}

static bool stage_reduces(const pp_plan *plan, int s) {
    if (plan->dp > 1) return true;
    for (int i = plan->stages[s].first; i <= plan->stages[s].last; i++)
        if (plan->model->layers[i].tie) return true;
    return false;
}

static pp_status write_schedule(const fixture_request *request, const pp_plan *plan,
                                pp_schedule **schedule, pp_error *error) {
    static void (*const orders[])(writer *, int) = {
        [ORDER_GPIPE] = write_gpipe, [ORDER_1F1B] = write_1f1b,   [ORDER_SPLIT] = write_split,
        [ORDER_PAIRS] = write_pairs, [ORDER_LOOPS] = write_loops,
    };
    int stages = plan->stage_count;
    bool reduces[PP_RANKS_MAX] = {false};
    size_t capacity = (size_t)stages * (4 * (size_t)request->microbatches + 2);
    PP_TRY(
        pp_schedule_new(request->ranks, stages, request->microbatches, capacity, schedule, error));
    writer w = {*schedule, request, 0};
    for (int s = 0; s < stages; s++) {
        w.schedule->placement[s] = s % request->ranks;
        reduces[s] = stage_reduces(plan, s);
    }
    for (int p = 0; p < request->ranks; p++) {
        w.schedule->first_action[p] = w.count;
        orders[request->order](&w, p);
        write_end(&w, p, reduces);
    }
    w.schedule->first_action[request->ranks] = w.count;
    snprintf(w.schedule->name, sizeof w.schedule->name, "by hand");
    return PP_OK;
}

/* ---- plans --------------------------------------------------------------------------------- */

static void set_stages(const fixture_request *request, pp_plan *plan) {
    int layers = plan->model->layer_count, stages = plan->stage_count;
    for (int s = 0; s < stages; s++) {
        pp_stage *stage = &plan->stages[s];
        bool even = request->splits[0] == 0;
        stage->first = s == 0 ? 0 : even ? s * layers / stages : request->splits[s - 1];
        int next = even ? (s + 1) * layers / stages : request->splits[s];
        stage->last = s == stages - 1 ? layers - 1 : next - 1;
        stage->recompute = policy_of(request, s);
        for (int i = stage->first; i <= stage->last; i++) {
            const pp_layer *layer = &plan->model->layers[i];
            stage->forward_s += layer->forward_s;
            stage->input_s += layer->input_s;
            stage->weight_s += layer->weight_s;
        }
        stage->recompute_s = stage->recompute == PP_RECOMPUTE_NONE ? 0 : stage->forward_s;
        stage->optimizer_s = 1e-4;
    }
}

static pp_layout_request layout_request(const pp_plan *plan, int s, bool split) {
    return (pp_layout_request){.model = plan->model,
                               .order = plan->order,
                               .first = plan->stages[s].first,
                               .last = plan->stages[s].last,
                               .samples = plan->microbatch_size,
                               .dtype = plan->dtype,
                               .optimizer = plan->optimizer,
                               .split_backward = split,
                               .recompute = plan->stages[s].recompute,
                               .dp = plan->dp};
}

static pp_status set_bytes(const fixture_request *request, pp_plan *plan, pp_error *error) {
    pp_arena arena;
    pp_arena_init(&arena);
    pp_status status = PP_OK;
    for (int s = 0; s < plan->stage_count && status == PP_OK; s++) {
        pp_stage_layout layout;
        pp_layout_request wanted = layout_request(plan, s, request->order == ORDER_SPLIT);
        status = pp_stage_layout_make(&wanted, &arena, &layout, error);
        if (plan->zero > 0)
            layout.bytes.optimizer =
                pp_sharded_optimizer_bytes(&layout.bytes, plan->dtype, plan->dp);
        plan->stages[s].bytes = layout.bytes;
    }
    pp_arena_deinit(&arena);
    return status;
}

static pp_status make_plan(const fixture_request *request, pp_plan **plan, pp_error *error) {
    int dp = request->dp > 0 ? request->dp : 1;
    int stages = request->ranks * (request->virtual_stages > 0 ? request->virtual_stages : 1);
    pp_model *model = NULL;
    pp_cluster *cluster = NULL;
    pp_status status =
        pp_model_read(request->model, strlen(request->model), "fixture", &model, error);
    if (status == PP_OK) status = pp_cluster_open("local", request->ranks * dp, &cluster, error);
    if (status == PP_OK)
        status = pp_plan_new(model, cluster, request->ranks, stages, dp, 1, plan, error);
    pp_model_free(model);
    pp_cluster_free(cluster);
    if (status != PP_OK) return status;
    pp_plan *made = *plan;
    made->microbatches = request->microbatches;
    made->microbatch_size = request->microbatch_size;
    made->global_batch = request->global_batch > 0
                             ? request->global_batch
                             : request->microbatch_size * request->microbatches * dp;
    made->zero = request->zero;
    made->dtype = request->dtype;
    made->optimizer = request->optimizer;
    made->recompute = request->recompute;
    snprintf(made->schedule, sizeof made->schedule, "by hand");
    set_stages(request, made);
    return set_bytes(request, made, error);
}

bool fixture_make(const fixture_request *request, fixture *made, char message[512]) {
    pp_error error = {.message = ""};
    *made = (fixture){NULL, NULL};
    pp_status status = make_plan(request, &made->plan, &error);
    if (status == PP_OK) status = write_schedule(request, made->plan, &made->schedule, &error);
    if (status == PP_OK) return true;
    fixture_free(made);
    return give_up(message, "making the fixture", &error);
}

void fixture_free(fixture *made) {
    pp_schedule_free(made->schedule);
    pp_plan_free(made->plan);
    *made = (fixture){NULL, NULL};
}

/* ---- running ------------------------------------------------------------------------------- */

static int64_t parameter_values(const pp_layer *layer, const char *stop_at) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, 1, PP_FP32, tensors);
    int64_t values = 0;
    for (int t = 0; t < count; t++) {
        if (tensors[t].role != PP_TENSOR_PARAMETER) continue;
        if (stop_at && strcmp(tensors[t].name, stop_at) == 0) return values;
        values += tensors[t].rows * tensors[t].columns;
    }
    return values;
}

static int64_t position_of(const pp_model *model, const pp_observed *observed) {
    int64_t position = 0;
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        if (strcmp(layer->name, observed->layer) == 0)
            return position + parameter_values(layer, observed->tensor);
        position += parameter_values(layer, NULL);
    }
    return position;
}

typedef struct run_context {
    fixture_record *record;
    const pp_run_options *options;
} run_context;

static double value_of(const pp_observed *observed, int64_t i) {
    if (observed->dtype == PP_FP64) return ((const double *)observed->values)[i];
    if (observed->dtype == PP_FP32) return (double)((const float *)observed->values)[i];
    return (double)bf16_to_float(((const uint16_t *)observed->values)[i]);
}

static void observe(void *context, const pp_observed *observed) {
    const run_context *run = context;
    const fixture_record *record = run->record;
    double *all = observed->gradient ? record->gradients : record->weights;
    size_t row = (size_t)(observed->step * record->replicas + observed->replica) * record->values;
    double *values = all + row + position_of(record->model, observed);
    for (int64_t i = 0; i < observed->count; i++) values[i] = value_of(observed, i);
}

static pp_status before_action(void *context, int rank, int replica, pp_action action,
                               pp_error *error) {
    const run_context *run = context;
    if (!run->options->before_action) return PP_OK;
    return run->options->before_action(run->options->context, rank, replica, action, error);
}

bool fixture_run(const fixture *what, int steps, const pp_run_options *options,
                 fixture_record *record, char message[512]) {
    const pp_plan *plan = what->plan;
    *record = (fixture_record){.steps = steps, .replicas = plan->dp, .model = plan->model};
    for (int i = 0; i < plan->model->layer_count; i++)
        record->values += (size_t)parameter_values(&plan->model->layers[i], NULL);
    size_t count = (size_t)(steps * plan->dp) * record->values;
    record->gradients = pp_allocate_zeroed(count, sizeof *record->gradients);
    record->weights = pp_allocate_zeroed(count, sizeof *record->weights);
    run_context context = {record, options};
    pp_run_options with = *options;
    with.steps = steps;
    with.observe = observe;
    with.before_action = before_action;
    with.context = &context;
    pp_run_result *result;
    pp_error error = {.message = ""};
    pp_status status = pp_run(plan, what->schedule, &with, &result, &error);
    if (status != PP_OK) return give_up(message, "running", &error);
    for (int i = 0; i < steps; i++) {
        record->losses[i] = result->steps[i].loss;
        record->norms[i] = result->steps[i].gradient_norm;
    }
    for (int p = 0; p < plan->ranks; p++)
        record->peak_bytes[p] = result->measured.rank[p].peak_bytes;
    pp_run_result_free(result);
    return true;
}

void fixture_record_free(fixture_record *record) {
    pp_free(record->gradients);
    pp_free(record->weights);
    *record = (fixture_record){0};
}

static bool same_norms(const fixture_record *a, const fixture_record *b, char message[512]) {
    for (int i = 0; i < a->steps; i++)
        if (a->norms[i] != b->norms[i] && !(isnan(a->norms[i]) && isnan(b->norms[i])))
            return fixture_failed(message, "norms of step %d: %.17g and %.17g", i, a->norms[i],
                                  b->norms[i]);
    return true;
}

bool fixture_same(const fixture_record *a, const fixture_record *b, char message[512]) {
    if (!same_norms(a, b, message)) return false;
    for (int i = 0; i < a->steps; i++)
        if (!isfinite(a->losses[i]) || a->losses[i] != b->losses[i]) {
            snprintf(message, 512, "losses of step %d: %.17g and %.17g", i, a->losses[i],
                     b->losses[i]);
            return false;
        }
    size_t count = (size_t)(a->steps * a->replicas) * a->values;
    const double *pairs[2][2] = {{a->gradients, b->gradients}, {a->weights, b->weights}};
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < count; i++) {
            if (pairs[k][0][i] == pairs[k][1][i] && isfinite(pairs[k][0][i])) continue;
            snprintf(message, 512, "%s %zu of step %zu: %.17g and %.17g",
                     k == 0 ? "gradient" : "weight", i % a->values,
                     i / a->values / (size_t)a->replicas, pairs[k][0][i], pairs[k][1][i]);
            return false;
        }
    return true;
}

double fixture_distance(const double *a, const double *b, size_t count) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference) / sqrt(norm);
}

/* ---- the oracle of memory ------------------------------------------------------------------ */

static bool comes_again(const fixture *what, int rank, pp_action forward) {
    const size_t *first = what->schedule->first_action;
    for (size_t i = first[rank]; i < first[rank + 1]; i++) {
        pp_action action = what->schedule->actions[i];
        if (action.kind == PP_RECOMPUTE && action.stage == forward.stage &&
            action.microbatch == forward.microbatch)
            return true;
    }
    return false;
}

static int64_t constant_bytes(const fixture *what, int rank) {
    const pp_plan *plan = what->plan;
    int input_slots[256], gradient_slots[256];
    if (pp_schedule_slots(what->schedule, input_slots, gradient_slots, NULL) != PP_OK) return -1;
    int64_t bytes = 0, workspace = 0;
    for (int s = 0; s < plan->stage_count; s++) {
        const pp_stage_bytes *b = &plan->stages[s].bytes;
        if (plan->placement[s] != rank) continue;
        bytes += b->parameters + b->gradients + b->optimizer + b->reduction +
                 b->input * input_slots[s] + b->output_gradient * gradient_slots[s];
        if (b->workspace > workspace) workspace = b->workspace;
    }
    return bytes + workspace;
}

int64_t fixture_peak(const fixture *what, int rank) {
    int64_t held = constant_bytes(what, rank), peak = held;
    const size_t *first = what->schedule->first_action;
    for (size_t i = first[rank]; i < first[rank + 1]; i++) {
        pp_action action = what->schedule->actions[i];
        const pp_stage_bytes *b = &what->plan->stages[action.stage].bytes;
        int64_t late = b->activation - b->released_by_input;
        int64_t rise = 0, fall = 0;
        if (action.kind == PP_FORWARD || action.kind == PP_RECOMPUTE) rise = b->activation;
        if (action.kind == PP_FORWARD && comes_again(what, rank, action)) fall = b->activation;
        if (action.kind == PP_INPUT) rise = b->stash, fall = b->released_by_input;
        if (action.kind == PP_WEIGHT) fall = late + b->stash;
        if (action.kind == PP_BACKWARD) fall = b->activation;
        held += rise;
        if (held > peak) peak = held;
        held -= fall;
    }
    return peak;
}
