/* A layer on a test bench: parameters, gradients, optimizer state and several sets of activations.
 *
 * In a pipeline a layer meets another microbatch at every call, and meets it again for the backward
 * pass only after other work. A bench that kept calling on the same buffers would find them in the
 * cache and be too fast. So calls rotate over sets of buffers, and the backward pass takes the set
 * whose forward is longest ago:
 *
 *     round j:   F on set j,   I and W on set j + 1 (its F was set_count − 1 rounds ago)
 *
 * Every set has run F before its I, and I before its W, so what they read is what they expect. The
 * optimizer step clears the gradients, as a real step does; its rate is so small that the weights
 * stay what they are. Sets have weights of their own, as the layers of a stage have. */
#include "executor/cuda/arithmetic.h"
#include "executor/measure_internal.h"

#include <stdio.h>

#define SETS_MAX 6
/* More sets than fill this tell nothing new: some times the last cache, of a CPU and of a device.
 */
#define SETS_BYTES ((int64_t)64 << 20)
#define DEVICE_SETS_BYTES ((int64_t)512 << 20)
#define INPUTS_MAX 16
#define PATTERN 16384 /* random numbers that fill everything, over and over */

typedef struct bench_set {
    void *tensors[PP_LAYER_TENSORS];
    void *inputs[INPUTS_MAX], *input_gradients[INPUTS_MAX];
    void *output_gradient;
} bench_set;

/* Of one layer, in blocks as a stage has them: the tensors follow each other. A stage has other
 * layers too, so that these are cold when their turn comes. */
typedef struct bench_weights {
    unsigned char *parameters, *gradients;
    void *states[PP_OPTIMIZER_STATES_MAX];
    void *gradient_of[PP_LAYER_TENSORS];
} bench_weights;

typedef struct block {
    void *bytes;
    size_t size_bytes;
} block;

struct pp_bench {
    pp_bench_request request;
    const pp_layer *layer;
    const pp_layer_ops *ops;
    pp_tensor tensors[PP_LAYER_TENSORS];
    int tensor_count, input_count;
    int64_t input_bytes[INPUTS_MAX], output_bytes;
    bench_set sets[SETS_MAX];
    int set_count;
    int turn[PP_PHASE_COUNT]; /* calls so far: the next takes set turn % set_count */
    bench_weights weights[SETS_MAX];
    int weights_count; /* set i has weights i % weights_count */
    int32_t *tokens, *targets;
    double loss;
    pp_status status; /* the first failure of a call … */
    pp_error error;   /* … and what the device said */
    int64_t step;
    block blocks[SETS_MAX * (PP_LAYER_TENSORS + 2 * INPUTS_MAX + PP_OPTIMIZER_STATES_MAX + 3) +
                 PP_LAYER_TENSORS + 2];
    int block_count;
};

/* ---- sizes ---- */

static int64_t rows(const pp_bench *bench) {
    int64_t sequence = bench->layer->sequence > 0 ? bench->layer->sequence : 1;
    return bench->request.samples * sequence;
}

static int64_t output_bytes_of(const pp_layer *layer, int64_t samples, pp_dtype dtype) {
    pp_tensor tensors[PP_LAYER_TENSORS];
    int count = pp_layer_tensors(layer, samples, dtype, tensors);
    for (int i = 0; i < count; i++)
        if (tensors[i].role == PP_TENSOR_OUTPUT) return pp_tensor_bytes(&tensors[i]);
    return 0;
}

/* What the layer reads: the outputs before it. The first layer of a model is fed as if it stood in
 * the middle, since its signature may well stand there too. */
static void find_inputs(pp_bench *bench) {
    const pp_bench_request *request = &bench->request;
    const pp_model *model = request->model;
    if (pp_layer_needs_get(bench->layer->op).takes_tokens) return;
    for (int i = 0; i < model->edge_count; i++)
        if (model->edges[i].to == request->layer && bench->input_count < INPUTS_MAX)
            bench->input_bytes[bench->input_count++] = output_bytes_of(
                &model->layers[model->edges[i].from], request->samples, request->dtype);
    if (bench->input_count > 0) return;
    bench->input_bytes[bench->input_count++] =
        rows(bench) * bench->layer->dim * pp_dtype_bytes(request->dtype);
}

static bool in_every_set(pp_tensor_role role) {
    return role != PP_TENSOR_PARAMETER && role != PP_TENSOR_WORKSPACE;
}

static int64_t set_bytes(const pp_bench *bench) {
    int64_t sum = bench->output_bytes;
    for (int i = 0; i < bench->input_count; i++) sum += 2 * bench->input_bytes[i];
    for (int t = 0; t < bench->tensor_count; t++)
        if (in_every_set(bench->tensors[t].role)) sum += pp_tensor_bytes(&bench->tensors[t]);
    return sum;
}

static int64_t role_bytes(const pp_bench *bench, pp_tensor_role role) {
    int64_t sum = 0;
    for (int t = 0; t < bench->tensor_count; t++)
        if (bench->tensors[t].role == role) sum += pp_tensor_bytes(&bench->tensors[t]);
    return sum;
}

/* Weights, gradients and at most so much for states. */
static int64_t shared_bytes(const pp_bench *bench) {
    int64_t states = bench->request.dtype == PP_BF16 ? 6 : 2;
    return (2 + states) * bench->weights_count * role_bytes(bench, PP_TENSOR_PARAMETER) +
           role_bytes(bench, PP_TENSOR_WORKSPACE);
}

static int count_for(int64_t all, int64_t each, int most) {
    int64_t count = each > 0 ? all / each : most;
    return count < 1 ? 1 : count > most ? most : (int)count;
}

static void choose_set_count(pp_bench *bench) {
    int64_t all = bench->request.backend->device_memory ? DEVICE_SETS_BYTES : SETS_BYTES;
    bench->set_count = count_for(all, set_bytes(bench), SETS_MAX);
    bench->weights_count = count_for(all, role_bytes(bench, PP_TENSOR_PARAMETER), bench->set_count);
}

/* Memory that can be had without swapping; 0: not known. */
static int64_t available_bytes(void) {
    char line[128];
    long long kibibytes = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lld kB", &kibibytes) == 1) break;
    if (file) fclose(file);
    return 1024 * kibibytes;
}

static pp_status no_memory(const pp_bench *bench, double wanted_bytes, pp_error *error) {
    char text[32];
    return pp_fail(error, PP_E_OUT_OF_MEMORY, "--microbatch",
                   "measuring layer '%s' with microbatches of %lld needs %s of memory, which is "
                   "not there; leave this size out",
                   bench->layer->name, (long long)bench->request.samples,
                   pp_format_bytes(wanted_bytes, text));
}

static pp_status check_memory(const pp_bench *bench, pp_error *error) {
    double one = (double)shared_bytes(bench) + (double)(bench->set_count * set_bytes(bench));
    double all = one * bench->request.copies;
    int64_t available = bench->request.backend->device_memory ? 0 : available_bytes();
    if (available > 0 && all > 0.9 * (double)available) return no_memory(bench, all, error);
    return PP_OK;
}

/* ---- buffers ---- */

static void *take(pp_bench *bench, int64_t size_bytes) {
    size_t size = size_bytes > 0 ? (size_t)size_bytes : 1;
    void *bytes = bench->request.backend->allocate(bench->request.state, size);
    if (!bytes) return NULL;
    bench->request.backend->fill(bench->request.state, bytes, 0, size);
    bench->blocks[bench->block_count++] = (block){bytes, size};
    return bytes;
}

static bench_weights *weights_of(pp_bench *bench, int set) {
    return &bench->weights[set % bench->weights_count];
}

/* States are fp32 beside bf16. */
static int64_t state_bytes(const pp_bench *bench, int64_t parameter_bytes) {
    return bench->request.dtype == PP_BF16 ? 2 * parameter_bytes : parameter_bytes;
}

/* Where a parameter stands in a block of weights; of the tensor behind the last: the block's bytes.
 */
static int64_t parameter_offset(const pp_bench *bench, int tensor) {
    int64_t offset = 0;
    for (int t = 0; t < tensor; t++)
        if (bench->tensors[t].role == PP_TENSOR_PARAMETER)
            offset += (pp_tensor_bytes(&bench->tensors[t]) + 63) / 64 * 64;
    return offset;
}

static bool take_weights(pp_bench *bench, bench_weights *w) {
    int64_t bytes = parameter_offset(bench, bench->tensor_count);
    w->parameters = take(bench, bytes);
    w->gradients = take(bench, bytes);
    if (!w->parameters || !w->gradients) return false;
    for (int k = 0; k < pp_optimizer_states(PP_ADAMW, bench->request.dtype); k++) {
        w->states[k] = take(bench, state_bytes(bench, bytes));
        if (!w->states[k]) return false;
    }
    for (int t = 0; t < bench->tensor_count; t++)
        if (bench->tensors[t].role == PP_TENSOR_PARAMETER)
            w->gradient_of[t] = w->gradients + parameter_offset(bench, t);
    return true;
}

static bool take_shared(pp_bench *bench) {
    for (int i = 0; i < bench->weights_count; i++)
        if (!take_weights(bench, &bench->weights[i])) return false;
    for (int t = 0; t < bench->tensor_count; t++) {
        pp_tensor_role role = bench->tensors[t].role;
        void *workspace = NULL;
        if (in_every_set(role)) continue;
        if (role == PP_TENSOR_WORKSPACE) {
            workspace = take(bench, pp_tensor_bytes(&bench->tensors[t]));
            if (!workspace) return false;
        }
        for (int set = 0; set < bench->set_count; set++)
            bench->sets[set].tensors[t] =
                workspace ? workspace
                          : weights_of(bench, set)->parameters + parameter_offset(bench, t);
    }
    bench->tokens = take(bench, rows(bench) * 4);
    bench->targets = take(bench, rows(bench) * 4);
    return bench->tokens && bench->targets;
}

static bool take_set(pp_bench *bench, bench_set *set) {
    for (int t = 0; t < bench->tensor_count; t++) {
        if (!in_every_set(bench->tensors[t].role)) continue;
        set->tensors[t] = take(bench, pp_tensor_bytes(&bench->tensors[t]));
        if (!set->tensors[t]) return false;
    }
    for (int i = 0; i < bench->input_count; i++) {
        set->inputs[i] = take(bench, bench->input_bytes[i]);
        set->input_gradients[i] = take(bench, bench->input_bytes[i]);
        if (!set->inputs[i] || !set->input_gradients[i]) return false;
    }
    set->output_gradient = take(bench, bench->output_bytes);
    return set->output_gradient != NULL;
}

static bool take_everything(pp_bench *bench) {
    bool taken = take_shared(bench);
    for (int set = 0; taken && set < bench->set_count; set++)
        taken = take_set(bench, &bench->sets[set]);
    return taken;
}

/* ---- contents ---- */

/* Normal numbers times scale, in the bench's real type. */
static void write_pattern(pp_dtype dtype, const double *pattern, double scale, void *out) {
    for (int64_t i = 0; i < PATTERN; i++) {
        double value = scale * pattern[i];
        if (dtype == PP_FP64)
            ((double *)out)[i] = value;
        else if (dtype == PP_FP32)
            ((float *)out)[i] = (float)value;
        else
            ((uint16_t *)out)[i] = bf16_from_float((float)value);
    }
}

/* The pattern, repeating: drawing each number would take longer than measuring. */
static void fill(const pp_bench *bench, const void *typed, void *buffer, int64_t size_bytes) {
    const pp_backend *backend = bench->request.backend;
    int64_t chunk = PATTERN * pp_dtype_bytes(bench->request.dtype);
    for (int64_t at = 0; at < size_bytes; at += chunk) {
        int64_t some = size_bytes - at < chunk ? size_bytes - at : chunk;
        backend->upload(bench->request.state, (char *)buffer + at, typed, (size_t)some);
    }
}

static pp_status fill_labels(pp_bench *bench, pp_error *error) {
    const pp_layer *layer = bench->layer;
    const pp_backend *backend = bench->request.backend;
    int64_t classes = layer->vocabulary > 0 ? layer->vocabulary : layer->dim;
    size_t size_bytes = (size_t)rows(bench) * sizeof(int32_t);
    bool hidden = pp_layer_needs_get(layer->op).masks_tokens;
    pp_random_key key = pp_random_key_make(2, "labels", 0);
    int32_t *labels = pp_allocate(size_bytes);
    if (!labels) return pp_fail_memory(error);
    for (uint64_t which = 0; which < 2; which++) {
        for (int64_t i = 0; i < rows(bench); i++) {
            uint64_t counter = 2 * (uint64_t)(i % PATTERN) + which;
            labels[i] = (int32_t)pp_random_below(key, counter, (uint64_t)classes);
            if (which == 1 && hidden && i % 20 >= 3) labels[i] = -1; /* 15 % have one (data.c) */
        }
        backend->upload(bench->request.state, which ? bench->targets : bench->tokens, labels,
                        size_bytes);
    }
    pp_free(labels);
    return PP_OK;
}

static void fill_sets(pp_bench *bench, const double *pattern, void *typed) {
    write_pattern(bench->request.dtype, pattern, 1, typed);
    for (int s = 0; s < bench->set_count; s++)
        for (int i = 0; i < bench->input_count; i++)
            fill(bench, typed, bench->sets[s].inputs[i], bench->input_bytes[i]);
    write_pattern(bench->request.dtype, pattern, 1e-2, typed);
    for (int s = 0; s < bench->set_count; s++)
        fill(bench, typed, bench->sets[s].output_gradient, bench->output_bytes);
}

/* All alike, since drawing them takes long. */
static void fill_weights(pp_bench *bench, pp_random_key key) {
    const pp_backend *backend = bench->request.backend;
    if (!pp_layer_needs_get(bench->layer->op).has_weights) return;
    bench->ops->initialise(bench->layer, key, bench->sets[0].tensors);
    for (int i = 1; i < bench->weights_count; i++)
        backend->copy(bench->request.state, bench->weights[i].parameters,
                      bench->weights[0].parameters,
                      (size_t)parameter_offset(bench, bench->tensor_count));
}

static pp_status fill_everything(pp_bench *bench, pp_error *error) {
    double *pattern = pp_allocate_zeroed(2 * PATTERN, sizeof *pattern);
    if (!pattern) return pp_fail_memory(error);
    pp_random_key key = pp_random_key_make(1, "measure", 0);
    for (uint64_t i = 0; i < PATTERN; i++) pattern[i] = pp_random_normal(key, i);
    fill_sets(bench, pattern, pattern + PATTERN);
    pp_free(pattern);
    PP_TRY(fill_labels(bench, error));
    fill_weights(bench, key);
    return PP_OK;
}

/* ---- calls ---- */

static void run_function(pp_bench *bench, int number, pp_layer_function *function) {
    static const bool accumulate[INPUTS_MAX];
    bench_set *set = &bench->sets[number];
    pp_layer_call call = {.layer = bench->layer,
                          .samples = bench->request.samples,
                          .tensors = set->tensors,
                          .gradients = weights_of(bench, number)->gradient_of,
                          .inputs = (const void *const *)set->inputs,
                          .input_count = bench->input_count,
                          .output_gradient = set->output_gradient,
                          .input_gradients = set->input_gradients,
                          .accumulate = accumulate,
                          .tokens = bench->tokens,
                          .targets = bench->targets,
                          .gradient_scale = 1 / (double)rows(bench),
                          .loss = &bench->loss,
                          .key = pp_random_key_make(3, "dropout", 0),
                          .training = true};
    function(&call);
}

static void run_optimizer(pp_bench *bench, int number) {
    const pp_backend *backend = bench->request.backend;
    bench_weights *w = weights_of(bench, number);
    pp_optimizer_settings settings = pp_optimizer_defaults(PP_ADAMW);
    settings.learning_rate = 1e-12;
    int64_t bytes = parameter_offset(bench, bench->tensor_count);
    backend->step(bench->request.state, &settings, bench->request.dtype, ++bench->step,
                  bytes / pp_dtype_bytes(bench->request.dtype), w->parameters, w->gradients,
                  w->states);
    backend->fill(bench->request.state, w->gradients, 0, (size_t)bytes);
}

bool pp_bench_has(const pp_bench *bench, pp_phase phase) {
    switch (phase) {
    case PP_PHASE_FORWARD:
        return true;
    case PP_PHASE_INPUT:
        return bench->ops->input != NULL;
    case PP_PHASE_WEIGHT:
        return bench->ops->weight != NULL;
    case PP_PHASE_OPTIMIZER:
        return pp_layer_needs_get(bench->layer->op).has_weights;
    default:
        return false;
    }
}

void pp_bench_run(pp_bench *bench, pp_phase phase) {
    int set = bench->turn[phase]++ % bench->set_count;
    if (phase == PP_PHASE_FORWARD) run_function(bench, set, bench->ops->forward);
    if (phase == PP_PHASE_INPUT) run_function(bench, set, bench->ops->input);
    if (phase == PP_PHASE_WEIGHT) run_function(bench, set, bench->ops->weight);
    if (phase == PP_PHASE_OPTIMIZER) run_optimizer(bench, set);
}

bool pp_bench_on_device(const pp_bench *bench) {
    return bench->request.backend->device_memory;
}

void pp_bench_wait(pp_bench *bench) {
    pp_status status = bench->request.backend->finish(bench->request.state, &bench->error);
    if (bench->status == PP_OK) bench->status = status;
}

pp_status pp_bench_status(const pp_bench *bench, pp_error *error) {
    if (bench->status != PP_OK && error) *error = bench->error;
    return bench->status;
}

/* ---- life ---- */

/* Every phase on every set, in the order of a pipeline; then the backward pass goes one set ahead
 * of the forward, which is where the oldest forward is. */
static void warm_up(pp_bench *bench) {
    for (int phase = PP_PHASE_FORWARD; phase <= PP_PHASE_OPTIMIZER; phase++)
        for (int set = 0; set < bench->set_count && pp_bench_has(bench, (pp_phase)phase); set++)
            pp_bench_run(bench, (pp_phase)phase);
    pp_bench_wait(bench);
    bench->turn[PP_PHASE_FORWARD] = 0;
    bench->turn[PP_PHASE_INPUT] = bench->turn[PP_PHASE_WEIGHT] = 1;
}

pp_status pp_bench_make(const pp_bench_request *request, pp_bench **out, pp_error *error) {
    *out = NULL;
    pp_bench *bench = pp_allocate_zeroed(1, sizeof *bench);
    if (!bench) return pp_fail_memory(error);
    bench->request = *request;
    bench->layer = &request->model->layers[request->layer];
    bench->ops = request->backend->layer(bench->layer->op, request->dtype);
    bench->tensor_count =
        pp_layer_tensors(bench->layer, request->samples, request->dtype, bench->tensors);
    bench->output_bytes = output_bytes_of(bench->layer, request->samples, request->dtype);
    find_inputs(bench);
    choose_set_count(bench);
    pp_status status = check_memory(bench, error);
    if (status == PP_OK && !take_everything(bench))
        status = no_memory(
            bench, (double)shared_bytes(bench) + (double)(bench->set_count * set_bytes(bench)),
            error);
    if (status == PP_OK) status = fill_everything(bench, error);
    if (status == PP_OK) warm_up(bench);
    if (status == PP_OK) status = pp_bench_status(bench, error);
    if (status == PP_OK)
        *out = bench;
    else
        pp_bench_free(bench);
    return status;
}

void pp_bench_free(pp_bench *bench) {
    if (!bench) return;
    const pp_bench_request *request = &bench->request;
    for (int i = bench->block_count - 1; i >= 0; i--)
        request->backend->release(request->state, bench->blocks[i].bytes,
                                  bench->blocks[i].size_bytes);
    pp_free(bench);
}
